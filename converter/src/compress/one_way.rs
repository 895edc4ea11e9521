//! One-way (separable) filters: a column of the window to `rank` channels, then a row of it to the output channels.
//!
//! Takes a convolution; gives `W[o, i, y, x] = sum_r v[o, r, x] u[r, i, y]` (Rigamonti, Sironi, Lepetit, Fua 2013; Jaderberg, Vedaldi, Zisserman 2014,
//! arXiv 1405.3866). The start are the top left singular vectors of the weight unfolded as (channels, rows) x (outputs, columns) in
//! whitened channels; then both factors are refined together in the full output metric (`gauss_newton`).

use super::gauss_newton::{Effort, Form, Problem, Single, State, double, single};
use super::whitened::{Mixing, Whitened};
use super::{Fit, Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Matrix, NotConverged, eigen, product};

/// Every rank of the grid.
const EFFORT: Effort = Effort { iterations: 4, inner: 8, least_gain: 5e-3 };

/// One parameter block, `u` (rank x (rows of the window * channels)); row `x * rank + r` of `P` is term `r` at column `x` of the window.
struct Columns {
    channels: usize,
    window: [usize; 2],
}

/// All ranks of one layer.
pub struct OneWay<'a> {
    white: Whitened<'a>,
    full: Problem,
    form: Columns,
    /// Left singular vectors as rows, the greatest first.
    basis: Matrix,
}

impl<'a> OneWay<'a> {
    /// Prepares a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let white = Whitened::new(target, Mixing::Channels)?;
        let full = Problem::new(&white.matrix, Some(&white.covariance));
        let form = Columns { channels: white.channels, window: [target.shape[2], target.shape[3]] };
        let [rows, columns] = form.window;
        let unfolded = Matrix::from_fn(rows * form.channels, white.outputs * columns, |a, b| {
            let (y, i, x) = (a / form.channels, a % form.channels, b % columns);
            white.matrix[(b / columns, (y * columns + x) * form.channels + i)]
        });
        let basis = eigen(product(unfolded.as_ref(), unfolded.transpose()).as_ref())?.vectors;
        Ok(Self { white, full, form, basis: basis.transpose().to_owned() })
    }

    /// The network of one rank (at most channels times rows of the window), from [`Target::start`] if that holds one.
    pub fn fit(&self, rank: usize) -> Fit {
        let rank = rank.clamp(1, self.basis.nrows().max(1));
        let start = self.given(rank).unwrap_or_else(|| single(&self.basis.get(..rank, ..).to_owned()));
        self.finish(&self.full.refine(&self.form, vec![start], EFFORT))
    }

    fn given(&self, rank: usize) -> Option<Single> {
        let network = self.white.target.start.filter(|network| network.format == "one-way")?;
        let core = &network.cores.first()?.tensor;
        let (channels, rows) = (self.form.channels, self.form.window[0]);
        if core.shape[..] != [rank, channels, rows] {
            return None;
        }
        let flat = Matrix::from_fn(rank * rows, channels, |a, i| {
            f64::from(core.data[(a / rows * channels + i) * rows + a % rows])
        });
        let white = product(flat.as_ref(), self.white.channel.root.as_ref());
        Some(Single::from_fn(rank, rows * channels, |r, k| {
            white[(r * rows + k / channels, k % channels)] as f32
        }))
    }

    fn finish(&self, state: &State) -> Fit {
        let white = &self.white;
        let last = white.last_factor(&double(&state.map), self.full.rounding);
        let u = &state.x[0];
        let (rank, channels, [rows, columns]) = (u.nrows(), white.channels, self.form.window);
        let flat =
            Matrix::from_fn(rank * rows, channels, |a, i| f64::from(u[(a / rows, a % rows * channels + i)]));
        let back = product(flat.as_ref(), white.channel.inverse.as_ref());
        // Rows of unit length, whatever the scale of the covariance.
        let lengths: Vec<f64> = (0..rank)
            .map(|r| {
                let length = back.as_ref().subrows(r * rows, rows).norm_l2();
                if length > 0.0 { length } else { 1.0 }
            })
            .collect();
        let first =
            Matrix::from_fn(rank, channels * rows, |r, k| back[(r * rows + k % rows, k / rows)] / lengths[r]);
        let second = Matrix::from_fn(white.outputs, rank * columns, |o, k| {
            last.matrix[(o, k % columns * rank + k / columns)] * lengths[k / columns]
        });
        let network = Network {
            format: "one-way",
            shape: white.target.shape.to_vec(),
            cores: vec![
                Core {
                    tensor: to_tensor(&first, &[rank, channels, rows]),
                    modes: vec![Mode::Bond(0), Mode::Input(0), Mode::KernelHeight],
                },
                Core {
                    tensor: to_tensor(&second, &[white.outputs, rank, columns]),
                    modes: vec![Mode::Output(0), Mode::Bond(0), Mode::KernelWidth],
                },
            ],
            contraction: vec![0, 1],
            row_scale: None,
        };
        Fit { network, error: last.error() }
    }
}

impl Columns {
    /// Calls `each(column of P, first row, column of u)` for every place where `P` holds `u`.
    fn places(&self, rank: usize, mut each: impl FnMut(usize, usize, usize)) {
        let [rows, columns] = self.window;
        for y in 0..rows {
            for x in 0..columns {
                for i in 0..self.channels {
                    each((y * columns + x) * self.channels + i, x * rank, y * self.channels + i);
                }
            }
        }
    }
}

impl Form for Columns {
    fn map(&self, x: &[Single]) -> Single {
        let u = &x[0];
        let [rows, columns] = self.window;
        let mut map = Single::zeros(u.nrows() * columns, rows * columns * self.channels);
        self.places(u.nrows(), |to, row, from| {
            map.col_as_slice_mut(to)[row..row + u.nrows()].copy_from_slice(u.col_as_slice(from));
        });
        map
    }

    fn tangent(&self, _: &[Single], dx: &[Single]) -> Single {
        self.map(dx)
    }

    fn adjoint(&self, x: &[Single], gradient: &Single) -> Vec<Single> {
        let mut out = Single::zeros(x[0].nrows(), x[0].ncols());
        let rank = out.nrows();
        self.places(rank, |from, row, to| {
            let part = &gradient.col_as_slice(from)[row..row + rank];
            out.col_as_slice_mut(to).iter_mut().zip(part).for_each(|(sum, g)| *sum += g);
        });
        vec![out]
    }

    fn normal(&self, x: &[Single], gram: &Single) -> Vec<Matrix> {
        let rank = x[0].nrows();
        let same_column = |r: usize, t: usize| {
            (0..self.window[1]).map(|x| f64::from(gram[(x * rank + r, x * rank + t)])).sum::<f64>()
        };
        vec![Matrix::from_fn(rank, rank, same_column)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_fits, covariance, matrix};
    use super::*;

    #[test]
    fn full_rank_reproduces_and_error_falls_with_rank() {
        let (m, c, shape) = (matrix(6, 4 * 6, 1), covariance(24, 2), [6, 4, 3, 2]);
        let target = Target::new(&shape, &m, &c);
        let all = OneWay::new(target).unwrap();
        let fits: Vec<Fit> = (1..=12).map(|rank| all.fit(rank)).collect();
        check_fits(target, &fits);
        assert!(fits[11].error < 1e-2);
    }
}
