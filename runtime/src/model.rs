//! A validated blob, and its steps with their operands resolved.
//!
//! [`Model::load`] is the only validation point. What it accepts can be run: every record is sound, every operand lies inside its
//! memory, and every step was accepted by its operator's [`check`](crate::ops::Operator::check). [`Model::load_known`] takes a blob that
//! was validated before, on another machine, and proves that it is that blob.

use core::marker::PhantomData;
use core::ops::Range;

use crate::arena::{MAX_INPUTS, Memory, Place, Views};
use crate::backend::spec::select::{self, Isa, Request, SCALAR, Selection, select};
use crate::blob::{
    Blob, DType, Fingerprint, Packing, SectionKind, Space, StepRecord, TensorRecord, TensorWords,
    WeightRecord,
};
use crate::error::{Error, ErrorKind};
use crate::op_set::OpSet;
use crate::region;
use crate::rolled::{rolled, unknown};

/// A network, ready to run with the operators of `O`. It borrows the blob and copies nothing.
#[derive(Debug)]
pub struct Model<'m, O> {
    blob: Blob<'m>,
    ops: PhantomData<O>,
}

impl<O> Clone for Model<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Model<'_, O> {}

impl<'m, O: OpSet> Model<'m, O> {
    /// Validates a blob. Bytes behind its stated length are ignored.
    ///
    /// Costs one pass over everything but the weights. Weights are data: damage there changes results, never safety;
    /// [`Blob::verify_weights`] compares their checksum.
    ///
    /// # Errors
    /// Those of [`Blob::parse`]; [`ErrorKind::Tensor`], [`ErrorKind::Weight`], [`ErrorKind::Terminal`]; with the step's index and operation code
    /// [`ErrorKind::Step`], [`ErrorKind::Operand`], [`ErrorKind::Overlap`], [`ErrorKind::UnknownOperator`] and those of the operators' checks.
    // In a frame of its own, which is gone when the model runs.
    #[inline(never)]
    pub fn load(bytes: &'m [u8]) -> Result<Self, Error> {
        let model = Self { blob: Blob::parse(bytes)?, ops: PhantomData };
        check_records::<O>(&model.blob)?;
        Ok(model)
    }

    /// Takes a blob that was validated when `fingerprint` was taken of it, by [`Model::load`] with operators that `O` has too: the converter does that and
    /// writes both into the network's module. A program that takes all its blobs so links no validation.
    ///
    /// It proves that these are that blob's bytes, all but the weights, by their number and the checksum of the structure; weights are data here as in
    /// [`Model::load`]. It does not prove that they are valid. A blob that comes from elsewhere, over the air or from a card, goes through
    /// [`Model::load`].
    ///
    /// Whatever the bytes are, to run the model is safe and does not panic: with a forged fingerprint a run ends with an error or wrong
    /// outputs, or takes long.
    ///
    /// # Errors
    /// [`ErrorKind::Fingerprint`]: it is another blob; [`ErrorKind::BlobAlignment`].
    #[inline(never)]
    pub fn load_known(bytes: &'m [u8], fingerprint: &Fingerprint) -> Result<Self, Error> {
        Ok(Self { blob: Blob::known(bytes, fingerprint)?, ops: PhantomData })
    }

    /// A model again from the blob of one that was loaded.
    #[cfg(feature = "host")]
    pub(crate) fn of_loaded(blob: Blob<'m>) -> Self {
        Self { blob, ops: PhantomData }
    }

    /// The blob: header, records, names, labels, contracts.
    pub fn blob(&self) -> &Blob<'m> {
        &self.blob
    }

    /// Bytes of working memory.
    pub fn arena_bytes(&self) -> usize {
        self.blob.header().arena_bytes as usize
    }

    /// Bytes that survive from run to run.
    pub fn state_bytes(&self) -> usize {
        self.blob.header().state_bytes as usize
    }

    /// Number of graph inputs.
    pub fn inputs(&self) -> u16 {
        self.blob.header().inputs
    }

    /// Number of graph outputs.
    pub fn outputs(&self) -> u16 {
        self.blob.header().outputs
    }

    /// Graph input `k`.
    pub fn input(&self, k: u16) -> Option<TensorRecord> {
        if k >= self.inputs() {
            return None;
        }
        self.blob.tensor(self.blob.operand(u32::from(k))?)
    }

    /// Graph output `k`.
    pub fn output(&self, k: u16) -> Option<TensorRecord> {
        if k >= self.outputs() {
            return None;
        }
        self.blob.tensor(self.blob.operand(u32::from(self.inputs()).checked_add(u32::from(k))?)?)
    }

    /// Number of steps.
    pub fn step_count(&self) -> u16 {
        u16::try_from(self.blob.step_count()).unwrap_or(u16::MAX)
    }

    /// Step `index`.
    #[inline]
    pub fn step(&self, index: u16) -> Option<Step<'_>> {
        // Where the section was not judged, there may be records without end.
        if index < self.step_count() { Step::new(&self.blob, index) } else { None }
    }

    /// All steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        (0..self.step_count()).map_while(|index| self.step(index))
    }
}

