//! Random linear layers on a core's backend and on scalar code: the outputs must be the same to the bit, and nothing beside the output
//! and the scratch may change. Then layers of known networks, with the instructions that they take.
//!
//! In half of the cases one operand ends where a memory does, so that a kernel faults that reads or writes behind it.
//!
//! The file `inputs` holds the number of cases of each kind of layer, a seed, and, which may be left out, whether to do nothing but read (1) or write (2)
//! behind the first end or behind the second (3, 4), each a word. The console gets `end ADDRESS` for each end of memory, `kernel NAME CASES` for each kernel that
//! ran, `cases N` and how many of them had something at an end, `last N`, `layer NAME|KERNEL|SCRATCH|MACS|TICKS` for each known layer and, if all is right, `done`.
#![no_std]
#![no_main]

#[path = "differential/known.rs"]
mod known;

use tucano::backend::spec::select::{Constants, Linear, Request, Selection, least_scratch, packing, select};
#[cfg(has_thumb_dsp)]
use tucano::backend::spec::{dsp::gemm, select::Isa};
use tucano::backend::{Integers, IntegersMut, Scalar};
use tucano::blob::{DType, Packing, winograd};
use tucano::ops::linear::Integer;
use tucano::ops::window::{Axis, Window};
use tucano_boards_qemu::edge::{Edge, Ends};
use tucano_boards_qemu::program::{Backend, backend};
use tucano_boards_qemu::random::{ALIGN, Guarded, Noise, Pool, cast};
use tucano_boards_qemu::semihosting::{self, File};
use tucano_boards_qemu::{counter, memory, say};

/// Of weights.
const WEIGHTS_ALIGN: usize = 4;
/// Different kernels that can be told apart.
const KERNELS: usize = 40;

/// What a case has at the end of a memory, where the byte behind faults.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Nothing,
    Weights,
    Bias,
    Multiplier,
    Shift,
    Input,
    Output,
    Scratch,
}

/// Where a case's operands lie.
struct Places<'a> {
    pool: Pool<'a>,
    last: Last,
    /// A memory up to its end, if something is to lie there.
    end: Pool<'a>,
}

impl<'a> Places<'a> {
    fn is_last(&self, what: Last) -> bool {
        what == self.last && what != Last::Nothing
    }

    fn take(&mut self, what: Last, bytes: usize, align: usize) -> &'a mut [u8] {
        if self.is_last(what) { self.end.last(bytes, align) } else { self.pool.take(bytes) }
    }

    fn guarded(&mut self, what: Last, bytes: usize, align: usize) -> Guarded<'a> {
        if self.is_last(what) { self.end.last_guarded(bytes, align) } else { self.pool.guarded(bytes) }
    }

    fn words(&mut self, what: Last, count: usize) -> &'a mut [i32] {
        cast(self.take(what, 4 * count, 4))
    }
}

/// One layer, its constants in both orders.
struct Case<'a> {
    request: Request,
    rows: usize,
    plain: Integer<'a>,
    packed: Integer<'a>,
    input: &'a mut [u8],
    input_elements: usize,
    output_elements: usize,
    macs: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Conv,
    Depthwise,
    Dense,
}

/// Extents of a layer.
#[derive(Clone, Copy)]
struct Shape {
    kind: Kind,
    /// Images, or rows of a dense layer.
    batch: usize,
    rows: Axis,
    columns: Axis,
    inputs: usize,
    outputs: usize,
    groups: usize,
    types: [DType; 2],
    in_place: bool,
    /// Whether the weights are transformed.
    winograd: bool,
    /// Of a known layer: no activation.
    linear: bool,
}

const ONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };

/// An axis with `before` and `after` positions of padding.
fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, [before, after]: [usize; 2]) -> Axis {
    let reach = (kernel - 1) * dilation + 1;
    Axis {
        input,
        output: (input + before + after - reach) / stride + 1,
        kernel,
        stride,
        dilation,
        pad: before,
    }
}

