//! Layers that bring a value from one form into another.

use core::ops::Range;

use super::form::{Element, Image};
use super::{Frame, Layer};

/// Bytes of a run of equally many elements in both forms.
type Runs = (Range<usize>, Range<usize>);

/// A change of form.
#[derive(Debug)]
pub struct Convert {
    from: Element,
    to: Element,
    runs: Vec<Runs>,
}

impl Convert {
    /// The change from one form to another of the same elements.
    pub fn new(from: &Image, to: &Image) -> Self {
        let (wide_from, wide_to) = (from.element_bytes(), to.element_bytes());
        let mut runs = Vec::new();
        let (mut sources, mut targets) = (from.runs().into_iter(), to.runs().into_iter());
        let (mut source, mut target) = (0..0, 0..0);
        loop {
            if source.is_empty() {
                let Some(next) = sources.next() else { break };
                source = next;
            }
            if target.is_empty() {
                let Some(next) = targets.next() else { break };
                target = next;
            }
            let elements = (source.len() / wide_from).min(target.len() / wide_to);
            if elements == 0 {
                continue;
            }
            let (read, written) = (source.start + elements * wide_from, target.start + elements * wide_to);
            runs.push((source.start..read, target.start..written));
            (source.start, target.start) = (read, written);
        }
        Self { from: from.element, to: to.element, runs }
    }
}

impl Layer for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        for (read, written) in &self.runs {
            let [source, target] = frame.arena.get_disjoint_mut([read.clone(), written.clone()]).ok()?;
            let wide = |byte: u8| i16::from(byte).to_le_bytes();
            match (self.from, self.to) {
                (Element::Stored, Element::Offset8) | (Element::Offset8, Element::Stored) => {
                    target.iter_mut().zip(&*source).for_each(|(to, from)| *to = from ^ 0x80);
                }
                (Element::Stored, Element::Offset16) => {
                    let pairs = target.as_chunks_mut().0.iter_mut().zip(&*source);
                    pairs.for_each(|(to, from)| *to = wide(from ^ 0x80));
                }
                (Element::Offset8, Element::Offset16) => {
                    target
                        .as_chunks_mut()
                        .0
                        .iter_mut()
                        .zip(&*source)
                        .for_each(|(to, from)| *to = wide(*from));
                }
                (Element::Offset16, Element::Stored) => {
                    let pairs = target.iter_mut().zip(source.as_chunks::<2>().0);
                    pairs.for_each(|(to, [low, _])| *to = low ^ 0x80);
                }
                (Element::Offset16, Element::Offset8) => {
                    target.iter_mut().zip(source.as_chunks::<2>().0).for_each(|(to, [low, _])| *to = *low);
                }
                _ => target.copy_from_slice(source),
            }
        }
        Some(())
    }
}
