//! The order of a linear layer's weights in a blob: an index function for each [`Packing`].
//!
//! Takes the number of a weight, output `o` and position `k` in the layer's inner product, which is `depth` long; gives where it is stored. A
//! packing fills outputs and depth up with zero bytes to whole blocks, of each group on its own ([`Matrix`]). A layer whose weights are packed stores `bias - zero point * sum of
//! weights` instead of its bias, so that kernels need not subtract the input's zero point; padding then counts as values, not as nothing.

use super::record::Packing;
#[cfg(feature = "host")]
use super::winograd;
use crate::rolled::rolled;

/// Where a weight is stored, and in what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The byte is the weight.
    Plain,
    /// The byte is the weight plus 128, modulo 256.
    Offset,
    /// The byte is the high one of `256 * weight + partner`: one less than the weight where the partner is negative.
    High {
        /// Index of the partner.
        low: usize,
    },
}

/// The weights of a layer: rows of `depth` weights, one for each output. The outputs of a group are packed on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Groups.
    pub groups: usize,
    /// Outputs of a group.
    pub outputs: usize,
    /// Weights of an output.
    pub depth: usize,
}

impl Matrix {
    /// Bytes of all weights in an order; `None` if they pass `usize`.
    pub fn bytes(&self, packing: Packing) -> Option<usize> {
        packing.bytes(self.outputs, self.depth)?.checked_mul(self.groups)
    }

    /// Weight `k` of output `o` of all; `None` if it lies outside.
    pub fn weight(&self, packing: Packing, stored: &[i8], o: usize, k: usize) -> Option<i8> {
        let group = o.checked_div(self.outputs)?;
        let first = group.checked_mul(packing.bytes(self.outputs, self.depth)?)?;
        let output = o.wrapping_sub(group.wrapping_mul(self.outputs));
        packing.weight(stored.get(first..)?, self.depth, output, k)
    }

    /// As [`Matrix::weight`], of any packing: also of transformed weights, which have one group.
    #[cfg(feature = "host")]
    pub fn any_weight(&self, packing: Packing, stored: &[i8], o: usize, k: usize) -> Option<i8> {
        if packing != Packing::Winograd {
            return self.weight(packing, stored, o, k);
        }
        let inputs = self.depth / (winograd::TAPS * winograd::TAPS);
        let tap = k.checked_div(inputs)?;
        let column = winograd::weights(stored, inputs, o, tap % winograd::TAPS, k % inputs)?;
        column.get(tap / winograd::TAPS).copied()
    }

    /// Stores the weights `[groups][outputs][depth]` in an order. `None` if `rows` or `stored` is of another length.
    pub fn pack(&self, packing: Packing, rows: &[i8], stored: &mut [i8]) -> Option<()> {
        if Some(stored.len()) != self.bytes(packing) {
            return None;
        }
        let (from, to) = (self.outputs.checked_mul(self.depth)?, packing.bytes(self.outputs, self.depth)?);
        let (mut rows, mut stored) = (rows, stored);
        for _ in 0..self.groups {
            let (group, left) = rows.split_at_checked(from)?;
            let (place, rest) = stored.split_at_mut_checked(to)?;
            packing.pack(group, self.outputs, self.depth, place)?;
            (rows, stored) = (left, rest);
        }
        rows.is_empty().then_some(())
    }
}

/// The bias that is stored with packed weights of one output: `bias - zero_point * sum of weights`, modulo 2^32.
pub fn folded_bias(weights: impl Iterator<Item = i8>, zero_point: i32, bias: i32) -> i32 {
    bias.wrapping_sub(zero_point.wrapping_mul(sum(weights)))
}

/// The bias that [`folded_bias`] was given.
pub fn unfolded_bias(weights: impl Iterator<Item = i8>, zero_point: i32, stored: i32) -> i32 {
    stored.wrapping_add(zero_point.wrapping_mul(sum(weights)))
}

fn sum(weights: impl Iterator<Item = i8>) -> i32 {
    weights.fold(0, |sum: i32, weight| sum.wrapping_add(weight.into()))
}

/// Whether an output is narrow: no weight is -128, and its sum of products with inputs of 8 bits and its folded bias stay below 2^23 in magnitude,
/// also on the way.
pub fn is_narrow(weights: impl Iterator<Item = i8>, folded: i32) -> bool {
    let (mut most, mut symmetric) = (0u64, true);
    for weight in weights {
        most = most.saturating_add(weight.unsigned_abs().into());
        symmetric &= weight != i8::MIN;
    }
    symmetric && most.saturating_mul(128).saturating_add(folded.unsigned_abs().into()) < 1 << 23
}

impl Packing {
    /// Outputs and positions of a block; both are powers of two.
    pub const fn block(self) -> (usize, usize) {
        // Powers of two, in the order of the stored numbers.
        const BLOCKS: [(u8, u8); 11] =
            [(0, 0), (1, 2), (2, 2), (2, 4), (3, 4), (3, 1), (1, 2), (2, 3), (2, 3), (0, 1), (0, 0)];
        let (lanes, step) = BLOCKS[self as usize];
        (1 << lanes, 1 << step)
    }

