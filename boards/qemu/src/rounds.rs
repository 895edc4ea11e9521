//! The rounds of the loops of a model's steps, at most, as its records say: nothing else bounds what was not validated. The fuzz test of the host includes
//! this file too.

use tucano::blob::TensorRecord;
use tucano::{Model, OpSet, Step};

/// The rounds of all steps. Records may be read many times, by a stride of 0.
pub fn of_model<O: OpSet>(model: &Model<'_, O>) -> u64 {
    model.steps().fold(0, |all, step| all.saturating_add(of_step(&step)))
}

/// The rounds of one step.
fn of_step(step: &Step<'_>) -> u64 {
    let rounds =
        |factors: &[u32]| factors.iter().fold(1, |all: u64, &n| all.saturating_mul(u64::from(n).max(1)));
    let shape = |tensor: Option<TensorRecord>| tensor.map_or([0; 4], |tensor| tensor.shape);
    let (inputs, outputs) = (shape(step.input(0)), shape(step.output(0)));
    // Kernels of convolutions, and groups without outputs; kernels of pools.
    let loops = match (step.parameters().len(), step.parameters()) {
        (13, &[.., height, width, groups, _, _]) => [height, width, groups / outputs[3].max(1)],
        (11, &[.., height, width, _, _, _]) => [height, width, 1],
        _ => [1; 3],
    };
    rounds(&inputs).max(rounds(&outputs)).saturating_mul(rounds(&loops))
}
