//! A register of 32-bit sums, so that kernels are written once for both widths, and the products that are added to it.

use core::arch::x86_64::*;

/// A register of `i32`.
///
/// # Safety
/// Every method needs the instruction set of its implementation: `avx512f`, `avx512bw`, `avx512dq` and `avx512vl`, or `avx2`. Methods that take
/// a pointer need what they read or write behind it to be valid; no alignment.
pub trait Lanes: Copy {
    /// Sums in it.
    const COUNT: usize;

    /// The same in every lane.
    unsafe fn splat(value: i32) -> Self;
    /// Reads all lanes.
    unsafe fn load(from: *const i32) -> Self;
    /// Reads a byte for each lane.
    unsafe fn load_bytes(from: *const u8) -> Self;
    /// Reads a word for each lane, without sign.
    unsafe fn load_words(from: *const u8) -> Self;
    /// `a + b`.
    unsafe fn add(a: Self, b: Self) -> Self;
    /// `a - b`.
    unsafe fn sub(a: Self, b: Self) -> Self;
    /// The lesser.
    unsafe fn min(a: Self, b: Self) -> Self;
    /// The greater.
    unsafe fn max(a: Self, b: Self) -> Self;
    /// The bits of both.
    unsafe fn and(a: Self, b: Self) -> Self;
    /// -1 where `a` is the greater, else 0.
    unsafe fn greater(a: Self, b: Self) -> Self;
    /// `a << b`; 0 from 32 bits on.
    unsafe fn shift_left(a: Self, b: Self) -> Self;
    /// `a >> b` with the sign.
    unsafe fn shift_right(a: Self, b: Self) -> Self;
    /// `a >> b` with zeros; 0 from 32 bits on.
    unsafe fn shift_right_unsigned(a: Self, b: Self) -> Self;
    /// `a * b`, the lower 32 bits.
    unsafe fn multiply_low(a: Self, b: Self) -> Self;
    /// The magnitude.
    unsafe fn abs(a: Self) -> Self;
    /// `a` with the sign of `b`.
    unsafe fn signed(a: Self, b: Self) -> Self;
    /// Products of the even lanes, in 64 bits.
    unsafe fn multiply(a: Self, b: Self) -> Self;
    /// Sums of 64 bits.
    unsafe fn add_wide(a: Self, b: Self) -> Self;
    /// Lanes of 64 bits a number of bits lower.
    unsafe fn lower<const BITS: u32>(a: Self) -> Self;
    /// Even lanes of `even`, odd ones of `odd`.
    unsafe fn blend(even: Self, odd: Self) -> Self;
    /// Two registers of words interleaved within 128 bits: the lower halves, and the upper ones.
    unsafe fn interleave(a: Self, b: Self) -> [Self; 2];

    /// Writes the first `count` lanes, at most all, as words: each fits.
    unsafe fn store_words(to: *mut u8, count: usize, value: Self);
    /// As [`Lanes::store_words`], as unsigned bytes.
    unsafe fn store_bytes(to: *mut u8, count: usize, value: Self);
    /// As [`Lanes::store_words`], of two registers in the order that [`Lanes::interleave`] leaves.
    unsafe fn store_pair_words(to: *mut u8, count: usize, pair: [Self; 2]);
    /// As [`Lanes::store_bytes`], of two registers in the order that [`Lanes::interleave`] leaves.
    unsafe fn store_pair_bytes(to: *mut u8, count: usize, pair: [Self; 2]);
}

/// What a step of an inner product multiplies: four bytes of inputs with as many of each of the lanes' weights.
///
/// # Safety
/// As [`Lanes`]; `Bytes512` and `Words512` need `avx512vnni` too.
pub trait Arithmetic: core::fmt::Debug + Send + Sync + 'static {
    /// Sums.
    type Sums: Lanes;
    /// Bytes of an input.
    const INPUT: usize;
    /// Registers that instructions name.
    const REGISTERS: usize;

    /// `sum + a . b`, modulo 2^32.
    unsafe fn dot(sum: Self::Sums, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// Runs code with the instruction set.
    unsafe fn with(code: impl FnOnce());
}

