//! The programs as a user meets them: exit codes, errors that name what is wrong, nothing half-written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MODEL: &str = "phm_mlp_dense.onnx";
const DATA: &str = "phm_mlp_dense.npz";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

fn model(name: &str) -> String {
    models().join(name).display().to_string()
}

fn convert(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_convert")).args(arguments).output().expect("the program starts")
}

fn tucano(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tucano")).args(arguments).output().expect("the program starts")
}

/// Fails with this code, says each of `words`, and does not panic.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).replace("\n  │ ", " ");
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

#[track_caller]
fn accepted(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("the JSON was written")).expect("it is JSON")
}

#[test]
fn the_main_job_end_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (blob, report, page) = (at("net.tuc"), at("net.json"), at("net.html"));
    let shown = accepted(&convert(&[
        &model(MODEL),
        "--tucker",
        "--int8",
        "--calibrate",
        &model(DATA),
        "-o",
        &blob,
        "--json",
        &report,
        "--report",
        &page,
    ]));
    assert!(shown.contains("net.tuc") && shown.contains("MACs"), "{shown}");
    assert_eq!(files(folder.path()), ["net.html", "net.json", "net.rs", "net.tuc"]);
    let report = json(Path::new(&report));
    for key in
        ["schema", "model", "target", "dtype", "before", "after", "accuracy", "verify", "seconds", "layers"]
    {
        assert!(report.get(key).is_some(), "`{key}` is missing");
    }
    assert_eq!(report["schema"], "tucano.convert/1");
    assert_eq!(report["dtype"], "int8");
    for key in ["parameters", "weight_bytes", "macs", "arena_bytes"] {
        assert!(report["before"][key].as_u64() > Some(0) && report["after"][key].as_u64() > Some(0), "{key}");
    }
    let layer = &report["layers"][0];
    for key in ["name", "op", "format", "ranks", "error", "weight_bytes", "macs", "reason"] {
        assert!(layer.get(key).is_some(), "layers[].{key} is missing");
    }
    let tradeoff = report["tradeoff"].as_array().expect("a list");
    assert_eq!(tradeoff.iter().filter(|point| point["chosen"] == true).count(), 1);
    let page = std::fs::read_to_string(&page).expect("the page was written");
    for layer in report["layers"].as_array().expect("a list") {
        assert!(page.contains(layer["name"].as_str().expect("a name")), "{layer}");
    }
    assert!(page.contains("chosen: ") && page.contains("--report"));

    let shown = accepted(&tucano(&["inspect", &blob]));
    assert!(shown.contains("pairs, dense") && shown.contains("arena"), "the core's kernel: {shown}");
    let ran = at("run.json");
    accepted(&tucano(&["run", &blob, "--data", &model(DATA), "--json", &ran]));
    let ran = json(Path::new(&ran));
    assert_eq!(ran["schema"], "tucano.run/1");
    assert_eq!(ran["output_sha256"].as_str().map(str::len), Some(64));
    let verified = at("verify.json");
    accepted(&tucano(&["verify", &blob, &model(MODEL), "--data", &model(DATA), "--json", &verified]));
    let verified = json(Path::new(&verified));
    assert!(verified["agreement"].as_f64() > Some(0.9), "{verified}");
    for key in ["samples", "max_abs", "relative_rms", "kl"] {
        assert!(verified[key].is_number(), "{key}");
    }
    // Off by more than this for certain.
    refused(
        &tucano(&["verify", &blob, &model(MODEL), "--data", &model(DATA), "--tolerance", "1e-7"]),
        1,
        &["largest magnitude"],
    );
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = |name: &str| {
        let blob = folder.path().join(name).join("net.tuc");
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
        accepted(&convert(&[
            &model(MODEL),
            "--tucker",
            "--ratio",
            "1.5",
            "--int8",
            "--calibrate",
            &model(DATA),
            "-o",
            &blob.display().to_string(),
        ]));
        (std::fs::read(&blob).expect("a blob"), std::fs::read(blob.with_extension("rs")).expect("a module"))
    };
    assert!(bytes("first") == bytes("second"));
}

