//! Which inner values of factorised layers have 16 bits.
//!
//! Wide values double their share of the arena and cost more instructions, so they stand where measuring shows that rounding them to 8 bits is what
//! the outputs suffer from.

use crate::graph::{Graph, ValueId};

/// Width of the values inside factorised layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBits {
    /// 8 bits.
    #[default]
    Eight,
    /// 16 bits wherever the reader's accumulator allows.
    Sixteen,
    /// 16 bits where that takes away a share of the output's error on the calibration samples, else 8.
    Measured,
}

/// Least share of the output's squared error that a value must take away to be wide.
const WORTH: f64 = 0.05;

/// Values that may be wide: those that only linear layers give and read.
pub fn inner(graph: &Graph, groups: &[usize]) -> Vec<ValueId> {
    let linear = |node: usize| graph.nodes[node].op.weight().is_some();
    let may = |id: &ValueId| {
        graph.value(*id).rank_space
            && !graph.outputs.contains(id)
            && groups.iter().filter(|group| **group == id.0).count() == 1
            && graph.producer(*id).is_some_and(linear)
            && graph.consumers(*id).into_iter().all(linear)
    };
    (0..graph.values.len()).map(ValueId).filter(may).collect()
}

/// Those of `inner` that are worth it, where `error` tells the relative RMS error of the outputs with some values wide.
pub fn worth_it<E>(
    inner: &[ValueId],
    error: impl Fn(&[ValueId]) -> Result<f64, E>,
) -> Result<Vec<ValueId>, E> {
    let narrow = error(&[])?.powi(2);
    let mut wide = Vec::new();
    for id in inner {
        if error(&[*id])?.powi(2) < (1.0 - WORTH) * narrow {
            wide.push(*id);
        }
    }
    let together = wide.len() > 1 && error(&wide)?.powi(2) >= (1.0 - WORTH) * narrow;
    Ok(if together { Vec::new() } else { wide })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_carry_the_error_are_wide() {
        let noise = [0.5, 0.01, 0.3, 0.0];
        let inner: Vec<ValueId> = (0..noise.len()).map(ValueId).collect();
        let error = |wide: &[ValueId]| {
            let left = noise.iter().enumerate().filter(|(id, _)| !wide.contains(&ValueId(*id)));
            Ok::<_, ()>(left.map(|(_, noise)| noise * noise).sum::<f64>().sqrt())
        };
        assert_eq!(worth_it(&inner, error).unwrap(), [ValueId(0), ValueId(2)]);
        // Each alone helps, both together do not: none.
        let contrary = |wide: &[ValueId]| Ok::<_, ()>(if wide.len() == 1 { 0.5 } else { 1.0 });
        assert!(worth_it(&inner, contrary).unwrap().is_empty());
        assert_eq!(worth_it(&inner, |_| Err("broken")), Err("broken"));
    }
}
