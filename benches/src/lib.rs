//! Benches of the tucano runtime and converter.
