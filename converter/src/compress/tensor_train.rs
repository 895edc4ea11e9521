//! Tensor trains of dense layers.
//!
//! Takes a matrix `[o, i]`; gives the train of cores `[bond, o_k, i_k, bond]` over factors of both sides that stores the fewest numbers, where one
//! reproduces the matrix (Novikov et al. 2015, arXiv 1509.06569). The bond between the first modes, which make up `p` outputs and `q` inputs, and the others is the rank of the matrix
//! rearranged as `p * q` rows, whatever the factors of `p` and `q` are: so the ranks of all cuts `(p, q)` say at once what every factorisation of the sides
//! costs, and the cheapest one is a shortest path from cut to cut. The cores then come from successive truncated decompositions (TT-SVD, Oseledets 2011).
//!
//! Refused: nothing; where no train saves anything there is none.

use crate::graph::{Core, Mode, Network, Tensor};
use crate::linalg::{Eigen, Matrix, NotConverged, eigen, product};

use super::Target;
use super::kronecker::EXACT;

/// Cores of a train at most.
const MOST_CORES: usize = 4;

/// Rows and columns of the sample that shows most cuts to have no small rank.
const SAMPLE: usize = 96;

/// Factors of the sides, most significant first, and the bonds between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `(o_k, i_k)`.
    pub modes: Vec<(usize, usize)>,
    /// One less than there are modes.
    pub ranks: Vec<usize>,
}

/// The train that reproduces the weight with the fewest numbers, if it saves any.
pub fn find(target: Target<'_>) -> Result<Option<Network>, NotConverged> {
    let (o, i) = (target.matrix.nrows(), target.matrix.ncols());
    if target.shape[2..].iter().any(|extent| *extent != 1) {
        return Ok(None);
    }
    let Some(shape) = cheapest(target.matrix)? else { return Ok(None) };
    let network = decompose(target, &shape)?;
    let saves = network.cores.iter().map(|core| core.tensor.len()).sum::<usize>() < o * i;
    Ok(Some(network).filter(|_| saves))
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}

/// The matrix with one row for each of the first `p` outputs and `q` inputs.
fn unfolded(matrix: &Matrix, p: usize, q: usize) -> Matrix {
    let (o, i) = (matrix.nrows() / p, matrix.ncols() / q);
    Matrix::from_fn(p * q, o * i, |row, column| matrix[(row / q * o + column / i, row % q * i + column % i)])
}

/// Numerical rank, or the shorter side if there is none below it.
fn rank(matrix: &Matrix, p: usize, q: usize) -> Result<usize, NotConverged> {
    let (o, i) = (matrix.nrows() / p, matrix.ncols() / q);
    let short = (p * q).min(o * i);
    // Spread irregularly, or regular structure would look like a small rank.
    let spread = |extent: usize| -> Vec<usize> {
        let mut picked: Vec<usize> = match extent {
            0..=SAMPLE => (0..extent).collect(),
            _ => (0..SAMPLE)
                .map(|k| (k as f64 * 0.618_033_988_75).fract())
                .map(|x| (x * extent as f64) as usize)
                .collect(),
        };
        picked.sort_unstable();
        picked.dedup();
        picked
    };
    let (rows, columns) = (spread(p * q), spread(o * i));
    let sample = Matrix::from_fn(rows.len(), columns.len(), |a, b| {
        let (row, column) = (rows[a], columns[b]);
        matrix[(row / q * o + column / i, row % q * i + column % i)]
    });
    let of = |matrix: &Matrix| -> Result<usize, NotConverged> {
        let values = directions(matrix)?.values;
        let total: f64 = values.iter().sum();
        let mut tail = 0.0;
        let mut rank = values.len();
        while rank > 0 && tail + values[rank - 1] <= EXACT * EXACT * total {
            tail += values[rank - 1];
            rank -= 1;
        }
        Ok(rank)
    };
    let seen = of(&sample)?;
    // A sample's rank is a lower bound; one that is full says that there is nothing to find.
    if seen >= rows.len().min(columns.len()) { Ok(short) } else { of(&unfolded(matrix, p, q)) }
}

/// Squared singular values, and the singular vectors of the shorter side.
fn directions(matrix: &Matrix) -> Result<Eigen, NotConverged> {
    if matrix.nrows() <= matrix.ncols() {
        eigen(product(matrix.as_ref(), matrix.transpose()).as_ref())
    } else {
        eigen(product(matrix.transpose(), matrix.as_ref()).as_ref())
    }
}

