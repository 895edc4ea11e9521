//! Windows of stride 1 over an image that the output replaces: the rows that later windows still need are kept in scratch.

use core::cell::Cell;

use crate::ops::window::{Axis, Window};
use crate::rolled::{rolled, unknown};

/// Writes an output row: of a window over the kept rows alone, these rows, and its place.
type RowOf<'a> = dyn FnMut(&Window, &[i8], &mut [i8]) -> Option<()> + 'a;

/// As [`RowOf`], of a layer or a row of it.
type Layer<'a> = dyn Fn(&Window, &[i8], &mut [i8]) -> Option<()> + 'a;

/// Runs `run` apart from the input, or where there is none, for each row in its place, as [`rows_in_place`].
#[inline]
pub fn apart_or_in_place(
    window: &Window,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
    run: &Layer<'_>,
) -> Option<()> {
    match input {
        Some(input) => run(window, input, output),
        None => {
            rows_in_place(window, output, scratch, &mut |window, input, output| run(window, input, output))
        }
    }
}

/// Runs `row_of` for each output row: on a window over the kept rows alone, these rows, and the place of the output row. `None` where the
/// scratch is shorter than [`Window::kept_bytes`].
#[inline(never)]
pub fn rows_in_place(
    window: &Window,
    values: &mut [i8],
    scratch: &mut [u8],
    row_of: &mut RowOf<'_>,
) -> Option<()> {
    let rows = &window.rows;
    let row_bytes = window.columns.input.wrapping_mul(window.inputs);
    let mut kept = Kept {
        bytes: bytemuck::cast_slice_mut(scratch.get_mut(..window.kept_bytes())?),
        row_bytes,
        first: 0,
        next: 0,
    };
    let mut part = Window { batch: 1, rows: Axis { output: 1, ..*rows }, ..*window };
    let mut images = values;
    for _ in 0..window.batch {
        let (image, rest) = images.split_at_mut_checked(window.image())?;
        images = rest;
        (kept.first, kept.next) = (0, 0);
        for row in 0..rows.output {
            // Read again for each row: it does not wait on the stack.
            let rows = &unknown(window).rows;
            kept.bring(image, rows, row)?;
            part.rows.input = kept.count();
            part.rows.pad = rows.pad.saturating_sub(row);
            let start = row.wrapping_mul(kept.row_bytes);
            let place = image.get_mut(start..start.wrapping_add(kept.row_bytes))?;
            row_of(&part, kept.bytes.get(..kept.count().wrapping_mul(kept.row_bytes))?, place)?;
        }
    }
    Some(())
}

/// The kept rows of an image.
struct Kept<'a> {
    bytes: &'a mut [i8],
    row_bytes: usize,
    /// The first kept row.
    first: usize,
    /// The row behind the last.
    next: usize,
}

impl Kept<'_> {
    /// Keeps the rows under the windows of output row `row`. In a frame of its own, which is gone when that row runs.
    #[inline(never)]
    fn bring(&mut self, image: &[i8], rows: &Axis, row: usize) -> Option<()> {
        let from = row.saturating_sub(rows.pad).min(self.next);
        let to = row.wrapping_add(rows.reach()).saturating_sub(rows.pad).min(rows.input);
        let count = self.next.wrapping_sub(from);
        let dropped = from.wrapping_sub(self.first).wrapping_mul(self.row_bytes);
        let end = self.next.wrapping_sub(self.first).wrapping_mul(self.row_bytes);
        if dropped > 0 {
            // `copy_within` links a panic.
            let live = Cell::from_mut(self.bytes.get_mut(..end)?).as_slice_of_cells();
            for (slot, x) in live.iter().zip(live.get(dropped..)?) {
                rolled();
                slot.set(x.get());
            }
        }
        let fresh = self.next.wrapping_mul(self.row_bytes)..to.wrapping_mul(self.row_bytes);
        let fresh = image.get(fresh).unwrap_or(&[]);
        let at = count.wrapping_mul(self.row_bytes);
        let slots = self.bytes.get_mut(at..at.wrapping_add(fresh.len()))?;
        for (slot, &x) in slots.iter_mut().zip(fresh) {
            rolled();
            *slot = x;
        }
        (self.first, self.next) = (from, to.max(self.next));
        Some(())
    }

    /// How many rows are kept.
    fn count(&self) -> usize {
        self.next.wrapping_sub(self.first)
    }
}
