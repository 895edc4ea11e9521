//! Product of two `f32` tensors of equal shape, with a clamp.

pub use super::add::FloatParameters as Parameters;
