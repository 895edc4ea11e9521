//! The one error of the runtime: `Copy`, 12 bytes, no text until it is displayed.

use core::fmt;

/// What went wrong, where, and the number that tells more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Index of the step, [`Error::NOWHERE`] if it concerns no step.
    pub step: u16,
    /// Operation code of that step, 0 if it concerns no step.
    pub op: u16,
    /// See [`ErrorKind`]: 0 where a kind names no value.
    pub value: u32,
}

/// Kinds of errors; each says what [`Error::value`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
// A word, as the fields beside it: results are copied in words.
#[repr(u32)]
pub enum ErrorKind {
    /// The first four bytes are not the magic.
    Magic,
    /// Another major version; the value is the blob's.
    Version,
    /// A required feature that this reader does not know; the value is the number of the lowest such bit.
    Feature,
    /// Fewer bytes than the blob's header or its stated length; the value is the number of bytes wanted.
    Truncated,
    /// The blob does not lie at a multiple of 16; the value is the address modulo 16.
    BlobAlignment,
    /// The checksum of the structure differs; the value is the computed one.
    StructureChecksum,
    /// The checksum of the weights differs; the value is the computed one.
    WeightsChecksum,
    /// The blob is not the one of a [`crate::blob::Fingerprint`]; the value is the computed checksum, or 0 where there are fewer bytes
    /// than that one's.
    Fingerprint,
    /// A header field is out of range or a reserved byte is not zero; the value is the field's offset.
    Header,
    /// A section is out of bounds, overlaps another, or has a wrong stride; the value is its place in the table.
    Section,
    /// A section that a reader must know is unknown to this one; the value is its kind.
    UnknownSection,
    /// A tensor record is invalid or the tensor does not lie in its memory; the value is its index.
    Tensor,
    /// A weight record is invalid or the weight does not lie in its section; the value is its index.
    Weight,
    /// A step record is invalid.
    Step,
    /// An operand names a tensor or weight that is not there, or not yet written; the value is the operand.
    Operand,
    /// A graph input or output is invalid; the value is its index, inputs first.
    Terminal,
    /// The operator is not in the op set that the program was built with.
    UnknownOperator,
    /// A step's output or scratch overlaps another of its operands where its operator does not allow it; the value is the tensor.
    Overlap,
    /// A step has another number of inputs, outputs, weights or parameter words than its operator takes.
    OperandCount,
    /// A tensor or weight of a step has an element type that its operator does not take.
    ElementType,
    /// Shapes of a step's operands do not fit each other or its parameters.
    Shape,
    /// A weight has another number of elements than the step's shapes ask for.
    WeightLength,
    /// A parameter is out of range.
    Parameter,
    /// A zero point or scale is out of range, or does not fit the operator.
    Quantisation,
    /// The scratch of a step is smaller than its operator needs.
    Scratch,
    /// A region's steps are no chain of convolutions, or the memory between them is too short or in use; the value is its index.
    Region,
    /// The arena is too small; the value is the number of bytes wanted.
    ArenaTooSmall,
    /// The arena is not aligned; the value is the alignment wanted.
    ArenaAlignment,
    /// The state is too small; the value is the number of bytes wanted.
    StateTooSmall,
    /// The state is not aligned; the value is the alignment wanted.
    StateAlignment,
    /// There is no graph input or output of that index; the value is how many there are.
    NoSuchTerminal,
    /// The graph input or output has another element type than was asked for; the value is the number of its
    /// [`crate::blob::DType`].
    TerminalType,
    /// Another number of inputs was given; the value is the number wanted.
    InputCount,
    /// An input has the wrong length; the value is the number of elements (or bytes, for raw data) wanted.
    InputLength,
    /// An input holds a value that is not finite; the value is its index.
    NotFinite,
    /// The input contract of the blob is invalid; the value is its index.
    Contract,
    /// No kernel that the program links takes the step: the blob is laid out for another core or another list of kernels.
    NotLinked,
    /// A step that was accepted could not run: a fault of this crate, or a model of [`crate::Model::load_known`] that was validated for
    /// other operators, or never.
    Internal,
}

impl Error {
    /// [`Error::step`] of an error that concerns no step.
    pub const NOWHERE: u16 = u16::MAX;

    pub(crate) const fn new(kind: ErrorKind, value: u32) -> Self {
        Self { kind, step: Self::NOWHERE, op: 0, value }
    }

