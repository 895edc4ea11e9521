//! Armv7-M and later: multiplication with accumulation, of 32 and of 64 bits.

use super::Finish;
use ::core::arch::naked_asm;
#[cfg(tucano_profile = "v7m")]
pub use taps::{taps_i8, taps_i16};

#[cfg(tucano_profile = "v7m")]
mod taps;

/// Makes the outputs of sums: `Integer::finish` of each, by its definition.
///
/// A shift to the left comes before the product, which is rounded to its upper half, halves upwards; one to the right by `e` after it, halves away from
/// zero: `(p + (p >> 31) >> e - 1) + 1 >> 1`. Roles: r0 sum, lower word; r1 upper word; r2 multiplier; r3 shift; r4 sums; r5 their end; r6 multipliers; r7 shifts;
/// r8 outputs; r9, r10 bounds; r11 zero point; r12 bytes of an output.
///
/// # Safety
/// The operands' pointers reach as far as the sums, of which there is one at least.
#[unsafe(naked)]
pub unsafe extern "C" fn finish(operands: &Finish) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldm r0!, {{r4-r7}}",
        "ldr r8, [r0]",
        "ldr r12, [r0, #4]",
        "ldrd r9, r10, [r0, #8]",
        "ldr r11, [r0, #16]",
        "1:",
        "ldr r0, [r4], #4",
        "ldr r2, [r6], #4",
        "ldr r3, [r7], #4",
        "cmp r3, #0",
        "itt gt",
        "lslgt r0, r0, r3",
        "movgt r3, #0",
        "smull r0, r1, r0, r2",
        "adds r0, r0, #0x40000000",
        "adc r1, r1, #0",
        "lsls r1, r1, #1",
        "orr r1, r1, r0, lsr #31",
        "mvns r3, r3",
        "bmi 2f",
        "add r1, r1, r1, asr #31",
        "asrs r1, r3",
        "adds r1, #1",
        "asrs r1, r1, #1",
        "2:",
        "add r1, r11",
        "cmp r1, r9",
        "it lt",
        "movlt r1, r9",
        "cmp r1, r10",
        "it gt",
        "movgt r1, r10",
        "cmp r12, #1",
        "bne 3f",
        "strb r1, [r8], #1",
        "cmp r4, r5",
        "bne 1b",
        "pop {{r4-r11, pc}}",
        "3:",
        "strh r1, [r8], #2",
        "cmp r4, r5",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}
