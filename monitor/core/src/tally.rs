//! The counts behind the metrics of each listener, except those that the kernel programs keep.

use std::collections::BTreeMap;

use monitor_common::stats::ListenerStats;

use super::{
    connection_ages::ConnectionAges,
    event::CloseHow,
    facts::{Close, Direction, Facts, InferredHeartbeat, Protocol},
    histogram::DurationHistogram,
    idle_gaps::Learned,
    loss::Loss,
    reap::ReapOutcome,
    send_queues::QueueTotals,
    verdict::{Certainty, VerdictKind},
};

/// The counts of one listener. Arrays are indexed by the enum they are named after (`kind as usize`),
/// in the order of its `ALL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The counts that each workload has too.
    pub counts: ConnectionCounts,
    /// Gauge: the zombies whose verdict is confirmed.
    pub confirmed_zombies: u64,
    /// Gauge: idle for at least 0.8 of the limit, but not past it.
    pub at_risk: u64,
    /// Gauge: open TLS connections whose records are followed, by `InferredHeartbeat`.
    pub heartbeats: [u64; InferredHeartbeat::ALL.len()],
    /// Firing episodes, by `VerdictKind`, then by the `Certainty` with which they began.
    pub detected: [[u64; Certainty::ALL.len()]; VerdictKind::ALL.len()],
    /// Episodes that ended with a sign of life, by `VerdictKind`.
    pub recovered: [u64; VerdictKind::ALL.len()],
    /// Dead connections that were due to be aborted, by `ReapOutcome`.
    pub reaped: [u64; ReapOutcome::ALL.len()],
    /// Gauge: listening sockets on its ports, in all network namespaces.
    pub listen_sockets: u64,
    /// Gauges, as of the last scan of the sockets.
    pub send_queues: QueueTotals,
    /// Gauge: upgrade requests without a response for at least 10 s.
    pub handshakes_stuck: u64,
    /// Gauge: clients are coming back all at once.
    pub reconnect_storm: bool,
    /// Gauge: clients that keep reconnecting and stay for seconds only.
    pub thrashing_clients: u64,
    /// Attempts of clients that had lost a connection, or had been refused, shortly before.
    pub reconnects: u64,
    /// WebSocket connections that ended without a close frame (RFC 6455 §7.1.5, code 1006).
    pub abnormal_closures: u64,
    pub close_codes: CloseCodes,
    /// The idle time before a death, at the first confirmed verdict or at a close without close
    /// frame.
    pub idle_at_death: DurationHistogram,
    /// The age at the same moment, if the establishment was seen.
    pub age_at_death: DurationHistogram,
    /// What was learned about the hops' real timeouts.
    pub learned: Learned,
    /// Gauge: the silences of connections contradict the configured idle timeouts.
    pub limit_mismatch: bool,
    /// Gauge: connections end at one age that no hop is configured with.
    pub lifetime_mismatch: bool,
    /// The recent loss of the connections.
    pub loss: Loss,
    /// Gauge: the open and closing connections whose establishment was seen.
    pub ages: ConnectionAges,
}

impl Tally {
    /// Firing episodes of a kind.
    pub fn detected(&self, kind: VerdictKind) -> u64 {
        self.detected[kind as usize].iter().sum()
    }

    pub(super) fn count_close(&mut self, facts: &Facts) {
        match facts.close {
            Some(close) => self.close_codes.count(close),
            None if facts.protocol == Protocol::WebSocket => self.abnormal_closures += 1,
            None => {}
        }
    }
}

/// Counts that exist per listener and per workload. Arrays are indexed like those of [`Tally`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Gauge, by `Protocol`.
    pub connections: [Phases; 3],
    /// Gauge, by `VerdictKind`; includes the kinds that are not zombies.
    pub zombies: [u64; VerdictKind::ALL.len()],
    pub turnover: Turnover,
    /// From the establishment to the end, if both were seen. Also of connections that ended well.
    pub durations: DurationHistogram,
}

impl ConnectionCounts {
    /// The connections of all protocols.
    pub fn phases(&self) -> Phases {
        let protocols = self.connections.iter();
        protocols.fold(Phases::default(), |sum, phases| Phases {
            open: sum.open + phases.open,
            closing: sum.closing + phases.closing,
        })
    }

    pub(super) fn count_close(&mut self, facts: &Facts, how: CloseHow) {
        self.turnover.closed[how as usize] += 1;
        if let Some(established_at) = facts.established_at {
            self.durations.observe(facts.at.since(established_at));
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.add_gauges(other);
        self.turnover.add(&other.turnover);
        self.durations.add(&other.durations);
    }

    pub(super) fn add_gauges(&mut self, other: &Self) {
        for (phases, more) in self.connections.iter_mut().zip(other.connections) {
            phases.open += more.open;
            phases.closing += more.closing;
        }
        for (zombies, more) in self.zombies.iter_mut().zip(other.zombies) {
            *zombies += more;
        }
    }
}

/// How many connections opened and closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    pub opened: u64,
    /// By `CloseHow`.
    pub closed: [u64; CloseHow::ALL.len()],
}

impl Turnover {
    /// As the kernel programs counted.
    pub fn of(stats: &ListenerStats) -> Self {
        Self {
            opened: stats.opened.get(),
            closed: std::array::from_fn(|how| stats.closed[how].get()),
        }
    }

    /// The connections that closed in any way.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        for (closed, more) in self.closed.iter_mut().zip(other.closed) {
            *closed += more;
        }
    }

    /// What `self` has more than `other`.
    pub(super) fn beyond(&self, other: &Self) -> Self {
        let mut beyond = *self;
        beyond.opened = self.opened.saturating_sub(other.opened);
        for (closed, counted) in beyond.closed.iter_mut().zip(other.closed) {
            *closed = closed.saturating_sub(counted);
        }
        beyond
    }
}

/// Connections by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub open: u64,
    /// A FIN, a RST or a close frame passed.
    pub closing: u64,
}

/// First close frames, by sender and code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseCodes {
    /// At most [`CloseCodes::LIMIT`] keys; the code is `None` for a close frame without a body.
    pub counts: BTreeMap<(Direction, Option<u16>), u64>,
    /// Close frames whose key no longer had room.
    pub overflow: u64,
}

impl CloseCodes {
    /// Peers choose their codes, so the memory and the number of series must be bounded.
    pub const LIMIT: usize = 64;

    pub(super) fn count(&mut self, close: Close) {
        let key = (close.initiator, close.code);
        let room = self.counts.len() < Self::LIMIT || self.counts.contains_key(&key);
        let counter = if room {
            self.counts.entry(key).or_default()
        } else {
            &mut self.overflow
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseHow;

    #[test]
    fn invented_codes_of_a_peer_end_in_the_overflow() {
        let mut codes = CloseCodes::default();
        for code in 0..100 {
            codes.count(Close {
                initiator: Direction::Rx,
                code: Some(code),
            });
        }
        codes.count(Close {
            initiator: Direction::Rx,
            code: Some(3),
        });
        assert_eq!(codes.counts.len(), CloseCodes::LIMIT);
        assert_eq!(codes.overflow, 36);
        assert_eq!(codes.counts[&(Direction::Rx, Some(3))], 2);
    }

    #[test]
    fn ends_are_numbered_in_the_order_of_their_names() {
        let numbers = CloseHow::ALL.iter().map(|how| *how as usize);
        assert!(numbers.eq(0..CloseHow::ALL.len()));
    }
}
