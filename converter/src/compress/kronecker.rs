//! Kronecker sums: `W = diag(d) * sum_s A_s (x) S_s`, the weights of hypercomplex layers.
//!
//! Takes a weight `[o, i]` or `[o, i, kh, kw]` and a number of blocks on either side; gives the terms, exactly where the weight has them. Blocks are major on both sides:
//! output `a * o / n + o'`, input `b * i / m + i'`. A layer trained as parameterised hypercomplex multiplication (Zhang et al. 2021, arXiv 2102.08597;
//! for convolutions Grassucci et al. 2021, arXiv 2110.04176), quaternions among them, is such a sum of `n` terms; one whose first inputs were
//! padded with zeros has fewer blocks of inputs than of outputs, and nothing else changes.
//!
//! The rearrangement of `W` with one row for each pair of blocks `(a, b)` and one column for each element `(o', i', kh, kw)` has as its rank the number of terms
//! (Van Loan and Pitsianis 1993). Batch norm folded into the rows hides it: row `(a, o')` is multiplied by its own `d`. Then two steps alternate: the best subspace of as many
//! dimensions as there are blocks for the rearrangement of `diag(e) W`, and for each `o'` the `e` that brings its rows closest to the subspace (inverse iteration with an `n x n` matrix),
//! until `e = 1 / d`. What of `d` is a product of a factor of `a` and one of `o'` goes into `A` and `S`.
//!
//! Where there is none, [`nearest`] imposes a sum of few terms: the truncated rearrangement, then alternating least squares over `A` and `S` in the
//! metric of the layer's input.
//!
//! Refused: nothing; a weight without this structure gives `None` and how far off it is, mostly after one pass.

use crate::graph::{Core, Mode, Network, Tensor};
use crate::linalg::{Eigen, Matrix, NotConverged, eigen, inner, product, solve};

use super::{Fit, Target};

/// Relative error up to which a structure counts as exact: some roundings of `f32`.
pub const EXACT: f64 = 3e-6;

/// A rearrangement further than this from the wanted rank has no hidden row scale: those of folded batch norms bring it to a quarter at most.
const HOPELESS: f64 = 0.5;

/// Sweeps of the alternation; a tenth suffices where there is a structure.
const SWEEPS: usize = 100;

/// Blocks on each side of a Kronecker sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Of outputs.
    pub outputs: usize,
    /// Of inputs.
    pub inputs: usize,
}

impl Blocks {
    /// The blocks of `n`-dimensional numbers for a weight: `n` on either side; where `n` does not divide a side, as many as are left when whole blocks
    /// of the next multiple of `n` are missing. `None` if neither fits.
    pub fn of(n: usize, shape: &[usize]) -> Option<Self> {
        let blocks = |extent: usize| -> Option<usize> {
            let block = extent.div_ceil(n.max(1));
            (n > 1 && block > 0 && extent.is_multiple_of(block)).then(|| extent / block)
        };
        let sides = Self { outputs: blocks(*shape.first()?)?, inputs: blocks(*shape.get(1)?)? };
        // One of the sides at least has all blocks, or it is another `n`.
        (sides.outputs.max(sides.inputs) == n && sides.outputs.min(sides.inputs) > 1).then_some(sides)
    }
}

/// A weight without the structure, or with it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The terms, if they reproduce the weight; in the order of `A` after `S`.
    pub network: Option<Network>,
    /// Relative error of the weight with as many terms as blocks; infinite if so many terms do not halve the numbers.
    pub error: f64,
}

/// The rows of a weight by pairs of blocks.
struct Rearranged {
    blocks: Blocks,
    /// Outputs of a block.
    rows: usize,
    /// Elements of a block's row: `i' * kh * kw`.
    columns: usize,
    /// `[o'][a][b][c]`, every row `(a, o')` of norm 1, or 0.
    data: Vec<f64>,
    /// `[o'][a]`.
    norms: Vec<f64>,
}

