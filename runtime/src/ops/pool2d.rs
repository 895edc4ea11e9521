//! Maximum and mean over windows of images `[n, h, w, c]`, each channel on its own.

use super::linear::{check_bounds, check_float_bounds};
use super::operands::{Family, apart, ends, same_quantisation};
use super::window::Window;
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::blob::TensorRecord;
use crate::error::ErrorKind;
use crate::model::Step;

/// Parameters of [`crate::ops::OpCode::MaxPool2dI8`], [`crate::ops::OpCode::AveragePool2dI8`] and their `f32` families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Rows from one window to the next.
    pub stride_h: u32,
    /// Columns from one window to the next.
    pub stride_w: u32,
    /// Rows of padding above the image.
    pub pad_top: u32,
    /// Columns of padding left of the image.
    pub pad_left: u32,
    /// Rows of padding below the image.
    pub pad_bottom: u32,
    /// Columns of padding right of the image.
    pub pad_right: u32,
    /// Rows of a window.
    pub kernel_h: u32,
    /// Columns of a window.
    pub kernel_w: u32,
    /// 1 if a mean counts padding as zeros, 0 if it leaves padding out. A maximum always leaves it out.
    pub count_include_pad: u32,
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
            kernel_h,
            kernel_w,
            count_include_pad,
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
            kernel_h,
            kernel_w,
            count_include_pad,
            act_min,
            act_max,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 11] {
        [
            self.stride_h,
            self.stride_w,
            self.pad_top,
            self.pad_left,
            self.pad_bottom,
            self.pad_right,
            self.kernel_h,
            self.kernel_w,
            self.count_include_pad,
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
            [1, 1],
            [self.pad_top, self.pad_left, self.pad_bottom, self.pad_right],
        )
    }
}

fn check(step: &Step<'_>, family: Family) -> Result<(), ErrorKind> {
    let (input, output) = &ends(step, (1, 1, 0))?;
    family.check(input, output)?;
    let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
    let window = p.window(input, output)?;
    if window.inputs != window.outputs {
        return Err(ErrorKind::Shape);
    }
    // Padding below a kernel's extent leaves no window without an element.
    let covered = p.pad_top.max(p.pad_bottom) < p.kernel_h && p.pad_left.max(p.pad_right) < p.kernel_w;
    // The sum of a window of i8 fits i32.
    let summable = p.kernel_h.checked_mul(p.kernel_w).is_some_and(|area| area <= 1 << 23);
    if !covered || !summable || p.count_include_pad > 1 {
        return Err(ErrorKind::Parameter);
    }
    if family == Family::F32 {
        return check_float_bounds(f32::from_bits(p.act_min), f32::from_bits(p.act_max));
    }
    same_quantisation(input, output)?;
    check_bounds(p.act_min as i32, p.act_max as i32, output.dtype)
}

/// [`OpCode::MaxPool2dI8`].
pub struct MaxPool2dI8;

impl Operator for MaxPool2dI8 {
    const CODE: u16 = OpCode::MaxPool2dI8 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = p.window(from, to).ok()?;
        let bounds = [p.act_min as i8, p.act_max as i8];
        let (input, output) = apart(step.views(memory)?)?;
        backend.max_pool2d_i8(&window, bounds, input, output)
    }
}

/// [`OpCode::MaxPool2dF32`].
pub struct MaxPool2dF32;

impl Operator for MaxPool2dF32 {
    const CODE: u16 = OpCode::MaxPool2dF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = p.window(from, to).ok()?;
        let bounds = [f32::from_bits(p.act_min), f32::from_bits(p.act_max)];
        let (input, output) = apart(step.views(memory)?)?;
        backend.max_pool2d_f32(&window, bounds, input, output)
    }
}

/// [`OpCode::AveragePool2dI8`].
pub struct AveragePool2dI8;

impl Operator for AveragePool2dI8 {
    const CODE: u16 = OpCode::AveragePool2dI8 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::I8)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = p.window(from, to).ok()?;
        let bounds = [p.act_min as i8, p.act_max as i8];
        let (input, output) = apart(step.views(memory)?)?;
        let padding = (p.count_include_pad == 1).then_some(from.zero_point as i8);
        backend.average_pool2d_i8(&window, padding, bounds, input, output)
    }
}

/// [`OpCode::AveragePool2dF32`].
pub struct AveragePool2dF32;

impl Operator for AveragePool2dF32 {
    const CODE: u16 = OpCode::AveragePool2dF32 as u16;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        check(step, Family::F32)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = p.window(from, to).ok()?;
        let bounds = [f32::from_bits(p.act_min), f32::from_bits(p.act_max)];
        let (input, output) = apart(step.views(memory)?)?;
        backend.average_pool2d_f32(&window, p.count_include_pad == 1, bounds, input, output)
    }
}
