//! A thousand connections for a minute: every dead one is reported, no live one is, and every
//! counter agrees with the server's own counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use lab::{
    Client, Counts, Direction, Manner, Message, Opcode, Server, rerun_after_stalls, wait_until,
};

use serde_json::Value;

use crate::{
    stage::{SOON, Stage, Watch, fresh_port},
    viewer,
};

const LIMIT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
/// By then the traffic is steady, and the verdicts still fit into the minute.
const BLACK_HOLED_AFTER: Duration = Duration::from_secs(25);
const OPCODES: [(Opcode, &str); 5] = [
    (Opcode::Text, "text"),
    (Opcode::Binary, "binary"),
    (Opcode::Close, "close"),
    (Opcode::Ping, "ping"),
    (Opcode::Pong, "pong"),
];

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_thousand_connections_get_five_hundred_correct_verdicts_and_matching_counters() {
    rerun_after_stalls(watch_a_minute);
}

fn watch_a_minute() {
    let stage = Stage::new();
    stage.lab.silent_idle_timeout(LIMIT).unwrap();
    // A separate port: only its server counts frames that never left this host.
    let doomed_addr = stage.lab.server_addr(fresh_port());
    let doomed_server = Server::start(stage.lab.server_ns(), doomed_addr).unwrap();
    let doomed_port = doomed_addr.port().to_string();
    // Suspected and confirmed at once, so that one line covers each.
    let at_once = ["--unresponsive-floor", "1s"];
    let flags = ["--port", &doomed_port, "--lb-timeout", "10s"];
    let mut watch = stage.watch(&[&flags[..], &at_once].concat());
    let crowd = Crowd::gather(&stage, &doomed_server);
    let gathered_at = Instant::now();

    wait_until("the minute to begin", MINUTE, || {
        gathered_at.elapsed() >= BLACK_HOLED_AFTER
    })
    .unwrap();
    let dropped_at = Instant::now();
    for index in Crowd::DOOMED_ADDRESSES {
        let address = stage.lab.client_addr(index);
        stage.lab.black_hole(address).unwrap();
    }
    wait_until("the minute to end", MINUTE, || {
        gathered_at.elapsed() >= MINUTE
    })
    .unwrap();

    assert_verdicts(&mut watch, &crowd, dropped_at);
    let ours = [("listener", stage.port())];
    let doomed = [("listener", doomed_port.as_str())];
    let gauges = |watch: &Watch, labels: [(&str, &str); 1]| {
        ["expired", "black_holed", "unresponsive"].map(|kind| {
            let labels = [labels[0], ("kind", kind)];
            watch.metric("wsmon_zombie_connections", &labels)
        })
    };
    assert_eq!(gauges(&watch, ours), [167.0, 0.0, 166.0]);
    assert_eq!(gauges(&watch, doomed), [0.0, 167.0, 0.0]);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1000.0);
    assert_eq!(watch.metric("wsmon_connections_opened_total", &ours), 833.0);
    assert_eq!(
        watch.metric("wsmon_connections_opened_total", &doomed),
        167.0
    );
    assert_eq!(stage.server.counts().opened, 833);
    assert_eq!(doomed_server.counts().opened, 167);
    assert_counted_at_most_what_was_accepted(&watch, &doomed_port, &crowd, &doomed_server);

    let idle = crowd.disperse();
    wait_until("the server to see them leave", SOON, || {
        stage.server.counts().closed == 666
    })
    .unwrap();
    watch.wait_for_metric("wsmon_connections_closed_total", &ours, 666.0);
    let closed = |how| watch.metric("wsmon_connections_closed_total", &[ours[0], ("how", how)]);
    assert_eq!(closed("close_frame"), 375.0);
    // A client that leaves without a close frame sends a RST if a ping was still unread: all deaf
    // ones, and others whose heartbeat had just arrived.
    assert_eq!(closed("fin") + closed("rst_received"), 125.0 + 166.0);
    assert!(closed("rst_received") >= 166.0);
    assert_eq!(watch.metric("wsmon_abnormal_closures_total", &ours), 291.0);
    assert_eq!(gauges(&watch, ours), [167.0, 0.0, 0.0]);
    assert_same_counts(&watch, stage.port(), &stage.server.counts());

    for name in [
        "wsmon_events_lost_total",
        "wsmon_untracked_connections_total",
        "wsmon_unsynced_bytes_total",
        "wsmon_zombies_recovered_total",
        "wsmon_degraded",
    ] {
        assert_eq!(watch.metric(name, &[]), 0.0, "{name}");
    }
    assert!(idle.iter().all(|client| client.view().open));
}

