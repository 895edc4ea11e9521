//! Kernels that treat each element on its own, in place.

use super::element::clamp_f32;
use crate::backend::spec::elementwise::{LEAST_TABLED, has_tables, has_whole_range};
use crate::math;
use crate::ops::add;
use crate::ops::unary::{Kind, Parameters};
use crate::quant::requantize;

/// An entry of the tables that a sum may use: what one `i8` of an input adds.
pub(in crate::backend) trait Entry: Copy + bytemuck::Pod {
    /// The entry for a scaled input, `factor` being that of the output.
    fn new(scaled: i32, factor: i32) -> Self;

    /// `round((a + b) * factor / 2^31)`, halves upwards, of the scaled inputs `a` and `b`; one less if it is negative; `offset` more.
    fn product(self, other: Self, factor: i32, offset: i32) -> i32;
}

/// Twice the scaled input: the output's factor takes one multiplication.
impl Entry for i32 {
    #[inline(always)]
    fn new(scaled: i32, _: i32) -> Self {
        scaled.wrapping_shl(1)
    }

    #[inline(always)]
    fn product(self, other: Self, factor: i32, offset: i32) -> i32 {
        let sum = self.wrapping_add(other);
        let product = i64::from(sum).wrapping_mul(factor.into()).wrapping_add(1 << 31);
        // A negative sum whose product rounds to 0 is one less than stated; with half a unit in the offset the output is the same.
        ((product >> 32) as i32).wrapping_add(offset).wrapping_add(sum >> 31)
    }
}

/// Twice the product with the output's factor and half of the rounding, so that a sum takes no multiplication: for cores without a long one.
impl Entry for i64 {
    #[inline(always)]
    fn new(scaled: i32, factor: i32) -> Self {
        Self::from(scaled.wrapping_shl(1)).wrapping_mul(factor.into()).wrapping_add(1 << 30)
    }

    #[inline(always)]
    fn product(self, other: Self, _: i32, offset: i32) -> i32 {
        let product = (self.wrapping_add(other) >> 32) as i32;
        product.wrapping_add(product >> 31).wrapping_add(offset)
    }
}

#[cfg(tucano_profile = "v6m")]
type TableEntry = i64;
#[cfg(not(tucano_profile = "v6m"))]
type TableEntry = i32;

/// Fills a table whose entry `x as u8` belongs to `x`: `requantize((x - zero) << left_shift, multiplier, shift)`, without a multiplication
/// of each. Parameters are in the ranges that the operator's check asks for: the scaled input stays below 2^30.
#[inline(never)]
fn tabulate<E: Entry>(
    table: &mut [E; 256],
    zero: i32,
    left_shift: i32,
    [multiplier, shift]: [i32; 2],
    factor: i32,
) {
    let exponent = shift.wrapping_neg() as u32 & 31;
    let half = ((1u32 << exponent) >> 1) as i32;
    // Halves away from zero: one less for negative numbers, then halves upwards.
    let rounds = if exponent > 0 { -1 } else { 0 };
    let step = i64::from(multiplier).wrapping_shl(left_shift as u32);
    let least = i32::from(i8::MIN).wrapping_sub(zero);
    // The product of each `x`, with half a unit.
    let mut product = step.wrapping_mul(least.into()).wrapping_add(1 << 30);
    for place in 0..256usize {
        let once = (product >> 31) as i32;
        let scaled = once.wrapping_add(half).wrapping_add(once >> 31 & rounds) >> exponent;
        if let Some(entry) = table.get_mut(place ^ 0x80) {
            *entry = E::new(scaled, factor);
        }
        product = product.wrapping_add(step);
    }
}

/// How a sum of scaled inputs becomes an output where one rounding serves: the zero point is added before the shift.
#[repr(C)]
pub(in crate::backend) struct Finish {
    multiplier: i32,
    /// Zero point and half a unit, before the shift.
    offset: i32,
    /// Of the shift to the right, 1 to 22.
    exponent: u32,
    low: i32,
    high: i32,
}

