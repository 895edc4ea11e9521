//! Removes reshapes, or moves them to where they stand together.

use super::edit;
use crate::graph::{Affine, Graph, Op};

/// Merges reshapes with each other and with the reduced axes of a mean, removes those that change nothing, and moves the others
/// behind elementwise nodes, towards the outputs, so that those meet the linear layer before them.
pub fn simplify_reshapes(graph: &Graph) -> Graph {
    edit::rewrite(graph, |graph, index| {
        remove_empty(graph, index)
            || merge_chain(graph, index)
            || merge_with_mean(graph, index)
            || sink_reshape(graph, index)
    })
}

fn remove_empty(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    matches!(&node.op, Op::Reshape(shape) if shape == graph.shape(node.inputs[0]))
        && edit::remove_identity(graph, index)
}

/// A reshape of a reshape reads the first one's input; the first one may become dead.
fn merge_chain(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Some(producer) = graph.producer(node.inputs[0]) else { return false };
    if !matches!((&node.op, &graph.nodes[producer].op), (Op::Reshape(_), Op::Reshape(_))) {
        return false;
    }
    graph.nodes[index].inputs = graph.nodes[producer].inputs.clone();
    true
}

/// A mean that keeps its axes, then a reshape that drops them, and the other way round.
fn merge_with_mean(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Reshape(target) = &node.op else { return false };
    let Some(producer) = edit::private_producer(graph, node.inputs[0]) else { return false };
    let Op::Mean { axes, keep_axes } = &graph.nodes[producer].op else { return false };
    let other = Op::Mean { axes: axes.clone(), keep_axes: !keep_axes };
    let input = graph.shape(graph.nodes[producer].inputs[0]);
    if other.output_shape(&[input]).as_ref() != Ok(target) {
        return false;
    }
    graph.nodes[producer].op = other;
    edit::merge_into_producer(graph, producer, index);
    true
}

/// Moves the reshapes before node `index` behind it, if it is elementwise and nothing else reads them.
fn sink_reshape(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let mut source: Option<Vec<usize>> = None;
    for id in &node.inputs {
        let Some(mover) = edit::private_producer(graph, *id) else { return false };
        if !matches!(graph.nodes[mover].op, Op::Reshape(_)) {
            return false;
        }
        let shape = graph.shape(graph.nodes[mover].inputs[0]).to_vec();
        if source.get_or_insert_with(|| shape.clone()) != &shape {
            return false;
        }
    }
    let Some(source) = source else { return false };
    let op = match &node.op {
        op @ (Op::Clamp(_) | Op::Unary(_) | Op::Add(_) | Op::Mul(_)) => op.clone(),
        Op::Affine(affine) => match affine_before_reshape(affine, &source, graph.shape(node.inputs[0])) {
            Some(affine) => Op::Affine(affine),
            None => return false,
        },
        _ => return false,
    };
    let target = graph.shape(node.output).to_vec();
    edit::sink(graph, index, op, Op::Reshape(target));
    true
}

/// The affine that on `source` does what `affine` does on `target`; `None` unless each channel of `source` lies in one of `target`.
fn affine_before_reshape(affine: &Affine, source: &[usize], target: &[usize]) -> Option<Affine> {
    if source.len() < 2 || source[0] != target[0] {
        return None;
    }
    let inner: usize = source[2..].iter().product();
    let target_inner: usize = target[2..].iter().product();
    if inner == 0 || !target_inner.is_multiple_of(inner) {
        return None;
    }
    let spread =
        |numbers: &[f32]| (0..source[1]).map(|channel| numbers[channel * inner / target_inner]).collect();
    Some(Affine { scale: spread(&affine.scale), shift: spread(&affine.shift) })
}
