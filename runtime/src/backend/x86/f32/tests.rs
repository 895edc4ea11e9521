//! Random layers on every width against sums in `f64`, in buffers that end at an unreadable page.

use super::*;
use crate::backend::{Backend, Scalar};
use crate::ops::linear::Float;
use crate::ops::window::{Axis, Window};

/// Numbers of a linear congruential generator.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }

    pub fn float(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Floats between two unreadable pages, the last of them at the end of a page.
pub(super) struct Guarded {
    map: *mut u8,
    bytes: usize,
    start: *mut f32,
    length: usize,
}

impl Guarded {
    const PAGE: usize = 4096;

    pub fn new(values: &[f32]) -> Self {
        let inner = (values.len() * 4).next_multiple_of(Self::PAGE);
        let bytes = inner + 2 * Self::PAGE;
        // SAFETY: new pages, of which the first and the last are then closed.
        let map = unsafe {
            let map = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(map, Self::PAGE, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(map.byte_add(bytes - Self::PAGE), Self::PAGE, libc::PROT_NONE), 0);
            map.cast::<u8>()
        };
        let start = map.wrapping_add(bytes - Self::PAGE - values.len() * 4).cast();
        let mut guarded = Self { map, bytes, start, length: values.len() };
        guarded.get_mut().copy_from_slice(values);
        guarded
    }

    pub fn get(&self) -> &[f32] {
        // SAFETY: the mapping's inner pages, zeroed by the system, which live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and nothing else points there.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing uses any more.
        unsafe { libc::munmap(self.map.cast(), self.bytes) };
    }
}

/// The widths of this machine. A width that the processor has and the list lacks would fail here, and so does a machine without AVX2.
pub(super) fn widths() -> Vec<(&'static str, Width)> {
    let all = [("x86-avx2", Width::avx2()), ("x86-avx512", Width::avx512())];
    let there: Vec<_> = all.into_iter().filter_map(|(name, width)| Some((name, width?))).collect();
    println!("backends: {:?}", there.iter().map(|(name, _)| name).collect::<Vec<_>>());
    assert!(!there.is_empty(), "no AVX2");
    there
}

pub(super) fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, pads: [usize; 2]) -> Axis {
    let reach = (kernel - 1) * dilation + 1;
    let output = (input + pads[0] + pads[1] - reach) / stride + 1;
    Axis { input, output, kernel, stride, dilation, pad: pads[0] }
}

/// Images with a border: where they lie, and floats of all.
pub(super) fn place(random: &mut Random, window: &Window, border: bool, loose: usize) -> (Place, usize) {
    let Window { rows, columns, .. } = window;
    let [before, along] = if border { [rows.pad, columns.pad] } else { [0; 2] };
    let reach = |axis: &Axis| (axis.output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
    let (height, width, channels) = if border {
        (
            reach(rows).max(rows.pad + rows.input),
            reach(columns).max(columns.pad + columns.input),
            window.inputs,
        )
    } else {
        (rows.output, columns.output, window.outputs)
    };
    let pixel = channels + random.below(loose);
    let row = width * pixel + random.below(loose);
    let image = height * row + random.below(loose);
    let place = Place { start: before * row + along * pixel, pixel, row, image };
    let end = (window.batch - 1) * image + (height - 1) * row + (width - 1) * pixel + channels;
    (place, end)
}

/// Spreads plain images over a buffer.
pub(super) fn spread(
    plain: &[f32],
    [rows, columns, channels]: [usize; 3],
    place: &Place,
    buffer: &mut [f32],
) {
    for (index, &value) in plain.iter().enumerate() {
        let (pixel, channel) = (index / channels, index % channels);
        let (line, column) = (pixel / columns, pixel % columns);
        let (image, row) = (line / rows, line % rows);
        buffer[place.start + image * place.image + row * place.row + column * place.pixel + channel] = value;
    }
}

/// Compares what a layer wrote with sums and the sums of their magnitudes, and that it wrote nothing else.
pub(super) fn compare(
    what: &str,
    buffer: &[f32],
    untouched: f32,
    expected: &[(f64, f64)],
    shape: [usize; 3],
    place: &Place,
    tolerance: f64,
) {
    let sums: Vec<f32> = expected.iter().map(|&(sum, _)| sum as f32).collect();
    let sizes: Vec<f32> = expected.iter().map(|&(_, size)| size as f32).collect();
    let (mut wanted, mut allowed) = (vec![untouched; buffer.len()], vec![0.0; buffer.len()]);
    spread(&sums, shape, place, &mut wanted);
    spread(&sizes, shape, place, &mut allowed);
    for (at, ((&got, &want), &size)) in buffer.iter().zip(&wanted).zip(&allowed).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        assert!(error <= tolerance * f64::from(size), "{what}: float {at} is {got}, not {want}");
    }
}

