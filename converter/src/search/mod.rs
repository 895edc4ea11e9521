//! Chooses formats and ranks under a budget.
//!
//! Takes a simplified float graph, calibration samples if there are any, a method and a budget; gives the graph with networks as weights, and for each
//! layer why. It loops over pure functions and never emits:
//!
//! 1. [`sensitivity`]: candidates of each layer, and the network's loss if only that layer is replaced;
//! 2. [`allocate`]: one candidate a layer, so that the budget is spent where it hurts least;
//! 3. [`refit`]: layer by layer, each fitted to what the already compressed network feeds it.
//!
//! Budgets on parameters and MACs are exact and both hold if both are given. A limit on the output's error, and the default, are judged on a fifth of
//! the calibration samples that no fit has seen. Without calibration samples, weights alone decide: nothing is then known about the
//! outputs. Refused: budgets that cannot be met (with the nearest figure that can), an error limit without calibration, data that is not finite.

pub mod allocate;
pub mod candidates;
mod explain;
pub mod loss;
pub mod refit;
pub mod sensitivity;

use crate::calibrate::Dataset;
use crate::compress::{self, Choice};
use crate::evaluate::{evaluate, metrics};
use crate::graph::{Graph, Weight};
use crate::linalg::Matrix;

use allocate::{Limits, Row};
pub use explain::LayerReport;
use explain::report;
use loss::Loss;
use sensitivity::Sensitivity;

/// Which formats may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// All layers stay as they are.
    #[default]
    None,
    /// Low rank for dense layers and 1x1 convolutions.
    LowRank,
    /// Tucker-2 for larger convolutions, low rank for the others.
    Tucker,
}

/// What to search for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// Allowed formats.
    pub method: Method,
    /// Largest relative RMS error of the network's output, on calibration samples that no fit has seen.
    pub max_error: Option<f64>,
    /// How many times fewer parameters, at least.
    pub ratio: Option<f64>,
    /// How many times fewer MACs, at least.
    pub macs_ratio: Option<f64>,
}

/// Told about the search as it goes on.
pub trait Progress {
    /// `steps` more [`Progress::step`] calls will come.
    fn expect(&self, steps: usize);
    /// A step begins.
    fn step(&self, message: &str);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn expect(&self, _: usize) {}
    fn step(&self, _: &str) {}
}

/// What became of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The same nodes; weights swapped for networks or refitted.
    pub graph: Graph,
    /// One entry for each linear layer, in the graph's order.
    pub layers: Vec<LayerReport>,
    /// What the user should know: what was measured, or what is unknown.
    pub notes: Vec<String>,
}

