//! Mutates sound files and feeds them to the fuzz targets: two seconds each, or `TUCANO_FUZZ_SECONDS`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use tucano_tests::fuzz;

/// A small generator: same sequence everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() % end.max(1)
    }
}

/// Bytes and words that tend to matter.
const TELLING: [u32; 12] =
    [0, 1, 2, 16, 127, 128, 255, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];

fn mutate(random: &mut Random, seeds: &[Vec<u8>], structure: usize) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        // Half of the changes go where the structure is.
        let reach = if random.below(2) == 0 { bytes.len().min(structure) } else { bytes.len() };
        let at = random.below(reach);
        let telling = TELLING[random.below(TELLING.len())];
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = telling as u8,
            2 => {
                let word = at & !3;
                if let Some(slot) = bytes.get_mut(word..word + 4) {
                    slot.copy_from_slice(&telling.to_le_bytes());
                }
            }
            3 if random.below(8) == 0 => bytes.truncate(at),
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let length =
                    (1 + random.below(64)).min(other.len() - from).min(bytes.len() - at.min(bytes.len()));
                bytes[at..at + length].copy_from_slice(&other[from..from + length]);
            }
            5 if at < bytes.len() => {
                bytes[at] = bytes[at].wrapping_add(random.below(3) as u8).wrapping_sub(1)
            }
            _ => bytes.insert(at, telling as u8),
        }
    }
    bytes
}

fn fuzz(name: &str, seeds: &[Vec<u8>], structure: usize, target: fn(&[u8])) {
    assert!(!seeds.is_empty(), "no seeds for `{name}`");
    let seconds = std::env::var("TUCANO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    seeds.iter().for_each(|seed| target(seed));
    let mut executions = 0u64;
    while Instant::now() < end {
        let bytes = mutate(&mut random, seeds, structure);
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}.bin"));
            std::fs::write(&path, &bytes).expect("the culprit can be kept");
            panic!("`{name}` failed after {executions} executions; the input is {}", path.display());
        }
        executions += 1;
    }
    println!("fuzz `{name}`: {executions} executions in {seconds} s from {} seeds", seeds.len());
    assert!(executions > 0);
}

fn models(extension: &str, largest: u64) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(tucano_tests::models())
        .expect("tests/models is there")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| path.metadata().is_ok_and(|data| data.len() <= largest))
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable model")).collect()
}

#[test]
fn importer() {
    fuzz("import", &models("onnx", 120_000), 4096, fuzz::import);
}

#[test]
fn npz_reader() {
    fuzz("npz", &models("npz", 200_000), 512, fuzz::npz);
}

#[test]
fn host_backends() {
    fuzz("host", &fuzz::host_blobs(), 8192, fuzz::host);
}

#[test]
fn blob_loader_and_run() {
    fuzz("blob", &fuzz::blobs(), 8192, fuzz::blob);
}
