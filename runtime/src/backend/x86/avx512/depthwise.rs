//! Depthwise convolutions: bytes of four kernel rows are interleaved, so that a lane holds one channel's column of a window.
//!
//! A *unit* is 64 output bytes that lie side by side: channels of one pixel, or of several where a pixel has less than 64. Two output rows share the
//! interleaved columns where four input rows hold both windows; in 3x3 windows of stride 1 neighbours along a row share them too.

use core::arch::x86_64::*;

use super::super::geometry::Geometry;
use super::super::requantize::{self, Channel, Factors, LANES, Mode};
use super::conv::channel;
use super::finish::{self, Bounds, pack, requantize};
use crate::host::program::form::Image;
use crate::host::program::{Constants, Frame, Layer};

/// Bytes of a unit.
const UNIT: usize = 64;
/// Most sets of weights for units that hold several pixels.
const MAX_PHASES: usize = 8;

/// A unit, in bytes from the start of a row of windows or outputs.
#[derive(Clone, Copy, Debug)]
struct Unit {
    input: u32,
    output: u32,
    /// Which set of weights and factors.
    phase: u32,
    /// Bytes that are outputs, a bit each.
    mask: u64,
}

/// One or two rows of outputs, in bytes from the start of the arena.
#[derive(Clone, Copy, Debug)]
struct Rows {
    input: usize,
    output: usize,
    two: bool,
}

/// Everything that a kernel needs.
struct Call<'a> {
    layer: &'a Depthwise,
    arena: *mut u8,
    constants: *const u8,
}

