//! Judges a compressed network by samples that no fit has seen, with the numbers that the blob will have: floats, or integers.

use crate::calibrate::Dataset;
use crate::evaluate::{ClassScores, metrics};
use crate::execute::{self, Executor};
use crate::graph::Graph;
use crate::{lower, passes, quantize};

use super::loss::{self, Loss};
use super::{Error, SAFE_DIVERGENCE, SAFE_ERROR};

/// Samples that a judgement of the result needs: a fifth of fewer says nothing.
pub const FEWEST_JUDGED: usize = 20;
/// Of five samples, one is held out where the result is judged by its error.
const HELD_OUT: usize = 5;

/// Fewer held-out samples than these say too little: every sample is held out once, then.
const FEW: usize = 16;

/// The samples to fit, and every fifth, held out to judge.
pub fn split(data: &Dataset) -> (Dataset, Dataset) {
    split_at(data, HELD_OUT - 1)
}

/// [`split`], and where that holds out only a few samples, the four others like it.
pub fn splits(data: &Dataset) -> Vec<(Dataset, Dataset)> {
    let folds = if data.samples < FEW * HELD_OUT { HELD_OUT } else { 1 };
    (0..folds).map(|fold| split_at(data, HELD_OUT - 1 - fold)).collect()
}

fn split_at(data: &Dataset, fold: usize) -> (Dataset, Dataset) {
    let pick = |wanted: &dyn Fn(usize) -> bool| {
        let members: Vec<usize> = (0..data.samples).filter(|sample| wanted(*sample)).collect();
        let part = |values: &Vec<f32>| {
            let len = values.len() / data.samples;
            members
                .iter()
                .flat_map(|sample| values[sample * len..(sample + 1) * len].iter().copied())
                .collect()
        };
        let inputs = data.inputs.iter().map(part).collect();
        let labels = data.labels.as_ref().map(|labels| members.iter().map(|k| labels[*k]).collect());
        Dataset { inputs, samples: members.len(), labels }
    };
    (pick(&|sample| sample % HELD_OUT != fold), pick(&|sample| sample % HELD_OUT == fold))
}

/// The dense network on held-out samples, to compare others with.
pub struct Judge<'a> {
    /// Ranges of integers come from these.
    train: &'a Dataset,
    held: &'a Dataset,
    loss: Loss,
    classes: Option<ClassScores>,
    int8: Option<quantize::Options>,
    reference: Vec<Vec<f32>>,
    /// On the samples that were fitted to, where integers are judged.
    train_reference: Vec<Vec<f32>>,
}

/// Samples to fit, and who judges by others.
pub struct Fold<'a> {
    /// To fit.
    pub train: &'a Dataset,
    /// Judges by the rest.
    pub judge: Judge<'a>,
}

/// A compressed network against the dense one on held-out samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Loss of the network.
    pub loss: f64,
    /// Relative RMS error of the outputs.
    pub error: f64,
    /// Share of decisions kept.
    pub agreement: f64,
    /// Share of right answers before and after, if labels are known and the outputs are class scores.
    pub accuracy: Option<[f64; 2]>,
    /// Samples behind these figures.
    pub samples: usize,
}

impl<'a> Judge<'a> {
    /// Judges networks that stand for `graph` by `held`; as integers with ranges from `train` if `int8` is given.
    pub fn new(
        graph: &Graph,
        train: &'a Dataset,
        held: &'a Dataset,
        loss: Loss,
        int8: Option<quantize::Options>,
    ) -> Self {
        let run = |data: &Dataset| match data.samples {
            0 => Vec::new(),
            samples => execute::outputs(graph, &data.inputs, samples),
        };
        let reference = run(held);
        let train_reference = if int8.is_some() && held.samples > 0 { run(train) } else { Vec::new() };
        Self { train, held, loss, classes: ClassScores::of(graph), int8, reference, train_reference }
    }

