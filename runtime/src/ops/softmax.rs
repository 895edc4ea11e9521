//! Softmax over the last axis. The `f32` family has no parameters.

/// Parameters of [`crate::ops::OpCode::SoftmaxI8`], whose output has scale 1/256 and zero point -128. As in TensorFlow Lite, for an
/// input scale `s` and a `beta` (1 in ONNX): `multiplier` and `left_shift` are those of `quant::quantize_multiplier` for
/// `min(beta * s * 2^26, 2^31 - 1)`, and `diff_min = -floor(31 * 2^26 / 2^left_shift)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Factor that brings a difference of inputs to Q26, Q31.
    pub multiplier: i32,
    /// Shift that goes with it.
    pub left_shift: i32,
    /// Differences to the maximum below this one give 0. Negative.
    pub diff_min: i32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[multiplier, left_shift, diff_min] = words else { return None };
        Some(Self { multiplier: multiplier as i32, left_shift: left_shift as i32, diff_min: diff_min as i32 })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 3] {
        [self.multiplier as u32, self.left_shift as u32, self.diff_min as u32]
    }
}
