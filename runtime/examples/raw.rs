//! Runs a blob on raw samples from standard input, as many as there are, and writes what they give: `raw BACKEND BLOB < SAMPLES > OUTPUTS`.
//!
//! A sample is the bytes that all graph inputs store, one after the other; so are its outputs.

use std::io::{Read, Write};
use std::process::ExitCode;

use tucano::host::Runner;

fn main() -> ExitCode {
    let run = run();
    if let Err(error) = &run {
        eprintln!("{error}");
    }
    ExitCode::from(u8::from(run.is_err()))
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backend, path] = arguments.as_slice() else { return Err("raw BACKEND BLOB".into()) };
    let mut runner = Runner::with_backend(std::fs::read(path)?, backend)?;
    if runner.backend() != backend {
        return Err(format!("{backend} has no program for this blob").into());
    }
    let bytes = |terminal: &tucano::host::Terminal| terminal.elements() * terminal.tensor.dtype.bytes();
    let lengths: Vec<usize> = runner.inputs().iter().map(bytes).collect();
    let mut samples = Vec::new();
    std::io::stdin().read_to_end(&mut samples)?;
    let mut output = std::io::stdout().lock();
    for mut sample in samples.chunks_exact(lengths.iter().sum::<usize>().max(1)) {
        let mut inputs = Vec::new();
        for &length in &lengths {
            let (input, rest) = sample.split_at(length);
            inputs.push(input);
            sample = rest;
        }
        for bytes in runner.run_raw(&inputs)? {
            output.write_all(&bytes)?;
        }
    }
    Ok(())
}
