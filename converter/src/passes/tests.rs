//! Each rewriting rule on a graph of a few nodes: what is left, and that it computes the same.

use super::*;
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Affine, Conv, Dense, Node, Op, Pool, Tensor, Unary, ValueId, Weight};

const RELU: ActivationRange = ActivationRange::RELU;
const NONE: ActivationRange = ActivationRange::NONE;

/// Numbers in -1..1 without a pattern.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|k| ((k * 7919 + seed * 104_729 + 1) as f32 * 0.618_034).fract() * 2.0 - 1.0).collect()
}

fn conv(o: usize, i: usize, kernel: usize, pad: usize, groups: usize) -> Op {
    let shape = vec![o, i / groups, kernel, kernel];
    Op::Conv(Conv {
        weight: Weight::Dense(Tensor::new(shape.clone(), numbers(shape.iter().product(), o + i))),
        bias: Some(numbers(o, 3)),
        strides: [1, 1],
        pads: [pad; 4],
        dilations: [1, 1],
        groups,
        activation: NONE,
    })
}

fn dense(o: usize, i: usize) -> Op {
    let weight = Weight::Dense(Tensor::new(vec![o, i], numbers(o * i, o)));
    Op::Dense(Dense { weight, bias: None, activation: NONE })
}

fn affine(channels: usize) -> Op {
    Op::Affine(Affine { scale: numbers(channels, 11), shift: numbers(channels, 12) })
}

fn pad(before: &[usize], after: &[usize], value: f32) -> Op {
    Op::Pad { before: before.into(), after: after.into(), value }
}

fn pool(pads: [usize; 4], count_include_pad: bool) -> Pool {
    Pool { kernel: [2, 2], strides: [1, 1], pads, count_include_pad }
}

struct Builder(Graph);

impl Builder {
    fn new(shape: &[usize]) -> Self {
        let mut graph = Graph::default();
        let input = graph.add_value("input", shape.to_vec());
        graph.inputs = vec![input];
        Self(graph)
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| self.0.shape(*id)).collect();
        let shape = op.output_shape(&shapes).unwrap();
        let name = format!("{}_{}", op.name(), self.0.nodes.len());
        let output = self.0.add_value(&name, shape);
        self.0.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
        output
    }

    /// Simplifies the graph that gives `outputs`, and lists the operators that are left after the comparison.
    fn simplified(mut self, outputs: &[ValueId]) -> (Graph, Vec<&'static str>) {
        self.0.outputs = outputs.to_vec();
        let before = self.0;
        before.check().unwrap();
        let after = simplify(&before);
        after.check().unwrap();
        let samples = 2;
        let inputs = [numbers(samples * before.shape(ValueId(0)).iter().product::<usize>(), 5)];
        let expected = evaluate(&before, &inputs, samples, &before.outputs);
        let got = evaluate(&after, &inputs, samples, &after.outputs);
        for (expected, got) in expected.iter().zip(&got) {
            assert_eq!(expected.len(), got.len());
            for (expected, got) in expected.iter().zip(got) {
                assert!((expected - got).abs() < 1e-4, "{expected} became {got}");
            }
        }
        let names = |graph: &Graph| -> Vec<String> {
            graph.outputs.iter().map(|id| graph.value(*id).name.clone()).collect()
        };
        assert_eq!(names(&before), names(&after));
        let left = after.nodes.iter().map(|node| node.op.name()).collect();
        (after, left)
    }
}

/// What is left of a chain of operators.
fn chain(shape: &[usize], ops: Vec<Op>) -> (Graph, Vec<&'static str>) {
    let mut builder = Builder::new(shape);
    let last = ops.into_iter().fold(ValueId(0), |value, op| builder.node(op, &[value]));
    builder.simplified(&[last])
}

