//! The weights of 3 x 3 windows for Winograd's F(2, 3) down the columns: [`Packing::Winograd`](super::Packing::Winograd).
//!
//! Two outputs below each other, `y0 = d0 g0 + d1 g1 + d2 g2` and `y1 = d1 g0 + d2 g1 + d3 g2`, take four products instead of six:
//!
//! | plane | of weights | of inputs | part of `2 y0` | part of `2 y1` |
//! |---|---|---|---|---|
//! | 0 | `g0 + g1 + g2` | `d1 + d2` | + | + |
//! | 1 | `g0 - g1 + g2` | `d2 - d1` | + | - |
//! | 2 | `2 g0` | `d0 - d2` | + | |
//! | 3 | `2 g2` | `d3 - d1` | | + |
//!
//! All are integers, and sums are twice the sums of the direct form, modulo 2^32: nothing is rounded. A plane's weight is below 2^9 in magnitude, a plane's
//! input of bytes at most 2^8; both have 16 bits. The bias is folded as for other packings, so padding counts as the zero point.
//!
//! The order is `[outputs / 4][plane][pair of inputs][column of the window][4 outputs][2 inputs]`, little-endian. Four inputs `c` make the pairs `(c, c + 2)` and
//! `(c + 1, c + 3)`; missing inputs are zeros, outputs come in fours. These are no weights in another order, so a loader has to know that they
//! stem from some: [`is_transform`]. Then each weight follows from its planes, and every backend gives the same bits.

use crate::rolled::rolled;

/// Outputs that stand side by side.
pub const OUTPUTS: usize = 4;
/// Inputs that stand side by side.
pub const INPUTS: usize = 4;
/// Planes of a column of weights.
pub const PLANES: usize = 4;
/// Rows, and columns, of a window.
pub const TAPS: usize = 3;
/// Bytes of a pair of inputs in a plane.
const PAIR_BYTES: usize = TAPS * OUTPUTS * 4;

/// Bytes of a plane of four outputs; `None` if they pass `usize`.
fn plane_bytes(inputs: usize) -> Option<usize> {
    inputs.checked_next_multiple_of(INPUTS)?.checked_mul(PAIR_BYTES / 2)
}

/// Bytes of all weights; `None` if they pass `usize`, or if outputs do not come in fours.
pub fn bytes(inputs: usize, outputs: usize) -> Option<usize> {
    let quads = outputs.is_multiple_of(OUTPUTS).then_some(outputs / OUTPUTS)?;
    plane_bytes(inputs)?.checked_mul(PLANES)?.checked_mul(quads)
}

/// The three weights, top to bottom, of a column of planes; `None` if it stems from no bytes.
#[inline(never)]
fn column([sum, alternating, first, last]: [i16; PLANES]) -> Option<[i8; TAPS]> {
    let half = |twice: i16| if twice & 1 == 0 { i8::try_from(twice >> 1).ok() } else { None };
    let middle = half(sum.wrapping_sub(alternating))?;
    let agrees = sum.wrapping_add(alternating) == first.wrapping_add(last);
    let small = sum.unsigned_abs().max(alternating.unsigned_abs()) < 1 << 9;
    if agrees && small { Some([half(first)?, middle, half(last)?]) } else { None }
}

/// Where plane 0 of output `o` and input `c` in column `x` of the window stands; wraps for numbers that no layer has.
fn place(inputs: usize, o: usize, x: usize, c: usize) -> Option<usize> {
    let quad = (o / OUTPUTS).wrapping_mul(plane_bytes(inputs)?.wrapping_mul(PLANES));
    let pair = ((c / 2) & !1) | (c & 1);
    let in_pair = x.wrapping_mul(OUTPUTS).wrapping_add(o % OUTPUTS).wrapping_mul(4).wrapping_add(c & 2);
    Some(quad.wrapping_add(pair.wrapping_mul(PAIR_BYTES)).wrapping_add(in_pair))
}

/// The three weights of output `o` and input `c` in column `x` of the window, top to bottom. `None` if they lie outside or stem from no bytes.
#[inline(never)]
pub fn weights(stored: &[i8], inputs: usize, o: usize, x: usize, c: usize) -> Option<[i8; TAPS]> {
    let plane = plane_bytes(inputs)?;
    let mut at = place(inputs, o, x, c)?;
    let mut planes = [0i16; PLANES];
    for value in &mut planes {
        rolled();
        let &[low, high] = stored.get(at..)?.first_chunk()?;
        *value = i16::from_le_bytes([low as u8, high as u8]);
        at = at.wrapping_add(plane);
    }
    column(planes)
}

