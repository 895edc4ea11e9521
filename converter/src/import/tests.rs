use prost::Message;

use super::onnx::*;
use super::*;
use crate::graph::{Affine, Op};

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |extent: &i64| DimensionProto { dim_value: Some(*extent), dim_param: None };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: 1, shape });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

fn tensor(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: format!("{op}_{output}"),
        op_type: op.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: attribute_type::INT, ..AttributeProto::default() }
}

fn ints(name: &str, list: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: list.to_vec(),
        r#type: attribute_type::INTS,
        ..AttributeProto::default()
    }
}

fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: text.into(),
        r#type: attribute_type::STRING,
        ..AttributeProto::default()
    }
}

/// A model with input `x` and output `y` of unknown shape.
fn model(input: &[i64], initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> ModelProto {
    let output = ValueInfoProto { name: "y".into(), r#type: None };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto {
            node,
            initializer,
            input: vec![value("x", input)],
            output: vec![output],
            ..GraphProto::default()
        }),
    }
}

fn read(model: &ModelProto) -> Result<Graph, Error> {
    import_bytes(&model.encode_to_vec(), None, &Options::default())
}

fn graph(input: &[i64], initializer: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Graph {
    read(&model(input, initializer, nodes)).expect("model is imported")
}

fn blockers(input: &[i64], initializer: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Vec<Blocker> {
    match read(&model(input, initializer, nodes)) {
        Err(Error::Blocked(blockers)) => blockers.0,
        other => panic!("must be blocked, is {other:?}"),
    }
}

/// A small well-formed model: a convolution, its bias and a rectifier.
fn convolution() -> ModelProto {
    let weights = vec![tensor("w", &[2, 1, 3, 3], &[0.5; 18]), tensor("b", &[2], &[1.0, -1.0])];
    let conv = node("Conv", &["x", "w", "b"], "c", vec![ints("pads", &[1, 1, 1, 1])]);
    model(&[1, 1, 8, 8], weights, vec![conv, node("Relu", &["c"], "y", vec![])])
}

#[test]
fn imports_a_convolution() {
    let graph = read(&convolution()).unwrap();
    assert_eq!(graph.nodes.len(), 2);
    assert_eq!(graph.shape(graph.outputs[0]), [1, 2, 8, 8]);
    assert_eq!(graph.value(graph.outputs[0]).name, "y");
    assert_eq!(graph.parameters(), 20);
}

#[test]
fn truncated_and_random_bytes_give_errors() {
    let bytes = convolution().encode_to_vec();
    for length in 0..bytes.len() {
        assert!(import_bytes(&bytes[..length], None, &Options::default()).is_err(), "{length} bytes");
    }
    // xorshift (Marsaglia 2003): any model with some bytes replaced is imported or refused, but never panics.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..random() % 4 + 1 {
            let at = random() as usize % damaged.len();
            damaged[at] = random() as u8;
        }
        let _ = import_bytes(&damaged, None, &Options::default());
    }
}

#[test]
fn operator_sets_outside_7_to_24_are_refused() {
    for (version, known) in [(6, false), (7, true), (24, true), (25, false)] {
        let mut model = convolution();
        model.opset_import[0].version = version;
        let ml = OperatorSetIdProto { domain: "ai.onnx.ml".into(), version: 3 };
        model.opset_import.insert(0, ml);
        assert_eq!(!matches!(read(&model), Err(Error::Opset { .. })), known, "{version}");
    }
}

#[test]
fn open_axes() {
    let mut model = convolution();
    let dims = |model: &mut ModelProto, axis: usize, dim: DimensionProto| {
        let kind = model.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
        kind.tensor_type.as_mut().unwrap().shape.as_mut().unwrap().dim[axis] = dim;
    };
    let symbol = || DimensionProto { dim_value: None, dim_param: Some("n".into()) };
    assert!(matches!(
        import_bytes(&model.encode_to_vec(), None, &Options { batch: 4 }),
        Err(Error::FixedBatch { batch: 4 })
    ));
    for open in [symbol(), DimensionProto::default(), DimensionProto { dim_value: Some(-1), dim_param: None }]
    {
        dims(&mut model, 0, open);
        let graph = import_bytes(&model.encode_to_vec(), None, &Options { batch: 4 }).unwrap();
        assert_eq!(graph.shape(graph.outputs[0]), [4, 2, 8, 8]);
    }
    dims(&mut model, 2, symbol());
    let Err(Error::DynamicShape { input, axis: 2, extent }) = read(&model) else { panic!("axis 2 is open") };
    assert_eq!((input.as_str(), extent.as_str()), ("x", "n"));
    dims(&mut model, 2, DimensionProto { dim_value: Some(0), dim_param: None });
    assert!(matches!(read(&model), Err(Error::ZeroSized { .. })));
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut model = convolution();
        model.graph.as_mut().unwrap().initializer[0].float_data[13] = bad;
        let Err(Error::NotFinite { name, index, .. }) = read(&model) else { panic!("{bad} was accepted") };
        assert_eq!((name.as_str(), index), ("w", vec![1, 0, 1, 1]));
    }
}

