//! What strips read: constants of outputs, and rows of inputs as pairs of 16 bits.

use core::arch::naked_asm;

#[cfg(doc)]
use super::super::Channel;
#[cfg(doc)]
use super::prepare;
use crate::backend::spec::dsp::depthwise::{MOST_SHIFT, STRIP_WORDS};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};

/// What [`prepare_quad`] makes constants of.
#[repr(C)]
pub struct Quad {
    pub bias: *const i32,
    pub multiplier: *const i32,
    pub shift: *const i32,
    pub input_zero: i32,
    /// Twice the output's zero point, and one.
    pub odd_zero: i32,
}

/// Stores r6 and r7, two rows of 4 weights as halfwords of neighbours, doubled, for the 4 channels.
macro_rules! weight_pairs {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "
        sxtb16  r3, r6
        sxtb16  r6, r6, ror #8
        sadd16  r3, r3, r3
        sadd16  r6, r6, r6
        str     r3, [r0, #",
            $a,
            "]
        str     r6, [r0, #",
            $b,
            "]
        sxtb16  r3, r7
        sxtb16  r7, r7, ror #8
        sadd16  r3, r3, r3
        sadd16  r7, r7, r7
        str     r3, [r0, #",
            $c,
            "]
        str     r7, [r0, #",
            $d,
            "]
        "
        )
    };
}

/// The constants of 4 outputs, as [`prepare`] says: [`Channel::new`] of each.
///
/// r0: place, r1: weights, r2: from tap to tap, r12: from row to row, lr: two rows, r8: sums of outputs 0 and 2, r9: of 1 and 3, r10: columns left. Then r0:
/// place of multiplier, constant, shift, bias, which are r1, r2, r3, r12; r4-r6: biases, multipliers, shifts, r7: input's zero point, lr: odd zero, r10: outputs
/// left.
///
/// # Safety
/// 4 bytes are readable at each of 9 multiples of `step` from `weights` on, at any address, and 4 words at each pointer of `quad`.
#[unsafe(naked)]
pub unsafe extern "C" fn prepare_quad(
    place: &mut [u32; 4 * STRIP_WORDS],
    weights: *const i8,
    step: usize,
    quad: &Quad,
) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r3-r11, lr}}
        add     r12, r2, r2, lsl #1
        lsl     lr, r12, #1
        movs    r3, #0
        mov     r8, r3
        mov     r9, r3
        mov     r10, #3
    1:
        ldr     r3, [r1]
        ldr     r4, [r1, r12]
        ldr     r5, [r1, lr]
        add     r1, r2
        sxtab16 r8, r8, r3
        sxtab16 r9, r9, r3, ror #8
        sxtab16 r8, r8, r4
        sxtab16 r9, r9, r4, ror #8
        sxtab16 r8, r8, r5
        sxtab16 r9, r9, r5, ror #8
        pkhbt   r6, r3, r4, lsl #16
        pkhtb   r7, r4, r3, asr #16
        ",
        weight_pairs!("0", "40", "80", "120"),
        "
        pkhbt   r6, r4, r5, lsl #16
        pkhtb   r7, r5, r4, asr #16
        ",
        weight_pairs!("12", "52", "92", "132"),
        "
        adds    r0, #4
        subs    r10, #1
        bne     1b
        ldr     r3, [sp]
        ldm     r3, {{r4-r7, lr}}
        adds    r0, #12
        mov     r10, #4
    2:
        sxth    r3, r8
        ldr     r12, [r4], #4
        mls     r12, r3, r7, r12
        ldr     r1, [r5], #4
        ldr     r3, [r6], #4
        asr     r11, r8, #16
        mov     r8, r9
        mov     r9, r11
        rsbs    r3, r3, #0
        cmp     r3, #{most}
        itt     gt
        movgt   r3, #{most}
        movgt   r1, #0
        lsl     r2, lr, r3
        asrs    r2, r2, #1
        lsl     r12, r12, #1
        stm     r0, {{r1, r2, r3, r12}}
        adds    r0, #40
        subs    r10, #1
        bne     2b
        pop     {{r3-r11, pc}}
        ",
        dsp_off!(),
        most = const MOST_SHIFT,
    )
}

/// Operands of [`widen`] and [`neighbours`].
#[repr(C)]
pub struct Rows {
    pub upper_step: usize,
    pub lower_step: usize,
    /// Bytes from one channel to the next.
    pub plane: usize,
    pub quads: usize,
    /// Whether the first pixel is an odd column.
    pub lead: usize,
    /// Bytes of all pairs of columns.
    pub pair_bytes: usize,
    /// Whether the last pixel is an even column.
    pub trail: usize,
}

/// One pixel of 4 channels of both rows to the channels' places: r1, r2: rows, r8-r11: places, which go on to the next pair of columns of an odd one.
macro_rules! widen_pixel {
    () => {
        "
        ldr     r6, [r1]
        ldr     r7, [r2]
        pkhbt   r12, r6, r7, lsl #16
        pkhtb   lr, r7, r6, asr #16
        sxtb16  r6, r12
        sxtb16  r7, r12, ror #8
        sxtb16  r12, lr
        sxtb16  lr, lr, ror #8
        str     r6, [r8], #12
        str     r7, [r9], #12
        str     r12, [r10], #12
        str     lr, [r11], #12
        "
    };
}

