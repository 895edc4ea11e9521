//! Requantisation: the one definition of how an `i32` accumulator becomes an output integer.
//!
//! A real factor `m` is stored as a multiplier `M` in Q31 and a shift `s`, positive to the left: `m = M / 2^31 * 2^s`. [`requantize`]
//! multiplies by it with two roundings, as gemmlowp's fixed-point arithmetic does (Jacob et al., *Quantization and Training of
//! Neural Networks for Efficient Integer-Arithmetic-Only Inference*, 2018) and with it TensorFlow Lite's reference kernels, to
//! the bit. All functions are total: no input panics, overflow wraps.

/// The most that a stored shift may move to the left.
pub const MAX_SHIFT: i32 = 30;
/// The least stored shift, that is the most it may move to the right.
pub const MIN_SHIFT: i32 = -31;

/// `round(a * b / 2^31)`, halves upwards; the one product that does not fit, of twice [`i32::MIN`], saturates.
#[inline]
pub const fn doubling_high_multiply(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    rounded_product(a, b)
}

/// As [`doubling_high_multiply`], but that twice [`i32::MIN`] wraps.
#[cfg(not(tucano_profile = "v6m"))]
#[inline]
pub(crate) const fn rounded_product(a: i32, b: i32) -> i32 {
    let product = (a as i64).wrapping_mul(b as i64);
    (product.wrapping_add(1 << 30) >> 31) as i32
}

/// As [`doubling_high_multiply`], but that twice [`i32::MIN`] wraps. Of halfwords: the core multiplies to 32 bits alone.
#[cfg(tucano_profile = "v6m")]
#[inline(never)]
pub(crate) const fn rounded_product(a: i32, b: i32) -> i32 {
    product_of_halves(a, b)
}

/// `round(a * b / 2^31)`, halves upwards, modulo 2^32.
#[cfg(any(test, tucano_profile = "v6m"))]
#[inline(always)]
const fn product_of_halves(a: i32, b: i32) -> i32 {
    let (a_low, a_high) = (a & 0xFFFF, a >> 16);
    let (b_low, b_high) = (b & 0xFFFF, b >> 16);
    // Bits 16 to 47 of the product, in two parts that both fit.
    let lowest = (a_low as u32).wrapping_mul(b_low as u32) >> 16;
    let first = a_high.wrapping_mul(b_low).wrapping_add(lowest as i32);
    let second = a_low.wrapping_mul(b_high).wrapping_add(first & 0xFFFF);
    let high = a_high.wrapping_mul(b_high).wrapping_add(first >> 16).wrapping_add(second >> 16);
    // Bits 31 to 62, and bit 30 to round.
    let low = a.wrapping_mul(b) as u32;
    (high << 1 | (low >> 31) as i32).wrapping_add((low >> 30 & 1) as i32)
}

/// `round(x / 2^exponent)`, halves away from zero. Only the low five bits of `exponent` count.
#[inline]
pub const fn rounding_shift_right(x: i32, exponent: u32) -> i32 {
    let exponent = exponent & 31;
    let mask = (1u32 << exponent).wrapping_sub(1) as i32;
    let remainder = x & mask;
    let threshold = (mask >> 1).wrapping_add((x < 0) as i32);
    (x >> exponent).wrapping_add((remainder > threshold) as i32)
}

/// `accumulator * multiplier / 2^31 * 2^shift`, rounded twice: after the multiplication and after the shift to the right. A shift to
/// the left comes first, modulo 2^32. `shift` lies within [`MIN_SHIFT`]`..=`[`MAX_SHIFT`].
#[inline]
pub const fn requantize(accumulator: i32, multiplier: i32, shift: i32) -> i32 {
    let (left, right) = if shift > 0 { (shift as u32, 0) } else { (0, shift.wrapping_neg() as u32) };
    rounding_shift_right(doubling_high_multiply(accumulator.wrapping_shl(left), multiplier), right)
}

