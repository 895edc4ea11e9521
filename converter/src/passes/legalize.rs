//! Rewrites what the runtime has no step for as ordinary layers.
//!
//! Takes a lowered graph; gives one whose every node has a step. [`Op::Affine`] becomes a depthwise 1x1 convolution, and so does a
//! zero [`Op::Pad`] of an image's rows and columns, by its padding; a pad of channels becomes a 1x1 convolution that selects them.
//! A graph without such nodes comes back unchanged, so the pass may run twice. Refused, naming the node: padding of the batch, of
//! rows and columns by anything but zero, and either operator on values that are no images.

use crate::graph::{ActivationRange, Affine, Conv, Graph, Node, Op, Tensor, Weight, image_shape};

/// Why a node cannot be expressed by steps of the runtime.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
#[error("node `{node}` ({op}): {why}")]
#[diagnostic(help("fold this node into its neighbours before export, or express it by a convolution"))]
pub struct Error {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// What stands in the way.
    pub why: String,
}

/// Gives an equal graph without [`Op::Affine`] and [`Op::Pad`].
pub fn legalize(graph: &Graph) -> Result<Graph, Error> {
    let mut legal = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    for node in &graph.nodes {
        let refuse = |why: String| Error { node: node.name.clone(), op: node.op.name(), why };
        match &node.op {
            Op::Affine(affine) => {
                let conv = affine_as_conv(affine);
                if graph.shape(node.inputs[0]).len() == 2 {
                    through_image(&mut legal, node, conv);
                } else {
                    image_shape(graph.shape(node.inputs[0])).map_err(refuse)?;
                    legal.nodes.push(Node { op: Op::Conv(conv), ..node.clone() });
                }
            }
            Op::Pad { before, after, value } => {
                let conv = pad_as_conv(graph.shape(node.inputs[0]), before, after, *value).map_err(refuse)?;
                legal.nodes.push(Node { op: Op::Conv(conv), ..node.clone() });
            }
            _ => legal.nodes.push(node.clone()),
        }
    }
    Ok(legal)
}

fn pointwise(weight: Tensor, bias: Vec<f32>, pads: [usize; 4], groups: usize) -> Conv {
    Conv {
        weight: Weight::Dense(weight),
        bias: Some(bias),
        strides: [1, 1],
        pads,
        dilations: [1, 1],
        groups,
        activation: ActivationRange::NONE,
    }
}

fn affine_as_conv(affine: &Affine) -> Conv {
    let channels = affine.scale.len();
    let weight = Tensor::new(vec![channels, 1, 1, 1], affine.scale.clone());
    pointwise(weight, affine.shift.clone(), [0; 4], channels)
}

/// `[n, c]` seen as `[n, c, 1]` around the convolution.
fn through_image(graph: &mut Graph, node: &Node, conv: Conv) {
    let shape = graph.shape(node.inputs[0]).to_vec();
    let image = vec![shape[0], shape[1], 1];
    let before = graph.add_value(format!("{}/image", node.name), image.clone());
    let after = graph.add_value(format!("{}/scaled", node.name), image.clone());
    graph.values[after.0].quantization = graph.value(node.output).quantization;
    let mut push = |suffix: &str, op, input, output| {
        graph.nodes.push(Node { name: format!("{}{suffix}", node.name), op, inputs: vec![input], output });
    };
    push("/image", Op::Reshape(image), node.inputs[0], before);
    push("", Op::Conv(conv), before, after);
    push("/flat", Op::Reshape(shape), after, node.output);
}

fn pad_as_conv(shape: &[usize], before: &[usize], after: &[usize], value: f32) -> Result<Conv, String> {
    let channels = image_shape(shape)?[1];
    let axes = shape.len();
    if before[0] + after[0] > 0 {
        return Err("pads the batch axis".into());
    }
    let spatial = (2..axes).any(|axis| before[axis] + after[axis] > 0);
    if value != 0.0 && spatial {
        return Err(format!("pads rows or columns by {value}; only zero can be padded there"));
    }
    if !value.is_finite() {
        return Err(format!("pads by {value}; only the sides of a maximum pooling can be padded so"));
    }
    let rows = if axes == 4 { [before[2], after[2]] } else { [0, 0] };
    let columns = [before[axes - 1], after[axes - 1]];
    let pads = [rows[0], columns[0], rows[1], columns[1]];
    if before[1] + after[1] == 0 {
        let weight = Tensor::new(vec![channels, 1, 1, 1], vec![1.0; channels]);
        return Ok(pointwise(weight, vec![0.0; channels], pads, channels));
    }
    let padded = before[1] + channels + after[1];
    let mut weight = Tensor::zeros(vec![padded, channels, 1, 1]);
    let mut bias = vec![value; padded];
    for channel in 0..channels {
        weight.data[(before[1] + channel) * channels + channel] = 1.0;
        bias[before[1] + channel] = 0.0;
    }
    Ok(pointwise(weight, bias, pads, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ValueId;

    fn single(op: Op, shape: &[usize]) -> Graph {
        let mut graph = Graph::default();
        let input = graph.add_value("x", shape.to_vec());
        let output = graph.add_value("y", op.output_shape(&[shape]).unwrap());
        graph.nodes.push(Node { name: "n".into(), op, inputs: vec![input], output });
        graph.inputs.push(input);
        graph.outputs.push(output);
        graph
    }

    #[test]
    fn affine_of_images_and_vectors() {
        let affine = || Op::Affine(Affine { scale: vec![2.0, 3.0], shift: vec![0.5, -0.5] });
        for shape in [&[1, 2, 4][..], &[1, 2, 3, 4], &[5, 2]] {
            let legal = legalize(&single(affine(), shape)).unwrap();
            legal.check().unwrap();
            assert!(legal.nodes.iter().any(|node| matches!(&node.op, Op::Conv(conv) if conv.groups == 2)));
            assert_eq!(legal.outputs, [ValueId(1)]);
            assert_eq!(legalize(&legal).unwrap(), legal);
        }
        let why = legalize(&single(affine(), &[1, 2, 1, 1, 1])).unwrap_err();
        assert_eq!((why.node.as_str(), why.op), ("n", "affine"));
    }

    #[test]
    fn pads() {
        let pad = |before: &[usize], after: &[usize], value| {
            let op = Op::Pad { before: before.to_vec(), after: after.to_vec(), value };
            legalize(&single(op, &[1, 2, 3, 3]))
        };
        pad(&[0, 0, 1, 2], &[0, 0, 0, 1], 0.0).unwrap().check().unwrap();
        let channels = pad(&[0, 1, 0, 0], &[0, 2, 0, 0], 7.0).unwrap();
        channels.check().unwrap();
        let Op::Conv(conv) = &channels.nodes[0].op else { panic!("no convolution") };
        assert_eq!(conv.bias.as_deref(), Some(&[7.0, 0.0, 0.0, 7.0, 7.0][..]));
        assert_eq!(
            channels.nodes[0].op.dense_weight().unwrap().data,
            [0., 0., 1., 0., 0., 1., 0., 0., 0., 0.]
        );
        assert!(pad(&[0, 0, 1, 0], &[0; 4], 1.0).is_err());
        assert!(pad(&[0, 1, 0, 0], &[0; 4], f32::NEG_INFINITY).is_err());
        assert!(pad(&[1, 0, 0, 0], &[0; 4], 0.0).is_err());
    }
}
