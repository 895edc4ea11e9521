//! Sums of products of four outputs, for groups of four positions: `[position][output]`, 32 bits each.
//!
//! They live in the even registers r0 to r14: the first position's in r0 to r6, the second one's in r8 to r14. That leaves no register for the hardware's loop counter;
//! loops over blocks are unrolled to rounds of several blocks and entered in the middle.

use core::arch::naked_asm;

use super::Frame;

/// Sixteen elements of two positions (r3, r5) and of four outputs' weights, 8 bits. `first` sets the sums, with weights that `keep` has loaded into q4 to q7, `later` adds
/// to them, with weights at r1: 14 instructions of 4 bytes.
macro_rules! block_8 {
    (bytes) => {
        "56"
    };
    (round) => {
        concat!(
            block_8!(later),
            block_8!(later),
            block_8!(later),
            block_8!(later),
            block_8!(later),
            block_8!(later),
            block_8!(later),
            block_8!(later)
        )
    };
    (blocks) => {
        "8"
    };
    (log) => {
        "3"
    };
    (kept) => {
        "64"
    };
    (keep) => {
        concat!(
            "vldrb.u8 q4, [r1], #16\n",
            "vldrb.u8 q5, [r1], #16\n",
            "vldrb.u8 q6, [r1], #16\n",
            "vldrb.u8 q7, [r1], #16\n",
            "str r1, [sp, #4]\n",
        )
    };
    (first) => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            "vldrb.u8 q1, [r5], #16\n",
            "vmladav.s8 r0, q0, q4\n",
            "vmladav.s8 r2, q0, q5\n",
            "vmladav.s8 r4, q0, q6\n",
            "vmladav.s8 r6, q0, q7\n",
            "vmladav.s8 r8, q1, q4\n",
            "vmladav.s8 r10, q1, q5\n",
            "vmladav.s8 r12, q1, q6\n",
            "vmladav.s8 r14, q1, q7\n",
        )
    };
    (later) => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            "vldrb.u8 q2, [r1], #16\n",
            "vmladava.s8 r0, q0, q2\n",
            "vldrb.u8 q1, [r5], #16\n",
            "vmladava.s8 r8, q1, q2\n",
            "vldrb.u8 q3, [r1], #16\n",
            "vmladava.s8 r2, q0, q3\n",
            "vldrb.u8 q2, [r1], #16\n",
            "vmladava.s8 r10, q1, q3\n",
            "vmladava.s8 r4, q0, q2\n",
            "vldrb.u8 q3, [r1], #16\n",
            "vmladava.s8 r12, q1, q2\n",
            "vmladava.s8 r6, q0, q3\n",
            "vmladava.s8 r14, q1, q3\n",
        )
    };
}

/// Like [`block_8`] with positions of 16 bits, in two halves, the second first, and no weights kept: 28 instructions of 4 bytes.
macro_rules! block_16 {
    (bytes) => {
        "112"
    };
    (round) => {
        concat!(block_16!(later), block_16!(later), block_16!(later), block_16!(later))
    };
    (blocks) => {
        "4"
    };
    (log) => {
        "2"
    };
    (kept) => {
        "0"
    };
    (keep) => {
        ""
    };
    (first) => {
        block_16!("vmladav")
    };
    (later) => {
        block_16!("vmladava")
    };
    ($first:literal) => {
        concat!(
            "vldrh.u16 q0, [r3, #16]\n",
            "vldrh.u16 q1, [r5, #16]\n",
            "vldrb.s16 q2, [r1, #8]\n",
            $first,
            ".s16 r0, q0, q2\n",
            "vldrb.s16 q3, [r1, #24]\n",
            $first,
            ".s16 r8, q1, q2\n",
            "vldrb.s16 q4, [r1, #40]\n",
            $first,
            ".s16 r2, q0, q3\n",
            $first,
            ".s16 r10, q1, q3\n",
            "vldrb.s16 q2, [r1, #56]\n",
            $first,
            ".s16 r4, q0, q4\n",
            $first,
            ".s16 r12, q1, q4\n",
            $first,
            ".s16 r6, q0, q2\n",
            $first,
            ".s16 r14, q1, q2\n",
            "vldrh.u16 q0, [r3], #32\n",
            "vldrh.u16 q1, [r5], #32\n",
            "vldrb.s16 q3, [r1, #16]\n",
            "vmladava.s16 r2, q0, q3\n",
            "vldrb.s16 q4, [r1, #32]\n",
            "vmladava.s16 r10, q1, q3\n",
            "vldrb.s16 q2, [r1, #48]\n",
            "vmladava.s16 r4, q0, q4\n",
            "vmladava.s16 r12, q1, q4\n",
            "vldrb.s16 q3, [r1], #64\n",
            "vmladava.s16 r6, q0, q2\n",
            "vmladava.s16 r14, q1, q2\n",
            "vmladava.s16 r0, q0, q3\n",
            "vmladava.s16 r8, q1, q3\n",
        )
    };
}

