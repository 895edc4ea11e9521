//! Regions: chains of convolutions that run a few rows at a time, so that what lies between them is never whole in memory.
//!
//! Takes the row axes of the chain's steps; gives, tile after tile, which rows of which step come next ([`Tiles`]), each row once. Between two
//! steps stands a window: the rows that the next step still reads. Refused at load ([`check`]): chains with other operators, windows that
//! are too short, tensors of windows outside their region, memory that is used twice.

use crate::arena::Place;
use crate::blob::RegionRecord;
use crate::error::ErrorKind;
use crate::model::{Step, place_of};
use crate::ops::window::Axis;

/// Most steps of a region.
pub const MAX_STEPS: usize = 8;

/// Rows that a step of a region has to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// First row of the output.
    pub from: usize,
    /// The row behind the last.
    pub to: usize,
    /// Row of the input that its memory starts with.
    pub input_base: usize,
    /// Row of the output that its memory starts with, after `dropped` rows have left it.
    pub output_base: usize,
    /// Rows that leave the output's memory before the new ones come.
    pub dropped: usize,
}

impl Rows {
    /// Rows in the output's memory before the new ones come.
    pub fn kept(&self) -> usize {
        self.from.wrapping_sub(self.output_base)
    }
}

/// The order of work of a region.
#[derive(Clone, Debug)]
pub struct Tiles {
    axes: [Axis; MAX_STEPS],
    count: usize,
    rows: usize,
    /// Rows that each step has written, has to write in this tile, and the first one in memory.
    done: [usize; MAX_STEPS],
    end: [usize; MAX_STEPS],
    base: [usize; MAX_STEPS],
    next: usize,
}

const NO_AXIS: Axis = Axis { input: 0, output: 0, kernel: 1, stride: 1, dilation: 1, pad: 0 };

impl Tiles {
    /// The order for a chain whose steps have these row axes, `rows` rows of the last output a tile. `None`: no steps or too many, no rows,
    /// or extents that do not follow on each other.
    #[inline(never)]
    pub fn new(axes: impl Iterator<Item = Axis>, rows: usize) -> Option<Self> {
        let mut tiles = Self {
            axes: [NO_AXIS; MAX_STEPS],
            count: 0,
            rows,
            done: [0; MAX_STEPS],
            end: [0; MAX_STEPS],
            base: [0; MAX_STEPS],
            next: 0,
        };
        let mut before: Option<Axis> = None;
        for axis in axes {
            if before.is_some_and(|before| before.output != axis.input) {
                return None;
            }
            *tiles.axes.get_mut(tiles.count)? = axis;
            tiles.count = tiles.count.wrapping_add(1);
            before = Some(axis);
        }
        tiles.next = tiles.count;
        (tiles.count > 0 && rows > 0).then_some(tiles)
    }

    /// Sets the rows that each step has to reach for the next tile; `None` at the end.
    fn tile(&mut self) -> Option<()> {
        let last = self.count.checked_sub(1)?;
        let (axis, done) = (self.axes.get(last)?, *self.done.get(last)?);
        if done >= axis.output {
            return None;
        }
        let mut wanted = done.saturating_add(self.rows).min(axis.output);
        *self.end.get_mut(last)? = wanted;
        for step in (0..last).rev() {
            let reader = self.axes.get(step.wrapping_add(1))?;
            let past = wanted.saturating_sub(1).saturating_mul(reader.stride).saturating_add(reader.reach());
            let past = past.saturating_sub(reader.pad).min(reader.input);
            wanted = past.max(*self.done.get(step)?);
            *self.end.get_mut(step)? = wanted;
        }
        self.next = 0;
        Some(())
    }

