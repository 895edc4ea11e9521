//! Kernels for vectors of floats: products are added without being rounded.

use core::arch::naked_asm;

use crate::backend::float::{Frame, Kernels};

/// The kernels, if the core's vectors hold floats: the field `MVE` of `MVFR1` is 2 then.
pub fn kernels() -> Option<&'static Kernels> {
    const FEATURES: *const u32 = 0xE000_EF44 as *const u32;
    // SAFETY: MVFR1, a read-only register of every core of the profile that this is built for.
    let features = unsafe { FEATURES.read_volatile() };
    (features >> 8 & 0xF == 2).then_some(&KERNELS)
}

const KERNELS: Kernels = Kernels { dots, channels, lanes: 4 };

/// The sum of four lanes, in the first.
macro_rules! across {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "vadd.f32 ",
            $a,
            ", ",
            $a,
            ", ",
            $b,
            "\n vadd.f32 ",
            $c,
            ", ",
            $c,
            ", ",
            $d,
            "\n vadd.f32 ",
            $a,
            ", ",
            $a,
            ", ",
            $c,
            "\n",
        )
    };
}

/// Brings `$y` between the bounds, s24 and s25; what is no number stays.
macro_rules! bound {
    ($y:literal) => {
        concat!(
            "vcmp.f32 ",
            $y,
            ", s24\n vmrs APSR_nzcv, FPSCR\n it mi\n vmovmi.f32 ",
            $y,
            ", s24\n",
            "vcmp.f32 ",
            $y,
            ", s25\n vmrs APSR_nzcv, FPSCR\n it gt\n vmovgt.f32 ",
            $y,
            ", s25\n",
        )
    };
}

/// Inner products, as [`Kernels::dots`] says, four outputs at a time, the rest one by one.
///
/// Reads inputs, weights, bias; writes the outputs. Roles: r0 inputs; r1 to r4 weights of four outputs; r5 elements of a row; r6 rows left; r7 frame; r8 outputs
/// left; r9 weights of the first output; r10 outputs; r11 bias; r12 gap of inputs; q0 to q3 sums; q4 inputs; q5 weights; s24, s25 bounds.
///
/// # Safety
/// The frame's pointers reach as far as its counts say, which are at least one.
#[unsafe(naked)]
unsafe extern "C" fn dots(frame: &Frame) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "sub sp, #4",
        "vpush {{d8-d12}}",
        "mov r7, r0",
        "ldr r5, [r7, #12]",
        "ldr r9, [r7, #4]",
        "ldr r12, [r7, #16]",
        "ldr r10, [r7, #28]",
        "ldr r11, [r7, #32]",
        "ldr r8, [r7, #36]",
        "vldr s24, [r7, #40]",
        "vldr s25, [r7, #44]",
        // Outputs.
        "1:",
        "ldr r0, [r7, #24]",
        "cmp r8, #4",
        "it lo",
        "movlo r0, #0",
        "mov r1, r9",
        "add r2, r1, r0",
        "add r3, r2, r0",
        "add r4, r3, r0",
        "vmov.i32 q0, #0",
        "vmov.i32 q1, #0",
        "vmov.i32 q2, #0",
        "vmov.i32 q3, #0",
        "ldr r0, [r7]",
        "ldr r6, [r7, #8]",
        // Rows.
        "2:",
        "dlstp.32 lr, r5",
        "3:",
        "vldrw.u32 q4, [r0], #16",
        "vldrw.u32 q5, [r1], #16",
        "vfma.f32 q0, q4, q5",
        "vldrw.u32 q5, [r2], #16",
        "vfma.f32 q1, q4, q5",
        "vldrw.u32 q5, [r3], #16",
        "vfma.f32 q2, q4, q5",
        "vldrw.u32 q5, [r4], #16",
        "vfma.f32 q3, q4, q5",
        "letp lr, 3b",
        "ldr lr, [r7, #20]",
        "add r0, r12",
        "add r1, lr",
        "add r2, lr",
        "add r3, lr",
        "add r4, lr",
        "subs r6, #1",
        "bne 2b",
        across!("s0", "s1", "s2", "s3"),
        "ldr r0, [r7, #24]",
        "cmp r8, #4",
        "blo 7f",
        across!("s4", "s5", "s6", "s7"),
        across!("s8", "s9", "s10", "s11"),
        across!("s12", "s13", "s14", "s15"),
        "vmov.f32 s1, s4",
        "vmov.f32 s2, s8",
        "vmov.f32 s3, s12",
        "vldmia r11!, {{s4-s7}}",
        "vadd.f32 q0, q0, q1",
        bound!("s0"),
        bound!("s1"),
        bound!("s2"),
        bound!("s3"),
        "vstmia r10!, {{s0-s3}}",
        "add r9, r9, r0, lsl #2",
        "subs r8, #4",
        "bne 1b",
        "b 8f",
        // The first of four times the same.
        "7:",
        "vldmia r11!, {{s4}}",
        "vadd.f32 s0, s0, s4",
        bound!("s0"),
        "vstmia r10!, {{s0}}",
        "add r9, r0",
        "subs r8, #1",
        "bne 1b",
        "8:",
        "vpop {{d8-d12}}",
        "add sp, #4",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}

