//! Runs blobs on a host: owns an aligned copy of the blob, the arena and the state.
//!
//! Takes `f32` data in the source model's own order of axes, as the blob's contracts state it; gives `f32` outputs likewise. This is
//! what tools, tests and benches use; with raw bytes it gives what a device gives.
//!
//! Weights that are packed for a core are taken back into plain order once, for the runner's own use: [`Runner::model`] is the blob as it was given.

mod aligned;
mod batch;
mod plain;
pub(crate) mod program;

#[cfg(target_arch = "x86_64")]
pub use crate::backend::x86::probe;

use core::fmt;
use std::sync::Arc;

use crate::backend::{Backend as _, Scalar};
use crate::blob::{Blob, DType, InputContract, Layout, MAX_RANK, TensorRecord};
use crate::error::{Error, ErrorKind};
use crate::{AllOps, Model, Observer, Session};
use aligned::Aligned;
use program::{Kernels, Program};

/// A graph input or output as the source model sees it.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// The tensor in the blob.
    pub tensor: TensorRecord,
    /// The source model's extents and the order of the stored axes.
    pub contract: InputContract,
}

impl Terminal {
    fn new(blob: &Blob<'_>, tensor: Option<TensorRecord>, index: u16) -> Result<Self, Error> {
        let tensor = tensor.ok_or(Error::new(ErrorKind::Terminal, u32::from(index)))?;
        let same = || InputContract { rank: tensor.rank, order: [0, 1, 2, 3], shape: tensor.shape };
        let contract = match blob.section(crate::blob::SectionKind::Contracts) {
            Some(_) => blob.contract(index),
            None => Some(same()),
        };
        let elements =
            |shape: [u32; MAX_RANK]| shape.iter().try_fold(1u32, |product, &axis| product.checked_mul(axis));
        contract
            .filter(|contract| elements(contract.shape) == elements(tensor.shape))
            .map(|contract| Self { tensor, contract })
            .ok_or(Error::new(ErrorKind::Contract, u32::from(index)))
    }

    /// The source model's extents.
    pub fn shape(&self) -> Vec<usize> {
        self.contract
            .shape
            .iter()
            .take(usize::from(self.contract.rank))
            .map(|&extent| extent as usize)
            .collect()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// The scale of the stored integers, 1 for `f32`.
    pub fn scale(&self) -> f32 {
        f32::from_bits(self.tensor.scale_bits)
    }

    /// For each stored element in order, the index of the source model's element.
    fn sources(&self) -> impl Iterator<Item = usize> {
        let source = self.contract.shape.map(|extent| extent as usize);
        let rank = usize::from(self.contract.rank);
        let mut source_strides = [1; MAX_RANK];
        for axis in (0..rank.saturating_sub(1)).rev() {
            source_strides[axis] = source_strides[axis + 1] * source[axis + 1];
        }
        let order = self.contract.order;
        let stored: Vec<(usize, usize)> = (0..rank)
            .map(|axis| usize::from(order[axis]))
            .map(|axis| (source[axis], source_strides[axis]))
            .collect();
        (0..self.elements()).map(move |mut index| {
            let mut place = 0;
            for &(extent, stride) in stored.iter().rev() {
                place += index % extent * stride;
                index /= extent;
            }
            place
        })
    }

    /// Stores `f32` data: permuted, and for an integer tensor quantised, rounding half away from zero and clamping.
    ///
    /// # Errors
    /// [`ErrorKind::InputLength`], [`ErrorKind::NotFinite`], [`ErrorKind::TerminalType`].
    pub fn store(&self, data: &[f32], bytes: &mut [u8]) -> Result<(), Error> {
        if data.len() != self.elements() || bytes.len() != data.len() * self.tensor.dtype.bytes() {
            return Err(Error::new(ErrorKind::InputLength, self.elements() as u32));
        }
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, at as u32));
        }
        let values = self.sources().map(|source| data[source]);
        let zero_point = f64::from(self.tensor.zero_point);
        let quantised = |value: f32| (f64::from(value) / f64::from(self.scale())).round() + zero_point;
        // Casts from float to integer saturate, which is the clamp.
        match self.tensor.dtype {
            DType::F32 => {
                values.zip(bytes.chunks_exact_mut(4)).for_each(|(v, b)| b.copy_from_slice(&v.to_le_bytes()))
            }
            DType::I8 => values.zip(bytes).for_each(|(v, b)| *b = (quantised(v) as i8).cast_unsigned()),
            DType::I16 => values
                .zip(bytes.chunks_exact_mut(2))
                .for_each(|(v, b)| b.copy_from_slice(&(quantised(v) as i16).to_le_bytes())),
            other => return Err(Error::new(ErrorKind::TerminalType, other as u32)),
        }
        Ok(())
    }

    /// Fetches data as `f32` in the source model's order: dequantised and permuted back.
    ///
    /// # Errors
    /// [`ErrorKind::InputLength`], [`ErrorKind::TerminalType`].
    pub fn fetch(&self, bytes: &[u8]) -> Result<Vec<f32>, Error> {
        if bytes.len() != self.elements() * self.tensor.dtype.bytes() {
            return Err(Error::new(ErrorKind::InputLength, self.elements() as u32));
        }
        let real =
            |stored: i32| (f64::from(stored - self.tensor.zero_point) * f64::from(self.scale())) as f32;
        let values: Vec<f32> = match self.tensor.dtype {
            DType::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            DType::I8 => bytes.iter().map(|&b| real(i32::from(b.cast_signed()))).collect(),
            DType::I16 => {
                bytes.as_chunks().0.iter().map(|&b| real(i32::from(i16::from_le_bytes(b)))).collect()
            }
            other => return Err(Error::new(ErrorKind::TerminalType, other as u32)),
        };
        let mut data = vec![0.0; values.len()];
        self.sources().zip(values).for_each(|(source, value)| data[source] = value);
        Ok(data)
    }
}

