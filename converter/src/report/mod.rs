//! What a conversion did, for people (tables, a page) and for programs (JSON).
//!
//! The JSON documents are contracts: keys may be added, never renamed; `null` means unknown.

mod fidelity;
mod html;
mod plot;
mod table;
mod tradeoff;
mod warnings;

use std::path::Path;

use serde::Serialize;

pub use fidelity::{resolution, run_blob};
pub use html::page;
pub use table::{
    conversion_table, fidelity_table, human_bytes, key_value_table, layer_table, plain_table, tradeoff_table,
};
pub use tradeoff::{Basis, Point, points};
pub use warnings::warnings;

/// `tucano.convert/1`: written by `convert --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Conversion {
    /// Always `tucano.convert/1`.
    pub schema: &'static str,
    /// File name of the source model.
    pub model: String,
    /// Core that the blob was planned for.
    pub target: String,
    /// `f32` or `int8`.
    pub dtype: &'static str,
    /// The imported model, stored as f32.
    pub before: Size,
    /// The blob.
    pub after: Size,
    /// Share of right answers; `null` without labels.
    pub accuracy: Option<Accuracy>,
    /// The blob against the imported model.
    pub verify: Fidelity,
    /// The blob against the graph that it was emitted from.
    pub emitted: Fidelity,
    /// Where the samples of `verify` came from.
    pub samples: Samples,
    /// Wall-clock time of the conversion.
    pub seconds: f64,
    /// One entry for each linear layer of the model.
    pub layers: Vec<Layer>,
    /// The moment that decides the size of the arena.
    pub peak: Peak,
    /// The same of the imported model.
    pub peak_before: Peak,
    /// What the user ought to know, in sentences.
    pub notes: Vec<String>,
    /// What may make the blob worse than it looks, in sentences.
    pub warnings: Vec<String>,
    /// What `tradeoff[].loss` is: `divergence` (nats), `squares` (squared relative RMS error of the outputs) or `weights` (sum of the
    /// layers' squared relative weight errors).
    pub loss: &'static str,
    /// The networks that the search looked at, by falling size, and last the chosen one; empty where nothing was searched.
    pub tradeoff: Vec<Point>,
    /// The compressed network before its numbers became integers, against the imported model; `null` for f32 blobs.
    pub float: Option<Fidelity>,
    /// The command line that did it; `null` where there was none.
    pub command: Option<String>,
}

/// Sizes of a network.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// Learnt numbers.
    pub parameters: usize,
    /// Bytes of all constants: 4 a number for f32 models.
    pub weight_bytes: usize,
    /// Multiply-adds of linear layers for one inference.
    pub macs: u64,
    /// Working memory.
    pub arena_bytes: usize,
    /// Size of the blob; `null` for the model before conversion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_bytes: Option<usize>,
    /// Instructions of one inference on the target, as modelled; `null` where the target has no model.
    pub instructions: Option<u64>,
}

/// Top-1 accuracy before and after, on the same samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    /// Of the imported model.
    pub before: f64,
    /// Of the blob.
    pub after: f64,
    /// How many samples.
    pub samples: usize,
}

/// How far outputs lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fidelity {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Root mean square of the difference over that of the reference.
    pub relative_rms: f64,
    /// Largest magnitude of the reference.
    pub reference_max: f64,
    /// Share of samples with the reference's top-1 class; `null` where the output is no class scores.
    pub agreement: Option<f64>,
    /// Mean KL(reference || blob) in nats; `null` where the output is no class scores.
    pub kl: Option<f64>,
}

/// Samples behind a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Samples {
    /// How many.
    pub count: usize,
    /// `calibration`, or `synthetic` where no data was given.
    pub source: &'static str,
}

/// A linear layer before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Node name in the source model.
    pub name: String,
    /// Operator.
    pub op: String,
    /// `dense`, `low-rank`, `tucker`.
    pub format: String,
    /// Empty for dense.
    pub ranks: Vec<usize>,
    /// Relative error of the layer's output on calibration data (of the weight without data); `null` for dense.
    pub error: Option<f64>,
    /// Bytes of constants before and after.
    pub weight_bytes: [usize; 2],
    /// Multiply-adds before and after.
    pub macs: [u64; 2],
    /// Instructions on the target before and after, as modelled; `null` where the target has no model.
    pub instructions: Option<[u64; 2]>,
    /// Why this format.
    pub reason: String,
    /// Rank that the last factor limits the layer's output to; `null` where it limits nothing.
    pub output_rank: Option<usize>,
    /// `[rank, share of the energy of the layer's output that no approximation of that rank can hold]`, at some ranks; empty where
    /// that was not looked at.
    pub spectrum: Vec<(usize, f64)>,
}

/// The moment when the arena is fullest.
#[derive(Clone, Debug, Serialize)]
pub struct Peak {
    /// Name of the step that runs then.
    pub step: String,
    /// What lives then, largest first.
    pub live: Vec<Holder>,
}

/// A tensor that is live when the arena is fullest.
#[derive(Clone, Debug, Serialize)]
pub struct Holder {
    /// Value name.
    pub name: String,
    /// Bytes it takes.
    pub bytes: usize,
}

/// `tucano.verify/1`: written by `tucano verify --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Always `tucano.verify/1`.
    pub schema: &'static str,
    /// How many samples.
    pub samples: usize,
    /// See [`Fidelity`].
    #[serde(flatten)]
    pub fidelity: Fidelity,
    /// Judged by this share of the largest magnitude; `null` if only reported.
    pub tolerance: Option<f64>,
}

/// `tucano.run/1`: written by `tucano run --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Always `tucano.run/1`.
    pub schema: &'static str,
    /// Kernels that ran.
    pub backend: String,
    /// Type of the output.
    pub dtype: &'static str,
    /// How many samples.
    pub samples: usize,
    /// `null` without labels.
    pub accuracy: Option<f64>,
    /// SHA-256 over the raw output bytes of all samples in order.
    pub output_sha256: String,
    /// Median time of one inference in microseconds.
    pub median_us: f64,
    /// Working memory.
    pub arena_bytes: usize,
}

/// Text of a JSON document.
pub fn json(document: &impl Serialize) -> String {
    // Only maps with keys that are no strings can fail, and no document has one.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// Writes a JSON document; nothing is left behind if that fails.
pub fn write_json(path: &Path, document: &impl Serialize) -> Result<(), crate::emit::write::Error> {
    crate::emit::write::write(&[(path, json(document).as_bytes())])
}

#[cfg(test)]
mod tests;
