//! Depthwise convolution of images `[n, h, w, c]`: output channel `k` reads input channel `k / (outputs / c)` alone.

pub use super::conv2d::Parameters;
