//! The formats and ranks worth trying for one layer, with what they cost and the output error that they cause.
//!
//! Takes a layer's matrix and input covariance; gives candidates that cost fewer MACs *and* fewer numbers than the dense layer, thinned to
//! those that no other one beats in all respects. Their errors come from one decomposition a format (and input rank), without building a weight.

use crate::calibrate::covariance::Geometry;
use crate::compress::{Choice, Target, low_rank::LowRank, tucker::InputBasis};
use crate::linalg::NotConverged;

use super::Method;

/// One way to store a layer's weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Format and ranks.
    pub choice: Choice,
    /// Multiply-adds of one inference.
    pub macs: u64,
    /// Numbers in the weight.
    pub weights: usize,
    /// Relative RMS error of the layer's output when its input is undisturbed.
    pub error: f64,
}

/// MACs of one inference and numbers of the weight, stage by stage as `lower` will place them.
pub fn cost(geometry: &Geometry, choice: Choice) -> (u64, usize) {
    let [i, h, w] = geometry.input;
    let [o, oh, ow] = geometry.output;
    let (before, after) = (geometry.images * h * w, geometry.images * oh * ow);
    let window = geometry.kernel[0] * geometry.kernel[1];
    let row = geometry.row_len();
    let stages = match choice {
        Choice::Dense => vec![(o * row, after)],
        Choice::LowRank(rank) => vec![(rank * row, after), (o * rank, after)],
        Choice::Tucker(input, None) => vec![(input * i, before), (o * input * window, after)],
        Choice::Tucker(input, Some(output)) => {
            vec![(input * i, before), (output * input * window, after), (o * output, after)]
        }
    };
    stages.iter().fold((0, 0), |(macs, weights), (numbers, positions)| {
        (macs + (numbers * positions) as u64, weights + numbers)
    })
}

