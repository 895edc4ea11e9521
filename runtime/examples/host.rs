//! Times blobs on this machine: `cargo run --release -p tucano --features host --example host -- [--layers] [--backend NAME] BLOB...`.
//!
//! Prints the least and the median time of a run over many short rounds; with `--layers` each layer's least time. Every blob's outputs on
//! noise are compared with those of portable code first.

use std::hint::black_box;
use std::time::Instant;

use tucano::blob::DType;
use tucano::host::{self, Runner};

/// Rounds, and runs in one.
const ROUNDS: usize = 400;
const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut layers = false;
    let mut backend = host::backends()[0].to_string();
    let mut blobs = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--layers" => layers = true,
            "--backend" => backend = arguments.next().ok_or("--backend NAME")?,
            _ => blobs.push(argument),
        }
    }
    if let Some(peak) = host::peak_byte_products() {
        println!("peak {peak:.0} products of bytes a nanosecond");
    }
    for path in blobs {
        let bytes = std::fs::read(&path)?;
        let start = Instant::now();
        let mut runner = Runner::with_backend(&bytes, &backend)?;
        let load = start.elapsed();
        let mut portable = Runner::with_backend(&bytes, "scalar")?;
        let same = compare(&mut runner, &mut portable)?;
        let mut fresh = runner.clone();
        let start = Instant::now();
        fresh.invoke()?;
        let first = start.elapsed();
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..RUNS {
                    black_box(&mut runner).invoke().map(|()| 0).unwrap_or_default();
                }
                start.elapsed().as_secs_f64() * 1e6 / RUNS as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{path}: {} least {:.2} us, median {:.2} us, first {:.1} us, load {:.2} ms, {}",
            runner.backend(),
            times[0],
            times[ROUNDS / 2],
            first.as_secs_f64() * 1e6,
            load.as_secs_f64() * 1e3,
            if same { "same as scalar" } else { "DIFFERS from scalar" },
        );
        if layers {
            per_layer(&mut runner)?;
        }
    }
    Ok(())
}

/// Whether both give the same on noise: the same bytes, or floats that agree to 1e-5 of the largest.
fn compare(runner: &mut Runner, portable: &mut Runner) -> Result<bool, tucano::Error> {
    let mut state = 1u64;
    let mut same = true;
    for _ in 0..20 {
        let inputs: Vec<Vec<u8>> = runner
            .inputs()
            .iter()
            .map(|terminal| {
                let data: Vec<f32> = (0..terminal.elements())
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let levels = if terminal.tensor.dtype == DType::F32 { 1.0 } else { 128.0 };
                        ((state >> 33) as f32 / 2f32.powi(30) - 1.0) * levels * terminal.scale()
                    })
                    .collect();
                let mut bytes = vec![0; data.len() * terminal.tensor.dtype.bytes()];
                terminal.store(&data, &mut bytes).map(|()| bytes)
            })
            .collect::<Result<_, _>>()?;
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let (ours, theirs) = (runner.run_raw(&inputs)?, portable.run_raw(&inputs)?);
        for (terminal, (ours, theirs)) in runner.outputs().iter().zip(ours.iter().zip(&theirs)) {
            same &= match terminal.tensor.dtype {
                DType::F32 => agree(&terminal.fetch(ours)?, &terminal.fetch(theirs)?),
                _ => ours == theirs,
            };
        }
    }
    Ok(same)
}

/// Multiply-adds of a linear step.
fn macs(step: &tucano::Step<'_>) -> Option<f64> {
    let (weights, bias) = (step.weight(0)?.elements, step.weight(1)?.elements);
    let [.., channels] = step.output(0)?.shape;
    let elements = step.output(0)?.elements()?;
    let positions =
        if step.output(0)?.rank == 4 { elements / channels as usize } else { elements / bias as usize };
    Some(positions as f64 * f64::from(weights))
}

fn agree(ours: &[f32], theirs: &[f32]) -> bool {
    let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
    ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 1e-5 * largest)
}

/// The least time of each layer, with a clock read after each.
fn per_layer(runner: &mut Runner) -> Result<(), tucano::Error> {
    let mut least: Vec<(Option<u16>, &str, f64)> = Vec::new();
    for _ in 0..2000 {
        let mut k = 0;
        let mut last = Instant::now();
        runner.invoke_each(|step, name| {
            let now = Instant::now();
            let time = (now - last).as_secs_f64() * 1e6;
            match least.get_mut(k) {
                Some(entry) => entry.2 = entry.2.min(time),
                None => least.push((step, name, time)),
            }
            k += 1;
            last = Instant::now();
        })?;
    }
    let model = runner.model();
    for (step, kernel, time) in &least {
        let name = step.and_then(|index| Some(model.step(index)?.name()?.to_string())).unwrap_or_default();
        let shapes = step.and_then(|index| {
            let step = model.step(index)?;
            Some(format!("{:?} {:?}", step.input(0)?.shape, step.output(0)?.shape))
        });
        let macs = step.and_then(|index| macs(&model.step(index)?)).filter(|_| *kernel != "convert");
        let share = macs.zip(host::peak_byte_products()).map(|(macs, peak)| macs / time / 10.0 / peak);
        let share = share.map(|share| format!("{share:3.0} %")).unwrap_or_default();
        println!("  {time:7.3} us {share:>6} {kernel:28} {name} {}", shapes.unwrap_or_default());
    }
    println!("  {:7.3} us  sum", least.iter().map(|(_, _, time)| time).sum::<f64>());
    Ok(())
}
