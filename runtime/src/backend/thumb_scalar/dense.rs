//! Dense layers: some inputs at a time as words, all outputs over them.

use super::core;
use super::frame::Dense;
use crate::backend::scalar;
use crate::backend::spec::select::{Linear, Request};
use crate::backend::spec::swar;
use crate::blob::DType;
use crate::ops::linear::Integer;

#[inline(never)]
pub fn dense_i8(
    inputs: usize,
    linear: &Integer<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let request = Request {
        linear: Linear::Dense { inputs, outputs: linear.bias.len() },
        input: DType::I8,
        output: DType::I8,
        packing: linear.packing,
        in_place: false,
    };
    match swar::dense(&request, &core::CORE) {
        // Some cores read four weights at once.
        Some(layout) if layout.bytes() <= scratch.len() && linear.weights.as_ptr().addr() & 3 == 0 => {
            packed(inputs, linear, input, output, scratch, &layout)
        }
        _ => scalar::dense::dense_i8(inputs, linear, input, output),
    }
}

fn packed(
    inputs: usize,
    linear: &Integer<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [u8],
    layout: &swar::Dense,
) -> Option<()> {
    let (sums, rest) = scratch.split_at_mut_checked(layout.sums)?;
    let sums: &mut [i32] = bytemuck::try_cast_slice_mut(sums).ok()?;
    let words: &mut [i32] = bytemuck::try_cast_slice_mut(rest.get_mut(..layout.chunk)?).ok()?;
    let outputs = linear.bias.len();
    let depth = inputs.checked_next_multiple_of(8)?;
    if linear.weights.len() < linear.packing.bytes(outputs, inputs)? || outputs == 0 {
        return None;
    }
    let (mut input, mut output) = (input, output);
    while !output.is_empty() {
        let (row, rest) = input.split_at_checked(inputs)?;
        input = rest;
        let (place, rest) = output.split_at_mut_checked(outputs)?;
        output = rest;
        sums.iter_mut().zip(linear.bias).for_each(|(sum, &bias)| *sum = bias);
        let mut total = 0i32;
        let mut weights = linear.weights.as_ptr();
        let mut left = row;
        while !left.is_empty() {
            let (chunk, rest) = left.split_at_checked(swar::DENSE_CHUNK).unwrap_or((left, &[]));
            left = rest;
            let count = chunk.len().next_multiple_of(8);
            let words = words.get_mut(..count)?;
            words.iter_mut().rev().take(8).for_each(|word| *word = 0);
            for (word, &x) in words.iter_mut().zip(chunk) {
                *word = x.into();
                total = total.wrapping_add(x.into());
            }
            let range = words.as_ptr_range();
            let operands = Dense {
                sums: sums.as_mut_ptr(),
                weights,
                jump: depth.wrapping_sub(count).wrapping_mul(4),
                inputs: range.start,
                inputs_end: range.end,
                blocks: outputs.div_ceil(4),
            };
            // SAFETY: there are sums for whole blocks, and weights of `depth` inputs for each, checked above; `words` is a multiple of eight.
            unsafe { core::dense(&operands) };
            weights = weights.wrapping_add(count.wrapping_mul(4));
        }
        core::finish_sums(linear, sums, total, place)?;
    }
    Some(())
}
