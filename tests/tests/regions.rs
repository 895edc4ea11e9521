//! Regions: chains of convolutions that run row by row give what they give one after the other, in little memory; and what no region can be is refused.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tucano::blob::{BlobBuilder, DType, Packing, RegionRecord, Space, TensorRecord};
use tucano::host::{OpenError, Runner, backends};
use tucano::ops::window::Axis;
use tucano::ops::{OpCode, conv2d};
use tucano::region::Tiles;
use tucano::{Error, ErrorKind};

/// A step of a chain.
#[derive(Clone, Debug)]
struct Stage {
    depthwise: bool,
    kernel: [u32; 2],
    stride: [u32; 2],
    /// Top and bottom, left and right.
    pads: [u32; 2],
    outputs: u32,
    dtype: DType,
}

/// A chain, and how its region runs.
#[derive(Clone, Debug)]
struct Chain {
    input: [u32; 3],
    dtype: DType,
    stages: Vec<Stage>,
    rows: u16,
    seed: u32,
}

/// Reproducible bytes (xorshift, Marsaglia 2003).
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 >> 8
    }

    fn bytes(&mut self, count: usize, dtype: DType) -> Vec<u8> {
        let element = |noise: &mut Self| -> Vec<u8> {
            match dtype {
                DType::F32 => (noise.next() as f32 / 8e6 - 1.0).to_le_bytes().to_vec(),
                DType::I16 => (noise.next() as i16 >> 2).to_le_bytes().to_vec(),
                _ => vec![(noise.next() as u8).max(1)],
            }
        };
        (0..count).flat_map(|_| element(self)).collect()
    }
}

fn extent(input: u32, kernel: u32, stride: u32, pad: u32) -> Option<u32> {
    (input + 2 * pad).checked_sub(kernel).map(|free| free / stride + 1)
}

impl Chain {
    /// Extents of every tensor, the input first; `None` where a window does not fit.
    fn shapes(&self) -> Option<Vec<[u32; 3]>> {
        let mut shapes = vec![self.input];
        for stage in &self.stages {
            let [rows, columns, channels] = shapes[shapes.len() - 1];
            let rows = extent(rows, stage.kernel[0], stage.stride[0], stage.pads[0])?;
            let columns = extent(columns, stage.kernel[1], stage.stride[1], stage.pads[1])?;
            shapes.push([rows, columns, if stage.depthwise { channels } else { stage.outputs }]);
        }
        Some(shapes)
    }

    fn tiles(&self, shapes: &[[u32; 3]]) -> Tiles {
        let axes = self.stages.iter().zip(shapes.windows(2)).map(|(stage, pair)| Axis {
            input: pair[0][0] as usize,
            output: pair[1][0] as usize,
            kernel: stage.kernel[0] as usize,
            stride: stage.stride[0] as usize,
            dilation: 1,
            pad: stage.pads[0] as usize,
        });
        Tiles::new(axes, self.rows.into()).expect("a chain")
    }

    fn op(&self, stage: &Stage, from: DType) -> OpCode {
        match (stage.depthwise, from, stage.dtype) {
            (false, DType::F32, _) => OpCode::Conv2dF32,
            (true, DType::F32, _) => OpCode::DepthwiseConv2dF32,
            (false, DType::I8, DType::I8) => OpCode::Conv2dI8,
            (true, DType::I8, DType::I8) => OpCode::DepthwiseConv2dI8,
            (false, ..) => OpCode::Conv2dI16,
            (true, ..) => OpCode::DepthwiseConv2dI16,
        }
    }