/// One step with its operands resolved.
#[derive(Clone, Copy)]
pub struct Step<'m> {
    blob: &'m Blob<'m>,
    index: u16,
    record: StepRecord,
    /// Inputs, outputs, weights.
    operands: &'m [u16],
    /// The records of the first input and the first output, where there are such.
    first_input: Option<&'m TensorWords>,
    first_output: Option<&'m TensorWords>,
}

impl<'m> Step<'m> {
    /// Tensors and weights of the blob have been judged, or are those of a blob that is known: they are not judged again.
    #[inline(never)]
    fn new(blob: &'m Blob<'m>, index: u16) -> Option<Self> {
        let record = blob.step(index)?;
        let (inputs, outputs) = (usize::from(record.inputs), usize::from(record.outputs));
        let weights = usize::from(record.weights);
        let count = inputs.wrapping_add(outputs).wrapping_add(weights);
        let operands = blob.operands(record.operands_at, count);
        let first = |before: usize, count: usize| {
            let id = operands.get(before).filter(|_| count > 0)?;
            blob.tensor_words(*id)
        };
        let (first_input, first_output) = (first(0, inputs), first(inputs, outputs));
        Some(Self { blob, index, record, operands, first_input, first_output })
    }

    /// Its place in the order of execution, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The operation code.
    pub fn op(&self) -> u16 {
        self.record.op
    }

