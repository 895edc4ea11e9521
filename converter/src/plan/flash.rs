//! Bytes of a blob before there is one.
//!
//! Takes the stages that a layer would become, and the dense network; gives what they add to the blob: weights, biases, multipliers and shifts as
//! stored, each constant padded to its alignment, and the records, operands, parameters and names of the steps. Identical constants that a blob stores once are
//! counted each time and the records of other steps generously, so the sum is an upper bound, close above the blob's own size.

use tucano::blob::{
    BLOB_ALIGN, HEADER_BYTES, InputContract, SECTION_ENTRY_BYTES, StepRecord, TensorRecord, WeightRecord,
};

use tucano::backend::spec::select::Isa;

use super::memory::{self, Error};
use super::{layout_for, needs};
use crate::calibrate::covariance::Geometry;
use crate::graph::Graph;
use crate::passes::layout::{Kind, Step};
use crate::passes::legalize;
use crate::quantize::Widths;

/// Sections of a blob.
const SECTIONS: usize = 9;
/// A table of all values of a function.
const TABLE: usize = 256;
/// Parameter words of a convolution.
const PARAMETER_WORDS: usize = 13;
/// Room for what `lower` appends to a layer's name.
const STAGE_SUFFIX: usize = 24;

/// Bytes that a layer named `name` adds to a blob when it is lowered to `stages`; `int8`: as integers of these widths, in the order that `isa` wants.
pub fn layer_bytes(int8: Option<Widths>, isa: Isa, stages: &[Geometry], name: &str) -> usize {
    let bytes = |stage| constant_bytes(int8, isa, stage, stages.len()) + step_bytes(int8.is_some(), name);
    stages.iter().map(bytes).sum()
}

/// Constants of a stage, one of `stages`.
fn constant_bytes(int8: Option<Widths>, isa: Isa, stage: &Geometry, stages: usize) -> usize {
    let (outputs, row) = (stage.output[0], stage.row_len());
    let integers = |weights| vec![weights, 4 * outputs, 4 * outputs, 4 * outputs];
    let arrays = match int8 {
        Some(widths) if widths.four_bits(stage, stages) => integers(outputs * row.div_ceil(2)),
        Some(_) => integers(needs::weight_bytes(isa, stage)),
        None => vec![4 * outputs * row, 4 * outputs],
    };
    arrays.into_iter().map(|bytes| bytes.next_multiple_of(BLOB_ALIGN)).sum()
}

fn step_bytes(int8: bool, name: &str) -> usize {
    let constants = if int8 { 4 } else { 2 };
    StepRecord::BYTES
        + TensorRecord::BYTES
        + constants * WeightRecord::BYTES
        + size_of::<u16>() * (2 + constants)
        + size_of::<u32>() * PARAMETER_WORDS
        + name.len()
        + STAGE_SUFFIX
}

/// Bytes of a dense network's blob besides its linear layers.
pub fn fixed_bytes(graph: &Graph, int8: Option<Widths>, isa: Isa) -> Result<usize, Error> {
    let legal = legalize(graph)?;
    let layout = layout_for(&legal, isa, |node| memory::numbers(&legal, node, int8))?;
    let is_layer = |step: &Step| {
        let node = &legal.nodes[step.node];
        let layer =
            graph.nodes.iter().any(|layer| layer.output == node.output && layer.op.weight().is_some());
        layer && !matches!(step.kind, Kind::Permute(_))
    };
    let layers = layout.steps.iter().filter(|step| is_layer(step)).count();
    let other = layout.steps.iter().filter(|step| !is_layer(step)).map(|step| {
        let constants = match (&step.kind, int8) {
            (Kind::Conv(..) | Kind::DepthwiseConv(..), _) => Geometry::of(&legal, &legal.nodes[step.node])
                .map_or(0, |stage| constant_bytes(int8, isa, &stage, 1)),
            (Kind::Pointwise, Some(_)) => TABLE,
            _ => 0,
        };
        constants + step_bytes(int8.is_some(), &step.name) - TensorRecord::BYTES
    });
    let frame = HEADER_BYTES + SECTIONS * (SECTION_ENTRY_BYTES + BLOB_ALIGN) + graph.name.len();
    let tensors = (layout.tensors.len() - layers.min(layout.tensors.len())) * TensorRecord::BYTES;
    Ok(frame + tensors + layout.contracts.len() * InputContract::BYTES + other.sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Dataset;
    use crate::quantize::WeightBits;
    use crate::{emit, passes, plan, quantize};
    use std::path::Path;

    #[test]
    fn the_bound_is_close_above_the_blob() {
        for file in ["resnet8.onnx", "phm_mlp_dense.onnx", "siren_astronaut.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(file);
            let graph = crate::import::import(&path, &crate::import::Options { batch: 1 }).unwrap();
            let graph = passes::simplify(&graph);
            let legal = legalize(&graph).unwrap();
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
                    .map(|options| quantize::quantize(&legal, Some(&data), &options).unwrap());
                let stored = quantized.as_ref().map_or(&legal, |quantized| &quantized.graph);
                for isa in [Isa::Scalar, Isa::ThumbV6M, Isa::ThumbV7M, Isa::ThumbDsp, Isa::Helium] {
                    let plan = plan::plan_for(stored, quantized.as_ref(), isa).unwrap();
                    let program = emit::Program {
                        graph: stored,
                        plan: &plan,
                        quantized: quantized.as_ref(),
                        labels: &[],
                        half_weights: false,
                        isa,
                    };
                    let blob = emit::emit(&program).unwrap().len();
                    let layers = graph.nodes.iter().filter_map(|node| {
                        Some(layer_bytes(int8, isa, &[Geometry::of(&graph, node)?], &node.name))
                    });
                    let bound = fixed_bytes(&graph, int8, isa).unwrap() + layers.sum::<usize>();
                    assert!(
                        bound >= blob && bound <= blob + blob / 50 + 1024,
                        "{file} {int8:?} {isa:?}: {bound} {blob}"
                    );
                }
            }
        }
    }
}
