//! One body over all backends of this machine: chains of random layers, whose bits are those of portable code, in arenas that end at an unreadable page.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
use crate::backend::aarch64::available;
#[cfg(target_arch = "x86_64")]
use crate::backend::x86::available;
use crate::blob::{BlobBuilder, DType, Packing, Space, TensorRecord};
use crate::host::program::Program;
use crate::host::{Runner, backends};
use crate::ops::{OpCode, add, conv2d, dense, mean, pool2d, softmax};
use crate::quant::quantize_multiplier;

/// Reproducible numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    pub fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u32) as usize]
    }

    fn byte(&mut self) -> i32 {
        self.below(256) as i32 - 128
    }
}

/// Windows of a convolution: rows, then columns.
struct Windows {
    kernel: [u32; 2],
    stride: [u32; 2],
    dilation: [u32; 2],
    pads: [[u32; 2]; 2],
}

/// A chain of steps on integers, each in memory of its own.
struct Chain {
    /// Whether values may have 16 bits.
    wide: bool,
    builder: BlobBuilder,
    end: u32,
    steps: usize,
    last: (u16, TensorRecord),
}

impl Chain {
    fn new(random: &mut Random, shape: [u32; 4]) -> Self {
        let mut chain = Self {
            wide: false,
            builder: BlobBuilder::new(),
            end: 0,
            steps: 0,
            last: (0, record(random, shape)),
        };
        chain.last.0 = chain.place(chain.last.1);
        chain.builder.inputs(&[chain.last.0]);
        chain
    }

    fn place(&mut self, tensor: TensorRecord) -> u16 {
        let placed = TensorRecord { offset: self.end, ..tensor };
        self.end += (placed.bytes().unwrap() as u32).next_multiple_of(16);
        self.builder.tensor(placed)
    }

    fn step(
        &mut self,
        op: OpCode,
        inputs: &[u16],
        output: TensorRecord,
        weights: &[u16],
        parameters: &[u32],
    ) {
        let id = self.place(output);
        let name = format!("{op:?}");
        self.builder.step(&name, op, inputs, &[id], weights, parameters, (0, 0));
        self.last = (id, output);
        self.steps += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.builder.outputs(&[self.last.0]);
        self.builder.finish(self.end, 0, 16).unwrap()
    }

    /// Weights, biases and factors for sums of `depth` products, where inputs are of one type and outputs of the other.
    fn linear(
        &mut self,
        random: &mut Random,
        depth: usize,
        outputs: u32,
        [from, to]: [DType; 2],
    ) -> Vec<u16> {
        let outputs = outputs as usize;
        // Many converters make no -128, and kernels may know.
        let least = random.one_of(&[i8::MIN, -127]);
        let weight = |random: &mut Random| (random.next() as i8).max(least).cast_unsigned();
        let weights: Vec<u8> = (0..depth * outputs).map(|_| weight(random)).collect();
        // One layer in four accumulates modulo 2^32, one in four has odd shifts.
        let wild = random.below(4) == 0;
        let odd = random.below(4) == 0;
        let bias = |random: &mut Random| {
            if wild { random.next() as i32 } else { random.below(1 << 14) as i32 - (1 << 13) }
        };
        let biases: Vec<i32> = (0..outputs).map(|_| bias(random)).collect();
        let steps = |dtype: DType| if dtype == DType::I16 { 256.0 } else { 1.0 };
        let typical = 80.0 / (f64::from(depth as u32).sqrt() * 5400.0) * steps(to) / steps(from);
        let factors: Vec<(i32, i32)> = (0..outputs)
            .map(|_| {
                let factor = typical * (0.3 + f64::from(random.below(1000)) / 500.0);
                match (odd, random.below(3)) {
                    (true, 0) => (random.next() as i32 & i32::MAX, random.below(62) as i32 - 31),
                    (true, 1) => (0, random.below(62) as i32 - 31),
                    _ => quantize_multiplier(factor),
                }
            })
            .collect();
        let words = |values: Vec<i32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (multipliers, shifts) = factors.into_iter().unzip();
        let mut add = |dtype, bytes: &[u8]| self.builder.weight(dtype, Packing::Rows, bytes);
        vec![
            add(DType::I8, &weights),
            add(DType::I32, &words(biases)),
            add(DType::I32, &words(multipliers)),
            add(DType::I32, &words(shifts)),
        ]
    }

    /// The type of the output of a linear step.
    fn next_type(&self, random: &mut Random) -> DType {
        if self.wide { random.one_of(&[DType::I8, DType::I16, DType::I16]) } else { DType::I8 }
    }

