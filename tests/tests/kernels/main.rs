//! Every operator, run through a blob, against a naive oracle on logical weights, over random shapes; and against outputs recorded from
//! LiteRT's reference kernels.

#[path = "../blob_bytes/mod.rs"]
mod blob_bytes;
mod litert;
mod refusals;
mod step;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use step::{Bytes, Random, Step, tensor};
use tucano::ErrorKind;
use tucano::blob::{BlobBuilder, DType, Packing, TensorRecord};
use tucano::host::Runner;
use tucano::ops::{OpCode, add, conv2d, dense, mean, permute, pool2d, softmax, unary};
use tucano::quant;

/// Shapes of a windowed operator, drawn at random.
#[derive(Clone, Debug)]
struct Windows {
    batch: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Top, left, bottom, right.
    pads: [usize; 4],
    groups: usize,
    group_inputs: usize,
    group_outputs: usize,
    seed: u64,
}

impl Windows {
    fn output(&self) -> Option<[usize; 2]> {
        let extent = |axis: usize| {
            let reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            let padded = self.input[axis] + self.pads[axis] + self.pads[axis + 2];
            (reach <= padded && self.stride[axis] <= padded).then(|| (padded - reach) / self.stride[axis] + 1)
        };
        Some([extent(0)?, extent(1)?])
    }

    fn conv2d(&self, act_min: u32, act_max: u32) -> [u32; 13] {
        let [stride_h, stride_w] = self.stride.map(|x| x as u32);
        let [kernel_h, kernel_w] = self.kernel.map(|x| x as u32);
        let [dilation_h, dilation_w] = self.dilation.map(|x| x as u32);
        let [pad_top, pad_left, pad_bottom, pad_right] = self.pads.map(|x| x as u32);
        let groups = self.groups as u32;
        conv2d::Parameters {
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            dilation_h,
            dilation_w,
            kernel_h,
            kernel_w,
            groups,
            act_min,
            act_max,
        }
        .emit()
    }

    /// The input index under a tap, for each window and tap of one axis.
    fn position(&self, axis: usize, window: usize, tap: usize) -> Option<usize> {
        let position = window * self.stride[axis] + tap * self.dilation[axis];
        position.checked_sub(self.pads[axis]).filter(|&position| position < self.input[axis])
    }

    /// Sums `x * w` over each window: `x` as `[n, h, w, c]` (less its zero point), `w` as `[o][kh][kw][i]`.
    fn convolve<T: Copy + std::ops::Mul<Output = T> + std::iter::Sum>(&self, x: &[T], w: &[T]) -> Vec<T> {
        let [out_h, out_w] = self.output().unwrap();
        let [in_h, in_w] = self.input;
        let inputs = self.groups * self.group_inputs;
        let mut sums = Vec::new();
        for n in 0..self.batch {
            for y in 0..out_h {
                for x_out in 0..out_w {
                    for o in 0..self.groups * self.group_outputs {
                        let mut products = Vec::new();
                        for ky in 0..self.kernel[0] {
                            for kx in 0..self.kernel[1] {
                                for i in 0..self.group_inputs {
                                    let (Some(row), Some(column)) =
                                        (self.position(0, y, ky), self.position(1, x_out, kx))
                                    else {
                                        continue;
                                    };
                                    let c = o / self.group_outputs * self.group_inputs + i;
                                    let w_at = ((o * self.kernel[0] + ky) * self.kernel[1] + kx)
                                        * self.group_inputs
                                        + i;
                                    let x_at = ((n * in_h + row) * in_w + column) * inputs + c;
                                    products.push(x[x_at] * w[w_at]);
                                }
                            }
                        }
                        sums.push(products.into_iter().sum());
                    }
                }
            }
        }
        sums
    }
}

prop_compose! {
    fn windows(max_dilation: usize, max_channels: usize)(
        batch in 1..3usize,
        input in prop::array::uniform2(1..9usize),
        kernel in prop::array::uniform2(1..5usize),
        stride in prop::array::uniform2(1..4usize),
        dilation in prop::array::uniform2(1..=max_dilation),
        pads in prop::array::uniform4(0..5usize),
        groups in 1..4usize,
        group_inputs in 1..=max_channels,
        group_outputs in 1..=max_channels,
        seed: u64,
    ) -> Windows {
        Windows { batch, input, kernel, stride, dilation, pads, groups, group_inputs, group_outputs, seed }
    }
}

prop_compose! {
    /// Windows of stride 1 that give as many rows, columns and channels as they read.
    fn replacing(max_channels: usize)(
        mut windows in windows(2, max_channels),
        pads in prop::array::uniform2(any::<prop::sample::Index>()),
    ) -> Windows {
        windows.stride = [1, 1];
        windows.group_outputs = windows.group_inputs;
        for (axis, pad) in pads.iter().enumerate() {
            let reach = (windows.kernel[axis] - 1) * windows.dilation[axis] + 1;
            windows.pads[axis] = pad.index(reach);
            windows.pads[axis + 2] = reach - 1 - windows.pads[axis];
        }
        windows
    }
}

/// Requantisation by divisions of wide integers: the paper's text, but that a shift to the left is modulo 2^32.
fn requantise(sum: i32, multiplier: i32, shift: i32) -> i64 {
    let sum = i128::from(sum.wrapping_shl(shift.max(0) as u32));
    let product = sum * i128::from(multiplier);
    let high = (product + (1 << 30)).div_euclid(1 << 31);
    let divisor = 1i128 << (-shift).max(0);
    let half = divisor / 2;
    (if high >= 0 { (high + half) / divisor } else { (high - half) / divisor }) as i64
}

/// Quantised constants of a linear layer with outputs spread over the range.
struct Constants {
    weights: Vec<i8>,
    four_bits: bool,
    bias: Vec<i32>,
    multiplier: Vec<i32>,
    shift: Vec<i32>,
}

