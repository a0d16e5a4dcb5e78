//! Samples of every record: with the minimum of fields, and with all of them.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use monitor::records::{
    clients::{ClientFigures, ClientRecord},
    connection_summary::{ConnectionSummary, DirectionSummary, VerdictSummary},
    connections::{
        CloseFrame, ConnectionRecord, DirectionRecord, HandshakeSummary, State, StateChange,
        TcpRecord, VerdictRecord,
    },
    frames::FrameRecord,
    groups::{GroupBy, GroupFigures, GroupRecord},
    listening_socket::{ListeningSocketRecord, PublicationRecord},
    loss::LossRecord,
    owner::OwnerRecord,
    rates::TrafficRates,
    recording_summary::{RecordingSummary, RecordingTraffic},
    skipped::{Skip, Skipped},
    status::{ListenerStatus, LossCount, StatusRecord, ZombieCounts},
    tls::TlsSummary,
    transitions::TransitionRecord,
    warning::WarningRecord,
};
use monitor_core::{
    CloseHow, ConnId, Ktime, ListenerId, Reason, Transition,
    facts::{Direction, InferredHeartbeat},
    handshake::RetryAfter,
};
use serde_json::{Value, json};

pub(crate) use crate::alert_samples::written_alerts as alerts;

/// Samples of each record, by its `type`.
pub(crate) fn all() -> BTreeMap<&'static str, Vec<Value>> {
    let both = |sample: &dyn Fn(bool) -> Value| [false, true].map(sample).to_vec();
    BTreeMap::from([
        ("alert", alerts()),
        ("connection", connections().map(|it| json!(it)).to_vec()),
        ("status", both(&|full| json!(status(full)))),
        ("group", both(&|full| json!(group(full)))),
        ("client", both(&|full| json!(client(full)))),
        (
            "listening_socket",
            both(&|full| json!(listening_socket(full))),
        ),
        ("frame", both(&|full| json!(frame(full)))),
        (
            "transition",
            transitions().iter().map(|it| json!(it)).collect(),
        ),
        ("lost", vec![json!(LossRecord::default())]),
        (
            "connection_summary",
            connection_summaries().map(|it| json!(it)).to_vec(),
        ),
        (
            "recording_summary",
            both(&|full| json!(recording_summary(full))),
        ),
        ("warning", vec![json!(WarningRecord { message: "a" })]),
    ])
}

fn status(full: bool) -> StatusRecord {
    let seconds = full.then_some(1.5);
    let text = || full.then(|| "a".to_owned());
    let listener = ListenerStatus {
        listener: "8080".to_owned(),
        ports: "8080".to_owned(),
        remote: !full,
        listening_sockets: full.then_some(1),
        open: 1,
        closing: 1,
        zombies: ZombieCounts::default(),
        at_risk: 1,
        opened_total: 1,
        closed_total: 1,
        idle_limit_seconds: seconds,
        hop: text(),
        idle_gap_p99_seconds: seconds,
        heartbeat_margin_seconds: seconds,
        learned_lower_seconds: seconds,
        learned_upper_seconds: seconds,
        storm: text(),
    };
    let loss = LossCount {
        ring: "vitals".to_owned(),
        reason: "full".to_owned(),
        total: 1,
        last_five_minutes: 1,
    };
    StatusRecord::new(
        Timestamp::UNIX_EPOCH,
        "6.1.0".to_owned(),
        Duration::from_secs(1),
        vec![listener],
        vec![loss],
    )
}

fn connections() -> [ConnectionRecord; 3] {
    let unseen = ConnectionRecord {
        handshake: None,
        tls: None,
        close: None,
        ..connection(false)
    };
    [unseen, connection(false), connection(true)]
}

