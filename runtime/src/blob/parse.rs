//! Reads a blob: header, section table, and access to records by index.
//!
//! Takes the bytes; gives a [`Blob`] whose sections lie inside it and do not overlap; refuses what the header, the table or the
//! structure's checksum show to be wrong. What records mean is judged by [`crate::Model::load`].

use core::ops::Range;

use super::crc::Crc;
use super::record::{SectionKind, TensorWords, WeightWords, product, u16_at, words_anywhere};
use super::{
    BLOB_ALIGN, HEADER_BYTES, InputContract, KNOWN_FEATURES, MAGIC, MAJOR, MAX_SECTIONS, RegionRecord,
    SECTION_ENTRY_BYTES, StepRecord, TensorRecord, WeightRecord,
};
use crate::error::{Error, ErrorKind};

/// The header's fields; see the [format](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version.
    pub major: u16,
    /// Version.
    pub minor: u16,
    /// Bits of required features.
    pub features: u64,
    /// Bytes of the blob.
    pub length: u32,
    /// Stored checksum of the structure.
    pub structure_crc: u32,
    /// Stored checksum of the weights.
    pub weights_crc: u32,
    /// Bytes of working memory.
    pub arena_bytes: u32,
    /// Bytes that survive from run to run.
    pub state_bytes: u32,
    /// Alignment of both.
    pub align: u16,
    /// Number of sections.
    pub sections: u16,
    /// Offset of the section table.
    pub table_at: u32,
    /// Number of graph inputs.
    pub inputs: u16,
    /// Number of graph outputs.
    pub outputs: u16,
}

impl Header {
    /// Reads the header and judges what stands in it alone: magic, version, features, ranges.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let short = Error::new(ErrorKind::Truncated, HEADER_BYTES as u32);
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(short)?;
        let words: [u32; 12] = words_anywhere(header).ok_or(short)?;
        let [magic, ..] = words;
        if magic != u32::from_le_bytes(MAGIC) {
            return Err(Error::new(ErrorKind::Magic, 0));
        }
        let fields = Self::fields(words);
        if fields.major != MAJOR {
            return Err(Error::new(ErrorKind::Version, u32::from(fields.major)));
        }
        let unknown = fields.features & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(Error::new(ErrorKind::Feature, unknown.trailing_zeros()));
        }
        Ok(fields)
    }

    /// Of the header's words.
    fn fields(words: [u32; 12]) -> Self {
        let [_, version, low, high, length, structure_crc, weights_crc, arena_bytes, ..] = words;
        let [.., state_bytes, align, table_at, terminals] = words;
        let halves = |word: u32| (word as u16, (word >> 16) as u16);
        let ((major, minor), (align, sections), (inputs, outputs)) =
            (halves(version), halves(align), halves(terminals));
        Self {
            major,
            minor,
            features: u64::from(low) | u64::from(high) << 32,
            length,
            structure_crc,
            weights_crc,
            arena_bytes,
            state_bytes,
            align,
            sections,
            table_at,
            inputs,
            outputs,
        }
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let wrong = |offset| Err(Error::new(ErrorKind::Header, offset));
        if !self.align.is_power_of_two() || !(4..=64).contains(&self.align) {
            return wrong(36);
        }
        if self.sections > MAX_SECTIONS {
            return wrong(38);
        }
        if !self.table_at.is_multiple_of(4) || (self.table_at as usize) < HEADER_BYTES {
            return wrong(40);
        }
        match bytes.get(48..HEADER_BYTES) {
            Some(reserved) if reserved.iter().all(|&byte| byte == 0) => Ok(()),
            _ => wrong(48),
        }
    }
}

/// An entry of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Section {
    /// See [`SectionKind`].
    pub kind: u16,
    /// Whether a reader that does not know the kind must refuse the blob.
    pub critical: u16,
    /// Offset of the first record.
    pub offset: u32,
    /// Number of records.
    pub count: u32,
    /// Bytes from one record to the next.
    pub stride: u32,
    reserved: u32,
}

