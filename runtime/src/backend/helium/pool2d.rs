//! Pools: channels side by side in vectors.

use core::arch::naked_asm;

use crate::backend::scalar;
use crate::ops::mean;
use crate::ops::window::{Axis, Window};
use crate::quant::requantize;

/// Channels whose sums are taken at once.
const SUMS: usize = 8;
/// Most elements of a window whose sum fits 16 bits.
const MOST: usize = 256;

/// What the kernels are told.
#[repr(C)]
struct Taps {
    /// From a column to the next: bytes.
    step: usize,
    /// From behind a row's last column to the next row.
    gap: usize,
    /// Rows.
    rows: usize,
    /// Columns.
    columns: usize,
}

/// Sums of up to eight channels over a window, modulo 2^16.
///
/// # Safety
/// `from` is readable over `channels` bytes, at most 8, at all taps, of which there is at least one; `sums` is writable.
#[unsafe(naked)]
unsafe extern "C" fn sum(from: *const i8, taps: *const Taps, channels: usize, sums: *mut [i16; SUMS]) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r7, r8, lr}}",
        "ldm r1, {{r4-r7}}",
        "vctp.16 r2",
        "vmov.i32 q0, #0",
        "1:",
        "dls lr, r7",
        "2:",
        "vpst",
        "vldrbt.s16 q1, [r0]",
        "add r0, r4",
        "vadd.i16 q0, q0, q1",
        "le lr, 2b",
        "add r0, r5",
        "subs r6, #1",
        "bne 1b",
        "vstrh.16 q0, [r3]",
        "pop {{r4-r7, r8, pc}}",
        ".cpu cortex-m33",
    )
}

/// Maxima of `channels` channels over a window, within bounds (low in bits 0 to 7, high in 8 to 15 of `bounds`), stored at `to`.
///
/// # Safety
/// `from` is readable over `channels` bytes at all taps, of which there is at least one, and `to` writable over as many.
#[unsafe(naked)]
unsafe extern "C" fn maximum(from: *const i8, taps: *const Taps, channels: usize, to: *mut i8, bounds: u32) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "ldr r8, [sp, #36]",
        "vdup.8 q2, r8",
        "lsr r8, r8, #8",
        "vdup.8 q3, r8",
        "ldm r1, {{r4-r7}}",
        "1:",
        "vctp.8 r2",
        "mov r8, r0",
        "mov r9, r6",
        "vmov.i8 q0, #0x80",
        "2:",
        "dls lr, r7",
        "3:",
        "vpst",
        "vldrbt.u8 q1, [r8]",
        "add r8, r4",
        "vmax.s8 q0, q0, q1",
        "le lr, 3b",
        "add r8, r5",
        "subs.w r9, r9, #1",
        "bne 2b",
        "vmax.s8 q0, q0, q2",
        "vmin.s8 q0, q0, q3",
        "vpst",
        "vstrbt.8 q0, [r3], #16",
        "adds r0, #16",
        "subs r2, #16",
        "bhi 1b",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// Calls `pool` for each window: with the inputs at its first tap, its taps, and the place of its outputs. `None` if a slice is too short.
#[inline(always)]
fn windows(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    mut pool: impl FnMut(*const i8, &Taps, &mut [i8]) -> Option<()>,
) -> Option<()> {
    let Window { batch, rows, columns, inputs: channels, .. } = *window;
    let line = columns.input.wrapping_mul(channels);
    let mut images = input;
    let mut output_left = output;
    for _ in 0..batch {
        let (image, rest) = images.split_at_checked(window.image())?;
        images = rest;
        for row in 0..rows.output {
            let across = rows.run(row);
            for column in 0..columns.output {
                let along = columns.run(column);
                let (target, rest) = output_left.split_at_mut_checked(channels)?;
                output_left = rest;
                let taps = Taps {
                    step: channels,
                    gap: line.wrapping_sub(along.length.wrapping_mul(channels)),
                    rows: across.length,
                    columns: along.length,
                };
                let from = image.as_ptr().wrapping_add(window.at(across.position, along.position));
                pool(from, &taps, target)?;
            }
        }
    }
    Some(())
}

