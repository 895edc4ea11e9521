//! Products and sums of four output channels at a time, on which all linear kernels are built.
//!
//! A vector of inputs has four *lanes* of 32 bits: four bytes, or a float. A vector of weights has for each of four channels as many elements as a lane
//! of inputs has.

use core::arch::aarch64::*;
use core::arch::asm;
use core::fmt::Debug;

use super::conv::{Call, Kernel, tile};
use super::depthwise::Depthwise;
use super::requantize::Requantize;

/// Repeats a block for all numbers below a constant of at most eight. In the text, because a compiler keeps the sums of a loop in memory.
macro_rules! unrolled {
    ($k:ident < $count:ident $body:block) => {
        unrolled! { $k < $count $body 0 1 2 3 4 5 6 7 }
    };
    ($k:ident < $count:ident $body:block $($number:literal)*) => {
        $(if $number < $count {
            let $k: usize = $number;
            $body
        })*
    };
}
pub(super) use unrolled;

/// What a layer does with its sums.
pub trait Finish: Copy + Debug + Send + Sync {
    /// Sums of four channels.
    type Sum: Copy;
    /// What belongs to four channels.
    type Factors: Copy;

    /// The factors of vector `n` of a group of `vectors`.
    ///
    /// # Safety
    /// `from` is the first of the factors of such a group.
    unsafe fn load(from: *const u8, vectors: usize, n: usize) -> Self::Factors;

    /// Makes outputs of sums and stores those of `channels`.
    ///
    /// # Safety
    /// The outputs are writable. There are at most `4 N` channels, and more than `4 (N - 1)`, or 16 for eight vectors.
    unsafe fn store<const N: usize>(
        &self,
        sums: &[Self::Sum; N],
        factors: &[Self::Factors; N],
        place: *mut u8,
        channels: usize,
    );
}

/// Elements, and how they are multiplied and added.
///
/// # Safety
/// Every method needs the processor's features that the implementing type names, and pointers that are valid for what is read.
pub trait Arithmetic: Debug + Send + Sync + Sized + 'static {
    /// A weight as it is packed.
    type Stored: bytemuck::NoUninit + Default;
    /// Four lanes of inputs.
    type Inputs: Copy;
    /// Weights of four channels.
    type Weights: Copy;
    /// Sums of four channels, in as many registers as it takes.
    type Sum: Copy;
    /// Sums of four channels, in one register.
    type Total: Copy;
    /// What becomes of them.
    type Finish: Finish<Sum = Self::Total>;
    /// The convolution, as reports name it.
    const NAME: &'static str;
    /// Elements of a lane.
    const DEPTH: usize;
    /// Bytes of a vector of weights.
    const WEIGHTS: usize;

    /// The tiles of so many vectors of channels: positions, and the code. Sums, inputs and a vector of weights fit the registers.
    fn tiles(vectors: usize) -> &'static [(usize, Kernel<Self>)];
    /// The sums that start with what is stored, 16 bytes.
    unsafe fn start(from: *const u8) -> Self::Sum;
    /// 16 bytes of inputs.
    unsafe fn load(from: *const u8) -> Self::Inputs;
    /// 4 bytes of inputs, in every lane.
    unsafe fn broadcast(from: *const u8) -> Self::Inputs;
    /// Weights as they are packed.
    unsafe fn weights(from: *const u8) -> Self::Weights;
    /// Adds the products of each channel's weights with the inputs of the same lane.
    unsafe fn multiply(sum: Self::Sum, weights: Self::Weights, inputs: Self::Inputs) -> Self::Sum;
    /// Adds the products of each channel's weights with the inputs of one lane.
    unsafe fn multiply_lane<const LANE: i32>(
        sum: Self::Sum,
        weights: Self::Weights,
        inputs: Self::Inputs,
    ) -> Self::Sum;
    /// Whether lanes go in twos, by [`Arithmetic::multiply_two`].
    const TWO_LANES: bool = false;
    /// Adds the products of each channel's weights with the inputs of two lanes.
    #[inline(always)]
    unsafe fn multiply_two<const LANE: i32, const NEXT: i32>(
        sum: Self::Sum,
        [first, second]: [Self::Weights; 2],
        inputs: Self::Inputs,
    ) -> Self::Sum {
        // SAFETY: the caller's.
        unsafe {
            let sum = Self::multiply_lane::<LANE>(sum, first, inputs);
            Self::multiply_lane::<NEXT>(sum, second, inputs)
        }
    }
    /// Brings sums into one register.
    unsafe fn total(sum: Self::Sum) -> Self::Total;
}

