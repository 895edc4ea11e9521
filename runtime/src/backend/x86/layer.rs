//! Which steps of integers the kernels of x86 take.

use super::geometry::Geometry;
use super::requantize::Channel;
use super::sum;
use crate::Step;
use crate::blob::Packing;
use crate::host::program::form::{Border, Element, Image, Want, extents};
use crate::host::program::{Constants, Layer, Wants};
use crate::ops::linear::Integer;
use crate::ops::{OpCode, add, conv2d, dense, mean, pool2d};

/// A step as a layer of the kernels that are in scope: those of all instruction sets have the same constructors.
macro_rules! layer {
    ($step:expr, $inputs:expr, $output:expr, $constants:expr) => {{
        let (first, others) = $inputs.split_first()?;
        let (input, output) = ($step.fitting(first, $output)?, $output);
        Some(match $step {
            Self::Conv(geometry, linear) => {
                Box::new(Conv::new(geometry, linear, &rows(geometry, linear), input, output, $constants)?)
            }
            Self::Depthwise(geometry, linear) if geometry.window.inputs == geometry.window.outputs => {
                let weight = taps(geometry, linear);
                let count = geometry.window.rows.kernel * geometry.window.columns.kernel;
                let channel = |c: usize| Channel::new(linear, c, (0..count).map(|t| weight(t, c)));
                let all: Vec<Channel> = (0..geometry.window.outputs).map(channel).collect::<Option<_>>()?;
                Box::new(Depthwise::new(geometry, &all, &weight, input, output, $constants)?)
            }
            Self::Depthwise(geometry, linear) => {
                let (geometry, weight) = joined(geometry, linear);
                Box::new(Conv::new(&geometry, linear, &weight, input, output, $constants)?)
            }
            Self::Mean(geometry, p, zero_points) => {
                let area = geometry.window.rows.kernel * geometry.window.columns.kernel;
                let all = vec![Channel::mean(p, area, *zero_points); geometry.window.outputs];
                Box::new(Depthwise::new(geometry, &all, &|_, _| 1, input, output, $constants)?)
            }
            Self::Add(sum) => Box::new(elementwise::Add::new(*sum, [input, others.first()?], output)?),
            Self::MaxPool(geometry, bounds) => {
                Box::new(elementwise::MaxPool::new(geometry, *bounds, input, output)?)
            }
        })
    }};
}

