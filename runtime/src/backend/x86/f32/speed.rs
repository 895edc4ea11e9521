//! Shares of the processor's peak. They assert nothing, and run when asked for.

use std::time::Instant;

use super::tests::{Case, Random, axis, place, widths};
use super::*;
use crate::ops::window::Window;

/// Floats that start a cache line.
struct Lines(Vec<f32>, usize);

impl Lines {
    fn new(floats: usize) -> Self {
        Self(vec![0.0; floats + 16], floats)
    }

    fn get_mut(&mut self) -> &mut [f32] {
        let start = self.0.as_ptr().align_offset(64);
        &mut self.0[start..start + self.1]
    }
}

/// The least time of many short rounds, in nanoseconds a call.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let mut calls = 1u32;
    let mut least = f64::INFINITY;
    for _ in 0..400 {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        let time = start.elapsed().as_nanos() as f64;
        least = least.min(time / f64::from(calls));
        if time < 20_000.0 {
            calls *= 2;
        }
    }
    least
}

/// Multiply-adds a nanosecond where nothing is read: 16 chains of wide or narrow registers.
fn peak(width: Width) -> f64 {
    let ones = vec![0.0f32; 4096];
    let time = nanoseconds(|| {
        // SAFETY: the width is there. Registers alone are written.
        unsafe {
            match width.registers {
                Registers::Bits512 => std::arch::asm!(
                    "mov {n}, 1000", "2:",
                    "vfmadd231ps zmm0, zmm16, zmm17", "vfmadd231ps zmm1, zmm16, zmm17", "vfmadd231ps zmm2, zmm16, zmm17",
                    "vfmadd231ps zmm3, zmm16, zmm17", "vfmadd231ps zmm4, zmm16, zmm17", "vfmadd231ps zmm5, zmm16, zmm17",
                    "vfmadd231ps zmm6, zmm16, zmm17", "vfmadd231ps zmm7, zmm16, zmm17", "vfmadd231ps zmm8, zmm16, zmm17",
                    "vfmadd231ps zmm9, zmm16, zmm17", "vfmadd231ps zmm10, zmm16, zmm17", "vfmadd231ps zmm11, zmm16, zmm17",
                    "dec {n}", "jnz 2b", n = out(reg) _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _,
                    out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                ),
                Registers::Bits256 => std::arch::asm!(
                    "mov {n}, 1000", "2:",
                    "vfmadd231ps ymm0, ymm14, ymm15", "vfmadd231ps ymm1, ymm14, ymm15", "vfmadd231ps ymm2, ymm14, ymm15",
                    "vfmadd231ps ymm3, ymm14, ymm15", "vfmadd231ps ymm4, ymm14, ymm15", "vfmadd231ps ymm5, ymm14, ymm15",
                    "vfmadd231ps ymm6, ymm14, ymm15", "vfmadd231ps ymm7, ymm14, ymm15", "vfmadd231ps ymm8, ymm14, ymm15",
                    "vfmadd231ps ymm9, ymm14, ymm15", "vfmadd231ps ymm10, ymm14, ymm15", "vfmadd231ps ymm11, ymm14, ymm15",
                    "dec {n}", "jnz 2b", n = out(reg) _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _,
                    out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                ),
            }
        }
        std::hint::black_box(&ones);
    });
    (12_000 * width.lanes()) as f64 / time
}

/// `[rows, columns, inputs, outputs, kernel, stride]`
const SHAPES: [[usize; 6]; 14] = [
    [8, 8, 64, 64, 3, 1],
    [16, 16, 64, 64, 3, 1],
    [16, 16, 32, 32, 3, 1],
    [32, 32, 16, 16, 3, 1],
    [32, 32, 3, 16, 3, 1],
    [32, 32, 16, 32, 3, 2],
    [96, 96, 3, 8, 3, 2],
    [25, 5, 64, 64, 1, 1],
    [12, 12, 64, 64, 1, 1],
    [6, 6, 128, 128, 1, 1],
    [3, 3, 256, 256, 1, 1],
    [24, 24, 32, 32, 1, 1],
    [48, 48, 8, 16, 1, 1],
    [24, 24, 16, 32, 1, 1],
];

