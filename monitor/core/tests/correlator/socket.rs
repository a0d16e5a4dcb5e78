//! One socket of the simulated kernel: the truth about it, and its reports.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use monitor_core::{
    ConnId, Event, Facts, Ktime, ListenerId, Trouble,
    facts::{Direction, IdleGap, Protocol, Role},
};

use crate::kernel::{Moment, Op, Script, rules};

pub(crate) struct Socket {
    pub(crate) facts: Facts,
    pub(crate) script: Vec<(u64, Op)>,
    pub(crate) position: usize,
    pub(crate) rtt: Duration,
    pub(crate) limit: Option<Duration>,
    pub(crate) broken: bool,
    pub(crate) deaf: bool,
    pub(crate) closed: bool,
    pub(crate) sent: u32,
    pub(crate) acked: u32,
    pub(crate) pings: Vec<Ktime>,
    pub(crate) has_pinged: bool,
    pub(crate) timer: u32,
    pub(crate) published_at: Ktime,
    /// Reported troubles that have not been answered.
    pub(crate) awaits_answer: bool,
    pub(crate) retrying: bool,
    pub(crate) pings_missing: bool,
    pub(crate) notable: bool,
    pub(crate) events: Vec<Cause>,
}

#[derive(Clone, Copy)]
pub(crate) enum Cause {
    Opened,
    Closing,
    Trouble(Trouble),
}

impl Socket {
    pub(crate) fn open(facts: Facts, script: &Script) -> Self {
        let rules = &rules()[usize::from(facts.listener.0)];
        Self {
            script: script.ops.clone(),
            position: 0,
            rtt: Duration::from_millis(script.rtt),
            limit: rules.path.idle_timeout(),
            broken: false,
            deaf: false,
            closed: false,
            sent: 0,
            acked: 0,
            pings: Vec::new(),
            has_pinged: false,
            timer: 0,
            published_at: facts.at,
            awaits_answer: false,
            retrying: false,
            pings_missing: false,
            notable: true,
            events: vec![Cause::Opened],
            facts,
        }
    }

    pub(crate) fn undecided_until(&self, at: Ktime) -> Option<Ktime> {
        let limit = self.limit?;
        let crossed = self.facts.last_activity()? + limit;
        (at > crossed && at < crossed + UNDECIDED).then_some(crossed + UNDECIDED)
    }

    /// A packet passes.
    pub(crate) fn touch(&mut self, at: Ktime, ended_by: Direction) {
        let from = self.facts.last_activity().expect("established");
        let gap = IdleGap {
            from,
            to: at,
            ended_by,
        };
        let length = |gap: &IdleGap| gap.to.since(gap.from);
        let exceeds = self.limit.is_some_and(|limit| length(&gap) > limit);
        if self.sent == self.acked && (exceeds || length(&gap) >= IDLE_GAP_FLOOR) {
            // Transmissions into a dead path do not hide when it died.
            let heard = self.facts.rx.last_packet;
            let hidden = self.facts.last_idle_gap.filter(|last| {
                ended_by == Direction::Tx && heard.is_none_or(|heard| heard < last.to)
            });
            if hidden.is_none_or(|last| length(&last) < length(&gap)) {
                self.facts.last_idle_gap = Some(gap);
            }
        }
        if self.sent == self.acked && exceeds {
            self.awaits_answer |= ended_by == Direction::Tx;
            self.notable = true;
            self.events.push(Cause::Trouble(Trouble::Resumed));
        }
        match ended_by {
            Direction::Rx => self.facts.rx.last_packet = Some(at),
            Direction::Tx => self.facts.tx.last_packet = Some(at),
        }
    }

    pub(crate) fn receive(&mut self, at: Ktime) {
        self.touch(at, Direction::Rx);
        self.facts.unanswered_transmissions = 0;
        self.facts.unanswered_since = None;
        self.answered(|socket| &mut socket.awaits_answer);
    }

    /// A transmission that requires an answer.
    pub(crate) fn transmit(&mut self, at: Ktime) {
        self.facts.unanswered_transmissions += 1;
        self.facts.unanswered_since.get_or_insert(at);
        if self.awaits_answer && self.facts.unanswered_transmissions == 2 {
            self.notable = true;
            self.events.push(Cause::Trouble(Trouble::Retransmit));
        }
    }

    pub(crate) fn ping(&mut self, at: Ktime) {
        self.notable = true;
        if !std::mem::replace(&mut self.has_pinged, true) {
            self.events.push(Cause::Trouble(Trouble::PingUnanswered));
        }
        let first = *self.facts.first_try.get_or_insert(at);
        if self.facts.second_try.is_none() && at.since(first) >= TRY_APART {
            self.facts.second_try = Some(at);
            self.pings_missing = true;
            self.events.push(Cause::Trouble(Trouble::PingUnanswered));
        }
        self.pings.push(at);
        self.count_pings();
    }

    pub(crate) fn pong(&mut self, at: Ktime) {
        self.facts.rx.last_frame = Some(at);
        let rtt = self.rtt;
        if self.pings.iter().any(|sent| *sent + rtt <= at) {
            self.notable = true;
            self.facts.ping_rtt = Some(rtt);
            self.pings.retain(|sent| *sent + rtt > at);
            self.count_pings();
            self.excuse_tries();
        }
    }

    /// New payload has come from the peer.
    pub(crate) fn excuse_tries(&mut self) {
        self.notable |= self.facts.first_try.is_some();
        (self.facts.first_try, self.facts.second_try) = (None, None);
        self.answered(|socket| &mut socket.pings_missing);
    }

    pub(crate) fn count_pings(&mut self) {
        self.facts.pings_unanswered = self.pings.len() as u32;
    }

    pub(crate) fn answered(&mut self, trouble: impl Fn(&mut Self) -> &mut bool) {
        if std::mem::take(trouble(self)) {
            self.notable = true;
            self.events.push(Cause::Trouble(Trouble::Answered));
        }
    }

    pub(crate) fn moment(&mut self, at: Ktime) -> Moment {
        self.facts.at = at;
        let packet = self.facts.last_activity() == Some(at);
        let interval_over = packet && at.since(self.published_at) >= PUBLISH_INTERVAL;
        let published = std::mem::take(&mut self.notable) || interval_over;
        if published {
            self.published_at = at;
        }
        let facts = || Box::new(self.facts.clone());
        let events = self.events.drain(..).map(|cause| match cause {
            Cause::Opened => Event::Opened(facts()),
            Cause::Closing => Event::Closing(facts()),
            Cause::Trouble(trouble) => Event::Trouble {
                facts: facts(),
                trouble,
            },
        });
        let events = events.collect();
        let truth = Some(self.facts.clone());
        Moment {
            at,
            conn: self.facts.conn,
            truth,
            published,
            events,
        }
    }
}

/// A connection that was just established, without traffic.
pub(crate) fn facts(conn: ConnId, listener: ListenerId, at: Ktime) -> Facts {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Facts {
        established_at: Some(at),
        ..Facts::new(
            at,
            conn,
            listener,
            Role::Server,
            Protocol::WebSocket,
            address(8080),
            address(40_000),
        )
    }
}

const IDLE_GAP_FLOOR: Duration = Duration::from_nanos(monitor_common::stats::IDLE_GAP_FLOOR);
const TRY_APART: Duration = Duration::from_nanos(monitor_common::snapshot::TRY_APART);
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// Gaps that end this shortly after the limit are made longer: whether a timer sees them depends on
/// the staleness, so they do not suit a test of exact sequences.
const UNDECIDED: Duration = Duration::from_millis(300);
