//! The flags that name samples, shared by the commands that read them.

use std::ops::Range;
use std::path::Path;

use clap::Args;
use miette::Diagnostic;

use crate::calibrate::Dataset;
use crate::import::npz::{Archive, Data};

/// Which samples of which file.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Name of the input array [default: the first one whose items fit the model's input]
    #[arg(long, value_name = "KEY")]
    pub input: Option<String>,
    /// Only these samples, counted from 0, the end excluded
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub samples: Option<Range<usize>>,
    /// Name of an integer array of class labels, for accuracy
    #[arg(long, value_name = "KEY")]
    pub labels: Option<String>,
}

#[derive(Debug, Diagnostic, thiserror::Error)]
enum SelectionError {
    #[error("`--samples {}..{}` does not fit the {available} samples of `{path}`", range.start, range.end)]
    #[diagnostic(help("choose a non-empty range within 0..{available}"))]
    Range { range: Range<usize>, available: usize, path: String },
    #[error("the model has {0} inputs, data files can feed one")]
    #[diagnostic(help("make all inputs but one constant before export"))]
    Inputs(usize),
}

fn parse_range(text: &str) -> Result<Range<usize>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no sample number"));
    let (start, end) = text.split_once("..").ok_or("a range is written A..B, for example 0..250")?;
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err("the range is empty".into()) } else { Ok(range) }
}

impl Selection {
    /// Reads the selected samples for a model whose inputs have these shapes, batch axis included.
    pub fn read(&self, path: &Path, input_shapes: &[Vec<usize>]) -> miette::Result<Dataset> {
        let [shape] = input_shapes else {
            return Err(SelectionError::Inputs(input_shapes.len()).into());
        };
        let archive = Archive::open(path)?;
        let item_shape = if shape.first() == Some(&1) { &shape[1..] } else { &shape[..] };
        let item: usize = shape.iter().product();
        let values = match archive.input(self.input.as_deref(), item_shape)?.data {
            Data::F32(values) => values,
            Data::I64(values) => values.into_iter().map(|x| x as f32).collect(),
        };
        let samples = values.len() / item.max(1);
        let labels = match &self.labels {
            Some(key) => archive.labels(Some(key), samples)?,
            None => None,
        };
        let data = Dataset { inputs: vec![values], samples, labels };
        match &self.samples {
            None => Ok(data),
            Some(range) if range.end <= samples => Ok(data.slice(range.clone())),
            Some(range) => Err(SelectionError::Range {
                range: range.clone(),
                available: samples,
                path: path.display().to_string(),
            }
            .into()),
        }
    }
}
