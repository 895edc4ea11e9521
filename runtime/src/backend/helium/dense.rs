//! Dense layers: eight outputs of one row at a time, with weights in [`Packing::Blocks8x16`](crate::blob::Packing). Sums, rounds of blocks and requantisation as
//! in [`super::product`].

use core::arch::naked_asm;

use super::memory;
use super::product::{Width, clamp, is_relu};
use crate::backend::spec::helium::BLOCK;
use crate::ops::linear::Integer;

/// What a kernel is told; copied to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0: added with saturation at the greatest `u16`.
    saturate: u32,
    /// 4: added after that.
    restore: u32,
    /// 8: the row.
    input: *const u8,
    /// 12: end of the outputs that fill blocks of eight.
    end: *mut u8,
    /// 16: rounds of blocks behind the first one. Set by the kernel.
    rounds: u32,
    /// 20: where the first round starts. Set by the kernel.
    entry: u32,
    /// 24: zero point less least output.
    offset: i32,
    /// 28: blocks, without the first.
    blocks: u32,
    /// 32: outputs behind the last eight.
    rest: u32,
    /// 36: constants.
    shift: *const i32,
    /// 40: weights.
    weights: *const i8,
    /// 44: outputs.
    output: *mut u8,
    /// 48, 52: constants.
    bias: *const i32,
    multiplier: *const i32,
}

macro_rules! lane_8 {
    ($first:literal, $even:literal, $odd:literal) => {
        concat!(
            "vldrb.u8 q1, [r1], #16\n",
            $first,
            ".s8 ",
            $even,
            ", q0, q1\n",
            "vldrb.u8 q2, [r1], #16\n",
            $first,
            ".s8 ",
            $odd,
            ", q0, q2\n",
        )
    };
}

/// Sixteen elements of the row (r3) and of eight outputs' weights (r1), 8 bits: 17 instructions of 4 bytes.
macro_rules! block_8 {
    (bytes) => {
        "68"
    };
    (round) => {
        concat!(
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava"),
            block_8!("vmladava")
        )
    };
    (blocks) => {
        "8"
    };
    (log) => {
        "3"
    };
    ($first:literal) => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            lane_8!($first, "r0", "r2"),
            lane_8!($first, "r4", "r6"),
            lane_8!($first, "r8", "r10"),
            lane_8!($first, "r12", "r14"),
        )
    };
}

macro_rules! lane_16 {
    ($first:literal, $sum:literal, $at:literal, $next:literal) => {
        concat!(
            "vldrb.s16 q2, [r1, #",
            $at,
            "]\n",
            $first,
            ".s16 ",
            $sum,
            ", q0, q2\n",
            "vldrb.s16 q3, [r1, #",
            $next,
            "]\n",
            "vmladava.s16 ",
            $sum,
            ", q1, q3\n",
        )
    };
}

/// Like [`block_8`] with a row of 16 bits: 35 instructions of 4 bytes.
macro_rules! block_16 {
    (bytes) => {
        "140"
    };
    (round) => {
        concat!(block_16!("vmladava"), block_16!("vmladava"), block_16!("vmladava"), block_16!("vmladava"))
    };
    (blocks) => {
        "4"
    };
    (log) => {
        "2"
    };
    ($first:literal) => {
        concat!(
            "vldrh.u16 q0, [r3], #16\n",
            "vldrh.u16 q1, [r3], #16\n",
            lane_16!($first, "r0", "0", "8"),
            lane_16!($first, "r2", "16", "24"),
            lane_16!($first, "r4", "32", "40"),
            lane_16!($first, "r6", "48", "56"),
            lane_16!($first, "r8", "64", "72"),
            lane_16!($first, "r10", "80", "88"),
            lane_16!($first, "r12", "96", "104"),
            lane_16!($first, "r14", "112", "120"),
            "add.w r1, r1, #128\n",
        )
    };
}

