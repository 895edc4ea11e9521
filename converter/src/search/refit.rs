//! Sequential compression: layer by layer, each fitted to what the already compressed network feeds it.
//!
//! Takes a dense graph, a choice for each linear layer and calibration inputs; gives the graph with networks in place. The dense and the compressed
//! network advance side by side, one node at a time. A layer's target is the dense network's output before its activation; for a convolution
//! that only feeds an addition, the dense sum less the already compressed other branch, so errors of one branch are repaired by the other.
//! The fit is ridge regression towards the trained weight in closed form (Asymmetric3D, Zhang et al. 2016), truncated in
//! the metric of the compressed network's activations.
//! How far to trust the samples is decided on halves that a fit has not seen ([`fit`]); keeping the trained weight always competes.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::calibrate::covariance::{Covariance, Geometry, Moments, moments};
use crate::compress::{self, Choice, Target};
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Graph, Network, Node, Op, Tensor, ValueId, Weight};
use crate::linalg::{Matrix, product, solve};

use super::fisher::Metric;
use super::{Error, Progress};

/// What a layer became.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The weight.
    pub weight: Weight,
    /// One number for each output channel.
    pub bias: Vec<f32>,
    /// Relative RMS error of the layer's output against its target, on all calibration samples.
    pub error: f64,
    /// How the data was treated, where that was a choice; the same for other ranks of this layer.
    pub trust: Option<Trust>,
}

/// How a fit treats the data: ridge towards the trained weight (`None` keeps that weight), and ridge of the covariance that a truncation is
/// measured in; both in units of the mean variance.
pub type Trust = (Option<f64>, f64);

/// With far more rows than unknowns a small ridge is right.
const PLENTY: [Trust; 1] = [(Some(1e-3), 1e-3)];

/// Tried with fewer rows, which are not independent of each other either ...
const SCARCE: [Trust; 5] =
    [(Some(1e-2), 1e-2), (Some(1e-1), 1e-1), (Some(1.0), 1.0), (None, 1e-1), (None, 1.0)];

/// ... and with fewer rows than unknowns.
const WIDE: [Trust; 6] =
    [(Some(1e-1), 1e-1), (Some(1.0), 1.0), (Some(10.0), 1.0), (Some(30.0), 3.0), (None, 1.0), (None, 3.0)];

/// The trust found for layers in an earlier run, by node: later runs with other ranks take it over instead of judging anew.
pub type Trusted = HashMap<usize, Trust>;

/// Values of one graph while it is evaluated node by node.
pub(super) type Values = Vec<Option<Arc<Vec<f32>>>>;