fn random_axis(noise: &mut Noise, like: Option<usize>) -> Axis {
    let kernel = [1, 1, 2, 3, 3, 3, 4, 5, 7][noise.below(9)];
    let dilation = if noise.one_of(8) { 2 } else { 1 };
    let reach = (kernel - 1) * dilation + 1;
    let stride = [1, 1, 1, 2, 2, 3][noise.below(6)];
    let mut pads = [noise.below(reach), noise.below(reach)];
    let input = like.unwrap_or_else(|| noise.count(1, 11));
    if noise.one_of(3) {
        pads = [(reach - 1) / 2, reach - 1 - (reach - 1) / 2];
    }
    if input + pads[0] + pads[1] < reach {
        pads[1] = reach - input - pads[0].min(reach - input);
    }
    axis(input, kernel, stride, dilation, pads)
}

fn random_shape(noise: &mut Noise, kind: Kind) -> Shape {
    let types = match noise.below(6) {
        0 => [DType::I8, DType::I16],
        1 => [DType::I16, DType::I8],
        2 => [DType::I16, DType::I16],
        _ => [DType::I8, DType::I8],
    };
    let batch = if noise.one_of(6) { 2 } else { 1 };
    let mut shape = Shape {
        kind,
        batch,
        rows: ONE,
        columns: ONE,
        inputs: noise.extent(40),
        outputs: noise.extent(40),
        groups: 1,
        types,
        in_place: false,
        winograd: false,
        linear: false,
    };
    if kind == Kind::Dense {
        shape.inputs = noise.extent(300);
        let most = if noise.one_of(8) { 280 } else { 70 };
        shape.outputs = noise.extent(most);
        return shape;
    }
    shape.rows = random_axis(noise, None);
    shape.columns = random_axis(noise, None);
    if noise.one_of(3) {
        // Pointwise, or one-dimensional.
        let flat = axis(shape.rows.input, 1, if noise.one_of(4) { 2 } else { 1 }, 1, [0, 0]);
        shape.rows = flat;
        if noise.one_of(2) {
            shape.columns = axis(shape.columns.input, 1, flat.stride, 1, [0, 0]);
        }
    }
    if kind == Kind::Conv && noise.one_of(12) {
        // One window over all of the image.
        for axis_of in [&mut shape.rows, &mut shape.columns] {
            let extent = noise.count(1, 5);
            *axis_of = axis(extent, extent, noise.count(1, 2), 1, [0, 0]);
        }
    }
    if kind == Kind::Depthwise {
        if noise.one_of(2) {
            // The usual window, with any padding that it may have; often of equal extents, so that it may run in place.
            let equal = noise.one_of(2);
            let stride = if noise.one_of(3) && !equal { 2 } else { 1 };
            for axis_of in [&mut shape.rows, &mut shape.columns] {
                let before = noise.below(3);
                let pads = match (equal, noise.one_of(2)) {
                    (_, true) => [1, 1],
                    (true, false) => [before, 2 - before],
                    (false, false) => [before, noise.below(3)],
                };
                let least = 3 - (pads[0] + pads[1]).min(2);
                *axis_of = axis(noise.count(least, 18), 3, stride, 1, pads);
            }
            if noise.one_of(4) {
                // One row of outputs, as a region asks for.
                let pads = [noise.below(3), noise.below(2)];
                let stride = shape.rows.stride;
                shape.rows = axis(3 - (pads[0] + pads[1]).min(2), 3, stride, 1, pads);
            }
            // Most often whole quads of channels.
            if !noise.one_of(4) {
                shape.inputs = 4 * noise.count(1, 11);
            }
        }
        let factor = if noise.one_of(3) { noise.count(2, 8) } else { 1 };
        // As many outputs as fit the memory.
        while factor * shape.inputs > 88 {
            shape.inputs /= 2;
        }
        if shape.inputs > 4 {
            shape.inputs &= if noise.one_of(4) { !0 } else { !3 };
        }
        shape.groups = shape.inputs;
        shape.outputs = factor * shape.inputs;
    } else if noise.one_of(3) {
        shape.groups = noise.count(2, 5);
        shape.inputs = shape.groups * noise.extent(16);
        shape.outputs = shape.groups * noise.extent(16);
    }
    if kind == Kind::Conv && noise.one_of(3) {
        shape.outputs = shape.inputs;
    }
    if kind == Kind::Conv && noise.one_of(3) {
        // The windows that weights can be transformed for.
        shape.winograd = true;
        shape.types = [DType::I8, DType::I8];
        shape.groups = 1;
        shape.inputs = shape.inputs.min(48);
        shape.outputs = shape.outputs.min(48).next_multiple_of(4);
        let equal = noise.one_of(2);
        for axis_of in [&mut shape.rows, &mut shape.columns] {
            let before = noise.below(3);
            let pads = if equal { [before, 2 - before] } else { [noise.below(4), noise.below(4)] };
            let least = 3 - (pads[0] + pads[1]).min(2);
            *axis_of = axis(noise.count(least, 12), 3, 1, 1, pads);
        }
        if equal && !noise.one_of(3) {
            shape.inputs = shape.outputs;
        }
    }
    let window = window(&shape);
    shape.in_place = shape.types == [DType::I8, DType::I8] && window.replaces_input() && noise.one_of(2);
    shape
}

