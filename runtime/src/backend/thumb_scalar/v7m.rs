//! Armv7-M: multiplication with accumulation, of 32 and of 64 bits.

mod wide;

use super::frame::{Dense, Extent, Frame, ODD, Plane};
pub use crate::backend::spec::v7m::CORE;
use crate::ops::linear::Integer;
use crate::quant;
use ::core::arch::naked_asm;
use ::core::ops::RangeInclusive;
pub use wide::{spread_i8, spread_i16, wide, wide_channel, wide_dense};

/// Words of an output channel's constants.
pub const CHANNEL_WORDS: usize = CORE.channel_bytes / 4;
/// Right shifts of channels that the closed form takes.
pub const EXPONENTS: RangeInclusive<i32> = 2..=24;

/// A channel's constants: sum of each word of two lanes and of its high lane before anything is added; then the upper word of the constant,
/// multiplier and shift. `code` replaces the shift of a channel that the closed form does not take.
pub fn channel(
    bias: i32,
    _both: i32,
    rounded: i32,
    [multiplier, shift, zero]: [i32; 3],
    code: Option<i32>,
) -> [i32; CHANNEL_WORDS] {
    let right = (-1i32).wrapping_sub(shift);
    let constant =
        1i32.wrapping_shl(right.wrapping_sub(1) as u32).wrapping_add(zero.wrapping_shl(right as u32));
    [rounded, bias, rounded, bias, constant, multiplier, code.unwrap_or(right)]
}

/// 1 where the zero point is -128, outputs have all of their range and the closed form takes all channels, else 0.
pub fn bounding(linear: &Integer<'_>) -> i32 {
    let least = i8::MIN.into();
    let relu = linear.output_zero == least && linear.low == least && linear.high == i8::MAX.into();
    (relu && linear.shift.iter().all(|shift| EXPONENTS.contains(&shift.wrapping_neg()))).into()
}

/// Moves the halves of r8 and r9 to the sums.
macro_rules! drain {
    () => {
        "add.w r4, r4, r8\n add.w r5, r5, r8, asr #16\n add.w r6, r6, r9\n add.w r7, r7, r9, asr #16"
    };
}

/// One lane of [`relu`].
macro_rules! relu_lane {
    ($sum:literal, $place:literal) => {
        concat!(
            "mov r0, #0x40000000\n mov r2, r8\n smlal r0, r2, ",
            $sum,
            ", r9\n asr r2, r2, r10\n ssat r2, #8, r2\n strb r2, [r3",
            $place,
            "]\n",
        )
    };
}

/// Requantises and stores as [`finish`] does, where the zero point is -128, outputs have all of their range and all channels have the closed form.
/// Leaves r1 as it is, and in r3 the place of lane 0.
///
/// Without the rounding term of negative sums an output differs only where it is not above the zero point; the saturation hides that.
macro_rules! relu {
    () => {
        concat!(
            "ldm sp, {{r0, r3, r11, r12, r14}}\n ldm r0!, {{r8, r9, r10}}\n str r0, [sp]\n",
            relu_lane!("r4", ""),
            relu_lane!("r5", ", r11"),
            relu_lane!("r6", ", r12"),
            relu_lane!("r7", ", r14"),
        )
    };
}

