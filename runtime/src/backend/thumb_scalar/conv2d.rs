//! Convolution: the inputs of four windows are brought into pairs, then every output channel is summed up over them; group after group.

use super::core;
use super::frame::{Extent, Frame, constants, wide_constants};
use crate::backend::kernels::{Kernels, links};
use crate::backend::scalar::compact::{self, Order};
use crate::backend::scalar::in_place::rows_in_place;
use crate::backend::spec::select::{Constants, Linear, Request};
use crate::backend::spec::swar;
use crate::backend::{Integers, IntegersMut};
use crate::blob::{DType, Packing};
use crate::ops::linear::Integer;
use crate::ops::window::{Axis, Window};
use crate::rolled::{rolled, unknown};

/// Brings some inputs of four windows into the scratch, without the zero point where they become words.
type Fill = unsafe extern "C" fn(*mut i32, &[*const i8; 4], &Extent, i32);

/// A convolution's operands and scratch, ready to run on windows.
struct Layer<'a> {
    frame: Frame,
    group: Group,
    fill: Fill,
    /// The zero point for `fill`.
    zero: i32,
    /// Makes the outputs of four windows.
    kernel: unsafe extern "C" fn(&Frame),
    /// How many of the words of its pairs a row of windows takes.
    row_words: usize,
    /// A row of a window in the padding.
    padding: &'a [i8],
    /// A row of each of four windows that reach into the padding.
    edges: *mut i8,
    /// A row of a window.
    row: Extent,
    /// Bytes from behind a row of a window to its next one, where its rows are alike.
    skip: Option<usize>,
}

/// What one group has.
struct Group {
    /// How many groups there are.
    count: usize,
    /// Inputs under a tap.
    inputs: usize,
    /// Bytes of weights.
    weights: usize,
}

/// How a convolution's scratch is divided; `None`: by no kernel of these. In a frame of its own, which is gone when the kernel runs.
#[inline(never)]
fn layout(
    window: &Window,
    groups: usize,
    packing: Packing,
    [input, output]: [DType; 2],
    in_place: bool,
) -> Option<swar::Convolution> {
    let linear = Linear::Conv2d { window: *window, groups };
    let request = Request { linear, input, output, packing, in_place, constants: Constants::USUAL };
    swar::convolution(&request, &core::CORE)
}

#[inline(never)]
pub fn conv2d_i8<K: Kernels>(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    match layout(window, groups, linear.packing, [DType::I8; 2], input.is_none()) {
        Some(layout) if layout.bytes() <= scratch.len() && linear.packing != Packing::Rows => {
            packed(window, groups, linear, input, output, scratch, &layout)
        }
        Some(layout) if const { links::<K>("wide-columns") } && layout.bytes() <= scratch.len() => {
            let input = input.map(Integers::I8);
            wide(window, linear, input, IntegersMut::I8(output), scratch, &layout)
        }
        _ => compact::bytes::<K>(window, groups, Order::Outputs, linear, input, output, scratch),
    }
}

fn packed(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
    layout: &swar::Convolution,
) -> Option<()> {
    let (scratch, kept) = scratch.split_at_mut_checked(layout.bytes().wrapping_sub(layout.kept))?;
    // Borrowed where it was made: it is not moved.
    let mut layer = Layer::packed(window, groups, linear, scratch, layout);
    let layer = layer.as_mut()?;
    let place = output.as_mut_ptr();
    match input {
        Some(input) => layer.run(window, input.as_ptr(), input.len(), place, output.len()),
        // A block of windows is read before its outputs are written, and no other window reads there.
        None if window.rows.kernel == 1 && window.columns.kernel == 1 => {
            layer.run(window, place, output.len(), place, output.len())
        }
        None => rows_in_place(window, output, kept, &mut |window, input, output| {
            layer.run(window, input.as_ptr(), input.len(), output.as_mut_ptr(), output.len())
        }),
    }
}

/// Convolution from or to `i16`, with weights in the operator's order.
#[inline(never)]
pub fn conv2d_i16<K: Kernels>(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    mut output: IntegersMut<'_>,
    scratch: &mut [u8],
) -> Option<()> {
    match layout(window, groups, linear.packing, types(&input, &output), false) {
        Some(layout) if layout.bytes() <= scratch.len() => {
            wide(window, linear, Some(input), output, scratch, &layout)
        }
        _ => compact::layer::<K>(window, groups, Order::Outputs, linear, input, &mut output),
    }
}

