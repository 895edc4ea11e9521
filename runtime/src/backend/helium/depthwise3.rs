//! Depthwise convolution with windows of at most 3 x 3.
//!
//! Sixteen channels at a time (all, if there are fewer), strips of four input rows are transposed to `[column][channel][row]`, so that four columns of a
//! channel are four words a constant distance apart: one gather. The inner product with the channel's weights, `lane = 4 * column + row`, is one output; weights
//! moved by one lane give the output below, by four lanes the one beside it. Outputs of stride 1 come in two halves of 2 x 2, above each other or side by side, or of four columns
//! of a single row; those of other strides each have a gather of their own. All outputs of an input channel are made from the same strips.
//!
//! In place, rows that later strips need and earlier ones overwrite are kept beside the strips. Requantisation is that of `product::requantize`, with a channel's constants
//! in general registers, so that `VQRDMLAH` adds the product to a vector of signs; channels without a shift to the right take another way.

use core::arch::naked_asm;

use super::memory;
use super::product::{clamp, is_linear, is_relu};
use super::strips::{Rows, copy_columns, transpose, weights_by_channel};
use crate::backend::spec::helium::{Depthwise3, Tile, VECTOR};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Bytes of 16 channels' weights behind a vector of zeros.
const WEIGHTS: usize = 17 * VECTOR;

/// What a kernel is told; copied to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0, 4: see [`clamp`]; of layers that [`is_linear`] takes first the zero point.
    clamp: [u32; 2],
    /// 8: zero point less least output.
    offset: i32,
    /// 12: 0 if the channel's shift is to the right, else the shift with bit 8 set. Set by the kernel.
    shift_left: u32,
    /// 16: from the output pointer to the outputs of a tile, in the order of lanes: halfwords of eight, words of four.
    places: [u32; 4],
    /// 32: from the strip pointer to the columns of a tile.
    columns: [u32; 4],
    /// 48: outputs that are left of the current input channel.
    left: u32,
    /// 52: outputs that are left.
    outputs: u32,
    /// 56: the channel's weights.
    weights: *const u8,
    /// 60, 64, 68: the channel's constants.
    bias: *const i32,
    multipliers: *const i32,
    shift: *const i32,
    /// 72: zero point of the input.
    zero: i32,
    /// 76: outputs of an input channel.
    multiplier: u32,
    /// 80: tiles.
    tiles: u32,
    /// 84: for each tile, from its strips and outputs to those of the next, from the last to those of the first: bytes.
    moves: *const [u32; 2],
    /// 88: of eight: from the first half of a tile to the other: bytes of strips.
    far: u32,
    /// 92: of four: outputs of a tile.
    width: u32,
    /// 96: strip bytes between gathers: rows of stride 1: of two columns, else of a stride.
    step: u32,
    /// 100: zero point of the output.
    output_zero: i32,
    /// 104: the first input channel's first column. Not copied.
    strips: *const u8,
    /// 108: the first output. Not copied.
    output: *mut u8,
}

/// Copies the frame, then goes through the output channels (at label 1), with r1 at the first tile's strips, r3 at its outputs, r11 at the moves to the next
/// tiles, and the number of tiles in lr. The last move leads back to the first tile. A channel's constants: r5 bias less zero point times weights, r7 multiplier, r9 shift; r10 and r12 clamp. q1 has the
/// places of columns, q4 weights. `$once` comes before all channels, `$moved` loads further weights, `$shift` prepares shifts.
macro_rules! head {
    ([$($once:literal),*], [$($moved:literal),*], [$($shift:literal),*]) => {
        concat!(
            "push {{r4-r11, lr}}\n",
            "vpush {{d8-d15}}\n",
            "sub sp, #104\n",
            "ldm r0!, {{r1-r11}}\n",
            "stm sp, {{r1-r11}}\n",
            "add r12, sp, #44\n",
            "ldm r0!, {{r1-r11}}\n",
            "stm r12!, {{r1-r11}}\n",
            "ldm r0!, {{r1-r4}}\n",
            "stm r12, {{r1-r4}}\n",
            "ldrd r1, r3, [r0]\n",
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
            "dls lr, r0\n",
            "2:\n",
        )
    };
}

