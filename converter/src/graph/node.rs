//! Operators and their shapes.

use super::{Tensor, ValueId, Weight};

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name in the source model, or one derived from it; unique in the graph.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it reads; one value for all but [`Op::Add`] and [`Op::Mul`].
    pub inputs: Vec<ValueId>,
    /// What it gives.
    pub output: ValueId,
}

/// What a node does. Every variant works on any batch size; axis 0 is the batch unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Convolution over the last one or two axes of `[n, c, w]` or `[n, c, h, w]`.
    Conv(Conv),
    /// Matrix product over the last axis.
    Dense(Dense),
    /// `x * scale[c] + shift[c]`, channel = axis 1 (batch norm that is not folded yet).
    Affine(Affine),
    /// `min(max(x, low), high)`.
    Clamp(ActivationRange),
    /// An elementwise function.
    Unary(Unary),
    /// Sum of two values of equal shape, then clamp.
    Add(ActivationRange),
    /// Product of two values of equal shape, then clamp.
    Mul(ActivationRange),
    /// Maximum over windows; padding never wins.
    MaxPool(Pool),
    /// Mean over windows.
    AveragePool(Pool),
    /// Mean over `axes` (never axis 0).
    Mean {
        /// Ascending.
        axes: Vec<usize>,
        /// Whether reduced axes stay with extent 1.
        keep_axes: bool,
    },
    /// The same elements in row-major order under another shape, which is given whole.
    Reshape(Vec<usize>),
    /// Output axis `k` is input axis `permutation[k]`.
    Transpose(Vec<usize>),
    /// Constant elements around the input.
    Pad {
        /// Elements added before each axis.
        before: Vec<usize>,
        /// Elements added behind each axis.
        after: Vec<usize>,
        /// Their value.
        value: f32,
    },
    /// `exp(x) / sum(exp(x))` over `axis`.
    Softmax {
        /// Not 0.
        axis: usize,
    },
}

/// Bounds of a fused activation: ReLU is `[0, inf]`, ReLU6 `[0, 6]`, none is [`ActivationRange::NONE`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationRange {
    /// Lower bound, or -infinity.
    pub low: f32,
    /// Upper bound, or infinity.
    pub high: f32,
}

impl ActivationRange {
    /// No activation.
    pub const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
    /// Rectifier.
    pub const RELU: Self = Self { low: 0.0, high: f32::INFINITY };

    /// What clamping by `self`, then by `next` does.
    pub fn then(self, next: Self) -> Self {
        Self { low: self.low.max(next.low).min(next.high), high: self.high.min(next.high).max(next.low) }
    }

    /// Clamps one number.
    pub fn apply(self, x: f32) -> f32 {
        x.max(self.low).min(self.high)
    }

    /// Whether it changes nothing.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// A convolution, with its bias and activation fused.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// `[o, i / groups, kh, kw]`, always four axes: `kh` = 1 for sequences.
    pub weight: Weight,
    /// One number for each output channel.
    pub bias: Option<Vec<f32>>,
    /// Vertical, horizontal; vertical 1 for sequences.
    pub strides: [usize; 2],
    /// Zeros added at top, left, bottom, right.
    pub pads: [usize; 4],
    /// Vertical, horizontal.
    pub dilations: [usize; 2],
    /// Channels fall into this many groups; `groups` = input channels is depthwise.
    pub groups: usize,
    /// Applied last.
    pub activation: ActivationRange,
}

/// A dense layer, with its bias and activation fused: `y[.., o] = sum_i w[o, i] x[.., i] + bias[o]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// `[o, i]`.
    pub weight: Weight,
    /// One number for each output.
    pub bias: Option<Vec<f32>>,
    /// Applied last.
    pub activation: ActivationRange,
}

/// A scale and a shift for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Factor of each channel.
    pub scale: Vec<f32>,
    /// Summand of each channel.
    pub shift: Vec<f32>,
}

