//! Executes compressed neural networks from a weight blob: `no_std`, no allocation, no panics.
#![cfg_attr(not(any(feature = "host", test)), no_std)]
#![deny(unsafe_code, missing_docs)]

pub mod blob;
pub mod ops;
