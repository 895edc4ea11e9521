//! Which steps write over their input, and where all memory lies.
//!
//! Takes blocks with lifetimes, and for each step what it demands: scratch, and whether its output may replace its input. Both have the same
//! bytes there, so a replaced input changes how much lives at its own step and at no other: each step is decided alone. The least peak is that of
//! the step whose better form needs most; a step replaces its input only where the other form would pass that peak, for kernels that do are no faster.
//! Stages of a factorised layer may also run in turns, some rows at a time ([`tucano::region`]), with windows between them: again where the peak wants
//! it, with as many rows as it allows.

use std::ops::Range;

use tucano::region::Tiles;

use super::arena::{Block, Placement, place};
use super::memory::together;
use super::needs::{Needs, StageRows};

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
    /// Whether it is a stage of a factorised layer that reads what the demand before it gives, and no other does.
    pub follows: bool,
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
    /// For each demand the bytes of its scratch; those of a region share one.
    pub scratch: Vec<usize>,
    /// Which demands run in turns.
    pub regions: Vec<Region>,
}

/// Demands that run in turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Their numbers.
    pub demands: Range<usize>,
    /// Rows of the last output at a time.
    pub rows: usize,
    /// Rows that are kept of each output but the last.
    pub windows: Vec<usize>,
}

/// Demands that run as one: a step, or the stages of a factorised layer, each of which reads what the one before it gives.
pub fn groups(demands: &[Demand]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        demands.get(first)?;
        start += 1;
        start += demands[start..].iter().take_while(|demand| demand.follows).count();
        Some(first..start)
    })
}

/// The least load of a group, in whatever form.
pub fn least_load(blocks: &[Block], group: &[Demand]) -> usize {
    let one_by_one = group.iter().map(|demand| demand.least(blocks)).max().unwrap_or(0);
    let tiled = Tiling::of(blocks, group, 1).map(|tiling| tiling.least());
    tiled.map_or(one_by_one, |tiled| tiled.min(one_by_one))
}

/// The stages of a layer in turns, some rows at a time.
struct Tiling {
    rows: usize,
    /// Bytes of each value between two stages, and how many rows that is.
    windows: Vec<(usize, usize)>,
    scratch: usize,
    /// Bytes that live meanwhile: with the output apart from the input, and in its place.
    apart: usize,
    in_place: Option<usize>,
}

impl Tiling {
    /// `None` where the stages cannot run so.
    fn of(blocks: &[Block], group: &[Demand], rows: usize) -> Option<Self> {
        let (first, last) = (group.first()?, group.last()?);
        if group.len() < 2 {
            return None;
        }
        let stages: Vec<StageRows> = group.iter().map(|demand| demand.needs.rows).collect::<Option<_>>()?;
        let tiles = Tiles::new(stages.iter().map(|stage| stage.axis), rows)?;
        let replaces = tiles.replaces_input();
        let inner = &group[..group.len() - 1];
        let windows = inner.iter().zip(&stages).zip(tiles.windows());
        let windows: Vec<(usize, usize)> =
            windows.map(|((_, stage), rows)| (rows * stage.bytes, rows)).collect();
        let scratch = group.iter().map(|demand| demand.needs.apart).max().unwrap_or(0);
        let own =
            |k: usize| k == first.input || k == last.output || inner.iter().any(|demand| demand.output == k);
        let others = blocks
            .iter()
            .enumerate()
            .filter(|(k, block)| !own(*k) && block.first <= last.time && block.last >= first.time);
        let mut live: Vec<usize> = others.map(|(_, block)| block.bytes).collect();
        live.extend(windows.iter().map(|(bytes, _)| *bytes).chain([scratch]));
        let (input, output) = (blocks[first.input], blocks[last.output]);
        let load = |ends: &[usize]| together(live.iter().chain(ends).copied());
        let dies = first.input != last.output && input.last == first.time && output.first == last.time;
        let in_place = replaces && dies && input.bytes == output.bytes;
        Some(Self {
            rows,
            windows,
            scratch,
            apart: load(&[input.bytes, output.bytes]),
            in_place: in_place.then(|| load(&[input.bytes])),
        })
    }