    /// Its name, if the blob holds names.
    pub fn name(&self) -> Option<&'m str> {
        self.blob.step_name(self.index)
    }

    /// Number of inputs, outputs, weights.
    pub fn counts(&self) -> (usize, usize, usize) {
        (usize::from(self.record.inputs), usize::from(self.record.outputs), usize::from(self.record.weights))
    }

    /// The records of the first input and the first output.
    #[inline(never)]
    pub(crate) fn ends(&self) -> Option<(TensorRecord, TensorRecord)> {
        Some((TensorRecord::parse_again(self.first_input?)?, TensorRecord::parse_again(self.first_output?)?))
    }

    /// The zero points of the first input and the first output.
    #[inline]
    pub(crate) fn zero_points(&self) -> Option<[i32; 2]> {
        let [[.., input, _], [.., output, _]] = [self.first_input?, self.first_output?];
        Some([input, output].map(|zero_point| zero_point.cast_signed()))
    }

    /// Extent of the last axis of the first input.
    #[inline]
    pub(crate) fn inputs(&self) -> Option<u32> {
        let words = self.first_input?;
        let [kind, ..] = words;
        let [_, _, rank, _] = kind.to_le_bytes();
        words.get(usize::from(rank)).copied()
    }

    /// The record of input `k`.
    pub fn input(&self, k: usize) -> Option<TensorRecord> {
        tensor_again(self.blob, self.input_id(k)?)
    }

    /// The record of output `k`.
    pub fn output(&self, k: usize) -> Option<TensorRecord> {
        tensor_again(self.blob, self.output_id(k)?)
    }

    /// The record of weight `k`.
    pub fn weight(&self, k: usize) -> Option<WeightRecord> {
        self.blob.weight(self.weight_id(k)?)
    }

    /// Index of input `k` in the tensor section.
    pub fn input_id(&self, k: usize) -> Option<u16> {
        self.operand(k, 0, self.record.inputs)
    }

    /// Index of output `k` in the tensor section.
    pub fn output_id(&self, k: usize) -> Option<u16> {
        self.operand(k, usize::from(self.record.inputs), self.record.outputs)
    }

    /// Index of weight `k` in the weight-record section.
    pub fn weight_id(&self, k: usize) -> Option<u16> {
        let before = usize::from(self.record.inputs).checked_add(usize::from(self.record.outputs))?;
        self.operand(k, before, self.record.weights)
    }

    fn operand(&self, k: usize, before: usize, count: u8) -> Option<u16> {
        if k >= usize::from(count) {
            return None;
        }
        self.operands.get(before.checked_add(k)?).copied()
    }

    /// The parameter words.
    pub fn parameters(&self) -> &'m [u32] {
        self.blob.parameters(self.record.parameters_at, self.record.parameters).unwrap_or_default()
    }

    /// The elements of weight `k`; `None` if it is of another type.
    pub fn weight_i8(&self, k: usize) -> Option<&'m [i8]> {
        self.elements(k, DType::I8)
    }

    /// The pairs of 4-bit elements of weight `k`; `None` if it is of another type.
    pub fn weight_i4x2(&self, k: usize) -> Option<&'m [u8]> {
        self.elements(k, DType::I4x2)
    }

    /// The elements of weight `k`; `None` if it is of another type.
    #[inline(never)]
    pub fn weight_i32(&self, k: usize) -> Option<&'m [i32]> {
        self.elements(k, DType::I32)
    }

    /// The elements of weight `k`; `None` if it is of another type.
    pub fn weight_f32(&self, k: usize) -> Option<&'m [f32]> {
        self.elements(k, DType::F32)
    }

    /// The binary16 elements of weight `k`, as bits; `None` if it is of another type.
    pub fn weight_f16(&self, k: usize) -> Option<&'m [u16]> {
        self.elements(k, DType::F16)
    }

    #[inline]
    fn elements<T: bytemuck::AnyBitPattern>(&self, k: usize, dtype: DType) -> Option<&'m [T]> {
        constant(self.blob, self.weight_id(k)?, dtype).map(|(elements, _)| elements)
    }

    /// The first weight, and the three arrays of `i32` behind it; `None` if they are of another type.
    #[inline(always)]
    pub(crate) fn linear<T: bytemuck::AnyBitPattern>(&self, dtype: DType) -> Option<LinearConstants<'m, T>> {
        let before = usize::from(self.record.inputs).wrapping_add(usize::from(self.record.outputs));
        let &[weights, ref further @ ..] = self.operands.get(before..)?.first_chunk::<4>()?;
        let (weights, packing) = constant(self.blob, weights, dtype)?;
        let mut arrays = [[].as_slice(); 3];
        for (array, &id) in unknown(arrays.as_mut_slice()).iter_mut().zip(unknown(further.as_slice())) {
            rolled();
            (*array, _) = constant(self.blob, id, DType::I32)?;
        }
        Some((weights, Packing::parse(packing)?, arrays))
    }

    /// Whether the output lies in the place of the first input.
    #[inline(never)]
    pub fn in_place(&self) -> bool {
        let [read, written] = [self.first_input, self.first_output].map(|words| tensor_place(words?));
        read.is_some() && read == written
    }

    /// The kernel that the code of a backend takes for it, and the scratch that this kernel wants.
    pub fn selection(&self, isa: Isa) -> Selection {
        let other = || Selection { name: select::other(isa, self).unwrap_or(SCALAR), scratch_bytes: 0 };
        Request::of(self).map_or_else(other, |request| {
            let own = select(isa, &request);
            // With less scratch than it wants, a kernel does not run.
            if own.scratch_bytes > self.scratch_bytes() { select(Isa::Scalar, &request) } else { own }
        })
    }

    /// Bytes of the scratch in the arena. It is aligned as the arena is.
    pub fn scratch_bytes(&self) -> usize {
        self.record.scratch_bytes as usize
    }

    /// Where the scratch lies in the arena.
    pub fn scratch(&self) -> Range<usize> {
        let start = self.record.scratch_at as usize;
        start..start.saturating_add(self.scratch_bytes())
    }

    /// The bytes of the first output.
    pub(crate) fn written<'s>(&self, memory: &'s Memory<'_>) -> Option<&'s [u8]> {
        let Place { space, range } = tensor_place(self.first_output?)?;
        match space {
            Space::Arena => memory.arena.get(range),
            Space::State => memory.state.get(range),
            _ => None,
        }
    }

    /// Views of the first `N` inputs, the first output and the scratch. `None` if the step has fewer inputs; after a load, never for
    /// the number of inputs that the operator's check has settled.
    pub fn views<'s, const N: usize>(&self, memory: &'s mut Memory<'_>) -> Option<Views<'s, N>> {
        let mut inputs = [const { Place { space: Space::Arena, range: 0..0 } }; N];
        for (k, place) in inputs.iter_mut().enumerate() {
            *place = match k {
                0 => tensor_place(self.first_input?)?,
                _ => place_again(self.blob, self.input_id(k)?)?,
            };
        }
        memory.views(&inputs, &tensor_place(self.first_output?)?, &self.scratch())
    }
}