/// A loaded blob.
#[derive(Clone, Debug)]
struct Stored {
    bytes: Arc<Aligned>,
    layout: Layout,
}

impl Stored {
    fn load(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = Arc::new(Aligned::copy(bytes));
        let layout = Model::<AllOps>::load(bytes.get())?.blob().layout();
        Ok(Self { bytes, layout })
    }

    fn model(&self) -> Model<'_, AllOps> {
        Model::of_loaded(Blob::from_parts(self.bytes.get(), self.layout))
    }
}

/// Sets of kernels that this machine runs, the fastest first.
fn kernels() -> impl Iterator<Item = &'static dyn Kernels> {
    #[cfg(target_arch = "x86_64")]
    let found = crate::backend::x86::available();
    #[cfg(target_arch = "aarch64")]
    let found = crate::backend::aarch64::available();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = core::iter::empty();
    found
}

/// Names of the backends that this machine runs, the fastest first; the last is the one of portable code.
pub fn backends() -> Vec<&'static str> {
    kernels().map(Kernels::name).chain([Scalar::NAME]).collect()
}

/// Multiply-adds of bytes a nanosecond that one core of this machine does at most, if it has an instruction for them: what benches compare
/// kernels with.
pub fn peak_byte_products() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    let peak = crate::backend::x86::peak::byte_products();
    #[cfg(not(target_arch = "x86_64"))]
    let peak = None;
    peak
}

/// Why a runner could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The blob was refused.
    Blob(Error),
    /// This machine has no backend of that name.
    Backend(String),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Blob(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(error) => error.fmt(f),
            Self::Backend(name) => {
                write!(f, "this machine has no backend `{name}`, but {}", backends().join(", "))
            }
        }
    }
}

impl core::error::Error for OpenError {}

/// A blob with all that is needed to run it. State persists from run to run until [`Runner::reset`].
#[derive(Clone, Debug)]
pub struct Runner {
    /// As given.
    blob: Stored,
    /// With plain weights, if that is another.
    plain: Option<Stored>,
    /// What is run; `None`: the blob's steps, by portable code.
    program: Option<Arc<Program>>,
    arena: Aligned,
    state: Aligned,
    inputs: Vec<Terminal>,
    outputs: Vec<Terminal>,
}

impl Runner {
    /// Copies a blob to an aligned place, validates it (structure, steps, weights' checksum, contracts) and prepares it for the fastest backend
    /// of this machine.
    ///
    /// # Errors
    /// Those of [`Model::load`]; [`ErrorKind::WeightsChecksum`], [`ErrorKind::Contract`].
    pub fn new(blob: impl AsRef<[u8]>) -> Result<Self, Error> {
        Self::prepare(blob.as_ref(), kernels().next())
    }

    /// As [`Runner::new`], for the backend with a name of [`backends`].
    ///
    /// # Errors
    /// As [`Runner::new`]; [`OpenError::Backend`].
    pub fn with_backend(blob: impl AsRef<[u8]>, name: &str) -> Result<Self, OpenError> {
        let found = match kernels().find(|kernels| kernels.name() == name) {
            None if name != Scalar::NAME => return Err(OpenError::Backend(name.to_string())),
            found => found,
        };
        Ok(Self::prepare(blob.as_ref(), found)?)
    }

