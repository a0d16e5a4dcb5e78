//! Why many connections were lost at once.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use super::{Departure, finding::Cause};
use crate::{event::CloseHow, facts::Direction, time::Ktime};

/// The latest deaths of a listener, and the end of its listening sockets.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    recent: VecDeque<Death>,
    /// When the last listening socket was closed.
    gone: Option<Ktime>,
}

/// The relevant part of a [`Departure`].
#[derive(Clone, Copy, Debug)]
struct Death {
    at: Ktime,
    peer: IpAddr,
    idle: Duration,
    age: Option<Duration>,
    how: CloseHow,
    by: Option<Direction>,
    unacked: bool,
}

impl Deaths {
    pub(super) fn add(&mut self, departure: &Departure) {
        if self.recent.len() == MOST {
            self.recent.pop_front();
        }
        self.recent.push_back(Death {
            at: departure.at,
            peer: departure.peer,
            idle: departure.idle,
            age: departure.age,
            how: departure.how,
            by: departure.by,
            unacked: departure.unacked,
        });
    }

    /// When the closes in progress at `at` began, after a second without a close.
    pub(super) fn begin(&self, at: Ktime) -> Ktime {
        let mut begun = at;
        for death in self.recent.iter().rev() {
            if begun.since(death.at) > TOGETHER || at.since(death.at) > NEAR {
                break;
            }
            begun = begun.min(death.at);
        }
        begun
    }

    /// The last listening socket was closed.
    pub(super) fn server_gone(&mut self, at: Ktime) {
        self.gone = Some(at);
    }

    /// The cause of the deaths since `from`; `None` if they do not agree.
    pub(super) fn cause(&self, from: Ktime) -> Option<Cause> {
        let deaths: Vec<&Death> = self.recent.iter().filter(|d| d.at >= from).collect();
        let share = |is: &dyn Fn(&Death) -> bool| {
            let count = deaths.iter().filter(|death| is(death)).count();
            count as f64 / deaths.len() as f64
        };
        let first = deaths.iter().map(|death| death.at).min()?;
        let last = deaths.iter().map(|death| death.at).max()?;
        if let Some(gone) = self.gone
            && gone + NEAR >= first
            && gone <= last + NEAR
            && share(&|death| death.by == Some(Direction::Rx)) < 0.5
        {
            return Some(Cause::ServerRestart);
        }
        if share(&|death| death.how == CloseHow::Timeout || death.unacked) >= 0.5 {
            return Some(Cause::PeerNetwork);
        }
        // If all were opened, or fell silent, at one moment and ended at one moment, their
        // durations are alike although no limit was involved.
        if last.since(first) >= SPREAD {
            let lifetimes = deaths.iter().filter_map(|death| death.age);
            if let Some(age) = cluster(lifetimes.collect(), deaths.len()) {
                return Some(Cause::Lifetime(age));
            }
            let idles = deaths.iter().map(|death| death.idle);
            let long = idles.filter(|idle| *idle >= SHORTEST_LIMIT).collect();
            if let Some(idle) = cluster(long, deaths.len()) {
                return Some(Cause::IdleTimeout(idle));
            }
        }
        let closed = |death: &Death| {
            death.by == Some(Direction::Rx)
                && matches!(death.how, CloseHow::Fin | CloseHow::CloseFrame)
        };
        let peer = majority(deaths.iter().filter(|death| closed(death)))?;
        let his = share(&|death| death.peer == peer && closed(death));
        let many = deaths.len() >= ENOUGH;
        (many && his >= 0.8).then_some(Cause::ProxyDeploy(peer))
    }
}

/// The duration around which at least 30 % of `all` lie, within 1 s or 2 %.
fn cluster(mut durations: Vec<Duration>, all: usize) -> Option<Duration> {
    durations.sort_unstable();
    let mut best = (0, 0);
    let mut from = 0;
    for (to, longest) in durations.iter().enumerate() {
        let tolerance = TOLERANCE.max(*longest / 50);
        while *longest - durations[from] > tolerance {
            from += 1;
        }
        if to + 1 - from > best.1 - best.0 {
            best = (from, to + 1);
        }
    }
    let found = &durations[best.0..best.1];
    let enough = found.len() >= ENOUGH.min(all) && found.len() * 10 >= all * 3;
    enough.then(|| found[found.len() / 2])
}

