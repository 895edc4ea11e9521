//! Loops that stay loops.

/// As the first statement of a loop's body: on Cortex-M the compiler does not vectorise the loop, nor makes a call of it. It is no instruction. For loops
/// that run once a layer or a load, where code counts more than time.
#[inline(always)]
pub(crate) fn rolled() {
    #[cfg(target_arch = "arm")]
    core::hint::black_box(());
}

/// A value of which the compiler knows nothing: a slice or a count whose loop it would write out, or a condition that it would write two loops for.
/// Other compilations know it.
#[inline(always)]
pub(crate) fn unknown<T>(value: T) -> T {
    #[cfg(target_arch = "arm")]
    let value = core::hint::black_box(value);
    value
}
