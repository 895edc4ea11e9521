//! Depthwise convolutions: bytes of four kernel rows are interleaved, so that a lane holds one channel's column of a window.
//!
//! Two output rows share the interleaved columns where four input rows hold both windows; 3x3 windows that slide along a row share them too
//! ([`super::slide`]).

use core::arch::x86_64::*;

use super::super::geometry::Geometry;
use super::super::requantize::{self, Channel, Factors, LANES, Mode};
use super::super::walk::Walk;
use super::conv::channel;
use super::finish::{Bounds, pack, requantize};
use super::slide;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// Bytes of a unit.
pub const UNIT: usize = 64;

/// Everything that a kernel needs.
pub struct Call<'a> {
    /// Where it reads and writes.
    pub walk: &'a Walk,
    /// The arena.
    pub arena: *mut u8,
    weights: *const u8,
    weights_of_phase: usize,
    factors: *const Factors,
    /// Of the outputs.
    pub bounds: &'a Bounds,
}

impl Call<'_> {
    /// Weights and factors of a phase.
    ///
    /// # Safety
    /// The call has the phase.
    pub unsafe fn phase(&self, phase: u32) -> (*const __m512i, *const Factors) {
        // SAFETY: the caller's.
        unsafe {
            let weights = self.weights.add(phase as usize * self.weights_of_phase);
            (weights.cast(), self.factors.add(4 * phase as usize))
        }
    }
}

pub type Kernel = unsafe fn(&Call<'_>);

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise {
    kernel: Kernel,
    walk: Walk,
    weights: usize,
    /// Bytes of weights of a phase.
    weights_of_phase: usize,
    factors: usize,
    bounds: Bounds,
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
        let walk = Walk::new(geometry, input, output, UNIT, true)?;
        let (mode, floats) = requantize::mode(all, false);
        let lane = |l: usize| channel(4, l / LANES, l % LANES);
        let mut weights: Vec<i8> = Vec::new();
        let mut factors: Vec<Factors> = Vec::new();
        for phase in 0..walk.phases {
            weights.extend(walk.weights(phase, 4, &lane, weight));
            for v in 0..4 {
                let of = |l: usize| walk.channel(phase, lane(v * LANES + l)).map(|c| (all[c], floats[c]));
                factors.push(requantize::factors(mode, core::array::from_fn(of)));
            }
        }
        Some(Self {
            kernel: match walk.slide {
                Some(slide) => slide::kernel(mode, &slide)?,
                None => kernel(mode, walk.two_rows)?,
            },
            weights_of_phase: weights.len() / walk.phases,
            weights: constants.push(&weights),
            factors: constants.push(&factors),
            bounds: Bounds::of(all.first()?),
            constant_bytes: constants.bytes(),
            walk,
        })
    }
}

/// The kernel of a mode, for any windows.
fn kernel(mode: Mode, two_rows: bool) -> Option<Kernel> {
    macro_rules! of {
        ($mode:expr) => {
            if two_rows { windows::<{ $mode }, 2> as Kernel } else { windows::<{ $mode }, 1> }
        };
    }
    Some(match mode {
        Mode::Float => of!(requantize::FLOAT),
        Mode::SignedFloat => of!(requantize::SIGNED_FLOAT),
        Mode::Mixed => of!(requantize::MIXED),
        Mode::SignedMixed => of!(requantize::SIGNED_MIXED),
        Mode::Definition => of!(requantize::DEFINITION),
        // Not asked for.
        Mode::Corrected | Mode::SignedCorrected | Mode::Twice | Mode::SignedTwice => return None,
    })
}

/// Interleaves the bytes of four rows: vector `j` holds those of bytes `4 j .. 4 j + 4` of each 128-bit lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low_2, high_2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low, low_2),
        _mm512_unpackhi_epi16(low, low_2),
        _mm512_unpacklo_epi16(high, high_2),
        _mm512_unpackhi_epi16(high, high_2),
    ]
}

/// Requantises and stores a unit.
///
/// # Safety
/// `factors` has four entries of the mode; the bytes of the mask are writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn store<const MODE: u8>(
    sums: [__m512i; 4],
    factors: *const Factors,
    bounds: &Bounds,
    output: *mut u8,
    mask: u64,
) {
    // SAFETY: the caller's.
    unsafe {
        let value = |v: usize| requantize::<MODE, 1>([sums[v]], factors.add(v), bounds)[0];
        store_bytes(pack([value(0), value(1), value(2), value(3)], bounds), output, mask);
    }
}

