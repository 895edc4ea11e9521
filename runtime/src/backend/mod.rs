//! Backends: tokens whose methods are whole-operator loops.
//!
//! A backend is a zero-sized token; holding it proves that the instruction set is there. Every method of [`Backend`] has a
//! scalar default, which is also the definition of the result: integer kernels of every backend give its bits.
//!
//! Kernels take operands that an operator's `check` has accepted ([`crate::ops`]). They give `None`, and never panic, when a buffer is
//! shorter than its shape says. Where an operator may work in place its kernel takes the one buffer that is input and output.

#[cfg(all(feature = "host", target_arch = "aarch64"))]
pub(crate) mod aarch64;
mod absent;
#[cfg(all(any(tucano_profile = "v7em", tucano_profile = "v8m"), target_abi = "eabihf"))]
mod float;
#[cfg(tucano_profile = "v8m")]
mod helium;
pub(crate) mod kernels;
mod scalar;
pub mod spec;
#[cfg(any(tucano_profile = "v7em", tucano_profile = "v8m"))]
mod thumb_dsp;
#[cfg(any(tucano_profile = "v6m", tucano_profile = "v7m"))]
mod thumb_scalar;
#[cfg(all(feature = "host", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod vector;
#[cfg(any(tucano_profile = "v6m", tucano_profile = "v7m", tucano_profile = "v7em", tucano_profile = "v8m"))]
mod wide_channels;
#[cfg(all(feature = "host", target_arch = "x86_64"))]
pub(crate) mod x86;

#[cfg(not(tucano_profile = "v8m"))]
pub use absent::Helium;
#[cfg(not(any(tucano_profile = "v7em", tucano_profile = "v8m")))]
pub use absent::ThumbDsp;
#[cfg(not(any(tucano_profile = "v6m", tucano_profile = "v7m")))]
pub use absent::ThumbScalar;
#[cfg(tucano_profile = "v8m")]
pub use helium::Helium;
#[cfg(any(tucano_profile = "v7em", tucano_profile = "v8m"))]
pub use thumb_dsp::ThumbDsp;
#[cfg(any(tucano_profile = "v6m", tucano_profile = "v7m"))]
pub use thumb_scalar::ThumbScalar;

pub use kernels::{AllKernels, Kernels};
use spec::select::{Isa, SCALAR};

use crate::model::Step;
use crate::ops::linear::{Float, Integer};
use crate::ops::window::Window;
use crate::ops::{add, mean, permute, softmax, unary};

