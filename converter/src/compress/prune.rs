//! Channel pruning by interpolation: some channels stay as they are, and the layers that read the others are refitted to get them from those.
//!
//! Takes every layer that reads a set of channels ([`Reader`]: the linear map that it should be, and the covariance of its input); gives an order in which to
//! drop channels with the loss at each width ([`eliminate`]), and a reader's weight for a given choice ([`interpolated`]). A channel may stand
//! behind several columns of a reader: the positions of its window, or of a flattened image.
//!
//! With columns `R` dropped and `S` kept, the best map of what is left is `M C_{:S} C_SS^-1`, and the reader's output loses
//! `trace(M_R (C_RR - C_RS C_SS^-1 C_SR) M_R')`. So channels go that others predict linearly, whatever their size (interpolative
//! decomposition: Chee, Renz, Damle, De Sa 2022, "Model preserving compression for neural networks", arXiv 2108.00065; regression onto kept channels:
//! He, Zhang, Sun 2017, "Channel pruning for accelerating very deep neural networks", arXiv 1707.06168). The channels are chosen by greedy backward elimination:
//! with `H = C_SS^-1` and the refitted map `V`, dropping columns `c` costs `trace(V_c H_cc^-1 V_c')`, and both are brought up to date by one
//! product of low rank (the optimal brain surgeon: Hassibi, Stork 1993). All widths together cost as much as one inversion or so.

use crate::linalg::{Matrix, add_product, inner, product, solve, trace};

/// A linear layer that reads the channels.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The map that it should be, `o x (channels * columns of a channel)`; the columns of a channel stand together.
    pub matrix: Matrix,
    /// Positive definite covariance of its input rows.
    pub covariance: Matrix,
}

/// An order of dropping channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Elimination {
    /// All channels, the first to go first.
    pub order: Vec<usize>,
    /// `losses[k]`: what the readers lose without the first `k` channels, refitted: the sum over readers of squared error relative to the reader's
    /// variance. Rises from 0.
    pub losses: Vec<f64>,
}

impl Elimination {
    /// The channels left at this width, ascending.
    pub fn kept(&self, width: usize) -> Vec<usize> {
        let mut kept = self.order[self.order.len().saturating_sub(width)..].to_vec();
        kept.sort_unstable();
        kept
    }

    /// The loss at this width.
    pub fn loss(&self, width: usize) -> f64 {
        self.losses[self.order.len().saturating_sub(width)]
    }

    /// Channels that cost nothing to drop: dead, constant, or copies of others.
    pub fn free(&self) -> usize {
        const NOTHING: f64 = 1e-9;
        self.losses
            .iter()
            .skip(1)
            .take_while(|loss| **loss <= NOTHING)
            .count()
            .min(self.order.len().saturating_sub(1))
    }
}

/// A reader during elimination.
struct State {
    /// Its map, refitted to the channels that are left.
    map: Matrix,
    /// Inverse of the covariance of the columns that are left; the others are not read any more.
    inverse: Matrix,
    /// Columns of a channel.
    columns: usize,
    /// Its output's variance.
    power: f64,
}

impl State {
    fn new(reader: &Reader, channels: usize) -> Self {
        let d = reader.covariance.nrows();
        let inverse = solve(reader.covariance.as_ref(), Matrix::identity(d, d).as_ref());
        let colored = product(reader.matrix.as_ref(), reader.covariance.as_ref());
        let power = inner(colored.as_ref(), reader.matrix.as_ref());
        Self { map: reader.matrix.clone(), inverse, columns: d / channels.max(1), power }
    }

    /// What dropping `channel` adds to the loss.
    fn loss(&self, channel: usize) -> f64 {
        let (first, n) = (channel * self.columns, self.columns);
        let own = self.inverse.submatrix(first, first, n, n);
        let read = self.map.submatrix(0, first, self.map.nrows(), n);
        let squared = if n == 1 {
            read.col(0).iter().map(|v| v * v).sum::<f64>() / own[(0, 0)]
        } else {
            let gram = product(read.transpose(), read);
            trace(solve(own, gram.as_ref()).as_ref())
        };
        // Where nothing is read, or rounding has left no positive variance, nothing can be lost.
        if self.power > 0.0 && squared > 0.0 { squared / self.power } else { 0.0 }
    }

    fn drop(&mut self, channel: usize) {
        let (first, n, d) = (channel * self.columns, self.columns, self.inverse.nrows());
        let own = self.inverse.submatrix(first, first, n, n).to_owned();
        let across = self.inverse.submatrix(first, 0, n, d).to_owned();
        let read = self.map.submatrix(0, first, self.map.nrows(), n).to_owned();
        let update = -solve(own.as_ref(), across.as_ref());
        add_product(self.map.as_mut(), read.as_ref(), update.as_ref());
        add_product(self.inverse.as_mut(), across.transpose(), update.as_ref());
    }
}

