//! Segment boundaries with nothing lost: cuts, duplicates, overlaps, disorder.

use wire::{
    End::{self, Client, Server},
    REQUEST, RESPONSE,
};

use super::{
    super::{conversation::Conversation, frame::Frame},
    Recording,
};

pub(super) fn all() -> Vec<Recording> {
    vec![
        short_headers(),
        long_headers(),
        long_header_by_bytes(),
        long_header_in_two(),
        server_header_by_bytes(),
        close_codes(),
        handshake(),
        reordered(),
        duplicated(),
        overlapping(),
        wrapping(),
        coalesced(),
        filled_hole(),
        late_filled_hole(),
        keepalive_probes(),
    ]
}

/// Headers of every length except 10 and 14, cut after each of their bytes.
fn short_headers() -> Recording {
    let forms = [
        (Client, Frame::text("hello")),
        (Client, Frame::binary(300)),
        (Server, Frame::text("hello")),
        (Server, Frame::binary(300)),
    ];
    let mut conversations = Vec::new();
    for (side, frame) in forms {
        for cut in 1..=frame.header_len(side == Client) {
            let number = conversations.len() as u16;
            let mut conversation = Conversation::new().number(number).open();
            for segment in conversation.cut(side, std::slice::from_ref(&frame), &[cut]) {
                conversation.put(&segment);
            }
            conversation.acknowledge(side.other());
            conversation.send(side, &[Frame::ping("behind")]);
            good_end(&mut conversation);
            conversations.push(conversation);
        }
    }
    Recording::new("cut-short-headers", conversations)
}

/// A 14-byte header, cut after each of its bytes. The uploads are abandoned, which keeps the file
/// small.
fn long_headers() -> Recording {
    let conversations: Vec<_> = (1..=14)
        .map(|cut| {
            let mut conversation = Conversation::new().number(cut).open();
            conversation.send(Client, &[Frame::text("upload follows")]);
            let end = usize::from(cut);
            let upload = conversation.cut(Client, &[Frame::binary(70_000)], &[end, 514]);
            conversation.put(&upload[0]);
            conversation.put(&upload[1]);
            conversation.acknowledge_up_to(Server, upload[2].seq);
            conversation.send(Server, &[Frame::close(1001, "going away")]);
            conversation.reset(Server);
            conversation
        })
        .collect();
    Recording::new("cut-14-byte-headers", conversations)
}

fn long_header_by_bytes() -> Recording {
    let cuts: Vec<_> = (1..=14).collect();
    let mut conversation = Conversation::new().open();
    upload(&mut conversation, Client, &cuts);
    Recording::new("cut-14-byte-header-by-bytes", [conversation])
}

/// Between the two halves of the length.
fn long_header_in_two() -> Recording {
    let mut conversation = Conversation::new().open();
    upload(&mut conversation, Client, &[6]);
    Recording::new("cut-14-byte-header-in-two", [conversation])
}

fn server_header_by_bytes() -> Recording {
    let cuts: Vec<_> = (1..=10).collect();
    let mut conversation = Conversation::new().open();
    upload(&mut conversation, Server, &cuts);
    Recording::new("cut-10-byte-header-by-bytes", [conversation])
}

/// 65,536 bytes, the smallest payload with a 64-bit length.
fn upload(conversation: &mut Conversation, side: End, header_cuts: &[usize]) {
    let frames = [Frame::binary(0x1_0000), Frame::text("behind")];
    let mut cuts = header_cuts.to_vec();
    cuts.extend((16_000..0x1_0000).step_by(16_000));
    for segment in conversation.cut(side, &frames, &cuts) {
        conversation.put(&segment);
    }
    conversation.acknowledge(side.other());
    good_end(conversation);
}

/// A masked close frame, cut after each byte up to the end of its code, and an unmasked one.
fn close_codes() -> Recording {
    let mut conversations = Vec::new();
    for (side, last) in [(Client, 8), (Server, 4)] {
        for cut in 1..=last {
            let number = conversations.len() as u16;
            let mut conversation = Conversation::new().number(number).open();
            let close = Frame::close(4001, "enough");
            for segment in conversation.cut(side, std::slice::from_ref(&close), &[cut]) {
                conversation.put(&segment);
            }
            conversation.acknowledge(side.other());
            conversation.send(side.other(), &[close]);
            conversation.finish(Server);
            conversations.push(conversation);
        }
    }
    Recording::new("cut-close-codes", conversations)
}

/// The 101 in pieces, with the first frames directly after its last byte.
fn handshake() -> Recording {
    let blank_line = RESPONSE.len() - 4;
    let in_blank_line = (0..=4).map(|bytes| vec![blank_line + bytes]);
    let in_status_line = [vec![5], vec![9], vec![12]];
    let by_bytes = [(1..=RESPONSE.len()).collect()];
    let cuts = in_blank_line.chain(in_status_line).chain(by_bytes);
    let conversations: Vec<_> = (0..)
        .zip(cuts)
        .map(|(number, cuts)| {
            let mut conversation = Conversation::new().number(number).request();
            let welcome = [Frame::text("welcome"), Frame::ping("")];
            for segment in conversation.cut_behind(Server, RESPONSE, &welcome, &cuts) {
                conversation.put(&segment);
            }
            conversation.acknowledge(Client);
            conversation.send(Client, &[Frame::pong(""), Frame::text("thank you")]);
            good_end(&mut conversation);
            conversation
        })
        .collect();
    Recording::new("cut-handshake", conversations)
}

