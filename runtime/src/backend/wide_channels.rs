//! Depthwise convolution from or to 16 bits, for cores without vectors: the sums of all channels of a window, then their outputs.
#![allow(unsafe_code)]

#[cfg(tucano_profile = "v6m")]
mod baseline;
#[cfg(any(tucano_profile = "v7em", tucano_profile = "v8m"))]
mod dsp;
#[cfg(not(tucano_profile = "v6m"))]
mod mainline;

#[cfg(tucano_profile = "v6m")]
use baseline as core;
#[cfg(any(tucano_profile = "v7em", tucano_profile = "v8m"))]
use dsp as core;
#[cfg(tucano_profile = "v7m")]
use mainline as core;

use super::spec::wide_channels as spec;
use super::{Integers, IntegersMut};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Operands of the kernels that sum up. Assembly knows the offsets.
#[repr(C)]
struct Taps {
    /// 0: inputs of the first tap.
    input: *const u8,
    /// 4: weights of the first tap.
    weights: *const i8,
    /// 8: rows of taps, at least one.
    rows: usize,
    /// 12: taps of a row, at least one.
    taps: usize,
    /// 16: bytes from the inputs of a tap to those of the next.
    input_step: usize,
    /// 20: channels, at least one: bytes from the weights of a tap to those of the next.
    channels: usize,
    /// 24: bytes from the inputs behind a row to those of the next.
    input_gap: usize,
    /// 28: the same of weights.
    weights_gap: usize,
    /// 32: sums.
    sums: *mut i32,
    /// 36: what they start from.
    bias: *const i32,
    /// 40: zero point of the input.
    zero: i32,
}

/// Operands of [`core::finish`]. Assembly knows the offsets.
#[repr(C)]
struct Finish {
    /// 0: sums.
    sums: *const i32,
    /// 4: their end.
    sums_end: *const i32,
    /// 8: multipliers.
    multiplier: *const i32,
    /// 12: shifts.
    shift: *const i32,
    /// 16: outputs.
    output: *mut u8,
    /// 20: bytes of an output.
    bytes: usize,
    /// 24: least output.
    low: i32,
    /// 28: greatest output.
    high: i32,
    /// 32: zero point of the output.
    zero: i32,
}

/// The convolution; `None`, before anything is written, if it is not for this kernel or the scratch is too short.
#[inline(never)]
pub fn depthwise_conv2d(
    window: &Window,
    linear: &Integer<'_>,
    input: &Integers<'_>,
    output: &mut IntegersMut<'_>,
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let (input, bytes): (&[u8], usize) = match input {
        Integers::I8(input) => (bytemuck::cast_slice(input), 1),
        Integers::I16(input) => (bytemuck::cast_slice(input), 2),
    };
    let (output, output_bytes): (&mut [u8], usize) = match output {
        IntegersMut::I8(output) => (bytemuck::cast_slice_mut(output), 1),
        IntegersMut::I16(output) => (bytemuck::cast_slice_mut(output), 2),
    };
    let sums: &mut [i32] = bytemuck::try_cast_slice_mut(scratch.get_mut(..spec::scratch(window)?)?).ok()?;
    let pixel = inputs.checked_mul(bytes)?;
    let image = window.image().checked_mul(bytes)?;
    let positions = batch.checked_mul(rows.output)?.checked_mul(columns.output)?;
    let target = outputs.checked_mul(output_bytes)?;
    let taps = rows.kernel.checked_mul(columns.kernel)?;
    let constants = [linear.bias.len(), linear.multiplier.len(), linear.shift.len()];
    if inputs != outputs
        || outputs == 0
        || input.len() < batch.checked_mul(image)?
        || output.len() < positions.checked_mul(target)?
        || linear.weights.len() < taps.checked_mul(outputs)?
        || constants.iter().any(|length| *length != outputs)
    {
        return None;
    }
    let kernel = if bytes == 1 { core::taps_i8 } else { core::taps_i16 as unsafe extern "C" fn(&Taps) };
    let input_step = columns.dilation.wrapping_mul(pixel);
    let input_row = rows.dilation.wrapping_mul(columns.input).wrapping_mul(pixel);
    let range = sums.as_ptr_range();
    let mut of = Taps {
        input: input.as_ptr(),
        weights: linear.weights.as_ptr(),
        rows: 0,
        taps: 0,
        input_step,
        channels: outputs,
        input_gap: 0,
        weights_gap: 0,
        sums: sums.as_mut_ptr(),
        bias: linear.bias.as_ptr(),
        zero: linear.input_zero.into(),
    };
    let mut finish = Finish {
        sums: range.start,
        sums_end: range.end,
        multiplier: linear.multiplier.as_ptr(),
        shift: linear.shift.as_ptr(),
        output: output.as_mut_ptr(),
        bytes: output_bytes,
        low: linear.low,
        high: linear.high,
        zero: linear.output_zero,
    };
    let mut first = input.as_ptr();
    for _ in 0..batch {
        for row in 0..rows.output {
            let down = rows.taps(row);
            for column in 0..columns.output {
                let across = columns.taps(column);
                if down.length == 0 || across.length == 0 {
                    for (sum, &bias) in sums.iter_mut().zip(linear.bias) {
                        *sum = bias;
                    }
                } else {
                    let at = window.at(down.position, across.position).wrapping_mul(bytes);
                    let tap = down.tap.wrapping_mul(columns.kernel).wrapping_add(across.tap);
                    of.input = first.wrapping_add(at);
                    of.weights = linear.weights.as_ptr().wrapping_add(tap.wrapping_mul(outputs));
                    (of.rows, of.taps) = (down.length, across.length);
                    of.input_gap = input_row.wrapping_sub(across.length.wrapping_mul(input_step));
                    of.weights_gap = columns.kernel.wrapping_sub(across.length).wrapping_mul(outputs);
                    // SAFETY: the taps lie on rows and columns of the image, by `Axis::taps`, and there are sums, biases and weights of all channels: lengths
                    // were checked above. Inputs of 16 bits are aligned, as slices of them were.
                    unsafe { kernel(&of) };
                }
                // SAFETY: there are a sum, a multiplier and a shift of each channel, at least one, and room for an output of each, checked above; outputs of
                // 16 bits are aligned, as their slice was.
                unsafe { core::finish(&finish) };
                finish.output = finish.output.wrapping_add(target);
            }
        }
        first = first.wrapping_add(image);
    }
    Some(())
}