/// Sums up all output channels over the pairs of four lanes.
///
/// For each output channel and each two positions, with a word `X` of lanes 0 and 1 and one of lanes 2 and 3: `t = w0 * X0 + w1 * X1 + 2^15`;
/// the word's sum takes `t`, the high lane's sum takes `t >> 16`. In the end the low lane's sum is the word's without the high lane's.
///
/// Reads the frame, the pairs, the weights output by output and the channels' constants; writes the outputs of four lanes. Roles in the
/// loop: r0 pairs; r1 weights; r2, r3 weight; r4, r5 sums of lanes 0 and 1, of lane 1; r6, r7 of lanes 2 and 3, of lane 3; r8 to r11 words
/// of pairs; r12 2^15; r14 end of the pairs.
///
/// # Safety
/// The frame's pointers reach as far as its counts say; the pairs are an even number of positions, at least two.
#[unsafe(naked)]
pub unsafe extern "C" fn columns(frame: &Frame) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        // Stack: 0 to 48 the frame, 44 the end of lane 0, 52 where the loop is entered, 56 where sums are requantised.
        "sub sp, #60",
        "mov r8, sp",
        "ldm r0!, {{r1-r7}}",
        "stm r8!, {{r1-r7}}",
        "ldm r0, {{r1-r6}}",
        "stm r8, {{r1-r6}}",
        "ldr r2, [sp, #4]",
        "add r5, r2",
        "str r5, [sp, #44]",
        "adr r2, 4f",
        "cbnz r6, 2f",
        "adr r2, 5f",
        "2:",
        "orr r2, r2, #1",
        "str r2, [sp, #56]",
        // The loop takes sixteen units at a time; the first time it starts at one of them.
        "ldr r0, [sp, #32]",
        "ldr r1, [sp, #36]",
        "subs r1, r1, r0",
        "lsrs r1, r1, #4",
        "rsbs r1, r1, #0",
        "and r1, r1, #15",
        "movs r2, #44",
        "adr r3, 3f",
        "mla r3, r1, r2, r3",
        "orr r3, r3, #1",
        "str r3, [sp, #52]",
        "ldr r1, [sp, #40]",
        // Outputs.
        "2:",
        "ldr r3, [sp]",
        "ldm r3!, {{r4-r7}}",
        "str r3, [sp]",
        "ldr r0, [sp, #32]",
        "ldr r14, [sp, #36]",
        "mov r12, #0x8000",
        "ldr pc, [sp, #52]",
        ".p2align 2",
        "3:",
        ".rept 16",
        "ldm.w r0!, {{r8-r11}}",
        "ldrsb r2, [r1], #1",
        "ldrsb r3, [r1], #1",
        "mla r8, r8, r2, r12",
        "mla r9, r9, r2, r12",
        "mla r8, r10, r3, r8",
        "mla r9, r11, r3, r9",
        drain!(),
        ".endr",
        "cmp r0, r14",
        "bne 3b",
        "sub r4, r4, r5, lsl #16",
        "sub r6, r6, r7, lsl #16",
        "ldr pc, [sp, #56]",
        ".p2align 2",
        "5:",
        "bl {finish}",
        "ldr r3, [sp, #4]",
        "b 6f",
        ".p2align 2",
        "4:",
        relu!(),
        "6:",
        "adds r3, #1",
        "str r3, [sp, #4]",
        "ldr r2, [sp, #44]",
        "cmp r3, r2",
        "bne.w 2b",
        "add sp, #60",
        "pop {{r4-r11, pc}}",
        finish = sym finish,
    )
}

/// Two taps of 3x3; `$load` brings their pairs.
macro_rules! two {
    ($load:literal) => {
        concat!(
            $load,
            "\n ldrd r2, r3, [r1], #8\n mla r8, r8, r2, r12\n mla r9, r9, r2, r12\n mla r8, r10, r3, r8\n mla r9, r11, r3, r9\n",
            drain!(),
        )
    };
}

