//! WebSocket frames (RFC 6455 §5.2), valid and invalid.

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// `None` if the frame is not masked.
pub type MaskingKey = Option<[u8; 4]>;

/// A client's key that leaves the payload readable.
pub const ZERO_KEY: MaskingKey = Some([0; 4]);

/// How the payload length is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthForm {
    /// The shortest encoding, as the RFC requires.
    Minimal,
    SixteenBit,
    SixtyFourBit,
}

impl LengthForm {
    /// A header with this form of length.
    pub fn header(self, first: u8, len: usize, key: MaskingKey) -> Vec<u8> {
        let mask = u8::from(key.is_some()) << 7;
        let mut bytes = vec![first];
        match (self, len) {
            (Self::Minimal, 0..=125) => bytes.push(mask | len as u8),
            (Self::Minimal, 126..=0xffff) | (Self::SixteenBit, _) => {
                bytes.push(mask | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            (Self::Minimal | Self::SixtyFourBit, _) => {
                bytes.push(mask | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(key.into_iter().flatten());
        bytes
    }
}

/// The header of a frame with `len` bytes of payload; `first` has FIN, RSV and opcode.
pub fn header(first: u8, len: usize, key: MaskingKey) -> Vec<u8> {
    LengthForm::Minimal.header(first, len, key)
}

/// A whole unfragmented frame. The payload is given unmasked.
pub fn frame(opcode: u8, payload: &[u8], key: MaskingKey) -> Vec<u8> {
    let mut bytes = header(0x80 | opcode, payload.len(), key);
    let key = key.unwrap_or_default();
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_has_its_shortest_encoding() {
        for (payload, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(header(0x82, payload, None), expected);
        }
    }

    #[test]
    fn frames_match_the_examples_of_the_rfc() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(frame(TEXT, b"Hello", None), b"\x81\x05Hello");
        assert_eq!(
            frame(TEXT, b"Hello", key),
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        assert_eq!(
            LengthForm::SixteenBit.header(0x81, 5, ZERO_KEY),
            [0x81, 0xfe, 0, 5, 0, 0, 0, 0]
        );
    }
}
