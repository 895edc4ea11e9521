//! Matrix products: convolutions in one group and dense layers.

mod constants;
pub mod dense;
mod gather;
mod tile;

use constants::Form;
use tile::{BLOCK, GROUP, GROUP_COLUMNS, Part, Run};

use crate::backend::spec::dsp::gemm::{self, Gather, Tile};
use crate::backend::spec::select::{Linear, Request};
use crate::backend::{Integers, IntegersMut};
use crate::blob::DType;
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Activations and outputs as bytes.
pub struct Tensors<'a> {
    /// The input; `None`: the output holds it.
    pub input: Option<&'a [u8]>,
    /// The output.
    pub output: &'a mut [u8],
    /// Their types.
    pub types: [DType; 2],
}

impl<'a> Tensors<'a> {
    /// Of two buffers.
    pub fn of(input: Integers<'a>, output: &'a mut IntegersMut<'_>) -> Self {
        let (input, from): (&[u8], _) = match input {
            Integers::I8(input) => (bytemuck::cast_slice(input), DType::I8),
            Integers::I16(input) => (bytemuck::cast_slice(input), DType::I16),
        };
        let (output, to): (&mut [u8], _) = match output {
            IntegersMut::I8(output) => (bytemuck::cast_slice_mut(output), DType::I8),
            IntegersMut::I16(output) => (bytemuck::cast_slice_mut(output), DType::I16),
        };
        Self { input: Some(input), output, types: [from, to] }
    }
}

/// Convolution. `None`: it is not for these kernels, nothing was done.
#[inline(never)]
pub fn conv2d<'a>(
    window: &'a Window,
    groups: usize,
    linear: &'a Integer<'a>,
    tensors: Tensors<'a>,
    scratch: &'a mut [u8],
) -> Option<()> {
    let [input, output] = tensors.types;
    let request = Request {
        linear: Linear::Conv2d { window: *window, groups },
        input,
        output,
        packing: linear.packing,
        in_place: tensors.input.is_none(),
    };
    let tile = gemm::tile(&request)?;
    let places = Places::cut(&tile, scratch)?;
    let mut layer = Layer::new(window, linear, &tile, tensors, places)?;
    match tile.gather {
        Gather::Pointwise => layer.pointwise(),
        Gather::Words | Gather::Bytes => layer.windows(linear.input_zero),
    }
}

/// What the scratch holds.
struct Places<'a> {
    constants: &'a mut [i32],
    columns: &'a mut [u8],
    gathered: &'a mut [u8],
    table: &'a mut [u32],
    rows: &'a mut [u8],
}

impl<'a> Places<'a> {
    /// `None` if the scratch is too short, or not aligned for words.
    fn cut(tile: &Tile, scratch: &'a mut [u8]) -> Option<Self> {
        if scratch.len() < tile.scratch_bytes {
            return None;
        }
        let (constants, rest) = scratch.split_at_mut_checked(tile.constants)?;
        let (columns, rest) = rest.split_at_mut_checked(tile.columns)?;
        let (gathered, rest) = rest.split_at_mut_checked(tile.gathered.wrapping_mul(BLOCK))?;
        let (table, rows) = rest.split_at_mut_checked(tile.segments.wrapping_mul(4))?;
        Some(Self {
            constants: bytemuck::try_cast_slice_mut(constants).ok()?,
            columns,
            gathered,
            table: bytemuck::try_cast_slice_mut(table).ok()?,
            rows,
        })
    }
}

/// The table of windows that are one segment.
static NOWHERE: u32 = 0;

/// A layer on its way through the tiles.
struct Layer<'a> {
    window: &'a Window,
    linear: &'a Integer<'a>,
    tile: &'a Tile,
    tensors: Tensors<'a>,
    places: Places<'a>,
    run: Run,
    code: unsafe extern "C" fn(*const Run),
    /// The code that fills columns.
    fill: Part,
    /// Outputs whose pairs the assembly code finishes.
    finished: usize,
    /// Bytes of an input element.
    x_bytes: usize,
    /// Bytes of the activations at a position.
    pixel: usize,
    /// Bytes of an output.
    y_bytes: usize,
    /// Bytes of the outputs at a position.
    out_pixel: usize,
    /// Positions of the output.
    positions: usize,
}

