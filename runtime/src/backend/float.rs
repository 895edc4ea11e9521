//! Layers of single-precision floats, for cores that multiply and add in one instruction: the loops over windows, in Rust, around two kernels of
//! an instruction set.
#![allow(unsafe_code)]

use super::spec::float as spec;
use crate::ops::linear::Float;
use crate::ops::window::{Run, Window};

/// Operands of the kernels. Assembly knows the offsets.
#[repr(C)]
pub struct Frame {
    /// 0: inputs of the first tap.
    input: *const f32,
    /// 4: weights of the first output, or channel, at the first tap.
    weights: *const f32,
    /// 8: rows of taps, at least one.
    rows: usize,
    /// 12: inputs of a row, which lie side by side; of a depthwise convolution taps of a row. At least one.
    run: usize,
    /// 16: bytes of inputs from behind a row, as far as the kernel reads, to the next.
    input_gap: usize,
    /// 20: the same of weights.
    weights_gap: usize,
    /// 24: bytes from the weights of an output to those of the next; of a depthwise convolution from the inputs of a tap to those of the next.
    step: usize,
    /// 28: outputs.
    output: *mut f32,
    /// 32: bias.
    bias: *const f32,
    /// 36: outputs, at least one.
    outputs: usize,
    /// 40: least output.
    low: f32,
    /// 44: greatest output.
    high: f32,
}

/// The kernels of an instruction set.
pub struct Kernels {
    /// `output[o] = clamp(bias[o] + sum over rows and run of input * weights of o)`.
    pub dots: unsafe extern "C" fn(&Frame),
    /// `output[c] = clamp(bias[c] + sum over taps of input[c] * weights[c])`, where weights of a tap are one for each output.
    pub channels: unsafe extern "C" fn(&Frame),
    /// Inputs that `dots` takes at once: it steps over whole multiples, which it does not all read.
    pub lanes: usize,
}

impl Frame {
    fn new(linear: &Float<'_>) -> Self {
        Self {
            input: core::ptr::null(),
            weights: linear.weights.as_ptr(),
            rows: 1,
            run: 1,
            input_gap: 0,
            weights_gap: 0,
            step: 0,
            output: core::ptr::null_mut(),
            bias: linear.bias.as_ptr(),
            outputs: linear.bias.len(),
            low: linear.low,
            high: linear.high,
        }
    }
}

/// The outputs of a window in the padding.
#[inline(never)]
fn empty(linear: &Float<'_>, output: &mut [f32]) {
    for (slot, &bias) in output.iter_mut().zip(linear.bias) {
        *slot = super::scalar::element::clamp_f32(bias, [linear.low, linear.high]);
    }
}

/// Convolution in one group; `None`, before anything is written, if it is not for these kernels.
#[inline(never)]
pub fn conv2d(
    kernels: &Kernels,
    window: &Window,
    groups: usize,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    let run = window.columns.kernel.checked_mul(window.inputs)?;
    let depth = window.rows.kernel.checked_mul(run)?;
    let fits = spec::conv2d(window, groups) && linear.weights.len() >= depth.checked_mul(window.outputs)?;
    if !fits || depth == 0 {
        return None;
    }
    let mut frame = Frame { step: depth.wrapping_mul(4), ..Frame::new(linear) };
    let columns_step = window.inputs;
    let lanes = kernels.lanes.wrapping_sub(1);
    windows(window, linear, input, output, &mut |frame_input, rows, columns, target| {
        frame.rows = rows.length;
        frame.run = columns.length.wrapping_mul(columns_step);
        let read = frame.run.wrapping_add(lanes) & !lanes;
        let input_row = window.rows.dilation.wrapping_mul(window.columns.input).wrapping_mul(window.inputs);
        frame.input = frame_input;
        let at = rows.tap.wrapping_mul(run).wrapping_add(columns.tap.wrapping_mul(window.inputs));
        frame.weights = linear.weights.as_ptr().wrapping_add(at);
        frame.input_gap = input_row.wrapping_sub(read).wrapping_mul(4);
        frame.weights_gap = run.wrapping_sub(read).wrapping_mul(4);
        frame.output = target;
        // SAFETY: the taps lie on rows and columns of the image, by `Axis::taps`, and `windows` checked its length; the weights of all outputs are there, as
        // checked above, and so are outputs and bias.
        unsafe { (kernels.dots)(&frame) };
    })
}

