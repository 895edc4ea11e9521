//! Requantisation of the sums of four outputs, a position in each lane of a vector, so that an output's constants are scalars.
//!
//! It equals [`crate::quant::requantize`] and the clamp of [`Integer::finish`](crate::ops::linear::Integer::finish):
//! - `VQRDMULH` is the doubling high multiplication. It saturates only for two least numbers, and multipliers are not negative. `VQRDMLAH` adds
//!   the product to a vector.
//! - `VRSHL` by a negative count adds half and shifts, so halves go up. Away from zero they go once a negative number has been decremented before, for
//!   `(x + half - 1) >> e` is the floor wanted; nothing may be subtracted where the count is 0. With a lower bound at the zero point
//!   the result of a negative number is that bound in either way.
//! - A shift to the left comes first, modulo 2^32, by `VSHL`.

use core::arch::naked_asm;

use super::Frame;

/// The function `$name`, for layers from -128 to 127 whose shifts are negative, and four outputs that lie on a word. `$multiply` are the products with the multipliers
/// of q0 to q3 into `$products`.
///
/// Registers: r0 sums, r1 from a group of positions to the next, r2 zero point, r3 to r6 bias, r7, r8, r11, r12 multipliers, r9, r10, q6, q7 shifts; q5 places.
/// An output's sums of four positions are a vector; bytes of the four outputs come together by narrowing.
macro_rules! whole {
    ($(#[$doc:meta])* $name:ident, [$($multiply:literal),*], [$p0:literal, $p1:literal, $p2:literal, $p3:literal]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by [`super::quads`] alone, whose stack frame it reads and writes.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "str lr, [sp, #56]",
                "ldr r0, [sp, #72]",
                "ldm r0!, {{r9-r12}}",
                "str r0, [sp, #72]",
                "vdup.32 q6, r11",
                "vdup.32 q7, r12",
                "ldrd r0, r1, [sp, #64]",
                "ldm r0!, {{r3-r6}}",
                "ldm r1!, {{r7, r8, r11, r12}}",
                "strd r0, r1, [sp, #64]",
                "movs r0, #0",
                "vidup.u32 q5, r0, #1",
                "ldrd r2, r1, [sp, #76]",
                "vmul.i32 q5, q5, r1",
                "vadd.i32 q5, q5, r2",
                "adds r2, #4",
                "str r2, [sp, #76]",
                "lsls r1, r1, #2",
                "ldr r0, [sp, #24]",
                "dls lr, r0",
                "ldr r0, [sp, #8]",
                "ldr r2, [sp, #88]",
                "1:",
                "vld40.32 {{q0, q1, q2, q3}}, [r0]",
                "vld41.32 {{q0, q1, q2, q3}}, [r0]",
                "vld42.32 {{q0, q1, q2, q3}}, [r0]",
                "vld43.32 {{q0, q1, q2, q3}}, [r0]!",
                "vadd.i32 q0, q0, r3",
                "vadd.i32 q1, q1, r4",
                "vadd.i32 q2, q2, r5",
                "vadd.i32 q3, q3, r6",
                $($multiply,)*
                concat!("vrshl.s32 ", $p0, ", r9"),
                concat!("vrshl.s32 ", $p1, ", r10"),
                concat!("vrshl.s32 ", $p2, ", ", $p2, ", q6"),
                concat!("vrshl.s32 ", $p3, ", ", $p3, ", q7"),
                concat!("vqmovnb.s32 ", $p0, ", ", $p0),
                concat!("vqmovnb.s32 ", $p1, ", ", $p1),
                concat!("vqmovnt.s32 ", $p0, ", ", $p2),
                concat!("vqmovnt.s32 ", $p1, ", ", $p3),
                concat!("vqadd.s16 ", $p0, ", ", $p0, ", r2"),
                concat!("vqadd.s16 ", $p1, ", ", $p1, ", r2"),
                concat!("vqmovnb.s16 ", $p0, ", ", $p0),
                concat!("vqmovnt.s16 ", $p0, ", ", $p1),
                concat!("vstrw.32 ", $p0, ", [q5]"),
                "vadd.i32 q5, q5, r1",
                "le lr, 1b",
                "ldr pc, [sp, #56]",
                ".cpu cortex-m33",
            )
        }
    };
}

