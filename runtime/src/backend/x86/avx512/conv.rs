//! Convolutions and dense layers of several rows: blocks of output positions times vectors of 16 output channels, all in registers.
//!
//! A step of the inner loop takes four bytes under each window, one 32-bit broadcast a position, and multiplies them with four weights of every
//! output channel. Weights lie in the order of use: `[group][run][four bytes][vector][channel][byte]`, with zeros behind a run whose length is no
//! multiple of four. Channels stand in the order in which packing to bytes leaves them natural.

use core::arch::asm;
use core::arch::x86_64::*;

use super::super::geometry::Geometry;
use super::super::requantize::{self, Channel, Factors, LANES, Mode};
use super::finish::{Bounds, order, pack_halves, words};
use super::pipelined;
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};
use crate::ops::linear::Integer;

/// Everything that a kernel needs of one group of output channels.
pub struct Call {
    pub input: *const u8,
    pub output: *mut u8,
    pub weights: *const u8,
    pub factors: *const Factors,
    /// For each step, the distance from a window's first byte; and the same for the window beside it.
    pub steps: *const [u64; 2],
    pub step_count: usize,
    /// For each block, the first bytes of its windows.
    pub inputs: *const u32,
    /// For each block, the first bytes of its outputs.
    pub outputs: *const u32,
    pub blocks: usize,
    /// Channels of a position, a bit each.
    pub mask: u64,
    /// Positions whose channels together fill 64 bytes lie side by side.
    pub joined: bool,
    pub bounds: Bounds,
}

pub type Kernel = unsafe fn(&Call);

/// A kernel for blocks of some positions and some vectors of channels: the inner loop in assembly, so that all sums stay in registers, and
/// what follows it.
macro_rules! tile {
    (
        $name:ident, $vector:ident, $biases:ident, $store:ident, $vectors:literal vectors, $positions:literal positions,
        pointers [$($pointer:ident $index:literal),*], bases [$($base:ident $second:literal),*],
        weights [$($weight:tt $at:literal),*], data [$($scratch:tt),*], advance $advance:literal,
        $({ $from:ident $place:ident $data:tt: $($sum:tt $name_of:ident $bias:literal $factor:tt),* })*,
        stores $($first:literal [$($value:ident),*])*
    ) => {
        /// # Safety
        /// The call's pointers are those of a layer that was checked against its frame; the mode is that of its factors.
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        unsafe fn $name<const MODE: u8>(call: &Call) {
            const POINTERS: usize = [$($index),*].len();
            for block in 0..call.blocks {
                // SAFETY: tables have an entry for each block. The assembly reads `step_count` entries of `steps`, 64 bytes of weights a vector
                // and step, and four bytes at each window and step, all inside the buffers (the caller's). It writes registers alone and equals
                // `sum[p][v] += dot(input[p + step .. + 4], weights[step][v])` with sums modulo 2^32.
                unsafe {
                    let biases = $biases::<$vectors>(call.factors);
                    let windows = call.inputs.add(block * POINTERS);
                    $(let $pointer = call.input.add(*windows.add($index) as usize);)*
                    $($(let $name_of: $vector;)*)*
                    asm!(
                        "2:",
                        $(concat!("mov {", stringify!($base), "}, qword ptr [{steps} + ", $second, "]"),)*
                        $(concat!("vmovdqa64 ", $weight, ", [{weights} + ", $at, "]"),)*
                        $(
                            concat!("vpbroadcastd ", $data, ", dword ptr [{", stringify!($from), "} + {", stringify!($place), "}]"),
                            $(concat!("vpdpbusd ", $sum, ", ", $data, ", ", $factor),)*
                        )*
                        "add {steps}, 16",
                        concat!("add {weights}, ", $advance),
                        "dec {count}",
                        "jnz 2b",
                        steps = inout(reg) call.steps => _,
                        weights = inout(reg) call.weights => _,
                        count = inout(reg) call.step_count => _,
                        $($base = out(reg) _,)*
                        $($pointer = in(reg) $pointer,)*
                        $($(inout($sum) biases[$bias] => $name_of,)*)*
                        $(out($weight) _,)*
                        $(out($scratch) _,)*
                        options(nostack, readonly),
                    );
                    let outputs = call.outputs.add(block * $positions);
                    $($store!(MODE, $vectors, call, outputs.add($first), [$($value),*]);)*
                }
            }
        }
    };
}

/// Biases of some vectors.
///
/// # Safety
/// There are `VECTORS` factors.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn biases<const VECTORS: usize>(factors: *const Factors) -> [__m512i; VECTORS] {
    let mut biases = [_mm512_setzero_si512(); VECTORS];
    for (v, bias) in biases.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *bias = unsafe { _mm512_load_si512(factors.add(v).cast()) };
    }
    biases
}

/// Biases of half a vector.
///
/// # Safety
/// There is one vector of factors.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn half_biases<const VECTORS: usize>(factors: *const Factors) -> [__m256i; VECTORS] {
    // SAFETY: the caller's.
    [unsafe { _mm256_load_si256(factors.cast()) }; VECTORS]
}

