//! Armv6-M: no multiplication of more than 32 bits, and most operations on r0 to r7 alone.

mod dense;
mod wide;

use super::frame::{Extent, Frame, ODD, Plane};
pub use crate::backend::spec::v6m::CORE;
use crate::ops::linear::Integer;
use ::core::arch::naked_asm;
use ::core::ops::RangeInclusive;
pub use dense::{dense, finish_sums, widen_row};
pub use wide::{spread_i8, spread_i16, wide, wide_channel, wide_dense};

/// Words of an output channel's constants.
pub const CHANNEL_WORDS: usize = CORE.channel_bytes / 4;
/// Right shifts of channels that the closed form takes.
pub const EXPONENTS: RangeInclusive<i32> = 1..=12;

/// A channel's constants: sums of lanes 0 and 1, sum of lane 1, sums of lanes 2 and 3 before anything is added; then constant, shift and the
/// multiplier's 11, 10 and 10 bits. `code` replaces the shift of a channel that the closed form does not take.
pub fn channel(
    bias: i32,
    both: i32,
    rounded: i32,
    [multiplier, shift, zero]: [i32; 3],
    code: Option<i32>,
) -> [i32; CHANNEL_WORDS] {
    let right = 10i32.wrapping_sub(shift);
    let constant = (1i32 << 9)
        .wrapping_add(1i32.wrapping_shl(right.wrapping_sub(1) as u32))
        .wrapping_add(zero.wrapping_shl(right as u32));
    [
        both,
        bias,
        rounded,
        constant,
        code.unwrap_or(right),
        multiplier & 0x7FF,
        multiplier >> 11 & 0x3FF,
        multiplier >> 21,
    ]
}

/// The output of negative sums where that is one value, else more than 16 bits.
pub fn bounding(linear: &Integer<'_>) -> i32 {
    if linear.low >= linear.output_zero { linear.low } else { 1 << 16 }
}

/// Moves the halves of r0 and r1 to the sums.
macro_rules! drain {
    () => {
        "add r8, r0\n asrs r0, r0, #16\n adcs r7, r0\n add r1, r11\n add r9, r1\n asrs r1, r1, #16\n add r10, r1"
    };
}

