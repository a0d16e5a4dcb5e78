//! Why many connections were lost at once.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use super::{Departure, finding::Cause};
use crate::core::{event::CloseHow, facts::Direction, time::Ktime};

/// The latest deaths of a listener, and what its listening sockets did.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    recent: VecDeque<Death>,
    /// When the last listening socket went.
    gone: Option<Ktime>,
}

/// What counts of a [`Departure`].
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

    /// When the closes began that are going on at `at`: those before it with no second without one.
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

    /// The last listening socket is gone.
    pub(super) fn server_gone(&mut self, at: Ktime) {
        self.gone = Some(at);
    }

    /// The cause of the deaths since `from`; `None` where they do not agree.
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
        // All opened, or all silent, since one moment, and ended at one moment: the durations are alike
        // without having been a limit.
        if last.since(first) >= SPREAD {
            let ages = deaths.iter().filter_map(|death| death.age);
            if let Some(age) = cluster(ages.collect(), deaths.len()) {
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

/// The address of more than half of them, if there is one (Boyer and Moore).
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

/// A thousand deaths tell what ten thousand do.
const MOST: usize = 1_024;
/// The listening socket and the connections of a process that ends go within this.
const NEAR: Duration = Duration::from_secs(10);
const TOGETHER: Duration = Duration::from_secs(1);
/// Deaths within less than this may have been one event.
const SPREAD: Duration = Duration::from_secs(3);
/// No hop forgets sooner.
const SHORTEST_LIMIT: Duration = Duration::from_secs(5);
const TOLERANCE: Duration = Duration::from_secs(1);
const ENOUGH: usize = 10;