type Kernel = unsafe fn(&Call<'_>);

/// A depthwise convolution with one output channel for each input channel.
#[derive(Debug)]
pub struct Depthwise {
    kernel: Kernel,
    rows: Vec<Rows>,
    units: Vec<Unit>,
    /// Pixels of a row, for windows that slide.
    columns: usize,
    /// Bytes from a kernel row to the next, from a tap to the next, from an output row to the next.
    row: usize,
    tap: usize,
    output_row: usize,
    /// Kernel rows and columns.
    taps: [usize; 2],
    /// Channels of a unit's pixels, if every other pixel is left out.
    skipped: Option<usize>,
    weights: usize,
    /// Bytes of weights of a phase.
    weights_of_phase: usize,
    factors: usize,
    bounds: Bounds,
    arena_bytes: usize,
    constant_bytes: usize,
}

impl Depthwise {
    /// The layer. `weight(t, c)` is the weight of tap `t` and channel `c`. `None`: several outputs for an input channel.
    pub fn new(
        geometry: &Geometry,
        all: &[Channel],
        weight: &dyn Fn(usize, usize) -> i8,
        input: &Image,
        output: &Image,
        constants: &mut Constants,
    ) -> Option<Self> {
        let window = &geometry.window;
        let channels = window.outputs;
        if window.inputs != channels {
            return None;
        }
        let (rows, columns) = (&window.rows, &window.columns);
        let taps = [rows.kernel, columns.kernel];
        let two_rows = rows.stride == 1 && rows.dilation == 1 && rows.kernel <= 3;
        let slides =
            two_rows && columns.stride == 1 && taps == [3, 3] && columns.dilation == 1 && channels >= UNIT;
        let flat = columns.output * channels;
        let several = |skip: usize| (flat.div_ceil(UNIT), skip);
        // Units of several pixels: how many, and how many input bytes one advances.
        let packed = match columns.stride {
            1 if channels < UNIT && phases(channels) <= MAX_PHASES => Some(several(UNIT)),
            2 if matches!(channels, 4 | 8 | 16 | 32) => Some(several(2 * UNIT)),
            _ => None,
        };
        let chunks = channels.div_ceil(UNIT);
        let mask = |bytes: usize| if bytes >= UNIT { !0 } else { (1u64 << bytes) - 1 };
        let (units, phases): (Vec<Unit>, usize) = match packed {
            Some((count, advance)) => {
                let phases = phases(channels);
                let unit = |k: usize| Unit {
                    input: (k * advance) as u32,
                    output: (k * UNIT) as u32,
                    phase: (k % phases) as u32,
                    mask: mask(flat - k * UNIT),
                };
                ((0..count).map(unit).collect(), phases)
            }
            None => {
                let unit = |column: usize, chunk: usize| Unit {
                    input: (column * columns.stride * input.pixel() + chunk * UNIT) as u32,
                    output: (column * output.pixel() + chunk * UNIT) as u32,
                    phase: chunk as u32,
                    mask: mask(channels - chunk * UNIT),
                };
                let width = if slides { 1 } else { columns.output };
                let all = (0..chunks).flat_map(|chunk| (0..width).map(move |column| unit(column, chunk)));
                (all.collect(), chunks)
            }
        };
        let mut list = Vec::new();
        for image in 0..window.batch {
            let mut row = 0;
            while row < rows.output {
                let two = two_rows && row + 1 < rows.output;
                let first = (row * rows.stride) as isize - rows.pad as isize;
                list.push(Rows {
                    input: input.at(image, first, -(columns.pad as isize)),
                    output: output.at(image, row as isize, 0),
                    two,
                });
                row += if two { 2 } else { 1 };
            }
        }
        let (mode, floats) = requantize::mode(all);
        // The channel of a lane of a phase's units.
        let lane = |phase: usize, vector: usize, lane: usize| {
            let at = phase * UNIT + channel(4, vector, lane);
            if packed.is_some() { Some(at % channels) } else { Some(at).filter(|c| *c < channels) }
        };
        let mut weights: Vec<i8> = Vec::new();
        let mut factors: Vec<Factors> = Vec::new();
        let variants = if two_rows { 2 } else { 1 };
        for phase in 0..phases {
            for variant in 0..variants {
                for chunk in 0..taps[0].div_ceil(4) {
                    for column in 0..taps[1] {
                        for v in 0..4 {
                            for l in 0..LANES {
                                for k in 4 * chunk..4 * chunk + 4 {
                                    // In the second row's windows, kernel rows stand one lower.
                                    let row = k.checked_sub(variant).filter(|row| *row < taps[0]);
                                    let found = row.zip(lane(phase, v, l));
                                    let at = |(row, c)| weight(row * taps[1] + column, c);
                                    weights.push(found.map_or(0, at));
                                }
                            }
                        }
                    }
                }
            }
            for v in 0..4 {
                let of = |l: usize| lane(phase, v, l).map(|c| (all[c], floats[c]));
                factors.push(requantize::factors(mode, core::array::from_fn(of)));
            }
        }
        let arena_bytes = list.iter().map(|rows| rows.input.max(rows.output)).max()?;
        Some(Self {
            kernel: kernel(mode, two_rows, slides),
            rows: list,
            units,
            columns: columns.output,
            row: rows.dilation * input.row(),
            tap: columns.dilation * input.pixel(),
            output_row: output.row(),
            taps,
            skipped: packed.filter(|_| columns.stride == 2).map(|_| channels),
            weights_of_phase: weights.len() / phases,
            weights: constants.push(&weights),
            factors: constants.push(&factors),
            bounds: Bounds::of(all.first()?),
            // Images lie in the arena wholly, with the slack that units read behind them.
            arena_bytes: arena_bytes.max(input.start + input.bytes()).max(output.start + output.bytes())
                + crate::host::program::SLACK,
            constant_bytes: constants.bytes(),
        })
    }
}

/// How many sets of weights units of several pixels need.
fn phases(channels: usize) -> usize {
    let (mut a, mut b) = (channels, UNIT);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    channels / a
}

/// The kernel of a mode and of a form of windows.
fn kernel(mode: Mode, two_rows: bool, slides: bool) -> Kernel {
    macro_rules! of {
        ($mode:expr) => {
            match (two_rows, slides) {
                (_, true) => sliding::<{ $mode }>,
                (true, _) => windows::<{ $mode }, 2>,
                (false, _) => windows::<{ $mode }, 1>,
            }
        };
    }
    match mode {
        Mode::Float => of!(finish::FLOAT),
        Mode::SignedFloat => of!(finish::SIGNED_FLOAT),
        Mode::Mixed => of!(finish::MIXED),
        Mode::SignedMixed => of!(finish::SIGNED_MIXED),
        Mode::Definition => of!(finish::DEFINITION),
    }
}

/// Interleaves the bytes of four rows: vector `j` holds those of bytes `4 j .. 4 j + 4` of each 128-bit lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low_2, high_2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low, low_2),
        _mm512_unpackhi_epi16(low, low_2),
        _mm512_unpacklo_epi16(high, high_2),
        _mm512_unpackhi_epi16(high, high_2),
    ]
}

