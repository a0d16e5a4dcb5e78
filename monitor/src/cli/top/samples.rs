//! What a daemon could answer, for tests: every verdict, and healthy connections.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::polled::{ConnectionPage, Detail, Polled};
use crate::records::{
    alert_text::AlertLine,
    clients::{ClientFigures, ClientRecord},
    connections::{
        ConnectionRecord, State, VerdictRecord,
        tests::{detail, record},
    },
    owner::OwnerRecord,
    rates::{DirectionRates, TrafficRates},
    status::{ListenerStatus, StatusRecord, ZombieCounts},
};

pub(super) fn polled() -> Polled {
    Polled {
        status: status(),
        connections: ConnectionPage {
            offset: 0,
            records: connections(),
            is_full: true,
            total: 1_204,
        },
        alerts: alerts(),
        clients: clients(),
        detail: None,
    }
}

/// The same with the first connection in full.
pub(super) fn polled_detail() -> Polled {
    let record = connections().remove(0);
    Polled {
        detail: Some(Detail {
            cookie: record.cookie,
            record: Ok(Box::new(record)),
        }),
        ..polled()
    }
}

fn ts() -> Timestamp {
    "2026-11-22T18:37:52.5Z".parse().expect("a time stamp")
}

pub(super) fn connections() -> Vec<ConnectionRecord> {
    let verdicts = [
        ("black_holed", "confirmed", 3.4),
        ("unresponsive", "confirmed", 4.1),
        ("expired", "suspected", 72.3),
        ("half_closed", "suspected", 312.0),
        ("stalled", "suspected", 0.2),
        ("backlogged", "confirmed", 0.1),
        ("expiring", "suspected", 58.2),
        ("quiet", "suspected", 35.0),
    ];
    let mut records: Vec<_> = (0_u16..)
        .zip(verdicts)
        .map(|(place, (kind, certainty, idle))| {
            let mut record = connection(place, idle);
            record.verdict = Some(VerdictRecord {
                kind: kind.to_owned(),
                certainty: certainty.to_owned(),
                ts: ts(),
                began_at: ts(),
                limit_seconds: 60.0,
                reason: format!("evidence of a connection that is {kind}"),
            });
            record
        })
        .collect();
    records[0].tcp.retransmits = 7;
    records[0].tcp.send_queue_bytes = Some(48_213);
    records[1].rx.last_ping_seconds = Some(31.2);
    records[5].tcp.send_queue_bytes = Some(3_912_704);
    let at_risk = connection(8, 51.0);
    let mut busy = connection(9, 0.05);
    busy.rates = Some(TrafficRates {
        rx: DirectionRates {
            frames_per_second: 12.0,
            payload_bytes_per_second: 1_234.0,
        },
        tx: DirectionRates {
            frames_per_second: 140.0,
            payload_bytes_per_second: 98_304.0,
        },
    });
    let mut encrypted = connection(10, 12.0);
    encrypted.peer = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:53797"
        .parse()
        .expect("an address");
    encrypted.protocol = "opaque".to_owned();
    encrypted.idle_limit_seconds = None;
    encrypted.rx.ping_interval_seconds = None;
    encrypted.rx.ping_rtt_seconds = None;
    let mut closing = connection(11, 1.5);
    closing.state = State::Closing;
    records.extend([at_risk, busy, encrypted, closing]);
    records
}

/// A connection that was silent for `idle` seconds.
fn connection(place: u16, idle: f64) -> ConnectionRecord {
    let mut record = record(&detail(315_653 + u64::from(place)), None);
    record.peer = SocketAddr::from(([10, 0, 4, 17], 53_787 + place));
    record.idle_seconds = Some(idle);
    record.hop_idle_seconds = Some(idle);
    record.rx.ping_interval_seconds = Some(25.0);
    record.rx.last_ping_seconds = Some(idle);
    record.listener = "chat".to_owned();
    record.rx.ping_rtt_seconds = Some(0.000_25 * f64::from(1 + place * place));
    record.rates = Some(TrafficRates::default());
    record.tcp.send_queue_bytes = Some(0);
    record.owner = OwnerRecord {
        pod_namespace: Some("shop".to_owned()),
        pod_name: Some(format!("chat-6d4cf56db6-x7k2{place}")),
        pid: Some(812),
        comm: Some("node".to_owned()),
        ..OwnerRecord::default()
    };
    record
}

