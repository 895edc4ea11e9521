//! How depthwise convolutions walk over images: in *units* of output elements that lie side by side, and in rows.
//!
//! A unit holds channels of one pixel, or of several where a pixel has less than a vector. Two output rows go together where they share the input
//! rows that a product takes at once.

use super::geometry::Geometry;
use crate::host::program::SLACK;
use crate::host::program::form::Image;

/// Most sets of weights for units that hold several pixels.
const MAX_PHASES: usize = 8;

/// A unit, in bytes from the start of a row of windows or outputs.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// First tap.
    pub input: u32,
    /// First output.
    pub output: u32,
    /// Which set of weights and factors.
    pub phase: u32,
    /// Elements that are outputs, a bit each.
    pub mask: u64,
}

/// One or two rows of outputs, in bytes from the start of the arena.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// First tap of the first window.
    pub input: usize,
    /// First output.
    pub output: usize,
    /// Whether there is a second row.
    pub two: bool,
}

/// A row of windows in blocks of one unit: a pixel's channels, or several whole pixels.
#[derive(Clone, Copy, Debug)]
pub struct Slide {
    /// Elements of a pixel in a block.
    pub pixel: usize,
    /// Elements that windows advance, over those that outputs do.
    pub stride: usize,
    /// Blocks of a row.
    pub blocks: usize,
    /// Bytes from a block of outputs to the next.
    pub step: usize,
    /// Elements of the last block that are outputs, a bit each.
    pub last: u64,
}

/// The units and rows of a layer.
#[derive(Debug)]
pub struct Walk {
    /// All rows.
    pub rows: Vec<Rows>,
    /// Units of a row; those of its first block where windows slide.
    pub units: Vec<Unit>,
    /// Sets of weights and factors.
    pub phases: usize,
    /// Whether rows go in twos.
    pub two_rows: bool,
    /// How 3x3 windows slide along a row, if they do.
    pub slide: Option<Slide>,
    /// Channels, if units of several pixels leave out every other pixel.
    pub skipped: Option<usize>,
    /// Bytes from a kernel row to the next, from a tap to the next, from an output row to the next.
    pub row: usize,
    pub tap: usize,
    pub output_row: usize,
    /// Kernel rows and columns.
    pub taps: [usize; 2],
    /// Bytes of the arena that it reads or writes.
    pub arena_bytes: usize,
    channels: usize,
    unit: usize,
    several: bool,
}

