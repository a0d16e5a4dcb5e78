//! The committed truth holds: tshark decrypts each recording and must agree with it, with what the
//! clients say, and with the lengths of records that the protocols give.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use super::*;
use oracle::Heartbeat;

/// The length of the record of a ping and of its pong. An empty ping has 2 bytes, a pong 4 more
/// for its mask; Python's websockets puts 4 bytes into both. TLS 1.3 adds 17, TLS 1.2 24 with GCM and
/// 16 with ChaCha20; CBC rounds up to blocks of 16. JSSE pads what it sends with 16.
const RECORDS: [(&str, (u16, u16)); 11] = [
    ("websockets-tls13", (23, 27)),
    ("websockets-tls12-gcm", (30, 34)),
    ("websockets-tls12-chacha20", (22, 26)),
    ("websockets-tls12-cbc", (64, 64)),
    ("aiohttp-tls13", (19, 23)),
    ("ws-tls13", (19, 23)),
    ("gorilla-tls13", (19, 23)),
    ("rustls-tls13", (19, 23)),
    ("nginx-tls12-gcm", (30, 34)),
    ("haproxy-tls13", (23, 27)),
    ("jsse-tls13", (35, 23)),
];

struct Recording {
    scene: &'static Scene,
    truth: Truth,
    /// As long as the truth's connections.
    decrypted: Vec<Vec<Heartbeat>>,
}

/// Decrypted once for all tests, on all processors.
static RECORDINGS: LazyLock<Vec<Recording>> = LazyLock::new(|| {
    let read = |scene: &'static Scene| {
        let base = folder().join(scene.name());
        let truth = Truth::read(&base.with_extension("json")).unwrap();
        let recording = base.with_extension("pcap.gz");
        let packets = Decrypted::read(&recording, &base.with_extension("keys")).unwrap();
        let heartbeats = |connection: &Connection| packets.heartbeats(connection.client);
        Recording {
            scene,
            decrypted: truth.connections.iter().map(heartbeats).collect(),
            truth,
        }
    };
    let share = SCENES
        .len()
        .div_ceil(thread::available_parallelism().unwrap().get());
    thread::scope(|scope| {
        let workers: Vec<_> = SCENES
            .chunks(share)
            .map(|scenes| scope.spawn(move || scenes.iter().map(read).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    })
});

fn folder() -> std::path::PathBuf {
    lab::workspace().join("testdata/recordings/tls")
}

impl Recording {
    /// Each connection with its decrypted pings, and a name for messages.
    fn connections(&self) -> impl Iterator<Item = (&Connection, &[Heartbeat], String)> {
        let connections = self.truth.connections.iter().zip(&self.decrypted);
        connections.map(|(connection, pings)| {
            let name = format!(
                "{} {} {}",
                self.scene.name(),
                connection.traffic,
                connection.client
            );
            (connection, pings.as_slice(), name)
        })
    }
}

#[test]
fn every_scene_has_its_files_and_no_other_file_is_there() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let mut expected = BTreeSet::from(["README.md".to_owned()]);
    for name in SCENES.iter().map(Scene::name) {
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "{name} is not in the README"
        );
        expected.extend(["json", "keys", "pcap.gz"].map(|kind| format!("{name}.{kind}")));
    }
    let found: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_truth_is_that_of_its_scene() {
    for Recording { scene, truth, .. } in &*RECORDINGS {
        let Truth { server, cipher, .. } = truth;
        assert_eq!(
            (server.as_str(), cipher.as_str()),
            (scene.stack.name(), scene.cipher.name())
        );
        let every = scene.ping_every.map(|every| every.as_millis() as u64);
        assert_eq!(truth.ping_every_ms, every);
        assert_eq!(truth.addr.port(), PORT);
        let (dead, alive): (Vec<_>, Vec<_>) = truth
            .connections
            .iter()
            .partition(|it| it.stopped_at.is_some());
        let traffic = |all: &[&Connection]| -> BTreeMap<String, usize> {
            count(all.iter().map(|it| it.traffic.as_str()))
        };
        let names = |all: &[Traffic]| count(all.iter().map(|it| it.name()));
        assert_eq!(traffic(&alive), names(&LIVING));
        assert_eq!(
            traffic(&dead),
            names(if every.is_some() { &DYING } else { &[] })
        );
    }
}

fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name.to_owned()).or_default() += 1);
    counts
}

#[test]
fn tshark_and_the_clients_count_the_same_answered_pings() {
    for recording in &*RECORDINGS {
        for (connection, pings, name) in recording.connections() {
            let decrypted: Vec<_> = pings.iter().map(|it| (it.sent, it.answered)).collect();
            assert_eq!(decrypted, connection.pings, "{name}");
            let answered = pings.iter().filter(|it| it.answered.is_some()).count();
            assert_eq!(answered, connection.pings_received, "{name}");
        }
    }
}

#[test]
fn living_clients_answer_every_ping_and_stopped_ones_no_more() {
    for recording in &*RECORDINGS {
        for (connection, pings, name) in recording.connections() {
            let unanswered = pings.iter().filter(|it| it.answered.is_none());
            let Some(stopped_at) = connection.stopped_at else {
                assert_eq!(unanswered.count(), 0, "{name}");
                continue;
            };
            assert!(
                pings.iter().all(|it| it.answered <= Some(stopped_at)),
                "{name}"
            );
            let unanswered: Vec<_> = unanswered.collect();
            assert!(
                unanswered.iter().all(|it| it.sent + 100_000 > stopped_at),
                "{name}"
            );
            // aiohttp ends a connection after one ping without a pong.
            let enough = if recording.scene.stack == lab::WssStack::Aiohttp {
                1
            } else {
                10
            };
            assert!(unanswered.len() >= enough, "{name}: {unanswered:?}");
        }
    }
}

#[test]
fn records_of_pings_and_pongs_have_the_lengths_that_the_protocols_give() {
    let recordings = RECORDINGS.iter().filter(|it| it.scene.ping_every.is_some());
    let names: Vec<_> = recordings.clone().map(|it| it.scene.name()).collect();
    assert_eq!(names, RECORDS.map(|(name, _)| name));
    for (recording, (name, expected)) in recordings.zip(RECORDS) {
        let answered = recording
            .decrypted
            .iter()
            .flatten()
            .filter(|it| it.answered.is_some());
        let (mut alone, mut shared) = (0, 0);
        for ping in answered {
            match ping.records {
                (Some(ping), Some(pong)) => {
                    assert_eq!((ping, pong), expected, "{name}");
                    alone += 1;
                }
                _ => shared += 1,
            }
        }
        assert!(alone >= 100, "{name}: {alone}");
        assert!(
            shared * 50 <= alone,
            "{name}: {shared} of {alone} share a packet"
        );
    }
}

#[test]
fn without_an_interval_no_server_pings() {
    let recordings = RECORDINGS.iter().filter(|it| it.scene.ping_every.is_none());
    for recording in recordings {
        for (_, pings, name) in recording.connections() {
            assert!(pings.is_empty(), "{name}: {pings:?}");
        }
    }
}
