//! Numbers that compare the outputs of two networks, or an output with labels.
//!
//! All take samples one after the other; arrays that are compared have equal lengths (a programming error otherwise). Sums are in f64.

/// Mean over samples of `KL(reference || other)` in nats, between class probabilities.
///
/// Both arrays are `[samples, classes]`: logits, which are passed through softmax here, or probabilities. Probabilities are
/// clamped to at least 1e-12, so a class that one side rules out costs much, but not infinitely much. 0 without samples.
pub fn softmax_kl(reference: &[f32], other: &[f32], classes: usize, already_probabilities: bool) -> f64 {
    assert_eq!(reference.len(), other.len(), "arrays of equal length");
    const LEAST: f64 = 1e-12;
    let probabilities = |row: &[f32]| -> Vec<f64> {
        if already_probabilities {
            return row.iter().map(|p| f64::from(*p).max(LEAST)).collect();
        }
        let max = row.iter().fold(f64::NEG_INFINITY, |max, x| max.max(f64::from(*x)));
        let exps: Vec<f64> = row.iter().map(|x| (f64::from(*x) - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|e| (e / sum).max(LEAST)).collect()
    };
    mean(reference.chunks_exact(classes).zip(other.chunks_exact(classes)).map(|(reference, other)| {
        let pairs = probabilities(reference).into_iter().zip(probabilities(other));
        pairs.map(|(p, q)| p * (p / q).ln()).sum()
    }))
}

/// Share of samples whose largest element stands at the same place in both arrays `[samples, classes]`. 0 without samples.
pub fn agreement(reference: &[f32], other: &[f32], classes: usize) -> f64 {
    assert_eq!(reference.len(), other.len(), "arrays of equal length");
    let rows = reference.chunks_exact(classes).zip(other.chunks_exact(classes));
    mean(rows.map(|(a, b)| f64::from(u8::from(top(a) == top(b)))))
}

/// Share of samples of `outputs` (`[samples, classes]`) whose largest element stands at the place that the label names.
/// 0 without samples.
pub fn accuracy(outputs: &[f32], labels: &[i64], classes: usize) -> f64 {
    assert_eq!(outputs.len(), labels.len() * classes, "one label for each sample");
    let rows = outputs.chunks_exact(classes).zip(labels);
    mean(rows.map(|(row, label)| f64::from(u8::from(usize::try_from(*label) == Ok(top(row))))))
}

/// `|other - reference| / |reference|` in the root mean square (over all elements). 0 if both are zero, infinite if only
/// the reference is.
pub fn relative_rms(reference: &[f32], other: &[f32]) -> f64 {
    assert_eq!(reference.len(), other.len(), "arrays of equal length");
    let square = |x: f64| x * x;
    let error: f64 = reference.iter().zip(other).map(|(a, b)| square(f64::from(*b) - f64::from(*a))).sum();
    let power: f64 = reference.iter().map(|a| square(f64::from(*a))).sum();
    if error == 0.0 { 0.0 } else { (error / power).sqrt() }
}

/// Largest absolute difference of two elements; NaN if any is. 0 without elements.
pub fn max_abs(reference: &[f32], other: &[f32]) -> f64 {
    assert_eq!(reference.len(), other.len(), "arrays of equal length");
    let differences = reference.iter().zip(other).map(|(a, b)| (f64::from(*b) - f64::from(*a)).abs());
    differences.fold(0.0, |max: f64, d| if max.is_nan() || d <= max { max } else { d })
}

/// Place of the largest element, the first of equal ones.
pub fn top(row: &[f32]) -> usize {
    let mut best = 0;
    for (k, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = k;
        }
    }
    best
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
    }

    #[test]
    fn kl_of_logits_and_probabilities() {
        // softmax(0, ln 3) = (1/4, 3/4); against (1/2, 1/2): 1/4 ln 1/2 + 3/4 ln 3/2.
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        let ln3 = 3f32.ln();
        close(softmax_kl(&[0.0, ln3], &[7.0, 7.0], 2, false), expected);
        close(softmax_kl(&[0.25, 0.75], &[0.5, 0.5], 2, true), expected);
        // The second sample agrees, so the mean halves.
        close(softmax_kl(&[0.0, ln3, 1.0, 2.0], &[7.0, 7.0, 1.0, 2.0], 2, false), expected / 2.0);
    }

    #[test]
    fn kl_of_an_excluded_class_is_finite() {
        close(softmax_kl(&[1.0, 0.0], &[0.0, 1.0], 2, true), -(1e-12f64.ln()));
        assert_eq!(softmax_kl(&[], &[], 2, true), 0.0);
    }

    #[test]
    fn decisions() {
        let outputs = [1.0, 2.0, 0.0, 5.0, 1.0, 1.0];
        close(agreement(&outputs, &[0.0, 9.0, 0.0, 1.0, 2.0, 1.0], 3), 0.5);
        close(accuracy(&outputs, &[1, 2], 3), 0.5);
        close(accuracy(&outputs, &[1, -1], 3), 0.5);
        close(accuracy(&outputs, &[1, 0], 3), 1.0);
    }

    #[test]
    fn distances() {
        close(relative_rms(&[3.0, 4.0], &[3.0, 4.5]), 0.1);
        close(relative_rms(&[0.0], &[0.0]), 0.0);
        assert_eq!(relative_rms(&[0.0], &[1.0]), f64::INFINITY);
        close(max_abs(&[1.0, -2.0], &[1.5, -1.0]), 1.0);
        assert!(max_abs(&[f32::NAN, 0.0], &[1.0, 3.0]).is_nan());
    }
}
