//! Depthwise convolutions.

use crate::backend::spec::select::{Linear, Request, Selection, least_scratch};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// Channels that are calculated at once.
const QUAD: usize = 4;
/// Scratch that a block of more than one quad may have.
const ROOM: usize = 2048;
/// Scratch that no kernel passes.
const LIMIT: usize = 4096;
/// Taps up to which sums stay far within 32 bits.
const MOST_TAPS: usize = 63;

/// The greatest shift to the right that kernels take as it is.
pub const MOST_SHIFT: i32 = 22;

/// Whether the closed form of requantisation takes all channels.
#[inline(never)]
pub fn is_closed(linear: &Integer<'_>) -> bool {
    let (mut least, mut most, mut far) = (0, i32::MIN, 0);
    for (&shift, &bias) in linear.shift.iter().zip(linear.bias) {
        rolled();
        least = shift.min(least);
        most = shift.max(most);
        far |= bias ^ (bias >> 31);
    }
    // A shift past MOST_SHIFT makes 0 of every sum below 2^22; sums are below 2^20 without the bias.
    let near = if least < -MOST_SHIFT { 21 } else { 28 };
    most < 0 && far >> near == 0
}

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    let (name, scratch_bytes) = match strips(request) {
        Some(strips) => ("strips", strips.scratch_bytes),
        None => ("quads", quads(request)?.scratch_bytes),
    };
    Some(Selection { name, scratch_bytes: scratch_bytes.max(least_scratch(request)) })
}

/// Windows of 3x3 with stride 1 (two rows of outputs at a time) or 2. Scratch holds the constants of a block's outputs, a pixel of padding, and for each
/// input channel of the block and padded column two pairs of values of neighbouring rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strips {
    /// Input channels of a block, a multiple of 4.
    pub channels: usize,
    /// Outputs of each.
    pub factor: usize,
    /// Padded columns that windows reach.
    pub columns: usize,
    /// Bytes of a channel's columns.
    pub plane: usize,
    /// All bytes.
    pub scratch_bytes: usize,
}

/// Quads of a block, of `quads` in all with `quad_bytes` each: at least one, blocks of about the same size.
fn block(quads: usize, quad_bytes: usize) -> usize {
    let most = ROOM.checked_div(quad_bytes).unwrap_or(1).max(1);
    let blocks = quads.div_ceil(most).max(1);
    quads.div_ceil(blocks).max(1)
}

/// Words of an output's constants in [`Strips`].
pub const STRIP_WORDS: usize = 10;

/// The code for [`Strips`] of stride 1, as [`crate::backend::Kernels`] names it.
pub const STRIDE_1: &str = "strips, stride 1";
/// The code for those of stride 2.
pub const STRIDE_2: &str = "strips, stride 2";

/// The plan for a request.
#[inline(never)]
pub fn strips(request: &Request) -> Option<Strips> {
    let Window { rows, columns, inputs, outputs, .. } = window(request)?;
    let stride = rows.stride;
    let square =
        [rows, columns].iter().all(|axis| (axis.kernel, axis.stride, axis.dilation) == (3, stride, 1));
    if !square || stride > 2 || columns.output < 2 || inputs % QUAD != 0 {
        return None;
    }
    let factor = outputs.checked_div(*inputs)?;
    let padded = columns.output.checked_sub(1)?.checked_mul(stride)?.checked_add(3)?;
    let plane = padded.div_ceil(2).checked_mul(16)?;
    let constants = factor.checked_mul(4 * STRIP_WORDS)?;
    let quad_bytes = plane.checked_add(constants)?.checked_add(1)?.checked_mul(QUAD)?;
    let quads = block(inputs / QUAD, quad_bytes);
    let scratch_bytes = quads.checked_mul(quad_bytes)?;
    let channels = QUAD * quads;
    (scratch_bytes <= LIMIT).then_some(Strips { channels, factor, columns: padded, plane, scratch_bytes })
}

