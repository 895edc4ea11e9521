//! Depthwise convolution: channels side by side, a block of them at a time.

use super::element::{Element, Real, clamp_f32};
use super::in_place::rows_in_place;
use crate::backend::{Integers, IntegersMut};
use crate::ops::linear::{Float, Integer};
use crate::ops::window::Window;

/// Channels that are summed up at once: 64 bytes of sums.
const BLOCK: usize = 16;

#[inline(never)]
pub fn depthwise_conv2d_i8(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    match input {
        Some(input) => apart(window, linear, input, output),
        None => rows_in_place(window, output, scratch, &mut |window, input, output| {
            apart(window, linear, input, output)
        }),
    }
}

/// One copy of the code for outputs apart from the input and in its place.
#[inline(never)]
fn apart(window: &Window, linear: &Integer<'_>, input: &[i8], output: &mut [i8]) -> Option<()> {
    integer(window, linear, input, output)
}

#[inline(never)]
pub fn depthwise_conv2d_i16(
    window: &Window,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: IntegersMut<'_>,
) -> Option<()> {
    match (input, output) {
        (Integers::I8(input), IntegersMut::I16(output)) => integer(window, linear, input, output),
        (Integers::I16(input), IntegersMut::I8(output)) => integer(window, linear, input, output),
        (Integers::I16(input), IntegersMut::I16(output)) => integer(window, linear, input, output),
        (Integers::I8(_), IntegersMut::I8(_)) => None,
    }
}

#[inline(never)]
pub fn depthwise_conv2d_f32(
    window: &Window,
    linear: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    float(window, linear, input, output)
}

#[inline(never)]
pub fn depthwise_conv2d_f16(
    window: &Window,
    linear: &Float<'_, u16>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    float(window, linear, input, output)
}

#[inline(always)]
fn float<W: Real>(window: &Window, linear: &Float<'_, W>, input: &[f32], output: &mut [f32]) -> Option<()> {
    let finish = |channel: usize, sum: f32| {
        let bias = *linear.bias.get(channel)?;
        Some(clamp_f32(sum + bias, [linear.low, linear.high]))
    };
    convolve(window, linear.weights, input, output, |sum: f32, x, w: W| sum + x * w.real(), finish)
}

#[inline(always)]
fn integer<X: Element, Y: Element>(
    window: &Window,
    linear: &Integer<'_>,
    input: &[X],
    output: &mut [Y],
) -> Option<()> {
    let zero = linear.input_zero;
    let multiply_add = |sum: i32, x: X, w: i8| {
        sum.wrapping_add(i32::from(x.widen().wrapping_sub(zero)).wrapping_mul(w.into()))
    };
    let finish = |channel: usize, sum: i32| {
        let sum = sum.wrapping_add(*linear.bias.get(channel)?);
        Some(Y::narrow(linear.finish(channel, sum)?))
    };
    convolve(window, linear.weights, input, output, multiply_add, finish)
}

/// The loops of all families. `multiply_add` adds a product to a sum, `finish` makes an output of a channel's sum.
#[inline(always)]
fn convolve<X: Copy, W: Copy, Y, A: Copy + Default>(
    window: &Window,
    weights: &[W],
    input: &[X],
    output: &mut [Y],
    multiply_add: impl Fn(A, X, W) -> A,
    finish: impl Fn(usize, A) -> Option<Y>,
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let factor = outputs.checked_div(inputs)?;
    let mut images = input;
    let mut outputs_left = output;
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            for column in 0..columns.output {
                let (pixel, rest) = outputs_left.split_at_mut_checked(outputs)?;
                outputs_left = rest;
                let mut first = 0usize;
                for block in pixel.chunks_mut(BLOCK) {
                    let mut sums = [A::default(); BLOCK];
                    for tap_h in 0..rows.kernel {
                        let Some(y) = rows.position(row, tap_h) else { continue };
                        for tap_w in 0..columns.kernel {
                            let Some(x) = columns.position(column, tap_w) else { continue };
                            let tap = tap_h.wrapping_mul(columns.kernel).wrapping_add(tap_w);
                            let w = weights.get(tap.wrapping_mul(outputs).wrapping_add(first)..)?;
                            let w = w.get(..block.len())?;
                            let at = window.at(y, x);
                            if factor == 1 {
                                let x = image.get(at.wrapping_add(first)..)?.get(..block.len())?;
                                if let (Some(x), Some(w)) = (x.first_chunk::<BLOCK>(), w.first_chunk()) {
                                    let w: &[W; BLOCK] = w;
                                    for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                                        *sum = multiply_add(*sum, x, w);
                                    }
                                    continue;
                                }
                                for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                                    *sum = multiply_add(*sum, x, w);
                                }
                                continue;
                            }
                            // Several outputs of one input channel.
                            let pixel = image.get(at..)?.get(..inputs)?;
                            let mut input = first.checked_div(factor)?;
                            let mut left =
                                factor.wrapping_sub(first.wrapping_sub(input.wrapping_mul(factor)));
                            for (sum, &w) in sums.iter_mut().zip(w) {
                                if left == 0 {
                                    input = input.wrapping_add(1);
                                    left = factor;
                                }
                                left = left.wrapping_sub(1);
                                *sum = multiply_add(*sum, *pixel.get(input)?, w);
                            }
                        }
                    }
                    for (slot, &sum) in block.iter_mut().zip(&sums) {
                        *slot = finish(first, sum)?;
                        first = first.wrapping_add(1);
                    }
                }
            }
        }
    }
    Some(())
}
