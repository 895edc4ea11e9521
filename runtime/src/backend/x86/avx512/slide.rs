//! 3x3 depthwise windows that slide along a row: what is interleaved for one column of a window serves its neighbours.
//!
//! A row is taken in blocks of 64 bytes: channels of one pixel, or several pixels of 8, 16 or 32 channels. The bytes of four rows of a block are
//! interleaved once; the column of a window that starts some pixels further is another vector of the block, or the vector moved by
//! 128-bit lanes, for interleaving leaves every lane where it was.

use core::arch::asm;
use core::arch::x86_64::*;

use super::super::requantize::{self, Mode};
use super::super::walk::Slide;
use super::depthwise::{Call, Kernel, UNIT, interleave, store_bytes};
use super::finish::{pack_halves, requantize};

/// The interleaved bytes of a block.
type Block = [__m512i; 4];

/// The kernel of a mode. `None`: none for blocks of such pixels.
pub fn kernel(mode: Mode, slide: &Slide) -> Option<Kernel> {
    macro_rules! of {
        ($mode:expr) => {
            match (slide.stride, slide.pixel) {
                (1, 8) => by_one::<{ $mode }, 8, 1> as Kernel,
                (1, 16) => by_one::<{ $mode }, 16, 1>,
                (1, 32) => by_one::<{ $mode }, 32, 1>,
                (1, UNIT) => by_one::<{ $mode }, UNIT, 2>,
                (2, 8) => by_two::<{ $mode }, 8>,
                (2, 16) => by_two::<{ $mode }, 16>,
                (2, 32) => by_two::<{ $mode }, 32>,
                (2, UNIT) => by_two::<{ $mode }, UNIT>,
                _ => return None,
            }
        };
    }
    Some(match mode {
        Mode::Float => of!(requantize::FLOAT),
        Mode::SignedFloat => of!(requantize::SIGNED_FLOAT),
        Mode::Mixed => of!(requantize::MIXED),
        Mode::SignedMixed => of!(requantize::SIGNED_MIXED),
        Mode::Definition => of!(requantize::DEFINITION),
        // Not asked for.
        Mode::Corrected | Mode::SignedCorrected | Mode::Twice | Mode::SignedTwice => return None,
    })
}

/// Vector `v` of block `at`, `columns` pixels further.
#[target_feature(enable = "avx512f")]
#[inline]
fn further<const PIXEL: usize>(blocks: &[Block], at: usize, columns: usize, v: usize) -> __m512i {
    let dwords = columns * (PIXEL / 4) + v;
    let (v, lanes) = (dwords % 4, dwords / 4);
    let (block, lanes) = (at + lanes / 4, lanes % 4);
    match lanes {
        0 => blocks[block][v],
        1 => _mm512_alignr_epi64::<2>(blocks[block + 1][v], blocks[block][v]),
        2 => _mm512_alignr_epi64::<4>(blocks[block + 1][v], blocks[block][v]),
        _ => _mm512_alignr_epi64::<6>(blocks[block + 1][v], blocks[block][v]),
    }
}

