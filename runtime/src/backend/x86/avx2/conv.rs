//! Convolutions and dense layers of AVX2: pairs of 16 bits times pairs of 16 bits (`VPMADDWD`), so that no sum saturates.
//!
//! Activations are bytes with 128 added, stored in 16 bits. A tile is some positions times 16 output channels in two vectors. A step takes two
//! inputs under each window; weights lie in the order of use: `[group][run][pair][vector][channel][input]`.

use core::arch::asm;
use core::arch::x86_64::*;

use super::super::geometry::Geometry;
use super::super::requantize::{self, Channel, Factors, LANES, Mode};
use super::finish::{Finish, channel};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};
use crate::ops::linear::Integer;

/// Everything that a kernel needs of one group of 16 output channels.
struct Call {
    input: *const u8,
    output: *mut u8,
    weights: *const u8,
    factors: *const Factors,
    /// For each step, the distance from a window's first byte.
    steps: *const u64,
    step_count: usize,
    /// For each position, the first bytes of its window and of its outputs.
    positions: *const [u32; 2],
    blocks: usize,
    channels: usize,
    finish: Finish,
}

type Kernel = unsafe fn(&Call);

/// A kernel for blocks of some positions: the inner loop in assembly, so that all sums stay in registers, and what follows it.
macro_rules! tile {
    ($name:ident, $positions:literal positions, $({ $pointer:ident $index:literal: $sum_a:tt $a:ident, $sum_b:tt $b:ident })*) => {
        /// # Safety
        /// The call's pointers are those of a layer that was checked against its frame; the mode is that of its factors.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const MODE: u8>(call: &Call) {
            for block in 0..call.blocks {
                // SAFETY: the table has entries for all positions of a block. The assembly reads `step_count` entries of `steps`, 64 bytes of
                // weights a step, and four bytes at each window and step, all inside the buffers (the caller's). It writes registers alone and
                // equals `sum[p][v] += dot(input[p + step .. + 2], weights[step][v])` with sums modulo 2^32.
                unsafe {
                    let positions = call.positions.add(block * $positions);
                    let bias = |v: usize| _mm256_load_si256(call.factors.cast::<__m256i>().add(v));
                    let biases = [bias(0), bias(1)];
                    $(let $pointer = call.input.add((*positions.add($index))[0] as usize);)*
                    $(let ($a, $b): (__m256i, __m256i);)*
                    asm!(
                        "2:",
                        "mov {k}, qword ptr [{steps}]",
                        "vmovdqa ymm12, [{weights}]",
                        "vmovdqa ymm13, [{weights} + 32]",
                        $(
                            concat!("vpbroadcastd ymm14, dword ptr [{k} + {", stringify!($pointer), "}]"),
                            "vpmaddwd ymm15, ymm14, ymm12",
                            concat!("vpaddd ", $sum_a, ", ", $sum_a, ", ymm15"),
                            "vpmaddwd ymm14, ymm14, ymm13",
                            concat!("vpaddd ", $sum_b, ", ", $sum_b, ", ymm14"),
                        )*
                        "add {steps}, 8",
                        "add {weights}, 64",
                        "dec {count}",
                        "jnz 2b",
                        k = out(reg) _,
                        steps = inout(reg) call.steps => _,
                        weights = inout(reg) call.weights => _,
                        count = inout(reg) call.step_count => _,
                        $($pointer = in(reg) $pointer,)*
                        $(inout($sum_a) biases[0] => $a, inout($sum_b) biases[1] => $b,)*
                        out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                        options(nostack, readonly),
                    );
                    $({
                        let place = call.output.add((*positions.add($index))[1] as usize);
                        call.finish.store::<MODE>([$a, $b], call.factors, place, call.channels);
                    })*
                }
            }
        }
    };
}

tile! {
    tile_6, 6 positions,
    { p0 0: "ymm0" s0a, "ymm1" s0b }
    { p1 1: "ymm2" s1a, "ymm3" s1b }
    { p2 2: "ymm4" s2a, "ymm5" s2b }
    { p3 3: "ymm6" s3a, "ymm7" s3b }
    { p4 4: "ymm8" s4a, "ymm9" s4b }
    { p5 5: "ymm10" s5a, "ymm11" s5b }
}

tile! {
    tile_5, 5 positions,
    { p0 0: "ymm0" s0a, "ymm1" s0b }
    { p1 1: "ymm2" s1a, "ymm3" s1b }
    { p2 2: "ymm4" s2a, "ymm5" s2b }
    { p3 3: "ymm6" s3a, "ymm7" s3b }
    { p4 4: "ymm8" s4a, "ymm9" s4b }
}

tile! {
    tile_4, 4 positions,
    { p0 0: "ymm0" s0a, "ymm1" s0b }
    { p1 1: "ymm2" s1a, "ymm3" s1b }
    { p2 2: "ymm4" s2a, "ymm5" s2b }
    { p3 3: "ymm6" s3a, "ymm7" s3b }
}

tile! {
    tile_3, 3 positions,
    { p0 0: "ymm0" s0a, "ymm1" s0b }
    { p1 1: "ymm2" s1a, "ymm3" s1b }
    { p2 2: "ymm4" s2a, "ymm5" s2b }
}

