//! Each verdict from its cause to its end, behind each kind of hop, with its delay.
//!
//! A case is one connection, a sequence of events, and all that wsmon may report about it. The
//! cases run at the same time, each in its own network with its own daemon.

mod scene;

use std::{
    ops::RangeInclusive,
    panic, thread,
    time::{Duration, Instant},
};

use lab::{Manner, rerun_after_stalls};

use self::scene::{Row, Scene};

struct Case {
    name: &'static str,
    /// Rules of its listener in the configuration file.
    rules: &'static str,
    hop: Hop,
    client: Who,
    /// The server's behaviour: the path of a script.
    script: &'static str,
    steps: &'static [Step],
}

/// The hop between client and server.
#[derive(Clone, Copy)]
enum Hop {
    Router,
    /// After this many seconds packets are dropped.
    Forgets(u64),
    /// After this many seconds packets are answered with a RST.
    Rejects(u64),
    /// With this `proxy_read_timeout`.
    Nginx(u64),
    /// With this `timeout tunnel`.
    Haproxy(u64),
}

#[derive(Clone, Copy)]
enum Who {
    /// In this process, with a separate address.
    Lab(Manner),
    /// A separate process that runs node's `ws`.
    Node,
}

/// An event, and what wsmon reports next.
struct Step {
    action: Action,
    reported: Reported,
    /// Seconds after the action, as documented, without [`scene::SLACK`].
    after: RangeInclusive<f64>,
}

#[derive(Clone, Copy)]
enum Action {
    /// Nothing: the clock of the last action continues. Initially that action is the client's
    /// connect.
    Wait,
    BlackHole,
    Heal,
    DeafenClient,
    LetClientHear,
    UnplugClient,
    StopClient,
    ContinueClient,
    /// The client's process is killed, and the other end does not learn of it.
    KillClientUnseen,
    ClientHangsUp,
    ClientSpeaks,
    ServerSpeaks,
    ServerReadsOn,
    /// The hop resets the connection.
    Reject,
}

