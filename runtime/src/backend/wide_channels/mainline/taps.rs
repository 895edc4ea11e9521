//! Sums of channels by multiplication with accumulation.

use super::super::Taps;
use ::core::arch::naked_asm;

/// A product of channel `$lane`: `$x` reads the input, which `$zero` frees from its zero point.
macro_rules! product {
    ($x:literal, $place:literal, $lane:literal, $sum:literal, $zero:literal) => {
        concat!(
            $x,
            " r6, [r0, #",
            $place,
            "]\n ldrsb r7, [r1, #",
            $lane,
            "]\n",
            $zero,
            "mla ",
            $sum,
            ", r6, r7, ",
            $sum,
            "\n"
        )
    };
}

/// The function `$name`, which reads inputs by `$x` at four places.
macro_rules! taps {
    ($(#[$doc:meta])* $name:ident, $x:literal, [$a:literal, $b:literal, $c:literal, $d:literal], $bytes:literal, $zero:literal) => {
        $(#[$doc])*
        ///
        /// `sums[c] = bias[c] + (x[c] - zero) * w[c]` over all taps, four channels at a time, the rest one by one. Roles: r0 inputs; r1 weights; r2 to r5 sums;
        /// r6 input; r7 weight; r8 taps left of a row; r9 bytes between inputs of taps; r10 between weights; r11 rows left; r12 zero point; r14 operands.
        ///
        /// # Safety
        /// The operands' pointers reach as far as their counts say, which are at least one.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(operands: &Taps) {
            naked_asm!(
                "push {{r4-r11, lr}}",
                // Stack: 0 channels left, 4 first channel, 8 sums, 12 bias.
                "sub sp, #20",
                "mov r14, r0",
                "ldrd r9, r10, [r14, #16]",
                "ldr r12, [r14, #40]",
                "movs r0, #0",
                "strd r10, r0, [sp]",
                "ldrd r0, r1, [r14, #32]",
                "strd r0, r1, [sp, #8]",
                // Channels.
                "1:",
                "ldr r6, [sp, #4]",
                "ldrd r0, r1, [r14]",
                "add r1, r6",
                concat!("mov r7, #", $bytes),
                "mla r0, r6, r7, r0",
                "ldr r6, [sp, #12]",
                "ldr r11, [r14, #8]",
                "ldr r7, [sp]",
                "cmp r7, #4",
                "blo 5f",
                "ldm r6!, {{r2-r5}}",
                "str r6, [sp, #12]",
                "2:",
                "ldr r8, [r14, #12]",
                "3:",
                product!($x, $a, "0", "r2", $zero),
                product!($x, $b, "1", "r3", $zero),
                product!($x, $c, "2", "r4", $zero),
                product!($x, $d, "3", "r5", $zero),
                "add r0, r9",
                "add r1, r10",
                "subs r8, #1",
                "bne 3b",
                "ldrd r6, r7, [r14, #24]",
                "add r0, r6",
                "add r1, r7",
                "subs r11, #1",
                "bne 2b",
                "ldr r6, [sp, #8]",
                "stm r6!, {{r2-r5}}",
                "str r6, [sp, #8]",
                "ldrd r0, r1, [sp]",
                "adds r1, #4",
                "subs r0, #4",
                "strd r0, r1, [sp]",
                "bne 1b",
                "b 8f",
                // One channel.
                "5:",
                "ldr r2, [r6], #4",
                "str r6, [sp, #12]",
                "6:",
                "ldr r8, [r14, #12]",
                "7:",
                product!($x, $a, "0", "r2", $zero),
                "add r0, r9",
                "add r1, r10",
                "subs r8, #1",
                "bne 7b",
                "ldrd r6, r7, [r14, #24]",
                "add r0, r6",
                "add r1, r7",
                "subs r11, #1",
                "bne 6b",
                "ldr r6, [sp, #8]",
                "str r2, [r6], #4",
                "str r6, [sp, #8]",
                "ldrd r0, r1, [sp]",
                "adds r1, #1",
                "subs r0, #1",
                "strd r0, r1, [sp]",
                "bne.w 1b",
                "8:",
                "add sp, #20",
                "pop {{r4-r11, pc}}",
            )
        }
    };
}

taps!(
    /// Sums up over inputs of 8 bits.
    taps_i8, "ldrsb", ["0", "1", "2", "3"], "1", "sub r6, r12\n"
);
taps!(
    /// Sums up over inputs of 16 bits, whose zero point is 0.
    taps_i16, "ldrsh", ["0", "2", "4", "6"], "2", ""
);
