//! Outputs that `goldens/record.py` recorded from LiteRT's int8 reference kernels, reproduced bit for bit from their scales and weights.

use crate::step::{Bytes, Step, tensor};
use crate::{add_parameters, softmax_parameters};
use serde_json::Value;
use tucano::blob::{DType, TensorRecord};
use tucano::ops::{OpCode, conv2d, dense, pool2d};
use tucano::quant;

const RECORDS: &str = include_str!("../../goldens/litert.jsonl");

fn integers<T: TryFrom<i64>>(value: &Value) -> Vec<T> {
    value.as_array().unwrap().iter().map(|x| T::try_from(x.as_i64().unwrap()).ok().unwrap()).collect()
}

/// A recorded activation: its record, scale and data.
struct Activation {
    record: TensorRecord,
    scale: f64,
    data: Vec<i8>,
}

impl Activation {
    fn of(value: &Value) -> Self {
        let scale = value["scale"].as_f64().unwrap();
        let zero_point = value["zero_point"].as_i64().unwrap() as i32;
        let mut record = tensor(DType::I8, &integers::<usize>(&value["shape"]), zero_point);
        record.scale_bits = (scale as f32).to_bits();
        Self { record, scale, data: integers(&value["data"]) }
    }

    fn extents(&self) -> [u32; 4] {
        self.record.shape
    }
}

/// The clamp of a fused activation, in stored units.
fn bounds(case: &Value, output: &Activation) -> [i32; 2] {
    let stored = |real: f64| (real / output.scale).round() as i32 + output.record.zero_point;
    match case["activation"].as_str().unwrap() {
        "none" => [-128, 127],
        "relu" => [stored(0.0).max(-128), 127],
        "relu6" => [stored(0.0).max(-128), stored(6.0).min(127)],
        other => panic!("{other}"),
    }
}

/// Strides, dilations, kernel extents (rows, columns), and padding of top, left, bottom, right as TensorFlow counts it.
fn windows(case: &Value, input: &Activation, output: &Activation) -> [[u32; 2]; 5] {
    let [kernel, stride, dilation] =
        ["kernel", "stride", "dilation"].map(|key| <[u32; 2]>::try_from(integers(&case[key])).unwrap());
    let mut before = [0; 2];
    let mut after = [0; 2];
    if case["padding"] == "same" {
        for axis in 0..2 {
            let reach = (kernel[axis] - 1) * dilation[axis] + 1;
            let covered = (output.extents()[axis + 1] - 1) * stride[axis] + reach;
            let total = covered.saturating_sub(input.extents()[axis + 1]);
            before[axis] = total / 2;
            after[axis] = total - total / 2;
        }
    }
    [stride, dilation, kernel, before, after]
}

/// Weights, bias, multipliers and shifts. Weights of a depthwise layer are `[1][kh][kw][o]`, just as ours.
fn linear(case: &Value, input: &Activation, output: &Activation) -> Vec<(DType, Vec<u8>)> {
    let weights: Vec<i8> = integers(&case["weights"]["data"]);
    let bias: Vec<i32> = integers(&case["bias"]);
    let scales: Vec<f64> =
        case["weights"]["scales"].as_array().unwrap().iter().map(|scale| scale.as_f64().unwrap()).collect();
    let factor = |o: usize| {
        let scale = scales[if scales.len() == 1 { 0 } else { o }];
        quant::quantize_multiplier(input.scale * scale / output.scale)
    };
    let (multipliers, shifts): (Vec<i32>, Vec<i32>) = (0..bias.len()).map(factor).unzip();
    let words = |values: &[i32]| (i32::DTYPE, i32::bytes(values));
    vec![(i8::DTYPE, i8::bytes(&weights)), words(&bias), words(&multipliers), words(&shifts)]
}

fn step(case: &Value, inputs: &[Activation], output: &Activation) -> Step {
    let op = case["op"].as_str().unwrap();
    let input = &inputs[0];
    let (op, weights, parameters) = match op {
        "conv2d" | "depthwise_conv2d" => {
            let [[stride_h, stride_w], [dilation_h, dilation_w], [kernel_h, kernel_w], before, after] =
                windows(case, input, output);
            let [act_min, act_max] = bounds(case, output).map(|bound| bound as u32);
            let depthwise = op == "depthwise_conv2d";
            let parameters = conv2d::Parameters {
                stride_h,
                stride_w,
                pad_top: before[0],
                pad_left: before[1],
                pad_bottom: after[0],
                pad_right: after[1],
                dilation_h,
                dilation_w,
                kernel_h,
                kernel_w,
                groups: if depthwise { input.extents()[3] } else { 1 },
                act_min,
                act_max,
            };
            let code = if depthwise { OpCode::DepthwiseConv2dI8 } else { OpCode::Conv2dI8 };
            (code, linear(case, input, output), parameters.emit().to_vec())
        }
        "dense" => {
            let [act_min, act_max] = bounds(case, output).map(|bound| bound as u32);
            let parameters = dense::Parameters { act_min, act_max };
            (OpCode::DenseI8, linear(case, input, output), parameters.emit().to_vec())
        }
        "max_pool2d" | "average_pool2d" => {
            let [[stride_h, stride_w], _, [kernel_h, kernel_w], before, after] = windows(case, input, output);
            let [act_min, act_max] = bounds(case, output).map(|bound| bound as u32);
            let parameters = pool2d::Parameters {
                stride_h,
                stride_w,
                pad_top: before[0],
                pad_left: before[1],
                pad_bottom: after[0],
                pad_right: after[1],
                kernel_h,
                kernel_w,
                count_include_pad: 0,
                act_min,
                act_max,
            };
            let code = if op == "max_pool2d" { OpCode::MaxPool2dI8 } else { OpCode::AveragePool2dI8 };
            (code, vec![], parameters.emit().to_vec())
        }
        "add" => {
            let scales = [input.scale, inputs[1].scale, output.scale];
            (OpCode::AddI8, vec![], add_parameters(scales, bounds(case, output)).emit().to_vec())
        }
        "softmax" => {
            let scale = input.scale * case["beta"].as_f64().unwrap();
            (OpCode::SoftmaxI8, vec![], softmax_parameters(scale).emit().to_vec())
        }
        other => panic!("{other}"),
    };
    let inputs = inputs.iter().map(|input| (input.record, i8::bytes(&input.data))).collect();
    Step { op, inputs, output: output.record, weights, parameters, in_place: false }
}

#[test]
fn outputs_equal_those_of_litert() {
    let mut failures = Vec::new();
    let mut cases = 0;
    for (line, text) in RECORDS.lines().enumerate() {
        let case: Value = serde_json::from_str(text).unwrap();
        let inputs: Vec<Activation> = case["inputs"].as_array().unwrap().iter().map(Activation::of).collect();
        let output = Activation::of(&case["output"]);
        let given = i8::values(&step(&case, &inputs, &output).run().unwrap());
        let differ = given.iter().zip(&output.data).filter(|(a, b)| a != b).count();
        if differ > 0 || given.len() != output.data.len() {
            failures.push(format!("line {}: {} differ in {differ} of {}", line + 1, case["op"], given.len()));
        }
        cases += 1;
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(cases >= 30, "only {cases} records");
}
