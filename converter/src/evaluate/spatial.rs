//! Pooling, reduction and movement of elements.

use super::Operand;
use crate::graph::{Pool, image_shape};

/// Maximum over windows; padding never wins.
pub fn max_pool(pool: &Pool, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    windows(pool, x, shape, samples, |window, _| {
        // Written so that NaN wins.
        window.fold(f32::NEG_INFINITY, |max, x| if x <= max { max } else { x })
    })
}

/// Mean over windows.
pub fn average_pool(pool: &Pool, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    windows(pool, x, shape, samples, |window, padded| {
        let (mut sum, mut count) = (0.0, 0);
        for x in window {
            sum += x;
            count += 1;
        }
        sum / (if pool.count_include_pad { padded } else { count }) as f32
    })
}

/// Calls `reduce` with the elements of each window that lie in the image, and the number that lie in the padded image.
fn windows(
    pool: &Pool,
    x: Operand,
    shape: &[usize],
    samples: usize,
    reduce: impl Fn(&mut dyn Iterator<Item = f32>, usize) -> f32,
) -> Vec<f32> {
    let (Ok([n, c, h, w]), Ok([_, _, oh, ow])) = (image_shape(x.shape), image_shape(shape)) else {
        unreachable!("a checked graph gives a pooling an image");
    };
    // Start and end of a window, cut to the image; and its extent in the padded image.
    let span = |position: usize, axis: usize, extent: usize| {
        let (before, after) = (pool.pads[axis], pool.pads[axis + 2]);
        let start = position * pool.strides[axis];
        let end = start + pool.kernel[axis];
        let clip = |edge: usize| edge.saturating_sub(before).min(extent);
        (clip(start)..clip(end), end.min(extent + before + after) - start)
    };
    let mut out = Vec::with_capacity(samples * n * c * oh * ow);
    for plane in x.data.chunks_exact((h * w).max(1)) {
        for oy in 0..oh {
            let (rows, padded_rows) = span(oy, 0, h);
            for ox in 0..ow {
                let (columns, padded_columns) = span(ox, 1, w);
                let mut window = rows.clone().flat_map(|y| plane[y * w..][columns.clone()].iter().copied());
                out.push(reduce(&mut window, padded_rows * padded_columns));
            }
        }
    }
    out
}

/// Mean over `axes`, summed in f64.
pub fn mean(axes: &[usize], x: Operand, samples: usize) -> Vec<f32> {
    let kept: Vec<bool> = (0..x.shape.len()).map(|axis| !axes.contains(&axis)).collect();
    let mut strides = vec![0; x.shape.len()];
    let mut len = 1;
    for axis in (0..x.shape.len()).rev().filter(|axis| kept[*axis]) {
        strides[axis] = len;
        len *= x.shape[axis];
    }
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
