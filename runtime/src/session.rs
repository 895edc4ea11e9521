//! The interpreter: runs a model's steps in order.
//!
//! Takes a [`Model`], which was validated or is known, and the caller's arena and state; it holds neither, so models can share an arena, and state
//! can be saved, reset, or outlive other models. Refuses buffers that are too small or misaligned.

use core::ops::Range;

use crate::arena::Memory;
use crate::backend::kernels::contains;
use crate::backend::spec::select::SCALAR;
use crate::backend::{Backend, Scalar};
use crate::blob::{Blob, DType, Header, RegionRecord, TensorRecord};
use crate::error::{Error, ErrorKind};
use crate::model::{Model, Step, place_again};
use crate::op_set::OpSet;
use crate::region;

/// Sees every step: to profile, inspect, compare, or feed a watchdog. The steps of a [`region`] run in turns: they are seen as one,
/// before the first and after the last.
pub trait Observer {
    /// Whether it wants to be called. For one that does not, outputs are not looked up.
    const SEES: bool = true;

    /// Called before a step.
    fn before(&mut self, step: &Step<'_>) {
        let _ = step;
    }

    /// Called after a step, with the bytes of its output.
    fn after(&mut self, step: &Step<'_>, output: &[u8]) {
        let _ = (step, output);
    }
}

/// Sees nothing.
impl Observer for () {
    const SEES: bool = false;
}

/// How far a run has come; see [`Session::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u16,
}

impl Cursor {
    /// Index of the step that runs next.
    pub fn next(&self) -> u16 {
        self.next
    }
}

/// A model, which it borrows, with the backend that runs it.
#[derive(Debug)]
pub struct Session<'m, O, B = Scalar> {
    model: &'m Model<'m, O>,
    backend: B,
}

impl<'m, O: OpSet, B: Backend> Session<'m, O, B> {
    /// Pairs a model with a backend.
    pub fn new(model: &'m Model<'m, O>, backend: B) -> Self {
        Self { model, backend }
    }

    /// The model.
    pub fn model(&self) -> &Model<'m, O> {
        self.model
    }

    /// The bytes of graph input `k`, to be filled before a run. Its place may be used again by later steps: fill it before every run.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchTerminal`], [`ErrorKind::ArenaTooSmall`], [`ErrorKind::ArenaAlignment`].
    pub fn input_mut<'a>(&self, arena: &'a mut [u8], k: u16) -> Result<&'a mut [u8], Error> {
        let range = terminal(self.model.blob(), arena, k, [0, self.model.inputs()])?;
        arena.get_mut(range).ok_or(Error::new(ErrorKind::NoSuchTerminal, 0))
    }

    /// The elements of graph input `k`, of type `i8`.
    ///
    /// # Errors
    /// As [`Session::input_mut`]; [`ErrorKind::TerminalType`].
    pub fn input_i8_mut<'a>(&self, arena: &'a mut [u8], k: u16) -> Result<&'a mut [i8], Error> {
        let mismatch = of_type(self.model.input(k), DType::I8);
        bytemuck::try_cast_slice_mut(self.input_mut(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// The elements of graph input `k`, of type `i16`.
    ///
    /// # Errors
    /// As [`Session::input_mut`]; [`ErrorKind::TerminalType`].
    pub fn input_i16_mut<'a>(&self, arena: &'a mut [u8], k: u16) -> Result<&'a mut [i16], Error> {
        let mismatch = of_type(self.model.input(k), DType::I16);
        bytemuck::try_cast_slice_mut(self.input_mut(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// The elements of graph input `k`, of type `f32`.
    ///
    /// # Errors
    /// As [`Session::input_mut`]; [`ErrorKind::TerminalType`].
    pub fn input_f32_mut<'a>(&self, arena: &'a mut [u8], k: u16) -> Result<&'a mut [f32], Error> {
        let mismatch = of_type(self.model.input(k), DType::F32);
        bytemuck::try_cast_slice_mut(self.input_mut(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// The bytes of graph output `k`, valid after a run until the arena is used again.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchTerminal`], [`ErrorKind::ArenaTooSmall`], [`ErrorKind::ArenaAlignment`].
    pub fn output<'a>(&self, arena: &'a [u8], k: u16) -> Result<&'a [u8], Error> {
        let range = terminal(self.model.blob(), arena, k, [self.model.inputs(), self.model.outputs()])?;
        arena.get(range).ok_or(Error::new(ErrorKind::NoSuchTerminal, 0))
    }

    /// The elements of graph output `k`, of type `i8`.
    ///
    /// # Errors
    /// As [`Session::output`]; [`ErrorKind::TerminalType`].
    pub fn output_i8<'a>(&self, arena: &'a [u8], k: u16) -> Result<&'a [i8], Error> {
        let mismatch = of_type(self.model.output(k), DType::I8);
        bytemuck::try_cast_slice(self.output(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// The elements of graph output `k`, of type `i16`.
    ///
    /// # Errors
    /// As [`Session::output`]; [`ErrorKind::TerminalType`].
    pub fn output_i16<'a>(&self, arena: &'a [u8], k: u16) -> Result<&'a [i16], Error> {
        let mismatch = of_type(self.model.output(k), DType::I16);
        bytemuck::try_cast_slice(self.output(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// The elements of graph output `k`, of type `f32`.
    ///
    /// # Errors
    /// As [`Session::output`]; [`ErrorKind::TerminalType`].
    pub fn output_f32<'a>(&self, arena: &'a [u8], k: u16) -> Result<&'a [f32], Error> {
        let mismatch = of_type(self.model.output(k), DType::F32);
        bytemuck::try_cast_slice(self.output(arena, k)?)
            .ok()
            .filter(|_| mismatch.is_none())
            .ok_or(wrong(mismatch))
    }

    /// Runs all steps.
    ///
    /// # Errors
    /// [`ErrorKind::ArenaTooSmall`], [`ErrorKind::ArenaAlignment`], [`ErrorKind::StateTooSmall`], [`ErrorKind::StateAlignment`];
    /// [`ErrorKind::NotLinked`] with the step that no linked kernel takes ([`crate::backend::Kernels`]).
    pub fn run(&self, arena: &mut [u8], state: &mut [u8]) -> Result<(), Error> {
        self.run_observed(arena, state, &mut ())
    }

    /// Runs all steps and shows each to an observer.
    ///
    /// # Errors
    /// As [`Session::run`].
    #[inline(never)]
    pub fn run_observed<W: Observer>(
        &self,
        arena: &mut [u8],
        state: &mut [u8],
        observer: &mut W,
    ) -> Result<(), Error> {
        check_buffers(self.model.blob().header(), arena, state)?;
        let mut memory = Memory { arena, state };
        let mut cursor = self.start();
        while self.advance(&mut cursor, &mut memory, observer)? {}
        Ok(())
    }

    /// The begin of a run, for callers that want to do other work between steps:
    /// `while session.step(&mut cursor, arena, state)? { .. }`.
    pub fn start(&self) -> Cursor {
        Cursor { next: 0 }
    }

    /// Runs the next step, or all of a [`region`]. `false`: there was none left.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn step(&self, cursor: &mut Cursor, arena: &mut [u8], state: &mut [u8]) -> Result<bool, Error> {
        check_buffers(self.model.blob().header(), arena, state)?;
        self.advance(cursor, &mut Memory { arena, state }, &mut ())
    }

    /// As [`Session::step`], in memory that was checked.
    fn advance<W: Observer>(
        &self,
        cursor: &mut Cursor,
        memory: &mut Memory<'_>,
        observer: &mut W,
    ) -> Result<bool, Error> {
        // Borrowed where it was made: it is not moved.
        let found = self.model.step(cursor.next);
        let Some(step) = &found else { return Ok(false) };
        observer.before(step);
        // Where portable code is linked, every step that was accepted runs.
        let kind =
            if const { contains(B::KERNELS, SCALAR) } { ErrorKind::Internal } else { ErrorKind::NotLinked };
        let fault = Error::at_step(kind, step.index(), step.op(), 0);
        let next = match self.region_at(step.index()) {
            None => {
                O::run(self.backend, step, memory).ok_or(fault)?;
                step.index().saturating_add(1)
            }
            Some(region) => {
                region::run(self.model, self.backend, &region, memory).ok_or(fault)?;
                region.end()
            }
        };
        if W::SEES {
            let last = self.model.step(next.saturating_sub(1)).ok_or(fault)?;
            observer.after(&last, last.written(memory).ok_or(fault)?);
        }
        cursor.next = next;
        Ok(true)
    }

    /// The region that begins with step `first`: none of an op set without tiles, for which a load refuses regions.
    fn region_at(&self, first: u16) -> Option<RegionRecord> {
        if O::TILES { self.model.blob().region_at(first) } else { None }
    }
}

