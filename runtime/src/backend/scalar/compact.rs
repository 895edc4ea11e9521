//! Integer linear layers in little code, for cores whose fast kernels leave few layers over: one weight after the other, in any order.
//!
//! A program that names its kernels links this code if it names [`SCALAR`]; without it a layer that no kernel takes gives `None`.

use super::element::dot;
use super::in_place::apart_or_in_place;
use crate::backend::kernels::links;
use crate::backend::spec::select::SCALAR;
use crate::backend::{Integers, IntegersMut, Kernels};
use crate::blob::Packing;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// Order of plain weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[outputs][taps][inputs of a group]`.
    Outputs,
    /// `[taps][outputs]`, of one input a group: depthwise convolution.
    Taps,
}

/// Convolution of bytes, apart from the input or in its place.
#[inline(always)]
pub fn bytes<K: Kernels>(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    if const { links::<K>(SCALAR) } {
        any_bytes(window, groups, order, linear, input, output, scratch)
    } else {
        None
    }
}

/// Convolution, depthwise or not.
#[inline(always)]
pub fn layer<K: Kernels>(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: &mut IntegersMut<'_>,
) -> Option<()> {
    if const { links::<K>(SCALAR) } { any_layer(window, groups, order, linear, input, output) } else { None }
}

/// Dense layer over rows of `inputs` elements.
#[inline(always)]
pub fn dense<K: Kernels>(
    inputs: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: &mut IntegersMut<'_>,
) -> Option<()> {
    if const { links::<K>(SCALAR) } { any_dense(inputs, linear, input, output) } else { None }
}

#[inline(never)]
fn any_bytes(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let run = |window: &Window, input: &[i8], output: &mut [i8]| {
        any_layer(window, groups, order, linear, Integers::I8(input), &mut IntegersMut::I8(output))
    };
    apart_or_in_place(window, input, output, scratch, &run)
}

#[inline(never)]
fn any_dense(
    inputs: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: &mut IntegersMut<'_>,
) -> Option<()> {
    let length = match output {
        IntegersMut::I8(output) => output.len(),
        IntegersMut::I16(output) => output.len(),
    };
    let (mut first, mut slot) = (0usize, 0usize);
    while slot < length {
        let mut weights = linear.weights;
        for (channel, &bias) in linear.bias.iter().enumerate() {
            let products = if linear.packing == Packing::Rows {
                let products = products(&input, first, linear.input_zero, inputs, weights)?;
                weights = weights.get(inputs..)?;
                products
            } else {
                let from = Stored { weights, depth: inputs, channel, k: 0, count: inputs };
                packed(linear, &input, Some(first), &from)?
            };
            finish(linear, channel, bias.wrapping_add(products), output, slot)?;
            slot = slot.wrapping_add(1);
        }
        if linear.bias.is_empty() {
            return None;
        }
        first = first.wrapping_add(inputs);
    }
    Some(())
}

/// Stores the output of a channel's sum.
#[inline(never)]
fn finish(
    linear: &Integer<'_>,
    channel: usize,
    sum: i32,
    output: &mut IntegersMut<'_>,
    slot: usize,
) -> Option<()> {
    let value = linear.finish_one(channel, sum)?;
    match output {
        IntegersMut::I8(output) => *output.get_mut(slot)? = value as i8,
        IntegersMut::I16(output) => *output.get_mut(slot)? = value as i16,
    }
    Some(())
}

#[inline(never)]
fn any_layer(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: &mut IntegersMut<'_>,
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let depth_of_tap = inputs.checked_div(groups)?;
    let outputs_of_group = outputs.checked_div(groups)?;
    let depth = rows.kernel.wrapping_mul(columns.kernel).wrapping_mul(depth_of_tap);
    let plain = linear.packing == Packing::Rows;
    let group_bytes = linear.packing.bytes(outputs_of_group, depth)?;
    let (tap_step, channel_step) = if order == Order::Taps { (outputs, 1) } else { (depth_of_tap, depth) };
    let (mut image, mut slot) = (0usize, 0usize);
    for _ in 0..batch {
        for row in 0..rows.output {
            for column in 0..columns.output {
                let (mut first_input, mut left) = (0usize, outputs_of_group);
                let mut stored = linear.weights;
                for channel in 0..outputs {
                    if left == 0 {
                        first_input = first_input.wrapping_add(depth_of_tap);
                        left = outputs_of_group;
                        stored = if plain { stored } else { stored.get(group_bytes..)? };
                    }
                    let of_group = outputs_of_group.wrapping_sub(left);
                    left = left.wrapping_sub(1);
                    let mut sum = *linear.bias.get(channel)?;
                    let (mut k, mut weight_at) = (0usize, channel.wrapping_mul(channel_step));
                    for tap_h in 0..rows.kernel {
                        let y = rows.position(row, tap_h);
                        for tap_w in 0..columns.kernel {
                            let mut source = None;
                            if let (Some(y), Some(x)) = (y, columns.position(column, tap_w)) {
                                source = Some(window.at(y, x).wrapping_add(image).wrapping_add(first_input));
                            }
                            let products = if !plain {
                                let from = Stored {
                                    weights: stored,
                                    depth,
                                    channel: of_group,
                                    k,
                                    count: depth_of_tap,
                                };
                                packed(linear, &input, source, &from)?
                            } else if let Some(source) = source {
                                let weights = linear.weights.get(weight_at..)?;
                                products(&input, source, linear.input_zero, depth_of_tap, weights)?
                            } else {
                                0
                            };
                            sum = sum.wrapping_add(products);
                            k = k.wrapping_add(depth_of_tap);
                            weight_at = weight_at.wrapping_add(tap_step);
                        }
                    }
                    finish(linear, channel, sum, output, slot)?;
                    slot = slot.wrapping_add(1);
                }
            }
        }
        image = image.wrapping_add(window.image());
    }
    Some(())
}

/// Products of some inputs, without their zero point, and weights side by side.
#[inline(never)]
fn products(input: &Integers<'_>, first: usize, zero: i16, count: usize, weights: &[i8]) -> Option<i32> {
    let weights = weights.get(..count)?;
    Some(match input {
        Integers::I8(input) => dot(input.get(first..)?.get(..count)?, zero, weights),
        Integers::I16(input) => dot(input.get(first..)?.get(..count)?, zero, weights),
    })
}

/// Which packed weights.
struct Stored<'a> {
    /// The weights of a group.
    weights: &'a [i8],
    /// Weights of an output.
    depth: usize,
    /// The output of the group.
    channel: usize,
    /// The first of them, and how many.
    k: usize,
    count: usize,
}

/// Products of some inputs (`None`: padding, which counts as the zero point) and packed weights, whose bias holds the part of the zero point.
#[cold]
#[inline(never)]
fn packed(linear: &Integer<'_>, input: &Integers<'_>, first: Option<usize>, of: &Stored<'_>) -> Option<i32> {
    let mut sum = 0i32;
    for lane in 0..of.count {
        rolled();
        let weight = linear.packing.weight(of.weights, of.depth, of.channel, of.k.wrapping_add(lane))?;
        let x = match (first, input) {
            (None, _) => linear.input_zero,
            (Some(first), Integers::I8(input)) => (*input.get(first.wrapping_add(lane))?).into(),
            (Some(first), Integers::I16(input)) => *input.get(first.wrapping_add(lane))?,
        };
        sum = sum.wrapping_add(i32::from(x).wrapping_mul(weight.into()));
    }
    Some(sum)
}
