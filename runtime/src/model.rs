//! A validated blob.

use crate::arena::{Memory, Views};
use crate::blob::TensorRecord;

/// One step with its operands resolved.
#[derive(Clone, Copy)]
pub struct Step<'m> {
    parameters: &'m [u32],
}

impl<'m> Step<'m> {
    /// Number of inputs, outputs, weights.
    pub fn counts(&self) -> (usize, usize, usize) {
        (0, 0, 0)
    }
    /// The record of input `k`.
    pub fn input(&self, _k: usize) -> Option<TensorRecord> {
        None
    }
    /// The record of output `k`.
    pub fn output(&self, _k: usize) -> Option<TensorRecord> {
        None
    }
    /// The parameter words.
    pub fn parameters(&self) -> &'m [u32] {
        self.parameters
    }
    /// The elements of weight `k`; `None` if it is of another type.
    pub fn weight_i8(&self, _k: usize) -> Option<&'m [i8]> {
        None
    }
    /// The elements of weight `k`; `None` if it is of another type.
    pub fn weight_i32(&self, _k: usize) -> Option<&'m [i32]> {
        None
    }
    /// The elements of weight `k`; `None` if it is of another type.
    pub fn weight_f32(&self, _k: usize) -> Option<&'m [f32]> {
        None
    }
    /// Bytes of the scratch in the arena (aligned as the arena's tensors).
    pub fn scratch_bytes(&self) -> usize {
        0
    }
    /// Views of all `N` inputs, the first output and the scratch.
    pub fn views<'s, const N: usize>(&self, _memory: &'s mut Memory<'_>) -> Option<Views<'s, N>> {
        None
    }
}
