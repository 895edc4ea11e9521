//! Full Tucker of a convolution: fewer input channels, a few windows shared by all of them, fewer output channels.
//!
//! Takes a convolution; gives `W[o, i, s] = sum g[b, a, k] u[o, b] p[a, i] q[k, s]` with ranks of the channels (`a`, `b`) and of the window positions
//! (`k`): the Tucker decomposition (Tucker 1966; De Lathauwer, De Moor, Vandewalle 2000), in whitened channels and positions. The
//! factors `p` and `q` start as the top eigenvectors of the unfoldings and are then refined together with all that follows them, in the full output
//! metric (`gauss_newton`); the output side is truncated last, its error known for all output ranks at once.
//!
//! As a network it is 1x1, then the windows on each rank channel, then 1x1 twice. The windows are stored once for every rank channel, since that is
//! how a depthwise stage reads them; what a network says of its size counts them so.

use super::gauss_newton::{Effort, Form, Problem, Single, double, single};
use super::whitened::{Mixing, Truncations, Whitened};
use super::{Fit, Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Eigen, Matrix, NotConverged, eigen, product, unit_rows};

/// Every pair of input and window ranks.
const EFFORT: Effort = Effort { iterations: 4, inner: 8, least_gain: 5e-3 };

/// Two parameter blocks: `p` (input rank x channels) and `q` (window rank x positions). Row `k * input rank + a` of `P` is `q_k (x) p_a`.
struct Sides {
    channels: usize,
}

/// All ranks of one layer.
pub struct FullTucker<'a> {
    white: Whitened<'a>,
    full: Problem,
    form: Sides,
    input: Eigen,
    window: Eigen,
    output: Vec<f64>,
}

/// An input and a window rank; all output ranks at once.
pub struct Restricted {
    shape: Vec<usize>,
    input: Matrix,
    window: Matrix,
    last: Truncations,
}

impl<'a> FullTucker<'a> {
    /// Decomposes the unfoldings of a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let white = Whitened::new(target, Mixing::Both)?;
        let full = Problem::new(&white.matrix, Some(&white.covariance));
        let (channels, positions, matrix) = (white.channels, white.positions, &white.matrix);
        let output = eigen(product(matrix.as_ref(), matrix.transpose()).as_ref())?.values;
        let by_channel = Matrix::from_fn(channels, white.outputs * positions, |i, k| {
            matrix[(k / positions, k % positions * channels + i)]
        });
        let by_position = Matrix::from_fn(positions, white.outputs * channels, |s, k| {
            matrix[(k / channels, s * channels + k % channels)]
        });
        let unfolded = |a: &Matrix| eigen(product(a.as_ref(), a.transpose()).as_ref());
        let (input, window) = (unfolded(&by_channel)?, unfolded(&by_position)?);
        Ok(Self { form: Sides { channels }, full, white, input, window, output })
    }

    /// Squared singular values of the unfoldings by outputs, inputs and positions, greatest first.
    pub fn spectra(&self) -> [&[f64]; 3] {
        [&self.output, &self.input.values, &self.window.values]
    }

    /// Fits an input and a window rank.
    pub fn restrict(&self, input: usize, window: usize) -> Result<Restricted, NotConverged> {
        let top = |all: &Eigen, rank: usize| {
            let rank = rank.clamp(1, all.values.len().max(1));
            single(&all.vectors.get(.., ..rank).transpose().to_owned())
        };
        let start = vec![top(&self.input, input), top(&self.window, window)];
        let state = self.full.refine(&self.form, start, EFFORT);
        let last = self.white.last_factor(&double(&state.map), self.full.rounding);
        let back = |a: &Single, inverse: &Matrix| product(double(a).as_ref(), inverse.as_ref());
        let mut input = back(&state.x[0], &self.white.channel.inverse);
        let mut window = back(&state.x[1], &self.white.position.inverse);
        let (scales, widths) = (unit_rows(&mut input), unit_rows(&mut window));
        let mut last = last;
        for (column, (width, scale)) in
            widths.iter().flat_map(|width| scales.iter().map(move |scale| (width, scale))).enumerate()
        {
            (0..last.matrix.nrows()).for_each(|o| last.matrix[(o, column)] *= width * scale);
        }
        Ok(Restricted { shape: self.white.target.shape.to_vec(), input, window, last: last.truncations()? })
    }
}

impl Restricted {
    /// The cores for this output rank, or straight to the outputs.
    pub fn fit(&self, output: Option<usize>) -> Fit {
        let (input, window) = (self.input.nrows(), self.window.nrows());
        let positions = self.window.ncols();
        let repeated =
            Matrix::from_fn(input, window * positions, |_, k| self.window[(k / positions, k % positions)]);
        let mut cores = vec![
            Core {
                tensor: to_tensor(&self.input, &[input, self.shape[1]]),
                modes: vec![Mode::Bond(0), Mode::Input(0)],
            },
            Core {
                tensor: to_tensor(&repeated, &[&[input, window], &self.shape[2..]].concat()),
                modes: vec![Mode::Bond(0), Mode::Bond(1), Mode::KernelHeight, Mode::KernelWidth],
            },
        ];
        cores.extend(self.last.cores(output, Mode::Bond(2), |matrix, rows| Core {
            tensor: to_tensor(matrix, &[matrix.nrows(), window, input]),
            modes: vec![rows, Mode::Bond(1), Mode::Bond(0)],
        }));
        let network = Network {
            format: "full-tucker",
            shape: self.shape.clone(),
            contraction: (0..cores.len()).collect(),
            cores,
            row_scale: None,
        };
        Fit { network, error: self.last.error(output) }
    }
}