/// Slides a window over a plane: all taps of each window, for outputs of four lanes.
///
/// Sums up as [`columns`] does, with weights and places of pairs from a table; windows of 3x3 are straight code. Reads operands, table, plane and the
/// channel's constants; writes the outputs of four lanes. Roles: r0 window; r1 table; r2, r3 place and weight; r4, r5 sums of lanes 0 and 1, of
/// lane 1; r6, r7 of lanes 2 and 3, of lane 3; r8 to r11 words of pairs; r12 2^15; r14 end of the table, or bytes between rows.
///
/// # Safety
/// All taps of all windows lie in the plane, the table holds what the operands say, at least two taps, and outputs have room; there is a row and a window.
#[unsafe(naked)]
pub unsafe extern "C" fn plane(operands: &Plane) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        // Stack: 0 to 76 the operands, 80 the channel's constants, 84 windows left in the row.
        "sub sp, #92",
        "mov r8, sp",
        ".rept 2",
        "ldm r0!, {{r1-r7}}",
        "stm r8!, {{r1-r7}}",
        ".endr",
        "ldm r0, {{r1-r6}}",
        "stm r8, {{r1-r6}}",
        "ldr r2, [sp, #0]",
        "str r2, [sp, #80]",
        "7:",
        "ldr r2, [sp, #44]",
        "str r2, [sp, #84]",
        "2:",
        "ldr r3, [sp, #80]",
        "ldm r3!, {{r4-r7}}",
        "str r3, [sp, #0]",
        "ldr r0, [sp, #32]",
        "ldr r1, [sp, #68]",
        "ldr r14, [sp, #72]",
        "mov r12, #0x8000",
        "ldr r2, [sp, #76]",
        "cbnz r2, 4f",
        "3:",
        "ldrd r2, r3, [r1], #8",
        "add r2, r0",
        "ldrd r8, r9, [r2]",
        "mla r8, r8, r3, r12",
        "mla r9, r9, r3, r12",
        "ldrd r2, r3, [r1], #8",
        "add r2, r0",
        "ldrd r10, r11, [r2]",
        "mla r8, r10, r3, r8",
        "mla r9, r11, r3, r9",
        drain!(),
        "cmp r1, r14",
        "bne 3b",
        "b 5f",
        "4:",
        two!("ldm r0!, {{r8-r11}}"),
        two!("ldrd r8, r9, [r0], #8\n add r0, r14\n ldrd r10, r11, [r0], #8"),
        two!("ldm r0!, {{r8-r11}}\n add r0, r14"),
        two!("ldm r0!, {{r8-r11}}"),
        "ldrd r8, r9, [r0]",
        "ldr r2, [r1]",
        "mla r8, r8, r2, r12",
        "mla r9, r9, r2, r12",
        drain!(),
        "5:",
        "sub r4, r4, r5, lsl #16",
        "sub r6, r6, r7, lsl #16",
        "ldr r2, [sp, #48]",
        "cbnz r2, 6f",
        "bl {finish}",
        "ldr r3, [sp, #4]",
        "b 8f",
        "6:",
        relu!(),
        "8:",
        "ldr r4, [sp, #32]",
        "ldr r5, [sp, #56]",
        "add r4, r5",
        "str r4, [sp, #32]",
        "ldr r5, [sp, #64]",
        "add r3, r5",
        "str r3, [sp, #4]",
        "ldr r5, [sp, #84]",
        "subs r5, #1",
        "str r5, [sp, #84]",
        "bne.w 2b",
        "ldr r5, [sp, #60]",
        "add r4, r5",
        "str r4, [sp, #32]",
        "ldr r5, [sp, #52]",
        "subs r5, #1",
        "str r5, [sp, #52]",
        "bne.w 7b",
        "add sp, #92",
        "pop {{r4-r11, pc}}",
        finish = sym finish,
    )
}

/// One lane of [`finish`] for all bounds.
macro_rules! bounded {
    ($sum:literal, $lane:expr) => {
        concat!(
            "and r0, ",
            $sum,
            ", #0x80000000\n orr r0, r0, #0x40000000\n add r2, r8, ",
            $sum,
            ", asr #31\n",
            "smlal r0, r2, ",
            $sum,
            ", r9\n asr r2, r2, r10\n",
            "cmp r2, r11\n it lt\n movlt r2, r11\n cmp r2, r12\n it gt\n movgt r2, r12\n",
            $lane,
        )
    };
}

/// One lane of [`finish`] whose sum is shifted to the left by r8, and its product to the right by 1 if r10 is below 0.
macro_rules! shifted {
    ($sum:literal, $lane:expr) => {
        concat!(
            "lsl r0, ",
            $sum,
            ", r8\n smull r0, r2, r0, r9\n adds r0, r0, #0x40000000\n adc r2, r2, #0\n lsl r2, r2, #1\n orr r2, r2, r0, lsr #31\n",
            "cmp r10, #0\n ittt lt\n addlt r2, r2, r2, asr #31\n addlt r2, #1\n asrlt r2, r2, #1\n",
            "ldr r0, [sp, #36]\n add r2, r0\n",
            "cmp r2, r11\n it lt\n movlt r2, r11\n cmp r2, r12\n it gt\n movgt r2, r12\n",
            $lane,
        )
    };
}