/// Arithmetic of bytes.
pub trait Bytes: Arithmetic<Stored = i8, Inputs = int8x16_t, Total = int32x4_t, Finish = Requantize> {
    /// The arithmetic of weights of which none is -128.
    type Small: Bytes;

    /// Runs a depthwise layer.
    ///
    /// # Safety
    /// The processor's features; the layer was checked against the arena and the constants.
    unsafe fn depthwise(layer: &Depthwise<Self>, arena: *mut u8, constants: *const u8);
}

/// Bytes by `SDOT`. Needs `dotprod`.
#[derive(Debug)]
pub struct Dot;

/// Bytes by long multiplications and pairwise sums, which all processors have. The sums of a channel are in two lanes until the end. `SMALL`: no weight
/// is -128, so that two products fit 16 bits.
#[derive(Debug)]
pub struct Long<const SMALL: bool>;

/// The method [`Arithmetic::tiles`], for a function of vectors and positions.
macro_rules! tiles {
    ($tile:ident $($vectors:literal: $($positions:literal)*),*) => {
        fn tiles(vectors: usize) -> &'static [(usize, Kernel<Self>)] {
            match vectors {
                $($vectors => &[$(($positions, $tile::<Self, $vectors, $positions>)),*],)*
                _ => &[],
            }
        }
    };
}

pub(super) use tiles;

/// # Safety
/// As [`tile`]; the feature.
#[target_feature(enable = "dotprod")]
unsafe fn dot_tile<A: Arithmetic, const N: usize, const P: usize>(call: &Call<'_, A>) {
    // SAFETY: the caller's; the feature is that of this function.
    unsafe { tile::<A, N, P>(call) }
}

/// # Safety
/// As [`Depthwise::all`]; the feature.
#[target_feature(enable = "dotprod")]
unsafe fn dot_depthwise(layer: &Depthwise<Dot>, arena: *mut u8, constants: *const u8) {
    // SAFETY: the caller's; the feature is that of this function.
    unsafe { layer.all(arena, constants) }
}

impl Arithmetic for Dot {
    type Stored = i8;
    type Inputs = int8x16_t;
    type Weights = int8x16_t;
    type Sum = int32x4_t;
    type Total = int32x4_t;
    type Finish = Requantize;
    const NAME: &'static str = "conv2d_i8";
    const DEPTH: usize = 4;
    const WEIGHTS: usize = 16;

    tiles! { dot_tile 1: 8 4 2 1, 2: 8 4 2 1, 3: 6 4 2 1, 4: 6 4 2 1, 8: 1 }

    #[inline(always)]
    unsafe fn start(from: *const u8) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { vld1q_s32(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vld1q_s8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vld1q_s8(from.cast()) }
    }

