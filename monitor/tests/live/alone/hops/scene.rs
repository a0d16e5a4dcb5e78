//! The stage of a case: its network, its daemon, the peers, and the alerts received.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lab::{Alert, Client, Message, Process, Proxy, wait_for, wait_until};
use rustix::process::Signal;

use super::{Action, Action::*, Case, Hop, Reported, Reported::*, Step, Who};
use crate::{
    peers::Peer,
    stage::{SOON, Stage, Watch},
};

/// A case before its client connects.
pub(super) struct Scene {
    case: &'static Case,
    watch: Watch,
    proxy: Option<Proxy>,
    stage: Stage,
}

impl Scene {
    pub(super) fn set(case: &'static Case) -> Self {
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
        // Many daemons run at the same time, and each reserves the memory for its connections.
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

    /// The error contains everything that is wrong.
    pub(super) fn play(mut self, began: Instant) -> Result<Row, String> {
        let mut clock = Instant::now();
        let mut actors = self.connect();
        let mut row = Row {
            case: self.case.name,
            cause_at: 0.0,
            reported: Vec::new(),
        };
        for (place, step) in self.case.steps.iter().enumerate() {
            if !matches!(step.action, Wait) {
                clock = Instant::now();
                actors.act(step.action, &self.stage);
            }
            if place == 0 {
                row.cause_at = clock.duration_since(began).as_secs_f64();
            }
            let alert = self.next_alert(place, step)?;
            let after = alert.at.duration_since(clock).as_secs_f64();
            row.reported.push((step.reported, after));
            let (from, to) = (*step.after.start(), *step.after.end() + SLACK);
            if !(from..=to).contains(&after) {
                return Err(self.complaint(&format!("{after:.2} s is outside {from} ..= {to} s")));
            }
            if !step.reported.is(&alert) || alert.peer() != Some(actors.peer) {
                return Err(self.complaint(&format!("{:?} was expected", step.reported)));
            }
            let view = self.stage.server.connection(actors.peer).unwrap();
            if alert.is_firing_zombie() && !view.open {
                return Err(self.complaint("the application already knew"));
            }
        }
        if self.watch.alerts().len() > self.case.steps.len() {
            return Err(self.complaint("more alerts than expected"));
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
        // A connection to be cut, stopped or killed must have been alive first.
        let pinged = script.starts_with("/heartbeat");
        let alive = || !pinged || server.counts().pongs_received() > 0;
        wait_until("the first pong", SOON, alive).unwrap();
        Actors { client, peer }
    }

    /// The alert of this step: all previous ones belong to previous steps.
    fn next_alert(&mut self, place: usize, step: &Step) -> Result<Alert, String> {
        let limit = Duration::from_secs_f64(step.after.end() + SLACK) + SOON;
        let next = wait_for("an alert", limit, || {
            self.watch.alerts().get(place).cloned()
        });
        next.map_err(|error| self.complaint(&format!("{:?}: {error}", step.reported)))
    }

    fn complaint(&mut self, what: &str) -> String {
        let said: Vec<String> = self
            .watch
            .alerts()
            .iter()
            .map(|alert| alert.json.to_string())
            .collect();
        let (name, said, log) = (self.case.name, said.join("\n"), self.watch.daemon.log());
        let closed = self.watch.metric("wsmon_connections_closed_total", &[]);
        let lost = self.watch.metric("wsmon_events_lost_total", &[]);
        let mut ss = self.stage.lab.server_ns().command("ss");
        let sockets = ss.arg("-tinoea").output().unwrap().stdout;
        let sockets = String::from_utf8_lossy(&sockets);
        format!(
            "{name}: {what}; alerts:\n{said}\nlog:\n{log}\n\
             {closed} closed, {lost} events lost; the server's sockets:\n{sockets}"
        )
    }
}

/// The peers that can act.
struct Actors {
    client: Subject,
    /// The client's address as seen by the server and the daemon; with a proxy, the proxy's.
    peer: SocketAddr,
}

enum Subject {
    Lab(Client),
    Node(Peer),
}

impl Actors {
    fn act(&mut self, action: Action, stage: &Stage) {
        let Stage { server, lab, .. } = stage;
        let address = lab.client_addr(0);
        match action {
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

impl Reported {
    fn is(self, alert: &Alert) -> bool {
        let firing = |kind: &str, certainty| {
            let warning = ["expiring", "quiet"].contains(&kind);
            // This case is hard to detect because TCP looks perfect.
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

/// Result of a case.
pub(super) struct Row {
    case: &'static str,
    /// Seconds since the start.
    cause_at: f64,
    /// Seconds since the action of the step.
    reported: Vec<(Reported, f64)>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [mut verdict, mut resolution] = [Vec::new(), Vec::new()];
        for (reported, after) in &self.reported {
            match reported {
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

/// Tolerance for alerts that are delayed by other load on the machine.
pub(super) const SLACK: f64 = 2.0;
/// `tcp_retries2` of the servers and the proxies.
pub(super) const RETRIES: &str = "6";
