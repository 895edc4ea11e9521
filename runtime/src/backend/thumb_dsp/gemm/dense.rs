//! Dense layers, without constants in scratch: of bytes, four outputs at once; with 16 bits, or where sums need them, two.
//!
//! For [`chunk`] activations are widened in chunks: for every four inputs the words `(k, k + 2)` and `(k + 1, k + 3)` of 16 bits. If all inputs do not fit one
//! chunk, the sums of all outputs wait in scratch between chunks.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::Tensors;
use crate::backend::spec::dsp::gemm::{self, Dense};
use crate::backend::spec::select::{Linear, Request};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;

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
    /// Twice the zero point less the lower bound.
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
const FRAME: usize = COPY + 12;
const _: () = assert!(COPY == 17 * 4);

macro_rules! at {
    ($field:ident) => {
        offset_of!(Run, $field)
    };
}

/// The output of sum `$sum`: r8 to r11: factors, r7: shifts, r0: 1, r6: twice the zero point; r12 and r14 are used. Sums come doubled.
macro_rules! scale {
    ($sum:literal, $factor:literal) => {
        concat!(
            "ldr r14, [r7], #4\n",
            "mvn r14, r14\n",
            "lsl r12, r0, r14\n",
            "smmlar r12, ",
            $sum,
            ", ",
            $factor,
            ", r12\n",
            "add r12, r12, ",
            $sum,
            ", asr #31\n",
            "asr r12, r14\n",
            "add r12, r6\n",
            "usat ",
            $sum,
            ", #8, r12, asr #1\n",
        )
    };
}

