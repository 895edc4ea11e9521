//! Pools. Integer ones take eight channels at once where the channels fill words, four in a word; the others an element at a time.

use super::element::clamp_f32;
use crate::ops::mean;
use crate::ops::window::Window;
use crate::quant::requantize;
use crate::rolled::rolled;

/// Channels that integer pools reduce at once.
const LANES: usize = 8;
/// Most elements of a window whose sum, as numbers from 0 to 255, fits 16 bits.
const SUMMED: usize = 257;
/// Turns each byte of a word from `i8` into a number from 0 to 255, in the same order.
const BIAS: u32 = 0x8080_8080;

#[inline(never)]
pub fn max_pool2d_i8(window: &Window, [low, high]: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
    let everywhere = |x: i8| u32::from(x as u8).wrapping_mul(0x0101_0101) ^ BIAS;
    let most = !everywhere(high);
    let fold = |[a, b]: [u32; 2], [x, y]: [u32; 2]| [greater(a, x), greater(b, y)];
    // The lesser of two numbers is the greater of those with all bits turned over.
    let finish = |words: [u32; 2], ()| words.map(|word| !greater(!word, most) ^ BIAS);
    if pool_lanes(window, input, output, [everywhere(low); 2], fold, |_| Some(()), finish).is_some() {
        return Some(());
    }
    let finish = |most: i8, _, _| Some(most.max(low).min(high));
    pool_each(window, input, output, &finish)
}

/// The greater of each pair of bytes, as numbers from 0 to 255.
#[inline(always)]
fn greater(a: u32, b: u32) -> u32 {
    // The top bit of each byte: whether that of `a` is not less.
    let difference = (a | BIAS).wrapping_sub(b & !BIAS);
    let not_less = (a & !b | !(a ^ b) & difference) & BIAS;
    // All bits of those bytes.
    let mask = (not_less >> 7).wrapping_mul(0xFF);
    (a ^ b) & mask ^ b
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
    // What to add to the sum of a window of `count` elements, and what to divide by.
    let whole = |count: usize| match padding {
        Some(value) => (area.wrapping_sub(count as i32).wrapping_mul(value.into()), area),
        None => (0, count as i32),
    };
    let bound = |mean: i32| mean.max(low.into()).min(high.into()) as i8;
    if window.rows.kernel.wrapping_mul(window.columns.kernel) <= SUMMED {
        // `n * d < 2^24` for the magnitude `n` of a sum, with half of the divisor `d`: then `n / d` is exactly `n * (2^24 / d + 1) / 2^24`.
        let prepare = |count: usize| {
            let (outside, count) = whole(count);
            Some((outside, count >> 1, (1u32 << 24).checked_div(count as u32)?.wrapping_add(1)))
        };
        let finish = |sum: i32, (outside, half, reciprocal): (i32, i32, u32)| {
            let sum = sum.wrapping_add(outside);
            let magnitude = sum.wrapping_abs().wrapping_add(half) as u32;
            let mean = (magnitude.wrapping_mul(reciprocal) >> 24) as i32;
            bound(if sum < 0 { mean.wrapping_neg() } else { mean })
        };
        if sum_lanes(window, input, output, prepare, finish).is_some() {
            return Some(());
        }
    }
    let finish = |_, sum: i32, count: usize| {
        let (outside, count) = whole(count);
        let (sum, half) = (sum.wrapping_add(outside), count >> 1);
        let rounded = if sum > 0 { sum.wrapping_add(half) } else { sum.wrapping_sub(half) };
        Some(bound(rounded.checked_div(count)?))
    };
    pool_each(window, input, output, &finish)
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
    let Window { rows, columns, inputs: channels, .. } = *window;
    let area = rows.input.wrapping_mul(columns.input);
    let zeros = zero_in.wrapping_mul(area as i32);
    let finish = |sum: i32| mean_of(sum.wrapping_sub(zeros), parameters, zero_out);
    let (mut images, mut outputs) = (input, output);
    while !outputs.is_empty() {
        let (image, rest) = images.split_at_checked(area.checked_mul(channels)?)?;
        images = rest;
        let (means, rest) = outputs.split_at_mut_checked(channels.max(1))?;
        outputs = rest;
        if area > SUMMED || channels % LANES != 0 || mean_lanes(image, means, area, &finish).is_none() {
            for (channel, mean) in means.iter_mut().enumerate() {
                let (mut sum, mut at) = (0i32, channel);
                while let Some(&x) = image.get(at) {
                    rolled();
                    sum = sum.wrapping_add(x.into());
                    at = at.wrapping_add(channels);
                }
                *mean = finish(sum);
            }
        }
    }
    Some(())
}

/// Means of eight channels at once over the `area` pixels of an image; `None` if its words are not aligned.
fn mean_lanes(image: &[i8], means: &mut [i8], area: usize, finish: &impl Fn(i32) -> i8) -> Option<()> {
    let (image, _) = bytemuck::try_cast_slice::<_, u32>(image).ok()?.as_chunks::<2>();
    let (means, _) = bytemuck::try_cast_slice_mut::<_, u32>(means).ok()?.as_chunks_mut::<2>();
    let (pixel, bias) = (means.len(), area.wrapping_mul(128) as i32);
    for (lane, means) in means.iter_mut().enumerate() {
        let (mut sums, mut at) = ([0; 4], lane);
        while let Some(&[x, y]) = image.get(at) {
            sums = add_lanes(sums, [x ^ BIAS, y ^ BIAS]);
            at = at.wrapping_add(pixel);
        }
        *means = finish_lanes(sums, |sum| finish(sum.wrapping_sub(bias)));
    }
    Some(())
}

