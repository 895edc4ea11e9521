//! A runtime in a process of its own, asked by lines of JSON; `benches/peers/worker.py` says which.
//!
//! All runtimes are pinned to the same processor and asked one after the other, so rounds can alternate between them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tucano::host::Runner;

/// A running worker; it ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    /// What the runtime calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What loading took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loaded {
    /// From bytes in memory to ready to run, in microseconds.
    pub load_us: f64,
    /// The first inference, in microseconds.
    pub first_us: f64,
}

impl Worker {
    /// Starts a worker on one processor.
    ///
    /// # Errors
    /// What did not start, with what to install.
    pub fn start(command: &Command, processor: usize) -> Result<Self, String> {
        let program = command.get_program();
        let mut process = Command::new("taskset")
            .args(["--cpu-list", &processor.to_string()])
            .arg(program)
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("taskset: {error}; install util-linux"))?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(format!("{}: no pipes", program.display()));
        };
        let (name, version) = (String::new(), String::new());
        let mut worker =
            Self { name, version, process, requests: Some(requests), answers: BufReader::new(answers) };
        worker.name = program.display().to_string();
        let about = worker.ask(&json!({"do": "about"}))?;
        let text = |key: &str| about[key].as_str().unwrap_or_default().to_string();
        (worker.name, worker.version) = (text("name"), text("version"));
        Ok(worker)
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let lost = |what: String| format!("{}: {what}", self.name);
        let requests = self.requests.as_mut().ok_or_else(|| lost("it has ended".into()))?;
        writeln!(requests, "{request}").map_err(|error| lost(error.to_string()))?;
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).map_err(|error| lost(error.to_string()))?;
        if length == 0 {
            return Err(lost("the process ended; its last words stand above".into()));
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| lost(error.to_string()))?;
        match answer["error"].as_str() {
            Some(error) => Err(lost(error.into())),
            None => Ok(answer),
        }
    }

    /// Loads a network; `request` holds what the runtime needs for it.
    ///
    /// # Errors
    /// Why the runtime refuses it.
    pub fn load(&mut self, mut request: Value) -> Result<Loaded, String> {
        request["do"] = json!("load");
        let answer = self.ask(&request)?;
        let number = |key: &str| answer[key].as_f64().ok_or_else(|| format!("{}: no `{key}`", self.name));
        Ok(Loaded { load_us: number("load_us")?, first_us: number("first_us")? })
    }

    /// The output for every sample.
    ///
    /// # Errors
    /// Why there is none.
    pub fn outputs(&mut self) -> Result<Vec<Vec<f32>>, String> {
        let answer = self.ask(&json!({"do": "outputs"}))?;
        serde_json::from_value(answer["outputs"].clone()).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Microseconds of one inference, the mean of some in a row.
    ///
    /// # Errors
    /// Why there was none.
    pub fn time(&mut self, calls: usize) -> Result<f64, String> {
        let answer = self.ask(&json!({"do": "time", "calls": calls}))?;
        let ns = answer["ns"].as_f64().ok_or_else(|| format!("{}: no time", self.name))?;
        Ok(ns / 1e3 / calls as f64)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker ends with its requests.
        self.requests = None;
        let _ = self.process.wait();
    }
}

/// This runtime as a worker: answers requests on standard input until there are no more.
///
/// # Errors
/// Pipes that break; what a request does wrong is an answer.
pub fn serve() -> std::io::Result<()> {
    let mut server = Server::default();
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = server.answer(&line?).unwrap_or_else(|error| json!({"error": error}));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Server {
    runner: Option<Runner>,
    samples: Vec<Vec<u8>>,
}

impl Server {
    fn answer(&mut self, line: &str) -> Result<Value, String> {
        let request: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match request["do"].as_str() {
            Some("about") => Ok(json!({"name": "Tucano", "version": env!("CARGO_PKG_VERSION")})),
            Some("load") => self.load(&request),
            Some("outputs") => self.outputs(),
            Some("time") => self.time(request["calls"].as_u64().unwrap_or(1)),
            other => Err(format!("unknown request {other:?}")),
        }
    }

    fn load(&mut self, request: &Value) -> Result<Value, String> {
        let refused = |error: tucano::Error| error.to_string();
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let blob = read(Path::new(request["blob"].as_str().unwrap_or_default()))?;
        let inputs = read(&Path::new(request["folder"].as_str().unwrap_or_default()).join("inputs.bin"))?;
        let start = std::time::Instant::now();
        let mut runner = match request["backend"].as_str() {
            Some(name) => Runner::with_backend(&blob, name).map_err(|error| error.to_string())?,
            None => Runner::new(&blob).map_err(refused)?,
        };
        let load_us = microseconds(start);
        let inputs: Vec<f32> = inputs.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let elements = runner.inputs().first().map_or(1, |input| input.elements()).max(1);
        let samples = inputs.chunks_exact(elements).map(|sample| runner.quantise(&[sample]));
        self.samples = samples
            .map(|sample| sample.map(|bytes| bytes.concat()))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let first = self.samples.first().ok_or("no samples")?;
        runner.input_mut(0).map_err(refused)?.copy_from_slice(first);
        let start = std::time::Instant::now();
        runner.invoke().map_err(refused)?;
        let first_us = microseconds(start);
        let backend = runner.backend();
        self.runner = Some(runner);
        Ok(json!({"load_us": load_us, "first_us": first_us, "backend": backend}))
    }

    fn outputs(&mut self) -> Result<Value, String> {
        let runner = self.runner.as_mut().ok_or("nothing is loaded")?;
        let mut outputs = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            let stored = runner.run_raw(&[sample]).map_err(|error| error.to_string())?;
            let terminals = runner.outputs().iter().zip(&stored);
            let real = terminals.map(|(terminal, bytes)| terminal.fetch(bytes));
            outputs.push(real.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?.concat());
        }
        Ok(json!({"outputs": outputs}))
    }

    fn time(&mut self, calls: u64) -> Result<Value, String> {
        let refused = |error: tucano::Error| error.to_string();
        let runner = self.runner.as_mut().ok_or("nothing is loaded")?;
        let sample = self.samples.first().ok_or("no samples")?;
        let mut spent = std::time::Duration::ZERO;
        for _ in 0..calls {
            // A run may use the input's place for other values: put in place anew, with the clock stopped.
            runner.input_mut(0).map_err(refused)?.copy_from_slice(sample);
            let start = std::time::Instant::now();
            runner.invoke().map_err(refused)?;
            spent += start.elapsed();
        }
        Ok(json!({"ns": spent.as_nanos() as u64}))
    }
}

fn microseconds(start: std::time::Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_an_answer() {
        let mut server = Server::default();
        assert!(server.answer("{").is_err());
        assert!(server.answer(r#"{"do": "fly"}"#).unwrap_err().contains("fly"));
        assert!(server.answer(r#"{"do": "time", "calls": 1}"#).unwrap_err().contains("nothing is loaded"));
        assert_eq!(server.answer(r#"{"do": "about"}"#).unwrap()["name"], "Tucano");
    }

    #[test]
    fn a_program_that_ends_is_an_error() {
        let failed = Worker::start(&Command::new("true"), 0).unwrap_err();
        assert!(failed.contains("true"), "{failed}");
    }
}