impl Section {
    /// Entry `place` of the table at `table_at`.
    #[inline(never)]
    fn entry(bytes: &[u8], table_at: u32, place: u16) -> Option<Self> {
        let at = (table_at as usize).checked_add(usize::from(place).wrapping_mul(SECTION_ENTRY_BYTES))?;
        let [kind, offset, count, stride, reserved] = words_anywhere(bytes.get(at..)?)?;
        Some(Self { kind: kind as u16, critical: (kind >> 16) as u16, offset, count, stride, reserved })
    }

    /// All its bytes.
    #[inline(never)]
    pub fn bytes<'m>(&self, blob: &'m [u8]) -> Option<&'m [u8]> {
        let length = product(self.count, self.stride)? as usize;
        blob.get(self.offset as usize..)?.get(..length)
    }

    /// Where it lies in the blob.
    #[inline]
    fn range(&self, blob: &[u8]) -> Option<Range<usize>> {
        let start = self.offset as usize;
        Some(start..start.wrapping_add(self.bytes(blob)?.len()))
    }

    /// Record `index`, from its first byte on. Of a section that lies in the blob, as those of a [`Blob`] do, it does not wrap; else what it
    /// gives is still bytes of the blob.
    #[inline]
    fn record<'m>(&self, blob: &'m [u8], index: u32) -> Option<&'m [u8]> {
        if index >= self.count {
            return None;
        }
        blob.get((self.offset as usize).wrapping_add((index as usize).wrapping_mul(self.stride as usize))..)
    }
}

/// Tells a blob from others by its length and the checksum of its structure: of all but what stands behind the last section that
/// holds no weights. Of two blobs with one fingerprint, one was made for that: it tells damage and mistakes, not forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes of the blob.
    pub length: u32,
    /// Bytes from its start to the end of the last section that is not [`SectionKind::Weights`].
    pub structure: u32,
    /// CRC-32 (IEEE 802.3, reflected) of those.
    pub crc: u32,
}

/// Where everything stands in a blob, without the blob.
#[cfg(feature = "host")]
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The header.
    pub header: Header,
    /// [`TensorRecord`]s.
    pub tensors: Section,
    /// [`WeightRecord`]s.
    pub weights: Section,
    /// [`StepRecord`]s.
    pub steps: Section,
    operands: Section,
    parameters: Section,
    /// [`RegionRecord`]s.
    pub regions: Section,
    /// The first one of kind [`SectionKind::Weights`].
    constants: Section,
}

/// Records of a section, in words.
#[derive(Clone, Copy, Debug, Default)]
struct Records<'m> {
    words: &'m [u32],
    /// Words from one record to the next.
    stride: usize,
    count: u32,
}

impl<'m> Records<'m> {
    #[inline(never)]
    fn new(bytes: &'m [u8], section: &Section) -> Self {
        let words = section.bytes(bytes).and_then(|bytes| bytemuck::try_cast_slice(bytes).ok());
        Self {
            words: words.unwrap_or_default(),
            stride: (section.stride >> 2) as usize,
            count: section.count,
        }
    }

    /// The first `N` words of record `index`. Of a blob that was validated strides are below 2^16, and the product does not wrap; else what it gives
    /// are still words of the section.
    #[inline]
    fn get<const N: usize>(&self, index: u16) -> Option<&'m [u32; N]> {
        self.words.get(usize::from(index).wrapping_mul(self.stride)..)?.first_chunk()
    }
}

/// The sections that are read in place.
#[derive(Clone, Copy, Debug, Default)]
struct Arrays<'m> {
    tensors: Records<'m>,
    weights: Records<'m>,
    steps: Records<'m>,
    regions: Records<'m>,
    operands: &'m [u16],
    parameters: &'m [u32],
    /// The first section of weights.
    constants: &'m [u8],
}

impl<'m> Arrays<'m> {
    /// Keeps the first section of a kind, if it is one that steps need.
    #[inline(never)]
    fn keep(&mut self, kind: SectionKind, section: &Section, blob: &'m [u8]) {
        let records = match kind {
            SectionKind::Tensors => &mut self.tensors,
            SectionKind::WeightRecords => &mut self.weights,
            SectionKind::Steps => &mut self.steps,
            SectionKind::Regions => &mut self.regions,
            _ => {
                let bytes = section.bytes(blob).unwrap_or_default();
                match kind {
                    SectionKind::Operands => {
                        self.operands = bytemuck::try_cast_slice(bytes).unwrap_or_default();
                    }
                    SectionKind::Parameters => {
                        self.parameters = bytemuck::try_cast_slice(bytes).unwrap_or_default();
                    }
                    SectionKind::Weights => self.constants = bytes,
                    _ => {}
                }
                return;
            }
        };
        *records = Records::new(blob, section);
    }
}

