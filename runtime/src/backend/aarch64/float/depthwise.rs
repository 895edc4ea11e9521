//! Depthwise convolutions: a tile is some positions times some vectors of four channels.

use core::arch::aarch64::*;

use super::super::arithmetic::unrolled;
use super::{clamp, load, store};
use crate::backend::vector::geometry::{Geometry, end};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};
use crate::ops::linear;
use crate::ops::window::Window;

/// Vectors of a group, positions of a tile.
const VECTORS: usize = 4;
const POSITIONS: usize = 4;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise {
    positions: Vec<[usize; 2]>,
    /// From a window's first tap to each.
    taps: Vec<usize>,
    channels: usize,
    bounds: [f32; 2],
    /// For each group of [`VECTORS`] or, last, fewer: bias, then weights `[tap][vector][channel]`.
    constants: usize,
    arena_bytes: usize,
    constant_bytes: usize,
}

/// Where a tile reads and writes.
struct Tile<'a> {
    layer: &'a Depthwise,
    arena: *mut u8,
    constants: *const u8,
    /// Bytes to the first channel, and channels that are there.
    at: usize,
    channels: usize,
}

impl Depthwise {
    /// The layer; the weights of a tap stand side by side.
    pub fn new(
        geometry: &Geometry,
        linear: &linear::Float<'_>,
        [input, output]: [&Image; 2],
        constants: &mut Constants,
    ) -> Option<Self> {
        let channels = geometry.window.outputs;
        let Window { rows, columns, .. } = &geometry.window;
        let (down, right) = (rows.dilation * input.row(), columns.dilation * input.pixel());
        let row = |y: usize| (0..columns.kernel).map(move |x| y * down + x * right);
        let taps: Vec<usize> = (0..rows.kernel).flat_map(row).collect();
        let mut packed: Vec<f32> = Vec::new();
        for first in (0..channels).step_by(4 * VECTORS) {
            let lanes = (channels - first).min(4 * VECTORS).next_multiple_of(4);
            let there = |lane: usize| Some(first + lane).filter(|c| *c < channels);
            packed.extend((0..lanes).map(|lane| there(lane).map_or(0.0, |c| linear.bias[c])));
            for tap in 0..taps.len() {
                let weight = |c: usize| linear.weights[tap * channels + c];
                packed.extend((0..lanes).map(|lane| there(lane).map_or(0.0, weight)));
            }
        }
        Some(Self {
            positions: geometry.positions(input, output),
            taps,
            channels,
            bounds: [linear.low, linear.high],
            constants: constants.push(&packed),
            arena_bytes: end(input).max(end(output)),
            constant_bytes: constants.bytes(),
        })
    }
}

/// # Safety
/// The layer was checked against the arena and the constants, and they are those of a group of `N` vectors.
unsafe fn group<const N: usize>(tile: &Tile<'_>) {
    let (blocks, rest) = tile.layer.positions.as_chunks::<POSITIONS>();
    // SAFETY: the caller's.
    unsafe {
        blocks.iter().for_each(|positions| block::<N, POSITIONS>(tile, positions));
        rest.iter().for_each(|&position| block::<N, 1>(tile, &[position]));
    }
}

/// # Safety
/// As [`group`].
#[inline(always)]
unsafe fn block<const N: usize, const P: usize>(tile: &Tile<'_>, positions: &[[usize; 2]; P]) {
    let &Tile { layer, arena, constants, at, channels } = tile;
    // SAFETY: the caller's: windows lie in the layer's image, but for what a vector reads behind it, which is the arena's slack; there is a vector
    // of bias, and one of weights for each tap, in every one of `N`.
    unsafe {
        let mut windows = [arena.cast_const(); P];
        let mut sums = [[load(constants); N]; P];
        unrolled!(p < P {
            windows[p] = windows[p].add(positions[p][0] + at);
            unrolled!(n < N { sums[p][n] = load(constants.add(16 * n)); });
        });
        let mut weights = constants;
        for &tap in &layer.taps {
            weights = weights.add(16 * N);
            unrolled!(n < N {
                let weights = load(weights.add(16 * n));
                unrolled!(p < P {
                    sums[p][n] = vfmaq_f32(sums[p][n], load(windows[p].add(tap + 16 * n)), weights);
                });
            });
        }
        unrolled!(p < P {
            let output = arena.add(positions[p][1] + at);
            unrolled!(n < N {
                store(clamp(layer.bounds, sums[p][n]), output.add(16 * n), channels - 4 * n);
            });
        });
    }
}

impl Layer for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_f32"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let arena = frame.arena.as_mut_ptr();
        let mut constants = frame.constants.as_ptr().wrapping_add(self.constants);
        for first in (0..self.channels).step_by(4 * VECTORS) {
            let channels = (self.channels - first).min(4 * VECTORS);
            let vectors = channels.div_ceil(4);
            let tile = Tile { layer: self, arena, constants, at: 4 * first, channels };
            // SAFETY: positions and taps were made of images that lie in the first `arena_bytes` of the arena with their slack, constants lie in the
            // first `constant_bytes`; both were checked above.
            unsafe {
                match vectors {
                    1 => group::<1>(&tile),
                    2 => group::<2>(&tile),
                    3 => group::<3>(&tile),
                    _ => group::<VECTORS>(&tile),
                }
            }
            constants = constants.wrapping_add(16 * vectors * (1 + self.taps.len()));
        }
        Some(())
    }
}
