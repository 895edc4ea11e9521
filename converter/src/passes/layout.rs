//! Decides in which order the elements of each value lie in memory, and turns the graph into steps over stored tensors.
//!
//! Takes a graph whose weights are dense (after `lower` and [`super::legalize()`]). Gives a [`Layout`]: stored tensors (images are
//! `[n, h, w, c]`), steps that name the runtime's operators, and how stored weights are gathered from the graph's, so that float
//! and integer weights take the same path.
//!
//! The order of a value is tracked element by element: `order[k]` is the row-major index, in the graph's axes, of the element stored
//! at `k`. A reshape keeps it, a transpose composes it, and neither costs a step; a convolution wants and gives `[n, h, w, c]`; a
//! dense layer absorbs any order of its features in its columns, and gives its outputs in the order that the next step wants. So
//! only what really has to move becomes a [`Kind::Permute`] step. Graph inputs are stored in the order that their first reader
//! wants, if that is an order of whole axes, and the contract tells the caller.
//!
//! Refused, naming the node: factorised weights, and graph inputs and outputs with more than four axes.

use std::rc::Rc;

use tucano::blob::InputContract;

use super::order::{as_permute, as_permutes, axis_order, axis_permutation, gathered, inverse};
use crate::graph::{Conv, Graph, Node, Op, Pool, ValueId, image_shape};

/// Why a graph has no layout.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A node that the runtime has no form for.
    #[error("node `{node}` ({op}): {why}")]
    Node {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What stands in the way.
        why: String,
    },
    /// A graph input or output that a blob cannot describe.
    #[error("graph input or output `{value}` has shape {shape:?}; a blob stores at most 4 axes")]
    #[diagnostic(help("reshape it in the model so that it has at most 4 axes"))]
    Axes {
        /// The value.
        value: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// Steps over stored tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// All stored tensors. Several may be views of one buffer.
    pub tensors: Vec<Stored>,
    /// In order of execution.
    pub steps: Vec<Step>,
    /// Indices into `tensors`, one for each graph input.
    pub inputs: Vec<usize>,
    /// Indices into `tensors`, one for each graph output.
    pub outputs: Vec<usize>,
    /// Source axes of each graph input, then of each graph output.
    pub contracts: Vec<InputContract>,
}

/// A buffer seen with a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// A graph value that lies in it; all values of one buffer have the same elements.
    pub value: ValueId,
    /// Stored extents, one to four; the last axis is contiguous.
    pub shape: Vec<usize>,
    /// Tensors with the same number share memory.
    pub buffer: usize,
}

/// One operation of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name of the graph's node.
    pub name: String,
    /// Index of the node in the graph.
    pub node: usize,
    /// What it does.
    pub kind: Kind,
    /// Indices into [`Layout::tensors`].
    pub inputs: Vec<usize>,
    /// Index into [`Layout::tensors`].
    pub output: usize,
}

/// Operator of a step. Numbers that the layout does not change (activation, bias, function) stay in the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Dense or grouped convolution; stored weights are `[o][kh][kw][i / groups]`.
    Conv(Window, Gather),
    /// One filter for each channel; stored weights are `[kh][kw][o]`.
    DepthwiseConv(Window, Gather),
    /// Matrix product of `[rows, i]`; stored weights are `[o][i]`.
    Dense(Gather),
    /// Maximum over windows.
    MaxPool(Window),
    /// Mean over windows, a full mean included.
    AveragePool(Window),
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// A function of one number: clamp or unary.
    Pointwise,
    /// Softmax over the last stored axis.
    Softmax,
    /// Output axis `k` is input axis `order[k]`.
    Permute(Vec<usize>),
}

/// Windows of a convolution or pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height, width.
    pub kernel: [usize; 2],
    /// Vertical, horizontal.
    pub strides: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    /// Vertical, horizontal.
    pub dilations: [usize; 2],
}

