//! Modelled instructions against those that emulated boards count, step by step. Where a kernel has changed, the rates of
//! `runtime/src/backend/spec/rates.rs` are off and this test fails with what to put there. Needs what boards/setup.sh installs.

mod probes;

use std::collections::BTreeMap;

use probes::Probe;
use tucano::backend::spec::select::{Isa, SCALAR};
use tucano::backend::spec::{Core, Kernel, Loops, Rates, Work};
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board};
use tucano_converter::plan::cost;
use tucano_tests::target::{laid_out, transformed};

/// Boards that run different code, with their core; then one blob runs on those that share it.
const DISTINCT: [(&str, Core); 5] = [
    ("qemu-m0", Core::CortexM0),
    ("qemu-m3", Core::CortexM3),
    ("qemu-m4", Core::CortexM4),
    ("qemu-m33", Core::CortexM33),
    ("qemu-m55", Core::CortexM55),
];
const SHARED: [(&str, Core); 1] = [("qemu-m7", Core::CortexM7)];
/// Largest relative error of a whole model.
const TOLERANCE: f64 = 0.15;

/// A step of a blob with what a board counted.
struct Measured {
    name: String,
    op: OpCode,
    kernel: String,
    instructions: f64,
    /// By what loops could be.
    work: BTreeMap<Loops, Work>,
}

/// Lanes that a fit tries for inner products.
const LANES: [u16; 5] = [1, 2, 4, 8, 16];
/// Channels that depthwise convolutions and pools take side by side.
const BLOCKS: [u16; 4] = [1, 4, 8, 16];

/// Tiles that a fit tries: positions, outputs, depth.
const TILES: [[u16; 3]; 11] = [
    [1, 2, 4],
    [2, 2, 4],
    [3, 2, 4],
    [4, 2, 4],
    [1, 8, 1],
    [1, 8, 2],
    [1, 4, 16],
    [2, 4, 16],
    [1, 8, 16],
    [1, 16, 1],
    [4, 4, 4],
];

/// What a fit tries for a kernel.
fn loops(op: OpCode, kernel: &str) -> Vec<Loops> {
    let lanes = lanes(op).iter().map(|lanes| Loops::Lanes(*lanes));
    let tiles = TILES.iter().filter(|_| kernel != SCALAR);
    let tiles = tiles.map(|&[positions, outputs, depth]| Loops::Tiles { positions, outputs, depth });
    // Those that the table has come by themselves.
    let known = Core::ALL.into_iter().filter_map(|core| core.kernel(op, kernel)).map(|kernel| kernel.loops);
    lanes.chain(tiles).chain(known).collect()
}

fn lanes(op: OpCode) -> &'static [u16] {
    match op {
        OpCode::Conv2dI8
        | OpCode::Conv2dI4
        | OpCode::DenseI4
        | OpCode::Conv2dI16
        | OpCode::Conv2dF32
        | OpCode::WinogradConv2dI8
        | OpCode::DenseI8
        | OpCode::DenseI16
        | OpCode::DenseF32 => &LANES,
        OpCode::DepthwiseConv2dI8
        | OpCode::DepthwiseConv2dI16
        | OpCode::DepthwiseConv2dF32
        | OpCode::MaxPool2dI8
        | OpCode::MaxPool2dF32
        | OpCode::AveragePool2dI8
        | OpCode::AveragePool2dF32
        | OpCode::Mean2dI8 => &BLOCKS,
        _ => &LANES[..1],
    }
}

fn measure(board: &'static Board, probe: &Probe, lay_out: LayOut) -> Vec<Measured> {
    let blob = lay_out(&probe.blob, board.kernels.isa());
    let runner = Runner::new(&blob).expect("loads");
    let report = boards::run(&blob, board, &probe.input, 1, OptLevel::Three, &|_| {});
    let (report, _) = report.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
    let steps = runner.model();
    let measured = steps.steps().zip(&report.steps).map(|(step, counted)| {
        let op = OpCode::parse(step.op()).expect("operation");
        let (rates, kernel) = (Rates::new([0; 6]), counted.kernel.clone());
        let work =
            |loops: Loops| cost::work(&step, &Kernel { op, name: SCALAR, loops, rates }).expect("work");
        Measured {
            name: format!("{}: {}", probe.name, counted.name),
            op,
            instructions: counted.instructions,
            work: loops(op, &kernel).into_iter().map(|loops| (loops, work(loops))).collect(),
            kernel,
        }
    });
    measured.collect()
}

/// How a blob is laid out for a target.
type LayOut = fn(&[u8], Isa) -> Vec<u8>;

/// Compares one blob; gives a complaint if the whole is off.
fn judge(core: Core, board: &str, name: &str, steps: &[Measured]) -> Option<String> {
    let mut sums = (0.0, 0.0);
    let mut worst = (0.0, String::new());
    for step in steps {
        let Some(kernel) = core.kernel(step.op, &step.kernel) else {
            return Some(format!("{board}: no rates of {:?}", step.op));
        };
        let modelled =
            kernel.rates.instructions(step.work.get(&kernel.loops).expect("loops that are tried")) as f64;
        sums = (sums.0 + modelled, sums.1 + step.instructions);
        // Steps of a few ticks of the counter say little.
        let error = modelled / step.instructions - 1.0;
        if step.instructions > 2000.0 && f64::abs(error) > f64::abs(worst.0) {
            worst = (error, format!("{:?} `{}`", step.op, step.name));
        }
    }
    let error = sums.0 / sums.1 - 1.0;
    println!(
        "{board:9} {name:14} measured {:>12.0}, modelled {:>12.0} ({:+5.1} %); worst step {:+5.1} %: {}",
        sums.1,
        sums.0,
        100.0 * error,
        100.0 * worst.0,
        worst.1
    );
    (error.abs() > TOLERANCE).then(|| format!("{board}, {name}: off by {:+.1} %", 100.0 * error))
}

