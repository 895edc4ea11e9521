//! Layers from or to 16 bits: a word for each input.

use super::super::frame::{Extent, Frame, ODD, WideDense};
use super::exact;
use ::core::arch::naked_asm;

/// A channel's constants for [`wide`]: bias, nothing, multiplier, shift as [`exact`] has it.
pub fn wide_channel(bias: i32, [multiplier, shift, _]: [i32; 3]) -> [i32; 4] {
    [bias, 0, multiplier, ODD.wrapping_add(shift)]
}

/// One lane of [`wide`]: its sum becomes an output, for which `$place` leaves the address in r2.
macro_rules! wide_lane {
    ($sum:literal, $place:literal) => {
        concat!(
            "mov r0, ",
            $sum,
            "\n mov r1, r5\n mov r2, r6\n mov r3, sp\n bl {exact}\n",
            $place,
            "\n cmp r7, #1\n bne 6f\n strb r0, [r2]\n b 7f\n 6:\n strh r0, [r2]\n 7:\n",
        )
    };
}

/// Sums up all output channels over the words of four lanes: `sum of lane l = bias + w[k] * words[4 * k + l]` over all `k`, then [`exact`].
///
/// Reads the frame, the words, the weights output by output and the channels' constants; writes the outputs of four lanes. Roles in the loop: r0 to r3 a
/// word of each lane, then products; r4 weight; r5 words; r6 end of the output's weights, and r7 what is left of them, below 0; r8 to r11 sums.
///
/// # Safety
/// The frame's pointers reach as far as its counts say; there is a word of each lane, and an output.
#[unsafe(naked)]
pub unsafe extern "C" fn wide(frame: &Frame) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        // Stack: 0 to 48 the frame, 52 where the loop is entered, 56 weights of an output, below 0.
        "sub sp, #60",
        "mov r1, sp",
        "ldmia r0!, {{r2-r7}}",
        "stmia r1!, {{r2-r7}}",
        "ldmia r0!, {{r2-r7}}",
        "stmia r1!, {{r2-r7}}",
        "ldr r2, [r0]",
        "str r2, [r1]",
        // The loop takes four units at a time; the first time it starts at one of them.
        "ldr r0, [sp, #32]",
        "ldr r1, [sp, #36]",
        "subs r1, r1, r0",
        "lsrs r1, r1, #4",
        "rsbs r1, r1, #0",
        "str r1, [sp, #56]",
        "ldr r6, [sp, #40]",
        "subs r6, r6, r1",
        "str r6, [sp, #40]",
        "movs r2, #3",
        "ands r1, r2",
        "movs r2, #22",
        "muls r1, r2, r1",
        "adr r2, 3f",
        "adds r2, r2, r1",
        "str r2, [sp, #52]",
        "2:",
        "ldr r0, [sp, #0]",
        "ldr r0, [r0]",
        "mov r8, r0",
        "mov r9, r0",
        "mov r10, r0",
        "mov r11, r0",
        "ldr r5, [sp, #32]",
        "ldr r6, [sp, #40]",
        "ldr r7, [sp, #56]",
        "ldr r0, [sp, #52]",
        "mov pc, r0",
        ".p2align 2",
        "3:",
        ".rept 4",
        "ldmia r5!, {{r0-r3}}",
        "ldrsb r4, [r6, r7]",
        "muls r0, r4, r0",
        "add r8, r0",
        "muls r1, r4, r1",
        "add r9, r1",
        "muls r2, r4, r2",
        "add r10, r2",
        "muls r3, r4, r3",
        "add r11, r3",
        "adds r7, #1",
        ".endr",
        "bne 3b",
        "ldr r7, [sp, #56]",
        "subs r6, r6, r7",
        "str r6, [sp, #40]",
        "ldr r4, [sp, #0]",
        "ldr r5, [r4, #8]",
        "ldr r6, [r4, #12]",
        "adds r4, #16",
        "str r4, [sp, #0]",
        "ldr r4, [sp, #4]",
        "ldr r7, [sp, #48]",
        wide_lane!("r8", "mov r2, r4"),
        wide_lane!("r9", "ldr r2, [sp, #8]\n adds r2, r2, r4"),
        wide_lane!("r10", "ldr r2, [sp, #12]\n adds r2, r2, r4"),
        wide_lane!("r11", "ldr r2, [sp, #16]\n adds r2, r2, r4"),
        "adds r4, r4, r7",
        "str r4, [sp, #4]",
        "ldr r4, [sp, #44]",
        "subs r4, #1",
        "str r4, [sp, #44]",
        "beq 5f",
        "b 2b",
        "5:",
        "add sp, #60",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
        exact = sym exact,
    )
}

