//! Which convolutions store transformed weights ([`tucano::blob::winograd`]).
//!
//! Takes a quantised network, the core and a budget; marks layers. A transform saves instructions and takes 2.7 times the bytes of a layer's weights, so
//! layers are taken in the order of what they save for each byte, while the whole blob and the arena stay within the budget. A
//! layer that the core's kernel could not requantise stays as it is.

use tucano::backend::spec::Core;
use tucano::backend::spec::dsp::winograd::finishes;
use tucano::blob::{DType, folded_bias, winograd};

use super::{cost, needs, plan_for};
use crate::calibrate::covariance::Geometry;
use crate::emit;
use crate::graph::Graph;
use crate::quantize::{Layer, Quantized};
use crate::search::Budget;

/// What was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Layers that were transformed.
    pub layers: usize,
    /// Layers that could have been.
    pub possible: usize,
    /// Bytes that the blob gained.
    pub bytes: usize,
    /// Modelled instructions that are saved.
    pub instructions: u64,
}

impl Chosen {
    /// A sentence for the report.
    pub fn note(&self) -> String {
        let Self { layers, possible, bytes, instructions } = self;
        match (layers, possible) {
            (_, 0) => "no convolution would gain by transformed weights on this core".into(),
            (0, _) => "the budget leaves no room for transformed weights".into(),
            _ => format!(
                "{layers} of {possible} convolutions that gain by transformed weights store them: {bytes} bytes more, {instructions} modelled \
                 instructions fewer"
            ),
        }
    }
}

/// A layer that gains.
struct Candidate {
    node: usize,
    saved: u64,
    bytes: usize,
}

/// Marks the layers of `quantized`, whose graph is `graph`.
pub fn choose(
    graph: &Graph,
    quantized: &mut Quantized,
    core: Core,
    budget: &Budget,
) -> Result<Chosen, emit::Error> {
    let candidate = |node: usize| candidate(graph, quantized, core, node);
    let mut candidates: Vec<Candidate> = (0..graph.nodes.len()).filter_map(candidate).collect();
    candidates.sort_by(|a, b| {
        let [one, other] = [(a, b), (b, a)].map(|(x, y)| u128::from(x.saved) * y.bytes as u128);
        other.cmp(&one)
    });
    let mut chosen = Chosen { possible: candidates.len(), ..Chosen::default() };
    let (mut size, _) = figures(graph, quantized, core)?;
    for Candidate { node, saved, .. } in candidates {
        mark(quantized, node, true);
        let (bytes, arena) = figures(graph, quantized, core)?;
        if budget.flash.is_some_and(|flash| bytes > flash) || budget.ram.is_some_and(|ram| arena > ram) {
            mark(quantized, node, false);
            continue;
        }
        chosen.layers += 1;
        chosen.bytes += bytes.saturating_sub(size);
        chosen.instructions += saved;
        size = bytes;
    }
    Ok(chosen)
}

fn mark(quantized: &mut Quantized, node: usize, transformed: bool) {
    if let Some(layer) = quantized.layers.get_mut(node).and_then(Option::as_mut) {
        layer.transformed = transformed;
    }
}

/// Bytes of the blob and of its arena.
fn figures(graph: &Graph, quantized: &Quantized, core: Core) -> Result<(usize, usize), emit::Error> {
    let isa = core.isa();
    let plan = plan_for(graph, Some(quantized), isa).map_err(|error| emit::Error::Blob(error.to_string()))?;
    let program = emit::Program {
        graph,
        plan: &plan,
        quantized: Some(quantized),
        half_weights: false,
        labels: &[],
        isa,
    };
    Ok((emit::emit(&program)?.len(), plan.arena_bytes))
}

