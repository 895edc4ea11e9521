//! Random layers of floats on a core's backend and on scalar code: the outputs differ by less than 2^-16 of the sum of their terms' magnitudes, and nothing
//! beside the output may change. In half of the cases one operand ends where a memory does. Then layers of known networks, with the instructions
//! that they take.
//!
//! The file `inputs` holds two words: the number of cases of each kind of layer, and a seed. The console gets what the program `differential` says.
#![no_std]
#![no_main]

use tucano::backend::spec::float;
use tucano::backend::spec::select::{Isa, Linear, SCALAR};
use tucano::backend::{Backend as _, Scalar};
use tucano::ops::linear::Float;
use tucano::ops::window::{Axis, Window};
use tucano_boards_qemu::edge::Ends;
use tucano_boards_qemu::program::{Backend, backend};
use tucano_boards_qemu::random::{Noise, Pool, cast};
use tucano_boards_qemu::semihosting::{self, File};
use tucano_boards_qemu::{counter, memory, say};

const ISA: Isa = <Backend as tucano::backend::Backend>::ISA;
const ONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
/// Of the sum of magnitudes.
const TOLERANCE: f32 = 1.0 / 65536.0;

fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, [before, after]: [usize; 2]) -> Axis {
    let reach = (kernel - 1) * dilation + 1;
    let output = (input + before + after - reach) / stride + 1;
    Axis { input, output, kernel, stride, dilation, pad: before }
}

fn random_axis(noise: &mut Noise) -> Axis {
    let kernel = noise.count(1, 4);
    let dilation = if noise.one_of(6) { 2 } else { 1 };
    let reach = (kernel - 1) * dilation + 1;
    let pads = [noise.below(reach), noise.below(reach)];
    let least = reach.saturating_sub(pads[0] + pads[1]).max(1);
    axis(noise.count(least, least + 7), kernel, noise.count(1, 2), dilation, pads)
}

fn random_linear(noise: &mut Noise, kind: usize) -> (Linear, usize) {
    let batch = noise.count(1, 2);
    let (inputs, outputs) = (noise.extent(40), noise.extent(40));
    let mut window = Window { batch, rows: random_axis(noise), columns: random_axis(noise), inputs, outputs };
    match kind {
        0 => {
            let groups = if noise.one_of(8) { 2 } else { 1 };
            (window.inputs, window.outputs) = (inputs * groups, outputs * groups);
            (Linear::Conv2d { window, groups }, batch)
        }
        1 => {
            window.outputs = inputs * if noise.one_of(8) { 2 } else { 1 };
            (Linear::DepthwiseConv2d { window }, batch)
        }
        _ => (Linear::Dense { inputs: noise.extent(300), outputs }, batch),
    }
}

/// Elements of input, weights and output.
fn extents(linear: &Linear, batch: usize) -> [usize; 3] {
    let weights = linear.depth().unwrap_or(0) * linear.outputs();
    match linear {
        Linear::Conv2d { window, .. } | Linear::DepthwiseConv2d { window } => {
            let positions = window.batch * window.rows.output * window.columns.output;
            [window.batch * window.image(), weights, positions * window.outputs]
        }
        Linear::Dense { inputs, outputs } => [batch * inputs, weights, batch * outputs],
    }
}

fn run<B: tucano::backend::Backend>(
    backend: B,
    linear: &Linear,
    constants: &Float<'_>,
    input: &[f32],
    output: &mut [f32],
) -> Option<()> {
    match linear {
        Linear::Conv2d { window, groups } => backend.conv2d_f32(window, *groups, constants, input, output),
        Linear::DepthwiseConv2d { window } => backend.depthwise_conv2d_f32(window, constants, input, output),
        Linear::Dense { inputs, .. } => backend.dense_f32(*inputs, constants, input, output),
    }
}

fn random(noise: &mut Noise, values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = (noise.next() as i32 - (1 << 28)) as f32 / (1 << 28) as f32);
}

