//! Depthwise convolution with windows of 3 x 3, stride 1 or 2.
//!
//! Sixteen channels at a time (all, if there are fewer), strips of four input rows are transposed to `[column][channel][row]`, so that four columns of a
//! channel are four words a constant distance apart: one gather. The inner product with the channel's weights, `lane = 4 * column + row`, is one output; weights
//! moved by one lane give the output below, by four lanes the one beside it. Outputs of stride 1 come in fours from two strips, 2 x 2 each.
//!
//! In place, rows that later strips need and earlier ones overwrite are kept beside the strips. Requantisation is that of [`super::product`], with a channel's constants
//! in general registers; a negative number is decremented by adding its sign times 1, or times 0 where nothing is shifted.

use core::arch::naked_asm;

use super::memory;
use super::product::{clamp, is_relu};
use crate::backend::spec::helium::{Depthwise3, VECTOR};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Channels of a slice.
const SLICE: usize = 16;

/// What [`transpose`] is told.
#[repr(C)]
struct Rows {
    /// Four rows.
    from: [*const u8; 4],
    /// Bytes that each moves on after a vector.
    step: [usize; 4],
    /// Bytes that are left of a row.
    left: usize,
    /// How many fewer there are after a vector.
    less: usize,
    /// Vectors.
    count: usize,
}

/// Interleaves vectors of four rows: byte `i` of row `r` goes to byte `4 * i + r`. Bytes beyond `left` become 0.
///
/// # Safety
/// Every row is readable at `step * v` over the bytes that are left at vector `v`, at most 16; `to` is writable over 64 bytes for each vector. There is at
/// least one vector.
#[unsafe(naked)]
unsafe extern "C" fn transpose(to: *mut u8, rows: *const Rows) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "ldm r1, {{r1-r11}}",
        "dls lr, r11",
        "1:",
        "vctp.8 r9",
        "vpstttt",
        "vldrbt.u8 q0, [r1]",
        "vldrbt.u8 q1, [r2]",
        "vldrbt.u8 q2, [r3]",
        "vldrbt.u8 q3, [r4]",
        "add r1, r5",
        "add r2, r6",
        "add r3, r7",
        "add r4, r8",
        "vst40.8 {{q0, q1, q2, q3}}, [r0]",
        "vst41.8 {{q0, q1, q2, q3}}, [r0]",
        "vst42.8 {{q0, q1, q2, q3}}, [r0]",
        "vst43.8 {{q0, q1, q2, q3}}, [r0]!",
        "subs.w r9, r9, r10",
        "le lr, 1b",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// Copies the first `bytes` of each of `count` vectors, `step` bytes apart, to vectors side by side.
///
/// # Safety
/// `from` is readable over `bytes`, at most 16, at each step, `to` writable over all vectors. There is at least one.
#[unsafe(naked)]
unsafe extern "C" fn copy_columns(to: *mut u8, from: *const u8, step: usize, count: usize, bytes: usize) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "ldr r7, [sp, #8]",
        "vctp.8 r7",
        "dls lr, r3",
        "1:",
        "vpst",
        "vldrbt.u8 q0, [r1]",
        "add r1, r2",
        "vstrb.8 q0, [r0], #16",
        "le lr, 1b",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// Takes the nine weights of up to 16 channels, `step` bytes from one tap to the next, to 16 bytes for each channel, `4 * column + row`.