/// To the next tile, the next output channel and, where it is another, its input channel, the end.
macro_rules! tail {
    () => {
        concat!(
            "ldrd r0, r2, [r11], #8\n",
            "add r1, r0\n",
            "add r3, r2\n",
            "le lr, 2b\n",
            "ldrd r0, r2, [sp, #48]\n",
            "adds r3, #1\n",
            "subs r0, #1\n",
            "itt eq\n",
            "ldreq r0, [sp, #76]\n",
            "addeq r1, #4\n",
            "subs r2, #1\n",
            "strd r0, r2, [sp, #48]\n",
            "bne.w 1b\n",
            "add sp, #104\n",
            "vpop {{d8-d15}}\n",
            "pop {{r4-r11, pc}}\n",
        )
    };
}

/// A tile is eight outputs, four in q2 and four in q3, from strips r8 bytes apart. `$near` are the sums of the first four, in r0, r2, r4 and r6, from strips
/// at r1; `$far` the same of the others, from strips at r0.
macro_rules! eight {
    (
        $(#[$doc:meta])* $name:ident, [$($once:literal),*], [$($moved:literal),*], [$($near:literal),*], [$($far:literal),*],
        [$($shift:literal),*], [$($scale:literal),*], [$($narrow:literal),*], [$values:literal, $places:literal]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The strips and the output hold all tiles of the frame's groups; weights and constants are there for its channels.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                head!([$($once),*], [$($moved),*], [$($shift),*]),
                $($near,)*
                "vmov q2[2], q2[0], r0, r4",
                "vmov q2[3], q2[1], r2, r6",
                "adds.w r0, r1, r8",
                $($far,)*
                "vmov q3[2], q3[0], r0, r4",
                "vmov q3[3], q3[1], r2, r6",
                "vadd.i32 q2, q2, r5",
                "vadd.i32 q3, q3, r5",
                $($scale,)*
                concat!("vldrh.u16 ", $places, ", [sp, #16]"),
                $($narrow,)*
                concat!("vstrb.16 ", $values, ", [r3, ", $places, "]"),
                tail!(),
                ".cpu cortex-m33",
            )
        }
    };
}

/// Kernels of tiles of eight outputs, for layers that [`is_relu`] or [`is_linear`] takes, and for any layer.
macro_rules! eight_kernels {
    ($relu:ident, $linear:ident, $any:ident, $($sums:tt),*) => {
        eight!(
            /// Of layers that [`is_relu`] takes.
            $relu, $($sums),*, [],
            ["vqrdmulh.s32 q2, q2, r7", "vqrdmulh.s32 q3, q3, r7", "vrshl.s32 q2, r9", "vrshl.s32 q3, r9"],
            ["vqmovunb.s32 q2, q2", "vqmovunt.s32 q2, q3", "vqadd.u16 q2, q2, r10", "vadd.i16 q2, q2, r12"],
            ["q2", "q0"]
        );
        eight!(
            /// Of layers that [`is_linear`] takes; r10 has the zero point.
            $linear, $($sums),*, [],
            [
                "vshr.s32 q0, q2, #31",
                "vqrdmlah.s32 q0, q2, r7",
                "vshr.s32 q2, q3, #31",
                "vqrdmlah.s32 q2, q3, r7",
                "vrshl.s32 q0, r9",
                "vrshl.s32 q2, r9"
            ],
            ["vqmovnb.s32 q0, q0", "vqmovnt.s32 q0, q2", "vqadd.s16 q0, q0, r10", "vqmovnb.s16 q0, q0"],
            ["q0", "q3"]
        );
        eight!(
            /// Of any layer.
            $any, $($sums),*,
            ["orr r0, r9, #256", "cmp r9, #0", "it lt", "movlt r0, #0", "str r0, [sp, #12]"],
            [
                "ldr r0, [sp, #12]",
                "ldr r4, [sp, #8]",
                "cbz r0, 3f",
                "vshl.s32 q2, r0",
                "vshl.s32 q3, r0",
                "vqrdmulh.s32 q0, q2, r7",
                "vqrdmulh.s32 q2, q3, r7",
                // The zero point there and back: where it makes a result wrap, that stays.
                "ldr r0, [sp, #100]",
                "vadd.i32 q0, q0, r0",
                "vadd.i32 q2, q2, r0",
                "vqsub.s32 q0, q0, r0",
                "vqsub.s32 q2, q2, r0",
                "b 4f",
                "3:",
                "vshr.s32 q0, q2, #31",
                "vqrdmlah.s32 q0, q2, r7",
                "vshr.s32 q2, q3, #31",
                "vqrdmlah.s32 q2, q3, r7",
                "vrshl.s32 q0, r9",
                "vrshl.s32 q2, r9",
                "4:",
                "vqadd.s32 q0, q0, r4",
                "vqadd.s32 q2, q2, r4"
            ],
            ["vqmovunb.s32 q0, q0", "vqmovunt.s32 q0, q2", "vqadd.u16 q0, q0, r10", "vadd.i16 q0, q0, r12"],
            ["q0", "q3"]
        );
    };
}

