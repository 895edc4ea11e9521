//! How many channels of each group to keep.
//!
//! Takes what the layers cost as functions of the widths around them ([`Prices`]) and the loss of the network at each width of each group; gives
//! widths within limits. A layer costs the product of its neighbours' widths, so costs are never added up by group but taken of the whole graph. The search is
//! greedy (the step that loses least for what it saves), then exchanges: one group wider, another narrower, as long as that lowers the loss.

use crate::calibrate::covariance::Geometry;
use crate::graph::{Graph, ValueId};
use crate::plan::memory::together;
use crate::search;
use crate::search::prices::{Lowered, Room};

use super::super::allocate::{Cost, Costs, Limits};
use super::super::candidates::Candidate;
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

/// What widths change the cost of: a linear layer, or a map of single channels.
#[derive(Clone, Debug)]
struct Part {
    /// Groups of its output channels and of its input channels.
    groups: [Option<usize>; 2],
    /// Costs at each step of the first group, and for it at each of the second.
    costs: Vec<Vec<Costs>>,
}

/// What a graph costs for given widths, as shares of its cost at full width.
#[derive(Clone, Debug)]
pub struct Prices {
    parts: Vec<Part>,
    /// What no width changes.
    fixed: Costs,
    /// Bytes that live at once, moment by moment, each with the group that narrows them; and how many may. Empty without a limit.
    moments: Vec<Vec<(usize, Option<usize>)>>,
    room: usize,
}

impl Prices {
    /// Costs of `graph` at every step of the groups' curves, with the biases that fits may add. Flash and instructions are
    /// those of the narrowed layers; of other steps, those at full width.
    pub fn new(graph: &Graph, groups: &[Group], curves: &[Curve], network: &search::Prices) -> Self {
        let find = |wanted: fn(&Group) -> &Vec<usize>, index: usize| {
            groups.iter().position(|group| group.blocked.is_none() && wanted(group).contains(&index))
        };
        let number = 1.0 / network.figure(Cost::Parameters, 1.0);
        let parameters = Cost::Parameters as usize;
        let (mut parts, mut fixed) = (Vec::new(), network.fixed);
        for (index, node) in graph.nodes.iter().enumerate() {
            let carried = find(|group| &group.carriers, index);
            let [rows, columns] =
                [find(|group| &group.producers, index).or(carried), find(|group| &group.readers, index)];
            let layer = node.op.dense_weight().zip(Geometry::of(graph, node));
            if layer.is_none() && rows.is_none() {
                continue;
            }
            let weights = layer.as_ref().map_or(0, |(weight, _)| weight.len());
            let bias = (node.op.parameters() - weights + missing_bias(graph, index)) as f64 * number;
            fixed[parameters] -= bias;
            let cost = |[to, from]: [Width; 2]| {
                let mut costs = layer.as_ref().map_or(Costs::default(), |(_, geometry)| {
                    let stage = narrowed(geometry, to, if carried.is_some() { to } else { from });
                    let lowered = Lowered::from(vec![stage]);
                    network.shares(&node.name, &lowered, 1, &Candidate::dense(&stage))
                });
                costs[parameters] += bias * to.0 as f64 / to.1 as f64;
                costs
            };
            let widths = |group: Option<usize>| -> Vec<Width> {
                group.map_or(vec![(1, 1)], |group| {
                    let Curve { channels, steps } = &curves[group];
                    steps.iter().map(|(width, _)| (*width, *channels)).collect()
                })
            };
            let from = widths(columns);
            let costs = |to: Width| from.iter().map(|from| cost([to, *from])).collect();
            parts
                .push(Part { groups: [rows, columns], costs: widths(rows).into_iter().map(costs).collect() });
        }
        let (mut moments, mut room) = (Vec::new(), usize::MAX);
        if let Some((memory, Room::Asked(limit))) = &network.memory {
            let of = |id: ValueId| {
                let held = |group: &Group| group.places.iter().any(|(value, _)| *value == id);
                groups.iter().position(|group| group.blocked.is_none() && held(group))
            };
            let moment =
                |live: Vec<(ValueId, usize)>| live.into_iter().map(|(id, bytes)| (bytes, of(id))).collect();
            let alike = |a, b| of(a) == of(b);
            moments = memory.moments(alike).into_iter().map(moment).collect();
            room = *limit;
        }
        Self { parts, fixed, moments, room }
    }