/// Sums up all output channels over the pairs of four lanes.
///
/// For each output channel and each two positions, with a word `X` of lanes 0 and 1 and one of lanes 2 and 3: `t = w0 * X0 + w1 * X1`; the
/// word's sum takes `t`, and the high lane's sum takes what `t` holds above a lower half rounded away. In the end the low lane's sum is the
/// word's without the high lane's. Lanes 2 and 3 round by adding half before the shift, lanes 0 and 1 by the carry of the shift.
///
/// Reads the frame, the pairs, the weights in blocks of eight outputs and the channels' constants; writes the outputs of four lanes. Roles in the
/// loop: r0 to r3 words of pairs, then products; r4 weight; r5 pairs; r6 weights behind r5; r7 sum of lane 1; r8 sum of lanes 0 and 1; r9 of
/// lanes 2 and 3; r10 of lane 3; r11 2^15; r12 end of the pairs.
///
/// # Safety
/// The frame's pointers reach as far as its counts say; the pairs are an even number of positions, at least two.
#[unsafe(naked)]
pub unsafe extern "C" fn columns(frame: &Frame) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        // Stack: 0 to 48 the frame, 52 not used, 56 outputs left in the block, 60 where the loop is entered, 64 2^15.
        "sub sp, #68",
        "mov r1, sp",
        "ldmia r0!, {{r2-r7}}",
        "stmia r1!, {{r2-r7}}",
        "ldmia r0!, {{r2-r7}}",
        "stmia r1!, {{r2-r7}}",
        "ldr r2, [r0]",
        "str r2, [r1]",
        // The loop takes seven units at a time; the first time it starts at one of them.
        "ldr r0, [sp, #32]",
        "ldr r1, [sp, #36]",
        "subs r1, r1, r0",
        "lsrs r1, r1, #4",
        "4:",
        "subs r1, #7",
        "bgt 4b",
        "rsbs r1, r1, #0",
        "movs r2, #34",
        "muls r1, r2, r1",
        "adr r2, 3f",
        "adds r2, r2, r1",
        "str r2, [sp, #60]",
        "movs r2, #128",
        "lsls r2, r2, #8",
        "str r2, [sp, #64]",
        // A weight is read after its word of pairs.
        "ldr r6, [sp, #40]",
        "subs r6, r6, r0",
        "subs r6, #8",
        "str r6, [sp, #40]",
        // Blocks of eight outputs.
        "2:",
        "ldr r4, [sp, #44]",
        "movs r5, #8",
        "cmp r4, r5",
        "bhs 5f",
        "mov r5, r4",
        "5:",
        "subs r4, r4, r5",
        "str r4, [sp, #44]",
        "str r5, [sp, #56]",
        // Outputs.
        "6:",
        "ldr r5, [sp, #0]",
        "ldmia r5!, {{r0, r1, r2}}",
        "str r5, [sp, #0]",
        "mov r8, r0",
        "mov r7, r1",
        "mov r10, r1",
        "mov r9, r2",
        "ldr r4, [sp, #36]",
        "mov r12, r4",
        "ldr r4, [sp, #64]",
        "mov r11, r4",
        "ldr r5, [sp, #32]",
        "ldr r4, [sp, #60]",
        "mov pc, r4",
        ".p2align 2",
        "3:",
        ".rept 7",
        "ldmia r5!, {{r0, r1}}",
        "ldrsb r4, [r5, r6]",
        "muls r0, r4, r0",
        "muls r1, r4, r1",
        "ldmia r5!, {{r2, r3}}",
        "ldrsb r4, [r5, r6]",
        "muls r2, r4, r2",
        "muls r3, r4, r3",
        "adds r0, r0, r2",
        "adds r1, r1, r3",
        drain!(),
        ".endr",
        "cmp r5, r12",
        "bne 3b",
        "mov r0, r8",
        "lsls r1, r7, #16",
        "subs r0, r0, r1",
        "mov r8, r7",
        "mov r1, r9",
        "mov r2, r10",
        "lsls r3, r2, #16",
        "subs r1, r1, r3",
        "mov r9, r1",
        "bl {finish}",
        "ldr r4, [sp, #4]",
        "adds r4, #1",
        "str r4, [sp, #4]",
        "ldr r6, [sp, #40]",
        "adds r6, #1",
        "str r6, [sp, #40]",
        "ldr r4, [sp, #56]",
        "subs r4, #1",
        "str r4, [sp, #56]",
        "beq 5f",
        "b 6b",
        "5:",
        // Eight bytes further are the weights of the next position.
        "ldr r4, [sp, #36]",
        "ldr r5, [sp, #32]",
        "subs r4, r4, r5",
        "subs r4, #8",
        "adds r6, r6, r4",
        "str r6, [sp, #40]",
        "ldr r4, [sp, #44]",
        "cmp r4, #0",
        "beq 5f",
        "b 2b",
        "5:",
        "add sp, #68",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
        finish = sym finish,
    )
}

/// Two taps of 3x3: `$between` moves to the next row of the window.
macro_rules! two {
    ($between:literal, $behind:literal) => {
        concat!(
            "ldmia r5!, {{r0, r1}}\n ldmia r6!, {{r4}}\n muls r0, r4, r0\n muls r1, r4, r1\n",
            $between,
            "\n ldmia r5!, {{r2, r3}}\n ldmia r6!, {{r4}}\n muls r2, r4, r2\n muls r3, r4, r3\n",
            $behind,
            "\n adds r0, r0, r2\n adds r1, r1, r3\n",
            drain!(),
        )
    };
}

