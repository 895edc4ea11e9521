//! The converter's evaluations of whole graphs by the runtime against its own evaluator, and what each takes.

use std::path::Path;
use std::time::Instant;

use tucano_converter::calibrate::Dataset;
use tucano_converter::evaluate::evaluate;
use tucano_converter::execute::Executor;
use tucano_converter::graph::Graph;
use tucano_converter::passes;
use tucano_tests::{models, onnx_files, read, zoo};

/// Largest difference, as a share of the largest output.
const TOLERANCE: f32 = 1e-5;

/// Runs both and compares all outputs.
fn compare(name: &str, graph: &Graph, data: &Dataset) {
    let start = Instant::now();
    let mut executor = Executor::new(graph);
    let found = executor.outputs(&data.inputs, data.samples);
    let by_runtime = start.elapsed().as_secs_f64();
    #[cfg(target_arch = "x86_64")]
    assert_eq!(executor.refusal(), None, "{name}");
    let start = Instant::now();
    let expected = evaluate(graph, &data.inputs, data.samples, &graph.outputs);
    let by_evaluator = start.elapsed().as_secs_f64();
    println!("{name}: {} samples, runtime {by_runtime:.3} s, evaluator {by_evaluator:.3} s", data.samples);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(largest > 0.0 && worst <= TOLERANCE * largest, "{name}: {worst:e} of {largest}");
    }
}

fn both(model: &Path, data: &Path) {
    let (graph, data) = read(model, data, None).expect("model and samples");
    let name = model.file_stem().unwrap_or_default().to_string_lossy();
    compare(&name, &graph, &data);
    compare(&format!("{name}, simplified"), &passes::simplify(&graph), &data);
}

#[test]
fn runtime_and_evaluator_agree_on_small_models() {
    let files = onnx_files(&models());
    assert!(files.len() >= 5, "{files:?}");
    for model in files {
        both(&model, &model.with_extension("npz"));
    }
}

#[test]
fn runtime_and_evaluator_agree_on_five_hundred_images() {
    let Some(zoo) = zoo() else { return };
    for model in ["vgg_fat", "resnet8"] {
        both(&zoo.join(format!("trained/{model}.onnx")), &zoo.join("data/cifar_f32.npz"));
    }
}
