//! CP of a convolution: 1x1 to `rank` channels, one window for each of them, 1x1 to the output channels.
//!
//! Takes a convolution as a tensor outputs x channels x positions; gives it as a sum of `rank` terms `v (x) p (x) q` (Hitchcock 1927; for
//! convolutions Lebedev et al. 2015, arXiv 1412.6553). All ranks of a layer come from one descending chain ([`Cp::chain`]): the largest rank starts from
//! the singular vectors of the slices along the principal window patterns, the greatest singular values of all slices first; each smaller rank
//! drops the terms whose removal costs least and is refined from there. Refinement moves all three factors together in the full
//! output metric (`gauss_newton`).
//!
//! A tensor's best approximation of some rank need not exist: terms then grow without bound and cancel each other, which ruins them for
//! integers. The refinement pays for the terms' norms from the start, as a share of the error; where they still exceed the output's own power by
//! much, the *error-preserving correction* (Phan, Sobolev, Sozykin, Ermilov, Gusak, Tichavsky, Glukhov, Oseledets, Cichocki 2020, "Stable low-rank tensor
//! decomposition for compression of convolutional neural network", arXiv 2008.05441) lowers the sum of their squared norms while the error stays
//! at its bound. It is solved here by its Lagrangian: the price of the norms rises until the bound is reached.

use super::gauss_newton::{Effort, Form, Problem, Single, State, double, single};
use super::whitened::{Mixing, Whitened};
use super::{Fit, Target, to_tensor};
use crate::graph::{Core, Mode, Network};
use crate::linalg::{Matrix, NotConverged, eigen, inner, product};

/// Without the correlation between positions, which makes a sweep cheap: to leave the start.
const APPROACH: Effort = Effort { iterations: 6, inner: 8, least_gain: 1e-2 };

/// The largest rank of a chain.
const FIRST: Effort = Effort { iterations: 8, inner: 10, least_gain: 1e-2 };

/// Every other rank of a chain.
const NEXT: Effort = Effort { iterations: 5, inner: 10, least_gain: 1e-2 };

/// A rank that is fitted to another target than its start.
const AGAIN: Effort = Effort { iterations: 10, inner: 14, least_gain: 4e-3 };

/// The rank that is built for good.
const LAST: Effort = Effort { iterations: 14, inner: 16, least_gain: 4e-3 };

/// One price of the error-preserving correction.
const CORRECTION: Effort = Effort { iterations: 4, inner: 8, least_gain: 1e-2 };

/// Prices that the correction tries at most, and the factor between them.
const PRICES: usize = 12;
const DEARER: f64 = 4.0;

/// Sum of the terms' squared norms, in units of the output's power, from which on they are corrected.
const LARGE: f64 = 10.0;

/// Two parameter blocks: `p` (rank x channels) and `q` (rank x positions), `P_r = q_r (x) p_r`.
struct Terms {
    channels: usize,
}

/// All ranks of one layer.
pub struct Cp<'a> {
    white: Whitened<'a>,
    full: Problem,
    terms: Terms,
}

impl<'a> Cp<'a> {
    /// Prepares a convolution (`shape` has four axes).
    pub fn new(target: Target<'a>) -> Result<Self, NotConverged> {
        let white = Whitened::new(target, Mixing::Both)?;
        let full = Problem::new(&white.matrix, Some(&white.covariance));
        Ok(Self { terms: Terms { channels: white.channels }, full, white })
    }

    /// The network of one rank: from [`Target::start`] if that holds one, else from the singular vectors.
    pub fn fit(&self, rank: usize) -> Result<Fit, NotConverged> {
        Ok(self.finish(&match self.given(rank) {
            Some(start) => self.settled(start, AGAIN),
            None => self.settled(self.approach(rank)?, LAST),
        }))
    }

