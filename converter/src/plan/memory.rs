//! How much working memory a choice of formats needs, without lowering or laying out the network for each.
//!
//! Takes the dense graph once; then, for each linear layer, the stages that a candidate would become. A layer that is replaced by a chain
//! holds its input during the first stage only, its output during the last, and one value between each two; what else lives at that time
//! (a branch that waits for its sum) does not depend on the candidate. So the memory that the planner cannot go below is the greatest of
//! one number a layer ([`Memory::load`]) and of what no layer can change ([`Memory::fixed`]): a limit holds for a network if it holds for
//! each layer alone, and what cannot reach it is known before the search. Only the planner's rounding to places may add to that:
//! [`Memory::arena`] places an assignment exactly, [`Memory::fit`] repairs one.
//!
//! A stage that may write over its input counts with the less of its two forms, and scratch counts with the stage that wants it, both as the planner
//! does ([`super::needs`]). Where the planner will know more than the search, whether a layer's weights are narrow, the most that it can be counts.
//!
//! Formats that change what layers give to each other (pruned channels) are measured by [`arena_bytes_of`], which plans the graph as it is.

use std::ops::Range;

use tucano::backend::spec::select::Isa;

use super::needs::Numbers;
use super::settle::{Demand, least_load, settle, turns};
use super::{
    ARENA_ALIGN, Block, Lifetimes, Needs, Plan, ends, layout_for, lifetimes, pixels, plan, step_needs,
};
use crate::calibrate::covariance::Geometry;
use crate::graph::{Graph, Op, ValueId};
use crate::lower;
use crate::passes::layout::Kind;
use crate::passes::{self, layout, legalize};
use crate::quantize::Widths;

/// Why the memory of a graph is unknown.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A factorised weight that is no chain of layers.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lower(#[from] lower::Error),
    /// An operator that the runtime has no step for.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Legalize(#[from] passes::legalize::Error),
    /// No order of elements.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Layout(#[from] layout::Error),
}

/// The plan of a graph, its networks lowered, as it would be quantised: `int8`: the widths of integers, `None`
/// stands for floats. Needs no calibration.
pub fn plan_of(graph: &Graph, int8: Option<Widths>, isa: Isa) -> Result<Plan, Error> {
    let graph = legalize(&lower::lower(graph)?)?;
    let numbers = |node| numbers(&graph, node, int8);
    let layout = layout_for(&graph, isa, numbers)?;
    Ok(plan(layout, |id| element_bytes(&graph, id, int8), step_needs(&graph, isa, numbers)))
}

/// Bytes of the arena of [`plan_of`].
pub fn arena_bytes_of(graph: &Graph, int8: Option<Widths>, isa: Isa) -> Result<usize, Error> {
    Ok(plan_of(graph, int8, isa)?.arena_bytes)
}

/// What a linear layer of a legalised graph will calculate with.
pub(super) fn numbers(graph: &Graph, node: usize, int8: Option<Widths>) -> Numbers {
    let widths = ends(graph, node).map(|id| element_bytes(graph, id, int8));
    let layer = Geometry::of(graph, &graph.nodes[node]);
    let four_bits = int8.zip(layer).is_some_and(|(widths, layer)| widths.four_bits(&layer, 1));
    Numbers::of_widths(widths, four_bits)
}

/// Width that `quantize` gives the elements of a value.
fn element_bytes(graph: &Graph, id: ValueId, int8: Option<Widths>) -> usize {
    let Some(widths) = int8 else { return 4 };
    let value = graph.value(id);
    let wide = match value.quantization {
        Some(pinned) => pinned.bits == 16,
        None if value.rank_space => widths.wide(),
        // Probabilities that leave the graph.
        None => {
            let softmax = |node: usize| matches!(graph.nodes[node].op, Op::Softmax { .. });
            graph.outputs.contains(&id)
                && graph.consumers(id).is_empty()
                && graph.producer(id).is_some_and(softmax)
        }
    };
    if wide { 2 } else { 1 }
}

/// A linear layer's step.
#[derive(Clone, Copy, Debug)]
struct Span {
    node: usize,
    time: usize,
    input: usize,
    output: usize,
    /// The layer in its dense form, and whether it is one over rows, not a convolution.
    layer: Geometry,
    dense: bool,
    /// Widths of the elements of its input and output.
    widths: [usize; 2],
}