    // The intrinsics of `SDOT` are not stable.
    #[inline(always)]
    unsafe fn multiply(mut sum: int32x4_t, weights: int8x16_t, inputs: int8x16_t) -> int32x4_t {
        // SAFETY: registers alone; the feature is the caller's.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {weights:v}.16b, {inputs:v}.16b",
                sum = inout(vreg) sum,
                weights = in(vreg) weights,
                inputs = in(vreg) inputs,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    unsafe fn multiply_lane<const LANE: i32>(
        mut sum: int32x4_t,
        weights: int8x16_t,
        inputs: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: registers alone; the feature is the caller's.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {weights:v}.16b, {inputs:v}.4b[{lane}]",
                sum = inout(vreg) sum,
                weights = in(vreg) weights,
                inputs = in(vreg) inputs,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    unsafe fn total(sum: int32x4_t) -> int32x4_t {
        sum
    }
}

impl Bytes for Dot {
    type Small = Self;

    unsafe fn depthwise(layer: &Depthwise<Self>, arena: *mut u8, constants: *const u8) {
        // SAFETY: the caller's.
        unsafe { dot_depthwise(layer, arena, constants) }
    }
}

impl<const SMALL: bool> Arithmetic for Long<SMALL> {
    type Stored = i8;
    type Inputs = int8x16_t;
    type Weights = int8x16_t;
    type Sum = [int32x4_t; 2];
    type Total = int32x4_t;
    type Finish = Requantize;
    const NAME: &'static str = "conv2d_i8";
    const DEPTH: usize = 4;
    const WEIGHTS: usize = 16;

    tiles! { tile 1: 4 2 1, 2: 4 2 1, 3: 2 1, 4: 2 1, 8: 1 }

    #[inline(always)]
    unsafe fn start(from: *const u8) -> [int32x4_t; 2] {
        // SAFETY: the caller's.
        unsafe {
            let (bias, zero) = (vld1q_s32(from.cast()), vdupq_n_s32(0));
            [vzip1q_s32(bias, zero), vzip2q_s32(bias, zero)]
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vld1q_s8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> int8x16_t {
        // SAFETY: the caller's.
        unsafe { vld1q_s8(from.cast()) }
    }

    // A product of two bytes fits 16 bits, the sum of two not always: sums are of 32 bits.
    #[inline(always)]
    unsafe fn multiply([a, b]: [int32x4_t; 2], weights: int8x16_t, inputs: int8x16_t) -> [int32x4_t; 2] {
        // SAFETY: every processor has NEON.
        unsafe {
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(inputs));
            let high = vmull_high_s8(weights, inputs);
            [vpadalq_s16(a, low), vpadalq_s16(b, high)]
        }
    }

    #[inline(always)]
    unsafe fn multiply_lane<const LANE: i32>(
        sum: [int32x4_t; 2],
        weights: int8x16_t,
        inputs: int8x16_t,
    ) -> [int32x4_t; 2] {
        // SAFETY: every processor has NEON.
        unsafe {
            let lane = vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(inputs));
            Self::multiply(sum, weights, vreinterpretq_s8_s32(lane))
        }
    }

    const TWO_LANES: bool = SMALL;

    #[inline(always)]
    unsafe fn multiply_two<const LANE: i32, const NEXT: i32>(
        [a, b]: [int32x4_t; 2],
        [first, second]: [int8x16_t; 2],
        inputs: int8x16_t,
    ) -> [int32x4_t; 2] {
        // SAFETY: every processor has NEON.
        unsafe {
            let lanes = vreinterpretq_s32_s8(inputs);
            let (x, y) = (vdupq_laneq_s32::<LANE>(lanes), vdupq_laneq_s32::<NEXT>(lanes));
            let (x, y) = (vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(y));
            let low = vmull_s8(vget_low_s8(first), vget_low_s8(x));
            let low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(y));
            let high = vmlal_high_s8(vmull_high_s8(first, x), second, y);
            [vpadalq_s16(a, low), vpadalq_s16(b, high)]
        }
    }

    #[inline(always)]
    unsafe fn total([a, b]: [int32x4_t; 2]) -> int32x4_t {
        // SAFETY: every processor has NEON.
        unsafe { vpaddq_s32(a, b) }
    }
}

impl<const SMALL: bool> Bytes for Long<SMALL> {
    type Small = Long<true>;

    unsafe fn depthwise(layer: &Depthwise<Self>, arena: *mut u8, constants: *const u8) {
        // SAFETY: the caller's.
        unsafe { layer.all(arena, constants) }
    }
}