/// Weights, their packing, and bias, multipliers and shifts.
pub(crate) type LinearConstants<'m, T> = (&'m [T], Packing, [&'m [i32]; 3]);

/// The elements of weight `id` and the number of its packing; `None` if they are of another type.
#[inline(always)]
fn constant<'m, T: bytemuck::AnyBitPattern>(blob: &Blob<'m>, id: u16, dtype: DType) -> Option<(&'m [T], u8)> {
    let &[kind, offset, elements, _] = blob.weight_words(id)?;
    let [.., packing, found] = kind.to_le_bytes();
    if found != dtype as u8 {
        return None;
    }
    // Where its bytes were found to lie in its section the product does not wrap; else they are others of that section, or none.
    let length = elements.wrapping_mul(dtype.bytes() as u32) as usize;
    let bytes = blob.constant(kind as u16, offset, length)?;
    Some((bytemuck::try_cast_slice(bytes).ok()?, packing))
}

impl core::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Step").field("index", &self.index).field("record", &self.record).finish()
    }
}

/// The bytes of a tensor, without slack.
#[inline(never)]
pub(crate) fn place_of(tensor: &TensorRecord) -> Option<Place> {
    let start = tensor.offset as usize;
    Some(Place { space: tensor.space, range: start..start.checked_add(tensor.stored_bytes()?)? })
}

/// As [`place_of`], of a tensor that has one.
#[inline(never)]
fn tensor_place(words: &TensorWords) -> Option<Place> {
    let (space, start, bytes) = TensorRecord::place_again(words)?;
    Some(Place { space, range: start..start.checked_add(bytes)? })
}

/// Tensor `id` of a blob whose tensors were all found valid.
#[inline(never)]
fn tensor_again(blob: &Blob<'_>, id: u16) -> Option<TensorRecord> {
    TensorRecord::parse_again(blob.tensor_words(id)?)
}

/// The bytes of tensor `id`, without slack, of a blob whose tensors were all found valid.
#[inline(never)]
pub(crate) fn place_again(blob: &Blob<'_>, id: u16) -> Option<Place> {
    tensor_place(blob.tensor_words(id)?)
}

/// Judges all that a blob's sections hold.
#[inline(never)]
fn check_records<O: OpSet>(blob: &Blob<'_>) -> Result<(), Error> {
    check_tensors(blob)?;
    check_weights(blob)?;
    check_graph_inputs(blob)?;
    let mut defined = blob.header().inputs;
    let count = u16::try_from(blob.step_count()).ok().filter(|&count| count != Error::NOWHERE);
    for index in 0..count.ok_or(Error::new(ErrorKind::Section, SectionKind::Steps as u32))? {
        let found = Step::new(blob, index);
        // Borrowed where it was made: it is not moved.
        let step = found.as_ref().ok_or(Error::at_step(ErrorKind::Step, index, 0, 0))?;
        let fault = |(kind, value)| Error::at_step(kind, index, step.op(), value);
        check_step(step, &mut defined, O::in_place(step.op())).map_err(fault)?;
        O::check(step).map_err(|kind| fault((kind, 0)))?;
    }
    check_graph_outputs(blob, defined)?;
    check_regions::<O>(blob)
}

#[inline(never)]
fn check_tensors(blob: &Blob<'_>) -> Result<(), Error> {
    let too_many = Error::new(ErrorKind::Section, SectionKind::Tensors as u32);
    let count = u16::try_from(blob.tensor_count()).map_err(|_| too_many)?;
    for index in 0..count {
        let sound = blob.tensor(index).and_then(|tensor| {
            Some(lies_in_memory(blob, &tensor)? && shows_what_it_names(blob, index, &tensor))
        });
        if sound != Some(true) {
            return Err(Error::new(ErrorKind::Tensor, u32::from(index)));
        }
    }
    Ok(())
}

