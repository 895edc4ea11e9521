//! Instructions of steps on a core, as modelled by [`tucano::backend::spec`].
//!
//! Takes the steps of a blob ([`instructions`]), or the shapes of the stages that a candidate of the search would become
//! ([`candidate_instructions`]): the same units of work are counted for both, padding left out as the kernels leave it out. Gives counts of executed
//! instructions (of picoseconds for a host), requantisation of every intermediate value included; `None` where the core or one of its kernels has not been measured.

use tucano::backend::spec::dsp::winograd::TILE;
use tucano::backend::spec::float;
use tucano::backend::spec::select::{Isa, Linear, SCALAR, select};
use tucano::backend::spec::{Core, Kernel, Loops, Work};
use tucano::blob::winograd::INPUTS;
use tucano::blob::{DType, Packing, TensorRecord};
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano::ops::window::{Axis, Window};
use tucano::ops::{conv2d, pool2d, unary};
use tucano::{Model, OpSet, Step};

use super::{needs, pixels, plan_for};
use crate::calibrate::covariance::Geometry;
use crate::emit;
use crate::graph::{Graph, Op};
use crate::passes::{layout, legalize};
use crate::quantize::Widths;

/// Modelled instructions of each step of a blob; `None` also for a host, which is priced in picoseconds. Steps of a region are set up for each of its
/// turns.
pub fn instructions<O: OpSet>(model: &Model<'_, O>, core: Core) -> Option<Vec<u64>> {
    let price = |step: Step<'_>| {
        let kernel = core.kernel(OpCode::parse(step.op())?, step.selection(core.isa()).name)?;
        let work = work(&step, kernel)?;
        let once = kernel.rates.instructions(&work);
        let further = turns(model, step.index()).saturating_sub(1);
        if further == 0 {
            return Some(once);
        }
        // Only convolutions run in turns.
        let (window, _) = convolution(&step, &step.input(0)?, &step.output(0)?)?;
        Some(once + further * further_turn(kernel, &window, &work))
    };
    if core.is_host() {
        return None;
    }
    model.steps().map(price).collect()
}

/// How often a step runs: once for each turn of its region.
pub fn turns<O: OpSet>(model: &Model<'_, O>, step: u16) -> u64 {
    let turns = needs::region_of(model, step).and_then(|region| {
        let last = model.step(region.end().checked_sub(1)?)?.output(0)?;
        let [_, rows, ..] = last.shape;
        rows.div_ceil(u32::from(region.rows).max(1)).into()
    });
    turns.map_or(1, u64::from)
}

/// Instructions of one more turn of a stage that does `work` in all: a run that makes no outputs, the constants of its channels, and the rows that a
/// depthwise window reads in two turns.
fn further_turn(kernel: &Kernel, window: &Window, work: &Work) -> u64 {
    let mut again = Work::default();
    if let Loops::Tiles { .. } = kernel.loops {
        again.runs = work.runs;
        if kernel.op == OpCode::DepthwiseConv2dI8 {
            let kept = window.rows.reach().saturating_sub(window.rows.stride);
            again.tail = (kept * window.columns.input * window.inputs) as u64;
        }
    }
    kernel.rates.instructions(&again)
}

/// Modelled instructions that a convolution of bytes saves with transformed weights; `None` where the core has no kernel for them, or none of them was
/// measured.
pub fn saved_by_transform(core: Core, stage: &Geometry, narrow: bool) -> Option<u64> {
    let (isa, types) = (core.isa(), [DType::I8; 2]);
    let Linear::Conv2d { window, groups: 1 } = needs::convolution(stage) else { return None };
    let linear = Linear::Conv2d { window, groups: 1 };
    let transformed = needs::request_transformed(isa, linear, types, narrow, false);
    if transformed.packing != Packing::Winograd {
        return None;
    }
    let direct = needs::request(isa, linear, types, narrow, false);
    let direct = core.kernel(OpCode::Conv2dI8, select(isa, &direct).name)?;
    let kernel = core.kernel(OpCode::WinogradConv2dI8, select(isa, &transformed).name)?;
    let before = direct.rates.instructions(&conv_work(&window, 1, direct));
    before.checked_sub(kernel.rates.instructions(&winograd_work(&window, kernel))).filter(|saved| *saved > 0)
}

