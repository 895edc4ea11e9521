//! Convolution with windows of three by three by Winograd's minimal filtering F(2x2, 3x3) (Lavin, Gray, *Fast Algorithms for Convolutional
//! Neural Networks*, 2016): 16 products for four outputs in place of 36.
//!
//! Tiles of 4 x 4 inputs overlap by two. Each is transformed, then each of its 16 elements is a dense layer over the channels of its own, for many
//! tiles at a time; the results are transformed into 2 x 2 outputs. All factors are 1 but for the weights', which are transformed once, in `f64`.

use core::arch::x86_64::{__m256, __m512};

use super::conv2d::{cut, kernels, panel_registers};
use super::lanes::Lanes;
use super::tile::Tile;
use super::{Aligned, Place, Registers, Width};
use crate::backend::spec;
use crate::ops::linear::Float;
use crate::ops::window::{Axis, Window};

/// Elements of a tile.
const ELEMENTS: usize = 16;
/// Bytes of transformed tiles and results that are worked on at a time: some of a second-level cache.
const WORKING_SET: usize = 192 << 10;

/// Where a tile of the image reads and writes, and how many rows and columns of outputs it has.
#[derive(Clone, Copy, Debug)]
struct Spot {
    input: usize,
    output: usize,
    rows: usize,
    columns: usize,
}

/// A prepared convolution.
#[derive(Clone, Debug)]
pub struct Winograd {
    width: Width,
    spots: Vec<Spot>,
    /// Most tiles at a time.
    chunk: usize,
    inputs: usize,
    outputs: usize,
    /// Registers of outputs that go through the products together.
    panel: usize,
    /// For each element and panel: `[input][register][lane]`.
    weights: Aligned,
    bias: Aligned,
    zeros: Aligned,
    /// Of each tile of a chunk, how many floats behind the first one's its results are.
    places: Vec<usize>,
    bounds: [f32; 2],
    images: usize,
    input: Place,
    output: Place,
    pub(super) reach: [usize; 2],
}

/// Whether this way is fewer clocks than the direct one.
pub fn suits(window: &Window, groups: usize) -> bool {
    spec::x86::winograd(window, groups)
}

/// Padding behind the image that tiles reach.
pub fn behind(axis: &Axis) -> usize {
    (2 * axis.output.div_ceil(2) + 2).saturating_sub(axis.pad + axis.input)
}

/// Where a transform reads and writes.
struct Job<'a> {
    layer: &'a Winograd,
    spots: &'a [Spot],
    image: *const f32,
    output: *mut f32,
    /// Transformed tiles, or results.
    elements: *mut f32,
}

/// # Safety
/// The instruction set of `V`.
#[inline(always)]
unsafe fn input_step<V: Lanes>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the instruction set, promised by the caller.
    unsafe { [V::sub(a, c), V::add(b, c), V::sub(c, b), V::sub(b, d)] }
}

/// # Safety
/// The instruction set of `V`.
#[inline(always)]
unsafe fn output_step<V: Lanes>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the instruction set, promised by the caller.
    unsafe { [V::add(V::add(a, b), c), V::sub(V::sub(b, c), d)] }
}

/// # Safety
/// The instruction set of `V`; an image that reaches as far as the spots, and room for their elements.
#[inline(always)]
unsafe fn transform_inputs<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe {
        let &Job { layer, spots, image, elements, .. } = job;
        let registers = layer.inputs.div_ceil(V::COUNT);
        let channels = registers * V::COUNT;
        let last = layer.inputs - (registers - 1) * V::COUNT;
        let (row, pixel) = (layer.input.row, layer.input.pixel);
        for (t, spot) in spots.iter().enumerate() {
            for register in 0..registers {
                let from = image.add(spot.input + register * V::COUNT);
                let to = elements.add(t * channels + register * V::COUNT);
                let part = register + 1 == registers && last < V::COUNT;
                let mut lines = [[V::splat(0.0); 4]; 4];
                for (y, line) in lines.iter_mut().enumerate() {
                    for (x, value) in line.iter_mut().enumerate() {
                        let from = from.add(y * row + x * pixel);
                        *value = if part { V::load_part(from, V::mask(last)) } else { V::load(from) };
                    }
                    *line = input_step(*line);
                }
                for x in 0..4 {
                    let column = input_step(lines.map(|line| line[x]));
                    for (y, &value) in column.iter().enumerate() {
                        V::store(to.add((y * 4 + x) * spots.len() * channels), value);
                    }
                }
            }
        }
    }
}