/// Elements of one of the two integer types of activations.
#[derive(Clone, Copy, Debug)]
pub enum Integers<'a> {
    /// 8 bits.
    I8(&'a [i8]),
    /// 16 bits.
    I16(&'a [i16]),
}

/// Like [`Integers`], to be written.
#[derive(Debug)]
pub enum IntegersMut<'a> {
    /// 8 bits.
    I8(&'a mut [i8]),
    /// 16 bits.
    I16(&'a mut [i16]),
}

/// Kernels of one instruction set.
#[diagnostic::on_unimplemented(
    message = "this target has no backend `{Self}`",
    label = "a backend of other cores",
    note = "a network converted for another core names that core's backend: convert it with `--target` of this one, or name a backend that is \
            there, as in `Session<'_, tucano::backend::Scalar>`"
)]
pub trait Backend: Copy {
    /// The name in reports, `{arch}-{extension}` or `scalar`.
    const NAME: &'static str;
    /// Whose kernels [`spec::select`] knows.
    const ISA: Isa;
    /// Names of those that are linked; `None`: all.
    const KERNELS: Option<&'static [&'static str]> = None;

    /// The name of the kernel that takes a step.
    fn kernel(step: &Step<'_>) -> &'static str {
        let name = step.selection(Self::ISA).name;
        if kernels::contains(Self::KERNELS, name) { name } else { SCALAR }
    }

    /// Convolution in `groups` groups. Without `input` the output holds it ([`Window::replaces_input`]); then the scratch has at least
    /// [`Window::kept_bytes`].
    fn conv2d_i8(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        scalar::conv2d::conv2d_i8(window, groups, linear, input, output, scratch)
    }

    /// Convolution of windows 3 x 3 of stride 1 with weights as [`crate::blob::winograd`] has them. Without `input` as [`Backend::conv2d_i8`].
    fn winograd_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        scalar::winograd::conv2d(window, linear, input, output, scratch)
    }

    /// Convolution in `groups` groups from or to `i16`.
    fn conv2d_i16(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        scalar::conv2d::conv2d_i16(window, groups, linear, input, output)
    }

    /// Convolution in `groups` groups, with weights of 4 bits.
    fn conv2d_i4(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_, u8>,
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        scalar::conv2d::conv2d_i4(window, groups, linear, input, output)
    }

    /// Convolution in `groups` groups.
    fn conv2d_f32(
        self,
        window: &Window,
        groups: usize,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::conv2d::conv2d_f32(window, groups, linear, input, output)
    }

    /// Convolution in `groups` groups, with weights of binary16.
    fn conv2d_f16(
        self,
        window: &Window,
        groups: usize,
        linear: &Float<'_, u16>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::conv2d::conv2d_f16(window, groups, linear, input, output)
    }

    /// Depthwise convolution. Without `input` as [`Backend::conv2d_i8`].
    fn depthwise_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        scalar::depthwise_conv2d::depthwise_conv2d_i8(window, linear, input, output, scratch)
    }

    /// Depthwise convolution from or to `i16`.
    fn depthwise_conv2d_i16(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        scalar::depthwise_conv2d::depthwise_conv2d_i16(window, linear, input, output)
    }

    /// Depthwise convolution.
    fn depthwise_conv2d_f32(
        self,
        window: &Window,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::depthwise_conv2d::depthwise_conv2d_f32(window, linear, input, output)
    }

    /// Depthwise convolution, with weights of binary16.
    fn depthwise_conv2d_f16(
        self,
        window: &Window,
        linear: &Float<'_, u16>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::depthwise_conv2d::depthwise_conv2d_f16(window, linear, input, output)
    }

    /// Dense layer over rows of `inputs` elements.
    fn dense_i8(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: &[i8],
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        scalar::dense::dense_i8(inputs, linear, input, output)
    }

    /// Dense layer over rows of `inputs` elements, from or to `i16`.
    fn dense_i16(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        scalar::dense::dense_i16(inputs, linear, input, output)
    }

    /// Dense layer over rows of `inputs` elements, with weights of 4 bits.
    fn dense_i4(
        self,
        inputs: usize,
        linear: &Integer<'_, u8>,
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        scalar::dense::dense_i4(inputs, linear, input, output)
    }

    /// Dense layer over rows of `inputs` elements.
    fn dense_f32(self, inputs: usize, linear: &Float<'_>, input: &[f32], output: &mut [f32]) -> Option<()> {
        scalar::dense::dense_f32(inputs, linear, input, output)
    }

    /// Dense layer over rows of `inputs` elements, with weights of binary16.
    fn dense_f16(
        self,
        inputs: usize,
        linear: &Float<'_, u16>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::dense::dense_f16(inputs, linear, input, output)
    }

    /// Maximum over windows, within `bounds`.
    fn max_pool2d_i8(self, window: &Window, bounds: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
        scalar::pool2d::max_pool2d_i8(window, bounds, input, output)
    }

    /// Maximum over windows, within `bounds`.
    fn max_pool2d_f32(
        self,
        window: &Window,
        bounds: [f32; 2],
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::pool2d::max_pool2d_f32(window, bounds, input, output)
    }

    /// Mean over windows, halves away from zero, within `bounds`. With `padding`, padding counts as that value; else it does not count.
    fn average_pool2d_i8(
        self,
        window: &Window,
        padding: Option<i8>,
        bounds: [i8; 2],
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        scalar::pool2d::average_pool2d_i8(window, padding, bounds, input, output)
    }

    /// Mean over windows, within `bounds`. With `count_padding` padding counts as zeros; else it does not count.
    fn average_pool2d_f32(
        self,
        window: &Window,
        count_padding: bool,
        bounds: [f32; 2],
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        scalar::pool2d::average_pool2d_f32(window, count_padding, bounds, input, output)
    }

    /// Mean over the window, requantised. Zero points are of input and output.
    fn mean2d_i8(
        self,
        window: &Window,
        parameters: &mean::Parameters,
        zero_points: [i32; 2],
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        scalar::pool2d::mean2d_i8(window, parameters, zero_points, input, output)
    }

    /// Adds `second` to `values`. Zero points are of `values` before, of `second`, and of `values` after.
    fn add_i8(
        self,
        parameters: &add::IntegerParameters,
        zero_points: [i32; 3],
        values: &mut [i8],
        second: &[i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        scalar::elementwise::add_i8(parameters, zero_points, values, second, scratch)
    }

    /// Adds `second` to `values`, within `bounds`.
    fn add_f32(self, bounds: [f32; 2], values: &mut [f32], second: &[f32]) -> Option<()> {
        scalar::elementwise::add_f32(bounds, values, second)
    }

    /// Multiplies `values` by `second`, within `bounds`.
    fn mul_f32(self, bounds: [f32; 2], values: &mut [f32], second: &[f32]) -> Option<()> {
        scalar::elementwise::mul_f32(bounds, values, second)
    }

    /// Replaces each `x` by entry `x + 128`.
    fn table_i8(self, table: &[i8; 256], values: &mut [i8]) {
        scalar::elementwise::table_i8(table, values);
    }

    /// Replaces each `x` by a function of it.
    fn unary_f32(self, parameters: &unary::Parameters, values: &mut [f32]) {
        scalar::elementwise::unary_f32(parameters, values);
    }

    /// Softmax of each row of `row` elements.
    fn softmax_i8(self, parameters: &softmax::Parameters, row: usize, values: &mut [i8]) -> Option<()> {
        scalar::softmax::softmax_i8(parameters, row, values)
    }

    /// Softmax of each row of `row` elements.
    fn softmax_i16(
        self,
        parameters: &softmax::Parameters,
        row: usize,
        input: &[i8],
        output: &mut [i16],
    ) -> Option<()> {
        scalar::softmax::softmax_i16(parameters, row, input, output)
    }

    /// Softmax of each row of `row` elements.
    fn softmax_f32(self, row: usize, values: &mut [f32]) -> Option<()> {
        scalar::softmax::softmax_f32(row, values)
    }

    /// Axis permutation of one-byte elements.
    fn permute_i8(self, map: &permute::Map, input: &[i8], output: &mut [i8]) -> Option<()> {
        scalar::permute::permute_i8(map, input, output)
    }

    /// Axis permutation of four-byte elements.
    fn permute_f32(self, map: &permute::Map, input: &[f32], output: &mut [f32]) -> Option<()> {
        scalar::permute::permute_f32(map, input, output)
    }
}

/// Portable Rust. Runs everywhere and defines the results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

impl Scalar {
    /// The token: every core runs it.
    pub const fn detect() -> Option<Self> {
        Some(Self)
    }
}

impl Backend for Scalar {
    const NAME: &'static str = "scalar";
    const ISA: Isa = Isa::Scalar;
}
