//! Random operators that are not linear on a core's backend and as they are defined: the outputs must be the same to the bit, and nothing
//! beside the output and the scratch may change. Then operators of known networks, with the instructions that they take.
//!
//! The file `inputs` holds two words: the number of cases of each operator, and a seed. The console gets `cases N`, then
//! `layer NAME|BACKEND|SCRATCH|ELEMENTS|TICKS` for each known operator and, if all is right, `done`.
#![no_std]
#![no_main]

#[path = "../../../../runtime/src/backend/scalar/reference.rs"]
mod reference;

use tucano::backend::spec::elementwise;
use tucano::ops::window::{Axis, Window};
use tucano::ops::{add, mean, permute, softmax};
use tucano_boards_qemu::program::{Backend, backend};
use tucano_boards_qemu::random::{Guarded, Noise, Pool, cast};
use tucano_boards_qemu::semihosting::{self, File};
use tucano_boards_qemu::{counter, memory, say};

/// An operator with all that it needs besides its operands.
#[derive(Clone, Copy, Debug)]
enum Case {
    Add { words: [u32; 9], zero_points: [i32; 3], scratch: usize },
    Max { bounds: [i8; 2] },
    Average { padding: Option<i8>, bounds: [i8; 2] },
    Mean { parameters: mean::Parameters, zero_points: [i32; 2] },
    Table,
    Softmax { words: [u32; 3], row: usize, wide: bool },
    Permute { map: permute::Map },
}

/// A case with its extents.
#[derive(Clone, Copy, Debug)]
struct Shaped {
    case: Case,
    window: Window,
    inputs: usize,
    outputs: usize,
}

const KINDS: usize = 8;
const ONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
const NO_WINDOW: Window = Window { batch: 1, rows: ONE, columns: ONE, inputs: 1, outputs: 1 };

fn random_axis(noise: &mut Noise) -> Axis {
    let kernel = noise.count(1, 6);
    let stride = noise.count(1, 3);
    let (before, after) = (noise.below(kernel), noise.below(kernel));
    let least = kernel.saturating_sub(before + after).max(1);
    let input = noise.count(least, least + 8);
    let output = (input + before + after - kernel) / stride + 1;
    Axis { input, output, kernel, stride, dilation: 1, pad: before }
}

fn whole(extent: usize) -> Axis {
    Axis { input: extent, output: 1, kernel: extent, stride: 1, dilation: 1, pad: 0 }
}

fn window(batch: usize, rows: Axis, columns: Axis, channels: usize) -> Window {
    Window { batch, rows, columns, inputs: channels, outputs: channels }
}

fn pooled(case: Case, window: Window) -> Shaped {
    let positions = window.batch * window.rows.output * window.columns.output;
    Shaped { case, window, inputs: window.batch * window.image(), outputs: positions * window.outputs }
}

fn flat(case: Case, elements: usize) -> Shaped {
    Shaped { case, window: NO_WINDOW, inputs: elements, outputs: elements }
}

fn random_bounds(noise: &mut Noise) -> [i8; 2] {
    let low = if noise.one_of(2) { -128 } else { noise.within(-128, 100) };
    let high = if noise.one_of(2) { 127 } else { noise.within(low, 127) };
    [low as i8, high as i8]
}

fn zero_point(noise: &mut Noise) -> i32 {
    if noise.one_of(8) { [-128, 127, 0][noise.below(3)] } else { noise.within(-128, 127) }
}

fn multiplier(noise: &mut Noise) -> u32 {
    match noise.below(12) {
        0..4 => 1 << 30,
        4 => 0,
        5 => i32::MAX as u32,
        _ => (1 << 30) + (noise.next() << 1 & ((1 << 30) - 1)),
    }
}

