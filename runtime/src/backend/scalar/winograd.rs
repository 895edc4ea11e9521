//! Convolution with transformed weights ([`crate::blob::winograd`]): each weight is taken back. Slow, and small.

use super::in_place::apart_or_in_place;
use crate::blob::winograd::weights;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

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
    apart_or_in_place(window, input, output, scratch, &run)
}

#[inline(never)]
fn apart(window: &Window, linear: &Integer<'_>, input: &[i8], output: &mut [i8]) -> Option<()> {
    let (mut image, mut slot) = (0usize, 0usize);
    for _ in 0..window.batch {
        for row in 0..window.rows.output {
            for column in 0..window.columns.output {
                for channel in 0..window.outputs {
                    rolled();
                    let products = products(window, linear, input.get(image..)?, [row, column], channel)?;
                    let sum = linear.bias.get(channel)?.wrapping_add(products);
                    *output.get_mut(slot)? = linear.finish(channel, sum)? as i8;
                    slot = slot.wrapping_add(1);
                }
            }
        }
        image = image.wrapping_add(window.image());
    }
    Some(())
}

/// Products of the inputs under a window and the weights of an output channel; padding counts as the zero point.
#[inline(never)]
fn products(
    window: &Window,
    linear: &Integer<'_>,
    image: &[i8],
    [row, column]: [usize; 2],
    channel: usize,
) -> Option<i32> {
    let Window { rows, columns, inputs, .. } = *window;
    let mut sum = 0i32;
    for tap_w in 0..columns.kernel {
        rolled();
        let x = columns.position(column, tap_w);
        for c in 0..inputs {
            rolled();
            let weights = weights(linear.weights, inputs, channel, tap_w, c)?;
            for (tap_h, &weight) in weights.get(..rows.kernel)?.iter().enumerate() {
                rolled();
                let value = match (rows.position(row, tap_h), x) {
                    (Some(y), Some(x)) => (*image.get(window.at(y, x).wrapping_add(c))?).into(),
                    _ => linear.input_zero,
                };
                sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight.into()));
            }
        }
    }
    Some(sum)
}
