//! What integer kernels need of an element type, and the inner products.

use crate::math::from_half;

/// An integer activation: `i8` or `i16`.
pub trait Element: Copy {
    /// The value.
    fn widen(self) -> i16;
    /// The value of an integer that a clamp has brought into range.
    fn narrow(value: i32) -> Self;
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> i16 {
        self.into()
    }

    #[inline(always)]
    fn narrow(value: i32) -> Self {
        value as Self
    }
}

impl Element for i16 {
    #[inline(always)]
    fn widen(self) -> i16 {
        self
    }

    #[inline(always)]
    fn narrow(value: i32) -> Self {
        value as Self
    }
}

/// `sum (x - zero) * w` modulo 2^32 over the shorter of both. `x - zero` fits 16 bits: where `x` is 16 bits wide, `zero` is 0.
#[inline(always)]
pub fn dot<X: Element>(x: &[X], zero: i16, w: &[i8]) -> i32 {
    let mut sum = 0i32;
    for (&x, &w) in x.iter().zip(w) {
        let x = i32::from(x.widen().wrapping_sub(zero));
        sum = sum.wrapping_add(x.wrapping_mul(w.into()));
    }
    sum
}

/// Like [`dot`], with the 4-bit weights from number `first` on, two in a byte, the first in its lower half. `None` if there are too few.
#[inline(always)]
pub fn dot_i4x2(x: &[i8], zero: i16, w: &[u8], first: usize) -> Option<i32> {
    let low = |byte: u8| (byte << 4) as i8 >> 4;
    let high = |byte: u8| byte as i8 >> 4;
    let product = |x: i8, w: i8| i32::from(x.widen().wrapping_sub(zero)).wrapping_mul(w.into());
    let mut w = w.get(first / 2..)?;
    let mut x = x;
    let mut sum = 0i32;
    if first % 2 == 1
        && let Some((&head, rest)) = x.split_first()
    {
        let (&byte, others) = w.split_first()?;
        sum = product(head, high(byte));
        (x, w) = (rest, others);
    }
    let (pairs, last) = x.as_chunks::<2>();
    let (bytes, rest) = w.split_at_checked(pairs.len())?;
    for (&[a, b], &byte) in pairs.iter().zip(bytes) {
        sum = sum.wrapping_add(product(a, low(byte))).wrapping_add(product(b, high(byte)));
    }
    if let &[x] = last {
        sum = sum.wrapping_add(product(x, low(*rest.first()?)));
    }
    Some(sum)
}

/// A stored weight of an `f32` operator.
pub trait Real: Copy {
    /// The value.
    fn real(self) -> f32;
}

impl Real for f32 {
    #[inline(always)]
    fn real(self) -> f32 {
        self
    }
}

/// The bits of binary16.
impl Real for u16 {
    #[inline(always)]
    fn real(self) -> f32 {
        from_half(self)
    }
}

/// `sum x * w` over the shorter of both, in eight interleaved partial sums.
#[inline(always)]
pub fn dot_f32<W: Real>(x: &[f32], w: &[W]) -> f32 {
    let (x_blocks, x_rest) = x.as_chunks::<8>();
    let (w_blocks, w_rest) = w.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (x, w) in x_blocks.iter().zip(w_blocks) {
        for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
            *sum += x * w.real();
        }
    }
    let tail: f32 = x_rest.iter().zip(w_rest).map(|(x, w)| x * w.real()).sum();
    sums.iter().sum::<f32>() + tail
}

/// Brings a value between two bounds; what is not a number stays.
#[inline(always)]
pub fn clamp_f32(value: f32, [low, high]: [f32; 2]) -> f32 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}