    /// More loss than rounding causes that nobody minds.
    pub fn safe(&self) -> f64 {
        match self.loss {
            Loss::Divergence { .. } => SAFE_DIVERGENCE,
            Loss::Squares => SAFE_ERROR.powi(2),
        }
    }

    /// Whether there is anything to judge by.
    pub fn can_judge(&self) -> bool {
        self.held.samples > 0
    }

    /// Runs a compressed network.
    pub fn of(&self, compressed: &Graph) -> Result<Judgement, Error> {
        let Self { train, held, loss, reference, .. } = self;
        let lowered = lower::lower(compressed)?;
        let mut network = Executor::new(&lowered);
        let float = network.outputs(&held.inputs, held.samples);
        let mut total = loss.measure(reference, &float, held.samples);
        let mut outputs = float;
        if let Some(options) = &self.int8 {
            // What rounding adds shows on all samples, for it is not fitted to any; what compression costs, only on those that no fit has seen.
            let (quantized, rounded) = quantize::quantized_on(&passes::legalize(&lowered)?, train, options)?;
            let train_float = network.outputs(&train.inputs, train.samples);
            let before = loss.measure(&self.train_reference, &train_float, train.samples);
            let after = loss.measure(&self.train_reference, &rounded, train.samples);
            outputs = quantize::simulate(&quantized, &held.inputs, held.samples);
            let [seen, unseen] = [train.samples as f64, held.samples as f64];
            let held_after = loss.measure(reference, &outputs, held.samples);
            let added = ((after - before) * seen + (held_after - total) * unseen) / (seen + unseen);
            total = (total + added).max(0.0);
        }
        let classes = (reference[0].len() / held.samples.max(1)).max(1);
        let scores = self.classes.zip(held.labels.as_ref());
        let right = |outputs: &[f32], labels| metrics::accuracy(outputs, labels, classes);
        Ok(Judgement {
            loss: total,
            error: loss::relative_square(reference, &outputs).sqrt(),
            agreement: metrics::agreement(&reference[0], &outputs[0], classes),
            accuracy: scores.map(|(_, labels)| [right(&reference[0], labels), right(&outputs[0], labels)]),
            samples: held.samples,
        })
    }
}

/// Outputs of a compressed network on `held`: as floats, or as integers with ranges from `train`.
pub fn outputs(
    compressed: &Graph,
    train: &Dataset,
    held: &Dataset,
    int8: Option<&quantize::Options>,
) -> Result<Vec<Vec<f32>>, Error> {
    let lowered = lower::lower(compressed)?;
    Ok(match int8 {
        Some(options) => {
            let quantized = quantize::quantize(&passes::legalize(&lowered)?, Some(train), options)?;
            quantize::simulate(&quantized, &held.inputs, held.samples)
        }
        None => execute::outputs(&lowered, &held.inputs, held.samples),
    })
}

impl Judgement {
    /// One judgement of the samples of all, of which there is at least one.
    pub fn over(all: &[Self]) -> Self {
        let samples = all.iter().map(|one| one.samples).sum::<usize>();
        let mean = |of: &dyn Fn(&Self) -> f64| {
            all.iter().map(|one| of(one) * one.samples as f64).sum::<f64>() / samples.max(1) as f64
        };
        let right = |k: usize| mean(&|one: &Self| one.accuracy.map_or(0.0, |accuracy| accuracy[k]));
        let known = all.iter().all(|one| one.accuracy.is_some());
        Self {
            loss: mean(&|one| one.loss),
            error: mean(&|one| one.error * one.error).sqrt(),
            agreement: mean(&|one| one.agreement),
            accuracy: known.then(|| [right(0), right(1)]),
            samples,
        }
    }

    /// The figures in words.
    pub fn words(&self, loss: Loss) -> String {
        let mut words = format!("relative output error {:.4}", self.error);
        if matches!(loss, Loss::Divergence { .. }) {
            words +=
                &format!(", divergence {:.4}, {:.1} % of decisions kept", self.loss, self.agreement * 100.0);
        }
        words + &format!(" on {} held-out samples", self.samples)
    }
}