    /// The next step that has rows to write, and which.
    pub fn advance(&mut self) -> Option<(usize, Rows)> {
        loop {
            if self.next >= self.count {
                self.tile()?;
            }
            let step = self.next;
            self.next = step.wrapping_add(1);
            let (from, to) = (*self.done.get(step)?, *self.end.get(step)?);
            if to <= from {
                continue;
            }
            let input_base = match step.checked_sub(1) {
                Some(before) => *self.base.get(before)?,
                None => 0,
            };
            let old_base = *self.base.get(step)?;
            let reader = step.wrapping_add(1);
            let output_base = if reader < self.count {
                let axis = self.axes.get(reader)?;
                let first_read = self.done.get(reader)?.saturating_mul(axis.stride).saturating_sub(axis.pad);
                // `clamp` could panic.
                first_read.max(old_base).min(from)
            } else {
                0
            };
            *self.base.get_mut(step)? = output_base;
            *self.done.get_mut(step)? = to;
            let dropped = output_base.wrapping_sub(old_base);
            return Some((step, Rows { from, to, input_base, output_base, dropped }));
        }
    }

    /// Most rows that the output of each step needs in memory at once; that of the last step lies whole elsewhere.
    pub fn windows(mut self) -> [usize; MAX_STEPS] {
        let mut most = [0usize; MAX_STEPS];
        while let Some((step, rows)) = self.advance() {
            if let Some(most) = most.get_mut(step) {
                *most = (*most).max(rows.to.wrapping_sub(rows.output_base));
            }
        }
        most
    }

    /// Whether the last output may lie in the place of the first input: every row is read before it is written.
    pub fn replaces_input(&self) -> bool {
        let axes = self.axes.get(..self.count).unwrap_or(&[]);
        let same = |axis: &Axis| axis.stride == 1 && axis.input == axis.output && axis.pad < axis.reach();
        axes.iter().all(same) && axes.first().is_some_and(|axis| axis.kernel == 1)
    }
}

/// Judges a region. `step` gives the steps of the blob, `rows` the row axis of those that can run row by row.
///
/// # Errors
/// [`ErrorKind::Region`].
pub fn check<'m>(
    region: &RegionRecord,
    step: impl Fn(u16) -> Option<Step<'m>>,
    rows: impl Fn(&Step<'m>) -> Option<Axis>,
) -> Result<(), ErrorKind> {
    sound(region, step, rows).filter(|sound| *sound).map(|_| ()).ok_or(ErrorKind::Region)
}

fn sound<'m>(
    region: &RegionRecord,
    step: impl Fn(u16) -> Option<Step<'m>>,
    rows: impl Fn(&Step<'m>) -> Option<Axis>,
) -> Option<bool> {
    let steps = || (0..region.count).map(|k| step(region.first.wrapping_add(k)));
    if region.count < 2 || usize::from(region.count) > MAX_STEPS {
        return Some(false);
    }
    let mut axes = [NO_AXIS; MAX_STEPS];
    let mut before: Option<u16> = None;
    for (axis, step) in axes.iter_mut().zip(steps()) {
        let step = step?;
        *axis = rows(&step)?;
        if step.counts().0 != 1 || before.is_some_and(|before| step.input_id(0) != Some(before)) {
            return Some(false);
        }
        before = step.output_id(0);
    }
    let count = usize::from(region.count);
    let tiles = Tiles::new(axes.iter().take(count).copied(), usize::from(region.rows))?;
    let in_place = tiles.replaces_input();
    let windows = tiles.windows();
    let first = step(region.first)?.input(0)?;
    let source = place_of(&first)?;
    // Every place of the region against all that came before it.
    for (k, stage) in steps().enumerate() {
        let stage = stage?;
        let output = stage.output(0)?;
        let place = place_of(&output)?;
        let is_last = k.wrapping_add(1) == count;
        let long_enough = usize::from(output.window_rows) >= *windows.get(k)?;
        if is_last != (output.window_rows == 0) || !(is_last || long_enough) {
            return Some(false);
        }
        if meet(&place, &source) && !(is_last && in_place && place == source) {
            return Some(false);
        }
        let scratch = Place { space: crate::blob::Space::Arena, range: stage.scratch() };
        if meet(&scratch, &source) {
            return Some(false);
        }
        for (other, earlier) in steps().enumerate() {
            let written = place_of(&earlier?.output(0)?)?;
            if other < k && meet(&place, &written) || meet(&scratch, &written) {
                return Some(false);
            }
        }
    }
    Some(first.window_rows == 0)
}

