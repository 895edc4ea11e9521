//! Which layers must change together when channels are removed, and the removal itself.
//!
//! Takes a graph; gives its channel groups. A group's channels are born as outputs of linear layers (its *producers*), pass unchanged through elementwise
//! operators, depthwise convolutions, poolings, means, reshapes and transposes, and end as inputs of linear layers (its *readers*). An
//! addition makes one group of the channels that it adds. Channels that leave the network, meet a softmax or an unprunable operand, or enter a
//! grouped or factorised layer cannot be removed; such a group says why ([`Group::blocked`]).
//!
//! Removal ([`narrow`]) keeps nodes and values, and changes shapes: rows of producers, rows of depthwise layers, columns of readers.

use std::ops::Range;

use crate::graph::{Conv, Dense, Graph, Op, Tensor, ValueId, Weight};

/// Channels that live and die together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How many.
    pub channels: usize,
    /// Nodes whose output channels they are.
    pub producers: Vec<usize>,
    /// Depthwise layers and affine maps that they pass through.
    pub carriers: Vec<usize>,
    /// Linear layers that read them.
    pub readers: Vec<usize>,
    /// Where they lie in each value that holds them.
    pub places: Vec<(ValueId, Place)>,
    /// Why they cannot be removed.
    pub blocked: Option<&'static str>,
}

/// Channels along an axis: channel `c` takes `block` places from `c * block` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The axis.
    pub axis: usize,
    /// Places of one channel.
    pub block: usize,
}

/// A place and the set of channels that lies there.
#[derive(Clone, Copy)]
struct Held {
    set: usize,
    place: Place,
}

/// Sets of channels under construction; `joined` points to the set that one became part of.
struct Sets {
    groups: Vec<Group>,
    joined: Vec<usize>,
}

impl Sets {
    fn root(&self, mut set: usize) -> usize {
        while self.joined[set] != set {
            set = self.joined[set];
        }
        set
    }

    fn group(&mut self, set: usize) -> &mut Group {
        let root = self.root(set);
        &mut self.groups[root]
    }

    fn block(&mut self, held: Option<Held>, why: &'static str) {
        if let Some(held) = held {
            self.group(held.set).blocked.get_or_insert(why);
        }
    }

    fn start(&mut self, channels: usize, producer: usize, axis: usize) -> Held {
        self.groups.push(Group {
            channels,
            producers: vec![producer],
            carriers: Vec::new(),
            readers: Vec::new(),
            places: Vec::new(),
            blocked: None,
        });
        self.joined.push(self.joined.len());
        Held { set: self.joined.len() - 1, place: Place { axis, block: 1 } }
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (first, second) = (a.min(b), a.max(b));
        self.joined[second] = first;
        let mut from = self.groups[second].clone();
        let into = &mut self.groups[first];
        into.producers.append(&mut from.producers);
        into.carriers.append(&mut from.carriers);
        into.readers.append(&mut from.readers);
        into.places.append(&mut from.places);
        into.blocked = into.blocked.or(from.blocked);
    }
}

const FACTORISED: &str = "a factorised layer reads its channels";
const GROUPED: &str = "a grouped convolution reads its channels";
const MIXED: &str = "an operator behind it mixes its channels with something else";
const UNPRUNABLE: &str = "its channels are added to channels that cannot be removed";
const OUTPUT: &str = "its channels are outputs of the network";
const UNREAD: &str = "no layer reads its channels";