fn window(shape: &Shape) -> Window {
    let Shape { batch, rows, columns, inputs, outputs, .. } = *shape;
    Window { batch, rows, columns, inputs, outputs }
}

fn depth(shape: &Shape) -> usize {
    match shape.kind {
        Kind::Conv => shape.rows.kernel * shape.columns.kernel * shape.inputs / shape.groups,
        Kind::Depthwise => shape.rows.kernel * shape.columns.kernel,
        Kind::Dense => shape.inputs,
    }
}

/// Square root, rounded down.
fn root(x: usize) -> usize {
    (0..).take_while(|r| r * r <= x).last().unwrap_or(0)
}

/// Makes a layer of that shape with random constants and inputs; a `usual` one has shifts as networks have.
fn make<'a>(places: &mut Places<'a>, noise: &mut Noise, shape: &Shape, usual: bool) -> Case<'a> {
    let depth = depth(shape);
    let outputs = shape.outputs;
    let size = [127, 127, 60, 20][noise.below(4)] as i32;
    let flat = noise.one_of(40);
    let least = noise.one_of(12);
    let [from, to] = shape.types;
    let rows: &mut [i8] = cast(places.pool.take(outputs * depth));
    for weight in rows.iter_mut() {
        let random = noise.next() as i32 % (2 * size + 1) - size;
        *weight = if flat { 127 } else { random as i8 };
        if least && noise.below(4) == 0 {
            *weight = -128;
        }
    }
    let wide = from == DType::I16;
    let amplitude: usize = if wide { 9000 } else { 73 };
    let mut input_zero = if wide { 0 } else { noise.below(256) as i32 - 128 };
    let bias = places.words(Last::Nothing, outputs);
    let far = if noise.one_of(20) { 1 << 24 } else { 1 << 12 };
    bias.iter_mut().for_each(|bias| *bias = noise.next() as i32 % (2 * far) - far);
    // Sums of about this size come to about half of the output's range.
    let sum = (root(depth) + 1) * amplitude * (size as usize) / 2;
    let range = if to == DType::I16 { 12000 } else { 60 };
    let shift = (sum / range).max(1).ilog2() as i32;
    let odd = noise.one_of(25) && !usual;
    let (multiplier, shifts) = (places.words(Last::Multiplier, outputs), places.words(Last::Shift, outputs));
    for (multiplier, exponent) in multiplier.iter_mut().zip(shifts.iter_mut()) {
        *multiplier = (1 << 30) + (noise.next() << 1 & ((1 << 30) - 1)) as i32;
        *exponent = noise.below(3) as i32 - shift;
        if odd {
            *exponent = [0, 1, 3, -1, -2, -22, -31][noise.below(7)];
            *multiplier = [*multiplier, *multiplier, 0, i32::MAX, 1][noise.below(5)];
        }
    }
    let (least, most) = if to == DType::I16 { (-32768, 32767) } else { (-128, 127) };
    let mut output_zero = if to == DType::I16 { 0 } else { noise.below(256) as i32 - 128 };
    let [mut low, mut high] = match noise.below(4) {
        0 => [output_zero, most],
        1 => [output_zero, (output_zero + 90).min(most)],
        2 if to == DType::I16 && noise.one_of(3) => [-128, 127],
        2 => [least + 20, most - 30],
        _ => [least, most],
    };
    if noise.one_of(8) && !usual {
        // What a blob may hold at worst: results near both ends of 32 bits, where zero points and bounds at their ends make them wrap.
        if !wide {
            input_zero = noise.end(-128, 127);
        }
        if to != DType::I16 {
            output_zero = noise.end(least, most);
        }
        let bounds = [noise.end(least, most), [noise.end(least, most), output_zero][noise.below(2)]];
        (low, high) = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]));
        let greatest = [-1, 0, 30][noise.below(3)];
        for ((bias, multiplier), exponent) in bias.iter_mut().zip(&mut *multiplier).zip(&mut *shifts) {
            *bias = noise.end(i32::MIN, i32::MAX);
            *multiplier = noise.end(0, i32::MAX);
            *exponent = noise.end(-31, 30).min(greatest);
        }
    }
    let plain = Integer {
        weights: &*rows,
        packing: Packing::Rows,
        bias: &*bias,
        multiplier: &*multiplier,
        shift: &*shifts,
        input_zero: input_zero as i16,
        output_zero,
        low,
        high,
    };

    let linear = match shape.kind {
        Kind::Conv => Linear::Conv2d { window: window(shape), groups: shape.groups },
        Kind::Depthwise => Linear::DepthwiseConv2d { window: window(shape) },
        Kind::Dense => Linear::Dense { inputs: shape.inputs, outputs },
    };
    let mut request = Request {
        linear,
        input: from,
        output: to,
        packing: Packing::Rows,
        in_place: shape.in_place,
        constants: Constants::of(&plain),
    };
    let folded = places.words(Last::Nothing, outputs);
    let mut narrow = true;
    for o in 0..outputs {
        let (mut total, mut most) = (0i32, 0i32);
        for k in 0..depth {
            // Depthwise weights are `[taps][channels]`.
            let at = if shape.kind == Kind::Depthwise { k * outputs + o } else { o * depth + k };
            total += i32::from(plain.weights[at]);
            most += i32::from(plain.weights[at]).abs();
        }
        folded[o] = plain.bias[o].wrapping_sub(total.wrapping_mul(input_zero));
        narrow &= 128 * i64::from(most) + i64::from(folded[o]).abs() < 1 << 23;
        narrow &= request.constants.symmetric;
    }
    request.packing = match shape.winograd {
        true => Packing::Winograd,
        false => packing(<Backend as tucano::backend::Backend>::ISA, &request, narrow),
    };
    let stored_bias = places.words(Last::Bias, outputs);
    stored_bias.copy_from_slice(if request.packing == Packing::Rows { plain.bias } else { folded });
    let matrix = request.linear.matrix();
    let stored_bytes = match request.packing {
        Packing::Winograd => winograd::bytes(shape.inputs, outputs),
        order => matrix.and_then(|matrix| matrix.bytes(order)),
    };
    let stored: &mut [i8] = cast(places.take(Last::Weights, stored_bytes.unwrap_or(0), WEIGHTS_ALIGN));
    let stores = match request.packing {
        Packing::Winograd => winograd::pack(plain.weights, shape.inputs, outputs, stored),
        order => matrix.and_then(|matrix| matrix.pack(order, plain.weights, stored)),
    };
    if stores.is_none() {
        say!("error packing {:?}", request.packing);
        semihosting::exit(2);
    }
    let packed = Integer { weights: &*stored, packing: request.packing, bias: &*stored_bias, ..plain };
    let (rows_in, rows_out) = match shape.kind {
        Kind::Dense => (shape.batch, shape.batch),
        _ => (
            shape.batch * shape.rows.input * shape.columns.input,
            shape.batch * shape.rows.output * shape.columns.output,
        ),
    };
    let input_elements = rows_in * shape.inputs;
    let input = places.take(Last::Input, input_elements * from.bytes(), from.bytes());
    let extreme = noise.one_of(30);
    input.iter_mut().for_each(|byte| *byte = if extreme { 0x80 } else { noise.next() as u8 });
    Case {
        request,
        rows: rows_out,
        plain,
        packed,
        input,
        input_elements,
        output_elements: rows_out * outputs,
        macs: (rows_out * outputs * depth) as u64,
    }
}

