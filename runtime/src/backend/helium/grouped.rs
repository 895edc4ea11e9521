//! Convolution in any number of groups, depthwise or not, with any window, from and to 8 and 16 bits, over weights in the operator's order: one inner product after the
//! other. For what no other kernel takes.

use core::arch::naked_asm;

use super::depthwise::taps;
use super::product::{Width, clamp};
use crate::backend::scalar::compact::Order;
use crate::ops::linear::Integer;
use crate::ops::window::{Axis, Window};

/// Outputs of a round: 64 bytes of sums.
const ROUND: usize = 16;

/// What [`sums_8`] and [`sums_16`] are told; copied to their stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Taps {
    /// 0: the first tap's inputs, of the current group.
    input: *const u8,
    /// 4: weights of the current output's first tap.
    weights: *const i8,
    /// 8: rows of taps; 0 if the window lies in the padding.
    rows: u32,
    /// 12: taps of a row.
    taps: u32,
    /// 16: r6: elements of a tap.
    elements: u32,
    /// 20, 24: r8, r9: from behind a tap's whole vectors to the next tap: bytes of inputs and weights.
    step: [u32; 2],
    /// 28, 32: r10, r11: from there to the next row.
    gap: [u32; 2],
    /// 36: from the weights of an output to those of the next.
    kernel: u32,
    /// 40: sums, not yet with bias.
    sums: *mut i32,
    /// 44: outputs.
    outputs: u32,
    /// 48, 52: outputs of a group that are left, and all of a group.
    left: u32,
    group: u32,
    /// 56: bytes of a group's inputs at a position.
    group_inputs: u32,
    /// 60: zero point of the input.
    zero: i32,
}

/// The kernel `$name`: for each output the sum over all taps of weights times (input less zero point). `$loop` is the loop over the vectors of a tap, r1 inputs, r3 weights,
/// r0 the products' sum, r2 that of weights; r4 rows, r5 taps, r12 outputs that are left.
macro_rules! sums {
    ($(#[$doc:meta])* $name:ident, $size:literal, [$($body:literal),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Inputs and weights of all taps and outputs are readable, and sums are writable. There is an output.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(taps: *const Taps) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "sub sp, #68",
                "ldm r0!, {{r1-r8}}",
                "stm sp, {{r1-r8}}",
                "add r12, sp, #32",
                "ldm r0, {{r1-r8}}",
                "stm r12, {{r1-r8}}",
                "ldr r6, [sp, #16]",
                "ldrd r8, r9, [sp, #20]",
                "ldrd r10, r11, [sp, #28]",
                "ldr r12, [sp, #44]",
                "vmov.i8 q2, #1",
                // An output.
                "1:",
                "ldrd r1, r3, [sp, #0]",
                "ldr r4, [sp, #8]",
                "movs r0, #0",
                "movs r2, #0",
                "cbz r4, 5f",
                "2:",
                "ldr r5, [sp, #12]",
                "3:",
                concat!("wlstp.", $size, " lr, r6, 4f"),
                "7:",
                $($body,)*
                "letp lr, 7b",
                "4:",
                "add r1, r8",
                "add r3, r9",
                "subs r5, #1",
                "bne 3b",
                "add r1, r10",
                "add r3, r11",
                "subs r4, #1",
                "bne 2b",
                "5:",
                "ldr r1, [sp, #60]",
                "mls r0, r2, r1, r0",
                "ldrd r1, r2, [sp, #36]",
                "str r0, [r2], #4",
                "str r2, [sp, #40]",
                "ldrd r3, r4, [sp, #0]",
                "add r4, r1",
                "ldrd r0, r1, [sp, #48]",
                "subs r0, #1",
                "bne 6f",
                // The next group.
                "mov r0, r1",
                "ldr r1, [sp, #56]",
                "add r3, r1",
                "6:",
                "str r0, [sp, #48]",
                "strd r3, r4, [sp, #0]",
                "subs.w r12, r12, #1",
                "bne 1b",
                "add sp, #68",
                "pop {{r4-r11, pc}}",
                ".cpu cortex-m33",
            )
        }
    };
}

