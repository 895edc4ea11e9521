//! Pooling, reduction and movement of elements.

use std::ops::Range;

use super::Operand;
use crate::graph::{Pool, image_shape};

/// Maximum over windows; padding never wins.
pub fn max_pool(pool: &Pool, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    // Written so that NaN wins.
    let larger = |max, x| if x <= max { max } else { x };
    windows(pool, x, shape, samples, (f32::NEG_INFINITY, larger), |max, _, _| max)
}

/// Mean over windows.
pub fn average_pool(pool: &Pool, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    let plus = |sum, x| sum + x;
    windows(pool, x, shape, samples, (0.0, plus), |sum, count, padded| {
        sum / (if pool.count_include_pad { padded } else { count }) as f32
    })
}

/// Folds the elements of each window that lie in the image, and calls `finish` with the result, their number, and the number that lie in the
/// padded image.
fn windows(
    pool: &Pool,
    x: Operand,
    shape: &[usize],
    samples: usize,
    (start, fold): (f32, impl Fn(f32, f32) -> f32),
    finish: impl Fn(f32, usize, usize) -> f32,
) -> Vec<f32> {
    let (Ok([n, c, h, w]), Ok([_, _, oh, ow])) = (image_shape(x.shape), image_shape(shape)) else {
        unreachable!("a checked graph gives a pooling an image");
    };
    let all_columns: Vec<_> = (0..ow).map(|ox| span(pool, ox, 1, w)).collect();
    let mut out = Vec::with_capacity(samples * n * c * oh * ow);
    for plane in x.data.chunks_exact((h * w).max(1)) {
        for oy in 0..oh {
            let (rows, padded_rows) = span(pool, oy, 0, h);
            for (columns, padded_columns) in &all_columns {
                let mut folded = start;
                for y in rows.clone() {
                    folded = plane[y * w..][columns.clone()].iter().fold(folded, |sum, x| fold(sum, *x));
                }
                out.push(finish(folded, rows.len() * columns.len(), padded_rows * padded_columns));
            }
        }
    }
    out
}

/// One axis of a window: the part that lies in the image of this extent, and how much lies in the padded image.
fn span(pool: &Pool, position: usize, axis: usize, extent: usize) -> (Range<usize>, usize) {
    let (before, after) = (pool.pads[axis], pool.pads[axis + 2]);
    let start = position * pool.strides[axis];
    let end = start + pool.kernel[axis];
    let clip = |edge: usize| edge.saturating_sub(before).min(extent);
    (clip(start)..clip(end), end.min(extent + before + after) - start)
}

/// The gradient of [`max_pool`]'s input `x`: each window hands its own to its first largest element.
pub fn max_pool_gradient(pool: &Pool, x: Operand, gradient: Operand) -> Vec<f32> {
    windows_gradient(pool, x, gradient, |out, plane, window, _, gradient| {
        let larger = |best: usize, k: &usize| if plane[*k] > plane[best] { *k } else { best };
        if let Some(first) = window.first() {
            out[window.iter().fold(*first, larger)] += gradient;
        }
    })
}

/// The gradient of [`average_pool`]'s input.
pub fn average_pool_gradient(pool: &Pool, x: Operand, gradient: Operand) -> Vec<f32> {
    windows_gradient(pool, x, gradient, |out, _, window, padded, gradient| {
        let share = gradient / (if pool.count_include_pad { padded } else { window.len() }) as f32;
        window.iter().for_each(|k| out[*k] += share);
    })
}

