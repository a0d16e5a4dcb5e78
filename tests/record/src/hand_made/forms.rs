//! Legal but rare frames, messages and connections.

use wire::{
    End::{Client, Server},
    REQUEST, RESPONSE,
};

use super::{
    super::{conversation::Conversation, frame::Frame},
    Recording,
    cuts::good_end,
};

pub(super) fn all() -> Vec<Recording> {
    vec![
        empty_frames(),
        lengths(),
        fragments(),
        one_segment(),
        last_words(),
        port_again(),
        plain_http(),
        requests_before_the_upgrade(),
        long_heads(),
        other_protocol(),
        without_syn(),
        without_request(),
    ]
}

/// An empty payload in every kind of frame.
fn empty_frames() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let frames = [
            Frame::text(""),
            Frame::new(2, []),
            Frame::text("").unfinished(),
            Frame::continuation("").unfinished(),
            Frame::ping(""),
            Frame::continuation(""),
            Frame::pong(""),
        ];
        conversation.send(side, &frames);
        conversation.send_together(side, &frames);
    }
    conversation.send(Client, &[Frame::close_without_code()]);
    conversation.send(Server, &[Frame::close_without_code()]);
    conversation.finish(Server);
    Recording::new("empty-frames", [conversation])
}

/// The edges of the three length encodings that fit in a small file.
fn lengths() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let lengths = [0, 1, 124, 125, 126, 127, 255, 256, 4095, 4096];
        conversation.send(side, &lengths.map(Frame::binary));
        conversation.send(side, &[Frame::ping(&"p".repeat(125))]);
    }
    good_end(&mut conversation);
    Recording::new("lengths", [conversation])
}

/// Messages in fragments, with control frames of both sides between them.
fn fragments() -> Recording {
    let mut conversation = Conversation::new().open();
    for side in [Client, Server] {
        let other = side.other();
        conversation.send(side, &[Frame::text("one ").unfinished()]);
        conversation.send(side, &[Frame::ping("in between")]);
        conversation.send(other, &[Frame::pong("in between")]);
        conversation.send(side, &[Frame::continuation("two ").unfinished()]);
        conversation.send(other, &[Frame::text("meanwhile")]);
        conversation.send(side, &[Frame::pong("unasked")]);
        conversation.send(side, &[Frame::continuation("three")]);
    }
    conversation.send(Client, &[Frame::text("never ended").unfinished()]);
    good_end(&mut conversation);
    Recording::new("fragments", [conversation])
}

/// A 60 KB segment with 800 frames, more than tshark follows by default, and one whose last frame
/// continues in the next.
fn one_segment() -> Recording {
    let mut conversation = Conversation::new().open();
    let many: Vec<_> = (0..800).map(|n| Frame::binary(n % 140)).collect();
    conversation.send_together(Client, &many);
    let frames: Vec<_> = (0..100).map(|n| Frame::binary(n % 50)).collect();
    for segment in conversation.cut(Server, &frames, &[2000]) {
        conversation.put(&segment);
    }
    conversation.acknowledge(Client);
    good_end(&mut conversation);
    Recording::new("hundreds-of-frames-in-a-segment", [conversation])
}

/// Frames in the same segment as the FIN; a RST instead of a close frame.
fn last_words() -> Recording {
    let mut conversation = Conversation::new().open();
    conversation.send(Client, &[Frame::text("bye?")]);
    let farewell = [Frame::text("bye"), Frame::close(1001, "shutting down")];
    conversation.finish_with(Server, &farewell);
    conversation.finish_with(Client, &[Frame::close(1001, "")]);
    let mut reset = Conversation::new().number(1).open();
    reset.send(Client, &[Frame::text("hello")]);
    reset.reset(Server);
    Recording::new("last-words", [conversation, reset])
}

/// The same port pair twice: the second connection's sequence numbers are below the first one's.
fn port_again() -> Recording {
    let mut first = Conversation::new().starting_at(900_000, 900_000).open();
    first.send(Client, &[Frame::text("first")]);
    first.send(Server, &[Frame::ping("")]);
    good_end(&mut first);
    let mut second = Conversation::new().later(90).open();
    second.send(Client, &[Frame::text("second"), Frame::binary(200)]);
    good_end(&mut second);
    Recording::new("port-used-again", [first, second])
}

