//! Recordings of a few packets.

use crate::segment::HTTP;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

const ETHERNET: u32 = 1;
const RAW_IP: u32 = 101;
const LINUX_SLL: u32 = 113;

/// One packet, captured at the server on port 8080.
struct Packet {
    from_client: bool,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
}

pub(super) fn recordings() -> Vec<(&'static str, Vec<u8>)> {
    let chat = chat();
    let mut damaged = pcap(ETHERNET, chat.iter().map(|p| ethernet(0x0800, &ipv4(p))));
    damaged.truncate(500);
    vec![
        (
            "chat.pcap",
            pcap(ETHERNET, chat.iter().map(|p| ethernet(0x0800, &ipv4(p)))),
        ),
        ("chat_ipv6.pcap", pcap(RAW_IP, chat.iter().map(ipv6))),
        (
            "chat_cooked.pcap",
            pcap(LINUX_SLL, chat.iter().map(|p| cooked(&ipv4(p)))),
        ),
        (
            "chat.pcapng",
            pcapng(chat.iter().map(|p| ethernet(0x0800, &ipv4(p)))),
        ),
        (
            "without_beginning.pcap",
            pcap(RAW_IP, chat.iter().skip(5).map(ipv4)),
        ),
        ("refused.pcap", pcap(RAW_IP, refused().iter().map(ipv4))),
        ("cut_short.pcap", damaged),
        (
            "arp.pcap",
            pcap(ETHERNET, [ethernet(0x0806, &[0; 28])].into_iter()),
        ),
    ]
}

fn chat() -> Vec<Packet> {
    let text = b"\x81\x05Hello".to_vec();
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
    let close = b"\x88\x02\x03\xe8".to_vec();
    conversation(&[
        (true, SYN, Vec::new()),
        (false, SYN | ACK, Vec::new()),
        (true, ACK, HTTP[0].to_vec()),
        (false, ACK, HTTP[1].to_vec()),
        (true, ACK, masked),
        (false, ACK, text.clone()),
        (false, ACK, [text, b"\x89\x00".to_vec()].concat()),
        (true, ACK, b"\x8a\x80\x01\x02\x03\x04".to_vec()),
        (false, ACK, close),
        (true, FIN_ACK, Vec::new()),
        (false, FIN_ACK, Vec::new()),
    ])
}

fn refused() -> Vec<Packet> {
    conversation(&[
        (true, SYN, Vec::new()),
        (false, SYN | ACK, Vec::new()),
        (true, ACK, HTTP[0].to_vec()),
        (false, ACK, b"HTTP/1.1 503 Unavailable\r\n\r\n".to_vec()),
        (true, RST, Vec::new()),
    ])
}

fn conversation(lines: &[(bool, u8, Vec<u8>)]) -> Vec<Packet> {
    let mut next = [1000_u32, 5000];
    lines
        .iter()
        .map(|(from_client, flags, payload)| {
            let (own, other) = if *from_client { (0, 1) } else { (1, 0) };
            let seq = next[own];
            let phantom = u32::from(flags & 0x03 != 0);
            next[own] += payload.len() as u32 + phantom;
            Packet {
                from_client: *from_client,
                seq,
                ack: next[other],
                flags: *flags,
                payload: payload.clone(),
            }
        })
        .collect()
}

fn tcp(packet: &Packet) -> Vec<u8> {
    let (client, server) = (40_000_u16.to_be_bytes(), 8080_u16.to_be_bytes());
    let ports = if packet.from_client {
        [client, server]
    } else {
        [server, client]
    };
    let mut bytes = ports.concat();
    bytes.extend(packet.seq.to_be_bytes());
    bytes.extend(packet.ack.to_be_bytes());
    bytes.extend([5 << 4, packet.flags, 2, 0, 0, 0, 0, 0]);
    bytes.extend(&packet.payload);
    bytes
}

fn ipv4(packet: &Packet) -> Vec<u8> {
    let tcp = tcp(packet);
    let len = (20 + tcp.len() as u16).to_be_bytes();
    let (client, server) = ([10, 0, 0, 2], [10, 0, 0, 1]);
    let ends = if packet.from_client {
        [client, server]
    } else {
        [server, client]
    };
    let head = [0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, 6, 0, 0];
    [&head[..], &ends.concat(), &tcp].concat()
}

fn ipv6(packet: &Packet) -> Vec<u8> {
    let tcp = tcp(packet);
    let len = (tcp.len() as u16).to_be_bytes();
    let end = |last| {
        let mut address = [0; 16];
        address[0] = 0xfd;
        address[15] = last;
        address
    };
    let (client, server) = (end(2), end(1));
    let ends = if packet.from_client {
        [client, server]
    } else {
        [server, client]
    };
    let head = [0x60, 0, 0, 0, len[0], len[1], 6, 64];
    [&head[..], &ends.concat(), &tcp].concat()
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind.to_be_bytes(), packet].concat()
}

/// Linux cooked capture, as tcpdump writes it for `-i any`.
fn cooked(packet: &[u8]) -> Vec<u8> {
    [&[0; 14][..], &0x0800_u16.to_be_bytes(), packet].concat()
}

fn pcap(link: u32, packets: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 0xffff, link] {
        file.extend(u32::to_le_bytes(field));
    }
    for (second, packet) in (1_700_000_000..).zip(packets) {
        let len = packet.len() as u32;
        for field in [second, 250_000, len, len] {
            file.extend(u32::to_le_bytes(field));
        }
        file.extend(packet);
    }
    file
}

fn pcapng(packets: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut file = Vec::new();
    let version_and_length = [&[1, 0, 0, 0][..], &[0xff; 8]].concat();
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &version_and_length];
    block(&mut file, 0x0a0d_0d0a, &section.concat());
    block(&mut file, 1, &[1, 0, 0, 0, 0, 0, 0, 0]);
    for (second, packet) in (1_700_000_000..).zip(packets) {
        let at: u64 = second * 1_000_000;
        let len = packet.len() as u32;
        let mut content = Vec::new();
        for field in [0, (at >> 32) as u32, at as u32, len, len] {
            content.extend(field.to_le_bytes());
        }
        content.extend(packet);
        content.resize(content.len().next_multiple_of(4), 0);
        block(&mut file, 6, &content);
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, content: &[u8]) {
    let len = (12 + content.len() as u32).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(len);
    file.extend(content);
    file.extend(len);
}
