//! The whole conversion, stage by stage: this function is the picture in `ARCHITECTURE.md`.

use std::path::Path;
use std::time::Instant;

use tucano::backend::spec::Core;
use tucano::backend::spec::select::Isa;
use tucano::host::Runner;

use crate::calibrate::Dataset;
use crate::evaluate::{ClassScores, evaluate, first_non_finite, metrics};
use crate::graph::Graph;
use crate::plan::{Plan, transform};
use crate::quantize::{self, Quantized, RankBits, WeightBits, Widths};
use crate::report::{self, Accuracy, Fidelity, Holder, Layer, Peak, Samples, Size, run_blob};
use crate::search::{self, Progress};
use crate::{emit, execute, lower, passes, plan};

pub use crate::search::{Budget, Method};

/// What to make of a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which formats weights may take.
    pub method: Method,
    /// Whether weights and activations become 8-bit integers.
    pub int8: bool,
    /// Whether the weights of an f32 blob are stored as 16-bit floats.
    pub half_weights: bool,
    /// Width of factors' inner values in an int8 blob.
    pub rank_bits: RankBits,
    /// Width of stored weights in an int8 blob.
    pub weight_bits: WeightBits,
    /// Budget: relative RMS error of the output on held-out calibration samples.
    pub max_error: Option<f64>,
    /// Budget: percentage points of accuracy on labelled calibration samples.
    pub max_drop: Option<f64>,
    /// Budget: times fewer parameters.
    pub ratio: Option<f64>,
    /// Budget: times fewer multiply-adds.
    pub macs_ratio: Option<f64>,
    /// Figures that the blob must keep.
    pub budget: Budget,
    /// Whether convolutions may store transformed weights, for fewer instructions.
    pub winograd: bool,
    /// The core that the blob is meant for.
    pub target: Core,
}

impl Default for Options {
    /// A dense f32 blob.
    fn default() -> Self {
        Self {
            method: Method::None,
            int8: false,
            half_weights: false,
            rank_bits: RankBits::Eight,
            weight_bits: WeightBits::Eight,
            max_error: None,
            max_drop: None,
            ratio: None,
            macs_ratio: None,
            budget: Budget::default(),
            winograd: false,
            target: Core::CortexM4,
        }
    }
}

/// Why there is no blob.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The model has no linear layer, or nothing at all.
    #[error("the model has no operations left after simplification")]
    #[diagnostic(help("a model whose output does not depend on its input needs no runtime"))]
    Empty,
    /// The model itself overflows.
    #[error("node `{node}` gives a number that is not finite for sample {sample}")]
    #[diagnostic(help("check the range of the data, and that it is scaled as in training"))]
    NotFinite {
        /// The first such node.
        node: String,
        /// The sample.
        sample: usize,
    },
    /// `--int8` needs ranges.
    #[error("int8 needs the ranges of all activations, and there is no calibration data")]
    #[diagnostic(help("add --calibrate DATA.npz with some dozens of typical inputs, or leave out --int8"))]
    NoCalibration,
    /// No weights within the budget.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Search(#[from] search::Error),
    /// A weight that 16 bits cannot hold.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Half(#[from] passes::half::OutOfRange),
    /// A factorised weight that is no chain of layers.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lower(#[from] lower::Error),
    /// An operator that the runtime has no step for.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Legalize(#[from] passes::legalize::Error),
    /// No order of elements.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Layout(#[from] passes::layout::Error),
    /// No integers.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Quantize(#[from] quantize::Error),
    /// No bytes.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Emit(#[from] emit::Error),
    /// `--max-error` holds for the floats, not for the integers.
    #[error("the blob is off by {reached:.4} (relative RMS, held-out samples), more than {wanted}")]
    #[diagnostic(help("rounding adds to the error: allow {reached:.3}, or leave out --int8 or --f16"))]
    TooMuchError {
        /// The limit.
        wanted: f64,
        /// What the blob reaches.
        reached: f64,
    },
    /// The blob is larger than allowed.
    #[error("the blob needs {what}={reached}, more than the budget's {wanted}")]
    #[diagnostic(help("raise --budget {what} to {reached}, or allow more formats (--auto)"))]
    OverBudget {
        /// Key of the budget.
        what: &'static str,
        /// The limit.
        wanted: u64,
        /// What the blob needs.
        reached: u64,
    },
    /// The blob does not do what its graph does: a defect of the converter.
    #[error("the blob is not what was meant: {0}")]
    #[diagnostic(help("this is a defect of the converter; nothing was written"))]
    Broken(String),
}