/// Compresses every layer that `plan` names (`plan[k]` for node `k`, `None` for nodes that are no layer) on `samples` calibration samples. Gives the
/// graph, and for each node that was fitted the relative RMS error of its output (of the sum that it is a branch of, if it repairs one).
pub fn refit(
    graph: &Graph,
    plan: &[Option<Form<'_>>],
    metrics: &[Option<Metric>],
    inputs: &[Vec<f32>],
    samples: usize,
    trusted: &mut Trusted,
    progress: &dyn Progress,
) -> Result<(Graph, Vec<Option<f64>>), Error> {
    let mut result = graph.clone();
    let mut errors = vec![None; graph.nodes.len()];
    let mut dense: Values = vec![None; graph.values.len()];
    for (id, values) in graph.inputs.iter().zip(inputs) {
        dense[id.0] = Some(Arc::new(values.clone()));
    }
    let mut compressed = dense.clone();
    for (index, node) in graph.nodes.iter().enumerate() {
        let linear = run(graph, &without_activation(node), &dense, samples);
        let mut own = node.clone();
        if let (Some(Form { choice, start }), Some(geometry)) = (plan[index], Geometry::of(graph, node)) {
            progress.step(&format!("fitting {}", node.name));
            let target = target(graph, index, &linear, &dense, &compressed);
            let unchanged = same(&dense, &compressed, node.inputs[0]) && matches!(target, Goal::Own(_));
            if !matches!(choice, Choice::Dense | Choice::Given) || !unchanged {
                let goal: &[f32] = match &target {
                    Goal::Own(values) => values,
                    Goal::Corrected { own, .. } => own,
                };
                let input = value(&compressed, node.inputs[0]);
                let fail = |reason| Error::Fit { node: node.name.clone(), op: node.op.name(), reason };
                let known = trusted.get(&index).copied();
                let task = Task { choice, start, metric: metrics.get(index).and_then(Option::as_ref) };
                let fitted = fit(&own.op, &geometry, task, input, goal, samples, known).map_err(fail)?;
                let whole = if let Goal::Corrected { sum, .. } = &target { sum } else { goal };
                errors[index] = Some(relative(&fitted, goal, whole, geometry.output));
                if let (Some(trust), true) = (fitted.trust, choice != Choice::Dense) {
                    trusted.insert(index, trust);
                }
                let effective = compress::dense(&fitted.weight).map_err(|error| fail(error.to_string()))?;
                set(&mut own.op, Weight::Dense(effective), &fitted.bias);
                set(&mut result.nodes[index].op, fitted.weight, &fitted.bias);
            }
        }
        let same_inputs = node.inputs.iter().all(|id| same(&dense, &compressed, *id));
        let activation = activation(&node.op);
        let linear = Arc::new(linear.into_iter().map(|x| activation.apply(x)).collect::<Vec<f32>>());
        compressed[node.output.0] = Some(if same_inputs && own == *node {
            linear.clone()
        } else {
            Arc::new(run(graph, &own, &compressed, samples))
        });
        dense[node.output.0] = Some(linear);
        // Values that no later node reads are dropped.
        for id in &node.inputs {
            let read_later = graph.nodes[index + 1..].iter().any(|later| later.inputs.contains(id));
            if !read_later {
                dense[id.0] = None;
                compressed[id.0] = None;
            }
        }
    }
    Ok((result, errors))
}

/// What a layer should give.
enum Goal<'a> {
    /// Its own output in the dense network.
    Own(&'a [f32]),
    /// An addition repaired by this branch.
    Corrected {
        /// Its output plus what the other branch lacks.
        own: Vec<f32>,
        /// The whole sum in the dense network.
        sum: Vec<f32>,
    },
}

/// The error of a fit relative to `whole`, the values that it is a part of (`goal` itself, or a sum).
fn relative(fitted: &Fitted, goal: &[f32], whole: &[f32], output: [usize; 3]) -> f64 {
    let (own, all) = (variance(goal, output), variance(whole, output));
    if all > 0.0 { fitted.error * (own / all).sqrt() } else { fitted.error }
}

/// Variance around the mean of each channel, summed over the channels, of images `[channels, height, width]`.
fn variance(values: &[f32], [channels, height, width]: [usize; 3]) -> f64 {
    let mut sums = vec![[0.0; 2]; channels];
    for (index, plane) in values.chunks_exact((height * width).max(1)).enumerate() {
        let [sum, squares] = &mut sums[index % channels];
        *sum += plane.iter().map(|x| f64::from(*x)).sum::<f64>();
        *squares += plane.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    }
    let n = (values.len() / channels.max(1)).max(1) as f64;
    sums.iter().map(|[sum, squares]| (squares / n - (sum / n).powi(2)).max(0.0)).sum()
}

fn target<'a>(
    graph: &Graph,
    index: usize,
    linear: &'a [f32],
    dense: &Values,
    compressed: &Values,
) -> Goal<'a> {
    let node = &graph.nodes[index];
    let own = Goal::Own(linear);
    let (true, false, [reader]) = (
        activation(&node.op).is_none(),
        graph.outputs.contains(&node.output),
        &graph.consumers(node.output)[..],
    ) else {
        return own;
    };
    let reader = &graph.nodes[*reader];
    let (Op::Add(_), Some(other)) = (&reader.op, reader.inputs.iter().copied().find(|id| *id != node.output))
    else {
        return own;
    };
    match (&dense[other.0], &compressed[other.0]) {
        (Some(wanted), Some(given)) if !Arc::ptr_eq(wanted, given) => {
            let branches = || linear.iter().zip(wanted.iter().zip(given.iter()));
            Goal::Corrected {
                own: branches().map(|(y, (wanted, given))| y + (wanted - given)).collect(),
                sum: branches().map(|(y, (wanted, _))| y + wanted).collect(),
            }
        }
        _ => own,
    }
}

