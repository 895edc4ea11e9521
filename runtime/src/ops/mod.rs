//! Operators. One file each: its parameter record (`parse` and `emit`), its `check` at load time, its `run`.
//!
//! An operation code names an operator *and* the element types that it works on, so that the list of codes in a model is exactly
//! the list of code that has to be linked.
//!
//! # Conventions
//!
//! Images are `[n, h, w, c]`. Linear integer operators take weights `i8`, bias `i32`, and for each output channel a
//! requantisation multiplier (`i32`, Q31) and shift (`i32`, positive = left) as in [`crate::quant`]. Constants are in
//! [`crate::blob::Packing::Rows`] order; weights `i8` of a dense layer, or of a convolution in one group, may be in any other, and then stand with a bias of
//! `bias - zp_in * sum(w)`. `family` below is one of
//! - `i8`: input and output `i8`,
//! - `i16`: input or output (or both) `i16`, the other may be `i8`: factors' inner values,
//! - `f32`: all `f32`, and no multipliers,
//! - `f16`: as `f32`, with weights of binary16, all finite,
//! - `i4`: as `i8`, with weights of 4 bits, two in a byte, the first in its lower half; what belongs to one output channel starts a byte.
//!
//! A step's parameter words are the fields of the operator's `Parameters`, in declared order; signed fields as two's complement, floats
//! as bits. The integer linear operators compute `sum((x - zp_in) * w) + bias` in `i32`, requantise, add `zp_out` and clamp to the
//! bounds; padding has the value `zp_in`, that is real 0. `average_pool2d` sums the stored integers and divides by their number,
//! halves away from zero; its output has the input's quantisation.
//!
//! An operator's file declares its unit structs, their shared `check` and the thin `run` that resolves operands, types them with
//! [`bytemuck::try_cast_slice`] and hands them to the [`Backend`]:
//!
//! ```ignore
//! pub struct TableI8;
//! impl Operator for TableI8 {
//!     const CODE: u16 = OpCode::TableI8 as u16;
//!     const IN_PLACE: bool = true;
//!     fn check(step: &Step<'_>) -> Result<(), ErrorKind> { .. }
//!     fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
//!         let Views { inputs: [input], output, .. } = step.views(memory)?;
//!         let table: &[i8; 256] = step.weight_i8(0)?.try_into().ok()?;
//!         let values = in_place(&[input], output)?;
//!         // In place there is no input to view: the output holds it. Else it is copied there first.
//!         backend.table_i8(table, values);
//!         Some(())
//!     }
//! }
//! ```
//!
//! | operator | families | inputs | weights | in place |
//! |---|---|---|---|---|
//! | conv2d | i8 i16 f32 f16 i4 | image | `[o][kh][kw][i/groups]`, bias `[o]`, multiplier `[o]`, shift `[o]` | `i8`, see below |
//! | depthwise_conv2d | i8 i16 f32 f16 | image | `[kh][kw][o]`, bias, multiplier, shift; output channel `k` reads input channel `k / (o / c)` | `i8`, see below |
//! | dense | i8 i16 f32 f16 i4 | `[.., i]` | `[o][i]`, bias, multiplier, shift | no |
//! | max_pool2d, average_pool2d | i8 f32 | image | none | no |
//! | add | i8 f32 | two of equal shape | none | yes, on the first input |
//! | mul | f32 | two of equal shape | none | yes, on the first input |
//! | table | i8 | any | 256 bytes: entry `x + 128` is the output for input `x` | yes |
//! | unary | f32 | any | none | yes |
//! | softmax | i8 i16 f32 | any (`i8` for the `i16` family); over the last axis | none | yes, but for i16 |
//! | mean2d | i8 | image; output `[n, 1, 1, c]` | none | no |
//! | permute | 1-byte, 4-byte elements | any | none | no |
//!
//! A convolution may replace its input if its strides are 1 and its output has the input's extents, and with a scratch of at least the input's rows under a window
//! ([`window::Window::kept_bytes`]). Other steps need no scratch; backends may want more ([`crate::backend::spec::select`]).

pub mod add;
pub mod conv2d;
pub mod dense;
pub mod depthwise_conv2d;
pub mod linear;
pub mod mean;
pub mod mul;
mod operands;
pub mod permute;
pub mod pool2d;
pub mod softmax;
pub mod table;
pub mod unary;
pub mod window;
pub mod winograd;

pub use add::{AddF32, AddI8};
pub use conv2d::{Conv2dF16, Conv2dF32, Conv2dI4, Conv2dI8, Conv2dI16};
pub use dense::{DenseF16, DenseF32, DenseI4, DenseI8, DenseI16};
pub use depthwise_conv2d::{DepthwiseConv2dF16, DepthwiseConv2dF32, DepthwiseConv2dI8, DepthwiseConv2dI16};
pub use mean::Mean2dI8;
pub use mul::MulF32;
pub use permute::{PermuteF32, PermuteI8};
pub use pool2d::{AveragePool2dF32, AveragePool2dI8, MaxPool2dF32, MaxPool2dI8};
pub use softmax::{SoftmaxF32, SoftmaxI8, SoftmaxI16};
pub use table::TableI8;
pub use unary::UnaryF32;
pub use winograd::WinogradConv2dI8;

pub(crate) use operands::last_axis;

use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;
use crate::region::Rows;

/// What the interpreter asks of an operator. One unit struct for each operation code implements it: `Conv2dI8`, `AddF32`, ...
///
/// [`crate::op_set!`] lists such types; what it does not list is not linked.
pub trait Operator {
    /// The operation code in the blob. Codes of this crate are those of [`OpCode`]; `0x8000..` is left to custom operators.
    const CODE: u16;
    /// Whether the output may lie exactly on the first input (same offset, same bytes).
    const IN_PLACE: bool = false;

