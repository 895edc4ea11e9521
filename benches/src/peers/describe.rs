//! A network as `benches/peers/networks.py` reads it: `network.json` for layers, values and scales, `network.bin` for numbers.

use serde_json::{Map, Value, json};
use tucano_converter::graph::{ActivationRange, Graph, Node, Op, Pool};
use tucano_converter::quantize::{Layer, Quantized};

/// A description: the text of `network.json` and the bytes of `network.bin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Layers in order of execution, values with their shapes and scales.
    pub json: String,
    /// Weights, biases and scales, little endian.
    pub numbers: Vec<u8>,
}

/// Describes a float network of ordinary layers.
///
/// # Errors
/// The node that has no description.
pub fn float(graph: &Graph) -> Result<Description, String> {
    describe(graph, None)
}

/// Describes the integers of a quantised network.
///
/// # Errors
/// The node that has no description.
pub fn integer(quantized: &Quantized) -> Result<Description, String> {
    describe(&quantized.graph, Some(&quantized.layers))
}

fn describe(graph: &Graph, layers: Option<&[Option<Layer>]>) -> Result<Description, String> {
    let mut numbers = Numbers::default();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let layer = layers.and_then(|layers| layers[index].as_ref());
        nodes.push(describe_node(node, layer, &mut numbers)?);
    }
    let values: Vec<Value> = (graph.values.iter())
        .map(|value| {
            let quantization = value.quantization.filter(|_| layers.is_some());
            json!({
                "name": value.name, "shape": value.shape, "scale": quantization.map(|q| q.scale),
                "zero_point": quantization.map(|q| q.zero_point), "bits": quantization.map(|q| q.bits),
            })
        })
        .collect();
    let indices = |ids: &[tucano_converter::graph::ValueId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let document = json!({
        "schema": "tucano.bench.network/1", "int8": layers.is_some(), "values": values, "nodes": nodes,
        "inputs": indices(&graph.inputs), "outputs": indices(&graph.outputs),
    });
    Ok(Description { json: document.to_string(), numbers: numbers.0 })
}

#[derive(Default)]
struct Numbers(Vec<u8>);

impl Numbers {
    fn place(&mut self, dtype: &str, shape: &[usize], bytes: impl Iterator<Item = u8>) -> Value {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let offset = self.0.len();
        self.0.extend(bytes);
        json!({"dtype": dtype, "shape": shape, "offset": offset})
    }

    fn f32s(&mut self, shape: &[usize], values: &[f32]) -> Value {
        self.place("f32", shape, values.iter().flat_map(|value| value.to_le_bytes()))
    }
}