/// A depthwise convolution's window, as [`Kernels::channels`] says, four channels at a time.
///
/// Reads inputs, weights, bias; writes the outputs. Roles: r0 inputs; r1 weights; r2 channels left; r3 rows left; r4 frame; r5 taps of a row; r6, r7 gaps; r8
/// bytes between the weights of taps; r9 bytes between inputs of taps; r10 outputs; r11 bias; r12 first channel in bytes; r14 taps left; q0 sums; q1
/// inputs; q2 weights; q3 bound.
///
/// # Safety
/// The frame's pointers reach as far as its counts say, which are at least one.
#[unsafe(naked)]
unsafe extern "C" fn channels(frame: &Frame) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "mov r4, r0",
        "ldr r5, [r4, #12]",
        "ldr r6, [r4, #16]",
        "ldr r7, [r4, #20]",
        "ldr r9, [r4, #24]",
        "ldr r10, [r4, #28]",
        "ldr r11, [r4, #32]",
        "ldr r2, [r4, #36]",
        "lsl r8, r2, #2",
        "movs r12, #0",
        // Channels.
        "1:",
        "vctp.32 r2",
        "ldr r0, [r4]",
        "add r0, r12",
        "ldr r1, [r4, #4]",
        "add r1, r12",
        "vmov.i32 q0, #0",
        "ldr r3, [r4, #8]",
        // Rows.
        "2:",
        "dls lr, r5",
        "3:",
        "vpstt",
        "vldrwt.u32 q1, [r0]",
        "vldrwt.u32 q2, [r1]",
        "vfma.f32 q0, q1, q2",
        "add r0, r9",
        "add r1, r8",
        "le lr, 3b",
        "add r0, r6",
        "add r1, r7",
        "subs r3, #1",
        "bne 2b",
        "vpst",
        "vldrwt.u32 q1, [r11], #16",
        "vadd.f32 q0, q0, q1",
        "ldr r0, [r4, #40]",
        "ldr r1, [r4, #44]",
        "vdup.32 q3, r0",
        "vcmp.f32 gt, q3, q0",
        "vpsel q0, q3, q0",
        "vdup.32 q3, r1",
        "vcmp.f32 lt, q3, q0",
        "vpsel q0, q3, q0",
        "vctp.32 r2",
        "vpst",
        "vstrwt.32 q0, [r10], #16",
        "add r12, #16",
        "subs r2, #4",
        "bgt 1b",
        "pop {{r4-r11, pc}}",
        ".cpu cortex-m33",
    )
}
