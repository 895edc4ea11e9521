//! Strips of outputs.

use core::arch::naked_asm;

use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};

/// Operands of [`strip_even`].
#[repr(C)]
pub struct Frame {
    /// Bytes from one output to the next.
    pub step: usize,
    /// Bytes from an output to the one below.
    pub below: usize,
    pub constants: *const u32,
    pub output: *mut i8,
    /// Outputs of a pixel.
    pub channels: usize,
    /// Bytes of all pairs of columns, or of whole quads of outputs.
    pub pair_bytes: usize,
    /// Columns that are left over.
    pub left: usize,
    /// Whether outputs below the zero point are not clamped to it.
    pub exact: usize,
    /// Bytes from the last columns of one output to the first ones of the next; for [`row1`] from the first ones.
    pub advance: usize,
}

/// Lines of assembly.
macro_rules! lines {
    ($($line:expr),* $(,)?) => { concat!($($line, "\n"),*) };
}

/// Stores the address of the code for pairs of columns, `4` or, where r9 is not 0, `5`, in `$slot`. r10, r11: addresses.
macro_rules! choose {
    ($slot:literal) => {
        lines!(
            "adr.w   r10, 4f",
            "adr.w   r11, 5f",
            "cmp     r9, #0",
            "it      ne",
            "movne   r10, r11",
            "add     r10, r10, #1",
            concat!("str r10, ", $slot),
        )
    };
}

/// Sums to values before their shift, with r1: multiplier, r8: constant. A rounded product of 0 comes from sums of either sign, but there the term for
/// negative ones changes nothing: half of the unit is left.
macro_rules! scaled {
    ($($sum:literal),*) => {
        lines!(
            $(concat!("smmulr ", $sum, ", ", $sum, ", r1"),)*
            $(concat!("add ", $sum, ", ", $sum, ", ", $sum, ", asr #31"),)*
            $(concat!("add ", $sum, ", r8"),)*
        )
    };
}

