//! How vector kernels requantise: constants of each channel, and the proof that they give the bits of [`crate::quant::requantize`].
//!
//! A channel's output is a growing function of its accumulator, and so is what a conversion to `f32`, a fused multiply-add and a conversion back
//! compute. Two such functions are equal everywhere if they are equal at both ends and at both sides of each of the at most 255 steps of the output. So a search for
//! a scale and a constant near the exact ones either proves that three instructions suffice for a channel, or that it needs integers.

use crate::ops::linear::Integer;
use crate::ops::mean;
use crate::quant::requantize;

/// How many channels a vector of factors holds at most.
pub const LANES: usize = 16;

/// How a group of channels is requantised, the cheapest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// `round(accumulator * scale + constant)`, with the zero point in the constant.
    #[default]
    Float,
    /// As `Float`, with another constant for negative accumulators.
    SignedFloat,
    /// As `Float`, but each channel may have an accumulator for which 1 is added.
    Corrected,
    /// As `SignedFloat`, with such an accumulator.
    SignedCorrected,
    /// As `Corrected`, with up to two accumulators.
    Twice,
    /// As `SignedCorrected`, with up to two.
    SignedTwice,
    /// As `Float`, but for vectors that hold a channel for which floats don't serve: a 64-bit product with a rounding constant. There the shift to the
    /// right is not 0, and what is not positive is the least output.
    Mixed,
    /// As `SignedFloat`, with products that are corrected by the sign; accumulators fit 31 bits.
    SignedMixed,
    /// By the definition.
    Definition,
}

/// Modes as constants, [`Mode`] in order.
pub const FLOAT: u8 = Mode::Float as u8;
/// See [`FLOAT`].
pub const SIGNED_FLOAT: u8 = Mode::SignedFloat as u8;
/// See [`FLOAT`].
pub const CORRECTED: u8 = Mode::Corrected as u8;
/// See [`FLOAT`].
pub const SIGNED_CORRECTED: u8 = Mode::SignedCorrected as u8;
/// See [`FLOAT`].
pub const TWICE: u8 = Mode::Twice as u8;
/// See [`FLOAT`].
pub const SIGNED_TWICE: u8 = Mode::SignedTwice as u8;
/// See [`FLOAT`].
pub const MIXED: u8 = Mode::Mixed as u8;
/// See [`FLOAT`].
pub const SIGNED_MIXED: u8 = Mode::SignedMixed as u8;
/// See [`FLOAT`].
pub const DEFINITION: u8 = Mode::Definition as u8;

/// One output channel: what it may accumulate and what it makes of it.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Bias for inputs that have 128 added.
    pub bias: i32,
    /// Q31 factor.
    pub multiplier: i32,
    /// Shift of [`requantize`].
    pub shift: i32,
    /// Least and greatest accumulator, if none passes 32 bits.
    pub range: Option<[i32; 2]>,
    /// Zero point of the output.
    pub zero: i32,
    /// Least output.
    pub low: i32,
    /// Greatest output.
    pub high: i32,
}

impl Channel {
    /// Output channel `o` of a linear operator, with the weights that it has.
    pub fn new(linear: &Integer<'_>, o: usize, weights: impl Iterator<Item = i8> + Clone) -> Option<Self> {
        let bias = *linear.bias.get(o)?;
        let zero_in = i32::from(linear.input_zero);
        let sum = weights.clone().fold(0i32, |sum, w| sum.wrapping_add(w.into()));
        let (mut least, mut most) = (i64::from(bias), i64::from(bias));
        for w in weights {
            let ends = [-128 - zero_in, 127 - zero_in].map(|x| i64::from(x) * i64::from(w));
            least += ends[0].min(ends[1]);
            most += ends[0].max(ends[1]);
        }
        let range = i32::try_from(least).ok().zip(i32::try_from(most).ok()).map(|(low, high)| [low, high]);
        Some(Self {
            bias: bias.wrapping_sub((zero_in + 128).wrapping_mul(sum)),
            multiplier: *linear.multiplier.get(o)?,
            shift: *linear.shift.get(o)?,
            range,
            zero: linear.output_zero,
            low: linear.low,
            high: linear.high,
        })
    }

    /// The mean over an image of `area` pixels: each has the weight 1.
    pub fn mean(p: &mean::Parameters, area: usize, [zero_in, zero_out]: [i32; 2]) -> Self {
        let area = area as i32;
        Self {
            bias: area.wrapping_mul(zero_in + 128).wrapping_neg(),
            multiplier: p.multiplier,
            shift: p.shift,
            range: Some([-128 - zero_in, 127 - zero_in].map(|x| area.wrapping_mul(x))),
            zero: zero_out,
            low: p.act_min,
            high: p.act_max,
        }
    }

