//! `cargo bench -p tucano-benches --bench formats [-- --only NAME] [--json FILE] [--markdown FILE]`: what every form of compression gains on trained
//! networks at an equal loss, the losing cases included.
//!
//! A form is what `convert --FORMAT --int8` gives without a budget: the smallest network that changes at most one decision in a hundred and
//! adds at most 0.005 nats of divergence to that of the dense int8 network, on a fifth of the calibration samples (2 % relative error for
//! networks that are no classifiers). It is then judged on samples that calibrated nothing, where there are enough; its instructions are
//! counted on emulated boards, its time taken on this machine. Where the zoo is absent, the repository's own networks are measured.
//!
//! As a test (`cargo test --benches`, or with `--test`) it measures three forms of a small network. Needs what boards/setup.sh installs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use comfy_table::CellAlignment;
use miette::{IntoDiagnostic, Result, WrapErr, ensure, miette};
use serde_json::{Value, json};
use tucano::host::Runner;
use tucano_converter::boards;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Converted, Method, Options, convert};
use tucano_converter::evaluate::{ClassScores, evaluate, metrics};
use tucano_converter::graph::Graph;
use tucano_converter::report::{Fidelity, human_bytes, plain_table, resolution, run_blob};
use tucano_converter::search::Silent;
use tucano_tests::{models, read, zoo};

/// All forms; the first is what the others are compared with.
const METHODS: [(&str, Method); 10] = [
    ("dense", Method::None),
    ("low-rank", Method::LowRank),
    ("tucker", Method::Tucker),
    ("cp", Method::Cp),
    ("one-way", Method::OneWay),
    ("depthwise-pointwise", Method::DepthwisePointwise),
    ("tensor-train", Method::TensorTrain),
    ("hypercomplex", Method::Hypercomplex(None)),
    ("prune", Method::Prune),
    ("auto", Method::Auto),
];
/// Forms of the short version.
const SHORT: [&str; 3] = ["dense", "low-rank", "hypercomplex"];
/// Boards whose instructions are counted.
const BOARDS: [&str; 2] = ["qemu-m4", "qemu-m55"];
/// Fewer samples calibrate and judge as one set.
const APART: usize = 100;
/// An inference is timed for this long ...
const TIMED: Duration = Duration::from_millis(300);
/// ... and at least this often.
const FEWEST_TIMED: usize = 7;

/// A trained network and its samples.
struct Subject {
    name: String,
    graph: Graph,
    calibration: Dataset,
    judged: Dataset,
    apart: bool,
}

impl Subject {
    fn read(model: PathBuf, data: PathBuf, labels: Option<&str>) -> Result<Self> {
        let (graph, data) = read(&model, &data, labels)?;
        let apart = data.samples >= APART;
        let half = data.samples / 2;
        let (mut calibration, judged) = match apart {
            true => (data.slice(0..half), data.slice(half..data.samples)),
            false => (data.clone(), data),
        };
        calibration.labels = None;
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, graph, calibration, judged, apart })
    }
}

/// The networks of the zoo, or those of the repository.
fn subjects(only: Option<&str>) -> Result<Vec<Subject>> {
    let own = |name: &str, data: &str, labels| (models().join(name), models().join(data), labels);
    let (digits, cifar) = ("digits/digits_test_450.npz", "data/cifar_f32.npz");
    let all = match zoo() {
        Some(zoo) => [
            ("trained/resnet8", cifar, Some("y")),
            ("trained/vgg_fat", cifar, Some("y")),
            ("trained/phc_resnet8_dense", cifar, Some("y")),
            ("trained/quat_cnn_dense", cifar, Some("y")),
            ("mlperf/kws_dscnn_f32_nchw", "data/kws_f32.npz", Some("y")),
            ("digits/phm_mlp_dense", digits, Some("y")),
            ("digits/tt_mlp_dense", digits, Some("y")),
            ("mlperf/vww_mbv1_f32_nchw", "mlperf/vww_mbv1_f32_nchw.npz", None),
            ("mlperf/ad_fcae_f32_gemm", "mlperf/ad_fcae_f32_gemm.npz", None),
        ]
        .map(|(model, data, labels)| (zoo.join(format!("{model}.onnx")), zoo.join(data), labels))
        .to_vec(),
        None => vec![
            own("resnet8.onnx", "resnet8.npz", None),
            own("phm_mlp_dense.onnx", "digits_test_450.npz", Some("y")),
        ],
    };
    let wanted = |path: &PathBuf| only.is_none_or(|only| path.to_string_lossy().contains(only));
    let chosen = all.into_iter().filter(|(model, ..)| wanted(model));
    chosen.map(|(model, data, labels)| Subject::read(model, data, labels)).collect()
}