impl Finish {
    /// `None` where a step of the calculation might not fit 32 bits, or there is no shift to the right.
    fn new(p: &add::IntegerParameters, zero: i32) -> Option<Self> {
        let exponent = p.output_shift.wrapping_neg();
        if !has_tables(p) {
            return None;
        }
        let offset = zero.wrapping_shl(exponent as u32).wrapping_add((1i32 << (exponent & 31)) >> 1);
        let exponent = exponent as u32 & 31;
        Some(Self { multiplier: p.output_multiplier, offset, exponent, low: p.act_min, high: p.act_max })
    }

    /// `bound` brings an output into its bounds.
    #[inline(always)]
    fn add<E: Entry>(
        &self,
        [table_1, table_2]: &[[E; 256]; 2],
        values: &mut [i8],
        second: &[i8],
        bound: impl Fn(i32) -> i32,
    ) {
        for (value, &x) in values.iter_mut().zip(second) {
            let (Some(first), Some(&second)) =
                (table_1.get(usize::from(*value as u8)), table_2.get(usize::from(x as u8)))
            else {
                return;
            };
            let product = first.product(second, self.multiplier, self.offset);
            *value = bound(product >> self.exponent) as i8;
        }
    }

    /// With bounds of a network that has no sum of its own range; short rather than fast.
    #[cold]
    #[inline(never)]
    pub(in crate::backend) fn add_within<E: Entry>(
        &self,
        tables: &[[E; 256]; 2],
        values: &mut [i8],
        second: &[i8],
    ) {
        self.add(tables, values, second, |y| y.max(self.low).min(self.high));
    }
}

#[inline(never)]
pub fn add_i8(
    parameters: &add::IntegerParameters,
    zero_points: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    add_with::<TableEntry>(parameters, zero_points, values, second, scratch)
}

#[inline(always)]
fn add_with<E: Entry>(
    parameters: &add::IntegerParameters,
    zero_points: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    let second = second.get(..values.len())?;
    let Some((tables, finish)) = prepare::<E>(parameters, zero_points, values.len(), scratch) else {
        add_each(parameters, zero_points, values, second);
        return Some(());
    };
    if has_whole_range(parameters) {
        finish.add(tables, values, second, |y| y.max(i8::MIN.into()).min(i8::MAX.into()));
    } else {
        finish.add_within(tables, values, second);
    }
    Some(())
}

/// Fills the tables of a sum, one for each input; `None` where they do not pay, the scratch does not hold them, or the closed form does not serve.
#[inline(always)]
pub(in crate::backend) fn prepare<'a, E: Entry>(
    p: &add::IntegerParameters,
    [zero_1, zero_2, zero]: [i32; 3],
    elements: usize,
    scratch: &'a mut [u8],
) -> Option<(&'a [[E; 256]; 2], Finish)> {
    let finish = Finish::new(p, zero)?;
    if elements < LEAST_TABLED {
        return None;
    }
    let bytes = scratch.get_mut(..size_of::<[[E; 256]; 2]>())?;
    let tables: &mut [[E; 256]; 2] = bytemuck::try_from_bytes_mut(bytes).ok()?;
    let [table_1, table_2] = tables;
    tabulate(table_1, zero_1, p.left_shift, [p.multiplier_1, p.shift_1], finish.multiplier);
    tabulate(table_2, zero_2, p.left_shift, [p.multiplier_2, p.shift_2], finish.multiplier);
    Some((tables, finish))
}

/// A sum by its definition.
#[cold]
#[inline(never)]
pub(in crate::backend) fn add_each(
    p: &add::IntegerParameters,
    [zero_1, zero_2, zero]: [i32; 3],
    values: &mut [i8],
    second: &[i8],
) {
    let raise = |x: i8, zero: i32| i32::from(x).wrapping_sub(zero).wrapping_shl(p.left_shift as u32);
    for (value, &x) in values.iter_mut().zip(second) {
        let first = requantize(raise(*value, zero_1), p.multiplier_1, p.shift_1);
        let second = requantize(raise(x, zero_2), p.multiplier_2, p.shift_2);
        let sum = requantize(first.wrapping_add(second), p.output_multiplier, p.output_shift);
        *value = sum.wrapping_add(zero).max(p.act_min).min(p.act_max) as i8;
    }
}

#[inline(never)]
pub fn add_f32(bounds: [f32; 2], values: &mut [f32], second: &[f32]) -> Option<()> {
    let second = second.get(..values.len())?;
    for (value, x) in values.iter_mut().zip(second) {
        *value = clamp_f32(*value + x, bounds);
    }
    Some(())
}