/// Lifetimes of a dense network's memory.
#[derive(Clone, Debug)]
pub struct Memory {
    blocks: Vec<Block>,
    /// For each block the value that it first holds.
    values: Vec<ValueId>,
    spans: Vec<Span>,
    /// What each step does with memory.
    demands: Vec<Demand>,
    end: usize,
    int8: Option<Widths>,
    isa: Isa,
}

/// Memory with layers replaced by stages, one after the other.
struct Expanded {
    blocks: Vec<Block>,
    demands: Vec<Demand>,
    /// For each time of the dense network when it begins.
    begins: Vec<usize>,
}

impl Expanded {
    /// The demands of a time of the dense network.
    fn of_time(&self, time: usize) -> Range<usize> {
        let begin = self.begins[time];
        let end = self.begins.get(time + 1).copied().unwrap_or(usize::MAX);
        let before = |moment: usize| self.demands.iter().take_while(|demand| demand.time < moment).count();
        before(begin)..before(end)
    }
}

/// One stage of a layer.
#[derive(Clone, Copy, Debug)]
struct Stage {
    /// Bytes that it reads, and writes.
    bytes: [usize; 2],
    needs: Needs,
}

/// A linear layer's candidates.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Index of its node.
    pub node: usize,
    /// The stages of each candidate.
    pub candidates: &'a [Vec<Geometry>],
    /// What each candidate costs in accuracy.
    pub losses: &'a [f64],
}

/// The memory of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Bytes of the arena, placed.
    pub bytes: usize,
    /// What lives at its fullest moment.
    pub load: usize,
    /// Node of the linear layer that runs then; `None` for another step.
    pub peak: Option<usize>,
}

/// A limit that no assignment keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The least number of bytes that was reached.
    pub nearest: usize,
    /// Node of the linear layer that stands in the way; `None` for another step.
    pub peak: Option<usize>,
}

impl Memory {
    /// The lifetimes of a graph whose weights are dense; `int8` as in [`plan_of`].
    pub fn of(graph: &Graph, int8: Option<Widths>, isa: Isa) -> Result<Self, Error> {
        let legal = legalize(graph)?;
        let numbers = |node| numbers(&legal, node, int8);
        let mut layout = layout_for(&legal, isa, numbers)?;
        let bytes = |id| element_bytes(&legal, id, int8);
        let needs = step_needs(&legal, isa, numbers);
        let Lifetimes { blocks, values, demands, .. } = lifetimes(&mut layout, bytes, needs);
        let span = |(demand, step): (&Demand, &layout::Step)| {
            let linear = matches!(step.kind, Kind::Conv(..) | Kind::DepthwiseConv(..) | Kind::Dense(_));
            let value = legal.nodes[step.node].output;
            let node = graph.nodes.iter().position(|node| node.output == value)?;
            let Demand { time, input, output, .. } = *demand;
            let layer = Geometry::of(&legal, &legal.nodes[step.node])?;
            let dense = matches!(step.kind, Kind::Dense(_));
            let widths = ends(&legal, step.node).map(bytes);
            (linear && graph.nodes[node].op.weight().is_some()).then_some(Span {
                node,
                time,
                input,
                output,
                layer,
                dense,
                widths,
            })
        };
        let spans = demands.iter().zip(&layout.steps).filter_map(span).collect();
        Ok(Self { blocks, values, spans, demands, end: layout.steps.len() + 1, int8, isa })
    }

    /// Bytes that live at once, at worst, while the layer of `node` runs as `stages` (none: the dense layer); 0 for a node that is no linear layer.
    pub fn load(&self, node: usize, stages: &[Geometry]) -> usize {
        let Some(span) = self.span(node) else { return 0 };
        let expanded = self.expanded(&[(node, stages)]);
        let group = &expanded.demands[expanded.of_time(span.time)];
        least_load(&expanded.blocks, group)
    }

    /// In how many turns the stages of the layer of `node` run where `room` bytes may live at once.
    pub fn turns(&self, node: usize, stages: &[Geometry], room: usize) -> usize {
        let Some(span) = self.span(node).filter(|_| stages.len() > 1) else { return 1 };
        let expanded = self.expanded(&[(node, stages)]);
        turns(&expanded.blocks, &expanded.demands[expanded.of_time(span.time)], room)
    }