/// Modelled instructions of a layer that is lowered to `stages`, which run in so many turns (one: one after the other). `int8`: the widths of integers,
/// `None` for floats.
pub fn candidate_instructions(
    core: Core,
    int8: Option<Widths>,
    stages: &[Geometry],
    turns: usize,
) -> Option<u64> {
    let again = turns.saturating_sub(1) as u64;
    let price = |(k, stage): (usize, &Geometry)| {
        let numbers = match int8 {
            None => Numbers::Floats,
            Some(widths) if widths.wide() && stages.len() > 1 => Numbers::Words,
            Some(widths) if widths.four_bits(stage, stages.len()) => Numbers::Nibbles,
            Some(_) => Numbers::Bytes,
        };
        let inner = if matches!(numbers, Numbers::Words) { DType::I16 } else { DType::I8 };
        let end = |inside: bool| if inside { inner } else { DType::I8 };
        let types = [end(k > 0), end(k + 1 < stages.len())];
        let rows = int8.and_then(|widths| {
            let four_bits = widths.four_bits(stage, stages.len());
            let numbers = needs::Numbers { types, four_bits, narrow: None, transformed: false };
            pixels::of_rows(core.isa(), stage, numbers)
        });
        let stage = rows.as_ref().unwrap_or(stage);
        let kernel = core.kernel(operation(stage, numbers), name(core, stage, numbers, types))?;
        let work = linear_work(stage, kernel);
        let once = kernel.rates.instructions(&work);
        Some(once + again * further_turn(kernel, &needs::window(stage), &work))
    };
    stages.iter().enumerate().map(price).sum()
}

/// Mean magnitude of a channel's weights of 8 bits, where the greatest is 127 and nothing else is known.
const TYPICAL_WEIGHT: usize = 32;

/// Whether all outputs of a stage are likely to be narrow ([`tucano::blob::is_narrow`]).
fn is_likely_narrow(stage: &Geometry) -> bool {
    stage.row_len() * TYPICAL_WEIGHT * 128 < 1 << 23
}

/// The kernel of a stage apart from its input, before its weights are known.
fn name(core: Core, stage: &Geometry, numbers: Numbers, types: [DType; 2]) -> &'static str {
    let linear = match is_dense(stage) {
        true => Linear::Dense { inputs: stage.input[0], outputs: stage.output[0] },
        false => needs::convolution(stage),
    };
    match numbers {
        Numbers::Floats => return float::select(core.isa(), &linear).unwrap_or(SCALAR),
        Numbers::Nibbles => return SCALAR,
        Numbers::Bytes | Numbers::Words => {}
    }
    let narrow = is_likely_narrow(stage);
    select(core.isa(), &needs::request(core.isa(), linear, types, narrow, false)).name
}

/// Modelled instructions of a dense network's steps besides its linear layers, which candidates may replace; `int8`: as integers. `None`
/// also for a graph that no blob can hold.
pub fn fixed_instructions(graph: &Graph, core: Core, int8: bool) -> Option<u64> {
    let legal = legalize(graph).ok()?;
    let plan = plan_for(&legal, None, Isa::Scalar).ok()?;
    let program = emit::Program {
        graph: &legal,
        plan: &plan,
        quantized: None,
        labels: &[],
        half_weights: false,
        isa: Isa::Scalar,
    };
    let runner = Runner::new(&emit::emit(&program).ok()?).ok()?;
    let model = runner.model();
    let is_layer = |step: &layout::Step| {
        let output = legal.nodes[step.node].output;
        let layer = graph.nodes.iter().any(|node| node.output == output && node.op.weight().is_some());
        layer && !matches!(step.kind, layout::Kind::Permute(_))
    };
    let steps = model.steps().zip(&plan.layout.steps).filter(|(_, planned)| !is_layer(planned));
    let price = |(step, planned): (Step<'_>, &layout::Step)| {
        if let Some(stage) = Geometry::of(&legal, &legal.nodes[planned.node]).filter(|_| int8) {
            return candidate_instructions(core, Some(Widths::default()), &[stage], 1);
        }
        let float = OpCode::parse(step.op())?;
        let whole = matches!(legal.nodes[planned.node].op, Op::Mean { .. });
        let op = if int8 { integer_twin(float, whole) } else { float };
        let [rates, loops] = [op, float].map(|op| core.kernel(op, SCALAR));
        Some(rates?.rates.instructions(&work(&step, loops?)?))
    };
    steps.map(price).sum()
}

