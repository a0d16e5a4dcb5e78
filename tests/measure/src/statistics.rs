//! Summary statistics of measurements.

/// With this many resamples, the ends of a bootstrap interval vary by less than a hundredth of its
/// width.
const RESAMPLES: usize = 10_000;

/// A median, with the range that contains it in 95 of 100 repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// The median of `values` and its 95 % interval by the percentile bootstrap. The resamples are
    /// the same every time, so the same values give the same interval. `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let median = quantile(values, 0.5)?;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut medians = Vec::with_capacity(RESAMPLES);
        let mut resample = vec![0.0; values.len()];
        for _ in 0..RESAMPLES {
            for slot in &mut resample {
                *slot = values[(xorshift(&mut random) % values.len() as u64) as usize];
            }
            medians.extend(quantile(&resample, 0.5));
        }
        Some(Self {
            median,
            low: quantile(&medians, 0.025)?,
            high: quantile(&medians, 0.975)?,
        })
    }
}

/// Marsaglia's generator with 64 bits of state, never zero.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The value below which `share` of `values` lie, interpolated between neighbours; `None` without
/// values.
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + (above - below) * place.fract())
}

/// Slope of `y` over `x` by least squares; `None` for fewer than two different `x`.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let shared: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    (spread > 0.0).then_some(shared / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn an_interval_holds_its_median_and_narrows_with_more_values() {
        let of = |count: u32| {
            let values: Vec<f64> = (0..count).map(|i| f64::from(i * 7 % 10)).collect();
            Estimate::of(&values).unwrap()
        };
        let (few, many) = (of(10), of(1_000));
        for estimate in [few, many] {
            assert!(estimate.low <= estimate.median && estimate.median <= estimate.high);
        }
        assert!(many.high - many.low < few.high - few.low);
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn equal_values_give_an_interval_of_width_zero() {
        let estimate = Estimate::of(&[0.97; 30]).unwrap();
        assert_eq!((estimate.low, estimate.high), (0.97, 0.97));
    }

    #[test]
    fn the_slope_of_a_line_is_exact() {
        assert_eq!(slope(&[(1.0, 12.0), (3.0, 16.0), (5.0, 20.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 12.0)]), None);
    }
}
