//! Sum of two tensors of equal shape, with a clamp.
//!
//! Integers follow TensorFlow Lite: both inputs, less their zero points, are shifted left by `left_shift`, brought to a common scale
//! (twice the greater of theirs), added, and requantised. With the scratch of `backend::spec::elementwise::add_scratch` what each value of an input
//! adds comes from a table; with less the result is the same.

use super::linear::{check_bounds, check_float_bounds, check_integer};
use super::operands::{Family, elements, ends, in_place, same_shape};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;
use crate::quant::{MAX_SHIFT, MIN_SHIFT};

/// Parameters of [`crate::ops::OpCode::AddI8`]. With scales `s1`, `s2` of the inputs and `s` of the output, `c = 2 max(s1, s2)`:
/// the first factor is `s1 / c`, the second `s2 / c`, that of the output `c / (2^left_shift s)`, each split by
/// `quant::quantize_multiplier`. TensorFlow Lite takes a `left_shift` of 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerParameters {
    /// Bits by which both inputs are shifted left first, 0 to 22.
    pub left_shift: i32,
    /// Factor of the first input, Q31.
    pub multiplier_1: i32,
    /// Shift of the first input, at most 0.
    pub shift_1: i32,
    /// Factor of the second input, Q31.
    pub multiplier_2: i32,
    /// Shift of the second input, at most 0.
    pub shift_2: i32,
    /// Factor of the output, Q31.
    pub output_multiplier: i32,
    /// Shift of the output.
    pub output_shift: i32,
    /// Least output in stored units.
    pub act_min: i32,
    /// Greatest output in stored units.
    pub act_max: i32,
}

impl IntegerParameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[
            left_shift,
            multiplier_1,
            shift_1,
            multiplier_2,
            shift_2,
            output_multiplier,
            output_shift,
            act_min,
            act_max,
        ] = words
        else {
            return None;
        };
        Some(Self {
            left_shift: left_shift as i32,
            multiplier_1: multiplier_1 as i32,
            shift_1: shift_1 as i32,
            multiplier_2: multiplier_2 as i32,
            shift_2: shift_2 as i32,
            output_multiplier: output_multiplier as i32,
            output_shift: output_shift as i32,
            act_min: act_min as i32,
            act_max: act_max as i32,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 9] {
        [
            self.left_shift as u32,
            self.multiplier_1 as u32,
            self.shift_1 as u32,
            self.multiplier_2 as u32,
            self.shift_2 as u32,
            self.output_multiplier as u32,
            self.output_shift as u32,
            self.act_min as u32,
            self.act_max as u32,
        ]
    }
}

/// Parameters of [`crate::ops::OpCode::AddF32`] and [`crate::ops::OpCode::MulF32`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatParameters {
    /// Least output.
    pub act_min: f32,
    /// Greatest output.
    pub act_max: f32,
}

impl FloatParameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[act_min, act_max] = words else { return None };
        Some(Self { act_min: f32::from_bits(act_min), act_max: f32::from_bits(act_max) })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 2] {
        [self.act_min.to_bits(), self.act_max.to_bits()]
    }
}

/// [`OpCode::AddI8`].
pub struct AddI8;

impl Operator for AddI8 {
    const CODE: u16 = OpCode::AddI8 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (first, output) = &ends(step, (2, 1, 0))?;
        let second = step.input(1).ok_or(ErrorKind::OperandCount)?;
        Family::I8.check(first, output)?;
        Family::I8.check(&second, output)?;
        check_integer(&second)?;
        same_shape(first, output)?;
        same_shape(&second, output)?;
        let p = IntegerParameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
        let inputs = MIN_SHIFT..=0;
        let legal = (0..=22).contains(&p.left_shift)
            && inputs.contains(&p.shift_1)
            && inputs.contains(&p.shift_2)
            && (MIN_SHIFT..=MAX_SHIFT).contains(&p.output_shift)
            && p.multiplier_1.min(p.multiplier_2).min(p.output_multiplier) >= 0;
        if !legal {
            return Err(ErrorKind::Parameter);
        }
        check_bounds(p.act_min, p.act_max, output.dtype)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = IntegerParameters::parse(step.parameters())?;
        let zero_points = [step.input(0)?.zero_point, step.input(1)?.zero_point, step.output(0)?.zero_point];
        let views = step.views::<2>(memory)?;
        let [_, second] = views.inputs;
        let values = in_place(&views.inputs, views.output)?;
        backend.add_i8(&p, zero_points, values, elements(second?)?, views.scratch)
    }
}

/// Checks a step of two `f32` tensors of equal shape and [`FloatParameters`].
pub(super) fn check_f32(step: &Step<'_>) -> Result<(), ErrorKind> {
    let (first, output) = &ends(step, (2, 1, 0))?;
    let second = step.input(1).ok_or(ErrorKind::OperandCount)?;
    Family::F32.check(first, output)?;
    Family::F32.check(&second, output)?;
    same_shape(first, output)?;
    same_shape(&second, output)?;
    let p = FloatParameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    check_float_bounds(p.act_min, p.act_max)
}

/// [`OpCode::AddF32`].
pub struct AddF32;

impl Operator for AddF32 {
    const CODE: u16 = OpCode::AddF32 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check_f32(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = FloatParameters::parse(step.parameters())?;
        let views = step.views::<2>(memory)?;
        let [_, second] = views.inputs;
        backend.add_f32([p.act_min, p.act_max], in_place(&views.inputs, views.output)?, elements(second?)?)
    }
}