impl Rearranged {
    fn new(target: &Target<'_>, blocks: Blocks) -> Self {
        let (o, d) = (target.matrix.nrows(), target.matrix.ncols());
        let (rows, columns) = (o / blocks.outputs, d / blocks.inputs);
        let mut data = Vec::with_capacity(o * d);
        let mut norms = Vec::with_capacity(o);
        for inner in 0..rows {
            for a in 0..blocks.outputs {
                let row = (0..d).map(|j| target.matrix[(a * rows + inner, j)]);
                let largest = row.clone().fold(0.0, |most: f64, x| most.max(x.abs()));
                let scale = if largest > 0.0 { largest } else { 1.0 };
                let norm = scale * row.clone().map(|x| (x / scale).powi(2)).sum::<f64>().sqrt();
                let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
                data.extend(row.map(|x| x * inverse));
                norms.push(norm);
            }
        }
        Self { blocks, rows, columns, data, norms }
    }

    fn pairs(&self) -> usize {
        self.blocks.outputs * self.blocks.inputs
    }

    /// The pairs' elements of one `o'`, its rows multiplied by `scale`.
    fn block(&self, inner: usize, scale: &[f64]) -> Matrix {
        let (n, m, c) = (self.blocks.outputs, self.blocks.inputs, self.columns);
        let data = &self.data[inner * n * m * c..];
        Matrix::from_fn(n * m, c, |pair, k| scale[inner * n + pair / m] * data[pair * c + k])
    }

    /// Principal directions of the pairs.
    fn directions(&self, scale: &[f64]) -> Result<Eigen, NotConverged> {
        let mut gram = Matrix::zeros(self.pairs(), self.pairs());
        for inner in 0..self.rows {
            let block = self.block(inner, scale);
            gram += product(block.as_ref(), block.transpose());
        }
        eigen(gram.as_ref())
    }

    /// For each `o'` the factors of its rows that bring it closest to the subspace whose complement is `null`, from those given.
    fn rescale(&self, null: &Matrix, scale: &mut [f64]) {
        let (n, m) = (self.blocks.outputs, self.blocks.inputs);
        let ones = vec![1.0; scale.len()];
        for inner in 0..self.rows {
            let block = self.block(inner, &ones);
            let parts: Vec<Matrix> = (0..n)
                .map(|a| {
                    product(null.get(a * m..(a + 1) * m, ..).transpose(), block.get(a * m..(a + 1) * m, ..))
                })
                .collect();
            let own = &mut scale[inner * n..(inner + 1) * n];
            let alive: Vec<usize> = (0..n).filter(|a| self.norms[inner * n + a] > 0.0).collect();
            let dots = |a: usize, b: usize| crate::linalg::inner(parts[a].as_ref(), parts[b].as_ref());
            let mut normal = Matrix::from_fn(alive.len(), alive.len(), |a, b| dots(alive[a], alive[b]));
            for k in 0..alive.len() {
                normal[(k, k)] += 1e-14;
            }
            let before = Matrix::from_fn(alive.len(), 1, |k, _| own[alive[k]]);
            let after = solve(normal.as_ref(), before.as_ref());
            let size: f64 = (0..alive.len()).map(|k| after[(k, 0)].abs()).sum();
            let sum: f64 = (0..alive.len()).map(|k| after[(k, 0)]).sum();
            if size > 0.0 && size.is_finite() {
                let factor = alive.len() as f64 / size * if sum < 0.0 { -1.0 } else { 1.0 };
                alive.iter().enumerate().for_each(|(k, a)| own[*a] = after[(k, 0)] * factor);
            }
        }
        // Free: a factor of each block of outputs.
        for a in 0..n {
            let size: f64 = (0..self.rows).map(|inner| scale[inner * n + a].abs()).sum();
            if size > 0.0 && size.is_finite() {
                let factor = self.rows as f64 / size;
                (0..self.rows).for_each(|inner| scale[inner * n + a] *= factor);
            }
        }
    }
}

/// Relative error left by the first `rank` directions.
fn tail(values: &[f64], rank: usize) -> f64 {
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let all = sum(values);
    if all > 0.0 { (sum(&values[rank.min(values.len())..]) / all).sqrt() } else { 0.0 }
}

