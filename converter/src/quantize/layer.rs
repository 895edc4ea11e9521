//! Integer constants of one linear layer, and the proof that its accumulators hold.

use tucano::quant::quantize_multiplier;

use super::four::LEVELS_4;
use super::{Error, stored_bounds};
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Graph, Node, Op, Quantization, Tensor, ValueId, Weight};

/// Integer constants of a linear layer, in the graph's order of weights and channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Shape of the weights.
    pub shape: Vec<usize>,
    /// Weights.
    pub weights: Vec<i8>,
    /// Whether they are stored in 4 bits.
    pub four_bits: bool,
    /// Whether they are stored transformed ([`tucano::blob::winograd`]) where the target has a kernel for that.
    pub transformed: bool,
    /// Real size of a weight's unit, one for each output channel.
    pub scales: Vec<f32>,
    /// In units of input scale times weight scale.
    pub bias: Vec<i32>,
    /// Requantisation, Q31, one for each output channel.
    pub multipliers: Vec<i32>,
    /// Shift that goes with it, positive to the left.
    pub shifts: Vec<i32>,
    /// Least and greatest stored output.
    pub bounds: [i32; 2],
}

/// What a [`Layer`] is made of.
#[derive(Clone)]
pub struct LayerInput<'a> {
    pub node: &'a str,
    pub weight: &'a Tensor,
    pub bias: Vec<f32>,
    pub input: Quantization,
    pub output: Quantization,
    /// Greatest magnitude stored in a 16-bit input.
    pub input_levels: i32,
    /// Greatest magnitude to be stored in a 16-bit output.
    pub output_levels: i32,
    /// Weight scales that are fixed.
    pub scales: Option<&'a [f32]>,
    /// Greatest magnitude of a stored weight.
    pub levels: i32,
    pub activation: ActivationRange,
}

/// Biases stay below this many units, by a coarser weight scale where need be.
const BIAS_LIMIT: f64 = (1 << 30) as f64;
/// As [`BIAS_LIMIT`], of a bias that decides the output.
const NARROW_BIAS: f64 = (1 << 22) as f64;
/// Factors from here on have no multiplier.
const FACTOR_LIMIT: f64 = (1 << 30) as f64;

impl Layer {
    /// Quantises weights and bias, and proves that no accumulator passes 32 bits.
    pub fn new(from: &LayerInput) -> Result<Self, Error> {
        let channels = from.weight.shape[0];
        let row = (from.weight.len() / channels.max(1)).max(1);
        let input_scale = f64::from(from.input.scale);
        if from.scales.is_some_and(|scales| scales.len() != channels) || from.bias.len() != channels {
            return Err(
                from.refuse(format!("{channels} output channels need as many weight scales and biases"))
            );
        }
        let mut layer = Self {
            shape: from.weight.shape.clone(),
            weights: Vec::with_capacity(from.weight.len()),
            four_bits: from.levels == LEVELS_4,
            transformed: false,
            scales: Vec::with_capacity(channels),
            bias: Vec::with_capacity(channels),
            multipliers: Vec::with_capacity(channels),
            shifts: Vec::with_capacity(channels),
            bounds: stored_bounds(from.activation, from.output),
        };
        if from.output.bits == 16 {
            layer.bounds = layer.bounds.map(|bound| bound.clamp(-from.output_levels, from.output_levels));
        }
        for (channel, weights) in from.weight.data.chunks(row).enumerate() {
            let scale = match from.scales {
                Some(scales) => scales[channel],
                None => from.scale_of(weights, from.bias[channel]),
            };
            if !(scale.is_normal() && scale > 0.0) {
                return Err(from.refuse(format!(
                    "weight scale {scale} of channel {channel} is not positive and normal"
                )));
            }
            let levels = from.levels as f32;
            let stored = |weight: &f32| (weight / scale).round().clamp(-levels, levels) as i8;
            let start = layer.weights.len();
            layer.weights.extend(weights.iter().map(stored));
            let bias = (f64::from(from.bias[channel]) / (input_scale * f64::from(scale))).round();
            if bias.abs() > f64::from(i32::MAX) {
                return Err(Error::Overflow { node: from.node.into(), channel, bound: bias.abs() as i64 });
            }
            let bias = bias as i32;
            let factor = input_scale * f64::from(scale) / f64::from(from.output.scale);
            let (multiplier, shift) = quantize_multiplier(factor);
            // A shift to the left is applied to the accumulator itself; from `FACTOR_LIMIT` on no shift is enough.
            let left = if factor < FACTOR_LIMIT { 1 << shift.max(0) } else { i64::MAX };
            let bound = accumulator_bound(&layer.weights[start..], from.greatest_input(), bias);
            let bound = bound.saturating_mul(left);
            if bound > i64::from(i32::MAX) {
                return Err(Error::Overflow { node: from.node.into(), channel, bound });
            }
            layer.scales.push(scale);
            layer.bias.push(bias);
            layer.multipliers.push(multiplier);
            layer.shifts.push(shift);
        }
        Ok(layer)
    }

    /// The real weights and biases that the integers stand for.
    pub fn real(&self, input_scale: f32) -> (Tensor, Vec<f32>) {
        let row = (self.weights.len() / self.scales.len().max(1)).max(1);
        let weights =
            self.weights.iter().enumerate().map(|(k, w)| f32::from(*w) * self.scales[k / row]).collect();
        let bias = self.bias.iter().zip(&self.scales);
        let bias = bias.map(|(b, scale)| (f64::from(*b) * f64::from(input_scale) * f64::from(*scale)) as f32);
        (Tensor::new(self.shape.clone(), weights), bias.collect())
    }