// Two halves of 2 x 2 outputs, each from one gather. q4 to q7 are the weights for an output, the one below, the one beside it, and the one beside that.
eight_kernels!(
    stride_1_relu,
    stride_1_linear,
    stride_1_any,
    ["ldr r8, [sp, #88]"],
    ["subs r2, r0, #5", "vldrb.u8 q5, [r2, #4]", "vldrb.u8 q6, [r2, #1]", "vldrb.u8 q7, [r2]"],
    [
        "vldrw.u32 q0, [r1, q1]",
        "vmladav.s8 r0, q0, q4",
        "vmladav.s8 r2, q0, q5",
        "vmladav.s8 r4, q0, q6",
        "vmladav.s8 r6, q0, q7"
    ],
    [
        "vldrw.u32 q0, [r0, q1]",
        "vmladav.s8 r0, q0, q4",
        "vmladav.s8 r2, q0, q5",
        "vmladav.s8 r4, q0, q6",
        "vmladav.s8 r6, q0, q7"
    ]
);

// Two halves of four outputs of a row, each from two gathers. q4 and q6 are the weights for an output and the one beside it, q5 has the places of the columns under the
// third output.
eight_kernels!(
    row_relu,
    row_linear,
    row_any,
    ["ldr r8, [sp, #88]", "ldr r0, [sp, #96]", "vadd.i32 q5, q1, r0"],
    ["subs r2, r0, #4", "vldrb.u8 q6, [r2]"],
    [
        "vldrw.u32 q0, [r1, q1]",
        "vmladav.s8 r0, q0, q4",
        "vmladav.s8 r2, q0, q6",
        "vldrw.u32 q0, [r1, q5]",
        "vmladav.s8 r4, q0, q4",
        "vmladav.s8 r6, q0, q6"
    ],
    [
        "vldrw.u32 q0, [r0, q5]",
        "vmladav.s8 r4, q0, q4",
        "vmladav.s8 r6, q0, q6",
        "vldrw.u32 q0, [r0, q1]",
        "vmladav.s8 r0, q0, q4",
        "vmladav.s8 r2, q0, q6"
    ]
);

