//! Heartbeats inferred from records: the servers that were recorded, what looks like a heartbeat and is
//! none, losses, and clients that stop.

use proptest::{prelude::*, sample::select};

use crate::traffic::{Chatter, Life, MILLI, SECOND, SERVERS};

/// A connection without a stop, on which pings every 25 s are the only traffic.
const QUIET: Life = Life {
    server: SERVERS[0].0,
    chatter: Chatter::Nothing,
    ping_period: 25 * SECOND,
    round_trip: 30 * MILLI,
    loss: 0,
    stops_at: u64::MAX,
    ends_at: 600 * SECOND,
    seed: 1,
};

#[test]
fn the_heartbeat_of_every_server_is_learned_after_five_pings() {
    for (server, ping, pong) in SERVERS {
        let overhead = server.overhead;
        assert_eq!(2 + server.ping + overhead + server.padding, usize::from(ping));
        assert_eq!(6 + server.ping + overhead, usize::from(pong));
        let outcome = Life { server, ..QUIET }.play();
        let s = outcome.last;
        assert_eq!(s.tls().and_then(|tls| tls.version()), Some(if server.is_1_3 { 4 } else { 3 }));
        let learned = outcome.learned_at.unwrap_or_default() / SECOND;
        assert!((145..155).contains(&learned), "{}: {learned} s", server.name);
        assert_eq!(s.tx.pings_unanswered(), 0, "{}", server.name);
        let interval = u64::from(s.tx.ping_interval) << 24;
        assert!(interval.abs_diff(25 * SECOND) < SECOND / 10, "{}: {interval}", server.name);
        assert!((30_000..35_000).contains(&s.ping_rtt_us[1]), "{}", server.name);
        assert_eq!(outcome.accused_at, None);
    }
}

/// How many of some connections had which outcome.
#[derive(Debug, Default)]
struct Counts {
    all: u32,
    learned: u32,
    accused: u32,
    in_time: u32,
}

fn play(lives: impl IntoIterator<Item = Life>) -> Counts {
    let mut counts = Counts::default();
    for life in lives {
        let outcome = life.play();
        counts.all += 1;
        counts.learned += u32::from(outcome.learned_at.is_some());
        if let Some(at) = outcome.accused_at {
            let wrong = at < life.stops_at;
            if wrong { println!("WRONG {life:?} at {at}"); }
            counts.accused += 1;
            counts.in_time += u32::from(at - life.stops_at.min(at) <= 3 * life.ping_period + 2 * SECOND);
        }
    }
    counts
}

fn lives(f: impl Fn(Life) -> Life) -> Vec<Life> {
    let mut lives = Vec::new();
    for (i, (server, ..)) in SERVERS.into_iter().enumerate() {
        for chatter in Chatter::ALL {
            for round_trip in [5, 50, 150, 400] {
                for loss in [0, 10, 50] {
                lives.push(f(Life { server, chatter, round_trip: round_trip * MILLI, loss, seed: (i as u64 + 1) * 7919 + round_trip * 31 + loss, ..QUIET}));
                }
            }
        }
    }
    lives
}

#[test]
fn statistics() {
    for chatter in Chatter::ALL {
        for period in [2, 25] {
        for loss in [0, 10, 50] {
        let only = |l: &Life| l.chatter == chatter && l.loss == loss;
        let none = play(lives(|l| Life { ping_period: 0, ends_at: 30 * period * SECOND, ..l }).into_iter().filter(only));
        let live = play(lives(|l| Life { ping_period: period * SECOND, ends_at: 40 * period * SECOND, ..l }).into_iter().filter(only));
        let dead = play(lives(|l| Life { ping_period: period * SECOND, stops_at: 20 * period * SECOND, ends_at: 30 * period * SECOND, ..l }).into_iter().filter(only));
        println!("{chatter:?} {period} {loss}\n  none {none:?}\n  live {live:?}\n  dead {dead:?}");
        }}
    }
}
