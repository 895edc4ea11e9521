//! Windows of 3x3 with stride 1 or 2: one channel after the other.
//!
//! Scratch holds two slots with the values of two neighbouring rows each, as pairs of 16 bits: for each channel of a block and each two padded columns
//! the four words slot 0 of both, slot 1 of both. A strip of outputs (two rows of stride 1, or one of stride 2) reads both slots; the next strip's
//! upper slot is this one's lower, so each row is widened once. A single row of stride 1 reads slot 0 and, in place of slot 1, its third row, as pairs of
//! neighbours in the row.

use core::arch::naked_asm;

#[cfg(doc)]
use super::Channel;
use crate::backend::kernels::{Kernels, links};
use crate::backend::spec::dsp::depthwise::{MOST_SHIFT, STRIDE_1, STRIDE_2, STRIP_WORDS, Strips};
use crate::backend::thumb_dsp::isa::{dsp_off, dsp_on};
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// The convolution without its clamp. `None` only before anything is written, if the scratch is too short; lengths are checked by the caller.
#[inline(never)]
pub fn run<K: Kernels>(
    plan: &Strips,
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, outputs } = *window;
    let factor = plan.factor;
    let words: &mut [u32] = bytemuck::try_cast_slice_mut(scratch.get_mut(..plan.scratch_bytes)?).ok()?;
    let block_outputs = plan.channels.wrapping_mul(factor);
    // Slots come first: [`row1`] reads a pair of columns more.
    let (slots, rest) = words.split_at_mut_checked(plan.channels.wrapping_mul(plan.plane >> 2))?;
    let (constants, padding) = rest.split_at_mut_checked(block_outputs.wrapping_mul(STRIP_WORDS))?;
    let zero = u32::from(linear.input_zero as u16);
    fill(padding, (zero & 0xFF).wrapping_mul(0x0101_0101));
    let padding = padding.as_ptr().cast();
    let stride = rows.stride;
    // Rows of outputs in a strip, and those in whole strips; where code for one stride is linked, it is this one.
    let height = match stride {
        1 if const { links::<K>(STRIDE_1) } => 2usize,
        _ => 1,
    };
    let whole = if height == 2 { rows.output & !1 } else { rows.output };
    let width = columns.output.wrapping_mul(outputs);
    let output_image = rows.output.wrapping_mul(width);
    let place = output.as_mut_ptr();
    // In place the rows are read through the pointer that writes them.
    let input = input.map_or(place.cast_const(), <[i8]>::as_ptr);
    // Whether columns of padding hold the zero point: a single row's third one is in other pairs.
    let mut is_clean = false;
    let (mut first, mut first_output) = (0usize, 0usize);
    while first < channels {
        let taken = channels.wrapping_sub(first).min(plan.channels);
        let outputs_taken = outputs.wrapping_sub(first_output).min(block_outputs);
        prepare(linear, outputs, first_output, outputs_taken, constants)?;
        // A call takes channels that lie behind each other, or all outputs of one.
        let (calls, per_call, advance) =
            if factor == 1 { (1, taken, plan.plane) } else { (taken, factor, 0) };
        let mut frame = Frame {
            step: outputs,
            below: width,
            constants: constants.as_ptr(),
            output: place,
            channels: per_call,
            pair_bytes: (columns.output >> 1).wrapping_mul(stride).wrapping_mul(16),
            left: columns.output & 1,
            exact: usize::from(linear.low < linear.output_zero),
            advance: advance.wrapping_sub(plan.plane).wrapping_add(16),
        };
        for image in 0..batch {
            if !is_clean {
                fill(slots, zero.wrapping_mul(0x1_0001));
                is_clean = whole == rows.output || whole == 0;
            }
            let read = input.wrapping_add(image.wrapping_mul(window.image()).wrapping_add(first));
            let mut source = Source::new(plan, window, read, padding, slots, taken);
            frame.output = place.wrapping_add(image.wrapping_mul(output_image).wrapping_add(first_output));
            // SAFETY: the input has the window's image from `read` on, by the caller's check; `padding` and `slots` have what the plan says.
            unsafe { source.widen_pair(0, 0) };
            let mut odd = false;
            let mut row = 0usize;
            while row < whole {
                // SAFETY: as above.
                unsafe { source.widen_pair(row.wrapping_mul(stride).wrapping_add(2), usize::from(!odd)) };
                let two = const { links::<K>(STRIDE_1) } && (height == 2 || const { !links::<K>(STRIDE_2) });
                let &strip = if two { &TWO } else { &STRIDED };
                // SAFETY: `slots` has the columns under `columns.output` windows for each channel, `constants` was filled by `prepare` for each of their
                // outputs; the output has `columns.output` pixels in row `row`, and in the next one where the kernel writes two, by the caller's check.
                unsafe { source.outputs(strip[usize::from(odd)], &mut frame, calls) };
                odd = !odd;
                row = row.wrapping_add(height);
                frame.output = frame.output.wrapping_add(width.wrapping_mul(height));
            }
            if const { links::<K>(STRIDE_1) } && row < rows.output {
                let quad_bytes = (columns.output >> 2).wrapping_mul(32);
                let mut frame = Frame { pair_bytes: quad_bytes, left: columns.output & 3, advance, ..frame };
                // SAFETY: as above; the slots are followed by constants.
                unsafe {
                    if odd {
                        source.lift();
                    }
                    source.widen_row(row.wrapping_add(2));
                    source.outputs(row1, &mut frame, calls);
                }
            }
        }
        first = first.wrapping_add(plan.channels);
        first_output = first_output.wrapping_add(block_outputs);
    }
    Some(())
}

