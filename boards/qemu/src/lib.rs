//! What both firmware programs share: start-up, and for the harness semihosting, the instruction counter, the stack gauge and
//! the fault report. All `unsafe` of the firmware is here and in the two programs' few lines that name linker symbols.
#![no_std]

pub mod counter;
pub mod edge;
pub mod fault;
pub mod memory;
pub mod program;
pub mod random;
pub mod rounds;
pub mod semihosting;
pub mod startup;
mod strings;
