//! The reference evaluator: runs a graph in f32 over many samples.
//!
//! Takes a graph that passes [`Graph::check`] and has no factorised weights (lower it first), samples for its inputs (or for any values that cut it), and the values to keep.
//! Gives those values for all samples. Refuses nothing: data of a wrong length is a programming error and panics;
//! numbers that are not finite travel on to the outputs, and [`first_non_finite`] says where they came from.
//!
//! Samples are worked on in chunks of a fixed size, chunks in parallel; so results are the same on any number of threads.

mod classes;
mod elementwise;
pub mod gradient;
mod linear;
pub mod metrics;
mod spatial;

pub use classes::ClassScores;

use std::borrow::Cow;
use std::collections::HashMap;

use rayon::prelude::*;

use crate::graph::{Graph, Op, ValueId, Weight};

/// Samples that run through the graph together; fixed, because sums in matrix products may depend on it.
const CHUNK: usize = 16;

/// Values by name: all samples, one after the other, each in the value's row-major order.
pub type Values = HashMap<ValueId, Vec<f32>>;

/// Runs `graph` over `samples` samples and returns the values named in `keep`, in that order.
///
/// `inputs[k]` holds graph input `k` of all samples, one after the other in the input's row-major order (the static shape of the
/// graph describes one sample); so does each returned vector.
///
/// # Panics
/// If the number of inputs or their lengths do not fit the graph: check data where it enters the program.
pub fn evaluate(graph: &Graph, inputs: &[Vec<f32>], samples: usize, keep: &[ValueId]) -> Vec<Vec<f32>> {
    assert_eq!(inputs.len(), graph.inputs.len(), "one array for each graph input");
    let known = graph.inputs.iter().copied().zip(inputs.iter().map(Vec::as_slice)).collect();
    run(graph, &known, samples, keep)
}

/// Runs only the nodes that lie between the `known` values and those in `keep`: a suffix, a prefix or a part of `graph`.
/// A value in both is copied. Known values that nothing needs are ignored.
///
/// # Panics
/// If `keep` depends on a graph input that is not known, or a known value has a wrong length.
pub fn evaluate_from(graph: &Graph, known: &Values, samples: usize, keep: &[ValueId]) -> Values {
    let known = known.iter().map(|(id, data)| (*id, data.as_slice())).collect();
    keep.iter().copied().zip(run(graph, &known, samples, keep)).collect()
}

/// Where a number that is not finite appeared first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// Index into [`Graph::nodes`].
    pub node: usize,
    /// The first sample that meets it.
    pub sample: usize,
}

/// The first sample and in it the first node whose output has a NaN or an infinity; `None` if all are finite.
///
/// # Panics
/// Like [`evaluate`].
pub fn first_non_finite(graph: &Graph, inputs: &[Vec<f32>], samples: usize) -> Option<NonFinite> {
    let outputs: Vec<ValueId> = graph.nodes.iter().map(|node| node.output).collect();
    for start in (0..samples).step_by(CHUNK) {
        let count = CHUNK.min(samples - start);
        let part: Vec<Vec<f32>> = graph
            .inputs
            .iter()
            .zip(inputs)
            .map(|(id, data)| {
                let len = numel(graph, *id);
                data[start * len..(start + count) * len].to_vec()
            })
            .collect();
        let values = evaluate(graph, &part, count, &outputs);
        let bad = values.iter().enumerate().filter_map(|(node, data)| {
            let position = data.iter().position(|x| !x.is_finite())?;
            Some((start + position / (data.len() / count), node))
        });
        if let Some((sample, node)) = bad.min() {
            return Some(NonFinite { node, sample });
        }
    }
    None
}

/// Elements of one sample of a value.
fn numel(graph: &Graph, id: ValueId) -> usize {
    graph.shape(id).iter().product()
}

