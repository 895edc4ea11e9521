//! Kernels of AVX-512 with VNNI: bytes with 128 added times signed bytes, four products a lane (`VPDPBUSD`).
//!
//! Sums are modulo 2^32, so their order does not matter; the offset of 128 is taken out by the bias. All functions of this folder need the features
//! that [`super::available`] has found: layers are made behind it.

pub mod conv;
pub mod dense;
pub mod depthwise;
pub mod elementwise;
mod finish;
mod pipelined;
mod slide;
