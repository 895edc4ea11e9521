//! The exponential and its relatives. Polynomials are minimax fits in the style of Cody and Waite (*Software Manual for the
//! Elementary Functions*, 1980).

use super::ROUND;

/// `2^n` for `n` in -126..=127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `e^x`. Relative error below 2e-7 where the result is a normal number; below the normal numbers an absolute error of 1e-44. Gives
/// 0 and infinity beyond the range of `f32`.
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    if x > 89.0 {
        return f32::INFINITY;
    }
    if x < -104.0 {
        return 0.0;
    }
    let n = x * core::f32::consts::LOG2_E + ROUND - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let tail = 0.5 + r * (0.166_665_18 + r * (0.041_666_206 + r * (0.008_368_954 + r * 0.001_395_06)));
    let e = 1.0 + (r + r * r * tail);
    // In two factors, so that results up to the ends of the range are reached.
    let n = n as i32;
    let half = n >> 1;
    e * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `1 / (1 + e^-x)`. Relative error below 4e-7 where the result is a normal number.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent. Relative error below 3e-7.
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    if size < 0.625 {
        let t = x * x;
        let tail = -0.333_332_84
            + t * (0.133_314_91 + t * (-0.053_743_497 + t * (0.020_650_579 + t * -0.005_717_036_3)));
        return x + x * t * tail;
    }
    // Beyond 10 the result rounds to 1.
    if size > 10.0 {
        return 1f32.copysign(x);
    }
    (1.0 - 2.0 / (exp(size + size) + 1.0)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sweep;
    use super::*;

    fn worst_relative(inputs: impl Iterator<Item = f32>, ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        inputs.fold(0.0, |worst, x| {
            let exact = exact(x.into());
            let error = (f64::from(ours(x)) - exact).abs();
            let relative = if exact == 0.0 { error } else { error / exact.abs() };
            assert!(relative.is_finite(), "{x}");
            worst.max(relative)
        })
    }

    fn both_signs(high: f32) -> impl Iterator<Item = f32> {
        sweep(0.0, high, 1009).chain(sweep(-0.0, -high, 1013))
    }

    #[test]
    fn exp_within_its_error() {
        let normal = sweep(0.0, 88.72, 997).chain(sweep(-0.0, -87.33, 997));
        let worst = worst_relative(normal, exp, f64::exp);
        assert!(worst < 2e-7, "{worst}");
        for x in sweep(-87.33, -120.0, 997) {
            assert!((f64::from(exp(x)) - f64::from(x).exp()).abs() < 1e-44, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(89.1), f32::INFINITY);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_within_its_error() {
        let inputs = sweep(0.0, 100.0, 1009).chain(sweep(-0.0, -87.0, 1013));
        let worst = worst_relative(inputs, sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(worst < 4e-7, "{worst}");
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_within_its_error() {
        let worst = worst_relative(both_signs(40.0), tanh, f64::tanh);
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!(tanh(f32::NAN).is_nan());
    }
}
