//! Operators that sum: reductions, `Einsum`, `MatMul`, `Gemm`.

use super::{Budget, Operands};
use crate::import::constant::{Constant, Data};
use crate::import::shape::{self, Offsets};

type Result<T> = std::result::Result<T, String>;

pub fn fold(node: &Operands, budget: &mut Budget) -> Option<Result<Constant>> {
    Some(match node.op {
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" => reduce(node, budget),
        "Einsum" => einsum(node, budget),
        "MatMul" => matmul(node, budget),
        "Gemm" => gemm(node, budget),
        _ => return None,
    })
}

/// Axes that a reduction sums over, ascending, and whether they stay with extent 1.
pub fn reduced_axes(node: &Operands, rank: usize) -> Result<(Vec<usize>, bool)> {
    let attributes = node.attributes;
    let list = node.axes(1)?.unwrap_or_default();
    let axes = match list.as_slice() {
        [] if attributes.int("noop_with_empty_axes", 0)? != 0 => vec![],
        [] => (0..rank).collect(),
        list => shape::axes(list, rank)?,
    };
    Ok((axes, attributes.int("keepdims", 1)? != 0))
}

fn reduce(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    let (axes, keep) = reduced_axes(node, x.shape.len())?;
    let kept: Vec<usize> = x
        .shape
        .iter()
        .enumerate()
        .map(|(axis, extent)| if axes.contains(&axis) { 1 } else { *extent })
        .collect();
    budget.take(&kept)?;
    let count = axes.iter().map(|axis| x.shape[*axis]).product::<usize>();
    if count == 0 {
        return Err("reduces no elements".into());
    }
    let strides = shape::broadcast_strides(&kept, &x.shape);
    let places = Offsets::new(&x.shape, &strides, 0);
    let len = kept.iter().product();
    let op = node.op;
    let mut result = match &x.data {
        Data::Float(data) => {
            let (start, step): (f64, fn(f64, f64) -> f64) = match op {
                "ReduceMax" => (f64::NEG_INFINITY, f64::max),
                "ReduceMin" => (f64::INFINITY, f64::min),
                "ReduceProd" => (1.0, |a, b| a * b),
                _ => (0.0, |a, b| a + b),
            };
            let mut sums = vec![start; len];
            places.zip(data).for_each(|(at, x)| sums[at] = step(sums[at], *x));
            let divisor = if op == "ReduceMean" { count as f64 } else { 1.0 };
            Constant::floats(x.dtype, kept, sums.into_iter().map(|sum| sum / divisor))
        }
        Data::Integer(data) => {
            let (start, step): (i64, fn(i64, i64) -> i64) = match op {
                "ReduceMax" => (i64::MIN, i64::max),
                "ReduceMin" => (i64::MAX, i64::min),
                "ReduceProd" => (1, i64::wrapping_mul),
                "ReduceSum" => (0, i64::wrapping_add),
                _ => return Err(format!("is not folded for {:?}", x.dtype)),
            };
            let mut sums = vec![start; len];
            places.zip(data).for_each(|(at, x)| sums[at] = step(sums[at], *x));
            Constant::integers(x.dtype, kept, sums)
        }
    };
    if !keep {
        let rest = (0..x.shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| x.shape[axis]);
        result.shape = rest.collect();
    }
    Ok(result)
}

/// An axis of an einsum operand. The dots stand for axes that are counted from behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Dots(usize),
    Letter(char),
}

/// A tensor with named axes.
struct Labelled {
    labels: Vec<Label>,
    extents: Vec<usize>,
    data: Vec<f64>,
}

/// Labels of one term of an equation; `rank` tells how many axes the dots stand for.
fn labels(term: &str, rank: usize) -> Result<Vec<Label>> {
    let letters = term.replace("...", "");
    if let Some(letter) = letters.chars().find(|letter| !letter.is_ascii_alphabetic()) {
        return Err(format!("`{letter}` in equation term `{term}`"));
    }
    let Some((before, after)) = term.split_once("...") else {
        return if letters.len() == rank {
            Ok(letters.chars().map(Label::Letter).collect())
        } else {
            Err(format!("equation term `{term}` does not fit rank {rank}"))
        };
    };
    let dots = rank.checked_sub(letters.len());
    let dots = dots.ok_or_else(|| format!("equation term `{term}` does not fit rank {rank}"))?;
    if after.contains('.') {
        return Err(format!("equation term `{term}` has dots twice"));
    }
    let middle = (0..dots).rev().map(Label::Dots);
    Ok(before.chars().map(Label::Letter).chain(middle).chain(after.chars().map(Label::Letter)).collect())
}