    /// The networks of several ranks, in falling order of rank.
    pub fn chain(&self, ranks: &[usize]) -> Result<Vec<Fit>, NotConverged> {
        let mut falling: Vec<usize> = ranks.iter().map(|rank| self.possible(*rank)).collect();
        falling.sort_unstable_by(|a, b| b.cmp(a));
        falling.dedup();
        let Some(&largest) = falling.first() else { return Ok(Vec::new()) };
        let mut state = self.settled(self.approach(largest)?, FIRST);
        let mut fits = Vec::with_capacity(falling.len());
        for rank in falling {
            if rank < state.map.nrows() {
                let kept = cheapest_removed(&self.full.removal_costs(&state), rank);
                let x = state.x.iter().map(|block| rows(block, &kept)).collect();
                state = self.settled(x, NEXT);
            }
            fits.push(self.finish(&state));
        }
        Ok(fits)
    }

    /// Refined, and corrected if its terms are large.
    fn settled(&self, start: Vec<Single>, effort: Effort) -> State {
        let state = self.full.refine(&self.terms, start, effort);
        if state.norm <= LARGE {
            return state;
        }
        let bound = state.error;
        corrected(&self.full, &self.terms, state, bound)
    }

    /// Ranks from 1 to the one at which the slices' singular vectors reproduce any tensor.
    fn possible(&self, rank: usize) -> usize {
        let most = self.white.outputs.min(self.white.channels) * self.white.positions;
        rank.clamp(1, most.max(1))
    }

    /// Parameters of `Target::start`, if it is a CP network of this rank.
    fn given(&self, rank: usize) -> Option<Vec<Single>> {
        let network = self.white.target.start.filter(|network| network.format == "cp")?;
        let [p, q, _] = &network.cores[..] else { return None };
        let shaped = |core: &Core, columns: usize| {
            let matrix = super::to_matrix(&core.tensor);
            (matrix.nrows() == rank && matrix.ncols() == columns).then_some(matrix)
        };
        let (p, q) = (shaped(p, self.white.channels)?, shaped(q, self.white.positions)?);
        let white = |a: Matrix, root: &Matrix| single(&product(a.as_ref(), root.as_ref()));
        Some(vec![white(p, &self.white.channel.root), white(q, &self.white.position.root)])
    }

    /// The slices' singular vectors, refined without the correlation between positions.
    fn approach(&self, rank: usize) -> Result<Vec<Single>, NotConverged> {
        let start = self.singular(self.possible(rank))?;
        let plain = Problem::new(&self.white.matrix, None);
        Ok(plain.refine(&self.terms, start, APPROACH).x)
    }

    /// `rank` terms from the singular value decompositions of the slices along the principal window patterns.
    fn singular(&self, rank: usize) -> Result<Vec<Single>, NotConverged> {
        let Whitened { outputs, channels, positions, matrix, .. } = &self.white;
        let slice = |s: usize| matrix.as_ref().subcols(s * channels, *channels);
        let unfolded = Matrix::from_fn(*positions, *positions, |s, t| inner(slice(s), slice(t)));
        let patterns = eigen(unfolded.as_ref())?.vectors;
        let mut terms: Vec<(f64, usize, Vec<f64>)> = Vec::new();
        for k in 0..*positions {
            let mut mixed = Matrix::zeros(*outputs, *channels);
            for s in 0..*positions {
                mixed += faer::Scale(patterns[(s, k)]) * slice(s);
            }
            let right = eigen(product(mixed.transpose(), mixed.as_ref()).as_ref())?;
            for (r, value) in right.values.iter().enumerate().take(*outputs.min(channels)) {
                terms.push((*value, k, right.vectors.col_as_slice(r).to_vec()));
            }
        }
        terms.sort_by(|a, b| b.0.total_cmp(&a.0));
        terms.truncate(rank);
        let p = Single::from_fn(terms.len(), *channels, |r, i| terms[r].2[i] as f32);
        let q = Single::from_fn(terms.len(), *positions, |r, s| patterns[(s, terms[r].1)] as f32);
        Ok(vec![p, q])
    }

