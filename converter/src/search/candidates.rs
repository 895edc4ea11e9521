//! The formats and ranks worth trying for one layer, with what they cost and the output error that they cause.
//!
//! Takes a layer's matrix and input covariance; gives candidates that cost less than the dense layer in MACs or in numbers, and hardly more (`SLACK`)
//! in the other, thinned to those that no other one beats in all respects. Their errors come from one decomposition a format (and input rank) where
//! that tells them; formats that are fitted iteratively bring the fitted network along.

use std::sync::Arc;

use crate::calibrate::covariance::Geometry;
use crate::compress::cp::Cp;
use crate::compress::depthwise::Depthwise;
use crate::compress::full_tucker::FullTucker;
use crate::compress::kronecker::{self, Blocks};
use crate::compress::low_rank::LowRank;
use crate::compress::one_way::OneWay;
use crate::compress::tucker::InputBasis;
use crate::compress::{Choice, Fit, Target, structure};
use crate::graph::Network;
use crate::linalg::NotConverged;
use crate::lower::{network_macs, network_parameters};

use super::Method;
use super::fisher::Metric;
use super::packing::{Side, pack};
use super::stages::stages;

/// How much more of one cost than the dense layer a candidate may have that saves of the other.
const SLACK: f64 = 1.05;

/// Smallest share of the dense layer's numbers that Tucker ranks are packed into.
const LEAST_SHARE: f64 = 0.03;

/// One way to store a layer's weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Format and ranks.
    pub choice: Choice,
    /// Multiply-adds of one inference.
    pub macs: u64,
    /// Numbers in the weight.
    pub weights: usize,
    /// Relative RMS error of the layer's output when its input is undisturbed.
    pub error: f64,
    /// The network for the layer as it was trained, where finding it took a fit.
    pub network: Option<Arc<Network>>,
}

impl Candidate {
    /// The layer as it is.
    pub fn dense(geometry: &Geometry) -> Self {
        let (macs, weights) = cost(geometry, Choice::Dense);
        Self { choice: Choice::Dense, macs, weights, error: 0.0, network: None }
    }
}

/// MACs of one inference and numbers of the weight, stage by stage as `lower` will place them.
pub fn cost(geometry: &Geometry, choice: Choice) -> (u64, usize) {
    let [i, h, w] = geometry.input;
    let [o, oh, ow] = geometry.output;
    let (before, after) = (geometry.images * h * w, geometry.images * oh * ow);
    let window = geometry.kernel[0] * geometry.kernel[1];
    let row = geometry.row_len();
    let stages = match choice {
        // What was found in a weight brings its own cost.
        Choice::Dense | Choice::Given => vec![(o * row, after)],
        Choice::LowRank(rank) => vec![(rank * row, after), (o * rank, after)],
        Choice::Cp(rank) => vec![(rank * i, before), (rank * window + o * rank, after)],
        Choice::OneWay(rank) => {
            vec![
                (rank * i * geometry.kernel[0], geometry.images * oh * w),
                (o * rank * geometry.kernel[1], after),
            ]
        }
        Choice::Depthwise(filters, rank) => {
            let inner = filters * i;
            match rank {
                None => vec![(inner * window, after), (o * inner, after)],
                Some(rank) => vec![(inner * window, after), (rank * inner, after), (o * rank, after)],
            }
        }
        Choice::FullTucker(input, windows, output) => {
            let inner = input * windows;
            let last = match output {
                None => vec![(o * inner, after)],
                Some(output) => vec![(output * inner, after), (o * output, after)],
            };
            [vec![(input * i, before), (inner * window, after)], last].concat()
        }
        Choice::Kronecker(n, terms) => {
            let shape = [o, i / geometry.groups, geometry.kernel[0], geometry.kernel[1]];
            let Some(Blocks { outputs, inputs }) = Blocks::of(n, &shape) else { return (0, 0) };
            let (s, a) = (terms * (o * row / outputs / inputs), terms * outputs * inputs);
            let macs = (s * inputs + a * (o / outputs) + o) * after;
            return (macs as u64, s + a + o);
        }
        Choice::Tucker(input, None) => vec![(input * i, before), (o * input * window, after)],
        Choice::Tucker(input, Some(output)) => {
            vec![(input * i, before), (output * input * window, after), (o * output, after)]
        }
    };
    stages.iter().fold((0, 0), |(macs, weights), (numbers, positions)| {
        (macs + (numbers * positions) as u64, weights + numbers)
    })
}

