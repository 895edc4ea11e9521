//! Which steps of integers the kernels of x86 take.

use super::avx512;
use super::geometry::Geometry;
use crate::Step;
use crate::blob::Packing;
use crate::host::program::form::{Border, Element, Image, Want, extents};
use crate::host::program::{Constants, Layer, Wants};
use crate::ops::linear::Integer;
use crate::ops::{OpCode, conv2d, dense};

/// A step of `i8` for which there are kernels.
pub enum Int8<'a> {
    /// A convolution or a dense layer; the weights of an output channel stand side by side.
    Conv(Geometry, Integer<'a>),
    /// A depthwise convolution; the weights of a tap stand side by side.
    Depthwise(Geometry, Integer<'a>),
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
            OpCode::DenseI8 => {
                let p = dense::Parameters::parse(step.parameters())?;
                let linear = Integer::of(step, p.act_min, p.act_max).filter(plain)?;
                let ([.., rows, inputs], [.., outputs]) = (flat(&input), flat(&output));
                Some(Self::Conv(Geometry::dense(rows, inputs, outputs), linear))
            }
            _ => None,
        }
    }

    /// Whether borders are no larger than what they surround: hostile paddings would fill memory.
    fn is_reasonable(&self) -> bool {
        match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => {
                let Border { top, left, bottom, right } = geometry.border();
                let (rows, columns) = (&geometry.window.rows, &geometry.window.columns);
                top + bottom <= rows.input + 64 && left + right <= columns.input + 64
            }
        }
    }

    /// The forms of the operands.
    pub fn wants(&self, element: Element) -> Option<Wants> {
        let want = match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => {
                Want { element, border: geometry.border(), dense: false }
            }
        };
        Some(Wants { inputs: vec![want], output: element, dense: false })
    }

    /// The layer of AVX-512.
    pub fn avx512(
        &self,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        let [input] = inputs else { return None };
        match self {
            Self::Conv(geometry, linear) => {
                let depth = linear.weights.len() / geometry.window.outputs;
                let weight = |o: usize, k: usize| linear.weights[o * depth + k];
                Some(Box::new(avx512::conv::Conv::new(geometry, linear, &weight, input, output, constants)?))
            }
            Self::Depthwise(geometry, linear) if geometry.window.inputs == geometry.window.outputs => {
                Some(Box::new(avx512::depthwise::Depthwise::new(geometry, linear, input, output, constants)?))
            }
            Self::Depthwise(geometry, linear) => {
                let weight = |o: usize, k: usize| linear.weights[k * geometry.window.outputs + o];
                Some(Box::new(avx512::conv::Conv::new(geometry, linear, &weight, input, output, constants)?))
            }
        }
    }
}

/// Extents of a tensor as rows of its last axis.
fn flat(tensor: &crate::blob::TensorRecord) -> [usize; 2] {
    let [a, b, c, d] = extents(tensor);
    [a * b * c, d]
}
