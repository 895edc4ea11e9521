//! A blob's bytes as a test sees them: placed in memory, taken apart without the reader under test, checksum repaired.

#![allow(dead_code, reason = "each test uses its part")]

use tucano::blob::{HEADER_BYTES, SECTION_ENTRY_BYTES, SectionKind, crc32};

/// A copy of a blob, `shift` bytes beyond a multiple of 16.
pub struct Placed {
    words: Vec<u128>,
    shift: usize,
    length: usize,
}

impl Placed {
    pub fn new(bytes: &[u8]) -> Self {
        Self::shifted(bytes, 0)
    }

    pub fn shifted(bytes: &[u8], shift: usize) -> Self {
        let mut padded = vec![0; shift];
        padded.extend_from_slice(bytes);
        padded.resize((padded.len() + 1).next_multiple_of(16), 0);
        let words = padded.as_chunks().0.iter().map(|&chunk| u128::from_le_bytes(chunk)).collect();
        Self { words, shift, length: bytes.len() }
    }

    pub fn get(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[self.shift..self.shift + self.length]
    }
}

pub fn u16_of(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_of(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Offsets of the section table's entries, found without the reader under test.
pub fn entries(bytes: &[u8]) -> Vec<usize> {
    (0..usize::from(u16_of(bytes, 38))).map(|k| u32_of(bytes, 40) + k * SECTION_ENTRY_BYTES).collect()
}

pub fn entry(bytes: &[u8], kind: SectionKind) -> usize {
    entries(bytes).into_iter().find(|&at| u16_of(bytes, at) == kind as u16).unwrap()
}

/// Offset of record `index` of a section.
pub fn record(bytes: &[u8], kind: SectionKind, index: usize) -> usize {
    let entry = entry(bytes, kind);
    u32_of(bytes, entry + 4) + index * u32_of(bytes, entry + 12)
}

/// The byte ranges that the structure's checksum covers, in order. Those out of bounds are left out, as a reader does.
pub fn structure(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = vec![0..20, 24..HEADER_BYTES];
    let table = u32_of(bytes, 40);
    let table = table..table.saturating_add(usize::from(u16_of(bytes, 38)) * SECTION_ENTRY_BYTES);
    if bytes.get(table.clone()).is_none() {
        return ranges;
    }
    ranges.push(table);
    for at in entries(bytes) {
        let length = u32_of(bytes, at + 8).saturating_mul(u32_of(bytes, at + 12));
        let start = u32_of(bytes, at + 4);
        let range = start..start.saturating_add(length);
        if u16_of(bytes, at) != SectionKind::Weights as u16 && bytes.get(range.clone()).is_some() {
            ranges.push(range);
        }
    }
    ranges
}

pub fn repair(bytes: &mut [u8]) {
    let ranges = structure(bytes);
    let mut parts = vec![&bytes[0..20], &[0; 4]];
    parts.extend(ranges[1..].iter().map(|range| &bytes[range.clone()]));
    let crc = crc32(&parts);
    put32(bytes, 20, crc);
}
