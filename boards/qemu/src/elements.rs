//! Sums and pools of 8 bits on a core's backend and on scalar code, with random extents and parameters, then with known ones.

use tucano::backend::{Backend, Scalar};
use tucano::ops::add::IntegerParameters;
use tucano::ops::mean;
use tucano::ops::window::{Axis, Window};

use crate::{counter, say};

/// Reproducible numbers (Knuth's linear congruential generator).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn within(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    fn fill(&mut self, bytes: &mut [i8]) {
        let extreme = self.below(8) == 0;
        bytes.iter_mut().for_each(|byte| {
            *byte = if extreme { [-128, 127][self.below(2)] } else { self.below(256) as u8 as i8 }
        });
    }

    fn bounds(&mut self) -> [i8; 2] {
        let (a, b) = (self.within(-128, 127), self.within(-128, 127));
        if self.below(2) == 0 { [-128, 127] } else { [a.min(b) as i8, a.max(b) as i8] }
    }
}

const MOST: usize = 4096;
/// Behind what a kernel may write.
const GUARD: usize = 16;
const GUARDED: i8 = 0x5A;

fn axis(noise: &mut Noise) -> Axis {
    let kernel = 1 + noise.below(5);
    let stride = 1 + noise.below(3);
    let pads = [noise.below(kernel), noise.below(kernel)];
    let input = kernel.max(noise.below(12));
    let output = (input + pads[0] + pads[1] - kernel) / stride + 1;
    Axis { input, output, kernel, stride, dilation: 1, pad: pads[0] }
}

/// One window over all of an axis.
fn whole(input: usize) -> Axis {
    Axis { input, output: 1, kernel: input, stride: 1, dilation: 1, pad: 0 }
}

fn sum(noise: &mut Noise) -> IntegerParameters {
    let half = noise.below(4);
    let multiplier = |noise: &mut Noise| (1 << 30) + noise.below(1 << 30) as i32;
    let any = [multiplier(noise), multiplier(noise)];
    let shifts = [-noise.within(0, 6), -noise.within(0, 6)];
    let [act_min, act_max] = noise.bounds();
    IntegerParameters {
        left_shift: if noise.below(3) == 0 { noise.within(0, 22) } else { 20 },
        multiplier_1: if half == 0 || half == 2 { 1 << 30 } else { any[0] },
        shift_1: if half == 0 || half == 2 { 0 } else { shifts[0] },
        multiplier_2: if half == 1 || half == 2 { 1 << 30 } else { any[1] },
        shift_2: if half == 1 || half == 2 { 0 } else { shifts[1] },
        output_multiplier: multiplier(noise),
        output_shift: if noise.below(3) == 0 { noise.within(-31, 2) } else { noise.within(-20, -15) },
        act_min: act_min.into(),
        act_max: act_max.into(),
    }
}

/// Buffers: two inputs, what scalar code gives, what the backend gives.
pub type Buffers = [[i8; MOST + GUARD]; 4];

fn same(expected: &[i8], found: &[i8], what: &str, case: usize) -> bool {
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    if let Some(at) = at {
        say!("wrong {what} case {case} element {at}: {}, not {}", found[at], expected[at]);
    }
    at.is_none()
}

