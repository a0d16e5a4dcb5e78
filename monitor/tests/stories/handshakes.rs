//! How connections begin, and handshakes that fail.

use crate::{
    assert_all,
    story::{Act::*, Step::*, *},
};

#[test]
fn beginnings() {
    assert_all(stories());
}

/// The connection opens despite anything around its handshake, and its frames are parsed from the first
/// one on.
fn opens(name: &'static str, source: &'static str, opening: Opening) -> Story {
    story(name, source)
        .opening(opening)
        .at(10.0, Peer(Close(1000)))
        .at(10.1, Host(Close(1000)))
        .at(10.2, Host(Fin))
        .at(10.3, Peer(Fin))
        .until(20.0)
        .shows("upgrade requested")
        .shows("101 after 4 ms")
        .shows("close frame 1000 from peer")
}

pub(crate) fn stories() -> Vec<Story> {
    let refused = |name, source, response| {
        story(name, source)
            .opening(Opening::Refused(response))
            .until(200.0)
    };
    let spoken = |before: &[u8], behind: &[u8]| {
        let request = [before, wire::REQUEST, behind].concat();
        Opening::Spoken(request, wire::RESPONSE.to_vec())
    };
    vec![
        Story {
            // TCP is established only by the request.
            shows: vec!["101 after 1 ms", "close frame 1000 from peer"],
            ..opens("a listener that waits for data", "TCP_DEFER_ACCEPT", Opening::Deferred).live(1.0)
        },
        opens(
            "a PROXY line in the segment of the request",
            "haproxy send-proxy",
            spoken(b"PROXY TCP4 192.0.2.7 192.0.2.2 1000 443\r\n", b""),
        ).live(1.0),
        opens(
            "a message before the 101",
            "RFC 6455 4.1",
            spoken(b"", b"\x81\x81\0\0\0\0a"),
        ).live(1.0),
        story("early hints come before the 101", "RFC 8297").live(1.0)
            .opening(Opening::Refused("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
            .at(0.102, Host(Raw(wire::RESPONSE)))
            .at(10.0, Peer(Fin))
            .at(10.1, Host(Fin))
            .until(20.0)
            .shows("101 after 100 ms"),
        opens(
            "the server's first message in the segment of the 101",
            "RFC 6455 4.2.2",
            Opening::Spoken(wire::REQUEST.to_vec(), [wire::RESPONSE, b"\x81\x02hi"].concat()),
        ),
        refused(
            "a server in a deploy has no backend",
            "apisix#12469",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        ).live(1.0)
        .shows("refused 503"),
        refused(
            "a gateway times out",
            "RFC 9110 15.6.5",
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n",
        )
        .shows("refused 504"),
        refused(
            "a token has expired",
            "RFC 9110 15.5.2",
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        )
        .shows("refused 401"),
        refused(
            "a limit of attempts",
            "RFC 6585 4",
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
        ).live(1.0)
        .shows("refused 429, retry after 5 s"),
        refused(
            "a proxy drops the Upgrade header",
            "nginx",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .shows("refused 200"),
        refused(
            "a server wants another version",
            "RFC 6455 4.4",
            "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
        )
        .shows("refused 426"),
        story("a request is never answered, and the client gives up", "RFC 6455 4.1").live(1.0)
            .opening(Opening::Unanswered)
            .at(30.0, Peer(Rst))
            .until(200.0)
            .shows("no answer"),
        story("TLS, idle past the limit", "wss").live(10.0)
            .opening(Opening::Tls)
            .behind(silent(60.0))
            .at(60.0, PathBreaks)
            .until(100.0)
            .reports("expired suspected", 60.0..60.3),
        story("TLS, and the client dies behind a proxy", "wss")
            .opening(Opening::Tls)
            .every(20.0, 20.0..200.0, Host(Ping))
            .at(50.0, PeerFreezes)
            .until(200.0)
            .unseen("frames in TLS can't be read"),
        story("TLS, closed by a FIN", "wss")
            .opening(Opening::Tls)
            .every(5.0, 5.0..30.0, Peer(Message(300)))
            .at(30.0, Peer(Fin))
            .at(30.1, Host(Fin))
            .until(200.0)
            .shows("TLS began")
            .shows("fin"),
        story("a connection that is older than the recording, idle past the limit", "mid-stream")
            .opening(Opening::Unseen)
            .behind(silent(60.0))
            .every(5.0, 10.0..31.0, Host(Message(200)))
            .every(5.0, 11.0..31.0, Peer(Message(200)))
            .at(60.0, PathBreaks)
            .until(200.0)
            .reports("expired suspected", 90.0..91.5),
        story("a connection that is older than the recording, and its path breaks", "mid-stream")
            .opening(Opening::Unseen)
            .every(5.0, 10.0..200.0, Host(Message(200)))
            .every(5.0, 11.0..31.0, Peer(Message(200)))
            .at(33.0, PathBreaks)
            .until(100.0)
            .reports("black_holed confirmed", 42.0..44.0),
    ]
}