    /// The blob, with or without a region; `spoil` changes the tensors behind the input. `overwrite`: the last output takes the input's place.
    fn blob(
        &self,
        region: bool,
        overwrite: bool,
        spoil: impl Fn(usize, &mut TensorRecord),
    ) -> Option<(Vec<u8>, u32)> {
        let shapes = self.shapes()?;
        let windows = self.tiles(&shapes).windows();
        let mut noise = Noise(self.seed | 1);
        let mut builder = BlobBuilder::new();
        let mut arena = 0u32;
        let last = self.stages.len();
        let dtypes: Vec<DType> =
            [self.dtype].into_iter().chain(self.stages.iter().map(|stage| stage.dtype)).collect();
        let mut ids = Vec::new();
        for (k, ([rows, columns, channels], dtype)) in shapes.iter().zip(&dtypes).enumerate() {
            let window_rows = if region && k > 0 && k < last { windows[k - 1] as u16 } else { 0 };
            let mut record = TensorRecord {
                space: Space::Arena,
                dtype: *dtype,
                rank: 4,
                shape: [1, *rows, *columns, *channels],
                offset: if overwrite && k == last { 0 } else { arena },
                window_rows,
                slack: 0,
                scale_bits: 1f32.to_bits(),
                zero_point: if *dtype == DType::I8 { 3 - k as i32 } else { 0 },
            };
            spoil(k, &mut record);
            arena += (record.stored_bytes().unwrap_or(0) as u32).next_multiple_of(16);
            ids.push(builder.tensor(record));
        }
        for (k, stage) in self.stages.iter().enumerate() {
            let (from, outputs) = (dtypes[k], shapes[k + 1][2]);
            let inputs = shapes[k][2];
            let taps = stage.kernel[0] * stage.kernel[1];
            let depth = if stage.depthwise { taps } else { taps * inputs };
            let (weight, bias) =
                if from == DType::F32 { (DType::F32, DType::F32) } else { (DType::I8, DType::I32) };
            let words = |value: i32| -> Vec<u8> { (0..outputs).flat_map(|_| value.to_le_bytes()).collect() };
            let weights = noise.bytes((outputs * depth) as usize, weight);
            let biases = if from == DType::F32 { noise.bytes(outputs as usize, bias) } else { words(97) };
            let wide =
                (if from == DType::I16 { 7 } else { 0 }) - (if stage.dtype == DType::I16 { 7 } else { 0 });
            let shift = -(4 + depth.ilog2() as i32 / 2 + wide);
            let mut constants = vec![
                builder.weight(weight, Packing::Rows, &weights),
                builder.weight(bias, Packing::Rows, &biases),
            ];
            if from != DType::F32 {
                constants.push(builder.weight(DType::I32, Packing::Rows, &words(1_500_000_000)));
                constants.push(builder.weight(DType::I32, Packing::Rows, &words(shift)));
            }
            let bounds = match stage.dtype {
                DType::F32 => [f32::NEG_INFINITY.to_bits(), f32::INFINITY.to_bits()],
                DType::I16 => [-32768i32 as u32, 32767],
                _ => [-128i32 as u32, 127],
            };
            let parameters = conv2d::Parameters {
                stride_h: stage.stride[0],
                stride_w: stage.stride[1],
                pad_top: stage.pads[0],
                pad_left: stage.pads[1],
                pad_bottom: stage.pads[0],
                pad_right: stage.pads[1],
                dilation_h: 1,
                dilation_w: 1,
                kernel_h: stage.kernel[0],
                kernel_w: stage.kernel[1],
                groups: if stage.depthwise { inputs } else { 1 },
                act_min: bounds[0],
                act_max: bounds[1],
            };
            let (input, output) = ([ids[k]], [ids[k + 1]]);
            let op = self.op(stage, from);
            builder.step("stage", op, &input, &output, &constants, &parameters.emit(), (0, 0));
        }
        if region {
            builder.region(RegionRecord { first: 0, count: last as u16, rows: self.rows });
        }
        builder.inputs(&ids[..1]);
        builder.outputs(&ids[last..]);
        Some((builder.finish(arena, 0, 16).expect("a blob"), arena))
    }

    /// Runs portable code in turns; every other backend runs the steps whole and must give the same.
    fn run(&self, blob: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut runner = Runner::with_backend(&blob, "scalar").map_err(|error| match error {
            OpenError::Blob(error) => error,
            OpenError::Backend(name) => panic!("no backend {name}"),
        })?;
        let elements = self.input.iter().product::<u32>() as usize;
        let input = Noise(self.seed ^ 0x9E37_79B9 | 1).bytes(elements, self.dtype);
        let output = runner.run_raw(&[&input])?.remove(0);
        for name in backends().into_iter().filter(|_| self.dtype != DType::F32) {
            let given =
                Runner::with_backend(&blob, name).expect("a sound blob").run_raw(&[&input])?.remove(0);
            assert_eq!(given, output, "{name}");
        }
        Ok(output)
    }
}

fn stage(integers: bool) -> impl Strategy<Value = Stage> {
    let kernel = prop::sample::select(vec![[1, 1], [3, 3], [5, 3], [3, 1], [1, 3], [2, 2]]);
    let dtypes = if integers { vec![DType::I8, DType::I8, DType::I16] } else { vec![DType::F32] };
    let stride = prop::sample::select(vec![[1, 1], [1, 1], [2, 2], [1, 2]]);
    (any::<bool>(), kernel, stride, [0u32..3, 0u32..3], 1u32..7, prop::sample::select(dtypes)).prop_map(
        |(depthwise, kernel, stride, pads, outputs, dtype)| {
            let pads = [pads[0].min(kernel[0] - 1), pads[1].min(kernel[1] - 1)];
            Stage { depthwise, kernel, stride, pads, outputs, dtype }
        },
    )
}

