//! Why a search gives nothing.

use crate::{lower, passes, quantize};

use super::judgement::FEWEST_JUDGED;

/// Why a search gives nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// An option is out of range.
    #[error("{option} must be {wanted}, got {value}")]
    Option {
        /// The flag.
        option: &'static str,
        /// What it may be.
        wanted: &'static str,
        /// What it is.
        value: f64,
    },
    /// An error limit needs data.
    #[error(
        "a limit on the output's error cannot be judged on {samples} calibration samples, only on {FEWEST_JUDGED} or more"
    )]
    #[diagnostic(help(
        "give more samples with --calibrate DATA.npz, or a size with --ratio or --macs-ratio"
    ))]
    NeedsCalibration {
        /// Samples given.
        samples: usize,
    },
    /// Pruning needs data.
    #[error("which channels the network can spare is not to be seen on {samples} calibration samples")]
    #[diagnostic(help(
        "give samples of typical inputs with --calibrate DATA.npz: {FEWEST_JUDGED} or more, or a size as well"
    ))]
    Blind {
        /// Samples given.
        samples: usize,
    },
    /// The samples do not fit the graph.
    #[error(
        "calibration data holds {found} numbers for graph input `{input}`, but {samples} samples need {wanted}"
    )]
    Samples {
        /// Name of the input.
        input: String,
        /// Numbers given.
        found: usize,
        /// Samples claimed.
        samples: usize,
        /// Numbers needed.
        wanted: usize,
    },
    /// No assignment of ranks is small enough.
    #[error(
        "{:.0} {what} cannot be reached with this method ({wanted:.2}x fewer): at most {reachable:.2}x, which is {:.0} {what}",
        nearest * reachable / wanted, nearest.ceil()
    )]
    #[diagnostic(help("ask for no more than that, or allow more formats"))]
    Budget {
        /// `parameters` or `MACs`.
        what: &'static str,
        /// The ratio asked for.
        wanted: f64,
        /// The largest possible.
        reachable: f64,
        /// The same as a number.
        nearest: f64,
    },
    /// No assignment fits into memory.
    #[error("an arena of {wanted} bytes cannot be reached with this method: {nearest} at least{step}")]
    #[diagnostic(help("raise the budget to ram={nearest} or more, or allow more formats (--auto)"))]
    Memory {
        /// The limit.
        wanted: usize,
        /// The least possible.
        nearest: usize,
        /// Where, in words; empty if that is no layer.
        step: String,
    },
    /// The plan of a network's memory fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] crate::plan::memory::Error),
    /// Each budget can be met, but not all at once.
    #[error("no network was found with {asked}")]
    #[diagnostic(help("relax one of them, or allow more formats (--auto)"))]
    Together {
        /// All that was asked, in words.
        asked: String,
    },
    /// The size, or the rounding of the network without any compression, costs more error than allowed.
    #[error(
        "the relative output error is {reached:.4} on held-out samples with the size or the rounding asked for, above the limit of {wanted}"
    )]
    #[diagnostic(help(
        "raise --max-error, ask for less (--budget, --ratio, --macs-ratio), or leave out --int8"
    ))]
    TooMuchError {
        /// The limit.
        wanted: f64,
        /// Measured on held-out samples.
        reached: f64,
    },
    /// A limit on the drop of accuracy that these samples cannot judge.
    #[error("a limit on the accuracy's drop cannot be judged: {why}")]
    #[diagnostic(help(
        "give labelled samples with --calibrate and --labels, or limit --max-error or a size"
    ))]
    Unlabelled {
        /// What is missing.
        why: String,
    },
    /// A network cannot be judged because a weight is no chain of layers.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lower(#[from] lower::Error),
    /// A network cannot be judged because an operator has no step.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Legalize(#[from] passes::legalize::Error),
    /// A network cannot be judged as integers.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Quantize(#[from] quantize::Error),
    /// No layer has so many blocks.
    #[error("n = {wanted} divides both sides of no layer")]
    #[diagnostic(help("numbers that do: {}", fitting.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")))]
    Blocks {
        /// The number asked for.
        wanted: usize,
        /// Those that would.
        fitting: Vec<usize>,
    },
    /// One layer cannot be fitted.
    #[error("node `{node}` ({op}) cannot be compressed: {reason}")]
    #[diagnostic(help("check weights and calibration data for huge or non-finite numbers"))]
    Fit {
        /// The layer.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
}
