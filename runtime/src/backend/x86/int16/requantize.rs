//! Requantisation in integers: outputs of 16 bits have more steps than floats tell apart.

use super::super::lanes::Lanes;
use crate::host::program::form::{Element, Image};
use crate::ops::linear::Integer;

/// Rows of constants of a register of channels.
pub const ROWS: usize = 8;

/// Rows that both ways have: biases, multipliers, multipliers of odd lanes in even ones.
const BIAS: usize = 0;
const MULTIPLIER: usize = 1;
const ODD_MULTIPLIER: usize = 2;

/// Rows of products: what rounds even and odd lanes, in 64 bits, with the zero point; bits to the left; bits to the right that leave the sign of an
/// accumulator where it counts; bits to the right.
const EVEN_HALF: usize = 3;
const ODD_HALF: usize = 4;
const LEFT: usize = 5;
const SIGN: usize = 6;
const RIGHT: usize = 7;

/// Rows of the definition besides `LEFT` and `RIGHT`: the bits that a shift to the right loses, and half of them.
const MASK: usize = 3;
const HALF: usize = 4;

/// What outputs are bounded by, and how they are stored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    zero: i32,
    low: i32,
    high: i32,
    /// Added to what is stored.
    offset: i32,
    /// Whether outputs are stored as bytes.
    pub bytes: bool,
}

impl Bounds {
    /// Those of a layer.
    pub fn new(linear: &Integer<'_>, output: &Image) -> Self {
        let offset = if output.element == Element::Stored { 0 } else { 128 };
        let bytes = output.element_bytes() == 1;
        Self { zero: linear.output_zero, low: linear.low, high: linear.high, offset, bytes }
    }
}

/// One output channel: what it may accumulate and what it makes of it.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Bias for inputs as they are stored.
    bias: i32,
    multiplier: i32,
    shift: i32,
    /// Least and greatest accumulator, if none passes 32 bits.
    range: Option<[i32; 2]>,
}

impl Channel {
    /// Output channel `o` of a linear operator, with the weights that it has.
    pub fn new(
        linear: &Integer<'_>,
        input: &Image,
        o: usize,
        weights: impl Iterator<Item = i8> + Clone,
    ) -> Option<Self> {
        let bias = *linear.bias.get(o)?;
        let (zero, stored_zero, ends) = match input.element {
            Element::Stored => (0, 0, [i16::MIN.into(), i16::MAX.into()]),
            _ => (i32::from(linear.input_zero), i32::from(linear.input_zero) + 128, [-128, 127]),
        };
        let sum = weights.clone().fold(0i32, |sum, w| sum.wrapping_add(w.into()));
        let (mut least, mut most) = (i64::from(bias), i64::from(bias));
        for w in weights {
            let products = ends.map(|x: i32| i64::from(x - zero) * i64::from(w));
            least += products[0].min(products[1]);
            most += products[0].max(products[1]);
        }
        let range = i32::try_from(least).ok().zip(i32::try_from(most).ok()).map(|(low, high)| [low, high]);
        Some(Self {
            bias: bias.wrapping_sub(stored_zero.wrapping_mul(sum)),
            multiplier: *linear.multiplier.get(o)?,
            shift: *linear.shift.get(o)?,
            range,
        })
    }

    /// Whether one 64-bit product with one rounding constant serves: twice the accumulator, shifted to the left, fits 32 bits, and so does
    /// the constant's upper half.
    fn is_product(&self) -> bool {
        let greatest = self.range.map(|range| range.map(i32::unsigned_abs).into_iter().max().unwrap_or(0));
        let room = (1u32 << 30) >> self.shift.clamp(0, 30);
        self.shift >= -22 && greatest.is_some_and(|greatest| greatest < room)
    }
}

/// Whether products serve for all channels.
pub fn are_products(all: &[Channel]) -> bool {
    all.iter().all(Channel::is_product)
}

