//! What became of each layer, and why, in words.
//!
//! Takes the graph before and after, and what the search knew; gives one [`LayerReport`] for each linear layer.

use crate::calibrate::covariance::Geometry;
use crate::compress::Choice;
use crate::graph::{Graph, Mode, Network, Weight};

use super::candidates::{Candidate, break_even};
use super::sensitivity::Sensitivity;

/// One row of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// The node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// `dense`, or the network's format.
    pub format: String,
    /// In the order of the stages; empty if dense.
    pub ranks: Vec<usize>,
    /// Relative RMS error of the layer's output on the calibration samples (with compressed layers before it; of the sum where the layer is
    /// a branch of one), or of the weight without any samples;
    /// `None` where nothing changed.
    pub error: Option<f64>,
    /// Learnt numbers before and after.
    pub parameters: [usize; 2],
    /// Multiply-adds before and after.
    pub macs: [u64; 2],
    /// Why, in words.
    pub reason: String,
    /// Rank that the last stage limits the output to; `None` where it limits nothing, or is not a plain factor.
    pub output_rank: Option<usize>,
    /// Share of the output's energy that is left after each rank; see [`super::tradeoff::spectrum`].
    pub spectrum: Vec<(usize, f64)>,
}

/// One row for each linear layer; `stayed` says why a layer with candidates stays dense.
pub fn report(
    before: &Graph,
    after: &Graph,
    found: &[Sensitivity],
    errors: &[Option<f64>],
    stayed: &str,
) -> Vec<LayerReport> {
    let linear =
        before.nodes.iter().zip(&after.nodes).enumerate().filter(|(_, (node, _))| node.op.weight().is_some());
    linear
        .map(|(index, (old, new))| {
            let layer = found.iter().find(|layer| layer.node == index);
            let macs = [before.node_macs(old), after.node_macs(new)];
            let (format, ranks, output_rank) = match new.op.weight() {
                Some(Weight::Network(network)) => (network.format, ranks(network), output_rank(network)),
                _ => ("dense", Vec::new(), None),
            };
            let found = |layer: &Sensitivity| {
                let given = |candidate: &Candidate| match (&candidate.network, new.op.weight()) {
                    (Some(network), Some(Weight::Network(chosen))) => {
                        candidate.choice == Choice::Given && **network == *chosen
                    }
                    _ => false,
                };
                layer.candidates.iter().any(given)
            };
            let reason = match (format, layer) {
                (_, Some(layer)) if found(layer) => "trained in this form".into(),
                ("dense", Some(layer)) => {
                    let refitted = if old.op != new.op { "; refitted" } else { "" };
                    why_dense(before, layer, stayed) + refitted
                }
                ("dense", None) => stayed.to_string(),
                _ => format!("{:.1}x fewer MACs", macs[0] as f64 / macs[1].max(1) as f64),
            };
            LayerReport {
                name: old.name.clone(),
                op: old.op.name().into(),
                format: format.into(),
                ranks,
                error: errors.get(index).copied().flatten(),
                parameters: [old.op.parameters(), new.op.parameters()],
                macs,
                reason,
                output_rank,
                spectrum: layer.map_or_else(Vec::new, |layer| layer.spectrum.clone()),
            }
        })
        .collect()
}

/// Extents of the bonds in the order in which the stages open them.
fn ranks(network: &Network) -> Vec<usize> {
    let mut seen = Vec::new();
    for core in network.contraction.iter().map(|index| &network.cores[*index]) {
        for (mode, extent) in core.modes.iter().zip(&core.tensor.shape) {
            if matches!(mode, Mode::Bond(_)) && !seen.iter().any(|(known, _)| known == mode) {
                seen.push((*mode, *extent));
            }
        }
    }
    seen.into_iter().map(|(_, extent)| extent).collect()
}

/// The extent of the bonds into the core of the outputs, where that core has nothing else.
fn output_rank(network: &Network) -> Option<usize> {
    let mut last =
        network.cores.iter().filter(|core| core.modes.iter().any(|mode| matches!(mode, Mode::Output(_))));
    let (core, None) = (last.next()?, last.next()) else { return None };
    let mut rank = 1;
    for (mode, extent) in core.modes.iter().zip(&core.tensor.shape) {
        match mode {
            Mode::Bond(_) => rank *= extent,
            Mode::Output(_) => {}
            _ => return None,
        }
    }
    network.shape.first().is_some_and(|outputs| rank < *outputs).then_some(rank)
}

/// Why a layer that was looked at is dense.
fn why_dense(graph: &Graph, layer: &Sensitivity, stayed: &str) -> String {
    let node = &graph.nodes[layer.node];
    let Some(geometry) = Geometry::of(graph, node) else { return stayed.into() };
    if geometry.groups > 1 {
        return "grouped convolution: these formats do not factorise it".into();
    }
    let [o, i] = [geometry.output[0], geometry.input[0]];
    let pointwise = geometry.kernel == [1, 1];
    let size = format!("{o}x{}", geometry.row_len());
    let mildest = layer.candidates[1..].iter().min_by(|a, b| a.error.total_cmp(&b.error));
    match mildest {
        None if pointwise => {
            format!("break-even rank {} of {size}: no rank below it is worth trying", break_even(&geometry))
        }
        None => format!(
            "no ranks of {o}x{i} channels save both MACs and parameters (or the method has no format for it)"
        ),
        Some(mildest) => {
            let ranks: Vec<String> = mildest.choice.ranks().iter().map(usize::to_string).collect();
            let saved = 100.0 * (1.0 - mildest.macs as f64 / layer.candidates[0].macs.max(1) as f64);
            let bound = if pointwise {
                format!("break-even rank {} of {size}: rank", break_even(&geometry))
            } else {
                "the mildest ranks that save anything,".into()
            };
            format!(
                "{bound} {} already costs {:.0} % output error for {saved:.0} % fewer MACs; {stayed}",
                ranks.join(","),
                100.0 * mildest.error
            )
        }
    }
}
