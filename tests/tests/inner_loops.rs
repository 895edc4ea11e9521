//! The kernels' inner loops hold the instructions that make them fast: each function must be in the firmware, and its densest stretch of code be made of
//! multiply-accumulates to the share that its algorithm has. Needs what boards/setup.sh installs.
//!
//! Stretches are looked at, not loops: unrolled loops are entered and left by computed jumps, which say nothing about where they lead.

use tucano_converter::boards::cycles::decode::{Class, Pipe, decode};
use tucano_converter::boards::elf::Image;
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Error, differential};

/// Instructions of a stretch: one to several rounds of a loop.
const STRETCH: usize = 48;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    /// Two products of 16 bits, added.
    Smlad,
    /// Two bytes to 16 bits each.
    Sxtb16,
    /// Products of vectors, added across lanes.
    Vmladava,
    /// A 32-bit product of ARMv6-M.
    Muls,
    /// A 32-bit product, added.
    Mla,
    /// A 64-bit product, added.
    Smlal,
}

impl Wanted {
    /// Whether it is the instruction at the head of `code`, which is of that class.
    fn is(self, code: &[u16], class: Class) -> bool {
        let [first, second] = [0, 1].map(|k| code.get(k).copied().unwrap_or_default());
        // SMUAD and MUL have 15 for the register that they would add.
        let adds = second & 0xF000 != 0xF000;
        match self {
            Self::Smlad => {
                class == Class::MultiplyAccumulate && first & 0xFFF0 == 0xFB20 && second & 0xF0 == 0 && adds
            }
            Self::Sxtb16 => class == Class::Data && first == 0xFA2F && second & 0xF0C0 == 0xF080,
            // Of bytes or of 16 bits.
            Self::Vmladava => {
                class == Class::Vector(Pipe::Multiply)
                    && first & 0xFFF1 == 0xEEF0
                    && second & 0x0E20 == 0x0E20
                    && second & 0xD0 == 0
            }
            Self::Muls => class == Class::Multiply && first & 0xFFC0 == 0x4340,
            Self::Smlal => {
                class == Class::MultiplyAccumulateLong && first & 0xFFF0 == 0xFBC0 && second & 0xF0 == 0
            }
            Self::Mla => {
                class == Class::MultiplyAccumulate && first & 0xFFF0 == 0xFB00 && second & 0xF0 == 0 && adds
            }
        }
    }
}

/// The largest share of `wanted` in a stretch of a function, or in all of a shorter one.
fn densest(mut code: &[u16], wanted: Wanted) -> f64 {
    let mut found = Vec::new();
    while let Some(instruction) = decode(code) {
        found.push(usize::from(wanted.is(code, instruction.class)));
        code = &code[instruction.bytes as usize / 2..];
    }
    let length = found.len().clamp(1, STRETCH);
    let most = found.windows(length).map(|stretch| stretch.iter().sum::<usize>()).max();
    most.unwrap_or_default() as f64 / length as f64
}

/// A function by its path, what it must hold, and the least share in its densest stretch.
type Expected = (&'static [&'static str], Wanted, f64);

const DSP: &[Expected] = &[
    (&["gemm", "tile", "narrow"], Wanted::Smlad, 0.4),
    (&["gemm", "tile", "wide"], Wanted::Smlad, 0.4),
    (&["gemm", "dense", "chunk"], Wanted::Smlad, 0.4),
    (&["gemm", "tile", "fill_i8"], Wanted::Sxtb16, 0.1),
    (&["gemm", "dense", "widen"], Wanted::Sxtb16, 0.1),
    (&["depthwise", "quads", "quad_row"], Wanted::Smlad, 0.1),
];
const HELIUM: &[Expected] = &[(&["product", "sums", "bytes"], Wanted::Vmladava, 0.4)];
const V7M: &[Expected] = &[
    (&["v7m", "columns"], Wanted::Mla, 0.3),
    (&["v7m", "plane"], Wanted::Mla, 0.3),
    (&["v7m", "dense"], Wanted::Smlal, 0.3),
];
const V6M: &[Expected] = &[
    (&["v6m", "columns"], Wanted::Muls, 0.2),
    (&["v6m", "plane"], Wanted::Muls, 0.2),
    (&["v6m", "dense", "dense"], Wanted::Muls, 0.2),
];
const BOARDS: [(&str, &[Expected]); 6] = [
    ("qemu-m0", V6M),
    ("qemu-m3", V7M),
    ("qemu-m4", DSP),
    ("qemu-m7", DSP),
    ("qemu-m33", DSP),
    ("qemu-m55", HELIUM),
];

fn shown<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

#[test]
fn inner_loops_multiply_and_accumulate() {
    let mut errors = Vec::new();
    for (name, expected) in BOARDS {
        let board = shown(boards::find(name));
        let image = shown(Image::read(&shown(differential::build(board, OptLevel::Three))));
        for (path, wanted, least) in expected {
            let text = format!("{name:9} {:32} {wanted:?}", path.join("::"));
            match image.function(path) {
                Err(error) => errors.push(format!("{text}: {error}")),
                Ok(code) => {
                    let share = densest(code, *wanted);
                    println!("{text:60} {:5.1} %, at least {:.0} %", 100.0 * share, 100.0 * least);
                    if share < *least {
                        errors.push(format!(
                            "{text}: {:.1} % of the densest stretch, {:.0} % wanted",
                            100.0 * share,
                            100.0 * least
                        ));
                    }
                }
            }
        }
        assert!(image.function(&["no", "kernel"]).is_err());
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn instructions_are_told_apart() {
    let share = |code: &[u16], wanted| densest(code, wanted);
    // smlad, smuad, mla, mls, smlabb: r0, r1, r2 (, r3).
    let products = [0xFB21, 0x3002, 0xFB21, 0xF002, 0xFB01, 0x3002, 0xFB01, 0x3012, 0xFB11, 0x3002];
    assert_eq!(share(&products, Wanted::Smlad), 0.2);
    assert_eq!(share(&products, Wanted::Mla), 0.2);
    // sxtb16 r0, r1, ror #8; uxtb16 r0, r1.
    assert_eq!(share(&[0xFA2F, 0xF091, 0xFA3F, 0xF081], Wanted::Sxtb16), 0.5);
    // vmladava.s8, vmladava.s16, vmladav.s16 (no sum before), vaddv.s32.
    let vectors = [0xEEF0, 0x0F22, 0xEEF0, 0x0E22, 0xEEF0, 0x0E02, 0xEEF9, 0x0F00];
    assert_eq!(share(&vectors, Wanted::Vmladava), 0.5);
    // muls r0, r1, r0; adds r0, r0, r1.
    assert_eq!(share(&[0x4348, 0x1840], Wanted::Muls), 0.5);
    assert_eq!(share(&[], Wanted::Muls), 0.0);
}
