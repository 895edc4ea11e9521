//! Gradients: reverse-mode differentiation of a graph.
//!
//! Takes a graph without factorised weights, a few samples, and a cotangent for each graph output (the derivative of some scalar by that output); gives
//! the derivative of the scalar by the outputs of chosen nodes, each before the node's fused activation: for a linear layer that is what its weight,
//! its bias and its input are differentiated through. Values are computed once ([`Tape::new`]) and serve any number of cotangents.
//! Where a function has a kink (the bounds of an activation, equal elements in a pooling window) one of its one-sided derivatives is taken.

use std::borrow::Cow;

use super::{Operand, apply, dense_weight, elementwise, linear, numel, spatial};
use crate::graph::{ActivationRange, Graph, Node, Op, Unary, ValueId};

/// All values of a graph for some samples.
pub struct Tape<'a> {
    graph: &'a Graph,
    /// By index of the value; empty for those that no node gives.
    values: Vec<Cow<'a, [f32]>>,
    samples: usize,
}

impl<'a> Tape<'a> {
    /// Runs `graph` over `samples` samples on the calling thread; `inputs` as for [`super::evaluate`].
    ///
    /// # Panics
    /// If the number of inputs or their lengths do not fit the graph.
    pub fn new(graph: &'a Graph, inputs: &[&'a [f32]], samples: usize) -> Self {
        assert_eq!(inputs.len(), graph.inputs.len(), "one array for each graph input");
        let mut values = vec![Cow::Borrowed(&[][..]); graph.values.len()];
        for (id, data) in graph.inputs.iter().zip(inputs) {
            assert_eq!(data.len(), samples * numel(graph, *id), "samples of `{}`", graph.value(*id).name);
            values[id.0] = Cow::Borrowed(data);
        }
        for node in &graph.nodes {
            let output = {
                let operand = |id: &ValueId| Operand { shape: graph.shape(*id), data: &values[id.0] };
                let inputs: Vec<Operand> = node.inputs.iter().map(operand).collect();
                apply(&node.op, &inputs, graph.shape(node.output), samples)
            };
            values[node.output.0] = Cow::Owned(output);
        }
        Self { graph, values, samples }
    }

    /// A value, all samples one after the other.
    pub fn value(&self, id: ValueId) -> &[f32] {
        &self.values[id.0]
    }

    /// Derivative of `sum of cotangents * outputs` by the output of each node in `wanted` (indices into [`Graph::nodes`]) before its activation, in that
    /// order; zeros where the outputs do not depend on it.
    pub fn pull_back(&self, cotangents: &[Vec<f32>], wanted: &[usize]) -> Vec<Vec<f32>> {
        let graph = self.graph;
        // A gradient is carried back as far as a wanted node stands behind it.
        let mut carries = vec![false; graph.values.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            carries[node.output.0] = wanted.contains(&index) || node.inputs.iter().any(|id| carries[id.0]);
        }
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; graph.values.len()];
        for (id, cotangent) in graph.outputs.iter().zip(cotangents) {
            accumulate(&mut gradients[id.0], cotangent.clone());
        }
        let mut found = vec![None; wanted.len()];
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            let Some(mut gradient) = gradients[node.output.0].take().filter(|_| carries[node.output.0])
            else {
                continue;
            };
            block(activation(&node.op), self.value(node.output), &mut gradient);
            for (position, id) in node.inputs.iter().enumerate().filter(|(_, id)| carries[id.0]) {
                accumulate(&mut gradients[id.0], self.through(node, position, &gradient));
            }
            if let Some(position) = wanted.iter().position(|wanted| *wanted == index) {
                found[position] = Some(gradient);
            }
        }
        let zeros = |index: usize| vec![0.0; self.value(graph.nodes[index].output).len()];
        found
            .into_iter()
            .zip(wanted)
            .map(|(gradient, index)| gradient.unwrap_or_else(|| zeros(*index)))
            .collect()
    }

    /// The gradient of one input of a node for that of its output before the activation.
    fn through(&self, node: &Node, position: usize, gradient: &[f32]) -> Vec<f32> {
        let operand = |id: ValueId| Operand { shape: self.graph.shape(id), data: self.value(id) };
        let (x, y) = (operand(node.inputs[position]), operand(node.output));
        let given = Operand { shape: y.shape, data: gradient };
        match &node.op {
            Op::Conv(conv) => {
                linear::conv_gradient(conv, dense_weight(&conv.weight), given, x.shape, self.samples)
            }
            Op::Dense(dense) => linear::dense_gradient(dense_weight(&dense.weight), gradient),
            Op::Affine(affine) => elementwise::affine_gradient(affine, given),
            Op::Clamp(_) | Op::Add(_) | Op::Reshape(_) => gradient.to_vec(),
            Op::Mul(_) => {
                let other = self.value(node.inputs[1 - position]);
                gradient.iter().zip(other).map(|(g, other)| g * other).collect()
            }
            Op::Unary(unary) => {
                let slope = |x: f32, y: f32| match unary {
                    Unary::Sin => x.cos(),
                    Unary::Sigmoid => y * (1.0 - y),
                    Unary::Tanh => 1.0 - y * y,
                };
                let points = x.data.iter().zip(y.data);
                gradient.iter().zip(points).map(|(g, (x, y))| g * slope(*x, *y)).collect()
            }
            Op::MaxPool(pool) => spatial::max_pool_gradient(pool, x, given),
            Op::AveragePool(pool) => spatial::average_pool_gradient(pool, x, given),
            Op::Mean { axes, .. } => spatial::mean_gradient(axes, x.shape, gradient),
            Op::Transpose(permutation) => {
                let mut inverse = vec![0; permutation.len()];
                permutation.iter().enumerate().for_each(|(to, from)| inverse[*from] = to);
                spatial::transpose(&inverse, given, self.samples)
            }
            Op::Pad { before, .. } => spatial::pad_gradient(before, x.shape, given),
            Op::Softmax { axis } => elementwise::softmax_gradient(*axis, y, gradient),
        }
    }
}

