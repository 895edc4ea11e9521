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
//! | `step K T NAME` | ticks of step K for the first sample, and its kernel |
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
    /// Executed instructions of each step, first sample, and its kernel.
    pub steps: Vec<(f64, String)>,
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

/// Runs the harness on samples whose input bytes stand one after the other. `progress` hears of each finished sample.
pub fn run(
    board: &Board,
    firmware: &Firmware,
    blob: &[u8],
    inputs: &[u8],
    samples: usize,
    progress: &dyn Fn(usize),
) -> Result<Emulation, Error> {
    let inputs = inputs_file(blob, inputs, samples);
    let files = [("blob", blob), ("inputs", inputs.as_slice())];
    let loader = loader(firmware.blob_address);
    let mut report = Report::new(board);
    let outputs = execute(board, &firmware.harness, &files, &["-device", &loader], |line| {
        if let Some(sample) = report.read(line) {
            progress(sample + 1);
        }
        report.others.join("\n")
    })?;
    report.finish(outputs, samples)
}

/// What the harness reads as `inputs`: bytes of the blob, number of samples, the samples.
pub(super) fn inputs_file(blob: &[u8], inputs: &[u8], samples: usize) -> Vec<u8> {
    let counts = [blob.len(), samples].map(|count| (count as u32).to_le_bytes());
    [counts.as_flattened(), inputs].concat()
}

/// The emulator's device that puts the file `blob` at an address.
pub(super) fn loader(address: u64) -> String {
    format!("loader,file=blob,addr={address:#x},force-raw=on")
}

/// Starts a program on a board in a folder with these files. `hear` is told each line of the console, and gives what went wrong so far. Gives
/// the bytes of the file `outputs`, if the program wrote it.
pub fn execute(
    board: &Board,
    elf: &Path,
    files: &[(&str, &[u8])],
    more: &[&str],
    mut hear: impl FnMut(&str) -> String,
) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let mut running = start(board, elf, folder.path(), files, more, Stdio::null())?;
    let console = running.0.stderr.take();
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in console.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok)) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut said = String::new();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => said = hear(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let said = format!("nothing for {} s\n{said}", SILENCE.as_secs());
                return Err(Error::Run { board: board.name, said });
            }
        }
    }
    let status = running.0.wait().map_err(|source| Error::Io { path: EMULATOR.into(), source })?;
    if !status.success() {
        let said = format!("{said}\nthe emulator ended with {status}");
        return Err(Error::Run { board: board.name, said });
    }
    Ok(std::fs::read(folder.path().join("outputs")).unwrap_or_default())
}

/// Starts the emulator in a folder, which gets the files. The console is on its standard error.
pub(super) fn start(
    board: &Board,
    elf: &Path,
    folder: &Path,
    files: &[(&str, &[u8])],
    more: &[&str],
    stdout: Stdio,
) -> Result<Running, Error> {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| Error::Io { path, source })?;
    }
    let elf = elf.canonicalize().map_err(|source| Error::Io { path: elf.into(), source })?;
    let child = Command::new(EMULATOR)
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
        .args(more)
        .arg("-kernel")
        .arg(&elf)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::EmulatorMissing,
            _ => Error::Io { path: EMULATOR.into(), source },
        })?;
    Ok(Running(child))
}

/// The lines so far, in ticks.
struct Report<'b> {
    board: &'b Board,
    calibration: u64,
    overhead: u64,
    backend: String,
    samples: Vec<u64>,
    steps: Vec<(u64, String)>,
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
            ["step", _, ticks, ref kernel @ ..] => {
                self.steps.extend(number(ticks).map(|ticks| (ticks, kernel.join(" "))))
            }
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
            steps: self.steps.iter().map(|(ticks, kernel)| (instructions(ticks), kernel.clone())).collect(),
            backend: self.backend,
            outputs,
            stack_bytes,
        })
    }
}
