//! Depthwise convolutions: elements of two kernel rows are interleaved, so that a lane holds half of one channel's column of a window.

use core::arch::x86_64::*;

use super::super::geometry::Geometry;
use super::super::requantize::{self, Channel, Factors, Mode};
use super::super::walk::Walk;
use super::finish::{Finish, channel};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// Elements of a unit: two vectors of sums.
const UNIT: usize = 16;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise {
    walk: Walk,
    weights: usize,
    /// Bytes of weights of a phase.
    weights_of_phase: usize,
    factors: usize,
    finish: Finish,
    mode: Mode,
    constant_bytes: usize,
}

impl Depthwise {
    /// The layer. `weight(t, c)` is the weight of tap `t` and channel `c`. `None`: several outputs for an input channel.
    pub fn new(
        geometry: &Geometry,
        all: &[Channel],
        weight: &dyn Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let walk = Walk::new(geometry, input, output, UNIT, false)?;
        let (mode, floats) = requantize::mode(all, false);
        let mut weights: Vec<i16> = Vec::new();
        let mut factors: Vec<Factors> = Vec::new();
        for phase in 0..walk.phases {
            weights.extend(walk.weights(phase, 2, &channel, weight).into_iter().map(i16::from));
            let of = |l: usize| walk.channel(phase, channel(l)).map(|c| (all[c], floats[c]));
            factors.push(requantize::factors(mode, core::array::from_fn(of)));
        }
        Some(Self {
            weights_of_phase: 2 * weights.len() / walk.phases,
            weights: constants.push(&weights),
            factors: constants.push(&factors),
            finish: Finish::new(all)?,
            mode,
            constant_bytes: constants.bytes(),
            walk,
        })
    }

    /// Of `OUTPUTS` rows that share their input rows, the second has the second half of a phase's weights.
    ///
    /// # Safety
    /// The layer was checked against the arena and the constants.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn all<const MODE: u8, const OUTPUTS: usize>(&self, arena: *mut u8, constants: *const u8) {
        let walk = &self.walk;
        let [tap_rows, tap_columns] = walk.taps;
        let chunks = walk.chunks(2);
        for rows in &walk.rows {
            for unit in &walk.units {
                // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what units read behind it, which is the
                // arena's slack; weights and factors are those of the unit's phase.
                unsafe {
                    let weights = constants.add(self.weights + unit.phase as usize * self.weights_of_phase);
                    let factors: *const Factors = constants.add(self.factors).cast();
                    let factors = factors.add(unit.phase as usize);
                    let bias = |v: usize| _mm256_load_si256(factors.cast::<__m256i>().add(v));
                    let mut sums = [[bias(0), bias(1)]; OUTPUTS];
                    let input = arena.cast_const().add(rows.input + unit.input as usize);
                    // Rows of zero weight that would lie outside are the last one again.
                    let last = tap_rows - 1 + usize::from(OUTPUTS == 2 && rows.two);
                    for chunk in 0..chunks {
                        let place = |k: usize| input.add((2 * chunk + k).min(last) * walk.row);
                        let places = [place(0), place(1)];
                        for column in 0..tap_columns {
                            let load = |k: usize| _mm256_loadu_si256(places[k].add(column * walk.tap).cast());
                            let (first, second) = (load(0), load(1));
                            let taps =
                                [_mm256_unpacklo_epi16(first, second), _mm256_unpackhi_epi16(first, second)];
                            for (variant, sums) in sums.iter_mut().enumerate() {
                                let at = (variant * chunks + chunk) * tap_columns + column;
                                for (v, sum) in sums.iter_mut().enumerate() {
                                    let weights =
                                        _mm256_load_si256(weights.cast::<__m256i>().add(2 * at + v));
                                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(taps[v], weights));
                                }
                            }
                        }
                    }
                    let channels = unit.mask.count_ones() as usize;
                    let output = arena.add(rows.output + unit.output as usize);
                    self.finish.store::<MODE>(sums[0], factors, output, channels);
                    if OUTPUTS == 2 && rows.two {
                        let below = output.add(walk.output_row);
                        self.finish.store::<MODE>(sums[OUTPUTS - 1], factors, below, channels);
                    }
                }
            }
        }
    }
}

impl Layer for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.walk.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        macro_rules! of {
            ($mode:expr) => {
                // SAFETY: rows and units were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the
                // first `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
                unsafe {
                    if self.walk.two_rows {
                        self.all::<{ $mode as u8 }, 2>(arena, constants)
                    } else {
                        self.all::<{ $mode as u8 }, 1>(arena, constants)
                    }
                }
            };
        }
        match self.mode {
            Mode::Float => of!(Mode::Float),
            Mode::SignedFloat => of!(Mode::SignedFloat),
            Mode::Mixed => of!(Mode::Mixed),
            Mode::SignedMixed => of!(Mode::SignedMixed),
            Mode::Definition => of!(Mode::Definition),
            // Not asked for.
            Mode::Corrected | Mode::SignedCorrected | Mode::Twice | Mode::SignedTwice => return None,
        }
        Some(())
    }
}
