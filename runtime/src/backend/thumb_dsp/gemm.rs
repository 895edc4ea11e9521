//! Matrix products: convolutions and dense layers.
//!
//! The code loads and stores words and halfwords at any address, in normal memory: `CCR.UNALIGN_TRP` has to be clear, as it is after reset.

pub mod constants;
pub mod dense;
pub mod gather;
pub mod tile;

use core::marker::PhantomData;

use constants::{Form, narrow_start};
use tile::{BLOCK, GROUP, GROUP_COLUMNS, PAIR_WORDS, Part, Run};

use crate::backend::kernels::{Kernels, links};
use crate::backend::spec::dsp::gemm::{self, Gather, Tile};
use crate::backend::{Integers, IntegersMut};
use crate::blob::DType;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::{rolled, unknown};

/// What of this module is linked.
pub trait Linked {
    /// Tiles of [`tile::narrow`], by the way to their columns: [`Gather::Pointwise`], [`Gather::Words`], [`Gather::Bytes`].
    const PAIRS: [bool; 3];
    /// Tiles of [`tile::wide`].
    const PLAIN: [bool; 3];
    /// Dense layers by quads of outputs.
    const DENSE_PAIRS: bool;
    /// Dense layers by pairs of outputs.
    const DENSE_PLAIN: bool;
    /// Convolutions with transformed weights.
    const WINOGRAD: bool;
    /// Convolutions in parts.
    const PARTS: bool;

    /// Any narrow tiles.
    const NARROW: bool = Self::PAIRS[0] || Self::PAIRS[1] || Self::PAIRS[2];
    /// Any wide tiles; those of transformed weights are.
    const WIDE: bool = Self::PLAIN[0] || Self::PLAIN[1] || Self::PLAIN[2] || Self::WINOGRAD;
    /// Any pointwise tiles.
    const POINTWISE: bool = Self::PAIRS[0] || Self::PLAIN[0];
    /// Any tiles that are gathered by words.
    const WORDS: bool = Self::PAIRS[1] || Self::PLAIN[1];
    /// Any tiles that are gathered by bytes.
    const BYTES: bool = Self::PAIRS[2] || Self::PLAIN[2];

    /// Whether such tiles are linked.
    fn takes(tile: &Tile) -> bool {
        let [pointwise, words, bytes] = if Self::narrow(tile) { Self::PAIRS } else { Self::PLAIN };
        Self::narrow(tile) == tile.narrow
            && match tile.gather {
                Gather::Pointwise => pointwise,
                Gather::Words => words,
                Gather::Bytes => bytes,
            }
    }

    /// Whether linked tiles are narrow.
    fn narrow(tile: &Tile) -> bool {
        Self::NARROW && (!Self::WIDE || tile.narrow)
    }

    /// Whether linked tiles over rows are gathered by words.
    fn words(tile: &Tile) -> bool {
        Self::WORDS && (!Self::BYTES || tile.gather == Gather::Words)
    }
}

impl<K: Kernels> Linked for K {
    const PAIRS: [bool; 3] =
        [links::<K>("pairs, pointwise"), links::<K>("pairs, words"), links::<K>("pairs, bytes")];
    const PLAIN: [bool; 3] =
        [links::<K>("plain, pointwise"), links::<K>("plain, words"), links::<K>("plain, bytes")];
    const DENSE_PAIRS: bool = links::<K>("pairs, dense");
    const DENSE_PLAIN: bool = links::<K>("plain, dense");
    const WINOGRAD: bool = links::<K>("winograd");
    const PARTS: bool = links::<K>(gemm::PARTS);
}

/// Activations and outputs as bytes.
pub struct Tensors<'a> {
    /// The input; `None`: the output holds it.
    pub input: Option<&'a [u8]>,
    /// The output.
    pub output: &'a mut [u8],
    /// Their types.
    pub types: [DType; 2],
    /// The code that fills columns with such inputs.
    pub fill: Part,
    /// The code that stores such outputs.
    pub store: Part,
}

