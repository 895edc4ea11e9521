//! Requantisation in one rounding: exact forms of [`crate::quant::requantize`], and the constants that kernels need for them.
//!
//! With a factor `M >= 0` and a shift to the right by `e >= 1`, the two roundings of `requantize` are one floor:
//! `x = floor((a * M + 2^30) / 2^31)` is the first; the second, halves away from zero, is `floor((x + 2^(e - 1) - [x < 0]) / 2^e)`. As
//! `floor(floor(u) / n) = floor(u / n)` for whole `n`, both are `floor((a * M + 2^30 + 2^(30 + e) - [x < 0] * 2^31) / 2^(31 + e))`. `[a < 0]` may
//! stand for `[x < 0]`: they differ only for `a < 0` and `x = 0`, where either gives 0. Without the term the result differs only where `x < 0`, and
//! is not positive there, as the right one: a lower bound at or above the zero point hides it. With `e <= 0` there is no second rounding, and
//! no term: `floor((a * M * 2^-e + 2^30) / 2^31)`.
//!
//! The zero point, less the lower bound, enters the addend too, or is added last, so that the lower bound is 0 and an unsigned saturation clamps to it.

use super::tile::{self, PAIR_WORDS, Part};
use crate::ops::linear::Integer;

/// A channel's factor, addend and shift.
type Scale = [i32; 3];

/// How sums become outputs.
pub struct Form {
    /// The code that scales sums.
    pub scale: Option<Part>,
    /// The code that stores outputs.
    pub store: Part,
    /// See [`tile::Run::top`].
    pub top: u32,
    /// See [`tile::Run::back`].
    pub back: u32,
    /// See [`tile::Run::zero`].
    pub zero: i32,
    narrow: bool,
    signed: bool,
}

impl Form {
    /// No form: sums are kept.
    pub const SUMS: Self = Self {
        scale: Some(tile::keep_sums),
        store: tile::store_i8,
        top: 0,
        back: 0,
        zero: 0,
        narrow: false,
        signed: false,
    };

    /// The form that takes all channels of a layer, if there is one, and its constants, eight words for each pair of outputs. `depth`: inputs
    /// of an output; `wide_x`: they have 16 bits; `wide_y`: so have outputs.
    #[inline(never)]
    pub fn of(
        linear: &Integer<'_>,
        narrow: bool,
        depth: usize,
        [wide_x, wide_y]: [bool; 2],
        constants: &mut [i32],
    ) -> Option<Self> {
        if !narrow {
            // Twice a sum has to fit 32 bits.
            let most = if wide_x { 1u64 << 15 } else { 1 << 7 };
            let products = (depth as u64).saturating_mul(most.wrapping_mul(128));
            let bias = linear.bias.iter().map(|bias| bias.unsigned_abs()).max()?;
            if products.saturating_add(bias.into()) >= 1 << 30 {
                return None;
            }
        }
        let Integer { output_zero, low, high, .. } = *linear;
        let (limit, lanes) = if wide_y { (0xFFFF, 0x1_0001) } else { (0xFF, 0x101_0101) };
        let top = (high.wrapping_sub(low) ^ limit) & limit;
        let back = high.wrapping_add(1) & limit;
        let mut form = Self {
            scale: if narrow { None } else { Some(tile::wide_unsigned) },
            store: if wide_y { tile::store_i16 } else { tile::store_i8 },
            top: (top as u32).wrapping_mul(lanes),
            back: (back as u32).wrapping_mul(lanes),
            zero: output_zero.wrapping_sub(low),
            narrow,
            signed: false,
        };
        if low == i8::MIN.into() && high == i8::MAX.into() {
            form.store = tile::store_full_i8;
            form.zero = output_zero;
        }
        if narrow && (wide_y || form.zero == output_zero) {
            form.scale = Some(tile::narrow_unsigned);
        }
        if low >= output_zero && form.write(linear, constants).is_some() {
            return Some(form);
        }
        form.signed = true;
        form.scale = Some(if narrow { tile::narrow_signed } else { tile::wide_signed });
        form.write(linear, constants)?;
        Some(form)
    }

    /// The constants of a channel; `None` where this form cannot take it.
    fn scale(&self, multiplier: i32, shift: i32) -> Option<Scale> {
        let e = shift.wrapping_neg();
        // Sums come times 2^(1 + spare).
        let (spare, least) = if self.narrow { (7, -6) } else { (0, 1) };
        // Of sums below 2^23 nothing is left by a shift of 24.
        let nothing = multiplier == 0 || self.narrow && e >= 24;
        let (factor, e) = if nothing { (0, 1) } else { (multiplier, e) };
        let unit = e.wrapping_add(spare) as u32;
        let zero = if self.signed { 0 } else { self.zero };
        // The product is below 2^30; the addend is not above it, so that they fit together.
        if e < least || unit > 30 || zero.unsigned_abs() >= 1 << 30 >> unit {
            return None;
        }
        // Halves of both roundings. A rounding product brings that of the first.
        let first = if e >= 1 { 1 << spare >> 1 } else { 0 };
        let half = 1i32.wrapping_shl(unit) >> 1;
        let addend = zero.wrapping_shl(unit).wrapping_add(half).wrapping_add(first);
        let negative = if self.signed && self.narrow && e >= 1 { -(1 << 7 << tile::SIGN) } else { 0 };
        Some([factor, addend, unit as i32 | negative])
    }

    /// Writes the constants of all pairs of outputs; `None` if there is a channel that this form cannot take.
    fn write(&self, linear: &Integer<'_>, constants: &mut [i32]) -> Option<()> {
        let mut channels = linear.bias.iter().zip(linear.multiplier).zip(linear.shift);
        let mut next = || {
            let Some(((&bias, &multiplier), &shift)) = channels.next() else { return Some((0, [0; 3])) };
            Some((bias, self.scale(multiplier, shift)?))
        };
        let whole = linear.bias.len() / 2;
        for (number, pair) in constants.as_chunks_mut::<PAIR_WORDS>().0.iter_mut().enumerate() {
            let (even, [even_factor, even_addend, even_shift]) = next()?;
            let (odd, [odd_factor, odd_addend, odd_shift]) = next()?;
            let (first, odd) = if self.narrow {
                (even.wrapping_shl(8).wrapping_add(odd), odd.wrapping_shl(8))
            } else {
                (even, odd)
            };
            // An odd last output has a run of its own.
            let end = if number.wrapping_add(1) >= whole { tile::LAST } else { 0 };
            let odd_shift = odd_shift | end;
            *pair = [first, odd, even_factor, even_addend, even_shift, odd_factor, odd_addend, odd_shift];
        }
        Some(())
    }
}
