//! Matrix products, and arithmetic with constants or between two activations.

use super::{Result, reshape_to, result};
use crate::graph::{ActivationRange, Affine, Dense, Op, Tensor, ValueId, Weight};
use crate::import::builder::{Builder, Call, Refusal, Slot};
use crate::import::constant::Constant;
use crate::import::shape::{self, Offsets};

/// Refuses numbers that left the range of `f32`.
fn finite(numbers: Vec<f32>) -> Result<Vec<f32>> {
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!("its constants give {} at flat index {at}", numbers[at]).into()),
        None => Ok(numbers),
    }
}

/// A dense layer whose weight is `matrix`, `[i, o]` or, if `transposed`, `[o, i]`, times `factor`.
fn dense(
    matrix: &[f32],
    [i, o]: [usize; 2],
    transposed: bool,
    factor: f32,
    bias: Option<Vec<f32>>,
) -> Result<Op> {
    let at = |row: usize, column: usize| matrix[if transposed { row * i + column } else { column * o + row }];
    let data = (0..o).flat_map(|row| (0..i).map(move |column| at(row, column) * factor)).collect();
    let weight = Weight::Dense(Tensor::new(vec![o, i], finite(data)?));
    Ok(Op::Dense(Dense { weight, bias, activation: ActivationRange::NONE }))
}

pub fn gemm(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let attributes = call.attributes();
    if attributes.int("transA", 0)? != 0 {
        return Err(Refusal::new("transposes its input (transA)", "transpose in a node of its own"));
    }
    let weight = call.constant(1)?;
    let transposed = attributes.int("transB", 0)? != 0;
    let [rows, columns] = *weight.shape.as_slice() else {
        return Err(format!("its weight {:?} is no matrix", weight.shape).into());
    };
    let [i, o] = if transposed { [columns, rows] } else { [rows, columns] };
    let [n, _] = *builder.graph.shape(x) else {
        return Err(format!("its input {:?} is no matrix", builder.graph.shape(x)).into());
    };
    let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
    let bias = match call.optional_constant(2)? {
        None => None,
        Some(bias) => {
            if shape::broadcast(&bias.shape, &[n, o])? != [n, o] {
                return Err(format!("its bias {:?} does not fit {:?}", bias.shape, [n, o]).into());
            }
            let strides = shape::broadcast_strides(&bias.shape, &[n, o]);
            if strides[0] != 0 {
                return Err(Refusal::new(
                    "has a bias that differs between rows",
                    "add it in a node of its own",
                ));
            }
            let data = bias.weight()?;
            Some(finite((0..o).map(|column| data[column * strides[1] as usize] * beta).collect())?)
        }
    };
    let op = dense(&weight.weight()?, [i, o], transposed, alpha, bias)?;
    builder.push(&call.name, op, &[x], result(call))
}

/// `x * w` for a constant `w`: a matrix, a vector, or a matrix with leading axes of extent 1.
pub fn matmul(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    if !matches!(call.inputs.get(1), Some(Some(Slot::Constant(_)))) {
        return Err(Refusal::new(
            "multiplies two computed values",
            "attention is not supported yet; the right operand must be constant",
        ));
    }
    if !matches!(call.inputs.first(), Some(Some(Slot::Activation(_)))) {
        return Err(Refusal::new(
            "multiplies a constant by a computed value",
            "swap the operands: (W x) is transpose(transpose(x) transpose(W))",
        ));
    }
    let (x, weight) = (call.activation(0)?, call.constant(1)?);
    let rank = builder.graph.shape(x).len();
    if rank < 2 {
        return Err(format!("its input {:?} has no batch axis", builder.graph.shape(x)).into());
    }
    let (leading, matrix) = weight.shape.split_at(weight.shape.len().saturating_sub(2));
    if leading.iter().any(|extent| *extent != 1) || weight.shape.len() > rank {
        return Err(Refusal::new(
            format!("multiplies by a stack of matrices {:?}", weight.shape),
            "use one matrix for all positions",
        ));
    }
    let [i, o] = match *matrix {
        [i, o] => [i, o],
        [i] => [i, 1],
        _ => return Err("its weight is a scalar".into()),
    };
    let op = dense(&weight.weight()?, [i, o], false, 1.0, None)?;
    let product = builder.push(&call.name, op, &[x], result(call))?;
    if matrix.len() == 2 {
        return Ok(product);
    }
    let shape = builder.graph.shape(x)[..rank - 1].to_vec();
    reshape_to(builder, &format!("{}/squeeze", call.name), product, shape, result(call))
}

