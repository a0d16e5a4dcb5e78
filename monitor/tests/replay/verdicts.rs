//! The core's verdicts, with the packets' times as the clock.

use std::time::Duration;

use monitor::replay::ReplayRecord;
use monitor_common::moment::rounded;
use monitor_core::{AlertResolution, Certainty, CloseHow, Status, Subject, VerdictKind};
use wire::{Conversation, End, MILLI, Order, PING, PONG, Recording, SECOND, START, TEXT};

use crate::{
    Played,
    files::{Block, pcapng},
    frame, judge, opened, replay, server, upgrade,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Each alert: seconds since the start, kind, status, certainty.
fn alerts(played: &Played) -> Vec<(f64, VerdictKind, Status, Certainty)> {
    let mut alerts = Vec::new();
    for record in &played.records {
        if let ReplayRecord::Alert(alert) = record
            && let Subject::Connection(verdict) = &alert.subject
        {
            let at = (alert.at.0 - START) as f64 / SECOND as f64;
            alerts.push((at, verdict.kind, alert.status, verdict.certainty));
        }
    }
    alerts
}

/// A packet of no watched connection, which advances the clock.
fn tick(to: &mut Recording, seconds: u64) {
    let mut stranger = Conversation::new("10.9.9.9:50000", "10.9.9.8:9999");
    stranger.syn(to, START + seconds * SECOND);
}

#[test]
fn a_connection_idle_past_the_limit_expires_and_recovers_with_the_next_packet() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"still here", true);
    conversation.says(&mut recording, START + 100 * SECOND, End::Client, &text);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    let alerts = alerts(&played);
    let [fired, resolved] = alerts[..] else {
        panic!("{alerts:?}");
    };
    // The last packet of the handshake was at 7 ms. The limit must be exceeded, not just reached.
    assert!((60.007..60.008).contains(&fired.0), "{fired:?}");
    assert_eq!(fired.1, VerdictKind::Expired);
    assert_eq!((fired.2, fired.3), (Status::Firing, Certainty::Suspected));
    let recovered = Status::Resolved(AlertResolution::Recovered);
    assert_eq!((resolved.0, resolved.2), (100.0, recovered));
}

#[test]
fn a_burst_of_verdicts_is_grouped_as_live_and_each_counts_in_the_summary() {
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
            ReplayRecord::Alert(alert) => match &alert.subject {
                Subject::Group(group) => Some((group.count, group.examples.len())),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(groups, [(10, 10)]);
    assert_eq!(played.summary.alerts, 30);
}

#[test]
fn an_idle_gap_of_exactly_the_limit_gives_no_verdict() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let at = START + 7 * MILLI + 60 * SECOND;
    conversation.says(&mut recording, at, End::Client, &frame(TEXT, b"just", true));
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played), []);
}

#[test]
fn unanswered_transmissions_confirm_that_it_is_expired() {
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
    // The reset comes from the path, not from the peer, so this is not a recovery.
    let reset = Status::Resolved(AlertResolution::Closed(CloseHow::RstReceived));
    assert_eq!((resolved.0, resolved.2), (80.0, reset));
    assert_eq!(played.connections()[0].how, Some("rst_received"));
}

#[test]
fn unacknowledged_data_is_black_holed() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"anybody?", false);
    let at = START + SECOND;
    conversation.shouts(&mut recording, at, End::Server, &text);
    for after in [200, 600, 1400, 3000, 6200] {
        conversation.repeats(&mut recording, at + after * MILLI, End::Server, &text);
    }
    // The fifth has had less than a second for its answer when the recording ends.
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
    let recovered = Status::Resolved(AlertResolution::Recovered);
    assert_eq!(alerts(&played)[1].0, 15.0);
    assert_eq!(alerts(&played)[1].2, recovered);
    assert_eq!(played.connections()[0].retransmits_total, Some(6));
}

