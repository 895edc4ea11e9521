//! The whole way from graph to runtime, on small graphs that exercise every step and every layout decision: the blob gives what
//! the evaluator gives.

use tucano::blob::DType;
use tucano::host::Runner;

use super::*;
use crate::calibrate::Dataset;
use crate::evaluate::{evaluate, metrics};
use crate::graph::{ActivationRange, Affine, Conv, Dense, Node, Op, Pool, Tensor, Unary, Weight};
use crate::passes::half::round_weights;
use crate::passes::layout::Kind;
use crate::passes::legalize;
use crate::plan::plan_for;
use crate::quantize::{self, quantize};

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn tensor(shape: &[usize], seed: u64) -> Weight {
    Weight::Dense(Tensor::new(shape.to_vec(), random(shape.iter().product(), seed)))
}

fn conv(shape: [usize; 4], strides: [usize; 2], pads: [usize; 4], groups: usize) -> Op {
    Op::Conv(Conv {
        weight: tensor(&shape, shape[0] as u64),
        bias: Some(random(shape[0], 5)),
        strides,
        pads,
        dilations: [1, 1],
        groups,
        activation: ActivationRange::RELU,
    })
}

fn dense(o: usize, i: usize) -> Op {
    Op::Dense(Dense { weight: tensor(&[o, i], 3), bias: None, activation: ActivationRange::NONE })
}

/// A graph that applies `ops` one after the other; sums and products add or multiply by the value before.
fn chain(shape: &[usize], ops: Vec<Op>) -> Graph {
    let mut graph = Graph { name: "chain".into(), ..Graph::default() };
    let mut last = graph.add_value("x", shape.to_vec());
    let mut before = last;
    graph.inputs.push(last);
    for (k, op) in ops.into_iter().enumerate() {
        let two = matches!(op, Op::Add(_) | Op::Mul(_));
        let inputs = if two { vec![before, last] } else { vec![last] };
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| graph.shape(*id)).collect();
        let shape = op.output_shape(&shapes).expect("shape");
        let output = graph.add_value(format!("v{k}"), shape);
        graph.nodes.push(Node { name: format!("n{k}"), op, inputs, output });
        (before, last) = (last, output);
    }
    graph.outputs.push(last);
    graph.check().expect("sound");
    graph
}

const POOL: Pool = Pool { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 1, 1], count_include_pad: false };
const NONE: ActivationRange = ActivationRange::NONE;

