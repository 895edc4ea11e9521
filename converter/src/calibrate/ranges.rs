//! What values a network's tensors take on calibration data.
//!
//! Takes a graph and samples; gives [`Statistics`] for every value: extremes, a histogram, the greatest magnitude in each channel,
//! and the mean of each element. Samples run through the graph in batches of bounded size; of their values only the
//! statistics are kept.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Dataset;
use crate::evaluate::evaluate;
use crate::graph::{Graph, Op, ValueId};

/// Numbers that may be held at once while a batch is evaluated.
const BATCH_NUMBERS: usize = 1 << 24;
/// Bins of a histogram: fine against the 256 levels of 8 bits even if the data fills only a quarter of it.
const BINS: usize = 1 << 14;

/// What was seen of one value.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Least number; not a number if any is not.
    pub low: f32,
    /// Greatest number; not a number if any is not.
    pub high: f32,
    /// How often which numbers came.
    pub histogram: Histogram,
    /// Greatest magnitude in each channel: the last axis of what a dense layer gives, axis 1 otherwise.
    pub channel_max: Vec<f32>,
    /// Mean of each element over the samples.
    pub mean: Vec<f32>,
}

/// Counts of numbers in equal bins over `[-limit, limit]`; the limit doubles when a greater number comes.
#[derive(Clone, Debug)]
pub struct Histogram {
    limit: f32,
    counts: Vec<u64>,
}

impl Histogram {
    fn new() -> Self {
        Self { limit: 0.0, counts: vec![0; BINS] }
    }

    /// Middle and count of each bin that is not empty. Numbers are finite.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u64)> {
        let width = 2.0 * f64::from(self.limit) / BINS as f64;
        let start = -f64::from(self.limit);
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(move |(bin, count)| (start + (bin as f64 + 0.5) * width, *count))
    }

    fn add(&mut self, data: &[f32]) {
        let greatest = data.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        if self.limit == 0.0 {
            self.limit = greatest;
        }
        while self.limit < greatest && self.limit < f32::MAX / 2.0 {
            self.double();
        }
        if self.limit == 0.0 {
            self.counts[BINS / 2] += data.len() as u64;
            return;
        }
        let scale = BINS as f64 / (2.0 * f64::from(self.limit));
        for x in data {
            let bin = ((f64::from(*x) + f64::from(self.limit)) * scale) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    fn double(&mut self) {
        self.limit *= 2.0;
        let mut counts = vec![0; BINS];
        for (bin, count) in self.counts.iter().enumerate() {
            counts[BINS / 4 + bin / 2] += count;
        }
        self.counts = counts;
    }
}

/// Runs all samples through `graph` and returns one entry for each of its values; values that nothing computes have none.
pub fn collect(graph: &Graph, data: &Dataset) -> HashMap<ValueId, Statistics> {
    let keep: Vec<ValueId> =
        graph.inputs.iter().copied().chain(graph.nodes.iter().map(|node| node.output)).collect();
    let numbers: usize = keep.iter().map(|id| graph.shape(*id).iter().product::<usize>()).sum();
    let batch = (BATCH_NUMBERS / numbers.max(1)).clamp(1, 256);
    let mut sums: Vec<Vec<f64>> =
        keep.iter().map(|id| vec![0.0; graph.shape(*id).iter().product()]).collect();
    let mut all: Vec<Statistics> = keep
        .iter()
        .map(|_| Statistics {
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
            histogram: Histogram::new(),
            channel_max: Vec::new(),
            mean: Vec::new(),
        })
        .collect();
    let channels: Vec<(usize, usize)> = keep.iter().map(|id| channels_of(graph, *id)).collect();
    for start in (0..data.samples).step_by(batch) {
        let part = data.slice(start..start + batch);
        let values = evaluate(graph, &part.inputs, part.samples, &keep);
        let seen = all.par_iter_mut().zip(&mut sums).zip(&channels).zip(&values);
        seen.for_each(|(((statistics, sums), (count, inner)), values)| {
            let (count, inner) = (*count, *inner);
            statistics.channel_max.resize(count, 0.0);
            for (row, block) in values.chunks(inner).enumerate() {
                let slot = &mut statistics.channel_max[row % count];
                *slot = block.iter().fold(*slot, |max, x| max.max(x.abs()));
            }
            // Unlike `f32::min`, these keep what is not a number.
            let least = |low: f32, x: &f32| if x.is_nan() || *x < low { *x } else { low };
            let greatest = |high: f32, x: &f32| if x.is_nan() || *x > high { *x } else { high };
            statistics.low = values.iter().fold(statistics.low, least);
            statistics.high = values.iter().fold(statistics.high, greatest);
            statistics.histogram.add(values);
            for sample in values.chunks(sums.len().max(1)) {
                sums.iter_mut().zip(sample).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        });
    }
    for (statistics, sums) in all.iter_mut().zip(&sums) {
        statistics.mean = sums.iter().map(|sum| (sum / data.samples.max(1) as f64) as f32).collect();
    }
    keep.into_iter().zip(all).collect()
}

/// Number of channels, and elements from one channel to the next.
fn channels_of(graph: &Graph, id: ValueId) -> (usize, usize) {
    let shape = graph.shape(id);
    let from_dense = graph.producer(id).is_some_and(|node| matches!(graph.nodes[node].op, Op::Dense(_)));
    match shape {
        [] => (1, 1),
        [.., last] if from_dense => (*last, 1),
        [only] => (*only, 1),
        [_, channels, inner @ ..] => (*channels, inner.iter().product()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_grows_and_loses_nothing() {
        let mut histogram = Histogram::new();
        histogram.add(&[0.0; 3]);
        histogram.add(&[0.5, -0.25]);
        histogram.add(&[100.0, -3.0]);
        let bins: Vec<(f64, u64)> = histogram.bins().collect();
        assert_eq!(bins.iter().map(|(_, count)| count).sum::<u64>(), 7);
        let width = 2.0 * f64::from(histogram.limit) / BINS as f64;
        for x in [0.0, 0.5, -0.25, 100.0, -3.0] {
            assert!(
                bins.iter().any(|(middle, _)| (middle - x).abs() <= 1.01 * width),
                "{x} was lost: {bins:?}"
            );
        }
    }

    #[test]
    fn statistics_of_an_input() {
        let mut graph = Graph::default();
        let input = graph.add_value("x", vec![1, 2, 2]);
        graph.inputs.push(input);
        graph.outputs.push(input);
        let data = Dataset {
            inputs: vec![vec![1.0, 2.0, -5.0, 0.0, 3.0, -4.0, 1.0, 0.0]],
            samples: 2,
            labels: None,
        };
        let all = collect(&graph, &data);
        let statistics = &all[&input];
        assert_eq!((statistics.low, statistics.high), (-5.0, 3.0));
        assert_eq!(statistics.channel_max, [4.0, 5.0]);
        assert_eq!(statistics.mean, [2.0, -1.0, -2.0, 0.0]);
    }
}
