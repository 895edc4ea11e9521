//! What the kernels for cores with the vector extension (Cortex-M55, M85) take.
//!
//! Convolutions are products of weights and of positions, four outputs by two positions at a time, with [`Packing::Blocks4x16`]. They differ in
//! where a position's inputs lie side by side: in the tensor ([`Conv::Pointwise`]), in padded rows ([`Conv::Rows`]), or in copies ([`Conv::Patches`]).
//! Of groups each has its own weights, and reads and writes its channels among those of all.
//! Dense layers take [`Packing::Blocks8x16`]. Depthwise convolutions, and convolutions with dilation, take plain weights. Every layer has a kernel;
//! packed weights without the scratch that their kernel wants are left to scalar code.

use super::select::{Linear, Request, Selection};
use crate::blob::{DType, Packing};
use crate::ops::window::{Axis, Window};

/// Bytes that a vector holds: positions are padded to whole vectors.
pub const VECTOR: usize = 16;
/// Inner product positions of a block of [`Packing::Blocks4x16`] and [`Packing::Blocks8x16`].
pub const BLOCK: usize = 16;
/// Most kernel rows that a convolution takes.
pub const MOST_TAPS: usize = 16;
/// Most positions whose sums are made before they are requantised.
pub const CHUNK: usize = 32;
/// Bytes of copies that one round of a convolution aims at.
const ROUND_BYTES: usize = 3584;
/// Bytes of strips that one round of a depthwise convolution aims at.
const STRIP_BYTES: usize = 3600;
/// Wide images of fewer rows count as parts of one: they want no more memory than the whole.
const FEW_ROWS: usize = 4;
/// Bytes that their strips aim at.
const FEW_BYTES: usize = 1728;
/// Bytes behind a strip of less than whole vectors.
const EXCESS: usize = 4 * VECTOR;
/// Most columns of a narrow image.
const NARROW: usize = 16;
/// Most positions of a round.
const ROUND: usize = 64;

/// How a convolution finds its inputs. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conv {
    /// The one window is the image: a dense layer, with [`Packing::Blocks8x16`].
    Dense {
        /// Elements of an image.
        inputs: usize,
    },
    /// In the tensor. Positions whose last block would read behind the tensor, and all positions in place, are copied, `round` at a time.
    Pointwise {
        /// Positions.
        round: usize,
    },
    /// In a ring of padded rows, each tap row a run of whole blocks.
    Rows {
        /// Of a row of the ring.
        row: usize,
    },
    /// Copied from a ring of padded rows, `round` positions at a time.
    Patches {
        /// Of a row of the ring.
        row: usize,
        /// Positions.
        round: usize,
    },
}

/// The convolution for a request.
pub fn conv2d(request: &Request) -> Option<Conv> {
    let Linear::Conv2d { window, groups } = &request.linear else { return None };
    let conv = conv2d_shape(window, *groups, request.input, request.in_place)?;
    (request.packing == conv.packing()).then_some(conv)
}

impl Conv {
    fn packing(&self) -> Packing {
        match self {
            Self::Dense { .. } => Packing::Blocks8x16,
            _ => Packing::Blocks4x16,
        }
    }
}

/// Bytes of a row of the ring.
fn ring_row(window: &Window, input: DType) -> usize {
    let columns = &window.columns;
    let extent =
        columns.output.saturating_sub(1).saturating_mul(columns.stride).saturating_add(columns.kernel);
    padded(extent.saturating_mul(window.inputs).saturating_mul(input.bytes()))
}

