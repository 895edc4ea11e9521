//! Compression formats: one file a format.
