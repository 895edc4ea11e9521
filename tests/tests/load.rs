//! `Model::load` against damaged and hostile blobs, and sessions against wrong buffers: each class of fault has its own error, and
//! whatever is accepted runs to the end.

mod blob_bytes;

use blob_bytes::{Placed, entries, entry, put32, record, repair, structure, u32_of};
use tucano::arena::{Arena, Memory, Views};
use tucano::backend::spec::select::Isa;
use tucano::backend::{Backend, Scalar};
use tucano::blob::{
    Blob, BlobBuilder, DType, EmitError, HEADER_BYTES, InputContract, MAX_SECTIONS, Packing,
    SECTION_ENTRY_BYTES, SectionKind, Space, TensorRecord, requirements,
};
use tucano::ops::Operator;
use tucano::{Error, ErrorKind, Model, Observer, Session, Step, op_set};

/// `output = input + weight + parameter`, modulo 256, in place or not.
struct Offset;

impl Operator for Offset {
    const CODE: u16 = 0x8001;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        if step.counts() != (1, 1, 1) || step.parameters().len() != 1 {
            return Err(ErrorKind::OperandCount);
        }
        let (Some(input), Some(output)) = (step.input(0), step.output(0)) else {
            return Err(ErrorKind::Shape);
        };
        if input.dtype != DType::I8 || output.dtype != DType::I8 {
            return Err(ErrorKind::ElementType);
        }
        if input.shape != output.shape {
            return Err(ErrorKind::Shape);
        }
        match step.weight_i8(0) {
            Some(&[_]) => Ok(()),
            Some(_) => Err(ErrorKind::WeightLength),
            None => Err(ErrorKind::ElementType),
        }
    }

    fn run<B: Backend>(_: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let (&[weight], &[parameter]) = (step.weight_i8(0)?, step.parameters()) else { return None };
        let offset = weight.cast_unsigned().wrapping_add(parameter.to_le_bytes()[0]);
        let Views { inputs: [input], output, .. } = step.views(memory)?;
        if let Some(input) = input {
            output.iter_mut().zip(input).for_each(|(o, i)| *o = *i);
        }
        output.iter_mut().for_each(|value| *value = value.wrapping_add(offset));
        Some(())
    }
}

/// `output = first + second`, modulo 256, by way of the scratch, which must hold as many bytes.
struct Sum;

impl Operator for Sum {
    const CODE: u16 = 0x8002;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        let (Some(first), Some(second), Some(output)) = (step.input(0), step.input(1), step.output(0)) else {
            return Err(ErrorKind::OperandCount);
        };
        if first.shape != second.shape || first.shape != output.shape {
            return Err(ErrorKind::Shape);
        }
        if first.bytes().is_none_or(|bytes| step.scratch_bytes() < bytes) {
            return Err(ErrorKind::Scratch);
        }
        Ok(())
    }

    fn run<B: Backend>(_: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        let Views { inputs: [first, second], output, scratch } = step.views(memory)?;
        scratch.iter_mut().zip(first?.iter().zip(second?)).for_each(|(s, (a, b))| *s = a.wrapping_add(*b));
        output.iter_mut().zip(scratch).for_each(|(o, s)| *o = *s);
        Some(())
    }
}

op_set! {
    struct Ops { Offset, Sum }
}

const ELEMENTS: u32 = 24;
const ARENA: u32 = 96;
const STATE: u32 = 32;

fn tensor(space: Space, offset: u32) -> TensorRecord {
    TensorRecord {
        space,
        dtype: DType::I8,
        rank: 2,
        shape: [2, ELEMENTS / 2, 1, 1],
        offset,
        window_rows: 0,
        slack: 0,
        scale_bits: 1.0f32.to_bits(),
        zero_point: 0,
    }
}

/// input + 3 + 5 -> a (apart); a + 7 + 9 -> b (in place); b + state -> c; c + 7 + 0 -> state.
fn builder() -> BlobBuilder {
    let mut builder = BlobBuilder::new();
    let kept = builder.tensor(tensor(Space::State, 0));
    let kept_next = builder.tensor(tensor(Space::State, 0));
    let c = builder.tensor(tensor(Space::Arena, 0));
    let b = builder.tensor(tensor(Space::Arena, 32));
    let a = builder.tensor(tensor(Space::Arena, 32));
    let input = builder.tensor(tensor(Space::Arena, 0));
    builder.inputs(&[input]);
    builder.outputs(&[c]);
    let three = builder.weight(DType::I8, Packing::Rows, &[3]);
    let seven = builder.weight(DType::I8, Packing::Rows, &[7]);
    assert_eq!(builder.weight(DType::I8, Packing::Rows, &[3]), three, "identical constants are stored once");
    builder.step("first", Offset::CODE, &[input], &[a], &[three], &[5], (0, 0));
    builder.step("second\nhalf", Offset::CODE, &[a], &[b], &[seven], &[9], (0, 0));
    builder.step("sum", Sum::CODE, &[b, kept], &[c], &[], &[], (64, 24));
    builder.step("keep", Offset::CODE, &[c], &[kept_next], &[seven], &[0], (0, 0));
    let contract = InputContract { rank: 2, order: [1, 0, 2, 3], shape: [ELEMENTS / 2, 2, 1, 1] };
    builder.contract(contract);
    builder.contract(contract);
    builder.labels(&["yes".into(), "no".into()]);
    builder.model_name("sample");
    builder
}

