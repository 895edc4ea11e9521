//! Decompositions of real matrices on top of faer.
//!
//! Takes finite `f64` matrices; gives products, symmetric eigendecompositions, square roots of covariances, ridge
//! solutions and Gram matrices of `f32` rows. All of it runs on the calling thread, so that the same input always
//! gives the same bits. Refuses nothing but what does not converge ([`NotConverged`]).

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Solve;
use faer::traits::RealField;
use faer::traits::math_utils::one;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side, unzip, zip};

/// A dense matrix.
pub type Matrix = Mat<f64>;

/// An eigendecomposition found no answer; finite input of sane magnitude does not cause this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the eigenvalues of a {0} x {0} matrix did not converge")]
pub struct NotConverged(pub usize);

/// `a * b`, in single or double precision.
pub fn product<T: RealField>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Mat<T> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a, b, one::<T>(), Par::Seq);
    out
}

/// `sum += a * b`.
pub fn add_product(sum: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    matmul(sum, Accum::Add, a, b, 1.0, Par::Seq);
}

/// Sum of the elementwise products of two matrices of one shape: `trace(a' b)`.
pub fn inner(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    (0..a.ncols()).map(|j| a.col(j).iter().zip(b.col(j).iter()).map(|(x, y)| x * y).sum::<f64>()).sum()
}

/// Whether all elements are finite. The greatest magnitude does not tell: it passes over NaN.
pub fn is_finite(a: MatRef<'_, f64>) -> bool {
    (0..a.ncols()).all(|j| a.col(j).iter().all(|x| x.is_finite()))
}

/// Sum of the diagonal.
pub fn trace(a: MatRef<'_, f64>) -> f64 {
    (0..a.nrows().min(a.ncols())).map(|i| a[(i, i)]).sum()
}

/// Scales every row that is not zero to length 1; gives the lengths, 1 for rows of zeros.
pub fn unit_rows(a: &mut Matrix) -> Vec<f64> {
    let length = |r: usize| a.row(r).norm_l2();
    let lengths: Vec<f64> = (0..a.nrows()).map(length).map(|x| if x > 0.0 { x } else { 1.0 }).collect();
    for (r, length) in lengths.iter().enumerate() {
        (0..a.ncols()).for_each(|j| a[(r, j)] /= length);
    }
    lengths
}

/// Eigenvalues of a symmetric positive semidefinite matrix in falling order (rounding below 0 is cut off), and its
/// eigenvectors as columns in the same order.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Largest first, none negative.
    pub values: Vec<f64>,
    /// Orthonormal columns.
    pub vectors: Matrix,
}

/// Decomposes a symmetric positive semidefinite matrix (the lower half is read).
pub fn eigen(a: MatRef<'_, f64>) -> Result<Eigen, NotConverged> {
    let n = a.nrows();
    // Far from 1, squares inside the solver would leave the range of f64.
    let scale = a.norm_max();
    if !is_finite(a) {
        return Err(NotConverged(n));
    }
    if scale == 0.0 || n == 0 {
        return Ok(Eigen { values: vec![0.0; n], vectors: Matrix::identity(n, n) });
    }
    faer::set_global_parallelism(Par::Seq);
    let scaled = Matrix::from_fn(n, n, |i, j| a[(i, j)] / scale);
    let found = scaled.self_adjoint_eigen(Side::Lower).map_err(|_| NotConverged(n))?;
    let (ascending, vectors) = (found.S(), found.U());
    let values = (0..n).rev().map(|k| (ascending[k] * scale).max(0.0)).collect();
    Ok(Eigen { values, vectors: Matrix::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)]) })
}

/// Symmetric square root of a positive semidefinite matrix, and the inverse of that root. Eigenvalues below `floor`
/// times the largest are raised to it, so the inverse exists; a zero matrix is taken as the identity.
pub fn roots(a: MatRef<'_, f64>, floor: f64) -> Result<(Matrix, Matrix), NotConverged> {
    let Eigen { values, vectors } = eigen(a)?;
    let largest = values.first().copied().unwrap_or(0.0);
    let root = |k: usize| if largest > 0.0 { values[k].max(floor * largest).sqrt() } else { 1.0 };
    let with = |power: &dyn Fn(f64) -> f64| {
        let scaled = Matrix::from_fn(a.nrows(), a.nrows(), |i, k| vectors[(i, k)] * power(root(k)));
        product(scaled.as_ref(), vectors.transpose())
    };
    Ok((with(&|s| s), with(&|s| 1.0 / s)))
}

