//! Copies, fills and scans in vectors.

use core::arch::naked_asm;

/// Copies `bytes` bytes from `from` to `to`.
///
/// # Safety
/// `from` is readable and `to` writable over `bytes` bytes, and they do not overlap.
#[unsafe(naked)]
unsafe extern "C" fn copy_bytes(to: *mut u8, from: *const u8, bytes: usize) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "wlstp.8 lr, r2, 2f",
        "1:",
        "vldrb.u8 q0, [r1], #16",
        "vstrb.8 q0, [r0], #16",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// Sets `bytes` bytes at `to` to the low byte of `value`.
///
/// # Safety
/// `to` is writable over `bytes` bytes.
#[unsafe(naked)]
unsafe extern "C" fn fill_bytes(to: *mut u8, value: u32, bytes: usize) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "vdup.8 q0, r1",
        "wlstp.8 lr, r2, 2f",
        "1:",
        "vstrb.8 q0, [r0], #16",
        "letp lr, 1b",
        "2:",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// The greatest of `count` integers, of which it reads the least byte; -128 if there are none.
///
/// # Safety
/// `values` is readable over `count` integers.
#[unsafe(naked)]
unsafe extern "C" fn greatest_of(values: *const i32, count: usize) -> i32 {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "movs r2, #0",
        "vidup.u8 q1, r2, #4",
        "mvn r2, #127",
        "wlstp.8 lr, r1, 2f",
        "1:",
        "vldrb.u8 q0, [r0, q1]",
        "adds r0, #64",
        "vmaxv.s8 r2, q0",
        "letp lr, 1b",
        "2:",
        "mov r0, r2",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// Copies as many bytes as the shorter slice has.
#[inline]
pub fn copy(to: &mut [u8], from: &[u8]) {
    // SAFETY: both slices have at least the bytes that are copied, and one of them is exclusive.
    unsafe { copy_bytes(to.as_mut_ptr(), from.as_ptr(), to.len().min(from.len())) }
}

/// Sets all bytes.
#[inline]
pub fn fill(to: &mut [u8], value: u8) {
    // SAFETY: the slice is exclusive, and as long as is said.
    unsafe { fill_bytes(to.as_mut_ptr(), value.into(), to.len()) }
}

/// The greatest of a layer's shifts, which a byte holds; -128 if there are none.
#[inline]
pub fn greatest_shift(shifts: &[i32]) -> i32 {
    // SAFETY: the slice is as long as is said.
    unsafe { greatest_of(shifts.as_ptr(), shifts.len()) }
}
