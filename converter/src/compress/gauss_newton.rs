//! Joint refinement of all factors of a layer in the full output metric.
//!
//! Takes a [`Form`], which maps a layer's input to inner rows `P(x)` by parameters `x`, and a start; gives better parameters and the last factor
//! `V` of `E = V P(x)`. Lowered is
//!
//! `trace((M - V P) C (M - V P)') + ROUNDING * sum_r |v_r|^2 |p_r|^2`,
//!
//! the output error plus the error that rounding the inner rows adds. Alternating least squares crawls through long valleys here, so
//! all factors move at once: damped Gauss-Newton (Levenberg 1944, Marquardt 1963; for tensors see Sorber, Van Barel, De Lathauwer 2013, "Optimization-based algorithms for
//! tensor decompositions"), its linear systems by conjugate gradients, preconditioned with what the system would be in
//! whitened coordinates. After each step `V` is solved for exactly. Products run in single precision: coordinates are whitened and
//! normalised (`whitened`).

use faer::Mat;

use crate::linalg::{Matrix, product, solve};

/// A matrix in single precision.
pub(super) type Single = Mat<f32>;

/// Variance that 8-bit rounding adds to an inner row, relative to the row's own: steps of 1/255 of ten standard deviations.
pub(super) const ROUNDING: f64 = 1.3e-4;

/// First damping, in units of the normal matrices' diagonals.
const DAMPING: f64 = 1e-3;

/// A conjugate gradient solution ends when its residual fell by this factor (squared, preconditioned).
const SOLVED: f64 = 1e-4;

/// How the inner rows of a format depend on its parameters, and their derivatives. Columns are those of the whitened weight.
pub(super) trait Form {
    /// The inner rows `P(x)`.
    fn map(&self, x: &[Single]) -> Single;
    /// Change of `P` when `x` moves by `dx`, to first order.
    fn tangent(&self, x: &[Single], dx: &[Single]) -> Single;
    /// Adjoint of [`Form::tangent`].
    fn adjoint(&self, x: &[Single], gradient: &Single) -> Vec<Single>;
    /// For each block of `x` the matrix that multiplies it from the left in the normal equations if the covariance is the identity, given `V'V`.
    fn normal(&self, x: &[Single], gram: &Single) -> Vec<Matrix>;
}

/// The weight to approximate and the metric of its error.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    matrix: Single,
    /// `None` is the identity.
    covariance: Option<Single>,
    /// `matrix * covariance`.
    colored: Single,
    /// Weight of the second term.
    pub(super) rounding: f64,
}

/// How long to look for something better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Steps of all factors.
    pub(super) iterations: usize,
    /// Conjugate gradient steps in each of them.
    pub(super) inner: usize,
    /// Relative gain of one step below which there are no more.
    pub(super) least_gain: f64,
}

/// Parameters with all that follows from them.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) x: Vec<Single>,
    /// `V`.
    pub(super) last: Single,
    /// `P`.
    pub(super) map: Single,
    /// `P C P'`.
    inner: Single,
    /// `(M - V P) C`.
    residual: Single,
    /// Squared output error relative to the weight's output.
    pub(super) error: f64,
    /// `sum_r |v_r|^2 |p_r|^2`.
    pub(super) norm: f64,
}

impl Problem {
    /// In the metric of `covariance`, or plain.
    pub(super) fn new(matrix: &Matrix, covariance: Option<&Matrix>) -> Self {
        let matrix = single(matrix);
        let covariance = covariance.map(single);
        let colored =
            covariance.as_ref().map_or_else(|| matrix.clone(), |c| product(matrix.as_ref(), c.as_ref()));
        Self { matrix, covariance, colored, rounding: ROUNDING }
    }

    fn objective(&self, state: &State) -> f64 {
        state.error + self.rounding * state.norm
    }

    fn through(&self, a: Single) -> Single {
        match &self.covariance {
            Some(covariance) => product(a.as_ref(), covariance.as_ref()),
            None => a,
        }
    }

