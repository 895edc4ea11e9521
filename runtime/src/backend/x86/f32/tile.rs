//! The inner loop of convolutions: a tile of positions times registers of outputs, held in registers from the bias to the bounds.
//!
//! A step reads the weights of one input element for all outputs of the tile, and for each position that element, in every lane. The weights
//! of a tile follow each other in the order of the steps: `[segment][element][register][lane]`. A *segment* is what a window reads side by side.
//!
//! In assembly, because a compiler gives each position a pointer of its own and runs out of registers for them. Here positions are
//! a base and multiples of a stride: nine to a base. Tiles have at most 20 sums: with more, processors begin
//! the next tile later.

use core::arch::asm;
use core::arch::x86_64::{__m256, __m512};

use super::lanes::Lanes;

/// What a tile reads and writes. Pointers to floats need no alignment.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The first element under the first position's window.
    pub input: *const f32,
    /// Bytes from a position to the next in the input.
    pub step: usize,
    /// Bytes from the end of each segment to the start of the next; the last of them is read and means nothing.
    pub skips: *const isize,
    /// Number of segments, at least 1.
    pub segments: usize,
    /// Elements of a segment, at least 1.
    pub run: usize,
    /// The weights of the tile's outputs.
    pub weights: *const f32,
    /// The bias of the tile's outputs, in whole registers.
    pub bias: *const f32,
    /// The outputs of position 0 of the layer.
    pub output: *mut f32,
    /// For each position, how many floats behind `output` its outputs are.
    pub places: *const usize,
    /// Outputs in the last register, 1 to all lanes.
    pub last: usize,
    /// Least and greatest output.
    pub bounds: [f32; 2],
}

/// A tile of a fixed number of positions and registers.
///
/// # Safety
/// The instruction set that the table's name says; everything that [`Tile`] points to is valid, for as many positions and registers.
pub(super) type Kernel = unsafe fn(&Tile);

/// Bounds and writes the outputs of one position.
///
/// # Safety
/// As [`Kernel`].
#[inline(always)]
unsafe fn finish<V: Lanes, const N: usize>(tile: &Tile, place: *const usize, sums: [V; N]) {
    // SAFETY: the caller's tile: places are readable, and outputs writable up to the last register's lanes.
    unsafe {
        let bounds = [V::splat(tile.bounds[0]), V::splat(tile.bounds[1])];
        let output = tile.output.add(place.read());
        let [head @ .., last] = &sums[..] else { return };
        for (n, &sum) in head.iter().enumerate() {
            V::store(output.add(n * V::COUNT), V::clamp(bounds, sum));
        }
        let (at, last) = (output.add(head.len() * V::COUNT), V::clamp(bounds, *last));
        if tile.last == V::COUNT {
            V::store(at, last);
        } else {
            V::store_part(at, V::mask(tile.last), last);
        }
    }
}

/// One position's products of a step. Those of halved registers name the lower halves of all 32.
macro_rules! products {
    (broadcast $address:literal $($sum:ident $weight:ident)*) => {
        concat!(
            "vbroadcastss {x}, dword ptr ", $address, "\n",
            $("vfmadd231ps {", stringify!($sum), "}, {x}, {", stringify!($weight), "}\n",)*
        )
    };
    (embedded $address:literal $sum:ident $weight:ident) => {
        concat!(
            "vfmadd231ps {", stringify!($sum), "}, {", stringify!($weight), "}, dword ptr ",
            $address, "{{1to16}}\n"
        )
    };
    (halved $address:literal $sum:ident $weight:ident) => {
        concat!(
            "vfmadd231ps {", stringify!($sum), ":y}, {", stringify!($weight), ":y}, dword ptr ",
            $address, "{{1to8}}\n"
        )
    };
}

/// Reads a register of weights.
macro_rules! weights {
    (halved $weight:ident $at:literal) => {
        concat!("vmovups {", stringify!($weight), ":y}, [{w}+", $at, "]")
    };
    ($mode:ident $weight:ident $at:literal) => {
        concat!("vmovups {", stringify!($weight), "}, [{w}+", $at, "]")
    };
}

