//! Integer weights and quantised values.