    /// Shares of the costs that are left at these steps of the groups.
    pub fn shares(&self, plan: &[usize]) -> Costs {
        let step = |group: Option<usize>| group.map_or(0, |group| plan[group]);
        self.parts.iter().fold(self.fixed, |mut sum, part| {
            let [rows, columns] = part.groups.map(step);
            sum.iter_mut().zip(part.costs[rows][columns]).for_each(|(sum, cost)| *sum += cost);
            sum
        })
    }

    /// The same with this many bytes for what lives at once.
    pub fn with_room(&self, room: usize) -> Self {
        Self { room, ..self.clone() }
    }

    /// Bytes that pass the limit, added up over all moments, as a share of it.
    fn crowding(&self, plan: &[usize], curves: &[Curve]) -> f64 {
        let over = self.loads(plan, curves).map(|bytes| bytes.saturating_sub(self.room));
        over.sum::<usize>() as f64 / self.room.max(1) as f64
    }

    /// Bytes that live at once, at worst, as the limit counts them: a layer whose ends are narrowed apart counts with both, although equal widths might let
    /// it write over its input. 0 without a limit.
    pub fn load(&self, plan: &[usize], curves: &[Curve]) -> usize {
        self.loads(plan, curves).max().unwrap_or(0)
    }

    /// Bytes of each moment.
    fn loads(&self, plan: &[usize], curves: &[Curve]) -> impl Iterator<Item = usize> {
        let bytes = |(bytes, group): &(usize, Option<usize>)| {
            group.map_or(*bytes, |group| {
                let Curve { channels, steps } = &curves[group];
                bytes / channels * steps[plan[group]].0
            })
        };
        self.moments.iter().map(move |live| together(live.iter().map(bytes)))
    }
}

/// Channels kept, and all of them.
type Width = (usize, usize);

