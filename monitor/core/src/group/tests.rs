use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    AlertResolution, CloseHow, ConnectionVerdict, Facts,
    facts::{Protocol, Role},
};

const FIRING: Status = Status::Firing;
const RESET: Status = Status::Resolved(AlertResolution::Closed(CloseHow::RstReceived));

fn alert(at: u64, conn: u64, status: Status) -> ConnectionAlert {
    let at = Ktime(at * 1_000_000);
    let facts = Facts::new(
        at,
        ConnId(conn),
        ListenerId(0),
        Role::Server,
        Protocol::WebSocket,
        ([127, 0, 0, 1], 8080).into(),
        ([127, 0, 0, 1], 40_000).into(),
    );
    Alert {
        status,
        listener: ListenerId(0),
        hop: Some("lb".to_owned()),
        at,
        since: at,
        reason: format!("connection {conn}"),
        subject: Box::new(ConnectionVerdict {
            kind: VerdictKind::Expired,
            certainty: Certainty::Suspected,
            limit: Duration::from_secs(6),
            facts,
            send_queue: None,
            background: None,
        }),
    }
}

fn reported(grouping: &mut Grouping) -> Vec<Alert> {
    std::iter::from_fn(|| grouping.poll_alert()).collect()
}

/// The number of alerts that each stands for.
fn counts(alerts: &[Alert]) -> Vec<u64> {
    alerts.iter().map(count).collect()
}

fn count(alert: &Alert) -> u64 {
    match &alert.subject {
        Subject::Group(group) => group.count,
        _ => 1,
    }
}

fn group(alert: &Alert) -> &AlertGroup {
    match &alert.subject {
        Subject::Group(group) => group,
        _ => panic!("a group: {alert:?}"),
    }
}

#[test]
fn twenty_alerts_pass_at_once_and_the_rest_is_reported_as_a_group_after_ten_seconds() {
    let mut grouping = Grouping::default();
    for conn in 0..10_000 {
        grouping.offer(alert(1_000, conn, FIRING).into());
    }
    assert_eq!(counts(&reported(&mut grouping)), [1; SINGLY]);
    assert_eq!(grouping.poll_timeout(), Some(Ktime(11_000_000_000)));
    grouping.handle_timeout(Ktime(10_999_999_999));
    assert_eq!(grouping.poll_alert(), None);
    grouping.handle_timeout(Ktime(11_000_000_000));
    let alerts = reported(&mut grouping);
    let [alert] = alerts.as_slice() else {
        panic!("one group: {alerts:?}");
    };
    assert_eq!(group(alert).count, 9_980);
    let examples = group(alert).examples.iter();
    let examples: Vec<_> = examples.map(|it| it.subject.facts.conn.0).collect();
    assert_eq!(examples, Vec::from_iter(20..30));
    assert_eq!(alert.hop.as_deref(), Some("lb"));
    assert_eq!(grouping.poll_timeout(), None);
}

#[test]
fn a_long_burst_yields_one_group_every_ten_seconds_and_single_alerts_resume_afterwards() {
    let mut grouping = Grouping::default();
    for conn in 0..400 {
        grouping.offer(alert(conn * 100, conn, FIRING).into());
    }
    grouping.flush();
    // The first was withheld at 2.0 s.
    let expected = [vec![1; SINGLY], vec![100, 100, 100, 80]].concat();
    let alerts = reported(&mut grouping);
    assert_eq!(counts(&alerts), expected);
    assert_eq!(
        alerts[SINGLY].reason,
        "100 more connections within 9.9 s; the first: connection 20"
    );
    for conn in 400..500 {
        grouping.offer(alert(50_000 + conn * 1_000, conn, FIRING).into());
    }
    assert_eq!(counts(&reported(&mut grouping)), [1; 100]);
}

#[test]
fn a_single_withheld_alert_is_reported_late_and_ungrouped() {
    let mut grouping = Grouping::default();
    for conn in 0..=SINGLY as u64 {
        grouping.offer(alert(0, conn, FIRING).into());
    }
    assert_eq!(reported(&mut grouping).len(), SINGLY);
    grouping.flush();
    let only = alert(0, SINGLY as u64, FIRING);
    assert_eq!(reported(&mut grouping), [only.into()]);
}

#[test]
fn kinds_listeners_and_certainties_have_separate_bursts() {
    let mut grouping = Grouping::default();
    for conn in 0..SINGLY as u64 {
        let of = |change: fn(&mut ConnectionAlert)| {
            let mut alert = alert(0, conn, FIRING);
            change(&mut alert);
            alert
        };
        grouping.offer(of(|_| {}).into());
        grouping.offer(of(|alert| alert.subject.kind = VerdictKind::Quiet).into());
        grouping.offer(of(|alert| alert.listener = ListenerId(1)).into());
        grouping.offer(of(|alert| alert.subject.certainty = Certainty::Confirmed).into());
        grouping.offer(of(|alert| alert.status = RESET).into());
    }
    assert_eq!(reported(&mut grouping).len(), 5 * SINGLY);
    assert_eq!(grouping.poll_timeout(), None);
}

