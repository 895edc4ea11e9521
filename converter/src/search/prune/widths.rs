//! How many channels of each group to keep.
//!
//! Takes what the layers cost as functions of the widths around them ([`Prices`]) and the loss of the network at each width of each group; gives
//! widths within limits. A layer costs the product of its neighbours' widths, so costs are never added up by group but taken of the whole graph. The search is
//! greedy (the step that loses least for what it saves), then exchanges: one group wider, another narrower, as long as that lowers the loss.

use crate::calibrate::covariance::Geometry;
use crate::graph::Graph;

use super::super::allocate::{Costs, Limits};
use super::super::refit::missing_bias;
use super::groups::Group;

/// The widths that a group may have, and what they lose.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Channels of the dense network.
    pub channels: usize,
    /// `(width, loss of the network if only this group is pruned)`, widest first.
    pub steps: Vec<(usize, f64)>,
}

/// A linear layer's cost at full width, and the groups that narrow it.
#[derive(Clone, Debug)]
struct Layer {
    macs: f64,
    weights: f64,
    bias: f64,
    rows: Option<usize>,
    columns: Option<usize>,
}

/// What a graph costs for given widths, as shares of its cost at full width.
#[derive(Clone, Debug)]
pub struct Prices {
    layers: Vec<Layer>,
    /// What no width changes.
    fixed: [f64; 2],
    whole: [f64; 2],
}

impl Prices {
    /// Costs of `graph`, with the biases that fits may add.
    pub fn new(graph: &Graph, groups: &[Group]) -> Self {
        let find = |wanted: fn(&Group) -> &Vec<usize>, index: usize| {
            groups.iter().position(|group| group.blocked.is_none() && wanted(group).contains(&index))
        };
        let mut layers = Vec::new();
        let (mut fixed_macs, mut fixed_parameters) = (0.0, 0.0);
        for (index, node) in graph.nodes.iter().enumerate() {
            let macs = graph.node_macs(node) as f64;
            let parameters = node.op.parameters() as f64;
            let rows = find(|group| &group.producers, index).or(find(|group| &group.carriers, index));
            match (node.op.dense_weight(), Geometry::of(graph, node)) {
                (Some(weight), Some(_)) => {
                    let weights = weight.len() as f64;
                    let bias = parameters - weights + missing_bias(graph, index) as f64;
                    let columns = find(|group| &group.readers, index);
                    layers.push(Layer { macs, weights, bias, rows, columns });
                }
                _ if rows.is_some() => {
                    layers.push(Layer { macs, weights: 0.0, bias: parameters, rows, columns: None });
                }
                _ => {
                    fixed_macs += macs;
                    fixed_parameters += parameters;
                }
            }
        }
        let whole = [graph.macs().max(1) as f64, graph.parameters().max(1) as f64];
        Self { layers, fixed: [fixed_macs, fixed_parameters], whole }
    }

    /// Shares of the costs that are left if group `g` keeps the share `left[g]` of its channels: bytes follow parameters,
    /// instructions follow MACs.
    pub fn shares(&self, left: &[f64]) -> Costs {
        let share = |group: Option<usize>| group.map_or(1.0, |group| left[group]);
        let mut sum = self.fixed;
        for layer in &self.layers {
            let (rows, columns) = (share(layer.rows), share(layer.columns));
            sum[0] += layer.macs * rows * columns;
            sum[1] += layer.weights * rows * columns + layer.bias * rows;
        }
        let [macs, parameters] = [sum[0] / self.whole[0], sum[1] / self.whole[1]];
        [macs, parameters, parameters, macs]
    }
}

/// A choice of widths: for each group an index into [`Curve::steps`].
pub type Plan = Vec<usize>;

/// Chooses widths.
pub struct Widths<'a> {
    /// One for each group.
    pub curves: &'a [Curve],
    /// Of the graph that the groups are of.
    pub prices: &'a Prices,
}

/// Further steps of a group that are looked at.
const REACH: usize = 4;

