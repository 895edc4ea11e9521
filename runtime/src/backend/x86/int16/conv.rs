//! Convolutions and dense layers: blocks of output positions times registers of output channels.
//!
//! A step takes four bytes under each window, words in pairs or bytes in fours, and multiplies them with as many weights of every output channel.
//! Weights lie in the order of use: `[group][run][step][register][channel][input]`, with zeros behind a run that ends within a step.

use core::hint::black_box;
use core::marker::PhantomData;

use super::super::lanes::{Arithmetic, Lanes};
use super::requantize::{self, Bounds, Channel, ROWS, are_products, biases, requantize};
use crate::backend::vector::geometry::Geometry;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};
use crate::ops::linear::Integer;

/// Everything that a kernel needs of one group of output channels.
struct Call {
    input: *const u8,
    output: *mut u8,
    weights: *const u8,
    constants: *const i32,
    /// For each step, the distance from a window's first byte.
    steps: *const u32,
    step_count: usize,
    /// For each position, the first bytes of its window and of its outputs.
    positions: *const [u32; 2],
    blocks: usize,
    channels: usize,
    bounds: Bounds,
}

type Kernel = unsafe fn(&Call);

/// A block of positions, all steps of all its registers, and what is stored for them.
///
/// # Safety
/// The instruction set of `A`; the call's pointers are those of a layer that was checked against its frame, its constants of `PRODUCT`.
#[inline(always)]
unsafe fn block<A: Arithmetic, const POSITIONS: usize, const REGISTERS: usize, const PRODUCT: bool>(
    call: &Call,
    positions: *const [u32; 2],
) {
    // SAFETY: the caller's. Positions and steps have that many entries, a step and register 4 bytes of weights a lane.
    unsafe {
        let lanes = A::Sums::COUNT;
        let mut inputs = [call.input; POSITIONS];
        for (p, input) in inputs.iter_mut().enumerate() {
            *input = input.add((*positions.add(p))[0] as usize);
        }
        let mut sums = [[A::Sums::splat(0); REGISTERS]; POSITIONS];
        for sums in &mut sums {
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = biases(call.constants.add(r * ROWS * lanes));
            }
        }
        let mut weights = call.weights.cast::<i32>();
        for step in 0..call.step_count {
            let at = *call.steps.add(step) as usize;
            let mut factors = [A::Sums::splat(0); REGISTERS];
            for (r, factor) in factors.iter_mut().enumerate() {
                *factor = A::Sums::load(weights.add(r * lanes));
            }
            for (sums, input) in sums.iter_mut().zip(&inputs) {
                let data = A::Sums::splat(input.add(at).cast::<i32>().read_unaligned());
                for (sum, factor) in sums.iter_mut().zip(&factors) {
                    *sum = A::dot(*sum, data, *factor);
                }
            }
            weights = weights.add(REGISTERS * lanes);
        }
        // Many sums are stored once before they are finished one by one: else the compiler would keep them in memory all along.
        let sums = if POSITIONS * REGISTERS > 8 { black_box(sums) } else { sums };
        for r in 0..REGISTERS {
            let done = r * lanes;
            let constants = call.constants.add(ROWS * done);
            let count = call.channels.saturating_sub(done);
            // All are finished before one is stored, so that constants are read once.
            let mut values = [A::Sums::splat(0); POSITIONS];
            for (value, sums) in values.iter_mut().zip(&sums) {
                *value = requantize::<_, PRODUCT>(sums[r], constants, &call.bounds);
            }
            for (p, value) in values.into_iter().enumerate() {
                let output = call.output.add((*positions.add(p))[1] as usize);
                if call.bounds.bytes {
                    A::Sums::store_bytes(output.add(done), count, value);
                } else {
                    A::Sums::store_words(output.add(2 * done), count, value);
                }
            }
        }
    }
}

/// All blocks of a call.
///
/// # Safety
/// As [`block`].
unsafe fn tile<A: Arithmetic, const POSITIONS: usize, const REGISTERS: usize, const PRODUCT: bool>(
    call: &Call,
) {
    // SAFETY: the caller's; there are positions for all blocks.
    unsafe {
        A::with(
            #[inline(always)]
            || {
                for k in 0..call.blocks {
                    block::<A, POSITIONS, REGISTERS, PRODUCT>(call, call.positions.add(k * POSITIONS));
                }
            },
        );
    }
}

/// Most registers of channels of a group.
const fn most_registers<A: Arithmetic>() -> usize {
    if A::REGISTERS == 32 { 4 } else { 2 }
}

/// How many positions a block has.
fn positions_of_block<A: Arithmetic>(registers: usize, positions: usize) -> usize {
    let sizes: &[usize] = match (A::REGISTERS, registers) {
        (32, 4) => &[6, 3, 1],
        (32, _) => &[8, 4, 1],
        (_, 2) => &[5, 3, 1],
        _ => &[8, 4, 1],
    };
    // Clocks of a step: few sums wait for the latency of their own products.
    let clocks = |size: usize| positions.div_ceil(size) * (size * registers).max(5);
    sizes.iter().copied().min_by_key(|&size| clocks(size)).unwrap_or(1)
}

/// The kernel of so many positions and registers.
fn kernel<A: Arithmetic>(positions: usize, registers: usize, product: bool) -> Option<Kernel> {
    macro_rules! of {
        ($($positions:literal x $registers:literal)*) => {
            match (positions, registers, product) {
                $(($positions, $registers, true) => tile::<A, $positions, $registers, true> as Kernel,)*
                $(($positions, $registers, false) => tile::<A, $positions, $registers, false>,)*
                _ => return None,
            }
        };
    }
    Some(if A::REGISTERS == 32 {
        of!(6 x 4 3 x 4 1 x 4 8 x 2 4 x 2 1 x 2 8 x 1 4 x 1 1 x 1)
    } else {
        of!(5 x 2 3 x 2 1 x 2 8 x 1 4 x 1 1 x 1)
    })
}

