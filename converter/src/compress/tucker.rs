//! Tucker-2 of a convolution (Kim et al. 2016, arXiv 1511.06530): 1x1 to fewer channels, the window on those, 1x1 to the output channels.
//!
//! The input basis comes from the channel covariance: with `H = C_channels^(1/2)`, its rows are the top left singular vectors of
//! the weight unfolded by input channel after multiplying by `H` (the higher-order SVD in the whitened space). For the basis `P` the best window
//! is `K = M C P' (P C P')^-1` in the full metric over channels and positions, and its output side is truncated as in `low_rank`.
//! [`InputBasis::refined`] then alternates: the basis by conjugate gradients for the window at hand, the window for the basis.

use faer::{MatRef, Scale};

use super::low_rank::tails;
use super::{Target, to_tensor};
use crate::graph::{Core, Mode, Network, Tensor};
use crate::linalg::{
    Eigen, Matrix, NotConverged, add_product, eigen, inner, product, roots, solve, trace, unit_rows,
};

/// Sweeps of the refinement at most.
const SWEEPS: usize = 8;

/// Conjugate gradient steps in one sweep.
const STEPS: usize = 12;

/// Relative gain in squared error below which the refinement ends.
const LEAST_GAIN: f64 = 5e-3;

/// The target with columns in the order position, channel: one position's channels are a block.
#[derive(Clone, Debug)]
struct Blocks<'a> {
    shape: &'a [usize],
    channels: usize,
    positions: usize,
    matrix: Matrix,
    covariance: Matrix,
    /// `matrix * covariance`.
    colored: Matrix,
    /// Squared output.
    power: f64,
}

/// The input side of every rank.
#[derive(Clone, Debug)]
pub struct InputBasis<'a> {
    target: Blocks<'a>,
    /// `i x i`; the first `r` rows map the input to rank `r`.
    rows: Matrix,
}

/// One input rank; all output ranks at once.
#[derive(Clone, Debug)]
pub struct Projected<'b> {
    target: &'b Blocks<'b>,
    /// `r x i`.
    input: Matrix,
    /// `o x (positions * r)`.
    window: Matrix,
    outputs: Eigen,
    /// Squared output error that is due to the input rank alone.
    lost: f64,
}

impl<'a> Blocks<'a> {
    fn new(target: Target<'a>) -> Self {
        let channels = target.shape[1];
        let positions: usize = target.shape[2..].iter().product();
        let column = |k: usize| k % channels * positions + k / channels;
        let (matrix, covariance) = (target.matrix, target.covariance);
        let matrix = Matrix::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, column(j))]);
        let d = covariance.nrows();
        let covariance = Matrix::from_fn(d, d, |i, j| covariance[(column(i), column(j))]);
        let colored = product(matrix.as_ref(), covariance.as_ref());
        let power = inner(colored.as_ref(), matrix.as_ref());
        Self { shape: target.shape, channels, positions, matrix, covariance, colored, power }
    }

    /// `(I (x) basis) a`: maps every position's channels to the basis.
    fn restrict(&self, basis: &Matrix, a: MatRef<'_, f64>) -> Matrix {
        let rank = basis.nrows();
        let mut out = Matrix::zeros(rank * self.positions, a.ncols());
        for s in 0..self.positions {
            let block = a.subrows(s * self.channels, self.channels);
            add_product(out.as_mut().subrows_mut(s * rank, rank), basis.as_ref(), block);
        }
        out
    }

    /// `out = sum_s left_s right_s`, where `left_s` are the rows of `left`, and `right_s` the columns of `right`, of position `s`.
    fn diagonal_sum(&self, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Matrix {
        let rank = left.nrows() / self.positions;
        let mut sum = Matrix::zeros(rank, self.channels);
        for s in 0..self.positions {
            let block = right.subcols(s * self.channels, self.channels);
            add_product(sum.as_mut(), left.subrows(s * rank, rank), block);
        }
        sum
    }
}

