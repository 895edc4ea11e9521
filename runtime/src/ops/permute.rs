//! Axis permutation.

use crate::blob::MAX_RANK;

/// Parameters of [`crate::ops::OpCode::PermuteI8`] and [`crate::ops::OpCode::PermuteF32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Output axis `k` is input axis `order[k]`. Entries from the rank on are ignored; writers store `k` there.
    pub order: [u32; MAX_RANK],
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        Some(Self { order: words.try_into().ok()? })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; MAX_RANK] {
        self.order
    }
}
