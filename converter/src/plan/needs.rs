//! What a step needs in the arena besides its input and its output, on a target.
//!
//! Takes a linear layer's shape, its types and the target's instruction set; gives the scratch of the kernel that will run, with the output apart from the
//! input and in its place. Planner, memory model of the search and emission ask the same functions, so a plan is what a board needs.

use std::collections::BTreeSet;

use tucano::backend::spec::dsp::{depthwise, gemm};
use tucano::backend::spec::elementwise::add_scratch;
use tucano::backend::spec::select::{
    Constants, Isa, Linear, Request, SCALAR, Selection, least_scratch, packing, select,
};
use tucano::blob::{DType, Packing, RegionRecord, folded_bias, is_narrow};
use tucano::ops::linear::Integer;
use tucano::ops::window::{Axis, Window};
use tucano::{Model, OpSet};

use crate::calibrate::covariance::Geometry;
use crate::quantize;

/// Scratch of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes where the output lies apart from the input.
    pub apart: usize,
    /// Bytes where the output replaces the input; `None`: it may not.
    pub in_place: Option<usize>,
    /// Its rows, if it can run some of them at a time.
    pub rows: Option<StageRows>,
    /// Whether it reads a value between two stages of a factorised layer.
    pub inner: bool,
}

/// Rows of a step's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageRows {
    /// On which rows of the input they depend.
    pub axis: Axis,
    /// Bytes of each.
    pub bytes: usize,
}

/// What a linear layer calculates with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of input and output.
    pub types: [DType; 2],
    /// Whether weights have 4 bits.
    pub four_bits: bool,
    /// Whether all outputs are narrow ([`is_narrow`]); `None`: not known yet.
    pub narrow: Option<bool>,
    /// As [`quantize::Layer::transformed`].
    pub transformed: bool,
}

impl Numbers {
    /// For elements of these widths and weights that nobody knows yet.
    pub fn of_widths(bytes: [usize; 2], four_bits: bool) -> Self {
        let types = bytes.map(|bytes| match bytes {
            1 => DType::I8,
            2 => DType::I16,
            _ => DType::F32,
        });
        Self { types, four_bits: four_bits && types == [DType::I8; 2], narrow: None, transformed: false }
    }

    /// Whether backends have kernels of their own.
    pub fn have_kernels(&self) -> bool {
        !self.types.contains(&DType::F32) && !self.four_bits
    }
}

impl Needs {
    /// Of a linear layer. `dense`: whether it is a dense layer; `None`: of one that may be.
    pub fn of(isa: Isa, layer: &Geometry, dense: Option<bool>, numbers: Numbers) -> Self {
        let rows = rows(layer, numbers);
        if !numbers.have_kernels() {
            return Self { rows, ..Self::default() };
        }
        let scratch = |linear: Linear, in_place: bool| scratch(isa, linear, numbers, in_place);
        let apart = operators(layer, dense).into_iter().flatten().map(|linear| scratch(linear, false));
        // A dense layer has the geometry of a convolution of one pixel, which so has no place in its input either.
        let replaces = numbers.types == [DType::I8; 2] && !is_pixel(layer) && window(layer).replaces_input();
        Self {
            apart: apart.max().unwrap_or(0),
            in_place: replaces.then(|| scratch(convolution(layer), true)),
            rows,
            inner: false,
        }
    }
}

/// Rows of a layer that the runtime can run some at a time: of one image, with weights of whole bytes.
fn rows(layer: &Geometry, numbers: Numbers) -> Option<StageRows> {
    let window = window(layer);
    let row = window.columns.output * window.outputs * numbers.types[1].bytes();
    let legal = window.batch == 1 && window.rows.output > 1 && !numbers.four_bits;
    legal.then_some(StageRows { axis: window.rows, bytes: row })
}