/// Stores the sums of two positions, and goes on to the next two: r3 and r5 their inputs, r1 the weights; whether sums are left in the flags.
macro_rules! stored {
    () => {
        "
        stm     r7!, {{r0, r2, r4, r6, r8, r10, r12, lr}}
        ldrd    r0, r1, [sp, #0]
        add     r3, r0
        add     r5, r0
        ldr     r2, [sp, #12]
        cmp     r7, r2
        "
    };
}

/// The function `$name`: all blocks of all segments, two positions at a time. From its second call on it starts behind the preparation of loops, at label 1.
///
/// Registers: r1 weights, r3 and r5 inputs of both positions, r7 place of the sums, r9 segments that are left, r11 rounds that are left. Weights of the first block may
/// be kept.
macro_rules! blocks_sums {
    ($(#[$doc:meta])* $name:ident, $block:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by [`super::quads`] alone, whose stack frame it reads and writes.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                // Rounds of blocks, and the entry that makes the first of them short.
                "ldr r0, [sp, #48]",
                "adr.w r1, 3f",
                "adr.w r3, 4f",
                concat!("adds r2, r0, #", $block!(blocks), " - 1"),
                concat!("lsrs r2, r2, #", $block!(log)),
                "str r2, [sp, #28]",
                concat!("lsls r4, r2, #", $block!(log)),
                "subs r4, r4, r0",
                concat!("movs r5, #", $block!(bytes)),
                "mla r1, r4, r5, r1",
                "ldr r9, [sp, #44]",
                "cmp r9, #1",
                "it ne",
                "adrne.w r3, 5f",
                "orr r1, r1, #1",
                "orr r3, r3, #1",
                "str r3, [sp, #40]",
                "cmp r0, #0",
                "it eq",
                "moveq r1, r3",
                "cmp r2, #1",
                "itt hi",
                "adrhi.w r3, 7f",
                "orrhi r3, r3, #1",
                "strd r1, r3, [sp, #32]",
                "adr.w r0, 1f",
                "orr r0, r0, #1",
                "str r0, [sp, #100]",
                "1:",
                "str lr, [sp, #56]",
                "ldrd r3, r5, [sp, #16]",
                "add r5, r3",
                "ldrd r1, r7, [sp, #4]",
                "ldr r9, [sp, #44]",
                "ldr r11, [sp, #28]",
                $block!(keep),
                // Two positions.
                "2:",
                $block!(first),
                "ldr pc, [sp, #32]",
                "3:",
                $block!(round),
                "ldr pc, [sp, #36]",
                // The end of one of several rounds.
                "7:",
                "subs r11, #1",
                "bne.w 3b",
                "ldr r11, [sp, #28]",
                "ldr pc, [sp, #40]",
                // The end of one of several segments.
                "5:",
                "subs r9, #1",
                "bne 6f",
                "ldr r9, [sp, #44]",
                "4:",
                stored!(),
                "bne.w 2b",
                // The weights of the next four outputs.
                "ldr r0, [sp, #60]",
                "add r1, r0",
                concat!("subs r1, #", $block!(kept)),
                "str r1, [sp, #4]",
                "ldr pc, [sp, #56]",
                // The next segment.
                "6:",
                "ldr r11, [sp, #52]",
                "ldr r11, [r11, r9, lsl #2]",
                "add r3, r11",
                "add r5, r11",
                "ldr r11, [sp, #28]",
                $block!(later),
                "ldr pc, [sp, #32]",
                ".cpu cortex-m33",
            )
        }
    };
}

blocks_sums!(
    /// Of elements of 8 bits.
    bytes, block_8
);
blocks_sums!(
    /// Of elements of 16 bits.
    halfwords, block_16
);

/// Of elements of 8 bits in one segment of a single block, with its weights in q4 to q7.
///
/// Registers: r3 inputs, r5 step from a position to the next, r7 place of the sums, r9 groups of positions that are left.
///
/// # Safety
/// Called by [`super::quads`] alone, whose stack frame it reads and writes.
#[unsafe(naked)]
pub unsafe extern "C" fn bytes_block(frame: *const Frame) {
    naked_asm!(
        ".cpu cortex-m55",
        "str lr, [sp, #56]",
        "ldrd r1, r7, [sp, #4]",
        "ldrd r3, r5, [sp, #16]",
        "ldr r9, [sp, #24]",
        block_8!(keep),
        "1:",
        "vldrb.u8 q0, [r3]",
        "add r3, r5",
        "vmladav.s8 r0, q0, q4",
        "vldrb.u8 q1, [r3]",
        "vmladav.s8 r2, q0, q5",
        "add r3, r5",
        "vmladav.s8 r4, q0, q6",
        "vmladav.s8 r6, q0, q7",
        "vmladav.s8 r8, q1, q4",
        "vldrb.u8 q2, [r3]",
        "vmladav.s8 r10, q1, q5",
        "add r3, r5",
        "vmladav.s8 r12, q1, q6",
        "vmladav.s8 r14, q1, q7",
        "stm r7!, {{r0, r2, r4, r6, r8, r10, r12, lr}}",
        "vmladav.s8 r0, q2, q4",
        "vldrb.u8 q3, [r3]",
        "vmladav.s8 r2, q2, q5",
        "add r3, r5",
        "vmladav.s8 r4, q2, q6",
        "vmladav.s8 r6, q2, q7",
        "vmladav.s8 r8, q3, q4",
        "vmladav.s8 r10, q3, q5",
        "vmladav.s8 r12, q3, q6",
        "vmladav.s8 r14, q3, q7",
        "stm r7!, {{r0, r2, r4, r6, r8, r10, r12, lr}}",
        "subs.w r9, r9, #1",
        "bne 1b",
        "ldr pc, [sp, #56]",
        ".cpu cortex-m33",
    )
}

/// Sixteen elements of two positions and of four outputs' weights, added to the sums, with weights at fixed places behind r1.
macro_rules! block_at {
    ($w0:literal, $w1:literal, $w2:literal, $w3:literal) => {
        concat!(
            "vldrb.u8 q0, [r3], #16\n",
            concat!("vldrb.u8 q2, [r1, #", $w0, "]\n"),
            "vmladava.s8 r0, q0, q2\n",
            "vldrb.u8 q1, [r5], #16\n",
            "vmladava.s8 r8, q1, q2\n",
            concat!("vldrb.u8 q3, [r1, #", $w1, "]\n"),
            "vmladava.s8 r2, q0, q3\n",
            concat!("vldrb.u8 q2, [r1, #", $w2, "]\n"),
            "vmladava.s8 r10, q1, q3\n",
            "vmladava.s8 r4, q0, q2\n",
            concat!("vldrb.u8 q3, [r1, #", $w3, "]\n"),
            "vmladava.s8 r12, q1, q2\n",
            "vmladava.s8 r6, q0, q3\n",
            "vmladava.s8 r14, q1, q3\n",
        )
    };
}

/// The function `$name`, of elements of 8 bits in few blocks: those behind the first are `$later`. `$step` loads steps between positions and between segments, `$next` goes on
/// to the next two positions, and says in the flags whether sums are left.
///
/// Registers: r1 weights behind the first block, r3 and r5 inputs of both positions, r7 place of the sums.
macro_rules! few_blocks {
    ($(#[$doc:meta])* $name:ident, [$($step:literal),*], [$($later:expr),*], [$($next:literal),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by [`super::quads`] alone, whose stack frame it reads and writes.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(frame: *const Frame) {
            naked_asm!(
                ".cpu cortex-m55",
                "str lr, [sp, #56]",
                $($step,)*
                "ldrd r1, r7, [sp, #4]",
                "ldrd r3, r5, [sp, #16]",
                "add r5, r3",
                block_8!(keep),
                "2:",
                block_8!(first),
                $($later,)*
                "stm r7!, {{r0, r2, r4, r6, r8, r10, r12, lr}}",
                $($next,)*
                "bne 2b",
                "ldr r0, [sp, #60]",
                "add r1, r0",
                "subs r1, #64",
                "str r1, [sp, #4]",
                "ldr pc, [sp, #56]",
                ".cpu cortex-m33",
            )
        }
    };
}

few_blocks!(
    /// Two blocks in one segment. r9: from a position's end to the next two; r11: end of the sums.
    bytes_two,
    ["ldr r9, [sp, #0]", "ldr r11, [sp, #12]"],
    [block_at!("0", "16", "32", "48")],
    ["add r3, r9", "add r5, r9", "cmp r7, r11"]
);
few_blocks!(
    /// Three blocks in one segment. r9 and r11 as those of [`bytes_two`].
    bytes_three,
    ["ldr r9, [sp, #0]", "ldr r11, [sp, #12]"],
    [block_at!("0", "16", "32", "48"), block_at!("64", "80", "96", "112")],
    ["add r3, r9", "add r5, r9", "cmp r7, r11"]
);
few_blocks!(
    /// Two segments of a block. r9: from the first segment's end to the second; r11: from a position's end to the next two.
    bytes_two_segments,
    ["ldr r0, [sp, #52]", "ldr r9, [r0, #4]", "ldr r11, [sp, #0]"],
    ["add r3, r9", "add r5, r9", block_at!("0", "16", "32", "48")],
    ["ldr r0, [sp, #12]", "add r3, r11", "add r5, r11", "cmp r7, r0"]
);
few_blocks!(
    /// Three segments of a block. r11 and r9: from a segment's end to the second and to the third.
    bytes_three_segments,
    ["ldr r0, [sp, #52]", "ldrd r9, r11, [r0, #4]"],
    [
        "add r3, r11",
        "add r5, r11",
        block_at!("0", "16", "32", "48"),
        "add r3, r9",
        "add r5, r9",
        block_at!("64", "80", "96", "112")
    ],
    ["ldr r0, [sp, #0]", "ldr r2, [sp, #12]", "add r3, r0", "add r5, r0", "cmp r7, r2"]
);
