//! What drivers and assembly share: the operands of a kernel, and the constants of an output channel.

use super::core;
use crate::ops::linear::Integer;

/// Shift of a channel that the short requantisation does not take, in the constants: 128 plus the shift.
pub const ODD: i32 = 128;

/// Operands of a kernel. Assembly copies it to its stack and knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    /// 0: constants of the first channel.
    pub channels: *const i32,
    /// 4: first output of lane 0.
    pub output: *mut i8,
    /// 8: where lanes 1 to 3 put their outputs, in bytes behind lane 0.
    pub lanes: [usize; 3],
    /// 20: least output.
    pub low: i32,
    /// 24: greatest output.
    pub high: i32,
    /// 28: zero point of the output.
    pub zero: i32,
    /// 32: inputs in pairs.
    pub pairs: *mut i32,
    /// 36: their end.
    pub pairs_end: *const i32,
    /// 40: weights.
    pub weights: *const i8,
    /// 44: number of outputs of each lane.
    pub outputs: usize,
    /// 48: how outputs are bounded, as [`core::bounding`] has it; for [`core::wide`] the bytes of an output.
    pub bounding: i32,
}

impl Frame {
    /// Without buffers.
    pub fn new(linear: &Integer<'_>) -> Self {
        Self {
            lanes: [0; 3],
            low: linear.low,
            high: linear.high,
            zero: linear.output_zero,
            pairs: ::core::ptr::null_mut(),
            pairs_end: ::core::ptr::null(),
            weights: ::core::ptr::null(),
            channels: ::core::ptr::null(),
            output: ::core::ptr::null_mut(),
            outputs: 0,
            bounding: core::bounding(linear),
        }
    }
}

/// Operands of [`core::plane`].
#[repr(C)]
pub struct Plane {
    /// 0: `pairs` at the first window, `channels` of one channel, `outputs` the windows of a row.
    pub frame: Frame,
    /// 52: rows of windows.
    pub rows: usize,
    /// 56: bytes from one window to the next in the pairs.
    pub step: usize,
    /// 60: bytes from behind the last window of a row to the next row's first in the pairs.
    pub row_jump: usize,
    /// 64: bytes from one output to the next, of the next row too.
    pub output_step: usize,
    /// 68: of an even number of taps places, in bytes behind a window's first pair, and weights; of windows of 3x3 nine weights alone.
    pub taps: *const i32,
    /// 72: their end; of windows of 3x3 bytes between the rows of a window.
    pub limit: usize,
    /// 76: 1 for windows of 3x3 without dilation.
    pub three: usize,
}

/// Operands of [`core::dense`].
#[repr(C)]
pub struct Dense {
    /// 0: where the sums of all outputs go, four of a block side by side.
    pub sums: *mut i32,
    /// 4: weights of the first block for the first input.
    pub weights: *const i8,
    /// 8: bytes from behind a block's weights for these inputs to those of the next block.
    pub jump: usize,
    /// 12: some inputs, a multiple of eight.
    pub inputs: *const i32,
    /// 16: their end.
    pub inputs_end: *const i32,
    /// 20: blocks of four outputs.
    pub blocks: usize,
    /// 24: what the sums start from; may be the sums themselves.
    pub start: *const i32,
}

/// Operands of [`core::wide_dense`]. Assembly knows the offsets.
#[repr(C)]
pub struct WideDense {
    /// 0: sums of the outputs, four of a block side by side.
    pub sums: *mut i32,
    /// 4: weights of the first output for the first input.
    pub weights: *const i8,
    /// 8: bytes from the weights of an output to those of the next.
    pub stride: usize,
    /// 12: some inputs, at least one.
    pub inputs: *const i32,
    /// 16: their end.
    pub inputs_end: *const i32,
    /// 20: blocks of four outputs.
    pub blocks: usize,
}

/// How sources are read by [`core::widen`] and [`core::spread_i8`]. Assembly knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Extent {
    /// 0: bytes of a row that are read in fours: a multiple of four steps.
    pub fours: usize,
    /// 4: bytes of the rest of a row: less than four steps.
    pub rest: usize,
    /// 8: bytes from one element to the next.
    pub step: usize,
    /// 12: bytes that stay as they are behind each row of the destination.
    pub gap: usize,
    /// 16: number of rows, at least one.
    pub rows: usize,
    /// 20: bytes from behind a row in the sources to the next.
    pub skip: usize,
}

impl Extent {
    /// Rows of `elements`, `step` bytes from one to the next, side by side in the sources.
    pub fn new(elements: usize, step: usize, gap: usize, rows: usize) -> Self {
        let rest = elements & 3;
        Self {
            fours: elements.wrapping_sub(rest).wrapping_mul(step),
            rest: rest.wrapping_mul(step),
            step,
            gap,
            rows,
            skip: 0,
        }
    }
}

/// Makes the constants of output channel `channel`. `bias` is that of packed weights, `drains` how often halves of sums move.
#[inline(never)]
pub fn constants(
    slot: &mut [i32; core::CHANNEL_WORDS],
    linear: &Integer<'_>,
    channel: usize,
    bias: i32,
    drains: usize,
) -> Option<()> {
    let (multiplier, shift) = (*linear.multiplier.get(channel)?, *linear.shift.get(channel)?);
    let both = bias.wrapping_add(bias.wrapping_shl(16));
    let rounded = both.wrapping_sub((drains as i32).wrapping_shl(15));
    // Above the zero point a kernel clamps from above alone.
    let closed = linear.low <= linear.output_zero && core::EXPONENTS.contains(&shift.wrapping_neg());
    let code = if closed { None } else { Some(ODD.wrapping_add(shift)) };
    *slot = core::channel(bias, both, rounded, [multiplier, shift, linear.output_zero], code);
    Some(())
}

/// Makes the constants of output channel `channel` for [`core::wide`].
pub fn wide_constants(slot: &mut [i32; 4], linear: &Integer<'_>, channel: usize) -> Option<()> {
    let constants = [*linear.multiplier.get(channel)?, *linear.shift.get(channel)?, linear.output_zero];
    *slot = core::wide_channel(*linear.bias.get(channel)?, constants);
    Some(())
}
