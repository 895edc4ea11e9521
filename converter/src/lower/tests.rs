use super::*;
use crate::compress::network;
use crate::compress::tests::noise;
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Conv, Core, Dense, Mode, Network, Node, Op, Tensor};

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

fn permutations(n: usize) -> Vec<Vec<usize>> {
    (0..n).fold(vec![Vec::new()], |orders, _| {
        let longer = |order: &Vec<usize>| {
            let free: Vec<usize> = (0..n).filter(|core| !order.contains(core)).collect();
            free.into_iter().map(|core| [&order[..], &[core]].concat()).collect::<Vec<_>>()
        };
        orders.iter().flat_map(longer).collect()
    })
}

fn same_output(factorised: &Graph, dense: &Graph, stages: usize) {
    let lowered = equal(factorised, dense);
    assert_eq!(lowered.nodes.len(), stages);
    let inner: Vec<bool> = lowered.nodes.iter().map(|node| lowered.value(node.output).rank_space).collect();
    assert!(inner[..stages - 1].iter().all(|inner| *inner) && !inner[stages - 1]);
}

/// The factorised layer, lowered: it gives what the dense one gives, for as many MACs as it said.
fn equal(factorised: &Graph, dense: &Graph) -> Graph {
    let lowered = lower(factorised).unwrap();
    lowered.check().unwrap();
    assert_eq!(lowered.macs(), factorised.macs());
    let input = vec![noise(3 * dense.shape(dense.inputs[0]).iter().product::<usize>(), 5)];
    let run = |graph: &Graph| evaluate(graph, &input, 3, &graph.outputs).remove(0);
    let (chain, whole) = (run(&lowered), run(dense));
    assert_eq!(chain.len(), whole.len());
    assert!(whole.iter().any(|x| x.abs() > 0.1));
    for (a, b) in chain.iter().zip(&whole) {
        assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
    }
    lowered
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
        network(shape, vec![core(&[2, 5], &[Bond(0), Input(0)], 1), core(&[6, 2], &[Output(0), Bond(0)], 2)])
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
fn sums_over_some_modes_run_as_more_images_or_rows() {
    use Mode::*;
    let kronecker = |shape: &[usize], n: usize, m: usize, terms: usize| {
        let (o, i) = (shape[0] / n, shape[1] / m);
        let inner: Vec<usize> = [&[terms, o, i], &shape[2..]].concat();
        let modes = [Bond(0), Output(1), Input(1), KernelHeight, KernelWidth];
        network(
            shape,
            vec![
                core(&[terms, n, m], &[Bond(0), Output(0), Input(0)], 1),
                core(&inner, &modes[..inner.len()], 2),
            ],
        )
    };
    let fast = network(
        &[8, 6, 3, 2],
        vec![
            core(&[5, 2], &[Bond(0), Input(0)], 1),
            core(&[5, 4, 3, 3, 2], &[Bond(0), Output(1), Input(1), KernelHeight, KernelWidth], 2),
            core(&[2, 5], &[Output(0), Bond(0)], 3),
        ],
    );
    let pointwise = kronecker(&[8, 6, 1, 1], 2, 3, 2);
    for network in [kronecker(&[8, 6, 3, 2], 4, 2, 3), fast, pointwise] {
        let dense = Weight::Dense(network::reconstruct(&network).unwrap());
        for mut order in permutations(network.cores.len()) {
            let input = [1, 6, 7, 6];
            let with = |weight| layer(Op::Conv(conv(weight)), &input);
            let whole = with(dense.clone());
            let network = Network { contraction: std::mem::take(&mut order), ..network.clone() };
            equal(&with(Weight::Network(network)), &whole);
        }
    }
    let train = network(
        &[24, 18],
        vec![
            core(&[2, 3, 4], &[Output(0), Input(0), Bond(0)], 1),
            core(&[4, 4, 3, 3], &[Bond(0), Output(1), Input(1), Bond(1)], 2),
            core(&[3, 3, 2], &[Bond(1), Output(2), Input(2)], 3),
        ],
    );
    for network in [train, kronecker(&[24, 18], 4, 2, 3), kronecker(&[24, 18], 4, 6, 2)] {
        let dense = Weight::Dense(network::reconstruct(&network).unwrap());
        for order in permutations(network.cores.len()) {
            let with = |weight| {
                let dense = Dense { weight, bias: Some(noise(24, 4)), activation: ActivationRange::RELU };
                layer(Op::Dense(dense), &[1, 3, 18])
            };
            let whole = with(dense.clone());
            let network = Network { contraction: order, ..network.clone() };
            equal(&with(Weight::Network(network)), &whole);
        }
        let (input, output) = ([1, 18], [1, 24]);
        let best = Network { contraction: cheapest_order(&network, &input, &output), ..network.clone() };
        let least = network_macs(&best, &input, &output);
        assert!(least <= network_macs(&network, &input, &output));
    }
}

#[test]
fn no_chain_is_refused_and_named() {
    use Mode::*;
    let twice = network(
        &[4, 4, 3, 1],
        vec![
            core(&[2, 4, 3, 1], &[Bond(0), Input(0), KernelHeight, KernelWidth], 1),
            core(&[2, 4, 3], &[Bond(0), Output(0), KernelHeight], 2),
        ],
    );
    let error = lower(&layer(Op::Conv(conv(Weight::Network(twice))), &[1, 4, 6, 6])).unwrap_err();
    assert_eq!((error.node.as_str(), error.op), ("layer", "conv2d"));
}
