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
mod budget;
pub mod candidates;
pub mod drop;
mod error;
mod explain;
pub mod fisher;
pub mod formats;
mod judgement;
pub mod loss;
mod options;
pub mod packing;
mod prices;
pub mod prune;
pub mod refit;
pub mod sensitivity;
pub mod stages;
pub mod strategy;
mod structure;
pub mod tradeoff;

use crate::calibrate::Dataset;
use crate::graph::Graph;
use crate::quantize;

use allocate::{Cost, Costs, Limits};
pub use budget::Budget;
pub use error::Error;
pub use explain::LayerReport;
use explain::report;
use formats::Formats;
pub use judgement::split;
use judgement::{FEWEST_JUDGED, Fold, Judge, Judgement};
use loss::Loss;
pub use options::{Method, Options, Progress, Silent};
pub use prices::Prices;
use prices::Wish;
use prune::Pruner;
use strategy::{Chosen, Strategy};
use tradeoff::{Measure, Point, Tradeoff};

/// What became of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The same nodes; weights swapped for networks or refitted.
    pub graph: Graph,
    /// One entry for each linear layer, in the graph's order.
    pub layers: Vec<LayerReport>,
    /// What the user should know: what was measured, or what is unknown.
    pub notes: Vec<String>,
    /// What each size costs.
    pub tradeoff: Tradeoff,
}

/// A hair of slack for shares that were added up in floating point.
const SLACK: f64 = 1e-12;
/// The default changes at most this share of decisions (rounded up to whole samples) ...
const MOST_CHANGED: f64 = 0.01;
/// ... and adds at most this divergence (nats) to that of the dense network in the same precision, for classifiers.
const SAFE_DIVERGENCE: f64 = 0.005;
/// Divergence at which the search for a drop of one point begins.
const NATS_A_POINT: f64 = 0.01;
/// What one share of each cost is worth to the default.
const WORTH: Costs = [0.0, 0.0, 0.5, 0.5, 0.0];
/// The default's relative RMS output error for networks that are no classifiers.
const SAFE_ERROR: f64 = 0.02;
/// The default's relative error of each layer's weight without calibration data.
const SAFE_WEIGHT_ERROR: f64 = 0.02;

/// Compresses `graph` as `options` ask.
///
/// Without a budget the result is the cheapest network (mean of its bytes of flash and modelled instructions, relative to dense) that is safe: on held-out calibration samples at least
/// 99 % of the decisions and at most 0.005 nats of divergence more than rounding alone for classifiers, 2 % relative RMS error for others; without
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
        return Ok(Outcome {
            graph: graph.clone(),
            layers,
            notes: Vec::new(),
            tradeoff: Tradeoff::default(),
        });
    }
    structure::check(graph, options.method)?;
    if structure::suffices(options) {
        return structure::exact(graph, options.method, progress);
    }
    let fewest = if options.is_sized() || options.max_drop.is_some() { 1 } else { FEWEST_JUDGED };
    match calibration.filter(|data| data.samples >= fewest) {
        Some(data) => with_data(graph, data, options, progress),
        None if options.method == Method::Prune => {
            Err(Error::Blind { samples: calibration.map_or(0, |data| data.samples) })
        }
        None => without_data(graph, calibration.map_or(0, |data| data.samples), options, progress),
    }
}

