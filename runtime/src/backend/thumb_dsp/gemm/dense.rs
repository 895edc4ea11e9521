//! Dense layers, without constants in scratch: of bytes, four outputs at once; with 16 bits, or where sums need them, two.
//!
//! For [`chunk`] activations are widened in chunks: for every four inputs the words `(k, k + 2)` and `(k + 1, k + 3)` of 16 bits. If all inputs do not fit one
//! chunk, the sums of all outputs wait in scratch between chunks.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Tensors, finish};
use crate::backend::spec::dsp::gemm::{self, Dense};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::rolled::{rolled, unknown};

/// Inputs of a group.
const GROUP: usize = 4;
/// Outputs that are calculated at once.
const QUAD: usize = 4;
/// Pairs of groups that the inner loop takes between two branches.
const UNROLL: usize = 4;
/// Bytes of code for a pair of groups: 27 instructions.
const STEP: usize = 108;

/// What [`chunk`] works on; it copies it to the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Run {
    /// Whether sums are read, else made of biases.
    resumed: usize,
    /// Whether sums are written, else made into outputs.
    unfinished: usize,
    /// Sums that wait, four words for each quad.
    sums: *mut i32,
    /// Behind them.
    sums_end: *mut i32,
    /// Stored bias of the first output.
    bias: *const i32,
    /// Factors.
    multiplier: *const i32,
    /// Shifts, positive to the left.
    shift: *const i32,
    /// Outputs.
    out: *mut i8,
    /// Behind the outputs.
    out_end: *mut i8,
    /// Widened activations of the chunk.
    x: *const i32,
    /// Behind them.
    x_end: *const i32,
    /// Where in the unrolled loop the first pass begins: bytes from its start.
    entry: usize,
    /// Whether a single group comes before pairs of them.
    single: usize,
    /// Bytes between a quad's weights of this chunk and the next quad's, for sums that are read: before the first quad too.
    weights_advance: usize,
    /// Twice the zero point less the lower bound, and one.
    zero: i32,
    /// What is added in every lane, with saturation.
    top: u32,
    /// What is added then, modulo.
    back: u32,
    /// Weights of the first quad in this chunk, less `weights_advance`.
    weights: *const i8,
}

/// Two words of the frame lie behind it: where a quad begins, and where it goes from the inner loop.
const COPY: usize = size_of::<Run>();
const BEGIN: usize = COPY;
const AFTER: usize = COPY + 4;
const FRAME: usize = COPY + 8;
const _: () = assert!(COPY == 18 * 4);

macro_rules! at {
    ($field:ident) => {
        offset_of!(Run, $field)
    };
}

/// The outputs of two sums, which come doubled. r7: shifts, r6: [`Run::zero`]; r0, r12 and r14 are used. A shift that is none to the right leads
/// to label 10.
macro_rules! scale {
    ($even:literal, $even_factor:literal, $odd:literal, $odd_factor:literal) => {
        concat!(
            "ldrd r14, r0, [r7], #8\n",
            "ands r12, r14, r0\n",
            "bpl 10f\n",
            "mvn r14, r14\n",
            "mvn r0, r0\n",
            scale!($even, $even_factor, "r14"),
            scale!($odd, $odd_factor, "r0"),
        )
    };
    ($sum:literal, $factor:literal, $shift:literal) => {
        concat!(
            "smmulr r12, ",
            $sum,
            ", ",
            $factor,
            "\n",
            "add r12, r12, ",
            $sum,
            ", asr #31\n",
            "asr r12, ",
            $shift,
            "\n",
            "add r12, r6\n",
            "usat ",
            $sum,
            ", #8, r12, asr #1\n",
        )
    };
}

