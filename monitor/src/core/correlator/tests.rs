use super::*;
use crate::core::{
    Certainty, CloseHow, Hop, OnExpiry, Resolution, Status, Trouble, VerdictKind,
    event::ReceiveQueue,
    facts::{Close, Closing, ClosingBy, Direction, Gap, Protocol},
    hop::{Activity, Path},
    loss::Loss,
};

const STALENESS: Duration = Duration::from_millis(260);

/// Milliseconds since boot.
fn ms(at: u64) -> Ktime {
    Ktime(at * 1_000_000)
}

/// A core with one listener behind a hop of 6 s, and the snapshot it reads.
struct Bench {
    core: Correlator,
    snapshot: Option<Facts>,
    looks: u32,
    said: Vec<(u64, Status, VerdictKind, Certainty)>,
    reasons: Vec<String>,
}

impl Bench {
    fn under(rules: ListenerRules) -> Self {
        Self {
            core: Correlator::new(vec![rules], STALENESS),
            snapshot: None,
            looks: 0,
            said: Vec::new(),
            reasons: Vec::new(),
        }
    }

    fn behind(hop: Option<OnExpiry>) -> Self {
        let hop = hop.map(|on_expiry| Hop::new("lb", Duration::from_secs(6), on_expiry));
        Self::under(ListenerRules::new("web", hop))
    }

    fn opened(hop: Option<OnExpiry>) -> (Self, Facts) {
        let mut bench = Self::behind(hop);
        let facts = Facts::newborn(1, ms(0));
        bench.event(Event::Opened(Box::new(facts.clone())));
        (bench, facts)
    }

    fn event(&mut self, event: Event) {
        if let Event::Opened(facts) | Event::Trouble { facts, .. } = &event {
            self.snapshot = Some((**facts).clone());
        }
        self.core.handle_event(event);
        self.listen();
    }

    fn trouble(&mut self, trouble: Trouble, at: u64, facts: &Facts) {
        let facts = Box::new(Facts {
            at: ms(at),
            ..facts.clone()
        });
        self.event(Event::Trouble { facts, trouble });
    }

    fn closed(&mut self, how: CloseHow, at: u64, facts: &Facts) {
        let facts = Box::new(Facts {
            at: ms(at),
            ..facts.clone()
        });
        self.event(Event::Closed { facts, how });
    }

