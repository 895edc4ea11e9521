//! Cortex-M55 and M85: the vector extension.
#![allow(unsafe_code)]

mod conv2d;
mod dense;
mod depthwise;
mod depthwise3;
mod elementwise;
#[cfg(target_abi = "eabihf")]
mod float;
mod grouped;
mod memory;
mod pool2d;
mod product;
mod strips;

use core::marker::PhantomData;

#[cfg(target_abi = "eabihf")]
use super::float as layers;
use super::kernels::links;
#[cfg(target_abi = "eabihf")]
use super::scalar;
use super::scalar::compact::{self, Order};
use super::scalar::in_place::apart_or_in_place;
use super::spec::helium as spec;
use super::spec::select::{Constants, Isa, Linear, Request};
use super::{AllKernels, Backend, Integers, IntegersMut, Kernels};
use crate::blob::{DType, Packing};
#[cfg(target_abi = "eabihf")]
use crate::ops::linear::Float;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use crate::ops::{add, mean};
use grouped::grouped;
use product::Width;

/// Kernels for cores with the vector extension.
#[derive(Clone, Copy, Debug)]
pub struct Helium<K = AllKernels>(PhantomData<K>);

impl<K> Helium<K> {
    /// The token; `None` on a core without the extension. The start-up code must have enabled coprocessors 10 and 11, which hold the
    /// vector registers (`CPACR`, bits 20 to 23).
    pub fn detect() -> Option<Self> {
        const FEATURES: *const u32 = 0xE000_EF44 as *const u32;
        // SAFETY: MVFR1, a read-only register of every core of the profile that this is built for.
        let features = unsafe { FEATURES.read_volatile() };
        // The field `MVE`: 0 without, 1 for integers, 2 with floats.
        (features >> 8 & 0xF != 0).then_some(Self(PhantomData))
    }
}