/// A blob whose sections lie inside it. Of those of one that was not validated ([`Blob::known`]) what does not is empty.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'m> {
    bytes: &'m [u8],
    header: Header,
    arrays: Arrays<'m>,
}

impl<'m> Blob<'m> {
    /// Reads header and section table. Bytes behind the blob's stated length are ignored, so that a memory region larger than the
    /// blob can be given.
    ///
    /// # Errors
    /// [`ErrorKind::Magic`], [`ErrorKind::Version`], [`ErrorKind::Feature`], [`ErrorKind::Truncated`],
    /// [`ErrorKind::BlobAlignment`], [`ErrorKind::Header`], [`ErrorKind::Section`], [`ErrorKind::UnknownSection`],
    /// [`ErrorKind::StructureChecksum`].
    #[inline(never)]
    pub fn parse(bytes: &'m [u8]) -> Result<Self, Error> {
        let header = Header::parse(bytes)?;
        let short = Error::new(ErrorKind::Truncated, header.length);
        let bytes = bytes.get(..header.length as usize).ok_or(short)?;
        let beyond = bytes.as_ptr().addr() % BLOB_ALIGN;
        if beyond != 0 {
            return Err(Error::new(ErrorKind::BlobAlignment, beyond as u32));
        }
        let mut blob = Self { bytes, header, arrays: Arrays::default() };
        header.check(bytes)?;
        blob.place_sections()?;
        // Few sections, none on another: the checksum costs one pass over the blob, whatever the table says.
        let computed = blob.structure_crc();
        if computed != header.structure_crc {
            return Err(Error::new(ErrorKind::StructureChecksum, computed));
        }
        Ok(blob)
    }

    /// Reads a blob that was validated before, of which `fingerprint` was taken then. Nothing is judged but that the bytes are those.
    ///
    /// # Errors
    /// [`ErrorKind::Fingerprint`], [`ErrorKind::BlobAlignment`].
    #[inline(never)]
    pub fn known(bytes: &'m [u8], fingerprint: &Fingerprint) -> Result<Self, Error> {
        let short = Error::new(ErrorKind::Fingerprint, 0);
        let bytes = bytes.get(..fingerprint.length as usize).ok_or(short)?;
        let beyond = bytes.as_ptr().addr() % BLOB_ALIGN;
        if beyond != 0 {
            return Err(Error::new(ErrorKind::BlobAlignment, beyond as u32));
        }
        let computed = fingerprint_crc(bytes, fingerprint.structure);
        let other = Error::new(ErrorKind::Fingerprint, computed);
        let words = words_anywhere(bytes).filter(|_| computed == fingerprint.crc).ok_or(other)?;
        let mut blob = Self { bytes, header: Header::fields(words), arrays: Arrays::default() };
        // The first of a kind is the one that stays.
        for place in (0..blob.header.sections).rev() {
            let found = Section::entry(bytes, blob.header.table_at, place);
            let Some(section) = found.as_ref() else { continue };
            if let Some(kind) = SectionKind::parse(section.kind) {
                blob.arrays.keep(kind, section, bytes);
            }
        }
        Ok(blob)
    }

    /// What tells this blob from others, for [`crate::Model::load_known`].
    pub fn fingerprint(&self) -> Fingerprint {
        let table = self.header.table_at as usize;
        let table_end = table.saturating_add(usize::from(self.header.sections) * SECTION_ENTRY_BYTES);
        let structural = self.sections().filter(|section| section.kind != SectionKind::Weights as u16);
        let ends = structural.filter_map(|section| section.range(self.bytes)).map(|range| range.end);
        let structure = ends.fold(table_end, usize::max) as u32;
        let crc = fingerprint_crc(self.bytes, structure);
        Fingerprint { length: self.header.length, structure, crc }
    }

