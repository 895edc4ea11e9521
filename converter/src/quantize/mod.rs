//! Turns a float graph into an integer one.
//!
//! Takes a lowered, legalised graph, calibration samples and [`Options`]. Gives a [`Quantized`]: every value with its
//! [`Quantization`], every linear layer with integer weights. The scheme is TensorFlow Lite's (Jacob et al. 2018, arXiv 1712.05877;
//! per-channel weights as in Krishnamoorthi 2018, arXiv 1806.08342): activations affine, 8 bits per tensor; weights symmetric, 8 bits for each
//! output channel; biases 32 bits in units of input scale times weight scale.
//!
//! Values that the graph pins keep their quantisation; the others get a range from calibration. Two rules are tried, the extremes and
//! the range of least squared error (`range`), each with and without bias correction (Nagel et al. 2019, arXiv 1906.04721), and on request the better rule with
//! layers fitted to what the rounded layers before them give (`refit`, `rounding`); the one whose simulated outputs come
//! nearest to the float outputs on the calibration samples wins, so no choice is worse there than plain extremes. Rank channels are
//! equalised first (`gauge`). Which of their values get 16 bits (`wide`), and which layers' weights 4 (`four`), may be left to such measures, too.
//!
//! Refused, naming node or value: a graph without calibration data unless all is pinned; operators that exist for floats
//! alone; a softmax over more than 4095 classes; accumulators that could pass 32 bits; pins that contradict each other.

mod four;
mod gauge;
mod layer;
mod range;
mod refit;
mod rounding;
mod simulate;
mod wide;

pub use four::WeightBits;
pub use layer::Layer;
pub use simulate::simulate;
pub use wide::RankBits;

use std::collections::{BTreeMap, HashMap};

use tucano::blob::DType;
use tucano::ops::softmax::MAX_ROW;

use crate::calibrate::Dataset;
use crate::calibrate::covariance::Geometry;
use crate::calibrate::ranges::{self, Statistics};
use crate::evaluate::{evaluate, metrics};
use crate::graph::{ActivationRange, Graph, Op, Quantization, Tensor, ValueId};
use layer::LayerInput;

/// How to quantise.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Width of values inside factorised layers. At 16 bits a value whose reader could overflow keeps fewer levels, or 8 bits.
    pub rank_bits: RankBits,
    /// Width of stored weights.
    pub weight_bits: WeightBits,
    /// Weight scales that the source model fixes, by node name, one for each output channel; other layers use the greatest magnitude / 127.
    pub weight_scales: BTreeMap<String, Vec<f32>>,
    /// Whether rounding with layers fitted one after the other competes too: it takes seconds, where the other ways take none.
    pub fit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rank_bits: RankBits::Eight,
            weight_bits: WeightBits::Eight,
            weight_scales: BTreeMap::new(),
            fit: false,
        }
    }
}

/// Widths of an integer model's numbers, as far as they are asked for; what is left to measuring counts as 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Of values inside factorised layers.
    pub rank: RankBits,
    /// Of stored weights.
    pub weights: WeightBits,
}

impl Widths {
    /// The width of values between stages that a search reckons with.
    pub fn planned_rank(self) -> RankBits {
        if self.wide() { RankBits::Sixteen } else { RankBits::Eight }
    }

    /// Whether values between stages have 16 bits.
    pub fn wide(self) -> bool {
        self.rank == RankBits::Sixteen
    }

    /// Whether the weights of `stage`, one of `stages` of a layer, have 4 bits.
    pub fn four_bits(self, stage: &Geometry, stages: usize) -> bool {
        let reads_wide = stages > 1 && self.wide();
        self.weights == WeightBits::Four && four::has_kernel(stage) && !reads_wide
    }
}

