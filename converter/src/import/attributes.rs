//! Attributes of a node, by name and kind.

use super::onnx::{AttributeProto, NodeProto, TensorProto, attribute_type as kind};

/// Reads a node's attributes; the error names an attribute of another kind than the operator defines.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a NodeProto);

impl<'a> Attributes<'a> {
    fn find(self, name: &str, kind: i32) -> Result<Option<&'a AttributeProto>, String> {
        match self.0.attribute.iter().find(|attribute| attribute.name == name) {
            // Models before IR version 2 leave the kind out.
            Some(found) if found.r#type == kind || found.r#type == 0 => Ok(Some(found)),
            Some(_) => Err(format!("attribute `{name}` is of the wrong kind")),
            None => Ok(None),
        }
    }

    /// Whether an attribute is there at all.
    pub fn has(self, name: &str) -> bool {
        self.0.attribute.iter().any(|attribute| attribute.name == name)
    }

    /// An integer, or `default`.
    pub fn int(self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.find(name, kind::INT)?.map_or(default, |attribute| attribute.i))
    }

    /// A number, or `default`.
    pub fn float(self, name: &str, default: f32) -> Result<f32, String> {
        Ok(self.find(name, kind::FLOAT)?.map_or(default, |attribute| attribute.f))
    }

    /// A list of integers.
    pub fn ints(self, name: &str) -> Result<Option<&'a [i64]>, String> {
        Ok(self.find(name, kind::INTS)?.map(|attribute| attribute.ints.as_slice()))
    }

    /// A list of numbers.
    pub fn floats(self, name: &str) -> Result<Option<&'a [f32]>, String> {
        Ok(self.find(name, kind::FLOATS)?.map(|attribute| attribute.floats.as_slice()))
    }

    /// A text, or `default`.
    pub fn string(self, name: &str, default: &'a str) -> Result<&'a str, String> {
        match self.find(name, kind::STRING)? {
            Some(found) => {
                std::str::from_utf8(&found.s).map_err(|_| format!("attribute `{name}` is no text"))
            }
            None => Ok(default),
        }
    }

    /// A tensor.
    pub fn tensor(self, name: &str) -> Result<Option<&'a TensorProto>, String> {
        Ok(self.find(name, kind::TENSOR)?.and_then(|attribute| attribute.t.as_ref()))
    }
}