tile! {
    tile_1, 1 positions,
    { p0 0: "ymm0" s0a, "ymm1" s0b }
}

/// The kernel of a tile and a mode.
fn kernel(positions: usize, mode: Mode) -> Option<Kernel> {
    macro_rules! of {
        ($mode:expr) => {
            match positions {
                1 => tile_1::<{ $mode as u8 }> as Kernel,
                3 => tile_3::<{ $mode as u8 }>,
                4 => tile_4::<{ $mode as u8 }>,
                5 => tile_5::<{ $mode as u8 }>,
                6 => tile_6::<{ $mode as u8 }>,
                _ => return None,
            }
        };
    }
    Some(match mode {
        Mode::Float => of!(Mode::Float),
        Mode::SignedFloat => of!(Mode::SignedFloat),
        Mode::Mixed => of!(Mode::Mixed),
        Mode::SignedMixed => of!(Mode::SignedMixed),
        Mode::Definition => of!(Mode::Definition),
        // Not asked for.
        Mode::Corrected | Mode::SignedCorrected | Mode::Twice | Mode::SignedTwice => return None,
    })
}

/// A group of output channels.
#[derive(Debug)]
struct Group {
    kernel: Kernel,
    /// Bytes from the layer's windows and outputs to the group's.
    input: usize,
    output: usize,
    weights: usize,
    factors: usize,
    channels: usize,
    finish: Finish,
}

/// A convolution or a dense layer.
#[derive(Debug)]
pub struct Conv {
    groups: Vec<Group>,
    positions: Vec<[u32; 2]>,
    blocks: usize,
    steps: Vec<u64>,
    arena_bytes: usize,
    constant_bytes: usize,
}

impl Conv {
    /// The layer; `weight(o, k)` is weight `k` of output channel `o` in the operator's order.
    pub fn new(
        geometry: &Geometry,
        linear: &Integer<'_>,
        weight: &impl Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let (runs, length) = geometry.runs(input);
        let pairs = length.div_ceil(2);
        let steps: Vec<u64> =
            runs.iter().flat_map(|&run| (0..pairs).map(move |pair| (run + 4 * pair) as u64)).collect();
        let positions = geometry.positions(input, output);

        let cycles = |size: usize| positions.len().div_ceil(size) * (2 * size + 1).max(4);
        let size = [6, 5, 4, 3, 1].into_iter().min_by_key(|&size| cycles(size))?;
        let blocks = positions.len().div_ceil(size);
        // The last block repeats the last position.
        let at = |k: usize| positions[k.min(positions.len() - 1)].map(|place| place as u32);
        let table = (0..blocks * size).map(at).collect();
        let (group_inputs, group_outputs) = (geometry.group_inputs(), geometry.group_outputs());
        let depth = runs.len() * length;
        let mut groups = Vec::new();
        for group in 0..geometry.groups {
            for first in (0..group_outputs).step_by(LANES) {
                let channels = (group_outputs - first).min(LANES);
                let at = group * group_outputs + first;
                let of = |o: usize| Channel::new(linear, at + o, (0..depth).map(move |k| weight(at + o, k)));
                let all: Vec<Channel> = (0..channels).map(of).collect::<Option<_>>()?;
                let (mode, floats) = requantize::mode(&all, false);
                let lane = |lane: usize| Some(channel(lane)).filter(|o| *o < channels);
                let factors =
                    requantize::factors(mode, core::array::from_fn(|l| lane(l).map(|o| (all[o], floats[o]))));
                let mut weights: Vec<i16> = Vec::with_capacity(steps.len() * 32);
                for run in 0..runs.len() {
                    for pair in 0..pairs {
                        for l in 0..LANES {
                            for k in 2 * pair..2 * pair + 2 {
                                let found = lane(l).filter(|_| k < length);
                                weights.push(found.map_or(0, |o| weight(at + o, run * length + k).into()));
                            }
                        }
                    }
                }
                groups.push(Group {
                    kernel: kernel(size, mode)?,
                    input: 2 * group * group_inputs,
                    output: 2 * at,
                    weights: constants.push(&weights),
                    factors: constants.push(&[factors]),
                    channels,
                    finish: Finish::new(&all)?,
                });
            }
        }
        let reach = *steps.iter().max()? as usize + 4 + 2 * (geometry.groups - 1) * group_inputs;
        let ends = positions.iter().map(|[from, to]| (from + reach).max(to + 2 * geometry.window.outputs));
        let arena_bytes = ends.max()?;
        Some(Self { groups, positions: table, blocks, steps, arena_bytes, constant_bytes: constants.bytes() })
    }
}

impl Layer for Conv {
    fn name(&self) -> &'static str {
        "conv2d_i8"
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
                    input: arena.add(group.input),
                    output: arena.add(group.output),
                    weights: constants.add(group.weights),
                    factors: constants.add(group.factors).cast(),
                    steps: self.steps.as_ptr(),
                    step_count: self.steps.len(),
                    positions: self.positions.as_ptr(),
                    blocks: self.blocks,
                    channels: group.channels,
                    finish: group.finish,
                });
            }
        }
        Some(())
    }
}