#[inline(never)]
fn lies_in_memory(blob: &Blob<'_>, tensor: &TensorRecord) -> Option<bool> {
    let header = blob.header();
    let available = match tensor.space {
        Space::Arena => header.arena_bytes,
        Space::State => header.state_bytes,
        _ => return None,
    };
    let end = place_of(tensor)?.range.end.checked_add(usize::from(tensor.slack))?;
    // Finite, positive and not subnormal, judged on the bits: exponent neither 0 nor all ones, sign clear.
    let scale = (0x0080_0000..0x7F80_0000).contains(&tensor.scale_bits);
    let zero_point = match tensor.dtype {
        DType::I8 => (-128..=127).contains(&tensor.zero_point),
        DType::I16 => (-32768..=32767).contains(&tensor.zero_point),
        DType::I32 => true,
        DType::F32 => tensor.zero_point == 0,
        DType::F16 | DType::I4x2 => false,
    };
    let aligned = u32::from(header.align).checked_sub(1).is_some_and(|mask| tensor.offset & mask == 0);
    Some(end <= available as usize && scale && zero_point && aligned)
}

/// A view names a tensor that stands before it, with the same bytes as elements of the same type. Others name none.
#[inline(never)]
fn shows_what_it_names(blob: &Blob<'_>, index: u16, tensor: &TensorRecord) -> bool {
    let Some(viewed) = blob.viewed(index) else { return true };
    let earlier = u16::try_from(viewed).ok().filter(|&viewed| viewed < index);
    earlier.and_then(|viewed| blob.tensor(viewed)).is_some_and(|viewed| {
        let whole = viewed.window_rows == 0 && tensor.window_rows == 0;
        whole
            && viewed.dtype == tensor.dtype
            && place_of(&viewed).is_some()
            && place_of(&viewed) == place_of(tensor)
    })
}

#[inline(never)]
fn check_weights(blob: &Blob<'_>) -> Result<(), Error> {
    let too_many = Error::new(ErrorKind::Section, SectionKind::WeightRecords as u32);
    let count = u16::try_from(blob.weight_count()).map_err(|_| too_many)?;
    for index in 0..count {
        let sound = blob.weight(index).filter(|record| {
            record.offset.is_multiple_of(16)
                && (record.packing == Packing::Rows || record.dtype == DType::I8)
                && blob.weight_bytes(record).is_some()
        });
        if sound.is_none() {
            return Err(Error::new(ErrorKind::Weight, u32::from(index)));
        }
    }
    Ok(())
}

/// Graph input `k` is tensor `k`, in the arena.
#[inline(never)]
fn check_graph_inputs(blob: &Blob<'_>) -> Result<(), Error> {
    for k in 0..blob.header().inputs {
        let sound = blob.operand(u32::from(k)) == Some(k)
            && blob.tensor(k).is_some_and(|tensor| tensor.space == Space::Arena && tensor.window_rows == 0);
        if !sound {
            return Err(Error::new(ErrorKind::Terminal, u32::from(k)));
        }
    }
    Ok(())
}

/// Whether the bytes of tensor `id` hold elements of its type: it is one of the first `defined`, or a view of one of them.
fn is_written(blob: &Blob<'_>, id: u16, defined: u16) -> bool {
    id < defined || blob.viewed(id).is_some_and(|viewed| viewed < u32::from(defined))
}

/// A graph output is a tensor in the arena that has been written: one of the first `defined`, or a view.
#[inline(never)]
fn check_graph_outputs(blob: &Blob<'_>, defined: u16) -> Result<(), Error> {
    let header = blob.header();
    for k in 0..header.outputs {
        let place = u32::from(header.inputs).saturating_add(u32::from(k));
        let sound = blob.operand(place).is_some_and(|tensor| {
            blob.tensor(tensor).is_some_and(|record| {
                record.space == Space::Arena && record.window_rows == 0 && is_written(blob, tensor, defined)
            })
        });
        if !sound {
            return Err(Error::new(ErrorKind::Terminal, place));
        }
    }
    Ok(())
}

