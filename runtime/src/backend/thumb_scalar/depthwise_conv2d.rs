//! Depthwise convolution: one channel after the other. Four bands of its rows are brought into a plane of pairs, padding included; then
//! windows slide over the plane, each giving an output of every band. What a channel's outputs replace has been read before.

use super::core;
use super::frame::{Extent, Frame, Plane, constants};
use crate::backend::Kernels;
use crate::backend::scalar::compact::{self, Order};
use crate::backend::spec::select::{Constants, Linear, Request};
use crate::backend::spec::swar;
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::ops::window::{Axis, Window};
use crate::rolled::{rolled, unknown};

#[inline(never)]
pub fn depthwise_conv2d_i8<K: Kernels>(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let request = Request {
        linear: Linear::DepthwiseConv2d { window: *window },
        input: DType::I8,
        output: DType::I8,
        packing: Packing::Rows,
        in_place: input.is_none(),
        constants: Constants { symmetric: swar::is_symmetric(linear.weights), ..Constants::USUAL },
    };
    match swar::depthwise(&request, &core::CORE) {
        Some(layout) if layout.bytes() <= scratch.len() => {
            let place = output.as_mut_ptr();
            let (source, elements) = match input {
                Some(input) => (input.as_ptr(), input.len()),
                None => (place.cast_const(), output.len()),
            };
            planes(window, linear, source, elements, output.len(), place, scratch, &layout)
        }
        _ => compact::bytes::<K>(window, window.inputs, Order::Taps, linear, input, output, scratch),
    }
}

/// Runs all channels. `input` points to `input_len` elements, `output` to `output_len`; both are valid as long as this runs.
#[expect(clippy::too_many_arguments, reason = "two of them are slices in parts, which may be the same")]
fn planes(
    window: &Window,
    linear: &Integer<'_>,
    input: *const i8,
    input_len: usize,
    output_len: usize,
    output: *mut i8,
    scratch: &mut [u8],
    layout: &swar::Depthwise,
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let (channel, rest) = scratch.split_at_mut_checked(layout.channel)?;
    let (table, rest) = rest.split_at_mut_checked(layout.table)?;
    let (plane, rest) = rest.split_at_mut_checked(layout.plane)?;
    let padding: &mut [i8] = bytemuck::cast_slice_mut(rest.get_mut(..layout.padding)?);
    let channel: &mut [[i32; core::CHANNEL_WORDS]] = bytemuck::try_cast_slice_mut(channel).ok()?;
    let channel = channel.first_mut()?;
    let table: &mut [i32] = bytemuck::try_cast_slice_mut(table).ok()?;
    let plane: &mut [i32] = bytemuck::try_cast_slice_mut(plane).ok()?;

    let output_image = rows.output.checked_mul(columns.output)?.checked_mul(outputs)?;
    let taps = rows.kernel.checked_mul(columns.kernel)?;
    if input_len < batch.checked_mul(window.image())?
        || output_len < batch.checked_mul(output_image)?
        || linear.weights.len() < taps.checked_mul(outputs)?
        || window.image() == 0
        || output_image == 0
    {
        return None;
    }
    let multiple = outputs.checked_div(inputs)?;
    if multiple.wrapping_mul(inputs) != outputs {
        return None;
    }
    let zero = i32::from(linear.input_zero);
    padding.fill(linear.input_zero as i8);
    // What no input replaces stays padding.
    plane.fill(zero.wrapping_add(zero.wrapping_shl(16)));
    let row_bytes = layout.columns.wrapping_mul(8);
    let plain = |axis: &Axis| axis.kernel == 3 && axis.dilation == 1;
    let three = plain(&rows) && plain(&columns);
    // Words of a tap in the table.
    let tap_words = if three { 1usize } else { 2 };
    table.fill(0);
    if !three {
        places(window, row_bytes, table);
    }

    let image_row = columns.input.wrapping_mul(inputs);
    let gap = layout.columns.wrapping_sub(columns.input).wrapping_mul(8);
    let one_row = Extent::new(columns.input, inputs, gap, 1);
    // First output row of each lane.
    let mut firsts = [0usize; 4];
    for (lane, first) in firsts.iter_mut().enumerate().take(unknown(4)) {
        *first = layout.first(rows.output, lane);
    }
    // Rows of the plane that are rows of the image in all lanes.
    let [_, lanes @ ..] = firsts;
    let [.., last] = firsts;
    let last = last.wrapping_mul(rows.stride);
    let all_from = rows.pad.min(layout.rows);
    let all_to = rows.input.wrapping_add(rows.pad).saturating_sub(last).min(layout.rows).max(all_from);
    let all_rows = Extent { rows: all_to.wrapping_sub(all_from), ..one_row };

    let output_row = columns.output.wrapping_mul(outputs);
    let step = columns.stride.wrapping_mul(8);
    let range = table.as_ptr_range();
    let mut operands = Plane {
        frame: Frame {
            lanes: lanes.map(|first| first.wrapping_mul(output_row)),
            pairs: plane.as_mut_ptr(),
            channels: channel.as_ptr(),
            outputs: columns.output,
            ..Frame::new(linear)
        },
        rows: layout.band,
        step,
        row_jump: row_bytes.wrapping_mul(rows.stride).wrapping_sub(step.wrapping_mul(columns.output)),
        output_step: outputs,
        taps: range.start,
        limit: if three { row_bytes.wrapping_sub(24) } else { range.end.addr() },
        three: three.into(),
    };
    let interior = plane.as_mut_ptr().wrapping_add(columns.pad.wrapping_mul(2));
    // Row of the image under the plane's first row.
    let start = firsts.map(|first| first.wrapping_mul(rows.stride).wrapping_sub(rows.pad));
    let mut image = input;
    let mut place = output;
    for _ in 0..batch {
        let mut first = 0usize;
        for source in 0..inputs {
            let channel_of = image.wrapping_add(source);
            let mut to = interior;
            let mut row = 0usize;
            while row < layout.rows {
                let extent = if row == all_from && all_rows.rows > 0 { &all_rows } else { &one_row };
                let mut sources = [padding.as_ptr(); 4];
                for (source, &first) in sources.iter_mut().zip(&start).take(unknown(4)) {
                    let at = first.wrapping_add(row);
                    if at < rows.input {
                        *source = channel_of.wrapping_add(at.wrapping_mul(image_row));
                    }
                }
                // SAFETY: each source has `extent.rows` rows of `columns.input` elements, `inputs` apart: the image's length was checked above, and
                // `padding` is one row. The plane has `layout.rows` rows of `layout.columns`, of which `pad + input` are the first.
                unsafe { core::widen(to, &sources, extent, 0) };
                to = to.wrapping_add(extent.rows.wrapping_mul(layout.columns.wrapping_mul(2)));
                row = row.wrapping_add(extent.rows);
            }
            for output in first..first.wrapping_add(multiple) {
                // SAFETY: `output` is less than `outputs`, there are weights for all taps and outputs, checked above, and `tap_words` words for each tap.
                let total = unsafe {
                    let from = linear.weights.as_ptr().add(output);
                    weights(from, outputs, taps, table.as_mut_ptr(), tap_words)
                };
                let bias = *linear.bias.get(output)?;
                let bias = bias.wrapping_sub(total.wrapping_mul(linear.input_zero.into()));
                constants(channel, linear, output, bias, layout.taps / 2)?;
                operands.frame.output = place.wrapping_add(output);
                // SAFETY: windows of `band` rows and `columns.output` columns, `stride` apart, lie in the plane by its size; outputs of all lanes lie in the
                // output image, checked above.
                unsafe { core::plane(&operands) };
            }
            first = first.wrapping_add(multiple);
        }
        image = image.wrapping_add(window.image());
        place = place.wrapping_add(output_image);
    }
    Some(())
}

