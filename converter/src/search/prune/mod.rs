//! Channel pruning: which channels, how many of each group, and the refit of what is left.
//!
//! Takes a graph with dense weights and calibration samples; gives a graph with the same nodes and fewer channels. In order:
//!
//! 1. [`groups`]: which layers share channels;
//! 2. [`compress::prune`]: for each group an order of dropping channels, in the metric of the readers' inputs;
//! 3. the loss of the network with only one group pruned, measured at a few widths and interpolated along the readers' error;
//! 4. [`widths`]: widths within the budget, by the cost of the whole graph;
//! 5. `refit`: layer by layer, on what the pruned network feeds it, towards the dense network's outputs.
//!
//! [`Pruner`] does 1 to 3 once; any number of budgets may then be asked for. Refused: data that is not finite, budgets that the narrowest widths pass.

pub mod groups;
mod refit;
pub mod widths;

use std::collections::HashMap;

use crate::calibrate::Dataset;
use crate::calibrate::covariance::{Geometry, Moments, moments};
use crate::compress::{
    self,
    prune::{Elimination, Reader, eliminate, interpolated},
};
use crate::evaluate::{Values, evaluate, evaluate_from};
use crate::graph::{Graph, ValueId, Weight};
use crate::linalg::{Matrix, product};

use super::allocate::{Cost, Costs, Row};

use super::loss::Loss;
use super::prices::{Room, Wish};
use super::refit::{bias, set};
use super::strategy::{Shrunk, Strategy};
use super::tradeoff::Point;
use super::{Error, LayerReport, Progress, WORTH};
use crate::search;
use groups::{Group, groups as groups_of, narrow};
use refit::Kept;
use widths::{Curve, Plan, Prices, Widths};

/// Samples that a loss is measured on.
const SAMPLES: usize = 128;
/// Shares of a group's channels at which the loss is measured.
const MEASURED: [f64; 6] = [0.94, 0.85, 0.7, 0.55, 0.4, 0.25];
/// Groups at least this wide change in steps of [`LANES`] channels.
const WIDE: usize = 16;
/// Channels that kernels work on together.
const LANES: usize = 4;
/// Predicted networks of the trade-off curve, each with twice the loss of the one two before.
const POINTS: usize = 32;
/// Variance, as a share of the largest, up to which a column counts as constant.
const CONSTANT: f64 = 1e-10;

/// A network whose channels are ranked.
pub struct Pruner<'a> {
    graph: &'a Graph,
    /// All groups; those that are blocked have no ranking and stay.
    pub groups: Vec<Group>,
    rankings: Vec<Option<Ranking>>,
    curves: Vec<Curve>,
    prices: Prices,
    network: &'a search::Prices,
}

/// The readers of one group, and the order in which its channels go.
struct Ranking {
    readers: Vec<Seen>,
    order: Elimination,
}

/// A pruned network.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The same nodes and values, with fewer channels.
    pub graph: Graph,
    /// Channels kept of each group, ascending.
    pub kept: Vec<Vec<usize>>,
    /// Relative RMS error of each node that was refitted.
    pub errors: Vec<Option<f64>>,
}

impl<'a> Pruner<'a> {
    /// Ranks the channels of `graph` on calibration inputs and measures what they are worth.
    pub fn new(
        graph: &'a Graph,
        data: &Dataset,
        loss: Loss,
        network: &'a search::Prices,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let (inputs, samples) = (&data.inputs, data.samples);
        let groups = groups_of(graph);
        let ids: Vec<ValueId> = graph.nodes.iter().map(|node| node.output).collect();
        let outputs = ids.iter().copied().zip(evaluate(graph, inputs, samples, &ids));
        let values: Values =
            outputs.chain(graph.inputs.iter().copied().zip(inputs.iter().cloned())).collect();
        let (mut rankings, mut curves) = (Vec::new(), Vec::new());
        progress.expect(groups.iter().filter(|group| group.blocked.is_none()).count());
        for group in &groups {
            if group.blocked.is_some() {
                rankings.push(None);
                curves.push(Curve { channels: group.channels, steps: vec![(group.channels, 0.0)] });
                continue;
            }
            progress.step(&format!("ranking the channels of {}", graph.nodes[group.producers[0]].name));
            let (readers, unseen) = readers(graph, group, &values, samples)?;
            let order = eliminate(group.channels, readers.iter().map(|seen| &seen.reader));
            curves.push(curve(graph, group, &order, &unseen, &values, samples, loss));
            rankings.push(Some(Ranking { readers, order }));
        }
        let prices = Prices::new(graph, &groups, &curves, network);
        Ok(Self { graph, groups, rankings, curves, prices, network })
    }