/// What an integer model has in place of a float step; `whole`: a mean over the whole image.
fn integer_twin(float: OpCode, whole: bool) -> OpCode {
    match float {
        OpCode::Conv2dF32 => OpCode::Conv2dI8,
        OpCode::DepthwiseConv2dF32 => OpCode::DepthwiseConv2dI8,
        OpCode::DenseF32 => OpCode::DenseI8,
        OpCode::MaxPool2dF32 => OpCode::MaxPool2dI8,
        OpCode::AveragePool2dF32 if whole => OpCode::Mean2dI8,
        OpCode::AveragePool2dF32 => OpCode::AveragePool2dI8,
        OpCode::AddF32 => OpCode::AddI8,
        OpCode::UnaryF32 => OpCode::TableI8,
        OpCode::SoftmaxF32 => OpCode::SoftmaxI8,
        OpCode::PermuteF32 => OpCode::PermuteI8,
        other => other,
    }
}

/// What a stage calculates with.
#[derive(Clone, Copy)]
enum Numbers {
    Floats,
    /// All of 8 bits.
    Bytes,
    /// Weights of 4 bits.
    Nibbles,
    /// Inputs or outputs of 16 bits.
    Words,
}

/// The operation of a stage. Depthwise ones have no weights of 4 bits.
fn operation(stage: &Geometry, numbers: Numbers) -> OpCode {
    let dense = is_dense(stage);
    let depthwise = is_depthwise(stage);
    let [float, byte, nibble, word] = if dense {
        [OpCode::DenseF32, OpCode::DenseI8, OpCode::DenseI4, OpCode::DenseI16]
    } else if depthwise {
        let byte = OpCode::DepthwiseConv2dI8;
        [OpCode::DepthwiseConv2dF32, byte, byte, OpCode::DepthwiseConv2dI16]
    } else {
        [OpCode::Conv2dF32, OpCode::Conv2dI8, OpCode::Conv2dI4, OpCode::Conv2dI16]
    };
    match numbers {
        Numbers::Floats => float,
        Numbers::Bytes => byte,
        Numbers::Nibbles => nibble,
        Numbers::Words => word,
    }
}

/// A dense layer's geometry is that of a 1x1 convolution of a 1x1 image: so is the cost of such a convolution.
fn is_dense(stage: &Geometry) -> bool {
    stage.kernel == [1, 1] && stage.input[1..] == [1, 1] && stage.groups == 1
}

fn is_depthwise(stage: &Geometry) -> bool {
    stage.groups > 1 && stage.groups == stage.input[0]
}

fn linear_work(stage: &Geometry, kernel: &Kernel) -> Work {
    let window = needs::window(stage);
    match operation(stage, Numbers::Floats) {
        OpCode::DenseF32 => dense_work(stage.images as u64, stage.input[0], stage.output[0], kernel),
        OpCode::DepthwiseConv2dF32 => block_work(&window, kernel),
        _ => conv_work(&window, stage.groups, kernel),
    }
}

