//! Prepared programs: a model's steps as layers that own their weights, in the order and the forms that a host's kernels want.
//!
//! Takes a validated model with plain weights and a set of [`Kernels`]; gives layers that run one after the other: no allocation, no threads, no
//! choice of a kernel and no check of a shape is left to a run. A step without a kernel of the set is a layer too: its operator's scalar one, on
//! the blob's own forms. Steps of a [region](crate::region) run whole, for memory is not short on a host. The bits are those of [`crate::Session`].

mod convert;
pub mod form;
mod plan;

use super::aligned::{ALIGN, Aligned};
use crate::arena::{Memory, Place};
use crate::backend::Scalar;
use crate::blob::{Blob, DType, Layout, SectionKind, Space, StepRecord, TensorRecord};
use crate::error::{Error, ErrorKind};
use crate::model::place_of;
use crate::{AllOps, Model, OpSet, Step};
use convert::Convert;
use core::fmt::Debug;
use form::{Element, Image, Want, extents};
use plan::Plan;
pub use plan::SLACK;
use std::collections::HashMap;

/// What layers work on.
pub struct Frame<'a> {
    /// Working memory: all values.
    pub arena: &'a mut [u8],
    /// Memory that a layer may use while it runs, as much as the largest [`Layer::scratch`].
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for kernels of x86"))]
    pub scratch: &'a mut [u8],
    /// What survives between runs.
    pub state: &'a mut [u8],
    /// The layers' weights and factors.
    pub constants: &'a [u8],
    /// The steps, with tensors at their places in the arena.
    pub model: &'a Model<'a, AllOps>,
}

/// Something to run, with all that a run needs to know.
pub trait Layer: Debug + Send + Sync {
    /// The kernel, as reports name it.
    fn name(&self) -> &'static str;

    /// Bytes of scratch that a run needs.
    fn scratch(&self) -> usize {
        0
    }

    /// Runs it. `None`: a buffer is shorter than it was when the layer was made.
    fn run(&self, frame: &mut Frame<'_>) -> Option<()>;
}

/// The forms in which a kernel takes the operands of a step.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Of each input.
    pub inputs: Vec<Want>,
    /// Of the output.
    pub output: Element,
    /// Whether the output must have no border.
    pub dense: bool,
}

/// Kernels of an instruction set that this machine has.
pub trait Kernels: Debug + Sync {
    /// The name in reports, `{arch}-{extension}`.
    fn name(&self) -> &'static str;

    /// The forms that the kernel of a step takes; `None` if the set has no kernel for it. All operands lie in the arena.
    fn wants(&self, step: &Step<'_>) -> Option<Wants>;

    /// The layer of a step for which there are wants. What it packs goes into `constants`.
    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>>;
}

/// Weights and factors of all layers, one block in the order of use.
#[derive(Debug, Default)]
pub struct Constants {
    bytes: Vec<u8>,
}

impl Constants {
    /// Adds elements at a multiple of [`ALIGN`]; gives the first byte.
    pub fn push<T: bytemuck::NoUninit>(&mut self, elements: &[T]) -> usize {
        let start = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytemuck::cast_slice(elements));
        start
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A step without a kernel of the set.
#[derive(Debug)]
struct Whole {
    step: u16,
}

impl Layer for Whole {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        let step = frame.model.step(self.step)?;
        AllOps::run(Scalar, &step, &mut Memory { arena: frame.arena, state: frame.state })
    }
}

/// A layer and the step that it belongs to; a change of a graph input's form belongs to none.
#[derive(Debug)]
struct Stage {
    step: Option<u16>,
    layer: Box<dyn Layer>,
}

/// A model as layers. It holds no values: several runs may share it.
#[derive(Debug)]
pub struct Program {
    backend: &'static str,
    stages: Vec<Stage>,
    constants: Aligned,
    /// The blob, with every stored value at its place in the arena.
    blob: Aligned,
    layout: Layout,
    arena_bytes: usize,
    /// Where the arena's scratch starts.
    scratch_start: usize,
    borders: Vec<Image>,
    inputs: Vec<Image>,
    outputs: Vec<Image>,
}

impl Program {
    /// Most steps of a program.
    const MAX_STEPS: u16 = 4096;

