//! CRC-32 of IEEE 802.3 (reflected, polynomial 0xEDB88320), four bits at a time: a table of 64 bytes.

use crate::rolled::rolled;

const TABLE: [u32; 16] = table();

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// A checksum under way.
#[derive(Clone, Copy)]
pub(super) struct Crc(u32);

impl Crc {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    #[inline(never)]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            rolled();
            self.0 ^= u32::from(byte);
            for _ in 0..2 {
                self.0 = TABLE[(self.0 & 15) as usize] ^ (self.0 >> 4);
            }
        }
    }

    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

/// Checksum of `parts`, one after the other.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for part in parts {
        crc.add(part);
    }
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xCBF4_3926);
        assert_eq!(crc32(&[]), 0);
    }
}