fn random_add(noise: &mut Noise) -> Shaped {
    let left_shift = if noise.one_of(8) { noise.within(0, 22) } else { 20 };
    let [low, high] = random_bounds(noise);
    let shift = |noise: &mut Noise| match noise.below(10) {
        0 => -noise.within(0, 31),
        1 => -31,
        _ => -noise.within(0, 3),
    };
    let shifts = [shift(noise), shift(noise)];
    let last = if noise.one_of(10) { noise.within(-31, 30) } else { noise.within(1, 4) - left_shift };
    let mut words = [
        left_shift as u32,
        multiplier(noise),
        shifts[0] as u32,
        multiplier(noise),
        shifts[1] as u32,
        multiplier(noise),
        last as u32,
        i32::from(low) as u32,
        i32::from(high) as u32,
    ];
    let mut zero_points = [zero_point(noise), zero_point(noise), zero_point(noise)];
    if noise.one_of(8) {
        // What a blob may hold at worst.
        let ranges = [(0, 22), (0, i32::MAX), (-31, 0), (0, i32::MAX), (-31, 0), (0, i32::MAX), (-31, 30)];
        for (word, (least, most)) in words.iter_mut().zip(ranges) {
            *word = noise.end(least, most) as u32;
        }
        zero_points = [(); 3].map(|()| noise.end(-128, 127));
    }
    let most = if noise.one_of(8) { 4000 } else { 300 };
    let elements = noise.count(1, most);
    let wanted = elementwise::add_scratch(<Backend as tucano::backend::Backend>::ISA, elements);
    let scratch = if noise.one_of(8) { noise.below(wanted + 1) } else { wanted };
    flat(Case::Add { words, zero_points, scratch }, elements)
}

/// Parameters for an input scale of `scale / 2^26`.
fn softmax_words(scale: u32) -> [u32; 3] {
    let shift = 32 - scale.leading_zeros();
    let multiplier = u64::from(scale) << 31 >> shift;
    [multiplier as u32, shift, -((31i64 << 26 >> shift) as i32) as u32]
}

fn random_case(noise: &mut Noise, kind: usize) -> Shaped {
    let channels = noise.count(1, 40);
    let channels = if noise.one_of(2) { channels.next_multiple_of(4) } else { channels };
    let batch = if noise.one_of(4) { 2 } else { 1 };
    match kind {
        0 => random_add(noise),
        1 | 2 => {
            let window = window(batch, random_axis(noise), random_axis(noise), channels);
            let bounds = random_bounds(noise);
            let padding = noise.one_of(2).then(|| zero_point(noise) as i8);
            pooled(if kind == 1 { Case::Max { bounds } } else { Case::Average { padding, bounds } }, window)
        }
        3 => {
            let side = |noise: &mut Noise| if noise.one_of(20) { 40 } else { noise.count(1, 9) };
            let (rows, columns) = (side(noise), side(noise));
            let window = window(batch, whole(rows), whole(columns), channels);
            let [act_min, act_max] = random_bounds(noise).map(i32::from);
            let shift = noise.within(-3, 1) - (rows * columns).ilog2() as i32;
            let mut parameters =
                mean::Parameters { multiplier: multiplier(noise) as i32, shift, act_min, act_max };
            let mut zero_points = [zero_point(noise), zero_point(noise)];
            if noise.one_of(8) {
                // What a blob may hold at worst.
                let most = 23 - (rows * columns).next_power_of_two().ilog2() as i32;
                parameters.shift = noise.end(-31, most);
                parameters.multiplier = noise.end(0, i32::MAX);
                zero_points = [(); 2].map(|()| noise.end(-128, 127));
            }
            pooled(Case::Mean { parameters, zero_points }, window)
        }
        4 => flat(Case::Table, noise.count(1, 300)),
        5 | 6 => {
            let row = noise.count(1, 20);
            let bits = noise.within(12, 30);
            let scale = 1 + (noise.next() & ((1 << bits) - 1));
            flat(Case::Softmax { words: softmax_words(scale), row, wide: kind == 6 }, row * batch)
        }
        _ => {
            let input: [usize; 4] = core::array::from_fn(|_| noise.count(1, 6));
            let mut order = [0usize, 1, 2, 3];
            for last in (1..4).rev() {
                order.swap(last, noise.below(last + 1));
            }
            let stride = |axis: usize| input[axis + 1..].iter().product::<usize>();
            let map = permute::Map { extents: order.map(|axis| input[axis]), strides: order.map(stride) };
            flat(Case::Permute { map }, input.iter().product())
        }
    }
}

