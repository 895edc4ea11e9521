//! Sums and products of two values of the same shape.

use core::arch::aarch64::*;

use super::{clamp, load, store};
use crate::backend::vector::geometry::{end, runs, same_elements};
use crate::host::program::form::Image;
use crate::host::program::{Frame, Layer};

/// The function of two elements.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// `a + b`.
    Sum,
    /// `a * b`.
    Product,
}

/// A function of two images.
#[derive(Debug)]
pub struct Elementwise {
    function: Function,
    bounds: [f32; 2],
    runs: Vec<([usize; 3], usize)>,
    arena_bytes: usize,
}

impl Elementwise {
    /// The layer. `None`: extents differ.
    pub fn new(
        function: Function,
        bounds: [f32; 2],
        [first, second]: [&Image; 2],
        output: &Image,
    ) -> Option<Self> {
        let images = [first, second, output];
        same_elements(images).then(|| Self {
            function,
            bounds,
            runs: runs(images),
            arena_bytes: end(first).max(end(second)).max(end(output)),
        })
    }

    /// # Safety
    /// Every run lies in the arena, followed by the arena's slack.
    #[inline(always)]
    unsafe fn all(&self, arena: *mut u8, function: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) {
        for &([first, second, output], bytes) in &self.runs {
            for at in (0..bytes).step_by(16) {
                // SAFETY: the caller's: a vector reads less than 16 bytes behind a run.
                unsafe {
                    let value = function(load(arena.add(first + at)), load(arena.add(second + at)));
                    store(clamp(self.bounds, value), arena.add(output + at), (bytes - at) / 4);
                }
            }
        }
    }
}

impl Layer for Elementwise {
    fn name(&self) -> &'static str {
        match self.function {
            Function::Sum => "add_f32",
            Function::Product => "mul_f32",
        }
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes {
            return None;
        }
        let arena = frame.arena.as_mut_ptr();
        // SAFETY: images with their slack lie in the first `arena_bytes`. Every processor has NEON.
        unsafe {
            match self.function {
                Function::Sum => self.all(arena, |a, b| vaddq_f32(a, b)),
                Function::Product => self.all(arena, |a, b| vmulq_f32(a, b)),
            }
        }
        Some(())
    }
}
