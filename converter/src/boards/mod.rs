//! Runs blobs on boards: builds the firmware in `boards/` for a model, starts it on an emulated board, feeds it, and reads its report.
//!
//! Takes a blob and inputs as stored bytes; gives the outputs' bytes, executed instructions in all and for each step, and the
//! sizes of code, weights, arena, state and stack. Refuses a model that does not fit the board, with the numbers.
//!
//! [`BOARDS`] is the only table of boards: memory map, target and clock ratio go from here to the linker and to the firmware.

pub mod cycles;
pub mod differential;
pub mod elf;
pub mod emulator;
pub mod firmware;
pub mod toolchain;

use crate::plan::needs;
use elf::Image;
use emulator::Emulation;
use firmware::{OptLevel, Program};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use toolchain::Toolchain;
use tucano::backend::spec::Core;
use tucano::blob::Fingerprint;
use tucano::host::Runner;
use tucano::ops::OpCode;

/// A range of a board's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub origin: u32,
    /// Bytes.
    pub length: u32,
}

impl Region {
    /// The first address behind it.
    pub const fn end(self) -> u64 {
        self.origin as u64 + self.length as u64
    }
}

/// An emulated board.
#[derive(Debug)]
pub struct Board {
    /// The name on the command line.
    pub name: &'static str,
    /// The core that the code is built for.
    pub core: &'static str,
    /// The emulator's machine.
    pub machine: &'static str,
    /// The compiler's target.
    pub target: &'static str,
    /// The core whose kernels it runs: that of `--target`.
    pub kernels: Core,
    /// Where code lies.
    pub flash: Region,
    /// Where the arena, the state and the stack lie.
    pub ram: Region,
    /// Where the model lies; `None`: in `flash`, behind the code.
    pub model: Option<Region>,
    /// Executed instructions in one tick of the core's system timer under `-icount shift=0`: 1000 / MHz of its clock. Proved by every run.
    pub instructions_per_tick: f64,
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
const AN385_FLASH: Region = Region { origin: 0, length: 4 * MIB };
const AN385_RAM: Region = Region { origin: 0x2000_0000, length: 4 * MIB };
const AN385_PSRAM: Region = Region { origin: 0x2100_0000, length: 16 * MIB };

/// All boards.
pub const BOARDS: &[Board] = &[
    Board {
        name: "qemu-m0",
        core: "Cortex-M0",
        machine: "mps2-an385",
        target: "thumbv6m-none-eabi",
        kernels: Core::CortexM0,
        flash: AN385_FLASH,
        ram: AN385_RAM,
        model: Some(AN385_PSRAM),
        instructions_per_tick: 40.0,
    },
    Board {
        name: "qemu-m3",
        core: "Cortex-M3",
        machine: "mps2-an385",
        target: "thumbv7m-none-eabi",
        kernels: Core::CortexM3,
        flash: AN385_FLASH,
        ram: AN385_RAM,
        model: Some(AN385_PSRAM),
        instructions_per_tick: 40.0,
    },
    Board {
        name: "qemu-m4",
        core: "Cortex-M4F",
        machine: "mps2-an386",
        target: "thumbv7em-none-eabihf",
        kernels: Core::CortexM4,
        flash: AN385_FLASH,
        ram: AN385_RAM,
        model: Some(AN385_PSRAM),
        instructions_per_tick: 40.0,
    },
    Board {
        name: "qemu-m7",
        core: "Cortex-M7",
        machine: "mps2-an500",
        target: "thumbv7em-none-eabihf",
        kernels: Core::CortexM7,
        flash: AN385_FLASH,
        ram: AN385_RAM,
        model: Some(Region { origin: 0x6000_0000, length: 16 * MIB }),
        instructions_per_tick: 40.0,
    },
    Board {
        name: "qemu-m33",
        core: "Cortex-M33",
        machine: "mps2-an505",
        target: "thumbv8m.main-none-eabihf",
        kernels: Core::CortexM33,
        flash: Region { origin: 0x1000_0000, length: 4 * MIB },
        ram: Region { origin: 0x3800_0000, length: 4 * MIB },
        model: Some(Region { origin: 0x8000_0000, length: 16 * MIB }),
        instructions_per_tick: 50.0,
    },
    Board {
        name: "qemu-m55",
        core: "Cortex-M55",
        machine: "mps3-an547",
        target: "thumbv8m.main-none-eabihf",
        kernels: Core::CortexM55,
        flash: Region { origin: 0, length: 512 * KIB },
        ram: Region { origin: 0x2000_0000, length: 512 * KIB },
        model: Some(Region { origin: 0x6000_0000, length: 16 * MIB }),
        instructions_per_tick: 31.25,
    },
    Board {
        name: "microbit",
        core: "Cortex-M0",
        machine: "microbit",
        target: "thumbv6m-none-eabi",
        kernels: Core::CortexM0,
        flash: Region { origin: 0, length: 256 * KIB },
        ram: Region { origin: 0x2000_0000, length: 16 * KIB },
        model: None,
        instructions_per_tick: 62.5,
    },
];

/// The board of that name.
pub fn find(name: &str) -> Result<&'static Board, Error> {
    BOARDS.iter().find(|board| board.name == name).ok_or_else(|| Error::UnknownBoard {
        name: name.into(),
        known: BOARDS.iter().map(|board| board.name).collect::<Vec<_>>().join(", "),
    })
}