/// The kernel `$name`: for each eight outputs, then for the rest, the products' sums, requantised and stored. `$block` is a block of `$block_bytes` bytes of code,
/// `$store` stores the low part of each halfword, `$eight` are the bytes of eight outputs. `$shift` takes the shifts, and those to the left,
/// `$away` and `$offset` are the steps that `_relu` kernels leave out.
///
/// Registers: r1 weights, r3 row, r5 bias, r7 output, r9 multiplier, r11 rounds; q0 has the even outputs, q1 the odd ones; the predicate has the
/// outputs that exist. Constants of the rest are copied to the frame, so that whole vectors can be read.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, $block:ident, $store:literal, $eight:literal,
        [$($shift:literal),*], [$($away:literal),*], [$($offset:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// All that the frame names is readable or writable as [`dense`] checks.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "sub sp, #164",
                "ldm r0!, {{r1-r7}}",
                "stm sp, {{r1-r7}}",
                "add r12, sp, #28",
                "ldm r0, {{r1-r7}}",
                "stm r12, {{r1-r7}}",
                "adr.w r8, 3f",
                "adr.w r9, 4f",
                concat!("adds r2, r1, #", $block!(blocks), " - 1"),
                concat!("lsrs r2, r2, #", $block!(log)),
                concat!("lsls r4, r2, #", $block!(log)),
                "subs r4, r4, r1",
                concat!("movs r5, #", $block!(bytes)),
                "mla r8, r4, r5, r8",
                "cmp r1, #0",
                "it eq",
                "moveq r8, r9",
                "orr r8, r8, #1",
                "strd r2, r8, [sp, #16]",
                "mov r11, r2",
                "movs r0, #8",
                "vctp.16 r0",
                "ldrd r1, r7, [sp, #40]",
                "ldrd r5, r9, [sp, #48]",
                "ldr r0, [sp, #12]",
                "cmp r7, r0",
                "beq.w 7f",
                // Eight outputs.
                "2:",
                "ldr r3, [sp, #8]",
                $block!("vmladav"),
                "ldr pc, [sp, #20]",
                "3:",
                $block!(round),
                "subs.w r11, r11, #1",
                "bhi.w 3b",
                "ldr r11, [sp, #16]",
                "4:",
                "vmov q0[2], q0[0], r0, r8",
                "vmov q0[3], q0[1], r4, r12",
                "vmov q1[2], q1[0], r2, r10",
                "vmov q1[3], q1[1], r6, r14",
                "vld20.32 {{q2, q3}}, [r5]",
                "vld21.32 {{q2, q3}}, [r5]!",
                "ldr r0, [sp, #36]",
                "vadd.i32 q0, q0, q2",
                "vadd.i32 q1, q1, q3",
                "vld20.32 {{q4, q5}}, [r9]",
                "vld21.32 {{q4, q5}}, [r9]!",
                "vld20.32 {{q6, q7}}, [r0]",
                "vld21.32 {{q6, q7}}, [r0]!",
                "str r0, [sp, #36]",
                $($shift,)*
                "vqrdmulh.s32 q0, q0, q4",
                "vqrdmulh.s32 q1, q1, q5",
                $($away,)*
                "vrshl.s32 q0, q0, q6",
                "vrshl.s32 q1, q1, q7",
                $($offset,)*
                "ldrd r0, r2, [sp, #0]",
                "vqmovunb.s32 q0, q0",
                "vqmovunt.s32 q0, q1",
                "vqadd.u16 q0, q0, r0",
                "ldr r0, [sp, #12]",
                "vadd.i16 q0, q0, r2",
                "vpst",
                concat!($store, "t.16 q0, [r7], #", $eight),
                "cmp r7, r0",
                "bne.w 2b",
                // The rest.
                "7:",
                "ldr r0, [sp, #32]",
                "cbz r0, 9f",
                "movs r2, #0",
                "str r2, [sp, #32]",
                concat!("add r2, r7, #", $eight),
                "str r2, [sp, #12]",
                "ldr r4, [sp, #36]",
                "add r3, sp, #64",
                "vctp.32 r0",
                "vpsttt",
                "vldrwt.u32 q0, [r5]",
                "vldrwt.u32 q1, [r9]",
                "vldrwt.u32 q2, [r4]",
                "vstrw.32 q0, [r3]",
                "vstrw.32 q1, [r3, #32]",
                "vstrw.32 q2, [r3, #64]",
                "subs r2, r0, #4",
                "it lo",
                "movlo r2, #0",
                "vctp.32 r2",
                "vpsttt",
                "vldrwt.u32 q0, [r5, #16]",
                "vldrwt.u32 q1, [r9, #16]",
                "vldrwt.u32 q2, [r4, #16]",
                "vstrw.32 q0, [r3, #16]",
                "vstrw.32 q1, [r3, #48]",
                "vstrw.32 q2, [r3, #80]",
                "vctp.16 r0",
                "mov r5, r3",
                "add r9, r3, #32",
                "adds r3, #64",
                "str r3, [sp, #36]",
                "b.w 2b",
                "9:",
                "add sp, #164",
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                ".cpu cortex-m33",
            )
        }
    };
}