    /// Lets the time pass, showing it whenever the core asks.
    fn until(&mut self, end: u64) {
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= ms(end)) {
            self.show(at);
        }
        self.show(ms(end));
    }

    fn show(&mut self, now: Ktime) {
        self.core.handle_timeout(now);
        while let Some(conn) = self.core.poll_inspect() {
            self.looks += 1;
            self.core
                .handle_snapshot(conn, self.snapshot.clone().map(Box::new));
        }
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(action) = self.core.poll_action() {
            if let Action::Alert(alert) = action {
                let at = alert.at.0 / 1_000_000;
                self.said
                    .push((at, alert.status, alert.kind, alert.certainty));
                self.reasons.push(alert.reason);
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.core.tally()[0]
    }
}

/// A ping leaves.
fn ping(facts: &mut Facts, at: u64) {
    let at = ms(at);
    facts.tx.last_packet = Some(at);
    facts.tx.last_frame = Some(at);
    facts.pings_unanswered += 1;
    facts.first_unanswered_ping.get_or_insert(at);
    facts.last_unanswered_ping = Some(at);
}

/// Everything sent is acknowledged.
fn ack(facts: &mut Facts, at: u64) {
    facts.rx.last_packet = Some(ms(at));
    facts.ack_progress_at = Some(ms(at));
    facts.unacked_bytes = 0;
    facts.stalled_since = None;
    facts.retransmits = 0;
    facts.unanswered_transmissions = 0;
    facts.unanswered_since = None;
}

/// Bytes leave after a silence since `from`, and for the `retransmits`-th time.
fn speak_into_silence(facts: &mut Facts, from: u64, to: u64) {
    facts.last_gap = Some(Gap {
        from: ms(from),
        to: ms(to),
        ended_by: Direction::Tx,
    });
    send(facts, to);
}

fn send(facts: &mut Facts, at: u64) {
    facts.tx.last_packet = Some(ms(at));
    facts.tx.last_payload = Some(ms(at));
    facts.unacked_bytes = 100;
    facts.stalled_since = Some(ms(at));
    facts.unanswered_transmissions = 1;
    facts.unanswered_since = Some(ms(at));
}

fn retransmit(facts: &mut Facts, at: u64) {
    facts.tx.last_packet = Some(ms(at));
    facts.retransmits += 1;
    facts.unanswered_transmissions += 1;
}

const FIRING: Status = Status::Firing;
const RECOVERED: Status = Status::Resolved(Resolution::Recovered);
use Certainty::{Confirmed, Suspected};
use VerdictKind::{BlackHoled, Expired, Expiring, HalfClosed, Quiet, Stalled, Unresponsive};

#[test]
fn an_idle_flow_is_suspected_when_the_limit_has_surely_passed() {
    let (mut bench, _) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(6_260);
    assert_eq!(bench.said, []);
    bench.until(6_261);
    assert_eq!(bench.said, [(6_260, FIRING, Expired, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "idle 6.2 s on a path that forgets after 6 s (lb): no FIN, no RST; \
         the application still thinks it is open"
    );
    assert_eq!(
        bench.core.poll_timeout(),
        None,
        "nothing sent: only events matter now"
    );
}

#[test]
fn an_acknowledgement_that_was_never_published_does_not_hide_an_expired_flow() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    send(&mut facts, 1_000);
    bench.snapshot = Some(facts);
    bench.until(7_261);
    assert_eq!(bench.said, [(7_260, FIRING, Expired, Suspected)]);
}

#[test]
fn a_hop_that_says_goodbye_leaves_no_zombie() {
    for hop in [None, Some(OnExpiry::Fin), Some(OnExpiry::Rst)] {
        let (mut bench, _) = Bench::opened(hop);
        bench.until(60_000);
        assert_eq!(bench.tally().detected.map(|n| n > 0), {
            let mut detected = [false; 7];
            detected[Expiring as usize] = hop.is_some();
            detected
        });
        assert_eq!(bench.tally().at_risk, 0);
        assert_eq!(bench.core.poll_timeout(), None);
    }
}

#[test]
fn a_hop_that_closes_is_announced_when_a_twentieth_of_its_limit_is_left() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(6_000);
    assert_eq!(bench.said, [(5_960, FIRING, Expiring, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "idle 5.9 s; lb closes connections after 6 s of silence: expect a disconnect, not a zombie"
    );
    facts.fin_rx = true;
    facts.at = ms(6_040);
    bench.event(Event::Closing(Box::new(facts.clone())));
    assert_eq!(bench.said.len(), 1, "the FIN is what was announced");
    bench.closed(CloseHow::Fin, 6_050, &facts);
    let closed = Status::Resolved(Resolution::Closed(CloseHow::Fin));
    assert_eq!(bench.said[1..], [(6_050, closed, Expiring, Suspected)]);
    assert_eq!(bench.tally().detected[Expiring as usize], 1);
}

#[test]
fn a_message_in_time_ends_the_announcement() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(5_970);
    facts.rx.last_packet = Some(ms(5_980));
    bench.snapshot = Some(facts);
    bench.until(11_000);
    assert_eq!(bench.said[1..], [(6_960, RECOVERED, Expiring, Suspected)]);
}

#[test]
fn a_connection_near_its_longest_life_is_announced_however_busy() {
    let hop = Hop {
        idle_timeout: None,
        max_lifetime: Some(Duration::from_secs(100)),
        ..Hop::new("gateway", Duration::from_secs(1), OnExpiry::Fin)
    };
    let mut bench = Bench::under(ListenerRules::new("web", Some(hop)));
    let mut facts = Facts::newborn(1, ms(0));
    bench.event(Event::Opened(Box::new(facts.clone())));
    facts.rx.last_packet = Some(ms(94_999));
    bench.snapshot = Some(facts);
    bench.until(100_000);
    assert_eq!(bench.said, [(95_000, FIRING, Expiring, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "95 s old; gateway closes connections after 100 s: expect a disconnect, busy or not"
    );
}

#[test]
fn a_peer_that_closed_a_minute_ago_makes_a_half_closed_connection() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.fin_rx = true;
    facts.closing = Some(Closing {
        at: ms(2_000),
        by: ClosingBy::Fin(Direction::Rx),
    });
    facts.at = ms(2_000);
    bench.event(Event::Closing(Box::new(facts.clone())));
    bench.snapshot = Some(facts.clone());
    bench.until(61_999);
    assert_eq!(bench.said, []);
    bench.until(62_000);
    assert_eq!(bench.said, [(62_000, FIRING, HalfClosed, Confirmed)]);
    facts.fin_tx = true;
    bench.closed(CloseHow::Fin, 63_000, &facts);
    assert_eq!(bench.said.len(), 2);
    assert_eq!(
        bench.tally().idle_at_death.count(),
        1,
        "of the close, not of the verdict"
    );
}

#[test]
fn an_application_that_does_not_read_for_half_a_minute_is_stalled_until_it_does() {
    let (mut bench, facts) = Bench::opened(None);
    let look = |bench: &mut Bench, at: u64, read: u64, bytes: u32| {
        let queue = ReceiveQueue {
            conn: facts.conn,
            bytes,
            read,
        };
        let unread = (bytes > 0).then_some(queue).into_iter().collect();
        bench.event(Event::QueuesSeen {
            at: ms(at),
            unread,
            complete: true,
        });
        bench.until(at);
    };
    look(&mut bench, 10_000, 7, 100);
    look(&mut bench, 25_000, 9, 200);
    look(&mut bench, 50_000, 9, 300);
    assert_eq!(bench.said, [], "it read in between, 25 s ago");
    look(&mut bench, 56_000, 9, 400);
    assert_eq!(bench.said, [(56_000, FIRING, Stalled, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "this host's application has left 400 bytes unread for 31 s"
    );
    look(&mut bench, 70_000, 409, 0);
    assert_eq!(bench.said[1..], [(70_000, RECOVERED, Stalled, Confirmed)]);
}

#[test]
fn a_peer_without_messages_is_quiet_whatever_else_it_sends() {
    let mut bench = Bench::under(ListenerRules {
        message_gap: Some(Duration::from_secs(35)),
        ..ListenerRules::new("web", None)
    });
    let mut facts = Facts::newborn(1, ms(0));
    facts.opened_at = Some(ms(10));
    facts.rx.last_message = Some(ms(1_000));
    bench.event(Event::Opened(Box::new(facts.clone())));
    facts.rx.last_packet = Some(ms(36_000));
    bench.snapshot = Some(facts.clone());
    bench.until(36_259);
    assert_eq!(bench.said, []);
    bench.until(36_261);
    assert_eq!(bench.said, [(36_260, FIRING, Quiet, Suspected)]);
    facts.rx.last_message = Some(ms(36_500));
    bench.snapshot = Some(facts);
    bench.until(39_000);
    assert_eq!(bench.said[1].1, RECOVERED);
}

#[test]
fn a_zombie_takes_the_place_of_a_warning() {
    let mut bench = Bench::under(ListenerRules {
        message_gap: Some(Duration::from_secs(3)),
        ..ListenerRules::new(
            "web",
            Some(Hop::new("lb", Duration::from_secs(6), OnExpiry::Silent)),
        )
    });
    let facts = Facts::newborn(1, ms(0));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(7_000);
    let superseded = Status::Resolved(Resolution::Superseded);
    assert_eq!(
        bench.said,
        [
            (3_260, FIRING, Quiet, Suspected),
            (6_260, superseded, Quiet, Suspected),
            (6_260, FIRING, Expired, Suspected),
        ]
    );
}

#[test]
fn of_several_hops_the_first_to_forget_is_named() {
    let hop = |name: &str, seconds| Hop::new(name, Duration::from_secs(seconds), OnExpiry::Silent);
    let mut payload = hop("proxy", 5);
    payload.activity = Activity::Payload;
    let rules = ListenerRules {
        path: Path {
            hops: vec![hop("nat", 9), payload],
        },
        ..ListenerRules::new("web", None)
    };
    let mut bench = Bench::under(rules);
    let mut facts = Facts::newborn(1, ms(0));
    facts.rx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(4_000));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(6_261);
    assert_eq!(bench.said, [(6_260, FIRING, Expired, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "idle 5 s on a path that forgets after 5 s (proxy): no FIN, no RST; the application still \
         thinks it is open"
    );
}

#[test]
fn a_hop_that_should_have_forgotten_and_lets_packets_through_makes_no_zombie() {
    let mut hop = Hop::new("proxy", Duration::from_secs(5), OnExpiry::Silent);
    hop.activity = Activity::Payload;
    let mut bench = Bench::under(ListenerRules::new("web", Some(hop)));
    let mut facts = Facts::newborn(1, ms(0));
    facts.rx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(6_100));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(60_000);
    assert_eq!(bench.said, []);
}

#[test]
fn speaking_into_the_silence_is_suspected_at_once_and_confirmed_a_second_later() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::RstOnNextPacket));
    speak_into_silence(&mut facts, 0, 6_100);
    bench.trouble(Trouble::Resumed, 6_100, &facts);
    assert_eq!(bench.said, [(6_100, FIRING, Expired, Suspected)]);
    retransmit(&mut facts, 6_300);
    bench.trouble(Trouble::Retransmit, 6_300, &facts);
    bench.until(7_099);
    assert_eq!(bench.said.len(), 1);
    bench.until(7_100);
    assert_eq!(bench.said[1], (7_100, FIRING, Expired, Confirmed));
    assert_eq!(
        bench.reasons[1],
        "idle 6.1 s on a path that forgets after 6 s (lb), then 2 transmissions unanswered \
         for 1 s: the path is dead"
    );
    assert_eq!(bench.tally().detected[Expired as usize], 1);
    assert_eq!(bench.tally().idle_at_death.count(), 1);
}

#[test]
fn an_answer_resolves_and_the_flow_may_die_again() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(6_500);
    speak_into_silence(&mut facts, 0, 7_000);
    bench.trouble(Trouble::Resumed, 7_000, &facts);
    ack(&mut facts, 7_040);
    bench.trouble(Trouble::Answered, 7_040, &facts);
    assert_eq!(bench.said[1], (7_040, RECOVERED, Expired, Suspected));
    assert_eq!(bench.reasons[1], "heard again after 7.0 s");
    bench.until(20_000);
    assert_eq!(bench.said[2], (13_300, FIRING, Expired, Suspected));
    assert_eq!(
        (bench.tally().detected[0], bench.tally().recovered[0]),
        (2, 1)
    );
}

#[test]
fn a_silence_ended_by_the_peer_proves_the_path_alive() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    facts.last_gap = Some(Gap {
        from: ms(0),
        to: ms(6_200),
        ended_by: Direction::Rx,
    });
    facts.rx.last_packet = Some(ms(6_200));
    bench.trouble(Trouble::Resumed, 6_200, &facts);
    bench.until(12_000);
    assert_eq!(bench.said, []);
}

