//! Activation ranges and covariances from calibration samples.
