//! Structure that a weight already has.
//!
//! Takes a dense weight; gives the networks of hypercomplex and tensor-train layers that reproduce it, smallest first, or says how far it is from the nearest. Nothing is fitted to
//! data and nothing is lost: what is found here is what the layer was trained as, before an exporter multiplied it out.

use crate::calibrate::covariance::Geometry;
use crate::graph::Network;
use crate::linalg::NotConverged;
use crate::lower::{cheapest_order, network_parameters};
use crate::search::Method;

use super::kronecker::{self, Blocks};
use super::{Target, algebra, network, tensor_train, to_matrix};

/// Relative error of a weight up to which a network stands for it.
pub const FOUND: f64 = 1e-5;

/// Numbers of blocks that are tried.
pub const BLOCKS: std::ops::RangeInclusive<usize> = 2..=16;

/// A network that stands for a weight.
#[derive(Clone, Debug)]
pub struct Found {
    /// The network, in its cheapest order for the layer.
    pub network: Network,
    /// Relative error of the weight.
    pub error: f64,
}

/// What was found in one weight.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Fewest numbers first.
    pub found: Vec<Found>,
    /// What was looked for in vain, in words; empty if nothing was.
    pub missed: String,
}

/// Looks for the structures that `method` allows in the weight of a layer; its covariance is not looked at.
pub fn find(target: Target<'_>, method: Method, geometry: &Geometry) -> Result<Findings, NotConverged> {
    let mut findings = Findings::default();
    let mut missed = Vec::new();
    if geometry.groups > 1 {
        return Ok(Findings { missed: "grouped convolutions are not looked at".into(), ..findings });
    }
    if method.allows(Method::Hypercomplex(None)) {
        let given = if let Method::Hypercomplex(given) = method { given } else { None };
        missed.extend(hypercomplex(target, given, &mut findings.found)?);
    }
    if method.allows(Method::TensorTrain) {
        match tensor_train::find(target)? {
            Some(network) => add(&mut findings.found, &target, network),
            None => missed.push("no tensor train of 2 to 4 cores reproduces it with fewer numbers".into()),
        }
    }
    let (input, output) = geometry.shapes(target.shape.len());
    for found in &mut findings.found {
        found.network.contraction = cheapest_order(&found.network, &input, &output);
    }
    findings.found.sort_by_key(|found| network_parameters(&found.network));
    findings.missed = missed.join("; ");
    Ok(findings)
}

fn hypercomplex(
    target: Target<'_>,
    given: Option<usize>,
    found: &mut Vec<Found>,
) -> Result<Option<String>, NotConverged> {
    let tried: Vec<usize> = given.map_or_else(|| BLOCKS.collect(), |n| vec![n]);
    let mut nearest: Option<(f64, usize)> = None;
    for (n, blocks) in tried.into_iter().filter_map(|n| Some((n, Blocks::of(n, target.shape)?))) {
        let fit = kronecker::find(target, blocks)?;
        match fit.network {
            Some(mut network) => {
                network.format = algebra::name(&network).unwrap_or(network.format);
                let fast = algebra::fast(&network);
                add(found, &target, network);
                fast.into_iter().for_each(|network| add(found, &target, network));
            }
            None if fit.error < nearest.map_or(f64::INFINITY, |(error, _)| error) => {
                nearest = Some((fit.error, n));
            }
            None => {}
        }
    }
    if !found.is_empty() {
        return Ok(None);
    }
    let range = match given {
        Some(n) => format!("with n = {n}"),
        None => format!("with n in {}..{}", BLOCKS.start(), BLOCKS.end()),
    };
    let [o, i] = [target.shape[0], target.shape[1]];
    Ok(Some(match nearest {
        Some((error, n)) => {
            format!("no Kronecker structure {range}: nearest at n = {n}, relative error {error:.2}")
        }
        None => format!(
            "no Kronecker structure {range}: none divides {o} outputs and {i} inputs into so few numbers"
        ),
    }))
}

fn add(found: &mut Vec<Found>, target: &Target<'_>, network: Network) {
    let error = relative_error(target, &network);
    if error <= FOUND && network_parameters(&network) < target.matrix.nrows() * target.matrix.ncols() {
        found.push(Found { network, error });
    }
}

/// Relative error of the weight that `network` stands for; infinite if it stands for none.
pub(super) fn relative_error(target: &Target<'_>, network: &Network) -> f64 {
    let Ok(dense) = network::reconstruct(network) else { return f64::INFINITY };
    let size = target.matrix.norm_l2();
    if size > 0.0 { (target.matrix - to_matrix(&dense)).norm_l2() / size } else { 0.0 }
}