/// Looks for a Kronecker sum with these blocks.
pub fn find(target: Target<'_>, blocks: Blocks) -> Result<Finding, NotConverged> {
    let rearranged = Rearranged::new(&target, blocks);
    let largest = rearranged.norms.iter().copied().fold(0.0, f64::max);
    if !(largest.is_finite() && largest > 0.0) {
        return Ok(Finding { network: None, error: 1.0 });
    }
    // Rows as they are, then each with a factor of its own.
    let plain: Vec<f64> = rearranged.norms.iter().map(|norm| norm / largest).collect();
    let terms = blocks.outputs.max(blocks.inputs);
    // More terms than this store no fewer numbers than the weight.
    let numbers = rearranged.pairs() + rearranged.rows * rearranged.columns;
    let most = (rearranged.data.len() - 1) / numbers;
    let directions = rearranged.directions(&plain)?;
    let exact = (1..=most).find(|rank| tail(&directions.values, *rank) <= EXACT);
    let plainly = |rank| finished(&target, &rearranged, &plain, &directions, rank, false);
    if let Some(rank) = exact.filter(|rank| *rank <= terms) {
        return Ok(plainly(rank));
    }
    // Row factors hide a sum in one of more terms, if not in none.
    let none = |error| match exact {
        Some(rank) => Ok(plainly(rank)),
        None => {
            let far = 2 * terms > most;
            Ok(Finding { network: None, error: if far { f64::INFINITY } else { error } })
        }
    };
    if terms > most {
        return none(f64::INFINITY);
    }
    let unscaled = tail(&directions.values, terms);
    let mut scale = vec![1.0; plain.len()];
    let mut error = unscaled;
    let mut first = f64::INFINITY;
    for sweep in 0..SWEEPS {
        let directions = rearranged.directions(&scale)?;
        let last = error;
        error = tail(&directions.values, terms);
        if sweep == 0 {
            first = error;
            if first > HOPELESS {
                return none(unscaled.min(first));
            }
        } else if error > 0.5 * first && sweep >= 10 {
            break;
        }
        let settled = error <= EXACT && error > 0.5 * last;
        if settled || error <= 1e-8 || sweep + 1 == SWEEPS {
            let rank = (1..=terms).find(|rank| tail(&directions.values, *rank) <= EXACT);
            let Some(rank) = rank else { break };
            return Ok(finished(&target, &rearranged, &scale, &directions, rank, true));
        }
        let null = directions.vectors.get(.., terms..).to_owned();
        rearranged.rescale(&null, &mut scale);
    }
    none(unscaled.min(error))
}

/// The network of the first `rank` directions, checked against the weight.
fn finished(
    target: &Target<'_>,
    rearranged: &Rearranged,
    scale: &[f64],
    directions: &Eigen,
    rank: usize,
    hidden: bool,
) -> Finding {
    let (n, m, rows) = (rearranged.blocks.outputs, rearranged.blocks.inputs, rearranged.rows);
    // Row (a, o') of the weight is `norm / scale` times that of the sum: split into factors of a, of o', and what is left.
    let whole: Vec<f64> = match hidden {
        true => rearranged
            .norms
            .iter()
            .zip(scale)
            .map(|(norm, e)| if *e == 0.0 { 0.0 } else { norm / e })
            .collect(),
        false => {
            let largest = rearranged.norms.iter().copied().fold(0.0, f64::max);
            vec![largest; scale.len()]
        }
    };
    let logs = |k: usize| if whole[k] != 0.0 { whole[k].abs().ln() } else { 0.0 };
    let counted = |members: &mut dyn Iterator<Item = usize>| {
        let members: Vec<usize> = members.filter(|k| whole[*k] != 0.0).collect();
        members.iter().map(|k| logs(*k)).sum::<f64>() / members.len().max(1) as f64
    };
    let of_inner: Vec<f64> = (0..rows).map(|inner| counted(&mut (0..n).map(|a| inner * n + a))).collect();
    let mean = of_inner.iter().sum::<f64>() / rows as f64;
    let of_block: Vec<f64> =
        (0..n).map(|a| counted(&mut (0..rows).map(|inner| inner * n + a)) - mean).collect();
    let left = |inner: usize, a: usize| {
        let value = whole[inner * n + a];
        value * (-of_inner[inner] - of_block[a]).exp()
    };
    let basis = directions.vectors.get(.., ..rank);
    let a_core = (0..rank).flat_map(|s| (0..n * m).map(move |pair| (s, pair)));
    let a_core: Vec<f32> =
        a_core.map(|(s, pair)| (basis[(pair, s)] * of_block[pair / m].exp()) as f32).collect();
    let columns = rearranged.columns;
    let mut s_core = vec![0.0f32; rank * rows * columns];
    for inner in 0..rows {
        let coordinates = product(basis.transpose(), rearranged.block(inner, scale).as_ref());
        let factor = of_inner[inner].exp();
        for s in 0..rank {
            for k in 0..columns {
                s_core[(s * rows + inner) * columns + k] = (coordinates[(s, k)] * factor) as f32;
            }
        }
    }
    let row_scale: Vec<f32> = (0..n)
        .flat_map(|a| (0..rows).map(move |inner| (a, inner)))
        .map(|(a, inner)| left(inner, a) as f32)
        .collect();
    let network = cores(target.shape, rearranged.blocks, (rank, a_core, s_core), Some(row_scale));
    let without = Network { row_scale: None, ..network.clone() };
    let error = super::structure::relative_error(target, &network);
    let plain_error = super::structure::relative_error(target, &without);
    let (network, error) = if plain_error <= EXACT { (without, plain_error) } else { (network, error) };
    Finding { network: (error <= super::structure::FOUND).then_some(network), error }
}