impl Form for Sides {
    fn map(&self, x: &[Single]) -> Single {
        let (p, q) = (&x[0], &x[1]);
        let mut map = Single::zeros(p.nrows() * q.nrows(), self.channels * q.ncols());
        for j in 0..map.ncols() {
            let (p, q) = (p.col_as_slice(j % self.channels), q.col_as_slice(j / self.channels));
            for (rows, q) in map.col_as_slice_mut(j).chunks_exact_mut(p.len()).zip(q) {
                rows.iter_mut().zip(p).for_each(|(out, p)| *out = p * q);
            }
        }
        map
    }

    fn tangent(&self, x: &[Single], dx: &[Single]) -> Single {
        self.map(&[dx[0].clone(), x[1].clone()]) + self.map(&[x[0].clone(), dx[1].clone()])
    }

    fn adjoint(&self, x: &[Single], gradient: &Single) -> Vec<Single> {
        let mut out = [&x[0], &x[1]].map(|x| Single::zeros(x.nrows(), x.ncols()));
        let rank = x[0].nrows();
        for j in 0..gradient.ncols() {
            let (i, s) = (j % self.channels, j / self.channels);
            let (p, q) = (x[0].col_as_slice(i), x[1].col_as_slice(s));
            for (k, g) in gradient.col_as_slice(j).chunks_exact(rank).enumerate() {
                out[0].col_as_slice_mut(i).iter_mut().zip(g).for_each(|(out, g)| *out += g * q[k]);
                out[1].col_as_slice_mut(s)[k] += g.iter().zip(p).map(|(g, p)| g * p).sum::<f32>();
            }
        }
        out.into()
    }

    fn normal(&self, x: &[Single], gram: &Single) -> Vec<Matrix> {
        let [a, k] = [x[0].nrows(), x[1].nrows()];
        let similar = [&x[0], &x[1]].map(|x| product(x.as_ref(), x.transpose()));
        let at = |k: usize, r: usize, l: usize, t: usize| f64::from(gram[(k * a + r, l * a + t)]);
        let pairs = |n: usize| (0..n).flat_map(move |l| (0..n).map(move |m| (l, m)));
        vec![
            Matrix::from_fn(a, a, |r, t| {
                pairs(k).map(|(l, m)| at(l, r, m, t) * f64::from(similar[1][(l, m)])).sum()
            }),
            Matrix::from_fn(k, k, |l, m| {
                pairs(a).map(|(r, t)| at(l, r, m, t) * f64::from(similar[0][(r, t)])).sum()
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_fits, covariance, matrix};
    use super::*;

    #[test]
    fn full_ranks_reproduce_and_error_falls_with_every_rank() {
        let (m, c, shape) = (matrix(6, 4 * 6, 1), covariance(24, 2), [6, 4, 3, 2]);
        let target = Target::new(&shape, &m, &c);
        let all = FullTucker::new(target).unwrap();
        let fit = |input, window, output| all.restrict(input, window).unwrap().fit(output);
        check_fits(target, &(1..=6).map(|output| fit(3, 4, Some(output))).collect::<Vec<_>>());
        check_fits(target, &(1..=4).map(|input| fit(input, 6, None)).collect::<Vec<_>>());
        let windows: Vec<Fit> = (1..=6).map(|window| fit(4, window, None)).collect();
        check_fits(target, &windows);
        assert!(windows[5].error < 1e-2);
    }

    #[test]
    fn a_tensor_of_low_multilinear_rank_is_found() {
        let (p, q, g, u) = (matrix(2, 6, 1), matrix(2, 9, 2), matrix(3, 4, 3), matrix(8, 3, 4));
        let core = product(u.as_ref(), g.as_ref());
        let m = Matrix::from_fn(8, 54, |o, j| {
            (0..4).map(|k| core[(o, k)] * p[(k % 2, j / 9)] * q[(k / 2, j % 9)]).sum()
        });
        let (c, shape) = (covariance(54, 4), [8, 6, 3, 3]);
        let all = FullTucker::new(Target::new(&shape, &m, &c)).unwrap();
        assert!(all.restrict(2, 2).unwrap().fit(Some(3)).error < 1e-2);
        assert!(all.spectra().iter().zip([3, 2, 2]).all(|(values, rank)| values[rank] < 1e-6 * values[0]));
    }

    #[test]
    fn a_zero_weight_gives_zeros() {
        let (m, c, shape) = (Matrix::zeros(4, 12), covariance(12, 1), [4, 3, 2, 2]);
        let all = FullTucker::new(Target::new(&shape, &m, &c)).unwrap();
        let fit = all.restrict(2, 2).unwrap().fit(Some(2));
        assert!(fit.network.cores.last().unwrap().tensor.data.iter().all(|x| x.is_finite()));
        assert_eq!(fit.error, 0.0);
    }
}