fn einsum(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let equation: String =
        node.attributes.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != node.inputs.len() {
        return Err(format!("{} equation terms for {} inputs", terms.len(), node.inputs.len()));
    }
    let first = node.input(0)?;
    let mut operands = vec![];
    for (k, term) in terms.iter().enumerate() {
        let x = node.input(k)?;
        if x.dtype != first.dtype {
            return Err(format!("mixes {:?} and {:?}", first.dtype, x.dtype));
        }
        operands.push(Labelled {
            labels: labels(term, x.shape.len())?,
            extents: x.shape.clone(),
            data: x.as_floats()?.to_vec(),
        });
    }
    let seen: Vec<Label> = operands.iter().flat_map(|operand| operand.labels.clone()).collect();
    let dots =
        seen.iter().filter_map(|label| if let Label::Dots(k) = label { Some(k + 1) } else { None }).max();
    let output = match right {
        Some(term) => {
            let letters = term.replace("...", "").len();
            labels(term, letters + if term.contains("...") { dots.unwrap_or(0) } else { 0 })?
        }
        None => {
            let mut once: Vec<Label> = seen
                .iter()
                .filter(|a| matches!(a, Label::Letter(_)) && seen.iter().filter(|b| b == a).count() == 1)
                .copied()
                .collect();
            once.sort();
            (0..dots.unwrap_or(0)).rev().map(Label::Dots).chain(once).collect()
        }
    };
    for (k, label) in output.iter().enumerate() {
        if output[..k].contains(label) || !seen.contains(label) {
            return Err(format!("equation `{equation}` gives an axis twice or from nowhere"));
        }
    }
    let result = product(operands, &output, budget)?;
    Ok(Constant::floats(first.dtype, result.extents, result.data))
}

/// Multiplies operands from the left, summing a label out as soon as nothing behind needs it.
fn product(mut operands: Vec<Labelled>, output: &[Label], budget: &mut Budget) -> Result<Labelled> {
    let one = || Labelled { labels: vec![], extents: vec![], data: vec![1.0] };
    operands.reverse();
    let mut left = operands.pop().unwrap_or_else(one);
    loop {
        let right = operands.pop().unwrap_or_else(one);
        if operands.is_empty() {
            return contract(&left, &right, output, budget);
        }
        let mut keep: Vec<Label> = vec![];
        for label in left.labels.iter().chain(&right.labels) {
            let later =
                output.contains(label) || operands.iter().any(|operand| operand.labels.contains(label));
            if later && !keep.contains(label) {
                keep.push(*label);
            }
        }
        left = contract(&left, &right, &keep, budget)?;
    }
}

/// Sums the product of both over all labels that are not in `output`.
fn contract(a: &Labelled, b: &Labelled, output: &[Label], budget: &mut Budget) -> Result<Labelled> {
    let mut extents: Vec<(Label, usize)> = vec![];
    let axes = |x: &'_ Labelled| x.labels.clone().into_iter().zip(x.extents.clone());
    for (label, extent) in axes(a).chain(axes(b)) {
        match extents.iter_mut().find(|(known, _)| *known == label) {
            None => extents.push((label, extent)),
            Some((_, known)) if *known == extent || extent == 1 => {}
            Some((_, known)) if *known == 1 => *known = extent,
            Some((_, known)) => return Err(format!("an axis has extents {known} and {extent}")),
        }
    }
    // A label that an operand has twice walks its diagonal: the strides add up.
    let steps = |x: &Labelled, label: Label| {
        let strides = shape::strides(&x.extents);
        let own = x.labels.iter().zip(&x.extents).zip(strides).filter(|((l, _), _)| **l == label);
        own.map(|((_, extent), stride)| if *extent == 1 { 0 } else { stride as isize }).sum::<isize>()
    };
    let part = |wanted: bool| {
        let order: Vec<(Label, usize)> = if wanted {
            output.iter().filter_map(|label| extents.iter().find(|(l, _)| l == label).copied()).collect()
        } else {
            extents.iter().filter(|(label, _)| !output.contains(label)).copied().collect()
        };
        let shape: Vec<usize> = order.iter().map(|(_, extent)| *extent).collect();
        let of = |x: &Labelled| order.iter().map(|(label, _)| steps(x, *label)).collect::<Vec<_>>();
        (shape, of(a), of(b))
    };
    let (outer, outer_a, outer_b) = part(true);
    let (inner, inner_a, inner_b) = part(false);
    budget.take(&outer)?;
    budget.take(&inner)?;
    let macs = shape::elements(&outer)? as u64 * shape::elements(&inner)? as u64;
    budget.spend(macs)?;
    let terms: Vec<(usize, usize)> =
        Offsets::new(&inner, &inner_a, 0).zip(Offsets::new(&inner, &inner_b, 0)).collect();
    let data = Offsets::new(&outer, &outer_a, 0)
        .zip(Offsets::new(&outer, &outer_b, 0))
        .map(|(at_a, at_b)| terms.iter().map(|(da, db)| a.data[at_a + da] * b.data[at_b + db]).sum())
        .collect();
    Ok(Labelled { labels: output.to_vec(), extents: outer, data })
}