fn conv2d_shape(window: &Window, groups: usize, input: DType, in_place: bool) -> Option<Conv> {
    let Window { rows, columns, inputs, .. } = window;
    let segments = Segments::of(window, groups)?;
    let dense = |axis: &Axis| axis.dilation == 1 || axis.kernel == 1;
    if !dense(rows) || !dense(columns) || rows.kernel > MOST_TAPS {
        return None;
    }
    let whole = |axis: &Axis| axis.kernel == axis.input && axis.output == 1 && axis.pad == 0;
    // What may lie in place is left to kernels that can.
    if groups == 1 && whole(rows) && whole(columns) && !window.replaces_input() {
        return Some(Conv::Dense { inputs: window.image() });
    }
    let plain = |axis: &Axis| axis.kernel == 1 && axis.stride == 1 && axis.input == axis.output;
    if plain(rows) && plain(columns) {
        let depth = inputs.saturating_mul(input.bytes());
        let round = if in_place { round(depth) } else { 0 };
        return Some(Conv::Pointwise { round });
    }
    let row = ring_row(window, input);
    if segments.elements % BLOCK == 0 && segments.count <= MOST_TAPS {
        return Some(Conv::Rows { row });
    }
    Some(Conv::Patches { row, round: round(segments.patch_bytes(input.bytes())) })
}

/// What of a window lies side by side in padded rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// How many segments a window has.
    pub count: usize,
    /// How many of them a kernel row has.
    pub across: usize,
    /// Elements of a segment.
    pub elements: usize,
}

impl Segments {
    /// Kernel rows of a window in one group, else taps.
    pub fn of(window: &Window, groups: usize) -> Option<Self> {
        let taps = window.columns.kernel;
        let inputs = window.inputs.checked_div(groups)?;
        let (across, elements) = if groups == 1 { (1, taps.checked_mul(inputs)?) } else { (taps, inputs) };
        Some(Self { count: window.rows.kernel.checked_mul(across)?, across, elements })
    }

    /// Bytes of a position's copy, of elements of so many bytes: whole blocks, and room for the last segment's whole vectors.
    pub fn patch_bytes(&self, size: usize) -> usize {
        let depth = whole(self.count.saturating_mul(self.elements), BLOCK).saturating_mul(size);
        let run = self.elements.saturating_mul(size);
        let last = self.count.wrapping_sub(1).saturating_mul(run);
        depth.max(padded(last.saturating_add(padded(run))))
    }

    /// Bytes of the table of segments' starts, for each slot that the first row may have.
    pub fn table_bytes(&self) -> usize {
        padded(self.count.saturating_mul(8))
    }
}

/// Positions of a round of copies of so many bytes each: an even number.
fn round(bytes: usize) -> usize {
    ROUND_BYTES.checked_div(bytes).unwrap_or(0).clamp(2, ROUND) & !1
}

/// The next multiple of a power of two.
fn whole(extent: usize, step: usize) -> usize {
    extent.saturating_add(step.wrapping_sub(1)) & !step.wrapping_sub(1)
}

/// Bytes in whole vectors.
pub fn padded(bytes: usize) -> usize {
    whole(bytes, VECTOR)
}

/// Positions at a tensor's end whose last block would read behind it, with the inputs of a group.
fn overread(window: &Window, inputs: usize) -> usize {
    let depth = whole(inputs, BLOCK);
    depth.wrapping_sub(inputs).div_ceil(window.inputs.max(1))
}

/// Positions at the end of a tensor that are copied: where some would be read behind it, those too that leave whole groups of four before them.
pub fn copied(window: &Window, inputs: usize) -> usize {
    let over = overread(window, inputs);
    match positions(window).checked_sub(over) {
        Some(direct) if over > 0 => over.wrapping_add(direct & 3),
        _ => over,
    }
}

/// Output positions.
fn positions(window: &Window) -> usize {
    window.batch.saturating_mul(window.rows.output).saturating_mul(window.columns.output)
}

/// Bytes of the sums of so many positions, or of most that are made at once.
pub fn sums_bytes(positions: usize) -> usize {
    positions.clamp(4, CHUNK).next_multiple_of(4).saturating_mul(VECTOR)
}

/// Positions that a convolution makes in one go.
pub fn positions_at_once(window: &Window, conv: &Conv) -> usize {
    match conv {
        Conv::Dense { .. } => 0,
        Conv::Pointwise { .. } => positions(window),
        Conv::Rows { .. } => window.columns.output,
        Conv::Patches { round, .. } => *round,
    }
}

