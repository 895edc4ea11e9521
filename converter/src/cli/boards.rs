//! `tucano boards list | build | run`: blobs on emulated boards.
//!
//! `run` takes float samples and quantises them by the blob's input contract on the host, so that the board gets exactly the bytes
//! that `tucano run` would.

use super::blob::refused;
use super::data::Selection;
use crate::boards::firmware::OptLevel;
use crate::boards::{self, BOARDS, Board, LOADS, Report, cycles};
use crate::evaluate::metrics;
use crate::report;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use std::path::{Path, PathBuf};

/// Runs blobs on emulated boards.
#[derive(Debug, Subcommand)]
pub enum BoardsArgs {
    /// Shows the boards.
    List,
    /// Builds the firmware of a model and says how much flash its code takes.
    Build(BuildArgs),
    /// Runs a model on a board: outputs, executed instructions, memory.
    Run(RunArgs),
}

/// What `build` and `run` share.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The model, as `convert` wrote it.
    blob: PathBuf,
    /// The board.
    #[arg(long, value_parser = PossibleValuesParser::new(BOARDS.iter().map(|board| board.name)))]
    board: String,
    /// Optimisation of the firmware.
    #[arg(long, value_enum, default_value_t)]
    opt_level: OptLevel,
}

/// What `run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    build: BuildArgs,
    /// Samples, a NumPy archive.
    #[arg(long, value_name = "DATA.npz")]
    data: PathBuf,
    /// The archive's array of samples. Default: the first whose shape fits.
    #[arg(long, value_name = "KEY")]
    input: Option<String>,
    /// The archive's array of class numbers, for the accuracy.
    #[arg(long, value_name = "KEY")]
    labels: Option<String>,
    /// How many samples.
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// Model the cycles of one inference by the core's published instruction timings. Follows each executed instruction: some seconds
    /// for every ten million.
    #[arg(long)]
    cycles: bool,
    /// Write the report as JSON.
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
}

/// Executes a subcommand.
pub fn run(args: &BoardsArgs) -> Result<()> {
    match args {
        BoardsArgs::List => {
            list();
            Ok(())
        }
        BoardsArgs::Build(args) => build(args),
        BoardsArgs::Run(args) => run_samples(args),
    }
}

fn list() {
    println!(
        "{:10} {:12} {:12} {:28} {:>8} {:>8} {:>8}",
        "board", "core", "machine", "target", "flash", "RAM", "model"
    );
    for Board { name, core, machine, target, flash, ram, model, .. } in BOARDS {
        let kib = |bytes: u32| format!("{}K", bytes / 1024);
        let model = model.map_or_else(|| "in flash".into(), |region| kib(region.length));
        println!(
            "{name:10} {core:12} {machine:12} {target:28} {:>8} {:>8} {model:>8}",
            kib(flash.length),
            kib(ram.length)
        );
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).into_diagnostic().wrap_err_with(|| format!("cannot read {}", path.display()))
}

