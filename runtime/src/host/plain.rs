//! Packed weights back in plain order: a host's kernels read that fastest, whatever core a blob was packed for.
//!
//! Takes a loaded model; gives a blob of the same steps with plain weights and biases in a further weight section. Constants that steps share stay
//! as they are: each step that had packed weights gets operands and weight records of its own. The layer's result keeps its bits, for the
//! accumulator is the same modulo 2^32.

use crate::backend::spec::select::Request;
use crate::blob::{
    BLOB_ALIGN, DType, HEADER_BYTES, Packing, SECTION_ENTRY_BYTES, SectionKind, StepRecord, WeightRecord,
    crc32, unfolded_bias,
};
use crate::ops::OpCode;
use crate::{AllOps, Model, Step};

/// A section of the new blob.
struct Section {
    kind: u16,
    critical: u16,
    stride: u32,
    bytes: Vec<u8>,
}

/// The blob with plain weights; `None` if all are plain, or if the format has no room for more.
pub fn plain(model: &Model<'_, AllOps>) -> Option<Vec<u8>> {
    let blob = model.blob();
    let packed: Vec<(Step<'_>, Request)> = model
        .steps()
        .filter_map(|step| {
            Some((step, Request::of(&step).filter(|request| request.packing != Packing::Rows)?))
        })
        .collect();
    if packed.is_empty() {
        return None;
    }
    let mut sections = Vec::new();
    for section in blob.sections() {
        sections.push(Section {
            kind: section.kind,
            critical: section.critical,
            stride: section.stride,
            bytes: section.bytes(blob.bytes())?.to_vec(),
        });
    }
    let weight_sections =
        sections.iter().filter(|section| section.kind == SectionKind::Weights as u16).count();
    let section = u16::try_from(weight_sections).ok()?;
    let [records, steps, operands] = [SectionKind::WeightRecords, SectionKind::Steps, SectionKind::Operands]
        .map(|kind| sections.iter().position(|section| section.kind == kind as u16));
    let (records, steps, operands) = (records?, steps?, operands?);
    let mut data = Vec::new();
    for (step, request) in packed {
        let (inputs, outputs, weights) = step.counts();
        let (plain, bias) = unpack(&step, &request)?;
        let mut add = |dtype: DType, bytes: &[u8]| {
            data.resize(data.len().next_multiple_of(BLOB_ALIGN), 0);
            let record = WeightRecord {
                section,
                packing: Packing::Rows,
                dtype,
                offset: u32::try_from(data.len()).ok()?,
                elements: u32::try_from(bytes.len() / dtype.bytes()).ok()?,
                slack: 0,
            };
            data.extend_from_slice(bytes);
            append(&mut sections[records], &record.emit())
        };
        let own =
            [add(DType::I8, bytemuck::cast_slice(&plain))?, add(DType::I32, bytemuck::cast_slice(&bias))?];
        let tensors = (0..inputs).map(|k| step.input_id(k)).chain((0..outputs).map(|k| step.output_id(k)));
        let constants = own.into_iter().map(Some).chain((own.len()..weights).map(|k| step.weight_id(k)));
        let first = u32::try_from(sections[operands].bytes.len() / 2).ok()?;
        for operand in tensors.chain(constants) {
            sections[operands].bytes.extend_from_slice(&operand?.to_le_bytes());
        }
        let at = usize::from(step.index()) * sections[steps].stride as usize;
        let place = sections[steps].bytes.get_mut(at..at + StepRecord::BYTES)?;
        let given = blob.step(step.index())?;
        let op = if request.packing == Packing::Winograd { OpCode::Conv2dI8.into() } else { given.op };
        let record = StepRecord { op, operands_at: first, ..given };
        place.copy_from_slice(&record.emit());
    }
    sections.push(Section { kind: SectionKind::Weights as u16, critical: 1, stride: 1, bytes: data });
    assemble(blob.bytes(), &sections)
}

/// Plain weights and biases of a step.
fn unpack(step: &Step<'_>, request: &Request) -> Option<(Vec<i8>, Vec<i32>)> {
    let (stored, folded) = (step.weight_i8(0)?, step.weight_i32(1)?);
    let matrix = request.linear.matrix()?;
    let (outputs, depth) = (request.linear.outputs(), matrix.depth);
    let zero_point = step.input(0)?.zero_point;
    let mut weights = Vec::with_capacity(outputs * depth);
    let mut biases = Vec::with_capacity(outputs);
    for (o, &bias) in folded.iter().enumerate() {
        for k in 0..depth {
            weights.push(matrix.any_weight(request.packing, stored, o, k)?);
        }
        biases.push(unfolded_bias(weights[o * depth..].iter().copied(), zero_point, bias));
    }
    Some((weights, biases))
}

/// Adds a record; gives its index.
fn append(section: &mut Section, record: &[u8]) -> Option<u16> {
    let (stride, end) = (section.stride as usize, section.bytes.len());
    section.bytes.extend_from_slice(record);
    section.bytes.resize(end + stride, 0);
    u16::try_from(end / stride).ok().filter(|index| *index < u16::MAX)
}

/// Sections one after the other behind the header of `source`.
fn assemble(source: &[u8], sections: &[Section]) -> Option<Vec<u8>> {
    let mut bytes = source.get(..HEADER_BYTES)?.to_vec();
    bytes.resize(HEADER_BYTES + sections.len() * SECTION_ENTRY_BYTES, 0);
    let mut table = Vec::new();
    for section in sections {
        bytes.resize(bytes.len().next_multiple_of(BLOB_ALIGN), 0);
        table.extend_from_slice(&section.kind.to_le_bytes());
        table.extend_from_slice(&section.critical.to_le_bytes());
        let count = section.bytes.len() as u32 / section.stride.max(1);
        for word in [u32::try_from(bytes.len()).ok()?, count, section.stride, 0] {
            table.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&section.bytes);
    }
    let end = HEADER_BYTES + table.len();
    bytes[HEADER_BYTES..end].copy_from_slice(&table);
    let length = u32::try_from(bytes.len()).ok()?;
    bytes[16..20].copy_from_slice(&length.to_le_bytes());
    bytes[20..24].fill(0);
    bytes[38..40].copy_from_slice(&u16::try_from(sections.len()).ok()?.to_le_bytes());
    bytes[40..44].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    let structure = |section: &&Section| section.kind != SectionKind::Weights as u16;
    let mut parts = vec![&bytes[..end]];
    parts.extend(sections.iter().filter(structure).map(|section| section.bytes.as_slice()));
    let crc = crc32(&parts);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}
