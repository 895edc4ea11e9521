//! Two-dimensional convolution of images `[n, h, w, c]`: strides, dilation, padding of each side, groups.

use super::linear::{self, Float, Integer, check_halves};
use super::operands::{Family, apart, ends, integers, integers_mut, maybe_in_place, tile};
use super::window::{Axis, Window};
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::{Backend, Integers, IntegersMut};
use crate::blob::{DType, TensorRecord};
use crate::error::ErrorKind;
use crate::model::Step;
use crate::region::Rows;

/// Parameters of [`crate::ops::OpCode::Conv2dI8`] and its families, and of the depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Rows from one window to the next.
    pub stride_h: u32,
    /// Columns from one window to the next.
    pub stride_w: u32,
    /// Rows of zeros above the image.
    pub pad_top: u32,
    /// Columns of zeros left of the image.
    pub pad_left: u32,
    /// Rows of zeros below the image.
    pub pad_bottom: u32,
    /// Columns of zeros right of the image.
    pub pad_right: u32,
    /// Rows from one kernel row to the next in the image; 1 = dense.
    pub dilation_h: u32,
    /// Columns from one kernel column to the next in the image; 1 = dense.
    pub dilation_w: u32,
    /// Rows of the kernel.
    pub kernel_h: u32,
    /// Columns of the kernel.
    pub kernel_w: u32,
    /// Groups: output channel `o` reads the input channels of group `o / (outputs / groups)`. The number of input channels for a
    /// depthwise convolution.
    pub groups: u32,
    /// Least output: an `i32` in stored units, or the bits of an `f32`.
    pub act_min: u32,
    /// Greatest output: an `i32` in stored units, or the bits of an `f32`.
    pub act_max: u32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            dilation_h,
            dilation_w,
            kernel_h,
            kernel_w,
            groups,
            act_min,
            act_max,
        ] = words
        else {
            return None;
        };
        Some(Self {
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            dilation_h,
            dilation_w,
            kernel_h,
            kernel_w,
            groups,
            act_min,
            act_max,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 13] {
        [
            self.stride_h,
            self.stride_w,
            self.pad_top,
            self.pad_left,
            self.pad_bottom,
            self.pad_right,
            self.dilation_h,
            self.dilation_w,
            self.kernel_h,
            self.kernel_w,
            self.groups,
            self.act_min,
            self.act_max,
        ]
    }
}

impl Parameters {
    /// The windows of a step.
    pub(crate) fn window(&self, input: &TensorRecord, output: &TensorRecord) -> Result<Window, ErrorKind> {
        Window::new(
            input,
            output,
            [self.kernel_h, self.kernel_w],
            [self.stride_h, self.stride_w],
            [self.dilation_h, self.dilation_w],
            [self.pad_top, self.pad_left, self.pad_bottom, self.pad_right],
        )
    }
}

impl Parameters {
    /// The windows of a step that was checked.
    pub(super) fn window_of(&self, step: &Step<'_>) -> Option<Window> {
        let (input, output) = &step.ends()?;
        self.window(input, output).ok()
    }

    /// The row axis of a step that has one image.
    pub(super) fn rows(&self, step: &Step<'_>) -> Option<Axis> {
        let window = self.window_of(step)?;
        (window.batch == 1).then_some(window.rows)
    }
}

/// A convolution of integers, depthwise or not.
pub(super) struct Layer<'m> {
    pub window: Window,
    pub groups: usize,
    pub linear: Integer<'m>,
}

impl<'m> Layer<'m> {
    /// That of a step.
    #[inline(never)]
    pub fn of(step: &Step<'m>) -> Option<Self> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        Some(Self { window, groups: p.groups as usize, linear: Integer::of(step, p.act_min, p.act_max)? })
    }
}

fn check(step: &Step<'_>, family: Family) -> Result<(), ErrorKind> {
    check_layer(step, family, false)
}

