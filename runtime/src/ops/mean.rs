//! Mean over all rows and columns of each channel, `[n, h, w, c]` to `[n, 1, 1, c]`, with a quantisation of its own: a mean's range is
//! often far smaller than that of what it is taken of. Refuses images of more than 2^23 pixels, whose sum may pass an `i32`.
//!
//! With `sum` over the pixels of `x - zp_in`, the output is `clamp(zp_out + requantize(sum, multiplier, shift), act_min, act_max)`, see
//! [`crate::quant::requantize`]; the factor is `s_in / (s_out * h * w)`.

use super::linear::check_bounds;
use super::operands::{Family, apart, ends};
use super::window::Window;
use super::{OpCode, Operator};
use crate::arena::Memory;
use crate::backend::Backend;
use crate::blob::TensorRecord;
use crate::error::ErrorKind;
use crate::model::Step;
use crate::quant::{MAX_SHIFT, MIN_SHIFT};

/// Parameters of [`OpCode::Mean2dI8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Factor from the sum to output units, Q31. Not negative.
    pub multiplier: i32,
    /// Shift that goes with it, positive to the left. The greatest sum, `255 * h * w`, must fit an `i32` after it.
    pub shift: i32,
    /// Least output, in stored units.
    pub act_min: i32,
    /// Greatest output, in stored units.
    pub act_max: i32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[multiplier, shift, act_min, act_max] = words else { return None };
        Some(Self {
            multiplier: multiplier as i32,
            shift: shift as i32,
            act_min: act_min as i32,
            act_max: act_max as i32,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 4] {
        [self.multiplier as u32, self.shift as u32, self.act_min as u32, self.act_max as u32]
    }

    /// Whether no sum over `area` pixels overflows, neither itself nor shifted.
    pub fn fits(&self, area: u32) -> bool {
        let greatest = i64::from(area).wrapping_mul(255);
        let legal = self.multiplier >= 0 && (MIN_SHIFT..=MAX_SHIFT).contains(&self.shift);
        legal && area <= 1 << 23 && greatest <= i64::from(i32::MAX >> self.shift.clamp(0, MAX_SHIFT))
    }
}

/// The one window: all of the image.
fn window(input: &TensorRecord, output: &TensorRecord) -> Result<Window, ErrorKind> {
    let [_, rows, columns, _] = input.shape;
    Window::new(input, output, [rows, columns], [1, 1], [1, 1], [0; 4])
}

/// [`OpCode::Mean2dI8`].
pub struct Mean2dI8;

impl Operator for Mean2dI8 {
    const CODE: u16 = OpCode::Mean2dI8 as u16;

    #[inline(never)]
    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (input, output) = &ends(step, (1, 1, 0))?;
        Family::I8.check(input, output)?;
        let p = Parameters::parse(step.parameters()).ok_or(ErrorKind::OperandCount)?;
        let window = window(input, output)?;
        if window.inputs != window.outputs {
            return Err(ErrorKind::Shape);
        }
        let [_, rows, columns, _] = input.shape;
        if !rows.checked_mul(columns).is_some_and(|area| p.fits(area)) {
            return Err(ErrorKind::Parameter);
        }
        check_bounds(p.act_min, p.act_max, output.dtype)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let p = Parameters::parse(step.parameters())?;
        let (from, to) = &step.ends()?;
        let window = window(from, to).ok()?;
        let (input, output) = apart(step.views(memory)?)?;
        backend.mean2d_i8(&window, &p, [from.zero_point, to.zero_point], input, output)
    }
}