impl Walk {
    /// For units of `unit` elements. `wide`: windows may slide, and units may leave out pixels. `None`: several outputs for an input channel.
    pub fn new(geometry: &Geometry, input: &Image, output: &Image, unit: usize, wide: bool) -> Option<Self> {
        let window = &geometry.window;
        let channels = window.outputs;
        if window.inputs != channels {
            return None;
        }
        let (rows, columns) = (&window.rows, &window.columns);
        let taps = [rows.kernel, columns.kernel];
        let two_rows = rows.stride == 1 && rows.dilation == 1 && rows.kernel <= 3;
        let flat = columns.output * channels;
        // Units of several pixels: how many of their lengths the input advances.
        let advance = match columns.stride {
            1 if channels < unit && phases(channels, unit) <= MAX_PHASES => Some(1),
            2 if wide && matches!(channels, 4 | 8 | 16 | 32) => Some(2),
            _ => None,
        };
        let (bytes, output_bytes) = (input.element_bytes(), output.element_bytes());
        let mask = |elements: usize| if elements >= 64 { !0 } else { (1u64 << elements) - 1 };
        let mask = |elements: usize| mask(elements.min(unit));
        let chunks = channels.div_ceil(unit);
        let slide = match columns.stride {
            // Two rows of windows share what they read; with an odd number the last two overlap the two before.
            1 => two_rows && rows.output >= 2,
            2 => !two_rows,
            _ => false,
        };
        let whole = channels >= unit;
        let slide = (wide && slide && taps == [3, 3] && columns.dilation == 1)
            .then_some(Slide {
                pixel: channels.min(unit),
                stride: columns.stride,
                blocks: if whole { columns.output } else { flat.div_ceil(unit) },
                step: if whole { channels } else { unit },
                last: if whole { !0 } else { mask(flat - (flat.div_ceil(unit) - 1) * unit) },
            })
            .filter(|slide| whole || matches!(slide.pixel, 8 | 16 | 32));
        let units = match advance {
            Some(_) if slide.is_some() => vec![Unit { input: 0, output: 0, phase: 0, mask: !0 }],
            Some(advance) => {
                let at = |k: usize| Unit {
                    input: (k * advance * unit * bytes) as u32,
                    output: (k * unit * output_bytes) as u32,
                    phase: (k % phases(channels, unit)) as u32,
                    mask: mask(flat - k * unit),
                };
                (0..flat.div_ceil(unit)).map(at).collect()
            }
            None => {
                let at = |column: usize, chunk: usize| Unit {
                    input: (column * columns.stride * input.pixel() + chunk * unit * bytes) as u32,
                    output: (column * output.pixel() + chunk * unit * output_bytes) as u32,
                    phase: chunk as u32,
                    mask: mask(channels - chunk * unit),
                };
                let width = if slide.is_some() { 1 } else { columns.output };
                (0..chunks).flat_map(|chunk| (0..width).map(move |column| at(column, chunk))).collect()
            }
        };
        let mut list = Vec::new();
        for image in 0..window.batch {
            let step = if two_rows { 2 } else { 1 };
            for row in (0..rows.output).step_by(step) {
                let row = if slide.is_some() { row.min(rows.output - step) } else { row };
                let first = (row * rows.stride) as isize - rows.pad as isize;
                list.push(Rows {
                    input: input.at(image, first, -(columns.pad as isize)),
                    output: output.at(image, row as isize, 0),
                    two: two_rows && row + 1 < rows.output,
                });
            }
        }
        Some(Self {
            rows: list,
            units,
            phases: if advance.is_some() { phases(channels, unit) } else { chunks },
            two_rows,
            slide,
            skipped: advance.filter(|advance| *advance == 2).map(|_| channels),
            row: rows.dilation * input.row(),
            tap: columns.dilation * input.pixel(),
            output_row: output.row(),
            taps,
            // Images lie in the arena wholly, with the slack that units read behind them.
            arena_bytes: (input.start + input.bytes()).max(output.start + output.bytes()) + SLACK,
            channels,
            unit,
            several: advance.is_some(),
        })
    }

    /// The channel of element `at` of a phase's units.
    pub fn channel(&self, phase: usize, at: usize) -> Option<usize> {
        let at = phase * self.unit + at;
        if self.several { Some(at % self.channels) } else { Some(at).filter(|c| *c < self.channels) }
    }

    /// Weights of a phase in the order of use: `[variant][kernel rows of a product][column][lane][row]`. `lane(l)` is the element of a unit in lane
    /// `l`, vectors one after the other. Where rows go in twos, kernel rows stand one lower in the second variant.
    pub fn weights(
        &self,
        phase: usize,
        rows: usize,
        lane: &dyn Fn(usize) -> usize,
        weight: &dyn Fn(usize, usize) -> i8,
    ) -> Vec<i8> {
        let [tap_rows, tap_columns] = self.taps;
        let mut weights = Vec::new();
        for variant in 0..if self.two_rows { 2 } else { 1 } {
            for chunk in 0..self.chunks(rows) {
                for column in 0..tap_columns {
                    for l in 0..self.unit {
                        for k in rows * chunk..rows * (chunk + 1) {
                            let row = k.checked_sub(variant).filter(|row| *row < tap_rows);
                            let found = row.zip(self.channel(phase, lane(l)));
                            weights.push(found.map_or(0, |(row, c)| weight(row * tap_columns + column, c)));
                        }
                    }
                }
            }
        }
        weights
    }

    /// Products of `rows` input rows that a window takes, or two windows one above the other.
    pub fn chunks(&self, rows: usize) -> usize {
        (self.taps[0] + usize::from(self.two_rows)).div_ceil(rows)
    }
}

/// How many sets of weights units of several pixels need.
fn phases(channels: usize, unit: usize) -> usize {
    let (mut a, mut b) = (channels, unit);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    channels / a
}