/// Adds the products of three columns to the sums of two rows of one block or two, with one load a weight. In assembly, for the compiler would work
/// on several vectors at a time and run out of registers.
macro_rules! products {
    (1, $sums:ident, $tap:ident, $weights:expr) => {
        products!($sums, $weights, [a ($tap(0, 0)) "0", b ($tap(0, 1)) "256", c ($tap(0, 2)) "512"], [])
    };
    (2, $sums:ident, $tap:ident, $weights:expr) => {
        products!(
            $sums, $weights,
            [a ($tap(0, 0)) "0", b ($tap(0, 1)) "256", c ($tap(0, 2)) "512"],
            [d ($tap(1, 0)), e ($tap(1, 1)), f ($tap(1, 2))]
        )
    };
    ($sums:ident, $weights:expr, [$($tap:ident ($near:expr) $at:literal),*], []) => {{
        let (_upper, _lower): (__m512i, __m512i);
        asm!(
            $(
                concat!("vmovdqa64 {upper}, [{weights} + ", $at, "]"),
                concat!("vmovdqa64 {lower}, [{weights} + 768 + ", $at, "]"),
                concat!("vpdpbusd {s0}, {", stringify!($tap), "}, {upper}"),
                concat!("vpdpbusd {s1}, {", stringify!($tap), "}, {lower}"),
            )*
            weights = in(reg) $weights,
            upper = out(zmm_reg) _upper,
            lower = out(zmm_reg) _lower,
            $($tap = in(zmm_reg) $near,)*
            s0 = inout(zmm_reg) $sums[0],
            s1 = inout(zmm_reg) $sums[1],
            options(nostack, readonly, preserves_flags),
        );
    }};
    (
        $sums:ident, $weights:expr,
        [$($tap:ident ($near:expr) $at:literal),*], [$($other:ident ($far:expr)),*]
    ) => {{
        let (_upper, _lower): (__m512i, __m512i);
        asm!(
            $(
                concat!("vmovdqa64 {upper}, [{weights} + ", $at, "]"),
                concat!("vmovdqa64 {lower}, [{weights} + 768 + ", $at, "]"),
                concat!("vpdpbusd {s0}, {", stringify!($tap), "}, {upper}"),
                concat!("vpdpbusd {s1}, {", stringify!($tap), "}, {lower}"),
                concat!("vpdpbusd {s2}, {", stringify!($other), "}, {upper}"),
                concat!("vpdpbusd {s3}, {", stringify!($other), "}, {lower}"),
            )*
            weights = in(reg) $weights,
            upper = out(zmm_reg) _upper,
            lower = out(zmm_reg) _lower,
            $($tap = in(zmm_reg) $near,)*
            $($other = in(zmm_reg) $far,)*
            s0 = inout(zmm_reg) $sums[0],
            s1 = inout(zmm_reg) $sums[1],
            s2 = inout(zmm_reg) $sums[2],
            s3 = inout(zmm_reg) $sums[3],
            options(nostack, readonly, preserves_flags),
        );
    }};
}

/// Windows of stride 1, two rows at a time; `KEPT` blocks that are read for outputs serve the next ones as well.
///
/// # Safety
/// The call's pointers are those of a layer that was checked against its frame; its rows go in twos.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn by_one<const MODE: u8, const PIXEL: usize, const KEPT: usize>(call: &Call<'_>) {
    let walk = call.walk;
    let Some(slide) = walk.slide else { return };
    let between = if PIXEL == UNIT { walk.tap } else { UNIT };
    for unit in &walk.units {
        // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what blocks read behind it, which is the arena's
        // slack; weights and factors are those of the unit's phase; the mask's bytes of a block are outputs.
        unsafe {
            let (weights, factors) = call.phase(unit.phase);
            for rows in &walk.rows {
                let input = call.arena.cast_const().add(rows.input + unit.input as usize);
                let output = call.arena.add(rows.output + unit.output as usize);
                let block = |at: usize| -> Block {
                    let load =
                        |row: usize| _mm512_loadu_si512(input.add(row * walk.row + at * between).cast());
                    interleave([load(0), load(1), load(2), load(3)])
                };
                // Blocks that are read for outputs come first; behind one block there is none to keep of two.
                let zero = [_mm512_setzero_si512(); 4];
                let mut blocks: [Block; 4] = [block(0), zero, zero, zero];
                if KEPT == 2 {
                    blocks[1] = block(1);
                }
                // Sums of one vector of channels: of the upper and the lower row of one block or two.
                macro_rules! words {
                    ($count:tt, $v:expr) => {{
                        let mut sums = [_mm512_load_si512(factors.add($v).cast()); 2 * $count];
                        let tap = |k: usize, column: usize| further::<PIXEL>(&blocks, k, column, $v);
                        products!($count, sums, tap, weights.add($v));
                        requantize::<MODE, { 2 * $count }>(sums, factors.add($v), call.bounds)
                    }};
                }
                macro_rules! outputs {
                    ($count:tt, $at:expr) => {{
                        let (mut low, second) = (words!($count, 0), words!($count, 1));
                        for k in 0..2 * $count {
                            low[k] = _mm512_packs_epi32(low[k], second[k]);
                        }
                        let (third, fourth) = (words!($count, 2), words!($count, 3));
                        for k in 0..2 * $count {
                            let high = _mm512_packs_epi32(third[k], fourth[k]);
                            let at = $at + k / 2;
                            let mask =
                                if at + 1 == slide.blocks { unit.mask & slide.last } else { unit.mask };
                            let place = output.add(k % 2 * walk.output_row + at * slide.step);
                            store_bytes(pack_halves(low[k], high, call.bounds), place, mask);
                        }
                    }};
                }
                let mut at = 0;
                while at + 2 <= slide.blocks {
                    blocks[KEPT] = block(at + KEPT);
                    blocks[KEPT + 1] = block(at + KEPT + 1);
                    outputs!(2, at);
                    (blocks[0], blocks[1]) = (blocks[2], blocks[3]);
                    at += 2;
                }
                if at < slide.blocks {
                    blocks[KEPT] = block(at + KEPT);
                    outputs!(1, at);
                }
            }
        }
    }
}