/// Inference: a scale and a shift for each channel.
pub fn batch_norm(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let attributes = call.attributes();
    if attributes.int("training_mode", 0)? != 0 || attributes.int("spatial", 1)? != 1 {
        return Err(Refusal::new(
            "is in training mode or not per channel",
            "export the model for inference (model.eval())",
        ));
    }
    let numbers = |k| Ok::<_, Refusal>(call.constant(k)?.weight()?);
    let (gamma, beta, mean, variance) = (numbers(1)?, numbers(2)?, numbers(3)?, numbers(4)?);
    if [&beta, &mean, &variance].iter().any(|list| list.len() != gamma.len()) {
        return Err("its parameters differ in length".into());
    }
    let epsilon = f64::from(attributes.float("epsilon", 1e-5)?);
    let scale = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let shift = |c: usize| f64::from(beta[c]) - f64::from(mean[c]) * scale(c);
    let channels = 0..gamma.len();
    let op = Op::Affine(Affine {
        scale: finite(channels.clone().map(|c| scale(c) as f32).collect())?,
        shift: finite(channels.map(|c| shift(c) as f32).collect())?,
    });
    builder.push(&call.name, op, &[x], result(call))
}

/// `Add`, `Sub`, `Mul`, `Div` of an activation with a constant or another activation.
pub fn arithmetic(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let op = call.node.op_type.as_str();
    let slot = |k: usize| call.inputs.get(k).and_then(Option::as_ref);
    let scale = |constant: &Constant, x: ValueId, swapped: bool| -> Result<Terms> {
        let c = constant.weight()?;
        let zeros = vec![0.0; c.len()];
        let ones = vec![1.0; c.len()];
        let negative = |c: Vec<f32>| c.into_iter().map(|c| -c).collect::<Vec<_>>();
        let (scale, shift) = match (op, swapped) {
            ("Add", _) => (ones, c),
            ("Sub", false) => (ones, negative(c)),
            ("Sub", true) => (negative(ones), c),
            ("Mul", _) => (c, zeros),
            ("Div", false) => (finite(c.into_iter().map(|c| 1.0 / c).collect())?, zeros),
            _ => {
                return Err(Refusal::new(
                    "divides by a computed value",
                    "rewrite the model without a division by activations",
                ));
            }
        };
        Ok(Terms { x, shape: constant.shape.clone(), scale, shift })
    };
    let terms = match (slot(0), slot(1)) {
        (Some(Slot::Activation(x)), Some(Slot::Constant(c))) => scale(c, *x, false)?,
        (Some(Slot::Constant(c)), Some(Slot::Activation(x))) => scale(c, *x, true)?,
        (Some(Slot::Activation(a)), Some(Slot::Activation(b))) => return both(builder, call, *a, *b),
        _ => return Err("needs two inputs".into()),
    };
    if matches!(op, "Add" | "Sub")
        && terms.scale.iter().all(|scale| *scale == 1.0)
        && let Some(id) = add_bias(builder, call, &terms)
    {
        return Ok(id);
    }
    affine(builder, call, terms)
}

/// `-x`.
pub fn negate(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let terms = Terms { x: call.activation(0)?, shape: vec![], scale: vec![-1.0], shift: vec![0.0] };
    affine(builder, call, terms)
}