    /// Bytes of a layer's weights; `None` if they pass `usize`, and for [`Packing::Winograd`], which is no order of weights.
    pub fn bytes(self, outputs: usize, depth: usize) -> Option<usize> {
        if self == Self::Winograd {
            return None;
        }
        let (lanes, step) = self.block();
        outputs.checked_next_multiple_of(lanes)?.checked_mul(depth.checked_next_multiple_of(step)?)
    }

    /// Index of a weight's byte and its form. Wraps for numbers that no layer has.
    fn place(self, depth: usize, o: usize, k: usize) -> (usize, Form) {
        let (lanes, step) = self.block();
        let (lane, at) = (o & lanes.wrapping_sub(1), k & step.wrapping_sub(1));
        let padded = depth.wrapping_add(step.wrapping_sub(1)) & !step.wrapping_sub(1);
        let block =
            o.wrapping_sub(lane).wrapping_mul(padded).wrapping_add(k.wrapping_sub(at).wrapping_mul(lanes));
        match self {
            Self::Winograd => (usize::MAX, Form::Plain),
            Self::Rows | Self::EvenRows | Self::Blocks2x4 | Self::Blocks4x16 | Self::Blocks8x16 => {
                (block.wrapping_add(lane.wrapping_mul(step)).wrapping_add(at), Form::Plain)
            }
            Self::Columns8 | Self::Offset4 | Self::HalfOffset4 => {
                let plain = match self {
                    Self::Columns8 => true,
                    Self::Offset4 => false,
                    _ => lane & 1 == 1,
                };
                let form = if plain { Form::Plain } else { Form::Offset };
                (block.wrapping_add(at.wrapping_mul(lanes)).wrapping_add(lane), form)
            }
            // Word `at % 2` of each pair of outputs, halfword `at / 2`; the even output is the high byte.
            Self::Pairs | Self::PairQuads => {
                let word = (at & 1).wrapping_mul(lanes >> 1).wrapping_add(lane >> 1);
                let low = block.wrapping_add(word.wrapping_mul(4)).wrapping_add(at & 2);
                if lane & 1 == 0 { (low.wrapping_add(1), Form::High { low }) } else { (low, Form::Plain) }
            }
        }
    }

    /// Weight `k` of output `o`; `None` if it lies outside, and for [`Packing::Winograd`].
    pub fn weight(self, stored: &[i8], depth: usize, o: usize, k: usize) -> Option<i8> {
        let (at, form) = self.place(depth, o, k);
        let byte = *stored.get(at)?;
        Some(match form {
            Form::Plain => byte,
            Form::Offset => byte.wrapping_sub(i8::MIN),
            Form::High { low } => byte.wrapping_add(i8::from(*stored.get(low)? < 0)),
        })
    }

    /// Whether kernels sum up these weights as they do the values that [`Packing::weight`] gives: in orders of which two products share a word none is -128.
    pub fn is_sound(self, stored: &[i8]) -> bool {
        match self {
            Self::Columns8 | Self::EvenRows => stored.iter().all(|&weight| {
                rolled();
                weight != i8::MIN
            }),
            Self::Pairs | Self::PairQuads => stored.as_chunks::<2>().0.iter().all(|&[low, high]| {
                rolled();
                low != i8::MIN && high.wrapping_add(i8::from(low < 0)) != i8::MIN
            }),
            _ => true,
        }
    }

