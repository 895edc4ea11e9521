//! Fits of rates to what steps cost: instructions that boards count, or picoseconds on a host.

use std::collections::BTreeMap;

use tucano::Step;
use tucano::backend::spec::select::SCALAR;
use tucano::backend::spec::{Core, Kernel, Loops, Rates, Work};
use tucano::ops::OpCode;
use tucano_converter::plan::cost;

/// A step of a blob with what it was measured to cost.
#[derive(Debug)]
pub struct Measured {
    /// The network and the step.
    pub name: String,
    /// The operation.
    pub op: OpCode,
    /// The kernel's name in the table of rates.
    pub kernel: String,
    /// Instructions, or picoseconds.
    pub instructions: f64,
    /// By what loops could be.
    pub work: BTreeMap<Loops, Work>,
}

impl Measured {
    /// A step with its cost.
    ///
    /// # Panics
    /// If the step is not sound.
    pub fn new(name: String, step: &Step<'_>, kernel: String, instructions: f64) -> Self {
        let op = OpCode::parse(step.op()).expect("operation");
        let rates = Rates::new([0; 6]);
        let work = |loops: Loops| cost::work(step, &Kernel { op, name: SCALAR, loops, rates }).expect("work");
        let work = loops(op, &kernel).into_iter().map(|loops| (loops, work(loops))).collect();
        Self { name, op, kernel, instructions, work }
    }

    /// What the table of a core says; `None` if it has no such kernel.
    pub fn modelled(&self, core: Core) -> Option<f64> {
        let kernel = core.kernel(self.op, &self.kernel)?;
        Some(kernel.rates.instructions(self.work.get(&kernel.loops)?) as f64)
    }
}

/// Lanes that a fit tries for inner products.
const LANES: [u16; 5] = [1, 2, 4, 8, 16];
/// Channels that depthwise convolutions and pools take side by side.
const BLOCKS: [u16; 4] = [1, 4, 8, 16];

/// Tiles that a fit tries: positions, outputs, depth.
const TILES: [[u16; 3]; 11] = [
    [1, 2, 4],
    [2, 2, 4],
    [3, 2, 4],
    [4, 2, 4],
    [1, 8, 1],
    [1, 8, 2],
    [1, 4, 16],
    [2, 4, 16],
    [1, 8, 16],
    [1, 16, 1],
    [4, 4, 4],
];

/// What a fit tries for a kernel.
fn loops(op: OpCode, kernel: &str) -> Vec<Loops> {
    let lanes = lanes(op).iter().map(|lanes| Loops::Lanes(*lanes));
    let tiles = TILES.iter().filter(|_| kernel != SCALAR);
    let tiles = tiles.map(|&[positions, outputs, depth]| Loops::Tiles { positions, outputs, depth });
    // Those that the table has come by themselves.
    let known = Core::ALL.into_iter().filter_map(|core| core.kernel(op, kernel)).map(|kernel| kernel.loops);
    lanes.chain(tiles).chain(known).collect()
}

fn lanes(op: OpCode) -> &'static [u16] {
    match op {
        OpCode::Conv2dI8
        | OpCode::Conv2dI4
        | OpCode::DenseI4
        | OpCode::Conv2dI16
        | OpCode::Conv2dF32
        | OpCode::WinogradConv2dI8
        | OpCode::DenseI8
        | OpCode::DenseI16
        | OpCode::DenseF32 => &LANES,
        OpCode::DepthwiseConv2dI8
        | OpCode::DepthwiseConv2dI16
        | OpCode::DepthwiseConv2dF32
        | OpCode::MaxPool2dI8
        | OpCode::MaxPool2dF32
        | OpCode::AveragePool2dI8
        | OpCode::AveragePool2dF32
        | OpCode::Mean2dI8 => &BLOCKS,
        _ => &LANES[..1],
    }
}

/// Prints the rates of least squared relative error, none of them negative, for each operation and kernel that was measured.
pub fn refit(steps: &[Measured]) {
    let mut groups = BTreeMap::<(OpCode, &str), Vec<&Measured>>::new();
    for step in steps {
        groups.entry((step.op, &step.kernel)).or_default().push(step);
    }
    for ((op, kernel), steps) in groups {
        let fits = loops(op, kernel).into_iter().map(|loops| (loops, fit(&steps, loops)));
        let best = fits.min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let Some((loops, (rates, error))) = best else { continue };
        let rates = rates.map(|rate| (100.0 * rate).round() as u32);
        let rms = 100.0 * (error / steps.len() as f64).sqrt();
        let entry = match loops {
            Loops::Lanes(lanes) if kernel == SCALAR => format!("kernel(OpCode::{op:?}, {lanes}, {rates:?})"),
            _ => format!("own(OpCode::{op:?}, {kernel:?}, Loops::{loops:?}, {rates:?})"),
        };
        println!("    {entry}, // {} steps, {rms:.1} %", steps.len());
    }
}

/// Non-negative least squares by coordinate descent (Lawson and Hanson 1974 state the problem; it has six unknowns here): rates and the sum
/// of squared errors, each divided by the step's instructions relative to their mean: so that neither large steps nor small ones count alone.
fn fit(steps: &[&Measured], loops: Loops) -> ([f64; 6], f64) {
    const SWEEPS: usize = 5_000;
    // Fewer lanes first: others have to earn their place.
    const PRICE_OF_A_UNIT: f64 = 1e-9;
    // So few steps settle one rate: that of products.
    const FEW: usize = 3;
    let mean = steps.iter().map(|step| step.instructions).sum::<f64>() / steps.len() as f64;
    let weight = |step: &Measured| (step.instructions * mean).sqrt();
    let rows: Vec<[f64; 6]> = steps
        .iter()
        .map(|step| {
            let work = &step.work[&loops];
            if steps.len() < FEW {
                return [0.0, 0.0, 0.0, 0.0, work.products as f64 / weight(step), 0.0];
            }
            [1, work.positions, work.outputs, work.runs, work.products, work.tail]
                .map(|units| units as f64 / weight(step))
        })
        .collect();
    let mut rates = [0.0; 6];
    let mut residuals: Vec<f64> = steps.iter().map(|step| step.instructions / weight(step)).collect();
    for _ in 0..SWEEPS {
        for k in 0..rates.len() {
            let (mut slope, mut curvature) = (0.0, 0.0);
            for (row, residual) in rows.iter().zip(&residuals) {
                slope += row[k] * residual;
                curvature += row[k] * row[k];
            }
            if curvature <= 0.0 {
                continue;
            }
            let next = f64::max(0.0, rates[k] + slope / (curvature * (1.0 + PRICE_OF_A_UNIT)));
            for (row, residual) in rows.iter().zip(&mut residuals) {
                *residual -= (next - rates[k]) * row[k];
            }
            rates[k] = next;
        }
    }
    (rates, residuals.iter().map(|residual| residual * residual).sum())
}
