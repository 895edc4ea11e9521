//! Armv7E-M, and Armv8-M with the DSP extension: two bytes to 16 bits at once, and products of halves.

use super::Taps;
pub use super::mainline::finish;
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use ::core::arch::naked_asm;

/// Products of four channels: inputs 0 and 2 in r11 and 1 and 3 in r6, weights alike in r14 and r7.
macro_rules! four_i8 {
    () => {
        concat!(
            "ldr r6, [r0]\n ldr r7, [r1]\n sxtab16 r11, r12, r6\n sxtab16 r6, r12, r6, ror #8\n sxtb16 r14, r7\n sxtb16 r7, r7, ror #8\n",
            "smlabb r2, r11, r14, r2\n smlabb r3, r6, r7, r3\n smlatt r4, r11, r14, r4\n smlatt r5, r6, r7, r5\n",
        )
    };
}

/// Products of four channels: inputs 0 and 1 in r6 and 2 and 3 in r11, weights 0 and 2 in r14 and 1 and 3 in r7.
macro_rules! four_i16 {
    () => {
        concat!(
            "ldr r6, [r0]\n ldr r11, [r0, #4]\n ldr r7, [r1]\n sxtb16 r14, r7\n sxtb16 r7, r7, ror #8\n",
            "smlabb r2, r6, r14, r2\n smlatb r3, r6, r7, r3\n smlabt r4, r11, r14, r4\n smlatt r5, r11, r7, r5\n",
        )
    };
}

/// The function `$name`: `$four` adds the products of four channels, `$one` those of one.
macro_rules! taps {
    ($(#[$doc:meta])* $name:ident, $four:ident, $bytes:literal, $one:literal) => {
        $(#[$doc])*
        ///
        /// `sums[c] = bias[c] + (x[c] - zero) * w[c]` over all taps, four channels at a time, the rest one by one. Roles: r0 inputs; r1 weights; r2 to r5 sums;
        /// r6, r7, r11, r14 inputs and weights; r8 taps left of a row; r9 bytes between inputs of taps; r10 between weights; r12 in both halves the negative
        /// zero point.
        ///
        /// # Safety
        /// The operands' pointers reach as far as their counts say, which are at least one.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(operands: &Taps) {
            naked_asm!(
                dsp_on!(),
                "push {{r4-r11, lr}}",
                // Stack: 0 channels left, 4 first channel, 8 sums, 12 bias, 16 operands, 20 rows left.
                "sub sp, #28",
                "mov r14, r0",
                "str r0, [sp, #16]",
                "ldrd r9, r10, [r14, #16]",
                "ldr r12, [r14, #40]",
                "rsb r12, r12, #0",
                "pkhbt r12, r12, r12, lsl #16",
                "movs r0, #0",
                "strd r10, r0, [sp]",
                "ldrd r0, r1, [r14, #32]",
                "strd r0, r1, [sp, #8]",
                // Channels.
                "1:",
                "ldr r14, [sp, #16]",
                "ldr r6, [sp, #4]",
                "ldrd r0, r1, [r14]",
                "add r1, r6",
                concat!("mov r7, #", $bytes),
                "mla r0, r6, r7, r0",
                "ldr r6, [sp, #12]",
                "ldr r11, [r14, #8]",
                "str r11, [sp, #20]",
                "ldr r8, [r14, #12]",
                "ldr r7, [sp]",
                "cmp r7, #4",
                "blo 5f",
                "ldm r6!, {{r2-r5}}",
                "str r6, [sp, #12]",
                "3:",
                $four!(),
                "add r0, r9",
                "add r1, r10",
                "subs r8, #1",
                "bne 3b",
                "ldr r14, [sp, #16]",
                "ldr r11, [sp, #20]",
                "ldr r8, [r14, #12]",
                "ldrd r6, r7, [r14, #24]",
                "add r0, r6",
                "add r1, r7",
                "subs r11, #1",
                "str r11, [sp, #20]",
                "bne 3b",
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
                "7:",
                $one,
                "ldrsb r7, [r1]",
                "mla r2, r6, r7, r2",
                "add r0, r9",
                "add r1, r10",
                "subs r8, #1",
                "bne 7b",
                "ldr r8, [r14, #12]",
                "ldrd r6, r7, [r14, #24]",
                "add r0, r6",
                "add r1, r7",
                "subs r11, #1",
                "bne 7b",
                "ldr r6, [sp, #8]",
                "str r2, [r6], #4",
                "str r6, [sp, #8]",
                "ldrd r0, r1, [sp]",
                "adds r1, #1",
                "subs r0, #1",
                "strd r0, r1, [sp]",
                "bne.w 1b",
                "8:",
                "add sp, #28",
                "pop {{r4-r11, pc}}",
                dsp_off!(),
            )
        }
    };
}

taps!(
    /// Sums up over inputs of 8 bits.
    taps_i8, four_i8, "1", "ldrsb r6, [r0]\n sxtah r6, r6, r12"
);
taps!(
    /// Sums up over inputs of 16 bits, whose zero point is 0.
    taps_i16, four_i16, "2", "ldrsh r6, [r0]"
);
