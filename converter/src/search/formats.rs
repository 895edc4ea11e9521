//! Factorised weights, layer by layer: the formats as a [`Strategy`].

use crate::calibrate::Dataset;
use crate::calibrate::covariance::Geometry;
use crate::compress::{self, Choice};
use crate::graph::Graph;
use crate::linalg::Matrix;
use crate::plan::memory::{Layer, Memory};

use super::allocate::{self, Cost, Costs, Limits, Row, least_cost, least_loss, total};
use super::candidates::Candidate;
use super::explain::report;
use super::fisher::{self, Metric};
use super::loss::Loss;
use super::prices::{Lowered, Prices, Room, Wish};
use super::refit::{self, Form, Trusted};
use super::sensitivity::{self, Sensitivity};
use super::strategy::{Shrunk, Strategy};
use super::structure;
use super::tradeoff::{Point, predicted};
use super::{Error, Method, Progress, WORTH};

/// How a plan's weights are found.
enum Fitting {
    /// Layer by layer, on what the compressed network feeds each.
    Data {
        /// Of each node's output.
        metrics: Vec<Option<Metric>>,
        /// What earlier fits found out.
        trusted: Trusted,
    },
    /// Each by itself.
    Weights,
}

/// Methods whose own plans compete under [`Method::Auto`].
const SINGLE: [Method; 6] = [
    Method::LowRank,
    Method::Tucker,
    Method::Cp,
    Method::OneWay,
    Method::DepthwisePointwise,
    Method::Hypercomplex(None),
];
/// They do so up to this many times the least predicted loss, and at most so many of them.
const CHANCE: f64 = 2.0;
const RIVALS: usize = 2;

/// Whether a form is one of a method's.
fn is_of(choice: Choice, method: Method) -> bool {
    method.allows(match choice {
        Choice::Dense => return true,
        Choice::LowRank(_) => Method::LowRank,
        Choice::Tucker(..) | Choice::FullTucker(..) => Method::Tucker,
        Choice::Cp(_) => Method::Cp,
        Choice::OneWay(_) => Method::OneWay,
        Choice::Depthwise(..) => Method::DepthwisePointwise,
        Choice::Kronecker(..) | Choice::Given => Method::Hypercomplex(None),
    })
}

/// Every layer's candidates, with what the network loses by each.
pub struct Formats<'a> {
    graph: &'a Graph,
    method: Method,
    found: Vec<Sensitivity>,
    rows: Vec<Vec<Row>>,
    /// The same with what [`exclude`] took away.
    all_rows: Vec<Vec<Row>>,
    /// See [`Strategy::predicted`].
    curve: Vec<Point>,
    /// The stages that each candidate is lowered to.
    stages: Vec<Vec<Vec<Geometry>>>,
    prices: &'a Prices,
    fitting: Fitting,
    stayed: &'static str,
}

impl<'a> Formats<'a> {
    /// Measures the candidates of every layer on `data`. `stayed` says why a layer with candidates may stay dense.
    pub fn measured(
        graph: &'a Graph,
        method: Method,
        loss: Loss,
        data: &Dataset,
        prices: &'a Prices,
        stayed: &'static str,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let metrics = fisher::metrics(graph, loss, &data.inputs, data.samples).unwrap_or_default();
        let price = |stages: &[Geometry]| prices.instructions(stages);
        let found = sensitivity::measured(graph, method, loss, &metrics, data, &price, progress)?;
        let fitting = Fitting::Data { metrics, trusted: Trusted::new() };
        Ok(Self::new(graph, method, found, prices, fitting, stayed))
    }

    /// Candidates of every layer by the weights alone: the loss is the squared relative error of the weight, and fits need no data.
    pub fn by_weight(
        graph: &'a Graph,
        method: Method,
        prices: &'a Prices,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let found = sensitivity::by_weight(graph, method, &|stages| prices.instructions(stages), progress)?;
        Ok(Self::new(graph, method, found, prices, Fitting::Weights, "its weight has no spare rank"))
    }

    fn new(
        graph: &'a Graph,
        method: Method,
        found: Vec<Sensitivity>,
        prices: &'a Prices,
        fitting: Fitting,
        stayed: &'static str,
    ) -> Self {
        let lowered: Vec<_> =
            found.iter().map(|layer| prices.lowered(graph, layer.node, &layer.candidates)).collect();
        let mut rows = rows(graph, &found, &lowered, prices);
        let stages = |layer: Vec<Lowered>| layer.into_iter().map(|lowered| lowered.stages).collect();
        let stages: Vec<Vec<Vec<Geometry>>> = lowered.into_iter().map(stages).collect();
        let curve = predicted(graph, &rows, WORTH);
        let all_rows = rows.clone();
        if let Some((memory, room)) = &prices.memory {
            exclude(&found, &stages, &mut rows, memory, room.bytes());
        }
        Self { graph, method, found, rows, all_rows, curve, stages, prices, fitting, stayed }
    }

