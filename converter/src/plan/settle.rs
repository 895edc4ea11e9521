//! Which steps write over their input, and where all memory lies.
//!
//! Takes blocks with lifetimes, and for each step what it demands: scratch, and whether its output may replace its input. Both have the same
//! bytes there, so a replaced input changes how much lives at its own step and at no other: each step is decided alone. The least peak is that of
//! the step whose better form needs most; a step replaces its input only where the other form would pass that peak, for kernels that do are no faster.

use super::arena::{Block, Placement, place};
use super::memory::together;
use super::needs::Needs;

/// What a step does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// When it runs.
    pub time: usize,
    /// The block of its first input.
    pub input: usize,
    /// The block of its output.
    pub output: usize,
    /// Its scratch.
    pub needs: Needs,
}

impl Demand {
    /// Bytes of scratch with which the output replaces the input: `None` also if the input is needed later.
    pub fn in_place(&self, blocks: &[Block]) -> Option<usize> {
        let (input, output) = (blocks[self.input], blocks[self.output]);
        let dies = self.input != self.output && input.last == self.time && output.first == self.time;
        self.needs.in_place.filter(|_| dies && input.bytes == output.bytes)
    }

    /// Bytes that live while it runs: with the output apart, and in the input's place.
    pub fn loads(&self, blocks: &[Block]) -> (usize, Option<usize>) {
        let live = |but: Option<usize>, scratch: usize| {
            let others = blocks.iter().enumerate();
            let others = others.filter(|(k, block)| Some(*k) != but && block.lives_at(self.time));
            together(others.map(|(_, block)| block.bytes).chain([scratch]))
        };
        let in_place = self.in_place(blocks).map(|scratch| live(Some(self.output), scratch));
        (live(None, self.needs.apart), in_place)
    }

    /// The less of its loads.
    pub fn least(&self, blocks: &[Block]) -> usize {
        let (apart, in_place) = self.loads(blocks);
        in_place.map_or(apart, |bytes| bytes.min(apart))
    }
}

/// What a placed block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The block of that number, and those that are written over it.
    Values(usize),
    /// Scratch of the demand of that number.
    Scratch(usize),
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What was placed.
    pub blocks: Vec<(Block, Purpose)>,
    /// Where.
    pub placement: Placement,
    /// For each block that was given, which of the placed ones holds it.
    pub holder: Vec<usize>,
    /// For each demand the bytes of its scratch.
    pub scratch: Vec<usize>,
}

/// Decides and places; demands stand in the order of time.
pub fn settle(blocks: &[Block], demands: &[Demand], align: usize) -> Settled {
    let steps: Vec<_> = demands.iter().map(|demand| demand.loads(blocks)).collect();
    let alone = |time: usize| demands.iter().all(|demand| demand.time != time);
    let between =
        blocks.iter().map(|block| block.first).filter(|time| alone(*time)).map(|time| {
            together(blocks.iter().filter(|block| block.lives_at(time)).map(|block| block.bytes))
        });
    let least = demands.iter().map(|demand| demand.least(blocks)).chain(between).max().unwrap_or(0);
    let wanted: Vec<bool> =
        steps.iter().map(|(apart, in_place)| *apart > least && in_place.is_some()).collect();
    let settled = placed(blocks, demands, &wanted, align);
    if settled.placement.bytes <= least {
        return settled;
    }
    // Fewer and longer blocks may leave smaller gaps.
    let all: Vec<bool> =
        steps.iter().map(|(_, in_place)| in_place.is_some_and(|load| load <= least)).collect();
    let joined = placed(blocks, demands, &all, align);
    if joined.placement.bytes < settled.placement.bytes { joined } else { settled }
}

/// Places blocks, those of replaced inputs joined.
fn placed(blocks: &[Block], demands: &[Demand], in_place: &[bool], align: usize) -> Settled {
    let mut root: Vec<usize> = (0..blocks.len()).collect();
    let mut joined = blocks.to_vec();
    let mut scratch = Vec::with_capacity(demands.len());
    for (demand, in_place) in demands.iter().zip(in_place) {
        if *in_place {
            let (kept, last) = (root[demand.input], blocks[demand.output].last);
            root[demand.output] = kept;
            joined[kept].last = last;
        }
        scratch.push(if *in_place { demand.needs.in_place.unwrap_or(0) } else { demand.needs.apart });
    }
    let mut all: Vec<(Block, Purpose)> = Vec::new();
    let mut place_of = vec![0; blocks.len()];
    for (k, block) in joined.iter().enumerate().filter(|(k, _)| root[*k] == *k) {
        place_of[k] = all.len();
        all.push((*block, Purpose::Values(k)));
    }
    let holder = root.iter().map(|root| place_of[*root]).collect();
    for (k, (demand, bytes)) in demands.iter().zip(&scratch).enumerate().filter(|(_, (_, bytes))| **bytes > 0)
    {
        all.push((Block { bytes: *bytes, first: demand.time, last: demand.time }, Purpose::Scratch(k)));
    }
    let placement = place(&all.iter().map(|(block, _)| *block).collect::<Vec<_>>(), align);
    Settled { blocks: all, placement, holder, scratch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(sizes: &[usize], needs: &[Needs]) -> (Vec<Block>, Vec<Demand>) {
        let blocks = sizes.iter().enumerate();
        let blocks = blocks.map(|(k, bytes)| Block { bytes: *bytes, first: k, last: k + 1 }).collect();
        let demand =
            |(k, needs): (usize, &Needs)| Demand { time: k + 1, input: k, output: k + 1, needs: *needs };
        (blocks, needs.iter().enumerate().map(demand).collect())
    }

    fn in_place(settled: &Settled) -> Vec<bool> {
        settled.holder.windows(2).map(|pair| pair[0] == pair[1]).collect()
    }

    #[test]
    fn a_step_replaces_its_input_where_the_peak_wants_it() {
        let may = Needs { apart: 16, in_place: Some(48) };
        let (blocks, demands) =
            chain(&[64, 160, 160, 64, 64], &[Needs::default(), may, Needs::default(), may]);
        let settled = settle(&blocks, &demands, 16);
        // Without it 160 + 160 + 16; with it 160 + 64 in the steps before and behind. The last step has room.
        assert_eq!(settled.placement.bytes, 224);
        assert_eq!(in_place(&settled), [false, true, false, false]);
        assert_eq!(settled.scratch, [0, 48, 0, 16]);
        assert_eq!(
            settled.blocks.iter().filter(|(_, purpose)| matches!(purpose, Purpose::Scratch(_))).count(),
            2
        );
    }

    #[test]
    fn an_input_that_lives_on_or_has_other_bytes_is_not_replaced() {
        let may = Needs { apart: 0, in_place: Some(0) };
        let (mut blocks, demands) = chain(&[64, 64, 64], &[may, may]);
        blocks[0].last = 2;
        assert_eq!(in_place(&settle(&blocks, &demands, 16)), [false, true]);
        let (blocks, demands) = chain(&[64, 80], &[may]);
        assert_eq!(in_place(&settle(&blocks, &demands, 16)), [false]);
    }

    #[test]
    fn chains_share_one_block() {
        let may = Needs { apart: 0, in_place: Some(0) };
        let (blocks, demands) = chain(&[64, 64, 64, 64], &[may; 3]);
        let settled = settle(&blocks, &demands, 16);
        assert_eq!((settled.placement.bytes, in_place(&settled)), (64, vec![true; 3]));
        assert_eq!(settled.blocks, [(Block { bytes: 64, first: 0, last: 4 }, Purpose::Values(0))]);
    }
}