/// Fills in where taps lie in a plane, in bytes behind a window's first pair.
fn places(window: &Window, row_bytes: usize, table: &mut [i32]) {
    let Window { rows, columns, .. } = *window;
    let (slots, _) = table.as_chunks_mut::<2>();
    let mut slots = slots.iter_mut();
    for tap_h in 0..rows.kernel {
        for tap_w in 0..columns.kernel {
            let row = tap_h.wrapping_mul(rows.dilation).wrapping_mul(row_bytes);
            let column = tap_w.wrapping_mul(columns.dilation).wrapping_mul(8);
            if let Some([place, _]) = slots.next() {
                *place = row.wrapping_add(column) as i32;
            }
        }
    }
}

/// Fills in the weights of an output channel, `step` from one tap to the next, as the last words of taps of `words`. Gives their sum.
///
/// # Safety
/// There are `taps` weights at `from`, and words for as many taps at `to`.
#[inline(never)]
unsafe fn weights(from: *const i8, step: usize, taps: usize, to: *mut i32, words: usize) -> i32 {
    let (mut from, mut to) = (from, to.wrapping_add(words.wrapping_sub(1)));
    let mut total = 0i32;
    for _ in 0..taps {
        rolled();
        // SAFETY: the caller's promise.
        let weight = unsafe { i32::from(*from) };
        // SAFETY: the caller's promise.
        unsafe { *to = weight };
        total = total.wrapping_add(weight);
        from = from.wrapping_add(step);
        to = to.wrapping_add(words);
    }
    total
}
