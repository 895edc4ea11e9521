//! What the commands that take a blob share.

use std::path::Path;

use miette::Diagnostic;
use tucano::blob::DType;
use tucano::host::Runner;

#[derive(Debug, Diagnostic, thiserror::Error)]
enum BlobError {
    #[error("cannot read `{path}`")]
    #[diagnostic(help("give the path of a blob that `convert` wrote"))]
    Read { path: String, source: std::io::Error },
    #[error("`{path}` is not a sound blob")]
    #[diagnostic(help("convert the model again; a blob is never edited"))]
    Load { path: String, source: tucano::Error },
    #[error("the blob refuses the data: {0}")]
    Refused(tucano::Error),
}

/// Reads and validates a blob, weights included.
pub fn open(path: &Path) -> miette::Result<Runner> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| BlobError::Read { path: shown(), source })?;
    Ok(Runner::new(bytes).map_err(|source| BlobError::Load { path: shown(), source })?)
}

/// An error of running, for people.
pub fn refused(error: tucano::Error) -> miette::Report {
    BlobError::Refused(error).into()
}

/// Shapes of the graph inputs in the source model's axes.
pub fn input_shapes(runner: &Runner) -> Vec<Vec<usize>> {
    runner.inputs().iter().map(|terminal| terminal.shape()).collect()
}

/// `int8` or `f32`, by the first input: probabilities may leave an int8 model in 16 bits.
pub fn dtype(runner: &Runner) -> &'static str {
    match runner.inputs().first().map(|terminal| terminal.tensor.dtype) {
        Some(DType::I8) => "int8",
        Some(DType::I16) => "int16",
        Some(DType::F32) => "f32",
        _ => "other",
    }
}