#[test]
fn a_reset_from_an_expired_path_is_not_a_recovery() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::RstOnNextPacket));
    speak_into_silence(&mut facts, 0, 7_000);
    bench.trouble(Trouble::Resumed, 7_000, &facts);
    facts.rx.last_packet = Some(ms(7_040));
    facts.rst_rx = true;
    bench.trouble(Trouble::Reset, 7_040, &facts);
    assert_eq!(bench.said.len(), 1);
    bench.closed(CloseHow::RstReceived, 7_040, &facts);
    let closed = Status::Resolved(Resolution::Closed(CloseHow::RstReceived));
    assert_eq!(bench.said[1], (7_040, closed, Expired, Suspected));
    assert_eq!(bench.tally().zombies, [0; 7]);
    assert!(bench.core.is_empty());
}

#[test]
fn the_at_risk_gauge_rises_at_four_fifths_and_falls_with_activity() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(4_799);
    assert_eq!(bench.tally().at_risk, 0);
    bench.until(4_800);
    assert_eq!(bench.tally().at_risk, 1);
    facts.rx.last_packet = Some(ms(4_900));
    bench.snapshot = Some(facts);
    bench.until(5_800);
    assert_eq!(bench.tally().at_risk, 0);
}

#[test]
fn five_retransmissions_in_seven_seconds_are_a_black_hole() {
    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    facts.unacked_bytes = 4_096;
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(7_999);
    assert_eq!(bench.said, []);
    bench.until(8_000);
    assert_eq!(bench.said, [(8_000, FIRING, BlackHoled, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "4,096 bytes unacknowledged for 7 s after 5 retransmissions; \
         TCP itself gives up only after about 15 minutes"
    );
    ack(&mut facts, 9_000);
    bench.trouble(Trouble::Answered, 9_000, &facts);
    assert_eq!(bench.said[1], (9_000, RECOVERED, BlackHoled, Confirmed));
}

/// Where one try in seven fails, eight in a row are chance less than once in a million times.
fn lossy() -> Loss {
    let loss = Loss::from_late(5_200);
    assert_eq!(loss.tries_beyond_chance(), 8);
    loss
}

#[test]
fn on_a_lossy_path_a_black_hole_is_suspected_until_tcp_has_tried_often_enough() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.loss = lossy();
    send(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(8_500);
    assert_eq!(bench.said, [(8_000, FIRING, BlackHoled, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "100 bytes unacknowledged for 7 s after 5 retransmissions, on a path where 15 % of the tries \
         fail anyway: it may be chance"
    );
    retransmit(&mut facts, 13_500);
    bench.snapshot = Some(facts.clone());
    bench.until(26_000);
    assert_eq!(bench.said.len(), 1, "seven tries");
    retransmit(&mut facts, 26_300);
    bench.snapshot = Some(facts);
    bench.until(28_000);
    assert_eq!(bench.said[1..], [(27_000, FIRING, BlackHoled, Confirmed)]);
    assert_eq!(bench.core.poll_timeout(), None);
    assert_eq!(bench.tally().detected[BlackHoled as usize], 1);
}

#[test]
fn what_the_other_connections_lose_makes_one_that_lost_nothing_yet_suspected_only() {
    let (mut bench, mut facts) = Bench::opened(None);
    let deliveries = Deliveries {
        delivered: 1_000,
        late: 250,
        retransmits: 390,
    };
    bench
        .core
        .handle_deliveries(ms(0), ListenerId(0), deliveries);
    send(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        assert_eq!(bench.core.wants_deliveries(), at > 1_600, "at {at}");
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
        bench.until(at + 50);
    }
    bench.until(8_000);
    assert_eq!(bench.said, [(8_000, FIRING, BlackHoled, Suspected)]);
    bench.until(200_000);
    assert!(!bench.core.wants_deliveries(), "TCP has given up");
}

#[test]
fn on_a_lossy_path_an_expired_flow_is_confirmed_by_more_than_two_tries() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    facts.loss = lossy();
    speak_into_silence(&mut facts, 0, 8_000);
    bench.trouble(Trouble::Resumed, 8_000, &facts);
    assert_eq!(bench.said, [(8_000, FIRING, Expired, Suspected)]);
    for at in [8_200, 8_600, 9_400, 11_000, 14_200, 20_600] {
        bench.until(at);
        retransmit(&mut facts, at);
        bench.snapshot = Some(facts.clone());
    }
    bench.until(33_000);
    assert_eq!(bench.said.len(), 1, "seven tries");
    retransmit(&mut facts, 33_400);
    bench.snapshot = Some(facts);
    bench.until(34_000);
    assert_eq!(bench.said[1..], [(34_000, FIRING, Expired, Confirmed)]);
}

#[test]
fn on_a_lossy_path_a_pong_may_be_sent_many_times() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.loss = lossy();
    facts.ping_rtt = Some(Duration::from_millis(10));
    for at in [1_000, 2_000] {
        ping(&mut facts, at);
        ack(&mut facts, at + 10);
    }
    bench.trouble(Trouble::PingUnanswered, 2_010, &facts);
    // 0.21 s, doubled seven times.
    bench.until(2_000 + 26_600);
    assert_eq!(bench.said, []);
    bench.until(2_000 + 26_700);
    let [(_, FIRING, Unresponsive, Confirmed)] = bench.said[..] else {
        panic!("{:?}", bench.said);
    };
}

#[test]
fn a_fifth_retransmission_that_left_early_or_just_now_proves_nothing() {
    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    for at in [1_020, 1_230, 1_640, 2_470, 4_130] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.snapshot = Some(facts.clone());
    bench.until(8_499);
    retransmit(&mut facts, 8_500);
    bench.snapshot = Some(facts.clone());
    assert_eq!(bench.said, []);
    bench.until(9_000);
    assert_eq!(bench.said, [(9_000, FIRING, BlackHoled, Confirmed)]);

    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    for at in [1_400, 2_200, 3_800, 7_000, 13_400] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(14_399);
    assert_eq!(bench.said, []);
    bench.until(14_400);
    assert_eq!(bench.said, [(14_400, FIRING, BlackHoled, Confirmed)]);
}

#[test]
fn an_outage_of_five_seconds_is_no_zombie() {
    let (mut bench, mut facts) = Bench::opened(None);
    ping(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 7_200] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    ack(&mut facts, 7_203);
    bench.trouble(Trouble::Answered, 7_203, &facts);
    // What had to wait for the acknowledgement leaves at once.
    for _ in 0..6 {
        ping(&mut facts, 7_203);
        bench.trouble(Trouble::PingUnanswered, 7_203, &facts);
    }
    ack(&mut facts, 7_206);
    facts.pings_unanswered = 0;
    facts.first_unanswered_ping = None;
    facts.last_unanswered_ping = None;
    bench.snapshot = Some(facts);
    bench.until(20_000);
    assert_eq!(bench.said, []);
}

#[test]
fn after_a_long_silence_two_retransmissions_in_a_second_are_enough() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    speak_into_silence(&mut facts, 0, 8_000);
    for at in [8_200, 8_600] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(10_000);
    assert_eq!(bench.said, [(9_000, FIRING, BlackHoled, Confirmed)]);
}

#[test]
fn a_deaf_client_is_confirmed_at_its_second_unanswered_ping() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.ping_rtt = Some(Duration::from_millis(500));
    ping(&mut facts, 1_000);
    ack(&mut facts, 1_001);
    ping(&mut facts, 21_000);
    bench.trouble(Trouble::PingUnanswered, 21_000, &facts);
    bench.until(22_999);
    assert_eq!(bench.said, []);
    bench.until(23_000);
    assert_eq!(bench.said, [(23_000, FIRING, Unresponsive, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "2 pings unanswered for 22 s while TCP acknowledges: \
         a kernel or proxy is alive, the client is not"
    );
}

#[test]
fn pings_that_leave_faster_than_the_grace_do_not_put_off_the_verdict() {
    let (mut bench, mut facts) = Bench::opened(None);
    for at in [2_000, 2_400, 2_800, 3_200] {
        ping(&mut facts, at);
        ack(&mut facts, at);
        bench.trouble(Trouble::PingUnanswered, at, &facts);
    }
    bench.snapshot = Some(facts);
    bench.until(3_399);
    assert_eq!(bench.said, []);
    bench.until(3_400);
    assert_eq!(bench.said, [(3_400, FIRING, Unresponsive, Confirmed)]);
}

#[test]
fn a_lone_ping_is_suspected_after_its_timeout_and_a_late_pong_is_noticed() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.ping_rtt = Some(Duration::from_millis(20));
    facts.tx.last_frame = Some(ms(0));
    bench.event(Event::Opened(Box::new(facts.clone())));
    ping(&mut facts, 10_000);
    ack(&mut facts, 10_001);
    bench.snapshot = Some(facts.clone());
    bench.until(39_999);
    assert_eq!(bench.said, []);
    bench.until(40_000);
    assert_eq!(bench.said, [(40_000, FIRING, Unresponsive, Suspected)]);
    facts.pings_unanswered = 0;
    facts.first_unanswered_ping = None;
    facts.last_unanswered_ping = None;
    facts.rx.last_packet = Some(ms(40_200));
    bench.snapshot = Some(facts);
    bench.until(42_000);
    assert_eq!(bench.said[1], (41_500, RECOVERED, Unresponsive, Suspected));
}

#[test]
fn a_chatty_flow_is_looked_at_once_per_four_fifths_of_the_limit() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    for at in (0..60_000).step_by(100) {
        facts.rx.last_packet = Some(ms(at));
        bench.snapshot = Some(facts.clone());
        bench.until(at);
    }
    assert!(bench.looks <= 13, "{} looks in 60 s", bench.looks);
    assert_eq!(bench.said, []);
}

