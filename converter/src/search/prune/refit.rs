//! Refits a pruned network, layer by layer, to the dense one.
//!
//! The dense and the pruned network advance side by side. A layer's goal is what the dense network gives before the activation, on the channels that are
//! kept (for a branch of an addition: less what the other branch has wrong); its input is what the pruned network feeds it. Every layer behind
//! the first lost channel is refitted, depthwise ones included ([`fit`]).

use std::sync::Arc;

use crate::calibrate::covariance::Geometry;
use crate::compress::Choice;
use crate::graph::{Graph, Node, Op, Tensor, ValueId};

use super::super::refit::{Task, Values, activation, fit, run, set, without_activation};
use super::super::{Error, Progress};
use super::groups::{Place, select};

/// Channels that each value keeps; `None` for values that keep all.
pub type Kept = Vec<Option<(Place, Vec<usize>)>>;

/// Fits `pruned` (the nodes of `dense`, with the channels `kept`) to `dense`. Gives the graph, and for each fitted node the relative RMS error of its output.
pub fn refit(
    dense: &Graph,
    pruned: &Graph,
    kept: &Kept,
    inputs: &[Vec<f32>],
    samples: usize,
    progress: &dyn Progress,
) -> Result<(Graph, Vec<Option<f64>>), Error> {
    let mut result = pruned.clone();
    let mut errors = vec![None; dense.nodes.len()];
    let mut wanted: Values = vec![None; dense.values.len()];
    for (id, values) in dense.inputs.iter().zip(inputs) {
        wanted[id.0] = Some(Arc::new(values.clone()));
    }
    let mut given = wanted.clone();
    // Values that are those of the dense network, but for the channels that are gone.
    let mut exact = vec![true; dense.values.len()];
    for (index, node) in dense.nodes.iter().enumerate() {
        let linear = run(dense, &without_activation(node), &wanted, samples);
        let kept_of = |id: ValueId, values: &[f32]| match &kept[id.0] {
            Some((place, channels)) => {
                let shape = [&[samples], dense.shape(id)].concat();
                let place = Place { axis: place.axis + 1, ..*place };
                select(&Tensor::new(shape, values.to_vec()), place, channels).data
            }
            None => values.to_vec(),
        };
        let is_reader =
            node.op.weight().is_some() && kept[node.inputs[0].0].is_some() && !is_depthwise(&node.op);
        let inputs_exact = node.inputs.iter().all(|id| exact[id.0]);
        exact[node.output.0] = inputs_exact && !is_reader;
        let geometry = Geometry::of(&result, &result.nodes[index]);
        if let (Some(geometry), true) = (geometry, result.nodes[index].op.dense_weight().is_some()) {
            progress.step(&format!("fitting {}", node.name));
            let mut goal = kept_of(node.output, &linear);
            let repairs = match other_branch(dense, node) {
                Some(other) if !exact[other.0] => match (&wanted[other.0], &given[other.0]) {
                    (Some(wanted), Some(given)) => {
                        let other = kept_of(other, wanted);
                        let lacks = other.iter().zip(given.iter()).map(|(wanted, given)| wanted - given);
                        goal.iter_mut().zip(lacks).for_each(|(goal, lacks)| *goal += lacks);
                        true
                    }
                    _ => false,
                },
                _ => false,
            };
            if repairs || !exact[node.output.0] {
                exact[node.output.0] = false;
                let input = given[node.inputs[0].0].as_ref().map_or(&[][..], |values| values.as_slice());
                let op = &result.nodes[index].op;
                let task = Task { choice: Choice::Dense, start: None, metric: None };
                let fitted = fit(op, &geometry, task, input, &goal, samples, None)
                    .map_err(|reason| Error::Fit { node: node.name.clone(), op: node.op.name(), reason })?;
                errors[index] = Some(fitted.error);
                set(&mut result.nodes[index].op, fitted.weight, &fitted.bias);
            }
        }
        given[node.output.0] = Some(Arc::new(run(&result, &result.nodes[index], &given, samples)));
        let activation = activation(&node.op);
        wanted[node.output.0] = Some(Arc::new(linear.into_iter().map(|x| activation.apply(x)).collect()));
        for id in &node.inputs {
            let read_later = dense.nodes[index + 1..].iter().any(|later| later.inputs.contains(id));
            if !read_later {
                (wanted[id.0], given[id.0]) = (None, None);
            }
        }
    }
    Ok((result, errors))
}

fn is_depthwise(op: &Op) -> bool {
    matches!(op, Op::Conv(conv) if conv.groups > 1)
}

/// The other operand of the addition that alone reads this layer.
fn other_branch(graph: &Graph, node: &Node) -> Option<ValueId> {
    if !activation(&node.op).is_none() || graph.outputs.contains(&node.output) {
        return None;
    }
    let [reader] = graph.consumers(node.output)[..] else { return None };
    let reader = &graph.nodes[reader];
    let sum = matches!(reader.op, Op::Add(_));
    reader.inputs.iter().copied().find(|id| sum && *id != node.output)
}