/// The kernels of 1, 2, ... positions and a number of registers: for each position its address, its sums and the weights that these take.
macro_rules! tiles {
    (
        $table:ident: $feature:literal $vector:ident $class:ident $mode:ident $registers:literal [$step:literal]
        $($weight:ident $at:literal)*;
        $($name:ident $address:literal $($sum:ident $by:ident)*;)*
    ) => {
        pub(super) mod $table {
            use super::*;

            pub static KERNELS: &[Kernel] = &[$($name),*];

            tiles! { prefixes $feature $vector $class $mode $registers [$step] [$($weight $at)*] []
                $([$name $address $($sum $by)*])* }
        }
    };
    (prefixes $feature:literal $vector:ident $class:ident $mode:ident $registers:literal [$step:literal]
        $weights:tt [$($done:tt)*]) => {};
    (prefixes $feature:literal $vector:ident $class:ident $mode:ident $registers:literal [$step:literal]
        $weights:tt [$($done:tt)*] $next:tt $($rest:tt)*) => {
        tiles! { kernel $feature $vector $class $mode $registers [$step] $weights $next [$($done)* $next] }
        tiles! { prefixes $feature $vector $class $mode $registers [$step] $weights [$($done)* $next] $($rest)* }
    };
    (kernel $feature:literal $vector:ident $class:ident $mode:ident $registers:literal [$step:literal]
        [$($weight:ident $at:literal)*] [$name:ident $($last:tt)*]
        [$([$other:ident $address:literal $($sum:ident $by:ident)*])*]) => {
        #[target_feature(enable = $feature)]
        unsafe fn $name(tile: &Tile) {
            // SAFETY: the tile's pointers are valid for this many positions and registers, which the caller promises. The loop reads
            // `run` elements of each of `segments` segments at each position and as many steps of weights; it writes registers only.
            unsafe {
                $(let $weight = <$vector>::load(tile.bias.byte_add($at));)*
                $($(let mut $sum = $by;)*)*
                asm!(
                    "2:",
                    "mov {left}, {run}",
                    "3:",
                    $(weights!($mode $weight $at),)*
                    $(products!($mode $address $($sum $by)*),)*
                    concat!("add {w}, ", $step),
                    "add {p0}, 4",
                    "add {p1}, 4",
                    "add {p2}, 4",
                    "dec {left}",
                    "jnz 3b",
                    "mov {left}, [{skips}]",
                    "add {skips}, 8",
                    "add {p0}, {left}",
                    "add {p1}, {left}",
                    "add {p2}, {left}",
                    "dec {segments}",
                    "jnz 2b",
                    "/* {x} {s1} {s3} {s5} {s7} */",
                    p0 = inout(reg) tile.input => _,
                    p1 = inout(reg) tile.input.wrapping_byte_add(tile.step.wrapping_mul(9)) => _,
                    p2 = inout(reg) tile.input.wrapping_byte_add(tile.step.wrapping_mul(18)) => _,
                    s1 = in(reg) tile.step,
                    s3 = in(reg) tile.step.wrapping_mul(3),
                    s5 = in(reg) tile.step.wrapping_mul(5),
                    s7 = in(reg) tile.step.wrapping_mul(7),
                    w = inout(reg) tile.weights => _,
                    skips = inout(reg) tile.skips => _,
                    segments = inout(reg) tile.segments => _,
                    run = in(reg) tile.run,
                    left = out(reg) _,
                    x = out($class) _,
                    // Of the vector's type: without one, builds that do not optimise name the whole register.
                    $($weight = inout($class) $weight => _,)*
                    $($($sum = inout($class) $sum,)*)*
                    options(nostack, readonly),
                );
                let place = tile.places;
                $(
                    finish::<$vector, $registers>(tile, place, [$($sum),*]);
                    let place = place.add(1);
                )*
                let _ = place;
            }
        }
    };
}

/// As `tiles`, of one register and as many positions as 32 registers take.
macro_rules! tiles_of_one {
    ($($head:tt)*) => {
        tiles! {
            $($head)*
            w0 0;
            one "[{p0}]" a0 w0;
            two "[{p0}+{s1}]" a1 w0;
            three "[{p0}+{s1}*2]" a2 w0;
            four "[{p0}+{s3}]" a3 w0;
            five "[{p0}+{s1}*4]" a4 w0;
            six "[{p0}+{s5}]" a5 w0;
            seven "[{p0}+{s3}*2]" a6 w0;
            eight "[{p0}+{s7}]" a7 w0;
            nine "[{p0}+{s1}*8]" a8 w0;
            ten "[{p1}]" a9 w0;
            eleven "[{p1}+{s1}]" a10 w0;
            twelve "[{p1}+{s1}*2]" a11 w0;
            thirteen "[{p1}+{s3}]" a12 w0;
            fourteen "[{p1}+{s1}*4]" a13 w0;
            fifteen "[{p1}+{s5}]" a14 w0;
            sixteen "[{p1}+{s3}*2]" a15 w0;
            seventeen "[{p1}+{s7}]" a16 w0;
            eighteen "[{p1}+{s1}*8]" a17 w0;
            nineteen "[{p2}]" a18 w0;
            twenty "[{p2}+{s1}]" a19 w0;
        }
    };
}