whole!(
    /// With a lower bound at the zero point.
    relu,
    [
        "vqrdmulh.s32 q0, q0, r7",
        "vqrdmulh.s32 q1, q1, r8",
        "vqrdmulh.s32 q2, q2, r11",
        "vqrdmulh.s32 q3, q3, r12"
    ],
    ["q0", "q1", "q2", "q3"]
);
whole!(
    /// With any zero point.
    linear,
    [
        "vshr.s32 q4, q0, #31",
        "vqrdmlah.s32 q4, q0, r7",
        "vshr.s32 q0, q1, #31",
        "vqrdmlah.s32 q0, q1, r8",
        "vshr.s32 q1, q2, #31",
        "vqrdmlah.s32 q1, q2, r11",
        "vshr.s32 q2, q3, #31",
        "vqrdmlah.s32 q2, q3, r12"
    ],
    ["q4", "q0", "q1", "q2"]
);

/// The function `$name`, for any layer and at most four outputs that lie anywhere: one after the other. `$store` stores the low part of each lane, of `$size` bytes.
///
/// Registers: r0 sums, r1 from a group of positions to the next, r2 zero point, r3 bias, r4 multiplier, r6 shift to the left, r7 to the right, r8 shift of signs,
/// which leaves none of them where there is no shift to the right, r9 the output's first sum, r10 its first place, r11 outputs that are left, r12 place;
/// q4 and q5 offsets of four positions in sums and output, q6 and q7 bounds.
macro_rules! any {
    ($(#[$doc:meta])* $name:ident, $store:literal, $size:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by [`super::quads`] alone, whose stack frame it reads and writes.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "str lr, [sp, #56]",
                "movs r0, #0",
                "vidup.u32 q5, r0, #1",
                "vshl.i32 q4, q5, #4",
                "ldrd r10, r1, [sp, #76]",
                "vmul.i32 q5, q5, r1",
                "lsls r1, r1, #2",
                "ldr r11, [sp, #84]",
                "cmp r11, #4",
                "it hi",
                "movhi r11, #4",
                "ldrd r2, r0, [sp, #88]",
                "vdup.32 q6, r0",
                "ldr r0, [sp, #96]",
                "vdup.32 q7, r0",
                "ldr r9, [sp, #8]",
                "1:",
                "ldrd r0, r5, [sp, #64]",
                "ldr r3, [r0], #4",
                "ldr r4, [r5], #4",
                "strd r0, r5, [sp, #64]",
                "ldr r0, [sp, #72]",
                "ldr r5, [r0], #4",
                "str r0, [sp, #72]",
                "bic r6, r5, r5, asr #31",
                "and r7, r5, r5, asr #31",
                "mvn r8, r5, asr #31",
                "and r8, r8, #32",
                "ldr r0, [sp, #24]",
                "dls lr, r0",
                "mov r0, r9",
                "mov r12, r10",
                "2:",
                "vldrw.u32 q0, [r0, q4]",
                "adds r0, #64",
                "vadd.i32 q0, q0, r3",
                "vshl.s32 q0, r6",
                "vshr.s32 q1, q0, #31",
                "vshl.s32 q1, r8",
                "vqrdmlah.s32 q1, q0, r4",
                "vrshl.s32 q1, r7",
                "vadd.i32 q1, q1, r2",
                "vmax.s32 q1, q1, q6",
                "vmin.s32 q1, q1, q7",
                concat!($store, ".32 q1, [r12, q5]"),
                "add r12, r1",
                "le lr, 2b",
                "adds.w r9, r9, #4",
                concat!("adds.w r10, r10, #", $size),
                "subs.w r11, r11, #1",
                "bne 1b",
                "str r10, [sp, #76]",
                "ldr pc, [sp, #56]",
                ".cpu cortex-m33",
            )
        }
    };
}

any!(
    /// To 8 bits.
    bytes, "vstrb", "1"
);
any!(
    /// To 16 bits.
    halfwords, "vstrh", "2"
);