/// Slides a window over a plane: all taps of each window, for outputs of four lanes.
///
/// Sums up as [`columns`] does, with weights and places of pairs from a table; windows of 3x3 are straight code. Reads operands, table, plane and the
/// channel's constants; writes the outputs of four lanes. Roles: r0 to r3 place, words of pairs, then products; r4 weight; r5 window; r6 table; r7 sum
/// of lane 1; r8 sum of lanes 0 and 1; r9 of lanes 2 and 3; r10 of lane 3; r11 2^15; r12 end of the table, or bytes between rows.
///
/// # Safety
/// All taps of all windows lie in the plane, the table holds what the operands say, at least two taps, and outputs have room; there is a row and a window.
#[unsafe(naked)]
pub unsafe extern "C" fn plane(operands: &Plane) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        // Stack: 0 to 76 the operands, 80 the channel's constants, 84 windows left in the row, 88 2^15, 92 code of a window.
        "sub sp, #100",
        "mov r1, sp",
        ".rept 3",
        "ldmia r0!, {{r2-r7}}",
        "stmia r1!, {{r2-r7}}",
        ".endr",
        "ldmia r0!, {{r2, r3}}",
        "stmia r1!, {{r2, r3}}",
        "ldr r2, [sp, #0]",
        "str r2, [sp, #80]",
        "movs r2, #128",
        "lsls r2, r2, #8",
        "str r2, [sp, #88]",
        "adr r2, 3f",
        "cmp r3, #0",
        "beq 2f",
        "adr r2, 4f",
        "2:",
        "str r2, [sp, #92]",
        "7:",
        "ldr r4, [sp, #44]",
        "str r4, [sp, #84]",
        "6:",
        "ldr r5, [sp, #80]",
        "ldmia r5!, {{r0, r1, r2}}",
        "str r5, [sp, #0]",
        "mov r8, r0",
        "mov r7, r1",
        "mov r10, r1",
        "mov r9, r2",
        "ldr r4, [sp, #88]",
        "mov r11, r4",
        "ldr r4, [sp, #72]",
        "mov r12, r4",
        "ldr r5, [sp, #32]",
        "ldr r6, [sp, #68]",
        "ldr r4, [sp, #92]",
        "mov pc, r4",
        ".p2align 2",
        "3:",
        "ldmia r6!, {{r1, r4}}",
        "adds r1, r1, r5",
        "ldm r1, {{r0, r1}}",
        "muls r0, r4, r0",
        "muls r1, r4, r1",
        "ldmia r6!, {{r3, r4}}",
        "adds r3, r3, r5",
        "ldm r3, {{r2, r3}}",
        "muls r2, r4, r2",
        "muls r3, r4, r3",
        "adds r0, r0, r2",
        "adds r1, r1, r3",
        drain!(),
        "cmp r6, r12",
        "bne 3b",
        "b 5f",
        ".p2align 2",
        "4:",
        two!("", ""),
        two!("add r5, r12", ""),
        two!("", "add r5, r12"),
        two!("", ""),
        "ldmia r5!, {{r0, r1}}",
        "ldmia r6!, {{r4}}",
        "muls r0, r4, r0",
        "muls r1, r4, r1",
        drain!(),
        "5:",
        "mov r0, r8",
        "lsls r1, r7, #16",
        "subs r0, r0, r1",
        "mov r8, r7",
        "mov r1, r9",
        "mov r2, r10",
        "lsls r3, r2, #16",
        "subs r1, r1, r3",
        "mov r9, r1",
        "bl {finish}",
        "ldr r4, [sp, #32]",
        "ldr r5, [sp, #56]",
        "adds r4, r4, r5",
        "str r4, [sp, #32]",
        "ldr r6, [sp, #4]",
        "ldr r5, [sp, #64]",
        "adds r6, r6, r5",
        "str r6, [sp, #4]",
        "ldr r5, [sp, #84]",
        "subs r5, #1",
        "str r5, [sp, #84]",
        "beq 2f",
        "b 6b",
        "2:",
        "ldr r5, [sp, #60]",
        "adds r4, r4, r5",
        "str r4, [sp, #32]",
        "ldr r5, [sp, #52]",
        "subs r5, #1",
        "str r5, [sp, #52]",
        "beq 2f",
        "b 7b",
        "2:",
        "add sp, #100",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
        finish = sym finish,
    )
}

