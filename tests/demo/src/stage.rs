//! The network, the server, the clients and wsmon, and the order of events.

use std::{
    path::Path,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::{Alert, Client, Daemon, Direction, Interrupt, Lab, Message, Metrics, Opcode, Server};

use super::{
    report::Summary,
    screen::Screen,
    story::{LB_TIMEOUT, Outcome, Story, Verdict},
};

const PORT: u16 = 8080;
const BLACK_HOLE_AT: Duration = Duration::from_secs(3);
/// Time after the third zombie in which a false alarm about the healthy connection would show up.
const FALSE_ALARM_WAIT: Duration = Duration::from_secs(2);
const GIVE_UP_AFTER: Duration = Duration::from_secs(25);
const TICK: Duration = Duration::from_millis(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Fields are dropped in this order: observers before what they observe.
pub(super) struct Stage {
    daemon: Daemon,
    actors: Vec<Actor>,
    server: Server,
    lab: Lab,
    before: Metrics,
    start: Instant,
}

/// One client and the state of its connection.
struct Actor {
    story: Story,
    client: Client,
    fact: Option<Instant>,
    verdicts: Vec<Verdict>,
    pings_shown: usize,
}

impl Stage {
    /// Builds the network, starts wsmon and the server, and connects the clients.
    pub(super) fn set(wsmon: &Path, screen: &mut Screen) -> Result<Self> {
        let limit = LB_TIMEOUT.as_secs();
        let lab = Lab::new().context("cannot build the network")?;
        lab.silent_idle_timeout(LB_TIMEOUT)?;
        screen.note(&format!(
            "network: clients -> load balancer (forgets after {limit} s of silence) -> server :{PORT}"
        ));
        let server = Server::start(lab.server_ns(), lab.server_addr(PORT))?;
        let (port, limit) = (PORT.to_string(), format!("{limit}s"));
        let daemon = Daemon::start(wsmon, ["--port", &port, "--lb-timeout", &limit])?;
        screen.note(&format!(
            "wsmon run --port {port} --lb-timeout {limit}: ready"
        ));
        let before = daemon.metrics()?;

        let start = Instant::now();
        screen.start_clock(start);
        let mut actors = Vec::new();
        for (index, story) in (0..).zip(Story::ALL) {
            let actor = Actor::connect(&lab, &server, index, story)?;
            let line = format!(
                "connects from {}: {}",
                actor.client.local_addr(),
                story.opening()
            );
            screen.fact(actor.client.connected_at(), story, &line);
            actors.push(actor);
        }
        Ok(Self {
            daemon,
            actors,
            server,
            lab,
            before,
            start,
        })
    }

    /// Runs the stories until wsmon has found all zombies or the time is over.
    pub(super) fn play(mut self, screen: &mut Screen, interrupt: &Interrupt) -> Result<Summary> {
        let mut all_found_at = None;
        while self.start.elapsed() < GIVE_UP_AFTER {
            if interrupt.came() {
                bail!("interrupted");
            }
            match self.daemon.alerts().recv_timeout(TICK) {
                Ok(alert) => self.on_alert(&alert, screen)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "wsmon ended in the middle of the demo:\n{}",
                        self.daemon.log()
                    );
                }
            }
            self.advance(screen)?;
            if all_found_at.is_none() && self.actors.iter().all(Actor::is_found) {
                all_found_at = Some(Instant::now());
            }
            if all_found_at.is_some_and(|at| at.elapsed() >= FALSE_ALARM_WAIT) {
                break;
            }
        }
        self.conclude(screen)
    }

    /// Shows an alert about one of the four connections. Alerts about other connections on this
    /// machine are ignored.
    fn on_alert(&mut self, alert: &Alert, screen: &mut Screen) -> Result<()> {
        let peer = alert.peer();
        let Some(actor) = self
            .actors
            .iter_mut()
            .find(|actor| Some(actor.client.local_addr()) == peer)
        else {
            return Ok(());
        };
        let application = application(&self.server, actor);
        screen.alert(actor.story, alert, &application);
        if !alert.is_firing_zombie() {
            return Ok(());
        }
        actor.verdicts.push(Verdict {
            at: alert.at,
            kind: alert.text("/kind").to_owned(),
            certainty: alert.text("/certainty").to_owned(),
            application,
        });
        if actor.story == Story::Idle && actor.verdicts.len() == 1 {
            // Proves that the alert was right, and that the application cannot know.
            self.server
                .send(actor.client.local_addr(), Message::text("are you there?"))?;
            let line = "the server writes to it: accepted by its kernel, never delivered";
            screen.fact(Instant::now(), Story::Idle, line);
        }
        Ok(())
    }

    /// Triggers and shows what is due.
    fn advance(&mut self, screen: &mut Screen) -> Result<()> {
        let now = Instant::now();
        for actor in &mut self.actors {
            let story = actor.story;
            match story {
                Story::Healthy => {}
                Story::BlackHoled => {
                    if actor.fact.is_none() && self.start.elapsed() >= BLACK_HOLE_AT {
                        actor.fact = Some(now);
                        self.lab.black_hole(actor.client.local_addr().ip())?;
                        let line = "the load balancer drops all its packets from now on";
                        screen.fact(now, story, line);
                    }
                }
                Story::Idle => {
                    let forgotten_at = actor.client.connected_at() + LB_TIMEOUT;
                    if actor.fact.is_none() && now >= forgotten_at {
                        actor.fact = Some(forgotten_at);
                        let line = "6 s without a packet: the load balancer has forgotten it";
                        screen.fact(forgotten_at, story, line);
                    }
                }
                Story::Deaf => actor.tell_pings(&self.server, screen),
            }
        }
        Ok(())
    }

    fn conclude(mut self, screen: &mut Screen) -> Result<Summary> {
        let dropped = self.lab.dropped_packets()?;
        screen.note(&format!(
            "the load balancer dropped {} packets of the forgotten connection, {} of the black-holed one",
            dropped.forgotten, dropped.black_holed
        ));
        let now = self.daemon.metrics()?;
        let outcomes = self
            .actors
            .iter()
            .map(|actor| actor.outcome(&self.server))
            .collect();
        let mut summary = Summary::new(outcomes, dropped, &self.before, &now);
        let status = self.daemon.terminate(STOP_LIMIT)?;
        if !status.success() {
            let log = self.daemon.log();
            summary
                .failures
                .push(format!("wsmon ended with {status}:\n{log}"));
        }
        Ok(summary)
    }
}

