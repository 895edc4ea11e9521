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
use crate::rolled::unknown;

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
    /// Four windows in pairs, or as words.
    pairs: *mut i32,
    /// How many of these words a row of windows takes.
    row_words: usize,
    /// A row of a window in the padding.
    padding: &'a [i8],
    /// A row of each of four windows that reach into the padding.
    edges: *mut i8,
    /// A row of a window; and a whole one, where its rows are alike.
    row: Extent,
    window: Option<Extent>,
}

/// What one group has.
struct Group {
    /// How many groups there are.
    count: usize,
    /// Inputs under a tap.
    inputs: usize,
    /// Outputs.
    outputs: usize,
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
    let (channels, rest) = scratch.split_at_mut_checked(layout.channels)?;
    let (pairs, rest) = rest.split_at_mut_checked(layout.pairs)?;
    let (padding, rest) = rest.split_at_mut_checked(layout.padding)?;
    let (edges, kept) = rest.split_at_mut_checked(layout.edges)?;
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
    let group = Group { count: groups, inputs, outputs, weights };
    padding.fill(linear.input_zero as i8);
    // The last pair is no input where the depth is odd.
    pairs.fill(0);
    for (channel, slot) in channels.iter_mut().enumerate() {
        constants(slot, linear, channel, *linear.bias.get(channel)?, depth.div_ceil(2))?;
    }
    let range = pairs.as_ptr_range();
    let frame = Frame {
        pairs: range.start,
        pairs_end: range.end,
        weights: linear.weights.as_ptr(),
        channels: channels.as_ptr().cast(),
        outputs,
        ..Frame::new(linear)
    };
    let pitch = window.rows.dilation.wrapping_mul(window.columns.input).wrapping_mul(window.inputs);
    let (row, whole) = if groups == 1 || window.columns.kernel == 1 {
        let row = Extent::new(run, 1, 0, 1);
        (row, Some(Extent { rows: window.rows.kernel, skip: pitch.wrapping_sub(run), ..row }))
    } else {
        let tap = Extent::new(inputs, 1, 0, window.columns.kernel);
        (Extent { skip: window.inputs.wrapping_sub(inputs), ..tap }, None)
    };
    let layer = Layer {
        frame,
        group,
        fill: core::widen,
        zero: 0,
        kernel: core::columns,
        pairs: pairs.as_mut_ptr(),
        row_words: run.wrapping_mul(2),
        padding,
        edges: edges.as_mut_ptr(),
        row,
        window: whole,
    };
    let place = output.as_mut_ptr();
    match input {
        Some(input) => layer.run(window, input.as_ptr(), input.len(), place, output.len()),
        // A block of windows is read before its outputs are written, and no other window reads there.
        None if window.rows.kernel == 1 && window.columns.kernel == 1 => {
            layer.run(window, place, output.len(), place, output.len())
        }
        None => rows_in_place(window, output, kept, &|window, input, output| {
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
    let range = words.as_ptr_range();
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
    let whole = Extent { rows: window.rows.kernel, skip: pitch.wrapping_sub(padding.len()), ..row };
    let layer = Layer {
        frame,
        group: Group { count: 1, inputs: of_bytes.inputs, outputs: of_bytes.outputs, weights: 0 },
        fill,
        zero: if bytes == 1 { linear.input_zero.into() } else { 0 },
        kernel: core::wide,
        pairs: words.as_mut_ptr(),
        row_words: run.wrapping_mul(4),
        padding,
        edges: edges.as_mut_ptr(),
        row,
        window: Some(whole),
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

/// Makes one row of windows of which each is one position and none is left out.
fn flatten(window: &mut Window) -> Option<()> {
    let plain =
        |axis: &Axis| axis.kernel == 1 && axis.stride == 1 && axis.pad == 0 && axis.input == axis.output;
    if plain(&window.rows) && plain(&window.columns) {
        let positions = window.batch.checked_mul(window.rows.input)?.checked_mul(window.columns.input)?;
        window.batch = 1;
        (window.rows.input, window.rows.output) = (1, 1);
        (window.columns.input, window.columns.output) = (positions, positions);
    }
    Some(())
}

impl Layer<'_> {
    /// Runs all windows, whose inputs and outputs are bytes, for one group after the other. `input` points to `input_len` elements, `output` to
    /// `output_len`; both are valid as long as this runs.
    #[inline(never)]
    fn run(
        &self,
        window: &Window,
        input: *const i8,
        input_len: usize,
        output: *mut i8,
        output_len: usize,
    ) -> Option<()> {
        let mut window = *window;
        flatten(&mut window)?;
        let Window { batch, rows, columns, outputs, .. } = window;
        let windows = batch.checked_mul(rows.output)?.checked_mul(columns.output)?;
        if input_len < batch.checked_mul(window.image())? || output_len < windows.checked_mul(outputs)? {
            return None;
        }
        let mut frame = self.frame;
        let (mut input, mut output) = (input, output);
        for _ in 0..self.group.count {
            frame.output = output;
            self.run_group(&window, &mut frame, input, windows);
            input = input.wrapping_add(self.group.inputs);
            output = output.wrapping_add(self.group.outputs);
            frame.weights = frame.weights.wrapping_add(self.group.weights);
            frame.channels =
                frame.channels.wrapping_add(self.group.outputs.wrapping_mul(core::CHANNEL_WORDS));
        }
        Some(())
    }

    /// Runs all windows of a group, whose inputs of the first position are at `input`.
    fn run_group(&self, window: &Window, frame: &mut Frame, input: *const i8, windows: usize) {
        let Window { rows, columns, inputs, outputs, .. } = *window;
        let mut left = windows;
        let tops = rows.input.wrapping_add(1).saturating_sub(rows.reach());
        let next_output = [1, 2, 3].map(|lane: usize| lane.wrapping_mul(outputs));
        let mut next = Place { image: input, row: 0, column: 0 };
        let next_window = columns.stride.wrapping_mul(inputs);
        // Columns under four windows, where they have no gaps.
        let under = columns.stride.wrapping_mul(3).wrapping_add(columns.kernel);
        let dense = columns.dilation == 1 || columns.kernel == 1;
        while left > 0 {
            let start = next.column.wrapping_mul(columns.stride).wrapping_sub(columns.pad);
            let inside = start < columns.input && start.wrapping_add(under) <= columns.input;
            let lanes = if inside && dense && next.column.wrapping_add(4) <= columns.output {
                frame.lanes = next_output;
                self.inside(window, &next, start, next_window, tops);
                next.column = next.column.wrapping_add(4);
                4
            } else {
                self.anywhere(window, &mut next, left, &mut frame.lanes)
            };
            if next.column == columns.output {
                next.step_row(window);
            }
            // SAFETY: pairs, weights and constants are as long as depth and outputs of all groups say, checked where the layer was made; `run` checked the
            // output's length.
            unsafe { (self.kernel)(frame) };
            frame.output = frame.output.wrapping_add(outputs.wrapping_mul(lanes));
            left = left.saturating_sub(lanes);
        }
    }

    /// Brings four windows side by side into pairs, the first at column `start`, all of them within the columns. A window whose top row is less than `tops` lies
    /// within the rows.
    fn inside(&self, window: &Window, place: &Place, start: usize, next_window: usize, tops: usize) {
        let Window { rows, .. } = *window;
        let from = |row: usize| {
            let first = place.image.wrapping_add(window.at(row, start));
            [0usize, 1, 2, 3].map(|lane| first.wrapping_add(lane.wrapping_mul(next_window)))
        };
        let top = place.row.wrapping_mul(rows.stride).wrapping_sub(rows.pad);
        if let Some(all) = &self.window
            && top < tops
        {
            // SAFETY: each source has `rows.kernel` rows of a window within the image; the pairs have room for them.
            unsafe { (self.fill)(self.pairs, &from(top), all, self.zero) };
            return;
        }
        let mut pairs = self.pairs;
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
    fn anywhere(&self, window: &Window, next: &mut Place, left: usize, lanes: &mut [usize; 3]) -> usize {
        let Window { rows, columns, inputs, outputs, .. } = *window;
        let mut last = *next;
        let mut count = 0usize;
        let mut edge = self.edges;
        let mut sources = [Source::NONE; 4];
        for (lane, source) in unknown(sources.as_mut_slice()).iter_mut().enumerate() {
            if lane < left {
                if next.column == columns.output {
                    next.step_row(window);
                }
                last = *next;
                next.column = next.column.wrapping_add(1);
                count = count.wrapping_add(1);
            }
            if let Some(slot) = lane.checked_sub(1).and_then(|slot| lanes.get_mut(slot)) {
                *slot = count.wrapping_sub(1).wrapping_mul(outputs);
            }
            self.source(window, &last, edge, source);
            if columns.kernel > 1 {
                edge = edge.wrapping_add(self.padding.len());
            }
        }
        let pitch = columns.input.wrapping_mul(inputs).wrapping_mul(rows.dilation);
        let mut pairs = self.pairs;
        for _ in 0..rows.kernel {
            let mut from = [self.padding.as_ptr(); 4];
            for (from, source) in unknown(from.as_mut_slice()).iter_mut().zip(&mut sources) {
                if source.row < rows.input {
                    *from = if source.pieces == 0 { source.first } else { source.collect(window) };
                }
                source.row = source.row.wrapping_add(rows.dilation);
                source.first = source.first.wrapping_add(pitch);
            }
            // SAFETY: each source has a row of a window, `padding.len()` bytes; the pairs have room for `rows.kernel` of them.
            unsafe { (self.fill)(pairs, &from, &self.row, self.zero) };
            pairs = pairs.wrapping_add(self.row_words);
        }
        count
    }

    /// Finds out where a window's rows are read; `edge` is a lane's part of `edges`, not read if windows have one column.
    #[inline(never)]
    fn source(&self, window: &Window, place: &Place, edge: *mut i8, source: &mut Source) {
        let Window { rows, columns, inputs, .. } = *window;
        let row = place.row.wrapping_mul(rows.stride).wrapping_sub(rows.pad);
        let start = place.column.wrapping_mul(columns.stride).wrapping_sub(columns.pad);
        let first = place.image.wrapping_add(window.at(row, start));
        *source = Source { row, first, edge, to: edge, pieces: 0, bytes: self.group.inputs };
        let inside = start < columns.input && start.wrapping_add(columns.reach()) <= columns.input;
        if inside && (columns.dilation == 1 || columns.kernel == 1) {
            return;
        }
        // The first tap on the image, and how many there are.
        let mut tap = 0usize;
        while tap < columns.kernel && columns.position(place.column, tap).is_none() {
            tap = tap.wrapping_add(1);
        }
        let mut taps = 0usize;
        while tap.wrapping_add(taps) < columns.kernel
            && columns.position(place.column, tap.wrapping_add(taps)).is_some()
        {
            taps = taps.wrapping_add(1);
        }
        if taps == 0 {
            // All rows are padding.
            source.row = rows.input;
            return;
        }
        // SAFETY: windows of several columns have a part of `edges` as long as `padding`; one column is inside, or has no tap on the image.
        unsafe { ::core::ptr::copy_nonoverlapping(self.padding.as_ptr(), edge, self.padding.len()) };
        source.first = first.wrapping_add(tap.wrapping_mul(columns.dilation).wrapping_mul(inputs));
        source.to = edge.wrapping_add(tap.wrapping_mul(inputs));
        if columns.dilation == 1 && self.group.count == 1 {
            source.bytes = taps.wrapping_mul(inputs);
            taps = 1;
        }
        source.pieces = taps;
    }
}

/// A window's rows, from the first to the last.
#[derive(Clone, Copy)]
struct Source {
    /// Row of the image.
    row: usize,
    /// Its first position under a tap.
    first: *const i8,
    /// Where a row with padding or gaps is collected.
    edge: *const i8,
    /// What is under the first tap there.
    to: *mut i8,
    /// Pieces to collect, `bytes` each; 0: a row is read where it is.
    pieces: usize,
    bytes: usize,
}

impl Source {
    const NONE: Self = Self {
        row: 0,
        first: ::core::ptr::null(),
        edge: ::core::ptr::null(),
        to: ::core::ptr::null_mut(),
        pieces: 0,
        bytes: 0,
    };

    /// Collects the row under a window, which is one of the image.
    #[inline(never)]
    fn collect(&self, window: &Window) -> *const i8 {
        let step = window.columns.dilation.wrapping_mul(window.inputs);
        let (mut from, mut to) = (self.first, self.to);
        for _ in 0..self.pieces {
            // SAFETY: the piece is under taps on the image; `edge` has a place for each tap.
            unsafe { ::core::ptr::copy_nonoverlapping(from, to, self.bytes) };
            from = from.wrapping_add(step);
            to = to.wrapping_add(window.inputs);
        }
        self.edge
    }
}