/// Words of AVX-512.
#[derive(Debug)]
pub struct Words512;
/// Unsigned bytes times signed ones, of AVX-512.
#[derive(Debug)]
pub struct Bytes512;
/// Words of AVX2.
#[derive(Debug)]
pub struct Words256;

impl Arithmetic for Words512 {
    type Sums = __m512i;
    const INPUT: usize = 2;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { _mm512_dpwssd_epi32(sum, a, b) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn with(code: impl FnOnce()) {
        code();
    }
}

impl Arithmetic for Bytes512 {
    type Sums = __m512i;
    const INPUT: usize = 1;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn with(code: impl FnOnce()) {
        code();
    }
}

impl Arithmetic for Words256 {
    type Sums = __m256i;
    const INPUT: usize = 2;
    const REGISTERS: usize = 16;

    /// The product of a pair fits 32 bits, for one factor has 8.
    #[inline(always)]
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn with(code: impl FnOnce()) {
        code();
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

/// The lowest `count` bits.
#[inline(always)]
fn mask(count: usize) -> u32 {
    if count >= 32 { !0 } else { (1 << count) - 1 }
}

impl Lanes for __m512i {
    const COUNT: usize = 16;

    methods! {
        splat(value: i32) -> Self = _mm512_set1_epi32(value);
        load(from: *const i32) -> Self = _mm512_loadu_si512(from.cast());
        load_bytes(from: *const u8) -> Self = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
        load_words(from: *const u8) -> Self = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        add(a: Self, b: Self) -> Self = _mm512_add_epi32(a, b);
        sub(a: Self, b: Self) -> Self = _mm512_sub_epi32(a, b);
        min(a: Self, b: Self) -> Self = _mm512_min_epi32(a, b);
        max(a: Self, b: Self) -> Self = _mm512_max_epi32(a, b);
        and(a: Self, b: Self) -> Self = _mm512_and_si512(a, b);
        greater(a: Self, b: Self) -> Self = _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b));
        shift_left(a: Self, b: Self) -> Self = _mm512_sllv_epi32(a, b);
        shift_right(a: Self, b: Self) -> Self = _mm512_srav_epi32(a, b);
        shift_right_unsigned(a: Self, b: Self) -> Self = _mm512_srlv_epi32(a, b);
        multiply_low(a: Self, b: Self) -> Self = _mm512_mullo_epi32(a, b);
        abs(a: Self) -> Self = _mm512_abs_epi32(a);
        signed(a: Self, b: Self) -> Self = {
            let zero = _mm512_setzero_si512();
            _mm512_mask_sub_epi32(a, _mm512_cmplt_epi32_mask(b, zero), zero, a)
        };
        multiply(a: Self, b: Self) -> Self = _mm512_mul_epi32(a, b);
        add_wide(a: Self, b: Self) -> Self = _mm512_add_epi64(a, b);
        blend(even: Self, odd: Self) -> Self = _mm512_mask_blend_epi32(0xAAAA, even, odd);
        interleave(a: Self, b: Self) -> [Self; 2] = [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)];
        store_words(to: *mut u8, count: usize, value: Self) =
            _mm256_mask_storeu_epi16(to.cast(), mask(count) as u16, _mm512_cvtepi32_epi16(value));
        store_bytes(to: *mut u8, count: usize, value: Self) =
            _mm_mask_storeu_epi8(to.cast(), mask(count) as u16, _mm512_cvtepi32_epi8(value));
        store_pair_words(to: *mut u8, count: usize, pair: [Self; 2]) =
            _mm512_mask_storeu_epi16(to.cast(), mask(count), _mm512_packs_epi32(pair[0], pair[1]));
        store_pair_bytes(to: *mut u8, count: usize, pair: [Self; 2]) =
            _mm256_mask_storeu_epi8(to.cast(), mask(count), _mm512_cvtepi16_epi8(_mm512_packs_epi32(pair[0], pair[1])));
    }

