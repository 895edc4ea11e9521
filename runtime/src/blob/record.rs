//! Records of the blob, each with its layout, `parse` and `emit` side by side.

use super::MAX_RANK;

/// The two bytes at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The four bytes at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The first `N` words of bytes that may lie anywhere.
#[inline]
pub(super) fn words_anywhere<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let bytes = bytes.get(..N.checked_mul(4)?)?;
    let mut words = [0; N];
    scattered_words(bytes, &mut words);
    Some(words)
}

#[inline(never)]
fn scattered_words(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

fn shape_at(bytes: &[u8], at: usize) -> Option<[u32; MAX_RANK]> {
    Some([
        u32_at(bytes, at)?,
        u32_at(bytes, at.checked_add(4)?)?,
        u32_at(bytes, at.checked_add(8)?)?,
        u32_at(bytes, at.checked_add(12)?)?,
    ])
}

/// Whether `shape` has `rank` axes: 1 to 4 extents, none of them 0, and 1 beyond.
fn is_shape(rank: u8, shape: &[u32; MAX_RANK]) -> bool {
    let rank = usize::from(rank);
    (1..=MAX_RANK).contains(&rank)
        && shape.iter().enumerate().all(|(axis, &extent)| if axis < rank { extent > 0 } else { extent == 1 })
}

/// `a * b`; `None` if it passes `u32`. Halfwords, the rule, take no long multiplication.
#[inline]
pub(crate) fn product(a: u32, b: u32) -> Option<u32> {
    if (a | b) >> 16 == 0 { Some(a.wrapping_mul(b)) } else { a.checked_mul(b) }
}

/// Writes the fields of a record one after the other.
#[cfg(feature = "host")]
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

#[cfg(feature = "host")]
impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(mut self, field: &[u8]) -> Self {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
        self
    }

    fn shape(self, shape: [u32; MAX_RANK]) -> Self {
        shape.iter().fold(self, |writer, extent| writer.put(&extent.to_le_bytes()))
    }
}

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
    /// [`RegionRecord`]s, in the order of their steps. Critical.
    Regions = 10,
    /// Golden inputs and outputs for a self-test. Reserved.
    Golden = 11,
}

impl SectionKind {
    /// Reads the stored number.
    pub const fn parse(kind: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Tensors,
            2 => Self::WeightRecords,
            3 => Self::Steps,
            4 => Self::Operands,
            5 => Self::Parameters,
            6 => Self::Weights,
            7 => Self::Names,
            8 => Self::Labels,
            9 => Self::Contracts,
            10 => Self::Regions,
            11 => Self::Golden,
            _ => return None,
        })
    }

    /// Bytes of a record of this version.
    pub const fn record_bytes(self) -> u32 {
        // Bytes: the table of the `match` is one of bytes then.
        let bytes: u8 = match self {
            Self::Tensors => TensorRecord::BYTES as u8,
            Self::WeightRecords => WeightRecord::BYTES as u8,
            Self::Steps => StepRecord::BYTES as u8,
            Self::Contracts => InputContract::BYTES as u8,
            Self::Regions => RegionRecord::BYTES as u8,
            Self::Operands => 2,
            Self::Parameters => 4,
            Self::Weights | Self::Names | Self::Labels | Self::Golden => 1,
        };
        bytes as u32
    }

    /// Whether a later minor version may append fields to the records, so that the stride may be larger than
    /// [`SectionKind::record_bytes`], by a multiple of 4, and below 2^16. The others are plain arrays, read in place.
    pub const fn grows(self) -> bool {
        !matches!(self, Self::Operands | Self::Parameters | Self::Weights | Self::Names | Self::Labels)
    }
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
    /// IEEE 754 binary16. Of constants alone.
    F16 = 5,
    /// Two signed 4-bit integers in a byte, the first in its lower half. Of constants alone.
    I4x2 = 6,
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
            6 => Some(Self::I4x2),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        // Two bits a type: a `match` would be a table in the flash of each caller.
        const LOGARITHMS: u32 = 1 << (2 * DType::I16 as u32)
            | 2 << (2 * DType::I32 as u32)
            | 2 << (2 * DType::F32 as u32)
            | 1 << (2 * DType::F16 as u32);
        1 << (LOGARITHMS >> (2 * self as u32) & 3)
    }

    /// The name used in reports: `i8`, `f32`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I4x2 => "i4x2",
        }
    }
}

/// Which memory a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// A word in memory, so that places and records are copied in words.
#[repr(u32)]
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

