//! Depthwise convolution with any window, from and to 8 and 16 bits: eight outputs of a position at a time, tap by tap. Where several outputs have one input, inputs are
//! gathered.
//!
//! Sums of even and of odd channels are apart, as the widening multiplications leave them; narrowing puts them together again. Requantisation is
//! that of `product::requantize`.

use core::arch::naked_asm;

use super::product::{Width, clamp};
use crate::backend::spec::helium::Depthwise;
use crate::ops::linear::Integer;
use crate::ops::window::{Axis, Run, Window};

/// What a kernel is told; copied to its stack frame, in which the assembly names the fields by offset.
#[repr(C)]
struct Frame {
    /// 0, 4: see [`clamp`].
    clamp: [u32; 2],
    /// 8: zero point of the output.
    output_zero: i32,
    /// 12: least output.
    low: i32,
    /// 16: the first tap's inputs.
    input: *const u8,
    /// 20: and weights.
    weights: *const i8,
    /// 24: rows of taps; 0 if the window lies in the padding.
    rows: u32,
    /// 28: taps of a row.
    taps: u32,
    /// 32, 36: from a tap to the next: bytes of inputs and weights.
    step: [u32; 2],
    /// 40, 44: the same from behind a row's last tap to the next row.
    gap: [u32; 2],
    /// 48: outputs that are left.
    channels: u32,
    /// 52: outputs.
    output: *mut u8,
    /// 56, 60, 64: constants.
    bias: *const i32,
    multiplier: *const i32,
    shift: *const i32,
    /// 68: outputs that are made.
    done: u32,
    /// 72: of gathers: the input of an output, times 2^16.
    factor: u32,
    /// 76: zero point of the input.
    zero: i32,
}

