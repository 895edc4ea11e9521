//! The trade-off curve of a search, in the bytes that the blob stores.

use serde::Serialize;

use super::{Accuracy, Fidelity, Size};
use crate::search::Outcome;
use crate::search::tradeoff::{Measure, Tradeoff};

/// A network on the trade-off curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Which one it is, for people.
    pub label: String,
    /// Bytes of constants in a blob of this type.
    pub weight_bytes: usize,
    /// Multiply-adds of one inference.
    pub macs: u64,
    /// How far the network is from the imported one; see [`super::Conversion::loss`].
    pub loss: f64,
    /// What the loss was found on.
    pub basis: Basis,
    /// Relative RMS error of the outputs; `null` for a prediction.
    pub error: Option<f64>,
    /// Share of right answers on the same samples; `null` for a prediction or without labels.
    pub accuracy: Option<f64>,
    /// Whether this is the network of the blob.
    pub chosen: bool,
}

/// Where a loss comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The sum of what each layer does alone.
    Predicted,
    /// Calibration samples that no fit has seen.
    HeldOut,
    /// All calibration samples.
    Calibration,
}

/// Every point of the search, and last the network of the blob. `width` is the bytes of a stored number, `after` the blob's size.
pub fn points(
    outcome: &Outcome,
    width: usize,
    after: &Size,
    verify: &Fidelity,
    accuracy: Option<&Accuracy>,
) -> Vec<Point> {
    let Tradeoff { measure, points } = &outcome.tradeoff;
    let Some(dense) = points.first() else { return Vec::new() };
    // What a blob stores beside the numbers of its layers, such as multipliers of output channels, and the wider numbers of biases.
    let beside = after.weight_bytes.saturating_sub(width * after.parameters);
    let bytes = |parameters: usize| width * parameters + beside;
    let mut trials = 0;
    let mut all: Vec<Point> = points
        .iter()
        .map(|point| {
            let untouched = (point.parameters, point.macs) == (dense.parameters, dense.macs);
            let label = match (point.judgement, untouched) {
                (None, _) => "predicted".into(),
                (Some(_), true) => "dense".into(),
                (Some(_), false) => {
                    trials += 1;
                    format!("trial {trials}")
                }
            };
            Point {
                label,
                weight_bytes: bytes(point.parameters),
                macs: point.macs,
                loss: point.loss,
                basis: if point.judgement.is_some() { Basis::HeldOut } else { Basis::Predicted },
                error: point.judgement.map(|judgement| judgement.error),
                accuracy: point.judgement.and_then(|judgement| Some(judgement.accuracy?[1])),
                chosen: false,
            }
        })
        .collect();
    let (parameters, macs) = (outcome.graph.parameters(), outcome.graph.macs());
    let judged = (points.iter().zip(&all)).rfind(|(point, _)| {
        point.judgement.is_some() && (point.parameters, point.macs) == (parameters, macs)
    });
    let chosen = match judged {
        Some((_, point)) => point.clone(),
        None => Point {
            label: String::new(),
            weight_bytes: after.weight_bytes,
            macs,
            loss: match measure {
                Measure::Divergence => verify.kl.unwrap_or(f64::NAN),
                Measure::Squares => verify.relative_rms.powi(2),
                Measure::Weights => {
                    outcome.layers.iter().filter_map(|layer| layer.error).map(|error| error * error).sum()
                }
            },
            basis: if *measure == Measure::Weights { Basis::Predicted } else { Basis::Calibration },
            error: Some(verify.relative_rms),
            accuracy: accuracy.map(|accuracy| accuracy.after),
            chosen: false,
        },
    };
    all.push(Point { label: "chosen".into(), weight_bytes: after.weight_bytes, chosen: true, ..chosen });
    all
}