#[test]
fn damaged_initializers_are_named() {
    let damage = |change: fn(&mut TensorProto)| {
        let mut model = convolution();
        change(&mut model.graph.as_mut().unwrap().initializer[0]);
        read(&model).unwrap_err()
    };
    assert!(matches!(damage(|w| w.float_data.truncate(17)), Error::Initializer { .. }));
    assert!(matches!(damage(|w| w.dims[0] = -2), Error::Initializer { .. }));
    assert!(matches!(damage(|w| w.dims = vec![i64::MAX; 4]), Error::Initializer { .. }));
    assert!(matches!(damage(|w| w.dims = vec![1 << 30; 4]), Error::Initializer { .. }));
    assert!(matches!(damage(|w| w.data_type = 8), Error::Initializer { .. }));
    assert!(matches!(damage(|w| w.raw_data = vec![0; 71]), Error::Initializer { .. }));
    let empty = damage(|w| {
        w.dims[0] = 0;
        w.float_data.clear();
    });
    assert!(matches!(empty, Error::ZeroSized { .. }));
}

#[test]
fn broken_graphs_are_refused() {
    let relu = |from, to| node("Relu", &[from], to, vec![]);
    for nodes in [
        vec![relu("nothing", "y")],
        vec![relu("b", "a"), relu("a", "b"), relu("b", "y")],
        vec![relu("x", "y"), relu("x", "y")],
        vec![relu("x", "x"), relu("x", "y")],
        vec![],
    ] {
        assert!(matches!(read(&model(&[1, 4], vec![], nodes)), Err(Error::Graph { .. })));
    }
    let constant = model(&[1, 4], vec![tensor("y", &[1], &[1.0])], vec![]);
    assert!(matches!(read(&constant), Err(Error::Graph { .. })));
}

#[test]
fn nodes_may_stand_in_any_order_and_dead_ones_vanish() {
    let nodes = vec![
        node("Relu", &["t"], "y", vec![]),
        node("NonZero", &["x"], "unused", vec![]),
        node("Tanh", &["x"], "t", vec![]),
    ];
    let graph = graph(&[1, 4], vec![], nodes);
    assert_eq!(graph.nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>(), ["tanh", "clamp"]);
}

#[test]
fn declared_output_shapes_must_hold() {
    let mut model = convolution();
    model.graph.as_mut().unwrap().output[0] = value("y", &[1, 3, 8, 8]);
    assert!(matches!(read(&model), Err(Error::OutputShape { .. })));
    model.graph.as_mut().unwrap().output[0] = value("y", &[-1, 2, 8, 8]);
    assert!(read(&model).is_ok());
}

#[test]
fn all_blockers_come_in_one_report() {
    let nodes = vec![
        node("LeakyRelu", &["x"], "a", vec![]),
        node("LeakyRelu", &["a"], "b", vec![]),
        node("GRU", &["b", "x"], "c", vec![]),
        node("Relu", &["c"], "d", vec![]),
        node("TopK", &["d"], "y", vec![]),
    ];
    let found = blockers(&[1, 4], vec![], nodes);
    let ops: Vec<(&str, usize)> = found.iter().map(|b| (b.op.as_str(), b.nodes.len())).collect();
    assert_eq!(ops, [("LeakyRelu", 2), ("GRU", 1), ("TopK", 1)]);
    assert_eq!(found[0].nodes, ["LeakyRelu_a", "LeakyRelu_b"]);
    let text = Blockers(found).to_string();
    assert!(text.contains("4 node(s)") && text.contains("`GRU_c`") && !text.contains("Relu_d"), "{text}");
}

