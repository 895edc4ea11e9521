//! Rounds the weights of linear layers to binary16, to the nearest, ties to even. Bias and activations stay.

use half::f16;

use crate::graph::{Graph, Op, Weight};

/// A weight beyond the range of binary16.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("node `{node}` ({op}): the weight {weight} is beyond 65504, the greatest of 16 bits")]
#[diagnostic(help("scale the layer and what reads it, or leave out --f16"))]
pub struct OutOfRange {
    /// The layer.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// The first such weight.
    pub weight: f32,
}

/// The graph whose dense weights are numbers of binary16.
pub fn round_weights(graph: &Graph) -> Result<Graph, OutOfRange> {
    let mut graph = graph.clone();
    for node in &mut graph.nodes {
        let (name, op) = (node.name.clone(), node.op.name());
        let weight = match &mut node.op {
            Op::Conv(conv) => &mut conv.weight,
            Op::Dense(dense) => &mut dense.weight,
            _ => continue,
        };
        let Weight::Dense(tensor) = weight else { continue };
        for weight in &mut tensor.data {
            let rounded = f16::from_f32(*weight);
            if !rounded.is_finite() {
                return Err(OutOfRange { node: name, op, weight: *weight });
            }
            *weight = rounded.to_f32();
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationRange, Dense, Node, Tensor};

    fn layer(weights: &[f32]) -> Graph {
        let mut graph = Graph::default();
        let input = graph.add_value("input", vec![1, weights.len()]);
        let output = graph.add_value("output", vec![1, 1]);
        (graph.inputs, graph.outputs) = (vec![input], vec![output]);
        let weight = Weight::Dense(Tensor::new(vec![1, weights.len()], weights.to_vec()));
        let op = Op::Dense(Dense { weight, bias: Some(vec![0.1]), activation: ActivationRange::NONE });
        graph.nodes.push(Node { name: "layer".into(), op, inputs: vec![input], output });
        graph
    }

    #[test]
    fn weights_round_to_nearest_even_and_bias_stays() {
        // Half a step above an even and an odd number, a step of the smallest numbers, and what rounds up to the greatest.
        let unit = 2f32.powi(-10);
        let rounded = round_weights(&layer(&[
            1.0 + 0.5 * unit,
            1.0 + 1.5 * unit,
            -1.0 - 0.6 * unit,
            1.4 * 2f32.powi(-24),
            65519.0,
        ]));
        let expected = layer(&[1.0, 1.0 + 2.0 * unit, -1.0 - unit, 2f32.powi(-24), 65504.0]);
        assert_eq!(rounded.unwrap(), expected);
    }

    #[test]
    fn weights_out_of_range_are_named() {
        let error = round_weights(&layer(&[1.0, -65520.0])).unwrap_err();
        assert_eq!((error.node.as_str(), error.weight), ("layer", -65520.0));
    }
}