/// What a form of a network takes.
#[derive(Clone, Copy)]
struct Cost {
    /// On [`BOARDS`].
    instructions: [f64; 2],
    /// Median of one inference here, in microseconds.
    host_us: f64,
}

/// A form of a network, or why there is none.
struct Row {
    network: String,
    form: &'static str,
    outcome: Result<Figures, String>,
}

struct Figures {
    fidelity: Fidelity,
    accuracy: Option<f64>,
    parameters: usize,
    weight_bytes: usize,
    macs: u64,
    arena_bytes: usize,
    cost: Cost,
    /// No layer took another form.
    untouched: bool,
}

/// The middle of the times that an inference takes on this machine.
fn host_us(runner: &mut Runner, sample: &[&[f32]]) -> Result<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < FEWEST_TIMED || start.elapsed() < TIMED {
        let one = Instant::now();
        runner.run(sample).into_diagnostic()?;
        times.push(one.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn cost(converted: &Converted, subject: &Subject) -> Result<Cost> {
    let mut runner = Runner::new(&converted.blob).into_diagnostic()?;
    // Instructions hardly depend on the data.
    let sample = subject.judged.sample(0);
    let stored = runner.quantise(&sample).into_diagnostic()?.concat();
    let mut instructions = [0.0; 2];
    for (found, board) in instructions.iter_mut().zip(BOARDS) {
        let board = boards::find(board)?;
        let blob = converted.blob_for(board.kernels)?;
        let (report, _) = boards::run(&blob, board, &stored, 1, OptLevel::Three, &|_| ())?;
        *found = report.instructions;
    }
    Ok(Cost { instructions, host_us: host_us(&mut runner, &sample)? })
}

fn figures(subject: &Subject, converted: &Converted, cost: Cost) -> Result<Figures> {
    let Subject { graph, judged, .. } = subject;
    let mut runner = Runner::new(&converted.blob).into_diagnostic()?;
    let outputs = run_blob(&mut runner, judged).into_diagnostic()?;
    let reference = evaluate(graph, &judged.inputs, judged.samples, &graph.outputs);
    let scores = ClassScores::of(graph);
    let right =
        |(labels, scores): (&Vec<i64>, ClassScores)| metrics::accuracy(&outputs[0], labels, scores.classes);
    let report = &converted.report;
    Ok(Figures {
        fidelity: Fidelity::of_outputs(&reference, &outputs, scores, resolution(&runner)),
        accuracy: judged.labels.as_ref().zip(scores).map(right),
        parameters: report.after.parameters,
        weight_bytes: report.after.weight_bytes,
        macs: report.after.macs,
        arena_bytes: report.after.arena_bytes,
        cost,
        untouched: report.layers.iter().all(|layer| layer.format == "dense"),
    })
}

/// Every wanted form of a network. Forms with the same bytes are measured once.
fn measure(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    let mut costs = BTreeMap::<Vec<u8>, Cost>::new();
    let mut rows = Vec::new();
    for (form, method) in METHODS.into_iter().filter(|(form, _)| wanted(form)) {
        let start = Instant::now();
        let options = Options { method, int8: true, ..Options::default() };
        let outcome = match convert(&subject.graph, Some(&subject.calibration), &options, &Silent) {
            Err(error) => Err(error.to_string()),
            Ok(converted) => {
                let cost = match costs.get(&converted.blob) {
                    Some(known) => *known,
                    None => cost(&converted, subject)?,
                };
                costs.insert(converted.blob.clone(), cost);
                Ok(figures(subject, &converted, cost)?)
            }
        };
        eprintln!("{} {form}: {:.0} s", subject.name, start.elapsed().as_secs_f64());
        rows.push(Row { network: subject.name.clone(), form, outcome });
    }
    Ok(rows)
}

const HEADER: [&str; 12] = [
    "network",
    "form",
    "KL / error",
    "same",
    "accuracy",
    "weights",
    "MACs",
    "arena",
    "M4",
    "M55",
    "host us",
    "",
];

/// `value (share of dense)`.
fn beside(text: String, value: f64, dense: Option<f64>) -> String {
    match dense {
        Some(dense) if dense > 0.0 => format!("{text} ({:.2})", value / dense),
        _ => text,
    }
}

fn cells(row: &Row, dense: Option<&Figures>) -> [String; 12] {
    let [network, form] = [row.network.clone(), row.form.to_string()];
    let figures = match &row.outcome {
        Ok(figures) => figures,
        Err(reason) => {
            let mut cells: [String; 12] = Default::default();
            cells[0] = network;
            cells[1] = form;
            cells[11] = reason.clone();
            return cells;
        }
    };
    let dense = dense.filter(|_| row.form != METHODS[0].0);
    let count = |value: f64| match value {
        0.0..1e6 => format!("{:.1} k", value / 1e3),
        _ => format!("{:.2} M", value / 1e6),
    };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let of = |k: usize| {
        let instructions = figures.cost.instructions[k];
        beside(count(instructions), instructions, dense.map(|dense| dense.cost.instructions[k]))
    };
    let bytes = |of: fn(&Figures) -> usize| {
        beside(human_bytes(of(figures)), of(figures) as f64, dense.map(|dense| of(dense) as f64))
    };
    let fidelity = &figures.fidelity;
    [
        network,
        form,
        fidelity.kl.map_or_else(|| format!("{:.4} rms", fidelity.relative_rms), |kl| format!("{kl:.4}")),
        fidelity.agreement.map_or_else(String::new, percent),
        figures.accuracy.map_or_else(String::new, percent),
        bytes(|figures| figures.weight_bytes),
        beside(count(figures.macs as f64), figures.macs as f64, dense.map(|dense| dense.macs as f64)),
        bytes(|figures| figures.arena_bytes),
        of(0),
        of(1),
        beside(
            format!("{:.0}", figures.cost.host_us),
            figures.cost.host_us,
            dense.map(|dense| dense.cost.host_us),
        ),
        if figures.untouched && row.form != METHODS[0].0 { "stays dense" } else { "" }.into(),
    ]
}

/// The table as cells, each row beside the dense form of its network.
fn all_cells(rows: &[Row]) -> Vec<[String; 12]> {
    let dense = |row: &Row| {
        let same = |other: &&Row| other.network == row.network && other.form == METHODS[0].0;
        rows.iter().find(same).and_then(|dense| dense.outcome.as_ref().ok())
    };
    rows.iter().map(|row| cells(row, dense(row))).collect()
}

fn legend(subjects: &[Subject]) -> String {
    let thin: Vec<&str> =
        subjects.iter().filter(|subject| !subject.apart).map(|subject| subject.name.as_str()).collect();
    let mut text = String::from(
        "int8 blobs, each the smallest of its form that loses next to nothing on held-out samples: at most 1 % of the decisions and 0.005 nats more \
         than dense int8 (2 % relative error where there are no classes). KL, decisions and accuracy on samples that calibrated nothing. M4, M55: executed \
         instructions of one inference under emulation, not cycles. Host: scalar kernels, median. In brackets: share of dense, less is better.",
    );
    if !thin.is_empty() {
        text += &format!(" Judged on their few calibration samples: {}.", thin.join(", "));
    }
    text
}

fn print(cells: &[[String; 12]], legend: &str) {
    let mut table = plain_table(&HEADER);
    table.set_width(210);
    table.add_rows(cells);
    for column in table.column_iter_mut().skip(2).take(9) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n\n{legend}");
}

fn markdown(cells: &[[String; 12]], legend: &str) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADER) + "|---|---|" + &"--:|".repeat(9) + "---|\n";
    for row in cells {
        // A bar would end the cell.
        let clean: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        text += &line(&clean.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text + "\n" + legend + "\n"
}

fn document(rows: &[Row], subjects: &[Subject]) -> Value {
    let row = |row: &Row| match &row.outcome {
        Err(reason) => json!({"network": row.network, "form": row.form, "refused": reason}),
        Ok(figures) => json!({
            "network": row.network, "form": row.form, "kl": figures.fidelity.kl, "relative_rms": figures.fidelity.relative_rms,
            "agreement": figures.fidelity.agreement, "accuracy": figures.accuracy, "parameters": figures.parameters,
            "weight_bytes": figures.weight_bytes, "macs": figures.macs, "arena_bytes": figures.arena_bytes,
            "instructions_m4": figures.cost.instructions[0], "instructions_m55": figures.cost.instructions[1],
            "host_us": figures.cost.host_us, "untouched": figures.untouched,
        }),
    };
    let network = |subject: &Subject| {
        json!({
            "name": subject.name, "calibration_samples": subject.calibration.samples,
            "judged_samples": subject.judged.samples, "judged_apart": subject.apart,
        })
    };
    json!({
        "schema": "tucano.bench.formats/1",
        "networks": subjects.iter().map(network).collect::<Vec<_>>(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The short version: a network that was trained with a structure keeps its outputs in the forms that hold it.
fn test() -> Result<()> {
    let (model, data) = (models().join("phm_mlp_dense.onnx"), models().join("digits_test_450.npz"));
    let subject = Subject::read(model, data, Some("y"))?;
    let rows = measure(&subject, |form| SHORT.contains(&form))?;
    print(&all_cells(&rows), &legend(std::slice::from_ref(&subject)));
    let found: Vec<&Figures> = rows
        .iter()
        .map(|row| row.outcome.as_ref().map_err(|reason| miette!("{}: {reason}", row.form)))
        .collect::<Result<_>>()?;
    for (row, figures) in rows.iter().zip(&found) {
        let instructions = figures.cost.instructions;
        ensure!(
            // Helium does 16 products at once.
            instructions[0] >= figures.macs as f64 / 2.0 && instructions[1] >= figures.macs as f64 / 16.0,
            "{}: {instructions:?} is no measurement",
            row.form
        );
        ensure!(figures.cost.host_us > 0.0, "{}: no time", row.form);
        ensure!(figures.fidelity.kl.is_some_and(|kl| kl < 0.05), "{}: {:?}", row.form, figures.fidelity);
    }
    ensure!(found[2].weight_bytes * 2 < found[0].weight_bytes, "the trained structure was not found");
    Ok(())
}

fn main() -> Result<()> {
    let (mut bench, mut short) = (false, false);
    let [mut json, mut table, mut only] = [None, None, None];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| miette!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => bench = true,
            "--test" => short = true,
            "--json" => json = Some(value()?),
            "--markdown" => table = Some(value()?),
            "--only" => only = Some(value()?),
            // Flags of the test runner, which it gives to every bench.
            _ => {}
        }
    }
    if short || !bench {
        return test();
    }
    let subjects = subjects(only.as_deref())?;
    let mut rows = Vec::new();
    for subject in &subjects {
        rows.extend(measure(subject, |_| true)?);
    }
    let (cells, legend) = (all_cells(&rows), legend(&subjects));
    print(&cells, &legend);
    let text = |document: Value| serde_json::to_string_pretty(&document).into_diagnostic();
    let json = match json {
        Some(path) => Some((path, text(document(&rows, &subjects))? + "\n")),
        None => None,
    };
    for (path, text) in json.into_iter().chain(table.map(|path| (path, markdown(&cells, &legend)))) {
        std::fs::write(&path, text).into_diagnostic().wrap_err_with(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
