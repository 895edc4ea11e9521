//! Steps of `f32` as layers of prepared programs.

use std::borrow::Cow;
use std::ops::Range;

use super::{
    AveragePool2d, Conv2d, Dense, DepthwiseConv2d, MaxPool2d, Multiplied, Place, Weights, Width, Winograd,
    add, mul, winograd,
};
use crate::Step;
use crate::blob::TensorRecord;
use crate::host::program::form::{Border, Element, Image, Want, extents};
use crate::host::program::{Frame, Layer, Wants};
use crate::math::from_half;
use crate::ops::linear::Float;
use crate::ops::window::{Axis, Window};
use crate::ops::{OpCode, add as sum, conv2d, dense, pool2d};

/// Rows up to which a dense layer takes its weights anew for each row.
const FEW_ROWS: usize = 2;

/// Padding behind the image that windows reach.
fn behind(axis: &Axis) -> usize {
    ((axis.output - 1) * axis.stride + axis.reach()).saturating_sub(axis.pad + axis.input)
}

fn ends(step: &Step<'_>) -> Option<(TensorRecord, TensorRecord)> {
    Some((step.input(0)?, step.output(0)?))
}

/// A convolution's or a depthwise one's windows and groups.
fn convolution(step: &Step<'_>) -> Option<(conv2d::Parameters, Window)> {
    let (input, output) = ends(step)?;
    let parameters = conv2d::Parameters::parse(step.parameters())?;
    let window = parameters.window(&input, &output).ok()?;
    Some((parameters, window))
}

fn pool(step: &Step<'_>) -> Option<(pool2d::Parameters, Window)> {
    let (input, output) = ends(step)?;
    let parameters = pool2d::Parameters::parse(step.parameters())?;
    let window = parameters.window(&input, &output).ok()?;
    Some((parameters, window))
}

/// Inputs and rows of a dense layer.
fn rows(step: &Step<'_>) -> Option<(usize, usize)> {
    let inputs = crate::ops::last_axis(&step.input(0)?)? as usize;
    Some((inputs, step.input(0)?.elements()?.checked_div(inputs)?))
}

/// Whether an image with its border, and weights in whole registers, are not much more than a blob's own. Padding and groups that nobody trains could
/// ask for any amount of memory; portable code needs none for them.
fn affordable(window: &Window, groups: usize, border: &Border) -> bool {
    const FREE: u128 = 1 << 24;
    let product = |factors: &[usize]| factors.iter().map(|&factor| factor as u128).product::<u128>();
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let (height, width) =
        (rows.input + border.top + border.bottom, columns.input + border.left + border.right);
    let image = product(&[batch, rows.input, columns.input, inputs]);
    let taps = [rows.kernel, columns.kernel, inputs.div_ceil(groups.max(1))];
    let lanes = outputs.div_ceil(groups.max(1)).next_multiple_of(16);
    let packed = product(&taps) * product(&[groups, lanes]);
    product(&[batch, height, width, inputs]) <= 4 * image + FREE
        && packed <= 4 * product(&taps) * outputs as u128 + FREE
}

/// The forms that the kernel of a step takes; `None` if there is no kernel for it.
pub fn wants(step: &Step<'_>) -> Option<Wants> {
    let form = |border| Want { element: Element::Stored, border, dense: false };
    let (inputs, dense) = match OpCode::parse(step.op())? {
        OpCode::Conv2dF32 | OpCode::Conv2dF16 => {
            let (parameters, window) = convolution(step)?;
            let mut border = border(&window);
            if winograd::suits(&window, parameters.groups as usize) {
                border.bottom = winograd::behind(&window.rows);
                border.right = winograd::behind(&window.columns);
            }
            if !affordable(&window, parameters.groups as usize, &border) {
                return None;
            }
            (vec![form(border)], false)
        }
        OpCode::DepthwiseConv2dF32 | OpCode::DepthwiseConv2dF16 => {
            let (_, window) = convolution(step)?;
            let border = border(&window);
            if !affordable(&window, 1, &border) {
                return None;
            }
            (vec![form(border)], false)
        }
        OpCode::DenseF32 | OpCode::DenseF16 => (vec![Want::STORED], true),
        OpCode::MaxPool2dF32 => (vec![form(Border::NONE)], false),
        OpCode::AveragePool2dF32 => {
            let (parameters, window) = pool(step)?;
            let empty = |axis: &Axis| (0..axis.output).any(|window| axis.run(window).length == 0);
            if parameters.count_include_pad == 0 && (empty(&window.rows) || empty(&window.columns)) {
                return None;
            }
            (vec![form(Border::NONE)], false)
        }
        OpCode::AddF32 | OpCode::MulF32 => (vec![form(Border::NONE); 2], false),
        _ => return None,
    };
    Some(Wants { inputs, output: Element::Stored, dense })
}