sums!(
    /// Of 8 bits.
    sums_8, "8",
    [
        "vldrb.u8 q0, [r1], #16",
        "vldrb.u8 q1, [r3], #16",
        "vmladava.s8 r0, q0, q1",
        "vmladava.s8 r2, q1, q2"
    ]
);
sums!(
    /// Of 16 bits, whose zero point is 0.
    sums_16, "16",
    ["vldrh.u16 q0, [r1], #16", "vldrb.s16 q1, [r3], #8", "vmladava.s16 r0, q0, q1"]
);

/// What [`finish_8`] and [`finish_16`] are told, in the order of their registers, from r1 on.
#[repr(C)]
struct Finish {
    sums: *const i32,
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i32,
    output: *mut u8,
    count: usize,
    /// Zero point of the output.
    zero: i32,
    clamp: [u32; 2],
    /// Least output.
    low: i32,
}

/// The kernel `$name`: outputs of sums, as `product::requantize` explains.
macro_rules! finish {
    ($(#[$doc:meta])* $name:ident, $store:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Sums and constants are readable, outputs writable over the count.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(job: *const Finish) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r9, r10, lr}}",
                "ldm r0, {{r1-r10}}",
                "wlstp.32 lr, r6, 2f",
                "1:",
                "vldrw.u32 q0, [r1], #16",
                "vldrw.u32 q1, [r2], #16",
                "vadd.i32 q0, q0, q1",
                "vldrw.u32 q1, [r4], #16",
                "vmov.i32 q2, #0",
                "vmax.s32 q3, q1, q2",
                "vshl.s32 q0, q0, q3",
                "vldrw.u32 q3, [r3], #16",
                "vqrdmulh.s32 q0, q0, q3",
                "vmin.s32 q1, q1, q2",
                "vand q2, q0, q1",
                "vshr.s32 q2, q2, #31",
                "vadd.i32 q0, q0, q2",
                "vrshl.s32 q0, q0, q1",
                "vadd.i32 q0, q0, r7",
                "vqsub.s32 q0, q0, r10",
                "vqmovunb.s32 q0, q0",
                "vqadd.u16 q0, q0, r8",
                "vadd.i16 q0, q0, r9",
                $store,
                "letp lr, 1b",
                "2:",
                "pop {{r4-r9, r10, pc}}",
                ".cpu cortex-m33",
            )
        }
    };
}

finish!(
    /// Of 8 bits.
    finish_8, "vstrb.32 q0, [r5], #4"
);
finish!(
    /// Of 16 bits.
    finish_16, "vstrh.32 q0, [r5], #8"
);

