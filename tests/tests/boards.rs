//! A small int8 network with every integer operator runs on every emulated core and gives the host's bytes; firmware cannot panic, and
//! integer firmware holds no float arithmetic. Needs what boards/setup.sh installs: without it these tests fail and say so.

use tucano::backend::spec::select::Isa;
use tucano::blob::{BlobBuilder, DType, Fingerprint, Packing, Space, TensorRecord, winograd};
use tucano::host::Runner;
use tucano::ops::{OpCode, add, conv2d, dense, permute, pool2d, softmax};
use tucano::quant::quantize_multiplier;
use tucano_converter::boards::cycles::{self, Modelled};
use tucano_converter::boards::elf::Image;
use tucano_converter::boards::firmware::{self, OptLevel, Program};
use tucano_converter::boards::toolchain::Toolchain;
use tucano_converter::boards::{self, BOARDS, Board, Error};
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;
use tucano_tests::target::laid_out;
use tucano_tests::{models, read};

const SAMPLES: usize = 3;

/// An error as the command line shows it: with what would help.
fn shown<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

/// Reproducible bytes (xorshift, Marsaglia 2003).
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 11) as u8).collect()
    }
}

/// A network under construction: tensors lie behind each other in the arena.
struct Net {
    blob: BlobBuilder,
    noise: Noise,
    arena: u32,
}

/// Bytes of code that the validation of all operators takes at least.
const VALIDATION: u64 = 4096;

const I8_RANGE: (i32, i32) = (-128, 127);
const I16_RANGE: (i32, i32) = (-32768, 32767);

impl Net {
    fn tensor(&mut self, dtype: DType, shape: [u32; 4], scale: f32, zero_point: i32) -> u16 {
        let offset = self.arena;
        let bytes = shape.iter().product::<u32>() * dtype.bytes() as u32;
        self.arena += bytes.next_multiple_of(16);
        let (space, rank, scale_bits) = (Space::Arena, 4, scale.to_bits());
        self.blob.tensor(TensorRecord {
            space,
            dtype,
            rank,
            shape,
            offset,
            window_rows: 0,
            slack: 0,
            scale_bits,
            zero_point,
        })
    }

    /// Weights, bias, multipliers and shifts of a linear step: sums of about `taps` products of two bytes come to about `range`.
    fn linear(&mut self, outputs: usize, taps: usize, range: f64) -> [u16; 4] {
        self.linear_of(DType::I8, outputs, taps, range)
    }

    /// Like [`Net::linear`], for weights of 4 bits, or of 8.
    fn linear_of(&mut self, dtype: DType, outputs: usize, taps: usize, range: f64) -> [u16; 4] {
        self.constants(dtype, Packing::Rows, outputs, taps, range)
    }

    /// Like [`Net::linear`], for windows 3 x 3 over `inputs` channels whose weights are transformed.
    fn transformed(&mut self, outputs: usize, inputs: usize, range: f64) -> [u16; 4] {
        self.constants(DType::I8, Packing::Winograd, outputs, 9 * inputs, range)
    }

    fn constants(
        &mut self,
        dtype: DType,
        packing: Packing,
        outputs: usize,
        taps: usize,
        range: f64,
    ) -> [u16; 4] {
        let (row, size) = if dtype == DType::I4x2 { (taps.div_ceil(2), 4.6) } else { (taps, 73.0) };
        // Weights are symmetric: no -128.
        let mut weights: Vec<u8> = self
            .noise
            .bytes(outputs * row)
            .into_iter()
            .map(|byte| if byte == 0x80 { 0x81 } else { byte })
            .collect();
        if packing == Packing::Winograd {
            let rows: Vec<i8> = weights.iter().map(|byte| byte.cast_signed()).collect();
            let mut stored = vec![0; winograd::bytes(taps / 9, outputs).unwrap()];
            winograd::pack(&rows, taps / 9, outputs, &mut stored).unwrap();
            weights = stored.iter().map(|byte| byte.cast_unsigned()).collect();
        }
        let bias = (0..outputs).flat_map(|_| (self.noise.next() % 2048).to_le_bytes()).collect();
        let typical = range / (73.0 * size * (taps as f64).sqrt());
        let factors: Vec<_> =
            (0..outputs).map(|k| quantize_multiplier(typical * (0.5 + k as f64 / outputs as f64))).collect();
        let multipliers = factors.iter().flat_map(|(multiplier, _)| multiplier.to_le_bytes()).collect();
        let shifts = factors.iter().flat_map(|(_, shift)| shift.to_le_bytes()).collect();
        let weights = self.blob.weight(dtype, packing, &weights);
        let words: [Vec<u8>; 3] = [bias, multipliers, shifts];
        let [bias, multipliers, shifts] =
            words.map(|bytes| self.blob.weight(DType::I32, Packing::Rows, &bytes));
        [weights, bias, multipliers, shifts]
    }

