//! What each size costs in accuracy: the curve that the choice was made on.
//!
//! Takes the candidates of all layers with their costs and losses, and the networks that were judged; gives points of falling size. Predicted
//! points are the lower convex hull of the summed losses over the summed costs (Everett 1963): at each price of a loss, every layer takes its
//! cheapest candidate. Judged points were built and run.

use crate::graph::Graph;

use super::allocate::{Costs, Row, total, weighted};
use super::judgement::Judgement;
use super::loss::Loss;

/// The networks that a search looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tradeoff {
    /// What losses are.
    pub measure: Measure,
    /// Predicted ones by falling size, then judged ones in the order of their trials.
    pub points: Vec<Point>,
}

/// What a loss is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// See [`Loss::Divergence`].
    Divergence,
    /// See [`Loss::Squares`].
    #[default]
    Squares,
    /// Sum of the squared relative errors of all layers' weights.
    Weights,
}

impl Measure {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Divergence => "divergence",
            Self::Squares => "squares",
            Self::Weights => "weights",
        }
    }
}

impl From<Loss> for Measure {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Divergence { .. } => Self::Divergence,
            Loss::Squares => Self::Squares,
        }
    }
}

/// One network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Learnt numbers.
    pub parameters: usize,
    /// Multiply-adds of one inference.
    pub macs: u64,
    /// The sum of the layers' losses, or the network's where it was judged.
    pub loss: f64,
    /// What held-out samples say of it; `None` for a prediction.
    pub judgement: Option<Judgement>,
}

impl Point {
    /// A network that was built and run.
    pub fn judged(graph: &Graph, judgement: Judgement) -> Self {
        Self {
            parameters: graph.parameters(),
            macs: graph.macs(),
            loss: judgement.loss,
            judgement: Some(judgement),
        }
    }
}

/// Predicted points at most.
const POINTS: usize = 48;
/// Prices of a loss are the powers of two between these, in quarters of an exponent.
const PRICES: std::ops::RangeInclusive<i32> = -40 * 4..=60 * 4;

/// The predicted curve for costs that are weighted so, from the dense network to the smallest; `graph` is the dense network that rows are
/// shares of.
pub fn predicted(graph: &Graph, layers: &[Vec<Row>], worth: Costs) -> Vec<Point> {
    let dense = total(layers, &vec![0; layers.len()]);
    let mut plans: Vec<Vec<usize>> = PRICES
        .rev()
        .map(|price| {
            let prices = Row { costs: worth, loss: (f64::from(price) / 4.0).exp2() };
            let score = |row: &Row| weighted(&prices, row);
            let least = |rows: &Vec<Row>| {
                (0..rows.len()).min_by(|a, b| score(&rows[*a]).total_cmp(&score(&rows[*b]))).unwrap_or(0)
            };
            layers.iter().map(least).collect()
        })
        .collect();
    plans.insert(0, vec![0; layers.len()]);
    plans.dedup();
    let thinned = plans.len().div_ceil(POINTS).max(1);
    let last = plans.len() - 1;
    let kept = plans.iter().enumerate().filter(|(k, _)| k % thinned == 0 || *k == last);
    let [macs, parameters] = [graph.macs() as f64, graph.parameters() as f64];
    kept.map(|(_, plan)| {
        let sum = total(layers, plan);
        // Rows leave out what no candidate changes.
        let share = |cost: usize| 1.0 + sum.costs[cost] - dense.costs[cost];
        Point {
            parameters: (share(1) * parameters).round() as usize,
            macs: (share(0) * macs).round() as u64,
            loss: sum.loss,
            judgement: None,
        }
    })
    .collect()
}

/// Points of a spectrum at most.
const RANKS: usize = 64;

/// Share of a layer's output energy that is left after each rank, for at most 64 ranks: all small ones, then fewer. `squared` holds the squared error of each
/// rank, rank 0 first.
pub fn spectrum(squared: &[f64]) -> Vec<(usize, f64)> {
    let Some((power, last)) = squared.first().zip(squared.len().checked_sub(1)) else { return Vec::new() };
    if !(power.is_finite() && *power > 0.0) {
        return Vec::new();
    }
    let mut ranks: Vec<usize> = (0..RANKS)
        .map(|k| {
            let even = k as f64 / (RANKS - 1) as f64;
            // Even steps of the square root.
            (even * even * last as f64).round() as usize
        })
        .chain(0..=last.min(RANKS / 4))
        .collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks.into_iter().map(|rank| (rank, (squared[rank] / power).clamp(0.0, 1.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::allocate::Cost;
    use crate::search::refit::tests::network;

    #[test]
    fn the_curve_falls_from_dense_to_the_smallest_and_losses_rise() {
        let graph = network();
        let layers: Vec<Vec<Row>> = (1..4)
            .map(|hurt| {
                let row = |k: usize| {
                    let share = (1.0 - 0.15 * k as f64) / 4.0;
                    Row { costs: [share; Cost::ALL.len()], loss: (hurt * k * k) as f64 * 1e-3 }
                };
                (0..6).map(row).collect()
            })
            .collect();
        let curve = predicted(&graph, &layers, [0.5, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!((curve[0].parameters, curve[0].macs), (graph.parameters(), graph.macs()));
        assert_eq!(curve[0].loss, 0.0);
        assert!(curve.len() > 5 && curve.len() <= POINTS + 1);
        for pair in curve.windows(2) {
            assert!(pair[1].macs <= pair[0].macs && pair[1].loss >= pair[0].loss);
        }
        let smallest = 1.0 - 3.0 * 0.75 / 4.0;
        assert!((curve.last().unwrap().macs as f64 - smallest * graph.macs() as f64).abs() <= 1.0);
        assert_eq!(predicted(&graph, &[], [0.5, 0.5, 0.0, 0.0, 0.0]).len(), 1);
    }

    #[test]
    fn a_spectrum_is_thinned_falls_from_one_and_survives_zero_and_nan() {
        let squared: Vec<f64> = (0..=1000).rev().map(|k| f64::from(k) * 1e-20).collect();
        let points = spectrum(&squared);
        assert!(points.len() <= RANKS + RANKS / 4 + 1);
        assert_eq!((points[0], points[1].0, points.last().copied()), ((0, 1.0), 1, Some((1000, 0.0))));
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1));
        assert_eq!(spectrum(&[2.0, 1.0]), [(0, 1.0), (1, 0.5)]);
        for bad in [vec![], vec![0.0, 0.0], vec![f64::NAN, 1.0], vec![f64::INFINITY]] {
            assert!(spectrum(&bad).is_empty());
        }
    }
}
