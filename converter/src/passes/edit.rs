//! The few ways in which passes change a graph.
//!
//! All keep the order of nodes topological, and the names of graph outputs.

use crate::graph::{Graph, Node, Op, ValueId};

/// Offers `step` every node until it changes nothing any more; after a change it starts again. `step` says whether it made one.
pub fn rewrite(graph: &Graph, step: impl Fn(&mut Graph, usize) -> bool) -> Graph {
    let mut graph = graph.clone();
    let mut index = 0;
    while index < graph.nodes.len() {
        index = if step(&mut graph, index) { 0 } else { index + 1 };
    }
    graph
}

/// The node that gives `id`, if a single node reads `id` (once or more often) and the caller does not.
pub fn private_producer(graph: &Graph, id: ValueId) -> Option<usize> {
    let private = !graph.outputs.contains(&id) && graph.consumers(id).len() == 1;
    if private { graph.producer(id) } else { None }
}

/// Removes node `index`, whose output equals its only input, and joins the two values into one.
///
/// The input's value goes on, unless the output is the caller's: then the producer gives that one. Only where both are the caller's
/// (or the input is fed by the caller) nothing can be removed, and the answer is `false`.
pub fn remove_identity(graph: &mut Graph, index: usize) -> bool {
    let (input, output) = (graph.nodes[index].inputs[0], graph.nodes[index].output);
    if graph.outputs.contains(&output) {
        let Some(producer) = graph.producer(input).filter(|_| !graph.outputs.contains(&input)) else {
            return false;
        };
        graph.redirect(input, output);
        graph.nodes[producer].output = output;
    } else {
        graph.redirect(output, input);
    }
    graph.nodes.remove(index);
    true
}

/// Removes node `index` after its private producer has taken over its work.
pub fn merge_into_producer(graph: &mut Graph, producer: usize, index: usize) {
    graph.nodes[producer].output = graph.nodes[index].output;
    graph.nodes.remove(index);
}

/// Swaps node `index` with the movers (transposes, reshapes or pads, all alike) that feed it: it then reads their inputs and does
/// `op`, and one mover does `moved` behind it. Each input of the node comes from a mover that nothing else reads.
pub fn sink(graph: &mut Graph, index: usize, op: Op, moved: Op) {
    let node = graph.nodes[index].clone();
    let mut movers: Vec<usize> = node.inputs.iter().filter_map(|id| graph.producer(*id)).collect();
    let inputs: Vec<ValueId> = movers.iter().map(|mover| graph.nodes[*mover].inputs[0]).collect();
    let shapes: Vec<&[usize]> = inputs.iter().map(|id| graph.shape(*id)).collect();
    let Ok(shape) = op.output_shape(&shapes) else {
        unreachable!("the operator fits the inputs of the movers");
    };
    let value = graph.value(node.output).clone();
    let inner = graph.add_value(format!("{}/inner", value.name), shape);
    graph.values[inner.0].quantization = value.quantization;
    let name = graph.nodes[movers[0]].name.clone();
    graph.nodes[index] = Node { op, inputs, output: inner, name: node.name };
    graph.nodes.insert(index + 1, Node { name, op: moved, inputs: vec![inner], output: node.output });
    movers.sort_unstable();
    movers.dedup();
    for mover in movers.into_iter().rev() {
        graph.nodes.remove(mover);
    }
}