/// The factorisation of both sides whose exact train stores the fewest numbers, if that is fewer than the matrix.
fn cheapest(matrix: &Matrix) -> Result<Option<Shape>, NotConverged> {
    let (o, i) = (matrix.nrows(), matrix.ncols());
    if o == 0 || i == 0 || matrix.norm_max() == 0.0 || !matrix.norm_max().is_finite() {
        return Ok(None);
    }
    let mut cuts = vec![(1, 1, 1)];
    for p in divisors(o).into_iter().filter(|p| *p > 1 && *p < o) {
        for q in divisors(i).into_iter().filter(|q| *q > 1 && *q < i) {
            cuts.push((p, q, rank(matrix, p, q)?.max(1)));
        }
    }
    cuts.push((o, i, 1));
    // Least storage of trains of so many cores up to each cut, and the cut before it.
    let mut least = vec![vec![(usize::MAX, 0); cuts.len()]; MOST_CORES + 1];
    least[0][0].0 = 0;
    for cores in 1..=MOST_CORES {
        for (to, &(p, q, r)) in cuts.iter().enumerate() {
            for (from, &(p0, q0, r0)) in cuts.iter().enumerate().take(to) {
                let (before, _) = least[cores - 1][from];
                if before < usize::MAX && p > p0 && q > q0 && p.is_multiple_of(p0) && q.is_multiple_of(q0) {
                    let stored = before + r0 * (p / p0) * (q / q0) * r;
                    if stored < least[cores][to].0 {
                        least[cores][to] = (stored, from);
                    }
                }
            }
        }
    }
    let end = cuts.len() - 1;
    let Some(cores) = (2..=MOST_CORES).min_by_key(|cores| least[*cores][end].0) else { return Ok(None) };
    if least[cores][end].0 >= o * i {
        return Ok(None);
    }
    let mut path = vec![end];
    for count in (1..=cores).rev() {
        path.insert(0, least[count][path[0]].1);
    }
    let steps = path.windows(2).map(|pair| {
        let ((p0, q0, _), (p, q, _)) = (cuts[pair[0]], cuts[pair[1]]);
        (p / p0, q / q0)
    });
    let ranks = path[1..cores].iter().map(|cut| cuts[*cut].2).collect();
    Ok(Some(Shape { modes: steps.collect(), ranks }))
}

/// The cores of a train of this shape, nearest to the target's matrix cut by cut.
pub fn decompose(target: Target<'_>, shape: &Shape) -> Result<Network, NotConverged> {
    let (mut o, mut i) = (target.matrix.nrows(), target.matrix.ncols());
    // `bond x o x i` of what is left.
    let mut left: Vec<f64> =
        (0..o).flat_map(|row| (0..i).map(move |column| (row, column))).map(|at| target.matrix[at]).collect();
    let mut bond = 1;
    let mut cores = Vec::with_capacity(shape.modes.len());
    for (k, &(p, q)) in shape.modes.iter().enumerate() {
        let (index, last) = (k as u8, k + 1 == shape.modes.len());
        (o, i) = (o / p, i / q);
        let unfolded = Matrix::from_fn(bond * p * q, o * i, |row, column| {
            let (r, a, b) = (row / (p * q), row / q % p, row % q);
            left[((r * p + a) * o + column / i) * (q * i) + b * i + column % i]
        });
        let (basis, rest) = match shape.ranks.get(k) {
            Some(rank) => split(&unfolded, *rank)?,
            None => (unfolded, Matrix::identity(1, 1)),
        };
        let rank = basis.ncols();
        let data =
            (0..basis.nrows()).flat_map(|row| (0..rank).map(move |s| (row, s))).map(|at| basis[at] as f32);
        let (mut extents, mut modes) = (vec![p, q], vec![Mode::Output(index), Mode::Input(index)]);
        if k > 0 {
            extents.insert(0, bond);
            modes.insert(0, Mode::Bond(index - 1));
        }
        if !last {
            extents.push(rank);
            modes.push(Mode::Bond(index));
        }
        cores.push(Core { tensor: Tensor::new(extents, data.collect()), modes });
        left = (0..rest.nrows())
            .flat_map(|s| (0..rest.ncols()).map(move |k| (s, k)))
            .map(|at| rest[at])
            .collect();
        bond = rank;
    }
    Ok(Network {
        format: "tensor-train",
        shape: target.shape.to_vec(),
        contraction: (0..cores.len()).collect(),
        cores,
        row_scale: None,
    })
}

/// The best `basis * rest` with an orthonormal basis of `rank` columns.
fn split(matrix: &Matrix, rank: usize) -> Result<(Matrix, Matrix), NotConverged> {
    let rank = rank.clamp(1, matrix.nrows().min(matrix.ncols()));
    let Eigen { values, vectors } = directions(matrix)?;
    let vectors = vectors.get(.., ..rank);
    if matrix.nrows() <= matrix.ncols() {
        return Ok((vectors.to_owned(), product(vectors.transpose(), matrix.as_ref())));
    }
    // Of the right vectors; the left ones are their images.
    let size = |s: usize| values[s].sqrt();
    let image = product(matrix.as_ref(), vectors);
    let basis =
        Matrix::from_fn(
            matrix.nrows(),
            rank,
            |row, s| if size(s) > 0.0 { image[(row, s)] / size(s) } else { 0.0 },
        );
    let rest = Matrix::from_fn(rank, matrix.ncols(), |s, column| size(s) * vectors[(column, s)]);
    Ok((basis, rest))
}
