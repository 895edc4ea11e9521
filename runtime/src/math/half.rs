//! Binary16, which cores without an instruction for it expand in integer steps.

/// Exponent bits; all of them set: infinite or no number.
const EXPONENT: u16 = 0x7C00;

/// The value of a binary16's bits, exactly; those that are not finite give numbers of 65536 and more.
#[inline(always)]
pub fn from_half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let size = u32::from(bits & 0x7FFF);
    let magnitude = if size < 1 << 10 {
        // Below the normal numbers: units of 2^-24.
        (size as f32 * (1.0 / 16_777_216.0)).to_bits()
    } else {
        // The exponents' biases differ by 112.
        (size << 13).wrapping_add(112 << 23)
    };
    f32::from_bits(sign | magnitude)
}

/// Whether a binary16 is a finite number.
pub fn is_finite_half(bits: u16) -> bool {
    bits & EXPONENT != EXPONENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_number_is_what_its_fields_say() {
        let mut finite = 0;
        for bits in 0..=u16::MAX {
            if !is_finite_half(bits) {
                continue;
            }
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
            let size = match exponent {
                0 => fraction * 2f64.powi(-24),
                _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
            };
            let signed = if bits >> 15 == 1 { -size } else { size };
            assert_eq!(f64::from(from_half(bits)).to_bits(), signed.to_bits(), "{bits:#06x}");
            finite += 1;
        }
        assert_eq!(finite, 2 * 31 * 1024);
    }
}