    /// Bytes that live at once, at worst, while no linear layer runs.
    pub fn fixed(&self) -> usize {
        let times = (0..=self.end).filter(|time| self.spans.iter().all(|span| span.time != *time));
        let load = |time: usize| match time.checked_sub(1).and_then(|step| self.demands.get(step)) {
            Some(demand) => demand.least(&self.blocks),
            None => {
                together(self.blocks.iter().filter(|block| block.lives_at(time)).map(|block| block.bytes))
            }
        };
        times.map(load).max().unwrap_or(0)
    }

    /// What lives at each moment: values with their bytes, scratch with the value that a step reads. A step writes over its input only where `alike`
    /// says that both values keep the same extents, whatever becomes of them.
    pub fn moments(&self, alike: impl Fn(ValueId, ValueId) -> bool) -> Vec<Vec<(ValueId, usize)>> {
        let live = |time: usize| {
            let demand = time.checked_sub(1).and_then(|step| self.demands.get(step));
            let in_place = demand.and_then(|demand| {
                let (apart, in_place) = demand.loads(&self.blocks);
                let ends = [demand.input, demand.output].map(|block| self.values[block]);
                (in_place? < apart && alike(ends[0], ends[1])).then_some(demand.output)
            });
            let scratch = demand.map(|Demand { input, needs, .. }| {
                (
                    self.values[*input],
                    if in_place.is_some() { needs.in_place.unwrap_or(0) } else { needs.apart },
                )
            });
            let blocks = self.blocks.iter().zip(&self.values).enumerate();
            let blocks =
                blocks.filter(|(index, (block, _))| block.lives_at(time) && Some(*index) != in_place);
            let values = blocks.map(|(_, (block, value))| (*value, block.bytes));
            values.chain(scratch.filter(|(_, bytes)| *bytes > 0)).collect()
        };
        (0..=self.end).map(live).collect()
    }

