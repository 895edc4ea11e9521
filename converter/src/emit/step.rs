//! One step: operation code, constants and parameter words.

use half::f16;
use tucano::backend::spec::select::Linear;
use tucano::blob::{DType, Packing, folded_bias, winograd};
use tucano::ops::{OpCode, add, conv2d, dense, mean, permute, pool2d, softmax, unary};
use tucano::quant::quantize_multiplier;

use super::{Error, Program, word};
use crate::graph::{ActivationRange, Node, Op, Quantization, Unary};
use crate::passes::layout::{Gather, Kind, Step, Window};
use crate::passes::order::gathered;
use crate::plan::{needs, step_geometry};
use crate::quantize::{self, stored_bounds};

/// A stored constant.
pub struct Constant {
    pub dtype: DType,
    pub packing: Packing,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

impl Constant {
    fn plain(dtype: DType, bytes: Vec<u8>) -> Self {
        Self { dtype, packing: Packing::Rows, bytes }
    }

    fn words(words: &[i32]) -> Self {
        Self::plain(DType::I32, words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    fn floats(floats: &[f32]) -> Self {
        Self::plain(DType::F32, floats.iter().flat_map(|float| float.to_le_bytes()).collect())
    }

    /// Numbers of binary16; `None` if one is none.
    fn halves(floats: &[f32]) -> Option<Self> {
        let halves =
            floats.iter().map(|&float| Some(f16::from_f32(float)).filter(|half| half.to_f32() == float));
        let bytes: Option<Vec<_>> = halves.map(|half| half.map(f16::to_le_bytes)).collect();
        Some(Self::plain(DType::F16, bytes?.concat()))
    }
}

/// What a step stores besides its tensors.
pub struct Encoded {
    pub op: OpCode,
    pub weights: Vec<Constant>,
    pub parameters: Vec<u32>,
}

/// Shift that TensorFlow Lite applies to the inputs of an integer sum.
const ADD_LEFT_SHIFT: i32 = 20;
/// Integer bits of the differences in an integer softmax (TensorFlow Lite's `kScaledDiffIntegerBits`).
const SOFTMAX_INTEGER_BITS: i32 = 5;

impl Program<'_> {
    /// Encodes a step.
    pub fn encode(&self, step: &Step) -> Result<Encoded, Error> {
        let node = &self.graph.nodes[step.node];
        match &step.kind {
            Kind::Conv(window, gather) => {
                self.convolution(step, node, window, gather, |family| match family {
                    Family::I8 if self.four_bits(step) => OpCode::Conv2dI4,
                    Family::I8 => OpCode::Conv2dI8,
                    Family::I16 => OpCode::Conv2dI16,
                    Family::F32 if self.half_weights => OpCode::Conv2dF16,
                    Family::F32 => OpCode::Conv2dF32,
                })
            }
            Kind::DepthwiseConv(window, gather) => {
                self.convolution(step, node, window, gather, |family| match family {
                    Family::I8 => OpCode::DepthwiseConv2dI8,
                    Family::I16 => OpCode::DepthwiseConv2dI16,
                    Family::F32 if self.half_weights => OpCode::DepthwiseConv2dF16,
                    Family::F32 => OpCode::DepthwiseConv2dF32,
                })
            }
            Kind::Dense(gather) => {
                let Op::Dense(layer) = &node.op else { return Err(mismatch(node)) };
                let (weights, [act_min, act_max]) = self.constants(step, node, gather, layer.activation)?;
                let op = match self.family(step) {
                    Family::I8 if self.four_bits(step) => OpCode::DenseI4,
                    Family::I8 => OpCode::DenseI8,
                    Family::I16 => OpCode::DenseI16,
                    Family::F32 if self.half_weights => OpCode::DenseF16,
                    Family::F32 => OpCode::DenseF32,
                };
                let parameters = dense::Parameters { act_min, act_max }.emit().to_vec();
                Ok(Encoded { op, weights, parameters })
            }
            Kind::MaxPool(window) => {
                self.pooling(step, node, window, [OpCode::MaxPool2dI8, OpCode::MaxPool2dF32])
            }
            Kind::AveragePool(_) if self.requantises(step, node)? => self.mean(step, node),
            Kind::AveragePool(window) => {
                self.pooling(step, node, window, [OpCode::AveragePool2dI8, OpCode::AveragePool2dF32])
            }
            Kind::Add => self.sum(step, node),
            Kind::Mul => {
                let Op::Mul(range) = node.op else { return Err(mismatch(node)) };
                if self.quantized.is_some() {
                    return Err(refuse(node, "a product of two activations exists for f32 alone"));
                }
                let parameters = add::FloatParameters { act_min: range.low, act_max: range.high };
                Ok(Encoded { op: OpCode::MulF32, weights: vec![], parameters: parameters.emit().to_vec() })
            }
            Kind::Pointwise => self.pointwise(step, node),
            Kind::Softmax => self.softmax(step, node),
            Kind::Permute(axes) => {
                let mut order = [0, 1, 2, 3];
                for (slot, axis) in order.iter_mut().zip(axes) {
                    *slot = word(*axis)?;
                }
                let op = self.byte_or_float(step, node, [OpCode::PermuteI8, OpCode::PermuteF32])?;
                Ok(Encoded { op, weights: vec![], parameters: permute::Parameters { order }.emit().to_vec() })
            }
        }
    }

    fn tensor_dtype(&self, tensor: usize) -> DType {
        self.dtype(self.plan.layout.tensors[tensor].value)
    }

    fn family(&self, step: &Step) -> Family {
        match (self.tensor_dtype(step.inputs[0]), self.tensor_dtype(step.output)) {
            (DType::F32, _) => Family::F32,
            (DType::I8, DType::I8) => Family::I8,
            _ => Family::I16,
        }
    }

    /// Whether a linear layer's weights have 4 bits.
    fn four_bits(&self, step: &Step) -> bool {
        let layer = self.quantized.and_then(|quantized| quantized.layers.get(step.node)?.as_ref());
        layer.is_some_and(|layer| layer.four_bits)
    }

    fn byte_or_float(&self, step: &Step, node: &Node, [byte, float]: [OpCode; 2]) -> Result<OpCode, Error> {
        match self.family(step) {
            Family::I8 => Ok(byte),
            Family::F32 => Ok(float),
            Family::I16 => Err(refuse(node, "exists for 8-bit integers and f32 alone, not for 16-bit ones")),
        }
    }

    /// Quantisation of an operand of a step in an integer model.
    fn quantization(&self, tensor: usize, node: &Node) -> Result<Quantization, Error> {
        let value = self.graph.value(self.plan.layout.tensors[tensor].value);
        value.quantization.ok_or_else(|| refuse(node, &format!("value `{}` is not quantised", value.name)))
    }

    /// Stored constants of a linear layer, and its activation bounds.
    fn constants(
        &self,
        step: &Step,
        node: &Node,
        gather: &Gather,
        activation: ActivationRange,
    ) -> Result<(Vec<Constant>, [u32; 2]), Error> {
        match self.quantized {
            Some(quantized) => {
                let layer = quantized.layers.get(step.node).and_then(Option::as_ref);
                let layer = layer.ok_or_else(|| refuse(node, "has no integer weights"))?;
                let weights = gathered(&layer.weights, &gather.weights);
                let mut bias = gathered(&layer.bias, &gather.channels);
                let weights = match layer.four_bits {
                    true => Constant::plain(DType::I4x2, pairs(&weights, gather.channels.len())),
                    false => self.packed(step, node, layer, &weights, &mut bias)?,
                };
                let integers = |numbers: &[i32]| Constant::words(&gathered(numbers, &gather.channels));
                let constants = vec![
                    weights,
                    Constant::words(&bias),
                    integers(&layer.multipliers),
                    integers(&layer.shifts),
                ];
                Ok((constants, layer.bounds.map(|bound| bound as u32)))
            }
            None => {
                let weight =
                    node.op.dense_weight().ok_or_else(|| refuse(node, "its weight is factorised"))?;
                let bias = match &node.op {
                    Op::Conv(conv) => conv.bias.as_ref(),
                    Op::Dense(dense) => dense.bias.as_ref(),
                    _ => None,
                };
                let floats = |numbers: &[f32], order: &[usize]| Constant::floats(&gathered(numbers, order));
                let zeros = vec![0.0; gather.channels.len()];
                let bias = floats(bias.unwrap_or(&zeros), &gather.channels);
                let bounds = [activation.low.to_bits(), activation.high.to_bits()];
                let weights = match self.half_weights {
                    true => Constant::halves(&gathered(&weight.data, &gather.weights))
                        .ok_or_else(|| refuse(node, "has weights that are no numbers of 16 bits"))?,
                    false => floats(&weight.data, &gather.weights),
                };
                Ok((vec![weights, bias], bounds))
            }
        }
    }

    /// Weights of 8 bits in the order that the target's kernel wants; packed ones have the zero point's part folded into their bias.
    fn packed(
        &self,
        step: &Step,
        node: &Node,
        layer: &quantize::Layer,
        rows: &[i8],
        bias: &mut [i32],
    ) -> Result<Constant, Error> {
        let geometry = step_geometry(self.graph, step).ok_or_else(|| mismatch(node))?;
        let linear = match step.kind {
            Kind::Dense(_) => Linear::Dense { inputs: geometry.input[0], outputs: geometry.output[0] },
            _ => needs::convolution(&geometry),
        };
        let types = [step.inputs[0], step.output].map(|tensor| self.tensor_dtype(tensor));
        let zero_point = self.quantization(step.inputs[0], node)?.zero_point;
        let [read, written] = [step.inputs[0], step.output].map(|tensor| self.plan.offsets[tensor]);
        let narrow = needs::all_narrow(layer, zero_point);
        let request = if layer.transformed { needs::request_transformed } else { needs::request };
        let packing = request(self.isa, linear, types, narrow, read == written).packing;
        if packing == Packing::Rows {
            return Ok(Constant::plain(DType::I8, rows.iter().map(|weight| *weight as u8).collect()));
        }
        let fits = || Error::Blob(format!("the weights of `{}` do not fill their order", node.name));
        let matrix = linear.matrix().filter(|matrix| matrix.depth > 0).ok_or_else(fits)?;
        let stored = if packing == Packing::Winograd {
            let (inputs, outputs) = (geometry.input[0], bias.len());
            let mut stored = vec![0; winograd::bytes(inputs, outputs).ok_or_else(fits)?];
            winograd::pack(rows, inputs, outputs, &mut stored).map(|()| stored)
        } else {
            let mut stored = vec![0; matrix.bytes(packing).ok_or_else(fits)?];
            matrix.pack(packing, rows, &mut stored).map(|()| stored)
        };
        let stored = stored.ok_or_else(fits)?;
        for (bias, weights) in bias.iter_mut().zip(rows.chunks(matrix.depth)) {
            *bias = folded_bias(weights.iter().copied(), zero_point, *bias);
        }
        let bytes = stored.iter().map(|weight| *weight as u8).collect();
        Ok(Constant { dtype: DType::I8, packing, bytes })
    }

    fn convolution(
        &self,
        step: &Step,
        node: &Node,
        window: &Window,
        gather: &Gather,
        op: impl Fn(Family) -> OpCode,
    ) -> Result<Encoded, Error> {
        let (groups, activation) = match &node.op {
            Op::Conv(conv) => (conv.groups, conv.activation),
            // A convolution of one pixel.
            Op::Dense(dense) => (1, dense.activation),
            _ => return Err(mismatch(node)),
        };
        let (weights, [act_min, act_max]) = self.constants(step, node, gather, activation)?;
        let parameters = conv2d::Parameters {
            stride_h: word(window.strides[0])?,
            stride_w: word(window.strides[1])?,
            pad_top: word(window.pads[0])?,
            pad_left: word(window.pads[1])?,
            pad_bottom: word(window.pads[2])?,
            pad_right: word(window.pads[3])?,
            dilation_h: word(window.dilations[0])?,
            dilation_w: word(window.dilations[1])?,
            kernel_h: word(window.kernel[0])?,
            kernel_w: word(window.kernel[1])?,
            groups: word(groups)?,
            act_min,
            act_max,
        };
        let op = match weights.first() {
            Some(Constant { packing: Packing::Winograd, .. }) => OpCode::WinogradConv2dI8,
            _ => op(self.family(step)),
        };
        Ok(Encoded { op, weights, parameters: parameters.emit().to_vec() })
    }

    fn pooling(&self, step: &Step, node: &Node, window: &Window, ops: [OpCode; 2]) -> Result<Encoded, Error> {
        let op = self.byte_or_float(step, node, ops)?;
        let [act_min, act_max] = match self.quantized {
            Some(_) => {
                stored_bounds(ActivationRange::NONE, self.quantization(step.output, node)?).map(|b| b as u32)
            }
            None => [f32::NEG_INFINITY.to_bits(), f32::INFINITY.to_bits()],
        };
        let counts_padding = match &node.op {
            Op::AveragePool(pool) | Op::MaxPool(pool) => pool.count_include_pad,
            _ => false,
        };
        let parameters = pool2d::Parameters {
            stride_h: word(window.strides[0])?,
            stride_w: word(window.strides[1])?,
            pad_top: word(window.pads[0])?,
            pad_left: word(window.pads[1])?,
            pad_bottom: word(window.pads[2])?,
            pad_right: word(window.pads[3])?,
            kernel_h: word(window.kernel[0])?,
            kernel_w: word(window.kernel[1])?,
            count_include_pad: u32::from(counts_padding),
            act_min,
            act_max,
        };
        Ok(Encoded { op, weights: vec![], parameters: parameters.emit().to_vec() })
    }

    /// Whether a step is an integer mean whose output is quantised otherwise than its input.
    fn requantises(&self, step: &Step, node: &Node) -> Result<bool, Error> {
        if self.quantized.is_none() || !matches!(node.op, Op::Mean { .. }) {
            return Ok(false);
        }
        Ok(self.quantization(step.inputs[0], node)? != self.quantization(step.output, node)?)
    }

    fn mean(&self, step: &Step, node: &Node) -> Result<Encoded, Error> {
        let op = self.byte_or_float(step, node, [OpCode::Mean2dI8, OpCode::AveragePool2dF32])?;
        let [input, output] =
            [self.quantization(step.inputs[0], node)?, self.quantization(step.output, node)?];
        let area = self.plan.layout.tensors[step.inputs[0]].shape[1..3].iter().product::<usize>();
        let factor = f64::from(input.scale) / (f64::from(output.scale) * area as f64);
        let (multiplier, shift) = quantize_multiplier(factor);
        let [act_min, act_max] = stored_bounds(ActivationRange::NONE, output);
        let parameters = mean::Parameters { multiplier, shift, act_min, act_max };
        if !parameters.fits(word(area)?) {
            return Err(refuse(
                node,
                "the sum that it divides passes 32 bits: its output's scale is too fine",
            ));
        }
        Ok(Encoded { op, weights: vec![], parameters: parameters.emit().to_vec() })
    }

    fn sum(&self, step: &Step, node: &Node) -> Result<Encoded, Error> {
        let Op::Add(range) = node.op else { return Err(mismatch(node)) };
        if self.quantized.is_none() {
            let parameters = add::FloatParameters { act_min: range.low, act_max: range.high };
            return Ok(Encoded {
                op: OpCode::AddF32,
                weights: vec![],
                parameters: parameters.emit().to_vec(),
            });
        }
        let op = self.byte_or_float(step, node, [OpCode::AddI8, OpCode::AddF32])?;
        let first = self.quantization(step.inputs[0], node)?;
        let second = self.quantization(step.inputs[1], node)?;
        let output = self.quantization(step.output, node)?;
        let common = 2.0 * f64::from(first.scale.max(second.scale));
        let (multiplier_1, shift_1) = quantize_multiplier(f64::from(first.scale) / common);
        let (multiplier_2, shift_2) = quantize_multiplier(f64::from(second.scale) / common);
        let units = f64::from(1 << ADD_LEFT_SHIFT) * f64::from(output.scale);
        let (output_multiplier, output_shift) = quantize_multiplier(common / units);
        let [act_min, act_max] = stored_bounds(range, output);
        let parameters = add::IntegerParameters {
            left_shift: ADD_LEFT_SHIFT,
            multiplier_1,
            shift_1,
            multiplier_2,
            shift_2,
            output_multiplier,
            output_shift,
            act_min,
            act_max,
        };
        Ok(Encoded { op, weights: vec![], parameters: parameters.emit().to_vec() })
    }

    fn pointwise(&self, step: &Step, node: &Node) -> Result<Encoded, Error> {
        let (kind, range) = match node.op {
            Op::Clamp(range) => (unary::Kind::Clamp, range),
            Op::Unary(Unary::Sin) => (unary::Kind::Sin, ActivationRange::NONE),
            Op::Unary(Unary::Sigmoid) => (unary::Kind::Sigmoid, ActivationRange::NONE),
            Op::Unary(Unary::Tanh) => (unary::Kind::Tanh, ActivationRange::NONE),
            _ => return Err(mismatch(node)),
        };
        if self.quantized.is_none() {
            let parameters = unary::Parameters { kind, low: range.low, high: range.high };
            return Ok(Encoded {
                op: OpCode::UnaryF32,
                weights: vec![],
                parameters: parameters.emit().to_vec(),
            });
        }
        let op = self.byte_or_float(step, node, [OpCode::TableI8, OpCode::UnaryF32])?;
        let input = self.quantization(step.inputs[0], node)?;
        let output = self.quantization(step.output, node)?;
        let function = |x: f64| match kind {
            unary::Kind::Clamp => x.max(range.low.into()).min(range.high.into()),
            unary::Kind::Sin => x.sin(),
            unary::Kind::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            unary::Kind::Tanh => x.tanh(),
        };
        let entry = |stored: i32| {
            let x = f64::from(input.scale) * f64::from(stored - input.zero_point);
            let y = (function(x) / f64::from(output.scale)).round() + f64::from(output.zero_point);
            y.clamp(-128.0, 127.0) as i8 as u8
        };
        let table = Constant::plain(DType::I8, (-128..128).map(entry).collect());
        Ok(Encoded { op, weights: vec![table], parameters: vec![] })
    }

    fn softmax(&self, step: &Step, node: &Node) -> Result<Encoded, Error> {
        let op = match self.family(step) {
            Family::I8 => OpCode::SoftmaxI8,
            Family::I16 => OpCode::SoftmaxI16,
            Family::F32 => OpCode::SoftmaxF32,
        };
        if self.quantized.is_none() {
            return Ok(Encoded { op, weights: vec![], parameters: vec![] });
        }
        let scale = f64::from(self.quantization(step.inputs[0], node)?.scale);
        let fraction_bits = 31 - SOFTMAX_INTEGER_BITS;
        let factor = (scale * f64::from(1 << fraction_bits)).clamp(1.0, f64::from(i32::MAX));
        let (multiplier, left_shift) = quantize_multiplier(factor);
        let radius = f64::from((1 << SOFTMAX_INTEGER_BITS) - 1) * f64::from(1 << fraction_bits)
            / 2f64.powi(left_shift);
        let parameters = softmax::Parameters { multiplier, left_shift, diff_min: -(radius.floor() as i32) };
        Ok(Encoded { op, weights: vec![], parameters: parameters.emit().to_vec() })
    }
}

/// 4-bit weights of `channels` output channels, two in a byte, the first in its lower half; each channel starts a byte.
fn pairs(weights: &[i8], channels: usize) -> Vec<u8> {
    let pair = |pair: &[i8]| (pair[0] as u8 & 0xF) | (pair.get(1).map_or(0, |high| *high as u8) << 4);
    let channel = (weights.len() / channels.max(1)).max(1);
    weights.chunks(channel).flat_map(|weights| weights.chunks(2).map(pair)).collect()
}

/// Element types of an operator.
#[derive(Clone, Copy)]
enum Family {
    I8,
    I16,
    F32,
}

fn refuse(node: &Node, why: &str) -> Error {
    Error::Node { node: node.name.clone(), op: node.op.name(), why: why.into() }
}

/// The plan belongs to another graph.
fn mismatch(node: &Node) -> Error {
    refuse(node, "is not what its layout says")
}