/// Why a graph cannot be quantised.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// Ranges are unknown.
    #[error(
        "int8 needs the range of `{value}`, and of {others} more values, but there is no calibration data"
    )]
    #[diagnostic(help("give samples of typical inputs: --calibrate DATA.npz"))]
    Uncalibrated {
        /// The first such value.
        value: String,
        /// How many more there are.
        others: usize,
    },
    /// Calibration gave numbers without a range.
    #[error("value `{value}` is not finite on the calibration data")]
    #[diagnostic(help("look for overflow in the model, or for unusual samples"))]
    NotFinite {
        /// The value.
        value: String,
    },
    /// A node that has no integer form.
    #[error("node `{node}` ({op}): {why}")]
    #[diagnostic(help("convert without --int8, or express the node by other operators"))]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What stands in the way.
        why: String,
    },
    /// A 32-bit accumulator might overflow.
    #[error(
        "node `{node}`: output channel {channel} may sum up to {bound}, which passes the 32-bit accumulator's {}",
        i32::MAX
    )]
    #[diagnostic(help(
        "split the layer's inputs over two layers and add their outputs, or convert without --int8"
    ))]
    Overflow {
        /// The node.
        node: String,
        /// The output channel.
        channel: usize,
        /// Greatest possible magnitude.
        bound: i64,
    },
    /// Two values that share memory or scale are pinned differently.
    #[error("`{first}` and `{second}` must have one quantisation, but the source model gives them two")]
    Pinned {
        /// One value.
        first: String,
        /// The other.
        second: String,
    },
    /// A pinned quantisation that no step can have.
    #[error("value `{value}` has scale {scale}, zero point {zero_point}: {why}")]
    Pin {
        /// The value.
        value: String,
        /// Its scale.
        scale: f32,
        /// Its zero point.
        zero_point: i32,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A graph with integers for all that the blob stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The graph: every value quantised; weights and biases are the real numbers that the integers stand for.
    pub graph: Graph,
    /// For each node its integer constants, if it is a linear layer.
    pub layers: Vec<Option<Layer>>,
    /// How the ranges were chosen.
    pub choice: Choice,
}

/// What won on the calibration samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Choice {
    /// Ranges of least squared error; otherwise the extremes.
    pub clipped: bool,
    /// Biases make up for the mean error of the rounded weights.
    pub bias_corrected: bool,
    /// Layers are fitted to what the rounded layers before them give.
    pub fitted: bool,
    /// Relative RMS error of the outputs on the calibration samples; `None` without samples.
    pub error: Option<f64>,
}

impl Quantized {
    /// Stored type of a value.
    pub fn dtype(&self, id: ValueId) -> DType {
        match self.graph.value(id).quantization {
            Some(Quantization { bits: 16, .. }) => DType::I16,
            _ => DType::I8,
        }
    }
}

/// Activation bounds in stored units, limited to what the type holds (16-bit values are symmetric).
pub fn stored_bounds(range: ActivationRange, quantization: Quantization) -> [i32; 2] {
    let [least, greatest] = quantization.limits();
    let stored = |x: f32| quantization.zero_point.saturating_add((x / quantization.scale).round() as i32);
    [stored(range.low).clamp(least, greatest), stored(range.high).clamp(least, greatest)]
}

/// Quantises `graph`.
pub fn quantize(graph: &Graph, calibration: Option<&Dataset>, options: &Options) -> Result<Quantized, Error> {
    if let Some(data) = calibration.filter(|data| data.samples > 0) {
        return Ok(quantized_on(graph, data, options)?.0);
    }
    check_operators(graph)?;
    let groups = shared_groups(graph, false);
    let fixed = fixed_quantizations(graph, &groups)?;
    let mut open = (0..graph.values.len())
        .filter(|id| is_used(graph, ValueId(*id)) && !fixed.contains_key(&groups[*id]));
    match open.next() {
        Some(id) => Err(Error::Uncalibrated { value: graph.values[id].name.clone(), others: open.count() }),
        None => with_values(graph, &groups, &fixed, &[], options, Rounding::Nearest),
    }
}

