//! Depthwise convolution, a register of channels at a time; of images with few channels, a register of pixels.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Aligned, Place, Registers, Width};
use crate::ops::linear::Float;
use crate::ops::window::Window;

/// Outputs that have the same weights: the same columns and channels of all rows.
#[derive(Clone, Copy, Debug)]
struct Strip {
    input: usize,
    output: usize,
    /// First float of the weights, one register a tap.
    weights: usize,
    bias: usize,
    /// Registers of outputs in a row.
    count: usize,
    /// Lanes of each.
    lanes: usize,
}

/// A prepared depthwise convolution with one output a channel.
#[derive(Clone, Debug)]
pub struct DepthwiseConv2d {
    width: Width,
    strips: Vec<Strip>,
    /// For each tap, how many floats behind the first one it reads.
    taps: Vec<usize>,
    /// Of a window of three by three: how far its taps are to the right and down.
    three_by_three: Option<[usize; 2]>,
    /// From a register of inputs and of outputs to the next.
    steps: [usize; 2],
    /// From a row's inputs and outputs to the next's.
    lines: [usize; 2],
    rows: usize,
    weights: Aligned,
    bias: Aligned,
    bounds: [f32; 2],
    images: usize,
    image: [usize; 2],
    /// Floats that buffers have at least.
    pub(super) reach: [usize; 2],
}

/// Where a kernel reads and writes.
struct Job<'a> {
    input: *const f32,
    output: *mut f32,
    weights: *const f32,
    bias: *const f32,
    layer: &'a DepthwiseConv2d,
    strip: &'a Strip,
}

/// Any window: each register of weights goes to four outputs.
///
/// # Safety
/// The instruction set of `V`; a job whose pointers are valid for its strip.
#[inline(always)]
unsafe fn any<V: Lanes>(job: &Job<'_>) {
    /// # Safety
    /// As the function around it.
    #[inline(always)]
    unsafe fn block<V: Lanes, const N: usize>(job: &Job<'_>, from: usize, mask: Option<V::Mask>) {
        // SAFETY: the caller's job.
        unsafe {
            let [input_step, output_step] = job.layer.steps;
            let mut sums = [V::load(job.bias); N];
            let input = job.input.add(from * input_step);
            for (tap, &at) in job.layer.taps.iter().enumerate() {
                let weights = V::load(job.weights.add(tap * V::COUNT));
                for (n, sum) in sums.iter_mut().enumerate() {
                    let from = input.add(n * input_step + at);
                    let x = match mask {
                        Some(mask) => V::load_part(from, mask),
                        None => V::load(from),
                    };
                    *sum = V::mul_add(x, weights, *sum);
                }
            }
            let bounds = job.layer.bounds.map(|bound| V::splat(bound));
            for (n, &sum) in sums.iter().enumerate() {
                let to = job.output.add((from + n) * output_step);
                match mask {
                    Some(mask) => V::store_part(to, mask, V::clamp(bounds, sum)),
                    None => V::store(to, V::clamp(bounds, sum)),
                }
            }
        }
    }
    // SAFETY: the caller's job; blocks lie within its strip.
    unsafe {
        let Strip { count, lanes, .. } = *job.strip;
        let mut line = Job { ..*job };
        for _ in 0..job.layer.rows {
            let mut from = 0;
            if lanes == V::COUNT {
                while from + 4 <= count {
                    block::<V, 4>(&line, from, None);
                    from += 4;
                }
            }
            for from in from..count {
                block::<V, 1>(&line, from, Some(V::mask(lanes)));
            }
            line.input = line.input.wrapping_add(job.layer.lines[0]);
            line.output = line.output.wrapping_add(job.layer.lines[1]);
        }
    }
}

/// A window of three by three, whose weights stay in registers; all lanes.
///
/// # Safety
/// As [`any`].
#[inline(always)]
unsafe fn three_by_three<V: Lanes>(job: &Job<'_>, [right, down]: [usize; 2]) {
    // SAFETY: the caller's job.
    unsafe {
        let mut weights = [[V::load(job.weights); 3]; 3];
        for (tap, weights) in weights.as_flattened_mut().iter_mut().enumerate() {
            *weights = V::load(job.weights.add(tap * V::COUNT));
        }
        let bias = V::load(job.bias);
        let bounds = job.layer.bounds.map(|bound| V::splat(bound));
        let [input_step, output_step] = job.layer.steps;
        let (mut line, mut written) = (job.input, job.output);
        for _ in 0..job.layer.rows {
            let (mut input, mut output) = (line, written);
            for _ in 0..job.strip.count {
                let mut sum = bias;
                for (y, weights) in weights.iter().enumerate() {
                    for (x, &weights) in weights.iter().enumerate() {
                        sum = V::mul_add(V::load(input.wrapping_add(y * down + x * right)), weights, sum);
                    }
                }
                V::store(output, V::clamp(bounds, sum));
                input = input.wrapping_add(input_step);
                output = output.wrapping_add(output_step);
            }
            line = line.wrapping_add(job.layer.lines[0]);
            written = written.wrapping_add(job.layer.lines[1]);
        }
    }
}

