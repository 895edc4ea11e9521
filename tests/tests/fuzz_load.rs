//! Mutates blobs that use every operator, field by field, repairs the checksum, and runs what `Model::load` accepts: it must end
//! without an error. `TUCANO_FUZZ_SECONDS` lengthens it.

mod blob_bytes;
#[path = "../../boards/qemu/src/rounds.rs"]
mod rounds;

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use blob_bytes::{Placed, record, repair, structure};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tucano::backend::Scalar;
use tucano::backend::spec::select::Isa;
use tucano::blob::{BlobBuilder, DType, Fingerprint, Packing, SectionKind, Space, TensorRecord, crc32};
use tucano::ops::OpCode;
use tucano::{AllOps, Model, Session, host};
use tucano_tests::fuzz::{host_blob, repair_weights};

const I8_BOUNDS: [u32; 2] = [-128i32 as u32, 127];
const I16_BOUNDS: [u32; 2] = [-32768i32 as u32, 32767];
const HALF: i32 = 1 << 30;

/// A program in which each tensor has bytes of its own.
struct Net {
    builder: BlobBuilder,
    end: u32,
    last: u16,
}

impl Net {
    fn new(dtype: DType, shape: &[u32]) -> Self {
        let mut net = Self { builder: BlobBuilder::new(), end: 0, last: 0 };
        net.last = net.tensor(dtype, shape, 1.0 / 16.0, 0);
        net.builder.inputs(&[net.last]);
        net
    }

    fn tensor(&mut self, dtype: DType, axes: &[u32], scale: f32, zero_point: i32) -> u16 {
        let mut shape = [1; 4];
        shape[..axes.len()].copy_from_slice(axes);
        let (scale, zero_point) = if dtype == DType::F32 { (1.0, 0) } else { (scale, zero_point) };
        let tensor = TensorRecord {
            space: Space::Arena,
            dtype,
            rank: axes.len() as u8,
            shape,
            offset: self.end,
            window_rows: 0,
            slack: 0,
            scale_bits: scale.to_bits(),
            zero_point,
        };
        self.end = (self.end + tensor.bytes().unwrap() as u32).next_multiple_of(16);
        self.builder.tensor(tensor)
    }

    fn integers(&mut self, weights: u32, outputs: u32) -> Vec<u16> {
        self.integers_of(DType::I8, Packing::Rows, weights, outputs)
    }

    /// For inner products of `depth` weights.
    fn packed(&mut self, packing: Packing, depth: u32, outputs: u32) -> Vec<u16> {
        let bytes = packing.bytes(outputs as usize, depth as usize).unwrap();
        self.integers_of(DType::I8, packing, bytes as u32, outputs)
    }

    /// With `bytes` bytes of weights of a type.
    fn integers_of(&mut self, dtype: DType, packing: Packing, bytes: u32, outputs: u32) -> Vec<u16> {
        let words = |value: i32| -> Vec<u8> { (0..outputs).flat_map(|_| value.to_le_bytes()).collect() };
        let bytes: Vec<u8> = (0..bytes).map(|k| (k * 37 % 255) as u8).collect();
        let weights = self.builder.weight(dtype, packing, &bytes);
        let mut add = |dtype, bytes: &[u8]| self.builder.weight(dtype, Packing::Rows, bytes);
        vec![
            weights,
            add(DType::I32, &words(100)),
            add(DType::I32, &words(HALF)),
            add(DType::I32, &words(-6)),
        ]
    }

    fn floats(&mut self, weights: u32, outputs: u32) -> Vec<u16> {
        let values =
            |count: u32| -> Vec<u8> { (0..count).flat_map(|k| (k as f32 * 0.01).to_le_bytes()).collect() };
        let (weights, bias) = (values(weights), values(outputs));
        vec![
            self.builder.weight(DType::F32, Packing::Rows, &weights),
            self.builder.weight(DType::F32, Packing::Rows, &bias),
        ]
    }

    fn step(&mut self, op: OpCode, inputs: &[u16], output: u16, weights: &[u16], parameters: &[u32]) {
        self.builder.step("step", op, inputs, &[output], weights, parameters, (0, 0));
        self.last = output;
    }

