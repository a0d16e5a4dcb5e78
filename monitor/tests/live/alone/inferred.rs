//! Clients behind TLS that stop, and are found by the sizes and times of records alone.

use std::{
    collections::HashMap,
    fs::File,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use lab::{
    Certificate, Lab, TlsCipher, Traffic, WssClients, WssServer, WssStack, fresh_port,
    rerun_after_stalls, wait_until,
};

use crate::stage::Watch;

/// Between two pings of a server.
const EVERY: Duration = Duration::from_secs(2);

/// Pings that may stay unanswered before a dead client is found.
const PINGS: u32 = 3;

/// Connections with each traffic to each server: as many live as are stopped. Of more deaths at once, some share
/// an alert.
const EACH: usize = 2;

/// Far longer than the pings take.
const SOON: Duration = Duration::from_secs(90);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn stopped_clients_of_every_server_are_found_and_living_ones_are_not_accused() {
    // Of all runs: no stall excuses it.
    let mut wrong = Vec::new();
    rerun_after_stalls(|| {
        let scene = Scene::begin(WssStack::ALL.map(|stack| (stack, Some(EVERY))));
        let Found {
            stopped,
            dead,
            accused,
        } = scene.stop_half();
        wrong.extend(accused.keys().filter(|it| !dead.contains_key(it)).copied());
        let limit = stopped + EVERY * PINGS;
        let late: Vec<_> = dead
            .iter()
            .filter(|(peer, _)| accused.get(peer).is_none_or(|at| *at > limit))
            .map(|(_, client)| client)
            .collect();
        let all = dead.len();
        println!("of {all}, not found in time: {late:?}");
        assert!(late.len() * 20 <= all, "of {all}, without {late:?}");
    });
    assert!(wrong.is_empty(), "accused although they live: {wrong:?}");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn without_pings_nobody_is_accused() {
    let found = Scene::begin(WssStack::ALL.map(|stack| (stack, None))).stop_half();
    assert!(found.accused.is_empty(), "{:?}", found.accused);
}

/// Servers with clients of every traffic, and a daemon that was there before.
struct Scene {
    watch: Watch,
    lives: Vec<WssClients>,
    dies: Vec<WssClients>,
    /// Listeners whose clients shall be found, as in labels.
    pinged: Vec<String>,
    /// What the server of each is made of.
    stacks: [WssStack; 8],
    /// Addresses of clients that shall be found once they are stopped.
    findable: HashMap<SocketAddr, (WssStack, Traffic)>,
    _servers: Vec<WssServer>,
    _keys: tempfile::NamedTempFile,
    _lab: Lab,
}

/// What came of stopping some clients.
struct Found {
    stopped: Instant,
    /// That should be found.
    dead: HashMap<SocketAddr, (WssStack, Traffic)>,
    /// By their peer: when they were reported.
    accused: HashMap<SocketAddr, Instant>,
}

impl Scene {
    fn begin(servers: [(WssStack, Option<Duration>); 8]) -> Self {
        let lab = Lab::new().unwrap();
        let servers = servers.map(|(stack, every)| (stack, every, lab.server_addr(fresh_port())));
        let flags: Vec<_> = servers
            .iter()
            .flat_map(|(.., addr)| ["--port".to_owned(), addr.port().to_string()])
            .collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let watch = Watch::start(&flags);
        let certificate = Certificate::of(lab.server_addr(0).ip()).unwrap();
        let keys = tempfile::NamedTempFile::new().unwrap();
        let traffic = Traffic::ALL.repeat(EACH);
        let connect = |addr| {
            File::options().append(true).open(keys.path()).unwrap();
            let from = lab.client_addr(0);
            WssClients::connect(
                lab.client_ns(),
                from,
                addr,
                &certificate,
                TlsCipher::Tls13,
                &traffic,
                keys.path(),
            )
            .unwrap()
        };
        let start = |(stack, every, addr): &(WssStack, Option<Duration>, SocketAddr)| {
            let server =
                WssServer::start(lab.server_ns(), *stack, *addr, &certificate, *every).unwrap();
            (server, connect(*addr), connect(*addr))
        };
        let started: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = servers
                .iter()
                .map(|server| scope.spawn(move || start(server)))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut scene = Self {
            watch,
            lives: Vec::new(),
            dies: Vec::new(),
            pinged: Vec::new(),
            stacks: servers.map(|(stack, ..)| stack),
            findable: HashMap::new(),
            _servers: Vec::new(),
            _keys: keys,
            _lab: lab,
        };
        for ((stack, every, addr), (server, lives, dies)) in servers.iter().zip(started) {
            // aiohttp pings only in silence, and ends a silent connection itself before a second ping.
            if every.is_some() && *stack != WssStack::Aiohttp {
                let clients = dies.connections();
                let clients = clients.iter().map(|it| (it.local, (*stack, it.traffic)));
                scene.findable.extend(clients);
                scene.pinged.push(addr.port().to_string());
            }
            scene._servers.push(server);
            scene.lives.push(lives);
            scene.dies.push(dies);
        }
        scene
    }

    /// Stops half of the clients once the heartbeats are learned, and watches until the others have received as
    /// many pings as it may take to find them.
    fn stop_half(mut self) -> Found {
        self.wait_for_heartbeats();
        for clients in &mut self.dies {
            clients.stop().unwrap();
        }
        let stopped = Instant::now();
        self.wait_for_pings(PINGS + 1);
        let mut accused = HashMap::new();
        for alert in self.watch.alerts() {
            let what = ["/status", "/kind", "/certainty"].map(|field| alert.text(field));
            if what[0] == "firing" {
                assert_eq!(what[1..], ["unresponsive", "inferred"], "{}", alert.json);
                let peer = alert.peer().expect("a connection");
                accused.entry(peer).or_insert(alert.at);
            }
        }
        Found {
            stopped,
            dead: self.findable,
            accused,
        }
    }

    /// Waits until the heartbeat of each connection is learned.
    fn wait_for_heartbeats(&self) {
        if self.pinged.is_empty() {
            // Only polls look like pings: their answers repeat the text.
            let polls = (2 * EACH * self.stacks.len()) as f64;
            let learned = [("state", "learned")];
            wait_until("the polls to be learned", SOON, || {
                self.watch.metric("wsmon_heartbeats_inferred", &learned) >= polls
            })
            .unwrap();
            let all = polls * Traffic::ALL.len() as f64;
            self.watch
                .wait_for_metric("wsmon_heartbeats_inferred", &[], all);
            return;
        }
        let each = (2 * EACH * Traffic::ALL.len()) as f64;
        let mut learned = Vec::new();
        let waited = wait_until("all heartbeats to be learned", SOON, || {
            let metrics = self.watch.metrics();
            let of = |listener: &String| {
                let labels = [("listener", listener.as_str()), ("state", "learned")];
                metrics.sum("wsmon_heartbeats_inferred", &labels)
            };
            learned = self.pinged.iter().map(of).collect();
            learned.iter().all(|learned| *learned == each)
        });
        waited.unwrap_or_else(|error| panic!("{error}: of {each} each, {learned:?}"));
    }

    /// Waits until each living client has received that many pings from now on. Without pings, for as long.
    fn wait_for_pings(&self, count: u32) {
        if self.pinged.is_empty() {
            // Nothing happens, and that for long enough is the subject here.
            thread::sleep(EVERY * count);
            return;
        }
        let pings = || -> HashMap<SocketAddr, usize> {
            let clients = self.lives.iter().flat_map(WssClients::connections);
            clients.map(|client| (client.local, client.pings)).collect()
        };
        let before = pings();
        // aiohttp sends none on a busy connection.
        let pinged: Vec<_> = self.lives.iter().zip(&self.stacks).collect();
        wait_until(&format!("{count} pings"), SOON, || {
            pinged.iter().all(|(clients, stack)| {
                **stack == WssStack::Aiohttp
                    || clients
                        .connections()
                        .iter()
                        .all(|it| it.pings >= before[&it.local] + count as usize)
            })
        })
        .unwrap();
    }
}