/// Scratch of a convolution.
pub fn conv2d_scratch(window: &Window, groups: usize, input: DType, conv: &Conv) -> usize {
    let Some(segments) = Segments::of(window, groups) else { return usize::MAX };
    let position = window.inputs.saturating_mul(input.bytes());
    let sums = sums_bytes(positions_at_once(window, conv));
    match conv {
        Conv::Dense { inputs } => dense_scratch(*inputs, input),
        Conv::Pointwise { round } => {
            // Of any number of positions: a part of an image wants no more than the whole.
            let over = overread(window, segments.elements);
            let copied = if over > 0 { over.saturating_add(3) } else { 0 }.max(*round);
            if copied == 0 {
                return sums;
            }
            let copies = copied.saturating_mul(position).saturating_add(BLOCK.wrapping_mul(input.bytes()));
            padded(copies).saturating_add(sums)
        }
        Conv::Rows { row } => {
            row.saturating_mul(window.rows.kernel).saturating_add(segments.table_bytes()).saturating_add(sums)
        }
        Conv::Patches { row, round } => row
            .saturating_mul(window.rows.kernel)
            .saturating_add(VECTOR)
            .saturating_add(segments.table_bytes())
            .saturating_add(segments.patch_bytes(input.bytes()).saturating_mul(*round))
            .saturating_add(sums),
    }
}

/// Scratch of a dense layer: a row, if its last block would read behind the input.
pub fn dense_scratch(inputs: usize, input: DType) -> usize {
    if inputs.is_multiple_of(BLOCK) { 0 } else { whole(inputs, BLOCK).saturating_mul(input.bytes()) }
}

/// Outputs of a channel that a depthwise convolution of at most 3 x 3 makes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// Stride 1: four rows of two columns, from two strips.
    Tall,
    /// Stride 1: two rows of four columns.
    Square,
    /// Columns of stride 1: eight of a row.
    Row,
    /// Any stride: eight columns of a row, each from a gather of its own.
    Wide,
    /// Any stride: four columns of a row, each from a gather of its own; fewer of a narrow row.
    Apart,
}

impl Tile {
    /// Rows.
    pub fn rows(self) -> usize {
        match self {
            Self::Tall => 4,
            Self::Square => 2,
            Self::Row | Self::Wide | Self::Apart => 1,
        }
    }

    /// Columns.
    pub fn columns(self) -> usize {
        match self {
            Self::Tall => 2,
            Self::Square | Self::Apart => 4,
            Self::Row | Self::Wide => 8,
        }
    }

    /// Strips for a group of output rows.
    pub fn strips(self) -> usize {
        if self == Self::Tall { 2 } else { 1 }
    }

    /// Whether outputs side by side share gathers, which takes stride 1.
    pub fn is_joined(self) -> bool {
        matches!(self, Self::Tall | Self::Square | Self::Row)
    }

    /// The tile for columns of any stride: of eight where they take fewer instructions, of which four outputs take three fifths.
    fn apart(columns: usize) -> Self {
        let (wide, apart) = (columns.div_ceil(8).saturating_mul(5), columns.div_ceil(4).saturating_mul(3));
        if columns > 4 && wide < apart { Self::Wide } else { Self::Apart }
    }

    /// The tile for stride 1 of which an image needs fewest; of a single row it may be too long. Wide images have short strips in any number of rows.
    fn of(rows: usize, columns: usize) -> Self {
        let count = |tile: Self| rows.div_ceil(tile.rows()).saturating_mul(columns.div_ceil(tile.columns()));
        match (rows, columns) {
            (1, 4..) => Self::Row,
            (2.., 2..) if columns <= NARROW && count(Self::Tall) < count(Self::Square) => Self::Tall,
            (2.., 2..) => Self::Square,
            _ => Self::Apart,
        }
    }
}

/// Memory of a depthwise convolution of at most 3 x 3, with any number of outputs of each input channel. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise3 {
    /// What is made at once.
    pub tile: Tile,
    /// Input channels of a strip.
    pub slice: usize,
    /// Outputs of an input channel.
    pub multiplier: usize,
    /// Columns of a strip, padding included.
    pub columns: usize,
    /// Of a strip: four input rows of a slice, and what is written too much.
    pub strip: usize,
    /// Groups of output rows that are made at once.
    pub groups: usize,
    /// Groups of an image.
    pub all_groups: usize,
    /// Tiles of a group.
    pub tiles: usize,
    /// Of a row that is kept in place.
    pub kept_row: usize,
    /// Rows that are kept.
    pub kept_rows: usize,
}