/// Quantises `graph` by at least one sample; gives its outputs on all of them as well, as [`simulate`] does.
pub fn quantized_on(
    graph: &Graph,
    data: &Dataset,
    options: &Options,
) -> Result<(Quantized, Vec<Vec<f32>>), Error> {
    check_operators(graph)?;
    let groups = shared_groups(graph, true);
    let fixed = fixed_quantizations(graph, &groups)?;
    let graph = &gauge::equalized(graph, data);
    let statistics = ranges::collect(graph, data);
    let reference = evaluate(graph, &data.inputs, data.samples, &graph.outputs);
    let made = |finer: Finer<'_>, clipped: bool, rounding: Rounding<'_>| {
        let values = calibrated(graph, &groups, &fixed, &statistics, finer.wide, clipped)?;
        with_values(graph, &groups, &values, finer.four, options, rounding)
    };
    // Error, integers, outputs.
    type Judged = (f64, Quantized, Vec<Vec<f32>>);
    let judged = |finer: Finer<'_>, clipped: bool, rounding: Rounding<'_>| -> Result<Judged, Error> {
        let mut quantized = made(finer, clipped, rounding)?;
        let outputs = simulate(&quantized, &data.inputs, data.samples);
        let error =
            reference.iter().zip(&outputs).map(|(a, b)| metrics::relative_rms(a, b)).fold(0.0, f64::max);
        quantized.choice = Choice {
            clipped,
            bias_corrected: !matches!(rounding, Rounding::Nearest),
            fitted: matches!(rounding, Rounding::Fitted(_)),
            error: Some(error),
        };
        Ok((error, quantized, outputs))
    };
    let inner = wide::inner(graph, &groups);
    let wide = match options.rank_bits {
        RankBits::Eight => Vec::new(),
        RankBits::Sixteen => inner,
        RankBits::Measured => {
            wide::worth_it(&inner, |wide| Ok(judged(Finer { wide, four: &[] }, false, Rounding::Nearest)?.0))?
        }
    };
    let wide = &*wide;
    let candidates = four::candidates(graph);
    let four = match options.weight_bits {
        WeightBits::Eight => Vec::new(),
        WeightBits::Four => candidates.into_iter().map(|(node, _)| node).collect(),
        WeightBits::Measured => {
            let [known, other] = four::split(data);
            let (loss, allowed) = four::loss(graph, &other);
            let alone = |four: &[usize]| Ok(loss(&made(Finer { wide, four }, false, Rounding::Nearest)?));
            let together =
                |four: &[usize]| Ok(loss(&made(Finer { wide, four }, false, Rounding::Fitted(&known))?));
            four::choose(&candidates, allowed, alone, together)?
        }
    };
    let finer = Finer { wide, four: &four };
    let mut best = judged(finer, false, Rounding::Nearest)?;
    for (clipped, rounding) in [
        (false, Rounding::Corrected(&statistics)),
        (true, Rounding::Nearest),
        (true, Rounding::Corrected(&statistics)),
    ] {
        let next = judged(finer, clipped, rounding)?;
        if next.0 < best.0 {
            best = next;
        }
    }
    // Nearest levels are too coarse for 4-bit weights.
    if options.fit || !four.is_empty() {
        let next = judged(finer, best.1.choice.clipped, Rounding::Fitted(data))?;
        if next.0 < best.0 {
            best = next;
        }
    }
    Ok((best.1, best.2))
}

/// What is not stored in 8 bits: inner values of 16, nodes whose weights have 4.
#[derive(Clone, Copy)]
struct Finer<'a> {
    wide: &'a [ValueId],
    four: &'a [usize],
}

fn is_used(graph: &Graph, id: ValueId) -> bool {
    graph.inputs.contains(&id) || graph.producer(id).is_some()
}

fn check_operators(graph: &Graph) -> Result<(), Error> {
    for node in &graph.nodes {
        let why = match &node.op {
            Op::Mul(_) => "a product of two activations exists for f32 alone",
            Op::Affine(_) | Op::Pad { .. } => "has no step: run `legalize` before quantising",
            Op::Conv(_) | Op::Dense(_) if node.op.dense_weight().is_none() => {
                "its weight is factorised: run `lower` before quantising"
            }
            Op::Softmax { axis } if graph.shape(node.inputs[0])[*axis] > MAX_ROW as usize => {
                "its sum of more than 4095 exponentials passes 32 bits"
            }
            _ => continue,
        };
        return Err(Error::Node { node: node.name.clone(), op: node.op.name(), why: why.into() });
    }
    Ok(())
}

/// For each value the first value of those that must share its quantisation: what only moves or selects numbers, or means
/// windows of them, keeps it. A mean over whole axes may be much smaller than what it is taken of, and has its own, unless nothing was seen of
/// it.
fn shared_groups(graph: &Graph, calibrated: bool) -> Vec<usize> {
    let mut group: Vec<usize> = (0..graph.values.len()).collect();
    for node in &graph.nodes {
        let shares = match node.op {
            Op::Reshape(_) | Op::Transpose(_) | Op::MaxPool(_) | Op::AveragePool(_) => true,
            Op::Mean { .. } => !calibrated && graph.value(node.output).quantization.is_none(),
            _ => false,
        };
        if shares {
            group[node.output.0] = group[node.inputs[0].0];
        }
    }
    group
}