/// A convolution, and what it should give.
pub(super) struct Case {
    window: Window,
    groups: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    bounds: [f32; 2],
    input: Vec<f32>,
}

impl Case {
    pub fn new(random: &mut Random, window: Window, groups: usize) -> Self {
        let Window { batch, rows, columns, inputs, outputs } = window;
        let weights = random.floats(outputs * rows.kernel * columns.kernel * inputs / groups);
        let bias = random.floats(outputs);
        let bounds =
            [[0.0, f32::INFINITY], [-0.5, 0.75], [f32::NEG_INFINITY, f32::INFINITY]][random.below(3)];
        let input = random.floats(batch * rows.input * columns.input * inputs);
        Self { window, groups, weights, bias, bounds, input }
    }

    pub fn linear(&self) -> Float<'_> {
        Float { weights: &self.weights, bias: &self.bias, low: self.bounds[0], high: self.bounds[1] }
    }

    /// Each output, and the sum of the magnitudes behind it.
    fn expected(&self) -> Vec<(f64, f64)> {
        self.sums(false)
    }

    /// As [`Case::expected`]; for minimal filtering along rows, which rounds sums of a row's inputs times sums of its weights, with the magnitude of
    /// each input times all weights of the row.
    fn sums(&self, minimal: bool) -> Vec<(f64, f64)> {
        let Window { batch, rows, columns, inputs, outputs } = self.window;
        let (group_inputs, group_outputs) = (inputs / self.groups, outputs / self.groups);
        let mut expected = Vec::new();
        for image in 0..batch {
            for row in 0..rows.output {
                for column in 0..columns.output {
                    for channel in 0..outputs {
                        let mut sum = f64::from(self.bias[channel]);
                        let mut size = sum.abs();
                        for tap in 0..rows.kernel * columns.kernel {
                            let y = rows.position(row, tap / columns.kernel);
                            let x = columns.position(column, tap % columns.kernel);
                            let (Some(y), Some(x)) = (y, x) else { continue };
                            for k in 0..group_inputs {
                                let from = channel / group_outputs * group_inputs + k;
                                let pixel = (image * rows.input + y) * columns.input + x;
                                let taps = rows.kernel * columns.kernel;
                                let weight = |tap: usize| {
                                    f64::from(self.weights[(channel * taps + tap) * group_inputs + k])
                                };
                                let input = f64::from(self.input[pixel * inputs + from]);
                                sum += input * weight(tap);
                                let first = tap - tap % columns.kernel;
                                let together =
                                    if minimal { first..first + columns.kernel } else { tap..tap + 1 };
                                size += input.abs() * together.map(|tap| weight(tap).abs()).sum::<f64>();
                            }
                        }
                        expected.push((sum.clamp(self.bounds[0].into(), self.bounds[1].into()), size));
                    }
                }
            }
        }
        expected
    }

    fn check(&self, random: &mut Random, loose: usize) {
        let Window { rows, columns, inputs, outputs, .. } = self.window;
        let expected = self.expected();
        let (from, read) = place(random, &self.window, true, loose);
        let (to, written) = place(random, &self.window, false, loose);
        let mut input = vec![0.0; read];
        spread(&self.input, [rows.input, columns.input, inputs], &from, &mut input);
        for (name, width) in widths() {
            let layer = Conv2d::new(width, &self.window, self.groups, &self.linear(), &from, &to).unwrap();
            let input = Guarded::new(&input[..layer.reach[0]]);
            let mut output = Guarded::new(&vec![77.0; written]);
            layer.run(input.get(), output.get_mut()).unwrap();
            let what = format!("{name} {:?}", self.window);
            compare(&what, output.get(), 77.0, &expected, [rows.output, columns.output, outputs], &to, 1e-6);
            let mut short = vec![0.0; written - 1];
            assert_eq!(layer.run(input.get(), &mut short), None);
            assert_eq!(layer.run(&input.get()[..layer.reach[0] - 1], output.get_mut()), None);
        }
    }
}