/// Types of activations.
pub fn types(input: &Integers<'_>, output: &IntegersMut<'_>) -> [DType; 2] {
    let from = if matches!(input, Integers::I8(_)) { DType::I8 } else { DType::I16 };
    let to = if matches!(output, IntegersMut::I8(_)) { DType::I8 } else { DType::I16 };
    [from, to]
}

/// Convolution with four windows as words. Without `input` the output holds it; then windows are of one position.
#[inline(never)]
fn wide(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<Integers<'_>>,
    output: IntegersMut<'_>,
    scratch: &mut [u8],
    layout: &swar::Convolution,
) -> Option<()> {
    let (channels, rest) = scratch.split_at_mut_checked(layout.channels)?;
    let (words, rest) = rest.split_at_mut_checked(layout.pairs)?;
    let (padding, rest) = rest.split_at_mut_checked(layout.padding)?;
    let edges: &mut [i8] = bytemuck::cast_slice_mut(rest.get_mut(..layout.edges)?);
    let channels: &mut [[i32; 4]] = bytemuck::try_cast_slice_mut(channels).ok()?;
    let words: &mut [i32] = bytemuck::try_cast_slice_mut(words).ok()?;
    let padding: &mut [i8] = bytemuck::cast_slice_mut(padding);

    let run = window.columns.kernel.checked_mul(window.inputs)?;
    let depth = window.rows.kernel.checked_mul(run)?;
    if linear.weights.len() < depth.checked_mul(window.outputs)? || depth == 0 {
        return None;
    }
    // What is no input counts as the zero point.
    padding.fill(linear.input_zero as i8);
    for (channel, slot) in channels.iter_mut().enumerate() {
        wide_constants(slot, linear, channel)?;
    }
    let (output, output_bytes): (&mut [i8], usize) = match output {
        IntegersMut::I8(output) => (output, 1),
        IntegersMut::I16(output) => (bytemuck::cast_slice_mut(output), 2),
    };
    let place = output.as_mut_ptr();
    let (input, input_len, fill, bytes): (*const i8, usize, Fill, usize) = match input {
        // A block of windows is read before its outputs are written, and no other window reads there.
        None => (place, output.len(), core::spread_i8, 1),
        Some(Integers::I8(input)) => (input.as_ptr(), input.len(), core::spread_i8, 1),
        Some(Integers::I16(input)) => {
            padding.fill(0);
            let input: &[i8] = bytemuck::cast_slice(input);
            (input.as_ptr(), input.len(), core::spread_i16, 2)
        }
    };
    let range = words.as_mut_ptr_range();
    let frame = Frame {
        pairs: range.start,
        pairs_end: range.end,
        weights: linear.weights.as_ptr(),
        channels: channels.as_ptr().cast(),
        outputs: window.outputs,
        bounding: output_bytes as i32,
        ..Frame::new(linear)
    };
    let row = Extent::new(run, bytes, 0, 1);
    let of_bytes = Window {
        inputs: window.inputs.checked_mul(bytes)?,
        outputs: window.outputs.checked_mul(output_bytes)?,
        ..*window
    };
    let pitch = window.rows.dilation.wrapping_mul(window.columns.input).wrapping_mul(of_bytes.inputs);
    let mut layer = Layer {
        frame,
        group: Group { count: 1, inputs: of_bytes.inputs, weights: 0 },
        fill,
        zero: if bytes == 1 { linear.input_zero.into() } else { 0 },
        kernel: core::wide,
        row_words: run.wrapping_mul(4),
        skip: Some(pitch.wrapping_sub(padding.len())),
        padding,
        edges: edges.as_mut_ptr(),
        row,
    };
    layer.run(&of_bytes, input, input_len, place, output.len())
}

/// The place of a window.
#[derive(Clone, Copy)]
struct Place {
    image: *const i8,
    row: usize,
    column: usize,
}

impl Place {
    /// To the first window of the next row.
    fn step_row(&mut self, window: &Window) {
        self.column = 0;
        self.row = self.row.wrapping_add(1);
        if self.row == window.rows.output {
            self.row = 0;
            self.image = self.image.wrapping_add(window.image());
        }
    }
}

/// Whether windows along an axis are its positions, one after the other.
fn is_whole(axis: &Axis) -> bool {
    axis.kernel == 1 && axis.stride == 1 && axis.pad == 0 && axis.input == axis.output
}

