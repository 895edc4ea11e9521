//! Operators that only move, repeat or make elements: no arithmetic.

use super::{Budget, Operands, shape_of};
use crate::import::constant::{Constant, DType, Data};
use crate::import::shape::{self, Offsets};

type Result<T> = std::result::Result<T, String>;

pub fn fold(node: &Operands, budget: &mut Budget) -> Option<Result<Constant>> {
    Some(match node.op {
        "Shape" | "Size" => node.input(0).and_then(|x| shape_of(node.op, node.attributes, &x.shape)),
        "Identity" | "Dropout" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => reshape(node, budget),
        "Transpose" => transpose(node, budget),
        "Expand" => expand(node, budget),
        "Tile" => tile(node, budget),
        "Slice" => slice(node, budget),
        "Gather" => gather(node, budget),
        "Concat" => concat(node, budget),
        "Pad" => pad(node, budget),
        "ConstantOfShape" => constant_of_shape(node, budget),
        "Range" => range(node, budget),
        _ => return None,
    })
}

/// Shape that a reshaping operator gives to an input of shape `input`. `Identity` and `Dropout` keep it.
pub fn reshaped(node: &Operands, input: &[usize]) -> Result<Vec<usize>> {
    match node.op {
        "Reshape" => {
            let target = node.input(1)?.as_integers()?;
            shape::reshape(input, target, node.attributes.int("allowzero", 0)? != 0)
        }
        "Flatten" => shape::flatten(input, node.attributes.int("axis", 1)?),
        "Squeeze" => shape::squeeze(input, node.axes(1)?.as_deref()),
        "Unsqueeze" => shape::unsqueeze(input, &node.axes(1)?.ok_or("has no axes")?),
        _ => Ok(input.to_vec()),
    }
}

fn reshape(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let shape = reshaped(node, &x.shape)?;
    budget.take(&shape)?;
    Ok(x.reshaped(shape))
}

/// A strided view of `x`, copied.
fn view(
    x: &Constant,
    shape: &[usize],
    strides: &[isize],
    base: usize,
    budget: &mut Budget,
) -> Result<Constant> {
    budget.take(shape)?;
    Ok(x.pick(shape.to_vec(), Offsets::new(shape, strides, base)))
}

fn transpose(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let permutation = shape::permutation(x.shape.len(), node.attributes.ints("perm")?)?;
    let own = shape::strides(&x.shape);
    let shape: Vec<usize> = permutation.iter().map(|axis| x.shape[*axis]).collect();
    let strides: Vec<isize> = permutation.iter().map(|axis| own[*axis] as isize).collect();
    view(x, &shape, &strides, 0, budget)
}

fn extents(x: &Constant) -> Result<Vec<usize>> {
    let shape = x.as_integers()?.iter().map(|x| shape::extent(*x)).collect::<Result<Vec<_>>>()?;
    shape::elements(&shape)?;
    Ok(shape)
}

fn expand(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let shape = shape::broadcast(&x.shape, &extents(node.input(1)?)?)?;
    shape::elements(&shape)?;
    view(x, &shape, &shape::broadcast_strides(&x.shape, &shape), 0, budget)
}

fn tile(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let repeats = extents(node.input(1)?)?;
    if repeats.len() != x.shape.len() {
        return Err(format!("{} repeats for rank {}", repeats.len(), x.shape.len()));
    }
    let own = shape::strides(&x.shape);
    let (mut shape, mut strides, mut result) = (vec![], vec![], vec![]);
    for ((&count, &extent), &stride) in repeats.iter().zip(&x.shape).zip(&own) {
        shape.extend([count, extent]);
        strides.extend([0, stride as isize]);
        result.push(count * extent);
    }
    Ok(view(x, &shape, &strides, 0, budget)?.reshaped(result))
}

