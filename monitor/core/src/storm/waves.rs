//! Attempts in waves, with quiet times between them.

use super::beat::Beat;

/// One wave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wave {
    /// When a tenth, a quarter, half and so on of it had come, in seconds.
    pub(super) tenth: f64,
    quarter: f64,
    half: f64,
    three_quarters: f64,
    last_tenth: f64,
    count: f64,
    /// The bin of the first attempt, and the bin after the last.
    from: usize,
    to: usize,
}

/// The waves in these counts. A wave ends when the count is below a quarter of its peak, and the
/// next begins when the count is four times as large again.
pub(super) fn waves(counts: &[u32], bin: f64) -> Vec<Wave> {
    let smooth: Vec<f64> = (0..counts.len())
        .map(|i| {
            let near = &counts[i.saturating_sub(SMOOTH)..(i + SMOOTH + 1).min(counts.len())];
            near.iter().map(|count| f64::from(*count)).sum::<f64>() / near.len() as f64
        })
        .collect();
    let mut cuts = vec![0];
    let mut peak = 0.0_f64;
    // After the end of a wave: the least count since, and its index.
    let mut low: Option<(f64, usize)> = None;
    for (i, height) in smooth.iter().copied().enumerate() {
        match low {
            None => {
                peak = peak.max(height);
                if height < peak / 4.0 {
                    low = Some((height, i));
                }
            }
            Some((least, _)) if height <= least => low = Some((height, i)),
            Some((least, at)) => {
                if height > (least * 4.0).max(peak / 8.0) {
                    cuts.push(at + 1);
                    (peak, low) = (height, None);
                }
            }
        }
    }
    cuts.push(counts.len());
    let mut waves = between(counts, &cuts, bin);
    while let Some(broken) = broken(&waves) {
        let second = waves[broken + 1].from;
        // The cut before the second part: the last one that is not after it.
        let cut = cuts.partition_point(|cut| *cut <= second) - 1;
        cuts.remove(cut);
        waves = between(counts, &cuts, bin);
    }
    waves
}

/// The waves between these cuts, without the small ones.
fn between(counts: &[u32], cuts: &[usize], bin: f64) -> Vec<Wave> {
    let mut waves: Vec<Wave> = cuts
        .windows(2)
        .filter_map(|cut| Wave::new(counts, cut[0], cut[1], bin))
        .collect();
    let largest = waves.iter().map(|wave| wave.count).fold(0.0, f64::max);
    waves.retain(|wave| wave.count >= (largest / 10.0).max(SMALLEST));
    waves
}

/// A wave that belongs to the next: the time between them is short compared with the quiet times
/// around. Clients or the server stalled for a moment.
fn broken(waves: &[Wave]) -> Option<usize> {
    let quiet: Vec<f64> = waves
        .windows(2)
        .map(|pair| pair[1].tenth - pair[0].last_tenth)
        .collect();
    (0..quiet.len()).find(|&i| {
        let before = i.checked_sub(1).map(|before| quiet[before]);
        let around = before.into_iter().chain(quiet.get(i + 1).copied());
        let least = around.reduce(f64::min);
        least.is_some_and(|least| quiet[i] < least * BROKEN)
    })
}

/// The delays from wave to wave, measured from the failures after the attempts of each wave if
/// there were any.
pub(super) fn beats(waves: &[Wave], failures: &[u32], bin: f64) -> Vec<Beat> {
    waves
        .windows(2)
        .map_while(|pair| {
            let (one, next) = (&pair[0], &pair[1]);
            let failed = Wave::new(failures, one.from, next.from, bin);
            let from = failed
                .filter(|failed| failed.count >= one.count / 2.0)
                .unwrap_or_else(|| one.clone());
            // An incomplete wave lacks its late clients.
            let length = next.to - next.from;
            let is_past = failures.len() - next.to >= QUIET.max(length / 2);
            let is_complete = next.count >= from.count * COMPLETE || is_past;
            (is_complete && one.is_apart(next)).then(|| Beat::between(&from, next))
        })
        .collect()
}

impl Wave {
    fn new(counts: &[u32], from: usize, to: usize, bin: f64) -> Option<Self> {
        let of_it = &counts[from.min(to)..to];
        let count: f64 = of_it.iter().map(|count| f64::from(*count)).sum();
        if count <= 0.0 {
            return None;
        }
        let quantile = |share: f64| {
            let wanted = share * count;
            let mut before = 0.0;
            for (i, here) in of_it.iter().enumerate() {
                let here = f64::from(*here);
                if here > 0.0 && before + here >= wanted {
                    let part = (wanted - before) / here;
                    return ((from + i) as f64 + part) * bin;
                }
                before += here;
            }
            to as f64 * bin
        };
        Some(Self {
            tenth: quantile(0.1),
            quarter: quantile(0.25),
            half: quantile(0.5),
            three_quarters: quantile(0.75),
            last_tenth: quantile(0.9),
            count,
            from: from + of_it.iter().position(|count| *count > 0)?,
            to: from + of_it.iter().rposition(|count| *count > 0)? + 1,
        })
    }

    /// True if both are too narrow, compared with the time between them, to be chance.
    fn is_apart(&self, next: &Self) -> bool {
        let between = next.half - self.half;
        let quiet = next.tenth - self.last_tenth;
        let narrow = self.spread().max(next.spread()) <= between / 4.0;
        let alike = next.count >= self.count / 2.0 && next.count <= self.count * 2.0;
        narrow && alike && quiet >= between / 2.0
    }

    /// The range without the first and the last tenth, in seconds.
    fn most(&self) -> f64 {
        self.last_tenth - self.tenth
    }

    /// The range of the middle half, in seconds.
    fn spread(&self) -> f64 {
        self.three_quarters - self.quarter
    }
}

impl Beat {
    /// The width that `to` has in addition to `from` is that of the delays. Variances add up.
    fn between(from: &Wave, to: &Wave) -> Self {
        let seconds = to.half - from.half;
        let wider = |of: fn(&Wave) -> f64| (of(to).powi(2) - of(from).powi(2)).max(0.0).sqrt();
        // If delays are uniform, 40 % of them have 0.8 of the range of the middle half.
        let width = (0.8 * wider(Wave::spread)).max(0.5 * wider(Wave::most));
        Self {
            seconds,
            width: width / seconds.max(f64::MIN_POSITIVE),
            count: to.count,
        }
    }
}

/// In bins, on each side.
const SMOOTH: usize = 2;
/// Delays grow by a factor of 3 at most.
const BROKEN: f64 = 0.25;
/// Minimum number of attempts.
const SMALLEST: f64 = 10.0;
/// The share of the failed clients that must be back.
const COMPLETE: f64 = 0.95;
/// In bins: after this quiet time, no client is late.
const QUIET: usize = 12;
