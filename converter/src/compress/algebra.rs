//! Algebras behind Kronecker sums: their names, and fast forms of their products.
//!
//! Takes a Kronecker sum; says whether its `A` multiply by complex numbers or quaternions, and gives its **fast bilinear form**. The matrices
//! `A_s` are a tensor `T[a, b, s]`. Where it has canonical polyadic rank `R`, `T[a, b, s] = sum_g Q[a, g] P[b, g] C[s, g]`, the layer is
//! `y_a = sum_g Q[a, g] F_g (sum_b P[b, g] x_b)` with filter banks `F_g = sum_s C[s, g] S_s`: mix the blocks of inputs, one convolution of `R` groups, mix again.
//! These are `R` products of blocks instead of `n r` (3 for 4 in complex numbers, as Gauss found; 8 for 16 in quaternions, Howell and Lafon 1975; 7 for most learnt
//! 4 x 4 x 4 tensors), but `R` filter banks to store instead of `r`.
//!
//! The decomposition comes from Levenberg-Marquardt steps from fixed starts, with a ridge that decays to nothing: it keeps terms from growing against each
//! other, as those of canonical polyadic approximations do where no best one exists. Refused: tensors of more than [`LARGEST`] numbers, ranks that save no products,
//! and results that are not exact to [`EXACT`] or whose terms cancel.

use crate::graph::{Core, Mode, Network, Tensor};
use crate::linalg::{Matrix, product, solve};

/// Numbers of a structure tensor at most.
pub const LARGEST: usize = 64;

/// Relative error of a decomposition.
pub const EXACT: f64 = 1e-7;

/// Sum of the norms of the terms relative to the norm of the tensor: how far inner values may outgrow the result.
const MOST_GROWTH: f64 = 8.0;

/// Steps from one start, and starts for each rank.
const STEPS: usize = 150;
const STARTS: usize = 3;

/// Sign and imaginary unit of the product of two units `1, i, j, k`.
const HAMILTON: [[(usize, f64); 4]; 4] = [
    [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)],
    [(1, 1.0), (0, -1.0), (3, 1.0), (2, -1.0)],
    [(2, 1.0), (3, -1.0), (0, -1.0), (1, 1.0)],
    [(3, 1.0), (2, 1.0), (1, -1.0), (0, -1.0)],
];

/// `T[a, b, s]` of extents `[n, m, r]`, row-major.
struct Structure {
    extents: [usize; 3],
    data: Vec<f64>,
}

impl Structure {
    /// The `A` of a Kronecker sum, its first core.
    fn of(network: &Network) -> Option<Self> {
        let core = network
            .cores
            .first()
            .filter(|core| core.modes[..] == [Mode::Bond(0), Mode::Output(0), Mode::Input(0)])?;
        let [r, n, m] = core.tensor.shape[..] else { return None };
        let at = |index: usize| f64::from(core.tensor.data[(index % r) * n * m + index / r]);
        Some(Self { extents: [n, m, r], data: (0..n * m * r).map(at).collect() })
    }

    fn norm(&self) -> f64 {
        self.data.iter().map(|x| x * x).sum::<f64>().sqrt()
    }
}

/// `complex` or `quaternion` if every `A` multiplies by one such number from the left or from the right, up to a factor of each block of outputs.
pub fn name(network: &Network) -> Option<&'static str> {
    let structure = Structure::of(network)?;
    let [n, m, r] = structure.extents;
    let name = match n {
        2 => "complex",
        4 => "quaternion",
        _ => return None,
    };
    if r > n || m != n {
        return None;
    }
    // Rows of equal weight, as products with unit numbers have.
    let row = |a: usize| structure.data[a * m * r..(a + 1) * m * r].iter();
    let sizes: Vec<f64> = (0..n).map(|a| row(a).map(|x| x * x).sum::<f64>().sqrt()).collect();
    if sizes.contains(&0.0) {
        return None;
    }
    let at = |a: usize, b: usize, s: usize| structure.data[(a * m + b) * r + s] / sizes[a];
    let is_product = |left: bool| {
        // Coordinates of A_s among the products with unit `u`, and what they leave over.
        let entry = |u: usize, b: usize| if left { HAMILTON[u][b] } else { HAMILTON[b][u] };
        (0..r).all(|s| {
            let coordinate = |u: usize| -> f64 {
                let parts = (0..n).map(|b| (b, entry(u, b))).map(|(b, (a, sign))| sign * at(a, b, s));
                parts.sum::<f64>() / n as f64
            };
            let total: f64 = (0..n * n).map(|pair| at(pair / n, pair % n, s).powi(2)).sum();
            let kept: f64 = (0..n).map(|u| coordinate(u).powi(2) * n as f64).sum();
            (total - kept).abs() <= 1e-6 * total
        })
    };
    (is_product(true) || is_product(false)).then_some(name)
}