impl Constants {
    /// For sums of about `fan_in` products; weights of 4 bits where `code` has such.
    fn random<X: Activation, Y: Activation>(
        random: &mut Random,
        fan_in: usize,
        outputs: usize,
        code: OpCode,
    ) -> Self {
        let four_bits = matches!(code, OpCode::Conv2dI4 | OpCode::DenseI4);
        let levels = if four_bits { [-8, 7] } else { [-127, 127] };
        let spread = f64::from(Y::BOUNDS[1])
            / (f64::from(X::BOUNDS[1]) * f64::from(levels[1]) * 0.5 * (fan_in as f64).sqrt());
        let factors: Vec<(i32, i32)> = (0..outputs)
            .map(|_| quant::quantize_multiplier(spread * (0.2 + f64::from(random.next()) / 4e9)))
            .collect();
        let mut constants = Self {
            weights: random.integers(outputs * fan_in, levels[0], levels[1]),
            four_bits,
            bias: random.integers(outputs, -3000, 3000),
            multiplier: factors.iter().map(|factor| factor.0).collect(),
            shift: factors.iter().map(|factor| factor.1).collect(),
        };
        if random.next().is_multiple_of(8) {
            constants.extreme(random);
        }
        constants
    }

    /// What a blob may hold at worst: results near both ends of 32 bits, where a zero point makes them wrap.
    fn extreme(&mut self, random: &mut Random) {
        let mut end = |low: i32, high: i32| {
            let near = random.integers::<i32>(1, 0, (high.wrapping_sub(low) as u32).min(300) as i32)[0];
            match random.next() % 5 {
                0 | 1 => high - near,
                2 | 3 => low + near,
                _ => (random.next() as i32).clamp(low, high),
            }
        };
        let greatest = [-1, 0, quant::MAX_SHIFT][(end(0, 8) % 3) as usize];
        self.bias.fill_with(|| end(i32::MIN, i32::MAX));
        self.multiplier.fill_with(|| end(0, i32::MAX));
        self.shift.fill_with(|| end(quant::MIN_SHIFT, quant::MAX_SHIFT).min(greatest));
    }

    fn operands(&self) -> Vec<(DType, Vec<u8>)> {
        let integers = |values: &[i32]| (i32::DTYPE, i32::bytes(values));
        // Each output channel starts a byte.
        let rows = self.weights.chunks((self.weights.len() / self.bias.len()).max(1));
        let pair = |pair: &[i8]| pair[0] as u8 % 16 + 16 * (pair.get(1).map_or(9, |&w| w as u8) % 16);
        let weights = match self.four_bits {
            true => (DType::I4x2, rows.flat_map(|row| row.chunks(2).map(pair)).collect()),
            false => (i8::DTYPE, i8::bytes(&self.weights)),
        };
        vec![weights, integers(&self.bias), integers(&self.multiplier), integers(&self.shift)]
    }

    /// Outputs for sums of products, channels last.
    fn finish(&self, sums: &[i32], zero: i32, [low, high]: [i32; 2]) -> Vec<i64> {
        let outputs = self.bias.len();
        let finish = |(at, sum): (usize, &i32)| {
            let o = at % outputs;
            let scaled = requantise(sum.wrapping_add(self.bias[o]), self.multiplier[o], self.shift[o]);
            (scaled as i32).wrapping_add(zero).clamp(low, high).into()
        };
        sums.iter().enumerate().map(finish).collect()
    }
}

/// An activation type: bounds, and whether it has a zero point.
trait Activation: Bytes + TryFrom<i32> + Into<i64> {
    const BOUNDS: [i32; 2];
    const CENTRED: bool;
}

impl Activation for i8 {
    const BOUNDS: [i32; 2] = [-128, 127];
    const CENTRED: bool = false;
}

impl Activation for i16 {
    const BOUNDS: [i32; 2] = [-32768, 32767];
    const CENTRED: bool = true;
}

fn zero_point<T: Activation>(random: &mut Random) -> i32 {
    if T::CENTRED { 0 } else { random.integers::<i32>(1, -128, 127)[0] }
}

/// Bounds within the type, sometimes tight ones.
fn bounds<T: Activation>(random: &mut Random) -> [i32; 2] {
    let [low, high] = T::BOUNDS;
    if random.next().is_multiple_of(2) { [low, high] } else { [low / 3, high / 2] }
}

/// A convolution of random integers against the oracle; depthwise where `code` is so.
fn integer_convolution<X: Activation, Y: Activation>(
    windows: &Windows,
    code: OpCode,
) -> Result<(), TestCaseError> {
    let Some([out_h, out_w]) = windows.output() else { return Ok(()) };
    let mut random = Random(windows.seed);
    let depthwise = matches!(code, OpCode::DepthwiseConv2dI8 | OpCode::DepthwiseConv2dI16);
    let (inputs, outputs) = (windows.groups * windows.group_inputs, windows.groups * windows.group_outputs);
    let taps = windows.kernel[0] * windows.kernel[1];
    let fan_in = taps * windows.group_inputs;
    let constants = Constants::random::<X, Y>(&mut random, fan_in, outputs, code);
    let (zero_in, zero_out) = (zero_point::<X>(&mut random), zero_point::<Y>(&mut random));
    let bounds = bounds::<Y>(&mut random);
    let shape = [windows.batch, windows.input[0], windows.input[1], inputs];
    let [low, high] = X::BOUNDS;
    let x: Vec<X> = random.integers(shape.iter().product(), low, high);

    let mut operands = constants.operands();
    if depthwise {
        // [o][tap] to [tap][o].
        let by_tap: Vec<i8> = (0..taps)
            .flat_map(|tap| (0..outputs).map(move |o| (o, tap)))
            .map(|(o, tap)| constants.weights[o * taps + tap])
            .collect();
        operands[0].1 = i8::bytes(&by_tap);
    }
    let step = Step {
        op: code,
        inputs: vec![(tensor(X::DTYPE, &shape, zero_in), X::bytes(&x))],
        output: tensor(Y::DTYPE, &[windows.batch, out_h, out_w, outputs], zero_out),
        weights: operands,
        parameters: windows.conv2d(bounds[0] as u32, bounds[1] as u32).to_vec(),
        in_place: false,
    };
    let real: Vec<i32> = x.iter().map(|&x| (x.into() - i64::from(zero_in)) as i32).collect();
    let weights: Vec<i32> = constants.weights.iter().map(|&w| w.into()).collect();
    let expected = constants.finish(&windows.convolve(&real, &weights), zero_out, bounds);
    let given: Vec<i64> = Y::values(&step.run().unwrap()).into_iter().map(Into::into).collect();
    prop_assert_eq!(given, expected);
    if matches!(code, OpCode::Conv2dI8 | OpCode::Conv2dI16) {
        packed(&step, windows.groups, fan_in)?;
    }
    in_place(&step, windows)
}

