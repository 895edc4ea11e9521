//! What a network and each candidate of its layers cost on the target.
//!
//! Takes the dense graph and the options; gives every cost as a share of the dense network's in the same precision. Flash and instructions are those of
//! the stages that a candidate is lowered to: constants with their scales and records, requantisation of every stage, ranks rounded to lanes.

use crate::calibrate::covariance::Geometry;
use crate::graph::{Graph, Op};
use crate::plan::cost::{candidate_instructions, fixed_instructions};
use crate::plan::flash;
use crate::plan::memory::{Memory, arena_bytes_of};

use super::allocate::{Cost, Costs, FAIR, Limits};
use super::candidates::Candidate;
use super::sensitivity::linear_layers;
use super::{Error, Options, refit, stages};

/// Costs of the dense network.
#[derive(Clone, Debug)]
pub struct Prices {
    options: Options,
    /// In numbers, bytes and instructions.
    whole: Costs,
    /// Shares of what no candidate changes: biases, other steps, layers that are factorised already.
    pub fixed: Costs,
    /// Lifetimes of the dense network's memory, and the bytes that the arena may have; `None` where its size does not matter.
    pub memory: Option<(Memory, Room)>,
}

/// Bytes that an arena may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The budget: no more in any case.
    Asked(usize),
    /// The dense network's on a core: no more where something else that was asked can be had with it.
    Dense(usize),
}

impl Room {
    /// The number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Asked(bytes) | Self::Dense(bytes) => bytes,
        }
    }
}

/// How many times the asked share of multiply-adds modelled instructions may be, from the best on: what is asked of multiply-adds is asked for speed. But
/// never more than the dense network's.
const WITHIN: [f64; 8] = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.85, f64::INFINITY];
/// The same on a host.
const WITHIN_ON_HOST: [f64; 4] = [1.3, 1.5, 1.7, f64::INFINITY];
/// What nobody asked for by name, fewer instructions for each multiply-add and no more memory than the dense network's, is worth up to this many times the
/// loss without it.
const WORTH: f64 = 1.2;
/// The same on a host: its memory and flash are not short, so that fewer multiply-adds which take no less time are good for nothing.
const WORTH_ON_HOST: f64 = 4.0;

/// What a plan has to keep: all that was asked, and some of what nobody asks for by name but everyone likes to have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Of the whole network's costs.
    pub limits: Limits,
    /// Whether the arena is no larger than the dense network's. A budget on it holds in any case.
    pub dense_arena: bool,
}

impl Prices {
    /// Costs of `graph` as `options` will store and run it.
    pub fn of(graph: &Graph, options: &Options) -> Result<Self, Error> {
        let int8 = options.int8.is_some();
        let mut prices = Self {
            options: *options,
            whole: [graph.macs().max(1) as f64, graph.parameters().max(1) as f64, 1.0, 1.0, 1.0],
            fixed: [0.0; Cost::ALL.len()],
            memory: None,
        };
        if options.budget.ram.is_some() || !options.core.is_host() {
            let memory = Memory::of(graph, options.int8, options.core.isa())?;
            let dense = || Room::Dense(memory.arena(&[]).bytes);
            let room = options.budget.ram.map_or_else(dense, Room::Asked);
            prices.memory = Some((memory, room));
        }
        let mut layers = [0.0; Cost::ALL.len()];
        let mut added = 0;
        for index in linear_layers(graph) {
            let node = &graph.nodes[index];
            added += refit::missing_bias(graph, index);
            let Some(geometry) = Geometry::of(graph, node) else { continue };
            let own =
                prices.absolute(&node.name, &Lowered::from(vec![geometry]), 1, &Candidate::dense(&geometry));
            layers.iter_mut().zip(own).for_each(|(sum, cost)| *sum += cost);
        }
        // Instructions of other steps count where a limit on them is to hold.
        let other_instructions = if prices.limits_instructions() {
            fixed_instructions(graph, options.core, int8).unwrap_or(0) as f64
        } else {
            0.0
        };
        let other_bytes = flash::fixed_bytes(graph, options.int8, options.core.isa())? as f64;
        let rest = [
            graph.macs() as f64 - layers[Cost::Macs as usize],
            (graph.parameters() + added) as f64 - layers[Cost::Parameters as usize],
            other_bytes,
            other_instructions,
            0.0,
        ];
        prices.whole[Cost::Flash as usize] = (layers[Cost::Flash as usize] + other_bytes).max(1.0);
        let instructions = layers[Cost::Instructions as usize] + other_instructions;
        prices.whole[Cost::Instructions as usize] = instructions.max(1.0);
        prices.fixed = waste(std::array::from_fn(|k| rest[k] / prices.whole[k]));
        Ok(prices)
    }

