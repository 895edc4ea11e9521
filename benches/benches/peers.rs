//! `cargo bench -p tucano-benches --bench peers [-- --only NAME] [--peers NAME,..] [--json FILE] [--svg FILE]`: batch-1 inference on one thread of this machine beside other
//! runtimes, f32 and int8, all in one run.
//!
//! Builds what it needs below `target/peers`: a Python environment of pinned versions (`benches/peers/requirements.txt`) and a program with the peers
//! that are Rust crates. Every runtime is a process of its own on the same processor; they run in turns of some milliseconds, so that what disturbs the
//! machine disturbs all. A ratio is the median of the ratios of the turns. All execute the same layers; in int8 LiteRT, ONNX Runtime and
//! OpenVINO get the very integers of our blob, and LiteRT's portable kernels must give our outputs to the bit (but for means over a
//! number of elements that is no power of two, which TensorFlow Lite rounds in its own way).
//!
//! As a test (`cargo test --benches`, or with `--test`) it measures a small network of the repository beside the Python peers, in few turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use comfy_table::CellAlignment;
use miette::{IntoDiagnostic, Result, WrapErr, ensure, miette};
use serde_json::{Value, json};

use tucano::backend::spec::Core;
use tucano_benches::peers::chart::{self, Bar, Group, time};
use tucano_benches::peers::describe::{self, Description};
use tucano_benches::peers::environment::{self, Machine};
use tucano_benches::peers::statistics::Quartiles;
use tucano_benches::peers::worker::{Loaded, Worker, serve};
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Converted, Method, Options, convert};
use tucano_converter::evaluate::ClassScores;
use tucano_converter::graph::{Graph, Op};
use tucano_converter::report::{Fidelity, plain_table};
use tucano_converter::search::Silent;
use tucano_tests::{models, read, zoo};

/// Samples that outputs are compared on.
const COMPARED: usize = 32;
/// Samples that calibrate, at most.
const CALIBRATION: usize = 250;
/// One turn of a runtime, in microseconds.
const TURN_US: f64 = 3000.0;
/// Largest difference of f32 outputs, as a share of the largest magnitude.
const F32_TOLERANCE: f64 = 1e-3;
/// Relative RMS that other kernels' rounding may make of int8 outputs, and the decisions that it may change.
const INT8_RMS: f64 = 0.15;
const INT8_DECISIONS: f64 = 0.9;

/// Share of outputs that must equal those of LiteRT's portable kernels where means round otherwise.
const PORTABLE_EQUAL: f64 = 0.75;

/// Peers in Python and in Rust, as their workers call them.
const PYTHON: [&str; 3] = ["litert", "onnxruntime", "openvino"];
const RUST: [&str; 2] = ["tract", "rten"];

/// A network with its samples.
struct Subject {
    name: &'static str,
    model: PathBuf,
    data: PathBuf,
    /// Times fewer multiply-adds of a compressed form that is measured as well.
    compressed: Option<f64>,
}

fn subjects(only: Option<&str>) -> Vec<Subject> {
    let of = |root: &Path, name, model: &str, data: &str, compressed| Subject {
        name,
        model: root.join(model),
        data: root.join(data),
        compressed,
    };
    let all = match zoo() {
        Some(zoo) => vec![
            of(&zoo, "KWS DS-CNN", "mlperf/kws_dscnn_f32_nchw.onnx", "data/kws_f32.npz", None),
            of(&zoo, "IC ResNet8", "mlperf/resnet8_f32_nchw.onnx", "mlperf/resnet8_f32_nchw.npz", None),
            of(
                &zoo,
                "VWW MobileNetV1",
                "mlperf/vww_mbv1_f32_nchw.onnx",
                "mlperf/vww_mbv1_f32_nchw.npz",
                None,
            ),
            of(&zoo, "AD autoencoder", "mlperf/ad_fcae_f32_gemm.onnx", "mlperf/ad_fcae_f32_gemm.npz", None),
            of(&zoo, "vgg_fat", "trained/vgg_fat.onnx", "data/cifar_f32.npz", Some(3.0)),
            of(&zoo, "resnet8", "trained/resnet8.onnx", "data/cifar_f32.npz", Some(2.0)),
        ],
        None => {
            vec![own(), of(&models(), "phm_mlp_dense", "phm_mlp_dense.onnx", "digits_test_450.npz", None)]
        }
    };
    all.into_iter().filter(|subject| only.is_none_or(|only| subject.name.contains(only))).collect()
}

