//! The narrow waist: a layer's weight is dense or a tensor network; topology never changes until `lower`.

use super::Tensor;

/// What a linear layer multiplies by.
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// Convolution `[o, i / groups, kh, kw]`, dense layer `[o, i]`.
    Dense(Tensor),
    /// A factorised weight.
    Network(Network),
}

/// A weight as a product of small cores, summed over their shared bonds.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Short format name for reports: `low-rank`, `tucker`.
    pub format: &'static str,
    /// Shape of the dense weight that the cores stand for.
    pub shape: Vec<usize>,
    /// The cores, in any order.
    pub cores: Vec<Core>,
    /// Indices into `cores` in the order in which they are applied to the layer's input.
    pub contraction: Vec<usize>,
    /// Factor of each output row, merged into the last stage at lowering (per-channel requantisation makes it free).
    pub row_scale: Option<Vec<f32>>,
}

/// One core of a [`Network`]: a tensor whose axes are named.
#[derive(Clone, Debug, PartialEq)]
pub struct Core {
    /// The numbers.
    pub tensor: Tensor,
    /// One name for each axis of `tensor`.
    pub modes: Vec<Mode>,
}

/// What an axis of a core stands for. Cores that share a [`Mode::Bond`] are summed over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Output channel; the number counts the parts of a split axis (tensor train), most significant first.
    Output(u8),
    /// Input channel, split like [`Mode::Output`].
    Input(u8),
    /// Kernel row.
    KernelHeight,
    /// Kernel column.
    KernelWidth,
    /// An inner index; its extent is a rank.
    Bond(u8),
}

impl Weight {
    /// Shape of the weight as a dense array.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => &tensor.shape,
            Self::Network(network) => &network.shape,
        }
    }

    /// Numbers as they will be stored; of a factorised weight by its stages.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.len(),
            Self::Network(network) => crate::lower::network_parameters(network),
        }
    }
}
