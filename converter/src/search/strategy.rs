//! How far to go: one network out of those that some strategies offer.
//!
//! A [`Strategy`] is a way to make a network smaller: formats for its weights, fewer channels, or both. It predicts what its plans cost and lose, and
//! builds them. Here the plans are chosen: for a size, that of least loss; for a limit on the loss, the cheapest that holds it when it is run on samples
//! that its fit has not seen. Where several strategies reach a size, each one's plan is built and run, and the best one is fitted again on all samples.

use std::collections::HashSet;

use crate::calibrate::Dataset;
use crate::graph::Graph;

use super::allocate::{Cost, Costs, Limits, Row};
use super::judgement::{Fold, Judge, Judgement};
use super::prices::{Prices, Room, Wish};
use super::tradeoff::Point;
use super::{Error, LayerReport, Progress};

/// A way to make a network smaller.
pub trait Strategy {
    /// Predicted networks of falling size.
    fn predicted(&self) -> Vec<Point>;

    /// Costs of a plan, as shares of the dense network, and its predicted loss.
    fn expected(&self, plan: &[usize]) -> Row;

    /// The plan that changes nothing.
    fn untouched(&self) -> Vec<usize>;

    /// The smallest share that a cost can be brought to.
    fn least(&self, cost: Cost) -> f64;

    /// The smallest arena, and the node that stands in the way of a smaller one, if it is a layer.
    fn least_arena(&self) -> Result<(usize, Option<usize>), Error>;

    /// The plan of least predicted loss that keeps a wish; `None` if it finds none.
    fn least_loss(&self, wish: Wish) -> Option<Vec<usize>>;

    /// Other plans that keep a wish and may turn out better than `plan`, the one of least predicted loss.
    fn rivals(&self, _wish: Wish, _plan: &[usize]) -> Vec<Vec<usize>> {
        Vec::new()
    }

    /// The plan of least weighted cost within a limit on the predicted loss.
    fn least_cost(&self, worth: Costs, loss: f64) -> Vec<usize>;

    /// Builds a plan, fitted to `data`.
    fn fit(&mut self, plan: &[usize], data: &Dataset, progress: &dyn Progress) -> Result<Shrunk, Error>;
}

/// A smaller network.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The same nodes.
    pub graph: Graph,
    /// One entry for each linear layer.
    pub layers: Vec<LayerReport>,
}

/// A network that was chosen.
pub struct Chosen {
    /// The network.
    pub shrunk: Shrunk,
    /// What held-out samples say of it, if they were asked.
    pub judgement: Option<Judgement>,
}

/// Trials of a limit on the loss.
const TRIALS: usize = 5;

/// What prediction puts behind must be judged this much better on the few held-out samples.
const SURE: f64 = 0.9;
/// Predictions that are this far apart may come out equal.
const FAR: f64 = 1.4;
/// A plan with more modelled instructions than the dense network is passed over for one that has not, and loses up to this many times as much; where
/// multiply-adds are limited, for speed, up to [`STILL_SAFE`] times a [safe](Judge::safe) loss in any case.
const NOT_SLOWER: f64 = 4.0;
/// See [`NOT_SLOWER`].
const STILL_SAFE: f64 = 2.0;
/// Plans whose predicted loss is this many times the least one are not built to be compared; where multiply-adds are limited, the least one counts as at least
/// a [safe](Judge::safe) one.
const HOPELESS: f64 = 6.0;

/// Plans between the one with the greatest wish and the most modest one that are built where the greatest wish costs too much.
const BETWEEN: usize = 3;