/// The network of `R` groups that equals a Kronecker sum, if it multiplies fewer blocks.
pub fn fast(network: &Network) -> Option<Network> {
    let structure = Structure::of(network)?;
    let [n, m, r] = structure.extents;
    let norm = structure.norm();
    if n * m * r > LARGEST || !(norm > 0.0 && norm.is_finite()) {
        return None;
    }
    let scaled = Structure { data: structure.data.iter().map(|x| x / norm).collect(), ..structure };
    let least = n.max(m).max(r);
    let terms = (least..n * r).find_map(|rank| {
        let found = (0..STARTS).filter_map(|start| decompose(&scaled, rank, start));
        found.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(factors, _)| factors)
    })?;
    let [q, p, c] = &terms;
    let groups = q.ncols();
    let s_core = network.cores.get(1)?;
    let bank = s_core.tensor.len() / r;
    let mut filters = vec![0.0f32; groups * bank];
    for (k, out) in filters.iter_mut().enumerate() {
        let (g, index) = (k / bank, k % bank);
        let sum: f64 = (0..r).map(|s| c[(s, g)] * f64::from(s_core.tensor.data[s * bank + index])).sum();
        *out = (sum * norm) as f32;
    }
    let matrix = |rows: usize, columns: usize, at: &dyn Fn(usize, usize) -> f64| {
        let data = (0..rows * columns).map(|k| at(k / columns, k % columns) as f32).collect();
        Tensor::new(vec![rows, columns], data)
    };
    let shape = [&[groups], &s_core.tensor.shape[1..]].concat();
    Some(Network {
        format: "kronecker-fast",
        shape: network.shape.clone(),
        cores: vec![
            Core { tensor: matrix(groups, m, &|g, b| p[(b, g)]), modes: vec![Mode::Bond(0), Mode::Input(0)] },
            Core { tensor: Tensor::new(shape, filters), modes: s_core.modes.clone() },
            Core {
                tensor: matrix(n, groups, &|a, g| q[(a, g)]),
                modes: vec![Mode::Output(0), Mode::Bond(0)],
            },
        ],
        contraction: vec![0, 1, 2],
        row_scale: network.row_scale.clone(),
    })
}

/// Factors of `rank` terms of equal share that reproduce the tensor of norm 1, and the sum of the terms' norms; `None` if this start leads to none.
fn decompose(structure: &Structure, rank: usize, start: usize) -> Option<([Matrix; 3], f64)> {
    let extents = structure.extents;
    let sizes = extents.map(|extent| extent * rank);
    let unknowns: usize = sizes.iter().sum();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul((start + 1) as u64) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    let mut x: Vec<f64> = (0..unknowns).map(|_| next()).collect();
    let (mut ridge, mut damping) = (1e-2, 1e-1);
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let mut error = residual(structure, rank, &x);
    for step in 0..STEPS {
        let jacobian = jacobian(extents, rank, &x);
        let mut normal = product(jacobian.transpose(), jacobian.as_ref());
        (0..unknowns).for_each(|k| normal[(k, k)] += damping + ridge);
        let column = Matrix::from_fn(error.len(), 1, |k, _| error[k]);
        let gradient = product(jacobian.transpose(), column.as_ref());
        let right = Matrix::from_fn(unknowns, 1, |k, _| -gradient[(k, 0)] - ridge * x[k]);
        let move_ = solve(normal.as_ref(), right.as_ref());
        let trial: Vec<f64> = x.iter().enumerate().map(|(k, x)| x + move_[(k, 0)]).collect();
        let after = residual(structure, rank, &trial);
        if squares(&after) + ridge * squares(&trial) < squares(&error) + ridge * squares(&x) {
            (x, error) = (trial, after);
            damping = f64::max(damping / 3.0, 1e-12);
        } else {
            damping *= 4.0;
        }
        ridge = match step {
            0..100 if step % 10 == 9 => ridge * 0.3,
            0..100 => ridge,
            _ => 0.0,
        };
        if ridge == 0.0 && squares(&error) <= 1e-28 {
            break;
        }
    }
    let mut at = 0;
    let mut factors = extents.map(|extent| {
        let factor = Matrix::from_fn(extent, rank, |row, g| x[at + row * rank + g]);
        at += extent * rank;
        factor
    });
    // Terms of the same share in every factor.
    let mut growth = 0.0;
    for g in 0..rank {
        let norms = [0, 1, 2].map(|k| factors[k].col(g).norm_l2());
        let whole: f64 = norms.iter().product();
        growth += whole;
        for (factor, norm) in factors.iter_mut().zip(norms) {
            let scale = if norm > 0.0 { whole.cbrt() / norm } else { 0.0 };
            (0..factor.nrows()).for_each(|row| factor[(row, g)] *= scale);
        }
    }
    (squares(&error).sqrt() <= EXACT && growth <= MOST_GROWTH).then_some((factors, growth))
}