    pub(crate) const fn at_step(kind: ErrorKind, step: u16, op: u16, value: u32) -> Self {
        Self { kind, step, op, value }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        if self.step != Self::NOWHERE {
            write!(f, "step {} (operation {:#06x}): ", self.step, self.op)?;
        }
        match self.kind {
            ErrorKind::Magic => f.write_str("not a blob: it does not start with \"TUCA\""),
            ErrorKind::Version => {
                write!(
                    f,
                    "blob of version {value}.x, this reader knows {}.x: convert the model again",
                    crate::blob::MAJOR
                )
            }
            ErrorKind::Feature => {
                write!(f, "the blob needs feature {value}, which this reader lacks: update the runtime")
            }
            ErrorKind::Truncated => write!(f, "the blob is cut short: it should have {value} bytes"),
            ErrorKind::BlobAlignment => {
                write!(
                    f,
                    "the blob must lie at a multiple of 16, its address is {value} beyond one: align the static"
                )
            }
            ErrorKind::StructureChecksum => {
                f.write_str("the blob's structure is damaged: its checksum differs")
            }
            ErrorKind::WeightsChecksum => {
                f.write_str("the blob's weights are damaged: their checksum differs")
            }
            ErrorKind::Fingerprint => f.write_str(
                "the blob is not the one that the fingerprint was taken of: convert the model again, or validate the blob with `Model::load`",
            ),
            ErrorKind::Header => write!(f, "invalid header field at offset {value}"),
            ErrorKind::Section => {
                write!(f, "section {value} is out of bounds, overlaps another or has a wrong stride")
            }
            ErrorKind::UnknownSection => {
                write!(
                    f,
                    "the blob has a section of kind {value}, which this reader lacks: update the runtime"
                )
            }
            ErrorKind::Tensor => write!(f, "tensor {value} is invalid or lies outside its memory"),
            ErrorKind::Weight => write!(f, "weight {value} is invalid or lies outside its section"),
            ErrorKind::Step => f.write_str("invalid step record"),
            ErrorKind::Operand => write!(f, "operand {value} does not exist or is not yet written"),
            ErrorKind::Terminal => write!(f, "graph input or output {value} is invalid"),
            ErrorKind::UnknownOperator => f.write_str(
                "the operator is not in this program's op set: list it in `op_set!`, or update the runtime",
            ),
            ErrorKind::Overlap => write!(f, "tensor {value} overlaps the step's output or scratch"),
            ErrorKind::OperandCount => f.write_str("wrong number of operands or parameters"),
            ErrorKind::ElementType => f.write_str("wrong element type of an operand"),
            ErrorKind::Shape => f.write_str("shapes do not fit"),
            ErrorKind::WeightLength => f.write_str("wrong length of a weight"),
            ErrorKind::Parameter => f.write_str("parameter out of range"),
            ErrorKind::Quantisation => f.write_str("scale or zero point out of range"),
            ErrorKind::Scratch => f.write_str("scratch is too small"),
            ErrorKind::Region => {
                write!(f, "region {value} is no chain that can run row by row in its memory")
            }
            ErrorKind::ArenaTooSmall => write!(f, "the arena is too small: the model needs {value} bytes"),
            ErrorKind::ArenaAlignment => {
                write!(f, "the arena must lie at a multiple of {value}: use `Arena`, or align the static")
            }
            ErrorKind::StateTooSmall => write!(f, "the state is too small: the model needs {value} bytes"),
            ErrorKind::StateAlignment => {
                write!(f, "the state must lie at a multiple of {value}: use `Arena`, or align the static")
            }
            ErrorKind::NoSuchTerminal => write!(f, "no such graph input or output: the model has {value}"),
            ErrorKind::TerminalType => match crate::blob::DType::parse(value.to_le_bytes()[0]) {
                Some(dtype) => write!(f, "wrong element type: the tensor holds {}", dtype.name()),
                None => f.write_str("wrong element type"),
            },
            ErrorKind::InputCount => write!(f, "the model takes {value} inputs"),
            ErrorKind::InputLength => write!(f, "input of the wrong length: the model takes {value}"),
            ErrorKind::NotFinite => write!(f, "element {value} of an input is not a finite number"),
            ErrorKind::Contract => {
                write!(f, "the blob's input contract {value} is invalid: convert the model again")
            }
            ErrorKind::NotLinked => f.write_str(
                "no linked kernel takes the step: convert the model again for this core, or list \"scalar\" among the program's kernels",
            ),
            ErrorKind::Internal => {
                f.write_str("the step was accepted but could not run: the program lacks its operator, or please report this as a fault")
            }
        }
    }
}
