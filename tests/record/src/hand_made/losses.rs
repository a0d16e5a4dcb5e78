//! Bytes missing from the recording: never captured, truncated, or sent before its start.

use wire::End::{self, Client, Server};

use super::{
    super::{conversation::Conversation, frame::Frame},
    Recording,
    cuts::good_end,
};

pub(super) fn all() -> Vec<Recording> {
    vec![
        payload(),
        header(),
        direction(),
        mid_stream(),
        mid_payload(),
        snap_length(),
        snap_length_hides_headers(),
        cut_file(),
    ]
}

/// Resynchronises a reader that has lost step: two segments that each begin and end with a frame.
fn evidence(conversation: &mut Conversation, side: End) {
    for text in ["sounds", "like frames"] {
        conversation.send(side, &[Frame::text(text).unknowable()]);
    }
}

/// Three segments of one frame's payload, which the receiver acknowledges.
fn payload() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("before")]);
    for side in [Client, Server] {
        let cuts = [1000, 2000, 3000, 4000];
        let segments = conversation.cut(side, &[Frame::binary(5000)], &cuts);
        conversation.put(&segments[0]);
        conversation.put(&segments[4]);
        conversation.acknowledge(side.other());
    }
    conversation.send(Client, &[Frame::text("after")]);
    conversation.send(Server, &[Frame::text("after")]);
    good_end(&mut conversation);
    Recording::new("lost-payload", [conversation])
}

/// A segment with the end of one frame and the start of the next, followed by one with whole
/// frames.
fn header() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let frames = [Frame::binary(1500), Frame::binary(1500).unknowable()];
        let segments = conversation.cut(side, &frames, &[1000, 2000]);
        conversation.put(&segments[0]);
        conversation.put(&segments[2]);
        conversation.acknowledge(side.other());
        evidence(&mut conversation, side);
        conversation.send(side, &[Frame::text("in step again")]);
        let lost = ["never", "captured"].map(|text| Frame::text(text).unknowable());
        conversation.cut(side, &lost, &[]);
        conversation.acknowledge(side.other());
        evidence(&mut conversation, side);
        conversation.send(side, &[Frame::text("and again")]);
    }
    good_end(&mut conversation);
    Recording::new("lost-headers", [conversation])
}

/// The capture misses the server's direction after the upgrade.
fn direction() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("one"), Frame::ping("two")]);
    conversation.cut(Server, &[Frame::pong("two").unknowable()], &[]);
    conversation.acknowledge(Client);
    conversation.send(Client, &[Frame::text("three")]);
    conversation.send(Client, &[Frame::close(1000, "")]);
    conversation.cut(Server, &[Frame::close(1000, "").unknowable()], &[]);
    conversation.acknowledge(Client);
    conversation.reset(Client);
    Recording::new("lost-direction", [conversation])
}

/// The capture starts between two frames of an old connection.
fn mid_stream() -> Recording {
    let mut conversation = Conversation::new();
    evidence(&mut conversation, Client);
    evidence(&mut conversation, Server);
    conversation.send(Client, &[Frame::text("how did we get here?")]);
    conversation.send(Server, &[Frame::binary(300), Frame::ping("")]);
    conversation.send(Client, &[Frame::pong("")]);
    good_end(&mut conversation);
    Recording::new("mid-stream", [conversation])
}

/// The capture starts inside the payload of a frame, in both directions.
fn mid_payload() -> Recording {
    let mut conversation = Conversation::new();
    for side in [Client, Server] {
        let frame = Frame::binary(3000).unknowable();
        let segments = conversation.cut(side, &[frame], &[1000, 2000]);
        conversation.put(&segments[1]);
        conversation.put(&segments[2]);
        conversation.acknowledge(side.other());
        evidence(&mut conversation, side);
        conversation.send(side, &[Frame::text("in step from here on")]);
    }
    good_end(&mut conversation);
    Recording::new("mid-payload", [conversation])
}

/// Every header was captured, most payload was not.
fn snap_length() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        conversation.send(side, &[Frame::binary(1000), Frame::text("whole")]);
        let segments = conversation.cut(side, &[Frame::binary(4000)], &[1400, 2800]);
        for segment in segments {
            conversation.put(&segment);
        }
        conversation.acknowledge(side.other());
        conversation.send(side, &[Frame::binary(200)]);
    }
    good_end(&mut conversation);
    let mut recording = Recording::new("snap-length", [conversation]);
    // The upgrade's answer is complete: its packet has 183 bytes.
    recording.snap = 200;
    recording
}

/// A header beyond the snap length.
fn snap_length_hides_headers() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let together = [Frame::binary(300), Frame::text("unseen").unknowable()];
        conversation.send_together(side, &together);
        evidence(&mut conversation, side);
        conversation.send(side, &[Frame::text("in step again")]);
    }
    good_end(&mut conversation);
    let mut recording = Recording::new("snap-length-hides-headers", [conversation]);
    recording.snap = 200;
    recording
}

/// The disk was full: the file ends in the middle of a packet.
fn cut_file() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("one"), Frame::text("two")]);
    conversation.send(Server, &[Frame::binary(300)]);
    let last = conversation.cut(Client, &[Frame::binary(500).unknowable()], &[]);
    conversation.put(&last[0]);
    let mut recording = Recording::new("file-cut-short", [conversation]);
    recording.missing_tail = 400;
    recording
}