fn matmul(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.dtype != b.dtype || a.shape.is_empty() || b.shape.is_empty() {
        return Err(format!("cannot multiply {:?} {:?} by {:?} {:?}", a.dtype, a.shape, b.dtype, b.shape));
    }
    let dots = |rank: usize| (0..rank.saturating_sub(2)).rev().map(Label::Dots).collect::<Vec<_>>();
    let [rows, inner, columns] = ['i', 'k', 'j'].map(Label::Letter);
    let (row, column) = (if a.shape.len() > 1 { vec![rows] } else { vec![] }, vec![columns]);
    let column = if b.shape.len() > 1 { column } else { vec![] };
    let left = [dots(a.shape.len()), row.clone(), vec![inner]].concat();
    let right = [dots(b.shape.len()), vec![inner], column.clone()].concat();
    if a.shape.last() != b.shape.iter().rev().nth(column.len()) {
        return Err(format!("cannot multiply {:?} by {:?}", a.shape, b.shape));
    }
    let output = [dots(a.shape.len().max(b.shape.len())), row, column].concat();
    let a = Labelled { labels: left, extents: a.shape.clone(), data: a.as_floats()?.to_vec() };
    let b = Labelled { labels: right, extents: b.shape.clone(), data: b.as_floats()?.to_vec() };
    let result = contract(&a, &b, &output, budget)?;
    Ok(Constant::floats(node.input(0)?.dtype, result.extents, result.data))
}

fn gemm(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let attributes = node.attributes;
    let labelled = |x: &Constant, transposed: bool, names: [char; 2]| {
        if x.shape.len() != 2 || x.dtype != a.dtype {
            return Err(format!("needs matrices of one type, got {:?} {:?}", x.dtype, x.shape));
        }
        let names = if transposed { [names[1], names[0]] } else { names };
        Ok(Labelled {
            labels: names.map(Label::Letter).to_vec(),
            extents: x.shape.clone(),
            data: x.as_floats()?.to_vec(),
        })
    };
    let left = labelled(a, attributes.int("transA", 0)? != 0, ['i', 'k'])?;
    let right = labelled(b, attributes.int("transB", 0)? != 0, ['k', 'j'])?;
    let inner = |x: &Labelled| x.labels.iter().position(|l| *l == Label::Letter('k')).map(|k| x.extents[k]);
    if inner(&left) != inner(&right) {
        return Err(format!("cannot multiply {:?} by {:?}", a.shape, b.shape));
    }
    let result = contract(&left, &right, &['i', 'j'].map(Label::Letter), budget)?;
    let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
    let mut data: Vec<f64> = result.data.iter().map(|x| x * f64::from(alpha)).collect();
    if let Some(c) = node.optional(2) {
        if shape::broadcast(&c.shape, &result.extents)? != result.extents {
            return Err(format!("its bias {:?} does not fit {:?}", c.shape, result.extents));
        }
        let strides = shape::broadcast_strides(&c.shape, &result.extents);
        let c = c.as_floats()?;
        let places = Offsets::new(&result.extents, &strides, 0);
        data.iter_mut().zip(places).for_each(|(x, at)| *x += f64::from(beta) * c[at]);
    }
    Ok(Constant::floats(a.dtype, result.extents, data))
}
