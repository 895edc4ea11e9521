//! Cortex-M0, M0+ and M3: multiplication alone.

use super::Backend;
use super::spec::select::Isa;

/// Kernels for cores without the DSP extension.
#[derive(Clone, Copy, Debug)]
pub struct ThumbScalar(());

impl ThumbScalar {
    /// The token: these kernels run on every core of the target's profile.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

impl Backend for ThumbScalar {
    const NAME: &'static str = "thumb-scalar";
    #[cfg(tucano_profile = "v6m")]
    const ISA: Isa = Isa::ThumbV6M;
    #[cfg(not(tucano_profile = "v6m"))]
    const ISA: Isa = Isa::ThumbV7M;
}
