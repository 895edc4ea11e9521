//! `convert`: from a model to a blob.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use miette::Diagnostic;

use super::data::Selection;
use super::model;
use super::progress::Bar;
use crate::convert::{Method, Options, convert};
use crate::{emit, report};

/// Flags of `convert`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    #[command(flatten)]
    format: Format,
    /// Core that the blob is meant for; named in the report, since all cores share one form of the blob so far
    #[arg(long, value_enum, default_value_t = Target::CortexM4)]
    target: Target,
    /// Store weights and activations as 8-bit integers; needs --calibrate
    #[arg(long)]
    int8: bool,
    /// Width of the inner values of factorised layers in int8 blobs
    #[arg(long, value_name = "BITS", default_value = "8", value_parser = ["8", "16"])]
    rank_bits: String,
    /// Samples of real inputs: decides ranks and ranges
    #[arg(long, value_name = "DATA.npz")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Largest relative RMS error of the network's output on held-out calibration samples
    #[arg(long, value_name = "E", value_parser = positive)]
    max_error: Option<f64>,
    /// Times fewer parameters
    #[arg(long, value_name = "R", value_parser = at_least_one, conflicts_with = "max_error")]
    ratio: Option<f64>,
    /// Times fewer multiply-adds
    #[arg(long, value_name = "R", value_parser = at_least_one, conflicts_with = "max_error")]
    macs_ratio: Option<f64>,
    /// Extent of a symbolic batch axis
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Where the blob goes; the Rust module stands beside it [default: the model's path with .tuc]
    #[arg(short, value_name = "OUT.tuc")]
    output: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Format {
    /// Keep all layers dense (the default)
    #[arg(long)]
    none: bool,
    /// Low-rank factors for dense layers and 1x1 convolutions
    #[arg(long)]
    low_rank: bool,
    /// Tucker-2 for other convolutions too
    #[arg(long)]
    tucker: bool,
}

/// Cores by their command-line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    CortexM0,
    CortexM3,
    CortexM4,
    CortexM7,
    CortexM33,
    CortexM55,
    #[value(name = "x86-64")]
    X86_64,
}

#[derive(Debug, Diagnostic, thiserror::Error)]
enum UsageError {
    #[error("a budget needs a format to spend it on")]
    #[diagnostic(help("add --tucker or --low-rank"))]
    BudgetWithoutFormat,
    #[error("--samples, --input and --labels choose from --calibrate, which is missing")]
    SelectionWithoutData,
    #[error("`{0}` would overwrite a file of this very command")]
    #[diagnostic(help(
        "model, data, blob, module (the blob's path with .rs) and JSON need five different paths: see -o and --json"
    ))]
    Overwrite(String),
}

/// What the column `error` means.
const ERROR_LEGEND: &str = "error: relative RMS of the layer's output against the original network's, on what the compressed layers before it \
    feed it (of the weight where there is no calibration data)";

/// A path in a form that is the same for the same file, whether it exists yet or not.
fn place(path: &Path) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let whole = |folder: PathBuf| folder.join(path.file_name().unwrap_or_default());
    path.canonicalize().or_else(|_| folder.canonicalize().map(whole)).unwrap_or_else(|_| path.to_path_buf())
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

fn positive(text: &str) -> Result<f64, String> {
    let x = number(text)?;
    if x > 0.0 && x.is_finite() { Ok(x) } else { Err("must be above 0".into()) }
}

fn at_least_one(text: &str) -> Result<f64, String> {
    let x = number(text)?;
    if x >= 1.0 && x.is_finite() { Ok(x) } else { Err("must be at least 1".into()) }
}

impl Arguments {
    fn check_usage(&self) -> Result<(), UsageError> {
        let budget = self.max_error.or(self.ratio).or(self.macs_ratio).is_some();
        if budget && !self.format.tucker && !self.format.low_rank {
            return Err(UsageError::BudgetWithoutFormat);
        }
        let selection = &self.selection;
        let chosen = selection.samples.is_some() || selection.input.is_some() || selection.labels.is_some();
        if chosen && self.calibrate.is_none() {
            return Err(UsageError::SelectionWithoutData);
        }
        let (blob, module) = (self.blob_path(), self.module_path());
        let inputs = [Some(&self.model), self.calibrate.as_ref()];
        let outputs = [Some(&blob), Some(&module), self.json.as_ref()];
        let mut taken: Vec<PathBuf> = inputs.into_iter().flatten().map(|path| place(path)).collect();
        for path in outputs.into_iter().flatten() {
            if taken.contains(&place(path)) {
                return Err(UsageError::Overwrite(path.display().to_string()));
            }
            taken.push(place(path));
        }
        Ok(())
    }

    fn module_path(&self) -> PathBuf {
        self.blob_path().with_extension("rs")
    }

    fn blob_path(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| self.model.with_extension("tuc"))
    }

    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        if let Err(error) = self.check_usage() {
            eprintln!("{:?}", miette::Report::new(error));
            std::process::exit(2);
        }
        let options = Options {
            method: match (self.format.tucker, self.format.low_rank) {
                (true, _) => Method::Tucker,
                (_, true) => Method::LowRank,
                _ => Method::None,
            },
            int8: self.int8,
            rank_bits: if self.rank_bits == "16" { 16 } else { 8 },
            max_error: self.max_error,
            ratio: self.ratio,
            macs_ratio: self.macs_ratio,
            target: self.target.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string()),
        };
        let graph = model::open(&self.model, self.batch)?;
        let shapes: Vec<Vec<usize>> = graph.inputs.iter().map(|id| graph.shape(*id).to_vec()).collect();
        let data = match &self.calibrate {
            Some(path) => Some(self.selection.read(path, &shapes)?),
            None => None,
        };
        let blob_path = self.blob_path();
        let bar = Bar::new();
        let converted = convert(&graph, data.as_ref(), &options, &bar)?;
        drop(bar);
        let module = converted.module(&blob_path)?;
        let module_path = self.module_path();
        let json = report::json(&converted.report);
        let mut files: Vec<(&Path, &[u8])> =
            vec![(&blob_path, &converted.blob), (&module_path, module.as_bytes())];
        files.extend(self.json.as_deref().map(|path| (path, json.as_bytes())));
        emit::write::write(&files)?;
        let (table, reasons) = report::layer_table(&converted.report.layers);
        println!("{table}\n\n{}", reasons.join("\n"));
        if converted.report.layers.iter().any(|layer| layer.error.is_some()) {
            println!("{ERROR_LEGEND}");
        }
        println!();
        println!("{}\n", report::conversion_table(&converted.report));
        let peak = &converted.report.peak;
        let live: Vec<String> = peak
            .live
            .iter()
            .map(|held| format!("`{}` {}", held.name, report::human_bytes(held.bytes)))
            .collect();
        println!("Arena at its fullest, in `{}`: {}.\n", peak.step, live.join(", "));
        let samples = &converted.report.samples;
        println!("Blob against the model, {} {} samples:", samples.count, samples.source);
        println!("{}", report::fidelity_table(&converted.report.verify, samples.count));
        for note in &converted.report.notes {
            println!("note: {note}");
        }
        println!("\nWrote {} and {}.", blob_path.display(), module_path.display());
        Ok(())
    }
}
