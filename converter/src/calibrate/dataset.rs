//! Samples for calibration or judgement.

use std::ops::Range;

/// Inputs of a model for some samples, and what they should give.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// One array for each graph input: the samples one after the other, each in the input's row-major order.
    pub inputs: Vec<Vec<f32>>,
    /// Number of samples in each array.
    pub samples: usize,
    /// The right class of each sample, if known.
    pub labels: Option<Vec<i64>>,
}

impl Dataset {
    /// Each graph input of one sample; empty slices past the end.
    pub fn sample(&self, index: usize) -> Vec<&[f32]> {
        let part = |data: &Vec<f32>| {
            let len = data.len() / self.samples.max(1);
            index * len..(index + 1) * len
        };
        self.inputs.iter().map(|data| data.get(part(data)).unwrap_or_default()).collect()
    }

    /// The samples in `range`, cut to those that exist.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.samples);
        let start = range.start.min(end);
        let part = |data: &Vec<f32>| {
            let len = data.len() / self.samples.max(1);
            data[start * len..end * len].to_vec()
        };
        Self {
            inputs: self.inputs.iter().map(part).collect(),
            samples: end - start,
            labels: self.labels.as_ref().map(|labels| labels[start..end].to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_every_array_and_stops_at_the_end() {
        let set = Dataset {
            inputs: vec![vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![7.0, 8.0, 9.0]],
            samples: 3,
            labels: Some(vec![4, 5, 6]),
        };
        let part = set.slice(1..9);
        assert_eq!(part.inputs, vec![vec![2.0, 3.0, 4.0, 5.0], vec![8.0, 9.0]]);
        assert_eq!((part.samples, part.labels), (2, Some(vec![5, 6])));
        assert_eq!(set.slice(5..9).samples, 0);
        assert_eq!(set.sample(1), [&[2.0, 3.0][..], &[8.0]]);
        assert_eq!(set.sample(3), [&[] as &[f32]; 2]);
    }
}