#[test]
fn convolutions_of_all_channel_counts() {
    let mut random = Random(1);
    for channels in 1..=67 {
        let other = 1 + random.below(67);
        for [inputs, outputs] in [[channels, other], [other, channels]] {
            let window = Window {
                batch: 1,
                rows: axis(3, 1, 1, 1, [0, 0]),
                columns: axis(1 + channels % 9, 1, 1, 1, [0, 0]),
                inputs,
                outputs,
            };
            Case::new(&mut random, window, 1).check(&mut random, 1);
        }
    }
}

#[test]
fn convolutions_of_all_widths() {
    let mut random = Random(2);
    for columns in 1..=67 {
        for outputs in [16, 24, 48, 64] {
            let window = Window {
                batch: 1,
                rows: axis(2, 2, 1, 1, [0, 1]),
                columns: axis(columns, 3, 1, 1, [1, 1]),
                inputs: 3,
                outputs,
            };
            Case::new(&mut random, window, 1).check(&mut random, 1);
        }
    }
}

#[test]
fn random_convolutions() {
    let mut random = Random(3);
    for _ in 0..300 {
        let mut pick = |limit: usize| 1 + random.below(limit);
        let groups = [1, 1, 1, 2, 3][pick(5) - 1];
        let (kernel_h, kernel_w) = (pick(5), pick(5));
        let (dilation_h, dilation_w) = ([1, 1, 2][pick(3) - 1], [1, 1, 2][pick(3) - 1]);
        let (stride_h, stride_w) = (pick(3), pick(3));
        let mut pad = || [pick(3) - 1, pick(3) - 1];
        let (pad_h, pad_w) = (pad(), pad());
        let (height, width) = (kernel_h * dilation_h + pick(6), kernel_w * dilation_w + pick(20));
        let window = Window {
            batch: pick(2),
            rows: axis(height, kernel_h, stride_h, dilation_h, pad_h),
            columns: axis(width, kernel_w, stride_w, dilation_w, pad_w),
            inputs: groups * pick(9),
            outputs: groups * pick(40),
        };
        let loose = 1 + random.below(2) * 5;
        Case::new(&mut random, window, groups).check(&mut random, loose);
    }
}

#[test]
fn convolutions_by_minimal_filtering() {
    let mut random = Random(9);
    for case in 0..134 {
        let channels = 1 + case % 67;
        let mut pick = |limit: usize| 1 + random.below(limit);
        let mut pad = || [pick(3) - 1, pick(3) - 1];
        let (pad_h, pad_w) = (pad(), pad());
        let (height, width, other, batch) = (2 + pick(12), 2 + pick(30), pick(67), pick(2));
        let [inputs, outputs] = if case < 67 { [channels, other] } else { [other, channels] };
        let window = Window {
            batch,
            rows: axis(height, 3, 1, 1, pad_h),
            columns: axis(width, 3, 1, 1, pad_w),
            inputs,
            outputs,
        };
        let loose = 1 + random.below(2) * 5;
        let case = Case::new(&mut random, window, 1);
        let Window { rows, columns, .. } = window;
        // Tiles reach one row and column further where an extent is odd.
        let even = |axis: &Axis| Axis { output: axis.output.next_multiple_of(2), ..*axis };
        let tiles = Window { rows: even(&rows), columns: even(&columns), ..window };
        let (from, read) = place(&mut random, &tiles, true, loose);
        let (to, written) = place(&mut random, &window, false, loose);
        let mut input = vec![0.0; read];
        spread(&case.input, [rows.input, columns.input, inputs], &from, &mut input);
        for (name, width) in widths() {
            let layer = Winograd::new(width, &window, &case.linear(), &from, &to).unwrap();
            let input = Guarded::new(&input[..layer.reach[0]]);
            let mut output = Guarded::new(&vec![77.0; written]);
            let mut scratch = Guarded::new(&vec![f32::NAN; layer.scratch()]);
            layer.run(input.get(), output.get_mut(), scratch.get_mut()).unwrap();
            let what = format!("{name} {window:?}");
            let shape = [rows.output, columns.output, outputs];
            compare(&what, output.get(), 77.0, &case.expected(), shape, &to, 2e-6);
            let short = &mut scratch.get_mut()[1..];
            assert_eq!(layer.run(input.get(), output.get_mut(), short), None);
            let short = &input.get()[..layer.reach[0] - 1];
            assert_eq!(layer.run(short, output.get_mut(), scratch.get_mut()), None);
        }
    }
}