    fn step(&mut self, op: OpCode, inputs: &[u16], output: u16, weights: &[u16], parameters: &[u32]) {
        self.blob.step(&format!("{op:?}").to_lowercase(), op, inputs, &[output], weights, parameters, (0, 0));
    }
}

/// A square convolution of stride 1 that keeps the extents.
fn same(kernel: u32, groups: u32, act: (i32, i32)) -> [u32; 13] {
    let pad = kernel / 2;
    let [act_min, act_max] = [act.0, act.1].map(|bound| bound as u32);
    conv2d::Parameters {
        stride_h: 1,
        stride_w: 1,
        pad_top: pad,
        pad_left: pad,
        pad_bottom: pad,
        pad_right: pad,
        dilation_h: 1,
        dilation_w: 1,
        kernel_h: kernel,
        kernel_w: kernel,
        groups,
        act_min,
        act_max,
    }
    .emit()
}

fn halved() -> [u32; 11] {
    pool2d::Parameters {
        stride_h: 2,
        stride_w: 2,
        pad_top: 0,
        pad_left: 0,
        pad_bottom: 0,
        pad_right: 0,
        kernel_h: 2,
        kernel_w: 2,
        count_include_pad: 0,
        act_min: I8_RANGE.0 as u32,
        act_max: I8_RANGE.1 as u32,
    }
    .emit()
}

