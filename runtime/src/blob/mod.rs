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
//! # Section table, 20 bytes a section, at most [`MAX_SECTIONS`]
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
//! A section is *records times stride* bytes. Sections overlap neither each other nor the header nor the table. Each kind stands
//! at most once, but for [`SectionKind::Weights`], which may stand several times (one for each memory that holds weights); a section
//! that is missing has no records. Records: [`TensorRecord`], [`WeightRecord`], [`StepRecord`], [`RegionRecord`], [`InputContract`]; their stride is
//! the bytes of the record or, of later versions, a greater multiple of 4 below 2^16. Operands are `u16` (stride 2), parameters are `u32` words laid out by the operator ([`crate::ops`],
//! stride 4); weights, names and labels are bytes (stride 1).
//!
//! # How it runs
//!
//! Steps run in order, those of a [region](RegionRecord) in turns. A step's operands stand one after the other in the operand section: indices of its input tensors, of its one
//! output tensor (both into the tensor section) and of its weights (into the weight-record section). The first operands of that
//! section are the graph inputs, then the graph outputs: tensors in [`Space::Arena`].
//!
//! Tensors are numbered by first writing: the graph inputs are tensors 0, 1, ... in order, and each step whose output lies in the arena writes
//! the next number. So a step reads an arena tensor only after it was written, and no tensor is written twice. Tensors in
//! [`Space::State`] stand behind all of them; a step may read one that no step has written: it holds what the last run left.
//! Last stand *views*: tensors of the same space, offset, bytes and element type as one that was written before, under another
//! shape. Each names the one that it shows (the first, if several have that place), which stands before it. Steps that come after that one was
//! written may read the view, and graph outputs may be views, but no step writes one.
//!
//! Several tensors may use the same bytes one after the other. A step's output must not overlap its inputs, but for
//! operators that work in place ([`crate::ops`]): there it may be exactly the bytes of the first input. Its scratch overlaps neither.
//! Offsets of tensors and of non-empty scratch are divisible by the header's alignment.

mod crc;
#[cfg(feature = "host")]
mod emit;
mod packing;
mod parse;
mod record;
pub mod winograd;

pub use crc::crc32;
#[cfg(feature = "host")]
pub use emit::{BlobBuilder, EmitError};
pub use packing::{Matrix, folded_bias, is_narrow, unfolded_bias};
#[cfg(feature = "host")]
pub use parse::Layout;
pub use parse::{Blob, Fingerprint, Header, Requirements, Section, requirements};
pub use record::{
    DType, InputContract, Packing, RegionRecord, SectionKind, Space, StepRecord, TensorRecord, WeightRecord,
};
pub(crate) use record::{TensorWords, product};

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
/// Most sections a blob can have.
pub const MAX_SECTIONS: u16 = 64;
/// Most axes a tensor can have.
pub const MAX_RANK: usize = 4;
/// All bits of *required features* that this reader knows.
pub const KNOWN_FEATURES: u64 = 0;
