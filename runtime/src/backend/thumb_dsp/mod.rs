//! Cortex-M4, M7 and M33: the DSP extension.

use super::Backend;
use super::spec::select::Isa;

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
}