    /// A step from the last tensor to a new one.
    fn then(&mut self, op: OpCode, dtype: DType, shape: &[u32], weights: &[u16], parameters: &[u32]) {
        let (input, output) = (self.last, self.tensor(dtype, shape, 1.0 / 16.0, 0));
        self.step(op, &[input], output, weights, parameters);
    }

    /// A step whose output replaces the last tensor, an image, and whose scratch holds as much.
    fn replacing(&mut self, op: OpCode, shape: &[u32], weights: &[u16], parameters: &[u32]) {
        let bytes = shape.iter().product::<u32>().next_multiple_of(16);
        let scratch = (self.end, bytes);
        self.end = scratch.0 - bytes;
        let output = self.tensor(DType::I8, shape, 1.0 / 16.0, 0);
        self.end = scratch.0 + bytes;
        self.builder.step("step", op, &[self.last], &[output], weights, parameters, scratch);
        self.last = output;
    }

    fn finish(mut self) -> Vec<u8> {
        self.builder.outputs(&[self.last]);
        self.builder.finish(self.end, 0, 16).unwrap()
    }
}

fn window(kernel: u32, pad: u32, groups: u32, bounds: [u32; 2]) -> Vec<u32> {
    vec![1, 1, pad, pad, pad, pad, 1, 1, kernel, kernel, groups, bounds[0], bounds[1]]
}

fn pool(stride: u32, bounds: [u32; 2]) -> Vec<u32> {
    vec![stride, stride, 0, 0, 0, 0, 2, 2, 0, bounds[0], bounds[1]]
}

fn integer_net() -> Vec<u8> {
    let image = [1, 6, 6, 4];
    let mut net = Net::new(DType::I8, &image);
    let input = net.last;
    let weights = net.integers(4 * 9 * 2, 4);
    net.then(OpCode::Conv2dI8, DType::I8, &image, &weights, &window(3, 1, 2, I8_BOUNDS));
    let weights = net.integers(9 * 4, 4);
    net.then(OpCode::DepthwiseConv2dI8, DType::I8, &image, &weights, &window(3, 1, 4, I8_BOUNDS));
    let weights = net.integers_of(DType::I4x2, Packing::Rows, 4 * 9, 4);
    net.then(OpCode::Conv2dI4, DType::I8, &image, &weights, &window(3, 1, 2, I8_BOUNDS));
    let (first, sum) = (net.last, net.tensor(DType::I8, &image, 1.0 / 16.0, 0));
    let [low, high] = I8_BOUNDS;
    let add = [20, HALF as u32, 0, HALF as u32, 0, HALF as u32, -18i32 as u32, low, high];
    net.step(OpCode::AddI8, &[first, input], sum, &[], &add);
    let weights = net.packed(Packing::PairQuads, 36, 4);
    net.replacing(OpCode::Conv2dI8, &image, &weights, &window(3, 1, 1, I8_BOUNDS));
    let weights = net.integers(9 * 4, 4);
    net.replacing(OpCode::DepthwiseConv2dI8, &image, &weights, &window(3, 1, 4, I8_BOUNDS));
    let weights = net.packed(Packing::Pairs, 4, 4);
    net.replacing(OpCode::Conv2dI8, &image, &weights, &window(1, 0, 1, I8_BOUNDS));
    let weights = net.packed(Packing::Blocks8x16, 4, 4);
    net.then(OpCode::Conv2dI16, DType::I16, &image, &weights, &window(1, 0, 1, I16_BOUNDS));
    let weights = net.integers(9 * 4, 4);
    net.then(OpCode::DepthwiseConv2dI16, DType::I16, &image, &weights, &window(3, 1, 4, I16_BOUNDS));
    let weights = net.packed(Packing::Blocks4x16, 4, 4);
    net.then(OpCode::DenseI16, DType::I8, &image, &weights, &I8_BOUNDS);
    net.then(OpCode::MaxPool2dI8, DType::I8, &[1, 3, 3, 4], &[], &pool(2, I8_BOUNDS));
    net.then(OpCode::AveragePool2dI8, DType::I8, &[1, 2, 2, 4], &[], &pool(1, I8_BOUNDS));
    let (image, mean) = (net.last, net.tensor(DType::I8, &[1, 1, 1, 4], 1.0 / 64.0, 5));
    let [low, high] = I8_BOUNDS;
    net.step(OpCode::Mean2dI8, &[image], mean, &[], &[HALF as u32, -1i32 as u32, low, high]);
    net.last = image;
    net.then(OpCode::PermuteI8, DType::I8, &[1, 4, 2, 2], &[], &[0, 3, 1, 2]);
    let table: Vec<u8> = (0..=255).collect();
    let table = net.builder.weight(DType::I8, Packing::Rows, &table);
    net.then(OpCode::TableI8, DType::I8, &[1, 4, 2, 2], &[table], &[]);
    let weights = net.packed(Packing::Columns8, 2, 3);
    net.then(OpCode::DenseI8, DType::I8, &[1, 4, 2, 3], &weights, &I8_BOUNDS);
    let weights = net.integers_of(DType::I4x2, Packing::Rows, 2 * 3, 3);
    net.then(OpCode::DenseI4, DType::I8, &[1, 4, 2, 3], &weights, &I8_BOUNDS);
    let (input, output) = (net.last, net.tensor(DType::I8, &[1, 4, 2, 3], 1.0 / 256.0, -128));
    net.step(OpCode::SoftmaxI8, &[input], output, &[], &[HALF as u32, 22, -31i32 as u32]);
    net.finish()
}