    /// A convolution, depthwise with `multiplier` outputs an input, or else in groups with `outputs` channels. `false`: its window does not fit.
    fn convolution(&mut self, random: &mut Random, outputs: u32, multiplier: Option<u32>) -> bool {
        let kernel = random.one_of(&[[1, 1], [1, 1], [3, 3], [3, 3], [3, 1], [1, 5], [5, 5], [2, 2], [4, 7]]);
        let stride = random.one_of(&[[1, 1], [1, 1], [2, 2], [2, 1], [1, 3]]);
        let dilation = random.one_of(&[[1, 1], [1, 1], [1, 1], [2, 1], [1, 2]]);
        let pads = [0, 1].map(|axis: usize| {
            let most = kernel[axis];
            [random.below(most), random.below(most)]
        });
        self.windows(random, outputs, multiplier, Windows { kernel, stride, dilation, pads })
    }

    /// As [`Chain::convolution`], with windows that are given.
    fn windows(
        &mut self,
        random: &mut Random,
        outputs: u32,
        multiplier: Option<u32>,
        Windows { kernel, stride, dilation, pads }: Windows,
    ) -> bool {
        let (id, input) = self.last;
        let [batch, rows, columns, inputs] = input.shape;
        let extent = |axis: usize, input: u32| {
            let reach = (kernel[axis] - 1) * dilation[axis] + 1;
            (input + pads[axis][0] + pads[axis][1]).checked_sub(reach).map(|free| free / stride[axis] + 1)
        };
        let (Some(out_rows), Some(out_columns)) = (extent(0, rows), extent(1, columns)) else { return false };
        let groups = match multiplier {
            Some(_) => inputs,
            None if inputs.is_multiple_of(2) && outputs.is_multiple_of(2) && random.below(5) == 0 => 2,
            None => 1,
        };
        let outputs = multiplier.map_or(outputs, |multiplier| inputs * multiplier);
        let depth = kernel[0] * kernel[1] * inputs / groups;
        let dtype = self.next_type(random);
        let weights = self.linear(random, depth as usize, outputs, [input.dtype, dtype]);
        let (output, [low, high]) = bounded(random, dtype, [batch, out_rows, out_columns, outputs]);
        let parameters = conv2d::Parameters {
            stride_h: stride[0],
            stride_w: stride[1],
            pad_top: pads[0][0],
            pad_left: pads[1][0],
            pad_bottom: pads[0][1],
            pad_right: pads[1][1],
            dilation_h: dilation[0],
            dilation_w: dilation[1],
            kernel_h: kernel[0],
            kernel_w: kernel[1],
            groups,
            act_min: low as u32,
            act_max: high as u32,
        };
        let op = match ([input.dtype, dtype] == [DType::I8; 2], multiplier.is_some()) {
            (true, true) => OpCode::DepthwiseConv2dI8,
            (true, false) => OpCode::Conv2dI8,
            (false, true) => OpCode::DepthwiseConv2dI16,
            (false, false) => OpCode::Conv2dI16,
        };
        self.step(op, &[id], output, &weights, &parameters.emit());
        true
    }

    fn dense(&mut self, random: &mut Random, outputs: u32) {
        let (id, input) = self.last;
        let mut shape = input.shape;
        let axis = usize::from(input.rank) - 1;
        let dtype = self.next_type(random);
        let weights = self.linear(random, shape[axis] as usize, outputs, [input.dtype, dtype]);
        shape[axis] = outputs;
        let (output, [low, high]) = bounded(random, dtype, shape);
        let output = TensorRecord { rank: input.rank, ..output };
        let parameters = dense::Parameters { act_min: low as u32, act_max: high as u32 };
        let op = if [input.dtype, dtype] == [DType::I8; 2] { OpCode::DenseI8 } else { OpCode::DenseI16 };
        self.step(op, &[id], output, &weights, &parameters.emit());
    }

    /// Adds the input of the last convolution, or the value itself.
    fn sum(&mut self, random: &mut Random) {
        let (id, input) = self.last;
        let (output, [low, high]) = bounded(random, DType::I8, input.shape);
        let mut factor = || quantize_multiplier(0.1 + f64::from(random.below(1000)) / 1000.0 * 0.4);
        let ((multiplier_1, shift_1), (multiplier_2, shift_2)) = (factor(), factor());
        let (output_multiplier, output_shift) =
            quantize_multiplier((0.3 + f64::from(random.below(1000)) / 500.0) / f64::from(1 << 20));
        let parameters = add::IntegerParameters {
            left_shift: 20,
            multiplier_1,
            shift_1,
            multiplier_2,
            shift_2,
            output_multiplier,
            output_shift,
            act_min: low,
            act_max: high,
        };
        self.step(OpCode::AddI8, &[id, id], output, &[], &parameters.emit());
    }

