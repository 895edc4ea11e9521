//! Gives every stored tensor, and every step's scratch, its place in the arena.
//!
//! Takes a [`Layout`], the element width of each value, and what each step [needs](Needs) on the target. Gives a [`Plan`]: offsets, arena size, and who
//! holds the peak. Steps keep their order. Views of one buffer share memory, and a step that may run in place writes over an input that
//! dies there: sums, products, functions of one number and softmax wherever they can (the operands of a sum or product change places where only the
//! second one dies), convolutions where the peak is lower for it. Graph inputs live from the start (the caller writes them before the first step),
//! graph outputs to the end, scratch while its step runs.

mod arena;
pub mod cost;
pub mod flash;
pub mod memory;
pub mod needs;
mod pixels;
mod settle;
pub mod transform;

pub use arena::{Block, Placement, place};
pub use needs::Needs;
pub use settle::Region;

use tucano::backend::spec::select::Isa;

use crate::calibrate::covariance::Geometry;
use crate::graph::{Graph, Op, ValueId};
use crate::passes::layout::{self, Kind, Layout, Step, layout};
use crate::quantize::Quantized;
use needs::Numbers;
use settle::{Demand, Purpose, settle};

/// Every tensor starts at a multiple of this many bytes, and so must the arena.
pub const ARENA_ALIGN: usize = 16;

/// A layout with its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layout; operands of sums may have changed places.
    pub layout: Layout,
    /// Bytes from the start of the arena, one for each tensor of the layout.
    pub offsets: Vec<usize>,
    /// Offset and bytes of the scratch of each step.
    pub scratch: Vec<(usize, usize)>,
    /// For each tensor of the layout how many of its rows are kept in memory; 0: all.
    pub window_rows: Vec<usize>,
    /// Steps that run in turns.
    pub regions: Vec<Region>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// No order of placing can need less than this with these steps: the largest sum of what lives at once.
    pub lower_bound: usize,
    /// What lives at the step where most does.
    pub peak: Peak,
}

/// The moment that decides the arena's size.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Peak {
    /// Name of the step.
    pub step: String,
    /// What lives then, with its bytes, largest first.
    pub live: Vec<(Holder, usize)>,
}

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A value.
    Value(ValueId),
    /// Scratch of the step that runs.
    Scratch,
}

/// Which memory is needed when. Time 0 is before the first step, time `s + 1` is step `s`, the time behind the last step is the end.
struct Lifetimes {
    /// What is placed as a whole: buffers, joined with those that are written over them in place.
    blocks: Vec<Block>,
    /// For each block the value of its first buffer.
    values: Vec<ValueId>,
    /// For each buffer its block.
    of_buffer: Vec<usize>,
    /// For each step what it does with them.
    demands: Vec<Demand>,
}

/// Finds the lifetimes; the operands of sums and products may change places. Convolutions do not write over their inputs yet.
fn lifetimes(
    layout: &mut Layout,
    element_bytes: impl Fn(ValueId) -> usize,
    needs: impl Fn(&Step) -> Needs,
) -> Lifetimes {
    let buffers = layout.tensors.iter().map(|tensor| tensor.buffer + 1).max().unwrap_or(0);
    let end = layout.steps.len() + 1;
    let mut blocks = vec![Block { bytes: 0, first: end, last: 0 }; buffers];
    let mut values = vec![ValueId(0); buffers];
    for tensor in layout.tensors.iter().rev() {
        blocks[tensor.buffer].bytes = tensor.shape.iter().product::<usize>() * element_bytes(tensor.value);
        values[tensor.buffer] = tensor.value;
    }
    let mut live_at = |tensor: usize, time: usize| {
        let block = &mut blocks[layout.tensors[tensor].buffer];
        block.first = block.first.min(time);
        block.last = block.last.max(time);
    };
    layout.inputs.iter().for_each(|tensor| live_at(*tensor, 0));
    for (time, step) in (1..).zip(&layout.steps) {
        step.inputs.iter().chain([&step.output]).for_each(|tensor| live_at(*tensor, time));
    }
    layout.outputs.iter().for_each(|tensor| live_at(*tensor, end));

    // Buffers that are written in place join the block of the buffer they overwrite.
    let mut block_of: Vec<usize> = (0..buffers).collect();
    for (time, step) in (1..).zip(&mut layout.steps) {
        let output = layout.tensors[step.output].buffer;
        let candidates = match step.kind {
            Kind::Add | Kind::Mul => 2,
            Kind::Pointwise | Kind::Softmax => 1,
            _ => 0,
        };
        let block = |operand: &usize| block_of[layout.tensors[*operand].buffer];
        let operands: Vec<usize> = step.inputs.iter().map(block).collect();
        let dying = (0..candidates).find(|k| {
            let from = operands[*k];
            let others = operands.iter().enumerate().all(|(other, block)| other == *k || *block != from);
            others && blocks[from].last == time && blocks[from].bytes == blocks[output].bytes
        });
        if let Some(k) = dying {
            step.inputs.swap(0, k);
            block_of[output] = operands[k];
            blocks[operands[k]].last = blocks[output].last;
        }
    }
    let roots: Vec<usize> = (0..buffers).filter(|buffer| block_of[*buffer] == *buffer).collect();
    let of_buffer: Vec<usize> =
        block_of.iter().map(|block| roots.iter().position(|root| root == block).unwrap_or(0)).collect();
    let block = |tensor: usize| of_buffer[layout.tensors[tensor].buffer];
    let blocks: Vec<Block> = roots.iter().map(|root| blocks[*root]).collect();
    let demand = |(time, step): (usize, &Step)| {
        let (input, needs) = (block(step.inputs[0]), needs(step));
        let just_written = blocks[input].first + 1 == time && blocks[input].last == time;
        Demand { time, input, output: block(step.output), needs, follows: needs.inner && just_written }
    };
    let demands = (1..).zip(&layout.steps).map(demand).collect();
    Lifetimes { blocks, values: roots.iter().map(|root| values[*root]).collect(), of_buffer, demands }
}

