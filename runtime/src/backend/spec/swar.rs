//! What the kernels for cores without the DSP extension take, Armv6-M and Armv7-M alike, and how they divide their scratch.
//!
//! Two positions share a word, `x0 + (x1 << 16)`, so that one multiplication gives two products.

use super::select::{Linear, Request, Selection};
use crate::blob::{DType, Packing};
use crate::ops::window::Window;

/// Bytes of a word that holds two positions.
const PAIR_BYTES: usize = 4;

/// Scratch of a convolution, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Bytes of the constants of all output channels.
    pub channels: usize,
    /// Bytes of the inputs of four windows in pairs.
    pub pairs: usize,
    /// Bytes under a row of a window that lies in the padding.
    pub padding: usize,
    /// Bytes of a row of four windows that reach into the padding; 0 if no window does so in part.
    pub edges: usize,
    /// Bytes of the input's rows that are kept.
    pub kept: usize,
}

impl Convolution {
    /// All bytes.
    pub fn bytes(&self) -> usize {
        self.channels
            .saturating_add(self.pairs)
            .saturating_add(self.padding)
            .saturating_add(self.edges)
            .saturating_add(self.kept)
    }
}

/// Whether input and output are of 8 bits.
fn narrow(request: &Request) -> bool {
    request.input == DType::I8 && request.output == DType::I8
}

/// The scratch of a convolution with `channel_bytes` of constants for each output; `None`: scalar code.
pub fn convolution(request: &Request, channel_bytes: usize) -> Option<Convolution> {
    let Linear::Conv2d { window, groups: 1 } = &request.linear else { return None };
    if !narrow(request) || request.packing != Packing::Columns8 {
        return None;
    }
    let Window { rows, columns, inputs, outputs, .. } = window;
    let run = columns.kernel.saturating_mul(*inputs);
    let depth = rows.kernel.saturating_mul(run).checked_next_multiple_of(2)?;
    let pointwise = rows.kernel == 1 && columns.kernel == 1;
    Some(Convolution {
        channels: outputs.saturating_mul(channel_bytes),
        pairs: depth.saturating_mul(2 * PAIR_BYTES),
        padding: run,
        edges: if columns.kernel == 1 { 0 } else { run.saturating_mul(4) },
        kept: if request.in_place && !pointwise { window.kept_bytes() } else { 0 },
    })
}

/// The kernel for a request on a core with `channel_bytes` of constants for each output.
pub fn select(request: &Request, channel_bytes: usize) -> Option<Selection> {
    match &request.linear {
        Linear::Conv2d { .. } => {
            let layout = convolution(request, channel_bytes)?;
            Some(Selection { name: "swar-columns", scratch_bytes: layout.bytes() })
        }
        _ => None,
    }
}

/// The order of weights that [`select`] wants.
pub fn packing(request: &Request) -> Packing {
    match &request.linear {
        Linear::Conv2d { groups: 1, .. } if narrow(request) => Packing::Columns8,
        _ => Packing::Rows,
    }
}
