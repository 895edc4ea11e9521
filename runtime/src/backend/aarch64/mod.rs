//! Kernels of aarch64 hosts: NEON, which all of them have, and its dot product where the processor says so. They are layers of prepared programs
//! ([`crate::host`]).
#![allow(unsafe_code)]

mod arithmetic;
mod conv;
mod depthwise;
mod elementwise;
mod float;
mod integers;
mod requantize;

use std::arch::is_aarch64_feature_detected;

use super::vector::int8::Int8;
use crate::Step;
use crate::host::program::form::{Element, Image};
use crate::host::program::{Constants, Kernels, Layer, Wants};
use arithmetic::{Bytes, Dot, Long};
use float::Float;

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

/// What a set with any arithmetic of bytes wants: integers and floats as the blob has them.
fn wants(step: &Step<'_>) -> Option<Wants> {
    let integers = || Some(Int8::of(step)?.wants(Element::Stored));
    integers().or_else(|| Some(Float::of(step)?.wants()))
}

/// The layer of a step for which there are wants.
fn layer<A: Bytes>(
    step: &Step<'_>,
    inputs: &[Image],
    output: &Image,
    constants: &mut Constants,
) -> Option<Box<dyn Layer>> {
    match Int8::of(step) {
        Some(int8) => integers::layer::<A>(&int8, inputs, output, constants),
        None => Float::of(step)?.layer(step, inputs, output, constants),
    }
}

/// A set of kernels.
macro_rules! set {
    ($set:ident $name:literal $arithmetic:ty) => {
        impl Kernels for $set {
            fn name(&self) -> &'static str {
                $name
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
                layer::<$arithmetic>(step, inputs, output, constants)
            }
        }
    };
}

set!(NeonDot "aarch64-neon-dotprod" Dot);
set!(Neon "aarch64-neon" Long<false>);
