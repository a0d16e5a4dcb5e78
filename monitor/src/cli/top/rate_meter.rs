//! The rates of the shown connections, from two refreshes.

use std::{collections::HashMap, time::Duration};

use crate::records::{
    connections::ConnectionRecord,
    rates::{TrafficRates, TrafficSample},
};
use monitor_core::ConnId;

/// Two samples that are closer say little, because the kernel publishes a busy connection's counts four
/// times a second.
const CLOSEST: Duration = Duration::from_millis(500);

/// The mean since an older sample isn't the rate of now.
const OLDEST: Duration = Duration::from_secs(15);

/// Remembers the last samples. Only connections of the last refresh are kept.
#[derive(Debug, Default)]
pub(super) struct RateMeter(HashMap<ConnId, Measurement>);

#[derive(Clone, Copy, Debug)]
struct Measurement {
    base: TrafficSample,
    rates: Option<TrafficRates>,
}

impl RateMeter {
    /// Sets the rates of the records that have none and were read before.
    pub(super) fn measure(&mut self, records: &mut [ConnectionRecord]) {
        let mut measurements = HashMap::with_capacity(records.len());
        for record in records {
            let sample = TrafficSample::of_record(record);
            let measurement = match self.0.get(&record.cookie) {
                Some(last) => last.with(sample),
                None => Measurement {
                    base: sample,
                    rates: None,
                },
            };
            record.rates = record.rates.or(measurement.rates);
            measurements.insert(record.cookie, measurement);
        }
        self.0 = measurements;
    }
}

impl Measurement {
    fn with(self, sample: TrafficSample) -> Self {
        if sample.is_before(&self.base) {
            // The clock was set back.
            return Self {
                base: sample,
                ..self
            };
        }
        let elapsed = sample.since(&self.base);
        if elapsed < CLOSEST {
            return self;
        }
        let rates = TrafficRates::between(&self.base, &sample);
        Self {
            base: sample,
            rates: rates.filter(|_| elapsed <= OLDEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::records::connections::tests::{detail, record};

    /// Read `milliseconds` after the first, after a long silence.
    fn read(milliseconds: i64, frames: u32, payload_bytes: u64) -> ConnectionRecord {
        let mut record = record(&detail(1), None);
        record.ts = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(milliseconds);
        record.rx.frames = frames;
        record.rx.payload_bytes = payload_bytes;
        record
    }

    /// Received frames and bytes per second at the last of these readings.
    fn rate(readings: impl IntoIterator<Item = ConnectionRecord>) -> Option<(f64, f64)> {
        let mut meter = RateMeter::default();
        let mut last = None;
        for reading in readings {
            let mut records = [reading];
            meter.measure(&mut records);
            last = records[0].rates;
        }
        last.map(|rates| {
            let TrafficRates { rx, .. } = rates;
            (rx.frames_per_second, rx.payload_bytes_per_second)
        })
    }

    #[test]
    fn two_readings_give_the_mean_between_them() {
        assert_eq!(rate([read(0, 1, 100)]), None);
        let twice = [read(0, 1, 100), read(2_000, 5, 700)];
        assert_eq!(rate(twice), Some((2.0, 300.0)));
    }

    #[test]
    fn a_hasty_refresh_keeps_the_rate_and_a_late_one_begins_anew() {
        let hasty = || [read(0, 0, 0), read(1_000, 4, 0), read(1_100, 9, 0)];
        assert_eq!(rate(hasty()), Some((4.0, 0.0)));
        let after = hasty().into_iter().chain([read(2_000, 9, 0)]);
        assert_eq!(rate(after), Some((5.0, 0.0)), "nothing is lost");
        assert_eq!(rate([read(0, 0, 0), read(60_000, 60, 0)]), None);
    }

    #[test]
    fn rates_go_on_after_the_clock_was_set_back() {
        let set_back = [read(3_600_000, 0, 0), read(0, 9, 0), read(2_000, 15, 0)];
        assert_eq!(rate(set_back), Some((3.0, 0.0)));
    }

    #[test]
    fn the_counts_of_a_busy_connection_are_as_of_its_last_packet() {
        let mut earlier = read(0, 0, 0);
        earlier.ts += SignedDuration::from_secs(1);
        earlier.idle_seconds = Some(0.0);
        let mut later = read(2_250, 10, 0);
        later.idle_seconds = Some(0.25);
        assert_eq!(rate([earlier, later]), Some((10.0, 0.0)));
    }

    #[test]
    fn connections_that_are_no_longer_shown_are_forgotten() {
        let mut meter = RateMeter::default();
        meter.measure(&mut [read(0, 1, 1)]);
        assert_eq!(meter.0.len(), 1);
        meter.measure(&mut []);
        assert!(meter.0.is_empty());
    }

    #[test]
    fn a_rate_of_the_daemon_is_kept() {
        let mut measured = read(1_000, 4, 0);
        measured.rates = Some(TrafficRates::default());
        assert_eq!(rate([read(0, 0, 0), measured]), Some((0.0, 0.0)));
    }
}