/// A blob with all that is known about it.
#[derive(Debug)]
pub struct Converted {
    /// The bytes.
    pub blob: Vec<u8>,
    /// What happened.
    pub report: report::Conversion,
    /// The compressed network as ordinary layers, in floating point.
    pub lowered: Graph,
    graph: Graph,
    plan: Plan,
    quantized: Option<Quantized>,
    isa: Isa,
    half_weights: bool,
}

impl Converted {
    /// Text of the Rust module that includes the blob at `path`, which stands in the same folder.
    pub fn module(&self, path: &Path) -> Result<String, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(emit::module(&self.program(), &self.blob, &name)?)
    }

    /// The same network laid out for another core: its weights' order, its memory. The search is not repeated.
    pub fn blob_for(&self, target: Core) -> Result<Vec<u8>, Error> {
        let isa = target.isa();
        let plan = plan::plan_for(&self.graph, self.quantized.as_ref(), isa)?;
        Ok(emit::emit(&emit::Program { plan: &plan, isa, ..self.program() })?)
    }

    /// The integers of an int8 blob; `None` of a float one.
    pub fn quantized(&self) -> Option<&Quantized> {
        self.quantized.as_ref()
    }

    fn program(&self) -> emit::Program<'_> {
        emit::Program {
            graph: &self.graph,
            plan: &self.plan,
            quantized: self.quantized.as_ref(),
            half_weights: self.half_weights,
            labels: &[],
            isa: self.isa,
        }
    }
}

/// Samples that an unseen model is verified on.
const SYNTHETIC: usize = 8;
/// Share of the largest magnitude that an f32 blob may be off the graph that it was emitted from.
const EMITTED_TOLERANCE: f64 = 1e-3;
/// Relative RMS that an integer blob may be off its simulation, which rounds in other places.
const SIMULATED_TOLERANCE: f64 = 0.1;
/// Samples that an integer blob is compared with its simulation on.
const SIMULATED: usize = 32;

