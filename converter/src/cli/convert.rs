//! `convert`: from a model to a blob.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use miette::Diagnostic;
use tucano::backend::spec::Core;

use super::data::Selection;
use super::progress::Bar;
use super::{budget, model};
use crate::convert::{Budget, Method, Options, convert};
use crate::quantize::{RankBits, WeightBits};
use crate::{emit, report};

/// Flags of `convert`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    #[command(flatten)]
    format: Format,
    /// Core that the blob is meant for: orders its weights, lays out its memory, prices its instructions
    #[arg(long, value_name = "CORE", default_value = Core::CortexM4.name(), value_parser = cores())]
    target: Core,
    /// Store weights and activations as 8-bit integers; needs --calibrate
    #[arg(long)]
    int8: bool,
    /// Store weights as 16-bit floats, half the flash of an f32 blob; everything else stays f32
    #[arg(long, conflicts_with = "int8")]
    f16: bool,
    /// Width of the inner values of factorised layers in int8 blobs; auto: 16 bits for those whose rounding to 8 the outputs suffer from
    #[arg(long, value_name = "BITS", default_value = "8", value_parser = ["8", "16", "auto"], requires = "int8")]
    rank_bits: String,
    /// Width of stored weights in int8 blobs; auto: 4 bits, half the flash, for as many layers as hardly change the outputs on held-out samples
    #[arg(long, value_name = "BITS", default_value = "8", value_parser = ["8", "4", "auto"])]
    weight_bits: String,
    /// Samples of real inputs: decides ranks and ranges
    #[arg(long, value_name = "DATA.npz")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Largest relative RMS error of the network's output on held-out calibration samples
    #[arg(long, value_name = "E", value_parser = positive)]
    max_error: Option<f64>,
    /// Largest drop of accuracy in percentage points; needs labels beside the calibration samples
    #[arg(long, value_name = "POINTS", value_parser = positive, conflicts_with_all = ["max_error", "ratio", "macs_ratio", "budget"])]
    max_drop: Option<f64>,
    /// Times fewer parameters
    #[arg(long, value_name = "R", value_parser = at_least_one, conflicts_with = "max_error")]
    ratio: Option<f64>,
    /// Times fewer multiply-adds
    #[arg(long, value_name = "R", value_parser = at_least_one, conflicts_with = "max_error")]
    macs_ratio: Option<f64>,
    /// Largest figures on the target, any of flash=64k,ram=32k,macs=1M,instructions=20M: flash is the blob's bytes (not the runtime's code), ram the arena's;
    /// k, M and G are powers of 1024 for bytes, of 1000 for counts
    #[arg(long, value_name = "KEY=NUMBER,...", value_parser = budget::parse)]
    budget: Option<Budget>,
    /// Transform the weights of 3x3 convolutions of stride 1 (Winograd's F(2,3)) where that saves instructions on the target, the most for each byte
    /// first: 2.7 times their flash, within --budget flash
    #[arg(long, requires = "int8")]
    winograd: bool,
    /// Extent of a symbolic batch axis
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Where the blob goes; the Rust module stands beside it [default: the model's path with .tuc]
    #[arg(short, value_name = "OUT.tuc")]
    output: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
    /// Write a page with tables and figures
    #[arg(long, value_name = "R.html")]
    report: Option<PathBuf>,
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
    /// Canonical polyadic for convolutions: 1x1, a window for each channel, 1x1
    #[arg(long)]
    cp: bool,
    /// Separable windows for convolutions: kx1, then 1xk
    #[arg(long)]
    one_way: bool,
    /// Windows for each channel of a convolution, then 1x1
    #[arg(long)]
    depthwise_pointwise: bool,
    /// Tensor trains for dense layers
    #[arg(long)]
    tensor_train: bool,
    /// Kronecker sums (complex, quaternion, any N blocks): found where a network was trained so
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true)]
    hypercomplex: Option<Option<usize>>,
    /// Fewer channels, the others refitted
    #[arg(long)]
    prune: bool,
    /// Whatever suits each layer best
    #[arg(long)]
    auto: bool,
}

impl Format {
    fn method(&self) -> Method {
        match self {
            Self { low_rank: true, .. } => Method::LowRank,
            Self { tucker: true, .. } => Method::Tucker,
            Self { cp: true, .. } => Method::Cp,
            Self { one_way: true, .. } => Method::OneWay,
            Self { depthwise_pointwise: true, .. } => Method::DepthwisePointwise,
            Self { tensor_train: true, .. } => Method::TensorTrain,
            Self { hypercomplex: Some(blocks), .. } => Method::Hypercomplex(*blocks),
            Self { prune: true, .. } => Method::Prune,
            Self { auto: true, .. } => Method::Auto,
            _ => Method::None,
        }
    }
}

