//! Kernels that treat each element on its own, in place.

use super::element::clamp_f32;
use crate::backend::spec::elementwise::LEAST_TABLED;
use crate::math;
use crate::ops::add;
use crate::ops::unary::{Kind, Parameters};
use crate::quant::requantize;

/// An entry of the tables that a sum may use: what one `i8` of an input adds.
trait Entry: Copy + bytemuck::Pod {
    /// The entry for a scaled input, `factor` being that of the output.
    fn new(scaled: i32, factor: i32) -> Self;

    /// `round((a + b) * factor / 2^31)`, halves upwards, of the scaled inputs `a` and `b`.
    fn product(self, other: Self, factor: i32) -> i32;
}

/// Twice the scaled input: the output's factor takes one multiplication.
impl Entry for i32 {
    #[inline(always)]
    fn new(scaled: i32, _: i32) -> Self {
        scaled.wrapping_shl(1)
    }

    #[inline(always)]
    fn product(self, other: Self, factor: i32) -> i32 {
        let product = i64::from(self.wrapping_add(other)).wrapping_mul(factor.into());
        (product.wrapping_add(1 << 31) >> 32) as i32
    }
}

/// Twice the product with the output's factor and half of the rounding, so that a sum takes no multiplication: for cores without a long one.
impl Entry for i64 {
    #[inline(always)]
    fn new(scaled: i32, factor: i32) -> Self {
        Self::from(scaled.wrapping_shl(1)).wrapping_mul(factor.into()).wrapping_add(1 << 30)
    }

    #[inline(always)]
    fn product(self, other: Self, _: i32) -> i32 {
        (self.wrapping_add(other) >> 32) as i32
    }
}

#[cfg(tucano_profile = "v6m")]
type TableEntry = i64;
#[cfg(not(tucano_profile = "v6m"))]
type TableEntry = i32;

/// How an input of a sum is scaled: `requantize((x - zero) << left_shift, multiplier, -exponent)`, without a branch.
struct Scale {
    /// Of `x = 0`, with half a unit: the product that the first rounding sees.
    origin: i64,
    /// From the product of one `x` to that of the next.
    step: i64,
    /// Half a unit of the second rounding; 0 if there is none.
    half: i32,
    /// Whether there is a second rounding: -1, else 0.
    rounds: i32,
    exponent: u32,
}

impl Scale {
    /// Parameters are in the ranges that the operator's check asks for: the scaled input stays below 2^30.
    fn new(zero: i32, left_shift: i32, multiplier: i32, shift: i32) -> Self {
        let exponent = shift.wrapping_neg() as u32 & 31;
        let step = i64::from(multiplier).wrapping_shl(left_shift as u32);
        Self {
            origin: step.wrapping_mul(zero.wrapping_neg().into()).wrapping_add(1 << 30),
            step,
            half: (1i32 << exponent) >> 1,
            rounds: if exponent > 0 { -1 } else { 0 },
            exponent,
        }
    }

    /// The scaled input for the product that belongs to it.
    #[inline(always)]
    fn finish(&self, product: i64) -> i32 {
        let once = (product >> 31) as i32;
        // Halves away from zero: one less for negative numbers, then halves upwards.
        once.wrapping_add(self.half).wrapping_add(once >> 31 & self.rounds) >> self.exponent
    }

    #[inline(always)]
    fn scale(&self, x: i8) -> i32 {
        self.finish(self.origin.wrapping_add(self.step.wrapping_mul(x.into())))
    }

    /// Fills a table whose entry `x as u8` belongs to `x`.
    fn tabulate<E: Entry>(&self, factor: i32, table: &mut [E; 256]) {
        let mut product = self.origin.wrapping_add(self.step.wrapping_mul(i8::MIN.into()));
        let (positive, negative) = table.split_at_mut(128);
        for entry in negative.iter_mut().chain(positive) {
            *entry = E::new(self.finish(product), factor);
            product = product.wrapping_add(self.step);
        }
    }
}

/// How a sum of scaled inputs becomes an output where one rounding serves: the zero point is added before the shift.
struct Finish {
    multiplier: i32,
    /// Zero point and half a unit, before the shift.
    offset: i32,
    exponent: u32,
    low: i32,
    high: i32,
}

impl Finish {
    /// `None` where a step of the calculation might not fit 32 bits, or there is no shift to the right.
    fn new(p: &add::IntegerParameters, zero: i32) -> Option<Self> {
        let exponent = p.output_shift.wrapping_neg();
        if !(1..=22).contains(&exponent) || p.left_shift > 21 {
            return None;
        }
        let offset = zero.wrapping_shl(exponent as u32).wrapping_add((1i32 << (exponent & 31)) >> 1);
        let exponent = exponent as u32 & 31;
        Some(Self { multiplier: p.output_multiplier, offset, exponent, low: p.act_min, high: p.act_max })
    }

    #[inline(always)]
    fn add<E: Entry>(
        &self,
        tables: &[[E; 256]; 2],
        values: &mut [i8],
        second: &[i8],
        bound: impl Fn(i32) -> i32,
    ) {
        let [table_1, table_2] = tables;
        for (value, &x) in values.iter_mut().zip(second) {
            let (Some(first), Some(&second)) =
                (table_1.get(usize::from(*value as u8)), table_2.get(usize::from(x as u8)))
            else {
                return;
            };
            let product = first.product(second, self.multiplier);
            let rounded = product.wrapping_add(product >> 31).wrapping_add(self.offset) >> self.exponent;
            *value = bound(rounded) as i8;
        }
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
    [zero_1, zero_2, zero]: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    let p = parameters;
    let second = second.get(..values.len())?;
    let scale_1 = Scale::new(zero_1, p.left_shift, p.multiplier_1, p.shift_1);
    let scale_2 = Scale::new(zero_2, p.left_shift, p.multiplier_2, p.shift_2);
    if let (Some(tables), Some(finish)) = (tables::<E>(values.len(), scratch), Finish::new(p, zero)) {
        for (table, scale) in tables.iter_mut().zip([scale_1, scale_2]) {
            scale.tabulate(finish.multiplier, table);
        }
        let Finish { low, high, .. } = finish;
        if low <= i8::MIN.into() && high >= i8::MAX.into() {
            finish.add(tables, values, second, |y| y.max(i8::MIN.into()).min(i8::MAX.into()));
        } else {
            finish.add(tables, values, second, |y| y.max(low).min(high));
        }
        return Some(());
    }
    for (value, &x) in values.iter_mut().zip(second) {
        let sum = scale_1.scale(*value).wrapping_add(scale_2.scale(x));
        let result = requantize(sum, p.output_multiplier, p.output_shift).wrapping_add(zero);
        *value = result.max(p.act_min).min(p.act_max) as i8;
    }
    Some(())
}

/// The tables, where they pay and the scratch holds them.
fn tables<E: Entry>(elements: usize, scratch: &mut [u8]) -> Option<&mut [[E; 256]; 2]> {
    if elements < LEAST_TABLED {
        return None;
    }
    let bytes = scratch.get_mut(..size_of::<[[E; 256]; 2]>())?;
    bytemuck::try_from_bytes_mut(bytes).ok()
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
