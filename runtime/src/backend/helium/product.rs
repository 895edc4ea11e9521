//! Products of weights and positions: four outputs of two positions at a time, requantised and stored.
//!
//! A position's inputs are `segments` runs of whole blocks of 16 elements; weights are in [`Packing::Blocks4x16`](crate::blob::Packing). The sums live in the even
//! registers r0 to r14, which leaves no register for the hardware's loop counter; loops over blocks are unrolled to rounds of several blocks and entered in the middle.
//!
//! Requantisation equals [`crate::quant::requantize`] and the clamp of [`Integer::finish`]:
//! - `VQRDMULH` is the doubling high multiplication. It saturates only for two least numbers, and multipliers are not negative.
//! - `VRSHL` by a negative count adds half and shifts, so halves go up. Away from zero they go once a negative number has been decremented before, for
//!   `(x + half - 1) >> e` is the floor wanted; nothing may be subtracted where the count is 0. With a lower bound at the zero point
//!   the result of a negative number is that bound in either way, and kernels of the `_relu` form leave the step out.
//! - A shift to the left comes first, modulo 2^32, by `VSHL`.
//! - `y = v + zero point - low` is narrowed to 16 bits with unsigned saturation, which is the lower bound; adding `65535 - (high - low)` with
//!   saturation is the upper bound; adding `1 + high` modulo 2^16 takes both offsets back. The value is stored truncated.

use core::arch::naked_asm;

use super::memory;
use crate::backend::spec::helium::{BLOCK, MOST_TAPS};
use crate::ops::linear::Integer;

/// What a kernel is told; copied to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0: added with saturation at the greatest `u16`.
    saturate: u32,
    /// 4: added after that.
    restore: u32,
    /// 8: bytes from an output position to the next.
    output_step: u32,
    /// 12: from the end of a position's inputs to the start of those two positions on.
    input_next: u32,
    /// 16: weights of the current four outputs.
    weights: *const i8,
    /// 20: end of the current outputs.
    end: *mut u8,
    /// 24: rounds of blocks in a segment, behind its first block. Set by the kernel.
    rounds: u32,
    /// 28: segments.
    segments: u32,
    /// 32: where the first round of a segment starts. Set by the kernel.
    entry: u32,
    /// 36: where a segment goes on when it ends. Set by the kernel.
    after: u32,
    /// 40: zero point less least output.
    offset: i32,
    /// 44: the first position's inputs.
    input: *const u8,
    /// 48: bytes from a position to the next.
    input_step: u32,
    /// 52: the first position's current outputs.
    output: *mut u8,
    /// 56: outputs that are left.
    outputs: u32,
    /// 60, 64, 68: the constants of the outputs that are left.
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i32,
    /// 72: bytes of four outputs' weights.
    weight_step: u32,
    /// 76: blocks of a segment, without its first.
    blocks: u32,
    /// 80: for a number of segments that are left, the bytes from the end of the one before them to their start.
    gaps: *const i32,
    /// 84: where it goes on when its last round ends. Set by the kernel.
    finish: u32,
}

/// Sixteen elements of two positions (r3, r5) and of four outputs' weights (r1), 8 bits: 14 instructions of 4 bytes. `$first` is `vmladav`, which sets
/// the sums, or `vmladava`, which adds to them.
macro_rules! block_8 {
    (bytes) => {
        "56"
    };
    (round) => {
        concat!(
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava")
        )
    };
    (blocks) => {
        "8"
    };
    (log) => {
        "3"
    };
    ($first:literal) => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            "vldrb.u8 q1, [r5], #16\n",
            "vldrb.u8 q2, [r1], #16\n",
            $first,
            ".s8 r0, q0, q2\n",
            "vldrb.u8 q3, [r1], #16\n",
            $first,
            ".s8 r2, q1, q2\n",
            "vldrb.u8 q4, [r1], #16\n",
            $first,
            ".s8 r4, q0, q3\n",
            $first,
            ".s8 r6, q1, q3\n",
            "vldrb.u8 q2, [r1], #16\n",
            $first,
            ".s8 r8, q0, q4\n",
            $first,
            ".s8 r10, q1, q4\n",
            $first,
            ".s8 r12, q0, q2\n",
            $first,
            ".s8 r14, q1, q2\n",
        )
    };
}