impl Space {
    /// Reads the stored number.
    pub const fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Arena,
            1 => Self::State,
            2 => Self::Input,
            3 => Self::Output,
            4 => Self::Const,
            _ => return None,
        })
    }
}

/// How a constant's elements are ordered, a pure function of index. A packing never depends on the host. Outputs are those of one group: a convolution's
/// groups stand one after the other, each filled up to whole blocks.
///
/// In [`Packing::Pairs`], [`Packing::PairQuads`], [`Packing::Columns8`] and [`Packing::EvenRows`] no weight is -128 ([`Packing::is_sound`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Packing {
    /// Plain order, as the operator's page states it: output-major, channels innermost.
    Rows = 0,
    /// Halfwords `256 * w[o] + w[o + 1]` of two outputs, in words of positions `(k, k + 2)` and `(k + 1, k + 3)`: for the DSP extension.
    Pairs = 1,
    /// As `Pairs`, the words of two pairs side by side.
    PairQuads = 2,
    /// Sixteen positions of each of four outputs: for Helium.
    Blocks4x16 = 3,
    /// Sixteen positions of each of eight outputs: for Helium.
    Blocks8x16 = 4,
    /// Eight outputs of each position, positions in pairs: for convolutions on Armv6-M.
    Columns8 = 5,
    /// Four positions of each of two outputs: for the DSP extension where `Pairs` does not fit.
    Blocks2x4 = 6,
    /// Four outputs of each position, each weight plus 128: for dense layers on Armv6-M.
    Offset4 = 7,
    /// Four outputs of each position, the weights of the first and third plus 128: for dense layers on Armv7-M.
    HalfOffset4 = 8,
    /// Plain order, each output filled up to an even number of positions: for convolutions on Armv7-M.
    EvenRows = 9,
    /// Not an order but a transform, see [`super::winograd`]: of [`crate::ops::WinogradConv2dI8`] alone.
    Winograd = 10,
}

impl Packing {
    /// Reads the stored number.
    pub const fn parse(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Rows),
            1 => Some(Self::Pairs),
            2 => Some(Self::PairQuads),
            3 => Some(Self::Blocks4x16),
            4 => Some(Self::Blocks8x16),
            5 => Some(Self::Columns8),
            6 => Some(Self::Blocks2x4),
            7 => Some(Self::Offset4),
            8 => Some(Self::HalfOffset4),
            9 => Some(Self::EvenRows),
            10 => Some(Self::Winograd),
            _ => None,
        }
    }
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
/// | 24 | `u16` | rows of the window that is kept in memory, 0 = all; others only between the steps of a [region](RegionRecord) |
/// | 26 | `u16` | slack: bytes behind the tensor that a kernel may read |
/// | 28 | `u32` | bits of the binary32 scale (1.0 for float tensors) |
/// | 32 | `i32` | zero point |
/// | 36 | `u32` | 0, or for a view 1 + the number of the tensor whose elements it shows |
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

/// The words of a [`TensorRecord`].
pub(crate) type TensorWords = [u32; TensorRecord::BYTES / 4];

impl TensorRecord {
    /// Bytes of the record.
    pub const BYTES: usize = 40;

    /// Reads a record. `None`: unknown number of an enumeration, impossible shape, or a reserved byte that is not 0.
    /// What it is a view of is read by [`TensorRecord::viewed`].
    pub(super) fn parse(words: &TensorWords) -> Option<Self> {
        let [kind, ..] = words;
        Self::parse_again(words).filter(|tensor| kind >> 24 == 0 && is_shape(tensor.rank, &tensor.shape))
    }

    /// Reads a record that [`TensorRecord::parse`] has accepted: shape and reserved byte are not judged again.
    #[inline(never)]
    pub(crate) fn parse_again(words: &TensorWords) -> Option<Self> {
        let &[kind, a, b, c, d, offset, window, scale_bits, zero_point, _] = words;
        let [space, dtype, rank, _] = kind.to_le_bytes();
        Some(Self {
            space: Space::parse(space)?,
            dtype: DType::parse(dtype)?,
            rank,
            shape: [a, b, c, d],
            offset,
            window_rows: window as u16,
            slack: (window >> 16) as u16,
            scale_bits,
            zero_point: zero_point.cast_signed(),
        })
    }

    /// The number of the tensor that a record's tensor is a view of; `None` if it is no view.
    pub(super) fn viewed(words: &TensorWords) -> Option<u32> {
        let [.., viewed] = words;
        viewed.checked_sub(1)
    }

