//! The sine.
//!
//! Arguments are reduced to half a turn around 0: up to [`LIMIT`] by subtracting multiples of pi in three parts (Cody and Waite,
//! 1980), above by multiplying the mantissa with the bits of 1/pi that matter, in integers (Payne and Hanek, 1983).

use super::ROUND;

/// Magnitude up to which the short reduction is exact enough.
const LIMIT: f32 = 25_000.0;

/// Sine of `x` radians. Absolute error below 2e-7 for every finite `x`; not a number for others.
pub fn sin(x: f32) -> f32 {
    // The upper parts have 8 and 9 significant bits: their products with a multiple below 2^13 are exact.
    const PI_1: f32 = 3.140_625;
    const PI_2: f32 = 0.000_967_025_76;
    const PI_3: f32 = 6.278_329_5e-7;
    if x.abs() <= LIMIT {
        let n = x * core::f32::consts::FRAC_1_PI + ROUND;
        let odd = n.to_bits() & 1 == 1;
        let n = n - ROUND;
        return half_turn(x - n * PI_1 - n * PI_2 - n * PI_3, odd);
    }
    if !x.is_finite() {
        return f32::NAN;
    }
    let (r, odd) = reduce(x.abs());
    half_turn(r, odd ^ (x < 0.0))
}

/// Sine of `r` in -pi/2..=pi/2, negated where `negative`.
fn half_turn(r: f32, negative: bool) -> f32 {
    let t = r * r;
    let tail = -0.166_666_67
        + t * (0.008_333_331 + t * (-0.000_198_408_92 + t * (2.752_651_9e-6 + t * -2.390_736e-8)));
    let sine = r + r * t * tail;
    if negative { -sine } else { sine }
}

/// What is left of a finite `x >= 2^-8` after the nearest multiple of pi, and whether that multiple is odd.
fn reduce(x: f32) -> (f32, bool) {
    /// 32 zeros, then the fraction bits of 1/pi.
    const BITS: [u32; 7] = [0, 0x517C_C1B7, 0x2722_0A94, 0xFE13_ABE8, 0xFA9A_6EE0, 0x6DB1_4ACC, 0x9E21_C820];
    let bits = x.to_bits();
    let mantissa = u64::from(bits & 0x7F_FFFF | 0x80_0000);
    // x = mantissa * 2^(exponent - 150). Bit `start` of BITS gets the weight 1; those before it make even multiples of pi.
    let start = (bits >> 23).wrapping_sub(150).wrapping_add(31);
    let word = |k: u32| u64::from(BITS.get((start >> 5).wrapping_add(k) as usize).copied().unwrap_or(0));
    let (high, low) = (word(0) << 32 | word(1), word(2) << 32);
    let by = start & 31;
    let window = high << by | (low >> 1 >> (63u32.wrapping_sub(by) & 63));
    // x / pi modulo 2, with 63 fraction bits.
    let turns = mantissa.wrapping_mul(window);
    let odd = turns.wrapping_add(1 << 62) >> 63 == 1;
    let fraction = (turns << 1 >> 32) as i32;
    (fraction as f32 * (core::f32::consts::PI / 4_294_967_296.0), odd)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sweep;
    use super::*;

    fn worst(inputs: impl Iterator<Item = f32>) -> f64 {
        inputs.fold(0.0, |worst, x| worst.max((f64::from(sin(x)) - f64::from(x).sin()).abs()))
    }

    #[test]
    fn within_its_error_up_to_the_limit() {
        let worst = worst(sweep(0.0, LIMIT, 499).chain(sweep(-0.0, -LIMIT, 503)));
        assert!(worst < 2e-7, "{worst}");
    }

    #[test]
    fn within_its_error_beyond_the_limit() {
        let worst = worst(sweep(LIMIT, f32::MAX, 499).chain(sweep(-LIMIT, f32::MIN, 503)));
        assert!(worst < 2e-7, "{worst}");
    }

    #[test]
    fn both_reductions_agree() {
        for x in sweep(1.0, LIMIT, 997) {
            let (r, odd) = reduce(x);
            assert!((half_turn(r, odd) - sin(x)).abs() < 4e-7, "{x}");
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(sin(0.0), 0.0);
        assert_eq!(sin(1e-30), 1e-30);
        assert!(sin(f32::NAN).is_nan());
        assert!(sin(f32::INFINITY).is_nan());
    }
}
