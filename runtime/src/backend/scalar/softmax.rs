//! Softmax. The integer kernel is in fixed point, the arithmetic of gemmlowp's `fixedpoint` library, so that it equals TensorFlow
//! Lite's reference to the bit. `Qn` below means n integer bits and 31 - n fraction bits.

use crate::math;
use crate::ops::softmax::Parameters;
use crate::quant::{requantize, rounded_product, rounding_shift_right};
use crate::rolled::rolled;

/// Bits of the sum before the binary point; the operator's check keeps rows short enough.
pub(in crate::backend) const SUM_INTEGER_BITS: u32 = 12;

/// Elements of a row whose exponentials are kept from the sum to the shares.
const KEPT: usize = 16;

#[inline(never)]
pub fn softmax_i8(parameters: &Parameters, row: usize, values: &mut [i8]) -> Option<()> {
    let mut left = values;
    while !left.is_empty() {
        let (row, rest) = left.split_at_mut_checked(row.max(1))?;
        left = rest;
        let sum = RowSum::of(parameters, row);
        for (k, x) in row.iter_mut().enumerate() {
            let scaled = sum.share(sum.exponential(parameters, k, *x), 8);
            *x = scaled.wrapping_add(i8::MIN.into()).max(i8::MIN.into()).min(i8::MAX.into()) as i8;
        }
    }
    Some(())
}

#[inline(never)]
pub fn softmax_i16(parameters: &Parameters, row: usize, input: &[i8], output: &mut [i16]) -> Option<()> {
    let (mut left, mut free) = (input, output);
    while !left.is_empty() {
        let (row, rest) = left.split_at_checked(row.max(1))?;
        let (results, others) = free.split_at_mut_checked(row.len())?;
        (left, free) = (rest, others);
        let sum = RowSum::of(parameters, row);
        for (k, (result, x)) in results.iter_mut().zip(row).enumerate() {
            let scaled = sum.share(sum.exponential(parameters, k, *x), 16);
            *result = scaled.wrapping_add(i16::MIN.into()).max(i16::MIN.into()).min(i16::MAX.into()) as i16;
        }
    }
    Some(())
}

/// What all elements of a row are divided by.
struct RowSum {
    /// Greatest element.
    most: i8,
    /// `1 / (1 + fraction)` in Q0, where the sum is `(1 + fraction) * 2^(12 - zeros)`.
    reciprocal: i32,
    /// Leading zero bits of the sum.
    zeros: u32,
    /// Exponentials of the first elements.
    kept: [i32; KEPT],
}

impl RowSum {
    #[inline(never)]
    fn of(parameters: &Parameters, row: &[i8]) -> Self {
        let mut most = i8::MIN;
        for &x in row {
            rolled();
            most = most.max(x);
        }
        let mut kept = [0; KEPT];
        let mut sum = 0i32;
        for (k, &x) in row.iter().enumerate() {
            let e = exponential(parameters, x, most);
            if let Some(slot) = kept.get_mut(k) {
                *slot = e;
            }
            sum = sum.wrapping_add(rounding_shift_right(e, SUM_INTEGER_BITS));
        }
        let zeros = (sum as u32).leading_zeros();
        let fraction = ((sum as u32).wrapping_shl(zeros)).wrapping_sub(1 << 31) as i32;
        Self { most, reciprocal: one_over_one_plus(fraction), zeros, kept }
    }

    /// The exponential of element `k`, which is `x`.
    #[inline]
    fn exponential(&self, parameters: &Parameters, k: usize, x: i8) -> i32 {
        self.kept.get(k).copied().unwrap_or_else(|| exponential(parameters, x, self.most))
    }

    /// The share of an element with this exponential in `bits` bits, from 0.
    #[inline(never)]
    fn share(&self, exponential: i32, bits: u32) -> i32 {
        // From an exponent of 32 on all of the result is rounded away.
        let exponent = SUM_INTEGER_BITS.wrapping_sub(self.zeros).wrapping_add(31).wrapping_sub(bits);
        if exponent >= 32 {
            return 0;
        }
        rounding_shift_right(rounded_product(self.reciprocal, exponential), exponent)
    }
}

/// `e^((x - most) * scale)` in Q0; 0 where it counts as 0.
#[inline(never)]
pub(in crate::backend) fn exponential(parameters: &Parameters, x: i8, most: i8) -> i32 {
    let difference = i32::from(x).wrapping_sub(most.into());
    if difference < parameters.diff_min {
        return 0;
    }
    exp_q5(requantize(difference, parameters.multiplier, parameters.left_shift))
}

