//! Steps of integers besides those of [`super::Int8`]: linear layers of 16 bits, pools, softmax and tables.

use super::int16::Int16;
use super::pool::Pool;
use crate::Step;
use crate::backend::vector::softmax::Softmax;
use crate::backend::vector::table::Table;
use crate::host::program::form::{Element, Image};
use crate::host::program::{Constants, Layer, Wants};

/// The registers that kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// AVX2: pairs of words (`VPMADDWD`).
    Bits256,
    /// AVX-512 with VNNI: pairs of words (`VPDPWSSD`), and bytes in fours where inputs are bytes (`VPDPBUSD`).
    Bits512,
}

impl Width {
    /// How kernels of 8 bits take and make `i8`.
    pub fn bytes(self) -> Element {
        match self {
            Self::Bits256 => Element::Offset16,
            Self::Bits512 => Element::Offset8,
        }
    }
}

/// The forms of the operands; `None`: another step.
pub fn wants(step: &Step<'_>, width: Width) -> Option<Wants> {
    let bytes = width.bytes();
    Int16::of(step)
        .map(|int16| int16.wants(width))
        .or_else(|| Pool::of(step).map(|_| Pool::wants(bytes)))
        .or_else(|| Softmax::of(step).map(|_| Softmax::wants(bytes)))
        .or_else(|| Table::of(step).map(|_| Table::wants(bytes)))
}

/// The layer of a step for which there are wants, if it can be made; `None`: another step.
pub fn layer(
    step: &Step<'_>,
    width: Width,
    inputs: &[Image],
    output: &Image,
    constants: &mut Constants,
) -> Option<Option<Box<dyn Layer>>> {
    if let Some(int16) = Int16::of(step) {
        return Some(int16.layer(width, inputs, output, constants));
    }
    let [input] = inputs else { return None };
    if let Some(pool) = Pool::of(step) {
        return Some(pool.layer(width, input, output));
    }
    if let Some(softmax) = Softmax::of(step) {
        return Some(softmax.layer(input, output));
    }
    Table::of(step).map(|table| table.layer(input, output))
}
