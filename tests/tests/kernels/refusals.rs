//! What the checks of operators refuse: each change of a good step gives its own error.

use crate::step::{Bytes, Step, tensor};
use tucano::ErrorKind::{
    self, ElementType, OperandCount, Overlap, Parameter, Quantisation, Scratch, Shape, Weight, WeightLength,
};
use tucano::blob::{DType, Packing};
use tucano::ops::OpCode;

type Change = fn(&mut Step);

fn refuses(good: impl Fn() -> Step, changes: &[(ErrorKind, Change)]) {
    let step = good();
    step.run().expect("the unchanged step is good");
    for (at, (kind, change)) in changes.iter().enumerate() {
        let mut step = good();
        change(&mut step);
        let error = step.run().expect_err(&format!("change {at} of {:?} is accepted", step.op));
        assert_eq!(error.kind, *kind, "change {at} of {:?}", step.op);
    }
}

fn words(values: &[i32]) -> (DType, Vec<u8>) {
    (DType::I32, i32::bytes(values))
}

const M1: u32 = u32::MAX;

/// `[1, 4, 5, 2]` to `[1, 2, 3, 4]`.
fn convolution() -> Step {
    Step {
        op: OpCode::Conv2dI8,
        inputs: vec![(tensor(DType::I8, &[1, 4, 5, 2], 1), vec![0; 40])],
        output: tensor(DType::I8, &[1, 2, 3, 4], 0),
        weights: vec![(DType::I8, vec![0; 72]), words(&[0; 4]), words(&[1 << 30; 4]), words(&[-3; 4])],
        //                stride pads        dilation kernel groups bounds
        parameters: vec![2, 2, 1, 1, 0, 1, 1, 1, 3, 3, 1, -128i32 as u32, 127],
        in_place: false,
    }
}

#[test]
fn convolutions() {
    refuses(
        convolution,
        &[
            (OperandCount, |step| step.weights.truncate(3)),
            (OperandCount, |step| step.parameters.truncate(12)),
            (OperandCount, |step| step.inputs.push((tensor(DType::I8, &[1], 0), vec![0]))),
            (ElementType, |step| step.output.dtype = DType::I16),
            (ElementType, |step| step.weights[0] = words(&[0; 72])),
            (ElementType, |step| step.weights[3].0 = DType::F32),
            (WeightLength, |step| step.weights[0].1.truncate(71)),
            (WeightLength, |step| step.weights[1] = words(&[0; 5])),
            (WeightLength, |step| step.weights[2] = words(&[0; 3])),
            (WeightLength, |step| step.weights[3] = words(&[0; 3])),
            (Quantisation, |step| step.weights[2] = words(&[1, 1, -1, 1])),
            (Quantisation, |step| step.weights[3] = words(&[0, 31, 0, 0])),
            (Quantisation, |step| step.weights[3] = words(&[0, 0, 0, -32])),
            (Shape, |step| step.output.shape[0] = 2),
            (Shape, |step| step.output.shape[1] = 3),
            (Shape, |step| step.output.shape[2] = 2),
            (Shape, |step| step.output = tensor(DType::I8, &[2, 3, 4], 0)),
            (WeightLength, |step| step.output.shape[3] = 5),
            (Parameter, |step| step.parameters[0] = 0),
            // So long a stride leaves one window, not three.
            (Shape, |step| step.parameters[1] = M1),
            (Parameter, |step| step.parameters[2] = M1),
            (Parameter, |step| step.parameters[5] = i32::MAX as u32),
            (Parameter, |step| step.parameters[6] = 0),
            (Parameter, |step| step.parameters[7] = M1),
            (Parameter, |step| step.parameters[8] = 0),
            (Parameter, |step| step.parameters[9] = 8),
            (Parameter, |step| step.parameters[10] = 0),
            (Parameter, |step| step.parameters[10] = 3),
            (Parameter, |step| step.parameters[11] = -129i32 as u32),
            (Parameter, |step| step.parameters[12] = 128),
            (Parameter, |step| step.parameters[12] = -128i32 as u32 - 1),
            (ElementType, |step| step.op = OpCode::Conv2dI16),
            (ElementType, |step| step.op = OpCode::Conv2dI4),
            (ElementType, |step| step.weights[0].0 = DType::I4x2),
        ],
    );
    // Groups are the channels of a depthwise convolution, and bounds of `i16` are wider.
    refuses(
        || {
            let mut step = convolution();
            step.op = OpCode::DepthwiseConv2dI16;
            step.output.dtype = DType::I16;
            step.weights[0].1.truncate(36);
            step.parameters[10] = 2;
            step.parameters[12] = 32767;
            step
        },
        &[
            (Parameter, |step| step.parameters[10] = 1),
            (Parameter, |step| step.parameters[12] = 32768),
            (Quantisation, |step| step.output.zero_point = 1),
            (ElementType, |step| step.op = OpCode::DepthwiseConv2dI8),
        ],
    );
}

