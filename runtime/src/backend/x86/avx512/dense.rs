//! Dense layers of one row: weights stream through once, so what counts is that they come in the order in which memory is fetched.

use core::arch::x86_64::*;

use super::super::requantize::{self, Channel, Factors, Mode};
use super::conv::pack_group;
use super::finish::{Bounds, pack_halves, words};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};
use crate::ops::linear::Integer;

/// Bytes ahead of which weights are fetched: not much more than what stands between them and the next group's.
const AHEAD: usize = 16 * 64;

/// Everything that a kernel needs of one group of output channels.
struct Call {
    input: *const u8,
    output: *mut u8,
    weights: *const u8,
    /// Of each vector the rows that its mode reads.
    factors: *const u8,
    /// Steps of four inputs.
    steps: usize,
    channels: usize,
    bounds: Bounds,
}

type Kernel = unsafe fn(&Call);

/// A group of output channels.
#[derive(Debug)]
struct Group {
    kernel: Kernel,
    output: usize,
    channels: usize,
    weights: usize,
    factors: usize,
}

/// A dense layer of one row.
#[derive(Debug)]
pub struct Dense {
    groups: Vec<Group>,
    input: usize,
    steps: usize,
    bounds: Bounds,
    arena_bytes: usize,
    constant_bytes: usize,
}

impl Dense {
    /// The layer; `weight(o, k)` is weight `k` of output channel `o`.
    pub fn new(
        linear: &Integer<'_>,
        weight: &impl Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let (depth, outputs) = (input.extents[3], output.extents[3]);
        let mut groups = Vec::new();
        let mut first = 0;
        while first < outputs {
            let channels = (outputs - first).min(128);
            let vectors = channels.div_ceil(16).next_power_of_two();
            let at = first;
            let (mode, factors, weights) = pack_group(
                &|o| Channel::new(linear, at + o, (0..depth).map(|k| weight(at + o, k))),
                [channels, vectors],
                [1, depth],
                true,
                &|o, k| weight(at + o, k),
            )?;
            let weights = constants.push(&weights);
            let read = |factors: &Factors| factors[..requantize::rows(mode as u8)].to_vec();
            let factors = constants.push(&factors.iter().flat_map(read).collect::<Vec<_>>());
            groups.push(Group {
                kernel: kernel(vectors, mode)?,
                output: output.at(0, 0, 0) + at,
                channels,
                weights,
                factors,
            });
            first += channels;
        }
        let (read, steps) = (input.at(0, 0, 0), depth.div_ceil(4));
        let bounds =
            Bounds { zero: linear.output_zero as i16, low: linear.low as i8, high: linear.high as i8 };
        let arena_bytes = (read + 4 * steps).max(output.at(0, 0, 0) + outputs);
        Some(Self { groups, input: read, steps, bounds, arena_bytes, constant_bytes: constants.bytes() })
    }
}

/// The kernel of some vectors and a mode.
fn kernel(vectors: usize, mode: Mode) -> Option<Kernel> {
    macro_rules! of {
        ($mode:expr) => {
            match vectors {
                1 => row::<{ $mode }, 1, 8> as Kernel,
                2 => row::<{ $mode }, 2, 4>,
                4 => row::<{ $mode }, 4, 2>,
                8 => row::<{ $mode }, 8, 1>,
                _ => return None,
            }
        };
    }
    Some(match mode {
        Mode::Float => of!(requantize::FLOAT),
        Mode::SignedFloat => of!(requantize::SIGNED_FLOAT),
        Mode::Mixed => of!(requantize::MIXED),
        Mode::SignedMixed => of!(requantize::SIGNED_MIXED),
        Mode::Corrected => of!(requantize::CORRECTED),
        Mode::SignedCorrected => of!(requantize::SIGNED_CORRECTED),
        Mode::Twice => of!(requantize::TWICE),
        Mode::SignedTwice => of!(requantize::SIGNED_TWICE),
        Mode::Definition => of!(requantize::DEFINITION),
    })
}

/// One row times some vectors of output channels, in `SETS` sets of sums that do not wait for each other.
///
/// # Safety
/// The call's pointers are those of a layer that was checked against its frame; the mode is that of its factors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn row<const MODE: u8, const VECTORS: usize, const SETS: usize>(call: &Call) {
    let zero = _mm512_setzero_si512();
    let mut sums = [[zero; VECTORS]; SETS];
    // SAFETY: `steps` times four bytes of the input and a vector of weights for each step and vector are read, which lie in the buffers (the
    // caller's); fetching ahead reads nothing.
    unsafe {
        let mut step = 0;
        let product = |sums: &mut [__m512i; VECTORS], step: usize| {
            let input = _mm512_set1_epi32(call.input.add(4 * step).cast::<i32>().read_unaligned());
            for (v, sum) in sums.iter_mut().enumerate() {
                let weights = call.weights.add((step * VECTORS + v) * 64);
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(AHEAD).cast());
                *sum = _mm512_dpbusd_epi32(*sum, input, _mm512_load_si512(weights.cast()));
            }
        };
        while step + SETS <= call.steps {
            for (set, sums) in sums.iter_mut().enumerate() {
                product(sums, step + set);
            }
            step += SETS;
        }
        while step < call.steps {
            product(&mut sums[0], step);
            step += 1;
        }
        let factors = |v: usize| call.factors.add(v * requantize::rows(MODE) * 64).cast::<Factors>();
        let mut totals = [zero; 8];
        for (v, total) in totals.iter_mut().enumerate().take(VECTORS) {
            let bias = _mm512_load_si512(factors(v).cast());
            *total = sums.iter().fold(bias, |sum, set| _mm512_add_epi32(sum, set[v]));
        }
        // No loop, which would keep sums in memory.
        macro_rules! half {
            ($first:literal, $second:literal) => {
                if $first < VECTORS {
                    let second = if $second < VECTORS { $second } else { $first };
                    words::<MODE>(
                        [totals[$first], totals[second]],
                        [factors($first), factors(second)],
                        &call.bounds,
                    )
                } else {
                    zero
                }
            };
        }
        let halves = [half!(0, 1), half!(2, 3), half!(4, 5), half!(6, 7)];
        let mut done = 0;
        for half in halves.as_chunks().0.iter().take(VECTORS.div_ceil(4)) {
            let [low, high] = *half;
            let bytes = pack_halves(low, high, &call.bounds);
            let bytes = match VECTORS {
                1 => _mm512_permutexvar_epi32(
                    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                    bytes,
                ),
                2 => _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes),
                _ => bytes,
            };
            let left = call.channels - done;
            let place: *mut i8 = call.output.add(done).cast();
            if left >= 64 {
                _mm512_storeu_si512(place.cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(place, (1 << left) - 1, bytes);
                break;
            }
            done += 64;
            if done == call.channels {
                break;
            }
        }
    }
}

impl Layer for Dense {
    fn name(&self) -> &'static str {
        "dense_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        for group in &self.groups {
            // SAFETY: offsets were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
            // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
            unsafe {
                (group.kernel)(&Call {
                    input: arena.add(self.input),
                    output: arena.add(group.output),
                    weights: constants.add(group.weights),
                    factors: constants.add(group.factors),
                    steps: self.steps,
                    channels: group.channels,
                    bounds: self.bounds,
                });
            }
        }
        Some(())
    }
}