impl<'a> Tensors<'a> {
    /// Of bytes.
    pub fn bytes(input: Option<&'a [i8]>, output: &'a mut [i8]) -> Self {
        Self {
            input: input.map(bytemuck::cast_slice),
            output: bytemuck::cast_slice_mut(output),
            types: [DType::I8; 2],
            fill: tile::fill_i8,
            store: tile::store_i8,
        }
    }

    /// Of any integers.
    pub fn of(input: Integers<'a>, output: &'a mut IntegersMut<'_>) -> Self {
        let (input, from, fill): (&[u8], _, Part) = match input {
            Integers::I8(input) => (bytemuck::cast_slice(input), DType::I8, tile::fill_i8),
            Integers::I16(input) => (bytemuck::cast_slice(input), DType::I16, tile::fill_i16),
        };
        let (output, to, store): (&mut [u8], _, Part) = match output {
            IntegersMut::I8(output) => (bytemuck::cast_slice_mut(output), DType::I8, tile::store_i8),
            IntegersMut::I16(output) => (bytemuck::cast_slice_mut(output), DType::I16, tile::store_i16),
        };
        Self { input: Some(input), output, types: [from, to], fill, store }
    }
}

/// Makes the output of channel `channel` of a sum, and stores it at `place`, which has `bytes` bytes.
///
/// # Safety
/// One or two bytes, as `bytes` says, are writable at `place`.
#[inline(never)]
unsafe fn finish(linear: &Integer<'_>, channel: usize, sum: i32, place: *mut u8, bytes: usize) -> Option<()> {
    let value = linear.finish_one(channel, sum)?;
    // SAFETY: the caller's promise.
    unsafe {
        if bytes == 1 {
            place.cast::<i8>().write(value as i8);
        } else {
            place.cast::<i16>().write_unaligned(value as i16);
        }
    }
    Some(())
}

/// Convolution. `None`: it is not for these kernels, nothing was done.
#[inline(never)]
pub fn conv2d<K: Linked>(
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    tensors: &mut Tensors<'_>,
    scratch: &mut [u8],
) -> Option<()> {
    // Both are borrowed where they were made: they are not moved.
    let tile = gemm::tile_of(window, groups, tensors.types[0], linear.packing);
    let tile = tile.as_ref().filter(|tile| K::takes(tile))?;
    let mut layer = Layer::<K>::new(window, groups, linear, tensors, scratch, tile);
    let layer = layer.as_mut()?;
    match tile.gather {
        Gather::Pointwise if K::POINTWISE => layer.pointwise(),
        Gather::Words | Gather::Bytes if K::WORDS || K::BYTES => layer.windows(linear.input_zero),
        _ => None,
    }
}

/// Distances of the second and third window of a block with `count` windows, `step` apart; the last one stands for missing ones.
fn steps(step: usize, count: usize) -> [usize; 2] {
    match count {
        0 | 1 => [0, 0],
        2 => [step, step],
        _ => [step, step.wrapping_mul(2)],
    }
}

/// The table of windows that are one segment.
static NOWHERE: u32 = 0;

/// Where a block's activations are.
#[derive(Clone, Copy)]
enum From {
    /// From a byte of the input on.
    Input(usize),
    /// Where [`Layer::run`] says.
    Run,
}