/// Runs a layer on a backend; `output` holds the input if the layer runs in place.
fn run<B: tucano::backend::Backend>(
    backend: B,
    request: &Request,
    linear: &Integer<'_>,
    input: &mut [u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let narrow = [request.input, request.output] == [DType::I8, DType::I8];
    if narrow {
        let source: &[i8] = cast(input);
        let output: &mut [i8] = cast(output);
        let maybe = if request.in_place { None } else { Some(source) };
        return match &request.linear {
            Linear::Conv2d { window, .. } if request.packing == Packing::Winograd => {
                backend.winograd_conv2d_i8(window, linear, maybe, output, scratch)
            }
            Linear::Conv2d { window, groups } => {
                backend.conv2d_i8(window, *groups, linear, maybe, output, scratch)
            }
            Linear::DepthwiseConv2d { window } => {
                backend.depthwise_conv2d_i8(window, linear, maybe, output, scratch)
            }
            Linear::Dense { inputs, .. } => backend.dense_i8(*inputs, linear, source, output, scratch),
        };
    }
    let input = match request.input {
        DType::I16 => Integers::I16(cast(input)),
        _ => Integers::I8(cast(input)),
    };
    let output = match request.output {
        DType::I16 => IntegersMut::I16(cast(output)),
        _ => IntegersMut::I8(cast(output)),
    };
    match &request.linear {
        Linear::Conv2d { window, groups } => {
            backend.conv2d_i16(window, *groups, linear, input, output, scratch)
        }
        Linear::DepthwiseConv2d { window } => {
            backend.depthwise_conv2d_i16(window, linear, input, output, scratch)
        }
        Linear::Dense { inputs, .. } => backend.dense_i16(*inputs, linear, input, output, scratch),
    }
}

/// Tiles of the DSP extension that finish all outputs themselves, without the code that does so in parts and without portable code: for requests of which
/// [`has_parts`] says that they do.
#[cfg(has_thumb_dsp)]
fn tiles_alone(case: &Case<'_>) -> Option<impl tucano::backend::Backend + use<>> {
    #[derive(Clone, Copy)]
    struct Tiles;

    impl tucano::backend::Kernels for Tiles {
        const NAMES: Option<&'static [&'static str]> = Some(&[
            "pairs, pointwise",
            "pairs, words",
            "pairs, bytes",
            "plain, pointwise",
            "plain, words",
            "plain, bytes",
        ]);
    }

    let fits = <Backend as tucano::backend::Backend>::ISA == Isa::ThumbDsp
        && gemm::tile(&case.request).is_some()
        && !gemm::has_parts(&case.request, &case.packed);
    if fits { tucano::backend::ThumbDsp::<Tiles>::detect() } else { None }
}

