//! Replays recordings of real servers over TLS, and compares the verdicts with the truth in the JSON files.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use monitor::replay::{ReplayRecord, unpacked};
use monitor_core::{Certainty, Status, Subject, VerdictKind};
use serde::Deserialize;

use crate::{Played, replay, server};

/// The part of the truth that this needs. Times in microseconds since 1970.
#[derive(Deserialize)]
struct Truth {
    server: String,
    cipher: String,
    ping_every_ms: Option<u64>,
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    /// Its address.
    client: String,
    traffic: String,
    /// When its process was stopped.
    stopped_at: Option<u64>,
}

/// What a replay says about a client.
#[derive(Debug)]
struct ReplayedClient {
    heartbeat: String,
    /// Microseconds since 1970.
    called_unresponsive_at: Vec<u64>,
}

/// Pings that may stay unanswered before a dead client is found.
const PINGS: u64 = 3;

#[test]
fn stopped_clients_are_found_and_living_ones_are_not_accused() {
    for (path, truth) in recordings() {
        let name = path.display();
        let replayed = replayed_clients(&path);
        for connection in &truth.connections {
            let replayed = &replayed[&connection.client];
            let context = format!("{name}: {}: {replayed:?}", connection.client);
            let at = &replayed.called_unresponsive_at;
            let expected = match (truth.ping_every_ms, &*truth.cipher, &*truth.server) {
                // An answer to a poll repeats its text: a heartbeat of the application.
                (None, _, _) if connection.traffic == "polls" => "learned",
                (None, _, _) => "none",
                (_, "tls12-cbc", _) => "refused",
                // It pings only in silence, and ends a connection itself before a second ping.
                (_, _, "aiohttp") => {
                    assert_eq!(at.len(), 0, "{context}");
                    continue;
                }
                _ => "learned",
            };
            assert_eq!(replayed.heartbeat, expected, "{context}");
            let Some(stopped_at) = connection.stopped_at.filter(|_| expected == "learned") else {
                assert_eq!(at.len(), 0, "{context}");
                continue;
            };
            let [at] = at[..] else {
                panic!("{context}");
            };
            let limit = truth.ping_every_ms.expect("learned") * 1_000 * PINGS;
            assert!(
                (1..=limit).contains(&at.saturating_sub(stopped_at)),
                "{context}, stopped at {stopped_at}"
            );
        }
    }
}

/// Every recording with its truth.
fn recordings() -> Vec<(PathBuf, Truth)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/recordings/tls");
    let entries = fs::read_dir(&folder).expect("the recordings over TLS");
    let truths = entries.map(|entry| entry.expect("an entry").path());
    let truths = truths.filter(|path| path.extension().is_some_and(|it| it == "json"));
    let all: Vec<_> = truths
        .map(|path| {
            let text = fs::read(&path).expect("the truth");
            let truth = serde_json::from_slice(&text).expect("the truth as in README.md");
            (path.with_extension("pcap.gz"), truth)
        })
        .collect();
    assert!(!all.is_empty());
    all
}

/// Each client's address, and what a replay says about it.
fn replayed_clients(path: &Path) -> BTreeMap<String, ReplayedClient> {
    let file = fs::read(path).expect("a recording");
    let mut bytes = Vec::new();
    let mut unpacked = unpacked(&file[..]).expect("a packed file");
    unpacked.read_to_end(&mut bytes).expect("the packed file");
    let played = replay(&bytes, &[server(8443, None)]).expect("a recording");
    assert!(played.end.is_none(), "{:?}", played.end);
    let called = called_unresponsive(&played);
    let connections = played.connections().into_iter();
    connections
        .map(|connection| {
            let peer = connection
                .peer
                .map_or_else(String::new, |peer| peer.to_string());
            let called_unresponsive_at = called.iter().filter(|(it, _)| *it == peer);
            let replayed = ReplayedClient {
                heartbeat: connection
                    .tls
                    .as_ref()
                    .map_or("no TLS", |tls| tls.heartbeat.as_str())
                    .to_owned(),
                called_unresponsive_at: called_unresponsive_at.map(|(_, at)| *at).collect(),
            };
            (peer, replayed)
        })
        .collect()
}

/// Peers and moments of all verdicts, which must be `unresponsive/inferred`.
fn called_unresponsive(played: &Played) -> Vec<(String, u64)> {
    let alerts = played.records.iter().filter_map(|record| match record {
        ReplayRecord::Alert(alert) if alert.status == Status::Firing => Some(alert),
        _ => None,
    });
    alerts
        .map(|alert| {
            let Subject::Connection(verdict) = &alert.subject else {
                panic!("{alert:?}");
            };
            assert_eq!(
                (verdict.kind, verdict.certainty),
                (VerdictKind::Unresponsive, Certainty::Inferred)
            );
            (verdict.facts.peer.to_string(), alert.at.0 / 1_000)
        })
        .collect()
}
