//! The Python wheel, built by maturin in the environment of the bench `peers`, gives the bits of `tucano run`.

use std::path::Path;
use std::process::Command;

use tucano_benches::peers::environment;
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;
use tucano_tests::{models, read};

/// Prints the digest of the stored outputs, as `tucano run` takes it, after some checks of what is refused.
const SCRIPT: &str = r#"
import hashlib, sys
import numpy as np
import tucano

path, data = sys.argv[1:]
runner = tucano.Runner(open(path, "rb").read())
assert runner.backend == tucano.backends()[0], runner.backend
x = np.load(data)["in0"].astype(np.float32)
x = x.reshape(-1, *runner.inputs[0].shape[1:])
(stored,) = runner.run_raw(x)
(real,) = runner.run(x)
assert real.shape == (len(x), *runner.outputs[0].shape[1:]) and real.dtype == np.float32
output = runner.outputs[0]
if output.dtype == "int8":
    known = (stored.view(np.int8).astype(np.float64) - output.zero_point) * output.scale
    assert np.array_equal(real.reshape(len(x), -1), known.astype(np.float32))
(scalar,) = tucano.Runner(open(path, "rb").read(), backend="scalar").run_raw(x)
assert output.dtype == "float32" or np.array_equal(scalar, stored)
for wrong in (lambda: runner.run(x[:, :-1]), lambda: runner.run(x.astype(np.float64)), lambda: runner.run(),
              lambda: tucano.Runner(b"none"), lambda: tucano.Runner(b"", backend="abacus")):
    try:
        wrong()
    except ValueError as error:
        assert str(error)
    else:
        raise AssertionError("not refused")
print(hashlib.sha256(stored.tobytes()).hexdigest())
"#;

/// Runs a command to its end; gives what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

#[test]
fn the_wheel_gives_the_bits_of_tucano_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let python = environment::python().unwrap_or_else(|error| panic!("{error}"));
    let mut maturin = Command::new(&python);
    maturin.args(["-m", "maturin", "build", "--quiet", "--locked", "--manifest-path"]);
    maturin.arg(root.join("runtime/bindings/python/Cargo.toml")).arg("--interpreter").arg(&python);
    maturin.arg("--target-dir").arg(environment::folder().join("python")).arg("--out").arg(path("wheel"));
    done(&mut maturin);
    let wheel = std::fs::read_dir(path("wheel")).unwrap().next().unwrap().unwrap().path();
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(path("site")).arg(wheel);
    done(&mut pip);

    let (model, data) = (models().join("resnet8.onnx"), models().join("resnet8.npz"));
    let (graph, samples) = read(&model, &data, None).unwrap();
    for int8 in [false, true] {
        let options = Options { int8, ..Options::default() };
        std::fs::write(path("blob"), convert(&graph, Some(&samples), &options, &Silent).unwrap().blob)
            .unwrap();
        let mut script = Command::new(&python);
        script.env("PYTHONPATH", path("site")).args(["-c", SCRIPT]).arg(path("blob")).arg(&data);
        let found = done(&mut script);
        let mut run = Command::new(env!("CARGO"));
        run.args(["run", "--quiet", "--locked", "--bin", "tucano", "--", "run"]).current_dir(&root);
        run.arg(path("blob")).arg("--data").arg(&data).arg("--json").arg(path("json"));
        done(&mut run);
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path("json")).unwrap()).unwrap();
        assert_eq!(report["output_sha256"], found.as_str());
    }
}
