//! Operators without weights, for Helium.
#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::super::scalar::elementwise::{self, Finish};
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
    // SAFETY: `second` was cut to as many elements as `values` above; an index into a table is a byte, and both tables have 256 entries.
    unsafe { sum(values.as_mut_ptr(), second.as_ptr(), tables, values.len(), &finish) };
    Some(())
}

/// For `k` below `count`: `values[k] = clamp((p + (p >> 31) + offset) >> exponent)` with
/// `p = round(s * multiplier / 2^31)` and `s = (tables[0][values[k] as u8] + tables[1][second[k] as u8]) / 2`: the lines of
/// `scalar::elementwise::Finish::add`.
///
/// Reads `count` bytes of `values` and of `second`, the tables and `finish`; writes `count` bytes of `values`. r0 values, r1 second, r2 and r4
/// the tables, r5 multiplier, r6 offset, r7 the shift as a negative number, q2 and q3 the bounds, q0, q1 and q4 what is calculated; four
/// elements a round, the last round predicated.
#[unsafe(naked)]
unsafe extern "C" fn sum(
    values: *mut i8,
    second: *const i8,
    tables: *const [[i32; 256]; 2],
    count: usize,
    finish: *const Finish,
) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r8, lr}}",
        "ldr r8, [sp, #24]",
        "vpush {{d8-d9}}",
        "add r4, r2, #1024",
        "ldr r5, [r8, #12]",
        "vdup.32 q2, r5",
        "ldr r5, [r8, #16]",
        "vdup.32 q3, r5",
        "ldrd r5, r6, [r8]",
        "ldr r7, [r8, #8]",
        "rsbs r7, r7, #0",
        "wlstp.32 lr, r3, 3f",
        "2:",
        "vldrb.u32 q0, [r0]",
        "vldrb.u32 q1, [r1], #4",
        "vldrw.u32 q4, [r2, q0, uxtw #2]",
        "vldrw.u32 q0, [r4, q1, uxtw #2]",
        // Entries are twice the scaled inputs.
        "vhadd.s32 q0, q0, q4",
        "vqrdmulh.s32 q0, q0, r5",
        "vshr.s32 q1, q0, #31",
        "vadd.i32 q0, q0, q1",
        "vadd.i32 q0, q0, r6",
        "vshl.s32 q0, r7",
        "vmax.s32 q0, q0, q2",
        "vmin.s32 q0, q0, q3",
        "vstrb.32 q0, [r0], #4",
        "letp lr, 2b",
        "3:",
        "vpop {{d8-d9}}",
        "pop {{r4-r8, pc}}",
        ".cpu cortex-m33",
    )
}