fn status() -> StatusRecord {
    let chat = ListenerStatus {
        listener: "chat".to_owned(),
        ports: "8080,9000-9010".to_owned(),
        remote: false,
        listening_sockets: Some(4),
        open: 1_180,
        closing: 1,
        zombies: ZombieCounts {
            confirmed: 3,
            suspected: 3,
        },
        at_risk: 14,
        opened_total: 90_210,
        closed_total: 89_029,
        idle_limit_seconds: Some(60.0),
        hop: Some("aws-alb".to_owned()),
        idle_gap_p99_seconds: Some(25.3),
        heartbeat_margin_seconds: Some(34.7),
        learned_lower_seconds: Some(57.2),
        learned_upper_seconds: Some(60.4),
        storm: None,
    };
    let upstream = ListenerStatus {
        listener: "443".to_owned(),
        ports: "443".to_owned(),
        remote: true,
        listening_sockets: None,
        open: 23,
        closing: 0,
        zombies: ZombieCounts::default(),
        at_risk: 0,
        opened_total: 30,
        closed_total: 7,
        idle_limit_seconds: None,
        hop: None,
        idle_gap_p99_seconds: Some(12.0),
        heartbeat_margin_seconds: None,
        learned_lower_seconds: None,
        learned_upper_seconds: None,
        storm: Some("storm".to_owned()),
    };
    StatusRecord {
        ts: ts(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.0".to_owned(),
        pid: 812,
        uptime_seconds: 11_100.0,
        healthy: false,
        problems: vec![
            "3 confirmed zombies on chat: see wsmon alerts".to_owned(),
            "a reconnect storm on 443: see wsmon alerts".to_owned(),
        ],
        open: 1_203,
        closing: 1,
        zombies: chat.zombies,
        at_risk: 14,
        losses: Vec::new(),
        listeners: vec![chat, upstream],
    }
}

fn alerts() -> Vec<AlertLine> {
    let storm = r#"{
        "ts": "2026-11-22T18:36:02Z", "status": "firing", "alert": "reconnect_storm",
        "kind": "reconnect_storm", "certainty": null, "listener": "443", "conn": null,
        "phase": "storm", "reason": "1000 attempts per second, usually 0.1; in lockstep, every 5 s"
    }"#;
    let verdict = r#"{
        "ts": "2026-11-22T18:37:50Z", "status": "firing", "alert": "zombie", "kind": "unresponsive",
        "certainty": "confirmed", "listener": "chat",
        "conn": {
            "cookie": "315654", "peer": "10.0.4.17:53788", "pod_namespace": "shop",
            "pod_name": "chat-6d4cf56db6-x7k21", "pid": 812, "comm": "node"
        },
        "reason": "2 pings unanswered, the first 10.2 s ago, while TCP acknowledges"
    }"#;
    [storm, verdict]
        .map(|line| AlertLine::parse(line.as_bytes()).expect("an alert"))
        .to_vec()
}

fn clients() -> Vec<ClientRecord> {
    let client = |last: u8, attempts| ClientRecord {
        ts: ts(),
        listener: "chat".to_owned(),
        figures: ClientFigures {
            client: [10, 0, 4, last].into(),
            attempts,
            at_most_over: 0,
            attempts_per_minute: 60.0,
            accepted: 1,
            refused: attempts - 1,
            short_lived: 1,
            interval_seconds: Some(1.0),
            open: 0,
            shared: false,
        },
        last_attempt_seconds: 0.4,
    };
    vec![client(17, 120), client(18, 60)]
}