/// Runs on a backend. `output` holds the first input of operators that run in place.
fn run<B: tucano::backend::Backend>(
    backend: B,
    shaped: &Shaped,
    input: &mut [u8],
    second: &mut [u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let window = &shaped.window;
    let (source, second): (&[i8], &[i8]) = (cast(input), cast(second));
    match shaped.case {
        Case::Add { words, zero_points, .. } => {
            let parameters = add::IntegerParameters::parse(&words)?;
            backend.add_i8(&parameters, zero_points, cast(output), second, scratch)
        }
        Case::Max { bounds } => backend.max_pool2d_i8(window, bounds, source, cast(output)),
        Case::Average { padding, bounds } => {
            backend.average_pool2d_i8(window, padding, bounds, source, cast(output))
        }
        Case::Mean { parameters, zero_points } => {
            backend.mean2d_i8(window, &parameters, zero_points, source, cast(output))
        }
        Case::Table => {
            backend.table_i8(second.first_chunk()?, cast(output));
            Some(())
        }
        Case::Softmax { words, row, wide: false } => {
            backend.softmax_i8(&softmax::Parameters::parse(&words)?, row, cast(output))
        }
        Case::Softmax { words, row, wide: true } => {
            backend.softmax_i16(&softmax::Parameters::parse(&words)?, row, source, cast(output))
        }
        Case::Permute { map } => backend.permute_i8(&map, source, cast(output)),
    }
}

/// The output by definition.
fn define(shaped: &Shaped, input: &[i8], second: &[i8], output: &mut [u8]) {
    let bytes: &mut [i8] = cast(output);
    match shaped.case {
        Case::Add { words, zero_points, .. } => {
            for (at, slot) in bytes.iter_mut().enumerate() {
                *slot = reference::add(&words, zero_points, input[at], second[at]);
            }
        }
        Case::Max { bounds: [low, high] } => {
            pool(&shaped.window, input, bytes, |values, _| values.fold(i8::MIN, i8::max).max(low).min(high))
        }
        Case::Average { padding, bounds: [low, high] } => {
            let area = shaped.window.rows.kernel * shaped.window.columns.kernel;
            pool(&shaped.window, input, bytes, |values, count| {
                let sum: i32 = values.map(i32::from).sum();
                let mean = match padding {
                    Some(value) => {
                        reference::average(sum + (area - count) as i32 * i32::from(value), area as i32)
                    }
                    None => reference::average(sum, count as i32),
                };
                mean.clamp(low.into(), high.into()) as i8
            })
        }
        Case::Mean { parameters, zero_points: [zero_in, zero_out] } => {
            let mean::Parameters { multiplier, shift, act_min, act_max } = parameters;
            pool(&shaped.window, input, bytes, |values, _| {
                let sum = values.map(|x| i32::from(x) - zero_in).sum();
                zero_out.wrapping_add(reference::requantize(sum, multiplier, shift)).max(act_min).min(act_max)
                    as i8
            })
        }
        Case::Table => {
            for (slot, &x) in bytes.iter_mut().zip(input) {
                *slot = second[(i32::from(x) + 128) as usize];
            }
        }
        Case::Softmax { words, row, wide: false } => {
            for (row, slots) in input.chunks(row).zip(bytes.chunks_mut(row)) {
                reference::softmax(&words, false, row, |at, share| slots[at] = share as i8);
            }
        }
        Case::Softmax { words, row, wide: true } => {
            let halves: &mut [i16] = cast(output);
            for (row, slots) in input.chunks(row).zip(halves.chunks_mut(row)) {
                reference::softmax(&words, true, row, |at, share| slots[at] = share as i16);
            }
        }
        Case::Permute { map: permute::Map { extents: [a, b, c, d], strides } } => {
            for (at, slot) in bytes.iter_mut().enumerate() {
                let index = [at / (b * c * d) % a, at / (c * d) % b, at / d % c, at % d];
                *slot = input[index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()];
            }
        }
    }
}

/// Fills `output` with what `reduce` makes of the elements under each window and of their number.
fn pool(
    window: &Window,
    input: &[i8],
    output: &mut [i8],
    reduce: impl Fn(&mut dyn Iterator<Item = i8>, usize) -> i8,
) {
    let Window { rows, columns, inputs: channels, .. } = *window;
    for (at, slot) in output.iter_mut().enumerate() {
        let (channel, at) = (at % channels, at / channels);
        let (column, at) = (at % columns.output, at / columns.output);
        let image = &input[at / rows.output * window.image()..];
        let values = || {
            (0..rows.kernel * columns.kernel).filter_map(|tap| {
                let y = rows.position(at % rows.output, tap / columns.kernel)?;
                Some(image[window.at(y, columns.position(column, tap % columns.kernel)?) + channel])
            })
        };
        *slot = reduce(&mut values(), values().count());
    }
}

/// Operands of a case.
struct Operands<'a> {
    input: &'a mut [u8],
    second: &'a mut [u8],
    output: Guarded<'a>,
    scratch: Guarded<'a>,
}

