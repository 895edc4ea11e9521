//! Spends a budget over all layers at once.
//!
//! Takes, for each layer, what every candidate costs and how much loss it causes alone; gives one candidate a layer. The losses are taken as
//! additive. Lagrange multipliers (Everett 1963) find the solutions on the convex hull, exchanges of one and of two layers then
//! use what is left of the budget.

/// What a candidate may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Multiply-adds.
    Macs,
    /// Learnt numbers.
    Parameters,
    /// Bytes of constants in the blob.
    Flash,
    /// Instructions on the target, as modelled.
    Instructions,
    /// Instructions less [`FAIR`] times the multiply-adds: at most 0 where instructions fall about as multiply-adds do.
    Waste,
}

/// How many times the share of multiply-adds the share of instructions may be without waste.
pub const FAIR: f64 = 1.2;

impl Cost {
    /// Every cost, in the order of [`Costs`].
    pub const ALL: [Self; 5] = [Self::Macs, Self::Parameters, Self::Flash, Self::Instructions, Self::Waste];

    /// What is counted, in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Macs => "MACs",
            Self::Parameters => "parameters",
            Self::Flash => "bytes of flash",
            Self::Instructions => "instructions",
            Self::Waste => "instructions for each MAC",
        }
    }
}

/// One number for each [`Cost`], as a share of the dense network's.
pub type Costs = [f64; Cost::ALL.len()];

/// What one candidate of one layer costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    /// Its costs.
    pub costs: Costs,
    /// Loss of the network when only this layer is replaced; 0 for the dense layer.
    pub loss: f64,
}

impl Row {
    fn plus(self, sign: f64, other: Self) -> Self {
        let costs = std::array::from_fn(|k| self.costs[k] + sign * other.costs[k]);
        Self { costs, loss: self.loss + sign * other.loss }
    }
}

/// What all layers together may cost; infinite where nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Sum of [`Row::costs`].
    pub costs: Costs,
    /// Sum of [`Row::loss`].
    pub loss: f64,
}

impl Limits {
    /// Anything goes.
    pub const OPEN: Self = Self { costs: [f64::INFINITY; Cost::ALL.len()], loss: f64::INFINITY };

    /// The same with another limit on one cost.
    pub fn with(mut self, cost: Cost, share: f64) -> Self {
        self.costs[cost as usize] = share;
        self
    }

    /// What is left of the limits after `spent`.
    pub fn less(mut self, spent: &Costs) -> Self {
        self.costs.iter_mut().zip(spent).for_each(|(limit, spent)| *limit -= spent);
        self
    }

    /// Whether a total keeps them.
    pub fn hold(&self, total: Row) -> bool {
        total.costs.iter().zip(&self.costs).all(|(cost, limit)| cost <= limit) && total.loss <= self.loss
    }
}

/// Prices of costs and loss against each other.
type Weights = Row;

/// Sum of what a row costs at these prices.
pub(super) fn weighted(weights: &Weights, row: &Row) -> f64 {
    weights.costs.iter().zip(&row.costs).map(|(weight, cost)| weight * cost).sum::<f64>()
        + weights.loss * row.loss
}

/// The candidate of each layer that minimises the sum of losses within limits on costs; `None` if no assignment was found
/// that keeps them.
pub fn least_loss(layers: &[Vec<Row>], limits: Limits) -> Option<Vec<usize>> {
    let limited: Vec<usize> = (0..limits.costs.len()).filter(|k| limits.costs[*k].is_finite()).collect();
    // Costs are compared as shares of their limits; what may be below 0 as it is.
    let scale = |limit: f64| if limit > f64::MIN_POSITIVE { limit } else { 1.0 };
    let directions = simplex(limited.len()).into_iter().map(|point| {
        let mut weights = Weights::default();
        for (cost, share) in limited.iter().zip(point) {
            weights.costs[*cost] = share / scale(limits.costs[*cost]);
        }
        weights
    });
    best(layers, limits, &Weights { loss: 1.0, ..Weights::default() }, directions)
}

