use super::*;
use crate::import::constant::Data;
use crate::import::onnx::{AttributeProto, NodeProto, attribute_type as kind};

/// Folds one node of operator set 18.
fn run(op: &str, attributes: Vec<AttributeProto>, inputs: &[&Constant]) -> Result<Constant, String> {
    let node = NodeProto { op_type: op.into(), attribute: attributes, ..NodeProto::default() };
    let inputs = inputs.iter().map(|x| Some(*x)).collect();
    let operands = Operands { op: &node.op_type, opset: 18, attributes: Attributes(&node), inputs };
    fold(&operands, &mut Budget::default()).expect("operator is known")
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: kind::INT, ..AttributeProto::default() }
}

fn ints(name: &str, list: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: list.to_vec(), r#type: kind::INTS, ..AttributeProto::default() }
}

fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: text.into(), r#type: kind::STRING, ..AttributeProto::default() }
}

fn floats(shape: &[usize], data: &[f64]) -> Constant {
    Constant::floats(DType::F32, shape.to_vec(), data.iter().copied())
}

fn list(data: &[i64]) -> Constant {
    Constant::integers(DType::I64, vec![data.len()], data.iter().copied())
}

/// `0, 1, 2, ..` under a shape.
fn counting(shape: &[usize]) -> Constant {
    floats(shape, &(0..shape.iter().product()).map(|k: usize| k as f64).collect::<Vec<_>>())
}

#[test]
fn slices_forwards_backwards_and_clamped() {
    let x = counting(&[2, 5]);
    let slice = |start, end, axis, step| {
        run("Slice", vec![], &[&x, &list(&[start]), &list(&[end]), &list(&[axis]), &list(&[step])])
    };
    assert_eq!(slice(1, 4, 1, 2), Ok(floats(&[2, 2], &[1.0, 3.0, 6.0, 8.0])));
    assert_eq!(slice(-1, i64::MIN, 1, -2), Ok(floats(&[2, 3], &[4.0, 2.0, 0.0, 9.0, 7.0, 5.0])));
    assert_eq!(slice(-2, i64::MAX, -1, 1), Ok(floats(&[2, 2], &[3.0, 4.0, 8.0, 9.0])));
    assert_eq!(slice(0, 5, 1, i64::MAX), Ok(floats(&[2, 1], &[0.0, 5.0])));
    assert_eq!(slice(3, 1, 1, 1).map(|x| x.shape), Ok(vec![2, 0]));
    assert!(slice(0, 1, 1, 0).is_err());
    let old = run("Slice", vec![ints("starts", &[1]), ints("ends", &[2]), ints("axes", &[0])], &[&x]);
    assert_eq!(old, Ok(floats(&[1, 5], &[5.0, 6.0, 7.0, 8.0, 9.0])));
}

#[test]
fn moves_elements() {
    let x = counting(&[2, 3]);
    assert_eq!(run("Transpose", vec![], &[&x]), Ok(floats(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])));
    assert_eq!(
        run("Gather", vec![int("axis", 1)], &[&x, &list(&[-1, 0])]),
        Ok(floats(&[2, 2], &[2.0, 0.0, 5.0, 3.0]))
    );
    assert!(run("Gather", vec![], &[&x, &list(&[2])]).is_err());
    assert_eq!(
        run("Concat", vec![int("axis", 1)], &[&x, &floats(&[2, 1], &[7.0, 8.0])]),
        Ok(floats(&[2, 4], &[0.0, 1.0, 2.0, 7.0, 3.0, 4.0, 5.0, 8.0]))
    );
    assert_eq!(
        run("Tile", vec![], &[&floats(&[2, 1], &[1.0, 2.0]), &list(&[2, 2])]),
        Ok(floats(&[4, 2], &[1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]))
    );
    assert_eq!(
        run("Expand", vec![], &[&floats(&[2, 1], &[1.0, 2.0]), &list(&[1, 3])]),
        Ok(floats(&[2, 3], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))
    );
    assert_eq!(
        run("Pad", vec![], &[&list(&[5]), &list(&[1, 2]), &list(&[9])]),
        Ok(list(&[9, 5, 9, 9])),
        "integers are padded too"
    );
}

