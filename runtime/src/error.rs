//! The one error of the runtime.

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
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
    /// A step that was accepted could not run: a fault of this crate.
    Internal,
}
