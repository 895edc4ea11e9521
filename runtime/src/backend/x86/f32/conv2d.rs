//! Convolution with any window, strides, dilation and groups; a dense layer of several rows is one of windows of one element.

use super::tile::{self, Kernel, Tile};
use super::{Aligned, Place, Registers, Width};
use crate::ops::linear::Float;
use crate::ops::window::Window;

/// Registers of outputs that go through the tiles together.
#[derive(Clone, Debug)]
struct Panel {
    kernels: &'static [Kernel],
    /// Which of the layer's cuts its tiles are.
    blocks: usize,
    /// First float of its weights.
    weights: usize,
    /// First float of its bias.
    bias: usize,
    /// What its channels add to the place of an input and of an output.
    input: usize,
    output: usize,
    /// Outputs in its last register.
    last: usize,
}

/// Positions of one tile: side by side in the input.
#[derive(Clone, Copy, Debug)]
struct Block {
    input: usize,
    first: usize,
    positions: usize,
}

/// A prepared convolution.
#[derive(Clone, Debug)]
pub struct Conv2d {
    panels: Vec<Panel>,
    /// Cuts of the positions into tiles.
    blocks: Vec<Vec<Block>>,
    /// Outputs of each position, from the first position's.
    places: Vec<usize>,
    /// See [`Tile::skips`].
    skips: Vec<isize>,
    run: usize,
    /// Elements from a position of a block to the next.
    step: usize,
    weights: Aligned,
    bias: Aligned,
    bounds: [f32; 2],
    images: usize,
    input_image: usize,
    output_image: usize,
    /// Floats that buffers have at least.
    pub(super) reach: [usize; 2],
}

/// Kernels by registers of outputs and by positions.
pub(super) fn kernels(width: Width) -> &'static [&'static [Kernel]] {
    static WIDE: [&[Kernel]; 4] =
        [tile::wide1::KERNELS, tile::wide2::KERNELS, tile::wide3::KERNELS, tile::wide4::KERNELS];
    static NARROW: [&[Kernel]; 3] = [tile::narrow1::KERNELS, tile::narrow2::KERNELS, tile::narrow3::KERNELS];
    static HALVED: [&[Kernel]; 1] = [tile::halved1::KERNELS];
    match width.registers {
        Registers::Bits256 if width.many => &HALVED,
        Registers::Bits256 => &NARROW,
        Registers::Bits512 => &WIDE,
    }
}

/// Cuts a line into as few blocks as a kernel's greatest allows, as equal as may be.
pub(super) fn cut(length: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = length.div_ceil(most);
    (0..blocks).map(move |k| {
        let (from, to) = (length * k / blocks, length * (k + 1) / blocks);
        (from, to - from)
    })
}

/// Clocks of a tile's step, roughly: products, reads from the first-level cache, those of weights that do not fit it, and latency.
fn clocks(width: Width, positions: usize, registers: usize, weights_fit: bool) -> usize {
    let weights = if weights_fit { registers } else { 2 * registers };
    let reads = if width.reads_keep_up() { positions / 2 + weights } else { positions + weights };
    (positions * registers).max(reads).max(8)
}

/// Clocks of setting up and writing a tile, roughly. Kernels of one register have less to do in a step, so that others' steps hide it.
fn around(width: Width, positions: usize, registers: usize) -> usize {
    if width.reads_keep_up() && registers == 1 { 4 } else { 2 * positions * registers + 20 }
}

/// Registers of outputs a panel, for the least clocks: full panels of that many, and one of the rest.
pub(super) fn panel_registers(
    width: Width,
    lines: &[(usize, usize)],
    registers: usize,
    steps: usize,
) -> usize {
    const FIRST_LEVEL_CACHE: usize = 24 << 10;
    let kernels = kernels(width);
    let cost = |of: usize| {
        let fits = of * width.lanes() * 4 * steps <= FIRST_LEVEL_CACHE;
        let most = kernels.get(of - 1).map_or(1, |kernels| kernels.len());
        let tiles = lines.iter().flat_map(|&(_, length)| cut(length, most));
        tiles
            .map(|(_, positions)| clocks(width, positions, of, fits) * steps + around(width, positions, of))
            .sum::<usize>()
    };
    let total = |of: usize| {
        let rest = registers % of;
        cost(of) * (registers / of) + if rest == 0 { 0 } else { cost(rest) }
    };
    (1..=kernels.len().min(registers)).min_by_key(|&of| (total(of), kernels.len() - of)).unwrap_or(1)
}

/// Registers of outputs that go through the tiles together.
#[derive(Clone, Copy, Debug)]
struct Shape {
    width: Width,
    registers: usize,
}

impl Shape {
    fn lanes(&self) -> usize {
        self.registers * self.width.lanes()
    }

    fn kernels(&self) -> Option<&'static [Kernel]> {
        kernels(self.width).get(self.registers - 1).copied()
    }
}

/// The panels of a group's outputs. Outputs that leave half of a register empty go through a half one.
fn shapes(width: Width, lines: &[(usize, usize)], outputs: usize, steps: usize) -> Vec<Shape> {
    let lanes = width.lanes();
    let rest = width.narrowest(outputs % lanes);
    let half = outputs > lanes && !outputs.is_multiple_of(lanes) && rest != width;
    let registers = if half { outputs / lanes } else { outputs.div_ceil(lanes) };
    let of = panel_registers(width, lines, registers, steps);
    let whole = (0..registers).step_by(of).map(|first| Shape { width, registers: of.min(registers - first) });
    whole.chain(half.then_some(Shape { width: rest, registers: 1 })).collect()
}