/// Scratch of a layer with the weights as the target wants them; the most where that is not known.
fn scratch(isa: Isa, linear: Linear, numbers: Numbers, in_place: bool) -> usize {
    let bytes = |narrow: bool| {
        let request = match numbers.transformed {
            true => request_transformed(isa, linear, numbers.types, narrow, in_place),
            false => request(isa, linear, numbers.types, narrow, in_place),
        };
        select(isa, &request).scratch_bytes.max(least_scratch(&request))
    };
    numbers.narrow.map_or_else(|| bytes(true).max(bytes(false)), bytes)
}

/// Scratch of a sum of so many elements, in the place of its first operand or apart.
pub fn sum_scratch(isa: Isa, types: [DType; 2], elements: usize) -> usize {
    if types == [DType::I8; 2] { add_scratch(isa, elements) } else { 0 }
}

/// Most bytes that the 8-bit weights of a layer may take in a target's order.
pub fn weight_bytes(isa: Isa, layer: &Geometry) -> usize {
    const TYPES: [[DType; 2]; 3] = [[DType::I8, DType::I8], [DType::I8, DType::I16], [DType::I16, DType::I8]];
    let mut most = 0;
    for linear in operators(layer, None).into_iter().flatten() {
        for (types, narrow, in_place) in TYPES.into_iter().flat_map(|types| {
            [(true, true), (true, false), (false, true), (false, false)].map(|(a, b)| (types, a, b))
        }) {
            let packing = request(isa, linear, types, narrow, in_place).packing;
            let bytes = linear.matrix().and_then(|matrix| matrix.bytes(packing));
            most = most.max(bytes.unwrap_or(0));
        }
    }
    most
}

/// What a step asks of a backend, in the order of weights that this one wants.
pub fn request(isa: Isa, linear: Linear, types: [DType; 2], narrow: bool, in_place: bool) -> Request {
    let [input, output] = types;
    let constants = Constants::USUAL;
    let request = Request { linear, input, output, packing: Packing::Rows, in_place, constants };
    Request { packing: packing(isa, &request, narrow), ..request }
}

/// As [`request`], with transformed weights if this backend has a kernel for them.
pub fn request_transformed(
    isa: Isa,
    linear: Linear,
    types: [DType; 2],
    narrow: bool,
    in_place: bool,
) -> Request {
    let plain = request(isa, linear, types, narrow, in_place);
    let transformed = Request { packing: Packing::Winograd, ..plain };
    if select(isa, &transformed).name == SCALAR { plain } else { transformed }
}

/// The operator of a layer that is no dense one.
pub fn convolution(layer: &Geometry) -> Linear {
    let window = window(layer);
    match layer.groups > 1 && layer.groups == layer.input[0] {
        true => Linear::DepthwiseConv2d { window },
        false => Linear::Conv2d { window, groups: layer.groups },
    }
}

/// The operators that a layer may be.
fn operators(layer: &Geometry, dense: Option<bool>) -> [Option<Linear>; 2] {
    let rows = Linear::Dense { inputs: layer.input[0], outputs: layer.output[0] };
    [
        Some(convolution(layer)).filter(|_| dense != Some(true)),
        Some(rows).filter(|_| dense.unwrap_or_else(|| is_pixel(layer))),
    ]
}

/// Whether a layer sees one pixel: it may be a dense layer.
pub fn is_pixel(layer: &Geometry) -> bool {
    layer.kernel == [1, 1] && layer.input[1..] == [1, 1] && layer.groups == 1
}

/// Windows of a layer.
pub fn window(layer: &Geometry) -> Window {
    let axis = |k: usize| Axis {
        input: layer.input[k + 1],
        output: layer.output[k + 1],
        kernel: layer.kernel[k],
        stride: layer.strides[k],
        dilation: layer.dilations[k],
        pad: layer.pads[k],
    };
    Window {
        batch: layer.images,
        rows: axis(0),
        columns: axis(1),
        inputs: layer.input[0],
        outputs: layer.output[0],
    }
}

/// Whether all outputs of an integer layer, whose input has this zero point, are narrow.
pub fn all_narrow(layer: &quantize::Layer, zero_point: i32) -> bool {
    let row = (layer.weights.len() / layer.bias.len().max(1)).max(1);
    layer.weights.chunks(row).zip(&layer.bias).all(|(weights, &bias)| {
        let weights = weights.iter().copied();
        is_narrow(weights.clone(), folded_bias(weights, zero_point, bias))
    })
}

