//! Modelled instructions against those that emulated boards count, step by step. Where a kernel has changed, the rates of
//! `runtime/src/backend/spec/rates.rs` are off and this test fails with what to put there. Needs what boards/setup.sh installs.

mod probes;

use probes::Probe;
use tucano::backend::spec::Core;
use tucano::backend::spec::select::Isa;
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board};
use tucano_tests::fit::{Measured, refit};
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

fn measure(board: &'static Board, probe: &Probe, lay_out: LayOut) -> Vec<Measured> {
    let blob = lay_out(&probe.blob, board.kernels.isa());
    let runner = Runner::new(&blob).expect("loads");
    let report = boards::run(&blob, board, &probe.input, 1, OptLevel::Three, &|_| {});
    let (report, _) = report.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
    let steps = runner.model();
    let measured = steps.steps().zip(&report.steps).map(|(step, counted)| {
        let name = format!("{}: {}", probe.name, counted.name);
        Measured::new(name, &step, counted.kernel.clone(), counted.instructions)
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
        let Some(modelled) = step.modelled(core) else {
            return Some(format!("{board}: no rates of {:?}", step.op));
        };
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