impl Depthwise3 {
    /// The plan, of a window that fits.
    pub fn new(window: &Window, in_place: bool) -> Option<Self> {
        let Window { rows, columns, inputs, outputs, .. } = window;
        let fits = |axis: &Axis| axis.kernel <= 3 && axis.dilation == 1 && axis.pad < axis.kernel;
        let multiplier = outputs.checked_div(*inputs)?;
        if !fits(rows) || !fits(columns) || multiplier == 0 || multiplier.checked_mul(*inputs)? != *outputs {
            return None;
        }
        let tile = match (rows.stride, columns.stride) {
            (1, 1) => Tile::of(rows.output, columns.output),
            (_, 1) if columns.output >= 4 => Tile::Row,
            _ => Tile::apart(columns.output),
        };
        // Places of outputs have 16 bits.
        let line = columns.output.checked_mul(*outputs)?;
        let highest = tile.rows().wrapping_sub(1).checked_mul(line)?;
        if tile != Tile::Apart && tile.columns().checked_mul(*outputs)?.checked_add(highest)? > 0xFFFF {
            return None;
        }
        // Tiles that fill a vector are even or overlap; those of four have four outputs of four columns each.
        let extent = match tile {
            Tile::Apart => {
                whole(columns.output, 4).wrapping_sub(1).checked_mul(columns.stride)?.checked_add(4)?
            }
            Tile::Wide => columns.output.wrapping_sub(1).checked_mul(columns.stride)?.checked_add(4)?,
            _ => columns.output.checked_add(2)?,
        };
        let channel = extent.checked_mul(4)?;
        let few = tile.is_joined() && rows.output < FEW_ROWS && columns.output > NARROW;
        let mut slice = VECTOR.min(*inputs);
        if few && channel.checked_mul(slice)? > FEW_BYTES {
            let most = (FEW_BYTES - EXCESS).checked_div(channel)?.clamp(4, VECTOR);
            slice = inputs.div_ceil(inputs.div_ceil(most).max(1));
        }
        let excess = if slice < VECTOR { EXCESS } else { 0 };
        let strip = whole(channel.checked_mul(slice)?, VECTOR).checked_add(excess)?;
        let group = strip.checked_mul(tile.strips())?;
        let all_groups = rows.output.div_ceil(tile.rows());
        let most = if few { 1 } else { STRIP_BYTES.checked_div(group)? };
        let groups = most.clamp(1, all_groups.max(1));
        let tiles = columns.output.div_ceil(tile.columns());
        let kept_column = if slice == *inputs { slice } else { VECTOR };
        let kept_row = whole(columns.input.checked_mul(kept_column)?, VECTOR);
        // Rows of windows above those that a round overwrites, and above a last group that is alone and overlaps them.
        let alone = all_groups.checked_rem(groups)? == 1 || groups == 1;
        let overlap = if alone { rows.output.wrapping_neg() & tile.rows().wrapping_sub(1) } else { 0 };
        let kept_rows = match in_place && groups < all_groups {
            true => rows.pad.wrapping_add(overlap),
            false => 0,
        };
        Some(Self {
            tile,
            slice,
            multiplier,
            columns: extent,
            strip,
            groups,
            all_groups,
            tiles,
            kept_row,
            kept_rows,
        })
    }

    /// Of a group's strips.
    pub fn group(&self) -> usize {
        self.strip.saturating_mul(self.tile.strips())
    }

    /// Of all strips.
    pub fn strips(&self) -> usize {
        self.group().saturating_mul(self.groups)
    }

    /// Of all rows that are kept.
    pub fn kept(&self) -> usize {
        self.kept_row.saturating_mul(self.kept_rows)
    }

    /// Of the moves from tile to tile in one round.
    pub fn moves(&self) -> usize {
        self.tiles.saturating_mul(self.groups).saturating_mul(8)
    }

