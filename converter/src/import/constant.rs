//! Tensors whose numbers are known while importing: initializers, `Constant` nodes, folded results.
//!
//! Takes [`TensorProto`]s, typed, raw or in an external file. Gives [`Constant`]s. Refuses strings, complex numbers,
//! 64-bit unsigned integers, numbers of less than 8 bits, and data whose length is not that of the shape. Nothing is
//! allocated before it is known to be there.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::Error;
use super::onnx::{EXTERNAL, TensorProto};
use super::shape;

/// Element types, as the codes of `TensorProto.DataType` name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F64,
    F16,
    Bf16,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    Bool,
}

impl DType {
    /// From the code in a model; the error names types that are not supported.
    pub fn from_code(code: i64) -> Result<Self, String> {
        Ok(match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            16 => Self::Bf16,
            0 => return Err("has no element type".into()),
            8 => return Err("holds strings".into()),
            13 => return Err("holds 64-bit unsigned integers".into()),
            _ => return Err(format!("has element type {code}, which is not supported")),
        })
    }

    /// Whether it stores real numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// The nearest number that the type stores.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::F32 => f64::from(x as f32),
            Self::F16 => half::f16::from_f64(x).to_f64(),
            Self::Bf16 => half::bf16::from_f64(x).to_f64(),
            _ => x,
        }
    }

    /// What an integer becomes when it is stored: higher bits are lost.
    pub fn wrap(self, x: i64) -> i64 {
        match self {
            Self::I8 => i64::from(x as i8),
            Self::U8 => i64::from(x as u8),
            Self::I16 => i64::from(x as i16),
            Self::U16 => i64::from(x as u16),
            Self::I32 => i64::from(x as i32),
            Self::U32 => i64::from(x as u32),
            Self::Bool => i64::from(x != 0),
            _ => x,
        }
    }
}

/// Numbers of a [`Constant`]. Reals are held as `f64`, already rounded to the element type: one addition,
/// multiplication, division or square root in `f64` followed by that rounding is exactly the `f32` operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Element types with [`DType::is_float`].
    Float(Vec<f64>),
    /// All others; booleans are 0 and 1.
    Integer(Vec<i64>),
}

/// A tensor whose numbers are known while importing.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis; may hold zeros.
    pub shape: Vec<usize>,
    /// As many numbers as the shape says, row-major.
    pub data: Data,
}

impl Constant {
    /// Reals rounded to `dtype`.
    pub fn floats(dtype: DType, shape: Vec<usize>, data: impl IntoIterator<Item = f64>) -> Self {
        Self { dtype, shape, data: Data::Float(data.into_iter().map(|x| dtype.round(x)).collect()) }
    }

    /// Integers cut to `dtype`.
    pub fn integers(dtype: DType, shape: Vec<usize>, data: impl IntoIterator<Item = i64>) -> Self {
        Self { dtype, shape, data: Data::Integer(data.into_iter().map(|x| dtype.wrap(x)).collect()) }
    }

    /// A one-dimensional `int64` tensor, as `Shape` gives it.
    pub fn extents(shape: &[usize]) -> Self {
        Self::integers(DType::I64, vec![shape.len()], shape.iter().map(|extent| *extent as i64))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(data) => data.len(),
            Data::Integer(data) => data.len(),
        }
    }

    /// The numbers of an integer tensor (shapes, axes, indices).
    pub fn as_integers(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::Integer(data) => Ok(data),
            Data::Float(_) => Err(format!("needs integers, got {:?}", self.dtype)),
        }
    }

    /// The numbers of a tensor of reals.
    pub fn as_floats(&self) -> Result<&[f64], String> {
        match &self.data {
            Data::Float(data) => Ok(data),
            Data::Integer(_) => Err(format!("needs real numbers, got {:?}", self.dtype)),
        }
    }

    /// A weight: `float32` and finite.
    pub fn weight(&self) -> Result<Vec<f32>, String> {
        if self.dtype != DType::F32 {
            return Err(format!("its constant is {:?}, not F32", self.dtype));
        }
        let data = self.as_floats()?;
        match data.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(format!("its constant holds {} at flat index {at}", data[at])),
            None => Ok(data.iter().map(|x| *x as f32).collect()),
        }
    }

    /// The same numbers under another shape of as many elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self { shape, ..self.clone() }
    }

    /// A tensor whose elements are those of `self` at flat `indices`.
    pub fn pick(&self, shape: Vec<usize>, indices: impl Iterator<Item = usize>) -> Self {
        let data = match &self.data {
            Data::Float(data) => Data::Float(indices.map(|at| data[at]).collect()),
            Data::Integer(data) => Data::Integer(indices.map(|at| data[at]).collect()),
        };
        Self { dtype: self.dtype, shape, data }
    }

    /// Reads an initializer or an attribute of kind tensor. `external` is the folder of the model.
    pub fn read(proto: &TensorProto, external: Option<&Path>) -> Result<Self, Error> {
        let fail = |why: String| Error::Initializer { name: proto.name.clone(), why };
        let dtype = DType::from_code(i64::from(proto.data_type)).map_err(fail)?;
        let shape = proto
            .dims
            .iter()
            .map(|extent| shape::extent(*extent))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| fail(format!("shape {:?}: {why}", proto.dims)))?;
        let len = shape::elements(&shape).map_err(fail)?;
        if len == 0 && dtype.is_float() {
            return Err(Error::ZeroSized { name: proto.name.clone(), shape: proto.dims.clone() });
        }
        let data = if proto.data_location == EXTERNAL {
            from_bytes(dtype, len, &read_external(proto, len * dtype.bytes(), external)?).map_err(fail)?
        } else if !proto.raw_data.is_empty() {
            from_bytes(dtype, len, &proto.raw_data).map_err(fail)?
        } else {
            from_typed(dtype, len, proto).map_err(fail)?
        };
        let constant = Self { dtype, shape, data };
        constant.check_finite(&proto.name)?;
        Ok(constant)
    }

    /// Refuses arrays with numbers that are not finite. Single numbers may be infinite (bounds of `Clip`); the
    /// operator that uses one as a weight checks it.
    fn check_finite(&self, name: &str) -> Result<(), Error> {
        let Data::Float(data) = &self.data else { return Ok(()) };
        match data.iter().position(|x| !x.is_finite()) {
            Some(flat) if data.len() > 1 => Err(Error::NotFinite {
                name: name.into(),
                index: shape::unravel(flat, &self.shape),
                value: data[flat],
            }),
            _ => Ok(()),
        }
    }
}