/// Requantises, packs and stores the sums of as many positions as fill 64 bytes, or of one. A macro, for a function would not always be inlined.
macro_rules! store {
    ($mode:ident, $vectors:literal, $call:ident, $outputs:expr, [$a:ident, $b:ident, $c:ident, $d:ident]) => {{
        let vectors: usize = $vectors;
        let factors = |k: usize| $call.factors.add(k % vectors);
        let low = words::<$mode>([$a, $b], [factors(0), factors(1)], &$call.bounds);
        let high = words::<$mode>([$c, $d], [factors(2), factors(3)], &$call.bounds);
        store_bytes!($vectors, $call, $outputs, pack_halves(low, high, &$call.bounds));
    }};
    ($mode:ident, $vectors:literal, $call:ident, $outputs:expr, [$a:ident, $b:ident, $c:ident]) => {{
        let low = words::<$mode>([$a, $b], [$call.factors, $call.factors.add(1)], &$call.bounds);
        let high = words::<$mode>([$c, $c], [$call.factors.add(2); 2], &$call.bounds);
        store_bytes!($vectors, $call, $outputs, pack_halves(low, high, &$call.bounds));
    }};
}

/// As `store`, for eight positions of at most eight channels: two of them fill a vector, whose factors stand there twice.
macro_rules! store_halves {
    (
        $mode:ident, $vectors:literal, $call:ident, $outputs:expr,
        [$a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident]
    ) => {{
        let both = |low, high| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        let pair = |sums| words::<$mode>(sums, [$call.factors; 2], &$call.bounds);
        let (low, high) = (pair([both($a, $b), both($c, $d)]), pair([both($e, $f), both($g, $h)]));
        store_bytes!(0, $call, $outputs, pack_halves(low, high, &$call.bounds));
    }};
}

/// Stores packed positions.
macro_rules! store_bytes {
    ($vectors:literal, $call:ident, $outputs:expr, $packed:expr) => {{
        // Half a vector stands like a whole one.
        const ORDER: [u32; LANES] = order(if $vectors == 0 { 1 } else { $vectors });
        let bytes = match $vectors {
            4 => $packed,
            _ => _mm512_permutexvar_epi32(_mm512_loadu_si512(ORDER.as_ptr().cast()), $packed),
        };
        store_permuted!($vectors, $call, $outputs, bytes);
    }};
}

/// Stores positions whose channels stand side by side.
macro_rules! store_permuted {
    ($vectors:literal, $call:ident, $outputs:expr, $bytes:expr) => {{
        let (bytes, outputs) = ($bytes, $outputs);
        let first = $call.output.add(*outputs as usize);
        if $call.joined {
            _mm512_storeu_si512(first.cast(), bytes);
        } else if $vectors > 2 {
            _mm512_mask_storeu_epi8(first.cast(), $call.mask, bytes);
        } else {
            // Each position's bytes come to the front in turn.
            let (count, shift) = if $vectors == 0 { (8, 1) } else { (4 / $vectors, 2 * $vectors) };
            let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
            for k in 0..count {
                let front = _mm512_add_epi64(lanes, _mm512_set1_epi64(k * shift));
                let part = _mm512_castsi512_si256(_mm512_permutexvar_epi64(front, bytes));
                let place = $call.output.add(*outputs.add(k as usize) as usize);
                _mm256_mask_storeu_epi8(place.cast(), $call.mask as u32, part);
            }
        }
    }};
}

pub(super) use {store, store_bytes, store_permuted};

tile! {
    tile_4x6, __m512i, biases, store, 4 vectors, 6 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5], bases [k 0],
    weights ["zmm24" 0, "zmm25" 64, "zmm26" 128, "zmm27" 192], data ["zmm28", "zmm29", "zmm30", "zmm31"], advance 256,
    { k p0 "zmm28": "zmm0" s0a 0 "zmm24", "zmm1" s0b 1 "zmm25", "zmm2" s0c 2 "zmm26", "zmm3" s0d 3 "zmm27" }
    { k p1 "zmm29": "zmm4" s1a 0 "zmm24", "zmm5" s1b 1 "zmm25", "zmm6" s1c 2 "zmm26", "zmm7" s1d 3 "zmm27" }
    { k p2 "zmm30": "zmm8" s2a 0 "zmm24", "zmm9" s2b 1 "zmm25", "zmm10" s2c 2 "zmm26", "zmm11" s2d 3 "zmm27" }
    { k p3 "zmm31": "zmm12" s3a 0 "zmm24", "zmm13" s3b 1 "zmm25", "zmm14" s3c 2 "zmm26", "zmm15" s3d 3 "zmm27" }
    { k p4 "zmm28": "zmm16" s4a 0 "zmm24", "zmm17" s4b 1 "zmm25", "zmm18" s4c 2 "zmm26", "zmm19" s4d 3 "zmm27" }
    { k p5 "zmm29": "zmm20" s5a 0 "zmm24", "zmm21" s5b 1 "zmm25", "zmm22" s5c 2 "zmm26", "zmm23" s5d 3 "zmm27" },
    stores 0 [s0a, s0b, s0c, s0d]
        1 [s1a, s1b, s1c, s1d]
        2 [s2a, s2b, s2c, s2d]
        3 [s3a, s3b, s3c, s3d]
        4 [s4a, s4b, s4c, s4d]
        5 [s5a, s5b, s5c, s5d]
}

