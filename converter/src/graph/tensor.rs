//! A float array on the host.

/// Row-major float array: the last axis is contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` numbers.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Wraps `data`; both must agree in length (a programming error otherwise).
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor shape and length differ");
        Self { shape, data }
    }

    /// All zeros.
    pub fn zeros(shape: Vec<usize>) -> Self {
        let len = shape.iter().product();
        Self { shape, data: vec![0.0; len] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether some axis has extent 0.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}
