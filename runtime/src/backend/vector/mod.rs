//! What vector kernels of hosts share: which steps they take, and where layers read and write, whatever the instruction set.

pub mod geometry;
pub mod int8;
pub mod sum;
#[cfg(test)]
pub mod tests;
pub mod walk;
