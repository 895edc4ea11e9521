//! Any window: four channels at once, two taps at once, on padded rows that are kept in scratch.

use core::arch::naked_asm;

use super::Channel;
use crate::backend::spec::dsp::depthwise::Quads;
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// Pairs of taps in the kernel's loop.
const CHAIN: usize = 4;

/// The convolution without its clamp. `None` only before anything is written, if the scratch is too short; lengths are checked by the caller.
#[inline(never)]
pub fn run(
    plan: &Quads,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs: channels } = plan.window;
    let window = &plan.window;
    let factor = channels.checked_div(inputs)?;
    let (lists, kept) =
        scratch.split_at_mut_checked(plan.quads.checked_mul(plan.list_words)?.checked_mul(4)?)?;
    let lists: &mut [u32] = bytemuck::try_cast_slice_mut(lists).ok()?;
    let block = plan.quads.wrapping_mul(4);
    let row_bytes = plan.columns.checked_mul(block)?;
    let kept: &mut [i8] = bytemuck::cast_slice_mut(kept.get_mut(..row_bytes.checked_mul(plan.rows)?)?);
    let zero = linear.input_zero as i8;
    let mut first = 0usize;
    while first < channels {
        let taken = channels.wrapping_sub(first).min(block);
        for (quad, list) in pieces_mut(lists, plan.list_words).enumerate() {
            prepare(plan, window, linear, first.wrapping_add(quad.wrapping_mul(4)), list)?;
        }
        // Columns of padding stay as they are.
        kept.fill(zero);
        for image in 0..batch {
            let read = image.wrapping_mul(window.image());
            let mut written =
                image.wrapping_mul(rows.output).wrapping_mul(columns.output).wrapping_mul(channels);
            for row in 0..rows.output {
                // Rows that the window before had stay, further down.
                let stay = if row == 0 { 0 } else { plan.rows.saturating_sub(rows.stride) };
                let stay_bytes = stay.wrapping_mul(row_bytes);
                let moved = kept.get(kept.len().wrapping_sub(stay_bytes)..)?.as_ptr();
                // SAFETY: the last `stay` rows go to the start of the same buffer, whose rows are whole words, aligned with the scratch.
                unsafe { move_words(kept.as_mut_ptr(), moved, stay_bytes >> 2) };
                let mut y = row.wrapping_mul(rows.stride).wrapping_add(stay);
                for line in pieces_mut(kept.get_mut(stay_bytes..)?, row_bytes) {
                    let source = input.unwrap_or(&*output);
                    let at = y.wrapping_sub(rows.pad);
                    y = y.wrapping_add(1);
                    if at >= rows.input {
                        line.fill(zero);
                        continue;
                    }
                    let from = read.wrapping_add(window.at(at, 0));
                    let pixels = source.get(from..)?.get(..columns.input.wrapping_mul(inputs))?;
                    let line = line.get_mut(columns.pad.wrapping_mul(block)..).unwrap_or(&mut []);
                    if factor != 1 {
                        repeat(line, block, pixels, inputs, first, taken, factor)?;
                        continue;
                    }
                    let pixels = pixels.get(first..)?;
                    let count = line.len().checked_div(block)?.min(columns.input);
                    if taken & 3 == 0 && count > 0 {
                        let quads = taken >> 2;
                        // SAFETY: `pixels` has `taken` bytes at each of `columns.input` multiples of `channels`, the line `block` bytes for each of `count`
                        // pixels; neither is less than `4 * quads`.
                        unsafe {
                            copy_pixels(line.as_mut_ptr(), pixels.as_ptr(), count, quads, channels, block)
                        };
                        continue;
                    }
                    let mut left = pixels;
                    for slot in pieces_mut(line, block).take(columns.input) {
                        for (slot, x) in slot.iter_mut().zip(left).take(taken) {
                            rolled();
                            *slot = *x;
                        }
                        left = left.get(channels..).unwrap_or(&[]);
                    }
                }
                let width = columns.output.wrapping_mul(channels);
                let place = output.get_mut(written..written.wrapping_add(width))?;
                written = written.wrapping_add(width);
                let (mut left, mut at) = (taken, 0usize);
                for list in pieces_mut(lists, plan.list_words) {
                    let pairs_end = plan.pairs.wrapping_mul(6).wrapping_add(4);
                    let frame = Frame {
                        list: list.as_ptr(),
                        output: place.as_mut_ptr().wrapping_add(first).wrapping_add(at),
                        output_step: channels,
                        output_end: place
                            .as_mut_ptr()
                            .wrapping_add(width)
                            .wrapping_add(first)
                            .wrapping_add(at),
                        base_step: columns.stride.wrapping_mul(block),
                        pairs_end: list.as_ptr().wrapping_add(pairs_end),
                    };
                    let base = kept.as_ptr().wrapping_add(at);
                    let skip = plan.pairs.wrapping_neg() % CHAIN;
                    // SAFETY: the list was filled by `prepare`, whose offsets stay within the kept rows for a base at the first column; the last of the
                    // `columns.output` windows ends at the last kept column (`plan.columns`). `place` has a pixel for each of them, `min(left, 4)`
                    // channels of it from `first + at` on. At most 4 lanes are stored.
                    unsafe { quad_row(&frame, base, skip, left.min(4)) };
                    at = at.wrapping_add(4);
                    left = left.saturating_sub(4);
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        first = first.wrapping_add(block);
    }
    Some(())
}

/// Fills pixels of `block` bytes, each with the inputs of `taken` output channels from `first` on, of which each `factor` have the same.
#[inline(never)]
fn repeat(
    line: &mut [i8],
    block: usize,
    pixels: &[i8],
    inputs: usize,
    first: usize,
    taken: usize,
    factor: usize,
) -> Option<()> {
    let input = first.checked_div(factor)?;
    let used = first.wrapping_sub(input.wrapping_mul(factor));
    let mut left = pixels;
    for slot in pieces_mut(line, block) {
        let Some((pixel, rest)) = left.split_at_checked(inputs) else { break };
        left = rest;
        let mut values = pixel.get(input..)?.iter();
        let (mut x, mut uses) = (*values.next()?, factor.wrapping_sub(used));
        for slot in slot.iter_mut().take(taken) {
            rolled();
            if uses == 0 {
                (x, uses) = (*values.next()?, factor);
            }
            *slot = x;
            uses = uses.wrapping_sub(1);
        }
    }
    Some(())
}

/// Fills the list of the quad from channel `first` on: 4 biases; for each pair of taps its offsets in the kept rows, and 4 pairs of doubled
/// weights; 4 multipliers, 4 constants, 4 shifts. Lanes past the last channel become zeros.
#[inline(never)]
fn prepare(
    plan: &Quads,
    window: &Window,
    linear: &Integer<'_>,
    first: usize,
    list: &mut [u32],
) -> Option<()> {
    let Window { rows, columns, outputs: channels, .. } = *window;
    let pixel = plan.quads.wrapping_mul(4);
    let (biases, rest) = list.split_at_mut_checked(4)?;
    let (pairs, ends) = rest.split_at_mut_checked(plan.pairs.wrapping_mul(6))?;
    let mut totals = [0i32; 4];
    let (mut tap_h, mut tap_w, mut at) = (0usize, 0usize, first);
    let mut taps = core::iter::from_fn(|| {
        let line = tap_h.wrapping_mul(rows.dilation).wrapping_mul(plan.columns);
        let offset = line.wrapping_add(tap_w.wrapping_mul(columns.dilation)).wrapping_mul(pixel);
        let weights = linear.weights.get(at..)?;
        tap_w = tap_w.wrapping_add(1);
        if tap_w == columns.kernel {
            (tap_h, tap_w) = (tap_h.wrapping_add(1), 0);
        }
        at = at.wrapping_add(channels);
        Some((offset, weights))
    });
    let left = channels.saturating_sub(first);
    let mut count = rows.kernel.wrapping_mul(columns.kernel);
    for pair in pairs.as_chunks_mut::<6>().0 {
        let [offset_a, offset_b, weights @ ..] = pair;
        let (a, weights_a) = taps.next().unwrap_or((0, &[]));
        // An odd tap's partner is itself, without weight.
        let (b, weights_b) = if count > 1 { taps.next().unwrap_or((a, &[])) } else { (a, &[] as &[i8]) };
        count = count.wrapping_sub(2);
        (*offset_a, *offset_b) = (a as u32, b as u32);
        let pairs = lanes(weights_a, left).into_iter().zip(lanes(weights_b, left));
        for ((weight, total), (a, b)) in weights.iter_mut().zip(&mut totals).zip(pairs) {
            let (a, b) = (i32::from(a), i32::from(b));
            *total = total.wrapping_add(a).wrapping_add(b);
            *weight = ((a << 1) as u32 & 0xFFFF) | ((b << 17) as u32);
        }
    }
    let (multipliers, rest) = ends.split_at_mut_checked(4)?;
    let (constants, shifts) = rest.split_at_mut_checked(4)?;
    let slots = biases.iter_mut().zip(multipliers).zip(constants).zip(shifts).zip(totals);
    for (lane, ((((bias, multiplier), constant), shift), total)) in slots.enumerate() {
        let at = first.wrapping_add(lane);
        let operands = (linear.bias.get(at), linear.multiplier.get(at), linear.shift.get(at));
        let channel = match operands {
            (Some(&bias), Some(&multiplier), Some(&shift)) => {
                Channel::new(linear, bias, multiplier, shift, total)
            }
            _ => Channel { bias: 0, multiplier: 0, constant: 0, shift: 0 },
        };
        *bias = channel.bias as u32;
        *multiplier = channel.multiplier as u32;
        *constant = channel.constant as u32;
        *shift = channel.shift as u32;
    }
    Some(())
}

/// The whole pieces of `size` elements; no division, no panic.
#[inline(always)]
fn pieces_mut<T>(slice: &mut [T], size: usize) -> impl Iterator<Item = &mut [T]> {
    let mut left = slice;
    core::iter::from_fn(move || {
        if size == 0 {
            return None;
        }
        let (piece, rest) = core::mem::take(&mut left).split_at_mut_checked(size)?;
        left = rest;
        Some(piece)
    })
}

/// The first weights of 4 channels, zeros from channel `left` on and where there are none.
#[inline(never)]
fn lanes(weights: &[i8], left: usize) -> [i8; 4] {
    match weights.first_chunk() {
        Some(&lanes) if left >= 4 => lanes,
        _ => {
            let mut lanes = [0; 4];
            for (lane, &weight) in lanes.iter_mut().zip(weights).take(left) {
                rolled();
                *lane = weight;
            }
            lanes
        }
    }
}

/// Copies `words` words downwards in a buffer, or apart.
///
/// r0: to, r1: from, r2: words left.
///
/// # Safety
/// Both are aligned and have `words` words; `to` is not above `from` where they overlap.
#[unsafe(naked)]
unsafe extern "C" fn move_words(to: *mut i8, from: *const i8, words: usize) {
    naked_asm!(
        "
        push    {{r4, r5}}
        subs    r2, #4
        blo     2f
    1:
        ldm     r1!, {{r3-r5, r12}}
        stm     r0!, {{r3-r5, r12}}
        subs    r2, #4
        bhs     1b
    2:
        adds    r2, #4
        beq     4f
    3:
        ldr     r3, [r1], #4
        str     r3, [r0], #4
        subs    r2, #1
        bne     3b
    4:
        pop     {{r4, r5}}
        bx      lr
        "
    )
}

/// Copies `4 * quads` bytes of each of `pixels` pixels.
///
/// r0: to, r1: from, r2: pixels left, r3: quads, r4, r5: steps, r6: quads left, r7: word, r8, r12: places in a pixel.
///
/// # Safety
/// That many bytes are readable at each of `pixels` multiples of `from_step`, at any address, and writable at those of `to_step`; neither number
/// is 0.
#[unsafe(naked)]
unsafe extern "C" fn copy_pixels(
    to: *mut i8,
    from: *const i8,
    pixels: usize,
    quads: usize,
    from_step: usize,
    to_step: usize,
) {
    naked_asm!(
        "
        push    {{r4-r8, lr}}
        ldrd    r4, r5, [sp, #24]
    1:
        mov     r6, r3
        mov     r8, r0
        mov     r12, r1
    2:
        ldr     r7, [r12], #4
        str     r7, [r8], #4
        subs    r6, #1
        bne     2b
        add     r1, r4
        add     r0, r5
        subs    r2, #1
        bne     1b
        pop     {{r4-r8, pc}}
        "
    )
}

/// Operands of [`quad_row`].
#[repr(C)]
struct Frame {
    list: *const u32,
    output: *mut i8,
    output_step: usize,
    output_end: *mut i8,
    base_step: usize,
    pairs_end: *const u32,
}

/// Both taps of a pair: 46 bytes of code. r0: base, r1: list, r8-r11: sums.
macro_rules! pair {
    () => {
        "
        ldm     r1!, {{r2-r7}}
        ldr     r2, [r0, r2]
        ldr     r3, [r0, r3]
        pkhbt   r12, r2, r3, lsl #16
        pkhtb   lr, r3, r2, asr #16
        sxtb16  r2, r12
        sxtb16  r3, r12, ror #8
        sxtb16  r12, lr
        sxtb16  lr, lr, ror #8
        smlad   r8, r2, r4, r8
        smlad   r9, r3, r5, r9
        smlad   r10, r12, r6, r10
        smlad   r11, lr, r7, r11
        "
    };
}

/// One row of outputs of a quad of channels: for each output the list's biases plus all pairs of taps from `base` on, requantised, to [-128, 127]. Of the
/// first round of the chain of pairs the first `skip` ones are left out; `lanes` channels are stored.
///
/// r0: base, r1: list, r8-r11: sums. Stack: the frame, then where the chain and the stores are entered.
///
/// # Safety
/// The list has the layout that `prepare` makes. All words at its offsets from `base` plus multiples of `base_step` on are readable;
/// `lanes` (1 to 4) bytes are writable at `output` and every `output_step` further up to before `output_end`.
#[unsafe(naked)]
unsafe extern "C" fn quad_row(frame: *const Frame, base: *const i8, skip: usize, lanes: usize) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        sub     sp, #36
        ldm     r0, {{r4-r9}}
        stm     sp, {{r4-r9}}
        mov     r0, r1
        adr.w   r4, 2f
        movs    r5, #46
        mla     r4, r2, r5, r4
        adds    r4, #1
        adr.w   r5, 3f
        sub     r5, r5, r3, lsl #1
        adds    r5, #1
        strd    r4, r5, [sp, #24]
    1:
        ldr     r1, [sp]
        ldm     r1!, {{r8-r11}}
        ldr     pc, [sp, #24]
    2:
        ",
        pair!(),
        pair!(),
        pair!(),
        pair!(),
        "
        ldr     r2, [sp, #20]
        cmp     r1, r2
        bne     2b
        ldm     r1!, {{r2-r7, r12, lr}}
        smmlar  r2, r8, r2, r6
        smmlar  r3, r9, r3, r7
        smmlar  r4, r10, r4, r12
        smmlar  r5, r11, r5, lr
        ldm     r1, {{r6, r7, r12, lr}}
        add     r2, r2, r8, asr #31
        add     r3, r3, r9, asr #31
        add     r4, r4, r10, asr #31
        add     r5, r5, r11, asr #31
        asrs    r2, r6
        asrs    r3, r7
        asr     r4, r4, r12
        asr     r5, r5, lr
        ssat    r2, #8, r2
        ssat    r3, #8, r3
        ssat    r4, #8, r4
        ssat    r5, #8, r5
        ldm     sp, {{r1, r6, r7, r8, r9}}
        ldr     pc, [sp, #28]
        strb    r5, [r6, #3]
        strb    r4, [r6, #2]
        strb    r3, [r6, #1]
        strb    r2, [r6]
    3:
        adds    r6, r7
        str     r6, [sp, #4]
        add     r0, r9
        cmp     r6, r8
        bne     1b
        add     sp, #36
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}
