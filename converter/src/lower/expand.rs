//! The nodes of one factorised layer.

use crate::graph::{ActivationRange, Conv, Dense, Graph, Mode, Network, Node, Op, Tensor, ValueId, Weight};

use super::stages::{Stage, closes, extent, side, stages, window_stages};
use crate::passes::order::{axis_order, gathered};

/// A convolution of single pixels, without numbers.
const POINTWISE: Conv = Conv {
    weight: Weight::Dense(Tensor { shape: Vec::new(), data: Vec::new() }),
    bias: None,
    strides: [1, 1],
    pads: [0; 4],
    dilations: [1, 1],
    groups: 1,
    activation: ActivationRange::NONE,
};

/// One axis of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// Images or rows.
    Batch,
    /// Of the network.
    Mode(Mode),
    /// Rows and columns of the image.
    Space(usize),
}

/// The signal between two stages: a value, and what its elements are in row-major order.
struct Signal {
    value: ValueId,
    axes: Vec<(Axis, usize)>,
}

struct Expansion<'a> {
    graph: &'a mut Graph,
    node: &'a Node,
    network: &'a Network,
    /// Leading axes of the layer's input: images of a convolution, rows of a dense layer.
    lead: Vec<usize>,
    last: usize,
}

/// Appends the stages of one layer to `graph`.
pub(super) fn expand(graph: &mut Graph, node: &Node, network: &Network) -> Result<(), String> {
    let stages = stages(network, &network.contraction)?;
    let shape = graph.shape(node.inputs[0]).to_vec();
    let space = match &node.op {
        Op::Conv(conv) if conv.groups == 1 => shape[2..].to_vec(),
        Op::Dense(_) => Vec::new(),
        _ => return Err("factorised grouped convolutions are not supported".into()),
    };
    let lead = shape[..shape.len() - 1 - space.len()].to_vec();
    let inputs = side(network, |mode| matches!(mode, Mode::Input(_)));
    let axes = [(Axis::Batch, lead.iter().product())]
        .into_iter()
        .chain(inputs.iter().map(|mode| (Axis::Mode(*mode), extent(network, *mode))))
        .chain(space.iter().enumerate().map(|(axis, extent)| (Axis::Space(axis), *extent)))
        .collect();
    let signal = Signal { value: node.inputs[0], axes };
    let last = if closes(&stages) { stages.len() - 1 } else { stages.len() };
    Expansion { graph, node, network, lead, last }.run(signal, &stages)
}

