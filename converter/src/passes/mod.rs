//! Passes over a graph: simplification and layout.

pub mod layout;
pub mod legalize;

pub use layout::layout;
pub use legalize::legalize;
