//! Disjoint views of tensors out of one aligned buffer.
//!
//! Takes byte ranges of a step's inputs, output and scratch; gives shared views of the inputs and exclusive ones of the rest. Refuses
//! (with `None`) ranges out of bounds and ranges that overlap, whatever the loader has promised: memory safety rests on this page alone.

use crate::blob::Space;
use core::ops::Range;

/// Most inputs that [`Memory::views`] can give at once.
pub const MAX_INPUTS: usize = 4;

/// A buffer for arenas, states and blobs, aligned to 16 bytes. Put it into a `static` so that RAM that does not fit is a link
/// error.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Arena<const N: usize>(pub [u8; N]);

impl<const N: usize> Arena<N> {
    /// Zeroed.
    pub const fn new() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> core::ops::Deref for Arena<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> core::ops::DerefMut for Arena<N> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The two buffers that a model works in.
pub struct Memory<'a> {
    /// Working memory.
    pub arena: &'a mut [u8],
    /// What survives between runs.
    pub state: &'a mut [u8],
}

/// Bytes of one step's operands. They never overlap, but for inputs among themselves.
pub struct Views<'a, const N: usize> {
    /// The inputs; `None` for the first one when it lies in place, that is when `output` holds it.
    pub inputs: [Option<&'a [u8]>; N],
    /// The output.
    pub output: &'a mut [u8],
    /// Working memory of the step, empty when it asked for none.
    pub scratch: &'a mut [u8],
}

/// The fields of [`Views`] of one input.
type OneInput<'a> = (Option<&'a [u8]>, &'a mut [u8], &'a mut [u8]);

/// Where an operand lies.
#[derive(Clone, Debug, Eq)]
pub struct Place {
    /// `Arena` or `State`.
    pub space: Space,
    /// Bytes in it.
    pub range: Range<usize>,
}

impl Place {
    /// Whether two places have bytes in common.
    #[inline(never)]
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let (a, b) = (&self.range, &other.range);
        self.space == other.space && !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
    }
}

// Compared often where code counts more than time.
impl PartialEq for Place {
    #[inline(never)]
    fn eq(&self, other: &Self) -> bool {
        self.space == other.space && self.range == other.range
    }
}

impl Memory<'_> {
    /// Views of a step's operands. An input that repeats an earlier one's place shares its view. `None` if there are more than
    /// [`MAX_INPUTS`] inputs, a place is out of bounds, or two places overlap that must not.
    pub fn views<const N: usize>(
        &mut self,
        inputs: &[Place; N],
        output: &Place,
        scratch: &Range<usize>,
    ) -> Option<Views<'_, N>> {
        // Output, scratch, inputs.
        match N {
            0 => self.cut::<N, 2>(inputs, output, scratch),
            1 => self.cut_one(inputs, output, scratch),
            2 => self.cut::<N, 4>(inputs, output, scratch),
            3..=MAX_INPUTS => self.cut::<N, { MAX_INPUTS + 2 }>(inputs, output, scratch),
            _ => None,
        }
    }

    /// Views of one input, the rule.
    #[inline(always)]
    fn cut_one<const N: usize>(
        &mut self,
        inputs: &[Place; N],
        output: &Place,
        scratch: &Range<usize>,
    ) -> Option<Views<'_, N>> {
        let input = inputs.first()?;
        let scratch = if scratch.is_empty() { 0..0 } else { scratch.clone() };
        if (input.space, output.space) != (Space::Arena, Space::Arena) {
            let (input, output, scratch) = self.cut_apart(input, output, scratch)?;
            return Some(Views { inputs: [input; N], output, scratch });
        }
        let in_place = input.range == output.range;
        let read = if in_place { 0..0 } else { input.range.clone() };
        let [output, scratch, read] = three(self.arena, [output.range.clone(), scratch, read])?;
        let read: &[u8] = read;
        Some(Views { inputs: [(!in_place).then_some(read); N], output, scratch })
    }

    /// Input, output and scratch where not both of the first are in the arena.
    #[cold]
    #[inline(never)]
    fn cut_apart(&mut self, input: &Place, output: &Place, scratch: Range<usize>) -> Option<OneInput<'_>> {
        // Output, scratch, input of each space.
        let (mut arena, mut state) = ([0..0, scratch, 0..0], [const { 0..0 }; 3]);
        let in_place = input == output;
        for (place, slot) in [(output, 0usize), (input, 2)].into_iter().take(if in_place { 1 } else { 2 }) {
            let space = match place.space {
                Space::Arena => &mut arena,
                Space::State => &mut state,
                _ => return None,
            };
            *space.get_mut(slot)? = place.range.clone();
        }
        let [out_arena, scratch, in_arena] = three(self.arena, arena)?;
        let [out_state, _, in_state] = three(self.state, state)?;
        let output = if output.space == Space::State { out_state } else { out_arena };
        let view: &[u8] = if input.space == Space::State { in_state } else { in_arena };
        Some(((!in_place).then_some(view), output, scratch))
    }

    #[inline(always)]
    fn cut<const N: usize, const SLOTS: usize>(
        &mut self,
        inputs: &[Place; N],
        output: &Place,
        scratch: &Range<usize>,
    ) -> Option<Views<'_, N>> {
        // Slots 0 and 1: output and scratch. A slot that is not of the space in question is the empty range.
        let in_space = |space: Space| -> [Range<usize>; SLOTS] {
            let mut slots = [const { 0..0 }; SLOTS];
            let (ends, input_slots) = slots.split_at_mut_checked(2).unwrap_or_default();
            if let [output_slot, scratch_slot] = ends {
                if output.space == space {
                    *output_slot = output.range.clone();
                }
                if space == Space::Arena && !scratch.is_empty() {
                    *scratch_slot = scratch.clone();
                }
            }
            for (k, (slot, input)) in input_slots.iter_mut().zip(inputs).enumerate() {
                let in_place = k == 0 && input == output;
                if input.space == space && !in_place && !inputs.iter().take(k).any(|earlier| earlier == input)
                {
                    *slot = input.range.clone();
                }
            }
            slots
        };
        let mut arena = self.arena.get_disjoint_mut(in_space(Space::Arena)).ok()?.map(Some);
        let mut state = [const { None }; SLOTS];
        if output.space == Space::State || inputs.iter().any(|input| input.space == Space::State) {
            state = self.state.get_disjoint_mut(in_space(Space::State)).ok()?.map(Some);
        }
        let mut take = |space: Space, slot: usize| match space {
            Space::Arena => arena.get_mut(slot)?.take(),
            Space::State => state.get_mut(slot)?.take(),
            _ => None,
        };
        let output_view = take(output.space, 0)?;
        let scratch_view = take(Space::Arena, 1)?;
        let mut views = [None; N];
        for k in 0..N {
            let input = inputs.get(k)?;
            if k == 0 && input == output {
                continue;
            }
            let earlier = inputs.iter().take(k).position(|earlier| earlier == input);
            let view: &[u8] = match earlier {
                Some(earlier) => (*views.get(earlier)?)?,
                None => take(input.space, k.checked_add(2)?)?,
            };
            *views.get_mut(k)? = Some(view);
        }
        Some(Views { inputs: views, output: output_view, scratch: scratch_view })
    }
}