fn float_net() -> Vec<u8> {
    let bounds = [f32::NEG_INFINITY.to_bits(), f32::INFINITY.to_bits()];
    let image = [1, 6, 6, 4];
    let mut net = Net::new(DType::F32, &image);
    let input = net.last;
    let weights = net.floats(4 * 9 * 2, 4);
    net.then(OpCode::Conv2dF32, DType::F32, &image, &weights, &window(3, 1, 2, bounds));
    let weights = net.floats(9 * 4, 4);
    net.then(OpCode::DepthwiseConv2dF32, DType::F32, &image, &weights, &window(3, 1, 4, bounds));
    for op in [OpCode::AddF32, OpCode::MulF32] {
        let (first, result) = (net.last, net.tensor(DType::F32, &image, 1.0, 0));
        net.step(op, &[first, input], result, &[], &bounds);
    }
    net.then(OpCode::MaxPool2dF32, DType::F32, &[1, 3, 3, 4], &[], &pool(2, bounds));
    net.then(OpCode::AveragePool2dF32, DType::F32, &[1, 2, 2, 4], &[], &pool(1, bounds));
    net.then(OpCode::PermuteF32, DType::F32, &[1, 4, 2, 2], &[], &[0, 3, 1, 2]);
    for kind in 0..4 {
        let limits = [(-1e3f32).to_bits(), 1e3f32.to_bits()];
        net.then(OpCode::UnaryF32, DType::F32, &[1, 4, 2, 2], &[], &[kind, limits[0], limits[1]]);
    }
    let weights = net.floats(3 * 2, 3);
    net.then(OpCode::DenseF32, DType::F32, &[1, 4, 2, 3], &weights, &bounds);
    net.then(OpCode::SoftmaxF32, DType::F32, &[1, 4, 2, 3], &[], &[]);
    net.finish()
}

/// Writes one field: `region` chooses what part of the blob, `place` the field in it, `width` its bytes.
#[derive(Clone, Debug)]
struct Mutation {
    region: prop::sample::Index,
    place: prop::sample::Index,
    width: usize,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Is(u32),
    Moves(i32),
    CopyOf(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let edges =
        [0, 1, 2, 3, 4, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];
    let value = prop_oneof![
        prop::sample::select(edges.to_vec()).prop_map(Value::Is),
        any::<u32>().prop_map(Value::Is),
        (-17i32..=17).prop_map(Value::Moves),
        any::<prop::sample::Index>().prop_map(Value::CopyOf),
    ];
    let width = prop::sample::select(vec![1usize, 2, 4, 4]);
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), width, value)
        .prop_map(|(region, place, width, value)| Mutation { region, place, width, value })
}