/// A layer on its way through the tiles.
struct Layer<'a, 't, K> {
    linked: PhantomData<K>,
    window: &'a Window,
    linear: &'a Integer<'a>,
    tile: &'a Tile,
    tensors: &'a mut Tensors<'t>,
    /// Side by side activations of three windows.
    gathered: &'a mut [u8],
    /// The segments of windows in `rows`.
    table: &'a mut [u32],
    /// The kept rows of the input.
    rows: &'a mut [u8],
    run: Run,
    code: unsafe extern "C" fn(*const Run),
    /// Outputs of a group of channels whose pairs the assembly code finishes.
    finished: usize,
    /// Groups of channels.
    channel_groups: usize,
    /// Bytes of a group's weights.
    group_weights: usize,
    /// Bytes of a group's activations at a position.
    group_pixel: usize,
    /// Bytes of the activations at a position.
    pixel: usize,
    /// Bytes of an output.
    y_bytes: usize,
    /// Bytes of the outputs at a position.
    out_pixel: usize,
    /// Positions of the output.
    positions: usize,
}

impl<'a, 't, K: Linked> Layer<'a, 't, K> {
    /// Divides the scratch, measures the operands and makes the constants. In a frame of its own, which is gone when the kernel runs.
    #[inline(never)]
    fn new(
        window: &'a Window,
        groups: usize,
        linear: &'a Integer<'a>,
        tensors: &'a mut Tensors<'t>,
        scratch: &'a mut [u8],
        tile: &'a Tile,
    ) -> Option<Self> {
        let narrow = K::narrow(tile);
        // From here on `None` means that a buffer is shorter than the shapes say, or weights or scratch are not aligned for words.
        let scratch = scratch.get_mut(..tile.scratch_bytes)?;
        let (constants, rest) = scratch.split_at_mut_checked(tile.constants)?;
        let (columns, rest) = rest.split_at_mut_checked(tile.columns)?;
        let (gathered, rest) = rest.split_at_mut_checked(tile.gathered.wrapping_mul(BLOCK))?;
        let (table, rows_kept) = rest.split_at_mut_checked(tile.segments.wrapping_mul(4))?;
        let constants: &mut [i32] = bytemuck::try_cast_slice_mut(constants).ok()?;
        let table = bytemuck::try_cast_slice_mut(table).ok()?;

        let Window { batch, rows, columns: across, outputs, .. } = *window;
        let [x_bytes, y_bytes] = tensors.types.map(|dtype| if dtype == DType::I16 { 2 } else { 1 });
        let pixel = window.inputs.wrapping_mul(x_bytes);
        let out_pixel = outputs.wrapping_mul(y_bytes);
        let positions = batch.checked_mul(rows.output)?.checked_mul(across.output)?;
        let image = batch.checked_mul(rows.input)?.checked_mul(across.input)?.checked_mul(pixel)?;
        let given = tensors.input.map_or(tensors.output.len(), <[u8]>::len);
        let group_weights = linear.packing.bytes(tile.outputs, tile.depth)?;
        if given < image
            || tensors.output.len() < positions.checked_mul(out_pixel)?
            || linear.weights.len() < group_weights.checked_mul(groups)?
            || linear.weights.as_ptr().align_offset(4) != 0
            || linear.bias.len() != outputs
            || linear.multiplier.len() != outputs
            || linear.shift.len() != outputs
        {
            return None;
        }
        let form = Form::of::<K>(linear, tile, [x_bytes, y_bytes], tensors.store, constants);
        let finished = if form.is_some() { tile.outputs & !1 } else { 0 };
        if !K::PARTS && finished != outputs {
            return None;
        }
        let form = form.unwrap_or(Form::SUMS);
        let columns = columns.as_mut_ptr();
        let (entry, passes) = tile::passes(tile.groups, narrow);
        Some(Self {
            linked: PhantomData,
            window,
            linear,
            tile,
            gathered,
            table,
            rows: rows_kept,
            run: Run {
                columns,
                mask: tile::LOW_BYTES,
                columns_end: columns.wrapping_add(tile.columns),
                weights: linear.weights.as_ptr(),
                passes,
                entry,
                fill: tensors.fill,
                filled: 0,
                scale: form.scale,
                store: form.store,
                store_shifted: form.store_shifted,
                next: 0,
                zero: form.zero,
                constants: constants.as_ptr(),
                top: form.top,
                back: form.back,
                out: core::ptr::null_mut(),
                out_steps: [0; 2],
                out_advance: out_pixel.wrapping_mul(BLOCK),
                x: core::ptr::null(),
                x_steps: steps(pixel, BLOCK),
                x_advance: pixel.wrapping_mul(BLOCK),
                table: &raw const NOWHERE,
                segments: 1,
                gathered: core::ptr::null_mut(),
                gathered_step: tile.gathered,
                segment: tile.segment,
                groups: tile.groups,
                blocks: 1,
                looped: 0,
            },
            tensors,
            code: if narrow { tile::narrow } else { tile::wide },
            finished,
            channel_groups: groups,
            group_weights,
            group_pixel: tile.inputs.wrapping_mul(x_bytes),
            pixel,
            y_bytes,
            out_pixel,
            positions,
        })
    }

