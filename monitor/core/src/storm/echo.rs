//! Whether the attempts repeat those of an earlier moment.
//!
//! If a server or its clients are so busy that attempts arrive nearly all the time, there are no
//! visible waves. However, clients with equal delays come back in the order in which they left, so
//! small fluctuations return as well: the counts correlate with themselves, shifted by the
//! interval. If each client waits for a different time, the next fluctuations are new.

/// The correlation of the counts with themselves after an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Echo {
    /// Seconds.
    pub(super) interval: f64,
    /// The correlation, from -1 to 1.
    pub(super) strength: f64,
    /// The fluctuations become smaller, as they do after a common start.
    pub(super) fades: bool,
    /// The variance of the fluctuations divided by the mean.
    pub(super) dispersion: f64,
}

/// The strongest echo; `None` if the time is too short or there are too few attempts.
pub(super) fn echo(arrivals: &[u32], bin: f64) -> Option<Echo> {
    let first = arrivals.iter().position(|count| *count > 0)?;
    let wide = WIDE as f64 * bin;
    // The first waves are caused by the start, not by the clients.
    let settled = arrivals.get(first + (SETTLED / bin) as usize..)?;
    let latest = &settled[settled.len().saturating_sub((LONG / bin) as usize)..];
    let counts: Vec<f64> = latest
        .chunks_exact(WIDE)
        .map(|chunk| chunk.iter().map(|count| f64::from(*count)).sum())
        .collect();
    let mean = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
    if mean < ENOUGH {
        return None;
    }
    let about = (TREND / wide) as usize;
    let ups: Vec<f64> = (0..counts.len())
        .map(|i| {
            let near = &counts[i.saturating_sub(about)..(i + about + 1).min(counts.len())];
            counts[i] - near.iter().sum::<f64>() / near.len() as f64
        })
        .collect();
    let shortest = (SHORTEST / wide).ceil() as usize;
    let longest = counts.len() / CYCLES;
    let strength = |lag: usize| {
        let (early, late) = (&ups[..ups.len() - lag], &ups[lag..]);
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        product(early, late)
            / (product(early, early) * product(late, late))
                .sqrt()
                .max(1e-9)
    };
    let echoes: Vec<(usize, f64)> = (shortest..=longest)
        .map(|lag| (lag, strength(lag)))
        .collect();
    let strongest = echoes.iter().map(|echo| echo.1).fold(f64::MIN, f64::max);
    // An echo after one interval returns after two: the shortest one is the interval.
    let near = echoes.iter().position(|echo| echo.1 >= strongest * 0.8)?;
    let (lag, strength) = echoes[near..]
        .iter()
        .take_while(|echo| echo.1 >= strongest * 0.6)
        .copied()
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let square = |ups: &[f64]| ups.iter().map(|up| up * up).sum::<f64>();
    let (early, late) = ups.split_at(ups.len() / 2);
    // The top of the parabola through the three points.
    let at = |lag: usize| {
        echoes
            .iter()
            .find(|echo| echo.0 == lag)
            .map_or(strength, |echo| echo.1)
    };
    let (before, after) = (at(lag - 1), at(lag + 1));
    let bend = (before - 2.0 * strength + after).min(-1e-9);
    let offset = (0.5 * (before - after) / bend).clamp(-0.5, 0.5);
    Some(Echo {
        interval: (lag as f64 + offset) * wide,
        strength,
        fades: square(late) < square(early) * FADED,
        dispersion: square(&ups) / (mean * ups.len() as f64),
    })
}

/// Bins of the trace per bin of the echo.
const WIDE: usize = 2;
/// In seconds: the start, which is left out; the part that is evaluated; the range of the moving
/// average.
const SETTLED: f64 = 2.0;
const LONG: f64 = 8.0;
const TREND: f64 = 0.75;
const SHORTEST: f64 = 0.3;
/// Ratio of the squares, from one half of the time to the other.
const FADED: f64 = 0.75;
/// An interval must fit this often.
const CYCLES: usize = 3;
/// Average count in one bin.
const ENOUGH: f64 = 5.0;
