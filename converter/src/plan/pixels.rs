//! Dense layers of convolutional networks as convolutions of one pixel.
//!
//! Takes a layout; gives it with its dense steps as 1x1 convolutions, each row a pixel of an image of its own. They calculate the same and need no kernels, checks
//! or operators that the firmware would not link anyway. A dense kernel is faster, so layers stay as they are where dense layers
//! do more than a small share of the work.

use crate::graph::{Graph, Node};
use crate::passes::layout::{Kind, Layout, Stored, Window};

/// Dense layers may do one multiply-add in so many.
const SHARE: u64 = 64;

/// A window that sees one pixel.
const PIXEL: Window = Window { kernel: [1, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1] };

/// Turns all dense steps of `graph`'s layout into convolutions, or none of them. `kind_of` gives what the weights and elements of a
/// node are: steps of another kind are no reason to link an operator for it.
pub fn join<T: PartialEq>(graph: &Graph, mut layout: Layout, kind_of: impl Fn(usize) -> T) -> Layout {
    if !worthwhile(graph, &layout, kind_of) {
        return layout;
    }
    let Layout { tensors, steps, .. } = &mut layout;
    for step in steps {
        let Kind::Dense(gather) = &step.kind else { continue };
        step.kind = Kind::Conv(PIXEL, gather.clone());
        let ends = step.inputs.iter_mut().chain([&mut step.output]);
        ends.for_each(|tensor| *tensor = pixels(tensors, *tensor));
    }
    layout
}

/// Whether the network has convolutions of the same kinds that do nearly all the work.
fn worthwhile<T: PartialEq>(graph: &Graph, layout: &Layout, kind_of: impl Fn(usize) -> T) -> bool {
    let of = |wanted: fn(&Kind) -> bool| {
        let steps = layout.steps.iter().filter(move |step| wanted(&step.kind));
        steps.map(|step| step.node).collect::<Vec<_>>()
    };
    let dense = of(|kind| matches!(kind, Kind::Dense(_)));
    let convolutions = of(|kind| matches!(kind, Kind::Conv(..)));
    let macs = |nodes: &[usize]| -> u64 {
        let of_node = |node: &Node| node.op.macs(graph.shape(node.inputs[0]), graph.shape(node.output));
        nodes.iter().map(|node| of_node(&graph.nodes[*node])).sum()
    };
    let kinds: Vec<T> = convolutions.iter().map(|node| kind_of(*node)).collect();
    dense.iter().all(|node| kinds.contains(&kind_of(*node)))
        && macs(&dense).saturating_mul(SHARE) <= macs(&convolutions)
}

/// The tensor that sees rows as images of one pixel.
fn pixels(tensors: &mut Vec<Stored>, rows: usize) -> usize {
    let Stored { value, buffer, ref shape } = tensors[rows];
    let [outer @ .., channels] = &shape[..] else { return rows };
    let shape = vec![outer.iter().product(), 1, 1, *channels];
    let same = |tensor: &Stored| tensor.buffer == buffer && tensor.shape == shape;
    tensors.iter().position(same).unwrap_or_else(|| {
        tensors.push(Stored { value, shape, buffer });
        tensors.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationRange, Conv, Dense, Op, Tensor, Weight};
    use crate::passes::layout::layout;

    /// A convolution of 4 channels on `side` x `side` pixels, a mean, a dense layer of three outputs, and a reshape that hides it from the output.
    fn graph(side: usize) -> Graph {
        let mut graph = Graph::default();
        let weight =
            |shape: &[usize]| Weight::Dense(Tensor::new(shape.to_vec(), vec![0.5; shape.iter().product()]));
        let activation = ActivationRange::NONE;
        let conv = Conv {
            weight: weight(&[4, 2, 3, 3]),
            bias: None,
            strides: [1, 1],
            pads: [1; 4],
            dilations: [1, 1],
            groups: 1,
            activation,
        };
        let mean = Op::Mean { axes: vec![2, 3], keep_axes: false };
        let dense = Op::Dense(Dense { weight: weight(&[3, 4]), bias: None, activation });
        let mut last = graph.add_value("x", vec![1, 2, side, side]);
        graph.inputs.push(last);
        for op in [Op::Conv(conv), mean, dense, Op::Softmax { axis: 1 }] {
            let shape = op.output_shape(&[graph.shape(last)]).unwrap();
            let output = graph.add_value(op.name(), shape);
            graph.nodes.push(Node { name: op.name().into(), op, inputs: vec![last], output });
            last = output;
        }
        graph.outputs.push(last);
        graph.check().unwrap();
        graph
    }

    #[test]
    fn a_small_dense_layer_is_a_convolution_of_one_pixel() {
        let graph = graph(8);
        let plain = layout(&graph).unwrap();
        let joined = join(&graph, plain.clone(), |_| ());
        let (before, step) = (&plain.steps[2], &joined.steps[2]);
        let Kind::Dense(gather) = &before.kind else { panic!("no dense layer") };
        assert_eq!(step.kind, Kind::Conv(PIXEL, gather.clone()));
        let shape = |layout: &Layout, tensor: usize| layout.tensors[tensor].shape.clone();
        assert_eq!([step.inputs[0], step.output].map(|k| shape(&joined, k)), [[1, 1, 1, 4], [1, 1, 1, 3]]);
        assert_eq!(joined.tensors[step.output].buffer, plain.tensors[before.output].buffer);
        assert_eq!(shape(&joined, joined.steps[3].inputs[0]), [1, 3]);
        // What every other step sees is as it was.
        assert_eq!((&joined.steps[..2], &joined.steps[3]), (&plain.steps[..2], &plain.steps[3]));
        assert_eq!((joined.inputs, joined.outputs), (plain.inputs, plain.outputs));
    }

    #[test]
    fn dense_layers_that_matter_or_have_no_convolution_of_their_kind_stay() {
        for (side, by_node) in [(3, false), (8, true)] {
            let graph = graph(side);
            let plain = layout(&graph).unwrap();
            let kind_of = |node: usize| by_node && node == 2;
            assert_eq!(join(&graph, plain.clone(), kind_of), plain);
        }
    }
}
