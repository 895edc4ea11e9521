//! Removes what no output depends on.

use crate::graph::{Graph, ValueId};

/// Removes nodes that no graph output depends on, then values that nothing names; the rest is renumbered in order. Graph inputs
/// stay, read or not: they are the caller's.
pub fn remove_dead_code(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let mut needed = vec![false; graph.values.len()];
    for id in &graph.outputs {
        needed[id.0] = true;
    }
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in graph.nodes.drain(..).rev() {
        if needed[node.output.0] {
            for id in &node.inputs {
                needed[id.0] = true;
            }
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    for id in &graph.inputs {
        needed[id.0] = true;
    }
    let mut renamed = vec![ValueId(0); graph.values.len()];
    let mut values = Vec::new();
    for (index, value) in graph.values.drain(..).enumerate() {
        if needed[index] {
            renamed[index] = ValueId(values.len());
            values.push(value);
        }
    }
    graph.values = values;
    let node_values =
        graph.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain([&mut node.output]));
    for id in node_values.chain(&mut graph.inputs).chain(&mut graph.outputs) {
        *id = renamed[id.0];
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, Op, Unary};

    #[test]
    fn dead_chain_and_its_values_go_unread_inputs_stay() {
        let mut graph = Graph::default();
        let ids: Vec<ValueId> = ["unread", "x", "a", "b", "y"].map(|n| graph.add_value(n, vec![1, 2])).into();
        let mut push = |name: &str, input, output| {
            let op = Op::Unary(Unary::Sin);
            graph.nodes.push(Node { name: name.into(), op, inputs: vec![input], output });
        };
        push("dead_1", ids[1], ids[2]);
        push("live", ids[1], ids[4]);
        push("dead_2", ids[2], ids[3]);
        graph.inputs = vec![ids[0], ids[1]];
        graph.outputs = vec![ids[4]];
        let graph = remove_dead_code(&graph);
        graph.check().unwrap();
        let names: Vec<&str> = graph.values.iter().map(|value| value.name.as_str()).collect();
        assert_eq!(names, ["unread", "x", "y"]);
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!((graph.inputs.as_slice(), graph.outputs[0]), (&[ValueId(0), ValueId(1)][..], ValueId(2)));
    }
}
