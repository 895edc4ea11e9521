//! The inner loops: two rows by two columns by four outputs, from transformed columns and weights.
//!
//! The transformed columns are `[pair of inputs][plane][column]`, words of two inputs each; a tile reads four columns. [`product`] takes the planes one after the
//! other. Eight sums, r2 to r5 for the left column and r6 to r9 for the right one, start at twice the bias and run through planes 0, 1 and 2: then
//! they are twice the upper row. The lower row starts at `p - q = 2 p - (p + q)`, for what plane 0 and plane 1 gave, and runs through plane 3. The code at
//! [`Run::scale`] turns sums into outputs and jumps to that at [`Run::store`], which stores them and jumps back to the address in the
//! frame. They share frame and registers.

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::backend::spec::dsp::winograd::{GROUP_BYTES, QUAD_BYTES, REACH};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::blob::winograd::PLANES;

/// Code that [`product`] jumps to.
pub type Part = unsafe extern "C" fn();

/// Groups that the inner loop takes between two branches.
const UNROLL: usize = 2;
/// Bytes of code for a group: twice 33 instructions.
const STEP: usize = 264;
/// Bytes of a plane of a pair of inputs.
const PLANE_BYTES: usize = 4 * REACH;
/// Bytes of a pair of inputs.
const PAIR_BYTES: usize = PLANES * PLANE_BYTES;

/// What [`product`] works on. It copies it to the stack, behind eight words of sums.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    /// Transformed weights.
    pub weights: *const i8,
    /// Where in the unrolled loop the first pass begins: bytes from its start. The function makes an address of it.
    pub entry: usize,
    /// For each plane, a pair of inputs before its first columns.
    pub start: [*const u8; PLANES],
    /// For each plane, its last columns, and the address behind its loop, which the function fills in.
    pub finish: [[*const u8; 2]; PLANES],
    /// Filled by the function: those of the plane that runs.
    pub current: [*const u8; 2],
    /// The code that scales sums.
    pub scale: Part,
    /// The code that stores values.
    pub store: Part,
    /// Filled by the function: where that code jumps to, now and the next time.
    pub done: [usize; 2],
    /// What [`scale_signed`] adds to values.
    pub zero: i32,
    /// What [`store_bounded`] adds in every lane, with saturation.
    pub top: u32,
    /// What it adds then, modulo.
    pub back: u32,
    /// Constants: two first sums, then factor, addend and shift of two outputs, and so on.
    pub constants: *const i32,
    /// Fours of outputs, at least one.
    pub quads: usize,
    /// Places of the outputs: left and right of the upper row, of the lower row.
    pub out: [*mut u8; 4],
}

/// Bytes of the words before the copy of [`Run`] in the frame.
const LIVE: usize = 32;
const FRAME: usize = LIVE + size_of::<Run>();
const _: () = assert!(size_of::<Run>() == 29 * 4 && PAIR_BYTES == 64 && QUAD_BYTES == 64);

impl Run {
    /// Over the columns of so many groups; the rest is to be filled in.
    pub fn over(columns: *mut u8, groups: usize) -> Self {
        let passes = groups.div_ceil(UNROLL);
        let first = columns.cast_const().wrapping_sub(PAIR_BYTES);
        let start = [0, 1, 2, 3].map(|plane: usize| first.wrapping_add(plane.wrapping_mul(PLANE_BYTES)));
        let all = groups.wrapping_mul(GROUP_BYTES);
        Self {
            weights: core::ptr::null(),
            entry: passes.wrapping_mul(UNROLL).wrapping_sub(groups).wrapping_mul(STEP),
            start,
            finish: start.map(|start| [start.wrapping_add(all), core::ptr::null()]),
            current: [core::ptr::null(); 2],
            scale: scale_unsigned,
            store: store_bounded,
            done: [0; 2],
            zero: 0,
            top: 0,
            back: 0,
            constants: core::ptr::null(),
            quads: 0,
            out: [core::ptr::null_mut(); 4],
        }
    }
}

/// Offset of a field in the frame.
macro_rules! at {
    ($field:ident) => {
        LIVE + offset_of!(Run, $field)
    };
}

