//! Text that assembly functions share.

/// Lets the assembler take instructions of the DSP extension; Armv7E-M has them anyway.
#[cfg(tucano_profile = "v7em")]
macro_rules! dsp_on {
    () => {
        ""
    };
}
/// Ends what `dsp_on` began.
#[cfg(tucano_profile = "v7em")]
macro_rules! dsp_off {
    () => {
        ""
    };
}
/// Lets the assembler take instructions of the DSP extension, which the target does not assume.
#[cfg(tucano_profile = "v8m")]
macro_rules! dsp_on {
    () => {
        ".cpu cortex-m33"
    };
}
/// Ends what `dsp_on` began.
#[cfg(tucano_profile = "v8m")]
macro_rules! dsp_off {
    () => {
        ".arch armv8-m.main"
    };
}
pub(in crate::backend) use {dsp_off, dsp_on};