/// All groups, in the order of their first producers.
pub fn groups(graph: &Graph) -> Vec<Group> {
    let mut sets = Sets { groups: Vec::new(), joined: Vec::new() };
    let mut held: Vec<Option<Held>> = vec![None; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        let input = held[node.inputs[0].0];
        let (input_shape, shape) = (graph.shape(node.inputs[0]), graph.shape(node.output));
        let result = match &node.op {
            Op::Conv(_) | Op::Dense(_) => linear(&mut sets, graph, index, input),
            Op::Affine(_) => {
                if let Some(held) = input.filter(|held| held.place.axis == 1) {
                    sets.group(held.set).carriers.push(index);
                }
                input
            }
            Op::Clamp(_) | Op::Unary(_) => input,
            Op::Add(_) | Op::Mul(_) => {
                let other = held[node.inputs[1].0];
                match (input, other) {
                    (Some(a), Some(b)) if a.place == b.place && same_channels(&mut sets, a, b) => {
                        sets.join(a.set, b.set);
                        Some(a)
                    }
                    _ => {
                        sets.block(input, UNPRUNABLE);
                        sets.block(other, UNPRUNABLE);
                        None
                    }
                }
            }
            op => {
                let channels = input.map_or(1, |held| sets.group(held.set).channels);
                let moved = input.and_then(|held| {
                    let place = moved(op, input_shape, shape, held.place, channels)?;
                    Some(Held { place, ..held })
                });
                if moved.is_none() {
                    sets.block(input, MIXED);
                }
                moved
            }
        };
        if let Some(result) = result {
            sets.group(result.set).places.push((node.output, result.place));
        }
        held[node.output.0] = result;
    }
    for id in &graph.outputs {
        sets.block(held[id.0], OUTPUT);
    }
    let roots: Vec<usize> = (0..sets.groups.len()).filter(|set| sets.root(*set) == *set).collect();
    let mut found: Vec<Group> = roots.into_iter().map(|root| sets.groups[root].clone()).collect();
    for group in found.iter_mut().filter(|group| group.readers.is_empty()) {
        group.blocked.get_or_insert(UNREAD);
    }
    found
}

fn same_channels(sets: &mut Sets, a: Held, b: Held) -> bool {
    sets.group(a.set).channels == sets.group(b.set).channels
}

/// A linear layer reads channels and gives new ones, or lets them pass if it is depthwise.
fn linear(sets: &mut Sets, graph: &Graph, index: usize, input: Option<Held>) -> Option<Held> {
    let node = &graph.nodes[index];
    let shape = graph.shape(node.output);
    let (groups, read_axis) = match &node.op {
        Op::Conv(conv) => (conv.groups, 1),
        _ => (1, shape.len() - 1),
    };
    let Some(weight) = node.op.dense_weight() else {
        sets.block(input, FACTORISED);
        return None;
    };
    if groups == 1 {
        match input {
            Some(held) if held.place.axis == read_axis => sets.group(held.set).readers.push(index),
            _ => sets.block(input, MIXED),
        }
        return Some(sets.start(weight.shape[0], index, read_axis));
    }
    match input {
        Some(held) if held.place.axis == 1 && weight.shape[1] == 1 => {
            sets.group(held.set).carriers.push(index);
            let block = held.place.block * (weight.shape[0] / groups);
            Some(Held { place: Place { axis: 1, block }, ..held })
        }
        _ => {
            sets.block(input, GROUPED);
            None
        }
    }
}

/// Where channels lie behind an operator that moves or combines numbers of one channel only; `None` if it does more.
fn moved(op: &Op, from: &[usize], to: &[usize], place: Place, channels: usize) -> Option<Place> {
    let Place { axis, block } = place;
    match op {
        Op::MaxPool(_) | Op::AveragePool(_) if axis == 1 => Some(place),
        Op::Mean { axes, keep_axes } if !axes.contains(&axis) => {
            let gone = if *keep_axes { 0 } else { axes.iter().filter(|other| **other < axis).count() };
            Some(Place { axis: axis - gone, block })
        }
        Op::Pad { before, after, .. } if before[axis] == 0 && after[axis] == 0 => Some(place),
        Op::Transpose(permutation) => {
            Some(Place { axis: permutation.iter().position(|from| *from == axis)?, block })
        }
        // Row-major order: what stands before the channels and what one of them spans stay together.
        Op::Reshape(_) => {
            let outer: usize = from[..axis].iter().product();
            let axis = (0..to.len()).find(|axis| {
                to[..*axis].iter().product::<usize>() == outer && to[*axis] >= channels.max(2)
            })?;
            to[axis].is_multiple_of(channels).then(|| Place { axis, block: to[axis] / channels })
        }
        _ => None,
    }
}