impl<'a> Layer<'a> {
    /// `None` if a buffer is shorter than the shapes say, or the weights are not aligned for words.
    fn new(
        window: &'a Window,
        linear: &'a Integer<'a>,
        tile: &'a Tile,
        tensors: Tensors<'a>,
        places: Places<'a>,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        let [x_bytes, y_bytes] = tensors.types.map(DType::bytes);
        let pixel = inputs.checked_mul(x_bytes)?;
        let out_pixel = outputs.checked_mul(y_bytes)?;
        let positions = batch.checked_mul(rows.output)?.checked_mul(columns.output)?;
        let image = batch.checked_mul(rows.input)?.checked_mul(columns.input)?.checked_mul(pixel)?;
        let given = tensors.input.unwrap_or(tensors.output).len();
        if given < image
            || tensors.output.len() < positions.checked_mul(out_pixel)?
            || linear.weights.len() < linear.packing.bytes(outputs, tile.depth)?
            || linear.weights.as_ptr().align_offset(4) != 0
            || linear.bias.len() != outputs
            || linear.multiplier.len() != outputs
            || linear.shift.len() != outputs
        {
            return None;
        }
        let wide = [x_bytes, y_bytes].map(|bytes| bytes == 2);
        let form = Form::of(linear, tile.narrow, tile.depth, wide, places.constants);
        let finished = if form.is_some() { outputs & !1 } else { 0 };
        let form = form.unwrap_or(Form::SUMS);
        let columns = places.columns.as_mut_ptr();
        let (entry, passes) = tile::passes(tile.groups, tile.narrow);
        let run = Run {
            columns,
            mask: tile::LOW_BYTES,
            columns_end: columns.wrapping_add(tile.columns),
            weights: linear.weights.as_ptr(),
            passes,
            entry,
            fill: tile::fill_nothing,
            filled: 0,
            scale: form.scale,
            store: form.store,
            next: 0,
            zero: form.zero,
            constants: places.constants.as_ptr(),
            top: form.top,
            back: form.back,
            out: core::ptr::null_mut(),
            out_steps: [0; 2],
            out_advance: out_pixel.wrapping_mul(BLOCK),
            x: core::ptr::null(),
            x_steps: [pixel, pixel.wrapping_mul(2)],
            x_advance: pixel.wrapping_mul(BLOCK),
            table: &raw const NOWHERE,
            segments: 1,
            gathered: core::ptr::null_mut(),
            gathered_step: tile.gathered,
            segment: tile.segment,
            groups: tile.groups,
            blocks: 1,
            looped: 0,
        };
        Some(Self {
            window,
            linear,
            tile,
            tensors,
            places,
            run,
            code: if tile.narrow { tile::narrow } else { tile::wide },
            fill: if x_bytes == 1 { tile::fill_i8 } else { tile::fill_i16 },
            finished,
            x_bytes,
            pixel,
            y_bytes,
            out_pixel,
            positions,
        })
    }

    /// Distances of the second and third window of a block with `count` windows, `step` apart; the last one stands for missing ones.
    fn steps(step: usize, count: usize) -> [usize; 2] {
        match count {
            0 | 1 => [0, 0],
            2 => [step, step],
            _ => [step, step.wrapping_mul(2)],
        }
    }