    /// Puts a layout back to the bytes that it was read from. With other bytes accessors give `None` or other records, but stay
    /// safe.
    #[cfg(feature = "host")]
    pub(crate) fn from_parts(bytes: &'m [u8], layout: Layout) -> Self {
        let mut arrays = Arrays::default();
        for (kind, section) in [
            (SectionKind::Tensors, &layout.tensors),
            (SectionKind::WeightRecords, &layout.weights),
            (SectionKind::Steps, &layout.steps),
            (SectionKind::Operands, &layout.operands),
            (SectionKind::Parameters, &layout.parameters),
            (SectionKind::Regions, &layout.regions),
            (SectionKind::Weights, &layout.constants),
        ] {
            arrays.keep(kind, section, bytes);
        }
        Self { bytes, header: layout.header, arrays }
    }

    #[inline(never)]
    fn place_sections(&mut self) -> Result<(), Error> {
        let header = self.header;
        let table_at = header.table_at as usize;
        let table_end = table_at.saturating_add(usize::from(header.sections) * SECTION_ENTRY_BYTES);
        if table_end > self.bytes.len() {
            return Err(Error::new(ErrorKind::Header, 40));
        }
        let mut seen = 0u32;
        for place in 0..header.sections {
            let wrong = Error::new(ErrorKind::Section, place.into());
            let found = Section::entry(self.bytes, header.table_at, place);
            // Borrowed where it was made: it is not moved.
            let section = found.as_ref().ok_or(wrong)?;
            if !self.lies_well(section, place, table_at..table_end) {
                return Err(wrong);
            }
            let kind = SectionKind::parse(section.kind);
            if section.critical == 1 && matches!(kind, None | Some(SectionKind::Golden)) {
                return Err(Error::new(ErrorKind::UnknownSection, section.kind.into()));
            }
            let Some(kind) = kind else { continue };
            let stride = kind.record_bytes();
            // Records are read in words.
            let longer = kind.grows()
                && section.stride > stride
                && section.stride <= u16::MAX.into()
                && section.stride.is_multiple_of(4);
            let bit = 1u32 << kind as u32;
            let repeated = seen & bit != 0;
            if !(section.stride == stride || longer) || repeated && kind != SectionKind::Weights {
                return Err(wrong);
            }
            seen |= bit;
            if !repeated {
                self.arrays.keep(kind, section, self.bytes);
            }
        }
        Ok(())
    }

    /// Whether section `place` lies in the blob, aligned, apart from header, table and the sections before it.
    #[inline(never)]
    fn lies_well(&self, section: &Section, place: u16, table: Range<usize>) -> bool {
        let Some(own) = section.range(self.bytes) else { return false };
        for earlier in self.sections().take(place.into()) {
            if !earlier.range(self.bytes).is_some_and(|other| apart(&own, &other)) {
                return false;
            }
        }
        own.start.is_multiple_of(BLOB_ALIGN)
            && section.critical <= 1
            && section.reserved == 0
            && apart(&own, &(0..HEADER_BYTES))
            && apart(&own, &table)
    }

    /// The whole blob.
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where everything stands.
    #[cfg(feature = "host")]
    pub fn layout(&self) -> Layout {
        let of = |kind| self.section(kind).unwrap_or_default();
        Layout {
            header: self.header,
            tensors: of(SectionKind::Tensors),
            weights: of(SectionKind::WeightRecords),
            steps: of(SectionKind::Steps),
            operands: of(SectionKind::Operands),
            parameters: of(SectionKind::Parameters),
            regions: of(SectionKind::Regions),
            constants: of(SectionKind::Weights),
        }
    }