/// A linear step gives the same whatever order its weights have.
fn packed(step: &Step, groups: usize, depth: usize) -> Result<(), TestCaseError> {
    let expected = step.run().unwrap();
    let packings = (0..=u8::MAX).filter_map(Packing::parse);
    for packing in packings.filter(|packing| *packing != Packing::Winograd) {
        let mut packed = step.packed(packing, groups, depth);
        prop_assert_eq!(&packed.run_as(packing, 0).unwrap(), &expected, "{:?}", packing);
        packed.weights[0].1.push(0);
        let error = packed.run_as(packing, 0).unwrap_err();
        prop_assert_eq!(error.kind, ErrorKind::WeightLength, "{:?}", packing);
    }
    Ok(())
}

/// A convolution gives the same in the place of its input, where it may lie there.
fn in_place(step: &Step, windows: &Windows) -> Result<(), TestCaseError> {
    let placed = Step { in_place: true, ..step.clone() };
    let [reach, _] = [0, 1].map(|axis| (windows.kernel[axis] - 1) * windows.dilation[axis] + 1);
    let kept = reach.min(windows.input[0]) * windows.input[1] * windows.groups * windows.group_inputs;
    let (input, output) = (&step.inputs[0].0, &step.output);
    let allowed = windows.stride == [1, 1]
        && input.shape == output.shape
        && windows.pads[0] < reach
        && matches!(step.op, OpCode::Conv2dI8 | OpCode::DepthwiseConv2dI8);
    if allowed {
        prop_assert_eq!(placed.run_as(Packing::Rows, kept).unwrap(), step.run().unwrap());
        prop_assert_eq!(placed.run_as(Packing::Rows, kept - 1).unwrap_err().kind, ErrorKind::Scratch);
    } else {
        let room = kept + input.bytes().unwrap() + output.bytes().unwrap();
        prop_assert_eq!(placed.run_as(Packing::Rows, room).unwrap_err().kind, ErrorKind::Overlap);
    }
    Ok(())
}

/// A convolution gives the same with transformed weights, apart and in place, and refuses what is no transform.
fn transformed(windows: &Windows) -> Result<(), TestCaseError> {
    let (inputs, outputs) = (windows.group_inputs, windows.group_outputs.next_multiple_of(4));
    let windows = Windows {
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        groups: 1,
        group_outputs: outputs,
        ..windows.clone()
    };
    let Some([out_h, out_w]) = windows.output() else { return Ok(()) };
    let mut random = Random(windows.seed);
    let constants = Constants::random::<i8, i8>(&mut random, 9 * inputs, outputs, OpCode::Conv2dI8);
    let [zero_in, zero_out] = [0; 2].map(|_: i32| zero_point::<i8>(&mut random));
    let bounds = bounds::<i8>(&mut random);
    let shape = [windows.batch, windows.input[0], windows.input[1], inputs];
    let x: Vec<i8> = random.integers(shape.iter().product(), -128, 127);
    let step = Step {
        op: OpCode::Conv2dI8,
        inputs: vec![(tensor(DType::I8, &shape, zero_in), i8::bytes(&x))],
        output: tensor(DType::I8, &[windows.batch, out_h, out_w, outputs], zero_out),
        weights: constants.operands(),
        parameters: windows.conv2d(bounds[0] as u32, bounds[1] as u32).to_vec(),
        in_place: false,
    };
    let expected = step.run().unwrap();
    let step = step.packed(Packing::Winograd, 1, 9 * inputs);
    prop_assert_eq!(&step.run_as(Packing::Winograd, 0).unwrap(), &expected);
    if inputs == outputs && [out_h, out_w] == windows.input && windows.pads[0] < 3 {
        let placed = Step { in_place: true, ..step.clone() };
        let kept = windows.input[0].min(3) * windows.input[1] * inputs;
        prop_assert_eq!(&placed.run_as(Packing::Winograd, kept).unwrap(), &expected);
        prop_assert_eq!(placed.run_as(Packing::Winograd, kept - 1).unwrap_err().kind, ErrorKind::Scratch);
    }
    let mut broken = step.clone();
    let at = random.next() as usize % broken.weights[0].1.len();
    broken.weights[0].1[at] ^= 1;
    prop_assert_eq!(broken.run_as(Packing::Winograd, 0).unwrap_err().kind, ErrorKind::Parameter);
    Ok(())
}