impl<'a> Layer<'a> {
    /// That of packed weights, with its scratch filled. In a frame of its own, which is gone when the kernel runs.
    #[inline(never)]
    fn packed(
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        scratch: &'a mut [u8],
        layout: &swar::Convolution,
    ) -> Option<Self> {
        let (channels, rest) = scratch.split_at_mut_checked(layout.channels)?;
        let (pairs, rest) = rest.split_at_mut_checked(layout.pairs)?;
        let (padding, edges) = rest.split_at_mut_checked(layout.padding)?;
        let channels: &mut [[i32; core::CHANNEL_WORDS]] = bytemuck::try_cast_slice_mut(channels).ok()?;
        let pairs: &mut [i32] = bytemuck::try_cast_slice_mut(pairs).ok()?;
        let padding: &mut [i8] = bytemuck::cast_slice_mut(padding);
        let edges: &mut [i8] = bytemuck::cast_slice_mut(edges);

        let inputs = window.inputs.checked_div(groups)?;
        let run = window.columns.kernel.checked_mul(inputs)?;
        let depth = window.rows.kernel.checked_mul(run)?;
        let outputs = window.outputs.checked_div(groups)?;
        let weights = linear.packing.bytes(outputs, depth)?;
        if linear.weights.len() < weights.checked_mul(groups)? || depth == 0 || outputs == 0 {
            return None;
        }
        padding.fill(linear.input_zero as i8);
        // The last pair is no input where the depth is odd.
        pairs.fill(0);
        for (channel, slot) in channels.iter_mut().enumerate() {
            constants(slot, linear, channel, *linear.bias.get(channel)?, depth.div_ceil(2))?;
        }
        let pitch = window.rows.dilation.wrapping_mul(window.columns.input).wrapping_mul(window.inputs);
        let (row, skip) = if groups == 1 || window.columns.kernel == 1 {
            (Extent::new(run, 1, 0, 1), Some(pitch.wrapping_sub(run)))
        } else {
            let tap = Extent::new(inputs, 1, 0, window.columns.kernel);
            (Extent { skip: window.inputs.wrapping_sub(inputs), ..tap }, None)
        };
        let range = pairs.as_mut_ptr_range();
        Some(Self {
            frame: Frame {
                pairs: range.start,
                pairs_end: range.end,
                weights: linear.weights.as_ptr(),
                channels: channels.as_ptr().cast(),
                outputs,
                ..Frame::new(linear)
            },
            group: Group { count: groups, inputs, weights },
            fill: core::widen,
            zero: 0,
            kernel: core::columns,
            row_words: run.wrapping_mul(2),
            padding,
            edges: edges.as_mut_ptr(),
            row,
            skip,
        })
    }

    /// Runs all windows, whose inputs and outputs are bytes, for one group after the other. `input` points to `input_len` elements, `output` to
    /// `output_len`; both are valid as long as this runs.
    #[inline(never)]
    fn run(
        &mut self,
        window: &Window,
        input: *const i8,
        input_len: usize,
        output: *mut i8,
        output_len: usize,
    ) -> Option<()> {
        let windows = window.batch.checked_mul(window.rows.output)?.checked_mul(window.columns.output)?;
        if input_len < window.batch.checked_mul(window.image())?
            || output_len < windows.checked_mul(window.outputs)?
        {
            return None;
        }
        let (first_weights, first_channels) = (self.frame.weights, self.frame.channels);
        let (mut input, mut output) = (input, output);
        for _ in 0..self.group.count {
            self.frame.output = output;
            if is_whole(&window.rows) && is_whole(&window.columns) {
                self.positions(window, input, windows);
            } else {
                self.windows(window, input, windows);
            }
            input = input.wrapping_add(self.group.inputs);
            output = output.wrapping_add(self.frame.outputs);
            self.frame.weights = self.frame.weights.wrapping_add(self.group.weights);
            let words = self.frame.outputs.wrapping_mul(core::CHANNEL_WORDS);
            self.frame.channels = self.frame.channels.wrapping_add(words);
        }
        (self.frame.weights, self.frame.channels) = (first_weights, first_channels);
        Some(())
    }

    /// Runs `count` windows of a group, of which each is one position and none is left out.
    #[inline(never)]
    fn positions(&mut self, window: &Window, input: *const i8, count: usize) {
        let (mut input, mut left) = (input, count);
        let mut steps = [1, 2, 3].map(|lane: usize| lane.wrapping_mul(window.inputs));
        self.frame.lanes = [1, 2, 3].map(|lane: usize| lane.wrapping_mul(window.outputs));
        while left > 0 {
            let lanes = left.min(4);
            // Lanes without a window repeat the last.
            if lanes < 4 {
                let slots =
                    unknown(steps.as_mut_slice()).iter_mut().zip(unknown(self.frame.lanes.as_mut_slice()));
                for (before, (step, slot)) in slots.enumerate() {
                    rolled();
                    let lane = before.wrapping_add(1).min(lanes.wrapping_sub(1));
                    (*step, *slot) = (lane.wrapping_mul(window.inputs), lane.wrapping_mul(window.outputs));
                }
            }
            let [second, third, fourth] = steps.map(|step| input.wrapping_add(step));
            let sources = [input, second, third, fourth];
            input = input.wrapping_add(window.inputs.wrapping_mul(4));
            // SAFETY: each source is a position of the input, whose length `run` checked; the pairs have room for four.
            unsafe { (self.fill)(self.frame.pairs, &sources, &self.row, self.zero) };
            self.multiply(window, lanes);
            left = left.wrapping_sub(lanes);
        }
    }