#[test]
fn affine_folds_into_the_layer_before() {
    assert_eq!(chain(&[1, 2, 4, 4], vec![conv(3, 2, 3, 1, 1), affine(3), Op::Clamp(RELU)]).1, ["conv2d"]);
    assert_eq!(chain(&[1, 4, 4, 4], vec![conv(8, 4, 3, 1, 4), affine(8)]).1, ["conv2d-grouped"]);
    assert_eq!(chain(&[1, 4], vec![dense(3, 4), affine(3), affine(3)]).1, ["dense"]);
    // Channels are the last axis of a dense layer over a sequence, and axis 1 behind the transpose.
    let transposed = vec![dense(3, 4), Op::Transpose(vec![0, 2, 1]), affine(3), Op::Transpose(vec![0, 2, 1])];
    assert_eq!(chain(&[1, 5, 4], transposed).1, ["dense"]);
    // Here axis 1 is the sequence: no row of the weight is scaled.
    assert_eq!(chain(&[1, 5, 4], vec![dense(3, 4), affine(5)]).1, ["dense", "affine"]);
    let uniform = Op::Affine(Affine { scale: vec![30.0; 5], shift: vec![0.5; 5] });
    assert_eq!(chain(&[1, 5, 4], vec![dense(3, 4), uniform, Op::Unary(Unary::Sin)]).1, ["dense", "sin"]);
    // A channel of the image is a block of the dense layer's outputs.
    let image = vec![dense(12, 4), Op::Reshape(vec![1, 3, 2, 2]), affine(3), conv(2, 3, 1, 0, 1)];
    assert_eq!(chain(&[1, 4], image).1, ["dense", "reshape", "conv2d"]);
}

#[test]
fn affine_folds_into_the_layer_behind_where_padding_allows() {
    assert_eq!(chain(&[1, 2, 4, 4], vec![affine(2), conv(3, 2, 3, 0, 1)]).1, ["conv2d"]);
    assert_eq!(chain(&[1, 4, 4, 4], vec![affine(4), conv(8, 4, 3, 0, 2)]).1, ["conv2d-grouped"]);
    assert_eq!(chain(&[1, 4], vec![affine(4), dense(3, 4)]).1, ["dense"]);
    // Zeros come in behind the shift.
    assert_eq!(chain(&[1, 2, 4, 4], vec![affine(2), conv(3, 2, 3, 1, 1)]).1, ["affine", "conv2d"]);
    let scale = Op::Affine(Affine { scale: vec![2.0, 3.0], shift: vec![0.0; 2] });
    assert_eq!(chain(&[1, 2, 4, 4], vec![scale, conv(3, 2, 3, 1, 1)]).1, ["conv2d"]);
}

#[test]
fn affine_stays_behind_an_activation_or_a_value_with_other_readers() {
    let ops = vec![conv(2, 2, 1, 0, 1), Op::Clamp(RELU), affine(2)];
    assert_eq!(chain(&[1, 2, 3, 3], ops).1, ["conv2d", "affine"]);
    let mut builder = Builder::new(&[1, 4]);
    let hidden = builder.node(dense(3, 4), &[ValueId(0)]);
    let scaled = builder.node(affine(3), &[hidden]);
    let clamped = builder.node(Op::Clamp(RELU), &[hidden]);
    assert_eq!(builder.simplified(&[scaled, clamped]).1, ["dense", "affine", "clamp"]);
}

#[test]
fn clamps_fuse_and_cross_a_maximum() {
    let (graph, left) =
        chain(&[1, 2, 4, 4], vec![conv(3, 2, 3, 1, 1), Op::MaxPool(pool([0; 4], false)), Op::Clamp(RELU)]);
    assert_eq!(left, ["conv2d", "max-pool"]);
    assert!(matches!(&graph.nodes[0].op, Op::Conv(conv) if conv.activation == RELU));
    let clamp = |low, high| Op::Clamp(ActivationRange { low, high });
    let (graph, left) = chain(&[1, 4], vec![clamp(-0.5, 9.0), clamp(-9.0, 0.25), Op::Clamp(NONE)]);
    assert_eq!(left, ["clamp"]);
    assert_eq!(graph.nodes[0].op, clamp(-0.5, 0.25));
    let mut builder = Builder::new(&[1, 2, 3, 3]);
    let hidden = builder.node(conv(2, 2, 3, 1, 1), &[ValueId(0)]);
    let sum = builder.node(Op::Add(NONE), &[hidden, ValueId(0)]);
    let clamped = builder.node(Op::Clamp(RELU), &[sum]);
    assert_eq!(builder.simplified(&[clamped]).1, ["conv2d", "add"]);
}