/// The function `$name`, which reads by `$load`.
macro_rules! spread {
    ($(#[$doc:meta])* $name:ident, $load:literal) => {
        $(#[$doc])*
        ///
        /// `words[4 * k + l] = s[l][k] - zero` for all elements `k` of the extent's rows. Roles: r0 words; r1 to r4 sources; r5 offset in them; r6 element; r7
        /// zero point; r8 step; r9 end; r10 rows left; r11 skip; r12 bytes of a row.
        ///
        /// # Safety
        /// Each source has the elements, the words have room for them; there is an element.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(words: *mut i32, sources: &[*const i8; 4], extent: &Extent, zero: i32) {
            naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "push {{r4-r7}}",
                "mov r7, r3",
                "ldmia r2!, {{r3-r6}}",
                "adds r3, r3, r4",
                "mov r12, r3",
                "mov r8, r5",
                "ldr r3, [r2]",
                "mov r10, r3",
                "ldr r3, [r2, #4]",
                "mov r11, r3",
                "ldmia r1!, {{r2-r5}}",
                "mov r1, r2",
                "mov r2, r3",
                "mov r3, r4",
                "mov r4, r5",
                "movs r5, #0",
                "2:",
                "mov r9, r5",
                "add r9, r12",
                "3:",
                concat!($load, " r6, [r1, r5]"),
                "subs r6, r6, r7",
                "str r6, [r0]",
                concat!($load, " r6, [r2, r5]"),
                "subs r6, r6, r7",
                "str r6, [r0, #4]",
                concat!($load, " r6, [r3, r5]"),
                "subs r6, r6, r7",
                "str r6, [r0, #8]",
                concat!($load, " r6, [r4, r5]"),
                "subs r6, r6, r7",
                "str r6, [r0, #12]",
                "adds r0, #16",
                "add r5, r8",
                "cmp r5, r9",
                "bne 3b",
                "add r5, r11",
                "mov r6, r10",
                "subs r6, #1",
                "mov r10, r6",
                "bne 2b",
                "pop {{r4-r7}}",
                "mov r8, r4",
                "mov r9, r5",
                "mov r10, r6",
                "mov r11, r7",
                "pop {{r4-r7, pc}}",
            )
        }
    };
}

spread!(
    /// Brings four sources of 8 bits into words.
    spread_i8, "ldrsb"
);
spread!(
    /// Brings four sources of 16 bits into words.
    spread_i16, "ldrsh"
);

/// The product of input `$x` with the weight at `$place`.
macro_rules! wide_one {
    ($x:literal, $place:literal) => {
        concat!("ldrb r4, [r5, #", $place, "]\n sxtb r4, r4\n muls r4, ", $x, ", r4\n adds r7, r7, r4\n")
    };
}

/// Adds the products of some inputs to the sums of four outputs a block: `sums[o] += w[o * stride + k] * inputs[k]` over all `k`.
///
/// Roles: r0 to r3 inputs, of which r0 first is their place; r4 weight, product; r5 weights; r6 inputs; r7 sum; r8 sums; r9 inputs; r10 end
/// of those that are taken in fours; r11 end; r12 outputs left; r14 bytes from an output's last weight to the next one's first.
///
/// # Safety
/// There are sums and weights for all blocks; there is an input and a block.
#[unsafe(naked)]
pub unsafe extern "C" fn wide_dense(operands: &WideDense) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "ldmia r0!, {{r1-r6}}",
        "mov r8, r1",
        "mov r9, r4",
        "mov r11, r5",
        "lsls r6, r6, #2",
        "mov r12, r6",
        "subs r7, r5, r4",
        "lsrs r6, r7, #4",
        "lsls r6, r6, #4",
        "adds r6, r6, r4",
        "mov r10, r6",
        "lsrs r7, r7, #2",
        "subs r3, r3, r7",
        "mov lr, r3",
        "mov r5, r2",
        "2:",
        "mov r4, r8",
        "ldr r7, [r4]",
        "mov r6, r9",
        "cmp r6, r10",
        "beq 4f",
        "3:",
        "ldmia r6!, {{r0-r3}}",
        wide_one!("r0", "0"),
        wide_one!("r1", "1"),
        wide_one!("r2", "2"),
        wide_one!("r3", "3"),
        "adds r5, #4",
        "cmp r6, r10",
        "bne 3b",
        "4:",
        "cmp r6, r11",
        "beq 5f",
        "ldmia r6!, {{r0}}",
        wide_one!("r0", "0"),
        "adds r5, #1",
        "b 4b",
        "5:",
        "mov r4, r8",
        "stmia r4!, {{r7}}",
        "mov r8, r4",
        "add r5, lr",
        "mov r4, r12",
        "subs r4, #1",
        "mov r12, r4",
        "bne 2b",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