/// Sweeps of the alternating least squares.
const FITS: usize = 4;

/// The Kronecker sum of so many terms (fewer where fewer reproduce the weight) that comes closest to the target in the metric of its covariance, up to
/// local optima.
pub fn nearest(target: Target<'_>, blocks: Blocks, terms: usize) -> Result<Fit, NotConverged> {
    let rearranged = Rearranged::new(&target, blocks);
    let terms = terms.clamp(1, rearranged.pairs().min(rearranged.rows * rearranged.columns));
    let largest = rearranged.norms.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let plain: Vec<f64> = rearranged.norms.iter().map(|norm| norm / largest).collect();
    let directions = rearranged.directions(&plain)?;
    // Terms beyond the weight's own rank would be rounding errors times large numbers.
    let own = directions.values.iter().filter(|value| **value > EXACT * EXACT * directions.values[0]).count();
    let terms = terms.min(own.max(1));
    let basis = directions.vectors.get(.., ..terms).to_owned();
    let mut sum =
        Sum { blocks, rows: rearranged.rows, columns: rearranged.columns, a: basis, s: Matrix::zeros(0, 0) };
    let colored = product(target.matrix.as_ref(), target.covariance.as_ref());
    for _ in 0..FITS {
        sum.fit_s(&target, &colored);
        sum.fit_a(&target, &colored);
    }
    sum.fit_s(&target, &colored);
    let network = sum.network(target.shape);
    let power = inner(colored.as_ref(), target.matrix.as_ref());
    let error = match super::network::reconstruct(&network) {
        Ok(dense) if power > 0.0 => {
            let lost = target.matrix - super::to_matrix(&dense);
            let squared = inner(product(lost.as_ref(), target.covariance.as_ref()).as_ref(), lost.as_ref());
            (squared.max(0.0) / power).sqrt()
        }
        _ => 0.0,
    };
    Ok(Fit { network, error })
}

/// Factors of a Kronecker sum while they are fitted.
struct Sum {
    blocks: Blocks,
    rows: usize,
    columns: usize,
    /// `(n m) x terms`.
    a: Matrix,
    /// `(terms columns) x rows`.
    s: Matrix,
}

impl Sum {
    fn terms(&self) -> usize {
        self.a.ncols()
    }

    /// Least squares over all `S`, which all rows of blocks share the normal matrix of.
    fn fit_s(&mut self, target: &Target<'_>, colored: &Matrix) {
        let (Blocks { outputs: n, inputs: m }, c, r) = (self.blocks, self.columns, self.terms());
        let a = |s: usize, row: usize, b: usize| self.a[(row * m + b, s)];
        let mut normal = Matrix::zeros(r * c, r * c);
        for s in 0..r {
            for t in 0..r {
                let mut block = normal.get_mut(s * c..(s + 1) * c, t * c..(t + 1) * c);
                for b in 0..m {
                    for d in 0..m {
                        let weight: f64 = (0..n).map(|row| a(s, row, b) * a(t, row, d)).sum();
                        let part = target.covariance.get(b * c..(b + 1) * c, d * c..(d + 1) * c);
                        block += faer::Scale(weight) * part;
                    }
                }
            }
        }
        let right = Matrix::from_fn(r * c, self.rows, |index, inner| {
            let (s, k) = (index / c, index % c);
            let pairs = (0..n).flat_map(|row| (0..m).map(move |b| (row, b)));
            pairs.map(|(row, b)| a(s, row, b) * colored[(row * self.rows + inner, b * c + k)]).sum()
        });
        self.s = solve(normal.as_ref(), right.as_ref());
    }