/// Where graph input or output `k` of `count` lies in the arena, whose operands stand behind `before` others.
#[inline(never)]
fn terminal(blob: &Blob<'_>, arena: &[u8], k: u16, [before, count]: [u16; 2]) -> Result<Range<usize>, Error> {
    let place = || {
        let operand = u32::from(before).checked_add(u32::from(k))?;
        place_again(blob, blob.operand(operand).filter(|_| k < count)?)
    };
    let place = place().ok_or(Error::new(ErrorKind::NoSuchTerminal, u32::from(count)))?;
    check_arena(blob.header(), arena)?;
    Ok(place.range)
}

#[inline(never)]
fn check_arena(header: &Header, arena: &[u8]) -> Result<(), Error> {
    let (bytes, align) = (header.arena_bytes, header.align);
    fits(arena, bytes, align, ErrorKind::ArenaTooSmall, ErrorKind::ArenaAlignment)
}

#[inline(never)]
fn check_buffers(header: &Header, arena: &[u8], state: &[u8]) -> Result<(), Error> {
    check_arena(header, arena)?;
    let (bytes, align) = (header.state_bytes, header.align);
    fits(state, bytes, align, ErrorKind::StateTooSmall, ErrorKind::StateAlignment)
}

/// The type of a tensor that is not of type `dtype`.
fn of_type(tensor: Option<TensorRecord>, dtype: DType) -> Option<DType> {
    tensor.map(|tensor| tensor.dtype).filter(|&found| found != dtype)
}

fn wrong(found: Option<DType>) -> Error {
    Error::new(ErrorKind::TerminalType, found.map_or(0, |dtype| dtype as u32))
}

/// Whether a buffer holds `bytes` and lies at a multiple of `align`. A model without state takes any state, also an empty one.
#[inline(never)]
fn fits(buffer: &[u8], bytes: u32, align: u16, small: ErrorKind, misaligned: ErrorKind) -> Result<(), Error> {
    if buffer.len() < bytes as usize {
        return Err(Error::new(small, bytes));
    }
    if bytes > 0 && buffer.as_ptr().addr() & usize::from(align).saturating_sub(1) != 0 {
        return Err(Error::new(misaligned, u32::from(align)));
    }
    Ok(())
}
