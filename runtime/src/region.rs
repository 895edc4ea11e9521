//! Regions: chains of convolutions that run a few rows at a time, so that what lies between them is never whole in memory.
//!
//! Takes the row axes of the chain's steps; gives, tile after tile, which rows of which step come next ([`Tiles`]), each row once. Between two
//! steps stands a window: the rows that the next step still reads. Refused at load ([`check`]): chains with other operators, windows that
//! are too short, tensors of windows outside their region, memory that is used twice.

use crate::arena::{Memory, Place};
use crate::backend::Backend;
use crate::blob::RegionRecord;
use crate::error::ErrorKind;
use crate::model::{Model, Step, place_of};
use crate::op_set::OpSet;
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
    stages: [Stage; MAX_STEPS],
    count: usize,
    rows: usize,
    next: usize,
}

/// The rows of a step. 16 bits each: this lies on the stack of every kernel that runs in turns.
#[derive(Clone, Copy, Debug)]
struct Stage {
    input: u16,
    output: u16,
    stride: u16,
    /// See [`Axis::reach`].
    reach: u16,
    pad: u16,
    /// Rows that it has written.
    done: u16,
    /// Rows that it has to reach in this tile.
    end: u16,
    /// The first one in memory.
    base: u16,
}

impl Stage {
    const NONE: Self = Self { input: 0, output: 0, stride: 0, reach: 0, pad: 0, done: 0, end: 0, base: 0 };

    /// `None`: it has too many rows.
    fn of(axis: &Axis) -> Option<Self> {
        let short = |extent: usize| u16::try_from(extent).ok();
        Some(Self {
            input: short(axis.input)?,
            output: short(axis.output)?,
            stride: short(axis.stride)?,
            reach: short(axis.reach())?,
            pad: short(axis.pad)?,
            ..Self::NONE
        })
    }

    /// The first row of the input under window `row`; rows of padding count as the first one.
    fn first_read(&self, row: u16) -> usize {
        usize::from(row).saturating_mul(self.stride.into()).saturating_sub(self.pad.into())
    }

    /// The row of the input behind the last one that is read for the rows before `end`.
    fn read_to(&self, end: u16) -> u16 {
        let last = usize::from(end.saturating_sub(1)).saturating_mul(self.stride.into());
        let past = last.saturating_add(self.reach.into()).saturating_sub(self.pad.into());
        u16::try_from(past).map_or(self.input, |past| past.min(self.input))
    }
}

impl Tiles {
    /// The order for a chain whose steps have these row axes, `rows` rows of the last output a tile. `None`: no steps or too many, no rows or more
    /// than 16 bits count, or extents that do not follow on each other.
    pub fn new(axes: impl Iterator<Item = Axis>, rows: usize) -> Option<Self> {
        let mut tiles = Self::EMPTY;
        for axis in axes {
            tiles.push(&axis)?;
        }
        tiles.begin(rows)?;
        Some(tiles)
    }

    const EMPTY: Self = Self { stages: [Stage::NONE; MAX_STEPS], count: 0, rows: 0, next: 0 };

    /// Adds a step behind the others.
    #[inline(never)]
    fn push(&mut self, axis: &Axis) -> Option<()> {
        let stage = Stage::of(axis)?;
        let before = self.stages.get(..self.count)?.last();
        if before.is_some_and(|before| before.output != stage.input) {
            return None;
        }
        *self.stages.get_mut(self.count)? = stage;
        self.count = self.count.wrapping_add(1);
        Some(())
    }

    /// Begins with tiles of so many rows.
    fn begin(&mut self, rows: usize) -> Option<()> {
        (self.rows, self.next) = (rows, self.count);
        (self.count > 0 && rows > 0).then_some(())
    }

    /// Sets the rows that each step has to reach for the next tile; `None` at the end.
    fn tile(&mut self) -> Option<()> {
        let (last, earlier) = self.stages.get_mut(..self.count)?.split_last_mut()?;
        if last.done >= last.output {
            return None;
        }
        let rows = u16::try_from(self.rows).unwrap_or(u16::MAX);
        last.end = last.done.saturating_add(rows).min(last.output);
        let mut reader = *last;
        for stage in earlier.iter_mut().rev() {
            stage.end = reader.read_to(reader.end).max(stage.done);
            reader = *stage;
        }
        self.next = 0;
        Some(())
    }

    /// The next step that has rows to write, and which.
    #[inline(never)]
    pub fn advance(&mut self) -> Option<(usize, Rows)> {
        loop {
            if self.next >= self.count {
                self.tile()?;
            }
            let step = self.next;
            self.next = step.wrapping_add(1);
            let reader = self.stages.get(self.next).filter(|_| self.next < self.count);
            let first_read = reader.map(|reader| reader.first_read(reader.done));
            let input_base = match step.checked_sub(1) {
                Some(before) => self.stages.get(before)?.base.into(),
                None => 0,
            };
            let stage = self.stages.get_mut(step)?;
            let (from, to) = (stage.done, stage.end);
            if to <= from {
                continue;
            }
            // `clamp` could panic.
            let wanted = |first: usize| first.max(stage.base.into()).min(from.into());
            let output_base = first_read.map_or(0, wanted);
            let dropped = output_base.wrapping_sub(stage.base.into());
            stage.base = output_base as u16;
            stage.done = to;
            let [from, to] = [from, to].map(usize::from);
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
        let stages = self.stages.get(..self.count).unwrap_or(&[]);
        let same =
            |stage: &Stage| stage.stride == 1 && stage.input == stage.output && stage.pad < stage.reach;
        stages.iter().all(same) && stages.first().is_some_and(|stage| stage.reach == 1)
    }
}

/// Runs the steps of a region in turns. `None` as [`OpSet::run`].
#[inline(never)]
pub(crate) fn run<O: OpSet, B: Backend>(
    model: &Model<'_, O>,
    backend: B,
    region: &RegionRecord,
    memory: &mut Memory<'_>,
) -> Option<()> {
    // Made where it stays: it is not moved.
    let mut tiles = Tiles::EMPTY;
    for index in region.first..region.end() {
        tiles.push(&axis(model, index)?)?;
    }
    tiles.begin(usize::from(region.rows))?;
    loop {
        // Borrowed where it was made: it is not moved.
        let next = tiles.advance();
        let Some((k, rows)) = &next else { return Some(()) };
        let index = region.first.checked_add(u16::try_from(*k).ok()?)?;
        let step = model.step(index);
        O::run_rows(backend, step.as_ref()?, memory, rows)?;
    }
}

/// The row axis of a step. A frame of its own: it is gone when kernels run.
#[inline(never)]
fn axis<O: OpSet>(model: &Model<'_, O>, index: u16) -> Option<Axis> {
    O::rows(model.step(index).as_ref()?)
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
    let mut tiles = Tiles::EMPTY;
    let mut before: Option<u16> = None;
    for step in steps() {
        let step = step?;
        tiles.push(&rows(&step)?)?;
        if step.counts().0 != 1 || before.is_some_and(|before| step.input_id(0) != Some(before)) {
            return Some(false);
        }
        before = step.output_id(0);
    }
    let count = usize::from(region.count);
    tiles.begin(usize::from(region.rows))?;
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
