//! Helpers shared by the cross-crate tests.

pub mod fit;
pub mod fuzz;
pub mod target;

use std::path::{Path, PathBuf};

use tucano_converter::calibrate::Dataset;
use tucano_converter::graph::Graph;
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{self, import};

/// The small models of this repository.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The zoo of real models, or `None`, said loudly, if it is not on this machine. It is looked for in the folder that the
/// variable `TUCANO_ZOO` names, else in `../shared/zoo` beside the repository.
pub fn zoo() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/zoo");
    let path = std::env::var_os("TUCANO_ZOO").map_or_else(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("*** ZOO ABSENT: {} is no folder; tests on real models are SKIPPED ***", path.display());
    None
}

/// The models of a folder, sorted.
///
/// # Panics
/// If there is no such folder.
pub fn onnx_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect();
    paths.sort();
    paths
}

/// A model of one input with batch 1, and the first array of samples that fits it; `labels` names the array of their classes.
pub fn read(model: &Path, data: &Path, labels: Option<&str>) -> miette::Result<(Graph, Dataset)> {
    let graph = import(model, &import::Options { batch: 1 })?;
    let archive = Archive::open(data)?;
    let item_shape = &graph.shape(graph.inputs[0])[1..];
    let Data::F32(values) = archive.input(None, item_shape)?.data else {
        miette::bail!("{} holds integers", data.display())
    };
    let samples = values.len() / item_shape.iter().product::<usize>();
    let labels = archive.labels(labels, samples)?;
    Ok((graph, Dataset { inputs: vec![values], samples, labels }))
}

/// The float models of the zoo's `mlperf`, `trained` and `digits` but for the recurrent nets and the transformer, sorted.
pub fn float_models(zoo: &Path) -> Vec<PathBuf> {
    let wanted = |folder: &str, path: &Path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        path.extension().is_some_and(|extension| extension == "onnx")
            && match folder {
                "mlperf" => !name.ends_with("_qdq"),
                "trained" => true,
                _ => ["tt_mlp", "phm_mlp", "siren_astronaut"].iter().any(|prefix| name.starts_with(prefix)),
            }
    };
    let mut paths = Vec::new();
    for folder in ["mlperf", "trained", "digits"] {
        let entries = std::fs::read_dir(zoo.join(folder)).into_iter().flatten().flatten();
        paths.extend(entries.map(|entry| entry.path()).filter(|path| wanted(folder, path)));
    }
    paths.sort();
    paths
}
