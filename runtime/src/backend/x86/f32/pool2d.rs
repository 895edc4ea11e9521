//! Maximum and mean over windows, a register of channels at a time. Padding is not read: windows end where the image does.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Place, Registers, Width};
use crate::ops::window::Window;

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

#[derive(Clone, Debug)]
struct Pool {
    width: Width,
    spots: Vec<Spot>,
    channels: usize,
    input: Place,
    output: Place,
    images: usize,
    bounds: [f32; 2],
    reach: [usize; 2],
}

/// Where a kernel reads and writes.
struct Job<'a> {
    input: *const f32,
    output: *mut f32,
    pool: &'a Pool,
    spot: &'a Spot,
}

/// `N` registers of channels, of which `lanes` of the last count.
///
/// # Safety
/// The instruction set of `V`; a job whose pointers are valid for its spot and these channels.
#[inline(always)]
unsafe fn registers<V: Lanes, const MEAN: bool, const N: usize>(job: &Job<'_>, first: usize, mask: V::Mask) {
    // SAFETY: the caller's job.
    unsafe {
        let &Job { input, output, pool, spot } = job;
        let start = V::splat(if MEAN { 0.0 } else { f32::NEG_INFINITY });
        let mut states = [start; N];
        for row in 0..spot.rows {
            let mut pixel = input.wrapping_add(row * pool.input.row + first);
            for _ in 0..spot.columns {
                for (n, state) in states.iter_mut().enumerate() {
                    let from = pixel.wrapping_add(n * V::COUNT);
                    let x = if n + 1 == N { V::load_part(from, mask) } else { V::load(from) };
                    *state = if MEAN { V::add(*state, x) } else { V::max(x, *state) };
                }
                pixel = pixel.wrapping_add(pool.input.pixel);
            }
        }
        let bounds = pool.bounds.map(|bound| V::splat(bound));
        for (n, &state) in states.iter().enumerate() {
            let value = if MEAN { V::mul(state, V::splat(spot.share)) } else { state };
            let to = output.wrapping_add(first + n * V::COUNT);
            let value = V::clamp(bounds, value);
            if n + 1 == N { V::store_part(to, mask, value) } else { V::store(to, value) }
        }
    }
}

/// # Safety
/// As [`registers`], for all channels of the pool.
#[inline(always)]
unsafe fn spot<V: Lanes, const MEAN: bool>(job: &Job<'_>) {
    // SAFETY: the caller's job; registers start within the channels, and the mask ends them there.
    unsafe {
        let channels = job.pool.channels;
        let mut first = 0;
        while channels - first > V::COUNT {
            let count = ((channels - first).div_ceil(V::COUNT)).min(4);
            let mask = V::mask((channels - first - (count - 1) * V::COUNT).min(V::COUNT));
            match count {
                2 => registers::<V, MEAN, 2>(job, first, mask),
                3 => registers::<V, MEAN, 3>(job, first, mask),
                _ => registers::<V, MEAN, 4>(job, first, mask),
            }
            first += count * V::COUNT;
            if first >= channels {
                return;
            }
        }
        registers::<V, MEAN, 1>(job, first, V::mask(channels - first));
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn spot_512<const MEAN: bool>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { spot::<__m512, MEAN>(job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn spot_256<const MEAN: bool>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { spot::<__m256, MEAN>(job) }
}

impl Pool {
    /// `share` is the factor of a window of so many elements on the image.
    fn new(
        width: Width,
        window: &Window,
        bounds: [f32; 2],
        input: &Place,
        output: &Place,
        share: impl Fn(usize) -> f32,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs: channels, outputs } = *window;
        if channels != outputs || channels == 0 || batch == 0 {
            return None;
        }
        let mut spots = Vec::new();
        let (mut read, mut written) = (0, 0);
        for row in 0..rows.output {
            let across = rows.run(row);
            for column in 0..columns.output {
                let along = columns.run(column);
                let spot = Spot {
                    input: input.start + across.position * input.row + along.position * input.pixel,
                    output: output.start + row * output.row + column * output.pixel,
                    rows: across.length,
                    columns: along.length,
                    share: share(across.length * along.length),
                };
                if spot.rows > 0 && spot.columns > 0 {
                    let last = spot.input + (spot.rows - 1) * input.row + (spot.columns - 1) * input.pixel;
                    read = read.max(last + channels);
                }
                written = written.max(spot.output + channels);
                spots.push(spot);
            }
        }
        let reach = [read + (batch - 1) * input.image, written + (batch - 1) * output.image];
        let width = width.narrowest(channels);
        Some(Self { width, spots, channels, input: *input, output: *output, images: batch, bounds, reach })
    }

    fn run<const MEAN: bool>(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() < self.reach[0] || output.len() < self.reach[1] {
            return None;
        }
        for image in 0..self.images {
            for spot in &self.spots {
                let input = input.as_ptr().wrapping_add(image * self.input.image + spot.input);
                let output = output.as_mut_ptr().wrapping_add(image * self.output.image + spot.output);
                let job = Job { input, output, pool: self, spot };
                // SAFETY: `width` proves the instruction set. `new` took `reach` over all that spots read and write; the buffers reach
                // that far.
                unsafe {
                    match self.width.registers {
                        Registers::Bits512 => spot_512::<MEAN>(&job),
                        Registers::Bits256 => spot_256::<MEAN>(&job),
                    }
                }
            }
        }
        Some(())
    }
}

/// A prepared mean over windows.
#[derive(Clone, Debug)]
pub struct AveragePool2d(Pool);

impl AveragePool2d {
    /// Prepares a layer; `count_padding` as [`crate::backend::Backend::average_pool2d_f32`]. `None` if channels do not fit each other, or a window
    /// counts no element.
    pub fn new(
        width: Width,
        window: &Window,
        count_padding: bool,
        bounds: [f32; 2],
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        let kernel = window.rows.kernel * window.columns.kernel;
        let counted = |there: usize| if count_padding { kernel } else { there };
        let pool = Pool::new(width, window, bounds, input, output, |there| 1.0 / counted(there) as f32)?;
        pool.spots.iter().all(|spot| spot.share.is_finite()).then_some(Self(pool))
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        self.0.run::<true>(input, output)
    }
}

/// A prepared maximum over windows.
#[derive(Clone, Debug)]
pub struct MaxPool2d(Pool);

impl MaxPool2d {
    /// Prepares a layer. `None` if channels do not fit each other.
    pub fn new(
        width: Width,
        window: &Window,
        bounds: [f32; 2],
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        Pool::new(width, window, bounds, input, output, |_| 1.0).map(Self)
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        self.0.run::<false>(input, output)
    }
}