fn sample() -> Vec<u8> {
    builder().finish(ARENA, STATE, 16).unwrap()
}

fn load_error(bytes: &[u8]) -> Option<Error> {
    Model::<Ops>::load(Placed::new(bytes).get()).err()
}

/// The error of the sample after `damage` and a repaired checksum.
fn hostile(damage: impl FnOnce(&mut Vec<u8>)) -> Option<Error> {
    let mut bytes = sample();
    damage(&mut bytes);
    repair(&mut bytes);
    load_error(&bytes)
}

fn kind_of(error: Option<Error>) -> Option<ErrorKind> {
    error.map(|error| error.kind)
}

#[derive(Default)]
struct Trace(Vec<(u16, Option<String>, Vec<u8>)>);

impl Observer for Trace {
    fn after(&mut self, step: &Step<'_>, output: &[u8]) {
        self.0.push((step.index(), step.name().map(str::to_owned), output.to_vec()));
    }
}

#[test]
fn what_is_built_is_read() {
    let placed = Placed::new(&sample());
    let blob = Blob::parse(placed.get()).unwrap();
    assert_eq!((blob.header().inputs, blob.header().outputs, blob.step_count()), (1, 1, 4));
    assert_eq!(blob.model_name(), Some("sample"));
    assert_eq!(blob.step_name(1), Some("second half"));
    assert_eq!(blob.labels().unwrap().collect::<Vec<_>>(), ["yes", "no"]);
    assert_eq!(blob.contract(1).unwrap().order, [1, 0, 2, 3]);
    assert_eq!(blob.contract(2), None);
    assert_eq!(blob.constant_bytes(), 2);
    blob.verify_weights().unwrap();
    let model = Model::<Ops>::load(placed.get()).unwrap();
    assert_eq!(model.input(0), Some(tensor(Space::Arena, 0)));
    assert_eq!((model.input(1), model.output(1)), (None, None));
    assert_eq!(model.steps().map(|step| step.op()).collect::<Vec<_>>(), [0x8001, 0x8001, 0x8002, 0x8001]);
    assert_eq!(sample(), sample(), "the same calls give the same bytes");
}

#[test]
fn bytes_behind_the_blob_are_ignored() {
    let mut bytes = sample();
    bytes.extend_from_slice(b"left over in flash");
    assert_eq!(load_error(&bytes), None);
}

#[test]
fn requirements_need_no_alignment() {
    let bytes = sample();
    let placed = Placed::shifted(&bytes, 3);
    let needs = requirements(placed.get()).unwrap();
    assert_eq!((needs.header.arena_bytes, needs.header.state_bytes, needs.header.align), (ARENA, STATE, 16));
    assert_eq!(needs.operations().collect::<Vec<_>>(), [0x8001, 0x8001, 0x8002, 0x8001]);
    assert_eq!(kind_of(requirements(&bytes[..63]).err()), Some(ErrorKind::Truncated));
}

#[test]
fn a_session_runs_keeps_state_and_shows_each_step() {
    let placed = Placed::new(&sample());
    let model = Model::<Ops>::load(placed.get()).unwrap();
    let session = Session::new(&model, Scalar);
    let mut arena = Arena::<{ ARENA as usize }>::new();
    let mut state = Arena::<{ STATE as usize }>::new();
    session.input_mut(&mut arena, 0).unwrap().fill(1);
    let mut trace = Trace::default();
    session.run_observed(&mut arena, &mut state, &mut trace).unwrap();
    let outputs: Vec<&[u8]> = trace.0.iter().map(|(.., output)| output.as_slice()).collect();
    assert_eq!(outputs, [1 + 8, 9 + 16, 25, 25 + 7].map(|value| [value; ELEMENTS as usize]));
    assert_eq!((trace.0[2].0, trace.0[2].1.as_deref()), (2, Some("sum")));
    assert_eq!(session.output(&arena, 0).unwrap(), [25; ELEMENTS as usize]);

    // Step by step, with the state that the first run left.
    session.input_i8_mut(&mut arena, 0).unwrap().fill(1);
    let mut cursor = session.start();
    let mut steps = 0;
    while session.step(&mut cursor, &mut arena, &mut state).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 4);
    assert_eq!(session.output_i8(&arena, 0).unwrap(), [25 + 32; ELEMENTS as usize]);
}

