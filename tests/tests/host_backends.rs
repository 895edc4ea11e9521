//! Every backend of this machine against portable code, on real networks: dense and factorised, integers to the bit, floats to 1e-5 of the largest
//! output. Backends that the machine lacks are refused.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tucano::backend::spec::select::Isa;
use tucano::blob::DType;
use tucano::host::{self, OpenError, Runner};
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert::{Method, Options, convert};
use tucano_converter::emit::{Program, emit};
use tucano_converter::graph::Graph;
use tucano_converter::passes::{legalize, simplify};
use tucano_converter::plan::plan_for;
use tucano_converter::quantize;
use tucano_converter::search::Silent;
use tucano_tests::{float_models, models, onnx_files, read, zoo};

/// Largest difference of floats, as a share of the largest output.
const TOLERANCE: f32 = 1e-5;
/// Real samples that decide ranges and ranks.
const CALIBRATION: usize = 4;
/// Samples of noise besides a real one.
const NOISE: usize = 2;
/// Times fewer multiply-adds of a factorised form.
const MACS_RATIO: f64 = 1.3;
/// Names of backends on any machine.
const KNOWN: [&str; 6] =
    ["x86-avx512-vnni", "x86-avx512", "x86-avx2", "aarch64-neon-dotprod", "aarch64-neon", "scalar"];
/// One form for each kind of chain that layers are lowered to; networks take them in turns.
const FORMS: [Method; 5] =
    [Method::Tucker, Method::Cp, Method::OneWay, Method::DepthwisePointwise, Method::LowRank];

/// Pseudo-random bytes.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    /// The stored bytes of one sample: any integers, floats in -1..1.
    fn sample(&mut self, runner: &Runner) -> Vec<Vec<u8>> {
        let mut input = |dtype: DType, elements: usize| -> Vec<u8> {
            match dtype {
                DType::F32 => (0..elements)
                    .flat_map(|_| (f32::from(self.byte().cast_signed()) / 128.0).to_le_bytes())
                    .collect(),
                _ => (0..elements * dtype.bytes()).map(|_| self.byte()).collect(),
            }
        };
        runner.inputs().iter().map(|terminal| input(terminal.tensor.dtype, terminal.elements())).collect()
    }
}

/// Backends but for portable code; those that every x86-64 processor of the last decade has must be among them.
fn backends() -> Vec<&'static str> {
    let backends: Vec<_> = host::backends().into_iter().filter(|name| *name != "scalar").collect();
    #[cfg(target_arch = "x86_64")]
    {
        assert!(backends.contains(&"x86-avx2"), "no AVX2");
        assert_eq!(is_x86_feature_detected!("avx512f"), backends.contains(&"x86-avx512"));
        assert_eq!(is_x86_feature_detected!("avx512vnni"), backends.contains(&"x86-avx512-vnni"));
    }
    backends
}