/// Two layers with the same packed constants but other zero points: a runner keeps them apart.
#[test]
fn packed_constants_may_be_shared() {
    let mut random = Random(11);
    let constants = Constants::random::<i8, i8>(&mut random, 8, 8, OpCode::DenseI8);
    let step = Step {
        op: OpCode::DenseI8,
        inputs: vec![(tensor(DType::I8, &[1, 8], 0), vec![0; 8])],
        output: tensor(DType::I8, &[1, 8], 0),
        weights: constants.operands(),
        parameters: dense::Parameters { act_min: -128i32 as u32, act_max: 127 }.emit().to_vec(),
        in_place: false,
    };
    let packing = Packing::Columns8;
    let weights = step.packed(packing, 1, 8).weights;
    let mut builder = BlobBuilder::new();
    let tensors = [(0, 40), (16, -90), (32, 7)].map(|(offset, zero_point)| {
        builder.tensor(TensorRecord { offset, ..tensor(DType::I8, &[1, 8], zero_point) })
    });
    let ids: Vec<u16> = weights
        .iter()
        .zip([packing, Packing::Rows, Packing::Rows, Packing::Rows])
        .map(|((dtype, bytes), packing)| builder.weight(*dtype, packing, bytes))
        .collect();
    for (from, to) in [(0, 1), (1, 2)] {
        builder.step("", step.op, &[tensors[from]], &[tensors[to]], &ids, &step.parameters, (0, 0));
    }
    builder.inputs(&tensors[..1]);
    builder.outputs(&tensors[2..]);
    let blob = builder.finish(48, 0, 16).unwrap();
    let input: Vec<u8> = random.integers(8, 0, 255);
    let mut runner = Runner::new(&blob).unwrap();
    let given = runner.run_raw(&[&input]).unwrap().concat();
    // Each layer alone, its stored bias as it is.
    let mut expected = input;
    for (zero_in, zero_out) in [(40, -90), (-90, 7)] {
        let alone = Step {
            inputs: vec![(tensor(DType::I8, &[1, 8], zero_in), expected)],
            output: tensor(DType::I8, &[1, 8], zero_out),
            weights: weights.clone(),
            ..step.clone()
        };
        expected = alone.run_as(packing, 0).unwrap();
    }
    assert_eq!(given, expected);
    // What the blob says of itself is not changed.
    assert_eq!(runner.model().step(0).unwrap().weight(0).unwrap().packing, packing);
    assert_eq!(runner.model().blob().bytes(), blob);
}

/// A step of floats gives the same with weights of 16 bits, cut down to such, as with the same numbers in 32.
fn half_weights(step: &Step) -> Result<(), TestCaseError> {
    let bits: Vec<u16> = f32::values(&step.weights[0].1)
        .into_iter()
        .map(|weight| {
            let (sign, size) = ((weight.to_bits() >> 16 & 0x8000) as u16, weight.abs());
            // From the smallest normal number on, the exponent's bias apart.
            let size = if size < 2f32.powi(-14) { 0 } else { ((size.to_bits() - (112 << 23)) >> 13) as u16 };
            sign | size
        })
        .collect();
    let op = match step.op {
        OpCode::Conv2dF32 => OpCode::Conv2dF16,
        OpCode::DepthwiseConv2dF32 => OpCode::DepthwiseConv2dF16,
        _ => OpCode::DenseF16,
    };
    let (mut whole, mut half) = (step.clone(), Step { op, ..step.clone() });
    let values: Vec<f32> = bits.iter().map(|&bits| tucano::math::from_half(bits)).collect();
    whole.weights[0].1 = f32::bytes(&values);
    half.weights[0] = (DType::F16, bits.iter().flat_map(|bits| bits.to_le_bytes()).collect());
    let (expected, given) = (f32::values(&whole.run().unwrap()), f32::values(&half.run().unwrap()));
    for (expected, given) in expected.iter().zip(&given) {
        prop_assert!((expected - given).abs() < 1e-5, "{} is not {}", given, expected);
    }
    // The last weight infinite, and no number.
    for last in [0xFC00u16, 0x7E01] {
        let bytes = &mut half.weights[0].1;
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&last.to_le_bytes());
        prop_assert_eq!(half.run().unwrap_err().kind, ErrorKind::Parameter);
    }
    Ok(())
}

fn float_convolution(windows: &Windows, code: OpCode) -> Result<(), TestCaseError> {
    let Some([out_h, out_w]) = windows.output() else { return Ok(()) };
    let mut random = Random(windows.seed);
    let (inputs, outputs) = (windows.groups * windows.group_inputs, windows.groups * windows.group_outputs);
    let taps = windows.kernel[0] * windows.kernel[1];
    let shape = [windows.batch, windows.input[0], windows.input[1], inputs];
    let x = random.floats(shape.iter().product());
    let w = random.floats(outputs * taps * windows.group_inputs);
    let bias = random.floats(outputs);
    let [low, high] = [-1.5f32, 2.5];
    let stored: Vec<f32> = if code == OpCode::DepthwiseConv2dF32 {
        (0..taps)
            .flat_map(|tap| (0..outputs).map(move |o| (o, tap)))
            .map(|(o, tap)| w[o * taps + tap])
            .collect()
    } else {
        w.clone()
    };
    let step = Step {
        op: code,
        inputs: vec![(tensor(f32::DTYPE, &shape, 0), f32::bytes(&x))],
        output: tensor(f32::DTYPE, &[windows.batch, out_h, out_w, outputs], 0),
        weights: vec![(f32::DTYPE, f32::bytes(&stored)), (f32::DTYPE, f32::bytes(&bias))],
        parameters: windows.conv2d(low.to_bits(), high.to_bits()).to_vec(),
        in_place: false,
    };
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let sums = windows.convolve(&wide(&x), &wide(&w));
    let given = f32::values(&step.run().unwrap());
    prop_assert_eq!(given.len(), sums.len());
    for (at, (given, sum)) in given.iter().zip(&sums).enumerate() {
        let expected = (sum + f64::from(bias[at % outputs])).clamp(low.into(), high.into());
        prop_assert!((f64::from(*given) - expected).abs() < 1e-5, "{} is not {}", given, expected);
    }
    half_weights(&step)?;
    in_place(&step, windows)
}

fn integer_dense<X: Activation, Y: Activation>(
    shape: &[usize],
    outputs: usize,
    seed: u64,
    code: OpCode,
) -> Result<(), TestCaseError> {
    let mut random = Random(seed);
    let inputs = *shape.last().unwrap();
    let constants = Constants::random::<X, Y>(&mut random, inputs, outputs, code);
    let (zero_in, zero_out) = (zero_point::<X>(&mut random), zero_point::<Y>(&mut random));
    let bounds = bounds::<Y>(&mut random);
    let x: Vec<X> = random.integers(shape.iter().product(), X::BOUNDS[0], X::BOUNDS[1]);
    let mut out_shape = shape.to_vec();
    *out_shape.last_mut().unwrap() = outputs;
    let step = Step {
        op: code,
        inputs: vec![(tensor(X::DTYPE, shape, zero_in), X::bytes(&x))],
        output: tensor(Y::DTYPE, &out_shape, zero_out),
        weights: constants.operands(),
        parameters: dense::Parameters { act_min: bounds[0] as u32, act_max: bounds[1] as u32 }
            .emit()
            .to_vec(),
        in_place: false,
    };
    let mut sums = Vec::new();
    for row in x.chunks(inputs) {
        for w in constants.weights.chunks(inputs) {
            let product = |(&x, &w): (&X, &i8)| (x.into() as i32 - zero_in) * i32::from(w);
            sums.push(row.iter().zip(w).map(product).sum());
        }
    }
    let given: Vec<i64> = Y::values(&step.run().unwrap()).into_iter().map(Into::into).collect();
    prop_assert_eq!(given, constants.finish(&sums, zero_out, bounds));
    if matches!(code, OpCode::DenseI8 | OpCode::DenseI16) { packed(&step, 1, inputs) } else { Ok(()) }
}