/// Stores the bytes of a mask.
///
/// # Safety
/// They are writable.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub unsafe fn store_bytes(bytes: __m512i, output: *mut u8, mask: u64) {
    // SAFETY: the caller's.
    unsafe {
        if mask == !0 {
            _mm512_storeu_si512(output.cast(), bytes);
        } else {
            _mm512_mask_storeu_epi8(output.cast(), mask, bytes);
        }
    }
}

/// Any windows. Of `OUTPUTS` rows that share their input rows, the second has the second half of a phase's weights.
///
/// # Safety
/// The layer was checked against the arena and the constants.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn windows<const MODE: u8, const OUTPUTS: usize>(call: &Call<'_>) {
    let walk = call.walk;
    let [tap_rows, tap_columns] = walk.taps;
    let chunks = walk.chunks(4);
    let order = every_other(walk.skipped.unwrap_or(UNIT));
    for rows in &walk.rows {
        for unit in &walk.units {
            // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what units read behind it, which is the arena's
            // slack; weights and factors are those of the unit's phase.
            unsafe {
                let (weights, factors) = call.phase(unit.phase);
                let bias = |v: usize| _mm512_load_si512(factors.add(v).cast());
                let mut sums = [[bias(0), bias(1), bias(2), bias(3)]; OUTPUTS];
                let input = call.arena.cast_const().add(rows.input + unit.input as usize);
                // Rows of zero weight that would lie outside are the last one again.
                let last = tap_rows - 1 + usize::from(OUTPUTS == 2 && rows.two);
                for chunk in 0..chunks {
                    let place = |k: usize| input.add((4 * chunk + k).min(last) * walk.row);
                    let places = [place(0), place(1), place(2), place(3)];
                    for column in 0..tap_columns {
                        let at = column * walk.tap;
                        let load = |k: usize| {
                            let near = _mm512_loadu_si512(places[k].add(at).cast());
                            if walk.skipped.is_none() {
                                return near;
                            }
                            let far = _mm512_loadu_si512(places[k].add(at + UNIT).cast());
                            _mm512_permutex2var_epi32(near, order, far)
                        };
                        let third = load(2);
                        // Where the fourth row is the third again, its weights are zeros.
                        let fourth = if places[3] == places[2] { third } else { load(3) };
                        let taps = interleave([load(0), load(1), third, fourth]);
                        for (variant, sums) in sums.iter_mut().enumerate() {
                            let first = (variant * chunks + chunk) * tap_columns + column;
                            for (v, sum) in sums.iter_mut().enumerate() {
                                let weights = _mm512_load_si512(weights.add(first * 4 + v));
                                *sum = _mm512_dpbusd_epi32(*sum, taps[v], weights);
                            }
                        }
                    }
                }
                let output = call.arena.add(rows.output + unit.output as usize);
                store::<MODE>(sums[0], factors, call.bounds, output, unit.mask);
                if OUTPUTS == 2 && rows.two {
                    store::<MODE>(
                        sums[OUTPUTS - 1],
                        factors,
                        call.bounds,
                        output.add(walk.output_row),
                        unit.mask,
                    );
                }
            }
        }
    }
}

/// The order that leaves out every other pixel of some channels, in dwords of two vectors.
#[target_feature(enable = "avx512f")]
#[inline]
fn every_other(channels: usize) -> __m512i {
    let mut order = [0u32; LANES];
    let dwords = (channels / 4).max(1);
    for (k, at) in order.iter_mut().enumerate() {
        *at = (k / dwords * 2 * dwords + k % dwords) as u32;
    }
    // SAFETY: 64 bytes are read.
    unsafe { _mm512_loadu_si512(order.as_ptr().cast()) }
}

impl Layer for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.walk.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let constants = frame.constants.as_ptr();
        // SAFETY: rows and units were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
        // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
        unsafe {
            (self.kernel)(&Call {
                walk: &self.walk,
                arena: frame.arena.as_mut_ptr(),
                weights: constants.add(self.weights),
                weights_of_phase: self.weights_of_phase,
                factors: constants.add(self.factors).cast(),
                bounds: &self.bounds,
            });
        }
        Some(())
    }
}
