//! `tucano verify`: compares a blob with the model that it came from.

use std::path::PathBuf;

use clap::Args;
use miette::Diagnostic;

use super::data::Selection;
use super::{blob, model};
use crate::evaluate::{ClassScores, evaluate};
use crate::report::{self, Fidelity, Verification, run_blob};

/// Share of the largest magnitude that an f32 blob may be off.
pub const F32_TOLERANCE: f64 = 1e-4;

/// Flags of `tucano verify`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The blob
    #[arg(value_name = "BLOB.tuc")]
    blob: PathBuf,
    /// The model that it came from
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Samples
    #[arg(long, value_name = "DATA.npz")]
    data: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Fail if an output is off by more than this share of the largest magnitude [default: 1e-4 for f32 blobs, none for others]
    #[arg(long, value_name = "E")]
    tolerance: Option<f64>,
    /// Extent of a symbolic batch axis
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Write the result as JSON
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
}

#[derive(Debug, Diagnostic, thiserror::Error)]
enum VerifyError {
    #[error("the blob takes {blob:?}, the model {model:?}")]
    #[diagnostic(help("verify a blob against the model that it was converted from, with the same --batch"))]
    Shapes { blob: Vec<Vec<usize>>, model: Vec<Vec<usize>> },
    #[error("outputs are off by {off:.3e} of the largest magnitude, more than {tolerance:.1e}")]
    #[diagnostic(help(
        "a compressed or quantised blob differs by design: give --tolerance, or look at `kl` and `agreement`"
    ))]
    Off { off: f64, tolerance: f64 },
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        let mut runner = blob::open(&self.blob)?;
        let graph = model::open(&self.model, self.batch)?;
        let shapes: Vec<Vec<usize>> = graph.inputs.iter().map(|id| graph.shape(*id).to_vec()).collect();
        if shapes != blob::input_shapes(&runner) {
            return Err(VerifyError::Shapes { blob: blob::input_shapes(&runner), model: shapes }.into());
        }
        let data = self.selection.read(&self.data, &shapes)?;
        let reference = evaluate(&graph, &data.inputs, data.samples, &graph.outputs);
        let outputs = run_blob(&mut runner, &data).map_err(blob::refused)?;
        let resolution = report::resolution(&runner);
        let is_f32 = blob::dtype(&runner) == "f32";
        let result = Verification {
            schema: "tucano.verify/1",
            samples: data.samples,
            fidelity: Fidelity::of_outputs(&reference, &outputs, ClassScores::of(&graph), resolution),
            tolerance: self.tolerance.or(is_f32.then_some(F32_TOLERANCE)),
        };
        if let Some(path) = &self.json {
            report::write_json(path, &result)?;
        }
        println!("{}", report::fidelity_table(&result.fidelity, result.samples));
        match result.tolerance {
            Some(tolerance) if !result.fidelity.within(tolerance) => {
                Err(VerifyError::Off { off: result.fidelity.off(), tolerance }.into())
            }
            Some(_) => Ok(()),
            None => {
                println!(
                    "Not judged: an integer blob differs by design. Give --tolerance to have it judged."
                );
                Ok(())
            }
        }
    }
}
