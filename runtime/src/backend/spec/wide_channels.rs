//! What the kernel for depthwise convolutions from or to 16 bits takes on cores without vectors.

use super::select::{Linear, Request, Selection};
use crate::blob::{DType, Packing};
use crate::ops::window::Window;

/// Bytes of the sums of a window.
pub fn scratch(window: &Window) -> Option<usize> {
    window.outputs.checked_mul(4)
}

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    let Linear::DepthwiseConv2d { window } = &request.linear else { return None };
    let wide = [request.input, request.output] != [DType::I8; 2] && request.packing == Packing::Rows;
    if !wide || window.inputs != window.outputs {
        return None;
    }
    Some(Selection { name: "wide-channels", scratch_bytes: scratch(window)? })
}
