//! Operators without weights, for the DSP extension.
#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::super::scalar::elementwise::{self, Finish};
use super::isa::{dsp_off, dsp_on};
use crate::backend::spec::elementwise::has_whole_range;
use crate::ops::add;

/// As [`crate::backend::Backend::add_i8`].
pub fn add_i8(
    parameters: &add::IntegerParameters,
    zero_points: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    let second = second.get(..values.len())?;
    let Some((tables, finish)) = elementwise::prepare::<i32>(parameters, zero_points, values.len(), scratch)
    else {
        elementwise::add_each(parameters, zero_points, values, second);
        return Some(());
    };
    if !has_whole_range(parameters) {
        finish.add_within(tables, values, second);
        return Some(());
    }
    // SAFETY: `second` was cut to as many elements as `values` above; an index into a table is a byte, and both tables have 256 entries.
    unsafe { sum(values.as_mut_ptr(), second.as_ptr(), tables, values.len(), &finish) };
    Some(())
}

/// For `k` below `count`: `values[k] = saturate((p + offset + (s >> 31)) >> exponent)` with
/// `p = round(s * multiplier / 2^32)` and `s = tables[0][values[k] as u8] + tables[1][second[k] as u8]`: the lines of
/// `scalar::elementwise::Finish::add`.
///
/// Reads `count` bytes of `values` and of `second`, the tables and the first three words of `finish`; writes `count` bytes of `values`. r0 values,
/// r1 second, r2 and r3 the tables, r4 multiplier, r5 offset, r6 exponent, r12 the end of `values`, r7 to r10 what is calculated; four
/// elements a round, then one.
#[unsafe(naked)]
unsafe extern "C" fn sum(
    values: *mut i8,
    second: *const i8,
    tables: *const [[i32; 256]; 2],
    count: usize,
    finish: *const Finish,
) {
    naked_asm!(
        dsp_on!(),
        "push {{r4-r10, lr}}",
        "ldr r7, [sp, #32]",
        "ldm r7, {{r4-r6}}",
        "add r12, r0, r3",
        "add r3, r2, #1024",
        "sub lr, r12, #4",
        "cmp r0, lr",
        "bhi 3f",
        "2:",
        "ldrb r8, [r0]",
        "ldrb r9, [r1]",
        "ldr r7, [r2, r8, lsl #2]",
        "ldr r8, [r3, r9, lsl #2]",
        "ldrb r9, [r0, #1]",
        "ldrb r10, [r1, #1]",
        "add r7, r7, r8",
        "ldr r8, [r2, r9, lsl #2]",
        "ldr r9, [r3, r10, lsl #2]",
        "smmlar r10, r7, r4, r5",
        "add r8, r8, r9",
        "add r7, r10, r7, asr #31",
        "smmlar r9, r8, r4, r5",
        "asrs r7, r6",
        "add r8, r9, r8, asr #31",
        "ssat r7, #8, r7",
        "asr r8, r8, r6",
        "strb r7, [r0], #1",
        "ssat r8, #8, r8",
        "strb r8, [r0], #1",
        "ldrb r8, [r0]",
        "ldrb r9, [r1, #2]",
        "ldr r7, [r2, r8, lsl #2]",
        "ldr r8, [r3, r9, lsl #2]",
        "ldrb r9, [r0, #1]",
        "ldrb r10, [r1, #3]",
        "add r7, r7, r8",
        "ldr r8, [r2, r9, lsl #2]",
        "ldr r9, [r3, r10, lsl #2]",
        "smmlar r10, r7, r4, r5",
        "add r8, r8, r9",
        "add r7, r10, r7, asr #31",
        "smmlar r9, r8, r4, r5",
        "asrs r7, r6",
        "add r8, r9, r8, asr #31",
        "ssat r7, #8, r7",
        "asr r8, r8, r6",
        "strb r7, [r0], #1",
        "ssat r8, #8, r8",
        "strb r8, [r0], #1",
        "adds r1, #4",
        "cmp r0, lr",
        "bls 2b",
        "3:",
        "cmp r0, r12",
        "bhs 5f",
        "4:",
        "ldrb r8, [r0]",
        "ldrb r9, [r1], #1",
        "ldr r7, [r2, r8, lsl #2]",
        "ldr r8, [r3, r9, lsl #2]",
        "add r7, r7, r8",
        "smmlar r10, r7, r4, r5",
        "add r7, r10, r7, asr #31",
        "asrs r7, r6",
        "ssat r7, #8, r7",
        "strb r7, [r0], #1",
        "cmp r0, r12",
        "blo 4b",
        "5:",
        "pop {{r4-r10, pc}}",
        dsp_off!(),
    )
}