/// Code for a strip.
type Strip = unsafe extern "C" fn(*const u32, &Frame);
/// Two rows of outputs, where slot 0 is the upper one and where slot 1 is.
static TWO: [Strip; 2] = [strip_even, strip_odd];
/// One row, of stride 2.
static STRIDED: [Strip; 2] = [row2_even, row2_odd];

/// Whether the code for a stride is linked: a firmware names it beside the kernel.
pub fn takes<K: Kernels>(stride: usize) -> bool {
    match stride {
        1 => const { links::<K>(STRIDE_1) },
        _ => const { links::<K>(STRIDE_2) },
    }
}

/// As `fill` of a slice, in little code.
#[inline(never)]
fn fill(words: &mut [u32], value: u32) {
    let (fours, rest) = words.as_chunks_mut::<4>();
    for four in fours {
        rolled();
        *four = [value; 4];
    }
    for word in rest {
        rolled();
        *word = value;
    }
}

/// A block of an image, and slots for it.
struct Source<'a> {
    window: &'a Window,
    /// The first channel of the block in the image.
    read: *const i8,
    /// A pixel of padding.
    padding: *const i8,
    slots: *mut u32,
    /// Words of all slots.
    words: usize,
    /// The first word of slot 0 that has a column of the image.
    place: *mut u32,
    /// Whether any has.
    is_over_image: bool,
    rows: Rows,
}

impl<'a> Source<'a> {
    /// Of `taken` channels from `read` on.
    #[inline(always)]
    fn new(
        plan: &Strips,
        window: &'a Window,
        read: *const i8,
        padding: *const i8,
        slots: &mut [u32],
        taken: usize,
    ) -> Self {
        let columns = &window.columns;
        let pixels = plan.columns.saturating_sub(columns.pad).min(columns.input);
        let lead = columns.pad & 1;
        let behind = pixels.wrapping_sub(lead);
        let words = slots.len();
        let slots = slots.as_mut_ptr();
        Self {
            window,
            read,
            padding,
            slots,
            words,
            place: slots.wrapping_add((columns.pad >> 1).wrapping_mul(4)),
            is_over_image: pixels > 0,
            rows: Rows {
                upper_step: 0,
                lower_step: 0,
                plane: plan.plane,
                quads: taken >> 2,
                lead,
                pair_bytes: (behind >> 1).wrapping_mul(16),
                trail: behind & 1,
            },
        }
    }

    /// Row `y`, counted from the top of the padding, and what to add for each pixel of it.
    #[inline(always)]
    fn row(&self, y: usize) -> (*const i8, usize) {
        let Window { rows, inputs, .. } = self.window;
        let at = y.wrapping_sub(rows.pad);
        if at < rows.input {
            (self.read.wrapping_add(self.window.at(at, 0)), *inputs)
        } else {
            (self.padding, 0)
        }
    }

    /// Fills slot `slot` with rows `y` and `y + 1`, counted from the top of the padding.
    ///
    /// # Safety
    /// The image is readable from `read` on, but for the channels before the block; `padding` has `4 * quads` bytes and `slots` as many planes.
    #[inline(never)]
    unsafe fn widen_pair(&mut self, y: usize, slot: usize) {
        let (upper, upper_step) = self.row(y);
        let (lower, lower_step) = self.row(y.wrapping_add(1));
        (self.rows.upper_step, self.rows.lower_step) = (upper_step, lower_step);
        let place = self.place.wrapping_add(self.rows.lead).wrapping_add(slot.wrapping_mul(2));
        if self.is_over_image {
            // SAFETY: each row is one of the input or the padding; both have `4 * quads` bytes at each of the `columns.input` steps, as the caller
            // says. `slots` has `plane` bytes for each channel, at least `columns.pad + pixels` columns in each.
            unsafe { widen(place, upper, lower, &self.rows) };
        }
    }

    /// Fills slot 1 of even columns with row `y`, in pairs of columns.
    ///
    /// # Safety
    /// As [`Source::widen_pair`].
    #[inline(always)]
    unsafe fn widen_row(&mut self, y: usize) {
        let (row, step) = self.row(y);
        self.rows.upper_step = step;
        if self.is_over_image {
            // SAFETY: as in `widen_pair`.
            unsafe { neighbours(self.place.wrapping_add(2), row, self.padding, &self.rows) };
        }
    }

