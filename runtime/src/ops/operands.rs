//! What the checks and runs of several operators share: counts, types and shapes of operands, and typed views of their bytes.

use super::linear::check_integer;
use core::cell::Cell;

use crate::arena::Views;
use crate::backend::{Integers, IntegersMut};
use crate::blob::{DType, MAX_RANK, TensorRecord};
use crate::error::ErrorKind;
use crate::model::Step;
use crate::ops::window::Window;
use crate::region::Rows;
use crate::rolled::rolled;
use bytemuck::{AnyBitPattern, NoUninit, try_cast_slice, try_cast_slice_mut};

/// Element types of an operation code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Input and output are `i8`.
    I8,
    /// Input or output or both are `i16`, the other may be `i8`.
    I16,
    /// All `f32`.
    F32,
    /// Input and output are `i8`, weights have 4 bits.
    I4,
    /// Input and output are `f32`, weights binary16.
    F16,
}

impl Family {
    /// Whether activations are floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }

    /// Refuses tensors of other types, and integer ones whose zero point does not fit.
    #[inline(never)]
    pub fn check(self, input: &TensorRecord, output: &TensorRecord) -> Result<(), ErrorKind> {
        let legal = match (input.dtype, output.dtype) {
            (DType::I8, DType::I8) => matches!(self, Self::I8 | Self::I4),
            (DType::I16, DType::I8 | DType::I16) | (DType::I8, DType::I16) => self == Self::I16,
            (DType::F32, DType::F32) => self.is_float(),
            _ => false,
        };
        if !legal {
            return Err(ErrorKind::ElementType);
        }
        if self.is_float() {
            return Ok(());
        }
        check_integer(input)?;
        check_integer(output)
    }
}

/// First input and output of a step that takes `counts` inputs, outputs and weights.
#[inline(never)]
pub fn ends(
    step: &Step<'_>,
    counts: (usize, usize, usize),
) -> Result<(TensorRecord, TensorRecord), ErrorKind> {
    if step.counts() == counts {
        step.ends().ok_or(ErrorKind::OperandCount)
    } else {
        Err(ErrorKind::OperandCount)
    }
}

/// Refuses tensors of different shapes.
pub fn same_shape(a: &TensorRecord, b: &TensorRecord) -> Result<(), ErrorKind> {
    if a.rank == b.rank && same_extents(a, b, MAX_RANK) { Ok(()) } else { Err(ErrorKind::Shape) }
}

/// Whether the first `axes` extents of two tensors are the same.
#[inline(never)]
pub fn same_extents(a: &TensorRecord, b: &TensorRecord, axes: usize) -> bool {
    let mut same = true;
    for (a, b) in a.shape.iter().zip(&b.shape).take(axes) {
        rolled();
        same &= a == b;
    }
    same
}

/// Refuses tensors of different quantisation.
pub fn same_quantisation(a: &TensorRecord, b: &TensorRecord) -> Result<(), ErrorKind> {
    let same = a.zero_point == b.zero_point && a.scale_bits == b.scale_bits;
    if same { Ok(()) } else { Err(ErrorKind::Quantisation) }
}

/// Extent of the last axis.
pub fn last_axis(record: &TensorRecord) -> Option<u32> {
    record.shape.get(usize::from(record.rank).checked_sub(1)?).copied()
}

/// The elements of bytes; `None` if they are misaligned or no whole number.
pub fn elements<T: AnyBitPattern>(bytes: &[u8]) -> Option<&[T]> {
    try_cast_slice(bytes).ok()
}

/// Like [`elements`], to be written.
pub fn elements_mut<T: AnyBitPattern + NoUninit>(bytes: &mut [u8]) -> Option<&mut [T]> {
    try_cast_slice_mut(bytes).ok()
}

/// The integers of an activation's bytes.
pub fn integers(dtype: DType, bytes: &[u8]) -> Option<Integers<'_>> {
    match dtype {
        DType::I8 => elements(bytes).map(Integers::I8),
        DType::I16 => elements(bytes).map(Integers::I16),
        _ => None,
    }
}