/// There are none.
#[cfg(not(has_thumb_dsp))]
fn tiles_alone(_: &Case<'_>) -> Option<Backend> {
    None
}

/// Compares a backend's output with that of scalar code. Gives the kernel that ran.
fn compare(places: &mut Places<'_>, case: &mut Case<'_>) -> Result<Selection, &'static str> {
    let selection = select(<Backend as tucano::backend::Backend>::ISA, &case.request);
    let scratch_bytes = selection.scratch_bytes.max(least_scratch(&case.request));
    let output_bytes = case.output_elements * case.request.output.bytes();
    let mut scratch = places.guarded(Last::Scratch, scratch_bytes, ALIGN);
    let mut expected = places.pool.guarded(output_bytes);
    let mut found = places.guarded(Last::Output, output_bytes, case.request.output.bytes());
    if case.request.in_place {
        expected.inner().copy_from_slice(case.input);
    }
    let plain = Request { packing: Packing::Rows, ..case.request };
    let kept = least_scratch(&plain).min(scratch_bytes);
    run(Scalar, &plain, &case.plain, case.input, expected.inner(), &mut scratch.inner()[..kept])
        .ok_or("scalar code refuses the layer")?;
    let before = case.input.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
    let Some(backend) = backend() else { return Err("the core is not the backend's") };
    if let Some(tiles) = tiles_alone(case) {
        if case.request.in_place {
            found.inner().copy_from_slice(case.input);
        }
        let scratch = &mut scratch.inner()[..scratch_bytes];
        run(tiles, &case.request, &case.packed, case.input, found.inner(), scratch)
            .ok_or("a tile does not finish all outputs")?;
        if found.inner() != expected.inner() {
            return Err("the outputs of tiles alone differ");
        }
    }
    // As planned; with too little scratch; with weights in the operator's order.
    let ways = [
        (&case.request, &case.packed, scratch_bytes),
        (&case.request, &case.packed, kept),
        (&plain, &case.plain, kept),
    ];
    for (request, linear, bytes) in ways {
        scratch.inner().fill(0x5A);
        if case.request.in_place {
            found.inner().copy_from_slice(case.input);
        } else {
            found.inner().fill(0x5A);
        }
        run(backend, request, linear, case.input, found.inner(), &mut scratch.inner()[..bytes])
            .ok_or("the backend refuses the layer")?;
        let after = case.input.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
        if before != after {
            return Err("the input was written");
        }
        if !found.is_whole() || !scratch.is_whole() {
            return Err("bytes beside the output or the scratch were written");
        }
        if found.inner() != expected.inner() {
            let (found, expected) = (found.inner(), expected.inner());
            let at = found.iter().zip(&*expected).position(|(a, b)| a != b).unwrap_or(0);
            let (found, expected) = (found[at].cast_signed(), expected[at].cast_signed());
            say!(
                "byte {at} of {output_bytes} with {:?}, scratch {bytes}: {found}, not {expected}",
                request.packing
            );
            return Err("the outputs differ");
        }
    }
    Ok(selection)
}