fn mutate(bytes: &mut [u8], mutations: &[Mutation]) {
    let mut regions = structure(bytes);
    regions.push(record(bytes, SectionKind::Weights, 0)..bytes.len());
    for mutation in mutations {
        let region = regions[mutation.region.index(regions.len())].clone();
        let fields = region.len() / mutation.width;
        if fields == 0 {
            continue;
        }
        let at = |place: &prop::sample::Index| region.start + place.index(fields) * mutation.width;
        let field = |at: usize| {
            let mut word = [0; 4];
            word[..mutation.width].copy_from_slice(&bytes[at..at + mutation.width]);
            u32::from_le_bytes(word)
        };
        let target = at(&mutation.place);
        let value = match &mutation.value {
            Value::Is(value) => *value,
            Value::Moves(by) => field(target).wrapping_add_signed(*by),
            Value::CopyOf(place) => field(at(place)),
        };
        bytes[target..target + mutation.width].copy_from_slice(&value.to_le_bytes()[..mutation.width]);
    }
    repair(bytes);
}

/// Runs on every backend of this machine: an error where portable code has one, the same bytes of integers.
fn execute_on_host(bytes: &[u8]) {
    let mut blob = bytes.to_vec();
    repair_weights(&mut blob);
    for choice in 0..host::backends().len() {
        host_blob(&blob, choice);
    }
}

/// Loads, and runs what is accepted. `None`: refused.
fn execute(bytes: &[u8]) -> Option<Result<(), TestCaseError>> {
    let placed = Placed::new(bytes);
    let model = Model::<AllOps>::load(placed.get()).ok()?;
    if model.arena_bytes() + model.state_bytes() > 1 << 20 {
        return Some(Ok(()));
    }
    let mut arena = vec![0u128; model.arena_bytes().div_ceil(16) + 4];
    let mut state = vec![0u128; model.state_bytes().div_ceil(16) + 4];
    let [arena, state] = [&mut arena, &mut state].map(|words| {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
        let start = bytes.as_ptr().align_offset(64);
        &mut bytes[start..]
    });
    let arena = &mut arena[..model.arena_bytes()];
    let session = Session::new(&model, Scalar);
    for k in 0..model.inputs() {
        let input = session.input_mut(arena, k).unwrap();
        (0..).zip(input).for_each(|(at, byte): (u32, _)| *byte = (at * 91).to_be_bytes()[2]);
    }
    let begin = Instant::now();
    if let Err(error) = session.run(arena, state) {
        return Some(Err(TestCaseError::fail(format!("accepted, but: {error}"))));
    }
    for k in 0..model.outputs() {
        session.output(arena, k).unwrap();
    }
    let slow = begin.elapsed() > Duration::from_secs(5);
    Some(if slow { Err(TestCaseError::fail("a small blob that runs for seconds")) } else { Ok(()) })
}

/// Runs a blob that nothing has validated, with a fingerprint that was forged for it. `true`: it ran to the end. Whatever the end is, no byte outside of
/// the arena and the state is written.
fn execute_unvalidated(bytes: &[u8], structure: usize) -> Result<bool, TestCaseError> {
    const LIMIT: usize = 1 << 16;
    let placed = Placed::new(bytes);
    let crc = crc32(&[&bytes[..structure]]);
    let fingerprint = Fingerprint { length: bytes.len() as u32, structure: structure as u32, crc };
    let model = Model::<AllOps>::load_known(placed.get(), &fingerprint).unwrap();
    if rounds::of_model(&model) > 1 << 20 {
        return Ok(false);
    }
    // A run refuses buffers that are shorter than the header says.
    let mut buffers = [model.arena_bytes(), model.state_bytes()].map(|bytes| Guarded::new(bytes.min(LIMIT)));
    let [arena, state] = buffers.each_mut().map(Guarded::get);
    let session = Session::new(&model, Scalar);
    for k in 0..model.inputs().min(4) {
        if let Ok(input) = session.input_mut(arena, k) {
            (0..).zip(input).for_each(|(at, byte): (u32, _)| *byte = (at * 91).to_be_bytes()[2]);
        }
    }
    let begin = Instant::now();
    let ran = session.run(arena, state).is_ok();
    if begin.elapsed() > Duration::from_secs(5) {
        return Err(TestCaseError::fail("a small blob that runs for seconds"));
    }
    for k in 0..model.outputs().min(4) {
        let _ = session.output(arena, k);
    }
    for step in model.steps() {
        let _ = (step.name(), step.parameters(), step.in_place(), step.selection(Isa::ThumbDsp));
    }
    prop_assert!(buffers.iter().all(Guarded::is_whole), "bytes outside of arena and state are written");
    Ok(ran)
}

