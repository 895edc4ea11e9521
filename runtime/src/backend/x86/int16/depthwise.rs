//! Depthwise convolutions: words of two kernel rows are interleaved, so that a lane holds half of one channel's column of a window.

use core::marker::PhantomData;

use super::super::lanes::{Arithmetic, Lanes};
use super::interleaved;
use super::requantize::{self, Bounds, Channel, ROWS, are_products, biases, requantize};
use crate::backend::vector::geometry::Geometry;
use crate::backend::vector::walk::Walk;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise<A> {
    walk: Walk,
    weights: usize,
    /// Bytes of weights of a phase.
    weights_of_phase: usize,
    constants: usize,
    bounds: Bounds,
    product: bool,
    constant_bytes: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Depthwise<A> {
    /// The layer. `weight(t, c)` is the weight of tap `t` and channel `c`. `None`: several outputs for an input channel, or inputs of 8 bits.
    pub fn new(
        geometry: &Geometry,
        bounds: Bounds,
        all: &[Channel],
        weight: &dyn Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        if A::INPUT != 2 {
            return None;
        }
        let lanes = A::Sums::COUNT;
        let walk = Walk::new(geometry, input, output, 2 * lanes, false)?;
        let product = are_products(all);
        let mut weights: Vec<i16> = Vec::new();
        let mut rows = Vec::new();
        for phase in 0..walk.phases {
            let of_phase = walk.weights(phase, 2, &interleaved::<A::Sums>, weight);
            weights.extend(of_phase.into_iter().map(i16::from));
            for register in 0..2 {
                let channel = |l: usize| {
                    let element = interleaved::<A::Sums>(register * lanes + l);
                    walk.channel(phase, element).and_then(|c| all.get(c).copied())
                };
                rows.extend(requantize::constants::<A::Sums>(product, &bounds, channel));
            }
        }
        Some(Self {
            weights_of_phase: 2 * weights.len() / walk.phases,
            weights: constants.push(&weights),
            constants: constants.push(&rows),
            bounds,
            product,
            constant_bytes: constants.bytes(),
            walk,
            arithmetic: PhantomData,
        })
    }

    /// Of `OUTPUTS` rows that share their input rows, the second has the second half of a phase's weights.
    ///
    /// # Safety
    /// The instruction set of `A`; the walk's images lie in the arena, weights and constants of the layer in `constants`.
    #[inline(always)]
    unsafe fn all<const OUTPUTS: usize, const PRODUCT: bool>(&self, arena: *mut u8, constants: *const u8) {
        let walk = &self.walk;
        let lanes = A::Sums::COUNT;
        let [tap_rows, tap_columns] = walk.taps;
        let chunks = walk.chunks(2);
        for rows in &walk.rows {
            for unit in &walk.units {
                // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what units read behind it, which is the
                // arena's slack; weights and constants are those of the unit's phase.
                unsafe {
                    let phase = unit.phase as usize;
                    let weights: *const i32 =
                        constants.add(self.weights + phase * self.weights_of_phase).cast();
                    let constants: *const i32 = constants.add(self.constants).cast();
                    let constants =
                        [0, 1].map(|register| constants.add((2 * phase + register) * ROWS * lanes));
                    let mut sums = [[biases(constants[0]), biases(constants[1])]; OUTPUTS];
                    let input = arena.cast_const().add(rows.input + unit.input as usize);
                    // Rows of zero weight that would lie outside are the last one again.
                    let last = tap_rows - 1 + usize::from(OUTPUTS == 2 && rows.two);
                    for chunk in 0..chunks {
                        let first = input.add((2 * chunk).min(last) * walk.row);
                        let second = input.add((2 * chunk + 1).min(last) * walk.row);
                        for column in 0..tap_columns {
                            let at = column * walk.tap;
                            let taps = A::Sums::interleave(
                                A::Sums::load(first.add(at).cast()),
                                A::Sums::load(second.add(at).cast()),
                            );
                            for (variant, sums) in sums.iter_mut().enumerate() {
                                let at = 2 * ((variant * chunks + chunk) * tap_columns + column) * lanes;
                                for (r, sum) in sums.iter_mut().enumerate() {
                                    let weights = A::Sums::load(weights.add(at + r * lanes));
                                    *sum = A::dot(*sum, taps[r], weights);
                                }
                            }
                        }
                    }
                    let channels = unit.mask.count_ones() as usize;
                    let output = arena.add(rows.output + unit.output as usize);
                    // Both rows are finished before one is stored, so that constants are read once.
                    for sums in &mut sums {
                        for (sum, constants) in sums.iter_mut().zip(constants) {
                            *sum = requantize::<_, PRODUCT>(*sum, constants, &self.bounds);
                        }
                    }
                    for (row, pair) in sums.into_iter().take(if rows.two { 2 } else { 1 }).enumerate() {
                        let output = output.add(row * walk.output_row);
                        if self.bounds.bytes {
                            A::Sums::store_pair_bytes(output, channels, pair);
                        } else {
                            A::Sums::store_pair_words(output, channels, pair);
                        }
                    }
                }
            }
        }
    }
}

impl<A: Arithmetic> Layer for Depthwise<A> {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_i16"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.walk.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        macro_rules! of {
            ($outputs:literal, $product:literal) => {
                // SAFETY: rows and units were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the
                // first `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
                unsafe {
                    A::with(
                        #[inline(always)]
                        || self.all::<$outputs, $product>(arena, constants),
                    )
                }
            };
        }
        match (self.walk.two_rows, self.product) {
            (true, true) => of!(2, true),
            (true, false) => of!(2, false),
            (false, true) => of!(1, true),
            (false, false) => of!(1, false),
        }
        Some(())
    }
}
