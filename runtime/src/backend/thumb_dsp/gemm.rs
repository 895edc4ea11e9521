//! Matrix products: convolutions in one group and dense layers.

mod constants;
pub mod dense;
mod gather;
mod tile;

use constants::Form;
use tile::{BLOCK, GROUP, GROUP_COLUMNS, PAIR_WORDS, Part, Run};

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
pub fn conv2d(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    tensors: Tensors<'_>,
    scratch: &mut [u8],
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
    let depth = window.rows.kernel.wrapping_mul(window.columns.kernel).wrapping_mul(window.inputs);
    let places = Places::cut(&tile, scratch)?;
    let wide = [input, output].map(|dtype| dtype == DType::I16);
    let form = Form::of(linear, tile.narrow, depth, wide, places.constants)?;
    let mut layer = Layer::new(window, linear, &tile, &form, tensors, places, depth)?;
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
    tile: &'a Tile,
    tensors: Tensors<'a>,
    places: Places<'a>,
    run: Run,
    code: unsafe extern "C" fn(*const Run),
    /// The code that fills columns.
    fill: Part,
    /// Pairs of outputs that are whole.
    pairs: usize,
    /// Bytes of an input element.
    x_bytes: usize,
    /// Bytes of the activations at a position.
    pixel: usize,
    /// Bytes of the outputs at a position.
    out_pixel: usize,
    /// Positions of the output.
    positions: usize,
}

impl<'a> Layer<'a> {
    /// `None` if a buffer is shorter than the shapes say, or the weights are not aligned for words.
    fn new(
        window: &'a Window,
        linear: &Integer<'_>,
        tile: &'a Tile,
        form: &Form,
        tensors: Tensors<'a>,
        places: Places<'a>,
        depth: usize,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        let [x_bytes, y_bytes] = tensors.types.map(DType::bytes);
        let pixel = inputs.checked_mul(x_bytes)?;
        let out_pixel = outputs.checked_mul(y_bytes)?;
        let positions = batch.checked_mul(rows.output)?.checked_mul(columns.output)?;
        let image = batch.checked_mul(rows.input)?.checked_mul(columns.input)?.checked_mul(pixel)?;
        let given = tensors.input.unwrap_or(tensors.output).len();
        let weights_fit = linear.weights.len() >= linear.packing.bytes(outputs, depth)?;
        let aligned = linear.weights.as_ptr().align_offset(4) == 0;
        if given < image
            || tensors.output.len() < positions.checked_mul(out_pixel)?
            || !weights_fit
            || !aligned
            || linear.bias.len() != outputs
            || linear.multiplier.len() != outputs
            || linear.shift.len() != outputs
        {
            return None;
        }
        let columns = places.columns.as_mut_ptr();
        let constants = places.constants.as_ptr();
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
            constants,
            top: form.top,
            back: form.back,
            out: core::ptr::null_mut(),
            out_steps: [out_pixel, out_pixel.wrapping_mul(2)],
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
        let code = if tile.narrow { tile::narrow } else { tile::wide };
        Some(Self {
            window,
            tile,
            tensors,
            places,
            run,
            code,
            pairs: outputs / 2,
            x_bytes,
            pixel,
            out_pixel,
            positions,
            fill: if x_bytes == 1 { tile::fill_i8 } else { tile::fill_i16 },
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
    /// caller has set where activations are.
    fn blocks(&mut self, first: usize, blocks: usize, count: usize) -> Option<()> {
        let start = first.checked_mul(self.out_pixel)?;
        let windows = blocks.checked_sub(1)?.checked_mul(BLOCK)?.checked_add(count)?;
        let place = self.tensors.output.get_mut(start..)?;
        if place.len() < windows.checked_mul(self.out_pixel)? {
            return None;
        }
        let odd = self.window.outputs & 1 == 1;
        let constants = self.places.constants.as_ptr();
        let odd_constants = constants.wrapping_add(self.pairs.wrapping_mul(PAIR_WORDS));
        let y_bytes = self.tensors.types[1].bytes();
        let odd_at = self.out_pixel.wrapping_sub(y_bytes);
        let weights = self.run.weights;
        let x = self.run.x;
        let fill = self.run.fill;
        let mut left = blocks;
        let mut out = place.as_mut_ptr();
        while left > 0 {
            // Of an odd number of outputs the last one goes a way of its own, block by block.
            let now = if odd { 1 } else { left };
            let count = if left == now { count } else { BLOCK };
            left = left.wrapping_sub(now);
            self.run.blocks = now;
            if self.pairs > 0 {
                self.run.constants = constants;
                self.run.out = out;
                self.run.out_steps = Self::steps(self.out_pixel, count);
                // SAFETY: the constants, columns and weights that `run` names were cut and measured by `Places::cut` and `Layer::new`, the outputs
                // above; the caller knows that activations of these blocks are readable to the end of their groups.
                unsafe { (self.code)(&raw const self.run) };
                self.run.fill = tile::fill_nothing;
            }
            if odd {
                let mut last = [0u8; 4 * BLOCK];
                self.run.constants = odd_constants;
                self.run.weights =
                    weights.wrapping_add(self.pairs.wrapping_mul(self.tile.groups).wrapping_mul(2 * GROUP));
                self.run.out = last.as_mut_ptr();
                self.run.out_steps = [4, 8];
                // SAFETY: as above; the pair's outputs fit the four bytes of each window.
                unsafe { (self.code)(&raw const self.run) };
                self.run.weights = weights;
                for (window, pair) in last.as_chunks::<4>().0.iter().enumerate().take(count) {
                    let at = window.wrapping_mul(self.out_pixel).wrapping_add(odd_at);
                    for (byte, &value) in pair.iter().take(y_bytes).enumerate() {
                        // SAFETY: within the outputs of this block's windows, which were measured above.
                        unsafe { out.wrapping_add(at).wrapping_add(byte).write(value) };
                    }
                }
            }
            self.run.fill = fill;
            out = out.wrapping_add(self.run.out_advance);
            self.run.x = self.run.x.wrapping_add(self.run.x_advance);
        }
        self.run.x = x;
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
