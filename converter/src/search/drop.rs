//! How much accuracy a compression costs, judged by labels of samples that no fit has seen.
//!
//! Takes the right classes, and the outputs of the trained and of the compressed network for the same samples. Only the decisions that became
//! wrong and those that became right tell the two apart (McNemar 1947): the drop is their difference, and its standard error is
//! `sqrt(lost + won - (lost - won)^2 / n) / n`, with half an observation added to each of both (Agresti and Min 2005), so that few samples
//! without a change prove little. A limit holds if the drop *and one standard error* stay within it.
//!
//! A fifth of the calibration samples is too few for that: [`cross_judged`] fits on all but one fold of samples and judges on that fold, for
//! each fold, so every sample is judged by a network whose weights were fitted without it; which formats and ranks are tried comes from all samples,
//! without their labels. Refused: samples without labels, labels that name no class, networks whose output scores no classes, limits that so
//! many samples could not tell from zero.

use crate::calibrate::Dataset;
use crate::evaluate::ClassScores;
use crate::evaluate::metrics::top;
use crate::execute;
use crate::graph::Graph;

use super::Error;

/// Folds of [`cross_judged`].
pub const FOLDS: usize = 5;

/// Changed decisions on samples with labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drop {
    /// Right before, wrong after.
    pub lost: usize,
    /// Wrong before, right after.
    pub won: usize,
    /// Samples judged.
    pub samples: usize,
}

impl Drop {
    /// Compares two outputs `[samples, classes]` by labels.
    pub fn between(before: &[f32], after: &[f32], labels: &[i64], classes: usize) -> Self {
        let rows = before.chunks_exact(classes.max(1)).zip(after.chunks_exact(classes.max(1)));
        rows.zip(labels).fold(Self::default(), |sum, ((before, after), label)| {
            let right = |row: &[f32]| usize::try_from(*label) == Ok(top(row));
            let (before, after) = (right(before), right(after));
            Self {
                lost: sum.lost + usize::from(before && !after),
                won: sum.won + usize::from(after && !before),
                samples: sum.samples + 1,
            }
        })
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            won: self.won + other.won,
            samples: self.samples + other.samples,
        }
    }

    /// Percentage points of accuracy lost; negative if the compressed network is better.
    pub fn points(&self) -> f64 {
        100.0 * (self.lost as f64 - self.won as f64) / self.samples.max(1) as f64
    }

    /// Standard error of [`Drop::points`].
    pub fn standard_error(&self) -> f64 {
        let n = self.samples.max(1) as f64;
        let (lost, won) = (self.lost as f64 + 0.5, self.won as f64 + 0.5);
        100.0 * (lost + won - (lost - won).powi(2) / n).max(0.0).sqrt() / n
    }

    /// Whether the drop is at most `limit` points, one standard error included.
    pub fn holds(&self, limit: f64) -> bool {
        self.samples > 0 && self.points() + self.standard_error() <= limit
    }

    /// The figures in words.
    pub fn words(&self) -> String {
        format!(
            "accuracy drops by {:.2} points, standard error {:.2} ({} decisions lost, {} won, of {} samples)",
            self.points(),
            self.standard_error(),
            self.lost,
            self.won,
            self.samples
        )
    }
}

/// Samples below which no network, not even one that changes no decision, keeps a limit of so many points.
pub fn fewest(limit: f64) -> usize {
    (100.0 / limit).ceil().max(1.0) as usize
}

/// What a limit on the drop needs: labels, class scores, and enough samples.
pub fn check(graph: &Graph, data: Option<&Dataset>, limit: f64) -> Result<ClassScores, Error> {
    if !(limit.is_finite() && limit > 0.0) {
        return Err(Error::Option { option: "--max-drop", wanted: "a number above 0", value: limit });
    }
    let Some(scores) = ClassScores::of(graph) else {
        return Err(Error::Unlabelled { why: "the network's output is no vector of class scores".into() });
    };
    let Some((data, labels)) = data.and_then(|data| Some((data, data.labels.as_ref()?))) else {
        let why = "the calibration samples have no labels (--labels KEY names their array)";
        return Err(Error::Unlabelled { why: why.into() });
    };
    // No decision is right by a label that names no class, so none could be lost.
    let no_class = |label: &i64| !(0..scores.classes as i64).contains(label);
    if let Some(label) = labels.iter().copied().find(no_class) {
        let why = format!("label {label} is none of the network's classes 0 to {}", scores.classes - 1);
        return Err(Error::Unlabelled { why });
    }
    let fewest = fewest(limit).max(FOLDS);
    if data.samples < fewest {
        let why =
            format!("{} samples cannot tell {limit} points from none: {fewest} or more can", data.samples);
        return Err(Error::Unlabelled { why });
    }
    Ok(scores)
}