/// Converts an imported model.
pub fn convert(
    model: &Graph,
    calibration: Option<&Dataset>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Converted, Error> {
    let start = Instant::now();
    if options.int8 && calibration.is_none() {
        return Err(Error::NoCalibration);
    }
    progress.expect(3);
    progress.step("simplifying");
    let simple = passes::simplify(model);
    let dense = match options.method {
        Method::TensorTrain | Method::Auto => passes::compose::compose(&simple),
        _ => simple.clone(),
    };
    if dense.nodes.is_empty() {
        return Err(Error::Empty);
    }
    let synthetic = synthetic(model);
    let data = calibration.unwrap_or(&synthetic);
    refuse_overflow(&dense, data)?;
    let wanted =
        search::Options { original: Some((simple.parameters(), simple.macs())), ..search_options(options) };
    let outcome = search::search(&dense, calibration, &wanted, progress)?;
    let mut lowered = passes::legalize(&lower::lower(&outcome.graph)?)?;
    let half_weights = options.half_weights && !options.int8;
    if half_weights {
        lowered = passes::half::round_weights(&lowered)?;
    }

    progress.step("quantising and planning");
    // What an error limit is judged on must not be what rounding was fitted to either.
    let parts = calibration.filter(|_| options.max_error.is_some()).map(search::split);
    let fitted = parts.as_ref().map(|(train, _)| train).or(calibration);
    let (mut quantized, mut graph, mut plan) = numbers(&lowered, fitted, options)?;
    let measured = options.rank_bits == RankBits::Measured || options.weight_bits == WeightBits::Measured;
    if measured && options.budget.ram.is_some_and(|ram| plan.arena_bytes > ram) {
        // The search reckoned with 8 bits, which may also replace their inputs.
        let narrow = Options {
            rank_bits: if options.rank_bits == RankBits::Measured {
                RankBits::Eight
            } else {
                options.rank_bits
            },
            weight_bits: match options.weight_bits {
                WeightBits::Measured => WeightBits::Eight,
                given => given,
            },
            ..options.clone()
        };
        (quantized, graph, plan) = numbers(&lowered, fitted, &narrow)?;
    }
    let isa = options.target.isa();
    let mut notes = Vec::new();
    if let Some(quantized) = quantized.as_mut().filter(|_| options.winograd) {
        let chosen = transform::choose(&graph, quantized, options.target, &options.budget)?;
        plan = plan::plan_for(&graph, Some(quantized), isa)?;
        notes.push(chosen.note());
    }
    let program = emit::Program {
        graph: &graph,
        plan: &plan,
        quantized: quantized.as_ref(),
        half_weights,
        labels: &[],
        isa,
    };
    let blob = emit::emit(&program)?;

    progress.step("verifying");
    let mut runner = Runner::new(&blob).map_err(|error| Error::Broken(error.to_string()))?;
    let broken = |error: tucano::Error| Error::Broken(error.to_string());
    let outputs = run_blob(&mut runner, data).map_err(broken)?;
    let reference = evaluate(model, &data.inputs, data.samples, &model.outputs);
    let classes = ClassScores::of(model);
    let resolution = report::resolution(&runner);
    let emitted = match &quantized {
        Some(quantized) => {
            let some = data.slice(0..SIMULATED);
            let simulated = quantize::simulate(quantized, &some.inputs, some.samples);
            let first = outputs.iter().zip(&simulated).map(|(all, some)| all[..some.len()].to_vec());
            Fidelity::of_outputs(&simulated, &first.collect::<Vec<_>>(), classes, resolution)
        }
        None => {
            let expected = evaluate(&graph, &data.inputs, data.samples, &graph.outputs);
            Fidelity::of_outputs(&expected, &outputs, classes, resolution)
        }
    };
    let verify = Fidelity::of_outputs(&reference, &outputs, classes, resolution);
    let as_meant = match options.int8 {
        true => emitted.relative_rms <= SIMULATED_TOLERANCE,
        false => emitted.within(EMITTED_TOLERANCE),
    };
    if !as_meant {
        return Err(Error::Broken(format!(
            "outputs are off by {:.2e} of the largest magnitude",
            emitted.off()
        )));
    }
    if options.method == Method::None && !options.int8 && !half_weights && !verify.within(EMITTED_TOLERANCE) {
        return Err(Error::Broken(format!("simplification moved outputs by {:.2e}", verify.off())));
    }
    let rounded = options.int8 || half_weights;
    if let (true, Some(wanted), Some((_, held_out))) = (rounded, options.max_error, &parts) {
        let expected = evaluate(model, &held_out.inputs, held_out.samples, &model.outputs);
        let outputs = run_blob(&mut runner, held_out).map_err(broken)?;
        let reached = metrics::relative_rms(&expected.concat(), &outputs.concat());
        if !reached.le(&wanted) {
            return Err(Error::TooMuchError { wanted, reached });
        }
    }

    let accuracy = data.labels.as_ref().zip(classes).map(|(labels, scores)| Accuracy {
        before: metrics::accuracy(&reference[0], labels, scores.classes),
        after: metrics::accuracy(&outputs[0], labels, scores.classes),
        samples: data.samples,
    });
    let dense_steps = passes::legalize(&simple)?;
    let before_plan = plan::plan_for(&dense_steps, None, isa)?;
    let program = emit::Program {
        graph: &dense_steps,
        plan: &before_plan,
        quantized: None,
        labels: &[],
        half_weights: false,
        isa,
    };
    let before = Runner::new(&emit::emit(&program)?).map_err(broken)?;
    let instructions = [&before, &runner]
        .map(|runner| plan::cost::instructions(&runner.model(), options.target).unwrap_or_default());
    let total = |steps: &[u64]| (!steps.is_empty()).then(|| steps.iter().sum::<u64>());
    let after = Size {
        parameters: lowered.parameters(),
        weight_bytes: runner.model().blob().constant_bytes() as usize,
        macs: lowered.macs(),
        arena_bytes: plan.arena_bytes,
        blob_bytes: Some(blob.len()),
        instructions: total(&instructions[1]),
    };
    keep_budget(&options.budget, &after)?;
    let float = options.int8.then(|| {
        let outputs = execute::outputs(&lowered, &data.inputs, data.samples);
        Fidelity::of_outputs(&reference, &outputs, classes, 0.0)
    });
    let (dtype, width) = match (options.int8, half_weights) {
        (true, _) => ("int8", 1),
        (_, true) => ("f16", 2),
        _ => ("f32", 4),
    };
    let tradeoff = report::points(&outcome, width, &after, &verify, accuracy.as_ref());
    let mut report = report::Conversion {
        schema: "tucano.convert/1",
        model: model.name.clone(),
        target: options.target.name().to_owned(),
        dtype,
        before: Size {
            parameters: simple.parameters(),
            weight_bytes: 4 * simple.parameters(),
            macs: simple.macs(),
            arena_bytes: before_plan.arena_bytes,
            blob_bytes: None,
            instructions: total(&instructions[0]),
        },
        after,
        accuracy,
        verify,
        emitted,
        samples: Samples {
            count: data.samples,
            source: if calibration.is_some() { "calibration" } else { "synthetic" },
        },
        seconds: start.elapsed().as_secs_f64(),
        layers: layers(&outcome.layers, [&before, &runner], &instructions),
        peak: peak(&graph, &plan),
        peak_before: peak(&dense_steps, &before_plan),
        notes: outcome.notes.into_iter().chain(notes).collect(),
        warnings: Vec::new(),
        loss: outcome.tradeoff.measure.name(),
        tradeoff,
        float,
        command: None,
    };
    report.warnings = report::warnings(&report);
    Ok(Converted { blob, report, lowered, graph, plan, quantized, isa, half_weights })
}

/// The network as it will be stored, and its plan.
fn numbers(
    lowered: &Graph,
    calibration: Option<&Dataset>,
    options: &Options,
) -> Result<(Option<Quantized>, Graph, Plan), Error> {
    let quantized = match options.int8 {
        true => Some(quantize::quantize(lowered, calibration, &quantize_options(options))?),
        false => None,
    };
    let graph = quantized.as_ref().map_or(lowered, |quantized| &quantized.graph).clone();
    let plan = plan::plan_for(&graph, quantized.as_ref(), options.target.isa())?;
    Ok((quantized, graph, plan))
}

fn search_options(options: &Options) -> search::Options {
    search::Options {
        method: options.method,
        int8: options.int8.then_some(Widths { rank: options.rank_bits, weights: options.weight_bits }),
        max_error: options.max_error,
        max_drop: options.max_drop,
        ratio: options.ratio,
        macs_ratio: options.macs_ratio,
        budget: options.budget,
        original: None,
        core: options.target,
    }
}

/// The last word on a budget: the blob's own figures.
fn keep_budget(budget: &Budget, size: &Size) -> Result<(), Error> {
    let bytes = |limit: Option<usize>| limit.map(|limit| limit as u64);
    let limits = [
        ("flash", bytes(budget.flash), size.blob_bytes.map(|bytes| bytes as u64)),
        ("ram", bytes(budget.ram), Some(size.arena_bytes as u64)),
        ("macs", budget.macs, Some(size.macs)),
        ("instructions", budget.instructions, size.instructions),
    ];
    for (what, wanted, reached) in limits {
        if let (Some(wanted), Some(reached)) = (wanted, reached)
            && reached > wanted
        {
            return Err(Error::OverBudget { what, wanted, reached });
        }
    }
    Ok(())
}

fn quantize_options(options: &Options) -> quantize::Options {
    let Options { rank_bits, weight_bits, .. } = *options;
    quantize::Options { rank_bits, weight_bits, fit: true, ..quantize::Options::default() }
}

fn refuse_overflow(graph: &Graph, data: &Dataset) -> Result<(), Error> {
    match first_non_finite(graph, &data.inputs, data.samples) {
        Some(found) => {
            Err(Error::NotFinite { node: graph.nodes[found.node].name.clone(), sample: found.sample })
        }
        None => Ok(()),
    }
}

/// Inputs for a model that nothing is known of: a fixed pseudo-random sequence in -1..1.
fn synthetic(graph: &Graph) -> Dataset {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let inputs = graph.inputs.iter().map(|id| {
        let elements = graph.shape(*id).iter().product::<usize>();
        (0..SYNTHETIC * elements).map(|_| next()).collect()
    });
    Dataset { inputs: inputs.collect(), samples: SYNTHETIC, labels: None }
}

/// Bytes and instructions of a layer are those of its steps in the blob: steps are named after the layer. The runners are of the dense f32
/// network and of the blob.
fn layers(found: &[search::LayerReport], runners: [&Runner; 2], instructions: &[Vec<u64>; 2]) -> Vec<Layer> {
    let [before, after] = runners.map(Runner::model);
    // `lower` names the stages of a factorised layer `layer/format_k`, the last one like the layer.
    let of_layer = |layer: &search::LayerReport, step: &tucano::Step<'_>| {
        let stage = step.name().unwrap_or_default().strip_prefix(layer.name.as_str());
        let number =
            stage.and_then(|rest| rest.strip_prefix('/')?.strip_prefix(&*layer.format)?.strip_prefix('_'));
        stage == Some("") || number.is_some_and(|k| k.parse::<usize>().is_ok())
    };
    let bytes = |step: tucano::Step<'_>| -> usize {
        let (_, _, weights) = step.counts();
        (0..weights).filter_map(|k| step.weight(k)).map(|w| w.elements as usize * w.dtype.bytes()).sum()
    };
    let constants = |layer: &search::LayerReport| -> usize {
        after.steps().filter(|step| of_layer(layer, step)).map(bytes).sum()
    };
    let price = |layer: &search::LayerReport| {
        let sum = |k: usize| -> u64 {
            let steps = [&before, &after][k].steps().zip(&instructions[k]);
            steps.filter(|(step, _)| of_layer(layer, step)).map(|(_, price)| price).sum()
        };
        instructions.iter().all(|steps| !steps.is_empty()).then(|| [sum(0), sum(1)])
    };
    found
        .iter()
        .map(|layer| Layer {
            name: layer.name.clone(),
            op: layer.op.to_string(),
            format: layer.format.to_string(),
            ranks: layer.ranks.clone(),
            error: layer.error,
            weight_bytes: [4 * layer.parameters[0], constants(layer)],
            macs: layer.macs,
            instructions: price(layer),
            reason: layer.reason.clone(),
            output_rank: layer.output_rank,
            spectrum: layer.spectrum.clone(),
        })
        .collect()
}

fn peak(graph: &Graph, plan: &Plan) -> Peak {
    let holder = |(holder, bytes): &(plan::Holder, usize)| {
        let name = match holder {
            plan::Holder::Value(id) => graph.value(*id).name.clone(),
            plan::Holder::Scratch => "scratch".to_owned(),
        };
        Holder { name, bytes: *bytes }
    };
    Peak { step: plan.peak.step.clone(), live: plan.peak.live.iter().map(holder).collect() }
}
