//! Backends: tokens whose methods are whole-operator loops.
//!
//! A backend is a zero-sized token; holding it proves that the instruction set is there. Every method of [`Backend`] has a
//! scalar default, which is also the definition of the result: integer kernels of every backend give its bits.

/// Kernels of one instruction set.
pub trait Backend: Copy {
    /// The name in reports, `{arch}-{extension}` or `scalar`.
    const NAME: &'static str;
}

/// Portable Rust. Runs everywhere and defines the results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

impl Backend for Scalar {
    const NAME: &'static str = "scalar";
}

/// The backend that [`crate::host::Runner`] uses.
#[cfg(feature = "host")]
pub type Best = Scalar;

/// The token of [`Best`].
#[cfg(feature = "host")]
pub fn best() -> Best {
    Scalar
}
