//! Each pass of `simplify` on every float model of the zoo, and on random graphs: the graph stays sound and computes the same, and in the end
//! nothing is left that a pass should have removed.

use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use tucano_converter::evaluate::{evaluate, metrics};
use tucano_converter::graph::{
    ActivationRange, Affine, Conv, Dense, Graph, Node, Op, Pool, Tensor, Unary, ValueId, Weight,
};
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{Options, import};
use tucano_converter::passes::{PASSES, simplify};

/// Samples that each pass is judged on.
const SAMPLES: usize = 3;
/// Largest difference of an output, relative to its largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// SIREN feeds `sin(30 x)` into itself three times, which magnifies the last bit of the first layer.
const TOLERANCE_SIREN: f64 = 1e-4;

#[test]
fn every_pass_keeps_what_zoo_models_compute() {
    let Some(zoo) = tucano_tests::zoo() else { return };
    let models = tucano_tests::float_models(&zoo);
    assert!(models.len() >= 50, "only {} models found in {}", models.len(), zoo.display());
    let mut faults = Vec::new();
    println!("{:<42} {:<12} {:>6} {:>6} {:>9}", "model", "pass", "before", "after", "error");
    for path in &models {
        let name = path.strip_prefix(&zoo).unwrap_or(path).display().to_string();
        let graph = import(path, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let inputs = inputs(path, &graph);
        let reference = evaluate(&graph, &inputs, SAMPLES, &graph.outputs);
        let tolerance = if name.contains("siren") { TOLERANCE_SIREN } else { TOLERANCE };
        let mut current = graph.clone();
        loop {
            let round = current.clone();
            for (pass, run) in PASSES {
                let next = run(&current);
                if next == current {
                    continue;
                }
                next.check().unwrap_or_else(|why| panic!("{name}: after {pass}: {why}"));
                let outputs = evaluate(&next, &inputs, SAMPLES, &next.outputs);
                let error = difference(&reference, &outputs);
                let counts = (current.nodes.len(), next.nodes.len());
                println!("{name:<42} {pass:<12} {:>6} {:>6} {error:>9.1e}", counts.0, counts.1);
                if error > tolerance || error.is_nan() {
                    faults.push(format!("{name}: {pass} changes an output by {error:.1e}"));
                }
                current = next;
            }
            if current == round {
                break;
            }
        }
        assert_eq!(current, simplify(&graph), "{name}: simplify runs the passes to their fixed point");
        assert_eq!(interface(&graph), interface(&current), "{name}: inputs and outputs stay");
        assert!(current.macs() <= graph.macs(), "{name}: more work than before");
        // A tensor train that is contracted at run time really moves axes between its dense stages.
        if name.contains("tt_mlp_chain") {
            continue;
        }
        faults.extend(leftovers(&current).into_iter().map(|left| format!("{name}: {left}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The first recorded samples, repeated if there are fewer.
fn inputs(path: &Path, graph: &Graph) -> Vec<Vec<f32>> {
    let archive = Archive::open(&path.with_extension("npz")).expect("recorded inputs");
    let arrays = graph.inputs.iter().enumerate().map(|(k, id)| {
        let Data::F32(data) = archive.array(&format!("in{k}")).expect("recorded input").data else {
            panic!("input {k} is not float");
        };
        let len: usize = graph.shape(*id).iter().product();
        data.chunks_exact(len).cycle().take(SAMPLES).flatten().copied().collect()
    });
    arrays.collect()
}

fn difference(reference: &[Vec<f32>], outputs: &[Vec<f32>]) -> f64 {
    let pairs = reference.iter().zip(outputs);
    let errors = pairs.map(|(reference, output)| {
        let difference = metrics::max_abs(reference, output);
        if difference == 0.0 { 0.0 } else { difference / largest(reference) }
    });
    errors.fold(0.0, |max, error| if error <= max { max } else { error })
}

fn largest(numbers: &[f32]) -> f64 {
    numbers.iter().fold(0.0, |max, x| max.max(f64::from(x.abs())))
}

/// Names and shapes of the values that the caller sees.
fn interface(graph: &Graph) -> Vec<(&str, &[usize])> {
    let values = graph.inputs.iter().chain(&graph.outputs).map(|id| graph.value(*id));
    values.map(|value| (value.name.as_str(), value.shape.as_slice())).collect()
}

/// What `simplify` should have removed.
fn leftovers(graph: &Graph) -> Vec<String> {
    let mut left = Vec::new();
    for node in &graph.nodes {
        let producer = graph.producer(node.inputs[0]).map(|index| &graph.nodes[index].op);
        let read_twice = graph.consumers(node.inputs[0]).len() > 1;
        let at_border = producer.is_none() || graph.outputs.contains(&node.output);
        let stays = match &node.op {
            Op::Affine(_) | Op::Pad { .. } => true,
            Op::Clamp(_) => {
                !read_twice
                    && matches!(
                        producer,
                        Some(Op::Conv(_) | Op::Dense(_) | Op::Add(_) | Op::Mul(_) | Op::Clamp(_))
                    )
            }
            Op::Transpose(_) => !at_border,
            Op::Reshape(_) => {
                matches!(producer, Some(Op::Reshape(_)))
                    || graph.shape(node.inputs[0]) == graph.shape(node.output)
            }
            _ => false,
        };
        if stays {
            left.push(format!("`{}` ({}) is left", node.name, node.op.name()));
        }
    }
    left
}

/// Evaluation of the largest model, for a look at the speed (`--nocapture`); judged generously, for busy machines.
#[test]
fn evaluation_is_fast_enough_to_search_with() {
    let Some(zoo) = tucano_tests::zoo() else { return };
    let path = zoo.join("trained/vgg_fat.onnx");
    let graph = simplify(&import(&path, &Options::default()).expect("vgg_fat"));
    let sample = inputs(&path, &graph);
    let samples = 250;
    let inputs: Vec<Vec<f32>> =
        sample.iter().map(|data| data[..data.len() / SAMPLES].repeat(samples)).collect();
    let start = Instant::now();
    let outputs = evaluate(&graph, &inputs, samples, &graph.outputs);
    let seconds = start.elapsed().as_secs_f64();
    let rate = graph.macs() as f64 * samples as f64 / seconds / 1e9;
    println!("vgg_fat: {samples} samples in {seconds:.2} s, {rate:.1} GMAC/s");
    let classes = outputs[0].len() / samples;
    assert!(outputs[0].chunks_exact(classes).all(|row| *row == outputs[0][..classes]), "samples differ");
    assert!(seconds < 60.0, "{seconds} s");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every choice of small numbers is a graph of up to 14 nodes with branches; all passes keep what it computes.
    #[test]
    fn random_graphs_compute_the_same(choices in prop::collection::vec(any::<u32>(), 8..120), rank in 2usize..5) {
        let graph = random_graph(&choices, rank);
        prop_assert_eq!(graph.check(), Ok(()));
        let len: usize = graph.shape(graph.inputs[0]).iter().product();
        let inputs = [numbers(2 * len, 1)];
        let reference = evaluate(&graph, &inputs, 2, &graph.outputs);
        let agrees = |graph: &Graph| {
            graph.check()?;
            for (reference, output) in reference.iter().zip(evaluate(graph, &inputs, 2, &graph.outputs)) {
                // Relative to 1 at least: an output may be what rounding leaves of a difference.
                let error = metrics::max_abs(reference, &output) / largest(reference).max(1.0);
                if error.is_nan() || error > 1e-4 {
                    return Err(format!("differs by {error:.1e}"));
                }
            }
            Ok(())
        };
        for (pass, run) in PASSES {
            let after = run(&graph);
            prop_assert_eq!(agrees(&after), Ok(()), "{}", pass);
            prop_assert_eq!(&run(&after), &after, "{} twice", pass);
        }
        let after = simplify(&graph);
        prop_assert_eq!(agrees(&after), Ok(()));
        prop_assert_eq!(interface(&graph), interface(&after));
        prop_assert_eq!(&simplify(&after), &after);
    }
}

/// Numbers in -1..1 without a pattern.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|k| ((k * 7919 + seed * 104_729 + 1) as f32 * 0.618_034).fract() * 2.0 - 1.0).collect()
}

/// Reads choices one by one, then zeros.
struct Choices<'a>(std::slice::Iter<'a, u32>);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next().map_or(0, |choice| *choice as usize % bound)
    }
}

fn random_graph(choices: &[u32], rank: usize) -> Graph {
    let mut choices = Choices(choices.iter());
    let mut graph = Graph::default();
    let shape = [1, 3, 4, 5][..rank].to_vec();
    let mut values = vec![graph.add_value("input", shape)];
    graph.inputs = values.clone();
    while graph.nodes.len() < 14 && choices.0.len() > 0 {
        // Mostly go on from the newest value, sometimes branch.
        let back = if choices.below(4) == 0 { choices.below(values.len()) } else { 0 };
        let input = values[values.len() - 1 - back];
        let shape = graph.shape(input).to_vec();
        let mut inputs = vec![input];
        if choices.below(6) == 0 {
            let equal: Vec<ValueId> = values.iter().copied().filter(|id| graph.shape(*id) == shape).collect();
            inputs.push(equal[choices.below(equal.len())]);
        }
        let op = match inputs.len() {
            1 => random_op(&mut choices, &shape),
            _ => [Op::Add(range(&mut choices)), Op::Mul(range(&mut choices))][choices.below(2)].clone(),
        };
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| graph.shape(*id)).collect();
        let Ok(shape) = op.output_shape(&shapes) else { continue };
        if shape.iter().product::<usize>() > 2000 {
            continue;
        }
        let name = format!("{}_{}", op.name(), graph.nodes.len());
        let output = graph.add_value(&name, shape);
        graph.nodes.push(Node { name, op, inputs, output });
        values.push(output);
    }
    graph.outputs = vec![values[values.len() - 1]];
    if choices.below(3) == 0 {
        graph.outputs.push(values[choices.below(values.len())]);
    }
    graph
}

fn range(choices: &mut Choices) -> ActivationRange {
    [ActivationRange::NONE, ActivationRange::RELU, ActivationRange { low: -0.25, high: 0.5 }]
        [choices.below(3)]
}

/// An operator that mostly fits `shape`.
fn random_op(choices: &mut Choices, shape: &[usize]) -> Op {
    let rank = shape.len();
    let seed = choices.below(1000);
    let bias = |choices: &mut Choices, len| (choices.below(2) == 0).then(|| numbers(len, seed + 1));
    match choices.below(13) {
        0 | 1 if rank > 2 => {
            let (o, kernel) = (1 + choices.below(4), 1 + choices.below(3));
            let (o, groups) = if choices.below(3) == 0 { (shape[1], shape[1]) } else { (o, 1) };
            let kernel = [if rank == 3 { 1 } else { kernel }, kernel];
            let shape = vec![o, shape[1] / groups, kernel[0], kernel[1]];
            let rows = if rank == 3 { 0 } else { choices.below(2) };
            Op::Conv(Conv {
                weight: Weight::Dense(Tensor::new(shape.clone(), numbers(shape.iter().product(), seed))),
                bias: bias(choices, o),
                strides: [1, 1 + choices.below(2)],
                pads: [rows, choices.below(2), rows, choices.below(2)],
                dilations: [1, 1],
                groups,
                activation: range(choices),
            })
        }
        0..=2 => {
            let (o, i) = (1 + choices.below(6), shape[rank - 1]);
            let weight = Weight::Dense(Tensor::new(vec![o, i], numbers(o * i, seed)));
            Op::Dense(Dense { weight, bias: bias(choices, o), activation: range(choices) })
        }
        3 | 4 => {
            let numbers = |seed: usize| match seed % 3 {
                0 => vec![0.0; shape[1]],
                1 => vec![0.75; shape[1]],
                _ => numbers(shape[1], seed),
            };
            Op::Affine(Affine { scale: numbers(1 + choices.below(40)), shift: numbers(choices.below(40)) })
        }
        5 => Op::Clamp(range(choices)),
        6 => Op::Unary([Unary::Sin, Unary::Sigmoid, Unary::Tanh][choices.below(3)]),
        7 => {
            let pads = [0, choices.below(2), 0, choices.below(2)];
            let pool =
                Pool { kernel: [1, 2], strides: [1, 1], pads, count_include_pad: choices.below(2) == 0 };
            if choices.below(2) == 0 { Op::MaxPool(pool) } else { Op::AveragePool(pool) }
        }
        8 if rank > 1 => {
            let axes = (1..rank).filter(|_| choices.below(2) == 0).collect::<Vec<_>>();
            let axes = if axes.is_empty() { vec![rank - 1] } else { axes };
            let keep_axes = choices.below(2) == 0 || axes.len() + 1 == rank;
            Op::Mean { axes, keep_axes }
        }
        9 => {
            let elements: usize = shape.iter().product();
            let divisors: Vec<usize> = (1..=elements).filter(|d| elements.is_multiple_of(*d)).collect();
            let first = divisors[choices.below(divisors.len())];
            let rest = elements / first;
            let half = (1..=rest).filter(|d| rest.is_multiple_of(*d)).nth(1).unwrap_or(1);
            Op::Reshape(match choices.below(4) {
                0 => vec![1, elements],
                1 => vec![1, first, rest],
                2 => vec![1, first, half, rest / half],
                _ => vec![1, half, first, rest / half],
            })
        }
        10 => {
            let mut axes: Vec<usize> = (1..rank).collect();
            let mut permutation = vec![0];
            while !axes.is_empty() {
                permutation.push(axes.remove(choices.below(axes.len())));
            }
            Op::Transpose(permutation)
        }
        11 => {
            let mut amounts = || (0..rank).map(|axis| if axis == 0 { 0 } else { choices.below(2) }).collect();
            let (before, after) = (amounts(), amounts());
            Op::Pad { before, after, value: [0.0, 0.0, 0.5, -2.0][seed % 4] }
        }
        _ => Op::Softmax { axis: 1 + choices.below(rank - 1) },
    }
}
