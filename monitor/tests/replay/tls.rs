//! TLS connections: heartbeats inferred from the sizes of records, and clients that stop answering.

use monitor::{records::connection_summary::ConnectionSummary, replay::ReplayRecord};
use monitor_core::{
    AlertResolution, Certainty, Status, Subject, VerdictKind, facts::InferredHeartbeat,
};
use wire::{
    APPLICATION_DATA, CHANGE_CIPHER_SPEC, Conversation, End, MILLI, Recording, SECOND, START,
    client_hello, server_hello, tls_record,
};

use crate::{Played, judge, server};

/// The records of a ping without payload in TLS 1.3, and of its pong.
const PING: usize = 19;
const PONG: usize = 23;

fn record(len: usize) -> Vec<u8> {
    tls_record(APPLICATION_DATA, &vec![0xee; len])
}

/// TCP's handshake and that of TLS 1.3 with AES-128, then the upgrade.
fn opened(conversation: &mut Conversation, protocols: &[&str]) -> Recording {
    let mut to = Recording::default();
    conversation.open(&mut to, START);
    let at = |millis| START + millis * MILLI;
    let hello = client_hello(protocols, 200);
    // On a network with the usual MTU, the hello of a browser comes in two segments.
    conversation.says(&mut to, at(10), End::Client, &hello[..150]);
    conversation.says(&mut to, at(10), End::Client, &hello[150..]);
    let flight = [
        server_hello(true, 0x1301, None),
        tls_record(CHANGE_CIPHER_SPEC, &[1]),
        record(900),
        record(53),
    ];
    conversation.says(&mut to, at(12), End::Server, &flight.concat());
    let end = [
        tls_record(CHANGE_CIPHER_SPEC, &[1]),
        record(53),
        record(400),
    ];
    conversation.says(&mut to, at(14), End::Client, &end.concat());
    conversation.says(&mut to, at(15), End::Server, &record(180));
    to
}

/// A ping every 2 s from second 2 on, of which the first ones are answered.
fn pings(conversation: &mut Conversation, to: &mut Recording, answered: u64, sent: u64) {
    for n in 1..=sent {
        let at = START + n * 2 * SECOND;
        conversation.says(to, at, End::Server, &record(PING));
        if n <= answered {
            conversation.says(to, at + 20 * MILLI, End::Client, &record(PONG));
        } else {
            conversation.ack(to, at + 20 * MILLI, End::Client);
        }
    }
}

/// Each alert: milliseconds since the start, kind, status, certainty, reason.
fn alerts(played: &Played) -> Vec<(u64, VerdictKind, Status, Certainty, &str)> {
    let alerts = played.records.iter().filter_map(|record| match record {
        ReplayRecord::Alert(alert) => match &alert.subject {
            Subject::Connection(verdict) => Some((alert, verdict)),
            _ => None,
        },
        _ => None,
    });
    alerts
        .map(|(alert, verdict)| {
            let at = (alert.at.0 - START) / MILLI;
            let reason = alert.reason.as_str();
            (at, verdict.kind, alert.status, verdict.certainty, reason)
        })
        .collect()
}

fn only(played: &Played) -> ConnectionSummary {
    let [connection] = played.connections()[..] else {
        panic!("{:?}", played.connections());
    };
    connection.clone()
}

#[test]
fn a_client_that_stops_answering_is_unresponsive_after_two_pings_and_recovers() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation, &["http/1.1"]);
    pings(&mut conversation, &mut recording, 10, 14);
    let late = START + 75 * SECOND;
    conversation.says(&mut recording, late, End::Client, &record(PONG));
    let played = judge(&recording, &[server(8080, None)]);
    let alerts = alerts(&played);
    let [fired, resolved] = alerts[..] else {
        panic!("{alerts:?}");
    };
    // The twelfth ping is the second without an answer.
    assert!((25_000..25_020).contains(&fired.0), "{fired:?}");
    assert_eq!(
        (fired.1, fired.2, fired.3),
        (
            VerdictKind::Unresponsive,
            Status::Firing,
            Certainty::Inferred
        )
    );
    assert_eq!(
        fired.4,
        "2 pings unanswered, by the sizes of TLS records, and no data for 2.9 s while TCP acknowledges: the client \
         is busy, or gone"
    );
    let recovered = Status::Resolved(AlertResolution::Recovered);
    assert_eq!((resolved.0, resolved.2), (75_000, recovered));

    let connection = only(&played);
    assert_eq!(connection.protocol, "opaque");
    let tls = connection.tls.expect("its records are followed");
    assert_eq!(tls.version.as_deref(), Some("1.3"));
    assert_eq!(tls.heartbeat, InferredHeartbeat::Learned);
    let interval = tls.heartbeat_interval_seconds.expect("learned");
    assert!((1.9..2.1).contains(&interval), "{interval}");
    // From the sixth on.
    assert_eq!(connection.tx.pings, Some(9));
    assert_eq!(connection.tx.pings_unanswered, Some(0));
    let rtt = connection.tx.ping_rtt_seconds.expect("measured");
    assert!((0.019..0.021).contains(&rtt), "{rtt}");
    assert_eq!(connection.rx.pings, Some(0));
    let [verdict] = &connection.verdicts[..] else {
        panic!("{:?}", connection.verdicts);
    };
    assert_eq!(
        (verdict.kind, verdict.certainty),
        ("unresponsive", "inferred")
    );
}

#[test]
fn an_inferred_verdict_is_never_confirmed() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation, &[]);
    pings(&mut conversation, &mut recording, 10, 40);
    let played = judge(&recording, &[server(8080, None)]);
    let alerts = alerts(&played);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0].3, Certainty::Inferred);
}

#[test]
fn an_older_connection_is_recognised_and_its_heartbeat_learned() {
    let mut conversation = Conversation::v4();
    opened(&mut conversation, &[]);
    let mut recording = Recording::default();
    pings(&mut conversation, &mut recording, 10, 13);
    let played = judge(&recording, &[server(8080, None)]);
    let fired = alerts(&played);
    assert!(
        matches!(
            fired[..],
            [(
                25_000..25_020,
                VerdictKind::Unresponsive,
                Status::Firing,
                Certainty::Inferred,
                _
            )]
        ),
        "{fired:?}"
    );
    let connection = only(&played);
    assert_eq!(connection.protocol, "opaque");
    let tls = connection.tls.expect("its records are followed");
    assert_eq!(
        (tls.version, tls.heartbeat),
        (None, InferredHeartbeat::Learned)
    );
}

#[test]
fn nothing_is_inferred_where_http_2_was_offered() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation, &["h2", "http/1.1"]);
    pings(&mut conversation, &mut recording, 10, 14);
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(alerts(&played), []);
    let connection = only(&played);
    let tls = connection.tls.expect("its records are followed");
    assert_eq!(tls.heartbeat, InferredHeartbeat::Refused);
    assert_eq!(tls.refused_for.as_deref(), Some("h2"));
    assert_eq!(connection.tx.pings, Some(0));
}
