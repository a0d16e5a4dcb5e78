//! Closes: close frames and their codes, FINs, resets, and half-closed connections.

use crate::{
    assert_all,
    story::{Act::*, Step::*, *},
};

#[test]
fn closes() {
    assert_all(stories());
}

/// One side closes with this code, the other one echoes it.
fn closed(name: &'static str, source: &'static str, by_host: bool, code: u16) -> Story {
    let close = |by_host| match by_host {
        true => Host(Close(code)),
        false => Peer(Close(code)),
    };
    story(name, source)
        .at(10.0, close(by_host))
        .at(10.1, close(!by_host))
        .at(10.2, Host(Fin))
        .at(10.3, Peer(Fin))
        .until(200.0)
        .shows("close_frame")
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        closed("a user leaves", "RFC 6455 7.4.1", false, 1000)
            .live(1.0)
            .shows("close frame 1000 from peer"),
        closed("a page is left", "RFC 6455 7.4.1", false, 1001).shows("close frame 1001 from peer"),
        closed("a server goes away", "deploy", true, 1001)
            .live(1.0)
            .shows("close frame 1001 from local"),
        closed("a server fails", "RFC 6455 7.4.1", true, 1011).shows("close frame 1011 from local"),
        closed("a server restarts", "IANA 1012", true, 1012).shows("close frame 1012 from local"),
        closed(
            "an application has a code of its own",
            "RFC 6455 7.4.2",
            true,
            4001,
        )
        .shows("close frame 4001 from local"),
        story("a close frame without a code", "RFC 6455 5.5.1")
            .live(1.0)
            .at(10.0, Peer(Raw(&[0x88, 0x80, 0, 0, 0, 0])))
            .at(10.1, Peer(Fin))
            .at(10.2, Host(Fin))
            .until(100.0)
            .shows("close frame without code from peer"),
        story("1006: a FIN without a close frame", "RFC 6455 7.1.5")
            .live(1.0)
            .at(10.0, Peer(Fin))
            .at(10.1, Host(Fin))
            .until(100.0)
            .shows("fin from peer")
            .shows("fin"),
        story("1006: a tab crashes", "RFC 6455 7.1.5")
            .live(1.0)
            .at(10.0, Peer(Rst))
            .until(100.0)
            .shows("rst_received"),
        story("1006: the server aborts", "RFC 6455 7.1.5")
            .live(1.0)
            .at(10.0, Host(Rst))
            .until(100.0)
            .shows("rst_sent"),
        story(
            "the client hangs up and the server leaks the socket",
            "RFC 6455 7.1.1",
        )
        .live(1.0)
        .at(10.0, Peer(Fin))
        .until(200.0)
        .reports("half_closed confirmed", 70.0..70.1),
        story("the server hangs up and a proxy holds on", "RFC 6455 7.1.1")
            .at(10.0, Host(Fin))
            .until(200.0)
            .reports("half_closed confirmed", 70.0..70.1),
        story("a leaked socket is closed at last", "RFC 6455 7.1.1")
            .at(10.0, Peer(Fin))
            .at(100.0, Host(Fin))
            .until(200.0)
            .reports("half_closed confirmed", 70.0..70.1)
            .reports("half_closed fin", 100.0..100.1),
        story("the other FIN takes 50 s", "RFC 6455 7.1.1")
            .live(1.0)
            .at(10.0, Peer(Fin))
            .at(60.0, Host(Fin))
            .until(200.0),
        story("the client pings on after its server's FIN", "RFC 9293 3.6")
            .at(10.0, Host(Fin))
            .every(5.0, 12.0..40.0, Peer(Ping))
            .at(40.0, Peer(Fin))
            .until(200.0),
        story(
            "pings aren't answered any more once the peer closes",
            "RFC 6455 5.5.1",
        )
        .live(1.0)
        .every(1.0, 1.0..20.0, Host(Ping))
        .at(5.5, Peer(Close(1000)))
        .at(5.6, Peer(Fin))
        .at(30.0, Host(Fin))
        .until(60.0)
        .shows("close frame 1000 from peer"),
    ]
}
