//! Cortex-M55 and M85: the vector extension.
#![allow(unsafe_code)]

mod conv2d;
mod memory;
mod product;

use super::spec::helium as spec;
use super::spec::select::{Isa, Linear, Request};
use super::{Backend, Integers, IntegersMut, scalar};
use crate::blob::DType;
use crate::ops::linear::Integer;
use crate::ops::window::Window;
use product::Width;

/// Kernels for cores with the vector extension.
#[derive(Clone, Copy, Debug)]
pub struct Helium(());

impl Helium {
    /// The token; `None` on a core without the extension. The start-up code must have enabled coprocessors 10 and 11, which hold the
    /// vector registers (`CPACR`, bits 20 to 23).
    pub fn detect() -> Option<Self> {
        const FEATURES: *const u32 = 0xE000_EF44 as *const u32;
        // SAFETY: MVFR1, a read-only register of every core of the profile that this is built for.
        let features = unsafe { FEATURES.read_volatile() };
        // The field `MVE`: 0 without, 1 for integers, 2 with floats.
        (features >> 8 & 0xF != 0).then_some(Self(()))
    }
}

impl Backend for Helium {
    const NAME: &'static str = "helium";
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
        };
        match spec::conv2d(&request) {
            Some(conv) if spec::conv2d_scratch(window, DType::I8, &conv) <= scratch.len() => {
                let input = input.map(bytemuck::cast_slice);
                let output = bytemuck::cast_slice_mut(output);
                conv2d::conv2d(conv, window, linear, Width::Narrow, input, output, scratch)
            }
            _ => scalar::conv2d::conv2d_i8(window, groups, linear, input, output, scratch),
        }
    }

    fn conv2d_i16(
        self,
        window: &Window,
        groups: usize,
        linear: &Integer<'_>,
        input: Integers<'_>,
        output: IntegersMut<'_>,
        scratch: &mut [u8],
    ) -> Option<()> {
        let (width, input_type) = match (&input, &output) {
            (Integers::I8(_), IntegersMut::I8(_)) => return None,
            (Integers::I8(_), IntegersMut::I16(_)) => (Width::Widening, DType::I8),
            (Integers::I16(_), IntegersMut::I8(_)) => (Width::Narrowing, DType::I16),
            (Integers::I16(_), IntegersMut::I16(_)) => (Width::Wide, DType::I16),
        };
        let request = Request {
            linear: Linear::Conv2d { window: *window, groups },
            input: input_type,
            output: DType::I16,
            packing: linear.packing,
            in_place: false,
        };
        match spec::conv2d(&request) {
            Some(conv) if spec::conv2d_scratch(window, input_type, &conv) <= scratch.len() => {
                let input = match input {
                    Integers::I8(input) => bytemuck::cast_slice(input),
                    Integers::I16(input) => bytemuck::cast_slice(input),
                };
                let output = match output {
                    IntegersMut::I8(output) => bytemuck::cast_slice_mut(output),
                    IntegersMut::I16(output) => bytemuck::cast_slice_mut(output),
                };
                conv2d::conv2d(conv, window, linear, width, Some(input), output, scratch)
            }
            _ => scalar::conv2d::conv2d_i16(window, groups, linear, input, output),
        }
    }
}