    fn widths(&self) -> Widths<'_> {
        Widths { curves: &self.curves, prices: &self.prices }
    }

    /// The channels of each group that a plan keeps.
    fn kept(&self, plan: &[usize]) -> Vec<Vec<usize>> {
        let widths = self.curves.iter().zip(plan).map(|(curve, step)| curve.steps[*step].0);
        let groups = self.groups.iter().zip(&self.rankings).zip(widths);
        let channels = groups.map(|((group, ranking), width)| match ranking {
            Some(ranking) if width < group.channels => ranking.order.kept(width),
            _ => (0..group.channels).collect(),
        });
        channels.collect()
    }

    /// The graph with these channels alone.
    fn narrowed(&self, mut graph: Graph, kept: &[Vec<usize>]) -> Graph {
        for (group, channels) in self.groups.iter().zip(kept) {
            if channels.len() < group.channels {
                graph = narrow(&graph, group, channels);
            }
        }
        graph
    }

    /// Bytes of a plan's arena.
    fn arena(&self, plan: &[usize]) -> Result<usize, Error> {
        self.network.arena(&self.narrowed(self.graph.clone(), &self.kept(plan)))
    }

    /// The network of these widths, refitted.
    pub fn prune(&self, plan: &[usize], data: &Dataset, progress: &dyn Progress) -> Result<Pruned, Error> {
        let mut graph = self.graph.clone();
        let mut gone: Kept = vec![None; graph.values.len()];
        let kept = self.kept(plan);
        for ((group, ranking), channels) in self.groups.iter().zip(&self.rankings).zip(&kept) {
            if let Some(ranking) = ranking.as_ref().filter(|_| channels.len() < group.channels) {
                ranking.readers.iter().for_each(|seen| seen.interpolate(&mut graph, channels));
                for (id, place) in &group.places {
                    gone[id.0] = Some((*place, channels.clone()));
                }
            }
        }
        let graph = self.narrowed(graph, &kept);
        progress.expect(search::sensitivity::linear_layers(&graph).count());
        let (graph, errors) = refit::refit(self.graph, &graph, &gone, &data.inputs, data.samples, progress)?;
        Ok(Pruned { graph, kept, errors })
    }
}

impl Strategy for Pruner<'_> {
    fn predicted(&self) -> Vec<Point> {
        let widths = self.widths();
        let all: f64 = widths.loss(&widths.narrowest());
        let plans =
            (0..POINTS).map(|k| widths.least_cost(WORTH, all * (-0.5 * (POINTS - 1 - k) as f64).exp2()));
        let mut plans: Vec<Plan> = plans.collect();
        plans.dedup();
        let (macs, parameters) = (self.graph.macs() as f64, self.graph.parameters() as f64);
        let point = |plan: &Plan| {
            let shares = widths.shares(plan);
            Point {
                parameters: (shares[Cost::Parameters as usize] * parameters).round() as usize,
                macs: (shares[Cost::Macs as usize] * macs).round() as u64,
                loss: widths.loss(plan),
                judgement: None,
            }
        };
        plans.iter().map(point).collect()
    }

    fn expected(&self, plan: &[usize]) -> Row {
        let widths = self.widths();
        Row { costs: widths.shares(plan), loss: widths.loss(plan) }
    }

    fn untouched(&self) -> Plan {
        vec![0; self.groups.len()]
    }

    fn least(&self, cost: Cost) -> f64 {
        let widths = self.widths();
        widths.shares(&widths.narrowest())[cost as usize]
    }

    fn least_arena(&self) -> Result<(usize, Option<usize>), Error> {
        let narrowest = self.widths().narrowest();
        let counted = self.prices.load(&narrowest, &self.curves);
        Ok((self.arena(&narrowest)?.max(counted), None))
    }

    fn least_loss(&self, wish: Wish) -> Option<Plan> {
        let limits = wish.limits;
        let Some((_, Room::Asked(limit))) = self.network.memory else {
            return self.widths().least_loss(limits);
        };
        let mut room = limit;
        loop {
            let prices = self.prices.with_room(room);
            let plan = Widths { curves: &self.curves, prices: &prices }.least_loss(limits)?;
            // Gaps between blocks may pass what lives at once.
            let over = self.arena(&plan).ok()?.saturating_sub(limit);
            if over == 0 {
                return Some(plan);
            }
            room = room.checked_sub(over)?;
        }
    }

    fn least_cost(&self, worth: Costs, loss: f64) -> Plan {
        self.widths().least_cost(worth, loss)
    }

    fn fit(&mut self, plan: &[usize], data: &Dataset, progress: &dyn Progress) -> Result<Shrunk, Error> {
        let pruned = self.prune(plan, data, progress)?;
        let layers = report(self.graph, self, &pruned);
        Ok(Shrunk { graph: pruned.graph, layers })
    }
}

