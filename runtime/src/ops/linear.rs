//! Constant operands that convolutions and dense layers share: weights, bias and how an accumulator becomes an output.

use super::operands::Family;
use crate::blob::{DType, Matrix, Packing, TensorRecord};
use crate::error::ErrorKind;
use crate::math::is_finite_half;
use crate::model::Step;
use crate::quant;
use crate::rolled::rolled;
use bytemuck::AnyBitPattern;

/// Operands of an integer linear operator, whose weights are stored as `W`: `i8`, or `u8` with two of 4 bits.
#[derive(Clone, Copy, Debug)]
pub struct Integer<'a, W = i8> {
    /// Weights, in the order of `packing`.
    pub weights: &'a [W],
    /// [`Packing::Rows`]: the operator's order.
    pub packing: Packing,
    /// One for each output channel, in units of input scale times weight scale. Packed weights have what [`crate::blob::Packing`] says instead.
    pub bias: &'a [i32],
    /// Q31 factor of each output channel.
    pub multiplier: &'a [i32],
    /// Shift of each output channel.
    pub shift: &'a [i32],
    /// Zero point of the input.
    pub input_zero: i16,
    /// Zero point of the output.
    pub output_zero: i32,
    /// Least output.
    pub low: i32,
    /// Greatest output.
    pub high: i32,
}

impl<'a> Integer<'a> {
    /// Takes the operands of a step, whose input and output are its first ones. No lengths are checked.
    pub fn of(step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        Self::with(DType::I8, step, act_min, act_max)
    }
}

impl<'a> Integer<'a, u8> {
    /// Like [`Integer::of`], for weights of 4 bits.
    pub fn of_i4x2(step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        Self::with(DType::I4x2, step, act_min, act_max)
    }
}

impl<'a, W: AnyBitPattern> Integer<'a, W> {
    fn with(dtype: DType, step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        let (weights, packing, [bias, multiplier, shift]) = step.linear(dtype)?;
        let [input_zero, output_zero] = step.zero_points()?;
        Some(Self {
            weights,
            packing,
            bias,
            multiplier,
            shift,
            input_zero: input_zero as i16,
            output_zero,
            low: act_min as i32,
            high: act_max as i32,
        })
    }

    /// Checks what [`Integer::of`] gives: `weights` stored elements, one bias, multiplier and shift for each of `outputs` channels, all in range.
    #[inline(never)]
    pub fn check(&self, weights: Option<u32>, outputs: u32, output: DType) -> Result<(), ErrorKind> {
        let outputs = outputs as usize;
        if Some(self.weights.len()) != weights.map(|elements| elements as usize)
            || self.bias.len() != outputs
            || self.multiplier.len() != outputs
            || self.shift.len() != outputs
        {
            return Err(ErrorKind::WeightLength);
        }
        let shifts = quant::MIN_SHIFT..=quant::MAX_SHIFT;
        for (&multiplier, shift) in self.multiplier.iter().zip(self.shift) {
            rolled();
            if multiplier < 0 || !shifts.contains(shift) {
                return Err(ErrorKind::Quantisation);
            }
        }
        check_bounds(self.low, self.high, output)
    }

    /// The output of channel `channel` for an accumulator that holds products and bias.
    #[inline]
    pub fn finish(&self, channel: usize, accumulator: i32) -> Option<i32> {
        let scaled =
            quant::requantize(accumulator, *self.multiplier.get(channel)?, *self.shift.get(channel)?);
        Some(scaled.wrapping_add(self.output_zero).max(self.low).min(self.high))
    }

    /// As [`Integer::finish`], one copy of the code for all that finish few outputs.
    #[cfg(target_arch = "arm")]
    #[inline(never)]
    pub(crate) fn finish_one(&self, channel: usize, accumulator: i32) -> Option<i32> {
        self.finish(channel, accumulator)
    }
}

/// Operands of an `f32` linear operator, whose weights are stored as `W`: `f32`, or `u16` with the bits of binary16.
#[derive(Clone, Copy, Debug)]
pub struct Float<'a, W = f32> {
    /// Weights, in the operator's order.
    pub weights: &'a [W],
    /// One for each output channel.
    pub bias: &'a [f32],
    /// Least output.
    pub low: f32,
    /// Greatest output.
    pub high: f32,
}

impl<'a> Float<'a> {
    /// Takes the operands of a step. No lengths are checked.
    pub fn of(step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        Self::with(step.weight_f32(0)?, step, act_min, act_max)
    }
}

impl<'a> Float<'a, u16> {
    /// Like [`Float::of`], for weights of binary16.
    pub fn of_f16(step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        Self::with(step.weight_f16(0)?, step, act_min, act_max)
    }
}

