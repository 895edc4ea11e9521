//! What the kernels for Cortex-M0 and M0+ take.

use super::select::{Request, Selection};
use super::swar::{self, Core};
use crate::blob::Packing;

/// What differs from other cores.
pub const CORE: Core = Core { channel_bytes: 32, convolution: Packing::Columns8, dense: Packing::Offset4 };

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    swar::select(request, &CORE)
}

/// The order of weights that [`select`] wants; `narrow` as in [`super::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    swar::packing(request, narrow, &CORE)
}