/// What a step does; `None` for a step that no operator accepts.
pub fn work(step: &Step<'_>, kernel: &Kernel) -> Option<Work> {
    let (input, output) = (step.input(0)?, step.output(0)?);
    let elements = elements(&output);
    let rows_of = |extent: usize| elements.checked_div(extent).map(|rows| rows as u64);
    let plain = Work { outputs: elements as u64, ..Work::default() };
    Some(match kernel.op {
        OpCode::Conv2dI8 | OpCode::Conv2dI16 | OpCode::Conv2dF32 | OpCode::Conv2dI4 | OpCode::Conv2dF16 => {
            let (window, groups) = convolution(step, &input, &output)?;
            conv_work(&window, groups, kernel)
        }
        OpCode::WinogradConv2dI8 => winograd_work(&convolution(step, &input, &output)?.0, kernel),
        OpCode::DepthwiseConv2dI8
        | OpCode::DepthwiseConv2dI16
        | OpCode::DepthwiseConv2dF32
        | OpCode::DepthwiseConv2dF16 => block_work(&convolution(step, &input, &output)?.0, kernel),
        OpCode::DenseI8 | OpCode::DenseI16 | OpCode::DenseF32 | OpCode::DenseI4 | OpCode::DenseF16 => {
            let (inputs, outputs) = (last_extent(&input), last_extent(&output));
            dense_work(rows_of(outputs)?, inputs, outputs, kernel)
        }
        OpCode::MaxPool2dI8 | OpCode::MaxPool2dF32 | OpCode::AveragePool2dI8 | OpCode::AveragePool2dF32 => {
            let p = pool2d::Parameters::parse(step.parameters())?;
            let (kernel_size, strides) = ([p.kernel_h, p.kernel_w], [p.stride_h, p.stride_w]);
            let pads = [p.pad_top, p.pad_left, p.pad_bottom, p.pad_right];
            block_work(&Window::new(&input, &output, kernel_size, strides, [1, 1], pads).ok()?, kernel)
        }
        OpCode::Mean2dI8 => {
            let [_, rows, columns, _] = input.shape;
            let window = Window::new(&input, &output, [rows, columns], [1, 1], [1, 1], [0; 4]);
            block_work(&window.ok()?, kernel)
        }
        OpCode::PermuteI8
        | OpCode::PermuteF32
        | OpCode::SoftmaxI8
        | OpCode::SoftmaxI16
        | OpCode::SoftmaxF32 => Work { positions: rows_of(last_extent(&output))?, ..plain },
        // A function counts as a product (two of them share the exponential), or as a run.
        OpCode::UnaryF32 => match unary::Parameters::parse(step.parameters())?.kind {
            unary::Kind::Clamp => plain,
            unary::Kind::Sin => Work { runs: plain.outputs, ..plain },
            unary::Kind::Sigmoid | unary::Kind::Tanh => Work { products: plain.outputs, ..plain },
        },
        OpCode::AddI8 | OpCode::AddF32 | OpCode::MulF32 | OpCode::TableI8 => plain,
    })
}

fn elements(record: &TensorRecord) -> usize {
    record.shape.iter().map(|extent| *extent as usize).product()
}

/// Extent of the innermost axis.
fn last_extent(record: &TensorRecord) -> usize {
    let last = usize::from(record.rank).checked_sub(1).and_then(|axis| record.shape.get(axis));
    last.map_or(1, |extent| *extent as usize)
}

fn convolution(step: &Step<'_>, input: &TensorRecord, output: &TensorRecord) -> Option<(Window, usize)> {
    let p = conv2d::Parameters::parse(step.parameters())?;
    let (kernel, strides) = ([p.kernel_h, p.kernel_w], [p.stride_h, p.stride_w]);
    let pads = [p.pad_top, p.pad_left, p.pad_bottom, p.pad_right];
    let window = Window::new(input, output, kernel, strides, [p.dilation_h, p.dilation_w], pads);
    Some((window.ok()?, p.groups as usize))
}

/// Taps on the input of each window along an axis.
fn taps(axis: &Axis) -> impl Iterator<Item = u64> {
    (0..axis.output)
        .map(|window| (0..axis.kernel).filter(|tap| axis.position(window, *tap).is_some()).count() as u64)
}