/// The candidate of each layer that minimises the sum of `weights` times costs within a limit on the sum of losses.
pub fn least_cost(layers: &[Vec<Row>], weights: Costs, loss: f64) -> Option<Vec<usize>> {
    let price = Weights { loss: 1.0, ..Weights::default() };
    let objective = Weights { costs: weights, loss: 0.0 };
    best(layers, Limits { loss, ..Limits::OPEN }, &objective, std::iter::once(price))
}

/// The least sum of one cost over all layers.
pub fn least(layers: &[Vec<Row>], cost: Cost) -> f64 {
    let least =
        |layer: &Vec<Row>| layer.iter().map(|row| row.costs[cost as usize]).fold(f64::INFINITY, f64::min);
    layers.iter().map(least).sum()
}

/// Sum over all layers.
pub fn total(layers: &[Vec<Row>], plan: &[usize]) -> Row {
    layers
        .iter()
        .zip(plan)
        .map(|(rows, index)| rows[*index])
        .fold(Row::default(), |sum, row| sum.plus(1.0, row))
}

/// Evenly spread points with `axes` coordinates of sum 1, with the corners; the origin where there is no axis.
fn simplex(axes: usize) -> Vec<Vec<f64>> {
    let steps = match axes {
        0 | 1 => 1,
        2 => 32,
        3 => 10,
        _ => 6,
    };
    let mut points: Vec<(Vec<f64>, usize)> = vec![(Vec::new(), steps)];
    for axis in 0..axes {
        let last = axis + 1 == axes;
        let grown = points.iter().flat_map(|(point, left)| {
            let range = if last { *left..=*left } else { 0..=*left };
            range.map(move |part| {
                let share = part as f64 / steps as f64;
                ([&point[..], &[share]].concat(), left - part)
            })
        });
        points = grown.collect();
    }
    points.into_iter().map(|(point, _)| point).collect()
}

fn best(
    layers: &[Vec<Row>],
    limits: Limits,
    objective: &Weights,
    directions: impl Iterator<Item = Weights>,
) -> Option<Vec<usize>> {
    let value = |plan: &[usize]| weighted(objective, &total(layers, plan));
    let holds = |plan: &[usize]| limits.hold(total(layers, plan));
    let mut found: Option<Vec<usize>> = None;
    for weights in directions {
        let priced = |price: f64| -> Vec<usize> {
            let score = |row: &Row| weighted(objective, row) + price * weighted(&weights, row);
            let least = |rows: &Vec<Row>| {
                (0..rows.len()).min_by(|a, b| score(&rows[*a]).total_cmp(&score(&rows[*b]))).unwrap_or(0)
            };
            layers.iter().map(least).collect()
        };
        let (mut low, mut high) = (-60.0f64, 60.0f64);
        let mut plan = priced(high.exp2());
        if !holds(&plan) {
            continue;
        }
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            let candidate = priced(middle.exp2());
            if holds(&candidate) {
                (high, plan) = (middle, candidate);
            } else {
                low = middle;
            }
        }
        if found.as_ref().is_none_or(|found| value(&plan) < value(found) * (1.0 + NEAR)) {
            exchange(layers, limits, objective, &mut plan);
            if found.as_ref().is_none_or(|found| value(&plan) < value(found)) {
                found = Some(plan);
            }
        }
    }
    found
}

/// Solutions of the relaxation that are worse than the best found by more than this share are not worth polishing.
const NEAR: f64 = 0.5;