/// An image 8x8x4 through every integer operator to 8 rows of 10 classes.
fn network() -> Vec<u8> {
    let mut net = Net { blob: BlobBuilder::new(), noise: Noise(0x2545_F491), arena: 0 };
    let dense = dense::Parameters { act_min: I8_RANGE.0 as u32, act_max: I8_RANGE.1 as u32 }.emit();

    let input = net.tensor(DType::I8, [1, 8, 8, 4], 0.02, 3);
    let first = net.tensor(DType::I8, [1, 8, 8, 8], 0.05, -7);
    let weights = net.linear(8, 36, 60.0);
    net.step(OpCode::Conv2dI8, &[input], first, &weights, &same(3, 1, I8_RANGE));
    let transformed = net.tensor(DType::I8, [1, 8, 8, 8], 0.05, 9);
    let weights = net.transformed(8, 8, 60.0);
    net.step(OpCode::WinogradConv2dI8, &[first], transformed, &weights, &same(3, 1, (-120, 127)));
    let second = net.tensor(DType::I8, [1, 8, 8, 8], 0.05, 11);
    let weights = net.linear(8, 9, 60.0);
    net.step(OpCode::DepthwiseConv2dI8, &[transformed], second, &weights, &same(3, 8, (-100, 120)));

    let sum = net.tensor(DType::I8, [1, 8, 8, 8], 0.08, 0);
    let half = quantize_multiplier(0.5);
    let out = quantize_multiplier(0.1 / (0.08 * f64::from(1 << 20)));
    let parameters = add::IntegerParameters {
        left_shift: 20,
        multiplier_1: half.0,
        shift_1: half.1,
        multiplier_2: half.0,
        shift_2: half.1,
        output_multiplier: out.0,
        output_shift: out.1,
        act_min: I8_RANGE.0,
        act_max: I8_RANGE.1,
    };
    let third = net.tensor(DType::I8, [1, 8, 8, 8], 0.05, 11);
    let weights = net.linear_of(DType::I4x2, 8, 72, 60.0);
    net.step(OpCode::Conv2dI4, &[second], third, &weights, &same(3, 1, I8_RANGE));
    net.step(OpCode::AddI8, &[first, third], sum, &[], &parameters.emit());
    let table: Vec<u8> = (0..=255).map(|entry: u8| (entry ^ 0x80).wrapping_neg()).collect();
    let table = net.blob.weight(DType::I8, Packing::Rows, &table);
    let mapped = net.tensor(DType::I8, [1, 8, 8, 8], 0.08, 0);
    net.step(OpCode::TableI8, &[sum], mapped, &[table], &[]);
    let pooled = net.tensor(DType::I8, [1, 4, 4, 8], 0.08, 0);
    net.step(OpCode::MaxPool2dI8, &[mapped], pooled, &[], &halved());

    // Down to three rank channels of 16 bits, a convolution there, and up again.
    let narrow = net.tensor(DType::I16, [1, 4, 4, 3], 0.001, 0);
    let weights = net.linear(3, 8, 9000.0);
    net.step(OpCode::Conv2dI16, &[pooled], narrow, &weights, &same(1, 1, I16_RANGE));
    let inner = net.tensor(DType::I16, [1, 4, 4, 3], 0.001, 0);
    let weights = net.linear(3, 9, 70.0);
    net.step(OpCode::DepthwiseConv2dI16, &[narrow], inner, &weights, &same(3, 3, I16_RANGE));
    let wide = net.tensor(DType::I8, [1, 4, 4, 8], 0.08, 5);
    let weights = net.linear(8, 3, 0.4);
    net.step(OpCode::DenseI16, &[inner], wide, &weights, &dense);

    let turned = net.tensor(DType::I8, [1, 8, 4, 4], 0.08, 5);
    net.step(OpCode::PermuteI8, &[wide], turned, &[], &permute::Parameters { order: [0, 3, 1, 2] }.emit());
    let small = net.tensor(DType::I8, [1, 4, 2, 4], 0.08, 5);
    net.step(OpCode::AveragePool2dI8, &[turned], small, &[], &halved());
    let flat = net.tensor(DType::I8, [1, 4, 2, 10], 0.1, 0);
    let weights = net.linear(10, 4, 60.0);
    net.step(OpCode::DenseI8, &[small], flat, &weights, &dense);
    let odd = net.tensor(DType::I8, [1, 4, 2, 5], 0.1, 2);
    let weights = net.linear_of(DType::I4x2, 5, 10, 60.0);
    net.step(OpCode::DenseI4, &[flat], odd, &weights, &dense);
    let flat = net.tensor(DType::I8, [1, 4, 2, 10], 0.1, 0);
    let weights = net.linear_of(DType::I4x2, 10, 5, 60.0);
    net.step(OpCode::DenseI4, &[odd], flat, &weights, &dense);
    let output = net.tensor(DType::I8, [1, 4, 2, 10], 1.0 / 256.0, -128);
    let (multiplier, left_shift) = quantize_multiplier(0.1 * f64::from(1 << 26));
    let parameters = softmax::Parameters { multiplier, left_shift, diff_min: -248 };
    net.step(OpCode::SoftmaxI8, &[flat], output, &[], &parameters.emit());

    // In two groups, for an output of its own.
    let grouped = net.tensor(DType::I8, [1, 8, 8, 8], 0.05, 2);
    let weights = net.linear(8, 36, 60.0);
    net.step(OpCode::Conv2dI8, &[second], grouped, &weights, &same(3, 2, I8_RANGE));

    net.blob.inputs(&[input]);
    net.blob.outputs(&[output, grouped]);
    net.blob.model_name("every integer operator");
    net.blob.finish(net.arena, 0, 16).unwrap()
}

