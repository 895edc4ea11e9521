//! `cargo bench -p tucano-benches --bench host_kernels [-- --json FILE] [-- --backend NAME]`: kernels of this machine on layers of known networks, beside
//! what one core does at most (multiply-adds on registers) and beside the bandwidth of its caches and memory.
//!
//! A layer is timed inside a network that holds nothing else, without the steps that change the form of its input and output. Probes and layers
//! run in turns, and a share is the median of the shares of the turns. As a test (`cargo test --benches`) it takes few turns.

use std::time::{Duration, Instant};

use comfy_table::CellAlignment;
use miette::{IntoDiagnostic, Result, WrapErr, ensure, miette};
use serde_json::{Value, json};
use tucano::host::{Runner, backends};
use tucano_benches::peers::environment::Machine;
use tucano_benches::peers::statistics::Quartiles;
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Options, convert};
use tucano_converter::graph::{ActivationRange, Conv, Dense, Graph, Node, Op, Tensor, Weight};
use tucano_converter::report::plain_table;
use tucano_converter::search::Silent;

#[cfg(target_arch = "x86_64")]
use tucano::host::probe::{self, Peak};

/// A convolution, `[channels, rows, columns]` in and channels out, with a square window; zeros keep the size of stride 1.
struct Shape {
    name: &'static str,
    input: [usize; 3],
    outputs: usize,
    window: usize,
    stride: usize,
    depthwise: bool,
}

const fn conv(name: &'static str, input: [usize; 3], outputs: usize, window: usize, stride: usize) -> Shape {
    Shape { name, input, outputs, window, stride, depthwise: false }
}

const SHAPES: [Shape; 16] = [
    conv("conv 3x3 32x32 3>16", [3, 32, 32], 16, 3, 1),
    conv("conv 3x3 32x32 16>16", [16, 32, 32], 16, 3, 1),
    conv("conv 3x3 /2 32x32 16>32", [16, 32, 32], 32, 3, 2),
    conv("conv 3x3 16x16 32>32", [32, 16, 16], 32, 3, 1),
    conv("conv 3x3 8x8 64>64", [64, 8, 8], 64, 3, 1),
    conv("conv 3x3 16x16 128>128", [128, 16, 16], 128, 3, 1),
    conv("pointwise 48x48 8>16", [8, 48, 48], 16, 1, 1),
    conv("pointwise 24x24 32>32", [32, 24, 24], 32, 1, 1),
    conv("pointwise 25x5 64>64", [64, 25, 5], 64, 1, 1),
    conv("pointwise 6x6 128>128", [128, 6, 6], 128, 1, 1),
    conv("pointwise 3x3 256>256", [256, 3, 3], 256, 1, 1),
    Shape { depthwise: true, ..conv("depthwise 3x3 25x5 64", [64, 25, 5], 64, 3, 1) },
    Shape { depthwise: true, ..conv("depthwise 3x3 48x48 8", [8, 48, 48], 8, 3, 1) },
    conv("dense 640>128", [640, 1, 1], 128, 0, 1),
    conv("dense 128>128", [128, 1, 1], 128, 0, 1),
    conv("dense 2048>512", [2048, 1, 1], 512, 0, 1),
];

/// Numbers that repeat from run to run, in -1..1.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_F491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl Shape {
    fn graph(&self) -> Graph {
        let [channels, rows, columns] = self.input;
        let per_output = if self.depthwise { 1 } else { channels };
        let shape = match self.window {
            0 => vec![self.outputs, channels],
            window => vec![self.outputs, per_output, window, window],
        };
        let count: usize = shape.iter().product();
        let fan_in = (count / self.outputs) as f32;
        let weight = numbers(count).into_iter().map(|x| x / fan_in.sqrt()).collect();
        let weight = Weight::Dense(Tensor::new(shape, weight));
        let (bias, activation) = (Some(numbers(self.outputs)), ActivationRange::RELU);
        let pad = self.window / 2;
        let (op, input) = match self.window {
            0 => (Op::Dense(Dense { weight, bias, activation }), vec![1, channels]),
            _ => {
                let groups = if self.depthwise { channels } else { 1 };
                let (strides, pads) = ([self.stride; 2], [pad; 4]);
                let op =
                    Op::Conv(Conv { weight, bias, strides, pads, dilations: [1, 1], groups, activation });
                (op, vec![1, channels, rows, columns])
            }
        };
        let output = op.output_shape(&[&input]).unwrap_or_default();
        let mut graph = Graph { name: self.name.into(), ..Graph::default() };
        let [input, output] = [("x", input), ("y", output)].map(|(name, shape)| graph.add_value(name, shape));
        graph.nodes.push(Node { name: "layer".into(), op, inputs: vec![input], output });
        (graph.inputs, graph.outputs) = (vec![input], vec![output]);
        graph
    }
}

/// A layer ready to run.
struct Layer {
    name: &'static str,
    int8: bool,
    macs: u64,
    kernel: &'static str,
    runner: Runner,
    input: Vec<u8>,
    calls: usize,
    /// Microseconds of each turn.
    times: Vec<f64>,
}

