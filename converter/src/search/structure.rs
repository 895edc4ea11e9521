//! Layers that were trained as hypercomplex or tensor-train layers, in the form that they were trained in.
//!
//! Takes a graph and a method; gives the graph with the smallest exact network of each layer in place of its weight. No data, no budget, no loss: the
//! answer to `--hypercomplex` and `--tensor-train` alone.

use crate::calibrate::covariance::Geometry;
use crate::compress::kronecker::Blocks;
use crate::compress::structure::{BLOCKS, find};
use crate::compress::{Target, to_matrix};
use crate::graph::{Graph, Network, Op, Weight};
use crate::linalg::Matrix;

use super::explain::report;
use super::refit::{bias, set};
use super::sensitivity::linear_layers;
use super::tradeoff::Tradeoff;
use super::{Error, Method, Options, Outcome, Progress};

/// Whether only what is there already is asked for.
pub(super) fn suffices(options: &Options) -> bool {
    let structured = matches!(options.method, Method::Hypercomplex(_) | Method::TensorTrain);
    let free = Options {
        int8: options.int8,
        core: options.core,
        original: options.original,
        ..Options::of(options.method)
    };
    structured && *options == free
}

/// Refuses a number of blocks that no layer can be divided in.
pub(super) fn check(graph: &Graph, method: Method) -> Result<(), Error> {
    let Method::Hypercomplex(Some(wanted)) = method else { return Ok(()) };
    let fits = |n: usize| {
        linear_layers(graph)
            .filter_map(|index| graph.nodes[index].op.dense_weight())
            .any(|weight| Blocks::of(n, &weight.shape).is_some())
    };
    if fits(wanted) {
        Ok(())
    } else {
        Err(Error::Blocks { wanted, fitting: BLOCKS.filter(|n| fits(*n)).collect() })
    }
}

/// Every layer in its smallest exact form.
pub(super) fn exact(graph: &Graph, method: Method, progress: &dyn Progress) -> Result<Outcome, Error> {
    progress.expect(linear_layers(graph).count());
    let mut result = graph.clone();
    let mut errors = vec![None; graph.nodes.len()];
    let mut reasons: Vec<Option<String>> = vec![None; graph.nodes.len()];
    let mut total = 0;
    for index in linear_layers(graph) {
        let node = &graph.nodes[index];
        progress.step(&format!("searching {}", node.name));
        total += 1;
        let (Some(geometry), Some(tensor)) = (Geometry::of(graph, node), node.op.dense_weight()) else {
            continue;
        };
        let (matrix, unused) = (to_matrix(tensor), Matrix::zeros(0, 0));
        let target = Target::new(&tensor.shape, &matrix, &unused);
        let findings = find(target, method, &geometry).map_err(|error| Error::Fit {
            node: node.name.clone(),
            op: node.op.name(),
            reason: error.to_string(),
        })?;
        let Some(best) = findings.found.into_iter().next() else {
            reasons[index] = Some(findings.missed);
            continue;
        };
        reasons[index] = Some("trained in this form".into());
        errors[index] = Some(best.error);
        swap(&mut result.nodes[index].op, best.network);
    }
    let mut layers = report(graph, &result, &[], &errors, "it is factorised already");
    let linear = (0..graph.nodes.len()).filter(|index| graph.nodes[*index].op.weight().is_some());
    for (layer, reason) in layers.iter_mut().zip(linear.map(|index| reasons[index].take())) {
        if let Some(reason) = reason {
            layer.reason = reason;
        }
    }
    let found = errors.iter().flatten().count();
    let what = if method == Method::TensorTrain { "tensor trains" } else { "Kronecker sums" };
    let notes = vec![match found {
        0 => format!("no layer was trained as {what}; to impose them, give a budget such as --ratio"),
        _ => format!("{found} of {total} layers are {what}, found in their weights: nothing is lost"),
    }];
    Ok(Outcome { graph: result, layers, notes, tradeoff: Tradeoff::default() })
}

/// Gives a linear layer a network that stands for its weight; its bias stays.
pub(super) fn swap(op: &mut Op, network: Network) {
    let own: Vec<f32> = bias(op, network.shape[0]).iter().map(|b| *b as f32).collect();
    set(op, Weight::Network(network), &own);
}