#[derive(Clone, Copy, Debug)]
enum Reported {
    Suspected(&'static str),
    Confirmed(&'static str),
    Resolved(&'static str),
}

use Action::*;
use Reported::*;

const QUIETLY: Who = Who::Lab(Manner::Responsive);
const TALKING: Who = Who::Lab(Manner::Talkative {
    every: Duration::from_millis(500),
    size: 100,
});

const FORGETS_AFTER_3_S: &str = r#"path = [{ name = "lb", idle_timeout = "3s" }]"#;
const FORGETS_AFTER_60_S: &str = r#"path = [{ name = "lb", idle_timeout = "60s" }]"#;
const NGINX_CLOSES_AFTER_20_S: &str = r#"path = [{ profile = "nginx", idle_timeout = "20s" }]"#;
const LIVES_FOR_20_S: &str =
    r#"path = [{ name = "gateway", max_lifetime = "20s", on_expiry = "rst" }]"#;

/// Maximum age of a snapshot.
const STALENESS: f64 = 0.26;
/// For data that leaves within 0.2 s. If TCP has not retried late enough by then, another check
/// follows a second later.
const BLACK_HOLED: RangeInclusive<f64> = 7.0..=8.2;
/// TCP's sixth retransmission, about 6.4 s after the fifth.
const SIXTH: f64 = 6.9;
/// TCP gives up some time after the sixth retransmission; see [`scene::RETRIES`].
const GIVES_UP: RangeInclusive<f64> = 7.0..=45.0;

/// The limits are small, so that a test can wait for them. A twentieth of an announced limit is
/// still longer than [`STALENESS`].
const CASES: &[Case] = &[
    Case {
        name: "silent hop forgets; TCP gives up",
        rules: FORGETS_AFTER_3_S,
        hop: Hop::Forgets(3),
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(Wait, Suspected("expired"), 3.0..=3.0 + STALENESS),
            step(ServerSpeaks, Confirmed("expired"), 1.0..=1.0),
            step(Wait, Resolved("timeout"), GIVES_UP),
        ],
    },
    Case {
        name: "black hole while idle; heals",
        rules: FORGETS_AFTER_3_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(BlackHole, Suspected("expired"), 2.5..=3.0 + STALENESS),
            step(ServerSpeaks, Confirmed("expired"), 1.0..=1.0),
            step(Heal, Resolved("recovered"), 0.0..=2.0),
        ],
    },
    Case {
        name: "hop resets the next packet",
        rules: r#"path = [{ name = "nlb", idle_timeout = "3s", on_expiry = "rst_on_next_packet" }]"#,
        hop: Hop::Rejects(3),
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(Wait, Suspected("expired"), 3.0..=3.0 + STALENESS),
            step(ServerSpeaks, Resolved("rst_received"), 0.0..=0.0),
        ],
    },
    Case {
        name: "nginx closes",
        rules: NGINX_CLOSES_AFTER_20_S,
        hop: Hop::Nginx(20),
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(Wait, Suspected("expiring"), 19.0..=19.0 + STALENESS),
            step(Wait, Resolved("fin"), 20.0..=20.0),
        ],
    },
    Case {
        name: "haproxy resets",
        rules: r#"path = [{ profile = "haproxy", idle_timeout = "20s" }]"#,
        hop: Hop::Haproxy(20),
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(Wait, Suspected("expiring"), 19.0..=19.0 + STALENESS),
            step(Wait, Resolved("rst_received"), 20.0..=20.0),
        ],
    },
    Case {
        name: "used again before nginx closes",
        rules: NGINX_CLOSES_AFTER_20_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/quiet",
        steps: &[
            step(Wait, Suspected("expiring"), 19.0..=19.0 + STALENESS),
            step(ClientSpeaks, Resolved("recovered"), 0.0..=1.0),
        ],
    },
    Case {
        name: "lifetime ends",
        rules: LIVES_FOR_20_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/heartbeat?every=500ms",
        steps: &[
            step(Wait, Suspected("expiring"), 19.0..=19.0),
            step(Reject, Resolved("rst_received"), 0.0..=0.5),
        ],
    },
    Case {
        name: "lifetime is not what was said",
        rules: LIVES_FOR_20_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/heartbeat?every=500ms",
        steps: &[
            step(Wait, Suspected("expiring"), 19.0..=19.0),
            step(Wait, Resolved("recovered"), 21.0..=22.0),
        ],
    },
    Case {
        name: "client's host drops what comes in; heals",
        rules: FORGETS_AFTER_60_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/stream?every=200ms&size=1000",
        steps: &[
            step(DeafenClient, Confirmed("black_holed"), BLACK_HOLED),
            step(LetClientHear, Resolved("recovered"), 0.0..=SIXTH),
        ],
    },
    Case {
        name: "client's link down; TCP gives up",
        rules: FORGETS_AFTER_60_S,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/stream?every=200ms&size=1000",
        steps: &[
            step(UnplugClient, Confirmed("black_holed"), BLACK_HOLED),
            step(Wait, Resolved("timeout"), GIVES_UP),
        ],
    },
    Case {
        name: "client stopped; continues",
        rules: "",
        hop: Hop::Router,
        client: Who::Node,
        script: "/heartbeat?every=2s",
        steps: &[
            step(StopClient, Suspected("unresponsive"), 3.0..=5.0),
            step(ContinueClient, Resolved("recovered"), 0.0..=1.5),
        ],
    },
    Case {
        name: "client stopped; slow heartbeat",
        rules: r#"
            ping_timeout = "2s"
            unresponsive_floor = "1s"
            path = [{ name = "lb", idle_timeout = "10s" }]
        "#,
        hop: Hop::Router,
        client: Who::Node,
        script: "/heartbeat?every=6s",
        steps: &[
            step(StopClient, Suspected("unresponsive"), 7.8..=8.0),
            step(Wait, Confirmed("unresponsive"), 12.8..=13.0),
            step(ContinueClient, Resolved("recovered"), 0.0..=1.0),
        ],
    },
    Case {
        name: "client dead behind nginx",
        rules: r#"
            unresponsive_floor = "1s"
            path = [{ profile = "nginx", idle_timeout = "60s" }]
        "#,
        hop: Hop::Nginx(60),
        client: Who::Node,
        script: "/heartbeat?every=2s",
        steps: &[
            step(KillClientUnseen, Confirmed("unresponsive"), 3.0..=5.0),
            step(Wait, Resolved("fin"), GIVES_UP),
        ],
    },
    Case {
        name: "client dead behind haproxy",
        rules: r#"
            unresponsive_floor = "1s"
            path = [{ profile = "haproxy", idle_timeout = "60s" }]
        "#,
        hop: Hop::Haproxy(60),
        client: Who::Node,
        script: "/heartbeat?every=2s",
        steps: &[
            step(KillClientUnseen, Confirmed("unresponsive"), 3.0..=5.0),
            step(Wait, Resolved("rst_received"), GIVES_UP),
        ],
    },
    Case {
        name: "pongs but no message; speaks",
        rules: r#"message_gap = "3s""#,
        hop: Hop::Router,
        client: QUIETLY,
        script: "/heartbeat?every=1s",
        steps: &[
            step(Wait, Suspected("quiet"), 3.0..=3.0 + STALENESS),
            step(ClientSpeaks, Resolved("recovered"), 0.0..=1.0),
        ],
    },
    Case {
        name: "server does not read; reads on",
        rules: "",
        hop: Hop::Router,
        client: TALKING,
        script: "/deaf",
        steps: &[
            // Checks come every 10 s: the first one notices it, the first one 30 s later confirms
            // it.
            step(Wait, Confirmed("stalled"), 30.0..=30.0 + 10.0 + 10.0),
            step(ServerReadsOn, Resolved("recovered"), 0.0..=10.0),
        ],
    },
    Case {
        name: "server ignores a FIN; closes",
        rules: "",
        hop: Hop::Router,
        client: QUIETLY,
        script: "/deaf",
        steps: &[
            step(ClientHangsUp, Confirmed("half_closed"), 60.0..=60.0),
            step(ServerReadsOn, Resolved("fin"), 0.0..=0.0),
        ],
    },
];