    /// The record as bytes. `viewed`: the number of the tensor that it is a view of.
    #[cfg(feature = "host")]
    pub fn emit(&self, viewed: Option<u16>) -> [u8; Self::BYTES] {
        let viewed = viewed.map_or(0, |number| u32::from(number) + 1);
        Writer::new()
            .put(&[self.space as u8, self.dtype as u8, self.rank, 0])
            .shape(self.shape)
            .put(&self.offset.to_le_bytes())
            .put(&self.window_rows.to_le_bytes())
            .put(&self.slack.to_le_bytes())
            .put(&self.scale_bits.to_le_bytes())
            .put(&self.zero_point.to_le_bytes())
            .put(&viewed.to_le_bytes())
            .bytes
    }

    /// Number of elements; `None` if it passes `u32`.
    pub fn elements(&self) -> Option<usize> {
        let [a, b, c, d] = self.shape;
        Some(product(product(a, b)?, product(c, d)?)? as usize)
    }

    /// Number of bytes, without slack; `None` if it passes `u32`.
    #[inline(never)]
    pub fn bytes(&self) -> Option<usize> {
        let elements = u32::try_from(self.elements()?).ok()?;
        Some(product(elements, self.dtype.bytes() as u32)? as usize)
    }

    /// The place of a tensor that was found to have one: its space, its offset, and the bytes that [`TensorRecord::stored_bytes`] gives.
    #[inline]
    pub(crate) fn place_again(words: &TensorWords) -> Option<(Space, usize, usize)> {
        let &[kind, a, b, c, d, offset, window, ..] = words;
        let [space, dtype, ..] = kind.to_le_bytes();
        let rows = if window as u16 == 0 { b } else { window & 0xFFFF };
        let elements = a.wrapping_mul(rows).wrapping_mul(c.wrapping_mul(d));
        let bytes = elements.wrapping_mul(DType::parse(dtype)?.bytes() as u32);
        Some((Space::parse(space)?, offset as usize, bytes as usize))
    }

    /// Number of bytes in memory, without slack: those of the window, of a tensor that is never whole there. `None` as [`TensorRecord::bytes`], and
    /// for a window of more rows than the tensor has, or of what is no single image.
    pub fn stored_bytes(&self) -> Option<usize> {
        if self.window_rows == 0 {
            return self.bytes();
        }
        let [images, rows, ..] = self.shape;
        let window = Self { shape: self.shape_of_rows(self.window_rows.into()), ..*self };
        let legal = self.rank == 4 && images == 1 && u32::from(self.window_rows) <= rows;
        if legal { window.bytes() } else { None }
    }

    fn shape_of_rows(&self, rows: u32) -> [u32; MAX_RANK] {
        let [images, _, columns, channels] = self.shape;
        [images, rows, columns, channels]
    }

    /// Its axes, without the unused ones.
    pub fn axes(&self) -> &[u32] {
        self.shape.get(..usize::from(self.rank)).unwrap_or(&self.shape)
    }
}

/// A constant, 16 bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u16` | which section of kind `Weights`, counted from 0 in table order |
/// | 2 | `u8` | [`Packing`]; [`Packing::Rows`] but for weights `i8` |
/// | 3 | `u8` | [`DType`] |
/// | 4 | `u32` | offset in that section, divisible by 16 |
/// | 8 | `u32` | number of elements, with those that fill blocks of the packing up |
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

/// The words of a [`WeightRecord`].
pub(crate) type WeightWords = [u32; WeightRecord::BYTES / 4];

impl WeightRecord {
    /// Bytes of the record.
    pub const BYTES: usize = 16;

    /// Reads a record. `None`: unknown number of an enumeration.
    pub(super) fn parse(words: &WeightWords) -> Option<Self> {
        let &[kind, offset, elements, slack] = words;
        let [.., packing, dtype] = kind.to_le_bytes();
        let (packing, dtype) = (Packing::parse(packing)?, DType::parse(dtype)?);
        Some(Self { section: kind as u16, packing, dtype, offset, elements, slack })
    }

    /// The record as bytes.
    #[cfg(feature = "host")]
    pub fn emit(&self) -> [u8; Self::BYTES] {
        Writer::new()
            .put(&self.section.to_le_bytes())
            .put(&[self.packing as u8, self.dtype as u8])
            .put(&self.offset.to_le_bytes())
            .put(&self.elements.to_le_bytes())
            .put(&self.slack.to_le_bytes())
            .bytes
    }
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

/// The words of a [`StepRecord`].
pub(crate) type StepWords = [u32; StepRecord::BYTES / 4];

impl StepRecord {
    /// Bytes of the record.
    pub const BYTES: usize = 24;

