//! Dense layers of bytes: sums of all outputs, then their requantisation.

use super::super::frame::{Dense, Frame, ODD};
use super::exact;
use crate::ops::linear::Integer;
use ::core::arch::naked_asm;

/// The products of four inputs, which are read, with the weights from a place on.
macro_rules! four {
    ($($place:literal $x:literal),*) => {
        concat!("ldmia r6!, {{r0-r3}}\n", $(
            "ldrb r4, [r5, #", $place, "]\n muls r4, ", $x, ", r4\n add r8, r4\n",
            "ldrb r4, [r5, #", $place, "+1]\n muls r4, ", $x, ", r4\n add r9, r4\n",
            "ldrb r4, [r5, #", $place, "+2]\n muls r4, ", $x, ", r4\n add r10, r4\n",
            "ldrb r4, [r5, #", $place, "+3]\n muls r4, ", $x, ", r4\n add r11, r4\n",
        )*)
    };
}

/// Adds the products of some inputs to the sums of all outputs: of a block, `sums[o] = start[o] + (w[o] + 128) * x`, where the byte is the weight plus 128.
///
/// Roles: r0 to r3 inputs; r4 weight, product; r5 weights; r6 inputs; r7 sums; r8 to r11 sums of the block; r12 end of the inputs; r14 jump.
///
/// # Safety
/// There are sums and weights for all blocks; the inputs are a multiple of eight.
#[unsafe(naked)]
pub unsafe extern "C" fn dense(operands: &Dense) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "sub sp, #16",
        // Stack: 0 start, 4 inputs, 8 end of the sums, 12 where the loop is entered.
        "ldmia r0!, {{r1-r6}}",
        "ldr r0, [r0]",
        "str r0, [sp]",
        "mov lr, r3",
        "str r4, [sp, #4]",
        "lsls r6, r6, #4",
        "adds r6, r6, r1",
        "str r6, [sp, #8]",
        "mov r12, r5",
        "mov r7, r1",
        // The loop takes 32 inputs at a time; the first time it starts at eight of them.
        "subs r4, r4, r5",
        "asrs r4, r4, #5",
        "movs r5, #3",
        "ands r4, r5",
        "movs r5, #198",
        "muls r4, r5, r4",
        "adr r5, 3f",
        "adds r4, r4, r5",
        "str r4, [sp, #12]",
        "mov r5, r2",
        "b 2f",
        ".p2align 2",
        "3:",
        ".rept 4",
        four!("0" "r0", "4" "r1", "8" "r2", "12" "r3"),
        four!("16" "r0", "20" "r1", "24" "r2", "28" "r3"),
        "adds r5, #32",
        ".endr",
        "cmp r6, r12",
        "beq 4f",
        "b 3b",
        "4:",
        "mov r0, r8",
        "mov r1, r9",
        "mov r2, r10",
        "mov r3, r11",
        "stmia r7!, {{r0-r3}}",
        "add r5, lr",
        "ldr r4, [sp, #8]",
        "cmp r7, r4",
        "beq 5f",
        "2:",
        "ldr r6, [sp]",
        "ldmia r6!, {{r0-r3}}",
        "str r6, [sp]",
        "mov r8, r0",
        "mov r9, r1",
        "mov r10, r2",
        "mov r11, r3",
        "ldr r6, [sp, #4]",
        "ldr r4, [sp, #12]",
        "mov pc, r4",
        "5:",
        "add sp, #16",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
    )
}

/// Inputs as words, `count` of them. Gives their sum.
///
/// Roles: r0 words; r1 inputs; r2 inputs left, less those of the loop ahead; r3 to r6 inputs; r7 sum.
///
/// # Safety
/// There are `count` inputs, and room for as many words.
#[unsafe(naked)]
pub unsafe extern "C" fn widen_row(words: *mut i32, inputs: *const i8, count: usize) -> i32 {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "movs r7, #0",
        "subs r2, #4",
        "blo 3f",
        "2:",
        "ldrb r3, [r1]",
        "ldrb r4, [r1, #1]",
        "ldrb r5, [r1, #2]",
        "ldrb r6, [r1, #3]",
        "sxtb r3, r3",
        "sxtb r4, r4",
        "sxtb r5, r5",
        "sxtb r6, r6",
        "stmia r0!, {{r3-r6}}",
        "adds r3, r3, r4",
        "adds r5, r5, r6",
        "adds r3, r3, r5",
        "adds r7, r7, r3",
        "adds r1, #4",
        "subs r2, #4",
        "bhs 2b",
        "3:",
        "adds r2, #4",
        "beq 5f",
        "4:",
        "ldrb r3, [r1]",
        "sxtb r3, r3",
        "stmia r0!, {{r3}}",
        "adds r7, r7, r3",
        "adds r1, #1",
        "subs r2, #1",
        "bne 4b",
        "5:",
        "mov r0, r7",
        "pop {{r4-r7, pc}}",
    )
}