fn operands<'a>(pool: &mut Pool<'a>, noise: &mut Noise, shaped: &Shaped) -> Operands<'a> {
    let input = pool.take(shaped.inputs);
    let second = pool.take(shaped.inputs.max(256));
    for place in [&mut *input, &mut *second] {
        let kind = noise.below(16);
        place.iter_mut().for_each(|byte| {
            *byte = match kind {
                0 => 0x80,
                1 => 0x7F,
                _ => noise.next() as u8,
            }
        });
    }
    let (wide, scratch) = match shaped.case {
        Case::Softmax { wide, .. } => (wide, 0),
        Case::Add { scratch, .. } => (false, scratch),
        _ => (false, 0),
    };
    let bytes = if wide { 2 } else { 1 } * shaped.outputs;
    let mut operands =
        Operands { input, second, output: pool.guarded(bytes), scratch: pool.guarded(scratch) };
    refill(&mut operands, shaped);
    operands
}

/// Puts the first input where an operator that runs in place wants it.
fn refill(operands: &mut Operands<'_>, shaped: &Shaped) {
    if matches!(shaped.case, Case::Add { .. } | Case::Table | Case::Softmax { wide: false, .. }) {
        operands.output.inner().copy_from_slice(operands.input);
    }
    operands.scratch.inner().fill(0x5A);
}

fn compare(pool: &mut Pool<'_>, operands: &mut Operands<'_>, shaped: &Shaped) -> Result<(), &'static str> {
    let Operands { input, second, output, scratch } = operands;
    let expected = pool.take(output.inner().len());
    define(shaped, cast(input), cast(second), expected);
    let digest = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
    let before = [digest(input), digest(second)];
    let Some(backend) = backend() else { return Err("the core is not the backend's") };
    run(backend, shaped, input, second, output.inner(), scratch.inner())
        .ok_or("the backend refuses the case")?;
    if before != [digest(input), digest(second)] {
        return Err("an input was written");
    }
    if !output.is_whole() || !scratch.is_whole() {
        return Err("bytes beside the output or the scratch were written");
    }
    if output.inner() != expected {
        let at = output.inner().iter().zip(&*expected).position(|(a, b)| a != b).unwrap_or(0);
        let (found, wanted) = (output.inner()[at].cast_signed(), expected[at].cast_signed());
        say!("byte {at} of {}: {found}, not {wanted}", expected.len());
        return Err("the outputs differ");
    }
    Ok(())
}

fn test(free: &mut [u8], cases: usize, seed: u32) -> Result<(), ()> {
    let mut noise = Noise::new(seed);
    for kind in 0..KINDS {
        for number in 0..cases {
            let mut pool = Pool(free);
            let shaped = random_case(&mut noise, kind);
            let mut operands = operands(&mut pool, &mut noise, &shaped);
            compare(&mut pool, &mut operands, &shaped)
                .map_err(|reason| say!("wrong {number} {shaped:?}: {reason}"))?;
        }
    }
    say!("cases {}", KINDS * cases);
    Ok(())
}

