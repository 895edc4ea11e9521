//! Random layers on a board's backend against scalar code, and what layers of known networks take: the firmware is
//! boards/qemu/src/bin/differential.rs, and beside it floats.rs, and elementwise.rs for operators without weights.

use super::firmware::{self, OptLevel, Program};
use super::toolchain::Toolchain;
use super::{Board, Error, emulator};
use std::path::{Path, PathBuf};

/// What a run found where all outputs were the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differential {
    /// Random layers in all.
    pub cases: usize,
    /// How many of them had an operand at the end of a memory.
    pub last: usize,
    /// Ends of memory: the addresses that fault.
    pub ends: Vec<u32>,
    /// Each kernel that ran, with its number of random layers.
    pub kernels: Vec<(String, usize)>,
    /// Layers of known networks.
    pub layers: Vec<Layer>,
}

/// A layer of a known network.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// What it is.
    pub name: String,
    /// The kernel that ran; the backend for operators without weights.
    pub kernel: String,
    /// Its scratch.
    pub scratch_bytes: usize,
    /// Multiply-adds; elements for operators without weights.
    pub macs: u64,
    /// Executed instructions.
    pub instructions: f64,
}

/// An access behind an end of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// Reads a byte.
    Read,
    /// Writes a byte.
    Write,
}

/// Builds the firmware and runs `cases` layers of each kind.
///
/// # Errors
/// No toolchain, no emulator; a kernel that is wrong, with its layer.
pub fn run(board: &Board, opt_level: OptLevel, cases: u32, seed: u32) -> Result<Differential, Error> {
    execute(board, &build(board, opt_level)?, &[cases, seed, 0])
}

/// Does the same with `cases` of each operator without weights.
///
/// # Errors
/// As [`run`].
pub fn elementwise(board: &Board, opt_level: OptLevel, cases: u32, seed: u32) -> Result<Differential, Error> {
    other(board, &Program::Elementwise, opt_level, [cases, seed])
}

/// Does the same with layers of floats, whose outputs only have to be close.
///
/// # Errors
/// As [`run`].
pub fn floats(board: &Board, opt_level: OptLevel, cases: u32, seed: u32) -> Result<Differential, Error> {
    other(board, &Program::Floats, opt_level, [cases, seed])
}

fn other(
    board: &Board,
    program: &Program,
    opt_level: OptLevel,
    words: [u32; 2],
) -> Result<Differential, Error> {
    let elf = firmware::build(board, program, opt_level, &Toolchain::find(board.target)?)?;
    execute(board, &elf, &words)
}

/// Whether a board's core has a unit for floats, for which there are kernels.
pub fn has_float_unit(board: &Board) -> bool {
    board.target.ends_with("hf")
}

/// Goes behind end number `end` of the memories that [`Differential::ends`] states, as a kernel might.
///
/// # Errors
/// The fault: always.
pub fn overrun(board: &Board, end: u32, access: Overrun) -> Result<(), Error> {
    let word = 1 + 2 * end + u32::from(access == Overrun::Write);
    execute(board, &build(board, OptLevel::Three)?, &[0, 1, word]).map(|_| ())
}

fn execute(board: &Board, elf: &Path, words: &[u32]) -> Result<Differential, Error> {
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (mut found, mut done, mut others) = (Differential::default(), false, Vec::new());
    emulator::execute(board, elf, &[("inputs", &words)], &[], |line| {
        if line == "done" {
            done = true;
        } else if found.read(line, board).is_none() {
            others.push(line.to_owned());
        }
        others.join("\n")
    })?;
    if done { Ok(found) } else { Err(Error::Run { board: board.name, said: others.join("\n") }) }
}

/// Builds the firmware, which has all kernels of the board's backend for linear layers; gives the path of its ELF file.
///
/// # Errors
/// No toolchain; code that does not build.
pub fn build(board: &Board, opt_level: OptLevel) -> Result<PathBuf, Error> {
    firmware::build(board, &Program::Differential, opt_level, &Toolchain::find(board.target)?)
}

impl Differential {
    /// Takes a line; `None` if it is no figure.
    fn read(&mut self, line: &str, board: &Board) -> Option<()> {
        let (what, rest) = line.split_once(' ')?;
        match what {
            "cases" => self.cases = rest.parse().ok()?,
            "last" => self.last = rest.parse().ok()?,
            "end" => self.ends.push(u32::from_str_radix(rest.strip_prefix("0x")?, 16).ok()?),
            "kernel" => {
                let (name, count) = rest.rsplit_once(' ')?;
                self.kernels.push((name.into(), count.parse().ok()?));
            }
            "layer" => {
                let fields: Vec<&str> = rest.split('|').collect();
                let &[name, kernel, scratch, macs, ticks] = fields.as_slice() else { return None };
                self.layers.push(Layer {
                    name: name.into(),
                    kernel: kernel.into(),
                    scratch_bytes: scratch.parse().ok()?,
                    macs: macs.parse().ok()?,
                    instructions: ticks.parse::<f64>().ok()? * board.instructions_per_tick,
                });
            }
            "calibration" | "backend" => {}
            _ => return None,
        }
        Some(())
    }
}