/// Whether stored planes are those of some bytes, with zeros for missing inputs.
#[inline(never)]
pub fn is_transform(stored: &[i8], inputs: usize) -> bool {
    let Some(plane) = plane_bytes(inputs).filter(|bytes| *bytes > 0) else { return false };
    let mut left = stored;
    while !left.is_empty() {
        rolled();
        let mut planes = [left; PLANES];
        for place in &mut planes {
            let Some((plane, rest)) = left.split_at_checked(plane) else { return false };
            (*place, left) = (plane, rest);
        }
        let [a, b, c, d] = planes.map(|plane| plane.as_chunks::<2>().0);
        let mut left = PAIR_BYTES / 2;
        let mut input = 0usize;
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            rolled();
            let values = [a, b, c, d].map(|&[low, high]| i16::from_le_bytes([low as u8, high as u8]));
            // Halves are of the inputs `input` and `input + 2`, in turns.
            let missing = input.wrapping_add(if left & 1 == 0 { 0 } else { 2 }) >= inputs;
            match column(values) {
                Some(weights) if !missing || weights == [0; TAPS] => {}
                _ => return false,
            }
            left = left.wrapping_sub(1);
            if left == 0 {
                left = PAIR_BYTES / 2;
                input = input.wrapping_add(if input & 1 == 0 { 1 } else { 3 });
            }
        }
    }
    true
}

/// Stores the weights `[outputs][3][3][inputs]` in this order. `None` if `rows` or `stored` is of another length.
pub fn pack(rows: &[i8], inputs: usize, outputs: usize, stored: &mut [i8]) -> Option<()> {
    let row = TAPS.checked_mul(inputs)?;
    if Some(stored.len()) != bytes(inputs, outputs)
        || Some(rows.len()) != row.checked_mul(TAPS)?.checked_mul(outputs)
        || row == 0
    {
        return None;
    }
    stored.fill(0);
    let mut left = rows;
    for o in 0..outputs {
        let (top, rest) = left.split_at_checked(row)?;
        let (middle, rest) = rest.split_at_checked(row)?;
        let (bottom, rest) = rest.split_at_checked(row)?;
        left = rest;
        let (mut x, mut c) = (0usize, 0usize);
        for ((&g0, &g1), &g2) in top.iter().zip(middle).zip(bottom) {
            let [g0, g1, g2] = [g0, g1, g2].map(i16::from);
            let outer = g0.wrapping_add(g2);
            let planes =
                [outer.wrapping_add(g1), outer.wrapping_sub(g1), g0.wrapping_mul(2), g2.wrapping_mul(2)];
            let mut at = place(inputs, o, x, c)?;
            for value in planes {
                *stored.get_mut(at..)?.first_chunk_mut()? = value.to_le_bytes().map(|byte| byte as i8);
                at = at.wrapping_add(plane_bytes(inputs)?);
            }
            c = c.wrapping_add(1);
            if c == inputs {
                (x, c) = (x.wrapping_add(1), 0);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(inputs: usize, outputs: usize) -> (Vec<i8>, Vec<i8>) {
        let rows =
            (0..outputs * 9 * inputs).map(|k| ((k * 37 + k / 7) % 256) as u8 as i8).collect::<Vec<_>>();
        let mut stored = vec![0x55; bytes(inputs, outputs).unwrap()];
        pack(&rows, inputs, outputs, &mut stored).unwrap();
        (rows, stored)
    }

    #[test]
    fn every_weight_is_found_again() {
        for (inputs, outputs) in [(1, 4), (4, 8), (6, 4), (7, 12), (16, 16)] {
            let (rows, stored) = packed(inputs, outputs);
            assert!(is_transform(&stored, inputs));
            for (o, window) in rows.chunks(9 * inputs).enumerate() {
                for k in 0..3 * inputs {
                    let expected = [0, 1, 2].map(|row| window[row * 3 * inputs + k]);
                    assert_eq!(weights(&stored, inputs, o, k / inputs, k % inputs), Some(expected));
                }
            }
        }
    }

    #[test]
    fn what_stems_from_no_bytes_is_refused() {
        for inputs in [3, 4, 6] {
            let (_, stored) = packed(inputs, 4);
            for at in 0..stored.len() {
                for change in [1, 2, -128i8] {
                    let mut other = stored.clone();
                    other[at] = other[at].wrapping_add(change);
                    assert!(!is_transform(&other, inputs), "{inputs} {at} {change}");
                }
            }
            assert!(!is_transform(&stored[..stored.len() - 2], inputs));
        }
        assert!(!is_transform(&[0; 8], 0));
        assert_eq!(bytes(4, 6), None);
        assert_eq!(bytes(usize::MAX, 4), None);
        assert_eq!(weights(&[0; 95], 1, 3, 2, 3), None);
    }

    #[test]
    fn missing_inputs_are_zeros() {
        // One input of four: all that stands for the others is refused, though it is the transform of something.
        let rows = [1i8; 4 * 9 * 4];
        let mut stored = vec![0; bytes(4, 4).unwrap()];
        pack(&rows, 4, 4, &mut stored).unwrap();
        assert!(is_transform(&stored, 4));
        for inputs in 1..4 {
            assert!(!is_transform(&stored, inputs));
        }
    }
}
