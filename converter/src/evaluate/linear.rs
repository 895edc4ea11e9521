//! Convolution and dense layers by matrix products.
//!
//! A convolution gathers its windows into columns (im2col: Chellapilla, Puri, Simard 2006), a bounded number of output
//! rows at a time, over all images of the chunk; depthwise convolutions run over rows directly.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::{Operand, elementwise::clamp};
use crate::graph::{ActivationRange, Conv, Dense, Tensor, image_shape};

/// Columns gathered at once: enough for the matrix product, small enough for the cache.
const COLUMNS: usize = 512;

/// `x [rows, i] * weight [o, i]^T`, then bias and activation.
pub fn dense(dense: &Dense, weight: &Tensor, x: Operand) -> Vec<f32> {
    let [o, i] = [weight.shape[0], weight.shape[1]];
    let rows = x.data.len() / i.max(1);
    let mut out = vec![0.0; rows * o];
    matmul(
        MatMut::from_row_major_slice_mut(&mut out, rows, o),
        Accum::Replace,
        MatRef::from_row_major_slice(x.data, rows, i),
        MatRef::from_row_major_slice(&weight.data, o, i).transpose(),
        1.0,
        Par::Seq,
    );
    for row in out.chunks_exact_mut(o.max(1)) {
        if let Some(bias) = &dense.bias {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        row.iter_mut().for_each(|y| *y = clamp(*y, dense.activation));
    }
    out
}

/// The extents of a convolution over a stack of images.
struct Geometry {
    images: usize,
    /// Channels, height, width of an input image.
    input: [usize; 3],
    /// Channels, height, width of an output image.
    output: [usize; 3],
    /// Input channels of one group, height, width of a window.
    window: [usize; 3],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Top, left.
    pads: [usize; 2],
}

/// `shape` is that of one sample's output.
pub fn conv(conv: &Conv, weight: &Tensor, x: Operand, shape: &[usize], samples: usize) -> Vec<f32> {
    let geometry = Geometry::new(conv, weight, x.shape, shape, samples);
    let zeros;
    let bias = match &conv.bias {
        Some(bias) => bias,
        None => {
            zeros = vec![0.0; geometry.output[0]];
            &zeros
        }
    };
    if conv.groups > 1 && weight.shape[1] == 1 {
        geometry.depthwise(&weight.data, bias, conv.activation, x.data)
    } else {
        geometry.gather_and_multiply(&weight.data, bias, conv.groups, conv.activation, x.data)
    }
}

/// `gradient [rows, o] * weight [o, i]`: the gradient of [`dense`]'s input for that of its output before the activation.
pub fn dense_gradient(weight: &Tensor, gradient: &[f32]) -> Vec<f32> {
    let [o, i] = [weight.shape[0], weight.shape[1]];
    let rows = gradient.len() / o.max(1);
    let mut out = vec![0.0; rows * i];
    matmul(
        MatMut::from_row_major_slice_mut(&mut out, rows, i),
        Accum::Replace,
        MatRef::from_row_major_slice(gradient, rows, o),
        MatRef::from_row_major_slice(&weight.data, o, i),
        1.0,
        Par::Seq,
    );
    out
}

/// The gradient of [`conv`]'s input, of shape `input`, for that of its output before the activation.
pub fn conv_gradient(
    conv: &Conv,
    weight: &Tensor,
    gradient: Operand,
    input: &[usize],
    samples: usize,
) -> Vec<f32> {
    let geometry = Geometry::new(conv, weight, input, gradient.shape, samples);
    if conv.groups > 1 && weight.shape[1] == 1 {
        geometry.depthwise_gradient(&weight.data, gradient.data)
    } else {
        geometry.multiply_and_scatter(&weight.data, conv.groups, gradient.data)
    }
}

impl Geometry {
    /// `input` and `output` are the shapes of one sample.
    fn new(conv: &Conv, weight: &Tensor, input: &[usize], output: &[usize], samples: usize) -> Self {
        let (Ok([n, c, h, w]), Ok([_, o, oh, ow])) = (image_shape(input), image_shape(output)) else {
            unreachable!("a checked graph gives a convolution an image");
        };
        Self {
            images: n * samples,
            input: [c, h, w],
            output: [o, oh, ow],
            window: [weight.shape[1], weight.shape[2], weight.shape[3]],
            strides: conv.strides,
            dilations: conv.dilations,
            pads: [conv.pads[0], conv.pads[1]],
        }
    }

    /// The input row under kernel row `ky` of output row `oy`, unless it is padding.
    fn input_row(&self, oy: usize, ky: usize) -> Option<usize> {
        let row = (oy * self.strides[0] + ky * self.dilations[0]).checked_sub(self.pads[0])?;
        (row < self.input[1]).then_some(row)
    }

    /// The output columns whose kernel column `kx` lies in the image, and the input column under the first of them.
    fn output_columns(&self, kx: usize) -> (std::ops::Range<usize>, usize) {
        let (stride, offset, width) = (self.strides[1], kx * self.dilations[1], self.input[2]);
        let start = self.pads[1].saturating_sub(offset).div_ceil(stride);
        let end = (width + self.pads[1]).saturating_sub(offset).div_ceil(stride).min(self.output[2]);
        if start >= end {
            return (0..0, 0);
        }
        (start..end, start * stride + offset - self.pads[1])
    }

    /// One input channel for each output channel: adds shifted rows.
    fn depthwise(&self, weight: &[f32], bias: &[f32], range: ActivationRange, x: &[f32]) -> Vec<f32> {
        let ([c, h, w], [o, oh, ow], [_, kh, kw]) = (self.input, self.output, self.window);
        let columns: Vec<_> = (0..kw).map(|kx| self.output_columns(kx)).collect();
        let mut out = vec![0.0; self.images * o * oh * ow];
        for (plane, out) in out.chunks_exact_mut((oh * ow).max(1)).enumerate() {
            let (image, channel) = (plane / o, plane % o);
            let source = image * c + channel * c / o;
            let source = &x[source * h * w..][..h * w];
            let kernel = &weight[channel * kh * kw..][..kh * kw];
            for (oy, out) in out.chunks_exact_mut(ow).enumerate() {
                out.fill(bias[channel]);
                for ky in 0..kh {
                    let Some(iy) = self.input_row(oy, ky) else { continue };
                    let row = &source[iy * w..][..w];
                    for (kx, (columns, first)) in columns.iter().enumerate() {
                        let factor = kernel[ky * kw + kx];
                        let out = &mut out[columns.clone()];
                        if self.strides[1] == 1 {
                            let row = &row[*first..][..out.len()];
                            out.iter_mut().zip(row).for_each(|(y, x)| *y += factor * x);
                        } else {
                            let row = row[*first..].iter().step_by(self.strides[1]);
                            out.iter_mut().zip(row).for_each(|(y, x)| *y += factor * x);
                        }
                    }
                }
                out.iter_mut().for_each(|y| *y = clamp(*y, range));
            }
        }
        out
    }

    fn gather_and_multiply(
        &self,
        weight: &[f32],
        bias: &[f32],
        groups: usize,
        range: ActivationRange,
        x: &[f32],
    ) -> Vec<f32> {
        let ([o, oh, ow], [i, kh, kw]) = (self.output, self.window);
        let (depth, group_outputs) = (i * kh * kw, o / groups);
        let rows = self.images * oh;
        let block = (COLUMNS / ow.max(1)).max(1);
        let mut gathered = vec![0.0; depth * block * ow];
        let mut products = vec![0.0; group_outputs * block * ow];
        let mut out = vec![0.0; self.images * o * oh * ow];
        for start in (0..rows).step_by(block) {
            let rows = start..(start + block).min(rows);
            let columns = rows.len() * ow;
            for group in 0..groups {
                let gathered = &mut gathered[..depth * columns];
                self.gather(group * i, rows.clone(), x, gathered);
                let products = &mut products[..group_outputs * columns];
                let weight = &weight[group * group_outputs * depth..][..group_outputs * depth];
                matmul(
                    MatMut::from_row_major_slice_mut(&mut *products, group_outputs, columns),
                    Accum::Replace,
                    MatRef::from_row_major_slice(weight, group_outputs, depth),
                    MatRef::from_row_major_slice(&*gathered, depth, columns),
                    1.0,
                    Par::Seq,
                );
                for (k, products) in products.chunks_exact(columns).enumerate() {
                    let channel = group * group_outputs + k;
                    for (row, products) in rows.clone().zip(products.chunks_exact(ow)) {
                        let (image, oy) = (row / oh, row % oh);
                        let out = &mut out[((image * o + channel) * oh + oy) * ow..][..ow];
                        for (y, product) in out.iter_mut().zip(products) {
                            *y = clamp(product + bias[channel], range);
                        }
                    }
                }
            }
        }
        out
    }

    /// The transpose of [`Geometry::depthwise`].
    fn depthwise_gradient(&self, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
        let ([c, h, w], [o, oh, ow], [_, kh, kw]) = (self.input, self.output, self.window);
        let columns: Vec<_> = (0..kw).map(|kx| self.output_columns(kx)).collect();
        let mut out = vec![0.0; self.images * c * h * w];
        for (plane, gradient) in gradient.chunks_exact((oh * ow).max(1)).enumerate() {
            let (image, channel) = (plane / o, plane % o);
            let target = &mut out[(image * c + channel * c / o) * h * w..][..h * w];
            let kernel = &weight[channel * kh * kw..][..kh * kw];
            for (oy, gradient) in gradient.chunks_exact(ow).enumerate() {
                for ky in 0..kh {
                    let Some(iy) = self.input_row(oy, ky) else { continue };
                    let row = &mut target[iy * w..][..w];
                    for (kx, (columns, first)) in columns.iter().enumerate() {
                        let factor = kernel[ky * kw + kx];
                        let row = row[*first..].iter_mut().step_by(self.strides[1]);
                        row.zip(&gradient[columns.clone()]).for_each(|(x, y)| *x += factor * y);
                    }
                }
            }
        }
        out
    }

    /// The transpose of [`Geometry::gather_and_multiply`].
    fn multiply_and_scatter(&self, weight: &[f32], groups: usize, gradient: &[f32]) -> Vec<f32> {
        let ([o, oh, ow], [i, kh, kw]) = (self.output, self.window);
        let (depth, group_outputs) = (i * kh * kw, o / groups);
        let rows = self.images * oh;
        let block = (COLUMNS / ow.max(1)).max(1);
        let mut columns_of = vec![0.0; depth * block * ow];
        let mut given = vec![0.0; group_outputs * block * ow];
        let mut out = vec![0.0; self.images * self.input.iter().product::<usize>()];
        for start in (0..rows).step_by(block) {
            let rows = start..(start + block).min(rows);
            let columns = rows.len() * ow;
            for group in 0..groups {
                let given = &mut given[..group_outputs * columns];
                for (k, given) in given.chunks_exact_mut(columns.max(1)).enumerate() {
                    let channel = group * group_outputs + k;
                    for (row, given) in rows.clone().zip(given.chunks_exact_mut(ow)) {
                        let (image, oy) = (row / oh, row % oh);
                        given.copy_from_slice(&gradient[((image * o + channel) * oh + oy) * ow..][..ow]);
                    }
                }
                let columns_of = &mut columns_of[..depth * columns];
                let weight = &weight[group * group_outputs * depth..][..group_outputs * depth];
                matmul(
                    MatMut::from_row_major_slice_mut(&mut *columns_of, depth, columns),
                    Accum::Replace,
                    MatRef::from_row_major_slice(weight, group_outputs, depth).transpose(),
                    MatRef::from_row_major_slice(&*given, group_outputs, columns),
                    1.0,
                    Par::Seq,
                );
                self.scatter(group * i, rows.clone(), columns_of, &mut out);
            }
        }
        out
    }

    /// Adds columns as [`Geometry::gather`] writes them to the windows that they come from.
    fn scatter(
        &self,
        first_channel: usize,
        rows: std::ops::Range<usize>,
        columns_of: &[f32],
        out: &mut [f32],
    ) {
        let ([c, h, w], [_, oh, ow], [_, kh, kw]) = (self.input, self.output, self.window);
        for (tap, line) in columns_of.chunks_exact((rows.len() * ow).max(1)).enumerate() {
            let (i, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let (columns, first) = self.output_columns(kx);
            for (row, line) in rows.clone().zip(line.chunks_exact(ow)) {
                let (image, oy) = (row / oh, row % oh);
                let Some(iy) = self.input_row(oy, ky) else { continue };
                let target = &mut out[((image * c + first_channel + i) * h + iy) * w..][..w];
                let line = &line[columns.clone()];
                if self.strides[1] == 1 {
                    target[first..][..line.len()].iter_mut().zip(line).for_each(|(x, y)| *x += y);
                } else {
                    let target = target[first..].iter_mut().step_by(self.strides[1]);
                    target.zip(line).for_each(|(x, y)| *x += y);
                }
            }
        }
    }

    /// Writes the windows of some output rows (counted over all images) as columns `[i * kh * kw, rows * ow]`.
    fn gather(&self, first_channel: usize, rows: std::ops::Range<usize>, x: &[f32], gathered: &mut [f32]) {
        let ([c, h, w], [_, oh, ow], [_, kh, kw]) = (self.input, self.output, self.window);
        let stride = self.strides[1];
        for (tap, line) in gathered.chunks_exact_mut((rows.len() * ow).max(1)).enumerate() {
            let (i, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let (columns, first) = self.output_columns(kx);
            for (row, out) in rows.clone().zip(line.chunks_exact_mut(ow)) {
                let (image, oy) = (row / oh, row % oh);
                let Some(iy) = self.input_row(oy, ky) else {
                    out.fill(0.0);
                    continue;
                };
                let source = &x[((image * c + first_channel + i) * h + iy) * w..][..w];
                out[..columns.start].fill(0.0);
                out[columns.end..].fill(0.0);
                let out = &mut out[columns.clone()];
                if stride == 1 {
                    out.copy_from_slice(&source[first..][..out.len()]);
                } else {
                    let source = source[first..].iter().step_by(stride);
                    out.iter_mut().zip(source).for_each(|(y, x)| *y = *x);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Weight, conv_output_extent};

    /// The definition, one output at a time, in f64.
    fn naive(conv: &Conv, weight: &Tensor, x: &[f32], input: [usize; 4], output: [usize; 4]) -> Vec<f32> {
        let [_, c, h, w] = input;
        let [n, o, oh, ow] = output;
        let [_, i, kh, kw] = [weight.shape[0], weight.shape[1], weight.shape[2], weight.shape[3]];
        let mut out = Vec::new();
        for index in 0..n * o * oh * ow {
            let (image, k, oy, ox) =
                (index / (o * oh * ow), index / (oh * ow) % o, index / ow % oh, index % ow);
            let mut sum = conv.bias.as_ref().map_or(0.0, |bias| f64::from(bias[k]));
            for tap in 0..i * kh * kw {
                let (ci, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                let iy = (oy * conv.strides[0] + ky * conv.dilations[0]).wrapping_sub(conv.pads[0]);
                let ix = (ox * conv.strides[1] + kx * conv.dilations[1]).wrapping_sub(conv.pads[1]);
                if iy < h && ix < w {
                    let channel = k / (o / conv.groups) * i + ci;
                    let x = x[((image * c + channel) * h + iy) * w + ix];
                    sum += f64::from(x) * f64::from(weight.data[k * i * kh * kw + tap]);
                }
            }
            out.push(clamp(sum as f32, conv.activation));
        }
        out
    }

    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_geometry_equals_the_definition() {
        // (channels, height, width, outputs, kernel, strides, pads, dilations, groups)
        type Case = (usize, usize, usize, usize, [usize; 2], [usize; 2], [usize; 4], [usize; 2], usize);
        let cases: &[Case] = &[
            (3, 8, 7, 5, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1),
            (3, 9, 9, 4, [3, 3], [2, 2], [0, 0, 1, 1], [1, 1], 1),
            (4, 6, 5, 6, [1, 1], [1, 1], [0, 0, 0, 0], [1, 1], 1),
            (4, 6, 6, 6, [1, 1], [2, 2], [0, 0, 0, 0], [1, 1], 2),
            (4, 7, 6, 8, [2, 3], [1, 2], [1, 2, 0, 1], [2, 1], 2),
            (5, 6, 9, 5, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 5),
            (5, 8, 9, 10, [3, 5], [2, 2], [1, 2, 1, 2], [1, 1], 5),
            (1, 49, 10, 8, [10, 4], [2, 2], [4, 1, 5, 1], [1, 1], 1),
            (2, 2, 2, 3, [3, 3], [1, 1], [5, 5, 5, 5], [2, 3], 1),
            (3, 2, 2, 3, [3, 3], [3, 3], [4, 4, 4, 4], [1, 1], 3),
            (2, 1, 30, 3, [1, 5], [1, 3], [0, 4, 0, 4], [1, 2], 1),
        ];
        for (seed, case) in cases.iter().enumerate() {
            let (c, h, w, o, kernel, strides, pads, dilations, groups) = *case;
            for samples in [1, 5] {
                let seed = seed as u32;
                let weight = Tensor::new(
                    vec![o, c / groups, kernel[0], kernel[1]],
                    numbers(o * c / groups * kernel[0] * kernel[1], seed),
                );
                let op = Conv {
                    weight: Weight::Dense(weight.clone()),
                    bias: seed.is_multiple_of(2).then(|| numbers(o, seed + 50)),
                    strides,
                    pads,
                    dilations,
                    groups,
                    activation: ActivationRange { low: -0.8, high: 3.0 },
                };
                let extent = |size, axis: usize| {
                    let pads = pads[axis] + pads[axis + 2];
                    conv_output_extent(size, pads, kernel[axis], strides[axis], dilations[axis]).unwrap()
                };
                let (oh, ow) = (extent(h, 0), extent(w, 1));
                let x = numbers(samples * c * h * w, seed + 100);
                let operand = Operand { shape: &[1, c, h, w], data: &x };
                let got = conv(&op, &weight, operand, &[1, o, oh, ow], samples);
                let expected = naive(&op, &weight, &x, [samples, c, h, w], [samples, o, oh, ow]);
                assert_eq!(got.len(), expected.len());
                for (k, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    assert!((got - expected).abs() < 1e-4, "{case:?}, {samples}, {k}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn dense_works_on_every_row() {
        let weight = Tensor::new(vec![2, 3], vec![1.0, 2.0, 3.0, -1.0, 0.0, 1.0]);
        let op = Dense {
            weight: Weight::Dense(weight.clone()),
            bias: Some(vec![1.0, -1.0]),
            activation: ActivationRange::RELU,
        };
        let data = [1.0, 1.0, 1.0, 2.0, 0.0, 4.0];
        let got = dense(&op, &weight, Operand { shape: &[1, 1, 3], data: &data });
        assert_eq!(got, [7.0, 0.0, 15.0, 1.0]);
    }
}