/// Offsets of the factors in the list of unknowns.
fn offsets([n, m, _]: [usize; 3], rank: usize) -> [usize; 3] {
    [0, n * rank, (n + m) * rank]
}

fn residual(structure: &Structure, rank: usize, x: &[f64]) -> Vec<f64> {
    let [_, m, r] = structure.extents;
    let [q, p, c] = offsets(structure.extents, rank);
    let value = |index: usize| -> f64 {
        let (a, b, s) = (index / (m * r), index / r % m, index % r);
        (0..rank).map(|g| x[q + a * rank + g] * x[p + b * rank + g] * x[c + s * rank + g]).sum()
    };
    structure.data.iter().enumerate().map(|(index, wanted)| value(index) - wanted).collect()
}

fn jacobian(extents: [usize; 3], rank: usize, x: &[f64]) -> Matrix {
    let [n, m, r] = extents;
    let [q, p, c] = offsets(extents, rank);
    let mut jacobian = Matrix::zeros(n * m * r, (n + m + r) * rank);
    for index in 0..n * m * r {
        let (a, b, s) = (index / (m * r), index / r % m, index % r);
        for g in 0..rank {
            let [at_q, at_p, at_c] = [q + a * rank + g, p + b * rank + g, c + s * rank + g];
            jacobian[(index, at_q)] = x[at_p] * x[at_c];
            jacobian[(index, at_p)] = x[at_q] * x[at_c];
            jacobian[(index, at_c)] = x[at_q] * x[at_p];
        }
    }
    jacobian
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::network::reconstruct;
    use crate::compress::tests::noise;

    fn sum(n: usize, m: usize, a: Vec<f32>, r: usize) -> Network {
        let window = [3, 2, 2, 1];
        let s_shape = [&[r], &window[..]].concat();
        let modes =
            vec![Mode::Bond(0), Mode::Output(1), Mode::Input(1), Mode::KernelHeight, Mode::KernelWidth];
        Network {
            format: "kronecker",
            shape: vec![n * 3, m * 2, 2, 1],
            cores: vec![
                Core {
                    tensor: Tensor::new(vec![r, n, m], a),
                    modes: vec![Mode::Bond(0), Mode::Output(0), Mode::Input(0)],
                },
                Core { tensor: Tensor::new(s_shape, noise(r * 12, 7)), modes },
            ],
            contraction: vec![1, 0],
            row_scale: Some(noise(n * 3, 8)),
        }
    }

    /// `A_s` of quaternions (or of complex numbers), mixed by an invertible matrix.
    fn algebra(n: usize, m: usize) -> Vec<f32> {
        let mix = noise(n * n, 3);
        let mut a = vec![0.0; n * n * m];
        for s in 0..n {
            for u in 0..n {
                for b in 0..m {
                    let (row, sign) = HAMILTON[u][b + n - m];
                    a[(s * n + row) * m + b] += mix[s * n + u] * sign as f32;
                }
            }
        }
        a
    }

    #[test]
    fn fast_forms_equal_the_sum_with_the_known_number_of_products() {
        let cases = [
            (2, 2, algebra(2, 2), 2, 3, Some("complex")),
            (4, 4, algebra(4, 4), 4, 8, Some("quaternion")),
            (4, 3, algebra(4, 3), 4, 7, None),
            (4, 4, noise(64, 5), 4, 7, None),
            (2, 2, noise(4, 5), 1, 2, None),
        ];
        for (n, m, a, r, products, called) in cases {
            let plain = sum(n, m, a, r);
            assert_eq!(name(&plain), called);
            let Some(fast) = fast(&plain) else {
                assert!(products >= n * r, "{n} {m} {r}");
                continue;
            };
            assert_eq!(fast.cores[0].tensor.shape[0], products);
            let (fast, plain) = (reconstruct(&fast).unwrap(), reconstruct(&plain).unwrap());
            for (x, y) in fast.data.iter().zip(&plain.data) {
                assert!((x - y).abs() < 1e-5, "{x} {y}");
            }
        }
    }

    #[test]
    fn zero_and_extreme_tensors_give_nothing_that_is_not_finite() {
        assert!(fast(&sum(2, 2, vec![0.0; 8], 2)).is_none());
        for scale in [1e-30f32, 1e30] {
            let a = algebra(2, 2).iter().map(|x| x * scale).collect();
            let found = fast(&sum(2, 2, a, 2)).unwrap();
            assert!(found.cores.iter().all(|core| core.tensor.data.iter().all(|x| x.is_finite())));
        }
    }
}