#[test]
fn modelled_instructions_are_those_of_the_boards() {
    let probes = probes::all();
    let mut complaints = Vec::new();
    for (name, core) in DISTINCT {
        let board = boards::find(name).expect("board");
        let mut all = Vec::new();
        let mut wrong = Vec::new();
        for probe in &probes {
            let steps = measure(board, probe, laid_out);
            wrong.extend(judge(core, name, probe.name, &steps));
            all.extend(steps);
        }
        // The first has no other steps worth the time of a board without a kernel for them.
        let with_kernel = core.isa() == Isa::ThumbDsp;
        for probe in probes
            .iter()
            .filter(|probe| probe.name == "image i8" || (with_kernel && probe.name == "resnet8 i8"))
        {
            let steps = measure(board, probe, transformed);
            wrong.extend(judge(core, name, &format!("{} transformed", probe.name), &steps));
            all.extend(steps.into_iter().filter(|step| step.op == OpCode::WinogradConv2dI8));
        }
        if !wrong.is_empty() || std::env::var_os("TUCANO_REFIT").is_some() {
            println!("rates of {} from this run:", core.name());
            refit(&all);
        }
        complaints.extend(wrong);
    }
    for (name, core) in SHARED {
        let steps = measure(boards::find(name).expect("board"), &probes[0], laid_out);
        complaints.extend(judge(core, name, probes[0].name, &steps));
    }
    assert!(complaints.is_empty(), "{complaints:#?}\nput the rates printed above into spec/rates.rs");
}

/// Prints the rates of least squared relative error, none of them negative, for each operation and kernel that was measured.
fn refit(steps: &[Measured]) {
    let mut groups = BTreeMap::<(OpCode, &str), Vec<&Measured>>::new();
    for step in steps {
        groups.entry((step.op, &step.kernel)).or_default().push(step);
    }
    for ((op, kernel), steps) in groups {
        let fits = loops(op, kernel).into_iter().map(|loops| (loops, fit(&steps, loops)));
        let best = fits.min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let Some((loops, (rates, error))) = best else { continue };
        let rates = rates.map(|rate| (100.0 * rate).round() as u32);
        let rms = 100.0 * (error / steps.len() as f64).sqrt();
        let entry = match loops {
            Loops::Lanes(lanes) if kernel == SCALAR => format!("kernel(OpCode::{op:?}, {lanes}, {rates:?})"),
            _ => format!("own(OpCode::{op:?}, {kernel:?}, Loops::{loops:?}, {rates:?})"),
        };
        println!("    {entry}, // {} steps, {rms:.1} %", steps.len());
    }
}

/// Non-negative least squares by coordinate descent (Lawson and Hanson 1974 state the problem; it has six unknowns here): rates and the sum
/// of squared errors, each divided by the step's instructions relative to their mean: so that neither large steps nor small ones count alone.
fn fit(steps: &[&Measured], loops: Loops) -> ([f64; 6], f64) {
    const SWEEPS: usize = 5_000;
    // Fewer lanes first: others have to earn their place.
    const PRICE_OF_A_UNIT: f64 = 1e-9;
    // So few steps settle one rate: that of products.
    const FEW: usize = 3;
    let mean = steps.iter().map(|step| step.instructions).sum::<f64>() / steps.len() as f64;
    let weight = |step: &Measured| (step.instructions * mean).sqrt();
    let rows: Vec<[f64; 6]> = steps
        .iter()
        .map(|step| {
            let work = &step.work[&loops];
            if steps.len() < FEW {
                return [0.0, 0.0, 0.0, 0.0, work.products as f64 / weight(step), 0.0];
            }
            [1, work.positions, work.outputs, work.runs, work.products, work.tail]
                .map(|units| units as f64 / weight(step))
        })
        .collect();
    let mut rates = [0.0; 6];
    let mut residuals: Vec<f64> = steps.iter().map(|step| step.instructions / weight(step)).collect();
    for _ in 0..SWEEPS {
        for k in 0..rates.len() {
            let (mut slope, mut curvature) = (0.0, 0.0);
            for (row, residual) in rows.iter().zip(&residuals) {
                slope += row[k] * residual;
                curvature += row[k] * row[k];
            }
            if curvature <= 0.0 {
                continue;
            }
            let next = f64::max(0.0, rates[k] + slope / (curvature * (1.0 + PRICE_OF_A_UNIT)));
            for (row, residual) in rows.iter().zip(&mut residuals) {
                *residual -= (next - rates[k]) * row[k];
            }
            rates[k] = next;
        }
    }
    (rates, residuals.iter().map(|residual| residual * residual).sum())
}