/// Probabilities as TensorFlow Lite's softmax gives them in 8 bits, and in 16.
const PROBABILITY_8: Quantization = Quantization { scale: 1.0 / 256.0, zero_point: -128, bits: 8 };
const PROBABILITY_16: Quantization = Quantization { scale: 1.0 / 65536.0, zero_point: -32768, bits: 16 };

/// Quantisations that no calibration may choose, by group.
fn fixed_quantizations(graph: &Graph, groups: &[usize]) -> Result<HashMap<usize, Quantization>, Error> {
    let mut fixed: HashMap<usize, (ValueId, Quantization)> = HashMap::new();
    let mut fix = |id: ValueId, quantization: Quantization| match fixed.get(&groups[id.0]) {
        Some((other, same)) if *same != quantization => Err(Error::Pinned {
            first: graph.value(*other).name.clone(),
            second: graph.value(id).name.clone(),
        }),
        Some(_) => Ok(()),
        None => {
            fixed.insert(groups[id.0], (id, quantization));
            Ok(())
        }
    };
    for node in &graph.nodes {
        if let Op::Softmax { .. } = node.op {
            // In steps of 1/256 a class of 0.1 % is no different from an impossible one. What leaves the graph has 16 bits, unless the
            // source model says otherwise.
            let leaves = graph.outputs.contains(&node.output) && graph.consumers(node.output).is_empty();
            let wide = leaves && graph.value(node.output).quantization.is_none();
            fix(node.output, if wide { PROBABILITY_16 } else { PROBABILITY_8 })?;
        }
    }
    for (id, value) in graph.values.iter().enumerate().filter(|(id, _)| is_used(graph, ValueId(*id))) {
        let Some(pinned) = value.quantization else { continue };
        let refuse = |why| Error::Pin {
            value: value.name.clone(),
            scale: pinned.scale,
            zero_point: pinned.zero_point,
            why,
        };
        let [least, greatest] = pinned.limits();
        if !(pinned.scale.is_normal() && pinned.scale > 0.0) {
            return Err(refuse("the scale must be positive and normal"));
        }
        if pinned.bits != 8 && (pinned.bits != 16 || pinned.zero_point != 0) {
            return Err(refuse("it must have 8 bits, or 16 bits and zero point 0"));
        }
        if !(least..=greatest).contains(&pinned.zero_point) {
            return Err(refuse("the zero point does not fit the type"));
        }
        fix(ValueId(id), pinned)?;
    }
    Ok(fixed.into_iter().map(|(group, (_, quantization))| (group, quantization)).collect())
}

/// Quantisations of all groups, from calibration where nothing fixes them.
fn calibrated(
    graph: &Graph,
    groups: &[usize],
    fixed: &HashMap<usize, Quantization>,
    statistics: &HashMap<ValueId, Statistics>,
    wide: &[ValueId],
    clipped: bool,
) -> Result<HashMap<usize, Quantization>, Error> {
    let mut values = fixed.clone();
    for (index, value) in graph.values.iter().enumerate() {
        let Some(seen) = statistics.get(&ValueId(index)).filter(|_| groups[index] == index) else { continue };
        if fixed.contains_key(&index) {
            continue;
        }
        if !(seen.low.is_finite() && seen.high.is_finite()) {
            return Err(Error::NotFinite { value: value.name.clone() });
        }
        let quantization = if wide.contains(&ValueId(index)) {
            range::symmetric16(seen, levels(graph, ValueId(index)))
        } else {
            None
        };
        let quantization = quantization
            .unwrap_or_else(|| if clipped { range::least_squares(seen) } else { range::extremes(seen) });
        values.insert(index, quantization);
    }
    Ok(values)
}

/// Greatest magnitude stored in a value, should it be 16 bits wide; a pinned one may use them all.
fn levels(graph: &Graph, id: ValueId) -> i32 {
    match graph.value(id).quantization {
        Some(_) => i32::from(i16::MAX),
        None => layer::greatest_level(graph, id),
    }
}

