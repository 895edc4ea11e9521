//! Convolutions as in [`conv`](super::conv), but each block of twelve sums is requantised inside the first products of the block that follows:
//! conversions and packing have ports of their own there, while behind a loop of products they would wait for its end and make the next wait.

use core::arch::asm;
use core::arch::x86_64::*;

use super::super::requantize::{
    CORRECTED, FLOAT, Factors, LANES, Mode, SIGNED_CORRECTED, SIGNED_FLOAT, SIGNED_TWICE, TWICE,
};
use super::conv::{Call, Kernel, store, store_bytes, store_permuted};
use super::finish::{order, pack_halves, words};

/// Sums of a block.
const SUMS: usize = 12;

/// Least steps of the inner loop: two vectors of sums are finished in each of six, and one step at least is left.
const LEAST_STEPS: usize = 7;

/// Bytes of weights that stay in the first-level cache beside what they are multiplied with.
const NEAR: usize = 20 << 10;

/// How many vectors of at most `most` a block has best, for a loop of some steps; `None`: blocks would be too short, or would fetch weights
/// from beyond the first-level cache.
pub fn vectors(most: usize, steps: usize) -> Option<usize> {
    let sizes: &[usize] = match most {
        4 => &[4, 2],
        2 => &[2],
        1 => &[1],
        _ => &[],
    };
    let near = |&&vectors: &&usize| steps * vectors * 64 <= NEAR;
    sizes.iter().find(near).copied().filter(|_| steps >= LEAST_STEPS)
}

/// Positions of a block of some vectors.
pub fn positions(vectors: usize) -> usize {
    SUMS / vectors
}

/// What the kernels read behind the factors of a group: what turns bytes to those with 128 added, the order of what was packed, and words of one.
pub fn tail(vectors: usize) -> Factors {
    let mut tail = Factors::default();
    (tail[0], tail[1], tail[2]) = ([0x8080_8080; LANES], order(vectors), [0x0001_0001; LANES]);
    tail
}

/// The kernel of some vectors and a mode; `None`: there is none.
pub fn kernel(vectors: usize, mode: Mode) -> Option<Kernel> {
    macro_rules! of {
        ($float:ident, $signed:ident, $corrected:ident, $signed_corrected:ident, $twice:ident, $signed_twice:ident) => {
            match mode {
                Mode::Float => $float as Kernel,
                Mode::SignedFloat => $signed,
                Mode::Corrected => $corrected,
                Mode::SignedCorrected => $signed_corrected,
                Mode::Twice => $twice,
                Mode::SignedTwice => $signed_twice,
                Mode::Mixed | Mode::SignedMixed | Mode::Definition => return None,
            }
        };
    }
    Some(match vectors {
        1 => {
            of!(float_1x12, signed_1x12, corrected_1x12, signed_corrected_1x12, twice_1x12, signed_twice_1x12)
        }
        2 => of!(float_2x6, signed_2x6, corrected_2x6, signed_corrected_2x6, twice_2x6, signed_twice_2x6),
        4 => of!(float_4x3, signed_4x3, corrected_4x3, signed_corrected_4x3, twice_4x3, signed_twice_4x3),
        _ => return None,
    })
}

/// A broadcast of four bytes under a window, and its products with some vectors of weights.
macro_rules! products {
    ($from:literal $place:literal $data:literal: $($sum:literal $weight:literal),*) => {
        concat!(
            "vpbroadcastd ", $data, ", dword ptr [{", $from, "} + {", $place, "}]\n",
            $("vpdpbusd ", $sum, ", ", $data, ", ", $weight, "\n",)*
        )
    };
}

/// No requantisation.
macro_rules! none {
    ($($token:tt)*) => {
        ""
    };
}

/// A row of factors in memory.
macro_rules! row {
    ($row:literal $at:literal) => {
        concat!("[{factors} + ", $row, " + ", $at, "]")
    };
}

