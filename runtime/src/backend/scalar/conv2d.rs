//! Convolution: each output is a few inner products over what lies side by side in both image and weights.

use super::element::{Element, Real, clamp_f32, dot, dot_f32, dot_i4x2};
use super::in_place::rows_in_place;
use super::packed;
use crate::backend::{Integers, IntegersMut};
use crate::blob::Packing;
use crate::ops::linear::{Float, Integer};
use crate::ops::window::Window;

#[inline(never)]
pub fn conv2d_i8(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    match input {
        Some(input) => apart(window, groups, linear, input, output),
        None => rows_in_place(window, output, scratch, &mut |window, input, output| {
            apart(window, groups, linear, input, output)
        }),
    }
}

/// One copy of the code for outputs apart from the input and in its place.
#[inline(never)]
fn apart(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    integer(window, groups, linear, input, output)
}

#[inline(never)]
pub fn conv2d_i16(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: IntegersMut<'_>,
) -> Option<()> {
    match (input, output) {
        (Integers::I8(input), IntegersMut::I16(output)) => integer(window, groups, linear, input, output),
        (Integers::I16(input), IntegersMut::I8(output)) => integer(window, groups, linear, input, output),
        (Integers::I16(input), IntegersMut::I16(output)) => integer(window, groups, linear, input, output),
        (Integers::I8(_), IntegersMut::I8(_)) => None,
    }
}

#[inline(never)]
pub fn conv2d_i4(
    window: &Window,
    groups: usize,
    linear: &Integer<'_, u8>,
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    let finish = |channel: usize, sum: i32| {
        let sum = sum.wrapping_add(*linear.bias.get(channel)?);
        Some(i8::narrow(linear.finish(channel, sum)?))
    };
    let dot = |x: &[i8], w: &[u8], first: usize| dot_i4x2(x, linear.input_zero, w, first);
    convolve(window, groups, linear.weights, 2, input, output, dot, i32::wrapping_add, finish)
}

#[inline(never)]
pub fn conv2d_f32(
    window: &Window,
    groups: usize,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    float(window, groups, linear, input, output)
}

#[inline(never)]
pub fn conv2d_f16(
    window: &Window,
    groups: usize,
    linear: &Float<'_, u16>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    float(window, groups, linear, input, output)
}

#[inline(always)]
fn float<W: Real>(
    window: &Window,
    groups: usize,
    linear: &Float<'_, W>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    let sum = |channel: usize, sum: f32| {
        let bias = *linear.bias.get(channel)?;
        Some(clamp_f32(sum + bias, [linear.low, linear.high]))
    };
    let dot = |x: &[f32], w: &[W], first: usize| Some(dot_f32(x, plain(w, first, x.len())?));
    convolve(window, groups, linear.weights, 1, input, output, dot, |a, b| a + b, sum)
}

#[inline(always)]
fn integer<X: Element, Y: Element>(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: &[X],
    output: &mut [Y],
) -> Option<()> {
    if linear.packing != Packing::Rows {
        return packed::conv2d(window, groups, linear, input, output);
    }
    let zero = linear.input_zero;
    let finish = |channel: usize, sum: i32| {
        let sum = sum.wrapping_add(*linear.bias.get(channel)?);
        Some(Y::narrow(linear.finish(channel, sum)?))
    };
    let dot = |x: &[X], w: &[i8], first: usize| Some(dot(x, zero, plain(w, first, x.len())?));
    convolve(window, groups, linear.weights, 1, input, output, dot, i32::wrapping_add, finish)
}

/// Some elements that are stored one by one.
#[inline(always)]
fn plain<W>(stored: &[W], first: usize, elements: usize) -> Option<&[W]> {
    stored.get(first..)?.get(..elements)
}

/// The loops of all families. A stored element of `weights` holds `density` of them. `dot` sums up products of inputs and of an output channel's weights
/// from a number on, `add` such sums, `finish` makes an output of a channel's sum.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "four of them are the arithmetic of a family")]
fn convolve<X, W, Y, A: Copy + Default>(
    window: &Window,
    groups: usize,
    weights: &[W],
    density: usize,
    input: &[X],
    output: &mut [Y],
    dot: impl Fn(&[X], &[W], usize) -> Option<A>,
    add: impl Fn(A, A) -> A,
    finish: impl Fn(usize, A) -> Option<Y>,
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let group_inputs = inputs.checked_div(groups)?;
    let group_outputs = outputs.checked_div(groups)?;
    let kernel_row = columns.kernel.wrapping_mul(group_inputs);
    let kernel = rows.kernel.wrapping_mul(kernel_row).div_ceil(density);
    let contiguous = groups == 1 && columns.dilation == 1;
    let mut images = input;
    let mut outputs_left = output;
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            for column in 0..columns.output {
                let run = columns.run(column);
                let run_elements = run.length.wrapping_mul(inputs);
                let mut weights_left = weights;
                let mut channel = 0usize;
                for group in 0..groups {
                    let first_input = group.wrapping_mul(group_inputs);
                    for _ in 0..group_outputs {
                        let (kernel, rest) = weights_left.split_at_checked(kernel)?;
                        weights_left = rest;
                        let mut sum = A::default();
                        for tap_h in 0..rows.kernel {
                            let Some(y) = rows.position(row, tap_h) else { continue };
                            let first = tap_h.wrapping_mul(kernel_row);
                            if contiguous {
                                if run.length == 0 {
                                    continue;
                                }
                                let x = image.get(window.at(y, run.position)..)?.get(..run_elements)?;
                                let first = first.wrapping_add(run.tap.wrapping_mul(inputs));
                                sum = add(sum, dot(x, kernel, first)?);
                                continue;
                            }
                            for tap_w in 0..columns.kernel {
                                let Some(x) = columns.position(column, tap_w) else { continue };
                                let x = image.get(window.at(y, x).wrapping_add(first_input)..)?;
                                let first = first.wrapping_add(tap_w.wrapping_mul(group_inputs));
                                sum = add(sum, dot(x.get(..group_inputs)?, kernel, first)?);
                            }
                        }
                        let (slot, rest) = outputs_left.split_first_mut()?;
                        *slot = finish(channel, sum)?;
                        outputs_left = rest;
                        channel = channel.wrapping_add(1);
                    }
                }
            }
        }
    }
    Some(())
}
