//! Whether the core has the DSP extension.

/// Armv7E-M always has it.
#[cfg(tucano_profile = "v7em")]
pub fn has_dsp() -> bool {
    true
}

/// On Armv8-M it is optional: field `SIMD` of `ID_ISAR3` is 3 with it, 1 without.
#[cfg(tucano_profile = "v8m")]
pub fn has_dsp() -> bool {
    const ID_ISAR3: usize = 0xE000_ED6C;
    // SAFETY: Armv8-M with the main extension has this register at this address, readable as a word without effects.
    let features = unsafe { core::ptr::with_exposed_provenance::<u32>(ID_ISAR3).read_volatile() };
    features >> 4 & 0xF == 3
}
