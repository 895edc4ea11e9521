//! Pools: channels side by side in vectors.

use core::arch::naked_asm;

use super::memory;
use crate::ops::mean;
use crate::ops::window::Window;
use crate::quant::requantize;

/// Channels whose sums are taken at once.
const SUMS: usize = 8;
/// Most elements whose sum fits 16 bits.
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

/// How a sum becomes an output.
#[derive(Clone, Copy)]
enum Finish<'a> {
    /// The mean, halves away from zero.
    Average {
        /// What padding counts as, if it counts, and the elements of a window with it.
        padding: Option<(i8, i32)>,
        /// Least and greatest output.
        bounds: [i8; 2],
    },
    /// The sum less the zero point of the input, requantised.
    Mean {
        /// Factor and bounds.
        parameters: &'a mean::Parameters,
        /// Of input and output.
        zero_points: [i32; 2],
    },
}

impl Finish<'_> {
    /// The output for a sum of `count` elements.
    #[inline(never)]
    fn output(&self, sum: i32, count: usize) -> Option<i8> {
        match *self {
            Self::Average { padding, bounds: [low, high] } => {
                let count = count as i32;
                let (sum, count) = match padding {
                    Some((value, area)) => {
                        let outside = area.wrapping_sub(count);
                        (sum.wrapping_add(outside.wrapping_mul(value.into())), area)
                    }
                    None => (sum, count),
                };
                let half = count >> 1;
                let rounded = if sum > 0 { sum.wrapping_add(half) } else { sum.wrapping_sub(half) };
                Some(rounded.checked_div(count)?.max(low.into()).min(high.into()) as i8)
            }
            Self::Mean { parameters, zero_points: [zero_in, zero_out] } => {
                let mean::Parameters { multiplier, shift, act_min, act_max } = *parameters;
                let sum = sum.wrapping_sub(zero_in.wrapping_mul(count as i32));
                let result = zero_out.wrapping_add(requantize(sum, multiplier, shift));
                Some(result.max(act_min).min(act_max) as i8)
            }
        }
    }
}

/// Pools of sums, channel by channel.
#[inline(never)]
fn sums(window: &Window, finish: Finish<'_>, input: &[i8], output: &mut [i8]) -> Option<()> {
    windows(window, input, output, |from, taps, target| {
        let count = taps.rows.wrapping_mul(taps.columns);
        let mut from = from;
        for block in target.chunks_mut(SUMS) {
            let mut totals = [0i32; SUMS];
            let mut row = from;
            let mut rows_left = if taps.columns == 0 { 0 } else { taps.rows };
            while rows_left > 0 {
                // As many rows as a sum of 16 bits holds, or a row in parts.
                let rows = MOST.checked_div(taps.columns)?.clamp(1, rows_left);
                let mut part = row;
                let mut columns_left = taps.columns;
                while columns_left > 0 {
                    let columns = columns_left.min(MOST);
                    let mut sums = [0i16; SUMS];
                    // SAFETY: the taps lie on the image, as `Axis::run` says, and there is one; parts are whole rows or within one; the block's channels
                    // follow those before it.
                    unsafe { sum(part, &Taps { rows, columns, ..*taps }, block.len(), &mut sums) }
                    for (total, &sum) in totals.iter_mut().zip(&sums) {
                        *total = total.wrapping_add(sum.into());
                    }
                    part = part.wrapping_add(columns.wrapping_mul(taps.step));
                    columns_left = columns_left.wrapping_sub(columns);
                }
                let line = taps.columns.wrapping_mul(taps.step).wrapping_add(taps.gap);
                row = row.wrapping_add(rows.wrapping_mul(line));
                rows_left = rows_left.wrapping_sub(rows);
            }
            for (slot, &total) in block.iter_mut().zip(&totals) {
                *slot = finish.output(total, count)?;
            }
            from = from.wrapping_add(SUMS);
        }
        Some(())
    })
}

#[inline(never)]
pub fn max_pool2d_i8(window: &Window, bounds: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
    let [low, high] = bounds.map(|bound| u32::from(bound as u8));
    windows(window, input, output, |from, taps, target| {
        if taps.rows == 0 || taps.columns == 0 {
            memory::fill(bytemuck::cast_slice_mut(target), bounds[0] as u8);
            return Some(());
        }
        // SAFETY: the taps lie on the image, as `Axis::run` says, and there is one.
        unsafe { maximum(from, taps, target.len(), target.as_mut_ptr(), low | high << 8) }
        Some(())
    })
}

pub fn average_pool2d_i8(
    window: &Window,
    padding: Option<i8>,
    bounds: [i8; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    let area = window.rows.kernel.wrapping_mul(window.columns.kernel) as i32;
    let padding = padding.map(|value| (value, area));
    sums(window, Finish::Average { padding, bounds }, input, output)
}

pub fn mean2d_i8(
    window: &Window,
    parameters: &mean::Parameters,
    zero_points: [i32; 2],
    input: &[i8],
    output: &mut [i8],
) -> Option<()> {
    sums(window, Finish::Mean { parameters, zero_points }, input, output)
}
