//! Depthwise convolutions of bytes: four kernel rows are interleaved, so that a lane holds one channel's column of a window.

use core::arch::aarch64::*;
use core::marker::PhantomData;

use super::arithmetic::{Bytes, Finish, unrolled};
use super::requantize::{Channel, Requantize};
use crate::backend::vector::geometry::Geometry;
use crate::backend::vector::walk::Walk;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// Elements of a unit: four vectors of sums.
const UNIT: usize = 16;
const VECTORS: usize = UNIT / 4;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise<A> {
    walk: Walk,
    weights: usize,
    /// Bytes of weights of a phase.
    weights_of_phase: usize,
    factors: usize,
    /// Bytes of factors of a phase.
    factors_of_phase: usize,
    finish: Requantize,
    constant_bytes: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Bytes> Depthwise<A> {
    /// The layer. `weight(t, c)` is the weight of tap `t` and channel `c`. `None`: several outputs for an input channel.
    pub fn new(
        geometry: &Geometry,
        all: &[Channel],
        finish: Requantize,
        weight: &dyn Fn(usize, usize) -> i8,
        [input, output]: [&Image; 2],
        constants: &mut Constants,
    ) -> Option<Self> {
        let walk = Walk::new(geometry, input, output, UNIT, false)?;
        let (mut weights, mut factors) = (Vec::new(), Vec::new());
        for phase in 0..walk.phases {
            weights.extend(walk.weights(phase, 4, &|lane| lane, weight));
            factors.extend(Requantize::factors(VECTORS, |lane| Some(all[walk.channel(phase, lane)?])));
        }
        Some(Self {
            weights_of_phase: weights.len() / walk.phases,
            weights: constants.push(&weights),
            factors_of_phase: 4 * factors.len() / walk.phases,
            factors: constants.push(&factors),
            finish,
            constant_bytes: constants.bytes(),
            walk,
            arithmetic: PhantomData,
        })
    }

    /// Runs the layer.
    ///
    /// # Safety
    /// The processor's features; the layer was checked against the arena and the constants.
    #[inline(always)]
    pub unsafe fn all(&self, arena: *mut u8, constants: *const u8) {
        // SAFETY: the caller's.
        unsafe {
            if self.walk.two_rows {
                self.rows::<2>(arena, constants);
            } else {
                self.rows::<1>(arena, constants);
            }
        }
    }

    /// Of `OUTPUTS` rows that share their input rows, the second has the second half of a phase's weights.
    ///
    /// # Safety
    /// As [`Depthwise::all`].
    #[inline(always)]
    unsafe fn rows<const OUTPUTS: usize>(&self, arena: *mut u8, constants: *const u8) {
        let walk = &self.walk;
        let [tap_rows, tap_columns] = walk.taps;
        let chunks = walk.chunks(4);
        for rows in &walk.rows {
            for unit in &walk.units {
                // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what units read behind it, which is the
                // arena's slack; weights and factors are those of the unit's phase.
                unsafe {
                    let phase = unit.phase as usize;
                    let weights = constants.add(self.weights + phase * self.weights_of_phase);
                    let factors = constants.add(self.factors + phase * self.factors_of_phase);
                    let mut sums = [[A::start(factors); VECTORS]; OUTPUTS];
                    unrolled!(o < OUTPUTS {
                        unrolled!(v < VECTORS { sums[o][v] = A::start(factors.add(16 * v)); });
                    });
                    let input = arena.cast_const().add(rows.input + unit.input as usize);
                    // Rows of zero weight that would lie outside are the last one again.
                    let bottom = tap_rows - 1 + usize::from(OUTPUTS == 2 && rows.two);
                    for chunk in 0..chunks {
                        let place = |k: usize| input.add((4 * chunk + k).min(bottom) * walk.row);
                        let places = [place(0), place(1), place(2), place(3)];
                        let first = weights.add(UNIT * 4 * chunk * tap_columns);
                        for column in 0..tap_columns {
                            let [a, b, c, d] = places;
                            let load = |place: *const u8| A::load(place.add(column * walk.tap));
                            let taps = interleave([load(a), load(b), load(c), load(d)]);
                            unrolled!(o < OUTPUTS {
                                let weights = first.add(UNIT * 4 * (o * chunks * tap_columns + column));
                                unrolled!(v < VECTORS {
                                    let weights = A::weights(weights.add(16 * v));
                                    sums[o][v] = A::multiply(sums[o][v], weights, taps[v]);
                                });
                            });
                        }
                    }
                    let mut totals = [[A::total(sums[0][0]); VECTORS]; OUTPUTS];
                    unrolled!(o < OUTPUTS { unrolled!(v < VECTORS { totals[o][v] = A::total(sums[o][v]); }); });
                    let mut last = [Requantize::load(factors, VECTORS, 0); VECTORS];
                    unrolled!(v < VECTORS { last[v] = Requantize::load(factors, VECTORS, v); });
                    let channels = unit.mask.count_ones() as usize;
                    let output = arena.add(rows.output + unit.output as usize);
                    self.finish.store(&totals[0], &last, output, channels);
                    if OUTPUTS == 2 && rows.two {
                        let below = output.add(walk.output_row);
                        self.finish.store(&totals[OUTPUTS - 1], &last, below, channels);
                    }
                }
            }
        }
    }
}

/// Brings the bytes of each channel side by side, in the order of rows and of channels.
#[inline(always)]
fn interleave([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
    // SAFETY: every processor has NEON.
    unsafe {
        let low = |x: int8x16_t, y: int8x16_t| vreinterpretq_s16_s8(vzip1q_s8(x, y));
        let high = |x: int8x16_t, y: int8x16_t| vreinterpretq_s16_s8(vzip2q_s8(x, y));
        let first = |x: int16x8_t, y: int16x8_t| vreinterpretq_s8_s16(vzip1q_s16(x, y));
        let last = |x: int16x8_t, y: int16x8_t| vreinterpretq_s8_s16(vzip2q_s16(x, y));
        let (ab, cd) = ([low(a, b), high(a, b)], [low(c, d), high(c, d)]);
        [first(ab[0], cd[0]), last(ab[0], cd[0]), first(ab[1], cd[1]), last(ab[1], cd[1])]
    }
}

impl<A: Bytes> Layer for Depthwise<A> {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.walk.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        // SAFETY: rows and units were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
        // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
        unsafe { A::depthwise(self, frame.arena.as_mut_ptr(), frame.constants.as_ptr()) };
        Some(())
    }
}
