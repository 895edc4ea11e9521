//! `cargo bench -p tucano-benches --bench boards [-- --json FILE]`: what the MLPerf Tiny models take on every emulated core as dense
//! int8 blobs, beside TensorFlow Lite Micro with CMSIS-NN, and the modelled cycles of a Cortex-M4. Where the zoo is absent, the repository's own models, without peers.
//!
//! `-- --factorised` measures compressed networks of the zoo beside their dense int8 form instead.
//!
//! As a test (`cargo test --benches`) it measures a small model on two boards, and holds the arenas of the MLPerf models below the peer's.
//! Needs what boards/setup.sh installs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::CellAlignment;
use miette::{IntoDiagnostic, Result, WrapErr, ensure, miette};
use serde_json::{Map, Value, json};
use tucano::host::Runner;
use tucano_benches::figures::{BENCHMARKS, FIGURES, Figure, LAYER_BOARDS, PEER};
use tucano_converter::boards::cycles::{self, Modelled};
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Report};
use tucano_converter::convert::{Converted, Method, Options, convert};
use tucano_converter::report::{human_bytes, plain_table};
use tucano_converter::search::Silent;
use tucano_tests::{models, read, zoo};

/// Instructions hardly depend on the data.
const SAMPLES: usize = 2;
/// The board whose core's cycles are modelled.
const CYCLES: &str = "qemu-m4";
/// The board whose arena stands in the table, as the peer's does.
const ARENA: &str = "qemu-m4";
/// Most samples that calibrate.
const CALIBRATION: usize = 250;

/// A model as a dense int8 blob, with the stored bytes of [`SAMPLES`] samples.
struct Subject {
    name: String,
    macs: u64,
    calibration: usize,
    converted: Converted,
    /// Working memory of the blob of each core, in the order of [`LAYER_BOARDS`].
    arenas: [usize; LAYER_BOARDS.len()],
    inputs: Vec<u8>,
    peer: Option<[f64; FIGURES.len()]>,
    /// Cycles of the first sample on [`CYCLES`], where they were wanted.
    modelled: Option<Modelled>,
}

impl Subject {
    fn convert(name: &str, model: &Path, data: &Path) -> Result<Self> {
        let (graph, data) = read(model, data, None)?;
        let data = data.slice(0..CALIBRATION);
        let options = Options { int8: true, ..Options::default() };
        let converted = convert(&graph, Some(&data), &options, &Silent)?;
        let runner = Runner::new(&converted.blob).into_diagnostic()?;
        let mut inputs = Vec::new();
        for sample in 0..SAMPLES {
            inputs.extend(runner.quantise(&data.sample(sample)).into_diagnostic()?.concat());
        }
        let mut arenas = [0; LAYER_BOARDS.len()];
        for (arena, (_, board)) in arenas.iter_mut().zip(LAYER_BOARDS) {
            let blob = converted.blob_for(boards::find(board)?.kernels)?;
            *arena = Runner::new(&blob).into_diagnostic()?.model().arena_bytes();
        }
        Ok(Self {
            name: name.into(),
            macs: converted.report.after.macs,
            calibration: data.samples,
            arenas,
            converted,
            inputs,
            peer: None,
            modelled: None,
        })
    }

    /// Working memory on a board of [`LAYER_BOARDS`].
    fn arena(&self, board: &str) -> usize {
        let place = LAYER_BOARDS.iter().position(|(_, name)| *name == board);
        place.map_or(0, |place| self.arenas[place])
    }

    /// Models the cycles of the first sample.
    fn model_cycles(&mut self) -> Result<()> {
        eprintln!("{}: cycles of {CYCLES}", self.name);
        let board = boards::find(CYCLES)?;
        let blob = self.converted.blob_for(board.kernels)?;
        let firmware = boards::build(&blob, board, OptLevel::Three)?;
        let sample = &self.inputs[..self.inputs.len() / SAMPLES];
        self.modelled = cycles::model(board, &firmware, &blob, sample)?;
        Ok(())
    }

