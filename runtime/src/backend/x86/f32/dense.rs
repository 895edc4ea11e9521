//! Dense layer of one row: as fast as its weights can be read. They may be binary16, which is exact in a register.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Aligned, Registers, Width};

/// Weights by output channel, as they are stored in a blob.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Binary32.
    Single(&'a [f32]),
    /// Binary16, as bits.
    Half(&'a [u16]),
}

/// Registers that follow each other in memory and go through the inputs together.
const REGISTERS: usize = 8;

/// A prepared dense layer.
#[derive(Clone, Debug)]
pub struct Dense {
    width: Width,
    inputs: usize,
    outputs: usize,
    half: bool,
    /// Panels of [`REGISTERS`] or, last, fewer registers: `[input][register][lane]`.
    weights: Aligned,
    bias: Aligned,
    bounds: [f32; 2],
}

struct Job {
    input: *const f32,
    inputs: usize,
    weights: *const u8,
    bias: *const f32,
    output: *mut f32,
    /// Outputs of the panel.
    outputs: usize,
    bounds: [f32; 2],
}

/// A panel of `N` registers, inputs in `S` interleaved sums.
///
/// # Safety
/// The instruction set of `V`; a job whose pointers are valid for its inputs and `N` registers.
#[inline(always)]
unsafe fn panel<V: Lanes, const HALF: bool, const N: usize, const S: usize>(job: &Job) {
    // SAFETY: the caller's job.
    unsafe {
        let bytes = if HALF { 2 } else { 4 } * V::COUNT;
        let load = |from: *const u8| if HALF { V::load_half(from.cast()) } else { V::load(from.cast()) };
        let mut sums = [[V::splat(0.0); N]; S];
        let mut weights = job.weights;
        let mut step = |sums: &mut [V; N], k: usize| {
            let x = V::splat(job.input.add(k).read());
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = V::mul_add(x, load(weights.add(n * bytes)), *sum);
            }
            weights = weights.wrapping_add(N * bytes);
        };
        let whole = job.inputs - job.inputs % S;
        for k in (0..whole).step_by(S) {
            for (s, sums) in sums.iter_mut().enumerate() {
                step(sums, k + s);
            }
        }
        for k in whole..job.inputs {
            step(&mut sums[0], k);
        }
        let bounds = job.bounds.map(|bound| V::splat(bound));
        for n in 0..N {
            let mut sum = V::load(job.bias.add(n * V::COUNT));
            for sums in &sums {
                sum = V::add(sum, sums[n]);
            }
            let lanes = (job.outputs - n * V::COUNT).min(V::COUNT);
            V::store_part(job.output.add(n * V::COUNT), V::mask(lanes), V::clamp(bounds, sum));
        }
    }
}

/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn panels<V: Lanes, const HALF: bool>(job: &Job) {
    // SAFETY: the caller's job.
    unsafe {
        match job.outputs.div_ceil(V::COUNT) {
            1 => panel::<V, HALF, 1, 8>(job),
            2 => panel::<V, HALF, 2, 4>(job),
            3 => panel::<V, HALF, 3, 3>(job),
            4 => panel::<V, HALF, 4, 2>(job),
            5 => panel::<V, HALF, 5, 2>(job),
            6 => panel::<V, HALF, 6, 1>(job),
            7 => panel::<V, HALF, 7, 1>(job),
            _ => panel::<V, HALF, REGISTERS, 1>(job),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn panels_512<const HALF: bool>(job: &Job) {
    // SAFETY: the caller's job.
    unsafe { panels::<__m512, HALF>(job) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panels_256<const HALF: bool>(job: &Job) {
    // SAFETY: the caller's job.
    unsafe { panels::<__m256, HALF>(job) }
}

impl Dense {
    /// Prepares a layer. `None` if the operands do not fit each other.
    pub fn new(
        width: Width,
        inputs: usize,
        weights: Weights<'_>,
        bias: &[f32],
        bounds: [f32; 2],
    ) -> Option<Self> {
        let outputs = bias.len();
        let (half, count) = match weights {
            Weights::Single(weights) => (false, weights.len()),
            Weights::Half(weights) => (true, weights.len()),
        };
        if inputs == 0 || outputs == 0 || count != inputs.checked_mul(outputs)? {
            return None;
        }
        let width = if half { width.converting() } else { width };
        let lanes = width.lanes();
        let padded = outputs.next_multiple_of(lanes);
        let mut packed = Aligned::new((padded * inputs).div_ceil(if half { 2 } else { 1 }));
        let mut padded_bias = Aligned::new(padded);
        let panel = REGISTERS * lanes;
        for (channel, &bias) in bias.iter().enumerate() {
            padded_bias.set(channel, bias)?;
        }
        for first in (0..outputs).step_by(panel) {
            let row = (padded - first).min(panel);
            for input in 0..inputs {
                for channel in first..outputs.min(first + panel) {
                    let from = channel * inputs + input;
                    let to = first * inputs + input * row + channel - first;
                    match weights {
                        Weights::Single(weights) => packed.set(to, *weights.get(from)?)?,
                        Weights::Half(weights) => packed.set_half(to, *weights.get(from)?)?,
                    }
                }
            }
        }
        Some(Self { width, inputs, outputs, half, weights: packed, bias: padded_bias, bounds })
    }

    /// Runs it on rows. `None` if a buffer does not hold whole rows, and as many as the other.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() / self.inputs != output.len() / self.outputs
            || !input.len().is_multiple_of(self.inputs)
            || !output.len().is_multiple_of(self.outputs)
        {
            return None;
        }
        let panel = REGISTERS * self.width.lanes();
        let bytes = if self.half { 2 } else { 4 };
        for (input, output) in input.chunks_exact(self.inputs).zip(output.chunks_exact_mut(self.outputs)) {
            for (index, output) in output.chunks_mut(panel).enumerate() {
                let job = Job {
                    input: input.as_ptr(),
                    inputs: self.inputs,
                    weights: self
                        .weights
                        .pointer()
                        .cast::<u8>()
                        .wrapping_add(index * panel * self.inputs * bytes),
                    bias: self.bias.pointer().wrapping_add(index * panel),
                    output: output.as_mut_ptr(),
                    outputs: output.len(),
                    bounds: self.bounds,
                };
                // SAFETY: `width` proves the instruction set. `new` packed whole registers of weights and bias for each panel; input
                // and output are slices of the job's lengths, at most `panel` outputs.
                unsafe {
                    match (self.width.0, self.half) {
                        (Registers::Bits512, false) => panels_512::<false>(&job),
                        (Registers::Bits512, true) => panels_512::<true>(&job),
                        (Registers::Bits256, false) => panels_256::<false>(&job),
                        (Registers::Bits256, true) => panels_256::<true>(&job),
                    }
                }
            }
        }
        Some(())
    }
}