fn run(graph: &Graph, known: &HashMap<ValueId, &[f32]>, samples: usize, keep: &[ValueId]) -> Vec<Vec<f32>> {
    for (id, data) in known {
        assert_eq!(data.len(), samples * numel(graph, *id), "samples of `{}`", graph.value(*id).name);
    }
    let schedule = Schedule::new(graph, known, keep);
    let mut chunks: Vec<Vec<Vec<f32>>> = (0..samples.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let start = chunk * CHUNK;
            schedule.run(graph, known, start, CHUNK.min(samples - start))
        })
        .collect();
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    let mut kept: Vec<Vec<f32>> =
        keep.iter().map(|id| Vec::with_capacity(samples * numel(graph, *id))).collect();
    for chunk in chunks {
        for (all, part) in kept.iter_mut().zip(chunk) {
            all.extend_from_slice(&part);
        }
    }
    kept
}

/// Which nodes run, and after which of them a value is no longer needed.
struct Schedule<'a> {
    /// Indices of nodes.
    nodes: Vec<usize>,
    /// For each value the index of the node that reads it last; `None` for never read or kept.
    last_reader: Vec<Option<usize>>,
    keep: &'a [ValueId],
}

impl<'a> Schedule<'a> {
    fn new(graph: &Graph, known: &HashMap<ValueId, &[f32]>, keep: &'a [ValueId]) -> Self {
        let mut needed = vec![false; graph.values.len()];
        let mut last_reader = vec![None; graph.values.len()];
        for id in keep {
            needed[id.0] = true;
        }
        let mut nodes = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            if needed[node.output.0] && !known.contains_key(&node.output) {
                nodes.push(index);
                for id in &node.inputs {
                    needed[id.0] = true;
                    last_reader[id.0].get_or_insert(index);
                }
            }
        }
        nodes.reverse();
        for id in keep {
            last_reader[id.0] = None;
        }
        for id in graph.inputs.iter().filter(|id| needed[id.0]) {
            assert!(known.contains_key(id), "graph input `{}` is not known", graph.value(*id).name);
        }
        Self { nodes, last_reader, keep }
    }

    /// The kept values of samples `start..start + samples`.
    fn run(
        &self,
        graph: &Graph,
        known: &HashMap<ValueId, &[f32]>,
        start: usize,
        samples: usize,
    ) -> Vec<Vec<f32>> {
        let mut values: Vec<Option<Cow<[f32]>>> = vec![None; graph.values.len()];
        for (id, data) in known {
            let len = numel(graph, *id);
            values[id.0] = Some(Cow::Borrowed(&data[start * len..(start + samples) * len]));
        }
        for index in &self.nodes {
            let node = &graph.nodes[*index];
            let inputs: Vec<Operand> = node
                .inputs
                .iter()
                .map(|id| Operand { shape: graph.shape(*id), data: given(&values, *id) })
                .collect();
            let output = apply(&node.op, &inputs, graph.shape(node.output), samples);
            debug_assert_eq!(output.len(), samples * numel(graph, node.output), "{}", node.name);
            values[node.output.0] = Some(Cow::Owned(output));
            for id in &node.inputs {
                if self.last_reader[id.0] == Some(*index) {
                    values[id.0] = None;
                }
            }
        }
        let kept = self.keep.iter().enumerate().map(|(k, id)| {
            if self.keep[k + 1..].contains(id) {
                given(&values, *id).to_vec()
            } else {
                taken(&mut values, *id)
            }
        });
        kept.collect()
    }
}

/// The value that an earlier node of the schedule, or the caller, has given.
fn given<'v>(values: &'v [Option<Cow<[f32]>>], id: ValueId) -> &'v [f32] {
    values[id.0].as_deref().expect("a checked graph gives a value before it is read")
}

/// The same, which nobody reads any more.
fn taken(values: &mut [Option<Cow<[f32]>>], id: ValueId) -> Vec<f32> {
    values[id.0].take().expect("a checked graph gives a value before it is read").into_owned()
}

/// What a node reads: the shape of one sample, and the data of several.
#[derive(Clone, Copy)]
struct Operand<'a> {
    shape: &'a [usize],
    data: &'a [f32],
}

