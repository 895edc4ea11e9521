//! A convolution's target in coordinates in which its input covariance is close to the identity.
//!
//! Takes a [`Target`] with a window; gives the weight and the covariance after a change of basis of the input channels and one of the window's
//! positions, each by the square root of its own mean covariance. What is left of the covariance is how channels *at different
//! positions* vary together. In these coordinates the Frobenius norm is a good guess of the output error, so normal equations are
//! well conditioned, and single precision suffices. The weight is scaled so that its output has power 1. Columns are ordered position, channel:
//! one position's channels are a block. Formats whose factors must not mix channels (depthwise) or positions (one-way) leave that basis diagonal.

use super::{Target, to_tensor};
use crate::graph::{Core, Mode};
use crate::linalg::{Matrix, NotConverged, add_product, eigen, inner, product, roots, solve, trace};

/// Smallest eigenvalue of a mean covariance that counts, relative to its largest.
const FLOOR: f64 = 1e-9;

/// Which basis changes a format's factors can take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mixing {
    /// Channels with each other, positions with each other.
    Both,
    /// Channels only.
    Channels,
    /// Positions only; channels are scaled.
    Positions,
}

/// A change of basis and back.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    /// Symmetric.
    pub(super) root: Matrix,
    /// Its inverse.
    pub(super) inverse: Matrix,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Whitened<'a> {
    pub(super) target: Target<'a>,
    pub(super) outputs: usize,
    pub(super) channels: usize,
    pub(super) positions: usize,
    pub(super) channel: Basis,
    pub(super) position: Basis,
    /// `o x (positions * channels)`, of output power 1 (or zero).
    pub(super) matrix: Matrix,
    pub(super) covariance: Matrix,
    /// Output power of the weight before scaling; 0 if nothing ever leaves the layer.
    pub(super) power: f64,
}

impl<'a> Whitened<'a> {
    pub(super) fn new(target: Target<'a>, mixing: Mixing) -> Result<Self, NotConverged> {
        let (outputs, channels) = (target.matrix.nrows(), target.shape[1]);
        let positions: usize = target.shape[2..].iter().product();
        let d = channels * positions;
        let column = |k: usize| k % channels * positions + k / channels;
        let at = |a: usize, b: usize| target.covariance[(column(a), column(b))];
        let shared = Matrix::from_fn(channels, channels, |a, b| {
            let mean = |s: usize| at(s * channels + a, s * channels + b);
            let kept = a == b || mixing != Mixing::Positions;
            if kept { (0..positions).map(mean).sum::<f64>() / positions as f64 } else { 0.0 }
        });
        let total = trace(shared.as_ref());
        let window = Matrix::from_fn(positions, positions, |s, t| {
            let sum = || (0..channels).map(|i| at(s * channels + i, t * channels + i)).sum::<f64>();
            match mixing {
                Mixing::Channels => f64::from(u8::from(s == t)),
                _ if total > 0.0 => sum() / total,
                _ => 0.0,
            }
        });
        let basis =
            |mean: &Matrix| roots(mean.as_ref(), FLOOR).map(|(root, inverse)| Basis { root, inverse });
        let (channel, position) = (basis(&shared)?, basis(&window)?);
        let rows = Matrix::from_fn(d, outputs, |k, o| target.matrix[(o, column(k))]);
        let mut matrix = both(&channel.root, &position.root, &rows).transpose().to_owned();
        let plain = Matrix::from_fn(d, d, at);
        let half = both(&channel.inverse, &position.inverse, &plain).transpose().to_owned();
        let covariance = both(&channel.inverse, &position.inverse, &half);
        let power = inner(product(matrix.as_ref(), covariance.as_ref()).as_ref(), matrix.as_ref());
        if power > 0.0 && power.is_finite() {
            matrix /= faer::Scale(power.sqrt());
        } else {
            matrix = Matrix::zeros(outputs, d);
        }
        Ok(Self { target, outputs, channels, positions, channel, position, matrix, covariance, power })
    }

    /// The best last factor for inner rows `map`. `rounding` is the share of its own power that each row varies by.
    pub(super) fn last_factor(&self, map: &Matrix, rounding: f64) -> LastFactor {
        let seen = product(map.as_ref(), self.covariance.as_ref());
        let inside = product(seen.as_ref(), map.transpose());
        let cross = product(seen.as_ref(), self.matrix.transpose());
        let mut normal = inside.clone();
        for r in 0..map.nrows() {
            normal[(r, r)] += rounding.max(1e-12) * map.row(r).squared_norm_l2();
        }
        let mut last = solve(normal.as_ref(), cross.as_ref());
        let explained = inner(last.as_ref(), cross.as_ref());
        let outputs = product(inside.as_ref(), last.as_ref());
        let kept = inner(outputs.as_ref(), last.as_ref());
        let whole = f64::from(u8::from(self.matrix.norm_max() > 0.0));
        let squared_error = (whole - 2.0 * explained + kept).max(0.0);
        let outputs = product(last.transpose(), outputs.as_ref());
        let shared = product(last.transpose(), cross.as_ref());
        last *= faer::Scale(self.power.max(0.0).sqrt());
        LastFactor { matrix: last.transpose().to_owned(), squared_error, whole, outputs, shared }
    }
}