impl<'a> InputBasis<'a> {
    /// Finds the input basis of a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let target = Blocks::new(target);
        let (channels, positions) = (target.channels, target.positions);
        let shared = Matrix::from_fn(channels, channels, |a, b| {
            let at = |s: usize| target.covariance[(s * channels + a, s * channels + b)];
            (0..positions).map(at).sum::<f64>() / positions as f64
        });
        let (root, inverse) = roots(shared.as_ref(), 1e-9)?;
        // Unfolded by input channel: sum over outputs and positions of the weight's outer products.
        let mut unfolded = Matrix::zeros(channels, channels);
        for s in 0..positions {
            let block = target.matrix.subcols(s * channels, channels);
            add_product(unfolded.as_mut(), block.transpose(), block);
        }
        let whitened = product(product(root.as_ref(), unfolded.as_ref()).as_ref(), root.as_ref());
        let basis = eigen(whitened.as_ref())?.vectors;
        Ok(Self { rows: product(basis.transpose(), inverse.as_ref()), target })
    }

    /// Restricts the input to `rank` channels and refits the window.
    pub fn project(&self, rank: usize) -> Result<Projected<'_>, NotConverged> {
        let rank = rank.clamp(1, self.target.channels.max(1));
        Projected::new(&self.target, self.rows.get(..rank, ..).to_owned())
    }

    /// The best factors found for these ranks: `project` followed by sweeps that lower the error in the full metric.
    pub fn refined(&self, rank: usize, output: Option<usize>) -> Result<Projected<'_>, NotConverged> {
        let mut best = self.project(rank)?;
        let kept = |projected: &Projected<'_>| {
            let errors = projected.squared_errors();
            errors[output.unwrap_or(errors.len() - 1).min(errors.len() - 1)]
        };
        for _ in 0..SWEEPS {
            let next = Projected::new(&self.target, best.better_input(output))?;
            let (now, then) = (kept(&next), kept(&best));
            if now.is_nan() || now >= then {
                break;
            }
            best = next;
            if then - now < LEAST_GAIN * then {
                break;
            }
        }
        Ok(best)
    }
}

impl<'b> Projected<'b> {
    /// The best window for an input basis (`r x i`), and the truncations of its output side.
    fn new(target: &'b Blocks<'b>, input: Matrix) -> Result<Self, NotConverged> {
        let seen = target.restrict(&input, target.covariance.as_ref());
        let covariance = target.restrict(&input, seen.transpose());
        let cross = target.restrict(&input, target.colored.transpose());
        let window = solve(covariance.as_ref(), cross.as_ref()).transpose().to_owned();
        let kept = product(product(window.as_ref(), covariance.as_ref()).as_ref(), window.transpose());
        // |M - K P|^2, which is |M|^2 - |K P|^2 only where `solve` needed no ridge.
        let lost = target.power - 2.0 * inner(window.as_ref(), cross.transpose()) + trace(kept.as_ref());
        Ok(Self { target, input, window, outputs: eigen(kept.as_ref())?, lost: lost.max(0.0) })
    }

    /// The input basis that fits the truncated window best, by conjugate gradients from the present one: least squares in `P` of
    /// `(T - G (I (x) P)) C (T - G (I (x) P))'`, with window `G` and target `T` on the kept outputs.
    fn better_input(&self, output: Option<usize>) -> Matrix {
        let target = self.target;
        let up = output.map(|output| self.outputs.vectors.get(.., ..output.clamp(1, self.window.nrows())));
        let onto = |a: &Matrix| up.map_or_else(|| a.clone(), |up| product(up.transpose(), a.as_ref()));
        let window = onto(&self.window);
        let gram = product(window.transpose(), window.as_ref());
        let normal = |basis: &Matrix| {
            target.diagonal_sum(gram.as_ref(), target.restrict(basis, target.covariance.as_ref()).as_ref())
        };
        let wanted = target.diagonal_sum(window.transpose(), onto(&target.colored).as_ref());
        let mut basis = self.input.clone();
        let mut residual = &wanted - normal(&basis);
        let mut direction = residual.clone();
        let mut norm = residual.squared_norm_l2();
        for _ in 0..STEPS {
            let image = normal(&direction);
            let curvature = inner(direction.as_ref(), image.as_ref());
            let step = norm / curvature;
            if !(curvature > 0.0 && step.is_finite()) {
                break;
            }
            basis += Scale(step) * &direction;
            residual -= Scale(step) * &image;
            let next = residual.squared_norm_l2();
            direction = &residual + Scale(next / norm) * &direction;
            norm = next;
        }
        basis
    }

    /// Squared output error of each output rank, rank 0 first; the last entry is that of the full output rank.
    pub fn squared_errors(&self) -> Vec<f64> {
        tails(&self.outputs.values).into_iter().map(|tail| tail + self.lost).collect()
    }

    /// Squared output of the dense layer in the same metric.
    pub fn power(&self) -> f64 {
        self.target.power
    }

    /// The cores for this output rank, or with the window mapping straight to the output channels.
    pub fn network(&self, output: Option<usize>) -> Network {
        let [o, _, kh, kw] = self.target.shape else { return self.two_stages() };
        let Some(output) = output else { return self.two_stages() };
        let output = output.clamp(1, (*o).max(1));
        let up = self.outputs.vectors.get(.., ..output).to_owned();
        let inner = product(up.transpose(), self.window.as_ref());
        let mut network = self.two_stages();
        let (_, lengths) = self.unit_input();
        network.cores[1] = Core {
            tensor: self.window_tensor(&inner, &lengths, &[output, self.input.nrows(), *kh, *kw]),
            modes: vec![Mode::Bond(1), Mode::Bond(0), Mode::KernelHeight, Mode::KernelWidth],
        };
        network.cores.push(Core {
            tensor: to_tensor(&up, &[*o, output]),
            modes: vec![Mode::Output(0), Mode::Bond(1)],
        });
        network.contraction.push(2);
        network
    }

