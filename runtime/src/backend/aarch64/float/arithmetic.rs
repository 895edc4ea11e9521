//! Products of `f32`, with weights of 32 or of 16 bits.

use core::arch::aarch64::*;
use core::arch::asm;

use super::super::arithmetic::{Arithmetic, Finish, tiles, unrolled};
use super::super::conv::{Kernel, tile};
use super::{clamp, load, store};

/// Weights of 32 bits.
#[derive(Debug)]
pub struct Single;

/// Weights of binary16, which is exact in a register.
#[derive(Debug)]
pub struct Half;

/// What outputs are bounded by.
#[derive(Clone, Copy, Debug)]
pub struct Bounds(pub [f32; 2]);

impl Finish for Bounds {
    type Sum = float32x4_t;
    type Factors = ();

    #[inline(always)]
    unsafe fn load(_: *const u8, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn store<const N: usize>(
        &self,
        sums: &[float32x4_t; N],
        _: &[(); N],
        place: *mut u8,
        channels: usize,
    ) {
        unrolled!(n < N {
            // SAFETY: the caller's: `channels` outputs are writable.
            unsafe { store(clamp(self.0, sums[n]), place.wrapping_add(16 * n), channels.saturating_sub(4 * n)) };
        });
    }
}

/// The arithmetic of a type of weights.
macro_rules! floats {
    ($type:ident $stored:ident $bytes:literal $from:ident => $weights:expr; $($tiles:tt)*) => {
        impl Arithmetic for $type {
            type Stored = $stored;
            type Inputs = float32x4_t;
            type Weights = float32x4_t;
            type Sum = float32x4_t;
            type Total = float32x4_t;
            type Finish = Bounds;
            const NAME: &'static str = "conv2d_f32";
            const DEPTH: usize = 1;
            const WEIGHTS: usize = $bytes;

            tiles! { $($tiles)* }

            #[inline(always)]
            unsafe fn start(from: *const u8) -> float32x4_t {
                // SAFETY: the caller's.
                unsafe { load(from) }
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> float32x4_t {
                // SAFETY: the caller's.
                unsafe { load(from) }
            }

            #[inline(always)]
            unsafe fn broadcast(from: *const u8) -> float32x4_t {
                // SAFETY: the caller's.
                unsafe { vdupq_n_f32(from.cast::<f32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn weights($from: *const u8) -> float32x4_t {
                // SAFETY: the caller's.
                unsafe { $weights }
            }

            #[inline(always)]
            unsafe fn multiply(sum: float32x4_t, weights: float32x4_t, inputs: float32x4_t) -> float32x4_t {
                // SAFETY: every processor has NEON.
                unsafe { vfmaq_f32(sum, weights, inputs) }
            }

            #[inline(always)]
            unsafe fn multiply_lane<const LANE: i32>(
                sum: float32x4_t,
                weights: float32x4_t,
                inputs: float32x4_t,
            ) -> float32x4_t {
                // SAFETY: every processor has NEON.
                unsafe { vfmaq_laneq_f32::<LANE>(sum, weights, inputs) }
            }

            #[inline(always)]
            unsafe fn total(sum: float32x4_t) -> float32x4_t {
                sum
            }
        }
    };
}

floats! { Single f32 16 from => load(from); tile 1: 8 4 2 1, 2: 8 4 2 1, 3: 6 4 2 1, 4: 6 4 2 1, 8: 1 }
floats! { Half u16 8 from => widen(from); tile 1: 2 1, 2: 2 1, 3: 2 1, 4: 2 1, 8: 1 }

/// Four numbers of binary16.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn widen(from: *const u8) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the caller's; the instruction works on registers alone, and every processor has it.
    unsafe {
        let narrow = vld1_u8(from);
        asm!(
            "fcvtl {wide:v}.4s, {narrow:v}.4h",
            wide = lateout(vreg) wide,
            narrow = in(vreg) narrow,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}
