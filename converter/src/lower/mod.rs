//! Expands factorised weights into chains of ordinary layers.
//!
//! Takes a graph whose weights may be networks; gives one whose weights are all dense. A network is lowered by the modes of its cores
//! alone, in contraction order, so every format lowers by the same code: low rank and Tucker-2 (1x1, window, 1x1), CP (1x1, depthwise, 1x1),
//! one-way kernels (kx1, 1xk), depthwise then pointwise, Kronecker sums and tensor trains. A core that does not name all of the signal's
//! modes is applied to each combination of the others as to another image or row: a reshape, a transpose, an ordinary layer.
//! `passes::layout` decides which transposes move data. The values between two stages are marked
//! [`rank_space`](crate::graph::Value::rank_space).
//!
//! Bias, activation and `row_scale` go to the last stage if it gives all outputs; otherwise a factor and a summand for each channel (a
//! depthwise 1x1 convolution) end the chain.
//!
//! Refused: a kernel axis in several cores, and factorised grouped convolutions.

mod expand;
mod order;
mod stages;

use crate::graph::{Graph, Weight};

pub use order::{cheapest_order, network_macs, network_parameters};

/// Why a network is no chain of layers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("node `{node}` ({op}): a `{format}` weight cannot be lowered: {reason}")]
#[diagnostic(help("leave this layer dense, or choose another format for it"))]
pub struct Error {
    /// The layer.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// The network's format.
    pub format: &'static str,
    /// What is not supported.
    pub reason: String,
}

/// Replaces every layer with a network by its chain of stages.
pub fn lower(graph: &Graph) -> Result<Graph, Error> {
    let mut lowered = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    for node in &graph.nodes {
        let Some(Weight::Network(network)) = node.op.weight() else {
            lowered.nodes.push(node.clone());
            continue;
        };
        expand::expand(&mut lowered, node, network).map_err(|reason| Error {
            node: node.name.clone(),
            op: node.op.name(),
            format: network.format,
            reason,
        })?;
    }
    Ok(lowered)
}

#[cfg(test)]
mod tests;