#[test]
fn f32_blobs_equal_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let blob = folder.path().join("net.tuc").display().to_string();
    accepted(&convert(&[&model(MODEL), "-o", &blob]));
    accepted(&tucano(&["verify", &blob, &model(MODEL), "--data", &model(DATA)]));
}

#[test]
fn check_tells_what_is_there() {
    assert!(accepted(&tucano(&["check", &model(MODEL)])).contains("can be converted"));
    refused(&tucano(&["check", &model(DATA)]), 1, &["ONNX"]);
}

#[test]
fn bad_usage_is_exit_code_2() {
    refused(&convert(&[]), 2, &["MODEL.onnx"]);
    refused(&convert(&[&model(MODEL), "--tucker", "--low-rank"]), 2, &["--low-rank"]);
    refused(&convert(&[&model(MODEL), "--ratio", "2"]), 2, &["--tucker"]);
    refused(&convert(&[&model(MODEL), "--tucker", "--ratio", "0.5"]), 2, &["at least 1"]);
    refused(&convert(&[&model(MODEL), "--tucker", "--max-error", "nan"]), 2, &["above 0"]);
    refused(&convert(&[&model(MODEL), "--samples", "0..4"]), 2, &["--calibrate"]);
    refused(&convert(&[&model(MODEL), "--calibrate", &model(DATA), "--samples", "4..4"]), 2, &["empty"]);
    refused(&convert(&[&model(MODEL), "-o", &model(MODEL)]), 2, &["overwrite"]);
    refused(&tucano(&["run", "x.tuc"]), 2, &["--data"]);
}

#[test]
fn no_file_of_a_command_overwrites_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::copy(models().join(MODEL), at("net.onnx")).expect("a copy");
    let around = folder.path().join("..").join(folder.path().file_name().expect("a name")).join("net.onnx");
    for (output, json) in [
        (around.display().to_string(), at("net.json")),
        (at("net.rs"), at("net.json")),
        (at("net.tuc"), at("net.tuc")),
        (at("net.tuc"), at("net.rs")),
        (at("net.tuc"), at("net.onnx")),
    ] {
        for flag in ["--json", "--report"] {
            refused(&convert(&[&at("net.onnx"), "-o", &output, flag, &json]), 2, &["overwrite"]);
        }
    }
    let one = at("net.html");
    refused(&convert(&[&at("net.onnx"), "--json", &one, "--report", &one]), 2, &["overwrite"]);
    // All files or none.
    refused(
        &convert(&[&at("net.onnx"), "-o", &at("net.tuc"), "--json", &at("absent/x.json")]),
        1,
        &["x.json"],
    );
    assert_eq!(files(folder.path()), ["net.onnx"]);
}

#[test]
fn an_error_limit_holds_for_the_integers_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let data = format!("{}/digits_test_450.npz", models().display());
    let with = |limit: &str| {
        let blob = at("net.tuc");
        let samples =
            ["--samples", "0..200", "--calibrate", &data, "--json", &at("net.json")].map(String::from);
        let mut arguments = vec![model(MODEL), "--tucker".into(), "--int8".into(), "-o".into(), blob];
        arguments.extend(["--max-error".into(), limit.to_string()]);
        arguments.extend(samples);
        convert(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // Rounding alone costs more than this.
    refused(&with("0.0001"), 1, &["0.0001"]);
    assert_eq!(files(folder.path()), [""; 0]);
    accepted(&with("0.1"));
}

#[test]
fn bad_models_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let sound = std::fs::read(models().join(MODEL)).expect("the model");
    let try_bytes = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        refused(&convert(&[&path.display().to_string()]), 1, words);
        std::fs::remove_file(path).expect("the file");
        assert_eq!(files(folder.path()), [""; 0], "{name} left something behind");
    };
    try_bytes("empty.onnx", &[], &["empty.onnx"]);
    try_bytes("short.onnx", &sound[..sound.len() / 2], &["short.onnx"]);
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    try_bytes("noise.onnx", &noise, &["noise.onnx"]);
    let mut nan = sound.clone();
    let middle = nan.len() / 2;
    nan[middle..middle + 16].fill(0xFF);
    try_bytes("nan.onnx", &nan, &["finite"]);
    refused(&convert(&["absent.onnx"]), 1, &["absent.onnx"]);
}