fn same(dense: &Values, compressed: &Values, id: ValueId) -> bool {
    matches!((&dense[id.0], &compressed[id.0]), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
}

fn value(values: &Values, id: ValueId) -> &[f32] {
    values[id.0].as_ref().map_or(&[], |values| values.as_slice())
}

/// Runs one node of `graph` on values that are known.
pub(super) fn run(graph: &Graph, node: &Node, values: &Values, samples: usize) -> Vec<f32> {
    let mut distinct = node.inputs.clone();
    distinct.dedup();
    let single = Graph {
        name: String::new(),
        values: graph.values.clone(),
        nodes: vec![node.clone()],
        inputs: distinct,
        outputs: vec![node.output],
    };
    let inputs: Vec<Vec<f32>> = single.inputs.iter().map(|id| value(values, *id).to_vec()).collect();
    evaluate(&single, &inputs, samples, &single.outputs).pop().unwrap_or_default()
}

/// The activation fused into a linear layer; none for other nodes.
pub(super) fn activation(op: &Op) -> ActivationRange {
    match op {
        Op::Conv(conv) => conv.activation,
        Op::Dense(dense) => dense.activation,
        _ => ActivationRange::NONE,
    }
}

/// The same node, giving its sums.
pub(super) fn without_activation(node: &Node) -> Node {
    let mut node = node.clone();
    match &mut node.op {
        Op::Conv(conv) => conv.activation = ActivationRange::NONE,
        Op::Dense(dense) => dense.activation = ActivationRange::NONE,
        _ => {}
    }
    node
}

/// Gives a linear layer another weight and bias.
pub fn set(op: &mut Op, new: Weight, new_bias: &[f32]) {
    let (weight, bias) = match op {
        Op::Conv(conv) => (&mut conv.weight, &mut conv.bias),
        Op::Dense(dense) => (&mut dense.weight, &mut dense.bias),
        _ => return,
    };
    *weight = new;
    // A layer that never had a bias keeps none as long as it needs none.
    if bias.is_some() || new_bias.iter().any(|b| *b != 0.0) {
        *bias = Some(new_bias.to_vec());
    }
}

/// The bias of a linear layer, zeros where it has none.
pub fn bias(op: &Op, outputs: usize) -> Vec<f64> {
    let bias = match op {
        Op::Conv(conv) => conv.bias.as_ref(),
        Op::Dense(dense) => dense.bias.as_ref(),
        _ => None,
    };
    bias.map_or_else(|| vec![0.0; outputs], |bias| bias.iter().map(|b| f64::from(*b)).collect())
}

/// Numbers that a fit adds to a layer that has no bias yet; 0 for all others.
pub fn missing_bias(graph: &Graph, index: usize) -> usize {
    let none = match &graph.nodes[index].op {
        Op::Conv(conv) => conv.bias.is_none(),
        Op::Dense(dense) => dense.bias.is_none(),
        _ => false,
    };
    let weight = graph.nodes[index].op.weight();
    weight.filter(|_| none).map_or(0, |weight| weight.shape()[0])
}

/// Fits one layer to `goal` (its wanted output before the activation) on its input in the compressed network; `known` skips the
/// judgement of how far to trust the data. The error names what is wrong.
pub fn fit(
    op: &Op,
    geometry: &Geometry,
    task: Task<'_>,
    input: &[f32],
    goal: &[f32],
    samples: usize,
    known: Option<Trust>,
) -> Result<Fitted, String> {
    let Some(tensor) = op.dense_weight() else { return Err("its weight is factorised already".into()) };
    let weight = compress::to_matrix(tensor);
    let bias = bias(op, weight.nrows());
    let rows = geometry.group_outputs();
    let mut shape = tensor.shape.clone();
    shape[0] = rows;
    let (mut squared, mut power) = (0.0, 0.0);
    let (mut parts, mut trusts) = (Vec::with_capacity(geometry.groups), Vec::new());
    let mut new_bias = Vec::with_capacity(bias.len());
    for group in 0..geometry.groups {
        let range = group * rows..(group + 1) * rows;
        let own = Layer {
            shape: &shape,
            weight: weight.get(range.clone(), ..).to_owned(),
            bias: bias[range].to_vec(),
            task,
        };
        let folds = moments(geometry, group, input, goal, samples, 2)
            .ok_or("its input or output is not finite on the calibration data")?;
        let all = folds[0].merged(&folds[1]);
        let (fitted, bias, trust) = own.best(&folds, &all, known)?;
        trusts.push(trust);
        let effective = compress::dense(&fitted).map_err(|error| error.to_string())?;
        squared += all.squared_error(&compress::to_matrix(&effective), &bias);
        power += all.variance_y();
        new_bias.extend(bias.iter().map(|b| *b as f32));
        parts.push((fitted, effective));
    }
    let weight = match parts.len() {
        1 => parts.remove(0).0,
        _ => {
            let data = parts.iter().flat_map(|(_, dense)| dense.data.iter().copied()).collect();
            Weight::Dense(Tensor::new(tensor.shape.clone(), data))
        }
    };
    let error = if power > 0.0 { (squared / power).sqrt() } else { 0.0 };
    let trust = if let [trust] = trusts[..] { trust } else { None };
    Ok(Fitted { weight, bias: new_bias, error, trust })
}

/// What becomes of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// Format and ranks.
    pub choice: Choice,
    /// The same for the layer as it was trained, if that is known.
    pub start: Option<&'a Network>,
}

