//! Evaluates operators whose inputs are all constant.
//!
//! Takes one node with its [`Constant`] inputs, gives the [`Constant`] it computes. Refuses operators that are not
//! listed here ([`fold`] gives `None`), malformed nodes, and results beyond the [`Budget`]. Reals are computed in
//! `f64` and rounded to the element type after each operator.

mod contract;
mod elementwise;
mod movement;

pub use contract::reduced_axes;
pub use elementwise::cast;
pub use movement::{padding, reshaped};

use super::attributes::Attributes;
use super::constant::{Constant, DType};
use super::shape;

/// What folding may cost over a whole model, so that a small hostile file cannot take all memory or run for hours.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    elements: usize,
    macs: u64,
}

/// Elements that one folded result may have: 256 MB.
const LARGEST_RESULT: usize = 1 << 25;

impl Default for Budget {
    fn default() -> Self {
        Self { elements: 4 * LARGEST_RESULT, macs: 1 << 31 }
    }
}

impl Budget {
    /// Accounts for a result of this shape before it is allocated.
    pub fn take(&mut self, result: &[usize]) -> Result<(), String> {
        let elements = shape::elements(result)?;
        if elements > LARGEST_RESULT {
            return Err(format!("its constant result {result:?} exceeds {LARGEST_RESULT} elements"));
        }
        self.elements = self
            .elements
            .checked_sub(elements)
            .ok_or("the constants computed by the model exceed what an import may allocate")?;
        Ok(())
    }

    /// Accounts for multiply-adds before they are done.
    pub fn spend(&mut self, macs: u64) -> Result<(), String> {
        self.macs = self
            .macs
            .checked_sub(macs)
            .ok_or("the constant products in the model take too many multiply-adds to fold")?;
        Ok(())
    }
}

/// A node whose inputs are constant.
pub struct Operands<'a> {
    /// Operator.
    pub op: &'a str,
    /// Version of the default domain.
    pub opset: i64,
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// `None` for an optional input that is left out.
    pub inputs: Vec<Option<&'a Constant>>,
}

impl<'a> Operands<'a> {
    /// An input that may be left out.
    pub fn optional(&self, k: usize) -> Option<&'a Constant> {
        self.inputs.get(k).copied().flatten()
    }

    /// An input that must be there.
    pub fn input(&self, k: usize) -> Result<&'a Constant, String> {
        self.optional(k).ok_or_else(|| format!("input {k} is missing"))
    }

    /// The axes of a node that moved them from attribute to input `k` in a later operator set.
    fn axes(&self, k: usize) -> Result<Option<Vec<i64>>, String> {
        shape::axes_of(self.attributes.ints("axes")?, self.optional(k))
    }
}

/// What the node computes; `None` if the operator is not known here.
pub fn fold(node: &Operands, budget: &mut Budget) -> Option<Result<Constant, String>> {
    movement::fold(node, budget)
        .or_else(|| elementwise::fold(node, budget))
        .or_else(|| contract::fold(node, budget))
}

/// `Shape` and `Size`, which need no numbers.
pub fn shape_of(op: &str, attributes: Attributes, input: &[usize]) -> Result<Constant, String> {
    if op == "Size" {
        return Ok(Constant::integers(DType::I64, vec![], [shape::elements(input)? as i64]));
    }
    let rank = input.len() as i64;
    let bound = |name, default: i64| {
        let at = attributes.int(name, default)?;
        Ok::<_, String>(if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize)
    };
    let (start, end) = (bound("start", 0)?, bound("end", rank)?);
    Ok(Constant::extents(&input[start.min(end)..end]))
}

#[cfg(test)]
mod tests;
