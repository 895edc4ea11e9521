//! The inner loops of matrix products: tiles of three positions by two outputs.
//!
//! A tile needs its activations as *columns*: for every four positions of the inner product, the words `(k, k + 2)` of 16 bits of three windows,
//! then their words `(k + 1, k + 3)`. The columns of three windows serve all outputs. [`narrow`] and [`wide`] run over blocks of three
//! windows and, in each, over pairs of outputs; they fill six sums, r2 to r4 for the even output of the pair and r5 to r7 for the odd one,
//! and jump to the code at [`Run::scale`]. That code turns the sums into outputs and jumps to the code at [`Run::store`], which stores them and jumps back
//! to the address in the frame. Neither is a function of its own: they share frame and registers.

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};

/// Inner-product positions of one step of the inner loops.
pub const GROUP: usize = 4;
/// Windows of a block.
pub const BLOCK: usize = 3;
/// Words of constants for a pair of outputs: two first sums, then factor, addend and shift of the even and of the odd output.
pub const PAIR_WORDS: usize = 8;
/// Bytes of columns for a group.
pub const GROUP_COLUMNS: usize = 2 * GROUP * BLOCK;

/// Groups that an inner loop takes between two branches.
const UNROLL: usize = 9;
/// Bytes of code for a group in [`narrow`]: 17 instructions.
const NARROW_STEP: usize = 68;
/// Bytes of code for a group in [`wide`]: 19 instructions.
const WIDE_STEP: usize = 76;

/// What a run over blocks works on. The functions copy it to the stack, behind four words that change with each pair: constants, and the
/// places of the next outputs of the three windows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    /// The columns, [`GROUP_COLUMNS`] bytes for each group.
    pub columns: *mut u8,
    /// [`LOW_BYTES`].
    pub mask: u32,
    /// Behind the columns.
    pub columns_end: *mut u8,
    /// Packed weights of the first pair.
    pub weights: *const i8,
    /// How often [`narrow`] runs its inner loop.
    pub passes: usize,
    /// Where in the unrolled loop the first pass begins: bytes from its start. The functions make an address of it.
    pub entry: usize,
    /// The code that fills the columns.
    pub fill: Part,
    /// Filled by the functions: where that code jumps to.
    pub filled: usize,
    /// The code that takes the sums. `None`: that of [`narrow`] itself, for unsigned sums and bounded bytes.
    pub scale: Option<Part>,
    /// What the scaling code jumps to: code that stores values, or [`shift_to_zero`].
    pub store: Part,
    /// The code that stores values, for [`shift_to_zero`].
    pub store_shifted: Part,
    /// Filled by the functions: where that code jumps to.
    pub next: usize,
    /// What [`shift_to_zero`] adds to values.
    pub zero: i32,
    /// Constants of the first pair. [`LAST`] in its last word ends a block.
    pub constants: *const i32,
    /// What storing code adds in every lane, with saturation.
    pub top: u32,
    /// What it adds then, modulo.
    pub back: u32,
    /// Outputs of the first window.
    pub out: *mut u8,
    /// Bytes to the outputs of the next block's first window.
    pub out_advance: usize,
    /// Bytes from there to the outputs of the second and the third window.
    pub out_steps: [usize; 2],
    /// Where the first window's segments are counted from.
    pub x: *const u8,
    /// Bytes to that of the next block's first window.
    pub x_advance: usize,
    /// Bytes from there to that of the second and the third window.
    pub x_steps: [usize; 2],
    /// For each segment of a window, bytes from `x` to it.
    pub table: *const u32,
    /// Segments of a window.
    pub segments: usize,
    /// Where segments are put side by side before they are widened, [`Run::gathered_step`] bytes for each window; null: each fills whole groups.
    pub gathered: *mut u8,
    /// Bytes from a window's gathered row to the next one's.
    pub gathered_step: usize,
    /// Bytes of a segment.
    pub segment: usize,
    /// Groups of a segment; of the inner product, if segments are gathered.
    pub groups: usize,
    /// Blocks, at least one.
    pub blocks: usize,
    /// Filled by the functions: where the inner loop of [`narrow`] goes after a pass.
    pub looped: usize,
}