/// HTTP without an upgrade, with bodies that look like frames.
fn plain_http() -> Recording {
    let mut conversation = Conversation::new().connect();
    let body: Vec<u8> = (0..8)
        .flat_map(|_| Frame::text("no frame").bytes(false))
        .collect();
    for _ in 0..2 {
        conversation.say(Client, "GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        conversation.say(Server, head);
        conversation.say(Server, &body);
    }
    conversation.finish(Client);
    let mut upgraded = Conversation::new().number(1).open();
    upgraded.send(Client, &[Frame::text("a frame")]);
    good_end(&mut upgraded);
    Recording::new("plain-http", [conversation, upgraded])
}

/// Two requests, a refused upgrade (429) and an accepted one on one connection.
fn requests_before_the_upgrade() -> Recording {
    let mut conversation = Conversation::new().connect();
    for path in ["/", "/style.css"] {
        conversation.say(Client, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        conversation.say(Server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
    let upgrade = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    conversation.say(Client, upgrade);
    let refusal = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    conversation.say(Server, refusal);
    conversation.say(Client, upgrade);
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
        connection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    conversation.say(Server, accepted);
    conversation.send(Client, &[Frame::text("at last")]);
    conversation.send(Server, &[Frame::text("welcome")]);
    good_end(&mut conversation);
    Recording::new("requests-before-the-upgrade", [conversation])
}

/// Cookies that make request and answer longer than a segment.
fn long_heads() -> Recording {
    let mut conversation = Conversation::new().connect();
    let with_cookie = |head: &[u8], name| {
        let cookie = format!("{name}: id={}\r\n\r\n", "0123456789".repeat(500));
        [&head[..head.len() - 2], cookie.as_bytes()].concat()
    };
    let request = with_cookie(REQUEST, "Cookie");
    let answer = with_cookie(RESPONSE, "Set-Cookie");
    let welcome = [Frame::text("welcome")];
    for (side, head, frames) in [(Client, request, &[][..]), (Server, answer, &welcome)] {
        for segment in conversation.cut_behind(side, &head, frames, &[1448, 2896, 4344]) {
            conversation.put(&segment);
        }
        conversation.acknowledge(side.other());
    }
    conversation.send(Client, &[Frame::text("thank you")]);
    good_end(&mut conversation);
    Recording::new("long-heads", [conversation])
}

/// A 101 to HTTP/2 (RFC 7540 §3.2), whose bytes are not WebSocket frames.
fn other_protocol() -> Recording {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const SETTINGS_ACKNOWLEDGED: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let mut conversation = Conversation::new().connect();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    conversation.say(Client, request);
    conversation.say(Server, answer);
    conversation.say(Server, SETTINGS);
    conversation.say(Client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    conversation.say(Client, SETTINGS);
    conversation.say(Client, SETTINGS_ACKNOWLEDGED);
    conversation.say(Server, SETTINGS_ACKNOWLEDGED);
    conversation.finish(Client);
    let mut websocket = Conversation::new().number(1).open();
    websocket.send(Client, &[Frame::text("a frame")]);
    good_end(&mut websocket);
    Recording::new("upgrade-to-http2", [conversation, websocket])
}

/// The capture starts with the request on an established connection.
fn without_syn() -> Recording {
    let mut conversation = Conversation::new();
    conversation.say(Client, REQUEST);
    conversation.say(Server, RESPONSE);
    conversation.send(Client, &[Frame::text("hello")]);
    conversation.send(Server, &[Frame::text("hello")]);
    good_end(&mut conversation);
    Recording::new("upgrade-without-syn", [conversation])
}

/// The capture starts with the 101.
fn without_request() -> Recording {
    let mut conversation = Conversation::new();
    conversation.say(Server, RESPONSE);
    conversation.send(Client, &[Frame::text("hello")]);
    conversation.send(Server, &[Frame::text("hello")]);
    good_end(&mut conversation);
    Recording::new("upgrade-without-request", [conversation])
}
