//! Convolution with transformed weights ([`crate::blob::winograd`]): each weight is taken back. Slow, and small.

use super::in_place::rows_in_place;
use crate::blob::winograd::{TAPS, weights};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Convolution, apart from the input or in its place.
#[inline(never)]
pub fn conv2d(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let run = |window: &Window, input: &[i8], output: &mut [i8]| apart(window, linear, input, output);
    match input {
        Some(input) => run(window, input, output),
        None => rows_in_place(window, output, scratch, &run),
    }
}

#[inline(never)]
fn apart(window: &Window, linear: &Integer<'_>, input: &[i8], output: &mut [i8]) -> Option<()> {
    let Window { batch, rows, columns, inputs, .. } = *window;
    let (mut images, mut left) = (input, output);
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            for column in 0..columns.output {
                let (pixel, rest) = left.split_at_mut_checked(window.outputs)?;
                left = rest;
                for (channel, slot) in pixel.iter_mut().enumerate() {
                    let mut sum = *linear.bias.get(channel)?;
                    for tap in 0..TAPS {
                        let x = columns.position(column, tap);
                        for c in 0..inputs {
                            let column = weights(linear.weights, inputs, channel, tap, c)?;
                            for (tap, weight) in column.into_iter().enumerate() {
                                // Padding counts as the zero point.
                                let value = match (rows.position(row, tap), x) {
                                    (Some(y), Some(x)) => {
                                        (*image.get(window.at(y, x).wrapping_add(c))?).into()
                                    }
                                    _ => linear.input_zero,
                                };
                                sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight.into()));
                            }
                        }
                    }
                    *slot = linear.finish(channel, sum)? as i8;
                }
            }
        }
    }
    Some(())
}
