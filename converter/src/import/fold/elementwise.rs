//! Operators that compute each element on its own, with numpy broadcasting.

use super::{Budget, Operands};
use crate::import::constant::{Constant, DType, Data};
use crate::import::shape::{self, Offsets};

type Result<T> = std::result::Result<T, String>;

pub fn fold(node: &Operands, budget: &mut Budget) -> Option<Result<Constant>> {
    Some(match node.op {
        "Cast" => DType::from_code(node.attributes.int("to", 0).unwrap_or(0))
            .and_then(|dtype| cast(node.input(0)?, dtype, budget)),
        "CastLike" => node.input(1).and_then(|like| cast(node.input(0)?, like.dtype, budget)),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Sum" => arithmetic(node, budget),
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" => compare(node, budget),
        "Where" => choose(node, budget),
        "DequantizeLinear" => dequantize(node, budget),
        op => unary(node, function(op)?, budget),
    })
}

/// A function of one real number.
fn function(op: &str) -> Option<fn(f64) -> f64> {
    Some(match op {
        "Neg" => |x| -x,
        "Abs" => f64::abs,
        "Sqrt" => f64::sqrt,
        "Reciprocal" => f64::recip,
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Sin" => f64::sin,
        "Cos" => f64::cos,
        "Tanh" => f64::tanh,
        "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
        "Relu" => |x| x.max(0.0),
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        _ => return None,
    })
}

fn unary(node: &Operands, function: fn(f64) -> f64, budget: &mut Budget) -> Result<Constant> {
    let x = node.input(0)?;
    budget.take(&x.shape)?;
    match (&x.data, node.op) {
        (Data::Float(data), _) => {
            Ok(Constant::floats(x.dtype, x.shape.clone(), data.iter().map(|x| function(*x))))
        }
        (Data::Integer(data), "Neg") => {
            Ok(Constant::integers(x.dtype, x.shape.clone(), data.iter().map(|x| x.wrapping_neg())))
        }
        (Data::Integer(data), "Abs") => {
            Ok(Constant::integers(x.dtype, x.shape.clone(), data.iter().map(|x| x.wrapping_abs())))
        }
        _ => Err(format!("is not defined for {:?}", x.dtype)),
    }
}

/// Reals become integers by truncation, anything but 0 becomes true.
pub fn cast(x: &Constant, to: DType, budget: &mut Budget) -> Result<Constant> {
    budget.take(&x.shape)?;
    let shape = x.shape.clone();
    Ok(match (&x.data, to) {
        (Data::Float(data), _) if to.is_float() => Constant::floats(to, shape, data.iter().copied()),
        (Data::Float(data), DType::Bool) => {
            Constant::integers(to, shape, data.iter().map(|x| i64::from(*x != 0.0)))
        }
        (Data::Float(data), _) => Constant::integers(to, shape, data.iter().map(|x| *x as i64)),
        (Data::Integer(data), _) if to.is_float() => {
            Constant::floats(to, shape, data.iter().map(|x| *x as f64))
        }
        (Data::Integer(data), _) => Constant::integers(to, shape, data.iter().copied()),
    })
}

/// Elements of `x` in the order of a shape that it broadcasts to.
fn spread<'a, T: Copy>(
    data: &'a [T],
    x: &Constant,
    to: &'a [usize],
    strides: &'a mut Vec<isize>,
) -> impl Iterator<Item = T> + 'a {
    *strides = shape::broadcast_strides(&x.shape, to);
    Offsets::new(to, strides, 0).map(move |at| data[at])
}

/// Two operands of one kind, broadcast.
enum Pairs {
    Float(Vec<(f64, f64)>),
    Integer(Vec<(i64, i64)>),
}

fn pairs(a: &Constant, b: &Constant, shape: &[usize], budget: &mut Budget) -> Result<Pairs> {
    budget.take(shape)?;
    let (mut of_a, mut of_b) = (vec![], vec![]);
    Ok(match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            Pairs::Float(spread(x, a, shape, &mut of_a).zip(spread(y, b, shape, &mut of_b)).collect())
        }
        (Data::Integer(x), Data::Integer(y)) => {
            Pairs::Integer(spread(x, a, shape, &mut of_a).zip(spread(y, b, shape, &mut of_b)).collect())
        }
        _ => return Err(format!("mixes {:?} and {:?}", a.dtype, b.dtype)),
    })
}