fn absolute(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.abs());
}

/// Where a case's operands lie: the operand of number `last` at the end of the memory `end`.
struct Places<'a> {
    pool: Pool<'a>,
    end: Pool<'a>,
    last: usize,
}

impl<'a> Places<'a> {
    fn floats(&mut self, number: usize, count: usize) -> &'a mut [f32] {
        cast(if number == self.last { self.end.last(4 * count, 4) } else { self.pool.take(4 * count) })
    }
}

/// Runs a case; gives the ticks of the backend's run.
fn compare(
    places: &mut Places<'_>,
    noise: &mut Noise,
    (linear, batch): &(Linear, usize),
) -> Result<u64, &'static str> {
    let [inputs, weights, outputs] = extents(linear, *batch);
    let input = places.floats(0, inputs);
    let stored = places.floats(1, weights);
    let bias = places.floats(2, linear.outputs());
    let [input_size, weights_size] = [inputs, weights].map(|count| places.floats(usize::MAX, count));
    let bias_size = places.floats(usize::MAX, linear.outputs());
    for (values, sizes) in
        [(&mut *input, &mut *input_size), (&mut *stored, &mut *weights_size), (&mut *bias, &mut *bias_size)]
    {
        random(noise, values);
        absolute(values, sizes);
    }
    let bounds = [[f32::NEG_INFINITY, f32::INFINITY], [0.0, f32::INFINITY], [0.0, 6.0], [-0.5, 0.25]];
    let [low, high] = bounds[noise.below(4)];
    let constants = Float { weights: stored, bias, low, high };
    let whole = Float { weights: weights_size, bias: bias_size, low: f32::NEG_INFINITY, high: f32::INFINITY };
    let (expected, magnitude) = (places.floats(usize::MAX, outputs), places.floats(usize::MAX, outputs));
    run(Scalar, linear, &constants, input, expected).ok_or("scalar code refuses the layer")?;
    run(Scalar, linear, &whole, input_size, magnitude).ok_or("scalar code refuses the layer")?;
    let mut found = if places.last == 3 {
        places.end.last_guarded(4 * outputs, 4)
    } else {
        places.pool.guarded(4 * outputs)
    };
    let Some(backend) = backend() else { return Err("the core is not the backend's") };
    let before = counter::ticks();
    let result = run(backend, linear, &constants, input, cast(found.inner()));
    let after = counter::ticks();
    result.ok_or("the backend refuses the layer")?;
    if !found.is_whole() {
        return Err("bytes beside the output were written");
    }
    let found: &[f32] = cast(found.inner());
    for (at, ((found, expected), magnitude)) in found.iter().zip(&*expected).zip(&*magnitude).enumerate() {
        // Refuses what is no number too.
        let close = (found - expected).abs() <= TOLERANCE * magnitude;
        if !close {
            say!("output {at} of {outputs}: {found:e}, not {expected:e}; terms of {magnitude:e}");
            return Err("the outputs differ");
        }
    }
    Ok(after - before)
}

fn name(linear: &Linear) -> &'static str {
    float::select(ISA, linear).unwrap_or(SCALAR)
}

fn test(free: &mut [u8], cases: usize, seed: u32) -> Result<(), ()> {
    let mut noise = Noise::new(seed);
    let ends = Ends::find(free);
    ends.all().iter().for_each(|end| say!("end {:#x}", end.end()));
    let mut count = [("", 0); 4];
    let mut last = 0;
    for kind in 0..3 {
        for number in 0..cases {
            let state = noise.state;
            let case = random_linear(&mut noise, kind);
            let (some, what, end) = (noise.one_of(2), noise.below(4), noise.below(ends.all().len()));
            let mut places = match ends.all().get(end) {
                Some(end) if some => {
                    let (pool, end) = end.beside(free);
                    last += 1;
                    Places { pool: Pool(pool), end: Pool(end), last: what }
                }
                _ => Places { pool: Pool(free), end: Pool(&mut []), last: usize::MAX - 1 },
            };
            compare(&mut places, &mut noise, &case)
                .map_err(|reason| say!("wrong case {number} seed {state}: {case:?}: {reason}"))?;
            let name = name(&case.0);
            if let Some(slot) = count.iter_mut().find(|(known, _)| known.is_empty() || *known == name) {
                *slot = (name, slot.1 + 1);
            }
        }
    }
    for (name, count) in count.iter().filter(|(name, _)| !name.is_empty()) {
        say!("kernel {name} {count}");
    }
    say!("cases {}", 3 * cases);
    say!("last {last}");
    Ok(())
}

