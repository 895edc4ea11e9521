//! Means of `i8` over windows, and maxima where there is padding, a register of channels at a time. Padding is not read: windows end where the image does.

use core::marker::PhantomData;

use super::lanes::{Arithmetic, Bytes512, Lanes, Words256};
use super::steps::Width;
use crate::Step;
use crate::backend::vector::geometry::end;
use crate::host::program::form::{Border, Element, Image, Want};
use crate::host::program::{Frame, Layer, Wants};
use crate::ops::window::Window;
use crate::ops::{OpCode, pool2d};

/// Most elements of a window whose mean a product gives.
const MOST: usize = 257;

/// A pool of `i8`.
#[derive(Debug)]
pub struct Pool {
    window: Window,
    bounds: [i32; 2],
    /// A mean, and not a maximum.
    mean: bool,
    /// The element that padding counts as in a mean; `None`: it does not count.
    padding: Option<i32>,
}

impl Pool {
    /// `None`: another step, or too large a window.
    pub fn of(step: &Step<'_>) -> Option<Self> {
        let mean = match OpCode::parse(step.op())? {
            OpCode::AveragePool2dI8 => true,
            OpCode::MaxPool2dI8 => false,
            _ => return None,
        };
        let (input, output) = (step.input(0)?, step.output(0)?);
        let p = pool2d::Parameters::parse(step.parameters())?;
        let window = p.window(&input, &output).ok()?;
        let padding = (p.count_include_pad == 1).then_some(input.zero_point);
        let area = window.rows.kernel.checked_mul(window.columns.kernel)?;
        let bounds = [p.act_min as i32, p.act_max as i32];
        (area <= MOST).then_some(Self { window, bounds, mean, padding })
    }

    /// The forms of the operands, where others have `element`.
    pub fn wants(element: Element) -> Wants {
        let want = Want { element, border: Border::NONE, dense: false };
        Wants { inputs: vec![want], output: element, dense: false }
    }

    /// The layer. `None`: the operands have other extents.
    pub fn layer(&self, width: Width, input: &Image, output: &Image) -> Option<Box<dyn Layer>> {
        match width {
            Width::Bits256 => Some(Box::new(Windows::<Words256>::new(self, input, output)?)),
            Width::Bits512 => Some(Box::new(Windows::<Bytes512>::new(self, input, output)?)),
        }
    }
}

/// A window on the image.
#[derive(Clone, Copy, Debug)]
struct Spot {
    /// First bytes of the first element and of the output.
    input: usize,
    output: usize,
    rows: usize,
    columns: usize,
    /// Added to the sum of elements that have 128 added.
    bias: i32,
    /// Half of the divisor, and `2^24` over it, rounded up: for a dividend `n` and a divisor `d` with `n * d < 2^24` the quotient is exact.
    half: i32,
    reciprocal: i32,
}

/// A layer.
#[derive(Debug)]
struct Windows<A> {
    spots: Vec<Spot>,
    channels: usize,
    /// Bytes from a row to the next, from a pixel to the next.
    row: usize,
    pixel: usize,
    bounds: [i32; 2],
    mean: bool,
    arena_bytes: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Windows<A> {
    fn new(pool: &Pool, input: &Image, output: &Image) -> Option<Self> {
        let Window { batch, rows, columns, inputs, outputs } = pool.window;
        let sound = input.extents == [batch, rows.input, columns.input, inputs]
            && output.extents == [batch, rows.output, columns.output, outputs]
            && [input, output].iter().all(|image| image.element_bytes() == A::INPUT)
            && inputs == outputs
            && input.extents.iter().all(|&extent| extent > 0);
        if !sound {
            return None;
        }
        let area = (rows.kernel * columns.kernel) as i32;
        let mut spots = Vec::new();
        for image in 0..batch {
            for y in 0..rows.output {
                let across = rows.run(y);
                for x in 0..columns.output {
                    let along = columns.run(x);
                    let count = (across.length * along.length) as i32;
                    let (outside, divisor) = match pool.padding {
                        Some(value) => ((area - count) * value, area),
                        None => (0, count),
                    };
                    if count == 0 {
                        return None;
                    }
                    spots.push(Spot {
                        input: input.at(image, across.position as isize, along.position as isize),
                        output: output.at(image, y as isize, x as isize),
                        rows: across.length,
                        columns: along.length,
                        bias: outside - 128 * count,
                        half: divisor >> 1,
                        reciprocal: (1 << 24) / divisor + 1,
                    });
                }
            }
        }
        Some(Self {
            spots,
            channels: inputs,
            row: input.row(),
            pixel: input.pixel(),
            bounds: pool.bounds,
            mean: pool.mean,
            arena_bytes: end(input).max(end(output)),
            arithmetic: PhantomData,
        })
    }

    /// # Safety
    /// The instruction set of `A`; all windows and outputs lie in the arena, followed by its slack.
    #[inline(always)]
    unsafe fn all<const MEAN: bool>(&self, arena: *mut u8) {
        let lanes = A::Sums::COUNT;
        for spot in &self.spots {
            for first in (0..self.channels).step_by(lanes) {
                // SAFETY: the caller's: a register reads less than its length behind a pixel, and writes the channels that are left.
                unsafe {
                    let at = first * A::INPUT;
                    let mut state = A::Sums::splat(0);
                    for row in 0..spot.rows {
                        for column in 0..spot.columns {
                            let from = arena.add(spot.input + row * self.row + column * self.pixel + at);
                            let x = if A::INPUT == 1 {
                                A::Sums::load_bytes(from)
                            } else {
                                A::Sums::load_words(from)
                            };
                            state = if MEAN { A::Sums::add(state, x) } else { A::Sums::max(state, x) };
                        }
                    }
                    let value = if MEAN {
                        let sum = A::Sums::add(state, A::Sums::splat(spot.bias));
                        let dividend = A::Sums::add(A::Sums::abs(sum), A::Sums::splat(spot.half));
                        let product = A::Sums::multiply_low(dividend, A::Sums::splat(spot.reciprocal));
                        let mean = A::Sums::shift_right_unsigned(product, A::Sums::splat(24));
                        A::Sums::add(A::Sums::signed(mean, sum), A::Sums::splat(128))
                    } else {
                        state
                    };
                    let [low, high] = self.bounds.map(|bound| A::Sums::splat(bound + 128));
                    let value = A::Sums::min(A::Sums::max(value, low), high);
                    let (to, count) = (arena.add(spot.output + at), self.channels - first);
                    if A::INPUT == 1 {
                        A::Sums::store_bytes(to, count, value);
                    } else {
                        A::Sums::store_words(to, count, value);
                    }
                }
            }
        }
    }
}

impl<A: Arithmetic> Layer for Windows<A> {
    fn name(&self) -> &'static str {
        if self.mean { "average_pool2d_i8" } else { "max_pool2d_i8" }
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes {
            return None;
        }
        let arena = frame.arena.as_mut_ptr();
        macro_rules! of {
            ($mean:literal) => {
                // SAFETY: images with their slack lie in the first `arena_bytes`. Layers are made where the processor has the features.
                unsafe {
                    A::with(
                        #[inline(always)]
                        || self.all::<$mean>(arena),
                    )
                }
            };
        }
        if self.mean {
            of!(true)
        } else {
            of!(false)
        }
        Some(())
    }
}