#[test]
fn every_board_gives_the_bytes_of_the_host() {
    let blob = network();
    let mut runner = Runner::new(&blob).unwrap();
    let sample_bytes = runner.inputs()[0].elements();
    let inputs = Noise(0x9E37_79B9).bytes(SAMPLES * sample_bytes);
    let expected: Vec<Vec<u8>> =
        inputs.chunks(sample_bytes).map(|sample| runner.run_raw(&[sample]).unwrap().concat()).collect();
    assert!(expected[0] != expected[1] && expected[1] != expected[2], "the samples tell nothing");

    println!(
        "{:10} {:>8} {:>13} {:>6} {:>6} {:>6}",
        "board", "backend", "instructions", "code", "arena", "stack"
    );
    for board in BOARDS {
        let blob = laid_out(&blob, board.kernels.isa());
        let (report, outputs) = shown(boards::run(&blob, board, &inputs, SAMPLES, OptLevel::S, &|_| ()));
        // Where no kernel takes transformed weights, that step says so.
        let portable = board.kernels.isa() != Isa::ThumbDsp;
        let transformed = |warning: &&String| portable && warning.contains("`winogradconv2di8`");
        let (told, others): (Vec<_>, Vec<_>) = report.warnings.iter().partition(transformed);
        assert_eq!(told.len(), usize::from(portable), "{}", board.name);
        assert!(others.is_empty(), "{}: {others:#?}", board.name);
        println!(
            "{:10} {:>8} {:>13.0} {:>6} {:>6} {:>6}",
            report.board,
            report.backend,
            report.instructions,
            report.code_bytes,
            report.arena_bytes,
            report.stack_bytes
        );
        assert_eq!(outputs, expected.concat(), "{}", board.name);
        assert_eq!(report.steps.len(), runner.model().step_count() as usize);
        let steps: f64 = report.steps.iter().map(|step| step.instructions).sum();
        let [least, most] = report.instructions_range;
        let slack = board.instructions_per_tick * (report.steps.len() + 1) as f64;
        assert!(
            steps > 0.9 * least - slack && steps < 1.1 * most + slack,
            "{steps} in steps, {least} to {most} in all"
        );
        assert!(report.stack_bytes > 0 && report.stack_bytes < 2048, "{} bytes of stack", report.stack_bytes);
        assert!(
            report.code_bytes > 1000 && report.code_bytes < 64 * 1024,
            "{} bytes of code",
            report.code_bytes
        );
    }
}

/// Blobs that nothing has validated, on the kernels of each core. On the host it is `fuzz_load` that tries them.
#[test]
fn what_nothing_has_validated_stays_in_its_memory() {
    const CASES: u32 = 200;
    for name in ["qemu-m0", "qemu-m3", "qemu-m4", "qemu-m33", "qemu-m55"] {
        let board = shown(boards::find(name));
        let blob = laid_out(&network(), board.kernels.isa());
        let ended = shown(boards::mutants(&blob, board, OptLevel::Three, CASES, 1));
        println!("{name:10} {CASES} damaged blobs, {ended} ran to the end");
        assert!(ended > CASES / 20 && ended < CASES, "{name}: {ended} of {CASES} ran to the end");
    }
}

/// Models the cycles of one inference; the trace must hold as many instructions as the board's counter says, within 1 %.
fn modelled(blob: &[u8], board: &'static Board, input: &[u8], opt_level: OptLevel) -> Option<Modelled> {
    let (report, _) = shown(boards::run(blob, board, input, 1, opt_level, &|_| ()));
    assert_eq!(report.modelled_cycles, None, "a run follows no instructions");
    let firmware = shown(boards::build(blob, board, opt_level));
    let modelled = shown(cycles::model(board, &firmware, blob, input))?;
    let (traced, counted) = (modelled.instructions as f64, report.instructions);
    println!(
        "{:10} {counted:>9.0} instructions counted, {traced:>9.0} traced, {:>9} cycles modelled, {:.2} an instruction",
        board.name,
        modelled.cycles,
        modelled.cycles as f64 / traced
    );
    let slack = 2.0 * board.instructions_per_tick;
    assert!((traced - counted).abs() < 0.01 * counted + slack, "{traced} traced, {counted} counted");
    Some(modelled)
}

#[test]
fn modelled_cycles_follow_the_counted_instructions() {
    let data = models().join("phm_mlp_dense.npz");
    let (graph, data) = read(&models().join("phm_mlp_dense.onnx"), &data, None).unwrap();
    let options = Options { int8: true, ..Options::default() };
    let converted = convert(&graph, Some(&data), &options, &Silent).unwrap();
    let runner = Runner::new(&converted.blob).unwrap();
    let input = runner.quantise(&data.sample(0)).unwrap().concat();
    let of = |name| {
        let board = shown(boards::find(name));
        modelled(&converted.blob_for(board.kernels).unwrap(), board, &input, OptLevel::Three)
    };
    let m4 = of("qemu-m4").unwrap();
    // A Cortex-M4 has no instruction that takes less than a cycle, and loads alone cannot double them all.
    assert!(m4.cycles > m4.instructions && m4.cycles < 2 * m4.instructions, "{m4:?}");
    assert!(m4.model.contains("DDI 0439"), "{m4:?}");
    assert_eq!(of("qemu-m4"), Some(m4), "the model repeats itself");
    assert_eq!(of("qemu-m7"), None, "there is no table");

    // Every integer operator, on cores of each table.
    let blob = network();
    let runner = Runner::new(&blob).unwrap();
    let input = Noise(0x9E37_79B9).bytes(runner.inputs()[0].elements());
    for board in ["qemu-m0", "qemu-m3", "qemu-m4", "qemu-m55"].map(|name| shown(boards::find(name))) {
        let blob = laid_out(&blob, board.kernels.isa());
        assert!(modelled(&blob, board, &input, OptLevel::S).is_some());
    }
}