tile! {
    tile_4x5, __m512i, biases, store, 4 vectors, 5 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4], bases [k 0],
    weights ["zmm20" 0, "zmm21" 64, "zmm22" 128, "zmm23" 192], data ["zmm24", "zmm25", "zmm26", "zmm27"], advance 256,
    { k p0 "zmm24": "zmm0" s0a 0 "zmm20", "zmm1" s0b 1 "zmm21", "zmm2" s0c 2 "zmm22", "zmm3" s0d 3 "zmm23" }
    { k p1 "zmm25": "zmm4" s1a 0 "zmm20", "zmm5" s1b 1 "zmm21", "zmm6" s1c 2 "zmm22", "zmm7" s1d 3 "zmm23" }
    { k p2 "zmm26": "zmm8" s2a 0 "zmm20", "zmm9" s2b 1 "zmm21", "zmm10" s2c 2 "zmm22", "zmm11" s2d 3 "zmm23" }
    { k p3 "zmm27": "zmm12" s3a 0 "zmm20", "zmm13" s3b 1 "zmm21", "zmm14" s3c 2 "zmm22", "zmm15" s3d 3 "zmm23" }
    { k p4 "zmm24": "zmm16" s4a 0 "zmm20", "zmm17" s4b 1 "zmm21", "zmm18" s4c 2 "zmm22", "zmm19" s4d 3 "zmm23" },
    stores 0 [s0a, s0b, s0c, s0d]
        1 [s1a, s1b, s1c, s1d]
        2 [s2a, s2b, s2c, s2d]
        3 [s3a, s3b, s3c, s3d]
        4 [s4a, s4b, s4c, s4d]
}

tile! {
    tile_4x4, __m512i, biases, store, 4 vectors, 4 positions, pointers [p0 0, p1 1, p2 2, p3 3], bases [k 0],
    weights ["zmm16" 0, "zmm17" 64, "zmm18" 128, "zmm19" 192], data ["zmm20", "zmm21", "zmm22", "zmm23"], advance 256,
    { k p0 "zmm20": "zmm0" s0a 0 "zmm16", "zmm1" s0b 1 "zmm17", "zmm2" s0c 2 "zmm18", "zmm3" s0d 3 "zmm19" }
    { k p1 "zmm21": "zmm4" s1a 0 "zmm16", "zmm5" s1b 1 "zmm17", "zmm6" s1c 2 "zmm18", "zmm7" s1d 3 "zmm19" }
    { k p2 "zmm22": "zmm8" s2a 0 "zmm16", "zmm9" s2b 1 "zmm17", "zmm10" s2c 2 "zmm18", "zmm11" s2d 3 "zmm19" }
    { k p3 "zmm23": "zmm12" s3a 0 "zmm16", "zmm13" s3b 1 "zmm17", "zmm14" s3c 2 "zmm18", "zmm15" s3d 3 "zmm19" },
    stores 0 [s0a, s0b, s0c, s0d]
        1 [s1a, s1b, s1c, s1d]
        2 [s2a, s2b, s2c, s2d]
        3 [s3a, s3b, s3c, s3d]
}

tile! {
    tile_4x3, __m512i, biases, store, 4 vectors, 3 positions, pointers [p0 0, p1 1, p2 2], bases [k 0],
    weights ["zmm12" 0, "zmm13" 64, "zmm14" 128, "zmm15" 192], data ["zmm16", "zmm17", "zmm18"], advance 256,
    { k p0 "zmm16": "zmm0" s0a 0 "zmm12", "zmm1" s0b 1 "zmm13", "zmm2" s0c 2 "zmm14", "zmm3" s0d 3 "zmm15" }
    { k p1 "zmm17": "zmm4" s1a 0 "zmm12", "zmm5" s1b 1 "zmm13", "zmm6" s1c 2 "zmm14", "zmm7" s1d 3 "zmm15" }
    { k p2 "zmm18": "zmm8" s2a 0 "zmm12", "zmm9" s2b 1 "zmm13", "zmm10" s2c 2 "zmm14", "zmm11" s2d 3 "zmm15" },
    stores 0 [s0a, s0b, s0c, s0d]
        1 [s1a, s1b, s1c, s1d]
        2 [s2a, s2b, s2c, s2d]
}

