//! Compression formats: one file a format.
//!
//! Takes the linear map that a layer should be ([`Target`]) and ranks ([`Choice`]); gives a [`Weight`]. A format never changes
//! the topology of a graph: `lower` expands its network later. The error that every format minimises is that of the layer's *output*,
//! `trace((M - E) C (M - E)')` with the covariance `C` of the layer's input; with `C = I` it is the plain weight error.

pub mod algebra;
pub mod cp;
pub mod depthwise;
pub mod full_tucker;
mod gauss_newton;
pub mod kronecker;
pub mod low_rank;
pub mod network;
pub mod one_way;
pub mod prune;
pub mod structure;
pub mod tensor_train;
pub mod tucker;
mod whitened;

use crate::graph::{Network, Tensor, Weight};
use crate::linalg::{Matrix, NotConverged};
use kronecker::Blocks;

/// The linear map that a factorised weight has to approximate.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Shape of the dense weight: `[o, i]` or `[o, i, kh, kw]`.
    pub shape: &'a [usize],
    /// `o x (i * kh * kw)`, columns in row-major order of `i, kh, kw`.
    pub matrix: &'a Matrix,
    /// Positive definite covariance of the layer's input rows (im2col), in the order of the columns of `matrix`.
    pub covariance: &'a Matrix,
    /// Factors of the same format and ranks for a similar target, which iterative algorithms may start from.
    pub start: Option<&'a Network>,
}

impl<'a> Target<'a> {
    /// A target without a start.
    pub fn new(shape: &'a [usize], matrix: &'a Matrix, covariance: &'a Matrix) -> Self {
        Self { shape, matrix, covariance, start: None }
    }
}

/// A network that was fitted to a target.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The factors.
    pub network: Network,
    /// Relative RMS error of the layer's output.
    pub error: f64,
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
    /// Canonical polyadic: this many terms, each a vector over channels, a window and a vector over outputs.
    Cp(usize),
    /// A column of the window to this many channels, then a row of it to the output channels.
    OneWay(usize),
    /// This many windows for each input channel, then 1x1, through a rank if there is one.
    Depthwise(usize, Option<usize>),
    /// Tucker with a rank over the window's positions too: input channels, windows, output channels (or straight to those).
    FullTucker(usize, usize, Option<usize>),
    /// A Kronecker sum of `n`-dimensional numbers: `n`, and the number of terms.
    Kronecker(usize, usize),
    /// The network that [`Target::start`] holds, as it is: a structure that was found in the weight.
    Given,
}

impl Choice {
    /// The ranks in the order of the stages; empty for a dense layer.
    pub fn ranks(self) -> Vec<usize> {
        match self {
            Self::Dense | Self::Given => Vec::new(),
            Self::LowRank(rank) | Self::Cp(rank) | Self::OneWay(rank) => vec![rank],
            Self::Kronecker(n, terms) => vec![n, terms],
            Self::Tucker(first, second) | Self::Depthwise(first, second) => {
                [Some(first), second].into_iter().flatten().collect()
            }
            Self::FullTucker(input, window, output) => {
                [Some(input), Some(window), output].into_iter().flatten().collect()
            }
        }
    }
}

/// The best weight of this format and rank for `target`.
pub fn build(choice: Choice, target: Target<'_>) -> Result<Weight, NotConverged> {
    Ok(match choice {
        Choice::Dense => Weight::Dense(to_tensor(target.matrix, target.shape)),
        Choice::Given => match target.start {
            Some(network) => Weight::Network(network.clone()),
            None => Weight::Dense(to_tensor(target.matrix, target.shape)),
        },
        Choice::LowRank(rank) => Weight::Network(low_rank::LowRank::new(target)?.network(rank)),
        Choice::Cp(rank) => Weight::Network(cp::Cp::new(target)?.fit(rank)?.network),
        Choice::OneWay(rank) => Weight::Network(one_way::OneWay::new(target)?.fit(rank).network),
        Choice::Depthwise(filters, rank) => {
            Weight::Network(depthwise::Depthwise::new(target)?.fit(filters)?.fit(rank).network)
        }
        Choice::FullTucker(input, window, output) => {
            let restricted = full_tucker::FullTucker::new(target)?.restrict(input, window)?;
            Weight::Network(restricted.fit(output).network)
        }
        Choice::Kronecker(n, terms) => match Blocks::of(n, target.shape) {
            Some(blocks) => Weight::Network(kronecker::nearest(target, blocks, terms)?.network),
            None => Weight::Dense(to_tensor(target.matrix, target.shape)),
        },
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
    use crate::evaluate::{evaluate, metrics};
    use crate::graph::{ActivationRange, Conv, Graph, Node, Op};
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

    /// Shape and matrix of a layer of a small trained network.
    pub(crate) fn real_layer(name: &str) -> (Vec<usize>, Matrix) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/resnet8.onnx");
        let graph = crate::import::import(std::path::Path::new(path), &Default::default()).unwrap();
        let node = graph.nodes.iter().find(|node| node.name == name).unwrap();
        let tensor = node.op.dense_weight().unwrap();
        (tensor.shape.clone(), to_matrix(tensor))
    }

    /// Stated errors hold and fall, and what is executed is what the network stands for. `fits` in falling order of error.
    pub(crate) fn check_fits(target: Target<'_>, fits: &[Fit]) {
        let power =
            error(target, &Tensor::new(target.shape.to_vec(), vec![0.0; target.shape.iter().product()]));
        let mut last = f64::INFINITY;
        for fit in fits {
            let dense = network::reconstruct(&fit.network).unwrap();
            assert!(dense.data.iter().all(|x| x.is_finite()));
            let measured = (error(target, &dense) / power).sqrt();
            assert!((measured - fit.error).abs() <= 1e-4 + 1e-3 * fit.error, "{measured} {}", fit.error);
            assert!(fit.error <= last + 1e-4, "{} after {last}", fit.error);
            last = fit.error;
            let run = |weight: Weight| {
                let conv = Conv {
                    weight,
                    bias: None,
                    strides: [1, 1],
                    pads: [1, 0, 1, 0],
                    dilations: [1, 1],
                    groups: 1,
                    activation: ActivationRange::NONE,
                };
                let (op, input) = (Op::Conv(conv), [1, target.shape[1], 5, 6]);
                let mut graph = Graph::default();
                let output = op.output_shape(&[&input]).unwrap();
                let (x, y) = (graph.add_value("x", input.to_vec()), graph.add_value("y", output));
                (graph.inputs, graph.outputs) = (vec![x], vec![y]);
                graph.nodes = vec![Node { name: "layer".into(), op, inputs: vec![x], output: y }];
                let lowered = crate::lower::lower(&graph).unwrap();
                evaluate(&lowered, &[noise(target.shape[1] * 30, 3)], 1, &lowered.outputs).remove(0)
            };
            let (whole, chain) = (run(Weight::Dense(dense)), run(Weight::Network(fit.network.clone())));
            assert!(metrics::relative_rms(&whole, &chain) < 1e-4);
        }
    }

    /// `trace((M - E) C (M - E)')`.
    pub(crate) fn error(target: Target<'_>, dense: &Tensor) -> f64 {
        let difference = target.matrix - to_matrix(dense);
        inner(product(difference.as_ref(), target.covariance.as_ref()).as_ref(), difference.as_ref())
    }
}