/// Calls `hand_out` for each window with the plane of the result, the plane of `x`, the indices of its elements in them, the number of elements
/// in the padded image, and its gradient.
fn windows_gradient(
    pool: &Pool,
    x: Operand,
    gradient: Operand,
    hand_out: impl Fn(&mut [f32], &[f32], &[usize], usize, f32),
) -> Vec<f32> {
    let (Ok([_, _, h, w]), Ok([_, _, oh, ow])) = (image_shape(x.shape), image_shape(gradient.shape)) else {
        unreachable!("a checked graph gives a pooling an image");
    };
    let mut out = vec![0.0; x.data.len()];
    let mut window = Vec::new();
    let planes = x.data.chunks_exact((h * w).max(1)).zip(gradient.data.chunks_exact((oh * ow).max(1)));
    for (out, (plane, gradient)) in out.chunks_exact_mut((h * w).max(1)).zip(planes) {
        for (position, gradient) in gradient.iter().enumerate() {
            let (rows, padded_rows) = span(pool, position / ow, 0, h);
            let (columns, padded_columns) = span(pool, position % ow, 1, w);
            window.clear();
            window.extend(rows.flat_map(|y| columns.clone().map(move |column| y * w + column)));
            hand_out(out, plane, &window, padded_rows * padded_columns, *gradient);
        }
    }
    out
}

/// Mean over `axes`, summed in f64.
pub fn mean(axes: &[usize], x: Operand, samples: usize) -> Vec<f32> {
    let (strides, len) = reduced_strides(axes, x.shape);
    let sample_len: usize = x.shape.iter().product();
    let count = sample_len / len.max(1);
    let mut out = Vec::with_capacity(samples * len);
    for sample in x.data.chunks_exact(sample_len.max(1)) {
        let mut sums = vec![0f64; len];
        let mut data = sample.iter();
        for_each_offset(x.shape, &strides, |offset| {
            if let Some(x) = data.next() {
                sums[offset] += f64::from(*x);
            }
        });
        out.extend(sums.iter().map(|sum| (sum / count as f64) as f32));
    }
    out
}

/// The gradient of the input of [`mean`], which has this shape.
pub fn mean_gradient(axes: &[usize], shape: &[usize], gradient: &[f32]) -> Vec<f32> {
    let (strides, len) = reduced_strides(axes, shape);
    let sample_len: usize = shape.iter().product();
    let count = (sample_len / len.max(1)) as f32;
    let mut out = Vec::with_capacity(gradient.len() / len.max(1) * sample_len);
    for gradient in gradient.chunks_exact(len.max(1)) {
        for_each_offset(shape, &strides, |offset| out.push(gradient[offset] / count));
    }
    out
}

/// For each axis of `shape` its stride in the array that is left after reducing `axes` (0 for those), and the length of that array.
fn reduced_strides(axes: &[usize], shape: &[usize]) -> (Vec<usize>, usize) {
    let mut strides = vec![0; shape.len()];
    let mut len = 1;
    for axis in (0..shape.len()).rev().filter(|axis| !axes.contains(axis)) {
        strides[axis] = len;
        len *= shape[axis];
    }
    (strides, len)
}

/// Output axis `k` is input axis `permutation[k]`.
pub fn transpose(permutation: &[usize], x: Operand, samples: usize) -> Vec<f32> {
    let strides = row_major_strides(x.shape);
    let shape: Vec<usize> = permutation.iter().map(|axis| x.shape[*axis]).collect();
    let strides: Vec<usize> = permutation.iter().map(|axis| strides[*axis]).collect();
    let len: usize = shape.iter().product();
    let mut out = Vec::with_capacity(samples * len);
    for sample in x.data.chunks_exact(len.max(1)) {
        for_each_offset(&shape, &strides, |offset| out.push(sample[offset]));
    }
    out
}

/// Surrounds `x` by `value`; `shape` is that of one sample's output.
pub fn pad(before: &[usize], value: f32, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    let strides = row_major_strides(shape);
    let start: usize = before.iter().zip(&strides).map(|(before, stride)| before * stride).sum();
    let (input_len, len) = (x.shape.iter().product::<usize>(), shape.iter().product::<usize>());
    let mut out = vec![value; samples * len];
    for (out, sample) in out.chunks_exact_mut(len.max(1)).zip(x.data.chunks_exact(input_len.max(1))) {
        let mut data = sample.iter();
        for_each_offset(x.shape, &strides, |offset| {
            if let Some(x) = data.next() {
                out[start + offset] = *x;
            }
        });
    }
    out
}

