//! Windows that slide over images: what convolutions and pools share.
//!
//! Takes extents, strides, dilations and padding; gives, for each window, the input positions under its taps. Refuses whatever would let
//! a position leave 31 bits and whatever does not give the stated output extent.

use core::ops::Range;

use crate::blob::{TensorRecord, product};
use crate::error::ErrorKind;
use crate::region::Rows;

/// One image axis and the windows along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the output: number of windows.
    pub output: usize,
    /// Taps of a window.
    pub kernel: usize,
    /// From one window to the next.
    pub stride: usize,
    /// From one tap to the next.
    pub dilation: usize,
    /// Padding before the input.
    pub pad: usize,
}

/// Taps of a window that lie side by side on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub tap: usize,
    /// Input position under it.
    pub position: usize,
    /// How many; 0 if the window lies in the padding.
    pub length: usize,
}

impl Axis {
    /// Checks extents. `output` has to be `(input + padding - dilated kernel) / stride + 1`, rounded down.
    pub fn new(extents: [u32; 2], window: [u32; 3], pads: [u32; 2]) -> Result<Self, ErrorKind> {
        match Self::judge(extents, window, pads) {
            Some(error) => Err(error),
            None => Ok(Self::of(extents, window, pads[0])),
        }
    }

    /// What [`Axis::new`] refuses.
    #[inline(never)]
    fn judge(
        [input, output]: [u32; 2],
        [kernel, stride, dilation]: [u32; 3],
        [before, after]: [u32; 2],
    ) -> Option<ErrorKind> {
        if kernel == 0 || stride == 0 || dilation == 0 {
            return Some(ErrorKind::Parameter);
        }
        let reach = product(kernel.wrapping_sub(1), dilation).and_then(|taps| taps.checked_add(1));
        let padded = input.checked_add(before).and_then(|sum| sum.checked_add(after));
        let (Some(reach), Some(padded)) = (reach, padded) else {
            return Some(ErrorKind::Parameter);
        };
        if padded > i32::MAX as u32 || reach > padded {
            return Some(ErrorKind::Parameter);
        }
        // (output - 1) * stride <= free < output * stride, without a division.
        let free = padded.wrapping_sub(reach);
        let fits = product(output, stride)
            .is_some_and(|past_last| past_last > free && past_last.wrapping_sub(stride) <= free);
        (!fits).then_some(ErrorKind::Shape)
    }

    /// Without a check.
    #[inline(always)]
    fn of([input, output]: [u32; 2], [kernel, stride, dilation]: [u32; 3], before: u32) -> Self {
        Self {
            input: input as usize,
            output: output as usize,
            kernel: kernel as usize,
            stride: stride as usize,
            dilation: dilation as usize,
            pad: before as usize,
        }
    }

    /// Input positions from the first tap of a window to the last.
    pub fn reach(&self) -> usize {
        self.kernel.wrapping_sub(1).wrapping_mul(self.dilation).wrapping_add(1)
    }

    /// Input position under tap `tap` of window `window`, `None` in the padding.
    #[inline]
    pub fn position(&self, window: usize, tap: usize) -> Option<usize> {
        // Before the input the difference wraps to a number greater than any extent.
        let position = window
            .wrapping_mul(self.stride)
            .wrapping_add(tap.wrapping_mul(self.dilation))
            .wrapping_sub(self.pad);
        (position < self.input).then_some(position)
    }

    /// The taps of window `window` on the input, which may have gaps between them.
    pub fn taps(&self, window: usize) -> Run {
        let mut tap = 0usize;
        while tap < self.kernel && self.position(window, tap).is_none() {
            tap = tap.wrapping_add(1);
        }
        let position = self.position(window, tap).unwrap_or(0);
        let mut length = 0usize;
        while tap.wrapping_add(length) < self.kernel
            && self.position(window, tap.wrapping_add(length)).is_some()
        {
            length = length.wrapping_add(1);
        }
        Run { tap, position, length }
    }

    /// The taps of window `window` on the input, of a window without dilation.
    #[inline]
    pub fn run(&self, window: usize) -> Run {
        let start = window.wrapping_mul(self.stride);
        let tap = self.pad.saturating_sub(start);
        let position = start.saturating_sub(self.pad);
        let length = self.kernel.saturating_sub(tap).min(self.input.saturating_sub(position));
        Run { tap, position, length }
    }
}

/// Windows over images `[batch, rows, columns, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of images.
    pub batch: usize,
    /// Rows.
    pub rows: Axis,
    /// Columns.
    pub columns: Axis,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
}

impl Window {
    /// Checks the shapes of an input and an output against windows. Arguments in pairs are of rows and columns, `pads` of top, left,
    /// bottom, right.
    #[inline(never)]
    pub fn new(
        input: &TensorRecord,
        output: &TensorRecord,
        kernel: [u32; 2],
        stride: [u32; 2],
        dilation: [u32; 2],
        pads: [u32; 4],
    ) -> Result<Self, ErrorKind> {
        let [batch, in_h, in_w, inputs] = input.shape;
        let [out_batch, out_h, out_w, outputs] = output.shape;
        if input.rank != 4 || output.rank != 4 || batch != out_batch || inputs == 0 || outputs == 0 {
            return Err(ErrorKind::Shape);
        }
        let [kernel_h, kernel_w] = kernel;
        let [stride_h, stride_w] = stride;
        let [dilation_h, dilation_w] = dilation;
        let [top, left, bottom, right] = pads;
        let rows = Axis::judge([in_h, out_h], [kernel_h, stride_h, dilation_h], [top, bottom]);
        let columns = Axis::judge([in_w, out_w], [kernel_w, stride_w, dilation_w], [left, right]);
        if let Some(error) = rows.or(columns) {
            return Err(error);
        }
        Ok(Self {
            batch: batch as usize,
            rows: Axis::of([in_h, out_h], [kernel_h, stride_h, dilation_h], top),
            columns: Axis::of([in_w, out_w], [kernel_w, stride_w, dilation_w], left),
            inputs: inputs as usize,
            outputs: outputs as usize,
        })
    }