    /// Runs `blocks` blocks of windows from `first` on, the last one with `count` windows; more than one block only if all are full. The
    /// caller has set where activations are, and knows that they are readable to the end of their groups.
    #[inline(never)]
    fn blocks(&mut self, first: usize, blocks: usize, count: usize) -> Option<()> {
        let windows = blocks.wrapping_sub(1).wrapping_mul(BLOCK).wrapping_add(count);
        if blocks == 0 || first.checked_add(windows)? > self.positions {
            return None;
        }
        // `Layer::new` has measured the output: it holds that many positions.
        let out = self.tensors.output.as_mut_ptr().wrapping_add(first.wrapping_mul(self.out_pixel));
        self.run.out_steps = Self::steps(self.out_pixel, count);
        self.run.out = out;
        self.run.blocks = blocks;
        if self.finished == self.window.outputs {
            // SAFETY: the constants, columns, weights and outputs that `run` names were cut and measured by `Places::cut` and `Layer::new`; the
            // windows lie within the positions, as was checked above, and their activations are readable, as the caller knows.
            unsafe { (self.code)(&raw const self.run) };
            return Some(());
        }
        self.blocks_with_sums(out, blocks, count)
    }

    /// As [`Layer::blocks`], where some pairs of outputs are finished here: the last one of an odd number, or all where no form takes them.
    #[inline(never)]
    fn blocks_with_sums(&mut self, out: *mut u8, blocks: usize, count: usize) -> Option<()> {
        let kept = self.run;
        let mut out = out;
        for _ in 0..blocks {
            self.run.blocks = 1;
            self.run.out = out;
            if self.finished > 0 {
                // SAFETY: as in `blocks`, for one of them.
                unsafe { (self.code)(&raw const self.run) };
                self.run.fill = tile::fill_nothing;
            }
            let mut channel = self.finished;
            while channel < self.window.outputs {
                let [even, odd] = [channel, channel.wrapping_add(1)]
                    .map(|channel| self.linear.bias.get(channel).copied().unwrap_or(0));
                let first = if self.tile.narrow {
                    [even.wrapping_shl(8).wrapping_add(odd), odd.wrapping_shl(8)]
                } else {
                    [even, odd]
                };
                let mut sums = [0i32; 2 * BLOCK];
                let weights = channel.wrapping_mul(self.tile.groups).wrapping_mul(GROUP);
                self.run.weights = kept.weights.wrapping_add(weights);
                self.run.constants = first.as_ptr();
                self.run.scale = Some(tile::keep_sums);
                self.run.out = sums.as_mut_ptr().cast();
                // SAFETY: as in `blocks`; this code reads two words of constants and writes six words.
                unsafe { (self.code)(&raw const self.run) };
                self.run.fill = tile::fill_nothing;
                let (evens, odds) = sums.split_at(BLOCK);
                for (window, (&even, &odd)) in evens.iter().zip(odds).enumerate().take(count) {
                    let pair = if self.tile.narrow {
                        let odd = odd >> 8;
                        [even.wrapping_sub(odd) >> 8, odd]
                    } else {
                        [even, odd]
                    };
                    for (channel, sum) in (channel..self.window.outputs).zip(pair) {
                        let value = self.linear.finish(channel, sum)?;
                        let at = window.wrapping_mul(self.out_pixel);
                        let place = out.wrapping_add(at).wrapping_add(channel.wrapping_mul(self.y_bytes));
                        // SAFETY: an output of the block's windows, which `blocks` has checked; 16-bit outputs are aligned as their slice is.
                        unsafe {
                            if self.y_bytes == 1 {
                                place.cast::<i8>().write(value as i8);
                            } else {
                                place.cast::<i16>().write_unaligned(value as i16);
                            }
                        }
                    }
                }
                channel = channel.wrapping_add(2);
            }
            self.run.weights = kept.weights;
            self.run.constants = kept.constants;
            self.run.scale = kept.scale;
            self.run.fill = kept.fill;
            self.run.x = self.run.x.wrapping_add(self.run.x_advance);
            out = out.wrapping_add(self.run.out_advance);
        }
        self.run.x = kept.x;
        Some(())
    }

    /// The first byte of the activations.
    fn source(&self) -> *const u8 {
        match self.tensors.input {
            Some(input) => input.as_ptr(),
            None => self.tensors.output.as_ptr(),
        }
    }