impl Layer {
    fn new(shape: &Shape, int8: bool, backend: &str) -> Result<Self> {
        let graph = shape.graph();
        let elements: usize = shape.input.iter().product();
        let data = Dataset { inputs: vec![numbers(8 * elements)], samples: 8, labels: None };
        let options = Options { int8, ..Options::default() };
        let converted = convert(&graph, Some(&data), &options, &Silent)?;
        let runner = Runner::with_backend(&converted.blob, backend).into_diagnostic()?;
        let input = runner.quantise(&data.sample(0)).into_diagnostic()?.concat();
        let macs = converted.report.after.macs;
        let mut layer = Self {
            name: shape.name,
            int8,
            macs,
            kernel: "scalar",
            runner,
            input,
            calls: 1,
            times: Vec::new(),
        };
        let first = layer.once()?.min(layer.once()?);
        layer.calls = (TURN.as_secs_f64() / first.as_secs_f64().max(1e-7)).ceil() as usize;
        Ok(layer)
    }

    /// The time of the layer itself in one run; of the whole run where portable code is all there is.
    fn once(&mut self) -> Result<Duration> {
        self.runner.input_mut(0).into_diagnostic()?.copy_from_slice(&self.input);
        let (mut spent, mut kernel) = (Duration::ZERO, None);
        let start = Instant::now();
        let mut last = start;
        let run = self.runner.invoke_each(|step, name| {
            let now = Instant::now();
            if step.is_some() {
                spent += now - last;
                kernel = kernel.or(Some(name));
            }
            last = now;
        });
        let whole = start.elapsed();
        run.into_diagnostic()?;
        match kernel {
            Some(kernel) => self.kernel = kernel,
            None => spent = whole,
        }
        Ok(spent)
    }

    fn turn(&mut self) -> Result<()> {
        let mut times = Vec::with_capacity(self.calls);
        for _ in 0..self.calls {
            times.push(self.once()?.as_secs_f64() * 1e6);
        }
        self.times.push(Quartiles::of(times).map_or(0.0, |of| of.middle));
        Ok(())
    }
}

/// One turn of a probe or a layer.
const TURN: Duration = Duration::from_millis(2);

/// What a probe reaches in each turn: multiply-adds, or bytes, per microsecond.
struct Probe {
    name: String,
    unit: &'static str,
    rates: Vec<f64>,
}

#[cfg(target_arch = "x86_64")]
mod probes {
    use super::*;

    /// Sizes of buffers, and where such a buffer lies.
    const BUFFERS: [(&str, usize); 4] = [
        ("16 KiB, L1", 16 << 10),
        ("256 KiB, L2", 256 << 10),
        ("4 MiB, L3", 4 << 20),
        ("256 MiB, memory", 256 << 20),
    ];

    pub struct Probes {
        peaks: Vec<Peak>,
        memory: Vec<u8>,
    }

    impl Probes {
        pub fn new(all: bool) -> Self {
            let largest = if all { BUFFERS[3].1 } else { BUFFERS[2].1 };
            Self { peaks: Peak::all(), memory: vec![1; largest] }
        }

        pub fn names(&self) -> Vec<Probe> {
            let macs = self.peaks.iter().map(|peak| (peak.name().to_string(), "GMAC/s"));
            let reads = BUFFERS.iter().filter(|(_, size)| *size <= self.memory.len());
            let reads = reads.map(|(name, _)| (format!("load, {name}"), "GB/s"));
            macs.chain(reads).map(|(name, unit)| Probe { name, unit, rates: Vec::new() }).collect()
        }

        pub fn turn(&self, probes: &mut [Probe]) {
            let (macs, loads) = probes.split_at_mut(self.peaks.len());
            for (peak, probe) in self.peaks.iter().zip(macs) {
                probe.rates.push(rate(|| peak.run(10_000)));
            }
            for ((_, size), probe) in BUFFERS.iter().zip(loads) {
                probe.rates.push(rate(|| probe::read(&self.memory[..*size]).unwrap_or(0) as u64));
            }
        }
    }

    /// Work per nanosecond, of the fastest of some repetitions that fill a turn.
    fn rate(mut work: impl FnMut() -> u64) -> f64 {
        let (mut best, start) = (0.0f64, Instant::now());
        while best == 0.0 || start.elapsed() < TURN {
            let once = Instant::now();
            let done = work();
            best = best.max(done as f64 / once.elapsed().as_nanos().max(1) as f64);
        }
        best
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod probes {
    use super::Probe;

    /// There are no probes of this processor.
    pub struct Probes;

    impl Probes {
        pub fn new(_: bool) -> Self {
            Self
        }

        pub fn names(&self) -> Vec<Probe> {
            Vec::new()
        }

        pub fn turn(&self, _: &mut [Probe]) {}
    }
}

/// The probe that a layer is compared with: that of its backend's widest instruction of its type.
fn reference<'a>(layer: &Layer, probes: &'a [Probe]) -> Option<&'a Probe> {
    let wide = layer.runner.backend().contains("avx512");
    let start = match (layer.int8, wide) {
        (true, true) => "int8 VPDPBUSD",
        (true, false) => "int16 VPMADDWD",
        (false, true) => "f32 FMA, 512",
        (false, false) => "f32 FMA, 256",
    };
    probes.iter().find(|probe| probe.name.starts_with(start))
}