#[derive(Debug, Diagnostic, thiserror::Error)]
enum UsageError {
    #[error("a budget needs a format to spend it on")]
    #[diagnostic(help("add --auto, or one format such as --tucker"))]
    BudgetWithoutFormat,
    #[error("instructions of {0} are not modelled, so a budget on them cannot be kept")]
    #[diagnostic(help("choose another --target, or a budget on macs"))]
    NoModel(&'static str),
    #[error("--samples, --input and --labels choose from --calibrate, which is missing")]
    SelectionWithoutData,
    #[error("`{0}` would overwrite a file of this very command")]
    #[diagnostic(help(
        "model, data, blob, module (the blob's path with .rs), JSON and report need different paths: see -o, --json and --report"
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

/// The words of a command as a shell takes them, the program by its bare name.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,/:@%".contains(c);
    let quoted = |(index, word): (usize, String)| {
        let word = match Path::new(&word).file_name() {
            Some(name) if index == 0 => name.to_string_lossy().into_owned(),
            _ => word,
        };
        match !word.is_empty() && word.chars().all(plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    };
    words.enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Cores by their names.
pub fn cores() -> impl TypedValueParser<Value = Core> {
    PossibleValuesParser::new(Core::ALL.map(Core::name))
        .map(|name| Core::ALL.into_iter().find(|core| core.name() == name).unwrap_or(Core::CortexM4))
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
        let limits = [self.max_error, self.max_drop, self.ratio, self.macs_ratio];
        // Transformed weights spend a budget too.
        let budget = limits.iter().any(Option::is_some) || (self.budget.is_some() && !self.winograd);
        if budget && self.format.method() == Method::None {
            return Err(UsageError::BudgetWithoutFormat);
        }
        let counted = self.budget.is_some_and(|budget| budget.instructions.is_some());
        if counted && self.target.is_host() {
            return Err(UsageError::NoModel(self.target.name()));
        }
        let selection = &self.selection;
        let chosen = selection.samples.is_some() || selection.input.is_some() || selection.labels.is_some();
        if chosen && self.calibrate.is_none() {
            return Err(UsageError::SelectionWithoutData);
        }
        let (blob, module) = (self.blob_path(), self.module_path());
        let inputs = [Some(&self.model), self.calibrate.as_ref()];
        let outputs = [Some(&blob), Some(&module), self.json.as_ref(), self.report.as_ref()];
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
            method: self.format.method(),
            int8: self.int8,
            half_weights: self.f16,
            rank_bits: match &*self.rank_bits {
                "16" => RankBits::Sixteen,
                "auto" => RankBits::Measured,
                _ => RankBits::Eight,
            },
            weight_bits: match &*self.weight_bits {
                "4" => WeightBits::Four,
                "auto" => WeightBits::Measured,
                _ => WeightBits::Eight,
            },
            max_error: self.max_error,
            max_drop: self.max_drop,
            ratio: self.ratio,
            macs_ratio: self.macs_ratio,
            budget: self.budget.unwrap_or_default(),
            winograd: self.winograd,
            target: self.target,
        };
        let graph = model::open(&self.model, self.batch)?;
        let shapes: Vec<Vec<usize>> = graph.inputs.iter().map(|id| graph.shape(*id).to_vec()).collect();
        let data = match &self.calibrate {
            Some(path) => Some(self.selection.read(path, &shapes)?),
            None => None,
        };
        let blob_path = self.blob_path();
        let bar = Bar::new();
        let mut converted = convert(&graph, data.as_ref(), &options, &bar)?;
        drop(bar);
        let module = converted.module(&blob_path)?;
        let module_path = self.module_path();
        converted.report.command =
            Some(command_line(std::env::args_os().map(|word| word.to_string_lossy().into_owned())));
        let json = report::json(&converted.report);
        let page = self.report.as_ref().map(|_| report::page(&converted.report));
        let mut files: Vec<(&Path, &[u8])> =
            vec![(&blob_path, &converted.blob), (&module_path, module.as_bytes())];
        files.extend(self.json.as_deref().map(|path| (path, json.as_bytes())));
        files.extend(self.report.as_deref().zip(page.as_ref()).map(|(path, page)| (path, page.as_bytes())));
        emit::write::write(&files)?;
        let (table, reasons) = report::layer_table(&converted.report.layers);
        println!("{table}\n\n{}", reasons.join("\n"));
        if converted.report.layers.iter().any(|layer| layer.error.is_some()) {
            println!("{ERROR_LEGEND}");
        }
        println!();
        println!("{}\n", report::conversion_table(&converted.report));
        if let Some(table) = report::tradeoff_table(&converted.report) {
            println!("{table}\n");
        }
        for (when, peak) in [("before", &converted.report.peak_before), ("after", &converted.report.peak)] {
            let held = |held: &report::Holder| format!("`{}` {}", held.name, report::human_bytes(held.bytes));
            let live: Vec<String> = peak.live.iter().map(held).collect();
            println!("Arena at its fullest {when}, in `{}`: {}.", peak.step, live.join(", "));
        }
        println!();
        let samples = &converted.report.samples;
        println!("Blob against the model, {} {} samples:", samples.count, samples.source);
        println!("{}", report::fidelity_table(&converted.report.verify, samples.count));
        for warning in &converted.report.warnings {
            println!("warning: {warning}");
        }
        for note in &converted.report.notes {
            println!("note: {note}");
        }
        let written: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        println!("\nWrote {}.", written.join(", "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_quoted_for_the_shell() {
        let words = ["/usr/bin/convert", "a net.onnx", "--auto", "it's", "", "$(x)"].map(String::from);
        assert_eq!(command_line(words.into_iter()), r"convert 'a net.onnx' --auto 'it'\''s' '' '$(x)'");
    }
}