    fn mean(&mut self, random: &mut Random) {
        let (id, input) = self.last;
        let [batch, rows, columns, channels] = input.shape;
        let (output, [low, high]) = bounded(random, DType::I8, [batch, 1, 1, channels]);
        let (multiplier, shift) = quantize_multiplier(1.3 / f64::from(rows * columns));
        let parameters = mean::Parameters { multiplier, shift, act_min: low, act_max: high };
        if parameters.fits(rows * columns) {
            self.step(OpCode::Mean2dI8, &[id], output, &[], &parameters.emit());
        }
    }

    fn pool(&mut self, random: &mut Random, op: OpCode) {
        let (id, input) = self.last;
        let [batch, rows, columns, channels] = input.shape;
        let kernel = random.one_of(&[[2, 2], [3, 3], [1, 2], [6, 5]]);
        let pad = random.below(2).min(kernel[0] - 1);
        if rows + 2 * pad < kernel[0] || columns < kernel[1] {
            return;
        }
        let shape = [batch, (rows + 2 * pad - kernel[0]) / 2 + 1, columns - kernel[1] + 1, channels];
        let (_, [low, high]) = bounded(random, DType::I8, shape);
        let output = TensorRecord { shape, ..input };
        let parameters = pool2d::Parameters {
            stride_h: 2,
            stride_w: 1,
            pad_top: pad,
            pad_left: 0,
            pad_bottom: pad,
            pad_right: 0,
            kernel_h: kernel[0],
            kernel_w: kernel[1],
            count_include_pad: random.below(2),
            act_min: low as u32,
            act_max: high as u32,
        };
        self.step(op, &[id], output, &[], &parameters.emit());
    }

    /// The last step: no other takes its output's zero point.
    fn softmax(&mut self, random: &mut Random) {
        let (id, input) = self.last;
        let (multiplier, left_shift) = quantize_multiplier(f64::from(1 + random.below(1 << 26)));
        let diff_min = -((31i64 << 26 >> left_shift) as i32);
        let parameters = softmax::Parameters { multiplier, left_shift, diff_min };
        let (op, dtype, scale, zero_point) = random.one_of(&[
            (OpCode::SoftmaxI8, DType::I8, 1f32 / 256.0, -128),
            (OpCode::SoftmaxI16, DType::I16, 1f32 / 65536.0, -32768),
        ]);
        let output = TensorRecord { dtype, scale_bits: scale.to_bits(), zero_point, ..input };
        self.step(op, &[id], output, &[], &parameters.emit());
    }

    fn table(&mut self, random: &mut Random) {
        let (id, input) = self.last;
        let bytes: Vec<u8> = (0..256).map(|_| random.next() as u8).collect();
        let table = self.builder.weight(DType::I8, Packing::Rows, &bytes);
        self.step(OpCode::TableI8, &[id], record(random, input.shape), &[table], &[]);
    }
}

fn record(random: &mut Random, shape: [u32; 4]) -> TensorRecord {
    TensorRecord {
        space: Space::Arena,
        dtype: DType::I8,
        rank: 4,
        shape,
        offset: 0,
        window_rows: 0,
        slack: 0,
        scale_bits: 1f32.to_bits(),
        zero_point: random.byte(),
    }
}

/// An output, and bounds: all of the type, from the zero point on, or any.
fn bounded(random: &mut Random, dtype: DType, shape: [u32; 4]) -> (TensorRecord, [i32; 2]) {
    let output = record(random, shape);
    let (output, bits) = match dtype {
        DType::I16 => (TensorRecord { dtype, zero_point: 0, ..output }, 8),
        _ => (output, 0),
    };
    let [least, most] = [-128 << bits, (128 << bits) - 1];
    let bounds = match random.below(4) {
        0 | 1 => [least, most],
        2 => [output.zero_point, most],
        _ => {
            let (a, b) = (random.byte() << bits, random.byte() << bits);
            [a.min(b), a.max(b)]
        }
    };
    (output, bounds)
}

/// Memory that ends where no more is readable.
pub struct Guarded {
    pages: *mut libc::c_void,
    length: usize,
    bytes: usize,
}

impl Guarded {
    const PAGE: usize = 4096;