/// # Safety
/// The instruction set of `V`; the spots' results, and an output that reaches as far as they.
#[inline(always)]
unsafe fn transform_outputs<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe {
        let &Job { layer, spots, output, elements, .. } = job;
        let registers = layer.outputs.div_ceil(V::COUNT);
        let channels = registers * V::COUNT;
        let last = layer.outputs - (registers - 1) * V::COUNT;
        let bounds = layer.bounds.map(|bound| V::splat(bound));
        for (t, spot) in spots.iter().enumerate() {
            for register in 0..registers {
                let from = elements.add(t * channels + register * V::COUNT);
                let to = output.add(spot.output + register * V::COUNT);
                let bias = V::load(layer.bias.pointer().add(register * V::COUNT));
                let mut lines = [[bias; 2]; 4];
                for (y, line) in lines.iter_mut().enumerate() {
                    let at = |x: usize| V::load(from.add((y * 4 + x) * spots.len() * channels));
                    *line = output_step([at(0), at(1), at(2), at(3)]);
                }
                for x in 0..spot.columns {
                    let column = output_step(lines.map(|line| line[x]));
                    for (y, &value) in column.iter().enumerate().take(spot.rows) {
                        let to = to.add(y * layer.output.row + x * layer.output.pixel);
                        let value = V::clamp(bounds, V::add(value, bias));
                        if register + 1 == registers && last < V::COUNT {
                            V::store_part(to, V::mask(last), value);
                        } else {
                            V::store(to, value);
                        }
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn transform_inputs_512(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { transform_inputs::<__m512>(job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn transform_inputs_256(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { transform_inputs::<__m256>(job) }
}

#[target_feature(enable = "avx512f")]
unsafe fn transform_outputs_512(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { transform_outputs::<__m512>(job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn transform_outputs_256(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { transform_outputs::<__m256>(job) }
}

/// The elements of a window's weights.
fn transform_weights(window: [[f64; 3]; 3]) -> [[f64; 4]; 4] {
    let step = |[a, b, c]: [f64; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let lines = window.map(step);
    let columns = [0, 1, 2, 3].map(|x| step(lines.map(|line| line[x])));
    [0, 1, 2, 3].map(|y| columns.map(|column| column[y]))
}

impl Winograd {
    /// Prepares a layer that it [`suits`]. `None` if the operands do not fit each other, or the input has no room for its padding before it.
    pub fn new(
        width: Width,
        window: &Window,
        linear: &Float<'_>,
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        if batch == 0 || linear.bias.len() != outputs {
            return None;
        }
        if linear.weights.len() != inputs.checked_mul(outputs)?.checked_mul(9)? {
            return None;
        }
        let origin = input.start.checked_sub(rows.pad * input.row + columns.pad * input.pixel)?;
        let mut spots = Vec::new();
        for y in (0..rows.output).step_by(2) {
            for x in (0..columns.output).step_by(2) {
                spots.push(Spot {
                    input: origin + y * input.row + x * input.pixel,
                    output: output.start + y * output.row + x * output.pixel,
                    rows: (rows.output - y).min(2),
                    columns: (columns.output - x).min(2),
                });
            }
        }
        let lanes = width.lanes();
        let registers = outputs.div_ceil(lanes);
        let tile = ELEMENTS * 4 * (inputs.next_multiple_of(lanes) + registers * lanes);
        let chunks = spots.len().div_ceil((WORKING_SET / tile).max(8));
        let chunk = spots.len().div_ceil(chunks);
        let panel = panel_registers(width, &[(0, chunk)], registers, inputs);

        let padded = registers * lanes;
        let mut weights = Aligned::new(ELEMENTS * inputs * padded);
        let mut bias = Aligned::new(padded);
        for (channel, &value) in linear.bias.iter().enumerate() {
            bias.set(channel, value)?;
        }
        for first in (0..registers).step_by(panel) {
            let count = panel.min(registers - first);
            let channels = first * lanes..outputs.min((first + count) * lanes);
            for k in 0..inputs {
                for (lane, channel) in channels.clone().enumerate() {
                    let mut taps = [[0.0; 3]; 3];
                    for (tap, weight) in taps.as_flattened_mut().iter_mut().enumerate() {
                        *weight = f64::from(*linear.weights.get((channel * 9 + tap) * inputs + k)?);
                    }
                    for (element, &weight) in transform_weights(taps).as_flattened().iter().enumerate() {
                        let base = (element * padded + first * lanes) * inputs;
                        weights.set(base + k * count * lanes + lane, weight as f32)?;
                    }
                }
            }
        }
        let tiles = [rows.output.div_ceil(2), columns.output.div_ceil(2)];
        Some(Self {
            width,
            spots,
            chunk,
            inputs,
            outputs,
            panel,
            weights,
            bias,
            zeros: Aligned::new(panel * lanes),
            places: (0..chunk).map(|t| t * padded).collect(),
            bounds: [linear.low, linear.high],
            images: batch,
            input: *input,
            output: *output,
            reach: [
                origin + input.span([batch, 2 * tiles[0] + 2, 2 * tiles[1] + 2], inputs),
                output.start + output.span([batch, rows.output, columns.output], outputs),
            ],
        })
    }

    /// Floats of scratch that [`Winograd::run`] needs.
    pub fn scratch(&self) -> usize {
        let lanes = self.width.lanes();
        let channels = self.inputs.next_multiple_of(lanes) + self.outputs.next_multiple_of(lanes);
        ELEMENTS * self.chunk * channels
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it, or the scratch is too small.
    pub fn run(&self, input: &[f32], output: &mut [f32], scratch: &mut [f32]) -> Option<()> {
        if input.len() < self.reach[0] || output.len() < self.reach[1] || scratch.len() < self.scratch() {
            return None;
        }
        let lanes = self.width.lanes();
        let (inputs, outputs) = (self.inputs.next_multiple_of(lanes), self.outputs.next_multiple_of(lanes));
        let registers = outputs / lanes;
        let (transformed, results) = scratch.split_at_mut_checked(ELEMENTS * self.chunk * inputs)?;
        let (transformed, results) = (transformed.as_mut_ptr(), results.as_mut_ptr());
        for image in 0..self.images {
            let input = input.get(image * self.input.image..)?.as_ptr();
            let output = output.get_mut(image * self.output.image..)?.as_mut_ptr();
            for spots in self.spots.chunks(self.chunk) {
                let job = Job { layer: self, spots, image: input, output, elements: transformed };
                // SAFETY: `width` proves the instruction set. `new` took `reach` over all that spots read and write; the buffers reach that
                // far, and the scratch holds the elements of `chunk` tiles.
                unsafe {
                    match self.width.registers {
                        Registers::Bits512 => transform_inputs_512(&job),
                        Registers::Bits256 => transform_inputs_256(&job),
                    }
                }
                for element in 0..ELEMENTS {
                    let written = results.wrapping_add(element * spots.len() * outputs);
                    let read = transformed.wrapping_add(element * spots.len() * inputs);
                    for first in (0..registers).step_by(self.panel) {
                        let count = self.panel.min(registers - first);
                        let kernels = kernels(self.width).get(count - 1)?;
                        let weights = (element * outputs + first * lanes) * self.inputs;
                        let mut tile = Tile {
                            input: read,
                            step: inputs * 4,
                            skips: &0,
                            segments: 1,
                            run: self.inputs,
                            weights: self.weights.pointer().wrapping_add(weights),
                            bias: self.zeros.pointer(),
                            output: written.wrapping_add(first * lanes),
                            places: self.places.as_ptr(),
                            last: lanes,
                            bounds: [f32::NEG_INFINITY, f32::INFINITY],
                        };
                        for (from, positions) in cut(spots.len(), kernels.len()) {
                            tile.input = read.wrapping_add(from * inputs);
                            tile.places = self.places.get(from..)?.as_ptr();
                            let kernel = kernels.get(positions - 1)?;
                            // SAFETY: `width` proves the instruction set. The tile reads rows of `inputs` transformed floats and whole registers of
                            // weights, and writes whole registers of results at `places`; `new` and the scratch have room for them.
                            unsafe { kernel(&tile) };
                        }
                    }
                }
                let job = Job { elements: results, ..job };
                // SAFETY: as for the inputs.
                unsafe {
                    match self.width.registers {
                        Registers::Bits512 => transform_outputs_512(&job),
                        Registers::Bits256 => transform_outputs_256(&job),
                    }
                }
            }
        }
        Some(())
    }
}
