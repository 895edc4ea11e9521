//! Reads ONNX models and `.npz` data: the only code that knows these formats.
//!
//! Takes a model of operator sets 7 to 24 of the default domain, weights inside or in files beside it. Gives a
//! [`Graph`]: constants folded, weights inside the nodes, static shapes, only what [`crate::graph::Op`] lists.
//! Refuses everything else, and names all operators that stand in the way at once ([`Error::Blocked`]).
//!
//! | module | what it does |
//! |---|---|
//! | [`onnx`] | the protocol buffer messages |
//! | `order` | needed nodes in topological order |
//! | `constant`, `fold` | tensors that are known now, and operators on them |
//! | `builder` | walks the nodes, folds or translates each, collects blockers |
//! | `operators` | translates operators on activations |
//! | [`npz`] | arrays for calibration and tests |

mod attributes;
mod builder;
mod constant;
mod error;
mod fold;
pub mod npz;
pub mod onnx;
mod operators;
mod order;
mod shape;

use std::path::Path;

use prost::Message;

use crate::graph::Graph;

pub use error::{Blocker, Blockers, Error};

/// How to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Extent of axis 0 of inputs where the model leaves it open; 1 or more.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { batch: 1 }
    }
}

/// Imports a model file; external data is looked up beside it.
///
/// # Errors
/// See [`Error`].
pub fn import(path: &Path, options: &Options) -> Result<Graph, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let mut graph = import_bytes(&bytes, path.parent(), options)?;
    if let Some(stem) = path.file_stem() {
        graph.name = stem.to_string_lossy().into_owned();
    }
    Ok(graph)
}

/// Imports a model from memory. `external` is the folder in which its external data lies, if it may have any.
///
/// # Errors
/// See [`Error`]. Any bytes are safe: they give a graph or an error.
pub fn import_bytes(bytes: &[u8], external: Option<&Path>, options: &Options) -> Result<Graph, Error> {
    let model = onnx::ModelProto::decode(bytes).map_err(|error| Error::Decode { why: error.to_string() })?;
    builder::build(&model, external, options)
}

#[cfg(test)]
mod tests;
