//! `--auto` on the zoo's trained networks: how far int8 blobs of given sizes are from their models. Calibrated on the first 250 inputs
//! without labels, judged on the other 250 and on all.

use tucano::host::Runner;
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Budget, Converted, Method, Options, convert};
use tucano_converter::evaluate::{ClassScores, evaluate, metrics};
use tucano_converter::graph::Graph;
use tucano_converter::report::{plain_table, run_blob};
use tucano_converter::search::Silent;
use tucano_tests::{read, zoo};

/// Sizes asked for, and the KL divergence (nats) allowed on unseen samples.
struct Goal {
    macs_ratio: f64,
    ratio: Option<f64>,
    kl: f64,
}

const fn goal(macs_ratio: f64, ratio: f64, kl: f64) -> Goal {
    Goal { macs_ratio, ratio: Some(ratio), kl }
}

/// Divergence (nats) that rounding a dense network to int8 may cost.
const DENSE_KL: f64 = 0.004;

/// A network's outputs beside those of its model.
struct Judgement {
    kl: f64,
    changed: usize,
    accuracy: [f64; 2],
}

fn judge(graph: &Graph, data: &Dataset, outputs: &[f32]) -> Judgement {
    let reference = evaluate(graph, &data.inputs, data.samples, &graph.outputs[..1]).remove(0);
    let scores = ClassScores::of(graph).expect("a classifier");
    let labels = data.labels.as_ref().expect("labels to judge by");
    let agreement = metrics::agreement(&reference, outputs, scores.classes);
    Judgement {
        kl: metrics::softmax_kl(&reference, outputs, scores.classes, scores.probabilities),
        changed: ((1.0 - agreement) * data.samples as f64).round() as usize,
        accuracy: [&reference[..], outputs].map(|y| metrics::accuracy(y, labels, scores.classes)),
    }
}

fn times(before: impl Into<f64>, after: impl Into<f64>) -> f64 {
    before.into() / after.into()
}

/// Converts a network to each goal and judges what comes out; all goals are tried before any failure is reported.
fn reach(model: &str, data: &str, goals: &[Goal]) {
    let Some(zoo) = zoo() else { return };
    let (graph, data) = read(&zoo.join(model), &zoo.join(data), Some("y")).unwrap();
    let half = data.samples / 2;
    let mut calibration = data.slice(0..half);
    calibration.labels = None;
    let mut table = plain_table(&[
        "MACs",
        "parameters",
        "samples",
        "KL f32",
        "KL int8",
        "changed f32",
        "changed int8",
        "accuracy",
        "f32",
        "int8",
        "arena",
        "s",
    ]);
    let mut missed = Vec::new();
    // The dense network first: what rounding alone costs.
    let dense = Goal { macs_ratio: 1.0, ratio: None, kl: DENSE_KL };
    for (method, goal) in
        [(Method::None, &dense)].into_iter().chain(goals.iter().map(|goal| (Method::Auto, goal)))
    {
        let compressed = method != Method::None;
        let options = Options {
            method,
            int8: true,
            macs_ratio: compressed.then_some(goal.macs_ratio),
            ratio: goal.ratio,
            ..Options::default()
        };
        let converted: Converted =
            convert(&graph, Some(&calibration), &options, &Silent).unwrap_or_else(|error| panic!("{error}"));
        let report = &converted.report;
        let macs = report.before.macs as f64 / report.after.macs as f64;
        let parameters = times(report.before.parameters as u32, report.after.parameters as u32);
        assert!(
            !compressed || macs >= goal.macs_ratio && parameters >= goal.ratio.unwrap_or(1.0),
            "{macs} {parameters}"
        );
        for layer in &report.layers {
            println!(
                "  {} {} {:?} {:?}: {}",
                layer.name, layer.format, layer.ranks, layer.error, layer.reason
            );
        }
        report.notes.iter().for_each(|note| println!("  {note}"));
        for range in [half..data.samples, 0..data.samples] {
            let samples = data.slice(range.clone());
            let lowered = &converted.lowered;
            let float = evaluate(lowered, &samples.inputs, samples.samples, &lowered.outputs).remove(0);
            let integer = run_blob(&mut Runner::new(&converted.blob).unwrap(), &samples).unwrap().remove(0);
            let [float, integer] = [float, integer].map(|outputs| judge(&graph, &samples, &outputs));
            table.add_row([
                format!("{macs:.2}x"),
                format!("{parameters:.2}x"),
                format!("{}..{}", range.start, range.end),
                format!("{:.4}", float.kl),
                format!("{:.4} (<= {})", integer.kl, goal.kl),
                float.changed.to_string(),
                integer.changed.to_string(),
                format!("{:.3}", float.accuracy[0]),
                format!("{:.3}", float.accuracy[1]),
                format!("{:.3}", integer.accuracy[1]),
                format!("{} > {}", report.before.arena_bytes, report.after.arena_bytes),
                format!("{:.0}", report.seconds),
            ]);
            if range.start > 0 && integer.kl.is_nan() | (integer.kl > goal.kl) {
                missed.push(format!("{macs:.2}x: KL {:.4} > {}", integer.kl, goal.kl));
            }
        }
    }
    println!("{model}\n{table}\n");
    assert!(missed.is_empty(), "{model}: {missed:?}");
}