    /// `bytes` a multiple of 64.
    pub fn new(bytes: usize) -> Self {
        let length = bytes.next_multiple_of(Self::PAGE) + Self::PAGE;
        // SAFETY: new pages, of which the last is then closed.
        let pages = unsafe {
            let pages = libc::mmap(
                core::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages.byte_add(length - Self::PAGE), Self::PAGE, libc::PROT_NONE), 0);
            pages
        };
        Self { pages, length, bytes }
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes before the closed page, which nothing else refers to.
        unsafe {
            let end = self.pages.byte_add(self.length - Self::PAGE).cast::<u8>();
            core::slice::from_raw_parts_mut(end.sub(self.bytes), self.bytes)
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped.
        unsafe { libc::munmap(self.pages, self.length) };
    }
}

/// Compares all backends on noise: through runners, and in an arena at an unreadable page. Gives the kernels that ran.
fn compare(blob: &[u8], random: &mut Random, what: &str) -> Vec<&'static str> {
    // An address that is no multiple of anything.
    let mut unaligned = vec![0];
    unaligned.extend_from_slice(blob);
    let mut portable = Runner::with_backend(&unaligned[1..], "scalar").unwrap();
    let bytes = portable.inputs()[0].elements();
    let inputs: Vec<Vec<u8>> = (0..2).map(|_| (0..bytes).map(|_| random.next() as u8).collect()).collect();
    let expected: Vec<_> = inputs.iter().map(|input| portable.run_raw(&[input]).unwrap()).collect();
    let mut kernels = Vec::new();
    for name in backends() {
        let mut runner = Runner::with_backend(&unaligned[1..], name).unwrap();
        assert_eq!(runner.backend(), name);
        for (input, expected) in inputs.iter().zip(&expected) {
            assert_eq!(&runner.run_raw(&[input]).unwrap(), expected, "{name}: {what}");
        }
    }
    let model = portable.model();
    for set in available() {
        let program = Program::new(&model, set).unwrap();
        let fresh = program.arena();
        let mut guarded = Guarded::new(fresh.get().len());
        let arena = guarded.get_mut();
        arena.copy_from_slice(fresh.get());
        for (input, expected) in inputs.iter().zip(&expected) {
            arena[program.input(0).unwrap()].copy_from_slice(input);
            program.run_each(arena, &mut [], &mut |_, kernel| kernels.push(kernel)).unwrap();
            assert_eq!(arena[program.output(0).unwrap()], expected[0], "{} at a page: {what}", set.name());
        }
    }
    kernels
}

/// A chain of up to four layers over a random image; `wide`: with values of 16 bits.
fn chain(seed: u64, channels: [u32; 2], wide: bool) -> (Vec<u8>, String) {
    let mut random = Random(seed);
    let shape = [1 + random.below(4) / 3, 1 + random.below(13), 1 + random.below(13), channels[0]];
    let mut chain = Chain::new(&mut random, shape);
    chain.wide = wide;
    let mut what = format!("seed {seed}: {shape:?}");
    while chain.steps == 0 {
        for _ in 0..1 + random.below(4) {
            // What comes last takes 8 bits alone.
            let last = chain.last.1.dtype;
            match random.below(if last == DType::I8 { 12 } else { 8 }) {
                0..=3 => {
                    chain.convolution(&mut random, channels[1], None);
                }
                4..=6 => {
                    let multiplier = if random.below(4) == 0 { 2 } else { 1 };
                    chain.convolution(&mut random, 0, Some(multiplier));
                }
                7 => chain.dense(&mut random, channels[1]),
                8 => chain.sum(&mut random),
                9 => chain.mean(&mut random),
                10 => {
                    let op = random.one_of(&[OpCode::MaxPool2dI8, OpCode::AveragePool2dI8]);
                    chain.pool(&mut random, op);
                }
                _ => chain.table(&mut random),
            }
            let (_, tensor) = &chain.last;
            what += &format!(" {:?} {:?}", tensor.dtype, tensor.shape);
        }
    }
    if chain.last.1.dtype == DType::I8 && random.below(3) == 0 {
        chain.softmax(&mut random);
        what += " softmax";
    }
    (chain.finish(), what)
}

/// What the processor says, by other words than those of the code.
#[cfg(target_arch = "x86_64")]
fn expected() -> Vec<&'static str> {
    let mut expected = Vec::new();
    if std::arch::is_x86_feature_detected!("avx512vnni") && std::arch::is_x86_feature_detected!("avx512bw") {
        expected.push("x86-avx512-vnni");
    }
    let there = [
        std::arch::is_x86_feature_detected!("avx2"),
        std::arch::is_x86_feature_detected!("fma"),
        std::arch::is_x86_feature_detected!("f16c"),
    ];
    if there == [true; 3] && std::arch::is_x86_feature_detected!("avx512f") {
        expected.push("x86-avx512");
    }
    if there == [true; 3] {
        expected.push("x86-avx2");
    }
    expected
}