/// Graphs with the number of layout changes that each really needs.
fn graphs() -> Vec<(Graph, usize)> {
    let image = [1, 3, 6, 5];
    vec![
        // Convolution, pooling and flatten: the dense layer absorbs the order.
        (
            chain(
                &image,
                vec![
                    conv([4, 3, 3, 3], [2, 1], [1, 1, 0, 1], 1),
                    Op::MaxPool(POOL),
                    Op::Reshape(vec![1, 24]),
                    dense(5, 24),
                    Op::Softmax { axis: 1 },
                ],
            ),
            0,
        ),
        // An NHWC model: its leading transpose costs nothing.
        (
            chain(
                &[1, 6, 5, 3],
                vec![
                    Op::Transpose(vec![0, 3, 1, 2]),
                    conv([6, 1, 3, 3], [1, 1], [1; 4], 3),
                    Op::AveragePool(POOL),
                    Op::Transpose(vec![0, 2, 3, 1]),
                ],
            ),
            0,
        ),
        // Residual, in place.
        (
            chain(
                &image,
                vec![
                    conv([3, 3, 1, 1], [1, 1], [0; 4], 1),
                    conv([3, 3, 3, 3], [1, 1], [1; 4], 1),
                    Op::Add(ActivationRange::RELU),
                    Op::Unary(Unary::Sigmoid),
                ],
            ),
            0,
        ),
        // Grouped convolution, mean over the image, with and without kept axes.
        (
            chain(
                &[1, 4, 6, 5],
                vec![
                    conv([6, 2, 3, 3], [1, 1], [0; 4], 2),
                    Op::Mean { axes: vec![2, 3], keep_axes: false },
                    dense(3, 6),
                ],
            ),
            0,
        ),
        (chain(&image, vec![Op::Mean { axes: vec![3], keep_axes: true }, Op::Unary(Unary::Tanh)]), 0),
        // Sequences.
        (
            chain(
                &[1, 4, 9],
                vec![
                    conv([5, 4, 1, 3], [1, 2], [0, 1, 0, 1], 1),
                    conv([5, 1, 1, 2], [1, 1], [0; 4], 5),
                    Op::Reshape(vec![1, 20]),
                    dense(3, 20),
                ],
            ),
            0,
        ),
        // A dense layer gives its outputs in the order that the convolution behind it wants.
        (
            chain(
                &[1, 7],
                vec![
                    dense(24, 7),
                    Op::Clamp(ActivationRange { low: -0.5, high: 1.5 }),
                    Op::Reshape(vec![1, 4, 3, 2]),
                    conv([2, 4, 2, 2], [1, 1], [0; 4], 1),
                ],
            ),
            0,
        ),
        // Rows behind a convolution: positions as rows.
        (
            chain(
                &[1, 3, 8],
                vec![
                    conv([4, 3, 1, 3], [1, 1], [0; 4], 1),
                    Op::Transpose(vec![0, 2, 1]),
                    dense(2, 4),
                    Op::Softmax { axis: 2 },
                ],
            ),
            0,
        ),
        // A transpose that has to be computed: dense over what was the first axis.
        (chain(&[3, 4], vec![dense(5, 4), Op::Transpose(vec![1, 0]), dense(2, 3)]), 1),
        (
            chain(
                &[2, 3, 4],
                vec![dense(5, 4), Op::Transpose(vec![2, 0, 1]), dense(2, 3), Op::Softmax { axis: 1 }],
            ),
            2,
        ),
        // Neither batch norm nor padding has a step of its own.
        (
            chain(
                &[2, 3],
                vec![
                    Op::Affine(Affine { scale: vec![2.0, -1.0, 0.5], shift: vec![0.1, 0.2, 0.3] }),
                    dense(4, 3),
                ],
            ),
            0,
        ),
        (
            chain(
                &image,
                vec![
                    Op::Pad { before: vec![0, 1, 1, 0], after: vec![0, 0, 2, 1], value: 0.0 },
                    conv([2, 4, 3, 3], [1, 1], [0; 4], 1),
                ],
            ),
            0,
        ),
        // The product exists for floats.
        (chain(&[1, 8], vec![dense(8, 8), Op::Mul(NONE), Op::Unary(Unary::Sin)]), 0),
        // Space to depth, channels first: five axes change places.
        (
            chain(
                &[1, 3, 4, 6],
                vec![
                    conv([3, 3, 1, 1], [1, 1], [0; 4], 1),
                    Op::Reshape(vec![1, 3, 2, 2, 3, 2]),
                    Op::Transpose(vec![0, 1, 3, 5, 2, 4]),
                    Op::Reshape(vec![1, 12, 2, 3]),
                    conv([2, 12, 1, 1], [1, 1], [0; 4], 1),
                ],
            ),
            2,
        ),
        // Patches as rows.
        (
            chain(
                &[1, 3, 4, 6],
                vec![
                    Op::Reshape(vec![1, 3, 2, 2, 3, 2]),
                    Op::Transpose(vec![0, 2, 4, 1, 3, 5]),
                    Op::Reshape(vec![1, 6, 12]),
                    dense(4, 12),
                ],
            ),
            2,
        ),
        // Reshapes that split the elements in other places: through row-major order.
        (
            chain(
                &[1, 3, 3, 5],
                vec![
                    conv([6, 3, 1, 1], [1, 1], [0; 4], 1),
                    Op::Reshape(vec![1, 9, 2, 5]),
                    conv([2, 9, 2, 2], [1, 1], [0; 4], 1),
                ],
            ),
            2,
        ),
        (
            chain(
                &[1, 3, 9, 7],
                vec![
                    conv([4, 3, 1, 1], [1, 1], [0; 4], 1),
                    Op::Reshape(vec![1, 6, 42]),
                    Op::Transpose(vec![0, 2, 1]),
                    Op::Reshape(vec![1, 7, 9, 4]),
                    conv([2, 7, 1, 1], [1, 1], [0; 4], 1),
                ],
            ),
            2,
        ),
        // Probabilities over a whole image: their scores move.
        (
            chain(
                &image,
                vec![
                    conv([4, 3, 3, 3], [2, 2], [0; 4], 1),
                    Op::Reshape(vec![1, 16]),
                    Op::Softmax { axis: 1 },
                ],
            ),
            1,
        ),
        // A stride past the image's end.
        (chain(&[1, 4, 6, 5], vec![conv([4, 4, 3, 3], [20, 9], [0; 4], 1), Op::Reshape(vec![1, 4])]), 0),
        // Nothing at all.
        (chain(&[2, 2], vec![Op::Reshape(vec![4])]), 0),
    ]
}

fn run(blob: &[u8], data: &Dataset) -> Vec<f32> {
    let mut runner = Runner::new(blob).expect("loads");
    let len = data.inputs[0].len() / data.samples;
    data.inputs[0].chunks(len).flat_map(|sample| runner.run(&[sample]).expect("runs").remove(0)).collect()
}

fn samples(graph: &Graph, samples: usize) -> Dataset {
    let len: usize = graph.shape(graph.inputs[0]).iter().product();
    Dataset { inputs: vec![random(len * samples, 11)], samples, labels: None }
}