    /// Makes the outputs of the windows in the pairs, the next `lanes` ones.
    #[inline(always)]
    fn multiply(&mut self, window: &Window, lanes: usize) {
        // SAFETY: pairs, weights and constants are as long as depth and outputs of all groups say, checked where the layer was made; `run` checked the
        // output's length.
        unsafe { (self.kernel)(&self.frame) };
        self.frame.output = self.frame.output.wrapping_add(window.outputs.wrapping_mul(lanes));
    }

    /// Runs all windows of a group, whose inputs of the first position are at `input`.
    #[inline(always)]
    fn windows(&mut self, window: &Window, input: *const i8, count: usize) {
        let mut left = count;
        let mut next = Place { image: input, row: 0, column: 0 };
        while left > 0 {
            // As in `collect`.
            let window = unknown(window);
            let columns = &window.columns;
            // Columns under four windows, where they have no gaps.
            let under = columns.stride.wrapping_mul(3).wrapping_add(columns.kernel);
            let start = next.column.wrapping_mul(columns.stride).wrapping_sub(columns.pad);
            let inside = start < columns.input && start.wrapping_add(under) <= columns.input;
            let dense = columns.dilation == 1 || columns.kernel == 1;
            let lanes = if inside && dense && next.column.wrapping_add(4) <= columns.output {
                self.frame.lanes = [1, 2, 3].map(|lane: usize| lane.wrapping_mul(window.outputs));
                self.inside(window, &next, start);
                next.column = next.column.wrapping_add(4);
                4
            } else {
                self.anywhere(window, &mut next, left)
            };
            if next.column == window.columns.output {
                next.step_row(window);
            }
            self.multiply(window, lanes);
            left = left.saturating_sub(lanes);
        }
    }

    /// Brings four windows side by side into pairs, the first at column `start`, all of them within the columns.
    #[inline(never)]
    fn inside(&self, window: &Window, place: &Place, start: usize) {
        let rows = &window.rows;
        let next_window = window.columns.stride.wrapping_mul(window.inputs);
        let from = |row: usize| {
            let first = place.image.wrapping_add(window.at(row, start));
            [0usize, 1, 2, 3].map(|lane| first.wrapping_add(lane.wrapping_mul(next_window)))
        };
        let top = place.row.wrapping_mul(rows.stride).wrapping_sub(rows.pad);
        if let Some(skip) = self.skip
            && top < rows.input.wrapping_add(1).saturating_sub(rows.reach())
        {
            let all = Extent { rows: rows.kernel, skip, ..self.row };
            // SAFETY: each source has `rows.kernel` rows of a window within the image; the pairs have room for them.
            unsafe { (self.fill)(self.frame.pairs, &from(top), &all, self.zero) };
            return;
        }
        let mut pairs = self.frame.pairs;
        for tap in 0..rows.kernel {
            let sources = match rows.position(place.row, tap) {
                Some(row) => from(row),
                None => [self.padding.as_ptr(); 4],
            };
            // SAFETY: each source has a row of a window, `padding.len()` bytes; the pairs have room for `rows.kernel` of them.
            unsafe { (self.fill)(pairs, &sources, &self.row, self.zero) };
            pairs = pairs.wrapping_add(self.row_words);
        }
    }

    /// Brings up to four windows into pairs, wherever they lie, and says how many they are. Lanes without a window repeat the last.
    #[inline(never)]
    fn anywhere(&mut self, window: &Window, next: &mut Place, left: usize) -> usize {
        let mut sources = [Source::NONE; 4];
        let count = self.find(window, next, left, &mut sources);
        self.collect(window, &mut sources);
        count
    }