/// Four outputs of two columns over two inputs and three columns of weights. r0: columns, r1: weights, both advance; r10 to r12 and r14 are used.
macro_rules! pair {
    () => {
        "
        ldrd    r10, r11, [r0, #64]!
        ldm     r1!, {{r12, r14}}
        smlad   r2, r12, r10, r2
        smlad   r3, r14, r10, r3
        smlad   r6, r12, r11, r6
        smlad   r7, r14, r11, r7
        ldm     r1!, {{r12, r14}}
        smlad   r4, r12, r10, r4
        smlad   r5, r14, r10, r5
        smlad   r8, r12, r11, r8
        smlad   r9, r14, r11, r9
        ldr.w   r10, [r0, #8]
        ldm     r1!, {{r12, r14}}
        smlad   r2, r12, r11, r2
        smlad   r3, r14, r11, r3
        smlad   r6, r12, r10, r6
        smlad   r7, r14, r10, r7
        ldm     r1!, {{r12, r14}}
        smlad   r4, r12, r11, r4
        smlad   r5, r14, r11, r5
        smlad   r8, r12, r10, r8
        smlad   r9, r14, r10, r9
        ldr.w   r11, [r0, #12]
        ldm     r1!, {{r12, r14}}
        smlad   r2, r12, r10, r2
        smlad   r3, r14, r10, r3
        smlad   r6, r12, r11, r6
        smlad   r7, r14, r11, r7
        ldm     r1!, {{r12, r14}}
        smlad   r4, r12, r10, r4
        smlad   r5, r14, r10, r5
        smlad   r8, r12, r11, r8
        smlad   r9, r14, r11, r9
        "
    };
}

/// Runs the sums through a plane, then jumps to the address behind its loop.
macro_rules! plane {
    ($start:literal, $finish:literal) => {
        concat!(
            "ldr r0, [sp, #",
            $start,
            "]\n ldrd r10, r11, [sp, #",
            $finish,
            "]\n strd r10, r11, [sp, #{current}]\n ldr pc, [sp, #{entry}]\n"
        )
    };
}

/// Makes the address of a label, as a jump target.
macro_rules! address {
    ($label:literal, $at:literal) => {
        concat!("adr.w r0, ", $label, "\n adds r0, #1\n str r0, [sp, #", $at, "]\n")
    };
}

/// All outputs of two rows by two columns.
///
/// # Safety
/// `run` and all that it points to: columns of as many groups as [`Run::over`] was told, weights and constants of all outputs, readable; as many bytes as
/// outputs writable at each of the four places, which may be one.
#[unsafe(naked)]
pub unsafe extern "C" fn product(run: *const Run) {
    naked_asm!(
        dsp_on!(),
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
        ldm     r0!, {{r1-r5}}
        stm     r12!, {{r1-r5}}
        ldr     r0, [sp, #{entry}]
        adr.w   r1, 50f
        add     r0, r1
        adds    r0, #1
        str     r0, [sp, #{entry}]
        ",
        address!("20f", "{finish} + 4"),
        address!("21f", "{finish} + 12"),
        address!("22f", "{finish} + 20"),
        address!("23f", "{finish} + 28"),
        address!("24f", "{done}"),
        address!("25f", "{done} + 4"),
        "
        ldr     r1, [sp, #{weights}]
    10:
        ldr     r10, [sp, #{constants}]
        ldrd    r2, r3, [r10]
        ldrd    r4, r5, [r10, #32]
        lsls    r2, r2, #1
        lsls    r3, r3, #1
        lsls    r4, r4, #1
        lsls    r5, r5, #1
        mov     r6, r2
        mov     r7, r3
        mov     r8, r4
        mov     r9, r5
        ",
        plane!("{start}", "{finish}"),
        "
        .balign 4
    50:
        .rept   2 * {unroll}
        ",
        pair!(),
        "
        .endr
        ldrd    r10, r11, [sp, #{current}]
        cmp     r0, r10
        bne.w   50b
        bx      r11
        .balign 4
    20:
        stm     sp, {{r2-r9}}
        ",
        plane!("{start} + 4", "{finish} + 8"),
        "
        .balign 4
    21:
        ldm     sp, {{r10, r11, r12, r14}}
        add     r0, sp, #16
        rsb     r10, r2, r10, lsl #1
        rsb     r11, r3, r11, lsl #1
        rsb     r12, r4, r12, lsl #1
        rsb     r14, r5, r14, lsl #1
        stm     sp, {{r10, r11, r12, r14}}
        ldm     r0, {{r10, r11, r12, r14}}
        rsb     r10, r6, r10, lsl #1
        rsb     r11, r7, r11, lsl #1
        rsb     r12, r8, r12, lsl #1
        rsb     r14, r9, r14, lsl #1
        stm     r0, {{r10, r11, r12, r14}}
        ",
        plane!("{start} + 8", "{finish} + 16"),
        "
        .balign 4
    22:
        ldr     pc, [sp, #{scale}]
        .balign 4
    24:
        ldm     sp, {{r2-r9}}
        ",
        plane!("{start} + 12", "{finish} + 24"),
        "
        .balign 4
    23:
        ldr     pc, [sp, #{scale}]
        .balign 4
    25:
        ldrd    r10, r11, [sp, #{constants}]
        add     r10, #{quad}
        subs    r11, #1
        strd    r10, r11, [sp, #{constants}]
        bne.w   10b
        add     sp, #{frame}
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
        frame = const FRAME,
        live = const LIVE,
        unroll = const UNROLL,
        quad = const QUAD_BYTES,
        entry = const at!(entry),
        start = const at!(start),
        finish = const at!(finish),
        current = const at!(current),
        done = const at!(done),
        weights = const at!(weights),
        constants = const at!(constants),
        scale = const at!(scale),
    )
}

/// Scales eight doubled sums whose lower bound is not below the zero point: the product's high word, rounded, plus addend, shifted.
#[unsafe(naked)]
pub unsafe extern "C" fn scale_unsigned() {
    naked_asm!(
        dsp_on!(),
        "
        ldr     r0, [sp, #{constants}]
        adds    r0, #8
        ldm     r0!, {{r10, r11, r12}}
        smmlar  r2, r2, r10, r11
        smmlar  r6, r6, r10, r11
        asr     r2, r12
        asr     r6, r12
        ldm     r0!, {{r10, r11, r12}}
        smmlar  r3, r3, r10, r11
        smmlar  r7, r7, r10, r11
        asr     r3, r12
        asr     r7, r12
        adds    r0, #8
        ldm     r0!, {{r10, r11, r12}}
        smmlar  r4, r4, r10, r11
        smmlar  r8, r8, r10, r11
        asr     r4, r12
        asr     r8, r12
        ldm     r0!, {{r10, r11, r12}}
        smmlar  r5, r5, r10, r11
        smmlar  r9, r9, r10, r11
        asr     r5, r12
        asr     r9, r12
        ldr     pc, [sp, #{store}]
        ",
        dsp_off!(),
        constants = const at!(constants),
        store = const at!(store),
    )
}

/// One output of two columns for [`scale_signed`]. r0: constants, which advance; r10 to r12 and r14 are used.
macro_rules! signed {
    ($left:literal, $right:literal) => {
        concat!(
            "
        ldm     r0!, {{r10, r11, r12}}
        smmlar  r14, ",
            $left,
            ", r10, r11
        add     ",
            $left,
            ", r14, ",
            $left,
            ", asr #31
        smmlar  r14, ",
            $right,
            ", r10, r11
        add     ",
            $right,
            ", r14, ",
            $right,
            ", asr #31
        asr     ",
            $left,
            ", r12
        asr     ",
            $right,
            ", r12
        "
        )
    };
}

/// Scales eight doubled sums: the product's high word, rounded, plus addend, less one for a negative sum, shifted; then the zero point is added.
#[unsafe(naked)]
pub unsafe extern "C" fn scale_signed() {
    naked_asm!(
        dsp_on!(),
        "
        ldr     r0, [sp, #{constants}]
        adds    r0, #8
        ",
        signed!("r2", "r6"),
        signed!("r3", "r7"),
        "adds   r0, #8",
        signed!("r4", "r8"),
        signed!("r5", "r9"),
        "
        ldr     r0, [sp, #{zero}]
        add     r2, r0
        add     r3, r0
        add     r4, r0
        add     r5, r0
        add     r6, r0
        add     r7, r0
        add     r8, r0
        add     r9, r0
        ldr     pc, [sp, #{store}]
        ",
        dsp_off!(),
        constants = const at!(constants),
        zero = const at!(zero),
        store = const at!(store),
    )
}

/// Puts the low bytes of r2 to r5 into r2, of r6 to r9 into r6.
macro_rules! gather {
    () => {
        "
        bfi     r2, r3, #8, #8
        bfi     r6, r7, #8, #8
        bfi     r2, r4, #16, #8
        bfi     r6, r8, #16, #8
        bfi     r2, r5, #24, #8
        bfi     r6, r9, #24, #8
        "
    };
}

/// Stores r2 and r6 in the places of the current row. The other row is the next.
macro_rules! store {
    () => {
        "
        ldrd    r10, r11, [sp, #{out}]
        ldrd    r12, r14, [sp, #{other}]
        str     r2, [r10], #4
        str     r6, [r11], #4
        strd    r12, r14, [sp, #{out}]
        strd    r10, r11, [sp, #{other}]
        ldrd    r12, r14, [sp, #{done}]
        strd    r14, r12, [sp, #{done}]
        bx      r12
        "
    };
}

/// Stores eight values as bytes between two bounds, which lie at 0 and `255 - top` in them.
#[unsafe(naked)]
pub unsafe extern "C" fn store_bounded() {
    naked_asm!(
        dsp_on!(),
        "
        usat    r2, #8, r2
        usat    r3, #8, r3
        usat    r4, #8, r4
        usat    r5, #8, r5
        usat    r6, #8, r6
        usat    r7, #8, r7
        usat    r8, #8, r8
        usat    r9, #8, r9
        ",
        gather!(),
        "
        ldrd    r10, r11, [sp, #{top}]
        uqadd8  r2, r2, r10
        uqadd8  r6, r6, r10
        uadd8   r2, r2, r11
        uadd8   r6, r6, r11
        ",
        store!(),
        dsp_off!(),
        top = const at!(top),
        out = const at!(out),
        other = const at!(out) + 8,
        done = const at!(done),
    )
}

/// Stores eight values as bytes that only their type bounds.
#[unsafe(naked)]
pub unsafe extern "C" fn store_full() {
    naked_asm!(
        dsp_on!(),
        "
        ssat    r2, #8, r2
        ssat    r3, #8, r3
        ssat    r4, #8, r4
        ssat    r5, #8, r5
        ssat    r6, #8, r6
        ssat    r7, #8, r7
        ssat    r8, #8, r8
        ssat    r9, #8, r9
        ",
        gather!(),
        store!(),
        dsp_off!(),
        out = const at!(out),
        other = const at!(out) + 8,
        done = const at!(done),
    )
}

/// Transforms columns of four rows of bytes: the last `fresh` of a tile's four, 4 or 2; before 2, the right half of the columns becomes the left one.
///
/// For inputs `d0` to `d3` below each other the planes are `d1 + d2`, `d2 - d1`, `d0 - d2` and `d3 - d1`. r0: columns, r1 to r4: rows, r5: groups left; four words
/// lie on the stack: the current column, groups, bytes by which groups exceed a column, columns left.
///
/// # Safety
/// `groups` groups of columns are writable at `columns`. At each of the four addresses at `rows`, bytes of `fresh` columns of `4 * groups - excess` bytes are readable,
/// the last one to the end of its groups.
#[unsafe(naked)]
pub unsafe extern "C" fn transform(
    columns: *mut u8,
    rows: *const [*const u8; REACH],
    groups: usize,
    excess: usize,
    fresh: usize,
) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        ldr     r7, [sp, #36]
        sub     sp, #20
        strd    r2, r3, [sp, #4]
        str     r7, [sp, #12]
        mov     r5, r2
        cmp     r7, #2
        mov     r6, r0
        bne     4f
    1:
        .set    slot, 0
        .rept   8
        ldrd    r8, r9, [r6, #slot + 8]
        strd    r8, r9, [r6, #slot]
        .set    slot, slot + 16
        .endr
        adds    r6, #128
        subs    r5, #1
        bne     1b
        adds    r0, #8
    4:
        str     r0, [sp]
        ldm     r1, {{r1-r4}}
    5:
        ldr     r5, [sp, #4]
    2:
        ldr     r6, [r1], #4
        ldr     r7, [r2], #4
        ldr     r8, [r3], #4
        ldr     r9, [r4], #4
        sxtb16  r10, r6
        sxtb16  r11, r7
        sxtb16  r12, r8
        sxtb16  r14, r9
        ssub16  r10, r10, r12
        ssub16  r14, r14, r11
        str     r10, [r0, #32]
        str     r14, [r0, #48]
        ssub16  r14, r12, r11
        sadd16  r10, r11, r12
        str     r14, [r0, #16]
        sxtb16  r6, r6, ror #8
        sxtb16  r7, r7, ror #8
        sxtb16  r8, r8, ror #8
        sxtb16  r9, r9, ror #8
        ssub16  r6, r6, r8
        ssub16  r9, r9, r7
        str     r6, [r0, #96]
        str     r9, [r0, #112]
        sadd16  r6, r7, r8
        ssub16  r8, r8, r7
        str     r6, [r0, #64]
        str     r8, [r0, #80]
        str     r10, [r0], #128
        subs    r5, #1
        bne     2b
        ldr     r5, [sp, #8]
        cbz     r5, 3f
        subs    r1, r1, r5
        subs    r2, r2, r5
        subs    r3, r3, r5
        subs    r4, r4, r5
    3:
        ldr     r0, [sp]
        adds    r0, #4
        str     r0, [sp]
        ldr     r5, [sp, #12]
        subs    r5, #1
        str     r5, [sp, #12]
        bne     5b
        add     sp, #20
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}
