//! Limits on what a network may cost on its target.

/// Largest figures allowed; `None` where nothing is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of the blob: constants and structure. The runtime's code is not part of it.
    pub flash: Option<usize>,
    /// Bytes of the arena.
    pub ram: Option<usize>,
    /// Multiply-adds of one inference.
    pub macs: Option<u64>,
    /// Instructions of one inference, as modelled for the target.
    pub instructions: Option<u64>,
}

impl Budget {
    /// Whether nothing is asked.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}