    /// The figures that `wanted` names, in the order of [`FIGURES`].
    fn measure(&self, wanted: impl Fn(Figure) -> bool) -> Result<[Option<f64>; FIGURES.len()]> {
        let mut runs = BTreeMap::<&str, Report>::new();
        let mut run = |board: &'static str| -> Result<Report> {
            if let Some(report) = runs.get(board) {
                return Ok(report.clone());
            }
            eprintln!("{} on {board}", self.name);
            let board_of = boards::find(board)?;
            let blob = self.converted.blob_for(board_of.kernels)?;
            let (report, _) = boards::run(&blob, board_of, &self.inputs, SAMPLES, OptLevel::Three, &|_| ())?;
            runs.insert(board, report.clone());
            Ok(report)
        };
        let mut found = [None; FIGURES.len()];
        for (found, (_, figure)) in found.iter_mut().zip(FIGURES).filter(|(_, (_, figure))| wanted(*figure)) {
            *found = Some(match figure {
                Figure::Instructions(board) => run(board)?.instructions,
                Figure::Arena => self.arena(ARENA) as f64,
                Figure::Stack => run("qemu-m4")?.stack_bytes as f64,
                Figure::Code(board, level) => {
                    let board = boards::find(board)?;
                    let blob = self.converted.blob_for(board.kernels)?;
                    boards::build(&blob, board, level)?.code_bytes as f64
                }
            });
        }
        Ok(found)
    }
}

/// The MLPerf models, those of the repository where there is no zoo.
fn subjects() -> Result<Vec<Subject>> {
    let Some(zoo) = zoo() else {
        println!(
            "The MLPerf models are not on this machine: measured are models of this repository, for which no peer was.\n"
        );
        return ["phm_mlp_dense", "resnet8"].map(own).into_iter().collect();
    };
    let mut subjects = Vec::new();
    for benchmark in &BENCHMARKS {
        eprintln!("converting {}", benchmark.model);
        let (model, data) = (zoo.join(benchmark.model), zoo.join(benchmark.data));
        let subject = Subject::convert(benchmark.name, &model, &data)?;
        subjects.push(Subject { peer: Some(benchmark.peer), ..subject });
    }
    Ok(subjects)
}

/// A model of this repository.
fn own(name: &str) -> Result<Subject> {
    let path = |extension: &str| models().join(format!("{name}.{extension}"));
    Subject::convert(name, &path("onnx"), &path("npz"))
}

/// Millions of instructions, bytes as they are.
fn text(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Instructions(_) => format!("{:.3} M", value / 1e6),
        _ => format!("{value:.0}"),
    }
}

/// Arenas by board.
fn arenas(subject: &Subject) -> Map<String, Value> {
    LAYER_BOARDS
        .iter()
        .zip(subject.arenas)
        .map(|((_, board), arena)| (board.to_string(), json!(arena)))
        .collect()
}