/// The factor that maps inner rows to outputs.
pub(super) struct LastFactor {
    /// `o x rows`, in the units of the target.
    pub(super) matrix: Matrix,
    /// Relative to the power of the output.
    pub(super) squared_error: f64,
    /// Power of the output: 1, or 0 for a zero weight.
    whole: f64,
    /// Covariance of the outputs that it gives ...
    outputs: Matrix,
    /// ... and of those with the wanted ones, in the same unit.
    shared: Matrix,
}

impl LastFactor {
    /// Relative RMS error of the output.
    pub(super) fn error(&self) -> f64 {
        self.squared_error.sqrt()
    }

    /// Prepares for a detour through fewer channels.
    pub(super) fn truncations(self) -> Result<Truncations, NotConverged> {
        let found = eigen(self.outputs.as_ref())?;
        let image = product(self.shared.as_ref(), found.vectors.as_ref());
        let gain = |r: usize| {
            2.0 * inner(found.vectors.as_ref().subcols(r, 1), image.as_ref().subcols(r, 1)) - found.values[r]
        };
        let mut squared_errors = vec![self.whole];
        let mut left = self.whole;
        for r in 0..found.values.len() {
            left = (left - gain(r)).max(0.0);
            squared_errors.push(left);
        }
        Ok(Truncations { matrix: self.matrix, directions: found.vectors, squared_errors })
    }
}

/// A last factor, and its best approximations of each rank: the top directions of the outputs, as in [`super::low_rank`].
pub(super) struct Truncations {
    matrix: Matrix,
    directions: Matrix,
    squared_errors: Vec<f64>,
}

impl Truncations {
    /// Relative RMS error of the output, through this rank or without one.
    pub(super) fn error(&self, rank: Option<usize>) -> f64 {
        let last = self.squared_errors.len() - 1;
        self.squared_errors[rank.map_or(last, |rank| rank.min(last))].sqrt()
    }

    /// The cores after those that give the inner rows: to the outputs, at once or through `rank` channels (the bond `through`). `core` makes a core of
    /// a matrix on the inner rows, whose rows are the mode that it is told.
    pub(super) fn cores(
        &self,
        rank: Option<usize>,
        through: Mode,
        core: impl Fn(&Matrix, Mode) -> Core,
    ) -> Vec<Core> {
        let outputs = self.matrix.nrows();
        let Some(rank) = rank.map(|rank| rank.clamp(1, outputs.max(1))) else {
            return vec![core(&self.matrix, Mode::Output(0))];
        };
        let up = self.directions.get(.., ..rank).to_owned();
        let inner = product(up.transpose(), self.matrix.as_ref());
        let last = Core { tensor: to_tensor(&up, &[outputs, rank]), modes: vec![Mode::Output(0), through] };
        vec![core(&inner, through), last]
    }
}

/// `(positions (x) channels) a`.
fn both(channels: &Matrix, positions: &Matrix, a: &Matrix) -> Matrix {
    let (n, windows) = (channels.nrows(), positions.nrows());
    let mut mixed = Matrix::zeros(a.nrows(), a.ncols());
    for s in 0..windows {
        add_product(mixed.as_mut().subrows_mut(s * n, n), channels.as_ref(), a.as_ref().subrows(s * n, n));
    }
    let mut out = Matrix::zeros(a.nrows(), a.ncols());
    for j in 0..a.ncols() {
        let (from, to) = (mixed.col_as_slice(j), out.col_as_slice_mut(j));
        for (s, block) in to.chunks_exact_mut(n.max(1)).enumerate() {
            for (t, other) in from.chunks_exact(n.max(1)).enumerate() {
                let weight = positions[(s, t)];
                if weight != 0.0 {
                    block.iter_mut().zip(other).for_each(|(sum, x)| *sum += weight * x);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{covariance, matrix};
    use super::*;

    #[test]
    fn output_power_survives_the_change_of_basis_and_means_are_white() {
        let (m, c, shape) = (matrix(4, 3 * 6, 1), covariance(18, 2), [4, 3, 2, 3]);
        let target = Target::new(&shape, &m, &c);
        let expected = inner(product(m.as_ref(), c.as_ref()).as_ref(), m.as_ref());
        for mixing in [Mixing::Both, Mixing::Channels, Mixing::Positions] {
            let white = Whitened::new(target, mixing).unwrap();
            assert!((white.power - expected).abs() <= 1e-9 * expected, "{mixing:?}");
            let unit = inner(
                product(white.matrix.as_ref(), white.covariance.as_ref()).as_ref(),
                white.matrix.as_ref(),
            );
            assert!((unit - 1.0).abs() < 1e-9);
            if mixing == Mixing::Channels {
                for (a, b) in [(0, 0), (0, 1), (2, 1)] {
                    let mean = (0..6).map(|s| white.covariance[(s * 3 + a, s * 3 + b)]).sum::<f64>() / 6.0;
                    assert!((mean - f64::from(u8::from(a == b))).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn zeros_and_extreme_scales_stay_finite() {
        for scale in [0.0, 1e-60, 1e60] {
            let c = Matrix::from_fn(8, 8, |i, j| if i == j { scale } else { 0.0 });
            let m = matrix(3, 8, 1);
            let white = Whitened::new(Target::new(&[3, 2, 2, 2], &m, &c), Mixing::Both).unwrap();
            assert!(white.matrix.norm_max().is_finite() && white.covariance.norm_max().is_finite());
            assert_eq!(white.power > 0.0, scale > 0.0);
        }
    }
}
