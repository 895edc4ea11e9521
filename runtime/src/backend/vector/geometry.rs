//! Where a convolution reads and writes: output positions, and the runs of input bytes under a window.
//!
//! In an image with a border the taps of one kernel row are contiguous, so a window is a few runs of bytes at fixed distances from its first
//! tap. That holds for all windows, strides and dilations; a dense layer is a window of one tap over an image of one pixel a row.

use crate::host::program::SLACK;
use crate::host::program::form::{Border, Image};
use crate::ops::window::{Axis, Window};

/// Windows over an image, in groups of channels.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Windows along each axis, with channels.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
}

impl Geometry {
    /// A dense layer over every pixel of images.
    pub fn dense([batch, rows, columns]: [usize; 3], inputs: usize, outputs: usize) -> Self {
        let axis = |extent| Axis { input: extent, output: extent, kernel: 1, stride: 1, dilation: 1, pad: 0 };
        let window = Window { batch, rows: axis(rows), columns: axis(columns), inputs, outputs };
        Self { window, groups: 1 }
    }

    /// One window over each whole image.
    pub fn whole(batch: usize, rows: usize, columns: usize, channels: usize) -> Self {
        let axis = |extent| Axis { input: extent, output: 1, kernel: extent, stride: 1, dilation: 1, pad: 0 };
        let window =
            Window { batch, rows: axis(rows), columns: axis(columns), inputs: channels, outputs: channels };
        Self { window, groups: channels }
    }

    /// Whether it is a product of one row with a matrix.
    #[cfg(target_arch = "x86_64")]
    pub fn is_one_row(&self) -> bool {
        let Window { batch, rows, columns, .. } = self.window;
        let one = |axis: &Axis| axis.input == 1 && axis.output == 1 && axis.kernel == 1;
        batch == 1 && one(&rows) && one(&columns) && self.groups == 1
    }

    /// The border that windows reach.
    pub fn border(&self) -> Border {
        let after = |axis: &Axis| {
            let end = (axis.output - 1) * axis.stride + axis.reach();
            end.saturating_sub(axis.pad + axis.input)
        };
        let (rows, columns) = (&self.window.rows, &self.window.columns);
        Border { top: rows.pad, left: columns.pad, bottom: after(rows), right: after(columns) }
    }

    /// Whether borders are no larger than what they surround: hostile paddings would fill memory.
    pub fn has_small_border(&self) -> bool {
        let Border { top, left, bottom, right } = self.border();
        let (rows, columns) = (&self.window.rows, &self.window.columns);
        top + bottom <= rows.input + 64 && left + right <= columns.input + 64
    }

    /// Input channels of a group.
    pub fn group_inputs(&self) -> usize {
        self.window.inputs / self.groups
    }

    /// Output channels of a group.
    pub fn group_outputs(&self) -> usize {
        self.window.outputs / self.groups
    }

    /// Whether the images have the windows' extents, and the input has the border that they reach.
    pub fn fits(&self, input: &Image, output: &Image) -> bool {
        let Window { batch, rows, columns, inputs, outputs } = self.window;
        input.extents == [batch, rows.input, columns.input, inputs]
            && output.extents == [batch, rows.output, columns.output, outputs]
            && input.border.union(self.border()) == input.border
    }

    /// For each output position in order: the arena's byte of its window's first tap, and of its first output channel.
    pub fn positions(&self, input: &Image, output: &Image) -> Vec<[usize; 2]> {
        let Window { batch, rows, columns, .. } = self.window;
        let position = |image: usize, row: usize, column: usize| {
            let first = |axis: &Axis, at: usize| (at * axis.stride) as isize - axis.pad as isize;
            [
                input.at(image, first(&rows, row), first(&columns, column)),
                output.at(image, row as isize, column as isize),
            ]
        };
        let rows = |image| (0..rows.output).map(move |row| (image, row));
        let pixels = |(image, row)| (0..columns.output).map(move |column| (image, row, column));
        (0..batch)
            .flat_map(rows)
            .flat_map(pixels)
            .map(|(image, row, column)| position(image, row, column))
            .collect()
    }

    /// The runs under a window in the order of the weights: distances in bytes from the first tap, and the elements of each.
    pub fn runs(&self, input: &Image) -> (Vec<usize>, usize) {
        let Window { rows, columns, .. } = self.window;
        let row = |tap: usize| tap * rows.dilation * input.row();
        if self.groups == 1 && columns.dilation == 1 {
            return ((0..rows.kernel).map(row).collect(), columns.kernel * self.group_inputs());
        }
        let taps = |tap: usize| {
            (0..columns.kernel).map(move |column| row(tap) + column * columns.dilation * input.pixel())
        };
        ((0..rows.kernel).flat_map(taps).collect(), self.group_inputs())
    }
}

/// Whether images have as many elements, in the same order.
pub fn same_elements<const N: usize>(images: [&Image; N]) -> bool {
    let same = images.windows(2).all(|pair| pair[0].extents == pair[1].extents);
    let dense = images.windows(2).all(|pair| pair[0].bytes() == pair[1].bytes());
    same || dense && images.iter().all(|image| image.is_dense())
}

/// Runs of bytes that lie side by side in all images: first bytes, and how many.
pub fn runs<const N: usize>(images: [&Image; N]) -> Vec<([usize; N], usize)> {
    if images.iter().all(|image| image.is_dense()) {
        return vec![(images.map(|image| image.start), images[0].bytes())];
    }
    let [batch, rows, columns, _] = images[0].extents;
    let bytes = columns * images[0].pixel();
    let row = |image: usize, row: usize| (images.map(|each| each.at(image, row as isize, 0)), bytes);
    (0..batch).flat_map(|image| (0..rows).map(move |y| row(image, y))).collect()
}

/// The end of an image, with what may be read behind it.
pub fn end(image: &Image) -> usize {
    image.start + image.bytes() + SLACK
}

/// From a window's first tap to each of its taps, in bytes.
pub fn taps(geometry: &Geometry, input: &Image) -> Vec<usize> {
    let (rows, columns) = (geometry.window.rows.kernel, geometry.window.columns.kernel);
    let row = |y: usize| (0..columns).map(move |x| y * input.row() + x * input.pixel());
    (0..rows).flat_map(row).collect()
}
