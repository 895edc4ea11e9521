//! Removes transposes, or moves them to where they meet.

use super::edit;
use super::order::axis_order;
use crate::graph::{Graph, Op, Tensor, Weight};

/// Composes transposes, turns those that only move axes of extent 1 into reshapes, moves the others behind nodes that work on any
/// order of axes, towards the outputs, and absorbs them in the columns or rows of a dense layer.
pub fn simplify_transposes(graph: &Graph) -> Graph {
    edit::rewrite(graph, |graph, index| {
        as_reshape(graph, index)
            || compose(graph, index)
            || sink_transpose(graph, index)
            || absorb_in_columns(graph, index)
            || absorb_in_rows(graph, index)
    })
}

/// The order of the elements stays if the axes with more than one keep theirs.
fn as_reshape(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Transpose(permutation) = &node.op else { return false };
    let shape = graph.shape(node.inputs[0]);
    let moved = permutation.iter().filter(|axis| shape[**axis] != 1);
    if !moved.is_sorted() {
        return false;
    }
    graph.nodes[index].op = Op::Reshape(graph.shape(node.output).to_vec());
    true
}

/// A transpose of a transpose reads the first one's input; the first one may become dead.
fn compose(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Transpose(second) = &node.op else { return false };
    let Some(producer) = graph.producer(node.inputs[0]) else { return false };
    let Op::Transpose(first) = &graph.nodes[producer].op else { return false };
    let permutation = second.iter().map(|axis| first[*axis]).collect();
    graph.nodes[index].inputs = graph.nodes[producer].inputs.clone();
    graph.nodes[index].op = Op::Transpose(permutation);
    true
}

/// Moves the transposes before node `index` behind it, if it can work on the other order and nothing else reads them.
fn sink_transpose(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let mut permutation: Option<&Vec<usize>> = None;
    for id in &node.inputs {
        let Some(mover) = edit::private_producer(graph, *id) else { return false };
        let Op::Transpose(other) = &graph.nodes[mover].op else { return false };
        if *permutation.get_or_insert(other) != other {
            return false;
        }
    }
    let Some(permutation) = permutation.cloned() else { return false };
    let rank = permutation.len();
    let (op, moved) = match &node.op {
        op @ (Op::Clamp(_) | Op::Unary(_) | Op::Add(_) | Op::Mul(_)) => (op.clone(), permutation.clone()),
        op @ Op::Affine(_) if permutation[..2] == [0, 1] => (op.clone(), permutation.clone()),
        op @ Op::Dense(_) if permutation[rank - 1] == rank - 1 => (op.clone(), permutation.clone()),
        Op::Softmax { axis } if permutation[*axis] != 0 => {
            (Op::Softmax { axis: permutation[*axis] }, permutation.clone())
        }
        Op::Mean { axes, keep_axes } => {
            let mut mapped: Vec<usize> = axes.iter().map(|axis| permutation[*axis]).collect();
            mapped.sort_unstable();
            if mapped[0] == 0 {
                return false;
            }
            let moved = if *keep_axes {
                permutation.clone()
            } else {
                let left: Vec<usize> =
                    permutation.iter().copied().filter(|axis| !mapped.contains(axis)).collect();
                let rank_among = |axis: &usize| left.iter().filter(|other| *other < axis).count();
                left.iter().map(rank_among).collect()
            };
            (Op::Mean { axes: mapped, keep_axes: *keep_axes }, moved)
        }
        _ => return false,
    };
    edit::sink(graph, index, op, Op::Transpose(moved));
    true
}

/// Transpose, flatten, dense: the dense layer reads the elements in their old order, with its columns moved.
fn absorb_in_columns(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Some(weight) = dense_layer_weight(&node.op) else { return false };
    let Some(flatten) = edit::private_producer(graph, node.inputs[0]) else { return false };
    let Op::Reshape(target) = &graph.nodes[flatten].op else { return false };
    let Some(transpose) = edit::private_producer(graph, graph.nodes[flatten].inputs[0]) else { return false };
    let Op::Transpose(permutation) = &graph.nodes[transpose].op else { return false };
    let source = graph.nodes[transpose].inputs[0];
    let shape = graph.shape(source);
    let columns = weight.shape[1];
    if permutation[0] != 0
        || shape[1..].iter().product::<usize>() != columns
        || target[..] != [shape[0], columns]
    {
        return false;
    }
    // Axis 0 stays: places within one step of it.
    let order = axis_order(shape, &permutation[1..]);
    let mut moved = Tensor::zeros(weight.shape.clone());
    for (from, to) in weight.data.chunks_exact(columns).zip(moved.data.chunks_exact_mut(columns)) {
        order.iter().zip(from).for_each(|(column, x)| to[*column] = *x);
    }
    set_weight(&mut graph.nodes[index].op, moved);
    graph.nodes[flatten].inputs = vec![source];
    graph.nodes.remove(transpose);
    true
}

/// Dense, reshape, transpose: the dense layer gives its outputs in the new order.
fn absorb_in_rows(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Transpose(permutation) = &node.op else { return false };
    let Some(reshape) = edit::private_producer(graph, node.inputs[0]) else { return false };
    let Op::Reshape(shape) = &graph.nodes[reshape].op else { return false };
    let Some(dense) = edit::private_producer(graph, graph.nodes[reshape].inputs[0]) else { return false };
    let Some(weight) = dense_layer_weight(&graph.nodes[dense].op) else { return false };
    let [rows, columns] = [weight.shape[0], weight.shape[1]];
    if permutation[0] != 0 || graph.shape(graph.nodes[dense].output)[..] != [shape[0], rows] {
        return false;
    }
    // Axis 0 stays: places within one step of it.
    let order = axis_order(shape, &permutation[1..]);
    let data = order.iter().flat_map(|row| &weight.data[row * columns..][..columns]).copied().collect();
    let moved = Tensor::new(weight.shape.clone(), data);
    let target = graph.shape(node.output).to_vec();
    set_weight(&mut graph.nodes[dense].op, moved);
    if let Op::Dense(dense) = &mut graph.nodes[dense].op {
        let reordered = |bias: &Vec<f32>| order.iter().map(|row| bias[*row]).collect();
        dense.bias = dense.bias.as_ref().map(reordered);
    }
    graph.nodes[reshape].op = Op::Reshape(target);
    edit::merge_into_producer(graph, reshape, index);
    true
}

fn dense_layer_weight(op: &Op) -> Option<&Tensor> {
    if matches!(op, Op::Dense(_)) { op.dense_weight() } else { None }
}

fn set_weight(op: &mut Op, weight: Tensor) {
    if let Op::Dense(dense) = op {
        dense.weight = Weight::Dense(weight);
    }
}