    /// The bias of node `index` less the mean shift of its outputs that rounding the weights causes for inputs of this mean: a
    /// linear layer's mean output is its output for the mean input.
    pub fn corrected_bias(&self, graph: &Graph, index: usize, mean: &[f32], bias: &[f32]) -> Vec<f32> {
        let node = &graph.nodes[index];
        let Some(weight) = node.op.dense_weight() else { return bias.to_vec() };
        let (mut error, _) = self.real(1.0);
        error.data.iter_mut().zip(&weight.data).for_each(|(rounded, exact)| *rounded -= exact);
        let mut op = node.op.clone();
        let last_axis = matches!(op, Op::Dense(_));
        match &mut op {
            Op::Conv(conv) => {
                (conv.weight, conv.bias, conv.activation) =
                    (Weight::Dense(error), None, ActivationRange::NONE);
            }
            Op::Dense(dense) => {
                (dense.weight, dense.bias, dense.activation) =
                    (Weight::Dense(error), None, ActivationRange::NONE);
            }
            _ => return bias.to_vec(),
        }
        let mut single = Graph::default();
        let input = single.add_value("input", graph.shape(node.inputs[0]).to_vec());
        let output = single.add_value("output", graph.shape(node.output).to_vec());
        single.nodes.push(Node { name: node.name.clone(), op, inputs: vec![input], output });
        single.inputs.push(input);
        single.outputs.push(output);
        let shifts = evaluate(&single, &[mean.to_vec()], 1, &[output]).remove(0);
        let channels = bias.len();
        let inner = if last_axis { 1 } else { graph.shape(node.output)[2..].iter().product() };
        let mut sums = vec![0.0f64; channels];
        for (k, shift) in shifts.iter().enumerate() {
            sums[k / inner % channels] += f64::from(*shift);
        }
        let positions = (shifts.len() / channels.max(1)).max(1) as f64;
        bias.iter().zip(sums).map(|(bias, sum)| (f64::from(*bias) - sum / positions) as f32).collect()
    }
}

impl LayerInput<'_> {
    fn refuse(&self, why: String) -> Error {
        Error::Node { node: self.node.into(), op: "linear layer", why }
    }

    /// Greatest `|x - zero_point|` of a stored input.
    fn greatest_input(&self) -> i64 {
        let [least, greatest] = self.input.limits();
        let greatest = (greatest - self.input.zero_point).max(self.input.zero_point - least);
        i64::from(if self.input.bits == 16 { greatest.min(self.input_levels) } else { greatest })
    }

    /// Greatest weight / greatest level; coarser where the bias would need more bits than it has.
    ///
    /// A bias of more than twice what all products can come to decides the output alone, but for a small part: then a step of the output is so many
    /// units of the accumulator that coarser weights are lost in it, and the bias is brought below [`NARROW_BIAS`], where kernels sum up two outputs at once.
    pub fn scale_of(&self, weights: &[f32], bias: f32) -> f32 {
        let greatest = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
        let finest = f64::from(greatest / self.levels as f32);
        let bias = f64::from(bias.abs()) / f64::from(self.input.scale);
        let sum: f64 = weights.iter().map(|weight| f64::from(weight.abs())).sum();
        let decides = bias > 2.0 * self.greatest_input() as f64 * sum;
        let limit = if self.input.bits == 8 && decides { NARROW_BIAS } else { BIAS_LIMIT };
        let scale = finest.max(bias / limit) as f32;
        // A channel of zeros: a unit for which the multiplier is 1.
        let neutral = self.output.scale / self.input.scale;
        if scale.is_normal() { scale } else { neutral.clamp(f32::MIN_POSITIVE, f32::MAX) }
    }
}

/// Levels on either side of zero that a 16-bit value may use so that none of its readers overflows, whatever their biases:
/// those take half of the accumulator's range at most.
pub fn greatest_level(graph: &Graph, id: ValueId) -> i32 {
    let of_row = |weights: &[f32]| {
        let greatest = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
        // What rounding adds is less than half a unit for each weight.
        let units: f64 = weights.iter().map(|w| f64::from(w.abs()) / f64::from(greatest / 127.0) + 0.5).sum();
        // A row of zeros (0 / 0) limits nothing.
        if units.is_nan() { f64::INFINITY } else { (BIAS_LIMIT - 1.0) / units.max(1.0) }
    };
    let readers = graph.consumers(id);
    let weights = readers.iter().filter_map(|node| graph.nodes[*node].op.dense_weight());
    let levels = weights.flat_map(|weight| {
        let row = (weight.len() / weight.shape[0].max(1)).max(1);
        weight.data.chunks(row).map(of_row)
    });
    levels.fold(32767.0, f64::min) as i32
}

/// Greatest magnitude that `sum w (x - zero_point) + bias` can reach, in any order of summation.
fn accumulator_bound(weights: &[i8], greatest_input: i64, bias: i32) -> i64 {
    let sum: i64 = weights.iter().map(|weight| i64::from(weight.unsigned_abs())).sum();
    sum.saturating_mul(greatest_input).saturating_add(bias.unsigned_abs().into())
}