/// Operands of [`finish_row`]. Assembly knows the offsets.
#[repr(C)]
struct Row<'a> {
    /// 0: sums, without the part that offset weights added.
    sums: *const i32,
    /// 4: their end.
    sums_end: *const i32,
    /// 8: multipliers.
    multiplier: *const i32,
    /// 12: shifts.
    shift: *const i32,
    /// 16: outputs.
    output: *mut i8,
    /// 20: what to subtract from each sum.
    offset: i32,
    /// 24: bounds and zero point.
    frame: &'a Frame,
}

/// Makes outputs, from channel `first` on, of a dense layer's sums over inputs whose sum is `total`.
pub fn finish_sums(
    linear: &Integer<'_>,
    first: usize,
    sums: &[i32],
    total: i32,
    output: &mut [i8],
) -> Option<()> {
    let count = output.len();
    let part = |constants: &[i32]| Some(constants.get(first..)?.get(..count)?.as_ptr());
    let range = sums.get(..count)?.as_ptr_range();
    let frame = Frame::new(linear);
    let offset = total.wrapping_shl(7);
    if linear.low > linear.output_zero || linear.high < linear.output_zero {
        let constants = linear.multiplier.get(first..)?.iter().zip(linear.shift.get(first..)?);
        for ((slot, &sum), (&multiplier, &shift)) in output.iter_mut().zip(sums).zip(constants) {
            // SAFETY: `frame` is a frame.
            *slot =
                unsafe { exact(sum.wrapping_sub(offset), multiplier, ODD.wrapping_add(shift), &frame) } as i8;
        }
        return Some(());
    }
    let row = Row {
        sums: range.start,
        sums_end: range.end,
        multiplier: part(linear.multiplier)?,
        shift: part(linear.shift)?,
        output: output.as_mut_ptr(),
        offset,
        frame: &frame,
    };
    if count > 0 {
        // SAFETY: there are as many sums, multipliers and shifts as outputs, at least one; the zero point lies within the bounds.
        unsafe { finish_row(&row) };
    }
    Some(())
}

/// `floor(sum * multiplier / 2^21)` of a sum (r0) from -2^20 to 2^20 - 1 and a multiplier (r1), whose 11, 10 and 10 bits come one after the other. Changes r0,
/// r1, r3 and r4.
macro_rules! scaled {
    () => {
        concat!(
            "lsls r4, r1, #21\n lsrs r4, r4, #21\n muls r4, r0, r4\n asrs r4, r4, #11\n",
            "lsls r3, r1, #11\n lsrs r3, r3, #22\n muls r3, r0, r3\n adds r3, r3, r4\n asrs r3, r3, #10\n",
            "lsrs r1, r1, #21\n muls r0, r1, r0\n adds r0, r0, r3",
        )
    };
}

/// `floor(sum * multiplier / 2^15)` of a sum (r0) below 2^16 that is not negative and a multiplier (r1), whose 16 and 15 bits come one after the other. Changes
/// r0, r1 and r4.
macro_rules! scaled_short {
    () => {
        concat!(
            "lsls r4, r1, #17\n lsrs r4, r4, #17\n muls r4, r0, r4\n lsrs r4, r4, #15\n",
            "lsrs r1, r1, #15\n muls r0, r1, r0\n adds r0, r0, r4",
        )
    };
}

/// `asrs` with the rounding of its carry, and the zero point, of what [`scaled`] and the rounding term made. Changes r3 and r4.
macro_rules! shifted {
    () => {
        "movs r3, #22\n subs r3, r3, r2\n mov r4, r10\n asrs r0, r0, r3\n adcs r0, r4"
    };
}