const fn step(action: Action, reported: Reported, after: RangeInclusive<f64>) -> Step {
    Step {
        action,
        reported,
        after,
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn each_verdict_comes_in_time_behind_each_kind_of_hop_and_ends_like_its_connection() {
    let mut cases: Vec<_> = CASES.iter().collect();
    rerun_after_stalls(|| {
        let outcomes = play(&cases);
        let mut failures = Vec::new();
        // A case that held once needs no second run.
        cases = cases
            .iter()
            .zip(outcomes)
            .filter_map(|(case, outcome)| {
                failures.push(outcome.err()?);
                Some(*case)
            })
            .collect();
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    });
}

/// Plays the cases at the same time, and prints when each report came.
fn play(cases: &[&'static Case]) -> Vec<Result<Row, String>> {
    // First all networks and daemons: their start would take time from the clocks of the cases.
    let scenes: Vec<Scene> = thread::scope(|scope| {
        let starting: Vec<_> = cases
            .iter()
            .map(|case| scope.spawn(|| Scene::set(case)))
            .collect();
        starting.into_iter().map(ended).collect()
    });
    let began = Instant::now();
    let outcomes: Vec<Result<Row, String>> = thread::scope(|scope| {
        let playing: Vec<_> = scenes
            .into_iter()
            .map(|scene| scope.spawn(move || scene.play(began)))
            .collect();
        playing.into_iter().map(ended).collect()
    });
    let took = began.elapsed().as_secs_f64();
    println!("case | cause at | verdict after | resolution after");
    println!("---|---|---|---");
    for row in outcomes.iter().flatten() {
        println!("{row}");
    }
    println!("all of them in {took:.0} s");
    outcomes
}

fn ended<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}
