//! Activation ranges and covariances from calibration samples.

mod dataset;

pub use dataset::Dataset;
