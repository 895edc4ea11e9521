//! Kernels that treat each element on its own, in place.

use super::element::clamp_f32;
use crate::math;
use crate::ops::add;
use crate::ops::unary::{Kind, Parameters};
use crate::quant::requantize;

#[inline(never)]
pub fn add_i8(
    parameters: &add::IntegerParameters,
    [zero_1, zero_2, zero]: [i32; 3],
    values: &mut [i8],
    second: &[i8],
    scratch: &mut [u8],
) -> Option<()> {
    let _ = scratch;
    let p = parameters;
    let raise = |x: i8, zero: i32| i32::from(x).wrapping_sub(zero).wrapping_shl(p.left_shift as u32);
    let second = second.get(..values.len())?;
    for (value, &x) in values.iter_mut().zip(second) {
        let first = requantize(raise(*value, zero_1), p.multiplier_1, p.shift_1);
        let second = requantize(raise(x, zero_2), p.multiplier_2, p.shift_2);
        let sum = requantize(first.wrapping_add(second), p.output_multiplier, p.output_shift);
        *value = sum.wrapping_add(zero).max(p.act_min).min(p.act_max) as i8;
    }
    Some(())
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