/// Whether every window is without dilation and has a tap on the input.
fn plain(window: &Window) -> bool {
    let axis = |axis: &Axis| {
        let ends = [axis.run(0), axis.run(axis.output.wrapping_sub(1))];
        axis.dilation == 1 && axis.output > 0 && ends.iter().all(|run| run.length > 0)
    };
    axis(&window.rows) && axis(&window.columns) && window.inputs == window.outputs && window.inputs > 0
}

/// Sums by channels: `finish` makes an output of a sum and of how many elements there were.
#[inline(always)]
fn sums(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    finish: impl Fn(i32, usize) -> Option<i8>,
) -> Option<()> {
    windows(window, input, output, |from, taps, target| {
        let count = taps.rows.wrapping_mul(taps.columns);
        let mut from = from;
        for block in target.chunks_mut(SUMS) {
            let mut sums = [0i16; SUMS];
            // SAFETY: the taps lie on the image, as `Axis::run` says, and there is one, as `plain` has found; the block's channels follow those before it.
            unsafe { sum(from, taps, block.len(), &mut sums) }
            for (slot, &sum) in block.iter_mut().zip(&sums) {
                *slot = finish(sum.into(), count)?;
            }
            from = from.wrapping_add(SUMS);
        }
        Some(())
    })
}

/// Whether sums of windows fit 16 bits.
fn sums_fit(window: &Window) -> bool {
    let most = |axis: &Axis| axis.kernel.min(axis.input);
    plain(window) && most(&window.rows).checked_mul(most(&window.columns)).is_some_and(|taps| taps <= MOST)
}

#[inline(never)]
pub fn max_pool2d_i8(window: &Window, bounds: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
    if !plain(window) {
        return scalar::pool2d::max_pool2d_i8(window, bounds, input, output);
    }
    let [low, high] = bounds.map(|bound| u32::from(bound as u8));
    windows(window, input, output, |from, taps, target| {
        // SAFETY: the taps lie on the image, as `Axis::run` says, and there is one, as `plain` has found.
        unsafe { maximum(from, taps, target.len(), target.as_mut_ptr(), low | high << 8) }
        Some(())
    })
}

#[inline(never)]
pub fn average_pool2d_i8(
    window: &Window,
    padding: Option<i8>,
    bounds: [i8; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    if !sums_fit(window) {
        return scalar::pool2d::average_pool2d_i8(window, padding, bounds, input, output);
    }
    let [low, high] = bounds.map(i32::from);
    let area = window.rows.kernel.wrapping_mul(window.columns.kernel) as i32;
    sums(window, input, output, |sum, count| {
        let (sum, count) = match padding {
            Some(value) => {
                let outside = area.wrapping_sub(count as i32);
                (sum.wrapping_add(outside.wrapping_mul(value.into())), area)
            }
            None => (sum, count as i32),
        };
        let half = count >> 1;
        let rounded = if sum > 0 { sum.wrapping_add(half) } else { sum.wrapping_sub(half) };
        Some(rounded.checked_div(count)?.max(low).min(high) as i8)
    })
}

#[inline(never)]
pub fn mean2d_i8(
    window: &Window,
    parameters: &mean::Parameters,
    zero_points: [i32; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    if !sums_fit(window) {
        return scalar::pool2d::mean2d_i8(window, parameters, zero_points, input, output);
    }
    let [zero_in, zero_out] = zero_points;
    let mean::Parameters { multiplier, shift, act_min, act_max } = *parameters;
    sums(window, input, output, |sum, count| {
        let sum = sum.wrapping_sub(zero_in.wrapping_mul(count as i32));
        let result = zero_out.wrapping_add(requantize(sum, multiplier, shift));
        Some(result.max(act_min).min(act_max) as i8)
    })
}