#[test]
fn bad_data_is_refused() {
    let with = |more: &[&str]| {
        let path = model(MODEL);
        let mut arguments = vec![path.as_str(), "--int8", "-o", "/nonexistent/x.tuc"];
        arguments.extend_from_slice(more);
        convert(&arguments)
    };
    refused(&with(&[]), 1, &["--calibrate"]);
    refused(&with(&["--calibrate", "absent.npz"]), 1, &["absent.npz"]);
    refused(&with(&["--calibrate", &model(MODEL)]), 1, &[MODEL]);
    refused(&with(&["--calibrate", &model(DATA), "--input", "nope"]), 1, &["nope"]);
    // An output of another shape than the input.
    refused(&with(&["--calibrate", &model(DATA), "--input", "out0"]), 1, &["out0"]);
    refused(&with(&["--calibrate", &model(DATA), "--samples", "0..1000000"]), 1, &["1000000"]);
    refused(&with(&["--calibrate", &model(DATA), "--labels", "nope"]), 1, &["nope"]);
}

#[test]
fn bad_outputs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent/net.tuc").display().to_string();
    refused(&convert(&[&model(MODEL), "-o", &absent]), 1, &["absent/net.tuc"]);
    let is_folder = folder.path().display().to_string();
    refused(&convert(&[&model(MODEL), "-o", &is_folder]), 1, &["folder"]);
    assert_eq!(files(folder.path()), [""; 0]);
}

/// A disk that fills up while the blob is written, by way of a limit on file sizes.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let blob = folder.path().join("net.tuc");
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' '{}' -o '{}'",
        env!("CARGO_BIN_EXE_convert"),
        model(MODEL),
        blob.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    refused(&output, 1, &["net.tuc"]);
    assert_eq!(files(folder.path()), [""; 0]);
}

#[test]
fn bad_blobs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    accepted(&convert(&[&model(MODEL), "-o", &at("net.tuc").display().to_string()]));
    let sound = std::fs::read(at("net.tuc")).expect("a blob");
    let run = |name: &str, bytes: &[u8]| {
        std::fs::write(at(name), bytes).expect("a file");
        tucano(&["run", &at(name).display().to_string(), "--data", &model(DATA)])
    };
    for (name, place) in [("magic.tuc", 0), ("structure.tuc", 70), ("weights.tuc", sound.len() - 40)] {
        let mut flipped = sound.clone();
        flipped[place] ^= 4;
        refused(&run(name, &flipped), 1, &[name, "not a sound blob"]);
    }
    refused(&run("short.tuc", &sound[..sound.len() - 1]), 1, &["short.tuc"]);
    refused(&run("empty.tuc", &[]), 1, &["empty.tuc"]);
    refused(&tucano(&["inspect", "absent.tuc"]), 1, &["absent.tuc"]);
    refused(
        &tucano(&["run", &at("net.tuc").display().to_string(), "--data", &model(DATA), "--backend", "vnni"]),
        1,
        &["vnni", "scalar"],
    );
}

/// The report of a conversion of resnet8 to int8 with these flags.
fn resnet8(folder: &Path, flags: &[&str]) -> (Output, Option<serde_json::Value>) {
    let at = |name: &str| folder.join(name).display().to_string();
    let (net, data, blob, report) =
        (model("resnet8.onnx"), model("resnet8.npz"), at("net.tuc"), at("net.json"));
    let fixed = [&*net, "--int8", "--calibrate", &data, "-o", &blob, "--json", &report];
    let output = convert(&[&fixed, flags].concat());
    let report = output.status.success().then(|| json(Path::new(&report)));
    (output, report)
}