    /// The input basis with rows of unit length, whatever the scale of the covariance, and what the window takes up for it.
    fn unit_input(&self) -> (Matrix, Vec<f64>) {
        let mut input = self.input.clone();
        let lengths = unit_rows(&mut input);
        (input, lengths)
    }

    /// A window with its positions last, as weights are stored, for an input basis divided by `lengths`.
    fn window_tensor(&self, window: &Matrix, lengths: &[f64], shape: &[usize]) -> Tensor {
        let (rank, positions) = (lengths.len(), self.target.positions);
        let at =
            |i: usize, k: usize| window[(i, k % positions * rank + k / positions)] * lengths[k / positions];
        to_tensor(&Matrix::from_fn(window.nrows(), window.ncols(), at), shape)
    }

    fn two_stages(&self) -> Network {
        let (shape, rank) = (self.target.shape, self.input.nrows());
        let (input, lengths) = self.unit_input();
        let window = [Mode::Output(0), Mode::Bond(0), Mode::KernelHeight, Mode::KernelWidth];
        Network {
            format: "tucker",
            shape: shape.to_vec(),
            cores: vec![
                Core {
                    tensor: to_tensor(&input, &[rank, shape[1]]),
                    modes: vec![Mode::Bond(0), Mode::Input(0)],
                },
                Core {
                    tensor: self.window_tensor(
                        &self.window,
                        &lengths,
                        &[&[shape[0], rank], &shape[2..]].concat(),
                    ),
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
        let target = Target::new(&shape, &m, &c);
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
    fn refinement_lowers_the_error_and_predicts_it() {
        let (m, c, shape) = (matrix(6, 6 * 4, 9), covariance(24, 10), [6, 6, 2, 2]);
        let target = Target::new(&shape, &m, &c);
        let basis = InputBasis::new(target).unwrap();
        for output in [None, Some(2), Some(4)] {
            let errors = |projected: &Projected<'_>| projected.squared_errors()[output.unwrap_or(6)];
            let (plain, refined) = (basis.project(3).unwrap(), basis.refined(3, output).unwrap());
            assert!(errors(&refined) < errors(&plain), "{} {}", errors(&refined), errors(&plain));
            let measured = error(target, &reconstruct(&refined.network(output)).unwrap());
            assert!((measured - errors(&refined)).abs() <= 1e-5 * refined.power());
        }
    }

    #[test]
    fn whitening_beats_plain_truncation_in_output_error() {
        let (m, c, shape) = (matrix(6, 6 * 4, 9), covariance(24, 10), [6, 6, 2, 2]);
        let plain = Matrix::identity(24, 24);
        let aware = Target::new(&shape, &m, &c);
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
        let target = Target::new(&shape, &m, &c);
        let network = InputBasis::new(target).unwrap().project(2).unwrap().network(Some(2));
        assert!(reconstruct(&network).unwrap().data.iter().all(|x| *x == 0.0));
    }

    #[test]
    fn deficient_and_extreme_weights_and_inputs_keep_sane_factors() {
        let (m, c, shape) = (matrix(4, 12, 3), covariance(12, 1), [4, 3, 2, 2]);
        let one = Matrix::from_fn(4, 12, |i, j| ((i + 1) * (j + 1)) as f64);
        for (weight, size) in
            [(1.0, 1e-30), (1.0, 1e30), (1e8, 1e30), (1e-30, 1e-30), (1e30, 1e30), (1e30, 1e-30)]
        {
            let c = &c * Scale(size * size);
            for m in [&m * Scale(weight), &one * Scale(weight)] {
                let target = Target::new(&shape, &m, &c);
                for output in [None, Some(4)] {
                    let network =
                        InputBasis::new(target).unwrap().refined(3, output).unwrap().network(output);
                    let greatest =
                        |core: &Core| core.tensor.data.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
                    assert!(greatest(&network.cores[0]) <= 1.0);
                    assert!(f64::from(greatest(&network.cores[1])) <= 10.0 * m.norm_max());
                    let lost = error(target, &reconstruct(&network).unwrap());
                    let zero = error(target, &Tensor::new(shape.to_vec(), vec![0.0; 48]));
                    assert!(lost <= 1e-6 * zero, "{weight} {size}: {lost} of {zero}");
                }
            }
        }
    }
}
