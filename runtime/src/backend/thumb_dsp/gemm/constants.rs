//! Requantisation in one rounding: exact forms of [`crate::quant::requantize`], and the constants that kernels need for them.
//!
//! With a factor `M >= 0` and a shift to the right by `e >= 1`, the two roundings of `requantize` are one floor:
//! `x = floor((a * M + 2^30) / 2^31)` is the first; the second, halves away from zero, is `floor((x + 2^(e - 1) - [x < 0]) / 2^e)`. As
//! `floor(floor(u) / n) = floor(u / n)` for whole `n`, both are `floor((a * M + 2^30 + 2^(30 + e) - [x < 0] * 2^31) / 2^(31 + e))`. `[a < 0]` may
//! stand for `[x < 0]`: they differ only for `a < 0` and `x = 0`, where either gives 0. Without the term the result differs only where `x < 0`, and
//! is not positive there, as the right one: a lower bound at or above the zero point hides it. With `e <= 0` there is no second rounding, and
//! no term: `floor((a * M * 2^-e + 2^30) / 2^31)`.
//!
//! Sums of [`tile::narrow`] are below 2^23 and come times 256, so that there are 7 bits to spare behind the unit of an output's rounding: enough
//! for the first rounding's half, and for shifts to the left by up to 6. Those of [`tile::wide`] come doubled; SMMLAR brings the first rounding.
//!
//! The zero point, less the lower bound, enters the addend too, or is added last if a shift is too great for that, so that the lower bound is 0 and an unsigned saturation clamps to it.

use super::Linked;
use super::tile::{self, PAIR_WORDS, Part};
use crate::backend::spec::dsp::gemm::Tile;
use crate::ops::linear::Integer;

/// How sums become outputs.
pub struct Form {
    /// The code that scales sums.
    pub scale: Option<Part>,
    /// See [`tile::Run::store`].
    pub store: Part,
    /// The code that stores outputs.
    pub store_shifted: Part,
    /// See [`tile::Run::top`].
    pub top: u32,
    /// See [`tile::Run::back`].
    pub back: u32,
    /// See [`tile::Run::zero`].
    pub zero: i32,
    /// The zero point, less the lower bound, in the addend.
    zero_in_addend: i32,
    /// Pairs of outputs of a group of channels.
    pairs: usize,
    narrow: bool,
    /// Whether the scaling code is one for sums of either sign.
    pub signed: bool,
}

impl Form {
    /// No form: sums are kept.
    pub const SUMS: Self = Self {
        scale: Some(tile::keep_sums),
        store: tile::store_i8,
        store_shifted: tile::store_i8,
        top: 0,
        back: 0,
        zero: 0,
        zero_in_addend: 0,
        pairs: 0,
        narrow: false,
        signed: false,
    };

    /// The form that takes all channels of a layer, if there is one, and its constants, eight words for each pair of outputs. `store` stores bounded
    /// outputs.
    #[inline(never)]
    pub fn of<K: Linked>(
        linear: &Integer<'_>,
        tile: &Tile,
        [x_bytes, y_bytes]: [usize; 2],
        store: Part,
        constants: &mut [i32],
    ) -> Option<Self> {
        let narrow = K::narrow(tile);
        let wide_y = y_bytes == 2;
        if !narrow {
            // Twice a sum has to fit 32 bits: |w| <= 2^7, |x| <= 2^15 or 2^7, and a bias takes less than a quarter.
            let depth = (3 << 28) >> if x_bytes == 2 { 22 } else { 14 };
            if tile.depth > depth || linear.bias.iter().any(|bias| bias.unsigned_abs() >= 1 << 28) {
                return None;
            }
        }
        let Integer { output_zero, low, high, .. } = *linear;
        let (limit, lanes) = if wide_y { (0xFFFF, 0x1_0001) } else { (0xFF, 0x101_0101) };
        let top = (high.wrapping_sub(low) ^ limit) & limit;
        let back = high.wrapping_add(1) & limit;
        let mut form = Self {
            scale: if narrow { None } else { Some(tile::wide_unsigned) },
            store,
            store_shifted: store,
            top: (top as u32).wrapping_mul(lanes),
            back: (back as u32).wrapping_mul(lanes),
            zero: 0,
            zero_in_addend: output_zero.wrapping_sub(low),
            pairs: tile.outputs / 2,
            narrow,
            signed: false,
        };
        let full = !wide_y && low == i8::MIN.into() && high == i8::MAX.into();
        if full {
            form.store = tile::store_full_i8;
            form.zero_in_addend = output_zero;
        }
        if narrow && (wide_y || full) {
            form.scale = Some(tile::narrow_unsigned);
        }
        if low >= output_zero && form.write::<K>(linear, constants).is_some() {
            return Some(form);
        }
        form.signed = true;
        form.scale = Some(if narrow { tile::narrow_signed } else { tile::wide_signed });
        if form.write::<K>(linear, constants).is_some() {
            return Some(form);
        }
        (form.store_shifted, form.store) = (form.store, tile::shift_to_zero);
        form.zero = core::mem::take(&mut form.zero_in_addend);
        form.write::<K>(linear, constants)?;
        Some(form)
    }