impl Expansion<'_> {
    fn run(mut self, mut signal: Signal, stages: &[Stage<'_>]) -> Result<(), String> {
        let window = window_stages(stages);
        for (index, stage) in stages.iter().enumerate() {
            signal = match self.node.op.clone() {
                Op::Conv(conv) => {
                    let strided = window.contains(&index) && (conv.strides != [1; 2] || conv.pads != [0; 4]);
                    if stage.rest.is_empty() || strided || stage.window.contains(&true) || stage.groups() > 1
                    {
                        self.conv(signal, index, stage, &conv, window)?
                    } else {
                        self.dense(signal, index, stage)?
                    }
                }
                _ if stage.groups() > 1 => self.conv(signal, index, stage, &POINTWISE, window)?,
                _ => self.dense(signal, index, stage)?,
            };
        }
        if self.last == stages.len() {
            signal = self.scaled(signal)?;
        }
        let outputs = side(self.network, |mode| matches!(mode, Mode::Output(_)));
        let order = self.order(&signal, &[], &outputs, false);
        let shape = self.graph.shape(self.node.output).to_vec();
        let inner = self.graph.values.len();
        signal = self.arranged(signal, &order, shape, &format!("{}/output", self.node.name));
        self.graph.values[inner..].iter_mut().for_each(|value| value.rank_space = false);
        // The layer's own output takes the place of the last value.
        let Some(end) = self.graph.nodes.last_mut() else { return Err("it has no cores".into()) };
        debug_assert_eq!(end.output, signal.value);
        end.output = self.node.output;
        self.graph.values.pop();
        Ok(())
    }

    /// The signal's axes with `outer` modes first (or behind the image, if `inner`), then `channels`.
    fn order(&self, signal: &Signal, outer: &[Mode], channels: &[Mode], inner: bool) -> Vec<Axis> {
        let modes = |modes: &[Mode]| modes.iter().map(|mode| Axis::Mode(*mode)).collect::<Vec<_>>();
        let space: Vec<Axis> =
            signal.axes.iter().map(|(axis, _)| *axis).filter(|axis| matches!(axis, Axis::Space(_))).collect();
        if inner {
            [&[Axis::Batch][..], &space, &modes(outer), &modes(channels)].concat()
        } else {
            [&[Axis::Batch][..], &modes(outer), &modes(channels), &space].concat()
        }
    }

    /// The same elements with their axes in `order`, seen with `shape`.
    fn arranged(&mut self, signal: Signal, order: &[Axis], shape: Vec<usize>, name: &str) -> Signal {
        let at = |axis: &Axis| signal.axes.iter().position(|(own, _)| own == axis);
        let permutation: Vec<usize> = order.iter().filter_map(at).collect();
        let axes: Vec<(Axis, usize)> = permutation.iter().map(|axis| signal.axes[*axis]).collect();
        let mut value = signal.value;
        let wide: Vec<usize> = permutation.iter().copied().filter(|axis| signal.axes[*axis].1 > 1).collect();
        if !wide.is_sorted() {
            let fine = signal.axes.iter().map(|(_, extent)| *extent).collect();
            value = self.reshaped(value, fine, &format!("{name}/split"));
            let moved = axes.iter().map(|(_, extent)| *extent).collect();
            value = self.push(format!("{name}/transpose"), Op::Transpose(permutation), value, moved);
        }
        value = self.reshaped(value, shape, &format!("{name}/join"));
        Signal { value, axes }
    }

    fn reshaped(&mut self, value: ValueId, shape: Vec<usize>, name: &str) -> ValueId {
        if self.graph.shape(value) == shape {
            return value;
        }
        self.push(name.into(), Op::Reshape(shape.clone()), value, shape)
    }

    fn push(&mut self, name: String, op: Op, input: ValueId, shape: Vec<usize>) -> ValueId {
        let output = self.graph.add_value(name.clone(), shape);
        self.graph.values[output.0].rank_space = true;
        self.graph.nodes.push(Node { name, op, inputs: vec![input], output });
        output
    }

    /// Adds a linear layer; the last one has the layer's name and its activation.
    fn linear(&mut self, index: usize, op: Op, input: ValueId) -> Result<ValueId, String> {
        let shape = op.output_shape(&[self.graph.shape(input)])?;
        let inner = format!("{}/{}_{index}", self.node.name, self.network.format);
        let output = self.push(inner, op, input, shape);
        if let (true, Some(node)) = (index == self.last, self.graph.nodes.last_mut()) {
            node.name.clone_from(&self.node.name);
            self.graph.values[output.0].rank_space = false;
        }
        Ok(output)
    }

    fn activation(&self, index: usize) -> ActivationRange {
        match &self.node.op {
            Op::Conv(Conv { activation, .. }) | Op::Dense(Dense { activation, .. }) if index == self.last => {
                *activation
            }
            _ => ActivationRange::NONE,
        }
    }

    fn bias(&self) -> Option<&Vec<f32>> {
        match &self.node.op {
            Op::Conv(Conv { bias, .. }) | Op::Dense(Dense { bias, .. }) => bias.as_ref(),
            _ => None,
        }
    }

    /// The stage's numbers, with the row scale if it is the last one.
    fn weight(&self, index: usize, stage: &Stage<'_>) -> Tensor {
        let mut weight = stage.weight();
        if let (Some(scale), true) = (&self.network.row_scale, index == self.last) {
            let row = weight.len() / scale.len().max(1);
            for (chunk, factor) in weight.data.chunks_mut(row.max(1)).zip(scale) {
                chunk.iter_mut().for_each(|x| *x *= factor);
            }
        }
        weight
    }

    /// A stage over images; the rest modes are more of them.
    fn conv(
        &mut self,
        signal: Signal,
        index: usize,
        stage: &Stage<'_>,
        conv: &Conv,
        [vertical, horizontal]: [usize; 2],
    ) -> Result<Signal, String> {
        let order = self.order(&signal, &stage.rest, &[&stage.shared[..], &stage.summed].concat(), false);
        let extents = |wanted: fn(&Axis) -> bool| -> Vec<usize> {
            signal.axes.iter().filter(|(axis, _)| wanted(axis)).map(|(_, extent)| *extent).collect()
        };
        let mut space = extents(|axis| matches!(axis, Axis::Space(_)));
        if space.is_empty() {
            space.push(1);
        }
        let batch: usize = self.lead.iter().product::<usize>() * stage.repeats;
        let shape = [&[batch, stage.inputs()][..], &space].concat();
        let signal = self.arranged(signal, &order, shape, &self.inner_name(index));
        let pick = |own: bool, value: usize, neutral: usize| if own { value } else { neutral };
        let (high, wide) = (index == vertical, index == horizontal);
        let op = Op::Conv(Conv {
            weight: Weight::Dense(self.weight(index, stage)),
            bias: self.bias().filter(|_| index == self.last).cloned(),
            strides: [pick(high, conv.strides[0], 1), pick(wide, conv.strides[1], 1)],
            pads: [
                pick(high, conv.pads[0], 0),
                pick(wide, conv.pads[1], 0),
                pick(high, conv.pads[2], 0),
                pick(wide, conv.pads[3], 0),
            ],
            dilations: [pick(high, conv.dilations[0], 1), pick(wide, conv.dilations[1], 1)],
            groups: stage.groups(),
            activation: self.activation(index),
        });
        let value = self.linear(index, op, signal.value)?;
        let mut after = self.graph.shape(value)[2..].iter().copied();
        let modes = [&stage.rest[..], &stage.shared, &stage.fresh].concat();
        let axes = std::iter::once(signal.axes[0])
            .chain(modes.iter().map(|mode| (Axis::Mode(*mode), extent(self.network, *mode))))
            .chain(signal.axes.iter().filter_map(|(axis, _)| match axis {
                Axis::Space(_) => Some((*axis, after.next()?)),
                _ => None,
            }))
            .collect();
        Ok(Signal { value, axes })
    }

    /// A stage without a window: rows of its input channels, the rest modes and the image before them.
    fn dense(&mut self, signal: Signal, index: usize, stage: &Stage<'_>) -> Result<Signal, String> {
        let order = self.order(&signal, &stage.rest, &stage.summed, true);
        let rows: usize = signal.axes.iter().map(|(_, extent)| extent).product::<usize>() / stage.inputs();
        let plain = matches!(self.node.op, Op::Dense(_)) && stage.rest.is_empty();
        let lead = if plain { self.lead.clone() } else { vec![rows] };
        let shape = [&lead[..], &[stage.inputs()]].concat();
        let signal = self.arranged(signal, &order, shape, &self.inner_name(index));
        let mut weight = self.weight(index, stage);
        weight.shape.truncate(2);
        let op = Op::Dense(Dense {
            weight: Weight::Dense(weight),
            bias: self.bias().filter(|_| index == self.last).cloned(),
            activation: self.activation(index),
        });
        let value = self.linear(index, op, signal.value)?;
        let kept = signal.axes.len() - stage.summed.len();
        let fresh = stage.fresh.iter().map(|mode| (Axis::Mode(*mode), extent(self.network, *mode)));
        let axes = signal.axes[..kept].iter().copied().chain(fresh).collect();
        Ok(Signal { value, axes })
    }

    /// Row scale and bias where no stage has all outputs: one number for each channel, in the order in which they come.
    fn scaled(&mut self, signal: Signal) -> Result<Signal, String> {
        let modes: Vec<Mode> = signal
            .axes
            .iter()
            .filter_map(|(axis, _)| if let Axis::Mode(mode) = axis { Some(*mode) } else { None })
            .collect();
        let order = self.order(&signal, &[], &modes, false);
        let mut space = self.graph.shape(self.node.output)[self.lead.len() + 1..].to_vec();
        if space.is_empty() {
            space.push(1);
        }
        let channels = self.network.shape[0];
        let shape = [&[self.lead.iter().product::<usize>(), channels][..], &space].concat();
        let signal = self.arranged(signal, &order, shape, &self.inner_name(self.last));
        // Channel `k` of the signal is this output of the layer.
        let mut sorted = modes.clone();
        sorted.sort_unstable();
        let extents: Vec<usize> = sorted.iter().map(|mode| extent(self.network, *mode)).collect();
        let axes: Vec<usize> =
            modes.iter().filter_map(|mode| sorted.iter().position(|own| own == mode)).collect();
        let outputs = axis_order(&extents, &axes);
        let scale = match &self.network.row_scale {
            Some(scale) => gathered(scale, &outputs),
            None => vec![1.0; channels],
        };
        let op = Op::Conv(Conv {
            weight: Weight::Dense(Tensor::new(vec![channels, 1, 1, 1], scale)),
            bias: self.bias().map(|bias| gathered(bias, &outputs)),
            groups: channels,
            activation: self.activation(self.last),
            ..POINTWISE
        });
        let value = self.linear(self.last, op, signal.value)?;
        Ok(Signal { value, axes: signal.axes })
    }

    fn inner_name(&self, index: usize) -> String {
        format!("{}/{}_{index}_in", self.node.name, self.network.format)
    }
}