/// One inner product for each output and kernel row; for each tap where the taps of a row do not lie side by side.
fn conv_work(window: &Window, groups: usize, kernel: &Kernel) -> Work {
    let groups = groups.max(1);
    let (batch, outputs) = (window.batch as u64, window.outputs as u64);
    let group_inputs = (window.inputs / groups) as u64;
    let positions = batch * (window.rows.output * window.columns.output) as u64;
    let lanes = match kernel.loops {
        Loops::Lanes(lanes) => u64::from(lanes).max(1),
        Loops::Tiles { .. } => {
            let depth = (window.rows.kernel * window.columns.kernel) as u64 * group_inputs;
            // A 1x1 window lies in the input as it is.
            let laid_out = if depth == group_inputs { 0 } else { positions * depth };
            // Tiles are those of one group.
            let groups = groups as u64;
            let one = tiled_work([positions, outputs / groups, depth], laid_out, kernel.loops);
            return Work {
                positions,
                outputs: groups * one.outputs,
                runs: groups * one.runs,
                products: groups * one.products,
                tail: groups * one.tail,
            };
        }
    };
    let rows: u64 = taps(&window.rows).sum();
    // Inner products of one kernel row of one output channel: how many, how long in all, and what fills no lanes.
    let side_by_side = groups == 1 && window.columns.dilation == 1;
    let (mut runs, mut products, mut tail) = (0, 0, 0);
    for taps in taps(&window.columns).filter(|taps| *taps > 0) {
        let (count, length) = if side_by_side { (1, taps * group_inputs) } else { (taps, group_inputs) };
        runs += count;
        products += count * length;
        tail += count * (length % lanes);
    }
    let rows = batch * rows * outputs;
    Work {
        positions,
        outputs: positions * outputs,
        runs: rows * runs,
        products: rows * products,
        tail: rows * tail,
    }
}

/// As [`conv_work`], of transformed weights: tiles are whole in rows, columns and input channels.
fn winograd_work(window: &Window, kernel: &Kernel) -> Work {
    let mut whole = *window;
    if let Loops::Tiles { .. } = kernel.loops {
        whole.rows.output = window.rows.output.next_multiple_of(TILE);
        whole.columns.output = window.columns.output.next_multiple_of(TILE);
        whole.inputs = window.inputs.next_multiple_of(INPUTS);
    }
    conv_work(&whole, 1, kernel)
}

/// Blocks of channels under each tap of each window.
fn block_work(window: &Window, kernel: &Kernel) -> Work {
    let (batch, channels) = (window.batch as u64, window.outputs as u64);
    let positions = batch * (window.rows.output * window.columns.output) as u64;
    let lanes = match kernel.loops {
        Loops::Lanes(lanes) => u64::from(lanes).max(1),
        Loops::Tiles { .. } => {
            let depth = (window.rows.kernel * window.columns.kernel) as u64;
            let laid_out = batch * (window.image() as u64);
            return tiled_work([positions, channels, depth], laid_out, kernel.loops);
        }
    };
    let taps = batch * taps(&window.rows).sum::<u64>() * taps(&window.columns).sum::<u64>();
    // Several outputs of one input channel fill no lanes.
    let tail = if window.inputs == window.outputs { channels % lanes } else { channels };
    Work {
        positions,
        outputs: positions * channels,
        runs: taps * channels.div_ceil(lanes),
        products: taps * channels,
        tail: taps * tail,
    }
}

fn dense_work(rows: u64, inputs: usize, outputs: usize, kernel: &Kernel) -> Work {
    let (inputs, written) = (inputs as u64, rows * outputs as u64);
    let lanes = match kernel.loops {
        Loops::Lanes(lanes) => u64::from(lanes).max(1),
        Loops::Tiles { .. } => {
            return tiled_work([rows, outputs as u64, inputs], rows * inputs, kernel.loops);
        }
    };
    Work {
        positions: rows,
        outputs: written,
        runs: 0,
        products: written * inputs,
        tail: written * (inputs % lanes),
    }
}