/// The network of least loss within `limits` that stands for `graph`, and all that were judged on the way, each fitted once for each of `folds`. `prices`
/// names the limits.
pub fn sized(
    graph: &Graph,
    strategies: &mut [Box<dyn Strategy + '_>],
    limits: Limits,
    prices: &Prices,
    folds: &[Fold<'_>],
    all: &Dataset,
    progress: &dyn Progress,
) -> Result<(Chosen, Vec<Point>), Error> {
    let wishes = prices.wishes(limits);
    let safe = folds.first().filter(|_| prices.wants_macs()).map_or(0.0, |fold| fold.judge.safe());
    let mut finalists: Vec<Finalist> = Vec::new();
    let mut between: Vec<Finalist> = Vec::new();
    for (strategy, offers) in strategies.iter().enumerate() {
        let finalist = |wish: usize, plan: Vec<usize>| {
            let loss = offers.expected(&plan).loss;
            Finalist { strategy, wish, plan, loss }
        };
        let plans =
            wishes.iter().enumerate().filter_map(|(k, wish)| Some(finalist(k, offers.least_loss(*wish)?)));
        let mut plans: Vec<Finalist> = plans.collect();
        let Some(least) = plans.first().map(|plan| plan.loss) else { continue };
        let faster = |finalist: &Finalist| {
            let slow = offers.expected(&finalist.plan).costs[Cost::Instructions as usize] > 1.0;
            !slow && finalist.loss <= (NOT_SLOWER * least).max(STILL_SAFE * safe)
        };
        let modest = plans.iter().find(|finalist| faster(finalist)).unwrap_or(&plans[0]).clone();
        plans.retain(|finalist| finalist.loss <= FAR * prices.worth() * modest.loss);
        finalists.extend(plans.pop());
        between.extend(plans);
        let rivals = offers.rivals(wishes[modest.wish], &modest.plan);
        finalists.extend(rivals.into_iter().map(|plan| finalist(modest.wish, plan)));
        finalists.push(modest);
    }
    finalists.sort_by(|a, b| b.wish.cmp(&a.wish).then(a.loss.total_cmp(&b.loss)));
    let mut seen = HashSet::new();
    finalists.retain(|Finalist { strategy, plan, .. }| seen.insert((*strategy, plan.clone())));
    // Of equal plans the one with the greatest wish.
    between.reverse();
    between.retain(|Finalist { strategy, plan, .. }| seen.insert((*strategy, plan.clone())));
    let Some(least) = finalists.iter().map(|finalist| finalist.loss).min_by(f64::total_cmp) else {
        let all: Vec<&dyn Strategy> = strategies.iter().map(AsRef::as_ref).collect();
        return Err(unreachable(graph, &all, prices));
    };
    finalists.retain(|finalist| finalist.loss <= HOPELESS * least.max(safe));
    // Where nobody judges, predictions decide.
    let near = finalists.iter().position(|finalist| finalist.loss <= prices.worth() * least);
    let predicted = finalists[near.unwrap_or(0)].clone();
    let mut trials = Trials { prices, folds, judged: Vec::new(), points: Vec::new() };
    if finalists.len() > 1 {
        for finalist in finalists {
            trials.judge(strategies, finalist, progress)?;
        }
        for _ in 0..BETWEEN {
            let Some(next) = trials.next(&between) else { break };
            trials.judge(strategies, between.swap_remove(next), progress)?;
        }
    }
    let (chosen, judgement) = match trials.best() {
        Some(best) => (&best.finalist, Some(best.judgement)),
        None => (&predicted, None),
    };
    let shrunk = strategies[chosen.strategy].fit(&chosen.plan, all, progress)?;
    if !prices.fits(&shrunk.graph)? {
        return Err(prices.together());
    }
    Ok((Chosen { shrunk, judgement }, trials.points))
}

/// Finalists that were built and run.
struct Trials<'a> {
    prices: &'a Prices,
    folds: &'a [Fold<'a>],
    judged: Vec<Judged>,
    points: Vec<Point>,
}

/// What held-out samples say of a finalist.
struct Judged {
    finalist: Finalist,
    judgement: Judgement,
}

