//! Spends a budget over all layers at once.
//!
//! Takes, for each layer, what every candidate costs and how much loss it causes alone; gives one candidate a layer. The losses are taken as
//! additive. Lagrange multipliers (Everett 1963) find the solutions on the convex hull, exchanges of one and of two layers then
//! use what is left of the budget.

/// What one candidate of one layer costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Multiply-adds, as a share of the dense network's.
    pub macs: f64,
    /// Learnt numbers, as a share of the dense network's.
    pub parameters: f64,
    /// Loss of the network when only this layer is replaced; 0 for the dense layer.
    pub loss: f64,
}

/// What all layers together may cost; infinite where nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Sum of [`Row::macs`].
    pub macs: f64,
    /// Sum of [`Row::parameters`].
    pub parameters: f64,
    /// Sum of [`Row::loss`].
    pub loss: f64,
}

impl Limits {
    fn hold(&self, total: Row) -> bool {
        total.macs <= self.macs && total.parameters <= self.parameters && total.loss <= self.loss
    }
}

/// Directions of the price vector that are tried when two costs are limited.
const DIRECTIONS: usize = 32;

/// The candidate of each layer that minimises the sum of losses within limits on MACs and parameters; `None` if no assignment was found
/// that keeps them.
pub fn least_loss(layers: &[Vec<Row>], limits: Limits) -> Option<Vec<usize>> {
    best(layers, limits, |row| row.loss, |t| Row { macs: t, parameters: 1.0 - t, loss: 0.0 })
}

/// The candidate of each layer that minimises the mean of MACs and parameters within a limit on the sum of losses.
pub fn least_cost(layers: &[Vec<Row>], limits: Limits) -> Option<Vec<usize>> {
    best(
        layers,
        limits,
        |row| (row.macs + row.parameters) / 2.0,
        |_| Row { macs: 0.0, parameters: 0.0, loss: 1.0 },
    )
}

/// Sum over all layers.
pub fn total(layers: &[Vec<Row>], plan: &[usize]) -> Row {
    layers.iter().zip(plan).map(|(rows, index)| rows[*index]).fold(
        Row { macs: 0.0, parameters: 0.0, loss: 0.0 },
        |sum, row| Row {
            macs: sum.macs + row.macs,
            parameters: sum.parameters + row.parameters,
            loss: sum.loss + row.loss,
        },
    )
}

fn best(
    layers: &[Vec<Row>],
    limits: Limits,
    objective: fn(Row) -> f64,
    direction: impl Fn(f64) -> Row,
) -> Option<Vec<usize>> {
    let value = |plan: &[usize]| objective(total(layers, plan));
    let mut found: Option<Vec<usize>> = None;
    for step in 0..=DIRECTIONS {
        let weight = direction(step as f64 / DIRECTIONS as f64);
        let priced = |price: f64| -> Vec<usize> {
            let score = |row: &Row| {
                let cost =
                    weight.macs * row.macs + weight.parameters * row.parameters + weight.loss * row.loss;
                objective(*row) + price * cost
            };
            let least = |rows: &Vec<Row>| {
                (0..rows.len()).min_by(|a, b| score(&rows[*a]).total_cmp(&score(&rows[*b]))).unwrap_or(0)
            };
            layers.iter().map(least).collect()
        };
        let holds = |plan: &[usize]| limits.hold(total(layers, plan));
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
        exchange(layers, limits, objective, &mut plan);
        if found.as_ref().is_none_or(|found| value(&plan) < value(found)) {
            found = Some(plan);
        }
    }
    found
}

/// Changes one layer, or two at once, as long as that lowers the objective within the limits.
fn exchange(layers: &[Vec<Row>], limits: Limits, objective: fn(Row) -> f64, plan: &mut [usize]) {
    const LEAST_GAIN: f64 = 1e-9;
    loop {
        let now = total(layers, plan);
        let moved = |from: Row, layer: usize, to: usize| {
            let (old, new) = (layers[layer][plan[layer]], layers[layer][to]);
            Row {
                macs: from.macs - old.macs + new.macs,
                parameters: from.parameters - old.parameters + new.parameters,
                loss: from.loss - old.loss + new.loss,
            }
        };
        let mut best = (objective(now) * (1.0 - LEAST_GAIN), None);
        for a in 0..layers.len() {
            for to_a in 0..layers[a].len() {
                let one = moved(now, a, to_a);
                if limits.hold(one) && objective(one) < best.0 {
                    best = (objective(one), Some([(a, to_a); 2]));
                }
                for (b, rows) in layers.iter().enumerate().skip(a + 1) {
                    for to_b in 0..rows.len() {
                        let two = moved(one, b, to_b);
                        if objective(two) < best.0 && limits.hold(two) {
                            best = (objective(two), Some([(a, to_a), (b, to_b)]));
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
                        Row { macs: macs * share, parameters: parameters * share, loss }
                    })
                    .collect()
            })
            .collect()
    }

    fn brute(layers: &[Vec<Row>], limits: Limits, objective: fn(Row) -> f64) -> f64 {
        let mut best = f64::INFINITY;
        for code in 0..6usize.pow(3) {
            let sum = total(layers, &[code % 6, code / 6 % 6, code / 36]);
            if limits.hold(sum) {
                best = best.min(objective(sum));
            }
        }
        best
    }

    #[test]
    fn near_the_optimum_of_an_exhaustive_search_and_within_limits() {
        let layers = layers();
        let open = Limits { macs: f64::INFINITY, parameters: f64::INFINITY, loss: f64::INFINITY };
        for share in [0.3, 0.5, 0.7, 0.9] {
            for limits in [
                Limits { macs: share, ..open },
                Limits { parameters: share, ..open },
                Limits { macs: share, parameters: share, ..open },
            ] {
                let plan = least_loss(&layers, limits).unwrap();
                let sum = total(&layers, &plan);
                assert!(limits.hold(sum));
                assert!(sum.loss <= 1.05 * brute(&layers, limits, |row| row.loss) + 1e-12);
            }
            let limits = Limits { loss: share * 0.05, ..open };
            let sum = total(&layers, &least_cost(&layers, limits).unwrap());
            let cost = |row: Row| (row.macs + row.parameters) / 2.0;
            assert!(limits.hold(sum) && cost(sum) <= 1.02 * brute(&layers, limits, cost));
        }
        assert!(least_loss(&layers, Limits { macs: 0.1, ..open }).is_none());
    }
}