/// Linking is the proof: the panic handler of the minimal firmware calls a function that does not exist.
#[test]
fn no_panic_is_reachable_and_integers_need_no_float_helpers() {
    let name = |op: &OpCode| format!("{op:?}");
    let all: Vec<String> = OpCode::ALL.iter().map(name).collect();
    let integers: Vec<String> =
        all.iter().filter(|name| !name.ends_with("F32") && !name.ends_with("F16")).cloned().collect();
    // One board for each target of the compiler; only one of them at opt-level z, to save time.
    for board in ["qemu-m0", "qemu-m3", "qemu-m4", "qemu-m33"].map(|name| shown(boards::find(name))) {
        let toolchain = shown(Toolchain::find(board.target));
        for opt_level in [OptLevel::Three, OptLevel::S, OptLevel::Z] {
            if opt_level == OptLevel::Z && board.name != "qemu-m3" {
                continue;
            }
            let build = |ops: &[String], fingerprint: Option<Fingerprint>| {
                let program = Program::Minimal {
                    ops: ops.to_vec(),
                    tiles: false,
                    kernels: None,
                    arena_bytes: 4096,
                    state_bytes: 64,
                    blob_bytes: 4096,
                    fingerprint,
                };
                let elf = shown(firmware::build(board, &program, opt_level, &toolchain));
                shown(Image::read(&elf))
            };
            let (any, integer) = (build(&all, None), build(&integers, None));
            let known = build(&all, Some(Fingerprint { length: 4096, structure: 1024, crc: 1 }));
            let spared = any.flash_bytes().saturating_sub(known.flash_bytes());
            assert!(
                spared > VALIDATION,
                "{spared} bytes less: validation is linked where it is not asked for"
            );
            let helpers = integer.soft_float_helpers();
            assert!(helpers.is_empty(), "{} at opt-level {}: {helpers:?}", board.name, opt_level.name());
            println!(
                "{:10} opt-level {}: {} bytes of code with the integer operators, {} with all",
                board.name,
                opt_level.name(),
                integer.flash_bytes(),
                any.flash_bytes()
            );
            // The check can fail: without a floating-point unit, float operators do need helpers.
            if board.name == "qemu-m0" {
                assert!(!any.soft_float_helpers().is_empty());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let board = shown(boards::find("microbit"));
    let mut net = Net { blob: BlobBuilder::new(), noise: Noise(1), arena: 0 };
    let input = net.tensor(DType::I8, [1, 100, 100, 2], 1.0, 0);
    net.arena = 0;
    let output = net.tensor(DType::I8, [1, 100, 100, 2], 1.0, 0);
    let table = net.blob.weight(DType::I8, Packing::Rows, &[0; 256]);
    net.step(OpCode::TableI8, &[input], output, &[table], &[]);
    net.blob.inputs(&[input]);
    net.blob.outputs(&[output]);
    let blob = net.blob.finish(net.arena, 0, 16).unwrap();
    let error = boards::build(&blob, board, OptLevel::S).unwrap_err();
    assert!(matches!(error, Error::RamTooSmall { bytes: 20032, .. }), "{error}");

    net.blob.weight(DType::I8, Packing::Rows, &vec![1; 256 * 1024]);
    let blob = net.blob.finish(net.arena, 0, 16).unwrap();
    let error = boards::build(&blob, board, OptLevel::S).unwrap_err();
    assert!(matches!(error, Error::BlobTooBig { bytes, .. } if bytes == blob.len()), "{error}");

    let error = boards::find("qemu-m9").unwrap_err();
    let help = miette::Diagnostic::help(&error).map(|help| help.to_string()).unwrap_or_default();
    assert!(help.contains("qemu-m4") && help.contains("microbit"), "{help}");
    let error = boards::build(b"TUCA", board, OptLevel::S).unwrap_err();
    assert!(matches!(error, Error::Blob { .. }), "{error}");
}