/// Where stored constants come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Stored weight `k` is the graph's weight `weights[k]` (row-major).
    pub weights: Vec<usize>,
    /// Stored output channel `k` is the graph's output channel `channels[k]`; also orders bias and multipliers.
    pub channels: Vec<usize>,
}

/// The place among `tensors` of the one that sees a buffer with this shape; a new one if there is none.
pub fn seen(tensors: &mut Vec<Stored>, wanted: Stored) -> usize {
    let same = |tensor: &Stored| tensor.buffer == wanted.buffer && tensor.shape == wanted.shape;
    tensors.iter().position(same).unwrap_or_else(|| {
        tensors.push(wanted);
        tensors.len() - 1
    })
}

/// Lays out `graph`.
pub fn layout(graph: &Graph) -> Result<Layout, Error> {
    let wanted = wanted_orders(graph);
    let mut state = State {
        graph,
        tensors: Vec::new(),
        steps: Vec::new(),
        places: vec![Vec::new(); graph.values.len()],
        buffers: 0,
    };
    let mut contracts = Vec::new();
    let mut inputs = Vec::new();
    for id in &graph.inputs {
        let shape = interface_shape(graph, *id)?;
        let axes = wanted[id.0].as_ref().and_then(|order| axis_permutation(&shape, order));
        let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
        let stored = axes.iter().map(|axis| shape[*axis]).collect();
        let place = state.new_place(axis_order(&shape, &axes).into(), stored);
        inputs.push(state.tensor(*id, &place, place.shape.clone()));
        state.places[id.0].push(place);
        contracts.push(contract(&shape, &axes));
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        state.node(index, node, wanted[node.output.0].as_ref())?;
    }
    let mut outputs = Vec::new();
    for id in &graph.outputs {
        let shape = interface_shape(graph, *id)?;
        let found = state.places[id.0]
            .iter()
            .find_map(|place| axis_permutation(&shape, &place.order).map(|axes| (place.clone(), axes)));
        let (place, axes) = match found {
            Some(found) => found,
            None => {
                let reader = graph.producer(*id).unwrap_or(0);
                let identity: Vec<usize> = (0..shape.len()).collect();
                (state.moved(*id, axis_order(&shape, &identity), &shape, reader)?, identity)
            }
        };
        let stored = axes.iter().map(|axis| shape[*axis]).collect();
        outputs.push(state.tensor(*id, &place, stored));
        contracts.push(contract(&shape, &axes));
    }
    Ok(Layout { tensors: state.tensors, steps: state.steps, inputs, outputs, contracts })
}

/// Shape of a graph input or output; a scalar has one axis.
fn interface_shape(graph: &Graph, id: ValueId) -> Result<Vec<usize>, Error> {
    match graph.shape(id) {
        [] => Ok(vec![1]),
        shape if shape.len() <= 4 => Ok(shape.to_vec()),
        shape => Err(Error::Axes { value: graph.value(id).name.clone(), shape: shape.to_vec() }),
    }
}

fn contract(shape: &[usize], axes: &[usize]) -> InputContract {
    let mut contract = InputContract { rank: shape.len() as u8, order: [0, 1, 2, 3], shape: [1; 4] };
    for (k, (extent, axis)) in shape.iter().zip(axes).enumerate() {
        contract.order[k] = *axis as u8;
        contract.shape[k] = *extent as u32;
    }
    contract
}

/// Order of `[n, c, h, w]` stored as `[n, h, w, c]`.
fn image_order([n, c, h, w]: [usize; 4]) -> Vec<usize> {
    axis_order(&[n, c, h, w], &[0, 2, 3, 1])
}

type Order = Rc<[usize]>;

