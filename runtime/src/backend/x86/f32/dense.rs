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

/// Registers that follow each other in memory and go through the inputs together, at most; twice as many where there are 32 to name.
const REGISTERS: usize = 8;

/// Outputs that go through the inputs together.
#[derive(Clone, Copy, Debug)]
struct Panel {
    first: usize,
    registers: usize,
}

/// A prepared dense layer.
#[derive(Clone, Debug)]
pub struct Dense {
    width: Width,
    inputs: usize,
    outputs: usize,
    half: bool,
    panels: Vec<Panel>,
    /// For each panel: `[input][register][lane]`.
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
    registers: usize,
    /// Outputs in the last register.
    last: usize,
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
            let (to, value) = (job.output.add(n * V::COUNT), V::clamp(bounds, sum));
            if n + 1 == N && job.last < V::COUNT {
                V::store_part(to, V::mask(job.last), value);
            } else {
                V::store(to, value);
            }
        }
    }
}

/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn panels<V: Lanes, const HALF: bool>(job: &Job) {
    // SAFETY: the caller's job.
    unsafe {
        match job.registers {
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

#[target_feature(enable = "avx512f,avx512vl,fma,f16c")]
unsafe fn twice_256(job: &Job) {
    // SAFETY: the caller's job.
    unsafe { panel::<__m256, true, { 2 * REGISTERS }, 1>(job) }
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
        let width = if half { width.converting() } else { width }.narrowest(outputs);
        let lanes = width.lanes();
        let padded = outputs.next_multiple_of(lanes);
        let mut packed = Aligned::new((padded * inputs).div_ceil(if half { 2 } else { 1 }));
        let mut padded_bias = Aligned::new(padded);
        for (channel, &bias) in bias.iter().enumerate() {
            padded_bias.set(channel, bias)?;
        }
        let mut panels = Vec::new();
        let mut first = 0;
        while first < outputs {
            let registers = (padded - first) / lanes;
            let twice =
                half && width.registers == Registers::Bits256 && width.many && registers >= 2 * REGISTERS;
            let registers = if twice { 2 * REGISTERS } else { registers.min(REGISTERS) };
            let row = registers * lanes;
            for input in 0..inputs {
                for channel in first..outputs.min(first + row) {
                    let from = channel * inputs + input;
                    let to = first * inputs + input * row + channel - first;
                    match weights {
                        Weights::Single(weights) => packed.set(to, *weights.get(from)?)?,
                        Weights::Half(weights) => packed.set_half(to, *weights.get(from)?)?,
                    }
                }
            }
            panels.push(Panel { first, registers });
            first += row;
        }
        Some(Self { width, inputs, outputs, half, panels, weights: packed, bias: padded_bias, bounds })
    }

    /// Runs it on rows. `None` if a buffer does not hold whole rows, and as many as the other.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Option<()> {
        if input.len() / self.inputs != output.len() / self.outputs
            || !input.len().is_multiple_of(self.inputs)
            || !output.len().is_multiple_of(self.outputs)
        {
            return None;
        }
        let lanes = self.width.lanes();
        let bytes = if self.half { 2 } else { 4 };
        for (input, output) in input.chunks_exact(self.inputs).zip(output.chunks_exact_mut(self.outputs)) {
            for &Panel { first, registers } in &self.panels {
                let output = output.get_mut(first..)?;
                let weights = self.weights.pointer().cast::<u8>();
                let job = Job {
                    input: input.as_ptr(),
                    inputs: self.inputs,
                    weights: weights.wrapping_add(first * self.inputs * bytes),
                    bias: self.bias.pointer().wrapping_add(first),
                    last: (output.len() - (registers - 1) * lanes).min(lanes),
                    output: output.as_mut_ptr(),
                    registers,
                    bounds: self.bounds,
                };
                // SAFETY: `width` proves the instruction set. `new` packed whole registers of weights and bias for each panel;
                // the input is a slice of the job's length, and the output reaches to the last register's last output.
                unsafe {
                    match (self.width.registers, self.half) {
                        (Registers::Bits512, false) => panels_512::<false>(&job),
                        (Registers::Bits512, true) => panels_512::<true>(&job),
                        (Registers::Bits256, true) if registers > REGISTERS => twice_256(&job),
                        (Registers::Bits256, false) => panels_256::<false>(&job),
                        (Registers::Bits256, true) => panels_256::<true>(&job),
                    }
                }
            }
        }
        Some(())
    }
}