///
/// # Safety
/// `from` is readable over `channels` bytes at each of nine steps, `to` writable over 256 bytes; those that get no weight stay.
#[unsafe(naked)]
unsafe extern "C" fn weights_by_channel(to: *mut u8, from: *const i8, step: usize, channels: usize) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "vctp.8 r3",
        "movs r12, #0",
        "vidup.u8 q1, r12, #1",
        "vshl.i8 q1, q1, #4",
        "movs r7, #3",
        "1:",
        "movs r3, #3",
        "dls lr, r3",
        "2:",
        "vpstt",
        "vldrbt.u8 q0, [r1]",
        "vstrbt.8 q0, [r0, q1]",
        "add r1, r2",
        "adds r0, #4",
        "le lr, 2b",
        "subs r0, #11",
        "subs r7, #1",
        "bne 1b",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// What a kernel is told; copied to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0, 4: see [`clamp`].
    clamp: [u32; 2],
    /// 8: zero point less least output.
    offset: i32,
    /// 12: whether the channel's shift is to the right. Set by the kernel.
    away: u32,
    /// 16: from the output pointer to the outputs of a tile, in the order of lanes: halfwords of stride 1, words of stride 2.
    places: [u32; 4],
    /// 32: from the strip pointer to the columns of a tile.
    columns: [u32; 4],
    /// 48: the channel's first column.
    strips: *const u8,
    /// 52: the channel's first output.
    output: *mut u8,
    /// 56: the channel's weights.
    weights: *const u8,
    /// 60, 64, 68: the channel's constants.
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i32,
    /// 72: zero point of the input.
    zero: i32,
    /// 76: channels that are left.
    channels: u32,
    /// 80: tiles.
    tiles: u32,
    /// 84: for each tile, from its strips and outputs to those of the next: bytes.
    moves: *const [u32; 2],
    /// 88: bytes of a strip.
    strip: u32,
    /// 92: stride 2: outputs of a tile.
    width: u32,
    /// 96: stride 2: strip bytes from a column to the next but one.
    step: u32,
    /// 100: shift to the left. Set by the kernel.
    left: u32,
}

/// Copies the frame, then goes through the channels (at label 1), with r1 at the first tile's strips, r3 at its outputs, r11 at the moves to the next
/// tiles, and the number of tiles in lr. A channel's constants: r5 bias less zero point times weights, r7 multiplier, r9 shift; r10 and r12 clamp. q1 has the
/// places of columns, q4 weights. `$once` comes before all channels, `$moved` loads further weights, `$shift` prepares shifts.
macro_rules! head {
    ([$($once:literal),*], [$($moved:literal),*], [$($shift:literal),*]) => {
        concat!(
            "push {{r4-r11, lr}}\n",
            "vpush {{d8-d15}}\n",
            "sub sp, #108\n",
            "ldm r0!, {{r1-r11}}\n",
            "stm sp, {{r1-r11}}\n",
            "add r12, sp, #44\n",
            "ldm r0!, {{r1-r11}}\n",
            "stm r12!, {{r1-r11}}\n",
            "ldm r0, {{r1-r4}}\n",
            "stm r12, {{r1-r4}}\n",
            "vldrw.u32 q1, [sp, #32]\n",
            "ldrd r10, r12, [sp, #0]\n",
            $($once, "\n",)*
            "1:\n",
            "ldr r0, [sp, #56]\n",
            $($moved, "\n",)*
            "vldrb.u8 q4, [r0], #16\n",
            "ldrd r2, r4, [sp, #60]\n",
            "ldr r6, [sp, #68]\n",
            "vmov.i8 q0, #1\n",
            "ldr r5, [r2], #4\n",
            "ldr r7, [r4], #4\n",
            "ldr r9, [r6], #4\n",
            "strd r0, r2, [sp, #56]\n",
            "strd r4, r6, [sp, #64]\n",
            "vmladav.s8 r0, q4, q0\n",
            "ldr r2, [sp, #72]\n",
            "mls r5, r0, r2, r5\n",
            $($shift, "\n",)*
            "ldrd r0, r11, [sp, #80]\n",
            "ldrd r1, r3, [sp, #48]\n",
            "dls lr, r0\n",
            "2:\n",
        )
    };
}

/// To the next tile, the next channel, the end.
macro_rules! tail {
    () => {
        concat!(
            "ldrd r0, r2, [r11], #8\n",
            "add r1, r0\n",
            "add r3, r2\n",
            "le lr, 2b\n",
            "ldrd r0, r2, [sp, #48]\n",
            "adds r0, #4\n",
            "adds r2, #1\n",
            "strd r0, r2, [sp, #48]\n",
            "ldr r0, [sp, #76]\n",
            "subs r0, #1\n",
            "str r0, [sp, #76]\n",
            "bne.w 1b\n",
            "add sp, #108\n",
            "vpop {{d8-d15}}\n",
            "pop {{r4-r11, pc}}\n",
        )
    };
}

