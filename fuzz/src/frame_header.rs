//! The frame header, compared with tungstenite's and with the rules of RFC 6455 written as text.

use std::io::Cursor;

use monitor_common::{
    frame::{HEADER_MAX, Head, Header, opcode},
    stats::ProtocolError,
};
use tungstenite::protocol::frame::FrameHeader;

/// Reads `data` as the beginning of a frame.
///
/// # Panics
/// If our parser and tungstenite's disagree, or if a prefix parses differently.
pub fn check(data: &[u8]) {
    let bytes = &data[..data.len().min(HEADER_MAX as usize)];
    let ours = parse(bytes);
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((header, len))) => {
            let theirs = Theirs {
                header,
                len,
                header_len: cursor.position() as usize,
            };
            match ours {
                Some(ours) => compare(&ours, bytes, &theirs),
                None => assert!(bytes.len() < theirs.taken(), "not read"),
            }
        }
        Ok(None) => assert_eq!(ours, None, "incomplete according to tungstenite"),
        // tungstenite refuses reserved opcodes; our parser continues and reports them.
        Err(_) => {
            if let Some(ours) = ours {
                assert!(breaks(&ours, 0, ProtocolError::ReservedOpcode));
            }
        }
    }
    if let Some(whole) = ours {
        check_prefixes(bytes, &whole);
    }
}

/// What tungstenite parsed.
struct Theirs {
    header: FrameHeader,
    len: u64,
    header_len: usize,
}

impl Theirs {
    fn opcode(&self) -> u8 {
        u8::from(self.header.opcode)
    }

    fn key(&self) -> [u8; 4] {
        self.header.mask.unwrap_or_default()
    }

    /// Length of the first byte and the length field.
    fn length_form(&self) -> usize {
        self.header_len - if self.header.mask.is_some() { 4 } else { 0 }
    }

    /// Payload bytes parsed with the header: a close frame's code, the first eight bytes of a ping
    /// or pong. A legal control frame's length fits in seven bits.
    fn body(&self) -> usize {
        match self.opcode() {
            _ if self.length_form() > 2 => 0,
            opcode::CLOSE if self.len >= 2 => 2,
            opcode::PING | opcode::PONG => self.len.min(8) as usize,
            _ => 0,
        }
    }

    fn taken(&self) -> usize {
        self.header_len + self.body()
    }

    /// RFC 6455 §5.1, §5.2 and §5.5, RFC 7692 §6.
    fn broken(&self, from_client: bool) -> Vec<ProtocolError> {
        let header = &self.header;
        let op = self.opcode();
        let control = op >= opcode::CLOSE;
        let starts_message = matches!(op, opcode::TEXT | opcode::BINARY);
        let needed = match self.len {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        [
            (
                ProtocolError::ReservedBits,
                header.rsv2 || header.rsv3 || (header.rsv1 && !starts_message),
            ),
            (
                ProtocolError::FragmentedControl,
                control && !header.is_final,
            ),
            (
                ProtocolError::OversizedControl,
                control && self.length_form() > 2,
            ),
            (
                ProtocolError::UnmaskedClient,
                from_client && header.mask.is_none(),
            ),
            (
                ProtocolError::MaskedServer,
                !from_client && header.mask.is_some(),
            ),
            (
                ProtocolError::NonMinimalLength,
                self.length_form() != needed || self.len >> 63 == 1,
            ),
        ]
        .into_iter()
        .filter_map(|(rule, broken)| broken.then_some(rule))
        .collect()
    }
}

fn compare(ours: &Header, bytes: &[u8], theirs: &Theirs) {
    let header = &theirs.header;
    let rsv = u8::from(header.rsv1) << 2 | u8::from(header.rsv2) << 1 | u8::from(header.rsv3);
    assert_eq!(
        (ours.fin(), ours.rsv(), ours.opcode(), ours.payload_len),
        (header.is_final, rsv, theirs.opcode(), theirs.len)
    );
    assert_eq!(ours.first_byte(), bytes[0]);
    assert_eq!(ours.masked(), header.mask.is_some());
    assert_eq!(usize::from(ours.taken), theirs.taken());
    assert_eq!(ours.bytes_to_skip(), theirs.len - theirs.body() as u64);

    let key = theirs.key().into_iter().cycle();
    let body = bytes[theirs.header_len..theirs.taken()].iter();
    let body: Vec<u8> = body.zip(key).map(|(byte, key)| byte ^ key).collect();
    let code = match theirs.opcode() {
        opcode::CLOSE if body.len() == 2 => u16::from_be_bytes([body[0], body[1]]),
        _ => 0,
    };
    assert_eq!(ours.close_code(), code);
    // A pong repeats the ping's payload, whatever the masking key.
    if ours.masked() && matches!(theirs.opcode(), opcode::PING | opcode::PONG) && theirs.len <= 125
    {
        let plain = [&[bytes[0], theirs.len as u8][..], &body].concat();
        if theirs.length_form() == 2 {
            assert_eq!(parse(&plain).map(|plain| plain.tag()), Some(ours.tag()));
        }
    }
    for from_client in [false, true] {
        let broken = theirs.broken(from_client);
        for &rule in ProtocolError::ALL {
            assert_eq!(
                breaks(ours, from_client.into(), rule),
                broken.contains(&rule),
                "{rule:?} in {bytes:x?}"
            );
        }
    }
}

/// Whether the header breaks a rule that a single header can break.
fn breaks(header: &Header, from_client: u8, rule: ProtocolError) -> bool {
    let bit = 1_u16 << rule as u8;
    u16::from(header.violations(from_client)) & bit != 0
}

fn check_prefixes(bytes: &[u8], whole: &Header) {
    let taken = usize::from(whole.taken);
    for have in 0..taken {
        assert_eq!(parse(&bytes[..have]), None, "parsed from {have} bytes");
    }
    let exact = parse(&bytes[..taken]).expect("the parsed bytes are enough");
    let facts = |header: &Header| {
        (
            (header.taken, header.payload_len),
            (header.close_code(), header.tag()),
            [0, 1].map(|from_client| header.violations(from_client)),
        )
    };
    assert_eq!(facts(&exact), facts(whole));
}

fn parse(bytes: &[u8]) -> Option<Header> {
    let mut head = Head::default();
    for (i, byte) in (0..).zip(bytes) {
        head.put(i, *byte);
    }
    Header::parse(&head, bytes.len() as u32)
}
