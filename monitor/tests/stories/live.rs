//! Runs a third of the rows with real sockets and real paths, in parallel, all watched by one real
//! daemon.
//!
//! Each row has its own listener with the row's rules, and its own addresses, so that its paths break
//! separately. Nothing of a row is written twice: the steps that produce packets in [`crate::world`]
//! make system calls here, and the expected reports and times are the same, within the precision of a
//! real machine.
//!
//! Not every row can run live. The lab's path breaks, heals and resets; it has no rate, round trip or
//! loss for a single connection. Keepalive probes are sent by the kernel, at its own times. A
//! connection cannot be older than the daemon shared by all rows, and a path breaks for an address, not
//! for one of its ports.

mod config;
mod end;

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use lab::{Alert, Daemon, Lab, defer_accept, fresh_port, rerun_after_stalls, wait_until};
use monitor::records::transitions::TransitionRecord;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    time::sleep_until,
};

use crate::{
    all,
    check::{Report, compare},
    story::{Opening, Step, Story},
};
use end::Part;

/// The tick of the kernel programs' clock. Otherwise nothing is early, because no step is.
const TICK: f64 = 0.02;
/// Except that TCP's timers may be shorter than in virtual time, and the seconds of a storm begin
/// differently.
const EARLY: f64 = 1.0;
/// Delay on a busy machine.
const LATE: f64 = 2.5;
/// Anything due within this time of a row's last step or report is still reported.
const SETTLES: f64 = 12.0;
/// Maximum duration of a row, seconds.
const LONGEST: f64 = 90.0;
/// The smallest buffer, so that a window closes soon.
const SMALL_BUFFER: u32 = 4096;

/// A row with its place among the others.
struct Row {
    story: Story,
    speed: f64,
    /// The second byte of its clients' addresses.
    network: u8,
    server: SocketAddr,
    /// The time of its end, seconds after the beginning.
    ends: f64,
}

impl Row {
    fn new(lab: &Lab, story: Story, network: u8) -> Self {
        let speed = story.live.expect("a row to be enacted");
        let steps = story.connections.iter().flat_map(|c| &c.steps);
        let reports = story.reports.iter().map(|(_, when)| when.end);
        let last = steps.map(|(at, _)| *at).chain(reports).fold(0.0, f64::max);
        Self {
            ends: (last / speed + SETTLES)
                .min(story.until / speed)
                .min(LONGEST),
            server: lab.server_addr(fresh_port()),
            story,
            speed,
            network,
        }
    }

