//! The core's verdicts, reached by the clock of the packets.

use std::time::Duration;

use monitor::{
    core::{Alert, Certainty, CloseHow, Notice, Resolution, Status, VerdictKind},
    replay::Record,
};

use crate::{
    Played, frame, judge, opened,
    packets::{Block, Conversation, End, MILLI, Order, Recording, SECOND, START, pcapng},
    replay, server, upgrade,
    ws::{PING, PONG, TEXT},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Each alert: seconds since the start, kind, status, certainty.
fn alerts(played: &Played) -> Vec<(f64, VerdictKind, Status, Certainty)> {
    let brief = |alert: &Alert| {
        let at = (alert.at.0 - START) as f64 / SECOND as f64;
        (at, alert.kind, alert.status, alert.certainty)
    };
    played
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Notice(Notice::Connection(alert)) => Some(brief(alert)),
            _ => None,
        })
        .collect()
}

/// A packet of no watched connection: time goes on.
fn tick(to: &mut Recording, seconds: u64) {
    let mut stranger = Conversation::new("10.9.9.9:50000", "10.9.9.8:9999");
    stranger.syn(to, START + seconds * SECOND);
}

#[test]
fn a_connection_that_is_silent_past_the_limit_is_expired_and_recovers_when_heard() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"still here", true);
    conversation.says(&mut recording, START + 100 * SECOND, End::Client, &text);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    let alerts = alerts(&played);
    let [fired, resolved] = alerts[..] else {
        panic!("{alerts:?}");
    };
    // The last packet of the handshake was at 7 ms; the limit must be exceeded, not met.
    assert!((60.007..60.008).contains(&fired.0), "{fired:?}");
    assert_eq!(fired.1, VerdictKind::Expired);
    assert_eq!((fired.2, fired.3), (Status::Firing, Certainty::Suspected));
    let recovered = Status::Resolved(Resolution::Recovered);
    assert_eq!((resolved.0, resolved.2), (100.0, recovered));
}

#[test]
fn a_burst_of_verdicts_is_told_as_live_and_each_of_them_counts_in_the_summary() {
    let mut recording = Recording::default();
    for n in 0..30 {
        let at = START + n * 10 * MILLI;
        let client = format!("10.0.0.{n}:40000");
        let mut conversation = Conversation::new(&client, "10.1.0.1:8080");
        conversation.open(&mut recording, at);
        upgrade(&mut conversation, &mut recording, at);
    }
    tick(&mut recording, 100);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played).len(), 20);
    let groups: Vec<_> = played
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Notice(Notice::Group(group)) => Some((group.count, group.examples.len())),
            _ => None,
        })
        .collect();
    assert_eq!(groups, [(10, 10)]);
    assert_eq!(played.summary.alerts, 30);
}

#[test]
fn a_silence_of_exactly_the_limit_is_none() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let at = START + 7 * MILLI + 60 * SECOND;
    conversation.says(&mut recording, at, End::Client, &frame(TEXT, b"just", true));
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played), []);
}

#[test]
fn transmissions_into_the_void_confirm_that_it_is_expired() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"anybody?", false);
    conversation.shouts(&mut recording, START + 70 * SECOND, End::Server, &text);
    for after in [200, 600, 1400] {
        let at = START + 70 * SECOND + after * MILLI;
        conversation.repeats(&mut recording, at, End::Server, &text);
    }
    conversation.rst(&mut recording, START + 80 * SECOND, End::Client);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    let alerts = alerts(&played);
    let [suspected, confirmed, resolved] = alerts[..] else {
        panic!("{alerts:?}");
    };
    assert_eq!(suspected.3, Certainty::Suspected);
    assert_eq!(
        (confirmed.1, confirmed.3),
        (VerdictKind::Expired, Certainty::Confirmed)
    );
    assert!((71.0..72.1).contains(&confirmed.0), "{confirmed:?}");
    // The reset comes from the path, not from the peer: no recovery.
    let reset = Status::Resolved(Resolution::Closed(CloseHow::RstReceived));
    assert_eq!((resolved.0, resolved.2), (80.0, reset));
    assert_eq!(played.connections()[0].how, Some("rst_received"));
}

#[test]
fn data_that_nobody_acknowledges_is_black_holed() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"anybody?", false);
    let at = START + SECOND;
    conversation.shouts(&mut recording, at, End::Server, &text);
    for after in [200, 600, 1400, 3000, 6200] {
        conversation.repeats(&mut recording, at + after * MILLI, End::Server, &text);
    }
    // The fifth has had no second for its answer when the recording ends.
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(alerts(&played), []);

    conversation.repeats(&mut recording, at + 12_800 * MILLI, End::Server, &text);
    let played = judge(&recording, &[server(8080, None)]);
    let [fired] = alerts(&played)[..] else {
        panic!("{played:?}");
    };
    assert_eq!(
        fired,
        (
            8.2,
            VerdictKind::BlackHoled,
            Status::Firing,
            Certainty::Confirmed
        )
    );

    conversation.acked[0] = conversation.next[1];
    conversation.ack(&mut recording, at + 14 * SECOND, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    let recovered = Status::Resolved(Resolution::Recovered);
    assert_eq!(alerts(&played)[1].0, 15.0);
    assert_eq!(alerts(&played)[1].2, recovered);
    assert_eq!(played.connections()[0].retransmits, 6);
}