/// Of one kind of order, for the operator's output channels and inner products, and only where the operator takes it.
#[test]
fn packed_weights() {
    let kind = |step: &Step, packing, scratch| step.run_as(packing, scratch).map_err(|error| error.kind);
    let step = convolution().packed(Packing::Blocks4x16, 18);
    assert_eq!(step.weights[0].1.len(), 4 * 32);
    assert!(kind(&step, Packing::Blocks4x16, 0).is_ok());
    assert_eq!(kind(&step, Packing::Blocks8x16, 0), Err(WeightLength));
    assert_eq!(kind(&step, Packing::Rows, 0), Err(WeightLength));
    // Groups, depthwise convolutions, and constants that are no weights.
    let mut groups = convolution();
    groups.parameters[10] = 2;
    groups.weights[0].1.truncate(36);
    assert!(kind(&groups, Packing::Rows, 0).is_ok());
    assert_eq!(kind(&groups, Packing::Columns8, 0), Err(Parameter));
    let depthwise = Step { op: OpCode::DepthwiseConv2dI8, ..groups };
    assert!(kind(&depthwise, Packing::Rows, 0).is_ok());
    assert_eq!(kind(&depthwise, Packing::Columns8, 0), Err(Parameter));
    let mut four = convolution();
    four.op = OpCode::Conv2dI4;
    four.weights[0] = (DType::I4x2, vec![0; 36]);
    assert!(kind(&four, Packing::Rows, 0).is_ok());
    assert_eq!(kind(&four, Packing::Pairs, 0), Err(Weight));
    let table = Step {
        op: OpCode::TableI8,
        inputs: vec![(tensor(DType::I8, &[4], 0), vec![0; 4])],
        output: tensor(DType::I8, &[4], 0),
        weights: vec![(DType::I8, vec![0; 256])],
        parameters: vec![],
        in_place: false,
    };
    assert!(kind(&table, Packing::Rows, 0).is_ok());
    assert_eq!(kind(&table, Packing::Pairs, 0), Err(Parameter));
}

/// What moves windows off the rows that they replace.
#[test]
fn convolutions_in_place() {
    let good = || {
        let mut step = convolution();
        step.output = tensor(DType::I8, &[1, 4, 5, 2], 0);
        step.weights = vec![(DType::I8, vec![0; 36]), words(&[0; 2]), words(&[1 << 30; 2]), words(&[-3; 2])];
        step.parameters[..10].copy_from_slice(&[1, 1, 1, 1, 1, 1, 1, 1, 3, 3]);
        step.in_place = true;
        step
    };
    let kind = |change: Change, scratch| {
        let mut step = good();
        change(&mut step);
        step.run_as(Packing::Rows, scratch).map_err(|error| error.kind)
    };
    // Three of the four rows.
    assert!(kind(|_| (), 30).is_ok());
    assert_eq!(kind(|_| (), 29).err(), Some(Scratch));
    assert!(kind(|step| step.parameters[2..6].copy_from_slice(&[2, 0, 0, 2]), 30).is_ok());
    // Windows that begin below rows which were overwritten, fewer rows with a stride, other channels.
    assert_eq!(kind(|step| step.parameters[2..6].copy_from_slice(&[3, 1, 0, 1]), 640).err(), Some(Shape));
    let tall: Change = |step| {
        step.parameters[8] = 1;
        step.parameters[2..6].copy_from_slice(&[1, 1, 0, 1]);
        step.weights[0].1.truncate(12);
    };
    assert_eq!(kind(tall, 640).err(), Some(Shape));
    let strided: Change = |step| {
        step.parameters[..6].copy_from_slice(&[2, 1, 3, 1, 3, 1]);
    };
    assert_eq!(kind(strided, 640).err(), Some(Overlap));
    let wide: Change = |step| {
        step.output = tensor(DType::I8, &[1, 4, 5, 2], 0);
        step.inputs[0].0 = tensor(DType::I8, &[1, 4, 2, 5], 1);
        step.inputs[0].1 = vec![0; 40];
    };
    assert_eq!(kind(wide, 640).err(), Some(Shape));
    let float: Change = |step| {
        step.op = OpCode::Conv2dF32;
        step.inputs[0] = (tensor(DType::F32, &[1, 4, 5, 2], 0), vec![0; 160]);
        step.output = tensor(DType::F32, &[1, 4, 5, 2], 0);
        step.weights = vec![(DType::F32, vec![0; 144]), (DType::F32, vec![0; 8])];
    };
    assert_eq!(kind(float, 640).err(), Some(Overlap));
}

