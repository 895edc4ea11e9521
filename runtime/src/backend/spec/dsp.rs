//! What the kernels for cores with the DSP extension (Cortex-M4, M7, M33) take.

pub mod depthwise;
pub mod gemm;
pub mod winograd;

use super::select::{Linear, Request, Selection};
use super::wide_channels;
use crate::blob::Packing;

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    match request.linear {
        Linear::Conv2d { .. } if request.packing == Packing::Winograd => winograd::select(request),
        Linear::Conv2d { .. } | Linear::Dense { .. } => gemm::select(request),
        Linear::DepthwiseConv2d { .. } => {
            depthwise::select(request).or_else(|| wide_channels::select(request))
        }
    }
}

/// The order of weights that [`select`] wants; `narrow` as in [`super::select::packing`].
pub fn packing(request: &Request, narrow: bool) -> Packing {
    match request.linear {
        Linear::Conv2d { .. } | Linear::Dense { .. } => gemm::packing(request, narrow),
        Linear::DepthwiseConv2d { .. } => Packing::Rows,
    }
}