/// Kernels work on whole words: ranks of an axis of extent `n` are multiples of this.
fn quantum(n: usize) -> usize {
    match n {
        0..16 => 1,
        16..32 => 2,
        _ => 4,
    }
}

/// Ranks between 1 and `limit - 1` for an axis of extent `n`: sixteenths of it and, below one eighth, a geometric grid; multiples of 4 (or 2) where
/// the axis is wide enough, because kernels work on whole words.
fn ranks(n: usize, limit: usize) -> Vec<usize> {
    let quantum = quantum(n);
    let fine = [1.0 / 64.0, 1.0 / 48.0, 1.0 / 32.0, 1.0 / 24.0, 1.0 / 12.0, 5.0 / 48.0];
    let mut found: Vec<usize> = (1..16)
        .map(|k| k as f64 / 16.0)
        .chain(fine)
        .map(|share| ((share * n as f64 / quantum as f64).round() as usize).max(1) * quantum)
        .chain((n < 16).then_some(1))
        .filter(|rank| *rank < limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Largest rank of `W = B A` that still saves numbers: `o * d / (o + d)`, rounded up, less one.
pub fn break_even(geometry: &Geometry) -> usize {
    let (o, d) = (geometry.output[0], geometry.row_len());
    (o * d).div_ceil((o + d).max(1))
}

/// Ranks of formats whose rank may exceed the layer's extents: from a quarter of `n` to `2.5 n`, finer below.
fn wide_ranks(n: usize) -> Vec<usize> {
    let shares = [
        0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5625, 0.625, 0.6875, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75,
        2.0, 2.5,
    ];
    let quantum = if n < 16 { 2 } else { 4 };
    let rank = |share: f64| ((share * n as f64 / quantum as f64).round() as usize).max(1) * quantum;
    let mut found: Vec<usize> = shares.into_iter().map(rank).collect();
    found.dedup();
    found
}

/// Instructions of a layer that is lowered to these stages.
pub type Price<'a> = &'a (dyn Fn(&[Geometry]) -> u64 + Sync);

/// Candidates of one layer as they come up.
struct Offers<'a> {
    geometry: &'a Geometry,
    /// What the targets were weighted by.
    metric: Option<&'a Metric>,
    price: Price<'a>,
    dense: Candidate,
    found: Vec<Candidate>,
}

impl Offers<'_> {
    /// Costs of a choice that saves something and costs nowhere much more than the dense layer.
    fn saves(&self, choice: Choice) -> Option<(u64, usize)> {
        let (macs, weights) = cost(self.geometry, choice);
        let shares =
            [macs as f64 / self.dense.macs.max(1) as f64, weights as f64 / self.dense.weights.max(1) as f64];
        let worth = shares.iter().any(|share| *share < 1.0) && shares.iter().all(|share| *share <= SLACK);
        worth.then_some((macs, weights))
    }

    fn saving(&self, choices: impl IntoIterator<Item = Choice>) -> Vec<Choice> {
        choices.into_iter().filter(|choice| self.saves(*choice).is_some()).collect()
    }

    fn push(&mut self, choice: Choice, error: f64, network: Option<Network>) {
        if let Some((macs, weights)) = self.saves(choice) {
            self.found.push(Candidate { choice, macs, weights, error, network: network.map(Arc::new) });
        }
    }

    fn predicted(&mut self, choice: Choice, squared: f64, power: f64) {
        self.push(choice, if power > 0.0 { (squared.max(0.0) / power).sqrt() } else { 0.0 }, None);
    }

    fn fitted(&mut self, choice: Choice, fit: Fit) {
        let network = match self.metric {
            Some(metric) => metric.undone(&fit.network),
            None => Some(fit.network),
        };
        self.push(choice, fit.error, network);
    }

    /// What the weight is made of already loses nothing, so it need not save MACs too.
    fn found(&mut self, method: Method, target: Target<'_>) -> Result<(), NotConverged> {
        for found in structure::find(target, method, self.geometry)?.found {
            let (input, output) = self.geometry.shapes(target.shape.len());
            self.found.push(Candidate {
                choice: Choice::Given,
                macs: network_macs(&found.network, &input, &output),
                weights: network_parameters(&found.network),
                error: found.error,
                network: Some(Arc::new(found.network)),
            });
        }
        Ok(())
    }

    /// Kronecker sums of few terms, imposed on the weight.
    fn kronecker(&mut self, given: Option<usize>, target: Target<'_>) -> Result<(), NotConverged> {
        for n in given.map_or_else(|| vec![2, 4], |n| vec![n]) {
            let Some(blocks) = Blocks::of(n, target.shape) else { continue };
            let terms: Vec<usize> = if n <= 4 { (1..=n).collect() } else { vec![1, n / 4, n / 2, n] };
            for choice in self.saving(terms.into_iter().map(|terms| Choice::Kronecker(n, terms))) {
                // No single core has all outputs, so it is fitted without the metric.
                let Fit { network, error } = kronecker::nearest(target, blocks, choice.ranks()[1])?;
                self.push(choice, error, Some(network));
            }
        }
        Ok(())
    }

    fn low_rank(&mut self, target: Target<'_>) -> Result<(), NotConverged> {
        let n = self.geometry.output[0].min(self.geometry.row_len());
        let grid = self.saving(ranks(n, n).into_iter().map(Choice::LowRank));
        if !grid.is_empty() {
            let errors = LowRank::new(target)?.squared_errors();
            for choice in grid {
                self.predicted(choice, errors[choice.ranks()[0]], errors[0]);
            }
        }
        Ok(())
    }

    /// Tucker of two and of three modes. The ranks of the channels (and windows) are packed into budgets of numbers and of MACs.
    fn tucker(&mut self, target: Target<'_>) -> Result<(), NotConverged> {
        let [o, i] = [self.geometry.output[0], self.geometry.input[0]];
        let positions: usize = self.geometry.kernel.iter().product();
        let area = |[_, h, w]: [usize; 3]| (h * w).max(1) as f64;
        // MACs of a number of the input factor, in MACs of one of the window.
        let dearer = area(self.geometry.input) / area(self.geometry.output);
        let all = FullTucker::new(target)?;
        let [output, input, window] = all.spectra();
        let word = |n: usize, rank: usize| (rank.div_ceil(quantum(n)) * quantum(n)).min(n);
        let dense = (o * i * positions) as f64;
        let budgets = |steps: usize| {
            (0..steps).map(move |k| dense * LEAST_SHARE.powf(1.0 - k as f64 / (steps - 1) as f64))
        };
        let mut two: Vec<Choice> = ranks(i, i).into_iter().map(|input| Choice::Tucker(input, None)).collect();
        let mut three = Vec::new();
        for share in [1.0, dearer] {
            let output = Side { values: output, price: o as f64 };
            let input = Side { values: input, price: i as f64 * share };
            for budget in budgets(24) {
                if let Some(found) = pack(&[output, input], positions as f64, budget) {
                    two.push(Choice::Tucker(word(i, found[1]), Some(word(o, found[0]))));
                }
            }
            let window = Side { values: window, price: 0.0 };
            for budget in budgets(8) {
                if let Some(found) = pack(&[output, input, window], 1.0, budget) {
                    three.push(Choice::FullTucker(word(i, found[1]), found[2], Some(word(o, found[0]))));
                }
            }
        }
        for choices in [&mut two, &mut three] {
            choices.sort_unstable();
            choices.dedup();
        }
        let basis = InputBasis::new(target)?;
        for same_input in self.saving(two).chunk_by(|a, b| a.ranks()[0] == b.ranks()[0]) {
            let projected = basis.project(same_input[0].ranks()[0])?;
            let errors = projected.squared_errors();
            for choice in same_input {
                let output = choice.ranks().get(1).copied().unwrap_or(o);
                self.predicted(*choice, errors[output], projected.power());
            }
        }
        for choice in self.saving(three) {
            if let Choice::FullTucker(input, window, output) = choice {
                self.fitted(choice, all.restrict(input, window)?.fit(output));
            }
        }
        Ok(())
    }

    fn cp(&mut self, target: Target<'_>) -> Result<(), NotConverged> {
        let [o, i] = [self.geometry.output[0], self.geometry.input[0]];
        let grid = self.saving(wide_ranks(o.max(i)).into_iter().map(Choice::Cp));
        if !grid.is_empty() {
            let wanted: Vec<usize> = grid.iter().flat_map(|choice| choice.ranks()).collect();
            for fit in Cp::new(target)?.chain(&wanted)? {
                let rank = fit.network.cores[0].tensor.shape[0];
                self.fitted(Choice::Cp(rank), fit);
            }
        }
        Ok(())
    }

    fn one_way(&mut self, target: Target<'_>) -> Result<(), NotConverged> {
        let [o, i] = [self.geometry.output[0], self.geometry.input[0]];
        let most = (i * self.geometry.kernel[0]).min(o * self.geometry.kernel[1]);
        let n = if i * 2 > o { o.max(i) } else { o.min(most) };
        let limit = most.min(2 * n);
        let grid = self.saving(ranks(n, limit).into_iter().chain([n]).map(Choice::OneWay));
        if !grid.is_empty() {
            let all = OneWay::new(target)?;
            for choice in grid {
                self.fitted(choice, all.fit(choice.ranks()[0]));
            }
        }
        Ok(())
    }

    fn depthwise(&mut self, target: Target<'_>) -> Result<(), NotConverged> {
        let o = self.geometry.output[0];
        let positions: usize = self.geometry.kernel.iter().product();
        let filters = (1..positions.min(6))
            .filter(|filters| self.saves(Choice::Depthwise(*filters, Some(1))).is_some())
            .collect::<Vec<_>>();
        if filters.is_empty() {
            return Ok(());
        }
        let all = Depthwise::new(target)?;
        for filters in filters {
            let filtered = all.fit(filters)?;
            for rank in ranks(o, o).into_iter().map(Some).chain([None]) {
                let choice = Choice::Depthwise(filters, rank);
                if self.saves(choice).is_some() {
                    self.fitted(choice, filtered.fit(rank));
                }
            }
        }
        Ok(())
    }

    /// What else a candidate costs: elements that live while the widest stage runs, and instructions.
    fn other_costs(&self, candidate: &Candidate) -> (usize, u64) {
        let elements = |shape: [usize; 3]| shape.iter().product::<usize>();
        let stages = stages(self.geometry, candidate.choice);
        let load = stages.iter().map(|stage| elements(stage.input) + elements(stage.output)).max();
        (load.unwrap_or(0), (self.price)(&stages))
    }

    /// The dense layer, then what no other candidate that costs no more in any respect, memory and instructions included, beats in error, least error
    /// first.
    fn thinned(mut self) -> Vec<Candidate> {
        self.found.sort_by(|a, b| {
            a.error.total_cmp(&b.error).then(a.macs.cmp(&b.macs)).then(a.weights.cmp(&b.weights))
        });
        let mut kept: Vec<((usize, u64), Candidate)> = Vec::new();
        for candidate in std::mem::take(&mut self.found) {
            let (load, instructions) = self.other_costs(&candidate);
            let beaten = |((other_load, other_instructions), other): &((usize, u64), Candidate)| {
                other.macs <= candidate.macs
                    && other.weights <= candidate.weights
                    && *other_load <= load
                    && *other_instructions <= instructions
            };
            if !kept.iter().any(beaten) {
                kept.push(((load, instructions), candidate));
            }
        }
        std::iter::once(self.dense).chain(kept.into_iter().map(|(_, candidate)| candidate)).collect()
    }
}

