//! Scratch of operators without weights. With less they run slower, with the same results.

use super::select::Isa;

/// A sum of fewer elements is faster without tables.
pub const LEAST_TABLED: usize = 320;

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
