//! Runs one step through a blob, a session and the best backend.

use crate::blob_bytes::Placed;
use tucano::backend::Scalar;
use tucano::blob::{BlobBuilder, DType, Matrix, Packing, Space, TensorRecord, folded_bias, winograd};
use tucano::host::Runner;
use tucano::ops::OpCode;
use tucano::{AllOps, Model, Session};

/// Elements as little-endian bytes.
pub trait Bytes: Copy {
    const DTYPE: DType;
    fn bytes(values: &[Self]) -> Vec<u8>;
    fn values(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! bytes {
    ($($type:ident $dtype:ident),*) => {$(
        impl Bytes for $type {
            const DTYPE: DType = DType::$dtype;

            fn bytes(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }

            fn values(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|&bytes| Self::from_le_bytes(bytes)).collect()
            }
        }
    )*};
}

bytes!(i8 I8, i16 I16, i32 I32, f32 F32);

/// A tensor without its place.
pub fn tensor(dtype: DType, shape: &[usize], zero_point: i32) -> TensorRecord {
    let mut extents = [1; 4];
    shape.iter().zip(&mut extents).for_each(|(&extent, slot)| *slot = extent as u32);
    TensorRecord {
        space: Space::Arena,
        dtype,
        rank: shape.len() as u8,
        shape: extents,
        offset: 0,
        window_rows: 0,
        slack: 0,
        scale_bits: 1f32.to_bits(),
        zero_point,
    }
}

/// A step with all that it takes.
#[derive(Clone)]
pub struct Step {
    pub op: OpCode,
    pub inputs: Vec<(TensorRecord, Vec<u8>)>,
    pub output: TensorRecord,
    pub weights: Vec<(DType, Vec<u8>)>,
    pub parameters: Vec<u32>,
    pub in_place: bool,
}

impl Step {
    /// The output's bytes.
    pub fn run(&self) -> Result<Vec<u8>, tucano::Error> {
        let mut runner = Runner::new(self.blob(Packing::Rows, 0))?;
        Ok(runner.run_raw(&self.input_bytes())?.remove(0))
    }

    /// As [`Step::run`], with the first constant in another order than rows, and with scratch. The blob runs as it is; a runner, which takes weights
    /// back into rows, must give the same.
    pub fn run_as(&self, packing: Packing, scratch_bytes: usize) -> Result<Vec<u8>, tucano::Error> {
        let blob = self.blob(packing, scratch_bytes as u32);
        let mut runner = Runner::new(&blob)?;
        let placed = Placed::new(&blob);
        let model = Model::<AllOps>::load(placed.get())?;
        let session = Session::new(&model, Scalar);
        let mut arena = vec![0u128; model.arena_bytes().div_ceil(16)];
        let arena: &mut [u8] = bytemuck::cast_slice_mut(&mut arena);
        let arena = &mut arena[..model.arena_bytes()];
        for (k, bytes) in (0..).zip(self.input_bytes()) {
            session.input_mut(arena, k)?.copy_from_slice(bytes);
        }
        session.run(arena, &mut [])?;
        let output = session.output(arena, 0)?.to_vec();
        assert_eq!(runner.run_raw(&self.input_bytes())?, [output.as_slice()], "{packing:?}");
        Ok(output)
    }

    /// The step with its weights packed: in groups, `depth` of them an output, for inputs of this zero point.
    pub fn packed(&self, packing: Packing, groups: usize, depth: usize) -> Self {
        let (rows, bias) = (i8::values(&self.weights[0].1), i32::values(&self.weights[1].1));
        let mut stored;
        let mut op = self.op;
        if packing == Packing::Winograd {
            op = OpCode::WinogradConv2dI8;
            stored = vec![0; winograd::bytes(depth / 9, bias.len()).unwrap()];
            winograd::pack(&rows, depth / 9, bias.len(), &mut stored).unwrap();
        } else {
            let matrix = Matrix { groups, outputs: bias.len() / groups, depth };
            stored = vec![0; matrix.bytes(packing).unwrap()];
            matrix.pack(packing, &rows, &mut stored).unwrap();
        }
        let zero_point = self.inputs[0].0.zero_point;
        let fold = |(row, bias): (&[i8], &i32)| folded_bias(row.iter().copied(), zero_point, *bias);
        let mut weights = self.weights.clone();
        weights[0].1 = i8::bytes(&stored);
        if packing != Packing::Rows {
            weights[1].1 = i32::bytes(&rows.chunks(depth).zip(&bias).map(fold).collect::<Vec<_>>());
        }
        Self { op, weights, ..self.clone() }
    }

    fn input_bytes(&self) -> Vec<&[u8]> {
        self.inputs.iter().map(|(_, bytes)| bytes.as_slice()).collect()
    }

    fn blob(&self, packing: Packing, scratch_bytes: u32) -> Vec<u8> {
        let mut builder = BlobBuilder::new();
        let mut end = 0u32;
        let mut place = |record: &TensorRecord| {
            let placed = TensorRecord { offset: end, ..*record };
            end += (record.bytes().unwrap() as u32).next_multiple_of(16);
            placed
        };
        let inputs: Vec<TensorRecord> = self.inputs.iter().map(|(record, _)| place(record)).collect();
        let output = if self.in_place { self.output } else { place(&self.output) };
        let input_ids: Vec<u16> = inputs.into_iter().map(|record| builder.tensor(record)).collect();
        let output_id = builder.tensor(output);
        let packings = [packing].into_iter().chain(std::iter::repeat(Packing::Rows));
        let weights: Vec<u16> = self
            .weights
            .iter()
            .zip(packings)
            .map(|((dtype, bytes), packing)| builder.weight(*dtype, packing, bytes))
            .collect();
        let scratch = (end, scratch_bytes);
        end += scratch_bytes;
        builder.step("step", self.op, &input_ids, &[output_id], &weights, &self.parameters, scratch);
        builder.inputs(&input_ids);
        builder.outputs(&[output_id]);
        builder.finish(end, 0, 16).expect("a blob of one step")
    }
}

/// Reproducible numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    pub fn integers<T: TryFrom<i32>>(&mut self, count: usize, low: i32, high: i32) -> Vec<T> {
        let span = (high - low + 1) as u32;
        (0..count)
            .map(|_| T::try_from(low + (self.next() % span) as i32).ok().expect("bounds of the type"))
            .collect()
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as i32 as f32 / 1.1e9).collect()
    }
}