/// All clients, by their fate.
struct Crowd {
    /// Healthy; leave with a close frame: talkers, pingers and listeners to a stream.
    polite: Vec<Client>,
    /// Healthy; answer the server's heartbeat and leave without a close frame.
    curt: Vec<Client>,
    idle: Vec<Client>,
    deaf: Vec<Client>,
    black_holed: Vec<Client>,
}

impl Crowd {
    const HEALTHY_ADDRESSES: Range<u8> = 0..16;
    const IDLE_ADDRESSES: Range<u8> = 16..20;
    const DEAF_ADDRESSES: Range<u8> = 20..24;
    const DOOMED_ADDRESSES: Range<u8> = 24..32;

    fn gather(stage: &Stage, doomed_server: &Server) -> Self {
        let connect = |count, addresses: Range<u8>, server: &Server, path, manner| {
            let connect_from = |index| {
                let from = stage.lab.client_addr(index);
                Client::connect(stage.lab.client_ns(), from, &server.url(path), manner).unwrap()
            };
            addresses.cycle().take(count).map(connect_from).collect()
        };
        let here = |count, addresses, path, manner| -> Vec<Client> {
            connect(count, addresses, &stage.server, path, manner)
        };
        let every = Duration::from_secs(2);
        let healthy = |path, manner| here(125, Self::HEALTHY_ADDRESSES, path, manner);
        let polite = [
            healthy("/echo", Manner::Talkative { every, size: 200 }),
            healthy("/quiet", Manner::Pinging { every }),
            healthy("/stream?every=1s&size=3000", Manner::Responsive),
        ];
        Self {
            polite: polite.into_iter().flatten().collect(),
            curt: healthy("/heartbeat?every=2s", Manner::Responsive),
            idle: here(167, Self::IDLE_ADDRESSES, "/quiet", Manner::Responsive),
            deaf: here(
                166,
                Self::DEAF_ADDRESSES,
                "/heartbeat?every=3s",
                Manner::Deaf,
            ),
            black_holed: connect(
                167,
                Self::DOOMED_ADDRESSES,
                doomed_server,
                "/stream?every=500ms&size=64",
                Manner::Responsive,
            ),
        }
    }