// Two halves of four outputs of a row, each output from a gather of its own. q5 to q7 have the places of the columns under the second to fourth.
eight_kernels!(
    wide_relu,
    wide_linear,
    wide_any,
    [
        "ldr r8, [sp, #88]",
        "ldr r0, [sp, #96]",
        "vadd.i32 q5, q1, r0",
        "vadd.i32 q6, q5, r0",
        "vadd.i32 q7, q6, r0"
    ],
    [],
    [
        "vldrw.u32 q0, [r1, q1]",
        "vmladav.s8 r0, q0, q4",
        "vldrw.u32 q0, [r1, q5]",
        "vmladav.s8 r2, q0, q4",
        "vldrw.u32 q0, [r1, q6]",
        "vmladav.s8 r4, q0, q4",
        "vldrw.u32 q0, [r1, q7]",
        "vmladav.s8 r6, q0, q4"
    ],
    [
        "vldrw.u32 q0, [r0, q7]",
        "vmladav.s8 r6, q0, q4",
        "vldrw.u32 q0, [r0, q6]",
        "vmladav.s8 r4, q0, q4",
        "vldrw.u32 q0, [r0, q5]",
        "vmladav.s8 r2, q0, q4",
        "vldrw.u32 q0, [r0, q1]",
        "vmladav.s8 r0, q0, q4"
    ]
);

/// Any stride. A tile is four outputs of one row (fewer, if a row has fewer: the predicate), each from a gather of its own. q3 has the places of the outputs, q5 to q7
/// those of the columns under the second to fourth.
macro_rules! apart {
    (
        $(#[$doc:meta])* $name:ident, [$($shift:literal),*], [$($scale:literal),*], [$($narrow:literal),*], $values:literal
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
                $($scale,)*
                $($narrow,)*
                "vpst",
                concat!("vstrbt.32 ", $values, ", [r3, q3]"),
                tail!(),
                ".cpu cortex-m33",
            )
        }
    };
}

apart!(
    /// Of layers that [`is_relu`] takes.
    apart_relu, [], ["vqrdmulh.s32 q2, q2, r7", "vrshl.s32 q2, r9"],
    ["vqmovunb.s32 q2, q2", "vqadd.u16 q2, q2, r10", "vadd.i16 q2, q2, r12"], "q2"
);
apart!(
    /// Of layers that [`is_linear`] takes; r10 has the zero point.
    apart_linear, [], ["vshr.s32 q0, q2, #31", "vqrdmlah.s32 q0, q2, r7", "vrshl.s32 q0, r9"],
    ["vqmovnb.s32 q0, q0", "vqadd.s16 q0, q0, r10", "vqmovnb.s16 q0, q0"], "q0"
);
apart!(
    /// Of any layer.
    apart_any,
    ["ldr r8, [sp, #8]", "orr r0, r9, #256", "cmp r9, #0", "it lt", "movlt r0, #0", "str r0, [sp, #12]"],
    [
        "ldr r0, [sp, #12]",
        "cbz r0, 3f",
        "vshl.s32 q2, r0",
        "vqrdmulh.s32 q0, q2, r7",
        "ldr r0, [sp, #100]",
        "vadd.i32 q0, q0, r0",
        "vqsub.s32 q0, q0, r0",
        "b 4f",
        "3:",
        "vshr.s32 q0, q2, #31",
        "vqrdmlah.s32 q0, q2, r7",
        "vrshl.s32 q0, r9",
        "4:",
        "vqadd.s32 q0, q0, r8"
    ],
    ["vqmovunb.s32 q0, q0", "vqadd.u16 q0, q0, r10", "vadd.i16 q0, q0, r12"],
    "q0"
);

/// Extents of a layer, in bytes where nothing else is said.
struct Layer<'a> {
    plan: &'a Depthwise3,
    window: &'a Window,
    /// Rows of input and output.
    line_in: usize,
    line_out: usize,
    /// A column of a strip.
    column: usize,
    /// Columns of the input that strips take.
    used: usize,
    /// Whether all channels are one slice, and rows are transposed as they lie.
    flat: bool,
    zero: u8,
}

/// The kernels of a tile.
pub struct Kernels {
    /// Of layers that [`is_relu`] takes.
    relu: unsafe extern "C" fn(*const Frame),
    /// Of layers that [`is_linear`] takes.
    linear: unsafe extern "C" fn(*const Frame),
    /// Of any layer.
    any: unsafe extern "C" fn(*const Frame),
}