    /// The output for an accumulator.
    fn output(&self, accumulator: i32) -> i32 {
        requantize(accumulator, self.multiplier, self.shift)
            .wrapping_add(self.zero)
            .max(self.low)
            .min(self.high)
    }

    /// The real factor.
    fn factor(&self) -> f64 {
        f64::from(self.multiplier) * f64::from(self.shift - 31).exp2()
    }

    /// Accumulators at both sides of every step of the output and `beyond` further ones on each side; the least of the range and 0, where other constants
    /// begin, and as many behind each; the greatest, and the last below 0; with their outputs. `None` if the output may fall.
    fn edges(&self, beyond: i32) -> Option<Vec<(i32, i32)>> {
        let [least, most] = self.range?;
        let factor = self.factor();
        // No product, shifted to the left or rounded, passes an `i32`.
        let greatest = f64::from(least).abs().max(f64::from(most).abs());
        if self.multiplier <= 0 || greatest * f64::from(self.shift.max(0)).exp2() >= f64::from(1 << 30) {
            return None;
        }
        let mut edges = vec![most];
        let begins = (least..=least.saturating_add(beyond)).chain(-1..=beyond);
        edges.extend(begins.filter(|at| (least..=most).contains(at)));
        let (first, last) = (self.output(least), self.output(most));
        for step in first + 1..=last {
            let near = ((f64::from(step - self.zero) - 0.5) / factor).ceil();
            let mut at = (near as i32).clamp(least + 1, most);
            while at > least + 1 && self.output(at - 1) >= step {
                at -= 1;
            }
            while at < most && self.output(at) < step {
                at += 1;
            }
            edges.extend((at - 1 - beyond..=at + beyond).filter(|at| (least..=most).contains(at)));
        }
        Some(edges.into_iter().map(|at| (at, self.output(at))).collect())
    }

    /// Scale and constants with which a fused multiply-add gives the bits; the constants are equal where that is possible, and as few accumulators
    /// as possible are exceptions; with `corrected` up to [`EXCEPTIONS`] may be. `None` if none were found. The processor has FMA.
    fn floats(&self, corrected: bool) -> Option<Floats> {
        let exact = self.factor() as f32;
        let scales =
            [0i32, 1, -1, 2, -2].map(|ulps| f32::from_bits(exact.to_bits().wrapping_add_signed(ulps)));
        let usable = |scale: &f32| scale.is_normal() && *scale > 0.0 && *scale <= 2.0;
        let scales: Vec<f32> = scales.into_iter().filter(usable).collect();
        let search = |edges: Vec<(i32, i32)>, exceptions: usize| {
            let one = scales.iter().find_map(|&scale| {
                let (constant, exceptions) = self.constant(scale, &edges, exceptions)?;
                Some(Floats { scale, constants: [constant; 2], exceptions })
            });
            one.or_else(|| {
                let (negative, positive): (Vec<_>, Vec<_>) = edges.into_iter().partition(|(at, _)| *at < 0);
                scales.iter().find_map(|&scale| {
                    let (from_zero, above) = self.constant(scale, &positive, exceptions)?;
                    let left = exceptions - above.iter().flatten().count();
                    let (below, mut all) = self.constant(scale, &negative, left)?;
                    let free = all.iter_mut().filter(|place| place.is_none());
                    free.zip(above.into_iter().flatten()).for_each(|(place, at)| *place = Some(at));
                    Some(Floats { scale, constants: [from_zero, below], exceptions: all })
                })
            })
        };
        // Where so few of the accumulators behind a step, or behind the first of a constant, are exceptions, all further ones are right: both functions
        // grow.
        let most = if corrected { EXCEPTIONS } else { 0 };
        (0..=most).find_map(|exceptions| search(self.edges(exceptions as i32)?, exceptions))
    }

