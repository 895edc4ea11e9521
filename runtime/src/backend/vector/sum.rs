//! Sums of two bytes as one linear function: `(a first + b second + c) >> shift`, searched and proven over all pairs of bytes.

use crate::ops::add;
use crate::quant::requantize;

/// A sum of bytes that have 128 added, as an `i8` before the bounds.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Factors of the inputs.
    pub factors: [i32; 2],
    /// Added before the shift.
    pub constant: i32,
    /// Bits that fall away.
    pub shift: u32,
    /// Least and greatest output.
    pub bounds: [i8; 2],
}

impl Sum {
    /// The function that gives the operator's bits for all 65 536 pairs; `None` if none was found. No sum passes 31 bits.
    pub fn search(p: &add::IntegerParameters, [zero_1, zero_2, zero]: [i32; 3]) -> Option<Self> {
        let raise = |x: i32, zero: i32, multiplier: i32, shift: i32| {
            requantize((x - 128 - zero).wrapping_shl(p.left_shift as u32), multiplier, shift)
        };
        let first: Vec<i32> = (0..256).map(|x| raise(x, zero_1, p.multiplier_1, p.shift_1)).collect();
        let second: Vec<i32> = (0..256).map(|x| raise(x, zero_2, p.multiplier_2, p.shift_2)).collect();
        let output = |x: usize, y: usize| {
            let sum = requantize(first[x].wrapping_add(second[y]), p.output_multiplier, p.output_shift);
            sum.wrapping_add(zero).max(p.act_min).min(p.act_max)
        };
        let outputs: Vec<[i32; 256]> = (0..256).map(|x| core::array::from_fn(|y| output(x, y))).collect();
        let real = |multiplier: i32, shift: i32| f64::from(multiplier) * f64::from(shift - 31).exp2();
        let common = real(p.output_multiplier, p.output_shift) * f64::from(p.left_shift).exp2();
        let exact =
            [real(p.multiplier_1, p.shift_1), real(p.multiplier_2, p.shift_2)].map(|part| part * common);
        for shift in (12..=22).rev() {
            let [a, b] = exact.map(|factor| (factor * f64::from(shift as i32).exp2()).round());
            // The constant is at most as large as both products and what the output's range allows.
            if (a.abs() + b.abs() + 4.0) * 512.0 + f64::from(shift as i32).exp2() * 512.0
                >= f64::from(i32::MAX)
            {
                continue;
            }
            for delta_a in [0, 1, -1, 2, -2] {
                for delta_b in [0, 1, -1, 2, -2] {
                    let factors = [a as i32 + delta_a, b as i32 + delta_b];
                    if let Some(constant) = constant(factors, shift, &outputs, [p.act_min, p.act_max]) {
                        let bounds = [p.act_min as i8, p.act_max as i8];
                        return Some(Self { factors, constant, shift, bounds });
                    }
                }
            }
        }
        None
    }
}

/// A constant that goes with factors for all pairs.
fn constant(factors: [i32; 2], shift: u32, outputs: &[[i32; 256]], [low, high]: [i32; 2]) -> Option<i32> {
    let (mut least, mut most) = (i32::MIN / 2, i32::MAX / 2);
    for (x, row) in (0..).zip(outputs) {
        for (y, &output) in (0..).zip(row) {
            let product = x * factors[0] + y * factors[1];
            let floor = (output << shift) - product;
            least = least.max(if output > low { floor } else { i32::MIN / 2 });
            most = most.min(if output < high { floor + (1 << shift) - 1 } else { i32::MAX / 2 });
        }
        if least > most {
            return None;
        }
    }
    let middle = least + (most - least) / 2;
    // Bounds that are never met leave the constant free: none that sums would not hold.
    let greatest = 255 * (factors[0].abs() + factors[1].abs()) + (512 << shift);
    (middle.abs() <= greatest).then_some(middle)
}
