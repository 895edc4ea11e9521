//! The one intermediate representation of the converter.
//!
//! Takes: what `import` read. Gives: what every pass, the evaluator, the search, the planner and the emitter work on.
//! A [`Graph`] keeps the axes of the ONNX model one to one (images are `[n, c, h, w]`, sequences `[n, c, w]`), all
//! shapes are static, and all values are float; quantisation is an annotation ([`Value::quantization`]), physical
//! memory order is decided by `passes::layout` alone.
//!
//! Nodes stand in topological order and each gives exactly one value. Refused by construction: dynamic shapes, control flow,
//! several outputs of a node ([`Graph::check`] finds broken graphs).

mod node;
mod tensor;
mod weight;

pub use node::{
    ActivationRange, Affine, Conv, Dense, Node, Op, Pool, Unary, conv_output_extent, image_shape,
};
pub use tensor::Tensor;
pub use weight::{Core, Mode, Network, Weight};

/// Names a value of a [`Graph`]: an index into [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor that flows between nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The name in the source model, or one derived from it.
    pub name: String,
    /// Static extent of each logical (ONNX) axis; the batch axis included.
    pub shape: Vec<usize>,
    /// Quantisation fixed by the source model (quantised imports); `None` lets calibration choose.
    pub quantization: Option<Quantization>,
    /// A factor's inner value: it lies between two stages of one factorised layer, so nothing but the next stage
    /// reads it, any scale per channel is free, and it may be wider than 8 bits.
    pub rank_space: bool,
}

/// How real numbers are stored as integers: `real = scale * (stored - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// Positive and finite.
    pub scale: f32,
    /// The stored integer that means zero. Always 0 for 16-bit values, but for probabilities (-32768).
    pub zero_point: i32,
    /// Width of the stored integer: 8 or 16 (both signed).
    pub bits: u8,
}

impl Quantization {
    /// Least and greatest stored integer.
    pub fn limits(self) -> [i32; 2] {
        match (self.bits, self.zero_point) {
            (16, 0) => [-32767, 32767],
            (16, _) => [-32768, 32767],
            _ => [-128, 127],
        }
    }
}

/// A network of nodes in topological order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The model's name, for reports.
    pub name: String,
    /// All values; removed nodes may leave unused ones until `passes::simplify` compacts them.
    pub values: Vec<Value>,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// Fed by the caller.
    pub inputs: Vec<ValueId>,
    /// Returned to the caller.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// Adds a value and names it.
    pub fn add_value(&mut self, name: impl Into<String>, shape: Vec<usize>) -> ValueId {
        self.values.push(Value { name: name.into(), shape, quantization: None, rank_space: false });
        ValueId(self.values.len() - 1)
    }

    /// The value behind a name.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// Index of the node that gives `id`, or `None` for a graph input.
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.nodes.iter().position(|node| node.output == id)
    }

    /// Indices of the nodes that read `id`, in order.
    pub fn consumers(&self, id: ValueId) -> Vec<usize> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.inputs.contains(&id))
            .map(|(index, _)| index)
            .collect()
    }

    /// Makes every reader of `from` (graph outputs included) read `to`.
    pub fn redirect(&mut self, from: ValueId, to: ValueId) {
        let readers = self.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut());
        for id in readers.chain(self.outputs.iter_mut()) {
            if *id == from {
                *id = to;
            }
        }
    }

    /// Learnt numbers of all layers (weights, biases, scales) as they are stored now.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().map(|node| node.op.parameters()).sum()
    }

    /// Multiply-adds of the linear layers for one inference, factorised layers priced by their stages.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_macs(node)).sum()
    }

    /// Multiply-adds of one node; 0 for all but [`Op::Conv`] and [`Op::Dense`].
    pub fn node_macs(&self, node: &Node) -> u64 {
        node.op.macs(self.shape(node.inputs[0]), self.shape(node.output))
    }

    /// Finds what no pass may ever leave behind: a value read before it is given, given twice, or never, a dangling
    /// index, a shape that contradicts its node. The text names node and value.
    pub fn check(&self) -> Result<(), String> {
        let mut given = vec![false; self.values.len()];
        for input in &self.inputs {
            *given.get_mut(input.0).ok_or("graph input names no value")? = true;
        }
        for node in &self.nodes {
            for id in &node.inputs {
                match given.get(id.0) {
                    Some(true) => {}
                    Some(false) => {
                        return Err(format!(
                            "node `{}` reads `{}` before it is computed",
                            node.name,
                            self.value(*id).name
                        ));
                    }
                    None => return Err(format!("node `{}` reads no value", node.name)),
                }
            }
            let slot =
                given.get_mut(node.output.0).ok_or_else(|| format!("node `{}` gives no value", node.name))?;
            if std::mem::replace(slot, true) {
                return Err(format!(
                    "value `{}` is given twice, last by node `{}`",
                    self.value(node.output).name,
                    node.name
                ));
            }
            let shapes: Vec<&[usize]> = node.inputs.iter().map(|id| self.shape(*id)).collect();
            let expected = node
                .op
                .output_shape(&shapes)
                .map_err(|why| format!("node `{}` ({}): {why}", node.name, node.op.name()))?;
            if expected != self.shape(node.output) {
                return Err(format!(
                    "node `{}` ({}) gives {expected:?}, but `{}` is {:?}",
                    node.name,
                    node.op.name(),
                    self.value(node.output).name,
                    self.shape(node.output)
                ));
            }
        }
        match self.outputs.iter().find(|id| given.get(id.0) != Some(&true)) {
            Some(id) => Err(format!("graph output `{}` is never computed", self.value(*id).name)),
            None => Ok(()),
        }
    }
}
