//! Whether a network's output is a score for each class.

use crate::graph::{Graph, Op};

/// An output that scores classes: the largest one is the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassScores {
    /// How many classes.
    pub classes: usize,
    /// Whether the scores are already probabilities (the network ends in a softmax).
    pub probabilities: bool,
}

impl ClassScores {
    /// Most classes that a vector of scores is taken to have.
    const MOST: usize = 1000;

    /// What the only output of `graph` scores: it comes out of a softmax, or it is one vector of 2 to 1000 numbers, a quarter of the
    /// input's elements or fewer, and no bounded function gives it. So reconstructions, images and coordinates are no scores.
    pub fn of(graph: &Graph) -> Option<Self> {
        let &[output] = &graph.outputs[..] else { return None };
        let numel = |shape: &[usize]| shape.iter().product::<usize>();
        let (&classes, rest) = graph.shape(output).split_last()?;
        if numel(rest) != 1 || classes < 2 {
            return None;
        }
        let last = graph.producer(output).map(|index| &graph.nodes[index].op);
        if matches!(last, Some(Op::Softmax { .. })) {
            return Some(Self { classes, probabilities: true });
        }
        let inputs: usize = graph.inputs.iter().map(|id| numel(graph.shape(*id))).sum();
        let unbounded = match last {
            Some(Op::Dense(dense)) => dense.activation.is_none(),
            Some(Op::Conv(conv)) => conv.activation.is_none(),
            Some(Op::Add(range)) => range.is_none(),
            Some(
                Op::Affine(_) | Op::Reshape(_) | Op::Mean { .. } | Op::AveragePool(_) | Op::Transpose(_),
            ) => true,
            _ => false,
        };
        let few = classes <= Self::MOST && classes * 4 <= inputs;
        (unbounded && few).then_some(Self { classes, probabilities: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, Unary};

    fn graph(input: usize, output: usize, op: Op) -> Graph {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, input]);
        let y = graph.add_value("y", vec![1, output]);
        graph.inputs = vec![x];
        graph.outputs = vec![y];
        graph.nodes = vec![Node { name: "last".into(), op, inputs: vec![x], output: y }];
        graph
    }

    #[test]
    fn tells_scores_from_other_vectors() {
        let scores = |classes, probabilities| Some(ClassScores { classes, probabilities });
        let linear = || Op::Reshape(Vec::new());
        assert_eq!(ClassScores::of(&graph(64, 10, linear())), scores(10, false));
        assert_eq!(ClassScores::of(&graph(10, 10, Op::Softmax { axis: 1 })), scores(10, true));
        assert_eq!(ClassScores::of(&graph(640, 640, linear())), None, "a reconstruction");
        assert_eq!(ClassScores::of(&graph(2, 3, linear())), None, "a colour at coordinates");
        assert_eq!(ClassScores::of(&graph(64, 1, linear())), None, "a single number");
        assert_eq!(ClassScores::of(&graph(64, 10, Op::Unary(Unary::Tanh))), None, "bounded");
    }
}
