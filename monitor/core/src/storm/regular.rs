//! Detects a client that tries at a fixed interval.

use std::time::Duration;

/// The interval between attempts at these times (ms, ascending), if it is fixed.
///
/// Robust against a single late attempt: the median absolute deviation is at most a tenth of the
/// median. In addition, the middle half of the gaps is either as narrow or not lopsided (Bowley's
/// skew at most 0.6), unlike that of growing delays.
pub(super) fn interval(times: &[u64]) -> Option<Duration> {
    let mut gaps: Vec<u64> = times
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .collect();
    if gaps.len() < ENOUGH {
        return None;
    }
    gaps.sort_unstable();
    let [first, median, third] = [0.25, 0.5, 0.75].map(|share| quantile(&gaps, share));
    let mut deviations: Vec<u64> = gaps
        .iter()
        .map(|gap| gap.abs_diff(median.round() as u64))
        .collect();
    deviations.sort_unstable();
    let spread = third - first;
    let skew = match spread > 0.0 {
        true => (third + first - 2.0 * median) / spread,
        false => 0.0,
    };
    let is_fixed = median > 0.0
        && quantile(&deviations, 0.5) <= 0.1 * median
        && (spread <= 0.1 * median || skew.abs() <= 0.6);
    is_fixed.then(|| Duration::from_millis(median.round() as u64))
}

fn quantile(sorted: &[u64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (low, high) = (
        sorted[position.floor() as usize],
        sorted[position.ceil() as usize],
    );
    low as f64 + (high as f64 - low as f64) * position.fract()
}

/// Minimum number of gaps.
const ENOUGH: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn of_gaps(gaps: &[u64]) -> Option<Duration> {
        let mut times = vec![1_000];
        for gap in gaps {
            times.push(times[times.len() - 1] + gap);
        }
        interval(&times)
    }

    #[test]
    fn a_fixed_interval_is_found_even_if_one_attempt_is_late() {
        let found = of_gaps(&[3_000, 3_010, 2_995, 4_200, 3_002, 2_999]);
        assert_eq!(found, Some(Duration::from_millis(3_001)));
    }

    #[test]
    fn four_gaps_are_not_enough() {
        assert_eq!(of_gaps(&[1_000; 4]), None);
        assert!(of_gaps(&[1_000; 5]).is_some());
    }

    #[test]
    fn delays_that_grow_or_are_spread_are_not_fixed() {
        assert_eq!(of_gaps(&[1_000, 2_000, 4_000, 8_000, 16_000]), None);
        assert_eq!(of_gaps(&[1_000, 1_500, 2_250, 3_375, 5_062]), None);
        assert_eq!(of_gaps(&[120, 890, 430, 700, 260, 950]), None);
        assert_eq!(of_gaps(&[0; 8]), None);
    }
}
