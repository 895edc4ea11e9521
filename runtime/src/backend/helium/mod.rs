//! Cortex-M55 and M85: the vector extension.

mod elementwise;

use super::Backend;
use super::spec::select::Isa;
use crate::ops::add;

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
