//! How much each candidate of each layer would cost the network, alone.
//!
//! Takes the dense graph and some calibration samples; gives, for each linear layer, its candidates with the loss of the whole network when only that
//! layer is replaced. All candidates' own output errors come from decompositions; the network is evaluated (from the layer on, everything before
//! is cached) only for a few of them, spread over that error, and the loss of the others is interpolated along it.

use rayon::prelude::*;

use crate::calibrate::Dataset;
use crate::calibrate::covariance::{Geometry, moments};
use crate::compress::{self, Choice, Target, build, low_rank::LowRank};
use crate::evaluate::{Values, evaluate, evaluate_from};
use crate::graph::{Graph, ValueId, Weight};
use crate::linalg::{Matrix, NotConverged, product};

use super::candidates::{Candidate, Price, candidates};
use super::fisher::Metric;
use super::loss::Loss;
use super::refit::{bias, set};
use super::tradeoff::spectrum;
use super::{Error, Method, Progress};

/// Samples that are evaluated for each measured candidate.
const SAMPLES: usize = 128;

/// Numbers of cached values at most (1 GiB); fewer samples are used for larger networks.
const MOST_CACHED: usize = 1 << 28;

/// Candidates of a layer whose loss is measured.
const MEASURED: usize = 7;

/// Candidates of one layer.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// Index of the node.
    pub node: usize,
    /// The dense layer first.
    pub candidates: Vec<Candidate>,
    /// Loss of the network with each candidate.
    pub losses: Vec<f64>,
    /// Share of the output's energy that is left after each rank.
    pub spectrum: Vec<(usize, f64)>,
}