    /// The least load that any assignment reaches.
    pub fn least(&self, layers: &[Layer<'_>]) -> Unreachable {
        let mut worst = Unreachable { nearest: self.fixed(), peak: None };
        for layer in layers {
            let loads = layer.candidates.iter().map(|stages| self.load(layer.node, stages));
            let least = loads.min().unwrap_or(0);
            if least > worst.nearest {
                worst = Unreachable { nearest: least, peak: Some(layer.node) };
            }
        }
        worst
    }

    /// Blocks and demands when the layers of these nodes run as these stages; all others are dense.
    fn expanded(&self, assignment: &[(usize, &[Geometry])]) -> Expanded {
        // The stages of each time, none where no layer was replaced, and when the first of them runs.
        let mut stages = vec![Vec::new(); self.end + 1];
        for (node, chain) in assignment {
            if let Some(span) = self.span(*node) {
                stages[span.time] = self.stages(&span, chain);
            }
        }
        let mut begins = Vec::with_capacity(stages.len());
        let mut now = 0;
        for stages in &stages {
            begins.push(now);
            now += stages.len().max(1);
        }
        let last_stage = |time: usize| begins[time] + stages[time].len().saturating_sub(1);
        let mut blocks: Vec<Block> = self
            .blocks
            .iter()
            .map(|block| {
                let first = last_stage(block.first);
                Block { first, last: begins[block.last].max(first), ..*block }
            })
            .collect();
        let mut demands = Vec::new();
        for demand in &self.demands {
            let (begin, stages) = (begins[demand.time], &stages[demand.time]);
            let mut input = demand.input;
            for (time, stage) in (begin..).zip(stages) {
                let inner = time < begin + stages.len() - 1;
                let output = if inner { blocks.len() } else { demand.output };
                if inner {
                    blocks.push(Block { bytes: stage.bytes[1], first: time, last: time + 1 });
                }
                let follows = time > begin;
                demands.push(Demand { time, input, output, needs: stage.needs, follows });
                input = output;
            }
            if stages.is_empty() {
                demands.push(Demand { time: begin, ..*demand });
            }
        }
        Expanded { blocks, demands, begins }
    }

    /// Places what lives when the layers of these nodes run as these stages; all others are dense.
    pub fn arena(&self, assignment: &[(usize, &[Geometry])]) -> Arena {
        let Expanded { blocks, demands, .. } = self.expanded(assignment);
        let placement = settle(&blocks, &demands, ARENA_ALIGN).placement;
        let loads = self.spans.iter().map(|span| {
            let stages = assignment.iter().find(|(node, _)| *node == span.node);
            (self.load(span.node, stages.map_or(&[], |(_, stages)| stages)), span.node)
        });
        // The first of equals.
        let peak = loads.rev().max_by_key(|(load, _)| *load);
        let fixed = self.fixed();
        let peak = peak.filter(|(load, _)| *load >= fixed);
        Arena {
            bytes: placement.bytes,
            load: peak.map_or(fixed, |(load, _)| load),
            peak: peak.map(|(_, node)| node),
        }
    }

    /// Changes `choices` (one candidate a layer) until the arena holds `limit` bytes: the layer at the peak takes the candidate of least loss that
    /// lowers it below, among those that leave an assignment which `keeps` accepts (other budgets).
    pub fn fit(
        &self,
        layers: &[Layer<'_>],
        choices: &mut [usize],
        limit: usize,
        keeps: impl Fn(&[usize]) -> bool,
    ) -> Result<Arena, Unreachable> {
        let least = self.least(layers);
        if least.nearest > limit {
            return Err(least);
        }
        let mut nearest = usize::MAX;
        loop {
            let assignment: Vec<(usize, &[Geometry])> = layers
                .iter()
                .zip(choices.iter())
                .map(|(layer, choice)| (layer.node, layer.candidates[*choice].as_slice()))
                .collect();
            let arena = self.arena(&assignment);
            nearest = nearest.min(arena.bytes);
            if arena.bytes <= limit {
                return Ok(arena);
            }
            // Loads fall with every exchange, so this ends. Where all keep the limit, gaps between blocks pass it: the fullest layer gives way.
            let mut fullest: Vec<(usize, usize)> = assignment
                .iter()
                .enumerate()
                .map(|(index, (node, stages))| (self.load(*node, stages), index))
                .collect();
            fullest.sort_by_key(|(load, index)| (std::cmp::Reverse(*load), *index));
            let exchange = fullest.iter().find_map(|(load, index)| {
                let layer = &layers[*index];
                let bound = if *load > limit { limit } else { load.saturating_sub(1) };
                let mut fitting: Vec<usize> = (0..layer.candidates.len())
                    .filter(|choice| self.load(layer.node, &layer.candidates[*choice]) <= bound)
                    .collect();
                fitting.sort_by(|a, b| layer.losses[*a].total_cmp(&layer.losses[*b]));
                let mut trial = choices.to_vec();
                let kept = fitting.into_iter().find(|choice| {
                    trial[*index] = *choice;
                    keeps(&trial)
                });
                kept.map(|choice| (*index, choice))
            });
            let Some((index, choice)) = exchange else {
                return Err(Unreachable { nearest, peak: arena.peak });
            };
            choices[index] = choice;
        }
    }

    fn span(&self, node: usize) -> Option<Span> {
        self.spans.iter().copied().find(|span| span.node == node)
    }

    /// The stages of a layer, the dense layer if there are none.
    fn stages(&self, span: &Span, stages: &[Geometry]) -> Vec<Stage> {
        let dense = [span.layer];
        let stages = if stages.is_empty() { &dense } else { stages };
        let inner = self.int8.map_or(4, |widths| if widths.wide() { 2 } else { 1 });
        let last = stages.len() - 1;
        let stage = |(k, stage): (usize, &Geometry)| {
            let widths =
                [if k == 0 { span.widths[0] } else { inner }, if k == last { span.widths[1] } else { inner }];
            let four_bits = self.int8.is_some_and(|widths| widths.four_bits(stage, stages.len()));
            // Stages of a convolution may be dense layers.
            let known = stages.len() == 1 || span.dense && stage.groups == 1;
            let dense = known.then_some(span.dense);
            let numbers = Numbers::of_widths(widths, four_bits);
            let mut needs = match pixels::of_rows(self.isa, stage, numbers) {
                Some(pixels) => Needs::of(self.isa, &pixels, Some(false), numbers),
                None => Needs::of(self.isa, stage, dense, numbers),
            };
            let value = |k: usize| stages[k].images * stages[k].output.iter().product::<usize>() * inner;
            let read = if k == 0 { self.blocks[span.input].bytes } else { value(k - 1) };
            let written = if k == last { self.blocks[span.output].bytes } else { value(k) };
            // Rows that are cut or put together otherwise are copied into another order first.
            let images = if k == 0 { span.layer.images } else { stages[k - 1].images };
            if images != stage.images {
                needs.apart = needs.apart.max(read);
            }
            Stage { bytes: [read, written], needs }
        };
        stages.iter().enumerate().map(stage).collect()
    }
}

/// Bytes of blocks side by side; the last needs no padding behind it.
pub fn together(blocks: impl Iterator<Item = usize>) -> usize {
    let (sum, padding) = blocks.filter(|bytes| *bytes > 0).fold((0, 0), |(sum, padding), bytes| {
        let size = bytes.next_multiple_of(ARENA_ALIGN);
        (sum + size, padding.max(size - bytes))
    });
    sum - padding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Choice;
    use crate::graph::{Core, Mode, Network, Tensor, Weight};
    use crate::quantize::RankBits;
    use crate::search::stages::stages;
    use std::path::Path;

    fn resnet() -> Graph {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/resnet8.onnx");
        passes::simplify(&crate::import::import(&path, &crate::import::Options { batch: 1 }).unwrap())
    }

    fn zeros(shape: &[usize], modes: &[Mode]) -> Core {
        Core { tensor: Tensor::zeros(shape.to_vec()), modes: modes.to_vec() }
    }

    /// A network of this form without numbers worth mentioning.
    fn network(shape: &[usize], choice: Choice) -> Option<Network> {
        use Mode::{Bond, Input, KernelHeight, KernelWidth, Output};
        let (o, i) = (shape[0], shape[1]);
        let (h, w) = (shape.get(2).copied().unwrap_or(1), shape.get(3).copied().unwrap_or(1));
        let cores = match choice {
            Choice::LowRank(r) if shape.len() == 2 => {
                vec![zeros(&[r, i], &[Bond(0), Input(0)]), zeros(&[o, r], &[Output(0), Bond(0)])]
            }
            Choice::LowRank(r) => {
                let modes = [Bond(0), Input(0), KernelHeight, KernelWidth];
                vec![zeros(&[r, i, h, w], &modes), zeros(&[o, r], &[Output(0), Bond(0)])]
            }
            Choice::Cp(r) => vec![
                zeros(&[r, i], &[Bond(0), Input(0)]),
                zeros(&[r, h, w], &[Bond(0), KernelHeight, KernelWidth]),
                zeros(&[o, r], &[Output(0), Bond(0)]),
            ],
            Choice::Tucker(a, Some(b)) => vec![
                zeros(&[a, i], &[Bond(0), Input(0)]),
                zeros(&[b, a, h, w], &[Bond(1), Bond(0), KernelHeight, KernelWidth]),
                zeros(&[o, b], &[Output(0), Bond(1)]),
            ],
            _ => return None,
        };
        let contraction = (0..cores.len()).collect();
        Some(Network { format: "test", shape: shape.to_vec(), cores, contraction, row_scale: None })
    }

    /// Linear layers with candidates of several forms, the dense layer first.
    fn choices(graph: &Graph) -> Vec<(usize, Vec<Choice>)> {
        let linear = (0..graph.nodes.len()).filter(|node| graph.nodes[*node].op.weight().is_some());
        let choices = |node: usize| {
            let shape = graph.nodes[node].op.weight().unwrap().shape();
            let channels = shape[0].min(shape[1]).max(4);
            let mut choices = vec![Choice::Dense, Choice::LowRank(channels / 2), Choice::LowRank(1)];
            if shape.len() == 4 {
                choices.extend([
                    Choice::Cp(2 * channels),
                    Choice::Cp(channels / 4),
                    Choice::Tucker(channels / 2, Some(channels / 4)),
                ]);
            }
            (node, choices)
        };
        linear.map(choices).collect()
    }

    fn compressed(graph: &Graph, plan: &[(usize, Choice)]) -> Graph {
        let mut graph = graph.clone();
        for (node, choice) in plan {
            let shape = graph.nodes[*node].op.weight().unwrap().shape().to_vec();
            let Some(network) = network(&shape, *choice) else { continue };
            match &mut graph.nodes[*node].op {
                Op::Conv(conv) => conv.weight = Weight::Network(network),
                Op::Dense(dense) => dense.weight = Weight::Network(network),
                _ => unreachable!(),
            }
        }
        graph
    }

    #[test]
    fn assignments_need_what_the_planner_gives_them() {
        let graph = resnet();
        let layers = choices(&graph);
        for int8 in
            [None, Some(Widths::default()), Some(Widths { rank: RankBits::Sixteen, ..Widths::default() })]
        {
            for (isa, seed) in [Isa::Scalar, Isa::ThumbDsp, Isa::Helium]
                .into_iter()
                .flat_map(|isa| (0..12).map(move |seed| (isa, seed)))
            {
                let memory = Memory::of(&graph, int8, isa).unwrap();
                let pick = |(index, (node, choices)): (usize, &(usize, Vec<Choice>))| {
                    (*node, choices[(seed * (index + 3) + index * index) % choices.len()])
                };
                let plan: Vec<(usize, Choice)> = layers.iter().enumerate().map(pick).collect();
                let chains: Vec<(usize, Vec<Geometry>)> = plan
                    .iter()
                    .map(|(node, choice)| {
                        (*node, stages(&Geometry::of(&graph, &graph.nodes[*node]).unwrap(), *choice))
                    })
                    .collect();
                let assignment: Vec<_> =
                    chains.iter().map(|(node, stages)| (*node, stages.as_slice())).collect();
                let exact = plan_of(&compressed(&graph, &plan), int8, isa).unwrap();
                let arena = memory.arena(&assignment);
                assert_eq!((arena.bytes, arena.load), (exact.arena_bytes, exact.lower_bound), "{plan:?}");
            }
        }
    }

    #[test]
    fn a_limit_is_met_where_it_can_be_and_named_where_not() {
        let graph = resnet();
        let memory = Memory::of(&graph, Some(Widths::default()), Isa::Scalar).unwrap();
        let layers = choices(&graph);
        let chains: Vec<Vec<Vec<Geometry>>> = layers
            .iter()
            .map(|(node, choices)| {
                let geometry = Geometry::of(&graph, &graph.nodes[*node]).unwrap();
                choices.iter().map(|choice| stages(&geometry, *choice)).collect()
            })
            .collect();
        let losses = [0.0, 0.5, 3.0, 0.1, 0.7, 0.6];
        let layers: Vec<Layer<'_>> = layers
            .iter()
            .zip(&chains)
            .map(|((node, _), candidates)| Layer {
                node: *node,
                candidates,
                losses: &losses[..candidates.len()],
            })
            .collect();
        // The wide form everywhere.
        let widest: Vec<usize> = layers.iter().map(|layer| 3.min(layer.candidates.len() - 1)).collect();
        let assignment = |plan: &[usize]| -> Vec<(usize, &[Geometry])> {
            layers.iter().zip(plan).map(|(layer, k)| (layer.node, layer.candidates[*k].as_slice())).collect()
        };
        let wide = memory.arena(&assignment(&widest)).bytes;
        let dense = memory.arena(&[]).bytes;
        let least = memory.least(&layers);
        assert!(least.nearest <= dense && dense < wide);
        for limit in [least.nearest, dense, (dense + wide) / 2, wide] {
            let mut plan = widest.clone();
            let arena = memory.fit(&layers, &mut plan, limit, |_| true).unwrap();
            assert!(arena.bytes <= limit);
            assert_eq!(arena, memory.arena(&assignment(&plan)));
            assert_eq!(limit == wide, plan == widest);
        }
        let mut plan = widest.clone();
        let refused = memory.fit(&layers, &mut plan, least.nearest - 1, |_| true).unwrap_err();
        assert_eq!(refused.nearest, least.nearest);
        // Other budgets have a say.
        let mut plan = widest.clone();
        assert!(memory.fit(&layers, &mut plan, dense, |trial| trial == widest).is_err());
    }
}
