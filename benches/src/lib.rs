//! Benches of the tucano runtime and converter: the figures that they measure, and those of others to compare with.

pub mod figures;
pub mod instructions;
pub mod peers;
