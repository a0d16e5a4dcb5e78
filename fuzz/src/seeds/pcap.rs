//! Recordings of a few packets.

use wire::{
    ACK, CLOSE, Conversation,
    End::{Client, Server},
    FIN, MICROSECONDS, Order, PING, PONG, Pcap, REQUEST, RESPONSE, RST, Recording, SECOND, START,
    SYN, TEXT, ZERO_KEY, frame,
};

const ETHERNET: u32 = 1;
const RAW_IP: u32 = 101;
const LINUX_SLL: u32 = 113;
/// Bytes of each packet.
const WHOLE: u32 = 0xffff;

type Packets = Vec<(u64, Vec<u8>)>;

pub(super) fn recordings() -> Vec<(&'static str, Vec<u8>)> {
    let chat_v4 = chat(Conversation::v4());
    let mut cut_short = chat_v4.pcap();
    cut_short.truncate(500);
    let arp = [&[2; 12][..], &[0x08, 0x06], &[0; 28]].concat();
    vec![
        ("chat.pcap", chat_v4.pcap()),
        (
            "chat_ipv6.pcap",
            pcap(RAW_IP, chat(Conversation::v6()).packets),
        ),
        ("chat_cooked.pcap", pcap(LINUX_SLL, cooked(&chat_v4))),
        ("chat.pcapng", pcapng(&chat_v4)),
        (
            "without_beginning.pcap",
            pcap(RAW_IP, chat_v4.packets[5..].to_vec()),
        ),
        ("refused.pcap", pcap(RAW_IP, refused().packets)),
        ("cut_short.pcap", cut_short),
        ("arp.pcap", pcap(ETHERNET, vec![(START, arp)])),
    ]
}

fn chat(conversation: Conversation) -> Recording {
    let text = frame(TEXT, b"Hello", None);
    recorded(
        conversation,
        &[
            (Client, SYN, b""),
            (Server, SYN | ACK, b""),
            (Client, ACK, REQUEST),
            (Server, ACK, RESPONSE),
            (
                Client,
                ACK,
                &frame(TEXT, b"Hello", Some(*b"\x37\xfa\x21\x3d")),
            ),
            (Server, ACK, &text),
            (Server, ACK, &[&text[..], &frame(PING, b"", None)].concat()),
            (Client, ACK, &frame(PONG, b"", ZERO_KEY)),
            (Server, ACK, &frame(CLOSE, &1000_u16.to_be_bytes(), None)),
            (Client, FIN | ACK, b""),
            (Server, FIN | ACK, b""),
        ],
    )
}

fn refused() -> Recording {
    recorded(
        Conversation::v4(),
        &[
            (Client, SYN, b""),
            (Server, SYN | ACK, b""),
            (Client, ACK, REQUEST),
            (Server, ACK, b"HTTP/1.1 503 Unavailable\r\n\r\n"),
            (Client, RST, b""),
        ],
    )
}

/// These segments, a second apart, each acknowledged by the next one of the other end.
fn recorded(mut conversation: Conversation, segments: &[(wire::End, u8, &[u8])]) -> Recording {
    let mut recording = Recording::default();
    for ((from, flags, payload), second) in segments.iter().zip(0..) {
        let at = START + second * SECOND;
        conversation.segment(&mut recording, at, *from, *flags, payload);
        conversation.acked[from.other() as usize] = conversation.next[*from as usize];
    }
    recording
}

/// Linux cooked capture, as tcpdump writes it for `-i any`.
fn cooked(recording: &Recording) -> Packets {
    let packets = recording.packets.iter();
    packets
        .map(|(at, packet)| (*at, [&[0; 14][..], &[0x08, 0x00], packet].concat()))
        .collect()
}

fn pcap(link_type: u32, packets: Packets) -> Vec<u8> {
    let form = Pcap {
        order: Order::Little,
        magic: MICROSECONDS,
        link_type,
        snap: WHOLE,
    };
    form.file(packets)
}

fn pcapng(recording: &Recording) -> Vec<u8> {
    let order = Order::Little;
    let mut file = [order.section(), order.interface(ETHERNET, 0, None)].concat();
    for (at, packet) in &recording.packets {
        let frame = wire::ethernet(packet);
        file.extend(order.enhanced_packet(0, at / 1000, WHOLE, &frame, &[]));
    }
    file
}
