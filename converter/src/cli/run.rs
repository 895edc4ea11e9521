//! `tucano run`: runs a blob on this machine.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use sha2::{Digest, Sha256};

use super::blob;
use super::data::Selection;
use crate::evaluate::metrics;
use crate::report;

/// Flags of `tucano run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The blob
    #[arg(value_name = "BLOB.tuc")]
    blob: PathBuf,
    /// Samples, as f32 in the source model's axes
    #[arg(long, value_name = "DATA.npz")]
    data: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Kernels to use [default: the fastest that this machine has]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Write the result as JSON
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        let mut runner = blob::open_with(&self.blob, self.backend.as_deref())?;
        let data = self.selection.read(&self.data, &blob::input_shapes(&runner))?;
        let mut digest = Sha256::new();
        let mut outputs = Vec::new();
        let mut times = Vec::with_capacity(data.samples);
        for sample in 0..data.samples {
            let stored = runner.quantise(&data.sample(sample)).map_err(blob::refused)?;
            let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
            let start = Instant::now();
            let raw = runner.run_raw(&stored).map_err(blob::refused)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
            raw.iter().for_each(|bytes| digest.update(bytes));
            if let (Some(terminal), Some(bytes)) = (runner.outputs().first(), raw.first()) {
                outputs.extend(terminal.fetch(bytes).map_err(blob::refused)?);
            }
        }
        times.sort_by(f64::total_cmp);
        let classes = outputs.len() / data.samples.max(1);
        let result = report::Run {
            schema: "tucano.run/1",
            backend: runner.backend().to_string(),
            dtype: blob::dtype(&runner),
            samples: data.samples,
            accuracy: data.labels.as_ref().map(|labels| metrics::accuracy(&outputs, labels, classes)),
            output_sha256: format!("{:x}", digest.finalize()),
            median_us: times.get(times.len() / 2).copied().unwrap_or(0.0),
            arena_bytes: runner.model().arena_bytes(),
        };
        if let Some(path) = &self.json {
            report::write_json(path, &result)?;
        }
        let rows = [
            ("backend", result.backend.clone()),
            ("type", result.dtype.to_string()),
            ("samples", result.samples.to_string()),
            ("accuracy", result.accuracy.map_or("- (no --labels)".into(), |share| format!("{share:.4}"))),
            ("median", format!("{:.1} us", result.median_us)),
            ("arena", report::human_bytes(result.arena_bytes)),
            ("output sha256", result.output_sha256.clone()),
        ];
        println!("{}", report::key_value_table(rows));
        Ok(())
    }
}