    /// Finds the next windows, up to four and up to `left`, and says how many they are.
    #[inline(never)]
    fn find(&mut self, window: &Window, next: &mut Place, left: usize, sources: &mut [Source]) -> usize {
        // The last lane with a window of its own.
        let mut last = 0usize;
        for (lane, source) in unknown(sources).iter_mut().enumerate() {
            // As in `collect`.
            let window = unknown(window);
            if lane < left {
                next.column = next.column.wrapping_add(usize::from(lane > 0));
                if next.column == window.columns.output {
                    next.step_row(window);
                }
                last = lane;
            }
            if let Some(slot) = lane.checked_sub(1).and_then(|slot| self.frame.lanes.get_mut(slot)) {
                *slot = last.wrapping_mul(window.outputs);
            }
            source.find(window, next);
            if source.taps > 0 {
                let edge = self.edges.wrapping_add(lane.wrapping_mul(self.padding.len()));
                // SAFETY: windows of several columns have a part of `edges` as long as `padding`; one column is inside, or has no tap on the image.
                unsafe { ::core::ptr::copy_nonoverlapping(self.padding.as_ptr(), edge, self.padding.len()) };
            }
        }
        next.column = next.column.wrapping_add(1);
        last.wrapping_add(1)
    }

    /// Brings the windows of all lanes into pairs.
    #[inline(never)]
    fn collect(&self, window: &Window, sources: &mut [Source]) {
        let mut pairs = self.frame.pairs;
        for _ in 0..window.rows.kernel {
            // What the rows share is read again for each: it does not wait on the stack.
            let (layer, window) = (unknown(self), unknown(window));
            let Window { rows, columns, inputs, .. } = window;
            let pitch = columns.input.wrapping_mul(*inputs).wrapping_mul(rows.dilation);
            let mut from = [layer.padding.as_ptr(); 4];
            let mut edge = layer.edges;
            for (from, source) in unknown(from.as_mut_slice()).iter_mut().zip(unknown(&mut *sources)) {
                rolled();
                if source.row < rows.input {
                    *from = source.first;
                    if source.taps > 0 {
                        *from = edge;
                        layer.copy(window, source, edge);
                    }
                }
                edge = edge.wrapping_add(layer.padding.len());
                source.row = source.row.wrapping_add(rows.dilation);
                source.first = source.first.wrapping_add(pitch);
            }
            // SAFETY: each source has a row of a window, `padding.len()` bytes; the pairs have room for `rows.kernel` of them.
            unsafe { (layer.fill)(pairs, &from, &layer.row, layer.zero) };
            pairs = pairs.wrapping_add(layer.row_words);
        }
    }

    /// Copies what is under the taps of a row of a window, which is one of the image.
    #[inline(never)]
    fn copy(&self, window: &Window, source: &Source, edge: *mut i8) {
        let Window { columns, inputs, .. } = window;
        // Taps without gaps are one piece.
        let (mut pieces, mut bytes) = (source.taps, self.group.inputs);
        if columns.dilation == 1 && self.group.count == 1 {
            (pieces, bytes) = (1, bytes.wrapping_mul(pieces));
        }
        let step = columns.dilation.wrapping_mul(*inputs);
        let (mut from, mut to) = (source.first, edge.wrapping_add(source.tap.wrapping_mul(*inputs)));
        for _ in 0..pieces {
            // SAFETY: the piece is under taps on the image; `edge` has a place for each tap.
            unsafe { ::core::ptr::copy_nonoverlapping(from, to, bytes) };
            from = from.wrapping_add(step);
            to = to.wrapping_add(*inputs);
        }
    }
}

/// A window's rows, from the first to the last.
#[derive(Clone, Copy)]
struct Source {
    /// Row of the image.
    row: usize,
    /// Its first position under a tap.
    first: *const i8,
    /// That tap.
    tap: usize,
    /// Taps on the image, which are collected; 0: a row is read where it is.
    taps: usize,
}

impl Source {
    const NONE: Self = Self { row: 0, first: ::core::ptr::null(), tap: 0, taps: 0 };

    /// Finds out where the rows of a window are read.
    #[inline(never)]
    fn find(&mut self, window: &Window, place: &Place) {
        let Window { rows, columns, inputs, .. } = window;
        let row = place.row.wrapping_mul(rows.stride).wrapping_sub(rows.pad);
        let start = place.column.wrapping_mul(columns.stride).wrapping_sub(columns.pad);
        let first = place.image.wrapping_add(window.at(row, start));
        *self = Self { row, first, tap: 0, taps: 0 };
        let inside = start < columns.input && start.wrapping_add(columns.reach()) <= columns.input;
        if inside && (columns.dilation == 1 || columns.kernel == 1) {
            return;
        }
        let run = columns.taps(place.column);
        if run.length == 0 {
            // All rows are padding.
            self.row = rows.input;
        }
        self.first = first.wrapping_add(run.tap.wrapping_mul(columns.dilation).wrapping_mul(*inputs));
        (self.tap, self.taps) = (run.tap, run.length);
    }
}
