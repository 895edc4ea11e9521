//! How far the outputs of a blob lie from those of a graph.

use std::borrow::Cow;

use tucano::blob::DType;
use tucano::host::Runner;

use super::Fidelity;
use crate::calibrate::Dataset;
use crate::evaluate::{ClassScores, metrics};

impl Fidelity {
    /// Compares outputs of the same samples, one after the other. `classes` tells whether they are class scores; `resolution` is the
    /// step between neighbouring values of `other`, 0 for floats.
    ///
    /// Probabilities that are stored in steps cannot tell a small one from none. Those below half a step are taken as half a step, and
    /// the rest scaled so that all sum to 1, before the divergence is measured.
    pub fn between(reference: &[f32], other: &[f32], classes: Option<ClassScores>, resolution: f32) -> Self {
        let kl = classes.map(|scores| {
            let floored = match scores.probabilities && resolution > 0.0 {
                true => Cow::Owned(floored(other, scores.classes, resolution / 2.0)),
                false => Cow::Borrowed(other),
            };
            metrics::softmax_kl(reference, &floored, scores.classes, scores.probabilities)
        });
        Self {
            max_abs: metrics::max_abs(reference, other),
            relative_rms: metrics::relative_rms(reference, other),
            reference_max: reference.iter().fold(0.0, |max, x| f64::max(max, f64::from(x.abs()))),
            agreement: classes.map(|scores| metrics::agreement(reference, other, scores.classes)),
            kl,
        }
    }

    /// Compares all outputs: scores by the first one, differences by the output that is off most.
    pub fn of_outputs(
        reference: &[Vec<f32>],
        other: &[Vec<f32>],
        classes: Option<ClassScores>,
        resolution: f32,
    ) -> Self {
        let pairs = reference.iter().zip(other);
        let mut all = pairs.map(|(reference, other)| Self::between(reference, other, classes, resolution));
        let first = all.next().unwrap_or_else(|| Self::between(&[], &[], None, 0.0));
        let worse = |worst: Self, next: Self| if next.within(worst.off()) { worst } else { next };
        let worst = all.fold(first, worse);
        Self { agreement: first.agreement, kl: first.kl, ..worst }
    }

    /// Whether the largest difference is at most this share of the reference's largest magnitude; NaN never is.
    pub fn within(&self, tolerance: f64) -> bool {
        self.off() <= tolerance
    }

    /// Largest difference as a share of the reference's largest magnitude.
    pub fn off(&self) -> f64 {
        if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.reference_max }
    }
}

fn floored(probabilities: &[f32], classes: usize, least: f32) -> Vec<f32> {
    let mut all = Vec::with_capacity(probabilities.len());
    for row in probabilities.chunks_exact(classes) {
        let sum: f32 = row.iter().map(|p| p.max(least)).sum();
        all.extend(row.iter().map(|p| p.max(least) / sum));
    }
    all
}

/// Step between neighbouring values of a blob's first output, 0 for floats.
pub fn resolution(runner: &Runner) -> f32 {
    match runner.outputs().first() {
        Some(terminal) if terminal.tensor.dtype != DType::F32 => terminal.scale(),
        _ => 0.0,
    }
}

/// Runs a blob over all samples; each output of all samples, one after the other, in the source model's order.
pub fn run_blob(runner: &mut Runner, data: &Dataset) -> Result<Vec<Vec<f32>>, tucano::Error> {
    let inputs: Vec<&[f32]> = data.inputs.iter().map(Vec::as_slice).collect();
    runner.run_batch(&inputs, data.samples)
}