/// Constants for the channels of each lane of a register; `None`: a lane without one.
pub fn constants<V: Lanes>(
    product: bool,
    bounds: &Bounds,
    lane: impl Fn(usize) -> Option<Channel>,
) -> Vec<i32> {
    let mut rows = vec![0; ROWS * V::COUNT];
    for (l, channel) in (0..V::COUNT).filter_map(|l| Some((l, lane(l)?))) {
        let mut set = |row: usize, lane: usize, value: i32| rows[row * V::COUNT + lane] = value;
        let (left, right) = (channel.shift.max(0), (-channel.shift).max(0));
        set(BIAS, l, channel.bias);
        set(MULTIPLIER, l, channel.multiplier);
        if l % 2 == 1 {
            set(ODD_MULTIPLIER, l - 1, channel.multiplier);
        }
        set(RIGHT, l, right);
        if product {
            let second = if right > 0 { 1i64 << (30 + right) } else { 0 };
            let zero = i64::from(bounds.zero + bounds.offset) << (31 + right);
            let half = ((1i64 << 30) + second + zero) << 1;
            let row = if l % 2 == 1 { ODD_HALF } else { EVEN_HALF };
            set(row, l & !1, half as i32);
            set(row, l | 1, (half >> 32) as i32);
            set(LEFT, l, left + 1);
            // Halves go away from zero where the second rounding is one.
            set(SIGN, l, if right > 0 { 31 } else { 32 });
        } else {
            let mask = (1u32 << right).wrapping_sub(1) as i32;
            set(MASK, l, mask);
            set(HALF, l, mask >> 1);
            set(LEFT, l, left);
        }
    }
    rows
}

/// Biases of a register of channels.
///
/// # Safety
/// The instruction set of `V`; `rows` holds constants.
#[inline(always)]
pub unsafe fn biases<V: Lanes>(rows: *const i32) -> V {
    // SAFETY: the caller's.
    unsafe { V::load(rows.add(BIAS * V::COUNT)) }
}

/// What is stored for accumulators.
///
/// # Safety
/// The instruction set of `V`; `rows` holds constants of products, or of the definition.
#[inline(always)]
pub unsafe fn requantize<V: Lanes, const PRODUCT: bool>(sum: V, rows: *const i32, bounds: &Bounds) -> V {
    // SAFETY: the caller's.
    unsafe {
        let row = |k: usize| V::load(rows.add(k * V::COUNT));
        let shifted = V::shift_left(sum, row(LEFT));
        let even = V::multiply(shifted, row(MULTIPLIER));
        let odd = V::multiply(V::lower::<32>(shifted), row(ODD_MULTIPLIER));
        if PRODUCT {
            let even = V::lower::<32>(V::add_wide(even, row(EVEN_HALF)));
            let odd = V::add_wide(odd, row(ODD_HALF));
            let rounded = V::sub(V::blend(even, odd), V::shift_right_unsigned(sum, row(SIGN)));
            let value = V::shift_right(rounded, row(RIGHT));
            let [low, high] = [bounds.low, bounds.high].map(|bound| bound + bounds.offset);
            return V::min(V::max(value, V::splat(low)), V::splat(high));
        }
        let half = V::blend(V::splat(1 << 30), V::splat(0));
        let even = V::lower::<31>(V::add_wide(even, half));
        let odd = V::add_wide(odd, half);
        let product = V::blend(even, V::add_wide(odd, odd));
        let (mask, right) = (row(MASK), row(RIGHT));
        let threshold = V::add(row(HALF), V::shift_right_unsigned(product, V::splat(31)));
        let away = V::greater(V::and(product, mask), threshold);
        let scaled = V::sub(V::shift_right(product, right), away);
        let value = V::add(scaled, V::splat(bounds.zero));
        let value = V::min(V::max(value, V::splat(bounds.low)), V::splat(bounds.high));
        V::add(value, V::splat(bounds.offset))
    }
}