/// Whole tiles over `[positions, outputs, depth]`.
fn tiled_work([positions, outputs, depth]: [u64; 3], laid_out: u64, loops: Loops) -> Work {
    let [across, along, step] = match loops {
        Loops::Lanes(lanes) => [1, 1, lanes],
        Loops::Tiles { positions, outputs, depth } => [positions, outputs, depth],
    }
    .map(|extent| u64::from(extent).max(1));
    let tiles = positions.div_ceil(across) * outputs.div_ceil(along);
    Work {
        positions,
        outputs: tiles * across * along,
        runs: outputs,
        products: tiles * across * along * depth.next_multiple_of(step),
        tail: laid_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Dataset;
    use crate::quantize::WeightBits;
    use crate::{passes, quantize};
    use std::path::Path;
    use tucano::backend::spec::Rates;

    #[test]
    fn tiles_are_whole() {
        let loops = Loops::Tiles { positions: 3, outputs: 2, depth: 4 };
        let work = tiled_work([7, 5, 6], 42, loops);
        assert_eq!(work, Work { positions: 7, outputs: 9 * 6, runs: 5, products: 9 * 6 * 8, tail: 42 });
        let kernel = Kernel { op: OpCode::DenseI8, name: "tiles", loops, rates: Rates::new([0; 6]) };
        assert_eq!(dense_work(7, 6, 5, &kernel), work);
    }

    /// Stage by stage and as a whole, the estimate before there is a blob is what the blob's steps say.
    #[test]
    fn candidates_and_blobs_are_priced_alike() {
        for file in ["resnet8.onnx", "phm_mlp_dense.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(file);
            let graph = crate::import::import(&path, &crate::import::Options { batch: 1 }).unwrap();
            let graph = legalize(&passes::simplify(&graph)).unwrap();
            let elements: usize = graph.shape(graph.inputs[0]).iter().product();
            let inputs = vec![(0..2 * elements).map(|k| (k % 17) as f32 / 9.0 - 1.0).collect()];
            let data = Dataset { inputs, samples: 2, labels: None };
            let four = Widths { weights: WeightBits::Four, ..Widths::default() };
            for int8 in [None, Some(Widths::default()), Some(four)] {
                let quantized = int8
                    .map(|Widths { weights: weight_bits, .. }| quantize::Options {
                        weight_bits,
                        ..Default::default()
                    })
                    .map(|options| quantize::quantize(&graph, Some(&data), &options).unwrap());
                let stored = quantized.as_ref().map_or(&graph, |quantized| &quantized.graph);
                let laid_out_for = |core: Core| {
                    let isa = core.isa();
                    let plan = plan_for(stored, quantized.as_ref(), isa).unwrap();
                    let quantized = quantized.as_ref();
                    let program = emit::Program {
                        graph: stored,
                        plan: &plan,
                        quantized,
                        labels: &[],
                        half_weights: false,
                        isa,
                    };
                    Runner::new(emit::emit(&program).unwrap()).unwrap()
                };
                for core in [Core::CortexM0, Core::CortexM4, Core::CortexM55] {
                    let whole: u64 = instructions(&laid_out_for(core).model(), core).unwrap().iter().sum();
                    let layers = graph.nodes.iter().filter_map(|node| {
                        let stage = Geometry::of(&graph, node)?;
                        candidate_instructions(core, int8, &[stage], 1)
                    });
                    let sum = layers.sum::<u64>() + fixed_instructions(&graph, core, int8.is_some()).unwrap();
                    let apart = sum.abs_diff(whole) as f64 / whole as f64;
                    assert!(apart < 0.01, "{file} {int8:?} {core:?}: {sum} {whole}");
                }
                assert_eq!(instructions(&laid_out_for(Core::X86_64).model(), Core::X86_64), None);
            }
        }
    }
}
