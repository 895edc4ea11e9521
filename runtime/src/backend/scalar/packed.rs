//! Linear layers whose weights are packed for some core: one weight after the other, by the index function. Slow, and small; a host takes
//! weights back into plain order when it loads a blob.

use super::element::Element;
use crate::blob::Matrix;
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// The output of channel `channel` over the inner product's inputs in order; padding counts as the zero point.
#[inline(always)]
fn output<X: Element, Y: Element>(
    linear: &Integer<'_>,
    matrix: &Matrix,
    channel: usize,
    x: impl Fn(usize) -> Option<X>,
) -> Option<Y> {
    let mut sum = *linear.bias.get(channel)?;
    for k in 0..matrix.depth {
        let weight = matrix.weight(linear.packing, linear.weights, channel, k)?;
        let x = x(k).map_or(linear.input_zero, Element::widen);
        sum = sum.wrapping_add(i32::from(x).wrapping_mul(weight.into()));
    }
    Some(Y::narrow(linear.finish(channel, sum)?))
}

/// Convolution in groups.
#[inline(never)]
pub fn conv2d<X: Element, Y: Element>(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: &[X],
    output_left: &mut [Y],
) -> Option<()> {
    let Window { rows, columns, outputs, .. } = *window;
    let inputs = window.inputs.checked_div(groups)?;
    let kernel_row = columns.kernel.wrapping_mul(inputs);
    let depth = rows.kernel.wrapping_mul(kernel_row);
    let matrix = Matrix { groups, outputs: outputs.checked_div(groups)?, depth };
    let (mut images, mut output_left) = (input, output_left);
    for _ in 0..window.batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            for column in 0..columns.output {
                let (pixel, rest) = output_left.split_at_mut_checked(outputs)?;
                output_left = rest;
                let x = |first: usize, k: usize| {
                    let tap_h = k.checked_div(kernel_row)?;
                    let k = k.wrapping_sub(tap_h.wrapping_mul(kernel_row));
                    let tap_w = k.checked_div(inputs)?;
                    let channel = k.wrapping_sub(tap_w.wrapping_mul(inputs));
                    let (y, x) = (rows.position(row, tap_h)?, columns.position(column, tap_w)?);
                    image.get(window.at(y, x).wrapping_add(first).wrapping_add(channel)).copied()
                };
                for (channel, slot) in pixel.iter_mut().enumerate() {
                    let first = channel.checked_div(matrix.outputs)?.wrapping_mul(inputs);
                    *slot = output(linear, &matrix, channel, |k| x(first, k))?;
                }
            }
        }
    }
    Some(())
}

/// Dense layer over rows of `inputs` elements.
#[inline(never)]
pub fn dense<X: Element, Y: Element>(
    inputs: usize,
    linear: &Integer<'_>,
    input: &[X],
    output_left: &mut [Y],
) -> Option<()> {
    let matrix = Matrix { groups: 1, outputs: linear.bias.len(), depth: inputs };
    let (mut input_left, mut output_left) = (input, output_left);
    while !output_left.is_empty() {
        let (row, rest) = input_left.split_at_checked(inputs)?;
        input_left = rest;
        let (outputs, rest) = output_left.split_at_mut_checked(linear.bias.len().max(1))?;
        output_left = rest;
        for (channel, slot) in outputs.iter_mut().enumerate() {
            *slot = output(linear, &matrix, channel, |k| row.get(k).copied())?;
        }
    }
    Some(())
}
