//! What a contraction order costs, and the cheapest one.

use crate::graph::Network;

use super::stages::{Stage, closes, stages, window_stages};

/// Stages of a network up to which all orders are tried.
const MOST_CORES: usize = 6;

/// What moving one number between two stages is worth in multiply-adds.
const MOVE: u64 = 4;

/// Multiply-adds of the stages of a factorised layer with these input and output shapes, for one inference. A network that does not
/// lower is priced as its dense weight.
pub fn network_macs(network: &Network, input: &[usize], output: &[usize]) -> u64 {
    let product = |extents: &[usize]| extents.iter().product::<usize>() as u64;
    match stages(network, &network.contraction) {
        Ok(stages) => cost(network, &stages, input, output).0,
        Err(_) => product(output) * product(network.shape.get(1..).unwrap_or_default()),
    }
}

/// Numbers that the stages of a factorised layer store, without its bias: those of the cores, and a factor for each output where no stage has all
/// outputs.
pub fn network_parameters(network: &Network) -> usize {
    let cores: usize = network.cores.iter().map(|core| core.tensor.len()).sum();
    match stages(network, &network.contraction) {
        Ok(stages) if closes(&stages) => cores,
        _ => cores + network.shape[0],
    }
}

/// The order of the cores with the fewest multiply-adds and moved numbers for these shapes; the network's own if it has many cores or none
/// is better.
pub fn cheapest_order(network: &Network, input: &[usize], output: &[usize]) -> Vec<usize> {
    let price = |order: &[usize]| {
        let stages = stages(network, order).ok()?;
        let (macs, moved) = cost(network, &stages, input, output);
        Some(macs + MOVE * moved)
    };
    let mut best = network.contraction.clone();
    let Some(mut least) = price(&best).filter(|_| network.cores.len() <= MOST_CORES) else { return best };
    let mut orders = vec![Vec::new()];
    for _ in 0..network.cores.len() {
        let extend = |order: &Vec<usize>| {
            let order = order.clone();
            let free = (0..network.cores.len()).filter(|core| !order.contains(core)).collect::<Vec<_>>();
            free.into_iter().map(move |core| [&order[..], &[core]].concat())
        };
        orders = orders.iter().flat_map(extend).collect();
    }
    for order in orders {
        if let Some(price) = price(&order).filter(|price| *price < least) {
            (least, best) = (price, order);
        }
    }
    best
}

/// Multiply-adds, and numbers that lie between two stages.
fn cost(network: &Network, stages: &[Stage<'_>], input: &[usize], output: &[usize]) -> (u64, u64) {
    let outputs = network.shape[0];
    let own = if closes(stages) { 0 } else { outputs };
    let [vertical, horizontal] = window_stages(stages);
    // Extents of an axis: the input's before the stage that strides along it, the output's from there on.
    let positions = |index: usize| -> usize {
        if network.shape.len() == 2 {
            return input.split_last().map_or(&[][..], |(_, rest)| rest).iter().product();
        }
        let height = |shape: &[usize]| if shape.len() == 4 { shape[2] } else { 1 };
        let width = |shape: &[usize]| shape.last().copied().unwrap_or(1);
        let h = height(if index < vertical { input } else { output });
        let w = width(if index < horizontal { input } else { output });
        input.first().copied().unwrap_or(1) * h * w
    };
    let mut macs = own * positions(stages.len());
    let mut moved = macs;
    for (index, stage) in stages.iter().enumerate() {
        macs += positions(index) * stage.repeats * stage.len();
        if index + 1 < stages.len() {
            moved += positions(index) * stage.repeats * stage.outputs();
        }
    }
    (macs as u64, moved as u64)
}