/// Requantises the first or the second vector of a pair, by the factors at an offset of which some stand in registers; and what is left to do when
/// both are words.
macro_rules! float {
    (words $words:literal) => {
        ""
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(
            "vmovaps zmm30, ",
            $constant,
            "\n",
            "vcvtdq2ps ",
            $sum,
            ", ",
            $sum,
            "\n",
            "vfmadd132ps ",
            $sum,
            ", zmm30, ",
            $scale,
            "\n",
            "vcvtps2dq ",
            $sum,
            ", ",
            $sum,
            "\n",
        )
    };
}

/// As `float`, with the constant that the sign asks for.
macro_rules! signed {
    (words $words:literal) => {
        ""
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(
            "vpsrad zmm30, ", $sum, ", 31\n",
            "vmovaps zmm31, ", $constant, "\n",
            "vcvtdq2ps ", $sum, ", ", $sum, "\n",
            "vpternlogd zmm30, zmm31, ", row!("320" $at), ", 0xac\n",
            "vfmadd132ps ", $sum, ", zmm30, ", $scale, "\n",
            "vcvtps2dq ", $sum, ", ", $sum, "\n",
        )
    };
}

/// What is left in `zmm29` of a first vector, and in words of a pair, is 0 for sums that are exceptions alone. Comparisons and masks would take the
/// ports of products.
macro_rules! found {
    (first $sum:literal, $at:literal, $exception:expr) => {
        concat!("vpxord zmm29, ", $sum, ", ", $exception, "\n")
    };
    (second $sum:literal, $at:literal, $exception:expr) => {
        concat!("vpxord zmm30, ", $sum, ", ", $exception, "\n", "vpackssdw zmm29, zmm29, zmm30\n")
    };
}

/// As `found`, for two exceptions.
macro_rules! found_twice {
    (first $sum:literal, $at:literal, $exception:expr) => {
        found_twice!("zmm29", $sum, $at, $exception)
    };
    (second $sum:literal, $at:literal, $exception:expr) => {
        concat!(found_twice!("zmm30", $sum, $at, $exception), "vpackssdw zmm29, zmm29, zmm30\n")
    };
    ($to:literal, $sum:literal, $at:literal, $exception:expr) => {
        concat!(
            "vpxord ", $to, ", ", $sum, ", ", $exception, "\n",
            "vpxord zmm31, ", $sum, ", ", row!("256" $at), "\n",
            "vpminud ", $to, ", ", $to, ", zmm31\n",
        )
    };
}

/// Adds 1 to the words of exceptions.
macro_rules! mended {
    ($words:literal) => {
        concat!(
            "vmovdqa64 zmm30, [{factors} + {tail} + 128]\n",
            "vpminuw zmm29, zmm29, zmm30\n",
            "vpxord zmm29, zmm29, zmm30\n",
            "vpaddw ",
            $words,
            ", ",
            $words,
            ", zmm29\n",
        )
    };
}

/// As `float`, with an exception.
macro_rules! corrected {
    (words $words:literal) => {
        mended!($words)
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(found!($place $sum, $at, $exception), float!($place $sum, $at, $scale, $constant, $exception))
    };
}

/// As `signed`, with an exception.
macro_rules! signed_corrected {
    (words $words:literal) => {
        mended!($words)
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(found!($place $sum, $at, $exception), signed!($place $sum, $at, $scale, $constant, $exception))
    };
}

/// As `float`, with two exceptions.
macro_rules! twice {
    (words $words:literal) => {
        mended!($words)
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(found_twice!($place $sum, $at, $exception), float!($place $sum, $at, $scale, $constant, $exception))
    };
}

/// As `signed`, with two exceptions.
macro_rules! signed_twice {
    (words $words:literal) => {
        mended!($words)
    };
    ($place:ident $sum:literal, $at:literal, $scale:expr, $constant:expr, $exception:expr) => {
        concat!(found_twice!($place $sum, $at, $exception), signed!($place $sum, $at, $scale, $constant, $exception))
    };
}

