//! What may make a blob worse than its figures look.

use super::{Conversion, Fidelity};

/// Fewer samples give unsteady ranges and ranks.
const THIN: usize = 100;
/// Rounding to integers is mentioned from this much divergence (nats) ...
const DIVERGENCE: f64 = 0.005;
/// ... or, for networks that are no classifiers, from this relative RMS error.
const ERROR: f64 = 0.02;
/// Share of changed decisions that is worth a word.
const CHANGED: f64 = 0.05;

/// One sentence for each doubt.
pub fn warnings(conversion: &Conversion) -> Vec<String> {
    let mut found = Vec::new();
    let samples = &conversion.samples;
    if samples.source != "calibration" {
        found.push(format!(
            "unverified: the blob was compared with the model on {} made-up inputs only; give real ones with --calibrate DATA.npz",
            samples.count
        ));
    } else if samples.count < THIN {
        found.push(format!(
            "only {} calibration samples: {THIN} or more give steadier ranges and ranks",
            samples.count
        ));
    }
    let verify = &conversion.verify;
    if let Some(float) = &conversion.float {
        let factorised = conversion.layers.iter().any(|layer| !layer.ranks.is_empty());
        let hint = if factorised {
            ": --rank-bits auto rounds the inner values of factorised layers less where it pays"
        } else {
            ""
        };
        if let Some(lost) = lost(float, verify) {
            found.push(format!("rounding to int8 costs more than the compression: {lost}{hint}"));
        }
    }
    if let Some(agreement) = verify.agreement
        && 1.0 - agreement > CHANGED
    {
        found.push(format!("{:.1} % of the decisions changed", 100.0 * (1.0 - agreement)));
    }
    let arena = [conversion.before.arena_bytes, conversion.after.arena_bytes];
    if arena[1] > arena[0] {
        found.push(format!(
            "the arena grew from {} to {} bytes, for values inside factorised layers",
            arena[0], arena[1]
        ));
    }
    found
}

/// What rounding adds, where that is much and more than what was lost before.
fn lost(float: &Fidelity, rounded: &Fidelity) -> Option<String> {
    match (float.kl, rounded.kl) {
        (Some(before), Some(after)) => (after - before > DIVERGENCE.max(before))
            .then(|| format!("{before:.4} nats of divergence before, {after:.4} after")),
        _ => {
            let (before, after) = (float.relative_rms, rounded.relative_rms);
            (after - before > ERROR.max(before))
                .then(|| format!("relative error {before:.4} before, {after:.4} after"))
        }
    }
}
