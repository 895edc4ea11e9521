//! Runs a quantised graph in floating point: each value is rounded to its levels right after it is computed.

use rayon::prelude::*;

use super::{Quantized, stored_bounds};
use crate::evaluate::{Values, evaluate_from};
use crate::graph::{ActivationRange, Quantization};

/// Samples that run together.
const CHUNK: usize = 16;

/// The outputs of `quantized` for these inputs, dequantised; `inputs` and the result as in [`crate::evaluate::evaluate`].
///
/// Differs from the integer program only where rounding of the accumulator falls on the other side of a level.
pub fn simulate(quantized: &Quantized, inputs: &[Vec<f32>], samples: usize) -> Vec<Vec<f32>> {
    let parts: Vec<Vec<Vec<f32>>> = (0..samples.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let start = chunk * CHUNK;
            let count = CHUNK.min(samples - start);
            let part = |data: &Vec<f32>| {
                let len = data.len() / samples;
                data[start * len..(start + count) * len].to_vec()
            };
            run(quantized, inputs.iter().map(part).collect(), count)
        })
        .collect();
    let mut outputs = vec![Vec::new(); quantized.graph.outputs.len()];
    for part in parts {
        outputs.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
    }
    outputs
}

fn run(quantized: &Quantized, inputs: Vec<Vec<f32>>, samples: usize) -> Vec<Vec<f32>> {
    let graph = &quantized.graph;
    let mut values = Values::new();
    for (id, mut data) in graph.inputs.iter().zip(inputs) {
        if let Some(quantization) = graph.value(*id).quantization {
            round(&mut data, quantization, stored_bounds(ActivationRange::NONE, quantization));
        }
        values.insert(*id, data);
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let Some(mut data) = evaluate_from(graph, &values, samples, &[node.output]).remove(&node.output)
        else {
            continue;
        };
        if let Some(quantization) = graph.value(node.output).quantization {
            let bounds = quantized.layers[index]
                .as_ref()
                .map_or_else(|| stored_bounds(ActivationRange::NONE, quantization), |layer| layer.bounds);
            round(&mut data, quantization, bounds);
        }
        values.insert(node.output, data);
        for id in &node.inputs {
            let read_later = graph.nodes[index + 1..].iter().any(|later| later.inputs.contains(id));
            if !read_later && !graph.outputs.contains(id) {
                values.remove(id);
            }
        }
    }
    graph.outputs.iter().map(|id| values.get(id).cloned().unwrap_or_default()).collect()
}

/// Rounds numbers to levels within the stored bounds.
pub(super) fn round(data: &mut [f32], quantization: Quantization, [least, greatest]: [i32; 2]) {
    let zero = quantization.zero_point as f32;
    let (least, greatest) = (least as f32 - zero, greatest as f32 - zero);
    for x in data {
        *x = (*x / quantization.scale).round().clamp(least, greatest) * quantization.scale;
    }
}