    fn prepare(blob: &[u8], kernels: Option<&dyn Kernels>) -> Result<Self, Error> {
        let blob = Stored::load(blob)?;
        let model = blob.model();
        model.blob().verify_weights()?;
        let terminal = |tensor, index| Terminal::new(model.blob(), tensor, index);
        let inputs = (0..model.inputs()).map(|k| terminal(model.input(k), k)).collect::<Result<_, _>>()?;
        let outputs = (0..model.outputs())
            .map(|k| terminal(model.output(k), model.inputs() + k))
            .collect::<Result<_, _>>()?;
        // Without room for plain weights, packed ones run.
        let plain = plain::plain(&model).and_then(|bytes| Stored::load(&bytes).ok());
        let readable = plain.as_ref().unwrap_or(&blob).model();
        let program = kernels.and_then(|kernels| Program::new(&readable, kernels)).map(Arc::new);
        let arena =
            program.as_ref().map_or_else(|| Aligned::new(model.arena_bytes()), |program| program.arena());
        let state = Aligned::new(model.state_bytes());
        Ok(Self { blob, plain, program, arena, state, inputs, outputs })
    }

    /// The model.
    pub fn model(&self) -> Model<'_, AllOps> {
        self.blob.model()
    }

    /// Name of the backend that runs it.
    pub fn backend(&self) -> &'static str {
        self.program.as_ref().map_or(Scalar::NAME, |program| program.backend())
    }

    /// The graph inputs.
    pub fn inputs(&self) -> &[Terminal] {
        &self.inputs
    }

    /// The graph outputs.
    pub fn outputs(&self) -> &[Terminal] {
        &self.outputs
    }

    /// Zeroes the state.
    pub fn reset(&mut self) {
        self.state.get_mut().fill(0);
    }

    /// The stored bytes of graph input `k`, to be filled before [`Runner::invoke`]. They may change in a run: fill them before every one.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchTerminal`].
    pub fn input_mut(&mut self, k: u16) -> Result<&mut [u8], Error> {
        let none = Error::new(ErrorKind::NoSuchTerminal, self.inputs.len() as u32);
        match &self.program {
            Some(program) => {
                let range = program.input(k.into()).ok_or(none)?;
                self.arena.get_mut().get_mut(range).ok_or(none)
            }
            None => Session::new(&self.blob.model(), Scalar).input_mut(self.arena.get_mut(), k),
        }
    }

    /// The stored bytes of graph output `k`, as the last run left them.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchTerminal`].
    pub fn output(&self, k: u16) -> Result<&[u8], Error> {
        let none = Error::new(ErrorKind::NoSuchTerminal, self.outputs.len() as u32);
        match &self.program {
            Some(program) => {
                let range = program.output(k.into()).ok_or(none)?;
                self.arena.get().get(range).ok_or(none)
            }
            None => Session::new(&self.blob.model(), Scalar).output(self.arena.get(), k),
        }
    }

    /// Runs on what [`Runner::input_mut`] holds, without an allocation; [`Runner::output`] shows the results.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]: a fault of this crate.
    #[inline]
    pub fn invoke(&mut self) -> Result<(), Error> {
        match &self.program {
            Some(program) => program.run(self.arena.get_mut(), self.state.get_mut()),
            None => {
                let model = self.plain.as_ref().unwrap_or(&self.blob).model();
                Session::new(&model, Scalar).run(self.arena.get_mut(), self.state.get_mut())
            }
        }
    }

    /// As [`Runner::invoke`]; after each layer calls `done` with the step that it belongs to and the name of its kernel. A step may have
    /// several layers, a change of a graph input's form belongs to none. Portable code shows nothing.
    ///
    /// # Errors
    /// As [`Runner::invoke`].
    pub fn invoke_each(&mut self, mut done: impl FnMut(Option<u16>, &'static str)) -> Result<(), Error> {
        match &self.program {
            Some(program) => program.run_each(self.arena.get_mut(), self.state.get_mut(), &mut done),
            None => self.invoke(),
        }
    }

    /// Runs on one sample: for each graph input its elements in the source model's order. Gives each graph output likewise.
    ///
    /// # Errors
    /// [`ErrorKind::InputCount`], [`ErrorKind::InputLength`], [`ErrorKind::NotFinite`].
    pub fn run(&mut self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, Error> {
        let raw = self.quantise(inputs)?;
        let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
        let outputs = self.run_raw(&raw)?;
        self.fetch(&outputs)
    }

    /// As [`Runner::run`] by portable code, and shows each step to an observer.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn run_observed(
        &mut self,
        inputs: &[&[f32]],
        observer: &mut impl Observer,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let raw = self.quantise(inputs)?;
        let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
        let outputs = self.run_raw_observed(&raw, observer)?;
        self.fetch(&outputs)
    }

    fn fetch(&self, outputs: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, Error> {
        self.outputs.iter().zip(outputs).map(|(terminal, bytes)| terminal.fetch(bytes)).collect()
    }

    /// The bytes that graph inputs store for `f32` data in the source model's order: what to feed a device.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn quantise(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<u8>>, Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(ErrorKind::InputCount, self.inputs.len() as u32));
        }
        let stored = |(terminal, data): (&Terminal, &&[f32])| {
            let mut bytes = vec![0; terminal.elements() * terminal.tensor.dtype.bytes()];
            terminal.store(data, &mut bytes).map(|()| bytes)
        };
        self.inputs.iter().zip(inputs).map(stored).collect()
    }

    /// Runs on the stored bytes of one sample and gives the stored bytes of the outputs: what a device computes.
    ///
    /// # Errors
    /// [`ErrorKind::InputCount`], [`ErrorKind::InputLength`].
    pub fn run_raw(&mut self, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(ErrorKind::InputCount, self.inputs.len() as u32));
        }
        for (k, &input) in (0..).zip(inputs) {
            fill(self.input_mut(k)?, input)?;
        }
        self.invoke()?;
        (0..self.model().outputs()).map(|k| self.output(k).map(<[u8]>::to_vec)).collect()
    }

    /// As [`Runner::run_raw`], but by portable code whatever the backend: the bits of integers are the same, and shows each step to an
    /// observer.
    ///
    /// # Errors
    /// As [`Runner::run_raw`].
    pub fn run_raw_observed(
        &mut self,
        inputs: &[&[u8]],
        observer: &mut impl Observer,
    ) -> Result<Vec<Vec<u8>>, Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(ErrorKind::InputCount, self.inputs.len() as u32));
        }
        let model = self.plain.as_ref().unwrap_or(&self.blob).model();
        let session = Session::new(&model, Scalar);
        let mut arena = Aligned::new(model.arena_bytes());
        for (k, &input) in (0..).zip(inputs) {
            fill(session.input_mut(arena.get_mut(), k)?, input)?;
        }
        session.run_observed(arena.get_mut(), self.state.get_mut(), observer)?;
        (0..model.outputs()).map(|k| session.output(arena.get(), k).map(<[u8]>::to_vec)).collect()
    }
}