fn check(graph: &Graph, calibration: Option<&Dataset>, options: &Options) -> Result<(), Error> {
    for (option, value) in [("--ratio", options.ratio), ("--macs-ratio", options.macs_ratio)] {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 1.0)) {
            return Err(Error::Option { option, wanted: "a number of at least 1", value });
        }
    }
    if let Some(points) = options.max_drop {
        drop::check(graph, calibration, points)?;
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
    let prices = Prices::of(graph, options)?;
    let sized = options.is_sized();
    let loss = if options.max_error.is_some() { Loss::Squares } else { Loss::of(graph) };
    let judged = !sized || options.max_error.is_some() || options.method == Method::Auto;
    // Folds judge a drop: nothing else is held out.
    let parts = match judged && options.max_drop.is_none() && data.samples >= FEWEST_JUDGED {
        true if sized => judgement::splits(data),
        true => vec![split(data)],
        false => vec![(data.clone(), Dataset::default())],
    };
    let int8 = options
        .int8
        .map(|widths| quantize::Options { rank_bits: widths.planned_rank(), ..Default::default() });
    let folds: Vec<Fold<'_>> = parts
        .iter()
        .map(|(train, held)| Fold { train, judge: Judge::new(graph, train, held, loss, int8.clone()) })
        .collect();
    // Candidates are measured on the samples of the first fold.
    let Fold { train, judge } = &folds[0];
    let stayed = match sized {
        true => "the budget is met without it",
        false => "factorising it gains too little for what it costs in accuracy",
    };
    let mut strategies: Vec<Box<dyn Strategy + '_>> = Vec::new();
    if options.method != Method::Prune {
        let formats = Formats::measured(graph, options.method, loss, train, &prices, stayed, progress)?;
        strategies.push(Box::new(formats));
    }
    if options.method.allows(Method::Prune) {
        strategies.push(Box::new(Pruner::new(graph, train, loss, &prices, progress)?));
    }
    let mut tradeoff = Tradeoff { measure: loss.into(), points: strategies[0].predicted() };
    if let Some(points) = options.max_drop {
        return within_drop(graph, data, points, &mut strategies, tradeoff, int8.as_ref(), progress);
    }
    let (chosen, judged) = if sized {
        // What is judged by an error limit must not have been fitted to the judging samples.
        let all = if options.max_error.is_some() { train } else { data };
        strategy::sized(graph, &mut strategies, limits(&prices), &prices, &folds, all, progress)?
    } else {
        // What rounding alone does.
        let untouched = judge.of(graph)?;
        tradeoff.points.push(Point::judged(graph, untouched));
        let limit = match options.max_error {
            Some(error) => error * error,
            None => untouched.loss + judge.safe(),
        };
        let decisions = options.max_error.is_none() && matches!(loss, Loss::Divergence { .. });
        let holds = |judgement: &Judgement| {
            // The loss of integers is a mean over all samples; the limit is one on those held out.
            let within = options.max_error.is_none_or(|error| judgement.error <= error);
            let changed = (1.0 - judgement.agreement) * judgement.samples as f64;
            let few = !decisions || changed <= (MOST_CHANGED * judgement.samples as f64).ceil() + 0.5;
            within && judgement.loss <= limit && few
        };
        match strategy::cheapest(&mut strategies, WORTH, limit, &holds, judge, train, progress)? {
            (Some(chosen), judged) => (chosen, judged),
            (None, judged) => {
                let plan = strategies[0].untouched();
                let shrunk = strategies[0].fit(&plan, train, progress)?;
                (Chosen { shrunk, judgement: Some(untouched) }, judged)
            }
        }
    };
    tradeoff.points.extend(&judged);
    let judgement = match (options.max_error, chosen.judgement) {
        (Some(_), None) => Some(judge.of(&chosen.shrunk.graph)?),
        (_, judgement) => judgement,
    };
    if let (Some(wanted), Some(judgement)) = (options.max_error, judgement) {
        // Not `error > limit`: NaN is no success.
        if !judgement.error.le(&wanted) {
            return Err(Error::TooMuchError { wanted, reached: judgement.error });
        }
    }
    let notes = judgement.map(|judgement| judgement.words(loss)).into_iter().collect();
    Ok(Outcome { graph: chosen.shrunk.graph, layers: chosen.shrunk.layers, notes, tradeoff })
}

