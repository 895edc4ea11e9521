//! Scratch of operators that are not linear. With less they run slower, with the same results.

use super::select::Isa;

/// Bytes that a sum of two `i8` tensors wants.
pub const fn add_scratch(isa: Isa, elements: usize) -> usize {
    let _ = (isa, elements);
    0
}
