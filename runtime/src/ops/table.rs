//! Any function of one `i8`: entry `x + 128` of its table is the output for input `x`. It has no parameters.

use super::linear::plain;
use super::operands::{Family, ends, in_place, same_shape};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;

/// [`OpCode::TableI8`].
pub struct TableI8;

impl Operator for TableI8 {
    const CODE: u16 = OpCode::TableI8 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (input, output) = &ends(step, (1, 1, 1))?;
        Family::I8.check(input, output)?;
        same_shape(input, output)?;
        if !step.parameters().is_empty() {
            return Err(ErrorKind::OperandCount);
        }
        if !plain(step) {
            return Err(ErrorKind::Parameter);
        }
        let table = step.weight_i8(0).ok_or(ErrorKind::ElementType)?;
        if table.len() == 256 { Ok(()) } else { Err(ErrorKind::WeightLength) }
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let table = step.weight_i8(0)?.try_into().ok()?;
        let views = step.views::<1>(memory)?;
        backend.table_i8(table, in_place(&views.inputs, views.output)?);
        Some(())
    }
}
