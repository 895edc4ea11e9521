//! Shape arithmetic shared by constant folding and by operators on activations.
//!
//! Extents come from files: every number is bounded before it is used, so that no sum or product here or in
//! [`crate::graph`] can overflow.

use super::constant::Constant;

/// Largest extent, and largest number of elements of a tensor.
pub const LIMIT: usize = 1 << 31;

/// A number from a file as an extent, stride or count.
pub fn extent(x: i64) -> Result<usize, String> {
    usize::try_from(x)
        .ok()
        .filter(|x| *x <= LIMIT)
        .ok_or_else(|| format!("{x} is negative or larger than {LIMIT}"))
}

/// Elements of a shape; the product of all extents but zeros is bounded too, so that strides are.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    let product = shape.iter().try_fold(1_usize, |product, extent| product.checked_mul((*extent).max(1)));
    match product {
        Some(product) if product <= LIMIT => Ok(if shape.contains(&0) { 0 } else { product }),
        _ => Err(format!("shape {shape:?} is too large")),
    }
}

/// An axis that may count from behind.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|axis| *axis < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in rank {rank}"))
}

/// Axes that may count from behind, ascending; refuses repeats.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut axes = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    match axes.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("axis {} is named twice", pair[0])),
        None => Ok(axes),
    }
}

/// Row-major strides.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// Position of a flat index.
pub fn unravel(flat: usize, shape: &[usize]) -> Vec<usize> {
    strides(shape).iter().zip(shape).map(|(stride, extent)| flat / stride % extent.max(&1)).collect()
}

/// Flat offsets of all positions of `shape` in row-major order, where a step along axis `k` moves by `strides[k]`.
pub struct Offsets<'a> {
    shape: &'a [usize],
    strides: &'a [isize],
    position: Vec<usize>,
    offset: isize,
    left: usize,
}

impl<'a> Offsets<'a> {
    /// Starts at `base`.
    pub fn new(shape: &'a [usize], strides: &'a [isize], base: usize) -> Self {
        let left = shape.iter().product();
        Self { shape, strides, position: vec![0; shape.len()], offset: base as isize, left }
    }
}

impl Iterator for Offsets<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.offset as usize;
        for axis in (0..self.shape.len()).rev() {
            self.position[axis] += 1;
            self.offset += self.strides[axis];
            if self.position[axis] < self.shape[axis] {
                break;
            }
            self.offset -= self.strides[axis] * self.shape[axis] as isize;
            self.position[axis] = 0;
        }
        Some(offset)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Common shape of operands (numpy rules).
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let extent =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (extent(a, axis), extent(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, x) | (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Strides that read a tensor of shape `from` as if it had shape `to`, which it broadcasts to.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let mut result = vec![0; to.len() - from.len()];
    let own = strides(from);
    result
        .extend(from.iter().zip(own).map(|(extent, stride)| if *extent == 1 { 0 } else { stride as isize }));
    result
}

/// Target of `Reshape`: 0 copies an axis (unless `allow_zero`), one -1 takes the rest.
pub fn reshape(input: &[usize], target: &[i64], allow_zero: bool) -> Result<Vec<usize>, String> {
    let mut shape = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, &x) in target.iter().enumerate() {
        shape.push(match x {
            -1 if open.replace(axis).is_some() => return Err("two axes are -1".into()),
            -1 => 1,
            0 if !allow_zero => *input
                .get(axis)
                .ok_or_else(|| format!("axis {axis} copies an extent that {input:?} does not have"))?,
            _ => extent(x)?,
        });
    }
    let (have, known) = (elements(input)?, elements(&shape)?);
    if let Some(axis) = open {
        shape[axis] = have.checked_div(known).unwrap_or(0);
    }
    if elements(&shape)? == have {
        Ok(shape)
    } else {
        Err(format!("{input:?} cannot be reshaped to {target:?}"))
    }
}

/// `Flatten`: the axes before and behind `axis` become one each.
pub fn flatten(input: &[usize], at: i64) -> Result<Vec<usize>, String> {
    let at = if at == input.len() as i64 { input.len() } else { axis(at, input.len())? };
    Ok(vec![input[..at].iter().product(), input[at..].iter().product()])
}

/// `Squeeze`; without axes all of extent 1 vanish.
pub fn squeeze(input: &[usize], list: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let gone = match list {
        Some(list) => axes(list, input.len())?,
        None => (0..input.len()).filter(|axis| input[*axis] == 1).collect(),
    };
    match gone.iter().find(|axis| input[**axis] != 1) {
        Some(axis) => Err(format!("axis {axis} of {input:?} is not 1 and cannot be squeezed")),
        None => Ok((0..input.len()).filter(|axis| !gone.contains(axis)).map(|axis| input[axis]).collect()),
    }
}

/// `Unsqueeze`: `list` names axes of the result.
pub fn unsqueeze(input: &[usize], list: &[i64]) -> Result<Vec<usize>, String> {
    let rank = input.len() + list.len();
    let new = axes(list, rank)?;
    let mut old = input.iter();
    Ok((0..rank).map(|axis| if new.contains(&axis) { 1 } else { *old.next().unwrap_or(&1) }).collect())
}

/// `Transpose`; without a permutation the axes are reversed.
pub fn permutation(rank: usize, list: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let Some(list) = list else { return Ok((0..rank).rev().collect()) };
    if list.len() != rank || axes(list, rank)?.len() != rank {
        return Err(format!("{list:?} is no permutation of {rank} axes"));
    }
    list.iter().map(|a| axis(*a, rank)).collect()
}

/// Axes given as an attribute (older operator sets) or as a constant input (newer ones).
pub fn axes_of(attribute: Option<&[i64]>, input: Option<&Constant>) -> Result<Option<Vec<i64>>, String> {
    match (attribute, input) {
        (Some(_), Some(_)) => Err("axes are given twice".into()),
        (Some(list), None) => Ok(Some(list.to_vec())),
        (None, Some(constant)) => Ok(Some(constant.as_integers()?.to_vec())),
        (None, None) => Ok(None),
    }
}