impl<K: Kernels> Backend for Helium<K> {
    const NAME: &'static str = "helium";
    const KERNELS: Option<&'static [&'static str]> = K::NAMES;
    const ISA: Isa = Isa::Helium;

    fn conv2d_i8(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        let request = Request {
            linear: Linear::Conv2d { window: *window, groups },
            input: DType::I8,
            output: DType::I8,
            packing: linear.packing,
            in_place: input.is_none(),
            constants: Constants::USUAL,
        };
        match spec::conv2d(&request) {
            Some(conv)
                if linked::<K>(&conv)
                    && spec::conv2d_scratch(window, groups, DType::I8, &conv) <= scratch.len() =>
            {
                let input = input.map(bytemuck::cast_slice);
                let output = bytemuck::cast_slice_mut(output);
                conv2d::conv2d::<K>(conv, window, groups, linear, Width::Narrow, input, output, scratch)
            }
            _ if const { links::<K>("helium grouped") } && linear.packing == Packing::Rows => {
                plain(window, groups, Order::Outputs, linear, input, output, scratch)
            }
            _ => compact::bytes::<K>(window, groups, Order::Outputs, linear, input, output, scratch),
        }
    }

    fn conv2d_i16(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let (width, input_type) = widths(&input, &output)?;
        let request = Request {
            linear: Linear::Conv2d { window: *window, groups },
            input: input_type,
            output: DType::I16,
            packing: linear.packing,
            in_place: false,
            constants: Constants::USUAL,
        };
        match spec::conv2d(&request) {
            Some(conv)
                if linked::<K>(&conv)
                    && spec::conv2d_scratch(window, groups, input_type, &conv) <= scratch.len() =>
            {
                let input = Some(bytes(input));
                conv2d::conv2d::<K>(conv, window, groups, linear, width, input, bytes_mut(output), scratch)
            }
            _ if const { links::<K>("helium grouped") } && linear.packing == Packing::Rows => {
                grouped(window, groups, Order::Outputs, linear, width, bytes(input), bytes_mut(output))
            }
            _ => compact::layer::<K>(window, groups, Order::Outputs, linear, input, &mut output),
        }
    }

    fn depthwise_conv2d_i8(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Option<&[i8]>,
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        let fits =
            |plan: &spec::Depthwise3| linear.packing == Packing::Rows && plan.scratch() <= scratch.len();
        let fitting = spec::Depthwise3::new(window, input.is_none()).filter(fits);
        if let Some((plan, kernels)) = fitting.and_then(|plan| Some((plan, depthwise3_kernels::<K>(&plan)?)))
        {
            let (input, output) = (input.map(bytemuck::cast_slice), bytemuck::cast_slice_mut(output));
            return depthwise3::depthwise3(&plan, kernels, window, linear, input, output, scratch);
        }
        any_depthwise::<K>(window, linear, input, output, scratch)
    }

    fn depthwise_conv2d_i16(
        self,
        window: &Window,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let _ = scratch;
        let (width, input_type) = widths(&input, &output)?;
        let request = Request {
            linear: Linear::DepthwiseConv2d { window: *window },
            input: input_type,
            output: DType::I16,
            packing: linear.packing,
            in_place: false,
            constants: Constants::USUAL,
        };
        if let Some((plan, kernels)) = depthwise_of::<K>(&request) {
            return depthwise::depthwise(
                plan,
                kernels,
                window,
                linear,
                width,
                bytes(input),
                bytes_mut(output),
            );
        }
        if const { links::<K>("helium grouped") } {
            return grouped(
                window,
                window.inputs,
                Order::Taps,
                linear,
                width,
                bytes(input),
                bytes_mut(output),
            );
        }
        compact::layer::<K>(window, window.inputs, Order::Taps, linear, input, &mut output)
    }

    fn dense_i8(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: &[i8],
        output: &mut [i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        match linear.packing {
            Packing::Blocks8x16
                if const { links::<K>("helium dense") }
                    && scratch.len() >= spec::dense_scratch(inputs, DType::I8) =>
            {
                let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
                dense::dense(inputs, linear, Width::Narrow, input, output, scratch)
            }
            Packing::Rows if const { links::<K>("helium grouped") } => {
                let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
                grouped::dense(inputs, linear, Width::Narrow, input, output)
            }
            _ => compact::dense::<K>(inputs, linear, Integers::I8(input), &mut IntegersMut::I8(output)),
        }
    }

    fn dense_i16(
        self,
        inputs: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        mut output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let (width, input_type) = widths(&input, &output)?;
        match linear.packing {
            Packing::Blocks8x16
                if const { links::<K>("helium dense") }
                    && scratch.len() >= spec::dense_scratch(inputs, input_type) =>
            {
                dense::dense(inputs, linear, width, bytes(input), bytes_mut(output), scratch)
            }
            Packing::Rows if const { links::<K>("helium grouped") } => {
                grouped::dense(inputs, linear, width, bytes(input), bytes_mut(output))
            }
            _ => compact::dense::<K>(inputs, linear, input, &mut output),
        }
    }

    fn max_pool2d_i8(self, window: &Window, bounds: [i8; 2], input: &[i8], output: &mut [i8]) -> Option<()> {
        pool2d::max_pool2d_i8(window, bounds, input, output)
    }

    fn average_pool2d_i8(
        self,
        window: &Window,
        padding: Option<i8>,
        bounds: [i8; 2],
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        pool2d::average_pool2d_i8(window, padding, bounds, input, output)
    }

    fn mean2d_i8(
        self,
        window: &Window,
        parameters: &mean::Parameters,
        zero_points: [i32; 2],
        input: &[i8],
        output: &mut [i8],
    ) -> Option<()> {
        pool2d::mean2d_i8(window, parameters, zero_points, input, output)
    }

    fn add_i8(
        self,
        parameters: &add::IntegerParameters,
        zero_points: [i32; 3],
        values: &mut [i8],
        second: &[i8],
        scratch: &mut [u8],
    ) -> Option<()> {
        elementwise::add_i8(parameters, zero_points, values, second, scratch)
    }

    fn table_i8(self, table: &[i8; 256], values: &mut [i8]) {
        elementwise::table_i8(table, values);
    }

    #[cfg(target_abi = "eabihf")]
    fn conv2d_f32(
        self,
        window: &Window,
        groups: usize,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        float::kernels()
            .and_then(|kernels| layers::conv2d(kernels, window, groups, linear, input, output))
            .or_else(|| scalar::conv2d::conv2d_f32(window, groups, linear, input, output))
    }

    #[cfg(target_abi = "eabihf")]
    fn depthwise_conv2d_f32(
        self,
        window: &Window,
        linear: &Float<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Option<()> {
        float::kernels()
            .and_then(|kernels| layers::depthwise_conv2d(kernels, window, linear, input, output))
            .or_else(|| scalar::depthwise_conv2d::depthwise_conv2d_f32(window, linear, input, output))
    }

    #[cfg(target_abi = "eabihf")]
    fn dense_f32(self, inputs: usize, linear: &Float<'_>, input: &[f32], output: &mut [f32]) -> Option<()> {
        float::kernels()
            .and_then(|kernels| layers::dense(kernels, inputs, linear, input, output))
            .or_else(|| scalar::dense::dense_f32(inputs, linear, input, output))
    }
}

/// Whether a convolution's kernel is linked.
fn linked<K: Kernels>(conv: &spec::Conv) -> bool {
    match conv {
        spec::Conv::Dense { .. } => const { links::<K>("helium dense") },
        spec::Conv::Pointwise { .. } => const { links::<K>("helium pointwise") },
        spec::Conv::Rows { .. } => const { links::<K>("helium rows") },
        spec::Conv::Patches { .. } => const { links::<K>("helium patches") },
    }
}

/// The kernels for a depthwise convolution of 3 x 3 that are linked.
fn depthwise3_kernels<K: Kernels>(plan: &spec::Depthwise3) -> Option<&'static depthwise3::Kernels> {
    match plan.tile {
        spec::Tile::Tall | spec::Tile::Square => {
            const { links::<K>("helium depthwise 3x3") }.then_some(&depthwise3::STRIDE_1)
        }
        spec::Tile::Apart => const { links::<K>("helium depthwise 3x3") }.then_some(&depthwise3::APART),
        spec::Tile::Wide => const { links::<K>("helium depthwise 3x3") }.then_some(&depthwise3::WIDE),
        spec::Tile::Row => const { links::<K>("helium depthwise row") }.then_some(&depthwise3::ROW),
    }
}

