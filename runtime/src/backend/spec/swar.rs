//! What the kernels for cores without the DSP extension take, Armv6-M and Armv7-M alike, and how they divide their scratch.
//!
//! Two positions of 8 bits share a word, `x0 + (x1 << 16)`, so that one multiplication gives two products. Layers from or to 16 bits have a word for each.

use super::select::{Linear, Request, Selection};
use super::wide_channels;
use crate::blob::{DType, Packing};
use crate::ops::window::Window;
use crate::rolled::rolled;

/// Bytes of a word that holds two positions.
const PAIR_BYTES: usize = 4;
/// Bytes of four windows' inputs under a tap, each a word: for layers from or to 16 bits.
const WIDE_BYTES: usize = 16;
/// Bytes of a channel's constants there: bias, constant, multiplier, shift.
pub const WIDE_CHANNEL_BYTES: usize = 16;
/// The most bytes of four windows' inputs as words.
const MOST_WIDE_BYTES: usize = 1 << 15;

/// Scratch of a convolution, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Bytes of the constants of all output channels.
    pub channels: usize,
    /// Bytes of the inputs of four windows in pairs, or as words.
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

/// Whether no weight is -128: two products of others, of weights that a word of two positions takes one after the other, sum up to less than 2^15.
#[inline(never)]
pub fn is_symmetric(weights: &[i8]) -> bool {
    let (head, words, tail) = bytemuck::pod_align_to::<i8, u32>(weights);
    let mut found = 0u32;
    for &byte in head.iter().chain(tail) {
        rolled();
        found |= u32::from(byte == i8::MIN);
    }
    for &word in words {
        rolled();
        let word = word ^ 0x8080_8080;
        // A byte that is 0 borrows, and had no upper bit.
        found |= word.wrapping_sub(0x0101_0101) & !word & 0x8080_8080;
    }
    found == 0
}

/// Whether input and output are of 8 bits.
fn narrow(request: &Request) -> bool {
    request.input == DType::I8 && request.output == DType::I8
}

/// What differs between cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Bytes of an output channel's constants.
    pub channel_bytes: usize,
    /// Order of a convolution's weights.
    pub convolution: Packing,
    /// Order of a dense layer's weights.
    pub dense: Packing,
}

/// The scratch of a convolution; `None`: scalar code.
pub fn convolution(request: &Request, core: &Core) -> Option<Convolution> {
    let Linear::Conv2d { window, groups } = &request.linear else { return None };
    let Window { rows, columns, inputs, outputs, .. } = window;
    let inputs_of_group = inputs.checked_div(*groups)?;
    let run = columns.kernel.checked_sub(1)?.saturating_mul(*inputs).saturating_add(inputs_of_group);
    let pointwise = rows.kernel == 1 && columns.kernel == 1;
    if !narrow(request) || (request.packing == Packing::Rows && (pointwise || !request.in_place)) {
        let pairs = rows.kernel.saturating_mul(run).saturating_mul(WIDE_BYTES);
        let padding = run.saturating_mul(request.input.bytes());
        let fits = *groups == 1 && request.packing == Packing::Rows && pairs <= MOST_WIDE_BYTES;
        return fits.then_some(Convolution {
            channels: outputs.saturating_mul(WIDE_CHANNEL_BYTES),
            pairs,
            padding,
            edges: if columns.kernel == 1 { 0 } else { padding.saturating_mul(4) },
            kept: 0,
        });
    }
    if request.packing != core.convolution {
        return None;
    }
    let depth = request.linear.depth()?.checked_next_multiple_of(2)?;
    Some(Convolution {
        channels: outputs.saturating_mul(core.channel_bytes),
        pairs: depth.saturating_mul(2 * PAIR_BYTES),
        padding: run,
        edges: if columns.kernel == 1 { 0 } else { run.saturating_mul(4) },
        kept: if request.in_place && !pointwise { window.kept_bytes() } else { 0 },
    })
}

/// The most bytes that a plane of pairs may take.
const PLANE_BYTES: usize = 1 << 14;

/// How a depthwise convolution runs, and its scratch in the order of the last fields. Four bands of output rows are four lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// Output rows of a band.
    pub band: usize,
    /// Rows of a plane.
    pub rows: usize,
    /// Columns of a plane.
    pub columns: usize,
    /// Taps, an even number.
    pub taps: usize,
    /// Bytes of a channel's constants.
    pub channel: usize,
    /// Bytes of places and weights of a channel's taps.
    pub table: usize,
    /// Bytes of a channel's plane: four bands of inputs in pairs.
    pub plane: usize,
    /// Bytes of a row of padding.
    pub padding: usize,
}

