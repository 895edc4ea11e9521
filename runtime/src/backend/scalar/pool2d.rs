//! Pools: channels side by side, a block of them at a time.

use super::element::clamp_f32;
use crate::ops::mean;
use crate::ops::window::Window;
use crate::quant::requantize;

/// Channels that are reduced at once: at most 64 bytes of state.
const BLOCK: usize = 16;

#[inline(never)]
pub fn max_pool2d_i8(window: &Window, [low, high]: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
    pool(window, input, output, i8::MIN, |most, x| most.max(x), |most, _| Some(most.max(low).min(high)))
}

#[inline(never)]
pub fn max_pool2d_f32(window: &Window, bounds: [f32; 2], input: &[f32], output: &mut [f32]) -> Option<()> {
    // What is not a number wins.
    let greater = |most: f32, x: f32| if x <= most { most } else { x };
    pool(window, input, output, f32::NEG_INFINITY, greater, |most, _| Some(clamp_f32(most, bounds)))
}

#[inline(never)]
pub fn average_pool2d_i8(
    window: &Window,
    padding: Option<i8>,
    [low, high]: [i8; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    let area = window.rows.kernel.wrapping_mul(window.columns.kernel) as i32;
    let finish = |sum: i32, count: usize| {
        let (sum, count) = match padding {
            Some(value) => {
                let outside = area.wrapping_sub(count as i32);
                (sum.wrapping_add(outside.wrapping_mul(value.into())), area)
            }
            None => (sum, count as i32),
        };
        let half = count >> 1;
        let rounded = if sum > 0 { sum.wrapping_add(half) } else { sum.wrapping_sub(half) };
        Some(rounded.checked_div(count)?.max(low.into()).min(high.into()) as i8)
    };
    pool(window, input, output, 0i32, |sum, x| sum.wrapping_add(x.into()), finish)
}

#[inline(never)]
pub fn average_pool2d_f32(
    window: &Window,
    count_padding: bool,
    bounds: [f32; 2],
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    let area = window.rows.kernel.wrapping_mul(window.columns.kernel);
    let finish = |sum: f32, count: usize| {
        let count = if count_padding { area } else { count };
        Some(clamp_f32(sum / count as u32 as f32, bounds))
    };
    pool(window, input, output, 0.0, |sum, x| sum + x, finish)
}

#[inline(never)]
pub fn mean2d_i8(
    window: &Window,
    parameters: &mean::Parameters,
    [zero_in, zero_out]: [i32; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    let mean::Parameters { multiplier, shift, act_min, act_max } = *parameters;
    let fold = |sum: i32, x: i8| sum.wrapping_add(i32::from(x).wrapping_sub(zero_in));
    let finish = |sum: i32, _| {
        let result = zero_out.wrapping_add(requantize(sum, multiplier, shift));
        Some(result.max(act_min).min(act_max) as i8)
    };
    pool(window, input, output, 0i32, fold, finish)
}

/// The loops of all pools. `fold` takes in an element, `finish` makes an output of the result and of how many elements there were.
#[inline(always)]
fn pool<X: Copy, A: Copy>(
    window: &Window,
    input: &[X],
    output: &mut [X],
    start: A,
    fold: impl Fn(A, X) -> A,
    finish: impl Fn(A, usize) -> Option<X>,
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, .. } = *window;
    let mut images = input;
    let mut outputs_left = output;
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            let across = rows.run(row);
            for column in 0..columns.output {
                let along = columns.run(column);
                let (pixel, rest) = outputs_left.split_at_mut_checked(channels)?;
                outputs_left = rest;
                let mut first = 0usize;
                for block in pixel.chunks_mut(BLOCK) {
                    let mut states = [start; BLOCK];
                    for y in 0..across.length {
                        for x in 0..along.length {
                            let y = across.position.wrapping_add(y);
                            let x = along.position.wrapping_add(x);
                            let x = image.get(window.at(y, x).wrapping_add(first)..)?.get(..block.len())?;
                            if let Some(x) = x.first_chunk::<BLOCK>() {
                                for (state, &x) in states.iter_mut().zip(x) {
                                    *state = fold(*state, x);
                                }
                                continue;
                            }
                            for (state, &x) in states.iter_mut().zip(x) {
                                *state = fold(*state, x);
                            }
                        }
                    }
                    let count = across.length.wrapping_mul(along.length);
                    for (slot, &state) in block.iter_mut().zip(&states) {
                        *slot = finish(state, count)?;
                    }
                    first = first.wrapping_add(BLOCK);
                }
            }
        }
    }
    Some(())
}