impl Conv2d {
    /// Prepares a layer. `None` if the operands do not fit each other, or the input has no room for its padding before it.
    pub fn new(
        width: Width,
        window: &Window,
        groups: usize,
        linear: &Float<'_>,
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        let (group_inputs, group_outputs) = (inputs.checked_div(groups)?, outputs.checked_div(groups)?);
        let taps = rows.kernel.checked_mul(columns.kernel)?;
        let steps = taps.checked_mul(group_inputs)?;
        let width = width.narrowest(group_outputs);
        let lanes = width.lanes();
        if batch == 0 || steps == 0 || linear.bias.len() != outputs {
            return None;
        }
        if linear.weights.len() != steps.checked_mul(outputs)? {
            return None;
        }
        // What a window reads side by side: a kernel row where its taps touch, else a tap.
        let touching = groups == 1 && columns.dilation == 1 && input.pixel == inputs;
        let (run, along) =
            if touching { (columns.kernel * inputs, 1) } else { (group_inputs, columns.kernel) };
        let segments: Vec<usize> = (0..rows.kernel)
            .flat_map(|y| (0..along).map(move |x| (y, x)))
            .map(|(y, x)| y * rows.dilation * input.row + x * columns.dilation * input.pixel)
            .collect();
        let skip = |pair: &[usize]| ((pair[1] as isize) - (pair[0] + run) as isize) * 4;
        let skips: Vec<isize> = segments.windows(2).map(skip).chain([0]).collect();

        let origin = input.start.checked_sub(rows.pad * input.row + columns.pad * input.pixel)?;
        let step = columns.stride * input.pixel;
        let line = rows.stride * input.row;
        // Rows that follow each other like pixels make one line.
        let lines: Vec<(usize, usize)> = if line == columns.output * step {
            vec![(origin, rows.output * columns.output)]
        } else {
            (0..rows.output).map(|y| (origin + y * line, columns.output)).collect()
        };
        let places: Vec<usize> = (0..rows.output)
            .flat_map(|y| (0..columns.output).map(move |x| (y, x)))
            .map(|(y, x)| y * output.row + x * output.pixel)
            .collect();

        let shapes = shapes(width, &lines, group_outputs, steps);
        let blocks = |most: usize| {
            let mut blocks = Vec::new();
            let mut first = 0;
            for &(start, length) in &lines {
                blocks.extend(cut(length, most).map(|(from, positions)| Block {
                    input: start + from * step,
                    first: first + from,
                    positions,
                }));
                first += length;
            }
            blocks
        };

        let padded = groups * group_outputs.next_multiple_of(lanes);
        let (mut weights, mut bias) = (Aligned::new(padded * steps), Aligned::new(padded));
        let mut panels = Vec::new();
        let mut channels = 0;
        for group in 0..groups {
            let mut first = 0;
            for (index, shape) in shapes.iter().enumerate() {
                let present = (group_outputs - first).min(shape.lanes());
                let base = channels * steps;
                let channel = group * group_outputs + first;
                for lane in 0..present {
                    bias.set(channels + lane, *linear.bias.get(channel + lane)?)?;
                }
                // Written in order, read along as many rows as the panel has lanes.
                for step in 0..steps {
                    for lane in 0..present {
                        let weight = *linear.weights.get((channel + lane) * steps + step)?;
                        weights.set(base + step * shape.lanes() + lane, weight)?;
                    }
                }
                panels.push(Panel {
                    kernels: shape.kernels()?,
                    blocks: index,
                    weights: base,
                    bias: channels,
                    input: group * group_inputs,
                    output: output.start + group * group_outputs + first,
                    last: present - (shape.registers - 1) * shape.width.lanes(),
                });
                channels += shape.lanes();
                first += present;
            }
        }
        let blocks =
            shapes.iter().map(|shape| Some(blocks(shape.kernels()?.len()))).collect::<Option<_>>()?;

        let last_window = lines.iter().map(|&(start, length)| start + (length - 1) * step).max()?;
        let read = last_window + segments.iter().max()? + (groups - 1) * group_inputs + run;
        let written = output.start + places.iter().max()? + outputs;
        let reach = [read + (batch - 1) * input.image, written + (batch - 1) * output.image];
        let bounds = [linear.low, linear.high];
        let (input_image, output_image) = (input.image, output.image);
        Some(Self {
            panels,
            blocks,
            places,
            skips,
            run,
            step,
            weights,
            bias,
            bounds,
            images: batch,
            input_image,
            output_image,
            reach,
        })
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() < self.reach[0] || output.len() < self.reach[1] {
            return None;
        }
        for image in 0..self.images {
            let input = input.get(image * self.input_image..)?.as_ptr();
            let output = output.get_mut(image * self.output_image..)?.as_mut_ptr();
            for panel in &self.panels {
                let mut tile = Tile {
                    input,
                    step: self.step * 4,
                    skips: self.skips.as_ptr(),
                    segments: self.skips.len(),
                    run: self.run,
                    weights: self.weights.pointer().wrapping_add(panel.weights),
                    bias: self.bias.pointer().wrapping_add(panel.bias),
                    output: output.wrapping_add(panel.output),
                    places: self.places.as_ptr(),
                    last: panel.last,
                    bounds: self.bounds,
                };
                for block in self.blocks.get(panel.blocks)? {
                    tile.input = input.wrapping_add(block.input + panel.input);
                    tile.places = self.places.get(block.first..)?.as_ptr();
                    let kernel = panel.kernels.get(block.positions - 1)?;
                    // SAFETY: `new` took kernels of a width, which proves the instruction set. It packed a panel's weights and bias in whole registers, cut blocks
                    // within `places` and took `reach` over all that tiles read and write; the buffers reach that far.
                    unsafe { kernel(&tile) };
                }
            }
        }
        Some(())
    }
}