/// Every linear layer with a dense weight, measured on calibration inputs.
pub fn measured(
    graph: &Graph,
    method: Method,
    loss: Loss,
    metrics: &[Option<Metric>],
    data: &Dataset,
    price: Price<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Sensitivity>, Error> {
    progress.expect(linear_layers(graph).count());
    // Covariances and losses come from different samples: a truncation looks too good on the samples that it was made for.
    let parts = subsets(graph, &data.inputs, data.samples);
    let ids: Vec<ValueId> = graph.nodes.iter().map(|node| node.output).collect();
    let run = |(inputs, samples): &(Vec<Vec<f32>>, usize)| -> Values {
        let outputs = ids.iter().copied().zip(evaluate(graph, inputs, *samples, &ids));
        outputs.chain(graph.inputs.iter().copied().zip(inputs.iter().cloned())).collect()
    };
    let (seen_values, seen_samples) = (run(&parts[0]), parts[0].1);
    let (values, samples) = (run(&parts[1]), parts[1].1);
    let reference: Vec<Vec<f32>> = graph.outputs.iter().map(|id| values[id].clone()).collect();
    let measured = |index: usize| -> Result<Option<Sensitivity>, Error> {
        let node = &graph.nodes[index];
        progress.step(&format!("measuring {}", node.name));
        let (Some(geometry), Some(tensor)) = (Geometry::of(graph, node), node.op.dense_weight()) else {
            return Ok(None);
        };
        let fail = |reason: String| Error::Fit { node: node.name.clone(), op: node.op.name(), reason };
        let matrix = compress::to_matrix(tensor);
        if geometry.groups > 1 {
            let candidates = vec![Candidate::dense(&geometry)];
            return Ok(Some(Sensitivity {
                node: index,
                candidates,
                losses: vec![0.0],
                spectrum: Vec::new(),
            }));
        }
        let (input, output) = (&seen_values[&node.inputs[0]], &seen_values[&node.output]);
        let seen = moments(&geometry, 0, input, output, seen_samples, 1)
            .ok_or_else(|| fail("its input or output is not finite on the calibration data".into()))?
            .remove(0);
        let covariance = seen.covariance();
        // The fewer rows for each column, the less the covariance is to be trusted.
        let damped = covariance.damped(match seen.count / matrix.ncols() as f64 {
            0.0..1.0 => 1.0,
            1.0..20.0 => 0.1,
            _ => 1e-3,
        });
        let target = Target::new(&tensor.shape, &matrix, &damped);
        let metric = metrics.get(index).and_then(Option::as_ref);
        let candidates =
            candidates(method, &geometry, target, metric, price).map_err(|error| fail(error.to_string()))?;
        let all_ranks = LowRank::new(target).map_err(|error| fail(error.to_string()))?;

        let cut = Cut::new(graph, index, &values);
        let own_bias = bias(&node.op, matrix.nrows());
        let measure = |choice: usize| -> Result<(f64, f64), Error> {
            let weight = match &candidates[choice].network {
                Some(network) => Weight::Network(network.as_ref().clone()),
                None => match metric {
                    Some(metric) => metric.build(candidates[choice].choice, target),
                    None => build(candidates[choice].choice, target),
                }
                .map_err(|error| fail(error.to_string()))?,
            };
            let effective = compress::dense(&weight).map_err(|error| fail(error.to_string()))?;
            let lost = &matrix - compress::to_matrix(&effective);
            let mean = Matrix::from_fn(matrix.ncols(), 1, |j, _| covariance.mean_x[j]);
            let shift = product(lost.as_ref(), mean.as_ref());
            let new_bias: Vec<f32> =
                own_bias.iter().enumerate().map(|(o, b)| (b + shift[(o, 0)]) as f32).collect();
            let mut trial = graph.clone();
            set(&mut trial.nodes[index].op, Weight::Dense(effective), &new_bias);
            let outputs = cut.outputs(&trial, samples);
            Ok((candidates[choice].error, loss.measure(&reference, &outputs, samples)))
        };
        let points = spread(&candidates).into_par_iter().map(measure).collect::<Result<Vec<_>, Error>>()?;
        // What was found in the weight loses nothing.
        let loss = |candidate: &Candidate| match candidate.choice {
            Choice::Given => 0.0,
            _ => interpolate(&points, candidate.error),
        };
        let losses = candidates.iter().map(loss).collect();
        let spectrum = spectrum(&all_ranks.squared_errors());
        Ok(Some(Sensitivity { node: index, candidates, losses, spectrum }))
    };
    let layers: Vec<usize> = linear_layers(graph).collect();
    let found: Result<Vec<_>, Error> = layers.into_par_iter().map(measured).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Every linear layer with a dense weight, by the weights alone: the loss is the squared relative error of the weight.
pub fn by_weight(
    graph: &Graph,
    method: Method,
    price: Price<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Sensitivity>, Error> {
    progress.expect(linear_layers(graph).count());
    let mut found = Vec::new();
    for index in linear_layers(graph) {
        let node = &graph.nodes[index];
        progress.step(&format!("decomposing {}", node.name));
        let (Some(geometry), Some(tensor)) = (Geometry::of(graph, node), node.op.dense_weight()) else {
            continue;
        };
        let matrix = compress::to_matrix(tensor);
        let (candidates, spectrum) = if geometry.groups > 1 {
            (vec![Candidate::dense(&geometry)], Vec::new())
        } else {
            let plain = Matrix::identity(matrix.ncols(), matrix.ncols());
            let target = Target::new(&tensor.shape, &matrix, &plain);
            let fail = |error: NotConverged| Error::Fit {
                node: node.name.clone(),
                op: node.op.name(),
                reason: error.to_string(),
            };
            let all_ranks = LowRank::new(target).map_err(fail)?;
            (
                candidates(method, &geometry, target, None, price).map_err(fail)?,
                spectrum(&all_ranks.squared_errors()),
            )
        };
        let losses = candidates.iter().map(|candidate| candidate.error.powi(2)).collect();
        found.push(Sensitivity { node: index, candidates, losses, spectrum });
    }
    Ok(found)
}

/// Nodes that are linear layers with a dense weight.
pub fn linear_layers(graph: &Graph) -> impl Iterator<Item = usize> {
    (0..graph.nodes.len()).filter(|index| graph.nodes[*index].op.dense_weight().is_some())
}

/// Evenly spread samples for covariances and others for losses; the same for both if there is only one.
fn subsets(graph: &Graph, inputs: &[Vec<f32>], samples: usize) -> [(Vec<Vec<f32>>, usize); 2] {
    let one: usize = graph.nodes.iter().map(|node| graph.shape(node.output).iter().product::<usize>()).sum();
    let most = (MOST_CACHED / one.max(1) / 2).clamp(1, SAMPLES);
    [0, 1].map(|part| {
        let members: Vec<usize> = (0..samples).filter(|sample| samples == 1 || sample % 2 == part).collect();
        let count = members.len().min(most);
        let pick = |data: &Vec<f32>| {
            let len = data.len() / samples.max(1);
            let chosen = (0..count).map(|k| members[k * members.len() / count]);
            chosen.flat_map(|sample| data[sample * len..][..len].iter().copied()).collect()
        };
        (inputs.iter().map(pick).collect(), count)
    })
}

/// The part of a graph from one node to the outputs, and what it reads.
struct Cut {
    known: Values,
}

impl Cut {
    fn new(graph: &Graph, index: usize, values: &Values) -> Self {
        let mut changed = vec![false; graph.values.len()];
        changed[graph.nodes[index].output.0] = true;
        let mut read = graph.nodes[index].inputs.clone();
        for node in &graph.nodes[index + 1..] {
            if node.inputs.iter().any(|id| changed[id.0]) {
                changed[node.output.0] = true;
                read.extend(node.inputs.iter().filter(|id| !changed[id.0]));
            }
        }
        read.extend(graph.outputs.iter().filter(|id| !changed[id.0]));
        Self { known: read.into_iter().map(|id| (id, values[&id].clone())).collect() }
    }

    fn outputs(&self, graph: &Graph, samples: usize) -> Vec<Vec<f32>> {
        let mut values = evaluate_from(graph, &self.known, samples, &graph.outputs);
        graph.outputs.iter().map(|id| values.remove(id).unwrap_or_default()).collect()
    }
}

/// Indices of the candidates to measure: evenly spread in the logarithm of their error, with both ends.
fn spread(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> =
        (1..candidates.len()).filter(|index| candidates[*index].choice != Choice::Given).collect();
    order.sort_by(|a, b| candidates[*a].error.total_cmp(&candidates[*b].error));
    let (Some(&first), Some(&last)) = (order.first(), order.last()) else { return Vec::new() };
    let log = |index: usize| candidates[index].error.max(1e-6).ln();
    let mut chosen: Vec<usize> = (0..MEASURED)
        .map(|k| log(first) + (log(last) - log(first)) * k as f64 / (MEASURED - 1) as f64)
        .filter_map(|wanted| {
            order.iter().copied().min_by(|a, b| (log(*a) - wanted).abs().total_cmp(&(log(*b) - wanted).abs()))
        })
        .collect();
    chosen.dedup();
    chosen
}

/// Loss at `error` from measured `(error, loss)` pairs in rising error: monotone, log-log linear between them, quadratic outside (loss grows
/// as the square of a small error).
pub(super) fn interpolate(points: &[(f64, f64)], error: f64) -> f64 {
    const TINY: f64 = 1e-12;
    if error <= 0.0 {
        return 0.0;
    }
    let mut highest = TINY;
    let rising: Vec<(f64, f64)> = points
        .iter()
        .map(|&(x, y)| {
            highest = highest.max(y);
            (x.max(TINY), highest)
        })
        .collect();
    let outside = |(x, y): (f64, f64)| y * (error / x).powi(2);
    match rising.iter().position(|(x, _)| *x >= error) {
        None => rising.last().map_or(error.powi(2), |last| outside(*last)),
        Some(0) => outside(rising[0]),
        Some(k) => {
            let ((x0, y0), (x1, y1)) = (rising[k - 1], rising[k]);
            let t = if x1 > x0 { (error / x0).ln() / (x1 / x0).ln() } else { 1.0 };
            y0 * (y1 / y0).powf(t)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_is_monotone_and_exact_at_the_points() {
        let points = [(0.1, 1e-3), (0.2, 9e-4), (0.4, 2e-2)];
        assert!((interpolate(&points, 0.1) - 1e-3).abs() < 1e-9);
        assert!((interpolate(&points, 0.4) - 2e-2).abs() < 1e-9);
        assert!((interpolate(&points, 0.05) - 2.5e-4).abs() < 1e-9);
        assert_eq!(interpolate(&points, 0.0), 0.0);
        let mut last = 0.0;
        for k in 1..100 {
            let now = interpolate(&points, k as f64 * 0.01);
            assert!(now >= last);
            last = now;
        }
    }
}
