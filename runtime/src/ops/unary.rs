//! A function of one `f32`, followed by a clamp.

use super::linear::check_float_bounds;
use super::operands::{Family, ends, in_place, same_shape};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The input itself.
    Clamp = 0,
    /// Sine of radians.
    Sin = 1,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 2,
    /// Hyperbolic tangent.
    Tanh = 3,
}

/// Parameters of [`crate::ops::OpCode::UnaryF32`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// The function.
    pub kind: Kind,
    /// Least output.
    pub low: f32,
    /// Greatest output.
    pub high: f32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong or the function unknown.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[kind, low, high] = words else { return None };
        let kind = match kind {
            0 => Kind::Clamp,
            1 => Kind::Sin,
            2 => Kind::Sigmoid,
            3 => Kind::Tanh,
            _ => return None,
        };
        Some(Self { kind, low: f32::from_bits(low), high: f32::from_bits(high) })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 3] {
        [self.kind as u32, self.low.to_bits(), self.high.to_bits()]
    }
}

/// [`OpCode::UnaryF32`].
pub struct UnaryF32;

impl Operator for UnaryF32 {
    const CODE: u16 = OpCode::UnaryF32 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (input, output) = &ends(step, (1, 1, 0))?;
        Family::F32.check(input, output)?;
        same_shape(input, output)?;
        let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::Parameter)?;
        check_float_bounds(p.low, p.high)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let views = step.views::<1>(memory)?;
        backend.unary_f32(&p, in_place(&views.inputs, views.output)?);
        Some(())
    }
}