/// The bounds that a node cuts its output to.
fn activation(op: &Op) -> ActivationRange {
    match op {
        Op::Conv(conv) => conv.activation,
        Op::Dense(dense) => dense.activation,
        Op::Clamp(range) | Op::Add(range) | Op::Mul(range) => *range,
        _ => ActivationRange::NONE,
    }
}

/// Nothing comes back through an output that lies on a bound.
fn block(range: ActivationRange, output: &[f32], gradient: &mut [f32]) {
    if !range.is_none() {
        let inside = |y: f32| y > range.low && y < range.high;
        gradient.iter_mut().zip(output).filter(|(_, y)| !inside(**y)).for_each(|(g, _)| *g = 0.0);
    }
}

fn accumulate(sum: &mut Option<Vec<f32>>, part: Vec<f32>) {
    match sum {
        Some(sum) => sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part),
        None => *sum = Some(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::noise;
    use crate::evaluate::evaluate;
    use crate::graph::{Affine, Conv, Dense, Pool, Tensor, Weight, conv_output_extent};

    /// Two samples through `first` (which adds nothing to its input), then `op`: its gradient against central differences of the evaluator.
    fn check(op: Op, shape: &[usize]) {
        let mut graph = Graph::default();
        let x = graph.add_value("x", shape.to_vec());
        let first = graph.add_value("moved", shape.to_vec());
        let operands = if matches!(op, Op::Add(_) | Op::Mul(_)) { vec![first, x] } else { vec![first] };
        let shapes: Vec<&[usize]> = operands.iter().map(|_| shape).collect();
        let y = op.output_shape(&shapes).unwrap();
        let y = graph.add_value("y", y);
        let none = ActivationRange { low: -1e9, high: 1e9 };
        graph.nodes = vec![
            Node { name: "first".into(), op: Op::Clamp(none), inputs: vec![x], output: first },
            Node { name: op.name().into(), op, inputs: operands, output: y },
        ];
        (graph.inputs, graph.outputs) = (vec![x], vec![y]);
        graph.check().unwrap();
        let name = graph.nodes[1].op.name();
        let (len, samples) = (numel(&graph, x), 2);
        let input = noise(samples * len, 5);
        let cotangent = noise(samples * numel(&graph, y), 6);
        let tape = Tape::new(&graph, &[&input], samples);
        assert_eq!(tape.value(y), evaluate(&graph, std::slice::from_ref(&input), samples, &[y])[0]);
        let gradient = tape.pull_back(std::slice::from_ref(&cotangent), &[0]).remove(0);
        // The second operand of a sum or product stays as it is.
        let only = Graph { inputs: vec![first, x], nodes: graph.nodes[1..].to_vec(), ..graph.clone() };
        let only = if only.nodes[0].inputs.len() == 1 { Graph { inputs: vec![first], ..only } } else { only };
        let scalar = |moved: &[f32]| -> f64 {
            let inputs: Vec<Vec<f32>> = only
                .inputs
                .iter()
                .map(|id| if *id == first { moved.to_vec() } else { input.clone() })
                .collect();
            let y = evaluate(&only, &inputs, samples, &only.outputs).remove(0);
            y.iter().zip(&cotangent).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
        };
        let step = 1e-3f32;
        for k in 0..input.len() {
            let at = |sign: f32| {
                let mut moved = input.clone();
                moved[k] += sign * step;
                scalar(&moved)
            };
            let expected = (at(1.0) - at(-1.0)) / f64::from(2.0 * step);
            let got = f64::from(gradient[k]);
            assert!((got - expected).abs() < 4e-3 * (1.0 + expected.abs()), "{name} {k}: {got} {expected}");
        }
        assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
    }

    #[test]
    fn convolutions_of_every_geometry() {
        // (channels, height, width, outputs, kernel, strides, pads, dilations, groups)
        type Case = (usize, usize, usize, usize, [usize; 2], [usize; 2], [usize; 4], [usize; 2], usize);
        let cases: &[Case] = &[
            (3, 5, 4, 2, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1),
            (2, 6, 5, 3, [3, 3], [2, 2], [0, 0, 1, 1], [1, 1], 1),
            (4, 5, 4, 4, [2, 3], [1, 2], [1, 2, 0, 1], [2, 1], 2),
            (3, 4, 5, 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 3),
            (2, 5, 6, 4, [3, 5], [2, 2], [1, 2, 1, 2], [1, 1], 2),
            (2, 2, 2, 2, [3, 3], [3, 3], [4, 4, 4, 4], [1, 1], 1),
            (2, 1, 9, 3, [1, 5], [1, 3], [0, 4, 0, 4], [1, 2], 1),
        ];
        for &(c, h, w, o, kernel, strides, pads, dilations, groups) in cases {
            let extent = |size, axis: usize| {
                conv_output_extent(
                    size,
                    pads[axis] + pads[axis + 2],
                    kernel[axis],
                    strides[axis],
                    dilations[axis],
                )
            };
            assert!(extent(h, 0).is_some() && extent(w, 1).is_some());
            let shape = vec![o, c / groups, kernel[0], kernel[1]];
            let weight = Weight::Dense(Tensor::new(shape.clone(), noise(shape.iter().product(), 1)));
            let activation = ActivationRange { low: -0.7, high: 50.0 };
            let bias = Some(noise(o, 2));
            check(
                Op::Conv(Conv { weight, bias, strides, pads, dilations, groups, activation }),
                &[1, c, h, w],
            );
        }
    }

    #[test]
    fn every_other_operator() {
        let weight = Weight::Dense(Tensor::new(vec![4, 5], noise(20, 3)));
        check(Op::Dense(Dense { weight, bias: None, activation: ActivationRange::RELU }), &[1, 3, 5]);
        check(Op::Affine(Affine { scale: vec![2.0, -3.0], shift: vec![1.0, 0.0] }), &[1, 2, 3]);
        check(Op::Clamp(ActivationRange { low: -0.5, high: 0.4 }), &[1, 20]);
        for unary in [Unary::Sin, Unary::Sigmoid, Unary::Tanh] {
            check(Op::Unary(unary), &[1, 6]);
        }
        check(Op::Add(ActivationRange::RELU), &[1, 2, 3]);
        check(Op::Mul(ActivationRange { low: -0.1, high: 0.2 }), &[1, 2, 3]);
        for count_include_pad in [true, false] {
            let pool = Pool { kernel: [2, 3], strides: [1, 2], pads: [1, 0, 1, 2], count_include_pad };
            check(Op::MaxPool(pool), &[1, 2, 4, 5]);
            check(Op::AveragePool(pool), &[1, 2, 4, 5]);
        }
        check(Op::Mean { axes: vec![1, 3], keep_axes: false }, &[1, 2, 3, 4]);
        check(Op::Reshape(vec![1, 6]), &[1, 2, 3]);
        check(Op::Transpose(vec![0, 3, 1, 2]), &[1, 2, 3, 4]);
        check(Op::Pad { before: vec![0, 1, 2], after: vec![0, 0, 1], value: 3.0 }, &[1, 2, 3]);
        check(Op::Softmax { axis: 1 }, &[1, 4, 2]);
    }

    #[test]
    fn branches_add_up_and_unread_nodes_have_zeros() {
        let graph = crate::search::refit::tests::network();
        let (samples, input) = (3, crate::search::refit::tests::images(3, 1));
        let cotangent = noise(30, 2);
        let at = |graph: &Graph| -> f64 {
            let y = evaluate(graph, &input, samples, &graph.outputs).remove(0);
            y.iter().zip(&cotangent).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
        };
        let inputs: Vec<&[f32]> = input.iter().map(Vec::as_slice).collect();
        let tape = Tape::new(&graph, &inputs, samples);
        let gradients = tape.pull_back(std::slice::from_ref(&cotangent), &[0, 1, 4]);
        for (layer, gradient) in [0, 1].into_iter().zip(&gradients) {
            for channel in 0..4 {
                // The derivative by a bias is the sum of its channel's gradients.
                let own: f64 =
                    gradient.chunks_exact(36).skip(channel).step_by(4).flatten().map(|g| f64::from(*g)).sum();
                let moved = |step: f32| {
                    let mut graph = graph.clone();
                    let Op::Conv(conv) = &mut graph.nodes[layer].op else { panic!() };
                    conv.bias.as_mut().unwrap()[channel] += step;
                    at(&graph)
                };
                let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!((own - expected).abs() < 0.02 * (1.0 + expected.abs()), "{own} {expected}");
            }
        }
        assert_eq!(gradients[2], cotangent);
        let mut unread = graph.clone();
        unread.outputs = vec![graph.nodes[0].output];
        let tape = Tape::new(&unread, &inputs, samples);
        let gradients = tape.pull_back(&[noise(samples * 144, 3)], &[1]);
        assert_eq!(gradients, [vec![0.0; samples * 144]]);
    }
}