/// Packs two requantised vectors to words.
macro_rules! packed {
    ($finish:ident ($a:literal $b:literal)) => {
        concat!("vpackssdw ", $a, ", ", $a, ", ", $b, "\n", $finish!(words $a))
    };
}

/// Packs two vectors, then them and two others to bytes, and stores those at a place of the list.
macro_rules! stored {
    ($finish:ident ($place:literal, $words:literal, $a:literal $b:literal)) => {
        concat!(
            "mov {k}, qword ptr [{places} + ", $place, "]\n",
            packed!($finish ($a $b)),
            "vpacksswb ", $words, ", ", $words, ", ", $a, "\n",
            "vmovdqa64 zmm31, [{factors} + {tail} + 64]\n",
            "vpxord ", $words, ", ", $words, ", [{factors} + {tail}]\n",
            "vpermd ", $words, ", zmm31, ", $words, "\n",
            "vmovdqu64 [{k}], ", $words, "\n",
        )
    };
}

/// A step of one vector and twelve positions, in pairs of windows side by side, with the requantisation of two vectors of sums.
macro_rules! step_1x12 {
    ($finish:ident $a:literal $at:literal $b:literal $bt:literal, $end:ident $arguments:tt) => {
        concat!(
            "mov {k}, qword ptr [{steps}]\n",
            "mov {l}, qword ptr [{steps} + 8]\n",
            "vmovdqa64 zmm24, [{weights}]\n",
            products!("p0" "k" "zmm28": "zmm0" "zmm24"), products!("p0" "l" "zmm28": "zmm1" "zmm24"),
            products!("p1" "k" "zmm28": "zmm2" "zmm24"), $finish!(first $a, $at, "zmm25", "zmm26", "zmm27"),
            products!("p1" "l" "zmm28": "zmm3" "zmm24"), products!("p2" "k" "zmm28": "zmm4" "zmm24"),
            products!("p2" "l" "zmm28": "zmm5" "zmm24"), products!("p3" "k" "zmm28": "zmm6" "zmm24"),
            products!("p3" "l" "zmm28": "zmm7" "zmm24"), $finish!(second $b, $bt, "zmm25", "zmm26", "zmm27"),
            products!("p4" "k" "zmm28": "zmm8" "zmm24"), products!("p4" "l" "zmm28": "zmm9" "zmm24"),
            products!("p5" "k" "zmm28": "zmm10" "zmm24"), products!("p5" "l" "zmm28": "zmm11" "zmm24"),
            $end!($finish $arguments),
            "add {steps}, 16\n", "add {weights}, 64\n", "dec {count}\n",
        )
    };
}

/// As `step_1x12`, of two vectors and six positions.
macro_rules! step_2x6 {
    ($finish:ident $a:literal $at:literal $b:literal $bt:literal, $end:ident $arguments:tt) => {
        concat!(
            "mov {k}, qword ptr [{steps}]\n",
            "vmovdqa64 zmm24, [{weights}]\n",
            "vmovdqa64 zmm25, [{weights} + 64]\n",
            products!("p0" "k" "zmm28": "zmm0" "zmm24", "zmm1" "zmm25"),
            products!("p1" "k" "zmm28": "zmm2" "zmm24", "zmm3" "zmm25"), $finish!(first $a, $at, "zmm26", row!("128" $at), row!("192" $at)),
            products!("p2" "k" "zmm28": "zmm4" "zmm24", "zmm5" "zmm25"),
            products!("p3" "k" "zmm28": "zmm6" "zmm24", "zmm7" "zmm25"), $finish!(second $b, $bt, "zmm27", row!("128" $bt), row!("192" $bt)),
            products!("p4" "k" "zmm28": "zmm8" "zmm24", "zmm9" "zmm25"),
            products!("p5" "k" "zmm28": "zmm10" "zmm24", "zmm11" "zmm25"),
            $end!($finish $arguments),
            "add {steps}, 16\n", "add {weights}, 128\n", "dec {count}\n",
        )
    };
}

