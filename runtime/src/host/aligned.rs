//! Bytes at an aligned address.

/// Alignment of a runner's buffers: the largest that a blob can ask for, and a cache line.
pub const ALIGN: usize = 64;

/// Bytes at a multiple of [`ALIGN`].
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Zeroed.
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, length }
    }

    /// A copy of bytes.
    pub fn copy(source: &[u8]) -> Self {
        let mut copy = Self::new(source.len());
        copy.get_mut().copy_from_slice(source);
        copy
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// The bytes, to be written.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

impl Clone for Aligned {
    /// A copy lies at an address of its own, so its bytes start elsewhere in their buffer.
    fn clone(&self) -> Self {
        Self::copy(self.get())
    }
}
