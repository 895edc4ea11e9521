//! A function of one `f32`, followed by a clamp.

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The input itself.
    Clamp = 0,
    /// Sine of radians.
    Sin = 1,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 2,
    /// Hyperbolic tangent.
    Tanh = 3,
}

/// Parameters of [`crate::ops::OpCode::UnaryF32`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// The function.
    pub kind: Kind,
    /// Least output.
    pub low: f32,
    /// Greatest output.
    pub high: f32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong or the function unknown.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[kind, low, high] = words else { return None };
        let kind = match kind {
            0 => Kind::Clamp,
            1 => Kind::Sin,
            2 => Kind::Sigmoid,
            3 => Kind::Tanh,
            _ => return None,
        };
        Some(Self { kind, low: f32::from_bits(low), high: f32::from_bits(high) })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 3] {
        [self.kind as u32, self.low.to_bits(), self.high.to_bits()]
    }
}
