//! Tucker-2 of a convolution (Kim et al. 2016): 1x1 to fewer channels, the window on those, 1x1 to the output channels.
//!
//! The input basis comes from the channel covariance: with `H = C_channels^(1/2)`, its rows are the top left singular vectors of
//! the weight unfolded by input channel after multiplying by `H` (the higher-order SVD in the whitened space). For the basis `P` the best window
//! is `K = M C P' (P C P')^-1` in the full metric over channels and positions, and its output side is truncated as in `low_rank`.

use faer::MatRef;

use super::low_rank::tails;
use super::{Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Eigen, Matrix, NotConverged, eigen, inner, product, roots, solve};

/// The input side of every rank.
#[derive(Clone, Debug)]
pub struct InputBasis<'a> {
    target: Target<'a>,
    /// `i x i`; the first `r` rows map the input to rank `r`.
    rows: Matrix,
}

/// One input rank; all output ranks at once.
#[derive(Clone, Debug)]
pub struct Projected<'a> {
    target: Target<'a>,
    /// `r x i`.
    input: Matrix,
    /// `o x (r * kh * kw)`.
    window: Matrix,
    outputs: Eigen,
    /// Squared output error that is due to the input rank alone.
    lost: f64,
    power: f64,
}

impl<'a> InputBasis<'a> {
    /// Finds the input basis of a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let channels = target.shape[1];
        let positions: usize = target.shape[2..].iter().product();
        let shared = Matrix::from_fn(channels, channels, |a, b| {
            (0..positions).map(|s| target.covariance[(a * positions + s, b * positions + s)]).sum::<f64>()
                / positions as f64
        });
        let (root, inverse) = roots(shared.as_ref(), 1e-9)?;
        // Unfolded by input channel: one row a channel, columns (output, position).
        let outputs = target.matrix.nrows();
        let unfolded = Matrix::from_fn(channels, outputs * positions, |a, k| {
            target.matrix[(k / positions, a * positions + k % positions)]
        });
        let whitened = product(root.as_ref(), unfolded.as_ref());
        let basis = eigen(product(whitened.as_ref(), whitened.transpose()).as_ref())?.vectors;
        Ok(Self { target, rows: product(basis.transpose(), inverse.as_ref()) })
    }

    /// Restricts the input to `rank` channels and refits the window.
    pub fn project(&self, rank: usize) -> Result<Projected<'a>, NotConverged> {
        let channels = self.target.shape[1];
        let positions: usize = self.target.shape[2..].iter().product();
        let rank = rank.clamp(1, channels.max(1));
        let input = self.rows.get(..rank, ..).to_owned();
        let seen = restrict(&input, self.target.covariance.as_ref(), positions);
        let covariance = restrict(&input, seen.transpose(), positions);
        let cross = product(seen.as_ref(), self.target.matrix.transpose());
        let window = solve(covariance.as_ref(), cross.as_ref()).transpose().to_owned();
        let colored = product(self.target.matrix.as_ref(), self.target.covariance.as_ref());
        let power = inner(colored.as_ref(), self.target.matrix.as_ref());
        let kept = product(product(window.as_ref(), covariance.as_ref()).as_ref(), window.transpose());
        // |M - K P|^2, which is |M|^2 - |K P|^2 only where `solve` needed no ridge.
        let lost = power - 2.0 * inner(window.as_ref(), cross.transpose())
            + (0..kept.nrows()).map(|i| kept[(i, i)]).sum::<f64>();
        Ok(Projected {
            target: self.target,
            input,
            window,
            outputs: eigen(kept.as_ref())?,
            lost: lost.max(0.0),
            power,
        })
    }
}

/// `(basis (x) I) a`: maps the rows of `a`, indexed by channel and position, to rank and position.
fn restrict(basis: &Matrix, a: MatRef<'_, f64>, positions: usize) -> Matrix {
    let mut out = Matrix::zeros(basis.nrows() * positions, a.ncols());
    for s in 0..positions {
        let plane = Matrix::from_fn(basis.ncols(), a.ncols(), |i, j| a[(i * positions + s, j)]);
        let mapped = product(basis.as_ref(), plane.as_ref());
        for j in 0..a.ncols() {
            for r in 0..basis.nrows() {
                out[(r * positions + s, j)] = mapped[(r, j)];
            }
        }
    }
    out
}

