//! Dense layer over the last axis: `[.., i]` to `[.., o]`, each leading row on its own.

use super::linear::{self, Float, Integer, check_halves};
use super::operands::{
    Family, apart, apart_with_scratch, ends, integers, integers_mut, last_axis, same_extents,
};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;

/// Parameters of [`crate::ops::OpCode::DenseI8`] and its families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Least output: an `i32` in stored units, or the bits of an `f32`.
    pub act_min: u32,
    /// Greatest output: an `i32` in stored units, or the bits of an `f32`.
    pub act_max: u32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[act_min, act_max] = words else { return None };
        Some(Self { act_min, act_max })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 2] {
        [self.act_min, self.act_max]
    }
}

#[inline(never)]
fn check(step: &Step<'_>, family: Family) -> Result<(), ErrorKind> {
    let (input, output) = &ends(step, (1, 1, if family.is_float() { 2 } else { 4 }))?;
    family.check(input, output)?;
    let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    let (Some(inputs), Some(outputs)) = (last_axis(input), last_axis(output)) else {
        return Err(ErrorKind::Shape);
    };
    let leading = usize::from(input.rank).saturating_sub(1);
    let same_rows = same_extents(input, output, leading);
    if input.rank != output.rank || !same_rows || inputs == 0 || outputs == 0 {
        return Err(ErrorKind::Shape);
    }
    linear::check(step, family, [p.act_min, p.act_max], 1, Some(inputs), outputs, output.dtype)
}

/// [`OpCode::DenseI8`].
pub struct DenseI8;

impl Operator for DenseI8 {
    const CODE: u16 = OpCode::DenseI8 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let linear = Integer::of(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let inputs = step.inputs()?;
        let (input, output, scratch) = apart_with_scratch(step.views(memory)?)?;
        backend.dense_i8(inputs as usize, linear, input, output, scratch)
    }
}

/// [`OpCode::DenseI16`].
pub struct DenseI16;

impl Operator for DenseI16 {
    const CODE: u16 = OpCode::DenseI16 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I16)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let linear = Integer::of(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let from = step.input(0)?;
        let views = step.views::<1>(memory)?;
        let [input] = views.inputs;
        let input = integers(from.dtype, input?)?;
        let output = integers_mut(step.output(0)?.dtype, views.output)?;
        backend.dense_i16(last_axis(&from)? as usize, linear, input, output, views.scratch)
    }
}

/// [`OpCode::DenseI4`].
pub struct DenseI4;

impl Operator for DenseI4 {
    const CODE: u16 = OpCode::DenseI4 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I4)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let linear = Integer::of_i4x2(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let inputs = step.inputs()?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.dense_i4(inputs as usize, linear, input, output)
    }
}

/// [`OpCode::DenseF32`].
pub struct DenseF32;

impl Operator for DenseF32 {
    const CODE: u16 = OpCode::DenseF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let linear = Float::of(step, p.act_min, p.act_max)?;
        let inputs = step.inputs()?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.dense_f32(inputs as usize, &linear, input, output)
    }
}

/// [`OpCode::DenseF16`].
pub struct DenseF16;

impl Operator for DenseF16 {
    const CODE: u16 = OpCode::DenseF16 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F16)?;
        check_halves(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let linear = Float::of_f16(step, p.act_min, p.act_max)?;
        let inputs = step.inputs()?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.dense_f16(inputs as usize, &linear, input, output)
    }
}
