//! The reference evaluator: runs a graph in f32 over many samples.

use crate::graph::{Graph, ValueId};

/// Runs `graph` over `samples` samples and returns the values named in `keep`, in that order.
///
/// `inputs[k]` holds graph input `k` of all samples, one after the other in the input's row-major order (the static shape of the
/// graph describes one sample); so does each returned vector.
pub fn evaluate(_graph: &Graph, _inputs: &[Vec<f32>], _samples: usize, _keep: &[ValueId]) -> Vec<Vec<f32>> {
    Vec::new()
}
