//! The ordinary layers that a candidate would be lowered to, as shapes: what prices, RAM and flash are computed from without building a weight.

use crate::calibrate::covariance::Geometry;
use crate::compress::Choice;
use crate::compress::kronecker::Blocks;
use crate::graph::{Graph, Network, Node, Op, Weight};
use crate::lower;

/// The stages of a layer of this geometry with a weight of this format and ranks, in the order in which they run. [`Choice::Given`] counts
/// as dense: [`of_lowered`] knows the stages of a network that is there already.
pub fn stages(layer: &Geometry, choice: Choice) -> Vec<Geometry> {
    let outputs = layer.output[0];
    match choice {
        Choice::Dense | Choice::Given => vec![*layer],
        Choice::LowRank(rank) => vec![windowed(layer, rank), pointwise(layer, rank, outputs)],
        Choice::Cp(rank) => {
            let first = entrance(layer, rank);
            let window = Geometry { groups: rank, ..windowed(&first_to_window(layer, rank), rank) };
            vec![first, window, pointwise(layer, rank, outputs)]
        }
        Choice::OneWay(rank) => {
            let [h, w] = [layer.output[1], layer.input[2]];
            let rows = Geometry {
                output: [rank, h, w],
                kernel: [layer.kernel[0], 1],
                strides: [layer.strides[0], 1],
                pads: [layer.pads[0], 0],
                dilations: [layer.dilations[0], 1],
                ..*layer
            };
            let columns = Geometry {
                input: [rank, h, w],
                kernel: [1, layer.kernel[1]],
                strides: [1, layer.strides[1]],
                pads: [0, layer.pads[1]],
                dilations: [1, layer.dilations[1]],
                ..*layer
            };
            vec![rows, columns]
        }
        Choice::Depthwise(filters, rank) => {
            let inner = filters * layer.input[0];
            let window = Geometry { groups: layer.input[0], ..windowed(layer, inner) };
            match rank {
                None => vec![window, pointwise(layer, inner, outputs)],
                Some(rank) => {
                    vec![window, pointwise(layer, inner, rank), pointwise(layer, rank, outputs)]
                }
            }
        }
        Choice::FullTucker(input, windows, output) => {
            let inner = input * windows;
            let window = Geometry { groups: input, ..windowed(&first_to_window(layer, input), inner) };
            let mut chain = vec![entrance(layer, input), window];
            if let Some(output) = output {
                chain.push(pointwise(layer, inner, output));
            }
            chain.push(pointwise(layer, output.unwrap_or(inner), outputs));
            chain
        }
        Choice::Kronecker(n, terms) => {
            let shape = [outputs, layer.input[0], layer.kernel[0], layer.kernel[1]];
            let Some(Blocks { outputs: n, inputs: m }) = Blocks::of(n, &shape) else { return vec![*layer] };
            let [_, h, w] = layer.output;
            let block = [layer.input[0] / m, layer.input[1], layer.input[2]];
            let sums =
                Geometry { images: layer.images * m, input: block, ..windowed(layer, terms * outputs / n) };
            // One row for each position and output of a block.
            let rows = layer.images * h * w * (outputs / n);
            let mix = Geometry { images: rows, ..plain(layer, [m * terms, 1, 1], n) };
            let scale = Geometry { groups: outputs, ..pointwise(layer, outputs, outputs) };
            vec![sums, mix, scale]
        }
        Choice::Tucker(input, output) => {
            let core = windowed(&first_to_window(layer, input), output.unwrap_or(outputs));
            let last = output.map(|output| pointwise(layer, output, outputs));
            [entrance(layer, input), core].into_iter().chain(last).collect()
        }
    }
}

/// The linear layers of a graph of one lowered node.
pub fn of_lowered(lowered: &Graph) -> Vec<Geometry> {
    lowered.nodes.iter().filter_map(|node| Geometry::of(lowered, node)).collect()
}