/// Layers of known networks.
fn known() -> [(&'static str, Linear); 7] {
    let window = |rows: Axis, columns: Axis, inputs: usize, outputs: usize| Window {
        batch: 1,
        rows,
        columns,
        inputs,
        outputs,
    };
    let square = |extent: usize| axis(extent, 3, 1, 1, [1, 1]);
    let conv = |window: Window| Linear::Conv2d { window, groups: 1 };
    let flat = |extent: usize| Axis { input: extent, output: extent, ..ONE };
    [
        ("pointwise 25x5 64>64 f32", conv(window(flat(25), flat(5), 64, 64))),
        ("conv 3x3 16x16 16>16 f32", conv(window(square(16), square(16), 16, 16))),
        ("conv 3x3 16x16 3>16 f32", conv(window(square(16), square(16), 3, 16))),
        (
            "depthwise 3x3 25x5 64 f32",
            Linear::DepthwiseConv2d { window: window(square(25), square(5), 64, 64) },
        ),
        ("dense 320>128 f32", Linear::Dense { inputs: 320, outputs: 128 }),
        ("dense 128>128 f32", Linear::Dense { inputs: 128, outputs: 128 }),
        ("dense 64>12 f32", Linear::Dense { inputs: 64, outputs: 12 }),
    ]
}

fn measure(free: &mut [u8]) -> Result<(), ()> {
    for (title, linear) in known() {
        let mut noise = Noise::usual(0x2545_F491);
        let mut places = Places { pool: Pool(free), end: Pool(&mut []), last: usize::MAX - 1 };
        let ticks = compare(&mut places, &mut noise, &(linear, 1))
            .map_err(|reason| say!("wrong {title}: {reason}"))?;
        let [_, _, outputs] = extents(&linear, 1);
        say!("layer {title}|{}|0|{}|{ticks}", name(&linear), outputs * linear.depth().unwrap_or(0));
    }
    Ok(())
}

/// The stack, away from the end of RAM, where operands lie.
static mut STACK: [u64; STACK_WORDS] = [0; STACK_WORDS];
const STACK_WORDS: usize = 1024;

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    core::arch::naked_asm!(
        "ldr r0, ={stack}",
        "ldr r1, ={bytes}",
        "adds r0, r0, r1",
        "mov sp, r0",
        "bl {tested}",
        "udf #0",
        stack = sym STACK,
        bytes = const 8 * STACK_WORDS,
        tested = sym tested,
    )
}

extern "C" fn tested() -> ! {
    // SAFETY: the only call; `main` has moved the stack pointer.
    let free = unsafe { memory::all() };
    counter::start();
    say!("calibration {}", counter::calibrate());
    say!("backend {}", Backend::NAME);
    let mut words = [0; 8];
    if !File::open(c"inputs").is_some_and(|file| file.read(&mut words)) {
        say!("error inputs: cannot be read");
        semihosting::exit(2);
    }
    let word = |k: usize| u32::from_le_bytes([words[k], words[k + 1], words[k + 2], words[k + 3]]);
    if test(free, word(0) as usize, word(4)).is_ok() && measure(free).is_ok() {
        say!("done");
        semihosting::exit(0);
    }
    semihosting::exit(2)
}

tucano_boards_qemu::ends!(probed);