/// One lane of [`finish`] by the definition.
macro_rules! defined {
    ($sum:literal, $lane:expr) => {
        concat!("mov r0, ", $sum, "\n bl 4f\n", $lane)
    };
}

/// The function `$name`, which stores by `$store`.
macro_rules! finish {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $store:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        $visibility unsafe extern "C" fn $name() {
            naked_asm!(
                "push {{r3, lr}}",
                "ldr r2, [sp, #8]",
                "ldm r2!, {{r8, r9, r10}}",
                "str r2, [sp, #8]",
                "ldr r3, [sp, #12]",
                "cmp r10, #23",
                "bhi 3f",
                "ldr r11, [sp, #28]",
                "ldr r12, [sp, #32]",
                bounded!("r4", concat!($store, " r2, [r3]")),
                bounded!("r5", concat!("ldr r0, [sp, #16]\n ", $store, " r2, [r3, r0]")),
                bounded!("r6", concat!("ldr r0, [sp, #20]\n ", $store, " r2, [r3, r0]")),
                bounded!("r7", concat!("ldr r0, [sp, #24]\n ", $store, " r2, [r3, r0]")),
                "pop {{r3, pc}}",
                // A channel that the closed form does not take: with a shift to the left, or of 0 or 1 to the right.
                "3:",
                "subs r10, #{odd}",
                "cmp r10, #-1",
                "blt 5f",
                "bic r8, r10, r10, asr #31",
                "ldr r11, [sp, #28]",
                "ldr r12, [sp, #32]",
                shifted!("r4", concat!($store, " r2, [r3]")),
                shifted!("r5", concat!("ldr r0, [sp, #16]\n ", $store, " r2, [r3, r0]")),
                shifted!("r6", concat!("ldr r0, [sp, #20]\n ", $store, " r2, [r3, r0]")),
                shifted!("r7", concat!("ldr r0, [sp, #24]\n ", $store, " r2, [r3, r0]")),
                "pop {{r3, pc}}",
                // Any other.
                "5:",
                "adds r10, #{odd}",
                "mov r11, r3",
                "mov r8, r1",
                defined!("r4", concat!($store, " r0, [r11]")),
                defined!("r5", concat!("ldr r1, [sp, #16]\n ", $store, " r0, [r11, r1]")),
                defined!("r6", concat!("ldr r1, [sp, #20]\n ", $store, " r0, [r11, r1]")),
                defined!("r7", concat!("ldr r1, [sp, #24]\n ", $store, " r0, [r11, r1]")),
                "mov r1, r8",
                "pop {{r3, pc}}",
                "4:",
                "mov r1, r9",
                "mov r2, r10",
                "add r3, sp, #8",
                "b.w {exact}",
                exact = sym exact,
                odd = const ODD,
            )
        }
    };
}

finish!(
    /// Requantises the sums of four lanes of a channel and stores them as bytes: `Integer::finish` of r4 to r7.
    ///
    /// Called with a frame at the stack pointer. Reads the second part of the channel's constants, to which the frame points, and lets the frame
    /// point behind them; writes four outputs; changes r0, r2 to r12, r14. Roles: r0, r2 product; r3 outputs; r8 upper word of the constant; r9
    /// multiplier; r10 shift; r11, r12 bounds.
    ///
    /// Closed form: `sum * multiplier + 2^30 + 2^(30 + e) - (sum < 0) * 2^31 + zero * 2^(31 + e)`, shifted by `31 + e`. Without the lower word,
    /// 2^30 for `e` from 2 on, the constant is a word.
    finish, "strb"
);
finish!(
    /// The same to 16 bits.
    finish_halves, "strh"
);

