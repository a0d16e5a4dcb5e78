//! The WebSocket frame header (RFC 6455 §5.2).

use crate::stats::ProtocolError;

/// The longest header: 2 bytes, 8 of extended length, 4 of masking key. A masked ping with the tagged part
/// of its payload has the same length.
pub const HEADER_MAX: u32 = 14;

/// Up to [`HEADER_MAX`] bytes as two little-endian words, which a BPF program can zero, load and parse
/// without a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head(pub [u64; 2]);

impl Head {
    /// Byte `i` of the header.
    #[inline(always)]
    pub const fn byte(&self, i: usize) -> u8 {
        if i < 8 {
            (self.0[0] >> (8 * i)) as u8
        } else {
            (self.0[1] >> (8 * (i - 8))) as u8
        }
    }

    /// These bytes appended to the first `len` (1 to 13) of `front`.
    #[inline(always)]
    pub const fn behind(&self, front: &Self, len: u8) -> Self {
        let [low, high] = self.0;
        let bits = 8 * (len & 7) as u32;
        let carried = if bits == 0 {
            0
        } else {
            low >> ((64 - bits) & 63)
        };
        let (low, high) = (low << bits, (high << bits) | carried);
        let [front_low, front_high] = front.0;
        if len & 8 == 0 {
            Self([front_low | low, front_high | high])
        } else {
            Self([front_low, front_high | low])
        }
    }

    /// Sets byte `i` (modulo 16), which must still be zero.
    #[inline(always)]
    pub const fn put(&mut self, i: u8, byte: u8) {
        self.0[(i >> 3) as usize & 1] |= (byte as u64) << (8 * (i & 7) as u32);
    }
}

/// Opcodes (RFC 6455 §11.8).
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xa;

    /// The name in metrics and logs.
    pub const fn name(opcode: u8) -> &'static str {
        match opcode {
            CONTINUATION => "continuation",
            TEXT => "text",
            BINARY => "binary",
            CLOSE => "close",
            PING => "ping",
            PONG => "pong",
            _ => "reserved",
        }
    }
}

/// A complete frame header, with the beginning of the body for a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// The bytes that [`Header::taken`] counts, as on the wire.
    bytes: Head,
    /// Payload length in bytes, including the beginning of the body.
    pub payload_len: u64,
    /// Bytes taken from the stream: the header, and the identifying part of a control frame's body: the
    /// code of a close frame, or the first `TAG_LEN` bytes of a ping or pong.
    pub taken: u8,
    /// How many of the taken bytes are payload.
    body: u8,
    /// Violations visible in the header alone, by [`ProtocolError`], except the mask bit.
    faults: u8,
    _pad: [u8; 5],
}

/// Bytes of a ping's payload that form [`Header::tag`].
const TAG_LEN: u8 = 8;

impl Header {
    /// The bit of the first byte that ends a message.
    pub const FIN: u8 = 0x80;

    /// All zero.
    pub const EMPTY: Self = Self {
        bytes: Head([0; 2]),
        payload_len: 0,
        taken: 0,
        body: 0,
        faults: 0,
        _pad: [0; 5],
    };

    /// Parses a header of which `have` bytes are available.
    ///
    /// Returns `None` if these are too few; then nothing is consumed. A control frame also needs the
    /// beginning of its body, so that the body can be read wherever segments are cut.
    #[inline(always)]
    pub fn parse(head: &Head, have: u32) -> Option<Self> {
        let [word, rest] = head.0;
        let second_byte = (word >> 8) as u8 as usize;
        let (first, second) = (FIRST[word as u8 as usize], SECOND[second_byte]);
        let body = BODY[((first & CLASS) as usize) << 8 | second_byte];
        let taken = (second >> LENGTH_SHIFT) + body;
        if have < 2 || have < taken as u32 {
            return None;
        }
        let form = &FORMS[(second & FORM) as usize];
        let payload_len = ((word >> 8) & form.short)
            | (((word >> 16) as u16).swap_bytes() as u64 & form.middle)
            | (((word >> 16) | (rest << 48)).swap_bytes() & form.long);
        let longer_than_needed = (payload_len.wrapping_sub(form.least) > form.span) as u8;
        Some(Self {
            bytes: *head,
            payload_len,
            taken,
            body,
            faults: (first >> FAULTS_SHIFT)
                | ((first & second & EXTENDED) << (ProtocolError::OversizedControl as u8 - 2))
                | (longer_than_needed << ProtocolError::NonMinimalLength as u8),
            _pad: [0; 5],
        })
    }