/// The kernel `$name`: the outputs of one position. `$load` loads eight inputs, whose eight are `$in_bytes` bytes; `$store` stores eight outputs of `$out_bytes` bytes.
///
/// Registers: r1 inputs, r2 weights, r3 and r4 their steps, r5 zero point, r6 rows, r7 outputs, r8 and r9 gaps, r10 channels that are left, r11 offset into
/// constants; q4 and q5 sums of even and odd channels, q6 what `$places` makes for all taps of eight outputs, q7 places of every other word.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, [$($places:literal),*], $load:literal, $in_bytes:literal, $store:literal, $out_bytes:literal
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Inputs, weights and constants of all taps and channels are readable, the outputs writable.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "sub sp, #80",
                "ldm r0!, {{r1-r9}}",
                "stm sp, {{r1-r9}}",
                "add r12, sp, #36",
                "ldm r0, {{r1-r9}}",
                "stm r12, {{r1-r9}}",
                "ldrd r1, r5, [r0, #36]",
                "str r1, [sp, #72]",
                "ldrd r3, r4, [sp, #32]",
                "ldrd r8, r9, [sp, #40]",
                "ldrd r10, r7, [sp, #48]",
                "movs r0, #0",
                "vidup.u32 q7, r0, #8",
                // Eight channels.
                "1:",
                "ldrd r1, r2, [sp, #16]",
                "ldrd r6, r11, [sp, #24]",
                // Even and odd ones of those that are left.
                "adds.w r12, r10, #1",
                "lsr r12, r12, #1",
                "vctp.32 r12",
                "ldr r0, [sp, #56]",
                "vpst",
                "vldrwt.u32 q4, [r0, q7]",
                "adds r0, #4",
                "lsr r12, r10, #1",
                "vctp.32 r12",
                "vpst",
                "vldrwt.u32 q5, [r0, q7]",
                "adds r0, #28",
                "str r0, [sp, #56]",
                $($places,)*
                "vctp.16 r10",
                "cmp r6, #0",
                "beq.w 4f",
                "2:",
                "dls lr, r11",
                "3:",
                "vpsttt",
                $load,
                "vldrbt.s16 q1, [r2]",
                "vsubt.i16 q0, q0, r5",
                "vmullb.s16 q2, q0, q1",
                "vmullt.s16 q3, q0, q1",
                "vadd.i32 q4, q4, q2",
                "vadd.i32 q5, q5, q3",
                "add r1, r3",
                "add r2, r4",
                "le lr, 3b",
                "add r1, r8",
                "add r2, r9",
                "subs r6, #1",
                "bne 2b",
                "4:",
                // Multipliers in q0 and q1, shifts in q2 and q3; what does not exist is not stored.
                "ldrd r0, r2, [sp, #60]",
                "adds.w r12, r10, #1",
                "lsr r12, r12, #1",
                "vctp.32 r12",
                "vpstt",
                "vldrwt.u32 q0, [r0, q7]",
                "vldrwt.u32 q2, [r2, q7]",
                "adds r0, #4",
                "adds r2, #4",
                "lsr r12, r10, #1",
                "vctp.32 r12",
                "vpstt",
                "vldrwt.u32 q1, [r0, q7]",
                "vldrwt.u32 q3, [r2, q7]",
                "adds r0, #28",
                "adds r2, #28",
                "strd r0, r2, [sp, #60]",
                "vmov.i32 q6, #0",
                "vmax.s32 q2, q2, q6",
                "vshl.s32 q4, q4, q2",
                "vmax.s32 q3, q3, q6",
                "vshl.s32 q5, q5, q3",
                "vqrdmulh.s32 q4, q4, q0",
                "vqrdmulh.s32 q5, q5, q1",
                // The shifts again, those to the right.
                "subs r2, #32",
                "vctp.32 r12",
                "adds r0, r2, #4",
                "vpst",
                "vldrwt.u32 q3, [r0, q7]",
                "adds.w r12, r10, #1",
                "lsr r12, r12, #1",
                "vctp.32 r12",
                "vpst",
                "vldrwt.u32 q2, [r2, q7]",
                "vmin.s32 q2, q2, q6",
                "vmin.s32 q3, q3, q6",
                "vand q0, q4, q2",
                "vand q1, q5, q3",
                "vshr.s32 q0, q0, #31",
                "vshr.s32 q1, q1, #31",
                "vadd.i32 q4, q4, q0",
                "vadd.i32 q5, q5, q1",
                "vrshl.s32 q4, q4, q2",
                "vrshl.s32 q5, q5, q3",
                "ldrd r0, r2, [sp, #8]",
                "vadd.i32 q4, q4, r0",
                "vadd.i32 q5, q5, r0",
                "vqsub.s32 q4, q4, r2",
                "vqsub.s32 q5, q5, r2",
                "ldrd r0, r2, [sp, #0]",
                "vqmovunb.s32 q4, q4",
                "vqmovunt.s32 q4, q5",
                "vqadd.u16 q4, q4, r0",
                "vadd.i16 q4, q4, r2",
                "vctp.16 r10",
                "vpst",
                concat!($store, " q4, [r7], #", $out_bytes),
                "ldrd r0, r2, [sp, #16]",
                concat!("adds r0, #", $in_bytes),
                "adds r2, #8",
                "strd r0, r2, [sp, #16]",
                "subs.w r10, r10, #8",
                "bhi.w 1b",
                "add sp, #80",
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                ".cpu cortex-m33",
            )
        }
    };
}

kernel!(
    /// From 8 to 8 bits.
    depthwise_8_8, [], "vldrbt.s16 q0, [r1]", "8", "vstrbt.16", "8"
);
kernel!(
    /// From 8 to 16 bits.
    depthwise_8_16, [], "vldrbt.s16 q0, [r1]", "8", "vstrht.16", "16"
);
kernel!(
    /// From 16 to 8 bits.
    depthwise_16_8, [], "vldrht.u16 q0, [r1]", "16", "vstrbt.16", "8"
);
kernel!(
    /// From 16 to 16 bits.
    depthwise_16_16, [], "vldrht.u16 q0, [r1]", "16", "vstrht.16", "16"
);

