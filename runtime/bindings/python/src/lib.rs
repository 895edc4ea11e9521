//! The host runner for Python: `tucano.pyi` says what each function does.

use numpy::ndarray::{Array2, ArrayD, IxDyn};
use numpy::{IntoPyArray, PyArray2, PyArrayDyn, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use runtime::blob::DType;
use runtime::host;

fn refused(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[pyfunction]
fn backends() -> Vec<&'static str> {
    host::backends()
}

#[pyclass(frozen)]
struct Terminal(host::Terminal);

#[pymethods]
impl Terminal {
    #[getter]
    fn shape(&self) -> Vec<usize> {
        self.0.shape()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        match self.0.tensor.dtype {
            DType::F32 => "float32",
            DType::I8 => "int8",
            DType::I16 => "int16",
            _ => "other",
        }
    }

    #[getter]
    fn scale(&self) -> f32 {
        self.0.scale()
    }

    #[getter]
    fn zero_point(&self) -> i32 {
        self.0.tensor.zero_point
    }

    fn __repr__(&self) -> String {
        format!("Terminal(shape={:?}, dtype={})", self.shape(), self.dtype())
    }
}

#[pyclass]
struct Runner(host::Runner);

/// Samples of all inputs, one after the other, and how many.
type Samples = (Vec<Vec<f32>>, usize);

impl Runner {
    fn samples(&self, inputs: &Bound<'_, PyTuple>) -> PyResult<Samples> {
        let wanted = self.0.inputs();
        if inputs.len() != wanted.len() {
            return Err(refused(format!("{} arrays given, the blob takes {}", inputs.len(), wanted.len())));
        }
        let (mut all, mut samples) = (Vec::new(), None);
        for (terminal, input) in wanted.iter().zip(inputs.iter()) {
            let array: PyReadonlyArrayDyn<'_, f32> =
                input.extract().map_err(|_| refused("arrays must be float32"))?;
            let array = array.as_array();
            let shape = terminal.shape();
            // The source model's own batch axis, which is 1, is the samples' one.
            let item = shape.strip_prefix(&[1]).unwrap_or(&shape);
            let count = match array.shape().split_first() {
                Some((count, rest)) if rest == item => *count,
                _ => {
                    return Err(refused(format!(
                        "an array of shape {:?} holds no samples of {item:?}",
                        array.shape()
                    )));
                }
            };
            if *samples.get_or_insert(count) != count {
                return Err(refused("the arrays differ in their number of samples"));
            }
            all.push(array.iter().copied().collect());
        }
        Ok((all, samples.unwrap_or(1)))
    }
}

#[pymethods]
impl Runner {
    #[new]
    #[pyo3(signature = (blob, backend=None))]
    fn new(blob: &[u8], backend: Option<&str>) -> PyResult<Self> {
        let runner = match backend {
            None => host::Runner::new(blob).map_err(refused)?,
            Some(name) => host::Runner::with_backend(blob, name).map_err(refused)?,
        };
        Ok(Self(runner))
    }

    #[getter]
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    #[getter]
    fn inputs(&self) -> Vec<Terminal> {
        self.0.inputs().iter().cloned().map(Terminal).collect()
    }

    #[getter]
    fn outputs(&self) -> Vec<Terminal> {
        self.0.outputs().iter().cloned().map(Terminal).collect()
    }

    #[pyo3(signature = (*inputs))]
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        inputs: &Bound<'py, PyTuple>,
    ) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        let (inputs, samples) = self.samples(inputs)?;
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let runner = &mut self.0;
        let outputs = py.detach(|| runner.run_batch(&inputs, samples)).map_err(refused)?;
        let shaped = |(terminal, data): (&host::Terminal, Vec<f32>)| {
            let shape = terminal.shape();
            let item = shape.strip_prefix(&[1]).unwrap_or(&shape);
            let shape = [&[samples], item].concat();
            Ok(ArrayD::from_shape_vec(IxDyn(&shape), data).map_err(refused)?.into_pyarray(py))
        };
        self.0.outputs().iter().zip(outputs).map(shaped).collect()
    }

    #[pyo3(signature = (*inputs))]
    fn run_raw<'py>(
        &mut self,
        py: Python<'py>,
        inputs: &Bound<'py, PyTuple>,
    ) -> PyResult<Vec<Bound<'py, PyArray2<u8>>>> {
        let (inputs, samples) = self.samples(inputs)?;
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let runner = &mut self.0;
        let outputs = py.detach(|| runner.run_batch_raw(&inputs, samples)).map_err(refused)?;
        let shaped = |data: Vec<u8>| {
            let bytes = data.len().checked_div(samples).unwrap_or(0);
            Ok(Array2::from_shape_vec((samples, bytes), data).map_err(refused)?.into_pyarray(py))
        };
        outputs.into_iter().map(shaped).collect()
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Runs Tucano's weight blobs on NumPy arrays, with the bits of the board.
#[pymodule]
fn tucano(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Runner>()?;
    module.add_class::<Terminal>()?;
    module.add_function(wrap_pyfunction!(backends, module)?)
}
