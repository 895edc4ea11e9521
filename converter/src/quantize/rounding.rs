//! Rounds a linear map so that its output, not its weights, stays near.
//!
//! Takes rows of weights, a grid for each row, and the covariance of the input; gives integers. Columns are rounded one after the other, and what one
//! loses is made up by those that are still free, in the metric of the covariance: Babai's nearest plane in the lattice of the Cholesky factor, which is
//! GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv 2210.17323; Chen et al. 2025, arXiv 2507.18553). Columns that vary most go first.

use crate::linalg::{Matrix, cholesky};

/// Integers `q` in `-levels..=levels` such that `scales[o] * q` gives nearly the outputs of `weight` (`o x d`) for inputs of this covariance (`d x d`,
/// positive definite). Where the covariance has no Cholesky factor, each weight goes to its nearest level.
pub fn compensated(weight: &Matrix, scales: &[f32], covariance: &Matrix, levels: i32) -> Matrix {
    let (rows, d) = (weight.nrows(), weight.ncols());
    let most = f64::from(levels);
    // Ascending: the factor's last column is fixed first.
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|a, b| covariance[(*a, *a)].total_cmp(&covariance[(*b, *b)]));
    let sorted = Matrix::from_fn(d, d, |i, j| covariance[(order[i], order[j])]);
    let Some(factor) = cholesky(sorted.as_ref()) else {
        return nearest(weight, scales, levels);
    };
    let mut rounded = Matrix::zeros(rows, d);
    let mut lost = vec![0.0; d];
    for o in 0..rows {
        let scale = f64::from(scales[o]);
        for k in (0..d).rev() {
            let column = factor.col(k);
            let carried: f64 = (k + 1..d).map(|i| lost[i] * column[i]).sum::<f64>() / column[k];
            let wanted = weight[(o, order[k])] / scale;
            let level = (wanted + carried).round().clamp(-most, most);
            lost[k] = wanted - level;
            rounded[(o, order[k])] = level;
        }
    }
    rounded
}

/// The nearest level of each weight.
pub fn nearest(weight: &Matrix, scales: &[f32], levels: i32) -> Matrix {
    let most = f64::from(levels);
    Matrix::from_fn(weight.nrows(), weight.ncols(), |o, j| {
        (weight[(o, j)] / f64::from(scales[o])).round().clamp(-most, most)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::{covariance, matrix};
    use crate::linalg::{inner, product};

    fn error(weight: &Matrix, scales: &[f32], levels: &Matrix, covariance: &Matrix) -> f64 {
        let real = |o: usize, j: usize| f64::from(scales[o]) * levels[(o, j)];
        let lost = Matrix::from_fn(weight.nrows(), weight.ncols(), |o, j| weight[(o, j)] - real(o, j));
        inner(product(lost.as_ref(), covariance.as_ref()).as_ref(), lost.as_ref())
    }

    #[test]
    fn correlated_inputs_lose_far_less_than_by_nearest_levels() {
        let (weight, covariance) = (matrix(6, 24, 1), covariance(24, 2));
        let scales = [0.02, 0.05, 0.1, 0.02, 0.05, 0.1];
        let levels = compensated(&weight, &scales, &covariance, 127);
        let plain = error(&weight, &scales, &nearest(&weight, &scales, 127), &covariance);
        assert!(error(&weight, &scales, &levels, &covariance) < 0.3 * plain);
        assert!(levels.norm_max() <= 127.0);
    }

    #[test]
    fn independent_inputs_get_the_nearest_levels() {
        let weight = matrix(3, 8, 4);
        let diagonal = Matrix::from_fn(8, 8, |i, j| if i == j { 1.0 + i as f64 } else { 0.0 });
        let scales = [0.01, 0.02, 0.3];
        assert_eq!(compensated(&weight, &scales, &diagonal, 127), nearest(&weight, &scales, 127));
        // No factor: nearest as well.
        assert_eq!(compensated(&weight, &scales, &Matrix::zeros(8, 8), 127), nearest(&weight, &scales, 127));
        assert!(compensated(&weight, &scales, &diagonal, 3).norm_max() <= 3.0);
    }
}