    /// Runs `blocks` blocks of windows from `first` on, the last one with `count` windows; more than one block only if all are full. The
    /// caller knows that activations are readable to the end of their groups.
    #[inline(never)]
    fn blocks(&mut self, from: From, first: usize, blocks: usize, count: usize) -> Option<()> {
        let windows = blocks.wrapping_sub(1).wrapping_mul(BLOCK).wrapping_add(count);
        if blocks == 0 || first.checked_add(windows)? > self.positions {
            return None;
        }
        // `new` has measured the output: it holds that many positions.
        let output = self.tensors.output.as_mut_ptr();
        let out = output.wrapping_add(first.wrapping_mul(self.out_pixel));
        if let From::Input(at) = from {
            let input = self.tensors.input.map_or(output.cast_const(), <[u8]>::as_ptr);
            self.run.x = input.wrapping_add(at);
        }
        self.run.out_steps = steps(self.out_pixel, count);
        self.run.out = out;
        self.run.blocks = blocks;
        if !K::PARTS || self.channel_groups == 1 && self.finished == self.window.outputs {
            // SAFETY: the constants, columns, weights and outputs that `run` names were cut and measured by `new`; the
            // windows lie within the positions, as was checked above, and their activations are readable, as the caller knows.
            unsafe { (self.code)(&raw const self.run) };
            return Some(());
        }
        self.group_by_group(blocks, count)
    }

    /// As [`Layer::blocks`], for one group of channels after the other.
    #[inline(never)]
    fn group_by_group(&mut self, blocks: usize, count: usize) -> Option<()> {
        let Run { x, weights, constants, out, .. } = self.run;
        let outputs = self.tile.outputs;
        let mut channel = 0usize;
        for _ in 0..self.channel_groups {
            self.run.blocks = blocks;
            self.run.out = out.wrapping_add(channel.wrapping_mul(self.y_bytes));
            if self.finished == outputs {
                // SAFETY: as in `blocks`; weights, constants and outputs of all groups were measured.
                unsafe { (self.code)(&raw const self.run) };
            } else {
                self.blocks_with_sums(channel, self.run.out, blocks, count)?;
            }
            channel = channel.wrapping_add(outputs);
            self.run.x = self.run.x.wrapping_add(self.group_pixel);
            self.run.weights = self.run.weights.wrapping_add(self.group_weights);
            self.run.constants = self.run.constants.wrapping_add((outputs / 2).wrapping_mul(PAIR_WORDS));
        }
        (self.run.x, self.run.weights, self.run.constants) = (x, weights, constants);
        Some(())
    }