    /// The network of a state, its last factor solved for in double precision.
    fn finish(&self, state: &State) -> Fit {
        let white = &self.white;
        let map = double(&state.map);
        let last = white.last_factor(&map, self.full.rounding);
        let rank = map.nrows();
        let back = |a: &Single, inverse: &Matrix| product(double(a).as_ref(), inverse.as_ref());
        let mut p = back(&state.x[0], &white.channel.inverse);
        let mut q = back(&state.x[1], &white.position.inverse);
        let error = last.error();
        let mut v = last.matrix;
        for r in 0..rank {
            let scales = [&mut p, &mut q].map(|factor| {
                let length = factor.row(r).norm_l2();
                if length > 0.0 {
                    (0..factor.ncols()).for_each(|j| factor[(r, j)] /= length);
                }
                length
            });
            (0..v.nrows()).for_each(|o| v[(o, r)] *= scales[0] * scales[1]);
        }
        let shape = white.target.shape;
        let network = Network {
            format: "cp",
            shape: shape.to_vec(),
            cores: vec![
                Core { tensor: to_tensor(&p, &[rank, shape[1]]), modes: vec![Mode::Bond(0), Mode::Input(0)] },
                Core {
                    tensor: to_tensor(&q, &[&[rank], &shape[2..]].concat()),
                    modes: vec![Mode::Bond(0), Mode::KernelHeight, Mode::KernelWidth],
                },
                Core {
                    tensor: to_tensor(&v, &[shape[0], rank]),
                    modes: vec![Mode::Output(0), Mode::Bond(0)],
                },
            ],
            contraction: vec![0, 1, 2],
            row_scale: None,
        };
        Fit { network, error }
    }
}

/// The error-preserving correction: the same number of terms with smaller norms, at a squared error of at most `bound`.
fn corrected(problem: &Problem, terms: &Terms, state: State, bound: f64) -> State {
    let mut priced = problem.clone();
    priced.rounding = problem.rounding.max(1e-2 * bound / state.norm.max(f64::MIN_POSITIVE));
    let mut best = state;
    for _ in 0..PRICES {
        let next = priced.refine(terms, best.x.clone(), CORRECTION);
        let holds = next.error <= bound;
        if holds && next.norm < best.norm {
            best = next;
        } else if !holds {
            break;
        }
        priced.rounding *= DEARER;
    }
    best
}

/// Indices of the `count` rows whose removal costs most, in rising order.
fn cheapest_removed(costs: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|a, b| costs[*b].total_cmp(&costs[*a]));
    order.truncate(count);
    order.sort_unstable();
    order
}

fn rows(a: &Single, chosen: &[usize]) -> Single {
    Single::from_fn(chosen.len(), a.ncols(), |r, j| a[(chosen[r], j)])
}

impl Form for Terms {
    fn map(&self, x: &[Single]) -> Single {
        let (p, q) = (&x[0], &x[1]);
        let mut map = Single::zeros(p.nrows(), p.ncols() * q.ncols());
        for j in 0..map.ncols() {
            let (p, q) = (p.col_as_slice(j % self.channels), q.col_as_slice(j / self.channels));
            map.col_as_slice_mut(j).iter_mut().zip(p.iter().zip(q)).for_each(|(out, (p, q))| *out = p * q);
        }
        map
    }

    fn tangent(&self, x: &[Single], dx: &[Single]) -> Single {
        let mut out = Single::zeros(x[0].nrows(), x[0].ncols() * x[1].ncols());
        for j in 0..out.ncols() {
            let (i, s) = (j % self.channels, j / self.channels);
            let (p, q) = (x[0].col_as_slice(i), x[1].col_as_slice(s));
            let (dp, dq) = (dx[0].col_as_slice(i), dx[1].col_as_slice(s));
            for (r, out) in out.col_as_slice_mut(j).iter_mut().enumerate() {
                *out = dp[r] * q[r] + p[r] * dq[r];
            }
        }
        out
    }