/// For [`Tile::Tall`] and [`Tile::Square`].
pub const STRIDE_1: Kernels = Kernels { relu: stride_1_relu, linear: stride_1_linear, any: stride_1_any };
/// For [`Tile::Row`].
pub const ROW: Kernels = Kernels { relu: row_relu, linear: row_linear, any: row_any };
/// For [`Tile::Wide`].
pub const WIDE: Kernels = Kernels { relu: wide_relu, linear: wide_linear, any: wide_any };
/// For [`Tile::Apart`].
pub const APART: Kernels = Kernels { relu: apart_relu, linear: apart_linear, any: apart_any };

impl Layer<'_> {
    /// The first output row of a group; the last group ends with the image, and may overlap the one before.
    fn group_row(&self, group: usize) -> usize {
        let rows = self.plan.tile.rows();
        group.wrapping_mul(rows).min(self.window.rows.output.saturating_sub(rows))
    }

    /// From the first half of a tile to the other, which may overlap it: rows, columns.
    fn second(&self) -> [usize; 2] {
        let within = |output: usize, half: usize| output.saturating_sub(half).min(half);
        match self.plan.tile {
            Tile::Tall => [within(self.window.rows.output, 2), 0],
            Tile::Square => [0, within(self.window.columns.output, 2)],
            Tile::Row | Tile::Wide => [0, within(self.window.columns.output, 4)],
            Tile::Apart => [0, 0],
        }
    }

    /// Moves through the tiles of `groups` groups, from the group `first` on, and back to the first. The last tile of a row ends with it, and may overlap the one before.
    fn list(&self, first: usize, groups: usize, moves: &mut [[u32; 2]]) {
        let side = self.plan.tile.columns();
        let last = self.window.columns.output.saturating_sub(side);
        let strips = self.plan.group();
        let start = self.group_row(first);
        let (mut group, mut across) = (0usize, 0usize);
        let mut here = [0u32; 2];
        let count = groups.wrapping_mul(self.plan.tiles);
        for (done, step) in (1..).zip(moves.iter_mut().take(count)) {
            if across == last {
                (group, across) = (group.wrapping_add(1), 0);
            } else {
                across = across.wrapping_add(side).min(last);
            }
            let row = self.group_row(first.wrapping_add(group)).wrapping_sub(start);
            let strip = across.wrapping_mul(self.column).wrapping_mul(self.window.columns.stride);
            let output = across.wrapping_mul(self.window.outputs);
            let next = match done == count {
                true => [0, 0],
                false => [
                    group.wrapping_mul(strips).wrapping_add(strip) as u32,
                    row.wrapping_mul(self.line_out).wrapping_add(output) as u32,
                ],
            };
            *step = [next[0].wrapping_sub(here[0]), next[1].wrapping_sub(here[1])];
            here = next;
        }
    }

    /// Sets the padding beside the rows in strips.
    fn pad(&self, mut strips: &mut [u8]) {
        let start = self.window.columns.pad.wrapping_mul(self.column);
        while let Some((strip, rest)) = strips.split_at_mut_checked(self.plan.strip) {
            if let Some((before, rows)) = strip.split_at_mut_checked(start) {
                memory::fill(before, self.zero);
                if let Some(behind) = rows.get_mut(self.used.wrapping_mul(self.column)..) {
                    memory::fill(behind, self.zero);
                }
            }
            strips = rest;
        }
    }

    /// Transposes the rows under an output row, for `count` channels from `channel` on, to a strip. Rows before `done` are taken from `kept`, whose last row is the
    /// one before `done`.
    #[inline(always)]
    fn load(
        &self,
        row: usize,
        [channel, count]: [usize; 2],
        image: &[u8],
        (kept, done): (&[u8], usize),
        padding: &[u8; VECTOR],
        strip: &mut [u8],
    ) -> Option<()> {
        let strip = strip.get_mut(..self.plan.strip)?;
        if image.len() != self.line_in.wrapping_mul(self.window.rows.input) {
            return None;
        }
        let first = row.wrapping_mul(self.window.rows.stride).wrapping_sub(self.window.rows.pad);
        let taken = if self.plan.tile.rows() == 1 { 3 } else { 4 };
        let across = if self.flat { VECTOR } else { self.window.inputs };
        let none = padding.as_ptr();
        let at = |y: usize| image.as_ptr().wrapping_add(y.wrapping_mul(self.line_in).wrapping_add(channel));
        let (mut from, mut step) = ([none; 4], [0usize; 4]);
        if first >= done
            && first < self.window.rows.input
            && self.window.rows.input.wrapping_sub(first) >= taken
        {
            let (last, last_step) = if taken == 4 { (at(first.wrapping_add(3)), across) } else { (none, 0) };
            from = [at(first), at(first.wrapping_add(1)), at(first.wrapping_add(2)), last];
            step = [across, across, across, last_step];
        } else {
            for (j, (from, step)) in from.iter_mut().zip(&mut step).take(taken).enumerate() {
                let y = first.wrapping_add(j);
                if y >= self.window.rows.input {
                    continue;
                }
                if y < done {
                    let back = done.wrapping_sub(y).wrapping_mul(self.plan.kept_row);
                    *from = kept.get(kept.len().checked_sub(back)?..)?.as_ptr();
                    *step = VECTOR;
                } else {
                    (*from, *step) = (at(y), across);
                }
            }
        }
        let bytes = self.used.wrapping_mul(self.window.inputs);
        let [vector, last, vectors] = match self.flat {
            true => [VECTOR, bytes % VECTOR, bytes / VECTOR],
            false => [count, 0, self.used],
        };
        let to_step = if self.flat { 4 * VECTOR } else { self.column };
        let job = Rows { from, step, bytes: vector, last, count: vectors, to_step };
        let start = self.window.columns.pad.wrapping_mul(self.column);
        // SAFETY: a row is `used` columns of a row of `image`, which has all of them, or of a kept row, which has a vector for each column or all bytes of
        // a flat row, or one vector of padding that is read again and again. `Depthwise3::new` has made strips long enough for all columns, and for a
        // flat row's last vector.
        unsafe { transpose(strip.as_mut_ptr().wrapping_add(start), &job) }
        if !(if self.flat { bytes } else { self.plan.slice }).is_multiple_of(VECTOR) {
            // The last vector has overwritten padding.
            let behind = start.wrapping_add(self.used.wrapping_mul(self.column));
            memory::fill(strip.get_mut(behind..)?, self.zero);
        }
        Some(())
    }

    /// Copies the input rows before `next`, `count` channels from `channel` on, as many as `kept` holds. Those before `done` are
    /// overwritten, but were kept before.
    fn keep(
        &self,
        [done, next]: [usize; 2],
        [channel, count]: [usize; 2],
        image: &[u8],
        kept: &mut [u8],
    ) -> Option<()> {
        let rows = self.plan.kept_rows;
        for k in 0..rows {
            // Before the image there is nothing to be kept.
            let y = next.wrapping_add(k).wrapping_sub(rows);
            let Some(row) = image.get(y.wrapping_mul(self.line_in)..) else { continue };
            let row = row.get(..self.line_in)?;
            let old = k.wrapping_add(next).wrapping_sub(done).wrapping_mul(self.plan.kept_row);
            let (new, old) = kept.split_at_mut_checked(old.min(kept.len()))?;
            let place = new.get_mut(k.wrapping_mul(self.plan.kept_row)..)?.get_mut(..self.plan.kept_row)?;
            if y < done {
                memory::copy(place, old);
                continue;
            }
            if self.flat {
                memory::copy(place, row);
                continue;
            }
            let from = row.as_ptr().wrapping_add(channel);
            // SAFETY: the row has `columns.input` columns of `channels`, of which `count` from `channel` on are read; `kept_row` is a vector for each
            // column.
            unsafe {
                copy_columns(place.as_mut_ptr(), from, self.window.inputs, self.window.columns.input, count)
            }
        }
        Some(())
    }
}

