//! A register of floats, so that kernels are written once for both widths.

use core::arch::x86_64::*;

/// A register of `f32`.
///
/// # Safety
/// Every method needs the instruction set of its implementation: `avx512f`, or `avx2`, `fma` and `f16c`. Methods that take a pointer need
/// what they read or write behind it to be valid; no alignment.
pub(super) trait Lanes: Copy {
    /// Floats in it.
    const COUNT: usize;
    /// Which of them take part.
    type Mask: Copy;
    /// Where each of them comes from.
    type Order: Copy;

    /// The first lanes of a number, at most all.
    unsafe fn mask(lanes: usize) -> Self::Mask;
    /// The same in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Reads all lanes.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads all lanes from binary16.
    unsafe fn load_half(from: *const u16) -> Self;
    /// Reads some lanes and no others' memory; the rest is zero.
    unsafe fn load_part(from: *const f32, mask: Self::Mask) -> Self;
    /// Writes all lanes.
    unsafe fn store(to: *mut f32, value: Self);
    /// Writes some lanes and no others' memory.
    unsafe fn store_part(to: *mut f32, mask: Self::Mask, value: Self);
    /// Reads an order of [`Lanes::COUNT`] lanes.
    unsafe fn order(from: *const u32) -> Self::Order;
    /// The lanes of a register in another order.
    unsafe fn permute(order: Self::Order, value: Self) -> Self;
    /// `a + b`.
    unsafe fn add(a: Self, b: Self) -> Self;
    /// `a - b`.
    unsafe fn sub(a: Self, b: Self) -> Self;
    /// `a * b`.
    unsafe fn mul(a: Self, b: Self) -> Self;
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self, b: Self, c: Self) -> Self;
    /// The lesser; `b` where one is not a number.
    unsafe fn min(a: Self, b: Self) -> Self;
    /// The greater; `b` where one is not a number.
    unsafe fn max(a: Self, b: Self) -> Self;

    /// Brings a value between bounds; what is not a number stays.
    #[inline(always)]
    unsafe fn clamp([low, high]: [Self; 2], value: Self) -> Self {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { Self::min(high, Self::max(low, value)) }
    }
}

/// Methods that are an expression of intrinsics.
macro_rules! methods {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $value:expr;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name($($argument: $type),*) $(-> $result)? {
                // SAFETY: instruction set and pointers, promised by the caller.
                unsafe { $value }
            }
        )*
    };
}

impl Lanes for __m512 {
    const COUNT: usize = 16;
    type Mask = __mmask16;
    type Order = __m512i;

    methods! {
        mask(lanes: usize) -> __mmask16 = _cvtu32_mask16((1 << lanes.min(16)) - 1);
        splat(value: f32) -> Self = _mm512_set1_ps(value);
        load(from: *const f32) -> Self = _mm512_loadu_ps(from);
        load_half(from: *const u16) -> Self = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        load_part(from: *const f32, mask: __mmask16) -> Self = _mm512_maskz_loadu_ps(mask, from);
        store(to: *mut f32, value: Self) = _mm512_storeu_ps(to, value);
        store_part(to: *mut f32, mask: __mmask16, value: Self) = _mm512_mask_storeu_ps(to, mask, value);
        order(from: *const u32) -> __m512i = _mm512_loadu_si512(from.cast());
        permute(order: __m512i, value: Self) -> Self = _mm512_permutexvar_ps(order, value);
        add(a: Self, b: Self) -> Self = _mm512_add_ps(a, b);
        sub(a: Self, b: Self) -> Self = _mm512_sub_ps(a, b);
        mul(a: Self, b: Self) -> Self = _mm512_mul_ps(a, b);
        mul_add(a: Self, b: Self, c: Self) -> Self = _mm512_fmadd_ps(a, b, c);
        min(a: Self, b: Self) -> Self = _mm512_min_ps(a, b);
        max(a: Self, b: Self) -> Self = _mm512_max_ps(a, b);
    }
}

impl Lanes for __m256 {
    const COUNT: usize = 8;
    type Mask = __m256i;
    type Order = __m256i;

    methods! {
        mask(lanes: usize) -> __m256i =
            _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes.min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        splat(value: f32) -> Self = _mm256_set1_ps(value);
        load(from: *const f32) -> Self = _mm256_loadu_ps(from);
        load_half(from: *const u16) -> Self = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
        load_part(from: *const f32, mask: __m256i) -> Self = _mm256_maskload_ps(from, mask);
        store(to: *mut f32, value: Self) = _mm256_storeu_ps(to, value);
        store_part(to: *mut f32, mask: __m256i, value: Self) = _mm256_maskstore_ps(to, mask, value);
        order(from: *const u32) -> __m256i = _mm256_loadu_si256(from.cast());
        permute(order: __m256i, value: Self) -> Self = _mm256_permutevar8x32_ps(value, order);
        add(a: Self, b: Self) -> Self = _mm256_add_ps(a, b);
        sub(a: Self, b: Self) -> Self = _mm256_sub_ps(a, b);
        mul(a: Self, b: Self) -> Self = _mm256_mul_ps(a, b);
        mul_add(a: Self, b: Self, c: Self) -> Self = _mm256_fmadd_ps(a, b, c);
        min(a: Self, b: Self) -> Self = _mm256_min_ps(a, b);
        max(a: Self, b: Self) -> Self = _mm256_max_ps(a, b);
    }
}
