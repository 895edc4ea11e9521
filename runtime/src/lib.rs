//! Executes compressed neural networks from a weight blob: `no_std`, no allocation, no panics.
//!
//! From top to bottom:
//! - [`Session`] runs a model on the caller's [`Arena`], all at once or step by step, with an [`Observer`] if wanted.
//! - [`Model`] is a validated blob; [`Model::load`] finds everything that can be wrong, and after it nothing can. [`Model::load_known`] recognises a blob
//!   that was validated when it was converted.
//! - [`op_set!`] names the operators that a program links; [`ops`] holds them, one file each.
//! - [`backend`] holds the kernels that operators call; [`backend::Scalar`] defines their results.
//! - [`arena`] cuts disjoint views of tensors out of one buffer.
//! - [`blob`] is the file format, and its specification.
//!
//! With feature `host`, [`host::Runner`] owns all that is needed to run a blob on `f32` data.
#![cfg_attr(not(any(feature = "host", test)), no_std)]
#![deny(unsafe_code, missing_docs)]

#[cfg(target_endian = "big")]
compile_error!("blobs are little-endian and read in place: big-endian targets are not supported");
const _: () = assert!(usize::BITS >= 32, "offsets in a blob have 32 bits");

pub mod arena;
pub mod backend;
pub mod blob;
pub mod error;
#[cfg(feature = "host")]
pub mod host;
pub mod math;
pub mod model;
pub mod op_set;
pub mod ops;
pub mod quant;
pub mod region;
mod rolled;
pub mod session;

pub use arena::Arena;
pub use error::{Error, ErrorKind};
pub use model::{Model, Step};
pub use op_set::{AllOps, OpSet};
pub use session::{Cursor, Observer, Session};