/// `graph` with only the channels `kept` (ascending) of `group`. The group may come from a graph whose other groups had more channels.
pub fn narrow(graph: &Graph, group: &Group, kept: &[usize]) -> Graph {
    let mut result = graph.clone();
    for (id, place) in &group.places {
        result.values[id.0].shape[place.axis] = kept.len() * place.block;
    }
    for index in &group.producers {
        keep_rows(&mut result.nodes[*index].op, kept, 1);
    }
    for index in &group.carriers {
        let node = &mut result.nodes[*index];
        let output = group.places.iter().find(|(id, _)| *id == node.output);
        let input = group.places.iter().find(|(id, _)| *id == node.inputs[0]);
        if let (Some((_, output)), Some((_, input))) = (output, input) {
            keep_rows(&mut node.op, kept, output.block);
            if let Op::Conv(conv) = &mut node.op {
                conv.groups = kept.len() * input.block;
            }
        }
    }
    for index in &group.readers {
        let (Op::Conv(Conv { weight, .. }) | Op::Dense(Dense { weight, .. })) = &mut result.nodes[*index].op
        else {
            continue;
        };
        if let Weight::Dense(tensor) = weight {
            let block = tensor.shape[1] / group.channels;
            *tensor = select(tensor, Place { axis: 1, block }, kept);
        }
    }
    for node in &mut result.nodes {
        if let Op::Reshape(shape) = &mut node.op {
            shape.clone_from(&result.values[node.output.0].shape);
        }
    }
    result
}

fn keep_rows(op: &mut Op, kept: &[usize], block: usize) {
    let pick = |numbers: &mut Vec<f32>| {
        let rows = kept.iter().flat_map(|channel| span(*channel, block));
        *numbers = rows.map(|row| numbers[row]).collect();
    };
    let (weight, bias) = match op {
        Op::Conv(conv) => (&mut conv.weight, &mut conv.bias),
        Op::Dense(dense) => (&mut dense.weight, &mut dense.bias),
        Op::Affine(affine) => {
            pick(&mut affine.scale);
            pick(&mut affine.shift);
            return;
        }
        _ => return,
    };
    if let Weight::Dense(tensor) = weight {
        *tensor = select(tensor, Place { axis: 0, block }, kept);
    }
    bias.iter_mut().for_each(pick);
}

fn span(channel: usize, block: usize) -> Range<usize> {
    channel * block..(channel + 1) * block
}