/// How the program that code size is measured on takes its blob, as the converter's modules do.
pub const LOADS: &str = "Model::load_known";

/// The firmware of one model on one board.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The program that `run` uses.
    pub harness: PathBuf,
    /// The program that code size is measured on: links only if no panic is reachable.
    pub minimal: PathBuf,
    /// Bytes of flash of the minimal program: runtime, operators, vector table; without the model. It takes its blob by [`LOADS`].
    pub code_bytes: u64,
    /// As [`Self::code_bytes`], of the same program with `Model::load`, which validates any blob.
    pub validating_code_bytes: u64,
    /// What compiled it.
    pub toolchain: String,
    /// Where the harness expects the blob.
    blob_address: u64,
}

/// What a run on a board measured: the JSON of `tucano boards run`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `tucano.board/1`.
    pub schema: &'static str,
    /// The board's name.
    pub board: &'static str,
    /// The core that the code is built for.
    pub core: &'static str,
    /// The emulator's machine.
    pub machine: &'static str,
    /// The runtime's backend.
    pub backend: String,
    /// Optimisation of the firmware.
    pub opt_level: &'static str,
    /// What compiled the firmware.
    pub toolchain: String,
    /// Number of samples.
    pub samples: usize,
    /// Share of samples whose greatest output is their label's; for the caller to fill in.
    pub accuracy: Option<f64>,
    /// SHA-256 over the raw output bytes of all samples in order, hexadecimal.
    pub output_sha256: String,
    /// Executed instructions of one inference: mean over the samples. The counter advances in ticks of up to 62.5 instructions.
    pub instructions: f64,
    /// Least and most over the samples.
    pub instructions_range: [f64; 2],
    /// Cycles of one inference by the core's table, which [`cycles::model`] counts; for the caller to fill in.
    pub modelled_cycles: Option<f64>,
    /// How [`Self::modelled_cycles`] came about.
    pub cycle_model: Option<&'static str>,
    /// Flash of code: [`Firmware::code_bytes`].
    pub code_bytes: u64,
    /// The constructor of the model in the program that [`Self::code_bytes`] measures: [`LOADS`].
    pub code_loads: &'static str,
    /// Flash of code that validates its blob on the device: [`Firmware::validating_code_bytes`].
    pub validating_code_bytes: u64,
    /// Bytes of all constants.
    pub weight_bytes: u64,
    /// Bytes of the blob.
    pub blob_bytes: usize,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Bytes of the state.
    pub state_bytes: u64,
    /// Bytes of stack that an inference uses at most, below the caller's frame.
    pub stack_bytes: u64,
    /// One entry a step, in order, of the first sample.
    pub steps: Vec<StepReport>,
    /// Steps that run on portable code although the backend has a kernel for them.
    pub warnings: Vec<String>,
}

/// A step of a [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its name in the blob, empty if the blob holds no names.
    pub name: String,
    /// The operation.
    pub op: String,
    /// The kernel that the backend takes, `scalar` for portable code.
    pub kernel: String,
    /// Executed instructions.
    pub instructions: f64,
}

