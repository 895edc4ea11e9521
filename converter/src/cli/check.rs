//! `tucano check`: can this model be converted, and if not, what stands in the way?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::model;
use crate::graph::{Graph, ValueId};
use crate::{import, passes, report};

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

/// `tucano.check/1`; `null` is unknown.
#[derive(Default, Serialize)]
struct Check {
    schema: &'static str,
    convertible: bool,
    inputs: Option<Vec<Shape>>,
    outputs: Option<Vec<Shape>>,
    nodes: Option<usize>,
    parameters: Option<usize>,
    macs: Option<u64>,
    /// One entry for each operator and reason.
    blockers: Vec<Blocker>,
    /// What is wrong with a file that could not be read at all.
    error: Option<String>,
}

#[derive(Serialize)]
struct Shape {
    name: String,
    shape: Vec<usize>,
}

#[derive(Serialize)]
struct Blocker {
    op: String,
    nodes: Vec<String>,
    why: String,
    fix: String,
}

impl Check {
    fn of(result: &Result<Graph, import::Error>) -> Self {
        let schema = "tucano.check/1";
        match result {
            Ok(model) => {
                let graph = passes::simplify(model);
                let shapes = |ids: &[ValueId]| {
                    let shape = |id: &ValueId| Shape {
                        name: graph.value(*id).name.clone(),
                        shape: graph.shape(*id).to_vec(),
                    };
                    Some(ids.iter().map(shape).collect())
                };
                Self {
                    schema,
                    convertible: true,
                    inputs: shapes(&graph.inputs),
                    outputs: shapes(&graph.outputs),
                    nodes: Some(graph.nodes.len()),
                    parameters: Some(graph.parameters()),
                    macs: Some(graph.macs()),
                    ..Self::default()
                }
            }
            Err(import::Error::Blocked(found)) => {
                let blocker = |found: &import::Blocker| Blocker {
                    op: found.op.clone(),
                    nodes: found.nodes.clone(),
                    why: found.why.clone(),
                    fix: found.fix.clone(),
                };
                Self { schema, blockers: found.0.iter().map(blocker).collect(), ..Self::default() }
            }
            Err(error) => Self { schema, error: Some(error.to_string()), ..Self::default() },
        }
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> miette::Result<()> {
        let result = import::import(&self.model, &import::Options { batch: self.batch });
        let check = Check::of(&result);
        if let Some(path) = &self.json {
            report::write_json(path, &check)?;
        }
        model::named(result, &self.model)?;
        let shapes = |shapes: &Option<Vec<Shape>>| {
            let texts = shapes.iter().flatten().map(|shape| format!("{} {:?}", shape.name, shape.shape));
            texts.collect::<Vec<_>>().join(", ")
        };
        let count = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
        println!("{} can be converted.\n", self.model.display());
        let rows = [
            ("inputs", shapes(&check.inputs)),
            ("outputs", shapes(&check.outputs)),
            ("operations", count(check.nodes.map(|nodes| nodes as u64))),
            ("parameters", count(check.parameters.map(|parameters| parameters as u64))),
            ("MACs", count(check.macs)),
        ];
        println!("{}", report::key_value_table(rows));
        Ok(())
    }
}
