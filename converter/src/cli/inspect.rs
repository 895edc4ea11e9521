//! `tucano inspect`: what a blob holds.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tucano::backend::spec::Core;
use tucano::blob::{DType, TensorRecord};
use tucano::host::{Runner, Terminal};

use super::blob;
use super::convert::cores;
use crate::plan::cost;
use crate::plan::needs::missed;
use crate::report;

/// Flags of `tucano inspect`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The blob
    #[arg(value_name = "BLOB.tuc")]
    blob: PathBuf,
    /// The core whose kernels are named
    #[arg(long, value_name = "CORE", value_parser = cores(), default_value = Core::CortexM4.name())]
    target: Core,
    /// Write the result as JSON
    #[arg(long, value_name = "F.json")]
    json: Option<PathBuf>,
}

/// `tucano.inspect/1`.
#[derive(Serialize)]
struct Inspection {
    schema: &'static str,
    model: Option<String>,
    target: &'static str,
    version: String,
    blob_bytes: usize,
    weight_bytes: u64,
    arena_bytes: usize,
    state_bytes: usize,
    op_set: Vec<String>,
    inputs: Vec<End>,
    outputs: Vec<End>,
    steps: Vec<Step>,
}

/// A graph input or output.
#[derive(Serialize)]
struct End {
    dtype: &'static str,
    /// As stored.
    shape: Vec<u32>,
    /// In the source model's axes.
    source_shape: Vec<usize>,
    /// Stored axis `k` is the source's axis `order[k]`.
    order: Vec<u8>,
    scale: f32,
    zero_point: i32,
}

#[derive(Serialize)]
struct Step {
    name: Option<String>,
    op: String,
    /// What the target takes for it, `scalar` for portable code.
    kernel: &'static str,
    /// What it would take, had the blob been laid out for it.
    missed: Option<&'static str>,
    /// Order of its weights; none for a step without weights.
    packing: Option<String>,
    in_place: bool,
    /// How often it runs: more than once in a region.
    turns: u64,
    inputs: Vec<Vec<u32>>,
    output: Vec<u32>,
    output_dtype: &'static str,
    arena_offset: u32,
    weight_bytes: usize,
    scratch_bytes: usize,
}

fn shape(tensor: &TensorRecord) -> Vec<u32> {
    tensor.shape.iter().copied().take(usize::from(tensor.rank)).collect()
}

fn end(terminal: &Terminal) -> End {
    let contract = &terminal.contract;
    End {
        dtype: terminal.tensor.dtype.name(),
        shape: shape(&terminal.tensor),
        source_shape: terminal.shape(),
        order: contract.order.iter().copied().take(usize::from(contract.rank)).collect(),
        scale: f32::from_bits(terminal.tensor.scale_bits),
        zero_point: terminal.tensor.zero_point,
    }
}

impl Inspection {
    fn of(runner: &Runner, target: Core) -> Self {
        let model = runner.model();
        let blob = model.blob();
        let steps: Vec<Step> = model
            .steps()
            .map(|step| {
                let (inputs, _, weights) = step.counts();
                let bytes = |k| step.weight(k).map_or(0, |w| w.elements as usize * w.dtype.bytes());
                let op =
                    tucano::ops::OpCode::parse(step.op()).map_or("unknown".into(), |op| format!("{op:?}"));
                let output = step.output(0);
                Step {
                    name: step.name().map(str::to_string),
                    op: op.clone(),
                    kernel: step.selection(target.isa()).name,
                    missed: missed(&step, target.isa()),
                    packing: step.weight(0).map(|weight| format!("{:?}", weight.packing)),
                    in_place: step.in_place(),
                    turns: cost::turns(&model, step.index()),
                    inputs: (0..inputs).filter_map(|k| step.input(k)).map(|tensor| shape(&tensor)).collect(),
                    output: output.as_ref().map(shape).unwrap_or_default(),
                    output_dtype: output.map_or(DType::I8, |tensor| tensor.dtype).name(),
                    arena_offset: output.map_or(0, |tensor| tensor.offset),
                    weight_bytes: (0..weights).map(bytes).sum(),
                    scratch_bytes: step.scratch_bytes(),
                }
            })
            .collect();
        let mut op_set: Vec<String> = steps.iter().map(|step| step.op.clone()).collect();
        op_set.sort();
        op_set.dedup();
        Self {
            schema: "tucano.inspect/1",
            model: blob.model_name().map(str::to_string),
            target: target.name(),
            version: format!("{}.{}", tucano::blob::MAJOR, blob.header().minor),
            blob_bytes: blob.bytes().len(),
            weight_bytes: blob.constant_bytes(),
            arena_bytes: model.arena_bytes(),
            state_bytes: model.state_bytes(),
            op_set,
            inputs: runner.inputs().iter().map(end).collect(),
            outputs: runner.outputs().iter().map(end).collect(),
            steps,
        }
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        let inspection = Inspection::of(&blob::open(&self.blob)?, self.target);
        if let Some(path) = &self.json {
            report::write_json(path, &inspection)?;
        }
        let ends = |ends: &[End]| {
            let text = |end: &End| {
                let mut text = format!("{} {:?}", end.dtype, end.shape);
                if end.shape.iter().map(|x| *x as usize).ne(end.source_shape.iter().copied()) {
                    text += &format!(", in the model {:?}", end.source_shape);
                }
                if end.dtype != "f32" {
                    text += &format!(", real = {} * (stored - {})", end.scale, end.zero_point);
                }
                text
            };
            ends.iter().map(text).collect::<Vec<_>>().join("; ")
        };
        let rows = [
            ("model", inspection.model.clone().unwrap_or_default()),
            ("kernels of", inspection.target.to_string()),
            ("format version", inspection.version.clone()),
            ("blob", report::human_bytes(inspection.blob_bytes)),
            ("weights", report::human_bytes(inspection.weight_bytes as usize)),
            ("arena", format!("{} bytes", inspection.arena_bytes)),
            ("state", format!("{} bytes", inspection.state_bytes)),
            ("op set", inspection.op_set.join(", ")),
            ("inputs", ends(&inspection.inputs)),
            ("outputs", ends(&inspection.outputs)),
        ];
        println!("{}\n", report::key_value_table(rows));
        let mut table = report::plain_table(&[
            "step",
            "operation",
            "kernel",
            "inputs",
            "output",
            "type",
            "at",
            "turns",
            "scratch",
            "weights",
            "packing",
        ]);
        for step in &inspection.steps {
            let inputs: Vec<String> = step.inputs.iter().map(|shape| format!("{shape:?}")).collect();
            table.add_row([
                step.name.clone().unwrap_or_default(),
                step.op.clone(),
                step.kernel.to_string(),
                inputs.join(" "),
                format!("{:?}", step.output),
                step.output_dtype.to_string(),
                if step.in_place { "in place".into() } else { step.arena_offset.to_string() },
                step.turns.to_string(),
                step.scratch_bytes.to_string(),
                report::human_bytes(step.weight_bytes),
                step.packing.clone().unwrap_or_default(),
            ]);
        }
        println!("{table}");
        for step in &inspection.steps {
            if let Some(kernel) = step.missed {
                println!(
                    "`{}` would run by `{kernel}` if the model were converted with --target {}",
                    step.name.as_deref().unwrap_or_default(),
                    inspection.target
                );
            }
        }
        Ok(())
    }
}
