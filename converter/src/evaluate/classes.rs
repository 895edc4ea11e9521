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

    /// What the first output of `graph` scores. An output is taken for class scores if it is one vector of 2 to 1000 numbers for each
    /// sample and either comes from a softmax or is smaller than the input: not a reconstruction, an image, or coordinates.
    pub fn of(graph: &Graph) -> Option<Self> {
        let output = *graph.outputs.first()?;
        let numel = |shape: &[usize]| shape.iter().product::<usize>();
        let (classes, rest) = graph.shape(output).split_last()?;
        if numel(rest) != 1 || !(2..=Self::MOST).contains(classes) {
            return None;
        }
        let inputs: usize = graph.inputs.iter().map(|id| numel(graph.shape(*id))).sum();
        let probabilities =
            graph.producer(output).is_some_and(|node| matches!(graph.nodes[node].op, Op::Softmax { .. }));
        (probabilities || *classes < inputs).then_some(Self { classes: *classes, probabilities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    fn graph(input: usize, output: usize, softmax: bool) -> Graph {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, input]);
        let y = graph.add_value("y", vec![1, output]);
        graph.inputs = vec![x];
        graph.outputs = vec![y];
        if softmax {
            let op = Op::Softmax { axis: 1 };
            graph.nodes = vec![Node { name: "softmax".into(), op, inputs: vec![x], output: y }];
        }
        graph
    }

    #[test]
    fn tells_scores_from_other_vectors() {
        let scores = |classes, probabilities| Some(ClassScores { classes, probabilities });
        assert_eq!(ClassScores::of(&graph(64, 10, false)), scores(10, false));
        assert_eq!(ClassScores::of(&graph(10, 10, true)), scores(10, true));
        assert_eq!(ClassScores::of(&graph(640, 640, false)), None, "a reconstruction");
        assert_eq!(ClassScores::of(&graph(2, 3, false)), None, "a colour at coordinates");
        assert_eq!(ClassScores::of(&graph(64, 1, false)), None, "a single number");
    }
}
