//! Kernels for the floating-point unit: products are added without being rounded.

use core::arch::naked_asm;

use crate::backend::float::{Frame, Kernels};

pub const KERNELS: Kernels = Kernels { dots, channels, lanes: 1 };

/// Products of input `$x` and the weights of four outputs.
macro_rules! four {
    ($x:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "vfma.f32 s0, ",
            $x,
            ", ",
            $a,
            "\n vfma.f32 s1, ",
            $x,
            ", ",
            $b,
            "\n vfma.f32 s2, ",
            $x,
            ", ",
            $c,
            "\n vfma.f32 s3, ",
            $x,
            ", ",
            $d,
            "\n",
        )
    };
}

/// Brings `$y` between the bounds, s28 and s29; what is no number stays.
macro_rules! clamp {
    ($y:literal) => {
        concat!(
            "vcmp.f32 ",
            $y,
            ", s28\n vmrs APSR_nzcv, FPSCR\n it mi\n vmovmi.f32 ",
            $y,
            ", s28\n",
            "vcmp.f32 ",
            $y,
            ", s29\n vmrs APSR_nzcv, FPSCR\n it gt\n vmovgt.f32 ",
            $y,
            ", s29\n",
        )
    };
}

/// Inner products, as [`Kernels::dots`] says, four outputs at a time, the rest one by one.
///
/// Reads inputs, weights, bias; writes the outputs. Roles: r0 inputs; r1 to r4 weights of four outputs; r5 what is left of a row; r6 rows left; r7 frame; r8
/// outputs left; r9 weights of the first output; r10 outputs; r11 bias; r12, r14 gaps; s0 to s3 sums; s4 to s7 inputs; s8 to s23 weights; s28, s29 bounds.
///
/// # Safety
/// The frame's pointers reach as far as its counts say, which are at least one.
#[unsafe(naked)]
unsafe extern "C" fn dots(frame: &Frame) {
    naked_asm!(
        // What links several crates into one does not tell the assembler that the target has it.
        ".fpu fpv4-sp-d16",
        "push {{r4-r11, lr}}",
        "vpush {{s16-s29}}",
        "sub sp, #4",
        "mov r7, r0",
        "ldr r9, [r7, #4]",
        "ldr r12, [r7, #16]",
        "ldr r14, [r7, #20]",
        "ldr r10, [r7, #28]",
        "ldr r11, [r7, #32]",
        "ldr r8, [r7, #36]",
        "vldr s28, [r7, #40]",
        "vldr s29, [r7, #44]",
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
        "movs r0, #0",
        "vmov s0, r0",
        "vmov s1, r0",
        "vmov s2, r0",
        "vmov s3, r0",
        "ldr r0, [r7]",
        "ldr r6, [r7, #8]",
        // Rows.
        "2:",
        "ldr r5, [r7, #12]",
        "subs r5, #4",
        "blo 4f",
        "3:",
        "vldmia r0!, {{s4-s7}}",
        "vldmia r1!, {{s8-s11}}",
        "vldmia r2!, {{s12-s15}}",
        "vldmia r3!, {{s16-s19}}",
        "vldmia r4!, {{s20-s23}}",
        four!("s4", "s8", "s12", "s16", "s20"),
        four!("s5", "s9", "s13", "s17", "s21"),
        four!("s6", "s10", "s14", "s18", "s22"),
        four!("s7", "s11", "s15", "s19", "s23"),
        "subs r5, #4",
        "bhs 3b",
        "4:",
        "adds r5, #4",
        "beq 6f",
        "5:",
        "vldmia r0!, {{s4}}",
        "vldmia r1!, {{s8}}",
        "vldmia r2!, {{s12}}",
        "vldmia r3!, {{s16}}",
        "vldmia r4!, {{s20}}",
        four!("s4", "s8", "s12", "s16", "s20"),
        "subs r5, #1",
        "bne 5b",
        "6:",
        "add r0, r12",
        "add r1, r14",
        "add r2, r14",
        "add r3, r14",
        "add r4, r14",
        "subs r6, #1",
        "bne 2b",
        "ldr r0, [r7, #24]",
        "cmp r8, #4",
        "blo 7f",
        "vldmia r11!, {{s4-s7}}",
        "vadd.f32 s0, s0, s4",
        "vadd.f32 s1, s1, s5",
        "vadd.f32 s2, s2, s6",
        "vadd.f32 s3, s3, s7",
        clamp!("s0"),
        clamp!("s1"),
        clamp!("s2"),
        clamp!("s3"),
        "vstmia r10!, {{s0-s3}}",
        "add r9, r9, r0, lsl #2",
        "subs r8, #4",
        "bne 1b",
        "b 8f",
        // The first of four times the same.
        "7:",
        "vldmia r11!, {{s4}}",
        "vadd.f32 s0, s0, s4",
        clamp!("s0"),
        "vstmia r10!, {{s0}}",
        "add r9, r0",
        "subs r8, #1",
        "bne 1b",
        "8:",
        "add sp, #4",
        "vpop {{s16-s29}}",
        "pop {{r4-r11, pc}}",
    )
}

