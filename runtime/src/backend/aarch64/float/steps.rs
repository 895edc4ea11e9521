//! Which steps of floats the kernels take, and as what layers.

use std::borrow::Cow;

use super::super::conv::Conv;
use super::arithmetic::{Bounds, Half, Single};
use super::depthwise::Depthwise;
use super::elementwise::{Elementwise, Function};
use super::pool::{self, Pool};
use crate::Step;
use crate::backend::vector::geometry::Geometry;
use crate::host::program::form::{Border, Element, Image, Want, extents};
use crate::host::program::{Constants, Layer, Wants};
use crate::math::from_half;
use crate::ops::linear;
use crate::ops::window::{Axis, Window};
use crate::ops::{OpCode, add, conv2d, dense, pool2d};

/// Positions up to which weights of 16 bits are widened anew for each block.
const FEW_POSITIONS: usize = 2;

/// A step of `f32` for which there are kernels.
pub enum Float {
    /// A convolution or a dense layer; the weights of an output channel stand side by side.
    Conv(Geometry, [f32; 2]),
    /// A depthwise convolution; the weights of a tap stand side by side.
    Depthwise(Geometry, [f32; 2]),
    /// A pool.
    Pool(pool::Function, Window, [f32; 2]),
    /// A function of two values.
    Elementwise(Function, [f32; 2]),
}

impl Float {
    /// `None`: another step.
    pub fn of(step: &Step<'_>) -> Option<Self> {
        let (input, output) = (step.input(0)?, step.output(0)?);
        let bounds = |low: u32, high: u32| [low, high].map(f32::from_bits);
        let code = OpCode::parse(step.op())?;
        let found = match code {
            OpCode::Conv2dF32
            | OpCode::Conv2dF16
            | OpCode::DepthwiseConv2dF32
            | OpCode::DepthwiseConv2dF16 => {
                let p = conv2d::Parameters::parse(step.parameters())?;
                let window = p.window(&input, &output).ok()?;
                let geometry = Geometry { window, groups: p.groups as usize };
                let bounds = bounds(p.act_min, p.act_max);
                match code {
                    OpCode::Conv2dF32 | OpCode::Conv2dF16 => Self::Conv(geometry, bounds),
                    _ => Self::Depthwise(geometry, bounds),
                }
            }
            OpCode::DenseF32 | OpCode::DenseF16 => {
                let p = dense::Parameters::parse(step.parameters())?;
                let ([batch, rows, columns, inputs], [.., outputs]) = (extents(&input), extents(&output));
                let geometry = Geometry::dense([batch, rows, columns], inputs, outputs);
                Self::Conv(geometry, bounds(p.act_min, p.act_max))
            }
            OpCode::MaxPool2dF32 | OpCode::AveragePool2dF32 => {
                let p = pool2d::Parameters::parse(step.parameters())?;
                let padding = p.count_include_pad != 0;
                let function = match code {
                    OpCode::MaxPool2dF32 => pool::Function::Maximum,
                    _ => pool::Function::Mean { padding },
                };
                Self::Pool(function, p.window(&input, &output).ok()?, bounds(p.act_min, p.act_max))
            }
            OpCode::AddF32 | OpCode::MulF32 => {
                let p = add::FloatParameters::parse(step.parameters())?;
                let function = if code == OpCode::AddF32 { Function::Sum } else { Function::Product };
                Self::Elementwise(function, [p.act_min, p.act_max])
            }
            _ => return None,
        };
        Some(found).filter(Self::is_reasonable)
    }

    /// Whether borders are no larger than what they surround: hostile paddings would fill memory. A mean needs something to count.
    fn is_reasonable(&self) -> bool {
        match self {
            Self::Conv(geometry, _) => has_small_border(geometry),
            Self::Depthwise(geometry, _) => {
                has_small_border(geometry) && geometry.window.inputs == geometry.window.outputs
            }
            Self::Pool(pool::Function::Mean { padding: false }, window, _) => {
                let empty = |axis: &Axis| (0..axis.output).any(|at| axis.run(at).length == 0);
                !empty(&window.rows) && !empty(&window.columns)
            }
            Self::Pool(..) | Self::Elementwise(..) => true,
        }
    }

    /// The forms of the operands.
    pub fn wants(&self) -> Wants {
        let want = |border| Want { element: Element::Stored, border, dense: false };
        let inputs = match self {
            Self::Conv(geometry, _) | Self::Depthwise(geometry, _) => vec![want(geometry.border())],
            Self::Pool(..) => vec![want(Border::NONE)],
            Self::Elementwise(..) => vec![want(Border::NONE); 2],
        };
        Wants { inputs, output: Element::Stored, dense: false }
    }

    /// The layer of the step.
    pub fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        let (first, others) = inputs.split_first()?;
        let images = [first, output];
        Some(match self {
            Self::Conv(geometry, bounds) | Self::Depthwise(geometry, bounds) => {
                let bias = step.weight_f32(1)?;
                let Window { rows, columns, outputs, .. } = geometry.window;
                let depth = rows.kernel * columns.kernel * geometry.group_inputs();
                let halves = step.weight_f16(0);
                let count = halves.map(<[u16]>::len).or(step.weight_f32(0).map(<[f32]>::len))?;
                if !geometry.fits(first, output) || bias.len() != outputs || count != depth * outputs {
                    return None;
                }
                // Sums start with the bias. Lanes behind the last channel hold what nobody reads.
                let start = |vectors: usize, at: usize| -> Vec<u32> {
                    let lane = |lane: usize| bias.get(at + lane).map_or(0, |bias| bias.to_bits());
                    (0..4 * vectors).map(lane).collect()
                };
                let finish = Bounds(*bounds);
                let positions = geometry.window.batch * rows.output * columns.output;
                match (self, halves) {
                    (Self::Depthwise(..), _) => {
                        let [low, high] = *bounds;
                        let linear = linear::Float { weights: &weights(step)?, bias, low, high };
                        Box::new(Depthwise::new(geometry, &linear, images, constants)?)
                    }
                    (_, Some(halves)) if positions <= FEW_POSITIONS => {
                        let weight = |o: usize, k: usize| halves[o * depth + k];
                        Box::new(Conv::<Half>::new(geometry, &weight, &start, finish, images, constants)?)
                    }
                    _ => {
                        let weights = weights(step)?;
                        let weight = |o: usize, k: usize| weights[o * depth + k];
                        Box::new(Conv::<Single>::new(geometry, &weight, &start, finish, images, constants)?)
                    }
                }
            }
            Self::Pool(function, window, bounds) => Box::new(Pool::new(*function, window, *bounds, images)?),
            Self::Elementwise(function, bounds) => {
                Box::new(Elementwise::new(*function, *bounds, [first, others.first()?], output)?)
            }
        })
    }
}

fn has_small_border(geometry: &Geometry) -> bool {
    let Border { top, left, bottom, right } = geometry.border();
    let (rows, columns) = (&geometry.window.rows, &geometry.window.columns);
    top + bottom <= rows.input + 64 && left + right <= columns.input + 64
}

/// The weights of a step as `f32`, those of binary16 widened.
fn weights<'a>(step: &Step<'a>) -> Option<Cow<'a, [f32]>> {
    let widened = || Some(step.weight_f16(0)?.iter().map(|&bits| from_half(bits)).collect());
    step.weight_f32(0).map(Cow::Borrowed).or_else(|| widened().map(Cow::Owned))
}