/// Why a search gives nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// An option is out of range.
    #[error("{option} must be {wanted}, got {value}")]
    Option {
        /// The flag.
        option: &'static str,
        /// What it may be.
        wanted: &'static str,
        /// What it is.
        value: f64,
    },
    /// An error limit needs data.
    #[error(
        "a limit on the output's error cannot be judged on {samples} calibration samples, only on {FEWEST_JUDGED} or more"
    )]
    #[diagnostic(help(
        "give more samples with --calibrate DATA.npz, or a size with --ratio or --macs-ratio"
    ))]
    NeedsCalibration {
        /// Samples given.
        samples: usize,
    },
    /// The samples do not fit the graph.
    #[error(
        "calibration data holds {found} numbers for graph input `{input}`, but {samples} samples need {wanted}"
    )]
    Samples {
        /// Name of the input.
        input: String,
        /// Numbers given.
        found: usize,
        /// Samples claimed.
        samples: usize,
        /// Numbers needed.
        wanted: usize,
    },
    /// No assignment of ranks is small enough.
    #[error("{wanted}x fewer {what} cannot be reached with this method: at most {reachable:.2}x")]
    #[diagnostic(help("ask for no more than that, or allow more formats"))]
    Budget {
        /// `parameters` or `MACs`.
        what: &'static str,
        /// The ratio asked for.
        wanted: f64,
        /// The largest possible.
        reachable: f64,
    },
    /// Each budget can be met, but not both at once.
    #[error(
        "{ratio}x fewer parameters and {macs_ratio}x fewer MACs cannot be reached together with this method"
    )]
    #[diagnostic(help("relax one of the two"))]
    Together {
        /// Parameters.
        ratio: f64,
        /// MACs.
        macs_ratio: f64,
    },
    /// The size is reached only with more error than allowed.
    #[error("the size asked for costs a relative output error of {reached:.4}, above the limit of {wanted}")]
    #[diagnostic(help("raise --max-error, or lower --ratio and --macs-ratio"))]
    TooMuchError {
        /// The limit.
        wanted: f64,
        /// Measured on held-out samples.
        reached: f64,
    },
    /// One layer cannot be fitted.
    #[error("node `{node}` ({op}) cannot be compressed: {reason}")]
    #[diagnostic(help("check weights and calibration data for huge or non-finite numbers"))]
    Fit {
        /// The layer.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Samples that a judgement of the result needs: a fifth of fewer says nothing.
const FEWEST_JUDGED: usize = 20;
/// Of five samples, one is held out where the result is judged by its error.
const HELD_OUT: usize = 5;
/// Trials of the error limit and of the default.
const TRIALS: usize = 5;
/// The default keeps at least this share of decisions ...
const SAFE_AGREEMENT: f64 = 0.99;
/// ... and at most this divergence from the dense network (nats), for classifiers.
const SAFE_DIVERGENCE: f64 = 0.005;
/// The default's relative RMS output error for networks that are no classifiers.
const SAFE_ERROR: f64 = 0.02;
/// The default's relative error of each layer's weight without calibration data.
const SAFE_WEIGHT_ERROR: f64 = 0.02;

/// Compresses `graph` as `options` ask.
///
/// Without a budget the result is the smallest network (mean of its MACs and parameters, relative to dense) that is safe: on held-out calibration samples at least
/// 99 % of the decisions and at most 0.005 nats of divergence for classifiers, at most 2 % relative RMS error for others; without
/// calibration (or with fewer than 20 samples) at most 2 % relative error of each layer's weight.
pub fn search(
    graph: &Graph,
    calibration: Option<&Dataset>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    check(graph, calibration, options)?;
    if options.method == Method::None {
        let layers = report(graph, graph, &[], &[], "compression was not asked for");
        return Ok(Outcome { graph: graph.clone(), layers, notes: Vec::new() });
    }
    let sized = options.ratio.is_some() || options.macs_ratio.is_some();
    let fewest = if sized { 1 } else { FEWEST_JUDGED };
    match calibration.filter(|data| data.samples >= fewest) {
        Some(data) => with_data(graph, data, options, progress),
        None => without_data(graph, calibration.map_or(0, |data| data.samples), options, progress),
    }
}

fn check(graph: &Graph, calibration: Option<&Dataset>, options: &Options) -> Result<(), Error> {
    for (option, value) in [("--ratio", options.ratio), ("--macs-ratio", options.macs_ratio)] {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 1.0)) {
            return Err(Error::Option { option, wanted: "a number of at least 1", value });
        }
    }
    if let Some(value) = options.max_error {
        if !(value.is_finite() && value > 0.0) {
            return Err(Error::Option { option: "--max-error", wanted: "a number above 0", value });
        }
        let samples = calibration.map_or(0, |data| data.samples);
        if samples < FEWEST_JUDGED {
            return Err(Error::NeedsCalibration { samples });
        }
    }
    let Some(data) = calibration else { return Ok(()) };
    for (index, id) in graph.inputs.iter().enumerate() {
        let wanted = data.samples * graph.shape(*id).iter().product::<usize>();
        let found = data.inputs.get(index).map_or(0, Vec::len);
        if found != wanted {
            let input = graph.value(*id).name.clone();
            return Err(Error::Samples { input, found, samples: data.samples, wanted });
        }
    }
    Ok(())
}