/// Prints the table; gives its JSON.
fn report(measured: &[(Subject, [Option<f64>; FIGURES.len()])]) -> Value {
    let mut header = vec!["model", ""];
    header.extend(FIGURES.map(|(title, _)| title));
    header.extend(["M4F cycles", "a MAC"]);
    let mut table = plain_table(&header);
    table.set_width(200);
    let mut documents = Vec::new();
    for (subject, ours) in measured {
        let peer = subject.peer.map_or([None; FIGURES.len()], |peer| peer.map(Some));
        let mut ratios = [None; FIGURES.len()];
        for (ratio, pair) in ratios.iter_mut().zip(ours.iter().zip(peer)) {
            *ratio = pair.0.zip(pair.1).map(|(ours, peer)| ours / peer);
        }
        let row = |name: &str, who: &str, values: &[Option<f64>], text: &dyn Fn(Figure, f64) -> String| {
            let cells = FIGURES
                .iter()
                .zip(values)
                .map(|((_, figure), value)| value.map_or_else(String::new, |value| text(*figure, value)));
            [name.to_string(), who.to_string()].into_iter().chain(cells).collect::<Vec<_>>()
        };
        let cycles = subject.modelled.map(|modelled| modelled.cycles as f64);
        let per_mac = cycles.map(|cycles| cycles / subject.macs as f64);
        let mut first = row(&subject.name, "tucano", ours, &text);
        first.push(cycles.map_or_else(String::new, |cycles| format!("{:.3} M", cycles / 1e6)));
        first.push(per_mac.map_or_else(String::new, |cycles| format!("{cycles:.2}")));
        table.add_row(first);
        if subject.peer.is_some() {
            table.add_row(row("", "peer", &peer, &text));
            table.add_row(row("", "ratio", &ratios, &|_, value| format!("{value:.2}")));
        }
        let named = |values: &[Option<f64>]| -> Map<String, Value> {
            FIGURES.iter().zip(values).map(|((title, _), value)| (title.to_string(), json!(value))).collect()
        };
        documents.push(json!({
            "model": subject.name, "macs": subject.macs, "calibration_samples": subject.calibration,
            "blob_bytes": subject.converted.blob.len(), "arena_bytes": arenas(subject), "tucano": named(ours), "peer": named(&peer), "ratio": named(&ratios),
            "modelled": subject.modelled.map(|modelled| json!({
                "board": CYCLES, "cycles": modelled.cycles, "cycles_per_mac": per_mac, "model": modelled.model,
            })),
        }));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n");
    for (subject, _) in measured {
        println!(
            "{}: {:.3} M multiply-adds, blob {}, calibrated on {} samples",
            subject.name,
            subject.macs as f64 / 1e6,
            human_bytes(subject.converted.blob.len()),
            subject.calibration
        );
        if subject.arenas.iter().any(|arena| *arena != subject.arenas[0]) {
            let each =
                LAYER_BOARDS.iter().zip(subject.arenas).map(|((core, _), arena)| format!("{core} {arena}"));
            println!("  arena by core: {}", each.collect::<Vec<_>>().join(", "));
        }
    }
    if let Some(modelled) = measured.iter().find_map(|(subject, _)| subject.modelled) {
        println!(
            "\nM4F cycles: modelled, not measured, of the first sample at opt-level 3, and per multiply-add. Model: {}.",
            modelled.model
        );
    }
    println!(
        "\nM0 to M55: executed instructions of one inference under emulation, not cycles, mean of {SAMPLES} samples, code at opt-level 3.\n\
         Code, arena (on M4) and stack in bytes; code without the model and the harness. Ratio: tucano / peer, less is better.\nPeer: {PEER}."
    );
    json!({"schema": "tucano.bench.boards/1", "peer": PEER, "samples": SAMPLES, "models": documents})
}

/// The short version: one model, two boards, and the arenas.
fn test() -> Result<()> {
    let mut subject = own("phm_mlp_dense")?;
    subject.model_cycles()?;
    let short = |figure| {
        [Figure::Instructions("qemu-m0"), Figure::Instructions("qemu-m4"), Figure::Arena, Figure::Stack]
            .contains(&figure)
    };
    let figures = subject.measure(short)?;
    for ((title, figure), value) in FIGURES.iter().zip(figures).filter(|((_, figure), _)| short(*figure)) {
        let value = value.unwrap_or_default();
        let least = if let Figure::Instructions(_) = figure { subject.macs as f64 } else { 1.0 };
        ensure!(value >= least, "{title}: {value} is no measurement");
    }
    let cycles = subject.modelled.map_or(0, |modelled| modelled.cycles);
    ensure!(cycles > subject.macs, "{cycles} modelled cycles are no result");
    let mut measured = vec![(subject, figures)];
    if zoo().is_some() {
        for subject in subjects()? {
            let figures = subject.measure(|figure| figure == Figure::Arena)?;
            measured.push((subject, figures));
        }
    }
    report(&measured);
    let arena = FIGURES.iter().position(|(_, figure)| *figure == Figure::Arena).unwrap_or_default();
    for (subject, _) in &measured {
        if let Some(peer) = subject.peer {
            ensure!(
                subject.arena(ARENA) as f64 <= peer[arena],
                "{}: the arena is above the peer's",
                subject.name
            );
        }
    }
    Ok(())
}

/// Networks of the zoo that are compressed, their samples, and how many times fewer multiply-adds are wanted, if that is given.
const FACTORISED: [(&str, &str, Option<f64>); 3] = [
    ("trained/resnet8", "trained/resnet8", Some(2.0)),
    ("trained/vgg_fat", "trained/vgg_fat", Some(3.0)),
    ("mlperf/ad_fcae_f32_gemm", "mlperf/ad_fcae_f32_gemm", None),
];

/// Dense and compressed int8 blobs of a network on each board of [`FACTORISED_BOARDS`].
fn factorised(model: &Path, data: &Path, macs_ratio: Option<f64>) -> Result<Vec<[String; 9]>> {
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (graph, data) = read(model, data, None)?;
    let data = data.slice(0..CALIBRATION);
    let dense = Options { int8: true, ..Options::default() };
    let compressed = Options { method: Method::Auto, macs_ratio, ..dense.clone() };
    let [dense, compressed] = [convert(&graph, Some(&data), &dense, &Silent)?, {
        eprintln!("compressing {name}");
        convert(&graph, Some(&data), &compressed, &Silent)?
    }];
    let macs = dense.report.after.macs as f64 / compressed.report.after.macs as f64;
    let sample = data.sample(0);
    let mut rows = Vec::new();
    for (board, title) in FACTORISED_BOARDS {
        eprintln!("{name} on {board}");
        let board = boards::find(board)?;
        let run = |converted: &Converted| -> Result<Report> {
            let blob = converted.blob_for(board.kernels)?;
            let stored = Runner::new(&blob).into_diagnostic()?.quantise(&sample).into_diagnostic()?.concat();
            Ok(boards::run(&blob, board, &stored, 1, OptLevel::Three, &|_| ())?.0)
        };
        let (before, after) = (run(&dense)?, run(&compressed)?);
        let scalar = after.steps.iter().filter(|step| step.kernel == "scalar");
        rows.push([
            name.clone(),
            title.into(),
            format!("{macs:.2}"),
            format!("{:.2}", before.instructions / after.instructions),
            format!("{:.3} M > {:.3} M", before.instructions / 1e6, after.instructions / 1e6),
            format!("{} > {}", before.arena_bytes, after.arena_bytes),
            format!("{} > {}", before.blob_bytes, after.blob_bytes),
            format!("{} > {}", before.code_bytes, after.code_bytes),
            scalar.map(|step| format!("{} ({})", step.name, step.op)).collect::<Vec<_>>().join(", "),
        ]);
    }
    Ok(rows)
}

/// Boards of the table of compressed networks, with their cores.
const FACTORISED_BOARDS: [(&str, &str); 2] = [("qemu-m4", "M4F"), ("qemu-m55", "M55")];

/// Prints the table of compressed networks.
fn report_factorised() -> Result<()> {
    let zoo = zoo().ok_or_else(|| miette!("the zoo is not on this machine: set TUCANO_ZOO"))?;
    let mut table = plain_table(&[
        "model",
        "core",
        "fewer MACs",
        "fewer instr.",
        "instructions",
        "arena",
        "blob",
        "code",
        "scalar steps",
    ]);
    table.set_width(200);
    for (model, data, macs_ratio) in FACTORISED {
        let (model, data) = (zoo.join(format!("{model}.onnx")), zoo.join(format!("{data}.npz")));
        table.add_rows(factorised(&model, &data, macs_ratio)?);
    }
    println!(
        "{table}\n\nDense int8 > compressed int8; instructions under emulation; arena, blob and code in bytes."
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut json = None;
    let (mut bench, mut compressed) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => bench = true,
            "--factorised" => compressed = true,
            "--json" => {
                json = Some(PathBuf::from(arguments.next().ok_or_else(|| miette!("--json needs a file"))?))
            }
            // Flags of the test runner, which it gives to every bench.
            _ => {}
        }
    }
    if !bench {
        return test();
    }
    if compressed {
        return report_factorised();
    }
    let mut measured = Vec::new();
    for mut subject in subjects()? {
        let figures = subject.measure(|_| true)?;
        subject.model_cycles()?;
        measured.push((subject, figures));
    }
    let document = report(&measured);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&document).into_diagnostic()?;
        std::fs::write(&path, text + "\n")
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