/// What differs from portable code, for each backend of this machine.
fn compare(what: &str, blob: &[u8], real: &[&[f32]]) -> Vec<String> {
    let mut portable = Runner::with_backend(blob, "scalar").expect("loads");
    let mut noise = Noise(97);
    let mut samples = vec![portable.quantise(real).expect("a sample")];
    samples.extend((0..NOISE).map(|_| noise.sample(&portable)));
    let run = |runner: &mut Runner| -> Vec<Vec<Vec<u8>>> {
        let each = |sample: &Vec<Vec<u8>>| {
            let inputs: Vec<&[u8]> = sample.iter().map(Vec::as_slice).collect();
            runner.run_raw(&inputs).expect("runs")
        };
        samples.iter().map(each).collect()
    };
    let expected = run(&mut portable);
    assert!(expected.iter().any(|outputs| *outputs != expected[0]), "{what}: the samples tell nothing");
    let mut wrong = Vec::new();
    for backend in backends() {
        let mut runner = Runner::with_backend(blob, backend).expect("loads");
        assert_eq!(runner.backend(), backend, "{what}: no program");
        let found = run(&mut runner);
        for (k, terminal) in runner.outputs().iter().enumerate() {
            for (found, expected) in found.iter().zip(&expected) {
                let (found, expected) = (&found[k], &expected[k]);
                let same = match terminal.tensor.dtype {
                    DType::F32 => agree(&floats(found), &floats(expected)),
                    _ => found == expected,
                };
                if !same {
                    wrong.push(format!("{what}: output {k} on {backend}"));
                }
            }
        }
    }
    wrong
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn agree(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

/// A network dense and in one form, as integers and as floats. Gives what differs, and how many of its blobs were factorised.
fn judge(path: &Path, form: Method) -> (Vec<String>, usize) {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let (graph, data) = read(path, &path.with_extension("npz"), None).expect("a model and its data");
    let data = data.slice(0..data.samples.min(CALIBRATION));
    let factorised = factorised(&graph, form);
    let graphs = [(Method::None, Some(&graph)), (form, factorised.as_ref())];
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (method, graph) in graphs.into_iter().filter_map(|(method, graph)| Some((method, graph?))) {
        for int8 in [true, false] {
            let what = format!("{name}, {}, {method:?}", if int8 { "int8" } else { "f32" });
            wrong.extend(compare(&what, &blob(graph, int8.then_some(&data)), &data.sample(0)));
            count += usize::from(method != Method::None);
        }
    }
    (wrong, count)
}

/// A network's blob, of integers where there is data to take ranges from.
fn blob(graph: &Graph, data: Option<&Dataset>) -> Vec<u8> {
    let graph = legalize(&simplify(graph)).expect("legal");
    let quantized = data.map(|data| {
        quantize::quantize(&graph, Some(data), &quantize::Options::default()).expect("quantises")
    });
    let graph = quantized.as_ref().map_or(&graph, |quantized| &quantized.graph);
    let plan = plan_for(graph, quantized.as_ref(), Isa::Scalar).expect("layout");
    let quantized = quantized.as_ref();
    emit(&Program { graph, plan: &plan, quantized, half_weights: false, labels: &[], isa: Isa::Scalar })
        .expect("blob")
}

/// The chains of layers that a network's weights become, by a quick fit without data. `None`: it has no smaller form of this kind.
fn factorised(graph: &Graph, method: Method) -> Option<Graph> {
    let options = Options { method, macs_ratio: Some(MACS_RATIO), ..Options::default() };
    match convert(graph, None, &options, &Silent) {
        Ok(converted) => Some(converted.lowered),
        Err(error) => {
            println!("no {method:?}: {error}");
            None
        }
    }
}

/// Judges networks, each in the next form. At least `factorised` blobs must be factorised.
fn judge_all(paths: &[PathBuf], factorised: usize) {
    let judged: Vec<_> = paths
        .par_iter()
        .enumerate()
        .map(|(k, path)| {
            let begin = std::time::Instant::now();
            let judged = judge(path, FORMS[k % FORMS.len()]);
            println!("{}: {:.1} s", path.display(), begin.elapsed().as_secs_f64());
            judged
        })
        .collect();
    let found: usize = judged.iter().map(|(_, factorised)| factorised).sum();
    println!("{} networks, {found} factorised blobs, on {:?}", paths.len(), backends());
    let wrong: Vec<_> = judged.into_iter().flat_map(|(wrong, _)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found >= factorised, "{found} factorised blobs");
}

#[test]
fn models_of_the_repository() {
    let paths = onnx_files(&models());
    assert!(paths.len() >= 5);
    judge_all(&paths, 2);
}

#[test]
fn models_of_the_zoo() {
    let Some(zoo) = zoo() else { return };
    let all = float_models(&zoo);
    let paths: Vec<_> = all.into_iter().filter(|path| !path.starts_with(zoo.join("digits"))).collect();
    assert!(paths.len() >= 20);
    judge_all(&paths, 20);
}

#[test]
fn a_backend_that_the_machine_lacks_is_refused() {
    let path = models().join("phm_mlp_dense.onnx");
    let (graph, _) = read(&path, &path.with_extension("npz"), None).expect("model");
    let blob = convert(&graph, None, &Options::default(), &Silent).expect("blob").blob;
    let here = host::backends();
    let (mut opened, mut refused) = (0, 0);
    for name in KNOWN.into_iter().chain(["", "x86", "X86-AVX2", "x86-avx2 ", "scalar-2"]) {
        match Runner::with_backend(&blob, name) {
            Ok(runner) => {
                assert!(here.contains(&name) && runner.backend() == name, "{name}");
                opened += 1;
            }
            Err(error) => {
                assert!(!here.contains(&name), "{name}");
                assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
                assert_eq!(error, OpenError::Backend(name.to_string()));
                refused += 1;
            }
        }
    }
    assert_eq!(opened, here.len());
    assert!(refused >= 6);
}