/// One lane of [`finish`]: the sum in r0 becomes an output and is stored. Labels 1N, 2N and 3N: where the short form does not hold, where the
/// output is above the greatest, where both come back.
macro_rules! lane {
    ($lane:literal, $store:literal) => {
        concat!(
            "lsrs r1, r0, #20\n bne 1",
            $lane,
            "f\n",
            "mov r1, r0\n muls r1, r4, r1\n lsrs r1, r1, #11\n",
            "mov r2, r0\n muls r2, r5, r2\n adds r1, r1, r2\n lsrs r1, r1, #10\n",
            "muls r0, r6, r0\n adds r0, r0, r1\n add r0, r12\n asrs r0, r0, r3\n",
            "cmp r0, r11\n bgt 2",
            $lane,
            "f\n 3",
            $lane,
            ":\n",
            $store,
        )
    };
}

/// What lies off the straight line of a lane: a negative sum that is one value, whatever else has no short form, an output above the greatest.
macro_rules! aside {
    ($lane:literal) => {
        concat!(
            "1",
            $lane,
            ": cmp r0, #0\n bge 4",
            $lane,
            "f\n",
            "ldr r1, [sp, #48]\n asrs r2, r1, #16\n bgt 4",
            $lane,
            "f\n mov r0, r1\n b 3",
            $lane,
            "b\n",
            "4",
            $lane,
            ": mov r1, lr\n push {{r1, r3}}\n bl 5f\n pop {{r1, r3}}\n mov lr, r1\n b 3",
            $lane,
            "b\n 2",
            $lane,
            ": mov r0, r11\n b 3",
            $lane,
            "b",
        )
    };
}