/// Names of the kernels that a model's steps take on a target, ascending: what its firmware has to link.
pub fn kernels<O: OpSet>(model: &Model<'_, O>, isa: Isa) -> Vec<&'static str> {
    let mut names = BTreeSet::new();
    for step in model.steps() {
        let name = step.selection(isa).name;
        let Some(request) = Request::of(&step) else {
            // Operators without a choice are linked in any case: reports ask for these names.
            names.extend(Some(name).filter(|name| *name != SCALAR));
            continue;
        };
        names.insert(name);
        if isa == Isa::ThumbDsp {
            names.extend(stride_of_strips(&request).or_else(|| parts_of_tiles(&request, &step)));
        }
        if region_of(model, step.index()).is_some() {
            let fits = |own: Selection| own.scratch_bytes <= step.scratch_bytes();
            names.extend(parts(request).map(|part| {
                let own = select(isa, &part);
                if fits(own) { own.name } else { SCALAR }
            }));
        }
    }
    names.into_iter().collect()
}

/// The region that a step belongs to.
pub fn region_of<O: OpSet>(model: &Model<'_, O>, step: u16) -> Option<RegionRecord> {
    let blob = model.blob();
    let mut regions = (0..blob.region_count()).filter_map(|k| blob.region(k));
    regions.find(|region| (region.first..region.end()).contains(&step))
}

/// The code for a request's stride, which a firmware names beside the kernel where strips take it.
fn stride_of_strips(request: &Request) -> Option<&'static str> {
    let Linear::DepthwiseConv2d { window } = request.linear else { return None };
    let name = if window.rows.stride == 1 { depthwise::STRIDE_1 } else { depthwise::STRIDE_2 };
    depthwise::strips(request).map(|_| name)
}