#[test]
fn dense_layers() {
    let good = || Step {
        op: OpCode::DenseF32,
        inputs: vec![(tensor(DType::F32, &[2, 3], 0), vec![0; 24])],
        output: tensor(DType::F32, &[2, 4], 0),
        weights: vec![(DType::F32, vec![0; 48]), (DType::F32, vec![0; 16])],
        parameters: vec![(-1f32).to_bits(), f32::INFINITY.to_bits()],
        in_place: false,
    };
    refuses(
        good,
        &[
            (Shape, |step| step.output.shape[0] = 3),
            (Shape, |step| step.output.rank = 3),
            (WeightLength, |step| step.output.shape[1] = 5),
            (WeightLength, |step| step.weights[1].1.truncate(12)),
            (ElementType, |step| step.weights[1].0 = DType::I32),
            (OperandCount, |step| step.op = OpCode::DenseI8),
            (Parameter, |step| step.parameters[0] = f32::NAN.to_bits()),
            (Parameter, |step| step.parameters[1] = (-2f32).to_bits()),
        ],
    );
    // Weights of 16 bits are finite.
    refuses(
        || Step {
            op: OpCode::DenseF16,
            inputs: vec![(tensor(DType::F32, &[2, 3], 0), vec![0; 24])],
            output: tensor(DType::F32, &[2, 4], 0),
            weights: vec![(DType::F16, vec![0; 24]), (DType::F32, vec![0; 16])],
            parameters: vec![(-1f32).to_bits(), 1f32.to_bits()],
            in_place: false,
        },
        &[
            (Parameter, |step| step.weights[0].1[23] = 0x7C),
            (WeightLength, |step| step.weights[0].1.truncate(22)),
            (ElementType, |step| step.weights[0].0 = DType::I16),
            (ElementType, |step| step.weights[1].0 = DType::F16),
            (ElementType, |step| step.op = OpCode::DenseF32),
            (OperandCount, |step| step.op = OpCode::DenseI8),
        ],
    );
    // Three weights of 4 bits a channel: two bytes.
    refuses(
        || Step {
            op: OpCode::DenseI4,
            inputs: vec![(tensor(DType::I8, &[2, 3], 0), vec![0; 6])],
            output: tensor(DType::I8, &[2, 4], 0),
            weights: vec![
                (DType::I4x2, vec![0; 8]),
                (DType::I32, vec![0; 16]),
                (DType::I32, vec![0; 16]),
                (DType::I32, vec![0; 16]),
            ],
            parameters: vec![-128i32 as u32, 127],
            in_place: false,
        },
        &[
            (WeightLength, |step| step.weights[0].1.truncate(6)),
            (WeightLength, |step| step.weights[0].1.resize(12, 0)),
            (ElementType, |step| step.weights[0].0 = DType::I8),
            (ElementType, |step| step.op = OpCode::DenseI8),
            (ElementType, |step| step.output.dtype = DType::I16),
        ],
    );
}

#[test]
fn pools() {
    let good = || Step {
        op: OpCode::AveragePool2dI8,
        inputs: vec![(tensor(DType::I8, &[1, 4, 4, 2], 3), vec![0; 32])],
        output: tensor(DType::I8, &[1, 2, 2, 2], 3),
        weights: vec![],
        //                stride pads     kernel count bounds
        parameters: vec![2, 2, 0, 0, 0, 0, 2, 2, 0, -128i32 as u32, 127],
        in_place: false,
    };
    refuses(
        good,
        &[
            (Shape, |step| step.output.shape[3] = 1),
            (Parameter, |step| {
                step.parameters[2] = 2;
                step.output.shape[1] = 3;
            }),
            (Parameter, |step| step.parameters[8] = 2),
            (Parameter, |step| step.parameters[10] = 128),
            (Quantisation, |step| step.output.zero_point = 4),
            (Quantisation, |step| step.output.scale_bits = 2f32.to_bits()),
        ],
    );
}

#[test]
fn means() {
    let good = || Step {
        op: OpCode::Mean2dI8,
        inputs: vec![(tensor(DType::I8, &[1, 4, 4, 2], 3), vec![0; 32])],
        output: tensor(DType::I8, &[1, 1, 1, 2], -7),
        weights: vec![],
        parameters: vec![1 << 30, -3i32 as u32, -128i32 as u32, 127],
        in_place: false,
    };
    refuses(
        good,
        &[
            (Shape, |step| step.output.shape[3] = 1),
            (Shape, |step| step.output.shape[2] = 2),
            (OperandCount, |step| step.parameters.truncate(3)),
            (ElementType, |step| step.output.dtype = DType::I16),
            (Parameter, |step| step.parameters[0] = -1i32 as u32),
            (Parameter, |step| step.parameters[1] = 31),
            // 255 * 16 * 2^20 passes 2^31.
            (Parameter, |step| step.parameters[1] = 20),
            (Parameter, |step| step.parameters[2] = -129i32 as u32),
            (Parameter, |step| step.parameters[3] = -129i32 as u32),
        ],
    );
}