tile! {
    tile_4x2, __m512i, biases, store, 4 vectors, 2 positions, pointers [p0 0, p1 1], bases [k 0],
    weights ["zmm8" 0, "zmm9" 64, "zmm10" 128, "zmm11" 192], data ["zmm12", "zmm13"], advance 256,
    { k p0 "zmm12": "zmm0" s0a 0 "zmm8", "zmm1" s0b 1 "zmm9", "zmm2" s0c 2 "zmm10", "zmm3" s0d 3 "zmm11" }
    { k p1 "zmm13": "zmm4" s1a 0 "zmm8", "zmm5" s1b 1 "zmm9", "zmm6" s1c 2 "zmm10", "zmm7" s1d 3 "zmm11" },
    stores 0 [s0a, s0b, s0c, s0d]
        1 [s1a, s1b, s1c, s1d]
}

tile! {
    tile_3x8, __m512i, biases, store, 3 vectors, 8 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5, p6 6, p7 7], bases [k 0],
    weights ["zmm24" 0, "zmm25" 64, "zmm26" 128], data ["zmm27", "zmm28", "zmm29", "zmm30"], advance 192,
    { k p0 "zmm27": "zmm0" s0a 0 "zmm24", "zmm1" s0b 1 "zmm25", "zmm2" s0c 2 "zmm26" }
    { k p1 "zmm28": "zmm3" s1a 0 "zmm24", "zmm4" s1b 1 "zmm25", "zmm5" s1c 2 "zmm26" }
    { k p2 "zmm29": "zmm6" s2a 0 "zmm24", "zmm7" s2b 1 "zmm25", "zmm8" s2c 2 "zmm26" }
    { k p3 "zmm30": "zmm9" s3a 0 "zmm24", "zmm10" s3b 1 "zmm25", "zmm11" s3c 2 "zmm26" }
    { k p4 "zmm27": "zmm12" s4a 0 "zmm24", "zmm13" s4b 1 "zmm25", "zmm14" s4c 2 "zmm26" }
    { k p5 "zmm28": "zmm15" s5a 0 "zmm24", "zmm16" s5b 1 "zmm25", "zmm17" s5c 2 "zmm26" }
    { k p6 "zmm29": "zmm18" s6a 0 "zmm24", "zmm19" s6b 1 "zmm25", "zmm20" s6c 2 "zmm26" }
    { k p7 "zmm30": "zmm21" s7a 0 "zmm24", "zmm22" s7b 1 "zmm25", "zmm23" s7c 2 "zmm26" },
    stores 0 [s0a, s0b, s0c]
        1 [s1a, s1b, s1c]
        2 [s2a, s2b, s2c]
        3 [s3a, s3b, s3c]
        4 [s4a, s4b, s4c]
        5 [s5a, s5b, s5c]
        6 [s6a, s6b, s6c]
        7 [s7a, s7b, s7c]
}

tile! {
    tile_3x4, __m512i, biases, store, 3 vectors, 4 positions, pointers [p0 0, p1 1, p2 2, p3 3], bases [k 0],
    weights ["zmm12" 0, "zmm13" 64, "zmm14" 128], data ["zmm15", "zmm16", "zmm17", "zmm18"], advance 192,
    { k p0 "zmm15": "zmm0" s0a 0 "zmm12", "zmm1" s0b 1 "zmm13", "zmm2" s0c 2 "zmm14" }
    { k p1 "zmm16": "zmm3" s1a 0 "zmm12", "zmm4" s1b 1 "zmm13", "zmm5" s1c 2 "zmm14" }
    { k p2 "zmm17": "zmm6" s2a 0 "zmm12", "zmm7" s2b 1 "zmm13", "zmm8" s2c 2 "zmm14" }
    { k p3 "zmm18": "zmm9" s3a 0 "zmm12", "zmm10" s3b 1 "zmm13", "zmm11" s3c 2 "zmm14" },
    stores 0 [s0a, s0b, s0c]
        1 [s1a, s1b, s1c]
        2 [s2a, s2b, s2c]
        3 [s3a, s3b, s3c]
}

tile! {
    tile_2x8, __m512i, biases, store, 2 vectors, 8 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5, p6 6, p7 7], bases [k 0],
    weights ["zmm16" 0, "zmm17" 64], data ["zmm18", "zmm19", "zmm20", "zmm21"], advance 128,
    { k p0 "zmm18": "zmm0" s0a 0 "zmm16", "zmm1" s0b 1 "zmm17" }
    { k p1 "zmm19": "zmm2" s1a 0 "zmm16", "zmm3" s1b 1 "zmm17" }
    { k p2 "zmm20": "zmm4" s2a 0 "zmm16", "zmm5" s2b 1 "zmm17" }
    { k p3 "zmm21": "zmm6" s3a 0 "zmm16", "zmm7" s3b 1 "zmm17" }
    { k p4 "zmm18": "zmm8" s4a 0 "zmm16", "zmm9" s4b 1 "zmm17" }
    { k p5 "zmm19": "zmm10" s5a 0 "zmm16", "zmm11" s5b 1 "zmm17" }
    { k p6 "zmm20": "zmm12" s6a 0 "zmm16", "zmm13" s6b 1 "zmm17" }
    { k p7 "zmm21": "zmm14" s7a 0 "zmm16", "zmm15" s7b 1 "zmm17" },
    stores 0 [s0a, s0b, s1a, s1b]
        2 [s2a, s2b, s3a, s3b]
        4 [s4a, s4b, s5a, s5b]
        6 [s6a, s6b, s7a, s7b]
}

