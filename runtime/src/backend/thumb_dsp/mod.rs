//! Cortex-M4, M7 and M33: the DSP extension.
#![allow(unsafe_code)]

mod detect;

use super::Backend;
use super::spec::select::Isa;

/// Kernels for cores with the DSP extension.
#[derive(Clone, Copy, Debug)]
pub struct ThumbDsp(());

impl ThumbDsp {
    /// The token; `None` on a core without the extension. On Armv8-M it reads an identification register, for which the caller has to be
    /// privileged.
    pub fn detect() -> Option<Self> {
        detect::has_dsp().then_some(Self(()))
    }
}

impl Backend for ThumbDsp {
    const NAME: &'static str = "thumb-dsp";
    const ISA: Isa = Isa::ThumbDsp;
}