impl Trials<'_> {
    /// Builds a finalist once for each fold and runs it. One that passes the arena's budget is not judged.
    fn judge(
        &mut self,
        strategies: &mut [Box<dyn Strategy + '_>],
        finalist: Finalist,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut judgements = Vec::with_capacity(self.folds.len());
        let mut last = None;
        for Fold { train, judge } in self.folds.iter().filter(|fold| fold.judge.can_judge()) {
            let shrunk = strategies[finalist.strategy].fit(&finalist.plan, train, progress)?;
            if !self.prices.fits(&shrunk.graph)? {
                return Ok(());
            }
            judgements.push(judge.of(&shrunk.graph)?);
            last = Some(shrunk.graph);
        }
        if let Some(graph) = last.filter(|_| judgements.len() == self.folds.len()) {
            let judgement = Judgement::over(&judgements);
            self.points.push(Point::judged(&graph, judgement));
            self.judged.push(Judged { finalist, judgement });
        }
        Ok(())
    }

    /// Of those with the greatest wish that is worth what it loses the one of least predicted loss, unless another is surely better.
    fn best(&self) -> Option<&Judged> {
        let loss = |trial: &&Judged| trial.judgement.loss;
        let least = self.judged.iter().map(|trial| loss(&trial)).min_by(f64::total_cmp)?;
        let near = || self.judged.iter().filter(|trial| loss(trial) <= self.prices.worth() * least);
        let wish = near().map(|trial| trial.finalist.wish).max()?;
        let mut equals: Vec<&Judged> = near().filter(|trial| trial.finalist.wish == wish).collect();
        equals.sort_by(|a, b| a.finalist.loss.total_cmp(&b.finalist.loss));
        equals.into_iter().reduce(|best, other| if loss(&other) < SURE * loss(&best) { other } else { best })
    }

    /// Which of the plans between the best one and the one with the next greater wish, which was judged to lose too much, is worth a trial.
    fn next(&self, between: &[Finalist]) -> Option<usize> {
        let Finalist { strategy, wish, .. } = self.best()?.finalist;
        let judged = self.judged.iter().map(|trial| &trial.finalist);
        let above = judged.filter(|other| other.strategy == strategy && other.wish > wish);
        let above = above.map(|other| other.wish).min()?;
        let inside = |other: &Finalist| other.strategy == strategy && other.wish > wish && other.wish < above;
        let mut inside: Vec<usize> = (0..between.len()).filter(|k| inside(&between[*k])).collect();
        inside.sort_by_key(|k| between[*k].wish);
        inside.get(inside.len() / 2).copied()
    }
}

/// A plan that is built to be compared.
#[derive(Clone, Debug)]
struct Finalist {
    strategy: usize,
    /// Which wish it keeps, of those that are greater and greater.
    wish: usize,
    plan: Vec<usize>,
    /// As predicted.
    loss: f64,
}

