//! Depthwise convolution, a register of channels at a time; of images with few channels, a register of pixels.

use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;
use super::{Aligned, Place, Registers, Width};
use crate::ops::linear::Float;
use crate::ops::window::Window;

/// Channels from which on registers hold no more than one pixel.
const MOST_SHARED: usize = 64;

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

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

/// How whole registers of outputs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// See [`any`].
    Any,
    /// See [`three_by_three`].
    Held,
    /// See [`Columns`].
    Down,
    /// See [`Pair`].
    Pairs,
}

/// A prepared depthwise convolution with one output a channel.
#[derive(Clone, Debug)]
pub struct DepthwiseConv2d {
    width: Width,
    strips: Vec<Strip>,
    /// For each tap, how many floats behind the first one it reads.
    taps: Vec<usize>,
    way: Way,
    /// From a tap to the next of a row, and of a column.
    right: usize,
    below: usize,
    /// From a register of inputs and of outputs to the next.
    steps: [usize; 2],
    /// From a row's inputs and outputs to the next's.
    lines: [usize; 2],
    rows: usize,
    /// Whether the first and the last row of inputs under the windows are padding.
    padding: [bool; 2],
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
unsafe fn three_by_three<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller's job.
    unsafe {
        let &DepthwiseConv2d { right, below, .. } = job.layer;
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
                        sum = V::mul_add(V::load(input.wrapping_add(y * below + x * right)), weights, sum);
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

/// A window of three by three at stride 1, down the rows of some registers: what is read of a row of inputs goes to three rows of outputs.
trait Down<V> {
    /// The sums of a row of outputs.
    type Sums: Copy;

    /// The sums before the first product.
    unsafe fn start(&self) -> Self::Sums;
    /// Reads a row of inputs and adds the products with row `k` of the window to the `k`th of `sums`; those of rows that are not wanted stay.
    unsafe fn read(&self, input: *const f32, wanted: [bool; 3], sums: &mut [Self::Sums; 3]);
    /// Writes a row of outputs.
    unsafe fn write(&self, sums: Self::Sums, output: *mut f32);
}

/// Goes down the rows from register `from` on. Rows of inputs that are padding are not read.
///
/// # Safety
/// As [`any`]; all lanes, and the registers of `way` from `from` on.
#[inline(always)]
unsafe fn down<V: Lanes, D: Down<V>>(way: &D, job: &Job<'_>, from: usize) {
    /// Where it is, and by the row of the window that the next row of inputs meets: the outputs that begin with it, are within, end with it.
    struct State<S> {
        input: *const f32,
        output: *mut f32,
        sums: [S; 3],
    }

    /// # Safety
    /// As the function around it.
    #[inline(always)]
    unsafe fn row<V: Lanes, D: Down<V>>(
        way: &D,
        state: &mut State<D::Sums>,
        lines: [usize; 2],
        wanted: [bool; 3],
        padding: bool,
    ) {
        // SAFETY: the caller's job.
        unsafe {
            if !padding {
                way.read(state.input, wanted, &mut state.sums);
            }
            state.input = state.input.wrapping_add(lines[0]);
            if wanted[2] {
                way.write(state.sums[2], state.output);
                state.output = state.output.wrapping_add(lines[1]);
            }
            state.sums = [way.start(), state.sums[0], state.sums[1]];
        }
    }

    // SAFETY: the caller's job.
    unsafe {
        let &DepthwiseConv2d { rows, padding: [above, under], lines, steps, .. } = job.layer;
        let input = job.input.add(from * steps[0]);
        let output = job.output.wrapping_add(from * steps[1]);
        let mut state = State { input, output, sums: [way.start(); 3] };
        row(way, &mut state, lines, [true, false, false], above);
        if rows == 1 {
            row(way, &mut state, lines, [false, true, false], false);
        } else {
            row(way, &mut state, lines, [true, true, false], false);
            for _ in 2..rows {
                row(way, &mut state, lines, [true; 3], false);
            }
            row(way, &mut state, lines, [false, true, true], false);
        }
        row(way, &mut state, lines, [false, false, true], under);
    }
}

/// `N` registers at a time.
struct Columns<V, const N: usize> {
    weights: [[V; 3]; 3],
    bias: V,
    bounds: [V; 2],
    right: usize,
    steps: [usize; 2],
}

impl<V: Lanes, const N: usize> Columns<V, N> {
    /// # Safety
    /// As [`any`].
    #[inline(always)]
    unsafe fn new(job: &Job<'_>) -> Self {
        // SAFETY: the caller's job.
        unsafe {
            let mut weights = [[V::load(job.weights); 3]; 3];
            for (tap, weights) in weights.as_flattened_mut().iter_mut().enumerate() {
                *weights = V::load(job.weights.add(tap * V::COUNT));
            }
            Self {
                weights,
                bias: V::load(job.bias),
                bounds: job.layer.bounds.map(|bound| V::splat(bound)),
                right: job.layer.right,
                steps: job.layer.steps,
            }
        }
    }
}

impl<V: Lanes, const N: usize> Down<V> for Columns<V, N> {
    type Sums = [V; N];

    #[inline(always)]
    unsafe fn start(&self) -> [V; N] {
        [self.bias; N]
    }

    #[inline(always)]
    unsafe fn read(&self, input: *const f32, wanted: [bool; 3], sums: &mut [[V; N]; 3]) {
        // SAFETY: the caller's.
        unsafe {
            for n in 0..N {
                for x in 0..3 {
                    let value = V::load(input.add(n * self.steps[0] + x * self.right));
                    for (k, sums) in sums.iter_mut().enumerate() {
                        if wanted[k] {
                            sums[n] = V::mul_add(value, self.weights[k][x], sums[n]);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn write(&self, sums: [V; N], output: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            for (n, &sum) in sums.iter().enumerate() {
                V::store(output.add(n * self.steps[1]), V::clamp(self.bounds, sum));
            }
        }
    }
}

/// Two registers side by side that are pixels, by minimal filtering F(2, 3) along the row: 12 products and 8 sums for two outputs in place of
/// 18 products. The weights of [`minimal`] follow the window's.
struct Pair<V> {
    weights: [[V; 4]; 3],
    start: [V; 4],
    bounds: [V; 2],
    steps: [usize; 2],
}

impl<V: Lanes> Pair<V> {
    /// # Safety
    /// As [`any`].
    #[inline(always)]
    unsafe fn new(job: &Job<'_>) -> Self {
        // SAFETY: the caller's job.
        unsafe {
            let zero = V::splat(0.0);
            let mut weights = [[zero; 4]; 3];
            for (k, weights) in weights.as_flattened_mut().iter_mut().enumerate() {
                *weights = V::load(job.weights.add((9 + k) * V::COUNT));
            }
            Self {
                weights,
                // The second product takes part in both outputs.
                start: [zero, V::load(job.bias), zero, zero],
                bounds: job.layer.bounds.map(|bound| V::splat(bound)),
                steps: job.layer.steps,
            }
        }
    }
}

impl<V: Lanes> Down<V> for Pair<V> {
    type Sums = [V; 4];

    #[inline(always)]
    unsafe fn start(&self) -> [V; 4] {
        self.start
    }

    #[inline(always)]
    unsafe fn read(&self, input: *const f32, wanted: [bool; 3], sums: &mut [[V; 4]; 3]) {
        // SAFETY: the caller's.
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|x| V::load(input.add(x * self.steps[0])));
            let values = [V::sub(a, c), V::add(b, c), V::sub(c, b), V::sub(b, d)];
            for (x, &value) in values.iter().enumerate() {
                for (k, sums) in sums.iter_mut().enumerate() {
                    if wanted[k] {
                        sums[x] = V::mul_add(value, self.weights[k][x], sums[x]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn write(&self, [a, b, c, d]: [V; 4], output: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            V::store(output, V::clamp(self.bounds, V::add(V::add(b, c), a)));
            V::store(output.add(self.steps[1]), V::clamp(self.bounds, V::sub(V::sub(b, c), d)));
        }
    }
}

/// The factors of minimal filtering for three taps of a row.
fn minimal([a, b, c]: [f64; 3]) -> [f64; 4] {
    [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c]
}

/// # Safety
/// As [`any`].
#[inline(always)]
unsafe fn strip<V: Lanes>(job: &Job<'_>) {
    let count = job.strip.count;
    // SAFETY: the caller's job; registers lie within its strip.
    unsafe {
        match job.layer.way {
            _ if job.strip.lanes < V::COUNT => any::<V>(job),
            Way::Any => any::<V>(job),
            Way::Held => three_by_three::<V>(job),
            Way::Down => {
                let two = Columns::<V, 2>::new(job);
                for pair in 0..count / 2 {
                    down(&two, job, 2 * pair);
                }
                last::<V>(job);
            }
            Way::Pairs => {
                let two = Pair::<V>::new(job);
                for pair in 0..count / 2 {
                    down(&two, job, 2 * pair);
                }
                last::<V>(job);
            }
        }
    }
}

/// The last register of an odd number.
///
/// # Safety
/// As [`any`].
#[inline(always)]
unsafe fn last<V: Lanes>(job: &Job<'_>) {
    let count = job.strip.count;
    if !count.is_multiple_of(2) {
        // SAFETY: the caller's job.
        unsafe { down(&Columns::<V, 1>::new(job), job, count - 1) };
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
        // Pixels side by side may share registers: their windows are side by side too. Weights repeat after some registers.
        let touching = columns.stride == 1 && input.pixel == channels && output.pixel == channels;
        let shared = touching && channels < MOST_SHARED;
        let (right, below) = (columns.dilation * input.pixel, rows.dilation * input.row);
        let [read_step, written_step] = if shared {
            [channels / greatest_divisor(channels, lanes) * lanes; 2]
        } else {
            [columns.stride * input.pixel, output.pixel]
        };
        let three = rows.kernel == 3 && columns.kernel == 3;
        let plain = three && rows.stride == 1 && rows.dilation == 1;
        let way = match width.registers {
            Registers::Bits512 if plain && width.adds_beside() && read_step == right => Way::Pairs,
            Registers::Bits512 if plain => Way::Down,
            _ if three => Way::Held,
            _ => Way::Any,
        };

        // Elements that go through the registers in order: all of a row of outputs, or one pixel.
        let line = if shared { columns.output * channels } else { channels };
        let registers = line.div_ceil(lanes).min(read_step.div_ceil(lanes));
        let factors = if way == Way::Pairs { taps + 12 } else { taps };
        let mut weights = Aligned::new(registers * factors * lanes);
        let mut bias = Aligned::new(registers * lanes);
        let mut strips = Vec::new();
        for register in 0..registers {
            let first = register * lanes;
            for lane in 0..lanes.min(line - first) {
                let channel = (first + lane) % channels;
                bias.set(first + lane, *linear.bias.get(channel)?)?;
                let weight = |tap: usize| linear.weights.get(tap * channels + channel).copied();
                let mut set = |k: usize, weight| weights.set((register * factors + k) * lanes + lane, weight);
                for tap in 0..taps {
                    set(tap, weight(tap)?)?;
                }
                for (row, k) in (0..taps).step_by(3).zip((taps..factors).step_by(4)) {
                    let of = [weight(row)?, weight(row + 1)?, weight(row + 2)?].map(f64::from);
                    minimal(of).into_iter().zip(k..).try_for_each(|(of, k)| set(k, of as f32))?;
                }
            }
            let strip = Strip {
                input: origin + first,
                output: output.start + first,
                weights: register * factors * lanes,
                bias: first,
                count: columns.output,
                lanes: lanes.min(line - first),
            };
            if !shared {
                strips.push(strip);
                continue;
            }
            let count = (line / lanes).saturating_sub(register).div_ceil(registers);
            let done = count * read_step;
            let rest = (line - first).saturating_sub(done).min(lanes);
            let rest = Strip {
                input: strip.input + done,
                output: strip.output + done,
                count: 1,
                lanes: rest,
                ..strip
            };
            let whole = Strip { count, lanes, ..strip };
            strips.extend([whole, rest].into_iter().filter(|strip| strip.count > 0 && strip.lanes > 0));
        }
        // Under all windows.
        let [high, wide] = [rows, columns].map(|axis| (axis.output - 1) * axis.stride + axis.reach());
        Some(Self {
            width,
            strips,
            taps: (0..taps).map(|tap| tap / columns.kernel * below + tap % columns.kernel * right).collect(),
            way,
            right,
            below,
            steps: [read_step, written_step],
            lines: [rows.stride * input.row, output.row],
            rows: rows.output,
            padding: [rows.pad > 0, (rows.output - 1) * rows.stride + rows.reach() > rows.pad + rows.input],
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
                    match self.width.registers {
                        Registers::Bits512 => strip_512(&job),
                        Registers::Bits256 => strip_256(&job),
                    }
                }
            }
        }
        Some(())
    }
}
