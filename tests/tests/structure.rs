//! Networks trained as hypercomplex or tensor-train layers, exported in whatever way: the structure is found again in the weights alone, and the
//! factorised network gives what onnxruntime recorded for the model.

use std::path::{Path, PathBuf};

use tucano_converter::calibrate::covariance::Geometry;
use tucano_converter::compress::structure::find;
use tucano_converter::compress::{Target, to_matrix};
use tucano_converter::evaluate::evaluate;
use tucano_converter::graph::{Graph, Network, Op, Weight};
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{Options as ImportOptions, import};
use tucano_converter::linalg::Matrix;
use tucano_converter::lower::{lower, network_macs};
use tucano_converter::passes::{compose::compose, simplify};
use tucano_converter::search::{Method, Options, Outcome, Silent, search};

/// Largest relative error of a weight, and of an output relative to its largest magnitude.
const WEIGHT_TOLERANCE: f64 = 1e-5;
const OUTPUT_TOLERANCE: f64 = 1e-4;

fn floats(archive: &Archive, name: &str) -> (usize, Vec<f32>) {
    let array = archive.array(name).expect("recorded array");
    let Data::F32(data) = array.data else { panic!("`{name}` holds integers") };
    (array.shape[0], data)
}

fn output_difference(graph: &Graph, path: &Path) -> f64 {
    let archive = Archive::open(&path.with_extension("npz")).expect("recorded outputs");
    let (samples, input) = floats(&archive, "in0");
    let (_, expected) = floats(&archive, "out0");
    let output = evaluate(graph, &[input], samples, &graph.outputs).remove(0);
    assert_eq!(output.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(f64::from(x.abs())));
    let differences = output.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences.fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { f64::max(most, x) }) / largest
}

fn run(path: &Path, method: Method) -> (Graph, Outcome) {
    let mut graph = simplify(&import(path, &ImportOptions::default()).expect("model"));
    if method == Method::TensorTrain {
        graph = compose(&graph);
    }
    let outcome = search(&graph, None, &Options::of(method), &Silent).expect("search");
    outcome.graph.check().expect("sound graph");
    (graph, outcome)
}

/// The network with every layer in the exact form of the fewest multiply-adds.
fn fastest(graph: &Graph, method: Method) -> Graph {
    let mut result = graph.clone();
    for (index, node) in graph.nodes.iter().enumerate() {
        let (Some(tensor), Some(geometry)) = (node.op.dense_weight(), Geometry::of(graph, node)) else {
            continue;
        };
        let (matrix, unused) = (to_matrix(tensor), Matrix::zeros(0, 0));
        let findings = find(Target::new(&tensor.shape, &matrix, &unused), method, &geometry).expect("finite");
        let macs =
            |network: &Network| network_macs(network, graph.shape(node.inputs[0]), graph.shape(node.output));
        let networks = findings.found.into_iter().map(|found| found.network);
        let Some(network) = networks.min_by_key(macs) else { continue };
        match &mut result.nodes[index].op {
            Op::Conv(conv) => conv.weight = Weight::Network(network),
            Op::Dense(dense) => dense.weight = Weight::Network(network),
            _ => {}
        }
    }
    lower(&result).expect("chain of layers")
}

/// Every layer of `format` is exact, `expected` of them; the whole network has at most `parameters` learnt numbers and gives what was recorded.
fn judge(path: &Path, method: Method, formats: &[&str], expected: usize, parameters: usize) -> bool {
    let (graph, outcome) = run(path, method);
    let lowered = lower(&outcome.graph).expect("chain of layers");
    lowered.check().expect("sound graph");
    let found: Vec<_> =
        outcome.layers.iter().filter(|layer| formats.contains(&layer.format.as_str())).collect();
    let weight = found.iter().filter_map(|layer| layer.error).fold(0.0, f64::max);
    let output = output_difference(&lowered, path);
    let fast = fastest(&graph, method);
    let fast_output = output_difference(&fast, path);
    println!(
        "{:<34} {:>2}/{expected:<2} weight {weight:.1e} output {output:.1e} parameters {} -> {} MACs {} -> {}; \
         fast: output {fast_output:.1e} parameters {} MACs {}",
        path.file_stem().unwrap_or_default().to_string_lossy(),
        found.len(),
        graph.parameters(),
        lowered.parameters(),
        graph.macs(),
        lowered.macs(),
        fast.parameters(),
        fast.macs(),
    );
    for layer in &outcome.layers {
        println!("    {} {} {:?} {}", layer.name, layer.format, layer.ranks, layer.reason);
    }
    assert_eq!(lowered.macs(), outcome.graph.macs());
    found.len() == expected
        && weight < WEIGHT_TOLERANCE
        && output < OUTPUT_TOLERANCE
        && fast_output < OUTPUT_TOLERANCE
        && lowered.parameters() <= parameters
}

/// Models of a folder whose names start with `prefix`.
fn variants(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".onnx")
        })
        .collect();
    paths.sort();
    paths
}

const KRONECKER: &[&str] = &["kronecker", "quaternion"];

/// Folder, prefix of the models, method, names of the formats, layers, learnt numbers at most.
type Trained = (&'static str, &'static str, Method, &'static [&'static str], usize, usize);

/// Trained so.
const TRAINED: [Trained; 4] = [
    ("trained", "phc_resnet8", Method::Hypercomplex(None), KRONECKER, 8, 22_500),
    ("trained", "quat_cnn", Method::Hypercomplex(None), KRONECKER, 7, 74_000),
    ("digits", "phm_mlp", Method::Hypercomplex(None), KRONECKER, 2, 8_500),
    ("digits", "tt_mlp", Method::TensorTrain, &["tensor-train"], 2, 9_900),
];

#[test]
fn zoo_models_are_found_as_they_were_trained() {
    let Some(zoo) = tucano_tests::zoo() else { return };
    let mut missed = Vec::new();
    for (folder, prefix, method, formats, layers, parameters) in TRAINED {
        let models = variants(&zoo.join(folder), prefix);
        assert!(models.len() >= 5, "{prefix}: {} models", models.len());
        missed.extend(models.into_iter().filter(|path| !judge(path, method, formats, layers, parameters)));
    }
    assert!(missed.is_empty(), "not as trained: {missed:?}");
}

#[test]
fn models_of_the_repository_are_found_as_they_were_trained() {
    for (_, prefix, method, formats, layers, parameters) in TRAINED {
        for path in variants(&tucano_tests::models(), prefix) {
            assert!(judge(&path, method, formats, layers, parameters), "{}", path.display());
        }
    }
}

#[test]
fn networks_trained_dense_show_no_structure_and_say_so() {
    let mut models = vec![tucano_tests::models().join("resnet8.onnx")];
    models.extend(tucano_tests::zoo().map(|zoo| zoo.join("trained/vgg_fat.onnx")));
    for path in models {
        for method in [Method::Hypercomplex(None), Method::TensorTrain] {
            let (graph, outcome) = run(&path, method);
            assert_eq!(outcome.graph, graph);
            for layer in &outcome.layers {
                println!("    {} {}: {}", layer.name, layer.format, layer.reason);
                assert_eq!(layer.format, "dense");
                assert!(layer.reason.contains("no "), "{}", layer.reason);
            }
        }
    }
}
