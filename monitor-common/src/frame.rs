//! The WebSocket frame header (RFC 6455 §5.2).

/// The longest header: 2 bytes, 8 of extended length, 4 of masking key.
pub const HEADER_MAX: u32 = 14;

/// Up to [`HEADER_MAX`] bytes as two little-endian words: what a BPF program can zero, load and
/// take apart without a loop.
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

/// A complete frame header, and the close code when the frame is a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first eight bytes on the wire.
    word: u64,
    /// Bytes taken from the stream: the header, and the close code if there is one.
    pub taken: u8,
    /// Whether the bytes are a legal header, apart from the mask bit.
    legal: bool,
    /// Bytes of payload, the close code among them.
    pub payload_len: u64,
}

impl Header {
    /// Reads a header of which `have` bytes are there.
    ///
    /// `None` if that is too little; nothing is consumed then. A close frame is complete only
    /// with its code, so that the two bytes can be read wherever they lie.
    #[inline(always)]
    pub fn parse(head: &Head, have: u32) -> Option<Self> {
        let [word, rest] = head.0;
        let (first, second) = (
            FIRST[word as u8 as usize],
            SECOND[(word >> 8) as u8 as usize],
        );
        let taken = (second >> LENGTH_SHIFT) + (first & second & WITH_CODE);
        if have < 2 || have < taken as u32 {
            return None;
        }
        let form = &FORMS[(second & FORM) as usize];
        let payload_len = ((word >> 8) & form.short)
            | (((word >> 16) as u16).swap_bytes() as u64 & form.middle)
            | (((word >> 16) | (rest << 48)).swap_bytes() & form.long);
        let minimal = payload_len.wrapping_sub(form.least) <= form.span;
        Some(Self {
            word,
            taken,
            legal: first & (ILLEGAL | (second & EXTENDED)) == 0 && minimal,
            payload_len,
        })
    }

    /// FIN, RSV and opcode as on the wire.
    #[inline(always)]
    pub const fn first_byte(&self) -> u8 {
        self.word as u8
    }

    #[inline(always)]
    pub const fn fin(&self) -> bool {
        self.word & 0x80 != 0
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
        self.word & MASK_BIT != 0
    }

    /// The code of a close frame (RFC 6455 §7.4), unmasked (§5.3); 0 if there is none.
    #[inline(always)]
    pub const fn close_code(&self) -> u16 {
        if self.code_len() == 0 {
            return 0;
        }
        // A close frame's length fits in seven bits, so the code lies behind two or six bytes.
        let (code, key) = if self.masked() {
            (self.word >> 48, self.word >> 16)
        } else {
            (self.word >> 16, 0)
        };
        ((code ^ key) as u16).swap_bytes()
    }

    /// Payload bytes that follow what [`Header::parse`] took.
    #[inline(always)]
    pub const fn bytes_to_skip(&self) -> u64 {
        self.payload_len - self.code_len() as u64
    }

    /// Whether these bytes can be a frame header of this direction at all. `from_client` is 0 or
    /// 1.
    ///
    /// Refuses what RFC 6455 forbids and no real endpoint sends: RSV2 and RSV3, reserved opcodes,
    /// a wrong mask bit (§5.1), fragmented or long control frames (§5.5), a length that is not
    /// minimally encoded or has its top bit set (§5.2). RSV1 is legal with permessage-deflate
    /// (RFC 7692 §6) on the first frame of a message.
    #[inline(always)]
    pub const fn is_plausible(&self, from_client: u8) -> bool {
        self.legal && (self.word >> 15) as u8 & 1 == from_client
    }

    /// Whether FIN, opcode, mask and length are all zero: an empty continuation in the middle of a
    /// message, which is legal, or no header at all, which is likelier.
    #[inline(always)]
    pub const fn is_blank(&self) -> bool {
        self.word as u16 == 0
    }

    /// Bytes of close code that were taken with the header: 2 or 0.
    #[inline(always)]
    const fn code_len(&self) -> u8 {
        let [first, second] = [self.word as u8, (self.word >> 8) as u8];
        FIRST[first as usize] & SECOND[second as usize] & WITH_CODE
    }
}

/// The mask bit in a header's first word.
const MASK_BIT: u64 = 0x8000;

// What the two leading bytes mean is looked up, not branched on: the verifier follows every
// combination of branches, and a table has none.