impl Widths<'_> {
    /// Shares of the costs.
    pub fn shares(&self, plan: &[usize]) -> Costs {
        let left = self
            .curves
            .iter()
            .zip(plan)
            .map(|(curve, step)| curve.steps[*step].0 as f64 / curve.channels as f64);
        self.prices.shares(&left.collect::<Vec<f64>>())
    }

    /// Sum of the groups' losses.
    pub fn loss(&self, plan: &[usize]) -> f64 {
        self.curves.iter().zip(plan).map(|(curve, step)| curve.steps[*step].1).sum()
    }

    /// The narrowest of all.
    pub fn narrowest(&self) -> Plan {
        self.curves.iter().map(|curve| curve.steps.len() - 1).collect()
    }

    /// Widths of (nearly) least loss within limits on costs; `None` if the narrowest are too costly.
    pub fn least_loss(&self, limits: Limits) -> Option<Plan> {
        let holds = |plan: &[usize]| excess(self.shares(plan), limits) <= 0.0;
        let mut plan = vec![0; self.curves.len()];
        while !holds(&plan) {
            let now = (self.loss(&plan), excess(self.shares(&plan), limits));
            plan = self.cheapest(&plan, |next| {
                let saved = now.1 - excess(self.shares(next), limits).max(0.0);
                (saved > 0.0).then(|| (self.loss(next) - now.0) / saved)
            })?;
        }
        self.exchange(&mut plan, |plan| if holds(plan) { self.loss(plan) } else { f64::INFINITY });
        Some(plan)
    }

    /// Widths of (nearly) least cost, each share weighted by `worth`, whose losses add up to `most` or less.
    pub fn least_cost(&self, worth: Costs, most: f64) -> Plan {
        let cost = |plan: &[usize]| {
            self.shares(plan).iter().zip(worth).map(|(cost, worth)| cost * worth).sum::<f64>()
        };
        let mut plan = vec![0; self.curves.len()];
        loop {
            let now = (self.loss(&plan), cost(&plan));
            let next = self.cheapest(&plan, |next| {
                let fits = self.loss(next) <= most && cost(next) < now.1;
                fits.then(|| (self.loss(next) - now.0) / (now.1 - cost(next)))
            });
            match next {
                Some(next) => plan = next,
                None => break,
            }
        }
        self.exchange(&mut plan, |plan| if self.loss(plan) <= most { cost(plan) } else { f64::INFINITY });
        plan
    }

    /// The narrower plan of least price that differs in one group.
    fn cheapest(&self, plan: &[usize], price: impl Fn(&[usize]) -> Option<f64>) -> Option<Plan> {
        let mut best: Option<(f64, Plan)> = None;
        for (group, curve) in self.curves.iter().enumerate() {
            for step in plan[group] + 1..curve.steps.len().min(plan[group] + 1 + REACH) {
                let mut next = plan.to_vec();
                next[group] = step;
                if let Some(price) = price(&next).filter(|price| best.as_ref().is_none_or(|b| *price < b.0)) {
                    best = Some((price, next));
                }
            }
        }
        best.map(|(_, plan)| plan)
    }

    /// Moves one group, or two at once, by a few steps as long as that lowers the objective.
    fn exchange(&self, plan: &mut Plan, objective: impl Fn(&[usize]) -> f64) {
        const LEAST_GAIN: f64 = 1e-9;
        let near = |group: usize, step: usize| {
            let last = self.curves[group].steps.len() - 1;
            step.saturating_sub(REACH)..=(step + REACH).min(last)
        };
        loop {
            let mut best = (objective(plan) * (1.0 - LEAST_GAIN), None);
            for a in 0..plan.len() {
                for to_a in near(a, plan[a]) {
                    for b in a..plan.len() {
                        for to_b in near(b, plan[b]) {
                            let mut next = plan.clone();
                            (next[a], next[b]) = (to_a, to_b);
                            let value = objective(&next);
                            if value < best.0 {
                                best = (value, Some(next));
                            }
                        }
                    }
                }
            }
            match best.1 {
                Some(next) => *plan = next,
                None => return,
            }
        }
    }
}

/// How far shares pass their limits, added up.
fn excess(shares: Costs, limits: Limits) -> f64 {
    shares.iter().zip(&limits.costs).map(|(share, limit)| (share - limit).max(0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::allocate::Cost;
    use crate::search::prune::groups::{groups, narrow};
    use crate::search::refit::tests::network;

    fn curves(groups: &[Group]) -> Vec<Curve> {
        let hurt = [1.0, 0.3, 2.0];
        let curve = |(group, hurt): (&Group, f64)| {
            let channels = group.channels;
            let loss = |width: usize| hurt * (1.0 - width as f64 / channels as f64).powi(2);
            let steps = match group.blocked {
                None => (1..=channels).rev().map(|width| (width, loss(width))).collect(),
                Some(_) => vec![(channels, 0.0)],
            };
            Curve { channels, steps }
        };
        groups.iter().zip(hurt).map(curve).collect()
    }

    #[test]
    fn costs_are_those_of_the_narrowed_graph() {
        let graph = network();
        let found = groups(&graph);
        let prices = Prices::new(&graph, &found);
        for kept in [vec![0, 1, 2, 3], vec![1, 3], vec![2]] {
            let narrowed = narrow(&graph, &found[0], &kept);
            let mut left = vec![1.0; found.len()];
            left[0] = kept.len() as f64 / 4.0;
            let [macs, parameters, ..] = prices.shares(&left);
            assert!((macs - narrowed.macs() as f64 / graph.macs() as f64).abs() < 1e-12);
            // The last layer may get a bias of ten numbers.
            let grown = (narrowed.parameters() + 10) as f64 / graph.parameters() as f64;
            assert!((parameters - grown).abs() < 1e-12);
        }
    }

    #[test]
    fn least_loss_is_near_an_exhaustive_search_and_within_limits() {
        let graph = network();
        let found = groups(&graph);
        let (curves, prices) = (curves(&found), Prices::new(&graph, &found));
        let widths = Widths { curves: &curves, prices: &prices };
        let open: Vec<usize> = (0..curves.len()).map(|group| curves[group].steps.len()).collect();
        for share in [0.9, 0.7, 0.5] {
            let limits = Limits::OPEN.with(Cost::Macs, share);
            let plan = widths.least_loss(limits).unwrap();
            assert!(widths.shares(&plan)[0] <= share);
            let mut best = f64::INFINITY;
            for code in 0..open.iter().product::<usize>() {
                let mut rest = code;
                let plan: Vec<usize> = open
                    .iter()
                    .map(|n| {
                        let step = rest % n;
                        rest /= n;
                        step
                    })
                    .collect();
                if widths.shares(&plan)[0] <= share {
                    best = best.min(widths.loss(&plan));
                }
            }
            assert!(widths.loss(&plan) <= best * 1.05 + 1e-12, "{} {best}", widths.loss(&plan));
            let cheap = widths.least_cost([0.5, 0.5, 0.0, 0.0], widths.loss(&plan));
            assert!(widths.loss(&cheap) <= widths.loss(&plan));
        }
        let nothing = Limits::OPEN.with(Cost::Macs, 1e-3);
        assert!(widths.least_loss(nothing).is_none());
    }
}