/// Builds both firmware programs for the operators and buffers of a blob.
///
/// # Errors
/// No toolchain, a blob that the runtime refuses, or one that does not fit the board.
pub fn build(blob: &[u8], board: &'static Board, opt_level: OptLevel) -> Result<Firmware, Error> {
    let model = load(blob)?;
    let toolchain = Toolchain::find(board.target)?;
    let (ops, tiles) = operators(&model);
    let kernels = Some(needs::kernels(&model.model(), board.kernels.isa()));
    let harness = Program::Harness { ops: ops.clone(), tiles, kernels: kernels.clone() };
    let harness = firmware::build(board, &harness, opt_level, &toolchain)?;
    let image = Image::read(&harness)?;
    let blob_address = image.symbol("_blob")?;
    let end = board.model.unwrap_or(board.flash).end();
    if blob_address + blob.len() as u64 > end {
        let place = end.saturating_sub(blob_address);
        return Err(Error::BlobTooBig { board: board.name, bytes: blob.len(), place });
    }
    let (arena_bytes, state_bytes) = (model.model().arena_bytes(), model.model().state_bytes());
    let bytes = arena_bytes.next_multiple_of(64) as u64 + state_bytes as u64;
    let top = image.symbol("_stack_top")?.saturating_sub(firmware::HARNESS_STACK);
    let place = top.saturating_sub(image.symbol("_free_start")?);
    if bytes > place {
        return Err(Error::RamTooSmall { board: board.name, bytes, place, ram: board.ram.length });
    }
    let minimal = |fingerprint: Option<Fingerprint>| {
        let (ops, kernels, blob_bytes) = (ops.clone(), kernels.clone(), blob.len());
        let program =
            Program::Minimal { ops, tiles, kernels, arena_bytes, state_bytes, blob_bytes, fingerprint };
        let image = firmware::build(board, &program, opt_level, &toolchain)?;
        let bytes = Image::read(&image)?.flash_bytes();
        Ok((image, bytes))
    };
    let (_, validating_code_bytes) = minimal(None)?;
    let (minimal, code_bytes) = minimal(Some(model.model().blob().fingerprint()))?;
    let toolchain = toolchain.description;
    Ok(Firmware { harness, minimal, code_bytes, validating_code_bytes, toolchain, blob_address })
}

/// Builds the firmware for a blob and runs it on samples whose stored input bytes stand one after the other (all inputs of the first
/// sample, then of the second, ...). Gives the report and the raw output bytes, in the same order. `progress` hears of each finished sample.
///
/// # Errors
/// As [`build`]; no emulator; the firmware faulted, hung, or reported an error.
pub fn run(
    blob: &[u8],
    board: &'static Board,
    inputs: &[u8],
    samples: usize,
    opt_level: OptLevel,
    progress: &dyn Fn(usize),
) -> Result<(Report, Vec<u8>), Error> {
    let firmware = build(blob, board, opt_level)?;
    let runner = load(blob)?;
    let model = runner.model();
    let per_sample =
        runner.inputs().iter().map(|terminal| terminal.elements() * terminal.tensor.dtype.bytes()).sum();
    if samples == 0 || inputs.len() != samples * per_sample {
        return Err(Error::Inputs { per_sample, bytes: inputs.len(), samples });
    }
    let emulation = emulator::run(board, &firmware, blob, inputs, samples, progress)?;
    let Emulation { backend, outputs, samples: instructions, steps, stack_bytes } = emulation;
    let warning = |step: tucano::Step<'_>| {
        let kernel = needs::missed(&step, board.kernels.isa())?;
        Some(format!(
            "step `{}` runs on portable code, not by `{kernel}`: convert the model with --target {}",
            step.name().unwrap_or_default(),
            board.kernels.name()
        ))
    };
    let warnings = model.steps().filter_map(warning).collect();
    let steps = model.steps().zip(steps).map(|(step, (instructions, kernel))| StepReport {
        name: step.name().unwrap_or_default().into(),
        op: operator_name(step.op()),
        kernel,
        instructions,
    });
    let report = Report {
        schema: "tucano.board/1",
        board: board.name,
        core: board.core,
        machine: board.machine,
        backend,
        opt_level: opt_level.name(),
        toolchain: firmware.toolchain,
        samples,
        accuracy: None,
        output_sha256: hex(&Sha256::digest(&outputs)),
        instructions: instructions.iter().sum::<f64>() / samples as f64,
        instructions_range: [
            instructions.iter().copied().fold(f64::INFINITY, f64::min),
            instructions.iter().copied().fold(0.0, f64::max),
        ],
        modelled_cycles: None,
        cycle_model: None,
        code_bytes: firmware.code_bytes,
        code_loads: LOADS,
        validating_code_bytes: firmware.validating_code_bytes,
        weight_bytes: model.blob().constant_bytes(),
        blob_bytes: blob.len(),
        arena_bytes: model.arena_bytes() as u64,
        state_bytes: model.state_bytes() as u64,
        stack_bytes,
        steps: steps.collect(),
        warnings,
    };
    Ok((report, outputs))
}

/// Damages a blob's structure `cases` times and runs each on a board's kernels without validation: no fault, no panic, no write outside of its memory.
/// Gives how many of them ran to the end.
///
/// # Errors
/// As [`build`]; what a case did.
pub fn mutants(blob: &[u8], board: &Board, opt_level: OptLevel, cases: u32, seed: u32) -> Result<u32, Error> {
    let (ops, tiles) = operators(&load(blob)?);
    let program = Program::Mutants { ops, tiles };
    let elf = firmware::build(board, &program, opt_level, &Toolchain::find(board.target)?)?;
    let words = [blob.len() as u32, cases, seed].map(u32::to_le_bytes);
    let files = [("blob", blob), ("inputs", words.as_flattened())];
    let loader = emulator::loader(Image::read(&elf)?.symbol("_blob")?);
    let mut lines: Vec<String> = Vec::new();
    emulator::execute(board, &elf, &files, &["-device", &loader], |line| {
        lines.push(line.to_owned());
        lines.join("\n")
    })?;
    let ended = lines.iter().find_map(|line| line.strip_prefix("ended ")?.parse().ok());
    let done = lines.iter().any(|line| line == "done");
    ended.filter(|_| done).ok_or_else(|| Error::Run { board: board.name, said: lines.join("\n") })
}

