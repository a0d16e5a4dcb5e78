//! What a connection carries per second, from two readings of its counts.

use std::{ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    connections::{ConnectionRecord, DirectionRecord},
    numbers::thousandths,
};
use monitor_core::{Detail, Ktime, detail::DirectionTraffic};

/// Longer than the kernel takes to publish what a busy connection carried.
const FRESH: Duration = Duration::from_millis(300);

/// Payload bytes are counted modulo 2⁴⁸.
const PAYLOAD_MASK: u64 = (1 << 48) - 1;

/// The counts of a connection at one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficSample {
    /// The moment to which they are complete.
    as_of: Ktime,
    rx: DirectionTraffic,
    tx: DirectionTraffic,
}

impl TrafficSample {
    /// `read_at` is when `detail` was read. A busy connection's counts are as of their publication. If that
    /// is longer ago than two publications are apart, nothing has passed since, and they are as of `read_at`.
    pub fn of(detail: &Detail, read_at: Ktime) -> Self {
        let published = detail.facts.at;
        let is_fresh = read_at.since(published) <= FRESH;
        Self {
            as_of: if is_fresh { published } else { read_at },
            rx: detail.rx,
            tx: detail.tx,
        }
    }

    /// The same from a record. Its time stamp is the clock, so it compares with samples from records only.
    pub fn of_record(record: &ConnectionRecord) -> Self {
        let counts = |side: &DirectionRecord| DirectionTraffic {
            frames: side.frames,
            payload_bytes: side.payload_bytes,
            ..DirectionTraffic::default()
        };
        let read_at = u64::try_from(record.ts.as_nanosecond()).unwrap_or_default();
        // The last packet of a busy connection is as old as its publication.
        let idle = record.idle_seconds.unwrap_or_default();
        let idle = Duration::try_from_secs_f64(idle).unwrap_or_default();
        let idle = if idle <= FRESH { idle } else { Duration::ZERO };
        let idle = u64::try_from(idle.as_nanos()).unwrap_or_default();
        Self {
            as_of: Ktime(read_at.saturating_sub(idle)),
            rx: counts(&record.rx),
            tx: counts(&record.tx),
        }
    }

    pub fn is_before(&self, other: &Self) -> bool {
        self.as_of < other.as_of
    }

    /// The time from an earlier sample to this one.
    pub fn since(&self, earlier: &Self) -> Duration {
        self.as_of.since(earlier.as_of)
    }
}

/// Traffic per second in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficRates {
    pub rx: DirectionRates,
    pub tx: DirectionRates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DirectionRates {
    pub frames_per_second: f64,
    pub payload_bytes_per_second: f64,
}

impl TrafficRates {
    /// The mean between two readings of one connection; `None` if no time passed between them.
    pub fn between(earlier: &TrafficSample, later: &TrafficSample) -> Option<Self> {
        let elapsed = later.since(earlier);
        let direction = |earlier: &DirectionTraffic, later: &DirectionTraffic| {
            let frames = later.frames.wrapping_sub(earlier.frames);
            let bytes = later.payload_bytes.wrapping_sub(earlier.payload_bytes) & PAYLOAD_MASK;
            DirectionRates {
                frames_per_second: thousandths(f64::from(frames) / elapsed.as_secs_f64()),
                payload_bytes_per_second: thousandths(bytes as f64 / elapsed.as_secs_f64()),
            }
        };
        (!elapsed.is_zero()).then(|| Self {
            rx: direction(&earlier.rx, &later.rx),
            tx: direction(&earlier.tx, &later.tx),
        })
    }
}

impl AddAssign for TrafficRates {
    fn add_assign(&mut self, other: Self) {
        for (sum, part) in [(&mut self.rx, other.rx), (&mut self.tx, other.tx)] {
            sum.frames_per_second = thousandths(sum.frames_per_second + part.frames_per_second);
            sum.payload_bytes_per_second =
                thousandths(sum.payload_bytes_per_second + part.payload_bytes_per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::detail;

    const MILLISECOND: u64 = 1_000_000;

    /// A reading 30 s after boot plus `read_at`, of counts that were published at 30 s plus
    /// `published`, both in milliseconds.
    fn sample(published: u64, read_at: u64, frames: u32, payload_bytes: u64) -> TrafficSample {
        let mut detail = detail(1);
        let boot = detail.facts.at;
        let at = |milliseconds: u64| Ktime(boot.0 + milliseconds * MILLISECOND);
        detail.facts.at = at(published);
        (detail.rx.frames, detail.rx.payload_bytes) = (frames, payload_bytes);
        TrafficSample::of(&detail, at(read_at))
    }

    fn received(earlier: &TrafficSample, later: &TrafficSample) -> (f64, f64) {
        let rates = TrafficRates::between(earlier, later).expect("time passed");
        assert_eq!(rates.tx, DirectionRates::default());
        let DirectionRates {
            frames_per_second,
            payload_bytes_per_second,
        } = rates.rx;
        (frames_per_second, payload_bytes_per_second)
    }

    #[test]
    fn the_rate_of_a_busy_connection_rests_on_the_times_of_publication() {
        let rate = received(
            &sample(0, 200, 100, 1_000),
            &sample(1_250, 1_300, 225, 3_500),
        );
        assert_eq!(rate, (100.0, 2_000.0));
    }

    #[test]
    fn a_connection_that_was_silent_counts_from_the_reading() {
        let silent = sample(0, 10_000, 7, 70);
        assert_eq!(received(&silent, &sample(0, 11_000, 7, 70)), (0.0, 0.0));
        let begun = sample(11_000, 11_000, 12, 570);
        assert_eq!(received(&silent, &begun), (5.0, 500.0));
        let stopped = sample(10_100, 11_000, 8, 80);
        assert_eq!(received(&silent, &stopped), (1.0, 10.0));
    }

    #[test]
    fn counters_may_wrap_between_two_readings() {
        let before = sample(0, 0, u32::MAX, PAYLOAD_MASK);
        assert_eq!(received(&before, &sample(1_000, 1_000, 1, 9)), (2.0, 10.0));
    }

    #[test]
    fn two_readings_of_one_moment_have_no_rate() {
        let twice = sample(0, 0, 1, 1);
        assert_eq!(TrafficRates::between(&twice, &twice), None);
    }
}