/// The address of more than half of the deaths, if there is one (Boyer and Moore).
fn majority<'a>(deaths: impl Iterator<Item = &'a &'a Death>) -> Option<IpAddr> {
    let mut found = None;
    let mut lead = 0_usize;
    for death in deaths {
        if lead == 0 {
            found = Some(death.peer);
        }
        match found == Some(death.peer) {
            true => lead += 1,
            false => lead -= 1,
        }
    }
    found
}

/// A thousand deaths show as much as ten thousand.
const MOST: usize = 1_024;
/// The listening socket and the connections of a process that ends are closed within this time.
const NEAR: Duration = Duration::from_secs(10);
const TOGETHER: Duration = Duration::from_secs(1);
/// Deaths within less than this may have been one event.
const SPREAD: Duration = Duration::from_secs(3);
/// No hop has a shorter idle timeout.
const SHORTEST_LIMIT: Duration = Duration::from_secs(5);
const TOLERANCE: Duration = Duration::from_secs(1);
const ENOUGH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Ktime {
        Ktime((seconds * 1e9) as u64)
    }

    fn death(seconds: f64, by: Direction) -> Departure {
        let peer = IpAddr::from([10, 0, 0, 1]);
        Departure {
            at: at(seconds),
            client: peer,
            peer,
            how: CloseHow::Fin,
            by: Some(by),
            // All different.
            idle: Duration::from_secs_f64(1.0 + (seconds * 977.0) % 50.0),
            age: Some(Duration::from_secs_f64(60.0 + (seconds * 7_919.0) % 900.0)),
            unacked: false,
        }
    }

    /// The cause that is found for 100 deaths within ten seconds.
    fn cause(gone: Option<f64>, of: impl Fn(usize, f64) -> Departure) -> Option<Cause> {
        let mut deaths = Deaths::default();
        for n in 0..100 {
            deaths.add(&of(n, 1_000.0 + n as f64 / 10.0));
        }
        if let Some(gone) = gone {
            deaths.server_gone(at(gone));
        }
        deaths.cause(at(1_000.0))
    }

    #[test]
    fn the_end_of_a_server_is_the_cause_of_its_closes() {
        let ended = |_, now| death(now, Direction::Tx);
        assert_eq!(cause(Some(1_000.5), ended), Some(Cause::ServerRestart));
        assert_eq!(cause(Some(700.0), ended), None, "long before");
        assert_eq!(cause(None, ended), None);
    }

    #[test]
    fn a_proxy_is_named_if_it_closed_nearly_all_connections() {
        let one = |_, now| death(now, Direction::Rx);
        let proxy = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(cause(None, one), Some(Cause::ProxyDeploy(proxy)));
        let many = |n: usize, now| Departure {
            peer: IpAddr::from([10, 0, 1, n as u8]),
            ..death(now, Direction::Rx)
        };
        assert_eq!(cause(None, many), None);
    }

    #[test]
    fn a_network_failure_leaves_bytes_unacknowledged() {
        let lost = |n: usize, now| Departure {
            how: if n < 33 {
                CloseHow::RstSent
            } else {
                CloseHow::Timeout
            },
            by: None,
            ..death(now, Direction::Tx)
        };
        assert_eq!(cause(None, lost), Some(Cause::PeerNetwork));
    }

    #[test]
    fn deaths_that_cluster_at_one_idle_time_or_age_name_it() {
        let idle = |n: usize, now| match n % 2 {
            0 => Departure {
                idle: Duration::from_millis(60_000 + n as u64),
                ..death(now, Direction::Rx)
            },
            _ => death(now, Direction::Rx),
        };
        let Some(Cause::IdleTimeout(found)) = cause(None, idle) else {
            panic!("{:?}", cause(None, idle));
        };
        assert_eq!(found.as_secs(), 60);
        let lifetime = |n: usize, now| Departure {
            age: Some(Duration::from_millis(3_600_000 + 300 * n as u64)),
            ..death(now, Direction::Rx)
        };
        let Some(Cause::Lifetime(found)) = cause(None, lifetime) else {
            panic!("{:?}", cause(None, lifetime));
        };
        assert!((3_600..3_630).contains(&found.as_secs()), "{found:?}");
    }

    #[test]
    fn connections_that_were_opened_and_closed_together_have_no_lifetime() {
        let together = |n: usize, _| Departure {
            at: at(1_000.0 + n as f64 / 1_000.0),
            age: Some(Duration::from_secs(600)),
            idle: Duration::from_secs(30),
            ..death(1_000.0, Direction::Tx)
        };
        assert_eq!(cause(None, together), None);
    }
}
