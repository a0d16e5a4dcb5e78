//! Outgoing connections from a watched server port.

use monitor::records::skipped::Skip;
use wire::{Conversation, End, Recording, SECOND, START};

use crate::{judge, server};

#[test]
fn connections_opened_from_a_watched_port_are_remembered_up_to_a_bound_and_then_counted() {
    let opened = 65_536 + 100;
    let mut recording = Recording::default();
    let mut conversations: Vec<_> = (0..opened)
        .map(|n| {
            let [_, a, b, c] = u32::to_be_bytes(n);
            Conversation::new("10.0.0.1:8080", &format!("10.{a}.{b}.{c}:443"))
        })
        .collect();
    for conversation in &mut conversations {
        conversation.syn(&mut recording, START);
    }
    let at = START + SECOND;
    let answers = [0, 99, 100, opened as usize - 1];
    for n in answers {
        conversations[n].says(&mut recording, at, End::Server, b"anything");
    }
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(played.summary.forgotten_outgoing, 100);
    // The first two have been forgotten.
    assert_eq!(
        played.summary.skipped.get(Skip::NotWatched),
        u64::from(opened) + 2
    );
    assert_eq!(played.summary.segments, 2);
}
