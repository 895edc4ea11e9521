//! Convolution with windows 3 x 3 of stride 1 in one group, whose weights are stored transformed ([`crate::blob::winograd`]): fewer multiplications for
//! more bytes. The parameters are those of [`super::conv2d`]. It gives the bits of [`super::Conv2dI8`] with the weights that were transformed.
//!
//! An operator of its own, so that a program links its code only where a blob uses it.

use super::conv2d::{Parameters, check_in_place};
use super::linear::Integer;
use super::operands::{Family, ends, maybe_in_place, tile};
use super::window::{Axis, Window};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::blob::{Packing, winograd};
use crate::error::ErrorKind;
use crate::model::Step;
use crate::region::Rows;

/// [`OpCode::WinogradConv2dI8`].
pub struct WinogradConv2dI8;

/// Windows and constants of a step that was checked.
fn parse<'a>(step: &Step<'a>) -> Option<(Window, Integer<'a>)> {
    let p = Parameters::parse(step.parameters())?;
    let window = p.window_of(step)?;
    Some((window, Integer::of(step, p.act_min, p.act_max)?))
}

impl Operator for WinogradConv2dI8 {
    const CODE: u16 = OpCode::WinogradConv2dI8 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (input, output) = &ends(step, (1, 1, 4))?;
        Family::I8.check(input, output)?;
        let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
        let window = p.window(input, output)?;
        check_in_place(step, &window)?;
        let packed = step.weight(0).is_some_and(|weights| weights.packing == Packing::Winograd);
        let three = |axis: &Axis| axis.kernel == winograd::TAPS && axis.stride == 1 && axis.dilation == 1;
        if !packed || p.groups != 1 || !three(&window.rows) || !three(&window.columns) {
            return Err(ErrorKind::Parameter);
        }
        let linear = Integer::of(step, p.act_min, p.act_max).ok_or(ErrorKind::ElementType)?;
        let [.., outputs] = output.shape;
        let bytes =
            winograd::bytes(window.inputs, window.outputs).and_then(|bytes| u32::try_from(bytes).ok());
        linear.check(bytes, outputs, output.dtype)?;
        if winograd::is_transform(linear.weights, window.inputs) { Ok(()) } else { Err(ErrorKind::Parameter) }
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let (window, linear) = parse(step)?;
        let (input, output, scratch) = maybe_in_place(step.views(memory)?)?;
        backend.winograd_conv2d_i8(&window, &linear, input, output, scratch)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let (mut window, linear) = parse(step)?;
        let (input, output, scratch) = tile(&mut window, rows, step.views(memory)?)?;
        backend.winograd_conv2d_i8(&window, &linear, Some(input), output, scratch)
    }
}