/// How weights and biases become integers.
#[derive(Clone, Copy)]
enum Rounding<'a> {
    /// Each to its nearest level.
    Nearest,
    /// Biases make up for the mean error of the rounded weights.
    Corrected(&'a HashMap<ValueId, Statistics>),
    /// Fitted layer by layer to what the rounded layers before give on these samples.
    Fitted(&'a Dataset),
}

/// Numbers of one value that are held at most by [`Rounding::Fitted`]; fewer samples are used for larger networks.
const MOST_HELD: usize = 1 << 28;

/// Integer constants for given quantisations.
fn with_values(
    graph: &Graph,
    groups: &[usize],
    values: &HashMap<usize, Quantization>,
    four: &[usize],
    options: &Options,
    rounding: Rounding<'_>,
) -> Result<Quantized, Error> {
    let mut result = graph.clone();
    for (value, group) in result.values.iter_mut().zip(groups) {
        value.quantization = values.get(group).copied();
    }
    let mut beside = match rounding {
        Rounding::Fitted(data) => {
            let largest = graph.values.iter().map(|value| value.shape.iter().product::<usize>()).max();
            let some = data.slice(0..(MOST_HELD / largest.unwrap_or(1).max(1)).max(1));
            Some((refit::SideBySide::new(&result, &some.inputs, some.samples), some.samples))
        }
        _ => None,
    };
    let mut layers: Vec<Option<Layer>> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let linear = match (
            node.op.dense_weight(),
            values.get(&groups[node.inputs[0].0]),
            values.get(&groups[node.output.0]),
        ) {
            (Some(weight), Some(input), Some(output)) => {
                Some(layer_input(graph, index, weight, [*input, *output], four.contains(&index), options))
            }
            _ => None,
        };
        let layer = match &linear {
            None => None,
            Some(linear) => {
                let fit = beside.as_ref().and_then(|(beside, samples)| {
                    let geometry = Geometry::of(graph, node)?;
                    let (input, goal) = beside.task(index);
                    refit::fitted(linear, &geometry, input, &goal, *samples)
                });
                Some(match (fit, rounding) {
                    // A fit may need more than the accumulator has, where the nearest levels do not.
                    (Some(Ok(layer)), _) => layer,
                    (_, Rounding::Corrected(means)) if means.contains_key(&node.inputs[0]) => {
                        let layer = Layer::new(linear)?;
                        let mean = &means[&node.inputs[0]].mean;
                        let bias = layer.corrected_bias(graph, index, mean, &linear.bias);
                        Layer::new(&LayerInput { bias, ..linear.clone() })?
                    }
                    _ => Layer::new(linear)?,
                })
            }
        };
        if let (Some(layer), Some(linear)) = (&layer, &linear) {
            let (real_weight, real_bias) = layer.real(linear.input.scale);
            match &mut result.nodes[index].op {
                Op::Conv(conv) => {
                    conv.weight = crate::graph::Weight::Dense(real_weight);
                    conv.bias = Some(real_bias);
                }
                Op::Dense(dense) => {
                    dense.weight = crate::graph::Weight::Dense(real_weight);
                    dense.bias = Some(real_bias);
                }
                _ => {}
            }
        }
        if let Some((beside, _)) = &mut beside {
            beside.step(graph, &result, index, layer.as_ref().map(|layer| layer.bounds));
        }
        layers.push(layer);
    }
    Ok(Quantized { graph: result, layers, choice: Choice::default() })
}

/// What linear node `index` is made of, with the quantisations of its input and output.
fn layer_input<'a>(
    graph: &'a Graph,
    index: usize,
    weight: &'a Tensor,
    [input, output]: [Quantization; 2],
    four: bool,
    options: &'a Options,
) -> LayerInput<'a> {
    let node = &graph.nodes[index];
    let (bias, activation) = match &node.op {
        Op::Conv(conv) => (conv.bias.as_ref(), conv.activation),
        Op::Dense(dense) => (dense.bias.as_ref(), dense.activation),
        _ => (None, ActivationRange::NONE),
    };
    let scales = options.weight_scales.get(&node.name).map(Vec::as_slice);
    let four = four && scales.is_none() && input.bits == 8 && output.bits == 8;
    LayerInput {
        node: &node.name,
        weight,
        bias: bias.map_or_else(|| vec![0.0; weight.shape[0]], Clone::clone),
        input,
        output,
        input_levels: levels(graph, node.inputs[0]),
        output_levels: levels(graph, node.output),
        scales,
        levels: if four { four::LEVELS_4 } else { four::LEVELS_8 },
        activation,
    }
}

#[cfg(test)]
mod tests;