fn both(builder: &mut Builder, call: &Call, a: ValueId, b: ValueId) -> Result<ValueId> {
    let (left, right) = (builder.graph.shape(a).to_vec(), builder.graph.shape(b).to_vec());
    if left != right {
        return Err(Refusal::new(
            format!("combines computed values of shapes {left:?} and {right:?}"),
            "expand the smaller one, or use layers of equal shape",
        ));
    }
    let b = match call.node.op_type.as_str() {
        "Add" | "Mul" => b,
        "Sub" => {
            let terms = Terms { x: b, shape: vec![], scale: vec![-1.0], shift: vec![0.0] };
            let value = format!("{}/negative", result(call));
            affine_named(builder, &format!("{}/negate", call.name), &value, terms)?
        }
        _ => {
            return Err(Refusal::new(
                "divides by a computed value",
                "rewrite the model without a division by activations",
            ));
        }
    };
    let none = ActivationRange::NONE;
    let op = if call.node.op_type == "Mul" { Op::Mul(none) } else { Op::Add(none) };
    builder.push(&call.name, op, &[a, b], result(call))
}

/// `x * scale + shift`, where both have `shape`, which broadcasts to that of `x`.
struct Terms {
    x: ValueId,
    shape: Vec<usize>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Adds a constant over the last axis to the dense layer that gave `x`, if nothing else reads its result.
fn add_bias(builder: &mut Builder, call: &Call, terms: &Terms) -> Option<ValueId> {
    let shape = builder.graph.shape(terms.x).to_vec();
    let (&features, outer) = terms.shape.split_last()?;
    let fits = *shape.last()? == features && outer.iter().all(|extent| *extent == 1);
    let value = &builder.graph.value(terms.x).name;
    // The name tells whether `x` is the layer's own result and not an alias that others may read too.
    let own = call.node.input.contains(value) && builder.uses.get(value.as_str()) == Some(&1);
    if !fits || !own || outer.len() >= shape.len() {
        return None;
    }
    let producer = builder.graph.producer(terms.x)?;
    let Op::Dense(dense) = &mut builder.graph.nodes[producer].op else { return None };
    if dense.bias.is_some() {
        return None;
    }
    dense.bias = Some(terms.shift.clone());
    builder.graph.values[terms.x.0].name = result(call).into();
    Some(terms.x)
}

fn affine(builder: &mut Builder, call: &Call, terms: Terms) -> Result<ValueId> {
    affine_named(builder, &call.name, result(call), terms)
}

/// An [`Op::Affine`] acts on axis 1. A constant over other axes is brought there: the axes it spans become axis 1 of
/// a reshaped value, those before and behind it axes 0 and 2.
fn affine_named(builder: &mut Builder, name: &str, value: &str, terms: Terms) -> Result<ValueId> {
    let shape = builder.graph.shape(terms.x).to_vec();
    if shape::broadcast(&terms.shape, &shape)? != shape {
        return Err(Refusal::new(
            format!("a constant of shape {:?} enlarges {shape:?}", terms.shape),
            "expand the value in the training code, or use a constant of fitting shape",
        ));
    }
    let strides = shape::broadcast_strides(&terms.shape, &shape);
    let spanned = |axis: &usize| strides[*axis] != 0;
    let first = (0..shape.len()).find(spanned).unwrap_or(1.min(shape.len()));
    let end = (0..shape.len()).rfind(spanned).map_or((first + 1).min(shape.len()), |last| last + 1);
    let span = &shape[first..end];
    let offsets: Vec<usize> = Offsets::new(span, &strides[first..end], 0).collect();
    let pick = |list: &[f32]| offsets.iter().map(|at| list[*at]).collect::<Vec<f32>>();
    let op = Op::Affine(Affine { scale: pick(&terms.scale), shift: pick(&terms.shift) });
    if first == 1 && end == 2 {
        return builder.push(name, op, &[terms.x], value);
    }
    let outer: usize = shape[..first].iter().product();
    let inner: usize = shape[end..].iter().product();
    let mut seen = vec![outer, span.iter().product()];
    if inner > 1 {
        seen.push(inner);
    }
    let x = reshape_to(builder, &format!("{name}/channels"), terms.x, seen, &format!("{value}/channels"))?;
    let x = builder.push(name, op, &[x], &format!("{value}/affine"))?;
    reshape_to(builder, &format!("{name}/restore"), x, shape, value)
}
