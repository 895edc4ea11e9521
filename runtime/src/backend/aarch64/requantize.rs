//! From accumulators of 32 bits to bytes, with the bits of [`crate::quant::requantize`].
//!
//! `SQRDMULH` is its product. `SRSHL` rounds halves upwards, the definition away from zero: what is negative and will be shifted gets 1 taken off first.

use core::arch::aarch64::*;

use super::arithmetic::{Finish, unrolled};
use crate::ops::linear::Integer;
use crate::ops::mean;

/// One output channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Bias, less the input's zero point times all weights.
    pub bias: i32,
    multiplier: i32,
    shift: i32,
}

impl Channel {
    /// Output channel `o` of a linear operator, with the weights that it has.
    pub fn new(linear: &Integer<'_>, o: usize, weights: impl Iterator<Item = i8>) -> Option<Self> {
        let sum = weights.fold(0i32, |sum, w| sum.wrapping_add(w.into()));
        Some(Self {
            bias: linear.bias.get(o)?.wrapping_sub(i32::from(linear.input_zero).wrapping_mul(sum)),
            multiplier: *linear.multiplier.get(o)?,
            shift: *linear.shift.get(o)?,
        })
    }

    /// The mean over an image of `area` pixels: each has the weight 1.
    pub fn mean(p: &mean::Parameters, area: usize, input_zero: i32) -> Self {
        let bias = (area as i32).wrapping_mul(input_zero).wrapping_neg();
        Self { bias, multiplier: p.multiplier, shift: p.shift }
    }
}

/// What the channels of a layer have in common.
#[derive(Clone, Copy, Debug)]
pub struct Requantize {
    zero: i32,
    low: i8,
    high: i8,
    /// Whether every channel's shift moves to the right by 1 or more.
    right: bool,
}

impl Requantize {
    /// For channels whose outputs lie within bounds, both of `i8`.
    pub fn new(channels: &[Channel], zero: i32, [low, high]: [i32; 2]) -> Option<Self> {
        let right = channels.iter().all(|channel| channel.shift < 0);
        Some(Self { zero, low: i8::try_from(low).ok()?, high: i8::try_from(high).ok()?, right })
    }

    /// For the channels of a linear operator.
    pub fn linear(channels: &[Channel], linear: &Integer<'_>) -> Option<Self> {
        Self::new(channels, linear.output_zero, [linear.low, linear.high])
    }

    /// The factors of `4 * vectors` channels: biases, multipliers, shifts to the left, shifts to the right as negative numbers.
    pub fn factors(vectors: usize, channel: impl Fn(usize) -> Option<Channel>) -> Vec<u32> {
        let lanes = 4 * vectors;
        let mut factors = vec![0; 4 * lanes];
        for lane in 0..lanes {
            let Some(Channel { bias, multiplier, shift }) = channel(lane) else { continue };
            let values = [bias, multiplier, shift.max(0), shift.min(0)];
            values
                .into_iter()
                .enumerate()
                .for_each(|(row, value)| factors[row * lanes + lane] = value.cast_unsigned());
        }
        factors
    }

    /// Four sums as outputs before the bounds; where all shifts move to the right, without the zero point.
    ///
    /// # Safety
    /// Every processor has what it needs.
    #[inline(always)]
    unsafe fn scale(&self, sum: int32x4_t, [multiplier, left, right]: [int32x4_t; 3]) -> int32x4_t {
        // SAFETY: every processor has NEON.
        unsafe {
            if self.right {
                // The product is never the least number, for multipliers are not negative: taking 1 off does not wrap.
                let product = vqrdmulhq_s32(sum, multiplier);
                return vrshlq_s32(vsraq_n_s32::<31>(product, product), right);
            }
            let product = vqrdmulhq_s32(vshlq_s32(sum, left), multiplier);
            let below = vshrq_n_s32::<31>(vandq_s32(product, right));
            vaddq_s32(vrshlq_s32(vqaddq_s32(product, below), right), vdupq_n_s32(self.zero))
        }
    }
}

impl Finish for Requantize {
    type Sum = int32x4_t;
    /// Multipliers, shifts to the left, shifts to the right.
    type Factors = [int32x4_t; 3];

    #[inline(always)]
    unsafe fn load(from: *const u8, vectors: usize, n: usize) -> [int32x4_t; 3] {
        // SAFETY: the caller's.
        unsafe {
            let row = |k: usize| vld1q_s32(from.cast::<i32>().add(4 * (k * vectors + n)));
            [row(1), row(2), row(3)]
        }
    }

