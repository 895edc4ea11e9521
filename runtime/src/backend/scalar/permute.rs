//! Axis permutation: outputs in order, inputs gathered.

use crate::ops::permute::Map;

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
    let ([mut n0, mut n1, mut n2, mut n3], [mut s0, mut s1, mut s2, mut s3]) = (map.extents, map.strides);
    // Axes of one element go first, so that the innermost loop is as long as there is one.
    for _ in 0..3 {
        if n3 == 1 {
            (n0, n1, n2, n3) = (1, n0, n1, n2);
            (s0, s1, s2, s3) = (0, s0, s1, s2);
        }
    }
    let mut left = output;
    for i0 in 0..n0 {
        for i1 in 0..n1 {
            for i2 in 0..n2 {
                let at =
                    i0.wrapping_mul(s0).wrapping_add(i1.wrapping_mul(s1)).wrapping_add(i2.wrapping_mul(s2));
                let (line, rest) = left.split_at_mut_checked(n3)?;
                left = rest;
                let from = input.get(at..)?;
                if s3 == 1 {
                    let from = from.get(..n3)?;
                    line.iter_mut().zip(from).for_each(|(slot, x)| *slot = *x);
                    continue;
                }
                let mut step = 0usize;
                for slot in line {
                    *slot = *from.get(step)?;
                    step = step.wrapping_add(s3);
                }
            }
        }
    }
    Some(())
}
