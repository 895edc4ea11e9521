//! Outputs of whole float graphs over many samples, by the runtime's kernels of this machine.
//!
//! Takes a lowered graph and samples; gives what [`evaluate`] gives for the graph's outputs, up to rounding in f32. The graph
//! becomes an f32 blob in memory, which a [`Runner`] prepares once and runs on all processors. Refused ([`Refusal`]): graphs that are no f32
//! blob, and machines without kernels for floats. An [`Executor`] leaves those, and samples that are not finite, to the evaluator; who needs values inside
//! a graph asks the evaluator as well.

use tucano::backend::spec::select::Isa;
use tucano::backend::{Backend as _, Scalar};
use tucano::host::Runner;

use crate::emit::{self, emit};
use crate::evaluate::evaluate;
use crate::graph::Graph;
use crate::passes::{layout, legalize};
use crate::plan::plan_for;

/// Why the runtime does not run a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// An operator without a step.
    #[error(transparent)]
    Legalize(#[from] legalize::Error),
    /// No order of elements.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// No bytes.
    #[error(transparent)]
    Emit(#[from] emit::Error),
    /// The runtime refuses the blob.
    #[error(transparent)]
    Blob(#[from] tucano::Error),
    /// Portable code is no faster than the evaluator.
    #[error("this machine has no kernels for floats")]
    NoKernels,
}

/// The runner of a lowered graph.
///
/// # Errors
/// [`Refusal`].
pub fn prepare(graph: &Graph) -> Result<Runner, Refusal> {
    let graph = &legalize::legalize(graph)?;
    // The host packs weights itself.
    let isa = Isa::Scalar;
    let plan = &plan_for(graph, None, isa)?;
    let program = emit::Program { graph, plan, quantized: None, half_weights: false, labels: &[], isa };
    let runner = Runner::new(emit(&program)?)?;
    if runner.backend() == Scalar::NAME {
        return Err(Refusal::NoKernels);
    }
    Ok(runner)
}

/// A graph that is ready to run on any number of samples.
#[derive(Debug)]
pub struct Executor<'g> {
    graph: &'g Graph,
    runner: Result<Runner, Refusal>,
}

impl<'g> Executor<'g> {
    /// Prepares a lowered graph.
    pub fn new(graph: &'g Graph) -> Self {
        Self { graph, runner: prepare(graph) }
    }

    /// Why the evaluator runs it, if it does.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.runner.as_ref().err()
    }

    /// The graph's outputs; `inputs` and the result as in [`evaluate`].
    ///
    /// # Panics
    /// Like [`evaluate`].
    pub fn outputs(&mut self, inputs: &[Vec<f32>], samples: usize) -> Vec<Vec<f32>> {
        let by_runtime = match &mut self.runner {
            Ok(runner) => {
                let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
                // Refuses what is not finite.
                runner.run_batch(&inputs, samples).ok()
            }
            Err(_) => None,
        };
        by_runtime.unwrap_or_else(|| evaluate(self.graph, inputs, samples, &self.graph.outputs))
    }
}

/// The outputs of a lowered graph on samples, once.
///
/// # Panics
/// Like [`evaluate`].
pub fn outputs(graph: &Graph, inputs: &[Vec<f32>], samples: usize) -> Vec<Vec<f32>> {
    Executor::new(graph).outputs(inputs, samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metrics;
    use crate::graph::Op;
    use crate::search::refit::tests::{images, network};

    #[test]
    fn runtime_and_evaluator_agree() {
        let (graph, samples) = (network(), 37);
        let inputs = images(samples, 1);
        let expected = evaluate(&graph, &inputs, samples, &graph.outputs);
        let found = outputs(&graph, &inputs, samples);
        assert!(metrics::relative_rms(&expected[0], &found[0]) <= 1e-6);
        assert!(outputs(&graph, &[Vec::new()], 0).concat().is_empty());
    }

    #[test]
    fn what_the_runtime_refuses_is_evaluated() {
        let (mut graph, samples) = (network(), 3);
        let mut inputs = images(samples, 1);
        inputs[0][5] = f32::INFINITY;
        let expected = evaluate(&graph, &inputs, samples, &graph.outputs);
        let found = outputs(&graph, &inputs, samples);
        let bits = |all: &[Vec<f32>]| all.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(expected[0].iter().any(|x| !x.is_finite()));
        assert_eq!(bits(&found), bits(&expected));

        let inputs = images(samples, 1);
        let (before, after) = (vec![0, 0, 1, 1], vec![0; 4]);
        let padded = graph.add_value("padded", vec![1, 4, 7, 7]);
        graph.nodes[2] = crate::graph::Node {
            name: "pad".into(),
            op: Op::Pad { before, after, value: 1.0 },
            inputs: vec![graph.nodes[1].output],
            output: padded,
        };
        graph.nodes.truncate(3);
        graph.outputs = vec![padded];
        graph.check().unwrap();
        assert!(matches!(Executor::new(&graph).refusal(), Some(Refusal::Legalize(_))));
        let expected = evaluate(&graph, &inputs, samples, &graph.outputs);
        assert_eq!(outputs(&graph, &inputs, samples), expected);
    }
}
