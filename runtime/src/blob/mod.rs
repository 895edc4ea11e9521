//! The blob: one file that holds a compressed network. **This page is the format's specification**, version 1.0.
//!
//! All numbers are little-endian. Offsets count bytes from the start of the blob, which must lie at an address divisible by
//! [`BLOB_ALIGN`]. A reader refuses a major version other than its own and every bit of *required features* that it does
//! not know; a higher minor version only appends sections, or fields to the end of records (each section states the *stride* of
//! its records, and a reader ignores what lies behind the fields that it knows).
//!
//! # Header, 64 bytes
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | `[u8; 4]` | [`MAGIC`] |
//! | 4 | `u16` | major version, [`MAJOR`] |
//! | 6 | `u16` | minor version, [`MINOR`] |
//! | 8 | `u64` | required features; none is defined in 1.0 |
//! | 16 | `u32` | length of the blob in bytes |
//! | 20 | `u32` | CRC-32 (IEEE 802.3, reflected) of the *structure*: the header with this field as 0, the section table, and every section that is not [`SectionKind::Weights`], in table order |
//! | 24 | `u32` | CRC-32 of all sections of kind [`SectionKind::Weights`], in table order; checked only on request |
//! | 28 | `u32` | arena bytes |
//! | 32 | `u32` | state bytes |
//! | 36 | `u16` | alignment of arena and state in bytes, a power of two, at most 64 |
//! | 38 | `u16` | number of sections |
//! | 40 | `u32` | offset of the section table, divisible by 4 |
//! | 44 | `u16` | number of graph inputs |
//! | 46 | `u16` | number of graph outputs |
//! | 48 | `[u8; 16]` | zero |
//!
//! # Section table, 20 bytes a section
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | `u16` | kind, see [`SectionKind`] |
//! | 2 | `u16` | 1 if a reader that does not know the kind must refuse the blob, else 0 |
//! | 4 | `u32` | offset of the first record, divisible by 16 |
//! | 8 | `u32` | number of records |
//! | 12 | `u32` | stride: bytes from one record to the next |
//! | 16 | `u32` | zero |
//!
//! Sections do not overlap. Each kind stands at most once, but for [`SectionKind::Weights`], which may stand several times (one
//! for each memory that holds weights). Records: [`TensorRecord`], [`WeightRecord`], [`StepRecord`]; operands are `u16`, parameters
//! are `u32` words laid out by the operator ([`crate::ops`]); weights and names are bytes.
//!
//! # How it runs
//!
//! Steps run in order. A step's operands are, one after the other, indices of its input tensors, its output tensors (both into
//! the tensor section) and its weights (into the weight-record section). Graph inputs and outputs are the first operands of the
//! operand section: all inputs, then all outputs.

mod emit;
mod parse;
mod record;

pub use emit::{BlobBuilder, crc32_of};
pub use parse::{Blob, Section};
pub use record::{DType, InputContract, Packing, SectionKind, Space, StepRecord, TensorRecord, WeightRecord};

/// First four bytes of a blob.
pub const MAGIC: [u8; 4] = *b"TUCA";
/// A reader refuses any other.
pub const MAJOR: u16 = 1;
/// A reader accepts any.
pub const MINOR: u16 = 0;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an entry of the section table.
pub const SECTION_ENTRY_BYTES: usize = 20;
/// Alignment of a blob in memory, and of each section in it.
pub const BLOB_ALIGN: usize = 16;
/// Most axes a tensor can have.
pub const MAX_RANK: usize = 4;
/// All bits of *required features* that this reader knows.
pub const KNOWN_FEATURES: u64 = 0;
