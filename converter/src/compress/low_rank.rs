//! Low rank: `W = B A`, two dense stages (or a convolution to `rank` channels, then 1x1).
//!
//! The best rank-r approximation in the metric of the input covariance `C`: `B` are the top `r` eigenvectors of `M C M'`, the
//! output covariance, and `A = B' M` (principal components of the layer's output; Eckart and Young 1936 in the whitened space).
//! One decomposition serves every rank: the discarded eigenvalues are the squared error.

use super::{Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Eigen, NotConverged, eigen, product};

/// All ranks of one layer at once.
#[derive(Clone, Debug)]
pub struct LowRank<'a> {
    target: Target<'a>,
    outputs: Eigen,
}

impl<'a> LowRank<'a> {
    /// Decomposes the output covariance of `target`.
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let colored = product(target.matrix.as_ref(), target.covariance.as_ref());
        let outputs = eigen(product(colored.as_ref(), target.matrix.transpose()).as_ref())?;
        Ok(Self { target, outputs })
    }

    /// Squared output error of each rank, rank 0 first; the first entry is the whole output's power.
    pub fn squared_errors(&self) -> Vec<f64> {
        tails(&self.outputs.values)
    }

    /// The factors of one rank (at most the smaller side of the matrix, at least 1).
    pub fn network(&self, rank: usize) -> Network {
        let (o, d) = (self.target.matrix.nrows(), self.target.matrix.ncols());
        let rank = rank.clamp(1, o.min(d).max(1));
        let up = self.outputs.vectors.get(.., ..rank).to_owned();
        let down = product(up.transpose(), self.target.matrix.as_ref());
        let shape = self.target.shape;
        let window = [Mode::Bond(0), Mode::Input(0), Mode::KernelHeight, Mode::KernelWidth];
        let down_shape = [&[rank], &shape[1..]].concat();
        Network {
            format: if shape[2..].iter().all(|extent| *extent == 1) { "low-rank" } else { "tucker" },
            shape: shape.to_vec(),
            cores: vec![
                Core { tensor: to_tensor(&down, &down_shape), modes: window[..shape.len()].to_vec() },
                Core { tensor: to_tensor(&up, &[o, rank]), modes: vec![Mode::Output(0), Mode::Bond(0)] },
            ],
            contraction: vec![0, 1],
            row_scale: None,
        }
    }
}

/// `out[r]` = sum of `values[r..]`.
pub(super) fn tails(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; values.len() + 1];
    for (k, value) in values.iter().enumerate().rev() {
        sums[k] = sums[k + 1] + value;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::tests::{covariance, error, matrix};
    use super::*;
    use crate::compress::network::reconstruct;
    use crate::linalg::Matrix;

    #[test]
    fn full_rank_reproduces_and_error_falls_with_rank() {
        let (m, c) = (matrix(8, 12, 1), covariance(12, 2));
        for shape in [vec![8, 12], vec![8, 12, 1, 1], vec![8, 3, 2, 2]] {
            let target = Target::new(&shape, &m, &c);
            let all = LowRank::new(target).unwrap();
            let predicted = all.squared_errors();
            for rank in 1..=8 {
                let dense = reconstruct(&all.network(rank)).unwrap();
                assert_eq!(dense.shape, shape);
                let measured = error(target, &dense);
                assert!((measured - predicted[rank]).abs() <= 1e-5 * predicted[0], "{rank}");
                assert!(predicted[rank] <= predicted[rank - 1]);
            }
            assert!(predicted[8] <= 1e-9 * predicted[0]);
        }
    }

    #[test]
    fn whitening_beats_plain_truncation_in_output_error() {
        let (m, c) = (matrix(10, 10, 3), covariance(10, 4));
        let plain = Matrix::identity(10, 10);
        let shape = [10, 10];
        let aware = Target::new(&shape, &m, &c);
        let blind = Target { covariance: &plain, ..aware };
        for rank in 1..8 {
            let of =
                |target| error(aware, &reconstruct(&LowRank::new(target).unwrap().network(rank)).unwrap());
            assert!(of(aware) < of(blind), "rank {rank}");
        }
    }

    #[test]
    fn zero_and_deficient_weights_stay_finite() {
        let c = covariance(6, 5);
        for m in [Matrix::zeros(4, 6), Matrix::from_fn(4, 6, |i, j| ((i + 1) * (j + 1)) as f64 * 1e-30)] {
            let all = LowRank::new(Target::new(&[4, 6], &m, &c)).unwrap();
            assert!(all.squared_errors()[1] <= 1e-9 * all.squared_errors()[0] + f64::MIN_POSITIVE);
            assert!(reconstruct(&all.network(4)).unwrap().data.iter().all(|x| x.is_finite()));
        }
    }
}
