//! What the commands that take a model share.

use std::path::Path;

use miette::WrapErr;

use crate::graph::Graph;
use crate::import::{self, Options};

/// Imports a model; errors name the file.
pub fn open(path: &Path, batch: usize) -> miette::Result<Graph> {
    named(import::import(path, &Options { batch }), path)
}

/// Puts the file's name before an importer's error.
pub fn named(result: Result<Graph, import::Error>, path: &Path) -> miette::Result<Graph> {
    result.map_err(miette::Report::new).wrap_err_with(|| format!("cannot import `{}`", path.display()))
}
