//! Which operators get linked.
//!
//! An op set is a type that dispatches an operation code to the operators it lists. The converter writes the list for each model, so
//! that an integer model links no float code.

use crate::arena::Memory;
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::model::Step;
use crate::ops::window::Axis;
use crate::region::Rows;

/// A set of operators. Made by [`op_set!`](crate::op_set!).
pub trait OpSet {
    /// Whether it runs [regions](crate::region).
    const TILES: bool;

    /// Asks the step's operator whether it can execute the step.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownOperator`] if no operator of the set has its code, else what the operator's check says.
    fn check(step: &Step<'_>) -> Result<(), ErrorKind>;

    /// Whether the operator with this code may write over its first input.
    fn in_place(op: u16) -> bool;

    /// The row axis of a step that can stand in a [region](crate::region). `None` for all steps of a set without `tiles`.
    fn rows(step: &Step<'_>) -> Option<Axis>;

    /// Executes a step; `None` if it cannot, which [`crate::Model::load`] excludes.
    fn run<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>) -> Option<()>;

    /// Executes some rows of a step in a region; `None` as [`OpSet::run`].
    fn run_rows<B: Backend>(backend: B, step: &Step<'_>, memory: &mut Memory<'_>, rows: &Rows) -> Option<()>;
}

/// Declares an [`OpSet`]. With `tiles` behind a semicolon it runs [regions](crate::region) too. Bare names are those of [`crate::ops`]; any other type that implements
/// [`Operator`](crate::ops::Operator) can be listed too.
///
/// ```
/// tucano::op_set! {
///     /// What the keyword model needs.
///     pub struct Ops { Conv2dI8, DenseI8 }
/// }
/// ```
#[macro_export]
macro_rules! op_set {
    (@tiles) => { false };
    (@tiles tiles) => { true };
    (@rows $step:ident; $($op:ty),*;) => { ::core::option::Option::None };
    (@rows $step:ident; $($op:ty),*; tiles) => {
        match $step.op() {
            $(<$op as $crate::ops::Operator>::CODE => <$op as $crate::ops::Operator>::rows($step),)*
            _ => ::core::option::Option::None,
        }
    };
    (@run_rows $backend:ident $step:ident $memory:ident $rows:ident; $($op:ty),*;) => { ::core::option::Option::None };
    (@run_rows $backend:ident $step:ident $memory:ident $rows:ident; $($op:ty),*; tiles) => {
        match $step.op() {
            $(<$op as $crate::ops::Operator>::CODE => {
                $crate::ops::run_rows::<$op, B>($backend, $step, $memory, $rows)
            })*
            _ => ::core::option::Option::None,
        }
    };
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($op:ty),* $(,)? $(; $tiles:ident)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug)]
        $visibility struct $name;

        const _: () = {
            #[allow(unused_imports)]
            use $crate::ops::*;

            impl $crate::OpSet for $name {
                const TILES: bool = $crate::op_set!(@tiles $($tiles)?);

                fn check(step: &$crate::Step<'_>) -> ::core::result::Result<(), $crate::ErrorKind> {
                    match step.op() {
                        $(<$op as $crate::ops::Operator>::CODE => <$op as $crate::ops::Operator>::check(step),)*
                        _ => ::core::result::Result::Err($crate::ErrorKind::UnknownOperator),
                    }
                }

                fn in_place(op: u16) -> bool {
                    match op {
                        $(<$op as $crate::ops::Operator>::CODE => <$op as $crate::ops::Operator>::IN_PLACE,)*
                        _ => false,
                    }
                }

                #[allow(unused_variables)]
                fn run<B: $crate::backend::Backend>(
                    backend: B,
                    step: &$crate::Step<'_>,
                    memory: &mut $crate::arena::Memory<'_>,
                ) -> ::core::option::Option<()> {
                    match step.op() {
                        $(<$op as $crate::ops::Operator>::CODE => {
                            $crate::ops::run::<$op, B>(backend, step, memory)
                        })*
                        _ => ::core::option::Option::None,
                    }
                }

                #[allow(unused_variables)]
                fn rows(step: &$crate::Step<'_>) -> ::core::option::Option<$crate::ops::window::Axis> {
                    $crate::op_set!(@rows step; $($op),*; $($tiles)?)
                }

                #[allow(unused_variables)]
                fn run_rows<B: $crate::backend::Backend>(
                    backend: B,
                    step: &$crate::Step<'_>,
                    memory: &mut $crate::arena::Memory<'_>,
                    rows: &$crate::region::Rows,
                ) -> ::core::option::Option<()> {
                    $crate::op_set!(@run_rows backend step memory rows; $($op),*; $($tiles)?)
                }
            }
        };
    };
}

op_set! {
    /// Every operator: for tools that must run any blob.
    pub struct AllOps {
        Conv2dI8, Conv2dI16, Conv2dF32, Conv2dI4, Conv2dF16,
        DepthwiseConv2dI8, DepthwiseConv2dI16, DepthwiseConv2dF32, DepthwiseConv2dF16,
        DenseI8, DenseI16, DenseF32, DenseI4, DenseF16,
        MaxPool2dI8, MaxPool2dF32,
        AveragePool2dI8, AveragePool2dF32,
        AddI8, AddF32, MulF32,
        TableI8, UnaryF32,
        SoftmaxI8, SoftmaxI16, SoftmaxF32,
        PermuteI8, PermuteF32,
        Mean2dI8,
        WinogradConv2dI8;
        tiles
    }
}
