//! Loops that stay loops.

/// As the first statement of a loop's body: on Cortex-M the compiler neither unrolls the loop nor makes a call of it. It is no instruction. For loops
/// that run once a layer or a load, where code counts more than time.
#[inline(always)]
pub(crate) fn rolled() {
    #[cfg(target_arch = "arm")]
    core::hint::black_box(());
}
