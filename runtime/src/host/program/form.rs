//! How a value lies in a program's memory.
//!
//! A tensor of a blob is dense and of the blob's element type. Kernels of a host want other forms: a border of zeros, so that windows need no
//! case for edges, and integers with an offset, as instructions multiply unsigned by signed bytes. A value may exist in several forms at once.

use crate::blob::{DType, TensorRecord};

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// As the blob says.
    Stored,
    /// An `i8`, plus 128, as `u8`.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for kernels of x86"))]
    Offset8,
    /// An `i8`, plus 128, as `i16`.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for kernels of x86"))]
    Offset16,
}

/// Pixels of padding around an image. They hold the value that means zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Border {
    /// Rows above.
    pub top: usize,
    /// Columns left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns right.
    pub right: usize,
}

impl Border {
    /// No border.
    pub const NONE: Self = Self { top: 0, left: 0, bottom: 0, right: 0 };

    /// The least border that holds both.
    pub fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

/// What a kernel wants of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// How elements are stored.
    pub element: Element,
    /// The border that it has at least.
    pub border: Border,
    /// Without any border: all elements one after the other.
    pub dense: bool,
}

impl Want {
    /// The blob's own form.
    pub const STORED: Self = Self { element: Element::Stored, border: Border::NONE, dense: true };
}

/// Extents of a tensor as images `[batch, rows, columns, channels]`: one of less than four axes is one image of one row.
pub fn extents(tensor: &TensorRecord) -> [usize; 4] {
    let [a, b, c, d] = tensor.shape.map(|extent| extent as usize);
    match tensor.rank {
        4 => [a, b, c, d],
        3 => [1, 1, a * b, c],
        2 => [1, 1, a, b],
        _ => [1, 1, 1, a],
    }
}

/// A value in one form, at its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// How elements are stored.
    pub element: Element,
    /// The blob's element type.
    pub dtype: DType,
    /// Batch, rows, columns, channels.
    pub extents: [usize; 4],
    /// Padding of each image.
    pub border: Border,
    /// The blob's integer that means zero.
    pub zero_point: i32,
    /// First byte in the arena, of the border if there is one.
    pub start: usize,
}

impl Image {
    /// Bytes of an element.
    pub fn element_bytes(&self) -> usize {
        match self.element {
            Element::Stored => self.dtype.bytes(),
            Element::Offset8 => 1,
            Element::Offset16 => 2,
        }
    }

    /// Bytes from a pixel to the next.
    pub fn pixel(&self) -> usize {
        self.extents[3] * self.element_bytes()
    }

    /// Bytes from a row to the next.
    pub fn row(&self) -> usize {
        (self.border.left + self.extents[2] + self.border.right) * self.pixel()
    }

    /// Bytes from an image to the next.
    pub fn image(&self) -> usize {
        (self.border.top + self.extents[1] + self.border.bottom) * self.row()
    }

    /// Bytes of all images.
    pub fn bytes(&self) -> usize {
        self.extents[0] * self.image()
    }

    /// The arena's byte at which a pixel starts; negative coordinates lie in the border.
    pub fn at(&self, image: usize, row: isize, column: isize) -> usize {
        let row = self.border.top.wrapping_add_signed(row);
        let column = self.border.left.wrapping_add_signed(column);
        self.start + image * self.image() + row * self.row() + column * self.pixel()
    }

    /// Whether all elements stand one after the other.
    pub fn is_dense(&self) -> bool {
        self.border == Border::NONE
    }

    /// The bytes of a border's element.
    pub fn zero(&self) -> Vec<u8> {
        let zero = self.zero_point;
        match (self.element, self.dtype) {
            (Element::Offset8, _) => vec![(zero + 128) as u8],
            (Element::Offset16, _) => ((zero + 128) as i16).to_le_bytes().to_vec(),
            (Element::Stored, DType::I8) => vec![zero as u8],
            (Element::Stored, DType::I16) => (zero as i16).to_le_bytes().to_vec(),
            (Element::Stored, dtype) => vec![0; dtype.bytes()],
        }
    }

    /// The runs of bytes that hold elements, in order.
    pub fn runs(&self) -> Vec<core::ops::Range<usize>> {
        let [batch, rows, columns, _] = self.extents;
        // All of a dense form is one row.
        let (batch, rows, columns) =
            if self.is_dense() { (1, 1, batch * rows * columns) } else { (batch, rows, columns) };
        let row = |image, row| {
            let start = self.at(image, row as isize, 0);
            start..start + columns * self.pixel()
        };
        (0..batch).flat_map(|image| (0..rows).map(move |y| row(image, y))).collect()
    }
}