/// The plan for any depthwise convolution, and its kernels if they are linked.
fn depthwise_of<K: Kernels>(request: &Request) -> Option<(spec::Depthwise, &'static depthwise::Kernels)> {
    let plan = spec::depthwise(request)?;
    let kernels = match plan {
        spec::Depthwise::Beside => const { links::<K>("helium depthwise") }.then_some(&depthwise::BESIDE),
        spec::Depthwise::Shared(_) => {
            const { links::<K>("helium depthwise gather") }.then_some(&depthwise::GATHER)
        }
    };
    Some((plan, kernels?))
}

/// Depthwise convolution with any window. A function of its own, so that the stack does not hold its request where others run.
#[inline(never)]
fn any_depthwise<K: Kernels>(
    window: &Window,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let request = Request {
        linear: Linear::DepthwiseConv2d { window: *window },
        input: DType::I8,
        output: DType::I8,
        packing: linear.packing,
        in_place: input.is_none(),
        constants: Constants::USUAL,
    };
    if let Some((plan, kernels)) = depthwise_of::<K>(&request) {
        let run = |window: &Window, input: &[i8], output: &mut [i8]| {
            let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
            depthwise::depthwise(plan, kernels, window, linear, Width::Narrow, input, output)
        };
        return apart_or_in_place(window, input, output, scratch, &run);
    }
    if const { links::<K>("helium grouped") } {
        return plain(window, window.inputs, Order::Taps, linear, input, output, scratch);
    }
    compact::bytes::<K>(window, window.inputs, Order::Taps, linear, input, output, scratch)
}

/// Convolution with plain weights, apart from the input or in its place.
#[inline(never)]
fn plain(
    window: &Window,
    groups: usize,
    order: Order,
    linear: &Integer<'_>,
    input: Option<&[i8]>,
    output: &mut [i8],
    scratch: &mut [u8],
) -> Option<()> {
    let run = |window: &Window, input: &[i8], output: &mut [i8]| {
        let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
        grouped(window, groups, order, linear, Width::Narrow, input, output)
    };
    apart_or_in_place(window, input, output, scratch, &run)
}

/// What a layer from or to 16 bits makes of what; `None` if neither is.
fn widths(input: &Integers<'_>, output: &IntegersMut<'_>) -> Option<(Width, DType)> {
    match (input, output) {
        (Integers::I8(_), IntegersMut::I8(_)) => None,
        (Integers::I8(_), IntegersMut::I16(_)) => Some((Width::Widening, DType::I8)),
        (Integers::I16(_), IntegersMut::I8(_)) => Some((Width::Narrowing, DType::I16)),
        (Integers::I16(_), IntegersMut::I16(_)) => Some((Width::Wide, DType::I16)),
    }
}

fn bytes(elements: Integers<'_>) -> &[u8] {
    match elements {
        Integers::I8(elements) => bytemuck::cast_slice(elements),
        Integers::I16(elements) => bytemuck::cast_slice(elements),
    }
}

fn bytes_mut(elements: IntegersMut<'_>) -> &mut [u8] {
    match elements {
        IntegersMut::I8(elements) => bytemuck::cast_slice_mut(elements),
        IntegersMut::I16(elements) => bytemuck::cast_slice_mut(elements),
    }
}
