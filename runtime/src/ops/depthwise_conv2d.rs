//! Depthwise convolution of images `[n, h, w, c]`: output channel `k` reads input channel `k / (outputs / c)` alone.

use super::conv2d::{Layer, check_layer};
use super::linear::{Float, Integer, check_halves};
use super::operands::{Family, apart, integers, integers_mut, maybe_in_place, tile};
use super::window::Axis;
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::{Backend, Integers, IntegersMut};
use crate::blob::DType;
use crate::error::ErrorKind;
use crate::model::Step;
use crate::region::Rows;

pub use super::conv2d::Parameters;

fn check(step: &Step<'_>, family: Family) -> Result<(), ErrorKind> {
    check_layer(step, family, true)
}

/// [`OpCode::DepthwiseConv2dI8`].
pub struct DepthwiseConv2dI8;

impl Operator for DepthwiseConv2dI8 {
    const CODE: u16 = OpCode::DepthwiseConv2dI8 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let layer = Layer::of(step);
        let Layer { window, linear, .. } = layer.as_ref()?;
        let (input, output, scratch) = maybe_in_place(step.views(memory)?)?;
        backend.depthwise_conv2d_i8(window, linear, input, output, scratch)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let mut layer = Layer::of(step);
        let Layer { window, linear, .. } = layer.as_mut()?;
        let (input, output, scratch) = tile(window, rows, step.views(memory)?)?;
        backend.depthwise_conv2d_i8(window, linear, Some(input), output, scratch)
    }
}

/// [`OpCode::DepthwiseConv2dI16`].
pub struct DepthwiseConv2dI16;

impl Operator for DepthwiseConv2dI16 {
    const CODE: u16 = OpCode::DepthwiseConv2dI16 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I16)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = p.window(from, to).ok()?;
        let linear = Integer::of(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let views = step.views::<1>(memory)?;
        let [input] = views.inputs;
        let input = integers(from.dtype, input?)?;
        let output = integers_mut(to.dtype, views.output)?;
        backend.depthwise_conv2d_i16(&window, linear, input, output, views.scratch)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let mut window = p.window(from, to).ok()?;
        let linear = Integer::of(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let views = step.views(memory)?;
        let (input, output, scratch) = match (from.dtype, to.dtype) {
            (DType::I16, DType::I16) => {
                let (input, output, scratch) = tile(&mut window, rows, views)?;
                (Integers::I16(input), IntegersMut::I16(output), scratch)
            }
            (DType::I16, _) => {
                let (input, output, scratch) = tile(&mut window, rows, views)?;
                (Integers::I16(input), IntegersMut::I8(output), scratch)
            }
            _ => {
                let (input, output, scratch) = tile(&mut window, rows, views)?;
                (Integers::I8(input), IntegersMut::I16(output), scratch)
            }
        };
        backend.depthwise_conv2d_i16(&window, linear, input, output, scratch)
    }
}

/// [`OpCode::DepthwiseConv2dF32`].
pub struct DepthwiseConv2dF32;

impl Operator for DepthwiseConv2dF32 {
    const CODE: u16 = OpCode::DepthwiseConv2dF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        let linear = Float::of(step, p.act_min, p.act_max)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.depthwise_conv2d_f32(&window, &linear, input, output)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let mut window = p.window_of(step)?;
        let linear = Float::of(step, p.act_min, p.act_max)?;
        let (input, output, _) = tile(&mut window, rows, step.views(memory)?)?;
        backend.depthwise_conv2d_f32(&window, &linear, input, output)
    }
}

/// [`OpCode::DepthwiseConv2dF16`].
pub struct DepthwiseConv2dF16;

impl Operator for DepthwiseConv2dF16 {
    const CODE: u16 = OpCode::DepthwiseConv2dF16 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F16)?;
        check_halves(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        let linear = Float::of_f16(step, p.act_min, p.act_max)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.depthwise_conv2d_f16(&window, &linear, input, output)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let mut window = p.window_of(step)?;
        let linear = Float::of_f16(step, p.act_min, p.act_max)?;
        let (input, output, _) = tile(&mut window, rows, step.views(memory)?)?;
        backend.depthwise_conv2d_f16(&window, &linear, input, output)
    }
}
