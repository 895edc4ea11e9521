//! Rounds the layers one after the other, each fitted to what the already rounded network feeds it.
//!
//! Takes a float graph, the quantisations of its values and calibration samples; gives weights and biases that lie on their grids. The float and the
//! integer network advance side by side. A layer's goal is what the float network gives before the activation (for a branch of an addition: less what the
//! other branch has wrong); its input is what the integer network feeds it. Weights are fitted by ridge regression towards the float weights, then rounded
//! with compensation ([`super::rounding`]); the bias makes up for what is left of the mean. Which ridge, and whether to fit at all, is
//! decided on halves of the samples that a fit has not seen; rounding each weight to its nearest level always competes.

use super::layer::{Layer, LayerInput};
use super::rounding::{compensated, nearest};
use super::simulate::round;
use super::{Error, stored_bounds};
use crate::calibrate::covariance::{Covariance, Geometry, Moments, moments};
use crate::compress::to_matrix;
use crate::evaluate::{Values, evaluate_from};
use crate::graph::{ActivationRange, Graph, Op, Tensor};
use crate::linalg::{Matrix, product, solve};

/// How a layer may be rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Each weight to its nearest level.
    Nearest,
    /// With compensation, after a fit with this ridge (in units of the mean variance) if any.
    Compensated(Option<f64>),
}

/// All ways, the plainest first.
const WAYS: [Way; 4] =
    [Way::Nearest, Way::Compensated(None), Way::Compensated(Some(1e-1)), Way::Compensated(Some(1e-2))];

/// Weights on a grid, of one group of a layer's channels.
struct OnGrid {
    /// Integers.
    levels: Matrix,
    scales: Vec<f32>,
    bias: Vec<f64>,
}

impl OnGrid {
    fn weight(&self) -> Matrix {
        Matrix::from_fn(self.levels.nrows(), self.levels.ncols(), |o, j| {
            f64::from(self.scales[o]) * self.levels[(o, j)]
        })
    }
}

/// The integer layer that comes nearest to `goal` (the wanted output before the activation) on the input that it will see; `None` if numbers are not
/// finite, or if fixed weight scales are not one for each output channel ([`Layer::new`] says so). Both hold `samples` samples.
pub fn fitted(
    from: &LayerInput<'_>,
    geometry: &Geometry,
    input: &[f32],
    goal: &[f32],
    samples: usize,
) -> Option<Result<Layer, Error>> {
    let rows = geometry.group_outputs();
    if from.scales.is_some_and(|scales| scales.len() != rows * geometry.groups) {
        return None;
    }
    let weight = to_matrix(from.weight);
    let mut real = Vec::with_capacity(from.weight.len());
    let (mut scales, mut bias) = (Vec::new(), Vec::new());
    for group in 0..geometry.groups {
        let first = group * rows;
        let own = Rows { from, first, weight: weight.get(first..first + rows, ..).to_owned() };
        let folds = moments(geometry, group, input, goal, samples, 2)?;
        let seen = folds.iter().map(Moments::covariance).collect::<Vec<_>>();
        let judge = |way: &Way| -> f64 {
            let loss = |known: usize, other: usize| {
                let found = own.rounded(*way, &seen[known]);
                folds[other].squared_error(&found.weight(), &found.bias)
            };
            loss(0, 1) + loss(1, 0)
        };
        let mut best = (f64::INFINITY, Way::Nearest);
        if folds.iter().all(|fold| fold.count > 0.0) {
            for way in WAYS {
                let loss = judge(&way);
                if loss < best.0 {
                    best = (loss, way);
                }
            }
        }
        let found = own.rounded(best.1, &folds[0].merged(&folds[1]).covariance());
        let matrix = found.weight();
        real.extend(
            (0..rows).flat_map(|o| (0..matrix.ncols()).map(move |j| (o, j))).map(|at| matrix[at] as f32),
        );
        bias.extend(found.bias.iter().map(|b| *b as f32));
        scales.extend(found.scales);
    }
    let weight = Tensor::new(from.weight.shape.clone(), real);
    Some(Layer::new(&LayerInput { weight: &weight, bias, scales: Some(&scales), ..from.clone() }))
}

/// Some output channels of a layer.
struct Rows<'a> {
    from: &'a LayerInput<'a>,
    first: usize,
    weight: Matrix,
}