    /// Stores the weights `[outputs][depth]` in this order. `None` if `rows` or `stored` is of another length.
    pub fn pack(self, rows: &[i8], outputs: usize, depth: usize, stored: &mut [i8]) -> Option<()> {
        if Some(rows.len()) != outputs.checked_mul(depth) || Some(stored.len()) != self.bytes(outputs, depth)
        {
            return None;
        }
        stored.fill(0);
        // What stands in the low bytes is needed for the high ones.
        for high in [false, true] {
            let mut left = rows;
            for o in 0..outputs {
                let (row, rest) = left.split_at_checked(depth)?;
                left = rest;
                for (k, &weight) in row.iter().enumerate() {
                    let (at, form) = self.place(depth, o, k);
                    let borrow = match form {
                        Form::Plain => 0,
                        Form::Offset => i8::MIN,
                        Form::High { low } => i8::from(*stored.get(low)? < 0),
                    };
                    if matches!(form, Form::High { .. }) == high {
                        *stored.get_mut(at)? = weight.wrapping_sub(borrow);
                    }
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Packing; 10] = [
        Packing::Rows,
        Packing::Pairs,
        Packing::PairQuads,
        Packing::Blocks4x16,
        Packing::Blocks8x16,
        Packing::Columns8,
        Packing::Blocks2x4,
        Packing::Offset4,
        Packing::HalfOffset4,
        Packing::EvenRows,
    ];

    #[test]
    fn every_weight_is_found_again() {
        for packing in ALL {
            for (outputs, depth) in [(1, 1), (3, 5), (8, 16), (7, 33), (12, 64)] {
                let rows: Vec<i8> =
                    (0..outputs * depth).map(|k| ((k * 37 + 11) % 255) as i8).map(|w| w.max(-127)).collect();
                let mut stored = vec![0x55; packing.bytes(outputs, depth).unwrap()];
                packing.pack(&rows, outputs, depth, &mut stored).unwrap();
                for o in 0..outputs {
                    for k in 0..depth {
                        let found = packing.weight(&stored, depth, o, k);
                        assert_eq!(found, Some(rows[o * depth + k]), "{packing:?} {o} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn groups_are_packed_one_by_one() {
        let matrix = Matrix { groups: 3, outputs: 5, depth: 6 };
        let rows: Vec<i8> = (0..90).map(|k| (k * 37 % 255) as i8).map(|w| w.max(-127)).collect();
        for packing in ALL {
            let mut stored = vec![0x55; matrix.bytes(packing).unwrap()];
            matrix.pack(packing, &rows, &mut stored).unwrap();
            let mut second = vec![0; packing.bytes(5, 6).unwrap()];
            packing.pack(&rows[30..60], 5, 6, &mut second).unwrap();
            assert_eq!(stored[second.len()..2 * second.len()], second);
            for (at, &weight) in rows.iter().enumerate() {
                assert_eq!(matrix.weight(packing, &stored, at / 6, at % 6), Some(weight), "{packing:?} {at}");
            }
            assert_eq!(matrix.pack(packing, &rows[1..], &mut stored), None);
            assert_eq!(matrix.weight(packing, &stored, usize::MAX, 0), None);
        }
    }

    #[test]
    fn least_weights_are_sound_where_no_word_is_shared() {
        for packing in ALL {
            let shared =
                [Packing::Columns8, Packing::EvenRows, Packing::Pairs, Packing::PairQuads].contains(&packing);
            for at in [0, 4, 5, 9, 14] {
                let mut rows = [-127i8, 127, -1, 0, 5].repeat(3);
                let mut stored = vec![0; packing.bytes(3, 5).unwrap()];
                packing.pack(&rows, 3, 5, &mut stored).unwrap();
                assert!(packing.is_sound(&stored), "{packing:?}");
                rows[at] = -128;
                packing.pack(&rows, 3, 5, &mut stored).unwrap();
                assert_eq!(packing.is_sound(&stored), !shared, "{packing:?} {at}");
            }
        }
    }

    #[test]
    fn pairs_are_sums_in_halfwords() {
        // Outputs 0 and 1, four positions: word 0 holds positions 0 and 2, word 1 positions 1 and 3.
        let (a, b) = ([1i8, -2, 127, -127], [5i8, -6, -127, 127]);
        let mut stored = [0; 8];
        Packing::Pairs.pack(&[a, b].concat(), 2, 4, &mut stored).unwrap();
        let halves: Vec<i16> = stored
            .as_chunks()
            .0
            .iter()
            .map(|&[low, high]| i16::from_le_bytes([low as u8, high as u8]))
            .collect();
        let sum = |k: usize| 256 * i16::from(a[k]) + i16::from(b[k]);
        assert_eq!(halves, [sum(0), sum(2), sum(1), sum(3)]);
    }

    #[test]
    fn a_folded_bias_is_found_again_and_narrow_sums_stay_narrow() {
        for zero_point in [-128, -3, 0, 127] {
            for bias in [0, -5, i32::MAX, i32::MIN] {
                let weights = [1i8, -128, 127, 9].into_iter();
                let folded = folded_bias(weights.clone(), zero_point, bias);
                assert_eq!(folded, bias.wrapping_sub(9 * zero_point));
                assert_eq!(unfolded_bias(weights, zero_point, folded), bias);
            }
        }
        // 128 * (127 + 127) = 32512.
        let weights = [127i8, -127].into_iter();
        assert!(is_narrow(weights.clone(), (1 << 23) - 32513));
        assert!(!is_narrow(weights.clone(), (1 << 23) - 32512));
        assert!(!is_narrow(weights.clone(), -(1 << 23) + 32512));
        assert!(!is_narrow(weights, i32::MIN));
        assert!(!is_narrow([-128i8].into_iter(), 0));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert_eq!(Packing::Rows.pack(&[1, 2], 1, 2, &mut [0; 3]), None);
        assert_eq!(Packing::Pairs.pack(&[1, 2], 1, 3, &mut [0; 8]), None);
        assert_eq!(Packing::Columns8.weight(&[0; 16], 1, 8, 0), None);
        assert_eq!(Packing::Winograd.pack(&[0; 36], 4, 9, &mut [0; 36]), None);
        assert_eq!(Packing::Winograd.weight(&[0; 36], 9, 0, 0), None);
    }
}