/// For each value the order that its first particular reader needs, carried backwards through what moves no data.
fn wanted_orders(graph: &Graph) -> Vec<Option<Order>> {
    let mut wanted: Vec<Option<Order>> = vec![None; graph.values.len()];
    for node in graph.nodes.iter().rev() {
        let shape = graph.shape(node.inputs[0]);
        let of_output = wanted[node.output.0].clone();
        let of_input = match &node.op {
            Op::Conv(_) | Op::MaxPool(_) | Op::AveragePool(_) => {
                image_shape(shape).ok().map(|image| image_order(image).into())
            }
            Op::Transpose(permutation) => of_output.map(|order| {
                let source = axis_order(shape, permutation);
                order.iter().map(|index| source[*index]).collect()
            }),
            Op::Reshape(_) | Op::Clamp(_) | Op::Unary(_) | Op::Add(_) | Op::Mul(_) => of_output,
            _ => None,
        };
        if of_input.is_some() {
            for id in &node.inputs {
                wanted[id.0] = of_input.clone();
            }
        }
    }
    wanted
}

/// Where a value lies, and how.
#[derive(Clone)]
struct Place {
    buffer: usize,
    order: Order,
    shape: Vec<usize>,
}

/// Whether a transpose leaves `place` in an order of axes; every place is in one, so that row-major order can always be reached.
fn permutes_axes(place: &Place, transpose: &[usize]) -> bool {
    as_permute(&gathered(transpose, &place.order)).is_some()
}

struct State<'a> {
    graph: &'a Graph,
    tensors: Vec<Stored>,
    steps: Vec<Step>,
    /// For each value: one entry for each order in which it exists.
    places: Vec<Vec<Place>>,
    buffers: usize,
}