tile! {
    tile_2x4, __m512i, biases, store, 2 vectors, 4 positions, pointers [p0 0, p1 1, p2 2, p3 3], bases [k 0],
    weights ["zmm8" 0, "zmm9" 64], data ["zmm10", "zmm11", "zmm12", "zmm13"], advance 128,
    { k p0 "zmm10": "zmm0" s0a 0 "zmm8", "zmm1" s0b 1 "zmm9" }
    { k p1 "zmm11": "zmm2" s1a 0 "zmm8", "zmm3" s1b 1 "zmm9" }
    { k p2 "zmm12": "zmm4" s2a 0 "zmm8", "zmm5" s2b 1 "zmm9" }
    { k p3 "zmm13": "zmm6" s3a 0 "zmm8", "zmm7" s3b 1 "zmm9" },
    stores 0 [s0a, s0b, s1a, s1b]
        2 [s2a, s2b, s3a, s3b]
}

tile! {
    tile_1x16, __m512i, biases, store, 1 vectors, 16 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5, p6 6, p7 7], bases [k 0, l 8],
    weights ["zmm16" 0], data ["zmm17", "zmm18", "zmm19", "zmm20"], advance 64,
    { k p0 "zmm17": "zmm0" s0a 0 "zmm16" }
    { l p0 "zmm18": "zmm1" s1a 0 "zmm16" }
    { k p1 "zmm19": "zmm2" s2a 0 "zmm16" }
    { l p1 "zmm20": "zmm3" s3a 0 "zmm16" }
    { k p2 "zmm17": "zmm4" s4a 0 "zmm16" }
    { l p2 "zmm18": "zmm5" s5a 0 "zmm16" }
    { k p3 "zmm19": "zmm6" s6a 0 "zmm16" }
    { l p3 "zmm20": "zmm7" s7a 0 "zmm16" }
    { k p4 "zmm17": "zmm8" s8a 0 "zmm16" }
    { l p4 "zmm18": "zmm9" s9a 0 "zmm16" }
    { k p5 "zmm19": "zmm10" s10a 0 "zmm16" }
    { l p5 "zmm20": "zmm11" s11a 0 "zmm16" }
    { k p6 "zmm17": "zmm12" s12a 0 "zmm16" }
    { l p6 "zmm18": "zmm13" s13a 0 "zmm16" }
    { k p7 "zmm19": "zmm14" s14a 0 "zmm16" }
    { l p7 "zmm20": "zmm15" s15a 0 "zmm16" },
    stores 0 [s0a, s1a, s2a, s3a]
        4 [s4a, s5a, s6a, s7a]
        8 [s8a, s9a, s10a, s11a]
        12 [s12a, s13a, s14a, s15a]
}

tile! {
    tile_1x4, __m512i, biases, store, 1 vectors, 4 positions, pointers [p0 0, p1 1, p2 2, p3 3], bases [k 0],
    weights ["zmm4" 0], data ["zmm5", "zmm6", "zmm7", "zmm8"], advance 64,
    { k p0 "zmm5": "zmm0" s0a 0 "zmm4" }
    { k p1 "zmm6": "zmm1" s1a 0 "zmm4" }
    { k p2 "zmm7": "zmm2" s2a 0 "zmm4" }
    { k p3 "zmm8": "zmm3" s3a 0 "zmm4" },
    stores 0 [s0a, s1a, s2a, s3a]
}

tile! {
    tile_half, __m256i, half_biases, store_halves, 1 vectors, 16 positions, pointers [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5, p6 6, p7 7], bases [k 0, l 8],
    weights ["ymm16" 0], data ["ymm17", "ymm18", "ymm19", "ymm20"], advance 32,
    { k p0 "ymm17": "ymm0" s0a 0 "ymm16" }
    { l p0 "ymm18": "ymm1" s1a 0 "ymm16" }
    { k p1 "ymm19": "ymm2" s2a 0 "ymm16" }
    { l p1 "ymm20": "ymm3" s3a 0 "ymm16" }
    { k p2 "ymm17": "ymm4" s4a 0 "ymm16" }
    { l p2 "ymm18": "ymm5" s5a 0 "ymm16" }
    { k p3 "ymm19": "ymm6" s6a 0 "ymm16" }
    { l p3 "ymm20": "ymm7" s7a 0 "ymm16" }
    { k p4 "ymm17": "ymm8" s8a 0 "ymm16" }
    { l p4 "ymm18": "ymm9" s9a 0 "ymm16" }
    { k p5 "ymm19": "ymm10" s10a 0 "ymm16" }
    { l p5 "ymm20": "ymm11" s11a 0 "ymm16" }
    { k p6 "ymm17": "ymm12" s12a 0 "ymm16" }
    { l p6 "ymm18": "ymm13" s13a 0 "ymm16" }
    { k p7 "ymm19": "ymm14" s14a 0 "ymm16" }
    { l p7 "ymm20": "ymm15" s15a 0 "ymm16" },
    stores 0 [s0a, s1a, s2a, s3a, s4a, s5a, s6a, s7a]
        8 [s8a, s9a, s10a, s11a, s12a, s13a, s14a, s15a]
}

