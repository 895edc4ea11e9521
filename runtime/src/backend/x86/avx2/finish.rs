//! From 16 accumulators to bytes with 128 added, in 16 bits.

use core::arch::x86_64::*;

use super::super::requantize::{Channel, DEFINITION, Factors, LANES, MIXED, SIGNED_MIXED};
use crate::quant;

/// The channel of a group that stands in a lane of its two vectors: packing to 16 bits leaves them natural.
pub fn channel(lane: usize) -> usize {
    let (vector, lane) = (lane / 8, lane % 8);
    lane / 4 * 8 + vector * 4 + lane % 4
}

/// How a group of channels is finished.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    zero: i16,
    low: i16,
    high: i16,
}

impl Finish {
    /// For these channels.
    pub fn new(channels: &[Channel]) -> Option<Self> {
        let first = channels.first()?;
        Some(Self { zero: first.zero as i16, low: first.low as i16, high: first.high as i16 })
    }

    /// Requantises 16 sums and stores those of `channels`.
    ///
    /// # Safety
    /// `factors` is readable and of the mode; two bytes are writable for each channel.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn store<const MODE: u8>(
        &self,
        sums: [__m256i; 2],
        factors: *const Factors,
        place: *mut u8,
        channels: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let [a, b] = match MODE {
                DEFINITION => self.by_definition(sums, factors),
                // The factors of a group are of one kind.
                MIXED | SIGNED_MIXED if (*factors)[4][0] != 0 => {
                    let sign = if MODE == SIGNED_MIXED { 1 } else { 0 };
                    [product(sums[0], factors, 0, sign), product(sums[1], factors, 1, sign)]
                }
                _ => [float(sums[0], factors, 0), float(sums[1], factors, 1)],
            };
            let values = _mm256_packs_epi32(a, b);
            let values = _mm256_max_epi16(values, _mm256_set1_epi16(self.low));
            let values = _mm256_min_epi16(values, _mm256_set1_epi16(self.high));
            let values = _mm256_add_epi16(values, _mm256_set1_epi16(128));
            if channels == LANES {
                _mm256_storeu_si256(place.cast(), values);
            } else {
                store_some(values, place, 2 * channels);
            }
        }
    }

    /// # Safety
    /// `factors` is readable.
    #[target_feature(enable = "avx2")]
    #[cold]
    unsafe fn by_definition(&self, sums: [__m256i; 2], factors: *const Factors) -> [__m256i; 2] {
        let mut all = [0i32; LANES];
        // SAFETY: the caller's; 64 bytes are stored and loaded.
        unsafe {
            _mm256_storeu_si256(all.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(all.as_mut_ptr().add(8).cast(), sums[1]);
            for (lane, sum) in all.iter_mut().enumerate() {
                let [multiplier, left, right] = [1, 3, 4].map(|k| (*factors)[k][lane] as i32);
                *sum = quant::requantize(*sum, multiplier, left - right).wrapping_add(self.zero.into());
            }
            [_mm256_loadu_si256(all.as_ptr().cast()), _mm256_loadu_si256(all.as_ptr().add(8).cast())]
        }
    }
}

/// Eight of row `k` of factors.
///
/// # Safety
/// `factors` is readable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn row(factors: *const Factors, k: usize, half: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_load_si256(factors.cast::<__m256i>().add(2 * k + half)) }
}

/// # Safety
/// `factors` is readable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn product(sum: __m256i, factors: *const Factors, half: usize, sign: i32) -> __m256i {
    // SAFETY: the caller's.
    let row = |k: usize| unsafe { row(factors, 1 + k, half) };
    let factor = if sign == 1 { _mm256_add_epi32(sum, sum) } else { sum };
    let odd = _mm256_srli_epi64::<32>(factor);
    let even = _mm256_add_epi64(_mm256_mul_epi32(factor, row(0)), row(2));
    let odd = _mm256_add_epi64(_mm256_mul_epi32(odd, row(1)), row(3));
    let mut high = _mm256_blend_epi32::<0xAA>(_mm256_srli_epi64::<32>(even), odd);
    if sign == 1 {
        high = _mm256_add_epi32(high, _mm256_srai_epi32::<31>(sum));
    }
    _mm256_srav_epi32(high, row(4))
}

/// # Safety
/// `factors` is readable.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn float(sum: __m256i, factors: *const Factors, half: usize) -> __m256i {
    // SAFETY: the caller's.
    let row = |k: usize| unsafe { _mm256_castsi256_ps(row(factors, 1 + k, half)) };
    let constant = _mm256_blendv_ps(row(1), row(4), _mm256_castsi256_ps(sum));
    _mm256_cvtps_epi32(_mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), row(0), constant))
}

/// Stores the first bytes of a vector, less than all.
///
/// # Safety
/// They are writable.
#[target_feature(enable = "avx2")]
#[cold]
pub unsafe fn store_some(values: __m256i, place: *mut u8, bytes: usize) {
    let mut all = [0u8; 32];
    // SAFETY: the caller's; the vector has 32 bytes.
    unsafe {
        _mm256_storeu_si256(all.as_mut_ptr().cast(), values);
        core::ptr::copy_nonoverlapping(all.as_ptr(), place, bytes.min(32));
    }
}