fn meet(a: &Place, b: &Place) -> bool {
    a.meets(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: usize, kernel: usize, stride: usize, pad: usize) -> Axis {
        Axis { input, output: (input + 2 * pad - kernel) / stride + 1, kernel, stride, dilation: 1, pad }
    }

    /// Every row is written once and in order, from rows that are in memory.
    fn simulate(axes: &[Axis], rows: usize) -> [usize; MAX_STEPS] {
        let mut tiles = Tiles::new(axes.iter().copied(), rows).unwrap();
        // For each step the rows in memory.
        let mut kept = vec![0..0; axes.len()];
        while let Some((step, work)) = tiles.advance() {
            let axis = axes[step];
            assert_eq!(work.from, kept[step].end);
            if step + 1 < axes.len() {
                assert_eq!(work.output_base, kept[step].start + work.dropped);
                kept[step].start = work.output_base;
            }
            kept[step].end = work.to;
            for row in work.from..work.to {
                for tap in 0..axis.kernel {
                    let Some(read) = axis.position(row, tap) else { continue };
                    if step > 0 {
                        assert!(kept[step - 1].contains(&read), "{axes:?} step {step} row {row}");
                        assert_eq!(work.input_base, kept[step - 1].start);
                    }
                }
            }
        }
        for (axis, kept) in axes.iter().zip(&kept) {
            assert!(kept.end <= axis.output);
        }
        assert_eq!(kept.last().unwrap().end, axes.last().unwrap().output);
        Tiles::new(axes.iter().copied(), rows).unwrap().windows()
    }

    #[test]
    fn rows_are_written_once_from_rows_in_memory() {
        for rows in 1..5 {
            for input in [1, 2, 5, 16] {
                for stride in [1, 2] {
                    for pad in [0, 1] {
                        if input + 2 * pad < 3 {
                            continue;
                        }
                        let first = axis(input, 1, 1, 0);
                        let middle = axis(input, 3, stride, pad);
                        let last = axis(middle.output, 1, 1, 0);
                        let windows = simulate(&[first, middle, last], rows);
                        assert!(windows[0] <= 3 + stride * (rows + 1) && windows[1] <= rows, "{windows:?}");
                    }
                }
            }
        }
        let column = axis(9, 5, 1, 2);
        assert_eq!(simulate(&[axis(9, 1, 1, 0), column, axis(9, 1, 1, 0)], 1)[..2], [5, 1]);
        simulate(&[column, column, axis(9, 3, 2, 1)], 2);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        assert!(Tiles::new([axis(9, 3, 2, 1), axis(9, 1, 1, 0)].into_iter(), 1).is_none());
        assert!(Tiles::new([axis(9, 3, 1, 1)].into_iter(), 0).is_none());
        assert!(Tiles::new([].into_iter(), 1).is_none());
        assert!(Tiles::new([axis(9, 3, 1, 1); MAX_STEPS + 1].into_iter(), 1).is_none());
    }

    #[test]
    fn rows_that_are_read_first_may_be_replaced() {
        let replaces = |axes: &[Axis]| Tiles::new(axes.iter().copied(), 1).unwrap().replaces_input();
        assert!(replaces(&[axis(9, 1, 1, 0), axis(9, 3, 1, 1), axis(9, 1, 1, 0)]));
        assert!(!replaces(&[axis(9, 3, 1, 1), axis(9, 1, 1, 0)]));
        assert!(!replaces(&[axis(9, 1, 1, 0), axis(9, 3, 2, 1)]));
    }
}
