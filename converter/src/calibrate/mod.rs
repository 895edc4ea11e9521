//! Activation ranges and covariances from calibration samples.

pub mod covariance;
mod dataset;
pub mod ranges;

pub use dataset::Dataset;