/// Copies an input to its place.
fn fill(place: &mut [u8], input: &[u8]) -> Result<(), Error> {
    if place.len() != input.len() {
        return Err(Error::new(ErrorKind::InputLength, place.len() as u32));
    }
    place.copy_from_slice(input);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Space;

    /// An image of 2 channels, 2 rows, 3 columns, stored as rows, columns, channels.
    fn image(dtype: DType, scale: f32, zero_point: i32) -> Terminal {
        Terminal {
            tensor: TensorRecord {
                space: Space::Arena,
                dtype,
                rank: 4,
                shape: [1, 2, 3, 2],
                offset: 0,
                window_rows: 0,
                slack: 0,
                scale_bits: scale.to_bits(),
                zero_point,
            },
            contract: InputContract { rank: 4, order: [0, 2, 3, 1], shape: [1, 2, 2, 3] },
        }
    }

    #[test]
    fn channels_move_inwards_and_back() {
        let terminal = image(DType::F32, 1.0, 0);
        let data: Vec<f32> = (0..12u8).map(f32::from).collect();
        let mut bytes = vec![0; 48];
        terminal.store(&data, &mut bytes).unwrap();
        let stored: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(stored, [0., 6., 1., 7., 2., 8., 3., 9., 4., 10., 5., 11.]);
        assert_eq!(terminal.fetch(&bytes).unwrap(), data);
    }

    #[test]
    fn integers_round_half_away_from_zero_and_clamp() {
        let terminal = image(DType::I8, 0.5, 10);
        let mut data = [0.0; 12];
        data[..6].copy_from_slice(&[0.25, -0.25, 0.24, 1e9, -1e9, 1.0]);
        let mut bytes = [0; 12];
        terminal.store(&data, &mut bytes).unwrap();
        let first_channel: Vec<i8> = bytes.iter().step_by(2).map(|byte| byte.cast_signed()).collect();
        assert_eq!(first_channel, [11, 9, 10, 127, -128, 12]);
        assert_eq!(terminal.fetch(&bytes).unwrap()[..6], [0.5, -0.5, 0.0, 58.5, -69.0, 1.0]);
    }

    #[test]
    fn wrong_data_is_refused() {
        let terminal = image(DType::I8, 0.5, 10);
        let kind =
            |data: &[f32]| terminal.store(data, &mut [0; 12]).map_err(|error| (error.kind, error.value));
        assert_eq!(kind(&[0.0; 11]), Err((ErrorKind::InputLength, 12)));
        let mut data = [0.0; 12];
        data[7] = f32::NAN;
        assert_eq!(kind(&data), Err((ErrorKind::NotFinite, 7)));
        assert_eq!(terminal.fetch(&[0; 13]).map_err(|error| error.kind), Err(ErrorKind::InputLength));
    }
}