#[test]
fn elementwise() {
    let record = || (tensor(DType::I8, &[2, 3], 0), vec![0; 6]);
    let good = || Step {
        op: OpCode::AddI8,
        inputs: vec![record(), record()],
        output: record().0,
        weights: vec![],
        parameters: vec![20, 1 << 30, 0, 1 << 30, -1i32 as u32, 1 << 30, -18i32 as u32, -128i32 as u32, 127],
        in_place: false,
    };
    refuses(
        good,
        &[
            (Shape, |step| step.inputs[1] = (tensor(DType::I8, &[3, 2], 0), vec![0; 6])),
            (ElementType, |step| step.inputs[1] = (tensor(DType::I16, &[2, 3], 0), vec![0; 12])),
            (Parameter, |step| step.parameters[0] = 23),
            (Parameter, |step| step.parameters[1] = M1),
            (Parameter, |step| step.parameters[2] = 1),
            (Parameter, |step| step.parameters[6] = -32i32 as u32),
            (Parameter, |step| step.parameters[7] = 128),
        ],
    );
    let good = || Step {
        op: OpCode::TableI8,
        inputs: vec![record()],
        output: record().0,
        weights: vec![(DType::I8, vec![0; 256])],
        parameters: vec![],
        in_place: true,
    };
    refuses(
        good,
        &[
            (WeightLength, |step| step.weights[0].1.truncate(255)),
            (ElementType, |step| step.weights[0] = words(&[0; 64])),
            (OperandCount, |step| step.parameters.push(0)),
        ],
    );
    let good = || Step {
        op: OpCode::UnaryF32,
        inputs: vec![(tensor(DType::F32, &[3], 0), vec![0; 12])],
        output: tensor(DType::F32, &[3], 0),
        weights: vec![],
        parameters: vec![3, 0, 0],
        in_place: true,
    };
    refuses(
        good,
        &[
            (Parameter, |step| step.parameters[0] = 4),
            (Parameter, |step| step.parameters[1] = 1f32.to_bits()),
        ],
    );
}

#[test]
fn softmax_and_permutation() {
    let good = || {
        let mut output = tensor(DType::I8, &[1, 4], -128);
        output.scale_bits = (1f32 / 256.0).to_bits();
        Step {
            op: OpCode::SoftmaxI8,
            inputs: vec![(tensor(DType::I8, &[1, 4], 0), vec![0; 4])],
            output,
            weights: vec![],
            parameters: vec![1 << 30, 20, -1000i32 as u32],
            in_place: true,
        }
    };
    refuses(
        good,
        &[
            (Quantisation, |step| step.output.zero_point = 0),
            (Quantisation, |step| step.output.scale_bits = 1f32.to_bits()),
            (Parameter, |step| step.parameters[0] = M1),
            (Parameter, |step| step.parameters[1] = 31),
            (Parameter, |step| step.parameters[2] = 1),
            (Shape, |step| {
                step.inputs[0] = (tensor(DType::I8, &[1, 4096], 0), vec![0; 4096]);
                step.output.shape[1] = 4096;
            }),
        ],
    );
    let good = || {
        let mut output = tensor(DType::I16, &[1, 4], -32768);
        output.scale_bits = (1f32 / 65536.0).to_bits();
        Step { op: OpCode::SoftmaxI16, output, in_place: false, ..good() }
    };
    refuses(
        good,
        &[
            (Quantisation, |step| step.output.zero_point = 0),
            (Quantisation, |step| step.output.scale_bits = (1f32 / 256.0).to_bits()),
            (ElementType, |step| {
                step.output.dtype = DType::I8;
                step.output.zero_point = -128;
            }),
        ],
    );
    let good = || Step {
        op: OpCode::PermuteI8,
        inputs: vec![(tensor(DType::I8, &[2, 3, 3], 0), vec![0; 18])],
        output: tensor(DType::I8, &[3, 2, 3], 0),
        weights: vec![],
        parameters: vec![1, 0, 2, 3],
        in_place: false,
    };
    refuses(
        good,
        &[
            (Shape, |step| step.parameters[2] = 1),
            (Shape, |step| step.parameters[2] = 3),
            (Shape, |step| step.parameters[2] = M1),
            (Shape, |step| step.output.shape = [2, 3, 3, 1]),
            (Shape, |step| step.output.rank = 4),
            (OperandCount, |step| step.parameters.truncate(3)),
        ],
    );
}