    /// Solves for the last factor. The rows of all blocks are scaled to unit length, which `V` takes up.
    pub(super) fn evaluate(&self, form: &impl Form, mut x: Vec<Single>) -> State {
        x.iter_mut().for_each(unit_rows);
        let map = form.map(&x);
        let seen = self.through(map.clone());
        let inner = product(seen.as_ref(), map.transpose());
        let cross = product(self.colored.as_ref(), map.transpose());
        let lengths = squared_rows(&map);
        let mut normal = double(&inner);
        for (r, length) in lengths.iter().enumerate() {
            normal[(r, r)] += self.rounding.max(1e-9) * length;
        }
        let last = single(&solve(normal.as_ref(), double(&cross).transpose()).transpose().to_owned());
        let missed = &self.matrix - product(last.as_ref(), map.as_ref());
        let residual = self.through(missed.clone());
        let error = dot(&missed, &residual).max(0.0);
        let norm = squared_columns(&last).iter().zip(&lengths).map(|(v, p)| v * p).sum();
        State { x, last, map, inner, residual, error, norm }
    }

    /// Lowers the objective from `x` on.
    pub(super) fn refine(&self, form: &impl Form, x: Vec<Single>, effort: Effort) -> State {
        let mut best = self.evaluate(form, x);
        let mut damping = DAMPING;
        for _ in 0..effort.iterations {
            let dx = self.step(form, &best, damping, effort.inner);
            let moved = best.x.iter().zip(&dx).map(|(x, dx)| x + dx).collect();
            let next = self.evaluate(form, moved);
            let (now, then) = (self.objective(&next), self.objective(&best));
            if now < then {
                best = next;
                damping = (damping * 0.3).max(1e-7);
                if then - now < effort.least_gain * then {
                    break;
                }
            } else if damping > 1.0 {
                break;
            } else {
                damping *= 8.0;
            }
        }
        best
    }

    /// One damped Gauss-Newton step of the parameters; the step of `V` that belongs to it is dropped, for `V` is solved for anew.
    fn step(&self, form: &impl Form, at: &State, damping: f64, steps: usize) -> Vec<Single> {
        let rounding = self.rounding as f32;
        let mut gram = product(at.last.transpose(), at.last.as_ref());
        let weights: Vec<f32> = (0..gram.nrows()).map(|r| rounding * gram[(r, r)]).collect();
        weights.iter().enumerate().for_each(|(r, weight)| gram[(r, r)] += weight);
        let lengths: Vec<f32> =
            squared_rows(&at.map).iter().map(|length| rounding * *length as f32).collect();
        let mut inner = double(&at.inner);
        lengths.iter().enumerate().for_each(|(r, length)| inner[(r, r)] += f64::from(*length));
        // `V'Z` with the rounding of rows on top: what the parameters see of an error `Z` and of rows `rows`.
        let pull = |z: &Single, rows: &Single, sign: f32| {
            let mut g = product(at.last.transpose(), z.as_ref());
            add_weighted_rows(&mut g, &weights, rows, sign);
            form.adjoint(&at.x, &g)
        };
        let pull_last = |z: &Single, v: &Single, sign: f32| {
            let mut g = product(z.as_ref(), at.map.transpose());
            for (r, length) in lengths.iter().enumerate() {
                g.col_as_slice_mut(r)
                    .iter_mut()
                    .zip(v.col_as_slice(r))
                    .for_each(|(g, v)| *g += sign * length * v);
            }
            g
        };
        let normals = form.normal(&at.x, &gram);
        let inverses: Vec<Single> =
            std::iter::once(&inner).chain(&normals).map(|n| damped_inverse(n, damping)).collect();
        let ridges: Vec<Vec<f32>> = std::iter::once(&inner)
            .chain(&normals)
            .map(|normal| (0..normal.nrows()).map(|r| (damping * normal[(r, r)]) as f32).collect())
            .collect();
        // Unknowns: the transposed step of V first, so that all blocks have their inner index in rows.
        let image = |d: &[Single]| -> Vec<Single> {
            let dv = d[0].transpose().to_owned();
            let dp = form.tangent(&at.x, &d[1..]);
            let z =
                self.through(product(dv.as_ref(), at.map.as_ref()) + product(at.last.as_ref(), dp.as_ref()));
            let mut out = vec![pull_last(&z, &dv, 1.0).transpose().to_owned()];
            out.extend(pull(&z, &dp, 1.0));
            for ((out, d), ridge) in out.iter_mut().zip(d).zip(&ridges) {
                add_weighted_rows(out, ridge, d, 1.0);
            }
            out
        };
        let precondition = |r: &[Single]| -> Vec<Single> {
            inverses.iter().zip(r).map(|(inverse, r)| product(inverse.as_ref(), r.as_ref())).collect()
        };
        let mut residual = vec![pull_last(&at.residual, &at.last, -1.0).transpose().to_owned()];
        residual.extend(pull(&at.residual, &at.map, -1.0));
        let mut x: Vec<Single> = residual.iter().map(|r| Single::zeros(r.nrows(), r.ncols())).collect();
        let mut direction = precondition(&residual);
        let mut norm = dots(&residual, &direction);
        let first = norm;
        for _ in 0..steps {
            let image = image(&direction);
            let length = norm / dots(&direction, &image);
            if !(length > 0.0 && length.is_finite()) {
                break;
            }
            add(&mut x, length as f32, &direction);
            add(&mut residual, -length as f32, &image);
            let better = precondition(&residual);
            let next = dots(&residual, &better);
            if next.is_nan() || next <= SOLVED * first {
                break;
            }
            let keep = (next / norm) as f32;
            for (direction, better) in direction.iter_mut().zip(better) {
                *direction = better + faer::Scale(keep) * &*direction;
            }
            norm = next;
        }
        x.remove(0);
        x
    }

