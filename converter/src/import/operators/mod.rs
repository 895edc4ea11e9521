//! Translates operators that read activations into [`Op`]s.
//!
//! Each function takes a [`Call`] and gives the [`Slot`] of its result, or a [`Refusal`] that says why and what would
//! fix it. Approximations are never made.

mod linear;
mod windows;

use super::builder::{Builder, Call, Refusal, Slot};
use super::constant::{Constant, DType, Data};
use super::fold;
use super::shape;
use crate::graph::{ActivationRange, Op, Unary, ValueId};

type Result<T> = std::result::Result<T, Refusal>;

/// Gives the value that a node computes.
type Translator = fn(&mut Builder, &Call) -> Result<ValueId>;

fn translator(op: &str) -> Option<Translator> {
    Some(match op {
        "Conv" => windows::conv,
        "MaxPool" | "AveragePool" => windows::pool,
        "GlobalAveragePool" => global_average,
        "ReduceMean" => mean,
        "Gemm" => linear::gemm,
        "MatMul" => linear::matmul,
        "BatchNormalization" => linear::batch_norm,
        "Add" | "Sub" | "Mul" | "Div" => linear::arithmetic,
        "Neg" => linear::negate,
        "Relu" => |builder, call| unary(builder, call, Op::Clamp(ActivationRange::RELU)),
        "Clip" => clip,
        "Sigmoid" => |builder, call| unary(builder, call, Op::Unary(Unary::Sigmoid)),
        "Tanh" => |builder, call| unary(builder, call, Op::Unary(Unary::Tanh)),
        "Sin" => |builder, call| unary(builder, call, Op::Unary(Unary::Sin)),
        "Softmax" => softmax,
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => reshape,
        "Transpose" => transpose,
        "Pad" => pad,
        "Identity" => |_, call| call.activation(0),
        "Dropout" => |_, call| dropout(call),
        "Cast" | "CastLike" => |_, call| cast(call),
        _ => return None,
    })
}

/// Translates a node that reads at least one activation.
pub fn translate(builder: &mut Builder, call: &Call) -> Result<Slot> {
    let op = call.node.op_type.as_str();
    match (op, call.inputs.first()) {
        ("Shape" | "Size", _) => {
            let input = builder.graph.shape(call.activation(0)?);
            Ok(Slot::Constant(fold::shape_of(op, call.attributes(), input)?.into()))
        }
        // Activations are F32, so the type is known although the number behind it is not.
        ("CastLike", Some(Some(Slot::Constant(constant)))) => {
            Ok(Slot::Constant(fold::cast(constant, DType::F32, &mut builder.budget)?.into()))
        }
        _ => match translator(op) {
            Some(translate) => translate(builder, call).map(Slot::Activation),
            None => Err(unsupported(op, false)),
        },
    }
}

/// Whether [`translate`] knows the operator at all.
pub fn is_translated(op: &str) -> bool {
    matches!(op, "Shape" | "Size") || translator(op).is_some()
}

/// Operators whose result has the shape of their first input, so that what follows a refused one can still be judged.
pub fn keeps_shape(op: &str) -> bool {
    matches!(
        op,
        "LeakyRelu"
            | "PRelu"
            | "Elu"
            | "Selu"
            | "Celu"
            | "Gelu"
            | "HardSigmoid"
            | "HardSwish"
            | "Mish"
            | "Softplus"
            | "Softsign"
            | "Erf"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Abs"
            | "Cos"
            | "Reciprocal"
            | "Pow"
            | "Clip"
            | "Cast"
            | "Softmax"
            | "LogSoftmax"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "BatchNormalization"
            | "QuantizeLinear"
            | "DequantizeLinear"
    )
}