    #[inline(always)]
    unsafe fn lower<const BITS: u32>(a: Self) -> Self {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { _mm512_srli_epi64::<BITS>(a) }
    }
}

impl Lanes for __m256i {
    const COUNT: usize = 8;

    methods! {
        splat(value: i32) -> Self = _mm256_set1_epi32(value);
        load(from: *const i32) -> Self = _mm256_loadu_si256(from.cast());
        load_bytes(from: *const u8) -> Self = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
        load_words(from: *const u8) -> Self = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        add(a: Self, b: Self) -> Self = _mm256_add_epi32(a, b);
        sub(a: Self, b: Self) -> Self = _mm256_sub_epi32(a, b);
        min(a: Self, b: Self) -> Self = _mm256_min_epi32(a, b);
        max(a: Self, b: Self) -> Self = _mm256_max_epi32(a, b);
        and(a: Self, b: Self) -> Self = _mm256_and_si256(a, b);
        greater(a: Self, b: Self) -> Self = _mm256_cmpgt_epi32(a, b);
        shift_left(a: Self, b: Self) -> Self = _mm256_sllv_epi32(a, b);
        shift_right(a: Self, b: Self) -> Self = _mm256_srav_epi32(a, b);
        shift_right_unsigned(a: Self, b: Self) -> Self = _mm256_srlv_epi32(a, b);
        multiply_low(a: Self, b: Self) -> Self = _mm256_mullo_epi32(a, b);
        abs(a: Self) -> Self = _mm256_abs_epi32(a);
        signed(a: Self, b: Self) -> Self = _mm256_sign_epi32(a, _mm256_or_si256(b, _mm256_set1_epi32(1)));
        multiply(a: Self, b: Self) -> Self = _mm256_mul_epi32(a, b);
        add_wide(a: Self, b: Self) -> Self = _mm256_add_epi64(a, b);
        blend(even: Self, odd: Self) -> Self = _mm256_blend_epi32::<0xAA>(even, odd);
        interleave(a: Self, b: Self) -> [Self; 2] = [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)];
        store_words(to: *mut u8, count: usize, value: Self) = {
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(value, value));
            if count >= Self::COUNT {
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(words));
            } else {
                store_some(to, 2 * count, words);
            }
        };
        store_bytes(to: *mut u8, count: usize, value: Self) = {
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(value, value));
            store_some(to, count.min(Self::COUNT), _mm256_packus_epi16(words, words));
        };
        store_pair_words(to: *mut u8, count: usize, pair: [Self; 2]) = {
            let words = _mm256_packs_epi32(pair[0], pair[1]);
            if count >= 2 * Self::COUNT {
                _mm256_storeu_si256(to.cast(), words);
            } else {
                store_some(to, 2 * count, words);
            }
        };
        store_pair_bytes(to: *mut u8, count: usize, pair: [Self; 2]) = {
            let words = _mm256_packs_epi32(pair[0], pair[1]);
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(words, words));
            store_some(to, count.min(2 * Self::COUNT), bytes);
        };
    }

    #[inline(always)]
    unsafe fn lower<const BITS: u32>(a: Self) -> Self {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { _mm256_srl_epi64(a, _mm_cvtsi32_si128(BITS as i32)) }
    }
}

/// Stores the first bytes of a register, at most all.
///
/// # Safety
/// They are writable; the processor has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_some(to: *mut u8, bytes: usize, value: __m256i) {
    let mut all = [0u8; 32];
    // SAFETY: the caller's; the register has 32 bytes.
    unsafe {
        _mm256_storeu_si256(all.as_mut_ptr().cast(), value);
        core::ptr::copy_nonoverlapping(all.as_ptr(), to, bytes.min(32));
    }
}
