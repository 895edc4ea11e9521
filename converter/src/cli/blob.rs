//! What the commands that take a blob share.

use std::path::Path;

use miette::Diagnostic;
use tucano::blob::DType;
use tucano::host::{self, OpenError, Runner};

#[derive(Debug, Diagnostic, thiserror::Error)]
enum BlobError {
    #[error("cannot read `{path}`")]
    #[diagnostic(help("give the path of a blob that `convert` wrote"))]
    Read { path: String, source: std::io::Error },
    #[error("`{path}` is not a sound blob")]
    #[diagnostic(help("convert the model again; a blob is never edited"))]
    Load { path: String, source: tucano::Error },
    #[error("this machine has no backend `{name}`")]
    #[diagnostic(help("backends here: {available}"))]
    Backend { name: String, available: String },
    #[error("the blob refuses the data: {0}")]
    Refused(tucano::Error),
}

/// Reads and validates a blob, weights included, for the fastest backend.
pub fn open(path: &Path) -> miette::Result<Runner> {
    open_with(path, None)
}

/// As [`open`], for the backend of a name.
pub fn open_with(path: &Path, backend: Option<&str>) -> miette::Result<Runner> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| BlobError::Read { path: shown(), source })?;
    let runner = match backend {
        None => Runner::new(bytes).map_err(OpenError::Blob),
        Some(name) => Runner::with_backend(bytes, name),
    };
    Ok(runner.map_err(|error| match error {
        OpenError::Blob(source) => BlobError::Load { path: shown(), source },
        OpenError::Backend(name) => BlobError::Backend { name, available: host::backends().join(", ") },
    })?)
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
