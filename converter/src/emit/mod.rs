//! Writes the blob and the Rust module.
//!
//! Takes a [`Program`]: the graph, its plan, and, for integer models, what `quantize` made of it. Gives the bytes of the blob
//! ([`emit`]) and the text of a module that includes it ([`module()`]), the same for the same program; [`write::write`] stores both or none.
//! Refused, naming the node: operators that exist for `f32` alone in an integer model.

mod module;
mod step;
pub mod write;

pub use module::{backend_type, declare_kernels, fingerprint_text, module};

use step::Constant;
use tucano::backend::spec::select::Isa;
use tucano::blob::{BlobBuilder, DType, RegionRecord, Space, TensorRecord};
use tucano::ops::OpCode;

use crate::graph::{Graph, ValueId};
use crate::plan::{ARENA_ALIGN, Plan, Region};
use crate::quantize::Quantized;

/// Why no blob could be written.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// An operator without a step of these types.
    #[error("node `{node}` ({op}): {why}")]
    #[diagnostic(help("convert without --int8, or express the node by other operators"))]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What stands in the way.
        why: String,
    },
    /// The format cannot hold the program.
    #[error("the blob cannot be written: {0}")]
    Blob(String),
}

/// All that is written.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The legalised graph; that of `quantized` for an integer model.
    pub graph: &'a Graph,
    /// Its layout and memory.
    pub plan: &'a Plan,
    /// Integer constants; `None` for an `f32` model.
    pub quantized: Option<&'a Quantized>,
    /// Whether the weights of an `f32` model, which are numbers of binary16 then, are stored as such.
    pub half_weights: bool,
    /// Names of the classes; may be empty.
    pub labels: &'a [String],
    /// For whose kernels weights are packed; the plan's.
    pub isa: Isa,
}

impl Program<'_> {
    /// Type of the elements of a value.
    fn dtype(&self, id: ValueId) -> DType {
        self.quantized.map_or(DType::F32, |quantized| quantized.dtype(id))
    }

    /// The distinct operation codes, ascending.
    fn op_codes(&self) -> Result<Vec<OpCode>, Error> {
        let codes: Result<Vec<OpCode>, Error> =
            self.plan.layout.steps.iter().map(|step| Ok(self.encode(step)?.op)).collect();
        let mut codes = codes?;
        codes.sort_unstable();
        codes.dedup();
        Ok(codes)
    }
}

/// A blob whose every word fits.
fn word(number: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::Blob(format!("{number} does not fit 32 bits")))
}

/// As [`word`], for fields of 16 bits.
fn half_word(number: usize) -> Result<u16, Error> {
    u16::try_from(number).map_err(|_| Error::Blob(format!("{number} does not fit 16 bits")))
}

/// The bytes of the blob.
pub fn emit(program: &Program) -> Result<Vec<u8>, Error> {
    let layout = &program.plan.layout;
    let mut builder = BlobBuilder::new();
    let mut tensors = Vec::with_capacity(layout.tensors.len());
    for ((tensor, offset), rows) in
        layout.tensors.iter().zip(&program.plan.offsets).zip(&program.plan.window_rows)
    {
        let mut shape = [1; 4];
        for (slot, extent) in shape.iter_mut().zip(&tensor.shape) {
            *slot = word(*extent)?;
        }
        let quantization = program.quantized.and_then(|_| program.graph.value(tensor.value).quantization);
        tensors.push(builder.tensor(TensorRecord {
            space: Space::Arena,
            dtype: program.dtype(tensor.value),
            rank: tensor.shape.len() as u8,
            shape,
            offset: word(*offset)?,
            window_rows: half_word(*rows)?,
            slack: 0,
            scale_bits: quantization.map_or(1.0, |q| q.scale).to_bits(),
            zero_point: quantization.map_or(0, |q| q.zero_point),
        }));
    }
    for (step, (scratch_at, scratch_bytes)) in layout.steps.iter().zip(&program.plan.scratch) {
        let encoded = program.encode(step)?;
        let weights: Vec<u16> = encoded
            .weights
            .iter()
            .map(|Constant { dtype, packing, bytes }| builder.weight(*dtype, *packing, bytes))
            .collect();
        let inputs: Vec<u16> = step.inputs.iter().map(|tensor| tensors[*tensor]).collect();
        let output = [tensors[step.output]];
        let scratch = (word(*scratch_at)?, word(*scratch_bytes)?);
        builder.step(&step.name, encoded.op, &inputs, &output, &weights, &encoded.parameters, scratch);
    }
    for Region { demands, rows, .. } in &program.plan.regions {
        let [first, count, rows] = [demands.start, demands.len(), *rows].map(half_word);
        builder.region(RegionRecord { first: first?, count: count?, rows: rows? });
    }
    let of = |indices: &[usize]| indices.iter().map(|index| tensors[*index]).collect::<Vec<u16>>();
    builder.inputs(&of(&layout.inputs));
    builder.outputs(&of(&layout.outputs));
    layout.contracts.iter().for_each(|contract| builder.contract(*contract));
    if !program.labels.is_empty() {
        builder.labels(program.labels);
    }
    builder.model_name(&program.graph.name);
    builder
        .finish(word(program.plan.arena_bytes)?, 0, ARENA_ALIGN as u16)
        .map_err(|error| Error::Blob(error.to_string()))
}

#[cfg(test)]
mod tests;