/// As `step_1x12`, of four vectors and three positions.
macro_rules! step_4x3 {
    ($finish:ident $a:literal $at:literal $b:literal $bt:literal, $end:ident $arguments:tt) => {
        concat!(
            "mov {k}, qword ptr [{steps}]\n",
            "vmovdqa64 zmm24, [{weights}]\n",
            "vmovdqa64 zmm25, [{weights} + 64]\n",
            "vmovdqa64 zmm26, [{weights} + 128]\n",
            "vmovdqa64 zmm27, [{weights} + 192]\n",
            products!("p0" "k" "zmm28": "zmm0" "zmm24", "zmm1" "zmm25", "zmm2" "zmm26", "zmm3" "zmm27"),
            $finish!(first $a, $at, row!("64" $at), row!("128" $at), row!("192" $at)),
            products!("p1" "k" "zmm28": "zmm4" "zmm24", "zmm5" "zmm25", "zmm6" "zmm26", "zmm7" "zmm27"),
            $finish!(second $b, $bt, row!("64" $bt), row!("128" $bt), row!("192" $bt)),
            products!("p2" "k" "zmm28": "zmm8" "zmm24", "zmm9" "zmm25", "zmm10" "zmm26", "zmm11" "zmm27"),
            $end!($finish $arguments),
            "add {steps}, 16\n", "add {weights}, 256\n", "dec {count}\n",
        )
    };
}

/// Bytes of a block.
#[repr(align(64))]
struct Block([u8; SUMS * LANES]);