fn spinner(message: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn build(args: &BuildArgs) -> Result<()> {
    let board = boards::find(&args.board)?;
    let blob = read(&args.blob)?;
    let bar = spinner(format!("building for {}", board.name));
    let firmware = boards::build(&blob, board, args.opt_level);
    bar.finish_and_clear();
    let firmware = firmware?;
    println!("compiler      {}", firmware.toolchain);
    println!(
        "code          {} bytes of flash at opt-level {} by {LOADS}, {} by Model::load",
        firmware.code_bytes,
        args.opt_level.name(),
        firmware.validating_code_bytes
    );
    println!("measured on   {}", firmware.minimal.display());
    println!("to be run     {}", firmware.harness.display());
    Ok(())
}

fn run_samples(args: &RunArgs) -> Result<()> {
    let board = boards::find(&args.build.board)?;
    let runner = super::blob::open(&args.build.blob)?;
    let blob = runner.model().blob().bytes().to_vec();
    let [terminal] = runner.inputs() else {
        return Err(miette!(
            "the model has {} inputs; this program feeds models of one",
            runner.inputs().len()
        ));
    };
    if args.samples == 0 {
        return Err(miette!("--samples 0: a run needs at least one sample"));
    }
    let selection =
        Selection { input: args.input.clone(), samples: Some(0..args.samples), labels: args.labels.clone() };
    let data = selection.read(&args.data, &[terminal.shape()])?;
    let mut inputs = Vec::new();
    for sample in 0..data.samples {
        inputs.extend(runner.quantise(&data.sample(sample)).map_err(refused)?.concat());
    }

    let bar = spinner(format!("building for {}", board.name));
    let progress = |done| bar.set_message(format!("{}: sample {done} of {}", board.name, args.samples));
    let ran = boards::run(&blob, board, &inputs, args.samples, args.build.opt_level, &progress);
    let modelled = match &ran {
        Ok(_) if args.cycles => {
            bar.set_message(format!("{}: modelling cycles", board.name));
            let firmware = boards::build(&blob, board, args.build.opt_level)?;
            cycles::model(board, &firmware, &blob, &inputs[..inputs.len() / data.samples])?
        }
        _ => None,
    };
    bar.finish_and_clear();
    let (mut report, outputs) = ran?;
    report.modelled_cycles = modelled.map(|modelled| modelled.cycles as f64);
    report.cycle_model = modelled.map(|modelled| modelled.model);
    if let (Some(labels), [terminal]) = (data.labels, runner.outputs()) {
        let stored = terminal.elements() * terminal.tensor.dtype.bytes();
        let mut values = Vec::new();
        for sample in outputs.chunks_exact(stored) {
            values.extend(terminal.fetch(sample).into_diagnostic()?);
        }
        report.accuracy = Some(metrics::accuracy(&values, &labels, terminal.elements()));
    }
    print(&report);
    if args.cycles && report.modelled_cycles.is_none() {
        println!("\nno modelled cycles: {} has no published instruction timings", board.core);
    }
    if let Some(path) = &args.json {
        report::write_json(path, &report)?;
    }
    Ok(())
}

fn print(report: &Report) {
    println!(
        "board         {} ({} as {}), backend {}",
        report.board, report.core, report.machine, report.backend
    );
    println!("compiler      {}, opt-level {}", report.toolchain, report.opt_level);
    let [least, most] = report.instructions_range;
    println!(
        "instructions  {:.0} an inference ({least:.0} to {most:.0} over {} samples)",
        report.instructions, report.samples
    );
    if let (Some(cycles), Some(model)) = (report.modelled_cycles, report.cycle_model) {
        println!("cycles        {cycles:.0} modelled, first sample ({model})");
    }
    println!(
        "flash         {} code + {} blob ({} of it weights)",
        report.code_bytes, report.blob_bytes, report.weight_bytes
    );
    println!(
        "              the code takes the blob by {}; with validation on the board, by Model::load, it is {}",
        report.code_loads, report.validating_code_bytes
    );
    println!(
        "RAM           {} arena + {} state + {} stack",
        report.arena_bytes, report.state_bytes, report.stack_bytes
    );
    if let Some(accuracy) = report.accuracy {
        println!("accuracy      {:.2} %", 100.0 * accuracy);
    }
    println!("outputs       sha256 {}", report.output_sha256);
    let all: f64 = report.steps.iter().map(|step| step.instructions).sum();
    println!(
        "\n{:4} {:24} {:20} {:24} {:>12} {:>6}",
        "step", "name", "op", "kernel", "instructions", "share"
    );
    for (index, step) in report.steps.iter().enumerate() {
        let share = 100.0 * step.instructions / all.max(1.0);
        println!(
            "{index:4} {:24} {:20} {:24} {:>12.0} {share:>5.1}%",
            step.name, step.op, step.kernel, step.instructions
        );
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
}
