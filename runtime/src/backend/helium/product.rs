//! Products of weights and positions: four outputs of up to [`CHUNK`] positions at a time, summed up to a buffer and requantised from there.
//!
//! A position's inputs are `segments` runs of whole blocks of 16 elements; weights are in [`Packing::Blocks4x16`](crate::blob::Packing). Which sums
//! and which requantisation a layer has is decided once; [`quads`] calls both for each four outputs. The arithmetic is explained in [`requantize`].

mod requantize;
mod sums;

use core::arch::naked_asm;

use super::memory;
use crate::backend::spec::helium::{BLOCK, CHUNK, MOST_TAPS};
use crate::ops::linear::Integer;

/// What is called for four outputs.
type Quad = unsafe extern "C" fn(*const Frame);

/// What the functions are told; [`quads`] copies it to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0: from the end of a position's inputs to the start of those two positions on.
    input_next: u32,
    /// 4: weights of the current four outputs.
    weights: *const i8,
    /// 8, 12: where sums start and end.
    sums: *mut i32,
    sums_end: *mut i32,
    /// 16: the first position's inputs.
    input: *const u8,
    /// 20: bytes from a position to the next.
    input_step: u32,
    /// 24: groups of four positions.
    groups: u32,
    /// 28: rounds of blocks in a segment, behind its first block. Set by the sums.
    rounds: u32,
    /// 32: where the first round of a segment starts. Set by the sums.
    entry: u32,
    /// 36: where a segment goes on when it ends. Set by the sums.
    after: u32,
    /// 40: where it goes on when its last round ends. Set by the sums.
    finish: u32,
    /// 44: segments.
    segments: u32,
    /// 48: blocks of a segment, without its first.
    blocks: u32,
    /// 52: for a number of segments that are left, the bytes from the end of the one before them to their start.
    gaps: *const i32,
    /// 56: where a function returns to. Set by it.
    back: u32,
    /// 60: bytes of four outputs' weights.
    weight_step: u32,
    /// 64, 68, 72: the constants of the outputs that are left.
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i32,
    /// 76: the first position's current outputs.
    output: *mut u8,
    /// 80: bytes from an output position to the next.
    output_step: u32,
    /// 84: outputs that are left.
    outputs: u32,
    /// 88: zero point.
    zero: i32,
    /// 92, 96: bounds.
    low: i32,
    high: i32,
    /// 100: sums up.
    sum: Quad,
    /// 104: requantises four outputs.
    whole: Quad,
    /// 108: requantises what is left of fewer.
    part: Quad,
}

/// Bytes of [`Frame`], of which [`quads`] has a copy.
const FRAME: usize = 112;
const _: () = assert!(size_of::<Frame>() == FRAME);

/// For each four outputs: sums of all positions, then their requantisation.
///
/// # Safety
/// All that the frame names is readable or writable as [`Product::run`] checks.
#[unsafe(naked)]
unsafe extern "C" fn quads(frame: *const Frame) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "sub sp, #112",
        "mov r12, sp",
        "ldm r0!, {{r1-r11}}",
        "stm r12!, {{r1-r11}}",
        "ldm r0!, {{r1-r11}}",
        "stm r12!, {{r1-r11}}",
        "ldm r0, {{r1-r6}}",
        "stm r12, {{r1-r6}}",
        "1:",
        "ldr r0, [sp, #100]",
        "blx r0",
        "ldr r1, [sp, #84]",
        "ldrd r0, r2, [sp, #104]",
        "cmp r1, #4",
        "it lo",
        "movlo r0, r2",
        "blx r0",
        "ldr r1, [sp, #84]",
        "subs r1, #4",
        "str r1, [sp, #84]",
        "bhi 1b",
        "add sp, #112",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// Widths of a layer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// From 8 to 8 bits.
    Narrow,
    /// From 8 to 16 bits.
    Widening,
    /// From 16 to 8 bits.
    Narrowing,
    /// From 16 to 16 bits.
    Wide,
}

impl Width {
    /// Bytes of an input element.
    pub fn input(self) -> usize {
        if matches!(self, Self::Narrow | Self::Widening) { 1 } else { 2 }
    }

    /// Bytes of an output element.
    pub fn output(self) -> usize {
        if matches!(self, Self::Narrow | Self::Narrowing) { 1 } else { 2 }
    }
}

