//! What the commands that take a model share.

use std::path::Path;

use miette::WrapErr;

use crate::graph::Graph;
use crate::import::{Options, import};

/// Imports a model; errors name the file.
pub fn open(path: &Path, batch: usize) -> miette::Result<Graph> {
    import(path, &Options { batch })
        .map_err(miette::Report::new)
        .wrap_err_with(|| format!("cannot import `{}`", path.display()))
}
