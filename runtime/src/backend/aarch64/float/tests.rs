//! Chains of random layers against portable code, in arenas that end at an unreadable page.

use crate::backend::aarch64::available;
use crate::backend::vector::tests::{Guarded, Random};
use crate::blob::{BlobBuilder, DType, Packing, Space, TensorRecord};
use crate::host::Runner;
use crate::host::program::Program;
use crate::ops::{OpCode, add, conv2d, dense, pool2d};

fn float(random: &mut Random) -> f32 {
    random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
}

fn record(shape: [u32; 4]) -> TensorRecord {
    TensorRecord {
        space: Space::Arena,
        dtype: DType::F32,
        rank: 4,
        shape,
        offset: 0,
        window_rows: 0,
        slack: 0,
        scale_bits: 1f32.to_bits(),
        zero_point: 0,
    }
}

/// A chain of steps on `f32`, each in memory of its own.
struct Chain {
    builder: BlobBuilder,
    end: u32,
    last: (u16, TensorRecord),
}

impl Chain {
    fn new(shape: [u32; 4]) -> Self {
        let mut chain = Self { builder: BlobBuilder::new(), end: 0, last: (0, record(shape)) };
        chain.last.0 = chain.place(chain.last.1);
        chain.builder.inputs(&[chain.last.0]);
        chain
    }

    fn place(&mut self, tensor: TensorRecord) -> u16 {
        let placed = TensorRecord { offset: self.end, ..tensor };
        self.end += (placed.bytes().unwrap() as u32).next_multiple_of(16);
        self.builder.tensor(placed)
    }

    fn step(&mut self, op: OpCode, inputs: &[u16], shape: [u32; 4], weights: &[u16], parameters: &[u32]) {
        let output = record(shape);
        let id = self.place(output);
        self.builder.step(&format!("{op:?}"), op, inputs, &[id], weights, parameters, (0, 0));
        self.last = (id, output);
    }

    /// Weights of `depth` for each output, and biases; whether weights are of 16 bits.
    fn linear(&mut self, random: &mut Random, depth: u32, outputs: u32) -> (bool, [u16; 2]) {
        let half = random.below(2) == 0;
        let weights: Vec<u8> = (0..depth * outputs)
            .flat_map(|_| {
                // Sums of so many stay near 1. Binary16 of both signs, with any fraction.
                let most = f64::from(depth).sqrt().recip();
                let exponent = (15 + most.log2().floor() as i32) as u32;
                let bits = random.below(2) << 15 | (exponent - random.below(3)) << 10 | random.below(1 << 10);
                let single = float(random) * most as f32;
                if half { (bits as u16).to_le_bytes().to_vec() } else { single.to_le_bytes().to_vec() }
            })
            .collect();
        let bias: Vec<u8> = (0..outputs).flat_map(|_| float(random).to_le_bytes()).collect();
        let dtype = if half { DType::F16 } else { DType::F32 };
        let weights = self.builder.weight(dtype, Packing::Rows, &weights);
        (half, [weights, self.builder.weight(DType::F32, Packing::Rows, &bias)])
    }

    fn convolution(&mut self, random: &mut Random, outputs: u32, depthwise: bool) {
        let (id, TensorRecord { shape: [batch, rows, columns, inputs], .. }) = self.last;
        let kernel = random.one_of(&[[1, 1], [1, 1], [3, 3], [3, 3], [3, 1], [1, 5], [5, 5], [2, 2], [4, 7]]);
        let stride = random.one_of(&[[1, 1], [1, 1], [2, 2], [2, 1], [1, 3]]);
        let dilation = random.one_of(&[[1, 1], [1, 1], [1, 1], [2, 1], [1, 2]]);
        let pads = kernel.map(|most| [random.below(most), random.below(most)]);
        let extent = |axis: usize, input: u32| {
            let reach = (kernel[axis] - 1) * dilation[axis] + 1;
            (input + pads[axis][0] + pads[axis][1]).checked_sub(reach).map(|free| free / stride[axis] + 1)
        };
        let (Some(out_rows), Some(out_columns)) = (extent(0, rows), extent(1, columns)) else { return };
        let groups = match depthwise {
            true => inputs,
            false if inputs.is_multiple_of(2) && outputs.is_multiple_of(2) && random.below(5) == 0 => 2,
            false => 1,
        };
        let outputs = if depthwise { inputs } else { outputs };
        let (half, weights) = self.linear(random, kernel[0] * kernel[1] * inputs / groups, outputs);
        let [low, high] = bounds(random);
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
            act_min: low.to_bits(),
            act_max: high.to_bits(),
        };
        let op = match (depthwise, half) {
            (false, false) => OpCode::Conv2dF32,
            (false, true) => OpCode::Conv2dF16,
            (true, false) => OpCode::DepthwiseConv2dF32,
            (true, true) => OpCode::DepthwiseConv2dF16,
        };
        self.step(op, &[id], [batch, out_rows, out_columns, outputs], &weights, &parameters.emit());
    }

    fn dense(&mut self, random: &mut Random, outputs: u32) {
        let (id, TensorRecord { shape: [batch, rows, columns, inputs], .. }) = self.last;
        let (half, weights) = self.linear(random, inputs, outputs);
        let [act_min, act_max] = bounds(random).map(f32::to_bits);
        let op = if half { OpCode::DenseF16 } else { OpCode::DenseF32 };
        let parameters = dense::Parameters { act_min, act_max };
        self.step(op, &[id], [batch, rows, columns, outputs], &weights, &parameters.emit());
    }

    fn elementwise(&mut self, random: &mut Random) {
        let (id, TensorRecord { shape, .. }) = self.last;
        let [act_min, act_max] = bounds(random);
        let op = random.one_of(&[OpCode::AddF32, OpCode::MulF32]);
        self.step(op, &[id, id], shape, &[], &add::FloatParameters { act_min, act_max }.emit());
    }

    fn pool(&mut self, random: &mut Random) {
        let (id, TensorRecord { shape: [batch, rows, columns, channels], .. }) = self.last;
        let kernel = random.one_of(&[[2, 2], [3, 3], [1, 2]]);
        let pad = random.below(2).min(kernel[0] - 1);
        if rows + 2 * pad < kernel[0] || columns < kernel[1] {
            return;
        }
        let shape = [batch, (rows + 2 * pad - kernel[0]) / 2 + 1, columns - kernel[1] + 1, channels];
        let [low, high] = bounds(random);
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
            act_min: low.to_bits(),
            act_max: high.to_bits(),
        };
        let op = random.one_of(&[OpCode::MaxPool2dF32, OpCode::AveragePool2dF32]);
        self.step(op, &[id], shape, &[], &parameters.emit());
    }
}