/// The Q31 multiplier and shift that stand for a real factor: `multiplier` lies in `2^30..2^31` (0 for a factor of 0), `shift` within
/// [`MIN_SHIFT`]`..=`[`MAX_SHIFT`]. Factors below `2^-32` become 0, factors from `2^30` on saturate, and whatever is negative or not
/// a number becomes 0: callers refuse those before.
#[cfg(any(feature = "host", test))]
pub fn quantize_multiplier(factor: f64) -> (i32, i32) {
    if factor.is_nan() || factor <= 0.0 {
        return (0, 0);
    }
    if factor.is_infinite() {
        return (i32::MAX, MAX_SHIFT);
    }
    let mut shift = 0;
    let mut fraction = factor;
    // Both loops are exact; they end within the exponent range of f64.
    while fraction >= 1.0 {
        fraction *= 0.5;
        shift += 1;
    }
    while fraction < 0.5 {
        fraction *= 2.0;
        shift -= 1;
    }
    let mut multiplier = (fraction * (1u32 << 31) as f64).round() as i64;
    if multiplier == 1 << 31 {
        multiplier >>= 1;
        shift += 1;
    }
    if shift < MIN_SHIFT {
        return (0, 0);
    }
    if shift > MAX_SHIFT {
        return (i32::MAX, MAX_SHIFT);
    }
    (multiplier as i32, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definitions written with divisions, as the paper has them.
    fn high_multiply_by_division(a: i32, b: i32) -> i32 {
        let product = i128::from(a) * i128::from(b);
        let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
        ((product + nudge) / (1 << 31)).clamp(i32::MIN.into(), i32::MAX.into()) as i32
    }

    fn shift_by_division(x: i32, exponent: u32) -> i32 {
        let divisor = 1i64 << exponent;
        let half = divisor / 2;
        let x = i64::from(x);
        (if x >= 0 { (x + half) / divisor } else { -((-x + half) / divisor) }) as i32
    }

    fn values() -> impl Iterator<Item = i32> {
        let edges = [0, 1, -1, 2, -2, 3, -3, i32::MAX, i32::MAX - 1, i32::MIN, i32::MIN + 1];
        let powers =
            (0..31).flat_map(|e| [1 << e, -(1 << e), (1 << e) + 1, (1 << e) - 1, 3 * ((1 << e) / 2)]);
        let mut state = 1u64;
        let random = (0..400).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as i32 >> (state & 31)
        });
        edges.into_iter().chain(powers).chain(random)
    }

    #[test]
    fn high_multiply_equals_its_definition() {
        for a in values() {
            for b in values() {
                assert_eq!(doubling_high_multiply(a, b), high_multiply_by_division(a, b), "{a} * {b}");
                if (a, b) != (i32::MIN, i32::MIN) {
                    assert_eq!(product_of_halves(a, b), high_multiply_by_division(a, b), "{a} * {b}");
                }
            }
        }
    }

    #[test]
    fn shift_rounds_halves_away_from_zero() {
        for x in values() {
            for exponent in 0..=31 {
                assert_eq!(
                    rounding_shift_right(x, exponent),
                    shift_by_division(x, exponent),
                    "{x} >> {exponent}"
                );
            }
        }
    }

    #[test]
    fn two_roundings_differ_from_one() {
        // 0.5 * 2^-1 of 1 is 0.25, but the first rounding makes 1 of 0.5, and the second again 1.
        assert_eq!(requantize(1, 1 << 30, -1), 1);
        assert_eq!(requantize(-3, 1 << 30, 0), -1);
        assert_eq!(requantize(5, 1 << 30, 3), 20);
    }

    #[test]
    fn multipliers_of_known_factors() {
        assert_eq!(quantize_multiplier(1.0), (1 << 30, 1));
        assert_eq!(quantize_multiplier(0.5), (1 << 30, 0));
        assert_eq!(quantize_multiplier(0.25), (1 << 30, -1));
        assert_eq!(quantize_multiplier(0.75), (3 << 29, 0));
        assert_eq!(quantize_multiplier(1.0 - 1e-12), (1 << 30, 1));
        assert_eq!(quantize_multiplier(0.0), (0, 0));
        assert_eq!(quantize_multiplier(-1.0), (0, 0));
        assert_eq!(quantize_multiplier(f64::NAN), (0, 0));
        assert_eq!(quantize_multiplier(1e-30), (0, 0));
        assert_eq!(quantize_multiplier(1e300), (i32::MAX, MAX_SHIFT));
        assert_eq!(quantize_multiplier(f64::INFINITY), (i32::MAX, MAX_SHIFT));
        assert_eq!(quantize_multiplier((2f64).powi(-32)), (1 << 30, MIN_SHIFT));
        for factor in [1e-9, 3e-4, 0.017, 0.9, 1.3, 700.0] {
            let (multiplier, shift) = quantize_multiplier(factor);
            assert!(multiplier >= 1 << 30);
            let back = f64::from(multiplier) / (1u32 << 31) as f64 * f64::powi(2.0, shift);
            assert!((back / factor - 1.0).abs() < 1e-9, "{factor}");
        }
    }
}
