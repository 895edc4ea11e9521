//! Kernels of x86 hosts, chosen by what the processor says at run time. They are layers of prepared programs ([`crate::host`]).
#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod f32;
mod int16;
mod lanes;
mod layer;
pub mod peak;
mod pool;
pub mod probe;
mod requantize;
mod steps;

use std::arch::is_x86_feature_detected;

use super::vector::int8::Int8;
use super::vector::{geometry, sum, walk};
use crate::Step;
use crate::host::program::form::{Element, Image};
use crate::host::program::{Constants, Kernels, Layer, Wants};
use steps::Width;

/// AVX-512: foundation, bytes and words, doublewords and quadwords, vector length, neural network instructions.
#[derive(Debug)]
struct Avx512Vnni;

/// AVX-512 for floats, AVX2 for integers.
#[derive(Debug)]
struct Avx512;

/// AVX2 with fused multiply-add.
#[derive(Debug)]
struct Avx2;

/// The sets of kernels that the processor runs, the fastest first.
pub fn available() -> impl Iterator<Item = &'static dyn Kernels> {
    let avx2 = f32::Width::avx2().is_some();
    let vnni = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    let avx2: Option<&'static dyn Kernels> = if avx2 { Some(&Avx2) } else { None };
    let vnni: Option<&'static dyn Kernels> = if vnni { Some(&Avx512Vnni) } else { None };
    let avx512: Option<&'static dyn Kernels> =
        if f32::Width::avx512().is_some() { Some(&Avx512) } else { None };
    [vnni, avx512, avx2].into_iter().flatten()
}

impl Kernels for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86-avx512-vnni"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        match Int8::of(step) {
            Some(int8) => Some(int8.wants(Element::Offset8)),
            None => steps::wants(step, Width::Bits512).or_else(|| f32::wants(step)),
        }
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        if let Some(int8) = Int8::of(step) {
            return int8.avx512(inputs, output, constants);
        }
        match steps::layer(step, Width::Bits512, inputs, output, constants) {
            Some(layer) => layer,
            None => f32::layer(f32::Width::avx512()?, step, inputs, output),
        }
    }
}

impl Kernels for Avx512 {
    fn name(&self) -> &'static str {
        "x86-avx512"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        f32::wants(step).or_else(|| Avx2.wants(step))
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        match f32::wants(step) {
            Some(_) => f32::layer(f32::Width::avx512()?, step, inputs, output),
            None => Avx2.layer(step, inputs, output, constants),
        }
    }
}

impl Kernels for Avx2 {
    fn name(&self) -> &'static str {
        "x86-avx2"
    }

    fn wants(&self, step: &Step<'_>) -> Option<Wants> {
        match Int8::of(step) {
            Some(int8) => Some(int8.wants(Element::Offset16)),
            None => steps::wants(step, Width::Bits256).or_else(|| f32::wants(step)),
        }
    }

    fn layer(
        &self,
        step: &Step<'_>,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        if let Some(int8) = Int8::of(step) {
            return int8.avx2(inputs, output, constants);
        }
        match steps::layer(step, Width::Bits256, inputs, output, constants) {
            Some(layer) => layer,
            None => f32::layer(f32::Width::avx2()?, step, inputs, output),
        }
    }
}
