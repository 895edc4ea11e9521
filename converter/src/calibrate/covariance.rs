//! Second moments of a linear layer's input and of the output it should give.
//!
//! Takes the layer's geometry, its input and its target output for all calibration samples (row-major, as the evaluator gives them); gives
//! counts, sums and products of the im2col rows, kept apart by fold of samples so that a fit can be judged on data it has not seen.
//! A convolution contributes one row a output position, a dense layer one row a vector. At most [`MAX_ROWS`] rows are read, spread evenly
//! and irregularly (by the golden ratio) over all positions, always the same ones. Refuses values that are not finite.

use faer::{Mat, Scale};
use rayon::prelude::*;

use crate::graph::{Graph, Node, Op, image_shape};
use crate::linalg::{Matrix, add_gram, add_square, inner, mirror, product, trace};

/// Rows that enter a covariance at most.
pub const MAX_ROWS: usize = 120_000;

/// Rows multiplied at a time.
const BLOCK: usize = 2048;

/// How rows lie in the layer's input: a convolution, a dense layer being one with a 1x1 window on a 1x1 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images in one sample: 1 for convolutions, the product of leading axes for dense layers.
    pub images: usize,
    /// Input channels, height, width.
    pub input: [usize; 3],
    /// Output channels, height, width.
    pub output: [usize; 3],
    /// Height, width.
    pub kernel: [usize; 2],
    /// Vertical, horizontal.
    pub strides: [usize; 2],
    /// Top, left.
    pub pads: [usize; 2],
    /// Vertical, horizontal.
    pub dilations: [usize; 2],
    /// Groups of channels that see only each other.
    pub groups: usize,
}

