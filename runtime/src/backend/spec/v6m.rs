//! What the kernels for Cortex-M0 and M0+ take.

use super::select::{Request, Selection};
use super::swar;
use crate::blob::Packing;

/// Bytes of an output channel's constants.
pub const CHANNEL_BYTES: usize = 32;

/// Order of a dense layer's weights.
pub const DENSE: Packing = Packing::Offset4;

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    swar::select(request, CHANNEL_BYTES, DENSE)
}

/// The order of weights that [`select`] wants; `narrow` as in [`super::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    let _ = narrow;
    swar::packing(request, DENSE)
}