/// Runs one operation over `samples` samples; `shape` is that of one sample's output.
fn apply(op: &Op, inputs: &[Operand], shape: &[usize], samples: usize) -> Vec<f32> {
    let x = inputs[0];
    match op {
        Op::Conv(conv) => linear::conv(conv, dense_weight(&conv.weight), x, shape, samples),
        Op::Dense(dense) => linear::dense(dense, dense_weight(&dense.weight), x),
        Op::Affine(affine) => elementwise::affine(affine, x),
        Op::Clamp(range) => x.data.iter().map(|x| elementwise::clamp(*x, *range)).collect(),
        Op::Unary(unary) => elementwise::unary(*unary, x.data),
        Op::Add(range) => elementwise::zip(x.data, inputs[1].data, *range, |a, b| a + b),
        Op::Mul(range) => elementwise::zip(x.data, inputs[1].data, *range, |a, b| a * b),
        Op::MaxPool(pool) => spatial::max_pool(pool, x, shape, samples),
        Op::AveragePool(pool) => spatial::average_pool(pool, x, shape, samples),
        Op::Mean { axes, .. } => spatial::mean(axes, x, samples),
        Op::Reshape(_) => x.data.to_vec(),
        Op::Transpose(permutation) => spatial::transpose(permutation, x, samples),
        Op::Pad { before, value, .. } => spatial::pad(before, *value, x, shape, samples),
        Op::Softmax { axis } => elementwise::softmax(*axis, x),
    }
}

fn dense_weight(weight: &Weight) -> &crate::graph::Tensor {
    match weight {
        Weight::Dense(tensor) => tensor,
        Weight::Network(_) => panic!("a factorised graph is lowered before it is evaluated"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationRange, Dense, Node, Tensor, Unary};

    /// x -> dense -> sin -> add(dense, sin)
    fn graph() -> Graph {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, 2]);
        let y = graph.add_value("y", vec![1, 2]);
        let z = graph.add_value("z", vec![1, 2]);
        let sum = graph.add_value("sum", vec![1, 2]);
        let weight = Weight::Dense(Tensor::new(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]));
        let dense = Dense { weight, bias: Some(vec![0.5, 0.0]), activation: ActivationRange::NONE };
        let node =
            |name: &str, op, inputs: Vec<ValueId>, output| Node { name: name.into(), op, inputs, output };
        graph.nodes = vec![
            node("dense", Op::Dense(dense), vec![x], y),
            node("sin", Op::Unary(Unary::Sin), vec![y], z),
            node("add", Op::Add(ActivationRange::NONE), vec![y, z], sum),
        ];
        graph.inputs = vec![x];
        graph.outputs = vec![sum];
        graph.check().unwrap();
        graph
    }

    #[test]
    fn samples_beyond_one_chunk_are_independent() {
        let graph = graph();
        let samples = 2 * CHUNK + 3;
        let x: Vec<f32> = (0..2 * samples).map(|i| i as f32 * 0.01).collect();
        let all = evaluate(&graph, std::slice::from_ref(&x), samples, &graph.outputs);
        assert_eq!(all[0].len(), 2 * samples);
        for sample in 0..samples {
            let (a, b) = (x[2 * sample], x[2 * sample + 1]);
            let y = [a + 2.0 * b + 0.5, 3.0 * a + 4.0 * b];
            for k in 0..2 {
                let expected = y[k] + y[k].sin();
                assert!((all[0][2 * sample + k] - expected).abs() < 1e-5, "sample {sample}, output {k}");
            }
        }
    }

    #[test]
    fn suffix_needs_only_the_cut() {
        let graph = graph();
        let known = Values::from([(ValueId(1), vec![1.0, 2.0]), (ValueId(2), vec![10.0, 20.0])]);
        let values = evaluate_from(&graph, &known, 1, &[ValueId(3), ValueId(1)]);
        assert_eq!(values[&ValueId(3)], vec![11.0, 22.0]);
        assert_eq!(values[&ValueId(1)], vec![1.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "graph input `x` is not known")]
    fn missing_input_is_named() {
        evaluate_from(&graph(), &Values::from([(ValueId(2), vec![0.0; 2])]), 1, &[ValueId(3)]);
    }

    #[test]
    fn non_finite_is_traced_to_its_node() {
        let graph = graph();
        let samples = CHUNK + 2;
        let mut x = vec![1.0; 2 * samples];
        assert_eq!(first_non_finite(&graph, std::slice::from_ref(&x), samples), None);
        x[2 * (CHUNK + 1)] = 3e38;
        let found = first_non_finite(&graph, &[x], samples);
        assert_eq!(found, Some(NonFinite { node: 0, sample: CHUNK + 1 }));
    }
}
