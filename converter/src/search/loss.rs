//! How far a network's outputs are from those of the dense network.

use crate::evaluate::metrics;
use crate::graph::{Graph, Op};

/// The measure that the search spends its budget on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Mean Kullback-Leibler divergence of the class distributions, in nats: for classifiers.
    Divergence {
        /// The network ends in a softmax; otherwise its outputs are taken as logits.
        probabilities: bool,
    },
    /// Squared relative RMS error of all outputs.
    Squares,
}

/// Outputs of a classifier at most.
const MOST_CLASSES: usize = 1000;

impl Loss {
    /// Divergence if the only output is a vector of class scores: it comes out of a softmax, or it is a `[1, classes]` vector with at least 2
    /// and at most 1000 classes and a quarter of the inputs' elements or fewer, and no bounded function gives it.
    pub fn of(graph: &Graph) -> Self {
        let &[output] = &graph.outputs[..] else { return Self::Squares };
        let last = graph.producer(output).map(|index| &graph.nodes[index].op);
        if matches!(last, Some(Op::Softmax { .. })) {
            return Self::Divergence { probabilities: true };
        }
        let inputs: usize = graph.inputs.iter().map(|id| graph.shape(*id).iter().product::<usize>()).sum();
        let classes = match *graph.shape(output) {
            [1, classes] => classes,
            _ => 0,
        };
        let linear = match last {
            Some(Op::Dense(dense)) => dense.activation.is_none(),
            Some(Op::Conv(conv)) => conv.activation.is_none(),
            Some(Op::Reshape(_) | Op::Mean { .. } | Op::AveragePool(_) | Op::Transpose(_)) => true,
            _ => false,
        };
        if linear && (2..=MOST_CLASSES).contains(&classes) && classes * 4 <= inputs {
            Self::Divergence { probabilities: false }
        } else {
            Self::Squares
        }
    }

    /// Loss of `outputs` against `reference` (one vector a graph output, all samples); never NaN.
    pub fn measure(self, reference: &[Vec<f32>], outputs: &[Vec<f32>], samples: usize) -> f64 {
        let loss = match self {
            Self::Squares => relative_square(reference, outputs),
            Self::Divergence { probabilities } => {
                let classes = (reference[0].len() / samples.max(1)).max(1);
                metrics::softmax_kl(&reference[0], &outputs[0], classes, probabilities).max(0.0)
            }
        };
        if loss.is_finite() { loss } else { f64::MAX.sqrt() }
    }
}

/// `sum (y - x)^2 / sum x^2` over all outputs; 0 where both are zero.
pub fn relative_square(reference: &[Vec<f32>], outputs: &[Vec<f32>]) -> f64 {
    metrics::relative_rms(&reference.concat(), &outputs.concat()).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equal_outputs_and_known_otherwise() {
        let loss = Loss::Divergence { probabilities: true };
        let (p, q) = (vec![vec![0.5, 0.5, 0.9, 0.1]], vec![vec![0.25, 0.75, 0.9, 0.1]]);
        assert_eq!(loss.measure(&p, &p, 2), 0.0);
        let expected = (0.5 * 2.0f64.ln() + 0.5 * (2.0f64 / 3.0).ln()) / 2.0;
        assert!((loss.measure(&p, &q, 2) - expected).abs() < 1e-7);
        let logits = |p: &Vec<Vec<f32>>| vec![p[0].iter().map(|x| x.ln() + 3.0).collect::<Vec<f32>>()];
        let soft = Loss::Divergence { probabilities: false };
        assert!((soft.measure(&logits(&p), &logits(&q), 2) - expected).abs() < 1e-6);
    }

    #[test]
    fn zero_reference_and_overflow_give_numbers() {
        let zero = vec![vec![0.0, 0.0]];
        assert_eq!(Loss::Squares.measure(&zero, &zero, 1), 0.0);
        assert!(Loss::Squares.measure(&zero, &[vec![1.0, 0.0]], 1) > 1e100);
        assert!(Loss::Squares.measure(&[vec![1.0]], &[vec![f32::NAN]], 1) > 1e100);
    }
}