impl From<Choice> for Form<'_> {
    fn from(choice: Choice) -> Self {
        Self { choice, start: None }
    }
}

/// What to fit a layer as.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The form.
    pub choice: Choice,
    /// Factors that an iterative fit may start from.
    pub start: Option<&'a Network>,
    /// Which errors of the output count how much; all the same without.
    pub metric: Option<&'a Metric>,
}

/// One channel group of a layer, and what it should become.
struct Layer<'a> {
    shape: &'a [usize],
    weight: Matrix,
    bias: Vec<f64>,
    task: Task<'a>,
}

impl Layer<'_> {
    /// The fit with the trust that does best on the half it has not seen, repeated on all rows.
    fn best(
        &self,
        folds: &[Moments],
        all: &Moments,
        known: Option<Trust>,
    ) -> Result<(Weight, Vec<f64>, Option<Trust>), String> {
        if self.task.choice == Choice::Given {
            // The weight stays; the bias makes up for what the layers before lose.
            let trust = (None, 1.0);
            let (weight, bias) = self.fit(&all.covariance(), trust)?;
            return Ok((weight, bias, None));
        }
        if let Some(trust) = known.filter(|_| self.task.choice != Choice::Dense) {
            let (weight, bias) = self.fit(&all.covariance(), trust)?;
            return Ok((weight, bias, known));
        }
        let unseen = folds.iter().all(|fold| fold.count > 0.0);
        let unknowns = self.weight.ncols() as f64;
        let options: &[Trust] = match folds[0].count / unknowns {
            20.0.. => &PLENTY,
            1.0.. => &SCARCE,
            _ => &WIDE,
        };
        let mut best = if self.task.choice == Choice::Dense {
            let kept = |fold: &Moments| fold.squared_error(&self.weight, &self.bias);
            (folds.iter().map(kept).sum::<f64>(), None)
        } else {
            // Without a second half nothing can be judged: keep the weight, and trust the covariance little.
            (f64::INFINITY, Some((None, 1.0)))
        };
        let stand_in = self.stand_in();
        let compete = unseen && (options.len() > 1 || self.task.choice == Choice::Dense);
        if compete {
            let fitted = |trust: Trust| self.task.choice != Choice::Dense || trust.0.is_some();
            let judged: Result<Vec<(f64, Trust)>, String> = options
                .par_iter()
                .filter(|trust| fitted(**trust))
                .map(|&trust| {
                    let mut loss = 0.0;
                    for (seen, other) in [(0, 1), (1, 0)] {
                        let (weight, bias) = self.fit_as(stand_in, &folds[seen].covariance(), trust)?;
                        let dense = compress::dense(&weight).map_err(|error| error.to_string())?;
                        loss += folds[other].squared_error(&compress::to_matrix(&dense), &bias);
                    }
                    Ok((loss, trust))
                })
                .collect();
            for (loss, trust) in judged? {
                if loss < best.0 {
                    best = (loss, Some(trust));
                }
            }
        } else if unseen {
            best.1 = Some(PLENTY[0]);
        }
        match best.1 {
            Some(trust) => {
                let (weight, bias) = self.fit(&all.covariance(), trust)?;
                Ok((weight, bias, Some(trust)))
            }
            None => {
                let kept = Weight::Dense(compress::to_tensor(&self.weight, self.shape));
                Ok((kept, self.bias.clone(), None))
            }
        }
    }

    /// What trusts are judged with: how far samples are to be trusted depends little on the format, so one that takes long to fit is
    /// stood in for by low rank with as many numbers.
    fn stand_in(&self) -> Choice {
        match (self.task.choice, self.task.start) {
            (choice @ (Choice::LowRank(_) | Choice::Tucker(..)), _) | (choice, None) => choice,
            (_, Some(network)) => {
                let numbers: usize = network.cores.iter().map(|core| core.tensor.len()).sum();
                let (o, d) = (self.weight.nrows(), self.weight.ncols());
                Choice::LowRank((numbers / (o + d).max(1)).clamp(1, o.min(d).max(1)))
            }
        }
    }

    /// Weight and bias from the moments of some rows.
    fn fit(&self, seen: &Covariance, trust: Trust) -> Result<(Weight, Vec<f64>), String> {
        self.fit_as(self.task.choice, seen, trust)
    }

    /// The same in another format.
    fn fit_as(
        &self,
        choice: Choice,
        seen: &Covariance,
        (ridge, metric): Trust,
    ) -> Result<(Weight, Vec<f64>), String> {
        let matrix = match ridge {
            Some(lambda) => {
                // min |Y - M X|^2 + l |M - W|^2, solved for the difference to W.
                let damped = seen.damped(lambda);
                let residual = &seen.yx - product(self.weight.as_ref(), seen.xx.as_ref());
                &self.weight + solve(damped.as_ref(), residual.transpose()).transpose()
            }
            None => self.weight.clone(),
        };
        let covariance = seen.damped(metric);
        let start = self.task.start.filter(|_| choice == self.task.choice);
        let target = Target { start, ..Target::new(self.shape, &matrix, &covariance) };
        let weight = match self.task.metric {
            Some(metric) => metric.build(choice, target),
            None => compress::build(choice, target),
        }
        .map_err(|error| error.to_string())?;
        let effective = compress::to_matrix(&compress::dense(&weight).map_err(|error| error.to_string())?);
        Ok((weight, centred_bias(&effective, &seen.mean_x, &seen.mean_y)))
    }
}

