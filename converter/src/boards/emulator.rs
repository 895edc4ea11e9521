//! Runs the harness in `qemu-system-arm` and reads its report.
//!
//! The emulator's loader puts the blob where the firmware's `_blob` says. Inputs and outputs are files in a folder of the run's own,
//! which the firmware opens by semihosting; the report is lines on the console:
//!
//! | line | meaning |
//! |---|---|
//! | `calibration T` | ticks of `CALIBRATION_INSTRUCTIONS` instructions |
//! | `overhead T` | ticks of `OVERHEAD_READINGS` readings of the counter |
//! | `backend NAME` | the backend that runs |
//! | `step K T` | ticks of step K for the first sample |
//! | `sample K T` | ticks of the whole run for sample K |
//! | `stack B` | bytes of stack at the deepest point |
//! | `done` | all outputs are written |
//! | `error ...`, `fault ...`, `panic ...` | what went wrong |

use super::{Board, Error, Firmware};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What the harness executes to prove the clock ratio.
const CALIBRATION_INSTRUCTIONS: f64 = 2e6;
/// How often it reads the counter to learn what reading costs.
const OVERHEAD_READINGS: f64 = 256.0;
/// A run that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(300);
const EMULATOR: &str = "qemu-system-arm";

/// What a run gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Emulation {
    /// The backend's name.
    pub backend: String,
    /// Raw output bytes of all samples in order.
    pub outputs: Vec<u8>,
    /// Executed instructions of each sample.
    pub samples: Vec<f64>,
    /// Executed instructions of each step, first sample.
    pub steps: Vec<f64>,
    /// Deepest stack in bytes.
    pub stack_bytes: u64,
}

/// Kills the emulator when a run is given up.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The emulator's command line, in a folder that gets the blob and the inputs. Nothing is caught of its output but the console.
pub(super) fn command(
    board: &Board,
    firmware: &Firmware,
    elf: &Path,
    folder: &Path,
    blob: &[u8],
    inputs: &[u8],
    samples: usize,
) -> Result<Command, Error> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| Error::Io { path, source })
    };
    write("blob", blob)?;
    let counts = [blob.len(), samples].map(|count| (count as u32).to_le_bytes());
    write("inputs", &[counts.as_flattened(), inputs].concat())?;
    let mut command = Command::new(EMULATOR);
    command
        .args([
            "-M",
            board.machine,
            "-nographic",
            "-monitor",
            "none",
            "-serial",
            "none",
            "-icount",
            "shift=0",
        ])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args(["-device", &format!("loader,file=blob,addr={:#x},force-raw=on", firmware.blob_address)])
        .arg("-kernel")
        .arg(elf)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Starts the emulator.
pub(super) fn start(mut command: Command) -> Result<Child, Error> {
    command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::EmulatorMissing,
        _ => Error::Io { path: EMULATOR.into(), source },
    })
}

/// Runs the harness on samples whose input bytes stand one after the other. `progress` hears of each finished sample.
pub fn run(
    board: &Board,
    firmware: &Firmware,
    blob: &[u8],
    inputs: &[u8],
    samples: usize,
    progress: &dyn Fn(usize),
) -> Result<Emulation, Error> {
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let elf = &firmware.harness;
    let elf = elf.canonicalize().map_err(|source| Error::Io { path: elf.into(), source })?;
    let mut child = start(command(board, firmware, &elf, folder.path(), blob, inputs, samples)?)?;
    let console = child.stderr.take();
    let mut running = Running(child);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in console.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok)) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut report = Report::new(board);
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                if let Some(sample) = report.read(&line) {
                    progress(sample + 1);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let said = format!("nothing for {} s\n{}", SILENCE.as_secs(), report.others.join("\n"));
                return Err(Error::Run { board: board.name, said });
            }
        }
    }
    let status = running.0.wait().map_err(|source| Error::Io { path: EMULATOR.into(), source })?;
    let path = folder.path().join("outputs");
    let outputs = std::fs::read(&path).unwrap_or_default();
    if !status.success() {
        report.others.push(format!("the emulator ended with {status}"));
        return Err(Error::Run { board: board.name, said: report.others.join("\n") });
    }
    report.finish(outputs, samples)
}

/// The lines so far, in ticks.
struct Report<'b> {
    board: &'b Board,
    calibration: u64,
    overhead: u64,
    backend: String,
    samples: Vec<u64>,
    steps: Vec<u64>,
    stack: Option<u64>,
    done: bool,
    /// Lines that are no figures: what went wrong.
    others: Vec<String>,
}

impl<'b> Report<'b> {
    fn new(board: &'b Board) -> Self {
        Self {
            board,
            calibration: 0,
            overhead: 0,
            backend: String::new(),
            samples: Vec::new(),
            steps: Vec::new(),
            stack: None,
            done: false,
            others: Vec::new(),
        }
    }

    /// Takes a line; gives the index of the sample that it ends.
    fn read(&mut self, line: &str) -> Option<usize> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        match *words.as_slice() {
            ["calibration", ticks] => self.calibration = number(ticks).unwrap_or(0),
            ["overhead", ticks] => self.overhead = number(ticks).unwrap_or(0),
            ["backend", name] => self.backend = name.into(),
            ["step", _, ticks] => self.steps.extend(number(ticks)),
            ["sample", _, ticks] => {
                self.samples.extend(number(ticks));
                return self.samples.len().checked_sub(1);
            }
            ["stack", bytes] => self.stack = number(bytes),
            ["done"] => self.done = true,
            _ => self.others.push(line.into()),
        }
        None
    }

    fn finish(self, outputs: Vec<u8>, samples: usize) -> Result<Emulation, Error> {
        let refuse = |said: String| Error::Run { board: self.board.name, said };
        let (Some(stack_bytes), true) = (self.stack, self.done && self.samples.len() == samples) else {
            return Err(refuse(format!("the report is not complete\n{}", self.others.join("\n"))));
        };
        let ratio = CALIBRATION_INSTRUCTIONS / self.calibration.max(1) as f64;
        let expected = self.board.instructions_per_tick;
        if (ratio - expected).abs() > 0.01 * expected {
            return Err(refuse(format!(
                "a tick is {ratio} instructions, the table of boards says {expected}"
            )));
        }
        let reading = self.overhead as f64 / OVERHEAD_READINGS;
        let instructions = |ticks: &u64| ((*ticks as f64 - reading) * expected).max(0.0).round();
        Ok(Emulation {
            samples: self.samples.iter().map(instructions).collect(),
            steps: self.steps.iter().map(instructions).collect(),
            backend: self.backend,
            outputs,
            stack_bytes,
        })
    }
}
