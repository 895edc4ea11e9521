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
        // Bounds are whole numbers: cut off first, the number converts to an integer and back exactly.
        let level = (*x / quantization.scale).clamp(least, greatest);
        *x = nearest(level) * quantization.scale;
    }
}

/// `f32::round` of a number that an `i32` holds, without a call; NaN stays.
fn nearest(x: f32) -> f32 {
    let whole = x as i32 as f32;
    let rest = x - whole;
    let up = if rest >= 0.5 { 1.0 } else { 0.0 };
    let down = if rest <= -0.5 { 1.0 } else { 0.0 };
    if x.is_nan() { x } else { whole + up - down }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_away_from_zero() {
        let mut numbers = vec![0.0, 0.5, 1.5, 2.5, 0.499_999_97, 127.49, 32767.5, 8_388_607.5, 1e-30];
        numbers.extend((0..4000).map(|k| k as f32 * 0.031_25));
        for x in numbers.into_iter().flat_map(|x| [x, -x]) {
            assert_eq!(nearest(x), x.round(), "{x}");
        }
        assert!(nearest(f32::NAN).is_nan());
    }
}