#[test]
fn refuses_what_it_cannot_do_exactly() {
    let why = |input: &[i64], initializer: Vec<TensorProto>, nodes: Vec<NodeProto>| {
        let found = blockers(input, initializer, nodes);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].why.clone()
    };
    let image = [1, 2, 7, 7];
    let pool = |attributes: Vec<AttributeProto>| {
        let all = [vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])], attributes].concat();
        vec![node("MaxPool", &["x"], "y", all)]
    };
    assert!(why(&image, vec![], pool(vec![int("ceil_mode", 1)])).contains("ceil_mode"));
    assert!(why(&image, vec![], pool(vec![ints("dilations", &[2, 2])])).contains("dilated"));
    assert!(why(&image, vec![], pool(vec![ints("pads", &[2, 0, 0, 0])])).contains("not smaller"));
    assert!(why(&image, vec![], pool(vec![ints("pads", &[i64::MAX, 0, 0, 0])])).contains("larger than"));
    assert!(
        why(&image, vec![], vec![node("Pad", &["x"], "y", vec![text("mode", "reflect")])])
            .contains("reflect")
    );
    let weight = tensor("w", &[2, 2, 1, 1], &[1.0; 4]);
    let negative = node("Conv", &["x", "w"], "y", vec![ints("pads", &[0, -1, 0, 0])]);
    assert!(why(&image, vec![weight], vec![negative]).contains("negative"));
    assert!(why(&[1, 4], vec![], vec![node("MatMul", &["x", "x"], "y", vec![])]).contains("two computed"));
    let infinite = node("Mul", &["x", "c"], "y", vec![]);
    assert!(why(&[1, 4], vec![tensor("c", &[], &[f32::INFINITY])], vec![infinite]).contains("inf"));
    let mean = node("ReduceMean", &["x"], "y", vec![ints("axes", &[0])]);
    assert!(why(&[1, 4], vec![], vec![mean]).contains("batch axis"));
    let mut foreign = node("Relu", &["x"], "y", vec![]);
    foreign.domain = "com.example".into();
    assert!(why(&[1, 4], vec![], vec![foreign]).contains("com.example"));
}

#[test]
fn auto_pad_and_asymmetric_pads() {
    let pads = |mode: &str, extent: i64, stride: i64| {
        let conv =
            node("Conv", &["x", "w"], "y", vec![text("auto_pad", mode), ints("strides", &[stride; 2])]);
        let graph = graph(&[1, 1, extent, extent], vec![tensor("w", &[1, 1, 3, 3], &[1.0; 9])], vec![conv]);
        let Op::Conv(conv) = &graph.nodes[0].op else { panic!("a convolution") };
        (conv.pads, graph.shape(graph.outputs[0])[2])
    };
    assert_eq!(pads("SAME_UPPER", 8, 2), ([0, 0, 1, 1], 4));
    assert_eq!(pads("SAME_LOWER", 8, 2), ([1, 1, 0, 0], 4));
    assert_eq!(pads("SAME_UPPER", 7, 2), ([1, 1, 1, 1], 4));
    assert_eq!(pads("VALID", 8, 2), ([0, 0, 0, 0], 3));
}

#[test]
fn constants_of_any_axis_become_affine() {
    let run = |input: &[i64], dims: &[i64], op: &str| {
        let count = dims.iter().product::<i64>() as usize;
        let data: Vec<f32> = (1..=count).map(|x| x as f32).collect();
        graph(input, vec![tensor("c", dims, &data)], vec![node(op, &["x", "c"], "y", vec![])])
    };
    let names = |graph: &Graph| graph.nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>();
    let affine = |graph: &Graph| {
        let found = graph.nodes.iter().find_map(|node| match &node.op {
            Op::Affine(affine) => Some(affine.clone()),
            _ => None,
        });
        found.expect("an affine node")
    };
    let per_channel = run(&[1, 2, 3, 3], &[2, 1, 1], "Mul");
    assert_eq!(names(&per_channel), ["affine"]);
    assert_eq!(affine(&per_channel), Affine { scale: vec![1.0, 2.0], shift: vec![0.0; 2] });
    let scalar = run(&[1, 3], &[], "Sub");
    assert_eq!(affine(&scalar), Affine { scale: vec![1.0; 3], shift: vec![-1.0; 3] });
    let last = run(&[1, 2, 3], &[3], "Add");
    assert_eq!(names(&last), ["reshape", "affine", "reshape"]);
    assert_eq!(affine(&last), Affine { scale: vec![1.0; 3], shift: vec![1.0, 2.0, 3.0] });
    let whole = run(&[1, 2, 3], &[2, 3], "Div");
    assert_eq!(affine(&whole).scale, [1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0, 1.0 / 6.0]);
    assert_eq!(whole.shape(whole.outputs[0]), [1, 2, 3]);
    let model =
        model(&[1, 3], vec![tensor("c", &[2, 3], &[1.0; 6])], vec![node("Add", &["x", "c"], "y", vec![])]);
    assert!(matches!(read(&model), Err(Error::Blocked(_))), "the constant enlarges the activation");
}