/// A kernel: the whole block in assembly, so that products and requantisation stand where they are wanted and sums stay in registers. `held` are rows
/// of factors in registers that weights leave free, for loads are scarce in loops of few steps.
macro_rules! tile {
    (
        $name:ident, $mode:ident, $finish:ident, $step:ident, $vectors:literal vectors, factors [$a:literal $b:literal $c:literal $d:literal],
        held [$($held:literal $row:literal),*],
        pointers [$($pointer:ident $index:literal),*], bases [$($base:ident),*]
    ) => {
        /// # Safety
        /// The call's pointers are those of a layer that was checked against its frame; its factors are of this mode and followed by their tail;
        /// its bounds exclude no bytes; the loop has at least [`LEAST_STEPS`] steps.
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        unsafe fn $name(call: &Call) {
            const POINTERS: usize = [$($index),*].len();
            const POSITIONS: usize = SUMS / $vectors;
            let zero = _mm512_setzero_si512();
            let [mut s0, mut s1, mut s2, mut s3, mut s4, mut s5] = [zero; 6];
            let [mut s6, mut s7, mut s8, mut s9, mut s10, mut s11] = [zero; 6];
            let mut bytes = Block([0; SUMS * LANES]);
            let aside = bytes.0.as_mut_ptr();
            // The first block has none before it, whose bytes would go anywhere.
            let mut places = [aside, aside.wrapping_add(64), aside.wrapping_add(128)];
            for block in 0..call.blocks {
                // SAFETY: tables have an entry for each block. The assembly reads `step_count` entries of `steps`, 64 bytes of weights a vector
                // and step, factors with their tail, and four bytes at each window and step, all inside the buffers (the caller's). It writes
                // registers and 64 bytes at each place, which lie in `bytes` or are those of four vectors of the block before. It equals
                // `sum[p][v] += dot(input[p + step .. + 4], weights[step][v])` from the biases on, with sums modulo 2^32, and `words` and
                // `pack_halves` of the sums that it was given.
                unsafe {
                    let windows = call.inputs.add(block * POINTERS);
                    $(let $pointer = call.input.add(*windows.add($index) as usize);)*
                    asm!(
                        "vmovdqa64 zmm12, zmm0", "vmovdqa64 zmm13, zmm1", "vmovdqa64 zmm14, zmm2", "vmovdqa64 zmm15, zmm3",
                        "vmovdqa64 zmm16, zmm4", "vmovdqa64 zmm17, zmm5", "vmovdqa64 zmm18, zmm6", "vmovdqa64 zmm19, zmm7",
                        "vmovdqa64 zmm20, zmm8", "vmovdqa64 zmm21, zmm9", "vmovdqa64 zmm22, zmm10", "vmovdqa64 zmm23, zmm11",
                        "vmovdqa64 zmm0, [{factors}]", concat!("vmovdqa64 zmm1, [{factors} + ", $b, "]"),
                        concat!("vmovdqa64 zmm2, [{factors} + ", $c, "]"), concat!("vmovdqa64 zmm3, [{factors} + ", $d, "]"),
                        "vmovdqa64 zmm4, zmm0", "vmovdqa64 zmm5, zmm1", "vmovdqa64 zmm6, zmm2", "vmovdqa64 zmm7, zmm3",
                        "vmovdqa64 zmm8, zmm0", "vmovdqa64 zmm9, zmm1", "vmovdqa64 zmm10, zmm2", "vmovdqa64 zmm11, zmm3",
                        $(concat!("vmovaps ", $held, ", [{factors} + ", $row, "]"),)*
                        $step!($finish "zmm12" $a "zmm13" $b, packed("zmm12" "zmm13")),
                        $step!($finish "zmm14" $c "zmm15" $d, stored("0", "zmm12", "zmm14" "zmm15")),
                        $step!($finish "zmm16" $a "zmm17" $b, packed("zmm16" "zmm17")),
                        $step!($finish "zmm18" $c "zmm19" $d, stored("8", "zmm16", "zmm18" "zmm19")),
                        $step!($finish "zmm20" $a "zmm21" $b, packed("zmm20" "zmm21")),
                        $step!($finish "zmm22" $c "zmm23" $d, stored("16", "zmm20", "zmm22" "zmm23")),
                        "2:",
                        $step!(none "" "" "" "", none()),
                        "jnz 2b",
                        steps = inout(reg) call.steps => _,
                        weights = inout(reg) call.weights => _,
                        count = inout(reg) call.step_count => _,
                        factors = in(reg) call.factors,
                        places = in(reg) places.as_ptr(),
                        $($base = out(reg) _,)*
                        $($pointer = in(reg) $pointer,)*
                        tail = const $vectors * size_of::<Factors>(),
                        inout("zmm0") s0, inout("zmm1") s1, inout("zmm2") s2, inout("zmm3") s3,
                        inout("zmm4") s4, inout("zmm5") s5, inout("zmm6") s6, inout("zmm7") s7,
                        inout("zmm8") s8, inout("zmm9") s9, inout("zmm10") s10, inout("zmm11") s11,
                        out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
                        out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                        out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
                        out("zmm30") _, out("zmm31") _,
                        options(nostack),
                    );
                    if call.joined {
                        for (k, place) in places.iter_mut().enumerate() {
                            let first = call.outputs.add(block * POSITIONS + k * 4 / $vectors);
                            *place = call.output.add(*first as usize);
                        }
                    } else if block > 0 {
                        for k in 0..SUMS / 4 {
                            let packed = _mm512_load_si512(aside.add(64 * k).cast());
                            let first = call.outputs.add((block - 1) * POSITIONS + k * 4 / $vectors);
                            store_permuted!($vectors, call, first, packed);
                        }
                    }
                }
            }
            // SAFETY: as above, for the last block.
            unsafe {
                let outputs = call.outputs.add((call.blocks - 1) * POSITIONS);
                store!($mode, $vectors, call, outputs, [s0, s1, s2, s3]);
                store!($mode, $vectors, call, outputs.add(4 / $vectors), [s4, s5, s6, s7]);
                store!($mode, $vectors, call, outputs.add(8 / $vectors), [s8, s9, s10, s11]);
            }
        }
    };
}

