//! Order statistics of rounds.

/// Quartiles of some measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter lies below.
    pub low: f64,
    /// The median.
    pub middle: f64,
    /// A quarter lies above.
    pub high: f64,
}

impl Quartiles {
    /// Of measurements in any order, linear between neighbours; `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let below = sorted[place as usize];
            below + (place - place.floor()) * (sorted[(place.ceil() as usize).min(last)] - below)
        };
        Some(Self { low: at(0.25), middle: at(0.5), high: at(0.75) })
    }

    /// Of the quotients of two series, round by round: what slows a whole round down does not count. `less` is taken off each dividend first.
    #[must_use]
    pub fn of_ratios(dividends: &[f64], divisors: &[f64], less: f64) -> Option<Self> {
        Self::of(
            dividends.iter().zip(divisors).map(|(dividend, divisor)| (dividend - less).max(0.0) / divisor),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let found = Quartiles::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(found, Quartiles { low: 1.75, middle: 2.5, high: 3.25 });
        assert_eq!(Quartiles::of([7.0]).unwrap(), Quartiles { low: 7.0, middle: 7.0, high: 7.0 });
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn a_slow_round_leaves_ratios_alone() {
        let ratios = Quartiles::of_ratios(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0], 0.0).unwrap();
        assert_eq!(ratios, Quartiles { low: 2.0, middle: 2.0, high: 2.0 });
        assert_eq!(Quartiles::of_ratios(&[3.0], &[1.0], 1.0).unwrap().middle, 2.0);
    }
}