    fn adjoint(&self, x: &[Single], gradient: &Single) -> Vec<Single> {
        let mut out = [&x[0], &x[1]].map(|x| Single::zeros(x.nrows(), x.ncols()));
        for j in 0..gradient.ncols() {
            let (i, s) = (j % self.channels, j / self.channels);
            let g = gradient.col_as_slice(j);
            let (p, q) = (x[0].col_as_slice(i), x[1].col_as_slice(s));
            out[0]
                .col_as_slice_mut(i)
                .iter_mut()
                .zip(g.iter().zip(q))
                .for_each(|(out, (g, q))| *out += g * q);
            out[1]
                .col_as_slice_mut(s)
                .iter_mut()
                .zip(g.iter().zip(p))
                .for_each(|(out, (g, p))| *out += g * p);
        }
        out.into()
    }

    fn normal(&self, x: &[Single], gram: &Single) -> Vec<Matrix> {
        let other = |x: &Single| {
            let similar = product(x.as_ref(), x.transpose());
            Matrix::from_fn(gram.nrows(), gram.nrows(), |r, t| f64::from(gram[(r, t)] * similar[(r, t)]))
        };
        vec![other(&x[1]), other(&x[0])]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_fits, covariance, matrix, real_layer};
    use super::*;
    use crate::linalg::solve;

