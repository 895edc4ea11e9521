//! Equalises the channels inside factorised layers.
//!
//! Between two linear layers with nothing but a rectifier in between, each channel may be divided by any positive number if the next
//! layer multiplies by it: exact in real arithmetic. Per-tensor quantisation loses least when all channels reach the same
//! maximum (cross-layer equalisation, Nagel et al. 2019, arXiv 1906.04721, with the activation's maximum as criterion). Applied to
//! rank channels only.

use crate::calibrate::{Dataset, ranges};
use crate::graph::{ActivationRange, Conv, Dense, Graph, Op, Tensor, ValueId, Weight};

/// An equal graph whose rank channels all have maximum 1 on `data`.
pub fn equalized(graph: &Graph, data: &Dataset) -> Graph {
    let inner: Vec<(ValueId, usize, usize)> =
        (0..graph.values.len()).filter_map(|id| between_two(graph, ValueId(id))).collect();
    if inner.is_empty() {
        return graph.clone();
    }
    let statistics = ranges::collect(graph, data);
    let mut equal = graph.clone();
    for (id, producer, consumer) in inner {
        let greatest = statistics.get(&id).map_or(&[][..], |seen| &seen.channel_max);
        // Channels that are always zero, and extremes that would leave the range of f32, stay as they are.
        let sane = |max: f32| (1e-15..1e15).contains(&max);
        let scale: Vec<f32> = greatest.iter().map(|max| if sane(*max) { *max } else { 1.0 }).collect();
        divide_rows(&mut equal.nodes[producer].op, &scale);
        multiply_columns(&mut equal.nodes[consumer].op, &scale);
    }
    equal
}

/// A rank value that one linear layer gives and only one reads, on matching channels.
fn between_two(graph: &Graph, id: ValueId) -> Option<(ValueId, usize, usize)> {
    let free =
        graph.value(id).rank_space && graph.value(id).quantization.is_none() && !graph.outputs.contains(&id);
    let producer = graph.producer(id).filter(|_| free)?;
    let [consumer] = graph.consumers(id)[..] else { return None };
    let passes = |activation: ActivationRange| activation.is_none() || activation == ActivationRange::RELU;
    let same_channels = match (&graph.nodes[producer].op, &graph.nodes[consumer].op) {
        (Op::Conv(first), Op::Conv(_)) => passes(first.activation),
        (Op::Dense(first), Op::Dense(_)) => passes(first.activation),
        _ => false,
    };
    same_channels.then_some((id, producer, consumer))
}

fn dense_weight(op: &mut Op) -> Option<(&mut Tensor, usize, Option<&mut Vec<f32>>)> {
    match op {
        Op::Conv(Conv { weight: Weight::Dense(tensor), groups, bias, .. }) => {
            Some((tensor, *groups, bias.as_mut()))
        }
        Op::Dense(Dense { weight: Weight::Dense(tensor), bias, .. }) => Some((tensor, 1, bias.as_mut())),
        _ => None,
    }
}

fn divide_rows(op: &mut Op, scale: &[f32]) {
    let Some((tensor, _, bias)) = dense_weight(op) else { return };
    let row = tensor.len() / tensor.shape[0].max(1);
    for (weights, scale) in tensor.data.chunks_mut(row.max(1)).zip(scale) {
        weights.iter_mut().for_each(|weight| *weight /= scale);
    }
    for (bias, scale) in bias.into_iter().flatten().zip(scale) {
        *bias /= scale;
    }
}

fn multiply_columns(op: &mut Op, scale: &[f32]) {
    let Some((tensor, groups, _)) = dense_weight(op) else { return };
    let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
    let kernel: usize = tensor.shape[2..].iter().product();
    for (index, weights) in tensor.data.chunks_mut(kernel.max(1)).enumerate() {
        let group = index / inputs * groups / outputs;
        let scale = scale[group * inputs + index % inputs];
        weights.iter_mut().for_each(|weight| *weight *= scale);
    }
}