/// Like [`block_8`] with positions of 16 bits, in two halves, the second first: 28 instructions of 4 bytes.
macro_rules! block_16 {
    (bytes) => {
        "112"
    };
    (round) => {
        concat!(block_16!("vmladava"), block_16!("vmladava"), block_16!("vmladava"), block_16!("vmladava"))
    };
    (blocks) => {
        "4"
    };
    (log) => {
        "2"
    };
    ($first:literal) => {
        concat!(
            "vldrh.u16 q0, [r3, #16]\n",
            "vldrh.u16 q1, [r5, #16]\n",
            "vldrb.s16 q2, [r1, #8]\n",
            $first,
            ".s16 r0, q0, q2\n",
            "vldrb.s16 q3, [r1, #24]\n",
            $first,
            ".s16 r2, q1, q2\n",
            "vldrb.s16 q4, [r1, #40]\n",
            $first,
            ".s16 r4, q0, q3\n",
            $first,
            ".s16 r6, q1, q3\n",
            "vldrb.s16 q2, [r1, #56]\n",
            $first,
            ".s16 r8, q0, q4\n",
            $first,
            ".s16 r10, q1, q4\n",
            $first,
            ".s16 r12, q0, q2\n",
            $first,
            ".s16 r14, q1, q2\n",
            "vldrh.u16 q0, [r3], #32\n",
            "vldrh.u16 q1, [r5], #32\n",
            "vldrb.s16 q3, [r1, #16]\n",
            "vmladava.s16 r4, q0, q3\n",
            "vldrb.s16 q4, [r1, #32]\n",
            "vmladava.s16 r6, q1, q3\n",
            "vldrb.s16 q2, [r1, #48]\n",
            "vmladava.s16 r8, q0, q4\n",
            "vmladava.s16 r10, q1, q4\n",
            "vldrb.s16 q3, [r1], #64\n",
            "vmladava.s16 r12, q0, q2\n",
            "vmladava.s16 r14, q1, q2\n",
            "vmladava.s16 r0, q0, q3\n",
            "vmladava.s16 r2, q1, q3\n",
        )
    };
}

