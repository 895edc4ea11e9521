//! Random layers on a board's backend against scalar code, and what layers of known networks take: the firmware is
//! boards/qemu/src/bin/differential.rs.

use super::firmware::{self, OptLevel, Program};
use super::toolchain::Toolchain;
use super::{Board, Error, emulator};
use std::path::PathBuf;

/// What a run found where all outputs were the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differential {
    /// Random layers in all.
    pub cases: usize,
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
    /// The kernel that ran.
    pub kernel: String,
    /// Its scratch.
    pub scratch_bytes: usize,
    /// Multiply-adds.
    pub macs: u64,
    /// Executed instructions.
    pub instructions: f64,
}

/// Builds the firmware and runs `cases` layers of each kind.
///
/// # Errors
/// No toolchain, no emulator; a kernel that is wrong, with its layer.
pub fn run(board: &Board, opt_level: OptLevel, cases: u32, seed: u32) -> Result<Differential, Error> {
    let elf = build(board, opt_level)?;
    let words = [cases, seed].map(u32::to_le_bytes);
    let (mut found, mut done, mut others) = (Differential::default(), false, Vec::new());
    emulator::execute(board, &elf, &[("inputs", words.as_flattened())], &[], |line| {
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