    /// The section table.
    pub fn sections(&self) -> impl Iterator<Item = Section> + use<'m> {
        sections(self.bytes, &self.header)
    }

    /// The first section of a kind.
    pub fn section(&self, kind: SectionKind) -> Option<Section> {
        self.sections().find(|section| section.kind == kind as u16)
    }

    /// Tensor `index`; `None` if there is none or its record is invalid.
    #[inline(never)]
    pub fn tensor(&self, index: u16) -> Option<TensorRecord> {
        TensorRecord::parse(self.tensor_words(index)?)
    }

    /// The number of the tensor that tensor `index` is a view of; `None` if it is no view.
    pub fn viewed(&self, index: u16) -> Option<u32> {
        TensorRecord::viewed(self.tensor_words(index)?)
    }

    /// Weight record `index`; `None` if there is none or it is invalid.
    #[inline(never)]
    pub fn weight(&self, index: u16) -> Option<WeightRecord> {
        WeightRecord::parse(self.weight_words(index)?)
    }

    /// The words of weight record `index`.
    #[inline]
    pub(crate) fn weight_words(&self, index: u16) -> Option<&'m WeightWords> {
        self.arrays.weights.get(index)
    }

    /// The words of the record of tensor `index`.
    #[inline]
    pub(crate) fn tensor_words(&self, index: u16) -> Option<&'m TensorWords> {
        self.arrays.tensors.get(index)
    }

    /// Step `index`; `None` if there is none or its record is invalid.
    #[inline]
    pub fn step(&self, index: u16) -> Option<StepRecord> {
        StepRecord::parse(self.arrays.steps.get(index)?)
    }

    /// Region `index`; `None` if there is none or its record is invalid.
    pub fn region(&self, index: u32) -> Option<RegionRecord> {
        RegionRecord::parse(self.arrays.regions.get(u16::try_from(index).ok()?)?)
    }

    /// The region that begins with step `first`.
    pub fn region_at(&self, first: u16) -> Option<RegionRecord> {
        let mut regions = (0..self.region_count()).map_while(|index| self.region(index));
        regions.find(|region| region.first == first)
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> u32 {
        self.arrays.tensors.count
    }

    /// Number of weight records.
    pub fn weight_count(&self) -> u32 {
        self.arrays.weights.count
    }

    /// Number of regions.
    pub fn region_count(&self) -> u32 {
        self.arrays.regions.count
    }

    /// Number of steps.
    pub fn step_count(&self) -> u32 {
        self.arrays.steps.count
    }

    /// Operand `index`, counted over all steps.
    pub fn operand(&self, index: u32) -> Option<u16> {
        self.arrays.operands.get(index as usize).copied()
    }

    /// Operands from `first` on, `count` of them where there are as many.
    #[inline]
    pub(crate) fn operands(&self, first: u32, count: usize) -> &'m [u16] {
        let rest = self.arrays.operands.get(first as usize..).unwrap_or_default();
        rest.get(..count).unwrap_or(rest)
    }

    /// `count` parameter words from `first`.
    #[inline]
    pub fn parameters(&self, first: u32, count: u16) -> Option<&'m [u32]> {
        self.arrays.parameters.get(first as usize..)?.get(..usize::from(count))
    }

    /// The bytes of a weight, without slack; `None` if it does not lie, slack included, in its section.
    pub fn weight_bytes(&self, record: &WeightRecord) -> Option<&'m [u8]> {
        let length = product(record.elements, record.dtype.bytes() as u32)? as usize;
        let rest = self.weight_section(record.section)?.get(record.offset as usize..)?;
        let (bytes, beyond) = rest.split_at_checked(length)?;
        (beyond.len() >= record.slack as usize).then_some(bytes)
    }

    /// `length` bytes from `offset` of a weight section.
    #[inline]
    pub(crate) fn constant(&self, section: u16, offset: u32, length: usize) -> Option<&'m [u8]> {
        self.weight_section(section)?.get(offset as usize..)?.get(..length)
    }

    /// A weight section; the rule is one.
    #[inline]
    fn weight_section(&self, section: u16) -> Option<&'m [u8]> {
        match section {
            0 => Some(self.arrays.constants),
            further => self.further_section(further),
        }
    }

    #[cold]
    #[inline(never)]
    fn further_section(&self, index: u16) -> Option<&'m [u8]> {
        self.weight_sections().nth(usize::from(index))?.bytes(self.bytes)
    }

    fn weight_sections(&self) -> impl Iterator<Item = Section> + use<'m> {
        self.sections().filter(|section| section.kind == SectionKind::Weights as u16)
    }

    /// Name of a step, if the blob holds names.
    pub fn step_name(&self, index: u16) -> Option<&'m str> {
        self.names()?.split('\n').take(self.arrays.steps.count as usize).nth(usize::from(index))
    }

    /// Name of the model, if the blob holds names.
    pub fn model_name(&self) -> Option<&'m str> {
        self.names()?.split('\n').nth(self.arrays.steps.count as usize)
    }

    fn names(&self) -> Option<&'m str> {
        core::str::from_utf8(self.section(SectionKind::Names)?.bytes(self.bytes)?).ok()
    }

    /// Names of the classes, if the blob holds them.
    pub fn labels(&self) -> Option<impl Iterator<Item = &'m str> + use<'m>> {
        Some(core::str::from_utf8(self.section(SectionKind::Labels)?.bytes(self.bytes)?).ok()?.lines())
    }

    /// Contract of graph input `index`, or of graph output `index - inputs`.
    pub fn contract(&self, index: u16) -> Option<InputContract> {
        InputContract::parse(self.section(SectionKind::Contracts)?.record(self.bytes, u32::from(index))?)
    }

    /// Bytes of all constants, without slack: what reports count as weights.
    pub fn constant_bytes(&self) -> u64 {
        let count = u16::try_from(self.arrays.weights.count).unwrap_or(u16::MAX);
        let records = (0..count).filter_map(|index| self.weight(index));
        records.map(|record| u64::from(record.elements) * record.dtype.bytes() as u64).sum()
    }

    #[inline(never)]
    fn structure_crc(&self) -> u32 {
        let mut crc = Crc::new();
        let header = &self.header;
        let part = |range: Range<usize>| self.bytes.get(range).unwrap_or_default();
        let table = header.table_at as usize;
        crc.add(part(0..20));
        crc.add(&[0; 4]);
        crc.add(part(24..HEADER_BYTES));
        crc.add(part(table..table.saturating_add(usize::from(header.sections) * SECTION_ENTRY_BYTES)));
        for section in self.sections() {
            if section.kind != SectionKind::Weights as u16 {
                crc.add(section.bytes(self.bytes).unwrap_or_default());
            }
        }
        crc.finish()
    }

    /// Compares the checksum of the weights.
    ///
    /// # Errors
    /// [`ErrorKind::WeightsChecksum`].
    pub fn verify_weights(&self) -> Result<(), Error> {
        let mut crc = Crc::new();
        self.weight_sections().for_each(|section| crc.add(section.bytes(self.bytes).unwrap_or_default()));
        let computed = crc.finish();
        if computed == self.header.weights_crc {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::WeightsChecksum, computed))
        }
    }
}

