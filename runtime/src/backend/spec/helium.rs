//! What the kernels for cores with the vector extension (Cortex-M55, M85) take.

use super::select::{Request, Selection};
use crate::blob::Packing;

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    let _ = request;
    None
}

/// The order of weights that [`select`] wants; `narrow` as in [`super::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    let _ = (request, narrow);
    Packing::Rows
}