#[test]
fn pings_that_tcp_acknowledges_and_nobody_answers_are_unresponsive() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let ping = |n: u8| frame(PING, &[n], false);
    let at = |seconds: u64| START + seconds * SECOND;
    conversation.says(&mut recording, at(1), End::Server, &ping(1));
    let pong = frame(PONG, &[1], true);
    conversation.says(&mut recording, at(1) + 10 * MILLI, End::Client, &pong);
    for n in [2, 3] {
        conversation.says(&mut recording, at(10 * u64::from(n)), End::Server, &ping(n));
        conversation.ack(&mut recording, at(10 * u64::from(n)) + MILLI, End::Client);
    }
    tick(&mut recording, 40);
    let played = judge(&recording, &[server(8080, None)]);
    let [fired] = alerts(&played)[..] else {
        panic!("{:?}", alerts(&played));
    };
    // A second after the second ping that nobody answers.
    assert!((31.0..31.1).contains(&fired.0), "{fired:?}");
    assert_eq!(fired.1, VerdictKind::Unresponsive);
    assert_eq!(fired.3, Certainty::Confirmed);
    assert_eq!(played.connections()[0].pings_unanswered, 2);
}

#[test]
fn what_is_due_after_the_last_packet_is_not_said() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    tick(&mut recording, 60);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played), [], "the limit is over 7 ms later");
    tick(&mut recording, 61);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played).len(), 1, "any packet moves the clock");
    assert_eq!(played.summary.open, 1);
}

#[test]
fn a_far_leap_of_the_clock_is_judged_at_once() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.says(
        &mut recording,
        START + SECOND,
        End::Server,
        &frame(PING, b"", false),
    );
    // The end of the 32-bit seconds of a pcap file, in 2106.
    let end = u64::from(u32::MAX) * SECOND;
    let mut stranger = Conversation::new("10.9.9.9:50000", "10.9.9.8:9999");
    stranger.syn(&mut recording, end);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played).len(), 1);
}

#[test]
fn a_time_stamp_beyond_all_reason_breaks_nothing() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.close(&mut recording, u64::MAX, End::Client);
    let file = pcapng(&recording, Order::Little, Block::Enhanced, 9);
    let played = replay(&file, &[server(8080, Some(LIMIT))]).expect("a recording");
    assert_eq!(alerts(&played).len(), 2, "expired, then closed");
    assert_eq!(played.connections()[0].how, Some("fin"));
}

/// What storm findings say of `users` behind one address, who come within 20 s; each `leaver`th stays for
/// 100 ms, and `lost` of the others end at once when all have been there for 8 s.
fn behind_a_proxy(users: u16, leaver: u16, lost: usize) -> Vec<String> {
    let mut recording = Recording::default();
    let mut stay = Vec::new();
    for n in 0..users {
        let at = START + u64::from(n) * 20 * SECOND / u64::from(users);
        let client = format!("192.0.2.1:{}", 2_000 + n);
        let mut conversation = Conversation::new(&client, "10.0.0.1:8080");
        conversation.open(&mut recording, at);
        upgrade(&mut conversation, &mut recording, at);
        if n % leaver == leaver - 1 {
            conversation.close(&mut recording, at + 100 * MILLI, End::Client);
        } else {
            stay.push(conversation);
        }
    }
    let at = START + 28 * SECOND;
    for (n, conversation) in (0..).zip(&mut stay[..lost]) {
        conversation.close(&mut recording, at + n * MILLI, End::Server);
    }
    tick(&mut recording, 32);
    recording.packets.sort_by_key(|(at, _)| *at);
    let played = judge(&recording, &[server(8080, None)]);
    let storms = played.records.iter().filter_map(|record| match record {
        Record::Notice(Notice::Storm(alert)) => Some(alert.reason().to_owned()),
        _ => None,
    });
    storms.collect()
}

#[test]
fn users_who_leave_a_crowd_behind_one_address_are_no_client_that_thrashes() {
    for (users, leaver) in [
        (2, 2),
        (12, 2),
        (20, 4),
        (120, 24),
        (120, 3),
        (500, 10),
        (2_000, 20),
    ] {
        assert_eq!(
            behind_a_proxy(users, leaver, 0),
            [""; 0],
            "{users}, {leaver}"
        );
    }
    // All leave.
    let told = behind_a_proxy(60, 1, 0);
    assert!(
        told[0].starts_with("a client connects again and again"),
        "{told:?}"
    );
}

#[test]
fn a_recording_that_begins_just_before_a_mass_close_tells_of_it() {
    for (users, lost) in [(45, 45), (45, 22), (300, 100), (1_000, 60)] {
        let told = behind_a_proxy(users, u16::MAX, lost);
        let expected = format!("{lost} connections were lost at once");
        assert_eq!(told, [expected], "{users}");
    }
    for (users, lost) in [(45, 20), (1_000, 50)] {
        assert_eq!(
            behind_a_proxy(users, u16::MAX, lost),
            [""; 0],
            "{lost} of {users}"
        );
    }
}
