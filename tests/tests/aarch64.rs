//! The runtime on aarch64, emulated: the backends' own tests, and networks on every backend against this machine's portable code. A processor with the
//! dot product and one without run them.
//!
//! Needs what boards/setup.sh installs: without the emulator the tests fail and say so. Without the target's library, which only rustup has, they say
//! loudly that nothing was run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tucano::host::Runner;
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;
use tucano_tests::{models, read};

const TARGET: &str = "aarch64-unknown-linux-musl";
const EMULATOR: &str = "qemu-aarch64";

/// Emulated processors, and the backends that each has besides portable code.
const PROCESSORS: [(&str, &[&str]); 2] =
    [("max", &["aarch64-neon-dotprod", "aarch64-neon"]), ("cortex-a53", &["aarch64-neon"])];

/// Largest difference of floats, as a share of the largest output.
const TOLERANCE: f32 = 1e-5;
const SAMPLES: usize = 4;

/// Whether the active toolchain has the target's library, or gets it now.
fn target_is_there() -> bool {
    let root = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs").stdout;
    let root = PathBuf::from(String::from_utf8(root).expect("a path").trim());
    let there = || root.join("lib/rustlib").join(TARGET).join("lib").is_dir();
    if !there() {
        // A closed network must not hold the tests up for longer than this.
        let _ = Command::new("timeout").args(["90", "rustup", "target", "add", TARGET]).status();
    }
    if !there() {
        eprintln!("*** TARGET ABSENT: rustup cannot add {TARGET}; the tests of aarch64 are SKIPPED ***");
    }
    there()
}

/// Builds with the target's own C library and the toolchain's own linker; gives the program.
fn build(command: &str, what: &[&str]) -> PathBuf {
    let output = Command::new("cargo")
        .args([command, "--locked", "-p", "tucano", "--features", "host", "--target", TARGET])
        .args(["--message-format", "json"])
        .args(what)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("text");
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    programs.next_back().expect("a program was built")
}

/// Runs a program on an emulated processor.
fn emulate(processor: &str, program: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let child = Command::new(EMULATOR)
        .args(["-cpu", processor])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{EMULATOR}: {error}; boards/setup.sh installs it (Debian's qemu-user)")
    });
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("the emulator ends")
}

/// The backends' own tests.
#[test]
fn kernels_keep_their_promises() {
    if !target_is_there() {
        return;
    }
    let tests = build("test", &["--lib", "--no-run"]);
    for (processor, backends) in PROCESSORS {
        let output = emulate(processor, &tests, &["backend::aarch64", "backend::vector", "--nocapture"], &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{processor}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let all = format!("backends: {}, scalar", backends.join(", "));
        assert!(text.contains(&all), "{processor}: {text}");
        let run = text.lines().find(|line| line.starts_with("test result")).expect("a result");
        println!("{processor}: {all}: {run}");
    }
}

/// Raw samples of a blob, and what they give here, by portable code.
fn expected(runner: &mut Runner, data: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let terminal = runner.inputs()[0].clone();
    let (mut samples, mut outputs) = (Vec::new(), Vec::new());
    for sample in data.chunks_exact(terminal.elements()).take(SAMPLES) {
        let mut bytes = vec![0; sample.len() * terminal.tensor.dtype.bytes()];
        terminal.store(sample, &mut bytes).expect("fits");
        outputs.extend(runner.run_raw(&[&bytes]).expect("runs").concat());
        samples.extend(bytes);
    }
    (samples, outputs)
}

/// Whether outputs are the same: integers to the bit.
fn same(ours: &[u8], theirs: &[u8], floats: bool) -> bool {
    if !floats || ours.len() != theirs.len() {
        return ours == theirs;
    }
    let values =
        |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>();
    let (ours, theirs) = (values(ours), values(theirs));
    let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
    ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

#[test]
fn networks_give_what_portable_code_gives() {
    if !target_is_there() {
        return;
    }
    let program = build("build", &["--example", "raw"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.tnno");
    let path = path.to_str().expect("text");
    for name in ["resnet8", "phm_mlp_dense", "tt_mlp_chain_dynamo_noopt", "siren_astronaut"] {
        let file = |ending: &str| models().join(format!("{name}.{ending}"));
        let (graph, data) = read(&file("onnx"), &file("npz"), None).expect("model");
        for (int8, half_weights) in [(true, false), (false, false), (false, true)] {
            let options = Options { int8, half_weights, ..Options::default() };
            let converted = convert(&graph, int8.then_some(&data), &options, &Silent).expect("blob");
            std::fs::write(path, &converted.blob).expect("written");
            let mut portable = Runner::with_backend(&converted.blob, "scalar").expect("loads");
            let (samples, outputs) = expected(&mut portable, &data.inputs[0]);
            assert!(!outputs.is_empty());
            for (processor, backends) in PROCESSORS {
                for backend in backends {
                    let output = emulate(processor, &program, &[backend, path], &samples);
                    let what = format!(
                        "{name}, int8: {int8}, half weights: {half_weights}, {backend} on {processor}"
                    );
                    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
                    assert!(same(&output.stdout, &outputs, !int8), "{what}");
                }
            }
            // The dot product by name, where there is none.
            let output = emulate("cortex-a53", &program, &["aarch64-neon-dotprod", path], &samples);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("no backend `aarch64-neon-dotprod`"), "{text}");
        }
    }
}