fn connection(full: bool) -> ConnectionRecord {
    let age = full.then_some(1.5);
    let direction = DirectionRecord {
        last_packet_seconds: age,
        last_payload_seconds: age,
        last_frame_seconds: age,
        last_data_frame_seconds: age,
        last_ping_seconds: age,
        frames: 1,
        payload_bytes: 1,
        pings: 1,
        pings_unanswered: 1,
        ping_rtt_seconds: age,
        ping_interval_seconds: age,
        ping_jitter_seconds: age,
    };
    let text = || full.then(|| "a".to_owned());
    ConnectionRecord {
        ts: Timestamp::UNIX_EPOCH,
        cookie: ConnId(1),
        listener: "8080".to_owned(),
        local: ([127, 0, 0, 1], 8080).into(),
        peer: ([127, 0, 0, 1], 40_000).into(),
        role: "server".to_owned(),
        protocol: "websocket".to_owned(),
        state: State::Open,
        known_from: "packet".to_owned(),
        cgroup_id: text(),
        owner: owner(full),
        age_seconds: age,
        idle_seconds: age,
        idle_limit_seconds: age,
        hop: text(),
        hop_idle_seconds: age,
        states: vec![StateChange {
            state: State::Open,
            ts: Timestamp::UNIX_EPOCH,
            reason: "a sentence".to_owned(),
        }],
        verdict: full.then(|| VerdictRecord {
            kind: "expired".to_owned(),
            certainty: "suspected".to_owned(),
            ts: Timestamp::UNIX_EPOCH,
            began_at: Timestamp::UNIX_EPOCH,
            limit_seconds: 60.0,
            reason: "a sentence".to_owned(),
        }),
        handshake: Some(HandshakeSummary {
            path: text(),
            host: text(),
            origin: text(),
            subprotocol: text(),
            compressed: full,
            faults: Vec::from_iter(text()),
        }),
        rx: direction.clone(),
        tx: direction,
        rates: full.then(TrafficRates::default),
        tls: Some(tls(full)),
        tcp: TcpRecord {
            last_ack_seconds: age,
            unacked_bytes: 1,
            unacked_seconds: age,
            retransmits: 1,
            retransmits_total: 1,
            unanswered_transmissions: 1,
            unanswered_seconds: age,
            send_queue_bytes: full.then_some(1),
        },
        close: Some(close(full)),
    }
}

fn close(full: bool) -> CloseFrame {
    CloseFrame {
        initiator: Direction::Rx,
        code: full.then_some(1000),
    }
}

fn group(full: bool) -> GroupRecord {
    GroupRecord {
        ts: Timestamp::UNIX_EPOCH,
        by: GroupBy::Peer,
        name: full.then(|| "a".to_owned()),
        is_rest: !full,
        is_minute_complete: true,
        figures: GroupFigures {
            heartbeat_margin_seconds: full.then_some(1.0),
            oldest_seconds: full.then_some(1.0),
            ..GroupFigures::default()
        },
    }
}

fn client(full: bool) -> ClientRecord {
    ClientRecord {
        ts: Timestamp::UNIX_EPOCH,
        listener: "8080".to_owned(),
        figures: ClientFigures {
            client: [127, 0, 0, 1].into(),
            attempts: 1,
            at_most_over: 0,
            attempts_per_minute: 1.0,
            accepted: 1,
            refused: 0,
            short_lived: 0,
            interval_seconds: full.then_some(1.0),
            open: 1,
            shared: false,
        },
        last_attempt_seconds: 1.0,
    }
}

fn listening_socket(full: bool) -> ListeningSocketRecord {
    let local = ([0, 0, 0, 0], 8080).into();
    let publication = PublicationRecord {
        ports: "80".to_owned(),
        address: full.then(|| "10.0.0.0/8".to_owned()),
        to_address: full.then(|| [10, 0, 0, 2].into()),
        by: "nftables",
        netns: 1,
    };
    let unforwarded = PublicationRecord {
        address: None,
        to_address: None,
        ..publication.clone()
    };
    ListeningSocketRecord {
        published: full.then(|| vec![publication, unforwarded]),
        watched_seconds: full.then_some(1.0),
        protocol: full.then_some("websocket"),
        ..ListeningSocketRecord::new(Timestamp::UNIX_EPOCH, local, owner(full))
    }
}

fn owner(full: bool) -> OwnerRecord {
    let text = || full.then(|| "a".to_owned());
    OwnerRecord {
        cgroup: text(),
        unit: text(),
        container: text(),
        pod: text(),
        pod_namespace: text(),
        pod_name: text(),
        workload: text(),
        pid: full.then_some(1),
        comm: text(),
        netns: full.then_some(1),
    }
}

fn frame(full: bool) -> FrameRecord {
    FrameRecord {
        ts: Timestamp::UNIX_EPOCH,
        cookie: ConnId(1),
        listener: "8080".to_owned(),
        local: ([127, 0, 0, 1], 8080).into(),
        peer: ([127, 0, 0, 1], 40_000).into(),
        direction: Direction::Rx,
        fin: true,
        rsv: 0,
        opcode: 1,
        masked: true,
        length: 1,
        ping_rtt: full.then_some(Duration::from_millis(1)),
        close_code: full.then_some(1000),
    }
}

