//! Which errors of a layer's output the network notices.
//!
//! Takes the dense graph and unlabelled samples; gives for every linear layer the second moments `G = E[g g']` of the loss's gradient `g` by the layer's
//! output before its activation, over samples and positions. To second order, an error `e` of the output costs `e' G e` on average; so a truncation in the
//! metric of `G` keeps what decisions hang on. The gradients are those of the Fisher information: of `-log p(class)` with classes drawn from
//! the network's own answer, here as random signs times the columns of a root of `diag(p) - p p'`, whose products have that matrix as their mean (Martens, Grosse 2015,
//! arXiv 1503.05671; the weighted truncation: Hsu et al. 2022, arXiv 2207.00112). Other outputs than class scores count by their squares.

use rayon::prelude::*;

use crate::calibrate::covariance::Geometry;
use crate::compress::{self, Choice, Target};
use crate::evaluate::gradient::Tape;
use crate::graph::{Graph, Mode, Network, Weight};
use crate::linalg::{Matrix, NotConverged, add_square, mirror, product, roots, trace};

use super::loss::Loss;
use super::sensitivity::linear_layers;

/// Random sign vectors for each sample.
const DRAWS: usize = 4;

/// Samples that run together; fixed, because sums depend on it.
const CHUNK: usize = 16;

/// Share of the identity in a metric whose mean eigenvalue is 1 otherwise: gradients of some samples say little about directions that they miss.
const DAMPING: f64 = 0.3;

/// A root of a metric of output errors, and its inverse.
#[derive(Clone, Debug)]
pub struct Metric {
    root: Matrix,
    inverse: Matrix,
}

impl Metric {
    /// From the second moments of gradients, of any scale.
    fn new(moments: &Matrix) -> Result<Self, NotConverged> {
        let n = moments.nrows();
        let mean = trace(moments.as_ref()) / n.max(1) as f64;
        let scale = if mean > 0.0 && mean.is_finite() { 1.0 / mean } else { 0.0 };
        let damped = Matrix::from_fn(n, n, |i, j| {
            let own = if scale > 0.0 { moments[(i, j)] * scale } else { 0.0 };
            own + if i == j { DAMPING } else { 0.0 }
        });
        let (root, inverse) = roots(damped.as_ref(), 1e-12)?;
        Ok(Self { root, inverse })
    }

    /// The matrix whose output errors, all counted the same, are those of `matrix` in this metric.
    pub fn weighted(&self, matrix: &Matrix) -> Matrix {
        product(self.root.as_ref(), matrix.as_ref())
    }

    /// The network for the layer itself from one for its weighted matrix: the core that alone has the output mode takes the inverse. `None` if there is none.
    pub fn undone(&self, network: &Network) -> Option<Network> {
        on_outputs(network, &self.inverse)
    }

    /// The best weight in this metric of output errors. Formats that cannot be undone are built in the plain metric.
    pub fn build(&self, choice: Choice, target: Target<'_>) -> Result<Weight, NotConverged> {
        if matches!(choice, Choice::Dense | Choice::Given) {
            return compress::build(choice, target);
        }
        let matrix = self.weighted(target.matrix);
        let start = target.start.and_then(|network| on_outputs(network, &self.root));
        let weighted = Target { matrix: &matrix, start: start.as_ref(), ..target };
        match compress::build(choice, weighted)? {
            Weight::Network(network) => match self.undone(&network) {
                Some(network) => Ok(Weight::Network(network)),
                None => compress::build(choice, target),
            },
            Weight::Dense(_) => compress::build(choice, target),
        }
    }
}

/// The network whose outputs are `map` times those of `network`, if one core alone has all outputs.
fn on_outputs(network: &Network, map: &Matrix) -> Option<Network> {
    let outputs = |modes: &[Mode]| modes.iter().filter(|mode| matches!(mode, Mode::Output(_))).count();
    let mut bearers = network.cores.iter().enumerate().filter(|(_, core)| outputs(&core.modes) > 0);
    let (Some((index, core)), None, None) = (bearers.next(), bearers.next(), &network.row_scale) else {
        return None;
    };
    let axis = core.modes.iter().position(|mode| *mode == Mode::Output(0))?;
    if outputs(&core.modes) != 1 || core.tensor.shape[axis] != map.nrows() {
        return None;
    }
    let inner: usize = core.tensor.shape[axis + 1..].iter().product();
    let mut mapped = network.clone();
    for (block, source) in mapped.cores[index]
        .tensor
        .data
        .chunks_exact_mut((map.nrows() * inner).max(1))
        .zip(core.tensor.data.chunks_exact((map.nrows() * inner).max(1)))
    {
        let source = Matrix::from_fn(map.nrows(), inner, |o, k| f64::from(source[o * inner + k]));
        let image = product(map.as_ref(), source.as_ref());
        block.iter_mut().enumerate().for_each(|(k, x)| *x = image[(k / inner, k % inner)] as f32);
    }
    Some(mapped)
}