    /// As [`Layer::blocks`], of the group of channels whose first output is `channel`, where some pairs of outputs are finished here: the last one of an odd
    /// number, or all where no form takes them.
    #[inline(never)]
    fn blocks_with_sums(
        &mut self,
        first_channel: usize,
        out: *mut u8,
        blocks: usize,
        count: usize,
    ) -> Option<()> {
        let Run { weights: all_weights, constants, scale, fill, x, .. } = self.run;
        let mut out = out;
        for _ in 0..blocks {
            self.run.blocks = 1;
            self.run.out = out;
            if unknown(self.finished) > 0 {
                // SAFETY: as in `blocks`, for one of them.
                unsafe { (self.code)(&raw const self.run) };
                self.run.fill = tile::fill_nothing;
            }
            let mut channel = self.finished;
            while channel < self.tile.outputs {
                let [even, odd] = [channel, channel.wrapping_add(1)].map(|channel| {
                    let channel = first_channel.wrapping_add(channel);
                    self.linear.bias.get(channel).copied().unwrap_or(0)
                });
                let first = if K::narrow(self.tile) { narrow_start(even, odd) } else { [even, odd] };
                let mut sums = [0i32; 2 * BLOCK];
                let weights = channel.wrapping_mul(self.tile.groups).wrapping_mul(GROUP);
                self.run.weights = all_weights.wrapping_add(weights);
                self.run.constants = first.as_ptr();
                self.run.scale = Some(tile::keep_sums);
                self.run.out = sums.as_mut_ptr().cast();
                // SAFETY: as in `blocks`; this code reads two words of constants and writes six words.
                unsafe { (self.code)(&raw const self.run) };
                self.run.fill = tile::fill_nothing;
                let (evens, odds) = sums.split_at(BLOCK);
                let mut place = out.wrapping_add(channel.wrapping_mul(self.y_bytes));
                for (&even, &odd) in evens.iter().zip(odds).take(unknown(count)) {
                    let pair = if K::narrow(self.tile) {
                        let odd = odd >> 8;
                        [even.wrapping_sub(odd) >> 8, odd]
                    } else {
                        [even, odd]
                    };
                    let [even, odd] = pair;
                    let number = first_channel.wrapping_add(channel);
                    // SAFETY: outputs of the block's windows, which `blocks` has checked; the odd one if there is one.
                    unsafe {
                        finish(self.linear, number, even, place, self.y_bytes)?;
                        let (next, place) = (number.wrapping_add(1), place.wrapping_add(self.y_bytes));
                        if channel.wrapping_add(1) < self.tile.outputs {
                            finish(self.linear, next, odd, place, self.y_bytes)?;
                        }
                    }
                    place = place.wrapping_add(self.out_pixel);
                }
                channel = channel.wrapping_add(2);
            }
            (self.run.weights, self.run.constants) = (all_weights, constants);
            (self.run.scale, self.run.fill) = (scale, fill);
            self.run.x = self.run.x.wrapping_add(self.run.x_advance);
            out = out.wrapping_add(self.run.out_advance);
        }
        self.run.x = x;
        Some(())
    }

    /// Windows of one position each.
    #[inline(never)]
    fn pointwise(&mut self) -> Option<()> {
        // Groups that are not filled reach past the last positions: these are gathered.
        let beside = unknown(match self.window.inputs {
            _ if self.tile.inputs.is_multiple_of(GROUP) => 0usize,
            1 => 3,
            2 => 2,
            _ => 1,
        });
        let blocks = self.positions.saturating_sub(beside) / BLOCK;
        if blocks > 0 {
            self.blocks(From::Input(0), 0, blocks, BLOCK)?;
        }
        let mut first = blocks.wrapping_mul(BLOCK);
        while first < self.positions {
            let count = self.positions.wrapping_sub(first).min(BLOCK);
            let at = first.wrapping_mul(self.pixel);
            let mut from = From::Input(at);
            let mut step = self.pixel;
            if unknown(beside) > 0 {
                let mut source = self.tensors.input.unwrap_or(self.tensors.output).get(at..)?;
                step = self.tile.gathered;
                let mut rows = &mut *self.gathered;
                for _ in 0..unknown(count) {
                    let (x, rest) = source.split_at_checked(self.pixel)?;
                    let (row, others) = rows.split_at_mut_checked(step)?;
                    let row = row.get_mut(..x.len())?;
                    // SAFETY: both are slices of as many bytes, the source of a tensor, the destination of the scratch.
                    unsafe { gather::copy(row.as_mut_ptr(), x.as_ptr(), x.len()) };
                    (source, rows) = (rest, others);
                }
                self.run.x = self.gathered.as_ptr();
                from = From::Run;
            }
            self.run.x_steps = steps(step, count);
            self.blocks(from, first, 1, count)?;
            first = first.wrapping_add(count);
        }
        Some(())
    }