    /// Judges a step once, at load time: number and types of operands, shapes, length of each weight, every parameter. What
    /// `check` accepts, `run` can execute: products of extents, accumulated window bounds and divisors are settled here.
    /// The loader has already settled that operands exist, that their bytes lie inside memory at aligned offsets, that each tensor's
    /// number of bytes fits `u32`, and that inputs, output and scratch do not overlap (but for the in-place case).
    fn check(step: &Step<'_>) -> Result<(), ErrorKind>;

    /// Executes a step. `None` means that something which `check` promised does not hold; the interpreter then stops with
    /// [`ErrorKind::Internal`]. It never panics.
    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()>;

    /// The row axis of a step that may stand in a [region](crate::region): rows of its output depend on rows of its only input.
    fn rows(step: &Step<'_>) -> Option<window::Axis> {
        let _ = step;
        None
    }

    /// Executes some rows of a step for which [`Operator::rows`] gives an axis. `None` as [`Operator::run`].
    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let _ = (backend, step, memory, rows);
        None
    }
}

/// Executes a step in a frame of its own, so that the stack holds what one operator needs and not what all of them do.
#[doc(hidden)]
#[inline(never)]
pub fn run<O: Operator, B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
    O::run(backend, step, memory)
}

/// As [`run`], of some rows of a step.
#[doc(hidden)]
#[inline(never)]
pub fn run_rows<O: Operator, B: Backend>(
    backend: B,
    step: &Step<'_>,
    memory: &mut Memory<'_>,
    rows: &Rows,
) -> Option<()> {
    O::run_rows(backend, step, memory, rows)
}

/// Operation codes: `operator << 8 | family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum OpCode {
    /// Convolution, `i8`.
    Conv2dI8 = 0x0101,
    /// Convolution from or to `i16`.
    Conv2dI16 = 0x0102,
    /// Convolution, `f32`.
    Conv2dF32 = 0x0104,
    /// Convolution, `i8` with 4-bit weights.
    Conv2dI4 = 0x0105,
    /// Convolution, `f32` with binary16 weights.
    Conv2dF16 = 0x0106,
    /// Depthwise convolution, `i8`.
    DepthwiseConv2dI8 = 0x0201,
    /// Depthwise convolution from or to `i16`.
    DepthwiseConv2dI16 = 0x0202,
    /// Depthwise convolution, `f32`.
    DepthwiseConv2dF32 = 0x0204,
    /// Depthwise convolution, `f32` with binary16 weights.
    DepthwiseConv2dF16 = 0x0206,
    /// Dense layer, `i8`.
    DenseI8 = 0x0301,
    /// Dense layer from or to `i16`.
    DenseI16 = 0x0302,
    /// Dense layer, `f32`.
    DenseF32 = 0x0304,
    /// Dense layer, `i8` with 4-bit weights.
    DenseI4 = 0x0305,
    /// Dense layer, `f32` with binary16 weights.
    DenseF16 = 0x0306,
    /// Maximum over windows, `i8`.
    MaxPool2dI8 = 0x0401,
    /// Maximum over windows, `f32`.
    MaxPool2dF32 = 0x0404,
    /// Mean over windows, `i8`.
    AveragePool2dI8 = 0x0501,
    /// Mean over windows, `f32`.
    AveragePool2dF32 = 0x0504,
    /// Sum, `i8`.
    AddI8 = 0x0601,
    /// Sum, `f32`.
    AddF32 = 0x0604,
    /// Product, `f32`.
    MulF32 = 0x0704,
    /// Any function of one `i8`.
    TableI8 = 0x0801,
    /// A function of one `f32`.
    UnaryF32 = 0x0904,
    /// Softmax, `i8`.
    SoftmaxI8 = 0x0A01,
    /// Softmax from `i8` to `i16`.
    SoftmaxI16 = 0x0A02,
    /// Softmax, `f32`.
    SoftmaxF32 = 0x0A04,
    /// Axis permutation of one-byte elements.
    PermuteI8 = 0x0B01,
    /// Axis permutation of four-byte elements.
    PermuteF32 = 0x0B04,
    /// Mean over an image, requantised, `i8`.
    Mean2dI8 = 0x0C01,
    /// Convolution with transformed weights, `i8`.
    WinogradConv2dI8 = 0x0D01,
}

impl From<OpCode> for u16 {
    fn from(op: OpCode) -> Self {
        op as Self
    }
}

impl OpCode {
    /// All codes, in ascending order.
    pub const ALL: [Self; 30] = [
        Self::Conv2dI8,
        Self::Conv2dI16,
        Self::Conv2dF32,
        Self::Conv2dI4,
        Self::Conv2dF16,
        Self::DepthwiseConv2dI8,
        Self::DepthwiseConv2dI16,
        Self::DepthwiseConv2dF32,
        Self::DepthwiseConv2dF16,
        Self::DenseI8,
        Self::DenseI16,
        Self::DenseF32,
        Self::DenseI4,
        Self::DenseF16,
        Self::MaxPool2dI8,
        Self::MaxPool2dF32,
        Self::AveragePool2dI8,
        Self::AveragePool2dF32,
        Self::AddI8,
        Self::AddF32,
        Self::MulF32,
        Self::TableI8,
        Self::UnaryF32,
        Self::SoftmaxI8,
        Self::SoftmaxI16,
        Self::SoftmaxF32,
        Self::PermuteI8,
        Self::PermuteF32,
        Self::Mean2dI8,
        Self::WinogradConv2dI8,
    ];

    /// Reads the stored number. The name of each code (its `Debug`) is that of the [`Operator`] that has it.
    pub fn parse(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u16 == code)
    }
}
