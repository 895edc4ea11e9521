//! Executes compressed neural networks from a weight blob: `no_std`, no allocation, no panics.
#![cfg_attr(not(any(feature = "host", test)), no_std)]
#![deny(unsafe_code, missing_docs)]

#[cfg(target_endian = "big")]
compile_error!("blobs are little-endian and read in place: big-endian targets are not supported");

pub mod arena;
pub mod backend;
pub mod blob;
pub mod error;
pub mod model;
pub mod ops;
pub mod quant;

pub use error::ErrorKind;
