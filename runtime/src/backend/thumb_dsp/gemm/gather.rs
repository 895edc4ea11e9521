//! Getting the activations under one window out of the kept rows.

use core::arch::naked_asm;

use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};

/// Fills a window's words in the columns: for each of `segments` entries of `table`, `words` words from `base + entry` on, each widened to two. Columns of
/// one window are 12 bytes apart.
///
/// r0: columns, r1: base, r2: table, r3: segments left, r4: words of a segment, r5: place in a segment, r12: words left.
///
/// # Safety
/// `table` has `segments` entries; from `base` plus each of them `words` words are readable, at any address; the columns have
/// `2 * segments * words` words of the window.
#[unsafe(naked)]
pub unsafe extern "C" fn words(
    columns: *mut u8,
    base: *const u8,
    table: *const u32,
    segments: usize,
    words: usize,
) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r9}}
        ldr     r4, [sp, #24]
        cmp     r4, #1
        bne     1f
    4:
        ldr     r5, [r2], #4
        ldr     r6, [r1, r5]
        sxtb16  r7, r6
        sxtb16  r6, r6, ror #8
        str     r7, [r0], #12
        str     r6, [r0], #12
        subs    r3, #1
        bne     4b
        pop     {{r4-r9}}
        bx      lr
    1:
        ldr     r5, [r2], #4
        add     r5, r1
        lsrs    r12, r4, #1
        bcc     2f
        ldr     r6, [r5], #4
        sxtb16  r7, r6
        sxtb16  r6, r6, ror #8
        str     r7, [r0], #12
        str     r6, [r0], #12
        beq     3f
    2:
        ldr     r6, [r5], #4
        ldr     r8, [r5], #4
        sxtb16  r7, r6
        sxtb16  r6, r6, ror #8
        sxtb16  r9, r8
        sxtb16  r8, r8, ror #8
        str     r7, [r0]
        str     r6, [r0, #12]
        str     r9, [r0, #24]
        str     r8, [r0, #36]
        adds    r0, #48
        subs.w  r12, r12, #1
        bne     2b
    3:
        subs    r3, #1
        bne     1b
        pop     {{r4-r9}}
        bx      lr
        ",
        dsp_off!(),
    )
}

/// Puts `segments` pieces of `bytes` bytes, from `base` plus each entry of `table` on, one behind the other.
///
/// r0: destination, r1: base, r2: table, r3: segments left, r4: bytes of a segment, r5: source, r6: place, r12: bytes left.
///
/// # Safety
/// `table` has `segments` entries; `bytes` bytes, rounded up to whole words, are readable from `base` plus each entry on, and writable behind the
/// last piece too.
#[unsafe(naked)]
pub unsafe extern "C" fn bytes(
    destination: *mut u8,
    base: *const u8,
    table: *const u32,
    segments: usize,
    bytes: usize,
) {
    naked_asm!(
        "
        push    {{r4-r7}}
        ldr     r4, [sp, #16]
    1:
        ldr     r5, [r2], #4
        add     r5, r1
        mov     r6, r0
        mov     r12, r4
    2:
        ldr     r7, [r5], #4
        str     r7, [r6], #4
        subs    r12, #4
        bhi     2b
        add     r0, r4
        subs    r3, #1
        bne     1b
        pop     {{r4-r7}}
        bx      lr
        "
    )
}

/// Copies bytes, at any addresses.
///
/// r0: destination, r1: source, r2: bytes left, less what the loop ahead takes.
///
/// # Safety
/// `bytes` bytes are readable at `source` and writable at `destination`; they do not overlap.
#[unsafe(naked)]
pub unsafe extern "C" fn copy(destination: *mut u8, source: *const u8, bytes: usize) {
    naked_asm!(
        "
        push    {{r4-r6}}
        subs    r2, #16
        blo     2f
    1:
        ldr     r3, [r1], #4
        ldr     r4, [r1], #4
        ldr     r5, [r1], #4
        ldr     r6, [r1], #4
        str     r3, [r0], #4
        str     r4, [r0], #4
        str     r5, [r0], #4
        str     r6, [r0], #4
        subs    r2, #16
        bhs     1b
    2:
        adds    r2, #12
        bmi     4f
    3:
        ldr     r3, [r1], #4
        str     r3, [r0], #4
        subs    r2, #4
        bpl     3b
    4:
        adds    r2, #4
        beq     6f
    5:
        ldrb    r3, [r1], #1
        strb    r3, [r0], #1
        subs    r2, #1
        bne     5b
    6:
        pop     {{r4-r6}}
        bx      lr
        "
    )
}
