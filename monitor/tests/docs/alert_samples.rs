//! Lines of the alert log, one of each shape.

use std::time::Duration;

use jiff::Timestamp;
use monitor::records::alert;
use monitor_core::{
    Alert, AlertGroup, AlertResolution, Certainty, ConnId, ConnectionAlert, ConnectionVerdict,
    Facts, Ktime, ListenerFinding, ListenerId, Status, Subject, VerdictKind,
    background::{Background, Owner, TcpAccount},
    facts::{DirectionActivity, Protocol, Role},
    handshake::ClientAddress,
    storm::{Cause, ClientRow, Pattern, ReconnectStorm, StormPhase, Thrash},
};
use serde_json::Value;

/// One line of each shape: a firing alert with the minimum of fields, a resolved one with all of them,
/// a group, and the alerts on a listener.
pub(crate) fn written_alerts() -> Vec<Value> {
    let resolved = Status::Resolved(AlertResolution::Recovered);
    let group = Subject::Group(AlertGroup {
        kind: VerdictKind::Expired,
        certainty: Certainty::Suspected,
        count: 2,
        examples: vec![alert(Status::Firing, None), alert(Status::Firing, None)],
    });
    let mismatch = |known| ListenerFinding::LimitMismatch {
        limit: known,
        survived: known,
        killed: known,
    };
    let lifetime = |limit| ListenerFinding::LifetimeMismatch {
        limit,
        age: Duration::from_secs(3600),
        deaths: 12,
    };
    let findings = [
        lifetime(None),
        lifetime(Some(Duration::from_secs(7200))),
        ListenerFinding::AtRisk {
            gap: Duration::from_secs(58),
            limit: Duration::from_secs(60),
        },
        mismatch(None),
        mismatch(Some(Duration::from_secs(60))),
    ];
    let of_connections = [
        alert(Status::Firing, None).into(),
        alert(resolved, Some(Ktime(1))).into(),
        firing(group),
    ];
    let of_listeners = findings.map(Subject::Listener).into_iter().chain(storms());
    of_connections
        .into_iter()
        .chain(of_listeners.map(firing))
        .map(|alert| {
            let line = alert::AlertRecord::new(&alert, "8080", Timestamp::UNIX_EPOCH).to_json();
            serde_json::from_str(&line.expect("JSON")).expect("a line is JSON")
        })
        .collect()
}

fn firing(subject: Subject) -> Alert {
    Alert {
        status: Status::Firing,
        listener: ListenerId(0),
        hop: None,
        at: Ktime(2),
        since: Ktime(1),
        reason: "a sentence".into(),
        subject,
    }
}

/// Storms with the minimum of fields and with all of them, and a thrashing client.
fn storms() -> Vec<Subject> {
    let row = ClientRow {
        client: [127, 0, 0, 1].into(),
        attempts: 1,
        at_most_over: 0,
        accepted: 1,
        refused: 0,
        short_lived: 1,
        attempts_per_minute: 1.0,
        interval: None,
        open: 1,
        most_open: 1,
        last: Ktime(1),
    };
    let storm = |cause: Option<Cause>| ReconnectStorm {
        phase: StormPhase::Storm,
        pattern: Pattern::Unknown,
        period: cause.map(|_| Duration::from_secs(1)),
        rate: 1.0,
        peak_rate: 1.0,
        baseline_rate: 1.0,
        attempts: 1,
        successes: 1,
        attempts_per_success: cause.map(|_| 1.0),
        refused: vec![(Some(503), 1), (None, 1)],
        returning_share: cause.map(|_| 1.0),
        closes: 1,
        cause,
        examples: vec![row.clone()],
    };
    let causes = [
        None,
        Some(Cause::Lifetime(Duration::from_secs(60))),
        Some(Cause::ProxyDeploy([127, 0, 0, 1].into())),
    ];
    let thrash = Thrash {
        clients: 1,
        examples: vec![row.clone()],
    };
    let storms = causes.map(|cause| Subject::Storm(Box::new(storm(cause))));
    storms
        .into_iter()
        .chain([Subject::Thrash(thrash)])
        .collect()
}

fn alert(status: Status, clock: Option<Ktime>) -> ConnectionAlert {
    let activity = DirectionActivity {
        last_packet: clock,
        last_payload: clock,
        last_frame: clock,
        last_message: clock,
    };
    Alert {
        status,
        listener: ListenerId(0),
        hop: clock.map(|_| "lb".into()),
        at: Ktime(2),
        since: Ktime(1),
        reason: "a sentence".into(),
        subject: Box::new(ConnectionVerdict {
            kind: VerdictKind::Expired,
            certainty: Certainty::Suspected,
            limit: Duration::from_secs(60),
            facts: Facts {
                established_at: clock,
                rx: activity,
                tx: activity,
                ack_progress_at: clock,
                ..Facts::new(
                    Ktime(2),
                    ConnId(1),
                    ListenerId(0),
                    Role::Server,
                    Protocol::WebSocket,
                    ([127, 0, 0, 1], 8080).into(),
                    ([127, 0, 0, 1], 40_000).into(),
                )
            },
            // A closed connection has no socket to look up.
            background: (status == Status::Firing).then(|| Box::new(everything_known())),
        }),
    }
}

fn everything_known() -> Background {
    let name = || Some("a".to_owned());
    Background {
        owner: Owner {
            cgroup: name(),
            unit: name(),
            container: name(),
            pod: name(),
            pod_namespace: name(),
            pod_name: name(),
            workload: name(),
            pid: Some(1),
            comm: name(),
            netns: Some(1),
        },
        client: Some(ClientAddress::new([127, 0, 0, 1].into())),
        tcp: Some(TcpAccount {
            backoff: 1,
            probes: 1,
            retransmission_timeout: Duration::from_secs(1),
            last_ack: Duration::from_secs(1),
            unread_bytes: 1,
            unsent_bytes: 1,
        }),
    }
}
