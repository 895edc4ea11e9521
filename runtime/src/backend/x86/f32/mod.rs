//! Layers of `f32` with weights repacked for wide registers.
//!
//! A layer is made once, for images at given [`Place`]s in memory, and holds its weights and where each tile of it reads and writes. Its
//! `run` only checks that the buffers reach as far as these places. Images that a convolution reads have their padding around them, as zeros.
//!
//! Windows of three by three take fewer products where that pays ([`Winograd`]). Sums are in another order than those of
//! [`crate::backend::Scalar`], and products are not rounded: results agree as sums of floats do.

mod conv2d;
mod dense;
mod depthwise_conv2d;
mod elementwise;
mod lanes;
mod layer;
mod multiplied;
mod pool2d;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
mod tile;
mod winograd;

pub use conv2d::Conv2d;
pub use dense::{Dense, Weights};
pub use depthwise_conv2d::DepthwiseConv2d;
pub use elementwise::{add, mul};
pub use layer::{layer, wants};
pub use multiplied::Multiplied;
pub use pool2d::{AveragePool2d, MaxPool2d};
pub use winograd::Winograd;

use std::sync::OnceLock;

/// The instruction sets that these layers know. Having one proves that the processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    registers: Registers,
    /// Whether instructions can name 32 registers of 256 bits.
    many: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registers {
    Bits256,
    Bits512,
}

impl Width {
    /// AVX2 with FMA and F16C.
    pub fn avx2() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        there.then_some(Self { registers: Registers::Bits256, many: false })
    }

    /// AVX-512 of all vector lengths, and all of AVX2.
    pub fn avx512() -> Option<Self> {
        Self::avx2()?;
        let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        there.then_some(Self { registers: Registers::Bits512, many: true })
    }

    fn halved(self) -> Self {
        Self { registers: Registers::Bits256, ..self }
    }

    /// The width for this many channels: half registers where whole ones would stay half empty.
    fn narrowest(self, channels: usize) -> Self {
        if channels <= 8 { self.halved() } else { self }
    }

    /// The width at which binary16 becomes binary32 fastest. AMD's family 19h converts whole registers of 512 bits at half the rate.
    fn converting(self) -> Self {
        if amd_family() == Some(0x19) { self.halved() } else { self }
    }

    /// Whether a clock has as many reads as products: AMD's family 19h multiplies one register of 512 bits while it reads two numbers.
    fn reads_keep_up(self) -> bool {
        self.registers == Registers::Bits512 && amd_family() == Some(0x19)
    }

    /// Whether units of their own add while others multiply: AMD's from family 17h on.
    fn adds_beside(self) -> bool {
        amd_family().is_some_and(|family| family >= 0x17)
    }

    /// Floats in a register.
    fn lanes(self) -> usize {
        match self.registers {
            Registers::Bits256 => 8,
            Registers::Bits512 => 16,
        }
    }
}

/// The processor's family, if it is one of AMD's. Asked once: a virtual machine answers slowly.
fn amd_family() -> Option<u32> {
    use core::arch::x86_64::__cpuid;
    static FAMILY: OnceLock<Option<u32>> = OnceLock::new();
    *FAMILY.get_or_init(|| {
        let vendor = __cpuid(0);
        let amd =
            [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD";
        let signature = __cpuid(1).eax;
        amd.then_some((signature >> 8 & 0xF) + (signature >> 20 & 0xFF))
    })
}

/// Where images lie in a buffer, in elements: channels side by side, rows and pixels at any distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first pixel of the first image.
    pub start: usize,
    /// From a pixel to the next of a row.
    pub pixel: usize,
    /// From a row to the next.
    pub row: usize,
    /// From an image to the next.
    pub image: usize,
}

impl Place {
    /// Elements from the first pixel to behind the last of `extents` (images, rows, columns), of so many channels.
    pub fn span(&self, [images, rows, columns]: [usize; 3], channels: usize) -> usize {
        (images - 1) * self.image + (rows - 1) * self.row + (columns - 1) * self.pixel + channels
    }
}

/// A cache line of 16 words.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Floats, or twice as many of 16 bits, that start a cache line; the last line is filled up with zeros.
#[derive(Clone, Debug)]
struct Aligned(Vec<Line>);

impl Aligned {
    fn new(floats: usize) -> Self {
        Self(vec![Line::default(); floats.div_ceil(16)])
    }

    fn set(&mut self, at: usize, value: f32) -> Option<()> {
        *self.0.get_mut(at / 16)?.0.get_mut(at % 16)? = value.to_bits();
        Some(())
    }

    /// As [`Aligned::set`], for a number of 16 bits at a place counted in such.
    fn set_half(&mut self, at: usize, bits: u16) -> Option<()> {
        let pair = self.0.get_mut(at / 32)?.0.get_mut(at / 2 % 16)?;
        let shift = at % 2 * 16;
        *pair = *pair & !(0xFFFF << shift) | u32::from(bits) << shift;
        Some(())
    }

    fn pointer(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }
}