/// Checks a convolution, or a depthwise one: the same with one input a group, whose weights are not packed.
#[inline(never)]
pub(super) fn check_layer(step: &Step<'_>, family: Family, depthwise: bool) -> Result<(), ErrorKind> {
    let (input, output) = &ends(step, (1, 1, if family.is_float() { 2 } else { 4 }))?;
    family.check(input, output)?;
    let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    check_in_place(step, &p.window(input, output)?)?;
    let [.., inputs] = input.shape;
    let [.., outputs] = output.shape;
    if inputs.checked_rem(p.groups) != Some(0)
        || outputs.checked_rem(p.groups) != Some(0)
        || (depthwise && p.groups != inputs)
    {
        return Err(ErrorKind::Parameter);
    }
    let kernel = inputs
        .checked_div(p.groups)
        .and_then(|elements| elements.checked_mul(p.kernel_h)?.checked_mul(p.kernel_w));
    if depthwise && !linear::plain(step) {
        return Err(ErrorKind::Parameter);
    }
    // A depthwise convolution's plain weights are in another order, but as many.
    linear::check(step, family, [p.act_min, p.act_max], p.groups, kernel, outputs, output.dtype)
}

/// Refuses an output in the place of the input where windows do not allow it, or where the scratch cannot hold the rows under a window.
pub(super) fn check_in_place(step: &Step<'_>, window: &Window) -> Result<(), ErrorKind> {
    if !step.in_place() {
        return Ok(());
    }
    if !window.replaces_input() {
        return Err(ErrorKind::Overlap);
    }
    if step.scratch_bytes() < window.kept_bytes() { Err(ErrorKind::Scratch) } else { Ok(()) }
}

/// [`OpCode::Conv2dI8`].
pub struct Conv2dI8;

impl Operator for Conv2dI8 {
    const CODE: u16 = OpCode::Conv2dI8 as u16;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let layer = Layer::of(step);
        let Layer { window, groups, linear } = layer.as_ref()?;
        let (input, output, scratch) = maybe_in_place(step.views(memory)?)?;
        backend.conv2d_i8(window, *groups, linear, input, output, scratch)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let mut layer = Layer::of(step);
        let Layer { window, groups, linear } = layer.as_mut()?;
        let (input, output, scratch) = tile(window, rows, step.views(memory)?)?;
        backend.conv2d_i8(window, *groups, linear, Some(input), output, scratch)
    }
}

/// [`OpCode::Conv2dI16`].
pub struct Conv2dI16;

impl Operator for Conv2dI16 {
    const CODE: u16 = OpCode::Conv2dI16 as u16;

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
        backend.conv2d_i16(&window, p.groups as usize, linear, input, output, views.scratch)
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
        backend.conv2d_i16(&window, p.groups as usize, linear, input, output, scratch)
    }
}

/// [`OpCode::Conv2dI4`].
pub struct Conv2dI4;

impl Operator for Conv2dI4 {
    const CODE: u16 = OpCode::Conv2dI4 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I4)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        let linear = Integer::of_i4x2(step, p.act_min, p.act_max);
        let linear = linear.as_ref()?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.conv2d_i4(&window, p.groups as usize, linear, input, output)
    }
}

/// [`OpCode::Conv2dF32`].
pub struct Conv2dF32;

impl Operator for Conv2dF32 {
    const CODE: u16 = OpCode::Conv2dF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        let linear = Float::of(step, p.act_min, p.act_max)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.conv2d_f32(&window, p.groups as usize, &linear, input, output)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let mut window = p.window_of(step)?;
        let linear = Float::of(step, p.act_min, p.act_max)?;
        let (input, output, _) = tile(&mut window, rows, step.views(memory)?)?;
        backend.conv2d_f32(&window, p.groups as usize, &linear, input, output)
    }
}

/// [`OpCode::Conv2dF16`].
pub struct Conv2dF16;

impl Operator for Conv2dF16 {
    const CODE: u16 = OpCode::Conv2dF16 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F16)?;
        check_halves(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let window = p.window_of(step)?;
        let linear = Float::of_f16(step, p.act_min, p.act_max)?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.conv2d_f16(&window, p.groups as usize, &linear, input, output)
    }

    fn rows(step: &Step<'_>) -> Option<Axis> {
        Parameters::parse(step.parameters())?.rows(step)
    }

    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let mut window = p.window_of(step)?;
        let linear = Float::of_f16(step, p.act_min, p.act_max)?;
        let (input, output, _) = tile(&mut window, rows, step.views(memory)?)?;
        backend.conv2d_f16(&window, p.groups as usize, &linear, input, output)
    }
}
