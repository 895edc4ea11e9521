//! Sums and maxima of bytes with 128 added, stored in 16 bits.

use core::arch::x86_64::*;

use super::super::geometry::{Geometry, end, runs, same_elements, taps};
use super::super::sum::Sum;
use super::finish::store_some;
use crate::host::program::form::Image;
use crate::host::program::{Frame, Layer};

/// Bytes of a vector.
const UNIT: usize = 32;

/// Stores the first bytes of a vector, at most all.
///
/// # Safety
/// They are writable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store(values: __m256i, place: *mut u8, bytes: usize) {
    // SAFETY: the caller's; the vector has 32 bytes.
    unsafe {
        if bytes >= UNIT {
            _mm256_storeu_si256(place.cast(), values);
        } else {
            store_some(values, place, bytes);
        }
    }
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

    /// # Safety
    /// Every run lies in the arena, followed by the arena's slack.
    #[target_feature(enable = "avx2")]
    unsafe fn all(&self, arena: *mut u8) {
        let Sum { factors: [a, b], constant, shift, bounds: [low, high] } = self.sum;
        let (a, b, c) = (_mm256_set1_epi32(a), _mm256_set1_epi32(b), _mm256_set1_epi32(constant));
        let shift = _mm_cvtsi32_si128(shift as i32);
        let (low, high) = (_mm256_set1_epi16(low.into()), _mm256_set1_epi16(high.into()));
        for &([first, second, output], bytes) in &self.runs {
            for at in (0..bytes).step_by(UNIT) {
                // SAFETY: the caller's: a vector reads less than 32 bytes behind a run.
                unsafe {
                    let half = |k: usize| {
                        let load = |from: usize| {
                            _mm256_cvtepi16_epi32(_mm_loadu_si128(arena.add(from + at + 16 * k).cast()))
                        };
                        let products =
                            (_mm256_mullo_epi32(load(first), a), _mm256_mullo_epi32(load(second), b));
                        let sum = _mm256_add_epi32(_mm256_add_epi32(products.0, c), products.1);
                        _mm256_sra_epi32(sum, shift)
                    };
                    let sums =
                        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(half(0), half(1)));
                    let sums = _mm256_min_epi16(_mm256_max_epi16(sums, low), high);
                    let sums = _mm256_add_epi16(sums, _mm256_set1_epi16(128));
                    store(sums, arena.add(output + at), bytes - at);
                }
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
    /// Of a pixel.
    bytes: usize,
    arena_bytes: usize,
}

impl MaxPool {
    /// The layer.
    pub fn new(geometry: &Geometry, bounds: [i8; 2], input: &Image, output: &Image) -> Option<Self> {
        Some(Self {
            bounds,
            positions: geometry.positions(input, output),
            taps: taps(geometry, input),
            bytes: output.pixel(),
            arena_bytes: end(input).max(end(output)),
        })
    }

    /// # Safety
    /// Windows and outputs lie in the arena, followed by the arena's slack.
    #[target_feature(enable = "avx2")]
    unsafe fn all(&self, arena: *mut u8) {
        let [low, high] = self.bounds.map(|bound| _mm256_set1_epi16(i16::from(bound) + 128));
        for &[input, output] in &self.positions {
            for at in (0..self.bytes).step_by(UNIT) {
                let mut most = low;
                // SAFETY: the caller's: a vector reads less than 32 bytes behind a pixel.
                unsafe {
                    for tap in &self.taps {
                        most = _mm256_max_epi16(most, _mm256_loadu_si256(arena.add(input + tap + at).cast()));
                    }
                    store(_mm256_min_epi16(most, high), arena.add(output + at), self.bytes - at);
                }
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