fn describe(case: &Case<'_>, number: usize, seed: u32) {
    let Case { request, plain, .. } = case;
    say!(
        "case {number} seed {seed}: {request:?} rows {} zero points {} {} bounds {} {} shift {:?}",
        case.rows,
        plain.input_zero,
        plain.output_zero,
        plain.low,
        plain.high,
        plain.shift.first()
    );
}

/// How many cases each kernel had.
struct Tally {
    names: [&'static str; KERNELS],
    counts: [usize; KERNELS],
}

impl Tally {
    fn count(&mut self, name: &'static str) {
        let slot = self.names.iter().position(|known| known.is_empty() || *known == name);
        if let Some(slot) = slot {
            self.names[slot] = name;
            self.counts[slot] += 1;
        }
    }
}

/// Draws what lies at an end of memory, and at which of `ends`. Half of the cases have nothing there.
fn places<'a>(noise: &mut Noise, free: &'a mut [u8], ends: &[Edge]) -> Places<'a> {
    const LAST: [Last; 7] =
        [Last::Weights, Last::Bias, Last::Multiplier, Last::Shift, Last::Input, Last::Output, Last::Scratch];
    let (some, what, end) = (noise.one_of(2), LAST[noise.below(LAST.len())], noise.below(ends.len()));
    match ends.get(end) {
        Some(end) if some => {
            let (pool, memory) = end.beside(free);
            Places { pool: Pool(pool), last: what, end: Pool(memory) }
        }
        _ => Places { pool: Pool(free), last: Last::Nothing, end: Pool(&mut []) },
    }
}

