//! What [`super::depthwise3`] calculates on: rows and weights, transposed so that the taps of a channel lie side by side.

use core::arch::naked_asm;

/// What [`transpose`] is told.
#[repr(C)]
pub struct Rows {
    /// Four rows.
    pub from: [*const u8; 4],
    /// Bytes that each moves on after a vector.
    pub step: [usize; 4],
    /// Bytes of a vector, at most 16.
    pub bytes: usize,
    /// Bytes of one more vector; 0: none.
    pub last: usize,
    /// Vectors without that.
    pub count: usize,
    /// Bytes from where a vector of four rows goes to where the next does, at most 64.
    pub to_step: usize,
}

/// Interleaves vectors of four rows: byte `i` of row `r` goes to byte `4 * i + r`, and vectors to `to_step` bytes each. Bytes beyond those of a vector become 0.
///
/// # Safety
/// Every row is readable at `step * v` over the bytes of vector `v`; `to` is writable over 64 bytes from each step on.
#[unsafe(naked)]
pub unsafe extern "C" fn transpose(to: *mut u8, rows: *const Rows) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "ldm r1, {{r1-r12}}",
        "vctp.8 r9",
        "wls lr, r11, 2f",
        "1:",
        "vpstttt",
        "vldrbt.u8 q0, [r1]",
        "vldrbt.u8 q1, [r2]",
        "vldrbt.u8 q2, [r3]",
        "vldrbt.u8 q3, [r4]",
        "add r1, r5",
        "add r2, r6",
        "add r3, r7",
        "add r4, r8",
        "vst40.8 {{q0, q1, q2, q3}}, [r0]",
        "vst41.8 {{q0, q1, q2, q3}}, [r0]",
        "vst42.8 {{q0, q1, q2, q3}}, [r0]",
        "vst43.8 {{q0, q1, q2, q3}}, [r0]",
        "add r0, r12",
        "le lr, 1b",
        "2:",
        "cmp r10, #0",
        "beq 3f",
        "vctp.8 r10",
        "mov r10, #0",
        "mov r11, #1",
        "dls lr, r11",
        "b 1b",
        "3:",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// Copies the first `bytes` of each of `count` vectors, `step` bytes apart, to vectors side by side.
///
/// # Safety
/// `from` is readable over `bytes`, at most 16, at each step, `to` writable over all vectors. There is at least one.
#[unsafe(naked)]
pub unsafe extern "C" fn copy_columns(to: *mut u8, from: *const u8, step: usize, count: usize, bytes: usize) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "ldr r7, [sp, #8]",
        "vctp.8 r7",
        "dls lr, r3",
        "1:",
        "vpst",
        "vldrbt.u8 q0, [r1]",
        "add r1, r2",
        "vstrb.8 q0, [r0], #16",
        "le lr, 1b",
        "pop {{r7, pc}}",
        ".cpu cortex-m33",
    )
}

/// Takes the weights of up to 16 channels, `step` bytes from one tap to the next, to 16 bytes for each channel, `4 * column + row`.
///
/// # Safety
/// `from` is readable over `channels` bytes at each of `rows * columns` steps, `to` writable over 256 bytes; those that get no weight stay. Rows and columns are 1 to 4.
#[unsafe(naked)]
pub unsafe extern "C" fn weights_by_channel(
    to: *mut u8,
    from: *const i8,
    step: usize,
    channels: usize,
    rows: usize,
    columns: usize,
) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r6, r7, r8, lr}}",
        "ldrd r7, r8, [sp, #16]",
        "vctp.8 r3",
        "movs r12, #0",
        "vidup.u8 q1, r12, #1",
        "vshl.i8 q1, q1, #4",
        "1:",
        "mov r6, r0",
        "dls lr, r8",
        "2:",
        "vpstt",
        "vldrbt.u8 q0, [r1]",
        "vstrbt.8 q0, [r6, q1]",
        "add r1, r2",
        "adds r6, #4",
        "le lr, 2b",
        "adds r0, #1",
        "subs r7, #1",
        "bne 1b",
        "pop {{r6, r7, r8, pc}}",
        ".cpu cortex-m33",
    )
}