/// The repository's own network.
fn own() -> Subject {
    let (model, data) = (models().join("resnet8.onnx"), models().join("resnet8.npz"));
    Subject { name: "resnet8", model, data, compressed: None }
}

/// The type of all numbers of a network.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    F32,
    Int8,
}

impl Form {
    fn name(self) -> &'static str {
        if self == Self::F32 { "f32" } else { "int8" }
    }
}

/// How near our integers are to those of LiteRT's portable kernels.
#[derive(Clone, Copy, PartialEq)]
struct Exactness {
    /// Share of equal outputs.
    equal: f64,
    /// They must all be equal.
    must: bool,
}

impl Exactness {
    fn of(ours: &[Vec<f32>], theirs: &[Vec<f32>], graph: &Graph) -> Self {
        let pairs = || ours.iter().flatten().zip(theirs.iter().flatten());
        let equal = pairs().filter(|(a, b)| a == b).count() as f64 / pairs().count().max(1) as f64;
        // TensorFlow Lite rounds the mean of a number of elements that is no power of two in its own way.
        let must = graph.nodes.iter().all(|node| match &node.op {
            Op::Mean { axes, .. } => {
                let shape = graph.shape(node.inputs[0]);
                axes.iter().map(|axis| shape[*axis]).product::<usize>().is_power_of_two()
            }
            _ => true,
        });
        Self { equal, must }
    }
}

/// A runtime at work on one network.
struct Row {
    network: &'static str,
    form: Form,
    runtime: String,
    version: String,
    ours: bool,
    macs: u64,
    loaded: Loaded,
    /// Microseconds of one inference in each turn.
    times: Vec<f64>,
    /// What a call costs: the median time of a network that does nothing.
    call_us: f64,
    /// Ratio of each turn to the dense network here; with the cost of a call taken off.
    ratio: Quartiles,
    ratio_less_call: Quartiles,
    fidelity: Fidelity,
    /// Outputs that equal those of LiteRT's portable kernels; only of int8 networks here.
    exact: Option<Exactness>,
}