/// A depthwise convolution's window, as [`Kernels::channels`] says, eight channels at a time, the rest one by one.
///
/// Reads inputs, weights, bias; writes the outputs. Roles: r0 inputs; r1 weights; r2 taps left of a row; r3 rows left; r4 frame; r5 channels left; r6, r7 gaps;
/// r8 bytes between the weights of taps; r9 bytes between inputs of taps; r10 outputs; r11 bias; r12 first channel in bytes; s0 to s7 sums; s8 to s15
/// inputs; s16 to s23 weights; s28, s29 bounds.
///
/// # Safety
/// The frame's pointers reach as far as its counts say, which are at least one.
#[unsafe(naked)]
unsafe extern "C" fn channels(frame: &Frame) {
    naked_asm!(
        // What links several crates into one does not tell the assembler that the target has it.
        ".fpu fpv4-sp-d16",
        "push {{r4-r11, lr}}",
        "vpush {{s16-s29}}",
        "sub sp, #4",
        "mov r4, r0",
        "ldr r6, [r4, #16]",
        "ldr r7, [r4, #20]",
        "ldr r9, [r4, #24]",
        "ldr r10, [r4, #28]",
        "ldr r11, [r4, #32]",
        "ldr r5, [r4, #36]",
        "lsl r8, r5, #2",
        "vldr s28, [r4, #40]",
        "vldr s29, [r4, #44]",
        "movs r12, #0",
        // Channels.
        "1:",
        "ldr r0, [r4]",
        "add r0, r12",
        "ldr r1, [r4, #4]",
        "add r1, r12",
        "movs r2, #0",
        "vmov s0, r2",
        "ldr r3, [r4, #8]",
        "cmp r5, #8",
        "blo 5f",
        "vmov s1, r2",
        "vmov s2, r2",
        "vmov s3, r2",
        "vmov s4, r2",
        "vmov s5, r2",
        "vmov s6, r2",
        "vmov s7, r2",
        // Rows.
        "2:",
        "ldr r2, [r4, #12]",
        "3:",
        "vldmia r0, {{s8-s15}}",
        "vldmia r1, {{s16-s23}}",
        "add r0, r9",
        "add r1, r8",
        "vfma.f32 s0, s8, s16",
        "vfma.f32 s1, s9, s17",
        "vfma.f32 s2, s10, s18",
        "vfma.f32 s3, s11, s19",
        "vfma.f32 s4, s12, s20",
        "vfma.f32 s5, s13, s21",
        "vfma.f32 s6, s14, s22",
        "vfma.f32 s7, s15, s23",
        "subs r2, #1",
        "bne 3b",
        "add r0, r6",
        "add r1, r7",
        "subs r3, #1",
        "bne 2b",
        "vldmia r11!, {{s8-s15}}",
        "vadd.f32 s0, s0, s8",
        "vadd.f32 s1, s1, s9",
        "vadd.f32 s2, s2, s10",
        "vadd.f32 s3, s3, s11",
        "vadd.f32 s4, s4, s12",
        "vadd.f32 s5, s5, s13",
        "vadd.f32 s6, s6, s14",
        "vadd.f32 s7, s7, s15",
        clamp!("s0"),
        clamp!("s1"),
        clamp!("s2"),
        clamp!("s3"),
        clamp!("s4"),
        clamp!("s5"),
        clamp!("s6"),
        clamp!("s7"),
        "vstmia r10!, {{s0-s7}}",
        "add r12, #32",
        "subs r5, #8",
        "bne.w 1b",
        "b 8f",
        // One channel: rows.
        "5:",
        "ldr r2, [r4, #12]",
        "6:",
        "vldr s8, [r0]",
        "vldr s16, [r1]",
        "add r0, r9",
        "add r1, r8",
        "vfma.f32 s0, s8, s16",
        "subs r2, #1",
        "bne 6b",
        "add r0, r6",
        "add r1, r7",
        "subs r3, #1",
        "bne 5b",
        "vldmia r11!, {{s8}}",
        "vadd.f32 s0, s0, s8",
        clamp!("s0"),
        "vstmia r10!, {{s0}}",
        "add r12, #4",
        "subs r5, #1",
        "bne.w 1b",
        "8:",
        "add sp, #4",
        "vpop {{s16-s29}}",
        "pop {{r4-r11, pc}}",
    )
}