    /// Least squares over all `A`, which all blocks of outputs share the normal matrix of.
    fn fit_a(&mut self, target: &Target<'_>, colored: &Matrix) {
        let (Blocks { outputs: n, inputs: m }, c, r) = (self.blocks, self.columns, self.terms());
        let s_of = |s: usize| self.s.get(s * c..(s + 1) * c, ..);
        let mut normal = Matrix::zeros(r * m, r * m);
        for b in 0..m {
            for d in 0..m {
                let part = target.covariance.get(b * c..(b + 1) * c, d * c..(d + 1) * c);
                for t in 0..r {
                    let image = product(part, s_of(t));
                    for s in 0..r {
                        normal[(s * m + b, t * m + d)] = inner(s_of(s), image.as_ref());
                    }
                }
            }
        }
        let right = Matrix::from_fn(r * m, n, |index, row| {
            let (s, b) = (index / m, index % m);
            let block = colored.get(row * self.rows..(row + 1) * self.rows, b * c..(b + 1) * c);
            inner(block.transpose(), s_of(s))
        });
        let found = solve(normal.as_ref(), right.as_ref());
        self.a = Matrix::from_fn(n * m, r, |pair, s| found[(s * m + pair % m, pair / m)]);
    }

    fn network(&self, shape: &[usize]) -> Network {
        let (Blocks { outputs: n, inputs: m }, c, r) = (self.blocks, self.columns, self.terms());
        let a = (0..r * n * m).map(|k| self.a[(k % (n * m), k / (n * m))] as f32).collect();
        let s = (0..r * self.rows * c)
            .map(|k| self.s[(k / (self.rows * c) * c + k % c, k / c % self.rows)] as f32);
        cores(shape, self.blocks, (r, a, s.collect()), None)
    }
}