/// The refusal of an operator that has no translation.
pub fn unsupported(op: &str, constant: bool) -> Refusal {
    if constant {
        return Refusal::new(
            "cannot be computed at conversion time",
            "replace its result by an initializer (onnxsim or onnxruntime's basic optimisation does)",
        );
    }
    let fix = match op {
        "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu" | "Gelu" | "Erf" | "HardSigmoid" | "HardSwish"
        | "Mish" | "Softplus" | "Softsign" => "train with Relu, Relu6 (Clip), Sigmoid or Tanh instead",
        "QuantizeLinear"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "QLinearConv"
        | "QLinearMatMul"
        | "ConvInteger"
        | "MatMulInteger"
        | "QLinearAdd" => {
            "give the float model the quantised one was made from, and quantise by `--int8 --calibrate`"
        }
        "GRU" | "LSTM" | "RNN" | "Scan" => {
            "recurrent layers are not supported yet; use convolutions over time"
        }
        "If" | "Loop" => "export with control flow resolved (torch.jit.trace, onnxsim)",
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => {
            "train with batch normalisation, which folds into the layers"
        }
        "ConvTranspose" | "Resize" | "Upsample" => "upsampling is not supported yet; end the model before it",
        "LogSoftmax" => "end the model at its logits or with Softmax",
        "ArgMax" | "TopK" | "NonMaxSuppression" => "end the model before it and do this step on its output",
        _ => "end the model before it, or express it by supported operators (see the README's list)",
    };
    Refusal::new("has no translation to a step of the runtime", fix)
}

/// Name of the value that a call gives.
fn result<'a>(call: &Call<'a>) -> &'a str {
    call.node.output.first().map_or("", String::as_str)
}

fn unary(builder: &mut Builder, call: &Call, op: Op) -> Result<ValueId> {
    builder.push(&call.name, op, &[call.activation(0)?], result(call))
}

/// A reshape to `shape`; none if it is the shape already.
fn reshape_to(
    builder: &mut Builder,
    name: &str,
    x: ValueId,
    shape: Vec<usize>,
    value: &str,
) -> Result<ValueId> {
    if builder.graph.shape(x) == shape {
        return Ok(x);
    }
    builder.push(name, Op::Reshape(shape), &[x], value)
}

fn reshape(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    // A computed target or axes would be taken for one that is left out.
    call.optional_constant(1)?;
    let shape = fold::reshaped(&call.operands(), builder.graph.shape(x))?;
    reshape_to(builder, &call.name, x, shape, result(call))
}

fn transpose(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let rank = builder.graph.shape(x).len();
    let permutation = shape::permutation(rank, call.attributes().ints("perm")?)?;
    if permutation.iter().copied().eq(0..rank) {
        return Ok(x);
    }
    builder.push(&call.name, Op::Transpose(permutation), &[x], result(call))
}

/// Mean over `axes`; axis 0 must be none of them.
fn mean_over(builder: &mut Builder, call: &Call, axes: Vec<usize>, keep_axes: bool) -> Result<ValueId> {
    if axes.contains(&0) {
        return Err(Refusal::new("averages over the batch axis", "average over the other axes only"));
    }
    unary(builder, call, Op::Mean { axes, keep_axes })
}

fn global_average(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let rank = builder.graph.shape(call.activation(0)?).len();
    if rank < 3 {
        return Err(format!("needs at least 3 axes, got {rank}").into());
    }
    mean_over(builder, call, (2..rank).collect(), true)
}

fn mean(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    call.optional_constant(1)?;
    let (axes, keep) = fold::reduced_axes(&call.operands(), builder.graph.shape(x).len())?;
    if axes.is_empty() {
        return Ok(x);
    }
    mean_over(builder, call, axes, keep)
}

/// Bounds are attributes before operator set 11, inputs since.
fn clip(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let bound = |k, name, default| {
        let bound = match call.optional_constant(k)? {
            Some(constant) => single(constant)?,
            None => f64::from(call.attributes().float(name, default)?),
        };
        if bound.is_nan() { Err(Refusal::from("has a bound that is NaN")) } else { Ok(bound as f32) }
    };
    let low = bound(1, "min", f32::NEG_INFINITY)?;
    let high = bound(2, "max", f32::INFINITY)?;
    // Where the bounds cross, the upper one wins.
    let low = low.min(high);
    // Before version 11 the defaults were the largest finite numbers.
    let range = ActivationRange {
        low: if low == f32::MIN { f32::NEG_INFINITY } else { low },
        high: if high == f32::MAX { f32::INFINITY } else { high },
    };
    if range.is_none() {
        return Ok(x);
    }
    unary(builder, call, Op::Clamp(range))
}