/// Like [`integers`], to be written.
pub fn integers_mut(dtype: DType, bytes: &mut [u8]) -> Option<IntegersMut<'_>> {
    match dtype {
        DType::I8 => elements_mut(bytes).map(IntegersMut::I8),
        DType::I16 => elements_mut(bytes).map(IntegersMut::I16),
        _ => None,
    }
}

/// Lets rows leave a window at its start; those that stay move there.
pub fn drop_rows<T: AnyBitPattern + NoUninit>(window: &mut [T], row: usize, rows: &Rows) -> Option<()> {
    if rows.dropped == 0 {
        return Some(());
    }
    let dropped = rows.dropped.checked_mul(row)?;
    let end = rows.kept().checked_mul(row)?.checked_add(dropped)?;
    let window = window.get_mut(..end)?;
    // Whole words where rows are.
    match try_cast_slice_mut::<T, [u32; 4]>(window) {
        Ok(words) if (dropped.wrapping_mul(size_of::<T>())).is_multiple_of(16) => {
            move_down(words, dropped.wrapping_mul(size_of::<T>()) / 16)
        }
        _ => move_down(window, dropped),
    }
}

/// Moves what lies behind the first `dropped` elements to the start. `copy_within` could panic.
#[inline(never)]
fn move_down<T: Copy>(window: &mut [T], dropped: usize) -> Option<()> {
    let cells = Cell::from_mut(window).as_slice_of_cells();
    for (slot, from) in cells.iter().zip(cells.get(dropped..)?) {
        slot.set(from.get());
    }
    Some(())
}

/// The elements that windows read and those that they write, and scratch.
pub type Tile<'a, X, Y> = (&'a [X], &'a mut [Y], &'a mut [u8]);

/// Leaves the windows of some rows of a step in a region; gives the elements that they read and those that they write, and the scratch. In a frame of its own, which
/// is gone when a kernel runs.
#[inline(never)]
pub fn tile<'a, X: AnyBitPattern, Y: AnyBitPattern + NoUninit>(
    window: &mut Window,
    rows: &Rows,
    views: Views<'a, 1>,
) -> Option<Tile<'a, X, Y>> {
    let [read, written] = window.narrow(rows)?;
    let [input] = views.inputs;
    let output: &mut [Y] = elements_mut(views.output)?;
    drop_rows(output, window.columns.output.checked_mul(window.outputs)?, rows)?;
    Some((elements(input?)?.get(read)?, output.get_mut(written)?, views.scratch))
}

/// The one buffer that an in-place kernel works on: the output, which holds the first input.
pub fn in_place<'a, T: AnyBitPattern + NoUninit, const N: usize>(
    inputs: &[Option<&[u8]>; N],
    output: &'a mut [u8],
) -> Option<&'a mut [T]> {
    if let Some(first) = inputs.first().copied().flatten() {
        if first.len() != output.len() {
            return None;
        }
        for (to, from) in output.iter_mut().zip(first) {
            *to = *from;
        }
    }
    elements_mut(output)
}

/// The first input (`None`: the output holds it), the output and the scratch of a step that may run in place.
type MaybeInPlace<'a, X> = (Option<&'a [X]>, &'a mut [X], &'a mut [u8]);

/// The operands of a step that may run in place.
pub fn maybe_in_place<X: AnyBitPattern + NoUninit>(views: Views<'_, 1>) -> Option<MaybeInPlace<'_, X>> {
    let [input] = views.inputs;
    let input = match input {
        Some(bytes) => Some(elements(bytes)?),
        None => None,
    };
    Some((input, elements_mut(views.output)?, views.scratch))
}

/// As [`apart`], with the scratch.
pub fn apart_with_scratch<X: AnyBitPattern, Y: AnyBitPattern + NoUninit>(
    views: Views<'_, 1>,
) -> Option<(&[X], &mut [Y], &mut [u8])> {
    let [input] = views.inputs;
    Some((elements(input?)?, elements_mut(views.output)?, views.scratch))
}

/// The first input and the output of a step that never runs in place.
pub fn apart<X: AnyBitPattern, Y: AnyBitPattern + NoUninit>(views: Views<'_, 1>) -> Option<(&[X], &mut [Y])> {
    let [input] = views.inputs;
    Some((elements(input?)?, elements_mut(views.output)?))
}
