//! Integer operators that are not linear, as they are defined: one element at a time, every rounding on its own. Kernels give the same
//! bits. This page stands alone, so that host tests and the firmware that tests boards compile the same lines.

/// `round(a * b / 2^31)`, halves upwards, saturating.
pub fn doubling_high_multiply(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    ((i64::from(a) * i64::from(b) + (1 << 30)) >> 31) as i32
}

/// `round(x / 2^exponent)`, halves away from zero.
pub fn rounding_shift_right(x: i32, exponent: u32) -> i32 {
    let half = (1i64 << exponent) / 2;
    let x = i64::from(x);
    (if x < 0 { -((half - x) >> exponent) } else { (x + half) >> exponent }) as i32
}

/// `x * multiplier / 2^31 * 2^shift`.
pub fn requantize(x: i32, multiplier: i32, shift: i32) -> i32 {
    let (left, right) = if shift > 0 { (shift as u32, 0) } else { (0, -shift as u32) };
    rounding_shift_right(doubling_high_multiply(x.wrapping_shl(left), multiplier), right)
}

/// A sum. `words` are those of the step, zero points those of the inputs and of the output.
pub fn add(words: &[u32; 9], [zero_1, zero_2, zero]: [i32; 3], x: i8, y: i8) -> i8 {
    let [left_shift, m_1, s_1, m_2, s_2, m, s, low, high] = words.map(|word| word as i32);
    let first = requantize((i32::from(x) - zero_1).wrapping_shl(left_shift as u32), m_1, s_1);
    let second = requantize((i32::from(y) - zero_2).wrapping_shl(left_shift as u32), m_2, s_2);
    requantize(first.wrapping_add(second), m, s).wrapping_add(zero).max(low).min(high) as i8
}

/// A mean with halves away from zero.
pub fn average(sum: i32, count: i32) -> i32 {
    (if sum > 0 { sum + count / 2 } else { sum - count / 2 }) / count
}

/// Shares of a row's elements in 1/256 or 1/65536, from the least value of the output's type. Gives each element's to `put`.
pub fn softmax(words: &[u32; 3], wide: bool, row: &[i8], mut put: impl FnMut(usize, i32)) {
    let [multiplier, left_shift, diff_min] = words.map(|word| word as i32);
    let most = row.iter().fold(i8::MIN, |most, &x| most.max(x));
    let exponential = |x: i8| {
        let difference = i32::from(x) - i32::from(most);
        (difference >= diff_min).then(|| exp(requantize(difference, multiplier, left_shift)))
    };
    let sum =
        row.iter().filter_map(|&x| exponential(x)).fold(0i32, |sum, e| sum + rounding_shift_right(e, 12));
    let zeros = (sum as u32).leading_zeros();
    let reciprocal = one_over_one_plus(((sum as u32) << zeros).wrapping_sub(1 << 31) as i32);
    let (bits, least, greatest) = if wide { (16, -32768, 32767) } else { (8, -128, 127) };
    for (at, &x) in row.iter().enumerate() {
        let exponent = 12 - zeros as i32 + 31 - bits;
        let share = match exponential(x) {
            Some(e) if exponent < 32 => {
                rounding_shift_right(doubling_high_multiply(reciprocal, e), exponent as u32)
            }
            _ => 0,
        };
        put(at, (share + least).max(least).min(greatest));
    }
}

/// `e^x` in Q0 of `x <= 0` in Q5.
fn exp(x: i32) -> i32 {
    const FACTORS: [i32; 7] =
        [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if x == 0 {
        return i32::MAX;
    }
    let within = (x & 0xFF_FFFF) - (1 << 24);
    let mut result = exp_within_quarter(shift_left_saturating(within, 5));
    let quarters = within.wrapping_sub(x) >> 24;
    for (bit, factor) in FACTORS.into_iter().enumerate() {
        if quarters >> bit & 1 != 0 {
            result = doubling_high_multiply(result, factor);
        }
    }
    result
}

/// `e^x` in Q0 of `x` in Q0, -1/4 <= x < 0.
fn exp_within_quarter(x: i32) -> i32 {
    const EXP_OF_CENTRE: i32 = 1_895_147_668;
    let x = x + (1 << 28);
    let x2 = doubling_high_multiply(x, x);
    let x3 = doubling_high_multiply(x2, x);
    let x4_over_4 = rounding_shift_right(doubling_high_multiply(x2, x2), 2);
    let tail = doubling_high_multiply(x4_over_4 + x3, 715_827_883) + x2;
    EXP_OF_CENTRE + doubling_high_multiply(EXP_OF_CENTRE, x + rounding_shift_right(tail, 1))
}

/// `1 / (1 + x)` in Q0 of `x` in Q0, 0 <= x < 1.
fn one_over_one_plus(x: i32) -> i32 {
    let half = ((i64::from(x) + i64::from(i32::MAX) + 1) >> 1) as i32;
    let mut y = 1_515_870_810 + doubling_high_multiply(half, -1_010_580_540);
    for _ in 0..3 {
        let error = (1 << 29) - doubling_high_multiply(half, y);
        y += shift_left_saturating(doubling_high_multiply(y, error), 2);
    }
    shift_left_saturating(y, 1)
}

fn shift_left_saturating(x: i32, bits: u32) -> i32 {
    (i64::from(x) << bits).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}
