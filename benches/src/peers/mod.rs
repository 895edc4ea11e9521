//! What the bench `peers` is made of: other runtimes as processes, a network described so that each of them executes the same layers, statistics, a chart.

pub mod chart;
pub mod describe;
pub mod environment;
pub mod statistics;
pub mod worker;