fn with_data(
    graph: &Graph,
    data: &Dataset,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let sized = options.ratio.is_some() || options.macs_ratio.is_some();
    let loss = if options.max_error.is_some() { Loss::Squares } else { Loss::of(graph) };
    let layer_count = sensitivity::linear_layers(graph).count();
    let judged = !sized || options.max_error.is_some();
    let trials = if sized { 1 } else { TRIALS };
    progress.expect(layer_count * (1 + trials));
    let (train, held) = if judged { split(data) } else { (data.clone(), Dataset::default()) };
    let found = sensitivity::measured(graph, options.method, loss, &train.inputs, train.samples, progress)?;
    let rows = rows(graph, &found);
    let mut notes = Vec::new();
    let mut trusted = refit::Trusted::new();
    let mut compress = |plan: &[usize]| {
        let choices = choices(graph, &found, plan);
        refit::refit(graph, &choices, &train.inputs, train.samples, &mut trusted, progress)
    };
    if sized {
        let plan = size_plan(graph, &rows, options)?;
        let (result, errors) = compress(&plan)?;
        if let Some(limit) = options.max_error {
            let reached = Judgement::of(graph, &result, loss, &held)?.error;
            notes.push(format!("relative output error {reached:.4} on {} held-out samples", held.samples));
            // Not `reached > limit`: NaN is no success.
            if !reached.le(&limit) {
                return Err(Error::TooMuchError { wanted: limit, reached });
            }
        }
        let layers = report(graph, &result, &found, &errors, "the budget is met without it");
        return Ok(Outcome { graph: result, layers, notes });
    }

    // The sum of losses predicts the network's loss; where the prediction is off, its ratio corrects the next trial.
    let limit = match (options.max_error, loss) {
        (Some(error), _) => error * error,
        (None, Loss::Divergence { .. }) => SAFE_DIVERGENCE,
        (None, Loss::Squares) => SAFE_ERROR * SAFE_ERROR,
    };
    let decisions = options.max_error.is_none() && matches!(loss, Loss::Divergence { .. });
    let (mut low, mut high, mut budget) = (0.0, f64::INFINITY, limit);
    let mut best: Option<(f64, Graph, Vec<Option<f64>>, Judgement)> = None;
    let mut last_plan = Vec::new();
    for _ in 0..TRIALS {
        let open = Limits { macs: f64::INFINITY, parameters: f64::INFINITY, loss: budget };
        let plan = allocate::least_cost(&rows, open).unwrap_or_else(|| vec![0; rows.len()]);
        if plan == last_plan {
            break;
        }
        last_plan.clone_from(&plan);
        let sum = allocate::total(&rows, &plan);
        let cost = sum.macs + sum.parameters;
        let (result, errors) = compress(&plan)?;
        let judgement = Judgement::of(graph, &result, loss, &held)?;
        let safe = judgement.loss <= limit && (!decisions || judgement.agreement >= SAFE_AGREEMENT);
        let corrected = budget * (limit / judgement.loss.max(limit * 1e-3)).clamp(0.05, 20.0) * 0.95;
        if safe {
            low = budget;
            if best.as_ref().is_none_or(|best| cost < best.0) {
                best = Some((cost, result, errors, judgement));
            }
        } else {
            high = budget;
        }
        budget = if corrected > low && corrected < high {
            corrected
        } else if high.is_finite() {
            (low * high).sqrt().max(high * 0.2)
        } else {
            low * 2.0
        };
    }
    let (_, result, errors, judgement) = match best {
        Some(best) => best,
        None => (
            0.0,
            graph.clone(),
            vec![None; graph.nodes.len()],
            Judgement { loss: 0.0, error: 0.0, agreement: 1.0 },
        ),
    };
    notes.push(judgement.words(loss, held.samples));
    let layers = report(
        graph,
        &result,
        &found,
        &errors,
        "factorising it gains too little for what it costs in accuracy",
    );
    Ok(Outcome { graph: result, layers, notes })
}