    /// The expected verdicts.
    fn dead(&self) -> BTreeSet<(SocketAddr, String)> {
        let of_kind = |clients: &[Client], kind: &str| -> Vec<_> {
            let accused = |client: &Client| (client.local_addr(), kind.to_owned());
            clients.iter().map(accused).collect()
        };
        [
            of_kind(&self.idle, "expired"),
            of_kind(&self.deaf, "unresponsive"),
            of_kind(&self.black_holed, "black_holed"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// All clients leave whose departure can be noticed; the idle ones stay.
    fn disperse(self) -> Vec<Client> {
        for client in &self.polite {
            client.send(Message::Close(None)).unwrap();
        }
        drop((self.curt, self.deaf));
        wait_until("the close handshakes", SOON, || {
            self.polite.iter().all(|client| !client.view().open)
        })
        .unwrap();
        self.idle
    }
}

/// Each verdict is reported once and in time, singly or in a group, and `wsmon list` shows every
/// dead connection.
fn assert_verdicts(watch: &mut Watch, crowd: &Crowd, dropped_at: Instant) {
    let mut reported: BTreeMap<String, f64> = BTreeMap::new();
    let dead = crowd.dead();
    let accuse = |kind: &str, line: &Value| {
        let evidence = |name: &str| line["evidence"][name].as_f64();
        let in_time = match kind {
            "expired" => (10.0..=11.0).contains(&evidence("idle_seconds").unwrap()),
            "black_holed" => evidence("last_ack_seconds").unwrap() <= 10.0,
            _ => evidence("pings_unanswered") == Some(2.0),
        };
        assert!(in_time, "{line}");
        let peer: SocketAddr = line["conn"]["peer"].as_str().unwrap().parse().unwrap();
        let accused = (peer, kind.to_owned());
        assert!(dead.contains(&accused), "false alarm: {line}");
    };
    for alert in watch.alerts() {
        assert!(alert.is_firing_zombie(), "{}", alert.json);
        let kind = alert.text("/kind");
        *reported.entry(kind.to_owned()).or_default() += alert.count();
        match alert.json["examples"].as_array() {
            Some(examples) => examples.iter().for_each(|line| accuse(kind, line)),
            None => {
                accuse(kind, &alert.json);
                let latest = dropped_at + Duration::from_secs(10);
                assert!(
                    kind != "black_holed" || alert.at <= latest,
                    "{}",
                    alert.json
                );
            }
        }
    }
    let expected = [
        ("black_holed", 167.0),
        ("expired", 167.0),
        ("unresponsive", 166.0),
    ];
    assert_eq!(
        reported,
        expected.map(|(kind, n)| (kind.to_owned(), n)).into()
    );
    let groups = watch.alerts().iter().filter(|alert| alert.count() > 1.0);
    assert!(groups.count() >= 3, "each kind was grouped");

    assert_eq!(dead.len(), 500);
    let listed = listed_verdicts(watch);
    let false_ones: Vec<_> = listed.difference(&dead).collect();
    let missed: Vec<_> = dead.difference(&listed).collect();
    assert!(false_ones.is_empty(), "false alarms: {false_ones:?}");
    assert!(missed.is_empty(), "missed: {missed:?}");
}

/// The connections with a standing verdict in `wsmon list`, with its kind.
fn listed_verdicts(watch: &Watch) -> BTreeSet<(SocketAddr, String)> {
    let text = viewer::reported(
        watch.daemon.control(),
        &["list", "--json", "--limit", "1000"],
    );
    text.lines()
        .filter_map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            let kind = record["verdict"]["kind"].as_str()?.to_owned();
            Some((record["peer"].as_str()?.parse().ok()?, kind))
        })
        .collect()
}

/// The daemon's count of each opcode and direction equals the server's.
fn assert_same_counts(watch: &Watch, listener: &str, counts: &Counts) {
    let metrics = watch.metrics();
    for (direction, way) in [(Direction::Rx, "rx"), (Direction::Tx, "tx")] {
        for (opcode, name) in OPCODES {
            let labels = [("listener", listener), ("direction", way), ("opcode", name)];
            assert_eq!(
                metrics.sum("wsmon_frames_total", &labels),
                counts.frames.get(direction, opcode) as f64,
                "{way} {name}"
            );
        }
        let labels = [("listener", listener), ("direction", way)];
        assert_eq!(
            metrics.sum("wsmon_pings_total", &labels),
            counts.frames.get(direction, Opcode::Ping) as f64,
            "{way} pings"
        );
    }
    // Each kind of traffic really occurred.
    assert!(counts.pings_sent() > 125 * 25 && counts.pongs_received() > 125 * 25);
}

/// Frames that the kernel accepted for a black-holed client may still wait, but frames that the
/// client received were on the wire.
fn assert_counted_at_most_what_was_accepted(
    watch: &Watch,
    listener: &str,
    crowd: &Crowd,
    server: &Server,
) {
    let received: u64 = crowd
        .black_holed
        .iter()
        .map(|client| client.view().frames.get(Direction::Rx, Opcode::Binary))
        .sum();
    let labels = [
        ("listener", listener),
        ("direction", "tx"),
        ("opcode", "binary"),
    ];
    let counted = watch.metric("wsmon_frames_total", &labels);
    let accepted = server.counts().frames.get(Direction::Tx, Opcode::Binary);
    assert!(
        received as f64 <= counted && counted <= accepted as f64,
        "{received} received, {counted} counted, {accepted} accepted"
    );
}
