//! How lossy a path is, and how many failures in a row can still be chance.
//!
//! Data that was sent again and *then acknowledged* was lost by chance. Data that is never
//! acknowledged does not count, so that ten thousand connections that die at once do not look like
//! a lossy path. An outage that ends counts once for each waiting connection, regardless of its
//! number of tries.

use std::{array, time::Duration};

use monitor_common::stats::ListenerStats;

use super::time::Ktime;

/// The share of the tries that fail on a path, in units of 1/65,536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(u16);

impl Loss {
    /// From the share, in units of 1/65,536, of acknowledged data that had been sent again. The
    /// kernel keeps this share per flow.
    pub fn from_late(share: u16) -> Self {
        Self::of(f64::from(share) / SHARES, 1.0)
    }

    /// `late` is the share of first tries that failed; `again` is that of the further tries, if
    /// known.
    ///
    /// A retransmission fails more often than the first try. A ping is answered by an
    /// acknowledgement and by a pong, and one of them is enough; its retransmission is answered by
    /// an acknowledgement only. It fails at most as often as one or both of two packets in
    /// a row are lost. This bound is needed because an outage that has ended makes `again` too high.
    fn of(late: f64, again: f64) -> Self {
        let ratio = if late <= CLEAN {
            late
        } else {
            let both = 1.0 - (1.0 - late).powi(2);
            late.max(again.min(both))
        };
        // The cast saturates.
        Self((ratio * SHARES) as u16)
    }

    pub fn ratio(self) -> f64 {
        f64::from(self.0) / SHARES
    }

    /// True if no verdict needs more than its own rule requires.
    pub(super) fn is_usual(self) -> bool {
        self.ratio() <= CLEAN
    }

    /// True if this many tries without an answer can be chance.
    pub(super) fn excuses(self, tries: u32) -> bool {
        !self.is_usual() && tries < self.tries_beyond_chance()
    }

    /// The number of tries that all fail with a probability of one in a million.
    pub fn tries_beyond_chance(self) -> u32 {
        // If nearly everything is lost, no number is enough.
        (CHANCE.ln() / self.ratio().ln()).ceil() as u32
    }
}

/// The segments of a listener's connections that were acknowledged since the start, and the
/// retransmissions that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Segments.
    pub delivered: u64,
    /// The segments that had been retransmitted before.
    pub late: u64,
    /// All retransmissions of these segments.
    pub retransmits: u64,
}

impl Deliveries {
    pub fn of(stats: &ListenerStats) -> Self {
        Self {
            delivered: stats.segments_delivered.get(),
            late: stats.segments_delivered_late.get(),
            retransmits: stats.retransmits_delivered.get(),
        }
    }

    fn counts(self) -> [u64; 3] {
        [self.delivered, self.late, self.retransmits]
    }
}

/// The recent loss of a listener's connections.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    reported: Deliveries,
    reported_at: Option<Ktime>,
    windows: [WeightedCounts; MEMORIES.len()],
}

/// The counts of [`Deliveries`], with less weight for older deliveries.
#[derive(Clone, Copy, Debug, Default)]
struct WeightedCounts([f64; 3]);

impl LossMeter {
    pub(super) fn take_in(&mut self, at: Ktime, deliveries: Deliveries) {
        let (new, old) = (deliveries.counts(), self.reported.counts());
        let more: [f64; 3] = array::from_fn(|i| new[i].saturating_sub(old[i]) as f64);
        let passed = at.since(self.reported_at.unwrap_or(at));
        for (window, memory) in self.windows.iter_mut().zip(MEMORIES) {
            window.take_in(passed, memory, more);
        }
        self.reported = deliveries;
        self.reported_at = self.reported_at.max(Some(at));
    }

    /// The worse result of the windows: the short one reacts to a new loss, the long one has more
    /// data.
    pub(super) fn loss(&self) -> Loss {
        let losses = self.windows.map(WeightedCounts::loss);
        losses.into_iter().max().unwrap_or_default()
    }
}