/// Regions stand in the order of their steps and apart; steps outside of them have no windows. An op set without tiles takes neither.
fn check_regions<O: OpSet>(blob: &Blob<'_>) -> Result<(), Error> {
    if !O::TILES {
        let wrong = Error::new(ErrorKind::Region, 0);
        let whole =
            |index: u32| tensor_again(blob, index as u16).is_some_and(|tensor| tensor.window_rows == 0);
        let legal = blob.region_count() == 0 && (0..blob.tensor_count()).all(whole);
        return if legal { Ok(()) } else { Err(wrong) };
    }
    let step = |index: u16| Step::new(blob, index);
    let whole = |range: Range<u16>| {
        range.filter_map(step).all(|step| {
            let (inputs, _, _) = step.counts();
            let tensors = (0..inputs).map(|k| step.input(k)).chain([step.output(0)]);
            tensors.flatten().all(|tensor| tensor.window_rows == 0)
        })
    };
    let steps = u16::try_from(blob.step_count()).unwrap_or(u16::MAX);
    let mut next = 0u16;
    for index in 0..blob.region_count() {
        let wrong = Error::new(ErrorKind::Region, index);
        let region = blob.region(index).ok_or(wrong)?;
        if region.first < next || region.end() > steps || !whole(next..region.first) {
            return Err(wrong);
        }
        region::check(&region, step, O::rows).map_err(|kind| Error::new(kind, index))?;
        // The next begins behind this one.
        next = region.end();
    }
    if whole(next..steps) { Ok(()) } else { Err(Error::new(ErrorKind::Region, blob.region_count())) }
}

/// What every step must fulfil, whatever its operator. `defined` tensors are written before it, and it may add one.
#[inline(never)]
fn check_step(step: &Step<'_>, defined: &mut u16, in_place: bool) -> Result<(), (ErrorKind, u32)> {
    let record = &step.record;
    let malformed = (ErrorKind::Step, 0);
    if record.outputs != 1 || usize::from(record.inputs) > MAX_INPUTS {
        return Err((ErrorKind::OperandCount, 0));
    }
    if step.blob.parameters(record.parameters_at, record.parameters).is_none() && record.parameters != 0 {
        return Err(malformed);
    }
    for k in 0..usize::from(record.weights) {
        let id = step.weight_id(k).ok_or(malformed)?;
        step.blob.weight(id).ok_or((ErrorKind::Operand, u32::from(id)))?;
    }

    let scratch = step.scratch();
    let mask = usize::from(step.blob.header().align).saturating_sub(1);
    let fits = scratch.end <= step.blob.header().arena_bytes as usize;
    let aligned = scratch.start & mask == 0;
    if !(scratch.is_empty() || fits && aligned) {
        return Err((ErrorKind::Scratch, record.scratch_at));
    }
    let scratch = Place { space: Space::Arena, range: scratch };

    let output_id = step.output_id(0).ok_or(malformed)?;
    let unknown = (ErrorKind::Operand, u32::from(output_id));
    let written = place_again(step.blob, output_id).ok_or(unknown)?;
    if written.meets(&scratch) {
        return Err((ErrorKind::Overlap, u32::from(output_id)));
    }
    let mut reads = [const { Place { space: Space::Arena, range: 0..0 } }; MAX_INPUTS];
    for k in 0..usize::from(record.inputs) {
        let id = step.input_id(k).ok_or(malformed)?;
        let unknown = (ErrorKind::Operand, u32::from(id));
        let read = place_again(step.blob, id).ok_or(unknown)?;
        if read.space != Space::State && !is_written(step.blob, id, *defined) {
            return Err(unknown);
        }
        let allowed = k == 0 && in_place && read == written;
        let (earlier, later) = reads.split_at_mut_checked(k).ok_or(malformed)?;
        // Views of inputs are shared only where they are the same.
        let crosses = earlier.iter().any(|earlier| earlier.meets(&read) && *earlier != read);
        if read.meets(&written) && !allowed || crosses || read.meets(&scratch) {
            return Err((ErrorKind::Overlap, u32::from(id)));
        }
        *later.first_mut().ok_or(malformed)? = read;
    }
    if written.space == Space::Arena {
        if output_id != *defined {
            return Err(unknown);
        }
        *defined = defined.saturating_add(1);
    }
    Ok(())
}
