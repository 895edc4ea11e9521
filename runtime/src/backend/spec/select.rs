//! Which kernel a backend takes for a linear step, which order of weights it wants, and how much scratch: constant facts, compiled on every
//! target, so that the converter plans what a board will run and reports name it. Kernels ask the same functions, so a report cannot be wrong.

use super::{dsp, elementwise, helium, swar, v6m, v7m, x86};
use crate::blob::{DType, Matrix, Packing};
use crate::model::Step;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::ops::{OpCode, conv2d, last_axis};

/// Code of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// Armv6-M and Armv8-M baseline.
    ThumbV6M,
    /// Armv7-M.
    ThumbV7M,
    /// Armv7E-M, and Armv8-M with the DSP extension.
    ThumbDsp,
    /// Armv8.1-M with the vector extension.
    Helium,
    /// Hosts, whose kernels run prepared programs ([`crate::host`]): a session runs portable code there, so blobs are laid out for that.
    X86,
}

impl Isa {
    /// Name of its type in [`crate::backend`].
    pub const fn backend(self) -> &'static str {
        match self {
            Self::Scalar | Self::X86 => "Scalar",
            Self::ThumbV6M | Self::ThumbV7M => "ThumbScalar",
            Self::ThumbDsp => "ThumbDsp",
            Self::Helium => "Helium",
        }
    }

    /// Whether a firmware chooses kernels of its backend to link.
    pub const fn has_kernels(self) -> bool {
        !matches!(self, Self::Scalar | Self::X86)
    }
}

/// A linear operator with its extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// Convolution in groups.
    Conv2d {
        /// Its windows.
        window: Window,
        /// Groups.
        groups: usize,
    },
    /// Depthwise convolution.
    DepthwiseConv2d {
        /// Its windows.
        window: Window,
    },
    /// Dense layer.
    Dense {
        /// Elements of an input row.
        inputs: usize,
        /// Elements of an output row.
        outputs: usize,
    },
}

/// What has to be calculated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The operator.
    pub linear: Linear,
    /// Type of the input's elements.
    pub input: DType,
    /// Type of the output's elements.
    pub output: DType,
    /// Order of the weights.
    pub packing: Packing,
    /// Whether the output lies in the place of the input.
    pub in_place: bool,
    /// What its constants are like.
    pub constants: Constants,
}

/// What decides about a kernel among the constants of a depthwise convolution; that of other layers does not depend on theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants {
    /// Whether the closed form of requantisation that depthwise kernels of the DSP extension use takes all channels.
    pub closed: bool,
    /// Whether no weight is -128.
    pub symmetric: bool,
}

impl Constants {
    /// Those of most layers, for plans; kernels of layers with others take no more scratch.
    pub const USUAL: Self = Self { closed: true, symmetric: true };

    /// Of a layer.
    pub fn of(linear: &Integer<'_>) -> Self {
        Self { closed: dsp::depthwise::is_closed(linear), symmetric: swar::is_symmetric(linear.weights) }
    }
}

impl Linear {
    /// Length of an output's inner product.
    pub fn depth(&self) -> Option<usize> {
        let taps = |window: &Window| window.rows.kernel.checked_mul(window.columns.kernel);
        match self {
            Self::Conv2d { window, groups } => taps(window)?.checked_mul(window.inputs.checked_div(*groups)?),
            Self::DepthwiseConv2d { window } => taps(window),
            Self::Dense { inputs, .. } => Some(*inputs),
        }
    }

    /// Groups.
    pub fn groups(&self) -> usize {
        match self {
            Self::Conv2d { groups, .. } => *groups,
            _ => 1,
        }
    }

    /// The weights, but for a depthwise convolution. `None` where there are no such numbers.
    pub fn matrix(&self) -> Option<Matrix> {
        let groups = self.groups();
        Some(Matrix { groups, outputs: self.outputs().checked_div(groups)?, depth: self.depth()? })
    }

    /// Whether its weights in an order, with what blocks are filled up with, take at most twice their own bytes. A layer in one group takes what it wants.
    pub fn fills(&self, packing: Packing) -> bool {
        let fills = |matrix: Matrix| {
            let own = matrix.bytes(Packing::Rows)?.saturating_mul(2);
            Some(matrix.groups == 1 || matrix.bytes(packing)? <= own)
        };
        self.matrix().and_then(fills) == Some(true)
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Conv2d { window, .. } | Self::DepthwiseConv2d { window } => window.outputs,
            Self::Dense { outputs, .. } => *outputs,
        }
    }
}

impl Request {
    /// What a step of a loaded model asks for. `None` where backends have no choice: other operators, floats, weights of 4 bits.
    pub fn of(step: &Step<'_>) -> Option<Self> {
        let (input, output) = (step.input(0)?, step.output(0)?);
        let mut constants = Constants::USUAL;
        let parameters = || conv2d::Parameters::parse(step.parameters());
        let linear = match OpCode::parse(step.op())? {
            OpCode::Conv2dI8 | OpCode::Conv2dI16 | OpCode::WinogradConv2dI8 => {
                let p = parameters()?;
                Linear::Conv2d { window: p.window(&input, &output).ok()?, groups: p.groups as usize }
            }
            OpCode::DepthwiseConv2dI8 | OpCode::DepthwiseConv2dI16 => {
                let p = parameters()?;
                constants = Constants::of(&Integer::of(step, p.act_min, p.act_max)?);
                Linear::DepthwiseConv2d { window: p.window(&input, &output).ok()? }
            }
            OpCode::DenseI8 | OpCode::DenseI16 => {
                Linear::Dense { inputs: last_axis(&input)? as usize, outputs: last_axis(&output)? as usize }
            }
            _ => return None,
        };
        Some(Self {
            linear,
            input: input.dtype,
            output: output.dtype,
            packing: step.weight(0)?.packing,
            in_place: step.in_place(),
            constants,
        })
    }
}

