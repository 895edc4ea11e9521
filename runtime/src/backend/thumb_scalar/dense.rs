//! Dense layers: some inputs at a time as words, all outputs over them.

use super::conv2d::types;
use super::core;
use super::frame::{Dense, Frame, ODD, WideDense};
use crate::backend::scalar::compact;
use crate::backend::spec::select::{Constants, Linear, Request};
use crate::backend::spec::swar;
use crate::backend::{Integers, IntegersMut, Kernels};
use crate::blob::DType;
use crate::ops::linear::Integer;
use crate::rolled::rolled;

#[inline(never)]
pub fn dense_i8<K: Kernels>(
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
        constants: Constants::USUAL,
    };
    match swar::dense(&request, &core::CORE) {
        // Some cores read four weights at once.
        Some(layout) if layout.bytes() <= scratch.len() && linear.weights.as_ptr().addr() & 3 == 0 => {
            packed(inputs, linear, input, output, scratch, &layout)
        }
        _ => compact::dense::<K>(inputs, linear, Integers::I8(input), &mut IntegersMut::I8(output)),
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
    for zero in zeros {
        rolled();
        *zero = 0;
    }
    // SAFETY: there are as many words as inputs.
    Some(unsafe { core::widen_row(places.as_mut_ptr(), inputs.as_ptr(), inputs.len()) })
}

/// Dense layer from or to `i16`, with weights in the operator's order.
#[inline(never)]
pub fn dense_i16<K: Kernels>(
    inputs: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    mut output: IntegersMut<'_>,
    scratch: &mut [u8],
) -> Option<()> {
    let [from, to] = types(&input, &output);
    let request = Request {
        linear: Linear::Dense { inputs, outputs: linear.bias.len() },
        input: from,
        output: to,
        packing: linear.packing,
        in_place: false,
        constants: Constants::USUAL,
    };
    match swar::dense(&request, &core::CORE) {
        Some(layout) if layout.bytes() <= scratch.len() => {
            wide(inputs, linear, input, &mut output, scratch, &layout)
        }
        _ => compact::dense::<K>(inputs, linear, input, &mut output),
    }
}

fn wide(
    inputs: usize,
    linear: &Integer<'_>,
    input: Integers<'_>,
    output: &mut IntegersMut<'_>,
    scratch: &mut [u8],
    layout: &swar::Dense,
) -> Option<()> {
    let (sums, rest) = scratch.split_at_mut_checked(layout.outputs.wrapping_mul(4))?;
    let sums: &mut [i32] = bytemuck::try_cast_slice_mut(sums).ok()?;
    let words: &mut [i32] =
        bytemuck::try_cast_slice_mut(rest.get_mut(..layout.inputs.wrapping_mul(4))?).ok()?;
    let outputs = linear.bias.len();
    if linear.weights.len() < inputs.checked_mul(outputs)? || outputs == 0 {
        return None;
    }
    let length = match output {
        IntegersMut::I8(output) => output.len(),
        IntegersMut::I16(output) => output.len(),
    };
    let frame = Frame::new(linear);
    let (mut row, mut slot) = (0usize, 0usize);
    while slot < length {
        let mut first = 0usize;
        while first < outputs {
            let count = outputs.wrapping_sub(first).min(layout.outputs);
            let bias = linear.bias.get(first..)?;
            sums.iter_mut().zip(bias).for_each(|(sum, &bias)| *sum = bias);
            let block = linear.weights.as_ptr().wrapping_add(first.wrapping_mul(inputs));
            let mut done = 0usize;
            while done < inputs {
                let taken = inputs.wrapping_sub(done).min(layout.inputs);
                let words = words.get_mut(..taken)?;
                spread(words, &input, row.wrapping_add(done), linear.input_zero)?;
                let range = words.as_ptr_range();
                let whole = count & !3;
                let mut operands = WideDense {
                    sums: sums.as_mut_ptr(),
                    weights: block.wrapping_add(done),
                    stride: inputs,
                    inputs: range.start,
                    inputs_end: range.end,
                    blocks: whole >> 2,
                };
                if whole > 0 {
                    // SAFETY: the weights of all outputs are there for each of `inputs`, and sums for whole blocks; there are inputs.
                    unsafe { core::wide_dense(&operands) };
                }
                // Each of the rest four times: the sums have room for a block, and later ones come after it.
                let mut kept = [0i32; 4];
                operands.sums = kept.as_mut_ptr();
                (operands.stride, operands.blocks) = (0, 1);
                for (lane, sum) in sums.iter_mut().enumerate().take(count).skip(whole) {
                    kept[0] = *sum;
                    operands.weights = block.wrapping_add(lane.wrapping_mul(inputs)).wrapping_add(done);
                    // SAFETY: the weights of the output are there, `kept` is a block of sums; there are inputs.
                    unsafe { core::wide_dense(&operands) };
                    *sum = kept[0];
                }
                done = done.wrapping_add(taken);
            }
            for (lane, &sum) in sums.iter().enumerate().take(count) {
                let channel = first.wrapping_add(lane);
                let code = ODD.wrapping_add(*linear.shift.get(channel)?);
                // SAFETY: `frame` is a frame.
                let value = unsafe { core::exact(sum, *linear.multiplier.get(channel)?, code, &frame) };
                match output {
                    IntegersMut::I8(output) => *output.get_mut(slot)? = value as i8,
                    IntegersMut::I16(output) => *output.get_mut(slot)? = value as i16,
                }
                slot = slot.wrapping_add(1);
            }
            first = first.wrapping_add(count);
        }
        row = row.wrapping_add(inputs);
    }
    Some(())
}

/// Inputs from `first` on as words, without their zero point.
#[inline(never)]
fn spread(words: &mut [i32], input: &Integers<'_>, first: usize, zero: i16) -> Option<()> {
    match input {
        Integers::I8(input) => {
            let input = input.get(first..)?.get(..words.len())?;
            let zero = i32::from(zero);
            words.iter_mut().zip(input).for_each(|(word, &x)| *word = i32::from(x).wrapping_sub(zero));
        }
        Integers::I16(input) => {
            let input = input.get(first..)?.get(..words.len())?;
            words.iter_mut().zip(input).for_each(|(word, &x)| *word = x.into());
        }
    }
    Some(())
}
