//! A server that is killed and restarted, and its clients, in virtual time.
//!
//! Everything takes time, as on a small machine. A client process and a server handle one event
//! after the other, so simultaneous actions of clients reach the server spread over that time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::*;
use crate::{event::CloseHow, facts::Direction};

/// A small generator (splitmix64), the same on each run.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// With this mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }
}

/// How a client waits, in seconds; exponential delays are limited to `CAP`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Policy {
    /// From one attempt to the next, at fixed times.
    Ticking(f64),
    /// After each failure.
    Fixed(f64),
    Backoff(f64, f64),
    /// From nothing up to the delay of a backoff (base, factor).
    FullJitter(f64, f64),
    /// From half the delay of a backoff up to it.
    EqualJitter(f64, f64),
    /// The delay of a backoff, and up to half of it more.
    HalfMore(f64, f64),
}

const CAP: f64 = 30.0;

impl Policy {
    /// The delay after `failures` failures (0: the connection was lost).
    fn delay(self, failures: i32, random: &mut Random) -> f64 {
        let grown = |base: f64, factor: f64| (base * factor.powi(failures)).min(CAP);
        match self {
            Self::Ticking(interval) | Self::Fixed(interval) => interval,
            Self::Backoff(base, factor) => grown(base, factor),
            Self::FullJitter(base, factor) => grown(base, factor) * random.uniform(),
            Self::EqualJitter(base, factor) => grown(base, factor) * (0.5 + random.uniform() / 2.0),
            Self::HalfMore(base, factor) => grown(base, factor) * (1.0 + random.uniform() / 2.0),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Outage {
    /// The number of clients for each policy.
    pub(super) clients: Vec<(usize, Policy)>,
    /// All clients have one address.
    pub(super) shared: bool,
    /// Until when nothing listens, and until when the server refuses, in seconds after the kill.
    pub(super) down: f64,
    pub(super) warm: f64,
    /// The cost of one step for the process of the clients, and for the server, in seconds.
    pub(super) client_cost: f64,
    pub(super) server_cost: f64,
    /// Mean delay of timers.
    pub(super) late: f64,
    /// About once a second, both processes stall for up to this many seconds.
    pub(super) stall: f64,
    pub(super) seed: u64,
}

impl Outage {
    pub(super) fn of(clients: usize, policy: Policy) -> Self {
        Self {
            clients: vec![(clients, policy)],
            shared: true,
            down: 2.0,
            warm: 10.0,
            client_cost: 0.000_05,
            server_cost: 0.000_1,
            late: 0.002,
            stall: 0.0,
            seed: 1,
        }
    }
}

/// What happens on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire {
    Arrived(IpAddr),
    Settled(IpAddr, AttemptOutcome),
    Departed(IpAddr),
    ServerGone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Wakes,
    IsRefused,
}

/// When the server is killed, seconds.
pub(super) const KILLED: f64 = 12.0;

pub(super) fn address(client: usize) -> IpAddr {
    Ipv4Addr::from(0x0a00_0001 + client as u32).into()
}

/// All events, in order.
pub(super) fn wire(outage: &Outage) -> Vec<(Ktime, Wire)> {
    let mut random = Random(outage.seed);
    let policies: Vec<Policy> = outage
        .clients
        .iter()
        .flat_map(|(count, policy)| vec![*policy; *count])
        .collect();
    let of = |client: usize| match outage.shared {
        true => address(0),
        false => address(client),
    };
    let mut events = Vec::new();
    let mut steps = BinaryHeap::new();
    let mut failures = vec![0; policies.len()];
    let mut attempted = vec![KILLED; policies.len()];
    let to = |seconds: f64| Ktime((seconds * 1e9) as u64);
    let (mut client_free, mut server_free) = (0.0_f64, 0.0_f64);
    for client in 0..policies.len() {
        // Clients connect over some seconds, long before the kill.
        let at = 1.0 + 3.0 * client as f64 / policies.len() as f64;
        events.push((to(at), Wire::Arrived(of(client))));
        events.push((
            to(at + 0.001),
            Wire::Settled(of(client), AttemptOutcome::Accepted),
        ));
        let closed = KILLED + 0.000_01 * client as f64;
        events.push((to(closed), Wire::Departed(of(client))));
        client_free = client_free.max(closed) + outage.client_cost;
        let delay = policies[client].delay(0, &mut random);
        let noticed = match policies[client] {
            Policy::Ticking(_) => closed,
            _ => client_free,
        };
        attempted[client] = noticed;
        let wakes = noticed + delay + random.exponential(outage.late);
        steps.push(Reverse((to(wakes), client, Step::Wakes)));
    }
    events.push((to(KILLED + 0.01), Wire::ServerGone));
    let end = to(KILLED + 130.0);
    let mut stalls_at = KILLED;
    while let Some(Reverse((at, client, step))) = steps.pop() {
        if at > end {
            break;
        }
        let now = at.0 as f64 / 1e9;
        if now >= stalls_at {
            let until = now + outage.stall * random.uniform();
            (client_free, server_free) = (client_free.max(until), server_free.max(until));
            stalls_at = now + random.exponential(1.0);
        }
        match step {
            Step::Wakes => {
                client_free = client_free.max(now) + outage.client_cost;
                let sent = client_free;
                attempted[client] = match policies[client] {
                    Policy::Ticking(interval) => attempted[client] + interval,
                    _ => sent,
                };
                let after = sent - KILLED;
                if after < outage.down {
                    steps.push(Reverse((to(sent + 0.000_1), client, Step::IsRefused)));
                    continue;
                }
                events.push((to(sent), Wire::Arrived(of(client))));
                server_free = server_free.max(sent) + outage.server_cost;
                let accepted = server_free - KILLED >= outage.warm;
                let outcome = match accepted {
                    true => AttemptOutcome::Accepted,
                    false => AttemptOutcome::Refused(Some(503)),
                };
                events.push((to(server_free), Wire::Settled(of(client), outcome)));
                if !accepted {
                    steps.push(Reverse((to(server_free), client, Step::IsRefused)));
                }
            }
            Step::IsRefused => {
                client_free = client_free.max(now) + outage.client_cost;
                failures[client] += 1;
                let delay = policies[client].delay(failures[client], &mut random);
                let from = match policies[client] {
                    Policy::Ticking(_) => attempted[client],
                    _ => client_free,
                };
                let wakes = (from + delay).max(client_free) + random.exponential(outage.late);
                steps.push(Reverse((to(wakes), client, Step::Wakes)));
            }
        }
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

/// Feeds all events to an engine, with deadlines 10 ms late, as in the daemon. Returns its findings
/// until long after the last event.
pub(super) fn play(storm: &mut StormDetector, events: &[(Ktime, Wire)]) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let mut open = 0_u64;
    for (at, event) in events {
        run(storm, *at, &mut alerts);
        match *event {
            Wire::Arrived(client) => storm.arrived(*at, client),
            Wire::Settled(client, outcome) => {
                open += u64::from(outcome == AttemptOutcome::Accepted);
                storm.settled(*at, client, outcome);
            }
            Wire::Departed(client) => {
                storm.departed(&departure(*at, client), open);
                open -= 1;
            }
            Wire::ServerGone => storm.server_gone(*at),
        }
        alerts.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    run(storm, Ktime::NEVER, &mut alerts);
    alerts
}

/// Handles all deadlines up to `now`.
pub(super) fn run(storm: &mut StormDetector, now: Ktime, alerts: &mut Vec<Alert>) {
    while let Some(due) = storm.poll_timeout().filter(|due| *due <= now) {
        storm.handle_timeout(due + Duration::from_millis(10));
        alerts.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
}

/// The end of a connection whose server on this host was killed.
pub(super) fn departure(at: Ktime, client: IpAddr) -> Departure {
    Departure {
        at,
        client,
        peer: client,
        how: CloseHow::Fin,
        by: Some(Direction::Tx),
        idle: Duration::from_secs(3),
        age: Some(Duration::from_secs(9)),
        unacked: false,
    }
}

/// The alerts on reconnect storms.
pub(super) fn storms(alerts: &[Alert]) -> Vec<Alert<ReconnectStorm>> {
    alerts
        .iter()
        .filter_map(|alert| match &alert.subject {
            Subject::Storm(storm) => Some(alert.clone().map(|_| (**storm).clone())),
            _ => None,
        })
        .collect()
}

/// The alerts on thrashing clients.
pub(super) fn thrashes(alerts: &[Alert]) -> Vec<Alert<Thrash>> {
    alerts
        .iter()
        .filter_map(|alert| match &alert.subject {
            Subject::Thrash(thrash) => Some(alert.clone().map(|_| thrash.clone())),
            _ => None,
        })
        .collect()
}