    /// The address here of a client of the story.
    fn address(&self, client: &str) -> SocketAddr {
        let parse = |client: &str| client.parse::<SocketAddr>().expect("an address");
        let mut ips = Vec::new();
        for connection in &self.story.connections {
            let ip = parse(&connection.client).ip();
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        let client = parse(client);
        let index = ips.iter().position(|ip| *ip == client.ip());
        let [high, low] = (index.expect("a client of the story") as u16 + 1).to_be_bytes();
        let ip = Ipv4Addr::new(10, self.network, high, low);
        SocketAddr::from((ip, client.port()))
    }

    /// The client's part and the server's part of each connection.
    fn parts(&self, began: Instant) -> Vec<(SocketAddr, Part, Part)> {
        let of_one = |connection| {
            let ((by_host, of_host), (by_peer, of_peer)) = (watch::channel(0), watch::channel(0));
            let host = Part::new(self, connection, true, began, (by_host, of_peer));
            let peer = Part::new(self, connection, false, began, (by_peer, of_host));
            let (client, server) = match self.story.is_outgoing {
                true => (host, peer),
                false => (peer, host),
            };
            (self.address(&connection.client), client, server)
        };
        self.story.connections.iter().map(of_one).collect()
    }

    /// The steps of the paths, in order.
    fn path_steps(&self) -> Vec<(f64, SocketAddr, Step)> {
        let mut steps: Vec<_> = self
            .story
            .connections
            .iter()
            .flat_map(|c| c.steps.iter().map(|(at, step)| (*at, &c.client, *step)))
            .filter(|(.., step)| {
                matches!(step, Step::PathBreaks | Step::PathHeals | Step::PathResets)
            })
            .map(|(at, client, step)| (at / self.speed, self.address(client), step))
            .collect();
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps
    }

    fn listen(&self, lab: &Lab) -> TcpListener {
        let (server, is_small) = (self.server, self.stops_reading());
        let socket = lab.server_ns().block_on(async move {
            let socket = TcpSocket::new_v4()?;
            if is_small {
                socket.set_recv_buffer_size(SMALL_BUFFER)?;
            }
            socket.bind(server)?;
            socket.listen(1024)
        });
        let listener = socket.unwrap().unwrap();
        let mut openings = self.story.connections.iter().map(|c| &c.opening);
        if openings.any(|opening| matches!(opening, Opening::Deferred)) {
            defer_accept(&listener).unwrap();
        }
        listener
    }

    fn stops_reading(&self) -> bool {
        let mut steps = self.story.connections.iter().flat_map(|c| &c.steps);
        steps.any(|(_, step)| matches!(step, Step::HostStopsReading | Step::PeerStopsReading))
    }

    /// All mismatches between the reports and the row.
    fn check(&self, reported: &[Report], shown: &[String]) -> Vec<String> {
        let expected: Vec<_> = self
            .story
            .reports
            .iter()
            .map(|(what, when)| {
                let end = when.end / self.speed;
                assert!(end < self.ends, "{} ends before {what}", self.story.name);
                let early = match what.split(' ').next() {
                    Some("black_holed" | "reconnect_storm") => EARLY,
                    _ => TICK,
                };
                (*what, when.start / self.speed - early..end + LATE)
            })
            .collect();
        let mut wrong = compare(&expected, reported);
        // The durations in the row are in virtual time.
        let without_time = |reason: &str| reason.split(" after ").next().map(str::to_owned);
        for reason in &self.story.shows {
            let is_it = |shown: &String| without_time(shown) == without_time(reason);
            if !shown.iter().any(is_it) {
                wrong.push(format!("no state shows {reason:?}, only {shown:?}"));
            }
        }
        wrong
            .into_iter()
            .map(|wrong| format!("{} ({}): {wrong}", self.story.name, self.story.source))
            .collect()
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_third_of_the_stories_holds_with_real_sockets() {
    let mut stories = all();
    stories.retain(|story| story.live.is_some());
    // A row that held once needs no second run.
    rerun_after_stalls(|| {
        let wrong = enact_all(&stories);
        stories.retain(|story| wrong.contains_key(story.name));
        let wrong: Vec<_> = wrong.into_values().flatten().collect();
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    });
}

/// Runs these rows, and returns the mismatches by the row's name.
fn enact_all(stories: &[Story]) -> BTreeMap<&'static str, Vec<String>> {
    let lab = Lab::new().unwrap();
    lab.add_client_network("10.128.0.0/9").unwrap();
    let rows: Vec<_> = stories
        .iter()
        .zip(128..)
        .map(|(story, network)| Row::new(&lab, story.clone(), network))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config::of(&rows)).unwrap();
    let listeners: Vec<_> = rows.iter().map(|row| row.listen(&lab)).collect();
    let flags = ["--config", file.path().to_str().unwrap()];
    let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_wsmon")), flags).unwrap();
    let shown = follow_states(daemon.control());

    let began = Instant::now() + Duration::from_millis(500);
    let end = rows.iter().map(|row| row.ends).fold(0.0, f64::max);
    let end = began + Duration::from_secs_f64(end);
    thread::scope(|scope| {
        for (row, listener) in rows.iter().zip(listeners) {
            enact(&lab, row, listener, began);
            let steps = row.path_steps();
            if !steps.is_empty() {
                scope.spawn(|| change_paths(&lab, steps, began));
            }
        }
        wait_for_moment("the last row's end", end);
    });

    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.sum("wsmon_events_lost_total", &[]), 0.0);
    let mut reported = HashMap::<String, Vec<Report>>::new();
    for alert in daemon.alerts().try_iter() {
        // A row's sockets close at its end.
        let listener = alert.text("/listener").to_owned();
        let at = alert.at.duration_since(began).as_secs_f64();
        reported
            .entry(listener)
            .or_default()
            .push(report(at, &alert));
    }
    let shown = shown.lock().unwrap();
    let wrong = rows.iter().map(|row| {
        let name = config::name(row);
        let mut reported = reported.remove(&name).unwrap_or_default();
        reported.retain(|one| one.at <= row.ends);
        let wrong = row.check(&reported, shown.get(&name).map_or(&[], |shown| shown));
        let retransmits = metrics.sum("wsmon_tcp_retransmits_total", &[("listener", &name)]);
        let with_retransmits = |wrong| format!("{wrong}; {retransmits} retransmissions");
        (
            row.story.name,
            wrong.into_iter().map(with_retransmits).collect::<Vec<_>>(),
        )
    });
    wrong.filter(|(_, wrong)| !wrong.is_empty()).collect()
}