/// The channel of a group that stands in a lane of a vector.
pub fn channel(vectors: usize, vector: usize, lane: usize) -> usize {
    let (quarter, place) = (lane / 4, lane % 4);
    if vectors > 4 {
        return vector / 4 * 64 + channel(4, vector % 4, lane);
    }
    match vectors {
        // Half a vector, twice.
        0 => lane % 8,
        _ => quarter * 4 * vectors + 4 * vector + place,
    }
}

/// The kernel of a tile and a mode.
fn kernel([vectors, positions]: [usize; 2], mode: Mode) -> Option<Kernel> {
    macro_rules! of {
        ($($vectors:literal $positions:literal $tile:ident),*) => {
            match (vectors, positions, mode) {
                $(
                    ($vectors, $positions, Mode::Float) => Some($tile::<{ requantize::FLOAT }>),
                    ($vectors, $positions, Mode::SignedFloat) => Some($tile::<{ requantize::SIGNED_FLOAT }>),
                    ($vectors, $positions, Mode::Corrected) => Some($tile::<{ requantize::CORRECTED }>),
                    ($vectors, $positions, Mode::SignedCorrected) => Some($tile::<{ requantize::SIGNED_CORRECTED }>),
                    ($vectors, $positions, Mode::Twice) => Some($tile::<{ requantize::TWICE }>),
                    ($vectors, $positions, Mode::SignedTwice) => Some($tile::<{ requantize::SIGNED_TWICE }>),
                    ($vectors, $positions, Mode::Mixed) => Some($tile::<{ requantize::MIXED }>),
                    ($vectors, $positions, Mode::SignedMixed) => Some($tile::<{ requantize::SIGNED_MIXED }>),
                    ($vectors, $positions, Mode::Definition) => Some($tile::<{ requantize::DEFINITION }>),
                )*
                _ => None,
            }
        };
    }
    of!(
        4 6 tile_4x6, 4 5 tile_4x5, 4 4 tile_4x4, 4 3 tile_4x3, 4 2 tile_4x2, 3 8 tile_3x8, 3 4 tile_3x4, 2 8 tile_2x8, 2 4 tile_2x4, 1 16 tile_1x16, 1 4 tile_1x4, 0 16 tile_half
    )
}

/// Channels of half a vector.
const HALF: usize = LANES / 2;

/// Positions from which tiles of sixteen pay.
const MANY: usize = 12;

/// Positions of tiles that take windows in pairs.
const PAIRED: usize = 16;

/// How many positions a tile of some vectors takes, for an image of some positions.
fn tile_positions(vectors: usize, count: usize, pairs: bool) -> usize {
    let sizes: &[usize] = match vectors {
        4 => &[6, 5, 4, 3, 2],
        3 | 2 => &[8, 4],
        0 => &[PAIRED],
        _ if pairs && count >= MANY => &[PAIRED],
        _ => &[4],
    };
    let sizes = if vectors == 3 || vectors == 2 || vectors == 4 { sizes } else { return sizes[0] };
    // Two products a cycle; a loop of less than eight waits for its own sums.
    let cycles = |size: usize| count.div_ceil(size) * ((size * vectors).max(8) + 2);
    sizes.iter().copied().min_by_key(|&size| cycles(size)).unwrap_or(4)
}

/// A group of output channels.
#[derive(Debug)]
struct Group {
    kernel: Kernel,
    /// Which of the layer's tables it takes.
    table: [usize; 2],
    /// Bytes from the layer's windows and outputs to the group's.
    input: usize,
    output: usize,
    /// Bytes of constants before the group's.
    weights: usize,
    factors: usize,
    mask: u64,
    joined: bool,
}

/// Channels of a position's vectors; of no vector those of half a one.
fn lanes(vectors: usize) -> usize {
    if vectors == 0 { LANES / 2 } else { vectors * LANES }
}

/// The tiles of a group of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiles {
    /// Vectors of channels; 0: half a one.
    vectors: usize,
    /// Whether requantisation runs inside the next block's products.
    pipelined: bool,
}