fn slice(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let rank = x.shape.len();
    let list = |name, k| match node.attributes.ints(name)? {
        Some(list) => Ok(Some(list)),
        None => node.optional(k).map(Constant::as_integers).transpose(),
    };
    let starts = list("starts", 1)?.ok_or("has no starts")?;
    let ends = list("ends", 2)?.ok_or("has no ends")?;
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = list("axes", 3)?.unwrap_or(&all);
    let ones = vec![1; starts.len()];
    let steps = node.optional(4).map(Constant::as_integers).transpose()?.unwrap_or(&ones);
    if [ends.len(), axes.len(), steps.len()].iter().any(|len| *len != starts.len()) {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    shape::axes(axes, rank)?;
    let own = shape::strides(&x.shape);
    let mut shape = x.shape.clone();
    let mut strides: Vec<isize> = own.iter().map(|stride| *stride as isize).collect();
    let mut base = 0;
    for (((&start, &end), &axis), &step) in starts.iter().zip(ends).zip(axes).zip(steps) {
        let axis = shape::axis(axis, rank)?;
        let extent = x.shape[axis] as i64;
        let from_front = |at: i64| if at < 0 { at.saturating_add(extent) } else { at };
        let (first, distance) = match step {
            0 => return Err("has a step of 0".into()),
            1.. => {
                let first = from_front(start).clamp(0, extent);
                (first, from_front(end).clamp(0, extent) - first)
            }
            _ => {
                let first = from_front(start).clamp(0, (extent - 1).max(0));
                (first, first - from_front(end).clamp(-1, extent - 1))
            }
        };
        shape[axis] = (distance.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
        base += first as usize * own[axis];
        // A single element needs no stride, and the step may then be of any size.
        strides[axis] = if shape[axis] > 1 { own[axis] as isize * step as isize } else { 0 };
    }
    view(x, &shape, &strides, base, budget)
}

fn gather(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let (x, indices) = (node.input(0)?, node.input(1)?);
    let axis = shape::axis(node.attributes.int("axis", 0)?, x.shape.len())?;
    let extent = x.shape[axis];
    let at = |k: &i64| shape::axis(*k, extent).map_err(|_| format!("index {k} exceeds extent {extent}"));
    let rows = indices.as_integers()?.iter().map(at).collect::<Result<Vec<_>>>()?;
    let (before, after) = (&x.shape[..axis], &x.shape[axis + 1..]);
    let shape = [before, &indices.shape, after].concat();
    budget.take(&shape)?;
    let (outer, inner): (usize, usize) = (before.iter().product(), after.iter().product());
    let rows = &rows;
    let flat = (0..outer).flat_map(|o| {
        rows.iter().flat_map(move |row| (0..inner).map(move |i| (o * extent + row) * inner + i))
    });
    Ok(x.pick(shape, flat))
}

fn concat(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let first = node.input(0)?;
    let rank = first.shape.len();
    let axis = shape::axis(node.attributes.int("axis", if node.opset < 4 { 1 } else { -1 })?, rank)?;
    let parts = (0..node.inputs.len()).map(|k| node.input(k)).collect::<Result<Vec<_>>>()?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for part in &parts {
        let fits = part.dtype == first.dtype
            && part.shape.len() == rank
            && (0..rank).all(|k| k == axis || part.shape[k] == first.shape[k]);
        if !fits {
            return Err(format!("cannot join {:?} and {:?} on axis {axis}", first.shape, part.shape));
        }
        shape[axis] += part.shape[axis];
    }
    budget.take(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    fn join<T: Copy>(outer: usize, parts: &[(&[T], usize)]) -> Vec<T> {
        let pieces =
            (0..outer).flat_map(|o| parts.iter().map(move |(data, chunk)| &data[o * chunk..(o + 1) * chunk]));
        pieces.flatten().copied().collect()
    }
    let chunk = |part: &Constant| part.shape[axis..].iter().product();
    let data = if first.dtype.is_float() {
        let parts =
            parts.iter().map(|part| Ok((part.as_floats()?, chunk(part)))).collect::<Result<Vec<_>>>()?;
        Data::Float(join(outer, &parts))
    } else {
        let parts =
            parts.iter().map(|part| Ok((part.as_integers()?, chunk(part)))).collect::<Result<Vec<_>>>()?;
        Data::Integer(join(outer, &parts))
    };
    Ok(Constant { dtype: first.dtype, shape, data })
}

/// Elements added before and behind each axis by a `Pad` on an input of this rank, and their value (`None`: zero).
pub fn padding(node: &Operands, rank: usize) -> Result<(Vec<i64>, Vec<i64>, Option<f64>)> {
    let attributes = node.attributes;
    let mode = attributes.string("mode", "constant")?;
    if mode != "constant" {
        return Err(format!("pads by `{mode}`; only `constant` is supported"));
    }
    let pads = match attributes.ints("pads")? {
        Some(pads) => pads,
        None => node.input(1)?.as_integers()?,
    };
    let value = match node.optional(2) {
        Some(value) if value.len() == 1 => Some(match &value.data {
            Data::Float(data) => data[0],
            Data::Integer(data) => data[0] as f64,
        }),
        Some(_) => return Err("its value is no single number".into()),
        None if attributes.has("value") => Some(f64::from(attributes.float("value", 0.0)?)),
        None => None,
    };
    let axes = match node.optional(3) {
        Some(axes) => axes.as_integers()?.to_vec(),
        None => (0..rank as i64).collect(),
    };
    if shape::axes(&axes, rank)?.len() * 2 != pads.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (k, axis) in axes.iter().enumerate() {
        let axis = shape::axis(*axis, rank)?;
        (before[axis], after[axis]) = (pads[k], pads[k + axes.len()]);
    }
    Ok((before, after, value))
}

fn pad(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let (before, after, value) = padding(node, x.shape.len())?;
    let (mut shape, mut base) = (x.shape.clone(), 0);
    for axis in 0..shape.len() {
        shape[axis] += shape::extent(before[axis])? + shape::extent(after[axis])?;
    }
    budget.take(&shape)?;
    let strides = shape::strides(&shape);
    for (before, stride) in before.iter().zip(&strides) {
        base += *before as usize * stride;
    }
    let strides: Vec<isize> = strides.iter().map(|stride| *stride as isize).collect();
    let places = Offsets::new(&x.shape, &strides, base);
    let len = shape.iter().product();
    let value = value.unwrap_or(0.0);
    let data = match &x.data {
        Data::Float(from) => {
            let mut data = vec![x.dtype.round(value); len];
            places.zip(from).for_each(|(at, x)| data[at] = *x);
            Data::Float(data)
        }
        Data::Integer(from) => {
            let mut data = vec![x.dtype.wrap(value as i64); len];
            places.zip(from).for_each(|(at, x)| data[at] = *x);
            Data::Integer(data)
        }
    };
    Ok(Constant { dtype: x.dtype, shape, data })
}

fn constant_of_shape(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let shape = extents(node.input(0)?)?;
    budget.take(&shape)?;
    let value = match node.attributes.tensor("value")? {
        Some(proto) => Constant::read(proto, None).map_err(|error| error.to_string())?,
        None => Constant::floats(DType::F32, vec![], [0.0]),
    };
    if value.len() != 1 {
        return Err("its value is no single number".into());
    }
    let len = shape.iter().product();
    Ok(value.pick(shape, std::iter::repeat_n(0, len)))
}

fn range(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let [start, limit, delta] = [node.input(0)?, node.input(1)?, node.input(2)?];
    if [start, limit, delta].iter().any(|x| x.len() != 1 || x.dtype != start.dtype) {
        return Err("needs three single numbers of one type".into());
    }
    match (&start.data, &limit.data, &delta.data) {
        (Data::Float(a), Data::Float(b), Data::Float(d)) if d[0] != 0.0 => {
            let count = shape::extent(((b[0] - a[0]) / d[0]).ceil().max(0.0) as i64)?;
            budget.take(&[count])?;
            Ok(Constant::floats(start.dtype, vec![count], (0..count).map(|k| a[0] + k as f64 * d[0])))
        }
        (Data::Integer(a), Data::Integer(b), Data::Integer(d)) if d[0] != 0 => {
            let distance = (i128::from(b[0]) - i128::from(a[0])) * i128::from(d[0].signum());
            let count = (distance.max(0) as u128).div_ceil(d[0].unsigned_abs().into());
            let count = shape::extent(i64::try_from(count).unwrap_or(i64::MAX))?;
            budget.take(&[count])?;
            let at = |k| a[0].wrapping_add(d[0].wrapping_mul(k as i64));
            Ok(Constant::integers(start.dtype, vec![count], (0..count).map(at)))
        }
        _ => Err("needs three single numbers of one type and a step that is not 0".into()),
    }
}
