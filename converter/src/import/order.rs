//! Which nodes of an ONNX graph matter, and in which order.
//!
//! Takes the nodes, gives the indices of those that some graph output needs, in topological order (that of the file
//! wherever it is one), and how often each value is read. Refuses cycles, values that nothing gives, and values that
//! are given twice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::Error;
use super::onnx::{GraphProto, NodeProto};

/// Nodes to import.
pub struct Order<'a> {
    /// In topological order.
    pub nodes: Vec<&'a NodeProto>,
    /// How often the needed nodes and the graph outputs read each value.
    pub uses: HashMap<&'a str, usize>,
}

/// Orders the nodes of `graph`. `given` are the names of inputs and initializers.
pub fn order<'a>(graph: &'a GraphProto, given: &HashSet<&str>) -> Result<Order<'a>, Error> {
    let broken = |why: String| Error::Graph { why };
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if given.contains(output.as_str()) || producer.insert(output, index).is_some() {
                return Err(broken(format!("value `{output}` is given twice, last by node `{}`", node.name)));
            }
        }
    }
    let inputs = |node: &'a NodeProto| node.input.iter().map(String::as_str).filter(|name| !name.is_empty());

    let mut uses: HashMap<&str, usize> = HashMap::new();
    let mut needed = vec![false; graph.node.len()];
    let mut open: Vec<(&str, &str)> = graph.output.iter().map(|o| (o.name.as_str(), "the graph")).collect();
    while let Some((value, reader)) = open.pop() {
        *uses.entry(value).or_default() += 1;
        match producer.get(value) {
            Some(&index) if !needed[index] => {
                needed[index] = true;
                let node = &graph.node[index];
                open.extend(inputs(node).map(|name| (name, node.name.as_str())));
            }
            Some(_) => {}
            None if given.contains(value) => {}
            None => return Err(broken(format!("node `{reader}` reads `{value}`, which nothing gives"))),
        }
    }

    let mut waits = vec![0_usize; graph.node.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; graph.node.len()];
    for (index, node) in graph.node.iter().enumerate().filter(|(index, _)| needed[*index]) {
        for &from in inputs(node).filter_map(|name| producer.get(name)) {
            waits[index] += 1;
            readers[from].push(index);
        }
    }
    let ready = (0..graph.node.len()).filter(|index| needed[*index] && waits[*index] == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.map(Reverse).collect();
    let mut nodes = vec![];
    while let Some(Reverse(index)) = ready.pop() {
        nodes.push(&graph.node[index]);
        for &reader in &readers[index] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    match (0..graph.node.len()).find(|index| needed[*index] && waits[*index] > 0) {
        Some(index) => Err(broken(format!("node `{}` depends on its own result", graph.node[index].name))),
        None => Ok(Order { nodes, uses }),
    }
}