/// Runtimes with what a call of each costs.
struct Peers {
    python: Vec<(&'static str, Worker, f64)>,
    rust: Vec<(&'static str, Worker, f64)>,
    processor: usize,
}

impl Peers {
    fn start(wanted: &[&str], turns: usize) -> Result<Self> {
        let processor = environment::processor();
        let said = |text: String| miette!("{text}");
        let python = environment::python().map_err(said)?;
        let folder = write("nothing", &describe::float(&describe::nothing()).map_err(said)?, &[&[1.0]])?;
        let mut peers = Self { python: Vec::new(), rust: Vec::new(), processor };
        for name in PYTHON.into_iter().filter(|name| wanted.contains(name)) {
            let mut command = Command::new(&python);
            // Nothing is written beside the sources.
            command.arg("-B").arg(environment::sources().join("worker.py")).arg(name);
            let mut worker = Worker::start(&command, processor).map_err(said)?;
            worker.load(json!({"form": "nothing", "folder": folder})).map_err(said)?;
            let times = (0..turns).map(|_| worker.time(500)).collect::<Result<Vec<_>, _>>().map_err(said)?;
            let call = Quartiles::of(times).map_or(0.0, |quartiles| quartiles.middle);
            peers.python.push((name, worker, call));
        }
        if RUST.iter().any(|name| wanted.contains(name)) {
            let program = environment::rust().map_err(said)?;
            for name in RUST.into_iter().filter(|name| wanted.contains(name)) {
                let mut command = Command::new(&program);
                command.arg(name);
                // Called as a library, without a binding in between.
                peers.rust.push((name, Worker::start(&command, processor).map_err(said)?, 0.0));
            }
        }
        Ok(peers)
    }

    /// A worker of this runtime.
    fn ours(&self) -> Result<Worker> {
        let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
        command.arg("--worker");
        Worker::start(&command, self.processor).map_err(|error| miette!("{error}"))
    }
}

/// Writes what workers read of a network; gives the folder.
fn write(name: &str, description: &Description, samples: &[&[f32]]) -> Result<PathBuf> {
    let folder = environment::folder().join("networks").join(name);
    std::fs::create_dir_all(&folder).into_diagnostic()?;
    let inputs: Vec<u8> =
        samples.iter().flat_map(|sample| sample.iter().flat_map(|x| x.to_le_bytes())).collect();
    let files = [
        ("network.json", description.json.as_bytes()),
        ("network.bin", &description.numbers),
        ("inputs.bin", &inputs),
    ];
    for (file, bytes) in files {
        let path = folder.join(file);
        std::fs::write(&path, bytes).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
    }
    Ok(folder)
}

fn describe(converted: &Converted) -> Result<Description> {
    let description = match converted.quantized() {
        Some(quantized) => describe::integer(quantized),
        None => describe::float(&converted.lowered),
    };
    description.map_err(|error| miette!("{error}"))
}

/// One row before it is measured.
struct Entry<'a> {
    worker: &'a mut Worker,
    runtime: String,
    ours: bool,
    macs: u64,
    loaded: Loaded,
    call_us: f64,
    outputs: Vec<Vec<f32>>,
    exact: Option<Exactness>,
    calls: usize,
    times: Vec<f64>,
}

impl<'a> Entry<'a> {
    fn load(worker: &'a mut Worker, request: Value, call_us: f64, macs: u64) -> Result<Self, String> {
        let loaded = worker.load(request)?;
        let outputs = worker.outputs()?;
        let runtime = worker.name.clone();
        Ok(Self {
            worker,
            runtime,
            ours: false,
            macs,
            loaded,
            call_us,
            outputs,
            exact: None,
            calls: 1,
            times: Vec::new(),
        })
    }