/// Stride 1. A tile is two columns of four rows, from two strips, r8 bytes apart: 2 x 2 outputs in q2, the other 2 x 2 in q3. q4 to q7 are the weights for an output, the
/// one below, the one beside it, and the one beside that.
macro_rules! stride_1 {
    (
        $(#[$doc:meta])* $name:ident, [$($shift:literal),*], [$($left:literal),*], [$($away:literal),*], [$($offset:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The strips and the output hold all tiles of the frame's groups; weights and constants are there for its channels.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                head!(
                    ["ldr r8, [sp, #88]"],
                    ["subs r2, r0, #5", "vldrb.u8 q5, [r2, #4]", "vldrb.u8 q6, [r2, #1]", "vldrb.u8 q7, [r2]"],
                    [$($shift),*]
                ),
                "vldrw.u32 q0, [r1, q1]",
                "vmladav.s8 r0, q0, q4",
                "vmladav.s8 r2, q0, q5",
                "vmladav.s8 r4, q0, q6",
                "vmladav.s8 r6, q0, q7",
                "vmov q2[2], q2[0], r0, r4",
                "vmov q2[3], q2[1], r2, r6",
                "adds.w r0, r1, r8",
                "vldrw.u32 q0, [r0, q1]",
                "vmladav.s8 r0, q0, q4",
                "vmladav.s8 r2, q0, q5",
                "vmladav.s8 r4, q0, q6",
                "vmladav.s8 r6, q0, q7",
                "vmov q3[2], q3[0], r0, r4",
                "vmov q3[3], q3[1], r2, r6",
                "vadd.i32 q2, q2, r5",
                "vadd.i32 q3, q3, r5",
                $($left,)*
                "vqrdmulh.s32 q2, q2, r7",
                "vqrdmulh.s32 q3, q3, r7",
                $($away,)*
                "vrshl.s32 q2, r9",
                "vrshl.s32 q3, r9",
                $($offset,)*
                "vqmovunb.s32 q2, q2",
                "vqmovunt.s32 q2, q3",
                "vldrh.u16 q0, [sp, #16]",
                "vqadd.u16 q2, q2, r10",
                "vadd.i16 q2, q2, r12",
                "vstrb.16 q2, [r3, q0]",
                tail!(),
                ".cpu cortex-m33",
            )
        }
    };
}

stride_1!(
    /// Of layers whose least output is the zero point and whose shifts are not positive.
    stride_1_relu, [], [], [], []
);
stride_1!(
    /// Of any layer.
    stride_1_any,
    [
        "movs r0, #0",
        "cmp r9, #0",
        "ite gt",
        "movgt r2, r9",
        "movle r2, r0",
        "it gt",
        "movgt r9, r0",
        "lsr r0, r9, #31",
        "str r0, [sp, #12]",
        "str r2, [sp, #100]"
    ],
    ["ldr r0, [sp, #100]", "vshl.s32 q2, r0", "vshl.s32 q3, r0"],
    [
        "ldrd r4, r6, [sp, #8]",
        "vshr.s32 q0, q2, #31",
        "vmla.s32 q2, q0, r6",
        "vshr.s32 q0, q3, #31",
        "vmla.s32 q3, q0, r6"
    ],
    ["vqadd.s32 q2, q2, r4", "vqadd.s32 q3, q3, r4"]
);