impl Projected<'_> {
    /// Squared output error of each output rank, rank 0 first; the last entry is that of the full output rank.
    pub fn squared_errors(&self) -> Vec<f64> {
        tails(&self.outputs.values).into_iter().map(|tail| tail + self.lost).collect()
    }

    /// Squared output of the dense layer in the same metric.
    pub fn power(&self) -> f64 {
        self.power
    }

    /// The cores for this output rank, or with the window mapping straight to the output channels.
    pub fn network(&self, output: Option<usize>) -> Network {
        let [o, _, kh, kw] = self.target.shape else { return self.two_stages() };
        let Some(output) = output else { return self.two_stages() };
        let output = output.clamp(1, (*o).max(1));
        let up = self.outputs.vectors.get(.., ..output).to_owned();
        let inner = product(up.transpose(), self.window.as_ref());
        let mut network = self.two_stages();
        network.cores[1] = Core {
            tensor: to_tensor(&inner, &[output, self.input.nrows(), *kh, *kw]),
            modes: vec![Mode::Bond(1), Mode::Bond(0), Mode::KernelHeight, Mode::KernelWidth],
        };
        network.cores.push(Core {
            tensor: to_tensor(&up, &[*o, output]),
            modes: vec![Mode::Output(0), Mode::Bond(1)],
        });
        network.contraction.push(2);
        network
    }

    fn two_stages(&self) -> Network {
        let (shape, rank) = (self.target.shape, self.input.nrows());
        let window = [Mode::Output(0), Mode::Bond(0), Mode::KernelHeight, Mode::KernelWidth];
        Network {
            format: "tucker",
            shape: shape.to_vec(),
            cores: vec![
                Core {
                    tensor: to_tensor(&self.input, &[rank, shape[1]]),
                    modes: vec![Mode::Bond(0), Mode::Input(0)],
                },
                Core {
                    tensor: to_tensor(&self.window, &[&[shape[0], rank], &shape[2..]].concat()),
                    modes: window[..shape.len()].to_vec(),
                },
            ],
            contraction: vec![0, 1],
            row_scale: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{covariance, error, matrix};
    use super::*;
    use crate::compress::network::reconstruct;

    #[test]
    fn full_rank_reproduces_and_predicted_errors_hold() {
        let (m, c, shape) = (matrix(6, 5 * 9, 7), covariance(5 * 9, 8), [6, 5, 3, 3]);
        let target = Target { shape: &shape, matrix: &m, covariance: &c };
        let basis = InputBasis::new(target).unwrap();
        let power = basis.project(5).unwrap().squared_errors()[0];
        let mut last = f64::INFINITY;
        for input in 1..=5 {
            let projected = basis.project(input).unwrap();
            let predicted = projected.squared_errors();
            for output in 1..=6 {
                let dense = reconstruct(&projected.network(Some(output))).unwrap();
                assert!(
                    (error(target, &dense) - predicted[output]).abs() <= 1e-5 * power,
                    "{input} {output}"
                );
                assert!(predicted[output] <= predicted[output - 1]);
            }
            let open = reconstruct(&projected.network(None)).unwrap();
            assert!((error(target, &open) - predicted[6]).abs() <= 1e-5 * power);
            assert!(predicted[6] <= last * (1.0 + 1e-9) + 1e-12 * power, "input rank {input}");
            last = predicted[6];
        }
        assert!(last <= 1e-9 * power);
    }

    #[test]
    fn whitening_beats_plain_truncation_in_output_error() {
        let (m, c, shape) = (matrix(6, 6 * 4, 9), covariance(24, 10), [6, 6, 2, 2]);
        let plain = Matrix::identity(24, 24);
        let aware = Target { shape: &shape, matrix: &m, covariance: &c };
        let blind = Target { covariance: &plain, ..aware };
        let of = |target| {
            let network = InputBasis::new(target).unwrap().project(3).unwrap().network(Some(3));
            error(aware, &reconstruct(&network).unwrap())
        };
        assert!(of(aware) < of(blind));
    }

    #[test]
    fn zero_weight_gives_zeros() {
        let (m, c, shape) = (Matrix::zeros(4, 12), covariance(12, 1), [4, 3, 2, 2]);
        let target = Target { shape: &shape, matrix: &m, covariance: &c };
        let network = InputBasis::new(target).unwrap().project(2).unwrap().network(Some(2));
        assert!(reconstruct(&network).unwrap().data.iter().all(|x| *x == 0.0));
    }
}
