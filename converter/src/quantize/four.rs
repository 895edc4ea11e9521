//! Which layers store their weights in 4 bits.
//!
//! Two weights a byte halve a layer's flash. Their kernels take more instructions a product, and rounding to 15 levels is felt: fitting
//! ([`super::rounding`]) makes up for most of it. Depthwise convolutions, which have few weights, and layers from or to 16 bits keep 8.

use super::Quantized;
use super::simulate::simulate;
use crate::calibrate::Dataset;
use crate::calibrate::covariance::Geometry;
use crate::evaluate::{ClassScores, evaluate, metrics};
use crate::graph::Graph;

/// Width of stored weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightBits {
    /// 8 bits.
    #[default]
    Eight,
    /// 4 bits wherever there is a kernel for them.
    Four,
    /// 4 bits for as many layers as hardly change the outputs on held-out calibration samples, else 8.
    Measured,
}

/// Greatest stored weight of 8 bits, and of 4.
pub const LEVELS_8: i32 = 127;
pub const LEVELS_4: i32 = 7;

/// Divergence (nats) of a classifier that 4-bit weights may add in all.
const ADDED_DIVERGENCE: f64 = 0.005;
/// Squared relative error of another network's outputs that they may add.
const ADDED_SQUARE: f64 = 0.02 * 0.02;
/// Of so many samples one is held out to judge by.
const HELD_OUT: usize = 5;

/// Whether a layer has kernels for 4-bit weights.
pub const fn has_kernel(layer: &Geometry) -> bool {
    !(layer.groups > 1 && layer.groups == layer.input[0])
}

/// Nodes that may have 4 bits, with their number of weights.
pub fn candidates(graph: &Graph) -> Vec<(usize, usize)> {
    let weights = |(index, node): (usize, &crate::graph::Node)| {
        let weights = node.op.dense_weight()?.len();
        Geometry::of(graph, node).filter(has_kernel).map(|_| (index, weights))
    };
    graph.nodes.iter().enumerate().filter_map(weights).collect()
}

/// Samples to fit, and others to judge by; the same ones where there are few.
pub fn split(data: &Dataset) -> [Dataset; 2] {
    let held = data.samples / HELD_OUT;
    match held {
        0 => [data.clone(), data.clone()],
        _ => [data.slice(0..data.samples - held), data.slice(data.samples - held..data.samples)],
    }
}

/// What a quantised network loses on `data`: nats for classifiers, else the squared relative error of its outputs. And how much more is
/// allowed.
pub fn loss(graph: &Graph, data: &Dataset) -> (impl Fn(&Quantized) -> f64, f64) {
    let reference = evaluate(graph, &data.inputs, data.samples, &graph.outputs);
    let classes = ClassScores::of(graph);
    let allowed = if classes.is_some() { ADDED_DIVERGENCE } else { ADDED_SQUARE };
    let measure = move |quantized: &Quantized| {
        let outputs = simulate(quantized, &data.inputs, data.samples);
        match classes {
            Some(scores) => {
                metrics::softmax_kl(&reference[0], &outputs[0], scores.classes, scores.probabilities)
            }
            None => metrics::relative_rms(&reference.concat(), &outputs.concat()).powi(2),
        }
    };
    (measure, allowed)
}

/// As many of `candidates` as add at most `allowed` to the loss. Those go first that lose least for their weights `alone` (quickly
/// judged); how many of them, their loss `together` decides.
pub fn choose<E>(
    candidates: &[(usize, usize)],
    allowed: f64,
    alone: impl Fn(&[usize]) -> Result<f64, E>,
    together: impl Fn(&[usize]) -> Result<f64, E>,
) -> Result<Vec<usize>, E> {
    let mut order = Vec::with_capacity(candidates.len());
    let none = alone(&[])?;
    for (node, weights) in candidates {
        order.push(((alone(&[*node])? - none) / *weights as f64, *node));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let nodes: Vec<usize> = order.into_iter().map(|(_, node)| node).collect();
    let limit = together(&[])? + allowed;
    let (mut fits, mut fails) = (0, nodes.len() + 1);
    while fits + 1 < fails {
        // All of them is the commonest answer.
        let count = if fails > nodes.len() { nodes.len() } else { (fits + fails) / 2 };
        if together(&nodes[..count])? <= limit { fits = count } else { fails = count }
    }
    Ok(nodes[..fits].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_layers_as_the_loss_allows() {
        // Losses of four layers of these many weights.
        let (losses, candidates) = ([0.4, 0.1, 0.0, 0.9], [(0, 100), (1, 10), (2, 10), (3, 1000)]);
        let loss = |four: &[usize]| Ok::<_, ()>(1.0 + four.iter().map(|node| losses[*node]).sum::<f64>());
        // By loss per weight: 2, 3, 0, 1.
        let chosen = |allowed| choose(&candidates, allowed, loss, loss).unwrap();
        assert_eq!(chosen(2.0), [2, 3, 0, 1]);
        assert_eq!(chosen(1.35), [2, 3, 0]);
        assert_eq!(chosen(1.0), [2, 3]);
        assert_eq!(chosen(0.5), [2]);
        assert!(chosen(-0.5).is_empty());
        assert_eq!(choose(&candidates, 1.0, |_| Err("broken"), |_| Ok(0.0)), Err("broken"));
        assert!(choose(&[], 1.0, loss, loss).unwrap().is_empty());
    }
}
