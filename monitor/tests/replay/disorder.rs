//! Segments in any order, with any flags: the counts always add up.

use std::{collections::BTreeMap, time::Duration};

use monitor::replay::ReplayRecord;
use monitor_core::{ConnId, Subject};
use proptest::{prelude::*, sample::select};
use wire::{
    ACK, CLOSE, Conversation, End, FIN, MILLI, PING, PONG, REQUEST, RESPONSE, RST, Recording,
    SECOND, START, SYN, TEXT,
};

use crate::{Played, frame, judge, server, upgrade};

/// One segment.
#[derive(Clone, Debug)]
struct Act {
    conversation: usize,
    from: End,
    flags: u8,
    /// Offset of the sequence number, for this segment only.
    astray: i32,
    payload: Vec<u8>,
    /// Time before this segment; negative goes back.
    pause: i64,
    /// The other end acknowledges it from now on.
    arrives: bool,
}

fn act() -> impl Strategy<Value = Act> {
    let payload = |from: End| {
        let masked = from == End::Client;
        let pieces = [TEXT, PING, PONG, CLOSE].map(|opcode| frame(opcode, &[3, 232], masked));
        let http = [
            REQUEST,
            RESPONSE,
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ];
        let mut choices: Vec<_> = vec![Vec::new(); 3];
        choices.extend(pieces);
        choices.extend(http.map(<[u8]>::to_vec));
        choices.push(vec![0x16, 3, 1, 0, 5]);
        choices.push(vec![0xff; 30]);
        select(choices)
    };
    let flags = prop_oneof![
        12 => Just(ACK),
        2 => Just(SYN),
        2 => Just(SYN | ACK),
        1 => Just(FIN | ACK),
        1 => Just(RST),
        1 => Just(RST | ACK),
        1 => Just(SYN | FIN | RST),
        1 => Just(0),
    ];
    let astray = prop_oneof![
        8 => Just(0),
        2 => -40..40,
        1 => any::<i32>(),
    ];
    let pause = prop_oneof![
        6 => 0..2 * SECOND as i64,
        2 => 50 * SECOND as i64..200 * SECOND as i64,
        1 => -(5 * SECOND as i64)..0,
    ];
    let from = select(vec![End::Client, End::Server]);
    (0..3_usize, from, flags, astray, pause, any::<bool>()).prop_flat_map(
        move |(conversation, from, flags, astray, pause, arrives)| {
            payload(from).prop_map(move |payload| Act {
                conversation,
                from,
                flags,
                astray,
                payload,
                pause,
                arrives,
            })
        },
    )
}

fn record(acts: &[Act]) -> Recording {
    let mut recording = Recording::default();
    let mut conversations = [
        Conversation::v4(),
        Conversation::v6(),
        Conversation::new("10.0.0.2:8081", "10.0.0.1:8080"),
    ];
    conversations[0].open(&mut recording, START);
    upgrade(&mut conversations[0], &mut recording, START);
    let mut at = START + 10 * MILLI;
    for act in acts {
        at = at.saturating_add_signed(act.pause);
        let conversation = &mut conversations[act.conversation];
        let i = act.from as usize;
        let before = conversation.next[i];
        conversation.next[i] = before.wrapping_add_signed(act.astray);
        conversation.segment(&mut recording, at, act.from, act.flags, &act.payload);
        conversation.next[i] = conversation.next[i].wrapping_sub(act.astray as u32);
        if act.arrives {
            conversation.acked[act.from.other() as usize] = conversation.next[i];
        }
    }
    recording
}

/// The state of each connection according to the records: number of frames, and whether a verdict
/// stands.
fn state_of(played: &Played) -> Result<BTreeMap<ConnId, (u64, bool)>, TestCaseError> {
    let mut seen = BTreeMap::<ConnId, (u64, bool)>::new();
    for record in &played.records {
        match record {
            ReplayRecord::Frame(frame) => seen.entry(frame.cookie).or_default().0 += 1,
            ReplayRecord::Alert(alert) => {
                if let Subject::Connection(verdict) = &alert.subject {
                    let stands = &mut seen.entry(verdict.facts.conn).or_default().1;
                    let firing = alert.is_firing();
                    prop_assert!(firing || *stands, "nothing to resolve: {alert:?}");
                    *stands = firing;
                }
            }
            _ => {}
        }
    }
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_segments_give_counts_that_add_up(acts in prop::collection::vec(act(), 0..60)) {
        let recording = record(&acts);
        let limit = Some(Duration::from_secs(60));
        let played = judge(&recording, &[server(8080, limit), server(8081, limit)]);

        let summary = &played.summary;
        let skipped: u64 = summary.skipped.iter().map(|(_, packets)| packets).sum();
        prop_assert_eq!(summary.segments + skipped, summary.packets);
        prop_assert_eq!(summary.packets, recording.packets.len() as u64);

        let seen = state_of(&played)?;
        let connections = played.connections();
        prop_assert_eq!(connections.len() as u64, summary.connections);
        let mut frames = 0;
        for connection in &connections {
            let counted: u64 = [&connection.rx, &connection.tx]
                .iter()
                .flat_map(|direction| direction.frames_by_opcode.iter().flat_map(|frames| frames.values()))
                .sum();
            let all = [&connection.rx, &connection.tx].map(|direction| direction.frames);
            prop_assert_eq!(Some(counted), all.into_iter().sum());
            let (reported, stands) = seen.get(&connection.cookie).copied().unwrap_or_default();
            prop_assert_eq!(counted, reported, "{:?}", connection);
            prop_assert!(connection.how.is_none() || !stands, "closed, but its alert still fires");
            prop_assert!(connection.closed_at >= connection.established_at || connection.closed_at.is_none());
            frames += counted;
        }
        let numbers: std::collections::BTreeSet<_> = connections.iter().map(|c| c.cookie).collect();
        prop_assert_eq!(numbers.len(), connections.len(), "one record per connection");
        prop_assert!(frames <= summary.rx.frames + summary.tx.frames);
    }
}