/// The kernel `$name`: for each four outputs, for each pair of positions from `output` to `end`, the sums over all segments, requantised and stored.
/// `$entry` prepares loops over blocks, `$tile` sums up two positions, with `$segment` out of line. `$store` stores the low part of each lane, `$four` are the bytes of
/// four outputs. `$prepare` makes the left shift of four outputs, `$left`, `$away` and `$offset` are the steps that `_relu` kernels leave out.
///
/// Registers: r1 weights, r3 and r5 inputs of both positions, r7 output, r9 segments that are left, r11 rounds that are left; q5 bias, q6 multiplier, q7 shift;
/// the predicate has the outputs that exist.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $store:literal, $four:literal,
        [$($entry:expr),*], [$($tile:expr),*], [$($segment:expr),*],
        [$($prepare:literal),*], [$($left:literal),*], [$($away:literal),*], [$($offset:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// All that the frame names is readable or writable as [`Product::run`] checks.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "sub sp, #108",
                "ldm r0!, {{r1-r11}}",
                "stm sp, {{r1-r11}}",
                "add r12, sp, #44",
                "ldm r0, {{r1-r11}}",
                "stm r12, {{r1-r11}}",
                $($entry,)*
                // Four outputs.
                "1:",
                "ldr r0, [sp, #56]",
                "vctp.32 r0",
                "ldrd r1, r3, [sp, #60]",
                "ldr r5, [sp, #68]",
                "vpsttt",
                "vldrwt.u32 q5, [r1], #16",
                "vldrwt.u32 q6, [r3], #16",
                "vldrwt.u32 q7, [r5], #16",
                "strd r1, r3, [sp, #60]",
                "str r5, [sp, #68]",
                $($prepare,)*
                "ldrd r3, r5, [sp, #44]",
                "add r5, r3",
                "ldr r7, [sp, #52]",
                "ldr r1, [sp, #16]",
                // Two positions, at label 2.
                $($tile,)*
                // Their sums are whole.
                "4:",
                "vmov q0[2], q0[0], r0, r8",
                "vmov q0[3], q0[1], r4, r12",
                "vmov q1[2], q1[0], r2, r10",
                "vmov q1[3], q1[1], r6, r14",
                "vadd.i32 q0, q0, q5",
                "vadd.i32 q1, q1, q5",
                $($left,)*
                "vqrdmulh.s32 q0, q0, q6",
                "vqrdmulh.s32 q1, q1, q6",
                $($away,)*
                "vrshl.s32 q0, q0, q7",
                "vrshl.s32 q1, q1, q7",
                $($offset,)*
                "ldrd r0, r2, [sp, #0]",
                "vqmovunb.s32 q0, q0",
                "vqmovunt.s32 q0, q1",
                "ldrd r4, r6, [sp, #8]",
                "vqadd.u16 q0, q0, r0",
                "vadd.i16 q0, q0, r2",
                "adds r0, r7, r4",
                "vshr.u32 q1, q0, #16",
                "vpstt",
                concat!($store, "t.32 q0, [r7]"),
                concat!($store, "t.32 q1, [r0]"),
                "adds r7, r0, r4",
                "add r3, r6",
                "add r5, r6",
                "ldrd r1, r0, [sp, #16]",
                "cmp r7, r0",
                "bne.w 2b",
                // The next four outputs.
                "ldr r2, [sp, #72]",
                "add r1, r2",
                concat!("adds r0, #", $four),
                "strd r1, r0, [sp, #16]",
                "ldr r0, [sp, #52]",
                concat!("adds r0, #", $four),
                "ldr r2, [sp, #56]",
                "subs r2, #4",
                "strd r0, r2, [sp, #52]",
                "bhi.w 1b",
                "add sp, #108",
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                $($segment,)*
                ".cpu cortex-m33",
            )
        }
    };
}

