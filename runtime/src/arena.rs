//! Disjoint views of tensors out of one aligned buffer.

/// The two buffers that a model works in.
pub struct Memory<'a> {
    /// Working memory.
    pub arena: &'a mut [u8],
    /// What survives between runs.
    pub state: &'a mut [u8],
}

/// Bytes of one step's operands. They never overlap.
pub struct Views<'a, const N: usize> {
    /// The inputs; `None` for the first one when it lies in place, that is when `output` holds it.
    pub inputs: [Option<&'a [u8]>; N],
    /// The output.
    pub output: &'a mut [u8],
    /// Working memory of the step, empty when it asked for none.
    pub scratch: &'a mut [u8],
}
