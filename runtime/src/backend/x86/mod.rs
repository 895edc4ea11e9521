//! Kernels of x86 hosts, chosen by what the processor says at run time. They are layers of prepared programs ([`crate::host`]).
#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod geometry;
mod layer;
pub mod peak;
mod requantize;
mod sum;
#[cfg(test)]
mod tests;
mod walk;

use std::arch::is_x86_feature_detected;

use crate::Step;
use crate::host::program::form::{Element, Image};
use crate::host::program::{Constants, Kernels, Layer, Wants};

/// AVX-512: foundation, bytes and words, doublewords and quadwords, vector length, neural network instructions.
#[derive(Debug)]
struct Avx512Vnni;

/// AVX2 with fused multiply-add.
#[derive(Debug)]
struct Avx2;

/// The sets of kernels that the processor runs, the fastest first.
pub fn available() -> impl Iterator<Item = &'static dyn Kernels> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let vnni = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    let avx2: Option<&'static dyn Kernels> = if avx2 { Some(&Avx2) } else { None };
    let vnni: Option<&'static dyn Kernels> = if vnni { Some(&Avx512Vnni) } else { None };
    [vnni, avx2].into_iter().flatten()
}

impl Kernels for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86-avx512-vnni"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        Some(layer::Int8::of(step)?.wants(Element::Offset8))
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        layer::Int8::of(step)?.avx512(inputs, output, constants)
    }
}

impl Kernels for Avx2 {
    fn name(&self) -> &'static str {
        "x86-avx2"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        Some(layer::Int8::of(step)?.wants(Element::Offset16))
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        layer::Int8::of(step)?.avx2(inputs, output, constants)
    }
}