impl Geometry {
    /// The geometry of a convolution or dense layer; `None` for other nodes.
    pub fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let (input, output) = (graph.shape(node.inputs[0]), graph.shape(node.output));
        match &node.op {
            Op::Conv(conv) => {
                let ([n, c, h, w], [_, o, oh, ow]) = (image_shape(input).ok()?, image_shape(output).ok()?);
                Some(Self {
                    images: n,
                    input: [c, h, w],
                    output: [o, oh, ow],
                    kernel: [*conv.weight.shape().get(2)?, *conv.weight.shape().get(3)?],
                    strides: conv.strides,
                    pads: [conv.pads[0], conv.pads[1]],
                    dilations: conv.dilations,
                    groups: conv.groups.max(1),
                })
            }
            Op::Dense(_) => Some(Self {
                images: input.split_last()?.1.iter().product(),
                input: [*input.last()?, 1, 1],
                output: [*output.last()?, 1, 1],
                kernel: [1, 1],
                strides: [1, 1],
                pads: [0, 0],
                dilations: [1, 1],
                groups: 1,
            }),
            _ => None,
        }
    }

    /// Shapes of input and output of a layer whose weight has so many axes.
    pub fn shapes(&self, axes: usize) -> (Vec<usize>, Vec<usize>) {
        let of = |[c, h, w]: [usize; 3]| match axes {
            2 => vec![self.images, c],
            _ => vec![self.images, c, h, w],
        };
        (of(self.input), of(self.output))
    }

    /// Length of one row: `i / groups * kh * kw`.
    pub fn row_len(&self) -> usize {
        self.input[0] / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Output channels of one group.
    pub fn group_outputs(&self) -> usize {
        self.output[0] / self.groups
    }

    /// Copies the im2col row of one output position (`image`, `y`, `x`) and channel group.
    fn copy_row(&self, data: &[f32], group: usize, [image, y, x]: [usize; 3], row: &mut [f32]) {
        let ([channels, height, width], [kh, kw]) = (self.input, self.kernel);
        let first = (image * channels + group * (channels / self.groups)) * height * width;
        let mut row = row.iter_mut();
        for plane in data[first..].chunks_exact(height * width).take(channels / self.groups) {
            for ky in 0..kh {
                // Above the image the difference wraps around and is out of bounds as well.
                let iy = (y * self.strides[0] + ky * self.dilations[0]).wrapping_sub(self.pads[0]);
                for kx in 0..kw {
                    let ix = (x * self.strides[1] + kx * self.dilations[1]).wrapping_sub(self.pads[1]);
                    if let Some(out) = row.next() {
                        *out = if iy < height && ix < width { plane[iy * width + ix] } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// Sums over rows `x` (`d` numbers) and targets `y` (`o` numbers), both shifted by `shift_x`, `shift_y` before summing.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Rows seen.
    pub count: f64,
    shift_x: Vec<f64>,
    shift_y: Vec<f64>,
    sum_x: Vec<f64>,
    sum_y: Vec<f64>,
    xx: Matrix,
    yx: Matrix,
    yy: f64,
}

/// Means and covariances of rows and targets.
#[derive(Clone, Debug)]
pub struct Covariance {
    /// Mean row.
    pub mean_x: Vec<f64>,
    /// Mean target.
    pub mean_y: Vec<f64>,
    /// `d x d`, not regularised.
    pub xx: Matrix,
    /// `o x d`.
    pub yx: Matrix,
}

impl Covariance {
    /// `xx` with a ridge of `lambda` times its mean diagonal; the identity where no input ever varied.
    pub fn damped(&self, lambda: f64) -> Matrix {
        let n = self.xx.nrows();
        let mean = trace(self.xx.as_ref()) / n.max(1) as f64;
        let ridge = if mean > 0.0 { lambda * mean } else { 1.0 };
        Mat::from_fn(n, n, |i, j| self.xx[(i, j)] + if i == j { ridge } else { 0.0 })
    }
}

impl Moments {
    /// All rows of both. They must come from one [`moments`] call (equal shifts).
    pub fn merged(&self, other: &Self) -> Self {
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Self {
            count: self.count + other.count,
            shift_x: self.shift_x.clone(),
            shift_y: self.shift_y.clone(),
            sum_x: add(&self.sum_x, &other.sum_x),
            sum_y: add(&self.sum_y, &other.sum_y),
            xx: &self.xx + &other.xx,
            yx: &self.yx + &other.yx,
            yy: self.yy + other.yy,
        }
    }

    /// Means and covariances; zeros where no row was seen.
    pub fn covariance(&self) -> Covariance {
        let n = self.count.max(1.0);
        let (x, y): (Vec<f64>, Vec<f64>) =
            (self.sum_x.iter().map(|s| s / n).collect(), self.sum_y.iter().map(|s| s / n).collect());
        let plus = |shift: &[f64], mean: &[f64]| shift.iter().zip(mean).map(|(a, b)| a + b).collect();
        Covariance {
            mean_x: plus(&self.shift_x, &x),
            mean_y: plus(&self.shift_y, &y),
            xx: Mat::from_fn(x.len(), x.len(), |i, j| self.xx[(i, j)] / n - x[i] * x[j]),
            yx: Mat::from_fn(y.len(), x.len(), |i, j| self.yx[(i, j)] / n - y[i] * x[j]),
        }
    }

    /// Mean over rows of `|y - mean of y|^2`.
    pub fn variance_y(&self) -> f64 {
        let n = self.count.max(1.0);
        let means: f64 = self.sum_y.iter().map(|sum| (sum / n).powi(2)).sum();
        (self.yy / n - means).max(0.0)
    }

    /// Mean over rows of `|y - weight x - bias|^2`.
    pub fn squared_error(&self, weight: &Matrix, bias: &[f64]) -> f64 {
        let n = self.count.max(1.0);
        // With shifted x and y the bias is bias + weight * shift_x - shift_y.
        let offset: Vec<f64> = (0..weight.nrows())
            .map(|o| {
                let moved: f64 = self.shift_x.iter().enumerate().map(|(j, x)| weight[(o, j)] * x).sum();
                bias[o] + moved - self.shift_y[o]
            })
            .collect();
        let colored = product(weight.as_ref(), self.xx.as_ref());
        let mut sum = self.yy - 2.0 * inner(weight.as_ref(), self.yx.as_ref())
            + inner(colored.as_ref(), weight.as_ref());
        for (o, b) in offset.iter().enumerate() {
            let wx: f64 = self.sum_x.iter().enumerate().map(|(j, x)| weight[(o, j)] * x).sum();
            sum += 2.0 * b * (wx - self.sum_y[o]) + self.count * b * b;
        }
        (sum / n).max(0.0)
    }
}

/// Positions that enter the moments: all, or [`MAX_ROWS`] spread over them.
fn positions(total: usize, limit: usize) -> impl Iterator<Item = usize> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let rows = total.min(limit);
    (0..rows).map(move |k| {
        if rows == total {
            k
        } else {
            let spread = (k as f64 + (k as f64 * GOLDEN).fract()) * (total as f64 / rows as f64);
            (spread as usize).min(total - 1)
        }
    })
}

/// Moments of channel group `group`: `folds` sets of them, sample `s` in fold `s % folds`. `input` and `target` hold `samples` samples; `None` if a
/// value is not finite.
pub fn moments(
    geometry: &Geometry,
    group: usize,
    input: &[f32],
    target: &[f32],
    samples: usize,
    folds: usize,
) -> Option<Vec<Moments>> {
    let (d, o) = (geometry.row_len(), geometry.group_outputs());
    let [outputs, oh, ow] = geometry.output;
    let area = oh * ow;
    let total = samples * geometry.images * area;
    let limit = MAX_ROWS / geometry.groups.clamp(1, 4);
    let locate = |position: usize| [position / area, position % area / ow, position % ow];
    let copy_target = |[image, y, x]: [usize; 3], row: &mut [f32]| {
        for (channel, out) in row.iter_mut().enumerate() {
            *out = target[(image * outputs + group * o + channel) * area + y * ow + x];
        }
    };
    // First pass: means and the largest magnitude, so that the single-precision products of the second are centred and in range.
    let (mut mean_x, mut mean_y) = (vec![0.0; d], vec![0.0; o]);
    let (mut row_x, mut row_y) = (vec![0.0f32; d], vec![0.0f32; o]);
    let (mut largest_x, mut largest_y, mut rows) = (0.0f32, 0.0f32, 0usize);
    for position in positions(total, limit) {
        let at = locate(position);
        geometry.copy_row(input, group, at, &mut row_x);
        copy_target(at, &mut row_y);
        for (row, mean, largest) in
            [(&row_x, &mut mean_x, &mut largest_x), (&row_y, &mut mean_y, &mut largest_y)]
        {
            for (value, mean) in row.iter().zip(mean) {
                if !value.is_finite() {
                    return None;
                }
                *mean += f64::from(*value);
                *largest = largest.max(value.abs());
            }
        }
        rows += 1;
    }
    mean_x.iter_mut().chain(&mut mean_y).for_each(|mean| *mean /= rows.max(1) as f64);
    let (scale_x, scale_y) = (power_of_two(largest_x), power_of_two(largest_y));

    let empty = || Moments {
        count: 0.0,
        shift_x: mean_x.clone(),
        shift_y: mean_y.clone(),
        sum_x: vec![0.0; d],
        sum_y: vec![0.0; o],
        xx: Mat::zeros(d, d),
        yx: Mat::zeros(o, d),
        yy: 0.0,
    };
    let of_fold = |fold: usize| {
        let mut sums = empty();
        let (mut row_x, mut row_y) = (vec![0.0f32; d], vec![0.0f32; o]);
        let (mut xs, mut ys) = (Vec::with_capacity(BLOCK * d), Vec::with_capacity(BLOCK * o));
        let mut members = positions(total, limit)
            .filter(|position| position / area / geometry.images.max(1) % folds == fold)
            .peekable();
        while members.peek().is_some() {
            xs.clear();
            ys.clear();
            let mut block = 0;
            for position in members.by_ref().take(BLOCK) {
                let at = locate(position);
                geometry.copy_row(input, group, at, &mut row_x);
                copy_target(at, &mut row_y);
                let centre = |value: f32, mean: f64, scale: f64| ((f64::from(value) - mean) * scale) as f32;
                xs.extend(row_x.iter().zip(&mean_x).map(|(v, m)| centre(*v, *m, scale_x)));
                ys.extend(row_y.iter().zip(&mean_y).map(|(v, m)| centre(*v, *m, scale_y)));
                block += 1;
            }
            add_square(sums.xx.as_mut(), &xs, block);
            add_gram(sums.yx.as_mut(), &ys, &xs, block);
            sums.yy += ys.iter().map(|y| f64::from(*y) * f64::from(*y)).sum::<f64>();
            for (values, sum) in [(&xs, &mut sums.sum_x), (&ys, &mut sums.sum_y)] {
                for row in values.chunks_exact(sum.len().max(1)) {
                    row.iter().zip(sum.iter_mut()).for_each(|(value, sum)| *sum += f64::from(*value));
                }
            }
            sums.count += block as f64;
        }
        mirror(&mut sums.xx);
        sums.xx *= Scale(1.0 / (scale_x * scale_x));
        sums.yx *= Scale(1.0 / (scale_x * scale_y));
        sums.yy /= scale_y * scale_y;
        sums.sum_x.iter_mut().for_each(|sum| *sum /= scale_x);
        sums.sum_y.iter_mut().for_each(|sum| *sum /= scale_y);
        sums
    };
    Some((0..folds).into_par_iter().map(of_fold).collect())
}

/// A power of two that brings `largest` near 1 (exact to multiply and divide by).
fn power_of_two(largest: f32) -> f64 {
    if largest > 0.0 { (-f64::from(largest).log2().round()).exp2() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::noise;

    const CONV: Geometry = Geometry {
        images: 1,
        input: [4, 5, 6],
        output: [6, 3, 4],
        kernel: [3, 2],
        strides: [2, 1],
        pads: [1, 0],
        dilations: [1, 2],
        groups: 2,
    };

    /// Output of a linear map of the rows, computed by the rows themselves.
    fn linear(geometry: &Geometry, weight: &Matrix, bias: &[f64], input: &[f32], samples: usize) -> Vec<f32> {
        let [outputs, oh, ow] = geometry.output;
        let mut row = vec![0.0; geometry.row_len()];
        let mut target = vec![0.0; samples * geometry.images * outputs * oh * ow];
        for (index, out) in target.iter_mut().enumerate() {
            let (image, o, y, x) =
                (index / (outputs * oh * ow), index / (oh * ow) % outputs, index / ow % oh, index % ow);
            geometry.copy_row(input, o / geometry.group_outputs(), [image, y, x], &mut row);
            let sum: f64 = row.iter().enumerate().map(|(j, v)| weight[(o, j)] * f64::from(*v)).sum();
            *out = (sum + bias[o]) as f32;
        }
        target
    }

    #[test]
    fn moments_know_the_error_of_any_linear_map() {
        for scale in [1.0f32, 1e-30, 1e15] {
            let input: Vec<f32> = noise(4 * 120, 3).iter().map(|x| (x + 2.0) * scale).collect();
            let bias = [0.1, -0.2, 0.3, 0.0, 1.0, 2.0].map(|b| b * f64::from(scale));
            let weight = crate::compress::tests::matrix(6, 12, 1);
            let target = linear(&CONV, &weight, &bias, &input, 4);
            for group in 0..2 {
                let rows = 3 * group..3 * group + 3;
                let own = weight.get(rows.clone(), ..).to_owned();
                let folds = moments(&CONV, group, &input, &target, 4, 2).unwrap();
                let all = folds[0].merged(&folds[1]);
                assert_eq!(all.count, 4.0 * 12.0);
                let power = all.squared_error(&Matrix::zeros(3, 12), &[0.0; 3]);
                assert!(power > 0.1 * f64::from(scale * scale));
                assert!(all.squared_error(&own, &bias[rows]) <= 1e-5 * power);
                let covariance = all.covariance();
                let expected = product(own.as_ref(), covariance.xx.as_ref());
                assert!((&expected - &covariance.yx).norm_max() <= 1e-5 * expected.norm_max());
            }
        }
    }

    #[test]
    fn constant_and_single_rows_stay_finite() {
        let dense = Geometry {
            images: 1,
            input: [3, 1, 1],
            output: [2, 1, 1],
            kernel: [1, 1],
            strides: [1, 1],
            pads: [0, 0],
            dilations: [1, 1],
            groups: 1,
        };
        let all = moments(&dense, 0, &[1.0, 2.0, 3.0], &[4.0, 5.0], 1, 1).unwrap().remove(0);
        let covariance = all.covariance();
        assert_eq!(covariance.mean_x, [1.0, 2.0, 3.0]);
        assert_eq!(covariance.damped(1e-3), Matrix::identity(3, 3));
        assert!(moments(&dense, 0, &[1.0, f32::NAN, 3.0], &[4.0, 5.0], 1, 1).is_none());
    }

    #[test]
    fn sampled_positions_are_spread_and_distinct() {
        let chosen: Vec<usize> = positions(1_000_003, 1000).collect();
        assert_eq!(chosen.len(), 1000);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        let columns: std::collections::BTreeSet<usize> = chosen.iter().map(|p| p % 32).collect();
        assert_eq!(columns.len(), 32);
    }
}
