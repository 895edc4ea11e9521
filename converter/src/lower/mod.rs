//! Expands factorised weights into chains of ordinary layers.
//!
//! Takes a graph whose weights may be networks; gives one whose weights are all dense. A network is lowered by the modes of its cores
//! alone, in contraction order, so every format that is a chain lowers by the same code: low rank and Tucker-2 (1x1, window, 1x1), CP
//! (1x1, depthwise, 1x1), one-way kernels (kx1, 1xk), depthwise then pointwise. The values between two stages are marked
//! [`rank_space`](crate::graph::Value::rank_space); bias, activation and `row_scale` go to the last stage.
//!
//! Refused: networks that are no such chain (tensor trains, branching cores), and factorised grouped convolutions.

use crate::compress::network;
use crate::graph::{ActivationRange, Conv, Core, Dense, Graph, Mode, Network, Node, Op, Tensor, Weight};
use crate::passes::order::{axis_order, gathered};

/// Why a network is no chain of layers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("node `{node}` ({op}): a `{format}` weight cannot be lowered: {reason}")]
#[diagnostic(help("leave this layer dense, or choose another format for it"))]
pub struct Error {
    /// The layer.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// The network's format.
    pub format: &'static str,
    /// What is not supported.
    pub reason: String,
}

/// Replaces every layer with a network by its chain of stages.
pub fn lower(graph: &Graph) -> Result<Graph, Error> {
    let mut lowered = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    for node in &graph.nodes {
        let Some(Weight::Network(network)) = node.op.weight() else {
            lowered.nodes.push(node.clone());
            continue;
        };
        let refuse =
            |reason| Error { node: node.name.clone(), op: node.op.name(), format: network.format, reason };
        let stages = stages(network).map_err(refuse)?;
        expand(&mut lowered, node, network, stages).map_err(refuse)?;
    }
    Ok(lowered)
}

/// Multiply-adds of the stages of a factorised layer with these input and output shapes, for one inference. A network that does not
/// lower is priced as its dense weight.
pub fn network_macs(network: &Network, input: &[usize], output: &[usize]) -> u64 {
    let product = |extents: &[usize]| extents.iter().product::<usize>() as u64;
    let Ok(stages) = stages(network) else {
        return product(output) * product(network.shape.get(1..).unwrap_or_default());
    };
    if network.shape.len() == 2 {
        let rows = product(input.split_last().map_or(&[], |(_, rest)| rest));
        return stages.iter().map(|stage| rows * stage.weight.len() as u64).sum();
    }
    // Extents of an axis: the input's before the stage that strides along it, the output's from there on.
    let (vertical, horizontal) = window_stages(&stages);
    let height = |shape: &[usize]| if shape.len() == 4 { shape[2] } else { 1 };
    let width = |shape: &[usize]| shape.last().copied().unwrap_or(1);
    let mut total = 0;
    for (index, stage) in stages.iter().enumerate() {
        let h = height(if index < vertical { input } else { output });
        let w = width(if index < horizontal { input } else { output });
        total += (h * w) as u64 * stage.weight.len() as u64;
    }
    total * input.first().copied().unwrap_or(1) as u64
}

/// One layer of the chain.
struct Stage {
    /// `[out, in / groups, kh, kw]`.
    weight: Tensor,
    groups: usize,
    has_height: bool,
    has_width: bool,
}

/// Indices of the stages that stride and pad along the height and along the width: those with the window, or else the first.
fn window_stages(stages: &[Stage]) -> (usize, usize) {
    let first = |has: fn(&Stage) -> bool| stages.iter().position(has).unwrap_or(0);
    (first(|stage| stage.has_height), first(|stage| stage.has_width))
}