/// `e^x` in Q0 of `x <= 0` in Q5: a polynomial within a quarter, times `e` to the quarters and wholes, bit by bit.
fn exp_q5(x: i32) -> i32 {
    const QUARTER: i32 = 1 << 24;
    /// `e^-(2^k / 4)` in Q0 for k = 0, 1, ...
    const FACTORS: [i32; 7] =
        [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if x == 0 {
        return i32::MAX;
    }
    let within = (x & (QUARTER - 1)).wrapping_sub(QUARTER);
    let mut result = exp_within_quarter(shift_left_saturating(within, 5));
    let mut quarters = within.wrapping_sub(x) >> 24;
    for factor in FACTORS {
        if quarters & 1 != 0 {
            result = rounded_product(result, factor);
        }
        quarters >>= 1;
    }
    result
}

/// `e^x` in Q0 of `x` in Q0, -1/4 <= x < 0: a Taylor polynomial around -1/8.
fn exp_within_quarter(x: i32) -> i32 {
    const EXP_OF_CENTRE: i32 = 1_895_147_668;
    const THIRD: i32 = 715_827_883;
    let x = x.wrapping_add(1 << 28);
    let x2 = rounded_product(x, x);
    let x3 = rounded_product(x2, x);
    let x4_over_4 = rounding_shift_right(rounded_product(x2, x2), 2);
    let tail = rounded_product(x4_over_4.wrapping_add(x3), THIRD).wrapping_add(x2);
    let tail = rounding_shift_right(tail, 1);
    EXP_OF_CENTRE.wrapping_add(rounded_product(EXP_OF_CENTRE, x.wrapping_add(tail)))
}

/// `1 / (1 + x)` in Q0 of `x` in Q0, 0 <= x < 1: three Newton steps in Q2 on half the denominator.
pub(in crate::backend) fn one_over_one_plus(x: i32) -> i32 {
    const A: i32 = 1_515_870_810; // 48/17
    const B: i32 = -1_010_580_540; // -32/17
    const ONE: i32 = 1 << 29;
    // (x + 1) / 2, halves upwards; 1 in Q0 is i32::MAX.
    let half = ((i64::from(x).wrapping_add(i64::from(i32::MAX)).wrapping_add(1)) >> 1) as i32;
    let mut y = A.wrapping_add(rounded_product(half, B));
    for _ in 0..3 {
        let error = ONE.wrapping_sub(rounded_product(half, y));
        y = y.wrapping_add(shift_left_saturating(rounded_product(y, error), 2));
    }
    // The quotient is y/2: Q2 read as Q1, then brought to Q0.
    shift_left_saturating(y, 1)
}

/// `x * 2^bits` within `i32`, for up to 31 bits.
fn shift_left_saturating(x: i32, bits: u32) -> i32 {
    let limit = (1i32 << (31u32.wrapping_sub(bits) & 31)).wrapping_sub(1);
    if x > limit {
        i32::MAX
    } else if x < limit.wrapping_neg() {
        i32::MIN
    } else {
        x.wrapping_shl(bits)
    }
}

#[inline(never)]
pub fn softmax_f32(row: usize, values: &mut [f32]) -> Option<()> {
    let mut left = values;
    while !left.is_empty() {
        let (row, rest) = left.split_at_mut_checked(row.max(1))?;
        left = rest;
        let most = row.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
        let mut sum = 0.0;
        for x in row.iter_mut() {
            *x = math::exp(*x - most);
            sum += *x;
        }
        let factor = 1.0 / sum;
        for x in row {
            *x *= factor;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    #[test]
    fn rows_equal_their_definition() {
        let mut state = 5u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for case in 0..2000 {
            let scale = 1 + random() % (1 << (10 + case % 21));
            let shift = 32 - scale.leading_zeros();
            let multiplier = (u64::from(scale) << 31 >> shift) as u32;
            let words = [multiplier, shift, -((31i64 << 26 >> shift) as i32) as u32];
            let parameters = Parameters::parse(&words).unwrap();
            let row: Vec<i8> = (0..1 + random() % 40).map(|_| random() as i8).collect();
            let (mut bytes, mut halves) = (row.clone(), vec![0i16; row.len()]);
            softmax_i8(&parameters, row.len(), &mut bytes).unwrap();
            softmax_i16(&parameters, row.len(), &row, &mut halves).unwrap();
            reference::softmax(&words, false, &row, |at, share| assert_eq!(i32::from(bytes[at]), share));
            reference::softmax(&words, true, &row, |at, share| assert_eq!(i32::from(halves[at]), share));
        }
    }

    const Q0: f64 = 2147483648.0;

    #[test]
    fn exponential_in_fixed_point() {
        for x in (0..i32::MAX).step_by(100_003) {
            let x = -x;
            let exact = (f64::from(x) / f64::from(1 << 26)).exp();
            assert!((f64::from(exp_q5(x)) / Q0 - exact).abs() < 4e-7, "{x}");
        }
    }

    #[test]
    fn reciprocal_in_fixed_point() {
        for x in (0..i32::MAX).step_by(100_003) {
            let exact = 1.0 / (1.0 + f64::from(x) / Q0);
            assert!((f64::from(one_over_one_plus(x)) / Q0 - exact).abs() < 1e-8, "{x}");
        }
    }
}