    /// Windows of one position each.
    #[inline(never)]
    fn pointwise(&mut self) -> Option<()> {
        let inputs = self.window.inputs;
        // Groups reach past the last positions if they are not filled: these are gathered.
        let beside = if inputs.is_multiple_of(GROUP) { 0 } else { (GROUP - 1).div_ceil(inputs.max(1)) };
        let blocks = self.positions.saturating_sub(beside) / BLOCK;
        self.run.fill = self.fill;
        if blocks > 0 {
            self.run.x = self.source();
            self.blocks(0, blocks, BLOCK)?;
        }
        let mut first = blocks.wrapping_mul(BLOCK);
        while first < self.positions {
            let count = self.positions.wrapping_sub(first).min(BLOCK);
            let at = first.wrapping_mul(self.pixel);
            if beside == 0 {
                self.run.x = self.source().wrapping_add(at);
                self.run.x_steps = Self::steps(self.pixel, count);
            } else {
                let source = self.tensors.input.unwrap_or(self.tensors.output);
                let x = source.get(at..)?.get(..count.wrapping_mul(self.pixel))?;
                let rows = self.places.gathered.chunks_exact_mut(self.tile.gathered.max(1));
                for (row, x) in rows.zip(x.chunks_exact(self.pixel.max(1))) {
                    row.get_mut(..x.len())?.copy_from_slice(x);
                }
                self.run.x = self.places.gathered.as_ptr();
                self.run.x_steps = Self::steps(self.tile.gathered, count);
            }
            self.blocks(first, 1, count)?;
            first = first.wrapping_add(count);
        }
        Some(())
    }

    /// Windows over rows that are copied, with their padding, before an output can replace them.
    #[inline(never)]
    fn windows(&mut self, input_zero: i16) -> Option<()> {
        let Window { batch, rows, columns, .. } = *self.window;
        let image_bytes = self.window.image().checked_mul(self.x_bytes)?;
        let row_bytes = columns.input.checked_mul(self.pixel)?;
        let left = columns.pad.checked_mul(self.pixel)?;
        let column_step = columns.stride.checked_mul(self.pixel)?;
        let tap_step = columns.dilation.checked_mul(self.pixel)?;
        let reach = self.tile.rows;
        // 16-bit activations have the zero point 0.
        let zero = input_zero as u8;
        self.places.rows.fill(zero);
        self.run.x_advance = column_step.wrapping_mul(BLOCK);
        let (mut first, mut lanes) = (0usize, 0usize);
        for image in 0..batch {
            let image = image.wrapping_mul(image_bytes);
            // Rows are counted from the top of the padding; those before `next` are kept, or not needed any more.
            let mut next = 0usize;
            for row in 0..rows.output {
                let top = row.wrapping_mul(rows.stride);
                let end = top.wrapping_add(reach);
                next = next.max(top);
                while next < end {
                    let slot = next.checked_rem(reach)?.wrapping_mul(self.tile.row);
                    let kept = self.places.rows.get_mut(slot..)?.get_mut(..self.tile.row)?;
                    let y = next.wrapping_sub(rows.pad);
                    next = next.wrapping_add(1);
                    let Some(middle) = kept.get_mut(left..) else { continue };
                    let bytes = middle.len().min(row_bytes);
                    let middle = middle.get_mut(..bytes)?;
                    if y < rows.input {
                        let at = image.wrapping_add(y.wrapping_mul(row_bytes));
                        let source = self.tensors.input.unwrap_or(self.tensors.output);
                        middle.copy_from_slice(source.get(at..)?.get(..bytes)?);
                    } else {
                        middle.fill(zero);
                    }
                }
                self.point(top, tap_step)?;
                let mut column = 0usize;
                while column < columns.output {
                    let blocks = columns.output.wrapping_sub(column) / BLOCK;
                    if lanes == 0 && blocks > 0 {
                        let windows = blocks.wrapping_mul(BLOCK);
                        self.side_by_side(column.wrapping_mul(column_step), column_step);
                        self.blocks(first, blocks, BLOCK)?;
                        first = first.wrapping_add(windows);
                        column = column.wrapping_add(windows);
                        continue;
                    }
                    self.gather(column.wrapping_mul(column_step), lanes);
                    column = column.wrapping_add(1);
                    lanes = lanes.wrapping_add(1);
                    if lanes == BLOCK {
                        self.one_by_one();
                        self.blocks(first, 1, BLOCK)?;
                        first = first.wrapping_add(BLOCK);
                        lanes = 0;
                    }
                }
            }
        }
        if lanes > 0 {
            let column = columns.output.wrapping_sub(1).wrapping_mul(column_step);
            for lane in lanes..BLOCK {
                self.gather(column, lane);
            }
            self.one_by_one();
            self.blocks(first, 1, lanes)?;
        }
        Some(())
    }

