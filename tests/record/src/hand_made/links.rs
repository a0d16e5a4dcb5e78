//! Link layers, headers and file formats that the lab's captures lack.

use std::net::SocketAddr;

use wire::End::{Client, Server};

use super::{
    super::{
        conversation::{Conversation, Options},
        format::Format,
        frame::Frame,
        link::Link,
    },
    Recording,
    cuts::good_end,
};

pub(super) fn all() -> Vec<Recording> {
    let both = || [talk(Conversation::new()), talk(Conversation::new().v6())];
    let options = || {
        [
            talk(Conversation::new().with(Options::Both)),
            talk(Conversation::new().v6().with(Options::Both)),
        ]
    };
    vec![
        Recording::new("link-raw-ip", both()).links(&[Link::RawIp]),
        Recording::new("link-null", loopback()).links(&[Link::Null]),
        Recording::new("link-vlan", both()).links(&[Link::Vlan]),
        Recording::new("link-stacked-vlan", both()).links(&[Link::StackedVlan]),
        Recording::new("link-padding", both()).links(&[Link::PaddedEthernet]),
        Recording::new("ip-and-tcp-options", options()),
        Recording::new("ip-without-length", [to_be_cut()]),
        Recording::new("big-endian-nanoseconds", both()).format(Format::PcapNanosecondsBigEndian),
        Recording::new("big-endian", both()).format(Format::PcapNgBigEndian),
        Recording::new("three-interfaces", three())
            .links(&[Link::Ethernet, Link::RawIp, Link::Null])
            .format(Format::PcapNg),
    ]
}

/// A mix of frames in segments so small that padding follows them.
fn talk(conversation: Conversation) -> Conversation {
    let mut conversation = conversation.open();
    conversation.send(Client, &[Frame::text(""), Frame::text("hello")]);
    conversation.send(Server, &[Frame::ping(""), Frame::binary(300)]);
    let cut = conversation.cut(Client, &[Frame::pong("")], &[1, 2]);
    for segment in &cut {
        conversation.put(segment);
    }
    conversation.acknowledge(Server);
    conversation.send(Server, &[Frame::text("bye").rsv(4)]);
    good_end(&mut conversation);
    conversation
}

fn to_be_cut() -> Conversation {
    let mut conversation = Conversation::new().open().with(Options::NoLength);
    let frames = [
        Frame::text("before"),
        Frame::binary(66_000),
        Frame::text("behind"),
    ];
    conversation.send_together(Server, &frames);
    let mut conversation = conversation.with(Options::None);
    good_end(&mut conversation);
    conversation
}

fn loopback() -> [Conversation; 2] {
    let v4 = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let v6 = |port| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
    [
        talk(Conversation::new().between(v4(40_000), v4(8080))),
        talk(Conversation::new().between(v6(40_000), v6(8080))),
    ]
}

/// One connection per interface.
fn three() -> Vec<Conversation> {
    (0..3)
        .map(|number| talk(Conversation::new().number(number)))
        .collect()
}
