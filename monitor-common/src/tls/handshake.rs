//! What the handshake of a TLS connection says about the sizes of its records.

use super::{
    hello::{HelloFact, fact},
    record_walk::{RecordHeader, content_type},
};

/// Minor versions on the wire (RFC 8446 §4.1.2).
mod minor {
    pub(super) const TLS_1_3: u8 = 4;
}

/// Zeros that JSSE adds to each record of TLS 1.3.
const PADDING: u8 = 16;

/// Lengths of an unpadded record with a Finished message in TLS 1.3: a hash of the cipher suite's kind, a
/// header of 4 bytes, the content type and a tag of 16 bytes (RFC 8446 §4.4.4, §5.2). The tag has 16 bytes
/// in all suites but TLS_AES_128_CCM_8_SHA256, where neither length fits and no padding is found.
const FINISHED_SHA256: u8 = 32 + 4 + 1 + 16;
const FINISHED_SHA384: u8 = 48 + 4 + 1 + 16;
const TLS_AES_256_GCM_SHA384: u16 = 0x1302;

/// How much longer the record of a client's pong is than that of the ping: the masking key (RFC 6455 §5.2).
const MASK: i32 = 4;

/// Progress of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct TlsHandshake {
    facts: TlsFacts,
    /// A [`phase`].
    phase: u8,
    /// Length of an unpadded Finished record; 0 if it is not known.
    finished: u8,
    /// By which every record of the client and of the server is padded, bytes.
    client_padding: u8,
    server_padding: u8,
    _pad: [u8; 2],
}

mod phase {
    /// The hello was not seen: the connection is older than the walk.
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const HANDSHAKE: u8 = 1;
    /// The client sends encrypted messages, of which the server has not answered any.
    pub(super) const CLIENT_FLIGHT: u8 = 2;
    pub(super) const FINISHED: u8 = 3;
}

impl TlsHandshake {
    pub(super) const EMPTY: Self = Self {
        facts: TlsFacts(0),
        phase: phase::UNKNOWN,
        finished: 0,
        client_padding: 0,
        server_padding: 0,
        _pad: [0; 2],
    };

    #[inline(always)]
    pub(super) const fn facts(&self) -> TlsFacts {
        TlsFacts(self.facts.0 | TlsFacts::FOLLOWED)
    }

    /// Takes what a hello says.
    #[inline(always)]
    pub(super) fn hello(&mut self, fact: HelloFact) {
        let facts = &mut self.facts.0;
        let value = fact.value as u16;
        match fact.kind {
            fact::VERSION => {
                *facts = (*facts & !TlsFacts::VERSION) | (value & TlsFacts::VERSION);
            }
            fact::SUITE => {
                // The extension that says so may be cut off in a recording.
                if is_of_tls_1_3(value) {
                    *facts = (*facts & !TlsFacts::VERSION) | minor::TLS_1_3 as u16;
                }
                if !is_aead(value) {
                    *facts |= TlsFacts::BLOCK_CIPHER;
                }
                self.finished = if value == TLS_AES_256_GCM_SHA384 {
                    FINISHED_SHA384
                } else {
                    FINISHED_SHA256
                };
            }
            _ => *facts = (*facts & !TlsFacts::H2) | (TlsFacts::H2 * (value & 1)),
        }
    }

    /// Takes a record. Returns whether it holds data of the application, whose size can be compared with
    /// others.
    #[inline(always)]
    pub(super) fn record(&mut self, from_client: bool, header: &RecordHeader) -> bool {
        if header.content_type != content_type::APPLICATION_DATA {
            if header.content_type == content_type::HANDSHAKE && self.phase == phase::UNKNOWN {
                self.phase = phase::HANDSHAKE;
            }
            return false;
        }
        if matches!(self.phase, phase::HANDSHAKE | phase::CLIENT_FLIGHT) {
            let is_response = self.phase == phase::CLIENT_FLIGHT && !from_client;
            match self.facts.version() {
                Some(minor::TLS_1_3) if !is_response => {
                    self.finish(from_client, header.len);
                    return false;
                }
                // Early data precedes the ServerHello.
                None if from_client => return false,
                _ => self.phase = phase::FINISHED,
            }
        }
        !self.facts.is_refused()
    }