/// Plans the arena; `element_bytes` is the width of the elements of a value, `needs` says what a step needs.
pub fn plan(
    mut layout: Layout,
    element_bytes: impl Fn(ValueId) -> usize,
    needs: impl Fn(&Step) -> Needs,
) -> Plan {
    let end = layout.steps.len() + 1;
    let Lifetimes { blocks, values, of_buffer, demands } = lifetimes(&mut layout, element_bytes, needs);
    let settled = settle(&blocks, &demands, ARENA_ALIGN);
    let placed = settled.blocks.iter().zip(&settled.placement.offsets);
    let holder_of = |buffer: usize| settled.holder.get(of_buffer[buffer]);
    let offset_of = |buffer: usize| holder_of(buffer).map_or(0, |holder| settled.placement.offsets[*holder]);
    let offsets = layout.tensors.iter().map(|tensor| offset_of(tensor.buffer)).collect();
    let mut scratch = vec![(0, 0); layout.steps.len()];
    for ((block, purpose), offset) in placed {
        if let Purpose::Scratch(step) = purpose {
            scratch[*step] = (*offset, block.bytes);
        }
    }
    let mut window_rows = vec![0; layout.tensors.len()];
    for region in &settled.regions {
        // They share one scratch.
        let (offset, _) = scratch[region.demands.start];
        for step in region.demands.clone() {
            scratch[step] = (offset, settled.scratch[step]);
        }
        for (step, rows) in region.demands.clone().zip(&region.windows) {
            window_rows[layout.steps[step].output] = *rows;
        }
    }

    let live = |time: usize| settled.blocks.iter().filter(move |(block, _)| block.lives_at(time));
    let load = |time: usize| live(time).map(|(block, _)| block.bytes).sum::<usize>();
    // The first of equals.
    let time = (0..=end).rev().max_by_key(|time| load(*time)).unwrap_or(0);
    let step = match time {
        0 => "input".to_owned(),
        _ => layout.steps.get(time - 1).map_or_else(|| "output".to_owned(), |step| step.name.clone()),
    };
    let holder = |purpose: &Purpose| match purpose {
        Purpose::Values(block) => Holder::Value(values[*block]),
        Purpose::Scratch(_) => Holder::Scratch,
    };
    let mut holders: Vec<(Holder, usize)> =
        live(time).map(|(block, purpose)| (holder(purpose), block.bytes)).collect();
    holders.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Plan {
        layout,
        offsets,
        scratch,
        window_rows,
        regions: settled.regions,
        arena_bytes: settled.placement.bytes,
        lower_bound: settled.placement.lower_bound,
        peak: Peak { step, live: holders },
    }
}

/// Plans a legalised graph for a target: in floats, or with the constants of `quantized`, whose graph it then is.
pub fn plan_for(graph: &Graph, quantized: Option<&Quantized>, isa: Isa) -> Result<Plan, layout::Error> {
    let bytes = |id: ValueId| quantized.map_or(4, |quantized| quantized.dtype(id).bytes());
    let numbers = |node: usize| {
        let layer = quantized.and_then(|quantized| quantized.layers.get(node)?.as_ref());
        let input = graph.nodes[node].inputs[0];
        let zero_point = graph.value(input).quantization.map_or(0, |quantization| quantization.zero_point);
        Numbers {
            narrow: layer.map(|layer| needs::all_narrow(layer, zero_point)),
            transformed: layer.is_some_and(|layer| layer.transformed),
            ..Numbers::of_widths(ends(graph, node).map(bytes), layer.is_some_and(|layer| layer.four_bits))
        }
    };
    Ok(plan(layout_for(graph, isa, numbers)?, bytes, step_needs(graph, isa, numbers)))
}

/// The layout of a legalised graph for a target; `numbers` are those of a node.
fn layout_for(graph: &Graph, isa: Isa, numbers: impl Fn(usize) -> Numbers) -> Result<Layout, layout::Error> {
    let layout = layout(graph)?;
    if !isa.has_kernels() {
        return Ok(layout);
    }
    Ok(pixels::join(graph, layout, isa, numbers))
}

