//! Reads a blob.

/// A parsed blob.
pub struct Blob;
/// A section.
pub struct Section;