/// The chain of a network, or why it is none. The signal carries a list of modes, at first the input's; a core that holds all of
/// them for the last time replaces them (a full convolution), a core whose carried modes are all needed later multiplies along
/// them (a depthwise convolution).
fn stages(network: &Network) -> Result<Vec<Stage>, String> {
    network::check(network).map_err(|error| error.to_string())?;
    let cores: Vec<&Core> = network.contraction.iter().map(|index| &network.cores[*index]).collect();
    let kernel = |mode: &Mode| matches!(mode, Mode::KernelHeight | Mode::KernelWidth);
    for axis in [Mode::KernelHeight, Mode::KernelWidth] {
        if cores.iter().filter(|core| core.modes.contains(&axis)).count() > 1 {
            return Err(format!("{axis:?} lies in several cores"));
        }
    }
    let mut carried = vec![Mode::Input(0)];
    let mut stages = Vec::with_capacity(cores.len());
    for (step, core) in cores.iter().enumerate() {
        let later = |mode: &Mode| cores[step + 1..].iter().any(|core| core.modes.contains(mode));
        let fresh: Vec<Mode> =
            core.modes.iter().copied().filter(|mode| !kernel(mode) && !carried.contains(mode)).collect();
        if fresh.len() > 1 || fresh.iter().any(|mode| matches!(mode, Mode::Input(_))) {
            return Err(format!("core {} opens {fresh:?}", network.contraction[step]));
        }
        if !carried.iter().all(|mode| core.modes.contains(mode)) {
            return Err(format!("core {} does not take all of {carried:?}", network.contraction[step]));
        }
        let kept = carried.iter().filter(|mode| later(mode)).count();
        let channels: usize = carried.iter().map(|mode| extent(core, *mode)).product();
        let opened: usize = fresh.iter().map(|mode| extent(core, *mode)).product();
        let window = [Mode::KernelHeight, Mode::KernelWidth];
        let (order, groups) = if kept == 0 && !fresh.is_empty() {
            ([&fresh[..], &carried, &window].concat(), 1)
        } else if kept == carried.len() {
            ([&carried[..], &fresh, &window].concat(), channels)
        } else {
            return Err(format!(
                "core {} sums some of {carried:?} and keeps others",
                network.contraction[step]
            ));
        };
        let [kh, kw] = window.map(|mode| extent(core, mode));
        let shape =
            if kept == 0 { vec![opened, channels, kh, kw] } else { vec![channels * opened, 1, kh, kw] };
        stages.push(Stage {
            weight: Tensor::new(shape, permuted(core, &order)),
            groups,
            has_height: core.modes.contains(&Mode::KernelHeight),
            has_width: core.modes.contains(&Mode::KernelWidth),
        });
        if kept == 0 {
            carried.clear();
        }
        carried.extend(fresh);
    }
    if carried != [Mode::Output(0)] {
        return Err(format!("the chain ends in {carried:?}"));
    }
    if network.shape.len() == 2 && stages.iter().any(|stage| stage.groups > 1) {
        return Err("a dense layer has no depthwise stage".into());
    }
    if let (Some(scale), Some(last)) = (&network.row_scale, stages.last_mut()) {
        let row = last.weight.len() / scale.len().max(1);
        for (chunk, factor) in last.weight.data.chunks_mut(row.max(1)).zip(scale) {
            chunk.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Ok(stages)
}

fn extent(core: &Core, mode: Mode) -> usize {
    core.modes.iter().position(|own| *own == mode).map_or(1, |axis| core.tensor.shape[axis])
}

/// The numbers of a core with its axes in the order of `modes`; those it lacks have extent 1.
fn permuted(core: &Core, modes: &[Mode]) -> Vec<f32> {
    let axes: Vec<usize> =
        modes.iter().filter_map(|mode| core.modes.iter().position(|own| own == mode)).collect();
    gathered(&core.tensor.data, &axis_order(&core.tensor.shape, &axes))
}

/// Appends the stages of one layer to `graph`.
fn expand(graph: &mut Graph, node: &Node, network: &Network, stages: Vec<Stage>) -> Result<(), String> {
    let (vertical, horizontal) = window_stages(&stages);
    let last = stages.len() - 1;
    let mut input = node.inputs[0];
    for (index, stage) in stages.into_iter().enumerate() {
        let op = match &node.op {
            Op::Conv(conv) if conv.groups == 1 => {
                let pick = |own: bool, value: usize, neutral: usize| if own { value } else { neutral };
                let (high, wide) = (index == vertical, index == horizontal);
                Op::Conv(Conv {
                    weight: Weight::Dense(stage.weight),
                    bias: conv.bias.clone().filter(|_| index == last),
                    strides: [pick(high, conv.strides[0], 1), pick(wide, conv.strides[1], 1)],
                    pads: [
                        pick(high, conv.pads[0], 0),
                        pick(wide, conv.pads[1], 0),
                        pick(high, conv.pads[2], 0),
                        pick(wide, conv.pads[3], 0),
                    ],
                    dilations: [pick(high, conv.dilations[0], 1), pick(wide, conv.dilations[1], 1)],
                    groups: stage.groups,
                    activation: if index == last { conv.activation } else { ActivationRange::NONE },
                })
            }
            Op::Dense(dense) => {
                let mut weight = stage.weight;
                weight.shape.truncate(2);
                Op::Dense(Dense {
                    weight: Weight::Dense(weight),
                    bias: dense.bias.clone().filter(|_| index == last),
                    activation: if index == last { dense.activation } else { ActivationRange::NONE },
                })
            }
            _ => return Err("factorised grouped convolutions are not supported".into()),
        };
        let output = if index == last {
            node.output
        } else {
            let shape = op.output_shape(&[graph.shape(input)])?;
            let id = graph.add_value(format!("{}/{}_{index}", node.name, network.format), shape);
            graph.values[id.0].rank_space = true;
            id
        };
        let name = if index == last { node.name.clone() } else { graph.value(output).name.clone() };
        graph.nodes.push(Node { name, op, inputs: vec![input], output });
        input = output;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::noise;
    use crate::evaluate::evaluate;

    fn core(shape: &[usize], modes: &[Mode], seed: u64) -> Core {
        let tensor = Tensor::new(shape.to_vec(), noise(shape.iter().product(), seed));
        Core { tensor, modes: modes.to_vec() }
    }

    fn network(shape: &[usize], cores: Vec<Core>) -> Network {
        let contraction = (0..cores.len()).collect();
        let row_scale = Some((0..shape[0]).map(|o| 0.5 + o as f32).collect());
        Network { format: "test", shape: shape.to_vec(), cores, contraction, row_scale }
    }

    fn layer(op: Op, input: &[usize]) -> Graph {
        let mut graph = Graph::default();
        let output_shape = op.output_shape(&[input]).unwrap();
        let (x, y) = (graph.add_value("x", input.to_vec()), graph.add_value("y", output_shape));
        graph.inputs = vec![x];
        graph.outputs = vec![y];
        graph.nodes = vec![Node { name: "layer".into(), op, inputs: vec![x], output: y }];
        graph
    }

    fn conv(weight: Weight) -> Conv {
        let bias = Some(noise(weight.shape()[0], 99));
        Conv {
            weight,
            bias,
            strides: [2, 1],
            pads: [1, 2, 0, 1],
            dilations: [1, 2],
            groups: 1,
            activation: ActivationRange { low: -1.0, high: 3.0 },
        }
    }

    fn same_output(factorised: &Graph, dense: &Graph, stages: usize) {
        let lowered = lower(factorised).unwrap();
        lowered.check().unwrap();
        assert_eq!(lowered.nodes.len(), stages);
        assert_eq!(lowered.macs(), factorised.macs());
        let inner: Vec<bool> =
            lowered.nodes.iter().map(|node| lowered.value(node.output).rank_space).collect();
        assert!(inner[..stages - 1].iter().all(|inner| *inner) && !inner[stages - 1]);
        let input = vec![noise(3 * dense.shape(dense.inputs[0]).iter().product::<usize>(), 5)];
        let run = |graph: &Graph| evaluate(graph, &input, 3, &graph.outputs).remove(0);
        let (chain, whole) = (run(&lowered), run(dense));
        assert_eq!(chain.len(), whole.len());
        assert!(whole.iter().any(|x| x.abs() > 0.1));
        for (a, b) in chain.iter().zip(&whole) {
            assert!((a - b).abs() < 2e-5, "{a} {b}");
        }
    }

    #[test]
    fn conv_chains_equal_the_dense_layer() {
        use Mode::*;
        let shape = [6, 4, 3, 2];
        let cases = [
            vec![core(&[3, 4], &[Bond(0), Input(0)], 1), {
                core(&[6, 3, 3, 2], &[Output(0), Bond(0), KernelHeight, KernelWidth], 2)
            }],
            vec![
                core(&[3, 4], &[Bond(0), Input(0)], 1),
                core(&[3, 2, 2, 3], &[KernelHeight, Bond(1), KernelWidth, Bond(0)], 2),
                core(&[6, 2], &[Output(0), Bond(1)], 3),
            ],
            // CP: one bond in three cores.
            vec![
                core(&[5, 4], &[Bond(0), Input(0)], 1),
                core(&[5, 3, 2], &[Bond(0), KernelHeight, KernelWidth], 2),
                core(&[6, 5], &[Output(0), Bond(0)], 3),
            ],
            // One-way.
            vec![
                core(&[5, 4, 3], &[Bond(0), Input(0), KernelHeight], 1),
                core(&[6, 5, 2], &[Output(0), Bond(0), KernelWidth], 2),
            ],
            // Depthwise with two filters a channel, then pointwise.
            vec![
                core(&[2, 4, 3, 2], &[Bond(0), Input(0), KernelHeight, KernelWidth], 1),
                core(&[4, 6, 2], &[Input(0), Output(0), Bond(0)], 2),
            ],
        ];
        for cores in cases {
            let stages = cores.len();
            let network = network(&shape, cores);
            let dense = Weight::Dense(network::reconstruct(&network).unwrap());
            let input = [1, 4, 7, 6];
            let factorised = layer(Op::Conv(conv(Weight::Network(network))), &input);
            same_output(&factorised, &layer(Op::Conv(conv(dense)), &input), stages);
        }
    }

    #[test]
    fn strided_pointwise_sequence_and_dense_layers_lower() {
        use Mode::*;
        let pair = |shape: &[usize]| {
            network(
                shape,
                vec![core(&[2, 5], &[Bond(0), Input(0)], 1), core(&[6, 2], &[Output(0), Bond(0)], 2)],
            )
        };
        let pointwise = pair(&[6, 5, 1, 1]);
        let dense = Weight::Dense(network::reconstruct(&pointwise).unwrap());
        for input in [vec![1, 5, 4, 6], vec![1, 5, 6]] {
            let with = |weight| {
                let mut conv = conv(weight);
                conv.pads[2] = 1;
                conv.pads[0] = usize::from(input.len() == 4);
                if input.len() == 3 {
                    conv = Conv { pads: [0, 1, 0, 1], strides: [1, 2], ..conv };
                }
                layer(Op::Conv(conv), &input)
            };
            same_output(&with(Weight::Network(pointwise.clone())), &with(dense.clone()), 2);
        }
        let matrix = pair(&[6, 5]);
        let dense = Weight::Dense(network::reconstruct(&matrix).unwrap());
        let with = |weight| {
            let dense = Dense { weight, bias: Some(noise(6, 4)), activation: ActivationRange::RELU };
            layer(Op::Dense(dense), &[1, 3, 5])
        };
        same_output(&with(Weight::Network(matrix)), &with(dense), 2);
    }

    #[test]
    fn no_chain_is_refused_and_named() {
        use Mode::*;
        let train = network(
            &[4, 4],
            vec![
                core(&[2, 2, 2], &[Output(0), Input(0), Bond(0)], 1),
                core(&[2, 2, 2], &[Bond(0), Output(1), Input(1)], 2),
            ],
        );
        let dense = Dense { weight: Weight::Network(train), bias: None, activation: ActivationRange::NONE };
        let error = lower(&layer(Op::Dense(dense), &[1, 4])).unwrap_err();
        assert_eq!((error.node.as_str(), error.op), ("layer", "dense"));
    }
}
