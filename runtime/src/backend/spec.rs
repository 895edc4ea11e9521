//! What each core family's kernels cost: constant data for the converter, which asks this table and never a kernel.
//!
//! A kernel's instructions are modelled as a sum over the units that its loops count ([`Work`]), each at a fixed rate ([`Rates`]). The rates
//! are least-squares fits to instruction counts of the emulated boards (code at opt-level 3); the test `cost` of the workspace measures
//! anew and prints other rates where a kernel has changed. They are counts of executed instructions, not cycles: wait states and
//! the double beats of a multiplication or division are not in them. A host's rates are picoseconds, fitted to layers that one
//! core ran alone; the bench `host_cost` measures anew and prints them.
//!
//! Which kernel runs, in what order it wants its weights and how much scratch it takes is in [`select`]. A kernel is priced by its name; one
//! without rates of its own counts as portable code. No board's kernel reads past its operands.

pub mod dsp;
pub mod elementwise;
pub mod float;
pub mod helium;
mod rates;
pub mod select;
pub mod swar;
pub mod v6m;
pub mod v7m;
pub mod wide_channels;
pub mod x86;

use crate::ops::OpCode;

/// A family of cores that runs the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Armv6-M, without a floating-point unit.
    CortexM0,
    /// Armv7-M, without a floating-point unit.
    CortexM3,
    /// Armv7E-M with single-precision floats.
    CortexM4,
    /// Armv7E-M with single-precision floats.
    CortexM7,
    /// Armv8-M with single-precision floats.
    CortexM33,
    /// Armv8.1-M with Helium.
    CortexM55,
    /// Hosts.
    X86_64,
}

impl Core {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CortexM0,
        Self::CortexM3,
        Self::CortexM4,
        Self::CortexM7,
        Self::CortexM33,
        Self::CortexM55,
        Self::X86_64,
    ];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CortexM0 => "cortex-m0",
            Self::CortexM3 => "cortex-m3",
            Self::CortexM4 => "cortex-m4",
            Self::CortexM7 => "cortex-m7",
            Self::CortexM33 => "cortex-m33",
            Self::CortexM55 => "cortex-m55",
            Self::X86_64 => "x86-64",
        }
    }

    /// Whether it runs prepared programs ([`crate::host`]): its prices are picoseconds, not instructions, and its memory is not short.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::X86_64)
    }

    /// The backend for it.
    pub const fn isa(self) -> select::Isa {
        match self {
            Self::CortexM0 => select::Isa::ThumbV6M,
            Self::CortexM3 => select::Isa::ThumbV7M,
            Self::CortexM4 | Self::CortexM7 | Self::CortexM33 => select::Isa::ThumbDsp,
            Self::CortexM55 => select::Isa::Helium,
            Self::X86_64 => select::Isa::X86,
        }
    }

    /// What is known of its kernel of this [name](select::Selection::name) for `op`, or of portable code where that was not measured; `None` where nothing was.
    pub fn kernel(self, op: OpCode, name: &str) -> Option<&'static Kernel> {
        let find = |name: &str| self.kernels().iter().find(|kernel| kernel.op == op && kernel.name == name);
        find(name).or_else(|| find(select::SCALAR))
    }

    /// All that was measured: portable code for every operation and some of the core's own kernels.
    pub fn kernels(self) -> &'static [Kernel] {
        match self {
            Self::CortexM0 => rates::ARMV6_M,
            Self::CortexM3 => rates::ARMV7_M,
            // The same target of the compiler, the same code.
            Self::CortexM4 | Self::CortexM7 => rates::ARMV7E_M,
            Self::CortexM33 => rates::ARMV8_M,
            Self::CortexM55 => rates::ARMV8_1_M,
            Self::X86_64 => rates::X86_64,
        }
    }
}

/// A kernel's shape and price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The operation.
    pub op: OpCode,
    /// Its name.
    pub name: &'static str,
    /// How its loops divide the work.
    pub loops: Loops,
    /// The price.
    pub rates: Rates,
}

/// How loops divide the work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loops {
    /// One inner product, or block of channels, after the other: so many products (or channels) at once. What fills no lanes is [`Work::tail`].
    Lanes(u16),
    /// Tiles of so many positions by outputs, over a depth that is filled up to whole steps. All tiles are whole, padding counts, and
    /// [`Work::tail`] are the input elements that are laid out for them.
    Tiles {
        /// Positions of a tile.
        positions: u16,
        /// Outputs of a tile; for a depthwise convolution channels.
        outputs: u16,
        /// Products of an output in a step.
        depth: u16,
    },
}

/// What a step does, in the units that loops count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Windows, rows of a dense layer or of a softmax.
    pub positions: u64,
    /// Elements written, each with its requantisation or activation.
    pub outputs: u64,
    /// Inner loops: an inner product, a block of channels under one tap, or a tile.
    pub runs: u64,
    /// Multiply-adds, or elements that a window reads.
    pub products: u64,
    /// See [`Loops`].
    pub tail: u64,
}

/// Prices in hundredths of an instruction; of a picosecond for [hosts](Core::is_host).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of a step: dispatch and set-up.
    pub step: u32,
    /// Of one of [`Work::positions`].
    pub position: u32,
    /// Of one of [`Work::outputs`].
    pub output: u32,
    /// Of one of [`Work::runs`].
    pub run: u32,
    /// Of one of [`Work::products`].
    pub product: u32,
    /// Of one of [`Work::tail`], besides products.
    pub tail: u32,
}

impl Rates {
    /// In the order of the fields.
    pub const fn new([step, position, output, run, product, tail]: [u32; 6]) -> Self {
        Self { step, position, output, run, product, tail }
    }

    /// Instructions or picoseconds of a step.
    pub fn instructions(&self, work: &Work) -> u64 {
        let terms = [
            (1, self.step),
            (work.positions, self.position),
            (work.outputs, self.output),
            (work.runs, self.run),
            (work.products, self.product),
            (work.tail, self.tail),
        ];
        let sum = terms
            .iter()
            .fold(0u64, |sum, &(units, rate)| sum.saturating_add(units.saturating_mul(u64::from(rate))));
        sum.div_ceil(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_has_all_prices() {
        for core in Core::ALL {
            let priced = OpCode::ALL.iter().filter(|op| core.kernel(**op, select::SCALAR).is_some()).count();
            assert_eq!(priced, OpCode::ALL.len());
            let portable = core.kernels().iter().filter(|kernel| kernel.name == select::SCALAR).count();
            assert_eq!(priced, portable);
            for kernel in core.kernels() {
                assert_eq!(core.kernel(kernel.op, kernel.name), Some(kernel));
                assert_eq!(core.kernel(kernel.op, "?"), core.kernel(kernel.op, select::SCALAR));
            }
        }
    }

    #[test]
    fn instructions_round_up_and_never_wrap() {
        let rates = Rates::new([150, 1, 10, 0, 100, 7]);
        let work = Work { positions: 3, outputs: 4, runs: 9, products: 5, tail: 2 };
        assert_eq!(rates.instructions(&work), 8);
        assert_eq!(rates.instructions(&Work { products: u64::MAX, ..work }), u64::MAX.div_ceil(100));
    }
}
