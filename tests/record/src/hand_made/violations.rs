//! Violations of RFC 6455. The peer answers with a close frame of code 1002 or 1007, unless
//! specified otherwise.

use wire::End::{self, Client, Server};

use super::{
    super::{conversation::Conversation, frame::Frame},
    Recording,
    cuts::good_end,
};

pub(super) fn all() -> Vec<Recording> {
    vec![
        recording("violation-reserved-opcodes", {
            let opcodes = (3..=7).chain(11..=15);
            let frames = opcodes.map(|opcode| Frame::new(opcode, "reserved"));
            frames.flat_map(both_sides).collect()
        }),
        recording("violation-rsv-bits", {
            let mut frames: Vec<_> = (1..=7)
                .map(|bits| Frame::text("reserved").rsv(bits))
                .collect();
            frames.push(Frame::ping("").rsv(4));
            frames.into_iter().flat_map(both_sides).collect()
        }),
        recording("violation-unmasked-client", {
            let frames = [Frame::text("plain"), Frame::binary(300), Frame::ping("")];
            frames
                .map(|frame| (Client, frame.wrong_mask_bit()))
                .to_vec()
        }),
        recording("violation-masked-server", {
            let frames = [Frame::text("masked"), Frame::binary(300), Frame::ping("")];
            frames
                .map(|frame| (Server, frame.wrong_mask_bit()))
                .to_vec()
        }),
        recording("violation-long-lengths", {
            let frames = [
                Frame::text("").sixteen_bit_length(),
                Frame::binary(125).sixteen_bit_length(),
                Frame::text("").sixty_four_bit_length(),
                Frame::binary(125).sixty_four_bit_length(),
                Frame::binary(300).sixty_four_bit_length(),
            ];
            frames.into_iter().flat_map(both_sides).collect()
        }),
        recording("violation-control-frames", {
            let too_long = "x".repeat(126);
            let frames = [
                Frame::ping("part").unfinished(),
                Frame::pong("part").unfinished(),
                Frame::close(1000, "part").unfinished(),
                Frame::ping(&too_long),
                Frame::pong(&too_long),
                Frame::close(1000, &too_long),
            ];
            frames.into_iter().flat_map(both_sides).collect()
        }),
        close_codes(),
        fragments(),
        ignored(),
        in_passing(),
    ]
}

/// One connection per wrong frame: a valid frame, the wrong one, and the peer's close frame.
fn recording(name: &'static str, wrong: Vec<(End, Frame)>) -> Recording {
    let conversations: Vec<_> = (0..)
        .zip(wrong)
        .map(|(number, (side, frame))| {
            let mut conversation = Conversation::new().number(number).open();
            conversation.send(side, &[Frame::text("right"), frame]);
            conversation.send(side.other(), &[Frame::close(1002, "protocol error")]);
            conversation.finish(side.other());
            conversation
        })
        .collect();
    Recording::new(name, conversations)
}

fn both_sides(frame: Frame) -> [(End, Frame); 2] {
    [(Client, frame.clone()), (Server, frame)]
}

/// Codes that must not be on the wire (RFC 6455 §7.4), and a truncated code.
fn close_codes() -> Recording {
    let codes = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535];
    let mut frames: Vec<_> = codes
        .into_iter()
        .map(|code| Frame::close(code, "odd"))
        .collect();
    frames.push(Frame::new(8, [3]));
    recording(
        "violation-close-codes",
        frames.into_iter().flat_map(both_sides).collect(),
    )
}

/// A continuation without a message, and a message inside a message: each header alone is legal.
fn fragments() -> Recording {
    let mut nothing = Conversation::new().open();
    nothing.send(Client, &[Frame::continuation("of nothing")]);
    nothing.send(Server, &[Frame::close(1002, "")]);
    nothing.finish(Server);
    let mut inside = Conversation::new().number(1).open();
    let frames = [Frame::text("begun").unfinished(), Frame::text("another")];
    inside.send(Client, &frames);
    inside.send(Server, &[Frame::close(1002, "")]);
    inside.finish(Server);
    Recording::new("violation-fragments", [nothing, inside])
}

/// Peers that ignore violations and continue.
fn ignored() -> Recording {
    let conversations: Vec<_> = (0..)
        .zip(one_of_each())
        .map(|(number, (side, frame))| {
            let mut conversation = Conversation::new().number(number).open();
            conversation.send(side, &[Frame::text("right"), frame]);
            conversation.send(side.other(), &[Frame::text("so what")]);
            conversation.send(side, &[Frame::text("right again")]);
            good_end(&mut conversation);
            conversation
        })
        .collect();
    Recording::new("violation-ignored", conversations)
}

/// The wrong frame lies between valid ones in one segment.
fn in_passing() -> Recording {
    let conversations: Vec<_> = (0..)
        .zip(one_of_each())
        .map(|(number, (side, frame))| {
            let mut conversation = Conversation::new().number(number).open();
            let frames = [Frame::text("right"), frame, Frame::text("right again")];
            conversation.send_together(side, &frames);
            good_end(&mut conversation);
            conversation
        })
        .collect();
    Recording::new("violation-in-passing", conversations)
}

fn one_of_each() -> impl Iterator<Item = (End, Frame)> {
    let wrong = [
        Frame::text("wrong").rsv(2),
        Frame::new(3, "wrong"),
        Frame::ping("wrong").unfinished(),
        Frame::text("wrong").sixteen_bit_length(),
        Frame::text("wrong").wrong_mask_bit(),
    ];
    wrong.into_iter().flat_map(both_sides)
}
