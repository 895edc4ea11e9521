//! Functions of `f32` that `core` lacks, in additions, multiplications and bit patterns alone.
//!
//! Each states its greatest error, which its test measures against `f64` over a dense sweep. All are total.

mod exp;
mod half;
mod sin;

pub use exp::{exp, sigmoid, tanh};
pub use half::{from_half, is_finite_half};
pub use sin::sin;

/// Adding and subtracting it rounds a number below 2^22 in magnitude to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

#[cfg(test)]
mod tests {
    /// Every `step`-th `f32` from `low` to `high`, both of one sign or zero.
    pub fn sweep(low: f32, high: f32, step: usize) -> impl Iterator<Item = f32> {
        assert!(low.is_sign_positive() == high.is_sign_positive());
        let (a, b) = (low.to_bits(), high.to_bits());
        (a.min(b)..=a.max(b)).step_by(step).map(f32::from_bits)
    }
}