#[test]
fn depthwise_convolutions() {
    let mut random = Random(5);
    for case in 0..268 {
        let channels = 1 + case % 67;
        let mut pick = |limit: usize| 1 + random.below(limit);
        let three = pick(2) == 1;
        let (kernel_h, kernel_w) = if three { (3, 3) } else { (pick(5), pick(5)) };
        let (dilation_h, dilation_w) = (pick(2), pick(2));
        let (stride_h, stride_w) = (pick(2), pick(2));
        let mut pad = || [pick(3) - 1, pick(3) - 1];
        let (pad_h, pad_w) = (pad(), pad());
        let (height, width) = (kernel_h * dilation_h + pick(4), kernel_w * dilation_w + pick(20));
        let window = Window {
            batch: pick(2),
            rows: axis(height, kernel_h, stride_h, dilation_h, pad_h),
            columns: axis(width, kernel_w, stride_w, dilation_w, pad_w),
            inputs: channels,
            outputs: channels,
        };
        depthwise(&mut random, window, false);
    }
}

/// Windows whose rows of inputs are read once: few and many rows, even and odd numbers of registers, padding and none.
#[test]
fn depthwise_windows_of_three_by_three() {
    let mut random = Random(9);
    for case in 0..200 {
        let channels = if case % 2 == 0 { 16 * (1 + case / 2 % 5) } else { 1 + case / 2 % 80 };
        let mut axis = |most: usize| {
            let pads = [random.below(3), random.below(3)];
            axis(3 + random.below(most), 3, 1, 1, pads)
        };
        let (rows, columns) = (axis(4), axis(8));
        let window = Window { batch: 1 + case % 2, rows, columns, inputs: channels, outputs: channels };
        depthwise(&mut random, window, true);
    }
}

/// Compares a depthwise layer with what it should give; `three`: of windows that may go through minimal filtering.
fn depthwise(random: &mut Random, window: Window, three: bool) {
    let channels = window.inputs;
    let loose = 1 + random.below(2) * 5;
    // As a convolution in groups of one channel, whose weights have the taps innermost.
    let case = Case::new(random, window, channels);
    let taps = window.rows.kernel * window.columns.kernel;
    let weights: Vec<f32> =
        (0..taps * channels).map(|at| case.weights[at % channels * taps + at / channels]).collect();
    let linear = Float { weights: &weights, ..case.linear() };
    let Window { rows, columns, .. } = window;
    let (from, read) = place(random, &window, true, loose);
    let (to, written) = place(random, &window, false, loose);
    let mut input = vec![0.0; read];
    spread(&case.input, [rows.input, columns.input, channels], &from, &mut input);
    for (name, width) in widths() {
        let layer = DepthwiseConv2d::new(width, &window, &linear, &from, &to).unwrap();
        let input = Guarded::new(&input[..layer.reach[0]]);
        let mut output = Guarded::new(&vec![77.0; written]);
        layer.run(input.get(), output.get_mut()).unwrap();
        let what = format!("{name} {window:?}");
        let shape = [rows.output, columns.output, channels];
        let minimal = three && channels.is_multiple_of(16) && name == "x86-avx512";
        compare(&what, output.get(), 77.0, &case.sums(minimal), shape, &to, 1e-6);
        assert_eq!(layer.run(input.get(), &mut vec![0.0; written - 1]), None);
        assert_eq!(layer.run(&input.get()[..layer.reach[0] - 1], output.get_mut()), None);
    }
}

/// Binary16 of a float by its definition: the nearest of the values that it has, at a tie the one with even bits.
fn half(value: f32) -> u16 {
    let distance = |bits: u16| (f64::from(single(bits)) - f64::from(value)).abs();
    (0..0x7C00u16)
        .flat_map(|bits| [bits, bits | 0x8000])
        .min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a % 2).cmp(&(b % 2))))
        .unwrap()
}

