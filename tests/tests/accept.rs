//! What the converter promises on trained models: accuracy of int8, accuracy at a given compression, the same bytes from every board
//! and from every conversion. The zoo's models are judged on 500 labelled samples, half of which calibrated; the repository's own
//! models repeat the same on what they come with. Needs what boards/setup.sh installs.

use std::collections::BTreeSet;
use std::path::Path;

use tucano::host::Runner;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board};
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Converted, Method, Options, convert};
use tucano_converter::evaluate::{ClassScores, evaluate, metrics};
use tucano_converter::graph::Graph;
use tucano_converter::report::{Fidelity, plain_table, resolution, run_blob};
use tucano_converter::search::Silent;
use tucano_tests::{models, read, zoo};

/// An error as the command line shows it: with what would help.
fn shown<T, E: miette::Diagnostic + Send + Sync + 'static>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

/// A model and samples for it; the first half of them calibrates.
struct Subject {
    name: String,
    graph: Graph,
    data: Dataset,
}

impl Subject {
    /// `labels` names the array of classes, if there is one.
    fn new(model: &Path, data: &Path, labels: Option<&str>) -> Self {
        let (graph, data) = read(model, data, labels).unwrap_or_else(|report| panic!("{report:?}"));
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, graph, data }
    }

    fn convert(&self, options: &Options) -> Converted {
        let mut calibration = self.data.slice(0..self.data.samples / 2);
        calibration.labels = None;
        let converted = shown(convert(&self.graph, Some(&calibration), options, &Silent));
        let report = &converted.report;
        let times = |before: f64, after: f64| format!("{:.2}x fewer", before / after);
        println!(
            "{} {:?}: parameters {} > {} ({}), MACs {} > {} ({}), arena {}, blob {}, {:.1} s",
            self.name,
            options.method,
            report.before.parameters,
            report.after.parameters,
            times(report.before.parameters as f64, report.after.parameters as f64),
            report.before.macs,
            report.after.macs,
            times(report.before.macs as f64, report.after.macs as f64),
            report.after.arena_bytes,
            converted.blob.len(),
            report.seconds
        );
        converted
    }

    /// Judges a blob on the samples that did not calibrate, and on all of them.
    fn judge(&self, blob: &[u8]) -> [Judgement; 2] {
        let all = self.data.samples;
        let judgements = [all / 2..all, 0..all].map(|range| {
            let data = self.data.slice(range.clone());
            let reference =
                evaluate(&self.graph, &data.inputs, data.samples, &self.graph.outputs[..1]).remove(0);
            let mut runner = Runner::new(blob).unwrap();
            let outputs = run_blob(&mut runner, &data).unwrap().remove(0);
            let classes = ClassScores::of(&self.graph);
            let fidelity = Fidelity::between(&reference, &outputs, classes, resolution(&runner));
            let accuracy = data.labels.zip(classes).map(|(labels, scores)| {
                [&reference, &outputs].map(|outputs| metrics::accuracy(outputs, &labels, scores.classes))
            });
            (range, Judgement { accuracy, kl: fidelity.kl.unwrap(), agreement: fidelity.agreement.unwrap() })
        });
        let mut table = plain_table(&["samples", "accuracy f32", "accuracy blob", "same decision", "KL"]);
        for (range, Judgement { accuracy, kl, agreement }) in &judgements {
            let [before, after] =
                accuracy.map_or_else(Default::default, |both| both.map(|share| format!("{share:.4}")));
            table.add_row([
                format!("{}..{}", range.start, range.end),
                before,
                after,
                format!("{agreement:.4}"),
                format!("{kl:.5}"),
            ]);
        }
        println!("{}\n{table}\n", self.name);
        judgements.map(|(_, judgement)| judgement)
    }

    /// Runs a blob on boards: each must give the bytes of the host.
    fn run_on_boards(&self, converted: &Converted, boards: &[&str], samples: usize) {
        let mut runner = Runner::new(&converted.blob).unwrap();
        let (mut inputs, mut expected) = (Vec::new(), Vec::new());
        for sample in 0..samples {
            let raw = runner.quantise(&self.data.sample(sample)).unwrap();
            let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
            expected.extend(runner.run_raw(&raw).unwrap().concat());
            inputs.extend(raw.concat());
        }
        let distinct: BTreeSet<_> = expected.chunks(expected.len() / samples).collect();
        assert!(distinct.len() > samples / 4, "{}: the samples tell nothing", self.name);

        let header = ["board", "core", "instructions", "per MAC", "code", "arena", "stack", "output SHA-256"];
        let mut table = plain_table(&header);
        let mut wrong = Vec::new();
        for name in boards {
            let board: &'static Board = shown(boards::find(name));
            let blob = converted.blob_for(board.kernels).unwrap();
            let (report, outputs) =
                shown(boards::run(&blob, board, &inputs, samples, OptLevel::Three, &|_| ()));
            assert!(report.warnings.is_empty(), "{name}: {:#?}", report.warnings);
            table.add_row([
                report.board.to_string(),
                report.core.to_string(),
                format!("{:.0}", report.instructions),
                format!("{:.2}", report.instructions / converted.report.after.macs as f64),
                report.code_bytes.to_string(),
                report.arena_bytes.to_string(),
                report.stack_bytes.to_string(),
                report.output_sha256.get(..16).unwrap_or_default().to_string(),
            ]);
            if outputs != expected {
                wrong.push(*name);
            }
        }
        println!("{} on boards, {samples} samples\n{table}\n", self.name);
        assert!(wrong.is_empty(), "{}: other bytes than the host's on {wrong:?}", self.name);
    }
}

