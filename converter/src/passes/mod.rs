//! Passes over a graph: simplification, then what the runtime has no step for, then layout.
//!
//! [`simplify`] takes the graph as imported, with dense weights; each of its passes gives a graph that computes the same, up to
//! rounding, with the same inputs and outputs. Nothing is refused: what a pass cannot treat exactly stays as it is.

mod activation;
mod affine;
pub mod compose;
mod dead_code;
mod edit;
pub mod half;
pub mod layout;
pub mod legalize;
pub(crate) mod order;
mod pad;
mod reshape;
mod transpose;

pub use layout::layout;
pub use legalize::legalize;

use crate::graph::Graph;

/// A pure function from graph to graph.
pub type Pass = fn(&Graph) -> Graph;

/// The passes of [`simplify`] with their names, in order.
pub const PASSES: &[(&str, Pass)] = &[
    ("reshape", reshape::simplify_reshapes),
    ("transpose", transpose::simplify_transposes),
    ("affine", affine::fold_affines),
    ("activation", activation::fuse_clamps),
    ("pad", pad::absorb_pads),
    ("dead-code", dead_code::remove_dead_code),
];

/// Runs [`PASSES`] again and again until none finds anything to do. Values are renumbered.
pub fn simplify(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    // Every round but the last removes a node or moves one towards the outputs, so this many always suffice.
    for _ in 0..=graph.nodes.len() * graph.nodes.len() {
        let next = PASSES.iter().fold(graph.clone(), |graph, (_, pass)| pass(&graph));
        if next == graph {
            break;
        }
        graph = next;
    }
    graph
}

#[cfg(test)]
mod tests;