/// Windows of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Height, width; height 1 for sequences.
    pub kernel: [usize; 2],
    /// Vertical, horizontal.
    pub strides: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    /// Whether padding counts in the divisor of a mean.
    pub count_include_pad: bool,
}

/// Elementwise functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// Sine.
    Sin,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

/// Outputs along one axis of a convolution or pooling: `(extent + pads - dilation * (kernel - 1) - 1) / stride + 1`, or
/// `None` where the padded input is smaller than the window.
pub fn conv_output_extent(
    extent: usize,
    pads: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
) -> Option<usize> {
    let window = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    Some(extent.checked_add(pads)?.checked_sub(window)?.checked_div(stride)? + 1)
}

/// A batch of images seen through any input of rank 3 (height 1) or 4: `[n, c, h, w]`.
pub fn image_shape(shape: &[usize]) -> Result<[usize; 4], String> {
    match *shape {
        [n, c, w] => Ok([n, c, 1, w]),
        [n, c, h, w] => Ok([n, c, h, w]),
        _ => Err(format!("needs [n, c, w] or [n, c, h, w], got {shape:?}")),
    }
}

impl Op {
    /// Name for reports, the field's usual spelling.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(conv) if conv.groups > 1 => "conv2d-grouped",
            Self::Conv(_) => "conv2d",
            Self::Dense(_) => "dense",
            Self::Affine(_) => "affine",
            Self::Clamp(_) => "clamp",
            Self::Unary(Unary::Sin) => "sin",
            Self::Unary(Unary::Sigmoid) => "sigmoid",
            Self::Unary(Unary::Tanh) => "tanh",
            Self::Add(_) => "add",
            Self::Mul(_) => "mul",
            Self::MaxPool(_) => "max-pool",
            Self::AveragePool(_) => "average-pool",
            Self::Mean { .. } => "mean",
            Self::Reshape(_) => "reshape",
            Self::Transpose(_) => "transpose",
            Self::Pad { .. } => "pad",
            Self::Softmax { .. } => "softmax",
        }
    }

    /// Learnt numbers, as stored now.
    pub fn parameters(&self) -> usize {
        let bias = |bias: &Option<Vec<f32>>| bias.as_ref().map_or(0, Vec::len);
        match self {
            Self::Conv(conv) => conv.weight.parameters() + bias(&conv.bias),
            Self::Dense(dense) => dense.weight.parameters() + bias(&dense.bias),
            Self::Affine(affine) => affine.scale.len() + affine.shift.len(),
            _ => 0,
        }
    }

    /// Shape of the output for inputs of these shapes, or why there is none.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let arity = if matches!(self, Self::Add(_) | Self::Mul(_)) { 2 } else { 1 };
        if inputs.len() != arity {
            return Err(format!("takes {arity} inputs, got {}", inputs.len()));
        }
        let input = inputs[0];
        let windows =
            |kernel: [usize; 2], strides: [usize; 2], pads: [usize; 4], dilations: [usize; 2], channels| {
                let [n, _, h, w] = image_shape(input)?;
                let extent = |size, before, behind, axis: usize| {
                    conv_output_extent(size, before + behind, kernel[axis], strides[axis], dilations[axis])
                        .ok_or_else(|| format!("window {kernel:?} does not fit input {input:?}"))
                };
                let (oh, ow) = (extent(h, pads[0], pads[2], 0)?, extent(w, pads[1], pads[3], 1)?);
                Ok(if input.len() == 3 { vec![n, channels, ow] } else { vec![n, channels, oh, ow] })
            };
        match self {
            Self::Conv(conv) => {
                let [o, i, kh, kw] = *conv.weight.shape() else {
                    return Err("convolution weight needs four axes".into());
                };
                let channels = image_shape(input)?[1];
                if conv.groups == 0 || i * conv.groups != channels || o % conv.groups != 0 {
                    return Err(format!(
                        "weight [{o}, {i}, {kh}, {kw}] in {} groups does not fit {channels} input channels",
                        conv.groups
                    ));
                }
                windows([kh, kw], conv.strides, conv.pads, conv.dilations, o)
            }
            Self::Dense(dense) => {
                let [o, i] = *dense.weight.shape() else {
                    return Err("dense weight needs two axes".into());
                };
                match input.split_last() {
                    Some((&last, rest)) if last == i => Ok([rest, &[o]].concat()),
                    _ => Err(format!("weight [{o}, {i}] does not fit input {input:?}")),
                }
            }
            Self::Affine(affine) => match input.get(1) {
                Some(&c) if c == affine.scale.len() && c == affine.shift.len() => Ok(input.to_vec()),
                _ => Err(format!("{} channels do not fit input {input:?}", affine.scale.len())),
            },
            Self::Clamp(_) | Self::Unary(_) => Ok(input.to_vec()),
            Self::Add(_) | Self::Mul(_) if inputs[1] == input => Ok(input.to_vec()),
            Self::Add(_) | Self::Mul(_) => Err(format!("shapes {input:?} and {:?} differ", inputs[1])),
            Self::MaxPool(pool) | Self::AveragePool(pool) => {
                windows(pool.kernel, pool.strides, pool.pads, [1, 1], image_shape(input)?[1])
            }
            Self::Mean { axes, keep_axes } => {
                if axes.iter().any(|axis| *axis == 0 || *axis >= input.len()) {
                    return Err(format!("axes {axes:?} do not fit input {input:?}"));
                }
                let kept = input.iter().enumerate().filter_map(|(axis, extent)| {
                    match (axes.contains(&axis), keep_axes) {
                        (true, true) => Some(1),
                        (true, false) => None,
                        (false, _) => Some(*extent),
                    }
                });
                Ok(kept.collect())
            }
            Self::Reshape(shape) => {
                if shape.iter().product::<usize>() == input.iter().product::<usize>() {
                    Ok(shape.clone())
                } else {
                    Err(format!("{input:?} has another number of elements than {shape:?}"))
                }
            }
            Self::Transpose(permutation) => {
                let mut sorted = permutation.clone();
                sorted.sort_unstable();
                if sorted.iter().copied().eq(0..input.len()) {
                    Ok(permutation.iter().map(|axis| input[*axis]).collect())
                } else {
                    Err(format!("{permutation:?} is no permutation of the axes of {input:?}"))
                }
            }
            Self::Pad { before, after, .. } => {
                if before.len() != input.len() || after.len() != input.len() {
                    return Err(format!("{before:?}, {after:?} do not fit input {input:?}"));
                }
                Ok(input.iter().zip(before).zip(after).map(|((x, b), a)| x + b + a).collect())
            }
            Self::Softmax { axis } if *axis > 0 && *axis < input.len() => Ok(input.to_vec()),
            Self::Softmax { axis } => Err(format!("axis {axis} does not fit input {input:?}")),
        }
    }

    /// Multiply-adds for these shapes; a factorised weight is priced by `lower`'s stages.
    pub fn macs(&self, input: &[usize], output: &[usize]) -> u64 {
        let product = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        match self {
            Self::Conv(conv) => match &conv.weight {
                Weight::Dense(tensor) => product(output) * product(&tensor.shape[1..]),
                Weight::Network(network) => crate::lower::network_macs(network, input, output),
            },
            Self::Dense(dense) => match &dense.weight {
                Weight::Dense(tensor) => product(output) * tensor.shape[1] as u64,
                Weight::Network(network) => crate::lower::network_macs(network, input, output),
            },
            _ => 0,
        }
    }

    /// The weight of a linear layer.
    pub fn weight(&self) -> Option<&Weight> {
        match self {
            Self::Conv(conv) => Some(&conv.weight),
            Self::Dense(dense) => Some(&dense.weight),
            _ => None,
        }
    }

    /// The dense weight of a linear layer that is not factorised.
    pub fn dense_weight(&self) -> Option<&Tensor> {
        match self.weight()? {
            Weight::Dense(tensor) => Some(tensor),
            Weight::Network(_) => None,
        }
    }
}
