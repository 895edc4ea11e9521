//! Cortex-M4, M7 and M33: the DSP extension.
#![allow(unsafe_code)]

mod depthwise;
mod detect;
mod elementwise;
#[cfg(target_abi = "eabihf")]
mod float;
mod gemm;
pub(super) mod isa;
mod winograd;

use core::marker::PhantomData;

#[cfg(target_abi = "eabihf")]
use super::float as layers;
#[cfg(target_abi = "eabihf")]
use super::scalar;
use super::scalar::compact::{self, Order};
use super::spec::select::Isa;
use super::{AllKernels, Backend, Integers, IntegersMut, Kernels, wide_channels};
use crate::blob::Packing;
use crate::ops::add;
#[cfg(target_abi = "eabihf")]
use crate::ops::linear::Float;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use gemm::Linked;

/// Kernels for cores with the DSP extension.
#[derive(Clone, Copy, Debug)]
pub struct ThumbDsp<K = AllKernels>(PhantomData<K>);

impl<K> ThumbDsp<K> {
    /// The token; `None` on a core without the extension. On Armv8-M it reads an identification register, for which the caller has to be
    /// privileged.
    pub fn detect() -> Option<Self> {
        detect::has_dsp().then_some(Self(PhantomData))
    }
}

impl<K: Kernels> Backend for ThumbDsp<K> {
    const NAME: &'static str = "thumb-dsp";
    const KERNELS: Option<&'static [&'static str]> = K::NAMES;
    const ISA: Isa = Isa::ThumbDsp;

    fn conv2d_i8(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        let mut tensors = gemm::Tensors::bytes(input, output);
        gemm::conv2d::<K>(window, groups, linear, &mut tensors, scratch)
            .or_else(|| compact::bytes::<K>(window, groups, Order::Outputs, linear, input, output, scratch))
    }

    fn winograd_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        winograd::conv2d::<K>(window, linear, input, output, scratch)
            .or_else(|| super::scalar::winograd::conv2d(window, linear, input, output, scratch))
    }

    fn conv2d_i16(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let mut tensors = gemm::Tensors::of(input, &mut output);
        gemm::conv2d::<K>(window, groups, linear, &mut tensors, scratch)
            .or_else(|| compact::layer::<K>(window, groups, Order::Outputs, linear, input, &mut output))
    }

    fn dense_i8(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: &[i8],
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        let done = if linear.packing == Packing::Blocks2x4 && K::DENSE_PLAIN {
            let tensors = gemm::Tensors::bytes(Some(input), output);
            gemm::dense::dense_plain(inputs, linear, tensors, gemm::dense::pair_i8)
        } else if K::DENSE_PAIRS {
            gemm::dense::dense_i8(inputs, linear, input, output, scratch)
        } else {
            None
        };
        done.or_else(|| {
            compact::dense::<K>(inputs, linear, Integers::I8(input), &mut IntegersMut::I8(output))
        })
    }

    fn dense_i16(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        let pair = match input {
            Integers::I8(_) => gemm::dense::pair_i8,
            Integers::I16(_) => gemm::dense::pair_i16 as gemm::dense::Pair,
        };
        gemm::dense::dense_plain(inputs, linear, gemm::Tensors::of(input, &mut output), pair)
            .or_else(|| compact::dense::<K>(inputs, linear, input, &mut output))
    }

    fn depthwise_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        depthwise::depthwise_conv2d_i8::<K>(window, linear, input, output, scratch).or_else(|| {
            compact::bytes::<K>(window, window.inputs, Order::Taps, linear, input, output, scratch)
        })
    }

    fn depthwise_conv2d_i16(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        wide_channels::depthwise_conv2d(window, linear, &input, &mut output, scratch)
            .or_else(|| compact::layer::<K>(window, window.inputs, Order::Taps, linear, input, &mut output))
    }

    fn add_i8(
        self,
        parameters: &add::IntegerParameters,
        zero_points: [i32; 3],
        values: &mut [i8],
        second: &[i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        elementwise::add_i8(parameters, zero_points, values, second, scratch)
    }

    #[cfg(target_abi = "eabihf")]
    fn conv2d_f32(
        self,
        window: &Window,
        groups: usize,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        layers::conv2d(&float::KERNELS, window, groups, linear, input, output)
            .or_else(|| scalar::conv2d::conv2d_f32(window, groups, linear, input, output))
    }

    #[cfg(target_abi = "eabihf")]
    fn depthwise_conv2d_f32(
        self,
        window: &Window,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        layers::depthwise_conv2d(&float::KERNELS, window, linear, input, output)
            .or_else(|| scalar::depthwise_conv2d::depthwise_conv2d_f32(window, linear, input, output))
    }

    #[cfg(target_abi = "eabihf")]
    fn dense_f32(self, inputs: usize, linear: &Float<'_>, input: &[f32], output: &mut [f32]) -> Option<()> {
        layers::dense(&float::KERNELS, inputs, linear, input, output)
            .or_else(|| scalar::dense::dense_f32(inputs, linear, input, output))
    }
}