impl WeightedCounts {
    /// Advances by `passed`, during which `more` came in evenly.
    fn take_in(&mut self, passed: Duration, memory: Duration, more: [f64; 3]) {
        let age = passed.as_secs_f64() / memory.as_secs_f64();
        let old = (-age).exp();
        let new = if age > 0.0 { (1.0 - old) / age } else { 1.0 };
        for (count, more) in self.0.iter_mut().zip(more) {
            *count = *count * old + more * new;
        }
    }

    fn loss(self) -> Loss {
        let [delivered, late, retransmits] = self.0;
        let again = (retransmits - late).max(0.0) / (retransmits + PRIOR_RETRANSMITS);
        Loss::of((late + PRIOR_LATE) / (delivered + PRIOR_DELIVERED), again)
    }
}

const SHARES: f64 = 65_536.0;
/// Up to this share of late segments, no verdict needs more than its own rule requires: TCP tries
/// four times within the second that the fastest rule waits.
const CLEAN: f64 = 0.05;
/// The accepted probability that a confirmed verdict is false.
const CHANCE: f64 = 1e-6;
const MEMORIES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(120)];
/// The prior for an unknown path: one segment in a hundred is late. It is strong enough that one
/// accidentally late segment does not make a path lossy.
const PRIOR_DELIVERED: f64 = 24.0;
const PRIOR_LATE: f64 = 0.24;
/// The prior for retransmissions: the first two succeed.
const PRIOR_RETRANSMITS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: u32 = 6;

    /// Traffic on a path, reported to a meter every second.
    #[derive(Default)]
    struct Traffic {
        meter: LossMeter,
        counts: Deliveries,
        seconds: u64,
        dice: u32,
    }

    impl Traffic {
        /// Sends messages at this rate for some seconds; `first` and `further` are the shares of
        /// tries that fail.
        fn pass(&mut self, seconds: u64, messages: u32, [first, further]: [f64; 2]) {
            for _ in 0..seconds {
                for _ in 0..messages {
                    let mut retransmits = 0;
                    while self.roll() < if retransmits == 0 { first } else { further } {
                        retransmits += 1;
                        assert!(
                            retransmits < USUAL || self.meter.loss().excuses(retransmits),
                            "{:?} at {} s",
                            self.meter.loss(),
                            self.seconds
                        );
                    }
                    self.deliver(1, retransmits.into());
                }
                self.seconds += 1;
                self.report();
            }
        }

        fn deliver(&mut self, messages: u64, retransmits: u64) {
            self.counts.delivered += messages;
            self.counts.late += messages.min(retransmits);
            self.counts.retransmits += retransmits;
        }

        fn report(&mut self) {
            let at = Ktime(self.seconds * 1_000_000_000);
            self.meter.take_in(at, self.counts);
        }

        /// Between 0 and 1, from the generator of Numerical Recipes with a fixed seed.
        fn roll(&mut self) -> f64 {
            self.dice = self
                .dice
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            f64::from(self.dice) / 4_294_967_296.0
        }

        fn loss(&self) -> Loss {
            self.meter.loss()
        }
    }

    const CLEAN_PATH: [f64; 2] = [0.0; 2];
    /// One packet in five is lost in each direction. First tries have two answers.
    const LOSSY_PATH: [f64; 2] = [0.25, 0.36];

    #[test]
    fn an_unknown_path_counts_as_usual() {
        assert!(Loss::default().is_usual());
        assert!(LossMeter::default().loss().is_usual());
    }

    #[test]
    fn neither_one_late_segment_nor_one_in_fifty_makes_a_path_lossy() {
        let mut traffic = Traffic::default();
        traffic.deliver(1, 1);
        traffic.report();
        assert!(traffic.loss().is_usual());
        traffic.pass(300, 100, [0.02; 2]);
        assert!(traffic.loss().is_usual(), "{:?}", traffic.loss());
    }

    /// Of 200,000 messages hundreds need six tries, but none needs as many as would confirm a
    /// verdict.
    #[test]
    fn losses_by_chance_are_never_beyond_chance() {
        let mut traffic = Traffic::default();
        traffic.pass(10, 200, CLEAN_PATH);
        // A verdict takes at least 7 s.
        for message in 0..7 {
            traffic.deliver(200, if message % 2 == 0 { 60 } else { 70 });
            traffic.seconds += 1;
            traffic.report();
        }
        traffic.pass(1_000, 200, LOSSY_PATH);
        let tries = traffic.loss().tries_beyond_chance();
        assert!((13..=16).contains(&tries), "{tries}");
        let expected = (CHANCE.ln() / 0.36_f64.ln()).ceil() as u32;
        assert!(tries.abs_diff(expected) <= 1, "{tries}, {expected}");
    }

    #[test]
    fn a_new_loss_is_noticed_within_the_seven_seconds_that_a_verdict_takes() {
        let mut traffic = Traffic::default();
        traffic.pass(300, 20, CLEAN_PATH);
        for _ in 0..7 {
            traffic.seconds += 1;
            traffic.deliver(20, 5);
            traffic.report();
        }
        assert!(traffic.loss().excuses(USUAL), "{:?}", traffic.loss());
    }

    #[test]
    fn a_daemon_that_starts_during_a_loss_notices_it() {
        let mut traffic = Traffic::default();
        traffic.deliver(140, 35);
        traffic.report();
        assert!(traffic.loss().excuses(USUAL), "{:?}", traffic.loss());
    }

    #[test]
    fn a_loss_that_has_ended_is_forgotten_within_four_minutes() {
        let mut traffic = Traffic::default();
        traffic.pass(600, 50, LOSSY_PATH);
        assert!(traffic.loss().excuses(USUAL));
        traffic.pass(240, 50, CLEAN_PATH);
        assert!(traffic.loss().is_usual(), "{:?}", traffic.loss());
    }

    /// A path outage of five seconds: ten thousand connections with a message every 20 s.
    #[test]
    fn a_past_outage_delays_a_verdict_by_at_most_half_a_minute() {
        let mut traffic = Traffic::default();
        traffic.pass(300, 500, CLEAN_PATH);
        traffic.seconds += 5;
        for _ in 0..5 {
            // The delayed messages, with five retransmissions each, and the new ones.
            traffic.deliver(500, 500);
            traffic.counts.retransmits += 2_000;
            traffic.pass(1, 500, CLEAN_PATH);
        }
        assert!(!traffic.loss().is_usual(), "an outage looks like a loss");
        traffic.pass(25, 500, CLEAN_PATH);
        assert!(!traffic.loss().excuses(USUAL), "{:?}", traffic.loss());
    }

    #[test]
    fn data_that_is_never_acknowledged_does_not_look_like_a_loss() {
        let mut traffic = Traffic::default();
        traffic.pass(60, 500, CLEAN_PATH);
        let before = traffic.loss();
        for _ in 0..600 {
            traffic.seconds += 1;
            traffic.report();
        }
        assert!(traffic.loss().is_usual());
        assert!(traffic.loss() >= before, "the prior returns");
    }

    #[test]
    fn the_frequency_of_reports_does_not_matter() {
        let [mut often, mut rarely] = [Traffic::default(), Traffic::default()];
        for traffic in [&mut often, &mut rarely] {
            traffic.report();
        }
        for _ in 0..30 {
            often.seconds += 1;
            often.deliver(40, 10);
            often.report();
        }
        rarely.seconds += 30;
        rarely.deliver(1200, 300);
        rarely.report();
        let (often, rarely) = (often.loss().ratio(), rarely.loss().ratio());
        assert!((often - rarely).abs() < 0.01, "{often} {rarely}");
    }

    #[test]
    fn if_everything_is_lost_nothing_is_beyond_chance() {
        let all = Loss::from_late(u16::MAX);
        assert!(all.excuses(1_000));
        assert!(!Loss::from_late(0).excuses(0));
    }
}