/// A reader as some samples show it.
struct Seen {
    node: usize,
    reader: Reader,
    channels: usize,
    mean: Vec<f64>,
}

impl Seen {
    /// Gives the reader the weights and the bias that make the channels `kept` stand for all.
    fn interpolate(&self, graph: &mut Graph, kept: &[usize]) {
        let op = &mut graph.nodes[self.node].op;
        let Some(tensor) = op.dense_weight() else { return };
        let (old, shape) = (compress::to_matrix(tensor), tensor.shape.clone());
        let map = interpolated(&self.reader, self.channels, kept);
        let mean = Matrix::from_fn(map.ncols(), 1, |j, _| self.mean[j]);
        let shift = product((old - &map).as_ref(), mean.as_ref());
        let bias: Vec<f32> =
            bias(op, shape[0]).iter().enumerate().map(|(o, b)| (b + shift[(o, 0)]) as f32).collect();
        set(op, Weight::Dense(compress::to_tensor(&map, &shape)), &bias);
    }
}

/// The readers of a group on all samples and, to judge widths on the others, on the even ones.
fn readers(
    graph: &Graph,
    group: &Group,
    values: &Values,
    samples: usize,
) -> Result<(Vec<Seen>, Vec<Seen>), Error> {
    let (mut all, mut even) = (Vec::new(), Vec::new());
    for index in &group.readers {
        let node = &graph.nodes[*index];
        let (Some(mut geometry), Some(tensor)) = (Geometry::of(graph, node), node.op.dense_weight()) else {
            continue;
        };
        // The covariance alone is wanted.
        geometry.output[0] = 0;
        let folds = moments(&geometry, 0, &values[&node.inputs[0]], &[], samples, 2).ok_or_else(|| {
            let reason = "its input is not finite on the calibration data".into();
            Error::Fit { node: node.name.clone(), op: node.op.name(), reason }
        })?;
        let seen = |moments: &Moments| {
            let covariance = moments.covariance();
            let damped = covariance.damped(match moments.count / covariance.mean_x.len() as f64 {
                0.0..1.0 => 0.3,
                1.0..20.0 => 0.03,
                _ => 1e-3,
            });
            let most = (0..damped.nrows()).map(|j| covariance.xx[(j, j)]).fold(0.0, f64::max);
            let mut matrix = compress::to_matrix(tensor);
            // What never varies is the bias's business.
            for j in (0..matrix.ncols()).filter(|j| covariance.xx[(*j, *j)] <= CONSTANT * most) {
                matrix.col_mut(j).fill(0.0);
            }
            let reader = Reader { matrix, covariance: damped };
            Seen { node: *index, reader, channels: group.channels, mean: covariance.mean_x }
        };
        all.push(seen(&folds[0].merged(&folds[1])));
        even.push(seen(&folds[0]));
    }
    Ok((all, even))
}

