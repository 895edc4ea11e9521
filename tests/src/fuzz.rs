//! Bodies of the fuzz targets, shared by `tests/fuzz` (coverage-guided) and `tests/tests/fuzz.rs` (mutations of seeds).
//!
//! Each takes any bytes and must return: no panic, no endless loop, no memory beyond what the bytes justify. What is accepted is used,
//! not only read.

use std::io::Write;
use std::iter::once;

use tucano::backend::spec::Core;
use tucano::blob::{DType, HEADER_BYTES, SECTION_ENTRY_BYTES, SectionKind, crc32};
use tucano::host::{self, OpenError, Runner};
use tucano::{AllOps, Model, Session, backend::Scalar};
use tucano_converter::calibrate::Dataset;
use tucano_converter::convert;
use tucano_converter::evaluate::evaluate;
use tucano_converter::import::npz::{Archive, Data};
use tucano_converter::import::{Options, import_bytes};
use tucano_converter::passes::simplify;
use tucano_converter::quantize::RankBits;
use tucano_converter::search::Silent;

/// Largest work that an accepted model is run for.
const MOST_MACS: u64 = 2_000_000;
/// Largest values that an accepted model is run with.
const MOST_ELEMENTS: usize = 1 << 18;
/// Largest arena that an accepted blob is run in.
const MOST_ARENA: usize = 16 << 10;

/// Imports a model; one that is accepted is simplified, and evaluated if it is small.
pub fn import(bytes: &[u8]) {
    let Ok(graph) = import_bytes(bytes, None, &Options { batch: 1 }) else { return };
    graph.check().expect("the importer gives sound graphs");
    let elements = |graph: &tucano_converter::graph::Graph| -> usize {
        graph.values.iter().map(|value| value.shape.iter().product::<usize>()).sum()
    };
    if graph.macs() > MOST_MACS || elements(&graph) > MOST_ELEMENTS {
        return;
    }
    let simple = simplify(&graph);
    simple.check().expect("passes give sound graphs");
    let zeros = graph.inputs.iter().map(|id| vec![0.0; graph.shape(*id).iter().product()]);
    evaluate(&simple, &zeros.collect::<Vec<_>>(), 1, &simple.outputs);
}

/// Reads every array of an archive.
pub fn npz(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("space for a temporary file");
    let Ok(archive) = Archive::open(file.path()) else { return };
    for name in archive.names() {
        let _ = archive.array(name);
    }
    let _ = archive.input(None, &[8, 8]);
    let _ = archive.labels(Some("y"), 4);
}

/// Loads a blob as it is, then with length and checksum made right, and runs what is accepted.
pub fn blob(bytes: &[u8]) {
    let mut memory = vec![0u64; bytes.len().div_ceil(8) + 2];
    let start = if memory.as_ptr().align_offset(16) == 0 { 0 } else { 8 };
    let aligned = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut memory)[start..start + bytes.len()];
    aligned.copy_from_slice(bytes);
    run_blob(aligned);
    repair(aligned);
    run_blob(aligned);
}

/// The first byte chooses one of this machine's backends for the blob behind it. With checksums made right, the blob must be refused by all or by none
/// and, if it is one of integers, give the bytes of portable code.
pub fn host(bytes: &[u8]) {
    let Some((&choice, blob)) = bytes.split_first() else { return };
    let mut blob = blob.to_vec();
    repair(&mut blob);
    repair_weights(&mut blob);
    host_blob(&blob, usize::from(choice));
}

/// Runs a blob on a backend of this machine and on portable code, on the same noise, if it is accepted and small.
///
/// # Panics
/// If they do not agree.
pub fn host_blob(blob: &[u8], choice: usize) {
    let backends = host::backends();
    let backend = backends[choice % backends.len()];
    let mut portable = match Runner::with_backend(blob, "scalar") {
        Ok(portable) => portable,
        Err(error) => {
            let other = Runner::with_backend(blob, backend).map(|_| ());
            assert_eq!(other, Err::<(), OpenError>(error), "{backend} accepts another blob");
            return;
        }
    };
    if !is_small(&portable.model()) {
        return;
    }
    let mut runner = Runner::with_backend(blob, backend).expect("what portable code accepts is accepted");
    let noise = |k: usize, at: usize| (at.wrapping_mul(91).wrapping_add(k * 17) >> 3) as u8;
    for run in 0..2 {
        let inputs: Vec<Vec<u8>> = (0..)
            .zip(portable.inputs())
            .map(|(k, terminal)| {
                let floats = terminal.tensor.dtype == DType::F32;
                let bytes = terminal.elements() * terminal.tensor.dtype.bytes();
                // Floats of a few units: the upper bytes of each decide.
                let byte = |at: usize| match at % 4 {
                    3 if floats => 0x3F | noise(k, at + run) & 0x80,
                    _ => noise(k, at + run),
                };
                (0..bytes).map(byte).collect()
            })
            .collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let expected = portable.run_raw(&inputs).expect("what a load accepts runs");
        let found = runner.run_raw(&inputs).expect("what a load accepts runs");
        assert_eq!(found.len(), expected.len());
        let integers =
            portable.model().steps().all(|step| step.output(0).is_some_and(|to| to.dtype != DType::F32));
        if integers {
            assert_eq!(found, expected, "{backend}, run {run}");
        }
    }
}

