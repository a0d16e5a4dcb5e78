use super::*;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = SECOND / 1000;

/// The record of a ping.
const PING: u16 = 30;

/// Pings of this host, and what the other side answers.
struct Pings {
    inference: PingInference,
    now: u64,
    end: u32,
}

impl Pings {
    fn new() -> Self {
        Self {
            inference: PingInference::EMPTY,
            now: 1000 * SECOND,
            end: 0,
        }
    }

    /// A ping `wait` after the last one. Returns the period if it was recognised.
    fn send(&mut self, wait: u64) -> Option<u64> {
        self.now += wait;
        self.end += 100;
        self.inference.send(PING, self.end, self.now)
    }

    /// The same, with an answer.
    fn answered(&mut self, wait: u64) -> Option<u64> {
        let period = self.send(wait);
        let at = self.now + 20 * MILLI;
        let arrived = Arrived {
            until: self.end,
            at,
        };
        self.inference.receive(PING, arrived, at);
        period
    }

    fn answered_times(&mut self, times: u32, wait: u64) {
        for _ in 0..times {
            self.answered(wait);
        }
    }

    /// Whether a ping is expected `wait` after the last one, with about this period.
    fn expects(&self, wait: u64, period: u64) -> bool {
        let mut next = self.inference;
        let found = next.send(PING, self.end + 100, self.now + wait);
        found.is_some_and(|it| it.abs_diff(period) < period / 10)
    }
}

/// Answers `age` after a ping, whose acknowledgement of all before `until` comes `acked` after it. Returns
/// whether it is taken for a pong.
fn is_pong(acked: u64, until: u32, age: u64) -> bool {
    let mut pings = Pings::new();
    pings.answered_times(8, 10 * SECOND);
    pings.send(10 * SECOND);
    let arrived = Arrived {
        until: pings.end - 100 + until,
        at: pings.now + acked,
    };
    let answer = pings.inference.receive(PING, arrived, pings.now + age);
    answer.is_some()
}

#[test]
fn a_pong_comes_soon_after_the_ping_was_acknowledged_or_acknowledges_it() {
    for round_trip in [5, 50, 400] {
        let acked = round_trip * MILLI;
        assert!(is_pong(acked, 100, acked));
        assert!(is_pong(acked, 100, acked + PROMPT));
        assert!(!is_pong(acked, 100, acked + PROMPT + 1));
        assert!(!is_pong(acked, 99, acked), "sent before the ping arrived");
    }
}

#[test]
fn a_heartbeat_is_learned_whatever_the_first_gap() {
    for period in [3, 25, 600] {
        for first in 1..=40 {
            for extra in 1..=2 {
                let mut pings = Pings::new();
                pings.answered(0);
                pings.answered_times(extra, first * period * SECOND / 20);
                pings.answered_times(6, period * SECOND);
                assert!(
                    pings.expects(period * SECOND, period * SECOND),
                    "a period of {period} s after {extra} of {first} of 20"
                );
            }
        }
    }
}

#[test]
fn a_heartbeat_that_slows_down_is_learned_anew() {
    for slower in 2..=5 {
        let mut pings = Pings::new();
        pings.answered_times(20, 10 * SECOND);
        pings.answered_times(6, slower * 10 * SECOND);
        let period = slower * 10 * SECOND;
        assert!(pings.expects(period, period), "{slower} times");
    }
}

#[test]
fn an_answer_that_is_not_found_leaves_the_period_as_it_is() {
    let mut pings = Pings::new();
    pings.answered_times(8, 10 * SECOND);
    for _ in 0..8 {
        assert_eq!(pings.send(10 * SECOND), pings.answered(10 * SECOND));
        assert!(pings.expects(10 * SECOND, 10 * SECOND));
    }
}

#[test]
fn the_tolerance_is_a_share_of_the_period() {
    let mut pings = Pings::new();
    pings.answered_times(8, 10 * SECOND);
    for periods in 1..=4 {
        let due = periods * 10 * SECOND;
        let is_ping = |at| pings.expects(at, 10 * SECOND);
        assert!(is_ping(due) && is_ping(due - SECOND) && is_ping(due + SECOND));
        assert!(!is_ping(due - 2 * SECOND) && !is_ping(due + 2 * SECOND));
    }
}