/// Runs the convolution, with the kernels for the plan's tile. Without `input` the output holds it.
#[inline(never)]
pub fn depthwise3(
    plan: &Depthwise3,
    kernels: &Kernels,
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[u8]>,
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, outputs } = *window;
    let slice = plan.slice;
    let layer = Layer {
        plan,
        window,
        line_in: columns.input.checked_mul(channels)?,
        line_out: columns.output.checked_mul(outputs)?,
        column: slice.wrapping_mul(4),
        used: columns.input.min(plan.columns.saturating_sub(columns.pad)),
        flat: slice == channels,
        zero: linear.input_zero as u8,
    };
    let image_out = rows.output.checked_mul(layer.line_out)?;
    let taps = rows.kernel.checked_mul(columns.kernel)?;
    if linear.weights.len() < outputs.checked_mul(taps)?
        || linear.bias.len() < outputs
        || linear.multiplier.len() < outputs
        || linear.shift.len() < outputs
    {
        return None;
    }
    let (kernel, clamp) = if is_relu(linear) {
        (kernels.relu, clamp(linear))
    } else if is_linear(linear) {
        (kernels.linear, [linear.output_zero as u32, 0])
    } else {
        (kernels.any, clamp(linear))
    };
    let (strips, rest) = scratch.split_at_mut_checked(plan.strips())?;
    let (weights, rest) = rest.split_at_mut_checked(WEIGHTS)?;
    let (padding, rest) = rest.split_first_chunk_mut::<VECTOR>()?;
    let (kept, rest) = rest.split_at_mut_checked(plan.kept())?;
    let lists = bytemuck::try_cast_slice_mut(rest.get_mut(..plan.moves().checked_mul(2)?)?).ok()?;
    let (moves, last_moves) = lists.split_at_mut_checked(plan.groups.checked_mul(plan.tiles)?)?;
    *padding = [layer.zero; VECTOR];
    layer.pad(strips);
    memory::fill(weights, 0);
    // The last round may have fewer groups, and its last group another place.
    let last_round = plan.all_groups.saturating_sub(1).checked_div(plan.groups)?.wrapping_mul(plan.groups);
    if last_round > 0 {
        layer.list(0, plan.groups, moves);
    }
    layer.list(last_round, plan.all_groups.wrapping_sub(last_round), last_moves);
    let side = outputs as u32;
    let line = layer.line_out as u32;
    let [down, beside] = layer.second();
    let first = match plan.tile {
        Tile::Tall | Tile::Square => [0, line, side, line.wrapping_add(side)],
        Tile::Row | Tile::Wide | Tile::Apart => [0, 1, 2, 3].map(|k: u32| k.wrapping_mul(side)),
    };
    let places = match plan.tile {
        Tile::Apart => first,
        _ => {
            // Halfwords: lanes of both halves alternate.
            let far = (down as u32).wrapping_mul(line).wrapping_add((beside as u32).wrapping_mul(side));
            first.map(|at| at & 0xFFFF | at.wrapping_add(far) << 16)
        }
    };
    let far = match plan.tile {
        Tile::Tall => plan.strip,
        _ => beside.wrapping_mul(layer.column).wrapping_mul(columns.stride),
    };
    let by_channel = weights.as_mut_ptr().wrapping_add(VECTOR);
    let between = if plan.tile.is_joined() { 2 } else { columns.stride };
    let mut frame = Frame {
        clamp,
        offset: linear.output_zero.wrapping_sub(linear.low),
        places,
        columns: [0, 1, 2, 3].map(|k: u32| k.wrapping_mul(layer.column as u32)),
        left: 0,
        outputs: 0,
        weights: by_channel,
        bias: core::ptr::null(),
        multipliers: core::ptr::null(),
        shift: core::ptr::null(),
        zero: linear.input_zero.into(),
        multiplier: plan.multiplier as u32,
        tiles: 0,
        moves: core::ptr::null(),
        far: far as u32,
        width: columns.output.min(4) as u32,
        step: layer.column.wrapping_mul(between) as u32,
        shift_left: 0,
        output_zero: linear.output_zero,
        strips: core::ptr::null(),
        output: core::ptr::null_mut(),
    };
    let mut inputs_left = input;
    let mut outputs_left = output;
    for _ in 0..batch {
        let (image, rest) = outputs_left.split_at_mut_checked(image_out)?;
        outputs_left = rest;
        let source = match inputs_left {
            Some(inputs) => {
                let (source, rest) = inputs.split_at_checked(window.image())?;
                inputs_left = Some(rest);
                Some(source)
            }
            None => None,
        };
        let mut channel = 0usize;
        while channel < channels {
            let count = slice.min(channels.wrapping_sub(channel));
            let part = [channel, count];
            // Whose weights are there.
            let mut loaded = usize::MAX;
            let mut group = 0usize;
            while group < plan.all_groups {
                let end = group.wrapping_add(plan.groups).min(plan.all_groups);
                // Rows that are overwritten in place.
                let done = if source.is_none() { group.wrapping_mul(plan.tile.rows()) } else { 0 };
                let mut strips_left = &mut *strips;
                for group in group..end {
                    let row = layer.group_row(group);
                    for row in [row, row.wrapping_add(down)].into_iter().take(plan.tile.strips()) {
                        layer.load(row, part, source.unwrap_or(image), (kept, done), padding, strips_left)?;
                        strips_left = strips_left.get_mut(plan.strip..)?;
                    }
                }
                let last = end == plan.all_groups;
                if source.is_none() && !last {
                    let next = end.wrapping_mul(plan.tile.rows());
                    layer.keep([done, next], part, image, kept)?;
                }
                let row = layer.group_row(group).wrapping_mul(layer.line_out);
                frame.tiles = end.wrapping_sub(group).wrapping_mul(plan.tiles) as u32;
                frame.moves = if last { last_moves.as_ptr() } else { moves.as_ptr() };
                // Up to 16 outputs at a time.
                let past = channel.wrapping_add(count).wrapping_mul(plan.multiplier);
                let mut output = channel.wrapping_mul(plan.multiplier);
                while output < past {
                    let count = past.wrapping_sub(output).min(VECTOR);
                    if loaded != output {
                        let from = linear.weights.as_ptr().wrapping_add(output);
                        // SAFETY: there are weights of all taps, at most 3 x 3 (`Depthwise3::new`), of each output, as checked above; `weights` has a vector for each of
                        // 16 outputs behind its first.
                        unsafe {
                            weights_by_channel(by_channel, from, outputs, count, rows.kernel, columns.kernel);
                        }
                        loaded = output;
                    }
                    let (input, begun) = match plan.multiplier {
                        1 => (output, 0),
                        multiplier => (output.checked_div(multiplier)?, output.checked_rem(multiplier)?),
                    };
                    frame.left = plan.multiplier.wrapping_sub(begun) as u32;
                    frame.outputs = count as u32;
                    frame.strips = strips.as_ptr().wrapping_add(input.wrapping_sub(channel).wrapping_mul(4));
                    frame.output = image.as_mut_ptr().wrapping_add(row).wrapping_add(output);
                    frame.bias = linear.bias.as_ptr().wrapping_add(output);
                    frame.multipliers = linear.multiplier.as_ptr().wrapping_add(output);
                    frame.shift = linear.shift.as_ptr().wrapping_add(output);
                    // SAFETY: groups end with the image, and tiles with its rows, both of which have a tile's rows and columns at least, or those of its
                    // halves, which then overlap (`Tile::of`, `Tile::apart`; the predicate of four); strips hold their inputs; offsets of 16 bits suffice (`Depthwise3::new`);
                    // the list has an entry for each tile. Outputs `output` to `output + count` are those of channels in the strips, and have weights and constants,
                    // as checked above.
                    unsafe { kernel(&frame) }
                    output = output.wrapping_add(count);
                }
                group = end;
            }
            channel = channel.wrapping_add(slice);
        }
    }
    Some(())
}
