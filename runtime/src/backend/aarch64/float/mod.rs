//! Layers of `f32`. Sums are in another order than those of portable code, and products are not rounded: results agree as sums of floats do.

mod arithmetic;
mod depthwise;
mod elementwise;
mod pool;
mod steps;
#[cfg(test)]
mod tests;

pub use steps::Float;

use core::arch::aarch64::*;

/// Brings values between bounds; what is not a number stays.
#[inline(always)]
fn clamp([low, high]: [f32; 2], values: float32x4_t) -> float32x4_t {
    // SAFETY: every processor has NEON.
    unsafe { vminq_f32(vmaxq_f32(values, vdupq_n_f32(low)), vdupq_n_f32(high)) }
}

/// Stores the first floats of a vector, at most all.
///
/// # Safety
/// They are writable, at any address.
#[inline(always)]
unsafe fn store(values: float32x4_t, place: *mut u8, count: usize) {
    // SAFETY: the caller's; the vector has 16 bytes.
    unsafe {
        if count >= 4 {
            vst1q_u8(place, vreinterpretq_u8_f32(values));
            return;
        }
        let mut all = [0u8; 16];
        vst1q_u8(all.as_mut_ptr(), vreinterpretq_u8_f32(values));
        core::ptr::copy_nonoverlapping(all.as_ptr(), place, 4 * count);
    }
}

/// Four floats at any address.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load(place: *const u8) -> float32x4_t {
    // SAFETY: the caller's.
    unsafe { vreinterpretq_f32_u8(vld1q_u8(place)) }
}