/// The cheapest network whose accuracy drops by no more than `points`.
fn within_drop(
    graph: &Graph,
    data: &Dataset,
    points: f64,
    strategies: &mut [Box<dyn Strategy + '_>],
    tradeoff: Tradeoff,
    int8: Option<&quantize::Options>,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let scores = drop::check(graph, Some(data), points)?;
    let mut words = String::new();
    let mut holds = |strategy: &mut dyn Strategy, plan: &[usize]| {
        let run = |train: &Dataset, judged: &Dataset| {
            let shrunk = strategy.fit(plan, train, progress)?;
            let outputs = judgement::outputs(&shrunk.graph, train, judged, int8)?;
            Ok(outputs.into_iter().next().unwrap_or_default())
        };
        let drop = drop::cross_judged(graph, data, scores, run)?;
        if drop.holds(points) {
            words = drop.words();
        }
        Ok(drop.holds(points))
    };
    let start = NATS_A_POINT * points;
    let found = strategy::cheapest_that(strategies, WORTH, start, &mut holds, data, progress)?;
    let shrunk = match found {
        Some(shrunk) => shrunk,
        None => {
            words = format!(
                "no smaller network was found whose accuracy certainly drops by {points} points or less"
            );
            let plan = strategies[0].untouched();
            strategies[0].fit(&plan, data, progress)?
        }
    };
    Ok(Outcome { graph: shrunk.graph, layers: shrunk.layers, notes: vec![words], tradeoff })
}

/// What every network must keep.
fn limits(prices: &Prices) -> Limits {
    let tightest = |limits: Limits, (cost, times): (Cost, f64)| {
        limits.with(cost, limits.costs[cost as usize].min(1.0 / times + SLACK))
    };
    prices.asked().into_iter().fold(Limits::OPEN, tightest)
}

fn without_data(
    graph: &Graph,
    samples: usize,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let prices = Prices::of(graph, options)?;
    let mut formats = Formats::by_weight(graph, options.method, &prices, progress)?;
    let tradeoff = Tradeoff { measure: Measure::Weights, points: formats.predicted() };
    let plan = match options.is_sized() {
        true => [true, false]
            .into_iter()
            .find_map(|dense_arena| formats.least_loss(Wish { limits: limits(&prices), dense_arena }))
            .ok_or_else(|| strategy::unreachable(graph, &[&formats], &prices))?,
        false => formats.each_within(WORTH, SAFE_WEIGHT_ERROR.powi(2)),
    };
    let shrunk = formats.fit(&plan, &Dataset::default(), progress)?;
    let given = match samples {
        0 => "without calibration data".into(),
        few => format!(
            "{few} calibration samples are too few to judge the result by (give {FEWEST_JUDGED} or more)"
        ),
    };
    let notes = vec![format!(
        "{given}: the effect on outputs is unknown, errors are those of the weights; give samples with --calibrate DATA.npz"
    )];
    Ok(Outcome { graph: shrunk.graph, layers: shrunk.layers, notes, tradeoff })
}

#[cfg(test)]
mod tests {
    use super::refit::tests::{images, network};
    use super::*;
    use crate::compress;
    use crate::plan::memory::arena_bytes_of;
    use tucano::backend::spec::select::Isa;

    fn data(samples: usize) -> Dataset {
        Dataset { inputs: images(samples, 1), samples, labels: None }
    }

    const TUCKER: Options = Options::of(Method::Tucker);

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
            let (train, held) = split(&data);
            let judge = Judge::new(&graph, &train, &held, Loss::Squares, None);
            let judgement = judge.of(&outcome.graph).unwrap();
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

    /// Steps that were announced, less those that came.
    #[derive(Default)]
    struct Left(std::sync::atomic::AtomicIsize);

    impl Progress for Left {
        fn expect(&self, steps: usize) {
            self.0.fetch_add(steps as isize, std::sync::atomic::Ordering::Relaxed);
        }

        fn step(&self, _: &str) {
            self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn progress_ends_where_it_was_announced() {
        let (graph, data) = (network(), data(60));
        for method in [Method::Tucker, Method::Prune, Method::Auto, Method::Hypercomplex(None)] {
            for ratio in [None, Some(1.3)] {
                for calibration in
                    [Some(&data), None].into_iter().filter(|c| c.is_some() || method != Method::Prune)
                {
                    let left = Left::default();
                    let _ = search(&graph, calibration, &Options { ratio, ..Options::of(method) }, &left);
                    let left = left.0.into_inner();
                    assert_eq!(left, 0, "{method:?} {ratio:?} {}", calibration.is_some());
                }
            }
        }
    }

    #[test]
    fn memory_that_only_pruning_reaches_is_reached_by_auto() {
        let (graph, data) = (network(), data(60));
        let run = |method, ram| {
            let mut options = Options::of(method);
            options.budget.ram = Some(ram);
            search(&graph, Some(&data), &options, &Silent)
        };
        let nearest = |method| {
            let Err(Error::Memory { nearest, .. }) = run(method, 1) else { panic!("{method:?}") };
            nearest
        };
        let (pruned, formats) = (nearest(Method::Prune), nearest(Method::Tucker));
        assert!(pruned < formats, "{pruned} {formats}");
        for ram in [pruned, formats - 1] {
            let outcome = run(Method::Auto, ram).unwrap();
            assert!(arena_bytes_of(&outcome.graph, None, Isa::Scalar).unwrap() <= ram);
        }
        assert_eq!(nearest(Method::Auto), pruned.min(formats));
        assert!(run(Method::Tucker, formats).is_ok());
    }
}