/// How a blob does beside its model.
struct Judgement {
    /// Share of right answers of the model and of the blob.
    accuracy: Option<[f64; 2]>,
    kl: f64,
    agreement: f64,
}

impl Judgement {
    fn assert_within(&self, points: f64, kl: f64) {
        if let Some([before, after]) = self.accuracy {
            assert!(100.0 * (before - after) <= points, "accuracy fell from {before} to {after}");
        }
        assert!(self.kl <= kl, "KL {} is above {kl}", self.kl);
        assert!(self.agreement > 0.9, "only {} of the decisions agree", self.agreement);
    }
}

fn int8(method: Method) -> Options {
    Options { method, int8: true, ..Options::default() }
}

/// Every emulated core with room for these models.
const BOARDS: [&str; 5] = ["qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55"];
const SAMPLES: usize = 16;
/// What dense int8 may cost: points of accuracy, and KL in nats.
const DENSE: (f64, f64) = (1.0, 0.004);

/// Dense int8 costs at most [`DENSE`], on the samples that did not calibrate and on all.
fn dense_int8_keeps_accuracy(subject: &Subject) -> Converted {
    let dense = subject.convert(&int8(Method::None));
    assert_eq!(dense.report.after.macs, dense.report.before.macs);
    for judgement in subject.judge(&dense.blob) {
        judgement.assert_within(DENSE.0, DENSE.1);
    }
    dense
}

#[test]
fn keyword_spotting_stays_nearly_dense_and_says_why() {
    let Some(zoo) = zoo() else { return };
    let model = zoo.join("mlperf/kws_dscnn_f32_nchw.onnx");
    let subject = Subject::new(&model, &zoo.join("data/kws_f32.npz"), Some("y"));
    dense_int8_keeps_accuracy(&subject);

    let converted = subject.convert(&int8(Method::Tucker));
    let report = &converted.report;
    assert!((report.before.macs as f64) < 1.1 * report.after.macs as f64, "it was compressed after all");
    let mut table = plain_table(&["layer", "format", "why"]);
    for layer in &report.layers {
        table.add_row([&layer.name, &layer.format, &layer.reason]);
    }
    println!("{table}\n");
    for layer in report.layers.iter().filter(|layer| layer.format == "dense") {
        assert!(!layer.reason.is_empty(), "{} stayed dense, and nobody knows why", layer.name);
    }
    let [held_out, _] = subject.judge(&converted.blob);
    assert!(held_out.kl <= 0.01, "KL {}", held_out.kl);
    subject.run_on_boards(&converted, &[&["qemu-m0"], &BOARDS[..]].concat(), SAMPLES);
}

#[test]
fn residual_network_with_fewer_multiplications() {
    let Some(zoo) = zoo() else { return };
    let subject = Subject::new(&zoo.join("trained/resnet8.onnx"), &zoo.join("data/cifar_f32.npz"), Some("y"));
    dense_int8_keeps_accuracy(&subject);

    let converted = subject.convert(&Options { macs_ratio: Some(1.5), ..int8(Method::Tucker) });
    let report = &converted.report;
    assert!(report.before.macs as f64 >= 1.5 * report.after.macs as f64);
    let [held_out, _] = subject.judge(&converted.blob);
    assert!(held_out.kl <= 0.042, "KL {}", held_out.kl);
    subject.run_on_boards(&converted, &BOARDS, SAMPLES);
}

#[test]
fn fat_network_with_fewer_multiplications_and_parameters() {
    let Some(zoo) = zoo() else { return };
    let subject = Subject::new(&zoo.join("trained/vgg_fat.onnx"), &zoo.join("data/cifar_f32.npz"), Some("y"));
    dense_int8_keeps_accuracy(&subject);

    let options = Options { macs_ratio: Some(1.9), ratio: Some(5.0), ..int8(Method::Tucker) };
    let converted = subject.convert(&options);
    let report = &converted.report;
    assert!(report.before.macs as f64 >= 1.9 * report.after.macs as f64);
    assert!(report.before.parameters >= 5 * report.after.parameters);
    let [held_out, _] = subject.judge(&converted.blob);
    assert!(held_out.kl <= 0.018, "KL {}", held_out.kl);
    subject.run_on_boards(&converted, &BOARDS, SAMPLES);
}

/// A dense net of 26 k parameters on handwritten digits: small enough for a board with 16 KB of RAM.
#[test]
fn digits_on_the_smallest_board() {
    let models = models();
    let model = models.join("phm_mlp_dense.onnx");
    let subject = Subject::new(&model, &models.join("digits_test_450.npz"), Some("y"));
    let dense = dense_int8_keeps_accuracy(&subject);
    subject.run_on_boards(&dense, &["microbit", "qemu-m4"], SAMPLES);
}

/// The samples that were recorded with the model are few and have no labels: decisions are judged, not accuracy.
#[test]
fn a_residual_network_of_this_repository_and_twice_the_same_bytes() {
    let models = models();
    let subject = Subject::new(&models.join("resnet8.onnx"), &models.join("resnet8.npz"), None);
    dense_int8_keeps_accuracy(&subject);

    let options = Options { macs_ratio: Some(1.2), ..int8(Method::Tucker) };
    let converted = subject.convert(&options);
    let report = &converted.report;
    assert!(report.before.macs as f64 >= 1.2 * report.after.macs as f64);
    assert!(report.layers.iter().any(|layer| layer.format == "tucker"));
    assert!(subject.convert(&options).blob == converted.blob, "the same conversion gave other bytes");
    subject.judge(&converted.blob);
    subject.run_on_boards(&converted, &["qemu-m4"], 2);
}
