//! Matrix products: convolutions in one group and dense layers.

use crate::backend::spec::select::{Linear, Request, Selection};
use crate::blob::{DType, Packing};
use crate::ops::window::Window;

/// Positions of the inner product that a group of packed weights holds.
const GROUP: usize = 4;
/// Windows that kernels take at once.
const BLOCK: usize = 3;

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    if let Some(dense) = dense(request) {
        return Some(Selection { name: "pairs, dense", scratch_bytes: dense.scratch_bytes });
    }
    if matches!((request.linear, request.packing), (Linear::Dense { .. }, Packing::Blocks2x4)) {
        return Some(Selection { name: "plain, dense", scratch_bytes: 0 });
    }
    let tile = tile(request)?;
    let name = match (tile.narrow, tile.gather) {
        (true, Gather::Pointwise) => "pairs, pointwise",
        (true, Gather::Words) => "pairs, words",
        (true, Gather::Bytes) => "pairs, bytes",
        (false, Gather::Pointwise) => "plain, pointwise",
        (false, Gather::Words) => "plain, words",
        (false, Gather::Bytes) => "plain, bytes",
    };
    Some(Selection { name, scratch_bytes: tile.scratch_bytes })
}

/// The order of weights that [`select`] wants; `narrow` as in [`crate::backend::spec::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    match (request.linear, request.input, request.output) {
        (Linear::Conv2d { groups: 1, .. }, DType::I8, _) if narrow => Packing::Pairs,
        (Linear::Conv2d { groups: 1, .. }, ..) => Packing::Blocks2x4,
        (Linear::Dense { .. }, DType::I8, DType::I8) if narrow => Packing::PairQuads,
        (Linear::Dense { .. }, ..) => Packing::Blocks2x4,
        _ => Packing::Rows,
    }
}

/// A dense layer by quads of outputs, and what its scratch holds: widened inputs, then sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Groups of the inner product.
    pub groups: usize,
    /// Groups that are widened at a time.
    pub step: usize,
    /// All bytes.
    pub scratch_bytes: usize,
}

/// The dense layer for a request.
pub fn dense(request: &Request) -> Option<Dense> {
    /// Groups of a chunk: 256 bytes.
    const STEP: usize = 32;
    let Linear::Dense { inputs, outputs } = request.linear else { return None };
    if (request.packing, request.input, request.output) != (Packing::PairQuads, DType::I8, DType::I8) {
        return None;
    }
    let groups = inputs.div_ceil(GROUP);
    let whole = groups.checked_mul(2 * GROUP)?;
    let sums = outputs.checked_next_multiple_of(4)?.checked_mul(4)?.checked_add(STEP * 2 * GROUP)?;
    Some(if whole <= sums {
        Dense { groups, step: groups, scratch_bytes: whole }
    } else {
        Dense { groups, step: STEP, scratch_bytes: sums }
    })
}

/// How the activations under a window get into the kernel's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// They lie side by side, window after window.
    Pointwise,
    /// From whole words of bytes under each kernel row.
    Words,
    /// Byte by byte into one row, then as `Pointwise`.
    Bytes,
}

/// A convolution in tiles of three windows by two outputs, and what its scratch holds, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Whether weights are [`Packing::Pairs`], else [`Packing::Blocks2x4`].
    pub narrow: bool,
    /// The way to the columns.
    pub gather: Gather,
    /// Length of the inner product.
    pub depth: usize,
    /// Its groups.
    pub groups: usize,
    /// Bytes of constants: eight words for each pair of outputs.
    pub constants: usize,
    /// Bytes of the columns.
    pub columns: usize,
    /// Bytes of one window's gathered row, 0 if none is needed.
    pub gathered: usize,
    /// Bytes that lie side by side under a window.
    pub segment: usize,
    /// How many such segments a window has.
    pub segments: usize,
    /// Bytes of a kept row, with its padding.
    pub row: usize,
    /// Rows that are kept.
    pub rows: usize,
    /// All bytes.
    pub scratch_bytes: usize,
}

/// The tiles for a request.
pub fn tile(request: &Request) -> Option<Tile> {
    let Linear::Conv2d { window, groups: 1 } = &request.linear else { return None };
    let narrow = match (request.packing, request.input) {
        (Packing::Pairs, DType::I8) => true,
        (Packing::Blocks2x4, DType::I8 | DType::I16) => false,
        _ => return None,
    };
    let Window { rows, columns, inputs, outputs, .. } = *window;
    let size = request.input.bytes();
    let depth = rows.kernel.checked_mul(columns.kernel)?.checked_mul(inputs)?;
    let groups = depth.div_ceil(GROUP);
    let padded = groups.checked_mul(GROUP)?.checked_mul(size)?;
    let mut tile = Tile {
        narrow,
        gather: Gather::Pointwise,
        depth,
        groups,
        constants: outputs.div_ceil(2).checked_mul(32)?,
        columns: groups.checked_mul(2 * GROUP * BLOCK)?,
        gathered: 0,
        segment: 0,
        segments: 0,
        row: 0,
        rows: 0,
        scratch_bytes: 0,
    };
    let whole = |axis: &crate::ops::window::Axis| {
        axis.kernel == 1 && axis.stride == 1 && axis.pad == 0 && axis.input == axis.output
    };
    if whole(&rows) && whole(&columns) {
        if !inputs.is_multiple_of(GROUP) {
            tile.gathered = padded;
        }
    } else {
        let apart = columns.dilation != 1 && columns.kernel != 1;
        let side_by_side = if apart { 1 } else { columns.kernel };
        tile.segment = side_by_side.checked_mul(inputs)?.checked_mul(size)?;
        tile.segments = if apart { rows.kernel.checked_mul(columns.kernel)? } else { rows.kernel };
        if size == 1 && tile.segment.is_multiple_of(GROUP) {
            tile.gather = Gather::Words;
        } else {
            tile.gather = Gather::Bytes;
            // Copies go to the end of a word.
            tile.gathered = padded.checked_add(4)?;
        }
        let reach =
            columns.output.checked_sub(1)?.checked_mul(columns.stride)?.checked_add(columns.reach())?;
        tile.row = reach.checked_mul(inputs)?.checked_mul(size)?.checked_next_multiple_of(4)?;
        tile.rows = rows.reach();
    }
    // One word behind the rows: reads go to the end of a word.
    let kept = tile.row.checked_mul(tile.rows)?.checked_add(4)?;
    tile.scratch_bytes = tile
        .constants
        .checked_add(tile.columns)?
        .checked_add(tile.gathered.checked_mul(BLOCK)?)?
        .checked_add(tile.segments.checked_mul(4)?)?
        .checked_add(if tile.rows == 0 { 0 } else { kept })?;
    Some(tile)
}