impl State<'_> {
    fn new_place(&mut self, order: Order, shape: Vec<usize>) -> Place {
        self.buffers += 1;
        Place { buffer: self.buffers - 1, order, shape }
    }

    /// The tensor that sees `place` with `shape`.
    fn tensor(&mut self, value: ValueId, place: &Place, shape: Vec<usize>) -> usize {
        seen(&mut self.tensors, Stored { value, shape, buffer: place.buffer })
    }

    fn refuse(&self, node: usize, why: impl Into<String>) -> Error {
        let node = &self.graph.nodes[node];
        Error::Node { node: node.name.clone(), op: node.op.name(), why: why.into() }
    }

    /// A place of `id` in exactly this order; copied there by a step if it does not exist yet.
    fn placed(
        &mut self,
        id: ValueId,
        order: Vec<usize>,
        shape: &[usize],
        reader: usize,
    ) -> Result<Place, Error> {
        match self.places[id.0].iter().find(|place| *place.order == *order) {
            Some(place) => Ok(place.clone()),
            None => self.moved(id, order, shape, reader),
        }
    }

    /// Copies `id` into a new place by permute steps, one if four axes suffice.
    fn moved(
        &mut self,
        id: ValueId,
        order: Vec<usize>,
        shape: &[usize],
        reader: usize,
    ) -> Result<Place, Error> {
        let from = self.places[id.0][0].clone();
        let at = inverse(&from.order);
        let source: Vec<usize> = order.iter().map(|index| at[*index]).collect();
        // Axes that two reshapes split in different places have row-major order in common.
        let through_row_major = || [as_permutes(&at)?, as_permutes(&order)?].concat().into();
        let permutes = as_permutes(&source).or_else(through_row_major).ok_or_else(|| {
            self.refuse(reader, "needs its input in an order that no permutations of its axes give")
        })?;
        let name = format!("{}/permute", self.graph.nodes.get(reader).map_or("output", |node| &node.name));
        let mut place = from;
        for (input_shape, axes) in permutes {
            let output_shape: Vec<usize> = axes.iter().map(|axis| input_shape[*axis]).collect();
            let order = gathered(&place.order, &axis_order(&input_shape, &axes));
            let input = self.tensor(id, &place, input_shape);
            place = self.new_place(order.into(), output_shape.clone());
            let output = self.tensor(id, &place, output_shape);
            let (name, kind) = (name.clone(), Kind::Permute(axes));
            self.steps.push(Step { name, node: reader, kind, inputs: vec![input], output });
        }
        place.shape = shape.to_vec();
        self.places[id.0].push(place.clone());
        Ok(place)
    }

    fn step(&mut self, node: usize, kind: Kind, inputs: Vec<usize>, output: usize) {
        self.steps.push(Step { name: self.graph.nodes[node].name.clone(), node, kind, inputs, output });
    }

    fn node(&mut self, index: usize, node: &Node, wanted: Option<&Order>) -> Result<(), Error> {
        let graph = self.graph;
        let (input, output) = (node.inputs[0], node.output);
        let shape = graph.shape(input);
        match &node.op {
            Op::Reshape(_) => {
                self.places[output.0] = self.places[input.0].clone();
                Ok(())
            }
            Op::Transpose(permutation) => {
                let at = inverse(&axis_order(shape, permutation));
                if !self.places[input.0].iter().any(|place| permutes_axes(place, &at)) {
                    let elements = at.len();
                    self.placed(input, (0..elements).collect(), &[elements], index)?;
                }
                let carry =
                    |place: &Place| Place { order: gathered(&at, &place.order).into(), ..place.clone() };
                let carried =
                    self.places[input.0].iter().filter(|place| permutes_axes(place, &at)).map(carry);
                self.places[output.0] = carried.collect();
                Ok(())
            }
            Op::Conv(conv) => {
                let kind = self.convolution(index, conv, shape)?;
                self.windowed(index, node, kind)
            }
            Op::MaxPool(pool) => self.windowed(index, node, Kind::MaxPool(pool_window(pool))),
            Op::AveragePool(pool) => self.windowed(index, node, Kind::AveragePool(pool_window(pool))),
            Op::Dense(_) => self.dense(index, node, wanted),
            Op::Mean { axes, .. } => self.mean(index, node, axes),
            Op::Add(_) => self.elementwise(index, node, Kind::Add),
            Op::Mul(_) => self.elementwise(index, node, Kind::Mul),
            Op::Clamp(_) | Op::Unary(_) => self.elementwise(index, node, Kind::Pointwise),
            Op::Softmax { axis } => self.softmax(index, node, *axis),
            Op::Affine(_) | Op::Pad { .. } => {
                Err(self.refuse(index, "has no step: run `legalize` before the layout"))
            }
        }
    }

    fn convolution(&self, index: usize, conv: &Conv, shape: &[usize]) -> Result<Kind, Error> {
        let Some(&[o, i, kh, kw]) = self.graph.nodes[index].op.dense_weight().map(|weight| &weight.shape[..])
        else {
            return Err(self.refuse(index, "its weight is still factorised"));
        };
        let channels = image_shape(shape).map_err(|why| self.refuse(index, why))?[1];
        let window =
            Window { kernel: [kh, kw], strides: conv.strides, pads: conv.pads, dilations: conv.dilations };
        let identity = (0..o).collect();
        Ok(if conv.groups == channels && conv.groups > 1 {
            let weights = axis_order(&[o, i, kh, kw], &[2, 3, 0, 1]);
            Kind::DepthwiseConv(window, Gather { weights, channels: identity })
        } else {
            let weights = axis_order(&[o, i, kh, kw], &[0, 2, 3, 1]);
            Kind::Conv(window, Gather { weights, channels: identity })
        })
    }

    /// Convolutions and poolings: image to image.
    fn windowed(&mut self, index: usize, node: &Node, kind: Kind) -> Result<(), Error> {
        let image = |id| image_shape(self.graph.shape(id)).map_err(|why| self.refuse(index, why));
        let (from, to) = (image(node.inputs[0])?, image(node.output)?);
        let stored = |[n, c, h, w]: [usize; 4]| vec![n, h, w, c];
        let place = self.placed(node.inputs[0], image_order(from), &stored(from), index)?;
        let input = self.tensor(node.inputs[0], &place, stored(from));
        let place = self.new_place(image_order(to).into(), stored(to));
        let output = self.tensor(node.output, &place, stored(to));
        self.places[node.output.0].push(place);
        self.step(index, kind, vec![input], output);
        Ok(())
    }

    fn dense(&mut self, index: usize, node: &Node, wanted: Option<&Order>) -> Result<(), Error> {
        let Some(&[o, i]) = node.op.dense_weight().map(|weight| &weight.shape[..]) else {
            return Err(self.refuse(index, "its weight is still factorised"));
        };
        let input = node.inputs[0];
        let elements: usize = self.graph.shape(input).iter().product();
        let rows = elements / i;
        let found = self.places[input.0]
            .iter()
            .find_map(|place| rows_and_columns(&place.order, i).map(|split| (place.clone(), split)));
        let (place, (row_order, columns)) = match found {
            Some(found) => found,
            None => {
                let place = self.placed(input, (0..elements).collect(), &[rows, i], index)?;
                (place, ((0..rows).collect(), (0..i).collect()))
            }
        };
        // One row: the outputs may come in any order, so in the one that the next step wants.
        let channels = wanted.filter(|order| rows == 1 && as_permute(order).is_some());
        let channels = channels.map_or_else(|| (0..o).collect(), |order| order.to_vec());
        let weights =
            channels.iter().flat_map(|row| columns.iter().map(move |column| row * i + column)).collect();
        let order =
            row_order.iter().flat_map(|row| channels.iter().map(move |channel| row * o + channel)).collect();
        let from = self.tensor(input, &place, vec![rows, i]);
        let place = self.new_place(order, vec![rows, o]);
        let to = self.tensor(node.output, &place, vec![rows, o]);
        self.places[node.output.0].push(place);
        self.step(index, Kind::Dense(Gather { weights, channels }), vec![from], to);
        Ok(())
    }

    /// A mean is a pooling with one window over `[outer, reduced, 1, inner]`.
    fn mean(&mut self, index: usize, node: &Node, axes: &[usize]) -> Result<(), Error> {
        let input = node.inputs[0];
        let shape = self.graph.shape(input);
        let elements: usize = shape.iter().product();
        let reduced: usize = axes.iter().map(|axis| shape[*axis]).product();
        let target = reduced_index(shape, axes);
        let found = self.places[input.0].iter().find_map(|place| {
            let means: Vec<usize> = place.order.iter().map(|index| target[*index]).collect();
            blocks_of_means(&means, reduced).map(|(inner, order)| (place.clone(), inner, order))
        });
        let (place, inner, order) = match found {
            Some(found) => found,
            None => {
                let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
                let last: Vec<usize> = kept.chain(axes.iter().copied()).collect();
                let order = axis_order(shape, &last);
                let means: Vec<usize> = order.iter().map(|index| target[*index]).collect();
                let place = self.placed(input, order, &[elements / reduced, reduced], index)?;
                (place, 1, means.iter().step_by(reduced).copied().collect())
            }
        };
        let outer = elements / reduced / inner;
        let from = self.tensor(input, &place, vec![outer, reduced, 1, inner]);
        let place = self.new_place(order.into(), vec![outer, 1, 1, inner]);
        let to = self.tensor(node.output, &place, vec![outer, 1, 1, inner]);
        self.places[node.output.0].push(place);
        let window = Window { kernel: [reduced, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1] };
        self.step(index, Kind::AveragePool(window), vec![from], to);
        Ok(())
    }

    /// All inputs in one order, which is the output's.
    fn elementwise(&mut self, index: usize, node: &Node, kind: Kind) -> Result<(), Error> {
        let first = node.inputs[0];
        let shared = self.places[first.0].iter().find(|place| {
            node.inputs.iter().all(|id| self.places[id.0].iter().any(|other| other.order == place.order))
        });
        let place = shared.unwrap_or(&self.places[first.0][0]).clone();
        let mut inputs = Vec::new();
        for id in &node.inputs {
            let other = self.placed(*id, place.order.to_vec(), &place.shape, index)?;
            inputs.push(self.tensor(*id, &other, place.shape.clone()));
        }
        let place = self.new_place(place.order, place.shape);
        let output = self.tensor(node.output, &place, place.shape.clone());
        self.places[node.output.0].push(place);
        self.step(index, kind, inputs, output);
        Ok(())
    }

    fn softmax(&mut self, index: usize, node: &Node, axis: usize) -> Result<(), Error> {
        let (graph, input) = (self.graph, node.inputs[0]);
        let shape = graph.shape(input);
        let classes = shape[axis];
        let rows = shape.iter().product::<usize>() / classes;
        let target = reduced_index(shape, &[axis]);
        let contiguous = |place: &&Place| {
            place.order.chunks(classes).all(|row| row.iter().all(|index| target[*index] == target[row[0]]))
        };
        // Probabilities that leave the graph may be wider than what they come from: that is what moves, should they be out of order.
        let leaves = graph.outputs.contains(&node.output);
        let stated = |place: &&Place| !leaves || axis_permutation(shape, &place.order).is_some();
        let place = match self.places[input.0].iter().find(|place| contiguous(place) && stated(place)) {
            Some(place) => place.clone(),
            None => {
                let last: Vec<usize> = (0..shape.len()).filter(|k| *k != axis).chain([axis]).collect();
                self.placed(input, axis_order(shape, &last), &[rows, classes], index)?
            }
        };
        let from = self.tensor(input, &place, vec![rows, classes]);
        let place = self.new_place(place.order, vec![rows, classes]);
        let to = self.tensor(node.output, &place, vec![rows, classes]);
        self.places[node.output.0].push(place);
        self.step(index, Kind::Softmax, vec![from], to);
        Ok(())
    }
}

