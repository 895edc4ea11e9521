//! What can be wrong with a model.

use std::fmt;
use std::path::PathBuf;

/// Why a model could not be imported.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The model or its external data.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("not an ONNX model: {why}")]
    #[diagnostic(help("the file may be truncated or of another format; export or download it again"))]
    Decode {
        /// What is wrong.
        why: String,
    },
    /// The operator set is unknown or too old.
    #[error("the model uses operator set {found} of the default domain; 7 to 24 are known")]
    #[diagnostic(help(
        "export it with an `opset_version` of 7 to 24, or run onnx.version_converter over it"
    ))]
    Opset {
        /// The version, 0 if the model names none.
        found: i64,
    },
    /// An extent is not known and is no batch axis.
    #[error("input `{input}` has no fixed extent on axis {axis} (`{extent}`)")]
    #[diagnostic(help(
        "only axis 0 may be left open (`--batch`); export with fixed shapes, or run \
         `python -m onnxruntime.tools.make_dynamic_shape_fixed` over the model"
    ))]
    DynamicShape {
        /// Name of the graph input.
        input: String,
        /// Which axis.
        axis: usize,
        /// The symbol or number that stands there.
        extent: String,
    },
    /// An input that the graph representation cannot hold.
    #[error("input `{input}` {why}")]
    #[diagnostic(help("export the model with float32 tensors of known rank as inputs"))]
    Input {
        /// Name of the graph input.
        input: String,
        /// What is wrong.
        why: String,
    },
    /// A batch size was asked for that the model does not let choose.
    #[error("a batch of {batch} was asked for, but the batch axis of every input is fixed")]
    #[diagnostic(help("leave `--batch` out, or export the model with a symbolic batch axis"))]
    FixedBatch {
        /// What was asked for.
        batch: usize,
    },
    /// A tensor without elements.
    #[error("`{name}` has shape {shape:?}: zero-sized tensors cannot be converted")]
    #[diagnostic(help("export the model with extents of at least 1"))]
    ZeroSized {
        /// The input or initializer.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// A constant tensor that cannot be read.
    #[error("initializer `{name}`: {why}")]
    #[diagnostic(help("the model file is damaged or uses a feature that is not supported; export it again"))]
    Initializer {
        /// Which one.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A constant tensor whose file cannot be read.
    #[error("initializer `{name}` lies in external file `{location}`: {why}")]
    #[diagnostic(help(
        "keep the external data file beside the model, as it was exported, or save the model as one file"
    ))]
    External {
        /// Which one.
        name: String,
        /// Path as the model gives it.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// A weight that is not a number.
    #[error("initializer `{name}` holds {value} at index {index:?}")]
    #[diagnostic(help("the training diverged or the file is damaged: weights must be finite"))]
    NotFinite {
        /// Which one.
        name: String,
        /// Position, one number for each axis.
        index: Vec<usize>,
        /// NaN or an infinity.
        value: f64,
    },
    /// The graph is not well formed.
    #[error("broken graph: {why}")]
    #[diagnostic(help("run onnx.checker.check_model over the model and export it again"))]
    Graph {
        /// What is wrong, naming node and value.
        why: String,
    },
    /// The declared shape of an output is not what the graph computes.
    #[error("output `{output}` is declared as {declared} but computes to {computed:?}")]
    #[diagnostic(help("export the model again, or remove the declared shape; check `--batch`"))]
    OutputShape {
        /// Name of the graph output.
        output: String,
        /// As the model says, `?` for open axes.
        declared: String,
        /// As the operators give it.
        computed: Vec<usize>,
    },
    /// Operators that cannot be converted.
    #[error("{0}")]
    #[diagnostic(help("each line says what would remove that obstacle"))]
    Blocked(Blockers),
}

/// Everything in a model that cannot be converted.
#[derive(Clone, Debug, PartialEq)]
pub struct Blockers(pub Vec<Blocker>);

/// Nodes of one operator that cannot be converted for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// Names of the nodes, in graph order.
    pub nodes: Vec<String>,
    /// Operator.
    pub op: String,
    /// What stands in the way.
    pub why: String,
    /// What would remove it.
    pub fix: String,
}

/// Names that a line of the report spells out before it only counts.
const NAMES_SHOWN: usize = 8;

impl fmt::Display for Blockers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: usize = self.0.iter().map(|blocker| blocker.nodes.len()).sum();
        write!(f, "{nodes} node(s) cannot be converted:")?;
        self.0.iter().try_for_each(|blocker| write!(f, "\n  {blocker}"))
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> =
            self.nodes.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
        write!(f, "{} {}", self.op, shown.join(", "))?;
        if let Some(more @ 1..) = self.nodes.len().checked_sub(NAMES_SHOWN) {
            write!(f, " and {more} more")?;
        }
        write!(f, ": {}; fix: {}", self.why, self.fix)
    }
}