/// In [`FIRST`]: RSV2 or RSV3, RSV1 on anything but the start of a data message, a reserved
/// opcode, or a control frame without FIN.
const ILLEGAL: u8 = 0x08;
/// In [`FIRST`]: a close frame. In [`SECOND`]: a length of 2 to 125. Its value is the code's
/// length.
const WITH_CODE: u8 = 0x02;
/// In [`FIRST`]: a control frame. In [`SECOND`]: an extended length, which it must not have.
const EXTENDED: u8 = 0x04;
/// In [`SECOND`]: the index into [`FORMS`]; shares no bit with what is above.
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
        let mut bits = 0;
        if !known || (rsv != 0 && !(rsv == 4 && starts_data)) || (control && !fin) {
            bits |= ILLEGAL;
        }
        if control {
            bits |= EXTENDED;
        }
        if op == opcode::CLOSE {
            bits |= WITH_CODE;
        }
        table[byte] = bits;
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
            0 | 1 => (2 + key) << LENGTH_SHIFT,
            _ => ((2 + key) << LENGTH_SHIFT) | WITH_CODE,
        };
        byte += 1;
    }
    table
};

/// How a length is encoded (RFC 6455 §5.2): which bits of the header hold it, and its legal range.
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
    fn every_length_encoding_is_read() {
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
    fn a_close_code_is_read_masked_and_plain_and_waits_for_its_bytes() {
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
    fn what_the_rfc_forbids_is_implausible() {
        let from_server = |bytes: &[u8]| parse(bytes).expect("complete").is_plausible(0);
        assert!(from_server(&[0x81, 0x05]));
        assert!(
            from_server(&[0xc1, 0x05]),
            "RSV1 on a text frame is permessage-deflate"
        );
        assert!(!from_server(&[0xc0, 0x05]), "RSV1 on a continuation");
        assert!(!from_server(&[0xa1, 0x05]), "RSV2");
        assert!(!from_server(&[0x83, 0x05]), "reserved opcode");
        assert!(
            !from_server(&[0x81, 0x85, 0, 0, 0, 0]),
            "a masked server frame"
        );
        assert!(!from_server(&[0x09, 0x00]), "a fragmented ping");
        assert!(!from_server(&[0x89, 0x7e, 0, 126]), "a long ping");
        assert!(
            !from_server(&[0x81, 0x7e, 0, 125]),
            "a length that fits in seven bits"
        );
        assert!(
            !from_server(&[0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            "64 bits for 16"
        );
        assert!(
            !from_server(&[0x81, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            "top bit set"
        );
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
        /// tungstenite refuses reserved opcodes and lengths beyond its limits; where it reads a
        /// header, ours must be the same.
        #[test]
        fn headers_are_read_as_tungstenite_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..=14)) {
            let mut cursor = std::io::Cursor::new(&bytes);
            if let Ok(Some((oracle, len))) = FrameHeader::parse(&mut cursor) {
                let close = oracle_opcode(oracle.opcode) == opcode::CLOSE;
                match parse(&bytes) {
                    Some(ours) => {
                        prop_assert_eq!(ours.fin(), oracle.is_final);
                        prop_assert_eq!(ours.rsv(), (u8::from(oracle.rsv1) << 2) | (u8::from(oracle.rsv2) << 1) | u8::from(oracle.rsv3));
                        prop_assert_eq!(ours.opcode(), oracle_opcode(oracle.opcode));
                        prop_assert_eq!(ours.masked(), oracle.mask.is_some());
                        prop_assert_eq!(ours.payload_len, len);
                        let code = u64::from(ours.code_len());
                        prop_assert_eq!(u64::from(ours.taken) - code, cursor.position());
                    }
                    None => prop_assert!(close, "only a close frame may wait for more than its header"),
                }
            } else if let Ok(None) = FrameHeader::parse(&mut std::io::Cursor::new(&bytes)) {
                prop_assert_eq!(parse(&bytes), None, "incomplete for tungstenite");
            }
        }

        #[test]
        fn every_prefix_of_a_header_is_incomplete_and_the_whole_is_not(bytes in proptest::collection::vec(any::<u8>(), 14)) {
            let whole = parse(&bytes).expect("14 bytes always hold a header");
            for have in 0..usize::from(whole.taken) {
                prop_assert_eq!(parse(&bytes[..have]), None);
            }
            let exact = parse(&bytes[..usize::from(whole.taken)]).expect("complete");
            prop_assert_eq!(exact.payload_len, whole.payload_len);
            prop_assert_eq!(exact.close_code(), whole.close_code());
            prop_assert_eq!(exact.is_plausible(1), whole.is_plausible(1));
        }
    }
}