/// Prints the share of the peak that each shape reaches: `cargo test --release -p tucano --features host --lib -- --ignored --nocapture shares_of_peak`.
#[test]
#[ignore = "measures"]
fn shares_of_peak() {
    for (name, width) in widths() {
        let peak = peak(width);
        println!("{name}: {peak:.1} GMAC/s");
        for [rows, columns, inputs, outputs, kernel, stride] in SHAPES {
            let mut random = Random(4);
            let pads = [kernel / 2; 2];
            let window = Window {
                batch: 1,
                rows: axis(rows, kernel, stride, 1, pads),
                columns: axis(columns, kernel, stride, 1, pads),
                inputs,
                outputs,
            };
            let case = Case::new(&mut random, window, 1);
            let (from, read) = place(&mut random, &window, true, 1);
            let (to, written) = place(&mut random, &window, false, 1);
            let (mut input, mut output) = (Lines::new(read), Lines::new(written));
            let (input, output) = (input.get_mut(), output.get_mut());
            input.fill(0.5);
            let layer = Conv2d::new(width, &window, 1, &case.linear(), &from, &to).unwrap();
            let time = nanoseconds(|| layer.run(input, output).unwrap());
            let products = window.rows.output * window.columns.output * outputs * inputs * kernel * kernel;
            println!(
                "  {rows}x{columns} {inputs}->{outputs} {kernel}x{kernel}/{stride}: {:.2} us, {:.1} %",
                time / 1000.0,
                100.0 * products as f64 / time / peak
            );
            if super::winograd::suits(&window, 1) {
                let layer = Winograd::new(width, &window, &case.linear(), &from, &to).unwrap();
                let mut scratch = Lines::new(layer.scratch());
                let scratch = scratch.get_mut();
                let time = nanoseconds(|| layer.run(input, output, scratch).unwrap());
                println!("    by minimal filtering: {:.2} us", time / 1000.0);
            }
        }
        for [rows, columns, channels, stride] in [
            [25, 5, 64, 1],
            [48, 48, 8, 1],
            [48, 48, 16, 2],
            [24, 24, 32, 1],
            [12, 12, 64, 1],
            [6, 6, 128, 1],
            [3, 3, 256, 1],
        ] {
            let mut random = Random(4);
            let window = Window {
                batch: 1,
                rows: axis(rows, 3, stride, 1, [1, 1]),
                columns: axis(columns, 3, stride, 1, [1, 1]),
                inputs: channels,
                outputs: channels,
            };
            let case = Case::new(&mut random, window, channels);
            let (from, read) = place(&mut random, &window, true, 1);
            let (to, written) = place(&mut random, &window, false, 1);
            let (mut input, mut output) = (Lines::new(read), Lines::new(written));
            let (input, output) = (input.get_mut(), output.get_mut());
            input.fill(0.5);
            let layer = DepthwiseConv2d::new(width, &window, &case.linear(), &from, &to).unwrap();
            let time = nanoseconds(|| layer.run(input, output).unwrap());
            let products = window.rows.output * window.columns.output * channels * 9;
            println!(
                "  depthwise {rows}x{columns} {channels} /{stride}: {:.2} us, {:.1} %",
                time / 1000.0,
                100.0 * products as f64 / time / peak
            );
            let layer = AveragePool2d::new(
                width,
                &Window {
                    rows: axis(rows, rows, 1, 1, [0, 0]),
                    columns: axis(columns, columns, 1, 1, [0, 0]),
                    ..window
                },
                false,
                [0.0, 1.0],
                &Place { start: 0, ..from },
                &to,
            )
            .unwrap();
            let time = nanoseconds(|| layer.run(input, output).unwrap());
            println!("  mean {rows}x{columns} {channels}: {:.2} us", time / 1000.0);
        }
        for (inputs, outputs) in [(640, 128), (128, 128), (128, 8), (8, 128), (128, 640), (64, 12), (256, 2)]
        {
            let weights = vec![0.25; inputs * outputs];
            let bits = vec![0x3400; inputs * outputs];
            let (bias, input, output) = (vec![0.0; outputs], &vec![0.5; inputs], &mut vec![0.0; outputs]);
            for (kind, stored) in [("f32", Weights::Single(&weights)), ("f16", Weights::Half(&bits))] {
                let layer = Dense::new(width, inputs, stored, &bias, [0.0, 1e9]).unwrap();
                let time = nanoseconds(|| layer.run(input, output).unwrap());
                println!(
                    "  dense {inputs}->{outputs} {kind}: {:.3} us, {:.1} %",
                    time / 1000.0,
                    100.0 * (inputs * outputs) as f64 / time / peak
                );
            }
        }
    }
}
