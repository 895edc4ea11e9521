//! Ranks of a Tucker decomposition under a budget, from singular values alone.
//!
//! Takes the squared singular values of a tensor's unfoldings and a budget of numbers; gives the shape of the core. A rank `r_n` keeps the first `r_n` values
//! of unfolding `n`, and the sum of what all unfoldings lose bounds the error; the factors cost `sum a_n r_n` numbers and the core
//! `b prod r_n`. The product couples the ranks, so it is guessed, on a geometric grid: for each guess the problem is a knapsack with two
//! linear constraints, on the logarithms of the ranks and on the factors' numbers, where each unfolding contributes a prefix of its
//! values. It is filled greedily by gain for the share that a value takes of what is left; the best guess wins
//! (Ghadiri, Fahrbach, Fu, Mirrokni 2023, "Approximately optimal core shapes for tensor decompositions", arXiv 2302.03886), and exchanges between
//! unfoldings even out what whole ranks leave over.

/// Ratio of successive guesses of the core's size.
const GRID: f64 = 1.2;

/// One unfolding of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side<'a> {
    /// Squared singular values, greatest first.
    pub values: &'a [f64],
    /// Numbers that each rank costs in the factor.
    pub price: f64,
}

/// Numbers of a decomposition with these ranks, `core` being what each element of the core costs.
pub fn size(sides: &[Side<'_>], core: f64, ranks: &[usize]) -> f64 {
    let factors: f64 = sides.iter().zip(ranks).map(|(side, rank)| side.price * *rank as f64).sum();
    factors + core * ranks.iter().map(|rank| *rank as f64).product::<f64>()
}

/// What the unfoldings lose with these ranks, summed.
pub fn lost(sides: &[Side<'_>], ranks: &[usize]) -> f64 {
    sides.iter().zip(ranks).map(|(side, rank)| side.values.iter().skip(*rank).sum::<f64>()).sum()
}

/// The ranks that lose least among those that were packed into `budget` numbers; `None` if not even ranks of 1 fit.
pub fn pack(sides: &[Side<'_>], core: f64, budget: f64) -> Option<Vec<usize>> {
    let ones = vec![1; sides.len()];
    if sides.iter().any(|side| side.values.is_empty()) || size(sides, core, &ones) > budget {
        return None;
    }
    let most: f64 = sides.iter().map(|side| side.values.len() as f64).product();
    let mut best = ones;
    top_up(sides, core, budget, &mut best, None);
    let mut guess = 1.0f64;
    while core * guess < budget {
        let mut ranks = fill(sides, guess, budget - core * guess);
        top_up(sides, core, budget, &mut ranks, None);
        if size(sides, core, &ranks) <= budget && lost(sides, &ranks) < lost(sides, &best) {
            best = ranks;
        }
        if guess >= most {
            break;
        }
        guess *= GRID;
    }
    exchange(sides, core, budget, &mut best);
    Some(best)
}

/// Lowers one rank and spends what that frees on the others, as long as less is lost.
fn exchange(sides: &[Side<'_>], core: f64, budget: f64, ranks: &mut Vec<usize>) {
    const LEAST_GAIN: f64 = 1e-9;
    loop {
        let now = lost(sides, ranks);
        let lowered = (0..sides.len()).flat_map(|n| (1..ranks[n]).map(move |lower| (n, lower)));
        let better = lowered
            .map(|(n, lower)| {
                let mut other = ranks.clone();
                other[n] = lower;
                top_up(sides, core, budget, &mut other, Some(n));
                other
            })
            .find(|other| lost(sides, other) < now * (1.0 - LEAST_GAIN));
        match better {
            Some(other) => *ranks = other,
            None => return,
        }
    }
}

/// Greedy under `prod r_n <= core` and `sum a_n r_n <= factors`.
fn fill(sides: &[Side<'_>], core: f64, factors: f64) -> Vec<usize> {
    let mut ranks = vec![1; sides.len()];
    loop {
        let product: f64 = ranks.iter().map(|rank| *rank as f64).product();
        let spent: f64 = sides.iter().zip(&ranks).map(|(side, rank)| side.price * *rank as f64).sum();
        let share = |n: usize| {
            let growth = (ranks[n] + 1) as f64 / ranks[n] as f64;
            let fits = product * growth <= core * (1.0 + 1e-9) && spent + sides[n].price <= factors;
            fits.then(|| growth.ln() / core.ln().max(f64::MIN_POSITIVE) + sides[n].price / factors)
        };
        let worth = |n: usize| {
            let gain = *sides[n].values.get(ranks[n])?;
            share(n).map(|share| gain / share)
        };
        let next = (0..sides.len())
            .filter_map(|n| worth(n).map(|worth| (n, worth)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((n, _)) = next else { return ranks };
        ranks[n] += 1;
    }
}

/// Raises ranks except `fixed`, the greatest gain for its numbers first, as long as the true size stays within the budget.
fn top_up(sides: &[Side<'_>], core: f64, budget: f64, ranks: &mut [usize], fixed: Option<usize>) {
    loop {
        let now = size(sides, core, ranks);
        let worth = |n: usize| {
            let gain = *sides[n].values.get(ranks[n])?;
            let mut more = ranks.to_vec();
            more[n] += 1;
            let cost = size(sides, core, &more);
            (cost <= budget).then(|| (n, gain / (cost - now).max(f64::MIN_POSITIVE)))
        };
        let open = (0..sides.len()).filter(|n| Some(*n) != fixed);
        let Some((n, _)) = open.filter_map(worth).max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return;
        };
        ranks[n] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::tests::noise;

    /// Falling values with a total of 1.
    fn spectrum(len: usize, decay: f64, seed: u64) -> Vec<f64> {
        let jitter = noise(len, seed);
        let mut values: Vec<f64> =
            (0..len).map(|k| (-decay * k as f64).exp() * (1.5 + f64::from(jitter[k]))).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        let sum: f64 = values.iter().sum();
        values.iter().map(|value| value / sum).collect()
    }

    fn exhaustive(sides: &[Side<'_>], core: f64, budget: f64) -> f64 {
        let extents: Vec<usize> = sides.iter().map(|side| side.values.len()).collect();
        let shapes = (0..extents.iter().product::<usize>()).map(|code| {
            let mut rest = code;
            let rank = |extent: &usize| {
                let rank = rest % extent + 1;
                rest /= extent;
                rank
            };
            extents.iter().map(rank).collect::<Vec<_>>()
        });
        let fitting = shapes.filter(|ranks| size(sides, core, ranks) <= budget);
        fitting.map(|ranks| lost(sides, &ranks)).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn near_the_exhaustive_search_and_no_worse_than_plain_greedy() {
        for seed in 0..6 {
            let decays = [(0.1, 0.4, 0.7), (0.3, 0.3, 0.3), (0.05, 0.05, 1.5)][seed as usize % 3];
            let values = [
                spectrum(12, decays.0, seed),
                spectrum(10, decays.1, seed + 9),
                spectrum(9, decays.2, seed + 99),
            ];
            let side = |n: usize, price| Side { values: &values[n], price };
            for sides in
                [vec![side(0, 12.0), side(1, 10.0), side(2, 9.0)], vec![side(0, 12.0), side(1, 40.0)]]
            {
                for share in [0.05, 0.1, 0.2, 0.4, 0.8] {
                    let core = if sides.len() == 2 { 9.0 } else { 1.0 };
                    let budget = share * 12.0 * 10.0 * 9.0;
                    let Some(packed) = pack(&sides, core, budget) else { continue };
                    assert!(size(&sides, core, &packed) <= budget);
                    let mut greedy = vec![1; sides.len()];
                    top_up(&sides, core, budget, &mut greedy, None);
                    let (found, plain) = (lost(&sides, &packed), lost(&sides, &greedy));
                    let best = exhaustive(&sides, core, budget);
                    assert!(found <= plain + 1e-12, "{seed} {share}: {found} {plain}");
                    assert!(found <= 1.01 * best, "{seed} {share}: {found} {best}");
                }
            }
        }
    }

    #[test]
    fn budgets_at_the_ends() {
        let values = [1.0, 0.5, 0.1];
        let sides = [Side { values: &values, price: 4.0 }; 3];
        assert_eq!(pack(&sides, 1.0, 12.9), None);
        assert_eq!(pack(&sides, 1.0, 13.0), Some(vec![1, 1, 1]));
        assert_eq!(pack(&sides, 1.0, 1e9), Some(vec![3, 3, 3]));
        assert_eq!(pack(&[Side { values: &[], price: 1.0 }], 1.0, 9.0), None);
    }
}