/// Four channels at once, two taps at once, any window. Scratch holds a list of constants for each quad of a block of channels, then the rows
/// under a window, padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quads {
    /// The windows to calculate: those of the request, or along the one row that a single column is as well.
    pub window: Window,
    /// Pairs of taps.
    pub pairs: usize,
    /// Quads of a block.
    pub quads: usize,
    /// Words of a quad's list.
    pub list_words: usize,
    /// Padded columns that are kept of a row.
    pub columns: usize,
    /// Rows that are kept.
    pub rows: usize,
    /// All bytes.
    pub scratch_bytes: usize,
}

fn window(request: &Request) -> Option<&Window> {
    let Linear::DepthwiseConv2d { window } = &request.linear else { return None };
    let narrow = [request.input, request.output] == [DType::I8; 2] && request.packing == Packing::Rows;
    (narrow && request.constants.closed && window.outputs.checked_rem(window.inputs) == Some(0))
        .then_some(window)
}

/// The plan for a request.
pub fn quads(request: &Request) -> Option<Quads> {
    let window = window(request)?;
    let Window { rows, columns, .. } = *window;
    let one = [columns.input, columns.output, columns.kernel, columns.pad.wrapping_add(1)] == [1; 4];
    if one && let Some(quads) = quads_of(&Window { rows: columns, columns: rows, ..*window }) {
        return Some(quads);
    }
    quads_of(window)
}

#[inline(never)]
fn quads_of(window: &Window) -> Option<Quads> {
    let Window { rows, columns, outputs, .. } = *window;
    let taps = rows.kernel.checked_mul(columns.kernel).filter(|taps| *taps <= MOST_TAPS)?;
    let pairs = taps.div_ceil(2);
    // Bias, pairs with offsets, multiplier, constant, shift.
    let list_words = pairs.wrapping_mul(6).wrapping_add(16);
    let kept_rows = rows.reach();
    let kept = columns.output.checked_sub(1)?.checked_mul(columns.stride)?.checked_add(columns.reach())?;
    let pixels = kept.checked_mul(kept_rows)?;
    let quad_bytes = pixels.checked_add(list_words)?.checked_mul(4)?;
    let quads = block(outputs.div_ceil(QUAD), quad_bytes);
    let scratch_bytes = quads.checked_mul(quad_bytes)?;
    (scratch_bytes <= LIMIT).then_some(Quads {
        window: *window,
        pairs,
        quads,
        list_words,
        columns: kept,
        rows: kept_rows,
        scratch_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::select::Constants;
    use crate::ops::window::Axis;

    fn request(extent: usize, stride: usize, inputs: usize, outputs: usize) -> Request {
        let axis = Axis { input: extent, output: extent / stride, kernel: 3, stride, dilation: 1, pad: 1 };
        Request {
            linear: Linear::DepthwiseConv2d {
                window: Window { batch: 1, rows: axis, columns: axis, inputs, outputs },
            },
            input: DType::I8,
            output: DType::I8,
            packing: Packing::Rows,
            in_place: false,
            constants: Constants::USUAL,
        }
    }

    #[test]
    fn strips_hold_the_constants_of_every_output() {
        for (extent, stride, inputs, outputs, channels, bytes) in [
            (32, 1, 24, 24, 4, 4 * (17 * 16 + 40) + 4),
            (32, 1, 24, 48, 4, 4 * (17 * 16 + 2 * 40) + 4),
            (32, 2, 16, 80, 4, 4 * (17 * 16 + 5 * 40) + 4),
        ] {
            let plan = strips(&request(extent, stride, inputs, outputs)).unwrap();
            let found = (plan.channels, plan.factor, plan.scratch_bytes);
            assert_eq!(found, (channels, outputs / inputs, bytes), "{extent} {inputs} {outputs}");
        }
    }

    #[test]
    fn what_strips_do_not_take() {
        let name = |request: &Request| select(request).map(|selection| selection.name);
        assert_eq!(name(&request(32, 1, 24, 48)), Some("strips"));
        // No whole quads of inputs, another stride, no multiple, more constants than scratch.
        assert_eq!(name(&request(32, 1, 6, 12)), Some("quads"));
        assert_eq!(name(&request(32, 4, 8, 8)), Some("quads"));
        assert_eq!(name(&request(32, 1, 8, 12)), None);
        assert_eq!(name(&request(8, 1, 4, 400)), Some("quads"));
    }
}