/// A group of output channels.
#[derive(Debug)]
struct Group {
    kernel: Kernel,
    /// Which positions.
    table: usize,
    /// Bytes from the layer's windows and outputs to the group's.
    input: usize,
    output: usize,
    weights: usize,
    constants: usize,
    channels: usize,
}

/// Positions in blocks of a size; the last block repeats the last position.
#[derive(Debug)]
struct Table {
    size: usize,
    blocks: usize,
    positions: Vec<[u32; 2]>,
}

/// A convolution or a dense layer.
#[derive(Debug)]
pub struct Conv<A> {
    groups: Vec<Group>,
    tables: Vec<Table>,
    steps: Vec<u32>,
    bounds: Bounds,
    arena_bytes: usize,
    constant_bytes: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Conv<A> {
    /// The layer; `weight(o, k)` is weight `k` of output channel `o` in the operator's order.
    pub fn new(
        geometry: &Geometry,
        linear: &Integer<'_>,
        bounds: Bounds,
        weight: &impl Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let (runs, length) = geometry.runs(input);
        let inputs_of_step = 4 / A::INPUT;
        let steps_of_run = length.div_ceil(inputs_of_step);
        let step = |at: usize| u32::try_from(at).ok();
        let steps: Vec<u32> = runs
            .iter()
            .flat_map(|&run| (0..steps_of_run).map(move |k| step(run + 4 * k)))
            .collect::<Option<_>>()?;
        let places = |[from, to]: [usize; 2]| Some([u32::try_from(from).ok()?, u32::try_from(to).ok()?]);
        let positions: Vec<[u32; 2]> =
            geometry.positions(input, output).into_iter().map(places).collect::<Option<_>>()?;
        let last = *positions.last()?;
        let mut tables: Vec<Table> = Vec::new();
        let mut groups = Vec::new();
        let (group_inputs, group_outputs) = (geometry.group_inputs(), geometry.group_outputs());
        let (depth, lanes) = (runs.len() * length, A::Sums::COUNT);
        for group in 0..geometry.groups {
            let mut first = 0;
            while first < group_outputs {
                let registers = (group_outputs - first).div_ceil(lanes).min(most_registers::<A>());
                let registers = if registers == 3 { 2 } else { registers };
                let channels = (group_outputs - first).min(registers * lanes);
                let at = group * group_outputs + first;
                let of = |o: usize| {
                    Channel::new(linear, input, at + o, (0..depth).map(move |k| weight(at + o, k)))
                };
                let all: Vec<Channel> = (0..channels).map(of).collect::<Option<_>>()?;
                let product = are_products(&all);
                let mut rows = Vec::new();
                for r in 0..registers {
                    let channel = |l: usize| all.get(r * lanes + l).copied();
                    rows.extend(requantize::constants::<A::Sums>(product, &bounds, channel));
                }
                let mut weights: Vec<u8> = Vec::with_capacity(steps.len() * registers * lanes * 4);
                for run in 0..runs.len() {
                    for step in 0..steps_of_run {
                        for o in 0..registers * lanes {
                            for k in step * inputs_of_step..(step + 1) * inputs_of_step {
                                let there = o < channels && k < length;
                                let value = if there { weight(at + o, run * length + k) } else { 0 };
                                weights.extend_from_slice(&i16::from(value).to_le_bytes()[..A::INPUT]);
                            }
                        }
                    }
                }
                let size = positions_of_block::<A>(registers, positions.len());
                let table = tables.iter().position(|table| table.size == size).unwrap_or_else(|| {
                    let blocks = positions.len().div_ceil(size);
                    let padded = positions.iter().copied().chain(core::iter::repeat(last));
                    tables.push(Table { size, blocks, positions: padded.take(blocks * size).collect() });
                    tables.len() - 1
                });
                groups.push(Group {
                    kernel: kernel::<A>(size, registers, product)?,
                    table,
                    input: A::INPUT * group * group_inputs,
                    output: output.element_bytes() * at,
                    weights: constants.push(&weights),
                    constants: constants.push(&rows),
                    channels,
                });
                first += channels;
            }
        }
        let reach = *steps.iter().max()? as usize + 4 + A::INPUT * (geometry.groups - 1) * group_inputs;
        let ends =
            positions.iter().map(|&[from, to]| (from as usize + reach).max(to as usize + output.pixel()));
        let arena_bytes = ends.max()?;
        let constant_bytes = constants.bytes();
        let arithmetic = PhantomData;
        Some(Self { groups, tables, steps, bounds, arena_bytes, constant_bytes, arithmetic })
    }
}

impl<A: Arithmetic> Layer for Conv<A> {
    fn name(&self) -> &'static str {
        "conv2d_i16"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        for group in &self.groups {
            let table = self.tables.get(group.table)?;
            // SAFETY: offsets were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
            // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
            unsafe {
                (group.kernel)(&Call {
                    input: arena.add(group.input),
                    output: arena.add(group.output),
                    weights: constants.add(group.weights),
                    constants: constants.add(group.constants).cast(),
                    steps: self.steps.as_ptr(),
                    step_count: self.steps.len(),
                    positions: table.positions.as_ptr(),
                    blocks: table.blocks,
                    channels: group.channels,
                    bounds: self.bounds,
                });
            }
        }
        Some(())
    }
}
