//! Dense layers: eight outputs of one row at a time, with weights in [`Packing::Blocks8x16`](crate::blob::Packing). Sums, rounds of blocks and requantisation as
//! in [`super::product`].

use core::arch::naked_asm;

use super::memory;
use super::product::{Width, clamp, is_relu};
use crate::backend::spec::helium::BLOCK;
use crate::ops::linear::Integer;

/// What a kernel is told: the registers r1 to r12 and r14 that it starts with.
#[repr(C)]
struct Frame {
    /// r1.
    weights: *const i8,
    /// r2: least output; of the `_relu` kernel, and `high` too, see [`clamp`].
    low: u32,
    /// r3: the row.
    input: *const u8,
    /// r4: constants.
    shift: *const i32,
    /// r5: constants.
    bias: *const i32,
    /// r6: end of the outputs that fill blocks of eight.
    end: *mut u8,
    /// r7.
    output: *mut u8,
    /// r8: outputs behind the last eight.
    rest: u32,
    /// r9: constants.
    multiplier: *const i32,
    /// r10: greatest output.
    high: u32,
    /// r11: rounds of blocks, the first of which may be entered behind its start.
    rounds: u32,
    /// r12: zero point.
    zero: i32,
    /// r14: where the first round is entered, in bytes of code, plus 1.
    entry: u32,
}

macro_rules! lane_8 {
    ($even:literal, $odd:literal) => {
        concat!(
            "vldrb.u8 q1, [r1], #16\n",
            "vmladava.s8 ",
            $even,
            ", q0, q1\n",
            "vldrb.u8 q2, [r1], #16\n",
            "vmladava.s8 ",
            $odd,
            ", q0, q2\n",
        )
    };
}

/// Sixteen elements of the row (r3) and of eight outputs' weights (r1), 8 bits.
macro_rules! block_8 {
    (eight) => {
        concat!(block_8!(four), block_8!(four))
    };
    (four) => {
        concat!(block_8!(), block_8!(), block_8!(), block_8!())
    };
    () => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            lane_8!("r0", "r2"),
            lane_8!("r4", "r6"),
            lane_8!("r8", "r10"),
            lane_8!("r12", "r14"),
        )
    };
}

macro_rules! lane_16 {
    ($sum:literal, $at:literal, $next:literal) => {
        concat!(
            "vldrb.s16 q2, [r1, #",
            $at,
            "]\n",
            "vmladava.s16 ",
            $sum,
            ", q0, q2\n",
            "vldrb.s16 q3, [r1, #",
            $next,
            "]\n",
            "vmladava.s16 ",
            $sum,
            ", q1, q3\n",
        )
    };
}

/// Like [`block_8`] with a row of 16 bits.
macro_rules! block_16 {
    (four) => {
        concat!(block_16!(), block_16!(), block_16!(), block_16!())
    };
    () => {
        concat!(
            "vldrh.u16 q0, [r3], #16\n",
            "vldrh.u16 q1, [r3], #16\n",
            lane_16!("r0", "0", "8"),
            lane_16!("r2", "16", "24"),
            lane_16!("r4", "32", "40"),
            lane_16!("r6", "48", "56"),
            lane_16!("r8", "64", "72"),
            lane_16!("r10", "80", "88"),
            lane_16!("r12", "96", "104"),
            lane_16!("r14", "112", "120"),
            "add.w r1, r1, #128\n",
        )
    };
}

/// How a kernel's loop is laid out.
#[derive(Clone, Copy)]
struct Round {
    /// Blocks, a power of two, as its logarithm.
    log: u32,
    /// Bytes of a block's code.
    bytes: u32,
}

const EIGHT: Round = Round { log: 3, bytes: 17 * 4 };
const FOUR: Round = Round { log: 2, ..EIGHT };
const FOUR_16: Round = Round { log: 2, bytes: 35 * 4 };