#[test]
fn pings_acknowledged_by_tcp_but_not_answered_are_unresponsive() {
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
    // A second after the second unanswered ping; the floor ended a second before.
    assert!((31.0..31.1).contains(&fired.0), "{fired:?}");
    assert_eq!(fired.1, VerdictKind::Unresponsive);
    assert_eq!(fired.3, Certainty::Confirmed);
    assert_eq!(played.connections()[0].tx.pings_unanswered, Some(2));
}

/// A server that pings, and a client that answers as the test decides.
struct Heartbeat {
    conversation: Conversation,
    recording: Recording,
    pings: u8,
}

impl Heartbeat {
    fn new() -> Self {
        let mut conversation = Conversation::v4();
        let recording = opened(&mut conversation);
        Self {
            conversation,
            recording,
            pings: 0,
        }
    }

    /// This many pings in one segment, which TCP acknowledges.
    fn ping(&mut self, at: u64, pings: u8) {
        let mut bytes = Vec::new();
        for _ in 0..pings {
            bytes.extend(frame(PING, &[self.pings], false));
            self.pings += 1;
        }
        self.says(at, End::Server, &bytes);
        self.conversation
            .ack(&mut self.recording, at + MILLI, End::Client);
    }

    /// All pending pongs.
    fn pong(&mut self, at: u64) {
        let pongs = (0..self.pings).flat_map(|n| frame(PONG, &[n], true));
        let pongs: Vec<u8> = pongs.collect();
        self.pings = 0;
        self.says(at, End::Client, &pongs);
    }

    fn says(&mut self, at: u64, from: End, payload: &[u8]) {
        self.conversation
            .says(&mut self.recording, at, from, payload);
    }

    /// Makes the last packet, with 24 bytes before its TCP header, advertise a window of 0.
    fn close_window(&mut self) {
        let (_, packet) = self.recording.packets.last_mut().expect("a packet");
        packet[38..40].copy_from_slice(&[0, 0]);
    }

    /// The alerts until this many seconds have passed.
    fn alerts(&mut self, seconds: u64) -> Vec<(f64, VerdictKind, Status, Certainty)> {
        tick(&mut self.recording, seconds);
        alerts(&judge(&self.recording, &[server(8080, None)]))
    }
}

#[test]
fn a_client_that_uploads_over_a_slow_link_is_not_unresponsive() {
    const SIZE: usize = 200_000;
    for (kilobits, ping_every) in [(100, 1), (100, 6), (300, 2), (1_000, 1)] {
        let mut it = Heartbeat::new();
        let message = [&[0x82, 0xff][..], &(SIZE as u64).to_be_bytes(), &[0; 4]].concat();
        it.says(START + SECOND, End::Client, &message);
        let between = 1_400 * 8 * MILLI / kilobits;
        let mut at = START + SECOND;
        let mut next_ping = START + 2 * SECOND;
        for chunk in vec![0x77; SIZE].chunks(1_400) {
            at += between;
            if at >= next_ping {
                it.ping(at, 1);
                next_ping += ping_every * SECOND;
            }
            it.says(at + 2 * MILLI, End::Client, chunk);
        }
        let owed = it.pings;
        it.pong(at + 10 * MILLI);
        assert_eq!(it.alerts(60), [], "{kilobits} kbit/s, {owed} pongs late");
    }
}