impl Actor {
    fn connect(lab: &Lab, server: &Server, index: u8, story: Story) -> Result<Self> {
        let from = lab.client_addr(index);
        let url = server.url(story.path());
        let client = Client::connect(lab.client_ns(), from, &url, story.manner())
            .with_context(|| format!("the {} client cannot connect", story.name()))?;
        Ok(Self {
            story,
            client,
            fact: None,
            verdicts: Vec::new(),
            pings_shown: 0,
        })
    }

    fn is_found(&self) -> bool {
        self.story
            .expected_kind()
            .is_none_or(|kind| self.verdicts.iter().any(|it| it.is_certain_of(kind)))
    }

    fn outcome(&self, server: &Server) -> Outcome {
        Outcome {
            story: self.story,
            peer: self.client.local_addr().to_string(),
            what_happened: self.what_happened(server),
            fact: self.fact,
            verdicts: self.verdicts.clone(),
            application_at_end: application(server, self),
        }
    }

    fn what_happened(&self, server: &Server) -> String {
        let frames = server
            .connection(self.client.local_addr())
            .map(|view| view.frames)
            .unwrap_or_default();
        let pings = frames.get(Direction::Tx, Opcode::Ping);
        let pongs = frames.get(Direction::Rx, Opcode::Pong);
        match self.story {
            Story::Healthy | Story::Deaf => format!("{pongs} pongs to {pings} pings"),
            Story::Idle => format!("silent for {} s: forgotten", LB_TIMEOUT.as_secs()),
            Story::BlackHoled => "dropped in mid-stream".to_owned(),
        }
    }

    /// Shows the first two pings; the second one is the fact.
    fn tell_pings(&mut self, server: &Server, screen: &mut Screen) {
        let Some(connection) = server.connection(self.client.local_addr()) else {
            return;
        };
        let shown = self.pings_shown;
        for (at, ordinal) in connection
            .pings_sent_at
            .iter()
            .zip(["first", "second"])
            .skip(shown)
        {
            screen.fact(*at, self.story, &format!("{ordinal} ping, no pong"));
            self.pings_shown += 1;
        }
        self.fact = connection.pings_sent_at.get(1).copied();
    }
}

/// The state of the server's own socket for this client.
fn application(server: &Server, actor: &Actor) -> String {
    server
        .connection(actor.client.local_addr())
        .map_or_else(|| "unknown".to_owned(), |view| view.to_string())
}