/// # Safety
/// As [`any`].
#[inline(always)]
unsafe fn strip<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe {
        match job.layer.three_by_three {
            Some(steps) if job.strip.lanes == V::COUNT => three_by_three::<V>(job, steps),
            _ => any::<V>(job),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn strip_512(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { strip::<__m512>(job) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn strip_256(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe { strip::<__m256>(job) }
}

impl DepthwiseConv2d {
    /// Prepares a layer. `None` if the operands do not fit each other, for several outputs a channel, or if the input has no room for its
    /// padding before it.
    pub fn new(
        width: Width,
        window: &Window,
        linear: &Float<'_>,
        input: &Place,
        output: &Place,
    ) -> Option<Self> {
        let Window { batch, rows, columns, inputs: channels, outputs } = *window;
        let taps = rows.kernel.checked_mul(columns.kernel)?;
        if channels != outputs || channels == 0 || taps == 0 || batch == 0 || linear.bias.len() != channels {
            return None;
        }
        if linear.weights.len() != taps.checked_mul(channels)? {
            return None;
        }
        let origin = input.start.checked_sub(rows.pad * input.row + columns.pad * input.pixel)?;
        let lanes = width.lanes();
        // Pixels side by side may share a register: their windows are side by side too, and the weights repeat.
        let touching = columns.stride == 1 && input.pixel == channels && output.pixel == channels;
        let pixels = if touching && lanes.is_multiple_of(channels) { lanes / channels } else { 1 };

        let registers = channels.div_ceil(lanes);
        let mut weights = Aligned::new(registers * taps * lanes);
        let mut bias = Aligned::new(registers * lanes);
        let mut strips = Vec::new();
        for register in 0..registers {
            let first = register * lanes;
            let used = (channels - first).min(lanes);
            for lane in 0..used * pixels {
                let channel = first + lane % used;
                bias.set(first + lane, *linear.bias.get(channel)?)?;
                for tap in 0..taps {
                    let weight = *linear.weights.get(tap * channels + channel)?;
                    weights.set((register * taps + tap) * lanes + lane, weight)?;
                }
            }
            let strip = Strip {
                input: origin + first,
                output: output.start + first,
                weights: register * taps * lanes,
                bias: first,
                count: columns.output / pixels,
                lanes: used * pixels,
            };
            let done = strip.count * pixels;
            let rest = Strip {
                input: strip.input + done * channels,
                output: strip.output + done * channels,
                count: 1,
                lanes: (columns.output - done) * channels,
                ..strip
            };
            strips.extend([strip, rest].into_iter().filter(|strip| strip.count > 0 && strip.lanes > 0));
        }
        let (right, down) = (columns.dilation * input.pixel, rows.dilation * input.row);
        let step = |place: &Place, pixel: usize| if pixels > 1 { lanes } else { pixel * place.pixel };
        // Under all windows.
        let [high, wide] = [rows, columns].map(|axis| (axis.output - 1) * axis.stride + axis.reach());
        Some(Self {
            width,
            strips,
            taps: (0..taps).map(|tap| tap / columns.kernel * down + tap % columns.kernel * right).collect(),
            three_by_three: (rows.kernel == 3 && columns.kernel == 3).then_some([right, down]),
            steps: [step(input, columns.stride), step(output, 1)],
            lines: [rows.stride * input.row, output.row],
            rows: rows.output,
            weights,
            bias,
            bounds: [linear.low, linear.high],
            images: batch,
            image: [input.image, output.image],
            reach: [
                origin + input.span([batch, high, wide], channels),
                output.start + output.span([batch, rows.output, columns.output], channels),
            ],
        })
    }

    /// Runs it. `None` if a buffer ends before the place of an image in it.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() < self.reach[0] || output.len() < self.reach[1] {
            return None;
        }
        for image in 0..self.images {
            let input = input.get(image * self.image[0]..)?.as_ptr();
            let output = output.get_mut(image * self.image[1]..)?.as_mut_ptr();
            for strip in &self.strips {
                let job = Job {
                    input: input.wrapping_add(strip.input),
                    output: output.wrapping_add(strip.output),
                    weights: self.weights.pointer().wrapping_add(strip.weights),
                    bias: self.bias.pointer().wrapping_add(strip.bias),
                    layer: self,
                    strip,
                };
                // SAFETY: `width` proves the instruction set. `new` packed a register a tap and strip, and took `reach` over all that
                // strips read and write; the buffers reach that far.
                unsafe {
                    match self.width.0 {
                        Registers::Bits512 => strip_512(&job),
                        Registers::Bits256 => strip_256(&job),
                    }
                }
            }
        }
        Some(())
    }
}