/// Adds a chunk's products to the sums of quads of outputs packed as [`crate::blob::Packing::PairQuads`], and after the last chunk makes outputs of
/// them.
///
/// r2 and r4 become `256 * A + B` of the two pairs of outputs, r3 and r5 `B`. r0: activations, r1: weights. Then, as
/// [`super::constants`] has it, an output is `(2 * sum * factor, rounded to the high word, + 2^(e - 1) - [sum < 0]) >> e`, plus the zero point.
///
/// # Safety
/// All that `run` points to: `out_end - out`, a multiple of four, outputs, writable if they are made; as many biases, factors, shifts and sums,
/// where they are used; activations from `x` to `x_end`, and weights for them. Shifts are negative if outputs are made.
#[unsafe(naked)]
unsafe extern "C" fn chunk(run: *const Run) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #{frame}
        mov     r12, sp
        ldm     r0!, {{r1-r8}}
        stm     r12!, {{r1-r8}}
        ldm     r0!, {{r1-r9}}
        stm     r12!, {{r1-r9}}
        mov     r1, r9
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
        movs    r0, #1
        ",
        scale!("r2", "r8"),
        scale!("r3", "r9"),
        scale!("r4", "r10"),
        scale!("r5", "r11"),
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
        ldr     r8, [sp, #{sums}]
        ldrd    r6, r7, [sp, #{out}]
        stmdb   r8, {{r2, r3, r4, r5}}
        adds    r6, #4
        str     r6, [sp, #{out}]
        cmp     r6, r7
        beq     9f
        ldr     pc, [sp, #{begin}]
    9:
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
    let request = Request {
        linear: Linear::Dense { inputs, outputs },
        input: DType::I8,
        output: DType::I8,
        packing: linear.packing,
        in_place: false,
    };
    let dense = gemm::dense(&request)?;
    let Dense { groups, step, .. } = dense;
    let scratch = scratch.get_mut(..dense.scratch_bytes)?;
    let scratch: &mut [i32] = bytemuck::try_cast_slice_mut(scratch).ok()?;
    let (columns, sums) = scratch.split_at_mut_checked(step.wrapping_mul(2))?;
    if linear.weights.len() < linear.packing.bytes(outputs, inputs)?
        || linear.weights.as_ptr().align_offset(4) != 0
        || linear.multiplier.len() != outputs
        || linear.shift.len() != outputs
        || outputs == 0
        || !inputs_fit(inputs, outputs, input, output)
    {
        return None;
    }
    let Integer { output_zero, low, high, .. } = *linear;
    let top = high.wrapping_sub(low) as u32 & 0xFF ^ 0xFF;
    let mut run = Run {
        resumed: 0,
        unfinished: 0,
        sums: core::ptr::null_mut(),
        bias: core::ptr::null(),
        multiplier: core::ptr::null(),
        shift: core::ptr::null(),
        out: core::ptr::null_mut(),
        out_end: core::ptr::null_mut(),
        x: columns.as_ptr(),
        x_end: core::ptr::null(),
        entry: 0,
        single: 0,
        weights_advance: 0,
        zero: output_zero.wrapping_sub(low).wrapping_mul(2),
        top: top.wrapping_mul(0x101_0101),
        back: (high.wrapping_add(1) as u32 & 0xFF).wrapping_mul(0x101_0101),
        weights: core::ptr::null(),
    };
    // The kernel shifts to the right, and by one bit at least.
    let regular = linear.shift.iter().fold(0, |all, shift| all | !shift) as u32 <= 31;
    let whole = if regular { outputs & !(QUAD - 1) } else { 0 };
    let (mut x_left, mut y_left) = (input, output);
    while !y_left.is_empty() {
        let (x, rest) = x_left.split_at_checked(inputs)?;
        x_left = rest;
        let (y, rest) = y_left.split_at_mut_checked(outputs)?;
        y_left = rest;
        // Sums wait in scratch, unless one chunk takes all inputs.
        let chunked = step < groups;
        if chunked {
            for (pair, bias) in sums.chunks_exact_mut(2).zip(linear.bias.chunks(2)) {
                start(pair, bias);
            }
        }
        let mut first = 0usize;
        while first < groups {
            let now = step.min(groups.wrapping_sub(first));
            let at = first.wrapping_mul(GROUP);
            fill(columns, x.get(at..)?.get(..now.wrapping_mul(GROUP)).unwrap_or(x.get(at..)?), now)?;
            first = first.wrapping_add(now);
            let last = first >= groups;
            run.enter(columns, now);
            // From the chunk's weights of one quad to those of the next.
            let between = groups.wrapping_sub(now).wrapping_mul(QUAD * GROUP);
            let weights = linear.weights.as_ptr().wrapping_add(at.wrapping_mul(QUAD));
            run.weights_advance = between;
            run.resumed = chunked.into();
            run.unfinished = (!last).into();
            let outputs_now = if last { whole } else { outputs.next_multiple_of(QUAD) };
            if outputs_now > 0 {
                run.weights = if chunked { weights.wrapping_sub(between) } else { weights };
                run.sums = sums.as_mut_ptr();
                run.bias = linear.bias.as_ptr();
                run.multiplier = linear.multiplier.as_ptr();
                run.shift = linear.shift.as_ptr();
                run.out = y.as_mut_ptr();
                run.out_end = run.out.wrapping_add(outputs_now);
                // SAFETY: the buffers were measured above: constants, weights and outputs of whole quads, and sums of all of them; sums alone are
                // touched for the quad that is not whole.
                unsafe { chunk(&raw const run) };
            }
            if !last {
                continue;
            }
            // What the kernel does not finish: a quad that is not whole, or shifts that are none to the right.
            let mut channel = whole;
            while channel < outputs {
                let mut own = [0i32; QUAD];
                let sums = match sums.get_mut(channel..channel.wrapping_add(QUAD)) {
                    Some(sums) if chunked => sums,
                    _ => {
                        for (pair, bias) in own.chunks_exact_mut(2).zip(linear.bias.get(channel..)?.chunks(2))
                        {
                            start(pair, bias);
                        }
                        &mut own
                    }
                };
                run.resumed = 1;
                run.unfinished = 1;
                run.sums = sums.as_mut_ptr();
                // No output is written.
                run.out = y.as_mut_ptr();
                run.out_end = run.out.wrapping_add(QUAD);
                let quad = channel.wrapping_mul(groups).wrapping_mul(GROUP);
                run.weights = weights.wrapping_add(quad).wrapping_sub(between);
                // SAFETY: as above; four sums are there.
                unsafe { chunk(&raw const run) };
                for pair in sums.chunks_exact(2) {
                    let &[both, odd] = pair else { return None };
                    let even = both.wrapping_sub(odd) >> 8;
                    for sum in [even, odd] {
                        if let Some(y) = y.get_mut(channel) {
                            *y = linear.finish(channel, sum)? as i8;
                        }
                        channel = channel.wrapping_add(1);
                    }
                }
            }
        }
    }
    Some(())
}

/// Whether there is an input row for each output row.
fn inputs_fit(inputs: usize, outputs: usize, input: &[i8], output: &[i8]) -> bool {
    let rows = output.len().checked_div(outputs);
    let needed = rows.and_then(|rows| (rows.wrapping_mul(outputs) == output.len()).then_some(rows));
    needed.and_then(|rows| rows.checked_mul(inputs)).is_some_and(|elements| elements <= input.len())
}

/// The first sums of a pair of outputs.
fn start(pair: &mut [i32], bias: &[i32]) {
    let [both, odd] = pair else { return };
    let (even, second) = match *bias {
        [even, odd] => (even, odd),
        [even] => (even, 0),
        _ => (0, 0),
    };
    (*both, *odd) = (even.wrapping_shl(8).wrapping_add(second), second);
}

/// Widens up to `groups` groups of inputs; the last one may lack some.
fn fill(columns: &mut [i32], x: &[i8], groups: usize) -> Option<()> {
    let (whole, rest) = x.as_chunks::<GROUP>();
    let columns = columns.get_mut(..groups.wrapping_mul(2))?;
    let (filled, last) = columns.split_at_mut_checked(whole.len().wrapping_mul(2))?;
    if !whole.is_empty() {
        // SAFETY: both slices have as many groups.
        unsafe { widen(filled.as_mut_ptr(), x.as_ptr(), whole.len()) };
    }
    if let [first, second] = last {
        let mut padded = [0i8; GROUP];
        for (slot, &x) in padded.iter_mut().zip(rest) {
            *slot = x;
        }
        let [a, b, c, d] = padded.map(i32::from);
        *first = a & 0xFFFF | c << 16;
        *second = b & 0xFFFF | d << 16;
    }
    Some(())
}

impl Run {
    /// Sets what depends on the number of groups.
    fn enter(&mut self, columns: &[i32], groups: usize) {
        let pairs = groups / 2;
        let passes = pairs.div_ceil(UNROLL).max(1);
        self.x_end = columns.as_ptr().wrapping_add(groups.wrapping_mul(2));
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
unsafe extern "C" fn pair_i8(x: *const u8, weights: *const i8, groups: usize, sums: *mut i32) {
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
unsafe extern "C" fn pair_i16(x: *const u8, weights: *const i8, groups: usize, sums: *mut i32) {
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

/// A dense layer of any integers, by pairs of outputs. `None`: it is not for this kernel, nothing was done.
#[inline(never)]
pub fn dense_plain(inputs: usize, linear: &Integer<'_>, tensors: Tensors<'_>) -> Option<()> {
    let outputs = linear.bias.len();
    let [from, to] = tensors.types;
    let [x_bytes, y_bytes] = tensors.types.map(DType::bytes);
    let groups = inputs.div_ceil(GROUP);
    let row = inputs.checked_mul(x_bytes)?;
    let whole = (inputs / GROUP).wrapping_mul(GROUP * x_bytes);
    let fits = linear.weights.len() >= linear.packing.bytes(outputs, inputs)?;
    if linear.packing != Packing::Blocks2x4
        || !fits
        || linear.weights.as_ptr().align_offset(4) != 0
        || row == 0
    {
        return None;
    }
    let pair = if from == DType::I16 { pair_i16 } else { pair_i8 };
    let mut x_left = tensors.input?;
    let mut y_left = tensors.output.chunks_exact_mut(y_bytes);
    while y_left.len() > 0 {
        let (x, rest) = x_left.split_at_checked(row)?;
        x_left = rest;
        let (x, x_rest) = x.split_at_checked(whole)?;
        let mut last = [0u8; 2 * GROUP];
        for (slot, &x) in last.iter_mut().zip(x_rest) {
            *slot = x;
        }
        let mut weights = linear.weights.chunks_exact(groups.wrapping_mul(2 * GROUP));
        let mut channel = 0usize;
        for bias in linear.bias.chunks(2) {
            let weights = weights.next()?;
            let mut sums = [0i32; 2];
            for (sum, &bias) in sums.iter_mut().zip(bias) {
                *sum = bias;
            }
            if !x.is_empty() {
                // SAFETY: these are all whole groups of an input row, and the weights of a pair of outputs.
                unsafe { pair(x.as_ptr(), weights.as_ptr(), inputs / GROUP, sums.as_mut_ptr()) };
            }
            if !x_rest.is_empty() {
                let (_, weights) = weights.split_last_chunk::<{ 2 * GROUP }>()?;
                // SAFETY: one group of each.
                unsafe { pair(last.as_ptr(), weights.as_ptr(), 1, sums.as_mut_ptr()) };
            }
            for &sum in sums.iter().take(bias.len()) {
                let value = linear.finish(channel, sum)?;
                channel = channel.wrapping_add(1);
                let slot = y_left.next()?;
                match (to, slot) {
                    (DType::I8, [byte]) => *byte = value as u8,
                    (_, [low, high]) => [*low, *high] = (value as i16).to_le_bytes(),
                    _ => return None,
                }
            }
        }
    }
    Some(())
}
