//! Layers of known networks.

use tucano::blob::DType;
use tucano::ops::window::Axis;

use super::{Kind, ONE, Shape, axis};

/// Name, extents.
pub fn known() -> [(&'static str, Shape); 61] {
    let base = Shape {
        kind: Kind::Conv,
        batch: 1,
        rows: ONE,
        columns: ONE,
        inputs: 1,
        outputs: 1,
        groups: 1,
        types: [DType::I8, DType::I8],
        in_place: false,
        winograd: false,
        linear: false,
    };
    let pointwise = |h: usize, w: usize, inputs: usize, outputs: usize| Shape {
        rows: axis(h, 1, 1, 1, [0, 0]),
        columns: axis(w, 1, 1, 1, [0, 0]),
        inputs,
        outputs,
        ..base
    };
    let conv = |h: usize, inputs: usize, outputs: usize, stride: usize| {
        let pads = if stride == 1 { [1, 1] } else { [0, 1] };
        let side = axis(h, 3, stride, 1, pads);
        Shape { rows: side, columns: side, inputs, outputs, ..base }
    };
    let depthwise = |h: usize, w: usize, channels: usize, stride: usize| {
        let pads = if stride == 1 { [1, 1] } else { [0, 1] };
        Shape {
            kind: Kind::Depthwise,
            rows: axis(h, 3, stride, 1, pads),
            columns: axis(w, 3, stride, 1, pads),
            inputs: channels,
            outputs: channels,
            groups: channels,
            ..base
        }
    };
    let multiplied = |h: usize, channels: usize, factor: usize, stride: usize| Shape {
        outputs: factor * channels,
        ..depthwise(h, h, channels, stride)
    };
    // One row of outputs within an image, as a region asks for.
    let row = |shape: Shape| {
        let rows = Axis { input: shape.rows.kernel, output: 1, pad: 0, ..shape.rows };
        Shape { rows, ..shape }
    };
    let dense = |inputs: usize, outputs: usize| Shape { kind: Kind::Dense, inputs, outputs, ..base };
    let flat = |shape: Shape| Shape { columns: axis(shape.columns.input, 1, 1, 1, [0, 0]), ..shape };
    let wider = |shape: Shape| {
        let side = axis(shape.rows.input, 5, 1, 1, [2, 2]);
        Shape { rows: side, columns: side, ..shape }
    };
    let wide = |shape: Shape, types: [DType; 2]| Shape { types, ..shape };
    let in_place = |shape: Shape| Shape { in_place: true, ..shape };
    let transformed = |shape: Shape| Shape { winograd: true, ..shape };
    // A factor of another layer.
    let factor = |shape: Shape| Shape { linear: true, ..shape };
    let tall = |shape: Shape| Shape { rows: axis(shape.rows.input, 3, 1, 1, [1, 1]), ..shape };
    let flat_rows = |shape: Shape| Shape { columns: axis(shape.columns.input, 3, 1, 1, [1, 1]), ..shape };
    [
        ("pointwise 25x5 64>64", pointwise(25, 5, 64, 64)),
        ("pointwise 25x5 64>64 in place", in_place(pointwise(25, 5, 64, 64))),
        ("pointwise 6x6 128>128", pointwise(6, 6, 128, 128)),
        ("pointwise 48x48 8>16", pointwise(48, 48, 8, 16)),
        ("pointwise 24x24 16>32", pointwise(24, 24, 16, 32)),
        ("pointwise 12x12 32>64", pointwise(12, 12, 32, 64)),
        ("pointwise 25x5 64>64 in 4 groups", Shape { groups: 4, ..pointwise(25, 5, 64, 64) }),
        ("pointwise 12x12 128>128 in 4 groups", Shape { groups: 4, ..pointwise(12, 12, 128, 128) }),
        ("conv 3x3 16x16 64>64 in 4 groups", Shape { groups: 4, ..conv(16, 64, 64, 1) }),
        ("conv 3x3 8x8 64>64 in 16 groups", Shape { groups: 16, ..conv(8, 64, 64, 1) }),
        ("depthwise 3x3 6x6 128", depthwise(6, 6, 128, 1)),
        ("conv 3x3 32x32 16>16", conv(32, 16, 16, 1)),
        ("conv 3x3 32x32 16>16 in place", in_place(conv(32, 16, 16, 1))),
        ("conv 3x3 8x8 64>64", conv(8, 64, 64, 1)),
        ("winograd 32x32 16>16", transformed(conv(32, 16, 16, 1))),
        ("winograd 32x32 16>16 in place", transformed(in_place(conv(32, 16, 16, 1)))),
        ("winograd 16x16 32>32", transformed(conv(16, 32, 32, 1))),
        ("winograd 8x8 64>64", transformed(conv(8, 64, 64, 1))),
        ("conv 3x3 stride 2 32x32 16>32", conv(32, 16, 32, 2)),
        ("conv 3x3 32x32 3>16", conv(32, 3, 16, 1)),
        (
            "conv 10x4 stride 2 49x10 1>64",
            Shape {
                rows: axis(49, 10, 2, 1, [4, 5]),
                columns: axis(10, 4, 2, 1, [1, 1]),
                outputs: 64,
                ..base
            },
        ),
        ("depthwise 3x3 25x5 64", depthwise(25, 5, 64, 1)),
        ("depthwise 3x3 25x5 64 in place", in_place(depthwise(25, 5, 64, 1))),
        ("depthwise 3x3 48x48 8", depthwise(48, 48, 8, 1)),
        ("depthwise 3x3 3x3 256", depthwise(3, 3, 256, 1)),
        ("depthwise 3x3 stride 2 24x24 32", depthwise(24, 24, 32, 2)),
        ("depthwise 3x3 stride 2 32x32 16>80", multiplied(32, 16, 5, 2)),
        ("depthwise 3x3 stride 2 16x16 32>160", multiplied(16, 32, 5, 2)),
        ("depthwise 3x3 16x16 16>32", multiplied(16, 16, 2, 1)),
        ("depthwise 3x3 32x32 24", depthwise(32, 32, 24, 1)),
        ("depthwise 3x3 row of 32 24", row(depthwise(32, 32, 24, 1))),
        ("depthwise 3x3 row of 32 28", row(depthwise(32, 32, 28, 1))),
        ("depthwise 3x1 32x32 24", flat(depthwise(32, 32, 24, 1))),
        ("depthwise 5x5 16x16 16>32", wider(multiplied(16, 16, 2, 1))),
        ("pointwise row of 32 16>28", row(pointwise(32, 32, 16, 28))),
        ("pointwise 32x32 16>24", pointwise(32, 32, 16, 24)),
        ("pointwise row of 32 16>24", row(pointwise(32, 32, 16, 24))),
        ("pointwise 32x32 24>16", pointwise(32, 32, 24, 16)),
        ("pointwise row of 32 24>16", row(pointwise(32, 32, 24, 16))),
        ("factor 1x1 32x32 8>16", factor(pointwise(32, 32, 8, 16))),
        ("factor 1x1 32x32 16>8", factor(pointwise(32, 32, 16, 8))),
        ("factor 1x1 16x16 24>32", factor(pointwise(16, 16, 24, 32))),
        ("factor 1x1 8x8 32>64", factor(pointwise(8, 8, 32, 64))),
        ("factor 1x1 row of 8 16>16", factor(row(pointwise(8, 8, 16, 16)))),
        ("factor 1x1 row of 32 16>16", factor(row(pointwise(32, 32, 16, 16)))),
        ("factor 3x1 32x32 16>8", factor(tall(pointwise(32, 32, 16, 8)))),
        ("factor 1x3 32x32 8>16", factor(flat_rows(pointwise(32, 32, 8, 16)))),
        ("factor 1x3 row of 8 16>16", factor(row(flat_rows(pointwise(8, 8, 16, 16))))),
        ("factor 3x3 16x16 12>12", factor(conv(16, 12, 12, 1))),
        ("factor 3x3 16x16 16>16", factor(conv(16, 16, 16, 1))),
        ("factor depthwise 3x3 32x32 8", factor(depthwise(32, 32, 8, 1))),
        ("factor depthwise 3x3 stride 2 32x32 16>64", factor(multiplied(32, 16, 4, 2))),
        ("dense 640>128", dense(640, 128)),
        ("dense 128>128", dense(128, 128)),
        ("dense 64>12", dense(64, 12)),
        ("pointwise 25x5 64>16 i16 i8", wide(pointwise(25, 5, 64, 16), [DType::I16, DType::I8])),
        ("pointwise 25x5 16>64 i8 i16", wide(pointwise(25, 5, 16, 64), [DType::I8, DType::I16])),
        ("dense 640>32 i8 i16", wide(dense(640, 32), [DType::I8, DType::I16])),
        ("dense 32>128 i16 i8", wide(dense(32, 128), [DType::I16, DType::I8])),
        ("depthwise 3x3 25x5 16 i16 i16", wide(depthwise(25, 5, 16, 1), [DType::I16; 2])),
        ("depthwise 3x3 25x5 64 i8 i16", wide(depthwise(25, 5, 64, 1), [DType::I8, DType::I16])),
    ]
}
