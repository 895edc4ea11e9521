//! `tucano run`: runs a blob on this machine.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use sha2::{Digest, Sha256};
use tucano::host::Runner;

use super::blob;
use super::data::Selection;
use crate::calibrate::Dataset;
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
        let inputs: Vec<&[f32]> = data.inputs.iter().map(Vec::as_slice).collect();
        let raw = runner.run_batch_raw(&inputs, data.samples).map_err(blob::refused)?;
        let mut digest = Sha256::new();
        let mut outputs = Vec::new();
        for sample in 0..data.samples {
            for (k, (terminal, all)) in runner.outputs().iter().zip(&raw).enumerate() {
                let length = all.len() / data.samples;
                let bytes = &all[sample * length..][..length];
                digest.update(bytes);
                if k == 0 {
                    outputs.extend(terminal.fetch(bytes).map_err(blob::refused)?);
                }
            }
        }
        let median_us = median_us(&mut runner, &data).map_err(blob::refused)?;
        let classes = outputs.len() / data.samples.max(1);
        let result = report::Run {
            schema: "tucano.run/1",
            backend: runner.backend().to_string(),
            dtype: blob::dtype(&runner),
            samples: data.samples,
            accuracy: data.labels.as_ref().map(|labels| metrics::accuracy(&outputs, labels, classes)),
            output_sha256: format!("{:x}", digest.finalize()),
            median_us,
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

/// Samples that are timed at most.
const TIMED: usize = 256;

/// Median time of one inference on one thread, inputs in place, in microseconds.
fn median_us(runner: &mut Runner, data: &Dataset) -> Result<f64, tucano::Error> {
    let mut times = Vec::new();
    for sample in 0..data.samples.min(TIMED) {
        for (k, bytes) in (0..).zip(runner.quantise(&data.sample(sample))?) {
            runner.input_mut(k)?.copy_from_slice(&bytes);
        }
        let start = Instant::now();
        runner.invoke()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(0.0))
}
