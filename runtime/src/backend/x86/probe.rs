//! What one core does at most: the reference that benches of kernels stand beside.
//!
//! A probe is nothing but independent multiply-adds on registers, or loads of a buffer; the caller holds the clock. Only probes of
//! instructions that this machine has can be named.

use core::arch::asm;
use std::arch::is_x86_feature_detected;
use std::vec::Vec;

/// Multiply-adds on registers. Having one proves that the machine has its instructions.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    name: &'static str,
    macs: u64,
    /// Runs that many turns of [`UNROLLED`] instructions.
    ///
    /// Safety: the machine has the instructions.
    turns: unsafe fn(u64),
}

/// Instructions that multiply and add in one turn of a probe's loop: more than their latency times those that start in a cycle.
const UNROLLED: u64 = 12;

impl Peak {
    /// The probes of this machine.
    pub fn all() -> Vec<Self> {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let vnni = avx512 && is_x86_feature_detected!("avx512vnni");
        let probes = [
            (vnni, Self { name: "int8 VPDPBUSD, 512 bits", macs: 64, turns: vpdpbusd }),
            (vnni, Self { name: "int16 VPDPWSSD, 512 bits", macs: 32, turns: vpdpwssd }),
            (avx2, Self { name: "int16 VPMADDWD and VPADDD, 256 bits", macs: 16, turns: vpmaddwd }),
            (avx512, Self { name: "f32 FMA, 512 bits", macs: 16, turns: fma512 }),
            (avx2, Self { name: "f32 FMA, 256 bits", macs: 8, turns: fma256 }),
        ];
        probes.into_iter().filter(|(has, _)| *has).map(|(_, probe)| probe).collect()
    }

    /// What it measures.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs some turns; gives the number of multiply-adds.
    pub fn run(&self, turns: u64) -> u64 {
        // SAFETY: `Peak::all` gives only probes whose instructions the processor reports.
        unsafe { (self.turns)(turns.max(1)) };
        turns.max(1) * UNROLLED * self.macs
    }
}

/// A probe's loop: the instructions for each of twelve accumulators `\n`, from operands in registers 14 and 15; register 13 is free.
macro_rules! turns {
    ($name:ident, $features:literal, $zero:literal, $instructions:literal) => {
        #[target_feature(enable = $features)]
        fn $name(turns: u64) {
            // SAFETY: registers only, all of them named as overwritten; the loop ends when the counter, at least 1, is 0. The features of this
            // function are those of the instructions.
            unsafe {
                asm!(
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,14,15",
                    $zero,
                    ".endr",
                    "2:",
                    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11",
                    $instructions,
                    ".endr",
                    "dec {turns}",
                    "jnz 2b",
                    turns = inout(reg) turns => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    options(nomem, nostack),
                );
            }
        }
    };
}

turns!(vpdpbusd, "avx512f,avx512vnni", r"vpxorq zmm\n, zmm\n, zmm\n", r"vpdpbusd zmm\n, zmm14, zmm15");
turns!(vpdpwssd, "avx512f,avx512vnni", r"vpxorq zmm\n, zmm\n, zmm\n", r"vpdpwssd zmm\n, zmm14, zmm15");
turns!(
    vpmaddwd,
    "avx2",
    r"vpxor ymm\n, ymm\n, ymm\n",
    "vpmaddwd ymm13, ymm14, ymm15\nvpaddd ymm\\n, ymm\\n, ymm13"
);
turns!(fma512, "avx512f", r"vpxorq zmm\n, zmm\n, zmm\n", r"vfmadd231ps zmm\n, zmm14, zmm15");
turns!(fma256, "avx2,fma", r"vpxor ymm\n, ymm\n, ymm\n", r"vfmadd231ps ymm\n, ymm14, ymm15");

/// Bytes that one turn of [`read`] loads.
const READ: usize = 512;

/// Loads a buffer from its first to its last byte, but for what is left over of 512, in the widest registers; `None` without AVX2. Gives
/// the bytes read.
pub fn read(bytes: &[u8]) -> Option<usize> {
    let load: unsafe fn(&[u8]) = if is_x86_feature_detected!("avx512f") {
        read512
    } else if is_x86_feature_detected!("avx2") {
        read256
    } else {
        return None;
    };
    // SAFETY: the processor reports the instructions.
    unsafe { load(bytes) };
    Some(bytes.len() / READ * READ)
}

/// A loop of loads.
macro_rules! reads {
    ($name:ident, $features:literal, $places:literal, $load:literal) => {
        #[target_feature(enable = $features)]
        fn $name(bytes: &[u8]) {
            for block in bytes.chunks_exact(READ) {
                // SAFETY: the loads lie in the block, which is 512 bytes long; one register is overwritten, and named.
                unsafe {
                    asm!(
                        concat!(".irp at, ", $places),
                        $load,
                        ".endr",
                        block = in(reg) block.as_ptr(),
                        out("xmm0") _,
                        options(nostack, readonly, preserves_flags),
                    );
                }
            }
        }
    };
}

reads!(read512, "avx512f", "0,64,128,192,256,320,384,448", r"vmovdqu64 zmm0, [{block} + \at]");
reads!(
    read256,
    "avx2",
    "0,32,64,96,128,160,192,224,256,288,320,352,384,416,448,480",
    r"vmovdqu ymm0, [{block} + \at]"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_do_what_they_count() {
        for probe in Peak::all() {
            assert_eq!(probe.run(3) % UNROLLED, 0, "{}", probe.name());
            assert!(probe.run(2) == 2 * probe.run(1) && probe.run(0) == probe.run(1));
        }
        if is_x86_feature_detected!("avx2") {
            assert_eq!(read(&[0; 1300]), Some(1024));
            assert_eq!(read(&[]), Some(0));
        }
    }
}