/// Requantises and stores a unit.
///
/// # Safety
/// `factors` has four entries of the mode; the bytes of the mask are writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn store<const MODE: u8>(
    sums: [__m512i; 4],
    factors: *const Factors,
    bounds: &Bounds,
    output: *mut u8,
    mask: u64,
) {
    // SAFETY: the caller's.
    unsafe {
        let value = |v: usize| requantize::<MODE>(sums[v], factors.add(v), bounds);
        let bytes = pack([value(0), value(1), value(2), value(3)], bounds);
        if mask == !0 {
            _mm512_storeu_si512(output.cast(), bytes);
        } else {
            _mm512_mask_storeu_epi8(output.cast(), mask, bytes);
        }
    }
}

/// Any windows. Of `OUTPUTS` rows that share their input rows, the second has the second half of a phase's weights.
///
/// # Safety
/// The layer was checked against the arena and the constants.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn windows<const MODE: u8, const OUTPUTS: usize>(call: &Call<'_>) {
    let layer = call.layer;
    let [tap_rows, tap_columns] = layer.taps;
    let order = every_other(layer.skipped.unwrap_or(UNIT));
    for rows in &layer.rows {
        for unit in &layer.units {
            // SAFETY: the caller's: windows of rows and units lie in the layer's image, but for what units read behind it, which is the arena's
            // slack; weights and factors are those of the unit's phase.
            unsafe {
                let weights =
                    call.constants.add(layer.weights + unit.phase as usize * layer.weights_of_phase);
                let factors: *const Factors = call.constants.add(layer.factors).cast();
                let factors = factors.add(4 * unit.phase as usize);
                let bias = |v: usize| _mm512_load_si512(factors.add(v).cast());
                let mut sums = [[bias(0), bias(1), bias(2), bias(3)]; OUTPUTS];
                let input = call.arena.cast_const().add(rows.input + unit.input as usize);
                // Rows of zero weight that would lie outside are the last one again.
                let last = tap_rows - 1 + usize::from(OUTPUTS == 2 && rows.two);
                for chunk in 0..tap_rows.div_ceil(4) {
                    let place = |k: usize| input.add((4 * chunk + k).min(last) * layer.row);
                    let places = [place(0), place(1), place(2), place(3)];
                    for column in 0..tap_columns {
                        let at = column * layer.tap;
                        let load = |k: usize| {
                            let near = _mm512_loadu_si512(places[k].add(at).cast());
                            if layer.skipped.is_none() {
                                return near;
                            }
                            let far = _mm512_loadu_si512(places[k].add(at + UNIT).cast());
                            _mm512_permutex2var_epi32(near, order, far)
                        };
                        let taps = interleave([load(0), load(1), load(2), load(3)]);
                        for (variant, sums) in sums.iter_mut().enumerate() {
                            let first = (variant * tap_rows.div_ceil(4) + chunk) * tap_columns + column;
                            for (v, sum) in sums.iter_mut().enumerate() {
                                let weights = _mm512_load_si512(weights.add((first * 4 + v) * UNIT).cast());
                                *sum = _mm512_dpbusd_epi32(*sum, taps[v], weights);
                            }
                        }
                    }
                }
                let output = call.arena.add(rows.output + unit.output as usize);
                store::<MODE>(sums[0], factors, &layer.bounds, output, unit.mask);
                if OUTPUTS == 2 && rows.two {
                    store::<MODE>(
                        sums[OUTPUTS - 1],
                        factors,
                        &layer.bounds,
                        output.add(layer.output_row),
                        unit.mask,
                    );
                }
            }
        }
    }
}