fn bounds(random: &mut Random) -> [f32; 2] {
    random.one_of(&[[f32::NEG_INFINITY, f32::INFINITY], [0.0, f32::INFINITY], [-1.5, 2.0]])
}

/// Compares all backends on noise; gives the kernels that ran.
fn compare(blob: &[u8], random: &mut Random, what: &str) -> Vec<&'static str> {
    let mut portable = Runner::with_backend(blob, "scalar").unwrap();
    let elements = portable.inputs()[0].elements();
    let input: Vec<u8> = (0..elements).flat_map(|_| float(random).to_le_bytes()).collect();
    let expected = portable.run_raw(&[&input]).unwrap();
    let values =
        |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>();
    let expected = values(&expected[0]);
    let largest = expected.iter().fold(1f32, |most, value| most.max(value.abs()));
    let mut kernels = Vec::new();
    let model = portable.model();
    for set in available() {
        let program = Program::new(&model, set).unwrap();
        let fresh = program.arena();
        let mut guarded = Guarded::new(fresh.get().len());
        let arena = guarded.get_mut();
        arena.copy_from_slice(fresh.get());
        // What a border must not be spoilt by, and what was there before must not matter: twice.
        for _ in 0..2 {
            arena[program.input(0).unwrap()].copy_from_slice(&input);
            program.run_each(arena, &mut [], &mut |_, kernel| kernels.push(kernel)).unwrap();
            let found = values(&arena[program.output(0).unwrap()]);
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                let name = set.name();
                assert!((a - b).abs() <= 1e-5 * largest, "{name}: {what}: {at}: {a} is not {b} of {largest}");
            }
        }
    }
    kernels
}

#[test]
fn random_chains_agree_with_portable_code() {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for channels in 1..=67u32 {
        for case in 0..4 {
            let mut random = Random(u64::from(channels) << 8 | case | 1 << 40);
            let other = random.one_of(&[1, 4, 8, 13, 16, 17, 32, 48, 67]);
            let [inputs, outputs] = if case % 2 == 0 { [channels, other] } else { [other, channels] };
            let shape = [1 + random.below(4) / 3, 1 + random.below(11), 1 + random.below(11), inputs];
            let mut chain = Chain::new(shape);
            let mut what = format!("{channels}, {case}: {shape:?}");
            // Something always fits: a dense layer ends the chain.
            for _ in 0..random.below(4) {
                match random.below(8) {
                    0..=2 => chain.convolution(&mut random, outputs, false),
                    3..=4 => chain.convolution(&mut random, 0, true),
                    5 => chain.elementwise(&mut random),
                    _ => chain.pool(&mut random),
                }
                what += &format!(" {:?}", chain.last.1.shape);
            }
            chain.dense(&mut random, outputs);
            chain.builder.outputs(&[chain.last.0]);
            let blob = chain.builder.finish(chain.end, 0, 16).unwrap();
            for kernel in compare(&blob, &mut random, &what) {
                *counts.entry(kernel).or_default() += 1;
            }
        }
    }
    println!("{counts:?}");
    for kernel in
        ["conv2d_f32", "depthwise_conv2d_f32", "add_f32", "mul_f32", "max_pool2d_f32", "average_pool2d_f32"]
    {
        assert!(counts.get(kernel).is_some_and(|&count| count > 20), "{kernel} ran too seldom: {counts:?}");
    }
}