/// A layer with fewer output and input channels; depthwise layers keep one group for each input channel.
fn narrowed(layer: &Geometry, to: Width, from: Width) -> Geometry {
    let part = |n: usize, (kept, all): Width| n / all * kept;
    let mut stage = *layer;
    stage.output[0] = part(layer.output[0], to);
    stage.input[0] = part(layer.input[0], from);
    if layer.groups > 1 {
        stage.groups = part(layer.groups, from);
    }
    stage
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
        self.prices.shares(plan)
    }

    /// How far a plan passes the limits on costs and on memory, added up.
    fn excess(&self, plan: &[usize], limits: Limits) -> f64 {
        let costs = self.shares(plan).into_iter().zip(limits.costs);
        costs.map(|(share, limit)| (share - limit).max(0.0)).sum::<f64>()
            + self.prices.crowding(plan, self.curves)
    }

    /// Sum of the groups' losses.
    pub fn loss(&self, plan: &[usize]) -> f64 {
        self.curves.iter().zip(plan).map(|(curve, step)| curve.steps[*step].1).sum()
    }

    /// The narrowest of all.
    pub fn narrowest(&self) -> Plan {
        self.curves.iter().map(|curve| curve.steps.len() - 1).collect()
    }

    /// Widths of (nearly) least loss within limits on costs and memory; `None` if the narrowest are too costly.
    pub fn least_loss(&self, limits: Limits) -> Option<Plan> {
        let holds = |plan: &[usize]| self.excess(plan, limits) <= 0.0;
        let mut plan = vec![0; self.curves.len()];
        while !holds(&plan) {
            let now = (self.loss(&plan), self.excess(&plan, limits));
            plan = self.cheapest(&plan, |next| {
                let saved = now.1 - self.excess(next, limits);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::prune::groups::{groups, narrow};
    use crate::search::refit::tests::network;
    use crate::search::{Method, Options};

    fn prices(graph: &Graph, curves: &[Curve], options: Options) -> Prices {
        Prices::new(graph, &groups(graph), curves, &search::Prices::of(graph, &options).unwrap())
    }

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
        let prices = prices(&graph, &curves(&found), Options::of(Method::Prune));
        for kept in [vec![0, 1, 2, 3], vec![1, 3], vec![2]] {
            let narrowed = narrow(&graph, &found[0], &kept);
            let mut plan = vec![0; found.len()];
            plan[0] = 4 - kept.len();
            let [macs, parameters, flash, ..] = prices.shares(&plan);
            assert!((macs - narrowed.macs() as f64 / graph.macs() as f64).abs() < 1e-12);
            // The last layer may get a bias of ten numbers.
            let grown = (narrowed.parameters() + 10) as f64 / graph.parameters() as f64;
            assert!((parameters - grown).abs() < 1e-12);
            let of_narrowed = search::Prices::of(&narrowed, &Options::of(Method::Prune)).unwrap();
            let of_whole = search::Prices::of(&graph, &Options::of(Method::Prune)).unwrap();
            let [narrow, whole] = [of_narrowed, of_whole].map(|prices| prices.figure(Cost::Flash, 1.0));
            assert!((flash - narrow / whole).abs() < 1e-12, "{flash} {}", narrow / whole);
        }
    }

    #[test]
    fn a_limit_on_memory_holds_and_costs_no_more_width_than_it_must() {
        let graph = network();
        let found = groups(&graph);
        let curves = curves(&found);
        let arena = |plan: &[usize]| {
            let mut narrowed = graph.clone();
            for (group, (curve, step)) in found.iter().zip(curves.iter().zip(plan)) {
                let kept: Vec<usize> = (0..curve.steps[*step].0).collect();
                if kept.len() < group.channels {
                    narrowed = narrow(&narrowed, group, &kept);
                }
            }
            crate::plan::memory::plan_of(&narrowed, None, tucano::backend::spec::select::Isa::Scalar)
                .unwrap()
                .lower_bound
        };
        let dense = arena(&vec![0; curves.len()]);
        for limit in [dense, dense * 9 / 10, dense * 3 / 4] {
            let mut options = Options::of(Method::Prune);
            options.budget.ram = Some(limit);
            let prices = prices(&graph, &curves, options);
            let widths = Widths { curves: &curves, prices: &prices };
            let plan = widths.least_loss(Limits::OPEN).unwrap();
            assert!(arena(&plan) <= limit, "{} {limit}", arena(&plan));
            assert_eq!(limit == dense, widths.loss(&plan) == 0.0);
            // Every group that was narrowed had to be.
            for group in 0..plan.len() {
                let mut wider = plan.clone();
                wider[group] = wider[group].saturating_sub(1);
                assert!(wider == plan || arena(&wider) > limit, "{plan:?}");
            }
            assert!(
                Widths { curves: &curves, prices: &prices.with_room(16) }.least_loss(Limits::OPEN).is_none()
            );
        }
    }

    #[test]
    fn least_loss_is_near_an_exhaustive_search_and_within_limits() {
        let graph = network();
        let found = groups(&graph);
        let curves = curves(&found);
        let prices = prices(&graph, &curves, Options::of(Method::Prune));
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
            let cheap = widths.least_cost([0.5, 0.5, 0.0, 0.0, 0.0], widths.loss(&plan));
            assert!(widths.loss(&cheap) <= widths.loss(&plan));
        }
        let nothing = Limits::OPEN.with(Cost::Macs, 1e-3);
        assert!(widths.least_loss(nothing).is_none());
    }
}