/// The order that picks every other pixel of 64 bytes twice, from the first or from the second one on.
#[target_feature(enable = "avx512f")]
#[inline]
fn every_other<const PIXEL: usize>(first: usize) -> __m512i {
    let dwords = PIXEL / 4;
    let order: [u32; 16] = core::array::from_fn(|k| ((k / dwords * 2 + first) * dwords + k % dwords) as u32);
    // SAFETY: 64 bytes are read.
    unsafe { _mm512_loadu_si512(order.as_ptr().cast()) }
}

/// Windows of stride 2: pixels of even and of odd columns apart.
///
/// # Safety
/// As [`by_one`], but rows go alone.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn by_two<const MODE: u8, const PIXEL: usize>(call: &Call<'_>) {
    let walk = call.walk;
    let Some(slide) = walk.slide else { return };
    let (even, odd) = (every_other::<PIXEL>(0), every_other::<PIXEL>(1));
    for unit in &walk.units {
        // SAFETY: as in `by_one`.
        unsafe {
            let (weights, factors) = call.phase(unit.phase);
            for rows in &walk.rows {
                let input = call.arena.cast_const().add(rows.input + unit.input as usize);
                let output = call.arena.add(rows.output + unit.output as usize);
                let pixels = |at: usize, odds: bool| -> Block {
                    let load = |row: usize| {
                        let row = input.add(row * walk.row);
                        if PIXEL == UNIT {
                            let column = 2 * at + usize::from(odds);
                            return _mm512_loadu_si512(row.add(column * walk.tap).cast());
                        }
                        let near = _mm512_loadu_si512(row.add(2 * at * UNIT).cast());
                        let far = _mm512_loadu_si512(row.add((2 * at + 1) * UNIT).cast());
                        _mm512_permutex2var_epi32(near, if odds { odd } else { even }, far)
                    };
                    // The fourth row has weights of zero.
                    let third = load(2);
                    interleave([load(0), load(1), third, third])
                };
                let mut evens = pixels(0, false);
                for at in 0..slide.blocks {
                    let odds = pixels(at, true);
                    let blocks = [evens, pixels(at + 1, false)];
                    let word = |v: usize| {
                        let weight = |column: usize| _mm512_load_si512(weights.add(column * 4 + v));
                        let mut sum = _mm512_load_si512(factors.add(v).cast());
                        sum = _mm512_dpbusd_epi32(sum, evens[v], weight(0));
                        sum = _mm512_dpbusd_epi32(sum, odds[v], weight(1));
                        let beside = further::<PIXEL>(&blocks, 0, 1, v);
                        sum = _mm512_dpbusd_epi32(sum, beside, weight(2));
                        requantize::<MODE, 1>([sum], factors.add(v), call.bounds)[0]
                    };
                    let low = _mm512_packs_epi32(word(0), word(1));
                    let high = _mm512_packs_epi32(word(2), word(3));
                    let mask = if at + 1 == slide.blocks { unit.mask & slide.last } else { unit.mask };
                    store_bytes(pack_halves(low, high, call.bounds), output.add(at * slide.step), mask);
                    evens = blocks[1];
                }
            }
        }
    }
}
