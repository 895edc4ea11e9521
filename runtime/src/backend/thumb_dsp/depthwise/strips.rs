//! Windows of 3x3 with stride 1: two rows of outputs at a time, one channel after the other.
//!
//! Scratch holds, for each channel of a block and each padded column, two slots with the values of two neighbouring rows each. A strip of two output
//! rows reads both; the next strip's upper slot is this one's lower, so each row is widened once.

use core::arch::naked_asm;

use super::Channel;
use crate::backend::spec::dsp::depthwise::{STRIP_WORDS, Strips};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// The convolution without its clamp, for outputs of at least the zero point. `None` only before anything is written, if the scratch is too
/// short; lengths are checked by the caller.
#[inline(never)]
pub fn run(
    plan: &Strips,
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, .. } = *window;
    let words: &mut [u32] = bytemuck::try_cast_slice_mut(scratch.get_mut(..plan.scratch_bytes)?).ok()?;
    let (constants, rest) = words.split_at_mut_checked(plan.channels.wrapping_mul(STRIP_WORDS))?;
    let (padding, slots) = rest.split_at_mut_checked(plan.channels >> 2)?;
    let zero = u32::from(linear.input_zero as u16);
    padding.fill((zero & 0xFF).wrapping_mul(0x0101_0101));
    slots.fill(zero.wrapping_mul(0x1_0001));
    let padding: *const i8 = padding.as_ptr().cast();
    let slots = slots.as_mut_ptr();
    let plane = plan.columns.wrapping_mul(8);
    let width = columns.output.wrapping_mul(channels);
    let output_image = rows.output.wrapping_mul(width);
    let place = output.as_mut_ptr();
    // In place the rows are read through the pointer that writes them.
    let source = input.map_or(place.cast_const(), <[i8]>::as_ptr);
    let mut first = 0usize;
    while first < channels {
        let taken = channels.wrapping_sub(first).min(plan.channels);
        prepare(linear, channels, first, taken, constants)?;
        for image in 0..batch {
            let read = source.wrapping_add(image.wrapping_mul(window.image()).wrapping_add(first));
            let written = place.wrapping_add(image.wrapping_mul(output_image).wrapping_add(first));
            // Pointer and step of the row that is `y - pad`.
            let row_of = |y: usize| {
                let at = y.wrapping_sub(rows.pad);
                if at < rows.input { (read.wrapping_add(window.at(at, 0)), channels) } else { (padding, 0) }
            };
            let widen_pair = |y: usize, slot: usize| {
                let (upper, upper_step) = row_of(y);
                let (lower, lower_step) = row_of(y.wrapping_add(1));
                let start = slots.wrapping_add(columns.pad.wrapping_mul(2).wrapping_add(slot));
                let rows = Rows { upper_step, lower_step, plane, quads: taken >> 2 };
                // SAFETY: `row_of` gives a row of the input or the padding; both have `4 * quads` bytes at each of the `columns.input` steps, since the caller
                // checked the lengths. `slots` has `plane` bytes for each channel, `columns.pad + columns.input` columns of 8 bytes in each.
                unsafe { widen(start, upper, lower, columns.input, &rows) };
            };
            widen_pair(0, 0);
            let mut odd = false;
            let mut row = 0usize;
            while row < rows.output {
                widen_pair(row.wrapping_add(2), usize::from(!odd));
                let mut frame = Frame {
                    step: channels,
                    // A last single row is written last.
                    below: if row.wrapping_add(1) < rows.output { width } else { 0 },
                    end: 0,
                    constants: constants.as_ptr(),
                    output: written.wrapping_add(row.wrapping_mul(width)),
                    channels: taken,
                    pair_bytes: (columns.output >> 1).wrapping_mul(16),
                    single: columns.output & 1,
                };
                let strip = if odd { strip_odd } else { strip_even };
                // SAFETY: `slots` has `columns.output + 2` columns for each channel, `constants` was filled by `prepare` for each; the output has `columns.output`
                // pixels in row `row`, and in the next one unless `below` is 0, by the caller's check.
                unsafe { strip(slots, &mut frame) };
                odd = !odd;
                row = row.wrapping_add(2);
            }
        }
        first = first.wrapping_add(plan.channels);
    }
    Some(())
}