/// Operators of two operands; `Min`, `Max` and `Sum` of any number are folded from the left.
fn arithmetic(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    if node.op == "Mod" && (node.attributes.int("fmod", 0)? != 0 || node.input(0)?.dtype.is_float()) {
        return Err("is folded for integers only (fmod=0)".into());
    }
    let mut result = node.input(0)?.clone();
    for k in 1..node.inputs.len() {
        let mut operand = node.input(k)?.clone();
        if node.op == "Pow" {
            operand = cast(&operand, result.dtype, budget)?;
        }
        if operand.dtype != result.dtype {
            return Err(format!("mixes {:?} and {:?}", result.dtype, operand.dtype));
        }
        let shape = shape::broadcast(&result.shape, &operand.shape)?;
        result = match pairs(&result, &operand, &shape, budget)? {
            Pairs::Float(pairs) => {
                let operator = real(node.op);
                Constant::floats(result.dtype, shape, pairs.into_iter().map(|(a, b)| operator(a, b)))
            }
            Pairs::Integer(pairs) => {
                let data = pairs.into_iter().map(|(a, b)| integer(node.op, a, b)).collect::<Option<Vec<_>>>();
                let data = data.ok_or("overflows or divides by zero")?;
                Constant::integers(result.dtype, shape, data)
            }
        };
    }
    Ok(result)
}

fn real(op: &str) -> fn(f64, f64) -> f64 {
    match op {
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => f64::powf,
        "Min" => f64::min,
        "Max" => f64::max,
        _ => |a, b| a + b,
    }
}

/// Division truncates, as in C.
fn integer(op: &str, a: i64, b: i64) -> Option<i64> {
    match op {
        "Sub" => a.checked_sub(b),
        "Mul" => a.checked_mul(b),
        "Div" => a.checked_div(b),
        // The result has the sign of the divisor.
        "Mod" => {
            a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        "Pow" => a.checked_pow(b.try_into().ok()?),
        "Min" => Some(a.min(b)),
        "Max" => Some(a.max(b)),
        _ => a.checked_add(b),
    }
}

fn compare(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    fn holds<T: PartialOrd>(op: &str, a: T, b: T) -> i64 {
        i64::from(match op {
            "Equal" => a == b,
            "Less" => a < b,
            "Greater" => a > b,
            "LessOrEqual" => a <= b,
            _ => a >= b,
        })
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    let shape = shape::broadcast(&a.shape, &b.shape)?;
    let data: Vec<i64> = match pairs(a, b, &shape, budget)? {
        Pairs::Float(pairs) => pairs.into_iter().map(|(a, b)| holds(node.op, a, b)).collect(),
        Pairs::Integer(pairs) => pairs.into_iter().map(|(a, b)| holds(node.op, a, b)).collect(),
    };
    Ok(Constant::integers(DType::Bool, shape, data))
}

fn choose(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let (condition, a, b) = (node.input(0)?, node.input(1)?, node.input(2)?);
    if a.dtype != b.dtype {
        return Err(format!("mixes {:?} and {:?}", a.dtype, b.dtype));
    }
    let shape = shape::broadcast(&shape::broadcast(&condition.shape, &a.shape)?, &b.shape)?;
    let pairs = pairs(a, b, &shape, budget)?;
    let mut strides = vec![];
    let first = spread(condition.as_integers()?, condition, &shape, &mut strides);
    fn pick<T>(first: impl Iterator<Item = i64>, pairs: Vec<(T, T)>) -> impl Iterator<Item = T> {
        first.zip(pairs).map(|(first, (a, b))| if first != 0 { a } else { b })
    }
    let data = match pairs {
        Pairs::Float(pairs) => Data::Float(pick(first, pairs).collect()),
        Pairs::Integer(pairs) => Data::Integer(pick(first, pairs).collect()),
    };
    Ok(Constant { dtype: a.dtype, shape, data })
}

/// `(x - zero_point) * scale`, per tensor or per slice of `axis`.
fn dequantize(node: &Operands, budget: &mut Budget) -> Result<Constant> {
    let (x, scale) = (node.input(0)?, node.input(1)?);
    if node.attributes.int("block_size", 0)? != 0 {
        return Err("blocked quantisation is not supported".into());
    }
    budget.take(&x.shape)?;
    let (data, scales) = (x.as_integers()?, scale.as_floats()?);
    let zeros = match node.optional(2) {
        Some(zeros) if zeros.len() == scales.len() => zeros.as_integers()?,
        Some(_) => return Err("scale and zero point differ in length".into()),
        None => &vec![0; scales.len()],
    };
    let (slices, inner) = if scales.len() == 1 {
        (1, 1)
    } else {
        let axis = shape::axis(node.attributes.int("axis", 1)?, x.shape.len())?;
        (x.shape[axis], x.shape[axis + 1..].iter().product())
    };
    if slices != scales.len() {
        return Err(format!("{} scales for {slices} slices", scales.len()));
    }
    let inner = inner.max(1);
    let real = data.iter().enumerate().map(|(at, x)| {
        let slice = at / inner % slices.max(1);
        (x - zeros[slice]) as f64 * scales[slice]
    });
    Ok(Constant::floats(scale.dtype, x.shape.clone(), real))
}
