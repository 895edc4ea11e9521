//! Operations on single elements, and softmax.

use super::Operand;
use crate::graph::{ActivationRange, Affine, Unary};

/// Clamps one number; unlike [`ActivationRange::apply`] it lets NaN through, so that it shows up at the outputs.
pub fn clamp(x: f32, range: ActivationRange) -> f32 {
    let x = if x < range.low { range.low } else { x };
    if x > range.high { range.high } else { x }
}

pub fn zip(a: &[f32], b: &[f32], range: ActivationRange, op: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| clamp(op(*a, *b), range)).collect()
}

pub fn unary(unary: Unary, x: &[f32]) -> Vec<f32> {
    let function = match unary {
        Unary::Sin => f32::sin,
        Unary::Sigmoid => |x: f32| 1.0 / (1.0 + (-x).exp()),
        Unary::Tanh => f32::tanh,
    };
    x.iter().map(|x| function(*x)).collect()
}

pub fn affine(affine: &Affine, x: Operand) -> Vec<f32> {
    let inner: usize = x.shape[2..].iter().product();
    let mut out = x.data.to_vec();
    let channels = affine.scale.iter().zip(&affine.shift).cycle();
    for (plane, (scale, shift)) in out.chunks_exact_mut(inner.max(1)).zip(channels) {
        plane.iter_mut().for_each(|x| *x = *x * scale + shift);
    }
    out
}

pub fn softmax(axis: usize, x: Operand) -> Vec<f32> {
    let extent = x.shape[axis];
    let inner: usize = x.shape[axis + 1..].iter().product();
    let mut out = x.data.to_vec();
    for block in out.chunks_exact_mut((extent * inner).max(1)) {
        for lane in 0..inner {
            let lane = |k: usize| k * inner + lane;
            let max = (0..extent).map(|k| block[lane(k)]).fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for k in 0..extent {
                let e = (block[lane(k)] - max).exp();
                block[lane(k)] = e;
                sum += e;
            }
            (0..extent).for_each(|k| block[lane(k)] /= sum);
        }
    }
    out
}

/// The gradient of the input of [`affine`].
pub fn affine_gradient(affine: &Affine, gradient: Operand) -> Vec<f32> {
    let inner: usize = gradient.shape[2..].iter().product();
    let mut out = gradient.data.to_vec();
    for (plane, scale) in out.chunks_exact_mut(inner.max(1)).zip(affine.scale.iter().cycle()) {
        plane.iter_mut().for_each(|g| *g *= scale);
    }
    out
}

/// The gradient of the input of [`softmax`], whose output is `y`: `y * (g - sum of y g)`.
pub fn softmax_gradient(axis: usize, y: Operand, gradient: &[f32]) -> Vec<f32> {
    let extent = y.shape[axis];
    let inner: usize = y.shape[axis + 1..].iter().product();
    let block = (extent * inner).max(1);
    let mut out = gradient.to_vec();
    for (out, y) in out.chunks_exact_mut(block).zip(y.data.chunks_exact(block)) {
        for lane in 0..inner {
            let lane = |k: usize| k * inner + lane;
            let mean: f32 = (0..extent).map(|k| y[lane(k)] * out[lane(k)]).sum();
            (0..extent).for_each(|k| out[lane(k)] = y[lane(k)] * (out[lane(k)] - mean));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamp_keeps_nan() {
        assert!(clamp(f32::NAN, ActivationRange::RELU).is_nan());
        assert_eq!(clamp(-1.0, ActivationRange::RELU), 0.0);
        assert_eq!(clamp(7.0, ActivationRange { low: 0.0, high: 6.0 }), 6.0);
    }

    #[test]
    fn affine_scales_axis_one() {
        let affine_op = Affine { scale: vec![2.0, 3.0], shift: vec![1.0, 0.0] };
        let data: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let out = affine(&affine_op, Operand { shape: &[1, 2, 2], data: &data });
        assert_eq!(out, [1.0, 3.0, 6.0, 9.0, 9.0, 11.0, 18.0, 21.0]);
    }

    #[test]
    fn softmax_of_inner_axis() {
        // [1, 2, 2], axis 1: lanes (0, ln 3) and (5, 5).
        let data = [0.0, 5.0, 3f32.ln(), 5.0];
        let out = softmax(1, Operand { shape: &[1, 2, 2], data: &data });
        for (got, expected) in out.iter().zip([0.25, 0.5, 0.75, 0.5]) {
            assert!((got - expected).abs() < 1e-6);
        }
    }
}
