//! Depthwise convolution with several outputs for an input channel: the channels of a register of outputs are read once and repeated.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Aligned, Place, Registers, Width};
use crate::ops::linear::Float;
use crate::ops::window::Window;

/// Positions that share a register of weights.
const POSITIONS: usize = 4;

/// Outputs of a pixel in one register.
#[derive(Clone, Debug)]
struct Panel {
    /// What they add to the place of an input and of an output.
    input: usize,
    output: usize,
    /// First float of the weights, one register a tap, and of the bias.
    weights: usize,
    bias: usize,
    /// Channels read, outputs written.
    channels: usize,
    outputs: usize,
    /// The channel of each output, from the first one read.
    order: [u32; 16],
}

/// A prepared layer.
#[derive(Clone, Debug)]
pub struct Multiplied {
    width: Width,
    panels: Vec<Panel>,
    /// For each tap, how many floats behind the first one it reads.
    taps: Vec<usize>,
    /// First inputs and outputs of each row, from those of an image.
    lines: Vec<[usize; 2]>,
    /// From a position's inputs and outputs to the next's in a row.
    steps: [usize; 2],
    columns: usize,
    weights: Aligned,
    bias: Aligned,
    bounds: [f32; 2],
    images: usize,
    image: [usize; 2],
    /// Floats that buffers have at least.
    pub(super) reach: [usize; 2],
}

/// All positions of an image for one panel.
///
/// # Safety
/// The instruction set of `V`; an image that reaches as far as the layer's places.
#[inline(always)]
unsafe fn panel<V: Lanes>(layer: &Multiplied, panel: &Panel, input: *const f32, output: *mut f32) {
    /// # Safety
    /// As the function around it.
    #[inline(always)]
    unsafe fn block<V: Lanes, const N: usize>(
        layer: &Multiplied,
        panel: &Panel,
        [input, output]: [*mut f32; 2],
    ) {
        // SAFETY: the caller's. A panel's weights and bias are whole registers; masks keep to its channels and outputs.
        unsafe {
            let weights = layer.weights.pointer().add(panel.weights);
            let order = V::order(panel.order.as_ptr());
            let (read, written) = (V::mask(panel.channels), V::mask(panel.outputs));
            let mut sums = [V::load(layer.bias.pointer().add(panel.bias)); N];
            for (tap, &at) in layer.taps.iter().enumerate() {
                let weights = V::load(weights.add(tap * V::COUNT));
                for (n, sum) in sums.iter_mut().enumerate() {
                    let channels = V::load_part(input.add(n * layer.steps[0] + at), read);
                    *sum = V::mul_add(V::permute(order, channels), weights, *sum);
                }
            }
            let bounds = layer.bounds.map(|bound| V::splat(bound));
            for (n, &sum) in sums.iter().enumerate() {
                V::store_part(output.add(n * layer.steps[1]), written, V::clamp(bounds, sum));
            }
        }
    }
    // SAFETY: the caller's; positions lie in their line.
    unsafe {
        for &[read, written] in &layer.lines {
            let at = |position: usize| {
                let from = input.add(read + panel.input + position * layer.steps[0]).cast_mut();
                [from, output.add(written + panel.output + position * layer.steps[1])]
            };
            let whole = layer.columns - layer.columns % POSITIONS;
            for position in (0..whole).step_by(POSITIONS) {
                block::<V, POSITIONS>(layer, panel, at(position));
            }
            for position in whole..layer.columns {
                block::<V, 1>(layer, panel, at(position));
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn panel_512(layer: &Multiplied, of: &Panel, input: *const f32, output: *mut f32) {
    // SAFETY: the caller's.
    unsafe { panel::<__m512>(layer, of, input, output) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn panel_256(layer: &Multiplied, of: &Panel, input: *const f32, output: *mut f32) {
    // SAFETY: the caller's.
    unsafe { panel::<__m256>(layer, of, input, output) }
}

impl Multiplied {
    /// Prepares a layer. `None` if the operands do not fit each other, or if the input has no room for its padding before it.
    pub fn new(
        width: Width,
        window: &Window,
        linear: &Float<'_>,
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        let taps = rows.kernel.checked_mul(columns.kernel)?;
        let multiplier = outputs.checked_div(inputs)?;
        let fits = linear.bias.len() == outputs && linear.weights.len() == taps.checked_mul(outputs)?;
        if batch == 0 || taps == 0 || !fits || multiplier.checked_mul(inputs) != Some(outputs) || outputs == 0
        {
            return None;
        }
        let origin = input.start.checked_sub(rows.pad * input.row + columns.pad * input.pixel)?;
        let lanes = width.lanes();
        let registers = outputs.div_ceil(lanes);
        let (mut weights, mut bias) =
            (Aligned::new(registers * taps * lanes), Aligned::new(registers * lanes));
        let mut panels = Vec::with_capacity(registers);
        for register in 0..registers {
            let first = register * lanes;
            let used = (outputs - first).min(lanes);
            let (from, to) = (first / multiplier, (first + used - 1) / multiplier);
            for lane in 0..used {
                bias.set(first + lane, *linear.bias.get(first + lane)?)?;
                for tap in 0..taps {
                    let weight = *linear.weights.get(tap * outputs + first + lane)?;
                    weights.set((register * taps + tap) * lanes + lane, weight)?;
                }
            }
            panels.push(Panel {
                input: from,
                output: first,
                weights: register * taps * lanes,
                bias: first,
                channels: to + 1 - from,
                outputs: used,
                order: core::array::from_fn(|lane| ((first + lane.min(used - 1)) / multiplier - from) as u32),
            });
        }
        let (right, down) = (columns.dilation * input.pixel, rows.dilation * input.row);
        let line = |row: usize| [origin + row * rows.stride * input.row, output.start + row * output.row];
        // Under all windows.
        let [high, wide] = [rows, columns].map(|axis| (axis.output - 1) * axis.stride + axis.reach());
        Some(Self {
            width,
            panels,
            taps: (0..taps).map(|tap| tap / columns.kernel * down + tap % columns.kernel * right).collect(),
            lines: (0..rows.output).map(line).collect(),
            steps: [columns.stride * input.pixel, output.pixel],
            columns: columns.output,
            weights,
            bias,
            bounds: [linear.low, linear.high],
            images: batch,
            image: [input.image, output.image],
            reach: [
                origin + input.span([batch, high, wide], inputs),
                output.start + output.span([batch, rows.output, columns.output], outputs),
            ],
        })
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() < self.reach[0] || output.len() < self.reach[1] {
            return None;
        }
        for image in 0..self.images {
            let input = input.get(image * self.image[0]..)?.as_ptr();
            let output = output.get_mut(image * self.image[1]..)?.as_mut_ptr();
            for panel in &self.panels {
                // SAFETY: `width` proves the instruction set. `new` packed a register a tap and panel, and took `reach` over all that panels
                // read and write; the buffers reach that far.
                unsafe {
                    match self.width.registers {
                        Registers::Bits512 => panel_512(self, panel, input, output),
                        Registers::Bits256 => panel_256(self, panel, input, output),
                    }
                }
            }
        }
        Some(())
    }
}