/// The network's loss at the widths that a group may have.
fn curve(
    graph: &Graph,
    group: &Group,
    order: &Elimination,
    readers: &[Seen],
    values: &Values,
    samples: usize,
    loss: Loss,
) -> Curve {
    let channels = group.channels;
    let step = if channels >= WIDE { LANES } else { 1 };
    let alive = channels - order.free();
    let mut candidates: Vec<usize> = (1..=channels).filter(|width| width % step == 0).collect();
    candidates.extend([channels, alive]);
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    candidates.dedup();
    // What is free to drop is dropped.
    candidates.retain(|width| *width <= alive.next_multiple_of(step));

    // Losses are measured on samples that the weights have not seen, where there are others.
    let members: Vec<usize> =
        (0..samples).filter(|sample| samples == 1 || sample % 2 == 1).take(SAMPLES).collect();
    let pick = |data: &Vec<f32>| -> Vec<f32> {
        let len = data.len() / samples.max(1);
        members.iter().flat_map(|sample| data[sample * len..(sample + 1) * len].iter().copied()).collect()
    };
    let first = readers.iter().map(|seen| seen.node).min().unwrap_or(0);
    let before = graph.nodes[..first].iter().map(|node| node.output).chain(graph.inputs.iter().copied());
    let known: HashMap<ValueId, Vec<f32>> = before.map(|id| (id, pick(&values[&id]))).collect();
    let reference: Vec<Vec<f32>> = graph.outputs.iter().map(|id| pick(&values[id])).collect();
    let measure = |width: usize| {
        let kept = order.kept(width);
        let mut trial = graph.clone();
        readers.iter().for_each(|seen| seen.interpolate(&mut trial, &kept));
        let mut outputs = evaluate_from(&trial, &known, members.len(), &graph.outputs);
        let outputs: Vec<Vec<f32>> =
            graph.outputs.iter().map(|id| outputs.remove(id).unwrap_or_default()).collect();
        loss.measure(&reference, &outputs, members.len())
    };
    let mut measured: Vec<usize> = MEASURED
        .iter()
        .map(|share| (share * channels as f64).round() as usize)
        .filter(|width| *width > 0 && *width < channels)
        .collect();
    measured.dedup();
    let points: Vec<(f64, f64)> =
        measured.into_iter().map(|width| (order.loss(width).sqrt(), measure(width))).collect();
    let at = |width: usize| (width, super::sensitivity::interpolate(&points, order.loss(width).sqrt()));
    Curve { channels, steps: candidates.into_iter().map(at).collect() }
}

/// One row for each linear layer.
pub fn report(graph: &Graph, pruner: &Pruner<'_>, pruned: &Pruned) -> Vec<LayerReport> {
    let layers = graph.nodes.iter().zip(&pruned.graph.nodes).enumerate();
    layers
        .filter(|(_, (old, _))| old.op.weight().is_some())
        .map(|(index, (old, new))| {
            let group = pruner
                .groups
                .iter()
                .position(|group| group.producers.contains(&index) || group.carriers.contains(&index));
            let (kept, channels) =
                group.map_or((0, 0), |group| (pruned.kept[group].len(), pruner.groups[group].channels));
            let blocked = group.and_then(|group| pruner.groups[group].blocked);
            let refitted = if pruned.errors[index].is_some() { "; refitted" } else { "" };
            let reason = match blocked {
                _ if kept < channels => format!("kept {kept} of {channels} channels"),
                Some(why) => format!("{why}{refitted}"),
                None => format!("dropping channels costs more here than elsewhere{refitted}"),
            };
            LayerReport {
                name: old.name.clone(),
                op: old.op.name().into(),
                format: if kept < channels { "pruned" } else { "dense" }.into(),
                ranks: if kept < channels { vec![kept] } else { Vec::new() },
                error: pruned.errors[index],
                parameters: [old.op.parameters(), new.op.parameters()],
                macs: [graph.node_macs(old), pruned.graph.node_macs(new)],
                reason,
                output_rank: None,
                spectrum: spectrum(pruner, group),
            }
        })
        .collect()
}