    /// A constant that goes with a scale for all given accumulators and outputs, but for at most some exceptions of which the output is by 1 too
    /// low; and those accumulators.
    fn constant(
        &self,
        scale: f32,
        edges: &[(i32, i32)],
        exceptions: usize,
    ) -> Option<(f32, [Option<i32>; EXCEPTIONS])> {
        // The greatest lower bounds of the constant, by accumulator, falling.
        let mut least = [(f64::NEG_INFINITY, 0); EXCEPTIONS + 1];
        let mut most = f64::INFINITY;
        for &(at, output) in edges {
            let rest = f64::from(output) - f64::from(at) * f64::from(scale);
            if output < self.high {
                most = most.min(rest + 0.5);
            }
            let bound = (rest - 0.5, at);
            if output <= self.low || least.contains(&bound) {
                continue;
            }
            let place = least.iter().position(|other| bound.0 > other.0);
            if let Some(place) = place {
                least[place..].rotate_right(1);
                least[place] = bound;
            }
        }
        let (least, _) = *least.get(exceptions)?;
        if least > most {
            return None;
        }
        let middle = match (least.is_finite(), most.is_finite()) {
            (true, true) => (least + most) / 2.0,
            (true, false) => least + 0.25,
            (false, true) => most - 0.25,
            (false, false) => f64::from(self.zero),
        };
        let holds = |constant: f32| {
            let mut found = [None; EXCEPTIONS];
            for &(at, output) in edges {
                let value = (at as f32).mul_add(scale, constant).round_ties_even();
                if value.abs() >= 1e9 {
                    return None;
                }
                let bounded = |value: i32| value.max(self.low).min(self.high);
                if bounded(value as i32) == output || found.contains(&Some(at)) {
                    continue;
                }
                let place = found.get_mut(..exceptions)?.iter_mut().find(|place| place.is_none())?;
                if bounded(value as i32 + 1) != output {
                    return None;
                }
                *place = Some(at);
            }
            Some((constant, found))
        };
        let gap = (most - least).abs().min(1e-4) / 4.0;
        [0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5]
            .into_iter()
            .find_map(|part| holds((middle + part * gap) as f32))
    }

    /// Whether a 64-bit product with one rounding constant serves.
    fn is_product(&self) -> bool {
        let small = self.range.is_some_and(|[least, most]| least > -(1 << 30) && most < 1 << 30);
        // The zero point is part of the rounding constant, whose high half it must fit.
        self.shift < 0 && self.shift >= -22 && small
    }
}

/// Factors of one vector of channels: biases, then by mode
/// - floats: scales, constants, two rows of accumulators that are exceptions, constants of negative accumulators; where vectors may be of products
///   a row of zeros stands in place of the second exceptions;
/// - product: multipliers, those of odd lanes in 64 bits, rounding constants with the zero point of even and of odd lanes in 64 bits, the first odd
///   one not 0, shifts; with the sign twice the constants, without it a shift less by 1;
/// - definition: multipliers, those of odd lanes in 64 bits, shifts to the left, to the right.
pub type Factors = [[u32; LANES]; 6];

/// How many of the first rows of factors a mode reads.
pub const fn rows(mode: u8) -> usize {
    match mode {
        FLOAT => 3,
        CORRECTED => 4,
        TWICE | DEFINITION => 5,
        _ => 6,
    }
}

/// The floats that were found for a channel.
#[derive(Clone, Copy, Debug)]
pub struct Floats {
    scale: f32,
    /// For accumulators from 0 on, and below.
    constants: [f32; 2],
    /// Accumulators of which the output is greater by 1.
    exceptions: [Option<i32>; EXCEPTIONS],
}

/// How many accumulators of a channel may be exceptions.
const EXCEPTIONS: usize = 2;

/// Searches the mode of a group of channels, and floats for each. With `corrected` the modes of that name are better than products: they are longer in
/// latency, but free the ports of multiplications.
pub fn mode(channels: &[Channel], corrected: bool) -> (Mode, Vec<Option<Floats>>) {
    let signed = |all: &[Option<Floats>]| all.iter().flatten().any(|f| f.constants[0] != f.constants[1]);
    let mut floats: Vec<Option<Floats>> = channels.iter().map(|channel| channel.floats(corrected)).collect();
    if floats.iter().all(Option::is_some) {
        let exceptions = floats.iter().flatten().map(|floats| floats.exceptions.iter().flatten().count());
        let mode = match (exceptions.max().unwrap_or_default(), signed(&floats)) {
            (0, false) => Mode::Float,
            (0, true) => Mode::SignedFloat,
            (1, false) => Mode::Corrected,
            (1, true) => Mode::SignedCorrected,
            (_, false) => Mode::Twice,
            (_, true) => Mode::SignedTwice,
        };
        return (mode, floats);
    }
    let exact = |floats: &Floats| floats.exceptions == [None; EXCEPTIONS];
    floats.iter_mut().for_each(|floats| *floats = floats.filter(exact));
    let mode = if channels.iter().all(Channel::is_product) {
        let rectified = channels.iter().all(|channel| channel.low >= channel.zero);
        if signed(&floats) || !rectified { Mode::SignedMixed } else { Mode::Mixed }
    } else {
        Mode::Definition
    };
    (mode, floats)
}

