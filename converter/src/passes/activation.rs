//! Fuses clamps (ReLU, ReLU6, Clip) into the node before them.

use super::edit;
use crate::graph::{ActivationRange, Graph, Op};

/// Fuses each [`Op::Clamp`] into the node that feeds it, where that is a convolution, dense layer, sum, product or clamp that nobody
/// else reads. A clamp behind a maximum pooling moves before it (both are monotone), where it can be fused. Empty clamps vanish.
pub fn fuse_clamps(graph: &Graph) -> Graph {
    edit::rewrite(graph, |graph, index| {
        let Op::Clamp(range) = graph.nodes[index].op else { return false };
        if range.is_none() {
            return edit::remove_identity(graph, index);
        }
        let Some(producer) = edit::private_producer(graph, graph.nodes[index].inputs[0]) else {
            return false;
        };
        if let Some(activation) = activation_mut(&mut graph.nodes[producer].op) {
            *activation = activation.then(range);
            edit::merge_into_producer(graph, producer, index);
            return true;
        }
        if let Op::MaxPool(pool) = graph.nodes[producer].op {
            let foldable = edit::private_producer(graph, graph.nodes[producer].inputs[0])
                .is_some_and(|source| activation_mut(&mut graph.nodes[source].op).is_some());
            if foldable {
                edit::sink(graph, index, Op::Clamp(range), Op::MaxPool(pool));
            }
            return foldable;
        }
        false
    })
}

/// The fused activation of an operator that has one; a clamp's own range.
fn activation_mut(op: &mut Op) -> Option<&mut ActivationRange> {
    match op {
        Op::Conv(conv) => Some(&mut conv.activation),
        Op::Dense(dense) => Some(&mut dense.activation),
        Op::Add(range) | Op::Mul(range) | Op::Clamp(range) => Some(range),
        _ => None,
    }
}
