//! Multiplies chains of linear layers out where they are a tensor train.
//!
//! Takes a simplified graph; gives an equal one in which a run of reshapes, transposes and dense layers without activations, as exporters write a tensor-train
//! layer, is one dense layer, so that formats and search see the layer that was trained. Only where the run's matrix is a train that stores no more than
//! the run does: every other run stays as it is. Any such run is linear, so its matrix is what it makes of the unit vectors.
//!
//! Left alone: runs with values that others read, of several samples, and those whose matrix is larger than [`LARGEST`].

use crate::compress::{Target, tensor_train, to_matrix};
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Dense, Graph, Network, Node, Op, Tensor, ValueId, Weight};
use crate::linalg::Matrix;

/// Numbers of a matrix that is multiplied out.
pub const LARGEST: usize = 1 << 22;

/// An equal graph with every run that is a tensor train as one dense layer.
pub fn compose(graph: &Graph) -> Graph {
    let mut result = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    let mut index = 0;
    while index < graph.nodes.len() {
        let run = run_from(graph, index);
        match composed(graph, run) {
            Some(dense) => append(&mut result, run, dense),
            None => result.nodes.extend_from_slice(run),
        }
        index += run.len();
    }
    result
}

/// The longest run that starts with node `index`; at least that node.
fn run_from(graph: &Graph, index: usize) -> &[Node] {
    let mut end = index + 1;
    while end < graph.nodes.len() {
        let (last, next) = (&graph.nodes[end - 1], &graph.nodes[end]);
        let private = !graph.outputs.contains(&last.output) && graph.consumers(last.output) == [end];
        let goes_on = is_linear(&last.op) && activation(&last.op).is_none() && next.inputs == [last.output];
        let joins = is_linear(&next.op) || matches!(next.op, Op::Clamp(_));
        if !(private && goes_on && joins) {
            break;
        }
        end += 1;
    }
    &graph.nodes[index..end]
}

fn is_linear(op: &Op) -> bool {
    match op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Affine(_) => true,
        Op::Dense(dense) => matches!(dense.weight, Weight::Dense(_)),
        _ => false,
    }
}

fn activation(op: &Op) -> ActivationRange {
    match op {
        Op::Dense(dense) => dense.activation,
        Op::Clamp(range) => *range,
        _ => ActivationRange::NONE,
    }
}

/// The dense layer that equals a run, if it is a tensor train.
fn composed(graph: &Graph, run: &[Node]) -> Option<Dense> {
    let layers = run.iter().filter(|node| matches!(node.op, Op::Dense(_))).count();
    let (input, output) = (run.first()?.inputs[0], run.last()?.output);
    let single = [input, output].iter().all(|id| graph.shape(*id).first() == Some(&1));
    let [i, o] = [input, output].map(|id| graph.shape(id).iter().product::<usize>());
    if layers < 2 || !single || i.checked_mul(o)? > LARGEST {
        return None;
    }
    let mut linear =
        Graph { nodes: run.to_vec(), inputs: vec![input], outputs: vec![output], ..graph.clone() };
    let clamp = run.last().map_or(ActivationRange::NONE, |node| activation(&node.op));
    for node in &mut linear.nodes {
        match &mut node.op {
            Op::Dense(dense) => dense.activation = ActivationRange::NONE,
            Op::Clamp(range) => *range = ActivationRange::NONE,
            _ => {}
        }
    }
    let constant = evaluate(&linear, &[vec![0.0; i]], 1, &[output]).pop()?;
    for node in &mut linear.nodes {
        match &mut node.op {
            Op::Dense(dense) => dense.bias = None,
            Op::Affine(affine) => affine.shift.iter_mut().for_each(|x| *x = 0.0),
            _ => {}
        }
    }
    let mut units = vec![0.0; i * i];
    units.iter_mut().step_by(i + 1).for_each(|x| *x = 1.0);
    let columns = evaluate(&linear, &[units], i, &[output]).pop()?;
    let data = (0..o).flat_map(|row| (0..i).map(move |column| (row, column)));
    let weight = Tensor::new(vec![o, i], data.map(|(row, column)| columns[column * o + row]).collect());
    let train = train(&weight)?;
    let stored: usize = run.iter().map(|node| node.op.parameters()).sum();
    let of_train: usize = train.cores.iter().map(|core| core.tensor.len()).sum();
    let bias = constant.iter().any(|x| *x != 0.0).then_some(constant);
    let fits = of_train + bias.as_ref().map_or(0, Vec::len) <= stored;
    fits.then_some(Dense { weight: Weight::Dense(weight), bias, activation: clamp })
}

fn train(weight: &Tensor) -> Option<Network> {
    let (matrix, unused) = (to_matrix(weight), Matrix::zeros(0, 0));
    tensor_train::find(Target::new(&weight.shape, &matrix, &unused)).ok().flatten()
}

/// Appends `dense` between the first value and the last one of `run`; it takes the name of the run's first linear layer.
fn append(graph: &mut Graph, run: &[Node], dense: Dense) {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
    let named = run.iter().find(|node| matches!(node.op, Op::Dense(_))).unwrap_or(first);
    let [o, i] = [dense.weight.shape()[0], dense.weight.shape()[1]];
    let mut input = first.inputs[0];
    let push = |graph: &mut Graph, suffix: &str, op: Op, input: ValueId, output: ValueId| {
        let name = format!("{}{suffix}", named.name);
        graph.nodes.push(Node { name, op, inputs: vec![input], output });
    };
    if graph.shape(input) != [1, i] {
        let flat = graph.add_value(format!("{}/flat", named.name), vec![1, i]);
        push(graph, "/flat", Op::Reshape(vec![1, i]), input, flat);
        input = flat;
    }
    let shape = graph.shape(last.output).to_vec();
    if shape == [1, o] {
        return push(graph, "", Op::Dense(dense), input, last.output);
    }
    let whole = graph.add_value(format!("{}/whole", named.name), vec![1, o]);
    push(graph, "", Op::Dense(dense), input, whole);
    push(graph, "/shape", Op::Reshape(shape), whole, last.output);
}