/// The dense layer first, then all candidates that are not beaten, least error first; errors are those in `metric` if there is one, instructions those
/// of `price`.
pub fn candidates(
    method: Method,
    geometry: &Geometry,
    target: Target<'_>,
    metric: Option<&Metric>,
    price: Price<'_>,
) -> Result<Vec<Candidate>, NotConverged> {
    let mut offers = Offers { geometry, metric, price, dense: Candidate::dense(geometry), found: Vec::new() };
    let pointwise = geometry.kernel == [1, 1];
    if geometry.groups == 1 {
        offers.found(method, target)?;
        if let Method::Hypercomplex(given) = method {
            offers.kronecker(given, target)?;
        }
    }
    let weighted = metric.map(|metric| metric.weighted(target.matrix));
    let target = Target { matrix: weighted.as_ref().unwrap_or(target.matrix), ..target };
    if geometry.groups == 1 {
        if method.allows(Method::LowRank) && (pointwise || method != Method::LowRank) {
            offers.low_rank(target)?;
        }
        if !pointwise && method.allows(Method::Tucker) {
            offers.tucker(target)?;
        }
        if !pointwise && method.allows(Method::Cp) {
            offers.cp(target)?;
        }
        if !pointwise && method.allows(Method::OneWay) {
            offers.one_way(target)?;
        }
        if !pointwise && method.allows(Method::DepthwisePointwise) {
            offers.depthwise(target)?;
        }
    }
    Ok(offers.thinned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::build;
    use crate::compress::tests::{covariance, matrix};
    use crate::graph::Weight;
    use crate::lower::network_macs;

    #[test]
    fn costs_are_those_of_the_lowered_network_and_below_dense() {
        let geometry = Geometry {
            images: 1,
            input: [6, 9, 7],
            output: [8, 5, 7],
            kernel: [3, 3],
            strides: [2, 1],
            pads: [1, 1],
            dilations: [1, 1],
            groups: 1,
        };
        let shape = [8, 6, 3, 3];
        let (m, c) = (matrix(8, 54, 1), covariance(54, 2));
        let target = Target::new(&shape, &m, &c);
        let found = candidates(Method::Auto, &geometry, target, None, &|_| 0).unwrap();
        assert!(found.len() > 3);
        for one in &found[1..] {
            assert!(one.macs < found[0].macs || one.weights < found[0].weights);
            assert!(one.macs as f64 <= SLACK * found[0].macs as f64);
            assert!(one.weights as f64 <= SLACK * found[0].weights as f64);
        }
        let fixed = [
            Choice::LowRank(3),
            Choice::Tucker(2, None),
            Choice::Tucker(4, Some(5)),
            Choice::Cp(7),
            Choice::OneWay(4),
            Choice::Depthwise(2, None),
            Choice::Depthwise(3, Some(5)),
            Choice::FullTucker(4, 3, Some(5)),
            Choice::FullTucker(3, 2, None),
        ];
        for choice in found[1..].iter().map(|one| one.choice).chain(fixed) {
            let Weight::Network(network) = build(choice, target).unwrap() else { panic!() };
            let macs = network_macs(&network, &[1, 6, 9, 7], &[1, 8, 5, 7]);
            assert_eq!(cost(&geometry, choice), (macs, Weight::Network(network).parameters()));
        }
        assert_eq!(candidates(Method::LowRank, &geometry, target, None, &|_| 0).unwrap().len(), 1);
    }

    #[test]
    fn square_layer_breaks_even_at_half_its_width() {
        let geometry = Geometry {
            images: 1,
            input: [64, 1, 1],
            output: [64, 1, 1],
            kernel: [1, 1],
            strides: [1, 1],
            pads: [0, 0],
            dilations: [1, 1],
            groups: 1,
        };
        assert_eq!(break_even(&geometry), 32);
        let (m, c) = (matrix(64, 64, 1), covariance(64, 2));
        let target = Target::new(&[64, 64], &m, &c);
        let found = candidates(Method::LowRank, &geometry, target, None, &|_| 0).unwrap();
        assert!(found.iter().all(|c| c.choice.ranks().iter().all(|rank| *rank < 32)));
    }
}
