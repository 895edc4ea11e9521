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
    use crate::graph::{ActivationRange, Conv, Dense, Graph, Node, Op};
    use crate::linalg::{inner, product};
    use faer::Scale;

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

    /// Every form of such a layer, at ranks that it has and that it cannot have.
    fn every_choice(axes: usize) -> Vec<Choice> {
        let mut all = Vec::new();
        for rank in [0, 1, 2, 3, 1000] {
            all.extend([Choice::LowRank(rank), Choice::Kronecker(2, rank), Choice::Kronecker(rank, 2)]);
            if axes == 4 {
                all.extend([
                    Choice::Cp(rank),
                    Choice::OneWay(rank),
                    Choice::Depthwise(rank, None),
                    Choice::Depthwise(2, Some(rank)),
                    Choice::Tucker(rank, None),
                    Choice::Tucker(2, Some(rank)),
                    Choice::FullTucker(rank, rank, None),
                    Choice::FullTucker(2, rank, Some(rank)),
                ]);
            }
        }
        all
    }

    /// A strided, padded, dilated convolution with bias, or rows of a dense layer: what a factorised weight gives and what its dense one gives.
    fn executed(weight: Weight, input: &[usize], activation: ActivationRange) -> Vec<f32> {
        let bias = Some(noise(weight.shape()[0], 9));
        let op = if input.len() == 2 {
            Op::Dense(Dense { weight, bias, activation })
        } else {
            // Without a height there is nothing to stride or pad along it.
            let pads = if input.len() == 4 { [2, 1, 1, 3] } else { [0, 1, 0, 3] };
            let strides = if input.len() == 4 { [2, 3] } else { [1, 3] };
            Op::Conv(Conv { weight, bias, strides, pads, dilations: [1, 2], groups: 1, activation })
        };
        let mut graph = Graph::default();
        let output = op.output_shape(&[input]).unwrap();
        let (x, y) = (graph.add_value("x", input.to_vec()), graph.add_value("y", output));
        (graph.inputs, graph.outputs) = (vec![x], vec![y]);
        graph.nodes = vec![Node { name: "layer".into(), op, inputs: vec![x], output: y }];
        let lowered = crate::lower::lower(&graph).unwrap();
        lowered.check().unwrap();
        let samples = noise(2 * input.iter().product::<usize>(), 3);
        evaluate(&lowered, &[samples], 2, &lowered.outputs).remove(0)
    }

    #[test]
    fn every_form_of_every_shape_runs_as_its_dense_weight() {
        let activation = ActivationRange { low: -0.5, high: 2.0 };
        for (shape, inputs) in [
            (vec![6, 4, 3, 3], vec![vec![1, 4, 7, 8]]),
            (vec![8, 6, 1, 3], vec![vec![1, 6, 5, 9], vec![1, 6, 9]]),
            (vec![4, 4, 3, 1], vec![vec![1, 4, 6, 5]]),
            (vec![1, 4, 3, 3], vec![vec![1, 4, 7, 8]]),
            (vec![4, 1, 3, 3], vec![vec![1, 1, 7, 8]]),
            (vec![1, 1, 1, 1], vec![vec![1, 1, 1, 1], vec![1, 1, 1]]),
            (vec![6, 4, 1, 1], vec![vec![1, 4, 5, 6], vec![1, 4, 5]]),
            (vec![6, 4], vec![vec![3, 4]]),
            (vec![1, 4], vec![vec![1, 4]]),
            (vec![4, 1], vec![vec![2, 1]]),
        ] {
            let columns: usize = shape[1..].iter().product();
            let (m, c) = (matrix(shape[0], columns, 1), covariance(columns, 2));
            for choice in every_choice(shape.len()) {
                let weight = build(choice, Target::new(&shape, &m, &c)).unwrap();
                let whole = Weight::Dense(dense(&weight).unwrap());
                for input in &inputs {
                    let expected = executed(whole.clone(), input, activation);
                    let given = executed(weight.clone(), input, activation);
                    assert!(expected.iter().any(|x| *x != 0.0));
                    assert!(
                        metrics::relative_rms(&expected, &given) < 1e-4,
                        "{shape:?} {input:?} {choice:?}: {}",
                        metrics::relative_rms(&expected, &given)
                    );
                }
            }
        }
    }

    #[test]
    fn every_form_of_every_weight_is_finite_and_exact_at_full_rank() {
        for shape in
            [vec![6, 4, 3, 3], vec![8, 6, 1, 3], vec![1, 4, 3, 1], vec![4, 1, 1, 1], vec![8, 4], vec![1, 1]]
        {
            let (rows, columns) = (shape[0], shape[1..].iter().product());
            let (plain, c) = (matrix(rows, columns, 1), covariance(columns, 2));
            let one = Matrix::from_fn(rows, columns, |i, j| ((i + 1) * (j + 1)) as f64);
            // Orders of magnitude of weights and inputs.
            let sizes = [(0, 0), (-30, 0), (30, 0), (0, -30), (0, 30), (-30, 30), (30, -30), (30, 30)];
            let decades = |k: usize, n: usize| 10f64.powf(-30.0 + 60.0 * k as f64 / n as f64);
            let spread = Matrix::from_fn(rows, columns, |i, j| plain[(i, j)] * decades(i, rows));
            let across = Matrix::from_fn(rows, columns, |i, j| plain[(i, j)] * decades(j, columns));
            for ((weight, input), m) in sizes
                .into_iter()
                .flat_map(|size| [&plain, &one].map(|m| (size, m)))
                .chain([((0, 0), &Matrix::zeros(rows, columns)), ((0, 0), &spread), ((0, 0), &across)])
            {
                let (m, c) = (m * Scale(10f64.powi(weight)), &c * Scale(10f64.powi(2 * input)));
                let target = Target::new(&shape, &m, &c);
                let power = error(target, &to_tensor(&Matrix::zeros(rows, columns), &shape));
                for choice in every_choice(shape.len()) {
                    let built = build(choice, target).unwrap();
                    if let Weight::Network(network) = &built {
                        let numbers = network.cores.iter().flat_map(|core| &core.tensor.data);
                        assert!(numbers.into_iter().all(|x| x.is_finite()), "{shape:?} {choice:?}");
                    }
                    let lost = error(target, &dense(&built).unwrap());
                    let full = match choice {
                        Choice::LowRank(rank) | Choice::Cp(rank) | Choice::OneWay(rank) => rank == 1000,
                        Choice::Depthwise(rank, None) | Choice::Tucker(rank, None) => rank == 1000,
                        Choice::FullTucker(rank, _, None) | Choice::Kronecker(2, rank) => rank == 1000,
                        _ => false,
                    };
                    let most = if full { 4e-4 } else { 1.001 };
                    assert!(
                        lost <= most * power,
                        "{shape:?} weights 1e{weight}, inputs 1e{input}, {choice:?}: {lost} of {power}"
                    );
                }
            }
        }
    }
}
