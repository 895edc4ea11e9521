//! Runs one runtime for the bench `peers`: `tucano-peers tract|rten`. Requests and answers are those of `benches/peers/worker.py`; networks are f32.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use rten::ValueOrView;
use rten_tensor::prelude::AsView;
use serde_json::{Value, json};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, Tensor, tvec};

type Error = Box<dyn std::error::Error>;

/// A loaded network of one input and one output.
trait Network {
    fn run(&self, sample: &[f32]) -> Result<Vec<f32>, Error>;
    /// Nanoseconds of some inferences on one sample.
    fn time(&self, sample: &[f32], calls: u64) -> Result<u64, Error>;
}

struct Tract {
    plan: std::sync::Arc<tract_onnx::prelude::TypedRunnableModel>,
    shape: Vec<usize>,
}

impl Tract {
    fn load(onnx: &[u8], shape: Vec<usize>) -> Result<Self, Error> {
        let model = tract_onnx::onnx().model_for_read(&mut &*onnx)?;
        Ok(Self { plan: model.into_optimized()?.into_runnable()?, shape })
    }
}

impl Network for Tract {
    fn run(&self, sample: &[f32]) -> Result<Vec<f32>, Error> {
        let input = Tensor::from_shape(&self.shape, sample)?;
        let outputs = self.plan.run(tvec!(input.into()))?;
        let output = outputs.first().ok_or("no output")?;
        Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
    }

    fn time(&self, sample: &[f32], calls: u64) -> Result<u64, Error> {
        // Shared, so that a call copies nothing.
        let input: tract_onnx::prelude::TValue = Tensor::from_shape(&self.shape, sample)?.into();
        let start = Instant::now();
        for _ in 0..calls {
            self.plan.run(tvec!(input.clone()))?;
        }
        Ok(start.elapsed().as_nanos() as u64)
    }
}

struct Rten {
    model: rten::Model,
    shape: Vec<usize>,
}

impl Rten {
    fn load(onnx: Vec<u8>, shape: Vec<usize>) -> Result<Self, Error> {
        Ok(Self { model: rten::Model::load(onnx)?, shape })
    }

    fn once(&self, input: &rten::Value) -> Result<Vec<rten::Value>, Error> {
        let id = *self.model.input_ids().first().ok_or("no input")?;
        Ok(self.model.run(vec![(id, ValueOrView::from(input))], self.model.output_ids(), None)?)
    }

    fn input(&self, sample: &[f32]) -> Result<rten::Value, Error> {
        Ok(rten::Value::from_shape(self.shape.as_slice(), sample.to_vec())?)
    }
}

impl Network for Rten {
    fn run(&self, sample: &[f32]) -> Result<Vec<f32>, Error> {
        let output = self.once(&self.input(sample)?)?.pop().ok_or("no output")?;
        Ok(output.into_tensor::<f32>().ok_or("the output is no f32")?.to_vec())
    }

    fn time(&self, sample: &[f32], calls: u64) -> Result<u64, Error> {
        let input = self.input(sample)?;
        // From within its pool, so that a call changes no thread.
        let timed = rten::thread_pool().run(|| {
            let start = Instant::now();
            for _ in 0..calls {
                self.once(&input).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(start.elapsed().as_nanos() as u64)
        });
        Ok(timed?)
    }
}

struct Server {
    runtime: String,
    network: Option<Box<dyn Network>>,
    samples: Vec<Vec<f32>>,
}

impl Server {
    fn answer(&mut self, line: &str) -> Result<Value, Error> {
        let request: Value = serde_json::from_str(line)?;
        match request["do"].as_str() {
            Some("about") => {
                let version = if self.runtime == "tract" { "0.23.9" } else { "0.27.0" };
                Ok(json!({"name": self.runtime, "version": version}))
            }
            Some("load") => self.load(&request),
            Some("outputs") => {
                let network = self.network.as_ref().ok_or("nothing is loaded")?;
                let outputs = self.samples.iter().map(|sample| network.run(sample));
                Ok(json!({"outputs": outputs.collect::<Result<Vec<_>, _>>()?}))
            }
            Some("time") => {
                let network = self.network.as_ref().ok_or("nothing is loaded")?;
                let calls = request["calls"].as_u64().ok_or("no `calls`")?;
                Ok(json!({"ns": network.time(self.samples.first().ok_or("no samples")?, calls)?}))
            }
            other => Err(format!("unknown request {other:?}").into()),
        }
    }

    fn load(&mut self, request: &Value) -> Result<Value, Error> {
        let path = |key: &str| request[key].as_str().map(Path::new).ok_or(format!("no `{key}`"));
        let folder = path("folder")?;
        let document: Value = serde_json::from_slice(&std::fs::read(folder.join("network.json"))?)?;
        let input = document["inputs"][0].as_u64().ok_or("no input")? as usize;
        let shape: Vec<usize> = serde_json::from_value(document["values"][input]["shape"].clone())?;
        let inputs = std::fs::read(folder.join("inputs.bin"))?;
        let inputs: Vec<f32> = inputs.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let elements = shape.iter().product::<usize>().max(1);
        self.samples = inputs.chunks_exact(elements).map(<[f32]>::to_vec).collect();
        let onnx = std::fs::read(path("onnx")?)?;
        let start = Instant::now();
        let network: Box<dyn Network> = match self.runtime.as_str() {
            "tract" => Box::new(Tract::load(&onnx, shape)?),
            "rten" => Box::new(Rten::load(onnx, shape)?),
            other => return Err(format!("unknown runtime {other}").into()),
        };
        let load_us = start.elapsed().as_secs_f64() * 1e6;
        let first_us = network.time(self.samples.first().ok_or("no samples")?, 1)? as f64 / 1e3;
        self.network = Some(network);
        Ok(json!({"load_us": load_us, "first_us": first_us}))
    }
}

fn main() -> Result<(), Error> {
    let runtime = std::env::args().nth(1).ok_or("which runtime?")?;
    let mut server = Server { runtime, network: None, samples: Vec::new() };
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = server.answer(&line?).unwrap_or_else(|error| json!({"error": error.to_string()}));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}
