//! Which steps of integers the vector kernels take.

use super::geometry::Geometry;
use super::sum;
use crate::Step;
use crate::blob::Packing;
use crate::host::program::Wants;
use crate::host::program::form::{Border, Element, Image, Want, extents};
use crate::ops::linear::Integer;
use crate::ops::{OpCode, add, conv2d, dense, mean, pool2d};

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

    /// Whether borders are small. A maximum takes no border, which would count.
    fn is_reasonable(&self) -> bool {
        match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => geometry.has_small_border(),
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

    /// The first input, if the operands have the extents and the border that windows need.
    pub fn fitting<'i>(&self, input: &'i Image, output: &Image) -> Option<&'i Image> {
        Some(input).filter(|input| self.geometry().is_none_or(|geometry| geometry.fits(input, output)))
    }
}

/// Weights by output channel and place, where those of a channel stand side by side.
pub fn rows<'w>(geometry: &Geometry, linear: &Integer<'w>) -> impl Fn(usize, usize) -> i8 + use<'w> {
    let (weights, depth) = (linear.weights, linear.weights.len() / geometry.window.outputs);
    move |o, k| weights[o * depth + k]
}

/// Weights by tap and channel, where those of a tap stand side by side.
pub fn taps<'w>(geometry: &Geometry, linear: &Integer<'w>) -> impl Fn(usize, usize) -> i8 + use<'w> {
    let (weights, channels) = (linear.weights, geometry.window.outputs);
    move |t, c| weights[t * channels + c]
}
