//! Lays a blob of plain weights out for a target, as the converter does: what tests of hand-made blobs run on boards.

use tucano::Step;
use tucano::backend::spec::dsp::winograd::plan;
use tucano::backend::spec::elementwise::add_scratch;
use tucano::backend::spec::select::{Isa, Linear, Request, least_scratch, packing, select};
use tucano::blob::{BlobBuilder, Packing, folded_bias, is_narrow, winograd};
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano::ops::window::Window;

/// A blob of the same steps, one after the other, with packed weights and scratch behind all tensors. What stood in windows of a region is whole.
///
/// # Panics
/// If the blob is not sound, or not plain.
pub fn laid_out(blob: &[u8], isa: Isa) -> Vec<u8> {
    lay_out(blob, isa, false)
}

/// As [`laid_out`], with transformed weights wherever an operator takes them.
///
/// # Panics
/// As [`laid_out`].
pub fn transformed(blob: &[u8], isa: Isa) -> Vec<u8> {
    lay_out(blob, isa, true)
}

fn lay_out(blob: &[u8], isa: Isa, transform: bool) -> Vec<u8> {
    let runner = Runner::new(blob).expect("a sound blob");
    let model = runner.model();
    let source = model.blob();
    let mut builder = BlobBuilder::new();
    let mut arena = model.arena_bytes() as u32;
    for id in 0..source.tensor_count() as u16 {
        let mut tensor = source.tensor(id).expect("a tensor");
        if tensor.window_rows != 0 {
            tensor.window_rows = 0;
            tensor.offset = arena.next_multiple_of(u32::from(source.header().align));
            arena = tensor.offset + tensor.bytes().expect("few elements") as u32;
        }
        builder.tensor(tensor);
    }
    let scratch_at = arena.next_multiple_of(u32::from(source.header().align));
    let mut most = 0;
    for step in model.steps() {
        let (inputs, _, weights) = step.counts();
        let inputs: Vec<u16> = (0..inputs).filter_map(|k| step.input_id(k)).collect();
        let outputs: Vec<u16> = step.output_id(0).into_iter().collect();
        let mut packings = vec![Packing::Rows; weights];
        let mut bytes: Vec<Vec<u8>> = (0..weights)
            .map(|k| source.weight_bytes(&step.weight(k).expect("a weight")).expect("its bytes").to_vec())
            .collect();
        let mut scratch = step.scratch_bytes();
        let mut op = step.op();
        let request = Request::of(&step);
        if let Some(request) = request.filter(|request| request.packing == Packing::Winograd) {
            packings[0] = request.packing;
            scratch = scratch.max(select(isa, &request).scratch_bytes);
        } else if let Some(request) = request {
            assert_eq!(request.packing, Packing::Rows);
            let depth = request.linear.depth().expect("a depth");
            let rows = rows(&step, &request.linear, depth);
            let zero_point = step.input(0).expect("an input").zero_point;
            let bias = step.weight_i32(1).expect("biases");
            let folded: Vec<i32> = rows
                .chunks(depth)
                .zip(bias)
                .map(|(row, bias)| folded_bias(row.iter().copied(), zero_point, *bias))
                .collect();
            let narrow =
                rows.chunks(depth).zip(&folded).all(|(row, bias)| is_narrow(row.iter().copied(), *bias));
            let window = match request.linear {
                Linear::Conv2d { window, groups: 1 } if op == OpCode::Conv2dI8 as u16 => {
                    plan(&window).map(|_| window)
                }
                _ => None,
            };
            let window = window.filter(|_| transform);
            let packing = if window.is_some() { Packing::Winograd } else { packing(isa, &request, narrow) };
            let request = Request { packing, ..request };
            if request.packing != Packing::Rows {
                let stored = match window {
                    Some(Window { inputs, outputs, .. }) => {
                        op = OpCode::WinogradConv2dI8 as u16;
                        let mut stored = vec![0; winograd::bytes(inputs, outputs).expect("few weights")];
                        winograd::pack(&rows, inputs, outputs, &mut stored).map(|()| stored)
                    }
                    None => {
                        let matrix = request.linear.matrix().expect("a depth");
                        let mut stored = vec![0; matrix.bytes(packing).expect("few weights")];
                        matrix.pack(packing, &rows, &mut stored).map(|()| stored)
                    }
                };
                let stored = stored.expect("whole rows");
                packings[0] = request.packing;
                bytes[0] = stored.iter().map(|weight| weight.cast_unsigned()).collect();
                bytes[1] = folded.iter().flat_map(|bias| bias.to_le_bytes()).collect();
            }
            scratch = scratch.max(select(isa, &request).scratch_bytes).max(least_scratch(&request));
        }
        if step.op() == OpCode::AddI8 as u16 {
            let elements = step.output(0).and_then(|sum| sum.elements()).expect("few elements");
            scratch = scratch.max(add_scratch(isa, elements));
        }
        let weights: Vec<u16> = (0..weights)
            .map(|k| builder.weight(step.weight(k).expect("a weight").dtype, packings[k], &bytes[k]))
            .collect();
        most = most.max(scratch as u32);
        let place = if scratch > 0 { (scratch_at, scratch as u32) } else { (0, 0) };
        builder.step(
            step.name().unwrap_or_default(),
            op,
            &inputs,
            &outputs,
            &weights,
            step.parameters(),
            place,
        );
    }
    let ends = u32::from(model.inputs()) + u32::from(model.outputs());
    let ends: Vec<u16> = (0..ends).filter_map(|k| source.operand(k)).collect();
    let (inputs, outputs) = ends.split_at(usize::from(model.inputs()));
    builder.inputs(inputs);
    builder.outputs(outputs);
    builder.model_name(source.model_name().unwrap_or_default());
    let arena = if most > 0 { scratch_at + most } else { arena };
    builder.finish(arena, model.state_bytes() as u32, source.header().align).expect("it fits")
}

/// Weights of a step, row by row.
fn rows(step: &Step<'_>, linear: &Linear, depth: usize) -> Vec<i8> {
    let (stored, outputs) = (step.weight_i8(0).expect("weights"), linear.outputs());
    match linear {
        Linear::DepthwiseConv2d { .. } => {
            (0..outputs).flat_map(|o| (0..depth).map(move |k| stored[k * outputs + o])).collect()
        }
        _ => stored.to_vec(),
    }
}