/// Every second pair of segments is swapped; headers lie across them.
fn reordered() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let frames: Vec<_> = (0..12).map(|n| Frame::binary(40 + 9 * n)).collect();
        let cuts: Vec<_> = (1..14).map(|n| n * 65 + 3).collect();
        let segments = conversation.cut(side, &frames, &cuts);
        for pair in segments.chunks(2) {
            for segment in pair.iter().rev() {
                conversation.put(segment);
            }
        }
        conversation.acknowledge(side.other());
    }
    good_end(&mut conversation);
    Recording::new("reordered", [conversation])
}

/// A mirror port that captures every packet as it enters and as it leaves.
fn duplicated() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("one"), Frame::text("two")]);
    let cut = conversation.cut(Client, &[Frame::binary(300)], &[3]);
    for segment in &cut {
        conversation.put(segment);
    }
    conversation.acknowledge(Server);
    conversation.send(Server, &[Frame::text("three"), Frame::ping("?")]);
    conversation.send(Client, &[Frame::pong("?")]);
    good_end(&mut conversation);
    let packets = std::mem::take(&mut conversation.packets);
    for (at, segment) in packets {
        conversation.packets.push((at, segment.clone()));
        conversation.packets.push((at + 10_000, segment));
    }
    Recording::new("duplicated", [conversation])
}

/// Retransmissions that start in known bytes and end in new ones, in a header and in payload.
fn overlapping() -> Recording {
    let mut conversation = Conversation::new().open();
    let frames = [
        Frame::binary(200),
        Frame::text("in between"),
        Frame::binary(200),
    ];
    let whole = conversation.cut(Client, &frames, &[]).remove(0);
    // The first frame has 208 bytes, the second 16.
    for range in [0..100, 50..210, 100..210, 209..300, 0..300, 299..432] {
        let mut segment = whole.clone();
        segment.seq = whole.seq.wrapping_add(range.start as u32);
        segment.payload = whole.payload[range].to_vec();
        conversation.put(&segment);
    }
    conversation.acknowledge(Server);
    good_end(&mut conversation);
    Recording::new("overlapping", [conversation])
}

/// Sequence numbers wrap at 2^32: the client's inside a header, the server's inside payload.
fn wrapping() -> Recording {
    let client = 0_u32.wrapping_sub(1 + REQUEST.len() as u32 + 3);
    let server = 0_u32.wrapping_sub(1 + RESPONSE.len() as u32 + 100);
    let mut conversation = Conversation::new().starting_at(client, server).open();
    conversation.send(Client, &[Frame::binary(300), Frame::text("behind")]);
    conversation.send(Server, &[Frame::binary(300), Frame::text("behind")]);
    good_end(&mut conversation);
    Recording::new("sequence-wrap", [conversation])
}

/// Three unacknowledged segments are retransmitted as one, with new bytes appended.
fn coalesced() -> Recording {
    let mut conversation = Conversation::new().open();
    let frames = ["one", "two", "three", "four"].map(Frame::text);
    let whole = conversation.cut(Server, &frames, &[]).remove(0);
    for range in [0..5, 5..10, 10..17, 0..whole.payload.len()] {
        let mut segment = whole.clone();
        segment.seq = whole.seq.wrapping_add(range.start as u32);
        segment.payload = whole.payload[range].to_vec();
        conversation.put(&segment);
    }
    conversation.acknowledge(Client);
    good_end(&mut conversation);
    Recording::new("coalesced-retransmission", [conversation])
}

/// A segment with headers is lost before the capture point. Its retransmission is captured after
/// three duplicate acknowledgements.
fn filled_hole() -> Recording {
    let mut conversation = Conversation::new().open();
    let frames: Vec<_> = (0..10).map(|n| Frame::binary(60 + n)).collect();
    let segments = conversation.cut(Client, &frames, &[100, 200, 300, 400, 500]);
    conversation.put(&segments[0]);
    for segment in &segments[2..] {
        conversation.put(segment);
        conversation.acknowledge_up_to(Server, segments[1].seq);
    }
    conversation.put(&segments[1]);
    conversation.acknowledge(Server);
    good_end(&mut conversation);
    Recording::new("hole-filled", [conversation])
}

/// Three lost segments in each direction, retransmitted in reverse order after all others.
fn late_filled_hole() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let frames: Vec<_> = (0..30).map(|n| Frame::binary(100 + n)).collect();
        let cuts: Vec<_> = (1..30).map(|n| n * 101).collect();
        let segments = conversation.cut(side, &frames, &cuts);
        let lost = [4, 5, 17];
        for (n, segment) in segments.iter().enumerate() {
            if !lost.contains(&n) {
                conversation.put(segment);
            }
            if n > 4 {
                conversation.acknowledge_up_to(side.other(), segments[4].seq);
            }
        }
        for n in [17, 5, 4] {
            conversation.put(&segments[n]);
        }
        conversation.acknowledge(side.other());
    }
    good_end(&mut conversation);
    Recording::new("holes-filled-late", [conversation])
}

/// Probes repeat a byte that looks like the start of a ping.
fn keepalive_probes() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("still there?")]);
    for side in [Client, Server, Client] {
        conversation.probe(side);
    }
    conversation.send(Server, &[Frame::text("yes")]);
    for side in [Server, Client] {
        conversation.probe(side);
    }
    good_end(&mut conversation);
    Recording::new("keepalive-probes", [conversation])
}

/// Close frames both ways, then FINs.
pub(super) fn good_end(conversation: &mut Conversation) {
    conversation.send(Client, &[Frame::close(1000, "")]);
    conversation.send(Server, &[Frame::close(1000, "")]);
    conversation.finish(Server);
}