/// The metric of each node's output; `None` for nodes that are no linear layers with a dense weight in one group.
pub fn metrics(
    graph: &Graph,
    loss: Loss,
    inputs: &[Vec<f32>],
    samples: usize,
) -> Result<Vec<Option<Metric>>, NotConverged> {
    let compressible =
        |index: &usize| Geometry::of(graph, &graph.nodes[*index]).is_some_and(|own| own.groups == 1);
    let layers: Vec<usize> = linear_layers(graph).filter(compressible).collect();
    let chunks: Vec<Vec<Matrix>> = (0..samples.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let start = chunk * CHUNK;
            let count = CHUNK.min(samples - start);
            let len = |data: &[f32]| data.len() / samples;
            let inputs: Vec<&[f32]> =
                inputs.iter().map(|data| &data[start * len(data)..(start + count) * len(data)]).collect();
            let tape = Tape::new(graph, &inputs, count);
            let mut sums: Vec<Matrix> = layers.iter().map(|index| zeros(graph, *index)).collect();
            let mut signs = Signs(chunk as u64 + 1);
            for _ in 0..DRAWS {
                let cotangents = cotangents(&tape, graph, loss, count, &mut signs);
                let gradients = tape.pull_back(&cotangents, &layers);
                for ((sum, gradient), index) in sums.iter_mut().zip(&gradients).zip(&layers) {
                    let (rows, width) = (rows(graph, *index, gradient), sum.nrows().max(1));
                    add_square(sum.as_mut(), &rows, rows.len() / width);
                }
            }
            sums
        })
        .collect();
    let mut metrics = vec![None; graph.nodes.len()];
    for (position, index) in layers.iter().enumerate() {
        let mut sum = zeros(graph, *index);
        chunks.iter().for_each(|chunk| sum += &chunk[position]);
        mirror(&mut sum);
        metrics[*index] = Some(Metric::new(&sum)?);
    }
    Ok(metrics)
}

fn zeros(graph: &Graph, index: usize) -> Matrix {
    let outputs = graph.nodes[index].op.weight().map_or(0, |weight| weight.shape()[0]);
    Matrix::zeros(outputs, outputs)
}

/// The gradients of a layer's outputs as rows, one for each position.
fn rows(graph: &Graph, index: usize, gradient: &[f32]) -> Vec<f32> {
    let Some(geometry) = Geometry::of(graph, &graph.nodes[index]) else { return Vec::new() };
    let [channels, height, width] = geometry.output;
    let area = height * width;
    let mut rows = vec![0.0; gradient.len()];
    for (rows, image) in
        rows.chunks_exact_mut((channels * area).max(1)).zip(gradient.chunks_exact((channels * area).max(1)))
    {
        for (position, row) in rows.chunks_exact_mut(channels).enumerate() {
            row.iter_mut().enumerate().for_each(|(channel, x)| *x = image[channel * area + position]);
        }
    }
    rows
}

/// One draw: the derivative of the outputs' part of the loss, with the loss's curvature as its second moments.
fn cotangents(
    tape: &Tape<'_>,
    graph: &Graph,
    loss: Loss,
    samples: usize,
    signs: &mut Signs,
) -> Vec<Vec<f32>> {
    let Loss::Divergence { probabilities } = loss else {
        return graph
            .outputs
            .iter()
            .map(|id| tape.value(*id).iter().map(|_| signs.next()).collect())
            .collect();
    };
    let scores = tape.value(graph.outputs[0]);
    let classes = (scores.len() / samples.max(1)).max(1);
    let mut cotangent = Vec::with_capacity(scores.len());
    for row in scores.chunks_exact(classes) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let exponentials: Vec<f32> =
            row.iter().map(|x| if probabilities { x.max(1e-12) } else { (x - largest).exp() }).collect();
        let sum: f32 = exponentials.iter().sum();
        let roots: Vec<f32> = exponentials.iter().map(|e| (e / sum).max(1e-12).sqrt()).collect();
        let signed: Vec<f32> = roots.iter().map(|root| root * signs.next()).collect();
        if probabilities {
            cotangent.extend(signed.iter().zip(&roots).map(|(signed, root)| signed / (root * root)));
        } else {
            let mean: f32 = signed.iter().sum();
            cotangent.extend(signed.iter().zip(&roots).map(|(signed, root)| signed - root * root * mean));
        }
    }
    vec![cotangent]
}