/// The runtime's names of a model's operators, and whether it has regions.
fn operators(model: &Runner) -> (Vec<String>, bool) {
    let mut codes: Vec<u16> = model.model().steps().map(|step| step.op()).collect();
    codes.sort_unstable();
    codes.dedup();
    (codes.into_iter().map(operator_name).collect(), model.model().blob().region_count() > 0)
}

fn load(blob: &[u8]) -> Result<Runner, Error> {
    Runner::new(blob).map_err(|source| Error::Blob { source })
}

/// The runtime's type that implements an operation.
fn operator_name(code: u16) -> String {
    OpCode::parse(code).map_or_else(|| format!("{code:#06x}"), |op| format!("{op:?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a model does not run on a board.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// No such board.
    #[error("there is no board `{name}`")]
    #[diagnostic(help("known boards: {known}"))]
    UnknownBoard {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No compiler for the target.
    #[error("no Rust toolchain on this machine can build for {target}")]
    #[diagnostic(help(
        "run boards/setup.sh, or by hand\n  rustup target add {target}\nor, where rustup cannot download (Debian)\n  apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld"
    ))]
    Toolchain {
        /// The target.
        target: String,
    },
    /// No emulator.
    #[error("qemu-system-arm is not installed")]
    #[diagnostic(help(
        "run boards/setup.sh, or by hand\n  apt-get install --no-install-recommends qemu-system-arm"
    ))]
    EmulatorMissing,
    /// The firmware's sources are not where this program was built.
    #[error("the firmware's sources are not in {folder}")]
    #[diagnostic(help("run the program from the repository that it was built in"))]
    Sources {
        /// Where they should be.
        folder: PathBuf,
    },
    /// The runtime refuses the blob.
    #[error("the blob is not valid: {source}")]
    Blob {
        /// The runtime's words.
        source: tucano::Error,
    },
    /// The blob is too big.
    #[error("{board}: the blob is {bytes} bytes, and the board has {place} bytes for it")]
    #[diagnostic(help("choose a bigger board (`tucano boards list`), or compress the model further"))]
    BlobTooBig {
        /// The board.
        board: &'static str,
        /// Bytes of the blob.
        bytes: usize,
        /// Bytes of its place.
        place: u64,
    },
    /// Arena and state do not fit.
    #[error(
        "{board}: arena and state are {bytes} bytes, and {place} of its {ram} bytes of RAM are free for them"
    )]
    #[diagnostic(help("choose a bigger board (`tucano boards list`), or compress the model further"))]
    RamTooSmall {
        /// The board.
        board: &'static str,
        /// Bytes of arena and state.
        bytes: u64,
        /// Bytes of RAM beside the stack and the statics.
        place: u64,
        /// Bytes of RAM.
        ram: u32,
    },
    /// The firmware does not compile or link.
    #[error("{board}: the {program} firmware does not build at opt-level {opt_level}\n{messages}")]
    #[diagnostic(help(
        "`undefined symbol: a_panic_is_reachable` means that the code can panic; `region ... overflowed` that it is too big for the board"
    ))]
    Build {
        /// The board.
        board: &'static str,
        /// The program.
        program: &'static str,
        /// The optimisation.
        opt_level: &'static str,
        /// What the compiler said.
        messages: String,
    },
    /// The linked file lacks something.
    #[error("{}: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The inputs' bytes are not what the model takes.
    #[error("the model takes {per_sample} bytes a sample: {bytes} bytes are not {samples} samples")]
    Inputs {
        /// Bytes of all inputs of a sample.
        per_sample: usize,
        /// Bytes given.
        bytes: usize,
        /// Samples asked for.
        samples: usize,
    },
    /// The executed instructions could not be followed.
    #[error("{board}: {source}; the firmware said\n{said}")]
    Trace {
        /// The board.
        board: &'static str,
        /// What happened.
        source: cycles::trace::TraceError,
        /// Lines of the console.
        said: String,
    },
    /// The firmware failed.
    #[error("{board}: the firmware did not finish; it said\n{said}")]
    Run {
        /// The board.
        board: &'static str,
        /// Its lines.
        said: String,
    },
    /// A file or program of the host could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