/// Why no plan of any strategy is small enough: what none of them reaches alone, or all that was asked.
pub fn unreachable(graph: &Graph, strategies: &[&dyn Strategy], prices: &Prices) -> Error {
    for (cost, times) in prices.asked() {
        let least = strategies.iter().map(|strategy| strategy.least(cost)).fold(f64::INFINITY, f64::min);
        if least * times > 1.0 + 1e-9 {
            let nearest = prices.figure(cost, least);
            return Error::Budget { what: cost.name(), wanted: times, reachable: 1.0 / least, nearest };
        }
    }
    if let Some((_, Room::Asked(wanted))) = prices.memory {
        let arenas: Result<Vec<_>, _> = strategies.iter().map(|strategy| strategy.least_arena()).collect();
        match arenas.map(|arenas| arenas.into_iter().min_by_key(|(bytes, _)| *bytes)) {
            Ok(Some((nearest, node))) if nearest > wanted => {
                let step = node.map_or(String::new(), |node| format!(", in `{}`", graph.nodes[node].name));
                return Error::Memory { wanted, nearest, step };
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    prices.together()
}

/// The cheapest network that `holds` on held-out samples, among a few of each strategy whose predicted loss closes in on `limit`;
/// `None` if none does. And all that were judged on the way.
pub fn cheapest(
    strategies: &mut [Box<dyn Strategy + '_>],
    worth: Costs,
    limit: f64,
    holds: &dyn Fn(&Judgement) -> bool,
    judge: &Judge<'_>,
    train: &Dataset,
    progress: &dyn Progress,
) -> Result<(Option<Chosen>, Vec<Point>), Error> {
    let mut judged = Vec::new();
    let mut best: Option<(f64, Shrunk, Judgement)> = None;
    for strategy in strategies.iter_mut() {
        let (mut low, mut high, mut budget) = (0.0, f64::INFINITY, limit);
        let untouched = strategy.untouched();
        let mut last = Vec::new();
        for trial in 0..TRIALS {
            let plan = strategy.least_cost(worth, budget);
            if plan == last || (trial > 0 && plan == untouched) {
                break;
            }
            last.clone_from(&plan);
            let costs = strategy.expected(&plan).costs;
            let cost: f64 = costs.iter().zip(worth).map(|(cost, weight)| cost * weight).sum();
            let shrunk = strategy.fit(&plan, train, progress)?;
            let judgement = judge.of(&shrunk.graph)?;
            judged.push(Point::judged(&shrunk.graph, judgement));
            // The sum of losses predicts the network's loss; where the prediction is off, its ratio corrects the next trial.
            let corrected = budget * (limit / judgement.loss.max(limit * 1e-3)).clamp(0.05, 20.0) * 0.95;
            if holds(&judgement) {
                low = budget;
                if best.as_ref().is_none_or(|best| cost < best.0) {
                    best = Some((cost, shrunk, judgement));
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
    }
    let chosen = best.map(|(_, shrunk, judgement)| Chosen { shrunk, judgement: Some(judgement) });
    Ok((chosen, judged))
}

/// What of a plan a limit is put on.
type Holds<'a> = &'a mut dyn FnMut(&mut dyn Strategy, &[usize]) -> Result<bool, Error>;

/// The cheapest network whose plan `holds`, among a few of each strategy; predicted losses double or halve from `start` on, then
/// close in. `None` if none holds.
pub fn cheapest_that(
    strategies: &mut [Box<dyn Strategy + '_>],
    worth: Costs,
    start: f64,
    holds: Holds<'_>,
    all: &Dataset,
    progress: &dyn Progress,
) -> Result<Option<Shrunk>, Error> {
    let mut best: Option<(f64, usize, Vec<usize>)> = None;
    let mut first = start;
    for (index, strategy) in strategies.iter_mut().enumerate() {
        let (mut low, mut high, mut budget) = (0.0f64, f64::INFINITY, first);
        let untouched = strategy.untouched();
        for _ in 0..TRIALS {
            let plan = strategy.least_cost(worth, budget);
            let costs = strategy.expected(&plan).costs;
            let cost: f64 = costs.iter().zip(worth).map(|(cost, weight)| cost * weight).sum();
            // What is dearer than the best so far is not worth a trial, and neither is what changes nothing.
            let worth_it = plan != untouched && best.as_ref().is_none_or(|best| cost < best.0);
            if worth_it && holds(strategy.as_mut(), &plan)? {
                low = budget;
                best = Some((cost, index, plan));
            } else if worth_it {
                high = budget;
            } else {
                low = budget;
            }
            budget = if high.is_finite() { (low.max(high / 8.0) * high).sqrt() } else { low * 2.0 };
        }
        first = if low > 0.0 { low } else { first };
    }
    match best {
        Some((_, index, plan)) => strategies[index].fit(&plan, all, progress).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dense, Op, Weight};
    use crate::search::allocate::FAIR;
    use crate::search::loss::Loss;
    use crate::search::refit::tests::{images, network};
    use crate::search::{Method, Options, Silent};

    /// Half the multiply-adds are asked for, on a Cortex-M.
    const OPTIONS: Options = Options { macs_ratio: Some(2.0), ..Options::of(Method::Auto) };
    /// Instructions of plans for the multiply-adds asked for: one for each wish, slower and slower.
    const PLANS: [f64; 8] = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.85, 2.0];

    fn finalist(strategy: usize, wish: usize, loss: f64) -> Finalist {
        Finalist { strategy, wish, plan: vec![wish], loss }
    }

    fn judged(finalist: Finalist, loss: f64) -> Judged {
        let judgement = Judgement { loss, error: 0.0, agreement: 1.0, accuracy: None, samples: 50 };
        Judged { finalist, judgement }
    }

    fn best(trials: Vec<Judged>, prices: &Prices) -> Option<(usize, usize)> {
        let trials = Trials { prices, folds: &[], judged: trials, points: Vec::new() };
        trials.best().map(|best| (best.finalist.strategy, best.finalist.wish))
    }

    #[test]
    fn the_greatest_wish_that_is_worth_its_loss_is_best() {
        let prices = Prices::of(&network(), &OPTIONS).unwrap();
        let near = prices.worth() * 0.99;
        let of = |greatest: f64| {
            vec![
                judged(finalist(0, 9, 1.5), greatest),
                judged(finalist(0, 5, 1.1), near),
                judged(finalist(0, 0, 1.0), 1.0),
            ]
        };
        assert_eq!(best(Vec::new(), &prices), None);
        assert_eq!(best(of(near), &prices), Some((0, 9)));
        assert_eq!(best(of(prices.worth() * 1.01), &prices), Some((0, 5)));
    }

    #[test]
    fn of_equal_wishes_the_prediction_decides_unless_another_is_surely_better() {
        let prices = Prices::of(&network(), &OPTIONS).unwrap();
        let of = |loss: f64| vec![judged(finalist(0, 3, 1.0), 1.0), judged(finalist(1, 3, 1.2), loss)];
        assert_eq!(best(of(SURE * 1.01), &prices), Some((0, 3)));
        assert_eq!(best(of(SURE * 0.99), &prices), Some((1, 3)));
    }

    #[test]
    fn what_is_tried_next_lies_between_the_best_and_the_wish_that_costs_too_much() {
        let prices = Prices::of(&network(), &OPTIONS).unwrap();
        let trials = |judged| Trials { prices: &prices, folds: &[], judged, points: Vec::new() };
        let between: Vec<Finalist> = [(0, 4), (1, 5), (0, 6), (0, 8), (0, 2)]
            .map(|(strategy, wish)| finalist(strategy, wish, 1.0))
            .into();
        let next = |judged| trials(judged).next(&between).map(|next| between[next].wish);
        let least = || judged(finalist(0, 2, 1.0), 1.0);
        assert_eq!(next(Vec::new()), None);
        assert_eq!(next(vec![least()]), None, "nothing greater was judged");
        assert_eq!(next(vec![least(), judged(finalist(0, 9, 1.0), 3.0)]), Some(6), "of 4, 6 and 8");
        assert_eq!(next(vec![least(), judged(finalist(0, 5, 1.0), 3.0)]), Some(4));
        assert_eq!(next(vec![least(), judged(finalist(0, 3, 1.0), 3.0)]), None);
        assert_eq!(next(vec![least(), judged(finalist(1, 9, 1.0), 3.0)]), None, "another strategy's");
        assert_eq!(next(vec![least(), judged(finalist(0, 9, 1.0), 1.0)]), None, "the greatest is best");
    }

    /// Plans of the same multiply-adds, each of which scales the outputs, so that its loss is known.
    struct Scaled {
        graph: Graph,
        /// Of each plan: instructions for each multiply-add, as predicted, and the loss that it has.
        plans: Vec<(f64, f64)>,
    }

    impl Scaled {
        fn build(&self, plan: usize) -> Graph {
            let mut graph = self.graph.clone();
            let factor = 1.0 - self.plans[plan].1.sqrt() as f32;
            for node in &mut graph.nodes {
                if let Op::Dense(Dense { weight: Weight::Dense(tensor), .. }) = &mut node.op {
                    tensor.data.iter_mut().for_each(|x| *x *= factor);
                }
            }
            graph
        }
    }

    impl Strategy for Scaled {
        fn predicted(&self) -> Vec<Point> {
            Vec::new()
        }

        /// The slower, the less is lost; a little.
        fn expected(&self, plan: &[usize]) -> Row {
            let macs = 0.5;
            let (within, loss) = self.plans[plan[0]];
            let within = within - 1e-9;
            let waste = macs * (within - FAIR);
            let loss = if loss > 0.0 { 5e-4 * (1.1 - 0.01 * within) } else { 0.0 };
            Row { costs: [macs, 0.5, 0.5, macs * within, waste], loss }
        }

        fn untouched(&self) -> Vec<usize> {
            vec![self.plans.len() - 1]
        }

        fn least(&self, _: Cost) -> f64 {
            0.5
        }

        fn least_arena(&self) -> Result<(usize, Option<usize>), Error> {
            Ok((0, None))
        }

        fn least_loss(&self, wish: Wish) -> Option<Vec<usize>> {
            let plans = (0..self.plans.len()).map(|plan| vec![plan]);
            let kept = plans.filter(|plan| wish.limits.hold(self.expected(plan)));
            kept.min_by(|a, b| self.expected(a).loss.total_cmp(&self.expected(b).loss))
        }

        fn least_cost(&self, _: Costs, _: f64) -> Vec<usize> {
            self.untouched()
        }

        fn fit(&mut self, plan: &[usize], _: &Dataset, _: &dyn Progress) -> Result<Shrunk, Error> {
            Ok(Shrunk { graph: self.build(plan[0]), layers: Vec::new() })
        }
    }

    /// Which of `plans` is taken, and how many were judged.
    fn taken(plans: Vec<(f64, f64)>) -> (usize, usize) {
        let graph = network();
        let prices = Prices::of(&graph, &OPTIONS).unwrap();
        let [train, held] =
            [1, 2].map(|seed| Dataset { inputs: images(30, seed), samples: 30, labels: None });
        let judge = Judge::new(&graph, &train, &held, Loss::Squares, None);
        let folds = [Fold { train: &train, judge }];
        let count = plans.len();
        let scaled = Scaled { graph: graph.clone(), plans };
        let graphs: Vec<Graph> = (0..count).map(|plan| scaled.build(plan)).collect();
        let mut strategies: Vec<Box<dyn Strategy + '_>> = vec![Box::new(scaled)];
        let limits = Limits::OPEN.with(Cost::Macs, 0.5);
        let (chosen, points) =
            sized(&graph, &mut strategies, limits, &prices, &folds, &train, &Silent).unwrap();
        (graphs.iter().position(|graph| *graph == chosen.shrunk.graph).unwrap(), points.len())
    }

    #[test]
    fn the_fastest_plan_whose_judged_loss_is_near_the_best_is_taken() {
        let with = |losses: [f64; PLANS.len()]| PLANS.into_iter().zip(losses).collect::<Vec<_>>();
        let flat = [1e-3; PLANS.len()];
        assert_eq!(taken(with(flat)), (0, 2), "the fastest is as good: nothing between is tried");
        let knee = [2e-3, 1.5e-3, 1.3e-3, 1.1e-3, 1e-3, 1e-3, 1e-3, 1e-3];
        assert_eq!(taken(with(knee)), (3, 2 + BETWEEN), "found between the two");
        let steep = [9e-3, 8e-3, 7e-3, 6e-3, 5e-3, 4e-3, 3e-3, 1e-3];
        assert_eq!(taken(with(steep)), (7, 2 + BETWEEN), "none of them is worth it");
    }

    #[test]
    fn a_plan_without_loss_that_is_slower_than_the_dense_network_is_passed_over() {
        let lossless = (3.0, 0.0);
        assert_eq!(taken(vec![(1.9, 5e-4), lossless]).0, 0);
    }
}