/// Changes one layer, or two at once, as long as that lowers the objective within the limits.
fn exchange(layers: &[Vec<Row>], limits: Limits, objective: &Weights, plan: &mut [usize]) {
    const LEAST_GAIN: f64 = 1e-9;
    loop {
        let now = total(layers, plan);
        let moved = |from: Row, layer: usize, to: usize| {
            from.plus(-1.0, layers[layer][plan[layer]]).plus(1.0, layers[layer][to])
        };
        let mut best = (weighted(objective, &now) * (1.0 - LEAST_GAIN), None);
        for a in 0..layers.len() {
            for to_a in 0..layers[a].len() {
                let one = moved(now, a, to_a);
                if limits.hold(one) && weighted(objective, &one) < best.0 {
                    best = (weighted(objective, &one), Some([(a, to_a); 2]));
                }
                for (b, rows) in layers.iter().enumerate().skip(a + 1) {
                    for to_b in 0..rows.len() {
                        let two = moved(one, b, to_b);
                        if weighted(objective, &two) < best.0 && limits.hold(two) {
                            best = (weighted(objective, &two), Some([(a, to_a), (b, to_b)]));
                        }
                    }
                }
            }
        }
        let Some(moves) = best.1 else { return };
        for (layer, to) in moves {
            plan[layer] = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three layers with different trade-offs.
    fn layers() -> Vec<Vec<Row>> {
        [(0.5, 0.2, 1.0), (0.3, 0.5, 0.2), (0.2, 0.3, 3.0)]
            .iter()
            .map(|&(macs, parameters, hurt)| {
                (0..6)
                    .map(|k| {
                        let share = 1.0 - 0.15 * k as f64;
                        let loss = hurt * (k * k) as f64 * 1e-3;
                        Row {
                            costs: [
                                macs * share,
                                parameters * share,
                                parameters * share * share,
                                macs,
                                share * (parameters - FAIR * macs),
                            ],
                            loss,
                        }
                    })
                    .collect()
            })
            .collect()
    }

    fn brute(layers: &[Vec<Row>], limits: Limits, objective: &Weights) -> f64 {
        let mut best = f64::INFINITY;
        for code in 0..6usize.pow(3) {
            let sum = total(layers, &[code % 6, code / 6 % 6, code / 36]);
            if limits.hold(sum) {
                best = best.min(weighted(objective, &sum));
            }
        }
        best
    }

    #[test]
    fn near_the_optimum_of_an_exhaustive_search_and_within_limits() {
        let layers = layers();
        let open = Limits::OPEN;
        let loss = Weights { loss: 1.0, ..Weights::default() };
        for share in [0.3, 0.5, 0.7, 0.9] {
            for limits in [
                open.with(Cost::Macs, share),
                open.with(Cost::Parameters, share),
                open.with(Cost::Macs, share).with(Cost::Parameters, share),
                open.with(Cost::Macs, share).with(Cost::Parameters, 1.1 * share).with(Cost::Flash, share),
                open.with(Cost::Parameters, share.max(0.5)).with(Cost::Waste, -0.1),
            ] {
                let plan = least_loss(&layers, limits).unwrap();
                let sum = total(&layers, &plan);
                assert!(limits.hold(sum));
                assert!(sum.loss <= 1.05 * brute(&layers, limits, &loss) + 1e-12);
            }
            let limits = Limits { loss: share * 0.05, ..open };
            let weights = [0.5, 0.5, 0.0, 0.0, 0.0];
            let sum = total(&layers, &least_cost(&layers, weights, limits.loss).unwrap());
            let objective = Weights { costs: weights, loss: 0.0 };
            assert!(limits.hold(sum));
            assert!(weighted(&objective, &sum) <= 1.02 * brute(&layers, limits, &objective));
        }
        assert!(least_loss(&layers, open.with(Cost::Macs, 0.1)).is_none());
        assert!(least_loss(&layers, open.with(Cost::Instructions, 0.9)).is_none());
    }

    #[test]
    fn price_directions_cover_the_simplex() {
        assert_eq!(simplex(0), [Vec::<f64>::new()]);
        assert_eq!(simplex(1), [[1.0]]);
        for axes in 2..=4 {
            let points = simplex(axes);
            assert!(points.iter().all(|point| (point.iter().sum::<f64>() - 1.0).abs() < 1e-12));
            for axis in 0..axes {
                assert!(points.iter().any(|point| point[axis] == 1.0));
            }
        }
    }
}
