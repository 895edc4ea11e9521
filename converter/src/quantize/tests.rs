use super::*;
use crate::graph::{Conv, Dense, Node, Tensor, Unary, Weight};

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn dense(o: usize, i: usize, data: Vec<f32>) -> Op {
    let weight = Weight::Dense(Tensor::new(vec![o, i], data));
    Op::Dense(Dense { weight, bias: None, activation: ActivationRange::NONE })
}

fn conv(shape: [usize; 4], groups: usize, seed: u64) -> Op {
    Op::Conv(Conv {
        weight: Weight::Dense(Tensor::new(shape.to_vec(), random(shape.iter().product(), seed))),
        bias: Some(random(shape[0], seed + 1)),
        strides: [1, 1],
        pads: [0; 4],
        dilations: [1, 1],
        groups,
        activation: ActivationRange::NONE,
    })
}

fn chain(shape: &[usize], ops: Vec<Op>) -> Graph {
    let mut graph = Graph::default();
    let mut last = graph.add_value("x", shape.to_vec());
    graph.inputs.push(last);
    for (k, op) in ops.into_iter().enumerate() {
        let output = graph.add_value(format!("v{k}"), op.output_shape(&[graph.shape(last)]).unwrap());
        graph.nodes.push(Node { name: format!("n{k}"), op, inputs: vec![last], output });
        last = output;
    }
    graph.outputs.push(last);
    graph
}

fn samples(graph: &Graph, count: usize, scale: f32) -> Dataset {
    let len: usize = graph.shape(graph.inputs[0]).iter().product();
    let data = random(len * count, 77).iter().map(|x| x * scale).collect();
    Dataset { inputs: vec![data], samples: count, labels: None }
}

fn error_on(graph: &Graph, quantized: &Quantized, data: &Dataset) -> f64 {
    let expected = evaluate(graph, &data.inputs, data.samples, &graph.outputs);
    metrics::relative_rms(&expected[0], &simulate(quantized, &data.inputs, data.samples)[0])
}

const PIN: Quantization = Quantization { scale: 0.02, zero_point: 3, bits: 8 };

#[test]
fn without_data_all_must_be_pinned() {
    let mut graph =
        chain(&[1, 4], vec![dense(3, 4, random(12, 1)), Op::Unary(Unary::Sin), Op::Softmax { axis: 1 }]);
    let error = quantize(&graph, None, &Options::default()).unwrap_err();
    assert_eq!(error, Error::Uncalibrated { value: "x".into(), others: 2 });
    for id in 0..3 {
        graph.values[id].quantization = Some(PIN);
    }
    let quantized = quantize(&graph, None, &Options::default()).unwrap();
    assert_eq!(quantized.graph.values[1].quantization, Some(PIN));
    // Probabilities leave the graph in 16 bits, unless they are pinned to TensorFlow Lite's 8.
    let wide = Quantization { scale: 1.0 / 65536.0, zero_point: -32768, bits: 16 };
    assert_eq!(quantized.graph.values[3].quantization, Some(wide));
    let narrow = Quantization { scale: 1.0 / 256.0, zero_point: -128, bits: 8 };
    let mut pinned = graph.clone();
    pinned.values[3].quantization = Some(narrow);
    let quantized = quantize(&pinned, None, &Options::default()).unwrap();
    assert_eq!(quantized.graph.values[3].quantization, Some(narrow));
    // Pins win over calibration too.
    let data = samples(&graph, 8, 1.0);
    let calibrated = quantize(&graph, Some(&data), &Options::default()).unwrap();
    assert_eq!(calibrated.graph.values[1].quantization, Some(PIN));
}

