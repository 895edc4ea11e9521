//! Layers from or to 16 bits: a word for each input.

use super::super::frame::{Extent, Frame, ODD, WideDense};
use super::{EXPONENTS, channel, finish, finish_halves};
use ::core::arch::naked_asm;

/// A channel's constants for [`wide`]: bias, upper word of the constant, multiplier, shift, the last as [`channel`] has it.
pub fn wide_channel(bias: i32, constants: [i32; 3]) -> [i32; 4] {
    let [_, shift, _] = constants;
    let code = if EXPONENTS.contains(&shift.wrapping_neg()) { None } else { Some(ODD.wrapping_add(shift)) };
    let [_, _, _, _, constant, multiplier, shift] = channel(bias, 0, 0, constants, code);
    [bias, constant, multiplier, shift]
}

/// Sums up all output channels over the words of four lanes: `sum of lane l = bias + w[k] * words[4 * k + l]` over all `k`, then [`finish`].
///
/// Reads the frame, the words, the weights output by output and the channels' constants; writes the outputs of four lanes. Roles in the loop: r0 words;
/// r1 weights; r2 weight; r4 to r7 sums; r8 to r11 a word of each lane; r14 end of the words.
///
/// # Safety
/// The frame's pointers reach as far as its counts say; there is a word of each lane, and an output.
#[unsafe(naked)]
pub unsafe extern "C" fn wide(frame: &Frame) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        // Stack: 0 to 48 the frame, 52 where the loop is entered.
        "sub sp, #60",
        "mov r8, sp",
        "ldm r0!, {{r1-r7}}",
        "stm r8!, {{r1-r7}}",
        "ldm r0, {{r1-r6}}",
        "stm r8, {{r1-r6}}",
        // The loop takes sixteen units at a time; the first time it starts at one of them.
        "mov r1, r4",
        "subs r2, r3, r2",
        "lsrs r2, r2, #4",
        "rsbs r2, r2, #0",
        "and r2, r2, #15",
        "movs r0, #24",
        "adr r4, 3f",
        "mla r4, r2, r0, r4",
        "orr r4, r4, #1",
        "str r4, [sp, #52]",
        "2:",
        "ldr r3, [sp]",
        "ldr r4, [r3], #4",
        "str r3, [sp]",
        "mov r5, r4",
        "mov r6, r4",
        "mov r7, r4",
        "ldr r0, [sp, #32]",
        "ldr r14, [sp, #36]",
        "ldr pc, [sp, #52]",
        ".p2align 2",
        "3:",
        ".rept 16",
        "ldm.w r0!, {{r8-r11}}",
        "ldrsb r2, [r1], #1",
        "mla r4, r8, r2, r4",
        "mla r5, r9, r2, r5",
        "mla r6, r10, r2, r6",
        "mla r7, r11, r2, r7",
        ".endr",
        "cmp r0, r14",
        "bne.w 3b",
        "ldr r2, [sp, #48]",
        "cmp r2, #1",
        "bne 4f",
        "bl {finish}",
        "b 5f",
        "4:",
        "bl {finish_halves}",
        "5:",
        "ldr r3, [sp, #4]",
        "ldr r2, [sp, #48]",
        "add r3, r2",
        "str r3, [sp, #4]",
        "ldr r2, [sp, #44]",
        "subs r2, #1",
        "str r2, [sp, #44]",
        "bne.w 2b",
        "add sp, #60",
        "pop {{r4-r11, pc}}",
        finish = sym finish,
        finish_halves = sym finish_halves,
    )
}

