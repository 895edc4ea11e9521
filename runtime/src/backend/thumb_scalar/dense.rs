//! Dense layers: some inputs at a time as words, all outputs over them.

use super::core;
use super::frame::Dense;
use crate::backend::scalar::compact;
use crate::backend::spec::select::{Linear, Request};
use crate::backend::spec::swar;
use crate::backend::{Integers, IntegersMut};
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
        _ => compact::dense(inputs, linear, Integers::I8(input), &mut IntegersMut::I8(output)),
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
    let (sums, rest) = scratch.split_at_mut_checked(layout.outputs.wrapping_mul(4))?;
    let sums: &mut [i32] = bytemuck::try_cast_slice_mut(sums).ok()?;
    let words: &mut [i32] =
        bytemuck::try_cast_slice_mut(rest.get_mut(..layout.inputs.wrapping_mul(4))?).ok()?;
    let outputs = linear.bias.len();
    let depth = inputs.checked_next_multiple_of(8)?;
    if linear.weights.len() < linear.packing.bytes(outputs, inputs)? || outputs == 0 {
        return None;
    }
    let once = inputs <= layout.inputs;
    let (mut input, mut output) = (input, output);
    while !output.is_empty() {
        let (row, rest) = input.split_at_checked(inputs)?;
        input = rest;
        let (place, rest) = output.split_at_mut_checked(outputs)?;
        output = rest;
        let (mut place, mut first, mut total) = (place, 0usize, 0i32);
        let mut block = linear.weights.as_ptr();
        while !place.is_empty() {
            let count = place.len().min(layout.outputs);
            let (some, rest) = place.split_at_mut_checked(count)?;
            place = rest;
            let bias = linear.bias.get(first..)?.get(..count)?;
            // A block is read as a whole.
            let mut start = bias.as_ptr();
            if count & 3 != 0 {
                sums.iter_mut().zip(bias).for_each(|(sum, &bias)| *sum = bias);
                start = sums.as_ptr();
            }
            let fresh = first == 0 || !once;
            if fresh {
                total = 0;
            }
            let mut weights = block;
            let mut left = row;
            while !left.is_empty() {
                let (chunk, rest) = left.split_at_checked(layout.inputs).unwrap_or((left, &[]));
                left = rest;
                let taken = chunk.len().wrapping_add(7) & !7;
                let words = words.get_mut(..taken)?;
                if fresh {
                    total = total.wrapping_add(widen(words, chunk)?);
                }
                let range = words.as_ptr_range();
                let operands = Dense {
                    sums: sums.as_mut_ptr(),
                    weights,
                    jump: depth.wrapping_sub(taken).wrapping_mul(4),
                    inputs: range.start,
                    inputs_end: range.end,
                    blocks: count.div_ceil(4),
                    start,
                };
                // SAFETY: there are sums for whole blocks, what they start from, and weights of `depth` inputs for each, checked above; `words` is a multiple of eight.
                unsafe { core::dense(&operands) };
                weights = weights.wrapping_add(taken.wrapping_mul(4));
                start = sums.as_ptr();
            }
            core::finish_sums(linear, first, sums, total, some)?;
            first = first.wrapping_add(count);
            block = block.wrapping_add(count.wrapping_mul(depth));
        }
    }
    Some(())
}

/// Inputs as words, zeros behind them. Gives their sum.
fn widen(words: &mut [i32], inputs: &[i8]) -> Option<i32> {
    let (places, zeros) = words.split_at_mut_checked(inputs.len())?;
    zeros.fill(0);
    // SAFETY: there are as many words as inputs.
    Some(unsafe { core::widen_row(places.as_mut_ptr(), inputs.as_ptr(), inputs.len()) })
}