/// Brings four sources into pairs: `pairs[2 * k] = s0[k] + (s1[k] << 16)`, `pairs[2 * k + 1] = s2[k] + (s3[k] << 16)` for all elements `k` of
/// the extent's rows, with a gap in the pairs behind each row. Does not read `zero`.
///
/// Roles: r0 pairs; r1 to r4 sources; r5 offset in them; r6 step; r7 to r10 elements; r11 end; r12 extent; r14 rows left.
///
/// # Safety
/// Each source has the elements, the pairs have room for them.
#[unsafe(naked)]
pub unsafe extern "C" fn widen(pairs: *mut i32, sources: &[*const i8; 4], extent: &Extent, zero: i32) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "mov r12, r2",
        "ldm r1, {{r1-r4}}",
        "ldr r6, [r12, #8]",
        "ldr r14, [r12, #16]",
        "movs r5, #0",
        "3:",
        "ldr r11, [r12]",
        "cmp r11, #0",
        "beq 5f",
        "add r11, r5",
        "4:",
        ".rept 4",
        "ldrsb r7, [r1, r5]",
        "ldrsb r8, [r2, r5]",
        "ldrsb r9, [r3, r5]",
        "ldrsb r10, [r4, r5]",
        "add r7, r7, r8, lsl #16",
        "add r9, r9, r10, lsl #16",
        "strd r7, r9, [r0], #8",
        "add r5, r6",
        ".endr",
        "cmp r5, r11",
        "bne 4b",
        "5:",
        "ldr r11, [r12, #4]",
        "cmp r11, #0",
        "beq 7f",
        "add r11, r5",
        "6:",
        "ldrsb r7, [r1, r5]",
        "ldrsb r8, [r2, r5]",
        "ldrsb r9, [r3, r5]",
        "ldrsb r10, [r4, r5]",
        "add r7, r7, r8, lsl #16",
        "add r9, r9, r10, lsl #16",
        "strd r7, r9, [r0], #8",
        "add r5, r6",
        "cmp r5, r11",
        "bne 6b",
        "7:",
        "ldr r7, [r12, #12]",
        "add r0, r7",
        "ldr r7, [r12, #20]",
        "add r5, r7",
        "subs r14, #1",
        "bne 3b",
        "pop {{r4-r11, pc}}",
    )
}

/// Adds the products of some inputs to the sums of all outputs: of a block, `sums[0] = start[0] + (w0 + 128) * x`, `sums[1] = start[1] + w1 * x`,
/// `sums[2] = start[2] + (w2 + 128) * x`, `sums[3] = start[3] + w3 * x`.
///
/// A word of weights holds four outputs. Its outer bytes, and the outer ones of its halves exchanged, are each `u + (s << 24)` with `u` unsigned and
/// `s` signed; times inputs in 64 bits they sum up two outputs, and the lower sum fits 24 bits. Roles: r0 inputs; r1 weights; r2, r3 sums of outputs 0
/// and 3; r4, r5 of outputs 2 and 1; r6 to r9 inputs; r10, r11 weights; r12 two weights; r14 mask of outer bytes.
///
/// # Safety
/// There are sums and weights for all blocks; the inputs are a multiple of eight and at most [`DENSE_INPUTS`](crate::backend::spec::swar::DENSE_INPUTS).
#[unsafe(naked)]
pub unsafe extern "C" fn dense(operands: &Dense) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #28",
        // Stack: 0 sums, 4 weights, 8 jump, 12 inputs, 16 their end, 20 blocks, 24 start.
        "ldm r0, {{r1-r7}}",
        "stm sp, {{r1-r7}}",
        "mov r1, r2",
        "mov r14, #0xFF",
        "orr r14, r14, #0xFF000000",
        "2:",
        "ldr r0, [sp, #12]",
        "movs r2, #0",
        "movs r3, #0",
        "movs r4, #0",
        "movs r5, #0",
        "3:",
        ".rept 2",
        "ldm r0!, {{r6-r9}}",
        "ldm r1!, {{r10, r11}}",
        "and r12, r14, r10",
        "smlal r2, r3, r12, r6",
        "and r12, r14, r10, ror #16",
        "smlal r4, r5, r12, r6",
        "and r12, r14, r11",
        "smlal r2, r3, r12, r7",
        "and r12, r14, r11, ror #16",
        "smlal r4, r5, r12, r7",
        "ldm r1!, {{r10, r11}}",
        "and r12, r14, r10",
        "smlal r2, r3, r12, r8",
        "and r12, r14, r10, ror #16",
        "smlal r4, r5, r12, r8",
        "and r12, r14, r11",
        "smlal r2, r3, r12, r9",
        "and r12, r14, r11, ror #16",
        "smlal r4, r5, r12, r9",
        ".endr",
        "ldr r12, [sp, #16]",
        "cmp r0, r12",
        "bne 3b",
        // The lower sum is the signed one of 24 bits; what is left belongs to the upper.
        "sbfx r6, r2, #0, #24",
        "subs r2, r2, r6",
        "sbc r3, r3, r6, asr #31",
        "lsrs r2, r2, #24",
        "orr r2, r2, r3, lsl #8",
        "sbfx r7, r4, #0, #24",
        "subs r4, r4, r7",
        "sbc r5, r5, r7, asr #31",
        "lsrs r4, r4, #24",
        "orr r4, r4, r5, lsl #8",
        "ldr r0, [sp, #24]",
        "ldm r0!, {{r8-r11}}",
        "str r0, [sp, #24]",
        "ldr r0, [sp]",
        "add r8, r6",
        "add r9, r4",
        "add r10, r7",
        "add r11, r2",
        "stm r0!, {{r8-r11}}",
        "str r0, [sp]",
        "ldr r6, [sp, #8]",
        "add r1, r6",
        "ldr r6, [sp, #20]",
        "subs r6, #1",
        "str r6, [sp, #20]",
        "bne 2b",
        "add sp, #28",
        "pop {{r4-r11, pc}}",
    )
}

