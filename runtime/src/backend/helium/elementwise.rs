//! Kernels that treat each element on its own, in place.

use core::arch::naked_asm;

use crate::backend::scalar;
use crate::backend::spec::elementwise::{SUM_ROUND, halved};
use crate::ops::add::IntegerParameters;

/// What [`add`] is told, in the order of its registers.
#[repr(C)]
struct Add {
    /// r0: the input whose factor is any.
    scaled: *const i8,
    /// r1: the input whose factor is one half.
    halved: *const i8,
    /// r2: the output.
    output: *mut i8,
    /// r3, r4: zero points of both inputs, negated.
    zeros: [i32; 2],
    /// r5: shift of the first to the left.
    left: i32,
    /// r6: factor of the second.
    factor: i32,
    /// r7: multiplier of the first; r8: its shift, negative.
    multiplier: i32,
    shift: i32,
    /// r9, r10: the same of the sum.
    sum_multiplier: i32,
    sum_shift: i32,
    /// r11: zero point of the output.
    zero: i32,
    /// r12: rounds.
    rounds: usize,
    /// Bounds.
    low: i32,
    high: i32,
}

/// Adds eight elements a round, as [`scalar::elementwise::add_i8`] does. The second input's factor of 2^30 with a shift of 0 makes `v << left` to `v << (left - 1)` without
/// rounding. Requantisation as in `product::requantize`; q6 and q7 have the bounds, even elements are in q0 and q2, odd ones in q1 and q3.
///
/// # Safety
/// Both inputs are readable and the output is writable over all rounds, of which there is at least one. The output may be an input.
#[unsafe(naked)]
unsafe extern "C" fn add(job: *const Add) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "ldrd r1, r2, [r0, #52]",
        "vdup.16 q6, r1",
        "vdup.16 q7, r2",
        "ldm r0, {{r0-r12}}",
        "dls lr, r12",
        "1:",
        "vldrb.s16 q1, [r0], #8",
        "vldrb.s16 q3, [r1], #8",
        "vadd.i16 q1, q1, r3",
        "vadd.i16 q3, q3, r4",
        "vmovlb.s16 q0, q1",
        "vmovlt.s16 q1, q1",
        "vshl.s32 q0, r5",
        "vshl.s32 q1, r5",
        "vshr.s32 q4, q0, #31",
        "vshr.s32 q5, q1, #31",
        "vqrdmlah.s32 q4, q0, r7",
        "vqrdmlah.s32 q5, q1, r7",
        "vmovlb.s16 q2, q3",
        "vmovlt.s16 q3, q3",
        "vrshl.s32 q4, r8",
        "vrshl.s32 q5, r8",
        "vmla.s32 q4, q2, r6",
        "vmla.s32 q5, q3, r6",
        "vshr.s32 q0, q4, #31",
        "vshr.s32 q1, q5, #31",
        "vqrdmlah.s32 q0, q4, r9",
        "vqrdmlah.s32 q1, q5, r9",
        "vrshl.s32 q0, r10",
        "vrshl.s32 q1, r10",
        "vqmovnb.s32 q0, q0",
        "vqmovnt.s32 q0, q1",
        "vqadd.s16 q0, q0, r11",
        "vmax.s16 q0, q0, q6",
        "vmin.s16 q0, q0, q7",
        "vstrb.16 q0, [r2], #8",
        "le lr, 1b",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// Adds `second` to `values`. Sums of other factors than [`halved`] takes, and the elements behind the last eight, are scalar.
#[inline(never)]
pub fn add_i8(
    parameters: &IntegerParameters,
    zero_points: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    let p = parameters;
    let second = second.get(..values.len())?;
    let rounds = values.len() / SUM_ROUND;
    let (head, tail) = values.split_at_mut_checked(rounds.wrapping_mul(SUM_ROUND))?;
    let (second_head, second_tail) = second.split_at_checked(head.len())?;
    let [zero_1, zero_2, zero] = zero_points;
    let Some(halved) = halved(p).filter(|_| rounds > 0) else {
        return scalar::elementwise::add_i8(p, zero_points, values, second, scratch);
    };
    let output = head.as_mut_ptr();
    let (first, other) = (output.cast_const(), second_head.as_ptr());
    let (scaled, halved, zeros, multiplier, shift) = if halved == 1 {
        (first, other, [zero_1, zero_2], p.multiplier_1, p.shift_1)
    } else {
        (other, first, [zero_2, zero_1], p.multiplier_2, p.shift_2)
    };
    // Of two halves neither is rounded: one may be a quarter of twice the value.
    let (left, shift) = if shift == 0 { (p.left_shift.wrapping_add(1), -1) } else { (p.left_shift, shift) };
    let job = Add {
        scaled,
        halved,
        output,
        zeros: zeros.map(i32::wrapping_neg),
        left,
        factor: 1i32.wrapping_shl(p.left_shift.wrapping_sub(1) as u32),
        multiplier,
        shift,
        sum_multiplier: p.output_multiplier,
        sum_shift: p.output_shift,
        zero,
        rounds,
        low: p.act_min,
        high: p.act_max,
    };
    // SAFETY: `head` and `second_head` have eight elements for each round, and there is a round. `head` is exclusive; the kernel reads elements of a
    // round before it writes them.
    unsafe { add(&job) }
    scalar::elementwise::add_i8(p, zero_points, tail, second_tail, &mut [])
}

/// Replaces each of `count` bytes `x` by the entry at `x`, a byte of either sign taken as its offset from the middle of the table.
///
/// # Safety
/// `values` is exclusive over `count` bytes, `table` readable over 256.
#[unsafe(naked)]
unsafe extern "C" fn look_up(values: *mut i8, count: usize, table: *const [i8; 256]) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "vmov.i8 q1, #0x80",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0]",
        "veor q0, q0, q1",
        "vldrb.u8 q2, [r2, q0]",
        "vstrb.8 q2, [r0], #16",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// Replaces each `x` by entry `x + 128`.
#[inline(never)]
pub fn table_i8(table: &[i8; 256], values: &mut [i8]) {
    // SAFETY: the slice is exclusive, and as long as is said; the table has an entry for each byte.
    unsafe { look_up(values.as_mut_ptr(), values.len(), table) }
}
