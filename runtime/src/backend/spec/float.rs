//! What the kernels for layers of single-precision floats take: cores with a floating-point unit or with the vector extension, and
//! hosts.
//!
//! They sum up in another order than portable code, with products that are not rounded: an output differs by less than 2^-16 of the sum of its terms'
//! magnitudes. With the vector extension what is smaller than the least normal number counts as zero.

use super::select::{Isa, Linear};
use super::x86;
use crate::ops::window::Window;

/// Whether taps of a convolution's row lie side by side, so that inner products are runs.
pub fn conv2d(window: &Window, groups: usize) -> bool {
    groups == 1 && (window.columns.dilation == 1 || window.columns.kernel == 1)
}

/// Whether each input channel of a depthwise convolution has one output.
pub fn depthwise_conv2d(window: &Window) -> bool {
    window.inputs == window.outputs
}

/// The kernel's name in reports; `None`: scalar code.
pub fn select(isa: Isa, linear: &Linear) -> Option<&'static str> {
    let [dots, channels] = match isa {
        Isa::ThumbDsp => ["fpu dots", "fpu channels"],
        Isa::Helium => ["helium dots", "helium channels"],
        Isa::X86 => return x86::float(linear),
        Isa::Scalar | Isa::ThumbV6M | Isa::ThumbV7M => return None,
    };
    match linear {
        Linear::Conv2d { window, groups } => conv2d(window, *groups).then_some(dots),
        Linear::DepthwiseConv2d { window } => depthwise_conv2d(window).then_some(channels),
        Linear::Dense { .. } => Some(dots),
    }
}
