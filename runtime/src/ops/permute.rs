//! Axis permutation.

use super::operands::{Family, apart, ends};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::blob::TensorRecord;
use crate::error::ErrorKind;
use crate::model::Step;

use crate::blob::MAX_RANK;

/// Parameters of [`crate::ops::OpCode::PermuteI8`] and [`crate::ops::OpCode::PermuteF32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Output axis `k` is input axis `order[k]`. Entries from the rank on are ignored; writers store `k` there.
    pub order: [u32; MAX_RANK],
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        Some(Self { order: words.try_into().ok()? })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; MAX_RANK] {
        self.order
    }
}

/// A permutation of a given tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Extents of the output; axes that it lacks have 1.
    pub extents: [usize; MAX_RANK],
    /// Input elements from one index of an output axis to the next.
    pub strides: [usize; MAX_RANK],
}

impl Parameters {
    /// `None` if the order is no permutation of the axes or does not make the output's shape of the input's.
    fn map(&self, input: &TensorRecord, output: &TensorRecord) -> Option<Map> {
        let rank = usize::from(input.rank);
        if input.rank != output.rank {
            return None;
        }
        let mut extents = [1; MAX_RANK];
        let mut strides = [0; MAX_RANK];
        let mut seen = 0u32;
        let axes = self.order.iter().zip(&output.shape).zip(extents.iter_mut().zip(&mut strides));
        for ((&axis, &extent), (extent_slot, stride_slot)) in axes.take(rank) {
            let axis = axis as usize;
            if axis >= rank || input.shape.get(axis) != Some(&extent) || seen >> axis & 1 == 1 {
                return None;
            }
            seen |= 1 << axis;
            *extent_slot = extent as usize;
            let behind = input.shape.iter().take(rank).skip(axis.wrapping_add(1));
            *stride_slot = behind.fold(1usize, |product, &extent| product.wrapping_mul(extent as usize));
        }
        Some(Map { extents, strides })
    }
}

fn check(step: &Step<'_>, family: Family) -> Result<(), ErrorKind> {
    let (input, output) = &ends(step, (1, 1, 0))?;
    family.check(input, output)?;
    let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    p.map(input, output).map(|_| ()).ok_or(ErrorKind::Shape)
}

/// [`OpCode::PermuteI8`].
pub struct PermuteI8;

impl Operator for PermuteI8 {
    const CODE: u16 = OpCode::PermuteI8 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let map = Parameters::parse(step.parameters())?.map(&step.input(0)?, &step.output(0)?)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.permute_i8(&map, input, output)
    }
}

/// [`OpCode::PermuteF32`].
pub struct PermuteF32;

impl Operator for PermuteF32 {
    const CODE: u16 = OpCode::PermuteF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let map = Parameters::parse(step.parameters())?.map(&step.input(0)?, &step.output(0)?)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.permute_f32(&map, input, output)
    }
}
