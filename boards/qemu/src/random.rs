//! What firmware that tests kernels on random operands needs: reproducible numbers, memory cut off piece by piece, places between guards.

/// Bytes around what a kernel writes, that it may not write.
const GUARD: usize = 32;
const GUARDED: u8 = 0xA5;
const ALIGN: usize = 16;

/// Reproducible numbers (xorshift, Marsaglia 2003).
pub struct Noise(pub u32);

impl Noise {
    /// The next number, of 29 bits.
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 >> 3
    }

    /// From 0 to `limit`, which is excluded.
    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// True in one of `n` cases.
    pub fn one_of(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Memory cut off piece by piece.
pub struct Pool<'a>(pub &'a mut [u8]);

impl<'a> Pool<'a> {
    /// `bytes` at a multiple of 16.
    pub fn take(&mut self, bytes: usize) -> &'a mut [u8] {
        let rest = core::mem::take(&mut self.0);
        let skip = rest.as_ptr().align_offset(ALIGN);
        let (taken, rest) = rest[skip..].split_at_mut(bytes);
        self.0 = rest;
        taken
    }

    /// A place between guards.
    pub fn guarded(&mut self, bytes: usize) -> Guarded<'a> {
        let all = self.take(bytes + 2 * GUARD);
        all.fill(GUARDED);
        Guarded(all)
    }
}

/// A place between guards.
pub struct Guarded<'a>(&'a mut [u8]);

impl Guarded<'_> {
    /// The place.
    pub fn inner(&mut self) -> &mut [u8] {
        let end = self.0.len() - GUARD;
        &mut self.0[GUARD..end]
    }

    /// Whether the guards are as they were.
    pub fn is_whole(&self) -> bool {
        let (head, tail) = (&self.0[..GUARD], &self.0[self.0.len() - GUARD..]);
        head.iter().chain(tail).all(|byte| *byte == GUARDED)
    }
}

/// Bytes as integers.
pub fn cast<T>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: only called for integers of up to 4 bytes on memory that is aligned for them; every bit pattern is one.
    unsafe { bytes.align_to_mut::<T>().1 }
}
