//! What a ClientHello and a ServerHello reveal (RFC 8446 §4.1, RFC 5246 §7.4.1): version, cipher suite,
//! application protocol.
//!
//! A hello is read field by field, each a few bytes with a number of bytes to skip before it, so it may
//! span any number of segments. What lies beyond its first record is not read. A hello that begins in a
//! segment of less than eleven bytes, or behind a hole, is not seen.

/// The fields that a walk reads.
pub(super) mod field {
    /// Nothing: waits for a segment that begins with a record.
    pub(crate) const UNSYNCED: u8 = 0;
    /// A record header, which must fit the one before it.
    pub(crate) const TRIAL: u8 = 1;
    /// A record header.
    pub(crate) const RECORD: u8 = 2;
    /// Type and length of the handshake message, and the version.
    pub(crate) const HELLO: u8 = 3;
    /// The length of the session id.
    pub(crate) const SESSION_ID: u8 = 4;
    /// The length of the offered cipher suites.
    pub(crate) const SUITES: u8 = 5;
    /// The length of the offered compression methods.
    pub(crate) const COMPRESSION: u8 = 6;
    /// The selected cipher suite and compression method.
    pub(crate) const SELECTED_SUITE: u8 = 7;
    /// The length of all extensions.
    pub(crate) const EXTENSIONS: u8 = 8;
    /// Type and length of an extension.
    pub(crate) const EXTENSION: u8 = 9;
    /// The selected version.
    pub(crate) const VERSION: u8 = 10;
    /// The length of the list of application protocols.
    pub(crate) const PROTOCOLS: u8 = 11;
    /// The length of a protocol's name, and its first two bytes.
    pub(crate) const PROTOCOL: u8 = 12;

    /// By field, in bytes.
    static LEN: [u8; 16] = [0, 5, 5, 6, 1, 2, 1, 3, 2, 4, 2, 2, 3, 0, 0, 0];

    #[inline(always)]
    pub(crate) fn len(field: u8) -> u32 {
        LEN[(field & 15) as usize] as u32
    }
}

/// The random value between version and session id, bytes.
const RANDOM_LEN: u16 = 32;

/// Handshake message type (RFC 8446 §4).
const SERVER_HELLO: u8 = 2;

/// Extension types (RFC 7301 §3.1, RFC 8446 §4.2).
mod extension {
    pub(super) const ALPN: u16 = 16;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
}

/// What one field says. Two words instead of an enum, because the verifier refuses to copy the payload of a
/// variant that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloFact {
    pub(super) kind: u32,
    pub(super) value: u32,
}

/// Kinds of [`HelloFact`].
pub(super) mod fact {
    pub(in crate::tls) const NONE: u32 = 0;
    pub(in crate::tls) const VERSION: u32 = 1;
    pub(in crate::tls) const SUITE: u32 = 2;
    pub(in crate::tls) const OFFERS_H2: u32 = 3;
    pub(in crate::tls) const SELECTS: u32 = 4;
}

impl HelloFact {
    pub(super) const NONE: Self = Self {
        kind: fact::NONE,
        value: 0,
    };

    /// The client offers HTTP/2.
    pub const OFFERS_H2: Self = Self {
        kind: fact::OFFERS_H2,
        value: 1,
    };

    /// The server selects this minor version: 3 is TLS 1.2, 4 is TLS 1.3. One that begins with 3 may be
    /// followed by another one.
    #[inline(always)]
    pub const fn version(minor: u8) -> Self {
        Self {
            kind: fact::VERSION,
            value: minor as u32,
        }
    }

    /// The server selects this cipher suite.
    #[inline(always)]
    pub const fn suite(suite: u16) -> Self {
        Self {
            kind: fact::SUITE,
            value: suite as u32,
        }
    }

