//! A C program, built by this machine's compiler, gives the runner's bits; the library is linked statically and dynamically.

use std::path::{Path, PathBuf};
use std::process::Command;

use tucano::host::Runner;
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;

/// Runs a command to its end.
fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The library, built beside the test's own files.
fn library() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(manifest);
    done(build.arg("--target-dir").arg(&target));
    target.join("debug")
}

#[test]
fn a_c_program_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = library();
    let compile = |name: &str, link: &[&str]| {
        let program = folder.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"]).arg(root.join("include"));
        cc.arg(root.join("tests/check.c")).arg("-o").arg(&program).arg("-L").arg(&built);
        done(cc.args(link).args(["-lpthread", "-ldl", "-lm"]));
        program
    };
    let rpath = format!("-Wl,-rpath,{}", built.display());
    let programs = [
        compile("static", &["-l:libtucano_c.a", "-lgcc_s"]),
        compile("dynamic", &[rpath.as_str(), "-ltucano_c"]),
    ];

    let models = tucano_tests::models();
    let (graph, data) =
        tucano_tests::read(&models.join("resnet8.onnx"), &models.join("resnet8.npz"), None).unwrap();
    let data = data.slice(0..4);
    for int8 in [false, true] {
        let options = Options { int8, ..Options::default() };
        let blob = convert(&graph, Some(&data), &options, &Silent).unwrap().blob;
        let mut runner = Runner::new(&blob).unwrap();
        let expected = runner.run_batch_raw(&[&data.inputs[0]], data.samples).unwrap().concat();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("blob"), &blob).unwrap();
        let inputs: Vec<u8> = data.inputs[0].iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(path("inputs"), inputs).unwrap();
        for program in &programs {
            done(Command::new(program).args(["blob", "inputs", "outputs"].map(path)));
            assert_eq!(std::fs::read(path("outputs")).unwrap(), expected, "{}", program.display());
        }
    }
}
