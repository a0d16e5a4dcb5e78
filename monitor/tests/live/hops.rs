//! Each verdict from its cause to its end, behind each kind of hop, and when it comes.
//!
//! A case is one connection, what happens to it step by step, and all that wsmon may say of it. The
//! cases are played at the same time, each in a network of its own under a daemon of its own.

use std::{
    fs,
    net::SocketAddr,
    ops::RangeInclusive,
    panic, thread,
    time::{Duration, Instant},
};

use lab::{Alert, Client, Manner, Message, Process, Proxy, wait_for, wait_until};
use rustix::process::Signal;

use crate::{
    peers::Peer,
    stage::{SOON, Stage, Watch},
};

struct Case {
    name: &'static str,
    /// Of its listener, in the configuration file.
    rules: &'static str,
    hop: Hop,
    client: Who,
    /// What the server does: a path that it knows.
    script: &'static str,
    steps: &'static [Step],
}

/// What the packets pass.
#[derive(Clone, Copy)]
enum Hop {
    Router,
    /// After so many seconds packets vanish.
    Forgets(u64),
    /// After so many seconds packets are answered with a RST.
    Rejects(u64),
    /// With this `proxy_read_timeout`.
    Nginx(u64),
    /// With this `timeout tunnel`.
    Haproxy(u64),
}

#[derive(Clone, Copy)]
enum Who {
    /// In this process, on an address of its own.
    Lab(Manner),
    /// A process of its own, on node's `ws`.
    Node,
}

/// Something happens, and then wsmon says something.
struct Step {
    deed: Deed,
    told: Told,
    /// Seconds after the deed: what the documentation promises, without [`SLACK`].
    after: RangeInclusive<f64>,
}

