//! Portable kernels, named `{operator}_{family}`. They define what every backend gives.
//!
//! Integer sums are modulo 2^32, so their order does not matter; the converter excludes that a true sum leaves 32 bits.

#[cfg(any(tucano_profile = "v6m", tucano_profile = "v7m", tucano_profile = "v7em", tucano_profile = "v8m"))]
pub(super) mod compact;
pub(super) mod conv2d;
pub(super) mod dense;
pub(super) mod depthwise_conv2d;
pub(super) mod element;
pub(super) mod elementwise;
pub(super) mod in_place;
pub(super) mod packed;
pub(super) mod permute;
pub(super) mod pool2d;
#[cfg(test)]
#[allow(dead_code, reason = "firmware that compares operators uses the rest")]
mod reference;
pub(super) mod softmax;
pub(super) mod winograd;
