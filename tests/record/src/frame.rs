//! WebSocket frames as on the wire (RFC 6455 §5.2), valid and invalid.

use wire::{BINARY, CLOSE, CONTINUATION, LengthForm, PING, PONG, TEXT};

#[derive(Clone)]
enum Payload {
    Bytes(Vec<u8>),
    /// This many bytes that are 0xff on the wire, masked or not. No legal header starts with 0xff,
    /// so payload behind a hole is not mistaken for one.
    Fill(usize),
}

#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// RSV1, RSV2, RSV3 as bits 2, 1, 0.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    payload: Payload,
    form: LengthForm,
    wrong_mask_bit: bool,
    /// Whether its header can be recovered from the recording.
    pub(crate) knowable: bool,
}

const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Frame {
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            payload: Payload::Bytes(payload.into()),
            form: LengthForm::Minimal,
            wrong_mask_bit: false,
            knowable: true,
        }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    /// With `len` bytes that do not look like a header on the wire.
    pub(crate) fn binary(len: usize) -> Self {
        Self {
            payload: Payload::Fill(len),
            ..Self::new(BINARY, [])
        }
    }

    pub(crate) fn continuation(text: &str) -> Self {
        Self::new(CONTINUATION, text)
    }

    pub(crate) fn ping(payload: &str) -> Self {
        Self::new(PING, payload)
    }

    pub(crate) fn pong(payload: &str) -> Self {
        Self::new(PONG, payload)
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        Self::new(CLOSE, payload)
    }

    pub(crate) fn close_without_code() -> Self {
        Self::new(CLOSE, [])
    }

    /// More fragments follow.
    pub(crate) fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    pub(crate) fn rsv(mut self, rsv: u8) -> Self {
        self.rsv = rsv;
        self
    }

    /// A 16-bit length, needed or not.
    pub(crate) fn sixteen_bit_length(mut self) -> Self {
        self.form = LengthForm::SixteenBit;
        self
    }

    /// A 64-bit length, needed or not.
    pub(crate) fn sixty_four_bit_length(mut self) -> Self {
        self.form = LengthForm::SixtyFourBit;
        self
    }

    /// Unmasked from a client, masked from a server.
    pub(crate) fn wrong_mask_bit(mut self) -> Self {
        self.wrong_mask_bit = true;
        self
    }

    /// Its header is missing from the recording.
    pub(crate) fn unknowable(mut self) -> Self {
        self.knowable = false;
        self
    }

    pub(crate) fn len(&self) -> usize {
        match &self.payload {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Fill(len) => *len,
        }
    }

    pub(crate) fn masked(&self, from_client: bool) -> bool {
        from_client != self.wrong_mask_bit
    }

    /// RFC 6455 §7.1.5: the first two bytes of a close frame, if present.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match &self.payload {
            Payload::Bytes(bytes) if self.opcode == CLOSE => {
                bytes.first_chunk().map(|code| u16::from_be_bytes(*code))
            }
            _ => None,
        }
    }

    /// The name in `wsmon replay --json`.
    pub(crate) fn opcode_name(&self) -> String {
        match self.opcode {
            CONTINUATION => "continuation".to_owned(),
            TEXT => "text".to_owned(),
            BINARY => "binary".to_owned(),
            CLOSE => "close".to_owned(),
            PING => "ping".to_owned(),
            PONG => "pong".to_owned(),
            reserved => format!("reserved-{reserved}"),
        }
    }

    pub(crate) fn bytes(&self, from_client: bool) -> Vec<u8> {
        let key = self.masked(from_client).then_some(MASKING_KEY);
        let first = u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode;
        let mut bytes = self.form.header(first, self.len(), key);
        match &self.payload {
            Payload::Fill(len) => bytes.resize(bytes.len() + len, 0xff),
            Payload::Bytes(payload) => {
                let key = key.unwrap_or_default().into_iter().cycle();
                bytes.extend(payload.iter().zip(key).map(|(byte, key)| byte ^ key));
            }
        }
        bytes
    }

    /// Bytes before the payload.
    pub(crate) fn header_len(&self, from_client: bool) -> usize {
        self.bytes(from_client).len() - self.len()
    }
}