#[test]
fn budgets_hold_in_the_blob_and_its_report() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, budget, key, limit) in [
        ("--prune", "ram=40k", "arena_bytes", 40 * 1024),
        ("--auto", "ram=40k", "arena_bytes", 40 * 1024),
        ("--prune", "flash=50k", "blob_bytes", 50 * 1024),
        ("--prune", "instructions=70M", "instructions", 70_000_000),
    ] {
        let (output, report) = resnet8(folder.path(), &[format, "--budget", budget]);
        let report = report
            .unwrap_or_else(|| panic!("{format} {budget}: {}", String::from_utf8_lossy(&output.stderr)));
        let figure = report["after"][key].as_u64().expect("a figure");
        assert!(figure <= limit, "{format} {budget}: {figure}");
        assert!(report["before"]["arena_bytes"].as_u64() > report["after"]["arena_bytes"].as_u64());
        let blob = std::fs::read(folder.path().join("net.tuc")).expect("a blob");
        let runner = tucano::host::Runner::new(&blob).expect("a sound blob");
        assert_eq!(Some(runner.model().arena_bytes() as u64), report["after"]["arena_bytes"].as_u64());
        assert_eq!(Some(blob.len() as u64), report["after"]["blob_bytes"].as_u64());
    }
}

#[test]
fn what_cannot_be_reached_names_what_can() {
    for (format, key) in
        [("--prune", "ram"), ("--low-rank", "ram"), ("--prune", "flash"), ("--prune", "macs")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let (output, _) = resnet8(folder.path(), &[format, "--budget", &format!("{key}=1k")]);
        let words = if key == "ram" { "at least" } else { "at most" };
        refused(&output, 1, &[words]);
        assert_eq!(files(folder.path()), [""; 0]);
        let text = String::from_utf8_lossy(&output.stderr).replace("\n  │ ", " ");
        let nearest = match key {
            "ram" => text.split("ram=").nth(1),
            _ => text.split("which is ").nth(1),
        };
        let digits: String = nearest.unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
        let (output, report) = resnet8(folder.path(), &[format, "--budget", &format!("{key}={digits}")]);
        assert!(report.is_some(), "{format} {key}={digits}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_limit_on_the_drop_is_judged_by_labels() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let data = model("digits_test_450.npz");
    let with = |limit: &str, more: &[&str]| {
        let (net, blob, report) = (model(MODEL), at("net.tuc"), at("net.json"));
        let fixed =
            [&*net, "--low-rank", "--calibrate", &data, "--max-drop", limit, "-o", &blob, "--json", &report];
        convert(&[&fixed, more].concat())
    };
    refused(&with("1", &[]), 1, &["no labels"]);
    refused(&with("1", &["--labels", "y", "--samples", "0..50"]), 1, &["100 or more"]);
    refused(&with("100", &["--labels", "y", "--samples", "0..1"]), 1, &["5 or more"]);
    refused(&with("1", &["--labels", "y", "--budget", "ram=1k"]), 2, &["--budget"]);
    assert_eq!(files(folder.path()), [""; 0]);
    let parameters = |limit: &str| {
        accepted(&with(limit, &["--labels", "y"]));
        let report = json(Path::new(&at("net.json")));
        let accuracy = |when: &str| report["accuracy"][when].as_f64().expect("an accuracy");
        let drop = 100.0 * (accuracy("before") - accuracy("after"));
        assert!(drop <= limit.parse().expect("a number"), "{drop} {limit}");
        assert!(report["notes"][0].as_str().expect("a note").contains("accuracy"), "{}", report["notes"]);
        report["after"]["parameters"].as_u64().expect("a number")
    };
    assert!(parameters("20") < parameters("1"));
}

#[test]
fn a_ratio_is_one_of_the_model_whatever_its_layers_are_made_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (net, data) = (model("tt_mlp_chain_dynamo_noopt.onnx"), model("digits_test_450.npz"));
    let (blob, report) = (at("net.tuc"), at("net.json"));
    let flags = ["--auto", "--ratio", "1.5", "--calibrate", &data, "-o", &blob, "--json", &report];
    accepted(&convert(&[&[&*net][..], &flags].concat()));
    let report = json(Path::new(&report));
    let [before, after] =
        ["before", "after"].map(|when| report[when]["parameters"].as_f64().expect("a number"));
    assert!(before >= 1.5 * after, "{before} {after}");
}

#[test]
fn numbers_of_blocks_that_are_none_are_refused() {
    for n in ["0", "1", "7"] {
        refused(
            &convert(&[&model("resnet8.onnx"), &format!("--hypercomplex={n}")]),
            1,
            &["numbers that do: 2, 4"],
        );
    }
    refused(&convert(&[&model(MODEL), "--rank-bits", "16"]), 2, &["--int8"]);
}
