//! The module that the converter writes beside a blob, in a crate as a user would write it: a library without the standard library that
//! owns nothing but buffers, and a program that feeds it. It must build, and give the bytes that the blob gives here.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tucano::backend::spec::Core;
use tucano::host::Runner;
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;
use tucano_tests::{models, read};

const LIBRARY: &str = "//! Runs the network.
#![no_std]
#![deny(unsafe_code, warnings)]

pub mod integers;
pub mod floats;
// Private, as the README shows it: what the program does not use must not warn.
#[path = \"integers.rs\"]
mod unused;
";

/// Input bytes come in, output bytes go out, the integer network's first.
const PROGRAM: &str = "use std::io::{Read, Write};
use tucano::arena::Arena;
use tucano::backend::Scalar;

macro_rules! network {
    ($network:ident, $backend:expr) => {{
        use user::$network::{ARENA_BYTES, STATE_BYTES, Session};
        let mut arena = Arena([0; ARENA_BYTES]);
        let mut state = Arena([0; STATE_BYTES]);
        let model = user::$network::model().unwrap();
        let session = Session::new(&model, $backend);
        std::io::stdin().read_exact(session.input_mut(&mut arena.0, 0).unwrap()).unwrap();
        session.run(&mut arena.0, &mut state.0).unwrap();
        std::io::stdout().write_all(session.output(&arena.0, 0).unwrap()).unwrap();
    }};
}

fn main() {
    network!(integers, user::integers::Backend::detect().unwrap());
    // Laid out for another core, on portable code.
    network!(floats, Scalar);
}
";

/// The backend of another core where this one's was meant.
const WRONG_PROGRAM: &str = "fn main() {
    let model: tucano::Model<'_, user::floats::Ops> = user::floats::model().unwrap();
    let backend = user::floats::Backend::detect().unwrap();
    user::floats::Session::new(&model, backend);
}
";

#[test]
fn the_written_module_builds_without_std_and_runs() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = folder.path().join("src");
    fs::create_dir(&source).unwrap();
    let manifest = format!(
        "[package]\nname = \"user\"\nedition = \"2024\"\n[dependencies]\ntucano = {{ path = {:?} }}\n[workspace]\n",
        repository.join("runtime")
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::copy(repository.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    fs::write(source.join("lib.rs"), LIBRARY).unwrap();
    fs::write(source.join("main.rs"), PROGRAM).unwrap();

    let model = models().join("phm_mlp_dense.onnx");
    let (graph, data) = read(&model, &models().join("digits_test_450.npz"), None).unwrap();
    let (mut inputs, mut expected) = (Vec::new(), Vec::new());
    for (name, int8, target) in [("integers", true, Core::X86_64), ("floats", false, Core::CortexM4)] {
        let options = Options { int8, target, ..Options::default() };
        let converted = convert(&graph, Some(&data.slice(0..100)), &options, &Silent).unwrap();
        let blob = source.join(name).with_extension("tuc");
        fs::write(&blob, &converted.blob).unwrap();
        fs::write(source.join(name).with_extension("rs"), converted.module(&blob).unwrap()).unwrap();
        let mut runner = Runner::with_backend(&converted.blob, "scalar").unwrap();
        let raw = runner.quantise(&data.sample(200)).unwrap().concat();
        expected.extend(runner.run_raw(&[&raw]).unwrap().concat());
        inputs.extend(raw);
    }

    let mut user = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("module"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Fails if the program did not build, which is told below.
    let _ = user.stdin.take().unwrap().write_all(&inputs);
    let output = user.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(output.stdout == expected, "{:?} instead of {expected:?}", output.stdout);
    assert!(expected.iter().collect::<std::collections::BTreeSet<_>>().len() > 4, "the outputs tell nothing");

    fs::write(source.join("main.rs"), WRONG_PROGRAM).unwrap();
    let wrong = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("module"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        !wrong.status.success()
            && said.contains("this target has no backend `tucano::backend::ThumbDsp<user::floats::Kernels>`"),
        "{said}"
    );
}
