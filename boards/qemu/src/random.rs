//! What firmware that tests kernels on random operands needs: reproducible numbers, memory cut off piece by piece, places between guards.

/// Bytes around what a kernel writes, that it may not write.
const GUARD: usize = 32;
const GUARDED: u8 = 0xA5;
/// Tensors, weights and scratch start at multiples of it.
pub const ALIGN: usize = 16;

/// Reproducible numbers (xorshift, Marsaglia 2003).
pub struct Noise {
    /// What [`Noise::next`] goes on from.
    pub state: u32,
    rare: bool,
}

impl Noise {
    /// Numbers of a seed.
    pub fn new(seed: u32) -> Self {
        Self { state: seed | 1, rare: true }
    }

    /// The same, without rare cases: [`Noise::one_of`] is never true.
    pub fn usual(seed: u32) -> Self {
        Self { state: seed | 1, rare: false }
    }

    /// The next number, of 29 bits.
    pub fn next(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state >> 3
    }

    /// From 0 to `limit`, which is excluded.
    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// From `low` to `high`, both included.
    pub fn count(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Most often at one of both ends of a range or close to it, else anywhere in it.
    pub fn end(&mut self, low: i32, high: i32) -> i32 {
        let span = high.wrapping_sub(low).cast_unsigned();
        let near_bits = self.below(9);
        let near = (self.next() % (1 << near_bits)).min(span).cast_signed();
        let any = (self.next() << 3) ^ self.next();
        match self.below(5) {
            0 | 1 => high.wrapping_sub(near),
            2 | 3 => low.wrapping_add(near),
            _ => low.wrapping_add(any.checked_rem(span.wrapping_add(1)).unwrap_or(any).cast_signed()),
        }
    }

    /// True in one of `n` cases.
    pub fn one_of(&mut self, n: usize) -> bool {
        self.below(n) == 0 && self.rare
    }

    /// An extent up to `most`; in half of the cases a multiple of 4, 8 or 16.
    pub fn extent(&mut self, most: usize) -> usize {
        let step = [1, 1, 1, 4, 8, 16][self.below(6)];
        (self.count(1, most / step) * step).min(most)
    }
}

/// Memory cut off piece by piece, from its start or from its end.
pub struct Pool<'a>(pub &'a mut [u8]);

impl<'a> Pool<'a> {
    /// `bytes` at a multiple of [`ALIGN`].
    pub fn take(&mut self, bytes: usize) -> &'a mut [u8] {
        let rest = core::mem::take(&mut self.0);
        let skip = rest.as_ptr().align_offset(ALIGN);
        let (taken, rest) = rest[skip..].split_at_mut(bytes);
        self.0 = rest;
        taken
    }

    /// A place between guards.
    pub fn guarded(&mut self, bytes: usize) -> Guarded<'a> {
        Guarded::new(self.take(bytes + 2 * GUARD), bytes)
    }

    /// `bytes` that end where the memory does, at the last multiple of `align`.
    pub fn last(&mut self, bytes: usize, align: usize) -> &'a mut [u8] {
        let (_, rest) = self.cut_last(bytes, align).split_at_mut(GUARD);
        &mut rest[..bytes]
    }

    /// The same behind a guard. What `align` leaves free behind the place is guarded too.
    pub fn last_guarded(&mut self, bytes: usize, align: usize) -> Guarded<'a> {
        Guarded::new(self.cut_last(bytes, align), bytes)
    }

    /// The memory's last bytes from [`GUARD`] before the last multiple of `align` that has `bytes` behind it.
    fn cut_last(&mut self, bytes: usize, align: usize) -> &'a mut [u8] {
        let all = core::mem::take(&mut self.0);
        let start = all.len() - bytes;
        let start = start - (all.as_ptr() as usize + start) % align;
        let (free, taken) = all.split_at_mut(start - GUARD);
        self.0 = free;
        taken
    }
}

/// A place between guards.
pub struct Guarded<'a> {
    all: &'a mut [u8],
    bytes: usize,
}

impl<'a> Guarded<'a> {
    /// Guards all before `bytes` that start at [`GUARD`], and all behind.
    fn new(all: &'a mut [u8], bytes: usize) -> Self {
        all.fill(GUARDED);
        Self { all, bytes }
    }

    /// The place.
    pub fn inner(&mut self) -> &mut [u8] {
        &mut self.all[GUARD..GUARD + self.bytes]
    }

    /// Whether the guards are as they were.
    pub fn is_whole(&self) -> bool {
        let (head, tail) = (&self.all[..GUARD], &self.all[GUARD + self.bytes..]);
        head.iter().chain(tail).all(|byte| *byte == GUARDED)
    }
}

/// Bytes as integers or floats.
pub fn cast<T>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: only called for numbers of up to 4 bytes on memory that is aligned for them; every bit pattern is one.
    unsafe { bytes.align_to_mut::<T>().1 }
}