/// The kernel `$name`: for each eight outputs, then for the rest, the products' sums, requantised and stored. `$block` is a block, of which a round has `$round`,
/// `$store` stores the low part of each halfword, `$eight` are the bytes of eight outputs. `$left` shifts to the left, `$away` rounds halves
/// away from zero, `$narrow` makes halfwords within the bounds of what was shifted.
///
/// Registers: r1 weights, r3 row, r5 bias, r7 output, r9 multiplier, r11 rounds, the even ones the sums; q0 has the even outputs, q1 the odd
/// ones, q2 and q3 their constants, q4 to q6 bounds and zero point. On the stack:
/// 0 row, 4 rounds, 8 shift, 12 end of the outputs, 16 rest, 20 entry, 24 output of the rest. The rest is computed as eight outputs, with copies of
/// its constants (from 32 on), so that whole vectors can be read, and stored to 128 first.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $block:ident $round:ident, $store:literal, $eight:literal,
        [$($left:literal),*], [$($away:literal),*], [$($narrow:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// All that the frame names is readable or writable as [`dense`] checks.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "sub sp, #148",
                "ldm r0, {{r1-r12, r14}}",
                "adr.w r0, 3f",
                "add r14, r0",
                "strd r3, r11, [sp, #0]",
                "strd r4, r6, [sp, #8]",
                "strd r8, r14, [sp, #16]",
                "vdup.16 q4, r2",
                "vdup.16 q5, r10",
                "vdup.32 q6, r12",
                "cmp r7, r6",
                "beq.w 7f",
                // Eight outputs.
                "2:",
                "ldrd r3, r11, [sp, #0]",
                "ldrd r4, r6, [r5, #8]",
                "ldrd r8, r10, [r5, #16]",
                "ldrd r12, r14, [r5, #24]",
                "ldrd r0, r2, [r5], #32",
                "ldr pc, [sp, #20]",
                "3:",
                $block!($round),
                "subs.w r11, r11, #1",
                "bne.w 3b",
                "vmov q0[2], q0[0], r0, r8",
                "vmov q0[3], q0[1], r4, r12",
                "vmov q1[2], q1[0], r2, r10",
                "vmov q1[3], q1[1], r6, r14",
                "ldrd r0, r2, [sp, #8]",
                $($left,)*
                "vld20.32 {{q2, q3}}, [r9]",
                "vld21.32 {{q2, q3}}, [r9]!",
                "vqrdmulh.s32 q0, q0, q2",
                "vqrdmulh.s32 q1, q1, q3",
                "vld20.32 {{q2, q3}}, [r0]",
                "vld21.32 {{q2, q3}}, [r0]!",
                "str r0, [sp, #8]",
                $($away,)*
                "vrshl.s32 q0, q0, q2",
                "vrshl.s32 q1, q1, q3",
                $($narrow,)*
                concat!($store, ".16 q0, [r7], #", $eight),
                "cmp r7, r2",
                "bne.w 2b",
                "7:",
                "ldr r0, [sp, #16]",
                "cmp r0, #0",
                "beq 9f",
                "blt 8f",
                // The rest: once more, with copies.
                "rsbs r2, r0, #0",
                "str r2, [sp, #16]",
                "str r7, [sp, #24]",
                "ldr r4, [sp, #8]",
                "add r3, sp, #32",
                "vctp.32 r0",
                "vpsttt",
                "vldrwt.u32 q0, [r5]",
                "vldrwt.u32 q1, [r9]",
                "vldrwt.u32 q2, [r4]",
                "vstrw.32 q0, [r3]",
                "vstrw.32 q1, [r3, #32]",
                "vstrw.32 q2, [r3, #64]",
                "subs r2, r0, #4",
                "it lo",
                "movlo r2, #0",
                "vctp.32 r2",
                "vpsttt",
                "vldrwt.u32 q0, [r5, #16]",
                "vldrwt.u32 q1, [r9, #16]",
                "vldrwt.u32 q2, [r4, #16]",
                "vstrw.32 q0, [r3, #16]",
                "vstrw.32 q1, [r3, #48]",
                "vstrw.32 q2, [r3, #80]",
                "mov r5, r3",
                "add r9, r3, #32",
                "adds r3, #64",
                "add r7, sp, #128",
                concat!("add r2, r7, #", $eight),
                "strd r3, r2, [sp, #8]",
                "b.w 2b",
                // The outputs of the rest that exist.
                "8:",
                "rsbs r0, r0, #0",
                "ldr r7, [sp, #24]",
                "vctp.16 r0",
                "vpst",
                concat!($store, "t.16 q0, [r7]"),
                "9:",
                "add sp, #148",
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                ".cpu cortex-m33",
            )
        }
    };
}

