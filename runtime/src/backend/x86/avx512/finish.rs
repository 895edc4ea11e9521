//! From accumulators to bytes.

use core::arch::x86_64::*;

use super::super::requantize::{
    CORRECTED, Channel, FLOAT, Factors, LANES, MIXED, SIGNED_CORRECTED, SIGNED_FLOAT, SIGNED_MIXED,
    SIGNED_TWICE, TWICE,
};

/// What the outputs of a layer are bounded by, and their zero point.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Zero point.
    pub zero: i16,
    /// Least output.
    pub low: i8,
    /// Greatest output.
    pub high: i8,
}

impl Bounds {
    /// Whether they exclude bytes.
    pub fn are_narrow(&self) -> bool {
        self.low > i8::MIN || self.high < i8::MAX
    }

    /// Those of a channel: all of a layer have the same.
    pub fn of(channel: &Channel) -> Self {
        Self { zero: channel.zero as i16, low: channel.low as i8, high: channel.high as i8 }
    }
}

/// Row `row` of factors.
///
/// # Safety
/// The row is readable and begins at a multiple of 64; not all rows need be there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn row(factors: *const Factors, row: usize) -> __m512i {
    // SAFETY: the caller's; a row has 64 bytes.
    unsafe { _mm512_load_si512(factors.cast::<[u32; LANES]>().add(1 + row).cast()) }
}

/// Requantises accumulators of 16 channels and adds the zero point, but for what exceptions add ([`words`]).
///
/// # Safety
/// The rows of `factors` that the mode reads ([`rows`](super::super::requantize::rows)) are there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub unsafe fn requantize<const MODE: u8, const SUMS: usize>(
    mut sums: [__m512i; SUMS],
    factors: *const Factors,
    bounds: &Bounds,
) -> [__m512i; SUMS] {
    // SAFETY: the caller's.
    let row = |k: usize| unsafe { row(factors, k) };
    // The high halves of two products of 64 bits.
    let high = |even: __m512i, odd: __m512i| _mm512_mask_shuffle_epi32::<0xF5>(odd, 0x5555, even);
    let float = |k: usize| _mm512_castsi512_ps(row(k));
    // SAFETY: the caller's.
    let product = matches!(MODE, MIXED | SIGNED_MIXED) && unsafe { (*factors)[4][0] } != 0;
    let rectified = |sum: __m512i| {
        let odd = _mm512_srli_epi64::<32>(sum);
        let even = _mm512_add_epi64(_mm512_mul_epi32(sum, row(0)), row(2));
        let odd = _mm512_add_epi64(_mm512_mul_epi32(odd, row(1)), row(3));
        _mm512_srav_epi32(high(even, odd), row(4))
    };
    let signed = |sum: __m512i| {
        let twice = _mm512_add_epi32(sum, sum);
        let odd = _mm512_srli_epi64::<32>(twice);
        let even = _mm512_add_epi64(_mm512_mul_epi32(twice, row(0)), row(2));
        let odd = _mm512_add_epi64(_mm512_mul_epi32(odd, row(1)), row(3));
        let rounded = _mm512_add_epi32(high(even, odd), _mm512_srai_epi32::<31>(sum));
        _mm512_srav_epi32(rounded, row(4))
    };
    let scaled =
        |sum: __m512i| _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), float(0), float(1)));
    let scaled_by_sign = |sum: __m512i| {
        let constant = _mm512_mask_blend_ps(_mm512_movepi32_mask(sum), float(1), float(4));
        _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), float(0), constant))
    };
    let defined = |sum: __m512i| {
        let sum = _mm512_sllv_epi32(sum, row(2));
        let half = _mm512_set1_epi64(1 << 30);
        let even = _mm512_add_epi64(_mm512_mul_epi32(sum, row(0)), half);
        let odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64::<32>(sum), row(1)), half);
        let even = _mm512_srli_epi64::<31>(even);
        let product = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64::<1>(odd));
        let right = row(3);
        let ones = _mm512_set1_epi32(1);
        let mask = _mm512_sub_epi32(_mm512_sllv_epi32(ones, right), ones);
        let rest = _mm512_and_si512(product, mask);
        let threshold = _mm512_add_epi32(_mm512_srli_epi32::<1>(mask), _mm512_srli_epi32::<31>(product));
        let shifted = _mm512_srav_epi32(product, right);
        let result = _mm512_mask_add_epi32(shifted, _mm512_cmpgt_epi32_mask(rest, threshold), shifted, ones);
        // Modulo 2^32, as the definition has it.
        _mm512_add_epi32(result, _mm512_set1_epi32(bounds.zero.into()))
    };
    // Loops, for what arrays do with closures is not always inlined.
    match MODE {
        MIXED if product => {
            for sum in &mut sums {
                *sum = rectified(*sum);
            }
        }
        SIGNED_MIXED if product => {
            for sum in &mut sums {
                *sum = signed(*sum);
            }
        }
        FLOAT | MIXED | CORRECTED | TWICE => {
            for sum in &mut sums {
                *sum = scaled(*sum);
            }
        }
        SIGNED_FLOAT | SIGNED_MIXED | SIGNED_CORRECTED | SIGNED_TWICE => {
            for sum in &mut sums {
                *sum = scaled_by_sign(*sum);
            }
        }
        _ => {
            for sum in &mut sums {
                *sum = defined(*sum);
            }
        }
    }
    sums
}

/// Requantises two vectors and packs them to words. Exceptions are found without comparisons to masks, which take the ports of products.
///
/// # Safety
/// As [`requantize`], for the factors of each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub unsafe fn words<const MODE: u8>(
    [a, b]: [__m512i; 2],
    [of_a, of_b]: [*const Factors; 2],
    bounds: &Bounds,
) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let [low] = requantize::<MODE, 1>([a], of_a, bounds);
        let [high] = requantize::<MODE, 1>([b], of_b, bounds);
        let words = _mm512_packs_epi32(low, high);
        if !matches!(MODE, CORRECTED | SIGNED_CORRECTED | TWICE | SIGNED_TWICE) {
            return words;
        }
        // 0 for exceptions alone, in words as well, for saturation leaves what is not 0.
        let rest = |sum: __m512i, factors: *const Factors| {
            let one = _mm512_xor_si512(sum, row(factors, 2));
            if matches!(MODE, CORRECTED | SIGNED_CORRECTED) {
                return one;
            }
            _mm512_min_epu32(one, _mm512_xor_si512(sum, row(factors, 3)))
        };
        let rest = _mm512_packs_epi32(rest(a, of_a), rest(b, of_b));
        let ones = _mm512_set1_epi16(1);
        // Where 1 is added, the sum is within the bounds.
        _mm512_add_epi16(words, _mm512_xor_si512(_mm512_min_epu16(rest, ones), ones))
    }
}

/// Where each four bytes of what was packed come from, so that positions of some vectors stand side by side.
pub const fn order(vectors: usize) -> [u32; LANES] {
    match vectors {
        1 => [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15],
        2 => [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15],
        3 => [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15],
        _ => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    }
}

/// Packs four vectors to bytes with 128 added: bytes of one 128-bit lane are of those lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn pack([a, b, c, d]: [__m512i; 4], bounds: &Bounds) -> __m512i {
    pack_halves(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d), bounds)
}

/// As [`pack`], for what is packed to words.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn pack_halves(low: __m512i, high: __m512i, bounds: &Bounds) -> __m512i {
    let mut bytes = _mm512_packs_epi16(low, high);
    if bounds.are_narrow() {
        bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(bounds.low));
        bytes = _mm512_min_epi8(bytes, _mm512_set1_epi8(bounds.high));
    }
    _mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN))
}