fn describe_node(node: &Node, layer: Option<&Layer>, numbers: &mut Numbers) -> Result<Value, String> {
    let mut fields = match &node.op {
        Op::Conv(conv) => fields(json!({
            "op": "conv", "strides": conv.strides, "pads": conv.pads, "dilations": conv.dilations, "groups": conv.groups,
        })),
        Op::Dense(_) => fields(json!({"op": "dense"})),
        Op::Clamp(_) => fields(json!({"op": "clamp"})),
        Op::Add(_) => fields(json!({"op": "add"})),
        Op::MaxPool(pool) => windows("max-pool", pool),
        Op::AveragePool(pool) => windows("average-pool", pool),
        Op::Mean { axes, keep_axes } => fields(json!({"op": "mean", "axes": axes, "keep_axes": keep_axes})),
        Op::Reshape(_) => fields(json!({"op": "reshape"})),
        Op::Pad { before, after, value } => {
            fields(json!({"op": "pad", "before": before, "after": after, "value": value}))
        }
        Op::Softmax { axis } => fields(json!({"op": "softmax", "axis": axis})),
        other => return Err(format!("node `{}` ({}) has no description", node.name, other.name())),
    };
    let (bias, activation) = match &node.op {
        Op::Conv(conv) => (conv.bias.as_deref(), Some(conv.activation)),
        Op::Dense(dense) => (dense.bias.as_deref(), Some(dense.activation)),
        Op::Add(activation) | Op::Clamp(activation) => (None, Some(*activation)),
        _ => (None, None),
    };
    if let Some(ActivationRange { low, high }) = activation {
        let bound = |bound: f32| bound.is_finite().then_some(bound);
        fields.extend([("low".into(), json!(bound(low))), ("high".into(), json!(bound(high)))]);
    }
    if let Some(weight) = node.op.weight() {
        let channels = weight.shape()[0];
        let constants = match (layer, node.op.dense_weight()) {
            (Some(layer), _) => {
                let weights = layer.weights.iter().map(|weight| weight.cast_unsigned());
                vec![
                    ("weight", numbers.place("i8", &layer.shape, weights)),
                    ("scales", numbers.f32s(&[channels], &layer.scales)),
                    (
                        "bias",
                        numbers.place("i32", &[channels], layer.bias.iter().flat_map(|b| b.to_le_bytes())),
                    ),
                ]
            }
            (None, Some(tensor)) => vec![
                ("weight", numbers.f32s(&tensor.shape, &tensor.data)),
                ("bias", numbers.f32s(&[channels], bias.unwrap_or(&vec![0.0; channels]))),
            ],
            (None, None) => return Err(format!("node `{}` is factorised and not lowered", node.name)),
        };
        fields.extend(constants.into_iter().map(|(key, place)| (key.to_string(), place)));
    }
    let inputs: Vec<usize> = node.inputs.iter().map(|id| id.0).collect();
    fields.extend([
        ("name".into(), json!(node.name)),
        ("inputs".into(), json!(inputs)),
        ("output".into(), json!(node.output.0)),
    ]);
    Ok(Value::Object(fields))
}

fn windows(op: &str, pool: &Pool) -> Map<String, Value> {
    fields(json!({
        "op": op, "kernel": pool.kernel, "strides": pool.strides, "pads": pool.pads, "count_include_pad": pool.count_include_pad,
    }))
}

fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A network of one small step, to measure what a call costs.
#[must_use]
pub fn nothing() -> Graph {
    let mut graph = Graph { name: "nothing".into(), ..Graph::default() };
    let [input, output] = ["x", "y"].map(|name| graph.add_value(name, vec![1, 1]));
    let node =
        Node { name: "nothing".into(), op: Op::Clamp(ActivationRange::RELU), inputs: vec![input], output };
    graph.nodes.push(node);
    graph.inputs.push(input);
    graph.outputs.push(output);
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use tucano_converter::graph::{Dense, Tensor, Weight};

    #[test]
    fn numbers_stand_where_the_document_says() {
        let mut graph = Graph::default();
        let input = graph.add_value("in", vec![1, 2]);
        let output = graph.add_value("out", vec![1, 3]);
        let weight = Tensor::new(vec![3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let op = Op::Dense(Dense {
            weight: Weight::Dense(weight),
            bias: Some(vec![7.0, 8.0, 9.0]),
            activation: ActivationRange::RELU,
        });
        graph.nodes.push(Node { name: "layer".into(), op, inputs: vec![input], output });
        (graph.inputs, graph.outputs) = (vec![input], vec![output]);

        let description = float(&graph).unwrap();
        let document: Value = serde_json::from_str(&description.json).unwrap();
        let node = &document["nodes"][0];
        assert_eq!((&node["low"], &node["high"]), (&json!(0.0), &Value::Null));
        let at = |place: &Value| -> Vec<f32> {
            let start = place["offset"].as_u64().unwrap() as usize;
            let count: u64 = place["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
            let bytes = &description.numbers[start..][..4 * count as usize];
            bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        assert_eq!(at(&node["weight"]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(at(&node["bias"]), [7.0, 8.0, 9.0]);
    }

    #[test]
    fn what_has_no_description_is_named() {
        let mut graph = nothing();
        graph.nodes[0].op = Op::Transpose(vec![0, 1]);
        assert!(float(&graph).unwrap_err().contains("`nothing` (transpose)"));
    }
}