fn without_data(
    graph: &Graph,
    samples: usize,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    progress.expect(sensitivity::linear_layers(graph).count());
    let found = sensitivity::by_weight(graph, options.method, progress)?;
    let mut rows = rows(graph, &found);
    let sized = options.ratio.is_some() || options.macs_ratio.is_some();
    let plan = if sized {
        size_plan(graph, &rows, options)?
    } else {
        // Each layer on its own: its cheapest candidate within the limit.
        for layer in &mut rows {
            layer
                .iter_mut()
                .filter(|row| row.loss > SAFE_WEIGHT_ERROR.powi(2))
                .for_each(|row| row.loss = f64::MAX);
        }
        let open = Limits { macs: f64::INFINITY, parameters: f64::INFINITY, loss: 1e9 };
        allocate::least_cost(&rows, open).unwrap_or_else(|| vec![0; rows.len()])
    };
    let mut result = graph.clone();
    let mut errors = vec![None; graph.nodes.len()];
    for (layer, index) in found.iter().zip(&plan) {
        let candidate = &layer.candidates[*index];
        let node = &mut result.nodes[layer.node];
        let (name, op) = (node.name.clone(), node.op.name());
        let (Some(tensor), false) = (node.op.dense_weight(), candidate.choice == Choice::Dense) else {
            continue;
        };
        let (matrix, shape) = (compress::to_matrix(tensor), tensor.shape.clone());
        let plain = Matrix::identity(matrix.ncols(), matrix.ncols());
        let target = compress::Target { shape: &shape, matrix: &matrix, covariance: &plain };
        let weight = compress::build(candidate.choice, target).map_err(|error| Error::Fit {
            node: name,
            op,
            reason: error.to_string(),
        })?;
        let bias: Vec<f32> = refit::bias(&node.op, shape[0]).iter().map(|b| *b as f32).collect();
        refit::set(&mut node.op, weight, &bias);
        errors[layer.node] = Some(candidate.error);
    }
    let layers = report(graph, &result, &found, &errors, "its weight has no spare rank");
    let given = match samples {
        0 => "without calibration data".into(),
        few => format!(
            "{few} calibration samples are too few to judge the result by (give {FEWEST_JUDGED} or more)"
        ),
    };
    let notes = vec![format!(
        "{given}: the effect on outputs is unknown, errors are those of the weights; give samples with --calibrate DATA.npz"
    )];
    Ok(Outcome { graph: result, layers, notes })
}

/// The samples to fit, and every fifth, held out to judge.
pub fn split(data: &Dataset) -> (Dataset, Dataset) {
    let pick = |wanted: fn(usize) -> bool| {
        let members: Vec<usize> = (0..data.samples).filter(|sample| wanted(*sample)).collect();
        let part = |values: &Vec<f32>| {
            let len = values.len() / data.samples;
            members
                .iter()
                .flat_map(|sample| values[sample * len..(sample + 1) * len].iter().copied())
                .collect()
        };
        let inputs = data.inputs.iter().map(part).collect();
        Dataset { inputs, samples: members.len(), labels: None }
    };
    (pick(|sample| sample % HELD_OUT != HELD_OUT - 1), pick(|sample| sample % HELD_OUT == HELD_OUT - 1))
}

/// A compressed network against the dense one on held-out samples.
struct Judgement {
    loss: f64,
    error: f64,
    agreement: f64,
}

impl Judgement {
    fn of(graph: &Graph, compressed: &Graph, loss: Loss, held: &Dataset) -> Result<Self, Error> {
        let mut expanded = compressed.clone();
        for node in &mut expanded.nodes {
            if let Some(weight @ Weight::Network(_)) = node.op.weight() {
                let dense = compress::dense(weight).map_err(|error| Error::Fit {
                    node: node.name.clone(),
                    op: node.op.name(),
                    reason: error.to_string(),
                })?;
                let bias: Vec<f32> =
                    refit::bias(&node.op, dense.shape[0]).iter().map(|b| *b as f32).collect();
                refit::set(&mut node.op, Weight::Dense(dense), &bias);
            }
        }
        let run = |graph: &Graph| evaluate(graph, &held.inputs, held.samples, &graph.outputs);
        let (reference, outputs) = (run(graph), run(&expanded));
        let classes = (reference[0].len() / held.samples.max(1)).max(1);
        Ok(Self {
            loss: loss.measure(&reference, &outputs, held.samples),
            error: loss::relative_square(&reference, &outputs).sqrt(),
            agreement: metrics::agreement(&reference[0], &outputs[0], classes),
        })
    }

