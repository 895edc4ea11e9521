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

/// Layers of known networks and the instructions per multiply-add that CMSIS-NN's int8 kernels take for them at -O3, in the order of [`LAYER_BOARDS`], where
/// they were counted; other versions are those of [`PEER`].
pub const LAYERS: [(&str, [Option<f64>; LAYER_BOARDS.len()]); 10] = [
    ("conv 3x3 32x32 16>16", [Some(7.55), Some(3.33), Some(2.33), None, Some(2.33), Some(0.388)]),
    ("conv 3x3 8x8 64>64", [Some(6.33), Some(2.67), Some(1.76), None, Some(1.76), Some(0.206)]),
    ("conv 3x3 32x32 3>16", [Some(11.7), Some(5.45), Some(4.82), None, Some(4.80), Some(1.355)]),
    ("pointwise 25x5 64>64", [Some(7.57), Some(3.11), Some(2.09), None, Some(2.08), Some(0.396)]),
    ("pointwise 6x6 128>128", [Some(6.88), Some(2.88), Some(1.83), None, Some(1.83), Some(0.282)]),
    ("depthwise 3x3 25x5 64", [Some(35.6), Some(9.37), Some(8.33), None, Some(8.25), Some(2.32)]),
    ("depthwise 3x3 48x48 8", [Some(39.9), Some(10.8), Some(9.95), None, Some(9.81), Some(5.21)]),
    ("dense 640>128", [Some(6.19), Some(3.44), Some(1.95), None, Some(1.95), Some(0.490)]),
    ("dense 128>128", [Some(6.80), Some(3.67), Some(2.27), None, Some(2.27), Some(0.576)]),
    ("dense 64>12", [Some(7.84), Some(4.10), Some(2.83), None, Some(2.83), Some(0.875)]),
];

/// A board for each emulated core, with the core's name in tables.
pub const LAYER_BOARDS: [(&str, &str); 6] = [
    ("M0", "qemu-m0"),
    ("M3", "qemu-m3"),
    ("M4F", "qemu-m4"),
    ("M7", "qemu-m7"),
    ("M33", "qemu-m33"),
    ("M55", "qemu-m55"),
];
