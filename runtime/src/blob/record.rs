//! Records of the blob, each with its layout, `parse` and `emit` side by side.

use super::MAX_RANK;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SectionKind {
    /// [`TensorRecord`]s. Critical.
    Tensors = 1,
    /// [`WeightRecord`]s. Critical.
    WeightRecords = 2,
    /// [`StepRecord`]s. Critical.
    Steps = 3,
    /// `u16` operands. Critical.
    Operands = 4,
    /// `u32` parameter words. Critical.
    Parameters = 5,
    /// Constant bytes; every constant starts at a multiple of 16. Critical.
    Weights = 6,
    /// UTF-8 text: one line for each step in order, then the model's name. Optional.
    Names = 7,
    /// UTF-8 text: one line for each class. Optional.
    Labels = 8,
    /// One [`InputContract`] for each graph input, then for each graph output. Optional.
    Contracts = 9,
    /// Regions over steps (row tiles, recurrences). Reserved: a 1.0 reader refuses it.
    Regions = 10,
    /// Golden inputs and outputs for a self-test. Reserved.
    Golden = 11,
}

/// Type of the elements of a tensor or constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DType {
    /// Signed 8-bit integer.
    I8 = 1,
    /// Signed 16-bit integer.
    I16 = 2,
    /// Signed 32-bit integer.
    I32 = 3,
    /// IEEE 754 binary32.
    F32 = 4,
    /// IEEE 754 binary16. Reserved: no 1.0 operator takes it.
    F16 = 5,
}

impl DType {
    /// Reads the stored number.
    pub const fn parse(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::I8),
            2 => Some(Self::I16),
            3 => Some(Self::I32),
            4 => Some(Self::F32),
            5 => Some(Self::F16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 => 2,
            Self::I32 | Self::F32 => 4,
        }
    }

    /// The name used in reports: `i8`, `f32`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// Which memory a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    /// The arena: working memory, free for others between runs.
    Arena = 0,
    /// Survives from run to run.
    State = 1,
    /// The caller's input buffer. Reserved: 1.0 readers refuse it, graph inputs lie in the arena.
    Input = 2,
    /// The caller's output buffer. Reserved like `Input`.
    Output = 3,
    /// In a weight section. Reserved.
    Const = 4,
}

/// How a constant's elements are ordered, a pure function of index. A packing never depends on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Packing {
    /// Plain order, as the operator's page states it: output-major, channels innermost.
    Rows = 0,
}

/// A tensor, 40 bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u8` | [`Space`] |
/// | 1 | `u8` | [`DType`] |
/// | 2 | `u8` | number of axes, 1 to 4 |
/// | 3 | `u8` | zero |
/// | 4 | `[u32; 4]` | extent of each axis, unused ones 1; images are `[n, h, w, c]`; the last axis is contiguous |
/// | 20 | `u32` | offset in its space, divisible by the arena alignment |
/// | 24 | `u16` | rows of the window that is kept in memory, 0 = all (1.0 refuses others) |
/// | 26 | `u16` | slack: bytes behind the tensor that a kernel may read |
/// | 28 | `u32` | bits of the binary32 scale (1.0 for float tensors) |
/// | 32 | `i32` | zero point |
/// | 36 | `u32` | zero |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRecord {
    /// Memory it lies in.
    pub space: Space,
    /// Element type.
    pub dtype: DType,
    /// Number of axes.
    pub rank: u8,
    /// Extents; unused axes are 1.
    pub shape: [u32; MAX_RANK],
    /// Bytes from the start of its space.
    pub offset: u32,
    /// 0: the whole tensor is in memory.
    pub window_rows: u16,
    /// Readable bytes behind it.
    pub slack: u16,
    /// Bits of the scale, kept as an integer so that integer models link no float code.
    pub scale_bits: u32,
    /// The stored integer that means zero.
    pub zero_point: i32,
}

/// A constant, 16 bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u16` | which section of kind `Weights`, counted from 0 in table order |
/// | 2 | `u8` | [`Packing`] |
/// | 3 | `u8` | [`DType`] |
/// | 4 | `u32` | offset in that section, divisible by 16 |
/// | 8 | `u32` | number of elements |
/// | 12 | `u32` | slack: bytes behind it that a kernel may read; they lie in the section |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightRecord {
    /// Which weight section.
    pub section: u16,
    /// Order of the elements.
    pub packing: Packing,
    /// Element type.
    pub dtype: DType,
    /// Bytes from the start of the section.
    pub offset: u32,
    /// Number of elements.
    pub elements: u32,
    /// Readable bytes behind it.
    pub slack: u32,
}

/// A step, 24 bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u16` | operation code, see [`crate::ops::OpCode`] |
/// | 2 | `u8` | zero (region nesting, reserved) |
/// | 3 | `u8` | number of inputs |
/// | 4 | `u8` | number of outputs |
/// | 5 | `u8` | number of weights |
/// | 6 | `u16` | number of parameter words |
/// | 8 | `u32` | index of its first operand |
/// | 12 | `u32` | index of its first parameter word |
/// | 16 | `u32` | offset of its scratch in the arena |
/// | 20 | `u32` | bytes of its scratch |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Operation code.
    pub op: u16,
    /// Number of inputs.
    pub inputs: u8,
    /// Number of outputs.
    pub outputs: u8,
    /// Number of weights.
    pub weights: u8,
    /// Number of parameter words.
    pub parameters: u16,
    /// Index of the first operand.
    pub operands_at: u32,
    /// Index of the first parameter word.
    pub parameters_at: u32,
    /// Offset of the scratch in the arena.
    pub scratch_at: u32,
    /// Bytes of the scratch.
    pub scratch_bytes: u32,
}

/// How the source model names and orders the elements of a graph input or output, 40 bytes: what a program needs to feed data in
/// the model's own order.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u8` | number of axes of the source model's value, 1 to 4 |
/// | 1 | `[u8; 4]` | stored axis `k` is the source's axis `order[k]` |
/// | 5 | `[u8; 3]` | zero |
/// | 8 | `[u32; 4]` | the source's extents, unused ones 1 |
/// | 24 | `[u8; 16]` | zero |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputContract {
    /// Number of axes.
    pub rank: u8,
    /// Stored axis `k` is the source's axis `order[k]`.
    pub order: [u8; MAX_RANK],
    /// The source's extents.
    pub shape: [u32; MAX_RANK],
}