    /// In numbers, bytes and instructions.
    fn absolute(&self, name: &str, lowered: &Lowered, turns: usize, candidate: &Candidate) -> Costs {
        let Options { core, int8, .. } = self.options;
        let bytes = flash::layer_bytes(int8, core.isa(), &lowered.stages, name);
        // What has no price counts as its MACs.
        let layers = candidate_instructions(core, int8, &lowered.stages, turns).unwrap_or(candidate.macs);
        let instructions = layers + lowered.moves;
        [candidate.macs as f64, candidate.weights as f64, bytes as f64, instructions as f64, 0.0]
    }

    /// Whether a limit on instructions is to hold.
    fn limits_instructions(&self) -> bool {
        self.options.budget.instructions.is_some() || self.wants_macs()
    }

    /// Instructions of a layer that is lowered to `stages`; 0 where no limit on them is to hold, and where they have no price.
    pub fn instructions(&self, stages: &[Geometry]) -> u64 {
        let Options { core, int8, .. } = self.options;
        let price = || candidate_instructions(core, int8, stages, 1);
        self.limits_instructions().then(price).flatten().unwrap_or(0)
    }

    /// In how many turns the stages of a layer, the node `index`, run, where a limit on instructions is to hold: more than one in an arena that they
    /// do not fit one by one.
    pub fn turns(&self, index: usize, stages: &[Geometry]) -> usize {
        let limited = self.memory.as_ref().filter(|_| self.limits_instructions());
        limited.map_or(1, |(memory, room)| memory.turns(index, stages, room.bytes()))
    }

    /// What every candidate of the layer of `node` is lowered to.
    pub fn lowered(&self, graph: &Graph, node: usize, candidates: &[Candidate]) -> Vec<Lowered> {
        let node = &graph.nodes[node];
        let Some(geometry) = Geometry::of(graph, node) else {
            return vec![Lowered::from(Vec::new()); candidates.len()];
        };
        let of = |candidate: &Candidate| {
            let network = candidate.network.as_ref();
            match network.and_then(|network| stages::lowered(graph, node, network)) {
                Some(lowered) => {
                    Lowered { stages: stages::of_lowered(&lowered), moves: self.moves(&lowered) }
                }
                None => Lowered::from(stages::stages(&geometry, candidate.choice)),
            }
        };
        candidates.iter().map(of).collect()
    }

    /// Instructions of what moves data between the layers of a lowered node, where a limit on instructions is to hold.
    fn moves(&self, lowered: &Graph) -> u64 {
        let Options { core, int8, .. } = self.options;
        let moves = lowered.nodes.iter().any(|node| matches!(node.op, Op::Transpose(_)));
        let price = || fixed_instructions(lowered, core, int8.is_some());
        (moves && self.limits_instructions()).then(price).flatten().unwrap_or(0)
    }

    /// Shares of a candidate of the layer `name`, whose stages run in so many turns.
    pub fn shares(&self, name: &str, lowered: &Lowered, turns: usize, candidate: &Candidate) -> Costs {
        let own = self.absolute(name, lowered, turns, candidate);
        waste(std::array::from_fn(|k| own[k] / self.whole[k]))
    }

    /// A share in numbers, bytes or instructions.
    pub fn figure(&self, cost: Cost, share: f64) -> f64 {
        share * self.whole[cost as usize]
    }

    /// Bytes of the arena of a compressed network.
    pub fn arena(&self, graph: &Graph) -> Result<usize, Error> {
        Ok(arena_bytes_of(graph, self.options.int8, self.options.core.isa())?)
    }

