//! Many samples at once: the same weights for all, and with the feature `threads` on all processors.

use super::{Runner, Terminal};
use crate::error::{Error, ErrorKind};
use core::ops::Range;
use std::vec::Vec;

/// Samples that a thread takes at least: its arena is made anew.
#[cfg(feature = "threads")]
const FEWEST: usize = 8;

/// Reads one sample's output.
type Fetch<T> = fn(&Terminal, &[u8]) -> Result<Vec<T>, Error>;

impl Runner {
    /// Runs on many samples: for each graph input, all samples one after the other. Gives each graph output likewise.
    ///
    /// With the feature `threads` samples are spread over rayon's threads, unless the model has state; the results are the same.
    ///
    /// # Errors
    /// As [`Runner::run`]; [`ErrorKind::InputLength`] if an input does not hold `samples` samples.
    pub fn run_batch(&mut self, inputs: &[&[f32]], samples: usize) -> Result<Vec<Vec<f32>>, Error> {
        self.batch(inputs, samples, Terminal::fetch)
    }

    /// As [`Runner::run_batch`], and gives the stored bytes of the outputs.
    ///
    /// # Errors
    /// As [`Runner::run_batch`].
    pub fn run_batch_raw(&mut self, inputs: &[&[f32]], samples: usize) -> Result<Vec<Vec<u8>>, Error> {
        self.batch(inputs, samples, |_, bytes| Ok(bytes.to_vec()))
    }

    fn batch<T: Send>(
        &mut self,
        inputs: &[&[f32]],
        samples: usize,
        fetch: Fetch<T>,
    ) -> Result<Vec<Vec<T>>, Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(ErrorKind::InputCount, self.inputs.len() as u32));
        }
        for (input, terminal) in inputs.iter().zip(&self.inputs) {
            let wanted = terminal.elements().saturating_mul(samples);
            if input.len() != wanted {
                return Err(Error::new(ErrorKind::InputLength, wanted as u32));
            }
        }
        #[cfg(feature = "threads")]
        if let Some(outputs) = self.spread(inputs, samples, fetch) {
            return outputs;
        }
        self.some(inputs, 0..samples, fetch)
    }

    /// Some of the samples, one after the other.
    fn some<T>(
        &mut self,
        inputs: &[&[f32]],
        samples: Range<usize>,
        fetch: Fetch<T>,
    ) -> Result<Vec<Vec<T>>, Error> {
        let (given, gives) = (self.inputs.clone(), self.outputs.clone());
        let mut outputs: Vec<Vec<T>> =
            gives.iter().map(|of| Vec::with_capacity(of.elements() * samples.len())).collect();
        for sample in samples {
            for (k, (terminal, input)) in (0..).zip(given.iter().zip(inputs)) {
                let length = terminal.elements();
                let data = input.get(sample * length..).and_then(|rest| rest.get(..length));
                let data = data.ok_or(Error::new(ErrorKind::InputLength, length as u32))?;
                terminal.store(data, self.input_mut(k)?)?;
            }
            self.invoke()?;
            for (k, (terminal, all)) in (0..).zip(gives.iter().zip(&mut outputs)) {
                all.extend(fetch(terminal, self.output(k)?)?);
            }
        }
        Ok(outputs)
    }

    /// All samples on several threads, each with an arena of its own; `None` where one thread does.
    #[cfg(feature = "threads")]
    fn spread<T: Send>(
        &self,
        inputs: &[&[f32]],
        samples: usize,
        fetch: Fetch<T>,
    ) -> Option<Result<Vec<Vec<T>>, Error>> {
        use rayon::prelude::*;
        let each = samples.div_ceil(rayon::current_num_threads().max(1)).max(FEWEST);
        // What one sample leaves in the state, the next one reads.
        if each >= samples || self.model().state_bytes() > 0 {
            return None;
        }
        let starts: Vec<usize> = (0..samples).step_by(each).collect();
        let part = |start: usize| {
            let range = start..samples.min(start + each);
            self.clone().some(inputs, range, fetch)
        };
        let parts: Vec<Result<Vec<Vec<T>>, Error>> = starts.into_par_iter().map(part).collect();
        let mut outputs: Vec<Vec<T>> = self.outputs.iter().map(|_| Vec::new()).collect();
        for part in parts {
            match part {
                Ok(part) => outputs.iter_mut().zip(part).for_each(|(all, some)| all.extend(some)),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(outputs))
    }
}
