//! Depthwise then pointwise: some window filters for each input channel, then 1x1 to the output channels, directly or through a rank.
//!
//! Takes a convolution; gives `W[o, i, s] = sum_t k[o, i, t] d[i, t, s]` (Guo, Li, Lin, Chen, Li 2018, "Network decoupling", arXiv 1808.05517). A channel's
//! filters start as the top right singular vectors of its slice `M_i` in whitened positions; then filters and pointwise factor are
//! refined together in the full output metric (`gauss_newton`). A rank truncates the pointwise factor as [`super::low_rank`] does: its
//! error is known for all ranks at once.

use super::gauss_newton::{Effort, Form, Problem, Single, double, single};
use super::whitened::{Mixing, Truncations, Whitened};
use super::{Fit, Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Matrix, NotConverged, eigen, product};

/// Every number of filters.
const EFFORT: Effort = Effort { iterations: 4, inner: 8, least_gain: 5e-3 };

/// One parameter block, `d` ((filters * channels) x positions); row `t * channels + i` is filter `t` of channel `i`.
struct Filters {
    channels: usize,
}

/// All numbers of filters of one layer.
pub struct Depthwise<'a> {
    white: Whitened<'a>,
    full: Problem,
    form: Filters,
    /// Singular vectors of every channel as columns.
    bases: Vec<Matrix>,
}

/// One number of filters; all ranks of the pointwise factor at once.
pub struct Filtered {
    shape: Vec<usize>,
    filters: usize,
    /// `(filters * channels) x positions`.
    window: Matrix,
    pointwise: Truncations,
}

impl<'a> Depthwise<'a> {
    /// Prepares a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let white = Whitened::new(target, Mixing::Positions)?;
        let full = Problem::new(&white.matrix, Some(&white.covariance));
        let (channels, positions) = (white.channels, white.positions);
        let basis = |i: usize| {
            let slice = Matrix::from_fn(white.outputs, positions, |o, s| white.matrix[(o, s * channels + i)]);
            eigen(product(slice.transpose(), slice.as_ref()).as_ref()).map(|found| found.vectors)
        };
        let bases = (0..channels).map(basis).collect::<Result<_, _>>()?;
        Ok(Self { form: Filters { channels }, full, white, bases })
    }

    /// `filters` windows for each channel (at most one for each position), from [`Target::start`] if that holds as many.
    pub fn fit(&self, filters: usize) -> Result<Filtered, NotConverged> {
        let (channels, positions) = (self.white.channels, self.white.positions);
        let filters = filters.clamp(1, positions.max(1));
        let own = || {
            Single::from_fn(filters * channels, positions, |row, s| {
                self.bases[row % channels][(s, row / channels)] as f32
            })
        };
        let start = self.given(filters).unwrap_or_else(own);
        let state = self.full.refine(&self.form, vec![start], EFFORT);
        let map = double(&state.map);
        let mut last = self.white.last_factor(&map, self.full.rounding);
        let mut window = product(double(&state.x[0]).as_ref(), self.white.position.inverse.as_ref());
        for row in 0..window.nrows() {
            // The whitened channel was scaled; the filter gets unit length and the pointwise factor the rest.
            let length = window.row(row).norm_l2();
            if length > 0.0 {
                (0..positions).for_each(|s| window[(row, s)] /= length);
                let scale = length * self.white.channel.inverse[(row % channels, row % channels)];
                (0..last.matrix.nrows()).for_each(|o| last.matrix[(o, row)] *= scale);
            }
        }
        let shape = self.white.target.shape.to_vec();
        Ok(Filtered { shape, filters, window, pointwise: last.truncations()? })
    }

    fn given(&self, filters: usize) -> Option<Single> {
        let network = self.white.target.start.filter(|network| network.format == "depthwise")?;
        let core = &network.cores.first()?.tensor;
        let (channels, positions) = (self.white.channels, self.white.positions);
        if core.shape.first() != Some(&filters) || core.len() != filters * channels * positions {
            return None;
        }
        let flat = Matrix::from_fn(filters * channels, positions, |row, s| {
            f64::from(core.data[row * positions + s])
        });
        Some(single(&product(flat.as_ref(), self.white.position.root.as_ref())))
    }
}

impl Filtered {
    /// The cores, with the pointwise factor through `rank` channels or as it is.
    pub fn fit(&self, rank: Option<usize>) -> Fit {
        let channels = self.shape[1];
        let window = [&[self.filters, channels], &self.shape[2..]].concat();
        let modes = vec![Mode::Bond(0), Mode::Input(0), Mode::KernelHeight, Mode::KernelWidth];
        let mut cores = vec![Core { tensor: to_tensor(&self.window, &window), modes }];
        cores.extend(self.pointwise.cores(rank, Mode::Bond(1), |matrix, rows| Core {
            tensor: to_tensor(matrix, &[matrix.nrows(), self.filters, channels]),
            modes: vec![rows, Mode::Bond(0), Mode::Input(0)],
        }));
        let network = Network {
            format: "depthwise",
            shape: self.shape.clone(),
            contraction: (0..cores.len()).collect(),
            cores,
            row_scale: None,
        };
        Fit { network, error: self.pointwise.error(rank) }
    }
}

impl Form for Filters {
    fn map(&self, x: &[Single]) -> Single {
        let d = &x[0];
        let mut map = Single::zeros(d.nrows(), d.ncols() * self.channels);
        for s in 0..d.ncols() {
            for (row, value) in d.col_as_slice(s).iter().enumerate() {
                map[(row, s * self.channels + row % self.channels)] = *value;
            }
        }
        map
    }

    fn tangent(&self, _: &[Single], dx: &[Single]) -> Single {
        self.map(dx)
    }

    fn adjoint(&self, x: &[Single], gradient: &Single) -> Vec<Single> {
        let at = |row: usize, s: usize| gradient[(row, s * self.channels + row % self.channels)];
        vec![Single::from_fn(x[0].nrows(), x[0].ncols(), at)]
    }

    fn normal(&self, _: &[Single], gram: &Single) -> Vec<Matrix> {
        let same = |a: usize, b: usize| a % self.channels == b % self.channels;
        let n = gram.nrows();
        vec![Matrix::from_fn(n, n, |a, b| if same(a, b) { f64::from(gram[(a, b)]) } else { 0.0 })]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_fits, covariance, matrix};
    use super::*;

    #[test]
    fn all_filters_reproduce_and_error_falls_with_filters_and_rank() {
        let (m, c, shape) = (matrix(6, 4 * 6, 1), covariance(24, 2), [6, 4, 3, 2]);
        let target = Target::new(&shape, &m, &c);
        let all = Depthwise::new(target).unwrap();
        let fits: Vec<Fit> = (1..=6).map(|filters| all.fit(filters).unwrap().fit(None)).collect();
        check_fits(target, &fits);
        assert!(fits[5].error < 1e-2);
        let filtered = all.fit(3).unwrap();
        let fits: Vec<Fit> = (1..=6).map(|rank| filtered.fit(Some(rank))).collect();
        check_fits(target, &fits);
        assert!((fits[5].error - filtered.fit(None).error).abs() < 1e-6);
    }
}
