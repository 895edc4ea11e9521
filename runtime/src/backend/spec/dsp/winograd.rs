//! Convolutions with transformed weights ([`crate::blob::winograd`]).

use crate::backend::spec::select::{Linear, Request, Selection};
use crate::blob::winograd::{INPUTS, OUTPUTS, PLANES, TAPS};
use crate::blob::{DType, Packing};
use crate::ops::window::{Axis, Window};

/// Rows, and columns, that a kernel gives at once.
pub const TILE: usize = 2;
/// Rows, and columns, that it reads for them.
pub const REACH: usize = TILE + TAPS - 1;
/// Bytes of a group of inputs in the transformed columns: two words for each of four planes and four columns.
pub const GROUP_BYTES: usize = 2 * 4 * PLANES * REACH;
/// Bytes of the constants of four outputs.
pub const QUAD_BYTES: usize = 64;
/// Most inputs: twice the sum of nine times so many products of bytes, bias included, fits 32 bits.
const MOST_INPUTS: usize = (3 << 14) / (TAPS * TAPS);
/// No kernel takes more outputs.
const MOST_OUTPUTS: usize = 1 << 22;

/// What the scratch holds, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Groups of inputs.
    pub groups: usize,
    /// Bytes of the constants.
    pub constants: usize,
    /// Bytes of the transformed columns.
    pub columns: usize,
    /// Bytes of the outputs of a position: where those go that lie outside.
    pub outside: usize,
    /// Bytes of a kept row, with its padding. There are [`REACH`].
    pub row: usize,
    /// All bytes.
    pub scratch_bytes: usize,
}

/// The plan for windows; `None`: scalar code.
pub fn plan(window: &Window) -> Option<Plan> {
    let Window { rows, columns, inputs, outputs, .. } = *window;
    let three = |axis: &Axis| axis.kernel == TAPS && axis.stride == 1 && axis.dilation == 1;
    let channels = (1..=MOST_INPUTS).contains(&inputs) && (1..=MOST_OUTPUTS).contains(&outputs);
    if !three(&rows) || !three(&columns) || !channels || !outputs.is_multiple_of(OUTPUTS) {
        return None;
    }
    let groups = inputs.div_ceil(INPUTS);
    let extent = columns.output.checked_next_multiple_of(TILE)?.checked_add(TAPS - 1)?;
    let row = extent.checked_mul(inputs)?.checked_next_multiple_of(4)?;
    let mut plan = Plan {
        groups,
        constants: (outputs / OUTPUTS).wrapping_mul(QUAD_BYTES),
        columns: groups.wrapping_mul(GROUP_BYTES),
        outside: outputs,
        row,
        scratch_bytes: 0,
    };
    // Reads go to the end of a word.
    let kept = row.checked_mul(REACH)?.checked_add(4)?;
    plan.scratch_bytes =
        kept.checked_add(plan.constants.wrapping_add(plan.columns).wrapping_add(plan.outside))?;
    Some(plan)
}

/// The kernel for a request; `None`: scalar code.
pub fn select(request: &Request) -> Option<Selection> {
    let Linear::Conv2d { window, groups: 1 } = &request.linear else { return None };
    if (request.packing, request.input, request.output) != (Packing::Winograd, DType::I8, DType::I8) {
        return None;
    }
    Some(Selection { name: "winograd", scratch_bytes: plan(window)?.scratch_bytes })
}

/// Whether the kernel can requantise with these constants; where it cannot, scalar code does the layer.
pub fn finishes(bias: &[i32], shift: &[i32]) -> bool {
    bias.iter().all(|bias| bias.unsigned_abs() < 1 << 28)
        && shift.iter().all(|shift| (-22..0).contains(shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(extent: usize, inputs: usize, outputs: usize) -> Window {
        let axis = Axis { input: extent, output: extent, kernel: 3, stride: 1, dilation: 1, pad: 1 };
        Window { batch: 1, rows: axis, columns: axis, inputs, outputs }
    }

    #[test]
    fn scratch_of_known_layers() {
        for (extent, channels, bytes) in [
            (32, 16, 256 + 512 + 16 + 4 * 34 * 16 + 4),
            (16, 32, 512 + 1024 + 32 + 4 * 18 * 32 + 4),
            (8, 64, 1024 + 2048 + 64 + 4 * 10 * 64 + 4),
        ] {
            assert_eq!(plan(&window(extent, channels, channels)).unwrap().scratch_bytes, bytes);
        }
        // Odd extents are filled up.
        assert_eq!(plan(&window(5, 3, 8)).unwrap().row, 24);
    }

    #[test]
    fn what_the_kernel_does_not_take() {
        let good = window(8, 8, 8);
        assert!(plan(&good).is_some());
        for other in [
            Window { outputs: 6, ..good },
            Window { inputs: MOST_INPUTS + 1, ..good },
            Window { inputs: 0, ..good },
            Window { rows: Axis { stride: 2, ..good.rows }, ..good },
            Window { columns: Axis { kernel: 1, ..good.columns }, ..good },
            Window { columns: Axis { dilation: 2, ..good.columns }, ..good },
            Window { columns: Axis { output: usize::MAX - 1, ..good.columns }, ..good },
        ] {
            assert_eq!(plan(&other), None, "{other:?}");
        }
        assert!(finishes(&[5, -5], &[-1, -22]));
        assert!(!finishes(&[1 << 28], &[-1]));
        assert!(!finishes(&[0], &[0]));
        assert!(!finishes(&[0], &[-23]));
    }
}
