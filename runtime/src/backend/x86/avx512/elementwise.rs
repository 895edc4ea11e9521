//! Sums and maxima of bytes.

use core::arch::x86_64::*;

use super::super::geometry::{Geometry, end, runs, same_elements, taps};
use super::super::sum::Sum;
use crate::host::program::form::Image;
use crate::host::program::{Frame, Layer};

/// Bytes of a vector.
const UNIT: usize = 64;

/// Bits of a sum's shift that are left for words. Saturating to words changes no sum: with six bits they hold all bytes.
const LEFT: u32 = 6;

/// The lowest `bytes` bits.
fn mask(bytes: usize) -> u64 {
    if bytes >= UNIT { !0 } else { (1 << bytes) - 1 }
}

/// Sum of two images.
#[derive(Debug)]
pub struct Add {
    sum: Sum,
    runs: Vec<([usize; 3], usize)>,
    arena_bytes: usize,
}

impl Add {
    /// The layer. `None`: extents differ.
    pub fn new(sum: Sum, [first, second]: [&Image; 2], output: &Image) -> Option<Self> {
        let images = [first, second, output];
        same_elements(images).then(|| Self {
            sum,
            runs: runs(images),
            arena_bytes: end(first).max(end(second)).max(end(output)),
        })
    }

    /// Factors go in two words each, all but six bits of the shift in the low one: products with the low words lose these bits before those with the
    /// high words are added, which leaves the bits of one shift. What is left, nine bits and six, fits words.
    ///
    /// # Safety
    /// Every run lies in the arena, followed by the arena's slack.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn all(&self, arena: *mut u8) {
        let Sum { factors: [a, b], constant, shift, bounds: [low, high] } = self.sum;
        let pair = |a: i32, b: i32| _mm512_set1_epi32(a & 0xFFFF | b << 16);
        let bits = shift - LEFT;
        let rest = (1 << bits) - 1;
        let (lows, highs) = (pair(a & rest, b & rest), pair(a >> bits, b >> bits));
        let constant = _mm512_set1_epi32(constant);
        let bits = _mm_cvtsi32_si128(bits as i32);
        let (low, high) = (_mm512_set1_epi8(low), _mm512_set1_epi8(high));
        let zero = _mm512_setzero_si512();
        for &([first, second, output], bytes) in &self.runs {
            let mut at = 0;
            while at < bytes {
                // SAFETY: the caller's: a vector reads less than 64 bytes behind a run, and writes the bytes of the mask.
                unsafe {
                    let load = |from: usize| _mm512_loadu_si512(arena.add(from + at).cast());
                    let (x, y) = (load(first), load(second));
                    // Bytes of both in pairs, then words.
                    let (near, far) = (_mm512_unpacklo_epi8(x, y), _mm512_unpackhi_epi8(x, y));
                    let sum = |pairs: __m512i| {
                        let sum = _mm512_sra_epi32(_mm512_dpwssd_epi32(constant, pairs, lows), bits);
                        _mm512_dpwssd_epi32(sum, pairs, highs)
                    };
                    let words = |pairs: __m512i| {
                        let (low, high) =
                            (_mm512_unpacklo_epi8(pairs, zero), _mm512_unpackhi_epi8(pairs, zero));
                        _mm512_srai_epi16::<LEFT>(_mm512_packs_epi32(sum(low), sum(high)))
                    };
                    let sums = _mm512_packs_epi16(words(near), words(far));
                    let sums = _mm512_min_epi8(_mm512_max_epi8(sums, low), high);
                    let sums = _mm512_xor_si512(sums, _mm512_set1_epi8(i8::MIN));
                    let place = arena.add(output + at);
                    if bytes - at >= UNIT {
                        _mm512_storeu_si512(place.cast(), sums);
                    } else {
                        _mm512_mask_storeu_epi8(place.cast(), mask(bytes - at), sums);
                    }
                }
                at += UNIT;
            }
        }
    }
}

impl Layer for Add {
    fn name(&self) -> &'static str {
        "add_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes {
            return None;
        }
        // SAFETY: images with their slack lie in the first `arena_bytes`. Layers are made where the processor has the features.
        unsafe { self.all(frame.arena.as_mut_ptr()) };
        Some(())
    }
}

/// Maximum over windows without padding.
#[derive(Debug)]
pub struct MaxPool {
    bounds: [i8; 2],
    positions: Vec<[usize; 2]>,
    /// From a window's first tap to each.
    taps: Vec<usize>,
    channels: usize,
    arena_bytes: usize,
}

impl MaxPool {
    /// The layer.
    pub fn new(geometry: &Geometry, bounds: [i8; 2], input: &Image, output: &Image) -> Option<Self> {
        Some(Self {
            bounds,
            positions: geometry.positions(input, output),
            taps: taps(geometry, input),
            channels: geometry.window.outputs,
            arena_bytes: end(input).max(end(output)),
        })
    }

    /// # Safety
    /// Windows and outputs lie in the arena, followed by the arena's slack.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn all(&self, arena: *mut u8) {
        // With 128 added, bytes are compared without sign.
        let [low, high] =
            self.bounds.map(|bound| _mm512_set1_epi8((bound.cast_unsigned() ^ 0x80).cast_signed()));
        for &[input, output] in &self.positions {
            let mut at = 0;
            while at < self.channels {
                let mut most = low;
                // SAFETY: the caller's: a vector reads less than 64 bytes behind a pixel, and writes the bytes of the mask.
                unsafe {
                    for tap in &self.taps {
                        most = _mm512_max_epu8(most, _mm512_loadu_si512(arena.add(input + tap + at).cast()));
                    }
                    most = _mm512_min_epu8(most, high);
                    let place = arena.add(output + at);
                    if self.channels - at >= UNIT {
                        _mm512_storeu_si512(place.cast(), most);
                    } else {
                        _mm512_mask_storeu_epi8(place.cast(), mask(self.channels - at), most);
                    }
                }
                at += UNIT;
            }
        }
    }
}

impl Layer for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes {
            return None;
        }
        // SAFETY: images with their slack lie in the first `arena_bytes`. Layers are made where the processor has the features.
        unsafe { self.all(frame.arena.as_mut_ptr()) };
        Some(())
    }
}
