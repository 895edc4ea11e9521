//! Cortex-M4, M7 and M33: the DSP extension.

mod elementwise;
mod isa;

use super::Backend;
use super::spec::select::Isa;
use crate::ops::add;

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
}