    /// FIN, RSV and opcode as on the wire.
    #[inline(always)]
    pub const fn first_byte(&self) -> u8 {
        self.bytes.0[0] as u8
    }

    #[inline(always)]
    pub const fn fin(&self) -> bool {
        self.first_byte() & Self::FIN != 0
    }

    /// RSV1, RSV2, RSV3 as bits 2, 1, 0.
    #[inline(always)]
    pub const fn rsv(&self) -> u8 {
        (self.first_byte() >> 4) & 0x7
    }

    /// The raw four bits; see [`opcode`].
    #[inline(always)]
    pub const fn opcode(&self) -> u8 {
        self.first_byte() & 0x0f
    }

    #[inline(always)]
    pub const fn masked(&self) -> bool {
        self.bytes.0[0] & MASK_BIT != 0
    }

    /// The code of a close frame (RFC 6455 §7.4), unmasked (§5.3); 0 = none.
    #[inline(always)]
    pub const fn close_code(&self) -> u16 {
        if self.opcode() != opcode::CLOSE || self.body == 0 {
            return 0;
        }
        (self.unmasked_body() as u16).swap_bytes()
    }

    /// Identifies a ping within its connection and matches it with its pong: a hash of the first `TAG_LEN`
    /// payload bytes, unmasked, and of the length.
    #[inline(always)]
    pub const fn tag(&self) -> u16 {
        let body = if self.body == 0 {
            0
        } else {
            self.unmasked_body() & (u64::MAX >> (8 * ((8 - self.body as u32) & 7)))
        };
        // Fibonacci hashing: the upper bits depend on all input bits.
        ((body ^ (self.payload_len << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
    }

    /// The beginning of the body in the lowest bytes; the bytes above are undefined.
    #[inline(always)]
    const fn unmasked_body(&self) -> u64 {
        let [word, rest] = self.bytes.0;
        // A control frame's length fits in seven bits, so its body begins after two or six bytes.
        if self.masked() {
            let key = (word >> 16) as u32 as u64;
            ((word >> 48) | (rest << 16)) ^ (key | key << 32)
        } else {
            (word >> 16) | (rest << 48)
        }
    }

    /// Payload bytes after those that [`Header::parse`] took.
    #[inline(always)]
    pub const fn bytes_to_skip(&self) -> u64 {
        self.payload_len - self.body as u64
    }

    /// The rules that this header breaks, as bits by [`ProtocolError`]. `from_client` is 0 or 1.
    ///
    /// RSV1 is legal on the first frame of a message: permessage-deflate (RFC 7692 §6).
    #[inline(always)]
    pub const fn violations(&self, from_client: u8) -> u8 {
        const {
            // One expression names both.
            assert!(ProtocolError::UnmaskedClient as u8 + 1 == ProtocolError::MaskedServer as u8);
        }
        let wrong_mask = (self.bytes.0[0] >> 15) as u8 & 1 ^ from_client;
        self.faults | (wrong_mask << (ProtocolError::MaskedServer as u8 - from_client))
    }

    /// Whether a legal header may begin with these bytes; at least two are available.
    #[inline(always)]
    pub const fn may_begin(head: &Head, from_client: u8) -> bool {
        let word = head.0[0];
        let faults = FIRST[word as u8 as usize] >> FAULTS_SHIFT;
        faults == 0 && (word >> 15) as u8 & 1 == from_client && word as u16 != 0
    }

    /// Whether FIN, opcode, mask and length are all zero. This is either a legal empty continuation within
    /// a message or, more likely, not a header.
    #[inline(always)]
    pub const fn is_blank(&self) -> bool {
        self.bytes.0[0] as u16 == 0
    }
}

const _: () = assert!(size_of::<Header>() == 32);

/// The mask bit in a header's first word.
const MASK_BIT: u64 = 0x8000;

// Tables give the meaning of the two leading bytes, because the verifier follows every combination of
// branches and a table has none.

/// In [`FIRST`]: a control frame. In [`SECOND`]: an extended length, which a control frame must not have.
const EXTENDED: u8 = 0x04;
/// In [`FIRST`]: which part of [`BODY`] gives the number of payload bytes taken.
const CLASS: u8 = 0x03;
const CLASS_NONE: u8 = 0;
const CLASS_CLOSE: u8 = 1;
const CLASS_PING: u8 = 2;
/// In [`FIRST`]: the lowest bit of the violations visible in the byte, by [`ProtocolError`].
const FAULTS_SHIFT: u8 = 3;
/// In [`SECOND`]: the index into [`FORMS`]; overlaps no neighbouring bits.
const FORM: u8 = 0x09;
/// In [`SECOND`]: the header's length is in the upper four bits.
const LENGTH_SHIFT: u8 = 4;

/// By the first byte: FIN, RSV, opcode.
static FIRST: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (fin, rsv, op) = (byte >= 0x80, (byte >> 4) & 7, (byte & 0x0f) as u8);
        let control = op >= opcode::CLOSE;
        let starts_data = matches!(op, opcode::TEXT | opcode::BINARY);
        let known = op <= opcode::BINARY || (control && op <= opcode::PONG);
        let mut faults = 0;
        if rsv != 0 && !(rsv == 4 && starts_data) {
            faults |= 1 << ProtocolError::ReservedBits as u8;
        }
        if !known {
            faults |= 1 << ProtocolError::ReservedOpcode as u8;
        }
        if control && !fin {
            faults |= 1 << ProtocolError::FragmentedControl as u8;
        }
        table[byte] = (faults << FAULTS_SHIFT)
            | if control { EXTENDED } else { 0 }
            | match op {
                opcode::CLOSE => CLASS_CLOSE,
                opcode::PING | opcode::PONG => CLASS_PING,
                _ => CLASS_NONE,
            };
        byte += 1;
    }
    table
};

/// By the second byte: mask bit and length.
static SECOND: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let key = if byte >= 0x80 { 4 } else { 0 };
        table[byte] = match byte & 0x7f {
            126 => ((2 + 2 + key) << LENGTH_SHIFT) | EXTENDED | 1,
            127 => ((2 + 8 + key) << LENGTH_SHIFT) | EXTENDED | 8,
            _ => (2 + key) << LENGTH_SHIFT,
        };
        byte += 1;
    }
    table
};