/// Ranks between 1 and `limit - 1` for an axis of extent `n`: sixteenths of it and, below one eighth, a geometric grid; multiples of 4 (or 2) where
/// the axis is wide enough, because kernels work on whole words.
fn ranks(n: usize, limit: usize) -> Vec<usize> {
    let quantum = match n {
        0..16 => 1,
        16..32 => 2,
        _ => 4,
    };
    let fine = [1.0 / 64.0, 1.0 / 48.0, 1.0 / 32.0, 1.0 / 24.0, 1.0 / 12.0, 5.0 / 48.0];
    let mut found: Vec<usize> = (1..16)
        .map(|k| k as f64 / 16.0)
        .chain(fine)
        .map(|share| ((share * n as f64 / quantum as f64).round() as usize).max(1) * quantum)
        .chain((n < 16).then_some(1))
        .filter(|rank| *rank < limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Largest rank of `W = B A` that still saves numbers: `o * d / (o + d)`, rounded up, less one.
pub fn break_even(geometry: &Geometry) -> usize {
    let (o, d) = (geometry.output[0], geometry.row_len());
    (o * d).div_ceil((o + d).max(1))
}

/// The dense layer first, then all candidates that are not beaten, cheapest error first.
pub fn candidates(
    method: Method,
    geometry: &Geometry,
    target: Target<'_>,
) -> Result<Vec<Candidate>, NotConverged> {
    let (dense_macs, dense_weights) = cost(geometry, Choice::Dense);
    let dense = Candidate { choice: Choice::Dense, macs: dense_macs, weights: dense_weights, error: 0.0 };
    let mut found = Vec::new();
    let saves = |choice| {
        let (macs, weights) = cost(geometry, choice);
        (macs < dense_macs && weights < dense_weights).then_some((macs, weights))
    };
    let mut push = |choice, squared: f64, power: f64| {
        if let Some((macs, weights)) = saves(choice) {
            let error = if power > 0.0 { (squared.max(0.0) / power).sqrt() } else { 0.0 };
            found.push(Candidate { choice, macs, weights, error });
        }
    };
    let pointwise = geometry.kernel == [1, 1];
    let [o, i] = [geometry.output[0], geometry.input[0]];
    if method == Method::None || geometry.groups > 1 {
        return Ok(vec![dense]);
    }
    if pointwise || method == Method::Tucker {
        let n = o.min(geometry.row_len());
        let grid = ranks(n, n);
        if grid.iter().any(|rank| saves(Choice::LowRank(*rank)).is_some()) {
            let errors = LowRank::new(target)?.squared_errors();
            for rank in grid {
                push(Choice::LowRank(rank), errors[rank], errors[0]);
            }
        }
    }
    if !pointwise && method == Method::Tucker {
        let outputs = ranks(o, o);
        let worth = |input: usize| {
            outputs
                .iter()
                .map(|output| Choice::Tucker(input, Some(*output)))
                .chain([Choice::Tucker(input, None)])
                .any(|choice| saves(choice).is_some())
        };
        let inputs: Vec<usize> = ranks(i, i).into_iter().filter(|input| worth(*input)).collect();
        if !inputs.is_empty() {
            let basis = InputBasis::new(target)?;
            for input in inputs {
                let projected = basis.project(input)?;
                let errors = projected.squared_errors();
                for &output in &outputs {
                    push(Choice::Tucker(input, Some(output)), errors[output], projected.power());
                }
                push(Choice::Tucker(input, None), errors[o], projected.power());
            }
        }
    }
    // Falling cost; a candidate stays if none that costs no more in both respects has less error.
    found.sort_by(|a, b| {
        a.error.total_cmp(&b.error).then(a.macs.cmp(&b.macs)).then(a.weights.cmp(&b.weights))
    });
    let mut kept = vec![dense];
    for candidate in found {
        let beaten = |other: &Candidate| other.macs <= candidate.macs && other.weights <= candidate.weights;
        if !kept[1..].iter().any(beaten) {
            kept.push(candidate);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::build;
    use crate::compress::tests::{covariance, matrix};
    use crate::graph::Weight;
    use crate::lower::network_macs;

    #[test]
    fn costs_are_those_of_the_lowered_network_and_below_dense() {
        let geometry = Geometry {
            images: 1,
            input: [6, 9, 7],
            output: [8, 5, 7],
            kernel: [3, 3],
            strides: [2, 1],
            pads: [1, 1],
            dilations: [1, 1],
            groups: 1,
        };
        let shape = [8, 6, 3, 3];
        let (m, c) = (matrix(8, 54, 1), covariance(54, 2));
        let target = Target { shape: &shape, matrix: &m, covariance: &c };
        let found = candidates(Method::Tucker, &geometry, target).unwrap();
        assert!(found.len() > 3);
        assert!(found[1..].iter().all(|one| one.macs < found[0].macs && one.weights < found[0].weights));
        let fixed = [Choice::LowRank(3), Choice::Tucker(2, None), Choice::Tucker(4, Some(5))];
        for choice in found[1..].iter().map(|one| one.choice).chain(fixed) {
            let Weight::Network(network) = build(choice, target).unwrap() else { panic!() };
            let macs = network_macs(&network, &[1, 6, 9, 7], &[1, 8, 5, 7]);
            assert_eq!(cost(&geometry, choice), (macs, Weight::Network(network).parameters()));
        }
        assert_eq!(candidates(Method::LowRank, &geometry, target).unwrap().len(), 1);
    }

    #[test]
    fn square_layer_breaks_even_at_half_its_width() {
        let geometry = Geometry {
            images: 1,
            input: [64, 1, 1],
            output: [64, 1, 1],
            kernel: [1, 1],
            strides: [1, 1],
            pads: [0, 0],
            dilations: [1, 1],
            groups: 1,
        };
        assert_eq!(break_even(&geometry), 32);
        let (m, c) = (matrix(64, 64, 1), covariance(64, 2));
        let target = Target { shape: &[64, 64], matrix: &m, covariance: &c };
        let found = candidates(Method::LowRank, &geometry, target).unwrap();
        assert!(found.iter().all(|c| c.choice.ranks().iter().all(|rank| *rank < 32)));
    }
}