/// The function `$name`, which reads by `$load`.
macro_rules! spread {
    ($(#[$doc:meta])* $name:ident, $load:literal) => {
        $(#[$doc])*
        ///
        /// `words[4 * k + l] = s[l][k] - zero` for all elements `k` of the extent's rows. Roles: r0 words; r1 to r4 sources; r5 offset in them; r6 step; r7 to
        /// r10 elements; r11 end; r12 zero point; r14 rows left.
        ///
        /// # Safety
        /// Each source has the elements, the words have room for them; there is an element.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(words: *mut i32, sources: &[*const i8; 4], extent: &Extent, zero: i32) {
            naked_asm!(
                "push {{r4-r11, lr}}",
                // Stack: 0 bytes of a row, 4 skip.
                "sub sp, #12",
                "mov r12, r3",
                "ldm r2!, {{r4, r5}}",
                "add r4, r5",
                "str r4, [sp]",
                "ldr r6, [r2]",
                "ldr r14, [r2, #8]",
                "ldr r4, [r2, #12]",
                "str r4, [sp, #4]",
                "ldm r1, {{r1-r4}}",
                "movs r5, #0",
                "2:",
                "ldr r11, [sp]",
                "add r11, r5",
                "3:",
                concat!($load, " r7, [r1, r5]"),
                concat!($load, " r8, [r2, r5]"),
                concat!($load, " r9, [r3, r5]"),
                concat!($load, " r10, [r4, r5]"),
                "sub r7, r12",
                "sub r8, r12",
                "sub r9, r12",
                "sub r10, r12",
                "stm r0!, {{r7-r10}}",
                "add r5, r6",
                "cmp r5, r11",
                "bne 3b",
                "ldr r7, [sp, #4]",
                "add r5, r7",
                "subs r14, #1",
                "bne 2b",
                "add sp, #12",
                "pop {{r4-r11, pc}}",
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

/// Adds the products of some inputs to the sums of four outputs a block: `sums[o] += w[o * stride + k] * inputs[k]` over all `k`.
///
/// Roles: r0 inputs; r1 to r4 weights; r5 to r8 sums; r9, r10 inputs; r11 weight; r12 end of the inputs, or of those that are taken in twos.
///
/// # Safety
/// There are sums and weights for all blocks; there is an input and a block.
#[unsafe(naked)]
pub unsafe extern "C" fn wide_dense(operands: &WideDense) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #28",
        // Stack: 0 sums, 4 weights, 8 stride, 12 inputs, 16 their end, 20 blocks, 24 end of twos.
        "ldm r0, {{r1-r6}}",
        "stm sp, {{r1-r6}}",
        "subs r6, r5, r4",
        "bic r6, r6, #7",
        "add r6, r4",
        "str r6, [sp, #24]",
        "2:",
        "ldr r0, [sp]",
        "ldm r0, {{r5-r8}}",
        "ldr r1, [sp, #4]",
        "ldr r0, [sp, #8]",
        "add r2, r1, r0",
        "add r3, r2, r0",
        "add r4, r3, r0",
        "add r9, r4, r0",
        "str r9, [sp, #4]",
        "ldr r0, [sp, #12]",
        "ldr r12, [sp, #24]",
        "cmp r0, r12",
        "beq 4f",
        "3:",
        "ldm r0!, {{r9, r10}}",
        "ldrsb r11, [r1], #1",
        "mla r5, r9, r11, r5",
        "ldrsb r14, [r2], #1",
        "mla r6, r9, r14, r6",
        "ldrsb r11, [r3], #1",
        "mla r7, r9, r11, r7",
        "ldrsb r14, [r4], #1",
        "mla r8, r9, r14, r8",
        "ldrsb r11, [r1], #1",
        "mla r5, r10, r11, r5",
        "ldrsb r14, [r2], #1",
        "mla r6, r10, r14, r6",
        "ldrsb r11, [r3], #1",
        "mla r7, r10, r11, r7",
        "ldrsb r14, [r4], #1",
        "mla r8, r10, r14, r8",
        "cmp r0, r12",
        "bne 3b",
        "4:",
        "ldr r12, [sp, #16]",
        "cmp r0, r12",
        "beq 5f",
        // One is left.
        "ldr r9, [r0]",
        "ldrsb r11, [r1]",
        "mla r5, r9, r11, r5",
        "ldrsb r11, [r2]",
        "mla r6, r9, r11, r6",
        "ldrsb r11, [r3]",
        "mla r7, r9, r11, r7",
        "ldrsb r11, [r4]",
        "mla r8, r9, r11, r8",
        "5:",
        "ldr r0, [sp]",
        "stm r0!, {{r5-r8}}",
        "str r0, [sp]",
        "ldr r0, [sp, #20]",
        "subs r0, #1",
        "str r0, [sp, #20]",
        "bne 2b",
        "add sp, #28",
        "pop {{r4-r11, pc}}",
    )
}