/// One node of a graph with this weight, lowered, as a graph of its own; `None` if it does not lower.
pub fn lowered(graph: &Graph, node: &Node, network: &Network) -> Option<Graph> {
    let mut node = node.clone();
    match &mut node.op {
        Op::Conv(conv) => conv.weight = Weight::Network(network.clone()),
        Op::Dense(dense) => dense.weight = Weight::Network(network.clone()),
        _ => return None,
    }
    let alone = Graph {
        name: String::new(),
        values: graph.values.clone(),
        inputs: node.inputs.clone(),
        outputs: vec![node.output],
        nodes: vec![node],
    };
    lower::lower(&alone).ok()
}

/// The layer's window, to other output channels.
fn windowed(layer: &Geometry, outputs: usize) -> Geometry {
    Geometry { output: [outputs, layer.output[1], layer.output[2]], ..*layer }
}

/// The layer behind a 1x1 stage that gives `inputs` channels.
fn first_to_window(layer: &Geometry, inputs: usize) -> Geometry {
    Geometry { input: [inputs, layer.input[1], layer.input[2]], ..*layer }
}

fn plain(layer: &Geometry, input: [usize; 3], outputs: usize) -> Geometry {
    Geometry {
        images: layer.images,
        input,
        output: [outputs, input[1], input[2]],
        kernel: [1, 1],
        strides: [1, 1],
        pads: [0, 0],
        dilations: [1, 1],
        groups: 1,
    }
}

/// 1x1 at the layer's input positions.
fn entrance(layer: &Geometry, outputs: usize) -> Geometry {
    plain(layer, layer.input, outputs)
}

/// 1x1 at the layer's output positions.
fn pointwise(layer: &Geometry, inputs: usize, outputs: usize) -> Geometry {
    plain(layer, [inputs, layer.output[1], layer.output[2]], outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::{covariance, matrix};
    use crate::compress::{Target, build, to_tensor};
    use crate::graph::{ActivationRange, Conv};
    use crate::search::candidates::cost;

    #[test]
    fn shapes_are_those_of_the_lowered_network() {
        let (m, c) = (matrix(8, 36, 1), covariance(36, 2));
        let shape = [8, 6, 3, 2];
        let op = Op::Conv(Conv {
            weight: Weight::Dense(to_tensor(&m, &shape)),
            bias: None,
            strides: [2, 1],
            pads: [1, 0, 1, 1],
            dilations: [1, 1],
            groups: 1,
            activation: ActivationRange::NONE,
        });
        let mut graph = Graph::default();
        let input = graph.add_value("x", vec![1, 6, 9, 7]);
        let output_shape = op.output_shape(&[&[1, 6, 9, 7]]).unwrap();
        let output = graph.add_value("y", output_shape);
        let node = Node { name: "layer".into(), op, inputs: vec![input], output };
        let geometry = Geometry::of(&graph, &node).unwrap();
        let target = Target::new(&shape, &m, &c);
        for choice in [
            Choice::LowRank(3),
            Choice::Tucker(2, None),
            Choice::Tucker(4, Some(5)),
            Choice::Cp(7),
            Choice::FullTucker(4, 2, None),
            Choice::FullTucker(3, 2, Some(5)),
            Choice::OneWay(5),
            Choice::Kronecker(2, 3),
            Choice::Depthwise(1, None),
            Choice::Depthwise(2, Some(3)),
        ] {
            let found = stages(&geometry, choice);
            let Weight::Network(network) = build(choice, target).unwrap() else { panic!() };
            assert_eq!(of_lowered(&lowered(&graph, &node, &network).unwrap()), found, "{choice:?}");
            let sums = found.iter().fold((0, 0), |(macs, weights), stage| {
                let numbers = stage.output[0] * stage.row_len();
                let positions = stage.images * stage.output[1] * stage.output[2];
                (macs + (numbers * positions) as u64, weights + numbers)
            });
            assert_eq!(sums, cost(&geometry, choice), "{choice:?}");
        }
        assert_eq!(stages(&geometry, Choice::Dense), [geometry]);
    }
}