    /// The next blocks take windows of one row, from byte `column` of the kept rows on.
    fn side_by_side(&mut self, column: usize, step: usize) {
        self.run.fill = self.fill;
        self.run.x = self.places.rows.as_ptr().wrapping_add(column);
        self.run.x_steps = Self::steps(step, BLOCK);
        self.run.table = self.places.table.as_ptr();
        self.run.segments = self.tile.segments;
        if self.tile.gather == Gather::Words {
            self.run.groups = self.tile.segment / GROUP;
        } else {
            self.run.gathered = self.places.gathered.as_mut_ptr();
        }
    }

    /// The next block takes the windows that were gathered.
    fn one_by_one(&mut self) {
        if self.tile.gather == Gather::Words {
            self.run.fill = tile::fill_nothing;
            return;
        }
        self.run.fill = self.fill;
        self.run.x = self.places.gathered.as_ptr();
        self.run.x_steps = Self::steps(self.tile.gathered, BLOCK);
        self.run.table = &raw const NOWHERE;
        self.run.segments = 1;
        self.run.gathered = core::ptr::null_mut();
    }

    /// Fills the table with the places, in the kept rows, of the segments of windows whose first row is `top`.
    fn point(&mut self, top: usize, tap_step: usize) -> Option<()> {
        let Window { rows, columns, .. } = *self.window;
        let reach = self.tile.rows;
        let across = if self.tile.segments == rows.kernel { 1 } else { columns.kernel };
        let end = reach.wrapping_mul(self.tile.row);
        // A window's rows are fewer than those that are kept: one turn back is enough.
        let step = if rows.kernel == 1 { 0 } else { rows.dilation.wrapping_mul(self.tile.row) };
        let mut row = top.checked_rem(reach)?.wrapping_mul(self.tile.row);
        let mut entries = self.places.table.iter_mut();
        for _ in 0..rows.kernel {
            let mut at = row;
            for _ in 0..across {
                *entries.next()? = at as u32;
                at = at.wrapping_add(tap_step);
            }
            row = row.wrapping_add(step);
            if row >= end {
                row = row.wrapping_sub(end);
            }
        }
        Some(())
    }

    /// Gets the activations of the window at byte `column` of the kept rows into a lane.
    fn gather(&mut self, column: usize, lane: usize) {
        let base = self.places.rows.as_ptr().wrapping_add(column);
        let table = self.places.table.as_ptr();
        let Tile { segment, segments, gathered, .. } = *self.tile;
        if self.tile.gather == Gather::Words {
            let columns = self.places.columns.as_mut_ptr().wrapping_add(lane.wrapping_mul(4));
            // SAFETY: `Tile` makes a kept row as long as the last window of a row reaches, and the columns as long as all segments of
            // a window are; the table was filled with rows that are kept.
            unsafe { gather::words(columns, base, table, segments, segment / GROUP) };
        } else {
            let place = self.places.gathered.as_mut_ptr().wrapping_add(lane.wrapping_mul(gathered));
            // SAFETY: as above; behind the kept rows and behind a gathered row is a word more.
            unsafe { gather::bytes(place, base, table, segments, segment) };
        }
    }
}

const _: () = assert!(GROUP_COLUMNS == 24);