#[test]
fn reshapes() {
    let shape = |target: &[i64], allow| {
        run("Reshape", vec![int("allowzero", allow)], &[&counting(&[2, 3]), &list(target)]).map(|x| x.shape)
    };
    assert_eq!(shape(&[0, -1, 1], 0), Ok(vec![2, 3, 1]));
    assert!(shape(&[0, -1], 1).is_err());
    assert!(shape(&[-1, -1], 0).is_err());
    assert!(shape(&[4, 2], 0).is_err());
    assert!(shape(&[-1, 4], 0).is_err());
    let x = counting(&[1, 2, 1]);
    assert_eq!(run("Squeeze", vec![], &[&x, &list(&[-1])]).map(|x| x.shape), Ok(vec![1, 2]));
    assert_eq!(run("Squeeze", vec![], &[&x]).map(|x| x.shape), Ok(vec![2]));
    assert!(run("Squeeze", vec![], &[&x, &list(&[1])]).is_err());
    assert_eq!(
        run("Unsqueeze", vec![ints("axes", &[0, -1])], &[&x]).map(|x| x.shape),
        Ok(vec![1, 1, 2, 1, 1])
    );
}

#[test]
fn ranges_and_casts() {
    let range = |a, b, d| {
        run("Range", vec![], &[a, b, d].map(|x| Constant::integers(DType::I64, vec![], [x])).each_ref())
    };
    assert_eq!(range(5, 0, -2), Ok(list(&[5, 3, 1])));
    assert_eq!(range(0, 5, -1), Ok(list(&[])));
    assert!(range(0, i64::MAX, 1).is_err());
    assert!(range(0, 1, 0).is_err());
    let x = Constant::floats(DType::F32, vec![3], [-1.5, 0.0, 300.0]);
    assert_eq!(run("Cast", vec![int("to", 7)], &[&x]), Ok(list(&[-1, 0, 300])));
    let bools = run("Cast", vec![int("to", 9)], &[&x]).unwrap();
    assert_eq!((bools.dtype, bools.data), (DType::Bool, Data::Integer(vec![1, 0, 1])));
    assert_eq!(run("CastLike", vec![], &[&list(&[2]), &x]), Ok(floats(&[1], &[2.0])));
    assert!(run("Cast", vec![int("to", 8)], &[&x]).is_err());
}

#[test]
fn computes_with_broadcasting_in_the_element_type() {
    let (row, column) = (floats(&[3], &[1.0, 2.0, 4.0]), floats(&[2, 1], &[1.0, -1.0]));
    let data = |op: &str| run(op, vec![], &[&column, &row]).map(|x| x.as_floats().unwrap().to_vec());
    assert_eq!(data("Sub"), Ok(vec![0.0, -1.0, -3.0, -2.0, -3.0, -5.0]));
    assert_eq!(data("Div"), Ok(vec![1.0, 0.5, 0.25, -1.0, -0.5, -0.25]));
    assert_eq!(data("Max"), Ok(vec![1.0, 2.0, 4.0, 1.0, 2.0, 4.0]));
    let third = run("Div", vec![], &[&floats(&[], &[1.0]), &floats(&[], &[3.0])]).unwrap();
    assert_eq!(third.data, Data::Float(vec![f64::from(1.0_f32 / 3.0)]));
    assert_eq!(
        run("Div", vec![], &[&list(&[-7]), &list(&[2])]),
        Ok(list(&[-3])),
        "integer division truncates"
    );
    assert!(run("Div", vec![], &[&list(&[1]), &list(&[0])]).is_err());
    assert_eq!(run("Mod", vec![], &[&list(&[-7, 7, 6]), &list(&[3, -3, 3])]), Ok(list(&[2, -2, 0])));
    assert!(run("Mul", vec![], &[&list(&[i64::MAX]), &list(&[2])]).is_err());
    assert!(run("Add", vec![], &[&row, &list(&[1])]).is_err());
    let condition = run("Equal", vec![], &[&row, &floats(&[], &[2.0])]).unwrap();
    assert_eq!(
        run("Where", vec![], &[&condition, &column, &row]),
        Ok(floats(&[2, 3], &[1.0, 1.0, 4.0, 1.0, -1.0, 4.0]))
    );
}

#[test]
fn reduces() {
    let x = counting(&[2, 3]);
    let reduce = |op: &str, attributes, axes: &[i64]| run(op, attributes, &[&x, &list(axes)]);
    assert_eq!(reduce("ReduceSum", vec![int("keepdims", 0)], &[-1]), Ok(floats(&[2], &[3.0, 12.0])));
    assert_eq!(reduce("ReduceMean", vec![], &[0]), Ok(floats(&[1, 3], &[1.5, 2.5, 3.5])));
    assert_eq!(reduce("ReduceMax", vec![], &[]), Ok(floats(&[1, 1], &[5.0])));
    assert_eq!(reduce("ReduceSum", vec![int("noop_with_empty_axes", 1)], &[]), Ok(x.clone()));
    assert_eq!(
        run("ReduceSum", vec![ints("axes", &[0, 1]), int("keepdims", 0)], &[&x]),
        Ok(floats(&[], &[15.0]))
    );
}

