//! Windows of 3x3 with stride 1 or 2: one channel after the other.
//!
//! Scratch holds two slots with the values of two neighbouring rows each, as pairs of 16 bits: for each channel of a block and each two padded columns
//! the four words slot 0 of both, slot 1 of both. A strip of outputs (two rows of stride 1, or one of stride 2) reads both slots; the next strip's
//! upper slot is this one's lower, so each row is widened once. A single row of stride 1 reads slot 0 and, in place of slot 1, its third row, as pairs of
//! neighbours in the row.

mod prepare;
mod sums;

use prepare::{Quad, Rows, neighbours, prepare_quad, widen};
use sums::{Frame, row1, row2_even, row2_odd, strip_even, strip_odd};

use crate::backend::kernels::{Kernels, links};
use crate::backend::spec::dsp::depthwise::{STRIDE_1, STRIDE_2, STRIP_WORDS, Strips};
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::{rolled, unknown};

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
    let mut source = Source::new(plan, window, padding, slots);
    let mut frame = Frame {
        step: outputs,
        below: width,
        constants: core::ptr::null(),
        output: place,
        channels: 0,
        pair_bytes: 0,
        left: 0,
        exact: usize::from(linear.low < linear.output_zero),
        advance: 0,
    };
    // Whether columns of padding hold the zero point: a single row's third one is in other pairs.
    let mut is_clean = false;
    let (mut first, mut first_output) = (0usize, 0usize);
    while first < channels {
        let taken = channels.wrapping_sub(first).min(plan.channels);
        let outputs_taken = outputs.wrapping_sub(first_output).min(block_outputs);
        prepare(linear, outputs, first_output, outputs_taken, constants)?;
        frame.constants = constants.as_ptr();
        source.rows.quads = taken >> 2;
        // A call takes channels that lie behind each other, or all outputs of one.
        let (calls, advance) = if factor == 1 { (1, plan.plane) } else { (taken, 0) };
        frame.channels = if factor == 1 { taken } else { factor };
        // One loop, however many images there are.
        for image in 0..unknown(batch) {
            if !is_clean {
                // SAFETY: nobody else holds the slots.
                unsafe { source.clear(zero.wrapping_mul(0x1_0001)) };
                is_clean = whole == rows.output || whole == 0;
            }
            source.read = input.wrapping_add(image.wrapping_mul(window.image()).wrapping_add(first));
            frame.output = place.wrapping_add(image.wrapping_mul(output_image).wrapping_add(first_output));
            frame.pair_bytes = (columns.output >> 1).wrapping_mul(stride).wrapping_mul(16);
            frame.left = columns.output & 1;
            frame.advance = advance.wrapping_sub(plan.plane).wrapping_add(16);
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
                frame.pair_bytes = (columns.output >> 2).wrapping_mul(32);
                frame.left = columns.output & 3;
                frame.advance = advance;
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
    /// Of no image and no channels yet.
    #[inline(always)]
    fn new(plan: &Strips, window: &'a Window, padding: *const i8, slots: &mut [u32]) -> Self {
        let columns = &window.columns;
        let pixels = plan.columns.saturating_sub(columns.pad).min(columns.input);
        let lead = columns.pad & 1;
        let behind = pixels.wrapping_sub(lead);
        let words = slots.len();
        let slots = slots.as_mut_ptr();
        Self {
            window,
            read: padding,
            padding,
            slots,
            words,
            place: slots.wrapping_add((columns.pad >> 1).wrapping_mul(4)),
            is_over_image: pixels > 0,
            rows: Rows {
                upper_step: 0,
                lower_step: 0,
                plane: plan.plane,
                quads: 0,
                lead,
                pair_bytes: (behind >> 1).wrapping_mul(16),
                trail: behind & 1,
            },
        }
    }

    /// Fills all slots.
    ///
    /// # Safety
    /// As [`Source::lift`].
    #[inline(always)]
    unsafe fn clear(&self, value: u32) {
        // SAFETY: the caller's promise.
        fill(unsafe { core::slice::from_raw_parts_mut(self.slots, self.words) }, value);
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
    #[inline(never)]
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
    let end = first.wrapping_add(taken);
    let mut quad = Quad {
        bias: linear.bias.get(first..end)?.as_ptr(),
        multiplier: linear.multiplier.get(first..end)?.as_ptr(),
        shift: linear.shift.get(first..end)?.as_ptr(),
        input_zero: linear.input_zero.into(),
        odd_zero: linear.output_zero.wrapping_mul(2).wrapping_add(1),
    };
    let mut weights = linear.weights.get(first..outputs.wrapping_mul(8).wrapping_add(end))?.as_ptr();
    for place in constants.as_chunks_mut().0.iter_mut().take(taken >> 2) {
        // SAFETY: the slices hold 4 of each for every whole quad of `taken`, and 4 weights at each of 9 multiples of `outputs`.
        unsafe { prepare_quad(place, weights, outputs, &quad) };
        weights = weights.wrapping_add(4);
        quad.bias = quad.bias.wrapping_add(4);
        quad.multiplier = quad.multiplier.wrapping_add(4);
        quad.shift = quad.shift.wrapping_add(4);
    }
    Some(())
}