#[test]
fn wrong_buffers_are_refused() {
    let placed = Placed::new(&sample());
    let model = Model::<Ops>::load(placed.get()).unwrap();
    let session = Session::new(&model, Scalar);
    let (mut arena, mut state) = (Arena::<112>::new(), Arena::<48>::new());
    let error = |kind, value| Error { kind, step: Error::NOWHERE, op: 0, value };
    let small = error(ErrorKind::ArenaTooSmall, ARENA);
    assert_eq!(session.run(&mut arena[..95], &mut state), Err(small));
    assert_eq!(session.input_mut(&mut arena[..95], 0).err(), Some(small));
    assert_eq!(session.output(&arena[..95], 0).err(), Some(small));
    let misaligned = error(ErrorKind::ArenaAlignment, 16);
    assert_eq!(session.run(&mut arena[8..], &mut state), Err(misaligned));
    assert_eq!(session.input_mut(&mut arena[1..], 0).err(), Some(misaligned));
    assert_eq!(session.run(&mut arena, &mut []), Err(error(ErrorKind::StateTooSmall, STATE)));
    assert_eq!(session.run(&mut arena, &mut state[4..]), Err(error(ErrorKind::StateAlignment, 16)));
    let none = error(ErrorKind::NoSuchTerminal, 1);
    assert_eq!(session.input_mut(&mut arena, 1).err(), Some(none));
    assert_eq!(session.output(&arena, 1).err(), Some(none));
    let wrong = error(ErrorKind::TerminalType, DType::I8 as u32);
    assert_eq!(session.input_f32_mut(&mut arena, 0).err(), Some(wrong));
    assert_eq!(session.output_f32(&arena, 0).err(), Some(wrong));
    assert_eq!(session.run(&mut arena, &mut state), Ok(()));
}

/// Bytes that are taken for the sample, by its fingerprint.
fn known_error(bytes: &[u8]) -> Option<ErrorKind> {
    let sample = Placed::new(&sample());
    let fingerprint = Blob::parse(sample.get()).unwrap().fingerprint();
    kind_of(Model::<Ops>::load_known(Placed::new(bytes).get(), &fingerprint).err())
}

#[test]
fn a_known_blob_runs_without_validation() {
    let mut bytes = sample();
    bytes.extend_from_slice(b"left over in flash");
    let placed = Placed::new(&bytes);
    let validated = Model::<Ops>::load(placed.get()).unwrap();
    let fingerprint = validated.blob().fingerprint();
    assert_eq!(fingerprint.length as usize, sample().len());
    assert_eq!(fingerprint.structure as usize, record(&bytes, SectionKind::Contracts, 2));
    let known = Model::<Ops>::load_known(placed.get(), &fingerprint).unwrap();
    assert_eq!(known.blob().fingerprint(), fingerprint);
    assert_eq!(known.blob().header(), validated.blob().header());
    assert_eq!(known.blob().model_name(), Some("sample"));
    assert_eq!(known.blob().labels().unwrap().collect::<Vec<_>>(), ["yes", "no"]);
    let traces = [&validated, &known].map(|model| {
        let (mut arena, mut state) = (Arena::<{ ARENA as usize }>::new(), Arena::<{ STATE as usize }>::new());
        let session = Session::new(model, Scalar);
        (0..).zip(session.input_mut(&mut arena, 0).unwrap()).for_each(|(value, byte)| *byte = value);
        let mut trace = Trace::default();
        for _ in 0..2 {
            session.run_observed(&mut arena, &mut state, &mut trace).unwrap();
        }
        (trace.0, session.output(&arena, 0).unwrap().to_vec())
    });
    assert_eq!(traces[0], traces[1]);
    assert_eq!(traces[0].0.len(), 8);
}

#[test]
fn what_is_not_the_known_blob_is_refused() {
    assert_eq!(known_error(&sample()), None);
    // Each bit but those of weights and of the bytes between them, checksum repaired or not.
    let weights = record(&sample(), SectionKind::Weights, 0);
    let structure = record(&sample(), SectionKind::Contracts, 2);
    for bit in 0..8 * structure {
        let mut bytes = sample();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(known_error(&bytes), Some(ErrorKind::Fingerprint), "bit {bit}");
        if u32_of(&bytes, 40) < bytes.len() {
            repair(&mut bytes);
            let unchanged = bytes == sample();
            assert_eq!(known_error(&bytes), (!unchanged).then_some(ErrorKind::Fingerprint), "bit {bit}");
        }
    }
    for length in 0..sample().len() {
        assert_eq!(known_error(&sample()[..length]), Some(ErrorKind::Fingerprint), "{length} bytes");
    }
    let mut other = builder();
    other.model_name("other");
    assert_eq!(known_error(&other.finish(ARENA, STATE, 16).unwrap()), Some(ErrorKind::Fingerprint));
    let other = Placed::shifted(&sample(), 4);
    let fingerprint = Blob::parse(Placed::new(&sample()).get()).unwrap().fingerprint();
    let error = Blob::known(other.get(), &fingerprint).unwrap_err();
    assert_eq!((error.kind, error.value), (ErrorKind::BlobAlignment, 4));

    // Damage of weights is for their own checksum.
    let mut bytes = sample();
    bytes[weights] ^= 1;
    assert_eq!(known_error(&bytes), None);
    let placed = Placed::new(&bytes);
    let model = Model::<Ops>::load_known(placed.get(), &fingerprint).unwrap();
    assert_eq!(kind_of(model.blob().verify_weights().err()), Some(ErrorKind::WeightsChecksum));
}

