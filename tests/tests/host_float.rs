//! Networks of floats on every backend of this machine against portable code: dense and factorised, weights of 32 and of 16 bits.

use std::path::{Path, PathBuf};

use tucano::host::{self, Runner};
use tucano_converter::convert::{Method, Options, convert};
use tucano_converter::import::{self, import};
use tucano_converter::search::Silent;
use tucano_tests::{models, onnx_files, zoo};

/// Largest difference, as a share of the largest output.
const TOLERANCE: f32 = 1e-5;
const SAMPLES: usize = 5;

/// Numbers in -1..1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Backends but for portable code; those that every x86-64 processor of the last decade has must be among them.
fn backends() -> Vec<&'static str> {
    let backends: Vec<_> = host::backends().into_iter().filter(|name| *name != "scalar").collect();
    println!("backends: {backends:?}");
    #[cfg(target_arch = "x86_64")]
    {
        assert!(backends.contains(&"x86-avx2"), "no AVX2");
        assert_eq!(is_x86_feature_detected!("avx512f"), backends.contains(&"x86-avx512"));
    }
    backends
}

fn outputs(runner: &mut Runner) -> Vec<Vec<f32>> {
    let lengths: Vec<usize> = runner.inputs().iter().map(|terminal| terminal.elements()).collect();
    let mut all = Vec::new();
    for sample in 0..SAMPLES {
        let data: Vec<_> =
            lengths.iter().zip(1..).map(|(&length, k)| noise(length, 97 * sample as u64 + k)).collect();
        let data: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        all.extend(runner.run(&data).expect("runs"));
    }
    all
}

/// Converts a model and compares its blob's outputs.
fn judge(path: &Path, options: &Options) {
    let graph = import(path, &import::Options { batch: 1 }).expect("model");
    let converted = convert(&graph, None, options, &Silent).expect("blob");
    let mut portable = Runner::with_backend(&converted.blob, "scalar").expect("loads");
    let expected = outputs(&mut portable);
    for backend in backends() {
        let mut runner = Runner::with_backend(&converted.blob, backend).expect("loads");
        assert_eq!(runner.backend(), backend, "{}: no program", path.display());
        for (ours, theirs) in outputs(&mut runner).iter().zip(&expected) {
            let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
            let worst = ours.iter().zip(theirs).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(
                worst <= TOLERANCE * largest,
                "{} on {backend} ({:?}, half weights: {}): {worst:e} of {largest}",
                path.display(),
                options.method,
                options.half_weights,
            );
        }
    }
}

fn onnx(folder: &Path, part: &str) -> Vec<PathBuf> {
    onnx_files(folder).into_iter().filter(|path| path.to_string_lossy().contains(part)).collect()
}

#[test]
fn models_of_the_repository() {
    let found = onnx(&models(), "");
    assert!(found.len() >= 5);
    for path in found {
        for half_weights in [false, true] {
            judge(&path, &Options { half_weights, ..Options::default() });
        }
    }
}

#[test]
fn factorised_layers() {
    let path = models().join("resnet8.onnx");
    for method in [Method::Tucker, Method::Cp, Method::OneWay] {
        judge(&path, &Options { method, macs_ratio: Some(1.5), ..Options::default() });
    }
}

#[test]
fn models_of_the_zoo() {
    let Some(zoo) = zoo() else { return };
    let found = onnx(&zoo.join("mlperf"), "_f32");
    assert!(found.len() >= 4);
    for path in found {
        for half_weights in [false, true] {
            judge(&path, &Options { half_weights, ..Options::default() });
        }
    }
}
