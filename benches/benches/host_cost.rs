//! `cargo bench -p tucano-benches --bench host_cost [-- --refit]`: modelled against measured picoseconds of the steps that this x86 host runs.
//!
//! Layers of many shapes are timed where they stand in a network, each by the least of many runs; the clock's own time is taken off. The rates of
//! [`Core::X86_64`] are those of such layers; networks that no fit has seen show what they are worth. With `--refit` it prints the rates of this
//! run, to be put into `runtime/src/backend/spec/rates.rs`: on a machine with VNNI, with nothing else running. As a test it asks that every step has a price.

use std::collections::BTreeMap;
use std::time::Instant;

use miette::{IntoDiagnostic, Result, ensure, miette};
use tucano::backend::spec::Core;
use tucano::host::{Runner, backends};
use tucano_converter::calibrate::Dataset;
use tucano_converter::graph::{
    ActivationRange, Conv, Dense, Graph, Mode, Network, Node, Op, Pool, Tensor, Unary, Weight,
};
use tucano_converter::quantize::{RankBits, WeightBits};
use tucano_converter::{emit, import, lower, passes, plan, quantize};
use tucano_tests::fit::{Measured, refit};
use tucano_tests::models;

/// Width of inner values of factorised layers; `None`: floats.
type Width = Option<RankBits>;

/// Numbers that repeat from run to run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.next() as usize % values.len()]
    }

    /// Weights that keep the magnitude of what they multiply.
    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let scale = ((count / shape[0]).max(1) as f32 / 6.0).sqrt();
        let values = (0..count).map(|_| (self.next() as f32 / (1u64 << 31) as f32 - 1.0) / scale);
        Tensor::new(shape.to_vec(), values.collect())
    }
}

/// A network that is one layer after the other.
struct Chain {
    graph: Graph,
    random: Random,
}

impl Chain {
    fn new(shape: &[usize], seed: u64) -> Self {
        let mut graph = Graph { name: format!("{shape:?}"), ..Graph::default() };
        let input = graph.add_value("x", shape.to_vec());
        (graph.inputs, graph.outputs) = (vec![input], vec![input]);
        Self { graph, random: Random(seed) }
    }

    fn shape(&self) -> &[usize] {
        self.graph.shape(self.graph.outputs[0])
    }

    /// Appends an operator on the last value; a sum adds the value before it.
    fn then(&mut self, op: Op) {
        let graph = &mut self.graph;
        let mut inputs = vec![graph.outputs[0]];
        if matches!(op, Op::Add(_)) {
            inputs.insert(0, graph.nodes[graph.nodes.len() - 1].inputs[0]);
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| graph.shape(*id)).collect();
        let Ok(shape) = op.output_shape(&shapes) else { return };
        let count = graph.nodes.len();
        let output = graph.add_value(format!("v{count}"), shape);
        graph.nodes.push(Node { name: format!("n{count}"), op, inputs, output });
        graph.outputs = vec![output];
    }

    /// A convolution that pads by half its window; as many groups as channels: a depthwise one.
    fn conv(&mut self, outputs: usize, kernel: [usize; 2], stride: usize, groups: usize) {
        let inputs = self.shape()[1];
        let weight = Weight::Dense(self.random.tensor(&[outputs, inputs / groups, kernel[0], kernel[1]]));
        self.convolution(weight, outputs, kernel, stride, groups);
    }

    fn convolution(
        &mut self,
        weight: Weight,
        outputs: usize,
        [kh, kw]: [usize; 2],
        stride: usize,
        groups: usize,
    ) {
        let bias = Some(self.random.tensor(&[outputs]).data);
        let (strides, pads) = ([stride; 2], [kh / 2, kw / 2, kh / 2, kw / 2]);
        let activation = ActivationRange::RELU;
        self.then(Op::Conv(Conv { weight, bias, strides, pads, dilations: [1, 1], groups, activation }));
    }

    /// 1x1, a window over the inner channels (over each of them alone for `polyadic`), 1x1.
    fn factors(&mut self, outputs: usize, [first, second]: [usize; 2], kernel: usize, polyadic: bool) {
        use Mode::{Bond, Input, KernelHeight, KernelWidth, Output};
        let inputs = self.shape()[1];
        let mut core = |shape: &[usize], modes: &[Mode]| tucano_converter::graph::Core {
            tensor: self.random.tensor(shape),
            modes: modes.to_vec(),
        };
        let window = if polyadic {
            core(&[first, kernel, kernel], &[Bond(0), KernelHeight, KernelWidth])
        } else {
            core(&[second, first, kernel, kernel], &[Bond(1), Bond(0), KernelHeight, KernelWidth])
        };
        let last = if polyadic { (first, Bond(0)) } else { (second, Bond(1)) };
        let cores = vec![
            core(&[first, inputs], &[Bond(0), Input(0)]),
            window,
            core(&[outputs, last.0], &[Output(0), last.1]),
        ];
        let weight = Weight::Network(Network {
            format: if polyadic { "cp" } else { "tucker" },
            shape: vec![outputs, inputs, kernel, kernel],
            contraction: (0..cores.len()).collect(),
            cores,
            row_scale: None,
        });
        self.convolution(weight, outputs, [kernel; 2], 1, 1);
    }
}