    /// The server selects HTTP/2, or another application protocol. Only up to TLS 1.2; later it is encrypted.
    #[inline(always)]
    pub const fn selects(h2: bool) -> Self {
        Self {
            kind: fact::SELECTS,
            value: h2 as u32,
        }
    }

    #[inline(always)]
    pub(super) const fn is_some(self) -> bool {
        self.kind != fact::NONE
    }
}

/// Progress in a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Hello {
    /// Bytes of its record after the next field.
    left: u16,
    /// Bytes of application protocols from the next one on, in the upper 15 bits; bit 0 is set if the
    /// server sent it.
    protocols: u16,
}

impl Hello {
    pub(super) const EMPTY: Self = Self {
        left: 0,
        protocols: 0,
    };

    /// The hello at the beginning of a record of `len` bytes. Its first field is [`field::HELLO`].
    #[inline(always)]
    pub(super) const fn of_record(len: u16) -> Self {
        Self {
            left: len.saturating_sub(6),
            protocols: 0,
        }
    }

    /// Takes a field, whose bytes are the lowest of a little-endian word. Returns the next field and how
    /// many bytes come before it.
    #[inline(always)]
    pub(super) fn take(&mut self, field: u8, word: u64) -> (u8, u32, HelloFact) {
        let byte = word as u8 as u16;
        let number = (word as u16).swap_bytes();
        let is_server = self.protocols & 1 != 0;
        let mut fact = HelloFact::NONE;
        let (skip, next) = match field {
            field::HELLO => {
                if byte as u8 == SERVER_HELLO {
                    self.protocols = 1;
                    fact = HelloFact::version((word >> 40) as u8);
                }
                (RANDOM_LEN, field::SESSION_ID)
            }
            field::SESSION_ID if is_server => (byte, field::SELECTED_SUITE),
            field::SESSION_ID => (byte, field::SUITES),
            field::SUITES => (number, field::COMPRESSION),
            field::COMPRESSION => (byte, field::EXTENSIONS),
            field::SELECTED_SUITE => {
                fact = HelloFact::suite(number);
                (0, field::EXTENSIONS)
            }
            field::EXTENSIONS => (0, field::EXTENSION),
            field::EXTENSION => {
                let len = ((word >> 16) as u16).swap_bytes();
                match number {
                    extension::ALPN => (0, field::PROTOCOLS),
                    extension::SUPPORTED_VERSIONS if is_server => (0, field::VERSION),
                    _ => (len, field::EXTENSION),
                }
            }
            field::VERSION => {
                fact = HelloFact::version((word >> 8) as u8);
                (0, field::EXTENSION)
            }
            field::PROTOCOLS => {
                self.protocols = number << 1 | is_server as u16;
                (0, field::PROTOCOL)
            }
            field::PROTOCOL => {
                let is_h2 = word & 0xff_ffff == u64::from_le_bytes(*b"\x02h2\0\0\0\0\0");
                let left = (self.protocols >> 1).saturating_sub(byte + 1);
                self.protocols = left << 1 | is_server as u16;
                if is_server {
                    fact = HelloFact::selects(is_h2);
                } else if is_h2 {
                    fact = HelloFact::OFFERS_H2;
                }
                // No protocol's name has a single byte.
                let is_last = fact.is_some() || left < 3 || byte < 2;
                if is_last {
                    (0, field::RECORD)
                } else {
                    (byte - 2, field::PROTOCOL)
                }
            }
            _ => (0, field::RECORD),
        };
        let (next, skip) = self.advance(skip, next);
        (next, skip, fact)
    }

    /// Goes on to a field behind `skip` bytes, or to the end of the record if it does not reach that far.
    #[inline(always)]
    fn advance(&mut self, skip: u16, next: u8) -> (u8, u32) {
        let taken = skip as u32 + field::len(next);
        let left = self.left as u32;
        if next == field::RECORD || taken > left {
            self.left = 0;
            return (field::RECORD, left);
        }
        self.left = (left - taken) as u16;
        (next, skip as u32)
    }
}