#[test]
fn the_entry_of_a_closed_flow_does_not_wake_its_successor() {
    let (mut bench, facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.closed(CloseHow::Fin, 4_000, &facts);
    bench.event(Event::Opened(Box::new(Facts::newborn(1, ms(4_000)))));
    bench.until(8_799);
    assert_eq!(bench.looks, 0);
    bench.until(8_800);
    assert_eq!(bench.looks, 1);
}

#[test]
fn a_vanished_socket_gets_a_grace_period_for_its_close_event() {
    let (mut bench, facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.snapshot = None;
    bench.until(9_000);
    assert_eq!(bench.core.len(), 1);
    bench.until(10_000);
    assert_eq!(bench.core.len(), 0);
    assert_eq!(bench.said, []);
    assert_eq!(bench.core.poll_timeout(), None);
    bench.closed(CloseHow::Fin, 10_001, &facts);
    assert_eq!(bench.tally().abnormal_closures, 1, "late, but a close");
}

#[test]
fn lost_records_ask_for_one_reconciliation_at_a_time() {
    let mut core = Bench::behind(None).core;
    core.handle_event(Event::Lost {
        records: 3,
        at: ms(1),
    });
    core.handle_event(Event::Lost {
        records: 1,
        at: ms(2),
    });
    assert_eq!(core.poll_action(), Some(Action::Reconcile));
    assert_eq!(core.poll_action(), None);
}

#[test]
fn what_reconciliation_finds_of_a_known_flow_is_read_from_its_snapshot() {
    let (mut bench, mut facts) = Bench::opened(None);
    ping(&mut facts, 1_000);
    ping(&mut facts, 2_000);
    bench.trouble(Trouble::PingUnanswered, 2_000, &facts);
    bench.until(4_000);
    let looks = bench.looks;
    // sock_diag knows no pings: believing it would resolve the alert.
    let seeded = Facts {
        protocol: Protocol::Assumed,
        ..Facts::newborn(1, ms(4_000))
    };
    bench.event(Event::Seeded(Box::new(seeded)));
    bench.show(ms(4_000));
    assert_eq!(bench.looks, looks + 1);
    assert_eq!(bench.said.len(), 1);
    assert_eq!(
        bench.tally().connections[Protocol::WebSocket as usize].open,
        1
    );
}

#[test]
fn a_flow_older_than_the_daemon_is_judged_at_the_same_moment() {
    let mut bench = Bench::behind(Some(OnExpiry::Silent));
    let mut facts = Facts {
        established_at: None,
        ..Facts::newborn(1, ms(5_000))
    };
    facts.rx.last_packet = Some(ms(1_000));
    bench.snapshot = Some(facts.clone());
    bench.event(Event::Seeded(Box::new(facts)));
    bench.until(9_000);
    assert_eq!(bench.said, [(7_260, FIRING, Expired, Suspected)]);
}

#[test]
fn an_unknown_listener_is_counted_and_ignored() {
    let mut core = Bench::behind(None).core;
    let facts = Box::new(Facts {
        listener: ListenerId(7),
        ..Facts::newborn(1, ms(1))
    });
    core.handle_event(Event::Opened(facts.clone()));
    core.handle_event(Event::Closed {
        facts,
        how: CloseHow::Fin,
    });
    assert_eq!((core.rejected(), core.len()), (2, 0));
}

#[test]
fn closes_are_tallied_by_code_and_without_one_as_abnormal() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.tx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(61_000));
    bench.closed(CloseHow::RstReceived, 61_500, &facts);
    let tally = bench.tally();
    assert_eq!(
        (tally.abnormal_closures, tally.idle_at_death.sum().as_secs()),
        (1, 60)
    );
    assert_eq!(tally.age_at_death.sum(), Duration::from_millis(61_500));

    facts.close = Some(Close {
        initiator: Direction::Rx,
        code: Some(1001),
    });
    bench.closed(CloseHow::CloseFrame, 62_000, &facts);
    let tally = bench.tally();
    assert_eq!(tally.close_codes.counts[&(Direction::Rx, Some(1001))], 1);
    assert_eq!(
        (tally.abnormal_closures, tally.idle_at_death.count()),
        (1, 1)
    );
    assert_eq!(
        tally.connections.map(|phases| phases.open + phases.closing),
        [0; 3]
    );
}

#[test]
fn a_protocol_that_becomes_known_moves_the_gauge() {
    let mut bench = Bench::behind(None);
    let assumed = Facts {
        protocol: Protocol::Assumed,
        ..Facts::newborn(1, ms(0))
    };
    bench.event(Event::Opened(Box::new(assumed.clone())));
    bench.event(Event::Opened(Box::new(Facts {
        protocol: Protocol::WebSocket,
        ..assumed
    })));
    assert_eq!(
        bench.tally().connections.map(|phases| phases.open),
        [1, 0, 0]
    );
}

#[test]
fn a_flow_that_is_no_websocket_is_forgotten() {
    let (mut bench, _) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(7_000);
    bench.event(Event::Dismissed {
        conn: ConnId(1),
        at: ms(8_000),
    });
    assert_eq!(bench.said[1], (8_000, RECOVERED, Expired, Suspected));
    assert!(bench.core.is_empty());
    assert_eq!(bench.tally().zombies, [0; 7]);
}
