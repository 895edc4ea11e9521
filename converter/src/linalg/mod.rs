//! Decompositions on top of faer.