    /// Whether the arena of a compressed network is within the budget.
    pub fn fits(&self, graph: &Graph) -> Result<bool, Error> {
        match &self.memory {
            Some((_, Room::Asked(ram))) => Ok(self.arena(graph)? <= *ram),
            _ => Ok(true),
        }
    }

    /// Whether fewer multiply-adds are asked for.
    pub fn wants_macs(&self) -> bool {
        self.options.macs_ratio.is_some() || self.options.budget.macs.is_some()
    }

    /// How many times the loss what nobody asked for by name is worth.
    pub fn worth(&self) -> f64 {
        if self.options.core.is_host() { WORTH_ON_HOST } else { WORTH }
    }

    /// Wishes from the most modest on, which is what `limits` say alone, to networks whose instructions fall along with their multiply-adds, where these
    /// are limited, and whose arena is not above the dense network's.
    pub fn wishes(&self, limits: Limits) -> Vec<Wish> {
        let macs = limits.costs[Cost::Macs as usize];
        let along = self.wants_macs() && self.options.budget.instructions.is_none();
        let host = self.options.core.is_host();
        let within: &[f64] = if host { &WITHIN_ON_HOST } else { &WITHIN };
        let within = within.iter().rev().filter(|_| along && macs < 1.0);
        let strict: Vec<Limits> =
            within.map(|within| limits.with(Cost::Instructions, (macs * within).min(1.0))).collect();
        let fair = strict.last().filter(|_| !host).map(|limits| limits.with(Cost::Waste, 0.0));
        let in_arena = std::iter::once(limits).chain(strict).chain(fair);
        let in_arena = in_arena.map(|limits| Wish { limits, dense_arena: true });
        std::iter::once(Wish { limits, dense_arena: false }).chain(in_arena).collect()
    }

    /// The size options: each cost with how many times less of it there must be.
    pub fn asked(&self) -> Vec<(Cost, f64)> {
        let Options { ratio, macs_ratio, budget, original, .. } = self.options;
        let times = |cost: Cost, most: Option<f64>| most.map(|most| self.whole[cost as usize] / most);
        // A ratio of the original is another one of the graph, where a chain of layers was multiplied out.
        let [macs_ratio, ratio] = match original {
            Some((parameters, macs)) => [
                times(Cost::Macs, macs_ratio.map(|ratio| macs.max(1) as f64 / ratio)),
                times(Cost::Parameters, ratio.map(|ratio| parameters.max(1) as f64 / ratio)),
            ],
            None => [macs_ratio, ratio],
        };
        let limits = [
            (Cost::Macs, macs_ratio),
            (Cost::Macs, times(Cost::Macs, budget.macs.map(|macs| macs as f64))),
            (Cost::Parameters, ratio),
            (Cost::Flash, times(Cost::Flash, budget.flash.map(|bytes| bytes as f64))),
            (Cost::Instructions, times(Cost::Instructions, budget.instructions.map(|count| count as f64))),
        ];
        limits.into_iter().filter_map(|(cost, times)| times.map(|times| (cost, times))).collect()
    }

    /// That no network was found with all that was asked.
    pub fn together(&self) -> Error {
        let costs =
            self.asked().into_iter().map(|(cost, times)| format!("{times:.2}x fewer {}", cost.name()));
        let arena = self.options.budget.ram.map(|ram| format!("an arena of {ram} bytes"));
        Error::Together { asked: costs.chain(arena).collect::<Vec<_>>().join(" and ") }
    }
}

/// The same shares with [`Cost::Waste`].
fn waste(mut shares: Costs) -> Costs {
    shares[Cost::Waste as usize] = shares[Cost::Instructions as usize] - FAIR * shares[Cost::Macs as usize];
    shares
}

/// What a candidate is lowered to.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Its linear layers, in the order in which they run.
    pub stages: Vec<Geometry>,
    /// Instructions of what moves data between them, where a limit on instructions is to hold.
    moves: u64,
}

impl From<Vec<Geometry>> for Lowered {
    fn from(stages: Vec<Geometry>) -> Self {
        Self { stages, moves: 0 }
    }
}
