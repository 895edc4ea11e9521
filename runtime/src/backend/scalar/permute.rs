//! Axis permutation: one axis is walked at a time, in input and output.

use crate::ops::permute::Map;
use crate::rolled::rolled;

/// Elements side by side in the output that are worth a loop of their own.
const RUN: usize = 8;

#[inline(never)]
pub fn permute_i8(map: &Map, input: &[i8], output: &mut [i8]) -> Option<()> {
    permute(map, input, output)
}

#[inline(never)]
pub fn permute_f32(map: &Map, input: &[f32], output: &mut [f32]) -> Option<()> {
    permute(map, input, output)
}

#[inline(always)]
fn permute<T: Copy>(map: &Map, input: &[T], output: &mut [T]) -> Option<()> {
    let ([n0, n1, n2, n3], [s0, s1, s2, s3]) = (map.extents, map.strides);
    let row = n2.wrapping_mul(n3);
    // Extent of an axis, and elements from one index to the next in input and output.
    let mut axes = [(n0, s0, n1.wrapping_mul(row)), (n1, s1, row), (n2, s2, n3), (n3, s3, 1)];
    let [first, second, third, last] = &mut axes;
    if last.0 < RUN {
        // The longest axis goes last: there are fewest loops over it.
        for other in [first, second, third] {
            rolled();
            if other.0 > last.0 {
                core::mem::swap(other, last);
            }
        }
    }
    let [(n0, s0, t0), (n1, s1, t1), (n2, s2, t2), (n3, s3, t3)] = axes;
    for i0 in 0..n0 {
        for i1 in 0..n1 {
            for i2 in 0..n2 {
                let at = |a: usize, b: usize, c: usize| {
                    i0.wrapping_mul(a).wrapping_add(i1.wrapping_mul(b)).wrapping_add(i2.wrapping_mul(c))
                };
                let read = input.get(at(s0, s1, s2)..)?;
                let written = output.get_mut(at(t0, t1, t2)..)?;
                walk(read, written, [s3, t3], n3)?;
            }
        }
    }
    Some(())
}

/// Copies `count` elements, `steps` apart in input and output.
#[inline(never)]
fn walk<T: Copy>(input: &[T], output: &mut [T], [read, written]: [usize; 2], count: usize) -> Option<()> {
    if written == 1 {
        let output = output.get_mut(..count)?;
        if read == 1 {
            output.iter_mut().zip(input.get(..count)?).for_each(|(slot, x)| *slot = *x);
            return Some(());
        }
        let mut from = 0usize;
        for slot in output {
            *slot = *input.get(from)?;
            from = from.wrapping_add(read);
        }
        return Some(());
    }
    let (mut from, mut to) = (0usize, 0usize);
    for _ in 0..count {
        rolled();
        *output.get_mut(to)? = *input.get(from)?;
        (from, to) = (from.wrapping_add(read), to.wrapping_add(written));
    }
    Some(())
}