macro_rules! any_kernel {
    ($(#[$doc:meta])* $name:ident, $block:ident, $store:literal, $eight:literal) => {
        kernel!(
            $(#[$doc])* $name, $block, $store, $eight,
            [
                "vmov.i32 q2, #0",
                "vmax.s32 q3, q6, q2",
                "vshl.s32 q0, q0, q3",
                "vmax.s32 q3, q7, q2",
                "vshl.s32 q1, q1, q3",
                "vmin.s32 q6, q6, q2",
                "vmin.s32 q7, q7, q2"
            ],
            [
                "vand q2, q0, q6",
                "vand q3, q1, q7",
                "vshr.s32 q2, q2, #31",
                "vshr.s32 q3, q3, #31",
                "vadd.i32 q0, q0, q2",
                "vadd.i32 q1, q1, q3"
            ],
            ["ldr r0, [sp, #24]", "vqadd.s32 q0, q0, r0", "vqadd.s32 q1, q1, r0"]
        );
    };
}

kernel!(
    /// From 8 to 8 bits, of layers whose least output is the zero point and whose shifts are not positive.
    dense_8_8_relu, block_8, "vstrb", "8", [], [], []
);
any_kernel!(
    /// From 8 to 8 bits.
    dense_8_8, block_8, "vstrb", "8"
);
any_kernel!(
    /// From 8 to 16 bits.
    dense_8_16, block_8, "vstrh", "16"
);
any_kernel!(
    /// From 16 to 8 bits.
    dense_16_8, block_16, "vstrb", "8"
);
any_kernel!(
    /// From 16 to 16 bits.
    dense_16_16, block_16, "vstrh", "16"
);

/// Runs a dense layer. Slices are bytes of the tensors; rows whose last block would read behind the input are copied to scratch.
#[inline(never)]
pub fn dense(
    inputs: usize,
    linear: &Integer<'_>,
    width: Width,
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let outputs = linear.bias.len();
    let blocks = inputs.div_ceil(BLOCK);
    let row = inputs.checked_mul(width.input())?;
    let read = blocks.checked_mul(BLOCK * width.input())?;
    let written = outputs.checked_mul(width.output())?;
    if linear.weights.len() < outputs.div_ceil(8).checked_mul(blocks)?.checked_mul(8 * BLOCK)?
        || linear.multiplier.len() < outputs
        || linear.shift.len() < outputs
        || outputs == 0
        || inputs == 0
    {
        return None;
    }
    let kernel: unsafe extern "C" fn(*const Frame) = match width {
        Width::Narrow if is_relu(linear) => dense_8_8_relu,
        Width::Narrow => dense_8_8,
        Width::Widening => dense_8_16,
        Width::Narrowing => dense_16_8,
        Width::Wide => dense_16_16,
    };
    let [saturate, restore] = clamp(linear);
    let mut frame = Frame {
        saturate,
        restore,
        input: core::ptr::null(),
        end: core::ptr::null_mut(),
        rounds: 0,
        entry: 0,
        offset: linear.output_zero.wrapping_sub(linear.low),
        blocks: blocks.wrapping_sub(1) as u32,
        rest: (outputs & 7) as u32,
        shift: linear.shift.as_ptr(),
        weights: linear.weights.as_ptr(),
        output: core::ptr::null_mut(),
        bias: linear.bias.as_ptr(),
        multiplier: linear.multiplier.as_ptr(),
    };
    let mut input_left = input;
    let mut output_left = output;
    while !output_left.is_empty() {
        let source = match input_left.get(..read) {
            Some(source) => source,
            None => {
                let copy = scratch.get_mut(..read)?;
                memory::copy(copy, input_left.get(..row)?);
                copy
            }
        };
        let (target, rest) = output_left.split_at_mut_checked(written)?;
        frame.input = source.as_ptr();
        frame.output = target.as_mut_ptr();
        frame.end = frame.output.wrapping_add((outputs & !7).wrapping_mul(width.output()));
        // SAFETY: the kernel reads `read` bytes of the row, which `source` has, writes `written` bytes, predicated on outputs that exist, which
        // `target` has, and reads weights and constants as far as was checked above.
        unsafe { kernel(&frame) }
        input_left = input_left.get(row..)?;
        output_left = rest;
    }
    Some(())
}