    /// By how much the squared error grows without each inner row, `V` solved for anew: `|v_r|^2 / (K^-1)_rr` (Hassibi, Stork 1993).
    pub(super) fn removal_costs(&self, at: &State) -> Vec<f64> {
        let mut inner = double(&at.inner);
        for (r, length) in squared_rows(&at.map).iter().enumerate() {
            inner[(r, r)] += self.rounding.max(1e-9) * length;
        }
        let inverse = solve(inner.as_ref(), Matrix::identity(inner.nrows(), inner.nrows()).as_ref());
        let squares = squared_columns(&at.last);
        squares.iter().enumerate().map(|(r, v)| v / inverse[(r, r)].max(f64::MIN_POSITIVE)).collect()
    }
}

/// To single precision.
pub(super) fn single(a: &Matrix) -> Single {
    Single::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)] as f32)
}

/// To double precision.
pub(super) fn double(a: &Single) -> Matrix {
    Matrix::from_fn(a.nrows(), a.ncols(), |i, j| f64::from(a[(i, j)]))
}

/// Scales every row that is not zero to length 1.
fn unit_rows(a: &mut Single) {
    let factors: Vec<f32> =
        squared_rows(a).iter().map(|s| if *s > 0.0 { (1.0 / s.sqrt()) as f32 } else { 1.0 }).collect();
    for j in 0..a.ncols() {
        a.col_as_slice_mut(j).iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
    }
}

fn squared_rows(a: &Single) -> Vec<f64> {
    let mut sums = vec![0.0; a.nrows()];
    for j in 0..a.ncols() {
        sums.iter_mut().zip(a.col_as_slice(j)).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
    }
    sums
}

fn squared_columns(a: &Single) -> Vec<f64> {
    (0..a.ncols()).map(|j| a.col_as_slice(j).iter().map(|x| f64::from(*x).powi(2)).sum()).collect()
}

/// `sum += sign * diag(weights) * rows`.
fn add_weighted_rows(sum: &mut Single, weights: &[f32], rows: &Single, sign: f32) {
    for j in 0..sum.ncols() {
        let column = sum.col_as_slice_mut(j).iter_mut().zip(rows.col_as_slice(j)).zip(weights);
        column.for_each(|((sum, x), weight)| *sum += sign * weight * x);
    }
}

fn damped_inverse(normal: &Matrix, damping: f64) -> Single {
    let n = normal.nrows();
    let damped = Matrix::from_fn(n, n, |i, j| normal[(i, j)] * if i == j { 1.0 + damping } else { 1.0 });
    single(&solve(damped.as_ref(), Matrix::identity(n, n).as_ref()))
}

fn dot(a: &Single, b: &Single) -> f64 {
    let column = |j: usize| {
        a.col_as_slice(j)
            .iter()
            .zip(b.col_as_slice(j))
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    (0..a.ncols()).map(column).sum()
}

fn dots(a: &[Single], b: &[Single]) -> f64 {
    a.iter().zip(b).map(|(a, b)| dot(a, b)).sum()
}

fn add(sum: &mut [Single], factor: f32, a: &[Single]) {
    for (sum, a) in sum.iter_mut().zip(a) {
        *sum += faer::Scale(factor) * a;
    }
}
