//! Matrix products: convolutions in one group and dense layers.

use crate::backend::spec::select::{Request, Selection};
use crate::blob::Packing;

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    let _ = request;
    None
}

/// The order of weights that [`select`] wants; `narrow` as in [`crate::backend::spec::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    let _ = (request, narrow);
    Packing::Rows
}