/// Requantises the sums of four lanes of a channel and stores them: `Integer::finish` of r0, r8, r9 and r10.
///
/// Called with a frame at the stack pointer. Reads the second part of the channel's constants, to which the frame points, and lets the frame
/// point behind them; writes four outputs; changes r0 to r12. Roles: r0 sum; r1, r2 products; r3 shift; r4 to r6 multiplier in parts;
/// r7 outputs; r11 greatest output; r12 constant.
///
/// Short form, for sums from 0 to 2^20 - 1: the parts of the multiplier give `floor(sum * multiplier / 2^21)`, and a constant with both rounding terms
/// and the zero point, all multiples of 2^21, leaves one shift. A negative sum gives the least output where that is not below the zero
/// point; else, from -2^20 on, the same form with the rounding term of negative sums holds. All others go to [`exact`].
#[unsafe(naked)]
unsafe extern "C" fn finish() {
    naked_asm!(
        "ldr r1, [sp, #0]",
        "ldmia r1!, {{r2-r6}}",
        "str r1, [sp, #0]",
        "mov r12, r2",
        "ldr r2, [sp, #24]",
        "mov r11, r2",
        "ldr r7, [sp, #4]",
        "cmp r3, #22",
        "bhi 4f",
        lane!("0", "strb r0, [r7]"),
        "mov r0, r8",
        lane!("1", "ldr r1, [sp, #8]\n strb r0, [r7, r1]"),
        "mov r0, r9",
        lane!("2", "ldr r1, [sp, #12]\n strb r0, [r7, r1]"),
        "mov r0, r10",
        lane!("3", "ldr r1, [sp, #16]\n strb r0, [r7, r1]"),
        "bx lr",
        // A channel that the closed form does not take.
        "4:",
        "mov r1, lr",
        "push {{r1, r3}}",
        "bl 6f",
        "strb r0, [r7]",
        "mov r0, r8",
        "bl 6f",
        "ldr r1, [sp, #16]",
        "strb r0, [r7, r1]",
        "mov r0, r9",
        "bl 6f",
        "ldr r1, [sp, #20]",
        "strb r0, [r7, r1]",
        "mov r0, r10",
        "bl 6f",
        "ldr r1, [sp, #24]",
        "strb r0, [r7, r1]",
        "pop {{r1, r3}}",
        "bx r1",
        aside!("0"),
        aside!("1"),
        aside!("2"),
        aside!("3"),
        // Negative, or 2^20 and more.
        "5:",
        "asrs r2, r0, #20",
        "adds r2, #1",
        "bne 6f",
        "mov r1, r0",
        "muls r1, r4, r1",
        "asrs r1, r1, #11",
        "mov r2, r0",
        "muls r2, r5, r2",
        "adds r1, r1, r2",
        "asrs r1, r1, #10",
        "muls r0, r6, r0",
        "adds r0, r0, r1",
        "add r0, r12",
        "movs r1, #1",
        "lsls r1, r1, #10",
        "subs r0, r0, r1",
        "asrs r0, r0, r3",
        "ldr r1, [sp, #28]",
        "cmp r0, r1",
        "bge 7f",
        "mov r0, r1",
        "7:",
        "cmp r0, r11",
        "ble 8f",
        "mov r0, r11",
        "8:",
        "bx lr",
        // By the definition.
        "6:",
        "push {{r3, lr}}",
        "mov r2, r3",
        "lsls r1, r5, #11",
        "adds r1, r1, r4",
        "lsls r3, r6, #21",
        "adds r1, r1, r3",
        "add r3, sp, #16",
        "bl {exact}",
        "pop {{r3, pc}}",
        exact = sym exact,
    )
}

/// Brings four sources into pairs: `pairs[2 * k] = s0[k] + (s1[k] << 16)`, `pairs[2 * k + 1] = s2[k] + (s3[k] << 16)` for all elements `k` of
/// the extent's rows, with a gap in the pairs behind each row. Does not read `zero`.
///
/// Runs once for each word of pairs. Roles: r0 pairs; r1, r2 sources; r3 offset in both; r4 step; r5, r6 elements; r7 end; r8 bytes in
/// fours; r9 bytes of the rest; r10 rows left; r12 gap; r14 skip.
///
/// # Safety
/// Each source has the elements, the pairs have room for them.
#[unsafe(naked)]
pub unsafe extern "C" fn widen(pairs: *mut i32, sources: &[*const i8; 4], extent: &Extent, zero: i32) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "push {{r4-r6}}",
        "ldmia r2!, {{r3-r7}}",
        "mov r8, r3",
        "mov r9, r4",
        "mov r12, r6",
        "ldr r2, [r2]",
        "mov lr, r2",
        "mov r4, r5",
        // Later: the second word's place, its sources, the number of rows.
        "adds r3, r0, #4",
        "ldr r5, [r1, #8]",
        "ldr r6, [r1, #12]",
        "push {{r3, r5, r6, r7}}",
        "ldr r2, [r1, #4]",
        "ldr r1, [r1]",
        "2:",
        "movs r3, #0",
        "mov r10, r7",
        "3:",
        "mov r7, r8",
        "cmp r7, #0",
        "beq 5f",
        "adds r7, r7, r3",
        "4:",
        ".irp place, 0, 8, 16, 24",
        "ldrsb r5, [r1, r3]",
        "ldrsb r6, [r2, r3]",
        "lsls r6, r6, #16",
        "adds r5, r5, r6",
        "str r5, [r0, #\\place]",
        "adds r3, r3, r4",
        ".endr",
        "adds r0, #32",
        "cmp r3, r7",
        "bne 4b",
        "5:",
        "mov r7, r9",
        "cmp r7, #0",
        "beq 7f",
        "adds r7, r7, r3",
        "6:",
        "ldrsb r5, [r1, r3]",
        "ldrsb r6, [r2, r3]",
        "lsls r6, r6, #16",
        "adds r5, r5, r6",
        "str r5, [r0]",
        "adds r0, #8",
        "adds r3, r3, r4",
        "cmp r3, r7",
        "bne 6b",
        "7:",
        "add r0, r12",
        "add r3, lr",
        "mov r7, r10",
        "subs r7, #1",
        "mov r10, r7",
        "bne 3b",
        // The second time the word's place is marked as done.
        "pop {{r3, r5, r6, r7}}",
        "cmp r3, #0",
        "beq 8f",
        "mov r0, r3",
        "mov r1, r5",
        "mov r2, r6",
        "movs r3, #0",
        "push {{r3, r5, r6, r7}}",
        "b 2b",
        "8:",
        "pop {{r4-r6}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "pop {{r4-r7, pc}}",
    )
}