/// Code that the inner loops jump to.
pub type Part = unsafe extern "C" fn();

/// What is left of a word shifted by 8: the low bytes of both halfwords, in their high bytes.
pub const LOW_BYTES: u32 = 0xFF00_FF00;
/// Marks the last pair of a block in its last constant, the shift, of which only the low byte counts.
pub const LAST: i32 = 1 << 8;
/// Lies above [`LAST`]: what [`narrow_signed`] adds for negative sums, times `1 << SIGN`.
pub const SIGN: u32 = 9;

/// Bytes of the words before the copy of [`Run`] in the frame.
const LIVE: usize = 16;
const FRAME: usize = LIVE + size_of::<Run>();
const _: () = assert!(size_of::<Run>() == 32 * 4);

/// Where the first pass enters the unrolled loop, and how many passes there are, for `groups` groups.
pub fn passes(groups: usize, narrow: bool) -> (usize, usize) {
    // The first group stands before the loop.
    let looped = groups.saturating_sub(1);
    let step = if narrow { NARROW_STEP } else { WIDE_STEP };
    let passes = looped.div_ceil(UNROLL).max(1);
    (passes.wrapping_mul(UNROLL).wrapping_sub(looped).wrapping_mul(step), passes)
}

/// Two outputs over four positions and three windows. r0: columns, r1: weights, both advance; r14: mask; r8 to r12 are used.
macro_rules! narrow_group {
    () => {
        "
        ldm     r1!, {{r11, r12}}
        ldm     r0!, {{r8, r9, r10}}
        smlad   r2, r11, r8, r2
        smlad   r3, r11, r9, r3
        smlad   r4, r11, r10, r4
        and     r11, r14, r11, lsl #8
        smlad   r5, r11, r8, r5
        smlad   r6, r11, r9, r6
        smlad   r7, r11, r10, r7
        ldm     r0!, {{r8, r9, r10}}
        smlad   r2, r12, r8, r2
        smlad   r3, r12, r9, r3
        smlad   r4, r12, r10, r4
        and     r12, r14, r12, lsl #8
        smlad   r5, r12, r8, r5
        smlad   r6, r12, r9, r6
        smlad   r7, r12, r10, r7
        "
    };
}

/// As `narrow_group`, of plain weights; r14 is used instead.
macro_rules! wide_group {
    () => {
        "
        ldm     r1!, {{r11, r12}}
        ldm     r0!, {{r8, r9, r10}}
        sxtb16  r14, r11
        smlad   r2, r14, r8, r2
        smlad   r3, r14, r9, r3
        smlad   r4, r14, r10, r4
        sxtb16  r14, r12
        smlad   r5, r14, r8, r5
        smlad   r6, r14, r9, r6
        smlad   r7, r14, r10, r7
        ldm     r0!, {{r8, r9, r10}}
        sxtb16  r11, r11, ror #8
        smlad   r2, r11, r8, r2
        smlad   r3, r11, r9, r3
        smlad   r4, r11, r10, r4
        sxtb16  r12, r12, ror #8
        smlad   r5, r12, r8, r5
        smlad   r6, r12, r9, r6
        smlad   r7, r12, r10, r7
        "
    };
}