#[test]
fn an_added_constant_becomes_the_bias_only_if_nothing_else_reads_the_product() {
    let weights = || vec![tensor("w", &[3, 2], &[1.0; 6]), tensor("b", &[2], &[1.0, 2.0])];
    let product = node("MatMul", &["x", "w"], "m", vec![]);
    let sum = |from: &str, to: &str| node("Add", &[from, "b"], to, vec![]);
    let fused = graph(&[1, 4, 3], weights(), vec![product.clone(), sum("m", "y")]);
    let Op::Dense(dense) = &fused.nodes[0].op else { panic!("a dense layer") };
    assert_eq!((fused.nodes.len(), dense.bias.clone()), (1, Some(vec![1.0, 2.0])));
    let again = node("Mul", &["m", "s"], "y", vec![]);
    let kept = graph(&[1, 4, 3], weights(), vec![product.clone(), sum("m", "s"), again]);
    let Op::Dense(dense) = &kept.nodes[0].op else { panic!("a dense layer") };
    assert_eq!(dense.bias, None);
    let alias = node("Identity", &["m"], "i", vec![]);
    let both = node("Mul", &["m", "s"], "y", vec![]);
    let kept = graph(&[1, 4, 3], weights(), vec![product, alias, sum("i", "s"), both]);
    let Op::Dense(dense) = &kept.nodes[0].op else { panic!("a dense layer") };
    assert_eq!(dense.bias, None);
}

#[test]
fn old_softmax_runs_over_all_axes_from_its_axis_on() {
    let run = |opset: i64, input: &[i64]| {
        let mut model = model(input, vec![], vec![node("Softmax", &["x"], "y", vec![])]);
        model.opset_import[0].version = opset;
        let graph = read(&model).unwrap();
        graph.nodes.iter().map(|node| node.op.clone()).collect::<Vec<_>>()
    };
    assert_eq!(run(13, &[1, 2, 3]), [Op::Softmax { axis: 2 }]);
    assert_eq!(run(11, &[1, 5, 1]), [Op::Softmax { axis: 1 }]);
    let flat = [Op::Reshape(vec![1, 6]), Op::Softmax { axis: 1 }, Op::Reshape(vec![1, 2, 3])];
    assert_eq!(run(11, &[1, 2, 3]), flat);
}

#[test]
fn external_data_stays_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..18).flat_map(|_| 0.5_f32.to_le_bytes()).collect();
    std::fs::write(folder.path().join("w.data"), [vec![0; 8], bytes].concat()).unwrap();
    let model = |location: &str, offset: &str, length: &str| {
        let mut model = convolution();
        let weight = &mut model.graph.as_mut().unwrap().initializer[0];
        weight.float_data.clear();
        weight.data_location = EXTERNAL;
        weight.external_data = [("location", location), ("offset", offset), ("length", length)]
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value: value.into() })
            .to_vec();
        import_bytes(&model.encode_to_vec(), Some(folder.path()), &Options::default())
    };
    assert_eq!(model("w.data", "8", "72").unwrap().nodes[0], read(&convolution()).unwrap().nodes[0]);
    let absolute = folder.path().join("w.data");
    for (location, offset, length) in [
        ("w.data", "9", "72"),
        ("w.data", "8", "71"),
        ("w.data", "100", "72"),
        ("w.data", "18446744073709551615", "72"),
        ("w.data", "-8", "72"),
        ("missing", "8", "72"),
        ("../w.data", "8", "72"),
        ("a/../w.data", "8", "72"),
        (absolute.to_str().unwrap(), "8", "72"),
        ("", "8", "72"),
    ] {
        let result = model(location, offset, length);
        assert!(matches!(result, Err(Error::External { .. })), "{location} {offset} {length}: {result:?}");
    }
}

#[test]
fn constant_nodes_and_computed_shapes_fold() {
    let number = |name: &str, attribute: AttributeProto| node("Constant", &[], name, vec![attribute]);
    let nodes = vec![
        node("Shape", &["x"], "shape", vec![]),
        number("zero", int("value_int", 0)),
        node("Gather", &["shape", "zero"], "n", vec![]),
        number("axis", ints("value_ints", &[0])),
        node("Unsqueeze", &["n", "axis"], "n1", vec![]),
        number("rest", ints("value_ints", &[-1])),
        node("Concat", &["n1", "rest"], "target", vec![int("axis", 0)]),
        node("Reshape", &["x", "target"], "y", vec![]),
    ];
    let graph = graph(&[1, 2, 3], vec![], nodes);
    assert_eq!(graph.nodes.iter().map(|node| node.op.clone()).collect::<Vec<_>>(), [Op::Reshape(vec![1, 6])]);
}

#[test]
fn where_the_bounds_of_a_clip_cross_the_upper_one_wins() {
    let bounds = vec![tensor("low", &[], &[0.5]), tensor("high", &[], &[-0.5])];
    let graph = graph(&[1, 3], bounds, vec![node("Clip", &["x", "low", "high"], "y", vec![])]);
    let outputs = crate::evaluate::evaluate(&graph, &[vec![-1.0, 0.0, 1.0]], 1, &graph.outputs);
    assert_eq!(outputs, [[-0.5; 3]]);
}
