//! Modelled instructions against those that emulated boards count, step by step. Where a kernel has changed, the rates of
//! `runtime/src/backend/spec/rates.rs` are off and this test fails with what to put there. Needs what boards/setup.sh installs.

mod probes;

use std::collections::BTreeMap;

use probes::Probe;
use tucano::backend::spec::{Core, Kernel, Rates, Work};
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board};
use tucano_converter::plan::cost;
use tucano_tests::target::laid_out;

/// Boards that run different code, with their core; then one blob runs on those that share it.
const DISTINCT: [(&str, Core); 4] = [
    ("qemu-m0", Core::CortexM0),
    ("qemu-m3", Core::CortexM3),
    ("qemu-m4", Core::CortexM4),
    ("qemu-m33", Core::CortexM33),
];
const SHARED: [(&str, Core); 2] = [("qemu-m7", Core::CortexM7), ("qemu-m55", Core::CortexM55)];
/// Largest relative error of a whole model.
const TOLERANCE: f64 = 0.15;

/// A step of a blob with what a board counted.
struct Measured {
    name: String,
    op: OpCode,
    instructions: f64,
    /// By lanes.
    work: BTreeMap<u16, Work>,
}

/// Lanes that a fit tries for inner products.
const LANES: [u16; 5] = [1, 2, 4, 8, 16];
/// Channels that depthwise convolutions and pools take side by side.
const BLOCK: [u16; 1] = [16];

fn lanes(op: OpCode) -> &'static [u16] {
    match op {
        OpCode::Conv2dI8
        | OpCode::Conv2dI4
        | OpCode::DenseI4
        | OpCode::Conv2dI16
        | OpCode::Conv2dF32
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
        | OpCode::Mean2dI8 => &BLOCK,
        _ => &LANES[..1],
    }
}

fn measure(board: &'static Board, probe: &Probe) -> Vec<Measured> {
    let blob = laid_out(&probe.blob, board.kernels.isa());
    let runner = Runner::new(&blob).expect("loads");
    let report = boards::run(&blob, board, &probe.input, 1, OptLevel::Three, &|_| {});
    let (report, _) = report.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
    let steps = runner.model();
    let measured = steps.steps().zip(&report.steps).map(|(step, counted)| {
        let op = OpCode::parse(step.op()).expect("operation");
        let rates = Rates::new([0; 6]);
        let work = |lanes: u16| cost::work(&step, &Kernel { op, lanes, rates }).expect("work");
        Measured {
            name: format!("{}: {}", probe.name, counted.name),
            op,
            instructions: counted.instructions,
            work: lanes(op).iter().map(|lanes| (*lanes, work(*lanes))).collect(),
        }
    });
    measured.collect()
}

/// Compares one blob; gives a complaint if the whole is off.
fn judge(core: Core, board: &str, name: &str, steps: &[Measured]) -> Option<String> {
    let mut sums = (0.0, 0.0);
    let mut worst = (0.0, String::new());
    for step in steps {
        let Some(kernel) = core.kernel(step.op) else {
            return Some(format!("{board}: no rates of {:?}", step.op));
        };
        let modelled =
            kernel.rates.instructions(step.work.get(&kernel.lanes).expect("lanes that are tried")) as f64;
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
            let steps = measure(board, probe);
            wrong.extend(judge(core, name, probe.name, &steps));
            all.extend(steps);
        }
        if !wrong.is_empty() || std::env::var_os("TUCANO_REFIT").is_some() {
            println!("rates of {} from this run:", core.name());
            refit(&all);
        }
        complaints.extend(wrong);
    }
    for (name, core) in SHARED {
        let steps = measure(boards::find(name).expect("board"), &probes[0]);
        complaints.extend(judge(core, name, probes[0].name, &steps));
    }
    assert!(complaints.is_empty(), "{complaints:#?}\nput the rates printed above into spec/rates.rs");
}

/// Prints the rates of least squared relative error, none of them negative, for each operation that was measured.
fn refit(steps: &[Measured]) {
    for op in OpCode::ALL {
        let of_op: Vec<&Measured> = steps.iter().filter(|step| step.op == op).collect();
        if of_op.is_empty() {
            continue;
        }
        let fits = lanes(op).iter().map(|lanes| (*lanes, fit(&of_op, *lanes)));
        let best = fits.min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let Some((lanes, (rates, error))) = best else { continue };
        let rates = rates.map(|rate| (100.0 * rate).round() as u32);
        let rms = 100.0 * (error / of_op.len() as f64).sqrt();
        println!("    kernel(OpCode::{op:?}, {lanes}, {rates:?}), // {} steps, {rms:.1} %", of_op.len());
    }
}

/// Non-negative least squares by coordinate descent (Lawson and Hanson 1974 state the problem; it has six unknowns here): rates and the sum
/// of squared relative errors.
fn fit(steps: &[&Measured], lanes: u16) -> ([f64; 6], f64) {
    const SWEEPS: usize = 5_000;
    // Fewer lanes first: others have to earn their place.
    const PRICE_OF_A_UNIT: f64 = 1e-9;
    let rows: Vec<[f64; 6]> = steps
        .iter()
        .map(|step| {
            let work = &step.work[&lanes];
            [1, work.positions, work.outputs, work.runs, work.products, work.tail]
                .map(|units| units as f64 / step.instructions)
        })
        .collect();
    let mut rates = [0.0; 6];
    let mut residuals = vec![1.0; rows.len()];
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
