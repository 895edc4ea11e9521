//! How far a network's outputs are from those of the dense network.

use crate::evaluate::{ClassScores, metrics};
use crate::graph::Graph;

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

impl Loss {
    /// Divergence if the only output is class scores ([`ClassScores::of`]).
    pub fn of(graph: &Graph) -> Self {
        match ClassScores::of(graph) {
            Some(ClassScores { probabilities, .. }) => Self::Divergence { probabilities },
            None => Self::Squares,
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