    /// Elements of one input image.
    #[inline]
    pub fn image(&self) -> usize {
        self.rows.input.wrapping_mul(self.columns.input).wrapping_mul(self.inputs)
    }

    /// Leaves the windows of some output rows, on the input rows that they read; gives the elements of the input's and the output's memory that they take.
    #[inline(never)]
    pub fn narrow(&mut self, rows: &Rows) -> Option<[Range<usize>; 2]> {
        let axis = &mut self.rows;
        let start = rows.from.checked_mul(axis.stride)?;
        let end = rows.to.checked_sub(1)?.checked_mul(axis.stride)?.checked_add(axis.reach())?;
        let (first, end) = (start.saturating_sub(axis.pad), end.saturating_sub(axis.pad).min(axis.input));
        axis.input = end.saturating_sub(first);
        axis.output = rows.to.checked_sub(rows.from)?;
        axis.pad = axis.pad.saturating_sub(start);
        self.batch = 1;
        let range = |row: usize, [from, to]: [usize; 2], base: usize| {
            Some(from.checked_sub(base)?.checked_mul(row)?..to.checked_sub(base)?.checked_mul(row)?)
        };
        let read = self.columns.input.checked_mul(self.inputs)?;
        let written = self.columns.output.checked_mul(self.outputs)?;
        // Windows in the padding alone read nothing.
        let first = first.min(end.max(rows.input_base)).max(rows.input_base);
        let input = range(read, [first, end.max(first)], rows.input_base)?;
        let output = range(written, [rows.from, rows.to], rows.output_base)?;
        Some([input, output])
    }

    /// Whether the output may replace the input: windows of stride 1 that give as many rows, columns and channels, and read no row
    /// that was overwritten before it was kept.
    pub fn replaces_input(&self) -> bool {
        let whole = |axis: &Axis| axis.stride == 1 && axis.input == axis.output;
        whole(&self.rows)
            && whole(&self.columns)
            && self.inputs == self.outputs
            && self.rows.pad < self.rows.reach()
    }

    /// Bytes of scratch that any kernel needs to replace an input of bytes: the rows under a window.
    pub fn kept_bytes(&self) -> usize {
        self.rows.reach().min(self.rows.input).wrapping_mul(self.columns.input).wrapping_mul(self.inputs)
    }

    /// Index, in an image, of the first channel at a row and column.
    #[inline]
    pub fn at(&self, row: usize, column: usize) -> usize {
        row.wrapping_mul(self.columns.input).wrapping_add(column).wrapping_mul(self.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_extent_is_the_floor_formula() {
        for input in 1..9u32 {
            for kernel in 1..5u32 {
                for stride in [1, 2, 3, 14, u32::MAX] {
                    for dilation in 1..3u32 {
                        for before in 0..3u32 {
                            for after in 0..3u32 {
                                let reach = (kernel - 1) * dilation + 1;
                                let padded = input + before + after;
                                let expected = (reach <= padded).then(|| (padded - reach) / stride + 1);
                                for output in 0..12 {
                                    let axis = Axis::new(
                                        [input, output],
                                        [kernel, stride, dilation],
                                        [before, after],
                                    );
                                    assert_eq!(axis.is_ok(), expected == Some(output));
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn runs_are_the_positions_without_gaps() {
        for (input, kernel, stride, before, after) in
            [(5, 3, 1, 1, 1), (5, 3, 2, 2, 0), (2, 5, 1, 3, 3), (7, 2, 3, 0, 1), (1, 1, 1, 2, 2)]
        {
            let output = (input + before + after - kernel) / stride + 1;
            let axis = Axis::new([input, output], [kernel, stride, 1], [before, after]).unwrap();
            for window in 0..axis.output {
                let run = axis.run(window);
                for tap in 0..axis.kernel {
                    let inside = tap >= run.tap && tap - run.tap < run.length;
                    let expected = inside.then(|| run.position + tap - run.tap);
                    assert_eq!(axis.position(window, tap), expected);
                }
            }
        }
    }

    #[test]
    fn hostile_extents_are_refused() {
        let m = u32::MAX;
        for (extents, window, pads) in [
            ([m, 1], [1, 1, 1], [0, 0]),
            ([4, 4], [m, 1, m], [0, 0]),
            ([4, 4], [0, 1, 1], [0, 0]),
            ([4, 4], [1, 0, 1], [0, 0]),
            ([4, 4], [1, 1, 0], [0, 0]),
            ([4, 0], [1, 1, 1], [0, 0]),
            ([4, m], [1, 1, 1], [m, m]),
            ([4, m], [1, 2, 1], [0, 0]),
            ([4, 1 << 31], [1, 2, 1], [0, 0]),
        ] {
            assert!(Axis::new(extents, window, pads).is_err());
        }
    }
}
