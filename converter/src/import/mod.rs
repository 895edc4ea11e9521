//! Reads ONNX models and `.npz` data: the only code that knows these formats.