/// A [`kernel`] of layers with several outputs of an input: q6 has the inputs' numbers.
macro_rules! gather {
    ($(#[$doc:meta])* $name:ident, $load:literal, $store:literal, $out_bytes:literal) => {
        kernel!(
            $(#[$doc])* $name,
            [
                "ldrd r0, r12, [sp, #68]",
                "vidup.u16 q6, r0, #1",
                "str r0, [sp, #68]",
                "vdup.16 q0, r12",
                "vmulh.u16 q6, q6, q0"
            ],
            $load, "0", $store, $out_bytes
        );
    };
}

gather!(
    /// From 8 to 8 bits.
    gather_8_8, "vldrbt.s16 q0, [r1, q6]", "vstrbt.16", "8"
);
gather!(
    /// From 8 to 16 bits.
    gather_8_16, "vldrbt.s16 q0, [r1, q6]", "vstrht.16", "16"
);
gather!(
    /// From 16 to 8 bits.
    gather_16_8, "vldrht.u16 q0, [r1, q6, uxtw #1]", "vstrbt.16", "8"
);
gather!(
    /// From 16 to 16 bits.
    gather_16_16, "vldrht.u16 q0, [r1, q6, uxtw #1]", "vstrht.16", "16"
);

/// The taps of a window on the input; without taps if there are none.
pub fn taps(axis: &Axis, window: usize) -> Run {
    if axis.dilation == 1 {
        return axis.run(window);
    }
    let mut run = Run { tap: 0, position: 0, length: 0 };
    for tap in 0..axis.kernel {
        if let Some(position) = axis.position(window, tap) {
            if run.length == 0 {
                run = Run { tap, position, length: 0 };
            }
            run.length = run.length.wrapping_add(1);
        }
    }
    run
}

/// Kernels, for each [`Width`] in its order.
pub struct Kernels {
    narrow: unsafe extern "C" fn(*const Frame),
    widening: unsafe extern "C" fn(*const Frame),
    narrowing: unsafe extern "C" fn(*const Frame),
    wide: unsafe extern "C" fn(*const Frame),
}

/// For [`Depthwise::Beside`].
pub const BESIDE: Kernels = Kernels {
    narrow: depthwise_8_8,
    widening: depthwise_8_16,
    narrowing: depthwise_16_8,
    wide: depthwise_16_16,
};
/// For [`Depthwise::Shared`].
pub const GATHER: Kernels =
    Kernels { narrow: gather_8_8, widening: gather_8_16, narrowing: gather_16_8, wide: gather_16_16 };

/// Runs a convolution, with the plan's kernels. Slices are bytes of the tensors.
#[inline(never)]
pub fn depthwise(
    plan: Depthwise,
    kernels: &Kernels,
    window: &Window,
    linear: &Integer<'_>,
    width: Width,
    input: &[u8],
    output: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs: channels } = *window;
    let position = inputs.checked_mul(width.input())?;
    let image = window.image().checked_mul(width.input())?;
    let pixel = channels.checked_mul(width.output())?;
    let kernel_row = columns.kernel.checked_mul(channels)?;
    if linear.weights.len() < rows.kernel.checked_mul(kernel_row)?
        || linear.bias.len() < channels
        || linear.multiplier.len() < channels
        || linear.shift.len() < channels
        || channels == 0
    {
        return None;
    }
    let kernel = match width {
        Width::Narrow => kernels.narrow,
        Width::Widening => kernels.widening,
        Width::Narrowing => kernels.narrowing,
        Width::Wide => kernels.wide,
    };
    let step = columns.dilation.wrapping_mul(position);
    let row_step = rows.dilation.wrapping_mul(columns.input).wrapping_mul(position);
    let mut frame = Frame {
        clamp: clamp(linear),
        output_zero: linear.output_zero,
        low: linear.low,
        input: core::ptr::null(),
        weights: core::ptr::null(),
        rows: 0,
        taps: 0,
        step: [step as u32, channels as u32],
        gap: [0, 0],
        channels: channels as u32,
        output: core::ptr::null_mut(),
        bias: linear.bias.as_ptr(),
        multiplier: linear.multiplier.as_ptr(),
        shift: linear.shift.as_ptr(),
        done: 0,
        factor: match plan {
            Depthwise::Beside => 0,
            Depthwise::Shared(factor) => factor.into(),
        },
        zero: linear.input_zero.into(),
    };
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
                frame.rows = if empty { 0 } else { across.length as u32 };
                frame.taps = along.length as u32;
                frame.input = image.as_ptr().wrapping_add(at);
                frame.weights = linear.weights.as_ptr().wrapping_add(tap.wrapping_mul(channels));
                let behind = along.length.wrapping_mul(step);
                let weights = along.length.wrapping_mul(channels);
                frame.gap = [row_step.wrapping_sub(behind) as u32, kernel_row.wrapping_sub(weights) as u32];
                frame.output = target.as_mut_ptr();
                // SAFETY: the taps that `taps` gives lie on rows and columns of the image, which is as long as its extents say, and within the kernel, all
                // of whose weights are there; `target` has an output for each channel, and so have the constants, as checked above; an output's number times the factor over 2^16 is that of an
                // input (`spec::depthwise`).
                unsafe { kernel(&frame) }
            }
        }
    }
    Some(())
}
