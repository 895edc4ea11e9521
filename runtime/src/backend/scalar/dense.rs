//! Dense layers: one inner product an output.

use super::element::{Element, Real, clamp_f32, dot, dot_f32, dot_i4x2};
use super::packed;
use crate::backend::{Integers, IntegersMut};
use crate::blob::Packing;
use crate::ops::linear::{Float, Integer};

#[inline(never)]
pub fn dense_i8(inputs: usize, linear: &Integer<'_>, input: &[i8], output: &mut [i8]) -> Option<()> {
    integer(inputs, linear, input, output)
}

#[inline(never)]
pub fn dense_i16(
    inputs: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: IntegersMut<'_>,
) -> Option<()> {
    match (input, output) {
        (Integers::I8(input), IntegersMut::I16(output)) => integer(inputs, linear, input, output),
        (Integers::I16(input), IntegersMut::I8(output)) => integer(inputs, linear, input, output),
        (Integers::I16(input), IntegersMut::I16(output)) => integer(inputs, linear, input, output),
        (Integers::I8(_), IntegersMut::I8(_)) => None,
    }
}

#[inline(never)]
pub fn dense_i4(inputs: usize, linear: &Integer<'_, u8>, input: &[i8], output: &mut [i8]) -> Option<()> {
    let finish = |x: &[i8], w: &[u8], channel: usize| {
        let sum = dot_i4x2(x, linear.input_zero, w, 0)?.wrapping_add(*linear.bias.get(channel)?);
        Some(i8::narrow(linear.finish(channel, sum)?))
    };
    rows([inputs, inputs.div_ceil(2)], linear.bias.len(), linear.weights, input, output, finish)
}

#[inline(never)]
pub fn dense_f32(inputs: usize, linear: &Float<'_>, input: &[f32], output: &mut [f32]) -> Option<()> {
    float(inputs, linear, input, output)
}

#[inline(never)]
pub fn dense_f16(inputs: usize, linear: &Float<'_, u16>, input: &[f32], output: &mut [f32]) -> Option<()> {
    float(inputs, linear, input, output)
}

#[inline(always)]
fn float<W: Real>(inputs: usize, linear: &Float<'_, W>, input: &[f32], output: &mut [f32]) -> Option<()> {
    let finish = |x: &[f32], w: &[W], channel: usize| {
        let sum = dot_f32(x, w) + *linear.bias.get(channel)?;
        Some(clamp_f32(sum, [linear.low, linear.high]))
    };
    rows([inputs; 2], linear.bias.len(), linear.weights, input, output, finish)
}

#[inline(always)]
fn integer<X: Element, Y: Element>(
    inputs: usize,
    linear: &Integer<'_>,
    input: &[X],
    output: &mut [Y],
) -> Option<()> {
    if linear.packing != Packing::Rows {
        return packed::dense(inputs, linear, input, output);
    }
    let finish = |x: &[X], w: &[i8], channel: usize| {
        let sum = dot(x, linear.input_zero, w).wrapping_add(*linear.bias.get(channel)?);
        Some(Y::narrow(linear.finish(channel, sum)?))
    };
    rows([inputs; 2], linear.bias.len(), linear.weights, input, output, finish)
}

/// The loops of all families: `finish` makes an output of an input row, a weight row (of these many stored elements) and its channel.
#[inline(always)]
fn rows<X, W, Y>(
    [inputs, weight_row]: [usize; 2],
    outputs: usize,
    weights: &[W],
    input: &[X],
    output: &mut [Y],
    finish: impl Fn(&[X], &[W], usize) -> Option<Y>,
) -> Option<()> {
    let mut input_left = input;
    let mut output_left = output;
    while !output_left.is_empty() {
        let (x, rest) = input_left.split_at_checked(inputs)?;
        input_left = rest;
        let mut weights_left = weights;
        for channel in 0..outputs {
            let (w, rest) = weights_left.split_at_checked(weight_row)?;
            weights_left = rest;
            let (slot, rest) = output_left.split_first_mut()?;
            *slot = finish(x, w, channel)?;
            output_left = rest;
        }
        if outputs == 0 {
            return None;
        }
    }
    Some(())
}