/// The kernel of a strip of stride 1. Addresses of the upper and lower slot of two columns, of which one moves r0 to the next two, and of those.
macro_rules! strip {
    ($(#[$doc:meta])* $name:ident, $upper:literal, $lower:literal, $next_upper:literal, $next_lower:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(slots: *const u32, frame: &Frame) {
            naked_asm!(
                dsp_on!(),
                "
                push    {{r4-r11, lr}}
                sub     sp, #60
                ldm     r1, {{r2-r10}}
                str     r10, [sp, #52]
                add     r1, sp, #20
                stm     r1, {{r2-r8}}
                ",
                choose!("[sp, #48]"),
                "
            1:
                ldrd    r1, lr, [sp, #28]
                ldm     r1!, {{r2-r7, r9-r12}}
                str     r1, [sp, #28]
                stm     sp, {{r9-r12}}
                ldr     r1, [sp, #40]
                add     r1, r0
                str     r1, [sp, #16]
            2:
                ",
                lines!(
                    concat!("ldrd r1, r8, ", $upper),
                    "smlad   r9, r1, r2, r12",
                    "smlatb  r10, r1, r2, r12",
                    "smlad   r11, r8, r2, r12",
                    "smlatb  r12, r8, r2, r12",
                    "smlad   r9, r8, r3, r9",
                    "smlatb  r10, r8, r3, r10",
                    concat!("ldrd r1, r8, ", $lower),
                    "smlabt  r9, r1, r5, r9",
                    "smlad   r10, r1, r5, r10",
                    "smlabt  r11, r8, r5, r11",
                    "smlad   r12, r8, r5, r12",
                    "smlabt  r9, r8, r6, r9",
                    "smlad   r10, r8, r6, r10",
                    concat!("ldrd r1, r8, ", $next_upper),
                    "smlad   r9, r1, r4, r9",
                    "smlatb  r10, r1, r4, r10",
                    "smlad   r11, r1, r3, r11",
                    "smlatb  r12, r1, r3, r12",
                    "smlad   r11, r8, r4, r11",
                    "smlatb  r12, r8, r4, r12",
                    concat!("ldrd r1, r8, ", $next_lower),
                    "smlabt  r9, r1, r7, r9",
                    "smlad   r10, r1, r7, r10",
                    "smlabt  r11, r1, r6, r11",
                    "smlad   r12, r1, r6, r12",
                    "smlabt  r11, r8, r7, r11",
                    "smlad   r12, r8, r7, r12",
                ),
                "
                ldrd    r1, r8, [sp]
                ldr     pc, [sp, #48]
            4:
                smmlar  r9, r9, r1, r8
                smmlar  r10, r10, r1, r8
                smmlar  r11, r11, r1, r8
                smmlar  r12, r12, r1, r8
            6:
                ldr     r1, [sp, #8]
                asr     r9, r9, r1
                asr     r10, r10, r1
                asr     r11, r11, r1
                asr     r12, r12, r1
                ldrd    r1, r8, [sp, #20]
                ssat    r9, #8, r9
                ssat    r10, #8, r10
                ssat    r11, #8, r11
                ssat    r12, #8, r12
                strb    r10, [lr, r8]
                strb    r9, [lr]
                add     lr, r1
                strb    r12, [lr, r8]
                strb    r11, [lr]
                add     lr, r1
                ldrd    r12, r1, [sp, #12]
                cmp     r0, r1
                bne     2b
                ldr     r1, [sp, #44]
                cbz     r1, 3f
                ",
                lines!(
                    concat!("ldrd r1, r8, ", $upper),
                    "smlad   r9, r1, r2, r12",
                    "smlatb  r10, r1, r2, r12",
                    "smlad   r9, r8, r3, r9",
                    "smlatb  r10, r8, r3, r10",
                    concat!("ldrd r1, r8, ", $lower),
                    "smlabt  r9, r1, r5, r9",
                    "smlad   r10, r1, r5, r10",
                    "smlabt  r9, r8, r6, r9",
                    "smlad   r10, r8, r6, r10",
                    concat!("ldr r1, ", $next_upper),
                    concat!("ldr r8, ", $next_lower),
                    "smlad   r9, r1, r4, r9",
                    "smlatb  r10, r1, r4, r10",
                    "smlabt  r9, r8, r7, r9",
                    "smlad   r10, r8, r7, r10",
                ),
                "
                ldrd    r1, r8, [sp]
                ",
                scaled!("r9", "r10"),
                "
                ldr     r1, [sp, #8]
                ldr     r8, [sp, #24]
                asr     r9, r9, r1
                asr     r10, r10, r1
                ssat    r9, #8, r9
                ssat    r10, #8, r10
                strb    r10, [lr, r8]
                strb    r9, [lr]
            3:
                ldrd    r1, r2, [sp, #32]
                ldr     r3, [sp, #52]
                add     r0, r3
                adds    r1, #1
                subs    r2, #1
                strd    r1, r2, [sp, #32]
                bne     1b
                add     sp, #60
                pop     {{r4-r11, pc}}
            5:
                ",
                scaled!("r9", "r10", "r11", "r12"),
                "
                b       6b
                ",
                dsp_off!(),
            )
        }
    };
}

strip!(
    /// Two rows of outputs of all channels, requantised, to [-128, 127]. Slot 0 has the strip's rows 0 and 1, slot 1 its
    /// rows 2 and 3. For each output the bias and 9 products, by SMLAD of (upper, middle) or (middle, lower) and a halfword product.
    ///
    /// r0: columns, r2-r4: weights (upper, middle), r5-r7: (middle, lower), r9-r12: sums of 2x2 outputs, lr: output. Stack: multiplier, constant, shift, bias,
    /// end of the pairs of columns, then the frame, its last word the code that scales.
    ///
    /// # Safety
    /// `slots` has the columns under `outputs = pair_bytes / 8 + single` windows for each channel, in pairs of columns, one channel behind the other;
    /// `constants` 10 words for each channel. Bytes at `output`, every `step` further, and `below` further, are writable for each output.
    strip_even, "[r0], #16", "[r0, #-8]", "[r0]", "[r0, #8]"
);
strip!(
    /// Like [`strip_even`], with the slots swapped.
    ///
    /// # Safety
    /// As [`strip_even`].
    strip_odd, "[r0, #8]", "[r0], #16", "[r0, #8]", "[r0]"
);

/// The kernel of a strip of one row with stride 2. Registers with the upper slot of two columns, and with the lower one.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident, $upper0:literal, $upper1:literal, $lower0:literal, $lower1:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(slots: *const u32, frame: &Frame) {
            naked_asm!(
                dsp_on!(),
                "
                push    {{r4-r11, lr}}
                sub     sp, #52
                ldm     r1, {{r2-r10}}
                str     r10, [sp, #48]
                str     r2, [sp, #12]
                add     r1, sp, #24
                stm     r1, {{r4-r8}}
                ",
                choose!("[sp, #44]"),
                "
            1:
                ldrd    r1, lr, [sp, #24]
                ldm     r1!, {{r2-r7, r9-r12}}
                str     r1, [sp, #24]
                stm     sp, {{r9-r11}}
                str     r12, [sp, #16]
                ldr     r1, [sp, #36]
                add     r1, r0
                str     r1, [sp, #20]
            2:
                ldm     r0!, {{r1, r8-r10}}
                ",
                lines!(
                    concat!("smlad  r11, ", $upper0, ", r2, r12"),
                    concat!("smlabt r11, ", $lower0, ", r5, r11"),
                    concat!("smlad  r11, ", $upper1, ", r3, r11"),
                    concat!("smlabt r11, ", $lower1, ", r6, r11"),
                    "ldm r0!, {{r1, r8-r10}}",
                    concat!("smlad  r11, ", $upper0, ", r4, r11"),
                    concat!("smlabt r11, ", $lower0, ", r7, r11"),
                    concat!("smlad  r12, ", $upper0, ", r2, r12"),
                    concat!("smlabt r12, ", $lower0, ", r5, r12"),
                    concat!("smlad  r12, ", $upper1, ", r3, r12"),
                    concat!("smlabt r12, ", $lower1, ", r6, r12"),
                    "ldm r0, {{r1, r8-r10}}",
                    concat!("smlad  r12, ", $upper0, ", r4, r12"),
                    concat!("smlabt r12, ", $lower0, ", r7, r12"),
                ),
                "
                ldm     sp, {{r1, r8-r10}}
                ldr     pc, [sp, #44]
            4:
                smmlar  r11, r11, r1, r8
                smmlar  r12, r12, r1, r8
            6:
                asr     r11, r11, r9
                asr     r12, r12, r9
                ssat    r11, #8, r11
                ssat    r12, #8, r12
                strb    r12, [lr, r10]
                strb    r11, [lr]
                add     lr, lr, r10, lsl #1
                ldrd    r12, r1, [sp, #16]
                cmp     r0, r1
                bne     2b
                ldr     r1, [sp, #40]
                cbz     r1, 3f
                ldm     r0!, {{r1, r8-r10}}
                ",
                lines!(
                    concat!("smlad  r11, ", $upper0, ", r2, r12"),
                    concat!("smlabt r11, ", $lower0, ", r5, r11"),
                    concat!("smlad  r11, ", $upper1, ", r3, r11"),
                    concat!("smlabt r11, ", $lower1, ", r6, r11"),
                    "ldm r0, {{r1, r8-r10}}",
                    concat!("smlad  r11, ", $upper0, ", r4, r11"),
                    concat!("smlabt r11, ", $lower0, ", r7, r11"),
                ),
                "
                ldm     sp, {{r1, r8-r10}}
                ",
                scaled!("r11"),
                "
                asr     r11, r11, r9
                ssat    r11, #8, r11
                strb    r11, [lr]
            3:
                ldrd    r1, r2, [sp, #28]
                ldr     r3, [sp, #48]
                add     r0, r3
                adds    r1, #1
                subs    r2, #1
                strd    r1, r2, [sp, #28]
                bne     1b
                add     sp, #52
                pop     {{r4-r11, pc}}
            5:
                ",
                scaled!("r11", "r12"),
                "
                b       6b
                ",
                dsp_off!(),
            )
        }
    };
}

row!(
    /// One row of outputs of all channels with stride 2, requantised, to [-128, 127]. Slot 0 has the rows 0 and 1 under the windows, slot 1 row 2 and one more.
    /// For each output the bias and 9 products, by SMLAD of (upper, middle) and a halfword product.
    ///
    /// r0: columns, r2-r4: weights (upper, middle), r5-r7: (middle, lower), r11, r12: sums of two outputs, lr: output. Stack: multiplier, constant, shift, step,
    /// bias, end of the pairs of columns, then the rest of the frame, its last word the code that scales.
    ///
    /// # Safety
    /// As [`strip_even`], without the outputs below; `pair_bytes` is 16 for each output of a pair.
    row2_even, "r1", "r8", "r9", "r10"
);
row!(
    /// Like [`row2_even`], with the slots swapped.
    ///
    /// # Safety
    /// As [`row2_even`].
    row2_odd, "r9", "r10", "r1", "r8"
);

/// One row of outputs of all channels with stride 1, requantised, to [-128, 127]. Slot 0 has the first two rows under the windows, slot 1 of even columns
/// the third one, as pairs of columns. For each output the bias and 9 products: three SMLAD of (upper, middle), one of two neighbours and one of a halfword
/// below.
///
/// r0: columns, r2-r4: weights (upper, middle), r5, r6: those of the third row (left, middle) and (middle, right), r9-r12: sums of four outputs, lr: output.
/// Stack: multiplier, constant, shift, step, bias, end of the quads of outputs, then constants, output, channels left, bytes of the quads, the code that
/// stores a quad, outputs left over, first columns, advance, the code that stores.
///
/// # Safety
/// As [`strip_even`], without the outputs below; `pair_bytes` is 32 for each quad of outputs, and a pair of columns more is readable behind the last channel.
#[unsafe(naked)]
pub unsafe extern "C" fn row1(slots: *const u32, frame: &Frame) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #60
        ldm     r1, {{r2-r10}}
        str     r2, [sp, #12]
        adr.w   r9, 6f
        adds    r9, #1
        add     r1, sp, #24
        stm     r1!, {{r4-r7, r9}}
        str     r8, [r1]
        str     r10, [sp, #52]
    1:
        str     r0, [sp, #48]
        ldrd    r1, lr, [sp, #24]
        ldm     r1!, {{r2-r7, r9-r12}}
        str     r1, [sp, #24]
        stm     sp, {{r9-r11}}
        str     r12, [sp, #16]
        pkhtb   r5, r6, r5, asr #16
        pkhtb   r6, r7, r6, asr #16
        ldrd    r1, r7, [sp, #36]
        str     r7, [sp, #56]
        adds    r1, r0, r1
        str     r1, [sp, #20]
        cmp     r0, r1
        beq     7f
    2:
        ldm     r0!, {{r1, r7, r8, r11}}
        smlad   r9, r1, r2, r12
        smlad   r10, r7, r2, r12
        smlad   r9, r7, r3, r9
        smlad   r9, r8, r5, r9
        smlatb  r10, r8, r5, r10
        ldm     r0!, {{r1, r7, r8, r11}}
        smlad   r9, r1, r4, r9
        smlabt  r9, r8, r6, r9
        smlad   r10, r1, r3, r10
        smlad   r10, r7, r4, r10
        smlad   r10, r8, r6, r10
        smlad   r11, r1, r2, r12
        smlad   r12, r7, r2, r12
        smlad   r11, r7, r3, r11
        smlad   r11, r8, r5, r11
        smlatb  r12, r8, r5, r12
        ldm     r0, {{r1, r7, r8}}
        smlad   r11, r1, r4, r11
        smlabt  r11, r8, r6, r11
        smlad   r12, r1, r3, r12
        smlad   r12, r7, r4, r12
        smlad   r12, r8, r6, r12
        ldrd    r1, r7, [sp]
        smmlar  r8, r9, r1, r7
        add     r9, r8, r9, asr #31
        smmlar  r8, r10, r1, r7
        add     r10, r8, r10, asr #31
        smmlar  r8, r11, r1, r7
        add     r11, r8, r11, asr #31
        smmlar  r8, r12, r1, r7
        add     r12, r8, r12, asr #31
        ldrd    r1, r7, [sp, #8]
        asr     r9, r9, r1
        asr     r10, r10, r1
        asr     r11, r11, r1
        asr     r12, r12, r1
        ssat    r9, #8, r9
        ssat    r10, #8, r10
        ssat    r11, #8, r11
        ssat    r12, #8, r12
        ldr     pc, [sp, #56]
        .balign 4
    6:
        strb    r10, [lr, r7]
        strb    r9, [lr]
        add     lr, lr, r7, lsl #1
        strb    r12, [lr, r7]
        strb    r11, [lr]
        add     lr, lr, r7, lsl #1
        ldrd    r12, r1, [sp, #16]
        cmp     r0, r1
        bne     2b
    7:
        ldr     r1, [sp, #44]
        cbz     r1, 3f
        adr.w   r1, 5f
        adds    r1, #1
        str     r1, [sp, #56]
        b       2b
        .balign 4
    5:
        ldr     r1, [sp, #44]
        cmp     r1, #2
        strb    r9, [lr]
        blo     3f
        strb    r10, [lr, r7]
        beq     3f
        strb    r11, [lr, r7, lsl #1]
    3:
        ldrd    r1, r2, [sp, #28]
        ldrd    r0, r3, [sp, #48]
        adds    r1, #1
        add     r0, r3
        subs    r2, #1
        strd    r1, r2, [sp, #28]
        bne     1b
        add     sp, #60
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}
