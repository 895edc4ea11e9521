//! Tables of `i8` on elements in the form of the layers around them.

use super::geometry::{end, runs, same_elements};
use crate::Step;
use crate::host::program::form::{Border, Element, Image, Want};
use crate::host::program::{Frame, Layer, Wants};
use crate::ops::OpCode;

/// A function of `i8` as a table of outputs.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(&'a [i8; 256]);

impl<'a> Table<'a> {
    /// `None`: another step.
    pub fn of(step: &Step<'a>) -> Option<Self> {
        (OpCode::parse(step.op())? == OpCode::TableI8).then_some(())?;
        step.weight_i8(0)?.try_into().ok().map(Self)
    }

    /// The forms of the operands, where others have `element`.
    pub fn wants(element: Element) -> Wants {
        let want = Want { element, border: Border::NONE, dense: false };
        Wants { inputs: vec![want], output: element, dense: false }
    }

    /// The layer. `None`: extents or forms differ.
    pub fn layer(&self, input: &Image, output: &Image) -> Option<Box<dyn Layer>> {
        let alike = same_elements([input, output]) && input.element == output.element;
        alike.then(|| -> Box<dyn Layer> {
            // Inputs have 128 added, as entries are counted.
            let entries = self.0.map(|entry| entry.cast_unsigned() ^ 0x80);
            let arena_bytes = end(input).max(end(output));
            let wide = input.element_bytes() == 2;
            Box::new(Lookup { entries, runs: runs([input, output]), wide, arena_bytes })
        })
    }
}

/// A layer, with outputs that have 128 added.
#[derive(Debug)]
struct Lookup {
    entries: [u8; 256],
    runs: Vec<([usize; 2], usize)>,
    /// Whether elements are stored in 16 bits.
    wide: bool,
    arena_bytes: usize,
}

impl Layer for Lookup {
    fn name(&self) -> &'static str {
        "table_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        let arena = frame.arena.get_mut(..self.arena_bytes)?;
        let entry = |x: u8| self.entries[usize::from(x)];
        for &([from, to], bytes) in &self.runs {
            let [input, output] = arena.get_disjoint_mut([from..from + bytes, to..to + bytes]).ok()?;
            if self.wide {
                let words = output.as_chunks_mut().0.iter_mut().zip(input.as_chunks::<2>().0);
                words.for_each(|(to, [low, _])| *to = [entry(*low), 0]);
            } else {
                output.iter_mut().zip(&*input).for_each(|(to, from)| *to = entry(*from));
            }
        }
        Some(())
    }
}