fn border(window: &Window) -> Border {
    let Window { rows, columns, .. } = window;
    Border { top: rows.pad, left: columns.pad, bottom: behind(rows), right: behind(columns) }
}

/// Where a tensor's elements lie in the bytes of an image that holds it.
fn place(tensor: &TensorRecord, image: &Image) -> Place {
    let image = if image.is_dense() { Image { extents: extents(tensor), ..*image } } else { *image };
    Place {
        start: (image.at(0, 0, 0) - image.start) / 4,
        pixel: image.pixel() / 4,
        row: image.row() / 4,
        image: image.image() / 4,
    }
}

/// A kernel with all that it needs but memory.
#[derive(Debug)]
enum Kernel {
    Conv2d(Conv2d),
    Winograd(Winograd),
    DepthwiseConv2d(DepthwiseConv2d),
    Multiplied(Multiplied),
    Dense(Dense),
    AveragePool2d(AveragePool2d),
    MaxPool2d(MaxPool2d),
    Add(Runs),
    Mul(Runs),
}

/// Elements that stand side by side in both inputs and the output, and where.
#[derive(Debug)]
struct Runs {
    width: Width,
    bounds: [f32; 2],
    starts: Vec<[usize; 3]>,
    length: usize,
}

impl Runs {
    fn new(width: Width, bounds: [f32; 2], tensor: &TensorRecord, images: [&Image; 3]) -> Self {
        let [batch, rows, columns, channels] = extents(tensor);
        let places = images.map(|image| place(tensor, image));
        if images.iter().all(|image| image.is_dense()) {
            let length = batch * rows * columns * channels;
            return Self { width, bounds, starts: vec![[0; 3]], length };
        }
        let starts = (0..batch).flat_map(|image| {
            (0..rows).map(move |row| places.map(|place| place.start + image * place.image + row * place.row))
        });
        Self { width, bounds, starts: starts.collect(), length: columns * channels }
    }

    fn run(
        &self,
        function: impl Fn(Width, [f32; 2], &[f32], &[f32], &mut [f32]) -> Option<()>,
        [a, b]: [&[f32]; 2],
        output: &mut [f32],
    ) -> Option<()> {
        let &Self { width, bounds, length, .. } = self;
        for &[first, second, written] in &self.starts {
            let (a, b) = (a.get(first..)?.get(..length)?, b.get(second..)?.get(..length)?);
            function(width, bounds, a, b, output.get_mut(written..)?.get_mut(..length)?)?;
        }
        Some(())
    }
}

#[derive(Debug)]
struct Prepared {
    kernel: Kernel,
    /// The bytes of the inputs and of the output in the arena.
    inputs: Vec<Range<usize>>,
    output: Range<usize>,
}

impl Layer for Prepared {
    fn name(&self) -> &'static str {
        match self.kernel {
            Kernel::Conv2d(_) => "conv2d_f32",
            Kernel::Winograd(_) => "conv2d_f32_winograd",
            Kernel::DepthwiseConv2d(_) => "depthwise_conv2d_f32",
            Kernel::Multiplied(_) => "depthwise_conv2d_f32, multiplied",
            Kernel::Dense(_) => "dense_f32",
            Kernel::AveragePool2d(_) => "average_pool2d_f32",
            Kernel::MaxPool2d(_) => "max_pool2d_f32",
            Kernel::Add(_) => "add_f32",
            Kernel::Mul(_) => "mul_f32",
        }
    }

    fn scratch(&self) -> usize {
        match &self.kernel {
            Kernel::Winograd(layer) => 4 * layer.scratch(),
            _ => 0,
        }
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        let output = self.output.clone();
        let [input, second, output] = match self.inputs.as_slice() {
            // A value and itself.
            [first, second] if first != second => {
                let views = frame.arena.get_disjoint_mut([first.clone(), second.clone(), output]).ok()?;
                let [first, second, output] = views;
                [&mut *first, second, output]
            }
            [first, ..] => {
                let [first, output] = frame.arena.get_disjoint_mut([first.clone(), output]).ok()?;
                [first, &mut [], output]
            }
            [] => return None,
        };
        let input: &[f32] = bytemuck::try_cast_slice(input).ok()?;
        let second: &[f32] = if second.is_empty() { input } else { bytemuck::try_cast_slice(second).ok()? };
        let output = bytemuck::try_cast_slice_mut(output).ok()?;
        match &self.kernel {
            Kernel::Conv2d(layer) => layer.run(input, output),
            Kernel::Winograd(layer) => {
                layer.run(input, output, bytemuck::try_cast_slice_mut(frame.scratch).ok()?)
            }
            Kernel::DepthwiseConv2d(layer) => layer.run(input, output),
            Kernel::Multiplied(layer) => layer.run(input, output),
            Kernel::Dense(layer) => layer.run(input, output),
            Kernel::AveragePool2d(layer) => layer.run(input, output),
            Kernel::MaxPool2d(layer) => layer.run(input, output),
            Kernel::Add(runs) => runs.run(add, [input, second], output),
            Kernel::Mul(runs) => runs.run(mul, [input, second], output),
        }
    }
}