/// Stride 2. A tile is four outputs of one row (fewer, if a row has fewer: the predicate), each from a gather of its own. q3 has the places of the outputs, q5 to q7
/// those of the columns under the second to fourth.
macro_rules! stride_2 {
    (
        $(#[$doc:meta])* $name:ident, [$($shift:literal),*], [$($left:literal),*], [$($away:literal),*], [$($offset:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The strips hold all tiles of the frame's groups and the output their outputs that exist; weights and constants are there for its channels.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                head!(
                    [
                        "vldrw.u32 q3, [sp, #16]",
                        "ldrd r0, r2, [sp, #92]",
                        "vctp.32 r0",
                        "vadd.i32 q5, q1, r2",
                        "vadd.i32 q6, q5, r2",
                        "vadd.i32 q7, q6, r2"
                    ],
                    [],
                    [$($shift),*]
                ),
                "vldrw.u32 q0, [r1, q1]",
                "vmladav.s8 r0, q0, q4",
                "vldrw.u32 q0, [r1, q5]",
                "vmladav.s8 r2, q0, q4",
                "vldrw.u32 q0, [r1, q6]",
                "vmladav.s8 r4, q0, q4",
                "vldrw.u32 q0, [r1, q7]",
                "vmladav.s8 r6, q0, q4",
                "vmov q2[2], q2[0], r0, r4",
                "vmov q2[3], q2[1], r2, r6",
                "vadd.i32 q2, q2, r5",
                $($left,)*
                "vqrdmulh.s32 q2, q2, r7",
                $($away,)*
                "vrshl.s32 q2, r9",
                $($offset,)*
                "vqmovunb.s32 q2, q2",
                "vqadd.u16 q2, q2, r10",
                "vadd.i16 q2, q2, r12",
                "vpst",
                "vstrbt.32 q2, [r3, q3]",
                tail!(),
                ".cpu cortex-m33",
            )
        }
    };
}

stride_2!(
    /// Of layers whose least output is the zero point and whose shifts are not positive.
    stride_2_relu, [], [], [], []
);
stride_2!(
    /// Of any layer.
    stride_2_any,
    [
        "movs r0, #0",
        "cmp r9, #0",
        "ite gt",
        "movgt r2, r9",
        "movle r2, r0",
        "it gt",
        "movgt r9, r0",
        "lsr r0, r9, #31",
        "str r0, [sp, #12]",
        "str r2, [sp, #100]"
    ],
    ["ldr r0, [sp, #100]", "vshl.s32 q2, r0"],
    ["ldrd r4, r6, [sp, #8]", "vshr.s32 q0, q2, #31", "vmla.s32 q2, q0, r6"],
    ["vqadd.s32 q2, q2, r4"]
);

