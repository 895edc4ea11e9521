//! Dense layers as 1x1 convolutions of pixels.
//!
//! Takes a layout; gives it with dense steps as convolutions of an image of one row, whose pixels are the rows of the matrix. They calculate the same. Kernels of
//! convolutions take several pixels at once, those of dense layers one row after the other: many rows are pixels always. A single one
//! is faster as a dense layer, but a firmware that links convolutions anyway then links kernels, checks and an operator less: where dense
//! layers do a small share of the work, they are pixels too.

use tucano::backend::spec::select::{Isa, SCALAR, select};

use super::needs::{self, Needs, Numbers};
use crate::calibrate::covariance::Geometry;
use crate::graph::{Graph, Node};
use crate::passes::layout::{Kind, Layout, Step, Stored, Window, seen};

/// Dense layers that may be pixels for the sake of flash do one multiply-add in so many.
const SHARE: u64 = 64;

/// Most bytes of scratch for them: the columns of a long row take more than a dense layer does, and more than the network's other layers may.
const SCRATCH: usize = 2048;

/// A window that sees one pixel.
const PIXEL: Window = Window { kernel: [1, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1] };

/// The convolution that a layer is on a target if it is a dense layer of many rows.
pub fn of_rows(isa: Isa, layer: &Geometry, numbers: Numbers) -> Option<Geometry> {
    let many = isa.has_kernels() && needs::is_pixel(layer) && layer.images > 1;
    Some(geometry(*layer)).filter(|pixels| many && has_kernel(isa, pixels, numbers))
}

/// Whether a target has a kernel for a convolution, whatever its weights.
fn has_kernel(isa: Isa, pixels: &Geometry, numbers: Numbers) -> bool {
    let name = |narrow: bool| {
        let request = needs::request(isa, needs::convolution(pixels), numbers.types, narrow, false);
        select(isa, &request).name
    };
    let narrow = numbers.narrow.map_or(vec![true, false], |narrow| vec![narrow]);
    numbers.have_kernels() && narrow.into_iter().all(|narrow| name(narrow) != SCALAR)
}

/// Whether a dense layer of one row may be a convolution: there is a kernel, which wants little scratch.
fn suits(isa: Isa, layer: Geometry, numbers: Numbers) -> bool {
    let pixels = geometry(layer);
    has_kernel(isa, &pixels, numbers) && Needs::of(isa, &pixels, Some(false), numbers).apart <= SCRATCH
}

/// The geometry of a dense layer as a convolution of pixels.
pub fn geometry(dense: Geometry) -> Geometry {
    let ([inputs, ..], [outputs, ..]) = (dense.input, dense.output);
    let rows = dense.images;
    Geometry { images: 1, input: [inputs, 1, rows], output: [outputs, 1, rows], ..dense }
}

/// Turns dense steps of `graph`'s layout for a target into convolutions: those of many rows, or all. `numbers` are those of a node: single rows whose
/// numbers no convolution has stay dense.
pub fn join(graph: &Graph, mut layout: Layout, isa: Isa, numbers: impl Fn(usize) -> Numbers) -> Layout {
    let of_step = |step: &Step| Geometry::of(graph, &graph.nodes[step.node]);
    let many =
        |step: &Step| of_step(step).is_some_and(|layer| of_rows(isa, &layer, numbers(step.node)).is_some());
    let suits = |step: &Step| of_step(step).is_some_and(|layer| suits(isa, layer, numbers(step.node)));
    let are_few = others_are_few(graph, &layout, &numbers, many, suits);
    let Layout { tensors, steps, .. } = &mut layout;
    for step in steps {
        let Kind::Dense(gather) = &step.kind else { continue };
        if are_few || many(step) {
            step.kind = Kind::Conv(PIXEL, gather.clone());
            let ends = step.inputs.iter_mut().chain([&mut step.output]);
            ends.for_each(|tensor| *tensor = pixels(tensors, *tensor));
        }
    }
    layout
}

/// Whether convolutions, of the same numbers as the dense layers that are none, do nearly all the work, and all of these suit. `many`: whether a dense
/// step is a convolution anyway.
fn others_are_few(
    graph: &Graph,
    layout: &Layout,
    numbers: impl Fn(usize) -> Numbers,
    many: impl Fn(&Step) -> bool,
    suits: impl Fn(&Step) -> bool,
) -> bool {
    let linear = layout.steps.iter().filter(|step| matches!(step.kind, Kind::Conv(..) | Kind::Dense(_)));
    let (convolutions, dense): (Vec<&Step>, Vec<&Step>) =
        linear.partition(|step| matches!(step.kind, Kind::Conv(..)) || many(step));
    let macs = |steps: &[&Step]| -> u64 {
        let of_node = |node: &Node| node.op.macs(graph.shape(node.inputs[0]), graph.shape(node.output));
        steps.iter().map(|step| of_node(&graph.nodes[step.node])).sum()
    };
    let kind = |step: &&Step| {
        let Numbers { types, four_bits, .. } = numbers(step.node);
        (types, four_bits)
    };
    let has_twin = |step: &&Step| convolutions.iter().any(|other| kind(other) == kind(step));
    // What weights are like is asked last: it takes a look at each.
    macs(&dense).saturating_mul(SHARE) <= macs(&convolutions)
        && dense.iter().all(|step| suits(step) && has_twin(step))
}