impl Rows<'_> {
    fn rounded(&self, way: Way, seen: &Covariance) -> OnGrid {
        let damped = seen.damped(1e-3);
        let weight = match way {
            Way::Compensated(Some(ridge)) => {
                // min |Y - M X|^2 + l |M - W|^2, solved for the difference to W.
                let residual = &seen.yx - product(self.weight.as_ref(), seen.xx.as_ref());
                &self.weight + solve(seen.damped(ridge).as_ref(), residual.transpose()).transpose()
            }
            _ => self.weight.clone(),
        };
        let row = |o: usize| (0..weight.ncols()).map(|j| weight[(o, j)] as f32).collect::<Vec<f32>>();
        let scale = |o: usize| match self.from.scales {
            Some(scales) => scales[self.first + o],
            None => self.from.scale_of(&row(o), self.from.bias[self.first + o]),
        };
        let scales: Vec<f32> = (0..weight.nrows()).map(scale).collect();
        let levels = match way {
            Way::Nearest => nearest(&weight, &scales, self.from.levels),
            Way::Compensated(_) => compensated(&weight, &scales, &damped, self.from.levels),
        };
        let mut found = OnGrid { levels, scales, bias: Vec::new() };
        let real = found.weight();
        let mean = |o: usize| seen.mean_x.iter().enumerate().map(|(j, x)| real[(o, j)] * x).sum::<f64>();
        found.bias = seen.mean_y.iter().enumerate().map(|(o, y)| y - mean(o)).collect();
        found
    }
}

/// The float and the integer network, run side by side.
pub struct SideBySide {
    samples: usize,
    /// The float graph without activations in linear layers.
    linear: Graph,
    float: Values,
    rounded: Values,
}

impl SideBySide {
    /// Starts from the inputs of `graph`, whose values have their quantisations.
    pub fn new(graph: &Graph, inputs: &[Vec<f32>], samples: usize) -> Self {
        let mut linear = graph.clone();
        for node in &mut linear.nodes {
            match &mut node.op {
                Op::Conv(conv) => conv.activation = ActivationRange::NONE,
                Op::Dense(dense) => dense.activation = ActivationRange::NONE,
                _ => {}
            }
        }
        let float: Values = graph.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
        let mut rounded = float.clone();
        for (id, data) in &mut rounded {
            if let Some(quantization) = graph.value(*id).quantization {
                round(data, quantization, stored_bounds(ActivationRange::NONE, quantization));
            }
        }
        Self { samples, linear, float, rounded }
    }

    /// What the rounded network feeds node `index`, and what the node should give before its activation.
    pub fn task(&self, index: usize) -> (&[f32], Vec<f32>) {
        let node = &self.linear.nodes[index];
        let mut goal = self.run(&self.linear, index, &self.float);
        if let Some((wanted, given)) = self.other_branch(index) {
            let lacks = wanted.iter().zip(given).map(|(wanted, given)| wanted - given);
            goal.iter_mut().zip(lacks).for_each(|(goal, lacks)| *goal += lacks);
        }
        (&self.rounded[&node.inputs[0]], goal)
    }

    /// The other operand of the addition that alone reads node `index`, in both networks, if it is known already.
    fn other_branch(&self, index: usize) -> Option<(&[f32], &[f32])> {
        let graph = &self.linear;
        let id = graph.nodes[index].output;
        let [reader] = graph.consumers(id)[..] else { return None };
        let reader = &graph.nodes[reader];
        if !matches!(reader.op, Op::Add(_)) || graph.outputs.contains(&id) {
            return None;
        }
        let other = reader.inputs.iter().find(|other| **other != id)?;
        Some((self.float.get(other)?, self.rounded.get(other)?))
    }

    /// Advances both networks over node `index`, which is as `graph` says in the integer one; stored outputs lie in `bounds`.
    pub fn step(&mut self, float: &Graph, graph: &Graph, index: usize, bounds: Option<[i32; 2]>) {
        let output = graph.nodes[index].output;
        let wanted = self.run(float, index, &self.float);
        let mut given = self.run(graph, index, &self.rounded);
        if let Some(quantization) = graph.value(output).quantization {
            let bounds = bounds.unwrap_or_else(|| stored_bounds(ActivationRange::NONE, quantization));
            round(&mut given, quantization, bounds);
        }
        self.float.insert(output, wanted);
        self.rounded.insert(output, given);
        for id in &graph.nodes[index].inputs {
            let read_later = graph.nodes[index + 1..].iter().any(|later| later.inputs.contains(id));
            if !read_later {
                self.float.remove(id);
                self.rounded.remove(id);
            }
        }
    }

    fn run(&self, graph: &Graph, index: usize, values: &Values) -> Vec<f32> {
        let output = graph.nodes[index].output;
        evaluate_from(graph, values, self.samples, &[output]).remove(&output).unwrap_or_default()
    }
}
