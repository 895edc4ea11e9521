//! Kernels of aarch64 hosts: NEON, which all of them have, and its dot product where the processor says so. They are layers of prepared programs
//! ([`crate::host`]).
#![allow(unsafe_code)]

mod arithmetic;
mod conv;
mod depthwise;
mod elementwise;
mod layer;
mod requantize;

use std::arch::is_aarch64_feature_detected;

use super::vector::int8::Int8;
use crate::Step;
use crate::host::program::form::{Element, Image};
use crate::host::program::{Constants, Kernels, Layer, Wants};
use arithmetic::{Dot, Long};

/// NEON with products of four bytes at a time (`SDOT`).
#[derive(Debug)]
struct NeonDot;

/// NEON as all processors have it.
#[derive(Debug)]
struct Neon;

/// The sets of kernels that the processor runs, the fastest first.
pub fn available() -> impl Iterator<Item = &'static dyn Kernels> {
    let neon = is_aarch64_feature_detected!("neon");
    let dot = neon && is_aarch64_feature_detected!("dotprod");
    let neon: Option<&'static dyn Kernels> = if neon { Some(&Neon) } else { None };
    let dot: Option<&'static dyn Kernels> = if dot { Some(&NeonDot) } else { None };
    [dot, neon].into_iter().flatten()
}

/// What both sets want: integers and floats as the blob has them.
fn wants(step: &Step<'_>) -> Option<Wants> {
    Some(Int8::of(step)?.wants(Element::Stored))
}

impl Kernels for NeonDot {
    fn name(&self) -> &'static str {
        "aarch64-neon-dotprod"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        wants(step)
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        layer::int8::<Dot>(&Int8::of(step)?, inputs, output, constants)
    }
}

impl Kernels for Neon {
    fn name(&self) -> &'static str {
        "aarch64-neon"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        wants(step)
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        layer::int8::<Long>(&Int8::of(step)?, inputs, output, constants)
    }
}
