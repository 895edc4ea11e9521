//! Folds batch norms, biases and constant factors into convolutions and dense layers.

use super::edit;
use crate::graph::{Affine, Conv, Dense, Graph, Op, Tensor, Weight};

/// Folds each [`Op::Affine`] into the linear layer before it, through transposes, or into the one behind it where that is exact;
/// joins adjacent ones and removes those that change nothing. What is left has no neighbour that could take it (a batch norm
/// between an activation and a padded convolution): `legalize` makes it a depthwise convolution.
pub fn fold_affines(graph: &Graph) -> Graph {
    edit::rewrite(graph, |graph, index| {
        let Op::Affine(affine) = &graph.nodes[index].op else { return false };
        let affine = affine.clone();
        if affine.scale.iter().all(|x| *x == 1.0) && affine.shift.iter().all(|x| *x == 0.0) {
            return edit::remove_identity(graph, index);
        }
        fold_backward(graph, index, &affine) || fold_forward(graph, index, &affine)
    })
}

/// Into the linear layer before: its rows and its bias are scaled.
fn fold_backward(graph: &mut Graph, index: usize, affine: &Affine) -> bool {
    let uniform = is_uniform(&affine.scale) && is_uniform(&affine.shift);
    // Where the channels lie; behind a reshape that is unknown, but one number for all fits any axis.
    let mut axis = Some(1);
    let mut input = graph.nodes[index].inputs[0];
    let layer = loop {
        let Some(producer) = edit::private_producer(graph, input) else { return false };
        match &graph.nodes[producer].op {
            Op::Transpose(permutation) => axis = axis.map(|axis| permutation[axis]),
            Op::Reshape(_) if uniform => axis = None,
            _ => break producer,
        }
        input = graph.nodes[producer].inputs[0];
    };
    let last = graph.shape(graph.nodes[layer].output).len() - 1;
    match &mut graph.nodes[layer].op {
        Op::Affine(before) if uniform || axis == Some(1) => {
            let numbers = before.scale.iter_mut().zip(&mut before.shift);
            for (channel, (scale, shift)) in numbers.enumerate() {
                *scale *= of_channel(&affine.scale, channel);
                *shift = *shift * of_channel(&affine.scale, channel) + of_channel(&affine.shift, channel);
            }
        }
        Op::Conv(Conv { weight: Weight::Dense(weight), bias, activation, .. })
            if activation.is_none() && (uniform || axis == Some(1)) =>
        {
            scale_rows(weight, bias, affine);
        }
        Op::Dense(Dense { weight: Weight::Dense(weight), bias, activation })
            if activation.is_none() && (uniform || axis == Some(last)) =>
        {
            scale_rows(weight, bias, affine);
        }
        _ => return false,
    }
    edit::remove_identity(graph, index)
}

/// The number of a channel; those of a uniform affine serve any channel.
fn of_channel(numbers: &[f32], channel: usize) -> f32 {
    numbers[channel % numbers.len()]
}

/// `scale * (W x + b) + shift`.
fn scale_rows(weight: &mut Tensor, bias: &mut Option<Vec<f32>>, affine: &Affine) {
    let rows = weight.shape[0];
    let columns = weight.len() / rows.max(1);
    for (row, weights) in weight.data.chunks_exact_mut(columns.max(1)).enumerate() {
        weights.iter_mut().for_each(|x| *x *= of_channel(&affine.scale, row));
    }
    if bias.is_none() && affine.shift.iter().all(|x| *x == 0.0) {
        return;
    }
    for (row, x) in bias.get_or_insert_with(|| vec![0.0; rows]).iter_mut().enumerate() {
        *x = *x * of_channel(&affine.scale, row) + of_channel(&affine.shift, row);
    }
}

/// Into the linear layer behind: its columns are scaled, and its bias takes what it makes of the shift. Padding adds zeros
/// behind the affine, so a shift can only pass a convolution without padding.
fn fold_forward(graph: &mut Graph, index: usize, affine: &Affine) -> bool {
    let output = graph.nodes[index].output;
    let readers = graph.consumers(output);
    if graph.outputs.contains(&output) || readers.len() != 1 {
        return false;
    }
    let shifted = affine.shift.iter().any(|x| *x != 0.0);
    let uniform = is_uniform(&affine.scale) && is_uniform(&affine.shift);
    let rank = graph.shape(output).len();
    match &mut graph.nodes[readers[0]].op {
        Op::Conv(conv) if !shifted || conv.pads == [0; 4] => {
            let Weight::Dense(weight) = &mut conv.weight else { return false };
            scale_columns(weight, &mut conv.bias, conv.groups, affine);
        }
        Op::Dense(dense) if rank == 2 || uniform => {
            let Weight::Dense(weight) = &mut dense.weight else { return false };
            scale_columns(weight, &mut dense.bias, 1, affine);
        }
        _ => return false,
    }
    edit::remove_identity(graph, index)
}

fn scale_columns(weight: &mut Tensor, bias: &mut Option<Vec<f32>>, groups: usize, affine: &Affine) {
    let (rows, inputs) = (weight.shape[0], weight.shape[1]);
    let window: usize = weight.shape[2..].iter().product();
    let mut shifts = vec![0f64; rows];
    for (row, weights) in weight.data.chunks_exact_mut((inputs * window).max(1)).enumerate() {
        let first = row / (rows / groups) * inputs;
        for (input, weights) in weights.chunks_exact_mut(window).enumerate() {
            let channel = first + input;
            shifts[row] += weights.iter().map(|x| f64::from(*x)).sum::<f64>()
                * f64::from(of_channel(&affine.shift, channel));
            weights.iter_mut().for_each(|x| *x *= of_channel(&affine.scale, channel));
        }
    }
    if shifts.iter().any(|shift| *shift != 0.0) {
        let bias = bias.get_or_insert_with(|| vec![0.0; rows]);
        bias.iter_mut().zip(shifts).for_each(|(x, shift)| *x = (f64::from(*x) + shift) as f32);
    }
}

fn is_uniform(numbers: &[f32]) -> bool {
    numbers.iter().all(|x| *x == numbers[0])
}
