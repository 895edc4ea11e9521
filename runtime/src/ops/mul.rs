//! Product of two `f32` tensors of equal shape, with a clamp.

use super::add::check_f32;
use super::operands::{elements, in_place};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;

pub use super::add::FloatParameters as Parameters;

/// [`OpCode::MulF32`].
pub struct MulF32;

impl Operator for MulF32 {
    const CODE: u16 = OpCode::MulF32 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check_f32(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let views = step.views::<2>(memory)?;
        let [_, second] = views.inputs;
        backend.mul_f32([p.act_min, p.act_max], in_place(&views.inputs, views.output)?, elements(second?)?)
    }
}