/// Little-endian numbers, as `raw_data` and external files store them.
fn from_bytes(dtype: DType, len: usize, bytes: &[u8]) -> Result<Data, String> {
    if bytes.len() != len * dtype.bytes() {
        return Err(format!("{} bytes of data for {len} elements of {dtype:?}", bytes.len()));
    }
    fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    Ok(match dtype {
        DType::F32 => Data::Float(each(bytes, |b| f64::from(f32::from_le_bytes(b)))),
        DType::F64 => Data::Float(each(bytes, f64::from_le_bytes)),
        DType::F16 => Data::Float(each(bytes, |b| half::f16::from_le_bytes(b).to_f64())),
        DType::Bf16 => Data::Float(each(bytes, |b| half::bf16::from_le_bytes(b).to_f64())),
        DType::I8 => Data::Integer(each(bytes, |b| i64::from(i8::from_le_bytes(b)))),
        DType::U8 => Data::Integer(each(bytes, |[b]| i64::from(b))),
        DType::I16 => Data::Integer(each(bytes, |b| i64::from(i16::from_le_bytes(b)))),
        DType::U16 => Data::Integer(each(bytes, |b| i64::from(u16::from_le_bytes(b)))),
        DType::I32 => Data::Integer(each(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        DType::U32 => Data::Integer(each(bytes, |b| i64::from(u32::from_le_bytes(b)))),
        DType::I64 => Data::Integer(each(bytes, i64::from_le_bytes)),
        DType::Bool => Data::Integer(each(bytes, |[b]| i64::from(b != 0))),
    })
}

/// The field that the specification assigns to each type; half floats stand as bits in `int32_data`.
fn from_typed(dtype: DType, len: usize, proto: &TensorProto) -> Result<Data, String> {
    let bits = |x: &i32| *x as u16;
    let ints = proto.int32_data.iter();
    let data = match dtype {
        DType::F32 => Data::Float(proto.float_data.iter().map(|x| f64::from(*x)).collect()),
        DType::F64 => Data::Float(proto.double_data.clone()),
        DType::F16 => Data::Float(ints.map(|x| half::f16::from_bits(bits(x)).to_f64()).collect()),
        DType::Bf16 => Data::Float(ints.map(|x| half::bf16::from_bits(bits(x)).to_f64()).collect()),
        DType::I64 => Data::Integer(proto.int64_data.clone()),
        DType::U32 => Data::Integer(proto.uint64_data.iter().map(|x| dtype.wrap(*x as i64)).collect()),
        _ => Data::Integer(ints.map(|x| dtype.wrap(i64::from(*x))).collect()),
    };
    let stored = match &data {
        Data::Float(data) => data.len(),
        Data::Integer(data) => data.len(),
    };
    if stored == len { Ok(data) } else { Err(format!("{stored} numbers stored for {len} elements")) }
}

/// Reads the `bytes` bytes of an external tensor. The path must stay in the folder of the model.
fn read_external(proto: &TensorProto, bytes: usize, folder: Option<&Path>) -> Result<Vec<u8>, Error> {
    let entry = |key| proto.external_data.iter().find(|entry| entry.key == key).map(|e| e.value.as_str());
    let location = entry("location").unwrap_or_default();
    let fail = |why: String| Error::External { name: proto.name.clone(), location: location.into(), why };
    let number = |key| match entry(key) {
        None => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| fail(format!("its {key} `{text}` is no number")))
        }
    };
    let path = Path::new(location);
    if location.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(fail("the path must be relative and stay beside the model".into()));
    }
    let folder = folder.ok_or_else(|| fail("the model was given without its folder".into()))?;
    let mut file = File::open(folder.join(path)).map_err(|why| fail(why.to_string()))?;
    let size = file.metadata().map_err(|why| fail(why.to_string()))?.len();
    let offset = number("offset")?.unwrap_or(0);
    let rest = size
        .checked_sub(offset)
        .ok_or_else(|| fail(format!("offset {offset} lies behind its end, {size}")))?;
    let length = number("length")?.unwrap_or(rest);
    if length > rest || length != bytes as u64 {
        return Err(fail(format!(
            "{bytes} bytes are needed, {length} are named from offset {offset}, the file has {size}"
        )));
    }
    let mut data = vec![0; bytes];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut data))
        .map_err(|why| fail(why.to_string()))?;
    Ok(data)
}