    /// The layers of a model. `None` for one with more than 4096 steps, and for one whose steps read
    /// what is not wholly one value.
    pub fn new(model: &Model<'_, AllOps>, kernels: &dyn Kernels) -> Option<Self> {
        if model.step_count() > Self::MAX_STEPS {
            return None;
        }
        let flow = Flow::of(model)?;
        let mut plan = Plan::default();
        for k in 0..model.inputs() {
            plan.define(k, model.input(k)?, 0);
            plan.read(k, usize::MAX, extents(&model.input(k)?), Want::STORED)?;
        }
        let mut made = Vec::new();
        for (step, values) in model.steps().zip(&flow.steps) {
            let wants = wants(&step, kernels);
            let when = usize::from(step.index()) + 1;
            if in_arena(step.output(0)) {
                plan.define(step.output_id(0)?, step.output(0)?, when);
            }
            for (k, value) in values.iter().enumerate() {
                let want = wants.as_ref().map_or(Some(Want::STORED), |wants| wants.inputs.get(k).copied())?;
                if let Some(value) = value {
                    plan.read(*value, when, extents(&step.input(k)?), want)?;
                }
            }
            made.push(wants);
        }
        for (k, &value) in (0..).zip(&flow.outputs) {
            plan.read(value, usize::MAX, extents(&model.output(k)?), Want::STORED)?;
        }
        for k in 0..model.inputs() {
            plan.settle(k, Element::Stored, true)?;
        }
        for (step, wants) in model.steps().zip(&made).filter(|(step, _)| in_arena(step.output(0))) {
            let (element, dense) =
                wants.as_ref().map_or((Element::Stored, true), |wants| (wants.output, wants.dense));
            plan.settle(step.output_id(0)?, element, dense)?;
        }
        plan.place();

        let mut constants = Constants::default();
        let mut stages = Vec::new();
        let convert = |stages: &mut Vec<Stage>, step: Option<u16>, id: u16| -> Option<()> {
            let written = plan.written(id)?;
            for form in plan.converted(id) {
                stages.push(Stage { step, layer: Box::new(Convert::new(&written, &form)) });
            }
            Some(())
        };
        for k in 0..model.inputs() {
            convert(&mut stages, None, k)?;
        }
        for ((step, wants), values) in model.steps().zip(&made).zip(&flow.steps) {
            let layer: Box<dyn Layer> = match wants {
                None => Box::new(Whole { step: step.index() }),
                Some(wants) => {
                    let operands = wants.inputs.iter().zip(values).enumerate();
                    let form = |(k, (want, value)): (usize, (&Want, &Option<u16>))| {
                        plan.form((*value)?, extents(&step.input(k)?), *want)
                    };
                    let inputs: Vec<Image> = operands.map(form).collect::<Option<_>>()?;
                    kernels.layer(&step, &inputs, &plan.written(step.output_id(0)?)?, &mut constants)?
                }
            };
            stages.push(Stage { step: Some(step.index()), layer });
            if in_arena(step.output(0)) {
                convert(&mut stages, Some(step.index()), step.output_id(0)?)?;
            }
        }
        let stored = |value: u16, record: &TensorRecord| plan.form(value, extents(record), Want::STORED);
        let inputs = (0..model.inputs()).map(|k| stored(k, &model.input(k)?)).collect::<Option<_>>()?;
        let outputs = (0..)
            .zip(&flow.outputs)
            .map(|(k, &value)| stored(value, &model.output(k)?))
            .collect::<Option<_>>()?;
        let scratch_start = plan.bytes.next_multiple_of(ALIGN);
        let scratch = stages.iter().map(|stage| stage.layer.scratch()).max().unwrap_or_default();
        Some(Self {
            backend: kernels.name(),
            stages,
            constants: Aligned::copy(&constants.bytes),
            blob: moved(model, &flow, &stored)?,
            layout: model.blob().layout(),
            arena_bytes: scratch_start + scratch,
            scratch_start,
            borders: plan.bordered().copied().collect(),
            inputs,
            outputs,
        })
    }

    /// Name of the set of kernels.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// An arena to run it in.
    pub fn arena(&self) -> Aligned {
        let mut arena = Aligned::new(self.arena_bytes);
        for image in &self.borders {
            let zero = image.zero();
            let bytes = arena.get_mut().get_mut(image.start..).and_then(|rest| rest.get_mut(..image.bytes()));
            if let Some(bytes) = bytes {
                bytes.chunks_exact_mut(zero.len()).for_each(|element| element.copy_from_slice(&zero));
            }
        }
        arena
    }

    /// The bytes of graph input `k` in an arena.
    pub fn input(&self, k: usize) -> Option<core::ops::Range<usize>> {
        self.inputs.get(k).map(|image| image.start..image.start + image.bytes())
    }

    /// The bytes of graph output `k` in an arena.
    pub fn output(&self, k: usize) -> Option<core::ops::Range<usize>> {
        self.outputs.get(k).map(|image| image.start..image.start + image.bytes())
    }

    /// Runs all layers in an arena of [`Program::arena`].
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]: a fault of this crate.
    pub fn run(&self, arena: &mut [u8], state: &mut [u8]) -> Result<(), Error> {
        self.run_each(arena, state, &mut |_, _| {})
    }

