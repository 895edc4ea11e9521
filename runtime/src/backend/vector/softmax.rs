//! Softmax of `i8` by a table of exponentials: there are 256 differences from a row's greatest element.
//!
//! An element counts by its difference alone, so elements may have 128 added. The bits are those of portable code, of which the table is made.

use crate::Step;
use crate::backend::scalar::softmax::{SUM_INTEGER_BITS, exponential, one_over_one_plus};
use crate::blob::DType;
use crate::host::program::form::{Border, Element, Image, Want};
use crate::host::program::{Frame, Layer, Wants};
use crate::ops::OpCode;
use crate::ops::softmax::Parameters;
use crate::quant::{rounded_product, rounding_shift_right};

/// A softmax from `i8` to `i8` or `i16`.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    parameters: Parameters,
    row: usize,
}

impl Softmax {
    /// `None`: another step.
    pub fn of(step: &Step<'_>) -> Option<Self> {
        matches!(OpCode::parse(step.op())?, OpCode::SoftmaxI8 | OpCode::SoftmaxI16).then_some(())?;
        Some(Self { parameters: Parameters::parse(step.parameters())?, row: step.inputs()? as usize })
    }

    /// The forms of the operands, where others have `element`.
    pub fn wants(element: Element) -> Wants {
        let want = Want { element, border: Border::NONE, dense: true };
        Wants { inputs: vec![want], output: Element::Stored, dense: true }
    }

    /// The layer.
    pub fn layer(&self, input: &Image, output: &Image) -> Option<Box<dyn Layer>> {
        let exponentials =
            (0..=u8::MAX).map(|k| exponential(&self.parameters, (127 - i32::from(k)) as i8, i8::MAX));
        Some(Box::new(Shares {
            exponentials: exponentials.collect(),
            row: self.row.max(1),
            wide: output.dtype == DType::I16,
            input: input.start..input.start + input.bytes(),
            output: output.start..output.start + output.bytes(),
            step: input.element_bytes(),
        }))
    }
}

/// A layer, which holds the exponential of every difference.
#[derive(Debug)]
struct Shares {
    exponentials: Vec<i32>,
    row: usize,
    wide: bool,
    input: core::ops::Range<usize>,
    output: core::ops::Range<usize>,
    /// Bytes of an element, of which the first counts.
    step: usize,
}

impl Shares {
    /// Shares of one row.
    fn row(&self, exponentials: &[i32; 256], input: &[u8], output: &mut [u8]) {
        let elements = || input.iter().step_by(self.step);
        let most = elements().fold(0, |most: u8, &x| most.max(x));
        let of = |x: u8| exponentials[usize::from(most.wrapping_sub(x))];
        let sum =
            elements().fold(0i32, |sum, &x| sum.wrapping_add(rounding_shift_right(of(x), SUM_INTEGER_BITS)));
        let zeros = (sum as u32).leading_zeros();
        let fraction = (sum as u32).wrapping_shl(zeros).wrapping_sub(1 << 31) as i32;
        let reciprocal = one_over_one_plus(fraction);
        let (bits, least, greatest) = if self.wide { (16, -32768, 32767) } else { (8, -128, 127) };
        // From an exponent of 32 on all of the result is rounded away.
        let exponent = SUM_INTEGER_BITS.wrapping_sub(zeros).wrapping_add(31).wrapping_sub(bits);
        let share = |x: u8| {
            let share = rounding_shift_right(rounded_product(reciprocal, of(x)), exponent);
            let share = if exponent < 32 { share } else { 0 };
            share.wrapping_add(least).clamp(least, greatest)
        };
        if self.wide {
            let halves = output.as_chunks_mut().0.iter_mut();
            halves.zip(elements()).for_each(|(half, &x)| *half = (share(x) as i16).to_le_bytes());
        } else {
            output.iter_mut().zip(elements()).for_each(|(byte, &x)| *byte = share(x) as u8);
        }
    }
}

impl Layer for Shares {
    fn name(&self) -> &'static str {
        if self.wide { "softmax_i16" } else { "softmax_i8" }
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        let exponentials = self.exponentials.first_chunk()?;
        let [input, output] = frame.arena.get_disjoint_mut([self.input.clone(), self.output.clone()]).ok()?;
        let bytes = self.row * if self.wide { 2 } else { 1 };
        for (input, output) in input.chunks_exact(self.row * self.step).zip(output.chunks_exact_mut(bytes)) {
            self.row(exponentials, input, output);
        }
        Some(())
    }
}
