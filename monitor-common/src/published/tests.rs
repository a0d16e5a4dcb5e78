use proptest::prelude::*;

use super::*;
use crate::{
    moment::rounded,
    snapshot::{closing_by, multipath, origin, protocol, role},
};

/// A year and a half of nanoseconds: the lower bits of a moment have wrapped before.
const LATE: u64 = 1 << 55;

fn round_trip(s: &Snapshot) -> Snapshot {
    Published::of(s).snapshot(s.cookie, s.published_at)
}

/// Every point in time that is published, in full precision.
fn moments(s: &Snapshot) -> [u64; 16] {
    let of = |facts: &DirectionFacts| {
        [
            facts.last_packet,
            facts.last_payload,
            facts.last_frame,
            facts.last_data_frame,
            facts.last_ping,
        ]
    };
    let [a, b, c, d, e] = of(&s.rx);
    let [f, g, h, i, j] = of(&s.tx);
    [
        s.published_at,
        s.established_at,
        s.opened_at,
        s.closing_at,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        j,
        s.unacked_since,
        s.ack_progress_at,
    ]
}

fn any_direction(at: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = DirectionFacts> {
    (
        [at.clone(), at.clone(), at.clone(), at.clone(), at],
        0..1_u64 << 48,
        any::<[u32; 2]>(),
        0..=u32::from(u16::MAX),
        0..=1_u8,
        any::<(u8, u16)>(),
    )
        .prop_map(
            |(at, payload_bytes, [frames, pings], unanswered, fin, beat)| DirectionFacts {
                last_packet: at[0],
                last_payload: at[1],
                last_frame: at[2],
                last_data_frame: at[3],
                last_ping: at[4],
                first_unanswered_ping: 0,
                payload_bytes,
                frames,
                pings,
                pings_answered: pings.wrapping_sub(unanswered),
                fin,
                ping_jitter: beat.0,
                ping_interval: beat.1,
            },
        )
}

prop_compose! {
    fn any_snapshot()(near in prop_oneof![TICK..1 << 40, LATE..LATE << 2])(
        near in Just(near),
        rx in any_direction(moment_near(near)),
        tx in any_direction(moment_near(near)),
        more in prop::collection::vec(moment_near(near), 8),
        [cookie, cgroup_id] in any::<[u64; 2]>(),
        [local_addr, remote_addr] in any::<[[u8; 16]; 2]>(),
        [local_port, remote_port, close_code, loss, second_try_after] in any::<[u16; 5]>(),
        [version, initiator, ended_by] in [0..4_u8, 0..3, 0..2],
        [role, rst_rx, rst_tx] in [role::SERVER..=role::CLIENT, 0..=1, 0..=1],
        protocol in protocol::UNKNOWN..=protocol::UPGRADING,
        origin in origin::ESTABLISHMENT..=origin::SEEDED,
        closing_by in closing_by::NOTHING..=closing_by::FIN_TX,
        [snd_nxt, retransmits, rtt_rx, rtt_tx, gap_ticks] in any::<[u32; 5]>(),
        outstanding in 0..1_u32 << 31,
        unanswered in any::<u16>(),
        [listener, without_progress] in any::<[u8; 2]>(),
        multipath in prop_oneof![Just(multipath::UNKNOWN), Just(multipath::SUBFLOW)],
    ) -> Snapshot {
        Snapshot {
            cookie,
            published_at: near,
            established_at: more[1],
            opened_at: more[2],
            closing_at: more[3],
            cgroup_id,
            local_addr,
            remote_addr,
            local_port,
            remote_port,
            listener,
            multipath,
            close_code,
            ip_version: version * 2,
            role,
            protocol,
            origin,
            close_initiator: initiator,
            rst_rx,
            rst_tx,
            rx,
            tx,
            snd_nxt,
            snd_una: snd_nxt.wrapping_sub(outstanding),
            unacked_since: more[4],
            ack_progress_at: more[5],
            retransmits,
            retransmits_at_progress: (retransmits as u16).wrapping_sub(without_progress.into()),
            loss,
            eliciting_sends: unanswered,
            unanswered_since: Moment::of(more[6]),
            gap_to: more[7],
            gap_ticks,
            first_try: Moment::of(more[0]),
            second_try_after: if more[0] == 0 { 0 } else { second_try_after },
            ping_rtt_us: [rtt_rx, rtt_tx],
            una_known: 1,
            nxt_known: 1,
            gap_ended_by: ended_by,
            closing_by,
            ..Snapshot::EMPTY
        }
    }
}

/// Never, or from 200 days before a moment to a minute after it.
fn moment_near(near: u64) -> impl Strategy<Value = u64> + Clone {
    const DAYS: u64 = 200 * 86_400_000_000_000;
    prop_oneof![
        Just(0),
        near.saturating_sub(DAYS).max(1)..near + 60_000_000_000,
    ]
}

proptest! {
    #[test]
    fn a_published_snapshot_is_restored(s in any_snapshot()) {
        let seen = round_trip(&s);
        for (seen, known) in moments(&seen).into_iter().zip(moments(&s)) {
            prop_assert_eq!(seen == 0, known == 0);
            prop_assert_eq!(seen, rounded(known));
        }
        prop_assert!(seen.gap_to <= s.gap_to && s.gap_to - seen.gap_to < TICK);
        // Except the moments, and the numbers of which only the difference is meaningful.
        prop_assert_eq!(seen.outstanding(), s.outstanding());
        prop_assert_eq!(seen.unanswered_sends(), s.unanswered_sends());
        prop_assert_eq!(seen.retransmits_without_progress(), s.retransmits_without_progress());
        let of = |facts: DirectionFacts, from: DirectionFacts| DirectionFacts {
            last_packet: from.last_packet,
            last_payload: from.last_payload,
            last_frame: from.last_frame,
            last_data_frame: from.last_data_frame,
            last_ping: from.last_ping,
            ..facts
        };
        let expected = Snapshot {
            published_at: seen.published_at,
            established_at: seen.established_at,
            opened_at: seen.opened_at,
            closing_at: seen.closing_at,
            rx: of(s.rx, seen.rx),
            tx: of(s.tx, seen.tx),
            snd_nxt: s.outstanding(),
            snd_una: 0,
            unacked_since: seen.unacked_since,
            ack_progress_at: seen.ack_progress_at,
            gap_to: seen.gap_to,
            ..s
        };
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn rounding_is_idempotent(s in any_snapshot()) {
        let once = round_trip(&s);
        prop_assert_eq!(round_trip(&once), once);
    }

    #[test]
    fn any_bytes_can_be_read(bytes in any::<[u64; 24]>(), now: u64) {
        // SAFETY: integers only, of the same size.
        let published: Published = unsafe { core::mem::transmute(bytes) };
        let _ = published.snapshot(1, now);
    }
}

#[test]
fn invalid_moments_leave_other_fields_unchanged() {
    let odd = [0, 1, TICK, u64::MAX / 2, u64::MAX / 2 + 2, u64::MAX];
    for (near, moment) in odd.into_iter().flat_map(|near| odd.map(|it| (near, it))) {
        let s = Snapshot {
            published_at: near,
            established_at: moment,
            opened_at: moment,
            closing_at: moment,
            local_port: 8080,
            ..Snapshot::EMPTY
        };
        assert_eq!(round_trip(&s).local_port, 8080, "{near} {moment}");
    }
}

#[test]
fn an_empty_snapshot_is_published_as_empty() {
    let nothing = Published::EMPTY.snapshot(7, LATE);
    let of_nothing = Published::of(&Snapshot::EMPTY).snapshot(7, LATE);
    let expected = Snapshot {
        cookie: 7,
        una_known: 1,
        nxt_known: 1,
        ..Snapshot::EMPTY
    };
    assert_eq!([nothing, of_nothing], [expected; 2]);
}

#[test]
fn a_year_old_connection_is_published_as_208_days_old() {
    const DAY: u64 = 86_400_000_000_000;
    let s = Snapshot {
        published_at: LATE,
        established_at: LATE - 365 * DAY,
        ..Snapshot::EMPTY
    };
    let age = LATE - round_trip(&s).established_at;
    assert_eq!(age / DAY, 208);
}

#[test]
fn an_old_publication_is_restored_relative_to_its_own_time() {
    const DAY: u64 = 86_400_000_000_000;
    let mut s = Snapshot {
        published_at: LATE - 100 * DAY,
        ..Snapshot::EMPTY
    };
    s.rx.last_packet = LATE - 250 * DAY;
    let seen = Published::of(&s).snapshot(0, LATE);
    assert!(seen.rx.last_packet.abs_diff(s.rx.last_packet) < TICK);
}

#[test]
fn counts_saturate() {
    let mut s = Snapshot::EMPTY;
    s.tx.pings = u32::MAX;
    let seen = round_trip(&s);
    assert_eq!(seen.tx.pings, u32::MAX);
    assert_eq!(seen.tx.pings_unanswered(), 65_535);
    s.retransmits = 300;
    assert_eq!(round_trip(&s).retransmits_without_progress(), 255);
}

#[test]
fn a_closed_window_is_published_instead_of_tries() {
    const MINUTE: u64 = 60_000_000_000;
    let mut s = Snapshot {
        published_at: LATE,
        first_try: Moment::of(LATE - 20 * MINUTE),
        second_try_after: 7,
        ..Snapshot::EMPTY
    };
    let seen = round_trip(&s);
    assert_eq!((seen.first_try, seen.second_try_after), (s.first_try, 7));
    assert!(!seen.own_window_closed_at.is_some());
    s.first_try = Moment::NEVER;
    let seen = round_trip(&s);
    assert_eq!((seen.has_tries(), seen.second_try_after), (false, 0));
    s.own_window_closed_at = Moment::of(LATE - MINUTE);
    let seen = round_trip(&s);
    assert_eq!(seen.own_window_closed_at, s.own_window_closed_at);
    assert!(!seen.has_tries());
    // Of two closed windows, this host's is published.
    s.peer_window_closed_at = Moment::of(LATE - 2 * MINUTE);
    let seen = round_trip(&s);
    assert_eq!(seen.own_window_closed_at, s.own_window_closed_at);
    assert!(!seen.peer_window_closed_at.is_some());
    s.own_window_closed_at = Moment::NEVER;
    s.rst_rx = 1;
    let seen = round_trip(&s);
    assert_eq!(seen.peer_window_closed_at, s.peer_window_closed_at);
    assert!(!seen.own_window_closed_at.is_some() && !seen.has_tries());
    assert_eq!((seen.rst_rx, seen.rx.fin), (1, 0));
}