/// The kernels of some vectors in all modes.
macro_rules! tiles {
    ($($name:ident $mode:ident $finish:ident),*; $step:ident, $vectors:literal $factors:tt held $held:tt $pointers:tt $bases:tt) => {
        $(tile! { $name, $mode, $finish, $step, $vectors vectors, factors $factors, held $held, pointers $pointers, bases $bases })*
    };
}

tiles! {
    float_1x12 FLOAT float, signed_1x12 SIGNED_FLOAT signed, corrected_1x12 CORRECTED corrected,
    signed_corrected_1x12 SIGNED_CORRECTED signed_corrected, twice_1x12 TWICE twice,
    signed_twice_1x12 SIGNED_TWICE signed_twice;
    step_1x12, 1 ["0" "0" "0" "0"] held ["zmm25" "64", "zmm26" "128", "zmm27" "192"] [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5] [k, l]
}

tiles! {
    float_2x6 FLOAT float, signed_2x6 SIGNED_FLOAT signed, corrected_2x6 CORRECTED corrected,
    signed_corrected_2x6 SIGNED_CORRECTED signed_corrected, twice_2x6 TWICE twice,
    signed_twice_2x6 SIGNED_TWICE signed_twice;
    step_2x6, 2 ["0" "384" "0" "384"] held ["zmm26" "64", "zmm27" "448"] [p0 0, p1 1, p2 2, p3 3, p4 4, p5 5] [k]
}

tiles! {
    float_4x3 FLOAT float, signed_4x3 SIGNED_FLOAT signed, corrected_4x3 CORRECTED corrected,
    signed_corrected_4x3 SIGNED_CORRECTED signed_corrected, twice_4x3 TWICE twice,
    signed_twice_4x3 SIGNED_TWICE signed_twice;
    step_4x3, 4 ["0" "384" "768" "1152"] held [] [p0 0, p1 1, p2 2] [k]
}

#[cfg(test)]
mod tests {
    use super::super::super::requantize::NO_EXCEPTION;
    use super::super::conv::channel;
    use super::super::finish::Bounds;
    use super::*;

    #[repr(align(64))]
    struct Lines<const N: usize>([u8; N]);

    /// The byte that a sum becomes.
    fn byte(sum: i32, factors: &Factors, lane: usize, mode: Mode) -> u8 {
        let [scale, positive, negative] = [1, 2, 5].map(|row| f32::from_bits(factors[row][lane]));
        let is_signed = matches!(mode, Mode::SignedFloat | Mode::SignedCorrected | Mode::SignedTwice);
        let constant = if is_signed && sum < 0 { negative } else { positive };
        let is_exception = !matches!(mode, Mode::Float | Mode::SignedFloat)
            && [3, 4].iter().any(|row| factors[*row][lane] as i32 == sum);
        let value = (sum as f32).mul_add(scale, constant).round_ties_even() as i32 + i32::from(is_exception);
        (value.clamp(-128, 127) as i8).cast_unsigned() ^ 0x80
    }