/// Solves `a x = b` for a symmetric positive semidefinite `a` by Cholesky. Where `a` is singular, the smallest ridge that makes
/// the factorisation succeed is added (from `1e-14` of the mean diagonal, tenfold each time); an `a` that is zero or not finite gives zeros.
pub fn solve(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Matrix {
    let n = a.nrows();
    let mean = if n == 0 { 0.0 } else { trace(a) / n as f64 };
    if mean <= 0.0 || !is_finite(a) {
        return Matrix::zeros(n, b.ncols());
    }
    faer::set_global_parallelism(Par::Seq);
    let mut ridge = 0.0;
    while ridge < 1e3 {
        let damped = Matrix::from_fn(n, n, |i, j| a[(i, j)] / mean + if i == j { ridge } else { 0.0 });
        if let Ok(factor) = damped.llt(Side::Lower) {
            let mut x = factor.solve(b);
            x /= faer::Scale(mean);
            if is_finite(x.as_ref()) {
                return x;
            }
        }
        ridge = if ridge == 0.0 { 1e-14 } else { ridge * 10.0 };
    }
    Matrix::zeros(n, b.ncols())
}

/// The lower triangular `l` with `l l' = a` for a symmetric positive definite `a`; `None` where rounding leaves no such factor.
pub fn cholesky(a: MatRef<'_, f64>) -> Option<Matrix> {
    let scale = a.norm_max();
    if scale <= 0.0 || !is_finite(a) {
        return None;
    }
    faer::set_global_parallelism(Par::Seq);
    let scaled = Matrix::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)] / scale);
    let root = scale.sqrt();
    scaled.llt(Side::Lower).ok().map(|factor| factor.L() * faer::Scale(root))
}

/// Adds `left' * right` to `sum`, where `left` (`rows x sum.nrows()`) and `right` (`rows x sum.ncols()`) are row-major `f32`:
/// one block of a streamed Gram matrix, multiplied in single and summed in double precision.
pub fn add_gram(sum: MatMut<'_, f64>, left: &[f32], right: &[f32], rows: usize) {
    let (m, n) = (sum.nrows(), sum.ncols());
    let left = MatRef::from_row_major_slice(left, rows, m);
    add_rounded(sum, left.transpose(), MatRef::from_row_major_slice(right, rows, n));
}

/// Columns of a symmetric product that are made together.
const STRIP: usize = 96;

/// [`add_gram`] of rows with themselves, for half the work: only the lower half of `sum` is right until [`mirror`] is called.
pub fn add_square(mut sum: MatMut<'_, f64>, data: &[f32], rows: usize) {
    let n = sum.nrows();
    let data = MatRef::from_row_major_slice(data, rows, n);
    for start in (0..n).step_by(STRIP) {
        let columns = start..n.min(start + STRIP);
        let lower = data.get(.., start..).transpose();
        add_rounded(sum.as_mut().get_mut(start.., columns.clone()), lower, data.get(.., columns));
    }
}

/// Copies the lower half of a square matrix to the upper one.
pub fn mirror(matrix: &mut Matrix) {
    for j in 1..matrix.ncols() {
        for i in 0..j {
            matrix[(i, j)] = matrix[(j, i)];
        }
    }
}