/// `Integer::finish` for any sum: of a sum, the multiplier and shift of its channel, and a frame with zero point and bounds. The shift is that of a
/// channel's constants. Keeps all registers but r0 to r3.
///
/// `sum * multiplier` from products of halves `(a1, a0)` and `(b1, b0)`: with `t = a0 * b1 + (a0 * b0 >> 16)`, the product shifted by 31 to the
/// nearest is `2 * (a1 * b1 + (t >> 16)) + ((t & 0xFFFF) + a1 * b0 + 2^14 >> 15)`. None of these leaves 32 bits, for `b1` has 15.
///
/// # Safety
/// `frame` is a frame.
#[unsafe(naked)]
pub unsafe extern "C" fn exact(sum: i32, multiplier: i32, code: i32, frame: *const Frame) -> i32 {
    naked_asm!(
        "push {{r4-r6, lr}}",
        // The definition's shift: to the left if positive.
        "cmp r2, #64",
        "bge 2f",
        "movs r4, #10",
        "subs r2, r4, r2",
        "b 3f",
        "2:",
        "subs r2, #{odd}",
        "3:",
        "cmp r2, #0",
        "ble 4f",
        "lsls r0, r0, r2",
        "movs r2, #0",
        "4:",
        "rsbs r2, r2, #0",
        "uxth r4, r0",
        "asrs r0, r0, #16",
        "uxth r5, r1",
        "lsrs r1, r1, #16",
        "mov r6, r4",
        "muls r6, r5, r6",
        "muls r4, r1, r4",
        "muls r5, r0, r5",
        "muls r0, r1, r0",
        "lsrs r6, r6, #16",
        "adds r6, r6, r4",
        "lsrs r4, r6, #16",
        "adds r0, r0, r4",
        "lsls r0, r0, #1",
        "uxth r6, r6",
        "adds r6, r6, r5",
        "movs r4, #1",
        "lsls r4, r4, #14",
        "adds r6, r6, r4",
        "asrs r6, r6, #15",
        "adds r0, r0, r6",
        // To the right, halves away from zero.
        "subs r2, #1",
        "bmi 5f",
        "asrs r4, r0, #31",
        "adds r0, r0, r4",
        "asrs r0, r0, r2",
        "adds r0, #1",
        "asrs r0, r0, #1",
        "5:",
        "ldr r4, [r3, #28]",
        "adds r0, r0, r4",
        "ldr r4, [r3, #20]",
        "cmp r0, r4",
        "bge 6f",
        "mov r0, r4",
        "6:",
        "ldr r4, [r3, #24]",
        "cmp r0, r4",
        "ble 7f",
        "mov r0, r4",
        "7:",
        "pop {{r4-r6, pc}}",
        odd = const ODD,
    )
}