tiles_of_one! { wide1: "avx512f" __m512 zmm_reg embedded 1 [64] }

tiles_of_one! { halved1: "avx512f,avx512vl" __m256 zmm_reg halved 1 [32] }

tiles! {
    wide2: "avx512f" __m512 zmm_reg broadcast 2 [128]
    w0 0 w1 64;
    one "[{p0}]" a0 w0 a1 w1;
    two "[{p0}+{s1}]" a2 w0 a3 w1;
    three "[{p0}+{s1}*2]" a4 w0 a5 w1;
    four "[{p0}+{s3}]" a6 w0 a7 w1;
    five "[{p0}+{s1}*4]" a8 w0 a9 w1;
    six "[{p0}+{s5}]" a10 w0 a11 w1;
    seven "[{p0}+{s3}*2]" a12 w0 a13 w1;
    eight "[{p0}+{s7}]" a14 w0 a15 w1;
    nine "[{p0}+{s1}*8]" a16 w0 a17 w1;
    ten "[{p1}]" a18 w0 a19 w1;
}

tiles! {
    wide3: "avx512f" __m512 zmm_reg broadcast 3 [192]
    w0 0 w1 64 w2 128;
    one "[{p0}]" a0 w0 a1 w1 a2 w2;
    two "[{p0}+{s1}]" a3 w0 a4 w1 a5 w2;
    three "[{p0}+{s1}*2]" a6 w0 a7 w1 a8 w2;
    four "[{p0}+{s3}]" a9 w0 a10 w1 a11 w2;
    five "[{p0}+{s1}*4]" a12 w0 a13 w1 a14 w2;
    six "[{p0}+{s5}]" a15 w0 a16 w1 a17 w2;
}

tiles! {
    wide4: "avx512f" __m512 zmm_reg broadcast 4 [256]
    w0 0 w1 64 w2 128 w3 192;
    one "[{p0}]" a0 w0 a1 w1 a2 w2 a3 w3;
    two "[{p0}+{s1}]" a4 w0 a5 w1 a6 w2 a7 w3;
    three "[{p0}+{s1}*2]" a8 w0 a9 w1 a10 w2 a11 w3;
    four "[{p0}+{s3}]" a12 w0 a13 w1 a14 w2 a15 w3;
    five "[{p0}+{s1}*4]" a16 w0 a17 w1 a18 w2 a19 w3;
}

tiles! {
    narrow1: "avx2,fma" __m256 ymm_reg broadcast 1 [32]
    w0 0;
    one "[{p0}]" a0 w0;
    two "[{p0}+{s1}]" a1 w0;
    three "[{p0}+{s1}*2]" a2 w0;
    four "[{p0}+{s3}]" a3 w0;
    five "[{p0}+{s1}*4]" a4 w0;
    six "[{p0}+{s5}]" a5 w0;
    seven "[{p0}+{s3}*2]" a6 w0;
    eight "[{p0}+{s7}]" a7 w0;
    nine "[{p0}+{s1}*8]" a8 w0;
    ten "[{p1}]" a9 w0;
    eleven "[{p1}+{s1}]" a10 w0;
    twelve "[{p1}+{s1}*2]" a11 w0;
}

tiles! {
    narrow2: "avx2,fma" __m256 ymm_reg broadcast 2 [64]
    w0 0 w1 32;
    one "[{p0}]" a0 w0 a1 w1;
    two "[{p0}+{s1}]" a2 w0 a3 w1;
    three "[{p0}+{s1}*2]" a4 w0 a5 w1;
    four "[{p0}+{s3}]" a6 w0 a7 w1;
    five "[{p0}+{s1}*4]" a8 w0 a9 w1;
    six "[{p0}+{s5}]" a10 w0 a11 w1;
}

tiles! {
    narrow3: "avx2,fma" __m256 ymm_reg broadcast 3 [96]
    w0 0 w1 32 w2 64;
    one "[{p0}]" a0 w0 a1 w1 a2 w2;
    two "[{p0}+{s1}]" a3 w0 a4 w1 a5 w2;
    three "[{p0}+{s1}*2]" a6 w0 a7 w1 a8 w2;
    four "[{p0}+{s3}]" a9 w0 a10 w1 a11 w2;
}