/// One for each trigger, with and without what it may have.
fn transitions() -> Vec<TransitionRecord> {
    let with_options = [false, true].into_iter().flat_map(|full| {
        [
            Reason::Upgraded {
                after: full.then_some(Duration::from_secs(1)),
            },
            Reason::CloseFrame {
                by: Direction::Rx,
                code: full.then_some(1000),
            },
            Reason::Refused {
                status: full.then_some(503),
                retry_after: full.then_some(RetryAfter::Delay(Duration::from_secs(1))),
            },
            Reason::Refused {
                status: None,
                retry_after: full.then_some(RetryAfter::At(Timestamp::UNIX_EPOCH)),
            },
        ]
    });
    let reasons = with_options.chain([
        Reason::Requested,
        Reason::Tls,
        Reason::Found,
        Reason::NoAnswer,
        Reason::Fin { by: Direction::Tx },
        Reason::Ended { how: CloseHow::Fin },
        Reason::NotWebSocket,
        Reason::Missed,
    ]);
    reasons
        .enumerate()
        .map(|(i, reason)| {
            let full = i % 2 == 0;
            let ends = ([127, 0, 0, 1], 8080);
            let transition = Transition {
                conn: ConnId(1),
                listener: ListenerId(0),
                endpoints: full.then_some([ends.into(); 2]),
                at: Ktime(1),
                from: full.then_some(State::Open),
                to: State::Closing,
                reason,
            };
            TransitionRecord::new(&transition, "8080", Timestamp::UNIX_EPOCH)
        })
        .collect()
}

fn tls(full: bool) -> TlsSummary {
    TlsSummary {
        version: full.then(|| "1.3".into()),
        heartbeat: InferredHeartbeat::Unlearned,
        refused_for: full.then(|| "h2".into()),
        heartbeat_interval_seconds: full.then_some(25.0),
    }
}

fn connection_summaries() -> [ConnectionSummary; 3] {
    let open = ConnectionSummary {
        close: None,
        tls: Some(tls(false)),
        ..connection_summary(true)
    };
    // The record of its end was lost.
    let unknown = ConnectionSummary {
        rx: DirectionSummary::default(),
        tx: DirectionSummary::default(),
        ..connection_summary(false)
    };
    [open, unknown, connection_summary(true)]
}

fn connection_summary(full: bool) -> ConnectionSummary {
    let moment = full.then_some(Timestamp::UNIX_EPOCH);
    let direction = DirectionSummary {
        frames: Some(1),
        frames_by_opcode: Some([("text", 1)].into()),
        messages: Some(1),
        payload_bytes: Some(1),
        unsynced_bytes: Some(0),
        pings: Some(0),
        pings_unanswered: Some(0),
        ping_rtt_seconds: Some(0.5),
        ping_rtt_min_seconds: Some(0.5),
        ping_rtt_median_seconds: Some(0.5),
        ping_rtt_max_seconds: Some(0.5),
    };
    let end = ([127, 0, 0, 1], 8080).into();
    ConnectionSummary {
        ts: Timestamp::UNIX_EPOCH,
        cookie: ConnId(1),
        listener: "8080".to_owned(),
        local: full.then_some(end),
        peer: full.then_some(end),
        role: full.then_some("server"),
        protocol: "websocket",
        established_at: moment,
        opened_at: moment,
        closed_at: moment,
        duration_seconds: full.then_some(1.0),
        how: full.then_some("fin"),
        close: Some(close(full)),
        rx: direction.clone(),
        tx: direction,
        retransmits_total: full.then_some(0),
        longest_idle_gap_seconds: full.then_some(1.0),
        protocol_errors: full.then(|| [("rsv", 1)].into()),
        tls: full.then(|| tls(full)),
        verdicts: [None, Some("recovered")]
            .map(|resolution| VerdictSummary {
                kind: "expired",
                certainty: "suspected",
                resolution,
                count: 1,
            })
            .to_vec(),
        owner: full.then(|| connection(full).owner),
        handshake: connection(full).handshake.filter(|_| full),
        client: full.then_some([127, 0, 0, 1].into()),
    }
}

fn recording_summary(full: bool) -> RecordingSummary {
    let moment = full.then_some(Timestamp::UNIX_EPOCH);
    let traffic = RecordingTraffic {
        frames: 1,
        payload_bytes: 1,
        unsynced_bytes: 0,
    };
    let mut skipped = Skipped::default();
    skipped.count(Skip::NotTcp);
    RecordingSummary {
        first_packet_at: moment,
        last_packet_at: moment,
        packets: 1,
        segments: 1,
        connections: 1,
        open: 0,
        other_connections: 0,
        forgotten_outgoing: 0,
        rx: traffic,
        tx: traffic,
        alerts: 0,
        skipped,
        unread_links: [(147, 1)].into(),
        out_of_order: 0,
        untimed: 0,
    }
}