    /// As many calls a turn as it takes to fill it.
    fn fit(&mut self) -> Result<(), String> {
        let us = self.worker.time(3)?.min(self.worker.time(10)?);
        self.calls = (TURN_US / us.max(0.1)).ceil().max(1.0) as usize;
        Ok(())
    }
}

/// Measures one network in one type on all runtimes.
fn measure(
    subject: &Subject,
    graph: &Graph,
    data: &Dataset,
    form: Form,
    peers: &mut Peers,
    turns: usize,
) -> Result<Vec<Row>> {
    let said = |text: String| miette!("{} {}: {text}", subject.name, form.name());
    let int8 = form == Form::Int8;
    let options = Options { int8, target: Core::X86_64, ..Options::default() };
    let mut calibration = data.slice(0..CALIBRATION.min(data.samples));
    calibration.labels = None;
    let dense = convert(graph, Some(&calibration), &options, &Silent)?;
    let compressed = match subject.compressed {
        Some(ratio) => {
            let options = Options { method: Method::Auto, macs_ratio: Some(ratio), ..options };
            Some((ratio, convert(graph, Some(&calibration), &options, &Silent)?))
        }
        None => None,
    };
    // Samples that calibrated nothing, where there are enough.
    let compared = COMPARED.min(data.samples);
    let samples: Vec<&[f32]> = (data.samples - compared..data.samples).map(|k| data.sample(k)[0]).collect();
    let name = format!("{} {}", subject.name, form.name()).to_lowercase().replace(' ', "-");
    let folder = write(&name, &describe(&dense)?, &samples)?;
    let blob = |name: &str, converted: &Converted| {
        let path = folder.join(name);
        std::fs::write(&path, &converted.blob).into_diagnostic().map(|()| path)
    };
    let request = json!({"form": form.name(), "folder": folder, "onnx": subject.model});

    let (mut dense_worker, mut compressed_worker, mut half_worker) =
        (peers.ours()?, peers.ours()?, peers.ours()?);
    // The fastest backend runs the dense network; that of the oldest instructions, but for portable code, runs beside it.
    let backends = tucano::host::backends();
    let others = backends.get(1..backends.len() - 1).unwrap_or_default();
    let others = &others[others.len().saturating_sub(1)..];
    let mut other_workers = others.iter().map(|_| peers.ours()).collect::<Result<Vec<_>>>()?;
    let mut entries = Vec::new();
    let ours = json!({"blob": blob("dense.tuc", &dense)?, "folder": folder});
    let mut entry = Entry::load(&mut dense_worker, ours, 0.0, dense.report.after.macs).map_err(said)?;
    entry.ours = true;
    entries.push(entry);
    if let Some((ratio, converted)) = &compressed {
        let ours = json!({"blob": blob("compressed.tuc", converted)?, "folder": folder});
        let mut entry =
            Entry::load(&mut compressed_worker, ours, 0.0, converted.report.after.macs).map_err(said)?;
        entry.ours = true;
        entry.runtime = format!("Tucano, {ratio}x fewer MACs");
        entries.push(entry);
    }
    if !int8 {
        let options = Options { half_weights: true, ..Options::default() };
        let half = convert(graph, Some(&calibration), &options, &Silent)?;
        let ours = json!({"blob": blob("half.tuc", &half)?, "folder": folder});
        let mut entry = Entry::load(&mut half_worker, ours, 0.0, half.report.after.macs).map_err(said)?;
        entry.ours = true;
        entry.runtime = "Tucano, f16 weights".into();
        entries.push(entry);
    }
    for (backend, worker) in others.iter().zip(&mut other_workers) {
        let ours = json!({"blob": folder.join("dense.tuc"), "folder": folder, "backend": backend});
        let mut entry = Entry::load(worker, ours, 0.0, dense.report.after.macs).map_err(said)?;
        entry.ours = true;
        entry.runtime = format!("Tucano, {backend}");
        ensure!(
            !int8 || entry.outputs == entries[0].outputs,
            "{}: {backend} gives other integers",
            subject.name
        );
        entries.push(entry);
    }
    let macs = dense.report.before.macs;
    for (name, worker, call) in &mut peers.python {
        if int8 && *name == "litert" {
            // Portable kernels first: the same worker then loads the fast ones.
            let mut exact = request.clone();
            exact["exact"] = json!(true);
            worker.load(exact).map_err(said)?;
            entries[0].exact =
                Some(Exactness::of(&entries[0].outputs, &worker.outputs().map_err(said)?, &dense.lowered));
        }
        entries.push(Entry::load(worker, request.clone(), *call, macs).map_err(said)?);
    }
    if form == Form::F32 {
        for (_, worker, call) in &mut peers.rust {
            entries.push(Entry::load(worker, request.clone(), *call, macs).map_err(said)?);
        }
    }

    for entry in &mut entries {
        entry.fit().map_err(said)?;
    }
    for turn in 0..turns {
        let count = entries.len();
        for k in 0..count {
            let entry = &mut entries[(turn + k) % count];
            let time = entry.worker.time(entry.calls).map_err(said)?;
            entry.times.push(time);
        }
    }

    let classes = ClassScores::of(graph);
    let reference = entries[0].outputs.concat();
    let base = entries[0].times.clone();
    let mut rows = Vec::new();
    for entry in &entries {
        let outputs = entry.outputs.concat();
        ensure!(
            outputs.len() == reference.len(),
            "{}: {} gives {} numbers",
            subject.name,
            entry.runtime,
            outputs.len()
        );
        let ratio = |less| Quartiles::of_ratios(&entry.times, &base, less).ok_or_else(|| miette!("no turns"));
        rows.push(Row {
            network: subject.name,
            form,
            runtime: entry.runtime.clone(),
            version: entry.worker.version.clone(),
            ours: entry.ours,
            macs: entry.macs,
            loaded: entry.loaded,
            times: entry.times.clone(),
            call_us: entry.call_us,
            ratio: ratio(0.0)?,
            ratio_less_call: ratio(entry.call_us)?,
            fidelity: Fidelity::of_outputs(
                std::slice::from_ref(&reference),
                std::slice::from_ref(&outputs),
                classes,
                0.0,
            ),
            exact: entry.exact,
        });
    }
    check(&rows)?;
    Ok(rows)
}

/// All runtimes computed the same.
fn check(rows: &[Row]) -> Result<()> {
    for row in rows {
        let of = format!("{} {}, {}", row.network, row.form.name(), row.runtime);
        let near = row.exact.is_none_or(|exact| exact.equal >= if exact.must { 1.0 } else { PORTABLE_EQUAL });
        ensure!(near, "{of}: not what LiteRT's portable kernels give");
        ensure!(row.times.iter().all(|time| *time > 0.0), "{of}: no time");
        let (fidelity, same) = (&row.fidelity, row.fidelity.agreement.unwrap_or(1.0));
        // A compressed network is another one.
        let fine = match row.form {
            _ if row.ours => true,
            Form::F32 => fidelity.within(F32_TOLERANCE),
            Form::Int8 => fidelity.relative_rms <= INT8_RMS && same >= INT8_DECISIONS,
        };
        ensure!(fine, "{of}: other outputs: {fidelity:?}");
    }
    Ok(())
}

const HEADER: [&str; 12] = [
    "network",
    "type",
    "runtime",
    "us",
    "quartiles",
    "call us",
    "ratio",
    "quartiles",
    "less call",
    "load us",
    "first us",
    "outputs",
];

fn cells(row: &Row) -> [String; 12] {
    let Quartiles { low, middle, high } =
        Quartiles::of(row.times.iter().copied()).unwrap_or(Quartiles { low: 0.0, middle: 0.0, high: 0.0 });
    let off = format!("{:.0e}", row.fidelity.off());
    let same = row.fidelity.agreement.map(|same| format!(", {:.0} % same", 100.0 * same));
    let outputs = match row.exact {
        Some(Exactness { equal: 1.0, .. }) => "exact".into(),
        Some(exact) => format!("{:.1} % exact", 100.0 * exact.equal),
        None if row.ours && row.fidelity.max_abs == 0.0 => String::new(),
        _ => off + &same.unwrap_or_default(),
    };
    [
        row.network.into(),
        row.form.name().into(),
        row.runtime.clone(),
        time(middle),
        format!("{}-{}", time(low), time(high)),
        if row.ours { String::new() } else { time(row.call_us) },
        format!("{:.2}", row.ratio.middle),
        format!("{:.2}-{:.2}", row.ratio.low, row.ratio.high),
        format!("{:.2}", row.ratio_less_call.middle),
        format!("{:.0}", row.loaded.load_us),
        time(row.loaded.first_us),
        outputs,
    ]
}

const LEGEND: &str = "One thread, batch 1, the runtimes in turns on one processor. us: median over the turns, with quartiles. ratio: to the dense network on Tucano, median over turns; \
    less call: without the time that a network of one small step takes there. load: from bytes in memory to ready to run, without the first inference, which follows. outputs: largest \
    difference to Tucano's as a share of the largest magnitude, and the same decisions; exact: outputs that equal those of LiteRT's portable kernels to the bit. In int8 Tucano and LiteRT take and give \
    integers, ONNX Runtime and OpenVINO floats, as their QDQ form has it.";

fn print(rows: &[Row], machine: &Machine) {
    let mut table = plain_table(&HEADER);
    table.set_width(190);
    table.add_rows(rows.iter().map(cells));
    for column in table.column_iter_mut().skip(3).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut versions: Vec<String> =
        rows.iter().filter(|row| !row.ours).map(|row| format!("{} {}", row.runtime, row.version)).collect();
    versions.sort();
    versions.dedup();
    println!("{}, {} processors, load {:.2}", machine.processor, machine.processors, machine.load);
    println!("{}\n{}\n\n{table}\n\n{LEGEND}", machine.extensions.join(" "), versions.join(", "));
}

fn document(rows: &[Row], machine: &Machine) -> Value {
    let quartiles = |of: &Quartiles| json!([of.low, of.middle, of.high]);
    let row = |row: &Row| {
        json!({
            "network": row.network, "type": row.form.name(), "runtime": row.runtime, "version": row.version, "ours": row.ours, "macs": row.macs,
            "us": Quartiles::of(row.times.iter().copied()).as_ref().map(quartiles), "turns_us": row.times, "call_us": row.call_us,
            "ratio": quartiles(&row.ratio), "ratio_less_call": quartiles(&row.ratio_less_call),
            "load_us": row.loaded.load_us, "first_us": row.loaded.first_us, "outputs": row.fidelity,
            "equal_to_portable": row.exact.map(|exact| exact.equal),
        })
    };
    json!({
        "schema": "tucano.bench.peers/1",
        "machine": {
            "processor": machine.processor, "extensions": machine.extensions, "processors": machine.processors, "load": machine.load,
        },
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn drawing(rows: &[Row], machine: &Machine) -> String {
    let column = |form: Form| {
        let mut groups: Vec<Group> = Vec::new();
        for row in rows.iter().filter(|row| row.form == form) {
            let title = format!("{}, {}", row.network, form.name());
            let value = Quartiles::of(row.times.iter().copied()).map_or(f64::NAN, |of| of.middle);
            let bar = Bar { label: row.runtime.clone(), value, ours: row.ours };
            match groups.last_mut().filter(|group| group.title == title) {
                Some(group) => group.bars.push(bar),
                None => groups.push(Group { title, bars: vec![bar] }),
            }
        }
        groups
    };
    let note = format!(
        "Microseconds of one inference, one thread, batch 1; shorter is better. {}",
        machine.processor
    );
    chart::svg(&note, &[column(Form::Int8), column(Form::F32)])
}

/// The short version.
fn test() -> Result<()> {
    let machine = Machine::here();
    let subject = own();
    let (graph, data) = read(&subject.model, &subject.data, None)?;
    let mut peers = Peers::start(&PYTHON, 3)?;
    let mut rows = Vec::new();
    for form in [Form::Int8, Form::F32] {
        rows.extend(measure(&subject, &graph, &data, form, &mut peers, 3)?);
    }
    print(&rows, &machine);
    ensure!(rows.len() >= 2 * (1 + PYTHON.len()), "{} rows", rows.len());
    ensure!(
        rows[0].exact.is_some_and(|exact| exact.must && exact.equal == 1.0),
        "int8 was not compared to the bit"
    );
    let drawn = drawing(&rows, &machine);
    ensure!(PYTHON.len() + 1 == drawn.matches("int8").count() + PYTHON.len(), "the chart misses a network");
    ensure!(
        document(&rows, &machine)["rows"].as_array().is_some_and(|all| all.len() == rows.len()),
        "rows are missing"
    );
    Ok(())
}

fn main() -> Result<()> {
    let (mut bench, mut short) = (false, false);
    let [mut json, mut svg, mut only, mut wanted] = [None, None, None, None];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| miette!("{argument} needs a value"));
        match argument.as_str() {
            "--worker" => return serve().into_diagnostic(),
            "--bench" => bench = true,
            "--test" => short = true,
            "--json" => json = Some(value()?),
            "--svg" => svg = Some(value()?),
            "--only" => only = Some(value()?),
            "--peers" => wanted = Some(value()?),
            // Flags of the test runner, which it gives to every bench.
            _ => {}
        }
    }
    if short || !bench {
        return test();
    }
    let machine = Machine::here();
    let turns = 40;
    let all = [PYTHON.as_slice(), RUST.as_slice()].concat();
    let wanted: Vec<&str> = match &wanted {
        None => all,
        Some(names) => {
            let known = |name: &&str| all.contains(name);
            let names: Vec<&str> = names.split(',').collect();
            ensure!(names.iter().all(known), "--peers takes some of {}", all.join(","));
            names
        }
    };
    let mut peers = Peers::start(&wanted, turns)?;
    let mut rows = Vec::new();
    for subject in subjects(only.as_deref()) {
        let (graph, data) = read(&subject.model, &subject.data, None)?;
        for form in [Form::Int8, Form::F32] {
            eprintln!("{} {}", subject.name, form.name());
            rows.extend(measure(&subject, &graph, &data, form, &mut peers, turns)?);
        }
    }
    print(&rows, &machine);
    let json = match json {
        Some(path) => {
            let text = serde_json::to_string_pretty(&document(&rows, &machine)).into_diagnostic()? + "\n";
            Some((path, text))
        }
        None => None,
    };
    for (path, text) in json.into_iter().chain(svg.map(|path| (path, drawing(&rows, &machine)))) {
        std::fs::write(&path, text).into_diagnostic().wrap_err_with(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