/// See above.
#[cfg(target_arch = "aarch64")]
fn expected() -> Vec<&'static str> {
    let dot = std::arch::is_aarch64_feature_detected!("dotprod");
    let first = if dot { Some("aarch64-neon-dotprod") } else { None };
    first.into_iter().chain(["aarch64-neon"]).collect()
}

#[test]
fn expected_backends_run() {
    println!("backends: {}", backends().join(", "));
    let mut expected = expected();
    expected.push("scalar");
    assert_eq!(backends(), expected);
}

#[test]
fn random_chains_have_the_bits_of_portable_code() {
    let mut kernels = std::collections::BTreeMap::<&str, usize>::new();
    for channels in 1..=67u32 {
        for case in 0..6 {
            let mut random = Random(u64::from(channels) << 8 | case);
            let other = random.one_of(&[1, 8, 16, 17, 32, 48, 64, 67, 80, 130]);
            let pair = if case % 2 == 0 { [channels, other] } else { [other, channels] };
            let (blob, what) = chain(u64::from(channels) << 16 | case, pair, false);
            for kernel in compare(&blob, &mut random, &what) {
                *kernels.entry(kernel).or_default() += 1;
            }
        }
    }
    println!("{kernels:?}");
    let common = ["conv2d_i8", "depthwise_conv2d_i8", "add_i8", "max_pool2d_i8", "convert"];
    #[cfg(target_arch = "x86_64")]
    let own = ["average_pool2d_i8", "table_i8", "softmax_i8", "softmax_i16"];
    #[cfg(not(target_arch = "x86_64"))]
    let own = ["scalar"];
    for kernel in common.into_iter().chain(own) {
        assert!(kernels.get(kernel).is_some_and(|&count| count > 20), "{kernel} ran too seldom: {kernels:?}");
    }
}

#[test]
fn random_chains_of_16_bits_have_the_bits_of_portable_code() {
    let mut kernels = std::collections::BTreeMap::<&str, usize>::new();
    for channels in 1..=67u32 {
        for case in 0..6 {
            let mut random = Random(u64::from(channels) << 9 | case);
            let other = random.one_of(&[1, 8, 16, 17, 32, 48, 64, 67, 80, 130]);
            let pair = if case % 2 == 0 { [channels, other] } else { [other, channels] };
            let (blob, what) = chain(u64::from(channels) << 24 | case, pair, true);
            for kernel in compare(&blob, &mut random, &what) {
                *kernels.entry(kernel).or_default() += 1;
            }
        }
    }
    println!("{kernels:?}");
    #[cfg(target_arch = "x86_64")]
    for kernel in ["conv2d_i16", "depthwise_conv2d_i16"] {
        assert!(
            kernels.get(kernel).is_some_and(|&count| count > 100),
            "{kernel} ran too seldom: {kernels:?}"
        );
    }
}

#[test]
fn depthwise_windows_of_all_widths() {
    for channels in [4, 8, 12, 16, 24, 32, 48, 63, 64, 65, 67, 128, 130] {
        for width in 1..=67u32 {
            let mut random = Random(u64::from(channels) << 8 | u64::from(width));
            // Wide images are short, and rare where they hold much.
            if width * channels > 1200 && width % 7 != 0 {
                continue;
            }
            let shape = [1 + width % 2, 1 + random.below(5), width, channels];
            let mut chain = Chain::new(&mut random, shape);
            for stride in [[1, 1], [2, 2], [1, 1]] {
                let pads = [0, 1].map(|_| [1, 1 + random.below(2)]);
                let dilation = [1 + random.below(8) / 7, 1];
                let windows = Windows { kernel: [3, 3], stride, dilation, pads };
                chain.windows(&mut random, 0, Some(1), windows);
            }
            let what = format!("{shape:?}, {} steps", chain.steps);
            assert!(chain.steps > 0, "{what}");
            let kernels = compare(&chain.finish(), &mut random, &what);
            assert!(kernels.contains(&"depthwise_conv2d_i8"), "{what}: {kernels:?}");
        }
    }
}

#[test]
fn unknown_backends_are_refused() {
    let (blob, _) = chain(1, [3, 4], false);
    let error = Runner::with_backend(&blob, "x86-none").unwrap_err().to_string();
    assert!(backends().iter().all(|name| error.contains(name)), "{error}");
}
