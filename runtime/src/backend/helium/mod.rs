//! Cortex-M55 and M85: the vector extension.

use super::Backend;
use super::spec::select::Isa;

/// Kernels for cores with the vector extension.
#[derive(Clone, Copy, Debug)]
pub struct Helium(());

impl Helium {
    /// The token; `None` on a core without the extension.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

impl Backend for Helium {
    const NAME: &'static str = "helium";
    const ISA: Isa = Isa::Helium;
}