/// Networks whose layers a fit sees.
fn shapes(count: u64) -> Vec<(Graph, Vec<Width>)> {
    const CHANNELS: [usize; 11] = [4, 6, 8, 12, 16, 24, 32, 40, 64, 96, 128];
    let both = [Some(RankBits::Eight), None];
    let mut all = Vec::new();
    for seed in 0..count {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let extent = random.one_of(&[4, 6, 8, 12, 16, 24, 32, 48]);
        let channels = if extent > 24 { &CHANNELS[..7] } else { &CHANNELS[..] };
        let mut chain = Chain::new(&[1, random.one_of(channels), extent, extent], seed);
        for _ in 0..3 {
            let kernel = random.one_of(&[[1, 1], [1, 1], [3, 3], [3, 3], [3, 1], [1, 3]]);
            chain.conv(random.one_of(channels), kernel, random.one_of(&[1, 1, 1, 2]), 1);
            let channels = chain.shape()[1];
            chain.conv(channels, [3, 3], random.one_of(&[1, 1, 2]), channels);
        }
        chain.then(Op::Unary(Unary::Sigmoid));
        let channels = chain.shape()[1];
        chain.conv(channels, [1, 1], 1, 1);
        chain.then(Op::Add(ActivationRange::NONE));
        if chain.shape()[2] >= 2 {
            let pool = |pad: usize| Pool {
                kernel: [2; 2],
                strides: [2; 2],
                pads: [pad; 4],
                count_include_pad: false,
            };
            chain.then(Op::MaxPool(pool(0)));
            chain.then(Op::AveragePool(pool(1)));
        }
        chain.then(Op::Mean { axes: vec![2, 3], keep_axes: false });
        for _ in 0..2 {
            let inputs = chain.shape()[1];
            let outputs = random.one_of(&[4, 10, 32, 64, 128, 256, 640]);
            let weight = Weight::Dense(chain.random.tensor(&[outputs, inputs]));
            chain.then(Op::Dense(Dense { weight, bias: None, activation: ActivationRange::NONE }));
        }
        chain.then(Op::Softmax { axis: 1 });
        all.push((chain.graph, both.to_vec()));
        // Windows as large layers have them, which floats may filter.
        let extent = random.one_of(&[4, 8, 12, 16, 24, 32]);
        let mut chain = Chain::new(&[1, random.one_of(channels_of(extent)), extent, extent], seed);
        for _ in 0..3 {
            chain.conv(random.one_of(channels_of(extent)), [3, 3], 1, 1);
        }
        all.push((chain.graph, both.to_vec()));
        let extent = random.one_of(&[4, 8, 12, 16, 24, 32]);
        let mut chain = Chain::new(&[1, random.one_of(channels_of(extent)), extent, extent], seed);
        for _ in 0..2 {
            let ranks = [0; 2].map(|_| random.one_of(&CHANNELS[..8]));
            let outputs = random.one_of(channels_of(extent));
            chain.factors(outputs, ranks, random.one_of(&[1, 3, 3]), false);
            chain.factors(outputs, [random.one_of(&CHANNELS[2..9]); 2], 3, true);
        }
        all.push((chain.graph, vec![Some(RankBits::Eight), Some(RankBits::Sixteen)]));
    }
    all
}

/// Channels of layers of such images.
fn channels_of(extent: usize) -> &'static [usize] {
    if extent > 16 { &[16, 24, 32] } else { &[16, 32, 48, 64, 128] }
}

/// The blob of a network on random data, with plain weights.
fn blob(model: &Graph, width: Width) -> Result<Vec<u8>> {
    const SAMPLES: usize = 4;
    let graph = passes::legalize(&lower::lower(&passes::simplify(model))?)?;
    let elements: usize = graph.shape(graph.inputs[0]).iter().product();
    let values = Random(1).tensor(&[1, SAMPLES * elements]).data;
    let data = Dataset { inputs: vec![values], samples: SAMPLES, labels: None };
    let quantized = width.map(|rank_bits| {
        let options = quantize::Options { rank_bits, weight_bits: WeightBits::Eight, ..Default::default() };
        quantize::quantize(&graph, Some(&data), &options)
    });
    let quantized = quantized.transpose()?;
    let graph = quantized.as_ref().map_or(&graph, |quantized| &quantized.graph);
    let isa = Core::X86_64.isa();
    let plan = plan::plan_for(graph, quantized.as_ref(), isa)?;
    let quantized = quantized.as_ref();
    Ok(emit::emit(&emit::Program { graph, plan: &plan, quantized, labels: &[], half_weights: false, isa })?)
}