    /// As [`Program::run`]; after each layer calls `done` with its step and its kernel's name.
    ///
    /// # Errors
    /// As [`Program::run`].
    #[inline]
    pub fn run_each(
        &self,
        arena: &mut [u8],
        state: &mut [u8],
        done: &mut impl FnMut(Option<u16>, &'static str),
    ) -> Result<(), Error> {
        let model = Model::of_loaded(Blob::from_parts(self.blob.get(), self.layout));
        let fault = Error::at_step(ErrorKind::Internal, Error::NOWHERE, 0, 0);
        let (arena, scratch) = arena.split_at_mut_checked(self.scratch_start).ok_or(fault)?;
        let mut frame = Frame { arena, scratch, state, constants: self.constants.get(), model: &model };
        for Stage { step, layer } in &self.stages {
            let fault = Error::at_step(ErrorKind::Internal, step.unwrap_or(Error::NOWHERE), 0, 0);
            layer.run(&mut frame).ok_or(fault)?;
            done(*step, layer.name());
        }
        Ok(())
    }
}

fn in_arena(tensor: Option<TensorRecord>) -> bool {
    tensor.is_some_and(|tensor| tensor.space == Space::Arena)
}

/// The wants of a step of which all operands lie in the arena.
fn wants(step: &Step<'_>, kernels: &dyn Kernels) -> Option<Wants> {
    let (inputs, _, _) = step.counts();
    let all = (0..inputs).all(|k| in_arena(step.input(k))) && in_arena(step.output(0));
    kernels.wants(step).filter(|wants| all && wants.inputs.len() == inputs)
}

/// Which values steps read. A blob names memory: what a step reads is what was last written there.
#[derive(Debug)]
struct Flow {
    /// Of each step, the values that its inputs are; `None` for state. A value is named by the tensor that its step writes.
    steps: Vec<Vec<Option<u16>>>,
    /// The values that leave.
    outputs: Vec<u16>,
}

impl Flow {
    /// `None` if something is read that is not wholly one value, or if a tensor is another value each time.
    fn of(model: &Model<'_, AllOps>) -> Option<Self> {
        let mut contents: Vec<(Place, DType, u16)> = Vec::new();
        let write = |contents: &mut Vec<(Place, DType, u16)>, id: u16, tensor: &TensorRecord| {
            let place = place_of(tensor)?;
            contents.retain(|(other, _, _)| !other.meets(&place));
            contents.push((place, tensor.dtype, id));
            Some(())
        };
        let read = |contents: &[(Place, DType, u16)], tensor: &TensorRecord| {
            let place = place_of(tensor)?;
            let found =
                contents.iter().find(|(other, dtype, _)| *other == place && *dtype == tensor.dtype)?;
            Some(found.2)
        };
        let mut names = HashMap::new();
        for k in 0..model.inputs() {
            write(&mut contents, k, &model.input(k)?)?;
            names.insert(k, Some(k));
        }
        let mut steps = Vec::new();
        for step in model.steps() {
            let value = |k: usize| {
                let tensor = step.input(k)?;
                if tensor.space == Space::Arena { read(&contents, &tensor).map(Some) } else { Some(None) }
            };
            let values: Vec<Option<u16>> = (0..step.counts().0).map(value).collect::<Option<_>>()?;
            for (k, value) in values.iter().enumerate() {
                if *names.entry(step.input_id(k)?).or_insert(*value) != *value {
                    return None;
                }
            }
            steps.push(values);
            let scratch = Place { space: Space::Arena, range: step.scratch() };
            contents.retain(|(other, _, _)| !other.meets(&scratch));
            if in_arena(step.output(0)) {
                write(&mut contents, step.output_id(0)?, &step.output(0)?)?;
                names.insert(step.output_id(0)?, step.output_id(0));
            }
        }
        let outputs =
            (0..model.outputs()).map(|k| read(&contents, &model.output(k)?)).collect::<Option<_>>()?;
        Some(Self { steps, outputs })
    }
}

/// A copy of the blob whose stored values lie where the plan puts them, whole and apart; its steps have no scratch.
fn moved(
    model: &Model<'_, AllOps>,
    flow: &Flow,
    stored: &impl Fn(u16, &TensorRecord) -> Option<Image>,
) -> Option<Aligned> {
    let blob = model.blob();
    let mut bytes = Aligned::copy(blob.bytes());
    let (tensors, steps) = (blob.section(SectionKind::Tensors)?, blob.section(SectionKind::Steps));
    let mut shift = |id: u16, value: u16| -> Option<()> {
        let record = blob.tensor(id)?;
        // What has no stored form is read by no step of the copy.
        let start = stored(value, &record).map_or(0, |image| image.start);
        let record = TensorRecord { offset: u32::try_from(start).ok()?, window_rows: 0, ..record };
        let viewed = blob.viewed(id).and_then(|viewed| u16::try_from(viewed).ok());
        let at = tensors.offset as usize + usize::from(id) * tensors.stride as usize;
        bytes.get_mut().get_mut(at..at + TensorRecord::BYTES)?.copy_from_slice(&record.emit(viewed));
        Some(())
    };
    for (step, values) in model.steps().zip(&flow.steps) {
        for (k, value) in values.iter().enumerate() {
            if let Some(value) = value {
                shift(step.input_id(k)?, *value)?;
            }
        }
        if in_arena(step.output(0)) {
            shift(step.output_id(0)?, step.output_id(0)?)?;
        }
    }
    for step in model.steps() {
        let steps = steps?;
        let record = StepRecord { scratch_bytes: 0, ..blob.step(step.index())? };
        let at = steps.offset as usize + usize::from(step.index()) * steps.stride as usize;
        bytes.get_mut().get_mut(at..at + StepRecord::BYTES)?.copy_from_slice(&record.emit());
    }
    Some(bytes)
}
