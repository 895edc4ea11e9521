//! Which forms every value takes, and where they lie in the arena.
//!
//! Takes what each step wants of its operands; gives for each tensor its forms and their places. Values whose lifetimes do not meet share
//! memory. A border keeps its zeros from run to run, so a form with a border shares its place with equal forms alone.

use super::form::{Border, Element, Image, Want, extents};
use crate::blob::TensorRecord;
use crate::host::aligned::ALIGN;

/// Bytes behind the last value that kernels may read.
pub const SLACK: usize = 256;

/// Steps from the first, inclusive, during which a form is in use.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
}

/// A value: one tensor and its views.
#[derive(Clone, Debug)]
struct Value {
    record: TensorRecord,
    born: usize,
    wants: Vec<(usize, [usize; 4], Want)>,
    forms: Vec<(Image, Life)>,
    /// The form that the step writes which makes the value.
    written: usize,
}

/// Forms and places of all values. A value is named by the tensor that is no view.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    values: Vec<Option<Value>>,
    /// Bytes of the arena.
    pub bytes: usize,
}

impl Plan {
    /// A value that step `born` makes (0: a graph input; steps count from 1).
    pub fn define(&mut self, tensor: u16, record: TensorRecord, born: usize) {
        let at = usize::from(tensor);
        if self.values.len() <= at {
            self.values.resize(at + 1, None);
        }
        self.values[at] = Some(Value { record, born, wants: Vec::new(), forms: Vec::new(), written: 0 });
    }

    /// Step `when` reads a value as a tensor of these extents.
    pub fn read(&mut self, tensor: u16, when: usize, extents: [usize; 4], want: Want) -> Option<()> {
        self.value_mut(tensor)?.wants.push((when, extents, want));
        Some(())
    }

    fn value(&self, tensor: u16) -> Option<&Value> {
        self.values.get(usize::from(tensor))?.as_ref()
    }

    fn value_mut(&mut self, tensor: u16) -> Option<&mut Value> {
        self.values.get_mut(usize::from(tensor))?.as_mut()
    }

    /// Decides on forms. `made` is the element that a value's own step writes.
    pub fn settle(&mut self, tensor: u16, made: Element, dense: bool) -> Option<()> {
        let value = self.value_mut(tensor)?;
        let own = extents(&value.record);
        let blank = |element, extents, border| Image {
            element,
            dtype: value.record.dtype,
            extents,
            border,
            zero_point: value.record.zero_point,
            start: 0,
        };
        let mut forms: Vec<(Image, Life)> = Vec::new();
        // Forms with borders first: they also serve those who want none but do not mind.
        for &(when, extents, want) in value.wants.iter().filter(|(_, _, want)| want.border != Border::NONE) {
            let same =
                |(image, _): &&mut (Image, Life)| image.element == want.element && image.extents == extents;
            match forms.iter_mut().find(same) {
                Some((image, life)) => {
                    image.border = image.border.union(want.border);
                    life.last = life.last.max(when);
                }
                None => {
                    let life = Life { first: value.born, last: when.max(value.born) };
                    forms.push((blank(want.element, extents, want.border), life));
                }
            }
        }
        for &(when, extents, want) in value.wants.iter().filter(|(_, _, want)| want.border == Border::NONE) {
            let life = Life { first: value.born, last: when.max(value.born) };
            match forms.iter_mut().find(|(image, _)| serves(image, extents, want)) {
                Some((_, life)) => life.last = life.last.max(when),
                None => forms.push((blank(want.element, own, Border::NONE), life)),
            }
        }
        let written = forms.iter().position(|(image, _)| {
            image.element == made && (image.is_dense() || !dense && image.extents == own)
        });
        value.written = written.unwrap_or_else(|| {
            let life = Life { first: value.born, last: value.born };
            forms.push((blank(made, own, Border::NONE), life));
            forms.len() - 1
        });
        value.forms = forms;
        Some(())
    }

    /// Gives every form a place.
    pub fn place(&mut self) {
        let mut forms: Vec<&mut (Image, Life)> =
            self.values.iter_mut().flatten().flat_map(|value| &mut value.forms).collect();
        forms.sort_by_key(|(_, life)| life.first);
        // Places of forms with borders, and until when they are taken.
        let mut bordered: Vec<(Image, usize)> = Vec::new();
        let mut end = 0;
        for (image, life) in forms.iter_mut().filter(|(image, _)| !image.is_dense()) {
            let alike = |other: &Image| Image { start: image.start, ..*other } == *image;
            match bordered.iter_mut().find(|(other, until)| *until < life.first && alike(other)) {
                Some((other, until)) => {
                    image.start = other.start;
                    *until = life.last;
                }
                None => {
                    image.start = end;
                    end = (end + image.bytes()).next_multiple_of(ALIGN);
                    bordered.push((*image, life.last));
                }
            }
        }
        // The others where nothing lies during their lives, the longest first.
        forms.retain(|(image, _)| image.is_dense());
        forms.sort_by_key(|(image, _)| core::cmp::Reverse(image.bytes()));
        let mut placed: Vec<(usize, usize, Life)> = Vec::new();
        let mut bytes = end;
        for (image, life) in forms {
            let mut start = end;
            let meets = |other: &Life| other.first <= life.last && life.first <= other.last;
            for (from, to, _) in placed.iter().filter(|(_, _, other)| meets(other)) {
                if *from >= start + image.bytes() {
                    break;
                }
                start = start.max(*to);
            }
            image.start = start;
            let to = (start + image.bytes()).next_multiple_of(ALIGN);
            bytes = bytes.max(to);
            let at = placed.partition_point(|(from, _, _)| *from < start);
            placed.insert(at, (start, to, *life));
        }
        self.bytes = bytes + SLACK;
    }

    /// The form that serves a want.
    pub fn form(&self, tensor: u16, extents: [usize; 4], want: Want) -> Option<Image> {
        let forms = &self.value(tensor)?.forms;
        let bordered = |image: &&Image| {
            let wide = image.border.union(want.border) == image.border;
            want.border != Border::NONE && wide && image.element == want.element && image.extents == extents
        };
        let images = || forms.iter().map(|(image, _)| image);
        let found =
            images().find(bordered).or_else(|| images().find(|image| serves(image, extents, want)))?;
        // A dense form is an image of any extents.
        Some(Image { extents, ..*found })
    }

    /// The form that the step writes which makes a value.
    pub fn written(&self, tensor: u16) -> Option<Image> {
        let value = self.value(tensor)?;
        value.forms.get(value.written).map(|(image, _)| *image)
    }

    /// The forms of a value that are made of the one its step writes.
    pub fn converted(&self, tensor: u16) -> impl Iterator<Item = Image> {
        let value = self.value(tensor);
        let others = value.into_iter().flat_map(|value| {
            value.forms.iter().enumerate().filter(|(k, _)| *k != value.written).map(|(_, (image, _))| *image)
        });
        others.collect::<Vec<_>>().into_iter()
    }

    /// All forms with a border.
    pub fn bordered(&self) -> impl Iterator<Item = &Image> {
        let forms = self.values.iter().flatten().flat_map(|value| &value.forms);
        forms.map(|(image, _)| image).filter(|image| !image.is_dense())
    }
}

/// Whether a form serves a want without border.
fn serves(image: &Image, extents: [usize; 4], want: Want) -> bool {
    let shape = image.is_dense() || !want.dense && image.extents == extents;
    want.border == Border::NONE && image.element == want.element && shape
}