/// Depthwise convolution; `None`, before anything is written, if it is not for these kernels.
#[inline(never)]
pub fn depthwise_conv2d(
    kernels: &Kernels,
    window: &Window,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    let Window { rows, columns, inputs, outputs, .. } = *window;
    let taps = rows.kernel.checked_mul(columns.kernel)?;
    if !spec::depthwise_conv2d(window) || linear.weights.len() < taps.checked_mul(outputs)? {
        return None;
    }
    let step = columns.dilation.wrapping_mul(inputs);
    let input_row = rows.dilation.wrapping_mul(columns.input).wrapping_mul(inputs);
    let mut frame = Frame { step: step.wrapping_mul(4), ..Frame::new(linear) };
    windows(window, linear, input, output, &mut |frame_input, rows_on, columns_on, target| {
        frame.rows = rows_on.length;
        frame.run = columns_on.length;
        frame.input = frame_input;
        let tap = rows_on.tap.wrapping_mul(columns.kernel).wrapping_add(columns_on.tap);
        frame.weights = linear.weights.as_ptr().wrapping_add(tap.wrapping_mul(outputs));
        frame.input_gap = input_row.wrapping_sub(columns_on.length.wrapping_mul(step)).wrapping_mul(4);
        let weights_gap = columns.kernel.wrapping_sub(columns_on.length).wrapping_mul(outputs);
        frame.weights_gap = weights_gap.wrapping_mul(4);
        frame.output = target;
        // SAFETY: the taps lie on rows and columns of the image, by `Axis::taps`, and `windows` checked its length; the weights of all taps are there, as checked
        // above, and so are outputs and bias.
        unsafe { (kernels.channels)(&frame) };
    })
}

/// Calls `one` for each window with a tap on the input: with the input of the first such tap, the taps, and the place of the outputs.
fn windows(
    window: &Window,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
    one: &mut dyn FnMut(*const f32, Run, Run, *mut f32),
) -> Option<()> {
    let Window { batch, rows, columns, outputs, .. } = *window;
    let positions = batch.checked_mul(rows.output)?.checked_mul(columns.output)?;
    if input.len() < batch.checked_mul(window.image())?
        || output.len() < positions.checked_mul(outputs)?
        || linear.bias.len() != outputs
        || outputs == 0
    {
        return None;
    }
    let (mut images, mut output_left) = (input, output);
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            let on_rows = rows.taps(row);
            for column in 0..columns.output {
                let (target, rest) = output_left.split_at_mut_checked(outputs)?;
                output_left = rest;
                let on_columns = columns.taps(column);
                if on_rows.length == 0 || on_columns.length == 0 {
                    empty(linear, target);
                    continue;
                }
                let first = image.as_ptr().wrapping_add(window.at(on_rows.position, on_columns.position));
                one(first, on_rows, on_columns, target.as_mut_ptr());
            }
        }
    }
    Some(())
}

/// Dense layer over rows of `inputs` elements; `None`, before anything is written, if a buffer is too short.
#[inline(never)]
pub fn dense(
    kernels: &Kernels,
    inputs: usize,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    let outputs = linear.bias.len();
    let batch = output.len().checked_div(outputs)?;
    if linear.weights.len() < inputs.checked_mul(outputs)?
        || input.len() < batch.checked_mul(inputs)?
        || inputs == 0
    {
        return None;
    }
    let mut frame = Frame { run: inputs, step: inputs.wrapping_mul(4), ..Frame::new(linear) };
    let (mut row, mut target) = (input.as_ptr(), output.as_mut_ptr());
    for _ in 0..batch {
        (frame.input, frame.output) = (row, target);
        // SAFETY: input and output have `batch` rows, of `inputs` elements and `outputs`; weights and bias are there, as checked above.
        unsafe { (kernels.dots)(&frame) };
        (row, target) = (row.wrapping_add(inputs), target.wrapping_add(outputs));
    }
    Some(())
}