/// Memory at a multiple of 64, between bytes that nothing may write.
struct Guarded {
    all: Vec<u8>,
    bytes: Range<usize>,
}

impl Guarded {
    const GUARD: usize = 256;

    fn new(bytes: usize) -> Self {
        let all = vec![0x5A; bytes + 2 * Self::GUARD + 64];
        let start = Self::GUARD + all.as_ptr().align_offset(64);
        Self { all, bytes: start..start + bytes }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.all[self.bytes.clone()]
    }

    fn is_whole(&self) -> bool {
        let (before, behind) = (&self.all[..self.bytes.start], &self.all[self.bytes.end..]);
        before.iter().chain(behind).all(|&byte| byte == 0x5A)
    }
}

#[test]
fn every_operator_is_in_the_seeds_and_runs() {
    let mut codes = Vec::new();
    for seed in [integer_net(), float_net()] {
        let placed = Placed::new(&seed);
        let model = Model::<AllOps>::load(placed.get()).unwrap_or_else(|error| panic!("{error}"));
        codes.extend(model.steps().map(|step| step.op()));
        execute(&seed).unwrap().unwrap();
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 25, "operation codes: {codes:04x?}");
}

/// Hands mutated seeds to `judge`, which says whether it took one, until the time is over. Gives how many there were, and how many were taken.
fn for_mutants(seeds: &[Vec<u8>], judge: impl Fn(usize, &[u8]) -> Result<bool, TestCaseError>) -> (u64, u64) {
    let seconds = std::env::var("TUCANO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let strategy = (0..seeds.len(), prop::collection::vec(mutation(), 1..5));
    let (executions, accepted) = (Cell::new(0u64), Cell::new(0u64));
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    let begin = Instant::now();
    // Each round has a seed of its own, so that a failure comes again.
    for round in 0u64.. {
        if begin.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&round.to_le_bytes());
        let mut runner =
            TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let result = runner.run(&strategy, |(seed, mutations)| {
            let mut bytes = seeds[seed].clone();
            mutate(&mut bytes, &mutations);
            executions.set(executions.get() + 1);
            accepted.set(accepted.get() + u64::from(judge(seed, &bytes)?));
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    (executions.get(), accepted.get())
}

#[test]
fn what_is_accepted_runs() {
    let (executions, accepted) = for_mutants(&[integer_net(), float_net()], |_, bytes| {
        let Some(result) = execute(bytes) else { return Ok(false) };
        result?;
        execute_on_host(bytes);
        Ok(true)
    });
    println!("{executions} executions, {accepted} accepted and run");
    assert!(accepted > 0 && accepted < executions);
}

#[test]
fn what_nothing_has_validated_stays_in_its_memory() {
    let seeds = [integer_net(), float_net()];
    // Weights stand last.
    let structures = seeds.each_ref().map(|seed| record(seed, SectionKind::Weights, 0));
    for (seed, &structure) in seeds.iter().zip(&structures) {
        assert!(execute_unvalidated(seed, structure).unwrap(), "the unchanged seed does not run");
    }
    let (executions, ran) = for_mutants(&seeds, |seed, bytes| execute_unvalidated(bytes, structures[seed]));
    println!("{executions} executions, {ran} of them to the end");
    assert!(ran > 0 && ran < executions);
}
