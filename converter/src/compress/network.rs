//! Multiplies a tensor network out to the dense weight that it stands for.
//!
//! Takes any [`Network`]: bonds may join two cores or more (a hyperedge, as in CP), and an input, output or kernel mode may
//! occur in several cores (then its cores are multiplied elementwise along it). Refuses cores that contradict each other
//! or the network's shape.

use crate::graph::{Core, Mode, Network, Tensor};

/// Why a network stands for no dense weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A core names other axes than its tensor has, or names one twice.
    #[error("core {core} has {axes} axes but {modes} distinct modes")]
    Axes {
        /// Index into `cores`.
        core: usize,
        /// Axes of the tensor.
        axes: usize,
        /// Distinct modes named.
        modes: usize,
    },
    /// Two cores disagree about the extent of a mode.
    #[error("mode {mode:?} has extent {first} in one core and {second} in another")]
    Extents {
        /// The shared mode.
        mode: Mode,
        /// One extent.
        first: usize,
        /// The other.
        second: usize,
    },
    /// The open modes do not make up the shape.
    #[error("the open modes have extents {found:?}, which is no weight of shape {shape:?}")]
    Shape {
        /// Extents of the open modes, outputs first.
        found: Vec<usize>,
        /// The shape that the network names.
        shape: Vec<usize>,
    },
    /// `contraction` is no permutation of the cores.
    #[error("contraction order {0:?} does not name every core once")]
    Order(Vec<usize>),
}

/// Whether the modes, extents and contraction order of a network fit together.
pub fn check(network: &Network) -> Result<(), Error> {
    let mut order = network.contraction.clone();
    order.sort_unstable();
    if network.cores.is_empty() || !order.iter().copied().eq(0..network.cores.len()) {
        return Err(Error::Order(network.contraction.clone()));
    }
    let mut extents: Vec<(Mode, usize)> = Vec::new();
    for (index, core) in network.cores.iter().enumerate() {
        let mut distinct = core.modes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != core.tensor.shape.len() || core.modes.len() != distinct.len() {
            return Err(Error::Axes { core: index, axes: core.tensor.shape.len(), modes: distinct.len() });
        }
        for (&mode, &extent) in core.modes.iter().zip(&core.tensor.shape) {
            match extents.iter().find(|(known, _)| *known == mode) {
                Some(&(_, first)) if first != extent => {
                    return Err(Error::Extents { mode, first, second: extent });
                }
                Some(_) => {}
                None => extents.push((mode, extent)),
            }
        }
    }
    extents.retain(|(mode, _)| !matches!(mode, Mode::Bond(_)));
    extents.sort_unstable();
    let found: Vec<usize> = extents.iter().map(|(_, extent)| *extent).collect();
    let product = |wanted: fn(&Mode) -> bool| -> usize {
        extents.iter().filter(|(mode, _)| wanted(mode)).map(|(_, extent)| extent).product()
    };
    let sides = [
        product(|mode| matches!(mode, Mode::Output(_))),
        product(|mode| matches!(mode, Mode::Input(_))),
        product(|mode| *mode == Mode::KernelHeight),
        product(|mode| *mode == Mode::KernelWidth),
    ];
    let shape = &network.shape;
    let fits = matches!(shape.len(), 2 | 4)
        && sides[..shape.len()] == shape[..]
        && sides[shape.len()..].iter().all(|side| *side == 1)
        && network.row_scale.as_ref().is_none_or(|scale| scale.len() == shape[0]);
    if fits { Ok(()) } else { Err(Error::Shape { found, shape: shape.clone() }) }
}

/// The dense weight of shape `network.shape`.
pub fn reconstruct(network: &Network) -> Result<Tensor, Error> {
    check(network)?;
    let cores: Vec<&Core> = network.contraction.iter().map(|index| &network.cores[*index]).collect();
    let mut result = Partial { modes: Vec::new(), extents: Vec::new(), data: vec![1.0] };
    for (step, core) in cores.iter().enumerate() {
        let later = &cores[step + 1..];
        let needed = |mode: Mode| {
            !matches!(mode, Mode::Bond(_)) || later.iter().any(|core| core.modes.contains(&mode))
        };
        let core = Partial {
            modes: core.modes.clone(),
            extents: core.tensor.shape.clone(),
            data: core.tensor.data.iter().map(|x| f64::from(*x)).collect(),
        };
        result = result.times(&core, needed);
    }
    let mut order = result.modes.clone();
    order.sort_unstable();
    let mut dense = result.permuted(&order);
    if let Some(scale) = &network.row_scale {
        let row = dense.len() / scale.len().max(1);
        for (chunk, factor) in dense.chunks_mut(row.max(1)).zip(scale) {
            chunk.iter_mut().for_each(|x| *x *= f64::from(*factor));
        }
    }
    Ok(Tensor::new(network.shape.clone(), dense.into_iter().map(|x| x as f32).collect()))
}

/// A tensor with named axes, in double precision.
struct Partial {
    modes: Vec<Mode>,
    extents: Vec<usize>,
    data: Vec<f64>,
}