/// Whether kernels of the `_relu` form give the layer's result: the least output is the zero point, no shift is to the left, and no result so great that the zero
/// point makes it wrap, as only factors of almost 1 or more can.
pub fn is_relu(linear: &Integer<'_>) -> bool {
    const MOST: i32 = i32::MAX - 128;
    linear.low == linear.output_zero
        && match memory::greatest_shift(linear.shift) {
            ..0 => true,
            0 => linear.multiplier.iter().all(|&multiplier| multiplier < MOST),
            _ => false,
        }
}

/// Whether kernels of the `_linear` form give the layer's result: it is clamped to its type's range alone, and all shifts are to the right.
pub fn is_linear(linear: &Integer<'_>) -> bool {
    linear.low == -128 && linear.high == 127 && memory::greatest_shift(linear.shift) < 0
}

/// The summands that clamp a value less the least output, narrowed to 16 bits with unsigned saturation, which is the lower bound: the first, added with saturation at the
/// greatest `u16`, is the upper bound; the second, added modulo 2^16, takes both offsets back. The low part is the value.
pub fn clamp(linear: &Integer<'_>) -> [u32; 2] {
    let Integer { low, high, .. } = *linear;
    [0xFFFF_i32.wrapping_sub(high.wrapping_sub(low)) as u32, high.wrapping_add(1) as u32]
}

/// A layer of products, in groups.
pub struct Product<'a> {
    linear: &'a Integer<'a>,
    width: Width,
    groups: usize,
    /// Outputs of a group.
    outputs: usize,
    sum: Quad,
    /// Requantises four outputs that lie on a word.
    aligned: Quad,
    /// Requantises any outputs.
    any: Quad,
    /// Bytes of a segment of inputs.
    run: usize,
    blocks: usize,
    segments: usize,
    weight_step: usize,
    /// Bytes of a group's weights.
    weights: usize,
}

/// What a run overwrites.
pub struct Room<'a> {
    /// Sums of four outputs, of four positions at least.
    pub sums: &'a mut [i32],
    /// Of all segments but the last: for the segments that are left behind it, the bytes from its end to the next one's start.
    pub gaps: &'a mut [i32],
}

impl<'a> Product<'a> {
    /// In each of `groups` groups `segments` runs of `blocks` blocks. `None` if there are not as many weights and constants.
    pub fn new(
        linear: &'a Integer<'a>,
        width: Width,
        groups: usize,
        segments: usize,
        blocks: usize,
    ) -> Option<Self> {
        let channels = linear.bias.len();
        let outputs = channels.checked_div(groups)?;
        let weight_step = segments.checked_mul(blocks)?.checked_mul(4 * BLOCK)?;
        let weights = outputs.div_ceil(4).checked_mul(weight_step)?;
        if linear.weights.len() < weights.checked_mul(groups)?
            || linear.multiplier.len() < channels
            || linear.shift.len() < channels
            || outputs == 0
            || blocks == 0
            || !(1..=MOST_TAPS).contains(&segments)
        {
            return None;
        }
        let sum = match width {
            Width::Narrowing | Width::Wide => sums::halfwords,
            _ => match (segments, blocks) {
                (1, 1) => sums::bytes_block,
                (1, 2) => sums::bytes_two,
                (1, 3) => sums::bytes_three,
                (2, 1) => sums::bytes_two_segments,
                (3, 1) => sums::bytes_three_segments,
                _ => sums::bytes,
            },
        };
        let any: Quad = if width.output() == 1 { requantize::bytes } else { requantize::halfwords };
        let full = width.output() == 1 && linear.low == -128 && linear.high == 127;
        let aligned = match full {
            true if is_relu(linear) => requantize::relu,
            true if is_linear(linear) => requantize::linear,
            _ => any,
        };
        let run = blocks.checked_mul(BLOCK * width.input())?;
        Some(Self {
            linear,
            width,
            groups,
            outputs,
            sum,
            aligned,
            any,
            run,
            blocks,
            segments,
            weight_step,
            weights,
        })
    }

    /// Bytes of a group's outputs at a position.
    pub fn output_bytes(&self) -> usize {
        self.outputs.wrapping_mul(self.width.output())
    }

