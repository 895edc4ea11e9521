//! Blobs whose steps span what a cost model has to tell apart: channels that fill lanes and that do not, windows at borders, every operation.

use tucano::backend::spec::select::Isa;
use tucano::host::Runner;
use tucano_converter::calibrate::Dataset;
use tucano_converter::graph::{
    ActivationRange, Conv, Core, Dense, Graph, Mode, Network, Node, Op, Pool, Tensor, Unary, Weight,
};
use tucano_converter::quantize::{RankBits, WeightBits};
use tucano_converter::{emit, import, lower, passes, plan, quantize};

/// A blob with one input, as stored.
pub struct Probe {
    pub name: &'static str,
    pub blob: Vec<u8>,
    pub input: Vec<u8>,
}

/// Small nets of all operations, and models of this repository; the first is of integers and quick.
pub fn all() -> Vec<Probe> {
    let model = |file: &str| {
        let path = tucano_tests::models().join(file);
        import::import(&path, &import::Options { batch: 1 }).expect("imports")
    };
    let resnet = model("resnet8.onnx");
    vec![
        probe("image i8", &image(false), EIGHT),
        probe("vector i8", &vector(), EIGHT),
        probe("image i4", &image(false), FOUR),
        probe("vector i4", &vector(), FOUR),
        probe("factors i4", &factors(), FOUR),
        probe("moves i8", &moves(false), EIGHT),
        probe("factors i8", &factors(), EIGHT),
        probe("factors i16", &factors(), SIXTEEN),
        probe("layers i8", &layers(), EIGHT),
        probe("resnet8 i8", &resnet, EIGHT),
        probe("image f32", &image(true), FLOATS),
        probe("vector f32", &vector(), FLOATS),
        probe("moves f32", &moves(true), FLOATS),
        probe("factors f32", &factors(), FLOATS),
        probe("phm_mlp f32", &model("phm_mlp_dense.onnx"), FLOATS),
    ]
}

/// Widths of inner values and weights; `None` stands for floats.
type Widths = Option<(RankBits, WeightBits)>;
const FLOATS: Widths = None;
const EIGHT: Widths = Some((RankBits::Eight, WeightBits::Eight));
const SIXTEEN: Widths = Some((RankBits::Sixteen, WeightBits::Eight));
const FOUR: Widths = Some((RankBits::Eight, WeightBits::Four));