#[test]
fn a_misaligned_blob_is_refused() {
    for shift in 1..16 {
        let error = Model::<Ops>::load(Placed::shifted(&sample(), shift).get()).err().unwrap();
        assert_eq!((error.kind, error.value), (ErrorKind::BlobAlignment, shift as u32));
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert_eq!(kind_of(load_error(&bytes[..length])), Some(ErrorKind::Truncated), "{length} bytes");
        // With a length field that claims to be whole, the table or the sections tell, whatever the checksum.
        let mut shorter = bytes[..length].to_vec();
        if length >= HEADER_BYTES {
            put32(&mut shorter, 16, length as u32);
            let table = u32_of(&bytes, 40) + entries(&bytes).len() * SECTION_ENTRY_BYTES;
            let expected = if length < table { ErrorKind::Header } else { ErrorKind::Section };
            assert_eq!(kind_of(load_error(&shorter)), Some(expected), "{length} bytes");
            repair(&mut shorter);
            assert_eq!(kind_of(load_error(&shorter)), Some(expected), "{length} bytes");
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let good = sample();
    let structure = structure(&good);
    let weights = record(&good, SectionKind::Weights, 0)..good.len();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let covered = (20..24).contains(&at) || structure.iter().any(|range| range.contains(&at));
            let table = entries(&good)[0]..entries(&good)[0] + entries(&good).len() * SECTION_ENTRY_BYTES;
            let found = kind_of(load_error(&bytes));
            // What the header and the table say wrongly is refused by itself, before the checksum is computed along them.
            if matches!(found, Some(ErrorKind::Header)) {
                assert!((36..HEADER_BYTES).contains(&at), "byte {at} bit {bit}");
                continue;
            }
            if matches!(found, Some(ErrorKind::Section | ErrorKind::UnknownSection)) {
                let shorter = (16..20).contains(&at) && u32_of(&bytes, 16) < good.len();
                assert!(shorter || (38..44).contains(&at) || table.contains(&at), "byte {at} bit {bit}");
                continue;
            }
            let expected = match at {
                0..4 => Some(ErrorKind::Magic),
                4..6 => Some(ErrorKind::Version),
                8..16 => Some(ErrorKind::Feature),
                16..20 if u32_of(&bytes, 16) > good.len() => Some(ErrorKind::Truncated),
                _ => covered.then_some(ErrorKind::StructureChecksum),
            };
            assert_eq!(found, expected, "byte {at} bit {bit}");
            if weights.contains(&at) {
                let placed = Placed::new(&bytes);
                let error = Blob::parse(placed.get()).unwrap().verify_weights();
                assert_eq!(kind_of(error.err()), Some(ErrorKind::WeightsChecksum), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let header = |at: usize, value: &[u8]| {
        kind_of(hostile(|bytes| bytes[at..at + value.len()].copy_from_slice(value)))
    };
    assert_eq!(header(4, &[2, 0]), Some(ErrorKind::Version));
    assert_eq!(header(6, &[9, 0]), None, "a later minor version is read");
    assert_eq!(header(15, &[0x80]), Some(ErrorKind::Feature));
    for align in [[0, 0], [2, 0], [12, 0], [128, 0], [0, 1]] {
        assert_eq!(header(36, &align), Some(ErrorKind::Header), "alignment {align:?}");
    }
    assert_eq!(header(38, &[65, 0]), Some(ErrorKind::Header), "too many sections");
    assert_eq!(header(40, &[66, 0, 0, 0]), Some(ErrorKind::Header), "table unaligned");
    assert_eq!(header(40, &[48, 0, 0, 0]), Some(ErrorKind::Header), "table on the header");
    assert_eq!(header(40, &[0xFC, 0xFF, 0xFF, 0xFF]), Some(ErrorKind::Header), "table near 2^32");
    assert_eq!(header(63, &[1]), Some(ErrorKind::Header), "reserved");
    assert_eq!(header(44, &[0xFF, 0xFF]), Some(ErrorKind::Terminal), "inputs");
    assert_eq!(header(46, &[0xFF, 0xFF]), Some(ErrorKind::Terminal), "outputs");
    assert_eq!(header(28, &[0; 4]), Some(ErrorKind::Tensor), "tensors outside a smaller arena");
    assert_eq!(header(32, &[0; 4]), Some(ErrorKind::Tensor), "tensors outside a smaller state");
}

#[test]
fn records_of_later_versions_are_read_up_to_a_stride_of_16_bits() {
    // The records of a section moved to the blob's end, with zeros behind each.
    let stretched = |kind: SectionKind, stride: usize| {
        let mut bytes = sample();
        let at = entry(&bytes, kind);
        let [start, count, own] = [4, 8, 12].map(|field| u32_of(&bytes, at + field));
        let place = bytes.len().next_multiple_of(16);
        let records: Vec<Vec<u8>> =
            bytes[start..start + count * own].chunks(own).map(<[u8]>::to_vec).collect();
        bytes.resize(place + count * stride, 0);
        for (k, record) in records.iter().enumerate() {
            bytes[place + k * stride..][..own].copy_from_slice(record);
        }
        put32(&mut bytes, at + 4, place as u32);
        put32(&mut bytes, at + 12, stride as u32);
        let length = bytes.len() as u32;
        put32(&mut bytes, 16, length);
        repair(&mut bytes);
        bytes
    };
    for kind in [SectionKind::Tensors, SectionKind::WeightRecords, SectionKind::Steps] {
        for stride in [64, 1 << 15, (1 << 16) - 4] {
            let placed = Placed::new(&stretched(kind, stride));
            let model = Model::<Ops>::load(placed.get()).unwrap();
            let (mut arena, mut state) =
                (Arena::<{ ARENA as usize }>::new(), Arena::<{ STATE as usize }>::new());
            let session = Session::new(&model, Scalar);
            session.input_mut(&mut arena, 0).unwrap().fill(1);
            session.run(&mut arena, &mut state).unwrap();
            assert_eq!(session.output(&arena, 0).unwrap(), [25; ELEMENTS as usize], "{kind:?} {stride}");
        }
        for stride in [66, (1 << 16) - 1, 1 << 16, (1 << 16) + 64, 1 << 17] {
            let error = load_error(&stretched(kind, stride));
            assert_eq!(kind_of(error), Some(ErrorKind::Section), "{kind:?} {stride}");
        }
    }
}

/// Portable code that a firmware does not link for integer layers.
#[derive(Clone, Copy)]
struct Unlinked;

impl Backend for Unlinked {
    const NAME: &'static str = "unlinked";
    const ISA: Isa = Isa::ThumbDsp;
    const KERNELS: Option<&'static [&'static str]> = Some(&["strips"]);
}

/// An operator that no linked kernel takes.
struct Unable;

impl Operator for Unable {
    const CODE: u16 = Offset::CODE;
    const IN_PLACE: bool = true;

    fn check(step: &Step<'_>) -> Result<(), ErrorKind> {
        Offset::check(step)
    }

    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()> {
        if step.index() == 1 { None } else { Offset::run(backend, step, memory) }
    }
}

op_set! {
    struct SomeOps { Unable, Sum }
}

#[test]
fn a_step_that_no_linked_kernel_takes_ends_the_run() {
    let placed = Placed::new(&sample());
    let model = Model::<SomeOps>::load(placed.get()).unwrap();
    let (mut arena, mut state) = (Arena::<{ ARENA as usize }>::new(), Arena::<{ STATE as usize }>::new());
    let error = |kind| Error { kind, step: 1, op: Offset::CODE, value: 0 };
    let result = Session::new(&model, Unlinked).run(&mut arena, &mut state);
    assert_eq!(result, Err(error(ErrorKind::NotLinked)));
    // Where portable code is linked no step that was accepted may fail.
    let result = Session::new(&model, Scalar).run(&mut arena, &mut state);
    assert_eq!(result, Err(error(ErrorKind::Internal)));
}

#[test]
fn hostile_sections_are_refused() {
    let field = |kind: SectionKind, at: usize, value: u32| {
        kind_of(hostile(|bytes| {
            let at = entry(bytes, kind) + at;
            put32(bytes, at, value);
        }))
    };
    let start = |kind| record(&sample(), kind, 0) as u32;
    let refused = Some(ErrorKind::Section);
    assert_eq!(field(SectionKind::Tensors, 4, start(SectionKind::Tensors) + 4), refused, "unaligned");
    assert_eq!(field(SectionKind::Tensors, 4, 0xFFFF_FFF0), refused, "near 2^32");
    assert_eq!(field(SectionKind::Tensors, 4, 48), refused, "on the header");
    assert_eq!(field(SectionKind::Steps, 4, 64), refused, "on the section table");
    assert_eq!(field(SectionKind::Operands, 4, start(SectionKind::Steps)), refused, "on another section");
    assert_eq!(field(SectionKind::Steps, 8, 5000), refused, "too many records");
    assert_eq!(field(SectionKind::Steps, 8, u32::MAX), refused, "2^32 - 1 records");
    assert_eq!(field(SectionKind::Steps, 12, u32::MAX), refused, "stride 2^32 - 1");
    assert_eq!(field(SectionKind::Tensors, 12, 39), refused, "stride too small");
    assert_eq!(field(SectionKind::Tensors, 12, 0), refused, "stride 0");
    assert_eq!(field(SectionKind::Parameters, 12, 8), refused, "an array with gaps");
    assert_eq!(field(SectionKind::Labels, 16, 1), refused, "reserved");
    // The kind in the low half, the critical mark in the high half.
    assert_eq!(field(SectionKind::Labels, 0, 77), None, "unknown but optional");
    assert_eq!(field(SectionKind::Labels, 0, 77 | 1 << 16), Some(ErrorKind::UnknownSection));
    assert_eq!(field(SectionKind::Labels, 0, 8 | 2 << 16), refused, "neither critical nor optional");
    assert_eq!(field(SectionKind::Labels, 0, 10), refused, "text is no region");
    assert_eq!(
        field(SectionKind::Labels, 0, 11 | 1 << 16),
        Some(ErrorKind::UnknownSection),
        "golden vectors are reserved"
    );
    assert_eq!(field(SectionKind::Labels, 0, 7), refused, "names twice");
    assert_eq!(field(SectionKind::Operands, 0, 77), Some(ErrorKind::Terminal), "operands missing");
    assert_eq!(field(SectionKind::Tensors, 0, 77), Some(ErrorKind::Terminal), "tensors missing");
    assert_eq!(field(SectionKind::Weights, 0, 77), Some(ErrorKind::Weight), "weights missing");
}

#[test]
fn hostile_tensors_are_refused() {
    let field = |at: usize, bytes: &[u8]| {
        hostile(|blob| {
            let at = record(blob, SectionKind::Tensors, 1) + at;
            blob[at..at + bytes.len()].copy_from_slice(bytes);
        })
    };
    let refused = Some(Error { kind: ErrorKind::Tensor, step: Error::NOWHERE, op: 0, value: 1 });
    assert_eq!(field(0, &[2]), refused, "reserved space");
    assert_eq!(field(0, &[9]), refused, "unknown space");
    assert_eq!(field(1, &[0]), refused, "unknown type");
    assert_eq!(field(1, &[5]), refused, "reserved type");
    assert_eq!(field(2, &[0]), refused, "no axes");
    assert_eq!(field(2, &[5]), refused, "five axes");
    assert_eq!(field(2, &[1]), refused, "an unused axis longer than 1");
    assert_eq!(field(3, &[1]), refused, "reserved byte");
    assert_eq!(field(4, &[0; 4]), refused, "empty axis");
    assert_eq!(field(4, &[0xFF; 8]), refused, "more than 2^32 bytes");
    assert_eq!(field(4, &[0, 0, 0, 0x80]), refused, "2^31 rows");
    assert_eq!(field(20, &[0xF0, 0xFF, 0xFF, 0xFF]), refused, "offset near 2^32");
    assert_eq!(field(20, &[80, 0, 0, 0]), refused, "end beyond the arena");
    assert_eq!(field(20, &[36, 0, 0, 0]), refused, "unaligned");
    assert_eq!(field(24, &[1, 0]), refused, "row windows");
    assert_eq!(field(26, &[41, 0]), refused, "slack beyond the arena");
    assert_eq!(field(26, &[40, 0]), None, "slack up to the end of the arena");
    assert_eq!(field(28, &[0; 4]), refused, "scale 0");
    assert_eq!(field(28, &[0, 0, 0x80, 0xBF]), refused, "scale -1");
    assert_eq!(field(28, &[0, 0, 0x80, 0x7F]), refused, "scale infinity");
    assert_eq!(field(28, &[0, 0, 0xC0, 0x7F]), refused, "scale NaN");
    assert_eq!(field(32, &[128, 0, 0, 0]), refused, "zero point beyond i8");
    assert_eq!(field(36, &[1]), refused, "a view of tensor 0, which has other bytes");
    assert_eq!(field(36, &[2]), refused, "a view of itself");
    assert_eq!(field(36, &[3]), refused, "a view of tensor 2, which has its bytes but stands behind it");
    assert_eq!(field(36, &[0xFF; 4]), refused, "a view of no tensor");
}

#[test]
fn hostile_weights_are_refused() {
    let field = |at: usize, value: u32| {
        hostile(|blob| {
            let at = record(blob, SectionKind::WeightRecords, 1) + at;
            put32(blob, at, value);
        })
    };
    let refused = Some(Error { kind: ErrorKind::Weight, step: Error::NOWHERE, op: 0, value: 1 });
    assert_eq!(field(0, 1 | 1 << 24), refused, "no such section");
    assert_eq!(field(0, 0xFF << 16 | 1 << 24), refused, "unknown packing");
    assert_eq!(field(0, 1 << 16 | 3 << 24), refused, "packed words");
    assert_eq!(field(0, 9 << 24), refused, "unknown type");
    assert_eq!(field(0, 3 << 24), refused, "four bytes an element pass the section");
    assert_eq!(field(4, 32), refused, "offset beyond the section");
    assert_eq!(field(4, 8), refused, "unaligned");
    assert_eq!(field(4, 0xFFFF_FFF0), refused, "offset near 2^32");
    assert_eq!(field(8, 2), refused, "end beyond the section");
    assert_eq!(field(8, u32::MAX), refused, "2^32 - 1 elements");
    assert_eq!(field(12, 1), refused, "slack beyond the section");
    assert_eq!(field(12, u32::MAX), refused, "slack 2^32 - 1");
}

#[test]
fn hostile_steps_are_refused() {
    let patch = |step: usize, at: usize, bytes: &[u8]| {
        kind_of(hostile(|blob| {
            let at = record(blob, SectionKind::Steps, step) + at;
            blob[at..at + bytes.len()].copy_from_slice(bytes);
        }))
    };
    assert_eq!(patch(0, 0, &[3, 0x80]), Some(ErrorKind::UnknownOperator));
    assert_eq!(patch(0, 2, &[1]), Some(ErrorKind::Step), "nesting");
    assert_eq!(patch(0, 3, &[5]), Some(ErrorKind::OperandCount), "more inputs than views can be given of");
    assert_eq!(patch(0, 4, &[0]), Some(ErrorKind::OperandCount), "no output");
    assert_eq!(patch(0, 5, &[0]), Some(ErrorKind::OperandCount), "no weight");
    assert_eq!(patch(3, 5, &[200]), Some(ErrorKind::Step), "weights behind the operand section");
    assert_eq!(patch(0, 6, &[2, 0]), Some(ErrorKind::OperandCount), "one parameter too many");
    assert_eq!(patch(0, 6, &[0xFF, 0xFF]), Some(ErrorKind::Step), "parameters behind their section");
    assert_eq!(patch(0, 8, &[0xFF; 4]), Some(ErrorKind::Step), "operands at 2^32 - 1");
    assert_eq!(patch(0, 12, &[0xFF; 4]), Some(ErrorKind::Step), "parameters at 2^32 - 1");
    assert_eq!(patch(2, 16, &[0xF0, 0xFF, 0xFF, 0xFF]), Some(ErrorKind::Scratch), "scratch near 2^32");
    assert_eq!(patch(2, 16, &[68, 0, 0, 0]), Some(ErrorKind::Scratch), "unaligned scratch");
    assert_eq!(patch(2, 20, &[33, 0, 0, 0]), Some(ErrorKind::Scratch), "scratch passes the arena");
    assert_eq!(patch(2, 20, &[23, 0, 0, 0]), Some(ErrorKind::Scratch), "the operator needs more");
    assert_eq!(patch(2, 16, &[48, 0, 0, 0]), Some(ErrorKind::Overlap), "scratch on the first input");
    assert_eq!(patch(2, 16, &[16, 0, 0, 0]), Some(ErrorKind::Overlap), "scratch on the output");
}

#[test]
fn hostile_operands_are_refused() {
    // Operands: input, c; input, a, three; a, b, seven; b, state, c; c, state, seven. Tensors: input a b c state state.
    let operand = |index: usize, value: u16| {
        hostile(|blob| {
            let at = record(blob, SectionKind::Operands, index);
            blob[at..at + 2].copy_from_slice(&value.to_le_bytes());
        })
    };
    let at = |kind, step, op, value| Some(Error { kind, step, op, value });
    assert_eq!(operand(0, 1), at(ErrorKind::Terminal, Error::NOWHERE, 0, 0), "graph input k is tensor k");
    assert_eq!(operand(1, 4), at(ErrorKind::Terminal, Error::NOWHERE, 0, 1), "a graph output in the state");
    assert_eq!(operand(1, 600), at(ErrorKind::Terminal, Error::NOWHERE, 0, 1), "no such tensor");
    assert_eq!(operand(2, 2), at(ErrorKind::Operand, 0, 0x8001, 2), "read before it is written");
    assert_eq!(
        operand(2, 3),
        at(ErrorKind::Operand, 0, 0x8001, 3),
        "the bytes of the input, but no view of it"
    );
    assert_eq!(operand(3, 2), at(ErrorKind::Operand, 0, 0x8001, 2), "written out of order");
    assert_eq!(operand(3, 0), at(ErrorKind::Operand, 0, 0x8001, 0), "the graph input written");
    assert_eq!(operand(4, 2), at(ErrorKind::Operand, 0, 0x8001, 2), "no such weight");
    assert_eq!(operand(5, 600), at(ErrorKind::Operand, 1, 0x8001, 600), "no such tensor");
    assert_eq!(
        operand(8, 0),
        at(ErrorKind::Overlap, 2, 0x8002, 0),
        "output on an input of an operator not in place"
    );
    assert_eq!(operand(9, 0), at(ErrorKind::Overlap, 2, 0x8002, 0), "output on the second input");
    assert_eq!(operand(11, 0), None, "reads bytes that were written again since: wrong, but safe");
}

#[test]
fn partial_overlap_is_refused_even_in_place() {
    // b moves by 16 bytes: it half covers a.
    let shifted = hostile(|blob| {
        let at = record(blob, SectionKind::Tensors, 2) + 20;
        put32(blob, at, 48);
    });
    assert_eq!(shifted, Some(Error { kind: ErrorKind::Overlap, step: 1, op: 0x8001, value: 1 }));
    // The sum reads a and, 16 bytes behind it, b, which the second step now writes from the graph input.
    let crossing = hostile(|blob| {
        let at = record(blob, SectionKind::Tensors, 2) + 20;
        put32(blob, at, 48);
        let at = record(blob, SectionKind::Operands, 5);
        blob[at..at + 2].copy_from_slice(&0u16.to_le_bytes());
        let at = record(blob, SectionKind::Operands, 9);
        blob[at..at + 2].copy_from_slice(&1u16.to_le_bytes());
        let at = record(blob, SectionKind::Steps, 2) + 20;
        put32(blob, at, 0);
    });
    assert_eq!(crossing, Some(Error { kind: ErrorKind::Overlap, step: 2, op: 0x8002, value: 1 }));
}

#[test]
fn a_view_is_read_under_its_own_shape() {
    let mut builder = builder();
    let flat =
        builder.tensor(TensorRecord { rank: 1, shape: [ELEMENTS, 1, 1, 1], ..tensor(Space::Arena, 32) });
    let end =
        builder.tensor(TensorRecord { rank: 1, shape: [ELEMENTS, 1, 1, 1], ..tensor(Space::Arena, 64) });
    builder.step("flat", Offset::CODE, &[flat], &[end], &[0], &[0], (0, 0));
    let good = builder.finish(ARENA, STATE, 16).unwrap();
    assert_eq!(load_error(&good), None);
    // The view is the last tensor, of tensor 1. One element less, other bytes, or another tensor named, and it is a view of nothing.
    for (field, value) in [(4, ELEMENTS - 1), (20, 64), (36, 1)] {
        let mut bytes = good.clone();
        let at = record(&bytes, SectionKind::Tensors, 7) + field;
        put32(&mut bytes, at, value);
        repair(&mut bytes);
        assert_eq!(
            load_error(&bytes),
            Some(Error { kind: ErrorKind::Tensor, step: Error::NOWHERE, op: 0, value: 7 })
        );
    }
    let mut bytes = good;
    let at = record(&bytes, SectionKind::Tensors, 7) + 36;
    put32(&mut bytes, at, 0);
    repair(&mut bytes);
    assert_eq!(load_error(&bytes), Some(Error { kind: ErrorKind::Operand, step: 4, op: 0x8001, value: 7 }));
}

/// 65535 sections of a megabyte each, all on the same bytes: their checksum would take minutes.
#[test]
fn overlapping_sections_cost_nothing() {
    let table = usize::from(u16::MAX) * SECTION_ENTRY_BYTES;
    for sections in [u16::MAX, MAX_SECTIONS] {
        let mut bytes = sample()[..HEADER_BYTES].to_vec();
        bytes.resize((HEADER_BYTES + table).next_multiple_of(16), 0);
        bytes[38..40].copy_from_slice(&sections.to_le_bytes());
        let body = bytes.len() as u32;
        for place in 0..usize::from(sections) {
            let at = HEADER_BYTES + place * SECTION_ENTRY_BYTES;
            for (field, value) in [(0, SectionKind::Labels as u32), (4, body), (8, 1 << 20), (12, 1)] {
                put32(&mut bytes, at + field, value);
            }
        }
        bytes.resize(bytes.len() + (1 << 20), 0);
        let length = bytes.len() as u32;
        put32(&mut bytes, 16, length);
        let started = std::time::Instant::now();
        let expected = if sections > MAX_SECTIONS { ErrorKind::Header } else { ErrorKind::Section };
        assert_eq!(kind_of(load_error(&bytes)), Some(expected));
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}

#[test]
fn a_program_without_the_operators_refuses() {
    op_set! {
        struct OnlyOffset { Offset }
    }
    let error = Model::<OnlyOffset>::load(Placed::new(&sample()).get()).err().unwrap();
    assert_eq!((error.kind, error.step, error.op), (ErrorKind::UnknownOperator, 2, Sum::CODE));
    assert!(error.to_string().contains("op_set!"), "{error}");
}

#[test]
fn the_builder_refuses_what_has_no_place() {
    let finish = |builder: BlobBuilder| builder.finish(ARENA, STATE, 16).err();
    let mut twice = builder();
    twice.step("again", Offset::CODE, &[5], &[4], &[0], &[0], (0, 0));
    assert_eq!(finish(twice), Some(EmitError::WrittenTwice { step: "again".into(), tensor: 4 }));
    let mut unwritten = builder();
    let loose = unwritten.tensor(tensor(Space::Arena, 64));
    let next = unwritten.tensor(tensor(Space::Arena, 0));
    unwritten.step("loose", Offset::CODE, &[loose], &[next], &[0], &[0], (0, 0));
    assert_eq!(finish(unwritten), Some(EmitError::Operand { step: "loose".into(), operand: loose }));
    let mut weightless = builder();
    let next = weightless.tensor(tensor(Space::Arena, 0));
    weightless.step("weightless", Offset::CODE, &[2], &[next], &[9], &[0], (0, 0));
    assert_eq!(finish(weightless), Some(EmitError::Operand { step: "weightless".into(), operand: 9 }));
    let mut contracts = builder();
    contracts.contract(InputContract { rank: 1, order: [0, 1, 2, 3], shape: [24, 1, 1, 1] });
    assert_eq!(finish(contracts), Some(EmitError::Contracts { expected: 2, given: 3 }));
}
