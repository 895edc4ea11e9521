//! Every core's backend gives the bits of scalar code on random layers, writes nothing beside its output, and reads nothing behind its operands where a memory
//! ends; layers of floats are close. Prints what layers of known networks take, and holds that to the recorded counts. Needs what boards/setup.sh installs. `TUCANO_CASES` sets the
//! layers of each kind and run.

use std::collections::BTreeMap;

use tucano_benches::instructions::{Instructions, Verdict, compiler};
use tucano_converter::boards::differential::{self, Differential, Overrun};
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board, Error};

/// A board for each emulated core.
const BOARDS: [&str; 6] = ["qemu-m0", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55"];
/// Layers of each of the three kinds in a run; there are two runs.
const CASES: u32 = 350;
/// Operators without weights, of which so many cases of each are in a run.
const OPERATORS: u32 = 8;
const OPERATOR_CASES: u32 = 100;
/// Layers of floats of each kind in a run.
const FLOAT_CASES: u32 = 100;
const SEEDS: [(u32, OptLevel); 2] = [(0x1234_5678, OptLevel::Three), (0x0BAD_CAFE, OptLevel::S)];

fn shown<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

fn compare(board: &'static Board, cases: u32) -> Vec<differential::Layer> {
    let runs: Vec<Differential> = SEEDS
        .into_iter()
        .map(|(seed, opt_level)| shown(differential::run(board, opt_level, cases, seed)))
        .collect();
    let done: usize = runs.iter().map(|run| run.cases).sum();
    println!("\n{}: {done} layers", board.name);
    let mut kernels = BTreeMap::new();
    for (name, count) in runs.iter().flat_map(|run| &run.kernels) {
        *kernels.entry(name).or_insert(0) += count;
    }
    for (name, count) in &kernels {
        println!("  {name:30} {count:6}");
    }
    for layer in &runs[0].layers {
        println!(
            "  {:34} {:28} scratch {:6} {:12.0} instructions, {:.3} per MAC",
            layer.name,
            layer.kernel,
            layer.scratch_bytes,
            layer.instructions,
            layer.instructions / layer.macs as f64
        );
    }
    assert_eq!(done, 3 * cases as usize * SEEDS.len());
    let last: usize = runs.iter().map(|run| run.last).sum();
    assert!(last >= done / 3, "{last} layers at an end of memory");
    at_ends(board, &runs[0].ends);
    assert_eq!(kernels.values().sum::<usize>(), done);
    assert!(!runs[0].layers.is_empty());
    runs.into_iter().next().map(|run| run.layers).unwrap_or_default()
}

/// The layers have lain where it matters: at the ends of RAM and of the code's memory, behind which every access faults. On the machine of the Cortex-M33 the code's memory
/// goes on behind its end; all operands lie at the end of RAM.
fn at_ends(board: &'static Board, ends: &[u32]) {
    let mut known = vec![board.ram.origin + board.ram.length];
    if board.name != "qemu-m33" {
        known.push(board.flash.origin + board.flash.length);
    }
    assert_eq!(ends, known, "{}", board.name);
    for end in 0..ends.len() as u32 {
        for access in [Overrun::Read, Overrun::Write] {
            match differential::overrun(board, end, access) {
                Err(Error::Run { said, .. }) => {
                    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("fault")).collect();
                    let address = format!("ar={:#010x}", ends[end as usize]);
                    assert!(lines.iter().any(|line| line.contains(&address)), "{access:?} {address}: {said}");
                }
                other => panic!("{}: {access:?} behind end {end}: {other:?}", board.name),
            }
        }
    }
}

/// Compares operators without weights with their definitions.
fn operators(board: &'static Board, cases: u32) -> Vec<differential::Layer> {
    let runs = SEEDS
        .into_iter()
        .map(|(seed, opt_level)| shown(differential::elementwise(board, opt_level, cases, seed)))
        .map(|run| {
            assert_eq!(run.cases, (OPERATORS * cases) as usize, "{}", board.name);
            run.layers
        })
        .collect::<Vec<_>>();
    for layer in &runs[0] {
        println!("  {:34} {:12.0} instructions", layer.name, layer.instructions);
    }
    assert!(!runs[0].is_empty());
    runs.into_iter().next().unwrap_or_default()
}

/// Compares layers of floats with scalar code.
fn floats(board: &'static Board, cases: u32) -> Vec<differential::Layer> {
    let runs = SEEDS
        .into_iter()
        .map(|(seed, opt_level)| shown(differential::floats(board, opt_level, cases, seed)))
        .collect::<Vec<_>>();
    for run in &runs {
        assert_eq!(run.cases, 3 * cases as usize, "{}", board.name);
        assert!(run.last >= run.cases / 3, "{}: {} layers at an end of memory", board.name, run.last);
        // Two kernels of the core's own and scalar code.
        assert_eq!(run.kernels.len(), 3, "{}: {:?}", board.name, run.kernels);
    }
    for layer in &runs[0].layers {
        println!("  {:34} {:28} {:12.0} instructions", layer.name, layer.kernel, layer.instructions);
    }
    assert!(!runs[0].layers.is_empty());
    runs.into_iter().next().map(|run| run.layers).unwrap_or_default()
}

#[test]
fn backends_give_the_bits_of_scalar_code_in_the_recorded_instructions() {
    let cases = std::env::var("TUCANO_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let recorded = std::fs::read_to_string(Instructions::path()).map_err(|error| error.to_string());
    let recorded = recorded.and_then(|text| Instructions::parse(&text));
    let mut errors = Vec::new();
    for name in BOARDS {
        let board = shown(boards::find(name));
        // Its first run is at the recorded opt-level.
        let mut layers = compare(board, cases);
        layers.extend(operators(board, OPERATOR_CASES));
        if differential::has_float_unit(board) {
            layers.extend(floats(board, FLOAT_CASES));
        }
        let Verdict { errors: more, notes } = match &recorded {
            Ok(recorded) => recorded.compare(board, &layers, &shown(compiler(board))),
            Err(_) => Verdict::default(),
        };
        notes.iter().for_each(|note| println!("{note}"));
        errors.extend(more);
    }
    if let Err(reason) = recorded {
        errors.push(reason);
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}