impl Partial {
    fn extent(&self, mode: Mode) -> usize {
        self.modes.iter().position(|own| *own == mode).map_or(1, |axis| self.extents[axis])
    }

    /// Product over shared modes, summed over those that are not `needed` any more.
    fn times(&self, other: &Self, needed: impl Fn(Mode) -> bool) -> Self {
        let shared = |mode: &Mode| self.modes.contains(mode) && other.modes.contains(mode);
        let (batch, summed): (Vec<Mode>, Vec<Mode>) =
            self.modes.iter().filter(|mode| shared(mode)).partition(|mode| needed(**mode));
        let alone = |modes: &[Mode]| modes.iter().copied().filter(|mode| !shared(mode)).collect::<Vec<_>>();
        let (left, right) = (alone(&self.modes), alone(&other.modes));
        let a = self.permuted(&[&batch[..], &left, &summed].concat());
        let b = other.permuted(&[&batch[..], &summed, &right].concat());
        let size = |modes: &[Mode]| -> usize {
            modes.iter().map(|mode| self.extent(*mode).max(other.extent(*mode))).product()
        };
        let (rows, depth, columns) = (size(&left), size(&summed), size(&right));
        let mut data = vec![0.0; size(&batch) * rows * columns];
        if depth > 0 && columns > 0 {
            for (index, out) in data.chunks_exact_mut(columns).enumerate() {
                let (block, row) = (index / rows, &a[index * depth..][..depth]);
                for (k, &x) in row.iter().enumerate() {
                    let b = &b[(block * depth + k) * columns..][..columns];
                    out.iter_mut().zip(b).for_each(|(out, y)| *out += x * y);
                }
            }
        }
        let modes = [batch, left, right].concat();
        let extents = modes.iter().map(|mode| self.extent(*mode).max(other.extent(*mode))).collect();
        Self { modes, extents, data }
    }

    /// The elements with the axes in another order.
    fn permuted(&self, order: &[Mode]) -> Vec<f64> {
        let mut strides = vec![1; self.modes.len()];
        for axis in (1..self.modes.len()).rev() {
            strides[axis - 1] = strides[axis] * self.extents[axis];
        }
        let axes: Vec<(usize, usize)> = order
            .iter()
            .filter_map(|mode| self.modes.iter().position(|own| own == mode))
            .map(|axis| (self.extents[axis], strides[axis]))
            .collect();
        let mut offsets = vec![0];
        for (extent, stride) in axes {
            offsets = offsets.iter().flat_map(|base| (0..extent).map(move |k| base + k * stride)).collect();
        }
        offsets.into_iter().map(|offset| self.data[offset]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    fn core(shape: &[usize], modes: &[Mode], seed: u64) -> Core {
        let tensor = Tensor::new(shape.to_vec(), noise(shape.iter().product(), seed));
        Core { tensor, modes: modes.to_vec() }
    }

    #[test]
    fn hyperedge_of_cp_equals_its_sum() {
        use Mode::*;
        let (a, b, c) = (
            core(&[3, 2], &[Bond(0), Input(0)], 1),
            core(&[2, 3, 2], &[KernelHeight, Bond(0), KernelWidth], 2),
            core(&[4, 3], &[Output(0), Bond(0)], 3),
        );
        let scale = vec![1.0, -2.0, 0.5, 3.0];
        let network = Network {
            format: "cp",
            shape: vec![4, 2, 2, 2],
            cores: vec![c.clone(), a.clone(), b.clone()],
            contraction: vec![1, 2, 0],
            row_scale: Some(scale.clone()),
        };
        let dense = reconstruct(&network).unwrap();
        for (index, value) in dense.data.iter().enumerate() {
            let (o, i, h, w) = (index / 8, index / 4 % 2, index / 2 % 2, index % 2);
            let sum: f32 = (0..3)
                .map(|r| {
                    c.tensor.data[o * 3 + r] * a.tensor.data[r * 2 + i] * b.tensor.data[h * 6 + r * 2 + w]
                })
                .sum();
            assert!((value - scale[o] * sum).abs() < 1e-5, "{index}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        use Mode::*;
        let good = Network {
            format: "low-rank",
            shape: vec![4, 3],
            cores: vec![core(&[2, 3], &[Bond(0), Input(0)], 1), core(&[4, 2], &[Output(0), Bond(0)], 2)],
            contraction: vec![0, 1],
            row_scale: None,
        };
        assert!(reconstruct(&good).is_ok());
        let broken = |change: fn(&mut Network)| {
            let mut network = good.clone();
            change(&mut network);
            reconstruct(&network)
        };
        assert!(matches!(broken(|n| n.contraction = vec![0, 0]), Err(Error::Order(_))));
        assert!(matches!(broken(|n| n.shape = vec![4, 4]), Err(Error::Shape { .. })));
        assert!(matches!(broken(|n| n.row_scale = Some(vec![1.0])), Err(Error::Shape { .. })));
        assert!(matches!(broken(|n| n.cores[0].modes[1] = Bond(0)), Err(Error::Axes { .. })));
        assert!(matches!(broken(|n| n.cores[0].tensor.shape = vec![3, 2]), Err(Error::Extents { .. })));
    }
}