    /// A group's outputs of `count` positions, which start `output` and lie there as far apart as those of all groups reach. Segment `s` of position `p` is at byte
    /// `starts[s] + p * step` of `input`. `None` if a slice is too short.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "where the operands lie")]
    pub fn run(
        &self,
        group: usize,
        input: &[u8],
        starts: &[usize],
        step: usize,
        count: usize,
        output: &mut [u8],
        room: &mut Room<'_>,
    ) -> Option<()> {
        let output_step = self.linear.bias.len().checked_mul(self.width.output())?;
        let Some(before) = count.checked_sub(1) else { return Some(()) };
        let reach = before.checked_mul(step)?.checked_add(self.run)?;
        let first = *starts.first()?;
        // Whole groups of four positions.
        let chunk = CHUNK.min(room.sums.len() / 4) & !3;
        if starts.len() != self.segments
            || starts.iter().any(|start| start.checked_add(reach).is_none_or(|end| end > input.len()))
            || output.len() < before.checked_mul(output_step)?.checked_add(self.output_bytes())?
            || group >= self.groups
            || chunk == 0
        {
            return None;
        }
        let mut end = first.wrapping_add(self.run);
        let gaps = room.gaps.get_mut(..self.segments.wrapping_sub(1))?;
        for (gap, &start) in gaps.iter_mut().rev().zip(starts.get(1..)?) {
            *gap = start.wrapping_sub(end) as i32;
            end = start.wrapping_add(self.run);
        }
        let advance = end.wrapping_sub(first);
        let channel = group.wrapping_mul(self.outputs);
        let constants = |all: &[i32]| all.as_ptr().wrapping_add(channel);
        let aligned = (output.as_ptr() as usize | output_step).is_multiple_of(4);
        let mut frame = Frame {
            input_next: step.wrapping_mul(2).wrapping_sub(advance) as u32,
            weights: self.linear.weights.as_ptr().wrapping_add(group.wrapping_mul(self.weights)),
            sums: room.sums.as_mut_ptr(),
            sums_end: core::ptr::null_mut(),
            input: core::ptr::null(),
            input_step: step as u32,
            groups: 0,
            rounds: 0,
            entry: 0,
            after: 0,
            finish: 0,
            segments: self.segments as u32,
            blocks: self.blocks.wrapping_sub(1) as u32,
            // Counted from 1.
            gaps: gaps.as_ptr().wrapping_sub(1),
            back: 0,
            weight_step: self.weight_step as u32,
            bias: constants(self.linear.bias),
            multiplier: constants(self.linear.multiplier),
            shift: constants(self.linear.shift),
            output: core::ptr::null_mut(),
            output_step: output_step as u32,
            outputs: self.outputs as u32,
            zero: self.linear.output_zero,
            low: self.linear.low,
            high: self.linear.high,
            sum: self.sum,
            whole: if aligned { self.aligned } else { self.any },
            part: self.any,
        };
        if count < 4 {
            // All positions of a group are the same one.
            (frame.input_next, frame.input_step, frame.output_step) = (advance.wrapping_neg() as u32, 0, 0);
        }
        let mut done = 0;
        while let Some(left) = count.checked_sub(done).filter(|&left| left > 0) {
            // The last group overlaps the one before it.
            let positions = match left.saturating_add(3) & !3 {
                _ if count < 4 => 4,
                whole if whole.min(chunk) <= count => whole.min(chunk),
                _ => left & !3,
            };
            let start = if count < 4 { done } else { done.min(count.wrapping_sub(positions)) };
            frame.input = input.as_ptr().wrapping_add(first).wrapping_add(start.wrapping_mul(step));
            frame.output = output.as_mut_ptr().wrapping_add(start.wrapping_mul(output_step));
            frame.groups = positions as u32 / 4;
            frame.sums_end = frame.sums.wrapping_add(positions.wrapping_mul(4));
            // SAFETY: `sums` has room for `positions`, at most `chunk`. They are positions `start` to `start + positions` of `count`, or all of them `start` with steps
            // of 0: every segment ends within `input`, and their outputs within `output`, as checked above. Weights and constants reach for all outputs of all groups, as
            // `new` has checked. Outputs lie on words where the functions for that are called.
            unsafe { quads(&frame) }
            done = if count < 4 { done.wrapping_add(1) } else { start.wrapping_add(positions) };
        }
        Some(())
    }
}