/// Share of the readers' variance that each width loses.
fn spectrum(pruner: &Pruner<'_>, group: Option<usize>) -> Vec<(usize, f64)> {
    let Some(ranking) = group.and_then(|group| pruner.rankings[group].as_ref()) else { return Vec::new() };
    let readers = ranking.readers.len().max(1) as f64;
    (1..=ranking.order.order.len()).map(|width| (width, ranking.order.loss(width) / readers)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metrics::relative_rms;
    use crate::search::refit::tests::{images, network};
    use crate::search::{Method, Options, Silent, search};

    fn data(samples: usize, seed: u64) -> Dataset {
        Dataset { inputs: images(samples, seed), samples, labels: None }
    }

    const PRUNE: Options = Options::of(Method::Prune);

    fn error(graph: &Graph, other: &Graph, data: &Dataset) -> f64 {
        let run = |graph: &Graph| evaluate(graph, &data.inputs, data.samples, &graph.outputs).remove(0);
        relative_rms(&run(graph), &run(other))
    }

    #[test]
    fn budgets_hold_and_smaller_networks_err_more() {
        let (graph, data) = (network(), data(60, 1));
        let unseen = self::data(30, 2);
        let mut last = 0.0;
        for ratio in [1.1, 1.5, 2.5] {
            for options in
                [Options { macs_ratio: Some(ratio), ..PRUNE }, Options { ratio: Some(ratio), ..PRUNE }]
            {
                let outcome = search(&graph, Some(&data), &options, &Silent).unwrap();
                outcome.graph.check().unwrap();
                let shrunk = match options.ratio {
                    Some(_) => graph.parameters() as f64 / outcome.graph.parameters() as f64,
                    None => graph.macs() as f64 / outcome.graph.macs() as f64,
                };
                assert!(shrunk >= ratio, "{shrunk} {ratio}");
                let sums = outcome
                    .layers
                    .iter()
                    .fold([0; 2], |[a, b], layer| [a + layer.parameters[0], b + layer.parameters[1]]);
                assert_eq!(sums, [graph.parameters(), outcome.graph.parameters()]);
                assert!(outcome.layers.iter().any(|layer| layer.reason.starts_with("kept ")));
                assert_eq!(outcome, search(&graph, Some(&data), &options, &Silent).unwrap());
                if options.ratio.is_none() {
                    let now = error(&graph, &outcome.graph, &unseen);
                    assert!(now >= last && now > 1e-3 && now < 1.0, "{now} {last}");
                    last = now;
                }
            }
        }
        let loose = Options { max_error: Some(0.7), ..PRUNE };
        assert!(search(&graph, Some(&data), &loose, &Silent).unwrap().graph.macs() < graph.macs());
        let tight = Options { max_error: Some(1e-6), ..PRUNE };
        assert_eq!(search(&graph, Some(&data), &tight, &Silent).unwrap().graph, graph);
        let most =
            search(&graph, Some(&data), &Options { macs_ratio: Some(1e6), ..PRUNE }, &Silent).unwrap_err();
        let Error::Budget { reachable, .. } = most else { panic!() };
        assert!(reachable > 2.0 && reachable < 1e6);
        assert!(
            search(&graph, Some(&data), &Options { macs_ratio: Some(reachable), ..PRUNE }, &Silent).is_ok()
        );
    }

    #[test]
    fn constant_channels_go_for_free() {
        let mut graph = network();
        // Channel 2 of the sum and of its branches never varies.
        for (node, value) in [(0, -1.0), (1, 0.7)] {
            let crate::graph::Op::Conv(conv) = &mut graph.nodes[node].op else { panic!() };
            let Weight::Dense(tensor) = &mut conv.weight else { panic!() };
            tensor.data[72..108].fill(0.0);
            conv.bias.as_mut().unwrap()[2] = value;
        }
        let data = data(200, 1);
        let prices = search::Prices::of(&graph, &PRUNE).unwrap();
        let pruner = Pruner::new(&graph, &data, Loss::Squares, &prices, &Silent).unwrap();
        let pruned = pruner.prune(&pruner.least_cost(WORTH, 0.0), &data, &Silent).unwrap();
        assert_eq!(pruned.kept[0], [0, 1, 3]);
        let off = error(&graph, &pruned.graph, &self::data(10, 3));
        assert!(off < 1e-3, "{off}");
    }

    #[test]
    fn one_sample_zero_weights_and_extreme_ranges_give_finite_weights() {
        for (scale, samples) in [(1.0f32, 1), (0.0, 3), (1e-30, 3), (1e8, 3)] {
            let mut graph = network();
            for node in &mut graph.nodes {
                if let crate::graph::Op::Conv(conv) = &mut node.op
                    && let Weight::Dense(tensor) = &mut conv.weight
                {
                    tensor.data.iter_mut().for_each(|x| *x *= scale);
                }
            }
            let options = Options { macs_ratio: Some(1.5), ..PRUNE };
            let outcome = search(&graph, Some(&data(samples, 4)), &options, &Silent).unwrap();
            for node in &outcome.graph.nodes {
                let Some(tensor) = node.op.dense_weight() else { continue };
                assert!(tensor.data.iter().all(|x| x.is_finite()));
                assert!(bias(&node.op, tensor.shape[0]).iter().all(|b| b.is_finite()));
            }
        }
    }
}