    fn words(&self, loss: Loss, samples: usize) -> String {
        let mut words = format!("relative output error {:.4}", self.error);
        if matches!(loss, Loss::Divergence { .. }) {
            words +=
                &format!(", divergence {:.4}, {:.1} % of decisions kept", self.loss, self.agreement * 100.0);
        }
        words + &format!(" on {samples} held-out samples")
    }
}

/// Candidates as shares of the dense network.
fn rows(graph: &Graph, found: &[Sensitivity]) -> Vec<Vec<Row>> {
    let (macs, parameters) = (graph.macs().max(1) as f64, graph.parameters().max(1) as f64);
    let layer = |layer: &Sensitivity| {
        let rows = layer.candidates.iter().zip(&layer.losses).map(|(candidate, loss)| Row {
            macs: candidate.macs as f64 / macs,
            parameters: candidate.weights as f64 / parameters,
            loss: *loss,
        });
        rows.collect()
    };
    found.iter().map(layer).collect()
}

/// The plan of least loss that meets the size options.
fn size_plan(graph: &Graph, rows: &[Vec<Row>], options: &Options) -> Result<Vec<usize>, Error> {
    // What is no candidate's cost: layers that are factorised already, biases, and biases that fits may add.
    let dense = allocate::total(rows, &vec![0; rows.len()]);
    let added: usize = sensitivity::linear_layers(graph).map(|index| refit::missing_bias(graph, index)).sum();
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let (macs, parameters) = (graph.macs() as f64, graph.parameters() as f64);
    let fixed_macs = share(macs, macs) - dense.macs;
    let fixed_parameters = share(parameters + added as f64, parameters) - dense.parameters;
    let least = |cost: fn(&Row) -> f64| -> f64 {
        rows.iter().map(|layer| layer.iter().map(cost).fold(f64::INFINITY, f64::min)).sum()
    };
    // A hair of slack for shares that were added up in floating point.
    const SLACK: f64 = 1e-12;
    let limit = |what, wanted: Option<f64>, least: f64, fixed: f64| match wanted {
        None => Ok(f64::INFINITY),
        Some(wanted) if least + fixed <= 1.0 / wanted + SLACK => Ok(1.0 / wanted - fixed + SLACK),
        Some(wanted) => Err(Error::Budget { what, wanted, reachable: 1.0 / (least + fixed) }),
    };
    let limits = Limits {
        macs: limit("MACs", options.macs_ratio, least(|row| row.macs), fixed_macs)?,
        parameters: limit("parameters", options.ratio, least(|row| row.parameters), fixed_parameters)?,
        loss: f64::INFINITY,
    };
    allocate::least_loss(rows, limits).ok_or(Error::Together {
        ratio: options.ratio.unwrap_or(1.0),
        macs_ratio: options.macs_ratio.unwrap_or(1.0),
    })
}