/// Requantises sums of a row: `Integer::finish` of each sum less the offset, with the multiplier and shift of its channel.
///
/// Short form as in [`finish`](super::finish), the parts of the multiplier made here, the second rounding by the carry of the shift; sums that it does not take go to
/// [`exact`]. Sums from 0 to 2^16 - 1, the rule, take fewer products. What is not negative is bounded above alone, what is negative below alone. Roles: r0 sum; r1 multiplier; r2 shift plus 12; r3, r4 between;
/// r5 behind the sum; r6, r7 multipliers and shifts behind r5; r8 offset; r9 outputs, less a quarter of the place of their sums; r10 zero point;
/// r11 greatest output; r12 end of the sums; r14 2^15.
///
/// # Safety
/// The operands' pointers reach as far as the sums, of which there is one at least. The bounds include the zero point.
#[unsafe(naked)]
unsafe extern "C" fn finish_row(row: &Row<'_>) {
    naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        // Stack: 0 least output, 4 frame.
        "sub sp, #12",
        "ldmia r0!, {{r5, r6, r7}}",
        "mov r12, r6",
        "subs r6, r7, r5",
        "ldmia r0!, {{r1-r4}}",
        "subs r7, r1, r5",
        "lsrs r1, r5, #2",
        "adds r1, #1",
        "subs r2, r2, r1",
        "mov r9, r2",
        "mov r8, r3",
        "subs r6, #4",
        "subs r7, #4",
        "str r4, [sp, #4]",
        "ldr r0, [r4, #20]",
        "str r0, [sp]",
        "ldr r0, [r4, #24]",
        "mov r11, r0",
        "ldr r0, [r4, #28]",
        "mov r10, r0",
        "movs r0, #1",
        "lsls r0, r0, #15",
        "mov lr, r0",
        "2:",
        "ldmia r5!, {{r0}}",
        "mov r3, r8",
        "subs r0, r0, r3",
        "bmi 5f",
        "ldr r1, [r5, r6]",
        "ldr r2, [r5, r7]",
        "adds r2, #12",
        "cmp r2, #11",
        "bhi 8f",
        "lsrs r3, r0, #16",
        "bne 7f",
        scaled_short!(),
        "add r0, lr",
        "movs r3, #28",
        "subs r3, r3, r2",
        "mov r4, r10",
        "lsrs r0, r0, r3",
        "adcs r0, r4",
        "3:",
        "cmp r0, r11",
        "ble 4f",
        "mov r0, r11",
        "4:",
        "lsrs r1, r5, #2",
        "add r1, r9",
        "strb r0, [r1]",
        "cmp r5, r12",
        "bne 2b",
        "add sp, #12",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r4-r7, pc}}",
        // 2^16 and more.
        "7:",
        "lsrs r3, r0, #20",
        "bne 8f",
        scaled!(),
        "movs r3, #1",
        "lsls r3, r3, #9",
        "adds r0, r0, r3",
        shifted!(),
        "b 3b",
        // Negative. The least output, where that is the zero point and the shift is one to the right; else with the rounding term of negative sums.
        "5:",
        "ldr r4, [sp]",
        "cmp r4, r10",
        "blt 6f",
        "ldr r2, [r5, r7]",
        "cmp r2, #0",
        "bge 9f",
        "mov r0, r4",
        "b 4b",
        "6:",
        "ldr r1, [r5, r6]",
        "ldr r2, [r5, r7]",
        "adds r2, #12",
        "cmp r2, #11",
        "bhi 8f",
        "asrs r3, r0, #20",
        "adds r3, #1",
        "bne 8f",
        scaled!(),
        "movs r3, #1",
        "lsls r3, r3, #9",
        "subs r0, r0, r3",
        shifted!(),
        "ldr r3, [sp]",
        "cmp r0, r3",
        "bge 4b",
        "mov r0, r3",
        "b 4b",
        // Without a shift to the right a sum may leave 32 bits.
        "9:",
        "ldr r1, [r5, r6]",
        "adds r2, #12",
        // -2^20 and less, 2^20 and more, other shifts.
        "8:",
        "adds r2, #{odd} - 12",
        "ldr r3, [sp, #4]",
        "bl {exact}",
        "movs r1, #1",
        "lsls r1, r1, #15",
        "mov lr, r1",
        "b 4b",
        exact = sym exact,
        odd = const ODD,
    )
}