    /// Writes the constants of all whole pairs of outputs; `None` if there is a channel that this form cannot take.
    #[inline(never)]
    fn write<K: Linked>(&self, linear: &Integer<'_>, constants: &mut [i32]) -> Option<()> {
        let narrow = K::NARROW && (!K::WIDE || self.narrow);
        // Sums come times 2^(1 + spare); a channel's unit is 2^(e + spare).
        let spare = if narrow { 7 } else { 0 };
        let zero = self.zero_in_addend;
        // The product is below 2^30, and so is the zero point; together they fit.
        let most = 30u32.wrapping_sub(32u32.wrapping_sub(zero.unsigned_abs().leading_zeros()));
        let negative = if self.signed && narrow { -(1 << 7 << tile::SIGN) } else { 0 };
        // Of sums below 2^23 nothing is left by a shift of 24.
        let nothing = if narrow { 24 } else { 32 };
        let odd_zero = zero.wrapping_mul(2).wrapping_add(1);
        let scale = |multiplier: i32, shift: i32| {
            let mut e = shift.wrapping_neg();
            let mut factor = multiplier;
            if multiplier == 0 || e >= nothing {
                (factor, e) = (0, 1);
            }
            let below = e.wrapping_add(spare).wrapping_sub(1) as u32;
            if below >= most {
                return None;
            }
            // Zero point and half of the second rounding, then that of the first, if there are two. A rounding product brings it.
            let addend = odd_zero.wrapping_shl(below);
            let (first, negative) = if e >= 1 { (1 << spare >> 1, negative) } else { (0, 0) };
            Some([factor, addend.wrapping_add(first), below.wrapping_add(1) as i32 | negative])
        };
        let pairs_of_group = self.pairs;
        let bias = linear.bias.as_chunks::<2>().0;
        let multiplier = linear.multiplier.as_chunks::<2>().0;
        let shift = linear.shift.as_chunks::<2>().0;
        let pairs = constants.as_chunks_mut::<PAIR_WORDS>().0;
        let mut left = pairs_of_group;
        for (((pair, &[even, odd]), factors), shifts) in pairs.iter_mut().zip(bias).zip(multiplier).zip(shift)
        {
            let [even_factor, even_addend, even_shift] = scale(factors[0], shifts[0])?;
            let [odd_factor, odd_addend, odd_shift] = scale(factors[1], shifts[1])?;
            let first = if narrow { narrow_start(even, odd) } else { [even, odd] };
            let [first, second] = first;
            *pair = [first, second, even_factor, even_addend, even_shift, odd_factor, odd_addend, odd_shift];
            left = left.wrapping_sub(1);
            if left == 0 {
                let [.., shift] = pair;
                *shift |= tile::LAST;
                left = pairs_of_group;
            }
        }
        Some(())
    }
}

/// What the sums of [`tile::narrow`] start from.
pub fn narrow_start(even: i32, odd: i32) -> [i32; 2] {
    [even.wrapping_shl(8).wrapping_add(odd), odd.wrapping_shl(8)]
}