#[test]
fn clamp_of_an_output_stays() {
    let mut builder = Builder::new(&[1, 4]);
    let hidden = builder.node(dense(3, 4), &[ValueId(0)]);
    let clamped = builder.node(Op::Clamp(RELU), &[hidden]);
    assert_eq!(builder.simplified(&[hidden, clamped]).1, ["dense", "clamp"]);
}

#[test]
fn pads_become_padding() {
    let shape = [1, 2, 4, 4];
    let spatial = || pad(&[0, 0, 1, 2], &[0, 0, 0, 1], 0.0);
    let (graph, left) = chain(&shape, vec![spatial(), conv(3, 2, 3, 1, 1)]);
    assert_eq!(left, ["conv2d"]);
    assert!(matches!(&graph.nodes[0].op, Op::Conv(conv) if conv.pads == [2, 3, 1, 2]));
    let narrow = || pad(&[0, 0, 1, 0], &[0, 0, 0, 1], 0.0);
    assert_eq!(chain(&shape, vec![narrow(), Op::AveragePool(pool([0; 4], false))]).1, ["average-pool"]);
    // The pooling leaves out its own padding, but not these zeros.
    let ops = vec![narrow(), Op::AveragePool(pool([1; 4], false))];
    assert_eq!(chain(&shape, ops).1, ["pad", "average-pool"]);
    // A negative element loses against a padded zero.
    assert_eq!(chain(&shape, vec![narrow(), Op::MaxPool(pool([0; 4], false))]).1, ["pad", "max-pool"]);
    let rectified = |pad| vec![conv(2, 2, 1, 0, 1), Op::Clamp(RELU), pad, Op::MaxPool(pool([0; 4], false))];
    assert_eq!(chain(&shape, rectified(narrow())).1, ["conv2d", "max-pool"]);
    // Here a window lies in the padding alone.
    assert_eq!(chain(&shape, rectified(spatial())).1, ["conv2d", "pad", "max-pool"]);
    // Nothing loses against the lowest number.
    for value in [f32::MIN, f32::NEG_INFINITY] {
        let lowest = pad(&[0, 0, 1, 0], &[0, 0, 0, 1], value);
        assert_eq!(chain(&shape, vec![lowest, Op::MaxPool(pool([0; 4], false))]).1, ["max-pool"]);
    }
    let ops = vec![pad(&[0, 0, 1, 2], &[0, 0, 0, 1], 1.0), conv(3, 2, 3, 1, 1)];
    assert_eq!(chain(&shape, ops).1, ["pad", "conv2d"]);
}

#[test]
fn padded_channels_drop_weights() {
    let (graph, left) =
        chain(&[1, 2, 4, 4], vec![pad(&[0, 1, 0, 0], &[0, 2, 0, 1], 0.0), conv(3, 5, 3, 1, 1)]);
    assert_eq!(left, ["conv2d"]);
    assert_eq!(graph.nodes[0].op.dense_weight().unwrap().shape, [3, 2, 3, 3]);
}

#[test]
fn pads_cross_transposes_and_clamps() {
    let ops = vec![
        pad(&[0, 1, 0, 0], &[0, 0, 1, 0], 0.0),
        Op::Clamp(RELU),
        Op::Transpose(vec![0, 3, 1, 2]),
        conv(3, 2, 3, 0, 1),
    ];
    assert_eq!(chain(&[1, 4, 4, 2], ops).1, ["clamp", "transpose", "conv2d"]);
}

#[test]
fn transposes_meet_and_cancel() {
    let ops = vec![
        Op::Transpose(vec![0, 3, 1, 2]),
        conv(3, 2, 3, 1, 1),
        Op::Transpose(vec![0, 2, 3, 1]),
        Op::Clamp(RELU),
        Op::Unary(Unary::Tanh),
        Op::Transpose(vec![0, 3, 1, 2]),
        conv(2, 3, 1, 0, 1),
        Op::Transpose(vec![0, 2, 3, 1]),
    ];
    let left = ["transpose", "conv2d", "tanh", "conv2d", "transpose"];
    assert_eq!(chain(&[1, 4, 4, 2], ops).1, left);
}

