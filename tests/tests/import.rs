//! The importer on every model of the zoo that it must read: the imported graph, run by the reference evaluator,
//! gives what onnxruntime recorded.

use std::path::{Path, PathBuf};

use tucano_converter::evaluate::evaluate;
use tucano_converter::graph::Graph;
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{Error, Options, import};

/// Largest difference, relative to the output's largest magnitude.
const TOLERANCE: f64 = 1e-4;
/// SIREN feeds `sin(30 x)` into itself three times, which magnifies the last bit of the first layer.
const TOLERANCE_SIREN: f64 = 1e-3;

/// The float models of `mlperf`, `trained` and `digits` but for the recurrent nets and the transformer.
fn models(zoo: &Path) -> Vec<PathBuf> {
    let wanted = |folder: &str, path: &Path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let starts = |list: &[&str]| list.iter().any(|prefix| name.starts_with(prefix));
        path.extension().is_some_and(|extension| extension == "onnx")
            && match folder {
                "mlperf" => !name.ends_with("_qdq"),
                "trained" => true,
                _ => starts(&["tt_mlp", "phm_mlp", "siren_astronaut"]),
            }
    };
    let mut paths = vec![];
    for folder in ["mlperf", "trained", "digits"] {
        for entry in std::fs::read_dir(zoo.join(folder)).expect("zoo folder") {
            let path = entry.expect("zoo file").path();
            if wanted(folder, &path) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths
}

fn floats(archive: &Archive, name: &str) -> (usize, Vec<f32>) {
    let array = archive.array(name).expect("recorded array");
    let Data::F32(data) = array.data else { panic!("`{name}` holds integers") };
    (array.shape[0], data)
}

/// Imports and evaluates each model, prints a table, and gives the names of those that miss the tolerance.
fn compare(folder: &Path, models: &[PathBuf]) -> Vec<String> {
    println!("{:<45} {:>5} {:>10} {:>11} {:>9}", "model", "nodes", "parameters", "MACs", "error");
    let mut missed = vec![];
    for path in models {
        let name = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let graph = match import(path, &Options::default()) {
            Ok(graph) => graph,
            Err(error) => {
                println!("{name:<45} {error}");
                missed.push(name);
                continue;
            }
        };
        let error = error(&graph, &Archive::open(&path.with_extension("npz")).expect("recorded outputs"));
        let (nodes, parameters, macs) = (graph.nodes.len(), graph.parameters(), graph.macs());
        println!("{name:<45} {nodes:>5} {parameters:>10} {macs:>11} {error:>9.1e}");
        let tolerance = if name.contains("siren") { TOLERANCE_SIREN } else { TOLERANCE };
        if error > tolerance {
            missed.push(name);
        }
    }
    missed
}

/// Largest difference of any output from the recorded one, relative to the latter's largest magnitude.
fn error(graph: &Graph, archive: &Archive) -> f64 {
    let inputs: Vec<_> = (0..graph.inputs.len()).map(|k| floats(archive, &format!("in{k}"))).collect();
    let samples = inputs[0].0;
    let inputs: Vec<Vec<f32>> = inputs.into_iter().map(|(_, data)| data).collect();
    let outputs = evaluate(graph, &inputs, samples, &graph.outputs);
    assert_eq!(outputs.len(), graph.outputs.len(), "{}: outputs", graph.name);
    let mut error = 0.0_f64;
    for (k, output) in outputs.iter().enumerate() {
        let (_, expected) = floats(archive, &format!("out{k}"));
        assert_eq!(output.len(), expected.len(), "{}: length of output {k}", graph.name);
        let largest = expected.iter().fold(0.0_f64, |max, x| max.max(f64::from(x.abs())));
        for (a, b) in output.iter().zip(&expected) {
            let difference = (f64::from(*a) - f64::from(*b)).abs() / largest;
            error = if difference.is_nan() { f64::INFINITY } else { error.max(difference) };
        }
    }
    error
}

#[test]
fn zoo_models_give_the_recorded_outputs() {
    let Some(zoo) = tucano_tests::zoo() else { return };
    let models = models(&zoo);
    assert!(models.len() >= 50, "only {} models found in {}", models.len(), zoo.display());
    let missed = compare(&zoo, &models);
    assert!(missed.is_empty(), "not within tolerance: {missed:?}");
}

#[test]
fn models_of_the_repository_give_the_recorded_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let names = [
        "resnet8",
        "phm_mlp_dense",
        "phm_mlp_bcast_dynamo_noopt",
        "tt_mlp_chain_dynamo_noopt",
        "siren_astronaut",
    ];
    let models = names.map(|name| folder.join(format!("{name}.onnx")));
    let missed = compare(&folder, &models);
    assert!(missed.is_empty(), "not within tolerance: {missed:?}");
}

#[test]
fn quantised_models_are_refused_with_one_report() {
    let Some(zoo) = tucano_tests::zoo() else { return };
    let Err(Error::Blocked(blockers)) =
        import(&zoo.join("mlperf/resnet8_int8_qdq.onnx"), &Options::default())
    else {
        panic!("a quantised model must be refused by naming its nodes");
    };
    let of = |op: &str| blockers.0.iter().filter(|blocker| blocker.op == op).collect::<Vec<_>>();
    assert_eq!(of("QuantizeLinear").len(), 1, "{blockers}");
    assert!(of("QuantizeLinear")[0].nodes.len() > 5, "{blockers}");
    assert!(of("Conv").is_empty(), "{blockers}");
}

#[test]
fn digits_are_found_with_their_labels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits_test_450.npz");
    let archive = Archive::open(&path).expect("archive");
    let input = archive.input(None, &[64]).expect("samples");
    assert_eq!((input.name.as_str(), input.shape.as_slice()), ("x", &[450, 64][..]));
    let labels = archive.labels(Some("y"), 450).expect("labels").expect("key given");
    assert!(labels.iter().all(|label| (0..10).contains(label)));
}