    /// Windows over rows that are copied, with their padding, before an output can replace them.
    #[inline(never)]
    fn windows(&mut self, input_zero: i16) -> Option<()> {
        let Window { batch, rows, columns, .. } = self.window;
        let column_step = columns.stride.wrapping_mul(self.pixel);
        let tap_step = columns.dilation.wrapping_mul(self.pixel);
        // 16-bit activations have the zero point 0.
        let zero = input_zero as u8;
        self.rows.fill(zero);
        self.run.x_advance = column_step.wrapping_mul(BLOCK);
        let (mut first, mut lanes) = (0usize, 0usize);
        for image in 0..*batch {
            // Rows are counted from the top of the padding; those before `next` are kept, or not needed any more.
            let mut next = 0usize;
            for row in 0..rows.output {
                let top = row.wrapping_mul(rows.stride);
                let end = top.wrapping_add(self.tile.rows);
                self.keep(image, next.max(top), end, zero)?;
                next = end;
                self.point(top, tap_step)?;
                let mut column = 0usize;
                while column < columns.output {
                    let blocks = columns.output.wrapping_sub(column) / BLOCK;
                    if lanes == 0 && blocks > 0 {
                        let windows = blocks.wrapping_mul(BLOCK);
                        self.side_by_side(column.wrapping_mul(column_step), column_step);
                        self.blocks(From::Run, first, blocks, BLOCK)?;
                        first = first.wrapping_add(windows);
                        column = column.wrapping_add(windows);
                        continue;
                    }
                    // Windows of several rows share a block only where there is one group of channels to gather.
                    if self.channel_groups > 1 {
                        let left = columns.output.wrapping_sub(column);
                        self.side_by_side(column.wrapping_mul(column_step), column_step);
                        self.run.x_steps = steps(column_step, left);
                        self.blocks(From::Run, first, 1, left)?;
                        first = first.wrapping_add(left);
                        break;
                    }
                    self.gather(column.wrapping_mul(column_step), lanes);
                    column = column.wrapping_add(1);
                    lanes = lanes.wrapping_add(1);
                    if lanes == BLOCK {
                        self.one_by_one();
                        self.blocks(From::Run, first, 1, BLOCK)?;
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
            self.blocks(From::Run, first, 1, lanes)?;
        }
        Some(())
    }

    /// Keeps the rows of an image from `next` to before `end`, counted from the top of the padding. In a frame of its own, which is gone when tiles run.
    #[inline(never)]
    fn keep(&mut self, image: usize, next: usize, end: usize, zero: u8) -> Option<()> {
        let Window { rows, columns, .. } = self.window;
        let row_bytes = columns.input.wrapping_mul(self.pixel);
        let image = image.wrapping_mul(rows.input).wrapping_mul(row_bytes);
        // Of the kept rows this is the input; windows may end before it does, or lie before it.
        let left = columns.pad.checked_mul(self.pixel)?.min(self.tile.row);
        let bytes = self.tile.row.wrapping_sub(left).min(row_bytes);
        let mut slot = next.checked_rem(self.tile.rows)?;
        for y in next..end {
            let kept = slot.wrapping_mul(self.tile.row).wrapping_add(left);
            let kept = self.rows.get_mut(kept..kept.wrapping_add(bytes))?;
            slot = slot.wrapping_add(1);
            if slot == self.tile.rows {
                slot = 0;
            }
            let y = y.wrapping_sub(rows.pad);
            if y < rows.input {
                let at = image.wrapping_add(y.wrapping_mul(row_bytes));
                let source =
                    self.tensors.input.unwrap_or(self.tensors.output).get(at..at.wrapping_add(bytes))?;
                // SAFETY: both are slices of `bytes` bytes, the source of a tensor, the destination of the scratch.
                unsafe { gather::copy(kept.as_mut_ptr(), source.as_ptr(), bytes) };
            } else {
                kept.fill(zero);
            }
        }
        Some(())
    }

    /// The next blocks take windows of one row, from byte `column` of the kept rows on.
    #[inline(never)]
    fn side_by_side(&mut self, column: usize, step: usize) {
        self.run.fill = self.tensors.fill;
        self.run.x = self.rows.as_ptr().wrapping_add(column);
        self.run.x_steps = steps(step, BLOCK);
        self.run.table = self.table.as_ptr();
        self.run.segments = self.tile.segments;
        if K::words(self.tile) {
            self.run.groups = self.tile.segment / GROUP;
        } else {
            self.run.gathered = self.gathered.as_mut_ptr();
        }
    }

    /// The next block takes the windows that were gathered.
    #[inline(never)]
    fn one_by_one(&mut self) {
        if K::words(self.tile) {
            self.run.fill = tile::fill_nothing;
            return;
        }
        self.run.fill = self.tensors.fill;
        self.run.x = self.gathered.as_ptr();
        self.run.x_steps = steps(self.tile.gathered, BLOCK);
        self.run.table = &raw const NOWHERE;
        self.run.segments = 1;
        self.run.gathered = core::ptr::null_mut();
    }

    /// Fills the table with the places, in the kept rows, of the segments of windows whose first row is `top`.
    #[inline(never)]
    fn point(&mut self, top: usize, tap_step: usize) -> Option<()> {
        let Window { rows, columns, .. } = *self.window;
        let reach = self.tile.rows;
        let across = if self.tile.segments == rows.kernel { 1 } else { columns.kernel };
        let end = reach.wrapping_mul(self.tile.row);
        // A window's rows are fewer than those that are kept: one turn back is enough.
        let step = if rows.kernel == 1 { 0 } else { rows.dilation.wrapping_mul(self.tile.row) };
        let mut row = top.checked_rem(reach)?.wrapping_mul(self.tile.row);
        let (mut at, mut left) = (row, across);
        for entry in self.table.iter_mut() {
            rolled();
            *entry = at as u32;
            at = at.wrapping_add(tap_step);
            left = left.wrapping_sub(1);
            if left == 0 {
                row = row.wrapping_add(step);
                if row >= end {
                    row = row.wrapping_sub(end);
                }
                (at, left) = (row, across);
            }
        }
        Some(())
    }

    /// Gets the activations of the window at byte `column` of the kept rows into a lane.
    #[inline(never)]
    fn gather(&mut self, column: usize, lane: usize) {
        let base = self.rows.as_ptr().wrapping_add(column);
        let table = self.table.as_ptr();
        let Tile { segment, segments, gathered, .. } = *self.tile;
        if K::words(self.tile) {
            let columns = self.run.columns.wrapping_add(lane.wrapping_mul(4));
            // SAFETY: `Tile` makes a kept row as long as the last window of a row reaches, and the columns as long as all segments of
            // a window are; the table was filled with rows that are kept.
            unsafe { gather::words(columns, base, table, segments, segment / GROUP) };
        } else {
            let place = self.gathered.as_mut_ptr().wrapping_add(lane.wrapping_mul(gathered));
            // SAFETY: as above; behind the kept rows and behind a gathered row is a word more.
            unsafe { gather::bytes(place, base, table, segments, segment) };
        }
    }
}

const _: () = assert!(GROUP_COLUMNS == 24);