/// Saves registers, copies the [`Run`] at r0 into the frame, and makes addresses of labels: 5 (the unrolled loop), 4 (columns are filled),
/// 7 (outputs are stored).
macro_rules! enter {
    () => {
        "
        push    {{r4-r11, lr}}
        sub     sp, #{frame}
        add     r12, sp, #{live}
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldr     r0, [sp, #{entry}]
        adr.w   r1, 5f
        add     r0, r1
        adds    r0, #1
        str     r0, [sp, #{entry}]
        adr.w   r0, 4f
        adds    r0, #1
        str     r0, [sp, #{filled}]
        adr.w   r0, 7f
        adds    r0, #1
        str     r0, [sp, #{next}]
        "
    };
}

/// A block (label 2) gets its columns, the places of its outputs, the first weights and constants.
macro_rules! begin_block {
    () => {
        "
    2:
        ldr     pc, [sp, #{fill}]
    4:
        ldr     r9, [sp, #{out}]
        ldrd    r10, r14, [sp, #{out_steps}]
        add     r10, r9
        add     r14, r9
        ldr     r1, [sp, #{weights}]
        ldr     r8, [sp, #{constants}]
        "
    };
}

/// Label 7: the next pair (label 6), else the next block, else return.
macro_rules! next {
    () => {
        "
    7:
        lsls    r12, r12, #{last}
        bpl     6b
        ldrd    r0, r1, [sp, #{out}]
        ldrd    r2, r3, [sp, #{x}]
        ldr     r4, [sp, #{blocks}]
        add     r0, r1
        add     r2, r3
        str     r0, [sp, #{out}]
        str     r2, [sp, #{x}]
        subs    r4, #1
        str     r4, [sp, #{blocks}]
        bne     2b
        add     sp, #{frame}
        pop     {{r4-r11, pc}}
        "
    };
}

/// Offset of a field in the frame.
macro_rules! at {
    ($field:ident) => {
        LIVE + offset_of!(Run, $field)
    };
}

/// Scales six sums of [`narrow`] whose lower bound is not below the zero point: `(256 * a * factor + addend * 2^32) >> 32 >> shift`. r8 become
/// the next constants, r9, r10 and r14 the places of outputs; r12 is the last shift.
macro_rules! scale_narrow_unsigned {
    () => {
        "
        ldm     sp, {{r8, r9, r10, r14}}
        ldm     r8!, {{r0, r11, r12}}
        sub     r2, r2, r5, asr #8
        sub     r3, r3, r6, asr #8
        sub     r4, r4, r7, asr #8
        smmla   r2, r2, r0, r11
        smmla   r3, r3, r0, r11
        smmla   r4, r4, r0, r11
        asr     r2, r12
        asr     r3, r12
        asr     r4, r12
        ldm     r8!, {{r0, r11, r12}}
        smmla   r5, r5, r0, r11
        smmla   r6, r6, r0, r11
        smmla   r7, r7, r0, r11
        asr     r5, r12
        asr     r6, r12
        asr     r7, r12
        "
    };
}

/// Stores six values as bytes between two bounds, which lie at 0 and `255 - top` in them.
macro_rules! store_bounded_i8 {
    () => {
        "
        usat    r2, #8, r2
        usat    r3, #8, r3
        usat    r4, #8, r4
        usat    r5, #8, r5
        usat    r6, #8, r6
        usat    r7, #8, r7
        bfi     r2, r5, #8, #8
        bfi     r3, r6, #8, #8
        bfi     r4, r7, #8, #8
        pkhbt   r2, r2, r3, lsl #16
        ldrd    r0, r11, [sp, #{top}]
        uqadd8  r2, r2, r0
        uqadd8  r4, r4, r0
        uadd8   r2, r2, r11
        uadd8   r4, r4, r11
        strh    r2, [r9], #2
        lsr     r2, r2, #16
        strh    r2, [r10], #2
        strh    r4, [r14], #2
        "
    };
}

/// Runs over blocks of bytes with weights packed as [`crate::blob::Packing::Pairs`].
///
/// For the pair `(a, b)` of outputs, r2 to r4 come to be `256 * A + B` and r5 to r7 `256 * B`, modulo 2^32, where `A` and `B` are first sum
/// plus `sum x * w` of a window. A stored halfword is `256 * a + b`; shifted by a byte and masked it is `256 * b`.
///
/// # Safety
/// `run` and all that it points to: as many groups of columns, weights and constants as it says, readable; columns, gathered rows and
/// outputs writable; and the activations of every block readable to the end of their last group. Outputs may lie on activations of the
/// same or of an earlier block. Constants end with [`LAST`].
#[unsafe(naked)]
pub unsafe extern "C" fn narrow(run: *const Run) {
    naked_asm!(
        dsp_on!(),
        enter!(),
        "
        ldr     r0, [sp, #{scale}]
        cbnz    r0, 1f
        adr.w   r0, 3f
        adds    r0, #1
        str     r0, [sp, #{scale}]
    1:
        ldr     r1, [sp, #{passes}]
        cmp     r1, #1
        beq     1f
        adr.w   r0, 8f
        adds    r0, #1
    1:
        str     r0, [sp, #{looped}]
        ",
        begin_block!(),
        "
    6:
        ldrd    r2, r5, [r8], #8
        stm     sp, {{r8, r9, r10, r14}}
        ldrd    r0, r14, [sp, #{columns}]
        ldm     r1!, {{r11, r12}}
        ldm     r0!, {{r8, r9, r10}}
        smlad   r3, r11, r9, r2
        smlad   r4, r11, r10, r2
        smlad   r2, r11, r8, r2
        and     r11, r14, r11, lsl #8
        smlad   r6, r11, r9, r5
        smlad   r7, r11, r10, r5
        smlad   r5, r11, r8, r5
        ldm     r0!, {{r8, r9, r10}}
        smlad   r2, r12, r8, r2
        smlad   r3, r12, r9, r3
        smlad   r4, r12, r10, r4
        and     r12, r14, r12, lsl #8
        smlad   r5, r12, r8, r5
        smlad   r6, r12, r9, r6
        smlad   r7, r12, r10, r7
        ldr     pc, [sp, #{entry}]
        .balign 4
    5:
        .rept   {unroll}
        ",
        narrow_group!(),
        "
        .endr
        ldr     pc, [sp, #{looped}]
    8:
        ldr     r12, [sp, #{columns_end}]
        cmp     r0, r12
        bne     5b
        ldr     pc, [sp, #{scale}]
    3:
        ",
        scale_narrow_unsigned!(),
        store_bounded_i8!(),
        next!(),
        dsp_off!(),
        columns_end = const at!(columns_end),
        passes = const at!(passes),
        looped = const at!(looped),
        top = const at!(top),
        frame = const FRAME,
        live = const LIVE,
        last = const 31 - LAST.ilog2(),
        unroll = const UNROLL,
        columns = const at!(columns),
        weights = const at!(weights),
        entry = const at!(entry),
        fill = const at!(fill),
        filled = const at!(filled),
        scale = const at!(scale),
        next = const at!(next),
        constants = const at!(constants),
        out = const at!(out),
        out_steps = const at!(out_steps),
        x = const at!(x),
        blocks = const at!(blocks),
    )
}

/// Runs over blocks of bytes or of 16 bits with weights packed as [`crate::blob::Packing::Blocks2x4`].
///
/// r2 to r4 and r5 to r7 come to be the sums of the even and of the odd output, modulo 2^32.
///
/// # Safety
/// As [`narrow`]; [`Run::scale`] is there.
#[unsafe(naked)]
pub unsafe extern "C" fn wide(run: *const Run) {
    naked_asm!(
        dsp_on!(),
        enter!(),
        begin_block!(),
        "
    6:
        ldrd    r2, r5, [r8], #8
        stm     sp, {{r8, r9, r10, r14}}
        ldr     r0, [sp, #{columns}]
        ldm     r1!, {{r11, r12}}
        ldm     r0!, {{r8, r9, r10}}
        sxtb16  r14, r11
        smlad   r3, r14, r9, r2
        smlad   r4, r14, r10, r2
        smlad   r2, r14, r8, r2
        sxtb16  r14, r12
        smlad   r6, r14, r9, r5
        smlad   r7, r14, r10, r5
        smlad   r5, r14, r8, r5
        ldm     r0!, {{r8, r9, r10}}
        sxtb16  r11, r11, ror #8
        smlad   r2, r11, r8, r2
        smlad   r3, r11, r9, r3
        smlad   r4, r11, r10, r4
        sxtb16  r12, r12, ror #8
        smlad   r5, r12, r8, r5
        smlad   r6, r12, r9, r6
        smlad   r7, r12, r10, r7
        ldr     pc, [sp, #{entry}]
        .balign 4
    5:
        .rept   {unroll}
        ",
        wide_group!(),
        "
        .endr
        ldr     r14, [sp, #{columns_end}]
        cmp     r0, r14
        bne     5b
        ldr     pc, [sp, #{scale}]
        ",
        next!(),
        dsp_off!(),
        columns_end = const at!(columns_end),
        frame = const FRAME,
        live = const LIVE,
        last = const 31 - LAST.ilog2(),
        unroll = const UNROLL,
        columns = const at!(columns),
        weights = const at!(weights),
        entry = const at!(entry),
        fill = const at!(fill),
        filled = const at!(filled),
        scale = const at!(scale),
        next = const at!(next),
        constants = const at!(constants),
        out = const at!(out),
        out_steps = const at!(out_steps),
        x = const at!(x),
        blocks = const at!(blocks),
    )
}

/// For each segment: its places in three windows, r1 to r3. r4: table, r5: segments left, r6 is used.
macro_rules! segment {
    () => {
        "
        ldr     r1, [r4], #4
        ldr     r6, [sp, #{x}]
        ldrd    r2, r3, [sp, #{x_steps}]
        add     r1, r6
        add     r2, r1
        add     r3, r1
        "
    };
}

/// Words of three windows to columns.
macro_rules! widen_word {
    () => {
        "
        ldr     r6, [r1], #4
        ldr     r7, [r2], #4
        ldr     r8, [r3], #4
        sxtb16  r9, r6, ror #8
        sxtb16  r10, r7, ror #8
        sxtb16  r11, r8, ror #8
        sxtb16  r6, r6
        sxtb16  r7, r7
        sxtb16  r8, r8
        stm     r0!, {{r6-r11}}
        "
    };
}

/// Nothing to fill.
#[unsafe(naked)]
pub unsafe extern "C" fn fill_nothing() {
    naked_asm!("ldr pc, [sp, #{filled}]", filled = const at!(filled))
}

/// Fills the columns with bytes. Segments that do not fill whole groups are first copied side by side, to the end of a word each, the next one
/// over what was too much; then the gathered rows are one segment. r0: columns or gathered row, r1 to r3: places in the windows, r4: table, r5:
/// segments left, r12: bytes, then groups left.
#[unsafe(naked)]
pub unsafe extern "C" fn fill_i8() {
    naked_asm!(
        dsp_on!(),
        "
        ldr     r0, [sp, #{gathered}]
        ldrd    r4, r5, [sp, #{table}]
        cmp     r0, #0
        beq     4f
        ldr     r10, [sp, #{gathered_step}]
        lsl     r11, r10, #1
    1:
        ",
        segment!(),
        "
        ldr     r12, [sp, #{segment}]
        add     r9, r0, r12
    2:
        ldr     r6, [r1], #4
        ldr     r7, [r2], #4
        ldr     r8, [r3], #4
        str     r7, [r0, r10]
        str     r8, [r0, r11]
        str     r6, [r0], #4
        subs    r12, #4
        bhi     2b
        mov     r0, r9
        subs    r5, #1
        bne     1b
        ldr     r1, [sp, #{gathered}]
        add     r2, r1, r10
        add     r3, r1, r11
        ldr     r0, [sp, #{columns}]
        ldr     r12, [sp, #{groups}]
        movs    r5, #1
        b       5f
    4:
        ldr     r0, [sp, #{columns}]
        ldr     r12, [sp, #{groups}]
        cmp     r12, #1
        bne     3f
        ldr     r14, [sp, #{x}]
        ldrd    r2, r3, [sp, #{x_steps}]
    8:
        ldr     r1, [r4], #4
        add     r1, r14
        ldr     r6, [r1]
        ldr     r7, [r1, r2]
        ldr     r8, [r1, r3]
        sxtb16  r9, r6, ror #8
        sxtb16  r10, r7, ror #8
        sxtb16  r11, r8, ror #8
        sxtb16  r6, r6
        sxtb16  r7, r7
        sxtb16  r8, r8
        stm     r0!, {{r6-r11}}
        subs    r5, #1
        bne     8b
        ldr     pc, [sp, #{filled}]
    3:
        ",
        segment!(),
        "
        ldr     r12, [sp, #{groups}]
    5:
        lsrs    r12, r12, #1
        bcc     6f
        ",
        widen_word!(),
        "
        beq     7f
    6:
        ",
        widen_word!(),
        widen_word!(),
        "
        subs    r12, #1
        bne     6b
    7:
        subs    r5, #1
        bne     3b
        ldr     pc, [sp, #{filled}]
        ",
        dsp_off!(),
        columns = const at!(columns),
        filled = const at!(filled),
        x = const at!(x),
        x_steps = const at!(x_steps),
        table = const at!(table),
        gathered = const at!(gathered),
        gathered_step = const at!(gathered_step),
        segment = const at!(segment),
        groups = const at!(groups),
    )
}

/// As [`fill_i8`], with 16 bits: words `(k, k + 1)`, `(k + 2, k + 3)` become `(k, k + 2)`, `(k + 1, k + 3)`.
#[unsafe(naked)]
pub unsafe extern "C" fn fill_i16() {
    naked_asm!(
        dsp_on!(),
        "
        ldr     r0, [sp, #{gathered}]
        ldrd    r4, r5, [sp, #{table}]
        cmp     r0, #0
        beq     4f
        ldr     r10, [sp, #{gathered_step}]
        lsl     r11, r10, #1
    1:
        ",
        segment!(),
        "
        ldr     r12, [sp, #{segment}]
        add     r9, r0, r12
    2:
        ldr     r6, [r1], #4
        ldr     r7, [r2], #4
        ldr     r8, [r3], #4
        str     r7, [r0, r10]
        str     r8, [r0, r11]
        str     r6, [r0], #4
        subs    r12, #4
        bhi     2b
        mov     r0, r9
        subs    r5, #1
        bne     1b
        ldr     r1, [sp, #{gathered}]
        add     r2, r1, r10
        add     r3, r1, r11
        ldr     r0, [sp, #{columns}]
        ldr     r12, [sp, #{groups}]
        movs    r5, #1
        b       5f
    4:
        ldr     r0, [sp, #{columns}]
    3:
        ",
        segment!(),
        "
        ldr     r12, [sp, #{groups}]
    5:
        ldr     r14, [r1], #4
        ldr     r9, [r1], #4
        pkhbt   r6, r14, r9, lsl #16
        pkhtb   r9, r9, r14, asr #16
        ldr     r14, [r2], #4
        ldr     r10, [r2], #4
        pkhbt   r7, r14, r10, lsl #16
        pkhtb   r10, r10, r14, asr #16
        ldr     r14, [r3], #4
        ldr     r11, [r3], #4
        pkhbt   r8, r14, r11, lsl #16
        pkhtb   r11, r11, r14, asr #16
        stm     r0!, {{r6-r11}}
        subs    r12, #1
        bne     5b
        subs    r5, #1
        bne     3b
        ldr     pc, [sp, #{filled}]
        ",
        dsp_off!(),
        columns = const at!(columns),
        filled = const at!(filled),
        x = const at!(x),
        x_steps = const at!(x_steps),
        table = const at!(table),
        gathered = const at!(gathered),
        gathered_step = const at!(gathered_step),
        segment = const at!(segment),
        groups = const at!(groups),
    )
}
/// Scales sums of [`narrow`] whose lower bound is not below the zero point.
#[unsafe(naked)]
pub unsafe extern "C" fn narrow_unsigned() {
    naked_asm!(
        dsp_on!(),
        scale_narrow_unsigned!(),
        "ldr pc, [sp, #{store}]",
        dsp_off!(),
        store = const at!(store),
    )
}

/// Scales six sums of [`narrow`]. The shift's upper bytes are what is added for a negative sum.
#[unsafe(naked)]
pub unsafe extern "C" fn narrow_signed() {
    naked_asm!(
        dsp_on!(),
        "
        ldr     r8, [sp]
        ldm     r8!, {{r0, r11, r12}}
        asr     r14, r12, #{sign}
        sub     r2, r2, r5, asr #8
        sub     r3, r3, r6, asr #8
        sub     r4, r4, r7, asr #8
        smmla   r9, r2, r0, r11
        and     r2, r14, r2, asr #31
        smmla   r10, r3, r0, r11
        and     r3, r14, r3, asr #31
        smmla   r11, r4, r0, r11
        and     r4, r14, r4, asr #31
        add     r2, r9
        add     r3, r10
        add     r4, r11
        asr     r2, r12
        asr     r3, r12
        asr     r4, r12
        ldm     r8!, {{r0, r11, r12}}
        asr     r14, r12, #{sign}
        smmla   r9, r5, r0, r11
        and     r5, r14, r5, asr #31
        smmla   r10, r6, r0, r11
        and     r6, r14, r6, asr #31
        smmla   r11, r7, r0, r11
        and     r7, r14, r7, asr #31
        add     r5, r9
        add     r6, r10
        add     r7, r11
        asr     r5, r12
        asr     r6, r12
        asr     r7, r12
        ldrd    r9, r10, [sp, #4]
        ldr     r14, [sp, #12]
        ldr     pc, [sp, #{store}]
        ",
        dsp_off!(),
        sign = const SIGN,
        store = const at!(store),
    )
}

/// Stores six sums as they are, three words of the even output and three of the odd one, where the first window's outputs would be. Ends the
/// block.
#[unsafe(naked)]
pub unsafe extern "C" fn keep_sums() {
    naked_asm!(
        "
        ldr     r9, [sp, #4]
        mov     r12, #{last}
        stm     r9, {{r2-r7}}
        ldr     pc, [sp, #{next}]
        ",
        last = const LAST,
        next = const at!(next),
    )
}

/// Adds the zero point to six values, then stores them: for shifts so great that an addend cannot hold it.
#[unsafe(naked)]
pub unsafe extern "C" fn shift_to_zero() {
    naked_asm!(
        "
        ldr     r0, [sp, #{zero}]
        add     r2, r0
        add     r3, r0
        add     r4, r0
        add     r5, r0
        add     r6, r0
        add     r7, r0
        ldr     pc, [sp, #{store}]
        ",
        zero = const at!(zero),
        store = const at!(store_shifted),
    )
}

/// Scales six sums of [`wide`] whose lower bound is not below the zero point: the product's high word, rounded, plus addend,
/// shifted.
#[unsafe(naked)]
pub unsafe extern "C" fn wide_unsigned() {
    naked_asm!(
        dsp_on!(),
        "
        lsl     r2, r2, #1
        lsl     r3, r3, #1
        lsl     r4, r4, #1
        lsl     r5, r5, #1
        lsl     r6, r6, #1
        lsl     r7, r7, #1
        ldm     sp, {{r8, r9, r10, r14}}
        ldm     r8!, {{r0, r11, r12}}
        smmlar  r2, r2, r0, r11
        smmlar  r3, r3, r0, r11
        smmlar  r4, r4, r0, r11
        asr     r2, r12
        asr     r3, r12
        asr     r4, r12
        ldm     r8!, {{r0, r11, r12}}
        smmlar  r5, r5, r0, r11
        smmlar  r6, r6, r0, r11
        smmlar  r7, r7, r0, r11
        asr     r5, r12
        asr     r6, r12
        asr     r7, r12
        ldr     pc, [sp, #{store}]
        ",
        dsp_off!(),
        store = const at!(store),
    )
}

/// Scales six sums of [`wide`]: the product's high word, rounded, plus addend, less one for a negative sum, shifted.
#[unsafe(naked)]
pub unsafe extern "C" fn wide_signed() {
    naked_asm!(
        dsp_on!(),
        "
        lsl     r2, r2, #1
        lsl     r3, r3, #1
        lsl     r4, r4, #1
        lsl     r5, r5, #1
        lsl     r6, r6, #1
        lsl     r7, r7, #1
        ldr     r8, [sp]
        ldm     r8!, {{r0, r11, r12}}
        smmlar  r9, r2, r0, r11
        smmlar  r10, r3, r0, r11
        smmlar  r14, r4, r0, r11
        add     r2, r9, r2, asr #31
        add     r3, r10, r3, asr #31
        add     r4, r14, r4, asr #31
        asr     r2, r12
        asr     r3, r12
        asr     r4, r12
        ldm     r8!, {{r0, r11, r12}}
        smmlar  r9, r5, r0, r11
        smmlar  r10, r6, r0, r11
        smmlar  r14, r7, r0, r11
        add     r5, r9, r5, asr #31
        add     r6, r10, r6, asr #31
        add     r7, r14, r7, asr #31
        asr     r5, r12
        asr     r6, r12
        asr     r7, r12
        ldrd    r9, r10, [sp, #4]
        ldr     r14, [sp, #12]
        ldr     pc, [sp, #{store}]
        ",
        dsp_off!(),
        store = const at!(store),
    )
}

/// Stores six values as bytes that only their type bounds.
#[unsafe(naked)]
pub unsafe extern "C" fn store_full_i8() {
    naked_asm!(
        "
        ssat    r2, #8, r2
        ssat    r3, #8, r3
        ssat    r4, #8, r4
        ssat    r5, #8, r5
        ssat    r6, #8, r6
        ssat    r7, #8, r7
        strb    r2, [r9], #1
        strb    r5, [r9], #1
        strb    r3, [r10], #1
        strb    r6, [r10], #1
        strb    r4, [r14], #1
        strb    r7, [r14], #1
        ldr     pc, [sp, #{next}]
        ",
        next = const at!(next),
    )
}

/// Stores bytes between two bounds.
#[unsafe(naked)]
pub unsafe extern "C" fn store_i8() {
    naked_asm!(
        dsp_on!(),
        store_bounded_i8!(),
        "ldr pc, [sp, #{next}]",
        dsp_off!(),
        top = const at!(top),
        next = const at!(next),
    )
}

/// Stores six values as 16 bits between two bounds, which lie at 0 and `65535 - top` in them.
#[unsafe(naked)]
pub unsafe extern "C" fn store_i16() {
    naked_asm!(
        dsp_on!(),
        "
        usat    r2, #16, r2
        usat    r3, #16, r3
        usat    r4, #16, r4
        usat    r5, #16, r5
        usat    r6, #16, r6
        usat    r7, #16, r7
        ldrd    r0, r11, [sp, #{top}]
        pkhbt   r2, r2, r5, lsl #16
        pkhbt   r3, r3, r6, lsl #16
        pkhbt   r4, r4, r7, lsl #16
        uqadd16 r2, r2, r0
        uqadd16 r3, r3, r0
        uqadd16 r4, r4, r0
        uadd16  r2, r2, r11
        uadd16  r3, r3, r11
        uadd16  r4, r4, r11
        str     r2, [r9], #4
        str     r3, [r10], #4
        str     r4, [r14], #4
        ldr     pc, [sp, #{next}]
        ",
        dsp_off!(),
        top = const at!(top),
        next = const at!(next),
    )
}