/// Runs a convolution. Slices are bytes of the tensors.
#[inline(never)]
pub fn grouped(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    width: Width,
    input: &[u8],
    output: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let elements = inputs.checked_div(groups)?;
    let group = outputs.checked_div(groups)?;
    // From the weights of a tap to those of the next, of a row, of an output.
    let tap_weights = match order {
        Order::Outputs => elements,
        Order::Taps => outputs,
    };
    let row_weights = columns.kernel.checked_mul(tap_weights)?;
    let all_weights = rows.kernel.checked_mul(row_weights)?;
    let (kernel, stored) = match order {
        Order::Outputs => (all_weights, outputs.checked_mul(all_weights)?),
        Order::Taps => (1, all_weights),
    };
    if elements.checked_mul(groups)? != inputs
        || group.checked_mul(groups)? != outputs
        || elements == 0
        || group == 0
        || (order == Order::Taps && elements != 1)
        || linear.weights.len() < stored
        || linear.bias.len() < outputs
        || linear.multiplier.len() < outputs
        || linear.shift.len() < outputs
    {
        return None;
    }
    let narrow = width.input() == 1;
    let sum: unsafe extern "C" fn(*const Taps) = if narrow { sums_8 } else { sums_16 };
    let finish: unsafe extern "C" fn(*const Finish) = if width.output() == 1 { finish_8 } else { finish_16 };
    let position = inputs.checked_mul(width.input())?;
    let image = window.image().checked_mul(width.input())?;
    let pixel = outputs.checked_mul(width.output())?;
    let lanes = if narrow { 16 } else { 8 };
    let read = elements.checked_next_multiple_of(lanes)?;
    let step = columns.dilation.wrapping_mul(position);
    let row_step = rows.dilation.wrapping_mul(columns.input).wrapping_mul(position);
    let mut images = input;
    let mut output_left = output;
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(image)?;
        images = rest;
        for row in 0..rows.output {
            let across = taps(&rows, row);
            for column in 0..columns.output {
                let (target, rest) = output_left.split_at_mut_checked(pixel)?;
                output_left = rest;
                let along = taps(&columns, column);
                let empty = across.length == 0 || along.length == 0;
                let at = window.at(across.position, along.position).wrapping_mul(width.input());
                let tap = across.tap.wrapping_mul(columns.kernel).wrapping_add(along.tap);
                let weights = along.length.wrapping_mul(tap_weights);
                let behind = along.length.wrapping_mul(step);
                let mut sums = [0i32; ROUND];
                let mut job = Taps {
                    input: image.as_ptr().wrapping_add(at),
                    weights: linear.weights.as_ptr().wrapping_add(tap.wrapping_mul(tap_weights)),
                    rows: if empty { 0 } else { across.length as u32 },
                    taps: along.length as u32,
                    elements: elements as u32,
                    step: [
                        step.wrapping_sub(read.wrapping_mul(width.input())) as u32,
                        tap_weights.wrapping_sub(read) as u32,
                    ],
                    gap: [row_step.wrapping_sub(behind) as u32, row_weights.wrapping_sub(weights) as u32],
                    kernel: kernel as u32,
                    sums: sums.as_mut_ptr(),
                    outputs: 0,
                    left: group as u32,
                    group: group as u32,
                    group_inputs: elements.wrapping_mul(width.input()) as u32,
                    zero: linear.input_zero.into(),
                };
                let mut done = 0usize;
                while done < outputs {
                    let count = outputs.wrapping_sub(done).min(ROUND);
                    job.outputs = count as u32;
                    // SAFETY: the taps lie on rows and columns of the image, which is as long as its extents say, with all inputs of the group at each; the weights of all
                    // outputs are there, as checked above; loads are predicated on a tap's elements; there are `ROUND` sums.
                    unsafe { sum(&job) }
                    let first = done.wrapping_mul(width.output());
                    let finished = Finish {
                        sums: sums.as_ptr(),
                        bias: linear.bias.as_ptr().wrapping_add(done),
                        multiplier: linear.multiplier.as_ptr().wrapping_add(done),
                        shift: linear.shift.as_ptr().wrapping_add(done),
                        output: target.as_mut_ptr().wrapping_add(first),
                        count,
                        zero: linear.output_zero,
                        clamp: clamp(linear),
                        low: linear.low,
                    };
                    // SAFETY: `count` sums were made, `target` and the constants have an entry for each output.
                    unsafe { finish(&finished) }
                    done = done.wrapping_add(count);
                    job.weights = job.weights.wrapping_add(count.wrapping_mul(kernel));
                    // The kernel goes on to the next group by itself; the next round starts where it ended.
                    let mut left = count;
                    while left >= job.left as usize {
                        left = left.wrapping_sub(job.left as usize);
                        job.left = job.group;
                        job.input = job.input.wrapping_add(job.group_inputs as usize);
                    }
                    job.left = job.left.wrapping_sub(left as u32);
                }
            }
        }
    }
    Some(())
}

/// Runs a dense layer over rows of `inputs` elements.
pub fn dense(
    inputs: usize,
    linear: &Integer<'_>,
    width: Width,
    input: &[u8],
    output: &mut [u8],
) -> Option<()> {
    let outputs = linear.bias.len();
    let batch = output.len().checked_div(outputs.checked_mul(width.output())?)?;
    let one = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
    let window = Window { batch, rows: one, columns: one, inputs, outputs };
    grouped(&window, 1, Order::Outputs, linear, width, input, output)
}
