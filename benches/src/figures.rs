//! What is measured of a network on emulated boards, and the same figures of TensorFlow Lite Micro.
//!
//! Executed instructions are not cycles. They are counted around one inference in the emulator, and repeat to the instruction.

use tucano_converter::boards::firmware::OptLevel;

/// A figure of a network; of each, less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Executed instructions of one inference on the board of that name, code built at opt-level 3.
    Instructions(&'static str),
    /// Bytes of working memory.
    Arena,
    /// Bytes of stack at the deepest point of an inference on `qemu-m4`.
    Stack,
    /// Bytes of flash of code on the board of that name, without the model and without the harness.
    Code(&'static str, OptLevel),
}

/// All figures with their names in tables.
pub const FIGURES: [(&str, Figure); 11] = [
    ("M0", Figure::Instructions("qemu-m0")),
    ("M3", Figure::Instructions("qemu-m3")),
    ("M4F", Figure::Instructions("qemu-m4")),
    ("M7", Figure::Instructions("qemu-m7")),
    ("M33", Figure::Instructions("qemu-m33")),
    ("M55", Figure::Instructions("qemu-m55")),
    ("arena", Figure::Arena),
    ("stack M4", Figure::Stack),
    ("code M4 s", Figure::Code("qemu-m4", OptLevel::S)),
    ("code M4 3", Figure::Code("qemu-m4", OptLevel::Three)),
    ("code M0 3", Figure::Code("qemu-m0", OptLevel::Three)),
];

/// A model of the MLPerf Tiny benchmark and what its int8 form takes elsewhere.
#[derive(Debug)]
pub struct Benchmark {
    /// Its usual name.
    pub name: &'static str,
    /// Its file in the zoo, a float model.
    pub model: &'static str,
    /// The zoo's file of samples.
    pub data: &'static str,
    /// The peer's figures, in the order of [`FIGURES`].
    pub peer: [f64; FIGURES.len()],
}

/// Where [`Benchmark::peer`] comes from.
pub const PEER: &str = "TensorFlow Lite Micro of 2026-08 with CMSIS-NN of 2026-07, arm-none-eabi-gcc 12.2, qemu-system-arm 7.2; only \
                        the operators in use are linked; instructions at -O3, code at -Os and -O3, arena as really used on M4";

/// The four models.
pub const BENCHMARKS: [Benchmark; 4] = [
    Benchmark {
        name: "KWS DS-CNN",
        model: "mlperf/kws_dscnn_f32_nchw.onnx",
        data: "data/kws_f32.npz",
        peer: [
            29.02e6, 10.55e6, 7.849e6, 7.765e6, 7.804e6, 1.789e6, 22820.0, 900.0, 44986.0, 54522.0, 57428.0,
        ],
    },
    Benchmark {
        name: "IC ResNet8",
        model: "mlperf/resnet8_f32_nchw.onnx",
        data: "mlperf/resnet8_f32_nchw.npz",
        peer: [
            97.57e6, 41.76e6, 29.87e6, 29.94e6, 29.93e6, 4.812e6, 54996.0, 900.0, 42086.0, 53798.0, 57244.0,
        ],
    },
    Benchmark {
        name: "VWW MobileNetV1-0.25",
        model: "mlperf/vww_mbv1_f32_nchw.onnx",
        data: "mlperf/vww_mbv1_f32_nchw.npz",
        peer: [
            86.88e6, 32.08e6, 24.72e6, 24.48e6, 24.54e6, 6.433e6, 100708.0, 900.0, 44986.0, 54522.0, 57428.0,
        ],
    },
    Benchmark {
        name: "AD autoencoder",
        model: "mlperf/ad_fcae_f32_gemm.onnx",
        data: "mlperf/ad_fcae_f32_gemm.npz",
        peer: [
            1.763e6, 0.956e6, 0.582e6, 0.583e6, 0.583e6, 0.150e6, 2580.0, 660.0, 21998.0, 27374.0, 31224.0,
        ],
    },
];