    #[inline(always)]
    unsafe fn store<const N: usize>(
        &self,
        sums: &[int32x4_t; N],
        factors: &[[int32x4_t; 3]; N],
        place: *mut u8,
        channels: usize,
    ) {
        // SAFETY: the caller's; every processor has NEON.
        unsafe {
            let mut halves = [vdupq_n_s16(0); 4];
            unrolled!(n < N {
                if n.is_multiple_of(2) {
                    let low = vqmovn_s32(self.scale(sums[n], factors[n]));
                    let next = if n + 1 < N { n + 1 } else { n };
                    let both = vqmovn_high_s32(low, self.scale(sums[next], factors[next]));
                    // What 16 bits cannot hold is out of bounds, with the zero point or without.
                    halves[n / 2] = if self.right { vqaddq_s16(both, vdupq_n_s16(self.zero as i16)) } else { both };
                }
            });
            let finish = |k: usize| {
                let bytes = vqmovn_high_s16(vqmovn_s16(halves[2 * k]), halves[2 * k + 1]);
                let bytes = vminq_s8(vmaxq_s8(bytes, vdupq_n_s8(self.low)), vdupq_n_s8(self.high));
                store(bytes, place.add(16 * k), channels - 16 * k);
            };
            finish(0);
            if N > 4 {
                finish(1);
            }
        }
    }
}

/// Stores the first bytes of a vector, at most all.
///
/// # Safety
/// They are writable.
#[inline(always)]
pub unsafe fn store(bytes: int8x16_t, place: *mut u8, count: usize) {
    // SAFETY: the caller's; every processor has NEON.
    unsafe {
        match count {
            16.. => vst1q_s8(place.cast(), bytes),
            8 => vst1_s8(place.cast(), vget_low_s8(bytes)),
            _ => store_some(bytes, place, count),
        }
    }
}

/// As [`store`], for less than all.
///
/// # Safety
/// They are writable.
#[inline(never)]
unsafe fn store_some(bytes: int8x16_t, place: *mut u8, count: usize) {
    let mut all = [0u8; 16];
    // SAFETY: the caller's; the vector has 16 bytes.
    unsafe {
        vst1q_s8(all.as_mut_ptr().cast(), bytes);
        core::ptr::copy_nonoverlapping(all.as_ptr(), place, count.min(16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::vector::tests::Random;
    use crate::quant::requantize;

    /// Sums near both ends, near halves of every shift, and any.
    fn sums(random: &mut Random, shift: i32) -> Vec<i32> {
        let half = 1i32 << (-shift - 1).clamp(0, 30);
        let near = |at: i32| (-3..=3).map(move |distance| at.wrapping_add(distance));
        let mut sums: Vec<i32> =
            [0, i32::MIN, i32::MAX, half, -half, 3i32.wrapping_mul(half), (-3i32).wrapping_mul(half)]
                .into_iter()
                .flat_map(|at| near(at).chain(near(at.wrapping_mul(2))))
                .collect();
        sums.extend((0..60).map(|_| random.next() as i32 >> random.below(31)));
        sums
    }

    #[test]
    fn outputs_are_those_of_the_definition() {
        let mut random = Random(1);
        let multipliers =
            [0, 1, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 1_518_500_250, i32::MAX - 1, i32::MAX];
        for shift in -31..=30 {
            for (zero, low, high) in [(0, -128, 127), (-128, -128, 127), (127, -128, 127), (3, -20, 90)] {
                // Lanes with other shifts in half of the groups, so that some shift to the left.
                for mixed in [false, true] {
                    let shifts: Vec<i32> = (0..16)
                        .map(|lane| if mixed && lane % 3 == 0 { -shift.min(30) } else { shift })
                        .collect();
                    let shifts: Vec<i32> = shifts.into_iter().map(|shift| shift.clamp(-31, 30)).collect();
                    let channels: Vec<Channel> = (0..16)
                        .map(|lane| Channel {
                            bias: 0,
                            multiplier: multipliers[lane % 8],
                            shift: shifts[lane],
                        })
                        .collect();
                    let finish = Requantize::new(&channels, zero, [low, high]).unwrap();
                    let factors = Requantize::factors(4, |lane| channels.get(lane).copied());
                    for sum in sums(&mut random, shift) {
                        let mut bytes = [0u8; 16];
                        // SAFETY: factors of four vectors; 16 bytes are writable.
                        unsafe {
                            let sums = [vdupq_n_s32(sum); 4];
                            let from = factors.as_ptr().cast();
                            let factors = [0, 1, 2, 3].map(|n| Requantize::load(from, 4, n));
                            finish.store::<4>(&sums, &factors, bytes.as_mut_ptr(), 16);
                        }
                        for (lane, channel) in channels.iter().enumerate() {
                            let scaled =
                                requantize(sum, channel.multiplier, channel.shift).wrapping_add(zero);
                            let expected = scaled.max(low).min(high);
                            let found = i32::from(bytes[lane].cast_signed());
                            assert_eq!(found, expected, "{sum} by {channel:?}, {finish:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_byte_behind_the_last_is_written() {
        for count in 1..=16 {
            let mut bytes = [77u8; 32];
            // SAFETY: 16 bytes are writable.
            unsafe { store(vdupq_n_s8(-1), bytes.as_mut_ptr(), count) };
            assert!(
                bytes[..count].iter().all(|&byte| byte == 255)
                    && bytes[count..].iter().all(|&byte| byte == 77)
            );
        }
    }
}
