//! Convolutions with transformed weights: two rows by two columns of outputs at a time.

mod tile;

use tile::Run;

use super::gemm::constants::Form;
use super::gemm::{Linked, gather, tile as gemm_tile};
use crate::backend::spec::dsp::gemm::tile_of;
use crate::backend::spec::dsp::winograd::{Plan, REACH, TILE, plan};
use crate::blob::winograd::{INPUTS, OUTPUTS, bytes};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// Convolution. `None`: it is not for this kernel, nothing was done.
#[inline(never)]
pub fn conv2d<K: Linked>(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let plan = plan(window)?;
    // From here on `None` means that a buffer is shorter than the shapes say, weights or scratch are not aligned for words, or that constants
    // have no form.
    let scratch = scratch.get_mut(..plan.scratch_bytes)?;
    let (constants, rest) = scratch.split_at_mut_checked(plan.constants)?;
    let (columns, rest) = rest.split_at_mut_checked(plan.columns)?;
    let (outside, kept) = rest.split_at_mut_checked(plan.outside)?;
    let constants: &mut [i32] = bytemuck::try_cast_slice_mut(constants).ok()?;
    let Window { batch, rows, columns: across, inputs, outputs } = *window;
    let image = rows.input.checked_mul(across.input)?.checked_mul(inputs)?;
    let out_row = across.output.checked_mul(outputs)?;
    let written = batch.checked_mul(rows.output)?.checked_mul(out_row)?;
    if input.unwrap_or(output).len() < batch.checked_mul(image)?
        || output.len() < written
        || linear.packing != Packing::Winograd
        || linear.weights.len() < bytes(inputs, outputs)?
        || linear.weights.as_ptr().align_offset(4) != 0
        || linear.bias.len() != outputs
        || linear.multiplier.len() != outputs
        || linear.shift.len() != outputs
    {
        return None;
    }
    // Sums come doubled, as this form wants them.
    let wide = tile_of(window, 1, DType::I8, Packing::Blocks2x4)?;
    let form = Form::of::<K>(linear, &wide, [1, 1], gemm_tile::store_i8, constants)?;
    let full = (linear.low, linear.high) == (i8::MIN.into(), i8::MAX.into());
    let run = Run {
        weights: linear.weights.as_ptr(),
        scale: if form.signed { tile::scale_signed } else { tile::scale_unsigned },
        store: if full { tile::store_full } else { tile::store_bounded },
        zero: form.zero,
        top: form.top,
        back: form.back,
        constants: constants.as_ptr(),
        quads: outputs / OUTPUTS,
        ..Run::over(columns.as_mut_ptr(), plan.groups)
    };
    let mut layer = Layer {
        window,
        plan: &plan,
        zero: linear.input_zero as u8,
        columns: columns.as_mut_ptr(),
        outside: outside.as_mut_ptr(),
        kept,
        run,
    };
    let mut left = output;
    for n in 0..batch {
        let (place, others) = left.split_at_mut_checked(rows.output.wrapping_mul(out_row))?;
        let source = match input {
            Some(input) => Some(input.get(n.wrapping_mul(image)..)?),
            None => None,
        };
        layer.image(source, place)?;
        left = others;
    }
    Some(())
}

/// A layer on its way through the tiles.
struct Layer<'a> {
    window: &'a Window,
    plan: &'a Plan,
    /// The input's zero point.
    zero: u8,
    /// The transformed columns.
    columns: *mut u8,
    /// Where outputs go that lie outside.
    outside: *mut u8,
    /// Rows of the input, with their padding: row `y`, counted from the top of the padding, is the one of number `y % REACH`.
    kept: &'a mut [u8],
    run: Run,
}

impl Layer<'_> {
    /// One image; `conv2d` has measured it.
    #[inline(never)]
    fn image(&mut self, input: Option<&[i8]>, output: &mut [i8]) -> Option<()> {
        let Window { rows, columns, inputs, .. } = *self.window;
        let left = columns.pad.checked_mul(inputs)?.min(self.plan.row);
        let row_bytes = columns.input.wrapping_mul(inputs);
        let bytes = self.plan.row.wrapping_sub(left).min(row_bytes);
        self.kept.fill(self.zero);
        let mut next = 0usize;
        let mut row = 0usize;
        while row < rows.output {
            while next < row.wrapping_add(REACH) {
                let at = (next % REACH).wrapping_mul(self.plan.row).wrapping_add(left);
                let kept = self.kept.get_mut(at..at.wrapping_add(bytes))?;
                let y = next.wrapping_sub(rows.pad);
                next = next.wrapping_add(1);
                if y < rows.input {
                    let at = y.wrapping_mul(row_bytes);
                    let source = input.unwrap_or(output).get(at..at.wrapping_add(bytes))?;
                    // SAFETY: both are slices of `bytes` bytes, the source of a tensor, the destination of the scratch.
                    unsafe { gather::copy(kept.as_mut_ptr(), source.as_ptr().cast(), bytes) };
                } else {
                    kept.fill(self.zero);
                }
            }
            self.rows(row, output);
            row = row.wrapping_add(TILE);
        }
        Some(())
    }

    /// Two rows of outputs, or one, from `top` on, of an image that `conv2d` has measured; the kept rows are those under them.
    #[inline(never)]
    fn rows(&mut self, top: usize, output: &mut [i8]) {
        let Plan { row, groups, .. } = *self.plan;
        let Window { rows, columns, inputs, outputs, .. } = *self.window;
        let mut sources = [self.kept.as_ptr(); REACH];
        for (n, source) in (top..).zip(&mut sources) {
            rolled();
            *source = source.wrapping_add((n % REACH).wrapping_mul(row));
        }
        let excess = inputs.wrapping_neg() % INPUTS;
        let out_row = columns.output.wrapping_mul(outputs);
        let upper = output.as_mut_ptr().cast::<u8>().wrapping_add(top.wrapping_mul(out_row));
        let (lower, step) = match top.wrapping_add(1) < rows.output {
            true => (upper.wrapping_add(out_row), outputs),
            false => (self.outside, 0),
        };
        self.run.out = [upper, upper.wrapping_add(outputs), lower, lower.wrapping_add(step)];
        let steps = [outputs, outputs, step, step];
        let mut fresh = REACH;
        let mut left = columns.output;
        while left > 0 {
            if left == 1 {
                let [_, right, _, lower_right] = &mut self.run.out;
                (*right, *lower_right) = (self.outside, self.outside);
            }
            // SAFETY: `Plan` makes the columns as long as all groups are, and kept rows as long as the columns of whole tiles reach, with a
            // word behind the last.
            unsafe { tile::transform(self.columns, &raw const sources, groups, excess, fresh) };
            // SAFETY: weights, constants and columns were measured by `conv2d`, and so was the output, within which each place lies that is not
            // `outside`; there too are `outputs` bytes.
            unsafe { tile::product(&raw const self.run) };
            let taken = fresh.wrapping_mul(inputs);
            for source in &mut sources {
                rolled();
                *source = source.wrapping_add(taken);
            }
            for (place, step) in self.run.out.iter_mut().zip(steps) {
                rolled();
                *place = place.wrapping_add(step.wrapping_mul(TILE));
            }
            fresh = TILE;
            left = left.saturating_sub(TILE);
        }
    }
}