/// By [`CLASS`] and second byte: how many payload bytes are taken with the header.
static BODY: [u8; 1024] = {
    let mut table = [0; 1024];
    let mut byte = 0;
    while byte < 256 {
        let len = (byte & 0x7f) as u8;
        if len >= 2 && len < 126 {
            table[(CLASS_CLOSE as usize) << 8 | byte] = 2;
        }
        if len < 126 {
            table[(CLASS_PING as usize) << 8 | byte] = if len < TAG_LEN { len } else { TAG_LEN };
        }
        byte += 1;
    }
    table
};

/// How a length is encoded (RFC 6455 §5.2): the bits of the header that hold it, and its legal range.
#[derive(Clone, Copy)]
struct Form {
    short: u64,
    middle: u64,
    long: u64,
    least: u64,
    span: u64,
}

static FORMS: [Form; 16] = {
    const NONE: Form = Form {
        short: 0x7f,
        middle: 0,
        long: 0,
        least: 0,
        span: 125,
    };
    let mut forms = [NONE; 16];
    forms[1] = Form {
        short: 0,
        middle: 0xffff,
        least: 126,
        span: 0xffff - 126,
        ..NONE
    };
    forms[8] = Form {
        short: 0,
        long: u64::MAX,
        least: 0x1_0000,
        span: (u64::MAX >> 1) - 0x1_0000,
        ..NONE
    };
    forms
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    };

    use super::*;

    fn head(bytes: &[u8]) -> (Head, u32) {
        let mut head = Head::default();
        let have = bytes.len().min(HEADER_MAX as usize);
        for (i, byte) in bytes.iter().take(have).enumerate() {
            head.put(i as u8, *byte);
        }
        (head, have as u32)
    }

    fn parse(bytes: &[u8]) -> Option<Header> {
        let (head, have) = head(bytes);
        Header::parse(&head, have)
    }

    #[test]
    fn every_length_encoding_is_parsed() {
        for (bytes, taken, len) in [
            (&[0x81, 0x05][..], 2, 5),
            (&[0x81, 0x7e, 0x01, 0x00], 4, 256),
            (&[0x82, 0x7f, 0, 0, 0, 1, 0, 0, 0, 2], 10, 0x1_0000_0002),
            (
                &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9, 9, 9],
                14,
                0x1_0000,
            ),
            (&[0x89, 0x80, 1, 2, 3, 4], 6, 0),
        ] {
            let header = parse(bytes).expect("a complete header");
            assert_eq!(
                (header.taken, header.payload_len),
                (taken, len),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn a_close_code_is_parsed_masked_and_unmasked_once_complete() {
        let plain = parse(&[0x88, 0x02, 0x03, 0xe8]).expect("complete");
        assert_eq!(
            (plain.close_code(), plain.taken, plain.bytes_to_skip()),
            (1000, 4, 0)
        );
        let masked = parse(&[0x88, 0x85, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]).expect("complete");
        assert_eq!(
            (masked.close_code(), masked.taken, masked.bytes_to_skip()),
            (1001, 8, 3)
        );
        assert_eq!(parse(&[0x88, 0x02, 0x03]), None);
        let empty = parse(&[0x88, 0x00]).expect("complete");
        assert_eq!((empty.close_code(), empty.bytes_to_skip()), (0, 0));
    }

    #[test]
    fn each_violation_is_reported_as_its_rule() {
        use ProtocolError as E;
        let long_ping = [&[0x89, 0x7e, 0, 126][..], &[0; 10]].concat();
        for (bytes, from_client, broken) in [
            (&[0x81, 0x05][..], 0, &[][..]),
            (&[0xc1, 0x05], 0, &[]),
            (&[0xc0, 0x05], 0, &[E::ReservedBits]),
            (&[0xa1, 0x05], 0, &[E::ReservedBits]),
            (&[0x83, 0x05], 0, &[E::ReservedOpcode]),
            (&[0x81, 0x85, 0, 0, 0, 0], 0, &[E::MaskedServer]),
            (&[0x81, 0x85, 0, 0, 0, 0], 1, &[]),
            (&[0x81, 0x05], 1, &[E::UnmaskedClient]),
            (&[0x09, 0x00], 0, &[E::FragmentedControl]),
            (&long_ping, 0, &[E::OversizedControl]),
            (&[0x81, 0x7e, 0, 125], 0, &[E::NonMinimalLength]),
            (
                &[0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                0,
                &[E::NonMinimalLength],
            ),
            (
                &[0x81, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
                0,
                &[E::NonMinimalLength],
            ),
            (
                &[0x7b, 0x00],
                1,
                &[
                    E::ReservedBits,
                    E::ReservedOpcode,
                    E::FragmentedControl,
                    E::UnmaskedClient,
                ],
            ),
        ] {
            let broken = broken.iter().fold(0, |bits, rule| bits | 1 << *rule as u8);
            let header = parse(bytes).expect("complete");
            assert_eq!(header.violations(from_client), broken, "{bytes:x?}");
        }
    }

    #[test]
    fn bytes_are_appended_to_others() {
        let bytes = *b"0123456789abcd";
        for cut in 1..14 {
            let ((front, len), (back, _)) = (head(&bytes[..cut]), head(&bytes[cut..]));
            assert_eq!(back.behind(&front, len as u8), head(&bytes).0, "{cut}");
        }
    }

    #[test]
    fn a_pong_has_the_tag_of_its_ping_whatever_the_mask() {
        let frame = |first, key: Option<[u8; 4]>, payload: &[u8]| {
            let mut bytes = vec![
                first,
                payload.len() as u8 | if key.is_some() { 0x80 } else { 0 },
            ];
            bytes.extend(key.into_iter().flatten());
            let key = key.unwrap_or_default().into_iter().cycle();
            bytes.extend(payload.iter().zip(key).map(|(byte, key)| byte ^ key));
            // The following bytes of the stream must not matter.
            bytes.extend([0x5a; 14]);
            parse(&bytes).expect("complete")
        };
        let payloads = [
            &b""[..],
            b"\0",
            b"a",
            b"ab",
            b"seven77",
            b"eight888",
            b"eight888 and more",
            b"eight888 and less",
            &[0; 125],
        ];
        for (i, sent) in payloads.iter().enumerate() {
            for (j, answered) in payloads.iter().enumerate() {
                let ping = frame(0x89, Some([1, 2, 3, 4]), sent);
                let pong = frame(0x8a, None, answered);
                let same = i == j || sent.len() == answered.len() && sent.starts_with(b"eight888");
                assert_eq!(ping.tag() == pong.tag(), same, "{sent:x?} {answered:x?}");
                assert_eq!(ping.bytes_to_skip(), sent.len().saturating_sub(8) as u64);
            }
        }
    }

    fn oracle_opcode(opcode: OpCode) -> u8 {
        match opcode {
            OpCode::Data(Data::Continue) => opcode::CONTINUATION,
            OpCode::Data(Data::Text) => opcode::TEXT,
            OpCode::Data(Data::Binary) => opcode::BINARY,
            OpCode::Data(Data::Reserved(raw)) => raw,
            OpCode::Control(Control::Close) => opcode::CLOSE,
            OpCode::Control(Control::Ping) => opcode::PING,
            OpCode::Control(Control::Pong) => opcode::PONG,
            OpCode::Control(Control::Reserved(raw)) => raw,
        }
    }

    proptest! {
        /// tungstenite refuses reserved opcodes and lengths beyond its limits. Every header that it accepts
        /// must parse to the same result here.
        #[test]
        fn headers_are_parsed_like_tungstenite_does(bytes in proptest::collection::vec(any::<u8>(), 0..=14)) {
            let mut cursor = std::io::Cursor::new(&bytes);
            if let Ok(Some((oracle, len))) = FrameHeader::parse(&mut cursor) {
                let control = oracle_opcode(oracle.opcode) >= opcode::CLOSE;
                match parse(&bytes) {
                    Some(ours) => {
                        prop_assert_eq!(ours.fin(), oracle.is_final);
                        prop_assert_eq!(ours.rsv(), (u8::from(oracle.rsv1) << 2) | (u8::from(oracle.rsv2) << 1) | u8::from(oracle.rsv3));
                        prop_assert_eq!(ours.opcode(), oracle_opcode(oracle.opcode));
                        prop_assert_eq!(ours.masked(), oracle.mask.is_some());
                        prop_assert_eq!(ours.payload_len, len);
                        prop_assert_eq!(u64::from(ours.taken - ours.body), cursor.position());
                    }
                    None => prop_assert!(control, "only a control frame may need more than its header"),
                }
            } else if let Ok(None) = FrameHeader::parse(&mut std::io::Cursor::new(&bytes)) {
                prop_assert_eq!(parse(&bytes), None, "incomplete for tungstenite");
            }
        }

        #[test]
        fn only_the_whole_header_is_complete(bytes in proptest::collection::vec(any::<u8>(), 14)) {
            let whole = parse(&bytes).expect("14 bytes always hold a header");
            for have in 0..usize::from(whole.taken) {
                prop_assert_eq!(parse(&bytes[..have]), None);
            }
            let exact = parse(&bytes[..usize::from(whole.taken)]).expect("complete");
            prop_assert_eq!(exact.payload_len, whole.payload_len);
            prop_assert_eq!(exact.close_code(), whole.close_code());
            prop_assert_eq!(exact.violations(1), whole.violations(1));
        }
    }
}