impl Depthwise {
    /// All bytes.
    pub fn bytes(&self) -> usize {
        self.channel.saturating_add(self.table).saturating_add(self.plane).saturating_add(self.padding)
    }

    /// First output row of a lane; bands overlap at the end.
    pub fn first(&self, rows: usize, lane: usize) -> usize {
        lane.wrapping_mul(self.band).min(rows.saturating_sub(self.band))
    }
}

/// How a depthwise convolution runs; `None`: by scalar code.
pub fn depthwise(request: &Request, core: &Core) -> Option<Depthwise> {
    let Linear::DepthwiseConv2d { window } = &request.linear else { return None };
    if !narrow(request) || request.packing != Packing::Rows || !request.constants.symmetric {
        return None;
    }
    let Window { rows, columns, inputs, .. } = window;
    let band = rows.output.div_ceil(4);
    let plane_rows = band.saturating_sub(1).saturating_mul(rows.stride).saturating_add(rows.reach());
    let under =
        columns.output.saturating_sub(1).saturating_mul(columns.stride).saturating_add(columns.reach());
    let plane_columns = under.max(columns.pad.saturating_add(columns.input));
    let taps = rows.kernel.saturating_mul(columns.kernel).checked_next_multiple_of(2)?;
    let plane = plane_rows.saturating_mul(plane_columns).saturating_mul(2 * PAIR_BYTES);
    (plane <= PLANE_BYTES).then_some(Depthwise {
        band,
        rows: plane_rows,
        columns: plane_columns,
        taps,
        channel: core.channel_bytes,
        table: taps.saturating_mul(8),
        plane,
        padding: columns.input.saturating_mul(*inputs),
    })
}

/// The most inputs that a dense layer takes at once: no sum over so many, of products with a weight plus 128, leaves 23 bits.
pub const DENSE_INPUTS: usize = 128;

/// How a dense layer runs: sums of some outputs over some inputs as words, both in the scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Outputs at once, a multiple of four.
    pub outputs: usize,
    /// Inputs at once, a multiple of eight.
    pub inputs: usize,
}

impl Dense {
    /// Bytes of sums and inputs.
    pub fn bytes(&self) -> usize {
        self.outputs.saturating_add(self.inputs).saturating_mul(4)
    }
}

/// How a dense layer runs; `None`: by scalar code.
pub fn dense(request: &Request, core: &Core) -> Option<Dense> {
    let Linear::Dense { inputs, outputs } = request.linear else { return None };
    let packing = if narrow(request) { core.dense } else { Packing::Rows };
    if request.packing != packing || inputs == 0 {
        return None;
    }
    // Few inputs stay for all outputs.
    let [most_inputs, most_outputs] = if inputs <= DENSE_INPUTS { [DENSE_INPUTS, 64] } else { [64, 128] };
    Some(Dense {
        outputs: outputs.min(most_outputs).wrapping_add(3) & !3,
        inputs: inputs.min(most_inputs).wrapping_add(7) & !7,
    })
}

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request, core: &Core) -> Option<Selection> {
    if let Some(wide) = wide_channels::select(request) {
        return Some(wide);
    }
    let (name, scratch_bytes) = match &request.linear {
        Linear::Conv2d { .. } => {
            let name = if request.packing == core.convolution { "swar-columns" } else { "wide-columns" };
            (name, convolution(request, core)?.bytes())
        }
        Linear::DepthwiseConv2d { .. } => ("swar-plane", depthwise(request, core)?.bytes()),
        Linear::Dense { .. } => {
            let name = if narrow(request) { "dense-words" } else { "wide-dense" };
            (name, dense(request, core)?.bytes())
        }
    };
    Some(Selection { name, scratch_bytes })
}

/// The order of weights that [`select`] wants; `is_narrow` as in [`super::select::packing`]: no weight is -128.
pub fn packing(request: &Request, is_narrow: bool, core: &Core) -> Packing {
    match &request.linear {
        _ if !narrow(request) => Packing::Rows,
        Linear::Conv2d { .. } if is_narrow && request.linear.fills(core.convolution) => core.convolution,
        Linear::Dense { .. } => core.dense,
        _ => Packing::Rows,
    }
}