macro_rules! any_kernel {
    ($(#[$doc:meta])* $name:ident, $block:ident, $store:literal, $eight:literal) => {
        kernel!(
            $(#[$doc])* $name, $block four, $store, $eight,
            [
                "vld20.32 {{q2, q3}}, [r0]",
                "vld21.32 {{q2, q3}}, [r0]",
                "vmov.i32 q7, #0",
                "vmax.s32 q2, q2, q7",
                "vmax.s32 q3, q3, q7",
                "vshl.s32 q0, q0, q2",
                "vshl.s32 q1, q1, q3"
            ],
            [
                "vmov.i32 q7, #0",
                "vmin.s32 q2, q2, q7",
                "vmin.s32 q3, q3, q7",
                "vand q7, q0, q2",
                "vshr.s32 q7, q7, #31",
                "vadd.i32 q0, q0, q7",
                "vand q7, q1, q3",
                "vshr.s32 q7, q7, #31",
                "vadd.i32 q1, q1, q7"
            ],
            [
                "vadd.i32 q0, q0, q6",
                "vadd.i32 q1, q1, q6",
                "vqmovnb.s32 q0, q0",
                "vqmovnt.s32 q0, q1",
                "vmax.s16 q0, q0, q4",
                "vmin.s16 q0, q0, q5"
            ]
        );
    };
}

kernel!(
    /// From 8 to 8 bits, of layers that [`is_relu`] takes: the bounds are those of [`clamp`].
    dense_8_8_relu, block_8 eight, "vstrb", "8", [], [],
    ["vqmovunb.s32 q0, q0", "vqmovunt.s32 q0, q1", "vqadd.u16 q0, q0, q4", "vadd.i16 q0, q0, q5"]
);
kernel!(
    /// From 8 to 8 bits, of layers whose shifts are negative.
    dense_8_8_right, block_8 eight, "vstrb", "8",
    [],
    ["vshr.s32 q7, q0, #31", "vadd.i32 q0, q0, q7", "vshr.s32 q7, q1, #31", "vadd.i32 q1, q1, q7"],
    [
        "vadd.i32 q0, q0, q6",
        "vadd.i32 q1, q1, q6",
        "vqmovnb.s32 q0, q0",
        "vqmovnt.s32 q0, q1",
        "vmax.s16 q0, q0, q4",
        "vmin.s16 q0, q0, q5"
    ]
);
any_kernel!(
    /// From 8 to 8 bits.
    dense_8_8, block_8, "vstrb", "8"
);
any_kernel!(
    /// From 8 to 16 bits.
    dense_8_16, block_8, "vstrh", "16"
);
any_kernel!(
    /// From 16 to 8 bits.
    dense_16_8, block_16, "vstrb", "8"
);
any_kernel!(
    /// From 16 to 16 bits.
    dense_16_16, block_16, "vstrh", "16"
);

/// Runs a dense layer. Slices are bytes of the tensors; rows whose last block would read behind the input are copied to scratch.
#[inline(never)]
pub fn dense(
    inputs: usize,
    linear: &Integer<'_>,
    width: Width,
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let outputs = linear.bias.len();
    let blocks = inputs.div_ceil(BLOCK);
    let row = inputs.checked_mul(width.input())?;
    let read = blocks.checked_mul(BLOCK * width.input())?;
    let written = outputs.checked_mul(width.output())?;
    if linear.weights.len() < outputs.div_ceil(8).checked_mul(blocks)?.checked_mul(8 * BLOCK)?
        || linear.multiplier.len() < outputs
        || linear.shift.len() < outputs
        || outputs == 0
        || inputs == 0
    {
        return None;
    }
    let (mut low, mut high) = (linear.low as u32, linear.high as u32);
    let (kernel, round): (unsafe extern "C" fn(*const Frame), Round) = match width {
        Width::Narrow if is_relu(linear) => {
            [low, high] = clamp(linear);
            (dense_8_8_relu, EIGHT)
        }
        Width::Narrow if memory::greatest_shift(linear.shift) < 0 => (dense_8_8_right, EIGHT),
        Width::Narrow => (dense_8_8, FOUR),
        Width::Widening => (dense_8_16, FOUR),
        Width::Narrowing => (dense_16_8, FOUR_16),
        Width::Wide => (dense_16_16, FOUR_16),
    };
    let blocks = blocks as u32;
    // Those of the first round that are left out.
    let left_out = blocks.wrapping_neg() & (1u32 << round.log).wrapping_sub(1);
    let mut frame = Frame {
        weights: linear.weights.as_ptr(),
        low,
        input: core::ptr::null(),
        shift: linear.shift.as_ptr(),
        bias: linear.bias.as_ptr(),
        end: core::ptr::null_mut(),
        output: core::ptr::null_mut(),
        rest: (outputs & 7) as u32,
        multiplier: linear.multiplier.as_ptr(),
        high,
        rounds: blocks.wrapping_add(left_out) >> round.log,
        zero: linear.output_zero,
        entry: left_out.wrapping_mul(round.bytes) | 1,
    };
    let mut input_left = input;
    let mut output_left = output;
    while !output_left.is_empty() {
        let source = match input_left.get(..read) {
            Some(source) => source,
            None => {
                let copy = scratch.get_mut(..read)?;
                // Rows of 16 bits are read in halfwords, which must be aligned; of a model that nothing has judged the scratch may lie anywhere.
                if copy.as_ptr().addr() & width.input().wrapping_sub(1) != 0 {
                    return None;
                }
                memory::copy(copy, input_left.get(..row)?);
                copy
            }
        };
        let (target, rest) = output_left.split_at_mut_checked(written)?;
        frame.input = source.as_ptr();
        frame.output = target.as_mut_ptr();
        frame.end = frame.output.wrapping_add((outputs & !7).wrapping_mul(width.output()));
        // SAFETY: the kernel reads `read` bytes of the row, which `source` has, writes `written` bytes, predicated on outputs that exist, which
        // `target` has, and reads weights and constants as far as was checked above.
        unsafe { kernel(&frame) }
        input_left = input_left.get(row..)?;
        output_left = rest;
    }
    Some(())
}