/// Pseudo-random signs (xorshift, Marsaglia 2003), always the same ones for a seed.
struct Signs(u64);

impl Signs {
    fn next(&mut self) -> f32 {
        // A multiplier spreads small seeds over all bits.
        if self.0 < 1 << 32 {
            self.0 = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        }
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if self.0 >> 63 == 0 { 1.0 } else { -1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::{covariance, matrix, noise};
    use crate::graph::Tensor;
    use crate::search::refit::tests::{images, network};

    #[test]
    fn weighted_build_is_the_best_in_its_metric_and_full_rank_is_exact() {
        let shape = [6, 4, 2, 2];
        let (m, c) = (matrix(6, 16, 1), covariance(16, 2));
        let target = Target::new(&shape, &m, &c);
        let moments = covariance(6, 3);
        let metric = Metric::new(&moments).unwrap();
        let weighted = |weight: &Weight| {
            let lost = &m - compress::to_matrix(&compress::dense(weight).unwrap());
            let lost = product(metric.root.as_ref(), lost.as_ref());
            crate::linalg::inner(product(lost.as_ref(), c.as_ref()).as_ref(), lost.as_ref())
        };
        for choice in [Choice::LowRank(2), Choice::Tucker(2, Some(3)), Choice::Tucker(3, None)] {
            let (with, without) =
                (metric.build(choice, target).unwrap(), compress::build(choice, target).unwrap());
            assert!(weighted(&with) <= weighted(&without) * (1.0 + 1e-3), "{choice:?}");
            assert_eq!(with.parameters(), without.parameters());
        }
        let full = metric.build(Choice::LowRank(6), target).unwrap();
        assert!(weighted(&full) < 1e-9 * weighted(&Weight::Dense(Tensor::zeros(shape.to_vec()))));
        let dense = metric.build(Choice::Dense, target).unwrap();
        assert_eq!(dense, compress::build(Choice::Dense, target).unwrap());
    }

    #[test]
    fn moments_of_a_linear_classifier_are_those_of_its_softmax() {
        // The last layer gives the scores: its metric is the mean of diag(p) - p p'.
        let graph = network();
        let samples = 400;
        let inputs = images(samples, 1);
        let scores = crate::evaluate::evaluate(&graph, &inputs, samples, &graph.outputs).remove(0);
        let mut expected = Matrix::zeros(10, 10);
        for row in scores.chunks_exact(10) {
            let exponentials: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
            let p: Vec<f64> = exponentials.iter().map(|e| e / exponentials.iter().sum::<f64>()).collect();
            for (i, j) in (0..10).flat_map(|i| (0..10).map(move |j| (i, j))) {
                expected[(i, j)] += if i == j { p[i] } else { 0.0 } - p[i] * p[j];
            }
        }
        let expected = Metric::new(&expected).unwrap();
        let loss = Loss::Divergence { probabilities: false };
        let found = metrics(&graph, loss, &inputs, samples).unwrap();
        let root = &found[4].as_ref().unwrap().root;
        assert!((root - &expected.root).norm_max() < 0.15 * expected.root.norm_max());
        assert!(found[0].is_some() && found[2].is_none());
    }

    #[test]
    fn flat_and_wild_outputs_give_finite_metrics() {
        let graph = network();
        for scale in [0.0f32, 1e-30, 1e20] {
            let inputs = vec![noise(3 * 144, 2).iter().map(|x| x * scale).collect::<Vec<f32>>()];
            for loss in [Loss::Divergence { probabilities: false }, Loss::Squares] {
                for metric in metrics(&graph, loss, &inputs, 3).unwrap().iter().flatten() {
                    assert!(metric.root.norm_max().is_finite() && metric.inverse.norm_max() <= 2.0);
                }
            }
        }
    }
}
