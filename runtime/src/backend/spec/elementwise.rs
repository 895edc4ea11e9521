//! Operators without weights: which kernel takes them, and the scratch that they want. With less they run slower, with the same results.

use super::select::Isa;
use crate::model::Step;
use crate::ops::OpCode;
use crate::ops::add::IntegerParameters;

/// A sum of fewer elements is faster without tables.
pub const LEAST_TABLED: usize = 320;
/// Elements of a round of the vector extension's sum.
pub const SUM_ROUND: usize = 8;

/// Bytes of scratch that a sum of two `i8` tensors wants: a table of what each value of each input adds.
pub const fn add_scratch(isa: Isa, elements: usize) -> usize {
    let entry = match isa {
        // Vectors scale faster than tables are read; a host has other things to do than to save instructions.
        Isa::Helium | Isa::Scalar | Isa::X86 => 0,
        Isa::ThumbV6M => size_of::<i64>(),
        Isa::ThumbV7M | Isa::ThumbDsp => size_of::<i32>(),
    };
    if elements < LEAST_TABLED { 0 } else { 2 * 256 * entry }
}

/// The name of a core's own kernel for a step in reports; `None`: portable code.
pub fn select(isa: Isa, step: &Step<'_>) -> Option<&'static str> {
    let op = OpCode::parse(step.op())?;
    let sum = || Some((IntegerParameters::parse(step.parameters())?, step.output(0)?.elements()?));
    match (isa, op) {
        (Isa::ThumbDsp, OpCode::AddI8) => {
            let (p, elements) = sum()?;
            let tabled = elements >= LEAST_TABLED && step.scratch_bytes() >= add_scratch(isa, elements);
            (tabled && has_tables(&p) && has_whole_range(&p)).then_some("dsp sum")
        }
        (Isa::Helium, OpCode::AddI8) => {
            let (p, elements) = sum()?;
            (elements >= SUM_ROUND && halved(&p).is_some()).then_some("helium sum")
        }
        (Isa::Helium, OpCode::MaxPool2dI8 | OpCode::AveragePool2dI8 | OpCode::Mean2dI8) => {
            Some("helium pool")
        }
        (Isa::Helium, OpCode::TableI8) => Some("helium table"),
        _ => None,
    }
}

/// Whether tables of what each value adds serve a sum: it has a shift to the right, and no step of the calculation leaves 32 bits.
pub fn has_tables(p: &IntegerParameters) -> bool {
    (-22..=-1).contains(&p.output_shift) && p.left_shift <= 21
}

/// Whether a sum's bounds are those of an `i8`.
pub fn has_whole_range(p: &IntegerParameters) -> bool {
    p.act_min <= i8::MIN.into() && p.act_max >= i8::MAX.into()
}

/// The place of the input whose factor is one half, if the vector extension's kernel takes a sum. There is one in every sum that TensorFlow Lite's
/// formula gives, for the greater scale is brought to twice itself; the other factor is one half too, or smaller.
pub fn halved(p: &IntegerParameters) -> Option<usize> {
    const HALF: (i32, i32) = (1 << 30, 0);
    let shifts_fit = (1..=22).contains(&p.left_shift) && p.output_shift < 0;
    let factors = [(p.multiplier_1, p.shift_1), (p.multiplier_2, p.shift_2)];
    let legal = |factor: &(i32, i32)| *factor == HALF || factor.1 < 0;
    // The second one, if both are.
    factors.iter().rposition(|factor| *factor == HALF).filter(|_| shifts_fit && factors.iter().all(legal))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TensorFlow Lite's sum of inputs whose first scale is the smaller one.
    const SUM: IntegerParameters = IntegerParameters {
        left_shift: 20,
        multiplier_1: 1_500_000_000,
        shift_1: -1,
        multiplier_2: 1 << 30,
        shift_2: 0,
        output_multiplier: 1_300_000_000,
        output_shift: -18,
        act_min: -128,
        act_max: 127,
    };

    #[test]
    fn sums_of_tensorflow_lites_formula_have_kernels() {
        assert!(has_tables(&SUM) && has_whole_range(&SUM));
        assert_eq!(halved(&SUM), Some(1));
        let swapped = IntegerParameters {
            multiplier_1: SUM.multiplier_2,
            shift_1: SUM.shift_2,
            multiplier_2: SUM.multiplier_1,
            shift_2: SUM.shift_1,
            ..SUM
        };
        assert_eq!(halved(&swapped), Some(0));
    }

    #[test]
    fn other_sums_are_left_to_portable_code() {
        for output_shift in [-23, 0, 3] {
            assert!(!has_tables(&IntegerParameters { output_shift, ..SUM }), "{output_shift}");
        }
        assert!(!has_tables(&IntegerParameters { left_shift: 22, ..SUM }));
        assert!(!has_whole_range(&IntegerParameters { act_min: 0, ..SUM }));
        assert!(!has_whole_range(&IntegerParameters { act_max: 126, ..SUM }));
        for other in [
            IntegerParameters { left_shift: 0, ..SUM },
            IntegerParameters { output_shift: 0, ..SUM },
            IntegerParameters { multiplier_2: (1 << 30) + 1, ..SUM },
            IntegerParameters { shift_2: -1, ..SUM },
            IntegerParameters { shift_1: 0, ..SUM },
        ] {
            assert_eq!(halved(&other), None, "{other:?}");
        }
    }
}