/// Adds a chunk's products to the sums of quads of outputs packed as [`crate::blob::Packing::PairQuads`], and after the last chunk makes outputs of
/// them; `false` if some of these outputs have no shift to the right: then none counts.
///
/// r2 and r4 become `256 * A + B` of the two pairs of outputs, r3 and r5 `B`. r0: activations, r1: weights. Then, as
/// [`super::constants`] has it, an output is `(x + 2^(e - 1)) >> e`, plus the zero point, where `x` is `2 * sum * factor`, rounded to the high word,
/// `- [sum < 0]`. That is `((x >> (e - 1)) + 1) >> 1`.
///
/// # Safety
/// All that `run` points to: if outputs are made, those from `out` to `out_end`, a multiple of four and not none, else sums from `sums` to
/// `sums_end`; biases or sums, factors and shifts for them, where they are used; activations from `x` to `x_end`, and weights for them.
#[unsafe(naked)]
unsafe extern "C" fn chunk(run: *const Run) -> bool {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #{frame}
        mov     r12, sp
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldm     r0!, {{r1-r10}}
        stm     r12!, {{r1-r10}}
        mov     r1, r10
        ldr     r0, [sp, #{entry}]
        adr.w   r2, 5f
        add     r0, r2
        adds    r0, #1
        str     r0, [sp, #{entry}]
        ldr     r2, [sp, #{single}]
        cbz     r2, 1f
        adr.w   r0, 8f
        adds    r0, #1
    1:
        str     r0, [sp, #{single}]
        ldrd    r2, r3, [sp, #{resumed}]
        adr.w   r0, 2f
        cbz     r2, 1f
        adr.w   r0, 3f
    1:
        adds    r0, #1
        str     r0, [sp, #{begin}]
        adr.w   r0, 6f
        cbz     r3, 1f
        adr.w   r0, 7f
    1:
        adds    r0, #1
        str     r0, [sp, #{after}]
        ldr     pc, [sp, #{begin}]
    3:
        ldr     r6, [sp, #{sums}]
        ldr     r0, [sp, #{weights_advance}]
        ldm     r6!, {{r2, r3, r4, r5}}
        add     r1, r0
        str     r6, [sp, #{sums}]
        ldr     r0, [sp, #{x}]
        ldr     pc, [sp, #{single}]
    2:
        ldr     r6, [sp, #{bias}]
        ldm     r6!, {{r2, r3, r4, r5}}
        str     r6, [sp, #{bias}]
        add     r2, r3, r2, lsl #8
        add     r4, r5, r4, lsl #8
        ldr     r0, [sp, #{x}]
        ldr     pc, [sp, #{single}]
    8:
        ldm     r0!, {{r6, r7}}
        ldm     r1!, {{r8, r9, r10, r11}}
        smlad   r2, r8, r6, r2
        smlad   r4, r9, r6, r4
        sxtb16  r8, r8
        sxtb16  r9, r9
        smlad   r3, r8, r6, r3
        smlad   r5, r9, r6, r5
        smlad   r2, r10, r7, r2
        smlad   r4, r11, r7, r4
        sxtb16  r10, r10
        sxtb16  r11, r11
        smlad   r3, r10, r7, r3
        smlad   r5, r11, r7, r5
        ldr     pc, [sp, #{entry}]
        .balign 4
    5:
        .rept   {unroll}
        ldm     r1!, {{r8, r9, r10, r11}}
        ldm     r0!, {{r6, r7, r12, r14}}
        smlad   r2, r8, r6, r2
        smlad   r4, r9, r6, r4
        sxtb16  r8, r8
        sxtb16  r9, r9
        smlad   r3, r8, r6, r3
        smlad   r5, r9, r6, r5
        smlad   r2, r10, r7, r2
        smlad   r4, r11, r7, r4
        sxtb16  r10, r10
        sxtb16  r11, r11
        smlad   r3, r10, r7, r3
        smlad   r5, r11, r7, r5
        ldm     r1!, {{r8, r9, r10, r11}}
        smlad   r2, r8, r12, r2
        smlad   r4, r9, r12, r4
        sxtb16  r8, r8
        sxtb16  r9, r9
        smlad   r3, r8, r12, r3
        smlad   r5, r9, r12, r5
        smlad   r2, r10, r14, r2
        smlad   r4, r11, r14, r4
        sxtb16  r10, r10
        sxtb16  r11, r11
        smlad   r3, r10, r14, r3
        smlad   r5, r11, r14, r5
        .endr
        ldr     r14, [sp, #{x_end}]
        cmp     r0, r14
        bne     5b
        ldr     pc, [sp, #{after}]
    6:
        ldrd    r6, r7, [sp, #{multiplier}]
        ldm     r6!, {{r8, r9, r10, r11}}
        sub     r2, r2, r3
        sub     r4, r4, r5
        lsl     r3, r3, #1
        lsl     r5, r5, #1
        asr     r2, r2, #7
        asr     r4, r4, #7
        str     r6, [sp, #{multiplier}]
        ldr     r6, [sp, #{zero}]
        ",
        scale!("r2", "r8", "r3", "r9"),
        scale!("r4", "r10", "r5", "r11"),
        "
        str     r7, [sp, #{shift}]
        bfi     r2, r3, #8, #8
        bfi     r4, r5, #8, #8
        pkhbt   r2, r2, r4, lsl #16
        ldrd    r8, r9, [sp, #{top}]
        ldrd    r6, r7, [sp, #{out}]
        uqadd8  r2, r2, r8
        uadd8   r2, r2, r9
        str     r2, [r6], #4
        str     r6, [sp, #{out}]
        cmp     r6, r7
        beq     9f
        ldr     pc, [sp, #{begin}]
    7:
        ldrd    r8, r9, [sp, #{sums}]
        stmdb   r8, {{r2, r3, r4, r5}}
        cmp     r8, r9
        beq     9f
        ldr     pc, [sp, #{begin}]
    10:
        movs    r0, #0
        b       11f
    9:
        movs    r0, #1
    11:
        add     sp, #{frame}
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
        frame = const FRAME,
        begin = const BEGIN,
        after = const AFTER,
        unroll = const UNROLL,
        resumed = const at!(resumed),
        sums = const at!(sums),
        bias = const at!(bias),
        multiplier = const at!(multiplier),
        shift = const at!(shift),
        out = const at!(out),
        x = const at!(x),
        x_end = const at!(x_end),
        entry = const at!(entry),
        single = const at!(single),
        weights_advance = const at!(weights_advance),
        zero = const at!(zero),
        top = const at!(top),
    )
}

/// Widens `groups` groups of bytes: words `(k, k + 2)`, `(k + 1, k + 3)`.
///
/// # Safety
/// `groups`, at least one, groups are readable at `x`, at any address, and twice as many words writable at `columns`.
#[unsafe(naked)]
unsafe extern "C" fn widen(columns: *mut i32, x: *const i8, groups: usize) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4, r5}}
        lsrs    r2, r2, #1
        bcc     1f
        ldr     r5, [r1], #4
        sxtb16  r4, r5
        sxtb16  r5, r5, ror #8
        stm     r0!, {{r4, r5}}
        cbz     r2, 2f
    1:
        ldr     r5, [r1], #4
        ldr     r12, [r1], #4
        sxtb16  r4, r5
        sxtb16  r5, r5, ror #8
        sxtb16  r3, r12
        sxtb16  r12, r12, ror #8
        str     r3, [r0, #8]
        str     r12, [r0, #12]
        strd    r4, r5, [r0], #16
        subs    r2, #1
        bne     1b
    2:
        pop     {{r4, r5}}
        bx      lr
        ",
        dsp_off!(),
    )
}

/// A dense layer. `None`: it is not for this kernel, nothing was done.
#[inline(never)]
pub fn dense_i8(
    inputs: usize,
    linear: &Integer<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let outputs = linear.bias.len();
    if linear.packing != Packing::PairQuads {
        return None;
    }
    let Dense { groups, step, scratch_bytes } = gemm::dense_of(inputs, outputs)?;
    let scratch: &mut [i32] = bytemuck::try_cast_slice_mut(scratch.get_mut(..scratch_bytes)?).ok()?;
    let (columns, sums) = scratch.split_at_mut_checked(step.wrapping_mul(2))?;
    if linear.weights.len() < linear.packing.bytes(outputs, inputs)?
        || linear.weights.as_ptr().align_offset(4) != 0
        || linear.multiplier.len() != outputs
        || linear.shift.len() != outputs
        || outputs == 0
    {
        return None;
    }
    let Integer { output_zero, low, high, .. } = *linear;
    let top = high.wrapping_sub(low) as u32 & 0xFF ^ 0xFF;
    let back = high.wrapping_add(1) as u32 & 0xFF;
    let mut run = Run {
        resumed: 0,
        unfinished: 0,
        sums: core::ptr::null_mut(),
        sums_end: core::ptr::null_mut(),
        bias: linear.bias.as_ptr(),
        multiplier: linear.multiplier.as_ptr(),
        shift: linear.shift.as_ptr(),
        out: core::ptr::null_mut(),
        out_end: core::ptr::null_mut(),
        x: core::ptr::null(),
        x_end: core::ptr::null(),
        entry: 0,
        single: 0,
        weights_advance: 0,
        zero: output_zero.wrapping_sub(low).wrapping_mul(2).wrapping_add(1),
        top: top.wrapping_mul(0x101_0101),
        back: back.wrapping_mul(0x101_0101),
        weights: core::ptr::null(),
    };
    let (mut x_left, mut y_left) = (input, output);
    while !y_left.is_empty() {
        let (x, rest) = x_left.split_at_checked(inputs)?;
        x_left = rest;
        let (y, rest) = y_left.split_at_mut_checked(outputs)?;
        y_left = rest;
        row(linear, x, y, columns, sums, &mut run, [groups, step])?;
    }
    Some(())
}

/// One row of a dense layer.
#[inline(never)]
fn row(
    linear: &Integer<'_>,
    x: &[i8],
    y: &mut [i8],
    columns: &mut [i32],
    sums: &mut [i32],
    run: &mut Run,
    [groups, step]: [usize; 2],
) -> Option<()> {
    // Sums wait in scratch, unless one chunk takes all inputs.
    let chunked = unknown(step < groups);
    if chunked {
        start(sums, linear.bias);
    }
    let whole = y.len() & !(QUAD - 1);
    let mut x_left = x;
    let mut first = 0usize;
    let (weights, between, finished) = loop {
        let now = step.min(groups.wrapping_sub(first));
        let inputs = now.wrapping_mul(GROUP).min(x_left.len());
        let (x, rest) = x_left.split_at_checked(inputs)?;
        x_left = rest;
        fill(columns, x, now)?;
        // From the chunk's weights of one quad to those of the next.
        let between = groups.wrapping_sub(now).wrapping_mul(QUAD * GROUP);
        let weights = linear.weights.as_ptr().wrapping_add(first.wrapping_mul(QUAD * GROUP));
        first = first.wrapping_add(now);
        let last = first >= groups;
        run.enter(columns, now);
        run.weights_advance = between;
        run.weights = if chunked { weights.wrapping_sub(between) } else { weights };
        let waiting = sums.as_mut_ptr_range();
        (run.sums, run.sums_end) = (waiting.start, waiting.end);
        (run.resumed, run.unfinished) = (chunked.into(), (!last).into());
        run.out = y.as_mut_ptr();
        run.out_end = run.out.wrapping_add(whole);
        // SAFETY: the weights and constants were measured by `dense_i8`; outputs of whole quads are made, or none, and there are sums of
        // all quads where they are read or written.
        let finished = (!last || whole > 0) && unsafe { chunk(&raw const *run) };
        if last {
            break (weights, between, finished);
        }
    };
    // What the kernel does not finish: a quad that is not whole, or all if some shift is none to the right.
    run.resumed = 1;
    run.unfinished = 1;
    let mut channel = if finished { whole } else { 0 };
    while channel < y.len() {
        let at = if chunked { channel } else { 0 };
        let sums = sums.get_mut(at..)?.get_mut(..QUAD)?;
        if !chunked {
            start(sums, linear.bias.get(channel..)?);
        }
        let quad = sums.as_mut_ptr_range();
        (run.sums, run.sums_end) = (quad.start, quad.end);
        run.weights =
            weights.wrapping_add(channel.wrapping_mul(groups).wrapping_mul(GROUP)).wrapping_sub(between);
        // SAFETY: as above, for one quad; its outputs are not written.
        unsafe { chunk(&raw const *run) };
        for [both, odd] in sums.as_chunks_mut::<2>().0 {
            *both = both.wrapping_sub(*odd) >> 8;
        }
        for (y, &sum) in y.get_mut(channel..)?.iter_mut().zip(unknown(&*sums)) {
            *y = linear.finish_one(channel, sum)? as i8;
            channel = channel.wrapping_add(1);
        }
    }
    Some(())
}

/// The first sums of pairs of outputs: `256 * even + odd`, `odd`.
#[inline(never)]
fn start(sums: &mut [i32], bias: &[i32]) {
    let (pairs, rest) = bias.as_chunks::<2>();
    let mut sums = sums.as_chunks_mut::<2>().0.iter_mut();
    for (&[even, odd], sums) in pairs.iter().zip(&mut sums) {
        rolled();
        *sums = [even.wrapping_shl(8).wrapping_add(odd), odd];
    }
    let mut even = rest.first().copied().unwrap_or(0);
    for sums in sums {
        rolled();
        *sums = [even.wrapping_shl(8), 0];
        even = 0;
    }
}

/// Widens up to `groups` groups of inputs; the last one may lack some.
#[inline(never)]
fn fill(columns: &mut [i32], x: &[i8], groups: usize) -> Option<()> {
    let whole = x.len() / GROUP;
    if whole > groups || groups.wrapping_mul(2) > columns.len() {
        return None;
    }
    if whole > 0 {
        // SAFETY: the columns have as many groups, as was checked above.
        unsafe { widen(columns.as_mut_ptr(), x.as_ptr(), whole) };
    }
    if whole < groups {
        let mut padded = [0i8; GROUP];
        for (slot, &x) in padded.iter_mut().zip(x.get(whole.wrapping_mul(GROUP)..)?) {
            rolled();
            *slot = x;
        }
        let (_, left) = columns.split_at_mut_checked(whole.wrapping_mul(2))?;
        // SAFETY: one group of each.
        unsafe { widen(left.as_mut_ptr(), padded.as_ptr(), 1) };
    }
    Some(())
}

impl Run {
    /// Sets what depends on the number of groups.
    fn enter(&mut self, columns: &[i32], groups: usize) {
        let pairs = groups / 2;
        let passes = pairs.div_ceil(UNROLL).max(1);
        self.x = columns.as_ptr();
        self.x_end = self.x.wrapping_add(groups.wrapping_mul(2));
        self.single = groups & 1;
        self.entry = passes.wrapping_mul(UNROLL).wrapping_sub(pairs).wrapping_mul(STEP);
    }
}

/// Adds the products of two outputs over `groups` groups of bytes, packed as [`crate::blob::Packing::Blocks2x4`], to `sums`.
///
/// r4, r5: sums, r6: inputs, r7 and r12: their even and odd ones, r8, r9: weights.
///
/// # Safety
/// `groups`, at least one, groups of inputs and of weights are readable, the weights at a multiple of 4; `sums` is two words.
#[unsafe(naked)]
pub unsafe extern "C" fn pair_i8(x: *const u8, weights: *const i8, groups: usize, sums: *mut i32) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r10}}
        ldrd    r4, r5, [r3]
    1:
        ldr     r6, [r0], #4
        ldm     r1!, {{r8, r9}}
        sxtb16  r7, r6
        sxtb16  r12, r6, ror #8
        sxtb16  r10, r8
        sxtb16  r8, r8, ror #8
        smlad   r4, r10, r7, r4
        sxtb16  r10, r9
        sxtb16  r9, r9, ror #8
        smlad   r4, r8, r12, r4
        smlad   r5, r10, r7, r5
        subs    r2, #1
        smlad   r5, r9, r12, r5
        bne     1b
        strd    r4, r5, [r3]
        pop     {{r4-r10}}
        bx      lr
        ",
        dsp_off!(),
    )
}

/// As [`pair_i8`], of 16-bit inputs.
///
/// # Safety
/// As [`pair_i8`].
#[unsafe(naked)]
pub unsafe extern "C" fn pair_i16(x: *const u8, weights: *const i8, groups: usize, sums: *mut i32) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r10}}
        ldrd    r4, r5, [r3]
    1:
        ldr     r6, [r0], #4
        ldr     r12, [r0], #4
        ldm     r1!, {{r8, r9}}
        pkhbt   r7, r6, r12, lsl #16
        pkhtb   r12, r12, r6, asr #16
        sxtb16  r10, r8
        sxtb16  r8, r8, ror #8
        smlad   r4, r10, r7, r4
        sxtb16  r10, r9
        sxtb16  r9, r9, ror #8
        smlad   r4, r8, r12, r4
        smlad   r5, r10, r7, r5
        subs    r2, #1
        smlad   r5, r9, r12, r5
        bne     1b
        strd    r4, r5, [r3]
        pop     {{r4-r10}}
        bx      lr
        ",
        dsp_off!(),
    )
}

/// Code for two outputs.
pub type Pair = unsafe extern "C" fn(*const u8, *const i8, usize, *mut i32);

/// A dense layer of any integers, by pairs of outputs; `pair` is for its inputs. `None`: it is not for this kernel, nothing was done.
#[inline(never)]
pub fn dense_plain(inputs: usize, linear: &Integer<'_>, tensors: Tensors<'_>, pair: Pair) -> Option<()> {
    let outputs = linear.bias.len();
    let [x_bytes, y_bytes] = tensors.types.map(|dtype| if dtype == DType::I16 { 2 } else { 1 });
    let groups = inputs / GROUP;
    let whole = groups.wrapping_mul(GROUP).wrapping_mul(x_bytes);
    let row = inputs.checked_mul(x_bytes)?;
    let out_row = outputs.checked_mul(y_bytes)?;
    let fits = linear.weights.len() >= linear.packing.bytes(outputs, inputs)?;
    if linear.packing != Packing::Blocks2x4
        || !fits
        || linear.weights.as_ptr().align_offset(4) != 0
        || out_row == 0
    {
        return None;
    }
    let mut x_left = tensors.input?;
    let mut y_left = tensors.output;
    while !y_left.is_empty() {
        let (x, rest) = x_left.split_at_checked(row)?;
        x_left = rest;
        let (y, rest) = y_left.split_at_mut_checked(out_row)?;
        y_left = rest;
        let (x, x_rest) = x.split_at_checked(whole)?;
        let mut last = [0u8; 2 * GROUP];
        for (slot, &x) in last.iter_mut().zip(x_rest) {
            rolled();
            *slot = x;
        }
        let mut weights = linear.weights.as_ptr();
        let mut place = y.as_mut_ptr();
        let mut channel = 0usize;
        for bias in linear.bias.chunks(2) {
            let mut sums = [0i32; 2];
            for (sum, &bias) in sums.iter_mut().zip(bias) {
                *sum = bias;
            }
            if groups > 0 {
                // SAFETY: these are all whole groups of an input row, and the weights of a pair of outputs, measured above.
                unsafe { pair(x.as_ptr(), weights, groups, sums.as_mut_ptr()) };
                weights = weights.wrapping_add(groups.wrapping_mul(2 * GROUP));
            }
            if !x_rest.is_empty() {
                // SAFETY: one group of each.
                unsafe { pair(last.as_ptr(), weights, 1, sums.as_mut_ptr()) };
                weights = weights.wrapping_add(2 * GROUP);
            }
            for &sum in sums.iter().take(bias.len()) {
                // SAFETY: an output of this row, which is as long as there are biases.
                unsafe { finish(linear, channel, sum, place, y_bytes)? };
                place = place.wrapping_add(y_bytes);
                channel = channel.wrapping_add(1);
            }
        }
    }
    Some(())
}