/// Whether a blob is run.
fn is_small(model: &Model<'_, AllOps>) -> bool {
    model.arena_bytes() <= MOST_ARENA && model.state_bytes() <= MOST_ARENA
}

fn run_blob(bytes: &[u8]) {
    let Ok(model) = Model::<AllOps>::load(bytes) else { return };
    if !is_small(&model) {
        return;
    }
    let (mut arena, mut state) = (Buffer::new(model.arena_bytes()), Buffer::new(model.state_bytes()));
    let session = Session::new(&model, Scalar);
    session.run(arena.get(), state.get()).expect("what a load accepts runs");
    for k in 0..model.outputs() {
        session.output(arena.get(), k).expect("outputs of an accepted blob exist");
    }
}

/// Sound blobs to start from: the repository's small models, as floats and as integers, dense and factorised.
///
/// # Panics
/// If a model of the repository does not convert.
pub fn blobs() -> Vec<Vec<u8>> {
    let names = ["phm_mlp_dense", "siren_astronaut", "resnet8"];
    let mut blobs = Vec::new();
    for name in names {
        let path = crate::models().join(name).with_extension("onnx");
        let model = tucano_converter::import::import(&path, &Options { batch: 1 }).expect("a sound model");
        let archive = Archive::open(&path.with_extension("npz")).expect("its data");
        let array = archive.input(None, &model.shape(model.inputs[0])[1..]).expect("its inputs");
        let Data::F32(values) = array.data else { panic!("inputs are floats") };
        let samples = array.shape[0].min(8);
        let data = Dataset { inputs: vec![values], samples: array.shape[0], labels: None }.slice(0..samples);
        for int8 in [false, true] {
            let options =
                convert::Options { int8, rank_bits: RankBits::Sixteen, ..convert::Options::default() };
            let converted = convert::convert(&model, Some(&data), &options, &Silent).expect("it converts");
            let [dsp, helium] = [Core::CortexM4, Core::CortexM55]
                .map(|core| converted.blob_for(core).expect("it is laid out"));
            blobs.push(dsp);
            if int8 {
                blobs.push(helium);
            }
        }
    }
    blobs
}

/// [`blobs`] with a first byte for each of this machine's backends.
pub fn host_blobs() -> Vec<Vec<u8>> {
    let blobs = blobs();
    let backends = 0..host::backends().len();
    let prefixed = |choice: usize| {
        blobs.iter().map(move |blob| once(choice as u8).chain(blob.iter().copied()).collect())
    };
    backends.flat_map(prefixed).collect()
}

/// Memory at a multiple of 64.
struct Buffer(Vec<u8>, usize);

impl Buffer {
    fn new(length: usize) -> Self {
        Self(vec![0x5A; length + 64], length)
    }

    fn get(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(64);
        &mut self.0[start..start + self.1]
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Makes length and structure checksum fit the rest, where there is enough of it.
pub fn repair(bytes: &mut [u8]) {
    let length = bytes.len() as u32;
    let Some(field) = bytes.get_mut(16..24) else { return };
    field[..4].copy_from_slice(&length.to_le_bytes());
    field[4..].fill(0);
    let Some(crc) = structure_crc(bytes) else { return };
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the checksum of the weights fit them, and that of the structure with it, where all sections are there.
pub fn repair_weights(bytes: &mut [u8]) {
    let Some(crc) = weights_crc(bytes) else { return };
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    repair(bytes);
}

fn weights_crc(bytes: &[u8]) -> Option<u32> {
    let sections = usize::from(u16::from_le_bytes(bytes.get(38..40)?.try_into().ok()?));
    let table_at = u32_at(bytes, 40)?;
    let table = bytes.get(table_at..table_at + sections * SECTION_ENTRY_BYTES)?;
    let weights = table
        .chunks_exact(SECTION_ENTRY_BYTES)
        .filter(|entry| entry[..2] == (SectionKind::Weights as u16).to_le_bytes())
        .map(|entry| {
            let (at, count, stride) = (u32_at(entry, 4)?, u32_at(entry, 8)?, u32_at(entry, 12)?);
            bytes.get(at..at.checked_add(count.checked_mul(stride)?)?)
        });
    Some(crc32(&weights.collect::<Option<Vec<_>>>()?))
}

fn structure_crc(bytes: &[u8]) -> Option<u32> {
    let sections = usize::from(u16::from_le_bytes(bytes.get(38..40)?.try_into().ok()?));
    let table_at = u32_at(bytes, 40)?;
    let table = bytes.get(table_at..table_at + sections * SECTION_ENTRY_BYTES)?;
    let mut parts = vec![bytes.get(..HEADER_BYTES)?, table];
    for entry in table.chunks_exact(SECTION_ENTRY_BYTES) {
        if entry[..2] != (SectionKind::Weights as u16).to_le_bytes() {
            let (at, count, stride) = (u32_at(entry, 4)?, u32_at(entry, 8)?, u32_at(entry, 12)?);
            parts.push(bytes.get(at..at.checked_add(count.checked_mul(stride)?)?)?);
        }
    }
    Some(crc32(&parts))
}