/// Cases of each kind.
fn test(free: &mut [u8], ends: &[Edge], cases: usize, seed: u32) -> Result<(), ()> {
    let mut tally = Tally { names: [""; KERNELS], counts: [0; KERNELS] };
    let mut noise = Noise::new(seed);
    let (mut wrong, mut last) = (0, 0);
    for kind in [Kind::Conv, Kind::Depthwise, Kind::Dense] {
        for number in 0..cases {
            let state = noise.state;
            let mut places = places(&mut noise, free, ends);
            let shape = random_shape(&mut noise, kind);
            let mut case = make(&mut places, &mut noise, &shape, false);
            last += usize::from(places.last != Last::Nothing);
            match compare(&mut places, &mut case) {
                Ok(selection) => tally.count(selection.name),
                Err(reason) => {
                    describe(&case, number, state);
                    say!("wrong {reason}");
                    wrong += 1;
                    if wrong > 4 {
                        return Err(());
                    }
                }
            }
        }
    }
    for (name, count) in tally.names.iter().zip(tally.counts).filter(|(name, _)| !name.is_empty()) {
        say!("kernel {name} {count}");
    }
    say!("cases {}", 3 * cases);
    say!("last {last}");
    if wrong == 0 { Ok(()) } else { Err(()) }
}

fn measure(free: &mut [u8]) -> Result<(), ()> {
    for (name, shape) in known::known() {
        let mut noise = Noise::usual(0x2545_F491);
        let mut places = places(&mut noise, free, &[]);
        let mut case = make(&mut places, &mut noise, &shape, true);
        // As networks have them: an activation of the ReLU kind.
        for linear in [&mut case.plain, &mut case.packed] {
            (linear.output_zero, linear.low, linear.high) = match case.request.output {
                DType::I16 => (0, 0, 32767),
                _ if shape.linear => (3, -128, 127),
                _ => (-128, -128, 127),
            };
        }
        case.request.constants = Constants::of(&case.plain);
        let selection = compare(&mut places, &mut case).map_err(|reason| say!("wrong {name}: {reason}"))?;
        let scratch = places.pool.take(selection.scratch_bytes.max(least_scratch(&case.request)));
        let output = places.pool.take(case.output_elements * case.request.output.bytes());
        let Some(backend) = backend() else { return Err(()) };
        let before = counter::ticks();
        let result = run(backend, &case.request, &case.packed, case.input, output, scratch);
        let after = counter::ticks();
        let _ = (case.input_elements, result);
        say!("layer {name}|{}|{}|{}|{}", selection.name, scratch.len(), case.macs, after - before);
    }
    Ok(())
}

/// The stack, away from the end of RAM, where operands lie.
static mut STACK: [u64; STACK_WORDS] = [0; STACK_WORDS];
const STACK_WORDS: usize = 2048;

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
    say!("backend {}", <Backend as tucano::backend::Backend>::NAME);
    let mut words = [0; 12];
    let file = File::open(c"inputs");
    let (first, more) = words.split_at_mut(8);
    if !file.as_ref().is_some_and(|file| file.read(first)) {
        say!("error inputs: cannot be read");
        semihosting::exit(2);
    }
    if !file.is_some_and(|file| file.read(more)) {
        more.fill(0);
    }
    let word = |k: usize| u32::from_le_bytes([words[k], words[k + 1], words[k + 2], words[k + 3]]);
    let ends = Ends::find(free);
    ends.all().iter().for_each(|end| say!("end {:#x}", end.end()));
    if let Some(overrun) = word(8).checked_sub(1) {
        if let Some(end) = ends.all().get(overrun as usize / 2) {
            end.pass(overrun % 2 == 1);
        }
        say!("error no fault");
        semihosting::exit(2);
    }
    if test(free, ends.all(), word(0) as usize, word(4)).is_ok() && measure(free).is_ok() {
        say!("done");
        semihosting::exit(0);
    }
    semihosting::exit(2)
}

tucano_boards_qemu::ends!(probed);