/// Elements of each window of a pool, by output element, with the number of taps that fall on padding.
fn pooled<T: Copy>(windows: &Windows, channels: usize, x: &[T]) -> Vec<(Vec<T>, usize)> {
    let [out_h, out_w] = windows.output().unwrap();
    let mut all = Vec::new();
    for n in 0..windows.batch {
        for y in 0..out_h {
            for column in 0..out_w {
                for c in 0..channels {
                    let mut inside = Vec::new();
                    for ky in 0..windows.kernel[0] {
                        for kx in 0..windows.kernel[1] {
                            let at = (windows.position(0, y, ky), windows.position(1, column, kx));
                            if let (Some(row), Some(column)) = at {
                                let [h, w] = windows.input;
                                inside.push(x[((n * h + row) * w + column) * channels + c]);
                            }
                        }
                    }
                    let outside = windows.kernel[0] * windows.kernel[1] - inside.len();
                    all.push((inside, outside));
                }
            }
        }
    }
    all
}

fn pool_parameters(windows: &Windows, count_include_pad: bool, act_min: u32, act_max: u32) -> [u32; 11] {
    let [stride_h, stride_w] = windows.stride.map(|x| x as u32);
    let [kernel_h, kernel_w] = windows.kernel.map(|x| x as u32);
    let [pad_top, pad_left, pad_bottom, pad_right] = windows.pads.map(|x| x as u32);
    let count_include_pad = count_include_pad.into();
    pool2d::Parameters {
        stride_h,
        stride_w,
        pad_top,
        pad_left,
        pad_bottom,
        pad_right,
        kernel_h,
        kernel_w,
        count_include_pad,
        act_min,
        act_max,
    }
    .emit()
}

