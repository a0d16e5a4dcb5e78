//! What idle gaps reveal about a listener: heartbeats that are too slow, and the real timeout.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use lab::{CLIENT_ADDRESSES, Client, Lab, Manner, Message, Server, rerun_after_stalls, wait_until};

use crate::stage::{SOON, Stage, Watch, fresh_port};

/// A 55 s heartbeat against a 60 s limit, ten times as fast, on twenty listeners at once.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn heartbeats_that_are_too_slow_are_reported_before_the_first_connection_dies() {
    rerun_after_stalls(|| {
        const RUNS: u8 = 20;
        let lab = Lab::new().unwrap();
        let servers: Vec<Server> = (0..RUNS)
            .map(|_| Server::start(lab.server_ns(), lab.server_addr(fresh_port())).unwrap())
            .collect();
        let ports: Vec<String> = servers
            .iter()
            .map(|server| server.addr().port().to_string())
            .collect();
        let mut flags = vec!["--lb-timeout", "6s"];
        for port in &ports {
            flags.extend(["--port", port]);
        }
        let mut watch = Watch::start(&flags);
        let begun = Instant::now();
        let clients: Vec<Client> = servers
            .iter()
            .zip(0..)
            .flat_map(|(server, run)| {
                let connect = |index: u8| {
                    let from = lab.client_addr((2 * run + index) % CLIENT_ADDRESSES);
                    let url = server.url("/heartbeat?every=5500ms");
                    Client::connect(lab.client_ns(), from, &url, Manner::Responsive).unwrap()
                };
                [connect(0), connect(1)]
            })
            .collect();
        for port in &ports {
            let alert = watch.alert(&format!("the warning of {port}"), SOON * 2, |alert| {
                alert.text("/alert") == "at_risk" && alert.text("/listener") == port
            });
            assert_eq!(alert.text("/status"), "firing");
            assert_eq!(alert.number("/evidence/limit_seconds"), Some(6.0));
            let margin = alert.number("/evidence/margin_seconds").unwrap();
            assert!((0.2..0.6).contains(&margin), "{}", alert.json);
            // Three heartbeats of two connections: the second round gives the third and the fourth.
            let after = alert.at.duration_since(begun);
            assert!(after < Duration::from_millis(5_500 * 3), "{after:?}");
        }
        assert_eq!(watch.metric("wsmon_zombies_detected_total", &[]), 0.0);
        drop(clients);
    });
}

/// A hop with an unconfigured timeout, and connections whose server sends after idle gaps of many
/// lengths.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_hidden_timeout_is_learned_within_a_tenth_from_fifty_deaths() {
    rerun_after_stalls(|| {
        let learners: Vec<_> = [2.0, 3.0, 4.0]
            .map(|hidden| thread::spawn(move || learn(hidden)))
            .into();
        for learner in learners {
            learner.join().unwrap();
        }
    });
}

fn learn(hidden: f64) {
    const CONNECTIONS: u8 = 100;
    let stage = Stage::new();
    let timeout = Duration::from_secs_f64(hidden);
    stage.lab.silent_idle_timeout(timeout).unwrap();
    let watch = stage.watch(&[]);
    let mut clients: Vec<(Client, Instant)> = (0..CONNECTIONS)
        .map(|index| {
            let client = stage.client(index % CLIENT_ADDRESSES, "/quiet", Manner::Responsive);
            // From 0.55 to 2.05 times the timeout.
            let share = 0.55 + 1.5 * f64::from(index) / f64::from(CONNECTIONS);
            let speaks_at = client.connected_at() + timeout.mul_f64(share);
            (client, speaks_at)
        })
        .collect();
    clients.sort_by_key(|(_, speaks_at)| *speaks_at);
    for (client, speaks_at) in &clients {
        wait_until("its turn", SOON, || Instant::now() >= *speaks_at).unwrap();
        let hello = Message::text("hello?");
        stage.server.send(client.local_addr(), hello).unwrap();
    }
    wait_until("fifty deaths", SOON * 2, || {
        watch.metric("wsmon_zombies_detected_total", &[]) >= 50.0
    })
    .unwrap();
    let learned = |bound| {
        let labels = [("listener", stage.port()), ("bound", bound)];
        watch.metric("wsmon_lb_idle_timeout_learned_seconds", &labels)
    };
    let (lower, upper) = (learned("lower"), learned("upper"));
    assert!(
        lower >= hidden * 0.9 && lower <= hidden && upper >= hidden && upper <= hidden * 1.1,
        "{hidden} s is said to lie between {lower} s and {upper} s"
    );
}

/// Each connection is closed when it is five seconds old, in spite of a ping every 0.3 s.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_unconfigured_lifetime_is_detected_from_the_age_at_which_connections_end() {
    rerun_after_stalls(|| {
        const CONNECTIONS: u8 = 24;
        const LIFETIME: Duration = Duration::from_secs(5);
        const APART: Duration = Duration::from_millis(150);
        let stage = Stage::new();
        let mut watch = stage.watch(&[]);
        let began = Instant::now();
        let mut clients = VecDeque::new();
        let age = |client: &Client| client.connected_at().elapsed();
        let mut opened = 0;
        while opened < CONNECTIONS || !clients.is_empty() {
            let due = opened < CONNECTIONS && began.elapsed() >= APART * u32::from(opened);
            if due {
                let path = "/heartbeat?every=300ms";
                clients.push_back(stage.client(
                    opened % CLIENT_ADDRESSES,
                    path,
                    Manner::Responsive,
                ));
                opened += 1;
            }
            if let Some(oldest) = clients.pop_front_if(|client| age(client) >= LIFETIME) {
                oldest.hang_up().unwrap();
            }
            thread::yield_now();
        }
        let closed = [("listener", stage.port()), ("how", "fin")];
        watch.wait_for_metric(
            "wsmon_connections_closed_total",
            &closed,
            f64::from(CONNECTIONS),
        );
        // A scrape passes the kernel's counts to the core.
        watch.metrics();
        let alert = watch.alert("the lifetime", SOON, |alert| {
            alert.text("/kind") == "lifetime_mismatch"
        });
        assert_eq!(alert.text("/alert"), "limit_mismatch");
        assert_eq!(alert.text("/status"), "firing");
        let age = alert.number("/evidence/age_seconds").unwrap();
        assert!((4.9..5.6).contains(&age), "{}", alert.json);
        assert!(
            alert.text("/reason").contains("no hop is configured"),
            "{}",
            alert.json
        );
    });
}