#[test]
fn transposes_cross_sums_softmax_and_means() {
    let mut builder = Builder::new(&[1, 2, 3, 4]);
    let a = builder.node(conv(2, 2, 1, 0, 1), &[ValueId(0)]);
    let b = builder.node(conv(2, 2, 3, 1, 1), &[ValueId(0)]);
    let [a, b] = [a, b].map(|id| builder.node(Op::Transpose(vec![0, 2, 3, 1]), &[id]));
    let sum = builder.node(Op::Add(RELU), &[a, b]);
    let softmax = builder.node(Op::Softmax { axis: 3 }, &[sum]);
    let mean = builder.node(Op::Mean { axes: vec![1, 2], keep_axes: false }, &[softmax]);
    let (graph, left) = builder.simplified(&[mean]);
    assert_eq!(left, ["conv2d", "conv2d", "add", "softmax", "mean"]);
    assert_eq!(graph.nodes[3].op, Op::Softmax { axis: 1 });
    let (graph, left) = chain(
        &[1, 2, 3, 4],
        vec![Op::Transpose(vec![0, 3, 1, 2]), Op::Mean { axes: vec![2], keep_axes: false }],
    );
    assert_eq!(left, ["mean", "transpose"]);
    assert_eq!(graph.nodes[0].op, Op::Mean { axes: vec![1], keep_axes: false });
}

#[test]
fn transposes_vanish_in_dense_layers() {
    let ops = vec![
        conv(2, 2, 1, 0, 1),
        Op::Transpose(vec![0, 2, 3, 1]),
        Op::Reshape(vec![1, 24]),
        dense(12, 24),
        Op::Clamp(RELU),
        Op::Reshape(vec![1, 2, 2, 3]),
        Op::Transpose(vec![0, 3, 1, 2]),
        conv(2, 3, 1, 0, 1),
    ];
    assert_eq!(chain(&[1, 2, 3, 4], ops).1, ["conv2d", "reshape", "dense", "reshape", "conv2d"]);
}

#[test]
fn reshapes_merge_and_cross_elementwise_nodes() {
    let ops = vec![
        dense(6, 4),
        Op::Reshape(vec![1, 2, 3]),
        Op::Clamp(RELU),
        Op::Reshape(vec![1, 3, 2]),
        Op::Unary(Unary::Sigmoid),
        Op::Reshape(vec![1, 6]),
        dense(2, 6),
    ];
    assert_eq!(chain(&[1, 4], ops).1, ["dense", "sigmoid", "dense"]);
    let ops = vec![
        Op::Mean { axes: vec![2, 3], keep_axes: true },
        Op::Reshape(vec![1, 2]),
        Op::Softmax { axis: 1 },
    ];
    let (graph, left) = chain(&[1, 2, 3, 3], ops);
    assert_eq!(left, ["mean", "softmax"]);
    assert_eq!(graph.nodes[0].op, Op::Mean { axes: vec![2, 3], keep_axes: false });
    // A transpose that moves axes of one element only is a reshape.
    let ops = vec![Op::Transpose(vec![0, 2, 3, 1]), Op::Reshape(vec![1, 5]), dense(2, 5)];
    assert_eq!(chain(&[1, 5, 1, 1], ops).1, ["reshape", "dense"]);
}

#[test]
fn an_identity_between_input_and_output_stays() {
    assert_eq!(chain(&[1, 4], vec![Op::Clamp(NONE)]).1, ["clamp"]);
}

#[test]
fn simplify_is_idempotent_and_keeps_factorised_layers() {
    let core = |o, i, modes| crate::graph::Core { tensor: Tensor::new(vec![o, i], numbers(o * i, 1)), modes };
    use crate::graph::{Mode, Network};
    let network = Network {
        format: "low-rank",
        shape: vec![3, 4],
        cores: vec![
            core(2, 4, vec![Mode::Bond(0), Mode::Input(0)]),
            core(3, 2, vec![Mode::Output(0), Mode::Bond(0)]),
        ],
        contraction: vec![0, 1],
        row_scale: None,
    };
    let mut builder = Builder::new(&[1, 4]);
    let op = Op::Dense(Dense { weight: Weight::Network(network), bias: None, activation: NONE });
    let hidden = builder.node(op, &[ValueId(0)]);
    let scaled = builder.node(affine(3), &[hidden]);
    builder.0.outputs = vec![scaled];
    let once = simplify(&builder.0);
    assert_eq!(once.nodes.len(), 2);
    assert_eq!(simplify(&once), once);
}
