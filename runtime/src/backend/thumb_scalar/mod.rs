//! Cortex-M0, M0+ and M3: multiplication alone.
//!
//! Convolutions multiply two positions at once: a word `x0 + (x1 << 16)` times a weight is a word of two products. Two such words, of weights
//! whose magnitudes come to 255 at most, sum up without a lower half that leaves 16 bits; then the halves move to wide sums.
#![allow(unsafe_code)]

mod conv2d;
mod dense;
mod depthwise_conv2d;
mod frame;
#[cfg(tucano_profile = "v6m")]
mod v6m;
#[cfg(tucano_profile = "v7m")]
mod v7m;

#[cfg(tucano_profile = "v6m")]
use v6m as core;
#[cfg(tucano_profile = "v7m")]
use v7m as core;

use ::core::marker::PhantomData;

use super::scalar::compact::{self, Order};
use super::spec::select::Isa;
use super::{AllKernels, Backend, Integers, IntegersMut, Kernels, wide_channels};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Kernels for cores without the DSP extension.
#[derive(Clone, Copy, Debug)]
pub struct ThumbScalar<K = AllKernels>(PhantomData<K>);

impl<K> ThumbScalar<K> {
    /// The token: these kernels run on every core of the target's profile.
    pub fn detect() -> Option<Self> {
        Some(Self(PhantomData))
    }
}

impl<K: Kernels> Backend for ThumbScalar<K> {
    const NAME: &'static str = "thumb-scalar";
    const KERNELS: Option<&'static [&'static str]> = K::NAMES;
    #[cfg(tucano_profile = "v6m")]
    const ISA: Isa = Isa::ThumbV6M;
    #[cfg(not(tucano_profile = "v6m"))]
    const ISA: Isa = Isa::ThumbV7M;

    fn conv2d_i8(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        conv2d::conv2d_i8::<K>(window, groups, linear, input, output, scratch)
    }

    fn conv2d_i16(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        conv2d::conv2d_i16::<K>(window, groups, linear, input, output, scratch)
    }

    fn depthwise_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        depthwise_conv2d::depthwise_conv2d_i8::<K>(window, linear, input, output, scratch)
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

    fn dense_i8(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: &[i8],
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        dense::dense_i8::<K>(inputs, linear, input, output, scratch)
    }

    fn dense_i16(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        dense::dense_i16::<K>(inputs, linear, input, output, scratch)
    }
}
