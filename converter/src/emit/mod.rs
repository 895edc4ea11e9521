//! Writes the blob and the Rust module.