#[test]
fn constants_follow_the_definition() {
    let mut graph = chain(&[1, 2], vec![dense(2, 2, vec![1.27, -0.5, 0.0, 2.54])]);
    let Op::Dense(layer) = &mut graph.nodes[0].op else { unreachable!() };
    layer.bias = Some(vec![0.3, -1.0]);
    layer.activation = ActivationRange { low: 0.0, high: 6.0 };
    graph.values[0].quantization = Some(Quantization { scale: 0.5, zero_point: -1, bits: 8 });
    graph.values[1].quantization = Some(Quantization { scale: 0.25, zero_point: -100, bits: 8 });
    let quantized = quantize(&graph, None, &Options::default()).unwrap();
    let layer = quantized.layers[0].as_ref().unwrap();
    assert_eq!(layer.weights, [127, -50, 0, 127]);
    assert_eq!(layer.bias, [60, -100]);
    // 0.5 * 0.01 / 0.25 = 0.02 = 0.64 * 2^-5, 0.04 = 0.64 * 2^-4.
    assert_eq!(layer.shifts, [-5, -4]);
    assert!(layer.multipliers.iter().all(|m| (f64::from(*m) / 2f64.powi(31) - 0.64).abs() < 1e-6));
    assert_eq!(layer.bounds, [-100, -76]);
    // Scales that the model fixes are taken as they are.
    let options = Options { weight_scales: [("n0".into(), vec![0.02, 0.04])].into(), ..Options::default() };
    let fixed = quantize(&graph, None, &options).unwrap();
    assert_eq!(fixed.layers[0].as_ref().unwrap().weights, [64, -25, 0, 64]);
    let options =
        Options { weight_scales: [("n0".into(), vec![0.02])].into(), fit: true, ..Options::default() };
    for data in [None, Some(samples(&graph, 4, 1.0))] {
        assert!(matches!(quantize(&graph, data.as_ref(), &options), Err(Error::Node { .. })));
    }
}

#[test]
fn contradicting_or_impossible_pins_are_refused() {
    let mut graph = chain(&[1, 4], vec![Op::Reshape(vec![4]), Op::Unary(Unary::Sin)]);
    graph.values[0].quantization = Some(PIN);
    graph.values[1].quantization = Some(Quantization { scale: 0.03, ..PIN });
    let data = samples(&graph, 2, 1.0);
    assert!(matches!(quantize(&graph, Some(&data), &Options::default()), Err(Error::Pinned { .. })));
    graph.values[1].quantization = None;
    for bad in [
        Quantization { scale: 0.0, ..PIN },
        Quantization { scale: f32::NAN, ..PIN },
        Quantization { scale: -1.0, ..PIN },
        Quantization { zero_point: 128, ..PIN },
        Quantization { bits: 4, ..PIN },
        Quantization { bits: 16, ..PIN },
    ] {
        graph.values[0].quantization = Some(bad);
        let error = quantize(&graph, Some(&data), &Options::default()).unwrap_err();
        assert!(matches!(error, Error::Pin { .. }), "{bad:?}: {error}");
    }
}

#[test]
fn what_only_moves_numbers_shares_their_quantisation() {
    let mut graph = chain(
        &[1, 2, 4],
        vec![
            Op::Transpose(vec![0, 2, 1]),
            Op::Mean { axes: vec![1], keep_axes: false },
            dense(2, 2, random(4, 1)),
        ],
    );
    let data = samples(&graph, 9, 3.0);
    let quantized = quantize(&graph, Some(&data), &Options::default()).unwrap();
    let of = |id: usize| quantized.graph.values[id].quantization.unwrap();
    assert_eq!(of(0), of(1));
    assert!(of(2).scale < of(1).scale, "a mean has a range of its own");
    assert_ne!(of(2), of(3));

    // Without data a mean keeps the quantisation of what it is taken of.
    let pinned = Quantization { scale: 0.5, zero_point: 3, bits: 8 };
    graph.values[0].quantization = Some(pinned);
    graph.values[3].quantization = Some(pinned);
    let quantized = quantize(&graph, None, &Options::default()).unwrap();
    assert_eq!(quantized.graph.values[2].quantization, Some(pinned));
}