    fn least(&self) -> usize {
        self.in_place.map_or(self.apart, |bytes| bytes.min(self.apart))
    }
}

/// The ways to run a group in turns, in the fewest first: few turns spend less on set-ups, many need little memory.
fn tilings<'a>(blocks: &'a [Block], group: &'a [Demand]) -> impl Iterator<Item = Tiling> + 'a {
    let rows = group.last().and_then(|last| last.needs.rows).map_or(0, |stage| stage.axis.output);
    let mut seen = 0;
    // Turns of equal length; other numbers of them would be as long.
    let lengths = (1..=rows).map(move |turns| rows.div_ceil(turns));
    let distinct = lengths.filter(move |length| std::mem::replace(&mut seen, *length) != *length);
    distinct.filter_map(|rows| Tiling::of(blocks, group, rows))
}

/// In how many turns a group runs where `room` bytes may live at once, or as many as it needs if those are more; 1 where it does not run in turns.
pub fn turns(blocks: &[Block], group: &[Demand], room: usize) -> usize {
    let room = room.max(least_load(blocks, group));
    if group.iter().all(|demand| demand.least(blocks) <= room) {
        return 1;
    }
    let rows = group.last().and_then(|last| last.needs.rows).map_or(1, |stage| stage.axis.output);
    let tiling = tilings(blocks, group).find(|tiling| tiling.least() <= room);
    tiling.map_or(1, |tiling| rows.div_ceil(tiling.rows))
}

/// How a group runs.
enum GroupForm {
    /// Step after step; for each whether it writes over its input.
    Steps(Vec<bool>),
    /// In turns; whether the output takes the input's place.
    Tiles(Tiling, bool),
}

/// Decides and places; demands stand in the order of time.
pub fn settle(blocks: &[Block], demands: &[Demand], align: usize) -> Settled {
    let alone = |time: usize| demands.iter().all(|demand| demand.time != time);
    let between =
        blocks.iter().map(|block| block.first).filter(|time| alone(*time)).map(|time| {
            together(blocks.iter().filter(|block| block.lives_at(time)).map(|block| block.bytes))
        });
    let grouped: Vec<&[Demand]> = groups(demands).map(|range| &demands[range]).collect();
    let least = grouped.iter().map(|group| least_load(blocks, group)).chain(between).max().unwrap_or(0);
    let forms = |wanted: &dyn Fn(&Demand) -> bool| -> Vec<GroupForm> {
        let form = |group: &&[Demand]| {
            let fits = group.iter().all(|demand| demand.least(blocks) <= least);
            let find = || tilings(blocks, group).find(|tiling| tiling.least() <= least);
            let tiling = if fits { None } else { find() };
            match tiling {
                Some(tiling) => {
                    let in_place = tiling.apart > least;
                    GroupForm::Tiles(tiling, in_place)
                }
                None => GroupForm::Steps(group.iter().map(wanted).collect()),
            }
        };
        grouped.iter().map(form).collect()
    };
    let wanted = |demand: &Demand| {
        let (apart, in_place) = demand.loads(blocks);
        apart > least && in_place.is_some()
    };
    let settled = placed(blocks, demands, &forms(&wanted), align);
    if settled.placement.bytes <= least {
        return settled;
    }
    // Fewer and longer blocks may leave smaller gaps.
    let all = |demand: &Demand| demand.loads(blocks).1.is_some_and(|load| load <= least);
    let joined = placed(blocks, demands, &forms(&all), align);
    if joined.placement.bytes < settled.placement.bytes { joined } else { settled }
}