/// The part of an array with the channels `kept`.
pub fn select(tensor: &Tensor, place: Place, kept: &[usize]) -> Tensor {
    let mut shape = tensor.shape.clone();
    let inner: usize = shape[place.axis + 1..].iter().product();
    let period = (shape[place.axis] * inner).max(1);
    shape[place.axis] = kept.len() * place.block;
    let data = tensor.data.chunks_exact(period).flat_map(|chunk| {
        kept.iter().flat_map(move |channel| &chunk[span(*channel, place.block * inner)]).copied()
    });
    Tensor::new(shape, data.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::noise;
    use crate::evaluate::evaluate;
    use crate::graph::{ActivationRange, Node, Pool};

    fn conv(o: usize, i: usize, kernel: usize, groups: usize, seed: u64) -> Op {
        let pad = kernel / 2;
        Op::Conv(Conv {
            weight: Weight::Dense(Tensor::new(
                vec![o, i, kernel, kernel],
                noise(o * i * kernel * kernel, seed),
            )),
            bias: Some(noise(o, seed + 100)),
            strides: [1, 1],
            pads: [pad; 4],
            dilations: [1, 1],
            groups,
            activation: ActivationRange::NONE,
        })
    }

    /// x -> first -> (depthwise, two a channel -> max pool) and a skip that is added to `second`, then flattened to `dense`.
    fn network() -> Graph {
        let mut graph = Graph::default();
        let mut value = |name: &str, shape: &[usize]| graph.add_value(name, shape.to_vec());
        let (x, a, b) = (value("x", &[1, 2, 4, 4]), value("a", &[1, 6, 4, 4]), value("b", &[1, 12, 4, 4]));
        let (c, d, e) = (value("c", &[1, 12, 2, 2]), value("d", &[1, 5, 2, 2]), value("e", &[1, 5, 2, 2]));
        let (f, g, h) = (value("f", &[1, 5, 2, 2]), value("g", &[1, 20]), value("h", &[1, 3]));
        let pool = Pool { kernel: [2, 2], strides: [2, 2], pads: [0; 4], count_include_pad: false };
        let dense = Op::Dense(Dense {
            weight: Weight::Dense(Tensor::new(vec![3, 20], noise(60, 9))),
            bias: None,
            activation: ActivationRange::NONE,
        });
        graph.nodes = vec![
            ("first", conv(6, 2, 3, 1, 1), vec![x], a),
            ("depthwise", conv(12, 1, 3, 6, 2), vec![a], b),
            ("pool", Op::MaxPool(pool), vec![b], c),
            ("second", conv(5, 12, 1, 1, 3), vec![c], d),
            ("third", conv(5, 5, 3, 1, 4), vec![d], e),
            ("add", Op::Add(ActivationRange::RELU), vec![d, e], f),
            ("reshape", Op::Reshape(vec![1, 20]), vec![f], g),
            ("dense", dense, vec![g], h),
        ]
        .into_iter()
        .map(|(name, op, inputs, output)| Node { name: name.into(), op, inputs, output })
        .collect();
        (graph.inputs, graph.outputs) = (vec![x], vec![h]);
        graph.check().unwrap();
        graph
    }

    #[test]
    fn groups_follow_channels_through_windows_sums_and_reshapes() {
        let found = groups(&network());
        assert_eq!(found.len(), 3);
        let [first, sum, output] = &found[..] else { panic!() };
        assert_eq!((first.channels, first.blocked), (6, None));
        assert_eq!(
            (&first.producers[..], &first.carriers[..], &first.readers[..]),
            (&[0][..], &[1][..], &[3][..])
        );
        assert_eq!(first.places[2].1, Place { axis: 1, block: 2 });
        assert_eq!((sum.channels, sum.blocked), (5, None));
        assert_eq!((&sum.producers[..], &sum.readers[..]), (&[3, 4][..], &[4, 7][..]));
        assert_eq!(sum.places.last().unwrap().1, Place { axis: 1, block: 4 });
        assert_eq!(output.blocked, Some(OUTPUT));
    }

    #[test]
    fn removing_channels_that_nobody_reads_changes_nothing() {
        let mut graph = network();
        let found = groups(&graph);
        // The readers ignore channels 1 and 4 of the first group, channels 0 and 3 of the second.
        let ignored = [[1, 4], [0, 3]];
        for (group, ignored) in found.iter().zip(ignored) {
            for index in &group.readers {
                let op = &mut graph.nodes[*index].op;
                let (Op::Conv(Conv { weight, .. }) | Op::Dense(Dense { weight, .. })) = op else { panic!() };
                let Weight::Dense(tensor) = weight else { panic!() };
                let inner: usize = tensor.shape[2..].iter().product();
                let columns = tensor.shape[1] * inner;
                let each = columns / group.channels;
                for (k, number) in tensor.data.iter_mut().enumerate() {
                    if ignored.contains(&(k % columns / each)) {
                        *number = 0.0;
                    }
                }
            }
        }
        let mut pruned = graph.clone();
        for (group, ignored) in found.iter().zip(ignored) {
            let kept: Vec<usize> = (0..group.channels).filter(|c| !ignored.contains(c)).collect();
            pruned = narrow(&pruned, group, &kept);
            pruned.check().unwrap();
        }
        assert!(pruned.macs() < graph.macs() && pruned.parameters() < graph.parameters());
        let x = noise(3 * 32, 5);
        let run = |graph: &Graph| evaluate(graph, std::slice::from_ref(&x), 3, &graph.outputs).remove(0);
        let difference = run(&graph).iter().zip(run(&pruned)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn what_mixes_channels_blocks_them() {
        let mut graph = network();
        graph.nodes[1].op = conv(12, 2, 3, 3, 2);
        assert_eq!(groups(&graph)[0].blocked, Some(GROUPED));
        let mut graph = network();
        graph.nodes[5].inputs[1] = graph.nodes[5].inputs[0];
        assert_eq!(groups(&graph)[2].blocked, Some(UNREAD), "nothing reads `third` any more");
    }
}