#[test]
fn vgg_fat() {
    reach("trained/vgg_fat.onnx", "data/cifar_f32.npz", &[goal(3.0, 7.0, 0.015), goal(4.0, 11.0, 0.031)]);
}

#[test]
fn resnet8() {
    reach("trained/resnet8.onnx", "data/cifar_f32.npz", &[goal(2.0, 2.3, 0.014), goal(2.5, 3.0, 0.034)]);
}

#[test]
fn keyword_spotting() {
    let goals = [Goal { macs_ratio: 1.2, ratio: None, kl: 0.022 }];
    reach("mlperf/kws_dscnn_f32_nchw.onnx", "data/kws_f32.npz", &goals);
}

#[test]
fn hypercomplex_residual_network() {
    reach("trained/phc_resnet8_dense.onnx", "data/cifar_f32.npz", &[goal(2.0, 2.3, 0.022)]);
}

#[test]
fn quaternion_network() {
    reach("trained/quat_cnn_dense.onnx", "data/cifar_f32.npz", &[goal(3.0, 2.5, 0.036)]);
}

/// The divergence on unseen samples of the int8 network that a method finds for these sizes; `None` where it reaches none.
fn reached(graph: &Graph, halves: &[Dataset; 2], options: &Options) -> Option<f64> {
    let [calibration, unseen] = halves;
    let converted = convert(graph, Some(calibration), options, &Silent).ok()?;
    let outputs = run_blob(&mut Runner::new(&converted.blob).unwrap(), unseen).unwrap().remove(0);
    Some(judge(graph, unseen, &outputs).kl)
}

#[test]
fn no_single_method_is_better_at_the_same_budget() {
    /// Two networks of equal worth are no nearer than this on 250 samples.
    const NOISE: f64 = 1.15;
    let Some(zoo) = zoo() else { return };
    let (model, data) = (zoo.join("trained/resnet8.onnx"), zoo.join("data/cifar_f32.npz"));
    let (graph, data) = read(&model, &data, Some("y")).unwrap();
    let half = data.samples / 2;
    let mut halves = [data.slice(0..half), data.slice(half..data.samples)];
    halves[0].labels = None;
    let budgets = [
        Options { macs_ratio: Some(1.5), ..Options::default() },
        Options { budget: Budget { ram: Some(40 << 10), ..Budget::default() }, ..Options::default() },
    ];
    let mut table = plain_table(&["budget", "method", "KL int8"]);
    let mut worse = Vec::new();
    for budget in budgets {
        let asked = format!("{:?} {:?}", budget.macs_ratio, budget.budget.ram);
        let mut run = |method: Method| {
            let kl = reached(&graph, &halves, &Options { method, int8: true, ..budget.clone() });
            let figure = kl.map_or("unreachable".into(), |kl| format!("{kl:.4}"));
            table.add_row([asked.clone(), format!("{method:?}"), figure]);
            kl
        };
        let auto = run(Method::Auto).expect("a network of that size");
        let single = [Method::Tucker, Method::Cp, Method::OneWay, Method::DepthwisePointwise, Method::Prune];
        let best = single.into_iter().filter_map(&mut run).fold(f64::INFINITY, f64::min);
        assert!(best.is_finite(), "no single method reaches {asked}");
        if auto > NOISE * best {
            worse.push(format!("{asked}: {auto:.4} > {best:.4}"));
        }
    }
    println!("{table}");
    assert!(worse.is_empty(), "{worse:?}");
}