/// The gradient of the input of [`pad`], which has the shape `input`: what stands in its place in `gradient`.
pub fn pad_gradient(before: &[usize], input: &[usize], gradient: Operand) -> Vec<f32> {
    let strides = row_major_strides(gradient.shape);
    let start: usize = before.iter().zip(&strides).map(|(before, stride)| before * stride).sum();
    let len: usize = gradient.shape.iter().product();
    let mut out = Vec::new();
    for sample in gradient.data.chunks_exact(len.max(1)) {
        for_each_offset(input, &strides, |offset| out.push(sample[start + offset]));
    }
    out
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Walks the indices of `shape` in row-major order and gives `sum(index * stride)`.
fn for_each_offset(shape: &[usize], strides: &[usize], mut visit: impl FnMut(usize)) {
    fn walk(shape: &[usize], strides: &[usize], offset: usize, visit: &mut impl FnMut(usize)) {
        match (shape, strides) {
            ([extent, shape @ ..], [stride, strides @ ..]) => {
                for index in 0..*extent {
                    walk(shape, strides, offset + index * stride, visit);
                }
            }
            _ => visit(offset),
        }
    }
    walk(shape, strides, 0, &mut visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(len: usize) -> Vec<f32> {
        (0..len).map(|i| i as f32).collect()
    }

    #[test]
    fn pools_treat_padding_as_stated() {
        // 2x2 image of -1..-4, 2x2 windows, one pad on each side, stride 2: corners alone.
        let data = [-1.0, -2.0, -3.0, -4.0];
        let x = Operand { shape: &[1, 1, 2, 2], data: &data };
        let mut pool = Pool { kernel: [2, 2], strides: [2, 2], pads: [1, 1, 1, 1], count_include_pad: false };
        assert_eq!(max_pool(&pool, x, &[1, 1, 2, 2], 1), data);
        assert_eq!(average_pool(&pool, x, &[1, 1, 2, 2], 1), data);
        pool.count_include_pad = true;
        assert_eq!(average_pool(&pool, x, &[1, 1, 2, 2], 1), data.map(|x| x / 4.0));
    }

    #[test]
    fn sequences_pool_along_their_last_axis() {
        let data = count(8);
        let pool = Pool { kernel: [1, 2], strides: [1, 2], pads: [0; 4], count_include_pad: false };
        let got = max_pool(&pool, Operand { shape: &[1, 2, 4], data: &data }, &[1, 2, 2], 1);
        assert_eq!(got, [1.0, 3.0, 5.0, 7.0]);
    }

    #[test]
    fn mean_over_any_axes() {
        let data = count(12);
        let x = Operand { shape: &[1, 2, 3], data: &data };
        assert_eq!(mean(&[2], x, 2), [1.0, 4.0, 7.0, 10.0]);
        assert_eq!(mean(&[1], x, 2), [1.5, 2.5, 3.5, 7.5, 8.5, 9.5]);
        assert_eq!(mean(&[1, 2], x, 2), [2.5, 8.5]);
    }

    #[test]
    fn transpose_of_two_samples() {
        let data = count(12);
        let got = transpose(&[0, 2, 1], Operand { shape: &[1, 2, 3], data: &data }, 2);
        assert_eq!(got, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }

    #[test]
    fn pad_any_axis() {
        let data = count(4);
        let x = Operand { shape: &[1, 2, 1], data: &data };
        let got = pad(&[0, 1, 0], 9.0, x, &[1, 3, 2], 2);
        assert_eq!(got, [9.0, 9.0, 0.0, 9.0, 1.0, 9.0, 9.0, 9.0, 2.0, 9.0, 3.0, 9.0]);
    }
}