impl Tiles {
    /// The best for some channels, steps and positions.
    fn of(channels: usize, steps: usize, positions: usize, pairs: bool, bounds: &Bounds) -> Self {
        if channels <= HALF && pairs && positions >= MANY {
            return Self { vectors: 0, pipelined: false };
        }
        let vectors = match (channels.min(64).div_ceil(LANES), channels % LANES) {
            // Half a vector goes alone where it is all that another vector would hold, and three have no blocks of twelve sums.
            (2, 1..=HALF) if pairs && positions >= MANY => 1,
            (3, _) if pipelined::vectors(2, steps).is_some() && positions >= MANY => 2,
            (vectors, _) => vectors,
        };
        match pipelined::vectors(vectors, steps) {
            Some(some)
                if positions >= pipelined::positions(some) && (pairs || some > 1) && !bounds.are_narrow() =>
            {
                Self { vectors: some, pipelined: true }
            }
            _ => Self { vectors, pipelined: false },
        }
    }

    /// The blocks of all positions: pipelined ones first, then what they leave. In images of several `columns` tiles of one vector take windows
    /// in pairs that lie side by side.
    fn tables(self, positions: &[[usize; 2]], columns: Option<usize>) -> Vec<Table> {
        let vectors = self.vectors;
        let size = |count: usize| tile_positions(vectors, count, columns.is_some());
        if !self.pipelined {
            let size = size(positions.len());
            return match columns.filter(|_| size == PAIRED) {
                Some(columns) => vec![Table::new(&in_pairs(positions, columns), size, true)],
                None => vec![Table::new(positions, size, false)],
            };
        }
        let list = match columns.filter(|_| vectors == 1) {
            Some(columns) => in_pairs(positions, columns),
            None => positions.to_vec(),
        };
        let block = pipelined::positions(vectors);
        let rest = list.len() % block;
        // One or two positions of four vectors would wait for their own sums.
        let rest = if vectors == 4 && rest > 0 && list.len() >= 2 * block { rest + block } else { rest };
        let (whole, rest) = list.split_at(list.len() - rest);
        let mut tables = vec![Table::new(whole, block, vectors == 1)];
        if !rest.is_empty() {
            tables.push(Table::new(rest, size(rest.len()), false));
        }
        tables
    }
}

/// Positions so that every second lies beside the one before it: the last pair of an odd row overlaps the one before.
fn in_pairs(positions: &[[usize; 2]], columns: usize) -> Vec<[usize; 2]> {
    let pairs = |row: &[[usize; 2]]| -> Vec<[usize; 2]> {
        let firsts = (0..columns.div_ceil(2)).map(|k| (2 * k).min(columns - 2));
        firsts.flat_map(|at| [row[at], row[at + 1]]).collect()
    };
    positions.chunks_exact(columns).flat_map(pairs).collect()
}

/// Positions in blocks of a size.
#[derive(Debug)]
struct Table {
    size: usize,
    blocks: usize,
    inputs: Vec<u32>,
    outputs: Vec<u32>,
}

/// A convolution, or a dense layer over several rows.
#[derive(Debug)]
pub struct Conv {
    groups: Vec<Group>,
    tables: Vec<Vec<Table>>,
    steps: Vec<[u64; 2]>,
    bounds: Bounds,
    /// Bytes of the arena and of the constants that it reads or writes.
    arena_bytes: usize,
    constant_bytes: usize,
}

impl Conv {
    /// The layer. Weights are in the operator's order: `weight(o, k)` is weight `k` of output channel `o`.
    pub fn new(
        geometry: &Geometry,
        linear: &Integer<'_>,
        weight: &impl Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let (runs, length) = geometry.runs(input);
        let quads = length.div_ceil(4);
        let columns = &geometry.window.columns;
        let distance = columns.stride * input.pixel();
        let steps: Vec<[u64; 2]> = runs
            .iter()
            .flat_map(|&run| (0..quads).map(move |quad| run + 4 * quad))
            .map(|at| [at as u64, (at + distance) as u64])
            .collect();
        let positions = geometry.positions(input, output);
        let pairs = Some(columns.output).filter(|&columns| columns >= 2);
        let bounds =
            Bounds { zero: linear.output_zero as i16, low: linear.low as i8, high: linear.high as i8 };
        let mut tables: Vec<(Tiles, Vec<Table>)> = Vec::new();
        let mut groups = Vec::new();
        let (group_inputs, group_outputs) = (geometry.group_inputs(), geometry.group_outputs());
        let depth = runs.len() * length;
        for group in 0..geometry.groups {
            let mut first = 0;
            while first < group_outputs {
                let left = group_outputs - first;
                let mut tiles = Tiles::of(left, steps.len(), positions.len(), pairs.is_some(), &bounds);
                let channels = left.min(lanes(tiles.vectors));
                let at = group * group_outputs + first;
                let (mode, mut factors, weights) = pack_group(
                    &|o| Channel::new(linear, at + o, (0..depth).map(|k| weight(at + o, k))),
                    [channels, tiles.vectors],
                    [runs.len(), length],
                    // Tiles of one vector have time behind them.
                    tiles.pipelined || tiles.vectors <= 1,
                    &|o, k| weight(at + o, k),
                )?;
                let pipe = pipelined::kernel(tiles.vectors, mode);
                let pipe = pipe.filter(|_| tiles.pipelined);
                tiles.pipelined = pipe.is_some();
                factors.push(pipelined::tail(tiles.vectors));
                let place = match tables.iter().position(|(other, _)| *other == tiles) {
                    Some(place) => place,
                    None => {
                        tables.push((tiles, tiles.tables(&positions, pairs)));
                        tables.len() - 1
                    }
                };
                let (weights, factors) = (constants.push(&weights), constants.push(&factors));
                for (part, table) in tables[place].1.iter().enumerate() {
                    let kernel = match pipe {
                        Some(pipe) if part == 0 => pipe,
                        _ => kernel([tiles.vectors, table.size], mode)?,
                    };
                    groups.push(Group {
                        kernel,
                        table: [place, part],
                        input: group * group_inputs,
                        output: at,
                        weights,
                        factors,
                        mask: if channels == 64 { !0 } else { (1 << channels) - 1 },
                        joined: channels == lanes(tiles.vectors) && table.is_joined(tiles.vectors),
                    });
                }
                first += channels;
            }
        }
        let reach =
            steps.iter().map(|[_, far]| *far as usize).max()? + 4 + (geometry.groups - 1) * group_inputs;
        let ends = positions.iter().map(|[from, to]| (from + reach).max(to + geometry.window.outputs));
        Some(Self {
            groups,
            tables: tables.into_iter().map(|(_, tables)| tables).collect(),
            steps,
            bounds,
            arena_bytes: ends.max()?,
            constant_bytes: constants.bytes(),
        })
    }
}

