//! Cortex-M4, M7 and M33: the DSP extension.
#![allow(unsafe_code)]

mod depthwise;
mod isa;

use super::spec::select::Isa;
use super::{Backend, scalar};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Kernels for cores with the DSP extension.
#[derive(Clone, Copy, Debug)]
pub struct ThumbDsp(());

impl ThumbDsp {
    /// The token; `None` on a core without the extension.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

impl Backend for ThumbDsp {
    const NAME: &'static str = "thumb-dsp";
    const ISA: Isa = Isa::ThumbDsp;

    fn depthwise_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        depthwise::depthwise_conv2d_i8(window, linear, input, output, scratch)
            .or_else(|| scalar::depthwise_conv2d::depthwise_conv2d_i8(window, linear, input, output, scratch))
    }
}
