//! Armv6-M: no multiplication of more than 32 bits, and most operations on r0 to r7 alone.

use super::{Finish, Taps};
use ::core::arch::naked_asm;

/// A product of channel `$lane`: `$x` reads the input and extends its sign, `$zero` frees it from its zero point.
macro_rules! product {
    ($x:literal, $sign:literal, $place:literal, $lane:literal, $sum:literal, $zero:literal) => {
        concat!(
            $x,
            " r2, [r0, #",
            $place,
            "]\n",
            $sign,
            " r2, r2\n ldrb r3, [r1, #",
            $lane,
            "]\n sxtb r3, r3\n",
            $zero,
            "muls r2, r3, r2\n add ",
            $sum,
            ", r2\n"
        )
    };
}

/// The function `$name`, which reads inputs by `$x` at four places.
macro_rules! taps {
    ($(#[$doc:meta])* $name:ident, $x:literal, $sign:literal, [$a:literal, $b:literal, $c:literal, $d:literal], $log:literal, $zero:literal) => {
        $(#[$doc])*
        ///
        /// `sums[c] = bias[c] + (x[c] - zero) * w[c]` over all taps, four channels at a time, the rest one by one. Roles: r0 inputs; r1 weights; r2 input,
        /// product; r3 weight; r4 operands; r5 taps left of a row; r6 rows left; r7 zero point; r8 to r11 sums; r12 bytes between inputs of taps; r14 between
        /// weights.
        ///
        /// # Safety
        /// The operands' pointers reach as far as their counts say, which are at least one.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(operands: &Taps) {
            naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "push {{r4-r7}}",
                // Stack: 0 channels left, 4 first channel, 8 sums, 12 bias.
                "sub sp, #20",
                "mov r4, r0",
                "ldr r0, [r4, #16]",
                "mov r12, r0",
                "ldr r0, [r4, #20]",
                "mov lr, r0",
                "str r0, [sp]",
                "movs r0, #0",
                "str r0, [sp, #4]",
                "ldr r0, [r4, #32]",
                "str r0, [sp, #8]",
                "ldr r0, [r4, #36]",
                "str r0, [sp, #12]",
                "ldr r7, [r4, #40]",
                // Channels.
                "1:",
                "ldr r2, [sp, #4]",
                "ldr r0, [r4]",
                "ldr r1, [r4, #4]",
                "adds r1, r1, r2",
                concat!("lsls r2, r2, #", $log),
                "adds r0, r0, r2",
                "ldr r2, [sp, #12]",
                "ldr r6, [r4, #8]",
                "ldr r3, [sp]",
                "cmp r3, #4",
                "blo 5f",
                "ldmia r2!, {{r3, r5}}",
                "mov r8, r3",
                "mov r9, r5",
                "ldmia r2!, {{r3, r5}}",
                "mov r10, r3",
                "mov r11, r5",
                "str r2, [sp, #12]",
                "2:",
                "ldr r5, [r4, #12]",
                "3:",
                product!($x, $sign, $a, "0", "r8", $zero),
                product!($x, $sign, $b, "1", "r9", $zero),
                product!($x, $sign, $c, "2", "r10", $zero),
                product!($x, $sign, $d, "3", "r11", $zero),
                "add r0, r12",
                "add r1, lr",
                "subs r5, #1",
                "bne 3b",
                "ldr r2, [r4, #24]",
                "adds r0, r0, r2",
                "ldr r2, [r4, #28]",
                "adds r1, r1, r2",
                "subs r6, #1",
                "bne 2b",
                "ldr r2, [sp, #8]",
                "mov r3, r8",
                "mov r5, r9",
                "stmia r2!, {{r3, r5}}",
                "mov r3, r10",
                "mov r5, r11",
                "stmia r2!, {{r3, r5}}",
                "str r2, [sp, #8]",
                "ldr r2, [sp, #4]",
                "adds r2, #4",
                "str r2, [sp, #4]",
                "ldr r2, [sp]",
                "subs r2, #4",
                "str r2, [sp]",
                "bne 1b",
                "b 8f",
                // One channel.
                "5:",
                "ldmia r2!, {{r3}}",
                "mov r8, r3",
                "str r2, [sp, #12]",
                "6:",
                "ldr r5, [r4, #12]",
                "7:",
                product!($x, $sign, $a, "0", "r8", $zero),
                "add r0, r12",
                "add r1, lr",
                "subs r5, #1",
                "bne 7b",
                "ldr r2, [r4, #24]",
                "adds r0, r0, r2",
                "ldr r2, [r4, #28]",
                "adds r1, r1, r2",
                "subs r6, #1",
                "bne 6b",
                "ldr r2, [sp, #8]",
                "mov r3, r8",
                "stmia r2!, {{r3}}",
                "str r2, [sp, #8]",
                "ldr r2, [sp, #4]",
                "adds r2, #1",
                "str r2, [sp, #4]",
                "ldr r2, [sp]",
                "subs r2, #1",
                "str r2, [sp]",
                "beq 8f",
                "b 1b",
                "8:",
                "add sp, #20",
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

taps!(
    /// Sums up over inputs of 8 bits.
    taps_i8, "ldrb", "sxtb", ["0", "1", "2", "3"], "0", "subs r2, r2, r7\n"
);
taps!(
    /// Sums up over inputs of 16 bits, whose zero point is 0.
    taps_i16, "ldrh", "sxth", ["0", "2", "4", "6"], "1", ""
);

/// Makes the outputs of sums: `Integer::finish` of each, by its definition.
///
/// A shift to the left comes before the product, which is rounded to its upper half, halves upwards; one to the right by `e` after it, halves away from
/// zero: `(p + (p >> 31) >> e - 1) + 1 >> 1`. The product comes from halves `(a1, a0)` and `(b1, b0)`: with `t = a0 * b1 + (a0 * b0 >> 16)` it is
/// `2 * (a1 * b1 + (t >> 16)) + ((t & 0xFFFF) + a1 * b0 + 2^14 >> 15)`, where `b1` has 15 bits. Roles: r0 sum, product; r1 multiplier; r2 shift; r3 to r6 between;
/// r7 sums; r8 multipliers and r9 shifts behind r7; r10 outputs; r11 operands; r12 end of the sums.
///
/// # Safety
/// The operands' pointers reach as far as the sums, of which there is one at least.
#[unsafe(naked)]
pub unsafe extern "C" fn finish(operands: &Finish) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r11, r0",
        "ldmia r0!, {{r1-r5}}",
        "mov r7, r1",
        "mov r12, r2",
        "subs r3, r3, r1",
        "mov r8, r3",
        "subs r4, r4, r1",
        "mov r9, r4",
        "mov r10, r5",
        "1:",
        "mov r3, r8",
        "ldr r1, [r7, r3]",
        "mov r3, r9",
        "ldr r2, [r7, r3]",
        "ldmia r7!, {{r0}}",
        "cmp r2, #0",
        "ble 2f",
        "lsls r0, r0, r2",
        "movs r2, #0",
        "2:",
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
        "mvns r2, r2",
        "bmi 3f",
        "asrs r4, r0, #31",
        "adds r0, r0, r4",
        "asrs r0, r2",
        "adds r0, #1",
        "asrs r0, r0, #1",
        "3:",
        "mov r3, r11",
        "ldr r4, [r3, #32]",
        "adds r0, r0, r4",
        "ldr r4, [r3, #24]",
        "cmp r0, r4",
        "bge 4f",
        "mov r0, r4",
        "4:",
        "ldr r4, [r3, #28]",
        "cmp r0, r4",
        "ble 5f",
        "mov r0, r4",
        "5:",
        "ldr r4, [r3, #20]",
        "mov r5, r10",
        "cmp r4, #1",
        "bne 6f",
        "strb r0, [r5]",
        "b 7f",
        "6:",
        "strh r0, [r5]",
        "7:",
        "add r10, r4",
        "cmp r7, r12",
        "bne 1b",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}
