//! How lossy a path is, and how many failures in a row can still be chance.
//!
//! What was sent again and *then acknowledged* was lost by chance; what is never acknowledged says
//! nothing, so that ten thousand connections that die at once do not look like a lossy path. An outage
//! that ends counts once for each connection that waited, however often it tried.

use std::{array, time::Duration};

use monitor_common::stats::ListenerStats;

use super::time::Ktime;

/// The share of the tries that fail on a path, of 65,536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(u16);

impl Loss {
    /// From the share, of 65,536, of what was acknowledged that had been sent again: what the kernel
    /// keeps per flow.
    pub fn from_late(share: u16) -> Self {
        Self::of(f64::from(share) / SHARES, 1.0)
    }

    /// `late`: the share of first tries that failed. `again`: that of the further tries, if anything is
    /// known of it.
    ///
    /// A retransmission fails more often than the first try: a ping is answered by an acknowledgement
    /// and by a pong, and one of them is enough; sent again it is answered by an acknowledgement only. So
    /// it fails as often as two packets in a row at most. That an outage has ended makes `again` too high.
    fn of(late: f64, again: f64) -> Self {
        let ratio = if late <= CLEAN {
            late
        } else {
            let both = 1.0 - (1.0 - late).powi(2);
            late.max(again.min(both))
        };
        // Saturates.
        Self((ratio * SHARES) as u16)
    }

    pub fn ratio(self) -> f64 {
        f64::from(self.0) / SHARES
    }

    /// Whether no verdict needs more than its own rule asks for.
    pub(super) fn is_usual(self) -> bool {
        self.ratio() <= CLEAN
    }

    /// Whether so many tries without an answer can be chance.
    pub(super) fn excuses(self, tries: u32) -> bool {
        !self.is_usual() && tries < self.tries_beyond_chance()
    }

    /// Tries that all fail once in a million times.
    pub fn tries_beyond_chance(self) -> u32 {
        // Where nearly everything is lost no number is enough.
        (CHANCE.ln() / self.ratio().ln()).ceil() as u32
    }
}

/// How much of what a listener's connections sent was acknowledged since the start, and how easily.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Segments.
    pub delivered: u64,
    /// Those of them that were sent again before.
    pub late: u64,
    /// How often they were sent again, all of them.
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

/// What a listener's connections have lost lately.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    reported: Deliveries,
    reported_at: Option<Ktime>,
    windows: [Window; MEMORIES.len()],
}

/// The counts of [`Deliveries`], each delivery weighing less with age.
#[derive(Clone, Copy, Debug, Default)]
struct Window([f64; 3]);

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

    /// The worse of what the windows say: the short one sees a loss that begins, the long one has seen
    /// more.
    pub(super) fn loss(&self) -> Loss {
        let losses = self.windows.map(Window::loss);
        losses.into_iter().max().unwrap_or_default()
    }
}

impl Window {
    /// `passed` goes by, in which `more` came, evenly.
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
/// Up to this share of late segments no verdict needs more than its own rule asks for: within the second
/// that the most hasty one waits TCP tries four times.
const CLEAN: f64 = 0.05;
/// The chance that what is confirmed is false.
const CHANCE: f64 = 1e-6;
const MEMORIES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(120)];
/// What is believed of a path of which nothing is known: one segment in a hundred is late. Strong enough
/// that one that is late by accident is no lossy path.
const PRIOR_DELIVERED: f64 = 24.0;
const PRIOR_LATE: f64 = 0.24;
/// None of the first of them fails.
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
        /// For so many seconds so many messages a second, of which this share of the tries fails.
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

        /// Between 0 and 1; Numerical Recipes' generator, the same each time.
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
    /// One packet in five is lost each way. First tries have two answers.
    const LOSSY_PATH: [f64; 2] = [0.25, 0.36];

    #[test]
    fn a_path_of_which_nothing_is_known_is_a_usual_one() {
        assert!(Loss::default().is_usual());
        assert!(LossMeter::default().loss().is_usual());
    }

    #[test]
    fn one_late_segment_is_no_lossy_path_nor_is_one_in_fifty() {
        let mut traffic = Traffic::default();
        traffic.deliver(1, 1);
        traffic.report();
        assert!(traffic.loss().is_usual());
        traffic.pass(300, 100, [0.02; 2]);
        assert!(traffic.loss().is_usual(), "{:?}", traffic.loss());
    }

    /// No message needs as many tries as would confirm it, in 200,000 messages of which hundreds need six.
    #[test]
    fn what_a_path_loses_by_chance_is_never_beyond_chance() {
        let mut traffic = Traffic::default();
        traffic.pass(10, 200, CLEAN_PATH);
        // A verdict takes 7 s at least.
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
    fn a_loss_that_begins_is_seen_within_the_seven_seconds_that_a_verdict_takes() {
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
    fn a_daemon_that_starts_into_a_loss_sees_it_too() {
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

    /// Five seconds without a path: ten thousand connections with a message every 20 s.
    #[test]
    fn an_outage_that_ends_delays_a_verdict_by_no_more_than_half_a_minute() {
        let mut traffic = Traffic::default();
        traffic.pass(300, 500, CLEAN_PATH);
        traffic.seconds += 5;
        for _ in 0..5 {
            // What waited, with five retransmissions each, and what is new.
            traffic.deliver(500, 500);
            traffic.counts.retransmits += 2_000;
            traffic.pass(1, 500, CLEAN_PATH);
        }
        assert!(
            !traffic.loss().is_usual(),
            "what it cannot tell from a loss"
        );
        traffic.pass(25, 500, CLEAN_PATH);
        assert!(!traffic.loss().excuses(USUAL), "{:?}", traffic.loss());
    }

    #[test]
    fn what_is_never_acknowledged_does_not_look_like_a_loss() {
        let mut traffic = Traffic::default();
        traffic.pass(60, 500, CLEAN_PATH);
        let before = traffic.loss();
        for _ in 0..600 {
            traffic.seconds += 1;
            traffic.report();
        }
        assert!(traffic.loss().is_usual());
        assert!(traffic.loss() >= before, "the prior comes back");
    }

    #[test]
    fn it_does_not_matter_how_often_it_is_told() {
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
    fn where_everything_is_lost_nothing_is_beyond_chance() {
        let all = Loss::from_late(u16::MAX);
        assert!(all.excuses(1_000));
        assert!(!Loss::from_late(0).excuses(0));
    }
}
