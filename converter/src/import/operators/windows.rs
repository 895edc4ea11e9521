//! Operators that slide a window: convolutions and poolings over one or two axes.

use super::{Result, result};
use crate::graph::{ActivationRange, Conv, Op, Pool, Tensor, ValueId, Weight};
use crate::import::builder::{Builder, Call, Refusal};
use crate::import::shape;

/// A window over `[.., h, w]`; 1-D operators have height 1.
struct Window {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Top, left, bottom, right.
    pads: [usize; 4],
}

/// Reads the window's attributes for an input whose last axes are `extents` (one or two).
fn window(call: &Call, extents: &[usize], kernel: &[usize]) -> Result<Window> {
    let attributes = call.attributes();
    let axes = extents.len();
    let list = |name: &str, default: usize| -> Result<Vec<usize>> {
        let Some(list) = attributes.ints(name)? else { return Ok(vec![default; axes]) };
        if list.len() != axes {
            return Err(format!("{} {name} for {axes} axes", list.len()).into());
        }
        Ok(list.iter().map(|x| shape::extent(*x)).collect::<std::result::Result<_, _>>()?)
    };
    let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
    if kernel.len() != axes || [kernel, &strides, &dilations].concat().contains(&0) {
        return Err("kernel, strides and dilations must be at least 1 on each axis".into());
    }
    let auto_pad = attributes.string("auto_pad", "NOTSET")?;
    let (mut before, mut after) = (vec![0; axes], vec![0; axes]);
    match auto_pad {
        "VALID" => {}
        "SAME_UPPER" | "SAME_LOWER" => {
            for k in 0..axes {
                let window = (kernel[k] - 1)
                    .checked_mul(dilations[k])
                    .filter(|window| *window < shape::LIMIT)
                    .ok_or("its dilated kernel is too large")?
                    + 1;
                let covered = (extents[k].div_ceil(strides[k]) - 1) * strides[k] + window;
                let total = covered.saturating_sub(extents[k]);
                before[k] = if auto_pad == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                after[k] = total - before[k];
            }
        }
        "NOTSET" | "" => {
            if let Some(pads) = attributes.ints("pads")? {
                if pads.len() != 2 * axes {
                    return Err(format!("{} pads for {axes} axes", pads.len()).into());
                }
                if pads.iter().any(|pad| *pad < 0) {
                    return Err(Refusal::new(
                        "crops its input (negative pads)",
                        "crop in a layer of its own",
                    ));
                }
                for k in 0..axes {
                    (before[k], after[k]) = (shape::extent(pads[k])?, shape::extent(pads[k + axes])?);
                }
            }
        }
        other => return Err(format!("auto_pad `{other}` is unknown").into()),
    }
    let plane = |list: &[usize], fill| if axes == 1 { [fill, list[0]] } else { [list[0], list[1]] };
    let ([top, left], [bottom, right]) = (plane(&before, 0), plane(&after, 0));
    Ok(Window {
        kernel: plane(kernel, 1),
        strides: plane(&strides, 1),
        dilations: plane(&dilations, 1),
        pads: [top, left, bottom, right],
    })
}

/// The axes that a window slides over.
fn sliding(shape: &[usize]) -> Result<&[usize]> {
    match shape {
        [_, _, rest @ ..] if matches!(rest.len(), 1 | 2) => Ok(rest),
        _ => Err(Refusal::new(
            format!("its input {shape:?} is neither [n, c, w] nor [n, c, h, w]"),
            "use one- or two-dimensional layers",
        )),
    }
}

pub fn conv(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let extents = sliding(builder.graph.shape(x))?;
    let (weight, bias) = (call.constant(1)?, call.optional_constant(2)?);
    let axes = extents.len();
    if weight.shape.len() != axes + 2 {
        return Err(format!("weight {:?} does not fit an input of {} axes", weight.shape, axes + 2).into());
    }
    let kernel = &weight.shape[2..];
    if let Some(list) = call.attributes().ints("kernel_shape")?
        && !list.iter().map(|x| *x as u64).eq(kernel.iter().map(|x| *x as u64))
    {
        return Err(format!("kernel_shape {list:?} contradicts weight {:?}", weight.shape).into());
    }
    let Window { kernel, strides, dilations, pads } = window(call, extents, kernel)?;
    let [o, i] = [weight.shape[0], weight.shape[1]];
    let bias = bias.map(|bias| bias.weight()).transpose()?;
    if bias.as_ref().is_some_and(|bias| bias.len() != o) {
        return Err(format!("its bias does not have {o} elements").into());
    }
    let op = Op::Conv(Conv {
        weight: Weight::Dense(Tensor::new(vec![o, i, kernel[0], kernel[1]], weight.weight()?)),
        bias,
        strides,
        pads,
        dilations,
        groups: shape::extent(call.attributes().int("group", 1)?)?,
        activation: ActivationRange::NONE,
    });
    builder.push(&call.name, op, &[x], result(call))
}

pub fn pool(builder: &mut Builder, call: &Call) -> Result<ValueId> {
    let x = call.activation(0)?;
    let attributes = call.attributes();
    let extents = sliding(builder.graph.shape(x))?;
    let kernel = attributes.ints("kernel_shape")?.ok_or("has no kernel_shape")?;
    let kernel = kernel.iter().map(|x| shape::extent(*x)).collect::<std::result::Result<Vec<_>, _>>()?;
    let Window { kernel, strides, dilations, pads } = window(call, extents, &kernel)?;
    if dilations != [1, 1] {
        return Err(Refusal::new("has dilated windows", "pool without dilations"));
    }
    if (0..4).any(|side| pads[side] >= kernel[side % 2]) {
        return Err(format!("pads {pads:?} are not smaller than kernel {kernel:?}").into());
    }
    if attributes.int("ceil_mode", 0)? != 0 {
        let plane = if extents.len() == 1 { [1, extents[0]] } else { [extents[0], extents[1]] };
        let uneven = |axis: usize| {
            let padded = plane[axis] + pads[axis] + pads[axis + 2];
            padded.checked_sub(kernel[axis]).is_none_or(|rest| rest % strides[axis] != 0)
        };
        if uneven(0) || uneven(1) {
            return Err(Refusal::new(
                "rounds its output up (ceil_mode)",
                "pool with ceil_mode=0, and pad on the right and at the bottom instead",
            ));
        }
    }
    let count_include_pad = attributes.int("count_include_pad", 0)? != 0;
    let pool = Pool { kernel, strides, pads, count_include_pad };
    let op = if call.node.op_type == "MaxPool" { Op::MaxPool(pool) } else { Op::AveragePool(pool) };
    builder.push(&call.name, op, &[x], result(call))
}