/// `sum += a * b`, the product in single precision.
fn add_rounded(sum: MatMut<'_, f64>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    let block = product(a, b);
    zip!(sum, &block).for_each(|unzip!(sum, x)| *sum += f64::from(*x));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spd(n: usize) -> Matrix {
        let a = Matrix::from_fn(n, n, |i, j| ((i * 7 + j * 3) % 11) as f64 - 5.0);
        product(a.as_ref(), a.transpose())
    }

    fn close(a: &Matrix, b: &Matrix, tolerance: f64) {
        assert!((a - b).norm_max() <= tolerance * b.norm_max().max(1e-300), "{a:?}\n{b:?}");
    }

    #[test]
    fn eigen_reproduces_the_matrix_at_any_scale() {
        for scale in [1e-60, 1.0, 1e60] {
            let a = Matrix::from_fn(6, 6, |i, j| spd(6)[(i, j)] * scale);
            let Eigen { values, vectors } = eigen(a.as_ref()).unwrap();
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
            let scaled = Matrix::from_fn(6, 6, |i, k| vectors[(i, k)] * values[k]);
            close(&product(scaled.as_ref(), vectors.transpose()), &a, 1e-12);
        }
    }

    #[test]
    fn roots_square_and_invert() {
        let mut a = spd(5);
        for i in 0..5 {
            a[(i, i)] += 1.0;
        }
        let (root, inverse) = roots(a.as_ref(), 1e-12).unwrap();
        close(&product(root.as_ref(), root.as_ref()), &a, 1e-12);
        close(&product(root.as_ref(), inverse.as_ref()), &Matrix::identity(5, 5), 1e-9);
    }

    #[test]
    fn solve_handles_regular_singular_and_zero_matrices() {
        let mut a = spd(5);
        for i in 0..5 {
            a[(i, i)] += 1.0;
        }
        let x = Matrix::from_fn(5, 2, |i, j| (i + j) as f64);
        close(&solve(a.as_ref(), product(a.as_ref(), x.as_ref()).as_ref()), &x, 1e-9);
        let singular = Matrix::from_fn(3, 3, |_, _| 2.0);
        let b = Matrix::from_fn(3, 1, |_, _| 6.0);
        close(&product(singular.as_ref(), solve(singular.as_ref(), b.as_ref()).as_ref()), &b, 1e-6);
        assert_eq!(solve(Matrix::zeros(2, 2).as_ref(), Matrix::zeros(2, 1).as_ref()).norm_max(), 0.0);
    }

    #[test]
    fn cholesky_squares_to_the_matrix_or_says_no() {
        for scale in [1e-60, 1.0, 1e60] {
            let mut a = spd(5);
            (0..5).for_each(|i| a[(i, i)] += 1.0);
            let a = Matrix::from_fn(5, 5, |i, j| a[(i, j)] * scale);
            let l = cholesky(a.as_ref()).unwrap();
            close(&product(l.as_ref(), l.transpose()), &a, 1e-12);
            assert_eq!(l[(0, 1)], 0.0);
        }
        assert!(cholesky(Matrix::from_fn(3, 3, |_, _| -1.0).as_ref()).is_none());
        assert!(cholesky(Matrix::zeros(3, 3).as_ref()).is_none());
    }

    #[test]
    fn one_number_that_is_not_finite_is_no_matrix() {
        for bad in [f64::NAN, f64::INFINITY] {
            for at in [(3, 1), (1, 3), (2, 2)] {
                let mut a = spd(5);
                a[at] = bad;
                assert!(!is_finite(a.as_ref()));
                assert_eq!(eigen(a.as_ref()).err(), Some(NotConverged(5)), "{bad} {at:?}");
                assert!(cholesky(a.as_ref()).is_none());
                assert_eq!(solve(a.as_ref(), spd(5).as_ref()), Matrix::zeros(5, 5));
            }
        }
        assert!(is_finite(spd(5).as_ref()));
    }

    #[test]
    fn gram_of_blocks_is_the_gram_of_all_rows() {
        let rows: Vec<f32> = (0..40).map(|k| (k % 7) as f32 - 3.0).collect();
        let (mut whole, mut blocks) = (Matrix::zeros(4, 4), Matrix::zeros(4, 4));
        add_gram(whole.as_mut(), &rows, &rows, 10);
        for block in rows.chunks(12) {
            add_gram(blocks.as_mut(), block, block, block.len() / 4);
        }
        assert_eq!(whole, blocks);
        assert_eq!(whole[(1, 2)], (0..10).map(|r| f64::from(rows[r * 4 + 1] * rows[r * 4 + 2])).sum::<f64>());
    }

    #[test]
    fn square_of_rows_is_their_gram() {
        for n in [1, 5, STRIP, 2 * STRIP + 7] {
            let rows: Vec<f32> = (0..6 * n).map(|k| (k * k % 11) as f32 - 5.0).collect();
            let (mut whole, mut square) = (Matrix::identity(n, n), Matrix::identity(n, n));
            add_gram(whole.as_mut(), &rows, &rows, 6);
            add_square(square.as_mut(), &rows, 6);
            mirror(&mut square);
            assert_eq!(whole, square, "{n}");
        }
    }
}
