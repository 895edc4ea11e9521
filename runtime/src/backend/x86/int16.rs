//! Linear layers from or to 16 bits: the inner values of factorised layers.
//!
//! Weights are `i8`, sums 32 bits wide and modulo 2^32, as the operators have it. Inputs of 16 bits have the zero point 0 and lie as the blob stores
//! them, with borders of zeros; inputs of 8 bits have 128 added, as everywhere. A layer is written once for all instruction sets, which
//! differ in what [`Lanes`] and [`Arithmetic`] say.

mod conv;
mod depthwise;
mod requantize;

use super::lanes::{Arithmetic, Bytes512, Lanes, Words256, Words512};
use super::layer::joined;
use super::steps::Width;
use crate::Step;
use crate::backend::vector::geometry::Geometry;
use crate::backend::vector::int8::{rows, taps};
use crate::blob::{DType, Packing};
use crate::host::program::form::{Element, Image, Want, extents};
use crate::host::program::{Constants, Layer, Wants};
use crate::ops::linear::Integer;
use crate::ops::{OpCode, conv2d, dense};
use conv::Conv;
use depthwise::Depthwise;
use requantize::{Bounds, Channel};

/// A linear step of which an operand has 16 bits.
pub struct Int16<'a> {
    geometry: Geometry,
    linear: Integer<'a>,
    depthwise: bool,
    /// Types of input and output.
    types: [DType; 2],
}

impl<'a> Int16<'a> {
    /// `None`: another step.
    pub fn of(step: &Step<'a>) -> Option<Self> {
        let (input, output) = (step.input(0)?, step.output(0)?);
        let op = OpCode::parse(step.op())?;
        let (geometry, bounds) = match op {
            OpCode::Conv2dI16 | OpCode::DepthwiseConv2dI16 => {
                let p = conv2d::Parameters::parse(step.parameters())?;
                let geometry =
                    Geometry { window: p.window(&input, &output).ok()?, groups: p.groups as usize };
                (geometry, [p.act_min, p.act_max])
            }
            OpCode::DenseI16 => {
                let p = dense::Parameters::parse(step.parameters())?;
                let ([batch, rows, columns, inputs], [.., outputs]) = (extents(&input), extents(&output));
                (Geometry::dense([batch, rows, columns], inputs, outputs), [p.act_min, p.act_max])
            }
            _ => return None,
        };
        let [low, high] = bounds;
        let linear = Integer::of(step, low, high).filter(|linear| linear.packing == Packing::Rows)?;
        let depthwise = op == OpCode::DepthwiseConv2dI16;
        let types = [input.dtype, output.dtype];
        Some(Self { geometry, linear, depthwise, types }).filter(|step| step.geometry.has_small_border())
    }

    /// Whether the kernel is one of single channels.
    fn is_depthwise(&self) -> bool {
        self.depthwise && self.geometry.window.inputs == self.geometry.window.outputs
    }

    /// The forms of the operands.
    pub fn wants(&self, width: Width) -> Wants {
        // Bytes are what the kernels of 8 bits make and take.
        let bytes = width.bytes();
        let element =
            |dtype: DType, bytes: Element| if dtype == DType::I16 { Element::Stored } else { bytes };
        let [input, output] = self.types;
        let input = element(input, if self.is_depthwise() { Element::Offset16 } else { bytes });
        let want = Want { element: input, border: self.geometry.border(), dense: false };
        Wants { inputs: vec![want], output: element(output, bytes), dense: false }
    }

    /// The layer.
    pub fn layer(
        &self,
        width: Width,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        let [input] = inputs else { return None };
        if !self.geometry.fits(input, output) {
            return None;
        }
        match (width, input.element_bytes()) {
            (Width::Bits256, _) => self.of_width::<Words256>(input, output, constants),
            (Width::Bits512, 1) => self.of_width::<Bytes512>(input, output, constants),
            (Width::Bits512, _) => self.of_width::<Words512>(input, output, constants),
        }
    }

    fn of_width<A: Arithmetic>(
        &self,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        let (geometry, linear) = (&self.geometry, &self.linear);
        let bounds = Bounds::new(linear, output);
        if self.is_depthwise() {
            let weight = taps(geometry, linear);
            let count = geometry.window.rows.kernel * geometry.window.columns.kernel;
            let channel = |c: usize| Channel::new(linear, input, c, (0..count).map(|t| weight(t, c)));
            let all: Vec<Channel> = (0..geometry.window.outputs).map(channel).collect::<Option<_>>()?;
            return Some(Box::new(Depthwise::<A>::new(
                geometry, bounds, &all, &weight, input, output, constants,
            )?));
        }
        if self.depthwise {
            let (geometry, weight) = joined(geometry, linear);
            return Some(Box::new(Conv::<A>::new(
                &geometry, linear, bounds, &weight, input, output, constants,
            )?));
        }
        let weight = rows(geometry, linear);
        Some(Box::new(Conv::<A>::new(geometry, linear, bounds, &weight, input, output, constants)?))
    }
}

/// Lanes of a pair of registers in the order in which interleaving words leaves them: the element in lane `lane` of both together.
fn interleaved<V: Lanes>(lane: usize) -> usize {
    let (register, lane) = (lane / V::COUNT, lane % V::COUNT);
    lane / 4 * 8 + register * 4 + lane % 4
}