fn single(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3FF));
    let size = if exponent == 0 {
        fraction * 2f32.powi(-24)
    } else {
        (1024.0 + fraction) * 2f32.powi(exponent - 25)
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[test]
fn dense_layers_of_both_weights() {
    let mut random = Random(6);
    let values: Vec<u16> = random.floats(64).into_iter().map(half).collect();
    for length in 1..=67 {
        for (inputs, outputs) in [(length, 1 + random.below(300)), (1 + random.below(200), length)] {
            let rows = 1 + random.below(2);
            let bits: Vec<u16> = (0..inputs * outputs).map(|_| values[random.below(64)]).collect();
            let weights: Vec<f32> = bits.iter().map(|&bits| single(bits)).collect();
            let (bias, input) = (random.floats(outputs), random.floats(rows * inputs));
            let bounds = [-0.5, 1.5];
            let expected: Vec<(f64, f64)> = (0..rows * outputs)
                .map(|at| {
                    let (row, channel) = (at / outputs, at % outputs);
                    let products = (0..inputs).map(|k| {
                        f64::from(input[row * inputs + k]) * f64::from(weights[channel * inputs + k])
                    });
                    let (sum, size) = products
                        .chain([f64::from(bias[channel])])
                        .fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    (sum.clamp(-0.5, 1.5), size)
                })
                .collect();
            let whole = Place { start: 0, pixel: outputs, row: outputs, image: rows * outputs };
            let input = Guarded::new(&input);
            for (name, width) in widths() {
                for stored in [Weights::Single(&weights), Weights::Half(&bits)] {
                    let layer = Dense::new(width, inputs, stored, &bias, bounds).unwrap();
                    let mut output = Guarded::new(&vec![77.0; rows * outputs]);
                    layer.run(input.get(), output.get_mut()).unwrap();
                    let what = format!("{name} {inputs}->{outputs}");
                    compare(&what, output.get(), 77.0, &expected, [rows, 1, outputs], &whole, 1e-6);
                    assert_eq!(layer.run(input.get(), &mut vec![0.0; rows * outputs - 1]), None);
                    assert_eq!(layer.run(&input.get()[1..], output.get_mut()), None);
                }
            }
        }
    }
}

#[test]
fn pools_equal_scalar() {
    let mut random = Random(7);
    for case in 0..134 {
        let channels = 1 + case % 67;
        let mut pick = |limit: usize| 1 + random.below(limit);
        let (kernel_h, kernel_w) = (pick(4), pick(4));
        let mut pad = |kernel: usize| [pick(kernel) - 1, pick(kernel) - 1];
        let (pad_h, pad_w) = (pad(kernel_h), pad(kernel_w));
        let window = Window {
            batch: pick(2),
            rows: axis(kernel_h + pick(6), kernel_h, pick(3), 1, pad_h),
            columns: axis(kernel_w + pick(6), kernel_w, pick(3), 1, pad_w),
            inputs: channels,
            outputs: channels,
        };
        let Window { batch, rows, columns, .. } = window;
        let input = random.floats(batch * rows.input * columns.input * channels);
        let (bounds, count_padding) = ([-0.25, 0.5], case % 2 == 0);
        let elements = batch * rows.output * columns.output * channels;
        let (mut means, mut most) = (vec![0.0; elements], vec![0.0; elements]);
        Scalar.average_pool2d_f32(&window, count_padding, bounds, &input, &mut means).unwrap();
        Scalar.max_pool2d_f32(&window, bounds, &input, &mut most).unwrap();
        let dense = |rows: usize, columns: usize| {
            let row = columns * channels;
            Place { start: 0, pixel: channels, row, image: rows * row }
        };
        let (from, to) = (dense(rows.input, columns.input), dense(rows.output, columns.output));
        let input = Guarded::new(&input);
        for (name, width) in widths() {
            let mut output = Guarded::new(&vec![77.0; elements]);
            let layer = AveragePool2d::new(width, &window, count_padding, bounds, &from, &to).unwrap();
            layer.run(input.get(), output.get_mut()).unwrap();
            for (&got, &want) in output.get().iter().zip(&means) {
                assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{name} {window:?} {got} {want}");
            }
            let layer = MaxPool2d::new(width, &window, bounds, &from, &to).unwrap();
            layer.run(input.get(), output.get_mut()).unwrap();
            assert_eq!(output.get(), most, "{name} {window:?}");
        }
    }
}

#[test]
fn sums_and_products_equal_scalar() {
    let mut random = Random(8);
    for length in 0..=67 {
        let (a, b) = (Guarded::new(&random.floats(length)), Guarded::new(&random.floats(length)));
        let bounds = [-0.5, 0.75];
        let (mut sum, mut product) = (a.get().to_vec(), a.get().to_vec());
        Scalar.add_f32(bounds, &mut sum, b.get()).unwrap();
        Scalar.mul_f32(bounds, &mut product, b.get()).unwrap();
        for (_, width) in widths() {
            let mut output = Guarded::new(&vec![77.0; length]);
            add(width, bounds, a.get(), b.get(), output.get_mut()).unwrap();
            assert_eq!(output.get(), sum);
            mul(width, bounds, a.get(), b.get(), output.get_mut()).unwrap();
            assert_eq!(output.get(), product);
            assert_eq!(add(width, bounds, a.get(), b.get(), &mut vec![0.0; length + 1]), None);
        }
    }
}
