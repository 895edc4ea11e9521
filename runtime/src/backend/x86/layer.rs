//! Steps of integers as layers of the kernels of x86.

use super::requantize::Channel;
use crate::backend::vector::geometry::Geometry;
use crate::backend::vector::int8::{Int8, rows, taps};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Layer};
use crate::ops::linear::Integer;

/// A step as a layer of the kernels that are in scope: those of all instruction sets have the same constructors.
macro_rules! layer {
    ($step:expr, $inputs:expr, $output:expr, $constants:expr) => {{
        let (first, others) = $inputs.split_first()?;
        let (input, output) = ($step.fitting(first, $output)?, $output);
        Some(match $step {
            Self::Conv(geometry, linear) => {
                Box::new(Conv::new(geometry, linear, &rows(geometry, linear), input, output, $constants)?)
            }
            Self::Depthwise(geometry, linear) if geometry.window.inputs == geometry.window.outputs => {
                let weight = taps(geometry, linear);
                let count = geometry.window.rows.kernel * geometry.window.columns.kernel;
                let channel = |c: usize| Channel::new(linear, c, (0..count).map(|t| weight(t, c)));
                let all: Vec<Channel> = (0..geometry.window.outputs).map(channel).collect::<Option<_>>()?;
                Box::new(Depthwise::new(geometry, &all, &weight, input, output, $constants)?)
            }
            Self::Depthwise(geometry, linear) => {
                let (geometry, weight) = joined(geometry, linear);
                Box::new(Conv::new(&geometry, linear, &weight, input, output, $constants)?)
            }
            Self::Mean(geometry, p, zero_points) => {
                let area = geometry.window.rows.kernel * geometry.window.columns.kernel;
                let all = vec![Channel::mean(p, area, *zero_points); geometry.window.outputs];
                Box::new(Depthwise::new(geometry, &all, &|_, _| 1, input, output, $constants)?)
            }
            Self::Add(sum) => Box::new(elementwise::Add::new(*sum, [input, others.first()?], output)?),
            Self::MaxPool(geometry, bounds) => {
                Box::new(elementwise::MaxPool::new(geometry, *bounds, input, output)?)
            }
        })
    }};
}

impl Int8<'_> {
    /// The layer of AVX-512.
    pub fn avx512(
        &self,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        use super::avx512::{conv::Conv, dense::Dense, depthwise::Depthwise, elementwise};
        if let Self::Conv(geometry, linear) = self
            && geometry.is_one_row()
        {
            let [input] = inputs else { return None };
            let dense =
                Dense::new(linear, &rows(geometry, linear), self.fitting(input, output)?, output, constants)?;
            return Some(Box::new(dense));
        }
        layer!(self, inputs, output, constants)
    }

    /// The layer of AVX2.
    pub fn avx2(
        &self,
        inputs: &[Image],
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Box<dyn Layer>> {
        use super::avx2::{conv::Conv, depthwise::Depthwise, elementwise};
        layer!(self, inputs, output, constants)
    }
}

/// Channels that fill a step of a convolution's inner product.
const STEP: usize = 4;

/// A depthwise convolution with several outputs for an input channel as a convolution in groups of some channels: its weights by output
/// channel and place, those between other channels zeros, which cost nothing where a step takes all the channels at once.
pub fn joined<'w>(
    geometry: &Geometry,
    linear: &Integer<'w>,
) -> (Geometry, impl Fn(usize, usize) -> i8 + use<'w>) {
    let (window, weight) = (geometry.window, taps(geometry, linear));
    let of = (1..=STEP).rev().find(|&of| window.inputs.is_multiple_of(of)).unwrap_or(1);
    let multiplier = window.outputs / window.inputs;
    let joined = move |o: usize, k: usize| if k % of == o / multiplier % of { weight(k / of, o) } else { 0 };
    (Geometry { window, groups: window.inputs / of }, joined)
}