fn measure(backend: &str, shapes: &[Shape], turns: usize, all: bool) -> Result<(Vec<Layer>, Vec<Probe>)> {
    let mut layers = Vec::new();
    for int8 in [true, false] {
        for shape in shapes {
            let layer = Layer::new(shape, int8, backend);
            layers.push(layer.wrap_err_with(|| format!("{}, int8: {int8}", shape.name))?);
        }
    }
    let all = probes::Probes::new(all);
    let mut probes = all.names();
    for _ in 0..turns {
        all.turn(&mut probes);
        for layer in &mut layers {
            layer.turn()?;
        }
    }
    Ok((layers, probes))
}

/// Share of the peak, the median over the turns.
fn share(layer: &Layer, probes: &[Probe]) -> Option<f64> {
    let rates = &reference(layer, probes)?.rates;
    let shares = layer.times.iter().zip(rates).map(|(us, rate)| layer.macs as f64 / (us * 1e3) / rate);
    Quartiles::of(shares).map(|of| of.middle)
}

fn report(layers: &[Layer], probes: &[Probe], machine: &Machine) -> Value {
    println!("{}, {} processors, load {:.2}", machine.processor, machine.processors, machine.load);
    let mut peaks = plain_table(&["peak of one core", "", "median", "quartiles"]);
    for probe in probes {
        let Some(of) = Quartiles::of(probe.rates.iter().copied()) else { continue };
        peaks.add_row([
            probe.name.clone(),
            probe.unit.into(),
            format!("{:.1}", of.middle),
            format!("{:.1}-{:.1}", of.low, of.high),
        ]);
    }
    println!("{peaks}\n");
    let mut table = plain_table(&["layer", "type", "backend", "kernel", "us", "GMAC/s", "% of peak"]);
    table.set_width(150);
    let mut rows = Vec::new();
    for layer in layers {
        let us = Quartiles::of(layer.times.iter().copied()).map_or(f64::NAN, |of| of.middle);
        let (rate, share) = (layer.macs as f64 / us / 1e3, share(layer, probes));
        let dtype = if layer.int8 { "int8" } else { "f32" };
        table.add_row([
            layer.name.to_string(),
            dtype.into(),
            layer.runner.backend().into(),
            layer.kernel.into(),
            format!("{us:.2}"),
            format!("{rate:.1}"),
            share.map_or_else(String::new, |share| format!("{:.0}", 100.0 * share)),
        ]);
        rows.push(json!({
            "layer": layer.name, "type": dtype, "backend": layer.runner.backend(), "kernel": layer.kernel, "us": us, "macs": layer.macs,
            "share_of_peak": share,
        }));
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "{table}\n\nMultiply-adds are those of the layer; Winograd's filtering does fewer, and may pass the peak."
    );
    let peaks: Vec<Value> = probes
        .iter()
        .map(|probe| {
            let of = Quartiles::of(probe.rates.iter().copied());
            json!({"name": probe.name, "unit": probe.unit, "median": of.map(|of| of.middle)})
        })
        .collect();
    json!({"schema": "tucano.bench.host-kernels/1", "processor": machine.processor, "peaks": peaks, "layers": rows})
}

/// The short version.
fn test(backend: &str, machine: &Machine) -> Result<()> {
    let (layers, probes) = measure(backend, &SHAPES[..4], 2, false)?;
    report(&layers, &probes, machine);
    for probe in &probes {
        ensure!(probe.rates.iter().all(|rate| *rate > 0.0), "{}: no rate", probe.name);
    }
    for layer in &layers {
        ensure!(layer.times.iter().all(|time| *time > 0.0), "{}: no time", layer.name);
        // Winograd's filtering does a part of the multiply-adds; any other kernel above the peak means that the probe is wrong.
        let most = if layer.kernel.contains("winograd") { 4.0 } else { 1.2 };
        ensure!(share(layer, &probes).is_none_or(|share| share < most), "{}: above the peak", layer.name);
    }
    Ok(())
}

fn main() -> Result<()> {
    let (mut bench, mut short) = (false, false);
    let [mut json, mut backend] = [None, None];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| miette!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => bench = true,
            "--test" => short = true,
            "--json" => json = Some(value()?),
            "--backend" => backend = Some(value()?),
            // Flags of the test runner, which it gives to every bench.
            _ => {}
        }
    }
    let machine = Machine::here();
    let backend = backend.unwrap_or_else(|| backends()[0].to_string());
    if short || !bench {
        return test(&backend, &machine);
    }
    let (layers, probes) = measure(&backend, &SHAPES, 30, true)?;
    let document = report(&layers, &probes, &machine);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&document).into_diagnostic()? + "\n";
        std::fs::write(&path, text).into_diagnostic().wrap_err_with(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