/// Mode, factors and weights of a group of channels; `corrected` as in [`requantize::mode`].
pub fn pack_group(
    channel_of: &dyn Fn(usize) -> Option<Channel>,
    [channels, vectors]: [usize; 2],
    [runs, length]: [usize; 2],
    corrected: bool,
    weight: &dyn Fn(usize, usize) -> i8,
) -> Option<(Mode, Vec<Factors>, Vec<i8>)> {
    let all: Vec<Channel> = (0..channels).map(channel_of).collect::<Option<_>>()?;
    let (mode, floats) = requantize::mode(&all, corrected);
    let lane = |vector: usize, lane: usize| Some(channel(vectors, vector, lane)).filter(|&o| o < channels);
    let factors = (0..vectors.max(1))
        .map(|v| {
            let of = |l: usize| lane(v, l).map(|o| (all[o], floats[o]));
            requantize::factors(mode, core::array::from_fn(of))
        })
        .collect();
    let quads = length.div_ceil(4);
    let mut weights = Vec::with_capacity(runs * quads * lanes(vectors) * 4);
    for run in 0..runs {
        for quad in 0..quads {
            for v in 0..vectors.max(1) {
                for l in 0..lanes(vectors).min(LANES) {
                    for k in 4 * quad..4 * quad + 4 {
                        let found = lane(v, l).filter(|_| k < length);
                        weights.push(found.map_or(0, |o| weight(o, run * length + k)));
                    }
                }
            }
        }
    }
    Some((mode, factors, weights))
}

impl Table {
    /// Blocks of positions; `paired`: windows lie side by side in pairs, of which the first is named.
    fn new(list: &[[usize; 2]], size: usize, paired: bool) -> Self {
        let blocks = list.len().div_ceil(size);
        let each = if paired { 2 } else { 1 };
        // The last block repeats what ends the list, in whole pairs.
        let end = list.len() - each;
        let at = |k: usize| list[if k < list.len() { k } else { end + k % each }];
        let all: Vec<[usize; 2]> = (0..blocks * size).map(at).collect();
        Self {
            size,
            blocks,
            inputs: all.iter().step_by(each).map(|[from, _]| *from as u32).collect(),
            outputs: all.iter().map(|[_, to]| *to as u32).collect(),
        }
    }

    /// Whether positions that fill 64 bytes with all their channels lie side by side.
    fn is_joined(&self, vectors: usize) -> bool {
        let (joint, bytes) = (64 / lanes(vectors), lanes(vectors) as u32);
        let side_by_side = |places: &[u32]| places.windows(2).all(|pair| pair[0] + bytes == pair[1]);
        vectors != 3 && self.outputs.chunks(joint).all(side_by_side)
    }
}

impl Layer for Conv {
    fn name(&self) -> &'static str {
        "conv2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let (arena, constants) = (frame.arena.as_mut_ptr(), frame.constants.as_ptr());
        for group in &self.groups {
            let [place, part] = group.table;
            let table = self.tables.get(place)?.get(part)?;
            // SAFETY: offsets were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
            // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
            unsafe {
                (group.kernel)(&Call {
                    input: arena.add(group.input),
                    output: arena.add(group.output),
                    weights: constants.add(group.weights),
                    factors: constants.add(group.factors).cast(),
                    steps: self.steps.as_ptr(),
                    step_count: self.steps.len(),
                    inputs: table.inputs.as_ptr(),
                    outputs: table.outputs.as_ptr(),
                    blocks: table.blocks,
                    mask: group.mask,
                    joined: group.joined,
                    bounds: self.bounds,
                });
            }
        }
        Some(())
    }
}
