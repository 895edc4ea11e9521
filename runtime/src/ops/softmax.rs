//! Softmax over the last axis. The `f32` family has no parameters.

use super::operands::{Family, apart, ends, in_place, last_axis, same_shape};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::blob::{DType, TensorRecord};
use crate::error::ErrorKind;
use crate::model::Step;
use crate::quant::MAX_SHIFT;

/// Parameters of [`OpCode::SoftmaxI8`], whose output has scale 1/256 and zero point -128, and of [`OpCode::SoftmaxI16`], whose output has
/// scale 1/65536 and zero point -32768. As in TensorFlow Lite, for an
/// input scale `s` and a `beta` (1 in ONNX): `multiplier` and `left_shift` are those of `quant::quantize_multiplier` for
/// `min(beta * s * 2^26, 2^31 - 1)`, and `diff_min = -floor(31 * 2^26 / 2^left_shift)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Factor that brings a difference of inputs to Q26, Q31.
    pub multiplier: i32,
    /// Shift that goes with it.
    pub left_shift: i32,
    /// Differences to the maximum below this one give 0. Negative.
    pub diff_min: i32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[multiplier, left_shift, diff_min] = words else { return None };
        Some(Self { multiplier: multiplier as i32, left_shift: left_shift as i32, diff_min: diff_min as i32 })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 3] {
        [self.multiplier as u32, self.left_shift as u32, self.diff_min as u32]
    }
}

/// Most classes of an integer softmax: the sum of as many exponentials fits its 12 integer bits.
pub const MAX_ROW: u32 = (1 << 12) - 1;

/// [`OpCode::SoftmaxI8`].
pub struct SoftmaxI8;

impl Operator for SoftmaxI8 {
    const CODE: u16 = OpCode::SoftmaxI8 as u16;
    const IN_PLACE: bool = true;

    #[inline(never)]
    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        /// Bits of 1/256 as binary32.
        const SCALE: u32 = 0x3B80_0000;
        let (input, output) = &ends(step, (1, 1, 0))?;
        Family::I8.check(input, output)?;
        check_integer(step, input, output, SCALE, i8::MIN.into())
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let row = step.inputs()? as usize;
        let views = step.views::<1>(memory)?;
        backend.softmax_i8(&p, row, in_place(&views.inputs, views.output)?)
    }
}

/// [`OpCode::SoftmaxI16`]: from `i8` to `i16`.
pub struct SoftmaxI16;

impl Operator for SoftmaxI16 {
    const CODE: u16 = OpCode::SoftmaxI16 as u16;

    #[inline(never)]
    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        /// Bits of 1/65536 as binary32.
        const SCALE: u32 = 0x3780_0000;
        let (input, output) = &ends(step, (1, 1, 0))?;
        if (input.dtype, output.dtype) != (DType::I8, DType::I16) {
            return Err(ErrorKind::ElementType);
        }
        check_integer(step, input, output, SCALE, i16::MIN.into())
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let row = step.inputs()? as usize;
        let (input, output) = apart(step.views::<1>(memory)?)?;
        backend.softmax_i16(&p, row, input, output)
    }
}

fn check_integer(
    step: &Step<'_>,
    input: &TensorRecord,
    output: &TensorRecord,
    scale_bits: u32,
    zero_point: i32,
) -> Result<(), ErrorKind> {
    same_shape(input, output)?;
    if !last_axis(input).is_some_and(|row| (1..=MAX_ROW).contains(&row)) {
        return Err(ErrorKind::Shape);
    }
    if output.scale_bits != scale_bits || output.zero_point != zero_point {
        return Err(ErrorKind::Quantisation);
    }
    let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    // The greatest element, of difference 0, always counts, so that no sum is 0.
    let legal = p.multiplier >= 0 && (0..=MAX_SHIFT).contains(&p.left_shift) && p.diff_min <= 0;
    if legal { Ok(()) } else { Err(ErrorKind::Parameter) }
}

/// [`OpCode::SoftmaxF32`].
pub struct SoftmaxF32;

impl Operator for SoftmaxF32 {
    const CODE: u16 = OpCode::SoftmaxF32 as u16;
    const IN_PLACE: bool = true;

    #[inline(never)]
    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (input, output) = &ends(step, (1, 1, 0))?;
        Family::F32.check(input, output)?;
        same_shape(input, output)?;
        if !step.parameters().is_empty() {
            return Err(ErrorKind::OperandCount);
        }
        if last_axis(input).is_some_and(|row| row > 0) { Ok(()) } else { Err(ErrorKind::Shape) }
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let row = step.inputs()? as usize;
        let views = step.views::<1>(memory)?;
        backend.softmax_f32(row, in_place(&views.inputs, views.output)?)
    }
}
