//! Depthwise convolutions.
//!
//! A sum `a` with multiplier `M` and shift `-e` becomes `floor((2 a M + 2^31) / 2^32 + c - [a < 0]) >> e`, with `c = (zero point << e) + (1 << e >> 1)`: for
//! `1 <= e` that is [`crate::quant::requantize`] and the zero point. The product is one SMMLAR of `2 a`, for which weights and bias are doubled.
//! Without the term `[a < 0]` only ties below the zero point differ, which a clamp at the zero point hides.

mod quads;
mod strips;

use crate::backend::kernels::{Kernels, links};
use crate::backend::spec::dsp::depthwise::{self as plans, MOST_SHIFT};
use crate::backend::spec::select::{Constants, Linear, Request};
use crate::backend::thumb_dsp::isa;
use crate::blob::DType;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::rolled::rolled;

/// The convolution, `None` before anything is written if no kernel takes it.
#[inline(never)]
pub fn depthwise_conv2d_i8<K: Kernels>(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    check(window, linear, input.map(<[i8]>::len), output.len())?;
    // Borrowed where it was made: it is not moved.
    let plan = planned(window, linear, input.is_none(), plans::strips);
    match &plan {
        Some(plan) if strips::takes::<K>(window.rows.stride) => {
            strips::run::<K>(plan, window, linear, input, output, scratch)?;
        }
        None if const { links::<K>("quads") } => any(window, linear, input, output, scratch)?,
        _ => return None,
    }
    if (linear.low, linear.high) != (i8::MIN.into(), i8::MAX.into()) {
        let splat = |bound: i32| u32::from(bound as u8).wrapping_mul(0x0101_0101);
        let (words, rest) = output.as_chunks_mut::<4>();
        // SAFETY: the words are in the slice.
        unsafe { clamp(words.as_mut_ptr(), words.len(), splat(linear.low), splat(linear.high)) };
        for y in rest {
            rolled();
            *y = (*y).max(linear.low as i8).min(linear.high as i8);
        }
    }
    Some(())
}

/// The plan of a kernel for a layer. In a frame of its own, which is gone when the kernel runs.
#[inline(never)]
fn planned<P>(
    window: &Window,
    linear: &Integer<'_>,
    in_place: bool,
    plan: impl Fn(&Request) -> Option<P>,
) -> Option<P> {
    plan(&Request {
        linear: Linear::DepthwiseConv2d { window: *window },
        input: DType::I8,
        output: DType::I8,
        packing: linear.packing,
        in_place,
        constants: Constants { closed: plans::is_closed(linear), ..Constants::USUAL },
    })
}

/// Windows that are not for strips, in a frame of their own.
#[inline(never)]
fn any(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let plan = planned(window, linear, input.is_none(), plans::quads);
    quads::run(plan.as_ref()?, linear, input, output, scratch)
}

/// Whether lengths are right.
#[inline(never)]
fn check(window: &Window, linear: &Integer<'_>, input: Option<usize>, output: usize) -> Option<()> {
    let Window { batch, rows, columns, outputs, .. } = *window;
    let pixels = rows.output.checked_mul(columns.output)?;
    let needed = batch.checked_mul(pixels)?.checked_mul(outputs)?;
    let read = batch.checked_mul(window.image())?;
    let taps = rows.kernel.checked_mul(columns.kernel)?;
    let lengths = [linear.bias.len(), linear.multiplier.len(), linear.shift.len()];
    let whole = output == needed
        && input.is_none_or(|input| input >= read)
        && (input.is_some() || window.replaces_input())
        && linear.weights.len() >= taps.checked_mul(outputs)?
        && lengths.iter().all(|length| *length == outputs);
    whole.then_some(())
}

/// Brings `count` words of 4 values each to at least the values in `low` and at most those in `high`.
///
/// r0: words, r1: words left, r2: least, r3: greatest, r12: value.
///
/// # Safety
/// `words` has `count` words, at any address.
#[unsafe(naked)]
unsafe extern "C" fn clamp(words: *mut [i8; 4], count: usize, low: u32, high: u32) {
    core::arch::naked_asm!(
        isa::dsp_on!(),
        "
        push    {{r4, lr}}
        cbz     r1, 2f
    1:
        ldr     r12, [r0]
        ssub8   r4, r12, r2
        sel     r12, r12, r2
        ssub8   r4, r3, r12
        sel     r12, r12, r3
        str     r12, [r0], #4
        subs    r1, #1
        bne     1b
    2:
        pop     {{r4, pc}}
        ",
        isa::dsp_off!(),
    )
}

/// Constants of a channel.
struct Channel {
    /// Doubled, with the input's zero point taken away.
    bias: i32,
    multiplier: i32,
    /// `c` above.
    constant: i32,
    /// `e` above.
    shift: i32,
}

impl Channel {
    /// Of a channel whose weights have the sum `total`.
    #[inline(always)]
    fn new(linear: &Integer<'_>, bias: i32, multiplier: i32, shift: i32, total: i32) -> Self {
        let bias = bias.wrapping_sub(total.wrapping_mul(linear.input_zero.into())).wrapping_mul(2);
        let shift = shift.wrapping_neg();
        let (multiplier, shift) = if shift > MOST_SHIFT { (0, MOST_SHIFT) } else { (multiplier, shift) };
        let constant = linear.output_zero.wrapping_mul(2).wrapping_add(1).wrapping_shl(shift as u32) >> 1;
        Self { bias, multiplier, constant, shift }
    }
}