/// A [`kernel`] for any number of blocks and segments: the rounds of `$block`.
macro_rules! blocks_kernel {
    ($(#[$doc:meta])* $name:ident, $block:ident, $store:literal, $four:literal, $($steps:tt)*) => {
        kernel!(
            $(#[$doc])* $name, $store, $four,
            [
                // Rounds of blocks, and the entry that makes the first of them short.
                "ldr r0, [sp, #76]",
                "adr.w r1, 3f",
                "adr.w r3, 4f",
                concat!("adds r2, r0, #", $block!(blocks), " - 1"),
                concat!("lsrs r2, r2, #", $block!(log)),
                "str r2, [sp, #24]",
                concat!("lsls r4, r2, #", $block!(log)),
                "subs r4, r4, r0",
                concat!("movs r5, #", $block!(bytes)),
                "mla r1, r4, r5, r1",
                "ldr r9, [sp, #28]",
                "cmp r9, #1",
                "it ne",
                "adrne.w r3, 5f",
                "orr r1, r1, #1",
                "orr r3, r3, #1",
                "str r3, [sp, #84]",
                "cmp r0, #0",
                "it eq",
                "moveq r1, r3",
                "cmp r2, #1",
                "itt hi",
                "adrhi.w r3, 7f",
                "orrhi r3, r3, #1",
                "strd r1, r3, [sp, #32]",
                "mov r11, r2"
            ],
            [
                "2:",
                $block!("vmladav"),
                "ldr pc, [sp, #32]",
                "3:",
                $block!(round),
                "ldr pc, [sp, #36]",
                // The end of one of several rounds.
                "7:",
                "subs r11, #1",
                "bne.w 3b",
                "ldr r11, [sp, #24]",
                "ldr pc, [sp, #84]",
                // The end of one of several segments.
                "5:",
                "subs r9, #1",
                "bne 6f",
                "ldr r9, [sp, #28]"
            ],
            [
                // The next segment.
                "6:",
                "ldr r11, [sp, #80]",
                "ldr r11, [r11, r9, lsl #2]",
                "add r3, r11",
                "add r5, r11",
                "ldr r11, [sp, #24]",
                $block!("vmladava"),
                "ldr pc, [sp, #32]"
            ],
            $($steps)*
        );
    };
}

macro_rules! any_kernel {
    ($(#[$doc:meta])* $name:ident, $block:ident, $store:literal, $four:literal) => {
        blocks_kernel!(
            $(#[$doc])* $name, $block, $store, $four,
            [
                "vmov.i32 q0, #0",
                "vmax.s32 q1, q7, q0",
                "vmin.s32 q7, q7, q0",
                "vstrw.32 q1, [sp, #88]"
            ],
            ["vldrw.u32 q2, [sp, #88]", "vshl.s32 q0, q0, q2", "vshl.s32 q1, q1, q2"],
            [
                "vand q2, q0, q7",
                "vand q3, q1, q7",
                "vshr.s32 q2, q2, #31",
                "vshr.s32 q3, q3, #31",
                "vadd.i32 q0, q0, q2",
                "vadd.i32 q1, q1, q3"
            ],
            ["ldr r0, [sp, #40]", "vqadd.s32 q0, q0, r0", "vqadd.s32 q1, q1, r0"]
        );
    };
}

blocks_kernel!(
    /// From 8 to 8 bits, of layers whose least output is the zero point and whose shifts are not positive.
    product_8_8_relu, block_8, "vstrb", "4", [], [], [], []
);
kernel!(
    /// Like [`product_8_8_relu`], for a single block, three quarters of whose weights stay in q2 to q4.
    product_8_8_relu_short, "vstrb", "4",
    [],
    [
        "vldrb.u8 q2, [r1]",
        "vldrb.u8 q3, [r1, #16]",
        "vldrb.u8 q4, [r1, #32]",
        "2:",
        "vldrb.u8 q0, [r3], #16",
        "vmladav.s8 r0, q0, q2",
        "vldrb.u8 q1, [r1, #48]",
        "vmladav.s8 r4, q0, q3",
        "vmladav.s8 r8, q0, q4",
        "vmladav.s8 r12, q0, q1",
        "vldrb.u8 q0, [r5], #16",
        "vmladav.s8 r2, q0, q2",
        "vmladav.s8 r6, q0, q3",
        "vmladav.s8 r10, q0, q4",
        "vmladav.s8 r14, q0, q1"
    ],
    [],
    [], [], [], []
);
any_kernel!(
    /// From 8 to 8 bits.
    product_8_8, block_8, "vstrb", "4"
);
any_kernel!(
    /// From 8 to 16 bits.
    product_8_16, block_8, "vstrh", "8"
);
any_kernel!(
    /// From 16 to 8 bits.
    product_16_8, block_16, "vstrb", "4"
);
any_kernel!(
    /// From 16 to 16 bits.
    product_16_16, block_16, "vstrh", "8"
);

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

/// Whether kernels of the `_relu` form give the layer's result.
pub fn is_relu(linear: &Integer<'_>) -> bool {
    linear.low == linear.output_zero && memory::greatest_shift(linear.shift) <= 0
}

/// The summands that clamp a value less the least output, as the module's head explains.
pub fn clamp(linear: &Integer<'_>) -> [u32; 2] {
    clamp_range(linear.low, linear.high)
}

/// The same for a range.
pub fn clamp_range(low: i32, high: i32) -> [u32; 2] {
    [0xFFFF_i32.wrapping_sub(high.wrapping_sub(low)) as u32, high.wrapping_add(1) as u32]
}

/// A layer of products, in groups.
pub struct Product<'a> {
    linear: &'a Integer<'a>,
    width: Width,
    groups: usize,
    /// Outputs of a group.
    outputs: usize,
    kernel: unsafe extern "C" fn(*const Frame),
    /// Bytes of a segment of inputs.
    run: usize,
    blocks: usize,
    segments: usize,
    weight_step: usize,
    /// Bytes of a group's weights.
    weights: usize,
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
        let kernel = match width {
            Width::Narrow if is_relu(linear) && segments == 1 && blocks == 1 => product_8_8_relu_short,
            Width::Narrow if is_relu(linear) => product_8_8_relu,
            Width::Narrow => product_8_8,
            Width::Widening => product_8_16,
            Width::Narrowing => product_16_8,
            Width::Wide => product_16_16,
        };
        let run = blocks.checked_mul(BLOCK * width.input())?;
        Some(Self { linear, width, groups, outputs, kernel, run, blocks, segments, weight_step, weights })
    }

    /// Bytes of a group's outputs at a position.
    pub fn output_bytes(&self) -> usize {
        self.outputs.wrapping_mul(self.width.output())
    }

    /// A group's outputs of `count` positions, which start `output` and lie there as far apart as those of all groups reach. Segment `s` of position `p` is at byte
    /// `starts[s] + p * step` of `input`. `None` if a slice is too short.
    #[inline(never)]
    pub fn run(
        &self,
        group: usize,
        input: &[u8],
        starts: &[usize],
        step: usize,
        count: usize,
        output: &mut [u8],
    ) -> Option<()> {
        let output_step = self.linear.bias.len().checked_mul(self.width.output())?;
        let Some(before) = count.checked_sub(1) else { return Some(()) };
        let last = before.checked_mul(step)?;
        let reach = last.checked_add(self.run)?;
        let first = *starts.first()?;
        if starts.len() != self.segments
            || starts.iter().any(|start| start.checked_add(reach).is_none_or(|end| end > input.len()))
            || output.len() < before.checked_mul(output_step)?.checked_add(self.output_bytes())?
            || group >= self.groups
        {
            return None;
        }
        let mut gaps = [0i32; MOST_TAPS];
        let mut end = first.wrapping_add(self.run);
        for (gap, &start) in gaps.get_mut(1..self.segments)?.iter_mut().rev().zip(starts.get(1..)?) {
            *gap = start.wrapping_sub(end) as i32;
            end = start.wrapping_add(self.run);
        }
        let advance = end.wrapping_sub(first);
        let channel = group.wrapping_mul(self.outputs);
        let constants = |all: &[i32]| all.as_ptr().wrapping_add(channel);
        let [saturate, restore] = clamp(self.linear);
        let mut frame = Frame {
            saturate,
            restore,
            output_step: output_step as u32,
            input_next: step.wrapping_mul(2).wrapping_sub(advance) as u32,
            weights: self.linear.weights.as_ptr().wrapping_add(group.wrapping_mul(self.weights)),
            end: core::ptr::null_mut(),
            rounds: 0,
            segments: self.segments as u32,
            entry: 0,
            after: 0,
            offset: self.linear.output_zero.wrapping_sub(self.linear.low),
            input: input.as_ptr().wrapping_add(first),
            input_step: step as u32,
            output: output.as_mut_ptr(),
            outputs: self.outputs as u32,
            bias: constants(self.linear.bias),
            multiplier: constants(self.linear.multiplier),
            shift: constants(self.linear.shift),
            weight_step: self.weight_step as u32,
            blocks: self.blocks.wrapping_sub(1) as u32,
            gaps: gaps.as_ptr(),
            finish: 0,
        };
        let pairs = count & !1;
        if pairs > 0 {
            frame.end = frame.output.wrapping_add(pairs.wrapping_mul(output_step));
            // SAFETY: positions 0 to `pairs` of every segment end within `input`, and their outputs within `output`, as checked above; weights and constants
            // reach for all outputs of all groups, as `new` has checked; loads of constants and stores are predicated on outputs that exist.
            unsafe { (self.kernel)(&frame) }
        }
        if count & 1 == 1 {
            // Both positions of the pair are the last one.
            frame.input = frame.input.wrapping_add(last);
            frame.output = frame.output.wrapping_add(pairs.wrapping_mul(output_step));
            frame.end = frame.output;
            (frame.input_step, frame.output_step) = (0, 0);
            // SAFETY: as above, for the one position `count - 1`: with steps of 0 the kernel ends after one pair.
            unsafe { (self.kernel)(&frame) }
        }
        Some(())
    }
}