#[derive(Clone, Copy)]
enum Deed {
    /// Nothing: the clock of the last deed goes on. At first that is the client's connecting.
    Wait,
    BlackHole,
    Heal,
    DeafenClient,
    LetClientHear,
    UnplugClient,
    StopClient,
    ContinueClient,
    /// The client's process is killed, and nothing tells it to the other end.
    KillClientUnseen,
    ClientHangsUp,
    ClientSpeaks,
    ServerSpeaks,
    ServerReadsOn,
    /// The hop resets the connection.
    Reject,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Suspected(&'static str),
    Confirmed(&'static str),
    Resolved(&'static str),
}

use {Deed::*, Told::*};

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

/// How late an alert may come through a machine that does other things too.
const SLACK: f64 = 1.0;
/// How far a snapshot may lag behind its socket.
const STALENESS: f64 = 0.26;
/// After what leaves within 0.2 s, and a look a second later if TCP has not tried late enough by then.
const BLACK_HOLED: RangeInclusive<f64> = 7.0..=8.2;
/// TCP's sixth retransmission, which comes some 6.4 s after the fifth.
const SIXTH: f64 = 6.9;
/// `tcp_retries2` of the servers and the proxies: TCP gives up some time behind the sixth retransmission.
const RETRIES: &str = "6";
const GIVES_UP: RangeInclusive<f64> = 7.0..=45.0;

/// The limits are small, so that a test can wait for them; but of one that is announced a twentieth is
/// longer than [`STALENESS`] and more.
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
            step(StopClient, Confirmed("unresponsive"), 3.0..=5.0),
            step(ContinueClient, Resolved("recovered"), 0.0..=1.5),
        ],
    },
    Case {
        name: "client stopped; slow heartbeat",
        rules: r#"
            ping_timeout = "2s"
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
        rules: r#"path = [{ profile = "nginx", idle_timeout = "60s" }]"#,
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
        rules: r#"path = [{ profile = "haproxy", idle_timeout = "60s" }]"#,
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
            // A look comes every 10 s: the first that finds something, and the first 30 s later.
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

const fn step(deed: Deed, told: Told, after: RangeInclusive<f64>) -> Step {
    Step { deed, told, after }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn each_verdict_comes_in_time_behind_each_kind_of_hop_and_ends_as_its_connection_does() {
    // First all networks and daemons: their start takes what the clocks of the cases need.
    let scenes: Vec<Scene> = thread::scope(|scope| {
        let starting: Vec<_> = CASES
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
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn ended<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// A case before its client comes.
struct Scene {
    case: &'static Case,
    watch: Watch,
    proxy: Option<Proxy>,
    stage: Stage,
}

impl Scene {
    fn set(case: &'static Case) -> Self {
        const PROXY_PORT: u16 = 8000;
        let stage = Stage::new();
        let lab = &stage.lab;
        for namespace in [lab.server_ns(), lab.lb_ns()] {
            namespace
                .run(|| fs::write("/proc/sys/net/ipv4/tcp_retries2", RETRIES))
                .unwrap()
                .unwrap();
        }
        let at = lab.lb_addr(PROXY_PORT);
        let (lb, to) = (lab.lb_ns(), stage.server.addr());
        let limit = Duration::from_secs;
        let proxy = match case.hop {
            Hop::Router => None,
            Hop::Forgets(seconds) => {
                lab.silent_idle_timeout(limit(seconds)).unwrap();
                None
            }
            Hop::Rejects(seconds) => {
                lab.rejecting_idle_timeout(limit(seconds)).unwrap();
                None
            }
            Hop::Nginx(seconds) => Some(Proxy::nginx(lb, at, to, limit(seconds)).unwrap()),
            Hop::Haproxy(seconds) => Some(Proxy::haproxy(lb, at, to, limit(seconds)).unwrap()),
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wsmon.toml");
        // There are many daemons at the same time, and each sets aside the memory for its connections.
        let config = format!(
            "daemon.max_connections = 1000\n[[listener]]\nports = [\"{}\"]\n{}\n",
            stage.port(),
            case.rules
        );
        fs::write(&file, config).unwrap();
        let watch = Watch::start(&["--config", file.to_str().unwrap()]);
        Self {
            case,
            watch,
            proxy,
            stage,
        }
    }

    /// Everything that is wrong is in the error.
    fn play(mut self, began: Instant) -> Result<Row, String> {
        let mut clock = Instant::now();
        let mut actors = self.connect();
        let mut row = Row {
            case: self.case.name,
            cause_at: 0.0,
            told: Vec::new(),
        };
        for (place, step) in self.case.steps.iter().enumerate() {
            if !matches!(step.deed, Wait) {
                clock = Instant::now();
                actors.act(step.deed, &self.stage);
            }
            if place == 0 {
                row.cause_at = clock.duration_since(began).as_secs_f64();
            }
            let alert = self.next_alert(place, step)?;
            let after = alert.at.duration_since(clock).as_secs_f64();
            row.told.push((step.told, after));
            let (from, to) = (*step.after.start(), *step.after.end() + SLACK);
            if !(from..=to).contains(&after) {
                return Err(self.complaint(&format!("{after:.2} s is not in {from} ..= {to} s")));
            }
            if !step.told.is(&alert) || alert.peer() != Some(actors.peer) {
                return Err(self.complaint(&format!("{:?} was expected", step.told)));
            }
            let view = self.stage.server.connection(actors.peer).unwrap();
            if alert.is_firing_zombie() && !view.open {
                return Err(self.complaint("the application knew it already"));
            }
        }
        if self.watch.alerts().len() > self.case.steps.len() {
            return Err(self.complaint("that is more than was expected"));
        }
        Ok(row)
    }

    fn connect(&self) -> Actors {
        let Stage { server, lab, .. } = &self.stage;
        let script = self.case.script;
        let url = match &self.proxy {
            Some(proxy) => proxy.url(script),
            None => server.url(script),
        };
        let client = match self.case.client {
            Who::Lab(manner) => {
                let from = lab.client_addr(0);
                Subject::Lab(Client::connect(lab.client_ns(), from, &url, manner).unwrap())
            }
            Who::Node => Subject::Node(Peer::listener(lab.client_ns(), &url)),
        };
        let peer = wait_for("the connection", SOON, || server.peers().first().copied()).unwrap();
        // What is cut off, stopped or killed has lived before.
        let pinged = script.starts_with("/heartbeat");
        let alive = || !pinged || server.counts().pongs_received() > 0;
        wait_until("the first pong", SOON, alive).unwrap();
        Actors { client, peer }
    }

    /// The alert of this step: all before it were of the steps before.
    fn next_alert(&mut self, place: usize, step: &Step) -> Result<Alert, String> {
        let limit = Duration::from_secs_f64(step.after.end() + SLACK) + SOON;
        let next = wait_for("an alert", limit, || {
            self.watch.alerts().get(place).cloned()
        });
        next.map_err(|error| self.complaint(&format!("{:?}: {error}", step.told)))
    }

    fn complaint(&mut self, what: &str) -> String {
        let said: Vec<String> = self
            .watch
            .alerts()
            .iter()
            .map(|alert| alert.json.to_string())
            .collect();
        let (name, said, log) = (self.case.name, said.join("\n"), self.watch.daemon.log());
        format!("{name}: {what}; alerts:\n{said}\nlog:\n{log}")
    }
}

/// Who can do something.
struct Actors {
    client: Subject,
    /// As the server and the daemon see the client, or the proxy before it.
    peer: SocketAddr,
}

enum Subject {
    Lab(Client),
    Node(Peer),
}

impl Actors {
    fn act(&mut self, deed: Deed, stage: &Stage) {
        let Stage { server, lab, .. } = stage;
        let address = lab.client_addr(0);
        match deed {
            Wait => {}
            BlackHole => lab.black_hole(address).unwrap(),
            Heal => lab.heal(address).unwrap(),
            Reject => lab.reject(address).unwrap(),
            DeafenClient => lab.deafen_clients().unwrap(),
            LetClientHear => lab.let_clients_hear().unwrap(),
            UnplugClient => lab.unplug_clients().unwrap(),
            StopClient => self.process().signal(Signal::STOP).unwrap(),
            ContinueClient => self.process().signal(Signal::CONT).unwrap(),
            KillClientUnseen => {
                lab.unplug_clients().unwrap();
                self.process().kill().unwrap();
            }
            ClientHangsUp => self.client().hang_up().unwrap(),
            ClientSpeaks => self.client().send(Message::text("still here")).unwrap(),
            ServerSpeaks => server.send(self.peer, Message::text("hello?")).unwrap(),
            ServerReadsOn => server.read_on(self.peer).unwrap(),
        }
    }

    fn client(&self) -> &Client {
        match &self.client {
            Subject::Lab(client) => client,
            Subject::Node(_) => panic!("no client of the lab"),
        }
    }

    fn process(&mut self) -> &mut Process {
        match &mut self.client {
            Subject::Node(peer) => &mut peer.process,
            Subject::Lab(_) => panic!("no process of its own"),
        }
    }
}

impl Told {
    fn is(self, alert: &Alert) -> bool {
        let firing = |kind: &str, certainty| {
            let warning = ["expiring", "quiet"].contains(&kind);
            // What makes it so hard to see: TCP looks perfect.
            let perfect = alert.number("/evidence/retransmits") == Some(0.0);
            alert.text("/status") == "firing"
                && alert.text("/alert") == if warning { kind } else { "zombie" }
                && alert.text("/kind") == kind
                && alert.text("/certainty") == certainty
                && (perfect || kind != "unresponsive")
        };
        match self {
            Suspected(kind) => firing(kind, "suspected"),
            Confirmed(kind) => firing(kind, "confirmed"),
            Resolved(how) => {
                alert.text("/status") == "resolved" && alert.text("/resolution") == how
            }
        }
    }
}

/// What a case has shown.
struct Row {
    case: &'static str,
    /// Seconds after the beginning.
    cause_at: f64,
    /// Seconds after the deed of the step.
    told: Vec<(Told, f64)>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [mut verdict, mut resolution] = [Vec::new(), Vec::new()];
        for (told, after) in &self.told {
            match told {
                Suspected(kind) => verdict.push(format!("{kind} suspected {after:.2} s")),
                Confirmed(kind) => verdict.push(format!("{kind} confirmed {after:.2} s")),
                Resolved(how) => resolution.push(format!("{how} {after:.2} s")),
            }
        }
        let (verdict, resolution) = (verdict.join(", "), resolution.join(", "));
        let (case, cause_at) = (self.case, self.cause_at);
        write!(f, "{case} | {cause_at:.2} s | {verdict} | {resolution}")
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn neither_a_lossy_path_nor_an_outage_of_five_seconds_makes_a_zombie() {
    const CLIENTS: usize = 250;
    /// Of the packets each way, so that more than one try in three fails, and six in a row several times
    /// in a minute.
    const LOST: u32 = 5;
    const LOSSY: Duration = Duration::from_secs(30);
    const OUTAGE: Duration = Duration::from_secs(5);
    /// What was lost at last has been sent again, so that no outage is longer than it seems.
    const CALM: Duration = Duration::from_secs(3);
    /// TCP has found its way again after the fifth retransmission.
    const BACK: Duration = Duration::from_secs(5);
    let stage = Stage::new();
    let lab = &stage.lab;
    let mut watch = stage.watch(&["--lb-timeout", "20s"]);
    let heartbeat = "/heartbeat?every=1s";
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| stage.client(0, heartbeat, Manner::Responsive))
        .collect();
    lab.lose_one_in(LOST).unwrap();
    pass(LOSSY);
    lab.lose_nothing().unwrap();
    pass(CALM);
    lab.black_hole(lab.client_addr(0)).unwrap();
    pass(OUTAGE);
    lab.heal(lab.client_addr(0)).unwrap();
    pass(BACK);
    lab.lose_one_in(LOST).unwrap();
    pass(LOSSY);
    let loss = watch.metric("wsmon_tcp_loss_ratio", &[]);

    let (dropped, counts) = (lab.dropped_packets().unwrap(), stage.server.counts());
    let (pings, pongs) = (counts.pings_sent(), counts.pongs_received());
    let retransmits = watch.metric("wsmon_tcp_retransmits_total", &[]);
    println!(
        "{dropped:?}; {pings} pings, {pongs} pongs, {retransmits} retransmissions, {loss:.2} lost"
    );
    for alert in watch.alerts() {
        println!("{}", alert.json);
    }
    let confirmed: Vec<String> = watch
        .alerts()
        .iter()
        .filter(|alert| alert.text("/certainty") == "confirmed")
        .map(|alert| alert.json.to_string())
        .collect();
    assert!(confirmed.is_empty(), "{}", confirmed.join("\n"));
    assert!(loss > 0.15, "{loss}");
    // A fifth of a ping, an answer and an acknowledgement a second from each client.
    assert!(dropped.lost > 5_000, "{dropped:?}");
    assert!(dropped.black_holed > 20, "{dropped:?}");
    assert!(clients.iter().all(|client| client.view().open));
}

fn pass(time: Duration) {
    let began = Instant::now();
    wait_until("the time to pass", time + SOON, || began.elapsed() >= time).unwrap();
}