/// Places blocks, those of replaced inputs joined, those between stages that run in turns as windows.
fn placed(blocks: &[Block], demands: &[Demand], forms: &[GroupForm], align: usize) -> Settled {
    let mut root: Vec<usize> = (0..blocks.len()).collect();
    let mut joined = blocks.to_vec();
    let mut scratch = Vec::with_capacity(demands.len());
    // Scratch with the moments when it is in use.
    let mut scratches = Vec::new();
    let mut regions = Vec::new();
    for (range, form) in groups(demands).zip(forms) {
        let group = &demands[range.clone()];
        let (first, last) = (&group[0], &group[group.len() - 1]);
        match form {
            GroupForm::Steps(in_place) => {
                for (demand, in_place) in group.iter().zip(in_place) {
                    if *in_place {
                        root[demand.output] = root[demand.input];
                        joined[root[demand.input]].last = blocks[demand.output].last;
                    }
                    let bytes =
                        if *in_place { demand.needs.in_place.unwrap_or(0) } else { demand.needs.apart };
                    scratches.push((Block { bytes, first: demand.time, last: demand.time }, scratch.len()));
                    scratch.push(bytes);
                }
            }
            GroupForm::Tiles(tiling, in_place) => {
                for (demand, (bytes, _)) in group.iter().zip(&tiling.windows) {
                    joined[demand.output] = Block { bytes: *bytes, first: first.time, last: last.time };
                }
                // The input may itself lie in another's place.
                let input = root[first.input];
                if *in_place {
                    root[last.output] = input;
                    joined[input].last = blocks[last.output].last;
                } else {
                    joined[last.output].first = first.time;
                    joined[input].last = joined[input].last.max(last.time);
                }
                let bytes = tiling.scratch;
                scratches.push((Block { bytes, first: first.time, last: last.time }, scratch.len()));
                scratch.extend(group.iter().map(|demand| demand.needs.apart));
                regions.push(Region {
                    demands: range,
                    rows: tiling.rows,
                    windows: tiling.windows.iter().map(|(_, rows)| *rows).collect(),
                });
            }
        }
    }
    let mut all: Vec<(Block, Purpose)> = Vec::new();
    let mut place_of = vec![0; blocks.len()];
    for (k, block) in joined.iter().enumerate().filter(|(k, _)| root[*k] == *k) {
        place_of[k] = all.len();
        all.push((*block, Purpose::Values(k)));
    }
    let holder = root.iter().map(|root| place_of[*root]).collect();
    let used = scratches.into_iter().filter(|(block, _)| block.bytes > 0);
    all.extend(used.map(|(block, demand)| (block, Purpose::Scratch(demand))));
    let placement = place(&all.iter().map(|(block, _)| *block).collect::<Vec<_>>(), align);
    Settled { blocks: all, placement, holder, scratch, regions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tucano::ops::window::Axis;

    fn chain(sizes: &[usize], needs: &[Needs]) -> (Vec<Block>, Vec<Demand>) {
        let blocks = sizes.iter().enumerate();
        let blocks = blocks.map(|(k, bytes)| Block { bytes: *bytes, first: k, last: k + 1 }).collect();
        let demand = |(k, needs): (usize, &Needs)| Demand {
            time: k + 1,
            input: k,
            output: k + 1,
            needs: *needs,
            follows: false,
        };
        (blocks, needs.iter().enumerate().map(demand).collect())
    }

    fn in_place(settled: &Settled) -> Vec<bool> {
        settled.holder.windows(2).map(|pair| pair[0] == pair[1]).collect()
    }

    #[test]
    fn a_step_replaces_its_input_where_the_peak_wants_it() {
        let may = Needs { apart: 16, in_place: Some(48), ..Needs::default() };
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
        let may = Needs { apart: 0, in_place: Some(0), ..Needs::default() };
        let (mut blocks, demands) = chain(&[64, 64, 64], &[may, may]);
        blocks[0].last = 2;
        assert_eq!(in_place(&settle(&blocks, &demands, 16)), [false, true]);
        let (blocks, demands) = chain(&[64, 80], &[may]);
        assert_eq!(in_place(&settle(&blocks, &demands, 16)), [false]);
    }

    #[test]
    fn chains_share_one_block() {
        let may = Needs { apart: 0, in_place: Some(0), ..Needs::default() };
        let (blocks, demands) = chain(&[64, 64, 64, 64], &[may; 3]);
        let settled = settle(&blocks, &demands, 16);
        assert_eq!((settled.placement.bytes, in_place(&settled)), (64, vec![true; 3]));
        assert_eq!(settled.blocks, [(Block { bytes: 64, first: 0, last: 4 }, Purpose::Values(0))]);
    }

    /// 1x1, 3x3 for each channel, 1x1 on 16 rows: of 64, 256, 256 and 64 bytes, with a value of 1024 bytes that waits.
    fn polyadic(input_dies: bool) -> (Vec<Block>, Vec<Demand>) {
        let axis =
            |kernel: usize| Axis { input: 16, output: 16, kernel, stride: 1, dilation: 1, pad: kernel / 2 };
        let stage = |kernel: usize, bytes: usize, apart: usize| Needs {
            apart,
            rows: Some(StageRows { axis: axis(kernel), bytes }),
            inner: true,
            ..Needs::default()
        };
        let needs = [stage(1, 256, 32), stage(3, 256, 48), stage(1, 64, 16)];
        let (mut blocks, mut demands) = chain(&[16 * 64, 16 * 256, 16 * 256, 16 * 64], &needs);
        demands.iter_mut().skip(1).for_each(|demand| demand.follows = true);
        blocks.push(Block { bytes: 1024, first: 0, last: 4 });
        if !input_dies {
            blocks[0].last = 4;
        }
        (blocks, demands)
    }

    #[test]
    fn stages_run_in_turns_where_the_peak_wants_it() {
        // Three rows under the window, one behind it; all stages share a scratch.
        let windows = 3 * 256 + 256 + 48;
        for (input_dies, ends) in [(true, 1024), (false, 2048)] {
            let (blocks, demands) = polyadic(input_dies);
            let settled = settle(&blocks, &demands, 16);
            assert_eq!(settled.placement.bytes, 1024 + ends + windows);
            assert_eq!(settled.regions, [Region { demands: 0..3, rows: 1, windows: vec![3, 1] }]);
            assert_eq!(settled.holder[0] == settled.holder[3], input_dies);
            assert_eq!(settled.scratch, [32, 48, 16]);
            assert_eq!(least_load(&blocks, &demands), settled.placement.lower_bound);
        }
    }

    #[test]
    fn turns_are_as_long_as_the_peak_allows() {
        let (mut blocks, mut demands) = polyadic(true);
        // Something else needs more than the stages row by row, and less than they do one by one.
        blocks.push(Block { bytes: 5120, first: 5, last: 5 });
        demands.push(Demand { time: 5, input: 3, output: 5, needs: Needs::default(), follows: false });
        blocks[3].last = 5;
        let settled = settle(&blocks, &demands, 16);
        assert_eq!(settled.regions, [Region { demands: 0..3, rows: 6, windows: vec![8, 6] }]);
        let count = |room: usize| turns(&blocks, &demands[..3], room);
        assert_eq!([count(settled.placement.bytes), count(1 << 14)], [3, 1]);
        // With less than they need they take no more room than that: a row at a time.
        assert_eq!(count(1), 16);
        // With room enough they run one by one.
        blocks[5].bytes = 1 << 14;
        assert!(settle(&blocks, &demands, 16).regions.is_empty());
    }

    #[test]
    fn stages_without_rows_run_one_by_one() {
        let (blocks, mut demands) = polyadic(true);
        demands[1].needs.rows = None;
        assert!(settle(&blocks, &demands, 16).regions.is_empty());
        let (blocks, mut demands) = polyadic(true);
        demands[1].follows = false;
        demands[2].follows = false;
        assert_eq!(settle(&blocks, &demands, 16).regions, []);
    }
}
