//! Matrix products: convolutions and dense layers.

use crate::backend::spec::select::{Linear, Request, Selection};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::ops::window::{Axis, Window};

/// The code for convolutions that are done in parts: groups of channels, and outputs whose sums are finished one by one.
pub const PARTS: &str = "tiles in parts";

/// Positions of the inner product that a group of packed weights holds.
const GROUP: usize = 4;
/// Windows that kernels take at once.
const BLOCK: usize = 3;

/// No kernel takes more groups or outputs; products of them with small numbers do not overflow.
const LIMIT: usize = 1 << 22;

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
        (Linear::Conv2d { window, groups }, input, _) => {
            let order = if narrow && input == DType::I8 { Packing::Pairs } else { Packing::Blocks2x4 };
            let fits = request.linear.fills(order) && tile_of(&window, groups, input, order).is_some();
            if groups == 1 || fits { order } else { Packing::Rows }
        }
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
    let Linear::Dense { inputs, outputs } = request.linear else { return None };
    if (request.packing, request.input, request.output) != (Packing::PairQuads, DType::I8, DType::I8) {
        return None;
    }
    dense_of(inputs, outputs)
}

/// A dense layer of bytes with [`Packing::PairQuads`].
pub fn dense_of(inputs: usize, outputs: usize) -> Option<Dense> {
    /// Groups of a chunk: 256 bytes.
    const STEP: usize = 32;
    let quads = outputs.div_ceil(4);
    let groups = inputs.div_ceil(GROUP);
    if quads > LIMIT || groups > LIMIT {
        return None;
    }
    // With one chunk a quad that is not whole needs sums, else all do.
    let whole = groups.wrapping_mul(2 * GROUP).wrapping_add(16);
    let parts = quads.wrapping_mul(16).wrapping_add(STEP * 2 * GROUP);
    Some(if whole <= parts {
        Dense { groups, step: groups, scratch_bytes: whole }
    } else {
        Dense { groups, step: STEP, scratch_bytes: parts }
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
    /// Inputs of a group of channels under a tap.
    pub inputs: usize,
    /// Outputs of a group of channels.
    pub outputs: usize,
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

/// Whether the tiles for a request are done in parts ([`PARTS`]), or may be, with these constants: else the kernel's own code finishes all outputs.
pub fn has_parts(request: &Request, linear: &Integer<'_>) -> bool {
    let Some(tile) = tile(request) else { return false };
    let shift = |shift: &i32| if tile.narrow { *shift <= 6 } else { (-30..0).contains(shift) };
    // Twice a sum fits 32 bits.
    let depth = (3 << 28) >> if request.input == DType::I16 { 22 } else { 14 };
    let near = linear.bias.iter().all(|bias| bias.unsigned_abs() < 1 << 28);
    let finishes = linear.shift.iter().all(shift) && (tile.narrow || tile.depth <= depth && near);
    tile.outputs != linear.bias.len() || !tile.outputs.is_multiple_of(2) || !finishes
}

/// The tiles for a request.
pub fn tile(request: &Request) -> Option<Tile> {
    match &request.linear {
        Linear::Conv2d { window, groups } => tile_of(window, *groups, request.input, request.packing),
        _ => None,
    }
}

/// The tiles for a convolution in groups of channels. In a frame of its own, which is gone when a kernel runs.
#[inline(never)]
pub fn tile_of(window: &Window, channel_groups: usize, input: DType, packing: Packing) -> Option<Tile> {
    let narrow = match (packing, input) {
        (Packing::Pairs, DType::I8) => true,
        (Packing::Blocks2x4, DType::I8 | DType::I16) => false,
        _ => return None,
    };
    let Window { rows, columns, inputs, outputs, .. } = *window;
    let size = if input == DType::I16 { 2 } else { 1 };
    let [inputs_of_group, outputs_of_group] =
        [inputs.checked_div(channel_groups)?, outputs.checked_div(channel_groups)?];
    let depth = rows.kernel.checked_mul(columns.kernel)?.checked_mul(inputs_of_group)?;
    if depth == 0 || depth > LIMIT || outputs == 0 || outputs > LIMIT {
        return None;
    }
    // Constants are made for pairs of outputs.
    if channel_groups != 1 && !outputs_of_group.is_multiple_of(2) {
        return None;
    }
    let groups = depth.div_ceil(GROUP);
    let padded = groups.wrapping_mul(GROUP).wrapping_mul(size);
    let mut tile = Tile {
        narrow,
        inputs: inputs_of_group,
        outputs: outputs_of_group,
        gather: Gather::Pointwise,
        depth,
        groups,
        constants: outputs.div_ceil(2).wrapping_mul(32),
        columns: groups.wrapping_mul(2 * GROUP * BLOCK),
        gathered: 0,
        segment: 0,
        segments: 0,
        row: 0,
        rows: 0,
        scratch_bytes: 0,
    };
    let whole =
        |axis: &Axis| axis.kernel == 1 && axis.stride == 1 && axis.pad == 0 && axis.input == axis.output;
    let mut kept = 0;
    if whole(&rows) && whole(&columns) {
        if !inputs_of_group.is_multiple_of(GROUP) {
            // All channels, and what the last group reads behind its own.
            let before = inputs.wrapping_sub(inputs_of_group).checked_mul(size)?;
            tile.gathered = before.checked_add(padded)?.checked_next_multiple_of(GROUP)?;
        }
    } else {
        let apart = (columns.dilation != 1 || channel_groups != 1) && columns.kernel != 1;
        let (beside, segments) =
            if apart { (1, columns.kernel.wrapping_mul(rows.kernel)) } else { (columns.kernel, rows.kernel) };
        tile.segment = beside.wrapping_mul(inputs_of_group).wrapping_mul(size);
        tile.segments = segments;
        if size == 1 && tile.segment.is_multiple_of(GROUP) {
            tile.gather = Gather::Words;
        } else {
            tile.gather = Gather::Bytes;
            // Copies go to the end of a word.
            tile.gathered = padded.wrapping_add(4);
        }
        let last = columns.output.wrapping_sub(1).checked_mul(columns.stride)?;
        let reach = last.checked_add(columns.reach())?;
        tile.row = reach.checked_mul(inputs.wrapping_mul(size))?.checked_next_multiple_of(4)?;
        tile.rows = rows.reach();
        // Reads go to the end of a word.
        kept = tile.row.checked_mul(tile.rows)?.checked_add(4)?;
    }
    let rest = tile.constants.wrapping_add(tile.columns).wrapping_add(tile.gathered.wrapping_mul(BLOCK));
    tile.scratch_bytes = kept.checked_add(rest.wrapping_add(tile.segments.wrapping_mul(4)))?;
    Some(tile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::select::Constants;

    fn axis(input: usize, kernel: usize, stride: usize, pad: usize, output: usize) -> Axis {
        Axis { input, output, kernel, stride, dilation: 1, pad }
    }

    fn conv(rows: Axis, columns: Axis, inputs: usize, outputs: usize) -> Request {
        let window = Window { batch: 1, rows, columns, inputs, outputs };
        Request {
            linear: Linear::Conv2d { window, groups: 1 },
            input: DType::I8,
            output: DType::I8,
            packing: Packing::Rows,
            in_place: false,
            constants: Constants::USUAL,
        }
    }

    fn packed(request: &Request) -> Request {
        Request { packing: packing(request, true), ..*request }
    }

    #[test]
    fn scratch_of_known_layers() {
        let point = |h, w, inputs, outputs| conv(axis(h, 1, 1, 0, h), axis(w, 1, 1, 0, w), inputs, outputs);
        let side = axis(32, 3, 1, 1, 32);
        let last = axis(8, 3, 1, 1, 8);
        for (request, gather, bytes) in [
            (point(25, 5, 64, 64), Gather::Pointwise, 1024 + 384),
            (point(48, 48, 8, 16), Gather::Pointwise, 256 + 48),
            (point(4, 4, 6, 2), Gather::Pointwise, 32 + 48 + 3 * 8),
            (conv(side, side, 16, 16), Gather::Words, 256 + 864 + 12 + 3 * 34 * 16 + 4),
            (conv(last, last, 64, 64), Gather::Words, 1024 + 3456 + 12 + 3 * 10 * 64 + 4),
            (conv(side, side, 3, 16), Gather::Bytes, 256 + 168 + 3 * 32 + 12 + 3 * 104 + 4),
        ] {
            let tile = tile(&packed(&request)).unwrap();
            assert_eq!((tile.gather, tile.scratch_bytes), (gather, bytes), "{request:?}");
        }
    }

    #[test]
    fn scratch_of_dense_layers_is_bounded() {
        for (inputs, outputs, bytes) in
            [(640, 128, 768), (128, 640, 272), (64, 12, 144), (4096, 10, 256 + 48)]
        {
            assert_eq!(dense_of(inputs, outputs).unwrap().scratch_bytes, bytes);
        }
    }

    #[test]
    fn what_is_done_in_parts() {
        let side = axis(8, 1, 1, 0, 8);
        let parts = |narrow: bool, outputs: usize, bias: i32, shift: i32| {
            let request = conv(side, side, 8, outputs);
            let request = Request { packing: packing(&request, narrow), ..request };
            let (bias, shift) = (vec![bias; outputs], vec![shift; outputs]);
            let linear = Integer {
                weights: &[],
                packing: request.packing,
                bias: &bias,
                multiplier: &vec![1 << 30; outputs],
                shift: &shift,
                input_zero: 0,
                output_zero: 0,
                low: -128,
                high: 127,
            };
            has_parts(&request, &linear)
        };
        for (narrow, outputs, bias, shift, expected) in [
            (true, 4, 0, -3, false),
            (true, 5, 0, -3, true),
            (true, 4, 0, 6, false),
            (true, 4, 0, 7, true),
            (false, 4, 0, -1, false),
            (false, 4, 0, 0, true),
            (false, 4, 1 << 28, -1, true),
            (false, 4, 0, -31, true),
        ] {
            let case = (narrow, outputs, bias, shift);
            assert_eq!(parts(narrow, outputs, bias, shift), expected, "{case:?}");
        }
        let request = packed(&conv(side, side, 8, 8));
        let Linear::Conv2d { window, .. } = request.linear else { panic!() };
        let grouped = Request { linear: Linear::Conv2d { window, groups: 2 }, ..request };
        let zeros = [0; 8];
        let linear = Integer {
            weights: &[],
            packing: Packing::Pairs,
            bias: &zeros,
            multiplier: &zeros,
            shift: &zeros,
            input_zero: 0,
            output_zero: 0,
            low: -128,
            high: 127,
        };
        assert!(has_parts(&grouped, &linear) && !has_parts(&request, &linear));
    }

    #[test]
    fn what_no_kernel_takes() {
        let side = axis(32, 3, 1, 1, 32);
        let request = conv(side, side, 16, 16);
        assert_eq!(select(&request), None, "plain order");
        let Linear::Conv2d { window, .. } = request.linear else { panic!() };
        // Two outputs a group, and one, which is no pair.
        let grouped = |groups| Request { linear: Linear::Conv2d { window, groups }, ..request };
        assert_eq!(packing(&grouped(8), true), Packing::Pairs);
        assert_eq!((packing(&grouped(16), true), select(&grouped(16))), (Packing::Rows, None));
        let pairs_of_i16 = Request { input: DType::I16, packing: Packing::Pairs, ..request };
        assert_eq!(select(&pairs_of_i16), None);
        let huge = Window { inputs: usize::MAX, ..window };
        let huge = Request {
            linear: Linear::Conv2d { window: huge, groups: 1 },
            packing: Packing::Pairs,
            ..request
        };
        assert_eq!(select(&huge), None);
    }
}