fn chain() -> impl Strategy<Value = Chain> {
    any::<bool>().prop_flat_map(|integers| {
        let dtype = if integers { DType::I8 } else { DType::F32 };
        ([1u32..14, 1u32..9, 1u32..7], prop::collection::vec(stage(integers), 2..=4), 1u16..5, any::<u32>())
            .prop_map(move |(input, stages, rows, seed)| Chain { input, dtype, stages, rows, seed })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_region_gives_what_its_steps_give(chain in chain()) {
        let Some((whole, arena)) = chain.blob(false, false, |_, _| ()) else {
            return Err(TestCaseError::reject("a window does not fit"));
        };
        let (tiled, less) = chain.blob(true, false, |_, _| ()).expect("shapes");
        prop_assert!(less <= arena);
        let expected = chain.run(whole).expect("steps");
        prop_assert_eq!(&expected, &chain.run(tiled).expect("region"));
        let shapes = chain.shapes().expect("shapes");
        let same = shapes.first() == shapes.last() && chain.stages.last().map(|stage| stage.dtype) == Some(chain.dtype);
        if same {
            let (replacing, _) = chain.blob(true, true, |_, _| ()).expect("shapes");
            match chain.tiles(&shapes).replaces_input() {
                true => prop_assert_eq!(&expected, &chain.run(replacing).expect("region in place")),
                false => prop_assert!(chain.run(replacing).is_err()),
            }
        }
    }
}

/// 1x1, 3x3 for each channel, 1x1.
fn polyadic() -> Chain {
    let stage = |depthwise: bool, kernel: u32, outputs| Stage {
        depthwise,
        kernel: [kernel; 2],
        stride: [1; 2],
        pads: [kernel / 2; 2],
        outputs,
        dtype: DType::I8,
    };
    let stages = vec![stage(false, 1, 24), stage(true, 3, 24), stage(false, 1, 8)];
    Chain { input: [16, 16, 8], dtype: DType::I8, stages, rows: 1, seed: 7 }
}

#[test]
fn a_replaced_input_leaves_only_windows() {
    let chain = polyadic();
    let (whole, all) = chain.blob(false, false, |_, _| ()).unwrap();
    let (tiled, few) = chain.blob(true, true, |_, _| ()).unwrap();
    assert_eq!(chain.run(whole).unwrap(), chain.run(tiled).unwrap());
    let row = 16 * 24;
    // Three rows under the window, and one row behind it; the last output was counted though it takes no place of its own.
    assert_eq!((all, few), (2 * 2048 + 2 * 16 * row, 2 * 2048 + 3 * row + row));
}

#[test]
fn what_no_region_can_be_is_refused() {
    let chain = polyadic();
    let refused = |spoil: &dyn Fn(usize, &mut TensorRecord)| {
        let (blob, _) = chain.blob(true, false, spoil).unwrap();
        Runner::new(blob).map(|_| ()).map_err(|error| error.kind)
    };
    assert_eq!(refused(&|_, _| ()), Ok(()));
    let short = refused(&|k, tensor| {
        if k == 1 {
            tensor.window_rows -= 1
        }
    });
    assert_eq!(short, Err(ErrorKind::Region), "a window is too short");
    assert_eq!(
        refused(&|k, tensor| if k == 2 {
            tensor.window_rows = 0
        }),
        Err(ErrorKind::Region),
        "no window"
    );
    let long = refused(&|k, tensor| {
        if k == 1 {
            tensor.window_rows = 17
        }
    });
    assert_eq!(long, Err(ErrorKind::Tensor), "a window has more rows than its tensor");
    // The second window in the place of the input: that lives on.
    assert_eq!(
        refused(&|k, tensor| if k == 2 {
            tensor.offset = 0
        }),
        Err(ErrorKind::Region),
        "memory in use"
    );
    let windows_alone = {
        let mut spoiled = chain.clone();
        spoiled.rows = 1;
        let (blob, _) = spoiled
            .blob(false, false, |k, tensor| {
                if k == 1 {
                    tensor.window_rows = 3
                }
            })
            .unwrap();
        Runner::new(blob).map(|_| ()).map_err(|error| error.kind)
    };
    assert_eq!(windows_alone, Err(ErrorKind::Region), "a window outside a region");
}
