//! Which kernels x86 hosts have for linear layers in prepared programs ([`crate::host`]): the names by which they are priced.

use super::select::{Linear, Request, Selection, least_scratch};
use crate::blob::{DType, Packing};
use crate::ops::window::{Axis, Window};

/// The kernel for a request; `None`: portable code, which takes packed weights.
pub fn select(request: &Request) -> Option<Selection> {
    if request.packing != Packing::Rows {
        return None;
    }
    let wide = [request.input, request.output] != [DType::I8; 2];
    let name = match (request.linear, wide) {
        (Linear::Conv2d { .. }, false) => "conv2d_i8",
        (Linear::DepthwiseConv2d { window }, false) if window.inputs == window.outputs => {
            "depthwise_conv2d_i8"
        }
        (Linear::DepthwiseConv2d { .. }, false) => "depthwise_conv2d_i8, multiplied",
        (Linear::Dense { .. }, false) => "dense_i8",
        (Linear::DepthwiseConv2d { window }, true) if window.inputs == window.outputs => {
            "depthwise_conv2d_i16"
        }
        // A dense layer is a window of one tap, and several outputs for an input channel are groups.
        (Linear::Conv2d { .. } | Linear::Dense { .. } | Linear::DepthwiseConv2d { .. }, true) => "conv2d_i16",
    };
    // A session runs portable code.
    Some(Selection { name, scratch_bytes: least_scratch(request) })
}

/// The kernel for a layer of floats.
pub fn float(linear: &Linear) -> Option<&'static str> {
    Some(match linear {
        Linear::Conv2d { window, groups } if winograd(window, *groups) => "conv2d_f32_winograd",
        Linear::Conv2d { .. } => "conv2d_f32",
        Linear::DepthwiseConv2d { window } if window.inputs == window.outputs => "depthwise_conv2d_f32",
        Linear::DepthwiseConv2d { .. } => "depthwise_conv2d_f32, multiplied",
        Linear::Dense { .. } => "dense_f32",
    })
}

/// Whether windows of floats go through Winograd's F(2x2, 3x3): where that takes fewer clocks than direct ones.
pub fn winograd(window: &Window, groups: usize) -> bool {
    /// Products of an input and an output channel in a tile.
    const ELEMENTS: usize = 16;
    let three = |axis: &Axis| axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1;
    if groups != 1 || !three(&window.rows) || !three(&window.columns) {
        return false;
    }
    let product = |factors: &[usize]| factors.iter().fold(1usize, |all, &factor| all.saturating_mul(factor));
    let positions = product(&[window.rows.output, window.columns.output]);
    let tiles = product(&[window.rows.output.div_ceil(2), window.columns.output.div_ceil(2)]);
    let [inputs, outputs] = [window.inputs, window.outputs].map(|channels| channels.div_ceil(16));
    let direct = product(&[positions, 9, window.inputs, outputs]);
    // The weights are read once for all tiles: from beyond the first-level cache, two clocks a register and more.
    let products = product(&[tiles.max(4), ELEMENTS, window.inputs, outputs]);
    let transforms = product(&[tiles, product(&[96, inputs]).saturating_add(product(&[80, outputs]))]);
    products.saturating_add(transforms) < product(&[direct, 9]) / 10
}