fn wait_for_moment(what: &str, moment: Instant) {
    let deadline = Duration::from_secs_f64(LONGEST + 1.0);
    wait_until(what, deadline, || Instant::now() >= moment).unwrap();
}

/// Runs both ends of each of a row's connections, on their namespaces' threads.
fn enact(lab: &Lab, row: &Row, listener: TcpListener, began: Instant) {
    let is_small = row.stops_reading();
    let mut servers = HashMap::new();
    for ((from, client, part), connection) in
        row.parts(began).into_iter().zip(&row.story.connections)
    {
        servers.insert(from, part);
        let server = row.server;
        let begins = began + Duration::from_secs_f64(connection.begins / row.speed);
        let task = async move {
            sleep_until(begins.into()).await;
            let socket = TcpSocket::new_v4()?;
            if is_small {
                socket.set_recv_buffer_size(SMALL_BUFFER)?;
            }
            socket.bind(from)?;
            client.opens(socket.connect(server).await?).await
        };
        lab.client_ns().spawn(task).unwrap();
    }
    let ends = began + Duration::from_secs_f64(row.ends);
    let serve = async move {
        let accept = async {
            while let Ok((stream, peer)) = listener.accept().await {
                if let Some(part) = servers.remove(&peer) {
                    tokio::spawn(part.accepts(stream));
                }
            }
        };
        // It listens to the end, because a listening socket that closes means that the server restarts.
        tokio::time::timeout_at((ends + Duration::from_secs(1)).into(), accept).await
    };
    lab.server_ns().spawn(serve).unwrap();
}

fn change_paths(lab: &Lab, steps: Vec<(f64, SocketAddr, Step)>, began: Instant) {
    for (at, client, step) in steps {
        let due = began + Duration::from_secs_f64(at);
        wait_for_moment("a path's turn", due);
        let changed = match step {
            Step::PathBreaks => lab.black_hole(client.ip()),
            Step::PathHeals => lab.heal(client.ip()),
            _ => lab.reject(client.ip()),
        };
        changed.unwrap();
    }
}

/// An alert in the form of the rows.
fn report(at: f64, alert: &Alert) -> Report {
    let (kind, is_over) = (alert.text("/kind"), alert.text("/status") == "resolved");
    let over = if is_over { " over" } else { "" };
    let what = match alert.text("/alert") {
        "at_risk" | "limit_mismatch" | "thrash" => format!("{kind}{over}"),
        "reconnect_storm" => {
            let pattern = alert.text("/pattern");
            let pattern = if pattern == "unknown" { "" } else { pattern };
            format!("{kind} {} {pattern}", alert.text("/phase"))
                .trim_end()
                .to_owned()
        }
        _ => {
            let how = if is_over { "/resolution" } else { "/certainty" };
            let many = match alert.number("/count") {
                Some(count) => format!(" x{count}"),
                None => String::new(),
            };
            format!("{kind} {}{many}", alert.text(how))
        }
    };
    Report::new(at, what)
}

/// Collects the reasons of the connections' states by listener, as they arrive.
fn follow_states(control: &Path) -> Arc<Mutex<HashMap<String, Vec<String>>>> {
    let mut stream = UnixStream::connect(control).unwrap();
    stream
        .write_all(b"GET /v1/events HTTP/1.0\r\n\r\n")
        .unwrap();
    let shown = Arc::<Mutex<HashMap<String, Vec<String>>>>::default();
    let (reading, shared) = (mpsc::channel(), Arc::clone(&shown));
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // The response's head has arrived, so every change from now on is followed.
            let _ = reading.0.send(());
            // Every line but those of the response's head.
            if let Ok(change) = serde_json::from_str::<TransitionRecord>(&line) {
                let mut shown = shared.lock().unwrap();
                shown
                    .entry(change.listener)
                    .or_default()
                    .push(change.reason);
            }
        }
    });
    reading.1.recv().unwrap();
    shown
}