fn pool_window(pool: &Pool) -> Window {
    Window { kernel: pool.kernel, strides: pool.strides, pads: pool.pads, dilations: [1, 1] }
}

/// Splits an order of `[rows, columns]` into an order of rows and one of columns, if it is their product.
fn rows_and_columns(order: &[usize], columns: usize) -> Option<(Vec<usize>, Vec<usize>)> {
    let column_order: Vec<usize> = order[..columns].iter().map(|index| index % columns).collect();
    let row_order: Vec<usize> = order.chunks(columns).map(|row| row[0] / columns).collect();
    let product =
        |(k, index): (usize, &usize)| *index == row_order[k / columns] * columns + column_order[k % columns];
    order.iter().enumerate().all(product).then_some((row_order, column_order))
}

/// For each element of `shape` the index of the element it falls on when `axes` are reduced.
fn reduced_index(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut indices = vec![0];
    for (axis, extent) in shape.iter().enumerate() {
        let (factor, step) = if axes.contains(&axis) { (1, 0) } else { (*extent, 1) };
        indices =
            indices.iter().flat_map(|base| (0..*extent).map(move |k| base * factor + k * step)).collect();
    }
    indices
}

/// Finds `inner` such that stored elements, whose means are `means`, lie as `[outer, reduced, inner]`, and the order of the means.
fn blocks_of_means(means: &[usize], reduced: usize) -> Option<(usize, Vec<usize>)> {
    let kept = means.len() / reduced;
    (1..=kept).rev().filter(|inner| kept.is_multiple_of(*inner)).find_map(|inner| {
        let block = reduced * inner;
        let order: Vec<usize> =
            means.chunks(block).flat_map(|block| block[..inner].iter().copied()).collect();
        let fits = |(k, mean): (usize, &usize)| *mean == order[k / block * inner + k % inner];
        means.iter().enumerate().all(fits).then_some((inner, order))
    })
}
