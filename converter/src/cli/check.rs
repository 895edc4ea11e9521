//! `tucano check`: can this model be converted, and if not, what stands in the way?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::graph::Graph;
use crate::{passes, report};

use super::model;

/// Flags of `tucano check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Extent of a symbolic batch axis
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Write the result as JSON
    #[arg(long, value_name = "F.json")]
    json: Option<PathBuf>,
}

/// `tucano.check/1`.
#[derive(Serialize)]
struct Check {
    schema: &'static str,
    convertible: bool,
    inputs: Vec<Shape>,
    outputs: Vec<Shape>,
    nodes: usize,
    parameters: usize,
    macs: u64,
    /// The importer's words.
    blockers: Option<String>,
}

#[derive(Serialize)]
struct Shape {
    name: String,
    shape: Vec<usize>,
}

impl Check {
    fn of(graph: &Graph) -> Self {
        let shapes = |ids: &[crate::graph::ValueId]| {
            let shape =
                |id: &_| Shape { name: graph.value(*id).name.clone(), shape: graph.shape(*id).to_vec() };
            ids.iter().map(shape).collect()
        };
        Self {
            schema: "tucano.check/1",
            convertible: true,
            inputs: shapes(&graph.inputs),
            outputs: shapes(&graph.outputs),
            nodes: graph.nodes.len(),
            parameters: graph.parameters(),
            macs: graph.macs(),
            blockers: None,
        }
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        let result = model::open(&self.model, self.batch);
        let check = match &result {
            Ok(graph) => Check::of(&passes::simplify(graph)),
            Err(error) => Check {
                convertible: false,
                blockers: Some(format!("{error:#}")),
                ..Check::of(&Graph::default())
            },
        };
        if let Some(path) = &self.json {
            report::write_json(path, &check)?;
        }
        result?;
        let shapes = |shapes: &[Shape]| {
            let texts: Vec<String> =
                shapes.iter().map(|shape| format!("{} {:?}", shape.name, shape.shape)).collect();
            texts.join(", ")
        };
        println!("{} can be converted.\n", self.model.display());
        let rows = [
            ("inputs", shapes(&check.inputs)),
            ("outputs", shapes(&check.outputs)),
            ("operations", check.nodes.to_string()),
            ("parameters", check.parameters.to_string()),
            ("MACs", check.macs.to_string()),
        ];
        println!("{}", report::key_value_table(rows));
        Ok(())
    }
}