/// Checksum of the first `structure` bytes.
fn fingerprint_crc(bytes: &[u8], structure: u32) -> u32 {
    let mut crc = Crc::new();
    crc.add(bytes.get(..structure as usize).unwrap_or(bytes));
    crc.finish()
}

/// Whether one range ends before the other begins.
#[inline(never)]
fn apart(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.end <= b.start || b.end <= a.start
}

fn sections<'m>(bytes: &'m [u8], header: &Header) -> impl Iterator<Item = Section> + use<'m> {
    let (table_at, count) = (header.table_at, header.sections);
    (0..count).map_while(move |place| Section::entry(bytes, table_at, place))
}

/// What a blob asks of a device, read from the header and the steps alone: neither alignment nor checksum is needed, so a program
/// can look at a blob before it has a place for it.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'m> {
    /// The header: version, arena, state, alignment.
    pub header: Header,
    bytes: &'m [u8],
    steps: Section,
}

impl<'m> Requirements<'m> {
    /// Operation codes of the steps, in order, with repetitions.
    pub fn operations(&self) -> impl Iterator<Item = u16> + use<'m> {
        let (bytes, steps) = (self.bytes, self.steps);
        let section = steps.bytes(bytes).unwrap_or_default();
        (0..steps.count).map_while(move |index| {
            u16_at(section.get((index as usize).checked_mul(steps.stride as usize)?..)?, 0)
        })
    }
}

/// What a blob asks of a device.
///
/// # Errors
/// [`ErrorKind::Magic`], [`ErrorKind::Version`], [`ErrorKind::Feature`], [`ErrorKind::Truncated`].
pub fn requirements(bytes: &[u8]) -> Result<Requirements<'_>, Error> {
    let header = Header::parse(bytes)?;
    let short = Error::new(ErrorKind::Truncated, header.length);
    let bytes = bytes.get(..header.length as usize).ok_or(short)?;
    let steps = sections(bytes, &header).find(|section| section.kind == SectionKind::Steps as u16);
    Ok(Requirements { header, bytes, steps: steps.unwrap_or_default() })
}
