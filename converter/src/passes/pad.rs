//! Absorbs explicit padding in the convolution or pooling behind it.

use super::edit;
use crate::graph::{Conv, Graph, Op, Pool, Tensor, Weight};

/// Removes empty pads and joins adjacent ones; moves pads behind transposes and clamps, towards their readers; turns zeros around images into the padding of the convolution or pooling that reads
/// them, zero channels into fewer weights, and padding of a maximum that can never win into its own.
pub fn absorb_pads(graph: &Graph) -> Graph {
    edit::rewrite(graph, |graph, index| {
        remove_empty(graph, index) || join(graph, index) || absorb(graph, index) || sink_pad(graph, index)
    })
}

fn remove_empty(graph: &mut Graph, index: usize) -> bool {
    let Op::Pad { before, after, .. } = &graph.nodes[index].op else { return false };
    before.iter().chain(after).all(|x| *x == 0) && edit::remove_identity(graph, index)
}

/// A pad of a pad by the same value reads the first one's input; the first one may become dead.
fn join(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Pad { before, after, value } = &node.op else { return false };
    let Some(producer) = graph.producer(node.inputs[0]) else { return false };
    let Op::Pad { before: b, after: a, value: v } = &graph.nodes[producer].op else { return false };
    if v != value {
        return false;
    }
    let sum = |a: &[usize], b: &[usize]| a.iter().zip(b).map(|(a, b)| a + b).collect();
    let op = Op::Pad { before: sum(before, b), after: sum(after, a), value: *value };
    graph.nodes[index].inputs = graph.nodes[producer].inputs.clone();
    graph.nodes[index].op = op;
    true
}

/// Moves the pad before node `index` behind it, if that is a transpose, or a clamp that keeps the padded number.
fn sink_pad(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Some(producer) = edit::private_producer(graph, node.inputs[0]) else { return false };
    let Op::Pad { before, after, value } = &graph.nodes[producer].op else { return false };
    let moved = match &node.op {
        Op::Transpose(permutation) => {
            let permuted = |numbers: &[usize]| permutation.iter().map(|axis| numbers[*axis]).collect();
            Op::Pad { before: permuted(before), after: permuted(after), value: *value }
        }
        Op::Clamp(range) if range.apply(*value) == *value => graph.nodes[producer].op.clone(),
        _ => return false,
    };
    let op = node.op.clone();
    edit::sink(graph, index, op, moved);
    true
}

/// Node `index` reads what its pad reads, if it can do the padding; the pad may become dead.
fn absorb(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Some(producer) = graph.producer(node.inputs[0]) else { return false };
    let Op::Pad { before, after, value } = &graph.nodes[producer].op else { return false };
    let source = graph.nodes[producer].inputs[0];
    let Some(pads) = Pads::new(before, after) else { return false };
    let op = match &node.op {
        Op::Conv(conv) if *value == 0.0 => pads.absorbed_by_conv(conv).map(Op::Conv),
        Op::AveragePool(pool) if *value == 0.0 && (pool.count_include_pad || pool.pads == [0; 4]) => {
            pads.absorbed_by_pool(pool).map(|pool| Op::AveragePool(Pool { count_include_pad: true, ..pool }))
        }
        Op::MaxPool(pool)
            // No finite number is below the lowest.
            if *value <= f32::MIN || (*value <= 0.0 && is_never_negative(graph, source)) =>
        {
            pads.absorbed_by_pool(pool).map(Op::MaxPool)
        }
        _ => None,
    };
    let Some(op) = op else { return false };
    graph.nodes[index].inputs = vec![source];
    graph.nodes[index].op = op;
    true
}

/// Padding of an image.
struct Pads {
    /// Channels in front and behind.
    channels: [usize; 2],
    /// Top, left, bottom, right.
    sides: [usize; 4],
}

impl Pads {
    /// `None` unless the axes are those of an image or sequence and the batch is not padded.
    fn new(before: &[usize], after: &[usize]) -> Option<Self> {
        match (before, after) {
            ([0, cb, l], [0, ca, r]) => Some(Self { channels: [*cb, *ca], sides: [0, *l, 0, *r] }),
            ([0, cb, t, l], [0, ca, b, r]) => Some(Self { channels: [*cb, *ca], sides: [*t, *l, *b, *r] }),
            _ => None,
        }
    }

    fn added(&self, pads: [usize; 4]) -> [usize; 4] {
        [0, 1, 2, 3].map(|side| self.sides[side] + pads[side])
    }

    /// `None` too if a window would lie in the padding alone, where a pooling's own padding has no maximum.
    fn absorbed_by_pool(&self, pool: &Pool) -> Option<Pool> {
        let pads = self.added(pool.pads);
        let fits = pads.iter().enumerate().all(|(side, pad)| *pad < pool.kernel[side % 2]);
        (self.channels == [0, 0] && fits).then_some(Pool { pads, ..*pool })
    }

    fn absorbed_by_conv(&self, conv: &Conv) -> Option<Conv> {
        let mut conv = Conv { pads: self.added(conv.pads), ..conv.clone() };
        if self.channels == [0, 0] {
            return Some(conv);
        }
        // Zero channels: their weights have nothing to multiply.
        let Weight::Dense(weight) = &conv.weight else { return None };
        let [o, i, kh, kw] = *weight.shape else { return None };
        let left = i.checked_sub(self.channels[0] + self.channels[1]).filter(|_| conv.groups == 1)?;
        let window = kh * kw;
        let rows = weight.data.chunks_exact((i * window).max(1));
        let data = rows.flat_map(|row| &row[self.channels[0] * window..][..left * window]).copied().collect();
        conv.weight = Weight::Dense(Tensor::new(vec![o, left, kh, kw], data));
        Some(conv)
    }
}

/// Whether the node that gives `id` can only give numbers from 0 up.
fn is_never_negative(graph: &Graph, id: crate::graph::ValueId) -> bool {
    graph.producer(id).is_some_and(|producer| match &graph.nodes[producer].op {
        Op::Conv(conv) => conv.activation.low >= 0.0,
        Op::Dense(dense) => dense.activation.low >= 0.0,
        Op::Add(range) | Op::Mul(range) | Op::Clamp(range) => range.low >= 0.0,
        Op::Softmax { .. } => true,
        _ => false,
    })
}