impl<'a, W> Float<'a, W> {
    fn with(weights: &'a [W], step: &Step<'a>, act_min: u32, act_max: u32) -> Option<Self> {
        Some(Self {
            weights,
            bias: step.weight_f32(1)?,
            low: f32::from_bits(act_min),
            high: f32::from_bits(act_max),
        })
    }

    /// Checks what [`Float::of`] gives.
    pub fn check(&self, weights: Option<u32>, outputs: u32) -> Result<(), ErrorKind> {
        if Some(self.weights.len()) != weights.map(|elements| elements as usize)
            || self.bias.len() != outputs as usize
        {
            return Err(ErrorKind::WeightLength);
        }
        check_float_bounds(self.low, self.high)
    }
}

/// Checks the constants and bounds of a linear operator in `groups` groups, whose output channels have `kernel` weights each (`None`: more than 32 bits
/// count).
#[inline(never)]
pub(super) fn check(
    step: &Step<'_>,
    family: Family,
    [act_min, act_max]: [u32; 2],
    groups: u32,
    kernel: Option<u32>,
    outputs: u32,
    output: DType,
) -> Result<(), ErrorKind> {
    let weights = kernel.and_then(|kernel| kernel.checked_mul(outputs));
    let stored = |packing: Packing| {
        let matrix = Matrix {
            groups: groups as usize,
            outputs: outputs.checked_div(groups)? as usize,
            depth: kernel? as usize,
        };
        u32::try_from(matrix.bytes(packing)?).ok()
    };
    let missing = ErrorKind::ElementType;
    match family {
        Family::F32 => Float::of(step, act_min, act_max).ok_or(missing)?.check(weights, outputs),
        Family::F16 => Float::of_f16(step, act_min, act_max).ok_or(missing)?.check(weights, outputs),
        Family::I8 | Family::I16 => {
            let linear = Integer::of(step, act_min, act_max);
            let linear = linear.as_ref().ok_or(missing)?;
            if !linear.packing.is_sound(linear.weights) {
                return Err(ErrorKind::Quantisation);
            }
            linear.check(stored(linear.packing), outputs, output)
        }
        Family::I4 => {
            let bytes = kernel.and_then(|kernel| kernel.div_ceil(2).checked_mul(outputs));
            Integer::of_i4x2(step, act_min, act_max).ok_or(missing)?.check(bytes, outputs, output)
        }
    }
}

/// Refuses weights of binary16 that are not finite.
pub(super) fn check_halves(step: &Step<'_>) -> Result<(), ErrorKind> {
    let weights = step.weight_f16(0).ok_or(ErrorKind::ElementType)?;
    if weights.iter().all(|&bits| is_finite_half(bits)) { Ok(()) } else { Err(ErrorKind::Parameter) }
}

/// Whether a step's weights are in the operator's own order.
pub(super) fn plain(step: &Step<'_>) -> bool {
    step.weight(0).is_some_and(|weights| weights.packing == Packing::Rows)
}

/// Refuses bounds that are not ordered or not values of the type.
pub(super) fn check_bounds(low: i32, high: i32, dtype: DType) -> Result<(), ErrorKind> {
    let (least, greatest) = match dtype {
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::I16 => (i16::MIN.into(), i16::MAX.into()),
        _ => return Err(ErrorKind::ElementType),
    };
    if low < least || high > greatest || low > high {
        return Err(ErrorKind::Parameter);
    }
    Ok(())
}

/// Refuses bounds that are not ordered (and so all that are not numbers). Works on bits, so that the checks of integer operators, which
/// share code with this, link no float comparison.
pub(super) fn check_float_bounds(low: f32, high: f32) -> Result<(), ErrorKind> {
    const INFINITY: u32 = 0x7F80_0000;
    // Grows with the number: negative ones have their bits turned over.
    let rank = |bits: u32| if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    let (low, high) = (low.to_bits(), high.to_bits());
    let numbers = [low, high].iter().all(|bits| bits & i32::MAX as u32 <= INFINITY);
    if numbers && rank(low) <= rank(high) { Ok(()) } else { Err(ErrorKind::Parameter) }
}

/// Refuses a tensor that is not quantised as integers are: `i8` with a zero point of its range, or `i16` with none.
pub(super) fn check_integer(record: &TensorRecord) -> Result<(), ErrorKind> {
    let legal = match record.dtype {
        DType::I8 => record.zero_point >= i8::MIN.into() && record.zero_point <= i8::MAX.into(),
        DType::I16 => record.zero_point == 0,
        _ => return Err(ErrorKind::ElementType),
    };
    if legal { Ok(()) } else { Err(ErrorKind::Quantisation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_bounds_are_ordered_numbers() {
        let values = [f32::NEG_INFINITY, -2.0, -1e-40, 0.0, 1e-40, 0.5, f32::INFINITY, f32::NAN, -f32::NAN];
        for low in values {
            for high in values {
                assert_eq!(check_float_bounds(low, high).is_ok(), low <= high, "{low} {high}");
            }
        }
    }
}
