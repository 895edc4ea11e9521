//! Sums and maxima of bytes.

use core::arch::aarch64::*;

use super::requantize::store;
use crate::backend::vector::geometry::{Geometry, end, runs, same_elements, taps};
use crate::backend::vector::sum::Sum;
use crate::host::program::form::Image;
use crate::host::program::{Frame, Layer};

/// Bytes of a vector.
const UNIT: usize = 16;

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
        // The function takes bytes with 128 added.
        let [a, b] = sum.factors;
        let constant = sum.constant.wrapping_add(a.wrapping_add(b).wrapping_mul(128));
        same_elements(images).then(|| Self {
            sum: Sum { constant, ..sum },
            runs: runs(images),
            arena_bytes: end(first).max(end(second)).max(end(output)),
        })
    }

    /// # Safety
    /// Every run lies in the arena, followed by the arena's slack.
    unsafe fn all(&self, arena: *mut u8) {
        let Sum { factors: [a, b], constant, shift, bounds: [low, high] } = self.sum;
        for &([first, second, output], bytes) in &self.runs {
            for at in (0..bytes).step_by(UNIT) {
                // SAFETY: the caller's: a vector reads less than 16 bytes behind a run. Every processor has NEON.
                unsafe {
                    let load = |from: usize| {
                        let bytes = vld1q_s8(arena.add(from + at).cast());
                        [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
                    };
                    let (x, y) = (load(first), load(second));
                    let shift = vdupq_n_s32(-(shift as i32));
                    let four = |x: int32x4_t, y: int32x4_t| {
                        let sum = vmlaq_n_s32(vmlaq_n_s32(vdupq_n_s32(constant), x, a), y, b);
                        vshlq_s32(sum, shift)
                    };
                    let eight = |x: int16x8_t, y: int16x8_t| {
                        let low = four(vmovl_s16(vget_low_s16(x)), vmovl_s16(vget_low_s16(y)));
                        let high = four(vmovl_high_s16(x), vmovl_high_s16(y));
                        vqmovn_high_s32(vqmovn_s32(low), high)
                    };
                    let sums = vqmovn_high_s16(vqmovn_s16(eight(x[0], y[0])), eight(x[1], y[1]));
                    let sums = vminq_s8(vmaxq_s8(sums, vdupq_n_s8(low)), vdupq_n_s8(high));
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
        // SAFETY: images with their slack lie in the first `arena_bytes`.
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
    pub fn new(geometry: &Geometry, bounds: [i8; 2], [input, output]: [&Image; 2]) -> Self {
        Self {
            bounds,
            positions: geometry.positions(input, output),
            taps: taps(geometry, input),
            channels: geometry.window.outputs,
            arena_bytes: end(input).max(end(output)),
        }
    }

    /// # Safety
    /// Windows and outputs lie in the arena, followed by the arena's slack.
    unsafe fn all(&self, arena: *mut u8) {
        for &[input, output] in &self.positions {
            for at in (0..self.channels).step_by(UNIT) {
                // SAFETY: the caller's: a vector reads less than 16 bytes behind a pixel. Every processor has NEON.
                unsafe {
                    let [low, high] = self.bounds.map(|bound| vdupq_n_s8(bound));
                    let mut most = low;
                    for tap in &self.taps {
                        most = vmaxq_s8(most, vld1q_s8(arena.add(input + tap + at).cast()));
                    }
                    store(vminq_s8(most, high), arena.add(output + at), self.channels - at);
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
        // SAFETY: images with their slack lie in the first `arena_bytes`.
        unsafe { self.all(frame.arena.as_mut_ptr()) };
        Some(())
    }
}