    /// Every layer's candidates as the memory's planner takes them.
    fn layers<'b>(&'b self, losses: &'b [Vec<f64>]) -> Vec<Layer<'b>> {
        let layers = self.found.iter().zip(self.stages.iter().zip(losses));
        layers.map(|(layer, (candidates, losses))| Layer { node: layer.node, candidates, losses }).collect()
    }

    fn losses(&self) -> Vec<Vec<f64>> {
        self.rows.iter().map(|rows| rows.iter().map(|row| row.loss).collect()).collect()
    }

    /// The cheapest plan in which every layer's own loss is at most `loss`.
    pub fn each_within(&self, worth: Costs, loss: f64) -> Vec<usize> {
        let cost = |row: &Row| row.costs.iter().zip(worth).map(|(cost, weight)| cost * weight).sum::<f64>();
        let cheapest = |rows: &Vec<Row>| {
            let within = (0..rows.len()).filter(|index| *index == 0 || rows[*index].loss <= loss);
            within.min_by(|a, b| cost(&rows[*a]).total_cmp(&cost(&rows[*b]))).unwrap_or(0)
        };
        self.rows.iter().map(cheapest).collect()
    }

    /// Whether plans must fit an arena: that of a budget, or the dense network's where it is wished.
    fn is_bound(&self, dense_arena: bool) -> bool {
        dense_arena || !matches!(self.prices.memory, Some((_, Room::Dense(_))))
    }

    /// The candidates that may fit it.
    fn candidates(&self, dense_arena: bool) -> &[Vec<Row>] {
        if self.is_bound(dense_arena) { &self.rows } else { &self.all_rows }
    }

    /// The plan of least predicted loss out of `rows` that keeps a wish.
    fn among(&self, rows: &[Vec<Row>], wish: Wish) -> Option<Vec<usize>> {
        let plan = least_loss(rows, wish.limits.less(&self.prices.fixed))?;
        if self.is_bound(wish.dense_arena) { self.in_memory(plan, wish.limits) } else { Some(plan) }
    }

    /// The plan with other candidates where blocks with gaps between them would pass the limit on the arena; `None` if there are none within the
    /// other limits.
    fn in_memory(&self, mut plan: Vec<usize>, limits: Limits) -> Option<Vec<usize>> {
        let Some((memory, room)) = &self.prices.memory else { return Some(plan) };
        let keeps = |plan: &[usize]| limits.hold(self.expected(plan));
        memory.fit(&self.layers(&self.losses()), &mut plan, room.bytes(), keeps).ok().map(|_| plan)
    }
}

/// The plan's weights, built for the trained weights alone.
fn build(
    graph: &Graph,
    found: &[Sensitivity],
    plan: &[usize],
    progress: &dyn Progress,
) -> Result<(Graph, Vec<Option<f64>>), Error> {
    let mut result = graph.clone();
    let mut errors = vec![None; graph.nodes.len()];
    for (layer, index) in found.iter().zip(plan) {
        let candidate = &layer.candidates[*index];
        let node = &mut result.nodes[layer.node];
        progress.step(&format!("factorising {}", node.name));
        let (Some(tensor), false) = (node.op.dense_weight(), candidate.choice == Choice::Dense) else {
            continue;
        };
        let (matrix, shape) = (compress::to_matrix(tensor), tensor.shape.clone());
        let plain = Matrix::identity(matrix.ncols(), matrix.ncols());
        let start = candidate.network.as_deref();
        let target = compress::Target { start, ..compress::Target::new(&shape, &matrix, &plain) };
        let weight = compress::build(candidate.choice, target).map_err(|error| Error::Fit {
            node: node.name.clone(),
            op: node.op.name(),
            reason: error.to_string(),
        })?;
        let bias: Vec<f32> = refit::bias(&node.op, shape[0]).iter().map(|b| *b as f32).collect();
        refit::set(&mut node.op, weight, &bias);
        errors[layer.node] = Some(candidate.error);
    }
    Ok((result, errors))
}

/// What every node becomes; fits start from the candidates' own networks, but for structure that is kept as it is.
fn forms<'a>(nodes: usize, found: &'a [Sensitivity], plan: &[usize]) -> Vec<Option<Form<'a>>> {
    let mut forms = vec![None; nodes];
    for (layer, index) in found.iter().zip(plan) {
        let candidate = &layer.candidates[*index];
        let start = candidate.network.as_deref().filter(|_| candidate.choice != Choice::Given);
        forms[layer.node] = Some(Form { choice: candidate.choice, start });
    }
    forms
}

