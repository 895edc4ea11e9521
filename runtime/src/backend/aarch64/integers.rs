//! Steps of integers as layers.

use super::arithmetic::Bytes;
use super::conv::Conv;
use super::depthwise::Depthwise;
use super::elementwise::{Add, MaxPool};
use super::requantize::{Channel, Requantize};
use crate::backend::vector::geometry::Geometry;
use crate::backend::vector::int8::{Int8, rows, taps};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Layer};
use crate::ops::linear::Integer;

/// The layer of a step of integers.
pub fn layer<A: Bytes>(
    step: &Int8<'_>,
    inputs: &[Image],
    output: &Image,
    constants: &mut Constants,
) -> Option<Box<dyn Layer>> {
    let (first, others) = inputs.split_first()?;
    let images = [step.fitting(first, output)?, output];
    Some(match step {
        Int8::Conv(geometry, linear) => {
            conv::<A>(geometry, linear, &rows(geometry, linear), images, constants)?
        }
        Int8::Depthwise(geometry, linear) if geometry.window.inputs == geometry.window.outputs => {
            let weight = taps(geometry, linear);
            let count = geometry.window.rows.kernel * geometry.window.columns.kernel;
            let channel = |c: usize| Channel::new(linear, c, (0..count).map(|t| weight(t, c)));
            let all: Vec<Channel> = (0..geometry.window.outputs).map(channel).collect::<Option<_>>()?;
            let finish = Requantize::linear(&all, linear)?;
            Box::new(Depthwise::<A>::new(geometry, &all, finish, &weight, images, constants)?)
        }
        Int8::Depthwise(geometry, linear) => {
            let weight = taps(geometry, linear);
            conv::<A>(geometry, linear, &|o, t| weight(t, o), images, constants)?
        }
        Int8::Mean(geometry, p, [zero_in, zero_out]) => {
            let area = geometry.window.rows.kernel * geometry.window.columns.kernel;
            let all = vec![Channel::mean(p, area, *zero_in); geometry.window.outputs];
            let finish = Requantize::new(&all, *zero_out, [p.act_min, p.act_max])?;
            Box::new(Depthwise::<A>::new(geometry, &all, finish, &|_, _| 1, images, constants)?)
        }
        Int8::Add(sum) => Box::new(Add::new(*sum, [first, others.first()?], output)?),
        Int8::MaxPool(geometry, bounds) => Box::new(MaxPool::new(geometry, *bounds, images)),
    })
}

/// A convolution; `weight(o, k)` is weight `k` of output channel `o`.
fn conv<A: Bytes>(
    geometry: &Geometry,
    linear: &Integer<'_>,
    weight: &dyn Fn(usize, usize) -> i8,
    images: [&Image; 2],
    constants: &mut Constants,
) -> Option<Box<dyn Layer>> {
    let outputs = geometry.window.outputs;
    let depth = linear.weights.len() / outputs;
    let channel = |o: usize| Channel::new(linear, o, (0..depth).map(|k| weight(o, k)));
    let all: Vec<Channel> = (0..outputs).map(channel).collect::<Option<_>>()?;
    let finish = Requantize::linear(&all, linear)?;
    // Lanes behind the last channel of a group hold what nobody reads.
    let factors =
        |vectors: usize, at: usize| Requantize::factors(vectors, |lane| all.get(at + lane).copied());
    Some(if linear.weights.contains(&i8::MIN) {
        Box::new(Conv::<A>::new(geometry, weight, &factors, finish, images, constants)?)
    } else {
        Box::new(Conv::<A::Small>::new(geometry, weight, &factors, finish, images, constants)?)
    })
}