/// The order in which to drop the channels that `readers` share, at least loss for each next one.
pub fn eliminate<'a>(channels: usize, readers: impl IntoIterator<Item = &'a Reader>) -> Elimination {
    let mut states: Vec<State> = readers.into_iter().map(|reader| State::new(reader, channels)).collect();
    let mut left: Vec<usize> = (0..channels).collect();
    let (mut order, mut losses) = (Vec::with_capacity(channels), vec![0.0]);
    let mut total = 0.0;
    while !left.is_empty() {
        let cost = |channel: &usize| states.iter().map(|state| state.loss(*channel)).sum::<f64>();
        let costs: Vec<f64> = left.iter().map(cost).collect();
        let cheapest = (0..left.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
        total += costs[cheapest];
        let channel = left.remove(cheapest);
        states.iter_mut().for_each(|state| state.drop(channel));
        order.push(channel);
        losses.push(total);
    }
    Elimination { order, losses }
}

/// The reader's map with the columns of `kept` channels (of `channels`) refitted to stand for all, zeros elsewhere.
pub fn interpolated(reader: &Reader, channels: usize, kept: &[usize]) -> Matrix {
    let n = reader.covariance.nrows() / channels.max(1);
    let columns: Vec<usize> = kept.iter().flat_map(|channel| channel * n..(channel + 1) * n).collect();
    let d = columns.len();
    let own = Matrix::from_fn(d, d, |i, j| reader.covariance[(columns[i], columns[j])]);
    let seen = Matrix::from_fn(reader.covariance.nrows(), d, |i, j| reader.covariance[(i, columns[j])]);
    let crossed = product(reader.matrix.as_ref(), seen.as_ref());
    let fitted = solve(own.as_ref(), crossed.transpose());
    let mut map = Matrix::zeros(reader.matrix.nrows(), reader.matrix.ncols());
    for (j, column) in columns.iter().enumerate() {
        for o in 0..map.nrows() {
            map[(o, *column)] = fitted[(j, o)];
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::{covariance, matrix};

    fn error(reader: &Reader, map: &Matrix) -> f64 {
        let lost = &reader.matrix - map;
        inner(product(lost.as_ref(), reader.covariance.as_ref()).as_ref(), lost.as_ref())
    }

    fn power(reader: &Reader) -> f64 {
        error(reader, &Matrix::zeros(reader.matrix.nrows(), reader.matrix.ncols()))
    }

    /// Two readers of 6 channels: 1x1, and a window of 3.
    fn readers() -> Vec<Reader> {
        vec![
            Reader { matrix: matrix(5, 6, 1), covariance: covariance(6, 2) },
            Reader { matrix: matrix(4, 18, 3), covariance: covariance(18, 4) },
        ]
    }

    #[test]
    fn losses_are_those_of_the_interpolated_maps_and_rise() {
        let readers = readers();
        let found = eliminate(6, &readers);
        assert!(found.losses.windows(2).all(|pair| pair[0] <= pair[1]));
        for width in 0..=6 {
            let kept = found.kept(width);
            let relative = |reader: &Reader| error(reader, &interpolated(reader, 6, &kept)) / power(reader);
            let expected: f64 = readers.iter().map(relative).sum();
            assert!((found.loss(width) - expected).abs() <= 1e-6 * expected.max(1e-6), "{width}");
        }
        assert!((found.loss(0) - 2.0).abs() < 1e-6, "nothing is left");
        assert_eq!(found.kept(6), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_reader_keeps_its_map_at_full_width() {
        for reader in readers() {
            let map = interpolated(&reader, 6, &[0, 1, 2, 3, 4, 5]);
            assert!((&map - &reader.matrix).norm_max() < 1e-6);
        }
    }

    #[test]
    fn each_step_is_the_best_of_its_kind() {
        let readers = &readers()[..1];
        let found = eliminate(6, readers);
        for width in (1..6).rev() {
            let before = found.kept(width + 1);
            let best = before
                .iter()
                .map(|gone| before.iter().copied().filter(|c| c != gone).collect::<Vec<_>>())
                .map(|kept| error(&readers[0], &interpolated(&readers[0], 6, &kept)))
                .fold(f64::INFINITY, f64::min);
            assert!((found.loss(width) * power(&readers[0]) - best).abs() <= 1e-6 * best);
        }
    }

    #[test]
    fn copies_and_dead_channels_are_free() {
        // Channel 3 is twice channel 1, channel 4 never varies.
        let mix = Matrix::from_fn(5, 3, |i, j| match i {
            1 | 3 => [1.0, 2.0, 0.5][j] * if i == 3 { 2.0 } else { 1.0 },
            4 => 0.0,
            _ => [[1.0, 0.0, 3.0], [0.0; 3], [0.3, 1.0, 0.0]][i][j],
        });
        let mut covariance = product(mix.as_ref(), mix.transpose());
        (0..5).for_each(|i| covariance[(i, i)] += 1e-12);
        let reader = Reader { matrix: matrix(4, 5, 8), covariance };
        let found = eliminate(5, [&reader]);
        assert_eq!(found.free(), 2);
        let kept = found.kept(3);
        assert!(!kept.contains(&4) && kept.contains(&1) != kept.contains(&3));
        assert!(error(&reader, &interpolated(&reader, 5, &kept)) < 1e-9 * power(&reader));
    }

    #[test]
    fn extreme_ranges_and_zero_weights_give_numbers() {
        for scale in [1e-30, 1e30] {
            let plain = &readers()[0];
            let reader = Reader {
                matrix: Matrix::from_fn(5, 6, |i, j| plain.matrix[(i, j)] * scale),
                covariance: Matrix::from_fn(6, 6, |i, j| plain.covariance[(i, j)] / scale),
            };
            let found = eliminate(6, [&reader]);
            assert_eq!(found.order, eliminate(6, &readers()[..1]).order);
        }
        let zero = Reader { matrix: Matrix::zeros(3, 6), covariance: covariance(6, 2) };
        let found = eliminate(6, [&zero]);
        assert!(found.losses.iter().all(|loss| *loss == 0.0));
        assert_eq!(found.free(), 5);
        let map = interpolated(&zero, 6, &found.kept(1));
        assert_eq!(map.norm_max(), 0.0);
        assert!(interpolated(&zero, 6, &[]).norm_max() == 0.0);
    }
}
