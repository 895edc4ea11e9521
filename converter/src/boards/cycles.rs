//! Modelled cycles: what an inference would take by the core's published instruction timings, beside the executed instructions that the
//! emulator counts.
//!
//! The emulator runs the harness on one sample and logs every block of instructions that it executes ([`trace`]). Between the
//! harness's two marks around `Session::run`, each instruction is classified from its bytes ([`decode`]) and costs what the core's table
//! says ([`tables`]), which names its source. The log is read as it comes; nothing of it is kept.
//!
//! A model, not a measurement: memory answers at once, instructions whose condition fails cost as if it held, and where the manual
//! gives a range, one value is taken.

pub mod decode;
pub mod tables;
pub mod trace;

use super::elf::Image;
use super::emulator;
use super::{Board, Error, Firmware};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use tables::{Account, Table};
use trace::Marks;

/// Bytes of the log that are read at once.
const PIECE: usize = 1 << 18;

/// Cycles of one inference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modelled {
    /// Cycles by the table.
    pub cycles: u64,
    /// Executed instructions, counted from the trace.
    pub instructions: u64,
    /// The table's source and what it takes for granted.
    pub model: &'static str,
}

/// Cycles of one inference on a sample's input bytes; `None` for a core that has no table. Takes about two microseconds a block of
/// instructions, which is about one a second for every four million instructions.
///
/// # Errors
/// No emulator; the firmware failed; a log in an unknown format. A firmware that hangs is not noticed: run it before ([`super::run`]).
pub fn model(
    board: &'static Board,
    firmware: &Firmware,
    blob: &[u8],
    input: &[u8],
) -> Result<Option<Modelled>, Error> {
    let Some(table) = Table::of(board.core) else { return Ok(None) };
    let image = Image::read(&firmware.harness)?;
    // Bit 0 of a function's address says that it is Thumb.
    let mark = |name| Ok::<_, Error>(image.symbol(name)? as u32 & !1);
    let marks = Marks { begin: mark("mark_begin")?, end: mark("mark_end")? };

    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let elf = folder.path().join("firmware.elf");
    strip(&firmware.harness, &elf)?;
    let inputs = emulator::inputs_file(blob, input, 1);
    let files = [("blob", blob), ("inputs", inputs.as_slice())];
    let more = [
        "-device",
        &emulator::loader(firmware.blob_address),
        "-d",
        "in_asm,exec,nochain",
        "-D",
        "/dev/stdout",
    ];
    let mut running = emulator::start(board, &elf, folder.path(), &files, &more, Stdio::piped())?;
    let (log, console) = (running.0.stdout.take(), running.0.stderr.take());
    let console = std::thread::spawn(move || {
        let mut said = String::new();
        // What is not text says nothing.
        let _ = console.map(|mut pipe| pipe.read_to_string(&mut said));
        said
    });

    let mut account = Account::new(table);
    let counted = match log {
        Some(log) => trace::count(BufReader::with_capacity(PIECE, log), marks, &mut account),
        None => Err(trace::TraceError::Ended("there is none".into())),
    };
    drop(running);
    let said = console.join().unwrap_or_default();
    counted.map_err(|source| Error::Trace { board: board.name, source, said })?;
    Ok(Some(Modelled { cycles: account.cycles(), instructions: account.instructions(), model: table.model }))
}

/// Copies a firmware without its table of sections, and so without symbols: the emulator would name each block's function in the log.
fn strip(from: &Path, to: &Path) -> Result<(), Error> {
    /// Fields of the header of a 32-bit ELF file: the table's place; its number of entries, and which of them holds the names.
    const FIELDS: [std::ops::Range<usize>; 2] = [32..36, 48..52];
    let mut bytes = std::fs::read(from).map_err(|source| Error::Io { path: from.into(), source })?;
    for field in FIELDS {
        if let Some(field) = bytes.get_mut(field) {
            field.fill(0);
        }
    }
    std::fs::write(to, bytes).map_err(|source| Error::Io { path: to.into(), source })
}