/// Fills the constants of channels `first..first + taken`: three pairs (upper, middle) of doubled weights, three (middle, lower), multiplier, constant,
/// shift, bias.
fn prepare(
    linear: &Integer<'_>,
    channels: usize,
    first: usize,
    taken: usize,
    constants: &mut [u32],
) -> Option<()> {
    let mut channel = first;
    let places = constants.as_chunks_mut::<{ 4 * STRIP_WORDS }>().0;
    for place in places.iter_mut().take(taken >> 2) {
        let last = channels.wrapping_mul(8).wrapping_add(channel).wrapping_add(4);
        let weights = linear.weights.get(channel..last)?;
        // SAFETY: the slice holds 4 weights at each of 9 multiples of `channels`; the place has 40 words.
        unsafe { pair_weights(place, weights.as_ptr(), channels) };
        for words in place.as_chunks_mut::<STRIP_WORDS>().0 {
            let [.., multiplier, constant, shift, bias] = words;
            let of = Channel::new(linear, channel, bias.cast_signed())?;
            (*multiplier, *constant) = (of.multiplier as u32, of.constant as u32);
            (*shift, *bias) = (of.shift as u32, of.bias as u32);
            channel = channel.wrapping_add(1);
        }
    }
    Some(())
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

/// The weights of 4 channels: for each, three words (upper, middle) and three (middle, lower) of doubled weights, and in the last of its words their
/// plain sum.
///
/// r0: place, r1: weights, r2: from tap to tap, r12: from row to row, lr: two rows, r8: sums of channels 0 and 2, r9: of 1 and 3, r10: columns left.
///
/// # Safety
/// 4 bytes are readable at each of 9 multiples of `step` from `weights` on, at any address.
#[unsafe(naked)]
unsafe extern "C" fn pair_weights(place: &mut [u32; 4 * STRIP_WORDS], weights: *const i8, step: usize) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r10, lr}}
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
        sxth    r3, r8
        str     r3, [r0, #24]
        sxth    r3, r9
        str     r3, [r0, #64]
        asr     r3, r8, #16
        str     r3, [r0, #104]
        asr     r3, r9, #16
        str     r3, [r0, #144]
        pop     {{r4-r10, pc}}
        ",
        dsp_off!(),
    )
}

/// Operands of [`widen`].
#[repr(C)]
struct Rows {
    upper_step: usize,
    lower_step: usize,
    /// Bytes from one channel to the next.
    plane: usize,
    quads: usize,
}

/// Operands of [`strip_even`].
#[repr(C)]
struct Frame {
    /// Bytes from one output to the next.
    step: usize,
    /// Bytes from an output to the one below, or 0.
    below: usize,
    /// Of the pairs of columns; set by the kernel.
    end: usize,
    constants: *const u32,
    output: *mut i8,
    channels: usize,
    /// Bytes of all pairs of columns.
    pair_bytes: usize,
    /// Whether one column is left over.
    single: usize,
}

/// One pixel of 4 channels of both rows to the channels' places: r1, r2: rows, r4, r5: their steps, r8-r11: places.
macro_rules! widen_pixel {
    ($upper:literal, $lower:literal) => {
        concat!(
            "
        ldr     r6, [r1",
            $upper,
            "]
        ldr     r7, [r2",
            $lower,
            "]
        pkhbt   r12, r6, r7, lsl #16
        pkhtb   lr, r7, r6, asr #16
        sxtb16  r6, r12
        sxtb16  r7, r12, ror #8
        sxtb16  r12, lr
        sxtb16  lr, lr, ror #8
        str     r6, [r8], #8
        str     r7, [r9], #8
        str     r12, [r10], #8
        str     lr, [r11], #8
        "
        )
    };
}

/// Two rows of `4 * quads` channels as pairs (upper, lower) of 16 bits: channel `c` of pixel `x` to `place + c * plane + 8 * x`.
///
/// r0: place, r1, r2: rows, r3: pixels left, r4, r5: steps of the rows, r8-r11: places of 4 channels. Stack: rows, pixels, then plane and quads left.
///
/// # Safety
/// `4 * quads` bytes are readable from each row on at `pixels` multiples of its step, at any address; the places are writable words.
#[unsafe(naked)]
unsafe extern "C" fn widen(place: *mut u32, upper: *const i8, lower: *const i8, pixels: usize, rows: &Rows) {
    naked_asm!(
        dsp_on!(),
        "
        push    {{r4-r11, lr}}
        ldr     r4, [sp, #36]
        ldm     r4, {{r4-r7}}
        sub     sp, #20
        strd    r6, r7, [sp, #12]
    1:
        stm     sp, {{r1-r3}}
        ldr     r6, [sp, #12]
        mov     r8, r0
        add     r9, r8, r6
        add     r10, r9, r6
        add     r11, r10, r6
        add     r0, r11, r6
        lsrs    r3, r3, #1
        bcc     2f
        ",
        widen_pixel!("", ""),
        "
        add     r1, r4
        add     r2, r5
        cbz     r3, 3f
    2:
        ",
        widen_pixel!("", ""),
        widen_pixel!(", r4", ", r5"),
        "
        add     r1, r1, r4, lsl #1
        add     r2, r2, r5, lsl #1
        subs    r3, #1
        bne     2b
    3:
        ldm     sp, {{r1-r3}}
        adds    r1, #4
        adds    r2, #4
        ldr     r6, [sp, #16]
        subs    r6, #1
        str     r6, [sp, #16]
        bne     1b
        add     sp, #20
        pop     {{r4-r11, pc}}
        ",
        dsp_off!(),
    )
}

/// Products of a column's two slots with weights `$middle` and `$outer` for two outputs, one below the other: 6 products.
macro_rules! taps {
    ($upper:literal, $lower:literal, $above:literal, $below:literal, $w01:literal, $w12:literal) => {
        concat!(
            "smlad ", $above, ", ", $upper, ", ", $w01, ", ", $above, "\n",
            "smlad ", $below, ", ", $lower, ", ", $w12, ", ", $below, "\n",
            taps!(@outer $upper, $lower, $above, $below, $w01, $w12),
        )
    };
    (first $upper:literal, $lower:literal, $above:literal, $below:literal, $w01:literal, $w12:literal) => {
        concat!(
            "smlad ", $above, ", ", $upper, ", ", $w01, ", r12\n",
            "smlad ", $below, ", ", $lower, ", ", $w12, ", r12\n",
            taps!(@outer $upper, $lower, $above, $below, $w01, $w12),
        )
    };
    (@outer $upper:literal, $lower:literal, $above:literal, $below:literal, $w01:literal, $w12:literal) => {
        concat!(
            "smlabt ", $above, ", ", $lower, ", ", $w12, ", ", $above, "\n",
            "smlatb ", $below, ", ", $upper, ", ", $w01, ", ", $below, "\n",
        )
    };
}

/// The kernel of a strip whose upper rows are in slot `$upper` and whose lower ones in `$lower` (r1 is slot 0, r8 slot 1).
macro_rules! strip {
    ($(#[$doc:meta])* $name:ident, $upper:literal, $lower:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(slots: *const u32, frame: &mut Frame) {
            naked_asm!(
                dsp_on!(),
                "
                push    {{r4-r11, lr}}
                sub     sp, #52
                ldm     r1, {{r2-r9}}
                add     r1, sp, #16
                stm     r1, {{r2-r9}}
            1:
                ldr     r1, [sp, #28]
                ldm     r1!, {{r2-r7, r9-r12}}
                str     r1, [sp, #28]
                stm     sp, {{r9-r12}}
                ldr     lr, [sp, #32]
                ldr     r1, [sp, #40]
                cmp     r1, #0
                beq     3f
                add     r1, r0
                str     r1, [sp, #24]
            2:
                ldr     r12, [sp, #12]
                ldrd    r1, r8, [r0]
                ",
                taps!(first $upper, $lower, "r9", "r10", "r2", "r5"),
                "ldrd   r1, r8, [r0, #8]",
                taps!($upper, $lower, "r9", "r10", "r3", "r6"),
                taps!(first $upper, $lower, "r11", "r12", "r2", "r5"),
                "ldrd   r1, r8, [r0, #16]!",
                taps!($upper, $lower, "r9", "r10", "r4", "r7"),
                taps!($upper, $lower, "r11", "r12", "r3", "r6"),
                "ldrd   r1, r8, [r0, #8]",
                taps!($upper, $lower, "r11", "r12", "r4", "r7"),
                "
                ldrd    r1, r8, [sp]
                smmlar  r9, r9, r1, r8
                smmlar  r10, r10, r1, r8
                smmlar  r11, r11, r1, r8
                smmlar  r12, r12, r1, r8
                ldr     r1, [sp, #8]
                asr     r9, r9, r1
                asr     r10, r10, r1
                asr     r11, r11, r1
                asr     r12, r12, r1
                ldrd    r1, r8, [sp, #16]
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
                ldr     r1, [sp, #24]
                cmp     r0, r1
                bne     2b
            3:
                ldr     r1, [sp, #44]
                cmp     r1, #0
                beq     4f
                ldr     r12, [sp, #12]
                ldrd    r1, r8, [r0]
                ",
                taps!(first $upper, $lower, "r9", "r10", "r2", "r5"),
                "ldrd   r1, r8, [r0, #8]!",
                taps!($upper, $lower, "r9", "r10", "r3", "r6"),
                "ldrd   r1, r8, [r0, #8]",
                taps!($upper, $lower, "r9", "r10", "r4", "r7"),
                "
                ldrd    r1, r8, [sp]
                smmlar  r9, r9, r1, r8
                smmlar  r10, r10, r1, r8
                ldr     r1, [sp, #8]
                ldr     r8, [sp, #20]
                asr     r9, r9, r1
                asr     r10, r10, r1
                ssat    r9, #8, r9
                ssat    r10, #8, r10
                strb    r10, [lr, r8]
                strb    r9, [lr]
            4:
                ldrd    r1, r2, [sp, #32]
                adds    r0, #16
                adds    r1, #1
                subs    r2, #1
                strd    r1, r2, [sp, #32]
                bne     1b
                add     sp, #52
                pop     {{r4-r11, pc}}
                ",
                dsp_off!(),
            )
        }
    };
}

strip!(
    /// Two rows of outputs of all channels, requantised, to [-128, 127]; the row below is written first. Slot 0 of a column has its rows 0 and 1, slot 1
    /// its rows 2 and 3. For each output the bias and 9 products, by SMLAD of (upper, middle) or (middle, lower) and a halfword product.
    ///
    /// r0: column, r2-r4: weights (upper, middle), r5-r7: (middle, lower), r9-r12: sums of 2x2 outputs, lr: output. Stack: multiplier, constant, shift, bias,
    /// then the frame.
    ///
    /// # Safety
    /// `slots` has `outputs + 2` columns of 8 bytes for each channel, one channel behind the other, with `outputs = pair_bytes / 8 + single`; `constants`
    /// 10 words for each channel. Bytes at `output`, every `step` further, and `below` further, are writable for each output.
    strip_even, "r1", "r8"
);
strip!(
    /// Like [`strip_even`], with the slots swapped.
    ///
    /// # Safety
    /// As [`strip_even`].
    strip_odd, "r8", "r1"
);