/// Compares `cases` sums and as many pools of each kind; gives whether all were the same.
pub fn test<B: Backend>(backend: B, buffers: &mut Buffers, cases: usize, seed: u32) -> bool {
    let mut noise = Noise(seed.into());
    let [a, b, expected, found] = buffers;
    for case in 0..cases {
        let count = noise.below(200);
        noise.fill(&mut a[..count]);
        noise.fill(&mut b[..count]);
        let p = sum(&mut noise);
        let zeros = [noise.within(-128, 127), noise.within(-128, 127), noise.within(-128, 127)];
        expected.fill(GUARDED);
        expected[..count].copy_from_slice(&a[..count]);
        *found = *expected;
        let results = [
            Scalar.add_i8(&p, zeros, &mut expected[..count], &b[..count]),
            backend.add_i8(&p, zeros, &mut found[..count], &b[..count]),
        ];
        if results[0] != results[1] || !same(expected, found, "add_i8", case) {
            say!("{p:?} {zeros:?} {results:?}");
            return false;
        }
        let mut table = [0; 256];
        noise.fill(&mut table);
        Scalar.table_i8(&table, &mut expected[..count]);
        backend.table_i8(&table, &mut found[..count]);
        if !same(expected, found, "table_i8", case) {
            return false;
        }
        let long = noise.below(20) == 0;
        let mut rows = if long { whole(1 + noise.below(2)) } else { axis(&mut noise) };
        let mut columns = if long { whole(200 + noise.below(200)) } else { axis(&mut noise) };
        if long && noise.below(2) == 0 {
            core::mem::swap(&mut rows, &mut columns);
        }
        let channels = 1 + noise.below(if long { 5 } else { 20 });
        let window = Window { batch: 1, rows, columns, inputs: channels, outputs: channels };
        let (inputs, outputs) = (window.image(), rows.output * columns.output * channels);
        if inputs > MOST || outputs > MOST {
            continue;
        }
        noise.fill(&mut a[..inputs]);
        let bounds = noise.bounds();
        let padding = if noise.below(2) == 0 { Some(noise.within(-128, 127) as i8) } else { None };
        let parameters = mean::Parameters {
            multiplier: (1 << 30) + noise.below(1 << 30) as i32,
            shift: noise.within(-8, 1),
            act_min: bounds[0].into(),
            act_max: bounds[1].into(),
        };
        for (kind, what) in ["max_pool2d_i8", "average_pool2d_i8", "mean2d_i8"].into_iter().enumerate() {
            expected.fill(GUARDED);
            found.fill(GUARDED);
            let input = &a[..inputs];
            let results = match kind {
                0 => [
                    Scalar.max_pool2d_i8(&window, bounds, input, &mut expected[..outputs]),
                    backend.max_pool2d_i8(&window, bounds, input, &mut found[..outputs]),
                ],
                1 => [
                    Scalar.average_pool2d_i8(&window, padding, bounds, input, &mut expected[..outputs]),
                    backend.average_pool2d_i8(&window, padding, bounds, input, &mut found[..outputs]),
                ],
                _ => [
                    Scalar.mean2d_i8(
                        &window,
                        &parameters,
                        [zeros[0], zeros[1]],
                        input,
                        &mut expected[..outputs],
                    ),
                    backend.mean2d_i8(
                        &window,
                        &parameters,
                        [zeros[0], zeros[1]],
                        input,
                        &mut found[..outputs],
                    ),
                ],
            };
            if results[0] != results[1] || !same(expected, found, what, case) {
                say!("{window:?} {bounds:?} {padding:?} {results:?}");
                return false;
            }
        }
    }
    true
}

/// Prints the ticks of known sizes: name, elements, ticks.
pub fn measure<B: Backend>(backend: B, buffers: &mut Buffers) {
    let [a, b, _, found] = buffers;
    let p = IntegerParameters {
        left_shift: 20,
        multiplier_1: 1 << 30,
        shift_1: 0,
        multiplier_2: 3 << 29,
        shift_2: -1,
        output_multiplier: 3 << 29,
        output_shift: -18,
        act_min: -128,
        act_max: 127,
    };
    let before = counter::ticks();
    let _ = backend.add_i8(&p, [1, 2, -128], &mut a[..MOST], &b[..MOST]);
    let after = counter::ticks();
    say!("layer add|-|0|{MOST}|{}", after - before);
    let window = Window { batch: 1, rows: whole(12), columns: whole(5), inputs: 64, outputs: 64 };
    let before = counter::ticks();
    let _ = backend.average_pool2d_i8(&window, None, [-128, 127], &a[..3840], &mut found[..64]);
    let after = counter::ticks();
    say!("layer average of 12x5 64|-|0|3840|{}", after - before);
}