/// The code for convolutions in parts, where a step is one.
fn parts_of_tiles(request: &Request, step: &tucano::Step<'_>) -> Option<&'static str> {
    // Bounds do not matter.
    let linear = Integer::of(step, 0, 0)?;
    gemm::has_parts(request, &linear).then_some(gemm::PARTS)
}

/// What a region asks for: any number of a layer's rows, at the top of the image or within it.
fn parts(request: Request) -> impl Iterator<Item = Request> {
    let window = match request.linear {
        Linear::Conv2d { window, .. } | Linear::DepthwiseConv2d { window } => Some(window),
        Linear::Dense { .. } => None,
    };
    let parts = window.into_iter().flat_map(|window| {
        let rows = window.rows;
        (1..=rows.output).flat_map(move |output| {
            [0, rows.pad].map(|pad| {
                let reach = (output - 1) * rows.stride + rows.reach();
                let input = reach.saturating_sub(pad).clamp(1, rows.input);
                Window { rows: Axis { input, output, pad, ..rows }, ..window }
            })
        })
    });
    parts.map(move |window| {
        let linear = match request.linear {
            Linear::Conv2d { groups, .. } => Linear::Conv2d { window, groups },
            Linear::DepthwiseConv2d { .. } => Linear::DepthwiseConv2d { window },
            other @ Linear::Dense { .. } => other,
        };
        Request { linear, in_place: false, ..request }
    })
}

/// The kernel that a target has for a step which runs on portable code there, had its weights and scratch been laid out for the target.
pub fn missed(step: &tucano::Step<'_>, isa: Isa) -> Option<&'static str> {
    let stored = Request::of(step)?;
    if step.selection(isa).name != SCALAR {
        return None;
    }
    let Request { linear, input, output, in_place, .. } = stored;
    let best = request(isa, linear, [input, output], is_narrow_step(step, &stored)?, in_place);
    Some(select(isa, &best).name).filter(|name| *name != SCALAR)
}

/// Whether all outputs of a step are narrow.
fn is_narrow_step(step: &tucano::Step<'_>, request: &Request) -> Option<bool> {
    let (stored, bias) = (step.weight_i8(0)?, step.weight_i32(1)?);
    let (zero_point, matrix) = (step.input(0)?.zero_point, request.linear.matrix()?);
    let outputs = request.linear.outputs();
    for (o, &bias) in bias.iter().enumerate() {
        let weight = |k: usize| match request.linear {
            Linear::DepthwiseConv2d { .. } => stored.get(k * outputs + o).copied(),
            _ => matrix.any_weight(request.packing, stored, o, k),
        };
        let weights = (0..matrix.depth).map(weight).collect::<Option<Vec<i8>>>()?.into_iter();
        let folded = match request.packing {
            Packing::Rows => folded_bias(weights.clone(), zero_point, bias),
            _ => bias,
        };
        if !is_narrow(weights, folded) {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Numbers =
        Numbers { types: [DType::I8; 2], four_bits: false, narrow: None, transformed: false };

    fn layer() -> Geometry {
        Geometry {
            images: 1,
            input: [8, 6, 5],
            output: [8, 6, 5],
            kernel: [3, 3],
            strides: [1, 1],
            pads: [1, 1],
            dilations: [1, 1],
            groups: 8,
        }
    }

    #[test]
    fn windows_of_stride_1_replace_their_input_with_the_rows_below_them_kept() {
        let needs = |layer: Geometry, numbers| {
            let Needs { apart, in_place, .. } = Needs::of(Isa::Scalar, &layer, None, numbers);
            (apart, in_place)
        };
        let three_rows = (0, Some(3 * 5 * 8));
        assert_eq!(needs(layer(), BYTES), three_rows);
        assert_eq!(needs(Geometry { groups: 1, ..layer() }, BYTES), three_rows);
        for other in [
            Geometry { strides: [2, 2], output: [8, 3, 3], ..layer() },
            Geometry { output: [16, 6, 5], ..layer() },
            Geometry { pads: [0, 1], output: [8, 4, 5], ..layer() },
        ] {
            assert_eq!(needs(other, BYTES), (0, None), "{other:?}");
        }
        let wide = Numbers { types: [DType::I8, DType::I16], ..BYTES };
        let floats = Numbers { types: [DType::F32; 2], ..BYTES };
        for numbers in [wide, floats, Numbers { four_bits: true, ..BYTES }] {
            assert_eq!(needs(layer(), numbers), (0, None));
        }
        // A dense layer gives one output after the other, each of all inputs.
        let dense = Geometry {
            input: [8, 1, 1],
            output: [8, 1, 1],
            kernel: [1, 1],
            pads: [0, 0],
            groups: 1,
            ..layer()
        };
        assert_eq!(needs(dense, BYTES), (0, None));
    }

    #[test]
    fn rows_of_one_image_can_run_in_turns() {
        let rows = |layer: Geometry, numbers| {
            Needs::of(Isa::Scalar, &layer, None, numbers).rows.map(|rows| rows.bytes)
        };
        assert_eq!(rows(layer(), BYTES), Some(5 * 8));
        let floats = Numbers { types: [DType::F32; 2], ..BYTES };
        assert_eq!(rows(layer(), floats), Some(4 * 5 * 8));
        assert_eq!(rows(Geometry { images: 2, ..layer() }, BYTES), None);
        assert_eq!(rows(layer(), Numbers { four_bits: true, ..BYTES }), None);
    }

    #[test]
    fn what_is_not_known_is_counted_at_its_most() {
        for isa in [Isa::Scalar, Isa::ThumbV6M, Isa::ThumbV7M, Isa::ThumbDsp, Isa::Helium] {
            for layer in [layer(), Geometry { groups: 1, ..layer() }] {
                let unknown = Needs::of(isa, &layer, None, BYTES);
                for narrow in [true, false] {
                    let known = Needs::of(isa, &layer, None, Numbers { narrow: Some(narrow), ..BYTES });
                    assert!(known.apart <= unknown.apart && known.in_place <= unknown.in_place);
                }
            }
        }
    }
}