#[test]
fn contracts() {
    let einsum =
        |equation: &str, inputs: &[&Constant]| run("Einsum", vec![text("equation", equation)], inputs);
    let (a, b) = (counting(&[2, 3]), counting(&[3, 2]));
    let product = floats(&[2, 2], &[10.0, 13.0, 28.0, 40.0]);
    assert_eq!(einsum("ik, kj -> ij", &[&a, &b]), Ok(product.clone()));
    assert_eq!(einsum("ik,kj", &[&a, &b]), Ok(product.clone()));
    assert_eq!(einsum("...k,k...->...", &[&a, &counting(&[3])]), Ok(floats(&[2], &[5.0, 14.0])));
    assert_eq!(einsum("ii", &[&counting(&[3, 3])]), Ok(floats(&[], &[12.0])));
    assert_eq!(einsum("ii->i", &[&counting(&[2, 2])]), Ok(floats(&[2], &[0.0, 3.0])));
    assert_eq!(einsum("ij->ji", &[&a]).map(|x| x.shape), Ok(vec![3, 2]));
    let chain = einsum("ij,jk,kl->il", &[&a, &b, &counting(&[2, 1])]);
    assert_eq!(chain, Ok(floats(&[2, 1], &[13.0, 40.0])));
    assert!(einsum("ij,jk->iz", &[&a, &b]).is_err());
    assert!(einsum("ij,jk->ik", &[&a, &a]).is_err());
    assert!(einsum("i", &[&a]).is_err());
    assert!(einsum("i1->i", &[&a]).is_err());

    assert_eq!(run("MatMul", vec![], &[&a, &b]), Ok(product.clone()));
    assert_eq!(run("MatMul", vec![], &[&a, &counting(&[3])]), Ok(floats(&[2], &[5.0, 14.0])));
    assert_eq!(run("MatMul", vec![], &[&counting(&[4, 2, 3]), &b]).map(|x| x.shape), Ok(vec![4, 2, 2]));
    assert!(run("MatMul", vec![], &[&a, &a]).is_err());
    let gemm = run("Gemm", vec![int("transA", 1)], &[&b, &b, &floats(&[2], &[1.0, 2.0])]);
    assert!(gemm.is_ok_and(|x| x == floats(&[2, 2], &[21.0, 28.0, 27.0, 37.0])));
}

#[test]
fn dequantises_per_tensor_and_per_axis() {
    let x = Constant::integers(DType::I8, vec![2, 2], [1, 2, 3, 4]);
    let zero = Constant::integers(DType::I8, vec![], [1]);
    let all = run("DequantizeLinear", vec![], &[&x, &floats(&[], &[0.5]), &zero]);
    assert_eq!(all, Ok(floats(&[2, 2], &[0.0, 0.5, 1.0, 1.5])));
    let scales = floats(&[2], &[1.0, 10.0]);
    let rows = run("DequantizeLinear", vec![int("axis", 0)], &[&x, &scales]);
    assert_eq!(rows, Ok(floats(&[2, 2], &[1.0, 2.0, 30.0, 40.0])));
    let columns = run("DequantizeLinear", vec![], &[&x, &scales]);
    assert_eq!(columns, Ok(floats(&[2, 2], &[1.0, 20.0, 3.0, 40.0])));
    assert!(run("DequantizeLinear", vec![], &[&x, &floats(&[3], &[1.0; 3])]).is_err());
}

#[test]
fn the_budget_stops_huge_results() {
    let huge = list(&[1 << 20, 1 << 20]);
    assert!(run("Expand", vec![], &[&floats(&[], &[1.0]), &huge]).is_err());
    assert!(run("ConstantOfShape", vec![], &[&huge]).is_err());
    assert!(run("ConstantOfShape", vec![], &[&list(&[0, i64::MAX, i64::MAX])]).is_err());
    let mut budget = Budget::default();
    let taken = (0..8).take_while(|_| budget.take(&[LARGEST_RESULT]).is_ok()).count();
    assert_eq!(taken, 4);
}