/// The network of `terms` terms with these numbers: `A` as `[s, a, b]`, `S` as `[s, o', i', kh, kw]`.
fn cores(
    shape: &[usize],
    blocks: Blocks,
    (terms, a, s): (usize, Vec<f32>, Vec<f32>),
    row_scale: Option<Vec<f32>>,
) -> Network {
    let (n, m) = (blocks.outputs, blocks.inputs);
    let window = &shape[2..];
    let s_shape = [&[terms, shape[0] / n, shape[1] / m], window].concat();
    let kernel = [Mode::KernelHeight, Mode::KernelWidth];
    let s_modes = [&[Mode::Bond(0), Mode::Output(1), Mode::Input(1)], &kernel[..window.len()]].concat();
    let a_modes = vec![Mode::Bond(0), Mode::Output(0), Mode::Input(0)];
    Network {
        format: "kronecker",
        shape: shape.to_vec(),
        cores: vec![
            Core { tensor: Tensor::new(vec![terms, n, m], a), modes: a_modes },
            Core { tensor: Tensor::new(s_shape, s), modes: s_modes },
        ],
        contraction: vec![1, 0],
        row_scale,
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::reconstruct;
    use super::super::tests::{covariance, matrix, noise};
    use super::super::to_matrix;
    use super::*;

    /// A sum of `terms` random terms whose rows have factors of their own, some of them negative.
    fn hidden(shape: &[usize], blocks: Blocks, terms: usize, scale: Option<f32>) -> Matrix {
        let (n, m) = (blocks.outputs, blocks.inputs);
        let numbers = terms * shape.iter().product::<usize>() / (n * m);
        let factors = scale.map(|spread| {
            let random = noise(shape[0], 9);
            random
                .iter()
                .enumerate()
                .map(|(k, x)| (x * spread).exp() * if k == 3 { -1.0 } else { 1.0 })
                .collect()
        });
        let parts = (terms, noise(terms * n * m, 4), noise(numbers, 5));
        to_matrix(&reconstruct(&cores(shape, blocks, parts, factors)).unwrap())
    }

    #[test]
    fn sums_are_found_behind_row_factors() {
        for (shape, n, terms) in [
            (vec![32, 16, 3, 3], 4, 4),
            (vec![32, 3, 3, 3], 4, 4),
            (vec![24, 24], 2, 2),
            (vec![48, 48], 3, 3),
            (vec![32, 32, 3, 3], 8, 8),
            (vec![32, 32, 1, 1], 4, 2),
        ] {
            let blocks = Blocks::of(n, &shape).unwrap();
            for scale in [None, Some(0.3), Some(0.8)] {
                let (m, unused) = (hidden(&shape, blocks, terms, scale), Matrix::zeros(0, 0));
                let found = find(Target::new(&shape, &m, &unused), blocks).unwrap();
                let network = found.network.unwrap_or_else(|| panic!("{shape:?} {scale:?}: {}", found.error));
                let found_terms = network.cores[0].tensor.shape[0];
                // Fewer terms than blocks leave the row factors some freedom.
                assert!(found_terms == terms || (scale.is_some() && terms < n && found_terms <= n));
                assert!(found.error < 1e-6);
                assert_eq!(network.row_scale.is_none(), scale.is_none());
            }
        }
    }

    #[test]
    fn zero_rows_and_extreme_ranges_are_no_obstacle() {
        let shape = [16, 16];
        let blocks = Blocks::of(4, &shape).unwrap();
        let unused = Matrix::zeros(0, 0);
        for scale in [1e-30, 1.0, 1e30] {
            let mut m = hidden(&shape, blocks, 2, Some(0.3)) * faer::Scale(scale);
            (0..16).for_each(|j| m[(5, j)] = 0.0);
            let found = find(Target::new(&shape, &m, &unused), blocks).unwrap();
            assert!(found.network.is_some(), "{scale} {}", found.error);
        }
        let nothing = Matrix::zeros(16, 16);
        assert!(find(Target::new(&shape, &nothing, &unused), blocks).unwrap().network.is_none());
    }

    #[test]
    fn noise_has_no_structure() {
        let (m, unused) = (matrix(32, 64, 3), Matrix::zeros(0, 0));
        for n in 2..=16 {
            let Some(blocks) = Blocks::of(n, &[32, 64]) else { continue };
            let found = find(Target::new(&[32, 64], &m, &unused), blocks).unwrap();
            assert!(found.network.is_none() && found.error > 0.3, "{n}: {}", found.error);
        }
        assert_eq!(Blocks::of(5, &[32, 64]), None);
        assert_eq!(Blocks::of(1, &[32, 64]), None);
        assert_eq!(Blocks::of(0, &[32, 64]), None);
    }

    #[test]
    fn imposed_sums_improve_with_terms_and_in_the_metric() {
        let shape = [12, 8, 2, 1];
        let (m, c) = (matrix(12, 16, 1), covariance(16, 2));
        let identity = Matrix::identity(16, 16);
        let blocks = Blocks::of(4, &shape).unwrap();
        let (aware, blind) = (Target::new(&shape, &m, &c), Target::new(&shape, &m, &identity));
        let error = |network: &Network| {
            let lost = &m - to_matrix(&reconstruct(network).unwrap());
            inner(product(lost.as_ref(), c.as_ref()).as_ref(), lost.as_ref())
        };
        let mut last = f64::INFINITY;
        for terms in 1..=12 {
            let fit = nearest(aware, blocks, terms).unwrap();
            assert!(fit.error <= last * 1.02 + 1e-9, "{terms}: {} {last}", fit.error);
            last = fit.error;
            if terms < 6 {
                assert!(error(&fit.network) < error(&nearest(blind, blocks, terms).unwrap().network));
            }
        }
        assert!(last < 1e-3, "{last}");
        let zero = Matrix::zeros(12, 16);
        let fit = nearest(Target::new(&shape, &zero, &c), blocks, 2).unwrap();
        assert!(fit.network.cores.iter().all(|core| core.tensor.data.iter().all(|x| x.is_finite())));
    }

    #[test]
    fn no_more_terms_are_imposed_than_the_weight_has() {
        let (shape, identity) = ([12, 8, 2, 1], Matrix::identity(16, 16));
        let blocks = Blocks::of(4, &shape).unwrap();
        for (c, scale) in [(covariance(16, 2), 1.0), (identity, 1e-30)] {
            let m = hidden(&shape, blocks, 2, None) * faer::Scale(scale);
            for terms in [2, 3, 16, 1000] {
                let fit = nearest(Target::new(&shape, &m, &c), blocks, terms).unwrap();
                assert_eq!(fit.network.cores[0].tensor.shape[0], 2, "{terms}");
                assert!(fit.error < 1e-5, "{terms}: {}", fit.error);
            }
            assert!(nearest(Target::new(&shape, &m, &c), blocks, 0).unwrap().error > 1e-2);
        }
    }
}
