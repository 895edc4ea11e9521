//! The converter: from a trained ONNX model to a weight blob that the `tucano` runtime executes.
//!
//! Data flows one way, and the modules stand in that order:
//!
//! | module | takes | gives |
//! |---|---|---|
//! | [`import`] | `model.onnx`, `data.npz` | [`graph::Graph`], arrays |
//! | [`graph`] | | the intermediate representation |
//! | [`evaluate`] | a graph, samples | values of any node; metrics between outputs |
//! | [`passes`] | a graph | a simpler graph; a layout |
//! | [`linalg`] | matrices | decompositions |
//! | [`calibrate`] | a graph, samples | ranges and covariances |
//! | [`compress`] | a weight, a covariance, ranks | a [`graph::Network`] |
//! | [`lower`] | a graph with networks | a graph of ordinary layers |
//! | [`search`] | a graph, calibration, a budget | the graph with the chosen weights, and why |
//! | [`quantize`] | a lowered graph, ranges | integer weights and quantised values |
//! | [`plan`] | the final graph | order, lifetimes, arena offsets |
//! | [`emit`] | all of it | blob bytes, `model.rs` |
//! | [`execute`] | a graph, samples | outputs of the whole graph, by the runtime |
//! | [`convert`](mod@convert) | a model, options | all of the above, in order |
//! | [`report`] | what happened | tables, JSON, a page |
//! | [`boards`] | a blob, samples | firmware, what it measured |
//! | [`cli`] | command lines | calls of the above |

pub mod boards;
pub mod calibrate;
pub mod cli;
pub mod compress;
pub mod convert;
pub mod emit;
pub mod evaluate;
pub mod execute;
pub mod graph;
pub mod import;
pub mod linalg;
pub mod lower;
pub mod passes;
pub mod plan;
pub mod quantize;
pub mod report;
pub mod search;