    #[test]
    fn full_rank_reproduces_and_error_falls_with_rank() {
        let (m, c, shape) = (matrix(6, 4 * 6, 1), covariance(24, 2), [6, 4, 3, 2]);
        let target = Target::new(&shape, &m, &c);
        let fits = Cp::new(target).unwrap().chain(&[24, 18, 12, 8, 5, 3, 2, 1]).unwrap();
        assert!(fits[0].error < 1e-2);
        check_fits(target, &fits.iter().rev().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn a_tensor_of_low_rank_is_found() {
        let (p, q, v) = (matrix(3, 8, 1), matrix(3, 9, 2), matrix(10, 3, 3));
        let m =
            Matrix::from_fn(10, 72, |o, k| (0..3).map(|r| v[(o, r)] * p[(r, k / 9)] * q[(r, k % 9)]).sum());
        let (c, shape) = (Matrix::identity(72, 72), [10, 8, 3, 3]);
        let all = Cp::new(Target::new(&shape, &m, &c)).unwrap();
        let errors = [3, 2].map(|rank| all.fit(rank).unwrap().error);
        assert!(errors[0] < 1e-2 && errors[1] > 0.1, "{errors:?}");
    }

    /// Alternating least squares as in any textbook; the sums of squared errors and of the terms' squared norms, relative to the tensor.
    fn alternate(m: &Matrix, channels: usize, mut x: Vec<Single>, sweeps: usize) -> State {
        let (terms, mut plain) = (Terms { channels }, Problem::new(m, None));
        plain.rounding = 0.0;
        for _ in 0..sweeps {
            for block in 0..2 {
                let at = plain.evaluate(&terms, x);
                x = at.x.clone();
                let gram = product(at.last.transpose(), at.last.as_ref());
                let wanted = terms.adjoint(&x, &product(at.last.transpose(), single(m).as_ref()));
                let normal = &terms.normal(&x, &gram)[block];
                x[block] = single(&solve(normal.as_ref(), double(&wanted[block]).as_ref()));
            }
        }
        plain.evaluate(&terms, x)
    }

    #[test]
    fn correction_bounds_the_norms_where_alternating_least_squares_diverges() {
        // a a b + a b a + b a a: of rank 3, but the limit of tensors of rank 2.
        let (a, b) = ([0.9, 0.1, -0.6, 0.4], [0.2, -0.8, 0.3, 0.7]);
        let full = Matrix::from_fn(4, 16, |o, k| {
            let (s, i) = (k / 4, k % 4);
            a[o] * a[i] * b[s] + a[o] * b[i] * a[s] + b[o] * a[i] * a[s]
        });
        let m = &full * faer::Scale(1.0 / full.norm_l2());
        let start = || vec![single(&matrix(2, 4, 11)), single(&matrix(2, 4, 12))];
        let [first, second, diverged] = [40, 400, 4000].map(|sweeps| alternate(&m, 4, start(), sweeps));
        let norms = [first.norm, second.norm, diverged.norm];
        assert!(norms[0] < norms[1] && 1.5 * norms[1] < norms[2] && norms[2] > 15.0, "{norms:?}");
        let mut plain = Problem::new(&m, None);
        plain.rounding = 0.0;
        let bound = 9.0 * diverged.error;
        assert!(bound < 1e-2);
        let after = corrected(&plain, &Terms { channels: 4 }, diverged.clone(), bound);
        assert!(after.error <= bound && after.norm < 0.7 * diverged.norm, "{} {}", after.error, after.norm);
        // What is fitted by default never comes near such norms.
        let c = Matrix::identity(16, 16);
        let column = |k: usize| k % 4 * 4 + k / 4;
        let weight = Matrix::from_fn(4, 16, |o, k| m[(o, column(k))]);
        let all = Cp::new(Target::new(&[4, 4, 2, 2], &weight, &c)).unwrap();
        let settled = all.settled(all.approach(2).unwrap(), LAST);
        assert!(settled.norm < LARGE && settled.error < 1e-2, "{} {}", settled.norm, settled.error);
    }

    #[test]
    fn correction_lowers_the_norms_of_a_real_layer_at_no_more_error() {
        let (shape, weight) = real_layer("/c1/Conv");
        let c = Matrix::identity(weight.ncols(), weight.ncols());
        let white = Whitened::new(Target::new(&shape, &weight, &c), Mixing::Both).unwrap();
        let start = vec![single(&matrix(24, 16, 1)), single(&matrix(24, 9, 2))];
        let plain = alternate(&white.matrix, 16, start, 150);
        let mut problem = Problem::new(&white.matrix, None);
        problem.rounding = 0.0;
        let after = corrected(&problem, &Terms { channels: 16 }, plain.clone(), plain.error);
        assert!(after.error <= plain.error);
        assert!(after.norm < 0.8 * plain.norm, "{} to {}", plain.norm, after.norm);
    }

    #[test]
    fn a_start_is_taken_up() {
        let (m, c, shape) = (matrix(8, 8 * 9, 1), covariance(72, 2), [8, 8, 3, 3]);
        let target = Target::new(&shape, &m, &c);
        let first = Cp::new(target).unwrap().fit(6).unwrap();
        let near = Matrix::from_fn(8, 72, |o, k| m[(o, k)] * (1.0 + 0.01 * (o as f64 - k as f64 / 9.0)));
        let again = Target { start: Some(&first.network), matrix: &near, ..target };
        let cold = Target { start: None, ..again };
        let error = |target| Cp::new(target).unwrap().fit(6).unwrap().error;
        assert!(error(again) <= 1.02 * error(cold), "{} {}", error(again), error(cold));
    }

    #[test]
    fn zero_deficient_and_extreme_weights_stay_finite() {
        let c = covariance(12, 5);
        let one = |scale: f64| Matrix::from_fn(4, 12, move |i, j| ((i + 1) * (j + 1)) as f64 * scale);
        for (m, c) in [
            (Matrix::zeros(4, 12), c.clone()),
            (one(1e-30), c.clone()),
            (one(1e30), c.clone()),
            (one(1.0), &c * faer::Scale(1e-60)),
            (one(1.0), &c * faer::Scale(1e60)),
        ] {
            for fit in Cp::new(Target::new(&[4, 3, 2, 2], &m, &c)).unwrap().chain(&[8, 2]).unwrap() {
                assert!(fit.error.is_finite() && fit.error < 0.1, "{}", fit.error);
                assert!(fit.network.cores.iter().all(|core| core.tensor.data.iter().all(|x| x.is_finite())));
            }
        }
    }
}