#[inline(never)]
pub fn mul_f32(bounds: [f32; 2], values: &mut [f32], second: &[f32]) -> Option<()> {
    let second = second.get(..values.len())?;
    for (value, x) in values.iter_mut().zip(second) {
        *value = clamp_f32(*value * x, bounds);
    }
    Some(())
}

#[inline(never)]
pub fn table_i8(table: &[i8; 256], values: &mut [i8]) {
    for value in values {
        // The index is below 256 by its type.
        if let Some(&entry) = table.get(usize::from(*value as u8 ^ 0x80)) {
            *value = entry;
        }
    }
}

#[inline(never)]
pub fn unary_f32(parameters: &Parameters, values: &mut [f32]) {
    let function = match parameters.kind {
        Kind::Clamp => |x| x,
        Kind::Sin => math::sin,
        Kind::Sigmoid => math::sigmoid,
        Kind::Tanh => math::tanh,
    };
    for value in values {
        *value = clamp_f32(function(*value), [parameters.low, parameters.high]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    fn random(state: &mut u64) -> u32 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32
    }

    /// Compares all pairs of inputs.
    fn check<E: Entry>(words: &[u32; 9], zero_points: [i32; 3], scratch: usize) {
        let mut values: Vec<i8> = (0..=u16::MAX).map(|pair| pair as u8 as i8).collect();
        let second: Vec<i8> = (0..=u16::MAX).map(|pair| (pair >> 8) as u8 as i8).collect();
        let expected: Vec<i8> =
            values.iter().zip(&second).map(|(&x, &y)| reference::add(words, zero_points, x, y)).collect();
        let mut aligned = [0u128; 256];
        let parameters = add::IntegerParameters::parse(words).unwrap();
        let scratch = &mut bytemuck::bytes_of_mut(&mut aligned)[..scratch];
        add_with::<E>(&parameters, zero_points, &mut values, &second, scratch).unwrap();
        assert!(values == expected, "{words:?} {zero_points:?} {}", scratch.len());
    }

    #[test]
    fn inputs_may_shift_by_all_bits() {
        let [low, high] = [-128i32 as u32, 127];
        for (left_shift, shift) in [(5, -31), (20, -31), (21, -31), (21, -30), (0, 0)] {
            let words = [
                left_shift,
                1_546_637_442,
                0,
                1_637_997_384,
                shift as u32,
                1_937_084_566,
                -3i32 as u32,
                low,
                high,
            ];
            for zero_points in [[41, -18, -66], [-128, 127, 0], [127, -128, 127]] {
                check::<i32>(&words, zero_points, 2048);
                check::<i64>(&words, zero_points, 4096);
                let swapped = [
                    words[0], words[3], words[4], words[1], words[2], words[5], words[6], words[7], words[8],
                ];
                check::<i32>(&swapped, zero_points, 2048);
                check::<i64>(&swapped, zero_points, 4096);
            }
        }
    }

    #[test]
    fn sums_equal_their_definition() {
        let mut state = 7;
        for case in 0..150 {
            let mut below = |limit: u32| random(&mut state) % limit;
            let left_shift = if case % 5 == 4 { below(23) } else { 20 };
            let shifts = if case % 7 == 6 { 32 } else { 4 };
            let last =
                if case % 6 == 5 { below(62) as i32 - 31 } else { below(4) as i32 - left_shift as i32 };
            let mut multiplier =
                || [1 << 30, 1 << 30, i32::MAX as u32, 0, (1 << 30) + below(1 << 30)][below(5) as usize];
            let factors = [multiplier(), multiplier(), multiplier()];
            let [low, high] =
                if below(2) == 0 { [-128, 127] } else { [below(128) as i32 - 128, below(128) as i32] };
            let words = [
                left_shift,
                factors[0],
                below(shifts).wrapping_neg(),
                factors[1],
                below(shifts).wrapping_neg(),
                factors[2],
                last as u32,
                low as u32,
                high as u32,
            ];
            let zero_points = core::array::from_fn(|_| below(256) as i32 - 128);
            check::<i32>(&words, zero_points, 2048);
            check::<i64>(&words, zero_points, 4096);
            check::<i32>(&words, zero_points, 2047);
        }
    }
}