fn choices(graph: &Graph, found: &[Sensitivity], plan: &[usize]) -> Vec<Option<Choice>> {
    let mut choices = vec![None; graph.nodes.len()];
    for (layer, index) in found.iter().zip(plan) {
        choices[layer.node] = Some(layer.candidates[*index].choice);
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::refit::tests::{images, network};
    use super::*;

    fn data(samples: usize) -> Dataset {
        Dataset { inputs: images(samples, 1), samples, labels: None }
    }

    const TUCKER: Options =
        Options { method: Method::Tucker, max_error: None, ratio: None, macs_ratio: None };

    #[test]
    fn budgets_hold_with_and_without_calibration() {
        let (graph, data) = (network(), data(60));
        for calibration in [Some(&data), None] {
            for (ratio, macs_ratio) in [(Some(1.5), None), (None, Some(1.3)), (Some(1.4), Some(1.2))] {
                let options = Options { ratio, macs_ratio, ..TUCKER };
                let outcome = search(&graph, calibration, &options, &Silent).unwrap();
                outcome.graph.check().unwrap();
                let shrunk = [
                    graph.parameters() as f64 / outcome.graph.parameters() as f64,
                    graph.macs() as f64 / outcome.graph.macs() as f64,
                ];
                assert!(
                    shrunk[0] >= ratio.unwrap_or(1.0) && shrunk[1] >= macs_ratio.unwrap_or(1.0),
                    "{shrunk:?}"
                );
                assert_eq!(outcome.layers.len(), 3);
                let sums = outcome
                    .layers
                    .iter()
                    .fold([0; 2], |[a, b], layer| [a + layer.parameters[0], b + layer.parameters[1]]);
                assert_eq!(sums, [graph.parameters(), outcome.graph.parameters()]);
                assert_eq!(outcome, search(&graph, calibration, &options, &Silent).unwrap());
            }
        }
    }

    #[test]
    fn error_limit_holds_and_smaller_limits_compress_less() {
        let (graph, data) = (network(), data(80));
        let run = |limit| {
            let options = Options { max_error: Some(limit), ..TUCKER };
            let outcome = search(&graph, Some(&data), &options, &Silent).unwrap();
            let (_, held) = split(&data);
            let judgement = Judgement::of(&graph, &outcome.graph, Loss::Squares, &held).unwrap();
            assert!(judgement.error <= limit, "{} > {limit}", judgement.error);
            outcome.graph.parameters()
        };
        let (loose, tight) = (run(0.5), run(1e-6));
        assert!(loose < tight);
        assert_eq!(tight, graph.parameters());
    }

    #[test]
    fn what_cannot_be_met_is_an_error_with_the_nearest_figure() {
        let (graph, data) = (network(), data(20));
        let run = |options| search(&graph, Some(&data), &options, &Silent).unwrap_err();
        let Error::Budget { reachable, .. } = run(Options { ratio: Some(1e6), ..TUCKER }) else { panic!() };
        assert!(reachable > 1.0 && reachable < 1e6);
        let most = Options { ratio: Some(reachable * 0.999_999), ..TUCKER };
        assert!(search(&graph, Some(&data), &most, &Silent).is_ok());
        assert!(matches!(run(Options { ratio: Some(f64::NAN), ..TUCKER }), Error::Option { .. }));
        assert!(matches!(
            run(Options { ratio: Some(2.0), max_error: Some(1e-6), ..TUCKER }),
            Error::TooMuchError { .. }
        ));
        let limit = Options { max_error: Some(0.1), ..TUCKER };
        assert_eq!(
            search(&graph, None, &limit, &Silent).unwrap_err(),
            Error::NeedsCalibration { samples: 0 }
        );
        let short = Dataset { samples: 21, ..data.clone() };
        assert!(matches!(search(&graph, Some(&short), &TUCKER, &Silent), Err(Error::Samples { .. })));
        let mut broken = data.clone();
        broken.inputs[0][3] = f32::NAN;
        assert!(matches!(search(&graph, Some(&broken), &TUCKER, &Silent), Err(Error::Fit { .. })));
    }

    #[test]
    fn nothing_asked_and_too_few_samples_are_answered() {
        let graph = network();
        let outcome = search(&graph, None, &Options::default(), &Silent).unwrap();
        assert_eq!(outcome.graph, graph);
        let one = data(1);
        let outcome = search(&graph, Some(&one), &TUCKER, &Silent).unwrap();
        assert!(outcome.notes[0].contains("too few"));
        assert!(outcome.layers.iter().all(|layer| !layer.reason.is_empty()));
        assert_eq!(outcome.graph, search(&graph, None, &TUCKER, &Silent).unwrap().graph);
        let limit = Options { max_error: Some(0.5), ..TUCKER };
        assert_eq!(search(&graph, Some(&one), &limit, &Silent), Err(Error::NeedsCalibration { samples: 1 }));
        let half = Options { ratio: Some(1.5), ..TUCKER };
        let outcome = search(&graph, Some(&one), &half, &Silent).unwrap();
        let numbers = outcome.graph.nodes.iter().filter_map(|node| node.op.weight()).map(compress::dense);
        assert!(numbers.flat_map(|dense| dense.unwrap().data).all(|x| x.is_finite()));
    }
}
