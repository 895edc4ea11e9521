//! Writes a blob.

/// Builds a blob.
pub struct BlobBuilder;
/// CRC-32.
pub fn crc32_of(_parts: &[&[u8]]) -> u32 {
    0
}
