//! What vector kernels of hosts share: which steps they take, and where layers read and write, whatever the instruction set.

pub mod geometry;
pub mod int8;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for kernels of x86"))]
pub mod softmax;
pub mod sum;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for kernels of x86"))]
pub mod table;
#[cfg(test)]
pub mod tests;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "some ways to walk are those of x86 alone")
)]
pub mod walk;
