//! From what was seen of a value to its scale and zero point.

use crate::calibrate::ranges::Statistics;
use crate::graph::Quantization;

/// The 8-bit quantisation whose levels span `[low, high]`, widened to contain zero, which gets a level of its own.
pub fn of_range(low: f32, high: f32) -> Quantization {
    let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
    // Always zero on the calibration data: any range is as good as another.
    let span = if high > low { high - low } else { 1.0 };
    let scale = ((span / 255.0) as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
    let zero_point = (-128.0 - low / f64::from(scale)).round().clamp(-128.0, 127.0);
    Quantization { scale, zero_point: zero_point as i32, bits: 8 }
}

/// From least to greatest.
pub fn extremes(seen: &Statistics) -> Quantization {
    of_range(seen.low, seen.high)
}

/// Of ranges that clip one or both ends, the one with the least squared error on what was seen; the extremes are among them.
pub fn least_squares(seen: &Statistics) -> Quantization {
    let (low, high) = (seen.low.min(0.0), seen.high.max(0.0));
    let mut best = (extremes(seen), squared_error(seen, extremes(seen)));
    let mut consider = |quantization: Quantization| {
        let error = squared_error(seen, quantization);
        let better = error < best.1;
        if better {
            best = (quantization, error);
        }
        better
    };
    let shrunk = |step: u32| 1.0 - 0.01 * step as f32;
    let mut both = 0;
    for step in 1..60 {
        if consider(of_range(low * shrunk(step), high * shrunk(step))) {
            both = step;
        }
    }
    if low < 0.0 && high > 0.0 {
        let mut lower = both;
        for step in 0..60 {
            if consider(of_range(low * shrunk(step), high * shrunk(both))) {
                lower = step;
            }
        }
        for step in 0..60 {
            consider(of_range(low * shrunk(lower), high * shrunk(step)));
        }
    }
    best.0
}

/// Symmetric, 16 bits, with `levels` on either side of zero; `None` where that is no better than 8 bits.
pub fn symmetric16(seen: &Statistics, levels: i32) -> Option<Quantization> {
    if levels < 255 {
        return None;
    }
    let greatest = f64::from(seen.low.abs().max(seen.high.abs()));
    let greatest = if greatest > 0.0 { greatest } else { 1.0 };
    let scale = ((greatest / f64::from(levels)) as f32).max(f32::MIN_POSITIVE);
    Some(Quantization { scale, zero_point: 0, bits: 16 })
}

fn squared_error(seen: &Statistics, quantization: Quantization) -> f64 {
    let [least, greatest] = quantization.limits().map(f64::from);
    let (scale, zero) = (f64::from(quantization.scale), f64::from(quantization.zero_point));
    let error = |(x, count): (f64, u64)| {
        let stored = ((x / scale).round() + zero).clamp(least, greatest);
        let error = x - scale * (stored - zero);
        error * error * count as f64
    };
    seen.histogram.bins().map(error).sum()
}
