//! Compression formats: one file a format.
//!
//! Takes the linear map that a layer should be ([`Target`]) and ranks ([`Choice`]); gives a [`Weight`]. A format never changes
//! the topology of a graph: `lower` expands its network later. The error that every format minimises is that of the layer's *output*,
//! `trace((M - E) C (M - E)')` with the covariance `C` of the layer's input; with `C = I` it is the plain weight error.

pub mod low_rank;
pub mod network;
pub mod tucker;

use crate::graph::{Tensor, Weight};
use crate::linalg::{Matrix, NotConverged};

/// The linear map that a factorised weight has to approximate.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Shape of the dense weight: `[o, i]` or `[o, i, kh, kw]`.
    pub shape: &'a [usize],
    /// `o x (i * kh * kw)`, columns in row-major order of `i, kh, kw`.
    pub matrix: &'a Matrix,
    /// Positive definite covariance of the layer's input rows (im2col), in the order of the columns of `matrix`.
    pub covariance: &'a Matrix,
}

/// A format with its ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Choice {
    /// Not factorised.
    Dense,
    /// `W = B A` with this inner dimension; the first factor carries the kernel window.
    LowRank(usize),
    /// Tucker-2 of a convolution: input channels to the first rank, window to the second rank, then the output channels. Without
    /// a second rank the window maps to the output channels directly.
    Tucker(usize, Option<usize>),
}

impl Choice {
    /// The ranks in the order of the stages; empty for a dense layer.
    pub fn ranks(self) -> Vec<usize> {
        match self {
            Self::Dense => Vec::new(),
            Self::LowRank(rank) => vec![rank],
            Self::Tucker(input, output) => [Some(input), output].into_iter().flatten().collect(),
        }
    }
}

/// The best weight of this format and rank for `target`.
pub fn build(choice: Choice, target: Target<'_>) -> Result<Weight, NotConverged> {
    Ok(match choice {
        Choice::Dense => Weight::Dense(to_tensor(target.matrix, target.shape)),
        Choice::LowRank(rank) => Weight::Network(low_rank::LowRank::new(target)?.network(rank)),
        Choice::Tucker(input, output) => {
            Weight::Network(tucker::InputBasis::new(target)?.refined(input, output)?.network(output))
        }
    })
}

/// The dense tensor behind a weight.
pub fn dense(weight: &Weight) -> Result<Tensor, network::Error> {
    match weight {
        Weight::Dense(tensor) => Ok(tensor.clone()),
        Weight::Network(network) => network::reconstruct(network),
    }
}

/// A weight tensor as the matrix `o x everything else`.
pub fn to_matrix(tensor: &Tensor) -> Matrix {
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let columns = tensor.len().checked_div(rows).unwrap_or(0);
    Matrix::from_fn(rows, columns, |i, j| f64::from(tensor.data[i * columns + j]))
}

/// A matrix as a tensor of `shape`, row-major.
pub fn to_tensor(matrix: &Matrix, shape: &[usize]) -> Tensor {
    let data = (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)] as f32));
    Tensor::new(shape.to_vec(), data.collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::linalg::{inner, product};

    /// Repeatable numbers in -1..1.
    pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    pub(crate) fn matrix(rows: usize, columns: usize, seed: u64) -> Matrix {
        let data = noise(rows * columns, seed);
        Matrix::from_fn(rows, columns, |i, j| f64::from(data[i * columns + j]))
    }

    /// Correlated, with a spectrum over some decades.
    pub(crate) fn covariance(n: usize, seed: u64) -> Matrix {
        let mix = matrix(n, n, seed);
        let scaled = Matrix::from_fn(n, n, |i, j| mix[(i, j)] * (-0.3 * j as f64).exp());
        let mut c = product(scaled.as_ref(), scaled.transpose());
        for i in 0..n {
            c[(i, i)] += 1e-4;
        }
        c
    }

    /// `trace((M - E) C (M - E)')`.
    pub(crate) fn error(target: Target<'_>, dense: &Tensor) -> f64 {
        let difference = target.matrix - to_matrix(dense);
        inner(product(difference.as_ref(), target.covariance.as_ref()).as_ref(), difference.as_ref())
    }
}