/// A pool of random shape: pads are cut below the kernel's extents, as the operator demands.
fn pool_step<T: Bytes>(
    windows: &mut Windows,
    code: OpCode,
    zero: i32,
    parameters: impl Fn(&Windows) -> [u32; 11],
    x: impl Fn(usize) -> Vec<T>,
) -> Option<(Vec<T>, Vec<T>)> {
    for side in 0..4 {
        windows.pads[side] %= windows.kernel[side % 2];
    }
    let channels = windows.groups * windows.group_inputs;
    let [out_h, out_w] = windows.output()?;
    let shape = [windows.batch, windows.input[0], windows.input[1], channels];
    let x = x(shape.iter().product());
    let step = Step {
        op: code,
        inputs: vec![(tensor(T::DTYPE, &shape, zero), T::bytes(&x))],
        output: tensor(T::DTYPE, &[windows.batch, out_h, out_w, channels], zero),
        weights: vec![],
        parameters: parameters(windows).to_vec(),
        in_place: false,
    };
    let output = T::values(&step.run().unwrap());
    Some((x, output))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn conv2d_i8(windows in windows(3, 9)) {
        integer_convolution::<i8, i8>(&windows, OpCode::Conv2dI8)?;
    }

    #[test]
    fn conv2d_i8_of_one_group(windows in windows(1, 40)) {
        integer_convolution::<i8, i8>(&Windows { groups: 1, ..windows }, OpCode::Conv2dI8)?;
    }

    #[test]
    fn conv2d_i8_in_place(windows in replacing(9)) {
        integer_convolution::<i8, i8>(&windows, OpCode::Conv2dI8)?;
    }

    #[test]
    fn winograd_conv2d_i8(windows in windows(1, 9)) {
        transformed(&windows)?;
    }

    #[test]
    fn winograd_conv2d_i8_in_place(mut windows in replacing(3)) {
        windows.group_inputs *= 4;
        windows.group_outputs = windows.group_inputs;
        windows.pads = [1; 4];
        transformed(&windows)?;
    }

    #[test]
    fn depthwise_conv2d_i8_in_place(windows in replacing(1), channels in 1..40usize) {
        let windows = Windows { groups: channels, group_inputs: 1, ..windows };
        integer_convolution::<i8, i8>(&windows, OpCode::DepthwiseConv2dI8)?;
    }

    #[test]
    fn conv2d_i16(windows in windows(2, 9)) {
        integer_convolution::<i8, i16>(&windows, OpCode::Conv2dI16)?;
        integer_convolution::<i16, i8>(&windows, OpCode::Conv2dI16)?;
        integer_convolution::<i16, i16>(&windows, OpCode::Conv2dI16)?;
    }

    #[test]
    fn conv2d_i4(windows in windows(3, 9), channels in 1..40usize) {
        integer_convolution::<i8, i8>(&windows, OpCode::Conv2dI4)?;
        let windows = Windows { groups: 1, group_inputs: channels, dilation: [1, 1], ..windows };
        integer_convolution::<i8, i8>(&windows, OpCode::Conv2dI4)?;
    }

    #[test]
    fn conv2d_f32(windows in windows(3, 9)) {
        float_convolution(&windows, OpCode::Conv2dF32)?;
    }

    #[test]
    fn depthwise_conv2d_i8(windows in windows(3, 3), channels in 1..40usize) {
        let windows = Windows { groups: channels, group_inputs: 1, ..windows };
        integer_convolution::<i8, i8>(&windows, OpCode::DepthwiseConv2dI8)?;
    }

    #[test]
    fn depthwise_conv2d_i16(windows in windows(2, 3), channels in 1..40usize) {
        let windows = Windows { groups: channels, group_inputs: 1, ..windows };
        integer_convolution::<i8, i16>(&windows, OpCode::DepthwiseConv2dI16)?;
        integer_convolution::<i16, i8>(&windows, OpCode::DepthwiseConv2dI16)?;
        integer_convolution::<i16, i16>(&windows, OpCode::DepthwiseConv2dI16)?;
    }

    #[test]
    fn depthwise_conv2d_f32(windows in windows(3, 3), channels in 1..40usize) {
        float_convolution(&Windows { groups: channels, group_inputs: 1, ..windows }, OpCode::DepthwiseConv2dF32)?;
    }

    #[test]
    fn dense_integers(shape in prop::collection::vec(1..6usize, 0..4), inputs in 1..70usize, outputs in 1..20usize, seed: u64) {
        let shape = [&shape[..], &[inputs]].concat();
        integer_dense::<i8, i8>(&shape, outputs, seed, OpCode::DenseI8)?;
        integer_dense::<i8, i8>(&shape, outputs, seed, OpCode::DenseI4)?;
        integer_dense::<i8, i16>(&shape, outputs, seed, OpCode::DenseI16)?;
        integer_dense::<i16, i8>(&shape, outputs, seed, OpCode::DenseI16)?;
        integer_dense::<i16, i16>(&shape, outputs, seed, OpCode::DenseI16)?;
    }

    #[test]
    fn dense_f32(rows in 1..5usize, inputs in 1..70usize, outputs in 1..20usize, seed: u64) {
        let mut random = Random(seed);
        let (x, w, bias) = (random.floats(rows * inputs), random.floats(inputs * outputs), random.floats(outputs));
        let step = Step {
            op: OpCode::DenseF32,
            inputs: vec![(tensor(f32::DTYPE, &[rows, inputs], 0), f32::bytes(&x))],
            output: tensor(f32::DTYPE, &[rows, outputs], 0),
            weights: vec![(f32::DTYPE, f32::bytes(&w)), (f32::DTYPE, f32::bytes(&bias))],
            parameters: dense::Parameters { act_min: (-2f32).to_bits(), act_max: f32::INFINITY.to_bits() }.emit().to_vec(),
            in_place: false,
        };
        let given = f32::values(&step.run().unwrap());
        prop_assert_eq!(given.len(), rows * outputs);
        for (at, &given) in given.iter().enumerate() {
            let (row, o) = (at / outputs, at % outputs);
            let sum: f64 = (0..inputs).map(|i| f64::from(x[row * inputs + i]) * f64::from(w[o * inputs + i])).sum();
            let expected = (sum + f64::from(bias[o])).max(-2.0);
            prop_assert!((f64::from(given) - expected).abs() < 1e-5 * expected.abs().max(1.0));
        }
        half_weights(&step)?;
    }

    #[test]
    fn max_pool2d(windows in windows(1, 20)) {
        let mut windows = windows;
        let seed = windows.seed;
        let channels = windows.groups * windows.group_inputs;
        let parameters = |windows: &Windows| pool_parameters(windows, false, -100i32 as u32, 120);
        let integers = |count| Random(seed).integers(count, -128, 127);
        if let Some((x, given)) = pool_step::<i8>(&mut windows, OpCode::MaxPool2dI8, -3, parameters, integers) {
            let expected: Vec<i8> =
                pooled(&windows, channels, &x).iter().map(|(x, _)| (*x.iter().max().unwrap()).clamp(-100, 120)).collect();
            prop_assert_eq!(given, expected);
        }
        let parameters = |windows: &Windows| pool_parameters(windows, false, (-1f32).to_bits(), 1f32.to_bits());
        let floats = |count| Random(seed).floats(count);
        if let Some((x, given)) = pool_step::<f32>(&mut windows, OpCode::MaxPool2dF32, 0, parameters, floats) {
            let most = |x: &[f32]| x.iter().copied().fold(f32::MIN, f32::max).clamp(-1.0, 1.0);
            let expected: Vec<f32> = pooled(&windows, channels, &x).iter().map(|(x, _)| most(x)).collect();
            prop_assert_eq!(given, expected);
        }
    }

    #[test]
    fn average_pool2d(windows in windows(1, 20), include: bool, zero in -128..128i32) {
        let mut windows = windows;
        let seed = windows.seed;
        let channels = windows.groups * windows.group_inputs;
        let parameters = |windows: &Windows| pool_parameters(windows, include, -100i32 as u32, 120);
        let integers = |count| Random(seed).integers(count, -128, 127);
        if let Some((x, given)) = pool_step::<i8>(&mut windows, OpCode::AveragePool2dI8, zero, parameters, integers) {
            let mean = |(x, outside): &(Vec<i8>, usize)| {
                let outside = if include { *outside as i32 } else { 0 };
                let count = f64::from(x.len() as i32 + outside);
                let sum: i32 = x.iter().map(|&x| i32::from(x)).sum::<i32>() + outside * zero;
                // f64::round takes halves away from zero.
                (f64::from(sum) / count).round().clamp(-100.0, 120.0) as i8
            };
            let expected: Vec<i8> = pooled(&windows, channels, &x).iter().map(mean).collect();
            prop_assert_eq!(given, expected);
        }
        let parameters =
            |windows: &Windows| pool_parameters(windows, include, f32::NEG_INFINITY.to_bits(), f32::INFINITY.to_bits());
        let floats = |count| Random(seed).floats(count);
        if let Some((x, given)) = pool_step::<f32>(&mut windows, OpCode::AveragePool2dF32, 0, parameters, floats) {
            for ((x, outside), given) in pooled(&windows, channels, &x).iter().zip(given) {
                let count = x.len() + if include { *outside } else { 0 };
                let expected = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
                prop_assert!((f64::from(given) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn mean2d_i8(
        n in 1..3usize, h in 1..9usize, w in 1..9usize, c in 1..40usize,
        zeros in prop::array::uniform2(-128..128i32), scales in prop::array::uniform2(0.01..1.0f64), seed: u64,
    ) {
        let x: Vec<i8> = Random(seed).integers(n * h * w * c, -128, 127);
        let (multiplier, shift) = quant::quantize_multiplier(scales[0] / (scales[1] * (h * w) as f64));
        let step = Step {
            op: OpCode::Mean2dI8,
            inputs: vec![(tensor(i8::DTYPE, &[n, h, w, c], zeros[0]), i8::bytes(&x))],
            output: tensor(i8::DTYPE, &[n, 1, 1, c], zeros[1]),
            weights: vec![],
            parameters: mean::Parameters { multiplier, shift, act_min: -120, act_max: 125 }.emit().to_vec(),
            in_place: false,
        };
        let given = i8::values(&step.run().unwrap());
        prop_assert_eq!(given.len(), n * c);
        for (at, given) in given.into_iter().enumerate() {
            let (image, channel) = (at / c, at % c);
            let sum: i32 =
                (0..h * w).map(|pixel| i32::from(x[(image * h * w + pixel) * c + channel]) - zeros[0]).sum();
            let real = f64::from(sum) * scales[0] / (scales[1] * (h * w) as f64);
            let exact = (real + f64::from(zeros[1])).clamp(-120.0, 125.0);
            prop_assert!((f64::from(given) - exact).abs() < 0.76, "{} is not {}", given, exact);
        }
    }

    #[test]
    fn add_i8(
        length in 1..70usize, zeros in prop::array::uniform3(-128..128i32),
        scales in prop::array::uniform3(0.001..1.0f64), in_place: bool, seed: u64,
    ) {
        let mut random = Random(seed);
        let (a, b): (Vec<i8>, Vec<i8>) = (random.integers(length, -128, 127), random.integers(length, -128, 127));
        let parameters = add_parameters(scales, [-120, 125]);
        let step = Step {
            op: OpCode::AddI8,
            inputs: vec![
                (tensor(i8::DTYPE, &[1, length], zeros[0]), i8::bytes(&a)),
                (tensor(i8::DTYPE, &[1, length], zeros[1]), i8::bytes(&b)),
            ],
            output: tensor(i8::DTYPE, &[1, length], zeros[2]),
            weights: vec![],
            parameters: parameters.emit().to_vec(),
            in_place,
        };
        let given = i8::values(&step.run().unwrap());
        for ((given, &a), &b) in given.into_iter().zip(&a).zip(&b) {
            let real = f64::from(i32::from(a) - zeros[0]) * scales[0] + f64::from(i32::from(b) - zeros[1]) * scales[1];
            let exact = (real / scales[2] + f64::from(zeros[2])).clamp(-120.0, 125.0);
            prop_assert!((f64::from(given) - exact).abs() < 0.51, "{} is not {}", given, exact);
        }
    }

    #[test]
    fn add_and_mul_f32(length in 1..70usize, in_place: bool, seed: u64) {
        let mut random = Random(seed);
        let (a, b) = (random.floats(length), random.floats(length));
        for (op, function) in [(OpCode::AddF32, (|a, b| a + b) as fn(f32, f32) -> f32), (OpCode::MulF32, |a, b| a * b)] {
            let record = tensor(f32::DTYPE, &[length], 0);
            let step = Step {
                op,
                inputs: vec![(record, f32::bytes(&a)), (record, f32::bytes(&b))],
                output: record,
                weights: vec![],
                parameters: add::FloatParameters { act_min: -1.0, act_max: 1.5 }.emit().to_vec(),
                in_place,
            };
            let expected: Vec<f32> = a.iter().zip(&b).map(|(&a, &b)| function(a, b).clamp(-1.0, 1.5)).collect();
            prop_assert_eq!(f32::values(&step.run().unwrap()), expected);
        }
    }

    #[test]
    fn permutation(extents in prop::collection::vec(1..6usize, 1..5), seed: u64) {
        let mut random = Random(seed);
        let rank = extents.len();
        let mut order: Vec<usize> = (0..rank).collect();
        for k in (1..rank).rev() {
            order.swap(k, random.next() as usize % (k + 1));
        }
        let shape: Vec<usize> = order.iter().map(|&axis| extents[axis]).collect();
        let count: usize = extents.iter().product();
        let x: Vec<i8> = random.integers(count, -128, 127);
        let mut words = [0, 1, 2, 3];
        order.iter().zip(&mut words).for_each(|(&axis, word)| *word = axis as u32);
        let parameters = permute::Parameters { order: words }.emit();
        let bytes = Step {
            op: OpCode::PermuteI8,
            inputs: vec![(tensor(i8::DTYPE, &extents, 5), i8::bytes(&x))],
            output: tensor(i8::DTYPE, &shape, 5),
            weights: vec![],
            parameters: parameters.to_vec(),
            in_place: false,
        };
        let real: Vec<f32> = x.iter().map(|&x| x.into()).collect();
        let floats = Step {
            op: OpCode::PermuteF32,
            inputs: vec![(tensor(f32::DTYPE, &extents, 0), f32::bytes(&real))],
            output: tensor(f32::DTYPE, &shape, 0),
            weights: vec![],
            parameters: parameters.to_vec(),
            in_place: false,
        };
        let expected: Vec<i8> = (0..count).map(|at| {
            let mut left = at;
            let mut index = vec![0; rank];
            for k in (0..rank).rev() {
                index[order[k]] = left % shape[k];
                left /= shape[k];
            }
            x[index.iter().zip(&extents).fold(0, |at, (&index, &extent)| at * extent + index)]
        }).collect();
        prop_assert_eq!(i8::values(&bytes.run().unwrap()), expected.clone());
        let expected: Vec<f32> = expected.into_iter().map(f32::from).collect();
        prop_assert_eq!(f32::values(&floats.run().unwrap()), expected);
    }

    #[test]
    fn softmax_i8_is_close_to_softmax(rows in 1..4usize, length in 1..40usize, scale in 0.001..1.0f64, in_place: bool, seed: u64) {
        let x: Vec<i8> = Random(seed).integers(rows * length, -128, 127);
        let given = i8::values(&softmax_step(&x, &[rows, length], scale, in_place).run().unwrap());
        for (x, given) in x.chunks(length).zip(given.chunks(length)) {
            let most = f64::from(*x.iter().max().unwrap());
            let powers: Vec<f64> = x.iter().map(|&x| ((f64::from(x) - most) * scale).exp()).collect();
            let sum: f64 = powers.iter().sum();
            for (power, &given) in powers.iter().zip(given) {
                let expected = (power / sum * 256.0 - 128.0).min(127.0);
                prop_assert!((f64::from(given) - expected).abs() < 0.6, "{} is not {}", given, expected);
            }
        }
    }

    #[test]
    fn softmax_i16_is_close_to_softmax(rows in 1..4usize, length in 1..40usize, scale in 0.001..1.0f64, seed: u64) {
        let x: Vec<i8> = Random(seed).integers(rows * length, -128, 127);
        let mut step = softmax_step(&x, &[rows, length], scale, false);
        step.op = OpCode::SoftmaxI16;
        step.output = tensor(i16::DTYPE, &[rows, length], -32768);
        step.output.scale_bits = (1f32 / 65536.0).to_bits();
        let given = i16::values(&step.run().unwrap());
        for (x, given) in x.chunks(length).zip(given.chunks(length)) {
            let most = f64::from(*x.iter().max().unwrap());
            let powers: Vec<f64> = x.iter().map(|&x| ((f64::from(x) - most) * scale).exp()).collect();
            let sum: f64 = powers.iter().sum();
            for (power, &given) in powers.iter().zip(given) {
                let expected = (power / sum * 65536.0 - 32768.0).min(32767.0);
                prop_assert!((f64::from(given) - expected).abs() < 2.0, "{} is not {}", given, expected);
            }
        }
    }

    #[test]
    fn softmax_f32(rows in 1..4usize, length in 1..40usize, in_place: bool, seed: u64) {
        let x: Vec<f32> = Random(seed).floats(rows * length).iter().map(|x| x * 10.0).collect();
        let record = tensor(f32::DTYPE, &[rows, length], 0);
        let step = Step {
            op: OpCode::SoftmaxF32,
            inputs: vec![(record, f32::bytes(&x))],
            output: record,
            weights: vec![],
            parameters: vec![],
            in_place,
        };
        let given = f32::values(&step.run().unwrap());
        for (x, given) in x.chunks(length).zip(given.chunks(length)) {
            let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            for (&x, &given) in x.iter().zip(given) {
                prop_assert!((f64::from(given) - f64::from(x).exp() / sum).abs() < 1e-6);
            }
        }
    }
}

/// TensorFlow Lite's parameters of an addition.
fn add_parameters([first, second, output]: [f64; 3], [act_min, act_max]: [i32; 2]) -> add::IntegerParameters {
    let left_shift = 20;
    let common = 2.0 * first.max(second);
    let (multiplier_1, shift_1) = quant::quantize_multiplier(first / common);
    let (multiplier_2, shift_2) = quant::quantize_multiplier(second / common);
    let (output_multiplier, output_shift) =
        quant::quantize_multiplier(common / (f64::from(1 << left_shift) * output));
    add::IntegerParameters {
        left_shift,
        multiplier_1,
        shift_1,
        multiplier_2,
        shift_2,
        output_multiplier,
        output_shift,
        act_min,
        act_max,
    }
}

/// TensorFlow Lite's parameters of a softmax of inputs with a scale.
fn softmax_parameters(scale: f64) -> softmax::Parameters {
    let factor = (scale * f64::from(1 << 26)).min(f64::from(i32::MAX));
    let (multiplier, left_shift) = quant::quantize_multiplier(factor);
    let diff_min = -((31.0 * f64::from(1 << 26) / f64::powi(2.0, left_shift)).floor()) as i32;
    softmax::Parameters { multiplier, left_shift, diff_min }
}

fn softmax_step(x: &[i8], shape: &[usize], scale: f64, in_place: bool) -> Step {
    let mut output = tensor(i8::DTYPE, shape, -128);
    output.scale_bits = (1f32 / 256.0).to_bits();
    Step {
        op: OpCode::SoftmaxI8,
        inputs: vec![(tensor(i8::DTYPE, shape, 7), i8::bytes(x))],
        output,
        weights: vec![],
        parameters: softmax_parameters(scale).emit().to_vec(),
        in_place,
    }
}

#[test]
fn table_i8() {
    let mut random = Random(3);
    let table: Vec<i8> = random.integers(256, -128, 127);
    let x: Vec<i8> = (-128..=127).collect();
    for in_place in [false, true] {
        let record = tensor(i8::DTYPE, &[4, 64], 0);
        let step = Step {
            op: OpCode::TableI8,
            inputs: vec![(record, i8::bytes(&x))],
            output: record,
            weights: vec![(i8::DTYPE, i8::bytes(&table))],
            parameters: vec![],
            in_place,
        };
        assert_eq!(i8::values(&step.run().unwrap()), table);
    }
}

#[test]
fn unary_f32() {
    use unary::Kind;
    let x: Vec<f32> = (-2000..2000).map(|x| x as f32 * 0.31).collect();
    type Exact = fn(f64) -> f64;
    let exact: [(Kind, Exact); 4] = [
        (Kind::Clamp, |x| x),
        (Kind::Sin, f64::sin),
        (Kind::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (Kind::Tanh, f64::tanh),
    ];
    for (kind, function) in exact {
        for in_place in [false, true] {
            let record = tensor(f32::DTYPE, &[4, 1000], 0);
            let step = Step {
                op: OpCode::UnaryF32,
                inputs: vec![(record, f32::bytes(&x))],
                output: record,
                weights: vec![],
                parameters: unary::Parameters { kind, low: -0.75, high: f32::INFINITY }.emit().to_vec(),
                in_place,
            };
            for (&x, given) in x.iter().zip(f32::values(&step.run().unwrap())) {
                let expected = function(x.into()).max(-0.75);
                assert!(
                    (f64::from(given) - expected).abs() < 1e-6 * expected.abs().max(1.0),
                    "{kind:?} of {x}: {given}"
                );
            }
        }
    }
}