/// The number in a tensor of one element.
fn single(constant: &Constant) -> Result<f64> {
    match &constant.data {
        Data::Float(data) if data.len() == 1 => Ok(data[0]),
        Data::Integer(data) if data.len() == 1 => Ok(data[0] as f64),
        _ => Err("needs a single number".into()),
    }
}

/// Over one axis since operator set 13; before, over all axes from `axis` on taken as one.
fn softmax(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let shape = builder.graph.shape(x).to_vec();
    let default = if call.opset >= 13 { -1 } else { 1 };
    let axis = shape::axis(call.attributes().int("axis", default)?, shape.len())?;
    let over_batch = || Refusal::new("runs over the batch axis", "set its axis to that of the classes");
    let behind: Vec<usize> = (axis..shape.len()).filter(|axis| shape[*axis] > 1).collect();
    let axis = match behind.as_slice() {
        _ if call.opset >= 13 => axis,
        [] => shape.len() - 1,
        [only] => *only,
        _ => {
            let flat = shape::flatten(&shape, axis as i64)?;
            let flat = reshape_to(builder, &format!("{}/flatten", call.name), x, flat, &call.name)?;
            let name = format!("{}/flat", result(call));
            let flat = builder.push(&call.name, Op::Softmax { axis: 1 }, &[flat], &name)?;
            return reshape_to(builder, &format!("{}/restore", call.name), flat, shape, result(call));
        }
    };
    if axis == 0 {
        return Err(over_batch());
    }
    unary(builder, call, Op::Softmax { axis })
}

fn pad(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    (1..call.inputs.len()).try_for_each(|k| call.optional_constant(k).map(|_| ()))?;
    let mode = call.attributes().string("mode", "constant")?;
    if mode != "constant" {
        return Err(Refusal::new(
            format!("pads by `{mode}`"),
            "pad with a constant, or pad the input beforehand",
        ));
    }
    let (before, after, value) = fold::padding(&call.operands(), builder.graph.shape(x).len())?;
    if before.iter().chain(&after).any(|pad| *pad < 0) {
        return Err(Refusal::new("crops (negative pads)", "crop the input of the model beforehand"));
    }
    if before.iter().chain(&after).all(|pad| *pad == 0) {
        return Ok(x);
    }
    let value = value.unwrap_or(0.0) as f32;
    // Minus infinity is neutral to a maximum, so a pooling behind can absorb it.
    if !value.is_finite() && value != f32::NEG_INFINITY {
        return Err(Refusal::new(format!("pads with {value}"), "use the pads of the pooling that follows"));
    }
    if before.first() != Some(&0) || after.first() != Some(&0) {
        return Err(Refusal::new("pads the batch axis", "pad the other axes only"));
    }
    let extents =
        |pads: &[i64]| pads.iter().map(|pad| shape::extent(*pad)).collect::<std::result::Result<_, _>>();
    let op = Op::Pad { before: extents(&before)?, after: extents(&after)?, value };
    unary(builder, call, op)
}

fn dropout(call: &Call) -> Result<ValueId> {
    match call.optional_constant(2)? {
        Some(training) if single(training)? != 0.0 => {
            Err(Refusal::new("is in training mode", "export the model for inference (model.eval())"))
        }
        _ => call.activation(0),
    }
}

/// Activations are 32-bit floats, and stay so.
fn cast(call: &Call) -> Result<ValueId> {
    let to = match call.inputs.get(1) {
        Some(Some(Slot::Constant(like))) => like.dtype,
        Some(Some(_)) => DType::F32,
        _ => DType::from_code(call.attributes().int("to", 0)?)?,
    };
    if to != DType::F32 {
        return Err(Refusal::new(
            format!("converts an activation to {to:?}"),
            "export the whole model in float32",
        ));
    }
    call.activation(0)
}