    /// Strips, weights of 16 channels behind a vector of zeros, a vector of padding, kept rows, and moves of the last round and of others.
    pub fn scratch(&self) -> usize {
        let fixed = 18 * VECTOR;
        let rest = self.kept().saturating_add(self.moves().saturating_mul(2));
        self.strips().saturating_add(fixed).saturating_add(rest)
    }

    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        if self.tile == Tile::Row { "helium depthwise row" } else { "helium depthwise 3x3" }
    }
}

/// The depthwise convolution for a request.
pub fn depthwise3(request: &Request) -> Option<Depthwise3> {
    let Linear::DepthwiseConv2d { window } = &request.linear else { return None };
    let narrow = request.input == DType::I8 && request.output == DType::I8;
    (narrow && request.packing == Packing::Rows).then_some(())?;
    Depthwise3::new(window, request.in_place)
}

/// How the general depthwise convolution finds its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depthwise {
    /// Those of outputs that lie side by side do so too.
    Beside,
    /// Those of several outputs are one: a gather, at the outputs' numbers times this factor, over 2^16.
    Shared(u16),
}

impl Depthwise {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        if self == Self::Beside { "helium depthwise" } else { "helium depthwise gather" }
    }
}

/// The general depthwise convolution for a request. In place it wants the rows that every kernel keeps.
pub fn depthwise(request: &Request) -> Option<Depthwise> {
    let Linear::DepthwiseConv2d { window } = &request.linear else { return None };
    let multiplier = window.outputs.checked_div(window.inputs)?;
    if request.packing != Packing::Rows || multiplier.checked_mul(window.inputs)? != window.outputs {
        return None;
    }
    if multiplier == 1 {
        return Some(Depthwise::Beside);
    }
    // The factor exceeds 2^16 / multiplier by less than 1, and so its products by less than one multiplier's part.
    let exact = window.outputs.checked_mul(multiplier)? <= 1 << 16;
    let factor = exact.then_some((1usize << 16).div_ceil(multiplier.max(2)))?;
    Some(Depthwise::Shared(u16::try_from(factor).ok()?))
}

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    match &request.linear {
        Linear::Conv2d { window, .. } if request.packing == Packing::Rows => {
            let scratch_bytes = if request.in_place { window.kept_bytes() } else { 0 };
            Some(Selection { name: "helium grouped", scratch_bytes })
        }
        Linear::Conv2d { window, groups } => {
            let conv = conv2d(request)?;
            let name = match conv {
                Conv::Dense { .. } => "helium dense",
                Conv::Pointwise { .. } => "helium pointwise",
                Conv::Rows { .. } => "helium rows",
                Conv::Patches { .. } => "helium patches",
            };
            Some(Selection { name, scratch_bytes: conv2d_scratch(window, *groups, request.input, &conv) })
        }
        Linear::DepthwiseConv2d { window } => match depthwise3(request) {
            Some(plan) => Some(Selection { name: plan.name(), scratch_bytes: plan.scratch() }),
            None => match depthwise(request) {
                Some(plan) => {
                    let scratch_bytes = if request.in_place { window.kept_bytes() } else { 0 };
                    Some(Selection { name: plan.name(), scratch_bytes })
                }
                None => Some(Selection { name: "helium grouped", scratch_bytes: 0 }),
            },
        },
        Linear::Dense { .. } if request.packing == Packing::Rows => {
            Some(Selection { name: "helium grouped", scratch_bytes: 0 })
        }
        Linear::Dense { inputs, .. } if request.packing == Packing::Blocks8x16 => {
            let scratch_bytes = dense_scratch(*inputs, request.input);
            Some(Selection { name: "helium dense", scratch_bytes })
        }
        _ => None,
    }
}

/// The order of weights that [`select`] wants; `narrow` as in [`super::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    let _ = narrow;
    match &request.linear {
        Linear::Conv2d { window, groups } => {
            let conv = conv2d_shape(window, *groups, request.input, request.in_place);
            let packing = conv.map_or(Packing::Rows, |conv| conv.packing());
            if request.linear.fills(packing) { packing } else { Packing::Rows }
        }
        Linear::Dense { .. } => Packing::Blocks8x16,
        _ => Packing::Rows,
    }
}
