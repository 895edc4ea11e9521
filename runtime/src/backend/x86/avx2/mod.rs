//! Kernels of AVX2. All functions of this folder need the features that [`super::available`] has found: layers are made behind it.

pub mod conv;
pub mod depthwise;
pub mod elementwise;
mod finish;