/// Accumulators that floats were found for stay above this one.
pub const NO_EXCEPTION: i32 = i32::MIN;

/// Factors for the channels of each lane of a vector; `None`: a lane without one.
pub fn factors(mode: Mode, lanes: [Option<(Channel, Option<Floats>)>; LANES]) -> Factors {
    let mut factors = Factors::default();
    if matches!(mode, Mode::Corrected | Mode::SignedCorrected | Mode::Twice | Mode::SignedTwice) {
        factors[3..5].fill([NO_EXCEPTION as u32; LANES]);
    }
    let product = lanes.iter().flatten().any(|(_, floats)| floats.is_none());
    for (lane, found) in lanes.into_iter().enumerate() {
        let Some((channel, floats)) = found else { continue };
        let multiplier = channel.multiplier;
        let mut wide = |row: usize, value: i64| {
            factors[row][lane & !1] = value as u32;
            factors[row][lane | 1] = (value >> 32) as u32;
        };
        if mode == Mode::Definition || product {
            if lane % 2 == 1 {
                wide(2, multiplier.into());
            }
            factors[1][lane] = multiplier as u32;
        }
        let right = -channel.shift;
        if mode == Mode::Definition {
            factors[3][lane] = channel.shift.max(0) as u32;
            factors[4][lane] = right.max(0) as u32;
        } else if product {
            let signed = i32::from(mode == Mode::SignedMixed);
            let zero = i64::from(channel.zero) << (31 + right);
            let constant = ((1i64 << 30) + (1i64 << (30 + right)) + zero) << signed;
            let row = if lane % 2 == 1 { 4 } else { 3 };
            factors[row][lane & !1] = constant as u32;
            factors[row][lane | 1] = (constant >> 32) as u32;
            factors[5][lane] = (right - 1 + signed) as u32;
        } else if let Some(Floats { scale, constants: [positive, negative], exceptions }) = floats {
            for (row, value) in [(1, scale), (2, positive), (5, negative)] {
                factors[row][lane] = value.to_bits();
            }
            // None where the mode knows none.
            for (row, exception) in (3..).zip(exceptions.into_iter().flatten()) {
                factors[row][lane] = exception as u32;
            }
        }
        factors[0][lane] = channel.bias as u32;
    }
    if product && matches!(mode, Mode::Mixed | Mode::SignedMixed) && factors[4][0] == 0 {
        factors[4][0] = 1 << 31;
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernels make of an accumulator.
    fn by_floats(channel: &Channel, floats: &Floats, at: i32) -> i32 {
        let constant = floats.constants[usize::from(at < 0)];
        let value = (at as f32).mul_add(floats.scale, constant).round_ties_even() as i32;
        let corrected = value + i32::from(floats.exceptions.contains(&Some(at)));
        corrected.max(channel.low).min(channel.high)
    }

    #[test]
    fn what_is_accepted_is_right_at_the_ends_and_around_zero_too() {
        let channel = |multiplier: i32, shift: i32, range: [i32; 2], zero: i32| Channel {
            bias: 0,
            multiplier,
            shift,
            range: Some(range),
            zero,
            low: -128,
            high: 127,
        };
        // Where the least accumulator is an exception, the one behind it may be another.
        let mut channels = vec![
            channel(1_383_423_889, -16, [-1_576_834, -1_322_599], 84),
            channel(1_746_563_696, -21, [-202_416_074, -198_870_570], 37),
        ];
        let mut state = 7u64;
        let mut random = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        for _ in 0..3000 {
            let shift = -(12 + random(10) as i32);
            let multiplier = (1 << 30) + random(1 << 30) as i32;
            let factor = f64::from(multiplier) * f64::from(shift - 31).exp2();
            // Few steps, so that exceptions are all that a range has.
            let width = ((1.0 + random(4) as f64) / factor) as i32;
            let least = -(random(200 << -shift) as i32);
            channels.push(channel(multiplier, shift, [least, least + width], random(256) as i32 - 128));
        }
        let mut accepted = 0;
        for channel in &channels {
            let [least, most] = channel.range.unwrap();
            for corrected in [false, true] {
                let Some(floats) = channel.floats(corrected) else { continue };
                accepted += 1;
                let near = |at: i32| (at - 40).max(least)..=(at + 40).min(most);
                for at in near(least).chain(near(most)).chain(near(0)) {
                    assert_eq!(
                        by_floats(channel, &floats, at),
                        channel.output(at),
                        "{channel:?} {floats:?} {at}"
                    );
                }
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }
}