/// The tensor that sees rows as the pixels of an image.
fn pixels(tensors: &mut Vec<Stored>, rows: usize) -> usize {
    let Stored { value, buffer, ref shape } = tensors[rows];
    let [outer @ .., channels] = &shape[..] else { return rows };
    let shape = vec![1, 1, outer.iter().product(), *channels];
    seen(tensors, Stored { value, shape, buffer })
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

    /// Bytes, but wide at the ends of the nodes for which `wide` says so.
    fn bytes(wide: impl Fn(usize) -> bool) -> impl Fn(usize) -> Numbers {
        move |node| Numbers::of_widths([1, if wide(node) { 2 } else { 1 }], false)
    }

    #[test]
    fn a_small_dense_layer_is_a_convolution_of_one_pixel() {
        let graph = graph(8);
        let plain = layout(&graph).unwrap();
        let joined = join(&graph, plain.clone(), Isa::ThumbDsp, bytes(|_| false));
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
        for (side, is_wide) in [(3, false), (8, true)] {
            let graph = graph(side);
            let plain = layout(&graph).unwrap();
            assert_eq!(join(&graph, plain.clone(), Isa::ThumbDsp, bytes(|node| is_wide && node == 2)), plain);
        }
    }

    #[test]
    fn a_long_row_stays_dense() {
        // Columns of 4096 inputs, and on cores without long products no kernel for them.
        let long = |inputs: usize| Geometry {
            images: 1,
            input: [inputs, 1, 1],
            output: [10, 1, 1],
            kernel: [1, 1],
            strides: [1, 1],
            pads: [0, 0],
            dilations: [1, 1],
            groups: 1,
        };
        for isa in [Isa::ThumbV6M, Isa::ThumbV7M, Isa::ThumbDsp, Isa::Helium] {
            let numbers = bytes(|_| false)(0);
            // A single pixel is a dense layer to Helium: it has no columns.
            let takes_long = isa == Isa::Helium;
            assert_eq!(
                [64, 4096].map(|inputs| suits(isa, long(inputs), numbers)),
                [true, takes_long],
                "{isa:?}"
            );
        }
        assert!(!has_kernel(Isa::ThumbV6M, &geometry(long(4096)), bytes(|_| false)(0)));
    }

    #[test]
    fn rows_are_pixels_where_kernels_take_them() {
        let mut graph = Graph::default();
        let input = graph.add_value("x", vec![1, 6, 8]);
        graph.inputs.push(input);
        let weight = Weight::Dense(Tensor::new(vec![5, 8], vec![0.5; 40]));
        let op = Op::Dense(Dense { weight, bias: None, activation: ActivationRange::NONE });
        let output = graph.add_value("y", vec![1, 6, 5]);
        graph.nodes.push(Node { name: "n".into(), op, inputs: vec![input], output });
        graph.outputs.push(output);
        graph.check().unwrap();
        let plain = layout(&graph).unwrap();
        let joined = join(&graph, plain.clone(), Isa::ThumbDsp, bytes(|_| false));
        let step = &joined.steps[0];
        assert!(matches!(step.kind, Kind::Conv(PIXEL, _)));
        let shapes = [step.inputs[0], step.output].map(|tensor| &joined.tensors[tensor].shape[..]);
        assert_eq!(shapes, [[1, 1, 6, 8], [1, 1, 6, 5]]);
        let of_node = Geometry::of(&graph, &graph.nodes[0]).unwrap();
        let pixels = of_rows(Isa::ThumbDsp, &of_node, bytes(|_| false)(0)).unwrap();
        assert_eq!((pixels.images, pixels.input, pixels.output), (1, [8, 1, 6], [5, 1, 6]));
        assert_eq!(of_rows(Isa::X86, &of_node, bytes(|_| false)(0)), None);
        for numbers in [Numbers::of_widths([4, 4], false), Numbers::of_widths([1, 1], true)] {
            assert_eq!(join(&graph, plain.clone(), Isa::ThumbDsp, |_| numbers), plain);
        }
    }
}