#[test]
fn float_blobs_equal_the_evaluator_with_the_fewest_moves() {
    for (case, (graph, moves)) in graphs().into_iter().enumerate() {
        let graph = legalize(&graph).expect("legal");
        let plan = plan_for(&graph, None, Isa::Scalar).expect("layout");
        let program = Program {
            graph: &graph,
            plan: &plan,
            quantized: None,
            half_weights: false,
            labels: &[],
            isa: Isa::Scalar,
        };
        let blob = emit(&program).expect("blob");
        assert_eq!(blob, emit(&program).expect("blob"), "graph {case}: other bytes");
        let data = samples(&graph, 3);
        let expected = evaluate(&graph, &data.inputs, data.samples, &graph.outputs).remove(0);
        let worst = metrics::max_abs(&expected, &run(&blob, &data));
        assert!(worst < 1e-5, "graph {case}: {worst}");
        let permutes = plan.layout.steps.iter().filter(|step| matches!(step.kind, Kind::Permute(_))).count();
        assert_eq!(permutes, moves, "graph {case}");
        assert_eq!(plan.arena_bytes, plan.lower_bound, "graph {case}");
    }
}

#[test]
fn blobs_of_half_weights_equal_the_rounded_graph() {
    for (case, (graph, _)) in graphs().into_iter().enumerate() {
        let graph = round_weights(&legalize(&graph).expect("legal")).expect("in range");
        let plan = plan_for(&graph, None, Isa::Scalar).expect("layout");
        let whole = Program {
            graph: &graph,
            plan: &plan,
            quantized: None,
            half_weights: false,
            labels: &[],
            isa: Isa::Scalar,
        };
        let half = emit(&Program { half_weights: true, ..whole }).expect("blob");
        let data = samples(&graph, 3);
        let expected = evaluate(&graph, &data.inputs, data.samples, &graph.outputs).remove(0);
        let worst = metrics::max_abs(&expected, &run(&half, &data));
        assert!(worst < 1e-5, "graph {case}: {worst}");
        let runner = Runner::new(&half).expect("loads");
        let model = runner.model();
        let constants = model.steps().filter_map(|step| Some([step.weight(0)?.dtype, step.weight(1)?.dtype]));
        let constants: Vec<_> = constants.collect();
        let layers = graph.nodes.iter().filter(|node| node.op.dense_weight().is_some()).count();
        assert_eq!(constants, vec![[DType::F16, DType::F32]; layers], "graph {case}");
    }
}

#[test]
fn integer_blobs_equal_the_simulation_but_for_roundings() {
    for (case, (graph, _)) in graphs().into_iter().enumerate() {
        let graph = legalize(&graph).expect("legal");
        let data = samples(&graph, 40);
        let options = quantize::Options::default();
        let quantized = match quantize(&graph, Some(&data), &options) {
            Ok(quantized) => quantized,
            Err(quantize::Error::Node { op: "mul", .. }) => continue,
            Err(error) => panic!("graph {case}: {error}"),
        };
        let plan = plan_for(&quantized.graph, Some(&quantized), Isa::Scalar).expect("layout");
        let program = Program {
            graph: &quantized.graph,
            plan: &plan,
            quantized: Some(&quantized),
            half_weights: false,
            labels: &[],
            isa: Isa::Scalar,
        };
        let outputs = run(&emit(&program).expect("blob"), &data);
        let simulated = quantize::simulate(&quantized, &data.inputs, data.samples).remove(0);
        let expected = evaluate(&graph, &data.inputs, data.samples, &graph.outputs).remove(0);
        // The levels of 16-bit probabilities are finer than what an 8-bit score can tell: those count in 8-bit levels.
        let output = quantized.graph.value(graph.outputs[0]).quantization.expect("quantised");
        let unit = if output.bits == 16 { 1.0 / 256.0 } else { f64::from(output.scale) };
        let apart = metrics::max_abs(&simulated, &outputs) / unit;
        assert!(apart < 3.5, "graph {case}: {apart} levels from the simulation");
        let error = metrics::relative_rms(&expected, &outputs);
        assert!(error < 0.05, "graph {case}: relative error {error}");
    }
}

#[test]
fn module_names_what_a_program_needs() {
    let (graph, _) = graphs().remove(0);
    let graph = legalize(&graph).expect("legal");
    let plan = plan_for(&graph, None, Isa::Scalar).expect("layout");
    let program = Program {
        graph: &graph,
        plan: &plan,
        quantized: None,
        half_weights: false,
        labels: &[],
        isa: Isa::Scalar,
    };
    let bytes = emit(&program).expect("blob");
    let text = module(&program, &bytes, "chain.tuc").expect("module");
    for part in [
        format!("ARENA_BYTES: usize = {}", plan.arena_bytes),
        "pub struct Ops { Conv2dF32, DenseF32, MaxPool2dF32, SoftmaxF32 }".into(),
        "INPUT_SHAPES: [&[usize]; 1] = [&[1, 6, 5, 3]]".into(),
        "INPUT_AXES: [&[usize]; 1] = [&[0, 2, 3, 1]]".into(),
        "include_bytes!(\"chain.tuc\")".into(),
    ] {
        assert!(text.contains(&part), "`{part}` is not in\n{text}");
    }
}