/// Inputs as words, `count` of them. Gives their sum.
///
/// Roles: r0 words; r1 inputs; r2 inputs left, less those of the loop ahead; r3 to r6 inputs; r12 sum.
///
/// # Safety
/// There are `count` inputs, and room for as many words.
#[unsafe(naked)]
pub unsafe extern "C" fn widen_row(words: *mut i32, inputs: *const i8, count: usize) -> i32 {
    naked_asm!(
        "push {{r4-r6, lr}}",
        "mov r12, #0",
        "subs r2, #4",
        "blo 3f",
        "2:",
        "ldrsb r3, [r1], #1",
        "ldrsb r4, [r1], #1",
        "ldrsb r5, [r1], #1",
        "ldrsb r6, [r1], #1",
        "stm r0!, {{r3-r6}}",
        "add r3, r4",
        "add r5, r6",
        "add r12, r3",
        "add r12, r5",
        "subs r2, #4",
        "bhs 2b",
        "3:",
        "adds r2, #4",
        "beq 5f",
        "4:",
        "ldrsb r3, [r1], #1",
        "str r3, [r0], #4",
        "add r12, r3",
        "subs r2, #1",
        "bne 4b",
        "5:",
        "mov r0, r12",
        "pop {{r4-r6, pc}}",
    )
}

/// Makes outputs, from channel `first` on, a multiple of four, of a dense layer's sums over inputs whose sum is `total`.
#[inline(never)]
pub fn finish_sums(
    linear: &Integer<'_>,
    first: usize,
    sums: &[i32],
    total: i32,
    output: &mut [i8],
) -> Option<()> {
    let offset = total.wrapping_shl(7);
    let mut channel = first;
    for (slot, &sum) in output.iter_mut().zip(sums) {
        let sum = if channel & 1 == 0 { sum.wrapping_sub(offset) } else { sum };
        *slot = linear.finish(channel, sum)? as i8;
        channel = channel.wrapping_add(1);
    }
    Some(())
}

/// `Integer::finish` for any sum: of a sum, the multiplier and shift of its channel, and a frame with zero point and bounds. The shift is that of a
/// channel's constants.
///
/// # Safety
/// `frame` is a frame.
pub unsafe extern "C" fn exact(sum: i32, multiplier: i32, code: i32, frame: *const Frame) -> i32 {
    // SAFETY: the caller's promise.
    let frame = unsafe { &*frame };
    let scaled = quant::requantize(sum, multiplier, code.wrapping_sub(ODD));
    scaled.wrapping_add(frame.zero).max(frame.low).min(frame.high)
}