/// The geometry of a linear step.
pub fn step_geometry(graph: &Graph, step: &Step) -> Option<Geometry> {
    let node = &graph.nodes[step.node];
    let layer = Geometry::of(graph, node)?;
    let is_pixels = matches!((&step.kind, &node.op), (Kind::Conv(..), Op::Dense(_)));
    Some(if is_pixels { pixels::geometry(layer) } else { layer })
}

/// First input and output of a node.
fn ends(graph: &Graph, node: usize) -> [ValueId; 2] {
    [graph.nodes[node].inputs[0], graph.nodes[node].output]
}

/// What the steps of a legalised graph need; `numbers` are those of a node.
fn step_needs(graph: &Graph, isa: Isa, numbers: impl Fn(usize) -> Numbers) -> impl Fn(&Step) -> Needs {
    move |step| match step.kind {
        Kind::Conv(..) | Kind::DepthwiseConv(..) | Kind::Dense(_) => {
            let dense = matches!(step.kind, Kind::Dense(_));
            let inner = graph.value(graph.nodes[step.node].inputs[0]).rank_space;
            let needs = |layer| Needs { inner, ..Needs::of(isa, &layer, Some(dense), numbers(step.node)) };
            step_geometry(graph, step).map_or_else(Needs::default, needs)
        }
        Kind::Add => {
            let elements = graph.shape(graph.nodes[step.node].output).iter().product();
            let apart = needs::sum_scratch(isa, numbers(step.node).types, elements);
            Needs { apart, ..Needs::default() }
        }
        _ => Needs::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationRange, Graph, Node, Unary};
    use crate::passes::layout::layout;

    /// `x` of 8 elements, then the named operations; operands are value numbers.
    fn graph(ops: &[(Op, &[usize])], outputs: &[usize]) -> Graph {
        let mut graph = Graph::default();
        let input = graph.add_value("x", vec![1, 8]);
        graph.inputs.push(input);
        for (k, (op, operands)) in ops.iter().enumerate() {
            let shapes: Vec<&[usize]> = operands.iter().map(|id| graph.shape(ValueId(*id))).collect();
            let shape = op.output_shape(&shapes).unwrap();
            let output = graph.add_value(format!("v{}", k + 1), shape);
            let inputs = operands.iter().map(|id| ValueId(*id)).collect();
            graph.nodes.push(Node { name: format!("n{k}"), op: op.clone(), inputs, output });
        }
        graph.outputs = outputs.iter().map(|id| ValueId(*id)).collect();
        graph.check().unwrap();
        graph
    }

    fn planned(graph: &Graph) -> Plan {
        plan(layout(graph).unwrap(), |_| 4, |_| Needs::default())
    }

    const SIN: Op = Op::Unary(Unary::Sin);
    const ADD: Op = Op::Add(ActivationRange::NONE);

    #[test]
    fn in_place_chain_needs_one_buffer() {
        let plan = planned(&graph(&[(SIN, &[0]), (SIN, &[1]), (Op::Reshape(vec![8]), &[2])], &[3]));
        assert_eq!(plan.arena_bytes, 32);
        assert!(plan.offsets.iter().all(|offset| *offset == 0));
    }

    #[test]
    fn a_value_that_lives_on_is_not_overwritten() {
        // v1 = sin x; v2 = sin v1; v3 = v1 + v2: v1 lives over v2, v3 overwrites one of them.
        let plan = planned(&graph(&[(SIN, &[0]), (SIN, &[1]), (ADD, &[1, 2])], &[3]));
        assert_eq!(plan.arena_bytes, 64);
        let step = &plan.layout.steps[1];
        assert_ne!(plan.offsets[step.inputs[0]], plan.offsets[step.output]);
        // A graph output is not overwritten either.
        assert_eq!(planned(&graph(&[(SIN, &[0]), (SIN, &[1])], &[1, 2])).arena_bytes, 64);
    }

    #[test]
    fn the_dying_operand_comes_first() {
        // v2 = x + v1 with x living on: only v1 may be overwritten.
        let plan = planned(&graph(&[(SIN, &[0]), (ADD, &[0, 1]), (ADD, &[0, 2])], &[3]));
        let step = &plan.layout.steps[1];
        assert_eq!(plan.layout.tensors[step.inputs[0]].value, ValueId(1));
        assert_eq!(plan.offsets[step.inputs[0]], plan.offsets[step.output]);
        assert_eq!(plan.arena_bytes, 64);
    }

    #[test]
    fn a_value_added_to_itself_is_not_overwritten() {
        assert_eq!(planned(&graph(&[(ADD, &[0, 0])], &[1])).arena_bytes, 64);
    }

    #[test]
    fn peak_names_its_holders() {
        let plan = planned(&graph(&[(SIN, &[0]), (SIN, &[0]), (ADD, &[1, 2])], &[3]));
        assert_eq!((plan.peak.live.len(), plan.peak.step.as_str()), (2, "n0"));
        assert_eq!(plan.arena_bytes, plan.lower_bound);
    }
}