/// The order that leaves out every other pixel of some channels, in dwords of two vectors.
#[target_feature(enable = "avx512f")]
#[inline]
fn every_other(channels: usize) -> __m512i {
    let mut order = [0u32; LANES];
    let dwords = (channels / 4).max(1);
    for (k, at) in order.iter_mut().enumerate() {
        *at = (k / dwords * 2 * dwords + k % dwords) as u32;
    }
    // SAFETY: 64 bytes are read.
    unsafe { _mm512_loadu_si512(order.as_ptr().cast()) }
}

/// 3x3 windows of stride 1 that slide along a row, two rows at a time.
///
/// # Safety
/// As [`windows`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sliding<const MODE: u8>(call: &Call<'_>) {
    let layer = call.layer;
    for unit in &layer.units {
        // SAFETY: as in `windows`.
        unsafe {
            let weights = call.constants.add(layer.weights + unit.phase as usize * layer.weights_of_phase);
            let factors: *const Factors = call.constants.add(layer.factors).cast();
            let factors = factors.add(4 * unit.phase as usize);
            let sum = |taps: [&[__m512i; 4]; 3], variant: usize| {
                let each = |v: usize| {
                    let weight = |column: usize| {
                        _mm512_load_si512(weights.add(((variant * 3 + column) * 4 + v) * UNIT).cast())
                    };
                    let mut sum = _mm512_load_si512(factors.add(v).cast());
                    sum = _mm512_dpbusd_epi32(sum, taps[0][v], weight(0));
                    sum = _mm512_dpbusd_epi32(sum, taps[1][v], weight(1));
                    _mm512_dpbusd_epi32(sum, taps[2][v], weight(2))
                };
                [each(0), each(1), each(2), each(3)]
            };
            for rows in &layer.rows {
                let input = call.arena.cast_const().add(rows.input + unit.input as usize);
                let mut output = call.arena.add(rows.output + unit.output as usize);
                // Behind the last row of an odd number the third is read again.
                let fourth = if rows.two { 3 } else { 2 };
                let column = |at: usize| {
                    let load =
                        |row: usize| _mm512_loadu_si512(input.add(row * layer.row + at * layer.tap).cast());
                    interleave([load(0), load(1), load(2), load(fourth)])
                };
                let (mut left, mut middle) = (column(0), column(1));
                for at in 0..layer.columns {
                    let right = column(at + 2);
                    let taps = [&left, &middle, &right];
                    store::<MODE>(sum(taps, 0), factors, &layer.bounds, output, unit.mask);
                    if rows.two {
                        let below = output.add(layer.output_row);
                        store::<MODE>(sum(taps, 1), factors, &layer.bounds, below, unit.mask);
                    }
                    (left, middle) = (middle, right);
                    output = output.add(layer.tap);
                }
            }
        }
    }
}

impl Layer for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_conv2d_i8"
    }

    fn run(&self, frame: &mut Frame<'_>) -> Option<()> {
        if frame.arena.len() < self.arena_bytes || frame.constants.len() < self.constant_bytes {
            return None;
        }
        let call = Call { layer: self, arena: frame.arena.as_mut_ptr(), constants: frame.constants.as_ptr() };
        // SAFETY: rows and units were made of images that lie in the first `arena_bytes` of the arena, and of what was pushed to the first
        // `constant_bytes` of the constants; both were checked above. Layers are made where the processor has the features.
        unsafe { (self.kernel)(&call) };
        Some(())
    }
}
