//! Activation ranges and covariances from calibration samples.

mod dataset;
pub mod ranges;

pub use dataset::Dataset;