fn candidate(graph: &Graph, quantized: &Quantized, core: Core, node: usize) -> Option<Candidate> {
    let layer = quantized.layers.get(node)?.as_ref()?;
    let [input, output] = [graph.nodes[node].inputs[0], graph.nodes[node].output];
    let bytes = [input, output].iter().all(|value| quantized.dtype(*value) == DType::I8);
    let stage = Geometry::of(graph, &graph.nodes[node])?;
    let zero_point = graph.value(input).quantization?.zero_point;
    if !bytes || layer.four_bits || !finishes(&folded(layer, zero_point), &layer.shifts) {
        return None;
    }
    let saved = cost::saved_by_transform(core, &stage, needs::all_narrow(layer, zero_point))?;
    let bytes = winograd::bytes(stage.input[0], stage.output[0])?.saturating_sub(layer.weights.len()).max(1);
    Some(Candidate { node, saved, bytes })
}

/// Biases as they are stored with transformed weights.
fn folded(layer: &Layer, zero_point: i32) -> Vec<i32> {
    let row = (layer.weights.len() / layer.bias.len().max(1)).max(1);
    let biases = layer.weights.chunks(row).zip(&layer.bias);
    biases.map(|(weights, &bias)| folded_bias(weights.iter().copied(), zero_point, bias)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Dataset;
    use crate::passes;
    use crate::quantize::{self, Options};
    use std::path::Path;
    use tucano::host::Runner;
    use tucano::ops::OpCode;

    #[test]
    fn a_budget_is_spent_on_what_saves_most_for_each_byte() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/resnet8.onnx");
        let graph = crate::import::import(&path, &crate::import::Options { batch: 1 }).unwrap();
        let graph = passes::legalize(&passes::simplify(&graph)).unwrap();
        let elements: usize = graph.shape(graph.inputs[0]).iter().product();
        let inputs = vec![(0..2 * elements).map(|k| (k % 17) as f32 / 9.0 - 1.0).collect()];
        let data = Dataset { inputs, samples: 2, labels: None };
        let plain = quantize::quantize(&graph, Some(&data), &Options::default()).unwrap();
        let blob = |quantized: &Quantized, core: Core| {
            let isa = core.isa();
            let graph = &quantized.graph;
            let plan = plan_for(graph, Some(quantized), isa).unwrap();
            emit::emit(&emit::Program {
                graph,
                plan: &plan,
                quantized: Some(quantized),
                half_weights: false,
                labels: &[],
                isa,
            })
            .unwrap()
        };
        let transformed = |blob: &[u8]| {
            let runner = Runner::new(blob).unwrap();
            runner.model().steps().filter(|step| step.op() == u16::from(OpCode::WinogradConv2dI8)).count()
        };
        let direct = blob(&plain, Core::CortexM4);
        let mut last = Chosen::default();
        for room in [0, 4096, 30_000, 1 << 20] {
            let mut quantized = plain.clone();
            let budget = Budget { flash: Some(direct.len() + room), ..Budget::default() };
            let chosen = choose(&plain.graph, &mut quantized, Core::CortexM4, &budget).unwrap();
            let stored = blob(&quantized, Core::CortexM4);
            assert_eq!(stored.len(), direct.len() + chosen.bytes);
            assert!(chosen.bytes <= room && chosen.instructions >= last.instructions);
            assert_eq!(transformed(&stored), chosen.layers);
            let [first, second] = [&direct, &stored].map(|blob| {
                let mut runner = Runner::new(blob).unwrap();
                let input = runner.quantise(&[&data.inputs[0][..elements]]).unwrap().concat();
                runner.run_raw(&[&input]).unwrap()
            });
            assert_eq!(first, second);
            // Another core keeps what it has kernels for.
            assert_eq!(blob(&quantized, Core::CortexM0), blob(&plain, Core::CortexM0));
            last = chosen;
        }
        assert!(last.layers == last.possible && last.layers > 2, "{last:?}");
        let mut quantized = plain.clone();
        let none = choose(&plain.graph, &mut quantized, Core::CortexM55, &Budget::default()).unwrap();
        assert_eq!((none, quantized), (Chosen::default(), plain));
    }
}
