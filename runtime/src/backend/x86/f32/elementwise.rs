//! Sums and products of two values of the same shape.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Registers, Width};

/// The function of two elements.
trait Function {
    /// # Safety
    /// The instruction set of `V`.
    unsafe fn of<V: Lanes>(a: V, b: V) -> V;
}

struct Sum;

impl Function for Sum {
    #[inline(always)]
    unsafe fn of<V: Lanes>(a: V, b: V) -> V {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { V::add(a, b) }
    }
}

struct Product;

impl Function for Product {
    #[inline(always)]
    unsafe fn of<V: Lanes>(a: V, b: V) -> V {
        // SAFETY: the instruction set, promised by the caller.
        unsafe { V::mul(a, b) }
    }
}

/// # Safety
/// The instruction set of `V`; pointers that are valid for `count` floats. The output may be an input's place.
#[inline(always)]
unsafe fn apply<V: Lanes, F: Function>(
    bounds: [f32; 2],
    [a, b]: [*const f32; 2],
    output: *mut f32,
    count: usize,
) {
    // SAFETY: the caller's pointers, up to `count`.
    unsafe {
        let bounds = bounds.map(|bound| V::splat(bound));
        let whole = count - count % V::COUNT;
        for at in (0..whole).step_by(V::COUNT) {
            let value = F::of(V::load(a.add(at)), V::load(b.add(at)));
            V::store(output.add(at), V::clamp(bounds, value));
        }
        if whole < count {
            let mask = V::mask(count - whole);
            let value = F::of(V::load_part(a.add(whole), mask), V::load_part(b.add(whole), mask));
            V::store_part(output.add(whole), mask, V::clamp(bounds, value));
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn apply_512<F: Function>(bounds: [f32; 2], inputs: [*const f32; 2], output: *mut f32, count: usize) {
    // SAFETY: the caller's pointers.
    unsafe { apply::<__m512, F>(bounds, inputs, output, count) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn apply_256<F: Function>(bounds: [f32; 2], inputs: [*const f32; 2], output: *mut f32, count: usize) {
    // SAFETY: the caller's pointers.
    unsafe { apply::<__m256, F>(bounds, inputs, output, count) }
}

fn run<F: Function>(width: Width, bounds: [f32; 2], a: &[f32], b: &[f32], output: &mut [f32]) -> Option<()> {
    if a.len() != output.len() || b.len() != output.len() {
        return None;
    }
    // SAFETY: `width` proves the instruction set; the slices are of this length.
    unsafe {
        match width.registers {
            Registers::Bits512 => {
                apply_512::<F>(bounds, [a.as_ptr(), b.as_ptr()], output.as_mut_ptr(), output.len());
            }
            Registers::Bits256 => {
                apply_256::<F>(bounds, [a.as_ptr(), b.as_ptr()], output.as_mut_ptr(), output.len());
            }
        }
    }
    Some(())
}

/// `a + b` within `bounds`. `None` if lengths differ.
pub fn add(width: Width, bounds: [f32; 2], a: &[f32], b: &[f32], output: &mut [f32]) -> Option<()> {
    run::<Sum>(width, bounds, a, b, output)
}

/// `a * b` within `bounds`. `None` if lengths differ.
pub fn mul(width: Width, bounds: [f32; 2], a: &[f32], b: &[f32], output: &mut [f32]) -> Option<()> {
    run::<Product>(width, bounds, a, b, output)
}