/// Three ranges of a buffer that do not overlap.
#[inline(never)]
fn three(buffer: &mut [u8], ranges: [Range<usize>; 3]) -> Option<[&mut [u8]; 3]> {
    buffer.get_disjoint_mut(ranges).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(range: Range<usize>) -> Place {
        Place { space: Space::Arena, range }
    }

    fn state(range: Range<usize>) -> Place {
        Place { space: Space::State, range }
    }

    fn check<const N: usize>(
        inputs: [Place; N],
        output: Place,
        scratch: Range<usize>,
    ) -> Option<[Option<u8>; N]> {
        let mut arena: Vec<u8> = (0..64).collect();
        let mut state: Vec<u8> = (100..116).collect();
        let mut memory = Memory { arena: &mut arena, state: &mut state };
        let views = memory.views(&inputs, &output, &scratch)?;
        assert_eq!(views.output.len(), output.range.len());
        assert_eq!(views.scratch.len(), scratch.len());
        views.output.fill(0xFF);
        views.scratch.fill(0xFE);
        for (view, place) in views.inputs.iter().zip(&inputs) {
            assert!(view.is_none_or(|view| view.len() == place.range.len()));
        }
        Some(views.inputs.map(|view| view.map(|view| view[0])))
    }

    #[test]
    fn disjoint_places_are_given() {
        assert_eq!(check([arena(0..16)], arena(16..32), 32..40), Some([Some(0)]));
        assert_eq!(check([arena(0..16), arena(40..64)], arena(16..32), 0..0), Some([Some(0), Some(40)]));
        assert_eq!(check([arena(16..32)], arena(0..16), 32..64), Some([Some(16)]));
        assert_eq!(check([], arena(0..16), 16..17), Some([]));
    }

    #[test]
    fn spaces_do_not_meet() {
        assert_eq!(check([state(0..16)], arena(0..16), 16..32), Some([Some(100)]));
        assert_eq!(check([arena(0..16), state(0..4)], state(4..8), 16..32), Some([Some(0), Some(100)]));
    }

    #[test]
    fn equal_inputs_share_a_view() {
        assert_eq!(check([arena(4..8), arena(4..8)], arena(16..20), 0..0), Some([Some(4), Some(4)]));
        assert_eq!(check([arena(4..8), arena(5..9)], arena(16..20), 0..0), None);
    }

    #[test]
    fn in_place_is_the_first_input_exactly() {
        assert_eq!(check([arena(0..16)], arena(0..16), 16..32), Some([None]));
        assert_eq!(check([arena(0..16), arena(16..32)], arena(0..16), 0..0), Some([None, Some(16)]));
        assert_eq!(check([arena(16..32), arena(0..16)], arena(0..16), 0..0), None);
        assert_eq!(check([arena(0..16), arena(0..16)], arena(0..16), 0..0), None);
        assert_eq!(check([arena(0..17)], arena(0..16), 0..0), None);
        assert_eq!(check([arena(0..16)], arena(15..31), 0..0), None);
    }

    #[test]
    fn scratch_meets_nothing() {
        assert_eq!(check([arena(0..16)], arena(16..32), 15..20), None);
        assert_eq!(check([arena(0..16)], arena(16..32), 31..33), None);
        assert_eq!(check([arena(0..16)], arena(0..16), 8..12), None);
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(check([arena(0..16)], arena(60..65), 0..0), None);
        assert_eq!(check([state(0..17)], arena(0..16), 0..0), None);
        assert_eq!(check([arena(0..16)], arena(16..32), 64..65), None);
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = arena(20..16);
        assert_eq!(check([reversed], arena(0..16), 0..0), None);
        let other = Place { space: Space::Const, range: 0..4 };
        assert_eq!(check([other], arena(0..16), 0..0), None);
    }
}