/// The least time of each step in some runs, in picoseconds without the clock's.
fn measure(name: &str, blob: &[u8], runs: usize) -> Result<Vec<Measured>> {
    let mut runner = Runner::new(blob).into_diagnostic()?;
    let clock = (0..1000).map(|_| Instant::now().elapsed()).min().unwrap_or_default().as_secs_f64() * 1e12;
    let mut least = BTreeMap::<u16, f64>::new();
    for _ in 0..runs {
        let mut once = BTreeMap::<u16, f64>::new();
        let mut last = Instant::now();
        let run = runner.invoke_each(|step, _| {
            let spent = last.elapsed().as_secs_f64() * 1e12 - clock;
            if let Some(step) = step {
                *once.entry(step).or_default() += spent.max(0.0);
            }
            last = Instant::now();
        });
        run.into_diagnostic()?;
        for (step, spent) in once {
            let least = least.entry(step).or_insert(f64::INFINITY);
            *least = least.min(spent);
        }
    }
    let model = runner.model();
    let steps = model.steps().filter_map(|step| Some((least.get(&step.index()).copied()?, step)));
    let measured = steps.map(|(spent, step)| {
        let kernel = step.selection(Core::X86_64.isa()).name.to_string();
        Measured::new(format!("{name} {}", step.name().unwrap_or_default()), &step, kernel, spent.max(1e3))
    });
    Ok(measured.collect())
}

/// Prints measured and modelled microseconds of each step; gives both sums.
fn compare(name: &str, steps: &[Measured], each: bool) -> Result<[f64; 2]> {
    let mut sums = [0.0; 2];
    for step in steps {
        let modelled = step.modelled(Core::X86_64);
        let modelled = modelled.ok_or_else(|| miette!("{}: no price of {:?}", step.name, step.op))?;
        let [measured, modelled] = [step.instructions, modelled].map(|picoseconds| picoseconds / 1e6);
        if each {
            let ratio = modelled / measured;
            println!(
                "  {measured:9.3} us, modelled {modelled:9.3} ({ratio:4.2}) {} {}",
                step.kernel, step.name
            );
        }
        sums = [sums[0] + measured, sums[1] + modelled];
    }
    println!("{name}: {:.2} us, modelled {:.2} ({:.2})", sums[0], sums[1], sums[1] / sums[0]);
    Ok(sums)
}

/// By kernel: how many steps, and the root mean square of the error of what is modelled, in percent of what is measured.
fn errors(steps: &[Measured]) {
    let mut groups = BTreeMap::<(String, &str), Vec<f64>>::new();
    for step in steps {
        let error = step.modelled(Core::X86_64).unwrap_or_default() / step.instructions - 1.0;
        groups.entry((format!("{:?}", step.op), &step.kernel)).or_default().push(error);
    }
    for ((op, kernel), errors) in groups {
        let count = errors.len();
        let square = errors.iter().map(|error| error * error).sum::<f64>() / count as f64;
        let bias = errors.iter().sum::<f64>() / count as f64;
        println!(
            "{op:22} {kernel:32} {count:4} steps, error {:5.1} % rms, {:+5.1} % mean",
            100.0 * square.sqrt(),
            100.0 * bias
        );
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let bench = has("--bench") && !has("--test");
    let [networks, runs] = if bench { [24, 300] } else { [2, 2] };
    println!("{}", backends()[0]);
    let mut seen = Vec::new();
    for (graph, widths) in shapes(networks) {
        for width in widths {
            seen.extend(measure(&format!("{} {width:?}", graph.name), &blob(&graph, width)?, runs as usize)?);
        }
    }
    errors(&seen);
    let unpriced = seen.iter().find(|step| step.modelled(Core::X86_64).is_none());
    ensure!(unpriced.is_none(), "no price of {:?}", unpriced.map(|step| (&step.name, step.op)));
    let resnet = import::import(&models().join("resnet8.onnx"), &import::Options { batch: 1 })?;
    for width in [Some(RankBits::Eight), None] {
        compare(
            &format!("resnet8 {width:?}"),
            &measure("resnet8", &blob(&resnet, width)?, runs as usize)?,
            bench,
        )?;
    }
    if has("--refit") {
        refit(&seen);
    }
    Ok(())
}