/// Adds eight numbers from 0 to 255: each sum of a word's first and third byte, then of the others.
#[inline(always)]
fn add_lanes([a, b, c, d]: [u32; 4], [x, y]: [u32; 2]) -> [u32; 4] {
    const EVEN: u32 = 0x00FF_00FF;
    [
        a.wrapping_add(x & EVEN),
        b.wrapping_add(x >> 8 & EVEN),
        c.wrapping_add(y & EVEN),
        d.wrapping_add(y >> 8 & EVEN),
    ]
}

/// Outputs of the sums of [`add_lanes`].
#[inline(always)]
fn finish_lanes(sums: [u32; 4], finish: impl Fn(i32) -> i8) -> [u32; 2] {
    let mut results = [0; 2];
    for (word, &[even, odd]) in results.iter_mut().zip(sums.as_chunks::<2>().0) {
        let (mut this, mut other) = (even, odd);
        for _ in 0..4 {
            rolled();
            let result = finish((this & 0xFFFF) as i32);
            *word = *word >> 8 | u32::from(result as u8) << 24;
            (this, other) = (other, this >> 16);
        }
    }
    results
}

/// The output of a sum: not once more for each output of a word.
#[inline(never)]
fn mean_of(sum: i32, parameters: &mean::Parameters, zero_out: i32) -> i8 {
    let mean::Parameters { multiplier, shift, act_min, act_max } = *parameters;
    zero_out.wrapping_add(requantize(sum, multiplier, shift)).max(act_min).min(act_max) as i8
}

/// A pool of sums of at most [`SUMMED`] elements. `finish` makes an output of a sum and of what `prepare` makes of the number of elements.
#[inline(always)]
fn sum_lanes<P: Copy>(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    prepare: impl Fn(usize) -> Option<P>,
    finish: impl Fn(i32, P) -> i8,
) -> Option<()> {
    let finish = |sums: [u32; 4], (bias, prepared): (i32, P)| {
        finish_lanes(sums, |sum| finish(sum.wrapping_sub(bias), prepared))
    };
    let prepare = |count: usize| Some((count.wrapping_mul(128) as i32, prepare(count)?));
    pool_lanes(window, input, output, [0; 4], add_lanes, prepare, finish)
}

/// The loops of integer pools whose channels fill words; `None` where they do not, with the output in any state. `fold` takes in the elements
/// of eight channels as numbers from 0 to 255, `finish` makes outputs of the result and of what `prepare` makes of the number of elements.
#[inline(always)]
fn pool_lanes<A: Copy, P: Copy>(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    start: A,
    fold: impl Fn(A, [u32; 2]) -> A,
    prepare: impl Fn(usize) -> Option<P>,
    finish: impl Fn(A, P) -> [u32; 2],
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, .. } = *window;
    if channels % LANES != 0 {
        return None;
    }
    let (input, _) = bytemuck::try_cast_slice::<_, u32>(input).ok()?.as_chunks::<2>();
    let (output, _) = bytemuck::try_cast_slice_mut::<_, u32>(output).ok()?.as_chunks_mut::<2>();
    let (mut images, mut slots) = (input, output.iter_mut());
    let pixel = channels / LANES;
    if pixel == 0 {
        return None;
    }
    let line = columns.input.wrapping_mul(pixel);
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(rows.input.wrapping_mul(line))?;
        images = rest;
        for row in 0..rows.output {
            let across = rows.run(row);
            for column in 0..columns.output {
                let along = columns.run(column);
                let prepared = prepare(across.length.wrapping_mul(along.length))?;
                // From the first tap of a row to the last.
                let reach = along.length.wrapping_sub(1).wrapping_mul(pixel).wrapping_add(1);
                let first =
                    across.position.wrapping_mul(line).wrapping_add(along.position.wrapping_mul(pixel));
                for lane in 0..pixel {
                    let mut state = start;
                    let mut line_at = first.wrapping_add(lane);
                    for _ in 0..across.length {
                        let taps = image.get(line_at..)?.get(..reach)?;
                        for tap in taps.chunks(pixel) {
                            let [x, y] = *tap.first()?;
                            state = fold(state, [x ^ BIAS, y ^ BIAS]);
                        }
                        line_at = line_at.wrapping_add(line);
                    }
                    *slots.next()? = finish(state, prepared);
                }
            }
        }
    }
    Some(())
}

/// The loops of integer pools of any channels and windows, one code for all of them: `finish` makes an output of the greatest element, of
/// the sum and of the number of elements.
#[cold]
#[inline(never)]
fn pool_each(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    finish: &dyn Fn(i8, i32, usize) -> Option<i8>,
) -> Option<()> {
    let fold = |(most, sum): (i8, i32), x: i8| (most.max(x), sum.wrapping_add(x.into()));
    pool(window, input, output, (i8::MIN, 0), fold, |(most, sum), count| finish(most, sum, count))
}

/// The loops of pools, an element at a time. `fold` takes in an element, `finish` makes an output of the result and of how many elements there were.
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
    let (mut images, mut slots) = (input, output.iter_mut());
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            let across = rows.run(row);
            for column in 0..columns.output {
                let along = columns.run(column);
                for channel in 0..channels {
                    let mut state = start;
                    for y in 0..across.length {
                        let pixel = window.at(across.position.wrapping_add(y), along.position);
                        let mut at = pixel.wrapping_add(channel);
                        for _ in 0..along.length {
                            state = fold(state, *image.get(at)?);
                            at = at.wrapping_add(channels);
                        }
                    }
                    *slots.next()? = finish(state, across.length.wrapping_mul(along.length))?;
                }
            }
        }
    }
    Some(())
}