#[test]
fn a_mean_much_smaller_than_its_input_keeps_its_precision() {
    // Most of the input cancels: the mean over 1024 numbers of both signs is far below one of the input's levels.
    let graph = chain(&[1, 4, 32, 32], vec![Op::Mean { axes: vec![2, 3], keep_axes: false }]);
    let data = samples(&graph, 20, 3.0);
    let quantized = quantize(&graph, Some(&data), &Options::default()).unwrap();
    let expected = evaluate(&graph, &data.inputs, data.samples, &graph.outputs);
    let given = simulate(&quantized, &data.inputs, data.samples);
    let error = metrics::relative_rms(&expected[0], &given[0]);
    assert!(error < 0.05, "relative error {error}");
}

#[test]
fn accumulators_that_could_overflow_are_refused() {
    // 127 * 255 * k + bias passes 2^31 from k = 66 311 on.
    for (k, holds) in [(66_000, true), (66_400, false)] {
        let mut graph = chain(&[1, k], vec![dense(1, k, vec![1.0; k])]);
        graph.values[0].quantization = Some(Quantization { scale: 1.0, zero_point: -128, bits: 8 });
        graph.values[1].quantization = Some(Quantization { scale: 1e5, zero_point: 0, bits: 8 });
        match quantize(&graph, None, &Options::default()) {
            Ok(_) => assert!(holds, "{k} inputs"),
            Err(Error::Overflow { node, channel: 0, bound }) => {
                assert!(!holds && node == "n0" && bound == 127 * 255 * k as i64, "{k} inputs: {bound}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn wide_rank_values_drop_bits_before_their_reader_overflows() {
    for rank in [8, 600, 4000] {
        let mut graph =
            chain(&[1, 6], vec![dense(rank, 6, random(6 * rank, 1)), dense(2, rank, vec![1.0; 2 * rank])]);
        graph.values[1].rank_space = true;
        let data = samples(&graph, 30, 1.0);
        let quantized =
            quantize(&graph, Some(&data), &Options { rank_bits: RankBits::Sixteen, ..Options::default() })
                .unwrap();
        assert_eq!(quantized.graph.values[1].quantization.unwrap().bits, 16, "rank {rank}");
        let [least, greatest] = quantized.layers[0].as_ref().unwrap().bounds;
        assert_eq!(least, -greatest);
        assert_eq!(greatest == 32767, rank == 8, "rank {rank}: {greatest} levels");
        let reader = quantized.layers[1].as_ref().unwrap();
        for (row, bias) in reader.weights.chunks(rank).zip(&reader.bias) {
            let sum: i64 = row.iter().map(|w| i64::from(w.unsigned_abs())).sum();
            assert!(sum * i64::from(greatest) + i64::from(bias.abs()) <= i64::from(i32::MAX), "rank {rank}");
        }
        assert!(error_on(&graph, &quantized, &data) < 0.02, "rank {rank}");
    }
    // With some six million units a row no 255 levels are left: 8 bits.
    let rank = 100_000;
    let mut graph = chain(&[1, 1], vec![dense(rank, 1, random(rank, 1)), dense(1, rank, vec![1.0; rank])]);
    graph.values[1].rank_space = true;
    let data = samples(&graph, 4, 1.0);
    let quantized =
        quantize(&graph, Some(&data), &Options { rank_bits: RankBits::Sixteen, ..Options::default() })
            .unwrap();
    assert_eq!(quantized.graph.values[1].quantization.unwrap().bits, 8);
}

#[test]
fn equalising_rank_channels_changes_nothing_but_their_maxima() {
    let mut chains = vec![
        chain(&[1, 5], vec![dense(4, 5, random(20, 1)), dense(3, 4, random(12, 2))]),
        chain(
            &[1, 3, 4, 4],
            vec![conv([4, 3, 1, 1], 1, 1), conv([4, 1, 3, 3], 4, 2), conv([5, 4, 1, 1], 1, 3)],
        ),
        chain(
            &[1, 3, 4, 4],
            vec![conv([4, 3, 1, 1], 1, 1), conv([6, 2, 3, 3], 2, 2), conv([5, 6, 1, 1], 1, 3)],
        ),
    ];
    for graph in &mut chains {
        // Channels of very different size.
        if let Op::Conv(Conv { weight: Weight::Dense(tensor), .. })
        | Op::Dense(Dense { weight: Weight::Dense(tensor), .. }) = &mut graph.nodes[0].op
        {
            let row = tensor.len() / 4;
            tensor
                .data
                .chunks_mut(row)
                .zip([1e-3, 1.0, 30.0, 0.2])
                .for_each(|(row, s)| row.iter_mut().for_each(|w| *w *= s));
        }
        for id in 1..graph.values.len() - 1 {
            graph.values[id].rank_space = true;
        }
        let data = samples(graph, 20, 1.0);
        let equal = gauge::equalized(graph, &data);
        let outputs = |graph: &Graph| evaluate(graph, &data.inputs, data.samples, &graph.outputs).remove(0);
        assert!(metrics::relative_rms(&outputs(graph), &outputs(&equal)) < 1e-5);
        let seen = ranges::collect(&equal, &data);
        for id in 1..graph.values.len() - 1 {
            assert!(seen[&ValueId(id)].channel_max.iter().all(|max| (max - 1.0).abs() < 1e-3), "value {id}");
        }
        let with = quantize(graph, Some(&data), &Options::default()).unwrap();
        let mut raw = graph.clone();
        raw.values.iter_mut().for_each(|value| value.rank_space = false);
        let without = quantize(&raw, Some(&data), &Options::default()).unwrap();
        assert!(error_on(graph, &with, &data) < error_on(graph, &without, &data));
    }
}

#[test]
fn the_choice_is_never_worse_than_plain_extremes() {
    for seed in 0..4 {
        let graph = chain(
            &[1, 8],
            vec![dense(16, 8, random(128, seed)), Op::Unary(Unary::Tanh), dense(4, 16, random(64, seed + 9))],
        );
        let mut data = samples(&graph, 60, 1.0);
        // Few numbers far out.
        data.inputs[0][17] = 40.0;
        let chosen = quantize(&graph, Some(&data), &Options::default()).unwrap();
        let groups = shared_groups(&graph, true);
        let statistics = ranges::collect(&graph, &data);
        let values = calibrated(&graph, &groups, &HashMap::new(), &statistics, &[], false).unwrap();
        let plain =
            with_values(&graph, &groups, &values, &[], &Options::default(), Rounding::Nearest).unwrap();
        assert!(error_on(&graph, &chosen, &data) <= error_on(&graph, &plain, &data));
        assert_eq!(chosen.choice.error, Some(error_on(&graph, &chosen, &data)));
    }
}

/// conv -> depthwise -> conv with a skip around the last -> mean, on correlated images.
fn branching() -> (Graph, Dataset, Dataset) {
    let mut graph = chain(
        &[1, 3, 6, 6],
        vec![conv([8, 3, 3, 3], 1, 1), conv([8, 1, 1, 1], 8, 2), conv([8, 8, 1, 1], 1, 3)],
    );
    let (skip, last) = (graph.nodes[1].output, graph.nodes[2].output);
    let sum = graph.add_value("sum", graph.shape(last).to_vec());
    let op = Op::Add(ActivationRange::RELU);
    graph.nodes.push(Node { name: "add".into(), op, inputs: vec![skip, last], output: sum });
    graph.outputs = vec![sum];
    graph.check().unwrap();
    let smooth = |seed| {
        let raw = random(64 * 108, seed);
        let inputs = vec![(0..raw.len()).map(|k| raw[k] * 0.2 + raw[k / 9] + raw[k / 36]).collect()];
        Dataset { inputs, samples: 64, labels: None }
    };
    (graph, smooth(5), smooth(6))
}

#[test]
fn fitted_layers_come_nearer_on_unseen_samples_and_stay_on_their_grids() {
    let (graph, seen, unseen) = branching();
    let run = |fit| quantize(&graph, Some(&seen), &Options { fit, ..Options::default() }).unwrap();
    let (plain, fitted) = (run(false), run(true));
    assert!(fitted.choice.fitted && fitted.choice.error < plain.choice.error);
    assert!(error_on(&graph, &fitted, &unseen) < error_on(&graph, &plain, &unseen));
    for (node, layer) in fitted.graph.nodes.iter().zip(&fitted.layers) {
        let (Some(layer), Some(weight)) = (layer, node.op.dense_weight()) else { continue };
        let row = weight.len() / weight.shape[0];
        for (k, (real, level)) in weight.data.iter().zip(&layer.weights).enumerate() {
            assert_eq!(*real, f32::from(*level) * layer.scales[k / row]);
        }
    }
    assert_eq!(fitted, run(true));
}

#[test]
fn one_sample_and_zero_weights_can_be_fitted() {
    let (mut graph, seen, _) = branching();
    let options = Options { fit: true, ..Options::default() };
    let one = quantize(&graph, Some(&seen.slice(0..1)), &options).unwrap();
    assert!(one.choice.error.unwrap().is_finite());
    for node in &mut graph.nodes {
        if let Op::Conv(Conv { weight: Weight::Dense(tensor), .. }) = &mut node.op {
            tensor.data.fill(0.0);
        }
    }
    let zero = quantize(&graph, Some(&seen), &options).unwrap();
    assert!(zero.choice.error.unwrap().is_finite());
}

#[test]
fn odd_numbers_give_a_result_or_a_clear_error() {
    let zeros = chain(&[1, 4], vec![dense(3, 4, vec![0.0; 12]), dense(2, 3, random(6, 1))]);
    let quantized = quantize(&zeros, Some(&samples(&zeros, 1, 1.0)), &Options::default()).unwrap();
    assert!(simulate(&quantized, &samples(&zeros, 1, 1.0).inputs, 1)[0].iter().all(|x| x.abs() < 1e-6));
    for scale in [0.0, 1e-38, 1e-30, 1e-10, 1e10, 1e30] {
        let graph = chain(&[1, 4], vec![dense(3, 4, random(12, 1)), dense(2, 3, random(6, 2))]);
        let data = samples(&graph, 5, scale);
        let quantized = quantize(&graph, Some(&data), &Options::default()).unwrap();
        let error = error_on(&graph, &quantized, &data);
        assert!(error < 0.05 || scale < 1e-35, "inputs of {scale}: {error}");
    }
    let graph = chain(&[1, 4], vec![dense(3, 4, vec![f32::MAX; 12])]);
    let error = quantize(&graph, Some(&samples(&graph, 5, f32::MAX)), &Options::default()).unwrap_err();
    assert_eq!(error, Error::NotFinite { value: "v0".into() });
    // Neither less nor greater than any number.
    let mut data = samples(&graph, 5, 1.0);
    data.inputs[0][7] = f32::NAN;
    let error = quantize(&graph, Some(&data), &Options::default()).unwrap_err();
    assert_eq!(error, Error::NotFinite { value: "x".into() });
}

#[test]
fn factors_and_biases_without_integers_are_refused() {
    let pinned = |scale| Some(Quantization { scale, zero_point: 0, bits: 8 });
    for (output, weight, bias, holds) in
        [(1.0, 1.0, 5.0, true), (1e-10, 1.0, 0.0, false), (1e-10, 0.0, 0.0, true), (1.0, 1.0, 1e10, false)]
    {
        let mut graph = chain(&[1, 1], vec![dense(1, 1, vec![weight])]);
        let Op::Dense(layer) = &mut graph.nodes[0].op else { unreachable!() };
        layer.bias = Some(vec![bias]);
        (graph.values[0].quantization, graph.values[1].quantization) = (pinned(1.0), pinned(output));
        let weight_scales = [("n0".to_owned(), vec![1.0])].into();
        let result = quantize(&graph, None, &Options { weight_scales, ..Options::default() });
        assert_eq!(result.is_ok(), holds, "{output} {weight} {bias}");
        assert!(holds || matches!(&result, Err(Error::Overflow { node, .. }) if node == "n0"), "{result:?}");
    }
}

#[test]
fn softmax_over_too_many_classes_is_refused() {
    for (classes, holds) in [(4095, true), (4096, false)] {
        let graph = chain(&[1, classes], vec![Op::Softmax { axis: 1 }]);
        let result = quantize(&graph, Some(&samples(&graph, 1, 1.0)), &Options::default());
        assert_eq!(result.is_ok(), holds);
        assert!(holds || matches!(result, Err(Error::Node { node, op: "softmax", .. }) if node == "n0"));
    }
}

#[test]
fn operators_without_an_integer_form_are_named() {
    let mut graph = chain(&[1, 4], vec![Op::Unary(Unary::Sin)]);
    graph.nodes.push(Node {
        name: "p".into(),
        op: Op::Mul(ActivationRange::NONE),
        inputs: vec![ValueId(0), ValueId(1)],
        output: ValueId(2),
    });
    graph.add_value("y", vec![1, 4]);
    let error = quantize(&graph, None, &Options::default()).unwrap_err();
    assert!(matches!(&error, Error::Node { node, op: "mul", .. } if node == "p"), "{error}");
}

#[test]
fn weights_of_4_bits_are_fitted_and_depthwise_ones_keep_8() {
    let graph = chain(
        &[1, 3, 8, 8],
        vec![conv([16, 3, 3, 3], 1, 1), conv([16, 1, 3, 3], 16, 2), conv([8, 16, 1, 1], 1, 3)],
    );
    let data = samples(&graph, 40, 1.0);
    let with =
        |weight_bits| quantize(&graph, Some(&data), &Options { weight_bits, ..Options::default() }).unwrap();
    let widths = |quantized: &Quantized| -> Vec<bool> {
        quantized.layers.iter().map(|layer| layer.as_ref().unwrap().four_bits).collect()
    };
    let (eight, four) = (with(WeightBits::Eight), with(WeightBits::Four));
    assert_eq!(widths(&eight), [false; 3]);
    assert_eq!(widths(&four), [true, false, true]);
    for (layer, four_bits) in four.layers.iter().flatten().zip(widths(&four)) {
        let greatest = layer.weights.iter().map(|w| w.unsigned_abs()).max().unwrap();
        assert!(if four_bits { greatest <= 7 } else { greatest == 127 }, "{greatest}");
    }
    // Coarser, yet fitted: nearer than the nearest levels of 4 bits, even for inputs as little correlated as these.
    let groups = shared_groups(&graph, true);
    let values = groups.iter().map(|id| (*id, four.graph.values[*id].quantization.unwrap())).collect();
    let nearest = with_values(&graph, &groups, &values, &[0, 2], &Options::default(), Rounding::Nearest);
    let [eight, four, nearest] =
        [&eight, &four, &nearest.unwrap()].map(|quantized| error_on(&graph, quantized, &data));
    assert!(eight < four && four < 0.9 * nearest, "{eight} {four} {nearest}");
    // Nothing is lost that matters here, so nothing has 4 bits where they are measured.
    let measured = with(WeightBits::Measured);
    assert!(widths(&measured).iter().filter(|four| **four).count() < 2);
    // Wide values are read by 8-bit weights.
    let mut graph = chain(&[1, 6], vec![dense(4, 6, random(24, 1)), dense(2, 4, random(8, 2))]);
    graph.values[1].rank_space = true;
    let data = samples(&graph, 30, 1.0);
    let options =
        Options { rank_bits: RankBits::Sixteen, weight_bits: WeightBits::Four, ..Options::default() };
    assert_eq!(widths(&quantize(&graph, Some(&data), &options).unwrap()), [false; 2]);
}