fn probe(name: &'static str, model: &Graph, widths: Widths) -> Probe {
    const SAMPLES: usize = 16;
    let graph = passes::simplify(model);
    let graph = passes::legalize(&lower::lower(&graph).expect("lowers")).expect("legal");
    let elements: usize = graph.shape(graph.inputs[0]).iter().product();
    let data = Dataset { inputs: vec![random(SAMPLES * elements, 3)], samples: SAMPLES, labels: None };
    let quantized = widths.map(|(rank_bits, weight_bits)| {
        let options = quantize::Options { rank_bits, weight_bits, ..Default::default() };
        quantize::quantize(&graph, Some(&data), &options).expect("quantises")
    });
    let graph = quantized.as_ref().map_or(&graph, |quantized| &quantized.graph);
    let plan = plan::plan_for(graph, quantized.as_ref(), Isa::Scalar).expect("layout");
    let program = emit::Program {
        graph,
        plan: &plan,
        quantized: quantized.as_ref(),
        labels: &[],
        half_weights: false,
        isa: Isa::Scalar,
    };
    let blob = emit::emit(&program).expect("emits");
    let runner = Runner::new(&blob).expect("loads");
    let input = runner.quantise(&[&data.inputs[0][..elements]]).expect("an input").concat();
    Probe { name, blob, input }
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Numbers that keep the magnitude of what they multiply.
fn tensor(shape: &[usize]) -> Tensor {
    let length = shape.iter().product::<usize>();
    let fan_in = (length / shape[0]).max(1) as f32;
    let numbers = random(length, length as u64).into_iter().map(|x| x * (6.0 / fan_in).sqrt());
    Tensor::new(shape.to_vec(), numbers.collect())
}

fn core(shape: &[usize], modes: &[Mode]) -> Core {
    Core { tensor: tensor(shape), modes: modes.to_vec() }
}

fn network(format: &'static str, shape: &[usize], cores: Vec<Core>) -> Weight {
    let contraction = (0..cores.len()).collect();
    Weight::Network(Network { format, shape: shape.to_vec(), cores, contraction, row_scale: None })
}

const NONE: ActivationRange = ActivationRange::NONE;

struct Chain(Graph);

impl Chain {
    fn new(shape: &[usize]) -> Self {
        let mut graph = Graph { name: "probe".into(), ..Graph::default() };
        let input = graph.add_value("x", shape.to_vec());
        graph.inputs = vec![input];
        graph.outputs = vec![input];
        Self(graph)
    }

    fn channels(&self) -> usize {
        self.0.shape(self.0.outputs[0])[1]
    }

    /// Appends an operator; sums and products take their own input twice removed as the second operand.
    fn then(mut self, op: Op) -> Self {
        let graph = &mut self.0;
        let last = graph.outputs[0];
        let mut inputs = vec![last];
        if matches!(op, Op::Add(_) | Op::Mul(_)) {
            inputs.insert(0, graph.nodes[graph.nodes.len() - 1].inputs[0]);
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| graph.shape(*id)).collect();
        let shape = op.output_shape(&shapes).expect("shape");
        let count = graph.nodes.len();
        let output = graph.add_value(format!("v{count}"), shape);
        graph.nodes.push(Node { name: format!("n{count}"), op, inputs, output });
        graph.outputs = vec![output];
        self
    }

    /// A convolution that pads by half its window.
    fn conv(self, outputs: usize, kernel: [usize; 2], stride: usize, groups: usize) -> Self {
        let weight = Weight::Dense(tensor(&[outputs, self.channels() / groups, kernel[0], kernel[1]]));
        self.convolution(weight, stride, groups)
    }

    fn convolution(self, weight: Weight, stride: usize, groups: usize) -> Self {
        let [kh, kw] = [weight.shape()[2], weight.shape()[3]];
        let bias = Some(random(weight.shape()[0], 5));
        let (strides, pads) = ([stride; 2], [kh / 2, kw / 2, kh / 2, kw / 2]);
        let activation = ActivationRange::RELU;
        self.then(Op::Conv(Conv { weight, bias, strides, pads, dilations: [1, 1], groups, activation }))
    }

    fn depthwise(self, kernel: [usize; 2], stride: usize) -> Self {
        let channels = self.channels();
        self.conv(channels, kernel, stride, channels)
    }

    fn dense(self, outputs: usize) -> Self {
        let inputs = self.0.shape(self.0.outputs[0]).last().copied().unwrap_or(1);
        self.dense_layer(Weight::Dense(tensor(&[outputs, inputs])))
    }

    fn dense_layer(self, weight: Weight) -> Self {
        self.then(Op::Dense(Dense { weight, bias: None, activation: NONE }))
    }

    fn reshape(self, shape: &[usize]) -> Self {
        self.then(Op::Reshape(shape.to_vec()))
    }

    fn transpose(self, axes: &[usize]) -> Self {
        self.then(Op::Transpose(axes.to_vec()))
    }

    /// Canonical polyadic: 1x1, a window for each term, 1x1.
    fn polyadic(self, outputs: usize, rank: usize, kernel: usize, stride: usize) -> Self {
        use Mode::{Bond, Input, KernelHeight, KernelWidth, Output};
        let inputs = self.channels();
        let cores = vec![
            core(&[rank, inputs], &[Bond(0), Input(0)]),
            core(&[rank, kernel, kernel], &[Bond(0), KernelHeight, KernelWidth]),
            core(&[outputs, rank], &[Output(0), Bond(0)]),
        ];
        let weight = network("cp", &[outputs, inputs, kernel, kernel], cores);
        self.convolution(weight, stride, 1)
    }

    fn tucker(self, outputs: usize, ranks: [usize; 2], kernel: usize) -> Self {
        use Mode::{Bond, Input, KernelHeight, KernelWidth, Output};
        let inputs = self.channels();
        let window = [ranks[1], ranks[0], kernel, kernel];
        let cores = vec![
            core(&[ranks[0], inputs], &[Bond(0), Input(0)]),
            core(&window, &[Bond(1), Bond(0), KernelHeight, KernelWidth]),
            core(&[outputs, ranks[1]], &[Output(0), Bond(1)]),
        ];
        self.convolution(network("tucker", &[outputs, inputs, kernel, kernel], cores), 1, 1)
    }

    fn low_rank(self, outputs: usize, rank: usize) -> Self {
        use Mode::{Bond, Input, Output};
        let inputs = self.0.shape(self.0.outputs[0]).last().copied().unwrap_or(1);
        let cores =
            vec![core(&[rank, inputs], &[Bond(0), Input(0)]), core(&[outputs, rank], &[Output(0), Bond(0)])];
        self.dense_layer(network("low-rank", &[outputs, inputs], cores))
    }

    fn graph(self) -> Graph {
        self.0.check().expect("sound");
        self.0
    }
}

fn pool(kernel: usize, stride: usize, pad: usize) -> Pool {
    Pool { kernel: [kernel; 2], strides: [stride; 2], pads: [pad; 4], count_include_pad: false }
}

/// Convolutions, pools and sums; products where there are floats.
fn image(float: bool) -> Graph {
    let product = |chain: Chain| if float { chain.then(Op::Mul(NONE)) } else { chain };
    let chain = Chain::new(&[1, 3, 16, 14])
        .conv(5, [3, 3], 1, 1)
        .conv(8, [1, 1], 1, 1)
        .conv(7, [5, 3], 1, 1)
        .depthwise([3, 3], 1)
        .conv(16, [1, 1], 1, 1)
        .depthwise([3, 3], 1)
        .then(Op::Add(NONE))
        .conv(16, [3, 1], 1, 1)
        .then(Op::Unary(Unary::Sigmoid))
        .conv(20, [1, 3], 1, 1)
        .conv(40, [3, 3], 1, 20)
        .then(Op::MaxPool(pool(2, 2, 0)))
        .conv(36, [3, 3], 1, 2)
        .then(Op::AveragePool(pool(3, 1, 1)));
    product(chain)
        .then(Op::Unary(Unary::Tanh))
        .then(Op::Unary(Unary::Sin))
        .conv(64, [1, 1], 1, 1)
        .depthwise([5, 5], 2)
        .conv(3, [1, 1], 1, 1)
        .conv(33, [3, 3], 1, 1)
        .depthwise([3, 3], 1)
        .then(Op::Add(ActivationRange::RELU))
        .then(Op::MaxPool(pool(3, 1, 1)))
        .conv(2, [1, 1], 1, 1)
        .conv(48, [3, 3], 1, 1)
        .depthwise([3, 3], 1)
        .then(Op::AveragePool(pool(2, 1, 0)))
        .then(mean())
        .dense(10)
        .then(Op::Softmax { axis: 1 })
        .graph()
}

/// Dense layers of many widths, rows, axes that change places.
fn vector() -> Graph {
    Chain::new(&[1, 96])
        .dense(130)
        .then(Op::Unary(Unary::Tanh))
        .dense(3)
        .dense(64)
        .then(Op::Unary(Unary::Sigmoid))
        .dense(17)
        .dense(200)
        .reshape(&[1, 20, 10])
        .transpose(&[0, 2, 1])
        .dense(24)
        .then(Op::Softmax { axis: 2 })
        .transpose(&[0, 2, 1])
        .dense(7)
        .then(Op::Softmax { axis: 2 })
        .reshape(&[1, 168])
        .dense(33)
        .dense(1)
        .dense(12)
        .then(Op::Softmax { axis: 1 })
        .graph()
}

/// Steps without weights, of several sizes.
fn moves(float: bool) -> Graph {
    let mut chain = Chain::new(&[1, 6, 12, 14]);
    let product = |chain: Chain| {
        let chain = chain.then(Op::Unary(Unary::Sin)).then(Op::Add(NONE));
        if float { chain.then(Op::Unary(Unary::Tanh)).then(Op::Mul(NONE)) } else { chain }
    };
    for (channels, kernel, stride, pad) in
        [(6, 3, 1, 1), (20, 2, 2, 0), (40, 3, 1, 1), (33, 2, 1, 1), (16, 5, 2, 2), (100, 2, 2, 0)]
    {
        chain = product(chain.conv(channels, [1, 1], 1, 1))
            .then(Op::MaxPool(pool(kernel, stride, pad)))
            .then(Op::AveragePool(pool(3, 1, 1)))
            .then(Op::Unary(Unary::Sigmoid));
    }
    // From here on as rows: each transpose moves data.
    let [_, channels, height, width] = *chain.0.shape(chain.0.outputs[0]) else { unreachable!() };
    chain = chain.reshape(&[1, channels, height * width]);
    for outputs in [24, 7, 50, 3, 31] {
        chain = chain.transpose(&[0, 2, 1]).dense(outputs).then(Op::Softmax { axis: 2 });
    }
    let elements = chain.0.shape(chain.0.outputs[0]).iter().product();
    chain.reshape(&[1, elements]).dense(12 * 30).reshape(&[1, 12, 5, 6]).then(mean()).dense(5).graph()
}

fn mean() -> Op {
    Op::Mean { axes: vec![2, 3], keep_axes: false }
}

/// Layers of the sizes that networks for small images have, dense and factorised; a dense layer whose outputs are not narrow.
fn layers() -> Graph {
    let chain = Chain::new(&[1, 3, 32, 32])
        .conv(32, [3, 3], 1, 1)
        .polyadic(16, 32, 3, 1)
        .polyadic(16, 12, 3, 1)
        .conv(80, [3, 3], 2, 16)
        .conv(32, [1, 1], 1, 1)
        .polyadic(64, 112, 3, 1)
        .conv(16, [3, 1], 1, 1)
        .conv(64, [1, 3], 1, 1)
        .conv(48, [3, 3], 1, 1)
        .polyadic(96, 128, 3, 2)
        .polyadic(64, 96, 3, 1)
        .conv(8, [1, 1], 1, 1)
        .conv(32, [1, 1], 1, 1);
    let elements = chain.0.shape(chain.0.outputs[0]).iter().product();
    chain.reshape(&[1, elements]).dense(40).dense(512).dense(10).graph()
}

/// Layers as compression leaves them.
fn factors() -> Graph {
    let chain = Chain::new(&[1, 12, 9, 10])
        .polyadic(16, 20, 3, 1)
        .tucker(24, [6, 9], 3)
        .polyadic(32, 48, 3, 2)
        .polyadic(8, 7, 5, 1)
        .polyadic(20, 33, 3, 1)
        .polyadic(12, 16, 5, 1)
        .polyadic(12, 10, 1, 1)
        .tucker(48, [4, 16], 3)
        .tucker(16, [12, 8], 1);
    let elements = chain.0.shape(chain.0.outputs[0]).iter().product();
    chain.reshape(&[1, elements]).low_rank(50, 12).low_rank(31, 5).low_rank(64, 24).low_rank(10, 3).graph()
}