/// The samples to fit and those to judge by, `folds` times: each sample is judged once.
pub fn folds(data: &Dataset, folds: usize) -> Vec<(Dataset, Dataset)> {
    let folds = folds.clamp(1, data.samples.max(1));
    let part = |wanted: &dyn Fn(usize) -> bool| {
        let members: Vec<usize> = (0..data.samples).filter(|sample| wanted(*sample)).collect();
        let inputs = (0..data.inputs.len()).map(|input| {
            members.iter().flat_map(|sample| data.sample(*sample)[input].iter().copied()).collect()
        });
        Dataset {
            inputs: inputs.collect(),
            samples: members.len(),
            labels: data.labels.as_ref().map(|labels| members.iter().map(|sample| labels[*sample]).collect()),
        }
    };
    (0..folds)
        .map(|fold| (part(&|sample| sample % folds != fold), part(&|sample| sample % folds == fold)))
        .collect()
}

/// The drop over all samples of `data`. `outputs` fits a network to its first samples and runs it, in the blob's precision, on its second ones.
pub fn cross_judged(
    graph: &Graph,
    data: &Dataset,
    scores: ClassScores,
    mut outputs: impl FnMut(&Dataset, &Dataset) -> Result<Vec<f32>, Error>,
) -> Result<Drop, Error> {
    let mut sum = Drop::default();
    for (train, judged) in folds(data, FOLDS) {
        let before = execute::outputs(graph, &judged.inputs, judged.samples);
        let after = outputs(&train, &judged)?;
        let labels = judged.labels.as_deref().unwrap_or_default();
        let before = before.first().map(Vec::as_slice).unwrap_or_default();
        sum = sum.and(Drop::between(before, &after, labels, scores.classes));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::refit::tests::{images, network};
    use super::*;
    use crate::evaluate::evaluate;

    #[test]
    fn changed_decisions_are_counted_by_their_labels() {
        let before = [0.9, 0.1, 0.2, 0.8, 0.3, 0.7, 0.6, 0.4];
        let after = [0.4, 0.6, 0.7, 0.3, 0.3, 0.7, 0.6, 0.4];
        // Lost, won, right twice, wrong twice.
        let drop = Drop::between(&before, &after, &[0, 0, 1, 1], 2);
        assert_eq!(drop, Drop { lost: 1, won: 1, samples: 4 });
        assert_eq!(drop.points(), 0.0);
        assert_eq!(drop.and(drop), Drop { lost: 2, won: 2, samples: 8 });
    }

    #[test]
    fn luck_and_few_samples_prove_little() {
        let drop = |lost, won, samples| Drop { lost, won, samples };
        // Equal numbers lost and won are no proof of harmlessness.
        assert!(drop(0, 0, 250).holds(1.0) && !drop(8, 8, 250).holds(1.0));
        assert!(drop(8, 8, 2000).holds(1.0));
        assert!(!drop(3, 0, 250).holds(1.0) && drop(3, 0, 1000).holds(1.0));
        assert!(!Drop::default().holds(100.0));
        for limit in [0.3, 0.5, 1.0, 2.5, 40.0] {
            assert!(drop(0, 0, fewest(limit)).holds(limit), "{limit}");
            assert!(fewest(limit) == 1 || !drop(0, 0, fewest(limit) - 1).holds(limit), "{limit}");
        }
        // Close to the spread of a sampled share: 60 of 200 changed at random.
        assert!((drop(30, 30, 200).standard_error() - 100.0 * 60f64.sqrt() / 200.0).abs() < 0.05);
    }

    #[test]
    fn every_sample_is_judged_once_by_a_fit_without_it() {
        let (graph, samples) = (network(), 23);
        let scores =
            ClassScores { classes: graph.shape(graph.outputs[0]).iter().product(), probabilities: false };
        let inputs = images(samples, 1);
        let labels = Some((0..samples as i64).collect());
        let data = Dataset { inputs, samples, labels };
        let mut judged_labels = Vec::new();
        let drop = cross_judged(&graph, &data, scores, |train, judged| {
            assert_eq!(train.samples + judged.samples, samples);
            let labels = judged.labels.clone().unwrap();
            assert!(labels.iter().all(|label| !train.labels.as_ref().unwrap().contains(label)));
            judged_labels.extend(labels);
            Ok(evaluate(&graph, &judged.inputs, judged.samples, &graph.outputs).remove(0))
        });
        assert_eq!(drop.unwrap(), Drop { samples, ..Drop::default() });
        judged_labels.sort_unstable();
        assert_eq!(judged_labels, (0..samples as i64).collect::<Vec<_>>());
    }

    #[test]
    fn labels_that_name_no_class_judge_nothing() {
        let (graph, samples) = (network(), 20);
        let data =
            |label: i64| Dataset { inputs: images(samples, 1), samples, labels: Some(vec![label; samples]) };
        let Ok(ClassScores { classes, .. }) = check(&graph, Some(&data(0)), 10.0) else { panic!() };
        assert!(check(&graph, Some(&data(classes as i64 - 1)), 10.0).is_ok());
        for wrong in [-1, classes as i64, i64::MIN] {
            assert!(matches!(check(&graph, Some(&data(wrong)), 10.0), Err(Error::Unlabelled { .. })));
        }
    }
}
