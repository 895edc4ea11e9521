//! Maximum and mean over windows, four channels at a time. Padding is not read: windows end where the image does.

use core::arch::aarch64::*;

use super::{clamp, load, store};
use crate::backend::vector::geometry::end;
use crate::host::program::form::Image;
use crate::host::program::{Frame, Layer};
use crate::ops::window::Window;

/// What becomes of a window.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// The greatest element.
    Maximum,
    /// The mean. Whether padding counts, as zeros.
    Mean {
        /// Whether padding counts.
        padding: bool,
    },
}

/// A window on the image.
#[derive(Clone, Copy, Debug)]
struct Spot {
    input: usize,
    output: usize,
    rows: usize,
    columns: usize,
    /// What the sum is multiplied by.
    share: f32,
}

/// A pool.
#[derive(Debug)]
pub struct Pool {
    function: Function,
    bounds: [f32; 2],
    spots: Vec<Spot>,
    channels: usize,
    /// Bytes from a row, and from a pixel, to the next.
    row: usize,
    pixel: usize,
    arena_bytes: usize,
}

impl Pool {
    /// The layer.
    pub fn new(
        function: Function,
        window: &Window,
        bounds: [f32; 2],
        [input, output]: [&Image; 2],
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = *window;
        let extents = |image: &Image, rows, columns| image.extents == [batch, rows, columns, outputs];
        if inputs != outputs
            || !extents(input, rows.input, columns.input)
            || !extents(output, rows.output, columns.output)
        {
            return None;
        }
        let mut spots = Vec::new();
        for image in 0..batch {
            for row in 0..rows.output {
                for column in 0..columns.output {
                    let (down, along) = (rows.run(row), columns.run(column));
                    let count = match function {
                        Function::Mean { padding: true } => rows.kernel * columns.kernel,
                        _ => down.length * along.length,
                    };
                    spots.push(Spot {
                        input: input.at(image, down.position as isize, along.position as isize),
                        output: output.at(image, row as isize, column as isize),
                        rows: down.length,
                        columns: along.length,
                        share: 1.0 / count as f32,
                    });
                }
            }
        }
        Some(Self {
            function,
            bounds,
            spots,
            channels: outputs,
            row: input.row(),
            pixel: input.pixel(),
            arena_bytes: end(input).max(end(output)),
        })
    }

    /// # Safety
    /// Images lie in the arena, followed by the arena's slack.
    #[inline(always)]
    unsafe fn all(
        &self,
        arena: *mut u8,
        start: f32,
        join: impl Fn(float32x4_t, float32x4_t) -> float32x4_t,
        finish: impl Fn(float32x4_t, f32) -> float32x4_t,
    ) {
        for spot in &self.spots {
            for first in (0..self.channels).step_by(4) {
                // SAFETY: the caller's: a spot's rows and columns lie on the image; a vector reads less than 16 bytes behind a pixel.
                unsafe {
                    let mut state = vdupq_n_f32(start);
                    for row in 0..spot.rows {
                        for column in 0..spot.columns {
                            let at = spot.input + row * self.row + column * self.pixel + 4 * first;
                            state = join(state, load(arena.add(at)));
                        }
                    }
                    let value = clamp(self.bounds, finish(state, spot.share));
                    store(value, arena.add(spot.output + 4 * first), self.channels - first);
                }
            }
        }
    }
}

impl Layer for Pool {
    fn name(&self) -> &'static str {
        match self.function {
            Function::Maximum => "max_pool2d_f32",
            Function::Mean { .. } => "average_pool2d_f32",
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
                Function::Maximum => {
                    self.all(arena, f32::NEG_INFINITY, |a, b| vmaxq_f32(a, b), |most, _| most);
                }
                Function::Mean { .. } => {
                    self.all(arena, 0.0, |a, b| vaddq_f32(a, b), |sum, share| vmulq_n_f32(sum, share));
                }
            }
        }
        Some(())
    }
}