/// Two rows of `4 * quads` channels as pairs (upper, lower) of 16 bits, from `place` on, where the first column of channel 0 is; the columns of an even one
/// and the next are 4 bytes apart, pairs of them 16, channels `plane`.
///
/// r1, r2: rows, r4, r5: their steps, r8-r11: places of 4 channels; r0, r3, r6, r7, r12, lr: values. Stack: end of the pairs, rows, place of the next quad,
/// then plane, quads left, lead, pair bytes, trail.
///
/// # Safety
/// `4 * quads` bytes are readable from each row on at `lead + pair_bytes / 8 + trail` multiples of its step, at any address; the places are writable
/// words.
#[unsafe(naked)]
pub unsafe extern "C" fn widen(place: *mut u32, upper: *const i8, lower: *const i8, rows: &Rows) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #36
        ldm     r3, {{r4-r10}}
        add     r3, sp, #16
        stm     r3, {{r6-r10}}
    1:
        strd    r1, r2, [sp, #4]
        ldr     r6, [sp, #16]
        mov     r8, r0
        add     r9, r8, r6
        add     r10, r9, r6
        add     r11, r10, r6
        add     r0, r11, r6
        str     r0, [sp, #12]
        ldr     r3, [sp, #24]
        cbz     r3, 2f
        ",
        widen_pixel!(),
        "
        add     r1, r4
        add     r2, r5
    2:
        ldr     r3, [sp, #28]
        cmp     r3, #0
        beq     4f
        add     r3, r8
        str     r3, [sp]
    3:
        ldr     r6, [r1]
        ldr     r7, [r2]
        ldr     r0, [r1, r4]
        ldr     lr, [r2, r5]
        pkhbt   r12, r6, r7, lsl #16
        pkhtb   r6, r7, r6, asr #16
        pkhbt   r7, r0, lr, lsl #16
        pkhtb   r0, lr, r0, asr #16
        sxtb16  r3, r12
        sxtb16  lr, r7
        sxtb16  r12, r12, ror #8
        sxtb16  r7, r7, ror #8
        strd    r3, lr, [r8], #16
        strd    r12, r7, [r9], #16
        sxtb16  r3, r6
        sxtb16  lr, r0
        sxtb16  r6, r6, ror #8
        sxtb16  r0, r0, ror #8
        strd    r3, lr, [r10], #16
        strd    r6, r0, [r11], #16
        add     r1, r1, r4, lsl #1
        add     r2, r2, r5, lsl #1
        ldr     r3, [sp]
        cmp     r8, r3
        bne     3b
    4:
        ldr     r3, [sp, #32]
        cbz     r3, 5f
        ",
        widen_pixel!(),
        "
    5:
        ldrd    r1, r2, [sp, #4]
        ldr     r0, [sp, #12]
        ldr     r3, [sp, #20]
        adds    r1, #4
        adds    r2, #4
        subs    r3, #1
        str     r3, [sp, #20]
        bne     1b
        add     sp, #36
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}

/// Two pixels of 4 channels, r6 and r7, to the channels' places r8-r11, as pairs of neighbours; r4 is used.
macro_rules! neighbours {
    () => {
        "
        pkhbt   r4, r6, r7, lsl #16
        pkhtb   r6, r7, r6, asr #16
        sxtb16  r7, r4
        sxtb16  r4, r4, ror #8
        str     r7, [r8], #16
        str     r4, [r9], #16
        sxtb16  r7, r6
        sxtb16  r6, r6, ror #8
        str     r7, [r10], #16
        str     r6, [r11], #16
        "
    };
}

/// A row of `4 * quads` channels as pairs (even column, odd column) of 16 bits, from `place` on, 16 bytes apart, channels `plane`. Where a pair has one
/// column of the row, the other is that of the pixel `padding`.
///
/// r1: row, r2: its step, r5: row of the quad, r8-r11: places of 4 channels, r12: pairs left, lr: padding; r3, r4, r6, r7: values. Stack: place of the next
/// quad, then plane, quads left, lead, pairs, trail.
///
/// # Safety
/// As [`widen`], for one row with the upper step; 4 bytes are readable from `padding` on.
#[unsafe(naked)]
pub unsafe extern "C" fn neighbours(place: *mut u32, row: *const i8, padding: *const i8, rows: &Rows) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #28
        ldr     lr, [r2]
        ldm     r3, {{r2, r4-r9}}
        lsr     r8, r8, #4
        add     r3, sp, #4
        stm     r3, {{r5-r9}}
    1:
        ldr     r6, [sp, #4]
        mov     r8, r0
        add     r9, r8, r6
        add     r10, r9, r6
        add     r11, r10, r6
        add     r0, r11, r6
        str     r0, [sp]
        mov     r5, r1
        ldrd    r3, r12, [sp, #12]
        cmp     r12, #0
        cbz     r3, 3f
        mov     r6, lr
        ldr     r7, [r5]
        add     r5, r2
        b       4f
    3:
        beq     5f
    2:
        ldr     r6, [r5]
        ldr     r7, [r5, r2]
        add     r5, r5, r2, lsl #1
        subs    r12, #1
    4:
        ",
        neighbours!(),
        "
        bne     2b
    5:
        ldr     r3, [sp, #20]
        cbz     r3, 6f
        ldr     r6, [r5]
        mov     r7, lr
        ",
        neighbours!(),
        "
    6:
        ldr     r0, [sp]
        ldr     r3, [sp, #8]
        adds    r1, #4
        subs    r3, #1
        str     r3, [sp, #8]
        bne     1b
        add     sp, #28
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}