    /// Copies slot 1 to slot 0.
    ///
    /// # Safety
    /// There are as many words from `slots` on as `words` says, and nobody else holds them.
    #[inline(never)]
    unsafe fn lift(&self) {
        // SAFETY: the caller's promise.
        let slots = unsafe { core::slice::from_raw_parts_mut(self.slots, self.words) };
        for [even, odd, from_even, from_odd] in slots.as_chunks_mut::<4>().0 {
            rolled();
            (*even, *odd) = (*from_even, *from_odd);
        }
    }

    /// The outputs of all channels by `calls` calls, each of as many planes' outputs as the frame says.
    ///
    /// # Safety
    /// As the code's, for each call.
    #[inline(always)]
    unsafe fn outputs(&self, strip: Strip, frame: &mut Frame, calls: usize) {
        let (constants, output) = (frame.constants, frame.output);
        let mut slots = self.slots.cast_const();
        for _ in 0..calls {
            // SAFETY: the caller's promise.
            unsafe { strip(slots, frame) };
            slots = slots.wrapping_add(self.rows.plane >> 2);
            frame.constants = frame.constants.wrapping_add(frame.channels.wrapping_mul(STRIP_WORDS));
            frame.output = frame.output.wrapping_add(frame.channels);
        }
        (frame.constants, frame.output) = (constants, output);
    }
}

/// Fills the constants of outputs `first..first + taken`, of a multiple of 4: three pairs (upper, middle) of doubled weights, three (middle, lower),
/// multiplier, constant, shift, bias.
#[inline(never)]
fn prepare(
    linear: &Integer<'_>,
    outputs: usize,
    first: usize,
    taken: usize,
    constants: &mut [u32],
) -> Option<()> {
    let bias = linear.bias.get(first..)?.as_chunks().0.iter();
    let multiplier = linear.multiplier.get(first..)?.as_chunks().0.iter();
    let shift = linear.shift.get(first..)?.as_chunks().0.iter();
    let places = constants.as_chunks_mut().0.iter_mut().take(taken >> 2);
    let mut channel = first;
    for (((place, bias), multiplier), shift) in places.zip(bias).zip(multiplier).zip(shift) {
        let last = outputs.wrapping_mul(8).wrapping_add(channel).wrapping_add(4);
        let weights = linear.weights.get(channel..last)?;
        channel = channel.wrapping_add(4);
        let quad = Quad {
            bias,
            multiplier,
            shift,
            input_zero: linear.input_zero.into(),
            odd_zero: linear.output_zero.wrapping_mul(2).wrapping_add(1),
        };
        // SAFETY: the slice holds 4 weights at each of 9 multiples of `outputs`.
        unsafe { prepare_quad(place, weights.as_ptr(), outputs, &quad) };
    }
    Some(())
}

/// What [`prepare_quad`] makes constants of.
#[repr(C)]
struct Quad<'a> {
    bias: &'a [i32; 4],
    multiplier: &'a [i32; 4],
    shift: &'a [i32; 4],
    input_zero: i32,
    /// Twice the output's zero point, and one.
    odd_zero: i32,
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
/// 4 bytes are readable at each of 9 multiples of `step` from `weights` on, at any address.
#[unsafe(naked)]
unsafe extern "C" fn prepare_quad(
    place: &mut [u32; 4 * STRIP_WORDS],
    weights: *const i8,
    step: usize,
    quad: &Quad<'_>,
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
struct Rows {
    upper_step: usize,
    lower_step: usize,
    /// Bytes from one channel to the next.
    plane: usize,
    quads: usize,
    /// Whether the first pixel is an odd column.
    lead: usize,
    /// Bytes of all pairs of columns.
    pair_bytes: usize,
    /// Whether the last pixel is an even column.
    trail: usize,
}

/// Operands of [`strip_even`].
#[repr(C)]
struct Frame {
    /// Bytes from one output to the next.
    step: usize,
    /// Bytes from an output to the one below.
    below: usize,
    constants: *const u32,
    output: *mut i8,
    /// Outputs of a pixel.
    channels: usize,
    /// Bytes of all pairs of columns, or of whole quads of outputs.
    pair_bytes: usize,
    /// Columns that are left over.
    left: usize,
    /// Whether outputs below the zero point are not clamped to it.
    exact: usize,
    /// Bytes from the last columns of one output to the first ones of the next; for [`row1`] from the first ones.
    advance: usize,
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
unsafe extern "C" fn widen(place: *mut u32, upper: *const i8, lower: *const i8, rows: &Rows) {
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
unsafe extern "C" fn neighbours(place: *mut u32, row: *const i8, padding: *const i8, rows: &Rows) {
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
        unsafe extern "C" fn $name(slots: *const u32, frame: &Frame) {
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
        unsafe extern "C" fn $name(slots: *const u32, frame: &Frame) {
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
unsafe extern "C" fn row1(slots: *const u32, frame: &Frame) {
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