/// The bias that gives the mean target: `mean_y - weight * mean_x`.
fn centred_bias(weight: &Matrix, mean_x: &[f64], mean_y: &[f64]) -> Vec<f64> {
    let row = |o: usize| mean_x.iter().enumerate().map(|(j, x)| weight[(o, j)] * x).sum::<f64>();
    mean_y.iter().enumerate().map(|(o, y)| y - row(o)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compress::tests::noise;
    use crate::graph::{Conv, Dense};
    use crate::search::Silent;

    /// conv -> relu -> conv -> add(first) -> dense over 6x6 images with 4 channels.
    pub(crate) fn network() -> Graph {
        let mut graph = Graph::default();
        let mut value = |name: &str, shape: &[usize]| graph.add_value(name, shape.to_vec());
        let image = [1, 4, 6, 6];
        let (x, a, b, c) = (value("x", &image), value("a", &image), value("b", &image), value("c", &image));
        let (flat, y) = (value("flat", &[1, 144]), value("y", &[1, 10]));
        let conv = |seed, activation| {
            let weight = Weight::Dense(Tensor::new(vec![4, 4, 3, 3], noise(144, seed)));
            let (strides, pads, dilations) = ([1, 1], [1; 4], [1, 1]);
            Op::Conv(Conv {
                weight,
                bias: Some(noise(4, seed + 50)),
                strides,
                pads,
                dilations,
                groups: 1,
                activation,
            })
        };
        let weight = Weight::Dense(Tensor::new(vec![10, 144], noise(1440, 3)));
        let dense = Op::Dense(Dense { weight, bias: None, activation: ActivationRange::NONE });
        graph.nodes = [
            ("first", conv(1, ActivationRange::RELU), vec![x], a),
            ("second", conv(2, ActivationRange::NONE), vec![a], b),
            ("add", Op::Add(ActivationRange::RELU), vec![b, a], c),
            ("reshape", Op::Reshape(vec![1, 144]), vec![c], flat),
            ("dense", dense, vec![flat], y),
        ]
        .map(|(name, op, inputs, output)| Node { name: name.into(), op, inputs, output })
        .to_vec();
        (graph.inputs, graph.outputs) = (vec![x], vec![y]);
        graph.check().unwrap();
        graph
    }

    /// Correlated images.
    pub(crate) fn images(samples: usize, seed: u64) -> Vec<Vec<f32>> {
        let raw = noise(samples * 144, seed);
        vec![(0..raw.len()).map(|k| raw[k] + raw[k / 3] + raw[k / 36]).collect()]
    }

    fn error(graph: &Graph, other: &Graph, inputs: &[Vec<f32>], samples: usize) -> f64 {
        let lowered = crate::lower::lower(other).unwrap();
        let run = |graph: &Graph| evaluate(graph, inputs, samples, &graph.outputs);
        crate::evaluate::metrics::relative_rms(&run(graph)[0], &run(&lowered)[0])
    }

    const DENSE: Task<'_> = Task { choice: Choice::Dense, start: None, metric: None };
    const PLAN: [Option<Choice>; 5] =
        [Some(Choice::LowRank(3)), Some(Choice::Tucker(3, Some(3))), None, None, Some(Choice::Dense)];

    #[test]
    fn dense_plan_changes_nothing() {
        let graph = network();
        let plan = [Some(Choice::Dense), Some(Choice::Dense), None, None, Some(Choice::Dense)];
        let (result, errors) = refit(
            &graph,
            &plan.map(|choice| choice.map(Form::from)),
            &[],
            &images(6, 1),
            6,
            &mut Trusted::new(),
            &Silent,
        )
        .unwrap();
        assert_eq!(result, graph);
        assert!(errors.iter().all(Option::is_none));
    }

    #[test]
    fn sequential_refit_beats_separate_truncation_on_unseen_samples() {
        let graph = network();
        let (seen, unseen) = (images(300, 1), images(40, 2));
        let (refitted, errors) = refit(
            &graph,
            &PLAN.map(|choice| choice.map(Form::from)),
            &[],
            &seen,
            300,
            &mut Trusted::new(),
            &Silent,
        )
        .unwrap();
        assert!(errors[0].unwrap() > 0.01 && errors[4].is_some());
        let mut separate = graph.clone();
        for (node, choice) in separate.nodes.iter_mut().zip(PLAN) {
            let (Some(tensor), Some(choice)) = (node.op.dense_weight(), choice) else { continue };
            let (matrix, shape) = (compress::to_matrix(tensor), tensor.shape.clone());
            let plain = Matrix::identity(matrix.ncols(), matrix.ncols());
            let target = Target::new(&shape, &matrix, &plain);
            let own: Vec<f32> = bias(&node.op, shape[0]).iter().map(|b| *b as f32).collect();
            set(&mut node.op, compress::build(choice, target).unwrap(), &own);
        }
        let (with, without) = (error(&graph, &refitted, &unseen, 40), error(&graph, &separate, &unseen, 40));
        assert!(with < 0.8 * without, "{with} {without}");
    }

    #[test]
    fn refitting_a_dense_layer_never_raises_its_calibration_error() {
        let graph = network();
        let node = &graph.nodes[1];
        let geometry = Geometry::of(&graph, node).unwrap();
        let input = images(20, 4).remove(0);
        for (seed, disturbance) in [(5, 0.0), (6, 0.1), (7, 3.0)] {
            let known = Values::from([Some(Arc::new(input.clone()))]);
            let alone =
                Graph { nodes: vec![Node { inputs: vec![ValueId(0)], ..node.clone() }], ..graph.clone() };
            let mut goal = run(&alone, &alone.nodes[0], &known, 20);
            goal.iter_mut().zip(noise(20 * 144, seed)).for_each(|(y, e)| *y += disturbance * e);
            let before = moments(&geometry, 0, &input, &goal, 20, 1).unwrap()[0]
                .squared_error(&compress::to_matrix(node.op.dense_weight().unwrap()), &bias(&node.op, 4));
            let fitted = fit(&node.op, &geometry, DENSE, &input, &goal, 20, None).unwrap();
            let dense = compress::to_matrix(&compress::dense(&fitted.weight).unwrap());
            let new_bias: Vec<f64> = fitted.bias.iter().map(|b| f64::from(*b)).collect();
            let after =
                moments(&geometry, 0, &input, &goal, 20, 1).unwrap()[0].squared_error(&dense, &new_bias);
            assert!(after <= before * (1.0 + 1e-5) + 1e-6, "{after} {before}");
        }
    }

    #[test]
    fn one_sample_zero_weights_and_extreme_ranges_give_finite_weights() {
        for (scale, samples) in [(1.0f32, 1), (0.0, 3), (1e-30, 3), (1e8, 3)] {
            let mut graph = network();
            for node in &mut graph.nodes {
                if let Op::Conv(Conv { weight: Weight::Dense(tensor), .. }) = &mut node.op {
                    tensor.data.iter_mut().for_each(|x| *x *= scale);
                }
            }
            let (result, errors) = refit(
                &graph,
                &PLAN.map(|choice| choice.map(Form::from)),
                &[],
                &images(samples, 9),
                samples,
                &mut Trusted::new(),
                &Silent,
            )
            .unwrap();
            assert!(errors.iter().flatten().all(|error| error.is_finite()));
            for node in &result.nodes {
                if let Some(weight) = node.op.weight() {
                    assert!(compress::dense(weight).unwrap().data.iter().all(|x| x.is_finite()), "{scale}");
                    assert!(bias(&node.op, 10).iter().all(|b| b.is_finite()));
                }
            }
        }
    }
}