    /// Reads a record. `None`: the reserved byte is not 0.
    #[inline]
    pub(crate) fn parse(words: &StepWords) -> Option<Self> {
        let &[kind, counts, operands_at, parameters_at, scratch_at, scratch_bytes] = words;
        let [.., reserved, inputs] = kind.to_le_bytes();
        let [outputs, weights, ..] = counts.to_le_bytes();
        let step = Self {
            op: kind as u16,
            inputs,
            outputs,
            weights,
            parameters: (counts >> 16) as u16,
            operands_at,
            parameters_at,
            scratch_at,
            scratch_bytes,
        };
        (reserved == 0).then_some(step)
    }

    /// The record as bytes.
    #[cfg(feature = "host")]
    pub fn emit(&self) -> [u8; Self::BYTES] {
        Writer::new()
            .put(&self.op.to_le_bytes())
            .put(&[0, self.inputs, self.outputs, self.weights])
            .put(&self.parameters.to_le_bytes())
            .put(&self.operands_at.to_le_bytes())
            .put(&self.parameters_at.to_le_bytes())
            .put(&self.scratch_at.to_le_bytes())
            .put(&self.scratch_bytes.to_le_bytes())
            .bytes
    }
}

/// Steps that run some rows at a time, each on what the one before it has just written, 12 bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | `u16` | kind: 1, row tiles; no other is defined |
/// | 2 | `u16` | index of the first step |
/// | 4 | `u16` | number of steps, 2 to [`crate::region::MAX_STEPS`] |
/// | 6 | `u16` | rows of the last step's output that are written at a time |
/// | 8 | `u32` | zero |
///
/// Each step but the first reads the output of the one before it, which stands in memory as a window of its rows: after rows that no later
/// step reads have left at its start, new ones are written behind the others. All memory of a region is in use at once; but the last
/// output may lie in the place of the first input where every row is read before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionRecord {
    /// Index of the first step.
    pub first: u16,
    /// Number of steps.
    pub count: u16,
    /// Rows of the last output a tile.
    pub rows: u16,
}

impl RegionRecord {
    /// Bytes of the record.
    pub const BYTES: usize = 12;
    const ROW_TILES: u16 = 1;

    /// Reads a record. `None`: unknown kind, or a reserved byte that is not 0.
    pub(super) fn parse(&[kind, rows, reserved]: &[u32; Self::BYTES / 4]) -> Option<Self> {
        let region = Self { first: (kind >> 16) as u16, count: rows as u16, rows: (rows >> 16) as u16 };
        (kind as u16 == Self::ROW_TILES && reserved == 0).then_some(region)
    }

    /// The record as bytes.
    #[cfg(feature = "host")]
    pub fn emit(&self) -> [u8; Self::BYTES] {
        [Self::ROW_TILES, self.first, self.count, self.rows, 0, 0]
            .iter()
            .fold(Writer::new(), |writer, word| writer.put(&word.to_le_bytes()))
            .bytes
    }

    /// The step behind its last.
    pub fn end(&self) -> u16 {
        self.first.saturating_add(self.count)
    }
}

/// How the source model orders the elements of a graph input or output, 40 bytes: what a program needs to feed data in
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

impl InputContract {
    /// Bytes of the record.
    pub const BYTES: usize = 40;

    /// Reads a record. `None`: too short, impossible shape, `order` is no permutation of the axes, or a reserved byte is not 0.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let contract = Self {
            rank: u8_at(record, 0)?,
            order: *record.get(1..)?.first_chunk()?,
            shape: shape_at(record, 8)?,
        };
        let rank = contract.rank;
        let used = contract.order.get(..usize::from(rank))?;
        let permutes = (0..rank).all(|axis| used.contains(&axis));
        let reserved_clear = record.get(5..8)?.iter().chain(record.get(24..40)?).all(|&byte| byte == 0);
        (permutes && reserved_clear && is_shape(rank, &contract.shape)).then_some(contract)
    }

    /// The record as bytes.
    #[cfg(feature = "host")]
    pub fn emit(&self) -> [u8; Self::BYTES] {
        Writer::new().put(&[self.rank]).put(&self.order).put(&[0; 3]).shape(self.shape).bytes
    }
}