/// A step of `i8` for which there are kernels.
pub enum Int8<'a> {
    /// A convolution or a dense layer; the weights of an output channel stand side by side.
    Conv(Geometry, Integer<'a>),
    /// A depthwise convolution; the weights of a tap stand side by side.
    Depthwise(Geometry, Integer<'a>),
    /// The mean over an image, with the zero points of input and output.
    Mean(Geometry, mean::Parameters, [i32; 2]),
    /// A sum.
    Add(sum::Sum),
    /// The greatest element under windows without padding, within bounds.
    MaxPool(Geometry, [i8; 2]),
}

impl<'a> Int8<'a> {
    /// `None`: another step.
    pub fn of(step: &Step<'a>) -> Option<Self> {
        let (input, output) = (step.input(0)?, step.output(0)?);
        let plain = |linear: &Integer<'_>| linear.packing == Packing::Rows;
        match OpCode::parse(step.op())? {
            OpCode::Conv2dI8 => {
                let p = conv2d::Parameters::parse(step.parameters())?;
                let geometry =
                    Geometry { window: p.window(&input, &output).ok()?, groups: p.groups as usize };
                let linear = Integer::of(step, p.act_min, p.act_max).filter(plain)?;
                Some(Self::Conv(geometry, linear)).filter(Self::is_reasonable)
            }
            OpCode::DepthwiseConv2dI8 => {
                let p = conv2d::Parameters::parse(step.parameters())?;
                let geometry =
                    Geometry { window: p.window(&input, &output).ok()?, groups: p.groups as usize };
                let linear = Integer::of(step, p.act_min, p.act_max).filter(plain)?;
                Some(Self::Depthwise(geometry, linear)).filter(Self::is_reasonable)
            }
            OpCode::Mean2dI8 => {
                let p = mean::Parameters::parse(step.parameters())?;
                let [batch, rows, columns, channels] = extents(&input);
                let geometry = Geometry::whole(batch, rows, columns, channels);
                Some(Self::Mean(geometry, p, [input.zero_point, output.zero_point]))
            }
            OpCode::AddI8 => {
                let p = add::IntegerParameters::parse(step.parameters())?;
                let zero_points = [input.zero_point, step.input(1)?.zero_point, output.zero_point];
                sum::Sum::search(&p, zero_points).map(Self::Add)
            }
            OpCode::MaxPool2dI8 => {
                let p = pool2d::Parameters::parse(step.parameters())?;
                let geometry = Geometry { window: p.window(&input, &output).ok()?, groups: 1 };
                let bounds = [p.act_min as i8, p.act_max as i8];
                Some(Self::MaxPool(geometry, bounds)).filter(Self::is_reasonable)
            }
            OpCode::DenseI8 => {
                let p = dense::Parameters::parse(step.parameters())?;
                let linear = Integer::of(step, p.act_min, p.act_max).filter(plain)?;
                let ([batch, rows, columns, inputs], [.., outputs]) = (extents(&input), extents(&output));
                Some(Self::Conv(Geometry::dense([batch, rows, columns], inputs, outputs), linear))
            }
            _ => None,
        }
    }

    /// Whether borders are no larger than what they surround: hostile paddings would fill memory. A maximum takes no border, which would count.
    fn is_reasonable(&self) -> bool {
        match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => {
                let Border { top, left, bottom, right } = geometry.border();
                let (rows, columns) = (&geometry.window.rows, &geometry.window.columns);
                top + bottom <= rows.input + 64 && left + right <= columns.input + 64
            }
            Self::MaxPool(geometry, _) => geometry.border() == Border::NONE,
            Self::Mean(..) | Self::Add(_) => true,
        }
    }

    fn geometry(&self) -> Option<&Geometry> {
        match self {
            Self::Conv(geometry, _)
            | Self::Depthwise(geometry, _)
            | Self::Mean(geometry, ..)
            | Self::MaxPool(geometry, _) => Some(geometry),
            Self::Add(_) => None,
        }
    }

    /// The forms of the operands.
    pub fn wants(&self, element: Element) -> Wants {
        let inputs = match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => {
                vec![Want { element, border: geometry.border(), dense: false }]
            }
            Self::Mean(..) | Self::MaxPool(..) => vec![Want { element, border: Border::NONE, dense: false }],
            Self::Add(_) => vec![Want { element, border: Border::NONE, dense: false }; 2],
        };
        Wants { inputs, output: element, dense: false }
    }

    /// The layer of AVX-512.
    pub fn avx512(
        &self,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        use super::avx512::{conv::Conv, dense::Dense, depthwise::Depthwise, elementwise};
        if let Self::Conv(geometry, linear) = self
            && geometry.is_one_row()
        {
            let [input] = inputs else { return None };
            let dense =
                Dense::new(linear, &rows(geometry, linear), self.fitting(input, output)?, output, constants)?;
            return Some(Box::new(dense));
        }
        layer!(self, inputs, output, constants)
    }

    /// The layer of AVX2.
    pub fn avx2(
        &self,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        use super::avx2::{conv::Conv, depthwise::Depthwise, elementwise};
        layer!(self, inputs, output, constants)
    }

    /// The first input, if the operands have the extents and the border that windows need.
    fn fitting<'i>(&self, input: &'i Image, output: &Image) -> Option<&'i Image> {
        Some(input).filter(|input| self.geometry().is_none_or(|geometry| geometry.fits(input, output)))
    }
}

/// Weights by output channel and place, where those of a channel stand side by side.
fn rows<'w>(geometry: &Geometry, linear: &Integer<'w>) -> impl Fn(usize, usize) -> i8 + use<'w> {
    let (weights, depth) = (linear.weights, linear.weights.len() / geometry.window.outputs);
    move |o, k| weights[o * depth + k]
}

/// Weights by tap and channel, where those of a tap stand side by side.
fn taps<'w>(geometry: &Geometry, linear: &Integer<'w>) -> impl Fn(usize, usize) -> i8 + use<'w> {
    let (weights, channels) = (linear.weights, geometry.window.outputs);
    move |t, c| weights[t * channels + c]
}

/// Channels that fill a step of a convolution's inner product.
const STEP: usize = 4;

/// A depthwise convolution with several outputs for an input channel as a convolution in groups of some channels: its weights by output
/// channel and place, those between other channels zeros, which cost nothing where a step takes all the channels at once.
fn joined<'w>(
    geometry: &Geometry,
    linear: &Integer<'w>,
) -> (Geometry, impl Fn(usize, usize) -> i8 + use<'w>) {
    let (window, weight) = (geometry.window, taps(geometry, linear));
    let of = (1..=STEP).rev().find(|&of| window.inputs.is_multiple_of(of)).unwrap_or(1);
    let multiplier = window.outputs / window.inputs;
    let joined = move |o: usize, k: usize| if k % of == o / multiplier % of { weight(k / of, o) } else { 0 };
    (Geometry { window, groups: window.inputs / of }, joined)
}