    /// In TLS 1.3 the rest of the handshake looks like data. Each side's last message in it is Finished, after
    /// which the client may send more. A side may pack its messages into one record, which shows nothing: such
    /// a side does not pad.
    #[inline(always)]
    fn finish(&mut self, from_client: bool, len: u16) {
        let (plain, padded) = (self.finished as u16, (self.finished + PADDING) as u16);
        let padding = if from_client {
            self.phase = phase::CLIENT_FLIGHT;
            &mut self.client_padding
        } else {
            &mut self.server_padding
        };
        if len == padded {
            *padding = PADDING;
        } else if len == plain {
            *padding = 0;
        }
    }

    /// The length of the ping's record to which one of `len` bytes is the pong; 0 if there is none.
    #[inline(always)]
    pub(super) fn ping_len(&self, from_client: bool, len: u16) -> u16 {
        let difference = MASK + self.client_padding as i32 - self.server_padding as i32;
        let ping = if from_client {
            len as i32 - difference
        } else {
            len as i32 + difference
        };
        if ping > 0 { ping as u16 } else { 0 }
    }
}

/// The suites of TLS 1.3 are in no other version (RFC 8446 §B.4).
#[inline(always)]
const fn is_of_tls_1_3(suite: u16) -> bool {
    matches!(suite, 0x1301..=0x1305)
}

/// Whether a cipher suite keeps sizes: those of TLS 1.3, and AES-GCM (RFC 5288, RFC 5289, RFC 5487), AES-CCM
/// (RFC 6655, RFC 7251) and ChaCha20 (RFC 7905) of TLS 1.2. The others in use are block ciphers in CBC mode,
/// which round to 16 bytes.
#[inline(always)]
const fn is_aead(suite: u16) -> bool {
    is_of_tls_1_3(suite)
        || matches!(
            suite,
            0x009c..=0x00ad | 0xc02b..=0xc032 | 0xc09c..=0xc0af | 0xcca8..=0xccae | 0xd001..=0xd005
        )
}

/// What is known of a TLS connection. Published as [`Snapshot::tls`](crate::snapshot::Snapshot::tls).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct TlsFacts(pub(crate) u16);

impl TlsFacts {
    const VERSION: u16 = 7;
    const H2: u16 = 1 << 3;
    const BLOCK_CIPHER: u16 = 1 << 4;
    /// Records were recognised.
    const FOLLOWED: u16 = 1 << 15;

    /// Whether the records of the connection are followed.
    #[inline(always)]
    pub const fn is_followed(self) -> bool {
        self.0 & Self::FOLLOWED != 0
    }

    /// The minor version that the server selected: 3 is TLS 1.2, 4 is TLS 1.3. `None` if the ServerHello
    /// was not seen.
    #[inline(always)]
    pub const fn version(self) -> Option<u8> {
        match (self.0 & Self::VERSION) as u8 {
            0 => None,
            minor => Some(minor),
        }
    }

    /// The client offered HTTP/2, and the server did not visibly select another protocol.
    #[inline(always)]
    pub const fn may_be_h2(self) -> bool {
        self.0 & Self::H2 != 0
    }

    /// The server selected a cipher suite that rounds sizes.
    #[inline(always)]
    pub const fn has_block_cipher(self) -> bool {
        self.0 & Self::BLOCK_CIPHER != 0
    }

    /// Whether nothing is inferred from its records.
    #[inline(always)]
    pub const fn is_refused(self) -> bool {
        self.may_be_h2() || self.has_block_cipher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a ServerHello says that ends after its cipher suite.
    fn version_of(suite: u16) -> Option<u8> {
        let mut handshake = TlsHandshake::EMPTY;
        handshake.hello(HelloFact::version(3));
        handshake.hello(HelloFact::suite(suite));
        handshake.facts().version()
    }

    #[test]
    fn the_suite_shows_tls_1_3_if_its_extension_is_cut_off() {
        assert_eq!(version_of(0x1301), Some(4));
        assert_eq!(version_of(0x1305), Some(4));
        assert_eq!(version_of(0xc02f), Some(3));
    }
}
