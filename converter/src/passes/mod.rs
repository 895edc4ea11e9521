//! Passes over a graph: simplification and layout.
