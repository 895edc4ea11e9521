//! What the processor can do at most, for benches to compare kernels with.

use core::arch::asm;
use core::arch::x86_64::*;
use std::time::Instant;

use super::Avx512Vnni;
use crate::host::program::Kernels;

/// Multiply-adds a nanosecond of `VPDPBUSD` on 512 bits, in the best of many short loops. `None`: the processor has no such instruction.
pub fn byte_products() -> Option<f64> {
    let name = Avx512Vnni.name();
    super::available().find(|kernels| kernels.name() == name)?;
    const LOOPS: usize = 2000;
    let least = (0..200).map(|_| {
        let start = Instant::now();
        // SAFETY: the features were found above.
        unsafe { products(LOOPS) };
        start.elapsed().as_secs_f64() * 1e9
    });
    Some((LOOPS * 16 * 64) as f64 / least.fold(f64::INFINITY, f64::min))
}

/// Sixteen independent products, again and again.
///
/// # Safety
/// `loops` is not 0.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn products(loops: usize) {
    let zero = _mm512_setzero_si512();
    // SAFETY: writes registers alone.
    unsafe {
        asm!(
            "2:",
            "vpdpbusd zmm0, zmm16, zmm17", "vpdpbusd zmm1, zmm16, zmm17", "vpdpbusd zmm2, zmm16, zmm17",
            "vpdpbusd zmm3, zmm16, zmm17", "vpdpbusd zmm4, zmm16, zmm17", "vpdpbusd zmm5, zmm16, zmm17",
            "vpdpbusd zmm6, zmm16, zmm17", "vpdpbusd zmm7, zmm16, zmm17", "vpdpbusd zmm8, zmm16, zmm17",
            "vpdpbusd zmm9, zmm16, zmm17", "vpdpbusd zmm10, zmm16, zmm17", "vpdpbusd zmm11, zmm16, zmm17",
            "vpdpbusd zmm12, zmm16, zmm17", "vpdpbusd zmm13, zmm16, zmm17", "vpdpbusd zmm14, zmm16, zmm17",
            "vpdpbusd zmm15, zmm16, zmm17",
            "dec {loops}",
            "jnz 2b",
            loops = inout(reg) loops => _,
            in("zmm16") zero, in("zmm17") zero,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            options(nostack, nomem),
        );
    }
}
