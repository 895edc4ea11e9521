//! Dense layer over the last axis: `[.., i]` to `[.., o]`, each leading row on its own.

/// Parameters of [`crate::ops::OpCode::DenseI8`] and its families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Least output: an `i32` in stored units, or the bits of an `f32`.
    pub act_min: u32,
    /// Greatest output: an `i32` in stored units, or the bits of an `f32`.
    pub act_max: u32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[act_min, act_max] = words else { return None };
        Some(Self { act_min, act_max })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 2] {
        [self.act_min, self.act_max]
    }
}