#[test]
fn pings_in_one_segment_are_one_attempt() {
    let mut it = Heartbeat::new();
    it.ping(START + SECOND, 3);
    assert_eq!(it.alerts(25), []);
    it.ping(START + 26 * SECOND, 1);
    let said = it.alerts(40);
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_client_that_pauses_for_less_than_the_floor_is_at_most_suspected() {
    for pause in [1_500, 2_300, 5_000, 9_900] {
        let mut it = Heartbeat::new();
        for second in 0..=pause / 1_000 {
            it.ping(START + (1_000 + second * 1_000) * MILLI, 1);
        }
        it.pong(START + (1_000 + pause) * MILLI);
        let said = it.alerts(60);
        let fired = said.iter().filter(|it| it.2 == Status::Firing);
        assert_eq!(
            fired.clone().count(),
            usize::from(pause >= 2_000),
            "{said:?}"
        );
        assert!(
            said.iter().all(|it| it.3 == Certainty::Suspected),
            "{said:?}"
        );
    }
}

#[test]
fn a_server_with_a_closed_window_is_stalled_and_its_client_is_not_unresponsive() {
    let mut it = Heartbeat::new();
    it.says(
        START + SECOND,
        End::Client,
        &frame(TEXT, b"to be continued", true),
    );
    it.conversation
        .ack(&mut it.recording, START + SECOND, End::Server);
    it.close_window();
    for n in 1..20 {
        let at = START + (1 + 2 * n) * SECOND;
        let ping = frame(PING, &[n as u8], false);
        it.says(at, End::Server, &ping);
        it.close_window();
        it.conversation.ack(&mut it.recording, at, End::Client);
    }
    it.conversation
        .ack(&mut it.recording, START + 41 * SECOND, End::Server);
    let recovered = Status::Resolved(AlertResolution::Recovered);
    let stalled = |at, status| (at, VerdictKind::Stalled, status, Certainty::Suspected);
    // The time of closing is kept in ticks.
    let due = rounded(START + SECOND) - START + 10 * SECOND;
    let due = due as f64 / SECOND as f64;
    assert_eq!(
        it.alerts(60),
        [stalled(due, Status::Firing), stalled(41.0, recovered)]
    );
}

#[test]
fn a_verdict_due_after_the_last_packet_is_not_reported() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    tick(&mut recording, 60);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played), [], "the limit ends 7 ms later");
    tick(&mut recording, 61);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played).len(), 1, "any packet moves the clock");
    assert_eq!(played.summary.open, 1);
}

#[test]
fn a_large_jump_of_the_clock_is_judged_at_once() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.says(
        &mut recording,
        START + SECOND,
        End::Server,
        &frame(PING, b"", false),
    );
    // The end of a pcap file's 32-bit seconds, in 2106.
    let end = u64::from(u32::MAX) * SECOND;
    let mut stranger = Conversation::new("10.9.9.9:50000", "10.9.9.8:9999");
    stranger.syn(&mut recording, end);
    let played = judge(&recording, &[server(8080, Some(LIMIT))]);
    assert_eq!(alerts(&played).len(), 1);
}

#[test]
fn an_absurd_timestamp_breaks_nothing() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.close(&mut recording, u64::MAX, End::Client);
    let file = pcapng(&recording, Order::Little, Block::Enhanced, 9);
    let played = replay(&file, &[server(8080, Some(LIMIT))]).expect("a recording");
    assert_eq!(alerts(&played).len(), 2, "expired, then closed");
    assert_eq!(played.connections()[0].how, Some("fin"));
}

/// The storm findings about `users` behind one address, who connect within 20 s. Every `leaver`th
/// stays for 100 ms, and `lost` of the others end at once when all have been connected for 8 s.
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
        ReplayRecord::Alert(alert) => {
            let is_storm = matches!(alert.subject, Subject::Storm(_) | Subject::Thrash(_));
            is_storm.then(|| alert.reason.clone())
        }
        _ => None,
    });
    storms.collect()
}

#[test]
fn users_behind_one_address_who_leave_are_not_a_thrashing_client() {
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
    let reported = behind_a_proxy(60, 1, 0);
    assert!(
        reported[0].starts_with("a client connects repeatedly"),
        "{reported:?}"
    );
}

#[test]
fn a_mass_close_soon_after_the_start_of_a_recording_is_reported() {
    for (users, lost) in [(45, 45), (45, 22), (300, 100), (1_000, 60)] {
        let reported = behind_a_proxy(users, u16::MAX, lost);
        let expected = format!("{lost} connections were lost at once");
        assert_eq!(reported, [expected], "{users}");
    }
    for (users, lost) in [(45, 20), (1_000, 50)] {
        assert_eq!(
            behind_a_proxy(users, u16::MAX, lost),
            [""; 0],
            "{lost} of {users}"
        );
    }
}