/// Operators of known networks.
fn known() -> [(&'static str, Shaped); 13] {
    let sum = |elements: usize, [low, high]: [i32; 2]| {
        let words = [
            20,
            1 << 30,
            0,
            1_400_000_001,
            (-1i32) as u32,
            1_234_567_891,
            (-18i32) as u32,
            low as u32,
            high as u32,
        ];
        let scratch = elementwise::add_scratch(<Backend as tucano::backend::Backend>::ISA, elements);
        flat(Case::Add { words, zero_points: [3, -7, -128], scratch }, elements)
    };
    let bounds = [-128, 127];
    let square = |extent: usize, kernel: usize| Axis {
        input: extent,
        output: extent / kernel,
        kernel,
        stride: kernel,
        dilation: 1,
        pad: 0,
    };
    let parameters = mean::Parameters { multiplier: 1_234_567_890, shift: -6, act_min: -128, act_max: 127 };
    let map =
        |extents: [usize; 4], strides: [usize; 4]| Case::Permute { map: permute::Map { extents, strides } };
    let classes =
        |row: usize, wide: bool| flat(Case::Softmax { words: softmax_words(1_500_000), row, wide }, row);
    [
        ("add 32x32x16", sum(16384, [-128, 127])),
        ("add 8x8x64 bounds", sum(4096, [-100, 120])),
        ("add 64", sum(64, [-128, 127])),
        ("max pool 2x2 32x32x16", pooled(Case::Max { bounds }, window(1, square(32, 2), square(32, 2), 16))),
        (
            "average pool 25x5x64",
            pooled(Case::Average { padding: None, bounds }, window(1, whole(25), whole(5), 64)),
        ),
        (
            "average pool 8x8x64",
            pooled(Case::Average { padding: None, bounds }, window(1, whole(8), whole(8), 64)),
        ),
        (
            "average pool 2x2 32x32x16",
            pooled(Case::Average { padding: None, bounds }, window(1, square(32, 2), square(32, 2), 16)),
        ),
        (
            "mean 25x5x64",
            pooled(Case::Mean { parameters, zero_points: [-128, -128] }, window(1, whole(25), whole(5), 64)),
        ),
        ("table 8000", flat(Case::Table, 8000)),
        ("softmax 12", classes(12, false)),
        ("softmax 12 i16", classes(12, true)),
        ("permute 0231 16x16x8", flat(map([1, 16, 16, 8], [1, 16, 1, 256]), 2048)),
        ("permute none 2048", flat(map([1, 1, 32, 64], [1, 1, 64, 1]), 2048)),
    ]
}

fn measure(free: &mut [u8]) -> Result<(), ()> {
    for (name, shaped) in known() {
        let mut noise = Noise::new(0x2545_F491);
        let mut pool = Pool(free);
        let mut operands = operands(&mut pool, &mut noise, &shaped);
        compare(&mut pool, &mut operands, &shaped).map_err(|reason| say!("wrong {name}: {reason}"))?;
        refill(&mut operands, &shaped);
        let Operands { input, second, output, scratch } = &mut operands;
        let Some(backend) = backend() else { return Err(()) };
        let (output, scratch) = (output.inner(), scratch.inner());
        let before = counter::ticks();
        let result = run(backend, &shaped, input, second, output, scratch);
        let after = counter::ticks();
        result.ok_or(())?;
        let kernel = <Backend as tucano::backend::Backend>::NAME;
        say!("layer {name}|{kernel}|{}|{}|{}", scratch.len(), shaped.inputs, after - before);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the only call.
    let free = unsafe { memory::free() };
    counter::start();
    say!("calibration {}", counter::calibrate());
    say!("backend {}", <Backend as tucano::backend::Backend>::NAME);
    let mut words = [0; 8];
    let read = File::open(c"inputs").is_some_and(|file| file.read(&mut words));
    if !read {
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

tucano_boards_qemu::ends!(reported);