/// The weights of a step as `f32`, those of binary16 expanded.
fn weights<'a>(step: &Step<'a>) -> Option<Cow<'a, [f32]>> {
    let expanded = || Some(step.weight_f16(0)?.iter().map(|&bits| from_half(bits)).collect());
    step.weight_f32(0).map(Cow::Borrowed).or_else(|| expanded().map(Cow::Owned))
}

/// The layer of a step for which there are wants.
pub fn layer(width: Width, step: &Step<'_>, inputs: &[Image], output: &Image) -> Option<Box<dyn Layer>> {
    let (from, to) = ends(step)?;
    let bytes = |image: &Image| image.start..image.start + image.bytes();
    let first = inputs.first()?;
    let places = [place(&from, first), place(&to, output)];
    let kernel = match OpCode::parse(step.op())? {
        OpCode::Conv2dF32 | OpCode::Conv2dF16 => {
            let (p, window) = convolution(step)?;
            let [low, high] = [p.act_min, p.act_max].map(f32::from_bits);
            let linear = Float { weights: &weights(step)?, bias: step.weight_f32(1)?, low, high };
            let ([from, to], groups) = (&places, p.groups as usize);
            if winograd::suits(&window, groups) {
                Kernel::Winograd(Winograd::new(width, &window, &linear, from, to)?)
            } else {
                Kernel::Conv2d(Conv2d::new(width, &window, groups, &linear, from, to)?)
            }
        }
        OpCode::DepthwiseConv2dF32 | OpCode::DepthwiseConv2dF16 => {
            let (p, window) = convolution(step)?;
            let [low, high] = [p.act_min, p.act_max].map(f32::from_bits);
            let linear = Float { weights: &weights(step)?, bias: step.weight_f32(1)?, low, high };
            let [from, to] = &places;
            if window.inputs == window.outputs {
                Kernel::DepthwiseConv2d(DepthwiseConv2d::new(width, &window, &linear, from, to)?)
            } else {
                Kernel::Multiplied(Multiplied::new(width, &window, &linear, from, to)?)
            }
        }
        OpCode::DenseF32 | OpCode::DenseF16 => {
            let p = dense::Parameters::parse(step.parameters())?;
            let bounds = [p.act_min, p.act_max].map(f32::from_bits);
            let (inputs, rows) = rows(step)?;
            let bias = step.weight_f32(1)?;
            if rows <= FEW_ROWS {
                let stored = match step.weight_f16(0) {
                    Some(bits) => Weights::Half(bits),
                    None => Weights::Single(step.weight_f32(0)?),
                };
                Kernel::Dense(Dense::new(width, inputs, stored, bias, bounds)?)
            } else {
                let linear = Float { weights: &weights(step)?, bias, low: bounds[0], high: bounds[1] };
                let single = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
                let columns = Axis { input: rows, output: rows, ..single };
                let window = Window { batch: 1, rows: single, columns, inputs, outputs: bias.len() };
                let [from, to] = [inputs, bias.len()].map(|pixel| Place {
                    start: 0,
                    pixel,
                    row: rows * pixel,
                    image: rows * pixel,
                });
                Kernel::Conv2d(Conv2d::new(width, &window, 1, &linear, &from, &to)?)
            }
        }
        code @ (OpCode::AveragePool2dF32 | OpCode::MaxPool2dF32) => {
            let (p, window) = pool(step)?;
            let bounds = [p.act_min, p.act_max].map(f32::from_bits);
            let [from, to] = &places;
            match code {
                OpCode::MaxPool2dF32 => Kernel::MaxPool2d(MaxPool2d::new(width, &window, bounds, from, to)?),
                _ => {
                    let counts = p.count_include_pad != 0;
                    Kernel::AveragePool2d(AveragePool2d::new(width, &window, counts, bounds, from, to)?)
                }
            }
        }
        code @ (OpCode::AddF32 | OpCode::MulF32) => {
            let p = sum::FloatParameters::parse(step.parameters())?;
            let runs = Runs::new(width, [p.act_min, p.act_max], &to, [first, inputs.get(1)?, output]);
            if code == OpCode::AddF32 { Kernel::Add(runs) } else { Kernel::Mul(runs) }
        }
        _ => return None,
    };
    let inputs = inputs.iter().map(bytes).collect();
    Some(Box::new(Prepared { kernel, inputs, output: bytes(output) }))
}
