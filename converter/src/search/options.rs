//! What a search may do, and what it tells while it runs.

use tucano::backend::spec::Core;

use super::Budget;
use crate::quantize::Widths;

/// Which formats may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// All layers stay as they are.
    #[default]
    None,
    /// Low rank for dense layers and 1x1 convolutions.
    LowRank,
    /// Tucker-2 for larger convolutions, low rank for the others.
    Tucker,
    /// Canonical polyadic for larger convolutions, low rank for the others.
    Cp,
    /// Column filters, then row filters.
    OneWay,
    /// Window filters for each channel, then 1x1.
    DepthwisePointwise,
    /// Tensor trains for dense layers.
    TensorTrain,
    /// Kronecker sums with this number of blocks, or any.
    Hypercomplex(Option<usize>),
    /// Fewer channels.
    Prune,
    /// Any of these, chosen for each layer.
    Auto,
}

impl Method {
    /// Whether a layer may take a form of this method: its own, low rank beside the convolution formats, any under [`Method::Auto`].
    pub fn allows(self, form: Self) -> bool {
        let beside = matches!(self, Self::Tucker | Self::Cp | Self::OneWay | Self::DepthwisePointwise);
        let same = match (self, form) {
            (Self::Hypercomplex(_), Self::Hypercomplex(_)) => true,
            _ => self == form,
        };
        same || self == Self::Auto || (form == Self::LowRank && beside)
    }
}

/// What to search for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Allowed formats.
    pub method: Method,
    /// Judge networks as integers of these widths (weights as of 8 bits); as floats if `None`.
    pub int8: Option<Widths>,
    /// Largest relative RMS error of the network's output, on calibration samples that no fit has seen.
    pub max_error: Option<f64>,
    /// Largest drop of accuracy in percentage points, judged by labels across folds of the calibration samples.
    pub max_drop: Option<f64>,
    /// How many times fewer parameters, at least.
    pub ratio: Option<f64>,
    /// How many times fewer MACs, at least.
    pub macs_ratio: Option<f64>,
    /// Figures that the blob must keep on its target.
    pub budget: Budget,
    /// Parameters and MACs that ratios are of; those of the graph if `None`.
    pub original: Option<(usize, u64)>,
    /// The core that instructions are counted on.
    pub core: Core,
}

impl Options {
    /// Whether a size is asked for.
    pub fn is_sized(&self) -> bool {
        self.ratio.is_some() || self.macs_ratio.is_some() || !self.budget.is_open()
    }

    /// A method without a budget.
    pub const fn of(method: Method) -> Self {
        Self {
            method,
            int8: None,
            max_error: None,
            max_drop: None,
            ratio: None,
            macs_ratio: None,
            budget: Budget { flash: None, ram: None, macs: None, instructions: None },
            original: None,
            core: Core::CortexM4,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::of(Method::None)
    }
}

/// Told about the search as it goes on, perhaps from several threads.
pub trait Progress: Sync {
    /// `steps` more [`Progress::step`] calls will come.
    fn expect(&self, steps: usize);
    /// A step begins.
    fn step(&self, message: &str);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn expect(&self, _: usize) {}
    fn step(&self, _: &str) {}
}
