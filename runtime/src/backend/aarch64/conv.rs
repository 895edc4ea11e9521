//! Convolutions and dense layers of all arithmetics.
//!
//! A tile is some positions times some vectors of four output channels, whose sums stay in registers. A *wide* step takes 16 bytes of inputs under
//! each window, a *narrow* one the 4 bytes that are left of a run. Weights lie in the order of use: `[step][lane][vector][channel][element]`.

use super::arithmetic::{Arithmetic, Finish, unrolled};
use crate::backend::vector::geometry::Geometry;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// Bytes of a lane, and of a vector of inputs.
const LANE: usize = 4;
const WIDE: usize = 4 * LANE;

/// Everything that a kernel needs of one group of output channels.
pub struct Call<'a, A: Arithmetic> {
    input: *const u8,
    output: *mut u8,
    weights: *const u8,
    factors: *const u8,
    layer: &'a Conv<A>,
    positions: &'a [[usize; 2]],
    channels: usize,
}

/// A tile.
pub type Kernel<A> = unsafe fn(&Call<'_, A>);

/// Adds up the products under all windows, a block of positions at a time, and stores what becomes of them.
///
/// # Safety
/// The processor's features; a call of a layer that was checked against its frame, with `N` vectors and blocks of `P` positions.
#[inline(always)]
pub unsafe fn tile<A: Arithmetic, const N: usize, const P: usize>(call: &Call<'_, A>) {
    let &Call { input, output, factors, layer, positions, .. } = call;
    for block in positions.as_chunks::<P>().0 {
        // SAFETY: the caller's: steps lie under windows, but for what is read behind a run, which is the arena's slack at last; a vector of
        // weights is stored for each step, lane and vector, and 16 bytes to start with for each vector.
        unsafe {
            let mut windows = [input; P];
            let mut sums = [[A::start(factors); N]; P];
            unrolled!(p < P {
                windows[p] = input.add(block[p][0]);
                unrolled!(n < N { sums[p][n] = A::start(factors.add(WIDE * n)); });
            });
            let mut weights = call.weights;
            for &at in &layer.wide {
                let mut inputs = [A::load(windows[0].add(at)); P];
                unrolled!(p < P { inputs[p] = A::load(windows[p].add(at)); });
                macro_rules! lane {
                    ($lane:literal) => {
                        unrolled!(n < N {
                            let weights = A::weights(weights.add(($lane * N + n) * A::WEIGHTS));
                            unrolled!(p < P {
                                sums[p][n] = A::multiply_lane::<$lane>(sums[p][n], weights, inputs[p]);
                            });
                        });
                    };
                    ($lane:literal $next:literal) => {
                        if A::TWO_LANES {
                            unrolled!(n < N {
                                let weights = [
                                    A::weights(weights.add(($lane * N + n) * A::WEIGHTS)),
                                    A::weights(weights.add(($next * N + n) * A::WEIGHTS)),
                                ];
                                unrolled!(p < P {
                                    sums[p][n] =
                                        A::multiply_two::<$lane, $next>(sums[p][n], weights, inputs[p]);
                                });
                            });
                        } else {
                            lane!($lane);
                            lane!($next);
                        }
                    };
                }
                lane!(0 1);
                lane!(2 3);
                weights = weights.add(4 * N * A::WEIGHTS);
            }
            for &at in &layer.narrow {
                let mut inputs = [A::broadcast(windows[0].add(at)); P];
                unrolled!(p < P { inputs[p] = A::broadcast(windows[p].add(at)); });
                unrolled!(n < N {
                    let weights = A::weights(weights.add(n * A::WEIGHTS));
                    unrolled!(p < P { sums[p][n] = A::multiply(sums[p][n], weights, inputs[p]); });
                });
                weights = weights.add(N * A::WEIGHTS);
            }
            let mut totals = [[A::total(sums[0][0]); N]; P];
            unrolled!(p < P { unrolled!(n < N { totals[p][n] = A::total(sums[p][n]); }); });
            let mut last = [A::Finish::load(factors, N, 0); N];
            unrolled!(n < N { last[n] = A::Finish::load(factors, N, n); });
            for p in 0..P {
                layer.finish.store(&totals[p], &last, output.add(block[p][1]), call.channels);
            }
        }
    }
}

/// A group of output channels.
#[derive(Debug)]
struct Group<A: Arithmetic> {
    kernel: Kernel<A>,
    /// In whole blocks.
    positions: usize,
    /// Bytes from the layer's windows and outputs to the group's.
    input: usize,
    output: usize,
    weights: usize,
    factors: usize,
    channels: usize,
}

/// A convolution or a dense layer.
#[derive(Debug)]
pub struct Conv<A: Arithmetic> {
    groups: Vec<Group<A>>,
    /// Of each position the first bytes of its window and of its outputs; the last position again, for blocks of any size.
    positions: Vec<[usize; 2]>,
    /// The distances of steps from a window's first byte.
    wide: Vec<usize>,
    narrow: Vec<usize>,
    finish: A::Finish,
    arena_bytes: usize,
    constant_bytes: usize,
}

impl<A: Arithmetic> Conv<A> {
    /// The layer. `weight(o, k)` is weight `k` of output channel `o` in the operator's order; `factors(vectors, o)` are what sums of these channels from
    /// `o` on start with, 16 bytes a vector, and what their finish takes besides.
    pub fn new(
        geometry: &Geometry,
        weight: &dyn Fn(usize, usize) -> A::Stored,
        factors: &dyn Fn(usize, usize) -> Vec<u32>,
        finish: A::Finish,
        [input, output]: [&Image; 2],
        constants: &mut Constants,
    ) -> Option<Self> {
        let (runs, length) = geometry.runs(input);
        let lanes = length.div_ceil(A::DEPTH);
        let steps = |of: core::ops::Range<usize>, size: usize| -> Vec<usize> {
            let run = |&run: &usize| of.clone().step_by(size).map(move |lane| run + LANE * lane);
            runs.iter().flat_map(run).collect()
        };
        let (wide, narrow) = (steps(0..lanes / 4 * 4, 4), steps(lanes / 4 * 4..lanes, 1));
        let positions = geometry.positions(input, output);
        let (group_inputs, group_outputs) = (geometry.group_inputs(), geometry.group_outputs());
        // A single position needs more channels for as many independent sums.
        let most = if positions.len() == 1 { 8 } else { 4 };
        let clocks = |size: usize, vectors: usize| {
            positions.len().div_ceil(size) * ((size * vectors).max(8) + vectors + 2)
        };
        let mut groups = Vec::new();
        for group in 0..geometry.groups {
            for first in (0..group_outputs).step_by(4 * most) {
                let channels = (group_outputs - first).min(4 * most);
                let vectors = if channels <= 16 { channels.div_ceil(4) } else { 8 };
                let tiles = A::tiles(vectors).iter();
                let &(size, kernel) = tiles.min_by_key(|&&(size, _)| clocks(size, vectors))?;
                let at = group * group_outputs + first;
                let mut weights: Vec<A::Stored> = Vec::new();
                let mut pack = |run: usize, lane: usize| {
                    for o in 0..4 * vectors {
                        for k in A::DEPTH * lane..A::DEPTH * (lane + 1) {
                            let there = o < channels && k < length;
                            let found = there.then(|| weight(at + o, run * length + k));
                            weights.push(found.unwrap_or_default());
                        }
                    }
                };
                for part in [0..lanes / 4 * 4, lanes / 4 * 4..lanes] {
                    for run in 0..runs.len() {
                        part.clone().for_each(|lane| pack(run, lane));
                    }
                }
                groups.push(Group {
                    kernel,
                    positions: positions.len().next_multiple_of(size),
                    input: group * group_inputs * input.element_bytes(),
                    output: at * output.element_bytes(),
                    weights: constants.push(&weights),
                    factors: constants.push(&factors(vectors, at)),
                    channels,
                });
            }
        }
        let last = |steps: &[usize], bytes: usize| steps.iter().max().map_or(0, |at| at + bytes);
        let inputs = (geometry.groups - 1) * group_inputs * input.element_bytes();
        let reach = last(&wide, WIDE).max(last(&narrow, LANE)) + inputs;
        let ends = positions.iter().map(|[from, to]| (from + reach).max(to + output.pixel()));
        let arena_bytes = ends.max()?;
        let most = groups.iter().map(|group| group.positions).max()?;
        let positions = (0..most).map(|k| positions[k.min(positions.len() - 1)]).collect();
        Some(Self { groups, positions, wide, narrow, finish, arena_bytes, constant_bytes: constants.bytes() })
    }
}

impl<A: Arithmetic> Layer for Conv<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        for group in &self.groups {
            let positions = self.positions.get(..group.positions)?;
            // SAFETY: offsets were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
            // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
            unsafe {
                (group.kernel)(&Call {
                    input: arena.add(group.input),
                    output: arena.add(group.output),
                    weights: constants.add(group.weights),
                    factors: constants.add(group.factors),
                    layer: self,
                    positions,
                    channels: group.channels,
                });
            }
        }
        Some(())
    }
}