#[test]
fn the_end_of_a_verdict_waits_for_its_beginning() {
    let mut grouping = Grouping::default();
    for conn in 0..25 {
        grouping.offer(alert(0, conn, FIRING).into());
    }
    reported(&mut grouping);
    grouping.offer(alert(1_000, 3, RESET).into());
    assert_eq!(
        reported(&mut grouping).len(),
        1,
        "its beginning was reported"
    );
    grouping.offer(alert(1_000, 23, RESET).into());
    assert_eq!(reported(&mut grouping), []);
    grouping.handle_timeout(Ktime(10_000_000_000));
    let alerts = reported(&mut grouping);
    let [firing, resolved] = alerts.as_slice() else {
        panic!("a group and a single one: {alerts:?}");
    };
    assert_eq!((firing.status, group(firing).count), (FIRING, 5));
    let Subject::Connection(verdict) = &resolved.subject else {
        panic!("a single one: {resolved:?}");
    };
    assert_eq!((resolved.status, verdict.facts.conn.0), (RESET, 23));
}

#[test]
fn a_group_names_a_hop_only_if_all_its_alerts_share_it() {
    let mut grouping = Grouping::default();
    for conn in 0..30 {
        let mut alert = alert(0, conn, FIRING);
        if conn == 25 {
            alert.hop = Some("nat".to_owned());
        }
        grouping.offer(alert.into());
    }
    grouping.flush();
    let last = reported(&mut grouping).pop().expect("a group");
    assert_eq!((count(&last), last.hop), (10, None));
}

/// What an alert reports, apart from its connection.
type ReportedAlert = (ListenerId, VerdictKind, Status, Certainty);

fn reported_alert(alert: &ConnectionAlert) -> ReportedAlert {
    let ConnectionVerdict {
        kind, certainty, ..
    } = *alert.subject;
    (alert.listener, kind, alert.status, certainty)
}

fn any_alert() -> impl Strategy<Value = (u64, ConnectionAlert)> {
    let status = prop_oneof![
        Just(FIRING),
        Just(RESET),
        Just(Status::Resolved(AlertResolution::Recovered)),
    ];
    let kind = prop_oneof![Just(VerdictKind::Expired), Just(VerdictKind::BlackHoled)];
    let certainty = prop_oneof![Just(Certainty::Suspected), Just(Certainty::Confirmed)];
    // Most come in a burst, some after a pause.
    let step = prop_oneof![9 => 0..200_u64, 1 => 0..15_000_u64];
    (step, 0..300_u64, 0..2_u16, status, kind, certainty).prop_map(
        |(step, conn, listener, status, kind, certainty)| {
            let mut alert = alert(0, conn, status);
            alert.listener = ListenerId(listener);
            alert.subject.kind = kind;
            alert.subject.certainty = certainty;
            (step, alert)
        },
    )
}

proptest! {
    /// Holds for any alerts, whether time advances at the deadlines or only with the next alert.
    #[test]
    fn every_alert_is_reported_once_and_within_ten_seconds(
        alerts in vec(any_alert(), 0..600),
        punctual: bool,
    ) {
        let mut grouping = Grouping::default();
        let mut offered: BTreeMap<_, u64> = BTreeMap::new();
        let mut counted: BTreeMap<_, u64> = BTreeMap::new();
        let mut now = Ktime(1);
        let mut all = Vec::new();
        for (step, mut alert) in alerts {
            let next = now + Duration::from_millis(step);
            if punctual {
                while let Some(due) = grouping.poll_timeout().filter(|due| *due <= next) {
                    grouping.handle_timeout(due);
                    prop_assert!(grouping.poll_timeout().is_none_or(|later| later > due));
                    all.extend(reported(&mut grouping).into_iter().map(|alert| (due, alert)));
                }
            }
            now = next;
            alert.at = now;
            *offered.entry(key(&alert)).or_default() += 1;
            grouping.offer(alert.into());
            all.extend(reported(&mut grouping).into_iter().map(|alert| (now, alert)));
        }
        grouping.flush();
        prop_assert_eq!(grouping.poll_timeout(), None);
        all.extend(reported(&mut grouping).into_iter().map(|alert| (now, alert)));

        let mut singles: BTreeMap<_, VecDeque<Ktime>> = BTreeMap::new();
        for (reported_at, alert) in all {
            match alert.into_connection() {
                Ok(alert) => {
                    *counted.entry(key(&alert)).or_default() += 1;
                    prop_assert!(!punctual || reported_at.since(alert.at) <= WINDOW);
                    let before = singles.entry(key(&alert)).or_default();
                    // A single withheld alert passes late and is not counted with those that passed
                    // at once.
                    if alert.at == reported_at {
                        before.push_back(alert.at);
                    }
                    if before.len() > SINGLY {
                        let first = before.pop_front().expect("more than twenty");
                        prop_assert!(alert.at.since(first) >= WINDOW);
                    }
                }
                Err(alert) => {
                    let group = group(&alert);
                    let first = &group.examples[0];
                    prop_assert_eq!(
                        group.examples.len() as u64,
                        group.count.min(AlertGroup::EXAMPLES as u64)
                    );
                    for example in &group.examples {
                        prop_assert_eq!(reported_alert(example), reported_alert(first));
                        prop_assert!(!punctual || reported_at.since(example.at) <= WINDOW);
                    }
                    *counted.entry(key(first)).or_default() += group.count;
                }
            }
        }
        prop_assert_eq!(offered, counted);
    }
}

/// What an alert reports, as a key with an order.
fn key(alert: &ConnectionAlert) -> (ListenerId, VerdictKind, String, Certainty) {
    let (listener, kind, status, certainty) = reported_alert(alert);
    (listener, kind, format!("{status:?}"), certainty)
}
