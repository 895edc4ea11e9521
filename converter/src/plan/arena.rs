//! Offset assignment: blocks with lifetimes into as little memory as possible.
//!
//! Takes blocks (bytes, first and last moment). Gives offsets such that no two blocks that live at once overlap. Blocks are placed
//! one after the other, each into the smallest gap that fits (Pisarchyk and Lee 2020, greedy by size, tries one order); here several
//! orders are tried, then random exchanges in the best one, until the arena is as small as the largest sum of what lives at once, which
//! proves it best, or the trials are used up. The trials come from a fixed seed: equal blocks always give equal offsets.

/// Memory that is needed from one moment to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size.
    pub bytes: usize,
    /// First moment.
    pub first: usize,
    /// Last moment, not before the first.
    pub last: usize,
}

impl Block {
    /// Whether it is needed at `time`.
    pub fn lives_at(&self, time: usize) -> bool {
        self.first <= time && time <= self.last
    }

    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where blocks lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One for each block, in order.
    pub offsets: Vec<usize>,
    /// End of the last block.
    pub bytes: usize,
    /// Largest sum of blocks that live at once: no placement is smaller.
    pub lower_bound: usize,
}

/// Work of the random search, in block comparisons.
const SEARCH_WORK: usize = 20_000_000;

/// Places `blocks` at multiples of `align`.
pub fn place(blocks: &[Block], align: usize) -> Placement {
    let sizes: Vec<usize> = blocks.iter().map(|block| block.bytes.next_multiple_of(align)).collect();
    let lower_bound = lower_bound(blocks, align);
    let duration = |k: &usize| blocks[*k].last - blocks[*k].first;
    let start: Vec<usize> = (0..blocks.len()).collect();
    let mut orders = vec![start; 4];
    orders[0].sort_by_key(|k| std::cmp::Reverse((sizes[*k], duration(k))));
    orders[1].sort_by_key(|k| std::cmp::Reverse((sizes[*k] * (duration(k) + 1), sizes[*k])));
    orders[2].sort_by_key(|k| std::cmp::Reverse((duration(k), sizes[*k])));
    orders[3].sort_by_key(|k| (blocks[*k].first, std::cmp::Reverse(sizes[*k])));
    let mut best: Option<(usize, Vec<usize>, Vec<usize>)> = None;
    for order in orders {
        let (bytes, offsets) = place_in_order(blocks, &sizes, &order);
        if best.as_ref().is_none_or(|best| bytes < best.0) {
            best = Some((bytes, offsets, order));
        }
    }
    let (mut bytes, mut offsets, mut order) = best.unwrap_or_default();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let trials = SEARCH_WORK / (blocks.len() * blocks.len()).max(1);
    for _ in 0..trials.min(20_000) {
        if bytes <= lower_bound || blocks.len() < 3 {
            break;
        }
        let (a, b) = (random.below(blocks.len()), random.below(blocks.len()));
        order.swap(a, b);
        let trial = place_in_order(blocks, &sizes, &order);
        if trial.0 <= bytes {
            (bytes, offsets) = trial;
        } else {
            order.swap(a, b);
        }
    }
    Placement { offsets, bytes, lower_bound }
}

/// Largest sum of sizes that live at one moment; the block placed last there needs no padding.
fn lower_bound(blocks: &[Block], align: usize) -> usize {
    let load = |time: usize| {
        let live = blocks.iter().filter(|block| block.lives_at(time) && block.bytes > 0);
        let (sum, padding) = live.fold((0, 0), |(sum, padding), block| {
            let size = block.bytes.next_multiple_of(align);
            (sum + size, padding.max(size - block.bytes))
        });
        sum - padding
    };
    blocks.iter().map(|block| load(block.first)).max().unwrap_or(0)
}

/// Places each block of `order` in the smallest gap between those that it meets; returns the end of the last block, and offsets.
fn place_in_order(blocks: &[Block], sizes: &[usize], order: &[usize]) -> (usize, Vec<usize>) {
    let mut offsets = vec![0; blocks.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(blocks.len());
    let mut end = 0;
    for &k in order {
        let mut from = 0;
        let mut best: Option<(usize, usize)> = None;
        for &other in placed.iter().filter(|other| blocks[**other].meets(&blocks[k])) {
            if offsets[other] >= from + sizes[k] {
                let gap = offsets[other] - from;
                if best.is_none_or(|(size, _)| gap < size) {
                    best = Some((gap, from));
                }
            }
            from = from.max(offsets[other] + sizes[other]);
        }
        offsets[k] = best.map_or(from, |(_, offset)| offset);
        end = end.max(offsets[k] + blocks[k].bytes);
        let at = placed.partition_point(|other| offsets[*other] <= offsets[k]);
        placed.insert(at, k);
    }
    (end, offsets)
}

/// Marsaglia's xorshift (2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blocks: &[Block], align: usize) -> Placement {
        let placement = place(blocks, align);
        for (i, a) in blocks.iter().enumerate() {
            assert_eq!(placement.offsets[i] % align, 0);
            assert!(placement.offsets[i] + a.bytes <= placement.bytes);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                let apart = placement.offsets[i] + a.bytes <= placement.offsets[j]
                    || placement.offsets[j] + b.bytes <= placement.offsets[i];
                assert!(apart || !a.meets(b) || a.bytes == 0 || b.bytes == 0, "{a:?} and {b:?} overlap");
            }
        }
        assert!(placement.bytes >= placement.lower_bound);
        assert_eq!(placement, place(blocks, align), "not deterministic");
        placement
    }

    #[test]
    fn random_lifetimes_never_overlap() {
        let mut random = Random(7);
        let mut optimal = 0;
        for case in 0..60 {
            let blocks: Vec<Block> = (0..1 + random.below(24))
                .map(|_| {
                    let first = random.below(20);
                    Block { bytes: random.below(5000), first, last: first + random.below(6) }
                })
                .collect();
            let placement = check(&blocks, [1, 4, 16][case % 3]);
            optimal += usize::from(placement.bytes == placement.lower_bound);
        }
        assert!(optimal >= 50, "only {optimal} of 60 reach the lower bound");
    }

    #[test]
    fn chains_and_residuals_reach_the_lower_bound() {
        let block = |bytes, first, last| Block { bytes, first, last };
        let chain: Vec<Block> = (0..12).map(|k| block(1000 * (1 + k % 4), k, k + 1)).collect();
        let residual = [block(3072, 0, 1), block(16384, 1, 4), block(16384, 2, 3), block(16384, 3, 4)];
        for blocks in [&chain[..], &residual[..]] {
            let placement = check(blocks, 16);
            assert_eq!(placement.bytes, placement.lower_bound);
        }
    }

    #[test]
    fn nothing_and_one() {
        assert_eq!(check(&[], 16).bytes, 0);
        assert_eq!(check(&[Block { bytes: 10, first: 0, last: 0 }], 16).bytes, 10);
    }
}
