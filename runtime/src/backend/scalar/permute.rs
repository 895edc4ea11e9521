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
    let [n0, n1, n2, n3] = map.extents;
    let [s0, s1, s2, s3] = map.strides;
    let mut slots = output.iter_mut();
    for i0 in 0..n0 {
        for i1 in 0..n1 {
            for i2 in 0..n2 {
                let mut at =
                    i0.wrapping_mul(s0).wrapping_add(i1.wrapping_mul(s1)).wrapping_add(i2.wrapping_mul(s2));
                for _ in 0..n3 {
                    *slots.next()? = *input.get(at)?;
                    at = at.wrapping_add(s3);
                }
            }
        }
    }
    Some(())
}