/// Runs the convolution. Without `input` the output holds it.
#[inline(never)]
pub fn depthwise3(
    plan: &Depthwise3,
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[u8]>,
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, .. } = *window;
    let stride = rows.stride;
    let line_in = columns.input.checked_mul(channels)?;
    let line_out = columns.output.checked_mul(channels)?;
    let image_out = rows.output.checked_mul(line_out)?;
    if linear.weights.len() < channels.checked_mul(9)?
        || linear.bias.len() < channels
        || linear.multiplier.len() < channels
        || linear.shift.len() < channels
    {
        return None;
    }
    let relu = is_relu(linear);
    let kernel: unsafe extern "C" fn(*const Frame) = match (stride, relu) {
        (1, true) => stride_1_relu,
        (1, false) => stride_1_any,
        (_, true) => stride_2_relu,
        (_, false) => stride_2_any,
    };
    let (strips, rest) = scratch.split_at_mut_checked(plan.strips())?;
    let (weights, rest) = rest.split_at_mut_checked(VECTOR * (SLICE + 1))?;
    let (zeros, rest) = rest.split_at_mut_checked(VECTOR)?;
    let (kept, rest) = rest.split_at_mut_checked(plan.kept())?;
    let moves: &mut [[u32; 2]] = bytemuck::try_cast_slice_mut(rest.get_mut(..plan.moves())?).ok()?;
    let zero = linear.input_zero as u8;
    memory::fill(zeros, zero);
    memory::fill(strips, zero);
    memory::fill(weights, 0);
    let flat = channels <= SLICE;
    let slice = channels.min(SLICE);
    let column = slice.wrapping_mul(4);
    let used = columns.input.min(plan.columns.saturating_sub(columns.pad));
    let first_column = columns.pad.wrapping_mul(column);
    // Behind the last column, which a flat transposition overwrites.
    let behind = first_column.wrapping_add(used.wrapping_mul(column));
    let ragged = flat && used.wrapping_mul(channels) % VECTOR != 0;
    let output_rows = if stride == 1 { 4 } else { 1 };
    let mut frame = Frame {
        clamp: clamp(linear),
        offset: linear.output_zero.wrapping_sub(linear.low),
        away: 0,
        places: [0; 4],
        columns: [0, 1, 2, 3].map(|k: u32| k.wrapping_mul(column as u32)),
        strips: strips.as_ptr(),
        output: core::ptr::null_mut(),
        weights: weights.as_ptr().wrapping_add(VECTOR),
        bias: core::ptr::null(),
        multiplier: core::ptr::null(),
        shift: core::ptr::null(),
        zero: linear.input_zero.into(),
        channels: 0,
        tiles: 0,
        moves: moves.as_ptr(),
        strip: plan.strip as u32,
        width: columns.output.min(4) as u32,
        step: column.wrapping_mul(2) as u32,
        left: 0,
    };
    // Where tiles are, by group and column; the last one of a row ends with it, and overlaps the one before.
    let group_strips = if stride == 1 { plan.strip.wrapping_mul(2) } else { plan.strip };
    let group_outputs = line_out.wrapping_mul(output_rows);
    let side = if stride == 1 { 2usize } else { 4 };
    let (mut group, mut across) = (0usize, 0usize);
    let place = |group: usize, across: usize| {
        let strips = group.wrapping_mul(group_strips);
        let output = group.wrapping_mul(group_outputs);
        [
            strips.wrapping_add(across.wrapping_mul(column).wrapping_mul(stride)),
            output.wrapping_add(across.wrapping_mul(channels)),
        ]
    };
    let last = columns.output.saturating_sub(side);
    let mut here = [0usize; 2];
    for step in moves.iter_mut() {
        if across == last {
            (group, across) = (group.wrapping_add(1), 0);
        } else {
            across = across.wrapping_add(side).min(last);
        }
        let next = place(group, across);
        *step = [next[0].wrapping_sub(here[0]) as u32, next[1].wrapping_sub(here[1]) as u32];
        here = next;
    }
    let most = rows.output.saturating_sub(2);
    for picture in 0..batch {
        let input_at = picture.wrapping_mul(window.image());
        let (_, image) = output.split_at_mut_checked(picture.wrapping_mul(image_out))?;
        let image = image.get_mut(..image_out)?;
        let source = match input {
            Some(input) => Some(input.get(input_at..)?.get(..window.image())?),
            None => None,
        };
        let mut channel = 0usize;
        while channel < channels {
            let count = slice.min(channels.wrapping_sub(channel));
            // SAFETY: there are nine weights of each channel, as checked above, and `weights` has 16 vectors behind its first.
            unsafe {
                let from = linear.weights.as_ptr().wrapping_add(channel);
                weights_by_channel(weights.as_mut_ptr().wrapping_add(VECTOR), from, channels, count);
            }
            let mut done = 0usize;
            while done < rows.output {
                let left = rows.output.wrapping_sub(done);
                let groups = left.checked_div(output_rows)?.min(plan.groups);
                // Fewer rows than a group's: its strips overlap.
                let (groups, next) = match groups {
                    0 => (1, rows.output),
                    _ => (groups, done.wrapping_add(groups.wrapping_mul(output_rows))),
                };
                let first = if stride == 1 { done.min(most) } else { done };
                let mut second = first;
                let strip_count = if stride == 1 { groups.wrapping_mul(2) } else { groups };
                let mut place = strips.as_mut_ptr();
                let held: &[u8] = source.unwrap_or(image);
                for strip in 0..strip_count {
                    let base = if stride == 1 {
                        done.wrapping_add(strip.wrapping_mul(2)).min(most)
                    } else {
                        done.wrapping_add(strip).wrapping_mul(2)
                    };
                    if strip == 1 {
                        second = base;
                    }
                    let mut from = [zeros.as_ptr(); 4];
                    let mut step = [0usize; 4];
                    let taken = if stride == 1 { 4 } else { 3 };
                    let across = if flat { VECTOR } else { channels };
                    for (j, (from, step)) in from.iter_mut().zip(&mut step).take(taken).enumerate() {
                        let y = base.wrapping_add(j).wrapping_sub(rows.pad);
                        if y >= rows.input {
                            continue;
                        }
                        if source.is_none() && y < done {
                            // Overwritten: among the rows that were kept, the last of which is the one before `done`.
                            let back = done.wrapping_sub(y);
                            let at = plan.kept().checked_sub(back.checked_mul(plan.kept_row)?)?;
                            *from = kept.get(at..)?.get(..plan.kept_row)?.as_ptr();
                            *step = VECTOR;
                        } else {
                            *from = held.get(y.wrapping_mul(line_in)..)?.get(..line_in)?.as_ptr();
                            *from = from.wrapping_add(channel);
                            *step = across;
                        }
                    }
                    let bytes = used.wrapping_mul(channels);
                    let job = Rows {
                        from,
                        step,
                        left: if flat { bytes } else { count },
                        less: if flat { VECTOR } else { 0 },
                        count: if flat { bytes.div_ceil(VECTOR) } else { used },
                    };
                    // SAFETY: a row is `used` columns of an input row, of a kept one, or one vector of zeros that is read again and again; `plan` has
                    // made strips long enough for all columns and one vector more.
                    unsafe { transpose(place.wrapping_add(first_column), &job) }
                    place = place.wrapping_add(plan.strip);
                    if ragged {
                        let start = strip.wrapping_mul(plan.strip);
                        let end = start.wrapping_add(plan.columns.wrapping_mul(column));
                        memory::fill(strips.get_mut(start.wrapping_add(behind)..end)?, zero);
                    }
                }
                if source.is_none() && next < rows.output {
                    let keep = rows.pad.wrapping_add(1);
                    for k in 0..keep {
                        let y = next.wrapping_sub(keep).wrapping_add(k);
                        let row = image.get(y.wrapping_mul(line_in)..)?.get(..line_in)?;
                        let place =
                            kept.get_mut(k.wrapping_mul(plan.kept_row)..)?.get_mut(..plan.kept_row)?;
                        if flat {
                            memory::copy(place, row);
                        } else {
                            let from = row.as_ptr().wrapping_add(channel);
                            // SAFETY: the row has `columns.input` columns of `channels`, of which `count` from `channel` on are read; the place
                            // has a vector for each column.
                            unsafe { copy_columns(place.as_mut_ptr(), from, channels, columns.input, count) }
                        }
                    }
                }
                if stride == 1 {
                    let line = line_out as u32;
                    let far = (second.wrapping_sub(first) as u32).wrapping_mul(line);
                    let pair = |at: u32| at & 0xFFFF | at.wrapping_add(far) << 16;
                    let side = channels as u32;
                    frame.places = [0, line, side, line.wrapping_add(side)].map(pair);
                } else {
                    frame.places = [0, 1, 2, 3].map(|k: u32| k.wrapping_mul(channels as u32));
                }
                frame.strips = strips.as_ptr();
                frame.weights = weights.as_ptr().wrapping_add(VECTOR);
                frame.output = image.as_mut_ptr().wrapping_add(first.wrapping_mul(line_out));
                frame.output = frame.output.wrapping_add(channel);
                frame.bias = linear.bias.as_ptr().wrapping_add(channel);
                frame.multiplier = linear.multiplier.as_ptr().wrapping_add(channel);
                frame.shift = linear.shift.as_ptr().wrapping_add(channel);
                frame.channels = count as u32;
                frame.tiles = groups.wrapping_mul(plan.tiles) as u32;
                // SAFETY: `plan` takes images of two rows and columns at least where a tile has as many; so all tiles lie within rows `first` to
                // `next` of the image, and the strips hold their inputs; offsets of halfwords suffice, as `plan` has checked; `moves` has an entry for each tile. Channels `channel` to
                // `channel + count` have weights and constants, as checked above.
                unsafe { kernel(&frame) }
                done = next;
            }
            channel = channel.wrapping_add(slice);
        }
    }
    Some(())
}
