//! Compression of the zoo's trained networks in f32: calibrated on the first 250 inputs, judged on the next 250.

use tucano_converter::calibrate::Dataset;
use tucano_converter::evaluate::{evaluate, metrics};
use tucano_converter::graph::Graph;
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{self, import};
use tucano_converter::lower::lower;
use tucano_converter::search::loss::Loss;
use tucano_converter::search::{Method, Options, Outcome, Silent, search};

const TUCKER: Options = Options::of(Method::Tucker);

/// A search on one model, and the mean divergence (nats) from the dense network on samples that it has not seen.
fn compress(model: &str, data: &str, options: Options) -> Option<(Graph, Outcome, f64)> {
    let zoo = tucano_tests::zoo()?;
    let graph = import(&zoo.join(model), &import::Options::default()).unwrap();
    let archive = Archive::open(&zoo.join(data)).unwrap();
    let array = archive.input(None, &graph.shape(graph.inputs[0])[1..]).unwrap();
    let Data::F32(values) = array.data else { panic!("inputs are floats") };
    let all = Dataset { inputs: vec![values], samples: array.shape[0], labels: None };
    let (seen, unseen) = (all.slice(0..250), all.slice(250..500));
    let outcome = search(&graph, Some(&seen), &options, &Silent).unwrap();
    let lowered = lower(&outcome.graph).unwrap();
    lowered.check().unwrap();
    let run = |graph: &Graph| evaluate(graph, &unseen.inputs, unseen.samples, &graph.outputs).remove(0);
    let (reference, outputs) = (run(&graph), run(&lowered));
    let Loss::Divergence { probabilities } = Loss::of(&graph) else { panic!("{model} is a classifier") };
    let classes = reference.len() / unseen.samples;
    let kl = metrics::softmax_kl(&reference, &outputs, classes, probabilities);
    println!(
        "{model}: {:.2}x fewer MACs, {:.2}x fewer parameters, KL {kl:.4}, agreement {:.3}",
        graph.macs() as f64 / lowered.macs() as f64,
        graph.parameters() as f64 / lowered.parameters() as f64,
        metrics::agreement(&reference, &outputs, classes),
    );
    for layer in &outcome.layers {
        println!("  {} {} {:?} {:?} {}", layer.name, layer.format, layer.ranks, layer.error, layer.reason);
    }
    Some((graph, outcome, kl))
}

#[test]
fn resnet8_loses_a_third_of_its_macs() {
    let options = Options { macs_ratio: Some(1.5), ..TUCKER };
    let Some((graph, outcome, kl)) = compress("trained/resnet8.onnx", "data/cifar_f32.npz", options) else {
        return;
    };
    assert!(graph.macs() as f64 / outcome.graph.macs() as f64 >= 1.5);
    assert!(kl <= 0.035, "KL {kl}");
}

#[test]
fn separable_network_stays_nearly_dense_and_says_why() {
    let Some((_, outcome, kl)) = compress("mlperf/kws_dscnn_f32_nchw.onnx", "data/kws_f32.npz", TUCKER)
    else {
        return;
    };
    assert!(kl <= 0.005, "KL {kl}");
    let dense: Vec<_> = outcome.layers.iter().filter(|layer| layer.format == "dense").collect();
    assert!(dense.len() + 2 >= outcome.layers.len());
    assert!(
        dense
            .iter()
            .all(|layer| ["break-even", "grouped", "ranks"].iter().any(|why| layer.reason.contains(why)))
    );
}
