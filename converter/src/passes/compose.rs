//! Multiplies chains of linear layers out where they are a tensor train.
//!
//! Takes a simplified graph; gives an equal one in which a run of reshapes, transposes and dense layers without activations, as exporters write a tensor-train
//! layer, is one dense layer, so that formats and search see the layer that was trained. Only where the run's matrix is a train that stores no more than
//! the run does: every other run stays as it is. Any such run is linear, so its matrix is what it makes of the unit vectors.
//!
//! Left alone: runs with values that others read, of several samples, and those whose matrix is larger than `LARGEST` or takes more than `MOST_MACS` to multiply out.

use crate::compress::{Target, tensor_train, to_matrix};
use crate::evaluate::evaluate;
use crate::graph::{ActivationRange, Dense, Graph, Network, Node, Op, Tensor, ValueId, Weight};
use crate::linalg::Matrix;

/// Numbers of a matrix that is multiplied out.
const LARGEST: usize = 1 << 22;

/// Multiply-adds that multiplying a run out may take: one inference for each column.
const MOST_MACS: u64 = 1 << 34;

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
    if linear.macs().saturating_mul(i as u64) > MOST_MACS {
        return None;
    }
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
    // Unit vectors, not more numbers of them at a time than a matrix may have.
    let (mut columns, block) = (Vec::with_capacity(o * i), (LARGEST / i.max(1)).max(1));
    for first in (0..i).step_by(block) {
        let count = block.min(i - first);
        let mut units = vec![0.0; count * i];
        units[first..].iter_mut().step_by(i + 1).for_each(|x| *x = 1.0);
        columns.extend(evaluate(&linear, &[units], count, &[output]).pop()?);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::network::reconstruct;
    use crate::compress::tests::noise;
    use crate::graph::{Affine, Core, Mode};

    fn graph(input: &[usize], ops: Vec<Op>) -> Graph {
        let mut graph = Graph::default();
        let mut value = graph.add_value("x", input.to_vec());
        graph.inputs = vec![value];
        for (index, op) in ops.into_iter().enumerate() {
            let shape = op.output_shape(&[graph.shape(value)]).unwrap();
            let output = graph.add_value(format!("v{index}"), shape);
            graph.nodes.push(Node { name: format!("n{index}"), op, inputs: vec![value], output });
            value = output;
        }
        graph.outputs = vec![value];
        graph
    }

    fn dense(o: usize, i: usize, seed: u64) -> Op {
        let weight = Weight::Dense(Tensor::new(vec![o, i], noise(o * i, seed)));
        Op::Dense(Dense { weight, bias: Some(noise(o, seed + 1)), activation: ActivationRange::NONE })
    }

    #[test]
    fn a_lowered_train_becomes_its_layer_again() {
        use Mode::*;
        // The second needs more than one batch of unit vectors.
        for [p, q, r, s] in [[4, 6, 5, 8], [2, 64, 2, 40]] {
            let core = |shape: [usize; 3], modes: [Mode; 3], seed| Core {
                tensor: Tensor::new(shape.to_vec(), noise(shape.iter().product(), seed)),
                modes: modes.to_vec(),
            };
            let network = Network {
                format: "tensor-train",
                shape: vec![p * r, q * s],
                cores: vec![
                    core([p, q, 2], [Output(0), Input(0), Bond(0)], 1),
                    core([2, r, s], [Bond(0), Output(1), Input(1)], 2),
                ],
                contraction: vec![0, 1],
                row_scale: None,
            };
            let expected = reconstruct(&network).unwrap();
            let (bias, activation) = (Some(noise(p * r, 3)), ActivationRange::NONE);
            let weight = Weight::Network(network);
            let layer = graph(&[1, q * s], vec![Op::Dense(Dense { weight, bias, activation })]);
            let mut lowered = crate::lower::lower(&layer).unwrap();
            // Exporters write the bias that ends the chain as an addition.
            for node in &mut lowered.nodes {
                if let Op::Conv(conv) = &node.op {
                    let scale = conv.weight.clone();
                    let Weight::Dense(Tensor { data: scale, .. }) = scale else { panic!() };
                    node.op = Op::Affine(Affine { scale, shift: conv.bias.clone().unwrap() });
                }
            }
            assert!(lowered.nodes.iter().filter(|node| node.op.weight().is_some()).count() > 1);
            let composed = compose(&lowered);
            composed.check().unwrap();
            let found: Vec<&Tensor> = composed.nodes.iter().filter_map(|n| n.op.dense_weight()).collect();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].shape, expected.shape);
            assert!(found[0].data.iter().zip(&expected.data).all(|(a, b)| (a - b).abs() < 1e-5));
            let input = [noise(2 * q * s, 4)];
            let run = |graph: &Graph| evaluate(graph, &input, 2, &graph.outputs).remove(0);
            let (whole, chain) = (run(&composed), run(&lowered));
            assert!(whole.iter().any(|x| *x > 0.1));
            assert!(whole.iter().zip(&chain).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs())));
        }
    }

    #[test]
    fn other_runs_stay_as_they_are() {
        let clamped = |mut op: Op| {
            if let Op::Dense(dense) = &mut op {
                dense.activation = ActivationRange::RELU;
            }
            op
        };
        for (input, ops) in [
            // Low rank, an activation inside, several rows, and more work than a look is worth.
            ([1, 30], vec![dense(3, 30, 1), dense(40, 3, 3)]),
            ([1, 30], vec![clamped(dense(3, 30, 1)), dense(40, 3, 3)]),
            ([2, 30], vec![dense(3, 30, 1), dense(40, 3, 3)]),
            ([1, 1 << 17], vec![dense(4, 1 << 17, 1), dense(1, 4, 3)]),
        ] {
            let graph = graph(&input, ops);
            assert_eq!(compose(&graph), graph);
        }
    }
}