    /// Every kernel against sums and conversions one by one, with rows of which positions lie side by side and with others.
    #[test]
    fn kernels_equal_their_definition() {
        if !super::super::super::available().any(|kernels| kernels.name().contains("vnni")) {
            eprintln!("no AVX-512 VNNI on this machine: its kernels are not compared");
            return;
        }
        const STEPS: usize = 9;
        const BLOCKS: usize = 3;
        let mut state = 0x2545_F491u32;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let modes = [
            Mode::Float,
            Mode::SignedFloat,
            Mode::Corrected,
            Mode::SignedCorrected,
            Mode::Twice,
            Mode::SignedTwice,
        ];
        let all = [1usize, 2, 4].map(|vectors| modes.map(|mode| (vectors, mode)));
        for (vectors, mode) in all.into_iter().flatten() {
            let twice = matches!(mode, Mode::Twice | Mode::SignedTwice);
            for joined in [true, false] {
                let (positions, channels) = (positions(vectors), 16 * vectors);
                let mut input = Lines([0; 2048]);
                let mut weights = Lines([0; STEPS * 256]);
                input.0.iter_mut().chain(&mut weights.0).for_each(|byte| *byte = random() as u8);
                // Pairs of windows are 64 bytes apart.
                let each = if vectors == 1 { 2 } else { 1 };
                let first = |k: usize| k / each * 24 + k % each * 64;
                let place = |k: usize| k * (channels + if joined { 0 } else { 5 });
                let steps: Vec<[u64; 2]> = (0..STEPS as u64).map(|k| [4 * k, 4 * k + 64]).collect();
                let count = BLOCKS * positions;
                let inputs: Vec<u32> = (0..count).step_by(each).map(|k| first(k) as u32).collect();
                let outputs: Vec<u32> = (0..count).map(|k| place(k) as u32).collect();
                let biases: Vec<u32> = (0..channels).map(|_| random() % 4000).collect();
                let lane_of = |k: usize, channel_of: usize| {
                    let of = |v: usize| (0..LANES).map(move |l| (v, l));
                    let found =
                        (0..vectors).flat_map(of).find(|&(v, l)| channel(vectors, v, l) == channel_of);
                    let (v, l) = found.unwrap();
                    let sum = (0..STEPS * 4).fold(biases[v * LANES + l] as i32, |sum, at| {
                        let weight = weights.0[((at / 4 * vectors + v) * LANES + l) * 4 + at % 4];
                        sum + i32::from(input.0[first(k) + at]) * i32::from(weight as i8)
                    });
                    (v, l, sum)
                };
                let mut factors = vec![Factors::default(); vectors];
                for c in 0..channels {
                    let (v, l, sum) = lane_of(c % count, c);
                    let (_, _, other) = lane_of((c + 1) % count, c);
                    let values = [(1, 0.0004), (2, 3.25 + (c % 7) as f32), (5, 3.0f32)];
                    factors[v][0][l] = biases[v * LANES + l];
                    values.iter().for_each(|(row, value)| factors[v][*row][l] = value.to_bits());
                    factors[v][3][l] = sum as u32;
                    factors[v][4][l] = if twice { other as u32 } else { NO_EXCEPTION as u32 };
                }
                let all_factors: Vec<Factors> = factors.iter().copied().chain([tail(vectors)]).collect();
                let mut aligned = Lines([0; 5 * size_of::<Factors>()]);
                let bytes: &[u8] = bytemuck::cast_slice(&all_factors);
                aligned.0[..bytes.len()].copy_from_slice(bytes);
                let mut found = vec![0u8; place(count) + 64];
                let call = Call {
                    input: input.0.as_ptr(),
                    output: found.as_mut_ptr(),
                    weights: weights.0.as_ptr(),
                    factors: aligned.0.as_ptr().cast(),
                    steps: steps.as_ptr(),
                    step_count: STEPS,
                    inputs: inputs.as_ptr(),
                    outputs: outputs.as_ptr(),
                    blocks: BLOCKS,
                    mask: if channels == 64 { !0 } else { (1 << channels) - 1 },
                    joined,
                    bounds: Bounds { zero: 0, low: i8::MIN, high: i8::MAX },
                };
                let kernel = kernel(vectors, mode).unwrap();
                // SAFETY: all windows, steps, weights and outputs of the tables lie in the buffers, and the processor has the features.
                unsafe { kernel(&call) };
                for (k, c) in (0..count).flat_map(|k| (0..channels).map(move |c| (k, c))) {
                    let (v, l, sum) = lane_of(k, c);
                    let expected = byte(sum, &factors[v], l, mode);
                    assert_eq!(found[place(k) + c], expected, "{vectors} {mode:?} {joined} {k} {c}");
                }
            }
        }
    }
}