impl Strategy for Formats<'_> {
    fn predicted(&self) -> Vec<Point> {
        self.curve.clone()
    }

    fn expected(&self, plan: &[usize]) -> Row {
        let sum = total(self.candidates(false), plan);
        Row { costs: std::array::from_fn(|k| sum.costs[k] + self.prices.fixed[k]), loss: sum.loss }
    }

    fn untouched(&self) -> Vec<usize> {
        vec![0; self.rows.len()]
    }

    fn least(&self, cost: Cost) -> f64 {
        self.prices.fixed[cost as usize] + allocate::least(&self.rows, cost)
    }

    fn least_arena(&self) -> Result<(usize, Option<usize>), Error> {
        let Some((memory, _)) = &self.prices.memory else { return Ok((0, None)) };
        let losses = self.losses();
        let layers = self.layers(&losses);
        let least = memory.least(&layers);
        Ok(match memory.fit(&layers, &mut self.untouched(), least.nearest, |_| true) {
            Ok(arena) => (arena.bytes, least.peak),
            Err(gaps) => (gaps.nearest, gaps.peak),
        })
    }

    fn least_loss(&self, wish: Wish) -> Option<Vec<usize>> {
        self.among(self.candidates(wish.dense_arena), wish)
    }

    /// Under [`Method::Auto`] the plans of single methods, where the prediction gives them a chance: sums of losses are not so exact that what is
    /// chosen among all forms would always be better.
    fn rivals(&self, wish: Wish, plan: &[usize]) -> Vec<Vec<usize>> {
        if self.method != Method::Auto {
            return Vec::new();
        }
        let least = self.expected(plan).loss;
        let mut rivals: Vec<(f64, Vec<usize>)> = Vec::new();
        for method in SINGLE {
            let of_method = |(rows, layer): (&Vec<Row>, &Sensitivity)| -> Vec<Row> {
                let candidates = rows.iter().zip(&layer.candidates);
                let row = |(row, candidate): (&Row, &Candidate)| match is_of(candidate.choice, method) {
                    true => *row,
                    false => Row { loss: row.loss.max(EXCLUDED), ..*row },
                };
                candidates.map(row).collect()
            };
            let rows: Vec<Vec<Row>> =
                self.candidates(wish.dense_arena).iter().zip(&self.found).map(of_method).collect();
            let Some(rival) = self.among(&rows, wish) else { continue };
            let loss = self.expected(&rival).loss;
            if loss <= CHANCE * least && rival != plan && rivals.iter().all(|(_, other)| *other != rival) {
                rivals.push((loss, rival));
            }
        }
        rivals.sort_by(|a, b| a.0.total_cmp(&b.0));
        rivals.truncate(RIVALS);
        rivals.into_iter().map(|(_, rival)| rival).collect()
    }

    fn least_cost(&self, worth: Costs, loss: f64) -> Vec<usize> {
        let plan = least_cost(&self.rows, worth, loss).unwrap_or_else(|| self.untouched());
        self.in_memory(plan.clone(), Limits::OPEN).unwrap_or(plan)
    }

    fn fit(&mut self, plan: &[usize], data: &Dataset, progress: &dyn Progress) -> Result<Shrunk, Error> {
        progress.expect(self.found.len());
        let forms = forms(self.graph.nodes.len(), &self.found, plan);
        let (mut graph, errors) = match &mut self.fitting {
            Fitting::Weights => build(self.graph, &self.found, plan, progress)?,
            Fitting::Data { metrics, trusted } => {
                refit::refit(self.graph, &forms, metrics, &data.inputs, data.samples, trusted, progress)?
            }
        };
        for (layer, index) in self.found.iter().zip(plan) {
            let candidate = &layer.candidates[*index];
            if let (Choice::Given, Some(network)) = (candidate.choice, &candidate.network) {
                structure::swap(&mut graph.nodes[layer.node].op, network.as_ref().clone());
            }
        }
        let layers = report(self.graph, &graph, &self.found, &errors, self.stayed);
        Ok(Shrunk { graph, layers })
    }
}

/// Candidates as shares of the dense network.
pub fn rows(
    graph: &Graph,
    found: &[Sensitivity],
    lowered: &[Vec<Lowered>],
    prices: &Prices,
) -> Vec<Vec<Row>> {
    let layer = |(layer, lowered): (&Sensitivity, &Vec<Lowered>)| {
        let name = &graph.nodes[layer.node].name;
        let candidates = layer.candidates.iter().zip(lowered).zip(&layer.losses);
        let row = |((candidate, lowered), loss): ((&Candidate, &Lowered), &f64)| Row {
            costs: prices.shares(name, lowered, prices.turns(layer.node, &lowered.stages), candidate),
            loss: *loss,
        };
        candidates.map(row).collect()
    };
    found.iter().zip(lowered).map(layer).collect()
}

/// The loss of a candidate that does not fit into memory: more than any other.
const EXCLUDED: f64 = 1e6;

/// Excludes the candidates that do not fit into memory whatever the other layers are.
fn exclude(
    found: &[Sensitivity],
    stages: &[Vec<Vec<Geometry>>],
    rows: &mut [Vec<Row>],
    memory: &Memory,
    limit: usize,
) {
    for ((layer, stages), rows) in found.iter().zip(stages).zip(rows) {
        for (row, stages) in rows.iter_mut().zip(stages) {
            if memory.load(layer.node, stages) > limit {
                row.loss = row.loss.max(EXCLUDED);
            }
        }
    }
}