/// The kernel for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Its name in reports.
    pub name: &'static str,
    /// Bytes of scratch that it wants; with less the backend takes scalar code.
    pub scratch_bytes: usize,
}

/// The name of the kernel for a step that is no [`Request`]; `None`: portable code.
pub fn other(isa: Isa, step: &Step<'_>) -> Option<&'static str> {
    float(isa, step).or_else(|| elementwise::select(isa, step))
}

/// The name of the kernel for a linear layer of floats.
fn float(isa: Isa, step: &Step<'_>) -> Option<&'static str> {
    let (input, output) = (step.input(0)?, step.output(0)?);
    let convolution = || {
        let p = conv2d::Parameters::parse(step.parameters())?;
        Some((p.window(&input, &output).ok()?, p.groups as usize))
    };
    let linear = match OpCode::parse(step.op())? {
        OpCode::Conv2dF32 => {
            let (window, groups) = convolution()?;
            Linear::Conv2d { window, groups }
        }
        OpCode::DepthwiseConv2dF32 => Linear::DepthwiseConv2d { window: convolution()?.0 },
        OpCode::DenseF32 => {
            Linear::Dense { inputs: last_axis(&input)? as usize, outputs: last_axis(&output)? as usize }
        }
        _ => return None,
    };
    super::float::select(isa, &linear)
}

/// The name of portable code in reports.
pub const SCALAR: &str = "scalar";

/// The kernel that a backend takes, if it has the scratch.
pub fn select(isa: Isa, request: &Request) -> Selection {
    let own = match isa {
        Isa::Scalar => None,
        Isa::ThumbV6M => v6m::select(request),
        Isa::ThumbV7M => v7m::select(request),
        Isa::ThumbDsp => dsp::select(request),
        Isa::Helium => helium::select(request),
        Isa::X86 => x86::select(request),
    };
    own.unwrap_or(Selection { name: SCALAR, scratch_bytes: least_scratch(request) })
}

/// Bytes of scratch that every backend needs.
pub fn least_scratch(request: &Request) -> usize {
    match &request.linear {
        Linear::Conv2d { window, .. } | Linear::DepthwiseConv2d { window } if request.in_place => {
            window.kept_bytes()
        }
        _ => 0,
    }
}

/// The order of weights that a backend wants; that of `request` does not count. `narrow`: all outputs are, as [`crate::blob::is_narrow`] has it.
pub fn packing(isa: Isa, request: &Request, narrow: bool) -> Packing {
    match isa {
        Isa::Scalar | Isa::X86 => Packing::Rows,
        Isa::ThumbV6M => v6m::packing(request, narrow),
        Isa::ThumbV7M => v7m::packing(request, narrow),
        Isa::ThumbDsp => dsp::packing(request, narrow),
        Isa::Helium => helium::packing(request, narrow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::window::Axis;

    const ISAS: [Isa; 4] = [Isa::ThumbV6M, Isa::ThumbV7M, Isa::ThumbDsp, Isa::Helium];

    /// A convolution of 3x3 over an image of 8x8 channels of bytes.
    fn request(inputs: usize, outputs: usize, groups: usize) -> Request {
        let side = Axis { input: 8, output: 8, kernel: 3, stride: 1, dilation: 1, pad: 1 };
        let window = Window { batch: 1, rows: side, columns: side, inputs, outputs };
        Request {
            linear: Linear::Conv2d { window, groups },
            input: DType::I8,
            output: DType::I8,
            packing: Packing::Rows,
            in_place: false,
            constants: Constants::USUAL,
        }
    }

    #[test]
    fn groups_take_the_kernel_of_one_group() {
        for isa in ISAS {
            for narrow in [true, false] {
                let packed =
                    |request: Request| Request { packing: packing(isa, &request, narrow), ..request };
                let (one, four) = (packed(request(16, 16, 1)), packed(request(64, 64, 4)));
                assert_eq!(one.packing, four.packing);
                if four.packing == Packing::Rows {
                    // A weight of -128 where two products would share a word.
                    assert!(!narrow && matches!(isa, Isa::ThumbV6M | Isa::ThumbV7M), "{isa:?}");
                    continue;
                }
                assert_eq!(select(isa, &one).name, select(isa, &four).name);
                let matrix = four.linear.matrix().unwrap();
                assert_eq!((matrix.groups, matrix.outputs, matrix.depth), (4, 16, 144));
                let bytes = one.linear.matrix().and_then(|matrix| matrix.bytes(one.packing));
                assert_eq!(matrix.bytes(four.packing), bytes.map(|bytes| 4 * bytes));
            }
        }
    }

    #[test]
    fn weights_that_would_be_mostly_padding_stay_plain() {
        // One output a group, of which a block holds eight, two, four.
        for isa in [Isa::ThumbV6M, Isa::ThumbDsp, Isa::Helium] {
            assert_eq!(packing(isa, &request(32, 16, 16), true), Packing::Rows, "{isa:?}");
        }
        assert!(!request(32, 16, 0).linear.fills(Packing::Rows));
    }
}
